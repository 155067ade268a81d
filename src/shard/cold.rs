//! Blocks read back from disk, for messages that left the block cache.
//!
//! Whole blocks are read and verified, several at a time, and the next ones are read ahead: a
//! queue is drained in the order it was written. Bounded; the chunk used least recently goes.

use forebay_journal::format::{Block, FormatError};
use forebay_journal::storage::IoFailure;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Location, SegmentId};

/// Bytes read at a time.
pub(super) const CHUNK_SIZE: usize = 1 << 20;
/// Chunks in memory.
const CHUNKS_MAX: usize = 16;
/// Chunks being read at once.
const READS_MAX: usize = 2;

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
    has_read_ahead: bool,
}

impl Chunk {
    fn holds(&self, segment: SegmentId, offset: u64) -> bool {
        let end = match (&self.buffer, self.blocks.last()) {
            (None, _) => CHUNK_SIZE as u64,
            (Some(_), last) => last.map_or(0, |(_, end)| (*end).into()),
        };
        self.segment == segment && (self.offset..self.offset + end).contains(&offset)
    }
}

#[derive(Debug, Default)]
pub(super) struct ColdBlocks {
    chunks: Vec<Option<Chunk>>,
    spare: Vec<ReadBuffer>,
    wanted: Vec<(SegmentId, u64, bool)>,
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
    /// Looks for the block of `location`; asks for it if it is not here.
    pub(super) fn block_at(&mut self, location: Location) -> Cold<'_> {
        let (segment, offset) = (location.segment(), location.block_offset());
        let held = |chunk: &Option<Chunk>| chunk.as_ref().is_some_and(|c| c.holds(segment, offset));
        let Some(index) = self.chunks.iter().position(held) else {
            if !self
                .wanted
                .iter()
                .any(|(s, o, _)| (*s, *o) == (segment, offset))
            {
                self.wanted.push((segment, offset, true));
            }
            return Cold::Coming;
        };
        self.clock += 1;
        self.read_ahead(index);
        let clock = self.clock;
        let Some(chunk) = self.chunks[index].as_mut() else {
            return Cold::Coming;
        };
        chunk.used = clock;
        let start = (offset - chunk.offset) as u32;
        let Some(buffer) = &chunk.buffer else {
            return Cold::Coming;
        };
        match chunk
            .blocks
            .binary_search_by_key(&start, |(start, _)| *start)
        {
            Ok(found) => {
                let (start, end) = chunk.blocks[found];
                Cold::Here(&buffer[start as usize..end as usize])
            }
            // Not the start of a block: then the location is not one of this journal's.
            Err(_) => Cold::Here(&[]),
        }
    }

    fn read_ahead(&mut self, index: usize) {
        let Some(chunk) = self.chunks[index].as_mut() else {
            return;
        };
        let Some((_, end)) = chunk.blocks.last().copied() else {
            return;
        };
        if !chunk.has_read_ahead {
            chunk.has_read_ahead = true;
            let next = (chunk.segment, chunk.offset + u64::from(end), false);
            self.wanted.push(next);
        }
    }

    /// The next read to start.
    pub(super) fn poll_read(&mut self) -> Option<ColdRead> {
        let reading = self
            .chunks
            .iter()
            .flatten()
            .filter(|chunk| chunk.buffer.is_none())
            .count();
        if reading >= READS_MAX || self.wanted.is_empty() {
            return None;
        }
        // What a message waits for comes before what is read ahead.
        let at = self
            .wanted
            .iter()
            .position(|(.., is_wanted)| *is_wanted)
            .unwrap_or(0);
        let (segment, offset, is_wanted) = self.wanted.remove(at);
        if self
            .chunks
            .iter()
            .flatten()
            .any(|chunk| chunk.holds(segment, offset))
        {
            return self.poll_read();
        }
        let index = self.free_chunk()?;
        let buffer = self
            .spare
            .pop()
            .unwrap_or_else(|| ReadBuffer::new(CHUNK_SIZE));
        let blocks = Vec::new();
        let (used, has_read_ahead) = (self.clock, false);
        let chunk = Chunk {
            segment,
            offset,
            buffer: None,
            blocks,
            used,
            is_wanted,
            has_read_ahead,
        };
        self.chunks[index] = Some(chunk);
        Some(ColdRead {
            chunk: index as u32,
            segment,
            offset,
            buffer,
        })
    }

    fn free_chunk(&mut self) -> Option<usize> {
        if self.chunks.len() < CHUNKS_MAX {
            self.chunks.push(None);
            return Some(self.chunks.len() - 1);
        }
        if let Some(free) = self.chunks.iter().position(Option::is_none) {
            return Some(free);
        }
        let loaded = self.chunks.iter().enumerate().filter_map(|(index, chunk)| {
            let chunk = chunk.as_ref().filter(|chunk| chunk.buffer.is_some())?;
            Some((chunk.used, index))
        });
        let (_, index) = loaded.min()?;
        let chunk = self.chunks[index].take()?;
        self.spare.extend(chunk.buffer);
        Some(index)
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
        let index = chunk as usize;
        let Some(chunk) = self.chunks[index].as_mut() else {
            // Its segment was freed meanwhile.
            self.spare.push(buffer);
            return Ok(());
        };
        let failed = |reason: String| {
            Err(ColdFailure {
                segment: chunk.segment,
                offset: chunk.offset,
                reason,
            })
        };
        let len = match result {
            Ok(len) => len,
            Err(error) if chunk.is_wanted => return failed(error.to_string()),
            // Nobody waits for it; it is read again when somebody does.
            Err(_) => 0,
        };
        match sound_blocks(
            &buffer[..len],
            chunk.segment,
            chunk.offset,
            &mut chunk.blocks,
        ) {
            Err(error) if chunk.blocks.is_empty() && chunk.is_wanted => failed(error.to_string()),
            _ => {
                chunk.buffer = Some(buffer);
                // Nothing sound was read ahead: there is nothing there yet. Forget it.
                if chunk.blocks.is_empty() {
                    let chunk = self.chunks[index].take();
                    self.spare.extend(chunk.and_then(|chunk| chunk.buffer));
                }
                Ok(())
            }
        }
    }

    /// These segments are gone.
    ///
    /// Shape: sorted.
    pub(super) fn forget(&mut self, gone: &[SegmentId]) {
        let is_gone = |segment: &SegmentId| gone.binary_search(segment).is_ok();
        self.wanted.retain(|(segment, ..)| !is_gone(segment));
        for slot in &mut self.chunks {
            // One being read stays until its buffer is back, and may hold anything then.
            if let Some(chunk) = slot {
                chunk.is_wanted &= !is_gone(&chunk.segment);
            }
            if slot
                .as_ref()
                .is_some_and(|c| is_gone(&c.segment) && c.buffer.is_some())
            {
                self.spare
                    .extend(slot.take().and_then(|chunk| chunk.buffer));
            }
        }
    }
}

/// Finds the sound blocks at the start of `bytes`; the error is what ended the search.
pub(super) fn sound_blocks(
    bytes: &[u8],
    segment: SegmentId,
    offset: u64,
    blocks: &mut Vec<(u32, u32)>,
) -> Result<(), FormatError> {
    let mut at = 0;
    while at < bytes.len() {
        let block = Block::decode(&bytes[at..])?;
        if block.header.place.segment != segment {
            return Err(FormatError::Foreign { name: "segment" });
        }
        if block.header.offset != offset + at as u64 {
            return Err(FormatError::Foreign { name: "offset" });
        }
        let end = at + block.header.block_size as usize;
        blocks.push((at as u32, end as u32));
        at = end;
    }
    Ok(())
}
