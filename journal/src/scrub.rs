//! Reads a sealed segment again and says what of it is not as it was written, while a writer goes
//! on in later ones.
//!
//! Principles: sans-IO, as [`SegmentReader`] is; never writes; knows of damage only what bytes
//! prove: a block that is missing is told by the one that should follow it, in this segment or at
//! the start of the next. Behind the last block that counts anything may lie.
//! Refuses to know: where the log ends (that is [`crate::recovery`]), and what is still needed.

use core::fmt;
use std::collections::VecDeque;

use crate::format::{
    Block, BlockHeader, Checksum, FormatError, SECTOR_SIZE, SEGMENT_HEAD_SIZE, SegmentHead,
};
use crate::reader::{Found, Mode, ReadError, ReadRequest, SegmentReader};
use crate::{BlockNumber, Lsn};

/// Bytes of one read: little enough to disturb no writer, and the largest block.
const READ_SIZE_BYTES: u32 = 256 * 1024;

/// A place between two blocks of the chain: what the next one says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joint {
    /// Its number.
    pub number: BlockNumber,
    /// LSN of its first record.
    pub lsn: Lsn,
    /// Identity of the block before it.
    pub previous: Checksum,
}

impl Joint {
    /// The place before a block.
    pub const fn before(header: &BlockHeader) -> Self {
        Self {
            number: header.number,
            lsn: header.first_lsn,
            previous: header.previous,
        }
    }

    /// The place behind a block.
    pub fn after(header: &BlockHeader) -> Self {
        Self {
            number: header.number.next(),
            lsn: header.next_lsn(),
            previous: header.identity,
        }
    }

    fn differs(&self, other: &Self) -> Option<&'static str> {
        let checks = [
            ("number", self.number == other.number),
            ("first_lsn", self.lsn == other.lsn),
            ("previous", self.previous == other.previous),
        ];
        let differing = checks.iter().find(|(_, is_same)| !is_same);
        differing.map(|(name, _)| *name)
    }
}

/// Where the blocks of a segment that count end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Before the first block of the segment behind.
    Before(Joint),
    /// At this byte offset.
    At(u64),
    /// Nobody knows: what is behind the last sound block is not judged.
    Unknown,
}

/// What is wrong somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The head of the file.
    Head(FormatError),
    /// No sound block lies where one was written.
    Block(FormatError),
    /// The disk does not give it back.
    Unreadable,
    /// Zeros, where a block was written.
    Zeros,
    /// A block of another place or a former use; the field that tells.
    Stale(&'static str),
    /// Sound, but not what follows the block before; the field that tells.
    Chain(&'static str),
    /// A sound block with an unsound record.
    Record(FormatError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(cause) => write!(f, "the head of the file is not sound: {cause}"),
            Self::Block(cause) => write!(f, "no sound block: {cause}"),
            Self::Unreadable => write!(f, "the disk does not give it back"),
            Self::Zeros => write!(f, "zeros where a block was written"),
            Self::Stale(field) => write!(f, "a block of another place: {field} differs"),
            Self::Chain(field) => write!(f, "does not follow the block before: {field} differs"),
            Self::Record(cause) => write!(f, "a sound block holds an unsound record: {cause}"),
        }
    }
}

/// One damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes of it, as far as they are told from what follows; a sector at least.
    pub size: u64,
    /// The first record that is lost with it, if that can be said.
    pub lsn_from: Option<Lsn>,
    /// The last one, if that can be said; below `lsn_from` if what is lost holds none.
    pub lsn_upto: Option<Lsn>,
    /// What is wrong.
    pub fault: Fault,
}

/// Something that is no block, until it is known whether one should be there.
#[derive(Clone, Copy)]
struct Stretch {
    offset: u64,
    size: u64,
    fault: Fault,
}

/// Checks one segment.
///
/// Use: while [`Self::poll_read`] asks, answer with [`Self::handle_read`] and take what
/// [`Self::poll_flaw`] has; then [`Self::finish`], and take again.
pub struct Scrub {
    reader: SegmentReader,
    /// What the next block has to be; unknown before the first.
    next: Option<Joint>,
    end: End,
    /// Byte offset behind the last block that counts.
    behind: u64,
    stretch: Option<Stretch>,
    flaws: VecDeque<Flaw>,
    is_over: bool,
}

impl Scrub {
    /// Checks the segment with this head. `start` is what its first block has to be, if that is
    /// known.
    ///
    /// Units: `file_size` in bytes.
    pub fn new(head: SegmentHead, file_size: u64, start: Option<Joint>, end: End) -> Self {
        let mode = Mode::Lenient;
        let size = match end {
            End::At(offset) => file_size.min(offset),
            End::Before(_) | End::Unknown => file_size,
        };
        Self {
            reader: SegmentReader::by_reads_of(READ_SIZE_BYTES, 0, head, size, mode),
            next: start,
            end,
            behind: SEGMENT_HEAD_SIZE as u64,
            stretch: None,
            flaws: VecDeque::new(),
            is_over: false,
        }
    }

    /// Whether the head of a file is the one it was given.
    pub fn check_head(sector: Result<&[u8], ReadError>, head: &SegmentHead) -> Option<Flaw> {
        let fault = match sector.map(SegmentHead::decode) {
            Err(_) => Fault::Unreadable,
            Ok(Err(cause)) => Fault::Head(cause),
            Ok(Ok(found)) => {
                let checks = [
                    ("journal", found.journal == head.journal),
                    ("shard", found.shard == head.shard),
                    ("segment", found.segment == head.segment),
                    ("generation", found.generation == head.generation),
                    ("epoch", found.epoch == head.epoch),
                    ("size", found.size == head.size),
                ];
                let (name, _) = checks.into_iter().find(|(_, is_same)| !is_same)?;
                Fault::Head(FormatError::Foreign { name })
            }
        };
        Some(Flaw {
            offset: 0,
            size: SECTOR_SIZE as u64,
            lsn_from: None,
            lsn_upto: None,
            fault,
        })
    }

    /// The next read, if more has to be read.
    pub fn poll_read(&self) -> Option<ReadRequest> {
        let is_at_end = |next| self.end == End::Before(next) && self.stretch.is_none();
        if self.is_over || self.next.is_some_and(is_at_end) {
            return None;
        }
        self.reader.poll_read()
    }

    /// Takes the answer to the last [`Self::poll_read`].
    pub fn handle_read(&mut self, result: Result<&[u8], ReadError>) {
        self.reader.handle_read(result);
        self.walk();
    }

    /// What was found damaged, once each, in order of offset.
    pub fn poll_flaw(&mut self) -> Option<Flaw> {
        self.flaws.pop_front()
    }

    /// Byte offset behind the last block that counts, as far as was read.
    pub const fn behind(&self) -> u64 {
        self.behind
    }

    /// All is read: looks whether the last block is the one before the next segment's first.
    /// Returns what the block behind this segment has to be, if that is known.
    pub fn finish(&mut self) -> Option<Joint> {
        self.is_over = true;
        let end = match self.end {
            End::Before(end) => end,
            End::At(_) => {
                if let Some(stretch) = self.stretch.take() {
                    self.lose(stretch, None);
                    self.next = None;
                }
                return self.next;
            }
            End::Unknown => return self.next,
        };
        let differs = match &self.next {
            Some(next) => next.differs(&end),
            // Not one sound block in a segment that another one follows.
            None => Some("number"),
        };
        if let Some(field) = differs {
            self.lose_upto(&end, field);
        }
        Some(end)
    }

    fn walk(&mut self) {
        while !self.is_over
            && let Some(found) = self.reader.next_found()
        {
            let (offset, size, fault) = match found {
                Found::Block { offset, block, .. } => {
                    let seen = (offset, block.header, unsound_record(&block));
                    self.block(seen);
                    continue;
                }
                Found::Unused { offset, size } => (offset, size, Fault::Zeros),
                Found::Stale {
                    offset,
                    size,
                    differs,
                    ..
                } => (offset, size, Fault::Stale(differs)),
                Found::Damage {
                    offset,
                    size,
                    cause,
                    ..
                } => (offset, size, cause.map_or(Fault::Unreadable, Fault::Block)),
            };
            match &mut self.stretch {
                Some(stretch) => stretch.size = offset + size - stretch.offset,
                None => {
                    self.stretch = Some(Stretch {
                        offset,
                        size,
                        fault,
                    });
                }
            }
        }
    }

    fn block(&mut self, (offset, header, unsound): (u64, BlockHeader, Option<FormatError>)) {
        let found = Joint::before(&header);
        if let End::Before(end) = self.end
            && found.number >= end.number
        {
            // Behind the seal of its epoch, or of nothing that counts.
            self.is_over = true;
            return;
        }
        let is_first = offset == SEGMENT_HEAD_SIZE as u64;
        let differs = match &self.next {
            Some(next) => next.differs(&found),
            None if is_first => None,
            None => Some("offset"),
        };
        if let Some(field) = differs {
            self.lose_upto(&found, field);
        }
        self.stretch = None;
        self.behind = offset + u64::from(header.block_size);
        self.next = Some(Joint::after(&header));
        if let Some(cause) = unsound {
            self.flaws.push_back(Flaw {
                offset,
                size: header.block_size.into(),
                lsn_from: Some(header.first_lsn),
                lsn_upto: Some(header.next_lsn().before()),
                fault: Fault::Record(cause),
            });
        }
    }

    /// What lies before `found` is not what was written.
    fn lose_upto(&mut self, found: &Joint, field: &'static str) {
        let chain = Stretch {
            offset: self.behind,
            size: SECTOR_SIZE as u64,
            fault: Fault::Chain(field),
        };
        let stretch = self.stretch.take().unwrap_or(chain);
        self.lose(stretch, Some(found.lsn.before()));
    }

    fn lose(&mut self, stretch: Stretch, lsn_upto: Option<Lsn>) {
        self.flaws.push_back(Flaw {
            offset: stretch.offset,
            size: stretch.size,
            lsn_from: self.next.map(|next| next.lsn),
            lsn_upto,
            fault: stretch.fault,
        });
    }
}

fn unsound_record(block: &Block<'_>) -> Option<FormatError> {
    block.records().find_map(Result::err)
}
