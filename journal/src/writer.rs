//! Packs records into blocks and blocks into segments; hands out writes; says what is durable.
//!
//! Invariants:
//! * records get dense LSNs in the order of [`Writer::append`], blocks dense numbers;
//! * a block is sealed once and never changes; each names the one before it;
//! * at most [`INFLIGHT_BLOCKS_MAX`] writes are in flight, the rest waits sealed, bounded by
//!   [`SEALED_BLOCKS_MAX`];
//! * after one failed write nothing becomes durable any more ([`Writer::failure`]);
//! * the last prepared segment, and the last places among the sealed blocks, are for control
//!   records: producers wait, consumers go on.
//!
//! It refuses to know what records mean, and what a file or a clock is.

use std::collections::VecDeque;

use crate::cache::BlockCache;
use crate::format::{
    BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, BlockSeal, Checksum, INFLIGHT_BLOCKS_MAX, RECORD_SIZE_MAX,
    Record, SEGMENT_HEAD_SIZE, SegmentHead, encode_record, encoded_size, round_up_to_sector,
    seal_block,
};
use crate::recovery::Seal;
use crate::storage::buffer::{Arena, ArenaMemory, OpenBlock, SealedBlock};
use crate::storage::{BlockWrite, IDENTIFIERS, IoFailure, WriteDone};
use crate::window::{DurableBlock, Window};
use crate::{BlockNumber, Epoch, JournalId, Location, Lsn, MessageId, QueueId, SegmentId, ShardId};

mod identifiers;
mod open;
#[cfg(test)]
mod tests;

use identifiers::Identifiers;
use open::Open;

/// Most blocks that wait sealed for a place in the window.
pub const SEALED_BLOCKS_MAX: usize = 8;
/// Least memory for blocks: those on their way to the disk, one being filled, and what the end of
/// a lap wastes. With less, a record that was found to fit could find no memory.
pub const CACHE_SIZE_MIN: usize =
    (SEALED_BLOCKS_MAX + INFLIGHT_BLOCKS_MAX as usize + 2) * BLOCK_SIZE_MAX;
/// Places among them that only control records may take.
const SEALED_BLOCKS_RESERVED: usize = 2;
/// Prepared segments that only control records may open.
const SEGMENTS_RESERVED: usize = 1;
/// An idle seal follows when no block did for this long (`docs/format.md` 7).
pub const IDLE_SEAL_US: u64 = 5_000;

/// What a record is charged to when space is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// Messages and their fragments: waits first.
    Message,
    /// Everything that frees space or ends things: may use the reserve.
    Control,
}

/// Why a record cannot be appended now. Nothing was written; all but `Failed` pass by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The window and the sealed blocks behind it are full: wait for a completion.
    WindowFull,
    /// No prepared segment is left for this budget: wait for housekeeping, or for space on disk.
    NoSegment,
    /// All block memory is in use by writes: wait for a completion.
    NoMemory,
    /// A write failed: nothing is appended ever again; the node has to stop.
    Failed(IoFailure),
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its position.
    pub lsn: Lsn,
    /// Its place on disk.
    pub location: Location,
}

/// What the first record of each segment repeats; the owner of the queues keeps it current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Oldest segment still needed.
    pub oldest_segment: SegmentId,
    /// Message names below this one may be in use.
    pub message_floor: MessageId,
    /// Queue names below this one may be in use.
    pub queue_floor: QueueId,
}

struct Sealed {
    segment: SegmentId,
    offset: u64,
    names: DurableBlock,
    block: SealedBlock,
}

struct Segment {
    head: SegmentHead,
    /// Where the next block goes.
    at: u64,
}

/// Counters since the start; read by statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Blocks sealed, idle seals included.
    pub blocks: u64,
    /// Idle seals.
    pub idle_seals: u64,
    /// Bytes of blocks, padding included.
    pub bytes: u64,
    /// Records appended.
    pub records: u64,
    /// Blocks that memory let go of.
    pub evicted: u64,
}

/// The writing end of one shard's journal.
pub struct Writer {
    arena: Arena,
    cache: BlockCache,
    open: Option<Open>,
    sealed: VecDeque<Sealed>,
    window: Window,
    /// Strict mode.
    identifiers: Option<Identifiers>,
    epoch: Epoch,
    segment: Option<Segment>,
    ready: VecDeque<SegmentHead>,
    next_lsn: Lsn,
    next_number: BlockNumber,
    previous: Checksum,
    retained: Retained,
    epoch_start: Option<(Epoch, Seal)>,
    last_was_idle_seal: bool,
    last_completion_us: u64,
    failure: Option<IoFailure>,
    stats: WriterStats,
}

impl Writer {
    /// Begins `epoch` behind `seal`, with an arena of `cache_size` bytes.
    ///
    /// The first record appended will be the `EpochStart`, once a segment was added.
    /// Panics: if `cache_size` is below [`CACHE_SIZE_MIN`] or not whole sectors.
    pub fn new(cache_size: usize, epoch: Epoch, seal: Seal, retained: Retained) -> Self {
        assert!(
            cache_size >= CACHE_SIZE_MIN,
            "{cache_size} bytes are too few for the blocks under way"
        );
        let next_lsn = seal.lsn.next();
        Self {
            arena: Arena::new(cache_size),
            cache: BlockCache::new(cache_size / crate::format::SECTOR_SIZE),
            open: None,
            sealed: VecDeque::with_capacity(SEALED_BLOCKS_MAX),
            window: Window::new(DurableBlock {
                number: seal.block,
                identity: seal.checksum,
                next_lsn,
            }),
            identifiers: None,
            epoch,
            segment: None,
            ready: VecDeque::new(),
            next_lsn,
            next_number: seal.block.next(),
            previous: seal.checksum,
            retained,
            epoch_start: Some((epoch, seal)),
            last_was_idle_seal: true,
            last_completion_us: 0,
            failure: None,
            stats: WriterStats::default(),
        }
    }

    /// The memory blocks live in, for registration with a ring.
    pub fn memory(&self) -> ArenaMemory {
        self.arena.memory()
    }

    /// Strict mode: from the first block on, nothing is durable before an identifier says so, in a
    /// file of this epoch that is prepared ([`IDENTIFIERS`]).
    ///
    /// Panics: behind the first block.
    pub fn name_blocks(&mut self, journal: JournalId, shard: ShardId) {
        assert_eq!(self.stats.blocks, 0, "strict from the first block on");
        let end = self.window.durable_end();
        self.identifiers = Some(Identifiers::new(journal, shard, self.epoch, end));
    }

    /// Takes a segment that is zero-filled or recycled, headed and synced.
    ///
    /// Panics: unless segments come in order and belong to this epoch.
    pub fn add_segment(&mut self, head: SegmentHead) {
        let newest = self
            .ready
            .back()
            .or_else(|| self.segment.as_ref().map(|segment| &segment.head));
        assert!(
            newest.is_none_or(|newest| newest.segment < head.segment),
            "segments in order"
        );
        self.ready.push_back(head);
    }

    /// Prepared segments not yet begun.
    pub fn segments_ready(&self) -> usize {
        self.ready.len()
    }

    /// The segment being filled, and how many of its bytes are used.
    pub fn segment_used(&self) -> Option<(SegmentHead, u64)> {
        self.segment
            .as_ref()
            .map(|segment| (segment.head, segment.at))
    }

    /// The oldest segment that a block will still be written to, as far as begun.
    pub fn oldest_segment_to_write(&self) -> Option<SegmentId> {
        let waiting = self.sealed.front().map(|sealed| sealed.segment);
        let open = self.open.as_ref().map(|open| open.segment);
        let current = self.segment.as_ref().map(|segment| segment.head.segment);
        waiting.or(open).or(current)
    }

    /// The oldest segment that holds a block that is not durable, or may get one: all below it are
    /// as they will be.
    pub fn oldest_segment_not_durable(&self) -> Option<SegmentId> {
        let written = self.cache.oldest_not_durable();
        written.or_else(|| self.oldest_segment_to_write())
    }

    /// Updates what the next segment's first record will say.
    pub fn set_retained(&mut self, retained: Retained) {
        self.retained = retained;
    }

    /// First LSN that is not durable: everything below it is. In strict mode it is named as well.
    pub fn durable_end(&self) -> Lsn {
        match &self.identifiers {
            Some(identifiers) => identifiers.durable_end(),
            None => self.window.durable_end(),
        }
    }

    /// LSN the next record gets.
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Whether everything appended is durable.
    pub fn is_drained(&self) -> bool {
        self.durable_end() == self.next_lsn && self.window.is_empty() && self.sealed.is_empty()
    }

    /// Why nothing becomes durable any more.
    pub fn failure(&self) -> Option<IoFailure> {
        self.failure
    }

    /// Counters since the start.
    pub fn stats(&self) -> WriterStats {
        self.stats
    }

    /// The bytes of the block that holds the record at `location`, if they are still in memory.
    pub fn cached_block(&self, location: Location) -> Option<&SealedBlock> {
        self.cache.block_at(location)
    }

    /// The bytes of the block that holds the record at `location`, if they are in memory: all that
    /// is appended and not durable is. Of a block that is still being filled no more than its
    /// records is sound.
    pub fn block_in_memory(&self, location: Location) -> Option<&[u8]> {
        let place = (location.segment(), location.block_offset());
        match &self.open {
            Some(open) if (open.segment, open.offset) == place => Some(open.block.peek()),
            _ => self.cached_block(location).map(|block| &**block),
        }
    }

    /// Whether records of `size` bytes in all ([`encoded_size`]) can be appended now. Changes
    /// nothing.
    ///
    /// Errors: what [`Self::append`] would answer.
    pub fn check(&self, size: usize, budget: Budget) -> Result<(), AppendError> {
        if let Some(failure) = self.failure {
            return Err(AppendError::Failed(failure));
        }
        self.check_reserve(budget)?;
        match &self.open {
            Some(open) if open.room() >= size => Ok(()),
            _ => self.check_next_block(size, budget).map(|_| ()),
        }
    }

    /// Messages stop when control records have opened the segment kept for them, until there is
    /// another: else they would fill it, and nothing could be settled on a full disk.
    fn check_reserve(&self, budget: Budget) -> Result<(), AppendError> {
        let is_begun = self.segment.is_some() && self.ready.len() < SEGMENTS_RESERVED;
        match budget {
            Budget::Message if is_begun => Err(AppendError::NoSegment),
            Budget::Message | Budget::Control => Ok(()),
        }
    }

    /// Makes room for records of `size` bytes in all,
    /// by sealing the open block and going on to the next segment where it must.
    /// Errors: see [`AppendError`]; the world's fault or the price of bounded memory.
    /// Panics: if `size` exceeds what a fresh segment's first block can hold.
    pub fn reserve(&mut self, size: usize, budget: Budget) -> Result<(), AppendError> {
        assert!(
            size <= RECORDS_SIZE_MAX,
            "{size} bytes of records never fit one block"
        );
        if let Some(failure) = self.failure {
            return Err(AppendError::Failed(failure));
        }
        self.check_reserve(budget)?;
        match &self.open {
            Some(open) if open.room() >= size => Ok(()),
            _ => self.next_block(size, budget),
        }
    }

    /// Appends one record to the open block.
    ///
    /// Shape: copies the record's bytes once; at most [`RECORDS_SIZE_MAX`] of them.
    /// Cost: no allocation, no I/O.
    /// Errors: as [`Self::reserve`]; nothing is written.
    pub fn append(&mut self, record: &Record<'_>, budget: Budget) -> Result<Appended, AppendError> {
        self.reserve(encoded_size(record), budget)?;
        Ok(self.push(record))
    }

    fn push(&mut self, record: &Record<'_>) -> Appended {
        let open = self.open.as_mut().expect("reserve() opened a block");
        let location = open.push(|bytes| encode_record(record, bytes));
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        self.stats.records += 1;
        Appended { lsn, location }
    }

    /// Whether the next block fits the segment, if there may be one at all.
    fn check_next_block(&self, size: usize, budget: Budget) -> Result<bool, AppendError> {
        let reserved = if budget == Budget::Message {
            SEALED_BLOCKS_RESERVED
        } else {
            0
        };
        if self.open.is_some() && self.sealed.len() + reserved >= SEALED_BLOCKS_MAX {
            return Err(AppendError::WindowFull);
        }
        let is_fitting = self.room_in_segment() >= BLOCK_HEADER_SIZE + size;
        let reserved = if budget == Budget::Message {
            SEGMENTS_RESERVED
        } else {
            0
        };
        if !is_fitting && self.ready.len() <= reserved {
            return Err(AppendError::NoSegment);
        }
        Ok(is_fitting)
    }

    fn next_block(&mut self, size: usize, budget: Budget) -> Result<(), AppendError> {
        let is_fitting = self.check_next_block(size, budget)?;
        if self.open.is_some() {
            self.seal_open();
        }
        let block = self.open_memory().ok_or(AppendError::NoMemory)?;
        if !is_fitting {
            self.next_segment();
        }
        self.begin_block(block);
        Ok(())
    }

    /// Bytes left in the segment behind the open block.
    fn room_in_segment(&self) -> usize {
        let Some(segment) = &self.segment else {
            return 0;
        };
        let open_size = self.open.as_ref().map_or(0, Open::block_size);
        let room = segment.head.size - segment.at;
        usize::try_from(room)
            .unwrap_or(usize::MAX)
            .saturating_sub(open_size)
    }

    fn open_memory(&mut self) -> Option<OpenBlock> {
        loop {
            if let Some(block) = self.arena.open() {
                return Some(block);
            }
            if !self.cache.evict_oldest() {
                return None;
            }
            self.stats.evicted += 1;
        }
    }

    fn next_segment(&mut self) {
        let head = self
            .ready
            .pop_front()
            .expect("the caller saw a prepared segment");
        self.segment = Some(Segment {
            head,
            at: SEGMENT_HEAD_SIZE as u64,
        });
    }

    fn begin_block(&mut self, block: OpenBlock) {
        let segment = self.segment.as_ref().expect("a segment was begun");
        let room = segment.head.size - segment.at;
        let capacity = usize::try_from(room).map_or(BLOCK_SIZE_MAX, |r| r.min(BLOCK_SIZE_MAX));
        let is_first = segment.at == SEGMENT_HEAD_SIZE as u64;
        self.open = Some(Open::new(
            block,
            segment.head.segment,
            segment.at,
            capacity,
            self.next_lsn,
        ));
        if is_first {
            self.push_segment_start();
        }
    }

    #[cold]
    fn push_segment_start(&mut self) {
        let Retained {
            oldest_segment,
            message_floor,
            queue_floor,
        } = self.retained;
        match self.epoch_start.take() {
            Some((epoch, seal)) => self.push(&Record::EpochStart {
                epoch,
                sealed_epoch: seal.epoch,
                sealed_lsn: seal.lsn,
                sealed_block: seal.block,
                sealed_checksum: seal.checksum,
                oldest_segment,
                message_floor,
                queue_floor,
            }),
            None => self.push(&Record::Retained {
                oldest_segment,
                message_floor,
                queue_floor,
            }),
        };
    }

    fn seal_open(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        let segment = self
            .segment
            .as_mut()
            .expect("an open block lies in a segment");
        let record_count = open.record_count();
        let seal = BlockSeal {
            number: self.next_number,
            first_lsn: open.first_lsn,
            record_count,
            durable_upto: self.window.durable_end().before(),
            offset: open.offset,
            payload_size: open.payload_size(),
            sealed_unix_ms: open.unix_ms,
            previous: self.previous,
        };
        let (size, identity) = seal_block(open.block.bytes(), &segment.head, &seal);
        let block = self.arena.seal(open.block, size);
        segment.at += size as u64;
        self.next_number = self.next_number.next();
        self.previous = identity;
        self.last_was_idle_seal = record_count == 0;
        self.stats.blocks += 1;
        self.stats.bytes += size as u64;
        self.cache.push(open.segment, open.offset, block.clone());
        self.sealed.push_back(Sealed {
            segment: open.segment,
            offset: open.offset,
            names: DurableBlock {
                number: seal.number,
                identity,
                next_lsn: open.first_lsn.plus(record_count.into()),
            },
            block,
        });
    }

    /// The next write to start: the oldest sealed block, or else the open one, sealed now.
    ///
    /// Called at the end of a turn until it returns `None`, so that one turn's records become one
    /// block, and what gathers while two writes are in flight becomes the next.
    /// `unix_ms` goes into the block's header, for people.
    pub fn poll_write(&mut self, unix_ms: u64) -> Option<BlockWrite> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(write) = self.poll_identifier() {
            return Some(write);
        }
        if self.window.is_full() {
            return None;
        }
        if self.sealed.is_empty() {
            self.open.as_mut()?.unix_ms = unix_ms;
            self.seal_open();
        }
        let Sealed {
            segment,
            offset,
            names,
            block,
        } = self.sealed.pop_front()?;
        Some(BlockWrite {
            ticket: self.window.submit(names),
            segment,
            offset,
            block,
        })
    }

    /// In strict mode what follows a block: not before it is durable, for else a power cut could
    /// leave the name of a block that it tore.
    fn poll_identifier(&mut self) -> Option<BlockWrite> {
        let last = self.window.durable();
        let (ticket, identifier) = self.identifiers.as_mut()?.next(last)?;
        let block = self.arena.sector(&identifier.encode());
        Some(BlockWrite {
            ticket,
            segment: IDENTIFIERS,
            offset: identifier.offset(),
            block,
        })
    }

    /// Takes a completion.
    ///
    /// Errors: the write failed; from now on [`Self::failure`] holds and nothing becomes durable.
    pub fn handle_write_done(&mut self, done: WriteDone, now_us: u64) -> Result<(), IoFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if let Err(failure) = done.result {
            self.failure = Some(failure);
            return Err(failure);
        }
        match &mut self.identifiers {
            Some(identifiers) if Identifiers::is_named(done.ticket) => {
                identifiers.complete(done.ticket);
            }
            _ => {
                let durable_count = self.window.complete(done.ticket);
                self.cache.mark_durable(durable_count);
            }
        }
        self.last_completion_us = now_us;
        Ok(())
    }

    /// When an idle seal is due, if one is: monotonic microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        let is_idle = self.open.is_none() && self.sealed.is_empty() && self.window.is_empty();
        (is_idle && !self.last_was_idle_seal && self.failure.is_none())
            .then(|| self.last_completion_us + IDLE_SEAL_US)
    }

    /// Writes the idle seal if it is due; take it with [`Self::poll_write`].
    pub fn handle_timeout(&mut self, now_us: u64) {
        if self.poll_timeout().is_some_and(|due_us| due_us <= now_us) {
            self.seal_idle();
        }
    }

    /// Seals what is open, or else appends an idle seal at once: the last block of a clean stop.
    ///
    /// Without room for it there is none; the journal is no less durable, recovery has one piece
    /// of evidence less.
    pub fn seal_idle(&mut self) {
        if self.open.is_some() {
            return self.seal_open();
        }
        if self.last_was_idle_seal || self.sealed.len() >= SEALED_BLOCKS_MAX {
            return;
        }
        let is_fitting = self.room_in_segment() >= round_up_to_sector(BLOCK_HEADER_SIZE);
        if !is_fitting && self.ready.is_empty() {
            return;
        }
        let Some(block) = self.open_memory() else {
            return;
        };
        if !is_fitting {
            self.next_segment();
        }
        self.begin_block(block);
        self.seal_open();
        self.stats.idle_seals += u64::from(self.last_was_idle_seal);
    }
}

/// Most bytes of records that any block can take, that of a segment's first record included.
pub const RECORDS_SIZE_MAX: usize = RECORD_SIZE_MAX - 128;
