//! Messages that are one too many: replaced in a last-value queue, or the oldest of a full ring.
//! Found when others come; they leave before anything is handed out.

use std::collections::BTreeSet;

use forebay_journal::QueueId;
use forebay_journal::format::Outcome;

use super::decide::add_entries;
use super::decision::{Decision, Verb};
use super::entry::Entry;
use super::machine::Machine;
use super::state::QueueState;

/// Work that [`Machine::decide_trim`] has to look at.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    /// Queue and name of messages that later ones took the place of.
    replaced: BTreeSet<(u64, u64)>,
    /// Queues that may hold more than they may.
    rings: BTreeSet<u64>,
}

impl Surplus {
    pub(super) fn insert_replaced(&mut self, queue: QueueId, message: u64) {
        self.replaced.insert((queue.0, message));
    }

    /// Messages got ready in a queue. What is to be looked at is no fact, so that the policy may
    /// say it.
    pub(super) fn note_ready(&mut self, queue: &QueueState) {
        if queue.policy.ring_size.is_some() || queue.is_retroactive() {
            self.rings.insert(queue.id.0);
        }
    }

    /// Messages came back to a queue: those that were replaced meanwhile are not to be handed out.
    pub(super) fn note_returned(&mut self, queue: &QueueState, entries: &[Entry]) {
        self.note_ready(queue);
        if queue.last_values.is_none() {
            return;
        }
        let returned = entries.iter().map(|entry| entry.message);
        let replaced = returned.filter(|message| queue.is_replaced(*message));
        self.replaced
            .extend(replaced.map(|message| (queue.id.0, message)));
    }
}

impl Machine {
    /// Whether [`Self::decide_trim`] has something to look at.
    pub fn has_surplus(&self) -> bool {
        !self.surplus.replaced.is_empty() || !self.surplus.rings.is_empty()
    }

    /// Drops what is one too many of the queue that comes first, no more than `dispatch_max`
    /// messages; ask again while [`Self::has_surplus`].
    pub fn decide_trim(&mut self, out: &mut Decision) {
        out.clear();
        if let Some((first, _)) = self.surplus.replaced.first().copied() {
            return self.trim_replaced(QueueId(first), out);
        }
        if let Some(first) = self.surplus.rings.first().copied() {
            self.trim_ring(QueueId(first), out);
        }
    }

    fn trim_replaced(&mut self, id: QueueId, out: &mut Decision) {
        let range = (id.0, 0)..=(id.0, u64::MAX);
        let named = self.surplus.replaced.range(range).copied();
        let named: Vec<_> = named.take(self.limits.dispatch_max).collect();
        for one in &named {
            self.surplus.replaced.remove(one);
        }
        let Some(queue) = self.queues.get(id) else {
            return;
        };
        let entries = named.iter().filter(|(_, one)| queue.is_replaced(*one));
        let entries = entries.filter_map(|(_, message)| queue.waiting(*message));
        add_entries(queue, entries, Verb::Settle(Outcome::Replaced), out);
    }

    fn trim_ring(&mut self, id: QueueId, out: &mut Decision) {
        let queue = self.queues.get(id);
        let over = queue.map_or(0, ring_surplus);
        if over <= self.limits.dispatch_max {
            self.surplus.rings.remove(&id.0);
        }
        if let Some(queue) = queue {
            let count = over.min(self.limits.dispatch_max);
            let oldest: Vec<_> = if queue.is_retroactive() {
                super::retroactive::oldest(queue, count)
            } else {
                queue.ready.oldest(count).collect()
            };
            let verb = Verb::Settle(Outcome::Dropped);
            add_entries(queue, oldest.into_iter(), verb, out);
        }
    }
}

/// How many messages that nobody holds a ring has too many.
fn ring_surplus(queue: &QueueState) -> usize {
    let max = if queue.is_retroactive() {
        queue.policy.retroactive_messages
    } else {
        queue.policy.ring_size.unwrap_or(u64::MAX)
    };
    queue
        .ready
        .len()
        .saturating_sub(usize::try_from(max).unwrap_or(usize::MAX))
}
