//! Data folders of past releases under the real broker: what is in them comes out, what comes in
//! goes into an epoch of this version, and a folder of a newer release is refused by name and left
//! as it was (C07, J13; `docs/format.md` 10).

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test looks at files")]

#[path = "../broker/mod.rs"]
mod broker;
#[path = "../../journal/tests/fixtures/store.rs"]
mod fixtures;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use broker::stomp::{Client, Frame};
use broker::{Broker, Setup};
use forebay_journal::format::{FORMAT_VERSION, checksum};

const CHECKPOINT: &str = include_str!("../../journal/tests/fixtures/v1/checkpoint.hex");
const STRICT: &str = include_str!("../../journal/tests/fixtures/v1/strict.hex");

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

fn unpack(name: &str, text: &str, config: &str) -> Setup {
    let data = broker::fresh_folder(&format!("upgrade-{name}")).join("data");
    for (name, bytes) in fixtures::files(text) {
        let path = data.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    Setup::new(&data).config(&format!("[journal]\nsegment_size = \"1MiB\"\n{config}"))
}

fn receive(client: &mut Client) -> Frame {
    let frame = client.receive(PATIENCE).unwrap();
    frame.unwrap_or_else(|| panic!("nothing came within {PATIENCE:?}"))
}

/// Takes so many messages of a queue in order, for good.
fn take(broker: &Broker, queue: &str, count: usize) -> Vec<Frame> {
    let mut client = Client::connect(broker.address()).unwrap();
    let destination = format!("/queue/{queue}");
    let headers = [
        ("id", "0"),
        ("destination", &*destination),
        ("ack", "client-individual"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut taken = Vec::new();
    for _ in 0..count {
        let frame = receive(&mut client);
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        let ack = [("id", frame.header("ack").unwrap())];
        client.send("ACK", &ack, b"").unwrap();
        taken.push(frame);
    }
    let bye = [("receipt", "bye")];
    client.send("DISCONNECT", &bye, b"").unwrap();
    while receive(&mut client).command != "RECEIPT" {}
    taken
}

/// Whether a message that is sent to a queue is the only one in it.
fn is_empty(broker: &Broker, queue: &str) -> bool {
    send(broker, queue, &[], b"the only one");
    take(broker, queue, 1)[0].body == b"the only one"
}

fn send(broker: &Broker, queue: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut client = Client::connect(broker.address()).unwrap();
    let destination = format!("/queue/{queue}");
    let mut all = vec![
        ("destination", &*destination),
        ("persistent", "true"),
        ("receipt", "s"),
    ];
    all.extend_from_slice(headers);
    client.send("SEND", &all, body).unwrap();
    assert_eq!(receive(&mut client).command, "RECEIPT");
}

fn body(number: usize, size: usize) -> Vec<u8> {
    let mut body = format!("message {number} ").into_bytes();
    body.resize(size, b'x');
    body
}

/// All files of the journal.
fn journal(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.join("journal")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
            }
        }
    }
    found
}

/// Versions of the segments' heads, by epoch.
fn versions(data: &Path) -> BTreeMap<String, u8> {
    let segments = journal(data).into_iter().filter(|(path, _)| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_cut = path.parent().unwrap().ends_with("quarantine");
        name.contains("segment") && !name.ends_with(".new") && !is_cut
    });
    let versions = segments.map(|(path, bytes)| {
        let epoch = path.parent().unwrap().file_name().unwrap();
        (epoch.to_string_lossy().into_owned(), bytes[8])
    });
    versions.collect()
}

#[test]
fn a_folder_of_version_1_is_taken_over_with_all_that_is_in_it() {
    let mut setup = unpack("checkpoint", CHECKPOINT, "");
    let superblock = setup.data.join("journal/superblock");
    let written_once = fs::read(&superblock).unwrap();
    assert!(versions(&setup.data).values().all(|version| *version == 1));
    // The first start may be killed at once: nothing is lost by it.
    setup.start().kill();
    let broker = setup.start();
    // The highest priority first, each in the order in which they were sent.
    let old = take(&broker, "old", 7);
    let (large, old): (Vec<_>, Vec<_>) = old.iter().partition(|one| one.body.len() > 1000);
    assert!(large.len() == 1 && large[0].body == vec![b'y'; 700_000]);
    for (frame, (sent, priority)) in old
        .iter()
        .zip([2, 5, 1, 4, 0, 3].into_iter().zip("554433".chars()))
    {
        assert_eq!(frame.body, body(sent, 500));
        assert_eq!(frame.header("kind"), Some("old"));
        assert_eq!(frame.header("priority"), Some(&*priority.to_string()));
    }
    broker.kill();
    let broker = setup.start();
    assert_eq!(take(&broker, "over", 1)[0].body, b"never over");
    for (number, frame) in take(&broker, "new", 3).iter().enumerate() {
        assert_eq!(frame.body, body(number, 40));
    }
    // Sent again it is the one that is known.
    send(&broker, "twice", &[("_AMQ_DUPL_ID", "one")], b"once more");
    assert_eq!(take(&broker, "twice", 1)[0].body, b"once");
    for queue in ["old", "over", "new", "twice", "busy", "idle.1"] {
        assert!(is_empty(&broker, queue), "{queue}");
    }
    assert!(broker.stop().success());
    let versions = versions(&setup.data);
    let newest = versions.last_key_value().unwrap();
    assert_eq!(u16::from(*newest.1), FORMAT_VERSION, "{versions:?}");
    assert_eq!(fs::read(&superblock).unwrap(), written_once);
    assert!(setup.start().stop().success());
}

#[test]
fn a_folder_of_version_1_in_strict_mode_is_taken_over() {
    let mut setup = unpack("strict", STRICT, "strict = true\n");
    let broker = setup.start();
    for (number, frame) in (5..20).zip(take(&broker, "q", 15)) {
        assert_eq!(frame.body, body(number, 64));
    }
    assert!(is_empty(&broker, "q"));
    broker.kill();
    let broker = setup.start();
    assert!(is_empty(&broker, "q"));
    assert!(broker.stop().success());
}

/// What a release that is a version behind says of a folder: it names the file, what it found, what
/// it knows and what to do, and touches nothing.
#[test]
fn a_folder_of_a_newer_release_is_refused_by_name() {
    let mut setup = unpack("newer", STRICT, "strict = true\n");
    setup.start().kill();
    let newest = versions(&setup.data).last_key_value().unwrap().0.clone();
    let newer = FORMAT_VERSION + 1;
    for (path, mut bytes) in journal(&setup.data) {
        let name = path.to_string_lossy();
        if name.contains(&newest) && name.contains("segment") {
            bytes[8..10].copy_from_slice(&newer.to_le_bytes());
            let sum = checksum(&bytes[..4080]);
            bytes[4080..4096].copy_from_slice(zerocopy::IntoBytes::as_bytes(&sum));
            fs::write(&path, bytes).unwrap();
        }
    }
    let before = journal(&setup.data);
    let mut command = Command::new(&setup.program);
    let command = command.arg("serve").arg("--stomp").arg("127.0.0.1:0");
    let output = command.arg("--data").arg(&setup.data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for word in [
        &*newest,
        "shard-000-segment-",
        &*format!("format version {newer}"),
        &*format!("reads versions {} to {FORMAT_VERSION}", FORMAT_VERSION - 1),
        "Start the release that wrote it",
        "Nothing was changed",
    ] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    assert!(
        journal(&setup.data) == before,
        "a refused journal was changed"
    );
}
