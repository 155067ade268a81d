//! Row 14: browsing a queue without taking anything from it.

use crate::{ask, browse, connect, next, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/browse";

#[test]
fn browse_sees_all_in_order_and_takes_nothing() {
    with_shards("browse", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        let mut browser = connect(address);
        assert!(browse(&mut browser, QUEUE, "empty").is_empty());
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
            assert_eq!(browse(&mut browser, QUEUE, id), expected);
        }
        // From the disk as well; what is in memory only goes with the process.
        running.kill();
        let running = setup.start();
        let address = running.address();
        let mut browser = connect(address);
        assert_eq!(browse(&mut browser, QUEUE, "again"), expected[..151]);
        // What somebody holds is not there to be looked at; given back it is again.
        let mut consumer = connect(address);
        let credit = ("activemq.prefetchSize", "2");
        subscribe(&mut consumer, QUEUE, &[("ack", "client"), credit]);
        let held = [next_message(&mut consumer), next_message(&mut consumer)];
        assert_eq!(held.map(|message| text(&message)), ["first", "0"]);
        assert_eq!(browse(&mut browser, QUEUE, "held"), expected[2..151]);
        ask(&mut consumer, "UNSUBSCRIBE", &[("id", "0")]);
        assert_eq!(browse(&mut browser, QUEUE, "back"), expected[..151]);
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
        assert_eq!(browse(&mut client, QUEUE, "b"), ["seen"]);
        ask(&mut client, "UNSUBSCRIBE", &[("id", "b")]);
        // It is not there any more.
        client.send("UNSUBSCRIBE", &[("id", "b")], b"").unwrap();
        assert_eq!(next(&mut client).command, "ERROR");
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
        ask(&mut consumer, "DISCONNECT", &[]);
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
        assert!(browse(&mut browser, QUEUE, "after").is_empty());
        assert!(running.stop().success());
    });
}
