//! Start and stop: what is said, in which order things end, what the journal ends with.

use forebay_journal::format::Kind;
use nix::sys::signal::Signal;

use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::broker::{self, Setup};
use crate::{PATIENCE, disk, drain, receive, send, small, until_closed};

#[test]
fn signals_stop_it_in_order() {
    for (signal, shards) in [
        (Signal::SIGTERM, "1"),
        (Signal::SIGINT, "1"),
        (Signal::SIGTERM, "2"),
    ] {
        let mut setup =
            small(&format!("stop-{}-{shards}", signal.as_str())).argument("--shards", shards);
        let running = setup.start();
        let ready = running.ready_line().to_owned();
        assert_eq!(ready, format!("ready: stomp {}", running.address()));
        assert!(running.said().contains("new journal"), "{}", running.said());
        let mut idle = Client::connect(running.address()).unwrap();
        let mut client = Client::connect(running.address()).unwrap();
        for number in 0..20_u8 {
            let queue = format!("/queue/stop-{}", number % 4);
            send(&mut client, &queue, &[b'a' + number]);
        }
        running.signal(signal);
        let status = running.wait_exit();
        assert_eq!(status.code(), Some(0), "{signal}");
        let farewell = until_closed(&mut idle);
        assert_eq!(farewell.len(), 1, "{farewell:?}");
        assert_eq!(farewell[0].command, "ERROR");
        assert_eq!(farewell[0].header("message"), Some("broker is stopping"));
        let segments = disk::segments(&setup.data);
        let last = segments.last().unwrap();
        assert_eq!(
            last.records.last(),
            Some(&Kind::CleanShutdown),
            "{:?}",
            last.records
        );
        assert!(
            last.blocks.last().unwrap().is_idle_seal(),
            "an idle seal is behind it"
        );
        let running = setup.start();
        let said = running.said();
        assert!(said.contains(": stopped in order;"), "{said}");
        assert!(said.contains(" 20 messages"), "{said}");
        let kept = (0..4).map(|q| drain(running.address(), &format!("/queue/stop-{q}")).len());
        assert_eq!(kept.sum::<usize>(), 20);
    }
}

/// A stop while the first segment is still being filled: no `ready`, nothing left undone.
#[test]
fn a_signal_before_ready_stops_it_without_saying_ready() {
    for shards in ["1", "2"] {
        let folder = broker::fresh_folder(&format!("serve-early-{shards}"));
        // A second or more of zero-filling on any disk: the signal comes first.
        let slow = "[journal]\nsegment_size = \"4GiB\"\n";
        let setup = Setup::new(&folder.join("data"))
            .config(slow)
            .argument("--shards", shards);
        let starting = setup.spawn();
        wait_until(PATIENCE, "recovery's report", || {
            starting.said().contains("new journal")
        });
        starting.signal(Signal::SIGTERM);
        let ended = starting.wait_end();
        ended.expect(0, &["told to stop before clients could connect"]);
        // Given up, not finished first: its space is free, and the folder is one to start from.
        assert!(disk::segments(&setup.data).is_empty());
        let mut setup = Setup::new(&setup.data)
            .config("[journal]\nsegment_size = \"1MiB\"\n")
            .argument("--shards", shards);
        let running = setup.start();
        let mut client = Client::connect(running.address()).unwrap();
        send(&mut client, "/queue/early", b"after all");
        assert!(running.stop().success());
    }
}

/// What a client holds unsettled when the broker stops comes again, flagged; what it settled with
/// a receipt does not.
#[test]
fn a_stop_keeps_the_state_of_every_delivery() {
    let mut setup = small("state");
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    for body in ["settled", "held", "untouched"] {
        send(&mut client, "/queue/state", body.as_bytes());
    }
    let headers = [
        ("id", "0"),
        ("destination", "/queue/state"),
        ("ack", "client-individual"),
        ("activemq.prefetchSize", "2"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let (first, second) = (receive(&mut client), receive(&mut client));
    assert_eq!(
        (&first.body[..], &second.body[..]),
        (&b"settled"[..], &b"held"[..])
    );
    let id = first.header("ack").unwrap();
    client
        .send("ACK", &[("id", id), ("receipt", "acked")], b"")
        .unwrap();
    // The ACK makes room for the third, which comes before or after the receipt.
    let mut answers = vec![receive(&mut client), receive(&mut client)];
    answers.sort_by_key(|frame| frame.command == "MESSAGE");
    assert_eq!(
        answers[0].header("receipt-id"),
        Some("acked"),
        "{answers:?}"
    );
    assert!(running.stop().success());
    let running = setup.start();
    let left = drain(running.address(), "/queue/state");
    let told: Vec<_> = left
        .iter()
        .map(|f| {
            (
                String::from_utf8_lossy(&f.body).into_owned(),
                f.header("redelivered"),
            )
        })
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], ("held".to_owned(), Some("true")));
    assert_eq!(told[1].0, "untouched");
}

/// A shard that looks for work before it sleeps does all that one does that sleeps at once: what
/// comes from clients, from another shard and from its timers, and the stop.
#[test]
fn a_shard_that_spins_serves_and_stops_in_order() {
    for busy_poll_us in [50, 100_000] {
        let mut setup = small("spinning")
            .config(&format!("[node]\nbusy_poll_us = {busy_poll_us}\n"))
            .argument("--shards", "2");
        let running = setup.start();
        let mut client = Client::connect(running.address()).unwrap();
        for number in 0..20 {
            send(&mut client, &format!("/queue/spin-{number}"), b"x");
        }
        let headers = [
            ("destination", "/queue/spin-later"),
            ("AMQ_SCHEDULED_DELAY", "200"),
        ];
        client.send("SEND", &headers, b"later").unwrap();
        let headers = [("id", "0"), ("destination", "/queue/spin-later")];
        client.send("SUBSCRIBE", &headers, b"").unwrap();
        assert_eq!(receive(&mut client).body, b"later");
        for number in 0..20 {
            let left = drain(running.address(), &format!("/queue/spin-{number}"));
            assert_eq!(left.len(), 1, "queue {number}");
        }
        assert!(running.stop().success());
    }
}

#[test]
fn a_start_after_kill_tells_what_it_found() {
    let mut setup = small("found");
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    for body in ["a", "b", "c"] {
        send(&mut client, "/queue/found", body.as_bytes());
    }
    running.kill();
    let segments = disk::segments(&setup.data);
    let running = setup.start();
    let said = running.said();
    let line = said
        .lines()
        .find(|line| line.starts_with("data folder "))
        .unwrap();
    assert!(line.contains(": not stopped in order; "), "{line}");
    assert!(line.contains("1 queues, 3 messages"), "{line}");
    let number = |word: &str| {
        let words: Vec<_> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        let at = words.iter().position(|w| *w == word).unwrap();
        words[at - 1].parse::<usize>().unwrap()
    };
    let records: usize = segments.iter().map(|segment| segment.records.len()).sum();
    let blocks: usize = segments.iter().map(|segment| segment.blocks.len()).sum();
    assert_eq!(
        (number("records"), number("blocks")),
        (records, blocks),
        "{line}"
    );
    assert!(line.contains(" s; "), "no time in {line}");
    assert_eq!(drain(running.address(), "/queue/found").len(), 3);
}

#[test]
fn each_shard_tells_what_its_recovery_took() {
    let mut setup = small("took").argument("--shards", "2");
    let running = setup.start();
    let said = running.said();
    assert!(!said.contains("recovered in"), "a new journal: {said}");
    let mut client = Client::connect(running.address()).unwrap();
    for number in 0..40 {
        send(&mut client, &format!("/queue/took.{number}"), b"x");
    }
    running.kill();
    let segments = disk::segments(&setup.data);
    let said = setup.start().said();
    let took = |line: &&str| line.contains("recovered in ");
    let lines: Vec<_> = said.lines().filter(took).collect();
    let mut messages = 0;
    for (shard, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("shard {shard}: ")), "{said}");
        let number = |behind: &str| {
            let words: Vec<_> = line
                .split([' ', ';', ','])
                .filter(|w| !w.is_empty())
                .collect();
            let at = words.iter().position(|word| *word == behind).unwrap();
            words[at - 1].parse::<u64>().unwrap()
        };
        let replayed = number("were");
        if shard == 0 {
            // The one that is looked at.
            let blocks = segments.iter().flat_map(|segment| &segment.blocks);
            let lying: u64 = blocks.map(|block| u64::from(block.block_size)).sum();
            assert_eq!(replayed, lying, "{line}");
        }
        assert!(number("bytes") > replayed, "{line}");
        messages += number("messages");
    }
    assert_eq!((lines.len(), messages), (2, 40), "{said}");
}
