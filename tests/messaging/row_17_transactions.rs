//! Row 17: local transactions over several destinations, of sends and acknowledgements.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::broker::Setup;
use crate::broker::stomp::{Client, Frame};
use crate::{
    PATIENCE, ask, browse, connect, next, next_message, send, subscribe, text, with_shards,
};

/// Enough that two shards have several each.
const QUEUES: usize = 8;

fn queue(number: usize) -> String {
    format!("/queue/tx.{}", number % QUEUES)
}

fn send_in(client: &mut Client, transaction: &str, to: &str, persistent: &str, body: &str) {
    let headers = [
        ("destination", to),
        ("persistent", persistent),
        ("transaction", transaction),
    ];
    client.send("SEND", &headers, body.as_bytes()).unwrap();
}

fn seen(address: SocketAddr, queue: &str) -> Vec<String> {
    browse(&mut connect(address), queue, "b")
}

fn ack_in(client: &mut Client, transaction: &str, message: &Frame) {
    let headers = [
        ("id", message.header("ack").unwrap()),
        ("transaction", transaction),
    ];
    client.send("ACK", &headers, b"").unwrap();
}

/// What comes next is an ERROR with these words, and the connection closes.
fn expect_error(client: &mut Client, words: &str) {
    let error = next(client);
    let message = error.header("message").unwrap_or_default();
    let all = format!("{message} {}", text(&error));
    assert!(error.command == "ERROR" && all.contains(words), "{error:?}");
    assert!(client.receive(PATIENCE).is_err(), "it has to close");
}

#[test]
fn nothing_is_there_before_the_commit_and_all_of_it_after() {
    with_shards("tx-commit", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        ask(&mut client, "BEGIN", &[("transaction", "t")]);
        for number in 0..3 * QUEUES {
            let persistent = if number % 3 == 0 { "false" } else { "true" };
            send_in(
                &mut client,
                "t",
                &queue(number),
                persistent,
                &number.to_string(),
            );
        }
        let large = "x".repeat(700_000);
        send_in(&mut client, "t", "/queue/tx.large", "true", &large);
        // Beside it, not in it.
        send(&mut client, &queue(0), &[], "plain");
        assert_eq!(seen(address, &queue(0)), ["plain"]);
        assert_eq!(seen(address, "/queue/tx.large"), [""; 0]);
        ask(&mut client, "COMMIT", &[("transaction", "t")]);
        for number in 0..QUEUES {
            let mut expected: Vec<String> = (0..3)
                .map(|round| (number + round * QUEUES).to_string())
                .collect();
            if number == 0 {
                expected.push("plain".to_owned());
            }
            assert_eq!(seen(address, &queue(number)), expected, "{number}");
        }
        assert_eq!(seen(address, "/queue/tx.large"), [large]);
        assert!(running.kill().code().is_none());
        let running = setup.start();
        for number in 0..QUEUES {
            let kept = (0..3).map(|round| number + round * QUEUES);
            let mut expected: Vec<String> = kept
                .filter(|one| one % 3 != 0)
                .map(|one| one.to_string())
                .collect();
            if number == 0 {
                expected.push("plain".to_owned());
            }
            assert_eq!(
                seen(running.address(), &queue(number)),
                expected,
                "{number}"
            );
        }
        assert!(running.stop().success());
    });
}

#[test]
fn abort_and_every_end_of_a_connection_leave_nothing() {
    with_shards("tx-abort", |setup| {
        let running = setup.start();
        let address = running.address();
        for way in 0..4 {
            let mut client = connect(address);
            ask(&mut client, "BEGIN", &[("transaction", "t")]);
            for number in 0..QUEUES {
                send_in(&mut client, "t", &queue(number), "true", "never");
                send_in(&mut client, "t", &queue(number), "false", "never");
            }
            match way {
                0 => ask(&mut client, "ABORT", &[("transaction", "t")]),
                1 => ask(&mut client, "DISCONNECT", &[]),
                2 => {
                    client.send("ACK", &[("id", "77-1")], b"").unwrap();
                    expect_error(&mut client, "no such delivery");
                }
                // It is gone without a word; what it sent has come, as the receipt shows.
                _ => {
                    send(&mut client, "/queue/tx.other", &[], "beside");
                    drop(client);
                }
            }
            for number in 0..QUEUES {
                assert_eq!(seen(address, &queue(number)), [""; 0], "way {way}");
            }
        }
        assert_eq!(seen(address, "/queue/tx.other"), ["beside"]);
        assert!(running.stop().success());
        let running = setup.start();
        assert_eq!(seen(running.address(), &queue(1)), [""; 0]);
        assert!(running.stop().success());
    });
}

#[test]
fn acknowledgements_count_with_the_commit() {
    with_shards("tx-ack", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        for number in 0..6 {
            send(&mut client, "/queue/tx.acks", &[], &number.to_string());
        }
        // More are acknowledged in the transaction than are in flight at once.
        let headers = [("ack", "client-individual"), ("activemq.prefetchSize", "2")];
        subscribe(&mut client, "/queue/tx.acks", &headers);
        client.send("BEGIN", &[("transaction", "a")], b"").unwrap();
        let mut held = Vec::new();
        for number in 0..4 {
            let message = next_message(&mut client);
            assert_eq!(text(&message), number.to_string());
            ack_in(&mut client, "a", &message);
            held.push(message);
        }
        // It was rolled back: the client has them still, and may acknowledge them again.
        let last = [next_message(&mut client), next_message(&mut client)];
        ask(&mut client, "ABORT", &[("transaction", "a")]);
        client.send("BEGIN", &[("transaction", "b")], b"").unwrap();
        for message in &held {
            ack_in(&mut client, "b", message);
        }
        send_in(&mut client, "b", "/queue/tx.out", "true", "answer");
        ask(&mut client, "COMMIT", &[("transaction", "b")]);
        // One that is acknowledged in a transaction nobody commits comes again.
        client.send("BEGIN", &[("transaction", "c")], b"").unwrap();
        ack_in(&mut client, "c", &last[0]);
        ask(&mut client, "UNSUBSCRIBE", &[("id", "0")]);
        drop(client);
        let mut other = connect(address);
        subscribe(
            &mut other,
            "/queue/tx.acks",
            &[("ack", "client-individual")],
        );
        let mut bodies = [next_message(&mut other), next_message(&mut other)];
        bodies.sort_by_key(text);
        assert_eq!(bodies.iter().map(text).collect::<Vec<_>>(), ["4", "5"]);
        assert_eq!(bodies[0].header("redelivered"), Some("true"));
        assert!(running.kill().code().is_none());
        let running = setup.start();
        assert_eq!(seen(running.address(), "/queue/tx.acks"), ["4", "5"]);
        assert_eq!(seen(running.address(), "/queue/tx.out"), ["answer"]);
        assert!(running.stop().success());
    });
}

#[test]
fn one_acknowledged_in_a_transaction_is_not_acknowledged_again() {
    with_shards("tx-twice", |setup| {
        let running = setup.start();
        let mut client = connect(running.address());
        (0..3).for_each(|one| send(&mut client, "/queue/tx.twice", &[], &one.to_string()));
        subscribe(&mut client, "/queue/tx.twice", &[("ack", "client")]);
        let messages: Vec<Frame> = (0..3).map(|_| next_message(&mut client)).collect();
        client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
        ack_in(&mut client, "t", &messages[0]);
        // All up to the second but for the first, which the transaction has.
        let second = messages[1].header("ack").unwrap();
        ask(&mut client, "ACK", &[("id", second)]);
        ask(&mut client, "ABORT", &[("transaction", "t")]);
        let first = messages[0].header("ack").unwrap();
        client.send("BEGIN", &[("transaction", "u")], b"").unwrap();
        ack_in(&mut client, "u", &messages[0]);
        client.send("ACK", &[("id", first)], b"").unwrap();
        expect_error(&mut client, "no such delivery");
        let mut other = connect(running.address());
        subscribe(&mut other, "/queue/tx.twice", &[]);
        let left = [next_message(&mut other), next_message(&mut other)];
        assert_eq!(left.map(|one| text(&one)), ["0", "2"]);
        assert!(running.stop().success());
    });
}

#[test]
fn what_cannot_be_done_is_said() {
    with_shards("tx-refused", |setup| {
        let running = setup.start();
        let address = running.address();
        let begin = |name| {
            let mut client = connect(address);
            client.send("BEGIN", &[("transaction", name)], b"").unwrap();
            client
        };
        for command in ["COMMIT", "ABORT"] {
            let mut client = begin("t");
            client.send(command, &[("transaction", "u")], b"").unwrap();
            expect_error(&mut client, "no such transaction");
        }
        let mut client = begin("t");
        client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
        expect_error(&mut client, "transaction exists");
        let mut client = begin("t");
        send_in(&mut client, "u", &queue(0), "true", "x");
        expect_error(&mut client, "no such transaction");
        let mut client = begin("0");
        for number in 1..65 {
            let name = number.to_string();
            client
                .send("BEGIN", &[("transaction", &name)], b"")
                .unwrap();
        }
        expect_error(&mut client, "too many transactions");
        // A name is free again, empty transactions end as others do, and several are open at once.
        let mut client = begin("t");
        ask(&mut client, "COMMIT", &[("transaction", "t")]);
        ask(&mut client, "BEGIN", &[("transaction", "t")]);
        ask(&mut client, "BEGIN", &[("transaction", "u")]);
        send_in(&mut client, "t", &queue(1), "true", "t");
        send_in(&mut client, "u", &queue(1), "true", "u");
        ask(&mut client, "ABORT", &[("transaction", "t")]);
        ask(&mut client, "COMMIT", &[("transaction", "u")]);
        assert_eq!(seen(address, &queue(1)), ["u"]);
        assert!(running.stop().success());
    });
}

#[test]
fn one_open_too_long_is_rolled_back() {
    with_shards("tx-timeout", |setup| {
        setup
            .config
            .push_str("[limits]\ntransaction_timeout_ms = 300\n");
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
        (0..QUEUES).for_each(|one| send_in(&mut client, "t", &queue(one), "true", "never"));
        expect_error(&mut client, "transaction open too long");
        (0..QUEUES).for_each(|one| assert_eq!(seen(address, &queue(one)), [""; 0]));
        assert!(running.stop().success());
    });
}

#[test]
fn one_that_is_large_stays_out_of_memory_and_pins_its_segments() {
    with_shards("tx-large", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut client = connect(address);
        client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
        let body = "y".repeat(20_000);
        let count = 500;
        for number in 0..count {
            send_in(&mut client, "t", &queue(number % 2), "true", &body);
        }
        // Ten segments of others come and go meanwhile.
        for _ in 0..100 {
            send(&mut client, "/queue/tx.passing", &[], &body);
        }
        subscribe(&mut client, "/queue/tx.passing", &[]);
        (0..100).for_each(|_| assert_eq!(next_message(&mut client).body.len(), 20_000));
        ask(&mut client, "COMMIT", &[("transaction", "t")]);
        assert!(running.kill().code().is_none());
        let running = setup.start();
        for number in 0..2 {
            let bodies = seen(running.address(), &queue(number));
            assert_eq!(bodies.len(), count / 2);
            assert!(bodies.iter().all(|one| *one == body));
        }
        assert!(running.stop().success());
    });
}

/// Moves of one worker: takes a message of its own queue, sends what came of it to all others.
struct Worker {
    number: usize,
    client: Client,
    next_job: Option<Frame>,
    /// Rounds begun, and those whose COMMIT was confirmed.
    begun: u32,
    confirmed: u32,
}

impl Worker {
    /// Runs until the broker is gone.
    fn run(mut self) -> Self {
        while self.round().is_ok() {
            self.confirmed = self.begun;
        }
        self
    }

    fn round(&mut self) -> std::io::Result<()> {
        self.begun += 1;
        let body = format!("{}.{}", self.number, self.begun);
        self.client.send("BEGIN", &[("transaction", "t")], b"")?;
        for to in 0..QUEUES {
            let queue = queue(to);
            let headers = [
                ("destination", queue.as_str()),
                ("persistent", "true"),
                ("transaction", "t"),
            ];
            self.client.send("SEND", &headers, body.as_bytes())?;
        }
        let job = match self.next_job.take() {
            Some(job) => job,
            None => self.receive("MESSAGE")?,
        };
        let headers = [("id", job.header("ack").unwrap()), ("transaction", "t")];
        self.client.send("ACK", &headers, b"")?;
        let headers = [("transaction", "t"), ("receipt", "done")];
        self.client.send("COMMIT", &headers, b"")?;
        let receipt = self.receive("RECEIPT")?;
        assert_eq!(receipt.header("receipt-id"), Some("done"));
        Ok(())
    }

    /// The next job may come before the receipt.
    fn receive(&mut self, command: &str) -> std::io::Result<Frame> {
        loop {
            let frame = self.client.receive(PATIENCE)?;
            let frame = frame.unwrap_or_else(|| panic!("no {command} within {PATIENCE:?}"));
            if frame.command == command {
                return Ok(frame);
            }
            assert_eq!(frame.command, "MESSAGE", "{frame:?}");
            self.next_job = Some(frame);
        }
    }
}

const WORKERS: usize = 3;
const JOBS: usize = 2_000;

fn jobs(number: usize) -> String {
    format!("/queue/tx.jobs.{number}")
}

/// One life under load, ended by SIGKILL after so many milliseconds; then the books.
fn live_and_check(setup: &mut Setup, wait_ms: u64) -> u32 {
    let running = setup.start();
    let address = running.address();
    let worker = |number| {
        let mut client = connect(address);
        let queue = jobs(number);
        let headers = [("ack", "client-individual"), ("activemq.prefetchSize", "1")];
        subscribe(&mut client, &queue, &headers);
        let worker = Worker {
            number,
            client,
            next_job: None,
            begun: 0,
            confirmed: 0,
        };
        std::thread::spawn(move || worker.run())
    };
    for number in 0..WORKERS {
        let mut client = connect(address);
        let left = seen(address, &jobs(number)).len();
        for _ in left..JOBS {
            let queue = jobs(number);
            let headers = [("destination", queue.as_str()), ("persistent", "true")];
            client.send("SEND", &headers, b"job").unwrap();
        }
        send(&mut client, &jobs(number), &[], "job");
    }
    let before: Vec<usize> = (0..WORKERS)
        .map(|one| seen(address, &jobs(one)).len())
        .collect();
    let threads: Vec<_> = (0..WORKERS).map(worker).collect();
    #[allow(
        clippy::disallowed_methods,
        reason = "the moment of the kill is the input"
    )]
    std::thread::sleep(Duration::from_millis(wait_ms));
    assert!(running.kill().code().is_none());
    let workers: Vec<Worker> = threads.into_iter().map(|one| one.join().unwrap()).collect();
    let running = setup.start();
    let address = running.address();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..QUEUES {
        for body in drain(address, &queue(number)) {
            *found.entry(body).or_default() += 1;
        }
    }
    for worker in &workers {
        let prefix = format!("{}.", worker.number);
        let committed = found
            .keys()
            .filter(|body| body.starts_with(&prefix))
            .count() as u32;
        let range = worker.confirmed..=worker.begun;
        assert!(range.contains(&committed), "{committed} of {range:?}");
        let left = seen(address, &jobs(worker.number)).len();
        let taken = (before[worker.number] - left) as u32;
        assert_eq!(
            taken, committed,
            "jobs taken, and answers of worker {}",
            worker.number
        );
    }
    for (body, count) in &found {
        assert_eq!(*count, QUEUES, "{body} is in some of the queues");
    }
    assert!(running.stop().success());
    workers.iter().map(|one| one.confirmed).sum()
}

/// Takes all that is in a queue.
fn drain(address: SocketAddr, queue: &str) -> Vec<String> {
    let count = seen(address, queue).len();
    let mut client = connect(address);
    let headers = [("ack", "client"), ("activemq.prefetchSize", "1000000")];
    subscribe(&mut client, queue, &headers);
    let messages: Vec<Frame> = (0..count).map(|_| next_message(&mut client)).collect();
    if let Some(last) = messages.last() {
        ask(&mut client, "ACK", &[("id", last.header("ack").unwrap())]);
    }
    ask(&mut client, "DISCONNECT", &[]);
    messages.iter().map(text).collect()
}

#[test]
fn killed_at_any_moment_each_is_whole_or_not_at_all() {
    with_shards("tx-kill", |setup| {
        let mut confirmed = 0;
        // Moments from the first commit to some hundreds of them.
        for round in 0..12_u64 {
            confirmed += live_and_check(setup, 5 + round * round * 3 + round % 3);
        }
        assert!(confirmed > 50, "only {confirmed} commits were confirmed");
    });
}
