//! What is scraped, against what clients did and what docs/operating.md lists.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;

use super::broker::dialog::{ask, ask_with_body};
use super::broker::stomp::Client;
use super::scrape::Scrape;
use super::{PATIENCE, consume, send_many, setup, wait_for};

const SMALL: &str = "[journal]\nsegment_size = \"1MiB\"\n[limits]\nblock_cache_size = \"3MiB\"\n";

/// Names in the table of docs/operating.md.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    #[allow(clippy::disallowed_methods, reason = "the document itself")]
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `forebay_"));
    rows.map(|row| format!("forebay_{}", row.split('`').next().unwrap()))
        .collect()
}

#[test]
fn every_documented_metric_is_scraped_under_load_and_the_reverse() {
    for shards in ["1", "2"] {
        let mut setup = setup("documented", shards, SMALL);
        let broker = setup.start();
        let mut producer = Client::connect(broker.address()).unwrap();
        send_many(&mut producer, "/queue/load", 200, 20_000);
        let address = broker.address();
        let load = std::thread::spawn(move || {
            let mut consumer = Client::connect(address).unwrap();
            consume(&mut consumer, "/queue/load", 200);
        });
        let scrape = Scrape::of(&setup.data);
        load.join().unwrap();
        let scraped: BTreeSet<String> = scrape.types.keys().cloned().collect();
        assert_eq!(documented(), scraped);
        let with_samples: BTreeSet<String> = scrape
            .samples
            .keys()
            .map(|name| scrape.family_of(name))
            .collect();
        assert_eq!(with_samples, scraped, "a name without a sample");
    }
}

#[test]
fn what_histograms_count_is_what_counters_and_clients_count() {
    for shards in ["1", "2"] {
        let mut setup = setup("sums", shards, SMALL);
        let broker = setup.start();
        let mut client = Client::connect(broker.address()).unwrap();
        // The first of a queue finds it made; all wait for their blocks.
        send_many(&mut client, "/queue/a", 300, 1000);
        send_many(&mut client, "/queue/b", 200, 30_000);
        let plain = [("destination", "/queue/a")];
        ask_with_body(&mut client, "SEND", &plain, "not persistent");
        let receipts = |scrape: &Scrape| scrape.sum("forebay_send_to_receipt_seconds_count");
        let scrape = wait_for("the last block", || {
            let scrape = Scrape::of(&setup.data);
            let is_idle = scrape.sum("forebay_blocks_in_flight") == 0.0;
            let has_sealed = scrape.sum("forebay_journal_idle_seals_total") > 0.0;
            (is_idle && has_sealed).then_some(scrape)
        });
        assert_eq!(receipts(&scrape), 500.0, "one for each persistent message");
        assert_eq!(scrape.sum("forebay_messages_received_total"), 501.0);
        assert_eq!(scrape.sum("forebay_messages"), 501.0);
        let blocks = scrape.sum("forebay_journal_blocks_total");
        assert_eq!(scrape.sum("forebay_block_write_seconds_count"), blocks);
        for name in [
            "forebay_send_to_receipt_seconds",
            "forebay_block_write_seconds",
        ] {
            assert!(scrape.sum(&format!("{name}_sum")) > 0.0);
            for shard in 0..shards.parse::<u16>().unwrap() {
                check_histogram(&scrape, name, shard);
            }
        }
        let listed: f64 = ["ready", "unsettled", "aside"]
            .map(|state| queue_messages(&scrape, state))
            .iter()
            .sum();
        assert_eq!(listed + scrape.sum("forebay_unlisted_messages"), 501.0);
        consume(&mut client, "/queue/a", 301);
        let settled = wait_for("all settled", || {
            let scrape = Scrape::of(&setup.data);
            (scrape.sum("forebay_messages_settled_total") == 301.0).then_some(scrape)
        });
        assert_eq!(settled.sum("forebay_messages_delivered_total"), 301.0);
        assert_eq!(settled.sum("forebay_messages"), 200.0);
        check_space(&scrape, &settled, shards);
    }
}

/// What came in is alive, then what was settled is dead; what was written is more than came in.
fn check_space(before: &Scrape, settled: &Scrape, shards: &str) {
    let (small, large) = (300.0 * 1000.0, 200.0 * 30_000.0);
    assert!(before.sum("forebay_journal_ingested_bytes_total") >= small + large);
    assert!(before.sum("forebay_journal_live_bytes") >= small + large);
    let live = settled.sum("forebay_journal_live_bytes");
    assert!((large..large + small).contains(&live), "{live} alive");
    let grown =
        settled.sum("forebay_journal_dead_bytes") - before.sum("forebay_journal_dead_bytes");
    assert!(grown >= small, "{grown} bytes died");
    assert_eq!(settled.sum("forebay_journal_rewritten_bytes_total"), 0.0);
    for shard in 0..shards.parse::<u16>().unwrap() {
        let of = |name: &str| settled.get(&format!("{name}{{shard=\"{shard}\"}}"));
        let written = of("forebay_journal_written_bytes_total");
        let ingested = of("forebay_journal_ingested_bytes_total");
        let ratio = of("forebay_write_amplification");
        let expected = if ingested > 0.0 {
            written / ingested
        } else {
            0.0
        };
        assert!((ratio - expected).abs() < 1e-6, "{ratio} is not {expected}");
        assert!(ingested == 0.0 || ratio > 1.0, "{ratio}");
    }
}

/// Classes rise, and the last one is all.
fn check_histogram(scrape: &Scrape, name: &str, shard: u16) {
    let labels = format!("shard=\"{shard}\"");
    let bucket = format!("{name}_bucket{{");
    let mut classes = Vec::new();
    for (sample, count) in &scrape.samples {
        let of_shard = sample.starts_with(&bucket) && sample.contains(&labels);
        if let Some((_, end)) = sample.split_once("le=\"").filter(|_| of_shard) {
            let end = end.split('"').next().unwrap();
            let bound = end.trim_start_matches('+').parse::<f64>();
            classes.push((bound.unwrap_or(f64::INFINITY), *count));
        }
    }
    classes.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert!(classes.len() > 10, "{classes:?}");
    assert!(classes.is_sorted_by_key(|(_, count)| *count), "{classes:?}");
    let last = classes.last().unwrap();
    assert_eq!(last.0, f64::INFINITY);
    assert_eq!(last.1, scrape.get(&format!("{name}_count{{{labels}}}")));
}

fn queue_messages(scrape: &Scrape, state: &str) -> f64 {
    let state = format!("state=\"{state}\"");
    let is_of = |(name, _): &(&String, &f64)| {
        name.starts_with("forebay_queue_messages{") && name.contains(&state)
    };
    scrape
        .samples
        .iter()
        .filter(is_of)
        .map(|(_, count)| count)
        .sum()
}

#[test]
fn queues_beyond_the_limit_are_summed() {
    let mut setup = setup("many", "1", SMALL);
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).unwrap();
    for number in 0..300 {
        send_many(&mut client, &format!("/queue/q\"{number}\\"), 1, 10);
    }
    let scrape = Scrape::of(&setup.data);
    assert_eq!(scrape.sum("forebay_queues"), 300.0);
    assert_eq!(scrape.sum("forebay_unlisted_queues"), 44.0);
    assert_eq!(scrape.sum("forebay_unlisted_messages"), 44.0);
    assert!(scrape.sum("forebay_unlisted_bytes") >= 440.0);
    assert_eq!(queue_messages(&scrape, "ready"), 256.0);
}

#[test]
fn what_went_wrong_is_counted() {
    let config = "[[address]]\nmatch = \"orders\"\ndead_letter_address = \"dead\"\n\
                  max_delivery_attempts = 2\n\
                  [[address]]\nmatch = \"short\"\nmax_size_messages = 1\n\
                  address_full_policy = \"fail\"\n";
    let mut setup = setup("wrong", "1", config);
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).unwrap();
    send_many(&mut client, "/queue/orders", 1, 10);
    let headers = [
        ("id", "0"),
        ("destination", "/queue/orders"),
        ("ack", "client"),
    ];
    ask(&mut client, "SUBSCRIBE", &headers);
    for attempt in 0..2 {
        let frame = client.receive(PATIENCE).unwrap().unwrap();
        assert_eq!(frame.command, "MESSAGE", "attempt {attempt}");
        let id = frame.header("ack").unwrap();
        client
            .send("NACK", &[("id", id), ("requeue", "true")], b"")
            .unwrap();
    }
    wait_for("the dead letter", || {
        let scrape = Scrape::of(&setup.data);
        (scrape.sum("forebay_messages_dead_lettered_total") == 1.0).then_some(())
    });
    let scrape = Scrape::of(&setup.data);
    assert_eq!(scrape.sum("forebay_messages_redelivered_total"), 1.0);
    let mut other = Client::connect(broker.address()).unwrap();
    send_many(&mut other, "/queue/short", 1, 10);
    let headers = [
        ("destination", "/queue/short"),
        ("persistent", "true"),
        ("receipt", "x"),
    ];
    other.send("SEND", &headers, b"one too many").unwrap();
    assert_eq!(other.receive(PATIENCE).unwrap().unwrap().command, "ERROR");
    let full = "forebay_refusals_total{shard=\"0\",reason=\"address_full\"}";
    let scrape = Scrape::of(&setup.data);
    assert_eq!(scrape.get(full), 1.0);
    assert_eq!(scrape.sum("forebay_protocol_errors_total"), 0.0);
    let mut wrong = Client::connect(broker.address()).unwrap();
    wrong.send("NONSENSE", &[], b"").unwrap();
    assert_eq!(wrong.receive(PATIENCE).unwrap().unwrap().command, "ERROR");
    let scrape = Scrape::of(&setup.data);
    assert_eq!(scrape.sum("forebay_protocol_errors_total"), 1.0);
    assert_eq!(scrape.sum("forebay_connections_accepted_total"), 3.0);
}

#[test]
fn a_listener_of_its_own_says_metrics_and_nothing_else() {
    let mut setup = setup("listener", "1", "[admin]\nmetrics = \"127.0.0.1:0\"\n");
    let broker = setup.start();
    let address = wait_for("the line", || {
        let log = broker.log_tail();
        let line = log
            .lines()
            .find_map(|line| line.strip_prefix("metrics: http://"))?;
        Some(line.strip_suffix("/metrics")?.to_owned())
    });
    let (status, scrape) = Scrape::over(&address, "GET /metrics");
    assert_eq!(status, 200);
    assert_eq!(scrape.get("forebay_shard_answers{shard=\"0\"}"), 1.0);
    for request in [
        "GET /v1/health",
        "GET /v1/queues",
        "DELETE /v1/queues/x",
        "GET /",
    ] {
        assert_eq!(Scrape::over(&address, request).0, 404, "{request}");
    }
    assert!(broker.stop().success());
}

#[test]
fn a_taken_port_for_metrics_is_refused_by_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let setup = setup("taken", "1", &format!("[admin]\nmetrics = \"{address}\"\n"));
    let Err(why) = setup.spawn().wait_ready() else {
        panic!("it started");
    };
    assert!(why.contains("exit status: 4"), "{why}");
    assert!(
        why.contains("admin.metrics") && why.contains(&address.to_string()),
        "{why}"
    );
}
