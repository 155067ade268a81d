//! Row 15: queues whose messages stay when they are consumed, read from where one likes.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::broker::process::wait_until;
use crate::broker::stomp::{Client, Frame};
use crate::{
    PATIENCE, ask, browse, connect, next, next_message, refused, send, subscribe, text, with_shards,
};

const LOG: &str = "/queue/log.a";
const CONFIG: &str = r##"
    [[address]]
    match = "log.#"
    default_non_destructive = true
    [[address]]
    match = "log.state"
    default_last_value_key = "key"
    [[address]]
    match = "log.short"
    default_ring_size = 2
"##;

fn read(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| text(&next_message(client))).collect()
}

/// Follows the log from here; the subscription is attached when this returns.
fn follow(client: &mut Client, queue: &str, headers: &[(&str, &str)]) {
    let headers = [headers, &[("id", "0"), ("destination", queue)]].concat();
    ask(client, "SUBSCRIBE", &headers);
}

#[test]
fn replay_gives_everybody_everything_and_what_comes_over_a_restart_too() {
    with_shards("replay", |setup| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let mut producer = connect(running.address());
        for body in ["a", "b", "c"] {
            send(&mut producer, LOG, &[], body);
        }
        for _ in 0..2 {
            let mut readers = [connect(running.address()), connect(running.address())];
            for reader in &mut readers {
                subscribe(reader, LOG, &[("ack", "auto")]);
                assert_eq!(read(reader, 3), ["a", "b", "c"]);
            }
            // Of whatever priority: each comes once, to all.
            let mut producer = connect(running.address());
            for (priority, body) in [("9", "high"), ("0", "low"), ("4", "usual")] {
                let headers = [
                    ("destination", LOG),
                    ("priority", priority),
                    ("receipt", "r"),
                ];
                producer.send("SEND", &headers, body.as_bytes()).unwrap();
                assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
            }
            for reader in &mut readers {
                assert_eq!(read(reader, 3), ["high", "low", "usual"]);
            }
            running.kill();
            running = setup.start();
        }
        assert!(running.stop().success());
    });
}

#[test]
fn replay_begins_where_it_is_asked_to() {
    with_shards("replay-start", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        for body in ["a", "b", "c", "d"] {
            send(&mut producer, LOG, &[], body);
        }
        let mut first = connect(address);
        follow(&mut first, LOG, &[("x-stream-offset", "first")]);
        let seen: Vec<Frame> = (0..4).map(|_| next_message(&mut first)).collect();
        let third = format!("offset={}", seen[2].header("message-id").unwrap());
        let mut last = connect(address);
        follow(&mut last, LOG, &[("x-stream-offset", "last")]);
        assert_eq!(read(&mut last, 1), ["d"]);
        let mut from_third = connect(address);
        follow(&mut from_third, LOG, &[("x-stream-offset", &third)]);
        assert_eq!(read(&mut from_third, 2), ["c", "d"]);
        let mut behind = connect(address);
        follow(&mut behind, LOG, &[("x-stream-offset", "next")]);
        send(&mut producer, LOG, &[], "e");
        for reader in [&mut first, &mut last, &mut from_third, &mut behind] {
            assert_eq!(read(reader, 1), ["e"]);
        }
        for (queue, offset) in [
            (LOG, "soon"),
            (LOG, "offset=77-1"),
            ("/queue/usual", "first"),
        ] {
            let mut client = connect(address);
            subscribe(&mut client, queue, &[("x-stream-offset", offset)]);
            assert_eq!(next(&mut client).command, "ERROR", "{queue} {offset}");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn replay_keeps_to_the_credit_and_repeats_what_is_refused() {
    with_shards("replay-credit", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut producer = connect(running.address());
        for body in ["a", "b", "c", "d"] {
            send(&mut producer, LOG, &[], body);
        }
        let mut reader = connect(running.address());
        let headers = [("ack", "client-individual"), ("prefetch-count", "2")];
        subscribe(&mut reader, LOG, &headers);
        let held: Vec<_> = (0..2).map(|_| next_message(&mut reader)).collect();
        let ids = held.iter().map(|one| one.header("ack").unwrap());
        let ids: Vec<_> = ids.collect();
        // A receipt comes first: two are held and no more comes.
        send(&mut producer, LOG, &[], "e");
        ask(&mut reader, "NACK", &[("id", ids[1])]);
        assert_eq!(text(&next_message(&mut reader)), "b");
        ask(&mut reader, "ACK", &[("id", ids[0])]);
        assert_eq!(text(&next_message(&mut reader)), "c");
        // What it did is its own business.
        assert_eq!(browse(&mut producer, LOG, "b").join(""), "abcde");
        let mut other = connect(running.address());
        subscribe(&mut other, LOG, &[("ack", "auto")]);
        assert_eq!(read(&mut other, 5).join(""), "abcde");
        reader.send("ACK", &[("id", ids[0])], b"").unwrap();
        assert_eq!(next(&mut reader).command, "ERROR", "acknowledged twice");
        assert!(running.stop().success());
    });
}

#[test]
fn replay_of_last_values_rings_and_delayed_messages_is_what_is_left_of_them() {
    with_shards("replay-left", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut producer = connect(running.address());
        let state = "/queue/log.state";
        for (key, body) in [("x", "x1"), ("y", "y1"), ("x", "x2")] {
            send(&mut producer, state, &[("key", key)], body);
        }
        let mut reader = connect(running.address());
        subscribe(&mut reader, state, &[("ack", "auto")]);
        assert_eq!(read(&mut reader, 2), ["y1", "x2"]);
        send(&mut producer, state, &[("key", "y")], "y2");
        assert_eq!(read(&mut reader, 1), ["y2"]);

        for body in ["1", "2", "3"] {
            send(&mut producer, "/queue/log.short", &[], body);
        }
        let mut reader = connect(running.address());
        subscribe(&mut reader, "/queue/log.short", &[("ack", "auto")]);
        assert_eq!(read(&mut reader, 2), ["2", "3"]);

        // What was delayed has an older name than what it comes behind.
        let mut reader = connect(running.address());
        subscribe(&mut reader, LOG, &[("ack", "auto")]);
        send(
            &mut producer,
            LOG,
            &[("AMQ_SCHEDULED_DELAY", "1500")],
            "late",
        );
        send(&mut producer, LOG, &[], "early");
        assert_eq!(read(&mut reader, 2), ["early", "late"]);
        ask(&mut reader, "UNSUBSCRIBE", &[("id", "0")]);
        assert!(running.stop().success());
    });
}

/// Whole seconds of the wall clock.
#[allow(
    clippy::disallowed_methods,
    reason = "where to begin is a time of the wall clock"
)]
fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A second that begins when nothing that was done so far was done in it; it has begun.
fn next_second() -> u64 {
    let next = seconds() + 1;
    wait_until(PATIENCE, "the second has come", || seconds() >= next);
    next
}

#[test]
fn replay_begins_with_what_came_at_a_time_also_after_a_crash() {
    with_shards("replay-time", |setup| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let began = seconds();
        let mut producer = connect(running.address());
        let mut middles = Vec::new();
        for bodies in [["a", "b"], ["c", "d"], ["e", "f"]] {
            middles.push(next_second());
            send(&mut producer, LOG, &[], bodies[0]);
            let headers = [("destination", LOG), ("receipt", "r")];
            producer
                .send("SEND", &headers, bodies[1].as_bytes())
                .unwrap();
            assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
        }
        for is_after_a_crash in [false, true] {
            let all = if is_after_a_crash { "ace" } else { "abcdef" };
            let from = |second: u64, count: usize| {
                let mut reader = connect(running.address());
                let start = format!("timestamp={second}");
                follow(&mut reader, LOG, &[("x-stream-offset", &start)]);
                read(&mut reader, count).join("")
            };
            assert_eq!(from(0, all.len()), all);
            assert_eq!(from(began, all.len()), all);
            for (round, second) in middles.iter().enumerate() {
                let left = &all[round * all.len() / 3..];
                assert_eq!(from(*second, left.len()), left, "round {round}");
            }
            if !is_after_a_crash {
                running.kill();
                running = setup.start();
            }
        }
        // One that is still to come: what comes before it is not read.
        let mut reader = connect(running.address());
        let soon = format!("timestamp={}", seconds() + 2);
        follow(&mut reader, LOG, &[("x-stream-offset", &soon)]);
        let mut producer = connect(running.address());
        send(&mut producer, LOG, &[], "early");
        (0..3).for_each(|_| assert!(next_second() > 0));
        send(&mut producer, LOG, &[], "late");
        assert_eq!(read(&mut reader, 1), ["late"]);
        for time in ["", "soon", "-1", "+1", "1.5", "1700000000000"] {
            let mut client = connect(running.address());
            let start = format!("timestamp={time}");
            subscribe(&mut client, LOG, &[("x-stream-offset", &start)]);
            refused(client, "seconds since 1970");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn replay_of_a_ring_that_turns_faster_than_it_is_read_goes_on() {
    with_shards("replay-fast", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let ring = "/queue/log.short";
        let mut reader = connect(running.address());
        let headers = [("ack", "client-individual"), ("prefetch-count", "1")];
        follow(&mut reader, ring, &headers);
        let mut producer = connect(running.address());
        for number in 0..2000 {
            let headers = [("destination", ring), ("persistent", "true")];
            let body = number.to_string();
            producer.send("SEND", &headers, body.as_bytes()).unwrap();
        }
        send(&mut producer, ring, &[], "last");
        loop {
            let message = next_message(&mut reader);
            let id = message.header("ack").unwrap();
            reader.send("ACK", &[("id", id)], b"").unwrap();
            if text(&message) == "last" {
                break;
            }
        }
        assert!(running.stop().success());
    });
}

/// Sends many, each large, of three kinds, and one of a kind of its own.
fn send_many(producer: &mut Client, numbers: Range<u32>) {
    let large = "x".repeat(30_000);
    for number in numbers {
        let kind = ["a", "b", "c"][number as usize % 3];
        let persistent = if number == 61 { "false" } else { "true" };
        let headers = [
            ("destination", LOG),
            ("persistent", persistent),
            ("kind", kind),
        ];
        let body = format!("{number}.{large}");
        producer.send("SEND", &headers, body.as_bytes()).unwrap();
    }
    send(producer, LOG, &[("kind", "end")], "end");
}

#[test]
fn replay_shows_what_a_selector_selects_and_nothing_else_uses_up_credit() {
    with_shards("replay-selector", |setup| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let mut producer = connect(running.address());
        let number = |message: &Frame| text(message).split('.').next().unwrap().to_owned();
        send_many(&mut producer, 0..90);
        // One at a time, of the third: in memory, then from the disk.
        let headers = [
            ("selector", "kind = 'b'"),
            ("ack", "client-individual"),
            ("prefetch-count", "1"),
        ];
        for is_after_a_crash in [false, true] {
            let mut reader = connect(running.address());
            subscribe(&mut reader, LOG, &headers);
            let mut expected: Vec<u32> = (0..30).map(|n| 3 * n + 1).collect();
            if is_after_a_crash {
                expected.retain(|n| *n != 61);
            }
            for (at, expected) in expected.iter().enumerate() {
                let message = next_message(&mut reader);
                assert_eq!(number(&message), expected.to_string());
                let id = message.header("ack").unwrap().to_owned();
                let mut ids = vec![id];
                if at == 3 {
                    // What is refused comes again, and to no other.
                    reader.send("NACK", &[("id", &ids[0])], b"").unwrap();
                    let again = next_message(&mut reader);
                    assert_eq!(number(&again), expected.to_string());
                    ids = vec![again.header("ack").unwrap().to_owned()];
                }
                reader.send("ACK", &[("id", &ids[0])], b"").unwrap();
            }
            if !is_after_a_crash {
                running.kill();
                running = setup.start();
            }
        }
        // From a time on, and what comes.
        let mut reader = connect(running.address());
        let second = next_second();
        let mut producer = connect(running.address());
        send_many(&mut producer, 100..106);
        let since = format!("timestamp={second}");
        let headers = [("selector", "kind <> 'b'"), ("x-stream-offset", &since)];
        follow(&mut reader, LOG, &headers);
        send_many(&mut producer, 200..203);
        let seen: Vec<_> = (0..8).map(|_| number(&next_message(&mut reader))).collect();
        assert_eq!(
            seen,
            ["101", "102", "104", "105", "end", "200", "201", "end"]
        );
        for (selector, said) in [
            ("kind = ", "selector malformed"),
            ("JMSRedelivered", "not offered"),
        ] {
            let mut client = connect(running.address());
            subscribe(&mut client, LOG, &[("selector", selector)]);
            refused(client, said);
        }
        assert!(running.stop().success());
    });
}
