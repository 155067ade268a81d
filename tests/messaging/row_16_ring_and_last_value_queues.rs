//! Row 16: queues that hold so many messages and no more, and queues that hold the last message of
//! each key.

use crate::broker::stomp::Client;
use crate::{ask, browse, connect, next, next_message, send, subscribe, text, with_shards};

const RING: &str = "/queue/ring.a";
const LAST: &str = "/queue/last.a";
const CONFIG: &str = r##"
    [[address]]
    match = "ring.#"
    default_ring_size = 3
    [[address]]
    match = "last.#"
    default_last_value_key = "stock"
"##;

fn quote(client: &mut Client, stock: &str, price: &str) {
    send(client, LAST, &[("stock", stock)], price);
}

#[test]
fn ring_queues_drop_the_oldest_that_nobody_holds() {
    with_shards("ring", |setup| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let mut client = connect(running.address());
        for number in 0..10 {
            send(&mut client, RING, &[], &number.to_string());
        }
        assert_eq!(browse(&mut client, RING, "b"), ["7", "8", "9"]);
        running.kill();
        running = setup.start();
        let mut client = connect(running.address());
        let mut holder = connect(running.address());
        let headers = [("ack", "client-individual"), ("prefetch-count", "1")];
        subscribe(&mut holder, RING, &headers);
        let held = next_message(&mut holder);
        assert_eq!(text(&held), "7");
        send(&mut client, RING, &[("priority", "9")], "urgent");
        for number in 10..13 {
            send(&mut client, RING, &[], &number.to_string());
        }
        // Of low priority goes before others; what is held is not touched, and counts when it
        // comes back.
        assert_eq!(browse(&mut client, RING, "c"), ["urgent", "11", "12"]);
        ask(&mut holder, "ACK", &[("id", held.header("ack").unwrap())]);
        assert_eq!(text(&next_message(&mut holder)), "urgent");
        // The same for what is not durable.
        for body in ["a", "b", "c", "d"] {
            let headers = [("destination", "/queue/ring.b"), ("receipt", "r")];
            client.send("SEND", &headers, body.as_bytes()).unwrap();
            assert_eq!(next(&mut client).header("receipt-id"), Some("r"));
        }
        assert_eq!(browse(&mut client, "/queue/ring.b", "d"), ["b", "c", "d"]);
        assert!(running.stop().success());
    });
}

#[test]
fn last_value_queues_keep_the_last_of_each_key() {
    with_shards("last", |setup| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let mut client = connect(running.address());
        for (stock, price) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("b", "5")] {
            quote(&mut client, stock, price);
        }
        send(&mut client, LAST, &[], "no key");
        send(&mut client, LAST, &[], "none either");
        let left = ["3", "4", "5", "no key", "none either"];
        assert_eq!(browse(&mut client, LAST, "b"), left);
        running.kill();
        running = setup.start();
        let mut client = connect(running.address());
        assert_eq!(browse(&mut client, LAST, "b"), left);
        // Keys are known after a restart.
        quote(&mut client, "c", "6");
        assert_eq!(
            browse(&mut client, LAST, "c"),
            ["3", "5", "no key", "none either", "6"]
        );
        assert!(running.stop().success());
    });
}

#[test]
fn last_value_queues_leave_what_somebody_holds_until_it_comes_back() {
    with_shards("last-held", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut client = connect(running.address());
        let mut holder = connect(running.address());
        let headers = [("ack", "client-individual"), ("prefetch-count", "1")];
        for verdict in ["ACK", "NACK"] {
            quote(&mut client, "a", "old");
            subscribe(&mut holder, LAST, &headers);
            let held = next_message(&mut holder);
            assert_eq!(text(&held), "old");
            quote(&mut client, "a", "new");
            ask(&mut holder, verdict, &[("id", held.header("ack").unwrap())]);
            // Refused or not, what was replaced does not come again.
            let next = next_message(&mut holder);
            assert_eq!(text(&next), "new", "{verdict}");
            ask(&mut holder, "ACK", &[("id", next.header("ack").unwrap())]);
            ask(&mut holder, "UNSUBSCRIBE", &[("id", "0")]);
            assert_eq!(browse(&mut client, LAST, verdict), [""; 0]);
        }
        assert!(running.stop().success());
    });
}
