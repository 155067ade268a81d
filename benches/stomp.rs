//! What a STOMP frame costs the engine: `cargo bench --bench stomp`.
//!
//! The best of ten rounds over 4 MiB of frames, fed in pieces as the reactor feeds them. Under
//! `cargo test` one short round shows that it still runs; its figures say nothing.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use forebay::now::Now;
use forebay::protocol::stomp::encode::{self, MessageHead, Token};
use forebay::protocol::stomp::{Connection, Event, Limits, Version};

/// Rounds and bytes of each.
#[derive(Clone, Copy)]
struct Effort {
    rounds: u32,
    bytes: usize,
}

fn main() {
    // Cargo says so; it says nothing when it only tests.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, bytes) = if is_bench {
        (10, 4 << 20)
    } else {
        (1, 64 << 10)
    };
    let effort = Effort { rounds, bytes };
    let body = |len| "b".repeat(len);
    let send = |len, more: &str| {
        let head = format!("SEND\ndestination:/queue/orders\ncontent-length:{len}\n{more}\n");
        format!("{head}{}\0\n", body(len))
    };
    let usual = "content-type:text/plain\npersistent:true\nreceipt:message-12345\n";
    measure(effort, "SEND 128 B, 5 headers", &send(128, usual));
    measure(effort, "SEND 1 KiB, 5 headers", &send(1024, usual));
    measure(effort, "SEND 128 B, 2 headers", &send(128, ""));
    measure(
        effort,
        "SEND 128 B, NUL body, 1 header",
        &format!("SEND\ndestination:a\n\n{}\0", body(128)),
    );
    measure(effort, "ACK", "ACK\nid:123-456789\n\n\0");
    measure_message_head(effort);
}

fn measure(effort: Effort, name: &str, frame: &str) {
    let now = Now::from_monotonic_us(0);
    let mut connection = Connection::new(Limits::default(), now);
    connection
        .next_event(b"CONNECT\naccept-version:1.2\nhost:h\n\n\0", now)
        .expect("CONNECT is sound");
    let stream = frame.repeat(effort.bytes / frame.len()).into_bytes();
    let (mut best_ns, mut sum) = (f64::MAX, 0);
    for _ in 0..effort.rounds {
        let (mut start, mut count) = (0, 0_u32);
        let begin = Instant::now();
        while start < stream.len() {
            // A receive buffer of 16 KiB, as the reactor has.
            let end = stream.len().min(start + 16_384);
            let parsed = connection
                .next_event(&stream[start..end], now)
                .expect("all is sound");
            start += parsed.consumed;
            if let Some(Event::Send(send)) = &parsed.event {
                sum += send.stored_head.len() + send.body.len() + send.destination.raw().len();
            }
            count += u32::from(parsed.event.is_some());
            black_box(&parsed);
        }
        best_ns = best_ns.min(begin.elapsed().as_nanos() as f64 / f64::from(count));
    }
    black_box(sum);
    println!("{name:32} {best_ns:7.1} ns");
}

fn measure_message_head(effort: Effort) {
    let mut out = Vec::with_capacity(1 << 20);
    let rounds = effort.rounds * 100_000;
    let begin = Instant::now();
    for round in 0..rounds {
        if out.len() > (1 << 20) - 4096 {
            out.clear();
        }
        let head = MessageHead {
            subscription: Some("sub-0"),
            message_id: Token::Pair(7, u64::from(round)),
            destination: "/queue/orders",
            ack: Some(Token::Pair(7, u64::from(round))),
            is_redelivered: false,
            delivery_count: 1,
            content_length: Some(128),
            own_expiry_unix_ms: None,
            stored_head: b"content-type:text/plain\npersistent:true\n",
        };
        encode::message_head(black_box(&mut out), Version::V1_2, &head);
    }
    let each_ns = begin.elapsed().as_nanos() as f64 / f64::from(rounds);
    println!("{:32} {each_ns:7.1} ns", "MESSAGE head, 1.2");
}
