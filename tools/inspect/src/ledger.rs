//! What the records that count say about queues, without the broker's queue machine.
//!
//! Follows `docs/format.md` 6 in the small: enough to count, and to find records that contradict
//! each other so that a broker would not start on them.

use std::collections::{BTreeMap, BTreeSet};

use forebay_journal::format::{
    IdList, Kind, MessageFields, QueueFlags, Record, Routing, TransactionState,
};
use forebay_journal::recovery::RecordSink;
use forebay_journal::{Location, Lsn};

/// A queue's definition.
#[derive(Clone, Debug)]
pub(crate) struct QueueName {
    pub(crate) address: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) routing: Routing,
    pub(crate) is_auto_created: bool,
    pub(crate) is_subscription: bool,
}

impl QueueName {
    fn new(routing: Routing, flags: QueueFlags, address: &[u8], name: &[u8]) -> Self {
        Self {
            address: address.to_vec(),
            name: name.to_vec(),
            routing,
            is_auto_created: flags.is_auto_created,
            is_subscription: flags.is_subscription,
        }
    }
}

/// What counts of a message in a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    bytes: u64,
    priority: u8,
}

/// One queue: messages by name.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) defined: Option<QueueName>,
    pub(crate) ready: BTreeMap<u64, Held>,
    /// Delivered and neither settled nor released.
    pub(crate) unsettled: BTreeMap<u64, Held>,
    /// Not delivered before their time.
    pub(crate) delayed: BTreeMap<u64, Held>,
    /// On their way to another address.
    pub(crate) leaving: BTreeMap<u64, Held>,
}

impl Queue {
    pub(crate) fn bytes(&self) -> u64 {
        let all = self.sides().into_iter().flat_map(BTreeMap::values);
        all.map(|held| held.bytes).sum()
    }

    fn sides(&self) -> [&BTreeMap<u64, Held>; 4] {
        [&self.ready, &self.unsettled, &self.delayed, &self.leaving]
    }

    fn holds(&self, message: u64) -> bool {
        self.sides().iter().any(|side| side.contains_key(&message))
    }

    fn take(&mut self, message: u64) -> Option<Held> {
        let sides = [
            &mut self.ready,
            &mut self.unsettled,
            &mut self.delayed,
            &mut self.leaving,
        ];
        sides.into_iter().find_map(|side| side.remove(&message))
    }

    fn hand_out(&mut self, messages: IdList<'_>) {
        let named = messages.messages().map(|message| message.0);
        let named = named.filter_map(|one| self.ready.remove_entry(&one));
        self.unsettled.extend(named);
    }

    fn depart(&mut self, messages: Vec<u64>) {
        for message in messages {
            let held = self.take(message);
            self.leaving.extend(held.map(|held| (message, held)));
        }
    }

    fn release(&mut self, is_delayed: bool, messages: Vec<u64>) {
        for message in messages {
            let held = self.unsettled.remove(&message);
            let held = held.or_else(|| self.delayed.remove(&message));
            let side = if is_delayed {
                &mut self.delayed
            } else {
                &mut self.ready
            };
            side.extend(held.map(|held| (message, held)));
        }
    }
}

enum Step {
    Enter {
        message: u64,
        held: Held,
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
    Settled,
    Released { is_delayed: bool },
    SentOn,
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
                ..
            } => {
                let defined = QueueName::new(routing, flags, address, name);
                self.queues.entry(queue.0).or_default().defined = Some(defined);
            }
            Record::QueueDelete { queue } => drop(self.queues.remove(&queue.0)),
            Record::Message {
                fields,
                annotations,
                queues,
                head,
                body,
            } => {
                let queues = queues.queues().map(|queue| queue.0).collect();
                let is_delayed = annotations.deliver_unix_ms != 0;
                self.enter(&fields, is_delayed, [head.size(), body.size()], queues);
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
            } => self.deliver(queue.0, priority, first.0, last.0),
            Record::Settle { .. } | Record::Release { .. } | Record::Depart { .. } => {
                self.leave(record);
            }
            Record::Handout { queue, messages } => {
                if let Some(queue) = self.queues.get_mut(&queue.0) {
                    queue.hand_out(messages);
                }
            }
            Record::Share { queue, pairs } => self.share(queue.0, pairs),
            Record::DuplicateId { .. } => {}
            Record::Transaction { transaction, state } => self.transact(transaction, state),
        }
    }

    fn share(&mut self, queue: u64, pairs: IdList<'_>) {
        let ready = pairs.pairs().filter_map(|(source, message)| {
            let source = self.queues.get(&source.0)?;
            Some((message.0, *source.ready.get(&message.0)?))
        });
        let shared: Vec<_> = ready.collect();
        if !shared.is_empty() {
            // Its definition may come further on, as that of a message's queue.
            self.queues.entry(queue).or_default().ready.extend(shared);
        }
    }

    /// Of records about messages that leave who holds them.
    fn leave(&mut self, record: &Record<'_>) {
        let (queue, transaction, messages, how) = match *record {
            Record::Settle {
                queue,
                transaction,
                messages,
                ..
            } => (queue, transaction, messages, Leaving::Settled),
            Record::Release {
                queue,
                transaction,
                ready_unix_ms,
                messages,
            } => {
                let is_delayed = ready_unix_ms != 0;
                (
                    queue,
                    transaction,
                    messages,
                    Leaving::Released { is_delayed },
                )
            }
            Record::Depart {
                queue,
                transaction,
                messages,
                ..
            } => (queue, transaction, messages, Leaving::SentOn),
            _ => unreachable!("the caller picks the kinds"),
        };
        let messages = messages.messages().map(|message| message.0).collect();
        let queue = queue.0;
        self.stage(
            transaction,
            Step::Leave {
                queue,
                how,
                messages,
            },
        );
    }

    fn enter(
        &mut self,
        fields: &MessageFields,
        is_delayed: bool,
        [head, body]: [usize; 2],
        queues: Vec<u64>,
    ) {
        let message = fields.message.0;
        let uploaded = self.uploads.remove(&fields.upload).unwrap_or(0);
        if uploaded + body as u64 != fields.body_size && !queues.is_empty() {
            self.incomplete.insert(message);
        }
        // A definition may come further on, repeated, because its first was freed.
        for queue in &queues {
            self.queues.entry(*queue).or_default();
        }
        let held = Held {
            bytes: (head as u64).saturating_add(fields.body_size),
            priority: fields.priority,
        };
        self.stage(
            fields.transaction,
            Step::Enter {
                message,
                held,
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
                held,
                is_delayed,
                queues,
            } => {
                for queue in queues {
                    if let Some(queue) = self.queues.get_mut(&queue) {
                        let side = if is_delayed {
                            &mut queue.delayed
                        } else {
                            &mut queue.ready
                        };
                        side.insert(message, held);
                    }
                }
            }
            Step::Leave {
                queue,
                how,
                messages,
            } => {
                let Some(queue) = self.queues.get_mut(&queue) else {
                    return;
                };
                match how {
                    Leaving::Settled => {
                        for message in messages {
                            queue.take(message);
                        }
                    }
                    Leaving::Released { is_delayed } => queue.release(is_delayed, messages),
                    Leaving::SentOn => queue.depart(messages),
                }
            }
        }
    }

    fn deliver(&mut self, queue: u64, priority: u8, first: u64, last: u64) {
        let Some(queue) = self.queues.get_mut(&queue) else {
            return;
        };
        if first > last {
            return;
        }
        let range = queue.ready.range(first..=last);
        let named = range.filter(|(_, held)| held.priority == priority);
        let named = named.map(|(message, _)| *message);
        for message in named.collect::<Vec<_>>() {
            queue.unsettled.extend(queue.ready.remove_entry(&message));
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
            if let Step::Leave {
                queue, messages, ..
            } = step
            {
                locked.extend(messages.iter().map(|message| (*queue, *message)));
            }
        }
        for (id, queue) in &mut self.queues {
            let unsettled = std::mem::take(&mut queue.unsettled);
            for (message, bytes) in unsettled {
                let side = if locked.contains(&(*id, message)) {
                    &mut queue.unsettled
                } else {
                    &mut queue.ready
                };
                side.insert(message, bytes);
            }
        }
    }
}
