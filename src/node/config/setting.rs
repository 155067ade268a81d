//! Values of an `[[address]]`: what may be written, how it is read and shown.

use super::read::Given;
use super::size::{format_size, parse_size};
use crate::limits::ADDRESS_SIZE_MAX_BYTES;
use crate::shard::{Address, PolicySettings};

/// Longest name of a message's property in bytes.
const PROPERTY_SIZE_MAX: usize = 255;
/// What a factor is counted in: its three digits behind the point are exact.
const THOUSAND: u32 = 1000;

/// Type, range and field of one setting.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "the variants' fields are the range and the field of the settings"
)]
pub enum Setting {
    /// `true` or `false`.
    Flag(fn(&mut PolicySettings) -> &mut Option<bool>),
    /// A whole number; -1 for none if it is optional.
    Number {
        least: u64,
        most: u64,
        is_optional: bool,
        put: fn(&mut PolicySettings, Option<u64>),
        get: fn(&PolicySettings) -> Option<Option<u64>>,
    },
    /// A size in quotes; -1 for none.
    Size(fn(&mut PolicySettings) -> &mut Option<Option<u64>>),
    /// A number from 1 with up to three digits behind the point, kept in thousandths.
    Factor {
        most: u32,
        slot: fn(&mut PolicySettings) -> &mut Option<u32>,
    },
    /// An address; empty for none.
    Address(fn(&mut PolicySettings) -> &mut Option<Option<Box<str>>>),
    /// Name of a property of messages; empty for none.
    Property(fn(&mut PolicySettings) -> &mut Option<Option<Box<str>>>),
    /// One of these words, in any case.
    Word {
        words: &'static [&'static str],
        put: fn(&mut PolicySettings, usize),
        get: fn(&PolicySettings) -> Option<usize>,
    },
}

impl Setting {
    /// Says in words what may be written.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Flag(_) => "true or false".into(),
            Self::Number {
                least,
                most,
                is_optional,
                ..
            } => {
                let none = if is_optional { ", or -1 for none" } else { "" };
                format!("a whole number from {least} to {most}{none}")
            }
            Self::Size(_) => "a size from \"1B\", or -1 for none".into(),
            Self::Factor { most, .. } => format!(
                "a number from 1.0 to {}, up to three digits behind the point",
                show_factor(most)
            ),
            Self::Address(_) => format!(
                "an address of 1 to {ADDRESS_SIZE_MAX_BYTES} bytes without /queue/ or /topic/ and \
                 without wildcards, or \"\" for none"
            ),
            Self::Property(_) => {
                format!("a name of 1 to {PROPERTY_SIZE_MAX} bytes, or \"\" for none")
            }
            Self::Word { words, .. } => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                words.join(" or ")
            }
        }
    }

    /// Puts a value into its field; `None` when type or range is wrong, and nothing is changed.
    pub(super) fn read(self, settings: &mut PolicySettings, value: &Given) -> Option<()> {
        match self {
            Self::Flag(slot) => {
                let Given::Flag(flag) = value else {
                    return None;
                };
                *slot(settings) = Some(*flag);
            }
            Self::Number {
                least,
                most,
                is_optional,
                put,
                ..
            } => put(settings, number(value, least, most, is_optional)?),
            Self::Size(slot) => *slot(settings) = Some(optional_size(value)?),
            Self::Factor { most, slot } => *slot(settings) = Some(factor(value, most)?),
            Self::Address(slot) => *slot(settings) = Some(name(value, is_address)?),
            Self::Property(slot) => *slot(settings) = Some(name(value, is_property)?),
            Self::Word { words, put, .. } => {
                let Given::Text(text) = value else {
                    return None;
                };
                let is_same = |word: &&str| word.eq_ignore_ascii_case(text);
                put(settings, words.iter().position(is_same)?);
            }
        }
        Some(())
    }

    /// Writes the value as TOML; none if it is not set.
    pub(super) fn show(self, settings: &PolicySettings) -> Option<String> {
        // The slots lend mutably, so the value is read from a copy: `config check` can afford it.
        let copy = &mut settings.clone();
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "-1".into());
        Some(match self {
            Self::Flag(slot) => (*slot(copy))?.to_string(),
            Self::Number { get, .. } => or_none(get(copy)?.map(|number| number.to_string())),
            Self::Size(slot) => {
                or_none((*slot(copy))?.map(|bytes| format!("\"{}\"", format_size(bytes))))
            }
            Self::Factor { slot, .. } => show_factor((*slot(copy))?),
            Self::Address(slot) | Self::Property(slot) => {
                format!("{:?}", slot(copy).take()?.unwrap_or_default())
            }
            Self::Word { words, get, .. } => format!("{:?}", words[get(copy)?]),
        })
    }
}

/// A whole number in this range, or none.
pub(super) fn number(
    value: &Given,
    least: u64,
    most: u64,
    is_optional: bool,
) -> Option<Option<u64>> {
    match value {
        Given::Integer(-1) if is_optional => Some(None),
        Given::Integer(number) => {
            let number = u64::try_from(*number).ok()?;
            (least..=most).contains(&number).then_some(Some(number))
        }
        _ => None,
    }
}

/// A size, or none.
pub(super) fn optional_size(value: &Given) -> Option<Option<u64>> {
    let bytes = match value {
        Given::Integer(-1) => return Some(None),
        Given::Integer(number) => u64::try_from(*number).ok()?,
        Given::Text(text) => parse_size(text)?,
        _ => return None,
    };
    (bytes > 0).then_some(Some(bytes))
}

/// Reads a factor digit by digit: no fraction is rounded.
fn factor(value: &Given, most: u32) -> Option<u32> {
    let thousandths = match value {
        Given::Integer(number) => u32::try_from(*number).ok()?.checked_mul(THOUSAND)?,
        Given::Fraction(text) => {
            let (whole, fraction) = text.split_once('.')?;
            let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if fraction.len() > 3 || !is_digits(whole) || !is_digits(fraction) {
                return None;
            }
            let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
            let whole: u32 = whole.parse().ok()?;
            whole.checked_mul(THOUSAND)?.checked_add(fraction)?
        }
        _ => return None,
    };
    (THOUSAND..=most)
        .contains(&thousandths)
        .then_some(thousandths)
}

/// Writes a factor with a point, which TOML wants, and no more digits than it needs.
fn show_factor(thousandths: u32) -> String {
    let text = format!("{}.{:03}", thousandths / THOUSAND, thousandths % THOUSAND);
    let short = text.trim_end_matches('0');
    let point = if short.ends_with('.') { "0" } else { "" };
    format!("{short}{point}")
}

fn name(value: &Given, is_fit: fn(&str) -> bool) -> Option<Option<Box<str>>> {
    match value {
        Given::Text(text) if text.is_empty() => Some(None),
        Given::Text(text) => is_fit(text).then(|| Some(text.as_str().into())),
        _ => None,
    }
}

fn is_address(text: &str) -> bool {
    !has_prefix(text) && Address::parse(text.as_bytes()).is_ok()
}

/// Whether it says queue or topic, as STOMP destinations do and addresses never do.
pub(super) fn has_prefix(text: &str) -> bool {
    text.starts_with("/queue/") || text.starts_with("/topic/")
}

fn is_property(text: &str) -> bool {
    text.len() <= PROPERTY_SIZE_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fraction(text: &str) -> Given {
        Given::Fraction(text.into())
    }

    #[test]
    fn a_factor_is_exact_or_refused() {
        let most = 100_000;
        assert_eq!(factor(&fraction("1.5"), most), Some(1500));
        assert_eq!(factor(&fraction("2.125"), most), Some(2125));
        assert_eq!(factor(&Given::Integer(2), most), Some(2000));
        for wrong in [
            "0.5", "1.0001", "1e1", "-1.5", "inf", "nan", "100.001", "+1.5",
        ] {
            assert_eq!(factor(&fraction(wrong), most), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_factor_shown_reads_back(thousandths in 1000u32..=100_000) {
            let shown = show_factor(thousandths);
            prop_assert_eq!(factor(&fraction(&shown), 100_000), Some(thousandths));
        }
    }
}
