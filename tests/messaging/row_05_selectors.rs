//! Row 5: selectors. A subscription receives only the messages that its condition is true for.

use crate::with_topics;
use crate::{ask, attach, bodies, connect, connect_as, next, refused, send, with_shards};

/// What is sent: headers and body.
const MESSAGES: [(&[(&str, &str)], &str); 5] = [
    (&[("color", "red"), ("weight", "12")], "red"),
    (
        &[("color", "blue"), ("weight", "7.5"), ("type", "car")],
        "blue",
    ),
    (&[("color", "a:b\\c"), ("priority", "9")], "escaped"),
    (
        &[("correlation-id", "42"), ("persistent", "false")],
        "plain",
    ),
    (
        &[
            ("my-key", "x"),
            ("new", "TRUE"),
            ("expires", "33000000000000"),
        ],
        "odd",
    ),
];

/// A selector and what it selects of these.
const CASES: [(&str, &[&str]); 16] = [
    ("", &["red", "blue", "escaped", "plain", "odd"]),
    ("color = 'red'", &["red"]),
    ("color <> 'red'", &["blue", "escaped"]),
    ("weight > 7", &["red", "blue"]),
    (
        "weight BETWEEN 7 AND 10 OR color LIKE 'r_d'",
        &["red", "blue"],
    ),
    ("color = 'a:b\\c'", &["escaped"]),
    ("color IS NULL AND \"my-key\" IS NULL", &["plain"]),
    ("\"my-key\" = 'x'", &["odd"]),
    ("hyphenated_props:my-key = 'x' AND new", &["odd"]),
    ("JMSPriority = 9", &["escaped"]),
    ("JMSType IN ('car', 'bus')", &["blue"]),
    (
        "JMSCorrelationID = '42' AND JMSDeliveryMode = 'NON_PERSISTENT'",
        &["plain"],
    ),
    (
        "JMSTimestamp > 1700000000000 AND JMSExpiration > 0",
        &["odd"],
    ),
    ("convert_string_expressions:weight * 2 = 24", &["red"]),
    ("no_convert_string_expressions:weight > 7", &[]),
    (
        "AMQPriority >= 4 AND AMQDurable = 'DURABLE' AND JMSMessageID LIKE '_-%'",
        &["red", "blue", "escaped", "odd"],
    ),
];

#[test]
fn each_subscription_of_a_topic_gets_what_it_selects() {
    with_topics("selectors", |setup, topics| {
        let running = setup.start();
        for topic in &topics {
            let mut clients: Vec<_> = CASES.iter().map(|_| connect(running.address())).collect();
            for (client, (selector, _)) in clients.iter_mut().zip(CASES) {
                attach(client, topic, &[("id", "0"), ("selector", selector)], 0);
            }
            // One that nothing answers, and what goes nowhere is confirmed all the same.
            let mut deaf = connect(running.address());
            attach(
                &mut deaf,
                topic,
                &[("id", "0"), ("selector", "nobody = 1")],
                0,
            );
            let mut producer = connect(running.address());
            for persistent in ["true", "false"] {
                for (headers, body) in MESSAGES {
                    let persistent = ("persistent", persistent);
                    let own = [
                        ("destination", topic.as_str()),
                        ("receipt", "r"),
                        persistent,
                    ];
                    // The first of two headers counts.
                    let headers = [headers, &own].concat();
                    producer.send("SEND", &headers, body.as_bytes()).unwrap();
                    assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
                }
                for (client, (selector, wanted)) in clients.iter_mut().zip(CASES) {
                    if persistent == "false" && selector.contains("AMQDurable") {
                        continue;
                    }
                    if persistent == "false" && selector.contains("NON_PERSISTENT") {
                        assert_eq!(bodies(client, 1), ["plain"]);
                        continue;
                    }
                    assert_eq!(bodies(client, wanted.len()), wanted, "{selector}");
                }
            }
            for client in clients.iter_mut().chain([&mut deaf]) {
                // Nothing else came.
                ask(client, "UNSUBSCRIBE", &[("id", "0")]);
            }
        }
        assert!(running.stop().success());
    });
}

/// Bodies that come in parts, to subscriptions of which some are durable and some want them.
#[test]
fn large_messages_go_only_to_who_wants_them() {
    with_topics("selectors-large", |setup, topics| {
        let mut running = setup.start();
        for topic in &topics {
            let wanted = ("selector", "size = 'large'");
            let mut plain = connect(running.address());
            attach(&mut plain, topic, &[("id", "0"), wanted], 0);
            let mut other = connect(running.address());
            attach(
                &mut other,
                topic,
                &[("id", "0"), ("selector", "size = 'small'")],
                0,
            );
            let name = ("durable-subscription-name", "s");
            let durable = [("id", "0"), name, wanted];
            let mut client = connect_as(running.address(), topic);
            attach(&mut client, topic, &durable, 0);
            ask(&mut client, "DISCONNECT", &[]);
            let body = "x".repeat(900_000);
            let mut producer = connect(running.address());
            for persistent in ["true", "false"] {
                for size in ["large", "none"] {
                    let headers = [
                        ("destination", topic.as_str()),
                        ("persistent", persistent),
                        ("size", size),
                        ("receipt", "r"),
                    ];
                    producer.send("SEND", &headers, body.as_bytes()).unwrap();
                    assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
                }
            }
            send(&mut producer, topic, &[("size", "small")], "small");
            assert_eq!(bodies(&mut plain, 2), [body.as_str(), &body]);
            assert_eq!(bodies(&mut other, 1), ["small"]);
            ask(&mut plain, "UNSUBSCRIBE", &[("id", "0")]);
            running.kill();
            running = setup.start();
            let mut client = connect_as(running.address(), topic);
            let frames = attach(&mut client, topic, &durable, 1);
            assert_eq!(frames[0].body.len(), body.len());
            ask(&mut client, "UNSUBSCRIBE", &[("id", "0")]);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn no_local_leaves_out_what_the_same_connection_sends() {
    with_topics("no-local", |setup, topics| {
        let running = setup.start();
        for topic in &topics {
            let mut client = connect(running.address());
            let headers = [("id", "0"), ("no-local", "true"), ("selector", "n > 0")];
            attach(&mut client, topic, &headers, 0);
            attach(&mut client, topic, &[("id", "1"), ("no-local", "false")], 0);
            let own = [("destination", topic.as_str()), ("n", "1")];
            client.send("SEND", &own, b"own").unwrap();
            let mut other = connect(running.address());
            send(&mut other, topic, &[("n", "1")], "other");
            send(&mut other, topic, &[("n", "0")], "zero");
            let mut heard: Vec<_> = (0..4)
                .map(|_| {
                    let frame = next(&mut client);
                    let id = frame.header("subscription").unwrap().to_owned();
                    (id, crate::text(&frame))
                })
                .collect();
            heard.sort();
            let expected = [("0", "other"), ("1", "other"), ("1", "own"), ("1", "zero")];
            let expected = expected.map(|(id, body)| (id.to_owned(), body.to_owned()));
            assert_eq!(heard, expected);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn what_is_no_selector_is_refused_with_its_place() {
    with_topics("selectors-refused", |setup, [topic, _]| {
        let running = setup.start();
        let long = "a".repeat(9000);
        let many = format!("color IN ('{}')", "x".repeat(8000));
        for (selector, said) in [
            ("color = = 'red'", "character 9"),
            ("color =", "character 8: found the end"),
            ("color", "selector malformed"),
            ("color = 'red", "lacks its closing single quote"),
            ("1 < 'a'", "takes numbers"),
            (&long, "8192 bytes"),
            ("JMSDestination = 'q'", "JMSDestination"),
            ("JMSXDeliveryCount > 1", "JMSXDeliveryCount"),
            ("AMQSize > 1", "AMQSize"),
        ] {
            let mut client = connect(running.address());
            let headers = [("id", "0"), ("destination", &topic), ("selector", selector)];
            if selector == "color" {
                // An identifier alone is a condition.
                attach(
                    &mut client,
                    &topic,
                    &[("id", "0"), ("selector", selector)],
                    0,
                );
                continue;
            }
            client.send("SUBSCRIBE", &headers, b"").unwrap();
            refused(client, said);
        }
        // A connection holds so many bytes of them.
        let mut client = connect(running.address());
        for id in 0..8 {
            let id = id.to_string();
            attach(&mut client, &topic, &[("id", &id), ("selector", &many)], 0);
        }
        ask(&mut client, "UNSUBSCRIBE", &[("id", "3")]);
        attach(&mut client, &topic, &[("id", "3"), ("selector", &many)], 0);
        let headers = [("id", "8"), ("destination", &topic), ("selector", &many)];
        client.send("SUBSCRIBE", &headers, b"").unwrap();
        refused(client, "65536 bytes at most");
        assert!(running.stop().success());
    });
}

const QUEUE: &str = "/queue/selectors";
const BY_CLIENT: (&str, &str) = ("ack", "client-individual");

/// Consumers with selectors compete with others, and what nobody wants waits for who does.
#[test]
fn consumers_of_a_queue_get_what_they_select_and_leave_the_rest() {
    with_shards("selectors-queue", |setup| {
        let mut running = setup.start();
        let mut producer = connect(running.address());
        for number in 0..30 {
            let (n, number) = ((number % 3).to_string(), number.to_string());
            send(&mut producer, QUEUE, &[("n", &n)], &number);
        }
        let expected = |n: usize| {
            (0..10)
                .map(|at| (at * 3 + n).to_string())
                .collect::<Vec<_>>()
        };
        let red = [("id", "0"), BY_CLIENT, ("selector", "n = 1")];
        let mut one = connect(running.address());
        let frames = attach(&mut one, QUEUE, &red, 10);
        assert_eq!(
            frames.iter().map(crate::text).collect::<Vec<_>>(),
            expected(1)
        );
        // One that selects nothing, and what comes while they wait.
        let mut none = connect(running.address());
        attach(&mut none, QUEUE, &[("id", "0"), ("selector", "n > 7")], 0);
        send(&mut producer, QUEUE, &[("n", "1")], "late");
        send(&mut producer, QUEUE, &[("n", "8")], "eight");
        assert_eq!(bodies(&mut one, 1), ["late"]);
        assert_eq!(bodies(&mut none, 1), ["eight"]);
        // What one gives back comes again, to whoever selects it: also over a kill.
        let ack = frames[0].header("ack").unwrap();
        ask(&mut one, "ACK", &[("id", ack)]);
        running.kill();
        running = setup.start();
        let mut one = connect(running.address());
        let frames = attach(&mut one, QUEUE, &red, 10);
        let mut left = expected(1).split_off(1);
        left.push("late".to_owned());
        assert_eq!(frames.iter().map(crate::text).collect::<Vec<_>>(), left);
        ask(&mut one, "UNSUBSCRIBE", &[("id", "0")]);
        // Who selects nothing gets what is left, in order.
        let mut rest = connect(running.address());
        let frames = attach(&mut rest, QUEUE, &[("id", "0"), BY_CLIENT], 30);
        let mut all: Vec<_> = (0..30).filter(|n| *n != 1).map(|n| n.to_string()).collect();
        all.push("late".to_owned());
        assert_eq!(frames.iter().map(crate::text).collect::<Vec<_>>(), all);
        assert!(running.stop().success());
    });
}

/// More than the block cache holds, so that heads come from the disk, while others are served.
#[test]
fn selectors_look_at_messages_on_the_disk() {
    with_shards("selectors-cold", |setup| {
        let mut running = setup.start();
        let mut producer = connect(running.address());
        let body = "x".repeat(20_000);
        for number in 0..1000 {
            let n = number.to_string();
            let headers = [("destination", QUEUE), ("persistent", "true"), ("n", &n)];
            producer.send("SEND", &headers, body.as_bytes()).unwrap();
        }
        send(&mut producer, QUEUE, &[("n", "-1")], "last");
        running.kill();
        running = setup.start();
        let mut one = connect(running.address());
        let wanted = [
            ("id", "0"),
            ("selector", "n IN ('7', '500', '998') OR n < 0"),
        ];
        let frames = attach(&mut one, QUEUE, &wanted, 4);
        let seen: Vec<_> = frames
            .iter()
            .map(|frame| frame.header("n").unwrap())
            .collect();
        assert_eq!(seen, ["7", "500", "998", "-1"]);
        // A browser that looks for what is not there any more, and for one that is.
        let mut browser = connect(running.address());
        let headers = [
            ("id", "0"),
            ("browser", "true"),
            ("selector", "n IN ('7', '999')"),
        ];
        ask(&mut one, "UNSUBSCRIBE", &[("id", "0")]);
        let frames = attach(&mut browser, QUEUE, &headers, 2);
        assert_eq!(frames[0].header("n"), Some("999"));
        assert_eq!(frames[1].header("browser"), Some("end"));
        assert!(running.stop().success());
    });
}
