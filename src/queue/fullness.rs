//! Addresses that have as much as they may.

use forebay_journal::QueueId;

use super::destination::{Destination, DestinationId};
use super::machine::Machine;
use super::policy::Full;

impl Machine {
    /// What becomes of one more message for the address; none if it has room.
    ///
    /// Counted is all that its queues hold, delivered and delayed messages too; what is in two
    /// queues counts twice, and what a transaction stages when that commits.
    /// Cost: nothing where no limit is set, else O(queues of the address).
    pub fn fullness(&self, destination: DestinationId) -> Option<Full> {
        self.fullness_at(self.destinations.get(destination)?)
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
}
