//! Row 10: what failed waits before it comes again, longer each time, up to a cap.

use std::time::{Duration, Instant};

use crate::{ask, connect, deliveries, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/patient";
const CONFIG: &str = r##"
    [[address]]
    match = "patient"
    redelivery_delay_ms = 200
    redelivery_multiplier = 2.0
    max_redelivery_delay_ms = 500
    max_delivery_attempts = 4
"##;

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a delay is an amount of real time"
)]
fn redelivery_delay_grows_to_its_cap_while_others_pass() {
    with_shards("patient", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut client = connect(running.address());
        send(&mut client, QUEUE, &[], "poison");
        subscribe(&mut client, QUEUE, &[("ack", "client-individual")]);
        let mut since = Instant::now();
        for (attempt, least_ms) in [(1, 0), (2, 200), (3, 400), (4, 500)] {
            let message = next_message(&mut client);
            assert_eq!(
                (&*text(&message), deliveries(&message)),
                ("poison", attempt)
            );
            // The broker's clock for this counts whole milliseconds.
            let passed = since.elapsed() + Duration::from_millis(2);
            assert!(passed >= Duration::from_millis(least_ms), "{passed:?}");
            let id = message.header("ack").unwrap();
            since = Instant::now();
            ask(&mut client, "NACK", &[("id", id)]);
            if attempt < 4 {
                // It does not hold up what comes behind it.
                send(&mut client, QUEUE, &[], "passes");
                let passing = next_message(&mut client);
                assert_eq!(text(&passing), "passes");
                ask(
                    &mut client,
                    "ACK",
                    &[("id", passing.header("ack").unwrap())],
                );
            }
        }
        let mut reader = connect(running.address());
        subscribe(&mut reader, "/queue/DLQ", &[("ack", "auto")]);
        assert_eq!(text(&next_message(&mut reader)), "poison");
        assert!(running.stop().success());
    });
}

#[test]
fn redelivery_delay_goes_on_over_a_restart() {
    with_shards("patient-kill", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut client = connect(running.address());
        send(&mut client, QUEUE, &[], "poison");
        subscribe(&mut client, QUEUE, &[("ack", "client-individual")]);
        let message = next_message(&mut client);
        ask(
            &mut client,
            "NACK",
            &[("id", message.header("ack").unwrap())],
        );
        running.kill();
        let running = setup.start();
        let mut client = connect(running.address());
        subscribe(&mut client, QUEUE, &[("ack", "client-individual")]);
        let message = next_message(&mut client);
        assert_eq!((&*text(&message), deliveries(&message)), ("poison", 2));
        assert!(running.stop().success());
    });
}
