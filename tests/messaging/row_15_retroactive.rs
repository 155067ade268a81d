//! Row 15: topics that keep their last messages for subscriptions to come.

use std::net::SocketAddr;

use crate::broker::stomp::Client;
use crate::{
    ask, attach, bodies, connect, connect_as, next, next_message, send, text, with_topics,
};

const CONFIG: &str = r##"
    [[address]]
    match = "news.#"
    retroactive_message_count = 3
"##;

fn send_volatile(client: &mut Client, topic: &str, body: &str) {
    let headers = [("destination", topic), ("receipt", "r")];
    client.send("SEND", &headers, body.as_bytes()).unwrap();
    assert_eq!(next(client).header("receipt-id"), Some("r"));
}

/// What a new subscription gets, and not a message more before one that is sent then.
fn kept(
    producer: &mut Client,
    topic: &str,
    address: SocketAddr,
    (headers, count): (&[(&str, &str)], usize),
) -> Vec<String> {
    let headers = [headers, &[("id", "0")]].concat();
    let mut reader = connect(address);
    let seen: Vec<_> = attach(&mut reader, topic, &headers, count);
    send(producer, topic, &[], "mark");
    assert_eq!(text(&next_message(&mut reader)), "mark");
    seen.iter().map(text).collect()
}

#[test]
fn a_new_subscription_gets_the_last_messages_also_after_a_crash() {
    with_topics("retro-plain", |setup, [topic, other]| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let mut producer = connect(running.address());
        for body in ["1", "2", "3", "4", "5"] {
            send(&mut producer, &topic, &[("priority", "7")], body);
        }
        send(&mut producer, &other, &[], "other");
        for round in ["6", "7"] {
            let mut reader = connect(running.address());
            let seen = attach(&mut reader, &topic, &[("id", "0"), ("ack", "client")], 3);
            let seen: Vec<_> = seen.iter().map(text).collect();
            let expected = if round == "6" {
                ["3", "4", "5"]
            } else {
                ["4", "5", "6"]
            };
            assert_eq!(seen, expected);
            // What it does with them is its own business.
            let mut producer = connect(running.address());
            send(&mut producer, &topic, &[], round);
            assert_eq!(bodies(&mut reader, 1), [round]);
            running.kill();
            running = setup.start();
        }
        // Whatever is not durable is kept as long as the broker runs.
        let mut producer = connect(running.address());
        send_volatile(&mut producer, &topic, "8");
        let mut reader = connect(running.address());
        let seen = attach(&mut reader, &topic, &[("id", "0")], 3);
        assert_eq!(seen.iter().map(text).collect::<Vec<_>>(), ["6", "7", "8"]);
        running.kill();
        running = setup.start();
        let mut reader = connect(running.address());
        let seen = attach(&mut reader, &topic, &[("id", "0")], 2);
        assert_eq!(seen.iter().map(text).collect::<Vec<_>>(), ["6", "7"]);
        // Nobody wants them any more.
        assert!(running.stop().success());
        setup.config.clear();
        let running = setup.start();
        let mut producer = connect(running.address());
        let seen = kept(&mut producer, &topic, running.address(), (&[], 0));
        assert_eq!(seen, [""; 0]);
        assert!(running.stop().success());
    });
}

#[test]
fn durable_and_shared_subscriptions_get_them_once_and_keep_them() {
    with_topics("retro-named", |setup, [topic, _]| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let mut producer = connect(running.address());
        for body in ["1", "2", "3", "4"] {
            send(&mut producer, &topic, &[], body);
        }
        let durable = [
            ("id", "0"),
            ("activemq.subscriptionName", "d"),
            ("ack", "client"),
        ];
        let mut reader = connect_as(running.address(), "reader");
        let seen = attach(&mut reader, &topic, &durable, 3);
        ask(
            &mut reader,
            "ACK",
            &[("id", seen[0].header("ack").unwrap())],
        );
        let shared = [
            ("id", "0"),
            ("subscription-name", "s"),
            ("shared", "true"),
            ("durable", "true"),
            ("ack", "client-individual"),
        ];
        let mut one = connect(running.address());
        let seen = attach(&mut one, &topic, &shared, 3);
        assert_eq!(seen.iter().map(text).collect::<Vec<_>>(), ["2", "3", "4"]);
        let mut other = connect(running.address());
        attach(&mut other, &topic, &shared, 0);
        ask(&mut one, "ACK", &[("id", seen[1].header("ack").unwrap())]);
        running.kill();
        running = setup.start();
        let mut reader = connect_as(running.address(), "reader");
        let seen = attach(&mut reader, &topic, &durable, 2);
        assert_eq!(seen.iter().map(text).collect::<Vec<_>>(), ["3", "4"]);
        let mut one = connect(running.address());
        let seen = attach(&mut one, &topic, &shared, 2);
        assert_eq!(seen.iter().map(text).collect::<Vec<_>>(), ["2", "4"]);
        let mut producer = connect(running.address());
        send(&mut producer, &topic, &[], "5");
        assert_eq!(bodies(&mut reader, 1), ["5"]);
        assert_eq!(bodies(&mut one, 1), ["5"]);
        assert!(running.stop().success());
    });
}

#[test]
fn selectors_are_asked_about_them_wherever_they_lie() {
    with_topics("retro-selector", |setup, [topic, _]| {
        setup.config += &CONFIG.replace("= 3", "= 100");
        let mut running = setup.start();
        let mut producer = connect(running.address());
        let large = "x".repeat(30_000);
        for number in 0..120 {
            let kind = if number % 3 == 0 { "a" } else { "b" };
            let headers = [
                ("destination", &*topic),
                ("persistent", "true"),
                ("kind", kind),
            ];
            let body = format!("{number}.{large}");
            producer.send("SEND", &headers, body.as_bytes()).unwrap();
        }
        send(&mut producer, &topic, &[("kind", "c")], "last.");
        let numbers = (0..120).filter(|number| number % 3 == 0 && *number > 20);
        let expected: Vec<_> = numbers.map(|number| number.to_string()).collect();
        for _ in 0..2 {
            let mut reader = connect(running.address());
            let headers = [("id", "0"), ("selector", "kind = 'a'")];
            let seen = attach(&mut reader, &topic, &headers, expected.len());
            let number = |body: String| body.split('.').next().unwrap().to_owned();
            let seen: Vec<_> = seen.iter().map(text).map(number).collect();
            assert_eq!(seen, expected);
            // Behind it comes what its connection asked for while it waited for the disk.
            let mut reader = connect(running.address());
            let headers = [
                ("id", "1"),
                ("destination", &*topic),
                ("selector", "kind = 'c'"),
            ];
            reader.send("SUBSCRIBE", &headers, b"").unwrap();
            let unsubscribe = [("id", "1"), ("receipt", "gone")];
            reader.send("UNSUBSCRIBE", &unsubscribe, b"").unwrap();
            let mut frame = next(&mut reader);
            if frame.command == "MESSAGE" {
                assert_eq!(text(&frame), "last.");
                frame = next(&mut reader);
            }
            assert_eq!(frame.header("receipt-id"), Some("gone"));
            running.kill();
            running = setup.start();
        }
        assert!(running.stop().success());
    });
}

#[test]
fn wildcards_get_those_of_all_their_topics() {
    with_topics("retro-wildcard", |setup, topics| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut producer = connect(running.address());
        for topic in &topics {
            for body in ["1", "2", "3", "4"] {
                send(&mut producer, topic, &[], body);
            }
        }
        let mut reader = connect(running.address());
        let headers = [("id", "0"), ("selector", "JMSPriority = 4")];
        let seen = attach(&mut reader, "/topic/news.>", &headers, 6);
        for topic in &topics {
            let of = seen
                .iter()
                .filter(|one| one.header("destination") == Some(topic));
            assert_eq!(of.map(text).collect::<Vec<_>>(), ["2", "3", "4"], "{topic}");
        }
        send(&mut producer, &topics[1], &[], "5");
        let last = next_message(&mut reader);
        assert_eq!(
            (&*text(&last), last.header("destination")),
            ("5", Some(&*topics[1]))
        );
        assert!(running.stop().success());
    });
}

#[test]
fn who_wants_none_gets_none_and_what_is_over_is_not_kept() {
    with_topics("retro-none", |setup, [topic, other]| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut producer = connect(running.address());
        let begin = [("transaction", "t")];
        ask(&mut producer, "BEGIN", &begin);
        let headers = [
            ("destination", &*topic),
            ("persistent", "true"),
            ("transaction", "t"),
        ];
        producer.send("SEND", &headers, b"in it").unwrap();
        let mut other_producer = connect(running.address());
        let mut kept = |topic: &str, headers: &[(&str, &str)], count| {
            kept(
                &mut other_producer,
                topic,
                running.address(),
                (headers, count),
            )
        };
        assert_eq!(kept(&topic, &[], 0), [""; 0]);
        ask(&mut producer, "COMMIT", &begin);
        for (headers, expected) in [
            (&[][..], &["in it", "mark"][..]),
            (
                &[("activemq.retroactive", "true")],
                &["in it", "mark", "mark"],
            ),
            (&[("activemq.retroactive", "false")], &[]),
        ] {
            assert_eq!(kept(&topic, headers, expected.len()), expected);
        }
        let mut reader = connect(running.address());
        attach(&mut reader, &topic, &[("id", "0"), ("no-local", "true")], 0);
        send(&mut producer, &topic, &[], "of another");
        assert_eq!(bodies(&mut reader, 1), ["of another"]);
        let mut reader = connect(running.address());
        reader
            .send(
                "SUBSCRIBE",
                &[
                    ("id", "0"),
                    ("destination", &topic),
                    ("activemq.retroactive", "perhaps"),
                ],
                b"",
            )
            .unwrap();
        crate::refused(reader, "neither true nor false");
        // One of which the time is over leaves as it does anywhere.
        send(&mut producer, &other, &[("expires", "1")], "over");
        send(&mut producer, &other, &[], "stays");
        assert_eq!(kept(&other, &[], 1), ["stays"]);
        assert!(running.stop().success());
    });
}
