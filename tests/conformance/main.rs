//! Conformance: transcripts of sessions, each step with its section of the specification.
//!
//! One kind of file, two ways to run it: against the engine (`level: engine`, no socket), or over
//! TCP against a real broker (all but `level: engine-only`). The format is told in
//! `transcript.rs`; which section is held by which file in `docs/conformance.md`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod engine;
mod tcp;
mod transcript;
mod wire;

use std::path::{Path, PathBuf};

use transcript::{Level, Transcript};

/// Returns all transcripts, sorted by name.
fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/transcripts");
    let entries = std::fs::read_dir(&folder).expect("the transcripts are part of the repository");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn run_all(levels: &[Level], run: impl Fn(&Path) -> usize) {
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
        tcp::run_transcript_over_tcp(path, &addr)
    });
}

/// All transcripts against the broker at `FOREBAY_STOMP` (host:port).
#[test]
#[ignore = "needs a running broker: FOREBAY_STOMP=host:port"]
fn the_broker_follows_the_transcripts() {
    let addr = std::env::var("FOREBAY_STOMP").expect("set FOREBAY_STOMP=host:port");
    run_all(&[Level::Engine, Level::Broker], |path| {
        tcp::run_transcript_over_tcp(path, &addr)
    });
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
