//! A plain writer over `seal_block` with the rules of `docs/format.md` 8, for tests of recovery.
//!
//! Behind a trait, so that a test can be given the crate's own writer in its place.

use std::collections::VecDeque;

use forebay_journal::format::{
    BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, BlockSeal, Checksum, Record, SEGMENT_HEAD_SIZE, SegmentHead,
    encode_record, encoded_size, round_up_to_sector, seal_block,
};
use forebay_journal::recovery::Seal;
use forebay_journal::{BlockNumber, Epoch, Lsn, MessageId, QueueId, SegmentId, ShardId};

/// A block to write.
pub struct Write {
    pub ticket: u64,
    pub segment: SegmentId,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// What a [`super::RigOf`] needs of a writer.
pub trait BlockSource {
    /// Whether identifiers are written behind blocks.
    const IS_STRICT: bool = false;
    /// Writes identifiers for this shard from now on, if it is strict.
    fn name_blocks(&mut self, _shard: ShardId) {}
    /// Goes on behind `seal`; `oldest_segment` is what the first record says.
    fn new(epoch: Epoch, seal: Seal, oldest_segment: SegmentId) -> Self;
    /// Takes a prepared segment.
    fn add_segment(&mut self, head: SegmentHead);
    /// Prepared segments not begun.
    fn segments_ready(&self) -> usize;
    /// The segment being filled.
    fn segment(&self) -> Option<SegmentId>;
    /// First LSN that is not durable.
    fn durable_end(&self) -> Lsn;
    /// LSN of the next record.
    fn next_lsn(&self) -> Lsn;
    /// Whether all that was appended is durable.
    fn is_drained(&self) -> bool;
    /// What the next segment's first record says.
    fn oldest_segment(&self) -> SegmentId;
    /// Changes that.
    fn set_oldest_segment(&mut self, oldest_segment: SegmentId);
    /// Appends to the open block; `None` when that is full or no segment is left.
    fn append(&mut self, record: &Record<'_>) -> Option<Lsn>;
    /// Seals an empty block if nothing is open or in flight.
    fn seal_idle(&mut self) -> Option<Write>;
    /// The next write, if there is a record and a place in the window.
    fn poll_write(&mut self) -> Option<Write>;
    /// Takes a completion.
    fn handle_write_done(&mut self, ticket: u64);
}

pub struct TestWriter {
    epoch_start: Option<(Epoch, Seal)>,
    oldest_segment: SegmentId,
    ready: VecDeque<SegmentHead>,
    segment: Option<(SegmentHead, u64)>,
    payload: Vec<u8>,
    record_count: u32,
    next_lsn: Lsn,
    next_number: BlockNumber,
    previous: Checksum,
    /// Ticket, LSN behind the block, done.
    window: VecDeque<(u64, Lsn, bool)>,
    next_ticket: u64,
    durable_end: Lsn,
    was_idle_seal: bool,
    /// Blocks say no more about what is durable than when this was set: sealed long ago.
    pub says_durable_upto: Option<Lsn>,
}

impl BlockSource for TestWriter {
    fn new(epoch: Epoch, seal: Seal, oldest_segment: SegmentId) -> Self {
        Self {
            epoch_start: Some((epoch, seal)),
            oldest_segment,
            ready: VecDeque::new(),
            segment: None,
            payload: Vec::new(),
            record_count: 0,
            next_lsn: seal.lsn.next(),
            next_number: seal.block.next(),
            previous: seal.checksum,
            window: VecDeque::new(),
            next_ticket: 0,
            durable_end: seal.lsn.next(),
            was_idle_seal: true,
            says_durable_upto: None,
        }
    }

    fn add_segment(&mut self, head: SegmentHead) {
        self.ready.push_back(head);
    }

    fn segments_ready(&self) -> usize {
        self.ready.len()
    }

    fn segment(&self) -> Option<SegmentId> {
        self.segment.map(|(head, _)| head.segment)
    }

    fn durable_end(&self) -> Lsn {
        self.durable_end
    }

    fn is_drained(&self) -> bool {
        self.window.is_empty() && self.record_count == 0
    }

    fn append(&mut self, record: &Record<'_>) -> Option<Lsn> {
        self.reserve(encoded_size(record))
            .then(|| self.push(record))
    }

    fn seal_idle(&mut self) -> Option<Write> {
        if !self.is_drained() || self.was_idle_seal || !self.reserve(0) {
            return None;
        }
        Some(self.seal())
    }

    fn poll_write(&mut self) -> Option<Write> {
        let window = self
            .segment
            .map_or(1, |(head, _)| head.inflight_blocks_max as usize);
        (self.record_count > 0 && self.window.len() < window).then(|| self.seal())
    }

    fn handle_write_done(&mut self, ticket: u64) {
        let write = self.window.iter_mut().find(|write| write.0 == ticket);
        write.expect("completed writes are in flight").2 = true;
        while let Some(&(_, next_lsn, true)) = self.window.front() {
            self.durable_end = next_lsn;
            self.window.pop_front();
        }
    }

    fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    fn oldest_segment(&self) -> SegmentId {
        self.oldest_segment
    }

    fn set_oldest_segment(&mut self, oldest_segment: SegmentId) {
        self.oldest_segment = oldest_segment;
    }
}

impl TestWriter {
    fn push(&mut self, record: &Record<'_>) -> Lsn {
        let from = self.payload.len();
        self.payload.resize(from + encoded_size(record), 0);
        encode_record(record, &mut self.payload[from..]);
        self.record_count += 1;
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        lsn
    }

    /// Whether `size` more bytes fit; goes on to the next segment if the block is still empty.
    fn reserve(&mut self, size: usize) -> bool {
        let fits = |segment: Option<(SegmentHead, u64)>, payload: usize| {
            let block = round_up_to_sector(BLOCK_HEADER_SIZE + payload);
            block <= BLOCK_SIZE_MAX
                && segment.is_some_and(|(head, at)| at + block as u64 <= head.size)
        };
        if fits(self.segment, self.payload.len() + size) {
            return true;
        }
        if self.record_count > 0 {
            return false;
        }
        let Some(head) = self.ready.pop_front() else {
            return false;
        };
        self.segment = Some((head, SEGMENT_HEAD_SIZE as u64));
        let oldest_segment = self.oldest_segment;
        let (message_floor, queue_floor) = (MessageId(0), QueueId(0));
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
        assert!(
            fits(self.segment, self.payload.len() + size),
            "record larger than a segment"
        );
        true
    }

    fn seal(&mut self) -> Write {
        let known_durable = Lsn::ZERO.plus(self.durable_end.get() - 1);
        let (head, at) = self
            .segment
            .as_mut()
            .expect("an open block lies in a segment");
        let seal = BlockSeal {
            number: self.next_number,
            first_lsn: Lsn::ZERO.plus(self.next_lsn.get() - u64::from(self.record_count)),
            record_count: self.record_count,
            durable_upto: self.says_durable_upto.unwrap_or(known_durable),
            offset: *at,
            payload_size: self.payload.len() as u32,
            sealed_unix_ms: 1_700_000_000_000,
            previous: self.previous,
        };
        let mut bytes = vec![0; round_up_to_sector(BLOCK_HEADER_SIZE + self.payload.len())];
        bytes[BLOCK_HEADER_SIZE..][..self.payload.len()].copy_from_slice(&self.payload);
        let (size, identity) = seal_block(&mut bytes, head, &seal);
        assert_eq!(size, bytes.len());
        let (segment, offset) = (head.segment, *at);
        *at += size as u64;
        self.next_number = self.next_number.next();
        self.previous = identity;
        self.was_idle_seal = self.record_count == 0;
        self.payload.clear();
        self.record_count = 0;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.window.push_back((ticket, self.next_lsn, false));
        Write {
            ticket,
            segment,
            offset,
            bytes,
        }
    }
}
