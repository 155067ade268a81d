//! Row 1: queues, each message to one of the consumers that compete for it; several queues and
//! topics in one frame, and one queue of an address by its full name.

use std::collections::BTreeSet;

use crate::broker::{Broker, Setup};
use crate::{
    ask, attach, bodies, browse, connect, connect_as, next, next_message, refused, send, text,
    with_shards,
};

const ID: (&str, &str) = ("id", "0");
const ONE: (&str, &str) = ("activemq.prefetchSize", "1");
const SINGLY: (&str, &str) = ("ack", "client-individual");
const CUMULATIVE: (&str, &str) = ("ack", "client");
const NAME: (&str, &str) = ("activemq.subscriptionName", "s");
/// On both shards where there are two.
const QUEUES: [&str; 4] = ["/queue/a", "/queue/b", "/queue/c", "/queue/d"];

fn list() -> String {
    QUEUES.join(",")
}

/// What waits in each of the queues.
fn waiting(running: &Broker) -> Vec<Vec<String>> {
    let mut client = connect(running.address());
    let queues = QUEUES.iter();
    queues
        .map(|queue| browse(&mut client, queue, queue))
        .collect()
}

#[test]
fn each_message_goes_to_one_of_the_consumers() {
    with_shards("competing", |setup| {
        let running = setup.start();
        let mut consumers = [(); 3].map(|()| connect(running.address()));
        for consumer in &mut consumers {
            attach(consumer, "/queue/a", &[ID, ONE, SINGLY], 0);
        }
        let mut producer = connect(running.address());
        let sent: Vec<_> = (0..9).map(|number| number.to_string()).collect();
        for body in &sent {
            send(&mut producer, "/queue/a", &[], body);
        }
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            // Credit of one: whoever acknowledges is served next.
            for consumer in &mut consumers {
                let message = next_message(consumer);
                assert!(seen.insert(text(&message)));
                ask(consumer, "ACK", &[("id", message.header("ack").unwrap())]);
            }
        }
        assert!(seen.iter().eq(&sent));
        assert!(running.stop().success());
    });
}

#[test]
fn a_message_to_several_is_in_all_of_them() {
    with_shards("composite", |setup| {
        let mut running = setup.start();
        let mut listener = connect(running.address());
        attach(&mut listener, "/topic/t", &[ID], 0);
        let mut producer = connect(running.address());
        let large = "x".repeat(600_000);
        for body in ["small", &large] {
            let destinations = list() + ", /topic/t,/queue/a::a";
            send(&mut producer, &destinations, &[], body);
            assert!(bodies(&mut listener, 1) == [body]);
        }
        // Confirmed means durable in each.
        running.kill();
        running = setup.start();
        for (queue, found) in QUEUES.iter().zip(waiting(&running)) {
            let times = if *queue == "/queue/a" { 2 } else { 1 };
            let expected = ["small", &large].map(|body| vec![body; times]).concat();
            assert!(found == expected, "{queue}");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn without_a_receipt_and_without_the_disk_all_get_it_too() {
    with_shards("composite-volatile", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut consumer = connect(running.address());
        attach(&mut consumer, &list(), &[ID], 0);
        for body in ["small", &"x".repeat(300_000)] {
            let headers = [("destination", &*list()), ("persistent", "false")];
            producer.send("SEND", &headers, body.as_bytes()).unwrap();
            let frames: Vec<_> = QUEUES.map(|_| next_message(&mut consumer)).into();
            assert!(frames.iter().all(|frame| text(frame) == body));
            let from = frames
                .iter()
                .map(|frame| frame.header("destination").unwrap());
            assert_eq!(from.collect::<BTreeSet<_>>(), QUEUES.into());
        }
        assert!(running.stop().success());
    });
}

#[test]
fn in_a_transaction_all_or_none_get_it() {
    with_shards("composite-transaction", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let transaction = ("transaction", "t");
        for (end, body) in [("ABORT", "never"), ("COMMIT", "now")] {
            ask(&mut producer, "BEGIN", &[transaction]);
            send(&mut producer, &list(), &[transaction], body);
            assert_eq!(waiting(&running), [const { Vec::<String>::new() }; 4]);
            ask(&mut producer, end, &[transaction]);
        }
        assert_eq!(waiting(&running), [["now"]; 4]);
        // One destination that is refused refuses all.
        let mut other = connect(running.address());
        let destinations = list() + ",/queue/a::nowhere";
        let headers = [("destination", &*destinations), ("receipt", "r")];
        other.send("SEND", &headers, b"lost").unwrap();
        let frame = next(&mut other);
        assert_eq!(frame.command, "ERROR");
        assert!(text(&frame).contains("a::nowhere"), "{frame:?}");
        assert_eq!(waiting(&running), [["now"]; 4]);
        assert!(running.stop().success());
    });
}

#[test]
fn sent_again_it_is_there_once() {
    with_shards("composite-duplicates", |setup| {
        let mut running = setup.start();
        let id = ("_AMQ_DUPL_ID", "7");
        for round in 0..3 {
            let mut producer = connect(running.address());
            // One that got it already keeps it from none of the others.
            let destinations = if round == 0 { "/queue/b" } else { &*list() };
            send(&mut producer, destinations, &[id], "once");
            running.kill();
            running = setup.start();
        }
        assert_eq!(waiting(&running), [["once"]; 4]);
        assert!(running.stop().success());
    });
}

/// Kills the broker while composite messages are on their way, over and over: each is in all
/// queues or in none, and those that were confirmed are there.
#[test]
fn a_kill_leaves_none_in_a_part_of_its_queues() {
    with_shards("composite-kill", |setup| {
        let mut running = setup.start();
        let mut confirmed = 0;
        for round in 0..6 {
            let mut producer = connect(running.address());
            for number in 0..40 {
                let body = format!("{round:02} {number:02}");
                let receipt = ("receipt", &*body);
                let headers = [("destination", &*list()), ("persistent", "true"), receipt];
                producer.send("SEND", &headers, body.as_bytes()).unwrap();
            }
            // Somewhere in the middle of them.
            for _ in 0..=round * 5 {
                assert_eq!(next(&mut producer).command, "RECEIPT");
                confirmed += 1;
            }
            running.kill();
            running = setup.start();
        }
        let found = waiting(&running);
        assert!(
            found[0].len() >= confirmed,
            "{} of {confirmed}",
            found[0].len()
        );
        let found: Vec<BTreeSet<_>> = found.into_iter().map(BTreeSet::from_iter).collect();
        assert!(found.iter().all(|one| *one == found[0]));
        for round in 0..6 {
            for number in 0..=round * 5 {
                assert!(found[0].contains(&format!("{round:02} {number:02}")));
            }
        }
        assert!(running.stop().success());
    });
}

#[test]
fn a_subscription_to_several_gets_from_all_and_ends_as_one() {
    with_shards("composite-subscribe", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut consumer = connect(running.address());
        let destinations = list() + ",/topic/t";
        attach(&mut consumer, &destinations, &[ID, CUMULATIVE], 0);
        for queue in QUEUES {
            send(&mut producer, queue, &[], queue);
        }
        send(&mut producer, "/topic/t", &[], "/topic/t");
        let frames: Vec<_> = (0..5).map(|_| next_message(&mut consumer)).collect();
        for frame in &frames {
            assert_eq!(frame.header("destination"), Some(&*text(frame)));
            assert_eq!(frame.header("subscription"), Some("0"));
        }
        ask(
            &mut consumer,
            "ACK",
            &[("id", frames[3].header("ack").unwrap())],
        );
        ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
        let left: Vec<_> = waiting(&running).concat();
        let expected: Vec<_> = frames[4..].iter().map(text).collect();
        let expected: Vec<_> = expected
            .into_iter()
            .filter(|one| one != "/topic/t")
            .collect();
        assert_eq!(left, expected);
        // The id is free again.
        attach(&mut consumer, "/queue/a,/queue/b", &[ID], 0);
        assert!(running.stop().success());
    });
}

#[test]
fn a_browser_of_several_sees_all_and_one_end() {
    with_shards("composite-browse", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        for queue in QUEUES {
            send(&mut client, queue, &[], queue);
        }
        let headers = [("destination", &*list()), ("browser", "true"), ID];
        client.send("SUBSCRIBE", &headers, b"").unwrap();
        let mut seen: Vec<_> = bodies(&mut client, 4);
        seen.sort();
        assert_eq!(seen, QUEUES);
        assert_eq!(next_message(&mut client).header("browser"), Some("end"));
        ask(&mut client, "DISCONNECT", &[]);
        assert!(running.stop().success());
    });
}

#[test]
fn what_is_in_flight_to_all_is_no_more_than_to_one() {
    with_shards("composite-credit", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        for queue in QUEUES {
            for number in 0..3 {
                send(&mut client, queue, &[], &number.to_string());
            }
        }
        let four = ("activemq.prefetchSize", "4");
        let frames = attach(&mut client, &list(), &[ID, four, SINGLY], 4);
        assert!(frames.iter().all(|frame| text(frame) == "0"));
        ask(&mut client, "UNSUBSCRIBE", &[ID]);
        assert!(running.stop().success());
    });
}

#[test]
fn a_queue_has_a_full_name() {
    with_shards("qualified", |setup| {
        let mut running = setup.start();
        let mut client = connect(running.address());
        for (sent, received) in [
            ("a::a", "/queue/a"),
            ("/queue/a", "a::a"),
            ("/queue/n::n", "n"),
        ] {
            send(&mut client, sent, &[], sent);
            let frames = attach(&mut client, received, &[ID], 1);
            assert_eq!(text(&frames[0]), sent);
            ask(&mut client, "UNSUBSCRIBE", &[ID]);
        }
        running = qualified_subscription(setup, running);
        for (command, destination) in [
            ("SEND", "/topic/t::nowhere"),
            ("SUBSCRIBE", "/topic/t::nowhere"),
            ("SUBSCRIBE", "/queue/a::b"),
            ("SEND", "other::c.s"),
        ] {
            let mut client = connect(running.address());
            let headers = [("destination", destination), ID, ("receipt", "r")];
            client.send(command, &headers, b"").unwrap();
            let name = destination.rsplit('/').next().unwrap();
            refused(client, &format!("no queue of that name; address: {name}"));
        }
        assert!(running.stop().success());
    });
}

/// A durable subscription's queue, by its name: who listens there, and what is sent there alone.
fn qualified_subscription(setup: &mut Setup, mut running: Broker) -> Broker {
    for topic in ["/topic/t", "/topic/u.*"] {
        let mut owner = connect_as(running.address(), "c");
        attach(&mut owner, topic, &[ID, NAME, SINGLY], 0);
        let other = topic.replace('*', "x");
        let mut beside = connect(running.address());
        attach(&mut beside, &other, &[ID], 0);
        let qualified = format!("{topic}::c.s");
        let mut client = connect(running.address());
        let headers = [("destination", &*qualified), ID, ("receipt", "r")];
        client.send("SUBSCRIBE", &headers, b"").unwrap();
        refused(client, "somebody is attached");
        ask(&mut owner, "DISCONNECT", &[]);
        let mut client = connect(running.address());
        send(&mut client, &other, &[], "to all");
        assert_eq!(bodies(&mut beside, 1), ["to all"]);
        if topic == "/topic/t" {
            send(&mut client, &qualified, &[], "to one");
            assert_eq!(browse(&mut client, &qualified, "b"), ["to all", "to one"]);
        }
        running.kill();
        running = setup.start();
        // Everything but the prefix is the name; whoever comes takes from it.
        let mut client = connect(running.address());
        let name = &qualified["/topic/".len()..];
        let count = if topic == "/topic/t" { 2 } else { 1 };
        let frames = attach(&mut client, name, &[ID, CUMULATIVE], count);
        assert_eq!(text(&frames[0]), "to all");
        let destination = if topic == "/topic/t" {
            name
        } else {
            &other[7..]
        };
        assert_eq!(frames[0].header("destination"), Some(destination));
        let last = frames[count - 1].header("ack").unwrap();
        ask(&mut client, "ACK", &[("id", last)]);
        let mut owner = connect_as(running.address(), "c");
        let headers = [("destination", topic), ID, NAME, ("receipt", "r")];
        owner.send("SUBSCRIBE", &headers, b"").unwrap();
        refused(owner, "somebody is attached");
    }
    running
}
