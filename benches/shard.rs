//! What a message costs in the shard itself: no sockets, no disk. `cargo bench --bench shard`.
//!
//! SEND to receipt, and delivery with ACK, through the very `Shard`; the client's part (building
//! frames, reading answers) is not in the time of the first, and in the second only the reading
//! that finds the token.
#![allow(clippy::disallowed_methods, reason = "it measures time")]

#[path = "../tests/alloc/loopback.rs"]
mod loopback;

use std::time::{Duration, Instant};

use forebay::shard::ConnectionId;
use loopback::{Loopback, hear, push_send};

/// Messages of one measurement.
const MESSAGES: u64 = 100_000;
/// Measurements; the fastest counts, the spread is shown.
const ROUNDS: usize = 7;
/// Messages passed in per connection and turn.
const WINDOW: u64 = 32;
const CONNECTIONS: usize = 8;
/// Room for all messages of a measurement: nothing is read back.
const CACHE_SIZE: usize = 192 << 20;

/// Times the calls into the shard alone.
struct Clock(Duration);

impl Clock {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.0 += started.elapsed();
        result
    }

    fn ns_each(&self, count: u64) -> f64 {
        self.0.as_nanos() as f64 / count as f64
    }
}

/// Fills the queue: SEND, append, receipt.
fn produce(broker: &mut Loopback, producers: &[ConnectionId], body: &[u8]) -> f64 {
    let (mut clock, mut confirmed, mut sent) = (Clock(Duration::ZERO), 0, 0);
    let mut frames = Vec::new();
    let mut answers: Vec<u8> = Vec::new();
    while confirmed < MESSAGES {
        for id in producers {
            frames.clear();
            let count = WINDOW.min(MESSAGES - sent);
            (0..count).for_each(|number| push_send("bench", number, body, &mut frames));
            sent += count;
            clock.time(|| broker.receive(*id, &frames));
        }
        answers.clear();
        clock.time(|| broker.turn(&mut |_, bytes| answers.extend_from_slice(bytes)));
        confirmed += hear(&answers, |_| {}).0;
    }
    clock.ns_each(MESSAGES)
}

/// Drains it: delivery, ACK.
fn consume(broker: &mut Loopback, consumer: ConnectionId, subscription: u32) -> f64 {
    let mut clock = Clock(Duration::ZERO);
    let subscribe = format!(
        "SUBSCRIBE\nid:{subscription}\ndestination:/queue/bench\nack:client-individual\n\n\0"
    );
    broker.receive(consumer, subscribe.as_bytes());
    let (mut acks, mut answers, mut settled) = (Vec::new(), Vec::new(), 0);
    while settled < MESSAGES {
        answers.clear();
        clock.time(|| broker.turn(&mut |_, bytes| answers.extend_from_slice(bytes)));
        acks.clear();
        let (_, messages) = hear(&answers, |token| {
            acks.extend_from_slice(b"ACK\nid:");
            acks.extend_from_slice(token);
            acks.extend_from_slice(b"\n\n\0");
        });
        settled += messages;
        clock.time(|| broker.receive(consumer, &acks));
    }
    clock.time(|| (0..4).for_each(|_| broker.turn(&mut |_, _| {})));
    let unsubscribe = format!("UNSUBSCRIBE\nid:{subscription}\n\n\0");
    broker.receive(consumer, unsubscribe.as_bytes());
    broker.turn(&mut |_, _| {});
    clock.ns_each(MESSAGES)
}

fn main() {
    println!("{MESSAGES} messages a round, {ROUNDS} rounds: ns per message, fastest (slowest)");
    println!("| body | SEND to receipt | delivery and ACK | bytes written |");
    println!("|---|---|---|---|");
    for size in [16, 128, 1024] {
        let body = vec![b'x'; size];
        let mut broker = Loopback::new(CACHE_SIZE);
        let producers: Vec<_> = (0..CONNECTIONS).map(|_| broker.connect()).collect();
        let consumer = broker.connect();
        broker.turn(&mut |_, _| {});
        let (mut sends, mut drains) = (Vec::new(), Vec::new());
        let before = broker.written_bytes;
        for round in 0..ROUNDS {
            sends.push(produce(&mut broker, &producers, &body));
            drains.push(consume(&mut broker, consumer, round as u32));
        }
        let written = (broker.written_bytes - before) / (MESSAGES * ROUNDS as u64);
        let ends = |times: &[f64]| {
            let fastest = times.iter().copied().fold(f64::MAX, f64::min);
            let slowest = times.iter().copied().fold(0.0, f64::max);
            format!("{fastest:.0} ({slowest:.0})")
        };
        println!(
            "| {size} | {} | {} | {written} |",
            ends(&sends),
            ends(&drains)
        );
    }
}
