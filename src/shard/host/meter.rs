//! What a host counts and measures. Plain numbers: whoever scrapes asks for a copy.

use std::collections::VecDeque;

use forebay_journal::SegmentId;
use forebay_journal::format::Departure;
use forebay_journal::storage::{BlockWrite, IDENTIFIERS, WriteTicket};

use super::Host;
use crate::frontend::Refusal;
use crate::now::Now;
use crate::queue::Refused;
use crate::shard::latency::{Latency, LatencySeen};

/// Why commands are refused, in the order of [`HostStats::refused`].
pub const REFUSAL_REASONS: [&str; 8] = [
    "address_full",
    "limit",
    "in_use",
    "unknown",
    "subscription",
    "transaction",
    "damaged",
    "disk_full",
];

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Messages taken in, those included that the broker sends on.
    pub received: u64,
    /// Messages handed out, redeliveries included.
    pub delivered: u64,
    /// Of these, messages that were handed out before.
    pub redelivered: u64,
    /// Messages settled for good.
    pub settled: u64,
    /// Messages dropped because their time was over.
    pub expired: u64,
    /// Messages that a full address dropped on arrival.
    pub dropped: u64,
    /// Messages moved to a dead-letter address.
    pub dead_lettered: u64,
    /// Consumers found slow, each once in a period.
    pub slow_consumers: u64,
    /// Commands refused, by [`REFUSAL_REASONS`].
    pub refused: [u64; REFUSAL_REASONS.len()],
    /// Pieces of messages in the journal that were handed out: they were in memory then.
    pub cache_hits: u64,
    /// Times that such a piece was not in memory and waited for the disk.
    pub cache_misses: u64,
    /// Reads of blocks for them, those ahead included.
    pub reads: u64,
    /// Times that producers began to wait for a prepared segment.
    pub segment_waits: u64,
    /// How long producers waited for one, in microseconds.
    pub segment_wait_us: u64,
}

impl HostStats {
    pub(super) fn count_refusal(&mut self, refusal: &Refusal) {
        self.refused[class_of(refusal)] += 1;
    }

    pub(super) fn count_departure(&mut self, reason: Departure) {
        match reason {
            Departure::AttemptsExceeded | Departure::Rejected => self.dead_lettered += 1,
            Departure::Expired | Departure::Diverted => {}
        }
    }
}

/// Index in [`REFUSAL_REASONS`].
const fn class_of(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::AddressFull => 0,
        Refusal::SelectorsFull { .. } | Refusal::VolatileTooLarge { .. } => 1,
        Refusal::QueueDeleted | Refusal::UnknownQueue | Refusal::MessageGone => 3,
        Refusal::UnknownDurableSubscription | Refusal::UnknownSubscription => 3,
        Refusal::NothingStays | Refusal::StartElsewhere | Refusal::SelectorUnsound => 4,
        Refusal::FollowerInTransaction
        | Refusal::DuplicateInTransaction
        | Refusal::TransactionFailed => 5,
        Refusal::ShardDamaged { .. } => 6,
        Refusal::DiskFull => 7,
        Refusal::Queue(refused) => match refused {
            Refused::ConsumersFull { .. }
            | Refused::QueuesFull { .. }
            | Refused::NameTooLong { .. } => 1,
            Refused::QueueInUse | Refused::SubscriptionInUse => 2,
            Refused::UnknownAddress
            | Refused::UnknownConsumer
            | Refused::UnknownDelivery
            | Refused::UnknownDestination
            | Refused::UnknownQueue
            | Refused::UnknownTransaction => 3,
            Refused::SubscriptionDiffers | Refused::SubscriptionKind { .. } => 4,
        },
    }
}

/// Clocks of what is under way.
#[derive(Debug)]
pub(super) struct Meter {
    /// The monotonic clock, as of what came last.
    now_us: u64,
    send: Latency,
    write: Latency,
    /// Blocks being written and since when: no more than the window has.
    writing: VecDeque<(WriteTicket, u64)>,
    /// Since when producers wait for a segment, as far as that is in the counters.
    waiting_since_us: Option<u64>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            now_us: 0,
            send: Latency::new(),
            write: Latency::new(),
            writing: VecDeque::with_capacity(4),
            waiting_since_us: None,
        }
    }

    pub(super) const fn now_us(&self) -> u64 {
        self.now_us
    }

    pub(super) fn begin(&mut self, now: Now) {
        self.now_us = now.monotonic_us;
    }

    /// A receipt leaves whose message came at this time.
    pub(super) fn confirmed(&mut self, sent_us: u64) {
        self.send.record(self.now_us.saturating_sub(sent_us));
    }

    /// A write goes to the disk. Those of identifiers are part of no block's time.
    pub(super) fn write_begins(&mut self, write: &BlockWrite, now: Now) {
        if write.segment != IDENTIFIERS {
            self.writing.push_back((write.ticket, now.monotonic_us));
        }
    }

    pub(super) fn write_ends(&mut self, ticket: WriteTicket, now: Now) {
        let begun = self.writing.iter().position(|(of, _)| *of == ticket);
        if let Some((_, begun_us)) = begun.and_then(|index| self.writing.remove(index)) {
            self.write.record(now.monotonic_us.saturating_sub(begun_us));
        }
    }
}

/// What a host's clocks and its journal say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMeasures {
    /// From a durable message whole in the shard to its receipt on the way out.
    pub send: LatencySeen,
    /// From a block handed to the disk to its completion.
    pub write: LatencySeen,
    /// Blocks being written.
    pub blocks_in_flight: u64,
    /// Prepared segments not begun.
    pub segments_ready: u64,
    /// The oldest segment that must stay.
    pub oldest_segment: SegmentId,
    /// Messages in all queues; one in two queues counts twice.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Bytes of bodies that are not durable.
    pub volatile_bytes: u64,
}

impl Host {
    /// The end of a turn: whether producers wait, and only for a segment. The time so far goes
    /// into the counters.
    pub(in crate::shard) fn note_segment_wait(&mut self, is_waiting: bool, now: Now) {
        let now_us = now.monotonic_us;
        let before = &mut self.meter.waiting_since_us;
        if let Some(since_us) = before {
            self.stats.segment_wait_us += now_us.saturating_sub(*since_us);
        } else if is_waiting {
            self.stats.segment_waits += 1;
        }
        *before = is_waiting.then_some(now_us);
    }

    pub(in crate::shard) fn measures(&self) -> HostMeasures {
        let held = self.machine.held();
        HostMeasures {
            send: self.meter.send.seen(),
            write: self.meter.write.seen(),
            blocks_in_flight: self.meter.writing.len() as u64,
            segments_ready: self.writer.segments_ready() as u64,
            oldest_segment: self.oldest_segment(),
            messages: held.messages,
            message_bytes: held.bytes,
            volatile_bytes: self.bodies.used_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name() {
        let full = Refusal::Queue(Refused::QueuesFull { max: 1 });
        assert_eq!(REFUSAL_REASONS[class_of(&full)], "limit");
        assert_eq!(
            REFUSAL_REASONS[class_of(&Refusal::AddressFull)],
            "address_full"
        );
        let gone = Refusal::Queue(Refused::UnknownDelivery);
        assert_eq!(REFUSAL_REASONS[class_of(&gone)], "unknown");
    }
}
