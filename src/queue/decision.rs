//! What `decide` answers with: facts, refusals, and the effects of facts that came true.

use core::fmt;
use core::ops::Range;

use forebay_journal::format::{
    Annotations, Departure, IdList, MessageFields, Outcome, Parts, QueueFlags, Record, Routing,
    TransactionState,
};
use forebay_journal::{MessageId, QueueId};
use zerocopy::little_endian::U64;

use super::consumer::{ConsumerId, Settlement};
use super::destination::Destination;
use super::entry::Place;
use super::gathering::GatheringId;
use super::level::Front;
use super::lifetime::Lifetime;
use super::said::Said;

/// One thing that was decided, ready for [`super::Machine::evolve`].
///
/// Journaled ones are appended first, which gives their place. The others are the same record
/// values and never reach a disk. A record read back is a fact by `Fact::from`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fact<'a> {
    /// What happened.
    pub record: Record<'a>,
    /// Queues that take a journaled message beside those its record names: they die with the
    /// process, so no record names them.
    pub volatile_queues: IdList<'a>,
    /// Id of a message by which its sender, sending again, is recognized until the process ends;
    /// empty for none.
    pub volatile_id: &'a [u8],
    /// Whether a restart must know it.
    pub is_journaled: bool,
}

impl<'a> From<Record<'a>> for Fact<'a> {
    fn from(record: Record<'a>) -> Self {
        Self {
            record,
            volatile_queues: IdList(&[]),
            volatile_id: &[],
            is_journaled: true,
        }
    }
}

/// What is to be done after a fact is durable (or at once, if it is not journaled).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message to a consumer.
    Deliver {
        /// The connection, as named at attach.
        link: u64,
        /// The consumer; it may be gone when the effect is released.
        consumer: ConsumerId,
        /// The subscription, as named at attach.
        consumer_tag: u64,
        /// Name of this delivery; rises by one per delivery of the consumer, from 1.
        delivery_tag: u64,
        /// The queue it comes from.
        queue: QueueId,
        /// The message.
        message: MessageId,
        /// Where its record lies.
        place: Place,
        /// Bytes of head and whole body; saturates.
        size_bytes: u32,
        /// How often it was delivered before; saturates.
        attempts: u16,
        /// Whether it was delivered before.
        is_redelivered: bool,
        /// Whether the first part of its body lies in fragments
        /// ([`super::Machine::fragments`]).
        is_fragmented: bool,
        /// Whether its group begins with it, as far as this consumer is concerned.
        is_group_first: bool,
        /// Who settles it.
        settlement: Settlement,
    },
    /// The queue of a consumer was deleted and the consumer with it.
    Detached {
        /// The connection, as named at attach.
        link: u64,
        /// The consumer that was.
        consumer: ConsumerId,
        /// The subscription, as named at attach.
        consumer_tag: u64,
    },
    /// A new queue is one of those that a gathering takes from: [`super::Machine::join`] is due.
    Matched {
        /// The connection, as named when it began.
        link: u64,
        /// The gathering.
        gathering: GatheringId,
        /// The queue.
        queue: QueueId,
    },
    /// A message is ready in a queue that is followed ([`super::Machine::set_followed`]).
    Arrived {
        /// The queue.
        queue: QueueId,
        /// The message.
        message: MessageId,
    },
    /// One more queue holds the volatile body in this slot.
    Hold {
        /// The slot.
        slot: u32,
    },
    /// One queue let go of the volatile body in this slot. A body that went to k queues is
    /// forgotten k times: the shard counts.
    Forget {
        /// The slot.
        slot: u32,
    },
}

/// Why a command was not carried out. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The shard has as many consumers as it may.
    ConsumersFull {
        /// Most consumers.
        max: usize,
    },
    /// Addresses, queue names and selectors are shorter.
    NameTooLong {
        /// Bytes asked for.
        size: usize,
        /// Most bytes.
        max: usize,
    },
    /// Somebody is attached to the queue.
    QueueInUse,
    /// The shard has as many queues as it may.
    QueuesFull {
        /// Most queues.
        max: usize,
    },
    /// Somebody is attached to the shared subscription, which has another topic or selector.
    SubscriptionDiffers,
    /// Somebody is attached to the subscription.
    SubscriptionInUse,
    /// The subscription of that name is shared, or is not, and the other kind was asked for.
    SubscriptionKind {
        /// Whether the one that is there is shared.
        is_shared: bool,
    },
    /// The address has no queue, and its policy makes none.
    UnknownAddress,
    /// The consumer is not, or no more, attached.
    UnknownConsumer,
    /// The delivery never was, or is settled.
    UnknownDelivery,
    /// The destination has lost its last queue: resolve the address again.
    UnknownDestination,
    /// The queue is not, or no more, there.
    UnknownQueue,
    /// Nothing is staged in the transaction.
    UnknownTransaction,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsumersFull { max } => write!(f, "the limit of {max} consumers is reached"),
            Self::NameTooLong { size, max } => {
                write!(f, "a name of {size} bytes is longer than {max}")
            }
            Self::QueueInUse => write!(f, "somebody consumes from the queue"),
            Self::QueuesFull { max } => write!(f, "the limit of {max} queues is reached"),
            Self::SubscriptionDiffers => write!(
                f,
                "somebody is attached to the shared subscription of that name, which has another \
                 topic or selector"
            ),
            Self::SubscriptionInUse => {
                write!(f, "somebody is attached to the subscription of that name")
            }
            Self::SubscriptionKind { is_shared: true } => {
                write!(f, "the subscription of that name is a shared one")
            }
            Self::SubscriptionKind { is_shared: false } => {
                write!(f, "the subscription of that name is not a shared one")
            }
            Self::UnknownAddress => write!(
                f,
                "there is no such queue, and none is made when somebody names it (auto_create_queues)"
            ),
            Self::UnknownConsumer => write!(f, "no such consumer"),
            Self::UnknownDelivery => write!(f, "no such delivery waits for its settlement"),
            Self::UnknownDestination => write!(f, "no queue is bound to the address"),
            Self::UnknownQueue => write!(f, "no such queue"),
            Self::UnknownTransaction => write!(f, "no such transaction"),
        }
    }
}

impl core::error::Error for Refused {}

/// Facts decided by one command. Owned by the caller and used again and again.
#[derive(Debug, Default)]
pub struct Decision {
    pub(super) steps: Vec<Step>,
    ids: Vec<U64>,
    names: Vec<u8>,
    pub(super) checkpoint: Said,
    /// The transaction in which its messages are settled or given back; zero for none.
    pub(super) transaction: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Deliver {
        queue: QueueId,
        front: Front,
        is_journaled: bool,
    },
    Define {
        definition: Definition,
        address: Range<usize>,
        name: Range<usize>,
        filter: Range<usize>,
    },
    Delete {
        queue: QueueId,
        is_journaled: bool,
    },
    RepeatId {
        message: MessageId,
        routing: Routing,
        address: Range<usize>,
        id: Range<usize>,
    },
    Messages {
        queue: QueueId,
        verb: Verb,
        ids: Range<usize>,
        is_journaled: bool,
    },
    Share {
        queue: QueueId,
        ids: Range<usize>,
        is_journaled: bool,
    },
    Transact {
        transaction: u64,
        state: TransactionState,
        is_journaled: bool,
    },
    /// What is said in a checkpoint, by its place among that.
    Checkpoint(usize),
}

/// Fixed part of a queue's definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub(super) queue: QueueId,
    pub(super) routing: Routing,
    pub(super) flags: QueueFlags,
    pub(super) is_journaled: bool,
}

impl Definition {
    /// Shape: `texts` are address, name and filter.
    const fn record<'a>(&self, texts: [&'a [u8]; 3]) -> Record<'a> {
        let [address, name, filter] = texts;
        Record::QueueDefine {
            queue: self.queue,
            routing: self.routing,
            flags: self.flags,
            address,
            name,
            filter,
        }
    }
}

/// What happens to a set of messages of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Settle(Outcome),
    Release { ready_unix_ms: u64 },
    Depart(Departure),
    HandOut,
}

impl Verb {
    fn record<'a>(self, queue: QueueId, transaction: u64, messages: IdList<'a>) -> Record<'a> {
        match self {
            Self::Settle(outcome) => Record::Settle {
                queue,
                transaction,
                outcome,
                messages,
            },
            Self::Release { ready_unix_ms } => Record::Release {
                queue,
                transaction,
                ready_unix_ms,
                messages,
            },
            Self::Depart(reason) => Record::Depart {
                queue,
                transaction,
                reason,
                messages,
            },
            Self::HandOut => Record::Handout { queue, messages },
        }
    }
}

impl Front {
    const fn record(&self, queue: QueueId) -> Record<'static> {
        Record::Delivery {
            queue,
            priority: self.priority,
            first: MessageId(self.first),
            last: MessageId(self.last),
        }
    }
}

/// Most ids in one record: 32 KiB, so that it fits the block under way more often than not.
pub(super) const IDS_PER_RECORD_MAX: usize = 4096;

impl Decision {
    /// Nothing decided yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Messages that the facts settle, release, send on or hand out one by one.
    pub fn message_count(&self) -> u64 {
        self.ids.len() as u64
    }

    /// The facts, in the order in which they have to come true.
    pub fn facts(&self) -> impl ExactSizeIterator<Item = Fact<'_>> + '_ {
        self.steps.iter().map(|step| self.fact(step))
    }

    fn fact(&self, step: &Step) -> Fact<'_> {
        let ids = |range: &Range<usize>| IdList(&self.ids[range.clone()]);
        let (record, is_journaled) = match step {
            Step::Deliver {
                queue,
                front,
                is_journaled,
            } => (front.record(*queue), *is_journaled),
            Step::Define {
                definition,
                address,
                name,
                filter,
            } => {
                let texts = [address, name, filter].map(|text| &self.names[text.clone()]);
                (definition.record(texts), definition.is_journaled)
            }
            &Step::Delete {
                queue,
                is_journaled,
            } => (Record::QueueDelete { queue }, is_journaled),
            Step::RepeatId {
                message,
                routing,
                address,
                id,
            } => (
                Record::DuplicateId {
                    message: *message,
                    routing: *routing,
                    address: &self.names[address.clone()],
                    id: &self.names[id.clone()],
                },
                true,
            ),
            Step::Messages {
                queue,
                verb,
                ids: range,
                is_journaled,
            } => (
                verb.record(*queue, self.transaction, ids(range)),
                *is_journaled,
            ),
            Step::Share {
                queue,
                ids: range,
                is_journaled,
            } => {
                let (queue, pairs) = (*queue, ids(range));
                (Record::Share { queue, pairs }, *is_journaled)
            }
            &Step::Transact {
                transaction,
                state,
                is_journaled,
            } => (Record::Transaction { transaction, state }, is_journaled),
            Step::Checkpoint(at) => (self.checkpoint.record(*at), true),
        };
        Fact {
            record,
            volatile_queues: IdList(&[]),
            volatile_id: &[],
            is_journaled,
        }
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.ids.clear();
        self.names.clear();
        self.checkpoint.clear();
        self.transaction = 0;
    }

    pub(super) fn transact(
        &mut self,
        transaction: u64,
        state: TransactionState,
        is_journaled: bool,
    ) {
        self.steps.push(Step::Transact {
            transaction,
            state,
            is_journaled,
        });
    }

    pub(super) fn define(
        &mut self,
        definition: Definition,
        address: &[u8],
        name: &[u8],
        filter: &[u8],
    ) {
        let [address, name, filter] = [address, name, filter].map(|text| {
            let start = self.names.len();
            self.names.extend_from_slice(text);
            start..self.names.len()
        });
        self.steps.push(Step::Define {
            definition,
            address,
            name,
            filter,
        });
    }

    pub(super) fn repeat_id(&mut self, destination: &Destination, message: MessageId, id: &[u8]) {
        let start = self.names.len();
        self.names.extend_from_slice(&destination.address);
        let middle = self.names.len();
        self.names.extend_from_slice(id);
        self.steps.push(Step::RepeatId {
            message,
            routing: destination.routing,
            address: start..middle,
            id: middle..self.names.len(),
        });
    }

    pub(super) fn delete(&mut self, queue: QueueId, is_journaled: bool) {
        self.steps.push(Step::Delete {
            queue,
            is_journaled,
        });
    }

    pub(super) fn deliver(&mut self, queue: QueueId, front: Front, is_journaled: bool) {
        self.steps.push(Step::Deliver {
            queue,
            front,
            is_journaled,
        });
    }

    /// Adds a record that these messages, each with the queue that has it, are in one more queue;
    /// none for no messages.
    ///
    /// Shape: no more than a record holds.
    pub(super) fn share(
        &mut self,
        queue: QueueId,
        is_journaled: bool,
        messages: impl Iterator<Item = (QueueId, MessageId)>,
    ) {
        let start = self.ids.len();
        let pairs = messages.flat_map(|(source, message)| [source.0, message.0]);
        self.ids.extend(pairs.map(U64::new));
        let ids = start..self.ids.len();
        if !ids.is_empty() {
            self.steps.push(Step::Share {
                queue,
                ids,
                is_journaled,
            });
        }
    }

    /// Adds as many records as the messages need, none for no messages.
    pub(super) fn messages(
        &mut self,
        queue: QueueId,
        verb: Verb,
        is_journaled: bool,
        messages: impl Iterator<Item = u64>,
    ) {
        let mut start = self.ids.len();
        self.ids.extend(messages.map(U64::new));
        while start < self.ids.len() {
            let end = self.ids.len().min(start + IDS_PER_RECORD_MAX);
            let ids = start..end;
            self.steps.push(Step::Messages {
                queue,
                verb,
                ids,
                is_journaled,
            });
            start = end;
        }
    }
}

/// Where a message goes: the answer of [`super::Machine::decide_enqueue`]. Owned by the caller
/// and used again and again.
#[derive(Debug, Default)]
pub struct Routed {
    pub(super) message: MessageId,
    pub(super) queues: Vec<U64>,
    pub(super) durable_count: usize,
    pub(super) is_journaled: bool,
    pub(super) lifetime: Lifetime,
    pub(super) has_matching: bool,
    /// Whether its record has to say its address, since a queue may get it that does not.
    pub(super) says_address: bool,
}

impl Routed {
    /// Nothing routed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message of this name, with no queue yet.
    pub(super) fn start(&mut self, lifetime: &Lifetime, message: MessageId) {
        self.queues.clear();
        self.durable_count = 0;
        self.is_journaled = false;
        self.has_matching = false;
        self.says_address = false;
        self.lifetime = *lifetime;
        self.message = message;
    }

    /// Whether its record has to say its address: queues bound to a pattern take it, or may get it
    /// later.
    pub const fn says_address(&self) -> bool {
        self.has_matching || self.says_address
    }

    /// Whether queues bound to a pattern may take it.
    pub const fn has_matching(&self) -> bool {
        self.has_matching
    }

    /// The name the message gets.
    pub const fn message(&self) -> MessageId {
        self.message
    }

    /// Whether it has to be journaled: it is persistent and at least one durable queue takes it.
    pub const fn is_journaled(&self) -> bool {
        self.is_journaled
    }

    /// Queues that take it. Zero: it goes nowhere, there is no fact, and it is confirmed at once.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The queues that take it.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.queues.iter().map(|queue| QueueId(queue.get()))
    }

    /// When it expires, in wall-clock milliseconds; zero for never. `fields`: see [`Self::fact`].
    pub fn expires_unix_ms(&self, fields: &MessageFields) -> u64 {
        self.lifetime
            .expires_unix_ms(fields.expires_unix_ms, fields.timestamp_unix_ms)
    }

    /// Leaves out the queues that do not want it.
    ///
    /// Cost: O(queues that take it).
    pub fn retain(&mut self, mut is_wanted: impl FnMut(QueueId) -> bool) {
        let (mut at, mut durable_count) = (0, 0);
        let end = self.durable_count;
        self.queues.retain(|queue| {
            let is_wanted = is_wanted(QueueId(queue.get()));
            durable_count += usize::from(is_wanted && at < end);
            at += 1;
            is_wanted
        });
        self.durable_count = durable_count;
        self.is_journaled &= durable_count > 0;
    }

    /// Journals it although no durable queue takes it: the beginning of its body is in the journal
    /// already.
    pub const fn journal_anyway(&mut self) {
        self.is_journaled = true;
    }

    /// The fact that the message is in its queues.
    ///
    /// Shape: `fields.message` is overwritten, and `fields.expires_unix_ms`, which says what the
    /// sender asked for, by what the policy makes of it at the time that the message came,
    /// `fields.timestamp_unix_ms`. Whether that is what the head says is the caller's to tell, as
    /// is the rest of the message.
    pub fn fact<'a>(
        &'a self,
        fields: MessageFields,
        annotations: Annotations<'a>,
        head: Parts<'a>,
        body: Parts<'a>,
    ) -> Fact<'a> {
        let split = if self.is_journaled {
            self.durable_count
        } else {
            self.queues.len()
        };
        let (named, volatile) = self.queues.split_at(split);
        let expires_unix_ms = self.expires_unix_ms(&fields);
        Fact {
            record: Record::Message {
                fields: MessageFields {
                    message: self.message,
                    expires_unix_ms,
                    ..fields
                },
                annotations,
                queues: IdList(named),
                head,
                body,
            },
            volatile_queues: IdList(volatile),
            volatile_id: &[],
            is_journaled: self.is_journaled,
        }
    }
}
