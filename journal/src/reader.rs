//! Walking a segment file piecewise: for tools, and the look at one place that recovery shares.
//!
//! Principles: never writes; decodes as much as possible; drops no information. What is no block
//! of this segment is reported with its place and cause, not skipped over.
//! Refuses to know: what the journal as a whole means (that is [`crate::recovery`]).

use core::fmt;

use crate::format::{Block, BlockHeader, FormatError, SECTOR_SIZE, SEGMENT_HEAD_SIZE, SegmentHead};
use crate::{JournalId, SegmentId, ShardId};

mod stream;
pub(crate) use stream::Stream;

/// Bytes a reader asks for at once unless told otherwise.
pub const READ_SIZE_BYTES: u32 = 1 << 20;

/// One read of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The file, as its owner numbered it.
    pub file: u32,
    /// Byte offset, a multiple of 4 KiB.
    pub offset: u64,
    /// Bytes, a multiple of 4 KiB.
    pub len: u32,
}

/// Why a read gave no bytes. Fewer bytes than asked for are a failed read too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refused with this error number.
    Io {
        /// `errno`.
        code: i32,
    },
    /// The file ends before the bytes.
    Short,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { code } => write!(f, "read failed with error {code}"),
            Self::Short => write!(f, "file ends too early"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Whose blocks are read back. With it a segment's number names one use of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The journal.
    pub journal: JournalId,
    /// The shard.
    pub shard: ShardId,
}

impl Owner {
    /// Finds the sound blocks at the start of `bytes`, which were read at `offset` of a segment of
    /// this owner; the error is what ended the search.
    ///
    /// Shape: `blocks` gets where in `bytes` each starts and ends.
    /// Errors: no sound block is there, or one that belongs elsewhere.
    pub fn sound_blocks(
        &self,
        bytes: &[u8],
        segment: SegmentId,
        offset: u64,
        blocks: &mut Vec<(u32, u32)>,
    ) -> Result<(), FormatError> {
        let mut at = 0;
        while at < bytes.len() {
            let Block { header, .. } = Block::decode(&bytes[at..])?;
            let checks = [
                ("journal", header.place.journal == self.journal),
                ("shard", header.place.shard == self.shard),
                ("segment", header.place.segment == segment),
                ("offset", header.offset == offset + at as u64),
            ];
            if let Some(&(name, _)) = checks.iter().find(|(_, is_same)| !is_same) {
                return Err(FormatError::Foreign { name });
            }
            let end = at + header.block_size as usize;
            blocks.push((at as u32, end as u32));
            at = end;
        }
        Ok(())
    }
}

/// What lies where a block of a segment could begin.
pub(crate) enum Look<'a> {
    /// Not read far enough to tell.
    NeedMore,
    /// A sound block that belongs here.
    Block(Block<'a>),
    /// A sound header that belongs elsewhere: left by a former use of the file, or misdirected.
    Stale {
        header: BlockHeader,
        differs: &'static str,
    },
    /// A sector of zeros.
    Zero,
    /// Neither: torn, rotted, or the middle of something.
    Damage {
        header: Option<BlockHeader>,
        cause: FormatError,
    },
    /// The disk does not give it back.
    Unreadable,
}

/// Looks at the place where `stream` stands. `head` says what belongs there.
pub(crate) fn look_at<'a>(stream: &'a Stream, head: &SegmentHead) -> Look<'a> {
    let bytes = stream.bytes();
    let needs = |needed: usize, header| {
        if stream.is_complete() {
            Look::Damage {
                header,
                cause: FormatError::Truncated {
                    needed,
                    found: bytes.len(),
                },
            }
        } else {
            Look::NeedMore
        }
    };
    if bytes.len() < SECTOR_SIZE {
        return needs(SECTOR_SIZE, None);
    }
    if stream.is_bad(SECTOR_SIZE) {
        return Look::Unreadable;
    }
    let header = match BlockHeader::decode(bytes) {
        Ok(header) => header,
        Err(_) if is_zero(&bytes[..SECTOR_SIZE]) => return Look::Zero,
        Err(cause) => {
            return Look::Damage {
                header: None,
                cause,
            };
        }
    };
    if let Err(cause) = header.check_place(head, stream.offset()) {
        let FormatError::Foreign { name } = cause else {
            return Look::Damage {
                header: Some(header),
                cause,
            };
        };
        return Look::Stale {
            header,
            differs: name,
        };
    }
    let block_size = header.block_size as usize;
    if bytes.len() < block_size {
        return needs(block_size, Some(header));
    }
    if stream.is_bad(block_size) {
        return Look::Unreadable;
    }
    match Block::decode(bytes) {
        Ok(block) => Look::Block(block),
        Err(cause) => Look::Damage {
            header: Some(header),
            cause,
        },
    }
}

/// Whether all bytes are zero. Shape: whole sectors.
pub(crate) fn is_zero(sectors: &[u8]) -> bool {
    bytemuck::try_cast_slice::<u8, u64>(sectors).map_or_else(
        |_| sectors.iter().all(|&byte| byte == 0),
        |words| words.iter().all(|&word| word == 0),
    )
}

/// What a reader does behind something that is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reports it and stops.
    Strict,
    /// Reports it and searches on, sector by sector, for the next block.
    Lenient,
}

/// One stretch of a segment file, in order of offset, without gaps.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A sound block that belongs here.
    Block {
        /// Byte offset in the file.
        offset: u64,
        /// The block; [`Block::records`] walks it.
        block: Block<'a>,
        /// Its bytes, header included.
        bytes: &'a [u8],
    },
    /// A sound header that belongs elsewhere.
    Stale {
        /// Byte offset in the file.
        offset: u64,
        /// Bytes of the stretch: the block if its payload is whole, else one sector.
        size: u64,
        /// The header.
        header: BlockHeader,
        /// The field that tells.
        differs: &'static str,
    },
    /// Zeros: never written.
    Unused {
        /// Byte offset in the file.
        offset: u64,
        /// Bytes of the stretch.
        size: u64,
    },
    /// Neither blocks nor zeros.
    Damage {
        /// Byte offset in the file.
        offset: u64,
        /// Bytes of the stretch.
        size: u64,
        /// The header at its start, if that much is sound.
        header: Option<BlockHeader>,
        /// What is wrong at its start; `None` when the disk does not give it back.
        cause: Option<FormatError>,
    },
}

#[derive(Clone, Copy)]
struct Run {
    offset: u64,
    is_zero: bool,
    header: Option<BlockHeader>,
    cause: Option<FormatError>,
}

/// Walks the blocks of one segment file.
///
/// Use: while [`Self::poll_read`] asks, answer with [`Self::handle_read`]; between the reads,
/// [`Self::next_found`] until it returns `None`.
pub struct SegmentReader {
    head: SegmentHead,
    stream: Stream,
    mode: Mode,
    run: Option<Run>,
    /// Bytes of the stretch returned last, not yet consumed because it was borrowed.
    pending: usize,
    is_stopped: bool,
}

impl SegmentReader {
    /// Reads a segment whose head is known; `file` is handed back in the requests.
    ///
    /// Units: `file_size` in bytes; a file shorter than its head says is read as far as it goes.
    pub fn new(file: u32, head: SegmentHead, file_size: u64, mode: Mode) -> Self {
        Self::by_reads_of(READ_SIZE_BYTES, file, head, file_size, mode)
    }

    /// Likewise, with reads of at most so many bytes (rounded up to sectors).
    pub fn by_reads_of(
        read_size_bytes: u32,
        file: u32,
        head: SegmentHead,
        file_size: u64,
        mode: Mode,
    ) -> Self {
        let end = head.size.min(file_size) / SECTOR_SIZE as u64 * SECTOR_SIZE as u64;
        Self {
            head,
            stream: Stream::new(file, SEGMENT_HEAD_SIZE as u64, end, read_size_bytes),
            mode,
            run: None,
            pending: 0,
            is_stopped: false,
        }
    }

    /// The next read that is needed, if any.
    pub fn poll_read(&self) -> Option<ReadRequest> {
        if self.is_stopped {
            None
        } else {
            self.stream.request()
        }
    }

    /// Takes the answer to the last [`Self::poll_read`]. Cost: copies the bytes once.
    pub fn handle_read(&mut self, result: Result<&[u8], ReadError>) {
        self.consume_pending();
        self.stream.accept(result);
    }

    /// The next stretch, or `None` when more has to be read, or all was.
    pub fn next_found(&mut self) -> Option<Found<'_>> {
        self.consume_pending();
        loop {
            if self.is_stopped {
                return None;
            }
            if self.stream.is_complete() && self.stream.bytes().is_empty() {
                return self.run.take().map(|run| run.found(self.stream.offset()));
            }
            match look_at(&self.stream, &self.head) {
                Look::NeedMore => return None,
                Look::Block(_) | Look::Stale { .. } if self.run.is_some() => {
                    return self.run.take().map(|run| run.found(self.stream.offset()));
                }
                Look::Block(_) => return Some(self.block()),
                Look::Stale { header, differs } => return self.stale(header, differs),
                Look::Zero => {
                    if let Some(found) = self.extend(true, None, None) {
                        return Some(found);
                    }
                }
                Look::Damage { header, cause } => {
                    if let Some(found) = self.extend(false, header, Some(cause)) {
                        return Some(found);
                    }
                }
                Look::Unreadable => {
                    if let Some(found) = self.extend(false, None, None) {
                        return Some(found);
                    }
                }
            }
        }
    }

    fn consume_pending(&mut self) {
        self.stream.consume(core::mem::take(&mut self.pending));
    }

    fn block(&mut self) -> Found<'_> {
        let offset = self.stream.offset();
        let block = Block::decode(self.stream.bytes()).expect("looked at just before");
        self.pending = block.header.block_size as usize;
        Found::Block {
            offset,
            block,
            bytes: &self.stream.bytes()[..self.pending],
        }
    }

    fn stale(&mut self, header: BlockHeader, differs: &'static str) -> Option<Found<'_>> {
        let whole = header.block_size as usize;
        if self.stream.bytes().len() < whole && !self.stream.is_complete() {
            return None;
        }
        let is_whole = Block::decode(self.stream.bytes()).is_ok();
        let size = if is_whole { whole } else { SECTOR_SIZE };
        let offset = self.stream.offset();
        self.pending = size;
        self.is_stopped = self.mode == Mode::Strict;
        Some(Found::Stale {
            offset,
            size: size as u64,
            header,
            differs,
        })
    }

    /// Takes one more sector into the current run; returns the run before it if that was another.
    fn extend(
        &mut self,
        is_zero: bool,
        header: Option<BlockHeader>,
        cause: Option<FormatError>,
    ) -> Option<Found<'static>> {
        let offset = self.stream.offset();
        let starts_other = self
            .run
            .is_some_and(|run| run.is_zero != is_zero || header.is_some());
        let ended = if starts_other { self.run.take() } else { None };
        let run = *self.run.get_or_insert(Run {
            offset,
            is_zero,
            header,
            cause,
        });
        self.stream
            .consume(SECTOR_SIZE.min(self.stream.bytes().len()));
        if self.mode == Mode::Strict {
            self.is_stopped = true;
            self.run = None;
            return Some(run.found(self.stream.offset()));
        }
        ended.map(|run| run.found(offset))
    }
}

impl Run {
    fn found(self, end: u64) -> Found<'static> {
        let Self {
            offset,
            is_zero,
            header,
            cause,
        } = self;
        let size = end - offset;
        if is_zero {
            Found::Unused { offset, size }
        } else {
            Found::Damage {
                offset,
                size,
                header,
                cause,
            }
        }
    }
}
