//! The world's faults, through the code the product runs: the crate's writer, the storage port with
//! its rule of what a result means, and recovery, on a disk that fails by seed.
//!
//! What is acknowledged is what the writer says is durable. Checked against a model of what it was
//! given: after any fault that a disk reports, a power cut at that moment loses nothing that was
//! acknowledged and invents nothing; after one that it hides, no loss is silent but the residue of
//! `docs/format.md` 8.

mod rig;

use std::collections::BTreeMap;

use forebay_journal::format::{Block, INFLIGHT_BLOCKS_MAX, SEGMENT_HEAD_SIZE};
use forebay_journal::storage::memory::{
    BlockProgress, BlockWrites, Faults, FileId, MemoryDisk, Random,
};
use forebay_journal::storage::{IoFailure, WriteDone};
use forebay_journal::{AppendError, Budget, Epoch, Lsn, Retained, Seal, SegmentId, Writer};
use rig::{Model, head, open, path};

const SEGMENTS: u64 = 4;
const SEGMENT_SIZE: u64 = 512 << 10;
const RUNS: u64 = 60;

/// A writer on a disk, bound by the port as the simulator binds it.
struct Bench {
    disk: MemoryDisk,
    writer: Writer,
    writes: BlockWrites,
    files: BTreeMap<SegmentId, FileId>,
    model: Model,
    random: Random,
    /// Parts of writes that the disk did.
    short_writes: u64,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut disk = MemoryDisk::new(seed);
        let epoch = Epoch::ZERO.next();
        let first = SegmentId::ZERO.next();
        let retained = Retained {
            oldest_segment: first,
            ..Retained::default()
        };
        let mut writer = Writer::new(4 << 20, epoch, Seal::NONE, retained);
        let mut files = BTreeMap::new();
        for number in 1..=SEGMENTS {
            let segment = SegmentId::ZERO.plus(number);
            let head = forebay_journal::format::SegmentHead {
                first_segment: first,
                ..head(epoch, segment, 0, SEGMENT_SIZE)
            };
            let file = disk.create(&path(epoch, segment), SEGMENT_SIZE);
            let file = file.expect("no limit");
            disk.put(file, 0, &head.encode()).expect("fits");
            files.insert(segment, file);
            writer.add_segment(head);
        }
        Self {
            disk,
            writer,
            writes: BlockWrites::default(),
            files,
            model: Model::default(),
            random: Random::new(seed ^ 0xFA17),
            short_writes: 0,
        }
    }

    /// Appends a few records; false when the segments are full.
    fn append_some(&mut self) -> bool {
        for _ in 0..=self.random.below(4) {
            let size = self.random.below(20_000) as usize;
            let writer = &mut self.writer;
            let appended = rig::records::with_record(&mut self.random, size, |record| {
                writer.append(record, Budget::Message)
            });
            match appended {
                Ok(_) => {}
                Err(AppendError::WindowFull | AppendError::NoMemory) => return true,
                Err(AppendError::NoSegment) => return false,
                Err(AppendError::Failed(failure)) => panic!("{failure}"),
            }
        }
        true
    }

    fn pump(&mut self) {
        while let Some(write) = self.writer.poll_write(1) {
            let block = Block::decode(&write.block).expect("just sealed");
            if write.offset == SEGMENT_HEAD_SIZE as u64 {
                let first_lsn = block.header.first_lsn.get();
                self.model.first_lsn.insert(write.segment, first_lsn);
            }
            for record in block.records() {
                let (lsn, _, record) = record.expect("just written");
                self.model.enter(lsn, &record);
            }
            let file = self.files[&write.segment];
            let submitted = self.writes.submit(&mut self.disk, file, write);
            submitted.expect("in range");
            assert!(self.disk.in_flight().len() <= INFLIGHT_BLOCKS_MAX as usize);
        }
    }

    /// Ends one write or a part of one, in an order drawn by seed.
    fn complete(&mut self) -> Option<WriteDone> {
        let ticket = self.disk.draw()?;
        match self.writes.complete(&mut self.disk, ticket) {
            BlockProgress::Done(done) => Some(done),
            BlockProgress::Rest(_) => {
                self.short_writes += 1;
                None
            }
        }
    }

    fn acknowledge(&mut self) {
        self.model.acked_upto = self.writer.durable_end().get() - 1;
    }

    /// The power goes now: nothing acknowledged is lost, nothing invented.
    fn check(&self, name: &str) {
        let mut image = self.disk.clone();
        image.crash_by_seed();
        if let Err(problem) = self.model.check(&open(&image)) {
            panic!("{name}: {problem}");
        }
    }

    /// Runs until a write fails or nothing more fits. Returns the failure.
    fn run(&mut self, faults: Faults, name: &str) -> Option<IoFailure> {
        self.disk.set_faults(faults);
        loop {
            let has_room = self.append_some();
            self.pump();
            for _ in 0..=self.random.below(2) {
                let Some(done) = self.complete() else {
                    continue;
                };
                let before = self.writer.durable_end();
                let told = self.writer.handle_write_done(done, 0);
                if let Err(failure) = told {
                    assert_eq!(done.result, Err(failure));
                    assert_eq!(self.writer.durable_end(), before);
                    return Some(failure);
                }
                self.acknowledge();
                self.check(name);
            }
            if !has_room && self.disk.in_flight().len() == 0 && self.writer.is_drained() {
                return None;
            }
        }
    }

    /// What holds once a write failed: nothing becomes durable, nothing is written or appended,
    /// whatever the disk says about the writes that were in flight with it.
    fn check_failed(&mut self, failure: IoFailure, name: &str) {
        let durable_end = self.writer.durable_end();
        self.disk.set_faults(Faults::default());
        while self.disk.in_flight().len() > 0 {
            if let Some(done) = self.complete() {
                assert_eq!(done.result, Ok(()));
                assert_eq!(self.writer.handle_write_done(done, 0), Err(failure));
            }
            self.check(name);
        }
        let refused = rig::records::with_record(&mut self.random, 9, |record| {
            self.writer.append(record, Budget::Control)
        });
        assert_eq!(refused, Err(AppendError::Failed(failure)));
        self.writer.handle_timeout(u64::MAX);
        assert!(self.writer.poll_write(1).is_none(), "{name}: tried again");
        assert_eq!(self.writer.poll_timeout(), None);
        assert_eq!(self.writer.failure(), Some(failure));
        assert_eq!(self.writer.durable_end(), durable_end);
        self.check(name);
    }
}

/// Runs under a fault until it struck often enough; every failure is of that kind.
fn strike(faults: Faults, expected: IoFailure) {
    let mut failures = 0;
    for seed in 0..RUNS {
        let name = format!("{faults:?}, seed {seed}");
        let mut bench = Bench::new(seed);
        match bench.run(faults, &name) {
            None => bench.check(&name),
            Some(failure) => {
                assert_eq!(failure, expected, "{name}");
                bench.check_failed(failure, &name);
                failures += 1;
            }
        }
    }
    assert!(failures > RUNS / 2, "only {failures} of {RUNS} failed");
}

#[test]
fn after_an_io_error_nothing_is_acknowledged_and_nothing_was_lost() {
    let write_error_permille = 60;
    let faults = Faults {
        write_error_permille,
        ..Faults::default()
    };
    strike(faults, IoFailure::IO);
}

#[test]
fn no_space_behind_a_write_is_a_failure_like_any() {
    let write_full_permille = 60;
    let faults = Faults {
        write_full_permille,
        ..Faults::default()
    };
    strike(faults, IoFailure::NO_SPACE);
}

/// Half of all writes are short. Those that took a sector or more go on; a write of less is EIO.
#[test]
fn a_short_write_is_finished_or_fails() {
    let faults = Faults {
        short_permille: 500,
        ..Faults::default()
    };
    let (mut short_writes, mut failures) = (0, 0);
    for seed in 0..4 * RUNS {
        let name = format!("short, seed {seed}");
        let mut bench = Bench::new(seed);
        if let Some(failure) = bench.run(faults, &name) {
            assert_eq!(failure, IoFailure::IO, "{name}");
            bench.check_failed(failure, &name);
            failures += 1;
        }
        short_writes += bench.short_writes;
    }
    assert!(
        short_writes > 100 && failures > 20,
        "{short_writes} went on, {failures} failed"
    );
}

/// Ends the writes of a journal in order and loses the `lost`-th; gives its block's first LSN.
fn lose(bench: &mut Bench, lost: u64) -> Option<Lsn> {
    let mut found = None;
    let mut count = 0;
    loop {
        let has_room = bench.append_some();
        bench.pump();
        loop {
            let oldest = bench.disk.in_flight().next();
            let Some(ticket) = oldest else { break };
            let is_lost = count == lost;
            bench.disk.set_faults(Faults {
                lost_permille: if is_lost { 1000 } else { 0 },
                ..Faults::default()
            });
            if is_lost {
                found = Some(bench.writer.durable_end());
            }
            count += 1;
            let BlockProgress::Done(done) = bench.writes.complete(&mut bench.disk, ticket) else {
                panic!("no short writes were asked for");
            };
            bench.writer.handle_write_done(done, 0).expect("it lies");
            bench.acknowledge();
            bench.pump();
        }
        if !has_room || count > lost + 6 {
            return found;
        }
    }
}

/// A disk that lies: it said that a block is durable and does not have it. Whatever was written
/// behind it proves that.
#[test]
fn a_lost_write_is_never_a_silent_loss() {
    let mut refused = 0;
    for seed in 0..RUNS {
        let mut bench = Bench::new(seed);
        let lost = bench.random.below(8);
        let lsn = lose(&mut bench, lost).expect("enough was written");
        let mut image = bench.disk.clone();
        image.crash(&[]);
        let opened = open(&image);
        match opened.result {
            Err(error) => {
                assert_eq!(error.lsn_from.get().max(1), lsn.get(), "{error}");
                refused += 1;
            }
            Ok(_) => panic!("seed {seed}: write {lost} was lost from {lsn} on, silently"),
        }
    }
    assert_eq!(refused, RUNS);
}
