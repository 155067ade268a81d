//! `tail`: the last records, and those that come, over new segments, restarts and reused files.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use forebay_journal::QueueId;
use forebay_journal::format::Record;
use rig::{Journal, inspect, two_epochs};
use serde_json::Value;

fn lsns(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .filter_map(|line| line["lsn"].as_u64())
        .collect()
}

#[test]
fn without_follow_it_ends_with_the_last() {
    let data = tempfile::tempdir().expect("a folder");
    two_epochs(data.path(), true);
    let all = lsns(&inspect(&["records", "--json"], data.path()).lines());
    for lines in [0, 1, 3, 10, 40, 1000] {
        let said = inspect(&["tail", "--json", "-n", &lines.to_string()], data.path());
        assert_eq!(said.code, 0, "{said:?}");
        let expected = &all[all.len().saturating_sub(lines)..];
        assert_eq!(lsns(&said.lines()), expected, "the last {lines}");
    }
    // The last that are asked for, wherever they are.
    let said = inspect(
        &["tail", "--json", "-n", "2", "--kind", "settle"],
        data.path(),
    );
    assert_eq!(lsns(&said.lines()).len(), 1, "{said:?}");
}

struct Tail {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(data: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay-inspect"))
            .args(["tail", "--follow", "--json"])
            .args(options)
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let out = child.stdout.take().expect("a pipe");
        let lines = BufReader::new(out).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").expect("reads");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_record_that_comes_is_shown_once() {
    let data = tempfile::tempdir().expect("a folder");
    let mut journal = Journal::create(data.path());
    let mut tail = Tail::start(data.path(), &["-n", "1000"]);
    journal.define(1, "live");
    journal.commit();
    let mut expected = 1;
    let mut check = |tail: &mut Tail, upto: u64| {
        while expected <= upto {
            assert_eq!(tail.next()["lsn"], expected);
            expected += 1;
        }
    };
    for round in 0..60 {
        journal.send(&[1], &[b'x'; 3000]);
        journal.idle();
        if round % 20 == 19 {
            journal = Journal::reopen(data.path());
        }
    }
    let (lsn, _) = journal.append(&Record::QueueDelete { queue: QueueId(1) });
    journal.idle();
    check(&mut tail, lsn.get());
}

#[test]
fn it_ends_at_the_limit_and_says_what_it_missed() {
    let data = tempfile::tempdir().expect("a folder");
    let mut journal = Journal::create(data.path());
    journal.define(1, "live");
    journal.idle();
    let mut tail = Tail::start(data.path(), &["--limit", "80"]);
    // The epoch's start and the definition are there.
    assert_eq!(tail.next()["lsn"], 1);
    assert_eq!(tail.next()["lsn"], 2);
    let mut sent = Vec::new();
    // What it missed it does not count: so the log goes on until it has enough.
    for round in 0.. {
        if round % 40 == 0 && tail.child.try_wait().expect("asks").is_some() {
            break;
        }
        sent.push(journal.send(&[1], &[b'x'; 3000]));
        journal.commit();
        if round % 40 == 39 {
            journal.settle(1, &std::mem::take(&mut sent));
            journal.define(1, "live");
            journal.free();
        }
    }
    let (mut shown, mut last, mut missed) = (2, 2, false);
    for line in &mut tail.lines {
        let line: Value = serde_json::from_str(&line.expect("reads")).expect("JSON");
        let Some(lsn) = line["lsn"].as_u64() else {
            assert_eq!(line["what"], "note", "{line}");
            missed = true;
            continue;
        };
        assert!(
            lsn == last + 1 || missed && lsn > last,
            "{lsn} behind {last}"
        );
        (shown, last, missed) = (shown + 1, lsn, false);
    }
    assert_eq!(shown, 80);
}
