//! Memory does not grow with the store: each command that reads it all gets by with far less.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rig::Journal;

/// Address space that each command has, its own program and stack included, in KiB.
const LIMIT_KIB: u32 = 96 << 10;
/// Bytes of the bodies in the store.
const BODIES: usize = 160 << 20;
const BODY: usize = 200_000;

fn limited(arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_forebay-inspect");
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ulimit -v {LIMIT_KIB} && exec {program} {arguments}"
        ))
        .stdin(Stdio::null())
        .output()
        .expect("a shell starts");
    assert_eq!(output.status.code(), Some(0), "{arguments}: {output:?}");
    output
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_store_larger_than_memory_is_read_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut journal = Journal::create_sized(&data, 16 << 20);
    journal.define(1, "large");
    journal.define(2, "many");
    let body = vec![b'x'; BODY];
    for _ in 0..BODIES / BODY {
        journal.send(&[1], &body);
    }
    let mut sent = Vec::new();
    for number in 0..100_000 {
        sent.push(journal.send(&[2], b"small"));
        if number % 1000 == 999 {
            // Every second one stays: the worst for sets that keep ranges.
            let settled: Vec<u64> = sent.drain(..).step_by(2).collect();
            journal.settle(2, &settled);
        }
    }
    journal.idle();
    let data = text(&data);
    for command in ["verify", "stat", "map", "segments"] {
        limited(&format!("{command} {data}"));
    }
    limited(&format!("records --kind settle {data}"));
    let (file, copy) = (folder.path().join("export"), folder.path().join("copy"));
    limited(&format!("export {data} --to {}", text(&file)));
    limited(&format!("import {} --into {}", text(&file), text(&copy)));
    let undeleted = folder.path().join("undeleted");
    let said = limited(&format!("undelete {data} --into {}", text(&undeleted)));
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("50000 messages"), "{said}");
}

#[test]
fn what_a_checkpoint_names_takes_some_bits_a_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut journal = Journal::create_sized(&data, 1 << 20);
    journal.state = Some(rig::State::default());
    journal.define(1, "one");
    journal.define(2, "two");
    let mut sent = Vec::new();
    for number in 0..200_000 {
        // One in eight in two queues: those are named one by one.
        let queues: &[u64] = if number % 8 == 0 { &[1, 2] } else { &[1] };
        sent.push(journal.send(queues, b"small"));
        if number % 1000 == 999 {
            let settled: Vec<u64> = sent.drain(..).step_by(2).collect();
            journal.settle(1, &settled);
        }
    }
    journal.begin_checkpoint();
    while journal.say(1000).is_none() {}
    journal.idle();
    let data = text(&data);
    let said = limited(&format!("verify {data}"));
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("before hold bodies"), "{said}");
    for command in ["stat", "map", "segments"] {
        limited(&format!("{command} {data}"));
    }
    let file = folder.path().join("export");
    limited(&format!("export {data} --to {}", text(&file)));
}
