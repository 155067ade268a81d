//! Binds the cores to the folder: what they ask for is done, what comes back is handed in. Mutants
//! are planted here, never in the cores.

use forebay_journal::ShardId;
use forebay_journal::format::{Claim, FENCE_SIZE, Fence, ShardSeal};
use forebay_journal::lease::{Action, Done, Event as Told, Loss, Why};
use forebay_journal::storage::IoFailure;

use super::folder::{Block, ONE_SPACE, SECTOR, Scan};
use super::mutant::Mutant;
use super::op::{Kind, Op, Waiter, claim_of, fence_of};
use super::process::Shard;
use super::world::{Event, JOURNAL, World};

impl World {
    pub(crate) fn local(&self, pid: usize) -> u64 {
        self.clocks[self.processes[pid].host].local(self.now_us)
    }

    /// A process does what there is to do, until it waits, pauses or ends.
    pub(crate) fn step(&mut self, pid: usize) {
        loop {
            let process = &mut self.processes[pid];
            if !process.is_alive || process.is_paused {
                return;
            }
            let op = process.inbox.pop_front();
            let local_us = self.local(pid);
            match op {
                Some(op) => self.take_answer(pid, op, local_us),
                None => self.processes[pid].lease.handle_timeout(local_us),
            }
            self.processes[pid].lease.check_invariants();
            self.take_told(pid);
            self.tend_shards(pid, local_us);
            if !self.processes[pid].is_alive || self.act(pid, local_us) {
                return;
            }
            if self.processes[pid].inbox.is_empty() {
                return self.set_wake(pid);
            }
        }
    }

    /// Does all actions that are due. True if the process pauses in between.
    fn act(&mut self, pid: usize, local_us: u64) -> bool {
        while let Some(action) = self.processes[pid].lease.poll_action(local_us) {
            self.begin(pid, action, local_us);
            self.take_told(pid);
            if self.faults.has_pauses && self.rng.once_in(3_000) {
                let pause_us = self.rng.below(5_000_000);
                self.processes[pid].is_paused = true;
                self.say(
                    pid,
                    format_args!("pauses between two actions for {pause_us}"),
                );
                self.after(pause_us, Event::Resume(pid));
                return true;
            }
        }
        false
    }

    fn begin(&mut self, pid: usize, action: Action, local_us: u64) {
        let (ticket, kind) = match action {
            Action::MakeClaim { .. } | Action::WriteClaim { .. } => {
                return self.begin_claim(pid, action);
            }
            Action::ReadSlots { ticket, copy } => (ticket, Kind::ReadSlots { copy }),
            Action::WriteSlot {
                ticket,
                slot,
                copy,
                bytes,
            } => {
                let bytes = bytes.to_vec();
                (
                    ticket,
                    Kind::WriteSlot {
                        slot: slot.0,
                        copy,
                        bytes,
                    },
                )
            }
            Action::Lock { ticket, is_take } => {
                let state = self.ask_lock(pid, is_take);
                let process = &mut self.processes[pid];
                return process
                    .lease
                    .handle_done(ticket, Done::Lock(state), local_us);
            }
            Action::Unlock => {
                self.lock = self.lock.filter(|&holder| holder != pid);
                return;
            }
            Action::ListEpochs { ticket } => {
                self.processes[pid].kept_blocks = self.folder.blocks.clone();
                (ticket, Kind::List)
            }
            Action::ReadClaim { ticket, epoch } => (ticket, claim_of(epoch)),
            Action::Scan { ticket, bases, .. } => {
                (ticket, Kind::Scan(Scan::new(bases, self.mutant)))
            }
        };
        self.submit(pid, Some(Waiter::Lease(ticket)), kind);
    }

    fn begin_claim(&mut self, pid: usize, action: Action) {
        let (ticket, kind) = match action {
            Action::MakeClaim {
                ticket,
                epoch,
                bytes,
            } => {
                let is_exclusive = !self.is(Mutant::ClaimOverwrites);
                if self.is(Mutant::ClaimInPieces) && self.folder.make(epoch, &vec![0; bytes.len()])
                {
                    let kind = Kind::WriteClaim {
                        epoch,
                        offset: 0,
                        bytes: bytes[..FENCE_SIZE].to_vec(),
                    };
                    return self.submit_later(pid, Some(Waiter::Lease(ticket)), kind);
                } else {
                    (
                        ticket,
                        Kind::Make {
                            epoch,
                            bytes,
                            is_exclusive,
                        },
                    )
                }
            }
            Action::WriteClaim {
                ticket,
                epoch,
                offset,
                bytes,
            } => {
                let offset = offset as usize;
                let kind = Kind::WriteClaim {
                    epoch,
                    offset,
                    bytes,
                };
                if self.is(Mutant::ShutNotDurable) && offset == 0 {
                    self.submit_later(pid, None, kind);
                    return self.submit(pid, Some(Waiter::Lease(ticket)), Kind::Shutting);
                }
                (ticket, kind)
            }
            other => panic!("a claim is made or written, not {other:?}"),
        };
        self.submit(pid, Some(Waiter::Lease(ticket)), kind);
    }

    /// Weakened: it takes its time.
    fn submit_later(&mut self, pid: usize, waiter: Option<Waiter>, kind: Kind) {
        let stall_us = self.processes[pid].stall_us;
        self.processes[pid].stall_us = self.rng.below(200_000);
        self.submit(pid, waiter, kind);
        self.processes[pid].stall_us = stall_us;
    }

    fn take_answer(&mut self, pid: usize, op: Op, local_us: u64) {
        // A read for shards that were given back since.
        let process = &self.processes[pid];
        let of = match &op.kind {
            Kind::ReadClaim { epoch, .. } => *epoch,
            Kind::WriteBlock { block, .. } => block.epoch,
            _ => process.epoch,
        };
        let is_past = process.shards.is_empty() || of != process.epoch;
        if is_past && !matches!(op.waiter, Some(Waiter::Lease(_))) {
            return;
        }
        match op.waiter {
            Some(Waiter::Lease(ticket)) => self.answer_lease(pid, ticket, op, local_us),
            Some(Waiter::Fence { shard, ticket }) => {
                self.answer_fence(pid, shard, ticket, op, local_us)
            }
            Some(Waiter::Block { shard, place }) => self.answer_block(pid, shard, place, &op),
            None => {}
        }
    }

    fn answer_lease(
        &mut self,
        pid: usize,
        ticket: forebay_journal::lease::Ticket,
        mut op: Op,
        local_us: u64,
    ) {
        let process = &mut self.processes[pid];
        let lease = &mut process.lease;
        if op.is_failed {
            return lease.handle_done(ticket, Done::Failed(IoFailure::IO), local_us);
        }
        let outcome = &mut op.outcome;
        let done = match &op.kind {
            Kind::ReadSlots { .. } => Done::Bytes(&outcome.bytes),
            Kind::List => Done::Epochs(&outcome.epochs),
            Kind::Make { .. } if outcome.is_made => Done::Claimed,
            Kind::Make { .. } => Done::Taken,
            Kind::ReadClaim { .. } if outcome.is_missing => Done::Missing,
            Kind::ReadClaim { epoch, .. } => {
                let own = lease.own_slot();
                let is_own = own.epoch == *epoch;
                if is_own && Fence::decode(&outcome.bytes).is_ok() {
                    process.looked_us = outcome.looked_us;
                }
                if is_own && self.mutant == Some(Mutant::OwnClaimCached) {
                    let claim = Claim {
                        journal: JOURNAL,
                        epoch: *epoch,
                        name: own.name,
                        incarnation: own.incarnation,
                    };
                    outcome.bytes[..SECTOR].copy_from_slice(&Fence::open(claim).encode());
                }
                Done::Bytes(&outcome.bytes)
            }
            Kind::WriteClaim { offset: 0, .. }
                if self.mutant == Some(Mutant::ClaimInPieces)
                    && !matches!(
                        lease.own_slot().state,
                        forebay_journal::format::SlotState::Claimed
                    ) =>
            {
                Done::Claimed
            }
            Kind::Scan(scan) => {
                let seals: Vec<Option<ShardSeal>> = scan.seals.iter().copied().map(Some).collect();
                return lease.handle_done(ticket, Done::Scanned(&seals), local_us);
            }
            _ => Done::Written,
        };
        lease.handle_done(ticket, done, local_us);
    }

    fn answer_fence(&mut self, pid: usize, shard: usize, ticket: u64, mut op: Op, local_us: u64) {
        let mutant = self.mutant;
        let process = &mut self.processes[pid];
        let (epoch, own) = (process.epoch, process.lease.own_slot());
        let claim = Claim {
            journal: JOURNAL,
            epoch,
            name: own.name,
            incarnation: own.incarnation,
        };
        let mut looked_us = op.outcome.looked_us;
        match mutant {
            Some(Mutant::FenceCached) => {
                let first = process.kept_fence.get_or_insert(op.outcome.bytes);
                op.outcome.bytes = first.clone();
            }
            Some(Mutant::FenceReadAhead) => {
                (op.outcome.bytes, looked_us) = process.shards[shard].ahead.clone();
            }
            Some(Mutant::DamagedIsOpen) if Fence::decode(&op.outcome.bytes).is_err() => {
                op.outcome.bytes = Fence::open(claim).encode().to_vec();
            }
            _ => {}
        }
        let own = &mut process.shards[shard];
        let bytes = if op.is_failed {
            Err(IoFailure::IO)
        } else {
            Ok(&op.outcome.bytes[..])
        };
        let released = match own.lease.handle_read(ticket, bytes, local_us) {
            Ok(None) => None,
            Ok(Some(released)) => Some(released.end()),
            Err(Loss::Superseded(_)) if mutant == Some(Mutant::LossIgnored) => {
                Some(own.durable_end())
            }
            Err(_) => {
                own.is_lost = true;
                None
            }
        };
        own.lease.check_invariants();
        if let Some(end) = released {
            self.acknowledge(pid, shard, end, looked_us);
        }
    }

    fn answer_block(&mut self, pid: usize, shard: usize, place: u64, op: &Op) {
        let mutant = self.mutant;
        let own = &mut self.processes[pid].shards[shard];
        if op.is_failed {
            own.is_lost = true;
            return;
        }
        own.written[place as usize].1 = true;
        own.durable = if mutant == Some(Mutant::AckOutOfOrder) {
            own.written
                .iter()
                .rposition(|(_, is_durable)| *is_durable)
                .map_or(0, |at| at + 1)
        } else {
            own.written
                .iter()
                .take_while(|(_, is_durable)| *is_durable)
                .count()
        };
        let end = own.durable_end();
        let released = own.lease.handle_durable(end);
        assert!(released.is_none(), "nothing without a look at the fence");
        own.lease.check_invariants();
        if mutant == Some(Mutant::AckWhenDurable) && end > own.released {
            self.acknowledge(pid, shard, end, self.now_us);
        }
    }

    fn acknowledge(&mut self, pid: usize, shard: usize, end: forebay_journal::Lsn, looked_us: u64) {
        let process = &mut self.processes[pid];
        let own = &mut process.shards[shard];
        if end <= own.released {
            return;
        }
        own.released = end;
        let (id, epoch) = (own.lease.shard(), process.epoch);
        let last = own
            .written
            .iter()
            .map(|(block, _)| block.seal())
            .find(|seal| seal.lsn.next() == end);
        process.lease.handle_released(id, end);
        let last = last.expect("a block of this epoch");
        self.ledger.ack(id.0, epoch, last, looked_us);
    }

    fn take_told(&mut self, pid: usize) {
        while let Some(told) = self.processes[pid].lease.poll_event() {
            if self.is_loud {
                let words = format!("{told:?}");
                self.say(pid, words.get(..90).unwrap_or(&words));
            }
            if let Some(kind) = kind_of(&told)
                && !self.report.reached.contains(&kind)
            {
                self.report.reached.insert(kind);
            }
            match told {
                Told::Taking { why, .. } => self.processes[pid].why = Some(why),
                Told::Serve { epoch, shards } => {
                    let process = &mut self.processes[pid];
                    process.epoch = epoch;
                    process.shards = shards.into_iter().map(Shard::new).collect();
                    process.kept_fence = None;
                    let seals: Vec<ShardSeal> =
                        process.shards.iter().map(|shard| shard.tail).collect();
                    let (by, looked_us) = (process.incarnation, process.looked_us);
                    self.ledger
                        .serve(epoch, by, seals, [looked_us, self.now_us]);
                    self.check_evidence(epoch);
                    self.check_deliveries(pid);
                    self.after(1_000, Event::Load(pid));
                }
                Told::Drain { .. } => self.processes[pid].is_draining = true,
                Told::Released => {
                    let process = &mut self.processes[pid];
                    process.is_draining = false;
                    process.shards.clear();
                }
                Told::Ended(_) => self.bury(pid),
                Told::Standby { .. } | Told::HandoverFailed { .. } => {}
            }
        }
    }

    /// What slots of older epochs say was acknowledged is never more than what counts.
    fn check_evidence(&mut self, epoch: forebay_journal::Epoch) {
        for slot in 0..super::folder::SLOTS {
            let sector = self.folder.slot(slot, 0).to_vec();
            let Ok(found) = forebay_journal::format::Slot::decode(&sector) else {
                continue;
            };
            if found.epoch < epoch {
                for (shard, acked) in found.acked.iter().enumerate() {
                    self.ledger.check_evidence(epoch, shard, *acked);
                }
            }
        }
    }

    /// Where clocks are sound, nobody delivers beside a node that took over because of silence.
    fn check_deliveries(&self, pid: usize) {
        if self.faults.has_clocks || self.processes[pid].why != Some(Why::Silent) {
            return;
        }
        for (other, process) in self.processes.iter().enumerate() {
            let until_us = process.lease.valid_until_us().unwrap_or(0);
            let is_older = other != pid && process.epoch < self.processes[pid].epoch;
            let is_delivering = process.is_alive && is_older && until_us > self.local(other);
            assert!(!is_delivering, "two deliver: {other} beside {pid}");
        }
    }

    fn tend_shards(&mut self, pid: usize, local_us: u64) {
        let mut is_drained = self.processes[pid].is_draining;
        for shard in 0..self.processes[pid].shards.len() {
            let process = &mut self.processes[pid];
            let epoch = process.epoch;
            let own = &mut process.shards[shard];
            is_drained &= own.is_drained();
            own.is_lost |= own.lease.handle_timeout(local_us).is_err()
                && self.mutant != Some(Mutant::LossIgnored);
            if own.is_lost {
                self.say(pid, "a shard lost the lease");
                return self.bury(pid);
            }
            while let Some(read) = self.processes[pid].shards[shard].lease.poll_read(local_us) {
                let waiter = Waiter::Fence {
                    shard,
                    ticket: read.ticket,
                };
                self.submit(pid, Some(waiter), fence_of(epoch));
            }
        }
        if is_drained {
            self.processes[pid].is_draining = false;
            self.processes[pid].lease.handle_drained();
        }
    }

    /// Clients ask for something to be stored.
    pub(crate) fn load(&mut self, pid: usize) {
        let process = &self.processes[pid];
        if !process.is_alive || process.shards.is_empty() {
            return;
        }
        let is_idle = process.is_paused || process.is_draining;
        for shard in 0..process.shards.len() {
            if !is_idle && self.processes[pid].shards[shard].under_way() < 2 && self.rng.once_in(2)
            {
                self.submit_block(pid, shard);
            }
        }
        let delay_us = 2_000 + self.rng.below(50_000);
        self.after(delay_us, Event::Load(pid));
    }

    fn submit_block(&mut self, pid: usize, shard: usize) {
        let salt = self.rng.next();
        let now_us = self.now_us;
        let process = &mut self.processes[pid];
        let (epoch, own) = (process.epoch, &mut process.shards[shard]);
        let id: ShardId = own.lease.shard();
        let block = Block::behind(&own.tail, epoch, id, salt);
        let place = own.written.len() as u64;
        own.tail = block.seal();
        own.written.push((block, false));
        if let Some(file) = self.folder.claims.get(&epoch) {
            own.ahead = (file[..FENCE_SIZE].to_vec(), now_us);
        }
        self.ledger.made(&block);
        let is_shared = self.is(Mutant::SpaceShared);
        let kind = Kind::WriteBlock {
            shard: id.0,
            place: if is_shared {
                block.number.get() - 1
            } else {
                place
            },
            in_epoch: if is_shared { ONE_SPACE } else { epoch },
            block,
        };
        self.submit(pid, Some(Waiter::Block { shard, place }), kind);
    }

    fn set_wake(&mut self, pid: usize) {
        let process = &self.processes[pid];
        let shards = process
            .shards
            .iter()
            .filter_map(|shard| shard.lease.poll_timeout());
        let local_us = process.lease.poll_timeout().into_iter().chain(shards).min();
        let clock = self.clocks[process.host];
        let Some(at_us) = local_us.and_then(|local_us| clock.real(local_us)) else {
            return;
        };
        let at_us = at_us.max(self.now_us + 50);
        if process
            .wake_us
            .is_none_or(|wake_us| at_us < wake_us || wake_us < self.now_us)
        {
            self.processes[pid].wake_us = Some(at_us);
            self.at(at_us, Event::Wake(pid));
        }
    }

    /// The clock of a host changed: its processes look when to wake up next.
    pub(crate) fn wake_host(&mut self, host: usize) {
        for pid in 0..self.processes.len() {
            if self.processes[pid].host == host && self.processes[pid].is_alive {
                self.processes[pid].wake_us = None;
                self.step(pid);
            }
        }
    }
}

/// What of it is worth reaching: without its numbers.
fn kind_of(told: &Told) -> Option<String> {
    let words = match told {
        Told::Taking { why, .. } => format!("{why:?}"),
        Told::Ended(end) => format!("{end:?}"),
        Told::Released => "Released".to_string(),
        Told::HandoverFailed { .. } => "HandoverFailed".to_string(),
        _ => return None,
    };
    let letters = |letter: char| letter.is_ascii_alphabetic() || letter == '(';
    let kind = words
        .split(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
        .next();
    Some(kind?.chars().filter(|&letter| letters(letter)).collect())
}
