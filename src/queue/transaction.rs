//! Transactions: what is staged in order, and applied or dropped whole.
//!
//! What a transaction settles or gives back stays where it is until the end: with its consumer, or
//! locked if that goes. It is settled once, whoever tries again, and uses up no credit.
//!
//! One over several shards has a *coordinator*, the shard that its number names. The others
//! *prepare*: from then on only the coordinator's word ends it, also after a restart. Its word is
//! the record *decided*, kept until the others have *committed*; without it the transaction is
//! rolled back (presumed abort).

use std::collections::hash_map::Entry;

use forebay_journal::format::{Departure, IdList, Outcome, Record, TransactionState};
use forebay_journal::{QueueId, SegmentId};
use rustc_hash::FxHashMap;

use super::arrival::StagedArrival;
use super::bodies::Bodies;
use super::consumer::{ConsumerId, Selection};
use super::decide::add_entries;
use super::decision::{Decision, Effect, Refused, Verb};
use super::delivered::Holder;
use super::entry::Place;
use super::fate::Return;
use super::machine::Machine;

/// One staged record.
#[derive(Debug)]
pub(super) enum Step {
    /// A message that goes to these queues when the transaction commits.
    Enter {
        arrival: StagedArrival,
        queues: Box<[u64]>,
    },
    /// Messages that leave their consumer when it commits.
    Settle {
        queue: u64,
        messages: Box<[u64]>,
        fate: Fate,
    },
}

/// What becomes of messages when a transaction commits that acknowledged or refused them: decided
/// when it did.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// They leave their queue.
    Gone,
    /// They are ready again, at once or from this time on.
    Released { ready_unix_ms: u64 },
    /// They are on their way to another address.
    SentOn(Departure),
}

#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) is_prepared: bool,
    /// Whether a restart would find something of it.
    pub(super) is_journaled: bool,
    pub(super) steps: Vec<Step>,
    /// Segments whose records a restart needs to stage this again, one per record that no
    /// message already holds.
    pub(super) pins: Vec<SegmentId>,
}

#[derive(Debug, Default)]
pub(super) struct Transactions {
    staged: FxHashMap<u64, Staged>,
    /// Of each queue and message that one of them settles: which.
    settling: FxHashMap<(u64, u64), u64>,
    /// How many of their messages are to enter each queue.
    entering: FxHashMap<u64, u64>,
    /// Those this shard coordinates, committed, of which others still have to hear; and where
    /// that is written.
    decided: FxHashMap<u64, SegmentId>,
}

impl Transactions {
    /// The transaction, to stage one more record in it.
    ///
    /// Panics: if it is prepared (our own mistake). Nothing may follow that promise: when its
    /// segment is freed, a replay would take the rest for a transaction nobody prepared.
    pub(super) fn add(&mut self, transaction: u64, is_journaled: bool) -> &mut Staged {
        let staged = self.staged.entry(transaction).or_default();
        assert!(!staged.is_prepared, "transaction {transaction} is prepared");
        staged.is_journaled |= is_journaled;
        staged
    }

    /// Whether an open transaction settles the message.
    pub(super) fn settles(&self, queue: QueueId, message: u64) -> bool {
        !self.settling.is_empty() && self.settling.contains_key(&(queue.0, message))
    }

    /// A message that one of them settles is given back: it is being rolled back.
    pub(super) fn forget(&mut self, queue: QueueId, message: u64) {
        if !self.settling.is_empty() {
            self.settling.remove(&(queue.0, message));
        }
    }

    /// Numbers of those nobody promised to decide, sorted.
    pub(super) fn unprepared(&self) -> Vec<u64> {
        self.numbers(false)
    }

    fn numbers(&self, is_prepared: bool) -> Vec<u64> {
        let staged = self.staged.iter();
        let numbers = staged.filter(|(_, staged)| staged.is_prepared == is_prepared);
        let mut numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Whether messages of one of them are to enter this queue.
    pub(super) fn enter(&self, queue: u64) -> bool {
        self.entering.contains_key(&queue)
    }

    /// Stages a message for these queues.
    pub(super) fn stage_enter(
        &mut self,
        transaction: u64,
        is_journaled: bool,
        arrival: StagedArrival,
        queues: Box<[u64]>,
    ) {
        for queue in &queues {
            *self.entering.entry(*queue).or_default() += 1;
        }
        let staged = self.add(transaction, is_journaled);
        staged.steps.push(Step::Enter { arrival, queues });
    }

    /// A message that was to enter these queues does, or never will.
    fn entered(&mut self, queues: &[u64]) {
        for queue in queues {
            if let Entry::Occupied(mut entry) = self.entering.entry(*queue) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.staged.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Staged)> + '_ {
        self.staged.iter().map(|(number, staged)| (*number, staged))
    }

    /// Queue and message of all that they settle, and which does.
    pub(super) fn settling(&self) -> impl Iterator<Item = ((u64, u64), u64)> + '_ {
        self.settling.iter().map(|(what, number)| (*what, *number))
    }

    /// The oldest segment that holds a record of one of them, or a decision others have to hear of.
    pub(super) fn oldest_segment(&self, bodies: &Bodies) -> Option<SegmentId> {
        let staged = self.staged.values();
        let pins = staged
            .clone()
            .flat_map(|staged| staged.pins.iter().copied());
        let steps = staged.flat_map(|staged| &staged.steps);
        let messages = steps.filter_map(|step| match step {
            Step::Enter { arrival, .. } if arrival.entry.is_durable() => Some(&arrival.entry),
            _ => None,
        });
        let records = messages.flat_map(|entry| bodies.records_of(entry));
        let messages = records.map(|(segment, _)| segment);
        pins.chain(messages).chain(self.decision_segments()).min()
    }

    /// Segments that hold a decision others have to hear of.
    pub(super) fn decision_segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.decided.values().copied()
    }
}

/// Bits of a transaction's number that name the shard that coordinates it; above them is a number
/// of that shard's sequence of messages, which never repeats.
const COORDINATOR_BITS: u32 = 8;

impl Machine {
    /// Draws a number that no transaction of the node ever had: this shard coordinates it.
    ///
    /// Panics: if the shard is none of the 256 a node may have (our own mistake).
    pub fn draw_transaction(&mut self, shard: u16) -> u64 {
        assert!(shard < 1 << COORDINATOR_BITS, "shard {shard}");
        let number = self.next_message;
        self.next_message += 1;
        number << COORDINATOR_BITS | u64::from(shard)
    }

    /// The shard that coordinates the transaction of this number.
    pub const fn coordinator_of(transaction: u64) -> u16 {
        (transaction & ((1 << COORDINATOR_BITS) - 1)) as u16
    }

    /// Whether something is staged in the transaction here.
    pub fn has_staged(&self, transaction: u64) -> bool {
        self.transactions.staged.contains_key(&transaction)
    }

    /// Transactions prepared here that wait for their coordinator, sorted.
    pub fn in_doubt(&self) -> Vec<u64> {
        self.transactions.numbers(true)
    }

    /// Transactions this shard decided to commit and of which others may not have heard, sorted.
    pub fn decided(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.transactions.decided.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Settles deliveries in a transaction: they are gone when it commits.
    ///
    /// Errors: see [`Self::decide_settle`].
    /// Panics: if the transaction is zero, which means none (our own mistake).
    pub fn decide_stage_settle(
        &self,
        consumer: ConsumerId,
        selection: Selection,
        transaction: u64,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        assert_ne!(transaction, 0, "no transaction");
        self.decide_settle(consumer, selection, Outcome::Accepted, out)?;
        out.transaction = transaction;
        Ok(())
    }

    /// Gives deliveries back in a transaction: when it commits they are ready again or on their way
    /// to another address, as [`Self::decide_release`] says of them now. A delay counts from now.
    ///
    /// Errors: see [`Self::decide_settle`].
    /// Panics: if the transaction is zero, which means none (our own mistake).
    pub fn decide_stage_release(
        &self,
        consumer: ConsumerId,
        selection: Selection,
        (given_back, now_unix_ms): (Return, u64),
        transaction: u64,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        assert_ne!(transaction, 0, "no transaction");
        self.decide_release(consumer, selection, given_back, now_unix_ms, out)?;
        out.transaction = transaction;
        Ok(())
    }

    /// Promises to commit or roll back as the coordinator says.
    ///
    /// Errors: `UnknownTransaction`: nothing is staged, so there is nothing to promise.
    pub fn decide_prepare(&self, transaction: u64, out: &mut Decision) -> Result<(), Refused> {
        self.decide_state(transaction, TransactionState::Prepared, out)
    }

    /// Makes all that is staged true.
    ///
    /// Errors: `UnknownTransaction`.
    pub fn decide_commit(&self, transaction: u64, out: &mut Decision) -> Result<(), Refused> {
        self.decide_state(transaction, TransactionState::Committed, out)
    }

    fn decide_state(
        &self,
        transaction: u64,
        state: TransactionState,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        out.clear();
        let staged = self.transactions.staged.get(&transaction);
        let staged = staged.ok_or(Refused::UnknownTransaction)?;
        out.transact(transaction, state, staged.is_journaled);
        Ok(())
    }

    /// Commits a transaction that all others have prepared: what is staged here, if anything, is
    /// true from now on, and the others have to hear of it until [`Self::decide_end`].
    pub fn decide_decided(&self, transaction: u64, out: &mut Decision) {
        out.clear();
        out.transact(transaction, TransactionState::Decided, true);
    }

    /// All others have committed durably what this shard decided; nothing decided: that is known.
    pub fn decide_end(&self, transaction: u64, out: &mut Decision) {
        out.clear();
        if self.transactions.decided.contains_key(&transaction) {
            out.transact(transaction, TransactionState::Ended, true);
        }
    }

    /// Drops all that is staged. What it settled stays with its consumer; where that is gone it is
    /// ready again.
    ///
    /// Errors: `UnknownTransaction`.
    pub fn decide_roll_back(&self, transaction: u64, out: &mut Decision) -> Result<(), Refused> {
        out.clear();
        let staged = self.transactions.staged.get(&transaction);
        let staged = staged.ok_or(Refused::UnknownTransaction)?;
        for step in &staged.steps {
            if let Step::Settle {
                queue, messages, ..
            } = step
            {
                self.give_back_locked(QueueId(*queue), messages, out);
            }
        }
        // Last: if not all fits the journal now, what is left is decided again.
        out.transact(
            transaction,
            TransactionState::RolledBack,
            staged.is_journaled,
        );
        Ok(())
    }

    /// A record of its own: a replay does not know whose consumer was gone.
    fn give_back_locked(&self, id: QueueId, messages: &[u64], out: &mut Decision) {
        let Some(queue) = self.queues.get(id) else {
            return;
        };
        let slots = messages.iter().filter_map(|one| queue.delivered.find(*one));
        let locked = slots.filter(|slot| slot.holder == Holder::Locked);
        let entries = locked.map(|slot| &slot.entry);
        add_entries(queue, entries, Verb::Release { ready_unix_ms: 0 }, out);
    }

    /// Of a settlement, release or departure that names a transaction.
    ///
    /// Panics: on other records (our own mistake).
    #[cold]
    pub(super) fn stage(&mut self, record: &Record<'_>, at: Place) {
        match *record {
            Record::Settle {
                queue,
                transaction,
                messages,
                ..
            } => self.stage_settle(transaction, queue, (messages, Fate::Gone), at),
            Record::Release {
                queue,
                transaction,
                ready_unix_ms,
                messages,
            } => {
                let fate = Fate::Released { ready_unix_ms };
                self.stage_settle(transaction, queue, (messages, fate), at);
            }
            Record::Depart {
                queue,
                transaction,
                reason,
                messages,
            } => {
                let fate = Fate::SentOn(reason);
                self.stage_settle(transaction, queue, (messages, fate), at);
            }
            _ => unreachable!("no decision stages {:?}", record.kind()),
        }
    }

    fn stage_settle(
        &mut self,
        transaction: u64,
        id: QueueId,
        (messages, fate): (IdList<'_>, Fate),
        at: Place,
    ) {
        let messages: Box<[u64]> = messages.messages().map(|id| id.0).collect();
        let mut queue = self.queues.open(id);
        for message in &messages {
            self.transactions
                .settling
                .insert((id.0, *message), transaction);
            let Some((queue, dirty)) = &mut queue else {
                continue;
            };
            let slot = queue.delivered.find(*message).copied();
            if let Some(slot) = slot
                && let Holder::Consumer { index, .. } = slot.holder
            {
                self.consumers.stage(index, slot.entry.size_bytes);
                queue.welcome(index, &mut self.consumers);
                queue.touch(dirty);
            }
        }
        let is_journaled = matches!(at, Place::Journal(_));
        let staged = self.transactions.add(transaction, is_journaled);
        let queue = id.0;
        staged.steps.push(Step::Settle {
            queue,
            messages,
            fate,
        });
        if let Place::Journal(location) = at {
            staged.pins.push(location.segment());
            self.bodies.segments.add(location.segment(), 0);
        }
    }

    #[cold]
    pub(super) fn transact(
        &mut self,
        transaction: u64,
        state: TransactionState,
        at: Place,
        effects: &mut Vec<Effect>,
    ) {
        match state {
            TransactionState::Prepared => self.prepare(transaction, at),
            TransactionState::Committed => self.end(transaction, true, effects),
            TransactionState::RolledBack => self.end(transaction, false, effects),
            TransactionState::Decided => {
                self.end(transaction, true, effects);
                self.keep_decision(transaction, at);
            }
            TransactionState::Ended => {
                if let Some(segment) = self.transactions.decided.remove(&transaction) {
                    self.bodies.segments.remove(segment, 0);
                }
            }
        }
    }

    fn prepare(&mut self, transaction: u64, at: Place) {
        let Some(staged) = self.transactions.staged.get_mut(&transaction) else {
            // In a replay: what was staged is freed, so the end of it follows.
            return;
        };
        staged.is_prepared = true;
        if let Place::Journal(location) = at {
            staged.pins.push(location.segment());
            self.bodies.segments.add(location.segment(), 0);
        }
    }

    /// Panics: if the record is not in the journal (our own mistake).
    fn keep_decision(&mut self, transaction: u64, at: Place) {
        let Place::Journal(location) = at else {
            panic!("decisions are journaled");
        };
        let segment = location.segment();
        let former = self.transactions.decided.insert(transaction, segment);
        assert_eq!(former, None, "transaction {transaction} is decided twice");
        self.bodies.segments.add(segment, 0);
    }

    fn end(&mut self, transaction: u64, is_committed: bool, effects: &mut Vec<Effect>) {
        let Some(Staged { steps, pins, .. }) = self.transactions.staged.remove(&transaction) else {
            return;
        };
        for segment in pins {
            self.bodies.segments.remove(segment, 0);
        }
        for step in steps {
            if let Step::Enter { queues, .. } = &step {
                self.transactions.entered(queues);
            }
            match step {
                Step::Enter { arrival, queues } if is_committed => {
                    let arrival = arrival.arrival();
                    self.note_id(queues.first().map(|queue| QueueId(*queue)), &arrival);
                    queues
                        .iter()
                        .for_each(|queue| self.insert(&arrival, *queue, effects));
                }
                Step::Enter { arrival, queues } => {
                    queues
                        .iter()
                        .for_each(|_| self.bodies.leave(&arrival.entry, effects));
                }
                Step::Settle {
                    queue,
                    messages,
                    fate,
                } => {
                    self.unstage(transaction, QueueId(queue), &messages);
                    if is_committed {
                        self.end_settle(QueueId(queue), messages, fate, effects);
                    }
                }
            }
        }
        self.transactions.give_back_memory();
    }

    fn end_settle(
        &mut self,
        queue: QueueId,
        messages: Box<[u64]>,
        fate: Fate,
        effects: &mut Vec<Effect>,
    ) {
        let messages = messages.into_iter();
        match fate {
            Fate::Gone => self.settle(queue, messages, effects),
            Fate::Released { ready_unix_ms } => {
                self.release(queue, ready_unix_ms, messages, effects);
            }
            Fate::SentOn(reason) => self.depart(queue, reason, messages),
        }
    }

    /// Messages are no longer settled by the transaction; their consumers hold them as before.
    fn unstage(&mut self, transaction: u64, id: QueueId, messages: &[u64]) {
        let mut queue = self.queues.get_mut(id);
        for message in messages {
            let settling = &mut self.transactions.settling;
            // Given back because its consumer was gone, it may be delivered again and settled by
            // another one.
            if settling.get(&(id.0, *message)) != Some(&transaction) {
                continue;
            }
            settling.remove(&(id.0, *message));
            let slot = queue
                .as_mut()
                .and_then(|queue| queue.delivered.find(*message));
            if let Some(slot) = slot
                && let Holder::Consumer { index, .. } = slot.holder
            {
                self.consumers.unstage(index, slot.entry.size_bytes);
            }
        }
    }
}

impl Transactions {
    /// What a large one needed is not kept for good.
    fn give_back_memory(&mut self) {
        if self.settling.is_empty() {
            self.settling.shrink_to(SETTLING_KEPT);
        }
    }
}

/// Settled messages there is room for between transactions.
const SETTLING_KEPT: usize = 1024;
