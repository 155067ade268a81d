//! Row 14: browsing a queue without taking anything from it.

use crate::broker::stomp::Client;
use crate::{connect, next, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/browse";

/// Everything a browser sees up to its end.
fn browse(client: &mut Client, id: &str) -> Vec<String> {
    let headers = [("id", id), ("destination", QUEUE), ("browser", "true")];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut seen = Vec::new();
    loop {
        let message = next_message(client);
        assert_eq!(message.header("subscription"), Some(id));
        assert_eq!(message.header("destination"), Some(QUEUE));
        assert_eq!(
            message.header("ack"),
            None,
            "a browser has nothing to acknowledge"
        );
        if message.header("browser") == Some("end") {
            assert_eq!(message.body, b"");
            return seen;
        }
        seen.push(text(&message));
    }
}

#[test]
fn browse_sees_all_in_order_and_takes_nothing() {
    with_shards("browse", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        let mut browser = connect(address);
        assert!(browse(&mut browser, "empty").is_empty());
        // More than a browser looks up at a time, and some of them first.
        let mut expected: Vec<_> = (0..150).map(|number| number.to_string()).collect();
        for body in &expected {
            send(&mut producer, QUEUE, &[], body);
        }
        send(&mut producer, QUEUE, &[("priority", "9")], "first");
        let headers = [("destination", QUEUE), ("priority", "0"), ("receipt", "r")];
        producer.send("SEND", &headers, b"last").unwrap();
        assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
        expected.insert(0, "first".to_owned());
        expected.push("last".to_owned());
        for id in ["one", "two"] {
            assert_eq!(browse(&mut browser, id), expected);
        }
        // From the disk as well; what is in memory only goes with the process.
        running.kill();
        let running = setup.start();
        let address = running.address();
        let mut browser = connect(address);
        assert_eq!(browse(&mut browser, "again"), expected[..151]);
        // What somebody holds is not there to be looked at; given back it is again.
        let mut consumer = connect(address);
        let credit = ("activemq.prefetchSize", "2");
        subscribe(&mut consumer, QUEUE, &[("ack", "client"), credit]);
        let held = [next_message(&mut consumer), next_message(&mut consumer)];
        assert_eq!(held.map(|message| text(&message)), ["first", "0"]);
        assert_eq!(browse(&mut browser, "held"), expected[2..151]);
        let headers = [("id", "0"), ("receipt", "gone")];
        consumer.send("UNSUBSCRIBE", &headers, b"").unwrap();
        assert_eq!(next(&mut consumer).header("receipt-id"), Some("gone"));
        assert_eq!(browse(&mut browser, "back"), expected[..151]);
        assert!(running.stop().success());
    });
}

#[test]
fn browse_can_end_early_and_is_refused_on_topics() {
    with_shards("browse-end", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        send(&mut client, QUEUE, &[], "seen");
        assert_eq!(browse(&mut client, "b"), ["seen"]);
        for receipt in ["left", "unknown"] {
            let headers = [("id", "b"), ("receipt", receipt)];
            client.send("UNSUBSCRIBE", &headers, b"").unwrap();
            let answer = next(&mut client);
            if receipt == "left" {
                assert_eq!(answer.header("receipt-id"), Some("left"));
            } else {
                assert_eq!(answer.command, "ERROR");
            }
        }
        let mut client = connect(address);
        subscribe(&mut client, "/topic/browse", &[("browser", "true")]);
        assert_eq!(
            next(&mut client).header("message"),
            Some("topics cannot be browsed")
        );
        assert!(running.stop().success());
    });
}

/// Large bodies, more than the output window holds, to a browser that reads while a consumer takes
/// the same messages away.
#[test]
fn browse_stands_messages_that_go_meanwhile() {
    with_shards("browse-race", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        let body = "x".repeat(60_000);
        for _ in 0..40 {
            send(&mut producer, QUEUE, &[], &body);
        }
        let mut browser = connect(address);
        let headers = [("id", "b"), ("destination", QUEUE), ("browser", "true")];
        browser.send("SUBSCRIBE", &headers, b"").unwrap();
        let first = next_message(&mut browser);
        assert_eq!(text(&first), body);
        let mut consumer = connect(address);
        subscribe(&mut consumer, QUEUE, &[("ack", "auto")]);
        for _ in 0..40 {
            assert_eq!(text(&next_message(&mut consumer)), body);
        }
        consumer
            .send("DISCONNECT", &[("receipt", "bye")], b"")
            .unwrap();
        assert_eq!(next(&mut consumer).header("receipt-id"), Some("bye"));
        let mut seen = 1;
        loop {
            let message = next_message(&mut browser);
            if message.header("browser") == Some("end") {
                break;
            }
            assert_eq!(text(&message), body);
            seen += 1;
        }
        assert!((1..=40).contains(&seen), "{seen}");
        assert!(browse(&mut browser, "after").is_empty());
        assert!(running.stop().success());
    });
}
