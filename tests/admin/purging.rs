//! Purge.

use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::*;

#[test]
fn a_purge_leaves_what_consumers_hold_and_nothing_else_also_over_a_kill() {
    with_shards("purge", |setup| {
        let broker = setup.start();
        let mut client = connect(broker.address());
        let mut consumer = connect(broker.address());
        subscribe(&mut consumer, "/queue/q", "2");
        send(&mut client, "/queue/q", &["one", "two", "three", "four"]);
        let volatile = [("destination", "/queue/q")];
        ask_with_body(&mut client, "SEND", &volatile, "in memory");
        let delayed = [
            ("destination", "/queue/q"),
            ("persistent", "true"),
            ("AMQ_SCHEDULED_DELAY", "900000"),
        ];
        ask_with_body(&mut client, "SEND", &delayed, "later");
        let (one, two) = (next_message(&mut consumer), next_message(&mut consumer));
        assert_eq!(counts(setup, "q"), [3, 2, 1, 1]);
        let said = queue(setup, &["purge", "q"]);
        assert_eq!(
            (said.code, said.out.as_str()),
            (0, "q: 4 messages dropped\n")
        );
        assert_eq!(counts(setup, "q"), [0, 2, 0, 1]);
        acknowledge(&mut consumer, &one);
        assert_eq!(text(&two), "two");
        assert_eq!(json(setup, &["purge", "q"])["purged"], 0);
        broker.kill();
        let broker = setup.start();
        assert_eq!(counts(setup, "q"), [1, 0, 0, 0]);
        let mut consumer = connect(broker.address());
        subscribe(&mut consumer, "/queue/q", "2");
        let again = next_message(&mut consumer);
        assert_eq!(
            (text(&again), again.header("redelivered")),
            ("two".into(), Some("true"))
        );
        assert_silent(&mut consumer);
    });
}

/// Whether anything of an answer is there.
fn is_answered(stream: &UnixStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
}

/// Messages of the large purge.
const MANY: usize = 100_000;

#[test]
fn a_purge_of_many_messages_does_not_hold_up_others() {
    with_shards("purge-many", |setup| {
        let broker = setup.start();
        let mut client = connect(broker.address());
        for number in 1..=MANY {
            let receipt = number.to_string();
            let mut headers = vec![("destination", "/queue/q"), ("persistent", "true")];
            if number.is_multiple_of(1000) {
                headers.push(("receipt", &receipt));
            }
            client.queue(&Frame::new("SEND", &headers, b"0123456789"));
            if number.is_multiple_of(1000) {
                client.flush().unwrap();
                assert_eq!(next(&mut client).header("receipt-id"), Some(&*receipt));
            }
        }
        assert_eq!(counts(setup, "q"), [MANY as u64, 0, 0, 0]);
        let purge = begin_http(&setup.data, "POST /v1/queues/q/purge");
        let mut rounds = 0;
        while !is_answered(&purge) {
            // The same queue: the same shard.
            send(&mut client, "/queue/q", &["meanwhile"]);
            rounds += 1;
        }
        assert!(rounds >= 3, "only {rounds} went between");
        let (status, body) = end_http(purge);
        let body: Value = serde_json::from_str(&body).unwrap();
        let purged = body["purged"].as_u64().unwrap();
        // What was there when it began, however many came before that.
        let all = MANY as u64 + rounds;
        assert!(
            status == 200 && (MANY as u64..all).contains(&purged),
            "{body}"
        );
        let left = all - purged;
        assert_eq!(counts(setup, "q"), [left, 0, 0, 0]);
        broker.kill();
        let _broker = setup.start();
        assert_eq!(counts(setup, "q"), [left, 0, 0, 0], "durable");
    });
}

#[test]
fn a_purge_makes_room_for_those_who_wait_for_memory() {
    with_shards("purge-memory", |setup| {
        let limits = "[limits]\nvolatile_size_max = \"1MiB\"\nmessage_size_max = \"256KiB\"\n";
        *setup = setup.clone().config(limits);
        let broker = setup.start();
        let mut client = connect(broker.address());
        let body = "x".repeat(200 * 1024);
        for _ in 0..12 {
            let headers = [("destination", "/queue/q")];
            client.queue(&Frame::new("SEND", &headers, body.as_bytes()));
        }
        let behind = [("destination", "/queue/q"), ("receipt", "behind")];
        client.queue(&Frame::new("SEND", &behind, b"last"));
        client.flush().unwrap();
        let mut purged = 0;
        while purged < 12 {
            purged += json_or_zero(setup);
        }
        assert_eq!(next(&mut client).header("receipt-id"), Some("behind"));
    });
}

/// Messages that a purge drops; none if the queue is not there yet.
fn json_or_zero(setup: &Setup) -> u64 {
    let said = queue(setup, &["purge", "q", "--json"]);
    if said.code == REFUSED {
        return 0;
    }
    let done: Value = serde_json::from_str(&said.out).unwrap();
    done["purged"].as_u64().unwrap()
}
