//! Row 6: priorities 0 to 9, 4 where none is said; the highest first, and within one in order.

use crate::broker::stomp::Client;
use crate::{connect, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/priority";

/// Sends `priority-number` for each priority, in this order.
fn send_all(client: &mut Client, priorities: &[Option<u8>]) {
    for (number, priority) in priorities.iter().enumerate() {
        let body = format!("{}-{number}", priority.unwrap_or(4));
        let digit = priority.map(|priority| priority.to_string());
        let header = digit.as_deref().map(|digit| ("priority", digit));
        send(client, QUEUE, header.as_slice(), &body);
    }
}

fn take(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| text(&next_message(client))).collect()
}

#[test]
fn message_priority_orders_what_waits() {
    with_shards("priority", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        send_all(
            &mut client,
            &[Some(0), None, Some(9), Some(4), Some(7), Some(9), Some(0)],
        );
        let expected = ["9-2", "9-5", "7-4", "4-1", "4-3", "0-0", "0-6"];
        // The same order from the journal.
        running.kill();
        let running = setup.start();
        let mut client = connect(running.address());
        subscribe(&mut client, QUEUE, &[("ack", "client-individual")]);
        assert_eq!(take(&mut client, 7), expected);
        // Given back, they take their places again, and one that came meanwhile takes its own.
        drop(client);
        let mut client = connect(running.address());
        send_all(&mut client, &[Some(8)]);
        subscribe(&mut client, QUEUE, &[("ack", "auto")]);
        let expected = ["9-2", "9-5", "8-0", "7-4", "4-1", "4-3", "0-0", "0-6"];
        assert_eq!(take(&mut client, 8), expected);
        assert!(running.stop().success());
    });
}

#[test]
fn message_priority_lets_later_ones_pass_within_the_credit_of_a_consumer() {
    with_shards("priority-credit", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        send_all(&mut client, &[None, None, None]);
        subscribe(
            &mut client,
            QUEUE,
            &[("ack", "client"), ("activemq.prefetchSize", "1")],
        );
        let first = next_message(&mut client);
        assert_eq!(text(&first), "4-0");
        send_all(&mut client, &[Some(5), Some(1)]);
        let mut got = Vec::new();
        let mut ack = first.header("ack").unwrap().to_owned();
        for _ in 0..4 {
            client.send("ACK", &[("id", &ack)], b"").unwrap();
            let message = next_message(&mut client);
            ack = message.header("ack").unwrap().to_owned();
            got.push(text(&message));
        }
        assert_eq!(got, ["5-0", "4-1", "4-2", "1-1"]);
        assert!(running.stop().success());
    });
}
