//! What a message costs a topic with a thousand subscriptions that have selectors: no sockets, no
//! disk. `cargo bench --bench topic`.
//!
//! SEND to receipt through the very `Shard`, in which every selector is asked; building frames and
//! reading answers is not in the time.
#![allow(clippy::disallowed_methods, reason = "it measures time")]

#[path = "../tests/alloc/loopback.rs"]
#[allow(dead_code, reason = "it has frames of queues as well")]
mod loopback;

use std::time::{Duration, Instant};

use loopback::Loopback;

/// Subscriptions of the topic.
const SUBSCRIPTIONS: usize = 1000;
/// Messages of one measurement, and of one turn.
const MESSAGES: u64 = 5000;
const WINDOW: u64 = 25;
/// Measurements; the fastest counts.
const ROUNDS: usize = 5;
const CACHE_SIZE: usize = 16 << 20;
/// Headers of a message, what is asked for in the middle.
const HEADERS: &str = "content-type:text/plain\ncorrelation-id:order-4711\npersistent:false\n\
    tenant:acme\nweight:2501\nregion:eu-central\npriority:4\n";

/// Fastest time of a message, in nanoseconds, with these selectors.
fn measure(selectors: &[String]) -> f64 {
    let mut broker = Loopback::new(CACHE_SIZE);
    let (producer, consumer) = (broker.connect(), broker.connect());
    for (id, selector) in selectors.iter().enumerate() {
        let frame =
            format!("SUBSCRIBE\nid:{id}\ndestination:/topic/bench\nselector:{selector}\n\n\0");
        broker.receive(consumer, frame.as_bytes());
    }
    broker.turn(&mut |_, _| {});
    let frame = format!("SEND\ndestination:/topic/bench\n{HEADERS}\nbody\0");
    let frames = frame.repeat(WINDOW as usize);
    let mut fastest = Duration::MAX;
    for _ in 0..ROUNDS {
        let mut taken = Duration::ZERO;
        for _ in 0..MESSAGES / WINDOW {
            let started = Instant::now();
            broker.receive(producer, frames.as_bytes());
            broker.turn(&mut |_, _| {});
            taken += started.elapsed();
        }
        fastest = fastest.min(taken);
    }
    fastest.as_nanos() as f64 / MESSAGES as f64
}

fn main() {
    let each = |selector: &dyn Fn(usize) -> String| (0..SUBSCRIPTIONS).map(selector).collect();
    let cases: [(&str, Vec<String>); 6] = [
        ("no subscription", Vec::new()),
        (
            "the same for all",
            each(&|_| "tenant = 'nobody'".to_owned()),
        ),
        ("tenant = 'N'", each(&|n| format!("tenant = '{n}'"))),
        ("weight > N", each(&|n| format!("weight > {}", 10_000 + n))),
        (
            "three terms",
            each(&|n| format!("region LIKE 'eu%' AND tenant = 'acme' AND weight = {n}")),
        ),
        (
            "tenant = 'N', one matches",
            each(&|n| {
                if n == 500 {
                    "tenant = 'acme'".to_owned()
                } else {
                    format!("tenant = '{n}'")
                }
            }),
        ),
    ];
    println!("{SUBSCRIPTIONS} subscriptions, {ROUNDS} rounds of {MESSAGES} messages: fastest");
    println!("| selectors | us per message | ns per selector |");
    println!("|---|---|---|");
    let mut without = 0.0;
    for (name, selectors) in cases {
        let ns = measure(&selectors);
        if selectors.is_empty() {
            without = ns;
        }
        let each = (ns - without) / SUBSCRIPTIONS as f64;
        println!("| {name} | {:.1} | {each:.0} |", ns / 1000.0);
    }
}
