//! What the disk really holds of one shard, read from its durable image alone: the measure of
//! every promise. Knows nothing of the shard's own watermarks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forebay_journal::format::{Block, Checksum, Parts, Record};
use forebay_journal::storage::memory::{FileId, MemoryDisk};
use forebay_journal::{MessageId, QueueId};

use crate::ledger::Uid;

#[derive(Debug)]
struct Pending {
    file: FileId,
    offset: u64,
    size: usize,
    /// A file used again may hold an older block of the same number, of an epoch that was cut.
    identity: Checksum,
}

/// Facts of one shard that survive a power cut now.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    pending: VecDeque<Pending>,
    /// By number: name, queues, priority.
    messages: BTreeMap<u64, (Uid, Vec<u64>, u8)>,
    uids: BTreeSet<Uid>,
    /// Of messages that were written anew before anything else was known of them: how often each
    /// was delivered before, and how many deliveries were known then.
    moved: BTreeMap<u64, (usize, usize)>,
    settled: BTreeSet<u64>,
    /// Queue, priority and range; one message each where it was handed out by its number.
    deliveries: Vec<(u64, Option<u8>, u64, u64)>,
    /// By queue and message: deliveries before the records that were read.
    earlier: BTreeMap<(u64, u64), usize>,
}

impl Witness {
    /// A block is on its way to the disk.
    pub(crate) fn enter(&mut self, file: FileId, offset: u64, block: &[u8]) {
        let sealed = Block::decode(block).expect("a sealed block is sound");
        let identity = sealed.header.identity;
        let size = block.len();
        self.pending.push_back(Pending {
            file,
            offset,
            size,
            identity,
        });
    }

    /// Looks which blocks, in order, the durable image holds.
    pub(crate) fn look(&mut self, disk: &MemoryDisk) {
        while let Some(front) = self.pending.front() {
            let Ok(image) = disk.durable(front.file) else {
                return;
            };
            let from = front.offset as usize;
            let Ok(block) = Block::decode(&image[from..from + front.size]) else {
                return;
            };
            if block.header.identity != front.identity {
                return;
            }
            for record in block.records() {
                let (_, _, record) = record.expect("a sound block has sound records");
                self.record(&record);
            }
            self.pending.pop_front();
        }
    }

    /// A record counts: it lies in the durable image, and all before it.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        match record {
            Record::Message {
                fields,
                queues,
                head: Parts::One(head),
                ..
            } => {
                let uid = Uid::of_head(head).expect("every message of a run has a name");
                let queues = queues.queues().map(|queue| queue.0).collect();
                let message = (uid, queues, fields.priority);
                let former = self.messages.insert(fields.message.0, message);
                let is_new = former.is_none_or(|(of, ..)| of == uid);
                assert!(is_new, "message {} is two messages", fields.message.0);
                self.uids.insert(uid);
            }
            Record::Moved {
                fields,
                queues,
                standings,
                head: Parts::One(head),
                ..
            } => {
                let uid = Uid::of_head(head).expect("every message of a run has a name");
                if self.messages.contains_key(&fields.message.0) {
                    // A checkpoint may have named it for another of its queues alone.
                    for (queue, standing) in queues.queues().zip(standings.iter()) {
                        self.note_untold(queue, fields.message, standing.attempts.into());
                    }
                    return;
                }
                let attempts = standings.iter().map(|one| usize::from(one.attempts));
                let before = (attempts.sum(), self.deliveries.len());
                self.moved.insert(fields.message.0, before);
                let queues = queues.queues().map(|queue| queue.0).collect();
                let message = (uid, queues, fields.priority);
                self.messages.insert(fields.message.0, message);
                self.uids.insert(uid);
            }
            Record::Settle { messages, .. } => {
                self.settled.extend(messages.messages().map(|id| id.0));
            }
            Record::Delivery {
                queue: QueueId(queue),
                first: MessageId(first),
                last: MessageId(last),
                priority,
            } => self
                .deliveries
                .push((*queue, Some(*priority), *first, *last)),
            Record::Handout { queue, messages } => {
                let handed = messages.messages().map(|id| (queue.0, None, id.0, id.0));
                self.deliveries.extend(handed);
            }
            _ => {}
        }
    }

    pub(crate) fn knows(&self, message: MessageId) -> bool {
        self.messages.contains_key(&message.0)
    }

    /// A checkpoint says how often the message was delivered until then.
    pub(crate) fn note_attempts(&mut self, queue: QueueId, message: MessageId, attempts: usize) {
        let (QueueId(queue), MessageId(message)) = (queue, message);
        let Some((_, _, rank)) = self.messages.get(&message) else {
            return;
        };
        if self.moved.contains_key(&message) {
            // All is known of it.
            return;
        }
        let covers = |(of, priority, first, last): &&(u64, Option<u8>, u64, u64)| {
            *of == queue
                && priority.is_none_or(|priority| priority == *rank)
                && (*first..=*last).contains(&message)
        };
        let read = self.deliveries.iter().filter(covers).count();
        let earlier = attempts.saturating_sub(read);
        self.earlier.insert((queue, message), earlier);
    }

    /// The same of a message of which a checkpoint tells, for a queue that it did not come to.
    fn note_untold(&mut self, queue: QueueId, message: MessageId, attempts: usize) {
        let is_told = self.earlier.keys().any(|(_, one)| *one == message.0);
        if is_told && !self.earlier.contains_key(&(queue.0, message.0)) {
            self.note_attempts(queue, message, attempts);
        }
    }

    /// A record that a checkpoint names counts, wherever the reading began.
    pub(crate) fn record_named(&mut self, message: MessageId, record: &Record<'_>) {
        self.record(record);
        self.moved.remove(&message.0);
    }

    pub(crate) fn has_message(&self, uid: Uid) -> bool {
        self.uids.contains(&uid)
    }

    pub(crate) fn has_settled(&self, message: u64) -> bool {
        self.settled.contains(&message)
    }

    /// How often the message was delivered, as far as the disk knows; none if it does not hold it.
    pub(crate) fn deliveries_of(&self, message: u64) -> Option<usize> {
        let (_, queues, rank) = self.messages.get(&message)?;
        let covers = |(queue, priority, first, last): &&(u64, Option<u8>, u64, u64)| {
            queues.contains(queue)
                && priority.is_none_or(|priority| priority == *rank)
                && (*first..=*last).contains(&message)
        };
        let earlier = queues
            .iter()
            .filter_map(|queue| self.earlier.get(&(*queue, message)));
        let (before, from) = self.moved.get(&message).copied().unwrap_or_default();
        let read = self.deliveries[from..].iter().filter(covers).count();
        Some(before + read + earlier.sum::<usize>())
    }
}
