//! Row 9: a message is delivered so often and no more.

use crate::{ask, browse, connect, deliveries, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/limited";
const DEAD: &str = "/queue/DLQ";

#[test]
fn redelivery_limit_counts_what_failed_over_restarts_and_lost_connections() {
    with_shards("limit", |setup| {
        let mut running = setup.start();
        send(&mut connect(running.address()), QUEUE, &[], "poison");
        let mut attempt = 0;
        while attempt < 10 {
            attempt += 1;
            let mut consumer = connect(running.address());
            subscribe(&mut consumer, QUEUE, &[("ack", "client-individual")]);
            let message = next_message(&mut consumer);
            assert_eq!(deliveries(&message), attempt);
            match attempt % 3 {
                0 => {
                    let id = message.header("ack").unwrap();
                    ask(&mut consumer, "NACK", &[("id", id)]);
                    // It comes again at once, to whom it came before.
                    attempt += 1;
                    assert_eq!(deliveries(&next_message(&mut consumer)), attempt);
                }
                // The connection goes without a word.
                1 => drop(consumer),
                _ => {
                    running.kill();
                    running = setup.start();
                }
            }
        }
        let mut reader = connect(running.address());
        subscribe(&mut reader, DEAD, &[("ack", "auto")]);
        assert_eq!(text(&next_message(&mut reader)), "poison");
        assert_eq!(browse(&mut connect(running.address()), QUEUE, "b"), [""; 0]);
        assert!(running.stop().success());
    });
}

#[test]
fn redelivery_limit_takes_no_account_of_consumers_that_leave_in_order() {
    with_shards("limit-order", |setup| {
        let running = setup.start();
        send(&mut connect(running.address()), QUEUE, &[], "unread");
        for attempt in 1..=15 {
            let mut consumer = connect(running.address());
            subscribe(&mut consumer, QUEUE, &[("ack", "client-individual")]);
            let message = next_message(&mut consumer);
            assert_eq!(deliveries(&message), attempt);
            let (command, id) = if attempt % 2 == 0 {
                ("UNSUBSCRIBE", "0")
            } else {
                ("DISCONNECT", "")
            };
            ask(&mut consumer, command, &[("id", id)]);
        }
        assert_eq!(
            browse(&mut connect(running.address()), QUEUE, "b"),
            ["unread"]
        );
        assert!(running.stop().success());
    });
}

#[test]
fn redelivery_limit_does_not_hold_where_dead_letters_lie() {
    with_shards("limit-dead", |setup| {
        let running = setup.start();
        send(&mut connect(running.address()), DEAD, &[], "dead");
        let mut consumer = connect(running.address());
        subscribe(&mut consumer, DEAD, &[("ack", "client-individual")]);
        for _ in 0..25 {
            let message = next_message(&mut consumer);
            assert_eq!(text(&message), "dead");
            ask(
                &mut consumer,
                "NACK",
                &[("id", message.header("ack").unwrap())],
            );
        }
        assert!(running.stop().success());
    });
}
