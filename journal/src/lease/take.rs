//! Taking over: win a number, shut every fence that may be open, read what binds, find the end of
//! the journal, write the seals, look at one's own fence, serve.
//!
//! Each step begins when the one before is durable; the order is what safety rests on
//! (`docs/protocol.md` 3).

use super::lane::Lane;
use super::{Action, Base, Done, End, Event, Lease, Phase, ShardLease, TakeoverFailure, Why};
use crate::format::{Claim, ClaimFile, Fence, SealTable, SealTableRead, ShardSeal, SlotState};
use crate::{Epoch, ShardId};

/// How often a fence is written again that does not read as shut because others write it too.
const SHUT_TRIES_MAX: u32 = 3;

/// A takeover under way.
#[derive(Debug)]
pub(super) struct Take {
    why: Why,
    step: Step,
    lane: Lane,
    epoch: Epoch,
    /// Claims below that were not looked at yet, lowest first.
    below: Vec<Epoch>,
    bases: Vec<Option<Base>>,
    seals: Vec<Option<ShardSeal>>,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Which numbers are taken?
    List,
    /// Win the next one.
    Make,
    /// Look at the highest claim below.
    Look,
    /// Shut it.
    Shut(Fence),
    /// Read what its owner sealed: not before it is shut.
    Sealed,
    /// Find the end of the journal.
    Scan,
    /// Write the seals, copy 0 and then 1.
    Seal(usize),
    /// Look at the own fence.
    Check,
}

impl Take {
    pub(super) fn new(why: Why) -> Self {
        Self {
            why,
            step: Step::List,
            lane: Lane::default(),
            epoch: Epoch::ZERO,
            below: Vec::new(),
            bases: Vec::new(),
            seals: Vec::new(),
            tries: 0,
        }
    }

    pub(super) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) const fn is_won(&self) -> bool {
        !matches!(self.step, Step::List | Step::Make)
    }

    /// Since when a read or write is under way; a scan may take its time.
    pub(super) fn io_since_us(&self) -> Option<u64> {
        self.lane.since_us().filter(|_| self.step != Step::Scan)
    }

    fn action(&self, ticket: super::Ticket, own: Claim) -> Action {
        let below = self.below.last().copied().unwrap_or(Epoch::ZERO);
        match self.step {
            Step::List => Action::ListEpochs { ticket },
            Step::Make => Action::MakeClaim {
                ticket,
                epoch: self.epoch,
                bytes: ClaimFile::encode_new(own),
            },
            Step::Look | Step::Sealed => Action::ReadClaim {
                ticket,
                epoch: below,
            },
            Step::Shut(fence) => Action::WriteClaim {
                ticket,
                epoch: below,
                offset: 0,
                bytes: fence.encode().to_vec(),
            },
            Step::Scan => Action::Scan {
                ticket,
                epoch: self.epoch,
                bases: self.bases.clone(),
            },
            Step::Seal(copy) => Action::WriteClaim {
                ticket,
                epoch: self.epoch,
                offset: ClaimFile::seals_offset(copy),
                bytes: self.table(own).encode(),
            },
            Step::Check => Action::ReadClaim {
                ticket,
                epoch: self.epoch,
            },
        }
    }

    fn table(&self, own: Claim) -> SealTable {
        SealTable {
            journal: own.journal,
            epoch: own.epoch,
            incarnation: own.incarnation,
            seals: self.seals.clone(),
        }
    }

    /// The next claim below, or the scan if none is left.
    fn go_down(&mut self) {
        self.below.pop();
        self.tries = 0;
        self.step = if self.below.is_empty() {
            Step::Scan
        } else {
            Step::Look
        };
    }

    /// Takes the seals of the highest claim below. Whoever wrote them had shut all fences below its
    /// own, so only shards that it did not serve lead further down.
    fn take_seals(&mut self, table: &SealTable) -> Result<(), TakeoverFailure> {
        if table.seals.len() != self.bases.len() {
            return Err(TakeoverFailure::ShardCount(table.epoch));
        }
        for (base, seal) in self.bases.iter_mut().zip(&table.seals) {
            let found = seal.map(|seal| Base {
                epoch: table.epoch,
                seal,
            });
            *base = base.or(found);
        }
        if self.bases.iter().all(Option::is_some) {
            self.below.clear();
        }
        self.go_down();
        Ok(())
    }
}

/// What follows from an answer.
enum Turn {
    On,
    Lost,
    Failed(TakeoverFailure),
    Serve,
}

impl Lease {
    pub(super) fn poll_take(&mut self, now_us: u64) -> Option<Action> {
        let Phase::Taking(take) = &self.phase else {
            return None;
        };
        if !take.lane.is_free() {
            return None;
        }
        let claim = self.claim(take.epoch);
        let ticket = self.ticket();
        let Phase::Taking(take) = &mut self.phase else {
            return None;
        };
        take.lane.begin(ticket, now_us);
        Some(take.action(ticket, claim))
    }

    pub(super) fn handle_take(&mut self, ticket: super::Ticket, done: Done<'_>, now_us: u64) {
        let own = self.claim(self.own.epoch);
        let newest = self.watch.slots().map(|slot| slot.epoch).max();
        let newest = newest.unwrap_or(Epoch::ZERO).max(self.own.epoch);
        let Phase::Taking(take) = &mut self.phase else {
            return;
        };
        let Some(began_us) = take.lane.end(ticket) else {
            return;
        };
        if let Done::Failed(failure) = done {
            return self.end(End::TakeoverFailed(TakeoverFailure::Io(failure)));
        }
        let turn = match take.step {
            Step::List => {
                let known = newest.max(self.listed);
                let turn = take.listed(done, newest, known, self.config.shard_count);
                self.listed = self.listed.max(take.epoch.before());
                turn
            }
            Step::Make => match done {
                Done::Claimed => return self.won(),
                _ => Turn::Lost,
            },
            Step::Look => take.looked(done, own),
            Step::Shut(_) => {
                take.step = Step::Sealed;
                Turn::On
            }
            Step::Sealed => take.read_sealed(done, own),
            Step::Scan => take.scanned(done),
            Step::Seal(0) => {
                take.step = Step::Seal(1);
                Turn::On
            }
            Step::Seal(_) => {
                take.step = Step::Check;
                Turn::On
            }
            Step::Check => take.checked(done, own),
        };
        match turn {
            Turn::On => {}
            Turn::Lost => self.abort_take(now_us),
            Turn::Failed(failure) => self.end(End::TakeoverFailed(failure)),
            Turn::Serve => self.begin_hold(began_us),
        }
    }

    /// The number is this node's.
    fn won(&mut self) {
        let Phase::Taking(take) = &mut self.phase else {
            return;
        };
        take.step = if take.below.is_empty() {
            Step::Scan
        } else {
            Step::Look
        };
        self.own.epoch = take.epoch;
        self.own.state = SlotState::Claimed;
        self.own.next = crate::format::Next::Anybody;
        self.own.ready_for = Epoch::ZERO;
        self.beat.tell();
        let (epoch, why) = (take.epoch, take.why);
        self.events.push_back(Event::Taking { epoch, why });
    }

    /// What to serve with, once the heartbeat that says so is written.
    pub(super) fn make_shards(&self, take: &Take) -> Vec<ShardLease> {
        let claim = self.claim(take.epoch);
        let io_us = self.config.timing.io_us();
        let shards = (0..).map(ShardId).zip(&take.seals);
        let served = shards.filter_map(|(shard, seal)| {
            seal.map(|seal| ShardLease::new(shard, claim, seal, io_us))
        });
        served.collect()
    }
}

impl Take {
    /// `newest` is what slots name, `known` also what was listed before.
    fn listed(&mut self, done: Done<'_>, newest: Epoch, known: Epoch, shard_count: u16) -> Turn {
        let Done::Epochs(epochs) = done else {
            panic!("epochs were asked for, not {done:?}");
        };
        self.below = epochs.to_vec();
        self.below.sort_unstable();
        self.below.dedup();
        self.bases = vec![None; usize::from(shard_count)];
        let last = self.below.last().copied().unwrap_or(Epoch::ZERO);
        // Who says in its slot that it claimed an epoch had made the claim before.
        if newest > last {
            return Turn::Failed(TakeoverFailure::ListStale(newest));
        }
        self.epoch = last.next();
        // Somebody claimed since this node looked: its slot has to be judged first. So the number
        // that is won is the next one behind those whose holders were judged.
        if last > known && self.why != Why::Ordered {
            return Turn::Lost;
        }
        self.step = Step::Make;
        Turn::On
    }

    fn looked(&mut self, done: Done<'_>, own: Claim) -> Turn {
        let below = self.below.last().copied().unwrap_or(Epoch::ZERO);
        let bytes = match done {
            // Of an epoch from before there were claims: nobody acknowledges in it any more.
            Done::Missing => {
                self.go_down();
                return Turn::On;
            }
            Done::Bytes(bytes) => bytes,
            other => panic!("a claim was asked for, not {other:?}"),
        };
        let fence = Fence::decode(bytes);
        self.step = match fence {
            Ok(fence) if !fence.is_open() => Step::Sealed,
            Ok(fence) if (fence.claim.journal, fence.claim.epoch) == (own.journal, below) => {
                Step::Shut(Fence::shut(fence.claim, own.epoch))
            }
            _ => Step::Shut(Fence::shut_unread(own.journal, below, &own)),
        };
        Turn::On
    }

    /// Read behind the moment when it was shut: what its owner sealed before it served is in it.
    fn read_sealed(&mut self, done: Done<'_>, own: Claim) -> Turn {
        let below = self.below.last().copied().unwrap_or(Epoch::ZERO);
        let Done::Bytes(bytes) = done else {
            panic!("a claim was asked for, not {done:?}");
        };
        let Ok(file) = ClaimFile::decode(bytes, own.journal, below) else {
            return Turn::Failed(TakeoverFailure::NotShut(below));
        };
        if !file.fence.is_ok_and(|fence| !fence.is_open()) {
            self.tries += 1;
            if self.tries == SHUT_TRIES_MAX {
                return Turn::Failed(TakeoverFailure::NotShut(below));
            }
            self.step = Step::Look;
            return Turn::On;
        }
        match file.seals {
            SealTableRead::Absent => self.go_down(),
            SealTableRead::Damaged => {
                return Turn::Failed(TakeoverFailure::SealsDamaged(below));
            }
            SealTableRead::Sound(table) => {
                if let Err(failure) = self.take_seals(&table) {
                    return Turn::Failed(failure);
                }
            }
        }
        Turn::On
    }

    fn scanned(&mut self, done: Done<'_>) -> Turn {
        let Done::Scanned(seals) = done else {
            panic!("a scan was asked for, not {done:?}");
        };
        assert_eq!(seals.len(), self.bases.len(), "a seal for each shard");
        self.seals = seals.to_vec();
        self.step = Step::Seal(0);
        Turn::On
    }

    fn checked(&self, done: Done<'_>, own: Claim) -> Turn {
        let Done::Bytes(bytes) = done else {
            panic!("a claim was asked for, not {done:?}");
        };
        let failed = Turn::Failed(TakeoverFailure::NotShut(self.epoch));
        let Ok(file) = ClaimFile::decode(bytes, own.journal, own.epoch) else {
            return failed;
        };
        match (file.fence, file.seals) {
            (Ok(fence), _) if !fence.is_open() => Turn::Lost,
            (Ok(fence), SealTableRead::Sound(table))
                if fence.claim == own && table == self.table(own) =>
            {
                Turn::Serve
            }
            _ => failed,
        }
    }
}
