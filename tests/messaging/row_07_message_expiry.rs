//! Row 7: messages with a time at which they are worth nothing any more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::process::wait_until;
use crate::broker::stomp::Frame;
use crate::{
    PATIENCE, ask, browse, connect, next, next_message, send, subscribe, text, with_shards,
};

const QUEUE: &str = "/queue/expiry";
/// A time that is over.
const LONG_AGO: &str = "1000000000000";

/// The time so far from now, as the header says it.
#[allow(
    clippy::disallowed_methods,
    reason = "expiry is a time of the wall clock"
)]
pub(crate) fn from_now(ahead: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (now + ahead).as_millis().to_string()
}

#[test]
fn message_expiry_drops_what_waited_too_long_and_nothing_else() {
    with_shards("expiry", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        let later = from_now(Duration::from_secs(3600));
        // Over when it comes: taken, confirmed, and dropped.
        send(&mut producer, QUEUE, &[("expires", LONG_AGO)], "late");
        send(&mut producer, QUEUE, &[("expires", &later)], "in time");
        send(&mut producer, QUEUE, &[("expires", "0")], "for ever");
        let soon = from_now(Duration::from_millis(300));
        send(&mut producer, QUEUE, &[("expires", &soon)], "soon");
        let headers = [("destination", QUEUE), ("expires", &soon), ("receipt", "r")];
        producer.send("SEND", &headers, b"soon, in memory").unwrap();
        assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
        // They go by themselves: nobody asks for them.
        wait_until(PATIENCE, "both are dropped", || {
            browse(&mut connect(address), QUEUE, "b") == ["in time", "for ever"]
        });
        // Dropped for good; and what is left knows its time after a restart.
        running.kill();
        let running = setup.start();
        let address = running.address();
        assert_eq!(
            browse(&mut connect(address), QUEUE, "b"),
            ["in time", "for ever"]
        );
        let mut consumer = connect(address);
        subscribe(&mut consumer, QUEUE, &[("ack", "auto")]);
        let message = next_message(&mut consumer);
        assert_eq!(message.header("expires"), Some(&*later));
        assert_eq!(text(&message), "in time");
        assert_eq!(text(&next_message(&mut consumer)), "for ever");
        assert!(running.stop().success());
    });
}

#[test]
fn message_expiry_happens_while_nobody_is_there_and_while_the_broker_is_down() {
    with_shards("expiry-down", |setup| {
        let running = setup.start();
        let soon = from_now(Duration::from_millis(500));
        let mut producer = connect(running.address());
        send(&mut producer, QUEUE, &[("expires", &soon)], "soon");
        send(&mut producer, QUEUE, &[], "for ever");
        running.kill();
        wait_until(PATIENCE, "the time has come", || {
            from_now(Duration::ZERO) > soon
        });
        let running = setup.start();
        let mut consumer = connect(running.address());
        subscribe(&mut consumer, QUEUE, &[("ack", "auto")]);
        assert_eq!(text(&next_message(&mut consumer)), "for ever");
        assert!(running.stop().success());
    });
}

#[test]
fn message_expiry_leaves_alone_what_somebody_holds() {
    with_shards("expiry-held", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        let mut holder = connect(address);
        subscribe(&mut holder, QUEUE, &[("ack", "client-individual")]);
        let soon = from_now(Duration::from_millis(400));
        send(&mut producer, QUEUE, &[("expires", &soon)], "held");
        send(&mut producer, QUEUE, &[("expires", &soon)], "given back");
        let held: Vec<_> = (0..2).map(|_| next_message(&mut holder)).collect();
        let ids: Vec<_> = held.iter().map(|one| one.header("ack").unwrap()).collect();
        wait_until(PATIENCE, "the time has come", || {
            from_now(Duration::ZERO) > soon
        });
        // Acknowledged late is acknowledged; given back late is over.
        for (command, id) in [("ACK", ids[0]), ("NACK", ids[1])] {
            ask(&mut holder, command, &[("id", id)]);
        }
        send(&mut producer, QUEUE, &[], "next");
        assert_eq!(text(&next_message(&mut holder)), "next");
        assert!(running.stop().success());
    });
}

#[test]
fn message_expiry_hands_out_nothing_overdue_however_much_comes_at_once() {
    const PRODUCERS: usize = 24;
    const MESSAGES: usize = 4_000;
    with_shards("expiry-flood", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut consumer = connect(address);
        subscribe(&mut consumer, QUEUE, &[("ack", "auto"), ("receipt", "s")]);
        assert_eq!(next(&mut consumer).header("receipt-id"), Some("s"));
        let producers = (0..PRODUCERS).map(|_| {
            std::thread::spawn(move || {
                let mut producer = connect(address);
                let headers = [("destination", QUEUE), ("expires", LONG_AGO)];
                let late = Frame::new("SEND", &headers, b"");
                (0..MESSAGES).for_each(|_| producer.queue(&late));
                producer.flush().unwrap();
                send(&mut producer, QUEUE, &[], "in time");
            })
        });
        let producers: Vec<_> = producers.collect();
        for _ in 0..PRODUCERS {
            assert_eq!(text(&next_message(&mut consumer)), "in time");
        }
        producers.into_iter().for_each(|one| one.join().unwrap());
        assert!(running.stop().success());
    });
}

#[test]
fn message_expiry_makes_room_for_those_who_wait_for_memory() {
    with_shards("expiry-memory", |setup| {
        setup.config += "[limits]\nmessage_size_max = \"1MiB\"\nvolatile_size_max = \"1MiB\"\n";
        let running = setup.start();
        let mut producer = connect(running.address());
        let soon = from_now(Duration::from_millis(700));
        let body = vec![b'x'; 900_000];
        let headers = [("destination", QUEUE), ("expires", &soon), ("receipt", "1")];
        producer.send("SEND", &headers, &body).unwrap();
        assert_eq!(next(&mut producer).header("receipt-id"), Some("1"));
        // It waits until the other is dropped, and nothing else happens until then.
        let headers = [("destination", QUEUE), ("receipt", "2")];
        producer.send("SEND", &headers, &body).unwrap();
        let answer = producer.receive(Duration::from_secs(5)).unwrap();
        let answer = answer.expect("nobody but the timer wakes it");
        assert_eq!(answer.header("receipt-id"), Some("2"));
        assert!(from_now(Duration::ZERO) >= soon, "there was no room before");
        assert!(running.stop().success());
    });
}

#[test]
fn message_expiry_malformed_is_refused() {
    with_shards("expiry-wrong", |setup| {
        let running = setup.start();
        for wrong in ["tomorrow", "-1", "1.5"] {
            let mut client = connect(running.address());
            let headers = [("destination", QUEUE), ("expires", wrong)];
            client.send("SEND", &headers, b"").unwrap();
            assert_eq!(next(&mut client).command, "ERROR", "{wrong:?}");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn message_expiry_is_shown_as_the_address_decided_it() {
    with_shards("expiry-shown", |setup| {
        setup.config += r##"
            [[address]]
            match = "shown.usual"
            expiry_delay_ms = 3600000
            [[address]]
            match = "shown.most"
            max_expiry_delay_ms = 3600000
            [[address]]
            match = "shown.none"
            no_expiry = true
        "##;
        let running = setup.start();
        let mut producer = connect(running.address());
        let [near, far] = [1800, 360_000].map(|s| from_now(Duration::from_secs(s)));
        // What is asked for, and what is to be seen: that, nothing, or some time within an hour.
        let cases = [
            ("plain", Some(&near), Some(Some(&near))),
            ("plain", None, Some(None)),
            ("usual", Some(&far), Some(Some(&far))),
            ("usual", None, None),
            ("most", Some(&near), Some(Some(&near))),
            ("most", Some(&far), None),
            ("none", Some(&near), Some(None)),
        ];
        for persistent in ["true", "false"] {
            for (name, asked, expected) in cases {
                let queue = format!("/queue/shown.{name}");
                let mut headers = vec![
                    ("destination", &*queue),
                    ("persistent", persistent),
                    ("a", "b"),
                    ("receipt", "r"),
                ];
                headers.extend(asked.map(|asked| ("expires", &**asked)));
                producer.send("SEND", &headers, b"x").unwrap();
                assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
                let mut consumer = connect(running.address());
                subscribe(&mut consumer, &queue, &[("ack", "client")]);
                let message = next_message(&mut consumer);
                ask(
                    &mut consumer,
                    "ACK",
                    &[("id", message.header("ack").unwrap())],
                );
                let seen: Vec<_> = message
                    .headers
                    .iter()
                    .filter(|one| one.0 == "expires")
                    .collect();
                assert_eq!(message.header("a"), Some("b"));
                match expected {
                    Some(Some(expected)) => assert_eq!(&seen[0].1, expected, "{name}"),
                    Some(None) => assert!(seen.is_empty(), "{name}: {seen:?}"),
                    None => {
                        let hour = from_now(Duration::from_secs(3600));
                        assert!(seen[0].1 <= hour && seen[0].1 > near, "{name}: {seen:?}");
                    }
                }
                assert!(seen.len() < 2, "{seen:?}");
            }
        }
        // A dead letter stays, so it says no time.
        let queue = "/queue/shown.usual";
        send(&mut producer, queue, &[("expires", &near)], "dead");
        let mut consumer = connect(running.address());
        subscribe(&mut consumer, queue, &[("ack", "client")]);
        let message = next_message(&mut consumer);
        let id = message.header("ack").unwrap();
        ask(&mut consumer, "NACK", &[("id", id), ("requeue", "false")]);
        let mut reader = connect(running.address());
        subscribe(&mut reader, "/queue/DLQ", &[("ack", "auto")]);
        let dead = next_message(&mut reader);
        assert_eq!((&*text(&dead), dead.header("expires")), ("dead", None));
        assert!(running.stop().success());
    });
}
