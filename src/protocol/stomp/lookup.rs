//! Names looked up in a stored head, many times for one message: its lines are cut once.

use std::cell::OnceCell;

use memchr::memchr;

use super::escape::{Value, means};

/// A stored head ([`super::StoredHead`]) to look up names in.
///
/// Cost: cutting takes one pass; a lookup compares names. Nothing is allocated, unless a value
/// that has an escape sequence is asked for: then all such are decoded, once.
#[derive(Debug)]
pub struct StoredLookup<'a> {
    text: &'a str,
    /// Where the name and the line of each of the first lines end.
    cuts: [(usize, usize); CUTS_MAX],
    cut_count: usize,
    has_escapes: bool,
    /// Where each value with an escape begins, in order, and what it means.
    decoded: OnceCell<Vec<(usize, Box<str>)>>,
}

/// Lines that are cut ahead: more than nearly any message has. Those behind are searched.
const CUTS_MAX: usize = 32;

impl<'a> StoredLookup<'a> {
    /// Cuts the lines. Bytes that are no head have no names.
    pub fn new(stored: &'a [u8]) -> Self {
        let text = std::str::from_utf8(stored).unwrap_or("");
        let text = if text.ends_with('\n') { text } else { "" };
        let mut this = Self {
            text,
            cuts: [(0, 0); CUTS_MAX],
            cut_count: 0,
            has_escapes: memchr(b'\\', text.as_bytes()).is_some(),
            decoded: OnceCell::new(),
        };
        let lines = Lines { text, at: 0 };
        for (cut, (_, colon, end)) in this.cuts.iter_mut().zip(lines) {
            *cut = (colon, end);
            this.cut_count += 1;
        }
        this
    }

    /// The value of the first header of that name, decoded.
    ///
    /// Source: STOMP 1.2 "Repeated Header Entries".
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut start = 0;
        for &(colon, end) in self.cuts.iter().take(self.cut_count) {
            if self.is_named(start, colon, name) {
                return Some(self.value(colon + 1, end));
            }
            start = end + 1;
        }
        let rest = Lines {
            text: self.text,
            at: start,
        };
        for (start, colon, end) in rest {
            if self.is_named(start, colon, name) {
                return Some(self.value(colon + 1, end));
            }
        }
        None
    }

    fn is_named(&self, start: usize, colon: usize, name: &str) -> bool {
        let key = &self.text[start..colon];
        if self.has_escapes {
            means(key, name)
        } else {
            key == name
        }
    }

    fn value(&self, start: usize, end: usize) -> &str {
        let raw = &self.text[start..end];
        if !self.has_escapes || memchr(b'\\', raw.as_bytes()).is_none() {
            return raw;
        }
        let decoded = self.decoded.get_or_init(|| self.decode_all());
        let mut decoded = decoded.iter();
        let found = decoded.find(|(of, _)| *of == start);
        found.map_or(raw, |(_, text)| text)
    }

    #[cold]
    fn decode_all(&self) -> Vec<(usize, Box<str>)> {
        let lines = Lines {
            text: self.text,
            at: 0,
        };
        let values = lines.map(|(_, colon, end)| (colon + 1, &self.text[colon + 1..end]));
        values
            .filter(|(_, raw)| raw.contains('\\'))
            .map(|(start, raw)| (start, Value::escaped(raw).decode().into()))
            .collect()
    }
}

/// Places of the start, the colon and the end of each line; ends where there is no line any more.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = (usize, usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let rest = self.text.as_bytes().get(start..)?;
        let end = start + memchr(b'\n', rest)?;
        let colon = start + memchr(b':', rest.get(..end - start)?)?;
        self.at = end + 1;
        Some((start, colon, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_counts_wherever_it_stands() {
        let mut head = String::from("a:1\na:2\nk\\cy:v\\cw\\n\nempty:\n");
        (0..100).for_each(|number| head.push_str(&format!("h{number}:v{number}\n")));
        head.push_str("far:a\\\\b\n");
        let lookup = StoredLookup::new(head.as_bytes());
        assert_eq!(lookup.get("a"), Some("1"));
        assert_eq!(lookup.get("k:y"), Some("v:w\n"));
        assert_eq!(lookup.get("k\\cy"), None);
        assert_eq!(lookup.get("empty"), Some(""));
        assert_eq!(lookup.get("h0"), Some("v0"));
        assert_eq!(lookup.get("h99"), Some("v99"));
        assert_eq!(lookup.get("far"), Some("a\\b"));
        assert_eq!(lookup.get("missing"), None);
    }

    #[test]
    fn what_is_no_head_has_no_names() {
        for bytes in [&b""[..], b"a:1", b"\xff:1\n", b"a\n", b"\n"] {
            let lookup = StoredLookup::new(bytes);
            assert_eq!(lookup.get("a"), None, "{bytes:?}");
            assert_eq!(lookup.get(""), None, "{bytes:?}");
        }
    }
}
