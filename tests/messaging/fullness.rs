//! Addresses that have as much as they may (features 2.4): block, fail, drop, page.

use crate::broker::stomp::Client;
use crate::{ask, browse, connect, next, next_message, send, subscribe, text, with_shards};

const CONFIG: &str = r##"
    [[address]]
    match = "block.#"
    max_size_messages = 3
    address_full_policy = "block"
    [[address]]
    match = "bytes"
    max_size_bytes = 100000
    address_full_policy = "block"
    [[address]]
    match = "fail"
    max_size_messages = 3
    address_full_policy = "fail"
    [[address]]
    match = "drop"
    max_size_messages = 3
    address_full_policy = "drop"
    [[address]]
    match = "page"
    max_size_messages = 3
"##;

/// Sends without waiting for the receipt.
pub(crate) fn begin(client: &mut Client, queue: &str, persistent: &str, body: &str) {
    let headers = [
        ("destination", queue),
        ("persistent", persistent),
        ("receipt", body.get(..1).unwrap()),
    ];
    client.send("SEND", &headers, body.as_bytes()).unwrap();
}

pub(crate) fn receipts(client: &mut Client, expected: &[&str]) {
    for receipt in expected {
        let frame = next(client);
        assert_eq!(frame.header("receipt-id"), Some(*receipt), "{frame:?}");
    }
}

/// Takes one message and acknowledges it.
pub(crate) fn take(consumer: &mut Client, queue: &str) -> String {
    let headers = [("ack", "client-individual"), ("prefetch-count", "1")];
    subscribe(consumer, queue, &headers);
    let message = next_message(consumer);
    ask(consumer, "ACK", &[("id", message.header("ack").unwrap())]);
    let body = text(&message);
    // With the acknowledgement the next may have been on its way.
    consumer
        .send("UNSUBSCRIBE", &[("id", "0"), ("receipt", "u")], b"")
        .unwrap();
    while next(consumer).header("receipt-id") != Some("u") {}
    body
}

#[test]
fn fullness_blocks_the_producer_and_nobody_else() {
    with_shards("full-block", |setup| {
        setup.config += CONFIG;
        let mut running = setup.start();
        for (number, persistent) in ["true", "false"].into_iter().enumerate() {
            let queue = &*format!("/queue/block.{number}");
            let mut producer = connect(running.address());
            for body in ["1", "2", "3", "4", "5"] {
                begin(&mut producer, queue, persistent, body);
            }
            receipts(&mut producer, &["1", "2", "3"]);
            // Others go on, on its queue too; what waits is not there.
            let mut other = connect(running.address());
            send(&mut other, "/queue/free", &[], "passes");
            assert_eq!(browse(&mut other, queue, "b"), ["1", "2", "3"]);
            assert_eq!(take(&mut other, queue), "1");
            receipts(&mut producer, &["4"]);
            assert_eq!(take(&mut other, queue), "2");
            receipts(&mut producer, &["5"]);
            assert_eq!(browse(&mut other, queue, "c"), ["3", "4", "5"]);
        }
        // What waited had no receipt and is gone with the broker.
        let mut producer = connect(running.address());
        begin(&mut producer, "/queue/block.0", "true", "lost");
        send(&mut connect(running.address()), "/queue/free", &[], "later");
        running.kill();
        running = setup.start();
        let mut client = connect(running.address());
        assert_eq!(browse(&mut client, "/queue/block.0", "b"), ["3", "4", "5"]);
        assert!(running.stop().success());
    });
}

#[test]
fn fullness_in_bytes_blocks_what_comes_in_pieces_and_expiry_makes_room() {
    with_shards("full-bytes", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let large = |name: &str| name.repeat(400_000);
        for persistent in ["true", "false"] {
            let mut producer = connect(running.address());
            for name in ["a", "b", "c"] {
                begin(&mut producer, "/queue/bytes", persistent, &large(name));
            }
            receipts(&mut producer, &["a"]);
            let mut other = connect(running.address());
            for (name, then) in [("a", "b"), ("b", "c")] {
                assert!(take(&mut other, "/queue/bytes") == large(name));
                receipts(&mut producer, &[then]);
            }
            assert!(take(&mut other, "/queue/bytes") == large("c"));
        }
        let mut producer = connect(running.address());
        for body in ["x", "y"] {
            send(&mut producer, "/queue/block.e", &[], body);
        }
        let soon = crate::row_07_message_expiry::from_now(std::time::Duration::from_millis(300));
        send(&mut producer, "/queue/block.e", &[("expires", &soon)], "z");
        // Nobody takes anything: the time that is over makes room.
        send(&mut producer, "/queue/block.e", &[], "after");
        let mut browser = connect(running.address());
        assert_eq!(
            browse(&mut browser, "/queue/block.e", "b"),
            ["x", "y", "after"]
        );
        assert!(running.stop().success());
    });
}

#[test]
fn fullness_fails_drops_or_pages_as_the_address_says() {
    with_shards("full-others", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut client = connect(running.address());
        for body in ["1", "2", "3", "4", "5"] {
            send(&mut client, "/queue/drop", &[], body);
            send(&mut client, "/queue/page", &[], body);
        }
        assert_eq!(browse(&mut client, "/queue/drop", "d"), ["1", "2", "3"]);
        assert_eq!(browse(&mut client, "/queue/page", "p").len(), 5);
        for body in ["1", "2", "3"] {
            send(&mut client, "/queue/fail", &[], body);
        }
        for body in ["4", &"4".repeat(200_000)] {
            let mut producer = connect(running.address());
            begin(&mut producer, "/queue/fail", "true", body);
            let error = next(&mut producer);
            assert_eq!(error.command, "ERROR");
            let details = text(&error);
            assert!(details.contains("address: fail"), "{details}");
            assert!(details.contains("address_full_policy"), "{details}");
        }
        assert_eq!(browse(&mut client, "/queue/fail", "f"), ["1", "2", "3"]);
        assert!(running.stop().success());
    });
}
