//! Holding: heartbeats and how long they are good for, a look at the own fence now and then, and
//! giving the lease back in order.
//!
//! Acknowledging is none of this: that is asked of each [`super::ShardLease`]. The lease clock here
//! bounds how long a holder delivers without having seen that it was superseded.

use core::fmt;

use super::beat::Beaten;
use super::lane::Lane;
use super::{Action, Done, End, Event, Lease, Loss, Phase, ShardLease, Ticket, is_foreign};
use crate::format::{Fence, Next, NodeName, Role, Slot, SlotId, SlotState};
use crate::{Epoch, Lsn, ShardId};

/// A node that serves, or is about to as soon as a heartbeat says so.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) epoch: Epoch,
    /// To be handed out with the first heartbeat.
    shards: Option<Vec<ShardLease>>,
    /// When the look at the own fence began with which the takeover ended.
    checked_us: u64,
    /// Deliveries stop here; `None` before the first heartbeat.
    valid_until_us: Option<u64>,
    pub(super) fence_lane: Lane,
    fence_due_us: u64,
    unsound_since_us: Option<u64>,
    leave: Leave,
    /// A handover that did not come about is not tried by itself again before this time.
    failback_not_before_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    No,
    /// The target was told, and has to answer.
    Announced {
        to: SlotId,
        since_us: u64,
    },
    Draining(Next, Then),
    /// The slot says released as soon as it is written.
    Releasing(Then),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    StandBy,
    Stop,
}

/// Why a handover cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandoverError {
    /// This node does not serve.
    NotActive,
    /// It is leaving already.
    Leaving,
    /// No node of that name stands by and is alive.
    NoSuchStandby(NodeName),
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotActive => write!(f, "this node does not serve"),
            Self::Leaving => write!(f, "this node is handing over or stopping already"),
            Self::NoSuchStandby(name) => write!(
                f,
                "no node called {name} stands by and is alive. Remedy: start it, or name another"
            ),
        }
    }
}

impl core::error::Error for HandoverError {}

impl Hold {
    /// Whether what to serve with was handed out.
    const fn is_serving(&self) -> bool {
        self.shards.is_none()
    }
}

impl Lease {
    pub(super) fn begin_hold(&mut self, checked_us: u64) {
        let Phase::Taking(take) = &self.phase else {
            return;
        };
        let shards = self.make_shards(take);
        let hold = Hold {
            epoch: take.epoch(),
            shards: Some(shards),
            checked_us,
            valid_until_us: None,
            fence_lane: Lane::default(),
            fence_due_us: 0,
            unsound_since_us: None,
            leave: Leave::No,
            failback_not_before_us: 0,
        };
        self.own.state = SlotState::Held;
        // What is sealed counts for ever: it may be named as such.
        self.own.acked.fill(Lsn::ZERO);
        for shard in hold.shards.iter().flatten() {
            self.own.acked[usize::from(shard.shard().0)] = shard.seal().lsn;
        }
        self.beat.tell();
        self.phase = Phase::Holding(hold);
    }

    /// Until when deliveries may go out, in microseconds of this node's clock; `None` while this
    /// node does not serve. Acknowledging does not follow from it.
    pub fn valid_until_us(&self) -> Option<u64> {
        match &self.phase {
            Phase::Holding(hold) if hold.is_serving() => hold.valid_until_us,
            _ => None,
        }
    }

    /// Everything below `end` was released in this shard: said in the slot with the next heartbeat,
    /// as evidence for whoever looks for the end of the journal.
    pub fn handle_released(&mut self, shard: ShardId, end: Lsn) {
        if let Some(acked) = self.own.acked.get_mut(usize::from(shard.0)) {
            *acked = end.before().max(*acked);
        }
    }

    /// Hands over to a node that stands by: it is told, and when it answers, `Event::Drain`.
    ///
    /// Errors: see [`HandoverError`].
    pub fn hand_over(&mut self, to: NodeName, now_us: u64) -> Result<(), HandoverError> {
        let found = self.find(to).filter(|slot| self.is_standing_by(slot));
        let found = found.map(|slot| slot.slot);
        let Phase::Holding(hold) = &mut self.phase else {
            return Err(HandoverError::NotActive);
        };
        if !hold.is_serving() {
            return Err(HandoverError::NotActive);
        }
        if hold.leave != Leave::No {
            return Err(HandoverError::Leaving);
        }
        let to = found.ok_or(HandoverError::NoSuchStandby(to))?;
        hold.leave = Leave::Announced {
            to,
            since_us: now_us,
        };
        self.own.next = Next::Node(to);
        self.beat.tell();
        self.watch.due_us = now_us;
        Ok(())
    }

    fn is_standing_by(&self, slot: &Slot) -> bool {
        let stands_by = matches!(slot.state, SlotState::Free | SlotState::Released);
        let is_other = slot.slot != self.own.slot;
        stands_by && is_other && self.watch.moving_since_us(slot.slot).is_some()
    }

    /// Stops for good. A node that serves drains first; then `next` goes on. Others end at once.
    pub fn stop(&mut self, next: Next) {
        match &mut self.phase {
            Phase::Holding(hold) if hold.is_serving() => {
                hold.leave = match hold.leave {
                    Leave::Releasing(_) => Leave::Releasing(Then::Stop),
                    Leave::Draining(..) => Leave::Draining(next, Then::Stop),
                    Leave::No | Leave::Announced { .. } => {
                        self.events.push_back(Event::Drain { to: None });
                        Leave::Draining(next, Then::Stop)
                    }
                };
            }
            _ => self.end(End::Stopped),
        }
    }

    /// Behind `Event::Drain`: all work is finished, all writers are closed, nothing is under way.
    pub fn handle_drained(&mut self) {
        if let Phase::Holding(hold) = &mut self.phase
            && let Leave::Draining(next, then) = hold.leave
        {
            hold.leave = Leave::Releasing(then);
            (self.own.state, self.own.next) = (SlotState::Released, next);
            self.beat.tell();
        }
    }

    pub(super) const fn is_announced(&self) -> bool {
        matches!(&self.phase, Phase::Holding(hold) if matches!(hold.leave, Leave::Announced { .. }))
    }

    /// A heartbeat is written in both copies. One that was late does not revive what had ended.
    pub(super) fn held_beat(&mut self, beaten: Beaten, now_us: u64) {
        let lease_us = self.config.timing.lease_us();
        let Phase::Holding(hold) = &mut self.phase else {
            return;
        };
        if beaten.state == SlotState::Claimed {
            return;
        }
        let is_late = hold.valid_until_us.is_some_and(|until| now_us >= until);
        // The first one counts from when the fence was seen open: there may be a pause in between.
        let began_us = match hold.valid_until_us {
            Some(_) => beaten.began_us,
            None => beaten.began_us.min(hold.checked_us),
        };
        if is_late || now_us >= began_us + lease_us {
            return self.end(End::Lost(Loss::Expired));
        }
        hold.valid_until_us = Some(began_us + lease_us);
        // Not while the fence cannot be made out: the next heartbeat, or the loss, decides.
        if hold.unsound_since_us.is_none()
            && let Some(shards) = hold.shards.take()
        {
            self.served = hold.epoch;
            let epoch = hold.epoch;
            self.events.push_back(Event::Serve { epoch, shards });
        }
        if beaten.state == SlotState::Released
            && let Leave::Releasing(then) = hold.leave
        {
            self.events.push_back(Event::Released);
            self.lock.busy_for = None;
            self.give_lock_back();
            match then {
                Then::Stop => self.end(End::Stopped),
                Then::StandBy => self.stand_by(now_us),
            }
        }
    }

    pub(super) fn poll_hold(&mut self, now_us: u64) -> Option<Action> {
        let period_us = self.config.timing.heartbeat_us();
        let Phase::Holding(hold) = &mut self.phase else {
            return None;
        };
        if !hold.fence_lane.is_free_at(hold.fence_due_us, now_us) {
            return None;
        }
        hold.fence_due_us = now_us + period_us;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        hold.fence_lane.begin(ticket, now_us);
        let epoch = hold.epoch;
        Some(Action::ReadClaim { ticket, epoch })
    }

    /// The own fence: an idle holder finds out as well.
    pub(super) fn handle_fence(&mut self, ticket: Ticket, done: Done<'_>, now_us: u64) {
        let io_us = self.config.timing.io_us();
        let own = self.claim(self.own.epoch);
        let Phase::Holding(hold) = &mut self.phase else {
            return;
        };
        if hold.fence_lane.end(ticket).is_none() {
            return;
        }
        let loss = match done {
            Done::Bytes(bytes) => match Fence::decode(bytes) {
                Ok(fence) if fence == Fence::open(own) => {
                    hold.unsound_since_us = None;
                    None
                }
                Ok(fence) if !fence.is_open() => Some(Loss::Superseded(fence.shut_by)),
                _ => {
                    let since_us = *hold.unsound_since_us.get_or_insert(now_us);
                    hold.fence_due_us = now_us;
                    (now_us >= since_us + io_us).then_some(Loss::FenceUnsound)
                }
            },
            Done::Failed(failure) => Some(Loss::Io(failure)),
            _ => Some(Loss::FenceUnsound),
        };
        if let Some(loss) = loss {
            self.end(End::Lost(loss));
        }
    }

    /// After each look at the slots.
    pub(super) fn consider_hold(&mut self, now_us: u64) {
        let content = self.watch.content(self.own.slot);
        if is_foreign(content, &self.own) {
            let is_twin = content
                .sound()
                .is_some_and(|slot| slot.name == self.own.name);
            if is_twin && self.watch.moving_since_us(self.own.slot).is_some() {
                return self.end(End::Lost(Loss::NameInUse));
            }
            // Something of long ago, or of one that looks for a place: it goes elsewhere.
            self.beat.tell();
        }
        let answered = |slot: &Slot| slot.ready_for == self.own.epoch;
        let Phase::Holding(hold) = &self.phase else {
            return;
        };
        match hold.leave {
            Leave::Announced { to, .. } => {
                let target = self.watch.content(to).sound();
                if let Some(name) = target.filter(|slot| answered(slot)).map(|slot| slot.name) {
                    self.set_leave(Leave::Draining(Next::Node(to), Then::StandBy));
                    self.events.push_back(Event::Drain { to: Some(name) });
                }
            }
            Leave::No => self.consider_failback(now_us),
            Leave::Draining(..) | Leave::Releasing(_) => {}
        }
    }

    const fn set_leave(&mut self, leave: Leave) {
        if let Phase::Holding(hold) = &mut self.phase {
            hold.leave = leave;
        }
    }

    /// A primary that is back for long enough gets the lease.
    fn consider_failback(&mut self, now_us: u64) {
        let is_wanted = self.config.is_failback_allowed && self.config.role == Role::Backup;
        let Phase::Holding(hold) = &self.phase else {
            return;
        };
        if !is_wanted || now_us < hold.failback_not_before_us {
            return;
        }
        let delay_us = self.config.failback_delay_us;
        let is_back = |slot: &&Slot| {
            let since_us = self.watch.moving_since_us(slot.slot);
            let is_stable = since_us.is_some_and(|since_us| now_us >= since_us + delay_us);
            slot.role == Role::Primary && self.is_standing_by(slot) && is_stable
        };
        let primary = self.watch.slots().find(is_back).map(|slot| slot.name);
        if let Some(primary) = primary {
            // It was just seen to stand by, so it can only be that this node is leaving.
            let _ = self.hand_over(primary, now_us);
        }
    }

    pub(super) fn hold_timeout(&self, hold: &Hold) -> u64 {
        let io_us = self.config.timing.io_us();
        let lanes = [&self.watch.lane, &self.beat.lane, &hold.fence_lane];
        let stalls = lanes
            .into_iter()
            .filter_map(|lane| Some(lane.since_us()? + io_us));
        let fence = hold.fence_lane.is_free().then_some(hold.fence_due_us);
        let announced = match hold.leave {
            Leave::Announced { since_us, .. } => Some(since_us + self.config.timing.takeover_us()),
            _ => None,
        };
        let times = stalls
            .chain(fence)
            .chain(announced)
            .chain(hold.valid_until_us);
        times.min().unwrap_or(u64::MAX)
    }

    pub(super) fn hold_timer(&mut self, now_us: u64) {
        let takeover_us = self.config.timing.takeover_us();
        let delay_us = self.config.failback_delay_us.max(takeover_us);
        let Phase::Holding(hold) = &mut self.phase else {
            return;
        };
        if hold.valid_until_us.is_some_and(|until| now_us >= until) {
            return self.end(End::Lost(Loss::Expired));
        }
        if let Leave::Announced { to, since_us } = hold.leave
            && now_us >= since_us + takeover_us
        {
            hold.leave = Leave::No;
            hold.failback_not_before_us = now_us + delay_us;
            self.own.next = Next::Anybody;
            self.beat.tell();
            let slot = self.watch.content(to).sound();
            let to = slot.map_or(self.config.name, |slot| slot.name);
            self.events.push_back(Event::HandoverFailed { to });
        }
    }
}
