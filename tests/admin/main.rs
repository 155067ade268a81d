//! Operating the queues of a running broker through its admin socket: by `forebay queue`, and by
//! plain HTTP where that says more.
//!
//! Most tests run with one shard and with two.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../broker/mod.rs"]
mod broker;
mod deleting;
mod listing;
mod pausing;
mod purging;
mod socket;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use broker::Setup;
use broker::dialog::{PATIENCE, ask, ask_with_body, connect, connect_as, next, next_message, text};
use broker::stomp::{Client, Frame};
use serde_json::Value;

/// How long nothing must come where nothing is allowed to.
const SILENCE: Duration = Duration::from_millis(300);

/// The broker refused.
const REFUSED: i32 = 7;
/// There is no broker.
const NO_BROKER: i32 = 6;

fn setup(name: &str, shards: &str) -> Setup {
    let folder = broker::fresh_folder(&format!("admin-{name}-{shards}"));
    Setup::new(&folder.join("data"))
        .config("[journal]\nsegment_size = \"1MiB\"\n")
        .argument("--shards", shards)
}

/// Runs a scenario against brokers with one shard and with two.
fn with_shards(name: &str, scenario: impl Fn(&mut Setup)) {
    for shards in ["1", "2"] {
        scenario(&mut setup(name, shards));
    }
}

/// What `forebay queue` came to.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs `forebay queue` with these words on the setup's folder.
fn queue(setup: &Setup, words: &[&str]) -> Said {
    let output = Command::new(&setup.program)
        .arg("queue")
        .args(words)
        .arg("--data")
        .arg(&setup.data)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        code: output.status.code().unwrap(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// Likewise, for the JSON that it answers with.
fn json(setup: &Setup, words: &[&str]) -> Value {
    let said = queue(setup, &[words, &["--json"]].concat());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
    serde_json::from_str(&said.out).unwrap()
}

/// Panics unless `forebay queue` ends with this code and says these words.
fn refused(setup: &Setup, words: &[&str], code: i32, reason: &str) {
    let said = queue(setup, words);
    assert_eq!(said.code, code, "{words:?}: {said:?}");
    assert!(said.err.contains(reason), "{words:?}: {said:?}");
    assert_eq!(said.out, "", "{words:?}");
}

/// The counts of a queue: ready, unsettled, aside, consumers.
fn counts(setup: &Setup, name: &str) -> [u64; 4] {
    let seen = json(setup, &["show", name]);
    ["ready", "unsettled", "aside", "consumers"].map(|key| seen[key].as_u64().unwrap())
}

/// Sends a request and leaves the answer in the socket.
fn begin_http(data: &Path, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(data.join("admin.sock")).unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The rest of a connection: status and body.
fn end_http(mut stream: UnixStream) -> (u16, String) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("answered {text:?}"))
        .parse()
        .unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

fn http(data: &Path, request: &str) -> (u16, String) {
    end_http(begin_http(data, request))
}

fn assert_silent(client: &mut Client) {
    assert_eq!(client.receive(SILENCE).unwrap(), None);
}

/// Sends durable messages and waits for their receipts.
fn send(client: &mut Client, destination: &str, bodies: &[&str]) {
    for body in bodies {
        let headers = [("destination", destination), ("persistent", "true")];
        ask_with_body(client, "SEND", &headers, body);
    }
}

/// Consumes from a queue, each message acknowledged by itself, this many at a time.
fn subscribe(client: &mut Client, destination: &str, prefetch: &str) {
    let headers = [
        ("id", "0"),
        ("destination", destination),
        ("ack", "client-individual"),
        ("prefetch-count", prefetch),
    ];
    ask(client, "SUBSCRIBE", &headers);
}

fn acknowledge(client: &mut Client, message: &Frame) {
    let id = message.header("ack").unwrap();
    ask(client, "ACK", &[("id", id)]);
}
