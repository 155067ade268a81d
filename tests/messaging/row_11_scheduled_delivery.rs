//! Row 11: messages that are not delivered before their time.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::broker::process::wait_until;
use crate::{PATIENCE, ask, browse, connect, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/later";
const DELAY: &str = "AMQ_SCHEDULED_DELAY";
const TIME: &str = "AMQ_SCHEDULED_TIME";

#[allow(
    clippy::disallowed_methods,
    reason = "a schedule is a time of the wall clock"
)]
fn unix_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_millis()
}

#[test]
fn scheduled_delivery_waits_for_its_time_and_comes_in_that_order() {
    with_shards("later", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut consumer = connect(running.address());
        subscribe(&mut consumer, QUEUE, &[("ack", "auto")]);
        let start = unix_ms();
        let at = (start + 1500).to_string();
        send(&mut producer, QUEUE, &[(DELAY, "2500")], "third");
        send(&mut producer, QUEUE, &[(TIME, &at)], "second");
        send(&mut producer, QUEUE, &[], "first");
        for (body, after_ms) in [("first", 0), ("second", 1500), ("third", 2500)] {
            assert_eq!(text(&next_message(&mut consumer)), body);
            let passed = unix_ms() - start;
            assert!(passed >= after_ms, "{body} after {passed} ms");
        }
        // A time that is over is now, and so is no delay.
        send(&mut producer, QUEUE, &[(TIME, "1000000000000")], "over");
        send(&mut producer, QUEUE, &[(DELAY, "0")], "at once");
        for body in ["over", "at once"] {
            assert_eq!(text(&next_message(&mut consumer)), body);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn scheduled_delivery_survives_the_broker_and_is_not_seen_before() {
    with_shards("later-kill", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let soon = (unix_ms() + 2000).to_string();
        send(&mut producer, QUEUE, &[(TIME, &soon)], "soon");
        send(&mut producer, QUEUE, &[(DELAY, "3600000")], "in an hour");
        assert_eq!(browse(&mut producer, QUEUE, "b"), [""; 0]);
        running.kill();
        let running = setup.start();
        let mut browser = connect(running.address());
        wait_until(PATIENCE, "its time has come", || {
            let is_seen = browse(&mut browser, QUEUE, "b") == ["soon"];
            ask(&mut browser, "UNSUBSCRIBE", &[("id", "b")]);
            is_seen
        });
        assert!(unix_ms() >= soon.parse().unwrap());
        assert!(running.stop().success());
    });
}

#[test]
fn scheduled_delivery_of_what_expires_before_never_happens() {
    with_shards("later-expired", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let over = (unix_ms() + 200).to_string();
        let headers = [(DELAY, "600"), ("expires", &*over)];
        send(&mut producer, QUEUE, &headers, "too late");
        send(&mut producer, QUEUE, &[(DELAY, "900")], "behind it");
        let mut consumer = connect(running.address());
        subscribe(&mut consumer, QUEUE, &[("ack", "auto")]);
        assert_eq!(text(&next_message(&mut consumer)), "behind it");
        assert!(running.stop().success());
    });
}

#[test]
fn scheduled_delivery_says_what_it_does_not_understand() {
    with_shards("later-bad", |setup| {
        let running = setup.start();
        for (header, value) in [
            (DELAY, "soon"),
            (TIME, "-1"),
            ("AMQ_SCHEDULED_CRON", "* * * * *"),
            ("AMQ_SCHEDULED_PERIOD", "1000"),
        ] {
            let mut client = connect(running.address());
            let headers = [("destination", QUEUE), (header, value)];
            client.send("SEND", &headers, b"").unwrap();
            let error = crate::next(&mut client);
            assert_eq!(error.command, "ERROR", "{header}");
            assert!(text(&error).contains(header), "{}", text(&error));
        }
        assert!(running.stop().success());
    });
}
