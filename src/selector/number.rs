//! Numbers: Java's literals in selectors, and header texts that look like numbers.

use super::error::{ParseErrorKind, shorten};
use super::value::Number;

/// A literal as it is written, without its sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NumberLiteral {
    /// Decimal digits: 2^63 is right only behind a minus.
    Decimal(u64),
    /// With a point, an exponent or a suffix `f` or `d`.
    Float(f64),
    /// Hexadecimal, octal or binary: all 64 bits, so the highest is the sign.
    Radix(i64),
}

/// Reads a literal: `digits` is everything that clings together from its first digit on.
///
/// Source: Java language specification 3.10.1 and 3.10.2. Integers are longs whether or not `L`
/// says so (Jakarta Messaging 3.1, 3.8.1.1). Hexadecimal fractions are refused.
pub(super) fn parse(digits: &str) -> Result<NumberLiteral, ParseErrorKind> {
    let malformed = || ParseErrorKind::MalformedNumber {
        found: shorten(digits),
    };
    let plain = without_underscores(digits).ok_or_else(malformed)?;
    let lower = plain.to_ascii_lowercase();
    let integer = lower.strip_suffix('l').unwrap_or(&lower);
    let (radix, significant) = if let Some(rest) = integer.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = integer.strip_prefix("0b") {
        (2, rest)
    } else if lower.contains(['.', 'e', 'f', 'd']) {
        return parse_float(&lower).ok_or_else(malformed)?.ok_or_else(|| {
            ParseErrorKind::NumberOutOfRange {
                found: shorten(digits),
            }
        });
    } else if integer.len() > 1 && integer.starts_with('0') {
        (8, integer)
    } else {
        (10, integer)
    };
    if significant.is_empty() || !significant.chars().all(|digit| digit.is_digit(radix)) {
        return Err(malformed());
    }
    match u64::from_str_radix(significant, radix) {
        Ok(value) if radix == 10 => Ok(NumberLiteral::Decimal(value)),
        Ok(value) => Ok(NumberLiteral::Radix(value.cast_signed())),
        Err(_) => Err(ParseErrorKind::NumberOutOfRange {
            found: shorten(digits),
        }),
    }
}

/// Takes underscores out; none if one does not stand between digits.
fn without_underscores(digits: &str) -> Option<String> {
    let radix = if digits.starts_with("0x") || digits.starts_with("0X") {
        16
    } else {
        10
    };
    let groups = digits.split('_').filter(|group| !group.is_empty());
    let is_digit = |letter: Option<char>| letter.is_some_and(|letter| letter.is_digit(radix));
    let stands = |before: &str, after: &str| {
        is_digit(before.chars().next_back()) && is_digit(after.chars().next())
    };
    let is_inside = !digits.ends_with('_')
        && groups
            .clone()
            .zip(groups.clone().skip(1))
            .all(|(before, after)| stands(before, after));
    is_inside.then(|| groups.collect())
}

/// None if it is no number, `Some(None)` if Java could not hold it.
fn parse_float(lower: &str) -> Option<Option<NumberLiteral>> {
    let is_single = lower.ends_with('f');
    let plain = lower.strip_suffix(['f', 'd']).unwrap_or(lower);
    let mantissa = plain.split('e').next().unwrap_or_default();
    if !plain.bytes().all(is_float_octet) {
        return None;
    }
    let value = if is_single {
        plain.parse::<f32>().ok().map(f64::from)
    } else {
        plain.parse::<f64>().ok()
    }?;
    let is_lost = value == 0.0 && mantissa.contains(|digit| matches!(digit, '1'..='9'));
    Some((value.is_finite() && !is_lost).then_some(NumberLiteral::Float(value)))
}

const fn is_float_octet(octet: u8) -> bool {
    matches!(octet, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
}

/// Reads a header's text as a number if it looks like one: a sign, digits, a point, an exponent.
/// No white space, suffix, other radix, `NaN` or `Infinity`.
pub(super) fn looks_like(text: &str) -> Option<Number> {
    let first = *text.as_bytes().first()?;
    if !matches!(first, b'0'..=b'9' | b'.' | b'+' | b'-') {
        return None;
    }
    if let Ok(value) = text.parse() {
        return Some(Number::Int(value));
    }
    if !text.bytes().all(is_float_octet) {
        return None;
    }
    text.parse().ok().map(Number::Float)
}
