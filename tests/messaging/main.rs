//! The messaging model as a stock STOMP client meets it: one file per row of `features.md` 5.1, and
//! one for what is set for addresses. Each over a real broker, with one shard and with two, and
//! across kill -9 where it matters.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod address_settings;
#[path = "../broker/mod.rs"]
mod broker;
mod diverts;
mod fullness;
mod global_limits;
mod row_01_competing_consumers;
mod row_01_wildcards;
mod row_02_publish_subscribe;
mod row_03_durable_subscriptions;
mod row_04_shared_subscriptions;
mod row_05_selectors;
mod row_06_message_priority;
mod row_07_message_expiry;
mod row_08_dead_letters;
mod row_09_redelivery_limit;
mod row_10_redelivery_delay;
mod row_11_scheduled_delivery;
mod row_12_message_groups;
mod row_13_exclusive_consumers;
mod row_14_browse;
mod row_15_replay;
mod row_15_retroactive;
mod row_16_ring_and_last_value_queues;
mod row_17_refusals;
mod row_17_transactions;
mod row_19_duplicate_detection;
mod row_20_large_messages;
mod row_21_temporary_queues;
mod row_22_consumer_credit;
mod slow_consumers;

use broker::Setup;
use broker::dialog::{PATIENCE, ask, ask_with_body, connect, connect_as, next, next_message, text};
use broker::stomp::{Client, Frame};
use forebay::routing::shard_of;

/// Runs a scenario against brokers with one shard and with two.
fn with_shards(name: &str, scenario: impl Fn(&mut Setup)) {
    with_topics(name, |setup, _| scenario(setup));
}

/// The same, with two topics.
fn with_topics(name: &str, scenario: impl Fn(&mut Setup, [String; 2])) {
    with_shard_counts(name, |setup, shards| scenario(setup, topics(shards)));
}

/// The same, with the number of shards.
fn with_shard_counts(name: &str, scenario: impl Fn(&mut Setup, &str)) {
    for shards in ["1", "2"] {
        let folder = broker::fresh_folder(&format!("messaging-{name}-{shards}"));
        let mut setup = Setup::new(&folder.join("data"))
            .config("[journal]\nsegment_size = \"1MiB\"\n")
            .argument("--shards", shards);
        scenario(&mut setup, shards);
    }
}

/// How often a message was delivered, this time included; the first needs no header.
fn deliveries(message: &Frame) -> usize {
    let count = message.header("delivery-count");
    assert_eq!(
        count.is_some(),
        message.header("redelivered") == Some("true")
    );
    count.map_or(1, |count| count.parse().unwrap())
}

/// Two topics, on different shards where there are two.
fn topics(shards: &str) -> [String; 2] {
    addresses(shards, "news").map(|address| format!("/topic/{address}"))
}

/// Two addresses that begin like this, on different shards where there are two.
fn addresses(shards: &str, first: &str) -> [String; 2] {
    let shards = shards.parse().unwrap();
    [0, 1].map(|shard| {
        let mut names = (0..).map(|number| format!("{first}.{shard}.{number}"));
        let fits = |name: &String| shard_of(name.as_bytes(), shards).0 == shard % shards;
        names.find(fits).unwrap()
    })
}

/// Subscribes, with a receipt; the messages that come before or behind it are returned.
fn attach(
    client: &mut Client,
    destination: &str,
    headers: &[(&str, &str)],
    count: usize,
) -> Vec<Frame> {
    let own = [("destination", destination), ("receipt", "attached")];
    let headers = [&own[..], headers].concat();
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut frames: Vec<_> = (0..=count).map(|_| next(client)).collect();
    let receipt = frames.iter().position(|frame| frame.command == "RECEIPT");
    let receipt = receipt.unwrap_or_else(|| panic!("no receipt: {frames:?}"));
    frames.remove(receipt);
    frames
}

/// The next frame is an ERROR that says this; the connection is of no use any more.
fn refused(mut client: Client, said: &str) {
    let frame = next(&mut client);
    assert_eq!(frame.command, "ERROR", "{frame:?}");
    let all = format!("{frame:?} {}", text(&frame));
    assert!(all.contains(said), "{said:?} is not in {all}");
}

/// The bodies of the next messages.
fn bodies(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| text(&next_message(client))).collect()
}

/// Sends a durable message with these headers and waits for its receipt.
fn send(client: &mut Client, destination: &str, headers: &[(&str, &str)], body: &str) {
    let own = [("destination", destination), ("persistent", "true")];
    let headers = [&own[..], headers].concat();
    ask_with_body(client, "SEND", &headers, body);
}

fn subscribe(client: &mut Client, destination: &str, headers: &[(&str, &str)]) {
    let own = [("id", "0"), ("destination", destination)];
    let headers = [&own[..], headers].concat();
    client.send("SUBSCRIBE", &headers, b"").unwrap();
}

/// Everything a browser of this id sees up to its end.
fn browse(client: &mut Client, queue: &str, id: &str) -> Vec<String> {
    let headers = [("id", id), ("destination", queue), ("browser", "true")];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut seen = Vec::new();
    loop {
        let message = next_message(client);
        assert_eq!(message.header("subscription"), Some(id));
        assert_eq!(message.header("destination"), Some(queue));
        assert_eq!(message.header("ack"), None, "nothing to acknowledge");
        if message.header("browser") == Some("end") {
            assert_eq!(message.body, b"");
            return seen;
        }
        seen.push(text(&message));
    }
}
