//! Consumers that are slower than their address wants while messages wait for them (features 2.5,
//! slow consumers): named in the log, or sent away.

use crate::broker::Broker;
use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::{PATIENCE, addresses, ask, ask_with_body, bodies, browse, connect, next};
use crate::{next_message, subscribe, text, with_shard_counts};

const CONFIG: &str = r##"
    [[address]]
    match = "warn.#"
    slow_consumer_threshold = 2
    slow_consumer_check_period_s = 1
    [[address]]
    match = "away.#"
    slow_consumer_threshold = 2
    slow_consumer_check_period_s = 1
    slow_consumer_policy = "disconnect"
"##;

/// Lines of the log about a slow consumer of this address.
fn warnings(running: &Broker, address: &str) -> Vec<String> {
    let (log, about) = (running.log_tail(), format!("address {address:?}"));
    let lines = log.lines().filter(|line| line.contains("slow consumer"));
    lines
        .filter(|line| line.contains(&about))
        .map(str::to_owned)
        .collect()
}

/// Waits until the log has so many of them.
fn wait_for_warnings(running: &Broker, address: &str, count: usize) -> Vec<String> {
    let what = format!("{count} warnings about {address}");
    wait_until(PATIENCE, &what, || {
        warnings(running, address).len() >= count
    });
    warnings(running, address)
}

fn put(client: &mut Client, queue: &str, persistent: &str, body: &str) {
    let headers = [("destination", queue), ("persistent", persistent)];
    ask_with_body(client, "SEND", &headers, body);
}

/// Three messages, and a consumer that takes one of them and answers nothing.
fn hold_one(running: &Broker, queue: &str, persistent: &str) -> Client {
    let mut producer = connect(running.address());
    for body in ["1", "2", "3"] {
        put(&mut producer, queue, persistent, body);
    }
    let mut consumer = connect(running.address());
    let headers = [("ack", "client-individual"), ("prefetch-count", "1")];
    subscribe(&mut consumer, queue, &headers);
    assert_eq!(text(&next_message(&mut consumer)), "1");
    consumer
}

#[test]
fn slow_consumers_are_named_in_the_log_each_period_and_keep_what_they_have() {
    with_shard_counts("slow-warn", |setup, shards| {
        setup.config += CONFIG;
        let running = setup.start();
        for address in addresses(shards, "warn") {
            let queue = format!("/queue/{address}");
            let mut slow = hold_one(&running, &queue, "true");
            // Beside it one that has all that it could have, and one with credit left.
            let idle = format!("/queue/{address}.idle");
            let mut idler = connect(running.address());
            subscribe(&mut idler, &idle, &[("ack", "client")]);
            put(&mut connect(running.address()), &idle, "true", "only");
            let found = wait_for_warnings(&running, &address, 2);
            for line in &found {
                assert!(line.contains("WARN"), "{line}");
                assert!(line.contains("connection forebay-"), "{line}");
                assert!(line.contains("subscription \"0\""), "{line}");
                assert!(line.contains("0.0 messages per second"), "{line}");
                assert!(!line.contains("disconnected"), "{line}");
            }
            assert!(warnings(&running, &format!("{address}.idle")).is_empty());
            ask(&mut slow, "UNSUBSCRIBE", &[("id", "0")]);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn slow_consumers_are_sent_away_and_their_messages_go_to_others() {
    with_shard_counts("slow-away", |setup, shards| {
        setup.config += CONFIG;
        let running = setup.start();
        for (address, persistent) in addresses(shards, "away").iter().zip(["true", "false"]) {
            let queue = format!("/queue/{address}");
            let mut slow = hold_one(&running, &queue, persistent);
            let error = next(&mut slow);
            assert_eq!(error.command, "ERROR", "{error:?}");
            assert_eq!(error.header("message"), Some("slow consumer"));
            let details = text(&error);
            for said in [address, "\"0\"", "0.0 messages", "slow_consumer_policy"] {
                assert!(details.contains(said), "{said} is not in {details}");
            }
            let lines = wait_for_warnings(&running, address, 1);
            assert!(lines[0].ends_with("disconnected"), "{lines:?}");
            let mut other = connect(running.address());
            assert_eq!(browse(&mut other, &queue, "b"), ["1", "2", "3"]);
            subscribe(&mut other, &queue, &[("prefetch-count", "9")]);
            assert_eq!(bodies(&mut other, 3), ["1", "2", "3"]);
            ask(&mut other, "UNSUBSCRIBE", &[("id", "0")]);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn slow_consumers_that_read_nothing_go_all_the_same() {
    with_shard_counts("slow-deaf", |setup, shards| {
        setup.config += CONFIG;
        let running = setup.start();
        for address in addresses(shards, "away") {
            let queue = format!("/queue/{address}");
            let large = "x".repeat(1 << 20);
            let mut producer = connect(running.address());
            for _ in 0..40 {
                put(&mut producer, &queue, "false", &large);
            }
            // More than sockets hold, and nobody reads it.
            let mut deaf = connect(running.address());
            subscribe(&mut deaf, &queue, &[("prefetch-count", "10")]);
            wait_for_warnings(&running, &address, 1);
            let mut other = connect(running.address());
            let headers = [("ack", "client"), ("prefetch-count", "100")];
            subscribe(&mut other, &queue, &headers);
            // What it held, and did not get, comes back.
            let is_back = |_| next_message(&mut other).header("redelivered") == Some("true");
            assert!((0..40).any(is_back));
            drop(deaf);
        }
        assert!(running.stop().success());
    });
}
