//! The journal of one shard of two is damaged: the other shard serves, and what needs the damaged
//! one is refused by name.

#![allow(clippy::disallowed_methods, reason = "a test looks at files")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use forebay::housekeeping::lock::FolderLock;
use forebay::routing::shard_of;
use forebay_journal::format::BlockHeader;
use serde_json::Value;

use crate::broker::Setup;
use crate::broker::stomp::Client;
use crate::{disk, drain, receive, send, small, until_closed};

const MESSAGES: usize = 20;

/// Addresses on shard 0, which is to be damaged, and on shard 1.
fn addresses() -> [String; 2] {
    [0, 1].map(|shard| {
        let mut names = (0..).map(|number| format!("q.{number}"));
        let fits = |name: &String| shard_of(name.as_bytes(), 2).0 == shard;
        names.find(fits).unwrap()
    })
}

fn queue(address: &str) -> String {
    format!("/queue/{address}")
}

/// A killed broker of two shards with messages on both.
fn killed(name: &str) -> Setup {
    let mut setup = small(name).argument("--shards", "2");
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    for address in addresses() {
        for number in 0..MESSAGES {
            send(&mut client, &queue(&address), number.to_string().as_bytes());
        }
    }
    running.kill();
    drop(FolderLock::take(&setup.data, "a test").expect("the killed broker has ended"));
    setup
}

/// Damages shard 0; where.
fn damage(setup: &Setup) -> (PathBuf, BlockHeader) {
    let segments = disk::segments(&setup.data);
    let segment = &segments[0];
    let block = segment.blocks[segment.blocks.len() / 2];
    disk::flip(&segment.path, block.offset + 200);
    (segment.path.clone(), block)
}

/// The files of shard 0.
fn files(data: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut files = disk::snapshot(data);
    files.retain(|path, _| path.to_string_lossy().contains("shard-000"));
    assert!(!files.is_empty());
    files
}

/// What `forebay` says on this folder: its exit code, and what it prints.
fn ask(setup: &Setup, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(&setup.program);
    let output = command.args(words).arg("--data").arg(&setup.data).output();
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

fn is_served(setup: &Setup, address: std::net::SocketAddr, sound: &str) {
    let taken = drain(address, &queue(sound));
    let bodies = taken
        .iter()
        .map(|frame| String::from_utf8_lossy(&frame.body));
    let expected: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert!(bodies.eq(expected));
    // A durable subscription, whose name the other shard is not asked for.
    let mut client = Client::open(address).unwrap();
    let connect = [("accept-version", "1.2"), ("host", "/"), ("client-id", "c")];
    client.send("CONNECT", &connect, b"").unwrap();
    assert_eq!(receive(&mut client).command, "CONNECTED");
    let topic = format!("/topic/{sound}");
    let headers = [
        ("id", "0"),
        ("destination", &*topic),
        ("activemq.subscriptionName", "s"),
        ("receipt", "there"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    assert_eq!(receive(&mut client).header("receipt-id"), Some("there"));
    client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
    let headers = [("destination", &*topic), ("transaction", "t")];
    client.send("SEND", &headers, b"in it").unwrap();
    let commit = [("transaction", "t"), ("receipt", "committed")];
    client.send("COMMIT", &commit, b"").unwrap();
    let mut frames = [receive(&mut client), receive(&mut client)];
    frames.sort_by(|one, other| one.command.cmp(&other.command));
    assert_eq!(frames[0].body, b"in it");
    assert_eq!(frames[1].header("receipt-id"), Some("committed"));
    let (code, said, _) = ask(setup, &["queue", "show", sound]);
    assert_eq!(code, 0, "{said}");
}

fn is_refused(address: std::net::SocketAddr, [damaged, sound]: &[String; 2]) {
    let both = format!("{},{}", queue(sound), queue(damaged));
    let forget = ("activemq.subscriptionName", "s");
    for (command, destination, header) in [
        ("SEND", &*queue(damaged), ("persistent", "true")),
        (
            "SEND",
            &*format!("/topic/{damaged}"),
            ("persistent", "false"),
        ),
        ("SEND", &*both, ("persistent", "true")),
        ("SUBSCRIBE", &*queue(damaged), ("ack", "client")),
        ("SUBSCRIBE", &*both, ("ack", "client")),
        ("SUBSCRIBE", "/topic/q.*", ("ack", "client")),
        ("SUBSCRIBE", "/queue/q.*", ("ack", "client")),
        ("SUBSCRIBE", "/topic/q.*", forget),
        ("UNSUBSCRIBE", "/topic/q.x", forget),
    ] {
        let mut client = Client::open(address).unwrap();
        let connect = [("accept-version", "1.2"), ("host", "/"), ("client-id", "d")];
        client.send("CONNECT", &connect, b"").unwrap();
        assert_eq!(receive(&mut client).command, "CONNECTED");
        let headers = [
            ("id", "0"),
            ("destination", destination),
            ("receipt", "r"),
            header,
        ];
        // In pieces, where it is a message.
        let body = vec![b'x'; if command == "SEND" { 300_000 } else { 0 }];
        client.send(command, &headers, &body).unwrap();
        let frames = until_closed(&mut client);
        let last = frames.last().unwrap();
        assert_eq!(last.command, "ERROR", "{command} {destination}: {last:?}");
        let said = String::from_utf8_lossy(&last.body);
        assert!(said.contains("shard 0 of this node"), "{said}");
        assert!(said.contains("forebay status"), "{said}");
    }
}

#[test]
fn the_other_shard_serves_and_nothing_of_the_damaged_one_is_touched() {
    let mut setup = killed("one-of-two");
    let (file, block) = damage(&setup);
    let before = files(&setup.data);
    let words = [
        "shard 0 does not serve".to_owned(),
        file.display().to_string(),
        format!("byte {}", block.offset),
        format!("records {}", block.first_lsn),
    ];
    let addresses = addresses();
    for life in 0..2 {
        let running = setup.start();
        let said = running.said();
        for word in &words {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
        if life == 0 {
            is_served(&setup, running.address(), &addresses[1]);
        }
        is_refused(running.address(), &addresses);
        let (code, told, _) = ask(&setup, &["status"]);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("shard 1    serves"), "{told}");
        for word in &words[1..3] {
            assert!(told.contains(word.rsplit(' ').next().unwrap()), "{told}");
        }
        let (code, told, _) = ask(&setup, &["status", "--json"]);
        assert_eq!(code, 1);
        let told: Value = serde_json::from_str(&told).unwrap();
        let damage = &told["shards"][0]["damage"];
        assert_eq!(told["serving"], false);
        assert_eq!(damage["file"], *file.display().to_string());
        assert_eq!(damage["offset"], block.offset);
        assert_eq!(damage["lsn_from"], block.first_lsn.get());
        assert!(told["shards"][1].get("damage").is_none());
        let (code, told, _) = ask(&setup, &["queue", "list"]);
        assert_eq!(code, 0);
        assert!(told.contains("shard 0 is damaged") && told.contains(&addresses[1]));
        let (code, _, told) = ask(&setup, &["queue", "show", &addresses[0]]);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("shard 0 does not serve"), "{told}");
        assert!(running.stop().success(), "a stop is one all the same");
        assert!(
            files(&setup.data) == before,
            "the damaged shard was changed"
        );
    }
    // With the byte put right everything is there.
    disk::flip(&file, block.offset + 200);
    let running = setup.start();
    assert_eq!(ask(&setup, &["status"]).0, 0);
    let found = drain(running.address(), &queue(&addresses[0]));
    assert_eq!(found.len(), MESSAGES);
    assert!(running.stop().success());
}

#[test]
fn dead_letters_wait_for_a_damaged_shard() {
    let [damaged, sound] = addresses();
    let mut setup = killed("one-of-two-letters");
    let (file, block) = damage(&setup);
    setup.config += &format!(
        "[[address]]\nmatch = \"{sound}\"\nmax_delivery_attempts = 1\n\
         dead_letter_address = \"{damaged}\"\n"
    );
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    let headers = [
        ("id", "0"),
        ("destination", &*queue(&sound)),
        ("ack", "client-individual"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    for _ in 0..MESSAGES {
        let frame = receive(&mut client);
        let id = frame.header("ack").unwrap();
        client.send("NACK", &[("id", id)], b"").unwrap();
    }
    client
        .send("DISCONNECT", &[("receipt", "bye")], b"")
        .unwrap();
    let frame = receive(&mut client);
    assert_eq!(frame.header("receipt-id"), Some("bye"), "{frame:?}");
    assert!(running.stop().success());
    disk::flip(&file, block.offset + 200);
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    let headers = [("id", "0"), ("destination", &*queue(&damaged))];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    // What was there, and the dead letters, at the latest with another try.
    let found = (0..2 * MESSAGES).map(|_| receive(&mut client));
    let letters = found.filter(|frame| frame.header("_AMQ_ORIG_ADDRESS") == Some(&*sound));
    assert_eq!(letters.count(), MESSAGES);
    assert!(running.stop().success());
}

#[test]
fn a_node_whose_shards_are_all_damaged_is_refused() {
    let setup = killed("two-of-two");
    let (file, block) = damage(&setup);
    let other = disk::segments_of(&setup.data, 1);
    let other_block = other[0].blocks[other[0].blocks.len() / 2];
    disk::flip(&other[0].path, other_block.offset + 200);
    let before = disk::snapshot(&setup.data);
    let file = file.display().to_string();
    let offset = format!("byte {}", block.offset);
    setup
        .refused()
        .expect(3, &["journal of shard 0 is damaged", &file, &offset]);
    assert!(
        disk::snapshot(&setup.data) == before,
        "a refused journal was changed"
    );
}
