//! The scrubber in a running broker: K13.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::broker::Setup;
use super::broker::stomp::Client;
use super::scrape::Scrape;
use super::{consume, send_many, setup, wait_for};

const FAST: &str = "[journal]\nsegment_size = \"1MiB\"\nscrub_bytes_per_s = \"1GB\"\n\
                    [limits]\nblock_cache_size = \"3MiB\"\n";

/// The same where nothing moves: a message stays in the file that it came to.
const STILL: &str = "[journal]\nsegment_size = \"1MiB\"\nscrub_bytes_per_s = \"1GB\"\n\
                     relocation_budget_percent = 0\n[limits]\nblock_cache_size = \"3MiB\"\n";

/// Segment files of shard 0, oldest first.
fn segments(setup: &Setup) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for epoch in std::fs::read_dir(setup.data.join("journal")).unwrap() {
        let epoch = epoch.unwrap().path();
        if epoch.is_dir() {
            let files = std::fs::read_dir(epoch)
                .unwrap()
                .map(|file| file.unwrap().path());
            found
                .extend(files.filter(|file| file.to_string_lossy().contains("shard-000-segment-")));
        }
    }
    found.sort();
    found
}

/// Flips one bit of a file.
fn flip(path: &PathBuf, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    file.sync_all().unwrap();
}

fn rounds(setup: &Setup) -> f64 {
    Scrape::of(&setup.data).sum("forebay_scrub_rounds_total")
}

fn health(setup: &Setup) -> serde_json::Value {
    use std::io::{Read as _, Write as _};
    let mut stream =
        std::os::unix::net::UnixStream::connect(setup.data.join("admin.sock")).unwrap();
    stream
        .write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_named_and_the_broker_goes_on() {
    let mut setup = setup("flip", "1", FAST);
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).unwrap();
    send_many(&mut client, "/queue/kept", 100, 60_000);
    let before = rounds(&setup);
    wait_for("a clean round", || (rounds(&setup) > before).then_some(()));
    assert_eq!(
        Scrape::of(&setup.data).sum("forebay_scrub_damages_total"),
        0.0
    );
    let victim = segments(&setup)[1].clone();
    flip(&victim, 100_000);
    let damages = wait_for("the damage", || {
        let scrape = Scrape::of(&setup.data);
        (scrape.sum("forebay_damaged_blocks") > 0.0).then_some(scrape)
    });
    assert_eq!(damages.sum("forebay_scrub_damages_total"), 1.0);
    let health = health(&setup);
    assert_eq!(health["serving"], true);
    let named = &health["shards"][0]["damages"];
    assert_eq!(named.as_array().unwrap().len(), 1, "{named}");
    let (file, offset) = (
        named[0]["file"].as_str().unwrap(),
        named[0]["offset"].as_u64().unwrap(),
    );
    assert!(
        victim.ends_with(file.rsplit_once("journal/").unwrap().1),
        "{named}"
    );
    assert!(
        (4096..=100_000).contains(&offset) && offset % 4096 == 0,
        "{named}"
    );
    let from = named[0]["lsn_from"].as_u64().unwrap();
    assert!(from <= named[0]["lsn_upto"].as_u64().unwrap(), "{named}");
    // All that was sent is still there.
    assert!(named[0]["needed_records"].as_u64().unwrap() > 5, "{named}");
    let log = broker.log_tail();
    let line = log.lines().find(|line| line.contains("damaged: ")).unwrap();
    assert!(
        line.contains(file) && line.contains(&format!("byte {offset}")),
        "{line}"
    );
    assert!(line.contains(&format!("records {from} to ")), "{line}");
    // Said once, and clients are served.
    let before = rounds(&setup);
    wait_for("another round", || {
        (rounds(&setup) > before + 1.0).then_some(())
    });
    assert_eq!(broker.log_tail().matches("damaged: ").count(), 1);
    send_many(&mut client, "/queue/other", 10, 1000);
    assert_eq!(Scrape::of(&setup.data).sum("forebay_damaged_blocks"), 1.0);
}

#[test]
fn damage_is_forgotten_with_its_file() {
    let mut setup = setup("dead", "1", STILL);
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).unwrap();
    // One that stays holds its segment, though the others in it are consumed.
    send_many(&mut client, "/queue/pin", 1, 100);
    send_many(&mut client, "/queue/gone", 100, 60_000);
    consume(&mut client, "/queue/gone", 100);
    wait_for("all settled", || {
        let settled = Scrape::of(&setup.data).sum("forebay_messages_settled_total");
        (settled == 100.0).then_some(())
    });
    flip(&segments(&setup)[0], 300_000);
    wait_for("the damage", || {
        let damaged = Scrape::of(&setup.data).sum("forebay_damaged_blocks");
        (damaged == 1.0).then_some(())
    });
    let damage = &health(&setup)["shards"][0]["damages"][0];
    assert_eq!(damage["needed_records"], 1, "{damage}");
    // Clients are served, and when the file is freed nothing is left of it.
    let mut other = Client::connect(broker.address()).unwrap();
    consume(&mut other, "/queue/pin", 1);
    let scrape = wait_for("the file to be freed", || {
        let scrape = Scrape::of(&setup.data);
        (scrape.sum("forebay_damaged_blocks") == 0.0).then_some(scrape)
    });
    assert_eq!(scrape.sum("forebay_scrub_damages_total"), 1.0);
    assert!(broker.stop().success());
    drop(setup.start());
}

#[test]
fn a_sound_broker_under_load_with_recycling_reports_nothing() {
    for (shards, lives) in [("1", 3), ("2", 2)] {
        let mut setup = setup("sound", shards, FAST);
        for life in 0..lives {
            let broker = setup.start();
            let mut client = Client::connect(broker.address()).unwrap();
            let mut consumer = Client::connect(broker.address()).unwrap();
            let name = format!("/queue/stream-{life}");
            let begun = rounds(&setup);
            let mut sent = 0;
            while sent < 200 || (rounds(&setup) < begun + 3.0 && sent < 20_000) {
                send_many(&mut client, &name, 40, 50_000);
                sent += 40;
                if sent == 40 {
                    consume(&mut consumer, &name, 40);
                } else {
                    for _ in 0..40 {
                        let frame = consumer.receive(super::PATIENCE).unwrap();
                        assert_eq!(frame.unwrap().command, "MESSAGE");
                    }
                }
            }
            // What stays makes the next life read what this one wrote.
            send_many(&mut client, "/queue/kept", 30, 50_000);
            let before = rounds(&setup);
            wait_for("a round", || (rounds(&setup) > before).then_some(()));
            let scrape = Scrape::of(&setup.data);
            assert_eq!(
                scrape.sum("forebay_scrub_damages_total"),
                0.0,
                "{}",
                broker.log_tail()
            );
            assert!(scrape.sum("forebay_scrubbed_bytes_total") > 0.0);
            match life {
                0 => assert!(broker.stop().success()),
                _ => drop(broker.kill()),
            }
        }
    }
}

#[test]
fn at_rate_zero_nothing_is_read() {
    let off = "[journal]\nsegment_size = \"1MiB\"\nscrub_bytes_per_s = 0\n";
    let mut setup = setup("off", "1", off);
    let broker = setup.start();
    let mut client = Client::connect(broker.address()).unwrap();
    send_many(&mut client, "/queue/kept", 60, 60_000);
    let scrape = Scrape::of(&setup.data);
    assert_eq!(scrape.sum("forebay_scrubbed_bytes_total"), 0.0);
    assert_eq!(scrape.sum("forebay_scrub_rounds_total"), 0.0);
    assert!(broker.stop().success());
}
