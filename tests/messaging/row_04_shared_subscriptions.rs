//! Row 4: shared subscriptions of JMS 2.0: several consumers on one subscription of a topic, each
//! message to one of them; durable ones, and ones that end with their last consumer.

use std::collections::BTreeSet;

use crate::broker::stomp::Client;
use crate::{
    ask, attach, bodies, connect, connect_as, next, next_message, refused, send, subscribe,
};
use crate::{text, with_topics};

const SHARED: (&str, &str) = ("shared", "true");
const DURABLE: (&str, &str) = ("durable", "true");
const NAME: (&str, &str) = ("subscription-name", "s");
const ONE: (&str, &str) = ("activemq.prefetchSize", "1");
const BY_CLIENT: (&str, &str) = ("ack", "client-individual");
const ID: (&str, &str) = ("id", "0");

fn acknowledge_next(client: &mut Client) -> String {
    let message = next_message(client);
    ask(client, "ACK", &[("id", message.header("ack").unwrap())]);
    text(&message)
}

#[test]
fn each_message_goes_to_one_consumer_of_a_shared_subscription() {
    with_topics("shared", |setup, topics| {
        let running = setup.start();
        for topic in &topics {
            let mut consumers = [(); 3].map(|()| connect(running.address()));
            for consumer in &mut consumers {
                attach(consumer, topic, &[ID, SHARED, NAME, ONE, BY_CLIENT], 0);
            }
            // One of its own beside them, and one that is shared under another name.
            let mut plain = connect(running.address());
            attach(&mut plain, topic, &[ID], 0);
            let mut other = connect(running.address());
            attach(
                &mut other,
                topic,
                &[ID, SHARED, ("subscription-name", "t")],
                0,
            );
            let mut producer = connect(running.address());
            let sent: Vec<_> = (0..9).map(|number| number.to_string()).collect();
            for body in &sent {
                send(&mut producer, topic, &[], body);
            }
            let mut seen = BTreeSet::new();
            for _ in 0..3 {
                // Credit of one: whoever acknowledges is served next.
                for consumer in &mut consumers {
                    assert!(seen.insert(acknowledge_next(consumer)));
                }
            }
            assert!(seen.iter().eq(&sent));
            assert_eq!(bodies(&mut plain, 9), sent);
            assert_eq!(bodies(&mut other, 9), sent);
            consumers.into_iter().for_each(drop_politely);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn what_one_holds_goes_to_another_and_the_last_ends_it() {
    with_topics("shared-end", |setup, topics| {
        let running = setup.start();
        let mut producer = connect(running.address());
        for topic in &topics {
            let mut first = connect(running.address());
            attach(&mut first, topic, &[ID, SHARED, NAME, BY_CLIENT], 0);
            send(&mut producer, topic, &[], "held");
            assert_eq!(bodies(&mut first, 1), ["held"]);
            let mut second = connect(running.address());
            attach(&mut second, topic, &[ID, SHARED, NAME, BY_CLIENT], 0);
            ask(&mut first, "UNSUBSCRIBE", &[ID]);
            let frame = next_message(&mut second);
            assert_eq!(text(&frame), "held");
            assert_eq!(frame.header("redelivered"), Some("true"));
            drop_politely(second);
            // With the last one it ended, and what it held and what comes meanwhile is nobody's.
            send(&mut producer, topic, &[], "between");
            let mut again = connect(running.address());
            // Another selector is welcome now.
            let other = ("selector", "n = 1");
            attach(&mut again, topic, &[ID, SHARED, NAME, other], 0);
            send(&mut producer, topic, &[("n", "1")], "after");
            assert_eq!(bodies(&mut again, 1), ["after"]);
            drop_politely(again);
        }
        assert!(running.stop().success());
    });
}

fn drop_politely(mut client: Client) {
    ask(&mut client, "DISCONNECT", &[]);
}

#[test]
fn a_shared_durable_subscription_collects_over_a_kill_and_goes_when_told_to() {
    with_topics("shared-durable", |setup, topics| {
        let mut running = setup.start();
        // With a client of its own, and of nobody; both words for durable.
        let cases = [
            ("", [SHARED, DURABLE, NAME]),
            ("ada", [SHARED, DURABLE, NAME]),
            ("bob", [SHARED, DURABLE, ("activemq.subscriptionName", "s")]),
        ];
        let open = |running: &crate::broker::Broker, client: &str| match client {
            "" => connect(running.address()),
            client => connect_as(running.address(), client),
        };
        for topic in &topics {
            for (client, headers) in &cases {
                let headers = [&[ID, BY_CLIENT, ONE, ("selector", "wanted")][..], headers].concat();
                let mut first = open(&running, client);
                attach(&mut first, topic, &headers, 0);
                let mut second = open(&running, client);
                attach(&mut second, topic, &headers, 0);
                drop_politely(first);
                drop_politely(second);
            }
            let mut producer = connect(running.address());
            for body in ["1", "2"] {
                send(&mut producer, topic, &[("wanted", "true")], body);
                send(&mut producer, topic, &[("wanted", "no")], "unwanted");
            }
            running.kill();
            running = setup.start();
            for (client, headers) in &cases {
                let headers = [&[ID, BY_CLIENT, ONE, ("selector", "wanted")][..], headers].concat();
                let mut first = open(&running, client);
                let one = attach(&mut first, topic, &headers, 1);
                let mut second = open(&running, client);
                let two = attach(&mut second, topic, &headers, 1);
                assert_eq!([text(&one[0]), text(&two[0])], ["1", "2"]);
                // Nobody takes it away from the other one.
                let mut third = open(&running, client);
                let name = headers.last().unwrap();
                let end = [*name, SHARED, DURABLE, ("receipt", "r")];
                third
                    .send("UNSUBSCRIBE", &[&end[..], &[("id", "9")]].concat(), b"")
                    .unwrap();
                refused(third, "somebody is attached");
                let ack = one[0].header("ack").unwrap();
                ask(&mut first, "ACK", &[("id", ack)]);
                drop_politely(first);
                // The last one may: by its id and name.
                ask(&mut second, "UNSUBSCRIBE", &[ID, *name, SHARED, DURABLE]);
                attach(&mut second, topic, &headers, 0);
                ask(&mut second, "UNSUBSCRIBE", &[ID]);
                ask(
                    &mut second,
                    "UNSUBSCRIBE",
                    &[("id", "9"), *name, SHARED, DURABLE],
                );
                let end = [("id", "9"), *name, SHARED, DURABLE];
                second.send("UNSUBSCRIBE", &end, b"").unwrap();
                refused(second, "no durable subscription of that name");
            }
        }
        assert!(running.stop().success());
    });
}

#[test]
fn another_topic_selector_or_kind_is_refused_while_somebody_is_attached() {
    with_topics("shared-refused", |setup, [topic, other]| {
        let running = setup.start();
        for durable in ["true", "false"] {
            let durable = ("durable", durable);
            let base = [ID, SHARED, NAME, durable];
            let mut first = connect_as(running.address(), "ada");
            attach(&mut first, &topic, &base, 0);
            let differs = "another topic or selector";
            let in_use = "somebody is attached";
            for (destination, more, said) in [
                (&topic, &[("selector", "n = 1")][..], differs),
                (&other, &[][..], in_use),
                (&other, &[("selector", "n = 1")][..], in_use),
            ] {
                let mut second = connect_as(running.address(), "ada");
                let own = [("destination", destination.as_str())];
                let headers = [&own[..], &base, more].concat();
                second.send("SUBSCRIBE", &headers, b"").unwrap();
                refused(second, said);
            }
            // What was refused took nothing away, and left nothing behind.
            send(&mut connect(running.address()), &topic, &[], "1");
            send(&mut connect(running.address()), &other, &[], "nobody's");
            assert_eq!(bodies(&mut first, 1), ["1"]);
            drop_politely(first);
            // Nobody is attached: the new one begins empty.
            let mut second = connect_as(running.address(), "ada");
            attach(&mut second, &other, &base, 0);
            send(&mut connect(running.address()), &other, &[], "2");
            assert_eq!(bodies(&mut second, 1), ["2"]);
            drop_politely(second);
        }
        // One that is not shared cannot have the name, and the other way round; on either topic.
        for (kind, mine, said) in [
            (vec![SHARED, DURABLE], vec![DURABLE], "is a shared one"),
            (vec![DURABLE], vec![SHARED, DURABLE], "is not a shared one"),
        ] {
            let name = ("subscription-name", said);
            let mut first = connect_as(running.address(), "bob");
            attach(&mut first, &topic, &[&[ID, name][..], &kind].concat(), 0);
            drop_politely(first);
            for destination in [&topic, &other] {
                let mut second = connect_as(running.address(), "bob");
                let own = [ID, name, ("destination", destination.as_str())];
                second
                    .send("SUBSCRIBE", &[&own[..], &mine].concat(), b"")
                    .unwrap();
                refused(second, said);
            }
            // Shared and not durable is another name.
            let mut third = connect_as(running.address(), "bob");
            attach(&mut third, &topic, &[ID, name, SHARED], 0);
            drop_politely(third);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn names_belong_to_their_client_and_to_nobody_else() {
    with_topics("shared-names", |setup, [topic, _]| {
        let running = setup.start();
        let clients = ["\\global", "\\volatile.\\global", "global", "\\volatile"];
        let mut consumers: Vec<_> = clients.map(|id| connect_as(running.address(), id)).into();
        consumers.push(connect(running.address()));
        for consumer in &mut consumers {
            attach(consumer, &topic, &[ID, SHARED, NAME], 0);
            attach(consumer, &topic, &[("id", "1"), SHARED, NAME, DURABLE], 0);
        }
        send(&mut connect(running.address()), &topic, &[], "each");
        for consumer in &mut consumers {
            assert_eq!(bodies(consumer, 2), ["each", "each"]);
        }
        assert!(running.stop().success());
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    with_topics("shared-senseless", |setup, [topic, _]| {
        let running = setup.start();
        let at = ("destination", topic.as_str());
        let queue = ("destination", "/queue/q");
        let durable_name = ("durable-subscription-name", "s");
        for (headers, said) in [
            (vec![at, SHARED], "without a name"),
            (vec![at, DURABLE], "without a name"),
            (vec![at, NAME], "durable:true, shared:true or both"),
            (vec![at, NAME, DURABLE], "client-id missing"),
            (vec![at, ("subscription-name", ""), SHARED], "is empty"),
            (vec![at, ("shared", "yes"), NAME], "neither true nor false"),
            (vec![at, ("durable", "1"), NAME], "neither true nor false"),
            (
                vec![at, durable_name, ("durable", "false"), SHARED],
                "durable:false",
            ),
            (
                vec![at, durable_name, ("subscription-name", "t")],
                "different names",
            ),
            (vec![queue, NAME, SHARED], "Only topics"),
            (vec![at, NAME, SHARED, ("no-local", "true")], "not shared"),
        ] {
            let mut client = connect(running.address());
            subscribe(&mut client, "", &[]);
            assert_eq!(next(&mut client).command, "ERROR");
            let mut client = connect(running.address());
            client
                .send("SUBSCRIBE", &[&[ID][..], &headers].concat(), b"")
                .unwrap();
            refused(client, said);
        }
        assert!(running.stop().success());
    });
}

/// Many come and go at once, on both topics: whoever is told that it is attached gets messages.
#[test]
fn two_topics_never_have_one_shared_name() {
    with_topics("shared-race", |setup, topics| {
        let running = setup.start();
        for round in 0..15 {
            let name = format!("s{round}");
            let headers = [ID, SHARED, DURABLE, ("subscription-name", name.as_str())];
            let mut peers: Vec<_> = (0..6)
                .map(|number| (connect(running.address()), &topics[number % 2]))
                .collect();
            for (peer, topic) in &mut peers {
                let own = [("destination", topic.as_str()), ("receipt", "r")];
                peer.send("SUBSCRIBE", &[&own[..], &headers].concat(), b"")
                    .unwrap();
            }
            let attached: Vec<_> = peers
                .iter_mut()
                .filter_map(|(peer, topic)| (next(peer).command == "RECEIPT").then_some(*topic))
                .collect();
            assert!(
                attached.windows(2).all(|two| two[0] == two[1]),
                "{attached:?}"
            );
            for topic in &topics {
                send(&mut connect(running.address()), topic, &[], topic);
            }
            if let Some(topic) = attached.first() {
                let heard = peers.iter_mut().filter_map(|(peer, _)| {
                    peer.receive(std::time::Duration::from_millis(100))
                        .ok()
                        .flatten()
                });
                let heard: Vec<_> = heard.map(|frame| text(&frame)).collect();
                assert_eq!(heard, [topic.as_str()], "round {round}");
            }
        }
        assert!(running.stop().success());
    });
}
