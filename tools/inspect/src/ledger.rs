//! What the records that count say about queues, without the broker's queue machine.
//!
//! Follows `docs/format.md` 6 in the small: enough to count, and to find records that contradict
//! each other so that a broker would not start on them.

use std::collections::{BTreeMap, BTreeSet};

use forebay_journal::format::{
    Block, CheckpointEntry, CheckpointFields, CheckpointFragment, Departure, IdList, Kind,
    MessageFields, Outcome, Record, Standings, Stands, TransactionState,
};
use forebay_journal::recovery::RecordSink;
use forebay_journal::{Location, Lsn, SegmentId};
use roaring::RoaringTreemap;

use crate::named::Named;
use crate::queue::{Definition, Queue};

/// Which fragments a message of its own record has is not known: a checkpoint has to name all.
const FROM_THE_FIRST: u32 = u32::MAX;

enum Step {
    Enter {
        message: u64,
        priority: u8,
        is_delayed: bool,
        queues: Vec<u64>,
    },
    Leave {
        queue: u64,
        how: Leaving,
        messages: Vec<u64>,
    },
}

/// How messages leave who holds them.
#[derive(Clone, Copy)]
enum Leaving {
    Settled(Outcome),
    Released { ready_unix_ms: u64 },
    SentOn(Departure),
}

#[derive(Default)]
struct Staged {
    is_prepared: bool,
    /// Holes in the log before it.
    holes: u64,
    steps: Vec<Step>,
}

impl Staged {
    fn messages(&self) -> impl Iterator<Item = u64> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Enter { message, .. } => Some(*message),
            Step::Leave { .. } => None,
        })
    }
}

/// How a transaction ends that only another shard can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    RolledBack,
    /// Nobody knows: records are missing.
    Unknown,
}

/// How many records of a kind.
#[derive(Debug, Default)]
pub(crate) struct Kinds(BTreeMap<Kind, u64>);

impl Kinds {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        self.0.iter().map(|(kind, count)| (*kind, *count))
    }
}

/// Takes the records that count.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) kinds: Kinds,
    pub(crate) queues: BTreeMap<u64, Queue>,
    /// First and last record.
    pub(crate) first: Option<Lsn>,
    pub(crate) last: Option<(Lsn, Location)>,
    /// When the last clean shutdown was written.
    pub(crate) stopped_unix_ms: u64,
    /// Bytes of fragments whose message did not come yet.
    uploads: BTreeMap<u64, u64>,
    /// Messages that miss a part of their body, with how many fragments a checkpoint named.
    incomplete: BTreeMap<u64, u32>,
    /// Messages whose own record came, or of which a checkpoint told.
    known: RoaringTreemap,
    /// Where checkpoints say that messages lie whose own records did not come.
    named: Named,
    /// Where a replay begins, as the last record about it says.
    replay_start: SegmentId,
    transactions: BTreeMap<u64, Staged>,
    /// Transactions that this shard decided to commit and of which others may not have heard.
    decided: BTreeSet<u64>,
    /// Messages of transactions that were rolled back.
    rolled_back: RoaringTreemap,
    /// Messages of transactions of which nobody knows the end, because records are missing.
    doubted: RoaringTreemap,
    /// Places where records are missing.
    holes: u64,
    has_uploads: bool,
    /// Messages that were written anew, and the record that did it last.
    moved: BTreeMap<u64, Lsn>,
    /// Queues that may have messages whose records do not list them.
    takers: BTreeSet<u64>,
    /// Those messages.
    taken: RoaringTreemap,
    message_floor: u64,
    queue_floor: u64,
    /// Who left which queue and why, if that is kept.
    pub(crate) settled: Option<Settled>,
    /// Queues that were deleted, if that is kept.
    former: BTreeMap<u64, Definition>,
}

/// Messages that left their queue for good, by queue and outcome.
#[derive(Debug, Default)]
pub(crate) struct Settled(BTreeMap<(u64, Outcome), RoaringTreemap>);

impl Settled {
    /// How the message left the queue, as far as known.
    pub(crate) fn outcome(&self, queue: u64, message: u64) -> Option<Outcome> {
        let of_queue = self.0.iter().filter(|((id, _), _)| *id == queue);
        let mut found = of_queue.filter(|(_, set)| set.contains(message));
        found.next().map(|((_, outcome), _)| *outcome)
    }
}

impl RecordSink for Ledger {
    fn record(&mut self, lsn: Lsn, location: Location, record: &Record<'_>) {
        self.first.get_or_insert(lsn);
        self.last = Some((lsn, location));
        *self.kinds.0.entry(record.kind()).or_default() += 1;
        if let Record::Moved { fields, .. } = record {
            self.moved.insert(fields.message.0, lsn);
        }
        self.apply(record);
    }
}

impl Ledger {
    /// One that keeps how messages left, and what queues there were.
    pub(crate) fn remembering() -> Self {
        Self {
            settled: Some(Settled::default()),
            ..Self::default()
        }
    }

    /// Takes the sound records of a block.
    pub(crate) fn take_block(&mut self, segment: SegmentId, offset: u64, block: &Block<'_>) {
        for (lsn, record_offset, record) in block.records().flatten() {
            self.record(lsn, Location::new(segment, offset, record_offset), &record);
        }
    }

    /// Whether this record of a message is the last one: the one that counts.
    pub(crate) fn is_last(&self, message: u64, lsn: Lsn) -> bool {
        self.moved.get(&message).is_none_or(|last| *last == lsn)
    }

    /// Queues that are defined or, if that is kept, were.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = (u64, &Definition)> + '_ {
        let queues = self.queues.iter();
        let defined = queues.filter_map(|(id, queue)| Some((*id, queue.defined.as_ref()?)));
        let former = self.former.iter().map(|(id, defined)| (*id, defined));
        former.chain(defined)
    }

    /// The definition of a queue that is there or, if that is kept, was.
    pub(crate) fn definition(&self, queue: u64) -> Option<&Definition> {
        let defined = self
            .queues
            .get(&queue)
            .and_then(|queue| queue.defined.as_ref());
        defined.or_else(|| self.former.get(&queue))
    }

    /// Queues that a message may be in: those that its record lists, and those that took some of
    /// other queues.
    pub(crate) fn queues_of(&self, message: u64, listed: IdList<'_>) -> Vec<u64> {
        let mut queues: Vec<u64> = listed.queues().map(|queue| queue.0).collect();
        if self.taken.contains(message) {
            let mut known = queues.clone();
            known.sort_unstable();
            let takers = self.takers.iter().copied();
            queues.extend(takers.filter(|taker| known.binary_search(taker).is_err()));
        }
        queues
    }

    /// Segments that no replay reads and that hold bodies of messages that are alive, with those.
    pub(crate) fn needed(&self) -> Named {
        self.named.needed(&self.held_names(), self.replay_start)
    }

    /// Records taken.
    pub(crate) fn records(&self) -> u64 {
        self.kinds.0.values().sum()
    }

    /// Undecided and prepared transactions.
    pub(crate) fn transactions(&self) -> (u64, u64) {
        let prepared = self
            .transactions
            .values()
            .filter(|staged| staged.is_prepared);
        let prepared = prepared.count() as u64;
        (self.transactions.len() as u64 - prepared, prepared)
    }

    /// Records are missing here.
    pub(crate) fn note_hole(&mut self) {
        self.holes += 1;
    }

    /// Of these messages a part of the body is lost.
    pub(crate) fn note_lost(&mut self, messages: &RoaringTreemap) {
        let lost = messages.iter().map(|message| (message, FROM_THE_FIRST));
        self.incomplete.extend(lost);
    }

    /// Transactions that wait for the word of another shard.
    pub(crate) fn prepared(&self) -> Vec<u64> {
        let staged = self.transactions.iter();
        let prepared = staged.filter(|(_, staged)| staged.is_prepared);
        prepared.map(|(number, _)| *number).collect()
    }

    /// Whether this shard decided to commit it.
    pub(crate) fn has_decided(&self, transaction: u64) -> bool {
        self.decided.contains(&transaction)
    }

    /// Whether records are missing.
    pub(crate) fn has_holes(&self) -> bool {
        self.holes > 0
    }

    /// Ends a transaction as its coordinator says.
    pub(crate) fn end_transaction(&mut self, transaction: u64, end: End) {
        match end {
            End::Committed => self.transact(transaction, TransactionState::Committed),
            End::RolledBack => self.transact(transaction, TransactionState::RolledBack),
            End::Unknown => {
                let staged = self.transactions.remove(&transaction).unwrap_or_default();
                self.doubted.extend(staged.messages());
            }
        }
    }

    /// Names that were never given out: of messages, of queues.
    pub(crate) fn floors(&self) -> (u64, u64) {
        (self.message_floor, self.queue_floor)
    }

    /// Whether there are bodies in parts.
    pub(crate) fn has_uploads(&self) -> bool {
        self.has_uploads
    }

    /// Messages that are in a queue.
    pub(crate) fn held(&self) -> u64 {
        self.held_names().len()
    }

    fn held_names(&self) -> RoaringTreemap {
        let mut held = RoaringTreemap::new();
        let queues = self.queues.values();
        queues.for_each(|queue| queue.add_to(&mut held));
        held
    }

    /// Whether it never came, because its transaction was rolled back.
    pub(crate) fn was_rolled_back(&self, message: u64) -> bool {
        self.rolled_back.contains(message)
    }

    /// Whether its transaction may have been committed in a record that is missing.
    pub(crate) fn is_doubted(&self, message: u64) -> bool {
        self.doubted.contains(message)
    }

    /// Whether anything was heard of it.
    pub(crate) fn knows(&self, message: u64) -> bool {
        self.known.contains(message)
    }

    /// Whether a part of its body is missing.
    pub(crate) fn is_incomplete(&self, message: u64) -> bool {
        self.incomplete.contains_key(&message)
    }

    /// Uploads whose message did not come, and their bytes.
    pub(crate) fn uploads(&self) -> (u64, u64) {
        (self.uploads.len() as u64, self.uploads.values().sum())
    }

    /// How the records contradict each other, if they do.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let undefined = self
            .queues
            .iter()
            .find(|(_, queue)| queue.defined.is_none());
        if let Some((queue, _)) = undefined {
            return Some(format!("queue {queue} has messages but is not defined"));
        }
        let is_held = |message: &&u64| self.queues.values().any(|queue| queue.holds(**message));
        let message = self.incomplete.keys().find(is_held)?;
        Some(format!(
            "message {message} is in a queue but a part of its body is missing"
        ))
    }

    fn apply(&mut self, record: &Record<'_>) {
        match *record {
            Record::EpochStart { .. }
            | Record::Retained { .. }
            | Record::CleanShutdown { .. }
            | Record::QueueDefine { .. }
            | Record::QueueDelete { .. } => self.apply_frame(record),
            Record::Message {
                fields,
                annotations,
                queues,
                body,
                ..
            } => {
                let queues = queues.queues().map(|queue| queue.0).collect();
                let is_delayed = annotations.deliver_unix_ms != 0;
                self.enter(&fields, is_delayed, body.size(), queues);
            }
            Record::Fragment { upload, body, .. } => {
                self.has_uploads = true;
                self.raise_floors(upload + 1, 0);
                *self.uploads.entry(upload).or_default() += body.size() as u64;
            }
            Record::UploadAbandoned { upload } => drop(self.uploads.remove(&upload)),
            Record::Delivery {
                queue,
                priority,
                first,
                last,
            } => {
                if let Some(queue) = self.queues.get_mut(&queue.0) {
                    queue.deliver(priority, first.0, last.0);
                }
            }
            Record::Settle { .. } | Record::Release { .. } | Record::Depart { .. } => {
                self.leave(record);
            }
            Record::Handout { queue, messages } => {
                if let Some(queue) = self.queues.get_mut(&queue.0) {
                    queue.hand_out(messages);
                }
            }
            Record::Share { queue, pairs } => self.share(queue.0, pairs),
            Record::Moved {
                fields,
                queues,
                standings,
                body,
                ..
            } => self.move_message(&fields, body.size(), queues, standings),
            Record::DuplicateId { message, .. } => self.raise_floors(message.0 + 1, 0),
            Record::Transaction { transaction, state } => self.transact(transaction, state),
            Record::Checkpoint { queue, entries, .. } => self.restore_entries(queue.0, entries),
            Record::CheckpointMessage {
                queue,
                ref entry,
                ref fields,
                fragments,
                ..
            } => self.restore_message(queue.0, entry, fields, fragments),
        }
    }

    /// Of records about the journal itself and about which queues there are.
    fn apply_frame(&mut self, record: &Record<'_>) {
        match *record {
            Record::EpochStart {
                message_floor,
                queue_floor,
                oldest_segment,
                ..
            } => {
                self.end_epoch();
                self.replay_start = self.replay_start.max(oldest_segment);
                self.raise_floors(message_floor.0, queue_floor.0);
            }
            Record::Retained {
                message_floor,
                queue_floor,
                oldest_segment,
            } => {
                self.replay_start = self.replay_start.max(oldest_segment);
                self.raise_floors(message_floor.0, queue_floor.0);
            }
            Record::CleanShutdown { unix_ms } => self.stopped_unix_ms = unix_ms,
            Record::QueueDefine {
                queue,
                routing,
                flags,
                address,
                name,
                filter,
            } => {
                let defined = Definition {
                    address: address.to_vec(),
                    name: name.to_vec(),
                    filter: filter.to_vec(),
                    routing,
                    flags,
                };
                self.raise_floors(0, queue.0 + 1);
                self.queues.entry(queue.0).or_default().define(defined);
            }
            Record::QueueDelete { queue } => {
                let former = self
                    .queues
                    .remove(&queue.0)
                    .and_then(|former| former.defined);
                if let (Some(_), Some(former)) = (&self.settled, former) {
                    self.former.insert(queue.0, former);
                }
            }
            _ => unreachable!("the caller picks the kinds"),
        }
    }

    /// Of records about messages that leave who holds them.
    fn leave(&mut self, record: &Record<'_>) {
        let (queue, transaction, messages, how) = match *record {
            Record::Settle {
                queue,
                transaction,
                outcome,
                messages,
            } => (queue, transaction, messages, Leaving::Settled(outcome)),
            Record::Release {
                queue,
                transaction,
                ready_unix_ms,
                messages,
            } => {
                let how = Leaving::Released { ready_unix_ms };
                (queue, transaction, messages, how)
            }
            Record::Depart {
                queue,
                transaction,
                reason,
                messages,
            } => (queue, transaction, messages, Leaving::SentOn(reason)),
            _ => unreachable!("the caller picks the kinds"),
        };
        let messages = messages.messages().map(|message| message.0).collect();
        let queue = queue.0;
        let step = Step::Leave {
            queue,
            how,
            messages,
        };
        self.stage(transaction, step);
    }

    /// Messages that another queue has ready are in this one, too.
    fn share(&mut self, queue: u64, pairs: IdList<'_>) {
        let ready = pairs.pairs().filter_map(|(source, message)| {
            let source = self.queues.get(&source.0)?;
            let priority = source.ready_priority(message.0)?;
            Some((message.0, priority))
        });
        let shared: Vec<_> = ready.collect();
        // Its definition may come further on, as that of a message's queue.
        let taker = self.queues.entry(queue).or_default();
        self.takers.insert(queue);
        for (message, priority) in shared {
            taker.share(message, priority);
            self.taken.insert(message);
        }
    }

    /// A checkpoint names messages that are ready and plain.
    fn restore_entries(&mut self, queue: u64, entries: &[CheckpointEntry]) {
        for entry in entries {
            self.restore(queue, entry, Stands::Ready);
        }
    }

    /// A checkpoint names one message, with all that is known of it.
    fn restore_message(
        &mut self,
        queue: u64,
        entry: &CheckpointEntry,
        fields: &CheckpointFields,
        fragments: &[CheckpointFragment],
    ) {
        let is_new = self.restore(queue, entry, fields.state);
        if !fields.is_shared {
            return;
        }
        let message = entry.message().0;
        self.takers.insert(queue);
        self.taken.insert(message);
        if is_new {
            self.incomplete.insert(message, 0);
        }
        let Some(found) = self.incomplete.get_mut(&message) else {
            return;
        };
        if fields.fragments_before == 0 {
            *found = 0;
        }
        if *found == fields.fragments_before {
            *found += fragments.len() as u32;
            self.has_uploads |= !fragments.is_empty();
            for part in fragments {
                self.named.put_part(part.location(), message);
            }
        }
        if *found == fields.fragments_total {
            self.incomplete.remove(&message);
        }
    }

    /// Puts a message where a checkpoint says it is; whether it is the first that is heard of it.
    fn restore(&mut self, queue: u64, entry: &CheckpointEntry, state: Stands) -> bool {
        let message = entry.message().0;
        self.raise_floors(message + 1, 0);
        let held = self.queues.entry(queue).or_default();
        held.restore(message, (entry.priority(), entry.attempts()), state);
        let is_new = self.known.insert(message);
        if is_new {
            self.named.put_own(entry.location().segment(), message);
        }
        is_new
    }

    fn enter(&mut self, fields: &MessageFields, is_delayed: bool, body: usize, queues: Vec<u64>) {
        let message = fields.message.0;
        self.raise_floors(message + 1, 0);
        let uploaded = self.uploads.remove(&fields.upload).unwrap_or(0);
        if uploaded + body as u64 != fields.body_size && !queues.is_empty() {
            self.incomplete.insert(message, FROM_THE_FIRST);
        }
        self.known.insert(message);
        // A definition may come further on, repeated, because its first was freed.
        for queue in &queues {
            self.queues.entry(*queue).or_default();
        }
        self.stage(
            fields.transaction,
            Step::Enter {
                message,
                priority: fields.priority,
                is_delayed,
                queues,
            },
        );
    }

    /// A message is written anew: where it is not known, it is in its queues from here on.
    fn move_message(
        &mut self,
        fields: &MessageFields,
        body: usize,
        queues: IdList<'_>,
        standings: Standings<'_>,
    ) {
        let message = fields.message.0;
        self.raise_floors(message + 1, 0);
        let uploaded = self.uploads.remove(&fields.upload).unwrap_or(0);
        if uploaded + body as u64 == fields.body_size {
            self.incomplete.remove(&message);
        } else if !queues.is_empty() {
            self.incomplete.insert(message, FROM_THE_FIRST);
        }
        if !self.known.insert(message) {
            self.named.forget(message);
        }
        for (queue, standing) in queues.queues().zip(standings.iter()) {
            let queue = self.queues.entry(queue.0).or_default();
            if queue.holds(message) {
                queue.note_moved(message, standing);
            } else {
                queue.enter_as(message, fields.priority, standing);
            }
        }
    }

    /// Does it at once, or when its transaction is committed.
    fn stage(&mut self, transaction: u64, step: Step) {
        if transaction == 0 {
            self.make_true(step);
        } else {
            let holes = self.holes;
            let begin = || Staged {
                holes,
                ..Staged::default()
            };
            let staged = self.transactions.entry(transaction).or_insert_with(begin);
            staged.steps.push(step);
        }
    }

    fn make_true(&mut self, step: Step) {
        match step {
            Step::Enter {
                message,
                priority,
                is_delayed,
                queues,
            } => {
                for queue in queues {
                    if let Some(queue) = self.queues.get_mut(&queue) {
                        queue.enter(message, priority, is_delayed);
                    }
                }
            }
            Step::Leave {
                queue,
                how,
                messages,
            } => self.make_leave(queue, how, messages),
        }
    }

    fn make_leave(&mut self, id: u64, how: Leaving, messages: Vec<u64>) {
        if let (Leaving::Settled(outcome), Some(Settled(settled))) = (how, &mut self.settled) {
            let set = settled.entry((id, outcome)).or_default();
            set.extend(messages.iter().copied());
        }
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        for message in messages {
            match how {
                Leaving::Settled(_) => {
                    queue.settle(message);
                }
                Leaving::Released { ready_unix_ms } => queue.release(ready_unix_ms, message),
                Leaving::SentOn(reason) => queue.depart(reason, message),
            }
        }
    }

    fn raise_floors(&mut self, message: u64, queue: u64) {
        self.message_floor = self.message_floor.max(message);
        self.queue_floor = self.queue_floor.max(queue);
    }

    fn transact(&mut self, transaction: u64, state: TransactionState) {
        match state {
            TransactionState::Prepared => {
                self.transactions
                    .entry(transaction)
                    .or_default()
                    .is_prepared = true;
            }
            TransactionState::Ended => drop(self.decided.remove(&transaction)),
            TransactionState::Committed | TransactionState::Decided => {
                if state == TransactionState::Decided {
                    self.decided.insert(transaction);
                }
                let staged = self.transactions.remove(&transaction).unwrap_or_default();
                staged
                    .steps
                    .into_iter()
                    .for_each(|step| self.make_true(step));
            }
            TransactionState::RolledBack => {
                let staged = self.transactions.remove(&transaction).unwrap_or_default();
                self.rolled_back.extend(staged.messages());
            }
        }
    }

    /// Consumers, uploads and undecided transactions of the epoch before are no more; what was
    /// delivered is ready again, but for what prepared transactions settle.
    pub(crate) fn end_epoch(&mut self) {
        self.uploads.clear();
        let holes = self.holes;
        let (doubted, rolled_back) = (&mut self.doubted, &mut self.rolled_back);
        self.transactions.retain(|_, staged| {
            if !staged.is_prepared && staged.holes < holes {
                doubted.extend(staged.messages());
            } else if !staged.is_prepared {
                rolled_back.extend(staged.messages());
            }
            staged.is_prepared
        });
        let mut locked = BTreeSet::new();
        for step in self.transactions.values().flat_map(|staged| &staged.steps) {
            if let Step::Leave {
                queue, messages, ..
            } = step
            {
                locked.extend(messages.iter().map(|message| (*queue, *message)));
            }
        }
        for (id, queue) in &mut self.queues {
            queue.restart(|message| locked.contains(&(*id, message)));
        }
    }
}
