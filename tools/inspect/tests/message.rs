//! `message`: properties, story and body of one, whatever its size.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::path::Path;

use forebay_journal::format::{Annotations, MessageFields, Record, TransactionState};
use rig::{Journal, Said, inspect, two_epochs};

fn message(data: &Path, id: u64, options: &[&str]) -> Said {
    let id = id.to_string();
    inspect(&[&["message", &id], options].concat(), data)
}

#[test]
fn properties_story_and_body_are_shown() {
    let data = tempfile::tempdir().expect("a folder");
    two_epochs(data.path(), true);
    let said = message(data.path(), 2, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    for expected in [
        "shard 0: message 2\n",
        "  queues    1 (orders)\n",
        "persistent:true\n",
        "  delivery          queue 1 (orders), messages 2 to 9",
        "  settle            queue 1 (orders), accepted messages 2, 3",
        &"x".repeat(3000),
    ] {
        assert!(said.out.contains(expected), "{expected} in {said:?}");
    }
    // One body that is no text.
    let json = inspect(&["records", "--json", "--kind", "message"], data.path());
    let both = json.lines().into_iter().find(|one| one["body_size"] == 6);
    let both = both.expect("one is in both queues")["message"].as_u64();
    let said = message(data.path(), both.expect("a number"), &[]);
    assert!(
        said.out.contains("00000000  62 6f 74 68 00 ff "),
        "{said:?}"
    );
    let said = message(data.path(), both.expect("a number"), &["--body", "text"]);
    assert!(said.out.contains("both\\0\\xff\n"), "{said:?}");
    let said = message(data.path(), both.expect("a number"), &["--json"]);
    let json = said.json();
    assert_eq!(json["body_base64"], "Ym90aAD/", "{json:#}");
    assert_eq!(json["head_base64"], "cGVyc2lzdGVudDp0cnVlCg==");
    assert_eq!(json["counts"], true);
    let said = message(data.path(), 999, &[]);
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn a_large_body_is_put_together() {
    let data = tempfile::tempdir().expect("a folder");
    let mut journal = Journal::create(data.path());
    journal.define(1, "large");
    let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let large = journal.send_large(&[1], &body, 30_001);
    journal.send(&[1], b"small");
    journal.idle();
    let said = message(data.path(), large, &["--json"]);
    let json = said.json();
    let found =
        data_encoding::BASE64.decode(json["body_base64"].as_str().expect("a text").as_bytes());
    assert!(found.expect("base64") == body, "another body");
    assert_eq!(json["body_size_on_disk"], body.len());
    let said = message(data.path(), large, &["--body", "hex"]);
    assert_eq!(
        said.out.lines().filter(|line| line.ends_with('|')).count(),
        6250
    );
    assert!(said.out.contains("in 4 records"), "{said:?}");
}

#[test]
fn a_transaction_is_a_part_of_the_story() {
    let data = tempfile::tempdir().expect("a folder");
    let mut journal = Journal::create(data.path());
    journal.define(1, "orders");
    let fields = MessageFields {
        transaction: 77 << 8,
        ..MessageFields::default()
    };
    let sent = journal.send_as(&[1], fields, Annotations::default(), b"in it");
    journal.append(&Record::Transaction {
        transaction: 77 << 8,
        state: TransactionState::Committed,
    });
    journal.idle();
    let said = message(data.path(), sent, &[]);
    assert!(said.out.contains("transaction 19712 committed"), "{said:?}");
    let said = inspect(
        &["records", "--json", "--message", &sent.to_string()],
        data.path(),
    );
    assert_eq!(said.lines().len(), 2, "{said:?}");
}
