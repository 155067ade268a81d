//! What one queue holds, as sets of message names.
//!
//! Names rise, so that the sets are nearly dense and compress well: some bits a message, whatever
//! the size of the store. Bytes are not kept; who needs them reads them once more.

use std::collections::BTreeMap;

use forebay_journal::format::{Departure, IdList, QueueFlags, Routing, Standing, Stands};
use roaring::RoaringTreemap;

/// A queue's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) address: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) filter: Vec<u8>,
    pub(crate) routing: Routing,
    pub(crate) flags: QueueFlags,
}

/// A number for each of many messages, as a set for each of its bits; it stays at its greatest.
#[derive(Debug, Default)]
struct Counters([RoaringTreemap; Self::BITS]);

impl Counters {
    /// As many as the broker counts attempts with.
    const BITS: usize = 11;

    fn get(&self, message: u64) -> u16 {
        let bits = self.0.iter().enumerate();
        let set = bits.filter(|(_, plane)| plane.contains(message));
        set.map(|(bit, _)| 1 << bit).sum()
    }

    fn increment(&mut self, message: u64) {
        if self.0.iter().all(|plane| plane.contains(message)) {
            return;
        }
        for plane in &mut self.0 {
            if plane.insert(message) {
                return;
            }
            plane.remove(message);
        }
    }

    fn set(&mut self, message: u64, count: u16) {
        for (bit, plane) in self.0.iter_mut().enumerate() {
            if count >> bit & 1 == 1 {
                plane.insert(message);
            } else {
                plane.remove(message);
            }
        }
    }

    fn forget(&mut self, message: u64) {
        for plane in &mut self.0 {
            plane.remove(message);
        }
    }
}

/// Where a message of a queue is once no consumer is left, as after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Ready,
    /// Ready from this time on, or from that on which its annotations name.
    Delayed {
        unix_ms: Option<u64>,
    },
    /// On its way to another address.
    Leaving(Departure),
}

/// One queue: messages by name.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) defined: Option<Definition>,
    pub(crate) ready: RoaringTreemap,
    /// Delivered and neither settled nor released.
    pub(crate) unsettled: RoaringTreemap,
    /// Not delivered before their time.
    pub(crate) delayed: RoaringTreemap,
    /// On their way to another address.
    pub(crate) leaving: RoaringTreemap,
    /// Times that a release named, or a checkpoint: few, those of messages that failed and wait,
    /// and of those that have waited since before the checkpoint.
    until: BTreeMap<u64, u64>,
    /// Came before the definition.
    early: RoaringTreemap,
    reasons: BTreeMap<Departure, RoaringTreemap>,
    priorities: BTreeMap<u8, RoaringTreemap>,
    attempts: Counters,
}

impl Queue {
    fn sides(&self) -> [&RoaringTreemap; 4] {
        [&self.ready, &self.unsettled, &self.delayed, &self.leaving]
    }

    /// Adds the names of all that it holds.
    pub(crate) fn add_to(&self, names: &mut RoaringTreemap) {
        self.sides().into_iter().for_each(|side| *names |= side);
    }

    pub(crate) fn holds(&self, message: u64) -> bool {
        self.sides().iter().any(|side| side.contains(message))
    }

    /// How often it was delivered; stays at 2047, as in the broker.
    pub(crate) fn attempts(&self, message: u64) -> u16 {
        self.attempts.get(message)
    }

    /// Where a message of this queue is.
    pub(crate) fn place(&self, message: u64) -> Where {
        let reason = self.reasons.iter().find(|(_, set)| set.contains(message));
        if let Some((reason, _)) = reason {
            return Where::Leaving(*reason);
        }
        if self.delayed.contains(message) {
            let unix_ms = self.until.get(&message).copied();
            return Where::Delayed { unix_ms };
        }
        Where::Ready
    }

    /// A message comes in.
    pub(crate) fn enter(&mut self, message: u64, priority: u8, is_delayed: bool) {
        self.priorities.entry(priority).or_default().insert(message);
        let defined = self.defined.as_ref();
        if defined.is_none() {
            self.early.insert(message);
        }
        if defined.is_some_and(|defined| defined.flags.is_divert) {
            self.leave_for(message, Departure::Diverted);
        } else if is_delayed {
            self.delayed.insert(message);
        } else {
            self.ready.insert(message);
        }
    }

    /// A message that was here before is known now.
    pub(crate) fn enter_as(&mut self, message: u64, priority: u8, standing: Standing) {
        self.priorities.entry(priority).or_default().insert(message);
        self.attempts.set(message, standing.attempts);
        match standing.stands {
            Stands::Ready => drop(self.ready.insert(message)),
            Stands::Delivered => drop(self.unsettled.insert(message)),
            Stands::Delayed { ready_unix_ms } => {
                self.delayed.insert(message);
                self.until.insert(message, ready_unix_ms);
            }
            Stands::Leaving(reason) => self.leave_for(message, reason),
        }
    }

    /// A message that is here has another record, whose annotations name no time.
    pub(crate) fn note_moved(&mut self, message: u64, standing: Standing) {
        if let Stands::Delayed { ready_unix_ms } = standing.stands
            && self.delayed.contains(message)
        {
            self.until.insert(message, ready_unix_ms);
        }
    }

    fn leave_for(&mut self, message: u64, reason: Departure) {
        self.leaving.insert(message);
        self.reasons.entry(reason).or_default().insert(message);
    }

    /// A definition may come behind the first messages: what came before is on its way, too.
    pub(crate) fn define(&mut self, defined: Definition) {
        let early = std::mem::take(&mut self.early);
        if defined.flags.is_divert && self.defined.is_none() {
            for message in early {
                if self.ready.remove(message) || self.delayed.remove(message) {
                    self.leave_for(message, Departure::Diverted);
                }
            }
        }
        self.defined = Some(defined);
    }

    /// Takes it from wherever it is; whether it was there.
    fn take(&mut self, message: u64) -> bool {
        let was_delayed = self.delayed.remove(message);
        if was_delayed {
            self.until.remove(&message);
        }
        if self.leaving.remove(message) {
            self.reasons.values_mut().for_each(|set| {
                set.remove(message);
            });
            return true;
        }
        was_delayed || self.unsettled.remove(message) || self.ready.remove(message)
    }

    /// A message goes for good; whether it was there.
    pub(crate) fn settle(&mut self, message: u64) -> bool {
        let was_there = self.take(message);
        self.attempts.forget(message);
        self.priorities.values_mut().for_each(|set| {
            set.remove(message);
        });
        was_there
    }

    /// Ready messages of this priority, named first to last, are handed out.
    pub(crate) fn deliver(&mut self, priority: u8, first: u64, last: u64) {
        let Some(same) = self.priorities.get(&priority) else {
            return;
        };
        let mut ready = self.ready.iter();
        ready.advance_to(first);
        let named = ready.take_while(|message| *message <= last);
        let named: Vec<_> = named.filter(|message| same.contains(*message)).collect();
        named.into_iter().for_each(|message| self.hand(message));
    }

    fn hand(&mut self, message: u64) {
        if self.ready.remove(message) {
            self.unsettled.insert(message);
            self.attempts.increment(message);
        }
    }

    pub(crate) fn hand_out(&mut self, messages: IdList<'_>) {
        messages.messages().for_each(|message| self.hand(message.0));
    }

    pub(crate) fn depart(&mut self, reason: Departure, message: u64) {
        if self.take(message) {
            self.leave_for(message, reason);
        }
    }

    pub(crate) fn release(&mut self, ready_unix_ms: u64, message: u64) {
        if self.ready.contains(message) || !self.take(message) {
            return;
        }
        if ready_unix_ms == 0 {
            self.ready.insert(message);
        } else {
            self.delayed.insert(message);
            self.until.insert(message, ready_unix_ms);
        }
    }

    /// Priority of a message that is ready.
    pub(crate) fn ready_priority(&self, message: u64) -> Option<u8> {
        let mut of_priority = self.priorities.iter();
        self.ready.contains(message).then_some(())?;
        let (priority, _) = of_priority.find(|(_, set)| set.contains(message))?;
        Some(*priority)
    }

    /// A message that another queue has ready is here, too.
    pub(crate) fn share(&mut self, message: u64, priority: u8) {
        self.priorities.entry(priority).or_default().insert(message);
        self.ready.insert(message);
    }

    /// A checkpoint says how a message is here; whether that is news.
    pub(crate) fn restore(
        &mut self,
        message: u64,
        (priority, attempts): (u8, u16),
        state: Stands,
    ) -> bool {
        if self.holds(message) {
            return false;
        }
        let standing = Standing {
            stands: state,
            attempts,
            is_replaced: false,
        };
        self.enter_as(message, priority, standing);
        true
    }

    /// No consumer is left: what was delivered is ready again, but for what `is_locked`.
    pub(crate) fn restart(&mut self, is_locked: impl Fn(u64) -> bool) {
        for message in std::mem::take(&mut self.unsettled) {
            if is_locked(message) {
                self.unsettled.insert(message);
            } else {
                self.ready.insert(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_count_up_to_their_greatest() {
        let mut counters = Counters::default();
        for expected in 1..=2047 {
            counters.increment(7);
            assert_eq!(counters.get(7), expected);
        }
        counters.increment(7);
        assert_eq!((counters.get(7), counters.get(8)), (2047, 0));
        counters.forget(7);
        assert_eq!(counters.get(7), 0);
        counters.set(7, 1000);
        counters.set(7, 6);
        counters.increment(7);
        assert_eq!(counters.get(7), 7);
    }

    #[test]
    fn a_checkpoint_says_nothing_new_of_what_is_known() {
        let mut queue = Queue::default();
        queue.enter(1, 4, false);
        assert!(!queue.restore(1, (4, 3), Stands::Delivered));
        assert_eq!((queue.place(1), queue.attempts(1)), (Where::Ready, 0));
        let ready_unix_ms = 700;
        assert!(queue.restore(2, (5, 3), Stands::Delayed { ready_unix_ms }));
        assert!(queue.restore(3, (5, 1), Stands::Leaving(Departure::Expired)));
        assert!(queue.restore(4, (6, 2047), Stands::Ready));
        let unix_ms = Some(700);
        assert_eq!(queue.place(2), Where::Delayed { unix_ms });
        assert_eq!(queue.place(3), Where::Leaving(Departure::Expired));
        queue.deliver(6, 1, 9);
        assert_eq!((queue.unsettled.len(), queue.attempts(4)), (1, 2047));
    }

    #[test]
    fn a_message_is_in_one_place_alone() {
        let mut queue = Queue::default();
        queue.enter(1, 4, false);
        queue.enter(2, 5, false);
        queue.enter(3, 4, true);
        queue.deliver(4, 1, 3);
        assert_eq!((queue.ready.len(), queue.unsettled.len()), (1, 1));
        queue.release(900, 1);
        let unix_ms = Some(900);
        assert_eq!(queue.place(1), Where::Delayed { unix_ms });
        queue.depart(Departure::Expired, 1);
        assert_eq!(queue.place(1), Where::Leaving(Departure::Expired));
        assert_eq!(queue.attempts(1), 1);
        assert_eq!(queue.place(3), Where::Delayed { unix_ms: None });
        queue.release(0, 3);
        assert_eq!(queue.place(3), Where::Ready);
        let held = |queue: &Queue| {
            let mut names = RoaringTreemap::new();
            queue.add_to(&mut names);
            names.len()
        };
        assert_eq!(held(&queue), 3);
        assert!(queue.settle(1) && !queue.settle(1));
        assert_eq!((held(&queue), queue.attempts(1)), (2, 0));
    }
}
