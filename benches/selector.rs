//! What a selector costs per message: `cargo bench --bench selector`.
//!
//! The best of ten rounds. The message has eight properties in a list that is searched from its
//! beginning, as headers of STOMP are; what is asked for stands in the middle and at the end.
//! Under `cargo test` one short round shows that it still runs; its figures say nothing.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use forebay::selector::{Properties, Selector, Value};

/// Name and text of each property; typed messages have numbers and booleans of them.
const PROPERTIES: [(&str, &str); 8] = [
    ("content-type", "text/plain"),
    ("correlation-id", "order-4711"),
    ("persistent", "true"),
    ("color", "blue"),
    ("tenant", "acme"),
    ("JMSType", "car"),
    ("weight", "2501"),
    ("isNew", "true"),
];

struct Headers([(&'static str, Value<'static>); 8]);

impl Properties for Headers {
    fn get(&self, name: &str) -> Value<'_> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or(Value::Null, |(_, value)| *value)
    }
}

/// Rounds and evaluations of each.
#[derive(Clone, Copy)]
struct Effort {
    rounds: u32,
    evaluations: u32,
}

fn main() {
    // Cargo says so; it says nothing when it only tests.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, evaluations) = if is_bench { (10, 1_000_000) } else { (1, 1000) };
    let effort = Effort {
        rounds,
        evaluations,
    };
    let typed = Headers(PROPERTIES.map(|(name, text)| {
        let value = text.parse().map(Value::Int).ok();
        let value = value.or_else(|| text.parse().map(Value::Bool).ok());
        (name, value.unwrap_or(Value::Text(text)))
    }));
    let untyped = Headers(PROPERTIES.map(|(name, text)| (name, Value::Untyped(text))));
    for (name, selector) in [
        (
            "3 terms",
            "JMSType = 'car' AND color = 'blue' AND weight > 2500",
        ),
        (
            "3 numbers, one name",
            "weight > 2500 AND weight < 9999 AND weight <> 3000",
        ),
        (
            "LIKE, IN, BETWEEN",
            "color LIKE 'b%e' AND tenant IN ('a', 'acme', 'b') AND weight BETWEEN 1 AND 5000",
        ),
        (
            "LIKE with search",
            "JMSType = 'car' AND tenant LIKE '%c_e%' AND isNew",
        ),
        (
            "arithmetic",
            "weight * 2 - 1 > 5000 AND -weight < 0 AND isNew = TRUE",
        ),
        (
            "first term false",
            "color = 'red' AND JMSType = 'car' AND weight > 2500",
        ),
    ] {
        let selector = Selector::parse(selector).expect("a sound selector");
        measure(effort, &format!("{name}, strict"), &selector, &typed);
        measure(effort, &format!("{name}, loose"), &selector, &untyped);
    }
    measure_worst(effort);
}

/// The dearest selectors that parse, over one header of 60 KB.
fn measure_worst(effort: Effort) {
    let long = "a".repeat(60_000).leak();
    let mut message = Headers([("", Value::Null); 8]);
    message.0[0] = ("a", Value::Untyped(long));
    for (name, term) in [
        ("worst, plain", "a LIKE'%ab%'"),
        ("worst, with _", "a LIKE'%a_b%'"),
    ] {
        let fits = |count: &usize| Selector::parse(&vec![term; *count].join("OR ")).is_ok();
        let count = (1..1000).rev().find(fits).expect("one fits");
        let selector = Selector::parse(&vec![term; count].join("OR ")).expect("it fits");
        let effort = Effort {
            rounds: effort.rounds,
            evaluations: effort.evaluations / 100_000 + 1,
        };
        measure(
            effort,
            &format!("{name}, {count} terms"),
            &selector,
            &message,
        );
    }
}

fn measure(effort: Effort, name: &str, selector: &Selector, message: &Headers) {
    let (mut best_ns, mut matched) = (f64::MAX, 0_u64);
    for _ in 0..effort.rounds {
        let begin = Instant::now();
        for _ in 0..effort.evaluations {
            matched += u64::from(black_box(selector).matches(black_box(message)));
        }
        best_ns = best_ns.min(begin.elapsed().as_nanos() as f64 / f64::from(effort.evaluations));
    }
    black_box(matched);
    println!("{name:32} {best_ns:7.1} ns");
}
