//! The newest blocks of the journal, still in memory: oldest first, in order of position.
//!
//! Invariants: positions rise; the blocks at the back that are not durable yet are never let go.

use std::cell::Cell;
use std::collections::VecDeque;

use crate::storage::buffer::SealedBlock;
use crate::{Location, SegmentId};

struct Cached {
    segment: SegmentId,
    offset: u64,
    block: SealedBlock,
}

pub(crate) struct BlockCache {
    blocks: VecDeque<Cached>,
    /// How many at the front are durable.
    durable_count: usize,
    /// Where the block was that was asked for last: the next record is likely to lie in it as well.
    last: Cell<usize>,
}

impl BlockCache {
    pub(crate) fn new(blocks_max: usize) -> Self {
        Self {
            blocks: VecDeque::with_capacity(blocks_max),
            durable_count: 0,
            last: Cell::new(0),
        }
    }

    pub(crate) fn push(&mut self, segment: SegmentId, offset: u64, block: SealedBlock) {
        let is_later = self
            .blocks
            .back()
            .is_none_or(|last| (last.segment, last.offset) < (segment, offset));
        assert!(is_later, "blocks are cached in order of position");
        self.blocks.push_back(Cached {
            segment,
            offset,
            block,
        });
    }

    pub(crate) fn mark_durable(&mut self, count: usize) {
        self.durable_count += count;
        assert!(self.durable_count <= self.blocks.len());
    }

    /// Segment of the oldest block that is not durable.
    pub(crate) fn oldest_not_durable(&self) -> Option<SegmentId> {
        let block = self.blocks.get(self.durable_count);
        block.map(|block| block.segment)
    }

    /// Lets go of the oldest durable block; false if there is none.
    pub(crate) fn evict_oldest(&mut self) -> bool {
        if self.durable_count == 0 {
            return false;
        }
        self.durable_count -= 1;
        self.last.set(self.last.get().saturating_sub(1));
        self.blocks.pop_front().is_some()
    }

    /// The block that holds the record at `location`, if it is still here.
    pub(crate) fn block_at(&self, location: Location) -> Option<&SealedBlock> {
        let key = (location.segment(), location.block_offset());
        let last = self.blocks.get(self.last.get());
        if let Some(last) = last.filter(|last| (last.segment, last.offset) == key) {
            return Some(&last.block);
        }
        let oldest = self.blocks.front()?;
        if key < (oldest.segment, oldest.offset) {
            return None;
        }
        let found = self
            .blocks
            .binary_search_by_key(&key, |b| (b.segment, b.offset));
        let index = found.ok()?;
        self.last.set(index);
        self.blocks.get(index).map(|cached| &cached.block)
    }
}
