//! Conformance: transcripts of sessions, each step with its section of the specification.
//!
//! One kind of file, two ways to run it: against the engine (`level: engine`, no socket), or over
//! TCP against the real broker (all but `level: engine-only`). The format is told in
//! `transcript.rs`; which section is held by which file in `docs/conformance.md`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "tests read files and clocks")]

#[path = "../broker/mod.rs"]
mod broker;
mod engine;
mod tcp;
mod transcript;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::Setup;
use broker::stomp::Client;
use transcript::{Level, Transcript};

/// Returns all transcripts, sorted by name.
fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/transcripts");
    let entries = std::fs::read_dir(&folder).expect("the transcripts are part of the repository");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn run_all(levels: &[Level], mut run: impl FnMut(&Path) -> usize) {
    let (mut files, mut steps) = (0, 0);
    for path in transcripts() {
        if levels.contains(&Transcript::read(&path).level) {
            steps += run(&path);
            files += 1;
        }
    }
    println!("{files} transcripts, {steps} steps");
    assert!(files > 0, "no transcript of {levels:?}");
}

#[test]
fn the_engine_follows_the_transcripts() {
    run_all(&[Level::Engine, Level::EngineOnly], |path| {
        let transcript = Transcript::read(path);
        engine::run(&transcript, usize::MAX);
        engine::run(&transcript, 1);
        engine::run(&transcript, 7)
    });
}

/// The same files by the way a broker will be tested, against a server that is only an engine:
/// it shows that the runner over TCP and the server-side encoders work.
#[test]
fn the_engine_follows_the_transcripts_over_tcp() {
    let addr = engine::serve();
    run_all(&[Level::Engine], |path| {
        tcp::run_transcript_over_tcp(path, &addr, |_| {})
    });
}

/// A connection beside those of the transcripts: whatever they send, it must notice nothing.
struct Neighbour {
    client: Client,
    sent: u32,
}

impl Neighbour {
    fn new(address: SocketAddr) -> Self {
        let mut client = Client::connect(address).unwrap();
        let headers = [("id", "0"), ("destination", "/queue/neighbour")];
        client.send("SUBSCRIBE", &headers, b"").unwrap();
        Self { client, sent: 0 }
    }

    /// A durable message there and back, with its receipt, on the connection it always had.
    fn check(&mut self, place: &str) {
        self.sent += 1;
        let number = self.sent.to_string();
        let headers = [
            ("destination", "/queue/neighbour"),
            ("persistent", "true"),
            ("receipt", &number),
        ];
        let sent = self.client.send("SEND", &headers, number.as_bytes());
        sent.unwrap_or_else(|error| panic!("{place}: the neighbour cannot send: {error}"));
        let mut missing = vec!["MESSAGE", "RECEIPT"];
        while !missing.is_empty() {
            let frame = self.client.receive(Duration::from_secs(10));
            let frame = frame.unwrap_or_else(|error| panic!("{place}: the neighbour: {error}"));
            let frame = frame.unwrap_or_else(|| panic!("{place}: the neighbour waits in vain"));
            let is_right = match frame.command.as_str() {
                "MESSAGE" => frame.body == number.as_bytes(),
                "RECEIPT" => frame.header("receipt-id") == Some(&number),
                _ => false,
            };
            assert!(is_right, "{place}: the neighbour got {frame:?}");
            missing.retain(|command| *command != frame.command);
        }
    }
}

/// Transcripts against the real broker, one after the other: it remembers what came before.
fn run_against_the_broker(name: &str, shards: &str) {
    let folder = broker::fresh_folder(name);
    let mut setup = Setup::new(&folder.join("data")).argument("--shards", shards);
    setup = setup.config("[journal]\nsegment_size = \"4MiB\"\n");
    let running = setup.start();
    let addr = running.address().to_string();
    let mut neighbour = Neighbour::new(running.address());
    run_all(&[Level::Engine, Level::Broker], |path| {
        tcp::run_transcript_over_tcp(path, &addr, |place| neighbour.check(place))
    });
    println!(
        "a neighbour went on beside {} closed connections",
        neighbour.sent
    );
    assert!(running.stop().success(), "the broker did not stop in order");
}

#[test]
fn the_broker_follows_the_transcripts() {
    run_against_the_broker("conformance-1", "1");
}

/// Connections and queues are on different shards about half the time.
#[test]
fn two_shards_follow_the_transcripts() {
    run_against_the_broker("conformance-2", "2");
}

#[test]
fn every_transcript_is_in_the_table_and_cites_the_specification() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let table = std::fs::read_to_string(table).unwrap();
    for path in transcripts() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            table.contains(name),
            "docs/conformance.md does not name {name}"
        );
        let transcript = Transcript::read(&path);
        let uncited = transcript.steps.iter().find(|step| step.section.is_none());
        assert!(uncited.is_none(), "{name}: no section above {uncited:?}");
    }
}

/// The runner must be able to fail: a wrong expectation is found.
#[test]
#[should_panic(expected = "expected ERROR")]
fn a_wrong_expectation_is_found() {
    let text =
        "level: engine\n# STOMP 1.2 \"Connecting\"\nC: CONNECT\nC:\nC: ^@\nS: ERROR\nS:\nS: *^@\n";
    engine::run(&Transcript::parse("inline", text), usize::MAX);
}
