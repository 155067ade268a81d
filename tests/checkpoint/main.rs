//! Old messages that nobody takes pin nothing, through the front door and over kill -9: segments
//! in their middle are used again, and what is left of the old ones comes back as it was
//! (`features.md` 4 row 10, `docs/format.md` 9).
//!
//! Each test runs with one shard and with two.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "the test counts files")]

#[path = "../broker/mod.rs"]
mod broker;

use std::path::Path;
use std::time::Duration;

use broker::stomp::{Client, Frame};
use broker::{Broker, Setup};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of one segment.
const SEGMENT: usize = 1 << 20;
/// Bytes of one body.
const BODY: usize = 16 * 1024;
/// Segments that a shard may have whatever came through it: prepared ones, spare ones, the one that
/// is written, those of a checkpoint, and those with what is alive.
const SEGMENTS_MAX: usize = 16;

fn setup(name: &str, shards: u16) -> Setup {
    let folder = broker::fresh_folder(&format!("checkpoint-{name}-{shards}"));
    Setup::new(&folder.join("data"))
        // Else they would move to where a start reads them.
        .config("[journal]\nsegment_size = \"1MiB\"\nrelocation_budget_percent = 0\n")
        .argument("--shards", &shards.to_string())
}

fn connect(broker: &Broker) -> Client {
    Client::connect(broker.address()).unwrap()
}

fn receive(client: &mut Client) -> Frame {
    let frame = client.receive(PATIENCE).unwrap();
    frame.unwrap_or_else(|| panic!("nothing came within {PATIENCE:?}"))
}

/// Sends one durable message and waits for its receipt.
fn send(client: &mut Client, queue: &str, headers: &[(&str, &str)], body: &[u8]) {
    let destination = format!("/queue/{queue}");
    let mut all = vec![
        ("destination", destination.as_str()),
        ("persistent", "true"),
        ("receipt", "s"),
    ];
    all.extend_from_slice(headers);
    client.send("SEND", &all, body).unwrap();
    assert_eq!(receive(client).command, "RECEIPT");
}

/// Takes as many messages of a queue in order; acknowledges each if asked to.
fn take(broker: &Broker, queue: &str, count: usize, is_acked: bool) -> Vec<Frame> {
    let mut client = connect(broker);
    let destination = format!("/queue/{queue}");
    let headers = [
        ("id", "0"),
        ("destination", destination.as_str()),
        ("ack", "client-individual"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let frames: Vec<Frame> = (0..count).map(|_| receive(&mut client)).collect();
    for frame in frames.iter().filter(|_| is_acked) {
        let id = frame.header("ack").unwrap();
        let headers = [("id", id), ("receipt", "a")];
        client.send("ACK", &headers, b"").unwrap();
        assert_eq!(receive(&mut client).command, "RECEIPT");
    }
    frames
}

fn body_of(number: usize) -> Vec<u8> {
    let mut body = format!("message {number} ").into_bytes();
    body.resize(BODY, b'x');
    body
}

/// Segment files of all shards, whatever is in them.
fn segments(data: &Path) -> usize {
    let epochs = std::fs::read_dir(data.join("journal")).unwrap();
    let epochs = epochs.map(|epoch| epoch.unwrap().path());
    let epochs = epochs.filter(|path| path.is_dir());
    let files = epochs.flat_map(|epoch| std::fs::read_dir(epoch).unwrap());
    let names = files.map(|file| file.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().contains("segment"))
        .count()
}

/// Sends messages to a queue and takes them again, so many segments full.
fn pass_through(broker: &Broker, queue: &str, segments: usize) {
    let mut client = connect(broker);
    let per_round = SEGMENT / BODY;
    for _ in 0..segments {
        (0..per_round).for_each(|number| send(&mut client, queue, &[], &body_of(number)));
        take(broker, queue, per_round, true);
    }
}

/// What of an old message has to come back.
fn seen(frames: &[Frame]) -> Vec<(Vec<u8>, Option<String>, Option<String>)> {
    let header = |frame: &Frame, name| frame.header(name).map(str::to_owned);
    let one = |frame: &Frame| {
        let priority = header(frame, "priority");
        (frame.body.clone(), priority, header(frame, "kind"))
    };
    frames.iter().map(one).collect()
}

#[test]
fn old_messages_pin_nothing() {
    for shards in [1, 2] {
        let mut setup = setup("pin", shards);
        let mut broker = setup.start();
        let mut client = connect(&broker);
        for number in 0..6 {
            let priority = (number % 3 + 3).to_string();
            let headers = [("priority", priority.as_str()), ("kind", "old")];
            send(&mut client, "old", &headers, &body_of(number));
        }
        drop(client);
        let before = seen(&take(&broker, "old", 6, false));
        for round in 0..3 {
            pass_through(&broker, "busy", 12);
            let found = segments(&setup.data);
            let most = SEGMENTS_MAX * usize::from(shards);
            assert!(found <= most, "{found} segments after round {round}");
            broker.kill();
            broker = setup.start();
            let after = seen(&take(&broker, "old", 6, false));
            assert_eq!(after, before, "round {round}, {shards} shards");
        }
        take(&broker, "old", 6, true);
        assert!(broker.stop().success());
    }
}

/// Those with a time, a group, a key of their own, or a part that was delivered.
#[test]
fn old_messages_keep_what_is_known_of_them() {
    for shards in [1, 2] {
        let mut setup = setup("known", shards);
        let mut broker = setup.start();
        let mut client = connect(&broker);
        let large: Vec<u8> = (0..700_000).map(|at| (at % 251) as u8).collect();
        send(&mut client, "old", &[("JMSXGroupID", "g")], &large);
        send(
            &mut client,
            "old",
            &[("expires", "4102444800000")],
            b"in time",
        );
        send(
            &mut client,
            "later",
            &[("AMQ_SCHEDULED_DELAY", "86400000")],
            b"tomorrow",
        );
        send(
            &mut client,
            "over",
            &[("expires", "4102444800000")],
            b"never over",
        );
        let first = take(&broker, "old", 2, false);
        assert_eq!(first[0].body, large);
        pass_through(&broker, "busy", 10);
        broker.kill();
        broker = setup.start();
        let after = take(&broker, "old", 2, true);
        assert_eq!(after[0].body, large, "with one shard or two: {shards}");
        assert_eq!(after[0].header("redelivered"), Some("true"));
        assert_eq!(after[1].body, b"in time");
        assert_eq!(take(&broker, "over", 1, true)[0].body, b"never over");
        assert!(broker.stop().success());
    }
}
