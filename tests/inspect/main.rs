//! The journal inspector beside the real broker: what was in the queues of a killed broker comes
//! out of a store that was exported and imported, undeleted or repaired, frame by frame.
//!
//! Row 6.7 of the features. With one shard and with two.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

#[path = "../broker/mod.rs"]
mod broker;
mod damaged;
#[path = "../serve/disk.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod disk;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use broker::Setup;
use broker::dialog::{PATIENCE, ask, connect, connect_as, next, next_message};
use broker::stomp::{Client, Frame};
use forebay::housekeeping::lock::FolderLock;

/// The inspector beside the broker's own program, made if it is not there:
/// `FOREBAY_INSPECT_PROGRAM` names another.
fn inspector() -> PathBuf {
    if let Some(named) = std::env::var_os("FOREBAY_INSPECT_PROGRAM") {
        return named.into();
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_forebay")).with_file_name("forebay-inspect");
    if !beside.exists() {
        let made = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "-p", "forebay-inspect"])
            .arg("--target-dir")
            .arg(beside.parent().unwrap().parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(made.unwrap().success(), "the inspector does not build");
    }
    beside
}

fn inspect(arguments: &[&str]) -> Output {
    Command::new(inspector()).args(arguments).output().unwrap()
}

/// Runs it; it has to end with this status.
fn inspected(status: i32, arguments: &[&str]) -> String {
    let output = inspect(arguments);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Places that a consumer looks into: a queue, and durable subscriptions by client and name.
const QUEUES: [&str; 3] = ["/queue/orders", "/queue/bills", "/queue/large"];
const SUBSCRIPTIONS: [(&str, &str, &str); 2] = [
    ("/topic/news", "reader-1", "all"),
    ("/topic/news", "reader-2", "some"),
];

fn setup(name: &str, shards: u16) -> Setup {
    setup_of(name, shards, "4MiB")
}

fn setup_of(name: &str, shards: u16, segment_size: &str) -> Setup {
    let folder = broker::fresh_folder(&format!("inspect-{name}-{shards}"));
    Setup::new(&folder.join("data"))
        .config(&format!("[journal]\nsegment_size = \"{segment_size}\"\n"))
        .argument("--shards", &shards.to_string())
}

fn send(client: &mut Client, destination: &str, headers: &[(&str, &str)], body: &[u8]) {
    let own = [
        ("destination", destination),
        ("persistent", "true"),
        ("receipt", "sent"),
    ];
    client
        .send("SEND", &[headers, &own].concat(), body)
        .unwrap();
    let answer = next(client);
    assert_eq!(answer.command, "RECEIPT", "{answer:?}");
}

fn subscribe_durably(client: &mut Client, topic: &str, name: &str) {
    let headers = [
        ("id", "0"),
        ("destination", topic),
        ("ack", "client-individual"),
        ("durable-subscription-name", name),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
}

/// Fills queues and durable subscriptions with all kinds of messages; some are consumed, some
/// delivered and not acknowledged, some belong to transactions.
fn fill(setup: &mut Setup) -> broker::Broker {
    let running = setup.start();
    let address = running.address();
    for (topic, id, name) in SUBSCRIPTIONS {
        let mut reader = connect_as(address, id);
        subscribe_durably(&mut reader, topic, name);
        ask(&mut reader, "DISCONNECT", &[]);
    }
    let mut client = connect(address);
    for number in 0..40_u8 {
        let priority = (number % 10).to_string();
        let number_text = number.to_string();
        let headers = [
            ("priority", priority.as_str()),
            ("number", number_text.as_str()),
            ("colon", "a:b\nc\\d"),
        ];
        let body: Vec<u8> = (0..=u8::MAX).map(|byte| byte ^ number).collect();
        send(&mut client, QUEUES[0], &headers, &body);
    }
    let far = "9000000000000";
    for number in 0..10 {
        send(
            &mut client,
            QUEUES[1],
            &[("expires", far)],
            format!("{number}").as_bytes(),
        );
        send(
            &mut client,
            "/topic/news",
            &[("n", "x")],
            format!("news {number}\0").as_bytes(),
        );
    }
    let large: Vec<u8> = (0..900_000_u32).map(|n| (n * 7 % 253) as u8).collect();
    send(&mut client, QUEUES[2], &[], &large);
    send(&mut client, QUEUES[2], &[], b"");
    for (transaction, end) in [
        ("one", Some("COMMIT")),
        ("two", Some("ABORT")),
        ("three", None),
    ] {
        client
            .send("BEGIN", &[("transaction", transaction)], b"")
            .unwrap();
        for queue in QUEUES {
            send(
                &mut client,
                queue,
                &[("transaction", transaction)],
                transaction.as_bytes(),
            );
        }
        if let Some(end) = end {
            ask(&mut client, end, &[("transaction", transaction)]);
        }
    }
    consume_some(address);
    running
}

/// Acknowledges three messages, and holds what else was delivered.
fn consume_some(address: std::net::SocketAddr) {
    let mut consumer = connect(address);
    let headers = [
        ("id", "0"),
        ("destination", QUEUES[0]),
        ("ack", "client-individual"),
    ];
    consumer.send("SUBSCRIBE", &headers, b"").unwrap();
    for _ in 0..3 {
        let message = next_message(&mut consumer);
        let ack = message.header("ack").unwrap().to_owned();
        let headers = [("id", ack.as_str()), ("receipt", "acked")];
        consumer.send("ACK", &headers, b"").unwrap();
    }
    // Between the receipts come more messages, which stay unacknowledged.
    let mut receipts = 0;
    while receipts < 3 {
        receipts += usize::from(next(&mut consumer).command == "RECEIPT");
    }
}

/// Kills it, and waits until its last writes have landed.
fn kill(running: broker::Broker, setup: &Setup) {
    running.kill();
    drop(FolderLock::take(&setup.data, "a test").expect("the killed broker has ended"));
}

/// What is said of a message, but for what names this delivery.
fn told(frame: Frame) -> (Vec<(String, String)>, Vec<u8>) {
    let is_kept = |name: &str| !["ack", "subscription"].contains(&name);
    let headers = frame.headers.into_iter();
    let headers = headers.filter(|(name, _)| is_kept(name)).collect();
    (headers, frame.body)
}

type Told = Vec<(Vec<(String, String)>, Vec<u8>)>;

/// Takes all that is there, and acknowledges it. A message sent last says where the end is.
fn drain(setup: &mut Setup) -> Vec<Told> {
    let running = setup.start();
    let mut places = Vec::new();
    let mut producer = connect(running.address());
    for queue in QUEUES {
        send(
            &mut producer,
            queue,
            &[("priority", "0"), ("last", "1")],
            b"last",
        );
    }
    send(&mut producer, "/topic/news", &[("last", "1")], b"last");
    for queue in QUEUES {
        let mut consumer = connect(running.address());
        let headers = [
            ("id", "0"),
            ("destination", queue),
            ("ack", "client-individual"),
        ];
        consumer.send("SUBSCRIBE", &headers, b"").unwrap();
        places.push(take_all(&mut consumer));
    }
    for (topic, id, name) in SUBSCRIPTIONS {
        let mut consumer = connect_as(running.address(), id);
        subscribe_durably(&mut consumer, topic, name);
        places.push(take_all(&mut consumer));
    }
    assert!(running.stop().success());
    places
}

fn take_all(consumer: &mut Client) -> Told {
    let mut told_all = Told::new();
    loop {
        let message = consumer
            .receive(PATIENCE)
            .unwrap()
            .expect("the last one comes");
        if message.command != "MESSAGE" {
            continue;
        }
        consumer
            .send("ACK", &[("id", message.header("ack").unwrap())], b"")
            .unwrap();
        if message.header("last").is_some() {
            ask_behind(consumer);
            return told_all;
        }
        told_all.push(told(message));
    }
}

/// Everything before it is done.
fn ask_behind(consumer: &mut Client) {
    consumer
        .send("DISCONNECT", &[("receipt", "end")], b"")
        .unwrap();
    while next(consumer).command != "RECEIPT" {}
}

fn sizes(places: &[Told]) -> Vec<usize> {
    places.iter().map(Vec::len).collect()
}

/// Another store on the same settings.
fn setup_on(data: &Path, like: &Setup) -> Setup {
    let mut setup = like.clone();
    setup.data = data.to_owned();
    setup
}

fn comes_back(shards: u16) {
    let mut setup = setup("export", shards);
    let running = fill(&mut setup);
    comes_back_from(setup, running);
}

fn comes_back_from(mut setup: Setup, running: broker::Broker) {
    // Of a running broker, too.
    let live = inspected(0, &["export", text(&setup.data)]);
    kill(running, &setup);
    let export = setup.data.with_extension("jsonl");
    inspected(0, &["export", text(&setup.data), "--to", text(&export)]);
    let lines = std::fs::read_to_string(&export).unwrap();
    let content = |text: &str| text.split_once('\n').map(|(_, content)| content.to_owned());
    assert_eq!(content(&live), content(&lines), "killed or not is the same");
    let copy = setup.data.with_extension("copy");
    inspected(0, &["import", text(&export), "--into", text(&copy)]);
    assert_eq!(
        inspected(0, &["verify", text(&copy)]).lines().last(),
        Some("sound")
    );
    let again = inspected(0, &["export", text(&copy)]);
    assert_eq!(content(&again), content(&lines));

    let original = drain(&mut setup);
    // 40 - 3 and one of a transaction; 10 and one; 2 and one; 10 each.
    assert_eq!(sizes(&original), [38, 11, 3, 10, 10]);
    let large = original[2].iter().map(|(_, body)| body.len()).max();
    assert_eq!(large, Some(900_000));
    let imported = drain(&mut setup_on(&copy, &setup));
    assert!(imported == original, "other messages came back");
}

/// Sends much through a queue that stays empty, until segments with what stays lie before the
/// place where a replay begins.
fn send_through(address: std::net::SocketAddr, data: &Path) {
    const ROUNDS_MAX: usize = 40;
    let (mut producer, mut consumer) = (connect(address), connect(address));
    let through = [
        ("id", "0"),
        ("destination", "/queue/through"),
        ("ack", "auto"),
    ];
    consumer.send("SUBSCRIBE", &through, b"").unwrap();
    for _ in 0..ROUNDS_MAX {
        for _ in 0..16 {
            send(&mut producer, "/queue/through", &[], &[b'x'; 60_000]);
            next_message(&mut consumer);
        }
        let segments = inspected(0, &["segments", "--json", text(data)]);
        if segments.matches("\"state\":\"bodies\"").count() > 1 {
            return;
        }
    }
    panic!("no checkpoint in {ROUNDS_MAX} MiB");
}

#[test]
fn what_lies_before_a_checkpoint_comes_back_from_an_export() {
    let mut setup = setup_of("checkpoint", 1, "1MiB");
    let running = fill(&mut setup);
    send_through(running.address(), &setup.data);
    let verdict = inspected(0, &["verify", text(&setup.data)]);
    assert!(verdict.contains("before hold bodies"), "{verdict}");
    comes_back_from(setup, running);
}

#[test]
fn a_killed_brokers_messages_come_back_from_an_export() {
    comes_back(1);
}

#[test]
fn a_killed_brokers_messages_come_back_from_an_export_of_two_shards() {
    comes_back(2);
}

#[test]
fn acknowledged_messages_come_back_when_undeleted() {
    let mut setup = setup("undelete", 1);
    let running = fill(&mut setup);
    kill(running, &setup);
    drain(&mut setup);
    let into = setup.data.with_extension("undeleted");
    inspected(0, &["undelete", text(&setup.data), "--into", text(&into)]);
    assert_eq!(
        inspected(0, &["verify", text(&into)]).lines().last(),
        Some("sound")
    );
    let exported = inspected(0, &["export", text(&into)]);
    let messages = |text: &str| text.matches("{\"what\":\"message\"").count();
    // All that was ever committed, and the last ones of the drain: as far as it is on the disk,
    // which it is with segments of 4 MiB.
    assert_eq!(messages(&exported), 41 + 11 + 3 + 10 + 4);
    let one = setup.data.with_extension("one");
    let options = [
        "--into",
        text(&one),
        "--queue",
        "bills",
        "--outcome",
        "accepted",
    ];
    inspected(
        0,
        &[&["undelete", text(&setup.data)], &options[..]].concat(),
    );
    assert_eq!(messages(&inspected(0, &["export", text(&one)])), 12);
    // Consumed before the drain, during it, and the marks of its end.
    let mut undeleted = setup_on(&into, &setup);
    let running = undeleted.start();
    let mut consumer = connect(running.address());
    let headers = [("id", "0"), ("destination", QUEUES[2]), ("ack", "auto")];
    consumer.send("SUBSCRIBE", &headers, b"").unwrap();
    let bodies: Vec<_> = (0..4)
        .map(|_| next_message(&mut consumer).body.len())
        .collect();
    assert_eq!(bodies, [900_000, 0, 3, 4]);
}

#[test]
fn what_can_be_proved_of_a_damaged_store_is_served() {
    let mut setup = setup("repair", 1);
    let running = fill(&mut setup);
    kill(running, &setup);
    // A block with one message, in the middle of the first queue's.
    let listed = inspected(
        0,
        &["records", "--json", "--kind", "message", text(&setup.data)],
    );
    let hit = listed.lines().nth(20).unwrap();
    let hit: serde_json::Value = serde_json::from_str(hit).unwrap();
    let segments = inspected(0, &["segments", "--json", text(&setup.data)]);
    let first: serde_json::Value = serde_json::from_str(segments.lines().next().unwrap()).unwrap();
    let path = Path::new(first["file"].as_str().unwrap());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let at = hit["offset"].as_u64().unwrap() + 200;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
    file.sync_all().unwrap();
    setup.refused().expect(3, &["damaged"]);
    let before = std::fs::read(path).unwrap();

    let into = setup.data.with_extension("repaired");
    let said = inspected(1, &["repair", text(&setup.data), "--into", text(&into)]);
    assert!(said.contains("LSN"), "{said}");
    assert!(
        std::fs::read(path).unwrap() == before,
        "the damaged store was changed"
    );
    let repaired = drain(&mut setup_on(&into, &setup));
    // The message of the block is gone, and nothing else: no settlement lay in it.
    assert_eq!(sizes(&repaired), [37, 11, 3, 10, 10]);
}
