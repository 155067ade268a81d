//! What an operator does to a queue, and what the model says of it.

use std::collections::{BTreeMap, BTreeSet};

use forebay::queue::{Place, Refused};
use forebay_journal::QueueId;
use forebay_journal::format::{Outcome, Record};

use super::model::State;
use super::rig::{Rig, nth};

impl Rig {
    /// Pauses a queue or lets it go on; asked twice, nothing is decided.
    pub(crate) fn pause(&mut self, which: u8, is_paused: bool) {
        let Some(queue) = nth(self.model.queues.keys(), which) else {
            return;
        };
        let id = QueueId(queue);
        let decided = self.machine.decide_pause(id, is_paused, &mut self.decision);
        assert_eq!(decided, Ok(()));
        let is_new = self.model.paused.contains(&queue) != is_paused;
        assert_eq!(self.decision.facts().len(), usize::from(is_new));
        if !is_new {
            return;
        }
        let (place, effects) = self.apply_decision().remove(0);
        assert_eq!(effects, []);
        let known = self.model.queues.get_mut(&queue).expect("just seen");
        let segment = match place {
            Place::Journal(location) => Some(location.segment()),
            Place::Volatile(_) => None,
        };
        assert_eq!(segment.is_some(), known.defined_in.is_some());
        known.defined_in = segment;
        if is_paused {
            self.model.paused.insert(queue);
            self.machine.decide_dispatch(id, &mut self.decision);
            assert!(self.decision.is_empty(), "paused");
        } else {
            self.model.paused.remove(&queue);
        }
    }

    /// Purges a queue, so many messages at a time.
    pub(crate) fn purge(&mut self, which: u8, most: u8) {
        let Some(queue) = nth(self.model.queues.keys(), which) else {
            return;
        };
        let most = usize::from(most % 5) + 1;
        let messages = &self.model.queues[&queue].messages;
        let free = messages.iter().filter(|(_, m)| m.state == State::Ready);
        let mut left: BTreeMap<u64, bool> = free.map(|(id, m)| (*id, m.is_durable())).collect();
        let is_kept = self.model.queues[&queue].defined_in.is_some();
        let mut next = Some(self.machine.begin_purge());
        while let Some(purge) = next {
            let decided = self
                .machine
                .decide_drop(QueueId(queue), purge, most, &mut self.decision);
            next = decided.expect("it is there");
            assert!(self.decision.message_count() <= most as u64);
            let decision = core::mem::take(&mut self.decision);
            for fact in decision.facts() {
                let Record::Settle {
                    queue: of,
                    outcome: Outcome::Dropped,
                    transaction: 0,
                    messages,
                } = fact.record
                else {
                    panic!("a purge drops: {fact:?}");
                };
                assert_eq!(of.0, queue);
                for id in messages.messages() {
                    let is_durable = left.remove(&id.0).expect("free, and dropped once");
                    assert_eq!(fact.is_journaled, is_durable && is_kept);
                    self.model.settle(queue, id.0);
                    if fact.is_journaled {
                        self.settled.insert((queue, id.0));
                    }
                }
                self.apply(&fact, Place::NONE);
            }
            self.decision = decision;
        }
        assert!(left.is_empty(), "purged and still there: {left:?}");
    }

    /// Deletes a queue if nobody consumes from it.
    pub(crate) fn remove(&mut self, which: u8) {
        let Some(queue) = nth(self.model.queues.keys(), which) else {
            return;
        };
        let is_attended = self.model.consumers.values().any(|one| one.queue == queue);
        let decided = self
            .machine
            .decide_remove(QueueId(queue), false, &mut self.decision);
        if is_attended {
            assert_eq!(decided, Err(Refused::QueueInUse));
            return assert!(self.decision.is_empty());
        }
        assert_eq!(decided, Ok(()));
        self.apply_decision();
        self.model.delete(queue);
    }

    /// What an operator sees is what the model has.
    pub(crate) fn compare_described(&self) {
        let mut place = 0;
        let mut listed = BTreeSet::new();
        // One at a time, as answers with room for one would be.
        while let Some((next, id)) = self.machine.queues_from(place).next() {
            place = next;
            assert!(listed.insert(id.0), "queue {} is listed twice", id.0);
            let seen = self.machine.describe(id).expect("listed");
            let known = &self.model.queues[&id.0];
            assert_eq!(seen.address, known.address.as_bytes());
            assert_eq!(seen.routing, known.routing);
            assert_eq!(seen.is_durable, known.defined_in.is_some());
            assert_eq!(seen.flags.is_paused, self.model.paused.contains(&id.0));
            assert_eq!(seen.flags.is_paused, self.machine.is_paused(id));
            if let Some(named) = &known.subscription {
                assert_eq!(seen.name, named.name.as_bytes());
                assert!(self.machine.find(seen.name).any(|found| found == id));
            }
            let links = self.machine.links_of(id).count();
            assert_eq!(links as u64, seen.counts.consumers);
        }
        assert!(listed.iter().eq(self.model.queues.keys()));
    }
}
