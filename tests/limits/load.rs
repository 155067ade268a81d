//! Producers, consumers and bystanders as threads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker::stomp::{Client, Frame};
use crate::{OTHERS_PATIENCE, PATIENCE};

/// The body of message `number`: its number, then bytes that follow from it.
pub(crate) fn body(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    bytes.extend_from_slice(&number.to_le_bytes());
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len.max(8));
    bytes
}

pub(crate) fn number_of(body: &[u8]) -> u64 {
    u64::from_le_bytes(body[..8].try_into().unwrap())
}

/// What a producer sends.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) queue: &'static str,
    pub(crate) count: u64,
    pub(crate) len: usize,
    pub(crate) is_persistent: bool,
    /// Messages without a receipt at a time.
    pub(crate) window: u64,
}

/// A producer on its way.
pub(crate) struct Producer {
    confirmed: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Producer {
    /// Sends `load` in order; a receipt may take as long as it likes, anything else is a failure.
    pub(crate) fn start(address: SocketAddr, load: Load) -> Self {
        let confirmed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&confirmed);
        let thread = std::thread::spawn(move || produce(address, load, &counter));
        Self { confirmed, thread }
    }

    /// Messages confirmed so far.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all are confirmed.
    pub(crate) fn join(self) {
        self.thread.join().expect("the producer had an error");
    }

    /// Waits until nothing was confirmed for so long that a busy machine does not explain it.
    #[allow(clippy::disallowed_methods, reason = "silence can only be waited for")]
    pub(crate) fn wait_held_back(&self) -> u64 {
        let mut last = (self.confirmed(), Instant::now());
        let start = Instant::now();
        while last.1.elapsed() < Duration::from_secs(2) {
            assert!(!self.is_done(), "the producer was never held back");
            assert!(start.elapsed() < PATIENCE, "the producer never stops");
            std::thread::sleep(Duration::from_millis(10));
            if self.confirmed() != last.0 {
                last = (self.confirmed(), Instant::now());
            }
        }
        last.0
    }
}

fn produce(address: SocketAddr, load: Load, confirmed: &AtomicU64) {
    let mut client = Client::connect(address).unwrap();
    let (mut sent, mut done) = (0, 0);
    while done < load.count {
        while sent < load.count && sent < done + load.window {
            client.queue(&message(load, sent));
            sent += 1;
        }
        client.flush().unwrap();
        // Held back means silence here; an ERROR or a close is a failure.
        let Some(frame) = client.receive(Duration::from_secs(600)).unwrap() else {
            panic!("no receipt in ten minutes");
        };
        assert_eq!(
            frame.header("receipt-id"),
            Some(&*done.to_string()),
            "{frame:?}"
        );
        done += 1;
        confirmed.store(done, Ordering::Relaxed);
    }
}

fn message(load: Load, number: u64) -> Frame {
    let receipt = number.to_string();
    let headers = [
        ("destination", load.queue),
        (
            "persistent",
            if load.is_persistent { "true" } else { "false" },
        ),
        ("receipt", &receipt),
    ];
    Frame::new("SEND", &headers, &body(number, load.len))
}

/// Somebody with nothing to do with it: one durable message at a time, each receipt in time.
pub(crate) struct Bystander {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Bystander {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || watch(address, &flag));
        Self { is_over, thread }
    }

    /// Ends it; fails if a receipt came late, or none came at all.
    #[allow(clippy::disallowed_methods, reason = "a test measures")]
    pub(crate) fn finish(self, name: &str) {
        self.is_over.store(true, Ordering::Relaxed);
        let (count, slowest) = self.thread.join().expect("the bystander is disturbed");
        println!("{name}: a bystander got {count} receipts, the slowest in {slowest:?}");
        assert!(count > 0, "{name}: no receipt for a bystander");
    }
}

#[allow(clippy::disallowed_methods, reason = "a test measures")]
fn watch(address: SocketAddr, is_over: &AtomicBool) -> (u64, Duration) {
    let mut client = Client::connect(address).unwrap();
    let (mut count, mut slowest) = (0, Duration::ZERO);
    let headers = [
        ("destination", "/queue/bystander"),
        ("persistent", "true"),
        ("receipt", "here"),
    ];
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.send("SEND", &headers, b"small").unwrap();
        let answer = client.receive(OTHERS_PATIENCE).unwrap();
        let answer = answer.unwrap_or_else(|| panic!("no receipt in {OTHERS_PATIENCE:?}"));
        assert_eq!(answer.header("receipt-id"), Some("here"), "{answer:?}");
        slowest = slowest.max(start.elapsed());
        count += 1;
    }
    (count, slowest)
}

/// Subscribes to a queue with this acknowledgement mode.
pub(crate) fn subscribe(address: SocketAddr, queue: &str, ack: &str) -> Client {
    let mut client = Client::connect(address).unwrap();
    let headers = [("id", "0"), ("destination", queue), ("ack", ack)];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    client
}

/// Takes messages `range` in order, byte for byte, acknowledging every hundredth cumulatively.
pub(crate) fn take_in_order(client: &mut Client, range: std::ops::Range<u64>, len: usize) {
    for number in range.clone() {
        let frame = next(client);
        assert_eq!(frame.command, "MESSAGE", "{:?}", frame.headers);
        assert_eq!(number_of(&frame.body), number, "out of order");
        assert!(
            frame.body == body(number, len),
            "message {number} has another body"
        );
        if let Some(ack) = frame.header("ack")
            && (number % 100 == 99 || number + 1 == range.end)
        {
            client.send("ACK", &[("id", ack)], b"").unwrap();
        }
    }
}

pub(crate) fn next(client: &mut Client) -> Frame {
    let frame = client.receive(PATIENCE).unwrap();
    frame.unwrap_or_else(|| panic!("nothing came within {PATIENCE:?}"))
}

/// Says goodbye, so that everything acknowledged is durable; what else was coming is passed over.
pub(crate) fn leave(mut client: Client) {
    client
        .send("DISCONNECT", &[("receipt", "bye")], b"")
        .unwrap();
    loop {
        let frame = next(&mut client);
        if frame.header("receipt-id") == Some("bye") {
            return;
        }
        assert_eq!(frame.command, "MESSAGE", "{:?}", frame.headers);
    }
}

/// Reads until the broker closes; gives the frames before that.
pub(crate) fn until_closed(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        match client.receive(PATIENCE) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => panic!("not closed within {PATIENCE:?}, only {frames:?}"),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return frames,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return frames,
            Err(error) => panic!("{error}"),
        }
    }
}
