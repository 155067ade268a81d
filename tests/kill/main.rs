//! Real kills: the real broker, kill -9 at random moments under load, and a ledger that knows what
//! was promised (issue "the spine", point 17).
//!
//! Promised, and checked for every message over all lives of the broker:
//! * confirmed by RECEIPT -> delivered in the end, byte for byte;
//! * settled by ACK with RECEIPT -> never delivered again;
//! * seen by a consumer in an earlier life and not settled -> delivered again with
//!   `redelivered:true`; never seen twice in one life;
//! * one producer's messages reach one consumer in the order they were sent, without a gap that
//!   later ones do not share: the journal is cut at one point;
//! * nothing is delivered that was not sent.
//!
//! Each round is a life under load that SIGKILL ends. What else ends a life comes on top: SIGTERM
//! now and then, and SIGKILL while it recovers.
//!
//! `FOREBAY_KILL_ROUNDS` (100) and `FOREBAY_KILL_SEED` (from the clock, printed) repeat a run; a
//! failure keeps the data folder and prints the command. Moments of kills come from the seed, what
//! the broker was doing then does not: a seed repeats the schedule, not the interleaving.

#[path = "../broker/mod.rs"]
mod broker;
mod ledger;
mod load;

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use broker::{Broker, Setup, fresh_folder};
use ledger::{Event, Ledger};
use load::{Consumer, Producer, Random};
use nix::sys::signal::Signal;

/// Small segments, so that rotation, preparation and recycling happen many times per life.
const CONFIG: &str = "[journal]\nsegment_size = \"1MiB\"\n";
/// More confirmed and unsettled messages than this: producers pause for a round.
const BACKLOG_MAX: usize = 4_000;
/// Producers; producer `p` sends to queue `p % QUEUES`.
const PRODUCERS: u32 = 4;
/// Consumers of each queue: one sees the whole order, two compete.
const CONSUMERS: [u32; 2] = [1, 2];

#[test]
fn ledger_holds_over_kills_with_one_shard() {
    Run::new("kill-1", 1, rounds(100)).execute();
}

#[test]
fn ledger_holds_over_kills_with_two_shards() {
    Run::new("kill-2", 2, rounds(100).div_ceil(4)).execute();
}

/// The program under test and all that is known about it.
struct Run {
    name: &'static str,
    setup: Setup,
    folder: PathBuf,
    rounds: u32,
    seed: u64,
    random: Random,
    ledger: Ledger,
    sequences: Vec<u64>,
    lives: u32,
    kills: u32,
    kills_in_recovery: u32,
    stops: u32,
}

/// What ends a life under load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

impl Run {
    fn new(name: &'static str, shards: u32, rounds: u32) -> Self {
        let seed = seed();
        let folder = fresh_folder(name);
        let setup = Setup::new(&folder.join("data"))
            .config(CONFIG)
            .argument("--shards", &shards.to_string());
        Self {
            name,
            setup,
            folder,
            rounds,
            seed,
            random: Random(seed ^ u64::from(shards)),
            ledger: Ledger::new(),
            sequences: vec![0; PRODUCERS as usize],
            lives: 0,
            kills: 0,
            kills_in_recovery: 0,
            stops: 0,
        }
    }

    fn execute(mut self) {
        #[allow(
            clippy::disallowed_methods,
            reason = "the duration is printed, nothing else"
        )]
        let start = Instant::now();
        println!("{}: {} rounds, seed {}", self.name, self.rounds, self.seed);
        let outcome = self.all_rounds();
        let counts = self.ledger.counts();
        // `tools/test.sh` reads the numbers of kills from this line.
        println!(
            "{}: {} kills under load, {} while recovering, {} clean stops, {} lives, {:.1} s\n\
             {}: {counts}, {} of files at the end",
            self.name,
            self.kills,
            self.kills_in_recovery,
            self.stops,
            self.lives,
            start.elapsed().as_secs_f64(),
            self.name,
            mebibytes(folder_size(&self.folder.join("data"))),
        );
        if let Err(violation) = outcome {
            panic!(
                "{}: life {}: {violation}\n  data kept: {}\n  repeat: FOREBAY_KILL_SEED={} \
                 FOREBAY_KILL_ROUNDS={} cargo test --test kill {}",
                self.name,
                self.lives,
                self.folder.display(),
                self.seed,
                self.rounds,
                if self.name == "kill-1" {
                    "one_shard"
                } else {
                    "two_shards"
                },
            );
        }
        // A run that killed too little, or confirmed nothing, proves nothing.
        assert_eq!(self.kills, self.rounds, "not a kill under load per round");
        assert!(
            counts.confirmed > u64::from(self.rounds),
            "too little work: {counts}"
        );
        assert!(
            counts.settled > u64::from(self.rounds),
            "too little work: {counts}"
        );
        #[allow(clippy::disallowed_methods, reason = "the test's own folder")]
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn all_rounds(&mut self) -> Result<(), String> {
        for round in 0..self.rounds {
            if round > 0 && self.random.one_in(10) {
                let starting = self.setup.spawn();
                wait(self.random.below(40));
                killed(starting.kill()).map_err(|why| format!("round {round}, starting: {why}"))?;
                self.kills_in_recovery += 1;
            }
            if self.random.one_in(12) {
                self.one_life(End::Stop)
                    .map_err(|why| format!("round {round}, to be stopped: {why}"))?;
                self.stops += 1;
            }
            self.one_life(End::Kill)
                .map_err(|why| format!("round {round}: {why}"))?;
            self.kills += 1;
        }
        self.drain()?;
        self.nothing_left()
    }

    /// One life of the broker: load from all sides, then its end.
    fn one_life(&mut self, end: End) -> Result<(), String> {
        let broker = self.start()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let produce = self.ledger.backlog() < BACKLOG_MAX;
        let mut producers = Vec::new();
        for id in 0..PRODUCERS {
            if produce {
                let producer = self.producer(&broker, id, &stopping);
                producers.push(std::thread::spawn(move || producer.run()));
            }
        }
        let mut consumers = Vec::new();
        for (queue, count) in CONSUMERS.iter().enumerate() {
            for _ in 0..*count {
                let consumer = self.consumer(&broker, queue, &stopping);
                consumers.push(std::thread::spawn(move || consumer.run()));
            }
        }
        let span_ms = if self.random.one_in(4) { 600 } else { 150 };
        wait(5 + self.random.below(span_ms));
        match end {
            End::Kill => killed(broker.kill())?,
            End::Stop => {
                stopping.store(true, Ordering::Relaxed);
                let status = broker.stop();
                if status.code() != Some(0) {
                    return Err(format!("a clean stop ended with {status}"));
                }
            }
        }
        for (id, producer) in producers.into_iter().enumerate() {
            let (events, next) = producer
                .join()
                .expect("producers return, they do not panic");
            self.sequences[id] = next;
            self.apply(&events)?;
        }
        for consumer in consumers {
            self.ledger.new_connection();
            self.apply(
                &consumer
                    .join()
                    .expect("consumers return, they do not panic"),
            )?;
        }
        Ok(())
    }

    /// Takes everything out with one consumer per queue, until a last message behind all others
    /// comes, and holds the ledger against it.
    fn drain(&mut self) -> Result<(), String> {
        let broker = self.start()?;
        for queue in 0..CONSUMERS.len() {
            let last = self.send_last(&broker, queue)?;
            let stopping = Arc::new(AtomicBool::new(false));
            let mut consumer = self.consumer(&broker, queue, &stopping);
            consumer.until = Some(last);
            consumer.hold_max = 0;
            let events = consumer.run();
            self.ledger.new_connection();
            self.apply(&events)?;
        }
        let status = broker.stop();
        if status.code() != Some(0) {
            return Err(format!("the clean stop after draining ended with {status}"));
        }
        self.ledger.finish()
    }

    /// After a clean restart a new message is the first that comes: nothing settled was left.
    fn nothing_left(&mut self) -> Result<(), String> {
        let broker = self.start()?;
        for queue in 0..CONSUMERS.len() {
            let last = self.send_last(&broker, queue)?;
            let stopping = Arc::new(AtomicBool::new(false));
            let mut consumer = self.consumer(&broker, queue, &stopping);
            consumer.until = Some(last);
            consumer.hold_max = 0;
            let events = consumer.run();
            self.ledger.new_connection();
            self.apply(&events)?;
            let seen = events
                .iter()
                .filter(|event| matches!(event, Event::Seen { .. }))
                .count();
            if seen != 1 {
                return Err(format!(
                    "queue {queue}: {seen} messages after draining, 1 was sent"
                ));
            }
        }
        self.ledger.finish()
    }

    /// Sends one confirmed message behind all others of a queue and gives its identity.
    fn send_last(&mut self, broker: &Broker, queue: usize) -> Result<ledger::Message, String> {
        let id = u32::try_from(queue).expect("two queues");
        let stopping = Arc::new(AtomicBool::new(false));
        let mut producer = self.producer(broker, id, &stopping);
        producer.count_max = 1;
        let last = ledger::Message {
            producer: id,
            sequence: producer.next,
        };
        let (events, next) = producer.run();
        self.sequences[queue] = next;
        self.apply(&events)?;
        if !events.contains(&Event::Confirmed(last)) {
            return Err(format!(
                "the last message of queue {queue} was not confirmed: {events:?}"
            ));
        }
        Ok(last)
    }

    fn start(&mut self) -> Result<Broker, String> {
        self.lives += 1;
        self.ledger.new_life();
        let broker = self.setup.spawn().wait_ready()?;
        self.setup.address = broker.address();
        Ok(broker)
    }

    fn apply(&mut self, events: &[Event]) -> Result<(), String> {
        events.iter().try_for_each(|event| self.ledger.apply(event))
    }

    fn producer(&mut self, broker: &Broker, id: u32, stopping: &Arc<AtomicBool>) -> Producer {
        Producer {
            address: broker.address(),
            id,
            queue: id as usize % CONSUMERS.len(),
            next: self.sequences[id as usize],
            count_max: u64::MAX,
            window_max: [1, 16, 64, 16][id as usize % 4],
            seed: self.seed,
            stopping: Arc::clone(stopping),
        }
    }

    fn consumer(&mut self, broker: &Broker, queue: usize, stopping: &Arc<AtomicBool>) -> Consumer {
        Consumer {
            address: broker.address(),
            queue,
            hold_max: 8,
            until: None,
            seed: self.seed,
            random: Random(self.random.next()),
            stopping: Arc::clone(stopping),
        }
    }
}

/// Whether it was our SIGKILL that ended it: a broker that ended by itself before is a finding.
fn killed(status: ExitStatus) -> Result<(), String> {
    if status.signal() == Some(Signal::SIGKILL as i32) {
        Ok(())
    } else {
        Err(format!("ended by itself before the kill, with {status}"))
    }
}

fn rounds(usual: u32) -> u32 {
    number("FOREBAY_KILL_ROUNDS").map_or(usual, |n| u32::try_from(n).expect("at most 2^32 rounds"))
}

fn seed() -> u64 {
    number("FOREBAY_KILL_SEED").unwrap_or_else(|| {
        #[allow(
            clippy::disallowed_methods,
            reason = "a new seed for each run, printed"
        )]
        let now = std::time::SystemTime::now();
        let since = now
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        since.as_secs() ^ u64::from(since.subsec_nanos())
    })
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
    )
}

/// Lets the load run: the moment of the kill is the input of this test, not a hope.
#[allow(clippy::disallowed_methods, reason = "see above")]
fn wait(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

fn folder_size(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
