//! The command line: what can be asked, checked, and turned into plans.

use crate::connection::{BenchError, Credentials};
use crate::frame::{Filler, STAMP_LEN};
use crate::plan::{AckMode, Consumption, Plan, Production, Stop};
use crate::schedule::Pace;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "Exit status:\n  \
    0  measured, and the ledger is sound\n  \
    1  a promise was broken (confirmed but not received, duplicate, disorder, ...), or the\n     \
       broker sent ERROR or closed a connection; each is named on standard error\n  \
    2  not measured: nobody listens, not STOMP 1.2, a wrong option, a disk that cannot do it";

/// Load generator and latency benchmark for STOMP 1.2 brokers, and for the disk below them.
#[derive(Debug, Parser)]
#[command(name = "forebay-bench", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One run against a broker: producers, consumers or both.
    #[command(after_help = EXIT_CODES)]
    Stomp(Box<StompArgs>),
    /// The table of durable sends: producers x in flight x body size, each drained afterwards.
    #[command(after_help = EXIT_CODES)]
    Suite(Box<SuiteArgs>),
    /// What the disk itself can do: durable O_DIRECT writes over zero-filled space, or reads.
    #[command(after_help = EXIT_CODES)]
    Device(DeviceArgs),
}

/// Where the broker is and how it is watched.
#[derive(Args, Clone, Debug)]
pub(crate) struct BrokerArgs {
    /// Where the broker listens.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:61613")]
    pub(crate) addr: String,
    /// CONNECT header host; the host of --addr if not given.
    #[arg(long)]
    pub(crate) vhost: Option<String>,
    /// CONNECT header login.
    #[arg(long)]
    pub(crate) login: Option<String>,
    /// CONNECT header passcode.
    #[arg(long)]
    pub(crate) passcode: Option<String>,
    /// Further SEND header, for brokers that want one; may be repeated.
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    pub(crate) send_header: Vec<String>,
    /// Further SUBSCRIBE header; may be repeated.
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    pub(crate) subscribe_header: Vec<String>,
    /// Messages a consumer may hold unacknowledged, sent as the header --prefetch-header.
    #[arg(long, value_name = "N")]
    pub(crate) prefetch: Option<u64>,
    /// Name of the prefetch header (ActiveMQ and Forebay; RabbitMQ: prefetch-count).
    #[arg(long, value_name = "NAME", default_value = "activemq.prefetchSize")]
    pub(crate) prefetch_header: String,
    /// Run the client on this core.
    #[arg(long, value_name = "CPU")]
    pub(crate) pin: Option<usize>,
    /// Never sleep in the kernel: takes the client's wake-up out of the latency, and a whole core.
    #[arg(long)]
    pub(crate) busy_poll: bool,
    /// The broker's process: prints its CPU time per message and its context switches.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Count the broker's system calls per message for 1.5 s after the window (perf, else strace).
    #[arg(long, requires = "server_pid")]
    pub(crate) count_syscalls: bool,
    /// Print durable results as a multiple of this 4 KiB durable write.
    #[arg(long, value_name = "US", conflicts_with = "device_dir", value_parser = positive)]
    pub(crate) device_p50_us: Option<f64>,
    /// The same, measured now for two seconds on the disk behind this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) device_dir: Option<PathBuf>,
    /// The run is over when no answer came for so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = positive)]
    pub(crate) idle: f64,
    /// Longest wait for a connection and for the SUBSCRIBE and DISCONNECT receipts.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive)]
    pub(crate) answer_timeout: f64,
    /// No progress on standard error.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// One JSON object on standard output instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which sides run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Producers and consumers: receipt latency and end-to-end latency.
    Both,
    /// Only drain what the queues hold.
    Consume,
    /// Only produce.
    Produce,
}

/// One run.
#[derive(Args, Debug)]
pub(crate) struct StompArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// Which sides run.
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    pub(crate) mode: Mode,
    /// Producing connections.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<u32>)]
    pub(crate) producers: u32,
    /// Consuming connections; one per queue if not given.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) consumers: Option<u32>,
    /// Closed loop: messages in flight per producer (each SEND asks for a receipt).
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "rate",
          value_parser = count::<u64>)]
    pub(crate) window: u64,
    /// Open loop: messages per second of all producers together. Latency counts from the time a
    /// message was due; none is skipped, and what leaves late is reported.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<u64>,
    /// Body bytes, at least 52 for the stamp (run, producer, sequence, due time).
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = body_size)]
    pub(crate) size: usize,
    /// What the body is filled with.
    #[arg(long, value_enum, default_value_t = Filler::Compressible)]
    pub(crate) body: Filler,
    /// Send `persistent:true` (the default).
    #[arg(long, overrides_with = "no_persistent")]
    pub(crate) persistent: bool,
    /// Send `persistent:false`.
    #[arg(long)]
    pub(crate) no_persistent: bool,
    /// Queues; connections are spread over them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<u32>)]
    pub(crate) queues: u32,
    /// Destinations are this and a number.
    #[arg(long, value_name = "PREFIX", default_value = "/queue/bench-")]
    pub(crate) destination: String,
    /// Acknowledgement mode of the consumers.
    #[arg(long, value_enum, default_value_t = AckMode::Auto)]
    pub(crate) ack: AckMode,
    /// Mode client: one cumulative ACK per so many messages, or 5 ms.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count::<u32>)]
    pub(crate) ack_every: u32,
    /// Ask for a receipt of each ACK.
    #[arg(long)]
    pub(crate) ack_receipts: bool,
    /// Measured time, 10 if neither this nor --messages is given (consume: until empty).
    #[arg(long, value_name = "SECONDS", value_parser = positive, conflicts_with = "messages")]
    pub(crate) seconds: Option<f64>,
    /// Stop after so many messages, warm-up included.
    #[arg(long, value_name = "N", value_parser = count::<u64>, conflicts_with = "count_syscalls")]
    pub(crate) messages: Option<u64>,
    /// Start that does not count, 1 if not given (0 with --messages or when only consuming).
    #[arg(long, value_name = "SECONDS", value_parser = not_negative)]
    pub(crate) warmup: Option<f64>,
    /// Write receipt latencies here as an HdrHistogram distribution in microseconds; end-to-end
    /// ones go beside it with `.end-to-end` appended.
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,
}

/// The table.
#[derive(Args, Debug)]
pub(crate) struct SuiteArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// Measured seconds per cell.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Warm-up seconds per cell.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = not_negative)]
    pub(crate) warmup: f64,
    /// Cells, `producers`x`in flight`.
    #[arg(long, value_name = "PxW,...", value_delimiter = ',', value_parser = cell,
          default_values = ["1x1", "16x1", "64x1", "8x32", "64x100"])]
    pub(crate) cells: Vec<(u32, u64)>,
    /// Body sizes.
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = body_size,
          default_values = ["128", "1024"])]
    pub(crate) sizes: Vec<usize>,
    /// Queues per cell, one draining consumer each; the names are fresh in every cell.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<u32>)]
    pub(crate) queues: u32,
    /// Destinations begin with this.
    #[arg(long, value_name = "PREFIX", default_value = "/queue/bench-")]
    pub(crate) destination: String,
    /// Acknowledgement mode of the drain.
    #[arg(long, value_enum, default_value_t = AckMode::Client)]
    pub(crate) ack: AckMode,
    /// Mode client: messages per cumulative ACK.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count::<u32>)]
    pub(crate) ack_every: u32,
    /// Leave the messages where they are (the journal grows, and the ledger judges receipts only).
    #[arg(long)]
    pub(crate) no_drain: bool,
}

/// The disk.
#[derive(Args, Debug)]
pub(crate) struct DeviceArgs {
    /// A folder on the disk; a file of 256 MiB is made in it and removed.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Read the files below --dir instead, from front to back, 1 MiB at a time with O_DIRECT: what
    /// the disk gives beside a drain of that store. Nothing is written.
    #[arg(long, conflicts_with = "journal")]
    pub(crate) read: bool,
    /// Also measure the journal's writer on the same disk, in turns with the raw ring.
    #[arg(long)]
    pub(crate) journal: bool,
    /// Seconds per block size, or per number of reads in flight.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Run on this core.
    #[arg(long, value_name = "CPU")]
    pub(crate) pin: Option<usize>,
    /// One JSON object on standard output instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl BrokerArgs {
    /// Fills the parts of a plan that all runs against a broker share.
    pub(crate) fn plan(&self, queues: Vec<String>) -> Result<Plan, BenchError> {
        let unable = |why: String| BenchError::Unable(format!("--addr {}: {why}", self.addr));
        let mut found = self
            .addr
            .to_socket_addrs()
            .map_err(|error| unable(error.to_string()))?;
        let address: SocketAddr = found
            .next()
            .ok_or_else(|| unable("no address".to_owned()))?;
        let host = self
            .addr
            .rsplit_once(':')
            .map_or(self.addr.as_str(), |(host, _)| host);
        Ok(Plan {
            address,
            credentials: Credentials {
                vhost: self.vhost.clone().unwrap_or_else(|| host.to_owned()),
                login: self.login.clone(),
                passcode: self.passcode.clone(),
            },
            answer_timeout: Duration::from_secs_f64(self.answer_timeout),
            queues,
            production: None,
            consumption: None,
            body_size: STAMP_LEN,
            filler: Filler::Compressible,
            warmup: Duration::ZERO,
            stop: Stop::WhenEmpty,
            idle: Duration::from_secs_f64(self.idle),
            is_quiet: self.quiet,
            is_busy_polling: self.busy_poll,
            server_pid: self.server_pid,
            counts_syscalls: false,
        })
    }

    /// The SUBSCRIBE headers, prefetch included.
    pub(crate) fn subscribe_headers(&self) -> Vec<String> {
        let prefetch = self
            .prefetch
            .map(|count| format!("{}:{count}", self.prefetch_header));
        self.subscribe_header
            .iter()
            .cloned()
            .chain(prefetch)
            .collect()
    }
}

impl StompArgs {
    /// Turns the options into a plan.
    ///
    /// Errors: `Unable` naming options that do not go together.
    pub(crate) fn plan(&self) -> Result<Plan, BenchError> {
        let queues = (0..self.queues)
            .map(|index| format!("{}{index}", self.destination))
            .collect();
        let (produces, consumes) = (self.mode != Mode::Consume, self.mode != Mode::Produce);
        let consumers = self.consumers.unwrap_or(self.queues);
        let refuse = |why: &str| Err(BenchError::Unable(why.to_owned()));
        if consumes && consumers < self.queues {
            return refuse("--consumers must be at least --queues: nobody would drain the rest");
        }
        if produces && self.mode == Mode::Both && self.producers < self.queues {
            return refuse("--producers must be at least --queues: the rest would stay empty");
        }
        if !produces && (self.rate.is_some() || self.hgrm.is_some() || self.broker.count_syscalls) {
            return refuse("--rate, --hgrm and --count-syscalls need a mode that produces");
        }
        let production = produces.then(|| self.production());
        let consumption = consumes.then(|| self.consumption(consumers));
        let stop = match (self.messages, self.seconds) {
            (Some(count), _) => Stop::After(count),
            (None, Some(seconds)) => Stop::In(Duration::from_secs_f64(seconds)),
            (None, None) if produces => Stop::In(Duration::from_secs(10)),
            (None, None) => Stop::WhenEmpty,
        };
        let warmup_default = if matches!(stop, Stop::In(_)) && produces {
            1.0
        } else {
            0.0
        };
        Ok(Plan {
            production,
            consumption,
            body_size: self.size,
            filler: self.body,
            warmup: Duration::from_secs_f64(self.warmup.unwrap_or(warmup_default)),
            stop,
            counts_syscalls: self.broker.count_syscalls,
            ..self.broker.plan(queues)?
        })
    }

    fn production(&self) -> Production {
        Production {
            producers: self.producers,
            pace: match self.rate {
                Some(rate_per_s) => Pace::Open { rate_per_s },
                None => Pace::Closed {
                    window: self.window,
                },
            },
            is_persistent: !self.no_persistent,
            headers: self.broker.send_header.clone(),
        }
    }

    fn consumption(&self, consumers: u32) -> Consumption {
        Consumption {
            consumers,
            ack_mode: self.ack,
            ack_every: self.ack_every,
            has_ack_receipts: self.ack_receipts,
            headers: self.broker.subscribe_headers(),
        }
    }
}

fn count<T: std::str::FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(count) if count >= T::from(1) => Ok(count),
        _ => Err("expected a number from 1".to_owned()),
    }
}

fn rate(text: &str) -> Result<u64, String> {
    count::<u64>(text).and_then(|rate| match rate {
        0..=100_000_000 => Ok(rate),
        _ => Err("expected at most 100000000 per second".to_owned()),
    })
}

fn header(text: &str) -> Result<String, String> {
    let is_clean = !text.contains(['\n', '\r', '\0']);
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() && is_clean => Ok(text.to_owned()),
        _ => Err("expected NAME:VALUE on one line".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|value| {
        if value > 0.0 {
            Ok(value)
        } else {
            Err("must be above 0".to_owned())
        }
    })
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e6).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1000000".to_owned()),
    }
}

fn body_size(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if (STAMP_LEN..=1 << 30).contains(&size) => Ok(size),
        _ => Err(format!(
            "expected {STAMP_LEN} (the stamp) to {} bytes",
            1 << 30
        )),
    }
}

fn cell(text: &str) -> Result<(u32, u64), String> {
    let parts = text
        .split_once('x')
        .and_then(|(producers, window)| Some((producers.parse().ok()?, window.parse().ok()?)));
    match parts {
        Some((producers, window)) if producers > 0 && window > 0 => Ok((producers, window)),
        _ => Err("expected PRODUCERSxWINDOW, such as 8x32".to_owned()),
    }
}
