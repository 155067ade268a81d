//! Deliveries and expiry: what goes to whom, and what goes because its time is over.

use std::collections::BTreeSet;

use forebay::queue::{Effect, Fact, Place, Settlement};
use forebay_journal::format::{Outcome, Record};
use forebay_journal::{MessageId, QueueId};

use super::model::State;
use super::rig::{LIMITS, Rig, nth};

impl Rig {
    pub(crate) fn dispatch(&mut self, rounds: u8) {
        for _ in 0..rounds {
            let Some(queue) = self.machine.poll_dispatch() else {
                return;
            };
            assert_eq!(
                self.machine.poll_dispatch(),
                Some(queue),
                "a poll changes nothing"
            );
            let is_selective = self.model.is_selective(queue.0);
            let is_expired = if is_selective {
                self.expire_planned(queue)
            } else {
                self.expire_front(queue)
            };
            if is_expired {
                continue;
            }
            let due = self.model.due(queue.0, LIMITS.dispatch_max);
            let mut decision = core::mem::take(&mut self.decision);
            self.machine.decide_dispatch(queue, &mut decision);
            assert_eq!(decision.facts().len(), 1, "polled queues have work");
            for fact in decision.facts() {
                if is_selective {
                    self.hand_out(queue, &fact);
                } else {
                    self.deliver_all(queue, &due, &fact);
                }
            }
            self.decision = decision;
        }
    }

    /// Delivers a range from the middle of a queue, to whose turn it is.
    pub(crate) fn dispatch_middle(&mut self, which: u8, skip: u8) {
        let Some(queue) = nth(self.model.queues.keys(), which) else {
            return;
        };
        if self.model.is_selective(queue) {
            return;
        }
        let demand = self.model.due(queue, usize::MAX).len();
        let ready = self.model.ready(queue);
        let skip = usize::from(skip).min(ready.len());
        let mut due = ready[skip..ready.len().min(skip + demand.min(3))].to_vec();
        let priority = due.first().map(|id| self.model.priority(queue, *id));
        due.retain(|id| Some(self.model.priority(queue, *id)) == priority);
        let (Some(first), Some(last), Some(priority)) = (due.first(), due.last(), priority) else {
            return;
        };
        let (first, last) = (MessageId(*first), MessageId(*last));
        let queue_id = QueueId(queue);
        let is_journaled = self.is_worth_a_record(queue, &due);
        let record = Record::Delivery {
            queue: queue_id,
            priority,
            first,
            last,
        };
        let fact = Fact {
            is_journaled,
            ..Fact::from(record)
        };
        self.deliver_all(queue_id, &due, &fact);
    }

    /// The clock shows `now`: everything that is due goes, a batch at a time.
    pub(crate) fn expire(&mut self, now: u8) {
        let now = u64::from(now);
        self.now = now;
        loop {
            let expiring = self.model.expiring();
            let next = expiring.first().map(|(time, ..)| *time);
            assert_eq!(self.machine.next_expiry_unix_ms(), next);
            let due = expiring.into_iter().take_while(|(time, ..)| *time <= now);
            let due: Vec<_> = due.take(LIMITS.dispatch_max).collect();
            self.machine.decide_expire(now, &mut self.decision);
            let due = due.iter().map(|(_, queue, id)| (*queue, *id)).collect();
            self.drop_expired(&due);
            if due.is_empty() {
                return;
            }
        }
    }

    /// What is overdue at the front of a queue goes before anything is handed out.
    fn expire_front(&mut self, queue: QueueId) -> bool {
        let mut front = self.model.ready(queue.0);
        front.truncate(LIMITS.dispatch_max);
        let messages = &self.model.queues[&queue.0].messages;
        let is_over = |id: &u64| (1..=self.now).contains(&messages[id].expires);
        let over: BTreeSet<_> = front.into_iter().filter(is_over).collect();
        let over = over.into_iter().map(|id| (queue.0, id)).collect();
        self.machine
            .decide_expire_front(queue, self.now, &mut self.decision);
        self.drop_expired(&over);
        if !over.is_empty() {
            self.machine.pass_turn(queue);
        }
        !over.is_empty()
    }

    /// The facts decided drop these and nothing else.
    fn drop_expired(&mut self, due: &BTreeSet<(u64, u64)>) {
        assert_eq!(self.decision.message_count(), due.len() as u64);
        let mut left = due.clone();
        let decision = core::mem::take(&mut self.decision);
        for fact in decision.facts() {
            self.expect_expired(&fact, &mut left);
            self.apply(&fact, Place::NONE);
        }
        self.decision = decision;
        assert!(left.is_empty(), "due and not dropped: {left:?}");
        for (queue, id) in due {
            self.model.settle(*queue, *id);
        }
    }

    fn expect_expired(&mut self, fact: &Fact<'_>, due: &mut BTreeSet<(u64, u64)>) {
        let Record::Settle {
            queue,
            outcome: Outcome::Expired,
            transaction: 0,
            messages,
        } = fact.record
        else {
            panic!("expiry settles: {fact:?}");
        };
        for id in messages.messages() {
            assert!(due.remove(&(queue.0, id.0)), "{} is not due", id.0);
            assert_eq!(fact.is_journaled, self.is_worth_a_record(queue.0, &[id.0]));
            if fact.is_journaled {
                self.settled.insert((queue.0, id.0));
            }
        }
    }

    pub(crate) fn is_worth_a_record(&self, queue: u64, messages: &[u64]) -> bool {
        let queue = &self.model.queues[&queue];
        let has_durable = messages.iter().any(|id| queue.messages[id].is_durable());
        queue.defined_in.is_some() && has_durable
    }

    fn deliver_all(&mut self, queue: QueueId, due: &[u64], fact: &Fact<'_>) {
        let (first, last) = (due[0], *due.last().expect("has work"));
        let (first, last) = (MessageId(first), MessageId(last));
        let expected = Record::Delivery {
            queue,
            priority: self.model.priority(queue.0, due[0]),
            first,
            last,
        };
        assert_eq!(fact.record, expected);
        assert_eq!(fact.is_journaled, self.is_worth_a_record(queue.0, due));
        let (_, effects) = self.apply(fact, Place::NONE);
        assert_eq!(effects.len(), due.len());
        for (effect, id) in effects.iter().zip(due) {
            self.deliver(queue.0, *id, effect);
        }
    }

    pub(crate) fn deliver(&mut self, expected_queue: u64, id: u64, effect: &Effect) {
        let Effect::Deliver {
            link,
            consumer,
            consumer_tag,
            delivery_tag,
            queue,
            message,
            place,
            size_bytes,
            attempts,
            is_redelivered,
            is_fragmented,
            is_group_first: _,
            settlement,
        } = *effect
        else {
            panic!("a delivery has one effect per message, not {effect:?}");
        };
        assert!(
            !self.settled.contains(&(queue.0, message.0)),
            "a settled message came back"
        );
        let number = link as usize;
        assert_eq!((queue.0, message.0, consumer_tag), (expected_queue, id, 7));
        assert_eq!(consumer, self.ids[&number]);
        assert_eq!(settlement, Settlement::ByConsumer);
        let served = self.model.served(queue.0);
        let willing = served
            .iter()
            .filter(|(_, one)| self.model.available(one) > 0);
        let highest = willing.map(|(_, one)| one.rank.priority).max();
        let (_, taker) = served
            .iter()
            .find(|(one, _)| *one == number)
            .expect("served");
        assert!(
            Some(taker.rank.priority) == highest || self.model.is_selective(queue.0),
            "a lower consumer was served"
        );
        let is_open = self.model.available(taker) > 0;
        assert!(is_open, "credit exceeded, or blocked");
        let holder = self.model.consumers.get_mut(&number).expect("attached");
        assert_eq!(holder.queue, queue.0);
        assert_eq!(delivery_tag, holder.next_tag);
        holder.next_tag += 1;
        holder.held.push((delivery_tag, id));
        let records = self.model.records.get(&id).map_or(0, Vec::len);
        let found = self
            .model
            .queues
            .get_mut(&queue.0)
            .and_then(|q| q.messages.get_mut(&id));
        let found = found.expect("in its queue");
        assert_eq!(found.state, State::Ready, "delivered twice at once");
        assert_eq!(
            (place, size_bytes, attempts),
            (found.place, found.size, found.attempts)
        );
        assert_eq!(is_redelivered, found.attempts > 0);
        assert_eq!(is_fragmented, records > 1);
        found.attempts += 1;
        found.state = State::Held { consumer: number };
    }
}
