//! Addresses that have as much as they may, and a node that has.

use forebay_journal::QueueId;

use super::destination::{Destination, DestinationId};
use super::machine::Machine;
use super::policy::Full;
use super::quota::{Held, QuotaNote, Quotas, Room};

impl Machine {
    /// What becomes of one more message for the address; none if it has room.
    ///
    /// Counted is all that its queues hold, delivered and delayed messages too; what is in two
    /// queues counts twice, and what a transaction stages when that commits. Where the node has a
    /// limit over all addresses, its producer waits ([`Full::Block`]) while other shards are asked
    /// for room, whatever the policy is.
    /// Cost: nothing where no limit is set, else O(queues of the address).
    pub fn fullness(&mut self, destination: DestinationId) -> Option<Full> {
        let destination = self.destinations.get(destination)?;
        let own = self.fullness_at(destination);
        if own.is_some() || self.quotas.is_none() {
            return own;
        }
        let policy = destination.policy_of_full_node()?;
        self.fullness_of_node(policy)
    }

    pub(super) fn fullness_at(&self, destination: &Destination) -> Option<Full> {
        let policy = &destination.policy;
        let (messages_max, size_max) = (policy.messages_max, policy.size_max_bytes);
        if messages_max.is_none() && size_max.is_none() {
            return None;
        }
        let ids = destination.durable.iter().chain(&destination.volatile);
        let queues = ids.filter_map(|id| self.queues.get(QueueId(id.get())));
        let (mut messages, mut bytes) = (0, 0);
        for queue in queues {
            messages += queue.message_count() as u64;
            bytes += queue.bytes;
        }
        let is_full = messages_max.is_some_and(|max| messages >= max)
            || size_max.is_some_and(|max| bytes >= max);
        is_full.then_some(policy.full_policy)
    }

    /// What a full node means to an address of this policy.
    pub(super) fn fullness_of_node(&mut self, policy: Full) -> Option<Full> {
        match self.quotas.as_mut()?.room(self.held) {
            Room::Yes => None,
            Room::Unsure => Some(Full::Block),
            Room::No => Some(policy),
        }
    }

    /// What its queues hold: as [`Self::fullness`] counts, over all addresses.
    pub const fn held(&self) -> Held {
        self.held
    }

    /// Messages that left queues since the machine was made: where it grew there may be room.
    pub const fn left_count(&self) -> u64 {
        self.left
    }

    /// What the queues may hold from now on, together with those of the other shards.
    pub fn set_quotas(&mut self, quotas: Quotas) {
        self.quotas = quotas.is_any().then(|| Box::new(quotas));
    }

    /// Another shard says something about the limits over all addresses.
    pub fn take_quota_note(&mut self, from: u16, note: QuotaNote) {
        if let Some(quotas) = &mut self.quotas {
            quotas.take(from, note);
        }
    }

    /// Asks other shards for room and gives them of it: once at the end of a turn, then
    /// [`Self::poll_quota_note`] has what is to be said. Whether who waits for room here may find
    /// some in the next turn.
    pub fn step_quotas(&mut self) -> bool {
        let held = self.held;
        let quotas = self.quotas.as_mut();
        quotas.is_some_and(|quotas| quotas.step(held))
    }

    /// What is to be said to which shard.
    pub fn poll_quota_note(&mut self) -> Option<(u16, QuotaNote)> {
        self.quotas.as_mut()?.poll()
    }
}

impl Destination {
    /// What it does with messages when the node is full; none if that is nothing to it: it takes
    /// them, or has no queue that they would be in.
    pub(super) fn policy_of_full_node(&self) -> Option<Full> {
        let policy = self.policy.full_policy;
        (policy != Full::Page && self.has_queue()).then_some(policy)
    }
}
