//! The ack barrier: what a shard may acknowledge. Its own small core, one for each shard, so that
//! each shard reads with its own ring and waits for nobody.
//!
//! Invariants: only a read of the epoch's fence that was *issued behind* a completion and found the
//! fence open yields a [`Released`] that covers it; they never go back; behind a [`Loss`] nothing
//! is released any more. No clock takes part.

use super::{Loss, ShardSeal};
use crate::format::{Claim, Fence};
use crate::storage::IoFailure;
use crate::{Epoch, Lsn, ShardId};

/// Reads of the fence at once: what gets durable while one is under way need not wait for two.
const READS_MAX: usize = 2;

/// First LSN that may not be acknowledged yet. Only a barrier makes one: the gate takes nothing
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Released(Lsn);

impl Released {
    /// The first LSN that is not released; all below are.
    pub const fn end(self) -> Lsn {
        self.0
    }
}

/// A read of the fence to be done: [`crate::format::FENCE_SIZE`] bytes from the start of the claim
/// file of the lease's epoch, past any cache (`O_DIRECT`), submitted *behind* the call that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceRead {
    /// Comes back with the bytes. Rises.
    pub ticket: u64,
}

/// The right of one shard to write and acknowledge in one epoch. There is one for each shard that
/// is served, made by a takeover (`Event::Serve`) or by [`Self::alone`], and it cannot be copied:
/// who opens a writer takes epoch and seal from it, who opens the gate its [`Released`].
#[derive(Debug)]
pub struct ShardLease {
    shard: ShardId,
    epoch: Epoch,
    seal: ShardSeal,
    /// `None`: no other node can have a claim.
    claim: Option<Claim>,
    io_us: u64,
    durable_end: Lsn,
    /// Up to where reads were issued.
    asked_end: Lsn,
    released_end: Lsn,
    reads: Vec<Issued>,
    next_ticket: u64,
    /// Since when the fence cannot be made out.
    unsound_since_us: Option<u64>,
    loss: Option<Loss>,
}

#[derive(Clone, Copy, Debug)]
struct Issued {
    ticket: u64,
    /// Durable when it was issued.
    covers: Lsn,
    at_us: u64,
}

impl ShardLease {
    pub(super) fn new(shard: ShardId, claim: Claim, seal: ShardSeal, io_us: u64) -> Self {
        let mut lease = Self::alone(shard, claim.epoch, seal);
        lease.claim = Some(claim);
        lease.io_us = io_us;
        lease
    }

    /// For a node whose folder no other node can open (a policy without backups): what is durable
    /// may be acknowledged.
    pub fn alone(shard: ShardId, epoch: Epoch, seal: ShardSeal) -> Self {
        let end = seal.lsn.next();
        Self {
            shard,
            epoch,
            seal,
            claim: None,
            io_us: 0,
            durable_end: end,
            asked_end: end,
            released_end: end,
            reads: Vec::with_capacity(READS_MAX),
            next_ticket: 0,
            unsound_since_us: None,
            loss: None,
        }
    }

    /// The shard.
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The epoch to write in.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the journal goes on.
    pub const fn seal(&self) -> ShardSeal {
        self.seal
    }

    /// Everything below `end` is durable, in order. Gives what may be acknowledged without asking.
    ///
    /// Panics: if that goes back.
    pub fn handle_durable(&mut self, end: Lsn) -> Option<Released> {
        assert!(
            end >= self.durable_end,
            "{end} is before {}",
            self.durable_end
        );
        self.durable_end = end;
        if self.claim.is_some() || end == self.released_end {
            return None;
        }
        self.asked_end = end;
        self.released_end = end;
        Some(Released(end))
    }

    /// The next read of the fence, if one is due.
    pub fn poll_read(&mut self, now_us: u64) -> Option<FenceRead> {
        let is_due = self.durable_end > self.asked_end && self.loss.is_none();
        if !is_due || self.reads.len() == READS_MAX {
            return None;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.asked_end = self.durable_end;
        self.reads.push(Issued {
            ticket,
            covers: self.durable_end,
            at_us: now_us,
        });
        Some(FenceRead { ticket })
    }

    /// Takes the result of a read. Gives what may be acknowledged now.
    ///
    /// Errors: the epoch is over for this node, for ever; also when asked again.
    /// Panics: on a ticket that is not under way.
    pub fn handle_read(
        &mut self,
        ticket: u64,
        result: Result<&[u8], IoFailure>,
        now_us: u64,
    ) -> Result<Option<Released>, Loss> {
        let at = self.reads.iter().position(|read| read.ticket == ticket);
        let read = self.reads.remove(at.expect("a read that is under way"));
        if let Some(loss) = self.loss {
            return Err(loss);
        }
        let sector = result.map_err(|failure| self.lose(Loss::Io(failure)))?;
        match Fence::decode(sector) {
            Ok(fence) if Some(fence.claim) == self.claim && fence.is_open() => {
                self.unsound_since_us = None;
                if read.covers <= self.released_end {
                    return Ok(None);
                }
                self.released_end = read.covers;
                self.asked_end = self.asked_end.max(read.covers);
                Ok(Some(Released(read.covers)))
            }
            Ok(fence) if !fence.is_open() => Err(self.lose(Loss::Superseded(fence.shut_by))),
            _ => self.handle_unsound(now_us),
        }
    }

    /// It may be half shut: no acknowledgement, look again, but not for ever.
    fn handle_unsound(&mut self, now_us: u64) -> Result<Option<Released>, Loss> {
        let since_us = *self.unsound_since_us.get_or_insert(now_us);
        if now_us.saturating_sub(since_us) >= self.io_us {
            return Err(self.lose(Loss::FenceUnsound));
        }
        self.asked_end = self.released_end;
        Ok(None)
    }

    const fn lose(&mut self, loss: Loss) -> Loss {
        self.loss = Some(loss);
        loss
    }

    /// When [`Self::handle_timeout`] wants to be called, in microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        let oldest = self.reads.iter().map(|read| read.at_us).min()?;
        self.loss.is_none().then_some(oldest + self.io_us)
    }

    /// Time passed.
    ///
    /// Errors: a read takes too long: the epoch is over for this node.
    pub fn handle_timeout(&mut self, now_us: u64) -> Result<(), Loss> {
        if let Some(loss) = self.loss {
            return Err(loss);
        }
        match self.poll_timeout() {
            Some(due_us) if now_us >= due_us => Err(self.lose(Loss::Stalled)),
            _ => Ok(()),
        }
    }

    /// Panics: if what holds does not.
    pub fn check_invariants(&self) {
        assert!(
            self.released_end <= self.asked_end,
            "released before it was asked"
        );
        assert!(
            self.asked_end <= self.durable_end,
            "asked before it was durable"
        );
        assert!(self.reads.len() <= READS_MAX);
        let in_order = self
            .reads
            .is_sorted_by_key(|read| (read.ticket, read.covers));
        assert!(in_order, "a later read covers less");
    }
}
