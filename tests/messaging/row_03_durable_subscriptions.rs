//! Row 3: durable subscriptions with a selector, and without what their own client sends. The rest
//! of the row is in `tests/durable`.

use crate::broker::stomp::Client;
use crate::{ask, attach, bodies, connect, connect_as, next, refused, send, text, with_topics};

const NAME: (&str, &str) = ("activemq.subscriptionName", "s");
const OWN_ACK: (&str, &str) = ("ack", "client-individual");

fn open(client: &mut Client, topic: &str, more: &[(&str, &str)], count: usize) -> Vec<String> {
    let headers = [&[("id", "0"), NAME, OWN_ACK][..], more].concat();
    let frames = attach(client, topic, &headers, count);
    for frame in &frames {
        ask(client, "ACK", &[("id", frame.header("ack").unwrap())]);
    }
    frames.iter().map(text).collect()
}

#[test]
fn a_durable_subscription_collects_what_its_selector_wants_over_a_kill() {
    with_topics("durable-selector", |setup, topics| {
        let red = ("selector", "color = 'red' AND weight > 10");
        let mut running = setup.start();
        for topic in &topics {
            let mut client = connect_as(running.address(), topic);
            open(&mut client, topic, &[red], 0);
            ask(&mut client, "DISCONNECT", &[]);
        }
        for round in ["first", "second"] {
            for topic in &topics {
                let mut producer = connect(running.address());
                for (color, weight) in [("red", "11"), ("blue", "11"), ("red", "9"), ("red", "1e2")]
                {
                    let headers = [("color", color), ("weight", weight)];
                    send(
                        &mut producer,
                        topic,
                        &headers,
                        &format!("{round} {color} {weight}"),
                    );
                }
            }
            running.kill();
            running = setup.start();
        }
        for topic in &topics {
            let mut client = connect_as(running.address(), topic);
            let wanted = [
                "first red 11",
                "first red 1e2",
                "second red 11",
                "second red 1e2",
            ];
            // The same selector, written in another way, is the same.
            let other = ("selector", "(color='red') and (weight>0xA)");
            assert_eq!(open(&mut client, topic, &[other], 4), wanted);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn another_selector_or_no_local_makes_an_empty_subscription() {
    with_topics("durable-changes", |setup, topics| {
        let mut running = setup.start();
        let kinds: [&[(&str, &str)]; 6] = [
            &[],
            &[("selector", "n > 1")],
            &[("selector", "n > 2")],
            &[("selector", "n > 2"), ("no-local", "true")],
            &[("activemq.noLocal", "true"), ("selector", "")],
            &[("noLocal", "false"), ("selector", "  ")],
        ];
        for topic in &topics {
            for kind in kinds {
                // What the kind before left is gone with it.
                let mut client = connect_as(running.address(), topic);
                open(&mut client, topic, kind, 0);
                ask(&mut client, "UNSUBSCRIBE", &[("id", "0")]);
                send(
                    &mut connect(running.address()),
                    topic,
                    &[("n", "3")],
                    "kept",
                );
                assert_eq!(open(&mut client, topic, kind, 1), ["kept"]);
                ask(&mut client, "DISCONNECT", &[]);
                send(
                    &mut connect(running.address()),
                    topic,
                    &[("n", "3")],
                    "left",
                );
                // While somebody is attached nothing changes.
                let mut holder = connect_as(running.address(), topic);
                assert_eq!(open(&mut holder, topic, kind, 1), ["left"]);
                let mut other = connect_as(running.address(), topic);
                let headers = [
                    ("destination", topic.as_str()),
                    ("id", "0"),
                    NAME,
                    ("selector", "n > 7"),
                ];
                other.send("SUBSCRIBE", &headers, b"").unwrap();
                refused(other, "somebody is attached");
                ask(&mut holder, "DISCONNECT", &[]);
                send(
                    &mut connect(running.address()),
                    topic,
                    &[("n", "3")],
                    "lost",
                );
            }
            running.kill();
            running = setup.start();
        }
        assert!(running.stop().success());
    });
}

/// Many segments are written and freed: the definition is repeated with its selector.
#[test]
fn the_selector_outlives_the_segment_of_its_definition() {
    with_topics("durable-redefined", |setup, topics| {
        let mut running = setup.start();
        for topic in &topics {
            let mut client = connect_as(running.address(), topic);
            let wanted = [("selector", "wanted"), ("no-local", "true")];
            open(&mut client, topic, &wanted, 0);
            ask(&mut client, "DISCONNECT", &[]);
            let mut producer = connect(running.address());
            let mut consumer = connect(running.address());
            attach(&mut consumer, "/queue/filler", &[("id", "f")], 0);
            let body = "x".repeat(60_000);
            for _ in 0..100 {
                send(&mut producer, "/queue/filler", &[], &body);
                assert_eq!(bodies(&mut consumer, 1), [body.as_str()]);
            }
            running.kill();
            running = setup.start();
            let mut producer = connect(running.address());
            send(&mut producer, topic, &[("wanted", "false")], "no");
            send(&mut producer, topic, &[("wanted", "true")], "yes");
            let mut client = connect_as(running.address(), topic);
            send(&mut client, topic, &[("wanted", "true")], "own");
            assert_eq!(open(&mut client, topic, &wanted, 1), ["yes"]);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn no_local_leaves_out_what_the_same_client_sends_on_any_connection() {
    with_topics("durable-no-local", |setup, topics| {
        let running = setup.start();
        for (topic, client) in topics.iter().zip(["a.b\\c", "ada"]) {
            let mut listener = connect_as(running.address(), client);
            let headers = [("id", "0"), NAME, ("no-local", "true")];
            attach(&mut listener, topic, &headers, 0);
            listener
                .send("SEND", &[("destination", topic)], b"own")
                .unwrap();
            send(
                &mut connect_as(running.address(), client),
                topic,
                &[],
                "own, elsewhere",
            );
            send(
                &mut connect_as(running.address(), "a"),
                topic,
                &[],
                "of another",
            );
            send(&mut connect(running.address()), topic, &[], "of nobody");
            assert_eq!(bodies(&mut listener, 2), ["of another", "of nobody"]);
            ask(&mut listener, "DISCONNECT", &[]);
            send(
                &mut connect_as(running.address(), client),
                topic,
                &[],
                "own, later",
            );
            send(&mut connect(running.address()), topic, &[], "last");
            let mut listener = connect_as(running.address(), client);
            let frames = attach(&mut listener, topic, &headers, 1);
            assert_eq!(text(&frames[0]), "last");
        }
        // A queue has none.
        for key in ["no-local", "activemq.noLocal", "noLocal"] {
            let mut client = connect(running.address());
            let headers = [("destination", "/queue/q"), ("id", "0"), (key, "true")];
            client.send("SUBSCRIBE", &headers, b"").unwrap();
            refused(client, "no-local not offered");
            let mut client = connect(running.address());
            let headers = [("destination", "/topic/q"), ("id", "0"), (key, "yes")];
            client.send("SUBSCRIBE", &headers, b"").unwrap();
            assert_eq!(
                next(&mut client).header("message"),
                Some("header malformed")
            );
        }
        assert!(running.stop().success());
    });
}
