//! Durable subscriptions: found by name, one consumer, gone when somebody unsubscribes.

use forebay::queue::{Decision, Effect, Machine, Place, Rank, Refused};
use forebay_journal::QueueId;
use forebay_journal::format::{Record, Routing};

use super::rig::{LIMITS, Rig, address_of};

/// Names that are used.
pub(crate) const NAMES: u8 = 3;

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
    machine.decide_forget(name_of(name).as_bytes(), &mut decision)?;
    let mut facts = decision.facts();
    assert!(facts.len() <= 1);
    Ok(facts.next().map(|fact| match fact.record {
        Record::QueueDelete { queue } if fact.is_journaled => queue,
        other => panic!("not the end of a subscription: {other:?}"),
    }))
}

impl Rig {
    pub(crate) fn subscribe_durably(&mut self, name: u8, to: u8, credit: u8) {
        let (name, address) = (name_of(name), address_of(to));
        let known = self.model.subscription(&name);
        let decided = self.machine.decide_durable_subscription(
            name.as_bytes(),
            address.as_bytes(),
            &mut self.decision,
        );
        let others = self.model.queues.len() - usize::from(known.is_some());
        let (consumers_max, queues_max) = (LIMITS.consumers_max, LIMITS.queues_max);
        let refused = |refused: Refused| assert_eq!(decided, Err(refused));
        if let Some((_, true)) = known {
            return refused(Refused::SubscriptionInUse);
        }
        if self.model.consumers.len() >= consumers_max {
            return refused(Refused::ConsumersFull { max: consumers_max });
        }
        let same = known.filter(|(id, _)| self.model.queues[id].address == address);
        if let Some((id, _)) = same {
            assert_eq!(decided, Ok(QueueId(id)));
            assert!(self.decision.is_empty());
            return self.attach(QueueId(id), credit, Rank::default());
        }
        if others >= queues_max {
            return refused(Refused::QueuesFull { max: queues_max });
        }
        let queue = decided.expect("there is room");
        let done = self.apply_decision();
        assert_eq!(done.len(), 1 + usize::from(known.is_some()));
        if let Some((former, _)) = known {
            self.model.delete(former);
        }
        let (place, _) = done.last().expect("it was defined");
        assert!(matches!(place, Place::Journal(_)));
        self.define(queue, Routing::Multicast, &address, *place);
        let defined = self.model.queues.get_mut(&queue.0).expect("just now");
        defined.subscription = Some(name);
        self.attach(queue, credit, Rank::default());
    }

    pub(crate) fn forget(&mut self, name: u8) {
        let name = name_of(name);
        let decided = self
            .machine
            .decide_forget(name.as_bytes(), &mut self.decision);
        match self.model.subscription(&name) {
            Some((_, true)) => assert_eq!(decided, Err(Refused::SubscriptionInUse)),
            Some((queue, false)) => {
                assert_eq!(decided, Ok(()));
                assert_eq!(self.apply_decision().len(), 1);
                self.model.delete(queue);
            }
            None => {
                assert_eq!(decided, Ok(()));
                assert!(self.decision.is_empty());
            }
        }
    }

    /// Takes a consumer away, and its queue with it if that is a durable subscription.
    pub(crate) fn unsubscribe(&mut self, who: u8) {
        let Some((number, id, is_there)) = self.consumer(who) else {
            return;
        };
        let queue = self.model.consumers.get(&number).map(|one| one.queue);
        let queue = queue.filter(|queue| self.model.queues[queue].subscription.is_some());
        let Some(queue) = queue.filter(|_| is_there) else {
            let decided = self.machine.decide_unsubscribe(id, &mut self.decision);
            return assert_eq!(decided.is_ok(), is_there);
        };
        self.machine
            .decide_unsubscribe(id, &mut self.decision)
            .expect("it is there");
        let done = self.apply_decision();
        let consumers = self.model.consumers.values();
        let detached = consumers.filter(|one| one.queue == queue).count();
        let effects = done[0].1.iter();
        let effects = effects.filter(|effect| matches!(effect, Effect::Detached { .. }));
        assert_eq!((done.len(), effects.count()), (1, detached));
        assert!(!self.machine.has_consumer(id));
        self.model.delete(queue);
    }

    /// Each name leads where the model says.
    pub(crate) fn compare_subscriptions(&self) {
        for name in 0..NAMES {
            let expected = match self.model.subscription(&name_of(name)) {
                Some((_, true)) => Err(Refused::SubscriptionInUse),
                Some((queue, false)) => Ok(Some(QueueId(queue))),
                None => Ok(None),
            };
            assert_eq!(forgotten(&self.machine, name), expected);
        }
    }
}
