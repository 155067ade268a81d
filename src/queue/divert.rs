//! Diverts: an address sends what it gets to another one as well, or instead.
//!
//! A divert is a queue of the address in which nothing is ever ready: what comes in leaves at once
//! (`aside.rs`). It is in no list of the address, so nobody consumes from it.

use forebay_journal::QueueId;
use forebay_journal::format::{QueueFlags, Routing};
use zerocopy::little_endian::U64;

use super::decision::{Decision, Definition, Refused, Routed};
use super::destination::DestinationId;
use super::machine::Machine;
use super::policy::Policy;

impl Machine {
    /// Makes the queue of an address's divert, if it is to have one and has none. Nothing decided
    /// means that nothing is to be made.
    ///
    /// Errors: `QueuesFull`; `NameTooLong`.
    pub fn decide_divert(
        &self,
        routing: Routing,
        address: &[u8],
        out: &mut Decision,
    ) -> Result<(), Refused> {
        out.clear();
        let found = self.resolve(routing, address);
        let found = found.and_then(|id| self.destinations.get(id));
        let is_wanted = match found {
            Some(destination) => {
                destination.divert.is_none() && destination.policy.divert_address.is_some()
            }
            None => self.policies.of(address).divert_address.is_some(),
        };
        if !is_wanted {
            return Ok(());
        }
        self.check_definition(self.queues.len(), address, address, b"")?;
        let definition = Definition {
            queue: self.queue_floor(),
            routing,
            flags: QueueFlags {
                is_divert: true,
                ..QueueFlags::default()
            },
            is_journaled: true,
        };
        out.define(definition, address, address, b"");
        Ok(())
    }

    /// Whether messages for the address find all the queues that they are to go to.
    pub fn is_complete(&self, destination: DestinationId) -> bool {
        let destination = self.destinations.get(destination);
        destination.is_none_or(|destination| {
            let policy = &destination.policy;
            let is_made = destination.divert.is_some() || policy.divert_address.is_none();
            let is_kept = destination.retroactive.is_some() || destination.kept_max() == 0;
            let needs_queue = destination.routing == Routing::Anycast && !policy.diverts_alone();
            is_made && is_kept && (!needs_queue || destination.has_queue())
        })
    }

    /// Whether any address diverts.
    pub fn has_diverts(&self) -> bool {
        self.policies.has_diverts()
    }
}

/// The message goes to the queue of a divert as well, or to it alone.
#[cold]
pub(super) fn divert_to(divert: QueueId, policy: &Policy, out: &mut Routed) {
    if policy.divert_address.is_none() {
        return;
    }
    if policy.diverts_alone() {
        out.queues.clear();
        out.durable_count = 0;
    }
    let durable = &out.queues[..out.durable_count];
    let at = durable.partition_point(|id| id.get() < divert.0);
    out.queues.insert(at, U64::new(divert.0));
    out.durable_count += 1;
}
