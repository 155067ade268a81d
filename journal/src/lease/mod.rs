//! The lease of a journal on a shared folder: who serves, who stands by, who takes over
//! (`docs/protocol.md`).
//!
//! [`Lease`] is the core of a node: it asks for [`Action`]s, takes each one's [`Done`] and tells
//! [`Event`]s. [`ShardLease`] is the ack barrier of one shard, which works without it.
//! Safety rests on the claim files alone: an epoch's fence, once shut, is never open again, and
//! only who read it open *behind* a durable block may acknowledge that block. All else here (slots,
//! heartbeats, locks, times) only decides when somebody tries.
//!
//! Sans-IO: `now_us` is the node's own boot-time clock (`CLOCK_BOOTTIME`) in microseconds. The same
//! inputs give the same actions. After each input: [`Lease::poll_event`] and [`Lease::poll_action`]
//! until both are `None`, then sleep until [`Lease::poll_timeout`].

//!
//! To bind it: [`Event::Serve`] brings a [`ShardLease`] for each shard; open its writer with
//! `lease.epoch()` and `lease.seal().into()`, give it each `durable_end`, submit the [`FenceRead`]s
//! it asks for, and open the gate with the [`Released`] that comes back, by nothing else. Tell
//! [`Lease::handle_released`] how far that is. A shard's [`Loss`] is the node's. Deliver only until
//! [`Lease::valid_until_us`].

mod action;
mod barrier;
mod beat;
mod hold;
mod join;
mod lane;
mod standby;
mod take;
mod timing;
mod watch;

use std::collections::VecDeque;

pub use action::{
    Action, Base, Done, End, Event, LockState, Loss, Refusal, TakeoverFailure, Ticket, Why,
};
pub use barrier::{FenceRead, Released, ShardLease};
pub use hold::HandoverError;
pub use timing::{Profile, Timing, TimingError};

pub use crate::format::ShardSeal;

use crate::format::{Claim, Incarnation, Next, NodeName, Role, Slot, SlotId, SlotRead, SlotState};
use crate::{Epoch, JournalId, Lsn, Seal};
use beat::Beat;
use hold::Hold;
use join::Join;
use lane::Lane;
use standby::Standby;
use take::Take;
use watch::Watch;

/// A free lock is noticed that fast, whatever the profile.
const LOCK_POLL_US: u64 = 50_000;
/// Slots are read that often while a handover is about to come.
const HANDOVER_POLL_US: u64 = 5_000;

/// What a node is in its group.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// The journal.
    pub journal: JournalId,
    /// The node.
    pub name: NodeName,
    /// Drawn at random for each [`Lease`].
    pub incarnation: Incarnation,
    /// Configured as.
    pub role: Role,
    /// Slots in the lease file.
    pub slot_count: u16,
    /// Shards of the journal.
    pub shard_count: u16,
    /// From the head of the lease file.
    pub timing: Timing,
    /// A backup that serves gives way to a primary that is back.
    pub is_failback_allowed: bool,
    /// After the primary was there for that long.
    pub failback_delay_us: u64,
    /// Whether this process holds an OFD lock on its node's name: then no other process of this
    /// host has that name. Without one a name that was used before is watched for a while.
    pub is_name_locked: bool,
}

/// The core of a node: see the module.
#[derive(Debug)]
pub struct Lease {
    config: LeaseConfig,
    /// What this node says of itself; its place once it has one.
    own: Slot,
    phase: Phase,
    watch: Watch,
    beat: Beat,
    lock: GroupLock,
    /// Highest epoch that a list showed.
    listed: Epoch,
    /// Highest epoch that served, as far as known.
    served: Epoch,
    events: VecDeque<Event>,
    next_ticket: u64,
    /// Told so that it is told again only when it changes.
    told_active: Option<Option<NodeName>>,
}

#[derive(Debug)]
enum Phase {
    Joining(Join),
    Standby(Standby),
    Taking(Take),
    Holding(Hold),
    Ended,
}

/// The lock of the group: a free one says that its holder's process is gone.
#[derive(Debug)]
struct GroupLock {
    lane: Lane,
    due_us: u64,
    is_ours: bool,
    /// To be given back next.
    is_given_back: bool,
    is_supported: bool,
    /// When it was taken.
    taken_us: u64,
    /// Since when it was seen free.
    free_since_us: Option<u64>,
    /// The epoch whose holder was seen to hold it: only for that one it says something.
    busy_for: Option<Epoch>,
}

impl Lease {
    /// A node that begins to look for its place.
    pub fn new(config: LeaseConfig, now_us: u64) -> Self {
        let takeover_us = config.timing.takeover_us();
        let own = Slot {
            journal: config.journal,
            slot: SlotId(0),
            name: config.name,
            incarnation: config.incarnation,
            role: config.role,
            state: SlotState::Free,
            next: Next::Anybody,
            epoch: Epoch::ZERO,
            heartbeat: 0,
            joined: 0,
            ready_for: Epoch::ZERO,
            acked: vec![Lsn::ZERO; usize::from(config.shard_count)],
        };
        Self {
            watch: Watch::new(config.journal, config.slot_count, takeover_us, now_us),
            own,
            phase: Phase::Joining(Join::new()),
            beat: Beat::new(),
            lock: GroupLock {
                lane: Lane::default(),
                due_us: now_us,
                is_ours: false,
                is_given_back: false,
                is_supported: true,
                taken_us: 0,
                free_since_us: None,
                busy_for: None,
            },
            listed: Epoch::ZERO,
            served: Epoch::ZERO,
            events: VecDeque::new(),
            next_ticket: 0,
            told_active: None,
            config,
        }
    }

    /// The next thing to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next thing to be done, if one is due.
    pub fn poll_action(&mut self, now_us: u64) -> Option<Action> {
        if core::mem::take(&mut self.lock.is_given_back) {
            self.lock.is_ours = false;
            return Some(Action::Unlock);
        }
        if matches!(self.phase, Phase::Ended) {
            return None;
        }
        if let Some(action) = self.poll_work(now_us) {
            return Some(action);
        }
        if self.beat.is_due(now_us) {
            if self.beat.is_new() {
                self.own.heartbeat += 1;
                let period_us = self.config.timing.heartbeat_us();
                self.beat.begin(&self.own, period_us, now_us);
            }
            let ticket = self.ticket();
            return Some(self.beat.write(ticket, now_us));
        }
        if self.watch.is_due(now_us) {
            self.watch.due_us = now_us + self.watch_period_us();
            let ticket = self.ticket();
            return Some(self.watch.read(ticket, now_us));
        }
        self.poll_lock(now_us)
    }

    /// What the present phase asks for.
    fn poll_work(&mut self, now_us: u64) -> Option<Action> {
        match self.phase {
            Phase::Taking(_) => self.poll_take(now_us),
            Phase::Holding(_) => self.poll_hold(now_us),
            _ => None,
        }
    }

    /// Takes what became of an action. What was asked for before the lease ended is ignored.
    pub fn handle_done(&mut self, ticket: Ticket, done: Done<'_>, now_us: u64) {
        assert!(
            ticket.0 < self.next_ticket,
            "{ticket:?} was never asked for"
        );
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        if let Some(began_us) = self.watch.lane.end(ticket) {
            self.handle_slots(done, began_us, now_us);
        } else if self.beat.lane.end(ticket).is_some() {
            self.handle_beat(done, now_us);
        } else if self.lock.lane.end(ticket).is_some() {
            self.handle_lock(done, now_us);
        } else {
            match self.phase {
                Phase::Taking(_) => self.handle_take(ticket, done, now_us),
                Phase::Holding(_) => self.handle_fence(ticket, done, now_us),
                _ => {}
            }
        }
    }

    fn handle_slots(&mut self, done: Done<'_>, began_us: u64, now_us: u64) {
        let bytes = match done {
            Done::Bytes(bytes) => Ok(bytes),
            Done::Failed(failure) => Err(failure),
            other => panic!("slots were asked for, not {other:?}"),
        };
        if let Err(failure) = bytes {
            self.handle_io_failure(failure);
        }
        if !self.watch.handle_bytes(bytes, began_us, now_us) {
            return;
        }
        if let Some(top) = self.watch.top() {
            self.served = self.served.max(top.epoch);
        }
        match self.phase {
            Phase::Joining(_) => self.consider_join(now_us),
            Phase::Standby(_) => self.consider_standby(now_us),
            Phase::Holding(_) => self.consider_hold(now_us),
            Phase::Taking(_) | Phase::Ended => {}
        }
    }

    fn handle_beat(&mut self, done: Done<'_>, now_us: u64) {
        match done {
            Done::Written => {}
            Done::Failed(failure) => return self.handle_io_failure_of_write(failure),
            other => panic!("a slot was written, not {other:?}"),
        }
        let Some(beaten) = self.beat.handle_written() else {
            return;
        };
        match self.phase {
            Phase::Joining(_) => self.joined_beat(now_us),
            Phase::Holding(_) => self.held_beat(beaten, now_us),
            Phase::Standby(_) | Phase::Taking(_) | Phase::Ended => {}
        }
    }

    /// A read of slots failed: for a holder that is the end, for others it proves nothing.
    fn handle_io_failure(&mut self, failure: crate::storage::IoFailure) {
        match self.phase {
            Phase::Holding(_) => self.end(End::Lost(Loss::Io(failure))),
            Phase::Joining(_) => self.end(End::Refused(Refusal::Io(failure))),
            _ => {}
        }
    }

    /// A write failed: never tried again.
    fn handle_io_failure_of_write(&mut self, failure: crate::storage::IoFailure) {
        self.end(match self.phase {
            Phase::Holding(_) => End::Lost(Loss::Io(failure)),
            Phase::Taking(_) => End::TakeoverFailed(TakeoverFailure::Io(failure)),
            _ => End::Refused(Refusal::Io(failure)),
        });
    }

    /// When [`Self::handle_timeout`], or else [`Self::poll_action`], wants to be called, in
    /// microseconds of this node's clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        if matches!(self.phase, Phase::Ended) {
            return None;
        }
        let watch = self.watch.lane.is_free().then_some(self.watch.due_us);
        let is_lock_due = self.lock.lane.is_free() && self.wants_lock();
        let lock = is_lock_due.then_some(self.lock.due_us);
        let own = [watch, self.beat.due_us(), lock, self.phase_timeout()];
        own.into_iter().flatten().min()
    }

    fn phase_timeout(&self) -> Option<u64> {
        match &self.phase {
            Phase::Holding(hold) => Some(self.hold_timeout(hold)),
            Phase::Taking(take) => take.io_since_us().map(|at| at + self.config.timing.io_us()),
            Phase::Joining(_) | Phase::Standby(_) | Phase::Ended => None,
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now_us: u64) {
        let io_us = self.config.timing.io_us();
        let is_stalled = |since: Option<u64>| since.is_some_and(|at| now_us >= at + io_us);
        match &self.phase {
            Phase::Holding(hold) => {
                let lanes = [&self.watch.lane, &self.beat.lane, &hold.fence_lane];
                if lanes.iter().any(|lane| is_stalled(lane.since_us())) {
                    self.end(End::Lost(Loss::Stalled));
                } else {
                    self.hold_timer(now_us);
                }
            }
            Phase::Taking(take) if is_stalled(take.io_since_us()) => {
                self.end(End::TakeoverFailed(TakeoverFailure::Stalled));
            }
            _ => {}
        }
    }

    const fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket - 1)
    }

    const fn watch_period_us(&self) -> u64 {
        let half_us = self.config.timing.heartbeat_us() / 2;
        let is_handover = self.own.ready_for.get() != 0 || self.is_announced();
        if is_handover && HANDOVER_POLL_US < half_us {
            HANDOVER_POLL_US
        } else {
            half_us
        }
    }

    fn claim(&self, epoch: Epoch) -> Claim {
        Claim {
            journal: self.config.journal,
            epoch,
            name: self.config.name,
            incarnation: self.config.incarnation,
        }
    }

    /// Nothing more will come of this lease.
    fn end(&mut self, end: End) {
        self.phase = Phase::Ended;
        self.events.push_back(Event::Ended(end));
    }

    /// The lock goes back: nothing of this node is under way that it stands for. A lease that was
    /// lost keeps it: the system frees it when the process and its writes are gone.
    const fn give_lock_back(&mut self) {
        self.lock.is_given_back = self.lock.is_ours;
    }

    /// Slots as last read, by slot; own place included. For people.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.watch.slots()
    }

    /// What this node says of itself.
    pub const fn own_slot(&self) -> &Slot {
        &self.own
    }

    /// Panics: if what holds does not.
    pub fn check_invariants(&self) {
        match &self.phase {
            Phase::Holding(hold) => {
                assert!(hold.epoch == self.own.epoch, "held is not claimed");
                let served = [SlotState::Held, SlotState::Released];
                assert!(served.contains(&self.own.state));
            }
            Phase::Taking(take) => {
                assert!(self.own.state == SlotState::Claimed || !take.is_won());
                assert!(!take.is_won() || take.epoch() == self.own.epoch);
            }
            Phase::Standby(_) => {
                let passive = [SlotState::Free, SlotState::Released];
                assert!(passive.contains(&self.own.state));
            }
            Phase::Joining(_) | Phase::Ended => {}
        }
        assert!(self.events.len() <= EVENTS_MAX, "events are not taken");
        let place = usize::from(self.config.slot_count);
        assert!(
            usize::from(self.own.slot.0) < place,
            "out of the lease file"
        );
    }
}

/// Events that can gather between two inputs.
const EVENTS_MAX: usize = 8;

impl From<ShardSeal> for Seal {
    fn from(seal: ShardSeal) -> Self {
        Self {
            epoch: seal.epoch,
            lsn: seal.lsn,
            block: seal.block,
            checksum: seal.identity,
        }
    }
}

impl From<Seal> for ShardSeal {
    fn from(seal: Seal) -> Self {
        Self {
            epoch: seal.epoch,
            lsn: seal.lsn,
            block: seal.block,
            identity: seal.checksum,
        }
    }
}

/// The place of the slot of this name.
fn slot_of<'a>(mut slots: impl Iterator<Item = &'a Slot>, name: NodeName) -> Option<&'a Slot> {
    slots.find(|slot| slot.name == name)
}

/// Whether a slot holds something of another than this life of this node.
fn is_foreign(content: &SlotRead, own: &Slot) -> bool {
    content
        .sound()
        .is_some_and(|slot| (slot.name, slot.incarnation) != (own.name, own.incarnation))
}
