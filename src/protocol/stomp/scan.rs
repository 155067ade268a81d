//! Finds the end of a head, once: what was searched is not searched again when more arrives.
//!
//! Rules that need no look into the lines are held here, byte by byte in the order of arrival, so
//! that the answer does not depend on how the bytes were cut: the command, its moment, NUL before
//! the empty line, and the bounds of the head.

use memchr::memchr2_iter;

use super::command::Command;
use super::error::ErrorKind;
use super::limits::Limits;

/// How far the search of one head has come. All positions count from the start of the frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadScan {
    scanned: usize,
    line_start: usize,
    line_count: usize,
    lines_start: usize,
    command: Option<Command>,
}

/// A head that is all there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) command: Command,
    /// Where the header lines begin, after the command line.
    pub(super) lines_start: usize,
    /// Where they end: behind the LF of the last one.
    pub(super) lines_end: usize,
    /// Bytes of the head with the empty line.
    pub(super) len: usize,
    pub(super) line_count: usize,
}

impl HeadScan {
    /// Returns whether nothing of the frame was seen yet.
    pub(super) const fn is_fresh(&self) -> bool {
        self.scanned == 0
    }

    /// Returns how many bytes were searched, all of which the caller still has to hold.
    pub(super) const fn scanned(&self) -> usize {
        self.scanned
    }

    /// Returns the header lines seen whole so far: a receipt may be among them.
    pub(super) fn lines_seen<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame
            .get(self.lines_start..self.line_start)
            .unwrap_or_default()
    }

    /// Searches on. `admit` judges the command as soon as its line is there; it answers whether
    /// an empty line may be CR LF in such a frame.
    ///
    /// Returns none while the head is not all there.
    /// Errors: `UnknownCommand`, `NulInHead`, `TooManyHeaders`, `HeadTooLong`, and `admit`'s.
    pub(super) fn advance(
        &mut self,
        frame: &[u8],
        limits: &Limits,
        admit: impl Fn(Command) -> Result<bool, ErrorKind>,
    ) -> Result<Option<Head>, ErrorKind> {
        let reach = frame.len().min(limits.header_bytes_max);
        let from = self.scanned;
        let unseen = frame.get(from..reach).unwrap_or_default();
        for found in memchr2_iter(b'\n', 0, unseen) {
            let at = from + found;
            let line = frame.get(self.line_start..at).unwrap_or_default();
            let is_nul = frame.get(at) == Some(&0);
            if let Some(head) = self.line(line, at, is_nul, limits, &admit)? {
                return Ok(Some(head));
            }
        }
        self.scanned = reach;
        // STOMP 1.2 "Client Frames": no need to wait for the end of what is no command.
        if self.command.is_none() && frame.len() > Command::LINE_LEN_MAX {
            return Err(ErrorKind::UnknownCommand);
        }
        // STOMP 1.2 "Size Limits".
        if frame.len() >= limits.header_bytes_max {
            return Err(ErrorKind::HeadTooLong {
                max: limits.header_bytes_max,
            });
        }
        Ok(None)
    }

    fn line(
        &mut self,
        line: &[u8],
        at: usize,
        is_nul: bool,
        limits: &Limits,
        admit: impl Fn(Command) -> Result<bool, ErrorKind>,
    ) -> Result<Option<Head>, ErrorKind> {
        let Some(command) = self.command else {
            self.command = Some(command_of(line, is_nul, &admit)?);
            self.lines_start = at + 1;
            self.line_start = at + 1;
            return Ok(None);
        };
        // STOMP 1.2 "STOMP Frames": the head ends with an empty line, and only then a body may
        // hold NUL. Waiting on would let the next frame be read as headers of this one.
        if is_nul {
            return Err(ErrorKind::NulInHead);
        }
        if line.is_empty() || (line == b"\r" && admit(command)?) {
            return Ok(Some(Head {
                command,
                lines_start: self.lines_start,
                lines_end: self.line_start,
                len: at + 1,
                line_count: self.line_count,
            }));
        }
        self.line_count += 1;
        self.line_start = at + 1;
        // STOMP 1.2 "Size Limits".
        if self.line_count > limits.header_count_max {
            return Err(ErrorKind::TooManyHeaders {
                max: limits.header_count_max,
            });
        }
        Ok(None)
    }
}

/// Reads the command line; a CR before its LF is judged by `admit`'s answer.
fn command_of(
    line: &[u8],
    is_nul: bool,
    admit: impl Fn(Command) -> Result<bool, ErrorKind>,
) -> Result<Command, ErrorKind> {
    if line.len() > Command::LINE_LEN_MAX {
        return Err(ErrorKind::UnknownCommand);
    }
    if is_nul {
        return Err(ErrorKind::NulInHead);
    }
    let (name, has_cr) = match line.strip_suffix(b"\r") {
        Some(name) => (name, true),
        None => (line, false),
    };
    let command = Command::parse(name).ok_or(ErrorKind::UnknownCommand)?;
    let allows_crlf = admit(command)?;
    if has_cr && !allows_crlf {
        return Err(ErrorKind::UnknownCommand);
    }
    Ok(command)
}
