//! What the records that count say about queues, without the broker's queue machine.
//!
//! Follows `docs/format.md` 6 in the small: enough to count, and to find records that contradict
//! each other so that a broker would not start on them.

use std::collections::{BTreeMap, BTreeSet};

use forebay_journal::format::{Kind, MessageFields, Record, TransactionState};
use forebay_journal::recovery::RecordSink;
use forebay_journal::{Location, Lsn};

use crate::queue::{Definition, Queue};

enum Step {
    Enter {
        message: u64,
        priority: u8,
        is_delayed: bool,
        queues: Vec<u64>,
    },
    Settle {
        queue: u64,
        messages: Vec<u64>,
    },
}

#[derive(Default)]
struct Staged {
    is_prepared: bool,
    steps: Vec<Step>,
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
    /// Messages that miss a part of their body.
    incomplete: BTreeSet<u64>,
    transactions: BTreeMap<u64, Staged>,
}

impl RecordSink for Ledger {
    fn record(&mut self, lsn: Lsn, location: Location, record: &Record<'_>) {
        self.first.get_or_insert(lsn);
        self.last = Some((lsn, location));
        *self.kinds.0.entry(record.kind()).or_default() += 1;
        self.apply(record);
    }
}

impl Ledger {
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
        let message = self.incomplete.iter().find(is_held)?;
        Some(format!(
            "message {message} is in a queue but a part of its body is missing"
        ))
    }

    fn apply(&mut self, record: &Record<'_>) {
        match *record {
            Record::EpochStart { .. } => self.end_epoch(),
            Record::Retained { .. } => {}
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
                self.queues.entry(queue.0).or_default().define(defined);
            }
            Record::QueueDelete { queue } => drop(self.queues.remove(&queue.0)),
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
            Record::Settle {
                queue,
                transaction,
                messages,
                ..
            } => {
                let messages = messages.messages().map(|message| message.0).collect();
                let queue = queue.0;
                self.stage(transaction, Step::Settle { queue, messages });
            }
            Record::Release { .. } | Record::Handout { .. } | Record::Depart { .. } => {
                self.move_messages(record);
            }
            Record::DuplicateId { .. } => {}
            Record::Transaction { transaction, state } => self.transact(transaction, state),
        }
    }

    /// Of records about messages that stay in their queue.
    fn move_messages(&mut self, record: &Record<'_>) {
        match *record {
            Record::Release {
                queue,
                ready_unix_ms,
                messages,
            } => {
                if let Some(queue) = self.queues.get_mut(&queue.0) {
                    queue.release(ready_unix_ms, messages);
                }
            }
            Record::Handout { queue, messages } => {
                if let Some(queue) = self.queues.get_mut(&queue.0) {
                    queue.hand_out(messages);
                }
            }
            Record::Depart {
                queue,
                reason,
                messages,
            } => {
                if let Some(queue) = self.queues.get_mut(&queue.0) {
                    queue.depart(reason, messages);
                }
            }
            _ => unreachable!("the caller picks the kinds"),
        }
    }

    fn enter(&mut self, fields: &MessageFields, is_delayed: bool, body: usize, queues: Vec<u64>) {
        let message = fields.message.0;
        let uploaded = self.uploads.remove(&fields.upload).unwrap_or(0);
        if uploaded + body as u64 != fields.body_size && !queues.is_empty() {
            self.incomplete.insert(message);
        }
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

    /// Does it at once, or when its transaction is committed.
    fn stage(&mut self, transaction: u64, step: Step) {
        if transaction == 0 {
            self.make_true(step);
        } else {
            self.transactions
                .entry(transaction)
                .or_default()
                .steps
                .push(step);
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
            Step::Settle { queue, messages } => {
                if let Some(queue) = self.queues.get_mut(&queue) {
                    for message in messages {
                        queue.settle(message);
                    }
                }
            }
        }
    }

    fn transact(&mut self, transaction: u64, state: TransactionState) {
        match state {
            TransactionState::Prepared => {
                self.transactions
                    .entry(transaction)
                    .or_default()
                    .is_prepared = true;
            }
            TransactionState::Ended => {}
            TransactionState::Committed | TransactionState::Decided => {
                let staged = self.transactions.remove(&transaction).unwrap_or_default();
                staged
                    .steps
                    .into_iter()
                    .for_each(|step| self.make_true(step));
            }
            TransactionState::RolledBack => {
                self.transactions.remove(&transaction);
            }
        }
    }

    /// Consumers, uploads and undecided transactions of the epoch before are no more; what was
    /// delivered is ready again, but for what prepared transactions settle.
    fn end_epoch(&mut self) {
        self.uploads.clear();
        self.transactions.retain(|_, staged| staged.is_prepared);
        let mut locked = BTreeSet::new();
        for step in self.transactions.values().flat_map(|staged| &staged.steps) {
            if let Step::Settle { queue, messages } = step {
                locked.extend(messages.iter().map(|message| (*queue, *message)));
            }
        }
        for (id, queue) in &mut self.queues {
            queue.restart(|message| locked.contains(&(*id, message)));
        }
    }
}
