//! The block being filled.

use crate::format::{BLOCK_HEADER_SIZE, round_up_to_sector};
use crate::storage::buffer::OpenBlock;
use crate::{Location, Lsn, SegmentId};

/// Bytes fetched ahead of a record at most.
const FETCHED_SIZE_MAX: usize = 4096;

pub(super) struct Open {
    pub(super) block: OpenBlock,
    pub(super) segment: SegmentId,
    /// Byte offset in the segment file.
    pub(super) offset: u64,
    pub(super) first_lsn: Lsn,
    pub(super) unix_ms: u64,
    /// Bytes the block may have, header included.
    capacity: usize,
    /// Bytes used, header included.
    used: usize,
    record_count: u32,
}

impl Open {
    pub(super) fn new(
        block: OpenBlock,
        segment: SegmentId,
        offset: u64,
        capacity: usize,
        first_lsn: Lsn,
    ) -> Self {
        let used = BLOCK_HEADER_SIZE;
        Self {
            block,
            segment,
            offset,
            first_lsn,
            unix_ms: 0,
            capacity,
            used,
            record_count: 0,
        }
    }

    pub(super) fn room(&self) -> usize {
        self.capacity - self.used
    }

    /// Bytes the block will take on disk if it is sealed now.
    pub(super) fn block_size(&self) -> usize {
        round_up_to_sector(self.used)
    }

    pub(super) fn payload_size(&self) -> u32 {
        (self.used - BLOCK_HEADER_SIZE) as u32
    }

    pub(super) fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Lets `encode` write one record and say how many bytes it took.
    pub(super) fn push(&mut self, encode: impl FnOnce(&mut [u8]) -> usize) -> Location {
        let location = Location::new(self.segment, self.offset, self.used as u32);
        let (used, capacity) = (self.used, self.capacity);
        let taken = encode(&mut self.block.bytes()[used..capacity]);
        self.used += taken;
        self.record_count += 1;
        // Room for the next record, which is likely to be as large as this one.
        let ahead = self.used + taken.min(FETCHED_SIZE_MAX);
        self.block.fetch(self.used..ahead.min(capacity));
        location
    }
}
