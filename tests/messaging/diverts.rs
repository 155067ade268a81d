//! Diverts: what is sent to an address goes to another one as well, or instead (features 2.5).

use crate::{ask, browse, connect, next, next_message, send, subscribe, text, with_shards};

const CONFIG: &str = r##"
    [[address]]
    match = "orders.#"
    divert_address = "audit"
    [[address]]
    match = "old"
    divert_address = "new"
    divert_exclusive = true
    [[address]]
    match = "new"
    divert_address = "old"
"##;

#[test]
fn diverts_copy_what_is_sent_to_queues_and_topics_over_restarts() {
    with_shards("divert", |setup| {
        setup.config += CONFIG;
        let mut running = setup.start();
        let mut expected = Vec::new();
        for round in 0..3 {
            let mut client = connect(running.address());
            let large = "x".repeat(300_000 * round);
            for (to, body) in [
                ("/queue/orders.a", "q"),
                // Nobody listens: the copy is made all the same.
                ("/topic/orders.b", "t"),
                ("/queue/orders.a", &*large),
            ] {
                send(&mut client, to, &[("round", &round.to_string())], body);
                expected.push((to.rsplit('/').next().unwrap(), body.len()));
            }
            running.kill();
            running = setup.start();
        }
        let mut auditor = connect(running.address());
        subscribe(&mut auditor, "/queue/audit", &[("ack", "auto")]);
        let mut seen: Vec<_> = (0..expected.len())
            .map(|_| {
                let copy = next_message(&mut auditor);
                let from = copy.header("_AMQ_ORIG_ADDRESS").unwrap().to_string();
                assert_eq!(copy.header("dead-letter-reason"), None);
                (from, copy.body.len())
            })
            .collect();
        seen.sort_unstable();
        let mut expected: Vec<_> = expected
            .into_iter()
            .map(|(from, size)| (from.to_string(), size))
            .collect();
        expected.sort_unstable();
        assert_eq!(seen, expected);
        let mut client = connect(running.address());
        assert_eq!(browse(&mut client, "/queue/orders.a", "b").len(), 6);
        assert_eq!(browse(&mut client, "/queue/audit", "a"), [""; 0]);
        assert!(running.stop().success());
    });
}

#[test]
fn diverts_that_are_exclusive_keep_nothing_and_nothing_goes_in_circles() {
    with_shards("divert-exclusive", |setup| {
        setup.config += CONFIG;
        let running = setup.start();
        let mut client = connect(running.address());
        let mut reader = connect(running.address());
        subscribe(&mut reader, "/queue/new", &[("ack", "auto")]);
        send(&mut client, "/queue/old", &[], "diverted");
        assert_eq!(text(&next_message(&mut reader)), "diverted");
        assert_eq!(browse(&mut client, "/queue/old", "b"), [""; 0]);
        // `new` diverts to `old`, which is diverted to alone: here it stays, once.
        send(&mut client, "/queue/new", &[], "there and no further");
        assert_eq!(text(&next_message(&mut reader)), "there and no further");
        let mut old = connect(running.address());
        subscribe(&mut old, "/queue/old", &[("ack", "auto")]);
        assert_eq!(text(&next_message(&mut old)), "there and no further");
        // What is not durable is diverted too; a transaction diverts with its commit.
        let headers = [("destination", "/queue/old"), ("receipt", "r")];
        client.send("SEND", &headers, b"of memory").unwrap();
        assert_eq!(next(&mut client).header("receipt-id"), Some("r"));
        assert_eq!(text(&next_message(&mut reader)), "of memory");
        ask(&mut client, "BEGIN", &[("transaction", "t")]);
        send(&mut client, "/queue/old", &[("transaction", "t")], "late");
        send(&mut client, "/queue/old", &[], "at once");
        assert_eq!(text(&next_message(&mut reader)), "at once");
        ask(&mut client, "COMMIT", &[("transaction", "t")]);
        assert_eq!(text(&next_message(&mut reader)), "late");
        assert!(running.stop().success());
    });
}
