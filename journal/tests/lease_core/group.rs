//! Nodes over one folder in memory where everything happens at once, unless a test says otherwise.

use std::collections::BTreeMap;

use forebay_journal::format::{
    ClaimFile, Incarnation, LeaseHead, Next, NodeName, Role, SealTable, ShardSeal, Slot, SlotId,
};
use forebay_journal::lease::{
    Action, Base, Done, End, Event, Lease, LeaseConfig, LockState, Profile, ShardLease, Ticket,
};
use forebay_journal::storage::IoFailure;
use forebay_journal::{BlockNumber, Epoch, JournalId, Lsn};

pub(crate) const JOURNAL: JournalId = JournalId([5; 16]);
const SLOTS: u16 = 4;

/// A node and what it told.
pub(crate) struct Node {
    pub(crate) lease: Lease,
    pub(crate) told: Vec<String>,
    pub(crate) served_us: Option<u64>,
    pub(crate) shards: Vec<ShardLease>,
    /// It does nothing: paused, or gone.
    pub(crate) is_away: bool,
    pub(crate) fails: Option<IoFailure>,
    /// Slot writes that are kept under way.
    pub(crate) held: Option<Vec<Ticket>>,
    pub(crate) bases: Vec<Option<Base>>,
    /// Drains as soon as it is told to.
    pub(crate) drains: bool,
}

pub(crate) struct Group {
    pub(crate) now_us: u64,
    lease: Vec<u8>,
    pub(crate) claims: BTreeMap<Epoch, Vec<u8>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) lock: Option<usize>,
    /// What the lock says, if it does not work.
    pub(crate) lock_says: Option<LockState>,
    /// What scans find.
    pub(crate) found: Vec<Option<ShardSeal>>,
}

pub(crate) fn seal(epoch: u64, lsn: u64) -> ShardSeal {
    ShardSeal {
        epoch: Epoch::ZERO.plus(epoch),
        lsn: Lsn::ZERO.plus(lsn),
        block: BlockNumber::ZERO.plus(lsn),
        identity: forebay_journal::format::checksum(&lsn.to_le_bytes()),
    }
}

impl Group {
    pub(crate) fn new() -> Self {
        Self {
            now_us: 1_000_000,
            lease: vec![0; LeaseHead::slot_offset(SlotId(SLOTS), 1) as usize],
            claims: BTreeMap::new(),
            nodes: Vec::new(),
            lock: None,
            lock_says: None,
            found: vec![Some(ShardSeal::default()); 2],
        }
    }

    pub(crate) fn config(name: &str, role: Role, life: u8) -> LeaseConfig {
        LeaseConfig {
            journal: JOURNAL,
            name: NodeName::new(name).expect("a name"),
            incarnation: Incarnation([life; 16]),
            role,
            slot_count: SLOTS,
            shard_count: 2,
            timing: Profile::Fast.timing(),
            is_failback_allowed: false,
            failback_delay_us: 1_000_000,
            is_name_locked: true,
        }
    }

    pub(crate) fn start(&mut self, config: LeaseConfig) -> usize {
        self.nodes.push(Node {
            lease: Lease::new(config, self.now_us),
            told: Vec::new(),
            served_us: None,
            shards: Vec::new(),
            is_away: false,
            fails: None,
            held: None,
            bases: Vec::new(),
            drains: true,
        });
        self.nodes.len() - 1
    }

    /// A primary or backup of this name, life after life.
    pub(crate) fn join(&mut self, name: &str, role: Role) -> usize {
        let life = self.nodes.len() as u8 + 1;
        self.start(Self::config(name, role, life))
    }

    /// Lets time pass, a millisecond at a time.
    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_us += 1_000;
            for node in 0..self.nodes.len() {
                if !self.nodes[node].is_away {
                    self.nodes[node].lease.handle_timeout(self.now_us);
                    self.settle(node);
                }
            }
        }
    }

    /// Lets time pass until a node serves; how long that took, in milliseconds.
    pub(crate) fn pass_until_served(&mut self, node: usize) -> u64 {
        for ms in 0..20_000 {
            if self.nodes[node].served_us.is_some() {
                return ms;
            }
            self.pass(1);
        }
        panic!("{node} does not serve: {:?}", self.nodes[node].told);
    }

    pub(crate) fn settle(&mut self, node: usize) {
        loop {
            self.take_told(node);
            self.nodes[node].lease.check_invariants();
            let Some(action) = self.nodes[node].lease.poll_action(self.now_us) else {
                return;
            };
            self.act(node, action);
        }
    }

    fn take_told(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        while let Some(told) = of.lease.poll_event() {
            of.told.push(format!("{told:?}"));
            match told {
                Event::Serve { shards, .. } => {
                    (of.shards, of.served_us) = (shards, Some(self.now_us));
                }
                Event::Drain { .. } if of.drains => of.lease.handle_drained(),
                Event::Released | Event::Ended(_) => of.served_us = None,
                _ => {}
            }
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let now_us = self.now_us;
        let of = &mut self.nodes[node];
        if let Some(failure) = of.fails
            && let Some(ticket) = ticket_of(&action)
        {
            return of.lease.handle_done(ticket, Done::Failed(failure), now_us);
        }
        match action {
            Action::ReadSlots { ticket, copy } => {
                let at = LeaseHead::slots_offset(copy) as usize;
                let bytes = &self.lease[at..at + usize::from(SLOTS) * 4096];
                of.lease.handle_done(ticket, Done::Bytes(bytes), now_us);
            }
            Action::WriteSlot {
                ticket,
                slot,
                copy,
                bytes,
            } => {
                if let Some(held) = &mut of.held {
                    return held.push(ticket);
                }
                let at = LeaseHead::slot_offset(slot, copy) as usize;
                self.lease[at..at + 4096].copy_from_slice(&bytes[..]);
                of.lease.handle_done(ticket, Done::Written, now_us);
            }
            Action::Lock { ticket, is_take } => {
                let state = self.ask_lock(node, is_take);
                self.nodes[node]
                    .lease
                    .handle_done(ticket, Done::Lock(state), now_us);
            }
            Action::Unlock => self.lock = self.lock.filter(|&holder| holder != node),
            Action::ListEpochs { ticket } => {
                let epochs: Vec<Epoch> = self.claims.keys().copied().collect();
                of.lease.handle_done(ticket, Done::Epochs(&epochs), now_us);
            }
            other => self.act_on_claim(node, other),
        }
    }

    fn act_on_claim(&mut self, node: usize, action: Action) {
        let now_us = self.now_us;
        let of = &mut self.nodes[node];
        match action {
            Action::MakeClaim {
                ticket,
                epoch,
                bytes,
            } => {
                let is_new = self.claims.insert(epoch, bytes).is_none();
                assert!(is_new, "the next number is free here");
                of.lease.handle_done(ticket, Done::Claimed, now_us);
            }
            Action::ReadClaim { ticket, epoch } => {
                let bytes = self.claims.get(&epoch);
                let done = bytes.map_or(Done::Missing, |bytes| Done::Bytes(bytes));
                of.lease.handle_done(ticket, done, now_us);
            }
            Action::WriteClaim {
                ticket,
                epoch,
                offset,
                bytes,
            } => {
                let file = self.claims.get_mut(&epoch).expect("it is there");
                file[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
                of.lease.handle_done(ticket, Done::Written, now_us);
            }
            Action::Scan { ticket, bases, .. } => {
                of.bases = bases;
                of.lease
                    .handle_done(ticket, Done::Scanned(&self.found), now_us);
            }
            other => panic!("{other:?} is none of a claim"),
        }
    }

    fn ask_lock(&mut self, node: usize, is_take: bool) -> LockState {
        match self.lock_says {
            // Each host has a lock of its own.
            Some(LockState::Taken) if !is_take => return LockState::Free,
            Some(says) => return says,
            None => {}
        }
        match self.lock {
            Some(holder) if holder != node => LockState::Busy,
            _ if is_take => {
                self.lock = Some(node);
                LockState::Taken
            }
            _ => LockState::Free,
        }
    }

    /// The process is gone, and its lock with it.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].is_away = true;
        self.lock = self.lock.filter(|&holder| holder != node);
    }

    pub(crate) fn stop(&mut self, node: usize, next: Next) {
        self.nodes[node].lease.stop(next);
        self.settle(node);
        assert!(self.has_told(node, &format!("{:?}", Event::Ended(End::Stopped))));
        self.kill(node);
    }

    pub(crate) fn has_told(&self, node: usize, words: &str) -> bool {
        self.nodes[node]
            .told
            .iter()
            .any(|told| told.contains(words))
    }

    pub(crate) fn slot(&mut self, slot: u16, copy: usize) -> &mut [u8] {
        let at = LeaseHead::slot_offset(SlotId(slot), copy) as usize;
        &mut self.lease[at..at + 4096]
    }

    /// A claim of an epoch that served and is over, with these seals.
    pub(crate) fn put_claim(&mut self, slot: &Slot, seals: Vec<Option<ShardSeal>>) {
        let claim = forebay_journal::format::Claim {
            journal: JOURNAL,
            epoch: slot.epoch,
            name: slot.name,
            incarnation: slot.incarnation,
        };
        let mut bytes = ClaimFile::encode_new(claim);
        let table = SealTable {
            journal: JOURNAL,
            epoch: slot.epoch,
            incarnation: slot.incarnation,
            seals,
        };
        let copy = table.encode();
        for at in [0, 1].map(|copy| ClaimFile::seals_offset(copy) as usize) {
            bytes[at..at + copy.len()].copy_from_slice(&copy);
        }
        self.claims.insert(slot.epoch, bytes);
    }
}

fn ticket_of(action: &Action) -> Option<Ticket> {
    match action {
        Action::ReadSlots { ticket, .. }
        | Action::WriteSlot { ticket, .. }
        | Action::ListEpochs { ticket }
        | Action::MakeClaim { ticket, .. }
        | Action::ReadClaim { ticket, .. }
        | Action::WriteClaim { ticket, .. } => Some(*ticket),
        _ => None,
    }
}
