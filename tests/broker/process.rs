//! The broker as the system sees it: signals, exit codes, what it said, memory it uses.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::{Broker, READY_TIMEOUT, STOP_TIMEOUT, Setup, Starting, pid_of};
use std::fs::{self, File};

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A start that did not come to be: refused, or told to stop first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it said on standard error.
    pub said: String,
}

impl Refused {
    /// Panics unless the exit code is this one, all these words were said, and nothing panicked.
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        for word in words {
            assert!(self.said.contains(word), "{word:?} not in: {}", self.said);
        }
        assert!(!self.said.contains("panicked"), "{}", self.said);
    }
}

impl Setup {
    /// Starts the broker, which has to refuse.
    ///
    /// Panics: when it starts after all, or does neither within a minute.
    pub fn refused(&self) -> Refused {
        self.spawn().wait_end()
    }
}

impl Starting {
    /// Waits for the end of a broker that is not to become ready.
    ///
    /// Panics: when it does become ready, or does neither within a minute.
    pub fn wait_end(mut self) -> Refused {
        let mut child = self.child.take().expect("just started");
        let stdout = child.stdout.take().expect("spawn asked for a pipe");
        let ended = wait_in_thread(child);
        let status = ended.recv_timeout(READY_TIMEOUT);
        let said = self.said();
        let mut answer = String::new();
        let Ok((_child, status)) = status else {
            panic!("neither refused nor ended; it said: {said}");
        };
        let _ = { stdout }.read_to_string(&mut answer);
        assert_eq!(answer, "", "whoever is not ready says nothing there");
        Refused {
            code: status.code(),
            said,
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a start is ended once");
        kill(pid_of(child), signal).expect("our own child is not reaped yet");
    }

    /// What it said on standard error so far.
    pub fn said(&self) -> String {
        text_from(&self.log, self.log_start)
    }
}

impl Broker {
    /// What this life said on standard error so far.
    pub fn said(&self) -> String {
        text_from(&self.log, self.log_start)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a broker is ended once");
        kill(pid_of(child), signal).expect("our own child is not reaped yet");
    }

    /// Waits for its end.
    ///
    /// Panics: when it does not end within half a minute, with the end of its log.
    pub fn wait_exit(mut self) -> ExitStatus {
        let child = self.child.take().expect("a broker is ended once");
        let pid = pid_of(&child);
        match wait_in_thread(child).recv_timeout(STOP_TIMEOUT) {
            Ok((_, status)) => status,
            Err(_) => {
                let _ = kill(pid, Signal::SIGKILL);
                let tail = self.log_tail();
                panic!("broker did not stop within {STOP_TIMEOUT:?}; log ends:\n{tail}");
            }
        }
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        status_kib(self.pid(), "VmRSS:") * 1024
    }

    /// Most resident memory it ever had, in bytes.
    pub fn resident_max_bytes(&self) -> u64 {
        status_kib(self.pid(), "VmHWM:") * 1024
    }
}

fn wait_in_thread(mut child: Child) -> mpsc::Receiver<(Child, ExitStatus)> {
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let status = child.wait().expect("our own child can be waited for");
        let _ = sender.send((child, status));
    });
    ended
}

fn text_from(log: &std::path::Path, start: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.read_to_end(&mut bytes)
    });
    read.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[allow(clippy::disallowed_methods, reason = "the fixture looks at a process")]
fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the broker runs");
    let line = status.lines().find(|line| line.starts_with(key));
    let figure = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    figure.unwrap_or_else(|| panic!("no {key} in {status}"))
}

/// Waits until `condition` holds; the end of the wait is a failure that says `what` was missing.
#[allow(
    clippy::disallowed_methods,
    reason = "a condition outside cannot wake us"
)]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
