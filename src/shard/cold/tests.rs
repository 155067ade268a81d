//! What is read back is read once while it is wanted, before it is asked for, and never trusted
//! unseen.

use std::collections::VecDeque;

use forebay_journal::format::{Parts, Record, SegmentHead};
use forebay_journal::storage::WriteDone;
use forebay_journal::{
    Budget, Epoch, JournalId, Location, Retained, Seal, SegmentId, ShardId, Writer,
};

use super::*;
use crate::frontend::Subscription;
use crate::shard::ConnectionId;

const OWNER: Owner = Owner {
    journal: JournalId([7; 16]),
    shard: ShardId(0),
};
const BODY_SIZE: usize = 100_000;
const BLOCKS_PER_CHUNK: usize = READ_BACK_CHUNK_SIZE_BYTES as usize / BODY_SIZE;

/// A segment in memory: a block for each record.
struct Journal {
    bytes: Vec<u8>,
    places: Vec<Location>,
}

impl Journal {
    fn new(blocks: usize) -> Self {
        Self::of(OWNER, blocks)
    }

    fn of(owner: Owner, blocks: usize) -> Self {
        let first_segment = SegmentId::ZERO.next();
        let retained = Retained {
            oldest_segment: first_segment,
            ..Retained::default()
        };
        let epoch = Epoch::ZERO.next();
        let mut writer = Writer::new(4 << 20, epoch, Seal::default(), retained);
        writer.add_segment(SegmentHead {
            journal: owner.journal,
            shard: owner.shard,
            segment: first_segment,
            generation: 0,
            epoch,
            first_segment,
            size: 1 << 30,
            inflight_blocks_max: 2,
        });
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        let body = vec![5; BODY_SIZE];
        for upload in 1..=blocks as u64 {
            let record = Record::Fragment {
                upload,
                offset: 0,
                body: Parts::One(&body),
            };
            let appended = writer.append(&record, Budget::Control);
            places.push(appended.expect("room for a record").location);
            let write = writer.poll_write(9).expect("a block to write");
            bytes.resize(write.offset as usize, 0);
            bytes.extend_from_slice(&write.block);
            let (ticket, result) = (write.ticket, Ok(()));
            let done = WriteDone { ticket, result };
            writer.handle_write_done(done, 0).expect("a sound disk");
        }
        Self { bytes, places }
    }
}

struct Rig<'a> {
    journal: &'a Journal,
    cold: ColdBlocks,
    reading: VecDeque<ColdRead>,
    read_count: usize,
}

impl<'a> Rig<'a> {
    fn new(journal: &'a Journal) -> Self {
        Self {
            journal,
            cold: ColdBlocks::new(OWNER),
            reading: VecDeque::new(),
            read_count: 0,
        }
    }

    /// Starts what is to be read.
    fn begin(&mut self) {
        while let Some(read) = self.cold.poll_read() {
            self.read_count += 1;
            self.reading.push_back(read);
            assert!(self.reading.len() <= READ_BACK_INFLIGHT_MAX as usize);
        }
    }

    fn end_one(&mut self) -> Result<(), ColdFailure> {
        let read = self.reading.pop_front().expect("a read under way");
        let mut buffer = read.buffer;
        let from = self.journal.bytes.get(read.offset as usize..);
        let from = from.unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        self.cold.handle_read(read.chunk, buffer, Ok(len))
    }

    fn end_all(&mut self) {
        while !self.reading.is_empty() {
            self.end_one().expect("sound");
            self.begin();
        }
    }

    /// Whether the block is here; the reads it asks for are begun.
    fn is_here(&mut self, reader: u64, at: usize) -> bool {
        let reader = Reader::Subscription(ConnectionId(reader), Subscription(0));
        let place = self.journal.places[at];
        let is_here = match self.cold.block_at(place, reader) {
            Cold::Here(block) => {
                let record = Record::decode_at(block, place.record_offset());
                let upload = at as u64 + 1;
                assert!(matches!(record, Ok(Record::Fragment { upload: of, .. }) if of == upload));
                true
            }
            Cold::Coming => false,
        };
        self.begin();
        is_here
    }

    /// Reads a block; returns how often it had to wait.
    fn read(&mut self, reader: u64, at: usize) -> usize {
        let mut waits = 0;
        while !self.is_here(reader, at) {
            waits += 1;
            self.end_all();
            assert!(waits < 3, "block {at} does not come");
        }
        waits
    }
}

/// Chunks that so many blocks take.
fn chunks_of(blocks: usize) -> usize {
    blocks.div_ceil(BLOCKS_PER_CHUNK - 1)
}

#[test]
fn who_reads_in_order_waits_once_and_reads_once() {
    let journal = Journal::new(600);
    let mut rig = Rig::new(&journal);
    let mut waits = 0;
    for at in 0..600 {
        waits += rig.read(1, at);
        rig.end_all();
    }
    assert_eq!(waits, 1, "what comes next was read ahead");
    assert!(rig.read_count <= chunks_of(600) + 1, "{}", rig.read_count);
}

#[test]
fn readers_less_apart_than_memory_read_once() {
    const READERS: usize = 8;
    let journal = Journal::new(1600);
    let mut rig = Rig::new(&journal);
    let mut places = [0; READERS];
    let mut seed = 1_u64;
    while places.iter().any(|at| *at < 1600) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let reader = (seed >> 33) as usize % READERS;
        let last = *places.iter().min().expect("some");
        for _ in 0..(seed >> 50) % 64 {
            // The first one may be this far ahead of the last one.
            let is_near = places[reader] - last < BLOCKS_PER_CHUNK * 48;
            if places[reader] < 1600 && is_near {
                rig.read(reader as u64, places[reader]);
                places[reader] += 1;
            }
        }
    }
    let most = chunks_of(1600) * 11 / 10;
    assert!(rig.read_count <= most, "{} of {most}", rig.read_count);
}

#[test]
fn readers_further_apart_read_once_each() {
    let journal = Journal::new(2400);
    let mut rig = Rig::new(&journal);
    for step in 0..1200 {
        rig.read(1, step);
        rig.read(2, 1200 + step);
        rig.end_all();
    }
    let most = chunks_of(2400) * 11 / 10;
    assert!(rig.read_count <= most, "{} of {most}", rig.read_count);
}

#[test]
fn slow_readers_cost_a_fast_one_nothing() {
    let journal = Journal::new(1600);
    let mut rig = Rig::new(&journal);
    let mut seed = 7_u64;
    let mut waits = 0;
    for at in 0..1600 {
        waits += rig.read(1, at);
        if at % 4 == 0 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let slow = (seed >> 33) % 100;
            rig.read(2 + slow, (slow as usize * 16 + at / 100) % 1600);
        }
        rig.end_all();
    }
    assert_eq!(waits, 1, "a slow one drove out what was read ahead");
}

#[test]
fn what_is_not_sound_fails_who_needs_it_and_nobody_before() {
    let mut journal = Journal::new(30);
    let damaged = journal.places[20].block_offset() as usize;
    journal.bytes[damaged + 5000] ^= 1;
    let mut rig = Rig::new(&journal);
    for at in 0..20 {
        rig.read(1, at);
        rig.end_all();
    }
    let before = rig.read_count;
    for at in 0..20 {
        rig.read(1, at);
        rig.end_all();
    }
    assert_eq!(rig.read_count, before, "it is not read ahead over and over");
    assert!(!rig.is_here(1, 20));
    let failure = rig.end_one().expect_err("somebody needs it");
    assert_eq!(failure.offset, damaged as u64);
}

/// K06: another shard's, or another folder's, block of the same segment and offset, written astray.
#[test]
fn what_is_of_another_owner_is_never_taken_for_the_own() {
    for other in [
        Owner {
            shard: ShardId(1),
            ..OWNER
        },
        Owner {
            journal: JournalId([8; 16]),
            ..OWNER
        },
    ] {
        let mut journal = Journal::new(5);
        let others = Journal::of(other, 5);
        let at = journal.places[3].block_offset() as usize;
        assert_eq!(journal.places[3], others.places[3]);
        journal.bytes[at..].copy_from_slice(&others.bytes[at..]);
        let mut rig = Rig::new(&journal);
        rig.read(1, 2);
        rig.end_all();
        assert!(!rig.is_here(1, 3));
        let failure = rig.end_one().expect_err("it is another's");
        assert_eq!(failure.offset, at as u64);
        assert!(failure.reason.contains("belongs elsewhere"), "{failure:?}");
    }
}

#[test]
fn what_is_freed_is_forgotten() {
    let journal = Journal::new(40);
    let mut rig = Rig::new(&journal);
    rig.read(1, 0);
    assert!(!rig.is_here(2, 30));
    assert!(!rig.reading.is_empty(), "one is under way");
    rig.cold.forget(&[SegmentId::ZERO.next()]);
    rig.end_all();
    rig.cold.forget(&[SegmentId::ZERO.next()]);
    assert!(rig.cold.chunks.iter().all(Option::is_none));
    assert!(rig.cold.poll_read().is_none());
}
