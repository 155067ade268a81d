//! A burst that outruns the preparation of segments slows producers, fails none, and is counted.

use super::broker::stomp::Client;
use super::scrape::Scrape;
use super::{send_many, setup};

const PRODUCERS: usize = 4;
const MESSAGES: usize = 160;
const SIZE: usize = 64 * 1024;

#[test]
fn producers_at_full_speed_wait_for_segments_and_none_fails() {
    // The least of everything: each segment is full after some sixteen messages.
    let config = "[journal]\nsegment_size = \"1MiB\"\nsegments_ready = 2\nprepare_rate = \"1MB\"\n";
    for shards in ["1", "2"] {
        let mut setup = setup("burst", shards, config);
        let broker = setup.start();
        let before = Scrape::of(&setup.data);
        assert_eq!(before.sum("forebay_segment_waits_total"), 0.0);
        let address = broker.address();
        let producers = (0..PRODUCERS).map(|number| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address).unwrap();
                send_many(
                    &mut client,
                    &format!("/queue/burst-{number}"),
                    MESSAGES,
                    SIZE,
                );
            })
        });
        let producers: Vec<_> = producers.collect();
        for producer in producers {
            producer.join().expect("every message of it was confirmed");
        }
        let scrape = Scrape::of(&setup.data);
        assert!(scrape.sum("forebay_segment_waits_total") > 0.0);
        assert!(scrape.sum("forebay_segment_wait_seconds_total") > 0.0);
        let sent = (PRODUCERS * MESSAGES) as f64;
        assert_eq!(scrape.sum("forebay_messages_received_total"), sent);
        assert_eq!(scrape.sum("forebay_send_to_receipt_seconds_count"), sent);
        assert_eq!(scrape.sum("forebay_refusals_total"), 0.0);
        assert!(broker.stop().success());
    }
}
