//! Joining: a place in the lease file, and no second process of the same name.
//!
//! Slots carry no safety, so a race for one is decided by looking again: who finds another *name*
//! in its place goes elsewhere, who finds another *life* of its own name has a twin.

use super::standby::Standby;
use super::{End, Lease, Phase, Refusal, is_foreign, slot_of};
use crate::format::{SlotRead, SlotState};

/// How far it is.
#[derive(Debug)]
pub(super) struct Join {
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Reads until its place is known, and free of a twin.
    Looking,
    /// The first beat is on its way.
    Written,
    /// Looks again at this time, whether the place is still its own.
    Confirming(u64),
}

impl Join {
    pub(super) const fn new() -> Self {
        let step = Step::Looking;
        Self { step }
    }
}

impl Lease {
    pub(super) fn consider_join(&mut self, now_us: u64) {
        let Phase::Joining(join) = &self.phase else {
            return;
        };
        match join.step {
            Step::Looking => self.look_for_place(),
            Step::Written => {}
            Step::Confirming(at_us) if self.watch.pass_us() >= Some(at_us) => self.confirm(now_us),
            Step::Confirming(_) => {}
        }
    }

    fn look_for_place(&mut self) {
        let found = slot_of(self.watch.slots(), self.config.name);
        if let Some(slot) = found {
            let place = slot.slot;
            if !self.config.is_name_locked {
                if self.watch.moving_since_us(place).is_some() {
                    return self.end(End::Refused(Refusal::NameInUse(self.config.name)));
                }
                if !self.watch.is_silent(place) {
                    return;
                }
            }
            let was_served = matches!(slot.state, SlotState::Held | SlotState::Released);
            self.own.epoch = slot.epoch;
            self.own.acked.clone_from(&slot.acked);
            // What it released in order stays said: who is to go on follows from it.
            (self.own.state, self.own.next) = match slot.state {
                SlotState::Released => (SlotState::Released, slot.next),
                _ => (SlotState::Free, self.own.next),
            };
            if was_served {
                self.served = self.served.max(slot.epoch);
            }
            self.own.slot = place;
        } else {
            // One that is damaged may be its own of before, and would stand in everybody's way.
            let damaged = self.watch.first(&SlotRead::Unreadable);
            let Some(place) = damaged.or_else(|| self.watch.first(&SlotRead::Empty)) else {
                return self.end(End::Refused(Refusal::Full));
            };
            self.own.slot = place;
        }
        let last = self.watch.slots().map(|slot| slot.joined).max();
        self.own.joined = last.unwrap_or(0) + 1;
        self.beat.tell();
        self.phase = Phase::Joining(Join {
            step: Step::Written,
        });
    }

    /// The first beat is written.
    pub(super) fn joined_beat(&mut self, now_us: u64) {
        if self.config.is_name_locked {
            return self.stand_by(now_us);
        }
        let at_us = now_us + 2 * self.config.timing.io_us();
        if let Phase::Joining(join) = &mut self.phase
            && matches!(join.step, Step::Written)
        {
            join.step = Step::Confirming(at_us);
        }
    }

    fn confirm(&mut self, now_us: u64) {
        let content = self.watch.content(self.own.slot);
        if !is_foreign(content, &self.own) {
            return self.stand_by(now_us);
        }
        if content
            .sound()
            .is_some_and(|slot| slot.name == self.own.name)
        {
            return self.end(End::Refused(Refusal::NameInUse(self.config.name)));
        }
        self.phase = Phase::Joining(Join::new());
    }

    pub(super) fn stand_by(&mut self, now_us: u64) {
        self.phase = Phase::Standby(Standby::default());
        self.told_active = None;
        self.watch.due_us = now_us;
        self.lock.due_us = now_us;
    }
}
