//! What one run is to do, checked and free of command-line words.

use crate::connection::Credentials;
use crate::frame::Filler;
use crate::schedule::Pace;
use std::net::SocketAddr;
use std::time::Duration;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where the broker listens.
    pub(crate) address: SocketAddr,
    /// CONNECT headers.
    pub(crate) credentials: Credentials,
    /// Longest wait for a connection, and for the SUBSCRIBE and DISCONNECT receipts.
    pub(crate) answer_timeout: Duration,
    /// Destinations; connection `i` uses number `i % len`.
    pub(crate) queues: Vec<String>,
    /// Producing side, if any.
    pub(crate) production: Option<Production>,
    /// Consuming side, if any.
    pub(crate) consumption: Option<Consumption>,
    /// Whole body, stamp included.
    pub(crate) body_size: usize,
    /// What stands behind the stamp.
    pub(crate) filler: Filler,
    /// Start that does not count.
    pub(crate) warmup: Duration,
    /// When to stop.
    pub(crate) stop: Stop,
    /// Without any answer for so long the run is over, good or bad.
    pub(crate) idle: Duration,
    /// No lines on standard error while running.
    pub(crate) is_quiet: bool,
    /// Never sleep in the kernel.
    pub(crate) is_busy_polling: bool,
    /// Process whose CPU is charged to the messages.
    pub(crate) server_pid: Option<u32>,
    /// Count the broker's system calls after the measured window.
    pub(crate) counts_syscalls: bool,
}

/// When a run stops; what is in flight is always waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Messages sent, or received when only consuming, warm-up included.
    After(u64),
    /// Measured time behind the warm-up.
    In(Duration),
    /// Nothing more comes (consuming only).
    WhenEmpty,
}

/// The producing side.
#[derive(Clone, Debug)]
pub(crate) struct Production {
    /// Connections.
    pub(crate) producers: u32,
    /// When messages leave.
    pub(crate) pace: Pace,
    /// Header `persistent`.
    pub(crate) is_persistent: bool,
    /// Further SEND headers, `name:value`.
    pub(crate) headers: Vec<String>,
}

/// The consuming side.
#[derive(Clone, Debug)]
pub(crate) struct Consumption {
    /// Connections, one subscription each.
    pub(crate) consumers: u32,
    /// Header `ack`.
    pub(crate) ack_mode: AckMode,
    /// Messages per cumulative ACK in mode client.
    pub(crate) ack_every: u32,
    /// Each ACK asks for a receipt.
    pub(crate) has_ack_receipts: bool,
    /// Further SUBSCRIBE headers, `name:value`.
    pub(crate) headers: Vec<String>,
}

/// STOMP 1.2 "SUBSCRIBE ack Header".
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AckMode {
    /// Sent is settled.
    Auto,
    /// One ACK settles all before it.
    Client,
    /// One ACK per message.
    ClientIndividual,
}

impl AckMode {
    /// The header's value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

impl Plan {
    /// The destination of producer or consumer `index`.
    pub(crate) fn queue_of(&self, index: u32) -> &str {
        &self.queues[index as usize % self.queues.len()]
    }

    /// Says whether consumer `index` is alone on its queue.
    pub(crate) fn is_only_consumer(&self, index: u32) -> bool {
        let queues = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        let consumers = self.consumption.as_ref().map_or(0, |side| side.consumers);
        index % queues + queues >= consumers && index < queues
    }
}
