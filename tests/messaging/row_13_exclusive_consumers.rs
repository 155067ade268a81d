//! Row 13: exclusive consumers, and consumers with a priority.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::broker::stomp::{Client, Frame};
use crate::{ask, connect, next, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/exclusive";

/// A connection with an attached consumer, and messages that came ahead of a receipt.
struct Consumer {
    client: Client,
    ahead: VecDeque<Frame>,
}

impl Consumer {
    fn attach(address: SocketAddr, headers: &[(&str, &str)]) -> Self {
        let mut client = connect(address);
        let own = [("ack", "client-individual"), ("receipt", "attached")];
        subscribe(&mut client, QUEUE, &[&own[..], headers].concat());
        assert_eq!(next(&mut client).header("receipt-id"), Some("attached"));
        let ahead = VecDeque::new();
        Self { client, ahead }
    }

    fn next_message(&mut self) -> Frame {
        let ahead = self.ahead.pop_front();
        ahead.unwrap_or_else(|| next_message(&mut self.client))
    }

    /// Acknowledges a message and waits until that is done.
    fn ack(&mut self, message: &Frame) {
        let id = message.header("ack").unwrap();
        let headers = [("id", id), ("receipt", "acked")];
        self.client.send("ACK", &headers, b"").unwrap();
        loop {
            let frame = next(&mut self.client);
            if frame.header("receipt-id") == Some("acked") {
                return;
            }
            assert_eq!(frame.command, "MESSAGE", "{frame:?}");
            self.ahead.push_back(frame);
        }
    }

    /// Takes a message and acknowledges it; returns its body.
    fn take(&mut self) -> String {
        let message = self.next_message();
        self.ack(&message);
        text(&message)
    }
}

#[test]
fn exclusive_consumers_are_served_alone_and_in_turn() {
    with_shards("exclusive", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        let mut plain = Consumer::attach(address, &[]);
        send(&mut producer, QUEUE, &[], "for anybody");
        assert_eq!(plain.take(), "for anybody");
        let exclusive = [("activemq.exclusive", "true")];
        let mut first = Consumer::attach(address, &exclusive);
        let mut second = Consumer::attach(address, &exclusive);
        for number in 0..4 {
            send(&mut producer, QUEUE, &[], &number.to_string());
        }
        assert_eq!([first.take(), first.take()], ["0", "1"]);
        let held = first.next_message();
        assert_eq!(text(&held), "2");
        // The next in line goes on in order, from what the first held; nobody else got any.
        drop(first);
        assert_eq!([second.take(), second.take()], ["2", "3"]);
        // With the last exclusive one gone the others are served again.
        ask(&mut second.client, "UNSUBSCRIBE", &[("id", "0")]);
        send(&mut producer, QUEUE, &[], "for anybody again");
        assert_eq!(plain.take(), "for anybody again");
        assert!(running.stop().success());
    });
}

#[test]
fn consumer_priority_serves_the_highest_with_credit_first() {
    with_shards("consumer-priority", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut producer = connect(address);
        let one = ("activemq.prefetchSize", "1");
        let mut low = Consumer::attach(address, &[("consumer-priority", "-1"), one]);
        let mut high = Consumer::attach(address, &[("activemq.priority", "5"), one]);
        send(&mut producer, QUEUE, &[], "0");
        send(&mut producer, QUEUE, &[], "1");
        let first = high.next_message();
        assert_eq!(text(&first), "0");
        // The high one has no credit left.
        assert_eq!(low.take(), "1");
        high.ack(&first);
        for number in 2..6 {
            send(&mut producer, QUEUE, &[], &number.to_string());
            assert_eq!(high.take(), number.to_string());
        }
        let mut wrong = connect(address);
        subscribe(&mut wrong, QUEUE, &[("activemq.priority", "high")]);
        let refused = next(&mut wrong);
        assert_eq!(
            refused.header("message"),
            Some("consumer priority malformed")
        );
        assert!(running.stop().success());
    });
}
