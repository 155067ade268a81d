//! `compare`: which of two stores is newer, and where they part.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};

use rig::{Journal, files, inspect, two_epochs};
use serde_json::{Value, json};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

fn compare(code: i32, a: &Path, b: &Path) -> Value {
    let said = inspect(&["compare", "--json", a.to_str().expect("a path")], b);
    assert_eq!(said.code, code, "{said:?}");
    let text = inspect(&["compare", a.to_str().expect("a path")], b);
    assert_eq!(text.code, code, "{text:?}");
    said.json()
}

fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    fs::create_dir(&a).expect("makes");
    (folder, a, b)
}

#[test]
fn a_copy_is_the_same_until_one_goes_on() {
    let (_folder, a, b) = folders();
    two_epochs(&a, true);
    copy(&a, &b);
    let same = compare(0, &a, &b);
    assert_eq!(same["shards"][0]["verdict"], "same");
    assert_eq!(same["shards"][0]["newer"], Value::Null);
    let mut journal = Journal::reopen(&b);
    journal.send(&[1], b"later");
    journal.idle();
    let later = compare(0, &a, &b);
    assert_eq!(later["shards"][0]["verdict"], "continues");
    assert_eq!(later["shards"][0]["newer"], "B");
    assert_eq!(compare(0, &b, &a)["shards"][0]["newer"], "A");
}

#[test]
fn two_that_went_on_by_themselves_part_where_they_did() {
    let (_folder, a, b) = folders();
    two_epochs(&a, true);
    copy(&a, &b);
    let end = compare(0, &a, &b)["shards"][0]["last"][0].clone();
    let mut one = Journal::reopen(&a);
    for _ in 0..40 {
        one.send(&[1], &[b'a'; 3000]);
        one.commit();
    }
    one.idle();
    let mut other = Journal::reopen(&b);
    other.send(&[1], &[b'b'; 3000]);
    other.idle();
    // A third start: the higher epoch is newer, whatever the LSN.
    let mut other = Journal::reopen(&b);
    other.send(&[1], b"c");
    other.idle();
    let parts = compare(1, &a, &b);
    let shard = &parts["shards"][0];
    assert_eq!(shard["verdict"], "parts");
    assert_eq!(shard["last_common"], end, "{shard:#}");
    assert_eq!(shard["newer"], "B");
    let next = end["block"].as_u64().expect("a number") + 1;
    let first = &shard["first_different"];
    assert_eq!(
        [&first[0]["block"], &first[1]["block"]],
        [&json!(next), &json!(next)]
    );
    assert_ne!(first[0]["identity"], first[1]["identity"]);
}

#[test]
fn freed_segments_and_other_journals() {
    let (folder, a, b) = folders();
    let mut journal = Journal::create(&a);
    journal.define(1, "live");
    journal.idle();
    copy(&a, &b);
    for _ in 0..80 {
        let sent = journal.send(&[1], &[b'x'; 3000]);
        journal.commit();
        journal.settle(1, &[sent]);
    }
    journal.define(1, "live");
    journal.free();
    journal.idle();
    let behind = compare(0, &a, &b);
    let why = "where the other ends is left over";
    assert_eq!(
        behind["shards"][0]["verdict"], "continues",
        "{why}: {behind:#}"
    );
    assert_eq!(behind["shards"][0]["newer"], "A");
    for (_, segment, path) in files(&a) {
        if segment < journal.current() {
            fs::remove_file(path).expect("removes");
        }
    }
    let apart = compare(0, &a, &b);
    assert_eq!(apart["shards"][0]["verdict"], "apart", "{apart:#}");
    assert_eq!(apart["shards"][0]["newer"], "A");
    // An import is a journal of its own.
    let file = folder.path().join("export.jsonl");
    fs::write(&file, inspect(&["export"], &a).out).expect("writes");
    let c = folder.path().join("c");
    let said = inspect(&["import", "--into", c.to_str().expect("a path")], &file);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(compare(1, &a, &c)["is_same_journal"], false);
    let said = inspect(&["compare", "/nowhere"], &a);
    assert_eq!(said.code, 2, "{said:?}");
}
