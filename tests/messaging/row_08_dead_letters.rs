//! Row 8: messages that nobody can use go to the dead-letter address, which is there by default.

use crate::broker::Broker;
use crate::{
    ask, browse, connect, deliveries, next, next_message, send, subscribe, text, with_shards,
};

const QUEUE: &str = "/queue/orders";
const DEAD: &str = "/queue/DLQ";
/// Deliveries after which a message is dead, unless it is configured otherwise.
const ATTEMPTS: usize = 10;

/// Refuses the one message of the queue as often as it comes.
fn refuse_until_dead(running: &Broker, body: &str) {
    let mut consumer = connect(running.address());
    subscribe(&mut consumer, QUEUE, &[("ack", "client-individual")]);
    for attempt in 1..=ATTEMPTS {
        let message = next_message(&mut consumer);
        assert_eq!(text(&message), body);
        assert_eq!(deliveries(&message), attempt);
        ask(
            &mut consumer,
            "NACK",
            &[("id", message.header("ack").unwrap())],
        );
    }
}

#[test]
fn dead_letters_say_where_they_come_from_and_why() {
    with_shards("dead", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let headers = [("correlation-id", "7"), ("priority", "6")];
        send(&mut producer, QUEUE, &headers, "poison");
        refuse_until_dead(&running, "poison");
        let mut reader = connect(running.address());
        subscribe(&mut reader, DEAD, &[("ack", "client-individual")]);
        let dead = next_message(&mut reader);
        assert_eq!(text(&dead), "poison");
        for (header, value) in [
            ("destination", DEAD),
            ("correlation-id", "7"),
            ("priority", "6"),
            ("persistent", "true"),
            ("dead-letter-reason", "attempts-exceeded"),
            ("dead-letter-deliveries", "10"),
            ("_AMQ_ORIG_ADDRESS", "orders"),
            ("_AMQ_ORIG_QUEUE", "orders"),
            ("redelivered", "false"),
        ] {
            let found = dead.header(header);
            let is_absent = value == "false" && found.is_none();
            assert!(is_absent || found == Some(value), "{header}: {found:?}");
        }
        assert_eq!(browse(&mut connect(running.address()), QUEUE, "b"), [""; 0]);
        assert!(running.stop().success());
    });
}

#[test]
fn dead_letters_survive_the_broker_and_are_there_once() {
    with_shards("dead-kill", |setup| {
        let mut running = setup.start();
        let mut expected = Vec::new();
        for round in 0..4 {
            let body = format!("poison {round}");
            send(&mut connect(running.address()), QUEUE, &[], &body);
            refuse_until_dead(&running, &body);
            expected.push(body);
            // It may be on its way still.
            running.kill();
            running = setup.start();
        }
        let mut reader = connect(running.address());
        subscribe(&mut reader, DEAD, &[("ack", "auto")]);
        let mut seen: Vec<_> = (0..expected.len())
            .map(|_| text(&next_message(&mut reader)))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, expected);
        // What comes behind them comes next: none of them is there twice.
        send(&mut connect(running.address()), DEAD, &[], "last");
        assert_eq!(text(&next_message(&mut reader)), "last");
        assert!(running.stop().success());
    });
}

#[test]
fn dead_letters_of_any_size_and_of_memory_arrive_whole() {
    with_shards("dead-large", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let large: String = (0..200_000).map(|n| format!("{n:08},")).collect();
        send(&mut producer, QUEUE, &[], &large);
        refuse_until_dead(&running, &large);
        let headers = [("destination", QUEUE), ("receipt", "r")];
        let volatile = &large[..300_000];
        producer
            .send("SEND", &headers, volatile.as_bytes())
            .unwrap();
        assert_eq!(next(&mut producer).header("receipt-id"), Some("r"));
        refuse_until_dead(&running, volatile);
        let mut reader = connect(running.address());
        subscribe(&mut reader, DEAD, &[("ack", "auto")]);
        for (body, persistent) in [(&*large, Some("true")), (volatile, None)] {
            let dead = next_message(&mut reader);
            assert!(text(&dead) == body, "{} bytes", dead.body.len());
            assert_eq!(dead.header("persistent"), persistent);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn dead_letters_refused_for_good_go_at_once_where_their_address_says() {
    with_shards("dead-refused", |setup| {
        setup.config += r##"
            [[address]]
            match = "orders"
            dead_letter_address = "orders.dead"
            [[address]]
            match = "notes.#"
            dead_letter_address = ""
        "##;
        let running = setup.start();
        let mut client = connect(running.address());
        for queue in [QUEUE, "/queue/notes.a"] {
            send(&mut client, queue, &[], "refused");
            let headers = [("ack", "client-individual")];
            subscribe(&mut client, queue, &headers);
            let message = next_message(&mut client);
            let id = message.header("ack").unwrap();
            ask(&mut client, "NACK", &[("id", id), ("requeue", "false")]);
            ask(&mut client, "UNSUBSCRIBE", &[("id", "0")]);
            assert_eq!(browse(&mut connect(running.address()), queue, "b"), [""; 0]);
        }
        let mut reader = connect(running.address());
        subscribe(&mut reader, "/queue/orders.dead", &[("ack", "auto")]);
        let dead = next_message(&mut reader);
        assert_eq!(dead.header("dead-letter-reason"), Some("rejected"));
        assert_eq!(browse(&mut client, DEAD, "b"), [""; 0]);
        assert!(running.stop().success());
    });
}

#[test]
fn dead_letters_of_expired_messages_go_to_the_expiry_address() {
    with_shards("dead-expired", |setup| {
        setup.config += r##"
            [[address]]
            match = "#"
            expiry_address = "Expired"
        "##;
        let mut running = setup.start();
        let mut client = connect(running.address());
        let headers = [("expires", "1000000000000")];
        send(&mut client, QUEUE, &headers, "over");
        send(&mut client, QUEUE, &[], "for ever");
        running.kill();
        running = setup.start();
        let mut reader = connect(running.address());
        subscribe(&mut reader, "/queue/Expired", &[("ack", "auto")]);
        let expired = next_message(&mut reader);
        assert_eq!(text(&expired), "over");
        assert_eq!(expired.header("dead-letter-reason"), Some("expired"));
        assert_eq!(expired.header("_AMQ_ORIG_QUEUE"), Some("orders"));
        assert_eq!(browse(&mut reader, QUEUE, "b"), ["for ever"]);
        assert!(running.stop().success());
    });
}
