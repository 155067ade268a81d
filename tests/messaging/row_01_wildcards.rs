//! Row 1: wildcards of queues: one consumer that competes on every queue that the pattern matches,
//! on every shard, also on those made later.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::Broker;
use crate::broker::stomp::{Client, Frame};
use crate::{
    ask, attach, bodies, browse, connect, deliveries, next, next_message, refused, send, text,
    with_shards,
};

const ID: (&str, &str) = ("id", "0");
const SINGLY: (&str, &str) = ("ack", "client-individual");
const CUMULATIVE: (&str, &str) = ("ack", "client");
const TWO: (&str, &str) = ("activemq.prefetchSize", "2");
/// Enough for each shard to have some.
const NAMES: [&str; 6] = ["de", "fr", "it", "es", "pt", "at"];
const PATTERN: &str = "/queue/orders.*";

fn queue(name: &str) -> String {
    format!("/queue/orders.{name}")
}

fn send_to_all(producer: &mut Client, note: &str) {
    for name in NAMES {
        send(producer, &queue(name), &[], &format!("{note} {name}"));
    }
}

fn take(client: &mut Client, count: usize) -> Vec<Frame> {
    (0..count).map(|_| next_message(client)).collect()
}

/// Each says which queue it is from, and is from that.
fn notes(frames: &[Frame]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for frame in frames {
        let body = text(frame);
        let (note, name) = body.split_once(' ').unwrap();
        assert_eq!(frame.header("destination"), Some(&*queue(name)));
        assert_eq!(frame.header("subscription"), Some("0"));
        found.entry(name.to_owned()).or_default().push(note.into());
    }
    found
}

fn of_each(notes: &[&str]) -> BTreeMap<String, Vec<String>> {
    let notes: Vec<_> = notes.iter().map(|&note| note.to_owned()).collect();
    NAMES.map(|name| (name.to_owned(), notes.clone())).into()
}

fn acknowledge(client: &mut Client, frame: &Frame, headers: &[(&str, &str)]) {
    let own = [("id", frame.header("ack").unwrap())];
    ask(client, "ACK", &[&own[..], headers].concat());
}

/// What waits in the queues, once nobody has any of it.
fn waiting(running: &Broker) -> BTreeMap<String, Vec<String>> {
    let mut client = connect(running.address());
    let all = NAMES.map(|name| (name, browse(&mut client, &queue(name), name)));
    let left = all.into_iter().filter(|(_, found)| !found.is_empty());
    left.map(|(name, found)| {
        let notes = found.iter().map(|body| body.split(' ').next().unwrap());
        (name.to_owned(), notes.map(str::to_owned).collect())
    })
    .collect()
}

#[test]
fn it_takes_from_queues_that_are_there_and_that_come() {
    with_shards("queues-wildcard", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        send_to_all(&mut producer, "before");
        let mut consumer = connect(running.address());
        let frames = attach(&mut consumer, PATTERN, &[ID], 6);
        assert_eq!(notes(&frames), of_each(&["before"]));
        // Neither a topic of the name, nor what the pattern does not match, nor what is temporary.
        for other in [
            "/topic/orders.de",
            "/queue/orders",
            "/queue/orders.de.x",
            "/queue/other",
        ] {
            send(&mut producer, other, &[], "not wanted");
        }
        attach(&mut producer, "/temp-queue/orders", &[("id", "t")], 0);
        send(&mut producer, "/temp-queue/orders", &[], "an answer");
        assert_eq!(bodies(&mut producer, 1), ["an answer"]);
        send_to_all(&mut producer, "then");
        assert_eq!(notes(&take(&mut consumer, 6)), of_each(&["then"]));
        for (number, name) in ["new", "newer", "newest"].into_iter().enumerate() {
            send(
                &mut producer,
                &queue(name),
                &[],
                &format!("{number} {name}"),
            );
            let frames = take(&mut consumer, 1);
            assert_eq!(notes(&frames)[name], [number.to_string()]);
        }
        ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
        send_to_all(&mut producer, "after");
        assert_eq!(waiting(&running), of_each(&["after"]));
        ask(&mut consumer, "DISCONNECT", &[]);
        assert!(running.stop().success());
    });
}

#[test]
fn it_is_written_as_activemq_and_artemis_do() {
    with_shards("queues-wildcard-words", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        for (pattern, expected) in [
            ("/queue/a.*", &["/queue/a.b"][..]),
            ("/queue/a.>", &["/queue/a", "/queue/a.b", "/queue/a.b.c"]),
            ("/queue/a.#", &["/queue/a", "/queue/a.b", "/queue/a.b.c"]),
            ("/queue/*.b,/queue/z", &["/queue/a.b", "/queue/z"]),
            ("a.*.c", &["a.b.c"]),
        ] {
            let all = ["/queue/a", "/queue/a.b", "/queue/a.b.c", "/queue/z"];
            for queue in all {
                send(&mut producer, queue, &[], queue);
            }
            let mut consumer = connect(running.address());
            let frames = attach(&mut consumer, pattern, &[ID], expected.len());
            let from = frames.iter().map(|one| one.header("destination").unwrap());
            let from: BTreeSet<_> = from.collect();
            assert_eq!(from, expected.iter().copied().collect(), "{pattern}");
            ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
            let mut rest = connect(running.address());
            attach(&mut rest, "/queue/>", &[ID], all.len() - expected.len());
            ask(&mut rest, "DISCONNECT", &[]);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn consumers_of_patterns_and_of_queues_compete() {
    with_shards("queues-wildcard-competing", |setup| {
        let running = setup.start();
        let mut consumers = [(); 3].map(|()| connect(running.address()));
        for (consumer, destination) in
            consumers
                .iter_mut()
                .zip([PATTERN, "/queue/orders.>", "/queue/orders.de"])
        {
            attach(consumer, destination, &[ID, TWO, SINGLY], 0);
        }
        let mut producer = connect(running.address());
        let sent: Vec<_> = (0..12).map(|number| format!("{number} de")).collect();
        for body in &sent {
            send(&mut producer, &queue("de"), &[], body);
        }
        let mut seen = BTreeSet::new();
        while seen.len() < sent.len() {
            for consumer in &mut consumers {
                while let Some(frame) = consumer
                    .receive(std::time::Duration::from_millis(50))
                    .unwrap()
                {
                    if frame.command == "MESSAGE" {
                        assert!(seen.insert(text(&frame)), "{frame:?} twice");
                        let id = frame.header("ack").unwrap();
                        consumer.send("ACK", &[("id", id)], b"").unwrap();
                    }
                }
            }
        }
        assert!(sent.iter().all(|body| seen.contains(body)));
        assert!(running.stop().success());
    });
}

#[test]
fn what_is_in_flight_is_no_more_than_of_one_queue() {
    with_shards("queues-wildcard-credit", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        (0..3).for_each(|round| send_to_all(&mut producer, &round.to_string()));
        let mut consumer = connect(running.address());
        let mut held = attach(&mut consumer, PATTERN, &[ID, TWO, SINGLY], 2);
        let mut seen = Vec::new();
        while seen.len() < 18 {
            held.extend(already_here(&mut consumer));
            assert!(held.len() <= 2, "{held:?}");
            if held.is_empty() {
                held.push(next_message(&mut consumer));
            }
            let first = held.remove(0);
            let id = [("id", first.header("ack").unwrap())];
            consumer.send("ACK", &id, b"").unwrap();
            seen.push(first);
        }
        let all = notes(&seen);
        assert_eq!(all, of_each(&["0", "1", "2"]));
        // All queues have their turns: none is done before the last one begins.
        let first_seen = NAMES.map(|name| seen.iter().position(|one| text(one).ends_with(name)));
        assert!(
            first_seen.iter().all(|at| at.unwrap() < 14),
            "{first_seen:?}"
        );
        // A window in bytes is one over all queues, too.
        let window = ("consumer-window-size", "1");
        ask(&mut consumer, "UNSUBSCRIBE", &[ID]);
        send_to_all(&mut producer, "3");
        let headers = [("destination", PATTERN), ID, window, SINGLY];
        consumer.send("SUBSCRIBE", &headers, b"").unwrap();
        held = vec![next_message(&mut consumer)];
        held.extend(already_here(&mut consumer));
        assert!(held.len() <= 2, "one of each shard: {held:?}");
        // The connection is lost.
        drop(consumer);
        let mut other = connect(running.address());
        assert_eq!(
            notes(&attach(&mut other, PATTERN, &[ID, SINGLY], 6)),
            of_each(&["3"])
        );
        assert!(running.stop().success());
    });
}

/// Messages that come before the answers to questions.
fn already_here(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    for _ in 0..3 {
        let transaction = ("transaction", "t");
        client.send("BEGIN", &[transaction], b"").unwrap();
        let end = [transaction, ("receipt", "ended")];
        client.send("ABORT", &end, b"").unwrap();
        loop {
            let frame = next(client);
            match &*frame.command {
                "MESSAGE" => frames.push(frame),
                "RECEIPT" => break,
                _ => panic!("{frame:?}"),
            }
        }
    }
    frames
}

#[test]
fn a_cumulative_acknowledgement_goes_across_queues() {
    with_shards("queues-wildcard-cumulative", |setup| {
        let mut running = setup.start();
        let mut producer = connect(running.address());
        send_to_all(&mut producer, "one");
        send_to_all(&mut producer, "two");
        let mut consumer = connect(running.address());
        let frames = attach(&mut consumer, PATTERN, &[ID, CUMULATIVE], 12);
        acknowledge(&mut consumer, &frames[7], &[]);
        running.kill();
        running = setup.start();
        let mut expected = BTreeMap::<String, Vec<String>>::new();
        for frame in &frames[8..] {
            let body = text(frame);
            let (note, name) = body.split_once(' ').unwrap();
            expected.entry(name.into()).or_default().push(note.into());
        }
        assert_eq!(waiting(&running), expected);
        // What was not acknowledged comes again, flagged.
        let mut consumer = connect(running.address());
        let again = attach(&mut consumer, PATTERN, &[ID, SINGLY], 4);
        assert!(again.iter().all(|frame| deliveries(frame) > 1), "{again:?}");
        assert_eq!(notes(&again), expected);
        for frame in &again {
            let id = [("id", frame.header("ack").unwrap())];
            consumer.send("NACK", &id, b"").unwrap();
        }
        let thrice = take(&mut consumer, 4);
        assert!(thrice.iter().all(|frame| deliveries(frame) > 2));
        assert_eq!(notes(&thrice), expected);
        // A connection that is lost gives all back.
        drop(consumer);
        let mut other = connect(running.address());
        assert_eq!(notes(&attach(&mut other, PATTERN, &[ID], 4)), expected);
        ask(&mut other, "DISCONNECT", &[]);
        assert_eq!(waiting(&running), BTreeMap::new());
        assert!(running.stop().success());
    });
}

#[test]
fn a_transaction_takes_from_several_queues_or_from_none() {
    with_shards("queues-wildcard-transaction", |setup| {
        let mut running = setup.start();
        let mut producer = connect(running.address());
        send_to_all(&mut producer, "one");
        for end in ["ABORT", "COMMIT"] {
            let mut consumer = connect(running.address());
            let frames = attach(&mut consumer, PATTERN, &[ID, CUMULATIVE], 6);
            let transaction = ("transaction", "t");
            ask(&mut consumer, "BEGIN", &[transaction]);
            acknowledge(&mut consumer, &frames[5], &[transaction]);
            ask(&mut consumer, end, &[transaction]);
            running.kill();
            running = setup.start();
            let expected = if end == "ABORT" {
                of_each(&["one"])
            } else {
                BTreeMap::new()
            };
            assert_eq!(waiting(&running), expected, "{end}");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn it_may_have_a_selector_and_be_served_alone_or_first() {
    with_shards("queues-wildcard-options", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut picky = connect(running.address());
        let selector = ("selector", "colour = 'red'");
        attach(&mut picky, PATTERN, &[ID, selector, ("ack", "client")], 0);
        let exclusive = ("activemq.exclusive", "true");
        let [mut alone, mut second] = [(); 2].map(|()| connect(running.address()));
        attach(&mut alone, "/queue/alone.*", &[ID, exclusive, SINGLY], 0);
        attach(&mut second, "/queue/alone.>", &[ID], 0);
        let [mut late, mut first] = [(); 2].map(|()| connect(running.address()));
        attach(&mut late, "/queue/first.*", &[ID], 0);
        attach(
            &mut first,
            "/queue/first.*",
            &[ID, ("activemq.priority", "7")],
            0,
        );
        for name in NAMES {
            for colour in ["red", "blue"] {
                let body = format!("{colour} {name}");
                send(&mut producer, &queue(name), &[("colour", colour)], &body);
            }
            send(&mut producer, &format!("/queue/alone.{name}"), &[], name);
            send(&mut producer, &format!("/queue/first.{name}"), &[], name);
        }
        assert_eq!(notes(&take(&mut picky, 6)), of_each(&["red"]));
        for consumer in [&mut alone, &mut first] {
            let found: BTreeSet<_> = bodies(consumer, 6).into_iter().collect();
            assert_eq!(found, NAMES.map(str::to_owned).into());
        }
        // The others got nothing of it.
        for consumer in [&mut second, &mut late, &mut picky] {
            ask(consumer, "UNSUBSCRIBE", &[ID]);
        }
        assert_eq!(waiting(&running), with_red_first());
        assert!(running.stop().success());
    });
}

fn with_red_first() -> BTreeMap<String, Vec<String>> {
    of_each(&["red", "blue"])
}

#[test]
fn a_browser_of_a_pattern_sees_all_that_is_there_and_one_end() {
    with_shards("queues-wildcard-browse", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        let browser = [("destination", PATTERN), ("browser", "true"), ID];
        let mut producer = connect(running.address());
        for round in ["none", "one", "two"] {
            client.send("SUBSCRIBE", &browser, b"").unwrap();
            let mut seen = Vec::new();
            let end = loop {
                let frame = next_message(&mut client);
                if frame.header("browser") == Some("end") {
                    break frame;
                }
                seen.push(frame);
            };
            assert_eq!(end.header("destination"), Some(PATTERN));
            let expected = match round {
                "none" => BTreeMap::new(),
                "one" => of_each(&["none"]),
                _ => of_each(&["none", "one"]),
            };
            assert_eq!(notes(&seen), expected);
            ask(&mut client, "UNSUBSCRIBE", &[ID]);
            send_to_all(&mut producer, round);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn what_cannot_be_is_refused() {
    with_shards("queues-wildcard-refused", |setup| {
        let running = setup.start();
        for (headers, said) in [
            (
                ("x-stream-offset", "first"),
                "there is no place to begin at",
            ),
            (("activemq.subscriptionName", "s"), "with a name to a queue"),
            (("activemq.noLocal", "true"), "no-local not offered"),
        ] {
            let mut client = connect(running.address());
            let all = [("destination", PATTERN), ID, headers];
            client.send("SUBSCRIBE", &all, b"").unwrap();
            refused(client, said);
        }
        let mut client = connect(running.address());
        let send = [("destination", PATTERN)];
        client.send("SEND", &send, b"x").unwrap();
        refused(client, "message to a wildcard");
        assert!(running.stop().success());
    });
}
