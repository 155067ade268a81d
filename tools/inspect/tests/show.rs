//! What `stat`, `segments`, `blocks` and `records` show of a known journal.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::path::Path;
use std::process::{Command, Stdio};

use rig::{Journal, blocks, files, inspect, two_epochs};
use serde_json::{Value, json};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn queue(shard: &Value, name: &str) -> Value {
    let queues = shard["queues"].as_array().expect("a list");
    let found = queues.iter().find(|queue| queue["name"] == name);
    let queue = found.unwrap_or_else(|| panic!("no queue {name}: {shard:#}"));
    json!([queue["ready"], queue["unsettled"]])
}

#[test]
fn stat_counts_queues_and_says_how_it_ended() {
    let data = folder();
    two_epochs(data.path(), false);
    let said = inspect(&["stat", "--json"], data.path());
    assert_eq!(said.code, 0, "{said:?}");
    let stat = said.json();
    assert_eq!(stat["owner"], json!({ "is_running": false }));
    let shard = &stat["shards"][0];
    assert_eq!(shard["state"], "not stopped in order");
    // 21 messages of the first epoch; two settled, the others delivered are ready again.
    assert_eq!(queue(shard, "orders"), json!([19, 0]));
    // The copy of one in both, and 20 of the second epoch, three of them delivered.
    assert_eq!(queue(shard, "bills"), json!([18, 3]));
    assert_eq!(shard["records_by_kind"]["message"], 41);
    assert_eq!(shard["records_by_kind"]["epoch_start"], 2);
    assert_eq!(shard["epoch"], 2);
    assert_eq!(shard["end"]["is_clean_shutdown"], false);

    let data = folder();
    two_epochs(data.path(), true);
    let text = inspect(&["stat"], &data.path().join("journal"));
    assert_eq!(text.code, 0, "{text:?}");
    for expected in [
        "shard 0: stopped in order\n",
        "journal  696e7370656374656420696e20746573, format version 2, made 2023-11-14 22:13:20.000 UTC\n",
        "  shutdown  in order, 2023-11-14 22:13:21.000 UTC\n",
        "  epochs    newest 2, the log goes back to 1\n",
        "  message              41\n",
        "stopped in order (row 10)\n",
    ] {
        assert!(text.out.contains(expected), "{expected:?} in {text:?}");
    }
    let queues: Vec<_> = text
        .out
        .lines()
        .skip_while(|line| !line.contains("QUEUE"))
        .collect();
    assert_eq!(
        queues[..2],
        [
            "  QUEUE  NAME    ADDRESS  ROUTING  READY  UNSETTLED  DELAYED  LEAVING     BYTES",
            "      1  orders  orders   anycast     19          0        0        0  53.0 KiB",
        ]
    );
}

#[test]
fn segments_add_up() {
    let data = folder();
    two_epochs(data.path(), false);
    let said = inspect(&["segments", "--json"], data.path());
    let lines = said.lines();
    assert_eq!(lines.len(), files(data.path()).len());
    let counting: Vec<_> = lines
        .iter()
        .filter(|line| line["state"] == "counts")
        .collect();
    assert_eq!(counting.len(), 4, "{said:?}");
    let mut next = 1;
    for line in &counting {
        assert_eq!(line["first_lsn"], next, "{line}");
        next = line["last_lsn"].as_u64().expect("has records") + 1;
        assert_eq!(line["damage"], Value::Null);
    }
    let total: u64 = counting
        .iter()
        .map(|line| line["blocks"].as_u64().unwrap_or(0))
        .sum();
    assert_eq!(total, blocks(data.path()).len() as u64);
    // Three were prepared ahead in each epoch; those of the first are behind its seal.
    let states: Vec<_> = lines
        .iter()
        .map(|line| line["state"].as_str().unwrap_or(""))
        .collect();
    let expected = "counts counts leftover leftover leftover counts counts spare spare spare";
    assert_eq!(states.join(" "), expected);
    let text = inspect(&["segments"], data.path());
    let header = text.out.lines().next().unwrap_or("");
    assert!(header.starts_with("SHARD  EPOCH  SEGMENT  GEN"), "{text:?}");
    assert!(
        text.out.contains("leftover (behind the seal of its epoch)"),
        "{text:?}"
    );
}

#[test]
fn freed_segments_are_leftovers() {
    let data = folder();
    let mut journal = Journal::create(data.path());
    journal.define(1, "q");
    while journal
        .current_or_none()
        .is_none_or(|segment| segment.get() < 3)
    {
        journal.send(&[1], &[1; 3000]);
        journal.commit();
    }
    journal.free();
    let said = inspect(&["segments", "--json"], data.path());
    let states: Vec<_> = said
        .lines()
        .iter()
        .map(|line| line["state"].clone())
        .collect();
    let first: Vec<_> = states.iter().take(4).collect();
    assert_eq!(
        first,
        ["leftover", "leftover", "counts", "spare"],
        "{said:?}"
    );
}

#[test]
fn blocks_chain_and_end_with_an_idle_seal() {
    let data = folder();
    two_epochs(data.path(), false);
    let said = inspect(&["blocks", "--json"], data.path());
    let lines = said.lines();
    let counting: Vec<_> = lines.iter().filter(|line| line["counts"] == true).collect();
    let mut previous = json!("00000000000000000000000000000000");
    for (index, line) in counting.iter().enumerate() {
        assert_eq!(line["block"], index + 1);
        assert_eq!(line["previous"], previous, "{line}");
        previous = line["identity"].clone();
    }
    assert_eq!(
        counting.last().map(|line| &line["is_idle_seal"]),
        Some(&json!(true))
    );
    assert!(
        lines
            .iter()
            .all(|line| line["what"] != "gap" && line["what"] != "damage")
    );
    let text = inspect(&["blocks"], data.path());
    assert!(text.out.contains("  idle seal\n"), "{text:?}");
    assert!(text.out.contains(" unused\n"), "{text:?}");
}

#[test]
fn records_of_one_queue_as_lines() {
    let data = folder();
    let mut journal = Journal::create(data.path());
    journal.define(1, "orders");
    journal.define(2, "bills");
    let first = journal.send(&[1], b"one\n");
    let second = journal.send(&[2], b"two");
    journal.send(&[1, 2], b"\x00\xff");
    journal.deliver(1, first, first);
    journal.deliver(2, second, second);
    journal.settle(1, &[first]);
    journal.commit();
    let said = inspect(&["records", "--queue", "/queue/orders"], data.path());
    let head = "head \"persistent:true\\n\"";
    let expected = [
        "2  1:4096+272            queue_define      queue 1 named orders at address orders, \
         anycast, made itself",
        &format!(
            "4  1:4096+352            message           message 1 to queue 1 (orders), 4 B {head} \
             body \"one\\n\""
        ),
        &format!(
            "6  1:4096+560            message           message 3 to queue 1 (orders), 2 (bills), \
             2 B {head} body \"\\0\\xff\""
        ),
        "7  1:4096+672            delivery          queue 1 (orders), messages 1 to 1 of priority 4",
        "9  1:4096+752            settle            queue 1 (orders), accepted message 1",
    ]
    .map(|line| format!("         {line}\n"))
    .concat();
    assert_eq!(said.out, expected, "{said:?}");
    let args = [
        "records", "--json", "--bodies", "--from", "6", "--limit", "1",
    ];
    let lines = inspect(&args, data.path()).lines();
    assert_eq!(lines.len(), 1);
    let fields = ["lsn", "kind", "body_base64", "queues", "counts"].map(|name| &lines[0][name]);
    assert_eq!(json!(fields), json!([6, "message", "AP8=", [1, 2], true]));
    assert_eq!(
        inspect(&["records", "--queue", "nobody"], data.path()).code,
        2
    );
    let args = ["records", "--queue", "/topic/orders"];
    assert_eq!(inspect(&args, data.path()).code, 2, "the queue is no topic");
}

#[test]
fn a_single_segment_can_be_read_anywhere() {
    let data = folder();
    two_epochs(data.path(), false);
    let elsewhere = data.path().join("copied");
    let (_, _, path) = &files(data.path())[1];
    std::fs::copy(path, &elsewhere).expect("copies");
    let records = inspect(&["records", "--json"], &elsewhere);
    assert_eq!(records.lines()[0]["kind"], "retained", "{records:?}");
    assert_eq!(inspect(&["blocks"], &elsewhere).code, 0);
    assert_eq!(inspect(&["verify"], &elsewhere).code, 2);
}

#[test]
fn damage_is_shown_and_what_is_behind_it_too() {
    let data = folder();
    two_epochs(data.path(), false);
    let all = blocks(data.path());
    let broken = &all[4];
    let path = Path::new(&broken.file).to_owned();
    rig::with_flip(&path, broken.offset + 300, || {
        let lines = inspect(&["blocks", "--json"], data.path()).lines();
        let counting = lines.iter().filter(|line| line["counts"] == true).count();
        assert_eq!(counting, all.len() - 1, "only the one is lost");
        let gap = lines
            .iter()
            .find(|line| line["what"] == "gap")
            .expect("a gap");
        assert_eq!(gap["offset"], broken.offset);
        assert_eq!(gap["lsn_from"], broken.first_lsn);
        assert_eq!(gap["lsn_upto"], broken.first_lsn + broken.records - 1);
        let records = inspect(&["records"], data.path());
        assert!(
            records.out.contains("DAMAGED: block payload checksum"),
            "{records:?}"
        );
        let stat = inspect(&["stat"], data.path());
        assert_eq!(stat.code, 0);
        assert!(stat.out.contains("shard 0: damaged"), "{stat:?}");
    });
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let data = folder();
    two_epochs(data.path(), false);
    for command in ["records", "blocks", "verify"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay-inspect"))
            .arg(command)
            .arg(data.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert_eq!(output.stderr, b"", "{command}");
    }
}
