//! Runs a transcript over TCP, as any client would.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::transcript::{Action, Level, Transcript, Variables};
use crate::wire;

/// Longest wait for what the server should do: far above what is normal, so that a slow machine
/// does not fail a test and a broken server does not hang it.
const PATIENCE: Duration = Duration::from_secs(10);

struct Peer {
    socket: TcpStream,
    received: Vec<u8>,
}

/// Runs one transcript against the server at `addr` (host:port); returns how many steps it had.
///
/// Expected engine events are passed over: only what a client can see counts. `on_close` is called
/// with the place of each step at which the server closed a connection.
/// Panics: at the first step that is not as written, naming file and line.
pub(crate) fn run_transcript_over_tcp(
    path: &Path,
    addr: &str,
    mut on_close: impl FnMut(&str),
) -> usize {
    let transcript = Transcript::read(path);
    assert_ne!(
        transcript.level,
        Level::EngineOnly,
        "{} needs a clock or limits",
        transcript.name
    );
    let mut variables = Variables::new(&run_name());
    let mut peers: BTreeMap<&str, Peer> = BTreeMap::new();
    for step in &transcript.steps {
        let place = format!(
            "{}:{} ({})",
            transcript.name,
            step.line,
            step.section.as_ref().unwrap()
        );
        let peer = peers
            .entry(&step.peer)
            .or_insert_with(|| Peer::connect(addr));
        match &step.action {
            Action::Client(text) => peer.send(&variables.expand(text)),
            Action::Server(expected) => {
                peer.frame(&place).check(&place, expected, &mut variables);
            }
            Action::ServerCloses => {
                peer.expect_close(&place);
                on_close(&place);
            }
            Action::Event(_) => {}
            Action::Pass(_) => panic!("{place}: time passes only in engine-only transcripts"),
        }
    }
    transcript.steps.len()
}

/// Names of queues must differ from run to run: a broker remembers.
fn run_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!(
        "{:x}-{}",
        now.as_nanos(),
        RUNS.fetch_add(1, Ordering::Relaxed)
    )
}

impl Peer {
    fn connect(addr: &str) -> Self {
        let socket = TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            received: Vec::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // A server that refused the connection may be gone already; what it said is read later.
        let _ = self.socket.write_all(bytes);
    }

    fn frame(&mut self, place: &str) -> wire::Frame {
        loop {
            if let Some(frame) = wire::take_frame(&mut self.received) {
                return frame;
            }
            assert!(self.receive(place), "{place}: closed instead of a frame");
        }
    }

    fn expect_close(&mut self, place: &str) {
        while self.receive(place) {}
        let rest = wire::take_frame(&mut self.received);
        assert!(rest.is_none(), "{place}: {rest:?} instead of closing");
    }

    /// Returns false when the server has closed.
    fn receive(&mut self, place: &str) -> bool {
        let mut buffer = [0; 16_384];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(len) => {
                self.received.extend_from_slice(&buffer[..len]);
                true
            }
            // STOMP 1.2 "Connection Lingering": a reset is a close.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{place}: {error} (nothing for {PATIENCE:?})"),
        }
    }
}
