//! `map` and `constants`, and what `undelete` finds in what `map` calls dead.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::fs;
use std::path::Path;

use forebay_journal::QueueId;
use forebay_journal::format::Record;
use rig::{Journal, files, inspect, two_epochs, with_flip};
use serde_json::Value;

/// The format does not change by itself: whoever changes it changes this file on purpose, with
/// docs/format.md and the inspector. `FOREBAY_SNAPSHOT=1` writes it anew.
#[test]
fn constants_are_those_of_the_snapshot() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_forebay-inspect"))
        .arg("constants")
        .output()
        .expect("starts");
    let said = String::from_utf8(output.stdout).expect("text");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/constants.txt");
    if std::env::var_os("FOREBAY_SNAPSHOT").is_some() {
        fs::write(&path, &said).expect("writes");
    }
    let kept = fs::read_to_string(&path).expect("is there");
    for (line, (now, before)) in said.lines().zip(kept.lines()).enumerate() {
        assert_eq!(now, before, "line {} of {}", line + 1, path.display());
    }
    assert_eq!(said.lines().count(), kept.lines().count());
}

fn map(data: &Path) -> Vec<Value> {
    let said = inspect(&["map", "--json"], data);
    assert_eq!(said.code, 0, "{said:?}");
    let lines = said.lines();
    for line in &lines {
        let parts = line["bytes"].as_object().expect("an object").values();
        let sum: u64 = parts.map(|bytes| bytes.as_u64().expect("a number")).sum();
        assert_eq!(sum, line["size"].as_u64().expect("a number"), "{line:#}");
    }
    lines
}

fn states(map: &[Value]) -> Vec<&str> {
    map.iter()
        .map(|line| line["state"].as_str().expect("a text"))
        .collect()
}

#[test]
fn segments_are_drawn_by_what_is_in_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("makes");
    two_epochs(&data, false);
    let drawn = map(&data);
    assert_eq!(drawn[0]["state"], "full");
    assert_eq!(
        states(&drawn)
            .iter()
            .filter(|state| **state == "open")
            .count(),
        1
    );
    assert!(states(&drawn).contains(&"prepared"));
    let live: u64 = drawn
        .iter()
        .filter_map(|line| line["bytes"]["live"].as_u64())
        .sum();
    // 39 messages of 3000 bytes are in queues, one small one in two.
    assert!((39 * 3000..39 * 3200).contains(&live), "{live}");
    let (_, _, first) = &files(&data)[0];
    with_flip(first, 3 * 4096 + 100, || {
        let damaged = map(&data);
        assert_eq!(damaged[0]["state"], "damaged");
        assert_eq!(damaged[0]["bytes"]["damaged"], 4096);
        let said = inspect(&["map"], &data);
        assert!(
            said.out
                .lines()
                .any(|line| line.contains('!') && line.contains("damaged"))
        );
    });
    let svg = folder.path().join("map.svg");
    let svg_text = svg.to_str().expect("a path");
    let said = inspect(&["map", "--svg", svg_text], &data);
    assert_eq!(said.code, 0, "{said:?}");
    let picture = fs::read_to_string(&svg).expect("is there");
    assert!(
        picture.starts_with("<svg ") && picture.ends_with("</svg>\n"),
        "{picture}"
    );
    assert_eq!(picture.matches("segment ").count(), drawn.len());
    assert_eq!(
        inspect(&["map", "--svg", svg_text], &data).code,
        2,
        "not over a file"
    );
}

#[test]
fn settled_messages_are_found_also_in_freed_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("makes");
    let mut journal = Journal::create(&data);
    journal.define(1, "orders");
    journal.define(2, "gone");
    let body = vec![b'x'; 3000];
    let mut sent: Vec<u64> = (0..10).map(|_| journal.send(&[1], &body)).collect();
    let large = journal.send_large(&[1], &vec![b'l'; 9000], 3000);
    let of_deleted = journal.send(&[2], b"queue is deleted");
    journal.append(&Record::QueueDelete { queue: QueueId(2) });
    let kept = journal.send(&[1], b"still there");
    sent.push(large);
    journal.settle(1, &sent);
    journal.settle(1, &[kept]);
    for _ in 0..20 {
        let sent = journal.send(&[1], &body);
        journal.commit();
        journal.settle(1, &[sent]);
    }
    let held = journal.send(&[1], b"held");
    journal.define(1, "orders");
    journal.idle();
    journal.free_without_reuse();
    journal.idle();
    assert!(states(&map(&data)).contains(&"leftover"));
    let into = folder.path().join("undeleted");
    let into_text = into.to_str().expect("a path");
    let said = inspect(&["undelete", "--into", into_text], &data);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(inspect(&["verify"], &into).code, 0);
    let lines = inspect(&["export"], &into).lines();
    let messages = lines.iter().filter(|line| line["what"] == "message");
    let names: Vec<_> = messages
        .filter_map(|line| line["message"].as_u64())
        .collect();
    for expected in sent.iter().chain([&of_deleted, &kept]) {
        assert!(names.contains(expected), "{expected} in {names:?}");
    }
    assert!(!names.contains(&held));
    assert_eq!(names.len(), 10 + 1 + 1 + 1 + 20);
    let queues: Vec<_> = lines
        .iter()
        .filter(|line| line["what"] == "queue")
        .collect();
    assert_eq!(queues.len(), 2, "the deleted one is there again");
    // Only those of one outcome: none was refused.
    let none = folder.path().join("none");
    let none_text = none.to_str().expect("a path");
    let said = inspect(
        &["undelete", "--into", none_text, "--outcome", "rejected"],
        &data,
    );
    assert!(said.out.contains("0 messages"), "{said:?}");
}
