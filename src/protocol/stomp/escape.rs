//! Escaping of header keys and values, per version.
//!
//! Source: STOMP 1.2 "Value Encoding", STOMP 1.1 "Value Encoding". The sequences of 1.1 are a
//! part of those of 1.2, so text that passed [`check`] is decoded by one function for both.

use std::borrow::Cow;

use memchr::memchr;

use super::error::ErrorKind;
use super::version::Version;

/// Which escape sequences a frame may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    /// A backslash is a backslash: `CONNECT` of all versions, and everything in 1.0.
    None,
    /// `\n`, `\c`, `\\`.
    V1_1,
    /// `\r`, `\n`, `\c`, `\\`.
    V1_2,
}

/// A header key or value, still as it came.
///
/// Shape: borrows from the input; checked to be UTF-8 with only defined escape sequences.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    raw: &'a str,
    is_escaped: bool,
}

impl<'a> Value<'a> {
    /// Makes a value of text that holds no escape sequences.
    pub const fn plain(text: &'a str) -> Self {
        Self {
            raw: text,
            is_escaped: false,
        }
    }

    pub(super) const fn escaped(raw: &'a str) -> Self {
        Self {
            raw,
            is_escaped: true,
        }
    }

    /// Returns the text as it stands on the wire (of 1.0: without its padding).
    pub const fn raw(&self) -> &'a str {
        self.raw
    }

    /// Returns the meaning: borrowed when nothing is escaped, which is nearly always.
    pub fn decode(&self) -> Cow<'a, str> {
        if self.is_escaped {
            decode(self.raw)
        } else {
            Cow::Borrowed(self.raw)
        }
    }

    /// Returns the same value without blanks at its ends; only STOMP 1.0 trims.
    pub(super) fn trimmed(&self) -> Self {
        Self {
            raw: self.raw.trim(),
            is_escaped: self.is_escaped,
        }
    }
}

/// Checks that every backslash begins a sequence the version defines.
///
/// Errors: `UndefinedEscape`, fatal by STOMP 1.1 and 1.2 "Value Encoding".
pub(super) fn check(text: &str, escapes: Escapes) -> Result<(), ErrorKind> {
    if escapes == Escapes::None {
        return Ok(());
    }
    let mut rest = text.as_bytes();
    while let Some(at) = memchr(b'\\', rest) {
        let octet = rest.get(at + 1).copied();
        match octet {
            Some(b'n' | b'c' | b'\\') => {}
            Some(b'r') if escapes == Escapes::V1_2 => {}
            _ => return Err(ErrorKind::UndefinedEscape { octet }),
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    Ok(())
}

/// Undoes the escaping of text that passed [`check`].
fn decode(raw: &str) -> Cow<'_, str> {
    if memchr(b'\\', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(found) = rest.next() {
        if found != '\\' {
            text.push(found);
            continue;
        }
        match rest.next() {
            Some('r') => text.push('\r'),
            Some('n') => text.push('\n'),
            Some('c') => text.push(':'),
            // Checked text has only the backslash left here.
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    Cow::Owned(text)
}

/// Whether `raw`, which passed [`check`], means `text`. Allocates nothing.
pub(super) fn means(raw: &str, text: &str) -> bool {
    let mut wanted = text.chars();
    let mut rest = raw.chars();
    while let Some(found) = rest.next() {
        let meant = match found {
            '\\' => match rest.next() {
                Some('r') => '\r',
                Some('n') => '\n',
                Some('c') => ':',
                Some(other) => other,
                None => '\\',
            },
            plain => plain,
        };
        if wanted.next() != Some(meant) {
            return false;
        }
    }
    wanted.next().is_none()
}

/// Appends `text` escaped for a receiver of `version`.
///
/// What a version cannot carry does not break its framing: NUL (no version has a sequence for
/// it) becomes U+FFFD; LF stays the two octets backslash and n in 1.0, which has no escaping.
/// Source: STOMP 1.2 "Value Encoding"; for 1.0 `docs/conformance.md`.
pub(super) fn push_escaped(out: &mut Vec<u8>, text: &str, version: Version) {
    let is_special = |octet: &u8| matches!(octet, b'\\' | b':' | b'\n' | b'\r' | 0);
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(is_special) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((octet, after)) = special.split_first() else {
            break;
        };
        push_special(out, *octet, version);
        rest = after;
    }
    out.extend_from_slice(rest);
}

fn push_special(out: &mut Vec<u8>, octet: u8, version: Version) {
    match (octet, version) {
        (0, _) => out.extend_from_slice("\u{fffd}".as_bytes()),
        (b'\n', _) => out.extend_from_slice(b"\\n"),
        (b'\\', Version::V1_1 | Version::V1_2) => out.extend_from_slice(b"\\\\"),
        (b':', Version::V1_1 | Version::V1_2) => out.extend_from_slice(b"\\c"),
        (b'\r', Version::V1_2) => out.extend_from_slice(b"\\r"),
        (other, _) => out.push(other),
    }
}

/// Appends stored 1.2 header lines, written for a receiver of `version`.
///
/// Cost: one copy when the receiver speaks 1.2 or the lines hold no backslash.
/// For 1.0 only the values are unescaped: a bare colon in a key would move its end.
pub(super) fn push_stored(out: &mut Vec<u8>, stored: &[u8], version: Version) {
    if version == Version::V1_2 || memchr(b'\\', stored).is_none() {
        out.extend_from_slice(stored);
        return;
    }
    let mut is_key = true;
    let mut rest = stored.iter().copied();
    while let Some(octet) = rest.next() {
        match octet {
            b'\n' => is_key = true,
            b':' => is_key = false,
            _ => {}
        }
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        let sequence = rest.next().unwrap_or(b'\\');
        match (sequence, version) {
            (b'r', Version::V1_1) => out.push(b'\r'),
            (b'r', Version::V1_0) if !is_key => out.push(b'\r'),
            (b'c', Version::V1_0) if !is_key => out.push(b':'),
            (b'\\', Version::V1_0) => out.push(b'\\'),
            _ => out.extend_from_slice(&[b'\\', sequence]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_defined_sequences_pass() {
        let undefined = |octet| Err(ErrorKind::UndefinedEscape { octet });
        assert_eq!(check(r"a\nb\cc\\", Escapes::V1_1), Ok(()));
        assert_eq!(check(r"\r", Escapes::V1_1), undefined(Some(b'r')));
        assert_eq!(check(r"\r", Escapes::V1_2), Ok(()));
        assert_eq!(check(r"\t", Escapes::V1_2), undefined(Some(b't')));
        assert_eq!(check(r"\\\", Escapes::V1_2), undefined(None));
        assert_eq!(check(r"\t\", Escapes::None), Ok(()));
    }

    #[test]
    fn sequences_are_read_from_left_to_right() {
        assert_eq!(Value::escaped(r"\\n\n\\\c").decode(), "\\n\n\\:");
        assert_eq!(Value::plain(r"\n").decode(), r"\n");
        for raw in [r"\\n\n\\\c", "plain", "", r"a\r"] {
            let text = Value::escaped(raw).decode();
            assert!(means(raw, &text));
            assert!(!means(raw, &format!("{text}x")) && !means(&format!("{raw}x"), &text));
        }
    }

    #[test]
    fn each_receiver_gets_what_its_version_can_carry() {
        let stored = b"k\\cy:a\\nb\\rc\\\\d\\ce\n";
        let mut out = Vec::new();
        push_stored(&mut out, stored, Version::V1_2);
        assert_eq!(out, stored);
        out.clear();
        push_stored(&mut out, stored, Version::V1_1);
        assert_eq!(out, b"k\\cy:a\\nb\rc\\\\d\\ce\n");
        out.clear();
        push_stored(&mut out, stored, Version::V1_0);
        assert_eq!(out, b"k\\cy:a\\nb\rc\\d:e\n");
    }

    #[test]
    fn nothing_written_can_end_a_line_or_a_frame() {
        for version in [Version::V1_0, Version::V1_1, Version::V1_2] {
            let mut out = Vec::new();
            push_escaped(&mut out, "a\nb\0c\r:\\", version);
            assert!(
                !out.contains(&b'\n') && !out.contains(&0),
                "{version:?} wrote {out:?}"
            );
        }
    }
}
