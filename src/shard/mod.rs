//! One core's share of the broker: connections, queues, journal. No sockets, files, clocks,
//! threads or locks; the runtime carries out what [`Shard::poll_action`] says, the simulator too.
//!
//! A turn: the runtime passes in what happened (`handle_*`), calls [`Shard::finish_turn`], then
//! takes actions until there are none.

mod admin;
mod bodies;
mod check;
mod cold;
mod commit;
mod connection;
mod damaged;
mod errand;
mod gate;
mod host;
mod latency;
mod link;
mod loopback;
mod mailbox;
mod metrics;
mod peers;
mod relocation;
mod slow;
mod step;
mod stop;
mod timers;
mod transactions;

pub use admin::{AdminAnswer, AdminAsk, AdminQuestion, AdminTold, QueueSeen, ShardHealth};
pub use check::Held;
pub use cold::{ColdFailure, ColdRead};
pub use commit::{Verdict, undecided, verdicts};
pub use connection::ConnectionId;
pub use host::{
    DiskFull, Failure, HostLimits, HostMeasures, HostStats, Lane, REFUSAL_REASONS,
    RelocationLimits, SpaceStats, UnsoundSelector, check_selectors,
};
pub use latency::{BOUNDS_US, LatencySeen};
pub use mailbox::{Parcel, ParcelLane};
pub use metrics::{ShardMetrics, Unlisted};
pub use slow::SlowConsumerReport;

pub use crate::queue::{
    Full, GlobalLimits, Limits as QueueLimits, Policies, Policy, PolicySettings, Purge,
    QueueCounts, Quotas, Refused as QueueRefused, SlowConsumer,
};
pub use crate::routing::Address;
pub use forebay_journal::format::{QueueFlags, Routing};

use std::collections::VecDeque;
use std::rc::Rc;

use forebay_journal::format::SegmentHead;
use forebay_journal::reader::Owner;
use forebay_journal::storage::buffer::{ArenaMemory, ReadBuffer};
use forebay_journal::storage::{BlockWrite, IoFailure, WriteDone};
use forebay_journal::{FreedSegments, JournalId, SegmentId, ShardId, Writer, WriterStats};
use rustc_hash::FxHashMap;

use crate::frontend::stomp;
use crate::now::Now;
use crate::queue::Machine;
use commit::Commits;
use connection::Connection;
use host::Host;
use peers::Peers;
use stop::Stopping;
use timers::Timers;

/// Something the runtime has to do.
///
/// Small: many are moved about in a turn. Parcels, which are not, come by [`Shard::poll_parcel`].
#[derive(Debug)]
pub enum Action {
    /// Send all of this; answer with [`Shard::handle_sent`].
    Send {
        /// To whom.
        connection: ConnectionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Stop reading from the connection.
    StopReading(ConnectionId),
    /// Read from the connection again.
    Read(ConnectionId),
    /// Close the connection; answer with [`Shard::handle_closed`].
    Close(ConnectionId),
    /// Write a block; answer with [`Shard::handle_write_done`].
    Write(BlockWrite),
    /// Read blocks back; answer with [`Shard::handle_read_done`].
    ReadBack(ColdRead),
    /// Prepare this segment; answer with [`Shard::handle_segment`] or
    /// [`Shard::handle_disk_full`].
    Prepare(SegmentId),
    /// These segments are free; what cannot be told for now is given back by
    /// [`Shard::give_back_free`].
    Free(FreedSegments),
    /// Give the admin side this answer.
    Tell(Box<AdminAnswer>),
    /// Warn the operator of this.
    Warn(Box<SlowConsumerReport>),
}

/// What a shard is made of.
pub struct ShardConfig {
    /// Its journal: blocks of another one are never taken for its own.
    pub journal: JournalId,
    /// Its index.
    pub shard: ShardId,
    /// Shards of the node.
    pub shard_count: u16,
    /// Sizes.
    pub limits: HostLimits,
    /// Settings of STOMP connections.
    pub stomp: stomp::Settings,
    /// Name of the node, for session names.
    pub node: String,
    /// How long a transaction may be open.
    pub transaction_timeout_us: u64,
    /// What becomes of the transactions that were prepared when the node ended ([`verdicts`]).
    pub verdicts: Vec<Verdict>,
    /// What its queues may hold where that is limited over all addresses.
    pub quotas: Quotas,
    /// The other shards that do not serve because their journals are damaged, sorted.
    pub damaged: Vec<ShardId>,
    /// Where a replay begins.
    pub oldest_segment: SegmentId,
    /// Segments that hold something.
    pub held_segments: Vec<SegmentId>,
    /// Number of the next segment to prepare.
    pub next_segment: SegmentId,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardStats {
    /// Of its queues.
    pub host: HostStats,
    /// Of its journal.
    pub writer: WriterStats,
    /// Of the space that takes.
    pub space: SpaceStats,
    /// Connections now.
    pub connections: usize,
}

/// One core's share.
pub struct Shard {
    id: ShardId,
    shard_count: u16,
    host: Host,
    connections: FxHashMap<ConnectionId, Connection>,
    /// The connection that sends messages on: number 0.
    forwarder: ConnectionId,
    next_connection: u64,
    /// Connections that ended because their client broke the protocol, or was not let in.
    broken_count: u64,
    node: String,
    stomp: Rc<stomp::Settings>,
    window_bytes: usize,
    peers: Peers,
    timers: Timers,
    /// Connections with output to send or a state to look at.
    dirty: VecDeque<ConnectionId>,
    /// Connections whose next command does not fit yet, in the order they began to wait.
    waiting: VecDeque<ConnectionId>,
    /// Parcels passed on at the end of the last turn: who waited for room may try again.
    passed_parcels: usize,
    /// Connections whose errand can go on.
    answered: VecDeque<ConnectionId>,
    /// Transactions of this shard's connections that end.
    commits: Commits,
    transaction_timeout_us: u64,
    actions: VecDeque<Action>,
    stopping: Stopping,
}

impl Shard {
    /// Makes a shard around queues that were recovered and a journal that goes on.
    pub fn new(config: ShardConfig, mut machine: Machine, writer: Writer) -> Self {
        let mut quotas = config.quotas;
        for shard in &config.damaged {
            quotas.leave_out(shard.0);
        }
        machine.set_quotas(quotas);
        let segments = host::Segments {
            oldest: config.oldest_segment,
            held: config.held_segments,
            next: config.next_segment,
        };
        let mut commits = Commits::new(config.shard);
        let others = (0..config.shard_count).map(ShardId);
        commits.resume(&machine.decided(), others, &config.damaged);
        let forwarder = ConnectionId::forwarder(config.shard);
        let owner = Owner {
            journal: config.journal,
            shard: config.shard,
        };
        let mut host = Host::new(owner, machine, writer, segments, config.limits, forwarder);
        host.judge(&config.verdicts);
        let mut shard = Self {
            id: config.shard,
            shard_count: config.shard_count,
            host,
            connections: FxHashMap::default(),
            forwarder,
            next_connection: 1,
            broken_count: 0,
            node: config.node,
            stomp: Rc::new(config.stomp),
            window_bytes: config.limits.window_bytes as usize,
            peers: Peers::new(config.shard, config.shard_count, config.damaged),
            timers: Timers::default(),
            dirty: VecDeque::new(),
            waiting: VecDeque::new(),
            passed_parcels: 0,
            answered: VecDeque::new(),
            commits,
            transaction_timeout_us: config.transaction_timeout_us,
            actions: VecDeque::new(),
            stopping: Stopping::No,
        };
        shard.connect_forwarder();
        shard
    }

    /// The memory blocks live in, for registration with a ring.
    pub fn memory(&self) -> ArenaMemory {
        self.host.writer.memory()
    }

    /// Why the shard has to stop, if it has to.
    pub fn failure(&self) -> Option<&Failure> {
        self.host.failure()
    }

    /// Bytes of blocks sealed since the start.
    pub fn ingested_bytes(&self) -> u64 {
        self.host.writer.stats().bytes
    }

    /// The oldest segment that a block will still be written to.
    pub fn oldest_segment_to_write(&self) -> Option<SegmentId> {
        self.host.writer.oldest_segment_to_write()
    }

    /// Segments below this one are written and durable, and change no more.
    pub fn sealed_below(&self) -> SegmentId {
        let oldest = self.host.writer.oldest_segment_not_durable();
        oldest.unwrap_or(SegmentId::ZERO)
    }

    /// Whether messages wait for a segment to be prepared.
    pub fn is_waiting_for_segment(&self) -> bool {
        self.host.is_waiting_for_segment()
    }

    /// Whether the disk had no space for the next segment.
    pub fn is_disk_full(&self) -> bool {
        self.host.is_disk_full()
    }

    /// Whether messages are refused for that now.
    pub fn is_refusing(&self) -> bool {
        self.host.is_refusing()
    }

    /// Counters since the start, and what the journal takes now.
    ///
    /// Cost: O(segments).
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            host: self.host.stats(),
            writer: self.host.writer.stats(),
            space: self.host.space_stats(),
            connections: self
                .connections
                .keys()
                .filter(|id| !self.is_forwarder(**id))
                .count(),
        }
    }

    /// A write ended.
    pub fn handle_write_done(&mut self, done: WriteDone, now: Now) {
        self.host.handle_write_done(done, now);
    }

    /// A read of blocks ended.
    pub fn handle_read_done(
        &mut self,
        chunk: u32,
        buffer: ReadBuffer,
        result: Result<usize, IoFailure>,
    ) {
        self.host.handle_read(chunk, buffer, result);
    }

    /// A segment is ready.
    pub fn handle_segment(&mut self, head: SegmentHead) {
        self.host.add_segment(head);
    }

    /// There is no space for the next segment; it is tried again.
    pub fn handle_disk_full(&mut self) {
        self.host.note_disk_full();
    }

    /// Housekeeping failed.
    pub fn handle_housekeeping_failure(&mut self, reason: String) {
        self.host.fail(Failure::Housekeeping(reason));
    }
}
