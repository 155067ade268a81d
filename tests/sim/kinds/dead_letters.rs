//! Dead letters: who fails as often as it may goes to the dead-letter address, once, and nothing
//! goes there before; what fails less often comes again after a while.

use forebay::queue::PolicySettings;

use crate::frame::Frame;
use crate::kinds::{Kind, Kinds, ShelfId};
use crate::ledger::{Departure, SessionId, Uid};
use crate::options::Mutant;
use crate::world::{World, unix_ms};

/// Where dead letters go.
pub(super) const LANDING: &str = "graves";
/// Deliveries after which a failure is the last.
const ATTEMPTS_MAX: usize = 3;
/// How long a failed one waits.
const DELAY_MS: u64 = 3;

pub(super) fn settings(mutant: Mutant) -> PolicySettings {
    let more = usize::from(mutant == Mutant::ExtraAttempt);
    let delay_ms = match mutant {
        Mutant::ForgottenDelay => 0,
        _ => DELAY_MS,
    };
    PolicySettings {
        attempts_max: Some((ATTEMPTS_MAX + more) as u32),
        dead_letter_address: Some(Some(LANDING.into())),
        redelivery_delay_ms: Some(delay_ms),
        ..PolicySettings::default()
    }
}

impl World {
    /// A NACK is written.
    pub(super) fn note_refusal(
        &mut self,
        at: ShelfId,
        uid: Uid,
        session: SessionId,
        count: usize,
        is_for_good: bool,
    ) {
        let (now_us, life) = (self.now_us, self.life);
        let is_source = self.kinds.is_source_of_dead(at);
        let shelf = &mut self.kinds.shelves[at];
        shelf.ledger.release(uid, session);
        let copy = shelf.copies.get_mut(&uid).expect("sent before");
        copy.released_us = now_us;
        copy.failed_life = Some(life);
        if is_source && (is_for_good || count >= ATTEMPTS_MAX) {
            // Whatever happens in this life, the broker reads it before it hands it out again.
            copy.bar("it was refused for the last time", Some(life));
            copy.is_refused_for_good |= is_for_good;
        }
    }
}

impl Kinds {
    fn is_source_of_dead(&self, at: ShelfId) -> bool {
        self.shelves[at].kind == Kind::Dead && !self.shelves[at].is_landing
    }

    /// The receipt of a NACK left.
    pub(super) fn note_refused(&mut self, at: ShelfId, uid: Uid, count: usize, is_for_good: bool) {
        if self.is_source_of_dead(at) && (is_for_good || count >= ATTEMPTS_MAX) {
            let copy = self.shelves[at].copies.get_mut(&uid);
            let copy = copy.expect("sent before");
            copy.bar("its last refusal was confirmed", None);
        }
    }

    /// One leaves its queue or the dead-letter address. `known`: how often the disk knows it as
    /// delivered by its queue.
    pub(super) fn check_dead(
        &mut self,
        at: ShelfId,
        one: Departure,
        (frame, known): (&Frame, Option<usize>),
        (now_ms, life): (u64, u32),
    ) {
        let (uid, copy) = (one.uid, self.shelves[at].copies[&one.uid]);
        if !self.shelves[at].is_landing {
            let from_ms = unix_ms(copy.released_us) + DELAY_MS;
            let is_delayed = copy.failed_life == Some(life);
            assert!(
                !is_delayed || now_ms >= from_ms,
                "{uid} failed and comes again at {now_ms}, before {from_ms}"
            );
            self.tried.delayed += u64::from(is_delayed);
            return;
        }
        let reason = frame.header("dead-letter-reason");
        let deliveries = frame.header("dead-letter-deliveries");
        let deliveries: usize = deliveries.map_or(0, |count| count.parse().expect("a number"));
        let source = self.note_landed(at, uid);
        let is_due = match reason {
            Some("rejected") => source.is_refused_for_good,
            Some("attempts-exceeded") => deliveries >= ATTEMPTS_MAX,
            _ => false,
        };
        let is_known = known.is_none_or(|known| known >= deliveries);
        assert!(
            is_due && is_known,
            "{uid} is a dead letter too early, the disk knows {known:?} deliveries: {frame:?}"
        );
        self.tried.dead_letters += 1;
    }

    /// A message is where it goes by itself: it does not come from its queue any more, and nobody
    /// took it there. What its queue knew of it.
    pub(super) fn note_landed(&mut self, landing: ShelfId, uid: Uid) -> super::shelf::Copy {
        let source = &mut self.shelves[landing - 1];
        let is_settled = source.ledger.is_settled(uid);
        assert!(!is_settled, "{uid} was taken and is at another address");
        let copy = source.copies.get_mut(&uid).expect("sent there");
        copy.bar("it went to another address", None);
        *copy
    }

    /// That the message was taken is about to be confirmed.
    pub(super) fn check_taken_once(&self, at: ShelfId, uid: Uid) {
        let Some(landing) = self.landing_of(at) else {
            return;
        };
        let is_there = self.shelves[landing].ledger.departures(uid) > 0;
        assert!(!is_there, "{uid} is at another address and was taken");
    }
}
