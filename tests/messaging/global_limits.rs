//! Limits over all addresses (features 2.4, `global-max-size`, `global-max-messages`): each address
//! does what its policy says, and room on one shard wakes who waits on another.

use crate::broker::stomp::Client;
use crate::fullness::{begin, receipts, take};
use crate::{addresses, browse, connect, next, send, text, with_shard_counts};

const CONFIG: &str = r##"
    [[address]]
    match = "block.#"
    address_full_policy = "block"
    [[address]]
    match = "fail.#"
    address_full_policy = "fail"
    [[address]]
    match = "drop.#"
    address_full_policy = "drop"
    [limits]
"##;

fn queues(shards: &str, first: &str) -> [String; 2] {
    addresses(shards, first).map(|address| format!("/queue/{address}"))
}

/// A node that is full says so, on the shard of each of these queues. Then every shard knows that
/// none of the others has room.
fn check_full(address: std::net::SocketAddr, queues: &[String; 2], key: &str) {
    for queue in queues {
        let mut producer = connect(address);
        begin(&mut producer, queue, "true", "refused");
        let error = next(&mut producer);
        assert_eq!(error.command, "ERROR", "{error:?}");
        let details = text(&error);
        assert!(details.contains(key), "{details}");
    }
}

fn send_all(client: &mut Client, queue: &str, bodies: &[&str]) {
    for body in bodies {
        send(client, queue, &[], body);
    }
}

#[test]
fn fullness_of_the_node_is_met_as_each_address_says() {
    with_shard_counts("full-node", |setup, shards| {
        setup.config += CONFIG;
        setup.config += "global_max_size_messages = 6\n";
        let [one, other] = queues(shards, "block");
        let failing = queues(shards, "fail");
        let running = setup.start();
        let mut client = connect(running.address());
        send_all(&mut client, &one, &["1", "2", "3", "4"]);
        send_all(&mut client, &other, &["5", "6"]);
        check_full(running.address(), &failing, "global_max_size_messages");
        for queue in queues(shards, "drop") {
            send(&mut client, &queue, &[], "dropped");
            assert!(browse(&mut client, &queue, &queue).is_empty());
        }
        // On either shard a producer waits for room that comes on the other.
        for (full, freed, body) in [(&other, &one, "7"), (&one, &other, "8")] {
            let mut producer = connect(running.address());
            begin(&mut producer, full, "true", body);
            assert!(!browse(&mut client, full, body).contains(&body.to_owned()));
            take(&mut client, freed);
            receipts(&mut producer, &[body]);
        }
        // What pages is taken, and counts.
        send(&mut client, "/queue/page", &[], "9");
        let mut producer = connect(running.address());
        begin(&mut producer, &one, "false", "a");
        take(&mut client, &other);
        check_full(running.address(), &failing, "global_max_size_messages");
        take(&mut client, "/queue/page");
        receipts(&mut producer, &["a"]);
        take(&mut client, &other);
        running.kill();
        found_after_kill(setup, shards);
    });
}

/// What is found in the journal counts, on whatever shard it is.
fn found_after_kill(setup: &mut crate::broker::Setup, shards: &str) {
    let [one, other] = queues(shards, "block");
    let running = setup.start();
    let mut client = connect(running.address());
    let left: usize = [&one, &other]
        .map(|queue| browse(&mut client, queue, queue).len())
        .iter()
        .sum();
    // The one that was not persistent is gone.
    assert_eq!(left, 4);
    send_all(&mut client, &other, &["b", "c"]);
    let failing = queues(shards, "fail");
    check_full(running.address(), &failing, "global_max_size_messages");
    running.kill();
    let running = setup.start();
    check_full(running.address(), &failing, "global_max_size_messages");
    let mut client = connect(running.address());
    let mut producer = connect(running.address());
    begin(&mut producer, &other, "true", "d");
    take(&mut client, &one);
    receipts(&mut producer, &["d"]);
    assert!(running.stop().success());
}

#[test]
fn fullness_of_the_node_in_bytes_blocks_what_comes_in_pieces() {
    with_shard_counts("full-node-bytes", |setup, shards| {
        setup.config += CONFIG;
        setup.config += "global_max_size_bytes = \"100KB\"\n";
        let [one, other] = queues(shards, "block");
        let failing = queues(shards, "fail");
        let running = setup.start();
        let large = |name: &str| name.repeat(400_000);
        let mut client = connect(running.address());
        for persistent in ["true", "false"] {
            let mut producer = connect(running.address());
            begin(&mut producer, &one, persistent, &large("a"));
            receipts(&mut producer, &["a"]);
            check_full(running.address(), &failing, "global_max_size_bytes");
            begin(&mut producer, &other, persistent, &large("b"));
            assert!(browse(&mut client, &other, persistent).is_empty());
            assert!(take(&mut client, &one) == large("a"));
            receipts(&mut producer, &["b"]);
            assert!(take(&mut client, &other) == large("b"));
        }
        assert!(running.stop().success());
    });
}
