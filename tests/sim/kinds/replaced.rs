//! Rings and last values: a newer message takes the place of what waits. Nothing else goes, and
//! what has to be gone does not come.

use forebay::queue::PolicySettings;

use crate::kinds::{Kind, Kinds, ShelfId};
use crate::ledger::{Departure, Uid};
use crate::options::Mutant;

/// Most messages of the ring.
const RING: u64 = 4;
/// Header that says which messages take each other's place.
pub(super) const KEY: &str = "item";

pub(super) fn ring_settings(mutant: Mutant) -> PolicySettings {
    let size = match mutant {
        Mutant::WideRing => RING * 3,
        _ => RING,
    };
    PolicySettings {
        attempts_max: Some(u32::MAX),
        ring_size: Some(Some(size)),
        ..PolicySettings::default()
    }
}

pub(super) fn last_value_settings() -> PolicySettings {
    PolicySettings {
        attempts_max: Some(u32::MAX),
        last_value_key: Some(Some(KEY.into())),
        ..PolicySettings::default()
    }
}

impl Kinds {
    /// Whether others may have taken the place of the message: such that are not known to have
    /// come before it.
    pub(super) fn may_be_replaced(&self, at: ShelfId, uid: Uid) -> bool {
        let (shelf, facts) = (&self.shelves[at], &self.facts[&uid]);
        let others = shelf.copies.keys().filter(|other| **other != uid);
        let others = others.map(|other| &self.facts[other]);
        let mut later = others.filter(|other| {
            let confirmed_us = other.confirmed_us;
            confirmed_us.is_none_or(|at_us| at_us >= facts.sent_us)
        });
        match shelf.kind {
            Kind::Ring => later.count() as u64 >= RING,
            Kind::LastValue => later.any(|other| other.key == facts.key),
            _ => false,
        }
    }

    /// A message leaves. What waited then can be known where one consumer takes one at a time and
    /// was there when it was sent: before, what is newer may have been dropped or taken, and it
    /// itself have been with another consumer.
    pub(super) fn check_replaced(&mut self, at: ShelfId, one: Departure) {
        let (shelf, uid) = (&self.shelves[at], one.uid);
        let seat = shelf.seats[&one.session];
        let is_known = self.facts[&uid].sent_us > seat.from_us;
        if seat.prefetch != Some(1) || !seat.is_sole || !is_known {
            return;
        }
        let earliest_us = shelf.earliest_us(uid, one.session);
        let waiting = shelf.ledger.messages.iter().filter(|(other, message)| {
            let confirmed_us = self.facts[other].confirmed_us;
            other.0 == uid.0
                && other.1 > uid.1
                && confirmed_us.is_some_and(|at_us| at_us < earliest_us)
                && message.departures == 0
                && !message.is_maybe_settled
        });
        let key = self.facts[&uid].key;
        let newer = match shelf.kind {
            Kind::LastValue => waiting
                .filter(|(other, _)| self.facts[other].key == key)
                .count(),
            _ => waiting.count() / RING as usize,
        };
        assert_eq!(newer, 0, "{uid} comes though newer ones took its place");
    }

    /// Messages that were confirmed and that others took the place of.
    pub(super) fn count_replaced(&mut self) {
        for at in 0..self.shelves.len() {
            let shelf = &self.shelves[at];
            let messages = shelf.ledger.messages.values();
            let gone = messages.filter(|one| one.is_confirmed && !one.is_maybe_settled);
            let gone = gone.filter(|one| !shelf.is_past(one, shelf.ledger.life));
            let count = gone.count() as u64;
            match shelf.kind {
                Kind::Ring => self.tried.rung_out += count,
                Kind::LastValue => self.tried.replaced += count,
                _ => {}
            }
        }
    }
}
