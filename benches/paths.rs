//! The shard's paths of the loads of `benches/pair`, for counting its instructions where time is
//! not to be trusted: no sockets, and a disk of memory.
//!
//! `benches/count OLD_TREE` runs it under callgrind and prints instructions per message.
#![allow(clippy::disallowed_methods, reason = "it reads its arguments")]

#[path = "../tests/alloc/loopback.rs"]
#[allow(dead_code, reason = "it builds its own frames")]
mod loopback;

use std::hint::black_box;

use forebay::shard::ConnectionId;
use loopback::{Loopback, hear};

/// Queues, a consumer each.
const QUEUES: usize = 8;
/// Messages that a consumer acknowledges at once.
const ACK_EVERY: u64 = 100;

struct Load {
    producers: usize,
    window: u64,
    size: usize,
    messages: u64,
}

/// What counts of producing.
#[inline(never)]
fn count_produce(broker: &mut Loopback, id: ConnectionId, bytes: &[u8]) {
    broker.receive(id, bytes);
}

#[inline(never)]
fn count_produce_turn(broker: &mut Loopback, answers: &mut Vec<u8>) {
    broker.turn(&mut |_, bytes| answers.extend_from_slice(bytes));
}

/// What counts of draining.
#[inline(never)]
fn count_drain(broker: &mut Loopback, id: ConnectionId, bytes: &[u8]) {
    broker.receive(id, bytes);
}

#[inline(never)]
fn count_drain_turn(broker: &mut Loopback, heard: &mut Vec<(ConnectionId, Vec<u8>)>) {
    broker.turn(
        &mut |id, bytes| match heard.iter_mut().find(|(of, _)| *of == id) {
            Some((_, all)) => all.extend_from_slice(bytes),
            None => heard.push((id, bytes.to_vec())),
        },
    );
}

fn produce(broker: &mut Loopback, load: &Load) {
    let producers: Vec<_> = (0..load.producers).map(|_| broker.connect()).collect();
    let body = vec![b'x'; load.size];
    let (mut sent, mut confirmed) = (0, 0);
    let (mut frames, mut answers) = (Vec::new(), Vec::new());
    while confirmed < load.messages {
        for (number, id) in producers.iter().enumerate() {
            frames.clear();
            let count = load.window.min(load.messages - sent);
            for at in sent..sent + count {
                push_send(number % QUEUES, at, &body, &mut frames);
            }
            sent += count;
            // As the ring's buffers cut it.
            for part in frames.chunks(64 << 10) {
                count_produce(broker, *id, part);
            }
        }
        answers.clear();
        count_produce_turn(broker, &mut answers);
        confirmed += hear(&answers, |_| {}).0;
    }
}

fn push_send(queue: usize, receipt: u64, body: &[u8], out: &mut Vec<u8>) {
    let size = body.len();
    let head = format!(
        "SEND\ndestination:/queue/q-{queue}\npersistent:true\ncontent-length:{size}\n\
         receipt:{receipt:010}\n\n"
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
    out.push(0);
}

fn drain(broker: &mut Loopback, messages: u64) {
    let mut consumers: Vec<_> = (0..QUEUES).map(|_| (broker.connect(), 0)).collect();
    for (queue, (id, _)) in consumers.iter().enumerate() {
        let subscribe = format!("SUBSCRIBE\nid:0\ndestination:/queue/q-{queue}\nack:client\n\n\0");
        broker.receive(*id, subscribe.as_bytes());
    }
    let mut heard: Vec<(ConnectionId, Vec<u8>)> = Vec::new();
    let mut settled = 0;
    let mut acks = Vec::new();
    while settled < messages {
        heard.iter_mut().for_each(|(_, bytes)| bytes.clear());
        count_drain_turn(broker, &mut heard);
        for (id, bytes) in &heard {
            let (_, unacked) = consumers.iter_mut().find(|(of, _)| of == id).expect("ours");
            acks.clear();
            let (_, count) = hear(bytes, |token| {
                *unacked += 1;
                if *unacked == ACK_EVERY || settled + ACK_EVERY * QUEUES as u64 > messages {
                    acks.extend_from_slice(b"ACK\nid:");
                    acks.extend_from_slice(token);
                    acks.extend_from_slice(b"\n\n\0");
                    *unacked = 0;
                }
            });
            settled += count;
            if !acks.is_empty() {
                count_drain(broker, *id, &acks);
            }
        }
    }
    black_box(&heard);
}

fn main() {
    let arguments: Vec<u64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let &[producers, window, size, messages, cache_mib] = &*arguments else {
        println!("arguments: PRODUCERS WINDOW BODY_BYTES MESSAGES CACHE_MIB");
        return;
    };
    let load = Load {
        producers: producers as usize,
        window,
        size: size as usize,
        messages,
    };
    let mut broker = Loopback::new((cache_mib << 20) as usize);
    broker.keep_blocks();
    produce(&mut broker, &load);
    drain(&mut broker, load.messages);
    let read = broker.read_bytes as f64 / load.messages as f64;
    println!("{read:.0} bytes read back for each message");
}
