//! Durable subscriptions to topics: queues that are found by their name, which is unique in the
//! shard, and that stay until somebody unsubscribes. At most one consumer is attached.
//!
//! Only queues whose definition says so are in the index: a queue that made itself may have the
//! same name.

use forebay_journal::QueueId;
use forebay_journal::format::{QueueFlags, Routing};
use rustc_hash::FxHashMap;

use super::consumer::ConsumerId;
use super::decision::{Decision, Definition, Refused};
use super::fate::Return;
use super::machine::Machine;
use super::state::QueueState;

/// Durable subscriptions by name: as many as there are such queues.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(FxHashMap<Box<[u8]>, QueueId>);

impl Subscriptions {
    pub(super) fn get(&self, name: &[u8]) -> Option<QueueId> {
        self.0.get(name).copied()
    }

    /// Panics: if another queue has the name (our own mistake: it is deleted first).
    #[cold]
    pub(super) fn insert(&mut self, name: &[u8], queue: QueueId) {
        let former = self.0.insert(name.into(), queue);
        assert_eq!(former, None, "two subscriptions of one name");
    }

    #[cold]
    pub(super) fn remove(&mut self, name: &[u8]) {
        self.0.remove(name);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Machine {
    /// Opens the durable subscription of this name to a multicast address; decides to define it
    /// if it is not there. One to another address is deleted first, with all that it holds (JMS
    /// 2.0, 8.3.3). Nothing decided means that it was there already.
    ///
    /// Errors: `SubscriptionInUse`; `ConsumersFull`, before anything is deleted; `QueuesFull`;
    /// `NameTooLong`.
    pub fn decide_durable_subscription(
        &self,
        name: &[u8],
        address: &[u8],
        out: &mut Decision,
    ) -> Result<QueueId, Refused> {
        out.clear();
        let former = self.subscription(name)?;
        let max = self.limits.consumers_max;
        if self.consumers.len() >= max {
            return Err(Refused::ConsumersFull { max });
        }
        if let Some(queue) = former
            && self.address_of(queue) == Some(address)
        {
            return Ok(queue.id);
        }
        let others = self.queues.len() - usize::from(former.is_some());
        self.check_definition(others, address, name)?;
        if let Some(queue) = former {
            out.delete(queue.id, queue.is_durable());
        }
        let definition = Definition {
            queue: self.queue_floor(),
            routing: Routing::Multicast,
            flags: QueueFlags {
                is_subscription: true,
                ..QueueFlags::default()
            },
            is_journaled: true,
        };
        out.define(definition, address, name);
        Ok(definition.queue)
    }

    /// Deletes the durable subscription of this name with all that it holds. Nothing decided
    /// means that there is none.
    ///
    /// Errors: `SubscriptionInUse`.
    pub fn decide_forget(&self, name: &[u8], out: &mut Decision) -> Result<(), Refused> {
        out.clear();
        if let Some(queue) = self.subscription(name)? {
            out.delete(queue.id, queue.is_durable());
        }
        Ok(())
    }

    /// Deletes the durable subscription that a consumer is attached to, with all that it holds
    /// and the consumer. Another queue only loses the consumer: see [`Self::decide_detach`].
    ///
    /// Errors: `UnknownConsumer`.
    pub fn decide_unsubscribe(&self, id: ConsumerId, out: &mut Decision) -> Result<(), Refused> {
        self.decide_detach(id, Return::Unused, 0, out)?;
        let consumer = self.consumers.resolve(id).ok_or(Refused::UnknownConsumer)?;
        let queue = self.queues.get(consumer.queue);
        if let Some(queue) = queue.filter(|queue| queue.subscription_name().is_some()) {
            out.clear();
            out.delete(queue.id, queue.is_durable());
        }
        Ok(())
    }

    /// The durable subscription of this name, if nobody is attached to it.
    fn subscription(&self, name: &[u8]) -> Result<Option<&QueueState>, Refused> {
        let queue = self.subscriptions.get(name);
        match queue.and_then(|queue| self.queues.get(queue)) {
            Some(queue) if !queue.consumers.is_empty() => Err(Refused::SubscriptionInUse),
            queue => Ok(queue),
        }
    }

    pub(super) fn address_of(&self, queue: &QueueState) -> Option<&[u8]> {
        let defined = queue.defined.as_ref()?;
        Some(&self.destinations.at(defined.destination).address)
    }
}
