//! `repair`: what can be proved, in a new store that is sound; the rest named and in quarantine.
//! And the damaged store is never changed.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use forebay_journal::format::{
    Annotations, MessageFields, Record, SECTOR_SIZE, SegmentHead, TransactionState,
};
use forebay_journal::recovery::file_name::{epoch_folder_name, segment_file_name};
use rig::{Block, Journal, Said, blocks, files, inspect, sectors, two_epochs, with_bytes};
use serde_json::Value;

fn repair(data: &Path, into: &Path) -> Said {
    let into = into.to_str().expect("a path");
    inspect(
        &["repair", "--json", "--segment-size", "1MiB", "--into", into],
        data,
    )
}

/// Every file of a folder with its bytes.
fn snapshot(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = vec![data.join("journal/superblock")];
    all.extend(files(data).into_iter().map(|(_, _, path)| path));
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_default();
        (path, bytes)
    };
    all.into_iter().map(read).collect()
}

/// Names of messages in an export, with how many queues each is in.
fn messages(data: &Path) -> BTreeSet<(u64, usize)> {
    let said = inspect(&["export"], data);
    assert_eq!(said.code, 0, "{said:?}");
    let lines = said.lines().into_iter();
    let messages = lines.filter(|line| line["what"] == "message");
    let key = |line: Value| {
        let queues = line["queues"].as_array().expect("a list").len();
        (line["message"].as_u64().expect("a number"), queues)
    };
    messages.map(key).collect()
}

/// Messages whose record lies in a block.
fn messages_in(data: &Path, block: &Block) -> BTreeSet<u64> {
    let said = inspect(&["records", "--json", "--kind", "message"], data);
    let lines = said.lines().into_iter();
    let inside = lines.filter(|line| line["block"] == block.number);
    inside.filter_map(|line| line["message"].as_u64()).collect()
}

#[test]
fn of_each_damaged_block_nothing_else_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("makes");
    two_epochs(&data, false);
    let whole = messages(&data);
    let mut all = blocks(&data);
    // The last ones may have been in flight: nothing proves them.
    all.truncate(all.len() - 2);
    for (index, block) in all.iter().enumerate() {
        let lost = messages_in(&data, block);
        let into = folder.path().join(format!("repaired-{index}"));
        // Turned bits, zeros, or another block's bytes: what is there is no block of this place.
        let damage = match index % 3 {
            0 => sectors(block.size),
            1 => vec![0xa5; SECTOR_SIZE],
            _ => fs::read(&all[0].file).expect("reads")[4096..8192].to_vec(),
        };
        let path = Path::new(&block.file);
        let said = with_bytes(path, block.offset, &damage, || {
            let before = snapshot(&data);
            let said = repair(&data, &into);
            assert!(snapshot(&data) == before, "the damaged store was changed");
            said
        });
        if index % 3 == 2 && block.number == all[0].number {
            assert_eq!(said.code, 0, "its own bytes are no damage");
            continue;
        }
        assert_eq!(said.code, 1, "{block:?}: {said:?}");
        let report = said.json();
        assert_eq!(inspect(&["verify"], &into).code, 0, "{block:?}");
        let found = messages(&into);
        // Whatever was there is there, but for what lay in the block; what was settled there, or
        // left a queue there, is there again.
        let kept: BTreeSet<_> = found.iter().map(|(message, _)| *message).collect();
        let doubted = report["messages_in_doubt"].as_u64().expect("a number");
        let missing: Vec<_> = whole
            .iter()
            .filter(|(message, _)| !kept.contains(message) && !lost.contains(message))
            .collect();
        assert!(
            missing.len() as u64 <= doubted,
            "block {}: {missing:?} are neither there nor in quarantine: {report:#}",
            block.number
        );
        assert!(into.join("journal/quarantine/report.json").is_file());
        fs::remove_dir_all(&into).expect("removes");
    }
}

#[test]
fn a_sound_store_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("makes");
    two_epochs(&data, true);
    let into = folder.path().join("repaired");
    let said = repair(&data, &into);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!into.exists());
}

#[test]
fn lost_files_and_superblocks_are_done_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("makes");
    two_epochs(&data, true);
    let whole = messages(&data);
    let (_, _, second) = &files(&data)[1];
    let lost: BTreeSet<u64> = blocks(&data)
        .iter()
        .filter(|block| Path::new(&block.file) == second)
        .flat_map(|block| messages_in(&data, block))
        .collect();
    assert!(!lost.is_empty());
    fs::remove_file(second).expect("removes");
    fs::write(data.join("journal/superblock"), b"gone").expect("writes");
    let into = folder.path().join("repaired");
    let said = repair(&data, &into);
    assert_eq!(said.code, 1, "{said:?}");
    let missing = &said.json()["missing"][0];
    assert!(
        missing["lsn_from"].is_u64() && missing["lsn_upto"].is_u64(),
        "{missing:#}"
    );
    assert_eq!(inspect(&["verify"], &into).code, 0);
    let expected: BTreeSet<u64> = whole.iter().map(|(message, _)| *message).collect();
    let expected = &expected - &lost;
    let found: BTreeSet<u64> = messages(&into)
        .iter()
        .map(|(message, _)| *message)
        .collect();
    // What the lost file settled is there again, and no more.
    assert!(found.is_superset(&expected), "{:?}", &expected - &found);
}

#[test]
fn what_rests_on_a_lost_record_goes_to_the_quarantine() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut journal = Journal::create_sized(&data, 1 << 20);
    journal.define(1, "sure");
    journal.send(&[1], b"sure");
    journal.commit();
    let body = vec![7; 100_000];
    let transaction = 9 << 8;
    let fields = MessageFields {
        transaction,
        ..MessageFields::default()
    };
    let undecided = journal.send_as(&[1], fields, Annotations::default(), b"perhaps");
    journal.commit();
    // The block that is to be lost: the decision, and a definition.
    journal.append(&Record::Transaction {
        transaction,
        state: TransactionState::Committed,
    });
    journal.define(2, "nameless");
    journal.commit();
    let nameless = journal.send(&[2], b"whose?");
    journal.commit();
    let large = journal.send_large(&[1], &body, 30_000);
    journal.commit();
    journal.send(&[1], b"sure, too");
    journal.idle();
    let all = blocks(&data);
    let decision = &all[2];
    let part = all
        .iter()
        .find(|block| block.size > 90_000)
        .expect("the large one");
    let into = folder.path().join("repaired");
    let said = with_bytes(
        Path::new(&decision.file),
        decision.offset,
        &[0xa5; 4096],
        || {
            // One sector is enough for the whole block.
            with_bytes(Path::new(&part.file), part.offset, &[0xa5; 4096], || {
                repair(&data, &into)
            })
        },
    );
    assert_eq!(said.code, 1, "{said:?}");
    let found: Vec<u64> = messages(&into)
        .iter()
        .map(|(message, _)| *message)
        .collect();
    assert_eq!(found.len(), 2, "the sure ones alone: {found:?}");
    let doubtful = fs::read_to_string(into.join("journal/quarantine/doubtful.jsonl"));
    let doubtful = doubtful.expect("is there");
    for message in [undecided, nameless] {
        assert!(
            doubtful.contains(&format!(
                "\"what\":\"message\",\"shard\":0,\"message\":{message},"
            )),
            "{message} in {doubtful}"
        );
    }
    assert!(!found.contains(&large));
    let copies = fs::read_dir(into.join("journal/quarantine")).expect("lists");
    let copies = copies
        .flatten()
        .filter(|one| one.path().extension() == Some("bin".as_ref()));
    assert_eq!(copies.count(), 2);
}

/// Bytes of a fixture of the journal crate: lines of offset and bytes, all else zero.
fn fixture(name: &str, size: usize) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../journal/tests/fixtures/v1");
    let text = fs::read_to_string(path.join(name)).expect("is there");
    let mut bytes = vec![0; size];
    for line in text.lines() {
        let (offset, digits) = line.split_once(' ').expect("offset and bytes");
        let offset = usize::from_str_radix(offset, 16).expect("digits");
        for at in 0..digits.len() / 2 {
            let byte = u8::from_str_radix(&digits[2 * at..][..2], 16);
            bytes[offset + at] = byte.expect("digits");
        }
    }
    bytes
}

/// One record of each kind, as version 1 wrote them, with each sector damaged in turn: whatever is
/// left makes a store that a broker takes, or nothing is made because nothing is damaged.
#[test]
fn the_fixture_of_each_kind_is_repaired_wherever_it_is_hit() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let head = fixture("segment.hex", 1 << 20);
    let head = SegmentHead::decode(&head).expect("sound");
    let epoch = data.join("journal").join(epoch_folder_name(head.epoch));
    fs::create_dir_all(&epoch).expect("makes");
    let superblock = fixture("superblock.hex", 2 * SECTOR_SIZE);
    fs::write(data.join("journal/superblock"), superblock).expect("writes");
    let segment = epoch.join(segment_file_name(head.shard, head.segment));
    fs::write(&segment, fixture("segment.hex", head.size as usize)).expect("writes");
    let mut repaired = 0;
    for sector in 0..head.size / SECTOR_SIZE as u64 {
        for damage in [vec![0; SECTOR_SIZE], vec![0x5a; 512]] {
            let into = folder
                .path()
                .join(format!("repaired-{sector}-{}", damage.len()));
            let offset = sector * SECTOR_SIZE as u64;
            let said = with_bytes(&segment, offset, &damage, || repair(&data, &into));
            assert!(said.code < 2, "sector {sector}: {said:?}");
            if said.code == 1 {
                repaired += 1;
                let verdict = inspect(&["verify"], &into);
                assert_eq!(verdict.code, 0, "sector {sector}: {verdict:?}");
            }
        }
    }
    assert!(repaired >= 4, "only {repaired} were damage");
}
