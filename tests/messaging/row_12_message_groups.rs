//! Row 12: messages of one group go to one consumer at a time, in their order, and others pass
//! them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::broker::stomp::{Client, Frame};
use crate::{ask, connect, next, next_message, send, subscribe, text, with_shards};

const QUEUE: &str = "/queue/grouped";

fn send_grouped(producer: &mut Client, group: &str, body: &str) {
    send(producer, QUEUE, &[("JMSXGroupID", group)], body);
}

/// A consumer that holds so many messages unsettled.
fn consumer(address: SocketAddr, prefetch: &str) -> Client {
    let mut client = connect(address);
    let headers = [
        ("ack", "client-individual"),
        ("prefetch-count", prefetch),
        ("receipt", "attached"),
    ];
    subscribe(&mut client, QUEUE, &headers);
    let answer = next(&mut client);
    assert_eq!(answer.header("receipt-id"), Some("attached"), "{answer:?}");
    client
}

fn settle(client: &mut Client, message: &Frame, verb: &str) {
    ask(client, verb, &[("id", message.header("ack").unwrap())]);
}

fn take(client: &mut Client, expected: &str) -> Frame {
    let message = next_message(client);
    assert_eq!(text(&message), expected);
    message
}

#[test]
fn message_groups_stay_with_one_consumer_and_others_pass_them() {
    with_shards("groups", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut one = consumer(running.address(), "1");
        let mut other = consumer(running.address(), "8");
        send_grouped(&mut producer, "a", "a1");
        let first = take(&mut one, "a1");
        for body in ["a2", "a3"] {
            send_grouped(&mut producer, "a", body);
        }
        // Artemis' own name for the header; and a message of no group.
        send(&mut producer, QUEUE, &[("_AMQ_GROUP_ID", "b")], "b1");
        send(&mut producer, QUEUE, &[], "free");
        take(&mut other, "b1");
        take(&mut other, "free");
        settle(&mut one, &first, "ACK");
        let second = take(&mut one, "a2");
        // Given back, it comes first again, to the same consumer.
        settle(&mut one, &second, "NACK");
        let second = take(&mut one, "a2");
        assert_eq!(second.header("redelivered"), Some("true"));
        // With its consumer gone, the group goes on where it was.
        drop(one);
        take(&mut other, "a2");
        take(&mut other, "a3");
        assert!(running.stop().success());
    });
}

#[test]
fn message_groups_end_with_a_sequence_below_zero() {
    with_shards("groups-end", |setup| {
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut one = consumer(running.address(), "9");
        let mut other = consumer(running.address(), "9");
        send_grouped(&mut producer, "a", "a1");
        take(&mut one, "a1");
        // The other consumer's turn, but it is not its group.
        let end = [("JMSXGroupID", "a"), ("JMSXGroupSeq", "-1")];
        send(&mut producer, QUEUE, &end, "a2");
        take(&mut one, "a2");
        send(
            &mut producer,
            QUEUE,
            &[("JMSXGroupID", "a"), ("JMSXGroupSeq", "1")],
            "again",
        );
        take(&mut other, "again");
        let malformed = [
            ("destination", QUEUE),
            ("JMSXGroupID", "a"),
            ("JMSXGroupSeq", "last"),
        ];
        producer.send("SEND", &malformed, b"").unwrap();
        let refused = next(&mut producer);
        assert_eq!(refused.command, "ERROR");
        assert_eq!(refused.header("message"), Some("group malformed"));
        assert!(running.stop().success());
    });
}

/// A consumer and the messages that came while it waited for a receipt.
struct Reader {
    client: Client,
    early: VecDeque<Frame>,
}

impl Reader {
    fn new(address: SocketAddr, prefetch: &str) -> Self {
        Self {
            client: consumer(address, prefetch),
            early: VecDeque::new(),
        }
    }

    /// The next message, settled for good; its group and its number.
    fn consume(&mut self) -> (usize, usize) {
        let early = self.early.pop_front();
        let message = early.unwrap_or_else(|| next_message(&mut self.client));
        let ack = [("id", message.header("ack").unwrap()), ("receipt", "done")];
        self.client.send("ACK", &ack, b"").unwrap();
        loop {
            let frame = next(&mut self.client);
            if frame.command == "RECEIPT" {
                break;
            }
            self.early.push_back(frame);
        }
        let body = text(&message);
        let (group, number) = body.split_once(' ').unwrap();
        (group.parse().unwrap(), number.parse().unwrap())
    }
}

#[test]
fn message_groups_are_in_order_after_the_broker_was_killed() {
    const GROUPS: usize = 5;
    const EACH: usize = 20;
    with_shards("groups-kill", |setup| {
        let mut running = setup.start();
        let mut producer = connect(running.address());
        for number in 0..EACH {
            for group in 0..GROUPS {
                let body = format!("{group} {number}");
                send_grouped(&mut producer, &format!("g{group}"), &body);
            }
        }
        let mut next_of = [0; GROUPS];
        for round in 0..4 {
            let mut consumers = [(); 2].map(|()| Reader::new(running.address(), "3"));
            let mut groups_of = [[false; GROUPS]; 2];
            for turn in 0..10 {
                let at = turn % 2;
                let (group, number) = consumers[at].consume();
                assert_eq!(number, next_of[group], "group {group} in round {round}");
                next_of[group] += 1;
                groups_of[at][group] = true;
            }
            let both = (0..GROUPS).find(|group| groups_of[0][*group] && groups_of[1][*group]);
            assert_eq!(both, None, "a group at two consumers");
            running.kill();
            running = setup.start();
        }
        let mut last = Reader::new(running.address(), "100");
        let left = GROUPS * EACH - next_of.iter().sum::<usize>();
        for _ in 0..left {
            let (group, number) = last.consume();
            assert_eq!(number, next_of[group]);
            next_of[group] += 1;
        }
        assert!(running.stop().success());
    });
}

#[test]
fn message_groups_are_given_out_anew_to_a_consumer_that_comes_if_asked_for() {
    with_shards("groups-rebalance", |setup| {
        setup.config += "[[address]]\nmatch = \"grouped\"\ndefault_group_rebalance = true\n";
        let running = setup.start();
        let mut producer = connect(running.address());
        let mut one = consumer(running.address(), "9");
        send_grouped(&mut producer, "a", "a1");
        let held = take(&mut one, "a1");
        send_grouped(&mut producer, "b", "b1");
        let free = take(&mut one, "b1");
        settle(&mut one, &free, "ACK");
        let mut other = consumer(running.address(), "9");
        // Nothing of "b" is under way: it begins anew. Of "a" something is: it waits for that.
        send_grouped(&mut producer, "a", "a2");
        send_grouped(&mut producer, "b", "b2");
        send_grouped(&mut producer, "c", "c1");
        let mut seen = [&mut one, &mut other].map(|client| text(&next_message(client)));
        seen.sort_unstable();
        assert_eq!(seen, ["b2", "c1"]);
        settle(&mut one, &held, "ACK");
        send_grouped(&mut producer, "d", "d1");
        assert!(running.stop().success());
    });
}

#[test]
fn message_groups_say_which_message_a_consumer_gets_first() {
    with_shards("groups-first", |setup| {
        setup.config += r##"
            [[address]]
            match = "grouped.#"
            default_group_first_key = "first:of"
        "##;
        let running = setup.start();
        let queue = "/queue/grouped.first";
        let mut producer = connect(running.address());
        let mut send_all = |bodies: &[&str]| {
            for body in bodies {
                // A header of that name is the broker's.
                let headers = [("JMSXGroupID", &body[..1]), ("first:of", "mine")];
                send(&mut producer, queue, &headers, body);
            }
        };
        send_all(&["a1", "a2", "b1"]);
        let attach = || {
            let mut client = connect(running.address());
            let headers = [("ack", "client-individual"), ("prefetch-count", "3")];
            subscribe(&mut client, queue, &headers);
            client
        };
        let expect = |client: &mut Client, body: &str, is_first: bool| {
            let message = take(client, body);
            let said = message.header("first:of") == Some("true");
            assert_eq!(said, is_first, "{message:?}");
            message
        };
        let mut one = attach();
        expect(&mut one, "a1", true);
        expect(&mut one, "a2", false);
        expect(&mut one, "b1", true);
        // Another consumer gets the groups: there each begins anew.
        ask(&mut one, "DISCONNECT", &[]);
        let mut other = attach();
        let held = expect(&mut other, "a1", true);
        expect(&mut other, "a2", false);
        expect(&mut other, "b1", true);
        send_all(&["a3"]);
        settle(&mut other, &held, "ACK");
        expect(&mut other, "a3", false);
        assert!(running.stop().success());
    });
}
