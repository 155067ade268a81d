//! The real broker as a process: starts it, waits until it is ready, kills or stops it.
//!
//! Shared by integration tests (`#[path = "../broker/mod.rs"] mod broker;` or `mod broker;`).
//! `FOREBAY_PROGRAM` names another binary than the one cargo built with the tests, such as a
//! release build. Data folders lie below `CARGO_TARGET_TMPDIR`, on a real file system: `/tmp` may
//! be memory.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its part of the fixture"
)]

pub mod dialog;
pub mod process;
pub mod stomp;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Longest wait for the ready line: recovery of a test's journal takes far less.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a clean stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What to start: everything that is the same each time the broker comes back.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// The data folder; the broker's log lies beside it as `<data>.log`.
    pub data: PathBuf,
    /// TOML of the configuration file; empty means: no file.
    pub config: String,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// What runs the program, such as `setpriv` with its arguments; it must become the program.
    pub wrapper: Vec<String>,
    /// Address to listen on; port 0 at first, then the port it got so that clients find it again.
    pub address: SocketAddr,
}

/// A running broker. Dropping it kills it.
pub struct Broker {
    child: Option<Child>,
    address: SocketAddr,
    ready_line: String,
    log: PathBuf,
    /// Where in the log this life begins.
    log_start: u64,
}

impl Setup {
    /// Makes a setup for a data folder.
    pub fn new(data: &Path) -> Self {
        let program = std::env::var_os("FOREBAY_PROGRAM").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_forebay")),
            PathBuf::from,
        );
        Self {
            program,
            data: data.to_path_buf(),
            config: String::new(),
            arguments: Vec::new(),
            wrapper: Vec::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    /// Adds configuration.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self
    }

    /// Adds an argument with a value.
    pub fn argument(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_string(), value.to_string()]);
        self
    }

    /// Starts the broker and waits for its ready line; from then on this setup keeps its port.
    ///
    /// Panics: when it ends or says nothing within a minute, with the end of its log.
    pub fn start(&mut self) -> Broker {
        match self.spawn().wait_ready() {
            Ok(broker) => {
                self.address = broker.address;
                broker
            }
            Err(why) => panic!("{why}"),
        }
    }

    /// Starts the process and waits for nothing: to kill it while it recovers.
    pub fn spawn(&self) -> Starting {
        let log = self.log_file();
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let log_start = output.metadata().map_or(0, |metadata| metadata.len());
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        Starting {
            child: Some(child),
            log,
            log_start,
        }
    }

    /// The command line, with the configuration file written.
    fn command(&self) -> Command {
        let mut command = match self.wrapper.split_first() {
            None => Command::new(&self.program),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(&self.program);
                command
            }
        };
        command.arg("serve").arg("--data").arg(&self.data);
        command
            .arg("--stomp")
            .arg(self.address.to_string())
            .args(&self.arguments);
        if !self.config.is_empty() {
            let file = self.data.with_extension("toml");
            #[allow(
                clippy::disallowed_methods,
                reason = "the fixture writes the broker's file"
            )]
            fs::write(&file, &self.config).expect("the folder of the data folder is writable");
            command.arg("--config").arg(file);
        }
        command
    }

    /// Where the broker's standard error goes, over all its lives.
    pub fn log_file(&self) -> PathBuf {
        self.data.with_extension("log")
    }
}

/// A broker process that has not said that it is ready.
pub struct Starting {
    child: Option<Child>,
    log: PathBuf,
    log_start: u64,
}

impl Starting {
    /// Waits for the ready line. Errors: why it did not come, with the end of the log.
    pub fn wait_ready(mut self) -> Result<Broker, String> {
        let mut child = self.child.take().expect("taken only here and in kill");
        let stdout = child
            .stdout
            .take()
            .expect("standard output is a pipe: spawn asked for it");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads on after the ready line: a broker must never block on its standard output.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut broker = Broker {
            child: Some(child),
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            ready_line: String::new(),
            log: self.log.clone(),
            log_start: self.log_start,
        };
        loop {
            let line = match lines.recv_timeout(READY_TIMEOUT) {
                Ok(line) => line,
                Err(error) => {
                    let status = broker.end_status(error);
                    return Err(format!(
                        "broker not ready ({status}); its log ends:\n{}",
                        broker.log_tail()
                    ));
                }
            };
            if line.starts_with("ready") {
                broker.address = address_in(&line)
                    .ok_or_else(|| format!("no address in the ready line {line:?}"))?;
                broker.ready_line = line;
                return Ok(broker);
            }
        }
    }

    /// Kills it, in whatever it is doing; gives how it ended, as [`Broker::kill`] does.
    pub fn kill(mut self) -> ExitStatus {
        let child = self.child.take();
        kill_and_reap(child.expect("a broker is ended once"))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            kill_and_reap(child);
        }
    }
}

impl Broker {
    /// Where STOMP clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ready line as it was printed.
    pub fn ready_line(&self) -> &str {
        &self.ready_line
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Ends it by SIGKILL: no line of it runs any more. The status says whether it was that: a
    /// broker that had ended by itself has another.
    pub fn kill(mut self) -> ExitStatus {
        let child = self.child.take();
        kill_and_reap(child.expect("a broker is ended once"))
    }

    /// Ends it by SIGTERM and gives its exit status.
    ///
    /// Panics: when it does not end within half a minute, with the end of its log.
    pub fn stop(self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Says how it ended, or that it is still silent.
    fn end_status(&mut self, error: mpsc::RecvTimeoutError) -> String {
        match (error, self.child.as_mut()) {
            (mpsc::RecvTimeoutError::Timeout, _) => format!("silent for {READY_TIMEOUT:?}"),
            (_, Some(child)) => child
                .wait()
                .map_or_else(|e| e.to_string(), |s| s.to_string()),
            (_, None) => "ended".into(),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            kill_and_reap(child);
        }
    }
}

fn kill_and_reap(mut child: Child) -> ExitStatus {
    let _ = child.kill();
    child.wait().expect("our own child can be waited for")
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids of Linux fit in 22 bits"))
}

/// Finds the first socket address in the ready line, such as `ready: stomp 127.0.0.1:61613`.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(|c: char| c.is_whitespace() || ",;=()".contains(c))
        .map(|word| word.rsplit_once("://").map_or(word, |(_, address)| address))
        .find_map(|word| word.trim_end_matches(['.', '/']).parse().ok())
}

/// A folder for one test below the target folder, emptied of what an earlier run left.
pub fn fresh_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    #[allow(
        clippy::disallowed_methods,
        reason = "the test's own folder of an earlier run"
    )]
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}
