//! Faults of the disk that a run's node lives on, drawn by a seed of their own.
//!
//! Each goes through what the product runs: results of writes through the storage port, results of
//! reads to the shard, unreadable sectors to recovery.

use forebay::shard::{ConnectionId, DiskFull, Failure};
use forebay_journal::format::BLOCK_SIZE_MAX;
use forebay_journal::recovery::{Problem, RecoveryError};
use forebay_journal::storage::IoFailure;
use forebay_journal::storage::memory::{Faults, Random};
use forebay_journal::{Lsn, ShardId};

use crate::frame::Frame;
use crate::node::queue_limits;
use crate::options::Mutant;
use crate::store::Named;
use crate::wire::Promise;
use crate::world::{Event, Phase, World};

/// How long an operator takes to put the disk right.
const REPAIR_US: u64 = 3_000;

/// Which faults a run has. They end with the unrest.
#[derive(Debug)]
pub(crate) struct DiskFaults {
    random: Random,
    /// Writes that the system does in part.
    short_permille: u16,
    /// Writes that find no space although it was reserved.
    full_permille: u16,
    /// Reads of blocks that fail.
    read_permille: u16,
    /// Starts with a sector that cannot be read.
    start_permille: u16,
    /// Whether a read failed in this life.
    has_failed_read: bool,
}

impl DiskFaults {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xD15C);
        let mut pick = |from: [u16; 4]| from[random.below(4) as usize];
        Self {
            short_permille: pick([0, 0, 30, 100]),
            full_permille: pick([0, 0, 0, 10]),
            read_permille: pick([0, 0, 0, 100]),
            start_permille: pick([0, 0, 300, 700]),
            has_failed_read: false,
            random,
        }
    }

    pub(crate) fn end_life(&mut self) {
        self.has_failed_read = false;
    }

    /// Whether a shard may fail so.
    pub(crate) fn explains(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Write(failure) => [IoFailure::IO, IoFailure::NO_SPACE].contains(failure),
            Failure::Read(_) => self.has_failed_read,
            Failure::Housekeeping(_) | Failure::Selector(_) => false,
        }
    }
}

impl World {
    /// Whether an ERROR says that the disk is full. Then it may say so, and what it refuses is not
    /// there.
    pub(crate) fn is_refused_by_full_disk(&mut self, id: ConnectionId, frame: &Frame) -> bool {
        let text = String::from_utf8_lossy(&frame.body);
        if !text.contains("the disk is full") {
            return false;
        }
        let is_meant = self.options.disk_full == DiskFull::Fail && self.options.has_full_disk;
        assert!(is_meant, "refused though it was to wait: {text}");
        self.report.refused_by_disk += 1;
        let named = frame.header("receipt-id").unwrap_or_default();
        if let Some(&Promise::Send(uid)) = self.wires[&id].promises.get(named) {
            let node = self.node.as_ref().expect("it sends");
            let mut shards = node.shards.iter();
            let is_there = shards.any(|bound| bound.witness.has_message(uid));
            assert!(!is_there, "{uid} is refused and durable");
            self.ledger.refuse(uid);
        }
        true
    }

    /// What may happen to the write that ends now.
    pub(crate) fn faults_of_write(&mut self) -> Faults {
        let is_unrest = self.phase == Phase::Unrest;
        let is_failed = is_unrest && self.options.has_failed_writes && self.chance(60);
        let is_lost = self.mutant == Mutant::LyingDisk && self.chance(10);
        let permille = |permille: u16| if is_unrest { permille } else { 0 };
        Faults {
            write_error_permille: if is_failed { 1000 } else { 0 },
            write_full_permille: permille(self.disk_faults.full_permille),
            short_permille: permille(self.disk_faults.short_permille),
            lost_permille: if is_lost { 1000 } else { 0 },
            ..Faults::default()
        }
    }

    /// Whether the read that ends now fails.
    pub(crate) fn fails_read(&mut self) -> bool {
        let faults = &mut self.disk_faults;
        let is_failed = self.phase == Phase::Unrest && faults.random.permille(faults.read_permille);
        faults.has_failed_read |= is_failed;
        is_failed
    }

    /// Starts on a disk of which one sector cannot be read, if the seed says so: either the start
    /// is refused and names it, or the sector was not needed and recovery finds what it finds
    /// without the fault. True if it was refused; the next start comes when the disk is repaired.
    pub(crate) fn is_refused_by_disk(&mut self) -> bool {
        let faults = &mut self.disk_faults;
        if self.phase != Phase::Unrest || !faults.random.permille(faults.start_permille) {
            return false;
        }
        let shard = ShardId(faults.random.below(self.options.shards.into()) as u16);
        let Some((named, offset)) = self.draw_sector(shard) else {
            return false;
        };
        let sound = self.find_end(shard).expect("the disk is sound");
        let spoiled = self.store.disk.make_unreadable(named.file, offset);
        spoiled.expect("it was listed");
        let found = self.find_end(shard);
        self.store.disk.make_readable();
        self.note("bad sector", named.segment.get(), offset);
        match found {
            Ok(found) => {
                assert_eq!(found, sound, "unreadable was taken for absent");
                self.report.harmless_sectors += 1;
                false
            }
            Err(error) => {
                check_named(&error, &named, offset);
                self.report.refused_starts += 1;
                self.note("refused", named.segment.get(), error.offset);
                self.after(REPAIR_US, Event::Start);
                true
            }
        }
    }

    /// Where recovery says that the records end. An idle seal behind an orderly stop holds none.
    fn find_end(&self, shard: ShardId) -> Result<Lsn, Box<RecoveryError>> {
        let mutant = match self.mutant {
            Mutant::ZeroForUnreadable => self.mutant,
            _ => Mutant::None,
        };
        let scanned = self.store.scan(shard, queue_limits(), mutant)?;
        Ok(scanned.recovered.next_lsn)
    }

    /// A sector of a segment; rather one that was written than one of the zeros behind.
    fn draw_sector(&mut self, shard: ShardId) -> Option<(Named, u64)> {
        let random = &mut self.disk_faults.random;
        let segments = self.store.segments(shard);
        let count = segments.len() as u64;
        let named = *segments.get(random.below(count.max(1)) as usize)?;
        let live = self.store.disk.live(named.file).expect("just listed");
        let mut offset = 0;
        for _ in 0..8 {
            offset = random.below(named.size / 4096) * 4096;
            if live[offset as usize..][..4096]
                .iter()
                .any(|&byte| byte != 0)
            {
                break;
            }
        }
        Some((named, offset))
    }
}

/// The refusal leads whoever reads it to the sector.
fn check_named(error: &RecoveryError, named: &Named, offset: u64) {
    let (segment, from) = match error.problem {
        Problem::Table {
            unread: Some(unread),
            ..
        } => (unread.segment, unread.offset),
        Problem::Table { unread: None, .. } => panic!("not named: {error}"),
        _ => (error.segment, error.offset),
    };
    let block = from..from + BLOCK_SIZE_MAX as u64;
    // The first block of a segment is looked at together with its head.
    let is_start = from <= 4096 && offset <= 4096 + block.end - block.start;
    assert!(
        segment == named.segment && (block.contains(&offset) || is_start),
        "sector {offset} of {named:?} is not named: {error}"
    );
    assert!(error.to_string().contains("Nothing was changed."));
}
