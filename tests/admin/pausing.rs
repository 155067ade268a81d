//! Pause and resume.

use super::*;

#[test]
fn a_paused_queue_takes_messages_and_hands_them_out_when_it_goes_on_also_over_a_kill() {
    with_shards("pause", |setup| {
        let broker = setup.start();
        let mut sender = connect(broker.address());
        let mut consumer = connect(broker.address());
        subscribe(&mut consumer, "/queue/q", "10");
        send(&mut sender, "/queue/q", &["before"]);
        let before = next_message(&mut consumer);
        let said = queue(setup, &["pause", "q"]);
        assert_eq!((said.code, said.out.as_str()), (0, "q: paused\n"));
        send(&mut sender, "/queue/q", &["one", "two"]);
        send(&mut sender, "/queue/other", &["not paused"]);
        assert_silent(&mut consumer);
        assert_eq!(json(setup, &["show", "q"])["paused"], true);
        // What it holds is its own.
        acknowledge(&mut consumer, &before);
        assert_eq!(counts(setup, "q"), [2, 0, 0, 1]);
        broker.kill();

        let broker = setup.start();
        let mut sender = connect(broker.address());
        let mut consumer = connect(broker.address());
        subscribe(&mut consumer, "/queue/q", "10");
        send(&mut sender, "/queue/q", &["three"]);
        assert_silent(&mut consumer);
        assert_eq!(json(setup, &["pause", "q"])["paused"], true, "again");
        assert_eq!(queue(setup, &["resume", "q"]).out, "q: goes on\n");
        let taken = [0; 3].map(|_| next_message(&mut consumer));
        assert_eq!(taken.each_ref().map(text), ["one", "two", "three"]);
        taken
            .iter()
            .for_each(|message| acknowledge(&mut consumer, message));
        broker.kill();
        let broker = setup.start();
        assert_eq!(json(setup, &["show", "q"])["paused"], false);
        assert_eq!(counts(setup, "q"), [0; 4]);
        assert_eq!(broker.stop().code(), Some(0));
    });
}

#[test]
fn a_paused_durable_subscription_collects() {
    with_shards("pause-subscription", |setup| {
        let broker = setup.start();
        let mut consumer = connect_as(broker.address(), "c");
        let named = [
            ("id", "0"),
            ("destination", "/topic/t"),
            ("activemq.subscriptionName", "n"),
        ];
        ask(&mut consumer, "SUBSCRIBE", &named);
        json(setup, &["pause", "c.n"]);
        let mut sender = connect(broker.address());
        send(&mut sender, "/topic/t", &["one", "two"]);
        assert_silent(&mut consumer);
        json(setup, &["resume", "c.n"]);
        assert_eq!(text(&next_message(&mut consumer)), "one");
        assert_eq!(text(&next_message(&mut consumer)), "two");
    });
}

#[test]
fn a_paused_queue_of_kept_messages_shows_its_followers_nothing_new() {
    with_shards("pause-kept", |setup| {
        let kept = "[[address]]\nmatch = \"k\"\ndefault_non_destructive = true\n";
        *setup = setup.clone().config(kept);
        let broker = setup.start();
        let mut sender = connect(broker.address());
        send(&mut sender, "/queue/k", &["one"]);
        json(setup, &["pause", "k"]);
        let mut follower = connect(broker.address());
        let from_first = [("id", "0"), ("destination", "/queue/k")];
        ask(&mut follower, "SUBSCRIBE", &from_first);
        send(&mut sender, "/queue/k", &["two"]);
        assert_silent(&mut follower);
        assert_eq!(counts(setup, "k"), [2, 0, 0, 1], "a follower consumes");
        json(setup, &["resume", "k"]);
        assert_eq!(text(&next_message(&mut follower)), "one");
        assert_eq!(text(&next_message(&mut follower)), "two");
        refused(setup, &["delete", "k"], REFUSED, "somebody consumes");
    });
}
