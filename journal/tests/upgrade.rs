//! J13, C07: a journal of the version before is opened and gone on with, whatever becomes of it;
//! one of a version that this release does not read is refused by name, and never cut.

#[path = "fixtures/store.rs"]
mod fixtures;
mod rig;

use std::collections::BTreeSet;

use forebay_journal::format::{
    BLOCK_HEADER_SIZE, Block, FORMAT_VERSION, FORMAT_VERSION_OLDEST, FormatError, Identifier, Kind,
    Record, SEGMENT_HEAD_SIZE, SegmentHead, Superblock,
};
use forebay_journal::reader::{ReadError, ReadRequest};
use forebay_journal::recovery::file_name::{
    parse_epoch_folder_name, parse_identifier_file_name, parse_segment_file_name,
};
use forebay_journal::recovery::{Problem, Recovered, Recovery, RecoveryInput, SegmentFile};
use forebay_journal::storage::memory::MemoryDisk;
use forebay_journal::{Epoch, Location, Lsn, ShardId};
use rig::version::{disk_as, set_version, superblock_as, version_of};
use rig::{Rig, encoded, open, parse_path};

const CHECKPOINT: &str = include_str!("fixtures/v1/checkpoint.hex");
const STRICT: &str = include_str!("fixtures/v1/strict.hex");

type Files = Vec<(String, Vec<u8>)>;

/// Opens a shard of a folder; gives the kinds of its records as well.
fn open_folder(files: &Files, shard: ShardId) -> (Recovered, BTreeSet<u8>) {
    let superblock = Superblock::decode(&files[files.len() - 1].1).expect("the last by name");
    let segment_of = |name: &str| {
        let (folder, file) = name.strip_prefix("journal/")?.split_once('/')?;
        Some((
            parse_epoch_folder_name(folder)?,
            parse_segment_file_name(file)?,
        ))
    };
    let segments = files
        .iter()
        .enumerate()
        .filter_map(|(file, (name, bytes))| {
            let (epoch, (owner, segment)) = segment_of(name)?;
            (owner == shard).then_some(SegmentFile {
                file: file as u32,
                epoch,
                segment,
                size: bytes.len() as u64,
                head: Ok(&bytes[..SEGMENT_HEAD_SIZE]),
            })
        });
    let mut input = RecoveryInput::new(superblock.journal, shard, segments.collect());
    for (name, bytes) in files {
        let Some((folder, file)) = name
            .strip_prefix("journal/")
            .and_then(|n| n.split_once('/'))
        else {
            continue;
        };
        if parse_identifier_file_name(file) == Some(shard) {
            let epoch = parse_epoch_folder_name(folder).expect("in an epoch's folder");
            let newest = Identifier::newest(bytes, superblock.journal, shard, epoch);
            input
                .evidence
                .add_identifier(&newest.expect("it acknowledged"));
        }
    }
    let mut kinds = BTreeSet::new();
    let mut sink = |_: Lsn, _: Location, record: &Record<'_>| {
        kinds.insert(encoded(record)[0]);
    };
    let read = |ReadRequest { file, offset, len }, out: &mut Vec<u8>| {
        let bytes = &files[file as usize].1;
        let found = bytes.get(offset as usize..offset as usize + len as usize);
        out.extend_from_slice(found.ok_or(ReadError::Short)?);
        Ok(())
    };
    let recovered = Recovery::new(&input).run(read, &mut sink);
    (recovered.unwrap_or_else(|error| panic!("{error}")), kinds)
}

#[test]
fn folders_of_version_1_open() {
    for (text, shards) in [(CHECKPOINT, 2), (STRICT, 1)] {
        let files = fixtures::files(text);
        let mut written = files
            .iter()
            .filter(|(name, _)| !name.ends_with("identifiers") && !name.ends_with(".new"));
        assert!(written.all(|(_, bytes)| version_of(bytes) == 1));
        let mut all = BTreeSet::new();
        for shard in (0..shards).map(ShardId) {
            let (recovered, kinds) = open_folder(&files, shard);
            assert!(recovered.next_lsn > Lsn::ZERO.next(), "{shard}");
            all.extend(kinds);
        }
        assert!(all.contains(&(Kind::Message as u8)));
        let has_checkpoint = all.contains(&(Kind::Checkpoint as u8))
            && all.contains(&(Kind::CheckpointMessage as u8));
        assert_eq!(has_checkpoint, shards == 2, "{all:?}");
    }
}

#[test]
fn a_superblock_of_version_1_says_the_same() {
    let superblock = Superblock {
        journal: rig::JOURNAL,
        shard_count: 4,
        created_unix_ms: 1_700_000_000_000,
    };
    let older = superblock_as(&superblock.encode(), 1);
    assert_eq!(Superblock::decode(&older), Ok(superblock));
    for version in [0, FORMAT_VERSION + 1] {
        let other = superblock_as(&superblock.encode(), version);
        let refused = Err(FormatError::Version { found: version });
        assert_eq!(Superblock::decode(&other), refused);
    }
    // How addresses are placed is refused where it is not known, and not looked at before it was.
    let mut placed = superblock.encode();
    for copy in placed.chunks_mut(4096) {
        copy[40] = 2;
        set_version(copy, FORMAT_VERSION);
    }
    let name = "placement";
    let refused = Err(FormatError::Field { name, value: 2 });
    assert_eq!(Superblock::decode(&placed), refused);
}

/// Writes some records of any kind, each durable, and one that the kill finds under way.
fn write_until_killed(rig: &mut Rig, records: usize) -> MemoryDisk {
    for _ in 0..records {
        rig.prepare_all(&mut |_| {});
        let size = rig.random.below(1500) as usize;
        rig.append_any(size);
        rig.drain();
        rig.advance_oldest();
    }
    rig.append_body(600);
    rig.pump();
    let mut disk = rig.disk.clone();
    disk.crash_by_seed();
    disk
}

/// Some epochs of records of all kinds, the last one killed.
fn history(seed: u64) -> (Rig, MemoryDisk) {
    let mut rig = Rig::new(seed, 9);
    let mut disk = rig.disk.clone();
    for epoch in 0..3 {
        if epoch > 0 {
            rig = rig.restart(disk);
        }
        disk = write_until_killed(&mut rig, 7);
    }
    (rig, disk)
}

#[test]
fn a_journal_of_the_version_before_goes_on_in_this_one() {
    let (mut older, mut newer, mut recycled) = (0, 0, 0);
    for seed in 0..60 {
        let (mut rig, disk) = history(seed);
        rig.turn_into(&disk, FORMAT_VERSION_OLDEST);
        let mut disk = rig.disk.clone();
        let upto = rig.epoch;
        // What was acknowledged in either version is found after each kill; `restart` checks it.
        for _ in 0..3 {
            rig = rig.restart(disk);
            disk = write_until_killed(&mut rig, 6);
        }
        rig.model.check(&open(&disk)).expect("opens once more");
        for (file, path, _) in disk.files() {
            let Some((epoch, _)) = parse_path(path) else {
                continue;
            };
            let bytes = disk.live(file).expect("listed");
            let Ok(head) = SegmentHead::decode(bytes) else {
                continue;
            };
            let version = version_of(bytes);
            let wanted = if epoch <= upto {
                FORMAT_VERSION_OLDEST
            } else {
                FORMAT_VERSION
            };
            assert_eq!(version, wanted, "{path}");
            older += u64::from(version == FORMAT_VERSION_OLDEST);
            newer += u64::from(version == FORMAT_VERSION);
            recycled += u64::from(version == FORMAT_VERSION && head.generation > 0);
        }
    }
    assert!(
        older > 20 && newer > 100 && recycled > 50,
        "{older} {newer} {recycled}"
    );
}

#[test]
fn another_version_is_refused_by_name() {
    for seed in 0..20 {
        let (rig, disk) = history(seed);
        // All of it, or only what the newest epoch began.
        for from in [Epoch::ZERO, rig.epoch] {
            for version in [FORMAT_VERSION + 1, 77] {
                let error = open(&disk_as(&disk, version, from)).result;
                let error = error.expect_err("newer");
                let is_named =
                    matches!(error.problem, Problem::Version { found } if found == version);
                assert!(is_named && error.file.is_some(), "{error}");
                let text = error.to_string();
                for word in [
                    &*format!("format version {version}"),
                    "reads versions 1 to 2 and writes 2",
                    "Nothing was changed.",
                    "Start the release that wrote it",
                ] {
                    assert!(text.contains(word), "{text}");
                }
            }
        }
        let error = open(&disk_as(&disk, 0, Epoch::ZERO))
            .result
            .expect_err("older");
        assert!(
            error.to_string().contains("Start a release between"),
            "{error}"
        );
    }
}

/// A block of a newer version is not a torn one: it is never cut, wherever it lies.
#[test]
fn a_block_of_another_version_is_never_cut() {
    let mut tried = 0;
    for seed in 0..6 {
        let (_, disk) = history(seed);
        let recovered = open(&disk).result.expect("sound");
        for segment in &recovered.segments {
            let file = disk.files().find(|(id, ..)| id.index() == segment.file);
            let file = file.expect("recovery names files it was given").0;
            let bytes = disk.live(file).expect("listed").to_vec();
            let mut at = SEGMENT_HEAD_SIZE;
            while at < segment.used_bytes as usize {
                let block = Block::decode(&bytes[at..]).expect("counted");
                let mut header = bytes[at..at + BLOCK_HEADER_SIZE].to_vec();
                set_version(&mut header, FORMAT_VERSION + 1);
                let mut disk = disk.clone();
                disk.put(file, at as u64, &header).expect("fits");
                let error = open(&disk).result.expect_err("newer");
                assert!(
                    matches!(error.problem, Problem::Version { found: 3 }),
                    "{error}"
                );
                assert_eq!(
                    (error.segment, error.offset),
                    (segment.segment, at as u64),
                    "{error}"
                );
                at += block.header.block_size as usize;
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
}

/// What only says so is damaged: a version counts where the checksum holds.
#[test]
fn a_rotted_version_is_damage() {
    let (_, disk) = history(1);
    for (file, path, _) in disk
        .files()
        .filter(|(_, path, _)| parse_path(path).is_some())
    {
        let mut rotted = disk.clone();
        rotted
            .put(file, 8, &[FORMAT_VERSION as u8 + 1])
            .expect("fits");
        if let Err(error) = open(&rotted).result {
            assert!(
                !matches!(error.problem, Problem::Version { .. }),
                "{path}: {error}"
            );
        }
    }
}
