//! Durable topic subscriptions through the front door, with a broker that is killed: they collect
//! while nobody is attached, belong to one client at a time, and go only when told to.
//!
//! Each test runs with one shard and with two; its topics then lie on both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "limits of waiting")]

#[path = "../broker/mod.rs"]
mod broker;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broker::stomp::{Client, Frame};
use broker::{Broker, Setup};
use forebay::routing::shard_of;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come where nothing is allowed to.
const SILENCE: Duration = Duration::from_millis(300);
/// The header names of stock clients, all for the same.
const ALIASES: [&str; 3] = [
    "activemq.subscriptionName",
    "durable-subscriber-name",
    "durable-subscription-name",
];

/// A broker, and two topics on different shards where there are two.
struct Place {
    setup: Setup,
    broker: Option<Broker>,
    topics: [String; 2],
}

impl Place {
    fn new(name: &str, shards: u16) -> Self {
        let folder = broker::fresh_folder(&format!("durable-{name}-{shards}"));
        let mut setup = Setup::new(&folder.join("data"))
            .config("[journal]\nsegment_size = \"1MiB\"\n")
            .argument("--shards", &shards.to_string());
        let broker = Some(setup.start());
        let topics = [0, 1].map(|shard| {
            let names = (0..).map(|n| format!("news.{shard}.{n}"));
            let mut fitting =
                names.filter(|name| shard_of(name.as_bytes(), shards).0 == shard % shards);
            fitting.next().unwrap()
        });
        Self {
            setup,
            broker,
            topics,
        }
    }

    fn address(&self) -> SocketAddr {
        self.broker.as_ref().unwrap().address()
    }

    fn kill_and_restart(&mut self) {
        self.broker.take().unwrap().kill();
        self.broker = Some(self.setup.start());
    }

    /// A connection of the client `id`; empty for none.
    fn client(&self, id: &str) -> Peer {
        let mut client = Client::open(self.address()).unwrap();
        let mut headers = vec![("accept-version", "1.2"), ("host", "/")];
        if !id.is_empty() {
            headers.push(("client-id", id));
        }
        client.send("CONNECT", &headers, b"").unwrap();
        let mut peer = Peer(client);
        assert_eq!(peer.receive().command, "CONNECTED");
        peer
    }

    fn publish(&self, topic: &str, bodies: &[&str], persistent: &str) {
        let destination = format!("/topic/{topic}");
        let mut client = self.client("");
        for body in bodies {
            let headers = [
                ("destination", destination.as_str()),
                ("persistent", persistent),
                ("receipt", body),
            ];
            client.0.send("SEND", &headers, body.as_bytes()).unwrap();
            client.wait_receipt(body);
        }
    }
}

struct Peer(Client);

impl Peer {
    fn receive(&mut self) -> Frame {
        let frame = self.0.receive(PATIENCE).unwrap();
        frame.unwrap_or_else(|| panic!("nothing came within {PATIENCE:?}"))
    }

    fn wait_receipt(&mut self, receipt: &str) {
        let frame = self.receive();
        assert_eq!(frame.header("receipt-id"), Some(receipt), "{frame:?}");
        assert_eq!(frame.command, "RECEIPT", "{frame:?}");
    }

    fn ask(&mut self, command: &str, headers: &[(&str, &str)]) {
        let mut headers = headers.to_vec();
        headers.push(("receipt", "r"));
        self.0.send(command, &headers, b"").unwrap();
    }

    fn ask_subscribe(&mut self, topic: &str, name: &str) {
        let destination = format!("/topic/{topic}");
        let headers = [
            ("id", "0"),
            ("destination", &destination),
            ("ack", "client-individual"),
            (ALIASES[0], name),
        ];
        self.ask("SUBSCRIBE", &headers);
    }

    /// Subscribes; the receipt may come behind the first messages, which are returned.
    fn subscribe(&mut self, topic: &str, name: &str, messages: usize) -> Vec<Frame> {
        self.ask_subscribe(topic, name);
        let mut frames: Vec<_> = (0..=messages).map(|_| self.receive()).collect();
        let receipt = frames.iter().position(|frame| frame.command == "RECEIPT");
        let receipt = receipt.unwrap_or_else(|| panic!("no receipt: {frames:?}"));
        frames.remove(receipt);
        frames
    }

    fn acknowledge(&mut self, message: &Frame) {
        self.ask("ACK", &[("id", message.header("ack").unwrap())]);
        self.wait_receipt("r");
    }

    fn disconnect(mut self) {
        self.ask("DISCONNECT", &[]);
        self.wait_receipt("r");
    }

    /// The next frame is an ERROR with this text, for the frame that asked.
    fn refused(mut self, text: &str) {
        let frame = self.receive();
        assert_eq!(frame.command, "ERROR", "{frame:?}");
        let said = format!("{frame:?} {}", String::from_utf8_lossy(&frame.body));
        assert!(said.contains(text), "{text:?} not in {said}");
        assert_eq!(frame.header("receipt-id"), Some("r"), "{frame:?}");
    }

    /// The broker closes before another frame is whole.
    fn expect_end(&mut self) {
        let frame = self.0.receive(PATIENCE);
        assert_eq!(
            frame.map_err(|e| e.kind()),
            Err(std::io::ErrorKind::UnexpectedEof)
        );
    }

    /// Something came that was not read yet: the beginning of a frame.
    fn wait_bytes(&mut self) {
        let limit = Instant::now() + PATIENCE;
        while self.0.buffered().unwrap() == 0 {
            assert!(Instant::now() < limit, "nothing came within {PATIENCE:?}");
            std::thread::yield_now();
        }
    }

    fn expect_silence(&mut self) {
        assert_eq!(self.0.receive(SILENCE).unwrap(), None);
    }
}

fn bodies(frames: &[Frame]) -> Vec<String> {
    let text = |frame: &Frame| String::from_utf8(frame.body.clone()).unwrap();
    frames.iter().map(text).collect()
}

fn redelivered(frames: &[Frame]) -> Vec<bool> {
    let flag = |frame: &Frame| frame.header("redelivered") == Some("true");
    frames.iter().map(flag).collect()
}

fn on_each(test: impl Fn(u16)) {
    [1, 2].into_iter().for_each(test);
}

#[test]
fn collects_offline_and_over_a_kill_and_redelivers_what_was_not_settled() {
    on_each(|shards| {
        let mut place = Place::new("offline", shards);
        for topic in place.topics.clone() {
            let mut client = place.client("ada");
            client.subscribe(&topic, &topic, 0);
            client.disconnect();
            place.publish(&topic, &["1", "2"], "true");
            place.publish(&topic, &["memory"], "false");
            let mut client = place.client("ada");
            let messages = client.subscribe(&topic, &topic, 3);
            assert_eq!(bodies(&messages), ["1", "2", "memory"]);
            assert_eq!(redelivered(&messages), [false; 3]);
            client.acknowledge(&messages[0]);
            // Nobody says goodbye: the broker notices that the socket is gone.
        }
        place.kill_and_restart();
        let last = place.topics.clone();
        for topic in &last {
            place.publish(topic, &["3"], "true");
            let mut client = place.client("ada");
            let messages = client.subscribe(topic, topic, 2);
            assert_eq!(bodies(&messages), ["2", "3"]);
            assert_eq!(redelivered(&messages), [true, false]);
            messages
                .iter()
                .for_each(|message| client.acknowledge(message));
            client.disconnect();
        }
        place.kill_and_restart();
        for topic in &last {
            let mut client = place.client("ada");
            client.subscribe(topic, topic, 0);
            client.expect_silence();
        }
    });
}

#[test]
fn one_at_a_time_and_each_client_its_own() {
    on_each(|shards| {
        let place = Place::new("one", shards);
        let [topic, other] = place.topics.clone();
        let mut first = place.client("ada");
        first.subscribe(&topic, "s", 0);
        for (topic, name) in [(&topic, "the same"), (&other, "another topic")] {
            let mut second = place.client("ada");
            second.ask_subscribe(topic, "s");
            println!("{name}");
            second.refused("somebody is attached");
        }
        let mut second = place.client("ada");
        second.ask("UNSUBSCRIBE", &[(ALIASES[2], "s")]);
        second.refused("somebody is attached");
        // The same words for another client, and such as would make the same name in the node.
        place.client("bob").subscribe(&topic, "s", 0);
        place.client("ada.a").subscribe(&topic, "b", 0);
        place.client("ada").subscribe(&topic, "a.b", 0);
        // What was refused left nothing behind, and the first one is as it was.
        place.publish(&other, &["nobody"], "true");
        place.publish(&topic, &["1"], "true");
        let message = first.receive();
        assert_eq!(message.body, b"1");
        first.acknowledge(&message);
        first.disconnect();
        let mut again = place.client("ada");
        again.subscribe(&other, "s", 0);
        again.expect_silence();
    });
}

#[test]
fn another_topic_replaces_the_former() {
    on_each(|shards| {
        let mut place = Place::new("topic", shards);
        let [topic, other] = place.topics.clone();
        let mut client = place.client("ada");
        client.subscribe(&topic, "s", 0);
        client.disconnect();
        place.publish(&topic, &["old"], "true");
        let mut client = place.client("ada");
        client.subscribe(&other, "s", 0);
        client.disconnect();
        place.publish(&other, &["new"], "true");
        place.publish(&topic, &["nobody"], "true");
        place.kill_and_restart();
        let mut client = place.client("ada");
        let messages = client.subscribe(&other, "s", 1);
        assert_eq!(bodies(&messages), ["new"]);
        client.disconnect();
        let mut client = place.client("ada");
        client.subscribe(&topic, "s", 0);
        client.expect_silence();
    });
}

#[test]
fn unsubscribe_with_the_name_deletes_and_nothing_else_does() {
    on_each(|shards| {
        let mut place = Place::new("unsubscribe", shards);
        for (topic, alias) in place.topics.clone().iter().zip(ALIASES) {
            // Plain UNSUBSCRIBE only detaches.
            let mut client = place.client("ada");
            client.subscribe(topic, "s", 0);
            client.ask("UNSUBSCRIBE", &[("id", "0")]);
            client.wait_receipt("r");
            place.publish(topic, &["1"], "true");
            // Attached, on the same connection.
            let messages = client.subscribe(topic, "s", 1);
            assert_eq!(bodies(&messages), ["1"]);
            client.ask("UNSUBSCRIBE", &[("id", "0"), (alias, "s")]);
            client.wait_receipt("r");
            client.subscribe(topic, "s", 0);
            client.expect_silence();
            client.disconnect();
            // Not attached, on another one, with an id that is not there or none.
            place.publish(topic, &["2"], "true");
            let mut client = place.client("ada");
            client.ask("UNSUBSCRIBE", &[("id", "77"), (alias, "s")]);
            client.wait_receipt("r");
            client.ask("UNSUBSCRIBE", &[(alias, "s")]);
            client.refused("no durable subscription of that name");
        }
        place.kill_and_restart();
        for topic in place.topics.clone() {
            let mut client = place.client("ada");
            client.subscribe(&topic, "s", 0);
            client.expect_silence();
            client.disconnect();
        }
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new("refused", 2);
    let topic = ("destination", "/topic/news");
    for alias in ALIASES {
        let name = (alias, "s");
        let mut client = place.client("");
        client.ask("SUBSCRIBE", &[("id", "0"), topic, name]);
        client.refused("client-id");
        let mut client = place.client("");
        client.ask("UNSUBSCRIBE", &[("id", "0"), name]);
        client.refused("client-id");
        let mut client = place.client("ada");
        let queue = ("destination", "/queue/news");
        client.ask("SUBSCRIBE", &[("id", "0"), queue, name]);
        client.refused("Only topics");
        let mut client = place.client("ada");
        client.ask("SUBSCRIBE", &[("id", "0"), topic, (alias, "")]);
        client.refused("without a name");
    }
    let mut client = place.client("ada");
    client.ask_subscribe("news", &"n".repeat(2000));
    client.refused("1024 are the most");
    let mut client = place.client("ada");
    client.subscribe("news", "s", 0);
    client.ask("UNSUBSCRIBE", &[("id", "0"), (ALIASES[0], "t")]);
    client.refused("two subscriptions named");
}

#[test]
fn two_who_want_the_name_at_once_never_both_get_it() {
    on_each(|shards| {
        let place = Place::new("race", shards);
        let mut winners = 0;
        for round in 0..30 {
            let mut peers = [place.client("ada"), place.client("ada")];
            let name = format!("s{round}");
            for (peer, topic) in peers.iter_mut().zip(&place.topics) {
                peer.ask_subscribe(topic, &name);
            }
            let answers = peers.each_mut().map(|peer| peer.receive().command);
            let attached = answers.iter().filter(|answer| *answer == "RECEIPT");
            let count = attached.count();
            assert!(count <= 1, "{answers:?}");
            winners += count;
        }
        println!("{winners} of 30 rounds had a winner");
    });
}

/// The message is in the journal for the one and on its way at once to the other, which must not
/// look for it on the disk before it is there.
#[test]
fn plain_and_durable_subscriptions_of_one_topic_get_the_same_messages() {
    on_each(|shards| {
        let place = Place::new("beside", shards);
        for topic in &place.topics {
            let mut durable = place.client("ada");
            durable.subscribe(topic, "s", 0);
            let mut plain = place.client("");
            let destination = format!("/topic/{topic}");
            let headers = [("id", "0"), ("destination", destination.as_str())];
            plain.ask("SUBSCRIBE", &headers);
            plain.wait_receipt("r");
            for round in 0..20 {
                let body = format!("{round}");
                place.publish(topic, &[&body], "true");
                assert_eq!(plain.receive().body, body.as_bytes());
                let message = durable.receive();
                assert_eq!(message.body, body.as_bytes());
                durable.acknowledge(&message);
            }
        }
    });
}

/// The body cannot end any more: the connection does.
#[test]
fn unsubscribe_amid_a_long_body_ends_the_connection_and_the_subscription() {
    on_each(|shards| {
        let place = Place::new("amid", shards);
        for topic in &place.topics {
            let mut client = place.client("ada");
            client.subscribe(topic, "s", 0);
            // Much more than the sockets and the window hold: it is under way until it is read.
            let body = vec![b'x'; 40 << 20];
            let destination = format!("/topic/{topic}");
            let mut producer = place.client("");
            let headers = [
                ("destination", destination.as_str()),
                ("persistent", "true"),
                ("receipt", "r"),
            ];
            producer.0.send("SEND", &headers, &body).unwrap();
            producer.wait_receipt("r");
            client.wait_bytes();
            client.ask("UNSUBSCRIBE", &[("id", "0"), (ALIASES[0], "s")]);
            client.expect_end();
            let mut client = place.client("ada");
            client.subscribe(topic, "s", 0);
            client.expect_silence();
            client.ask("UNSUBSCRIBE", &[("id", "0"), (ALIASES[0], "s")]);
            client.wait_receipt("r");
        }
    });
}

#[test]
fn what_is_sent_in_one_go_stays_in_order() {
    on_each(|shards| {
        let place = Place::new("order", shards);
        let [topic, other] = place.topics.clone();
        let (topic, other) = (format!("/topic/{topic}"), format!("/topic/{other}"));
        for round in 0..20 {
            let mut client = place.client("ada");
            let name = (ALIASES[round % 3], "s");
            let frames = [
                ("SUBSCRIBE", vec![("destination", topic.as_str())]),
                ("UNSUBSCRIBE", vec![]),
                ("SUBSCRIBE", vec![("destination", other.as_str())]),
                ("UNSUBSCRIBE", vec![]),
                ("SUBSCRIBE", vec![("destination", topic.as_str())]),
            ];
            for (number, (command, mut headers)) in frames.into_iter().enumerate() {
                let receipt = number.to_string();
                headers.extend([("id", "0"), name, ("receipt", &receipt)]);
                client.0.queue(&Frame::new(command, &headers, b""));
            }
            let (destination, receipt) = (("destination", topic.as_str()), ("receipt", "sent"));
            client
                .0
                .queue(&Frame::new("SEND", &[destination, receipt], b"x"));
            let bye = [("receipt", "bye")];
            client.0.queue(&Frame::new("DISCONNECT", &bye, b""));
            client.0.flush().unwrap();
            let mut receipts = Vec::new();
            while receipts.last().is_none_or(|last| last != "bye") {
                let frame = client.receive();
                match frame.command.as_str() {
                    "RECEIPT" => receipts.push(frame.header("receipt-id").unwrap().to_owned()),
                    "MESSAGE" => {}
                    _ => panic!("{frame:?}"),
                }
            }
            receipts.sort();
            assert_eq!(receipts, ["0", "1", "2", "3", "4", "bye", "sent"]);
            let mut client = place.client("ada");
            client.ask("UNSUBSCRIBE", &[name]);
            client.wait_receipt("r");
        }
    });
}
