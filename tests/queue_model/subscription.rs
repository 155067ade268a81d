//! Subscriptions with names: found by them, one consumer or any number, replaced when somebody
//! wants another one, gone when somebody unsubscribes or, if they are not durable, with the last
//! consumer.

use forebay::queue::{Decision, Effect, Machine, Place, Rank, Refused, Topic};
use forebay_journal::QueueId;
use forebay_journal::format::{Record, Routing};

use super::model::Named;
use super::rig::{LIMITS, Rig, address_of};

/// Names that are used.
pub(crate) const NAMES: u8 = 3;
/// Selectors that are used; the machine does not look into them.
const FILTERS: [&str; 3] = ["", "color = 'red'", "weight > 3"];

/// What is asked for beside name and topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) filter: u8,
    pub(crate) is_durable: bool,
    pub(crate) is_shared: bool,
    pub(crate) is_no_local: bool,
}

/// One of them is that of a queue which made itself.
fn name_of(number: u8) -> String {
    match number % NAMES {
        0 => "address.0".to_owned(),
        number => format!("durable.{number}"),
    }
}

/// The queue that would go with this name, as the machine decides it.
pub(crate) fn forgotten(machine: &Machine, name: u8) -> Result<Option<QueueId>, Refused> {
    let mut decision = Decision::new();
    machine.decide_forget(name_of(name).as_bytes(), None, &mut decision)?;
    let mut facts = decision.facts();
    assert!(facts.len() <= 1);
    Ok(facts.next().map(|fact| match fact.record {
        Record::QueueDelete { queue } if fact.is_journaled => queue,
        other => panic!("not the end of a durable subscription: {other:?}"),
    }))
}

impl Rig {
    /// Whether no consumer fits any more; then the answer has to say so.
    pub(crate) fn is_full_of_consumers(&self, decided: Result<QueueId, Refused>) -> bool {
        let max = LIMITS.consumers_max;
        let is_full = self.model.consumers.len() >= max;
        if is_full {
            assert_eq!(decided, Err(Refused::ConsumersFull { max }));
        }
        is_full
    }

    /// What a subscription of that name says to one that is wanted; none if it may be had.
    fn expected_refusal(&self, wanted: &Named, address: &str) -> Option<Refused> {
        let (id, named, attached) = self.model.subscription(&wanted.name)?;
        if named.is_shared != wanted.is_shared {
            let is_shared = named.is_shared;
            return Some(Refused::SubscriptionKind { is_shared });
        }
        let is_same = named == wanted && self.model.queues[&id].address == address;
        match (attached > 0, named.is_shared) {
            (true, false) => Some(Refused::SubscriptionInUse),
            (true, true) if !is_same => Some(Refused::SubscriptionDiffers),
            _ => None,
        }
    }

    pub(crate) fn subscribe_by_name(&mut self, name: u8, to: u8, kind: Kind, credit: u8) {
        let address = address_of(to);
        let wanted = Named {
            name: name_of(name),
            filter: FILTERS[usize::from(kind.filter) % FILTERS.len()],
            is_durable: kind.is_durable || !kind.is_shared,
            is_shared: kind.is_shared,
            is_no_local: kind.is_no_local,
        };
        let topic = Topic {
            address: address.as_bytes(),
            name: Some(wanted.name.as_bytes()),
            filter: wanted.filter.as_bytes(),
            is_durable: wanted.is_durable,
            is_shared: wanted.is_shared,
            is_no_local: wanted.is_no_local,
        };
        let decided = self.machine.decide_subscription(&topic, &mut self.decision);
        if let Some(refused) = self.expected_refusal(&wanted, &address) {
            return assert_eq!(decided, Err(refused));
        }
        if self.is_full_of_consumers(decided) {
            return;
        }
        let known = self.model.subscription(&wanted.name);
        let former = known.map(|(id, ..)| id);
        let is_same = |id: &u64| {
            let queue = &self.model.queues[id];
            queue.address == address && queue.subscription.as_ref() == Some(&wanted)
        };
        if let Some(id) = former.filter(is_same) {
            assert_eq!(decided, Ok(QueueId(id)));
            assert!(self.decision.is_empty());
            return self.attach(QueueId(id), credit, Rank::default());
        }
        let others = self.model.queues.len() - usize::from(former.is_some());
        let max = LIMITS.queues_max;
        if others >= max {
            return assert_eq!(decided, Err(Refused::QueuesFull { max }));
        }
        let queue = decided.expect("there is room");
        let done = self.apply_decision();
        assert_eq!(done.len(), 1 + usize::from(former.is_some()));
        if let Some(former) = former {
            self.model.delete(former);
        }
        let (place, _) = done.last().expect("it was defined");
        assert_eq!(matches!(place, Place::Journal(_)), wanted.is_durable);
        self.define(queue, Routing::Multicast, &address, *place);
        let defined = self.model.queues.get_mut(&queue.0).expect("just now");
        defined.subscription = Some(wanted);
        self.attach(queue, credit, Rank::default());
    }

    /// `for_shared`: to make room elsewhere.
    pub(crate) fn forget(&mut self, name: u8, for_shared: Option<bool>) {
        let name = name_of(name);
        let decided = self
            .machine
            .decide_forget(name.as_bytes(), for_shared, &mut self.decision);
        let Some((queue, named, attached)) = self.model.subscription(&name) else {
            assert_eq!(decided, Ok(()));
            return assert!(self.decision.is_empty());
        };
        let is_shared = named.is_shared;
        if for_shared.is_some_and(|wanted| wanted != is_shared) {
            assert_eq!(decided, Err(Refused::SubscriptionKind { is_shared }));
        } else if attached > 0 {
            assert_eq!(decided, Err(Refused::SubscriptionInUse));
        } else {
            assert_eq!(decided, Ok(()));
            assert_eq!(self.apply_decision().len(), 1);
            self.model.delete(queue);
        }
    }

    /// Takes a consumer away, and its queue with it if that is a subscription with a name.
    pub(crate) fn unsubscribe(&mut self, who: u8) {
        let Some((number, id, is_there)) = self.consumer(who) else {
            return;
        };
        let queue = self.model.consumers.get(&number).map(|one| one.queue);
        let queue = queue.filter(|queue| self.model.queues[queue].subscription.is_some());
        let decided = self.machine.decide_unsubscribe(id, &mut self.decision);
        let Some(queue) = queue.filter(|_| is_there) else {
            return assert_eq!(decided.is_ok(), is_there);
        };
        let consumers = self.model.consumers.values();
        if consumers.filter(|one| one.queue == queue).count() > 1 {
            return assert_eq!(decided, Err(Refused::SubscriptionInUse));
        }
        decided.expect("it is there, alone");
        let done = self.apply_decision();
        let effects = done[0].1.iter();
        let effects = effects.filter(|effect| matches!(effect, Effect::Detached { .. }));
        assert_eq!((done.len(), effects.count()), (1, 1));
        assert!(!self.machine.has_consumer(id));
        self.model.delete(queue);
    }

    /// Each name leads where the model says, and each queue is what it was defined as.
    pub(crate) fn compare_subscriptions(&self) {
        for name in 0..NAMES {
            let name = name_of(name);
            let mut decision = Decision::new();
            let decided = self
                .machine
                .decide_forget(name.as_bytes(), None, &mut decision);
            match self.model.subscription(&name) {
                Some((_, _, 1..)) => assert_eq!(decided, Err(Refused::SubscriptionInUse)),
                known => assert_eq!(decision.facts().len(), usize::from(known.is_some())),
            }
        }
        for (id, queue) in &self.model.queues {
            let filter = queue.subscription.as_ref().map_or("", |named| named.filter);
            let found = self.machine.filter(QueueId(*id));
            assert_eq!(found, Some(filter.as_bytes()), "queue {id}");
            let flags = self.machine.flags(QueueId(*id)).expect("it is defined");
            let found = (flags.is_shared, flags.is_no_local);
            let named = queue.subscription.as_ref();
            let expected = named.map_or((false, false), |n| (n.is_shared, n.is_no_local));
            assert_eq!(found, expected, "queue {id}");
        }
    }
}
