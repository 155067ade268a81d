//! Blocks read back from disk, for messages that left the block cache.
//!
//! Whole blocks are read and verified, several at a time, and the next ones are read ahead: a
//! queue is drained in the order it was written. Bounded; what goes first is what no reader comes
//! to, then what the next one comes to last.

mod readers;
#[cfg(test)]
mod tests;

use forebay_journal::reader::Owner;
use forebay_journal::storage::IoFailure;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Location, SegmentId};

pub(super) use readers::Reader;
use readers::{Ahead, Readers, Spot};

use crate::limits::{
    READ_AHEAD_CHUNKS, READ_BACK_CHUNK_SIZE_BYTES, READ_BACK_CHUNKS_MAX, READ_BACK_INFLIGHT_MAX,
};

/// A read the runtime has to do.
#[derive(Debug)]
pub struct ColdRead {
    /// Comes back with the completion.
    pub chunk: u32,
    /// The segment.
    pub segment: SegmentId,
    /// Byte offset in its file.
    pub offset: u64,
    /// Memory to read into; the end of the file may leave its rest as it was.
    pub buffer: ReadBuffer,
}

/// A block that should be there and is not sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdFailure {
    /// The segment.
    pub segment: SegmentId,
    /// Byte offset in its file.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

#[derive(Debug)]
struct Chunk {
    segment: SegmentId,
    offset: u64,
    /// None while it is being read.
    buffer: Option<ReadBuffer>,
    /// Start and end of each sound block, in order.
    blocks: Vec<(u32, u32)>,
    used: u64,
    /// Whether a message waits for its first block, so that it has to be sound.
    is_wanted: bool,
    /// Whether nothing sound was found behind it when that was read ahead.
    is_last: bool,
}

impl Chunk {
    /// Byte offset of what follows it.
    fn end(&self) -> u64 {
        let size = match (&self.buffer, self.blocks.last()) {
            (None, _) => READ_BACK_CHUNK_SIZE_BYTES,
            (Some(_), last) => last.map_or(0, |(_, end)| (*end).into()),
        };
        self.offset + size
    }

    fn holds(&self, segment: SegmentId, offset: u64) -> bool {
        self.segment == segment && (self.offset..self.end()).contains(&offset)
    }
}

/// What is to be read.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    segment: SegmentId,
    offset: u64,
    /// Whether a message waits for it, else it is read ahead.
    is_needed: bool,
}

/// The block that was asked for last: the next message is likely to lie in it as well.
#[derive(Clone, Copy, Debug)]
struct Found {
    reader: Reader,
    segment: SegmentId,
    offset: u64,
    chunk: usize,
    /// Where it lies in the chunk; empty if no block starts there.
    start: u32,
    end: u32,
}

#[derive(Debug)]
pub(super) struct ColdBlocks {
    /// Whose blocks they have to be.
    owner: Owner,
    chunks: Vec<Option<Chunk>>,
    spare: Vec<ReadBuffer>,
    wanted: Vec<Wanted>,
    readers: Readers,
    last: Option<Found>,
    clock: u64,
}

/// What is known of a block.
pub(super) enum Cold<'a> {
    /// Its bytes.
    Here(&'a [u8]),
    /// It is being read.
    Coming,
}

impl ColdBlocks {
    pub(super) fn new(owner: Owner) -> Self {
        Self {
            owner,
            chunks: Vec::new(),
            spare: Vec::new(),
            wanted: Vec::new(),
            readers: Readers::default(),
            last: None,
            clock: 0,
        }
    }

    /// Looks for the block of `location`; asks for it if it is not here.
    pub(super) fn block_at(&mut self, location: Location, reader: Reader) -> Cold<'_> {
        let (segment, offset) = (location.segment(), location.block_offset());
        let is_it = |last: &Found| {
            last.offset == offset && last.segment == segment && last.reader == reader
        };
        if !self.last.as_ref().is_some_and(is_it) {
            self.last = self.look(reader, segment, offset);
        }
        let Some(found) = self.last else {
            return Cold::Coming;
        };
        let chunk = self.chunks[found.chunk].as_ref();
        match chunk.and_then(|chunk| chunk.buffer.as_ref()) {
            Some(buffer) => Cold::Here(&buffer[found.start as usize..found.end as usize]),
            None => Cold::Coming,
        }
    }

    fn look(&mut self, reader: Reader, segment: SegmentId, offset: u64) -> Option<Found> {
        self.readers.note(reader, Spot::new(segment, offset));
        let Some(at) = self.chunk_of(segment, offset) else {
            self.want(segment, offset, true);
            return None;
        };
        self.read_ahead(at);
        self.clock += 1;
        let chunk = self.chunks[at].as_mut()?;
        chunk.used = self.clock;
        chunk.buffer.as_ref()?;
        let key = (offset - chunk.offset) as u32;
        let found = chunk.blocks.binary_search_by_key(&key, |(start, _)| *start);
        // Not the start of a block: then the location is not one of this journal's.
        let (start, end) = found.map_or((0, 0), |found| chunk.blocks[found]);
        Some(Found {
            reader,
            segment,
            offset,
            chunk: at,
            start,
            end,
        })
    }

    fn chunk_of(&self, segment: SegmentId, offset: u64) -> Option<usize> {
        let mut chunks = self.chunks.iter();
        chunks.position(|chunk| chunk.as_ref().is_some_and(|c| c.holds(segment, offset)))
    }

    fn want(&mut self, segment: SegmentId, offset: u64, is_needed: bool) {
        let mut wanted = self.wanted.iter_mut();
        let known = wanted.find(|one| (one.segment, one.offset) == (segment, offset));
        match known {
            Some(known) => known.is_needed |= is_needed,
            None => self.wanted.push(Wanted {
                segment,
                offset,
                is_needed,
            }),
        }
    }

    /// Asks for the first chunk behind this one that is not here, of so many.
    fn read_ahead(&mut self, mut at: usize) {
        for _ in 0..READ_AHEAD_CHUNKS {
            let Some(chunk) = self.chunks[at].as_ref().filter(|c| c.buffer.is_some()) else {
                return;
            };
            if chunk.is_last {
                return;
            }
            let (segment, next) = (chunk.segment, chunk.end());
            match self.chunk_of(segment, next) {
                Some(found) => at = found,
                None => return self.want(segment, next, false),
            }
        }
    }

    /// The next read to start.
    pub(super) fn poll_read(&mut self) -> Option<ColdRead> {
        while !self.wanted.is_empty() {
            let chunks = self.chunks.iter().flatten();
            let reading = chunks.filter(|chunk| chunk.buffer.is_none()).count();
            if reading >= READ_BACK_INFLIGHT_MAX as usize {
                return None;
            }
            // What a message waits for comes before what is read ahead.
            let needed = self.wanted.iter().position(|one| one.is_needed);
            let wanted = self.wanted.remove(needed.unwrap_or(0));
            let is_here = self.chunk_of(wanted.segment, wanted.offset).is_some();
            if !is_here && let Some(at) = self.free_chunk(wanted) {
                return Some(self.begin(at, wanted));
            }
        }
        None
    }

    fn begin(&mut self, at: usize, wanted: Wanted) -> ColdRead {
        let (segment, offset) = (wanted.segment, wanted.offset);
        self.readers.count_read();
        self.last = None;
        let spare = self.spare.pop();
        let new = || ReadBuffer::new(READ_BACK_CHUNK_SIZE_BYTES as usize);
        self.chunks[at] = Some(Chunk {
            segment,
            offset,
            buffer: None,
            blocks: Vec::new(),
            used: self.clock,
            is_wanted: wanted.is_needed,
            is_last: false,
        });
        ColdRead {
            chunk: at as u32,
            segment,
            offset,
            buffer: spare.unwrap_or_else(new),
        }
    }

    /// A place for what is wanted; none if it is read ahead and all that is here is needed sooner.
    fn free_chunk(&mut self, wanted: Wanted) -> Option<usize> {
        if let Some(free) = self.chunks.iter().position(Option::is_none) {
            return Some(free);
        }
        if self.chunks.len() < READ_BACK_CHUNKS_MAX as usize {
            self.chunks.push(None);
            return Some(self.chunks.len() - 1);
        }
        let loaded = self.chunks.iter().enumerate().filter_map(|(at, chunk)| {
            let chunk = chunk.as_ref().filter(|chunk| chunk.buffer.is_some())?;
            let ahead = self.ahead_of(chunk.segment, chunk.offset, chunk.end());
            Some((ahead, std::cmp::Reverse(chunk.used), at))
        });
        let (ahead, _, at) = loaded.max()?;
        let end = wanted.offset + READ_BACK_CHUNK_SIZE_BYTES;
        if !wanted.is_needed && ahead <= self.ahead_of(wanted.segment, wanted.offset, end) {
            return None;
        }
        self.let_go(at);
        Some(at)
    }

    fn ahead_of(&self, segment: SegmentId, start: u64, end: u64) -> Ahead {
        let [start, end] = [start, end].map(|offset| Spot::new(segment, offset));
        self.readers.ahead_of(start, end)
    }

    fn let_go(&mut self, at: usize) {
        self.last = None;
        let chunk = self.chunks[at].take();
        self.spare.extend(chunk.and_then(|chunk| chunk.buffer));
    }

    /// Takes a completion.
    ///
    /// Errors: the read failed, or the block a message waits for is not sound.
    pub(super) fn handle_read(
        &mut self,
        chunk: u32,
        buffer: ReadBuffer,
        result: Result<usize, IoFailure>,
    ) -> Result<(), ColdFailure> {
        let at = chunk as usize;
        let Some(chunk) = self.chunks[at].as_mut() else {
            // Its segment was freed meanwhile.
            self.spare.push(buffer);
            return Ok(());
        };
        let (segment, offset) = (chunk.segment, chunk.offset);
        let failed = |reason: String| {
            Err(ColdFailure {
                segment,
                offset,
                reason,
            })
        };
        let len = match result {
            Ok(len) => len,
            Err(error) if chunk.is_wanted => return failed(error.to_string()),
            // Nobody waits for it; it is read again when somebody does.
            Err(_) => 0,
        };
        let blocks = &mut chunk.blocks;
        let found = self
            .owner
            .sound_blocks(&buffer[..len], segment, offset, blocks);
        chunk.buffer = Some(buffer);
        if !chunk.blocks.is_empty() {
            return Ok(());
        }
        if let (Err(error), true) = (found, chunk.is_wanted) {
            return failed(error.to_string());
        }
        // Nothing sound was read ahead: there is nothing there yet. Forget it.
        self.let_go(at);
        let mut chunks = self.chunks.iter_mut().flatten();
        if let Some(before) = chunks.find(|c| c.segment == segment && c.end() == offset) {
            before.is_last = true;
        }
        Ok(())
    }

    /// These segments are gone.
    ///
    /// Shape: sorted.
    pub(super) fn forget(&mut self, gone: &[SegmentId]) {
        let is_gone = |segment: SegmentId| gone.binary_search(&segment).is_ok();
        self.wanted.retain(|one| !is_gone(one.segment));
        for at in 0..self.chunks.len() {
            let Some(chunk) = &mut self.chunks[at] else {
                continue;
            };
            if is_gone(chunk.segment) {
                // One being read stays until its buffer is back, and may hold anything then.
                chunk.is_wanted = false;
                if chunk.buffer.is_some() {
                    self.let_go(at);
                }
            }
        }
    }
}
