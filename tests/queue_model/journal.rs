//! Real blocks in memory: what the model test journals goes through encoding, sealing and
//! decoding, and comes back as a restart would find it.

use std::collections::BTreeMap;

use forebay::queue::{Fact, Machine, Moving};
use forebay_journal::format::{
    Annotations, BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, Block, BlockSeal, Checksum, IdList,
    MessageFields, Parts, Record, SEGMENT_HEAD_SIZE, SegmentHead, encode_record, encoded_size,
    seal_block,
};
use forebay_journal::{BlockNumber, Epoch, JournalId, Location, Lsn, SegmentId, ShardId};
use zerocopy::little_endian::U64;

/// Blocks per segment: few, so that histories cross many segments.
const SEGMENT_BLOCKS: usize = 3;
/// Payload from which a block is sealed.
const PAYLOAD_ENOUGH: usize = 4096;

/// The epoch that starts after a restart.
pub(crate) fn start_of_epoch(oldest: SegmentId, machine: &Machine) -> Record<'static> {
    Record::EpochStart {
        epoch: Epoch::ZERO.next(),
        sealed_epoch: Epoch::ZERO,
        sealed_lsn: Lsn::ZERO,
        sealed_block: BlockNumber::ZERO,
        sealed_checksum: Checksum::NONE,
        oldest_segment: oldest,
        message_floor: machine.message_floor(),
        queue_floor: machine.queue_floor(),
    }
}

pub(crate) struct Journal {
    /// What a replay reads.
    segments: BTreeMap<SegmentId, Vec<Vec<u8>>>,
    /// What was before.
    freed: BTreeMap<SegmentId, Vec<Vec<u8>>>,
    current: SegmentId,
    open: Vec<u8>,
    open_count: u32,
    offset: u64,
    next_lsn: Lsn,
    next_block: BlockNumber,
    previous: Checksum,
}

impl Journal {
    pub(crate) fn new() -> Self {
        let current = SegmentId::ZERO.next();
        Self {
            segments: BTreeMap::from([(current, Vec::new())]),
            freed: BTreeMap::new(),
            current,
            open: vec![0; BLOCK_HEADER_SIZE],
            open_count: 0,
            offset: SEGMENT_HEAD_SIZE as u64,
            next_lsn: Lsn::ZERO.next(),
            next_block: BlockNumber::ZERO.next(),
            previous: Checksum::NONE,
        }
    }

    pub(crate) fn current(&self) -> SegmentId {
        self.current
    }

    pub(crate) fn oldest(&self) -> SegmentId {
        *self
            .segments
            .keys()
            .next()
            .expect("the current one is there")
    }

    /// Whether nothing was written to the current segment: `Retained` goes first.
    pub(crate) fn is_fresh(&self) -> bool {
        self.segments[&self.current].is_empty() && self.open_count == 0
    }

    /// Makes room, so that the next `append` of this record stays in the segment it finds now.
    pub(crate) fn make_room(&mut self) {
        if self.open.len() >= PAYLOAD_ENOUGH {
            self.seal();
        }
    }

    pub(crate) fn append(&mut self, record: &Record<'_>) -> Location {
        let start = self.open.len();
        let size = encoded_size(record);
        assert!(start + size <= BLOCK_SIZE_MAX, "test records are small");
        self.open.resize(start + size, 0xAA);
        assert_eq!(encode_record(record, &mut self.open[start..]), size);
        self.open_count += 1;
        self.next_lsn = self.next_lsn.next();
        Location::new(self.current, self.offset, start as u32)
    }

    pub(crate) fn seal(&mut self) {
        if self.open_count == 0 {
            return;
        }
        let payload_size = (self.open.len() - BLOCK_HEADER_SIZE) as u32;
        let first_lsn = Lsn::ZERO.plus(self.next_lsn.get() - u64::from(self.open_count));
        let seal = BlockSeal {
            number: self.next_block,
            first_lsn,
            record_count: self.open_count,
            durable_upto: Lsn::ZERO.plus(first_lsn.get() - 1),
            offset: self.offset,
            payload_size,
            sealed_unix_ms: 0,
            previous: self.previous,
        };
        let mut bytes = core::mem::take(&mut self.open);
        bytes.resize(bytes.len().next_multiple_of(4096), 0xAA);
        let (size, identity) = seal_block(&mut bytes, &head_of(self.current), &seal);
        assert_eq!(size, bytes.len());
        self.previous = identity;
        self.offset += size as u64;
        self.next_block = self.next_block.next();
        self.open = vec![0; BLOCK_HEADER_SIZE];
        self.open_count = 0;
        let blocks = self.segments.entry(self.current).or_default();
        blocks.push(bytes);
        if blocks.len() >= SEGMENT_BLOCKS {
            self.current = self.current.next();
            self.segments.insert(self.current, Vec::new());
            self.offset = SEGMENT_HEAD_SIZE as u64;
        }
    }

    pub(crate) fn free_before(&mut self, oldest: SegmentId) {
        let kept = self.segments.split_off(&oldest);
        let freed = core::mem::replace(&mut self.segments, kept);
        self.freed.extend(freed);
    }

    /// Of any segment, also of one that no replay reads and that is there for its bodies.
    fn blocks(&self, segment: SegmentId) -> impl Iterator<Item = &Vec<u8>> {
        let freed = self.freed.get(&segment);
        let blocks = self.segments.get(&segment).or(freed);
        blocks.into_iter().flatten()
    }

    /// Names and places of what may have to be written anew before this segment is freed.
    pub(crate) fn survivors(&self, segment: SegmentId) -> Vec<Survivor> {
        let mut survivors = Vec::new();
        let blocks = self.blocks(segment);
        let mut offset = SEGMENT_HEAD_SIZE as u64;
        for bytes in blocks {
            let block = Block::decode(bytes).expect("sealed by this test");
            for found in block.records() {
                let (_, at, record) = found.expect("encoded by this test");
                let location = Location::new(segment, offset, at);
                match record {
                    Record::Message { .. } | Record::Moved { .. } => {
                        survivors.push(Survivor::Message(Written::of(&record, location)));
                    }
                    Record::Fragment { upload, .. } => {
                        survivors.push(Survivor::Fragment { upload, location });
                    }
                    _ => {}
                }
            }
            offset += bytes.len() as u64;
        }
        survivors
    }

    /// Hands out the record at this place.
    pub(crate) fn with_record<T>(
        &self,
        location: Location,
        take: impl FnOnce(&Record<'_>) -> T,
    ) -> T {
        let mut offset = SEGMENT_HEAD_SIZE as u64;
        for bytes in self.blocks(location.segment()) {
            if offset == location.block_offset() {
                let record = Record::decode_at(bytes, location.record_offset());
                return take(&record.expect("encoded by this test"));
            }
            offset += bytes.len() as u64;
        }
        panic!("{location:?} is no place");
    }

    /// Every record in order, decoded from its block, with its place.
    pub(crate) fn replay(&self, take: impl FnMut(&Record<'_>, Location)) {
        assert_eq!(self.open_count, 0, "seal first");
        read(self.segments.iter(), take);
    }

    /// The same from the first record that ever was.
    pub(crate) fn replay_all(&self, take: impl FnMut(&Record<'_>, Location)) {
        assert_eq!(self.open_count, 0, "seal first");
        read(self.freed.iter().chain(&self.segments), take);
    }
}

fn read<'a>(
    segments: impl Iterator<Item = (&'a SegmentId, &'a Vec<Vec<u8>>)>,
    mut take: impl FnMut(&Record<'_>, Location),
) {
    {
        for (segment, blocks) in segments {
            let mut offset = SEGMENT_HEAD_SIZE as u64;
            for bytes in blocks {
                let block = Block::decode(bytes).expect("sealed by this test");
                block
                    .header
                    .check_place(&head_of(*segment), offset)
                    .expect("where it was put");
                for found in block.records() {
                    let (_, at, record) = found.expect("encoded by this test");
                    take(&record, Location::new(*segment, offset, at));
                }
                offset += bytes.len() as u64;
            }
        }
    }
}

fn head_of(segment: SegmentId) -> SegmentHead {
    SegmentHead {
        journal: JournalId([7; 16]),
        shard: ShardId(0),
        segment,
        generation: 0,
        epoch: Epoch::ZERO.next(),
        first_segment: segment,
        size: 1 << 24,
        inflight_blocks_max: 2,
    }
}

pub(crate) enum Survivor {
    Message(Written),
    Fragment { upload: u64, location: Location },
}

/// The record of a message, taken from its block.
pub(crate) struct Written {
    pub(crate) location: Location,
    pub(crate) fields: MessageFields,
    pub(crate) queues: Vec<U64>,
    group: u64,
    is_group_end: bool,
    last_value: Vec<u8>,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Written {
    pub(crate) fn of(record: &Record<'_>, location: Location) -> Self {
        let (Record::Message {
            fields,
            annotations,
            queues,
            head,
            body,
        }
        | Record::Moved {
            fields,
            annotations,
            queues,
            head,
            body,
            ..
        }) = record
        else {
            panic!("no message: {record:?}");
        };
        let bytes = |parts: &Parts<'_>| parts.pieces().flatten().copied().collect();
        Self {
            location,
            fields: *fields,
            queues: queues.0.to_vec(),
            group: annotations.group,
            is_group_end: annotations.is_group_end,
            last_value: annotations.last_value.to_vec(),
            head: bytes(head),
            body: bytes(body),
        }
    }

    pub(crate) fn own_bytes(&self) -> u32 {
        (self.head.len() + self.body.len()) as u32
    }

    pub(crate) fn named(&self) -> IdList<'_> {
        IdList(&self.queues)
    }

    pub(crate) fn fact<'a>(&'a self, moving: &'a Moving, upload: u64) -> Fact<'a> {
        let fields = MessageFields {
            upload,
            ..self.fields
        };
        let annotations = Annotations {
            group: self.group,
            is_group_end: self.is_group_end,
            last_value: &self.last_value,
            ..Annotations::default()
        };
        let (head, body) = (Parts::One(&self.head), Parts::One(&self.body));
        moving.fact(fields, annotations, head, body)
    }
}
