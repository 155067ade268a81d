//! Producers and consumers: each owns one connection and tells afterwards what it saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::broker::stomp::{Client, Frame};
use crate::ledger::{Event, Message};

/// Prefetch asked for by consumers: more than they hold back, so that they never starve.
const PREFETCH: &str = "64";
/// How long to wait for a frame before counting a silence.
const PATIENCE: Duration = Duration::from_millis(100);
/// Waits of [`PATIENCE`] without a frame after which a broker that still runs has stalled.
const SILENCES_MAX: u32 = 200;

/// Fixed sequence of numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Name of a queue.
fn address_of(queue: usize) -> String {
    format!("/queue/kill-{queue}")
}

/// A header that only survives when it is escaped and unescaped rightly.
fn mark_of(message: Message) -> String {
    format!("{}:{}\n\\end", message.producer, message.sequence)
}

/// The body of a message: identity, then bytes that follow from it. 16 bytes at least; one in 50
/// is larger than a block of the journal.
fn body_of(seed: u64, message: Message) -> Vec<u8> {
    let mut random =
        Random(seed ^ u64::from(message.producer) << 48 ^ message.sequence.wrapping_mul(0x9E37));
    let length = match random.below(50) {
        0 => 16 + random.below(600_000),
        1..10 => 16 + random.below(16_384),
        _ => 16 + random.below(1_024),
    };
    let mut body = Vec::new();
    body.extend_from_slice(&u64::from(message.producer).to_le_bytes());
    body.extend_from_slice(&message.sequence.to_le_bytes());
    while (body.len() as u64) < length {
        body.extend_from_slice(&random.next().to_le_bytes());
    }
    body
}

/// Reads the identity of a message out of its body.
fn identity_of(body: &[u8]) -> Option<Message> {
    let word = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    Some(Message {
        producer: u32::try_from(word(0)?).ok()?,
        sequence: word(8)?,
    })
}

/// Sends with a window of unconfirmed messages until the connection breaks.
pub(crate) struct Producer {
    pub(crate) address: SocketAddr,
    pub(crate) id: u32,
    pub(crate) queue: usize,
    /// Next sequence number: continues over lives, never used twice.
    pub(crate) next: u64,
    /// How many to send.
    pub(crate) count_max: u64,
    pub(crate) window_max: usize,
    pub(crate) seed: u64,
    /// Set before a clean stop: from then on an ERROR is no mistake of the broker.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Producer {
    /// Runs to the end of the connection; gives what happened and the next sequence number.
    pub(crate) fn run(mut self) -> (Vec<Event>, u64) {
        let mut events = Vec::new();
        // A broken connection is how every life ends: it is no event.
        if let Ok(mut client) = Client::connect(self.address) {
            let _ = self.produce(&mut client, &mut events);
        }
        (events, self.next)
    }

    fn produce(&mut self, client: &mut Client, events: &mut Vec<Event>) -> std::io::Result<()> {
        let mut unconfirmed = BTreeMap::new();
        let mut sent: u64 = 0;
        let mut silences = 0;
        loop {
            while unconfirmed.len() < self.window_max && sent < self.count_max {
                let message = Message {
                    producer: self.id,
                    sequence: self.next,
                };
                self.next += 1;
                sent += 1;
                unconfirmed.insert(format!("r{}", message.sequence), message);
                events.push(Event::Sent {
                    message,
                    queue: self.queue,
                });
                client.queue(&self.frame(message));
            }
            client.flush()?;
            if unconfirmed.is_empty() {
                return Ok(());
            }
            match client.receive(PATIENCE)? {
                Some(frame) if frame.command == "RECEIPT" => {
                    silences = 0;
                    let id = frame.header("receipt-id").unwrap_or_default();
                    events.push(match unconfirmed.remove(id) {
                        Some(message) => Event::Confirmed(message),
                        None => Event::Wrong(format!("RECEIPT of nothing: {frame:?}")),
                    });
                }
                Some(_) if self.stopping.load(Ordering::Relaxed) => return Ok(()),
                Some(frame) => events.push(Event::Wrong(format!("a producer got {frame:?}"))),
                None => silences += 1,
            }
            if silences > SILENCES_MAX {
                events.push(Event::Wrong(format!(
                    "no RECEIPT for {} SENDs",
                    unconfirmed.len()
                )));
                return Ok(());
            }
        }
    }

    fn frame(&self, message: Message) -> Frame {
        let headers = [
            ("destination", &*address_of(self.queue)),
            ("persistent", "true"),
            ("receipt", &*format!("r{}", message.sequence)),
            ("mark", &*mark_of(message)),
        ];
        Frame::new("SEND", &headers, &body_of(self.seed, message))
    }
}

/// Receives with client-individual acknowledgement; settles most at once, holds some back.
pub(crate) struct Consumer {
    pub(crate) address: SocketAddr,
    pub(crate) queue: usize,
    /// Messages held back unsettled at most.
    pub(crate) hold_max: usize,
    /// Ends when this message is seen and everything seen is settled.
    pub(crate) until: Option<Message>,
    pub(crate) seed: u64,
    pub(crate) random: Random,
    /// Set before a clean stop: from then on an ERROR is no mistake of the broker.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Consumer {
    /// Runs to the end of the connection, or to `until`; gives what happened.
    pub(crate) fn run(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let outcome = Client::connect(self.address)
            .and_then(|mut client| self.consume(&mut client, &mut events));
        if let (Err(error), Some(last)) = (outcome, self.until) {
            events.push(Event::Wrong(format!(
                "connection lost while waiting for {last:?}: {error}"
            )));
        }
        events
    }

    fn consume(&mut self, client: &mut Client, events: &mut Vec<Event>) -> std::io::Result<()> {
        let address = address_of(self.queue);
        let headers = [
            ("id", "s"),
            ("destination", &*address),
            ("ack", "client-individual"),
            ("activemq.prefetchSize", PREFETCH),
            ("prefetch-count", PREFETCH),
        ];
        client.send("SUBSCRIBE", &headers, b"")?;
        let mut acknowledged: BTreeMap<String, Message> = BTreeMap::new();
        let mut held = 0;
        let mut silences = 0;
        let mut is_last_seen = false;
        loop {
            if is_last_seen && acknowledged.is_empty() {
                return Ok(());
            }
            let Some(frame) = client.receive(PATIENCE)? else {
                silences += 1;
                if self.until.is_some() && silences > SILENCES_MAX {
                    let text = format!("{:?} does not come or is not settled", self.until);
                    events.push(Event::Wrong(text));
                    return Ok(());
                }
                continue;
            };
            silences = 0;
            match frame.command.as_str() {
                "MESSAGE" => {
                    let Some(message) = self.see(&frame, events) else {
                        continue;
                    };
                    is_last_seen |= self.until == Some(message);
                    if held < self.hold_max && self.random.one_in(10) {
                        held += 1;
                        continue;
                    }
                    let receipt = format!("a{}-{}", message.producer, message.sequence);
                    let id = frame.header("ack").unwrap_or_default();
                    events.push(Event::Settling(message));
                    client.send("ACK", &[("id", id), ("receipt", &receipt)], b"")?;
                    acknowledged.insert(receipt, message);
                }
                "RECEIPT" => {
                    let id = frame.header("receipt-id").unwrap_or_default();
                    events.push(match acknowledged.remove(id) {
                        Some(message) => Event::Settled(message),
                        None => Event::Wrong(format!("RECEIPT of nothing: {frame:?}")),
                    });
                }
                _ if self.stopping.load(Ordering::Relaxed) => return Ok(()),
                _ => events.push(Event::Wrong(format!("a consumer got {frame:?}"))),
            }
        }
    }

    /// Enters a MESSAGE; `None` when its body names no message.
    fn see(&self, frame: &Frame, events: &mut Vec<Event>) -> Option<Message> {
        let Some(message) = identity_of(&frame.body) else {
            let start = &frame.body[..frame.body.len().min(32)];
            events.push(Event::Wrong(format!(
                "a body of nobody: {start:?} {:?}",
                frame.headers
            )));
            return None;
        };
        let whole = frame.body == body_of(self.seed, message)
            && frame.header("mark") == Some(&mark_of(message));
        let redelivered = frame.header("redelivered") == Some("true");
        events.push(Event::Seen {
            message,
            queue: self.queue,
            redelivered,
            whole,
        });
        Some(message)
    }
}
