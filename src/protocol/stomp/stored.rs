//! The header lines that stay with a message, in the one form they are stored in.
//!
//! The form: lines `key:value` + LF, escaped as STOMP 1.2 says, first come first. It is copied
//! from the input as it stands wherever the client wrote it so already, which is nearly always.

use super::escape::push_escaped;
use super::head::{Headers, Line};
use super::version::Version;

/// Header lines worth keeping with a message.
///
/// Shape: [`StoredHead::parts`] in order, back to back, are canonical STOMP 1.2 header lines:
/// each ends with LF, none is hop-by-hop, none is one that the broker sets on delivery.
/// Empty when there are none. Read it back with [`Headers::from_stored`].
/// Cost: slices of the input, no allocation, unless a line had to be written anew: of 1.0 with a
/// backslash, a colon or blanks, with CR LF ends, with a bare colon in a value.
/// Units: [`StoredHead::len`] is at most twice `header_bytes_max`.
#[derive(Debug, Default)]
pub struct StoredHead<'a> {
    runs: [&'a [u8]; RUNS_MAX],
    run_count: usize,
    /// What follows the runs, written anew.
    written: Vec<u8>,
    len: usize,
}

/// `SEND` has four lines that a client usually sends and that are not kept (destination,
/// receipt, transaction, content-length), so what is kept falls into five runs at most.
const RUNS_MAX: usize = 5;

impl<'a> StoredHead<'a> {
    /// Returns the slices to copy, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let written = (!self.written.is_empty()).then_some(self.written.as_slice());
        self.runs
            .iter()
            .take(self.run_count)
            .copied()
            .chain(written)
    }

    /// Returns all of it as one slice of the input, where it is one: nearly always.
    pub fn single_run(&self) -> Option<&'a [u8]> {
        match (self.run_count, self.written.is_empty()) {
            (0, true) => Some(&[]),
            (1, true) => self.runs.first().copied(),
            _ => None,
        }
    }

    /// Returns the bytes of all parts together.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no line is kept.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether all of it are slices of the input: nothing was allocated.
    pub const fn is_borrowed(&self) -> bool {
        self.written.is_empty()
    }

    fn push_run(&mut self, run: &'a [u8]) {
        self.len += run.len();
        match self.runs.get_mut(self.run_count) {
            Some(slot) if self.written.is_empty() => {
                *slot = run;
                self.run_count += 1;
            }
            _ => self.written.extend_from_slice(run),
        }
    }
}

/// Gathers a [`StoredHead`] line by line.
pub(super) struct StoredHeadBuilder<'a> {
    headers: Headers<'a>,
    head: StoredHead<'a>,
    /// The run that is still growing, as places within the lines.
    start: usize,
    end: usize,
}

impl<'a> StoredHeadBuilder<'a> {
    #[inline]
    pub(super) fn new(headers: Headers<'a>) -> Self {
        Self {
            headers,
            head: StoredHead::default(),
            start: 0,
            end: 0,
        }
    }

    #[inline]
    pub(super) fn keep(&mut self, line: &Line<'a>) {
        if !line.is_canonical {
            return self.rewrite(line);
        }
        if line.start != self.end {
            self.close_run();
            self.start = line.start;
        }
        self.end = line.end;
    }

    #[cold]
    fn rewrite(&mut self, line: &Line<'a>) {
        self.close_run();
        (self.start, self.end) = (line.end, line.end);
        let len_before = self.head.written.len();
        let key = self.headers.value(line.key).decode();
        let value = self.headers.value(line.value).decode();
        push_line(&mut self.head.written, &key, &value);
        self.head.len += self.head.written.len() - len_before;
    }

    fn close_run(&mut self) {
        let lines = self.headers.lines_text().as_bytes();
        match lines.get(self.start..self.end) {
            Some(run) if !run.is_empty() => self.head.push_run(run),
            _ => {}
        }
    }

    #[inline]
    pub(super) fn finish(mut self) -> StoredHead<'a> {
        self.close_run();
        self.head
    }
}

/// Appends one header line in the stored form: for messages that come by another protocol.
///
/// `key` must not be empty. NUL, which STOMP cannot carry in headers, becomes U+FFFD.
pub fn push_line(out: &mut Vec<u8>, key: &str, value: &str) {
    push_escaped(out, key, Version::V1_2);
    out.push(b':');
    push_escaped(out, value, Version::V1_2);
    out.push(b'\n');
}
