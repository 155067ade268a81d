//! What a running broker says of itself at `GET /metrics`, and its scrubber.
//!
//! Features 24: every documented metric is there, under load, and the reverse; what histograms
//! count is what counters count.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../broker/mod.rs"]
mod broker;
mod burst;
mod scrape;
mod scraping;
mod scrubbing;

use std::time::{Duration, Instant};

use broker::Setup;
use broker::stomp::{Client, Frame};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

fn setup(name: &str, shards: &str, config: &str) -> Setup {
    let folder = broker::fresh_folder(&format!("metrics-{name}-{shards}"));
    Setup::new(&folder.join("data"))
        .config(config)
        .argument("--shards", shards)
}

/// Looks again until the answer is there.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    #[allow(clippy::disallowed_methods, reason = "a limit that fails the test")]
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        // The broker needs the core as well.
        std::thread::park_timeout(LOOK);
    }
}

/// Sends persistent messages of this size with receipts, all at once, and waits for all receipts.
fn send_many(client: &mut Client, destination: &str, count: usize, size: usize) {
    let body = vec![b'x'; size];
    let mut waiting = 0;
    for number in 0..count {
        let receipt = number.to_string();
        let headers = [
            ("destination", destination),
            ("persistent", "true"),
            ("receipt", receipt.as_str()),
        ];
        client.send("SEND", &headers, &body).unwrap();
        waiting += 1;
        // So that neither end's buffers fill up.
        if waiting == 64 {
            take_receipts(client, 32);
            waiting -= 32;
        }
    }
    take_receipts(client, waiting);
}

fn take_receipts(client: &mut Client, count: usize) {
    for _ in 0..count {
        let frame = client.receive(PATIENCE).unwrap().expect("a receipt");
        assert_eq!(frame.command, "RECEIPT", "{frame:?}");
    }
}

/// Takes this many messages, which count as consumed when they are sent.
fn consume(client: &mut Client, destination: &str, count: usize) -> Vec<Frame> {
    let headers = [("id", "0"), ("destination", destination), ("ack", "auto")];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut frames = Vec::new();
    while frames.len() < count {
        let frame = client.receive(PATIENCE).unwrap().expect("a message");
        assert_eq!(frame.command, "MESSAGE");
        frames.push(frame);
    }
    frames
}
