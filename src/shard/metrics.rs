//! What a shard says to whoever scrapes: a copy of its counters, made when it is asked for.

use forebay_journal::WriterStats;

use super::connection::Pause;
use super::{HostMeasures, HostStats, QueueSeen, Shard, SpaceStats};
use crate::limits::METRICS_QUEUES_MAX;
use crate::now::Now;

/// The numbers of a shard at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMetrics {
    /// Connections now.
    pub connections: u64,
    /// Connections since the start.
    pub accepted: u64,
    /// Of these, those whose client broke the protocol or was not let in.
    pub broken: u64,
    /// Queues now.
    pub queues: u64,
    /// Whether the disk had no space for the next segment.
    pub is_disk_full: bool,
    /// Counters of its queues.
    pub host: HostStats,
    /// Counters of its journal.
    pub writer: WriterStats,
    /// What that takes on the disk.
    pub space: SpaceStats,
    /// What it holds, and how long things took.
    pub measures: HostMeasures,
    /// Queues one by one, no more than `METRICS_QUEUES_MAX`.
    pub listed: Vec<QueueSeen>,
    /// The others.
    pub unlisted: Unlisted,
}

/// Queues that are not listed, as a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// How many.
    pub queues: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
}

impl Shard {
    /// Cost: some thousand histogram classes, and the queues that are listed.
    pub(super) fn metrics(&self) -> ShardMetrics {
        let stats = self.stats();
        let measures = self.host.measures();
        let queues = self.host.machine.queue_count() as u64;
        let (listed, _) = self.see_queues(0, METRICS_QUEUES_MAX);
        let listed_messages = |seen: &QueueSeen| {
            let counts = &seen.counts;
            counts.ready + counts.unsettled + counts.aside
        };
        let messages: u64 = listed.iter().map(listed_messages).sum();
        let bytes: u64 = listed.iter().map(|seen| seen.counts.bytes).sum();
        let unlisted = Unlisted {
            queues: queues.saturating_sub(listed.len() as u64),
            messages: measures.messages.saturating_sub(messages),
            bytes: measures.message_bytes.saturating_sub(bytes),
        };
        ShardMetrics {
            connections: stats.connections as u64,
            accepted: self.next_connection - 1,
            broken: self.broken_count,
            queues,
            is_disk_full: self.is_disk_full(),
            host: stats.host,
            writer: stats.writer,
            space: stats.space,
            measures,
            listed,
            unlisted,
        }
    }

    /// Counts producers that wait for nothing but a prepared segment.
    pub(super) fn note_segment_wait(&mut self, now: Now) {
        let is_waiting = self.is_waiting_for_segment() && self.has_producers_waiting();
        self.host.note_segment_wait(is_waiting, now);
    }

    fn has_producers_waiting(&self) -> bool {
        let waits = |id| {
            let connection = self.connections.get(id);
            connection.is_some_and(|one| matches!(one.pause, Some(Pause::Space)))
        };
        self.peers.has_waiting_messages() || self.waiting.iter().any(waits)
    }
}
