//! Subscriptions to topics. A plain one has no name and one consumer. One with a name is found by
//! it, and the name is unique in the shard: a durable one stays until somebody unsubscribes, a
//! shared one takes any number of consumers, and one that is shared and not durable goes with the
//! last of them.
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

/// What somebody subscribes to, and how.
///
/// Source: Jakarta Messaging 3.1, 8.3 (which JMS 2.0 numbers likewise).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topic<'a> {
    /// The multicast address.
    pub address: &'a [u8],
    /// The subscription's name; none for a plain one.
    pub name: Option<&'a [u8]>,
    /// Selector that its messages meet, canonical; empty for all messages. Not looked into here.
    pub filter: &'a [u8],
    /// Whether it stays while nobody is attached; it has a name then.
    pub is_durable: bool,
    /// Whether any number of consumers may attach; it has a name then.
    pub is_shared: bool,
    /// Whether nothing goes to it that its own client sends. Not looked into here.
    pub is_no_local: bool,
}

impl<'a> Topic<'a> {
    /// A plain subscription.
    pub fn plain(address: &'a [u8]) -> Self {
        Self {
            address,
            ..Self::default()
        }
    }

    /// A durable subscription for one consumer at a time.
    pub fn durable(name: &'a [u8], address: &'a [u8]) -> Self {
        Self {
            address,
            name: Some(name),
            is_durable: true,
            ..Self::default()
        }
    }

    fn flags(&self) -> QueueFlags {
        QueueFlags {
            is_auto_created: self.name.is_none(),
            is_subscription: self.name.is_some(),
            is_shared: self.is_shared,
            is_no_local: self.is_no_local,
            is_divert: false,
            is_retroactive: false,
            is_paused: false,
        }
    }
}

/// Subscriptions by name: as many as there are such queues.
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
    /// Opens a subscription to a multicast address; decides to define it if it is not there.
    /// Nothing decided means that it was there already. A plain one is never there.
    ///
    /// One of the same name that has another topic or selector is deleted first, with all that it
    /// holds (JMS 2.0, 8.3.3), if nobody is attached.
    ///
    /// Errors: `SubscriptionInUse` or, if it is shared, `SubscriptionDiffers`: somebody is
    /// attached; `SubscriptionKind`; `ConsumersFull`, before anything is deleted; `QueuesFull`;
    /// `NameTooLong`.
    pub fn decide_subscription(
        &self,
        topic: &Topic<'_>,
        out: &mut Decision,
    ) -> Result<QueueId, Refused> {
        out.clear();
        let former = topic.name.and_then(|name| self.subscriptions.get(name));
        let former = former.and_then(|queue| self.queues.get(queue));
        let is_same = former.is_some_and(|queue| self.is_as_defined(queue, topic));
        if let Some(queue) = former {
            check_attach(queue, topic.is_shared, is_same)?;
        }
        let max = self.limits.consumers_max;
        if self.consumers.len() >= max {
            return Err(Refused::ConsumersFull { max });
        }
        if let Some(queue) = former.filter(|_| is_same) {
            return Ok(queue.id);
        }
        let name = topic.name.unwrap_or(topic.address);
        let others = self.queues.len() - usize::from(former.is_some());
        self.check_definition(others, topic.address, name, topic.filter)?;
        if let Some(queue) = former {
            out.delete(queue.id, queue.is_durable());
        }
        let definition = Definition {
            queue: self.queue_floor(),
            routing: Routing::Multicast,
            flags: topic.flags(),
            is_journaled: topic.is_durable,
        };
        out.define(definition, topic.address, name, topic.filter);
        Ok(definition.queue)
    }

    /// Deletes the subscription of this name with all that it holds. Nothing decided means that
    /// there is none.
    ///
    /// `for_shared`: it makes room for one of that name elsewhere, and whether that one is shared;
    /// none: somebody unsubscribes.
    ///
    /// Errors: `SubscriptionInUse`; `SubscriptionKind`.
    pub fn decide_forget(
        &self,
        name: &[u8],
        for_shared: Option<bool>,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        out.clear();
        let queue = self.subscriptions.get(name);
        let Some(queue) = queue.and_then(|queue| self.queues.get(queue)) else {
            return Ok(());
        };
        let is_shared = for_shared.unwrap_or_else(|| queue.is_shared());
        check_kind(queue, is_shared)?;
        if !queue.consumers.is_empty() {
            return Err(Refused::SubscriptionInUse);
        }
        out.delete(queue.id, queue.is_durable());
        Ok(())
    }

    /// Deletes the subscription with a name that a consumer is attached to, with all that it holds
    /// and the consumer. Another queue only loses the consumer: see [`Self::decide_detach`].
    ///
    /// Errors: `UnknownConsumer`; `SubscriptionInUse`: others are attached as well.
    pub fn decide_unsubscribe(&self, id: ConsumerId, out: &mut Decision) -> Result<(), Refused> {
        self.decide_detach(id, Return::Unused, 0, out)?;
        let consumer = self.consumers.resolve(id).ok_or(Refused::UnknownConsumer)?;
        let queue = self.queues.get(consumer.queue);
        if let Some(queue) = queue.filter(|queue| queue.subscription_name().is_some()) {
            out.clear();
            if queue.consumers.len() > 1 {
                return Err(Refused::SubscriptionInUse);
            }
            out.delete(queue.id, queue.is_durable());
        }
        Ok(())
    }

    /// Checks that one more consumer may attach to a queue that is there. Decides nothing.
    ///
    /// Errors: `UnknownQueue`; `SubscriptionInUse`: it is a subscription for one at a time.
    pub fn decide_attach(&self, queue: QueueId, out: &mut Decision) -> Result<(), Refused> {
        out.clear();
        let queue = self.queues.get(queue).ok_or(Refused::UnknownQueue)?;
        if queue.subscription_name().is_none() {
            return Ok(());
        }
        check_attach(queue, queue.is_shared(), true)
    }

    pub(super) fn address_of(&self, queue: &QueueState) -> Option<&[u8]> {
        let defined = queue.defined.as_ref()?;
        Some(&self.destinations.at(defined.destination).address)
    }

    /// Whether the subscription that is there is the one that is wanted.
    fn is_as_defined(&self, queue: &QueueState, topic: &Topic<'_>) -> bool {
        queue.defined.as_ref().is_some_and(|defined| {
            defined.segment.is_some() == topic.is_durable
                && *self.destinations.at(defined.destination).address == *topic.address
                && *defined.filter == *topic.filter
                && defined.flags.is_no_local == topic.is_no_local
        })
    }
}

/// Whether a consumer may attach to the subscription of this name.
fn check_attach(queue: &QueueState, is_shared: bool, is_same: bool) -> Result<(), Refused> {
    check_kind(queue, is_shared)?;
    match (queue.consumers.is_empty(), is_shared) {
        (false, false) => Err(Refused::SubscriptionInUse),
        (false, true) if !is_same => Err(Refused::SubscriptionDiffers),
        _ => Ok(()),
    }
}

/// Source: JMS 2.0, 8.3.4: a shared and an unshared one of the same name are an error.
fn check_kind(queue: &QueueState, is_shared: bool) -> Result<(), Refused> {
    if queue.is_shared() == is_shared {
        return Ok(());
    }
    let is_shared = !is_shared;
    Err(Refused::SubscriptionKind { is_shared })
}
