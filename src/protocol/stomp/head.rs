//! Header lines of one frame: cut, checked and, if wanted, decoded.

use memchr::{memchr, memchr_iter, memchr2};

use super::error::ErrorKind;
use super::escape::{self, Escapes, Value};
use super::version::Version;

/// How the lines of a frame are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) escapes: Escapes,
    /// CR before LF belongs to the line end, not to the value.
    pub(super) allows_crlf: bool,
    /// Blanks around key and value do not count.
    pub(super) trims: bool,
}

impl Rules {
    /// `CONNECT` is read before a version is known: never escaped (STOMP 1.2 "Value Encoding"),
    /// and a client of 1.2 may end its lines with CR LF. Trimming for 1.0 is done by the reader.
    pub(super) const CONNECT: Self = Self {
        escapes: Escapes::None,
        allows_crlf: true,
        trims: false,
    };

    /// Returns the rules of all other frames.
    pub(super) const fn of(version: Version) -> Self {
        match version {
            // The examples of 1.0 pad their values, and its clients are of all kinds: STOMP 1.2
            // "Value Encoding" tells the story.
            Version::V1_0 => Self {
                escapes: Escapes::None,
                allows_crlf: true,
                trims: true,
            },
            // STOMP 1.1 "Augmented BNF": a line ends with LF; CR is an octet like others.
            Version::V1_1 => Self {
                escapes: Escapes::V1_1,
                allows_crlf: false,
                trims: false,
            },
            // STOMP 1.2 "Augmented BNF": EOL = [CR] LF; "Value Encoding": never trim.
            Version::V1_2 => Self {
                escapes: Escapes::V1_2,
                allows_crlf: true,
                trims: false,
            },
        }
    }
}

/// The header lines of a frame, not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    lines: &'a str,
    rules: Rules,
    /// Neither backslash nor CR anywhere.
    is_plain: bool,
    /// As many colons as lines.
    has_one_colon_each: bool,
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// Place of the line with its end within all lines.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
    /// Whether the octets are already the canonical form of 1.2, line end included.
    pub(super) is_canonical: bool,
}

impl<'a> Headers<'a> {
    /// Looks over all lines at once. `lines` is empty or ends with LF and holds `line_count` LFs.
    ///
    /// Errors: `InvalidUtf8` (STOMP 1.2 "Value Encoding").
    pub(super) fn read(
        lines: &'a [u8],
        line_count: usize,
        rules: Rules,
    ) -> Result<Self, ErrorKind> {
        let text = std::str::from_utf8(lines).map_err(|_| ErrorKind::InvalidUtf8)?;
        Ok(Self {
            lines: text,
            rules,
            is_plain: memchr2(b'\\', b'\r', lines).is_none(),
            has_one_colon_each: memchr_iter(b':', lines).count() == line_count,
        })
    }

    /// Reads a stored head back ([`super::StoredHead`]): canonical lines of STOMP 1.2.
    ///
    /// Returns none when the bytes are not such lines: then they are damaged.
    pub fn from_stored(stored: &'a [u8]) -> Option<Self> {
        if stored.last().is_some_and(|last| *last != b'\n') {
            return None;
        }
        let line_count = memchr_iter(b'\n', stored).count();
        let headers = Self::read(stored, line_count, Rules::of(Version::V1_2)).ok()?;
        headers
            .lines()
            .all(|line| line.is_ok_and(|line| line.is_canonical))
            .then_some(headers)
    }

    /// Returns keys and values in the order of arrival, repeated ones included.
    pub fn iter(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> + use<'a> {
        let headers = *self;
        // The lines of a frame that was given out are all sound, so nothing is cut short here.
        self.lines()
            .map_while(Result::ok)
            .map(move |line| (headers.value(line.key), headers.value(line.value)))
    }

    /// Returns the value of the first header of that name.
    ///
    /// Source: STOMP 1.2 "Repeated Header Entries". `name` must need no escaping.
    pub fn first(&self, name: &str) -> Option<Value<'a>> {
        self.iter()
            .find(|(key, _)| key.raw() == name)
            .map(|(_, value)| value)
    }

    /// Returns the name of a durable subscription, if the headers have one.
    ///
    /// Source: `activemq.subscriptionName` of ActiveMQ, two of Artemis, and one of our own, which
    /// names a durable one only where another header says so.
    pub fn durable_name(&self) -> Option<Value<'a>> {
        let names = [
            "activemq.subscriptionName",
            "durable-subscriber-name",
            "durable-subscription-name",
        ];
        let own = || {
            let is_durable = self.first("durable")?.raw() == "true";
            self.first("subscription-name").filter(|_| is_durable)
        };
        names
            .into_iter()
            .find_map(|name| self.first(name))
            .or_else(own)
    }

    /// Wraps the text of a line of these headers.
    pub(super) fn value(&self, text: &'a str) -> Value<'a> {
        let may_be_escaped = !self.is_plain && self.rules.escapes != Escapes::None;
        if may_be_escaped && memchr(b'\\', text.as_bytes()).is_some() {
            Value::escaped(text)
        } else {
            Value::plain(text)
        }
    }

    pub(super) const fn lines_text(&self) -> &'a str {
        self.lines
    }

    pub(super) fn lines(&self) -> Lines<'a> {
        Lines {
            headers: *self,
            rest: self.lines,
            start: 0,
        }
    }
}

/// Walks over header lines and checks each.
#[derive(Clone, Debug)]
pub(super) struct Lines<'a> {
    headers: Headers<'a>,
    rest: &'a str,
    start: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, ErrorKind>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (text, rest) = cut(self.rest, b'\n').unwrap_or((self.rest, ""));
        let start = self.start;
        let end = start + (self.rest.len() - rest.len());
        self.rest = rest;
        self.start = end;
        Some(self.headers.line(text, start, end))
    }
}

impl<'a> Headers<'a> {
    #[inline]
    fn line(&self, text: &'a str, start: usize, end: usize) -> Result<Line<'a>, ErrorKind> {
        // STOMP 1.2 "Augmented BNF": header-name ":" header-value, the name at least one octet.
        let (mut key, mut value) = cut(text, b':').ok_or(ErrorKind::HeaderWithoutColon)?;
        let mut is_canonical = self.is_plain && self.has_one_colon_each;
        if !is_canonical {
            value = self.check_line(text, key, value)?;
            is_canonical = self.is_line_canonical(text, value);
        }
        if self.rules.trims {
            let padded_len = key.len() + value.len();
            (key, value) = (key.trim(), value.trim());
            is_canonical &= key.len() + value.len() == padded_len;
        }
        if key.is_empty() {
            return Err(ErrorKind::EmptyHeaderName);
        }
        Ok(Line {
            start,
            end,
            key,
            value,
            is_canonical,
        })
    }

    /// Checks a line of a head that holds backslashes, CRs or odd colons somewhere; returns the
    /// value without the CR of the line end.
    #[cold]
    fn check_line(&self, text: &str, key: &str, value: &'a str) -> Result<&'a str, ErrorKind> {
        let value = match value.strip_suffix('\r') {
            Some(bare) if self.rules.allows_crlf => bare,
            _ => value,
        };
        // STOMP 1.2 "Augmented BNF": no CR within name or value. 1.0 has no such rule.
        let has_cr = key.contains('\r') || value.contains('\r');
        if self.rules.escapes == Escapes::V1_2 && has_cr {
            return Err(ErrorKind::CarriageReturnInHeader);
        }
        escape::check(text, self.rules.escapes)?;
        Ok(value)
    }

    /// A colon within the value is tolerated (the first one ends the name, so it is no riddle),
    /// but what we write ourselves has it escaped.
    fn is_line_canonical(&self, text: &str, value: &str) -> bool {
        let has_backslash = memchr(b'\\', text.as_bytes()).is_some();
        let is_escaped_right = self.rules.escapes != Escapes::None || !has_backslash;
        let has_cr = memchr(b'\r', text.as_bytes()).is_some();
        is_escaped_right && !has_cr && memchr(b':', value.as_bytes()).is_none()
    }
}

/// Cuts at the first `octet`, an ASCII one, and drops it.
#[inline]
fn cut(text: &str, octet: u8) -> Option<(&str, &str)> {
    let at = memchr(octet, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}
