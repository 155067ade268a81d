//! Standing by: whether anybody serves, and whose turn it is if nobody does.
//!
//! All of it decides only *when* a node tries. A try that was not needed costs a takeover, never a
//! message.

use super::take::Take;
use super::{Action, Done, Event, LOCK_POLL_US, Lease, LockState, Phase, Why, is_foreign, slot_of};
use crate::Epoch;
use crate::format::{Next, NodeName, Role, Slot, SlotRead, SlotState};

/// What a node that stands by remembers.
#[derive(Debug, Default)]
pub(super) struct Standby {
    /// Since when nobody serves.
    vacant_since_us: Option<u64>,
    /// An operator wants this node to serve.
    is_ordered: bool,
}

impl Lease {
    /// An operator says that this node is to serve now, whatever the others do. Safe at any time;
    /// an active node loses the lease. Taken note of only while it stands by; true if it was.
    pub fn order_takeover(&mut self, now_us: u64) -> bool {
        let Phase::Standby(standby) = &mut self.phase else {
            return false;
        };
        standby.is_ordered = true;
        self.watch.due_us = now_us;
        true
    }

    pub(super) fn consider_standby(&mut self, now_us: u64) {
        if self.handle_lost_place() {
            return;
        }
        self.tell_active();
        self.answer_handover(now_us);
        if self.own.state == SlotState::Released && self.served > self.own.epoch {
            // Somebody went on: what this node once released is of no interest any more.
            (self.own.state, self.own.next) = (SlotState::Free, Next::Anybody);
            self.beat.tell();
        }
        let vacancy = self.vacancy(now_us);
        let position = self.position();
        let heartbeat_us = self.config.timing.heartbeat_us();
        let Phase::Standby(standby) = &mut self.phase else {
            return;
        };
        if standby.is_ordered {
            return self.begin_take(Why::Ordered);
        }
        let Some(why) = vacancy else {
            standby.vacant_since_us = None;
            if self.watch.pass_us() >= Some(self.lock.taken_us) {
                self.give_lock_back();
            }
            return;
        };
        let since_us = *standby.vacant_since_us.get_or_insert(now_us);
        let is_first = why == Why::HandedOver || self.lock.is_ours;
        if is_first || now_us >= since_us + position * heartbeat_us {
            self.begin_take(why);
        }
    }

    /// Another name or another life in the own place. True if the phase changed.
    fn handle_lost_place(&mut self) -> bool {
        let content = self.watch.content(self.own.slot);
        let (is_lost, is_own_name) = match content.sound() {
            Some(slot) => (is_foreign(content, &self.own), slot.name == self.own.name),
            None => (false, false),
        };
        if is_lost && is_own_name {
            self.end(super::End::Refused(super::Refusal::NameInUse(
                self.config.name,
            )));
        } else if is_lost {
            self.phase = Phase::Joining(super::join::Join::new());
        }
        is_lost
    }

    fn tell_active(&mut self) {
        let top = self
            .watch
            .top()
            .filter(|slot| slot.state == SlotState::Held);
        let active: Option<NodeName> = top
            .filter(|slot| slot.slot != self.own.slot && !self.watch.is_silent(slot.slot))
            .map(|slot| slot.name);
        if self.told_active != Some(active) {
            self.told_active = Some(active);
            self.events.push_back(Event::Standby { active });
        }
    }

    /// Tells a holder that announced a handover to this node that it waits for it.
    fn answer_handover(&mut self, now_us: u64) {
        let to_me = |slot: &&Slot| slot.next == Next::Node(self.own.slot);
        let top = self.watch.top().filter(to_me);
        let ready_for = top.map_or(Epoch::ZERO, |slot| slot.epoch);
        if ready_for != self.own.ready_for {
            self.own.ready_for = ready_for;
            self.watch.due_us = now_us;
            self.beat.tell();
        }
    }

    /// Why this node may try, if it may. The order of the questions is that of their strength.
    fn vacancy(&self, now_us: u64) -> Option<Why> {
        if let Some(top) = self.watch.top()
            && top.state == SlotState::Released
            && top.epoch >= self.served
        {
            match top.next {
                Next::Node(slot) if slot == self.own.slot => return Some(Why::HandedOver),
                Next::Nobody if top.name != self.own.name => return None,
                Next::Node(_) => {
                    // Its node has a while to come.
                    let end_us =
                        self.watch.said_since_us(top.slot) + self.config.timing.takeover_us();
                    if now_us < end_us {
                        return None;
                    }
                }
                Next::Nobody | Next::Anybody => {}
            }
        }
        if self.lock.is_ours {
            let is_looked = self.watch.pass_us() >= Some(self.lock.taken_us);
            return is_looked.then_some(Why::LockFree);
        }
        if self.watch.is_any_unreadable(self.own.slot) {
            return None;
        }
        let mut holders = self.watch.slots().filter(|slot| self.is_in_the_way(slot));
        let silent = |slot: &Slot| self.watch.is_silent(slot.slot);
        if self.watch.slots().any(|slot| self.is_in_the_way(slot)) {
            holders.all(silent).then_some(Why::Silent)
        } else {
            Some(Why::Vacant)
        }
    }

    /// Whether a node may serve, or be about to, by what its slot says.
    fn is_in_the_way(&self, slot: &Slot) -> bool {
        let is_at_it = matches!(slot.state, SlotState::Claimed | SlotState::Held);
        is_at_it && slot.slot != self.own.slot && slot.epoch >= self.served
    }

    /// Nodes that stand by and come before this one.
    fn position(&self) -> u64 {
        let key = |slot: &Slot| (slot.role != Role::Primary, slot.joined, slot.slot);
        let own = key(&self.own);
        let is_before = |slot: &&Slot| {
            let stands_by = matches!(slot.state, SlotState::Free | SlotState::Released);
            stands_by && slot.slot != self.own.slot && key(slot) < own
        };
        let before = self.watch.slots().filter(is_before);
        before
            .filter(|slot| !self.watch.is_silent(slot.slot))
            .count() as u64
    }

    /// Place in line: 0 is next. `None` for a node that does not stand by.
    pub fn line_position(&self) -> Option<u64> {
        matches!(self.phase, Phase::Standby(_)).then(|| self.position())
    }

    /// Whether this node looks at the lock: who stands by, to see whether the holder is gone, and
    /// who holds, to take it.
    pub(super) fn wants_lock(&self) -> bool {
        let is_wanted = match self.phase {
            Phase::Standby(_) => !self.is_stopped_for_good(),
            Phase::Holding(_) => true,
            _ => false,
        };
        is_wanted && self.lock.is_supported && !self.lock.is_ours
    }

    /// Who served last stopped and wants nobody else to go on: its lock is free, and says nothing.
    fn is_stopped_for_good(&self) -> bool {
        self.watch.top().is_some_and(|top| {
            top.state == SlotState::Released
                && top.next == Next::Nobody
                && top.name != self.own.name
        })
    }

    pub(super) fn poll_lock(&mut self, now_us: u64) -> Option<Action> {
        if !self.lock.lane.is_free() || !self.wants_lock() || now_us < self.lock.due_us {
            return None;
        }
        self.lock.due_us = now_us + LOCK_POLL_US;
        let patience_us = self.position() * self.config.timing.heartbeat_us();
        let is_turn = match self.lock.free_since_us {
            Some(since_us) => now_us >= since_us + patience_us,
            None => patience_us == 0,
        };
        // A free lock says something only of a holder that was seen to hold it.
        let is_trusted = self.lock.busy_for == Some(self.served);
        let is_take = match self.phase {
            Phase::Holding(_) => true,
            _ => is_turn && is_trusted,
        };
        let ticket = self.ticket();
        self.lock.lane.begin(ticket, now_us);
        Some(Action::Lock { ticket, is_take })
    }

    pub(super) fn handle_lock(&mut self, done: Done<'_>, now_us: u64) {
        let Done::Lock(state) = done else {
            // It failed: it says nothing, and safety does not need it.
            self.lock.is_supported = false;
            return;
        };
        match state {
            LockState::Unsupported => self.lock.is_supported = false,
            LockState::Busy => {
                self.lock.free_since_us = None;
                let is_served = matches!(self.phase, Phase::Standby(_)) && self.is_seen_held();
                if is_served {
                    self.lock.busy_for = Some(self.served);
                }
            }
            LockState::Free => {
                self.lock.free_since_us.get_or_insert(now_us);
            }
            LockState::Taken => {
                (self.lock.is_ours, self.lock.taken_us) = (true, now_us);
                self.lock.free_since_us = None;
                self.watch.due_us = now_us;
            }
        }
    }

    /// Whether a node is seen that serves.
    fn is_seen_held(&self) -> bool {
        let held = |top: &Slot| top.state == SlotState::Held && top.epoch == self.served;
        self.watch.top().is_some_and(held)
    }

    fn begin_take(&mut self, why: Why) {
        self.phase = Phase::Taking(Take::new(why));
        self.lock.free_since_us = None;
    }

    /// A takeover came to nothing because another was faster.
    pub(super) fn abort_take(&mut self, now_us: u64) {
        (self.own.state, self.own.next) = (SlotState::Free, Next::Anybody);
        self.own.ready_for = Epoch::ZERO;
        self.beat.tell();
        self.give_lock_back();
        self.stand_by(now_us);
    }

    /// The slot of a node of this name, as last read.
    pub(super) fn find(&self, name: NodeName) -> Option<&Slot> {
        slot_of(self.watch.slots(), name)
    }

    /// Whether a slot was read as damaged in both copies.
    pub fn is_slot_damaged(&self, slot: crate::format::SlotId) -> bool {
        *self.watch.content(slot) == SlotRead::Unreadable && self.watch.pass_us().is_some()
    }
}
