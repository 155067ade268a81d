//! `export` and `import`: whatever a journal holds comes back, and comes out the same again.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rig::history::{History, Model};
use rig::{Said, files, inspect, two_epochs, with_flip};
use serde_json::Value;

fn export(data: &Path) -> Said {
    let said = inspect(&["export"], data);
    assert_eq!(said.code, 0, "{said:?}");
    said
}

/// Imports text into a folder beside, and returns that.
fn import(text: &str, beside: &Path, name: &str) -> PathBuf {
    let (file, into) = (beside.join(format!("{name}.jsonl")), beside.join(name));
    std::fs::write(&file, text).expect("writes");
    let into_text = into.to_str().expect("a path");
    let said = inspect(
        &["import", "--segment-size", "1MiB", "--into", into_text],
        &file,
    );
    assert_eq!(said.code, 0, "{said:?}");
    into
}

/// All but the head, which names the source.
fn content(said: &Said) -> &str {
    said.out.split_once('\n').expect("lines").1
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        other => {
            let text = other["base64"].as_str().expect("a text or base64");
            data_encoding::BASE64
                .decode(text.as_bytes())
                .expect("base64")
        }
    }
}

/// Puts bodies together.
fn found(said: &Said) -> Model {
    let mut parts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut found = Model::new();
    for line in said.lines() {
        match line["what"].as_str() {
            Some("part") => {
                let upload = line["upload"].as_u64().expect("a number");
                parts
                    .entry(upload)
                    .or_default()
                    .extend(bytes(&line["body"]));
            }
            Some("message") => {
                let upload = line["upload"].as_u64().unwrap_or(0);
                let mut body = parts.remove(&upload).unwrap_or_default();
                body.extend(bytes(&line["body"]));
                let message = line["message"].as_u64().expect("a number");
                for place in line["queues"].as_array().expect("a list") {
                    let queue = place["queue"].as_u64().expect("a number");
                    found.insert((queue, message), body.clone());
                }
            }
            _ => {}
        }
    }
    found
}

/// Each case starts four processes: few, unless more are asked for.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    /// Export = what the records say; import and export again = the same.
    #[test]
    fn what_is_exported_comes_back(
        steps in proptest::collection::vec(
            (0..16_u8, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300)),
            0..60,
        ),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let mut history = History::begin(&data, 256 << 10);
        steps.iter().for_each(|step| history.step(step));
        history.journal.idle();
        let first = export(&data);
        let found = found(&first);
        let keys = |model: &Model| model.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(keys(&found), keys(&history.model));
        prop_assert!(found == history.model, "another body");
        let copy = import(&first.out, folder.path(), "copy");
        prop_assert_eq!(inspect(&["verify"], &copy).code, 0);
        let second = export(&copy);
        for (before, after) in content(&first).lines().zip(content(&second).lines()) {
            // The end of a line is its body, which was compared already.
            let end = before.len().min(400);
            prop_assert!(before == after, "{}\nbecame\n{:.400}", &before[..end], after);
        }
        prop_assert_eq!(content(&first).lines().count(), content(&second).lines().count());
    }
}

#[test]
fn what_is_damaged_is_not_exported() {
    let data = tempfile::tempdir().expect("a folder");
    two_epochs(data.path(), false);
    let (_, _, path) = &files(data.path())[0];
    let said = with_flip(path, 3 * 4096 + 100, || inspect(&["export"], data.path()));
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("repair"), "{said:?}");
}

#[test]
fn nothing_is_made_of_what_is_no_export() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("makes");
    two_epochs(&data, true);
    let text = export(&data).out;
    let lines: Vec<_> = text.lines().collect();
    let without = |index: usize| {
        let mut lines = lines.clone();
        lines.remove(index);
        lines.join("\n")
    };
    let twice = |index: usize| {
        let mut lines = lines.clone();
        lines.insert(index, lines[index]);
        lines.join("\n")
    };
    let last = lines.len() - 1;
    for (what, wrong) in [
        ("no head", without(0)),
        ("no shard", without(1)),
        ("a queue less", without(2)),
        ("a message less", without(last - 1)),
        ("no end", without(last)),
        ("a line twice", twice(last - 1)),
        ("two ends", twice(last)),
        ("a queue twice", twice(2)),
        ("nothing", String::new()),
        (
            "another version",
            text.replace("\"export_version\":1", "\"export_version\":2"),
        ),
        (
            "priority 11",
            text.replacen("\"priority\":4", "\"priority\":11", 1),
        ),
        (
            "another body",
            text.replacen("\"body\":\"x", "\"body\":\"xx", 1),
        ),
        (
            "another queue",
            text.replacen("\"queue\":2}", "\"queue\":9}", 1),
        ),
        ("cut", text[..text.len() / 2].to_owned()),
    ] {
        let file = folder.path().join("wrong.jsonl");
        std::fs::write(&file, &wrong).expect("writes");
        let into = folder.path().join("new");
        let into = into.to_str().expect("a path");
        let said = inspect(&["import", "--into", into], &file);
        assert_eq!(said.code, 2, "{what}: {said:?}");
        assert!(!Path::new(into).exists(), "{what} left something");
        assert!(
            !folder.path().join("new.partial").exists(),
            "{what} left something"
        );
    }
    // Never over what is there.
    let file = folder.path().join("right.jsonl");
    std::fs::write(&file, &text).expect("writes");
    let into = data.to_str().expect("a path");
    assert_eq!(inspect(&["import", "--into", into], &file).code, 2);
    assert_eq!(inspect(&["verify"], &data).code, 0);
}

#[test]
fn nothing_is_written_into_the_journal_that_is_read() {
    let data = tempfile::tempdir().expect("a folder");
    two_epochs(data.path(), true);
    let inside = data.path().join("journal/new");
    let inside = inside.to_str().expect("a path");
    for command in [
        ["export", "--to"],
        ["undelete", "--into"],
        ["repair", "--into"],
        ["map", "--svg"],
    ] {
        let said = inspect(&[&command[..], &[inside]].concat(), data.path());
        assert_eq!(said.code, 2, "{command:?}: {said:?}");
        assert!(said.err.contains("inside the journal"), "{said:?}");
    }
    let listed = std::fs::read_dir(data.path().join("journal")).expect("lists");
    assert_eq!(listed.count(), 3, "the superblock and two epochs");
}
