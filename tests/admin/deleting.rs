//! Delete.

use super::*;

#[test]
fn a_queue_in_use_is_deleted_by_force_alone_and_its_consumers_are_told() {
    with_shards("delete", |setup| {
        let broker = setup.start();
        let mut sender = connect(broker.address());
        send(&mut sender, "/queue/q", &["one", "two"]);
        send(&mut sender, "/queue/stays", &["mine"]);
        // On either shard, and two subscriptions of one connection.
        let mut consumers: Vec<_> = (0..4).map(|_| connect(broker.address())).collect();
        for consumer in &mut consumers {
            subscribe(consumer, "/queue/q", "1");
        }
        refused(setup, &["delete", "q"], REFUSED, "somebody consumes");
        assert_eq!(json(setup, &["show", "q"])["consumers"], 4);
        let said = queue(setup, &["delete", "q", "--force"]);
        assert_eq!((said.code, said.out.as_str()), (0, "q: deleted\n"));
        for consumer in &mut consumers {
            let told = loop {
                let frame = next(consumer);
                if frame.command != "MESSAGE" {
                    break frame;
                }
            };
            assert_eq!(told.command, "ERROR", "{told:?}");
            assert!(text(&told).contains("deleted the queue"), "{told:?}");
        }
        refused(setup, &["show", "q"], REFUSED, "no queue");
        broker.kill();
        let broker = setup.start();
        refused(setup, &["show", "q"], REFUSED, "no queue");
        assert_eq!(counts(setup, "stays"), [1, 0, 0, 0]);
        // Whoever names it makes an empty one.
        let mut consumer = connect(broker.address());
        subscribe(&mut consumer, "/queue/q", "1");
        assert_silent(&mut consumer);
        assert_eq!(counts(setup, "q"), [0, 0, 0, 1]);
    });
}

#[test]
fn who_takes_from_a_pattern_loses_a_queue_and_nothing_else() {
    with_shards("delete-pattern", |setup| {
        let broker = setup.start();
        let mut sender = connect(broker.address());
        let queues = ["p.a", "p.b", "p.c", "p.d"];
        for queue in queues {
            send(&mut sender, &format!("/queue/{queue}"), &[queue]);
        }
        let mut consumer = connect(broker.address());
        let pattern = [
            ("id", "0"),
            ("destination", "/queue/p.*"),
            ("ack", "client-individual"),
        ];
        consumer.send("SUBSCRIBE", &pattern, b"").unwrap();
        let held = queues.map(|_| next_message(&mut consumer));
        refused(setup, &["delete", "p.b"], REFUSED, "somebody consumes");
        assert_eq!(json(setup, &["show", "p.b"])["consumers"], 1);
        let said = queue(setup, &["delete", "p.b", "--force"]);
        assert_eq!((said.code, said.out.as_str()), (0, "p.b: deleted\n"));
        // Also what it held of the one that is gone.
        for frame in &held {
            ask(
                &mut consumer,
                "ACK",
                &[("id", frame.header("ack").unwrap())],
            );
        }
        for queue in queues {
            send(&mut sender, &format!("/queue/{queue}"), &["again"]);
            let frame = next_message(&mut consumer);
            assert_eq!(
                frame.header("destination"),
                Some(&*format!("/queue/{queue}"))
            );
        }
    });
}

#[test]
fn a_durable_subscription_is_deleted_by_its_name() {
    with_shards("delete-subscription", |setup| {
        let broker = setup.start();
        let mut consumer = connect_as(broker.address(), "c");
        let named = [
            ("id", "0"),
            ("destination", "/topic/t"),
            ("activemq.subscriptionName", "n"),
        ];
        ask(&mut consumer, "SUBSCRIBE", &named);
        refused(setup, &["delete", "c.n"], REFUSED, "somebody consumes");
        ask(&mut consumer, "DISCONNECT", &[]);
        let mut sender = connect(broker.address());
        send(&mut sender, "/topic/t", &["collected"]);
        let done = json(setup, &["delete", "c.n"]);
        assert_eq!(
            (&done["queue"], &done["deleted"]),
            (&"c.n".into(), &true.into())
        );
        broker.kill();
        let broker = setup.start();
        let mut consumer = connect_as(broker.address(), "c");
        ask(&mut consumer, "SUBSCRIBE", &named);
        assert_silent(&mut consumer);
    });
}
