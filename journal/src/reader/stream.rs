//! Sequential reading of a byte range of one file, sans-IO: requests out, bytes in.
//!
//! A failed read is narrowed down to its sectors; those that stay unreadable are kept as zeros
//! and remembered, so that a bad sector costs the block it lies in and nothing before it.

use super::{ReadError, ReadRequest};
use crate::format::SECTOR_SIZE;

const SECTOR: u64 = SECTOR_SIZE as u64;

#[derive(Clone, Debug)]
pub(crate) struct Stream {
    file: u32,
    /// File offset of `bytes[0]`.
    base: u64,
    /// File offset where the range ends.
    end: u64,
    read_size: u64,
    bytes: Vec<u8>,
    /// Bytes at the front that the owner is done with.
    consumed: usize,
    /// Offsets of unreadable sectors, rising; none before the consumed part.
    bad: Vec<u64>,
    /// A read that ended here failed: go by sector up to here.
    by_sector_upto: u64,
    /// Why the last read failed.
    error: ReadError,
}

impl Stream {
    /// Reads `from..end` of `file`, at most `read_size` bytes at a time (rounded to sectors).
    pub(crate) fn new(file: u32, from: u64, end: u64, read_size: u32) -> Self {
        Self {
            file,
            base: from,
            end: end.max(from),
            read_size: u64::from(read_size).next_multiple_of(SECTOR).max(SECTOR),
            bytes: Vec::new(),
            consumed: 0,
            bad: Vec::new(),
            by_sector_upto: 0,
            error: ReadError::Short,
        }
    }

    /// The next read, if the range is not read to its end.
    pub(crate) fn request(&self) -> Option<ReadRequest> {
        self.read_at(self.base + self.bytes.len() as u64)
    }

    /// The reads behind the next one, if none fails.
    pub(crate) fn upcoming(&self) -> impl Iterator<Item = ReadRequest> + '_ {
        let behind = move |one: &ReadRequest| self.read_behind(one);
        core::iter::successors(self.request(), behind).skip(1)
    }

    /// All reads of a range of a file, if none fails. Shape: see [`Self::new`].
    pub(crate) fn reads(
        file: u32,
        from: u64,
        end: u64,
        read_size: u32,
    ) -> impl Iterator<Item = ReadRequest> {
        let stream = Self::new(file, from, end, read_size);
        let first = stream.request();
        core::iter::successors(first, move |one| stream.read_behind(one))
    }

    fn read_behind(&self, one: &ReadRequest) -> Option<ReadRequest> {
        self.read_at(one.offset + u64::from(one.len))
    }

    fn read_at(&self, offset: u64) -> Option<ReadRequest> {
        let left = self.end - offset;
        let size = if offset < self.by_sector_upto {
            SECTOR
        } else {
            self.read_size
        };
        (left > 0).then(|| ReadRequest {
            file: self.file,
            offset,
            len: left.min(size) as u32,
        })
    }

    /// Takes the answer to [`Self::request`]. Fewer bytes than asked for are a failed read.
    pub(crate) fn accept(&mut self, result: Result<&[u8], ReadError>) {
        let Some(request) = self.request() else {
            return;
        };
        self.bytes.drain(..self.consumed);
        self.base += self.consumed as u64;
        self.consumed = 0;
        let wanted = request.len as usize;
        if let Err(error) = result {
            self.error = error;
        }
        match result {
            Ok(bytes) if bytes.len() >= wanted => self.bytes.extend_from_slice(&bytes[..wanted]),
            _ if u64::from(request.len) > SECTOR => {
                self.by_sector_upto = request.offset + u64::from(request.len);
            }
            _ => {
                self.bad.push(request.offset);
                self.bytes.resize(self.bytes.len() + wanted, 0);
            }
        }
    }

    /// What was read and not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    /// File offset of the first byte of [`Self::bytes`].
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.consumed as u64
    }

    /// Whether nothing will follow behind [`Self::bytes`].
    pub(crate) fn is_complete(&self) -> bool {
        self.request().is_none()
    }

    /// Whether one of the next `len` bytes could not be read.
    pub(crate) fn is_bad(&self, len: usize) -> bool {
        let until = self.offset() + len as u64;
        self.bad.first().is_some_and(|&offset| offset < until)
    }

    /// Why the last read that failed did.
    pub(crate) fn error(&self) -> ReadError {
        self.error
    }

    /// Moves on by `len` bytes, at most what is there.
    pub(crate) fn consume(&mut self, len: usize) {
        self.consumed = (self.consumed + len).min(self.bytes.len());
        let offset = self.offset();
        self.bad.retain(|&bad| bad >= offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_sector_costs_itself_alone() {
        let mut stream = Stream::new(3, SECTOR, 9 * SECTOR, 4 * SECTOR as u32);
        let mut reads = 0;
        while let Some(request) = stream.request() {
            assert_eq!(request.file, 3);
            let range = request.offset..request.offset + u64::from(request.len);
            let bytes = vec![7; request.len as usize];
            let is_bad = range.contains(&(6 * SECTOR));
            let foreseen = stream.upcoming().next();
            stream.accept(if is_bad {
                Err(ReadError::Io { code: 5 })
            } else {
                Ok(&bytes)
            });
            assert!(
                stream.request() == foreseen || is_bad,
                "it goes on as foreseen, unless a read fails"
            );
            reads += 1;
        }
        assert_eq!(
            reads,
            1 + 1 + 4,
            "one good read, one bad one, its four sectors"
        );
        assert!(!stream.is_bad(5 * SECTOR_SIZE));
        assert!(stream.is_bad(5 * SECTOR_SIZE + 1));
        stream.consume(5 * SECTOR_SIZE);
        assert_eq!(stream.bytes()[..SECTOR_SIZE], [0; SECTOR_SIZE]);
        stream.consume(SECTOR_SIZE);
        assert!(!stream.is_bad(2 * SECTOR_SIZE));
        assert_eq!(stream.bytes(), [7; 2 * SECTOR_SIZE]);
    }
}
