//! The process `forebay serve` as its operator meets it: what it refuses and how it says so, how
//! it stops, what it tells at start (issue "the spine", points 2, 3, 7, 13 and 20).
//!
//! Every refusal is checked by exit code and words, and that the disk is as it was before.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../broker/mod.rs"]
mod broker;
mod configuration;
mod damage;
mod disk;
mod folders;
mod life;
mod machine;
mod one_of_two;
mod ports;
mod strict;
mod users;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use broker::Setup;
use broker::stomp::{Client, Frame};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A setup with small segments in a fresh folder of this name.
fn small(name: &str) -> Setup {
    let folder = broker::fresh_folder(&format!("serve-{name}"));
    Setup::new(&folder.join("data")).config("[journal]\nsegment_size = \"1MiB\"\n")
}

fn receive(client: &mut Client) -> Frame {
    let frame = client.receive(PATIENCE).unwrap();
    frame.unwrap_or_else(|| panic!("nothing came within {PATIENCE:?}"))
}

/// Sends one durable message and waits for its receipt.
fn send(client: &mut Client, destination: &str, body: &[u8]) {
    let headers = [
        ("destination", destination),
        ("persistent", "true"),
        ("receipt", "sent"),
    ];
    client.send("SEND", &headers, body).unwrap();
    let answer = receive(client);
    assert_eq!(answer.header("receipt-id"), Some("sent"), "{answer:?}");
}

/// Takes everything that is in a queue until the body `last`, acknowledged one by one; `last` is
/// sent by this function behind what is there.
fn drain(address: SocketAddr, destination: &str) -> Vec<Frame> {
    let mut client = Client::connect(address).unwrap();
    send(&mut client, destination, b"the last one");
    let headers = [
        ("id", "0"),
        ("destination", destination),
        ("ack", "client-individual"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut taken = Vec::new();
    loop {
        let frame = receive(&mut client);
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        let ack = frame.header("ack").unwrap().to_owned();
        client.send("ACK", &[("id", &ack)], b"").unwrap();
        if frame.body == b"the last one" {
            break;
        }
        taken.push(frame);
    }
    client
        .send("DISCONNECT", &[("receipt", "bye")], b"")
        .unwrap();
    assert_eq!(receive(&mut client).header("receipt-id"), Some("bye"));
    taken
}

/// Reads until the broker closes; gives the frames before that.
fn until_closed(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        match client.receive(PATIENCE) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => panic!("not closed within {PATIENCE:?}, only {frames:?}"),
            Err(error) => {
                let is_closed = matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                );
                assert!(is_closed, "{error}");
                return frames;
            }
        }
    }
}
