//! One process of a node: its lease, its shards and its clock.

use std::collections::{BTreeMap, VecDeque};

use forebay_journal::format::{Incarnation, ShardSeal};
use forebay_journal::lease::{Lease, ShardLease, Why};
use forebay_journal::{Epoch, Lsn};

use super::folder::Block;
use super::op::Op;

/// A clock that runs at any speed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) at_us: u64,
    pub(crate) local_us: u64,
    pub(crate) percent: u64,
}

impl Clock {
    pub(crate) fn local(&self, now_us: u64) -> u64 {
        self.local_us + (now_us - self.at_us) * self.percent / 100
    }

    /// When it will show this, in real time.
    pub(crate) fn real(&self, local_us: u64) -> Option<u64> {
        let left_us = local_us.saturating_sub(self.local_us);
        let real_us = (left_us * 100).div_ceil(self.percent.max(1));
        (self.percent > 0).then_some(self.at_us + real_us)
    }

    pub(crate) fn set(&mut self, now_us: u64, percent: u64, jump_us: u64) {
        self.local_us = self.local(now_us) + jump_us;
        (self.at_us, self.percent) = (now_us, percent);
    }
}

/// A shard of a process that serves.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) lease: ShardLease,
    /// End of what was submitted.
    pub(crate) tail: ShardSeal,
    /// Blocks submitted, in order, and whether they are durable.
    pub(crate) written: Vec<(Block, bool)>,
    /// How many of them are durable with all before.
    pub(crate) durable: usize,
    pub(crate) released: Lsn,
    pub(crate) is_lost: bool,
    /// A look at the fence from when the last block was submitted (weakened only).
    pub(crate) ahead: (Vec<u8>, u64),
}

impl Shard {
    pub(crate) fn new(lease: ShardLease) -> Self {
        let tail = lease.seal();
        Self {
            lease,
            tail,
            written: Vec::new(),
            durable: 0,
            released: tail.lsn.next(),
            is_lost: false,
            ahead: (Vec::new(), 0),
        }
    }

    pub(crate) fn under_way(&self) -> usize {
        self.written
            .iter()
            .filter(|(_, is_durable)| !is_durable)
            .count()
    }

    /// First LSN that is not durable with all before.
    pub(crate) fn durable_end(&self) -> Lsn {
        self.lease.seal().lsn.plus(1 + self.durable as u64)
    }

    /// Nothing is under way and all is acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.under_way() == 0 && self.released == self.tail.lsn.next()
    }
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) host: usize,
    /// The host whose node's name it has: its own, or it is a twin.
    pub(crate) name_of: usize,
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: Lease,
    pub(crate) epoch: Epoch,
    pub(crate) shards: Vec<Shard>,
    pub(crate) is_alive: bool,
    pub(crate) is_paused: bool,
    pub(crate) is_draining: bool,
    /// Answers that it did not take yet.
    pub(crate) inbox: VecDeque<Op>,
    /// The next I/O of it fails, or takes that much longer.
    pub(crate) fails_next: bool,
    pub(crate) stall_us: u64,
    /// A wake-up that was asked for.
    pub(crate) wake_us: Option<u64>,
    /// When it looked at its own claim last.
    pub(crate) looked_us: u64,
    /// Why it tried last.
    pub(crate) why: Option<Why>,
    /// What its first look at its own fence showed (weakened only).
    pub(crate) kept_fence: Option<Vec<u8>>,
    /// The journal as it was when it began to try (weakened only).
    pub(crate) kept_blocks: BTreeMap<(Epoch, u16, u64), Block>,
}
