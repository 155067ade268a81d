//! A full disk where messages are to be refused (features 6.8 and 47, reliability O01): each
//! producer is told, consumers drain all that was confirmed and nothing else, and messages are
//! taken again as soon as there is space. What is said of it meanwhile is so.

#![allow(clippy::disallowed_methods, reason = "a test measures")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::Setup;
use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::load::{body, leave, next, number_of, until_closed};
use crate::small_disk::{disk, setup};
use crate::{OTHERS_PATIENCE, PATIENCE};

/// Producers, each with a number of its own.
const PRODUCERS: u64 = 8;
/// One that sends what comes in many pieces.
const LARGE: u64 = 7;
/// Queues, on all shards where there are several.
const QUEUES: u64 = 4;

/// Where what is refused for good goes.
const DEAD: &str = "dead.0";

fn queue_of(producer: u64) -> String {
    format!("/queue/full.{}", producer % QUEUES)
}

fn message_of(producer: u64, number: u64) -> Vec<u8> {
    let len = if producer == LARGE { 700_000 } else { 60_000 };
    body(producer << 32 | number, len)
}

/// What a producer came to.
struct Sent {
    confirmed: BTreeSet<u64>,
    /// How long the refusal took.
    refused_after: Duration,
}

/// Sends one message and waits for what is said of it: whether it is confirmed, or else refused for
/// the disk's sake.
fn send_one(client: &mut Client, queue: &str, body: &[u8]) -> bool {
    let headers = [
        ("destination", queue),
        ("persistent", "true"),
        ("receipt", "it"),
    ];
    // Whoever is refused in the middle of a message may find the socket closed: what was said
    // comes all the same.
    let _ = client.send("SEND", &headers, body);
    let frame = next(client);
    let about = frame.header("receipt-id");
    assert_eq!(about, Some("it"), "{frame:?}");
    if frame.command == "RECEIPT" {
        return true;
    }
    let text = String::from_utf8_lossy(&frame.body).into_owned();
    assert_eq!(frame.command, "ERROR", "{frame:?}");
    assert_eq!(frame.header("message"), Some("refused"), "{text}");
    assert!(text.contains("the disk is full"), "{text}");
    assert!(text.contains("limits.disk_full_policy"), "{text}");
    assert!(text.contains(&queue["/queue/".len()..]), "{text}");
    assert!(until_closed(client).is_empty(), "nothing behind an ERROR");
    false
}

/// Sends until it is refused.
fn produce(address: SocketAddr, producer: u64) -> Sent {
    let mut client = Client::connect(address).unwrap();
    let mut confirmed = BTreeSet::new();
    for number in 0.. {
        let body = message_of(producer, number);
        let started = Instant::now();
        if !send_one(&mut client, &queue_of(producer), &body) {
            let refused_after = started.elapsed();
            return Sent {
                confirmed,
                refused_after,
            };
        }
        confirmed.insert(producer << 32 | number);
    }
    panic!("the disk never fills");
}

/// Takes what comes, acknowledging each, until all of these came once.
fn drain(address: SocketAddr, wanted: &BTreeSet<u64>) {
    let mut clients: Vec<Client> = (0..2).map(|_| subscribe_to_all(address)).collect();
    let mut got = BTreeSet::new();
    let started = Instant::now();
    while got.len() < wanted.len() {
        for client in &mut clients {
            while let Some(frame) = client.receive(Duration::from_millis(5)).unwrap() {
                assert_eq!(frame.command, "MESSAGE", "{frame:?}");
                let number = number_of(&frame.body);
                let (producer, index) = (number >> 32, number & 0xFFFF_FFFF);
                assert!(frame.body == message_of(producer, index), "another body");
                assert!(wanted.contains(&number), "{number} was not confirmed");
                assert!(got.insert(number), "{number} twice");
                let ack = frame.header("ack").unwrap();
                client.send("ACK", &[("id", ack)], b"").unwrap();
            }
        }
        let missing = wanted.len() - got.len();
        assert!(started.elapsed() < PATIENCE, "{missing} do not come");
    }
    clients.into_iter().for_each(leave);
}

fn subscribe_to_all(address: SocketAddr) -> Client {
    let mut client = Client::connect(address).unwrap();
    for number in 0..QUEUES {
        let (id, queue) = (number.to_string(), queue_of(number));
        let headers = [
            ("id", id.as_str()),
            ("destination", &queue),
            ("ack", "client-individual"),
            ("prefetch-count", "10"),
        ];
        client.send("SUBSCRIBE", &headers, b"").unwrap();
    }
    client
}

/// What `forebay status` says, in words and for programs.
pub(crate) fn status(setup: &Setup) -> (String, Value) {
    let say = |more: &[&str]| {
        let mut command = Command::new(&setup.program);
        command.arg("status").arg("--data").arg(&setup.data);
        let output = command.args(more).output().unwrap();
        assert!(output.status.success(), "it serves: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let report = serde_json::from_str(&say(&["--json"])).unwrap();
    (say(&[]), report)
}

/// The sum of the samples of a metric whose labels hold these.
fn metric(setup: &Setup, name: &str, label: &str) -> f64 {
    let mut stream = UnixStream::connect(setup.data.join("admin.sock")).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let of_it = samples
        .filter(|(sample, _)| sample.split('{').next() == Some(name) && sample.contains(label));
    let values: Vec<f64> = of_it.map(|(_, value)| value.parse().unwrap()).collect();
    assert!(!values.is_empty(), "no {name} in {text}");
    values.iter().sum()
}

/// These producers send until each is refused; gives what was confirmed.
fn fill(address: SocketAddr, producers: impl Iterator<Item = u64>) -> BTreeSet<u64> {
    let threads: Vec<_> = producers
        .map(|producer| std::thread::spawn(move || produce(address, producer)))
        .collect();
    let sent: Vec<Sent> = threads
        .into_iter()
        .map(|thread| thread.join().expect("a producer was told something else"))
        .collect();
    let slowest = sent.iter().map(|one| one.refused_after).max().unwrap();
    let confirmed: BTreeSet<u64> = sent.into_iter().flat_map(|one| one.confirmed).collect();
    println!(
        "full disk: {} messages, then all producers refused, the slowest in {slowest:?}",
        confirmed.len()
    );
    assert!(confirmed.len() > 100, "only {} fit", confirmed.len());
    assert!(slowest < OTHERS_PATIENCE, "refused after {slowest:?} only");
    confirmed
}

/// Every shard is full and refuses: status, health and metrics say it.
fn check_said(setup: &Setup) {
    let (text, report) = status(setup);
    let words = "the disk is full: messages are refused";
    assert!(text.contains(words), "{text}");
    let shards = report["shards"].as_array().unwrap();
    for one in shards {
        assert_eq!(one["disk_full"], true, "{report}");
        assert_eq!(one["refusing_messages"], true, "{report}");
    }
    assert!(report["disk_free_bytes"].as_u64() < report["disk_size_bytes"].as_u64());
    let full = metric(setup, "forebay_disk_full", "");
    assert_eq!(full, shards.len() as f64);
    let refused = metric(setup, "forebay_refusals_total", "disk_full");
    assert!(refused >= PRODUCERS as f64, "{refused} counted");
}

/// Whether a small message is taken by each queue now.
fn is_taken_everywhere(address: SocketAddr) -> bool {
    (0..QUEUES).all(|producer| {
        let mut client = Client::connect(address).unwrap();
        send_one(&mut client, &queue_of(producer), b"8 bytes!")
    })
}

#[test]
fn producers_are_refused_and_consumers_drain() {
    for shards in ["1", "2"] {
        let Some(disk) = disk(&format!("full-refused-{shards}")) else {
            return;
        };
        let mut setup = setup(&disk)
            .config("disk_full_policy = \"fail\"\n")
            .argument("--shards", shards);
        let running = setup.start();
        let address = running.address();
        let (text, report) = status(&setup);
        assert!(!text.contains("full"), "{text}");
        assert_eq!(report["shards"][0]["disk_full"], false, "{report}");
        let confirmed = fill(address, 0..PRODUCERS);
        check_said(&setup);
        assert!(running.said().contains("messages wait for space"));
        // Who comes later is told as well.
        for producer in 0..QUEUES {
            let mut client = Client::connect(address).unwrap();
            let body = message_of(producer, 1 << 20);
            assert!(!send_one(&mut client, &queue_of(producer), &body));
        }

        drain(address, &confirmed);
        let drained = Instant::now();
        wait_until(OTHERS_PATIENCE, "messages are taken again", || {
            is_taken_everywhere(address)
        });
        println!(
            "full disk: messages were taken after {:?}",
            drained.elapsed()
        );
        wait_until(PATIENCE, "it says so", || {
            let (text, _) = status(&setup);
            !text.contains("full") && metric(&setup, "forebay_disk_full", "") == 0.0
        });
        assert!(running.stop().success());
        // All that was drained is gone, and what was refused was never there.
        let running = setup.start();
        let left = metric(&setup, "forebay_message_bytes", "");
        assert!(
            left < 60_000.0,
            "more than what was sent at the end: {left}"
        );
        assert!(running.stop().success());
    }
}

/// Dead letters for a full shard wait in the lane in which messages come from other shards:
/// those are refused all the same, and the letters arrive once there is space.
#[test]
fn what_the_broker_sends_on_waits_and_holds_up_nobody() {
    let Some(disk) = disk("full-refused-dead") else {
        return;
    };
    // Queue 1 is on another shard than queues 0, 3 and DEAD, which has room.
    let mut setup = setup(&disk)
        .config("disk_full_policy = \"fail\"\n[[address]]\nmatch = \"full.1\"\n")
        .config(&format!("dead_letter_address = \"{DEAD}\"\n"))
        .argument("--shards", "2");
    let running = setup.start();
    let address = running.address();
    let mut client = Client::connect(address).unwrap();
    for number in 0..5 {
        let body = message_of(1, number);
        assert!(send_one(&mut client, &queue_of(1), &body));
    }
    let confirmed = fill(address, [0, 3, 4, LARGE].into_iter());
    let dead = reject(address, &queue_of(1), 5);
    // Connections of either shard.
    for _ in 0..16 {
        let mut client = Client::connect(address).unwrap();
        let started = Instant::now();
        assert!(!send_one(&mut client, &queue_of(0), b"8 bytes!"));
        assert!(started.elapsed() < OTHERS_PATIENCE, "behind dead letters");
    }
    let leaving = "forebay_queue_messages";
    assert_eq!(
        metric(
            &setup,
            leaving,
            "queue=\"full.1\",routing=\"anycast\",state=\"aside\""
        ),
        5.0
    );
    drain(address, &confirmed);
    let mut client = Client::connect(address).unwrap();
    let queue = format!("/queue/{DEAD}");
    let headers = [("id", "0"), ("destination", queue.as_str())];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let arrived = (0..dead.len()).map(|_| number_of(&next(&mut client).body));
    assert_eq!(arrived.collect::<BTreeSet<_>>(), dead);
    leave(client);
    assert!(running.stop().success());
}

/// Refuses messages for good; their numbers.
fn reject(address: SocketAddr, queue: &str, count: usize) -> BTreeSet<u64> {
    let mut client = Client::connect(address).unwrap();
    let headers = [
        ("id", "0"),
        ("destination", queue),
        ("ack", "client-individual"),
        ("prefetch-count", "1"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut numbers = BTreeSet::new();
    while numbers.len() < count {
        let frame = next(&mut client);
        numbers.insert(number_of(&frame.body));
        let id = frame.header("ack").unwrap();
        let headers = [("id", id), ("requeue", "false")];
        client.send("NACK", &headers, b"").unwrap();
    }
    leave(client);
    numbers
}

/// Space that comes back from outside ends the refusals by itself.
#[test]
fn space_from_outside_ends_the_refusals() {
    let Some(disk) = disk("full-refused-filler") else {
        return;
    };
    let mut setup = setup(&disk).config("disk_full_policy = \"fail\"\n");
    let running = setup.start();
    let address = running.address();
    let filler = disk.fill("filler", 10 << 20);
    let sent = produce(address, 0);
    let mut client = Client::connect(address).unwrap();
    assert!(!send_one(&mut client, &queue_of(0), b"8 bytes!"));
    fs::remove_file(filler).unwrap();
    let freed = Instant::now();
    wait_until(OTHERS_PATIENCE, "messages are taken again", || {
        let mut client = Client::connect(address).unwrap();
        send_one(&mut client, &queue_of(0), &message_of(0, 1 << 20))
    });
    println!("full disk: messages were taken after {:?}", freed.elapsed());
    let mut wanted = sent.confirmed;
    wanted.insert(1 << 20);
    drain(address, &wanted);
    assert!(running.stop().success());
}
