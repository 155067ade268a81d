//! Row 17: NACK in a transaction. The delivery fails when that commits, as one that is refused
//! beside it does at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::broker::process::wait_until;
use crate::broker::stomp::{Client, Frame};
use crate::{
    PATIENCE, ask, browse, connect, deliveries, next, next_message, send, text, with_shards,
};

/// Enough that two shards have several each.
const QUEUES: usize = 6;
const DEAD: &str = "/queue/DLQ";

fn queue(number: usize) -> String {
    format!("/queue/refused.{number}")
}

fn seen(address: SocketAddr, queue: &str) -> Vec<String> {
    browse(&mut connect(address), queue, "b")
}

/// Dead letters are on their way for a moment.
fn dead_letters(address: SocketAddr, count: usize) -> BTreeSet<String> {
    let mut found = Vec::new();
    wait_until(PATIENCE, "all are there", || {
        found = seen(address, DEAD);
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:?}");
    found.into_iter().collect()
}

fn answer_in(client: &mut Client, transaction: &str, number: usize, message: &Frame) {
    let own = [
        ("id", message.header("ack").unwrap()),
        ("transaction", transaction),
    ];
    match number % 3 {
        0 => client.send("NACK", &own, b""),
        1 => client.send("NACK", &[&own[..], &[("requeue", "false")]].concat(), b""),
        _ => client.send("ACK", &own, b""),
    }
    .unwrap();
}

#[test]
fn refusals_count_with_the_commit() {
    with_shards("tx-nack", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        let mut held = BTreeMap::new();
        for number in 0..QUEUES {
            send(&mut client, &queue(number), &[], &number.to_string());
            let id = number.to_string();
            let headers = [
                ("id", id.as_str()),
                ("destination", &queue(number)),
                ("ack", "client-individual"),
            ];
            client.send("SUBSCRIBE", &headers, b"").unwrap();
            held.insert(number, next_message(&mut client));
        }
        for (name, end) in [("a", "ABORT"), ("b", "COMMIT")] {
            ask(&mut client, "BEGIN", &[("transaction", name)]);
            for (number, message) in &held {
                answer_in(&mut client, name, *number, message);
            }
            // A receipt shows that all that came before is done, and nothing of it counts.
            send(&mut client, "/queue/refused.beside", &[], name);
            assert_eq!(seen(address, DEAD), [""; 0]);
            if end == "ABORT" {
                ask(&mut client, end, &[("transaction", name)]);
            }
        }
        let commit = [("transaction", "b"), ("receipt", "done")];
        client.send("COMMIT", &commit, b"").unwrap();
        let frames: Vec<_> = (0..=QUEUES / 3).map(|_| next(&mut client)).collect();
        let (messages, receipts): (Vec<_>, Vec<_>) =
            frames.iter().partition(|one| one.command == "MESSAGE");
        assert_eq!(receipts.len(), 1, "{frames:?}");
        for message in messages {
            let number: usize = text(message).parse().unwrap();
            assert_eq!((number % 3, deliveries(message)), (0, 2));
        }
        let dead = ["1".to_owned(), "4".to_owned()].into();
        assert_eq!(dead_letters(address, 2), dead);
        assert!(running.kill().code().is_none());
        let running = setup.start();
        let address = running.address();
        for number in 0..QUEUES {
            let expected = usize::from(number % 3 == 0);
            assert_eq!(seen(address, &queue(number)).len(), expected, "{number}");
        }
        assert_eq!(dead_letters(address, 2), dead);
        assert!(running.stop().success());
    });
}

#[test]
fn what_is_refused_in_a_transaction_is_not_refused_again_and_fails_as_often_as_it_may() {
    with_shards("tx-nack-twice", |setup| {
        setup
            .config
            .push_str("[[address]]\nmatch = \"once.#\"\nmax_delivery_attempts = 1\n");
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        send(&mut client, "/queue/once.a", &[], "a");
        send(&mut client, "/queue/once.b", &[], "b");
        // Of several queues in one subscription: the connection knows what it holds.
        let headers = [
            ("id", "0"),
            ("destination", "/queue/once.a,/queue/once.b"),
            ("ack", "client-individual"),
        ];
        client.send("SUBSCRIBE", &headers, b"").unwrap();
        let held = [next_message(&mut client), next_message(&mut client)];
        ask(&mut client, "BEGIN", &[("transaction", "t")]);
        held.iter()
            .for_each(|one| answer_in(&mut client, "t", 0, one));
        ask(&mut client, "ABORT", &[("transaction", "t")]);
        ask(&mut client, "BEGIN", &[("transaction", "u")]);
        held.iter()
            .for_each(|one| answer_in(&mut client, "u", 0, one));
        ask(&mut client, "COMMIT", &[("transaction", "u")]);
        let dead = ["a".to_owned(), "b".to_owned()].into();
        assert_eq!(dead_letters(address, 2), dead);
        let id = held[0].header("ack").unwrap();
        client.send("NACK", &[("id", id)], b"").unwrap();
        crate::refused(client, "no such delivery");
        assert!(running.stop().success());
    });
}

/// Refuses one job after another for good, each in a transaction that sends its body to all queues.
struct Refuser {
    client: Client,
    next_job: Option<Frame>,
}

impl Refuser {
    /// Until the broker is gone; returns how many transactions were confirmed.
    fn run(mut self, jobs: &str) -> usize {
        let headers = [
            ("id", "0"),
            ("destination", jobs),
            ("ack", "client-individual"),
            ("activemq.prefetchSize", "1"),
        ];
        let mut count = 0;
        if self.client.send("SUBSCRIBE", &headers, b"").is_ok() {
            while self.round().is_ok() {
                count += 1;
            }
        }
        count
    }

    fn round(&mut self) -> io::Result<()> {
        let job = match self.next_job.take() {
            Some(job) => job,
            None => self.receive("MESSAGE")?,
        };
        let client = &mut self.client;
        client.send("BEGIN", &[("transaction", "t")], b"")?;
        for number in 0..QUEUES {
            let headers = [
                ("destination", &*queue(number)),
                ("persistent", "true"),
                ("transaction", "t"),
            ];
            client.send("SEND", &headers, &job.body)?;
        }
        let headers = [
            ("id", job.header("ack").unwrap()),
            ("transaction", "t"),
            ("requeue", "false"),
        ];
        client.send("NACK", &headers, b"")?;
        client.send("COMMIT", &[("transaction", "t"), ("receipt", "done")], b"")?;
        self.receive("RECEIPT").map(drop)
    }

    /// The next job may come before the receipt: what is refused in a transaction uses up no
    /// credit.
    fn receive(&mut self, command: &str) -> io::Result<Frame> {
        loop {
            let frame = self.client.receive(PATIENCE)?;
            let frame = frame.unwrap_or_else(|| panic!("no {command} within {PATIENCE:?}"));
            if frame.command == command {
                return Ok(frame);
            }
            assert_eq!(frame.command, "MESSAGE", "{frame:?}");
            assert!(self.next_job.replace(frame).is_none(), "prefetch is 1");
        }
    }
}

#[test]
fn killed_at_any_moment_a_refusal_counts_with_the_rest_of_its_transaction() {
    with_shards("tx-nack-kill", |setup| {
        let mut confirmed = 0;
        for (round, wait_ms) in [3, 17, 60, 150, 400].into_iter().enumerate() {
            confirmed += kill_and_check(setup, round, wait_ms);
        }
        assert!(confirmed > 20, "only {confirmed} commits were confirmed");
    });
}

#[allow(
    clippy::disallowed_methods,
    reason = "the moment of the kill is an input"
)]
fn kill_and_check(setup: &mut crate::Setup, round: usize, wait_ms: u64) -> usize {
    let running = setup.start();
    let address = running.address();
    let mut client = connect(address);
    let of_round = move |worker: usize| format!("/queue/jobs.{round}.{worker}");
    let all: BTreeSet<String> = (0..200).map(|number| format!("{round}.{number}")).collect();
    for (number, body) in all.iter().enumerate() {
        let to = of_round(number % 2);
        let headers = [("destination", to.as_str()), ("persistent", "true")];
        client.send("SEND", &headers, body.as_bytes()).unwrap();
    }
    send(&mut client, "/queue/refused.beside", &[], "all sent");
    let workers = [0, 1].map(|worker| {
        let refuser = Refuser {
            client: connect(address),
            next_job: None,
        };
        std::thread::spawn(move || refuser.run(&of_round(worker)))
    });
    #[allow(
        clippy::disallowed_methods,
        reason = "the moment of the kill is the input"
    )]
    std::thread::sleep(Duration::from_millis(wait_ms));
    assert!(running.kill().code().is_none());
    let confirmed = workers.map(|one| one.join().unwrap()).iter().sum();
    let running = setup.start();
    let address = running.address();
    let left: BTreeSet<String> = (0..2)
        .flat_map(|worker| seen(address, &of_round(worker)))
        .collect();
    let gone: BTreeSet<String> = all.difference(&left).cloned().collect();
    assert!(gone.len() >= confirmed, "{} of {confirmed}", gone.len());
    for number in 0..QUEUES {
        let sent = take_all(address, &queue(number));
        assert_eq!(sent, gone, "queue {number}");
    }
    assert_eq!(dead_letters(address, gone.len()), gone);
    assert_eq!(take_all(address, DEAD), gone);
    assert!(running.stop().success());
    confirmed
}

/// Takes all that is in a queue.
fn take_all(address: SocketAddr, queue: &str) -> BTreeSet<String> {
    let count = seen(address, queue).len();
    let mut client = connect(address);
    let headers = [
        ("id", "0"),
        ("destination", queue),
        ("ack", "client"),
        ("activemq.prefetchSize", "100000"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let messages: Vec<Frame> = (0..count).map(|_| next_message(&mut client)).collect();
    if let Some(last) = messages.last() {
        ask(&mut client, "ACK", &[("id", last.header("ack").unwrap())]);
    }
    ask(&mut client, "DISCONNECT", &[]);
    let bodies: BTreeSet<String> = messages.iter().map(text).collect();
    assert_eq!(bodies.len(), count, "one came twice");
    bodies
}
