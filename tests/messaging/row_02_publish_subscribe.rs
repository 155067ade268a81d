//! Row 2: topics: everybody subscribed gets each message; wildcards of topics, whose queues are on
//! every shard.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::stomp::{Client, Frame};
use crate::{
    ask, attach, bodies, connect, connect_as, next, next_message, refused, send, subscribe, text,
    with_shards,
};

const ID: (&str, &str) = ("id", "0");
const NAME: (&str, &str) = ("activemq.subscriptionName", "s");
const CUMULATIVE: (&str, &str) = ("ack", "client");
const SINGLY: (&str, &str) = ("ack", "client-individual");

/// Enough topics for each shard to have some.
const COUNTRIES: [&str; 6] = ["de", "fr", "it", "es", "pt", "at"];

fn topic(country: &str) -> String {
    format!("/topic/orders.{country}")
}

fn send_to_all(producer: &mut Client, note: &str) {
    for country in COUNTRIES {
        send(producer, &topic(country), &[], &format!("{note} {country}"));
    }
}

/// Messages by destination, in the order in which they came.
fn by_destination(frames: &[Frame]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for frame in frames {
        let destination = frame.header("destination").unwrap().to_owned();
        found.entry(destination).or_default().push(text(frame));
    }
    found
}

fn all(notes: &[&str]) -> BTreeMap<String, Vec<String>> {
    let of = |country: &str| {
        notes
            .iter()
            .map(|note| format!("{note} {country}"))
            .collect()
    };
    let pairs = COUNTRIES.map(|country| (topic(country), of(country)));
    pairs.into()
}

fn take(client: &mut Client, count: usize) -> Vec<Frame> {
    (0..count).map(|_| next_message(client)).collect()
}

#[test]
fn a_wildcard_gets_what_is_sent_to_each_topic_and_says_which() {
    with_shards("wildcard", |setup| {
        let running = setup.start();
        let [mut star, mut rest, mut plain] = [(); 3].map(|()| connect(running.address()));
        attach(&mut star, "/topic/orders.*", &[ID], 0);
        attach(&mut rest, "/topic/orders.>", &[ID], 0);
        attach(&mut plain, "/topic/orders.de", &[ID], 0);
        let mut producer = connect(running.address());
        for round in ["one", "two"] {
            send_to_all(&mut producer, round);
            send(&mut producer, "/topic/orders.de.berlin", &[], round);
            send(&mut producer, "/topic/orders", &[], round);
            send(&mut producer, "/topic/other.de", &[], round);
        }
        assert_eq!(by_destination(&take(&mut star, 12)), all(&["one", "two"]));
        let found = by_destination(&take(&mut rest, 16));
        let mut expected = all(&["one", "two"]);
        for topic in ["/topic/orders.de.berlin", "/topic/orders"] {
            expected.insert(topic.to_owned(), vec!["one".into(), "two".into()]);
        }
        assert_eq!(found, expected);
        assert_eq!(bodies(&mut plain, 2), ["one de", "two de"]);
        // Nothing more is on its way to any of them.
        for client in [&mut star, &mut rest, &mut plain] {
            ask(client, "UNSUBSCRIBE", &[ID]);
        }
        send_to_all(&mut producer, "three");
        for client in [&mut star, &mut rest, &mut plain] {
            ask(client, "DISCONNECT", &[]);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn a_wildcard_is_written_as_artemis_does_too() {
    with_shards("wildcard-artemis", |setup| {
        let running = setup.start();
        let mut consumer = connect(running.address());
        let multicast = ("subscription-type", "MULTICAST");
        attach(&mut consumer, "orders.#", &[ID, multicast], 0);
        let mut producer = connect(running.address());
        for (country, name) in [("de", "orders.de"), ("fr", "orders.fr.paris")] {
            let multicast = ("destination-type", "MULTICAST");
            send(&mut producer, name, &[multicast], country);
            let message = next_message(&mut consumer);
            assert_eq!(message.header("destination"), Some(name));
            assert_eq!(text(&message), country);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn a_large_message_reaches_a_wildcard_whole() {
    with_shards("wildcard-large", |setup| {
        let running = setup.start();
        let mut consumer = connect_as(running.address(), "large");
        attach(&mut consumer, "/topic/orders.*", &[ID, NAME, SINGLY], 0);
        let body = "x".repeat(700_000);
        let mut producer = connect(running.address());
        for persistent in ["true", "false"] {
            for country in COUNTRIES {
                let headers = [("persistent", persistent)];
                send(
                    &mut producer,
                    &topic(country),
                    &headers,
                    &format!("{country} {body}"),
                );
                let message = next_message(&mut consumer);
                assert_eq!(message.header("destination"), Some(&*topic(country)));
                assert!(text(&message) == format!("{country} {body}"));
                ask(
                    &mut consumer,
                    "ACK",
                    &[("id", message.header("ack").unwrap())],
                );
            }
        }
        assert!(running.stop().success());
    });
}

#[test]
fn acknowledged_together_means_across_all_shards() {
    with_shards("wildcard-cumulative", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut consumer = connect_as(running.address(), "c");
        attach(&mut consumer, "/topic/orders.*", &[ID, NAME, CUMULATIVE], 0);
        send_to_all(&mut producer, "one");
        let frames = take(&mut consumer, 6);
        // All but the last in one, whatever shard they are of.
        ask(
            &mut consumer,
            "ACK",
            &[("id", frames[4].header("ack").unwrap())],
        );
        ask(&mut consumer, "DISCONNECT", &[]);
        let mut consumer = connect_as(running.address(), "c");
        let left = attach(&mut consumer, "/topic/orders.*", &[ID, NAME, CUMULATIVE], 1);
        assert_eq!(text(&left[0]), text(&frames[5]));
        // Given back in one: all of them come again.
        send_to_all(&mut producer, "two");
        let frames = take(&mut consumer, 6);
        let nack = [("id", frames[5].header("ack").unwrap()), ("receipt", "r")];
        consumer.send("NACK", &nack, b"").unwrap();
        // The receipt comes once, for all.
        let answers: Vec<_> = (0..8).map(|_| next(&mut consumer)).collect();
        let (receipts, again): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .partition(|frame| frame.command == "RECEIPT");
        assert_eq!(receipts.len(), 1);
        let bodies = |frames: &[Frame]| frames.iter().map(text).collect::<BTreeSet<_>>();
        let expected = bodies(&[&left[..], &frames].concat());
        assert_eq!(bodies(&again), expected);
        ask(
            &mut consumer,
            "ACK",
            &[("id", again[6].header("ack").unwrap())],
        );
        // In a transaction, and not: rolled back they wait for another ACK.
        send_to_all(&mut producer, "three");
        let frames = take(&mut consumer, 6);
        let last = frames[5].header("ack").unwrap();
        for end in ["ABORT", "COMMIT"] {
            let transaction = ("transaction", "t");
            ask(&mut consumer, "BEGIN", &[transaction]);
            ask(&mut consumer, "ACK", &[("id", last), transaction]);
            ask(&mut consumer, end, &[transaction]);
        }
        ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
        attach(&mut consumer, "/topic/orders.*", &[ID, NAME, CUMULATIVE], 0);
        ask(&mut consumer, "DISCONNECT", &[]);
        assert!(running.stop().success());
    });
}

#[test]
fn an_older_client_acknowledges_by_message() {
    for version in ["1.0", "1.1"] {
        with_shards(&format!("wildcard-{version}"), |setup| {
            let running = setup.start();
            let mut consumer = Client::open(running.address()).unwrap();
            let headers = [
                ("accept-version", version),
                ("host", "/"),
                ("client-id", "old"),
            ];
            consumer.send("CONNECT", &headers, b"").unwrap();
            assert_eq!(next(&mut consumer).command, "CONNECTED");
            attach(&mut consumer, "/topic/orders.*", &[ID, NAME, CUMULATIVE], 0);
            let mut producer = connect(running.address());
            send_to_all(&mut producer, "one");
            let frames = take(&mut consumer, 6);
            let mut ack = vec![("message-id", frames[4].header("message-id").unwrap())];
            if version == "1.1" {
                ack.push(("subscription", "0"));
            }
            ask(&mut consumer, "ACK", &ack);
            ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
            let left = attach(&mut consumer, "/topic/orders.*", &[ID, NAME, CUMULATIVE], 1);
            assert_eq!(text(&left[0]), text(&frames[5]));
            assert!(running.stop().success());
        });
    }
}

#[test]
fn a_durable_wildcard_collects_over_a_kill_and_goes_when_told_to() {
    with_shards("wildcard-durable", |setup| {
        let mut running = setup.start();
        let headers = [ID, NAME, SINGLY];
        let mut consumer = connect_as(running.address(), "ada");
        attach(&mut consumer, "/topic/orders.*", &headers, 0);
        // Nobody else while somebody is attached, on whatever shard.
        let mut other = connect_as(running.address(), "ada");
        subscribe(&mut other, "/topic/orders.*", &headers);
        refused(other, "somebody is attached");
        ask(&mut consumer, "DISCONNECT", &[]);
        for round in ["one", "two"] {
            let mut producer = connect(running.address());
            send_to_all(&mut producer, round);
            send(&mut producer, "/topic/orders", &[], "no match");
            running.kill();
            running = setup.start();
        }
        let mut consumer = connect_as(running.address(), "ada");
        let frames = attach(&mut consumer, "/topic/orders.*", &headers, 12);
        assert_eq!(by_destination(&frames), all(&["one", "two"]));
        for frame in &frames[..11] {
            ask(
                &mut consumer,
                "ACK",
                &[("id", frame.header("ack").unwrap())],
            );
        }
        running.kill();
        running = setup.start();
        let mut consumer = connect_as(running.address(), "ada");
        let left = attach(&mut consumer, "/topic/orders.*", &headers, 1);
        assert_eq!(text(&left[0]), text(&frames[11]));
        ask(&mut consumer, "UNSUBSCRIBE", &[ID, NAME]);
        running.kill();
        running = setup.start();
        let mut consumer = connect_as(running.address(), "ada");
        consumer
            .send("UNSUBSCRIBE", &[NAME, ("receipt", "r")], b"")
            .unwrap();
        refused(consumer, "no durable subscription");
        assert!(running.stop().success());
    });
}

#[test]
fn another_topic_under_the_name_begins_empty_on_every_shard() {
    with_shards("wildcard-changes", |setup| {
        let mut running = setup.start();
        let mut producer = connect(running.address());
        let headers = [ID, NAME, SINGLY];
        let topics = [
            "/topic/orders.*",
            "/topic/orders.de",
            "/topic/orders.>",
            "/topic/orders.fr",
        ];
        for (at, destination) in topics.iter().enumerate() {
            let mut consumer = connect_as(running.address(), "ada");
            attach(&mut consumer, destination, &headers, 0);
            ask(&mut consumer, "DISCONNECT", &[]);
            send_to_all(&mut producer, "held");
            if at == 2 {
                running.kill();
                running = setup.start();
                producer = connect(running.address());
            }
        }
        // What nobody is attached to is deleted by its name alone, wherever it is.
        let mut consumer = connect_as(running.address(), "ada");
        assert_eq!(attach(&mut consumer, topics[3], &headers, 1).len(), 1);
        ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
        attach(&mut consumer, topics[0], &headers, 0);
        ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
        ask(&mut consumer, "UNSUBSCRIBE", &[NAME]);
        consumer
            .send("UNSUBSCRIBE", &[NAME, ("receipt", "r")], b"")
            .unwrap();
        refused(consumer, "no durable subscription");
        assert!(running.stop().success());
    });
}

#[test]
fn what_one_shard_refuses_is_made_on_none() {
    with_shards("wildcard-refused", |setup| {
        let running = setup.start();
        let headers = [ID, NAME, SINGLY];
        // Attached to a topic, on each shard once: the wildcard is refused there.
        for country in COUNTRIES {
            let mut first = connect_as(running.address(), country);
            attach(&mut first, &topic(country), &headers, 0);
            let mut other = connect_as(running.address(), country);
            subscribe(&mut other, "/topic/orders.*", &headers);
            refused(other, "somebody is attached");
            // The one that was there is whole, and alone.
            let mut producer = connect(running.address());
            send_to_all(&mut producer, "one");
            assert_eq!(bodies(&mut first, 1), [format!("one {country}")]);
            ask(&mut first, "UNSUBSCRIBE", &[ID, NAME]);
            first
                .send("UNSUBSCRIBE", &[NAME, ("receipt", "r")], b"")
                .unwrap();
            refused(first, "no durable subscription");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn shared_and_selective_wildcards_are_as_those_of_one_topic() {
    with_shards("wildcard-shared", |setup| {
        let running = setup.start();
        let shared = [("shared", "true"), ("subscription-name", "s"), ID, SINGLY];
        let mut consumers = [(); 2].map(|()| connect(running.address()));
        for consumer in &mut consumers {
            attach(consumer, "/topic/orders.*", &shared, 0);
        }
        let mut selective = connect(running.address());
        attach(&mut selective, "/topic/#", &[ID, ("selector", "n = 2")], 0);
        let mut producer = connect(running.address());
        for number in ["1", "2"] {
            for country in COUNTRIES {
                let body = format!("{country} {number}");
                send(&mut producer, &topic(country), &[("n", number)], &body);
            }
        }
        let found = bodies(&mut selective, 6);
        assert!(found.iter().all(|body| body.ends_with('2')), "{found:?}");
        // Who goes leaves what it got to the other one, on every shard.
        let [mut first, mut second] = consumers;
        first
            .send("DISCONNECT", &[("receipt", "bye")], b"")
            .unwrap();
        while next(&mut first).command != "RECEIPT" {}
        let found: BTreeSet<_> = bodies(&mut second, 12).into_iter().collect();
        assert_eq!(found.len(), 12);
        assert!(running.stop().success());
    });
}

#[test]
fn a_message_sent_again_is_known_whoever_got_it() {
    with_shards("wildcard-duplicates", |setup| {
        let mut running = setup.start();
        let headers = [ID, NAME, SINGLY];
        let mut consumer = connect_as(running.address(), "ada");
        attach(&mut consumer, "/topic/orders.*", &headers, 0);
        ask(&mut consumer, "DISCONNECT", &[]);
        for _ in 0..2 {
            let mut producer = connect(running.address());
            for country in COUNTRIES {
                // The same id at another address is another message.
                let id = ("_AMQ_DUPL_ID", "7");
                send(
                    &mut producer,
                    &topic(country),
                    &[id],
                    &format!("one {country}"),
                );
            }
            running.kill();
            running = setup.start();
        }
        let mut consumer = connect_as(running.address(), "ada");
        let frames = attach(&mut consumer, "/topic/orders.*", &headers, 6);
        assert_eq!(by_destination(&frames), all(&["one"]));
        ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
        assert!(running.stop().success());
    });
}

#[test]
fn what_is_no_topic_is_refused() {
    with_shards("wildcard-errors", |setup| {
        let running = setup.start();
        let cases = [
            ("SEND", "/topic/orders.*", "message to a wildcard"),
            ("SEND", "/queue/orders.>", "message to a wildcard"),
            ("SUBSCRIBE", "/queue/orders.>.de", "destination malformed"),
            ("SUBSCRIBE", "/topic/orders.>.de", "destination malformed"),
            ("SUBSCRIBE", "/topic/orders*.#", "destination malformed"),
        ];
        for (command, destination, message) in cases {
            let mut client = connect(running.address());
            let headers = [("destination", destination), ID];
            client.send(command, &headers, b"").unwrap();
            let frame = next(&mut client);
            assert_eq!(frame.command, "ERROR", "{destination}");
            assert_eq!(frame.header("message"), Some(message), "{destination}");
        }
        // Nobody sees the answers of others.
        let mut spy = connect(running.address());
        attach(&mut spy, "/topic/>", &[ID], 0);
        let mut asking = connect(running.address());
        attach(&mut asking, "/temp-topic/answers", &[ID], 0);
        let reply_to = [("reply-to", "/temp-topic/answers")];
        send(&mut asking, "/topic/questions", &reply_to, "?");
        let asked = next_message(&mut spy);
        let mut answering = connect(running.address());
        send(&mut answering, asked.header("reply-to").unwrap(), &[], "!");
        assert_eq!(bodies(&mut asking, 1), ["!"]);
        ask(&mut spy, "UNSUBSCRIBE", &[ID]);
        assert!(running.stop().success());
    });
}

#[test]
fn a_dead_letter_of_a_wildcard_says_its_topic() {
    with_shards("wildcard-dead-letter", |setup| {
        let running = setup.start();
        let mut consumer = connect_as(running.address(), "ada");
        attach(&mut consumer, "/topic/orders.*", &[ID, NAME, SINGLY], 0);
        let mut producer = connect(running.address());
        let mut dead = connect(running.address());
        attach(&mut dead, "/queue/DLQ", &[ID], 0);
        for country in COUNTRIES {
            send(&mut producer, &topic(country), &[], country);
            let message = next_message(&mut consumer);
            let nack = [("id", message.header("ack").unwrap()), ("requeue", "false")];
            ask(&mut consumer, "NACK", &nack);
            let letter = next_message(&mut dead);
            assert_eq!(text(&letter), country);
            let origin = format!("orders.{country}");
            assert_eq!(letter.header("_AMQ_ORIG_ADDRESS"), Some(&*origin));
        }
        assert!(running.stop().success());
    });
}

#[test]
fn a_full_wildcard_is_full_for_its_topics() {
    with_shards("wildcard-full", |setup| {
        setup.config += "[[address]]\nmatch = \"orders.*\"\nmax_size_messages = 2\n\
            address_full_policy = \"fail\"\n";
        let running = setup.start();
        let mut consumer = connect_as(running.address(), "ada");
        attach(&mut consumer, "/topic/orders.*", &[ID, NAME, SINGLY], 0);
        ask(&mut consumer, "DISCONNECT", &[]);
        let mut producer = connect(running.address());
        for body in ["1", "2"] {
            send(&mut producer, &topic("de"), &[], body);
        }
        let headers = [("destination", &*topic("de")), ("receipt", "r")];
        producer.send("SEND", &headers, b"3").unwrap();
        refused(producer, "full");
        let mut consumer = connect_as(running.address(), "ada");
        attach(&mut consumer, "/topic/orders.*", &[ID, NAME, SINGLY], 2);
        assert!(running.stop().success());
    });
}
