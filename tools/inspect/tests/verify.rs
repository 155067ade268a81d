//! `verify`: sound is 0, each kind of damage is 1 and named, and what cannot be looked at is 2.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::fs;
use std::path::Path;

use forebay_journal::format::{
    IDENTIFIER_FILE_SIZE, Identifier, SECTOR_SIZE, SEGMENT_HEAD_SIZE, checksum,
};
use forebay_journal::recovery::file_name::identifier_file_name;
use forebay_journal::{BlockNumber, Lsn};
use rig::{
    Block, Journal, Said, blocks, files, inspect, sectors, stored_checksum, two_epochs, with_bytes,
    with_flip,
};
use serde_json::{Value, json};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn verify(data: &Path) -> Said {
    inspect(&["verify", "--json"], data)
}

/// The first damage named; the exit status must be 1 and the text say the same.
fn damage(data: &Path) -> Value {
    let said = verify(data);
    assert_eq!(said.code, 1, "{said:?}");
    let damage = said.json()["damage"][0].clone();
    let text = inspect(&["verify"], data);
    assert_eq!(text.code, 1, "{text:?}");
    for field in ["file", "what"] {
        let expected = damage[field].as_str().expect("a text");
        assert!(text.out.contains(expected), "{expected} in {text:?}");
    }
    let byte = format!("byte     {}\n", damage["offset"]);
    assert!(text.out.contains(&byte), "{byte} in {text:?}");
    damage
}

/// The blocks that others prove to have been durable: all but those in the last window.
fn proven(data: &Path) -> Vec<Block> {
    let mut all = blocks(data);
    all.truncate(all.len() - 2);
    all
}

fn assert_at(damage: &Value, block: &Block) {
    assert_eq!(damage["file"], block.file.as_str(), "{block:?}: {damage:#}");
    assert_eq!(damage["offset"], block.offset, "{block:?}: {damage:#}");
}

#[test]
fn sound_journals_are_sound() {
    for is_stopped in [false, true] {
        let data = folder();
        two_epochs(data.path(), is_stopped);
        for path in [data.path().to_owned(), data.path().join("journal")] {
            let said = verify(&path);
            assert_eq!(said.code, 0, "{said:?}");
            let verdict = said.json();
            assert_eq!(verdict["verdict"], "sound");
            assert_eq!(verdict["shards"][0]["end"]["is_clean_shutdown"], is_stopped);
            assert_eq!(verdict["shards"][0]["blocks"], blocks(data.path()).len());
        }
        let text = inspect(&["verify"], data.path());
        assert!(text.out.ends_with("\nsound\n"), "{text:?}");
    }
    let data = folder();
    Journal::create(data.path());
    assert_eq!(verify(data.path()).code, 0, "nothing written yet");
}

#[test]
fn each_flipped_bit_is_found_and_its_block_named() {
    let data = folder();
    two_epochs(data.path(), false);
    for (index, block) in proven(data.path()).iter().enumerate() {
        // Header fields, payload and padding in turn.
        let places = [0, 8, 56, 100, 150, 185, 192, 1000, block.size - 1];
        let offset = block.offset + places[index % places.len()];
        let damage = with_flip(Path::new(&block.file), offset, || damage(data.path()));
        assert_at(&damage, block);
        if block.offset > SEGMENT_HEAD_SIZE as u64 {
            assert_eq!(damage["lsn_from"], block.first_lsn, "{damage:#}");
            let last = block.first_lsn + block.records - 1;
            assert_eq!(damage["lsn_upto"], last, "{block:?}: {damage:#}");
        }
    }
    assert_eq!(verify(data.path()).code, 0, "all is put back");
}

#[test]
fn zeroed_blocks_are_found() {
    let data = folder();
    two_epochs(data.path(), false);
    for block in proven(data.path()).iter().step_by(3) {
        let zeros = sectors(block.size);
        let path = Path::new(&block.file);
        let damage = with_bytes(path, block.offset, &zeros, || damage(data.path()));
        assert_at(&damage, block);
    }
}

#[test]
fn a_block_of_another_place_is_found() {
    let data = folder();
    two_epochs(data.path(), false);
    let all = proven(data.path());
    let bytes = fs::read(&all[6].file).expect("reads");
    let copy = &bytes[all[6].offset as usize..][..SECTOR_SIZE];
    let path = Path::new(&all[5].file);
    let damage = with_bytes(path, all[5].offset, copy, || damage(data.path()));
    assert_at(&damage, &all[5]);
}

#[test]
fn every_damage_is_listed() {
    let data = folder();
    two_epochs(data.path(), false);
    let all = blocks(data.path());
    let said = with_flip(Path::new(&all[3].file), all[3].offset + 200, || {
        with_flip(Path::new(&all[8].file), all[8].offset + 200, || {
            verify(data.path())
        })
    });
    assert_eq!(said.code, 1, "{said:?}");
    let verdict = said.json();
    let found = verdict["damage"].as_array().expect("a list");
    let places: Vec<_> = found.iter().map(|one| one["offset"].clone()).collect();
    assert_eq!(
        places,
        [json!(all[3].offset), json!(all[8].offset)],
        "{verdict:#}"
    );
    assert_eq!(found[1]["lsn_from"], all[8].first_lsn);
}

#[test]
fn damaged_heads_are_found() {
    let data = folder();
    two_epochs(data.path(), false);
    let counting: std::collections::BTreeSet<_> = blocks(data.path())
        .into_iter()
        .map(|block| block.file)
        .collect();
    for file in counting {
        // Magic, version, journal, segment, generation, reserved, checksum.
        for offset in [0, 8, 16, 32, 40, 100, 4090] {
            let damage = with_flip(Path::new(&file), offset, || damage(data.path()));
            assert_eq!(damage["file"], file.as_str(), "{damage:#}");
            assert_eq!(damage["offset"], 0, "{damage:#}");
        }
    }
}

#[test]
fn truncated_and_missing_files_are_found() {
    let data = folder();
    two_epochs(data.path(), false);
    let all = files(data.path());
    for (_, _, path) in [&all[0], &all[1], &all[5]] {
        let whole = fs::read(path).expect("reads");
        for size in [0, 100, 4096, 5000, whole.len() - 1] {
            fs::write(path, &whole[..size]).expect("writes");
            let damage = damage(data.path());
            assert_eq!(
                damage["file"],
                path.to_str().expect("a plain path"),
                "{damage:#}"
            );
        }
        fs::remove_file(path).expect("removes");
        let damage = damage(data.path());
        assert_eq!(
            damage["file"],
            path.to_str().expect("a plain path"),
            "{damage:#}"
        );
        fs::write(path, whole).expect("writes");
    }
    assert_eq!(verify(data.path()).code, 0, "all is put back");
}

#[test]
fn swapped_files_are_found() {
    let data = folder();
    two_epochs(data.path(), false);
    let all = files(data.path());
    let aside = data.path().join("aside");
    let (first, second) = (&all[0].2, &all[1].2);
    for (from, to) in [(first, &aside), (second, first), (&aside, second)] {
        fs::rename(from, to).expect("renames");
    }
    let damage = damage(data.path());
    assert_eq!(damage["offset"], 0, "{damage:#}");
    assert!(
        damage["what"]
            .as_str()
            .is_some_and(|what| what.contains("segment differs"))
    );
}

#[test]
fn the_superblock_has_two_copies_and_both_are_watched() {
    let data = folder();
    two_epochs(data.path(), false);
    let path = data.path().join("journal/superblock");
    for offset in [0, 8, 20, 4090, 4096 + 20] {
        let damage = with_flip(&path, offset, || damage(data.path()));
        assert_eq!(damage["kind"], "superblock");
        assert_eq!(damage["offset"], offset / 4096 * 4096, "{damage:#}");
    }
    let both = with_flip(&path, 20, || {
        with_flip(&path, 4096 + 20, || verify(data.path()))
    });
    assert_eq!(both.code, 1, "{both:?}");
    assert_eq!(
        both.json()["damage"].as_array().map(Vec::len),
        Some(2),
        "blocks are sound"
    );
    fs::remove_file(&path).expect("removes");
    assert_eq!(damage(data.path())["kind"], "superblock");
}

#[test]
fn records_that_contradict_each_other_are_found() {
    let data = folder();
    let mut journal = Journal::create(data.path());
    journal.send(&[7], b"for nobody");
    journal.idle();
    let damage = damage(data.path());
    assert_eq!(damage["kind"], "record_contradiction");
    assert_eq!(damage["what"], "queue 7 has messages but is not defined");
}

#[test]
fn a_torn_tail_is_no_damage() {
    let data = folder();
    let mut journal = Journal::create(data.path());
    journal.define(1, "q");
    journal.commit();
    journal.send(&[1], &[3; 9000]);
    journal.commit();
    let last = blocks(data.path()).pop().expect("blocks");
    let zeros = sectors(4096);
    let said = with_bytes(Path::new(&last.file), last.offset + 4096, &zeros, || {
        verify(data.path())
    });
    assert_eq!(said.code, 0, "{said:?}");
    let end = &said.json()["shards"][0]["end"];
    assert_eq!(end["row"], 8);
    assert_eq!(end["behind"][0]["offset"], last.offset);
}

#[test]
fn what_is_not_ours_cannot_be_looked_at() {
    let data = folder();
    let refused = |path: &Path, word: &str| {
        for command in ["verify", "stat", "segments", "blocks", "records"] {
            let said = inspect(&[command], path);
            assert_eq!(said.code, 2, "{command}: {said:?}");
            assert!(said.err.contains(word), "{command}: {word} in {said:?}");
        }
    };
    refused(&data.path().join("nowhere"), "No such file");
    refused(data.path(), "not a Forebay data folder");
    fs::create_dir(data.path().join("journal")).expect("makes");
    refused(data.path(), "not a Forebay journal");
    fs::write(data.path().join("journal/superblock"), "hello").expect("writes");
    refused(data.path(), "not Forebay's");
    let file = data.path().join("thesis.tex");
    fs::write(&file, "x").expect("writes");
    assert_eq!(inspect(&["blocks"], &file).code, 2);
}

#[test]
fn a_newer_format_cannot_be_looked_at() {
    let data = folder();
    two_epochs(data.path(), false);
    let superblock = data.path().join("journal/superblock");
    let mut copy = fs::read(&superblock).expect("reads")[..SECTOR_SIZE].to_vec();
    copy[8] = 3;
    let checksum = stored_checksum(&copy[..SECTOR_SIZE - 16]);
    copy[SECTOR_SIZE - 16..].copy_from_slice(&checksum);
    let said = with_bytes(&superblock, 0, &[&*copy, &*copy].concat(), || {
        verify(data.path())
    });
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("format version 3"), "{said:?}");
    // A segment of a newer release has a sound checksum; one that rotted has not.
    let path = &files(data.path())[1].2;
    let mut head = fs::read(path).expect("reads")[..SECTOR_SIZE].to_vec();
    head[8] = 3;
    assert_eq!(with_bytes(path, 0, &head, || verify(data.path())).code, 1);
    let checksum = stored_checksum(&head[..SECTOR_SIZE - 16]);
    head[SECTOR_SIZE - 16..].copy_from_slice(&checksum);
    let said = with_bytes(path, 0, &head, || verify(data.path()));
    assert_eq!(said.code, 2, "{said:?}");
}

/// What earlier starts cut is told, each file with where it was, and is no damage.
#[test]
fn what_lies_in_the_quarantine_is_named() {
    let data = folder();
    two_epochs(data.path(), true);
    let quarantine = data.path().join("journal/quarantine");
    fs::create_dir(&quarantine).expect("made");
    let name = "shard-000-epoch-00000000000000000001-lsn-00000000000000000009-segment-\
                00000000000000000001-byte-00000000000000008192-copy-001";
    fs::write(quarantine.join(name), [0; 4096]).expect("written");
    let said = inspect(&["verify"], data.path());
    assert_eq!(said.code, 0, "{said:?}");
    let expected = "note: quarantine: shard 0, records from 9 on: 4 KiB cut at byte 8192 of \
                    segment 1 of epoch 1: shard-000-epoch-";
    assert!(said.out.contains(expected), "{said:?}");
    assert!(!said.out.contains("not a part of the journal"), "{said:?}");
}

/// Identifier files of strict mode are a part of the journal, and what one names is missed.
#[test]
fn what_an_identifier_names_is_missed() {
    let data = folder();
    two_epochs(data.path(), false);
    let last = blocks(data.path()).pop().expect("some");
    let (epoch, _, path) = files(data.path()).pop().expect("some");
    let file = path.with_file_name(identifier_file_name(rig::SHARD));
    let mut bytes = vec![0; IDENTIFIER_FILE_SIZE];
    fs::write(&file, &bytes).expect("written");
    let said = inspect(&["verify"], data.path());
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.out.contains("not a part of the journal"), "{said:?}");

    let identifier = Identifier {
        journal: rig::JOURNAL,
        shard: rig::SHARD,
        epoch,
        sequence: 1,
        block: BlockNumber::ZERO.plus(last.number + 1),
        lsn: Lsn::ZERO.plus(last.first_lsn + last.records),
        identity: checksum(b"a block that is gone"),
    };
    bytes[identifier.offset() as usize..][..SECTOR_SIZE].copy_from_slice(&identifier.encode());
    fs::write(&file, &bytes).expect("written");
    let damage = damage(data.path());
    assert_eq!(damage["kind"], "table_row_3", "{damage:#}");
    assert_eq!(damage["lsn_from"], last.first_lsn + last.records);
}
