//! Single faults on small journals (K in the catalogue; J04, J08, J11, J14): never is an
//! acknowledged record lost silently, but for the residue that `docs/format.md` 8 names.

mod rig;

use forebay_journal::format::{
    BLOCK_HEADER_SIZE, Block, BlockHeader, BlockSeal, FormatError, Parts, Record, SegmentHead,
    Superblock, seal_block,
};
use forebay_journal::recovery::{Evidence, Problem, Recovered, RecoveryError, Seal};
use forebay_journal::storage::memory::{FileId, MemoryDisk, Random};
use forebay_journal::{BlockNumber, Epoch, Lsn, SegmentId};
use rig::{BlockSource, Model, Opened, Rig, TestWriter, head, open, open_with, path, seal_of};

/// A journal and what is known about it.
struct Scene {
    name: &'static str,
    rig: Rig,
    recovered: Recovered,
    blocks: Vec<Place>,
    /// Whether something was sealed behind the last record, so that nothing may be lost.
    is_proven: bool,
}

/// Where a block that counts lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: FileId,
    segment: SegmentId,
    header: BlockHeader,
}

impl Place {
    fn size(&self) -> usize {
        self.header.block_size as usize
    }
}

fn file_of(disk: &MemoryDisk, index: u32) -> FileId {
    disk.files()
        .find(|(id, ..)| id.index() == index)
        .expect("recovery names files it was given")
        .0
}

impl Scene {
    fn new(name: &'static str, rig: Rig, is_proven: bool) -> Self {
        let opened = open(&rig.disk);
        rig.model.check(&opened).expect("sound before the fault");
        let recovered = opened.result.expect("sound before the fault");
        let mut blocks = Vec::new();
        for segment in &recovered.segments {
            let file = file_of(&rig.disk, segment.file);
            let bytes = rig.disk.live(file).expect("exists");
            let mut at = 4096;
            while at < segment.used_bytes as usize {
                let header = Block::decode(&bytes[at..]).expect("counted").header;
                blocks.push(Place {
                    file,
                    segment: segment.segment,
                    header,
                });
                at += header.block_size as usize;
            }
        }
        assert!(blocks.len() > 6, "{name} is too small");
        Self {
            name,
            rig,
            recovered,
            blocks,
            is_proven,
        }
    }

    /// Whether a fault in this block may pass for a write in flight.
    fn is_residue(&self, place: &Place) -> bool {
        place.header.number.plus(2) >= self.recovered.next_block
            && !self.blocks.iter().any(|other| {
                other.header.number > place.header.number
                    && other.header.durable_upto >= place.header.first_lsn
            })
    }
}

fn scenes() -> Vec<Scene> {
    let mut busy = Rig::new(1, 8);
    busy.write_blocks(9, 3_000);
    busy.write_blocks(3, 9_000);

    let mut idle = Rig::new(2, 8);
    idle.write_blocks(11, 5_000);
    assert!(idle.seal_idle());
    idle.drain();

    let mut stopped = Rig::new(3, 9);
    stopped.write_blocks(11, 2_000);
    stopped.stop();

    let mut epochs = Rig::new(8, 6);
    for _ in 0..3 {
        epochs.write_blocks(4, 4_000);
        epochs.append_body(3_000);
        epochs.pump();
        let mut disk = epochs.disk.clone();
        disk.crash_by_seed();
        epochs = epochs.restart(disk);
    }
    epochs.write_blocks(4, 700);

    let recycled = recycled_rig(4);

    let mut late = recycled_rig(5);
    late.stop();
    let disk = late.disk.clone();
    let mut late = late.restart(disk);
    late.write_blocks(1, 100);

    // Sealed long before they were written: only their numbers prove anything.
    let mut silent = Rig::new(9, 8);
    silent.writer.says_durable_upto = Some(Lsn::ZERO);
    silent.write_blocks(12, 3_000);

    vec![
        Scene::new("busy", busy, false),
        Scene::new("silent", silent, false),
        Scene::new("idle", idle, true),
        Scene::new("stopped", stopped, true),
        Scene::new("several epochs", epochs, false),
        Scene::new("several epochs, recycled files", recycled, false),
        Scene::new("first block of an epoch", late, false),
    ]
}

/// Three epochs; files of the first are recycled in the last and hold stale sound blocks.
fn recycled_rig(seed: u64) -> Rig {
    let mut rig = Rig::new(seed, 6);
    rig.write_blocks(8, 4_000);
    let disk = rig.disk.crash_image(&[]);
    rig = rig.restart(disk);
    rig.write_blocks(6, 3_000);
    rig.stop();
    let disk = rig.disk.clone();
    rig = rig.restart(disk);
    for _ in 0..10 {
        rig.write_blocks(2, 4_500);
        rig.advance_oldest();
        rig.advance_oldest();
    }
    rig.write_blocks(7, 4_500);
    rig
}

/// What became of the acknowledged records.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    Refused,
    Residue,
}

/// Counts by outcome.
#[derive(Debug, Default)]
struct Tally {
    whole: u64,
    refused: u64,
    residue: u64,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Whole => self.whole += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Residue => self.residue += 1,
        }
    }
}

/// Refused, or all there, or lost from `lost_from` on.
fn judge(model: &Model, opened: &Opened, lost_from: Option<Lsn>, name: &str) -> Outcome {
    if opened.result.is_err() {
        return Outcome::Refused;
    }
    let Err(problem) = model.check(opened) else {
        return Outcome::Whole;
    };
    let Some(lost_from) = lost_from else {
        panic!("{name}: silent loss: {problem}")
    };
    let mut known = model.clone();
    known.acked_upto = lost_from.get() - 1;
    known
        .check(opened)
        .unwrap_or_else(|problem| panic!("{name}: more than the residue: {problem}"));
    Outcome::Residue
}

/// All single faults of one block, each on a fresh copy of the disk.
fn block_faults(scene: &Scene, place: &Place, random: &mut Random) -> Vec<(String, MemoryDisk)> {
    let disk = &scene.rig.disk;
    let (file, offset, size) = (place.file, place.header.offset, place.size());
    let sound = disk.live(file).expect("exists")[offset as usize..][..size].to_vec();
    let mut all = Vec::new();
    let mut with = |name: String, bytes: &[u8]| {
        let mut faulty = disk.clone();
        faulty.put(file, offset, bytes).expect("fits");
        all.push((name, faulty));
    };
    let spots = [0, 9, 56, 64, 72, 191, BLOCK_HEADER_SIZE, size / 2, size - 1];
    let drawn: [usize; 6] = core::array::from_fn(|_| random.below(size as u64) as usize);
    for at in spots.into_iter().chain(drawn) {
        for (kind, mask) in [("bit", 1 << random.below(8)), ("byte", 0xFF)] {
            let mut bytes = sound.clone();
            bytes[at] ^= mask;
            with(format!("{kind} flip at {at}"), &bytes);
        }
    }
    with("zeros".into(), &vec![0; size]);
    let mut bytes = sound.clone();
    bytes[..512].fill(0);
    with("zeros at its start".into(), &bytes);
    let mut bytes = sound.clone();
    random.fill(&mut bytes);
    with("random bytes".into(), &bytes);
    for other in &scene.blocks {
        let is_other = other.header.number != place.header.number;
        if is_other && other.size() <= size {
            let from = disk.live(other.file).expect("exists");
            let copy = &from[other.header.offset as usize..][..other.size()];
            let mut bytes = sound.clone();
            bytes[..copy.len()].copy_from_slice(copy);
            with(format!("copy of block {}", other.header.number), &bytes);
        }
    }
    let stale = stale_copy(disk, place, &sound);
    with("the same block of a former generation".into(), &stale);
    for sector in 0..size as u64 / 4096 {
        let mut faulty = disk.clone();
        faulty
            .make_unreadable(file, offset + sector * 4096)
            .expect("exists");
        all.push((format!("unreadable sector {sector}"), faulty));
    }
    all
}

/// The block as an earlier use of the file could have left it.
fn stale_copy(disk: &MemoryDisk, place: &Place, sound: &[u8]) -> Vec<u8> {
    let size = disk.live(place.file).expect("exists").len() as u64;
    let former = SegmentHead {
        generation: place.header.place.generation.wrapping_sub(1) % (1 << 62),
        ..head(place.header.place.epoch, place.segment, 0, size)
    };
    let seal = seal_of(&place.header);
    let mut bytes = sound.to_vec();
    seal_block(&mut bytes, &former, &seal);
    bytes
}

/// An error names the segment that was damaged and the first record that may be lost.
fn check_named(error: &RecoveryError, place: &Place, name: &str) {
    // Where less than a block of room is left, it could as well be that nothing was written there
    // and the next segment's first block is the damaged one.
    let is_named = error.segment == place.segment && error.offset == place.header.offset
        || error.segment == place.segment.next() && error.offset == 4096;
    assert!(is_named, "{name}: {error}");
    // Counted from an earlier block where segments that are not needed are gone.
    assert!(error.lsn_from <= place.header.first_lsn, "{name}: {error}");
    let text = error.to_string();
    assert!(
        text.contains("Nothing was changed.") && text.ends_with('.'),
        "{text}"
    );
}

/// What the disk does not give back is named as that, with its place.
fn check_unread(error: &RecoveryError, place: &Place, name: &str) {
    match error.problem {
        Problem::Table { unread, .. } => {
            let unread = unread.unwrap_or_else(|| panic!("{name}: {error}"));
            assert_eq!(unread.segment, place.segment, "{name}: {error}");
            let block = place.header.offset..place.header.offset + place.size() as u64;
            assert!(block.contains(&unread.offset), "{name}: {error}");
        }
        Problem::Unreadable(_) => {}
        // Named as damage; that the disk said so is not kept for a segment's first block.
        Problem::FirstBlock if place.header.offset == 4096 => return,
        _ => panic!("{name}: {error}"),
    }
    assert!(error.to_string().contains("error 5"), "{name}: {error}");
}

#[test]
fn a_fault_in_one_block_is_never_a_silent_loss() {
    let mut tally = Tally::default();
    let mut random = Random::new(77);
    for scene in scenes() {
        for place in &scene.blocks {
            for (fault, disk) in block_faults(&scene, place, &mut random) {
                let name = format!("{}, block {}, {fault}", scene.name, place.header.number);
                let opened = open(&disk);
                let is_residue = !scene.is_proven && scene.is_residue(place);
                let lost_from = is_residue.then_some(place.header.first_lsn);
                tally.add(&judge(&scene.rig.model, &opened, lost_from, &name));
                if let Err(error) = &opened.result {
                    check_named(error, place, &name);
                    if fault.starts_with("unreadable") {
                        check_unread(error, place, &name);
                    }
                    // J08: the same again.
                    let again = open(&disk).result.expect_err("refused before");
                    assert_eq!(format!("{again:?}"), format!("{error:?}"));
                }
            }
        }
    }
    eprintln!("faults in blocks: {tally:?}");
    assert!(tally.refused > 1000, "{tally:?}");
    assert!(
        tally.residue > 0,
        "the residue exists and is counted: {tally:?}"
    );
    assert!(tally.residue < tally.refused / 5, "{tally:?}");
}

/// Evidence from elsewhere closes the residue.
#[test]
fn evidence_refuses_what_the_disk_alone_would_cut() {
    let mut tried = 0;
    for scene in scenes() {
        let Some(place) = scene.blocks.last().filter(|place| scene.is_residue(place)) else {
            continue;
        };
        let mut disk = scene.rig.disk.clone();
        disk.put(place.file, place.header.offset, &vec![0; place.size()])
            .expect("fits");
        let acked = Some(Lsn::ZERO.plus(scene.rig.model.acked_upto));
        for evidence in [
            Evidence {
                lease_acked_upto: acked,
                ..Evidence::default()
            },
            Evidence {
                peers_acked_upto: acked,
                ..Evidence::default()
            },
            Evidence {
                ring_acked_upto: acked,
                ..Evidence::default()
            },
        ] {
            let sound = open_with(&scene.rig.disk, evidence, 4096);
            assert!(sound.result.is_ok(), "{}: evidence agrees", scene.name);
            if place.header.record_count > 0 {
                let error = open_with(&disk, evidence, 4096)
                    .result
                    .expect_err("acknowledged");
                let Problem::Table { row, .. } = error.problem else {
                    panic!("{error}")
                };
                assert_eq!(row.number, 3, "{error}");
                assert_eq!(error.lsn_upto, acked);
                tried += 1;
            }
        }
    }
    assert!(tried >= 6, "{tried}");
}

/// All single faults of one file.
fn file_faults(disk: &MemoryDisk, file: FileId, random: &mut Random) -> Vec<(String, MemoryDisk)> {
    let mut all = Vec::new();
    let size = disk.live(file).expect("exists").len() as u64;
    let mut with = |name: String, damage: &mut dyn FnMut(&mut MemoryDisk)| {
        let mut faulty = disk.clone();
        damage(&mut faulty);
        all.push((name, faulty));
    };
    with("missing".into(), &mut |disk| {
        disk.remove(file).expect("exists")
    });
    for left in [0, 100, 4096, 8192, size / 2, size - 4096, size - 1] {
        with(format!("cut to {left}"), &mut |disk| {
            disk.resize(file, left).expect("exists")
        });
    }
    with("head unreadable".into(), &mut |disk| {
        disk.make_unreadable(file, 0).expect("exists")
    });
    with("head zero".into(), &mut |disk| {
        disk.put(file, 0, &[0; 4096]).expect("fits")
    });
    for _ in 0..12 {
        let at = random.below(4096);
        with(format!("head flipped at {at}"), &mut |disk| {
            let byte = disk.live(file).expect("exists")[at as usize] ^ 0x10;
            disk.put(file, at, &[byte]).expect("fits");
        });
    }
    with("all zero behind the head".into(), &mut |disk| {
        disk.put(file, 4096, &vec![0; size as usize - 4096])
            .expect("fits");
    });
    let name_of = |id: FileId| {
        disk.files()
            .find(|f| f.0 == id)
            .expect("listed")
            .1
            .to_string()
    };
    for (other, other_name, _) in disk.files().filter(|f| f.0 != file) {
        with(format!("swapped with {other_name}"), &mut |disk| {
            disk.rename(file, other_name).expect("exists");
            disk.rename(other, &name_of(file)).expect("exists");
        });
        let bytes = disk.live(other).expect("exists");
        with(format!("overwritten by {other_name}"), &mut |disk| {
            disk.put(file, 0, &bytes[..bytes.len().min(size as usize)])
                .expect("fits");
        });
    }
    all
}

#[test]
fn a_fault_of_one_file_is_never_a_silent_loss() {
    let mut tally = Tally::default();
    let mut random = Random::new(78);
    for scene in scenes() {
        let files: Vec<FileId> = scene.rig.disk.files().map(|(id, ..)| id).collect();
        for file in files {
            let blocks: Vec<&Place> = scene.blocks.iter().filter(|b| b.file == file).collect();
            for (fault, disk) in file_faults(&scene.rig.disk, file, &mut random) {
                let name = format!("{}, file {}, {fault}", scene.name, file.index());
                // All blocks of the last segment forgotten at once: as if never written.
                let is_last = blocks
                    .last()
                    .is_some_and(|place| place.header.number.next() == scene.recovered.next_block);
                let is_forgotten = fault.starts_with("all zero") && is_last;
                let first = blocks
                    .first()
                    .filter(|_| is_forgotten)
                    .map(|b| b.header.first_lsn);
                let outcome = judge(&scene.rig.model, &open(&disk), first, &name);
                let is_cut = fault.starts_with("cut to");
                if is_cut && !blocks.is_empty() && !fault.ends_with(" 0") && !fault.ends_with("100")
                {
                    let error = open(&disk).result.expect_err("shorter than its head says");
                    assert!(
                        matches!(error.problem, Problem::Truncated { .. }),
                        "{name}: {error}"
                    );
                }
                if blocks.is_empty() && fault == "missing" {
                    continue;
                }
                tally.add(&outcome);
            }
        }
    }
    eprintln!("faults of files: {tally:?}");
    assert!(tally.refused > 500 && tally.whole > 100, "{tally:?}");
}

/// A journal whose last segment has no prepared one behind it.
fn without_spares(seed: u64) -> Scene {
    let mut rig = Rig::new(seed, 8);
    rig.write_blocks(10, 3_000);
    let last = rig.writer.segment().expect("begun");
    let spares: Vec<FileId> = rig
        .disk
        .files()
        .filter(|(_, name, _)| rig::parse_path(name).is_some_and(|(_, segment)| segment > last))
        .map(|(id, ..)| id)
        .collect();
    assert!(spares.len() > 1);
    for spare in &spares[1..] {
        rig.disk.remove(*spare).expect("exists");
    }
    Scene::new("one spare", rig, false)
}

/// The last segment's head is damaged, or it changes names with the one spare.
#[test]
fn a_damaged_head_hides_nothing() {
    let scene = without_spares(11);
    let last = scene.blocks.last().expect("some");
    let epoch = last.header.place.epoch;
    let spare = scene
        .rig
        .disk
        .find(&path(epoch, last.segment.next()))
        .expect("one is left");

    let mut disk = scene.rig.disk.clone();
    disk.rename(spare, &path(epoch, last.segment))
        .expect("exists");
    disk.rename(last.file, &path(epoch, last.segment.next()))
        .expect("exists");
    let error = open(&disk).result.expect_err("names changed");
    assert!(
        matches!(error.problem, Problem::Head(FormatError::Foreign { .. })),
        "{error}"
    );

    let mut disk = scene.rig.disk.clone();
    disk.remove(spare).expect("exists");
    disk.put(last.file, 100, &[1]).expect("fits");
    let error = open(&disk).result.expect_err("the head is damaged");
    assert!(matches!(error.problem, Problem::Head(_)), "{error}");
    assert_eq!((error.segment, error.offset), (last.segment, 0));

    // Without blocks behind it, such a head is a preparation that was not finished.
    let mut disk = scene.rig.disk.clone();
    disk.put(spare, 100, &[1]).expect("fits");
    scene
        .rig
        .model
        .check(&open(&disk))
        .expect("the spare holds nothing");
}

/// Another history in the same place: all fields fit but the chain of identities.
#[test]
fn a_block_of_another_history_is_refused() {
    let scene = without_spares(12);
    for pair in scene.blocks.windows(2) {
        let [place, next] = pair else {
            unreachable!("windows of two")
        };
        let mut disk = scene.rig.disk.clone();
        let bytes = disk.live(place.file).expect("exists");
        let mut bytes = bytes[place.header.offset as usize..][..place.size()].to_vec();
        let own = SegmentHead {
            size: 8 * 4096,
            inflight_blocks_max: 2,
            ..place.header.place
        };
        let seal = BlockSeal {
            sealed_unix_ms: 1,
            ..seal_of(&place.header)
        };
        seal_block(&mut bytes, &own, &seal);
        disk.put(place.file, place.header.offset, &bytes)
            .expect("fits");
        let error = open(&disk)
            .result
            .expect_err("the next block follows another one");
        let is_last_segment = next.segment == scene.blocks.last().expect("some").segment;
        if place.segment == next.segment {
            assert!(
                matches!(error.problem, Problem::Chain { field: "previous" }),
                "{error}"
            );
            assert_eq!(
                (error.segment, error.offset),
                (next.segment, next.header.offset)
            );
        } else {
            assert!(
                is_last_segment || matches!(error.problem, Problem::Table { .. }),
                "{error}"
            );
        }
    }
}

/// J04: what a recycled file held before never counts, and the tail is found exactly.
#[test]
fn stale_blocks_of_recycled_files_never_count() {
    let mut ends = 0;
    for seed in 0..40 {
        let mut rig = recycled_rig(seed);
        for _ in 0..6 {
            rig.write_blocks(1, 100 + seed as usize * 70);
            let opened = open(&rig.disk);
            rig.model.check(&opened).expect("opens");
            let recovered = opened.result.expect("checked");
            assert_eq!(
                recovered.next_lsn,
                rig.writer.next_lsn(),
                "the tail is found exactly"
            );
            let last = recovered.segments.last().expect("some");
            ends += u64::from(last.generation > 0);
        }
    }
    assert!(ends > 100, "only {ends} ends in recycled files");
}

/// J14: whatever bit of a structure flips, it is not accepted.
#[test]
fn no_flipped_bit_is_accepted() {
    let segment = head(Epoch::ZERO.plus(5), SegmentId::ZERO.plus(9), 3, 1 << 20).encode();
    each_flip(&segment, |bytes| SegmentHead::decode(bytes).is_ok());

    let superblock = Superblock {
        journal: rig::JOURNAL,
        shard_count: 4,
        created_unix_ms: 1_700_000_000_000,
    };
    let copy = &superblock.encode()[..4096];
    each_flip(copy, |bytes| Superblock::decode(bytes).is_ok());
    let mut both = superblock.encode();
    for at in 0..4096 {
        both[at] ^= 1;
        assert_eq!(
            Superblock::decode(&both),
            Ok(superblock),
            "the second copy is sound"
        );
        both[at] ^= 1;
        both[4096 + at] ^= 1;
        assert_eq!(
            Superblock::decode(&both),
            Ok(superblock),
            "the first copy is sound"
        );
        both[4096 + at] ^= 1;
    }

    let mut rig = Rig::new(6, 8);
    rig.write_blocks(2, 300);
    let file = rig
        .disk
        .find(&path(rig.epoch, SegmentId::ZERO.next()))
        .expect("made");
    let block = &rig.disk.live(file).expect("exists")[4096..8192];
    each_flip(block, |bytes| Block::decode(bytes).is_ok());
    each_flip(&block[..BLOCK_HEADER_SIZE], |bytes| {
        BlockHeader::decode(bytes).is_ok()
    });
}

fn each_flip(sound: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(sound));
    let mut bytes = sound.to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepts(&bytes), "bit {bit} flipped and accepted");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A journal of one block whose positions are given.
fn journal_at(lsn: u64, number: u64, epoch: u64, segment: u64) -> MemoryDisk {
    let mut disk = MemoryDisk::new(1);
    let (epoch, segment) = (Epoch::ZERO.plus(epoch), SegmentId::ZERO.plus(segment));
    let head = head(epoch, segment, 0, 8 * 4096);
    let seal = Seal {
        epoch: Epoch::ZERO.next(),
        lsn: Lsn::ZERO.plus(lsn),
        block: BlockNumber::ZERO.plus(number),
        checksum: forebay_journal::format::checksum(b"older"),
    };
    let mut writer = TestWriter::new(epoch, seal, segment);
    writer.add_segment(head);
    let record = Record::Fragment {
        upload: 1,
        offset: 0,
        body: Parts::One(b"x"),
    };
    writer.append(&record).expect("room");
    let write = writer.poll_write().expect("one block");
    let file = disk
        .create(&path(epoch, segment), head.size)
        .expect("no limit");
    disk.put(file, 0, &head.encode()).expect("fits");
    disk.put(file, write.offset, &write.bytes).expect("fits");
    disk
}

/// J11: refused long before a position could wrap.
#[test]
fn positions_near_their_end_are_refused() {
    const MAX: u64 = 1 << 62;
    for (lsn, number, epoch, segment) in [
        (9, 9, 2, 5),
        (MAX - 9, MAX - 9, MAX, 5),
        (9, 9, 2, (1 << 32) - 2),
    ] {
        let opened = open(&journal_at(lsn, number, epoch, segment));
        let recovered = opened.result.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(recovered.next_lsn.get(), lsn + 3);
    }
    for (lsn, number, epoch, segment) in [
        (MAX - 1, 9, 2, 5),
        (9, MAX, 2, 5),
        (9, 9, MAX + 1, 5),
        (9, 9, 2, (1 << 32) - 1),
        ((1 << 63) - 2, 9, 2, 5),
        (1 << 63, 9, 2, 5),
        (u64::MAX - 9, 9, 2, 5),
        (9, 1 << 63, 2, 5),
        (9, u64::MAX - 9, 2, 5),
        (9, 9, u64::MAX - 9, 5),
        (9, 9, 2, u64::MAX - 9),
    ] {
        let error = open(&journal_at(lsn, number, epoch, segment)).result;
        let error = error.expect_err("near its end");
        let is_named = matches!(
            error.problem,
            Problem::Exhausted { .. } | Problem::Contradiction { .. }
        );
        assert!(is_named, "{error}");
    }
}

/// A replay that begins in the last segment, beside leftovers of all segments before. `is_silent`:
/// no block says what was durable.
fn leftovers(is_silent: bool, blocks: usize) -> Rig {
    let mut rig = Rig::new(21, 8);
    rig.keep(|_| true);
    if is_silent {
        rig.writer.says_durable_upto = Some(Lsn::ZERO);
    }
    rig.write_blocks(11, 3_000);
    let before = rig.writer.segment();
    while rig.writer.segment() == before {
        rig.write_blocks(1, 3_000);
    }
    let last = rig.writer.segment().expect("begun");
    while rig.writer.oldest_segment() < last {
        rig.retain_now();
    }
    rig.drain();
    rig.write_blocks(blocks, 500);
    rig
}

/// Nothing needs them, so nothing that becomes of them keeps a shard from its start: also not of
/// the one right before the last segment, and where all of them are damaged.
#[test]
fn damaged_leftovers_are_never_asked_for() {
    for (is_silent, blocks) in [(false, 0), (false, 3), (true, 0), (true, 1), (true, 3)] {
        let rig = leftovers(is_silent, blocks);
        let last = rig.writer.segment().expect("begun");
        let before = |(_, name, _): &(FileId, &str, u64)| {
            rig::parse_path(name).is_some_and(|(_, segment)| segment < last)
        };
        let left: Vec<FileId> = rig.disk.files().filter(before).map(|(id, ..)| id).collect();
        assert!(left.len() >= 2, "{left:?}");
        let kinds: [fn(&mut MemoryDisk, FileId); 5] = [
            |disk, file| disk.put(file, 100, &[1]).expect("fits"),
            |disk, file| disk.put(file, 4096 + 60, &[77; 9]).expect("fits"),
            |disk, file| disk.put(file, 4096, &[0; 4096]).expect("fits"),
            |disk, file| disk.resize(file, 4096 + 512).expect("exists"),
            |disk, file| disk.make_unreadable(file, 4096).expect("exists"),
        ];
        for damage in kinds {
            let mut all = rig.disk.clone();
            for &file in &left {
                let mut disk = rig.disk.clone();
                for disk in [&mut disk, &mut all] {
                    damage(disk, file);
                }
                let found = rig.model.check(&open(&disk));
                found.unwrap_or_else(|problem| panic!("{is_silent}, {blocks}: {problem}"));
            }
            let found = rig.model.check(&open(&all));
            found.unwrap_or_else(|problem| panic!("{is_silent}, {blocks}, all: {problem}"));
        }
    }
}
