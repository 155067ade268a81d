//! Row 19: a message that its producer sends again is taken once, also across a restart.

use crate::broker::stomp::Client;
use crate::{ask, browse, connect, next, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/once";
const ID: &str = "_AMQ_DUPL_ID";

fn drain(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| text(&next_message(client))).collect()
}

#[test]
fn duplicate_detection_confirms_again_and_stores_once() {
    with_shards("once", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        for body in ["first", "first again"] {
            send(&mut producer, QUEUE, &[(ID, "a")], body);
        }
        send(&mut producer, QUEUE, &[(ID, "b")], "second");
        // Known elsewhere, not here: each address has its own.
        send(&mut producer, "/queue/other", &[(ID, "a")], "other");
        let mut consumer = connect(running.address());
        subscribe(&mut consumer, QUEUE, &[("ack", "auto")]);
        assert_eq!(drain(&mut consumer, 2), ["first", "second"]);
        // Consumed is seen as well.
        send(&mut producer, QUEUE, &[(ID, "a")], "first, late");
        send(&mut producer, QUEUE, &[], "third");
        assert_eq!(drain(&mut consumer, 1), ["third"]);
        assert_eq!(browse(&mut producer, "/queue/other", "b"), ["other"]);
        assert!(running.stop().success());
    });
}

#[test]
fn duplicate_detection_survives_the_broker_though_the_segments_of_the_ids_are_freed() {
    // Segments of 1 MiB: more than their number goes through the queue.
    const MESSAGES: usize = 400;
    with_shards("once-kill", |setup| {
        let mut running = setup.start();
        let body = "x".repeat(32 * 1024);
        for round in 0..2 {
            let mut producer = connect(running.address());
            let mut consumer = connect(running.address());
            subscribe(&mut consumer, QUEUE, &[("ack", "auto")]);
            for number in 0..MESSAGES {
                let id = format!("m-{number}");
                send(&mut producer, QUEUE, &[(ID, &id)], &body);
                if round == 0 {
                    next_message(&mut consumer);
                }
            }
            send(&mut producer, QUEUE, &[], "end of the round");
            assert_eq!(drain(&mut consumer, 1), ["end of the round"]);
            running.kill();
            running = setup.start();
        }
        assert!(running.stop().success());
    });
}

#[test]
fn duplicate_detection_holds_for_topics_and_for_parts_of_large_messages() {
    with_shards("once-large", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut listener = connect(running.address());
        let topic = "/topic/once";
        subscribe(&mut listener, topic, &[("receipt", "s")]);
        assert_eq!(next(&mut listener).header("receipt-id"), Some("s"));
        let large = "y".repeat(700_000);
        for destination in [topic, QUEUE] {
            for _ in 0..3 {
                send(&mut producer, destination, &[(ID, "large")], &large);
            }
            send(&mut producer, destination, &[(ID, "small")], "small");
        }
        assert!(drain(&mut listener, 2) == [large.as_str(), "small"]);
        assert!(browse(&mut producer, QUEUE, "b") == [large.as_str(), "small"]);
        for id in ["", &"z".repeat(2000)] {
            let mut client = connect(running.address());
            let headers = [("destination", QUEUE), (ID, id)];
            client.send("SEND", &headers, b"").unwrap();
            let error = next(&mut client);
            assert!(text(&error).contains(ID), "{error:?}");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn duplicate_detection_knows_what_a_transaction_brought_once_that_commits() {
    with_shards("once-transaction", |setup| {
        let mut running = setup.start();
        let in_transaction = |client: &mut Client, id: &str, body: &str| {
            ask(client, "BEGIN", &[("transaction", "t")]);
            let headers = [(ID, id), ("transaction", "t")];
            send(client, QUEUE, &headers, body);
        };
        // A connection is lost with its transaction open; its client sends again elsewhere. Until
        // the broker notices, both are there: the second must not count as the first.
        let mut lost = connect(running.address());
        in_transaction(&mut lost, "a", "of the lost one");
        let mut again = connect(running.address());
        send(&mut again, QUEUE, &[(ID, "a")], "a");
        drop(lost);
        in_transaction(&mut again, "b", "b");
        ask(&mut again, "COMMIT", &[("transaction", "t")]);
        running.kill();
        running = setup.start();
        let mut again = connect(running.address());
        for id in ["a", "b"] {
            send(&mut again, QUEUE, &[(ID, id)], "known");
        }
        assert_eq!(browse(&mut again, QUEUE, "b"), ["a", "b"]);
        assert!(running.stop().success());
    });
}

#[test]
fn duplicate_detection_forgets_with_the_process_where_it_is_told_to() {
    with_shards("once-volatile", |setup| {
        setup.config += r##"
            [[address]]
            match = "forgetful.#"
            persist_id_cache = false
        "##;
        let forgetful = "/queue/forgetful.a";
        let running = setup.start();
        let mut producer = connect(running.address());
        for queue in [forgetful, QUEUE] {
            send(&mut producer, queue, &[(ID, "a")], "first");
            send(&mut producer, queue, &[(ID, "a")], "again");
            ask(&mut producer, "BEGIN", &[("transaction", "t")]);
            let headers = [
                ("destination", queue),
                ("persistent", "true"),
                ("transaction", "t"),
                (ID, "b"),
            ];
            producer.send("SEND", &headers, b"in it").unwrap();
            ask(&mut producer, "COMMIT", &[("transaction", "t")]);
            send(&mut producer, queue, &[(ID, "b")], "in it again");
            let seen = browse(&mut connect(running.address()), queue, "b");
            assert_eq!(seen, ["first", "in it"]);
        }
        running.kill();
        let running = setup.start();
        let mut producer = connect(running.address());
        for queue in [forgetful, QUEUE] {
            send(&mut producer, queue, &[(ID, "a")], "first, late");
            send(&mut producer, queue, &[(ID, "b")], "in it, late");
        }
        let late = ["first", "in it", "first, late", "in it, late"];
        assert_eq!(browse(&mut producer, forgetful, "b"), late);
        assert_eq!(browse(&mut producer, QUEUE, "c"), ["first", "in it"]);
        // Dead letters are there once all the same.
        let mut consumer = connect(running.address());
        subscribe(&mut consumer, forgetful, &[("ack", "client")]);
        let message = next_message(&mut consumer);
        let id = message.header("ack").unwrap();
        let refuse = [("id", id), ("requeue", "false")];
        consumer.send("NACK", &refuse, b"").unwrap();
        let mut reader = connect(running.address());
        subscribe(&mut reader, "/queue/DLQ", &[("ack", "auto")]);
        assert_eq!(drain(&mut reader, 1), ["first"]);
        assert!(running.stop().success());
    });
}
