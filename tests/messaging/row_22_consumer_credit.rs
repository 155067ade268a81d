//! Row 22: how much a consumer holds unsettled, in messages and in bytes.

use crate::broker::stomp::Client;
use crate::{connect, next, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/credit";

/// Sends numbered messages of about this many bytes.
fn fill(client: &mut Client, count: usize, size: usize) {
    for number in 0..count {
        send(client, QUEUE, &[], &format!("{number:0size$}"));
    }
}

/// Number of the message that another consumer gets: those before it are with the first.
fn first_left(other: &mut Client) -> usize {
    let headers = [("ack", "client-individual"), ("activemq.prefetchSize", "1")];
    subscribe(other, QUEUE, &headers);
    text(&next_message(other)).parse().unwrap()
}

#[test]
fn consumer_credit_in_messages_holds_no_more() {
    with_shards("credit-messages", |setup| {
        let running = setup.start();
        let address = running.address();
        fill(&mut connect(address), 10, 4);
        let (mut one, mut other) = (connect(address), connect(address));
        let headers = [
            ("ack", "client"),
            ("activemq.prefetchSize", "3"),
            ("receipt", "r"),
        ];
        subscribe(&mut one, QUEUE, &headers);
        let mut wanted = 3;
        // The receipt comes before the first message or among them.
        let mut first = next(&mut one);
        while first.command == "MESSAGE" {
            wanted -= 1;
            first = next(&mut one);
        }
        assert_eq!(first.header("receipt-id"), Some("r"));
        for _ in 0..wanted {
            next_message(&mut one);
        }
        assert_eq!(first_left(&mut other), 3);
        assert!(running.stop().success());
    });
}

#[test]
fn consumer_credit_in_bytes_holds_no_more_than_one_message_beyond() {
    for (window, expected) in [("10000", 3), ("8000", 2), ("1", 1), ("0", 1)] {
        with_shards(&format!("credit-bytes-{window}"), |setup| {
            let running = setup.start();
            let address = running.address();
            fill(&mut connect(address), 6, 4_000);
            let (mut one, mut other) = (connect(address), connect(address));
            let headers = [("ack", "client"), ("consumer-window-size", window)];
            subscribe(&mut one, QUEUE, &headers);
            let first = next_message(&mut one);
            assert_eq!(first_left(&mut other), expected, "{window}");
            for number in 1..expected {
                let body: usize = text(&next_message(&mut one)).parse().unwrap();
                assert_eq!(body, number);
            }
            // Acknowledged, they make room for as many bytes again.
            let id = first.header("ack").unwrap();
            one.send("ACK", &[("id", id)], b"").unwrap();
            next_message(&mut one);
            assert!(running.stop().success());
        });
    }
    with_shards("credit-bytes-wrong", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        subscribe(&mut client, QUEUE, &[("consumer-window-size", "-2")]);
        assert_eq!(
            next(&mut client).header("message"),
            Some("window malformed")
        );
        assert!(running.stop().success());
    });
}
