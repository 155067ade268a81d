//! The hot path of a durable message allocates nothing: SEND with receipt, delivery, ACK, through
//! the very `Shard`, after a warm-up.

#[path = "alloc/counting.rs"]
mod counting;
#[path = "alloc/loopback.rs"]
mod loopback;

use counting::{Counting, count_on, counted, set_counting};
use forebay::shard::ConnectionId;
use loopback::{Loopback, hear, push_send};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PRODUCERS: usize = 8;
const WINDOW: u64 = 32;
const WARM_UP: u64 = 200_000;
const MEASURED: u64 = 1_000_000;

struct Producer {
    id: ConnectionId,
    queue: &'static str,
    body: Vec<u8>,
    sent: u64,
    confirmed: u64,
    bytes: Vec<u8>,
}

struct Load {
    broker: Loopback,
    producers: Vec<Producer>,
    acking: ConnectionId,
    acks: Vec<u8>,
    confirmed: u64,
    delivered: u64,
}

impl Load {
    fn new() -> Self {
        let mut broker = Loopback::new(64 << 20);
        let producers = (0..PRODUCERS).map(|index| Producer {
            id: broker.connect(),
            queue: if index % 4 == 3 { "auto" } else { "acked" },
            body: vec![b'x'; if index % 2 == 0 { 128 } else { 1024 }],
            sent: 0,
            confirmed: 0,
            bytes: Vec::with_capacity(1 << 20),
        });
        let producers = producers.collect();
        let (acking, auto) = (broker.connect(), broker.connect());
        let subscribe = |queue, ack| {
            format!("SUBSCRIBE\nid:0\ndestination:/queue/{queue}\nack:{ack}\n\n\0").into_bytes()
        };
        broker.receive(acking, &subscribe("acked", "client-individual"));
        broker.receive(auto, &subscribe("auto", "auto"));
        Self {
            broker,
            producers,
            acking,
            acks: Vec::with_capacity(1 << 20),
            confirmed: 0,
            delivered: 0,
        }
    }

    /// One turn of clients and broker.
    fn turn(&mut self) {
        for producer in &mut self.producers {
            producer.bytes.clear();
            while producer.sent - producer.confirmed < WINDOW {
                producer.sent += 1;
                let number = producer.sent;
                push_send(producer.queue, number, &producer.body, &mut producer.bytes);
            }
            self.broker.receive(producer.id, &producer.bytes);
        }
        self.broker.receive(self.acking, &self.acks);
        self.acks.clear();
        let Self {
            broker,
            producers,
            acks,
            confirmed,
            delivered,
            ..
        } = self;
        broker.turn(&mut |to, bytes| {
            let (receipts, messages) = hear(bytes, |token| {
                acks.extend_from_slice(b"ACK\nid:");
                acks.extend_from_slice(token);
                acks.extend_from_slice(b"\n\n\0");
            });
            *confirmed += receipts;
            *delivered += messages;
            if let Some(producer) = producers.iter_mut().find(|producer| producer.id == to) {
                producer.confirmed += receipts;
            }
        });
    }
}

#[test]
fn the_hot_path_allocates_nothing() {
    let mut load = Load::new();
    while load.confirmed < WARM_UP {
        load.turn();
    }
    let (confirmed_before, delivered_before) = (load.confirmed, load.delivered);
    count_on(&[nix::unistd::gettid().as_raw()]);
    set_counting(true);
    while load.confirmed < confirmed_before + MEASURED {
        load.turn();
    }
    set_counting(false);
    let (count, bytes) = counted();
    let confirmed = load.confirmed - confirmed_before;
    let delivered = load.delivered - delivered_before;
    println!(
        "{count} allocations of {bytes} bytes for {confirmed} durable messages, {delivered} \
         delivered"
    );
    assert!(delivered + 100_000 > confirmed, "consumers keep up");
    assert_eq!(count, 0, "the hot path allocates");
}
