//! Consumers that are slower than the operator wants while messages wait for them.
//!
//! A consumer is watched where its queue's policy has a threshold. It is looked at several times in
//! each period. If each look found it without credit and a message that it could have, and it
//! settled fewer than the threshold asks for, it was slow. What it settled follows from counts that
//! are there anyway, so nothing is counted for it.

use std::collections::BTreeSet;

use forebay_journal::QueueId;

use super::consumer::{Consumer, ConsumerId};
use super::machine::Machine;
use super::policy::SlowConsumer;
use super::state::QueueState;

/// Looks in a period.
const LOOKS: u64 = 5;
/// Consumers looked at in one turn; the others come with the next.
const LOOKS_PER_TURN_MAX: usize = 1024;
const SECOND_US: u64 = 1_000_000;

/// What is known of one consumer since its period began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    due_us: u64,
    start_us: u64,
    /// What it had settled then.
    settled: u64,
    /// Whether each look since found that messages wait for it.
    is_lagging: bool,
}

/// The consumers of a shard that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// Attached since the last look.
    fresh: Vec<ConsumerId>,
    /// When they are looked at, in monotonic microseconds, and their indexes.
    due: BTreeSet<(u64, u32)>,
}

/// A consumer that was slow in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowSeen {
    /// The shard's name of the connection.
    pub link: u64,
    /// The connection's name of the subscription.
    pub consumer_tag: u64,
    /// The queue.
    pub queue: QueueId,
    /// Messages that it settled in the period.
    pub settled: u64,
    /// How long that was, in microseconds.
    pub elapsed_us: u64,
    /// What is to happen to it.
    pub policy: SlowConsumer,
}

impl Watch {
    pub(super) const fn due_us(&self) -> u64 {
        self.due_us
    }
}

impl Watches {
    fn is_any(&self) -> bool {
        !self.fresh.is_empty() || !self.due.is_empty()
    }

    /// A consumer of a queue that is watched came.
    pub(super) fn begin(&mut self, id: ConsumerId) {
        self.fresh.push(id);
    }

    /// A consumer went.
    pub(super) fn end(&mut self, index: u32, consumer: &Consumer) {
        if let Some(watch) = &consumer.watch {
            self.due.remove(&(watch.due_us, index));
        }
    }

    pub(super) fn due(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.due.iter().copied()
    }
}

impl QueueState {
    /// Whether there is a message that this consumer could have, had it credit: as far as is known,
    /// where it has a filter.
    fn has_message_for(&self, index: u32, consumer: &Consumer) -> bool {
        if self.ready.is_empty() || !self.serves(index) || self.is_paused() {
            return false;
        }
        let selective = self.selective.as_deref().filter(|one| one.is_active);
        selective.is_none_or(|one| one.has_message_for(index, consumer.filter, &self.ready))
    }
}

impl Machine {
    /// Looks at the consumers whose time has come, and says which of them were slow: each once in
    /// a period.
    ///
    /// Shape: `now_us` is monotonic; `is_held` tells of a link that it waits for the shard, so that
    /// its consumers are not to blame.
    /// Cost: O(consumers looked at).
    pub fn look_at_consumers(
        &mut self,
        now_us: u64,
        is_held: impl Fn(u64) -> bool,
        out: &mut Vec<SlowSeen>,
    ) {
        out.clear();
        for id in core::mem::take(&mut self.watches.fresh) {
            self.watch(id, now_us);
        }
        for _ in 0..LOOKS_PER_TURN_MAX {
            let first = self.watches.due.first().copied();
            let Some((due_us, index)) = first.filter(|(due_us, _)| *due_us <= now_us) else {
                return;
            };
            self.watches.due.remove(&(due_us, index));
            out.extend(self.look_at_consumer(index, now_us, &is_held));
        }
    }

    fn watch(&mut self, id: ConsumerId, now_us: u64) {
        let Some(consumer) = self.consumers.resolve(id) else {
            return;
        };
        let Some(queue) = self.queues.get(consumer.queue) else {
            return;
        };
        let due_us = now_us + queue.policy.look_every_us();
        let settled = self.consumers.settled_count(id.index);
        self.consumers.at_mut(id.index).watch = Some(Box::new(Watch {
            due_us,
            start_us: now_us,
            settled,
            is_lagging: true,
        }));
        self.watches.due.insert((due_us, id.index));
    }

    fn look_at_consumer(
        &mut self,
        index: u32,
        now_us: u64,
        is_held: &impl Fn(u64) -> bool,
    ) -> Option<SlowSeen> {
        let (available, settled_count) = (
            self.consumers.available(index),
            self.consumers.settled_count(index),
        );
        let consumer = self.consumers.at_mut(index);
        let mut watch = consumer.watch.take()?;
        let queue = self.queues.get(consumer.queue)?;
        let policy = &queue.policy;
        let is_lagging =
            available == 0 && queue.has_message_for(index, consumer) && !is_held(consumer.link);
        watch.is_lagging &= is_lagging;
        let elapsed_us = now_us.saturating_sub(watch.start_us);
        let mut seen = None;
        if elapsed_us >= policy.slow_period_us() {
            let settled = settled_count.saturating_sub(watch.settled);
            let threshold = policy.slow_consumer_threshold_per_s.unwrap_or(0);
            let wanted = u128::from(threshold) * u128::from(elapsed_us);
            let is_slow = u128::from(settled) * u128::from(SECOND_US) < wanted;
            seen = (watch.is_lagging && is_slow).then_some(SlowSeen {
                link: consumer.link,
                consumer_tag: consumer.tag,
                queue: queue.id,
                settled,
                elapsed_us,
                policy: policy.slow_consumer_policy,
            });
            (watch.start_us, watch.settled) = (now_us, settled_count);
            watch.is_lagging = is_lagging;
        }
        watch.due_us = now_us + policy.look_every_us();
        self.watches.due.insert((watch.due_us, index));
        consumer.watch = Some(watch);
        seen
    }

    /// Whether [`Self::look_at_consumers`] may ever have something to do.
    pub fn is_watching(&self) -> bool {
        self.watches.is_any()
    }

    /// The monotonic microseconds from which on [`Self::look_at_consumers`] has something to do, of
    /// those that were there at the last look.
    pub fn next_look_us(&self) -> Option<u64> {
        let (due_us, _) = self.watches.due.first()?;
        Some(*due_us)
    }
}

impl super::policy::Policy {
    fn slow_period_us(&self) -> u64 {
        u64::from(self.slow_consumer_check_period_s) * SECOND_US
    }

    fn look_every_us(&self) -> u64 {
        self.slow_period_us() / LOOKS
    }
}
