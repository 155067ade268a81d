//! Priorities: of what is certainly ready, the highest goes first, and of those the first that
//! was sent. That can be known where one consumer takes one message at a time.

use crate::kinds::{Kinds, ShelfId};
use crate::ledger::{Departure, Uid};

impl Kinds {
    pub(super) fn check_priority(&mut self, at: ShelfId, one: Departure) {
        let shelf = &self.shelves[at];
        let seat = shelf.seats[&one.session];
        if seat.prefetch != Some(1) || !seat.is_sole {
            return;
        }
        let rank = self.facts[&one.uid].priority;
        let Uid(producer, number) = one.uid;
        let mut is_preferred = false;
        for (uid, message) in &shelf.ledger.messages {
            let facts = &self.facts[uid];
            // Confirmed before the consumer had room, and never seen: it waited then.
            let confirmed_us = facts.confirmed_us;
            let is_ready = confirmed_us.is_some_and(|at_us| at_us < seat.since_us)
                && message.departures == 0
                && !message.is_maybe_settled
                && !shelf.is_past(message, shelf.ledger.life);
            if !is_ready || *uid == one.uid {
                continue;
            }
            let is_before = uid.0 == producer && uid.1 < number;
            assert!(
                facts.priority < rank || facts.priority == rank && !is_before,
                "{} of priority {rank} comes, {uid} of {} waits",
                one.uid,
                facts.priority
            );
            is_preferred |= facts.priority < rank;
        }
        self.tried.preferred += u64::from(is_preferred);
    }
}
