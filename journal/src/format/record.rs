//! Record: one fact (`docs/format.md` 6). What the queue machine decides, as bytes.
//!
//! A record says what was *decided*, never what was asked, so that old records replay without old
//! decision code. Kinds are numbers that are never reused.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Checksum, FormatError, RECORD_SIZE_MAX};
use crate::{BlockNumber, Epoch, Lsn, MessageId, QueueId, SegmentId};

pub(super) mod checkpoint;
mod decode;
mod encode;
pub(super) mod layouts;
mod standing;
#[cfg(test)]
mod tests;

pub use checkpoint::{CheckpointEntry, CheckpointFields, CheckpointFragment};
pub use decode::RecordId;
pub(super) use decode::record_at;
pub use encode::{encode_record, encoded_size};
pub(super) use standing::LAYOUT as STANDING;
pub use standing::{Standing, StandingBytes, Standings, Stands};

/// Greatest priority of a message.
pub const PRIORITY_MAX: u8 = 9;
/// Priority of a message whose sender named none.
pub const PRIORITY_DEFAULT: u8 = 4;
/// Size of the head of every record in bytes.
pub const RECORD_HEAD_SIZE: usize = 8;

/// What a record is. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// [`Record::EpochStart`]
    EpochStart = 1,
    /// [`Record::Retained`]
    Retained = 2,
    /// [`Record::CleanShutdown`]
    CleanShutdown = 3,
    /// [`Record::QueueDefine`]
    QueueDefine = 4,
    /// [`Record::QueueDelete`]
    QueueDelete = 5,
    /// [`Record::Message`]
    Message = 6,
    /// [`Record::Fragment`]
    Fragment = 7,
    /// [`Record::UploadAbandoned`]
    UploadAbandoned = 8,
    /// [`Record::Delivery`]
    Delivery = 9,
    /// [`Record::Settle`]
    Settle = 10,
    /// [`Record::Release`]
    Release = 11,
    /// [`Record::Transaction`]
    Transaction = 12,
    /// [`Record::Handout`]
    Handout = 13,
    /// [`Record::Depart`]
    Depart = 14,
    /// [`Record::DuplicateId`]
    DuplicateId = 15,
    /// [`Record::Share`]
    Share = 16,
    /// [`Record::Moved`]
    Moved = 17,
    /// [`Record::Checkpoint`]
    Checkpoint = 18,
    /// [`Record::CheckpointMessage`]
    CheckpointMessage = 19,
}

/// How an address spreads its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Routing {
    /// Each message to one queue of the address.
    Anycast = 1,
    /// Each message to every queue of the address.
    Multicast = 2,
}

/// Properties of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QueueFlags {
    /// The queue made itself when a client named it.
    pub is_auto_created: bool,
    /// The queue is a durable subscription to its address: its name finds it, and it stays until
    /// somebody unsubscribes.
    pub is_subscription: bool,
    /// Any number of consumers may attach to the subscription, not one alone.
    pub is_shared: bool,
    /// Nothing that its own client sends goes to the subscription.
    pub is_no_local: bool,
    /// An operator paused the queue: it takes messages and hands out none.
    pub is_paused: bool,
    /// What comes into the queue is on its way to another address at once; nobody consumes from it.
    pub is_divert: bool,
    /// The queue keeps the last messages of its address for subscriptions to come; nobody consumes
    /// from it.
    pub is_retroactive: bool,
}

/// How a delivery ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// The consumer took it.
    Accepted = 1,
    /// The consumer refused it for good and it goes nowhere else.
    Rejected = 2,
    /// Its time was over.
    Expired = 3,
    /// It went to the dead-letter address, as a message of its own.
    DeadLettered = 4,
    /// An operator or a limit removed it.
    Dropped = 5,
    /// A later message with the same last-value key took its place.
    Replaced = 6,
    /// It went to another address, as a message of its own.
    Diverted = 7,
}

/// Why a message leaves its queue for another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Departure {
    /// It was delivered as often as it may.
    AttemptsExceeded = 1,
    /// A consumer refused it for good.
    Rejected = 2,
    /// Its time was over.
    Expired = 3,
    /// Its address sends what it gets on.
    Diverted = 4,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TransactionState {
    /// Promised; waits for its coordinator.
    Prepared = 1,
    /// Its records count.
    Committed = 2,
    /// Its records never were.
    RolledBack = 3,
    /// Its coordinator decided that it commits; other shards are still to hear it. In the
    /// coordinator's journal only, whose own records count from here on.
    Decided = 4,
    /// All other shards have it durable that it committed. Follows `Decided`.
    Ended = 5,
}

/// Properties of a message that a queue reads, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageFlags {
    /// The sender named the body's length (in STOMP: `content-length`, so the body is bytes).
    pub has_content_length: bool,
    /// Journaled before it is acknowledged.
    pub is_durable: bool,
    /// Its expiry is another one than its head says: that of its address counts.
    pub has_own_expiry: bool,
}

/// What a queue needs to know of some messages and not of most: absent where all is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Annotations<'a> {
    /// Wall-clock milliseconds before which it is not delivered; zero for at once.
    pub deliver_unix_ms: u64,
    /// Number of its group, the same for the same name everywhere; zero for none.
    pub group: u64,
    /// Whether its group ends with it: the next message of the name begins a new one.
    pub is_group_end: bool,
    /// Key of which a last-value queue keeps the last message alone; empty for none.
    pub last_value: &'a [u8],
    /// Id by which its sender, sending again, is recognized; empty for none.
    pub duplicate_id: &'a [u8],
    /// The address it was sent to, where a queue that takes it is bound to a pattern of addresses;
    /// empty where that of its queues says it.
    pub address: &'a [u8],
}

impl Annotations<'_> {
    /// Whether there is nothing to say.
    pub const fn is_empty(&self) -> bool {
        self.deliver_unix_ms == 0
            && self.group == 0
            && !self.is_group_end
            && self.last_value.is_empty()
            && self.duplicate_id.is_empty()
            && self.address.is_empty()
    }
}

/// Fixed fields of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageFields {
    /// Its name.
    pub message: MessageId,
    /// Transaction it belongs to; zero for none.
    pub transaction: u64,
    /// Upload whose fragments hold the first part of the body; zero for none.
    pub upload: u64,
    /// Bytes of the whole body, fragments included.
    pub body_size: u64,
    /// Wall-clock milliseconds of its arrival.
    pub timestamp_unix_ms: u64,
    /// Wall-clock milliseconds from which on it is expired; zero for never.
    pub expires_unix_ms: u64,
    /// 0 to 9; 4 is the usual.
    pub priority: u8,
    /// Encoding of head and body: 1 = STOMP 1.2 header lines and body.
    pub encoding: u8,
    /// One bit each.
    pub flags: MessageFlags,
}

/// Bytes in one or more pieces, one behind the other: a record is copied once, from where its
/// pieces lie.
#[derive(Clone, Copy, Debug)]
pub enum Parts<'a> {
    /// One piece, as read back.
    One(&'a [u8]),
    /// Several pieces, as written.
    Many(&'a [&'a [u8]]),
}

impl<'a> Parts<'a> {
    /// No bytes.
    pub const EMPTY: Self = Parts::One(&[]);

    /// Bytes in all pieces together.
    pub fn size(&self) -> usize {
        match self {
            Self::One(piece) => piece.len(),
            Self::Many(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
        }
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, many): (&[u8], &[&[u8]]) = match *self {
            Self::One(piece) => (piece, &[]),
            Self::Many(pieces) => (&[], pieces),
        };
        core::iter::once(one).chain(many.iter().copied())
    }
}

impl PartialEq for Parts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.size() == other.size() && self.pieces().flatten().eq(other.pieces().flatten())
    }
}

/// Message or queue ids as they lie in a record: unaligned little-endian numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdList<'a>(pub &'a [U64]);

impl<'a> IdList<'a> {
    /// How many.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As message ids.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = MessageId> + use<'a> {
        self.0.iter().map(|id| MessageId(id.get()))
    }

    /// As pairs of a queue and a message; what is behind the last pair is left out.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (QueueId, MessageId)> + use<'a> {
        let (pairs, _) = self.0.as_chunks::<2>();
        let of = |[queue, message]: &[U64; 2]| (QueueId(queue.get()), MessageId(message.get()));
        pairs.iter().map(of)
    }

    /// As queue ids.
    pub fn queues(&self) -> impl ExactSizeIterator<Item = QueueId> + use<'a> {
        self.0.iter().map(|id| QueueId(id.get()))
    }
}

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// First record of an epoch: what it found and where it goes on.
    EpochStart {
        /// The epoch that begins.
        epoch: Epoch,
        /// The epoch before it in this shard's journal; zero in a new journal.
        sealed_epoch: Epoch,
        /// Last LSN of that epoch that counts: what lies behind it never happened.
        sealed_lsn: Lsn,
        /// Number of the last block of that epoch that counts.
        sealed_block: BlockNumber,
        /// Identity of that block.
        sealed_checksum: Checksum,
        /// Oldest segment still needed.
        oldest_segment: SegmentId,
        /// Names below this one may be in use.
        message_floor: MessageId,
        /// Names below this one may be in use.
        queue_floor: QueueId,
    },
    /// First record of each segment, and the intent to free everything older.
    Retained {
        /// Oldest segment still needed.
        oldest_segment: SegmentId,
        /// Names below this one may be in use.
        message_floor: MessageId,
        /// Names below this one may be in use.
        queue_floor: QueueId,
    },
    /// Last record of an epoch that was stopped in order.
    CleanShutdown {
        /// Wall-clock milliseconds.
        unix_ms: u64,
    },
    /// A queue exists. Repeated when its former definition is about to be freed.
    QueueDefine {
        /// Its name within the shard.
        queue: QueueId,
        /// How its address spreads messages.
        routing: Routing,
        /// Properties.
        flags: QueueFlags,
        /// Address it is bound to, UTF-8.
        address: &'a [u8],
        /// Its name for people and clients, UTF-8.
        name: &'a [u8],
        /// Selector that its messages meet, UTF-8; empty for all messages.
        filter: &'a [u8],
    },
    /// A queue and what was in it are gone.
    QueueDelete {
        /// Its name.
        queue: QueueId,
    },
    /// A message is in these queues. Its body is that of its fragments followed by `body`.
    Message {
        /// Fixed fields.
        fields: MessageFields,
        /// What most messages do not have.
        annotations: Annotations<'a>,
        /// Queues it is in.
        queues: IdList<'a>,
        /// Head in the message's encoding.
        head: Parts<'a>,
        /// Body, or its last part.
        body: Parts<'a>,
    },
    /// A part of a body that is longer than a block, or that is still arriving.
    Fragment {
        /// Upload it belongs to: a number drawn from the sequence of message ids.
        upload: u64,
        /// Bytes of the body before it.
        offset: u64,
        /// The bytes.
        body: Parts<'a>,
    },
    /// The producer went away before its message was whole: the fragments are garbage.
    UploadAbandoned {
        /// The upload.
        upload: u64,
    },
    /// All ready messages of the queue with this priority, named `first` to `last`, are being
    /// delivered once more.
    Delivery {
        /// The queue.
        queue: QueueId,
        /// Their priority, 0 to 9.
        priority: u8,
        /// First message.
        first: MessageId,
        /// Last message, inclusive.
        last: MessageId,
    },
    /// Messages left a queue for good.
    Settle {
        /// The queue.
        queue: QueueId,
        /// Transaction it belongs to; zero for none.
        transaction: u64,
        /// Why.
        outcome: Outcome,
        /// Which.
        messages: IdList<'a>,
    },
    /// Messages, delivered or waiting for their time, are ready again: at once, or from a time on.
    Release {
        /// The queue.
        queue: QueueId,
        /// Transaction it belongs to; zero for none.
        transaction: u64,
        /// Wall-clock milliseconds before which they are not delivered; zero for at once. What
        /// waits for its time gets ready by another such record.
        ready_unix_ms: u64,
        /// Which.
        messages: IdList<'a>,
    },
    /// What became of a transaction.
    Transaction {
        /// Its number.
        transaction: u64,
        /// Its state.
        state: TransactionState,
    },
    /// These ready messages of the queue are being delivered once more: what `Delivery` says of a
    /// range.
    Handout {
        /// The queue.
        queue: QueueId,
        /// Which.
        messages: IdList<'a>,
    },
    /// Messages of the queue are on their way to another address: nobody gets them here any more.
    /// A settlement follows when they are there.
    Depart {
        /// The queue.
        queue: QueueId,
        /// Transaction it belongs to; zero for none.
        transaction: u64,
        /// Why.
        reason: Departure,
        /// Which.
        messages: IdList<'a>,
    },
    /// The address has seen a message with this id. Written for a message that says so only in a
    /// segment about to be freed, or that went nowhere.
    DuplicateId {
        /// The message that had it first.
        message: MessageId,
        /// How the address spreads messages: a queue and a topic of one name are two.
        routing: Routing,
        /// The address, UTF-8.
        address: &'a [u8],
        /// The id.
        id: &'a [u8],
    },
    /// Ready messages of some queues are ready in another one as well.
    Share {
        /// The other one.
        queue: QueueId,
        /// Of each the queue that it is in, and its name: an even count.
        pairs: IdList<'a>,
    },
    /// A message is written here from now on, as a whole: what its former records say of it is
    /// about to be freed. It is where it was; a reader that does not know it finds it here.
    Moved {
        /// Fixed fields; of no transaction.
        fields: MessageFields,
        /// As before, without what was noted elsewhere: its delivery time and its duplicate id.
        annotations: Annotations<'a>,
        /// Queues it is in.
        queues: IdList<'a>,
        /// Where it stands in each of them.
        standings: Standings<'a>,
        /// Head in the message's encoding.
        head: Parts<'a>,
        /// Body, or its last part.
        body: Parts<'a>,
    },
    /// These messages are ready in the queue, and there is no more to say of them: what a replay
    /// that begins behind their records has to know.
    Checkpoint {
        /// The queue.
        queue: QueueId,
        /// When the latest message of the shard came, in wall-clock milliseconds.
        latest_unix_ms: u64,
        /// Which.
        entries: &'a [CheckpointEntry],
    },
    /// A message is in the queue, and this is known of it: what a replay that begins behind its
    /// record has to know. Follows in as many records as its fragments need.
    CheckpointMessage {
        /// The queue.
        queue: QueueId,
        /// Its name, its record and what all messages have.
        entry: CheckpointEntry,
        /// What not all have.
        fields: CheckpointFields,
        /// The next fragments of its body.
        fragments: &'a [CheckpointFragment],
        /// Its last-value key; empty for none.
        last_value: &'a [u8],
    },
}

impl Record<'_> {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::EpochStart { .. } => Kind::EpochStart,
            Self::Retained { .. } => Kind::Retained,
            Self::CleanShutdown { .. } => Kind::CleanShutdown,
            Self::QueueDefine { .. } => Kind::QueueDefine,
            Self::QueueDelete { .. } => Kind::QueueDelete,
            Self::Message { .. } => Kind::Message,
            Self::Fragment { .. } => Kind::Fragment,
            Self::UploadAbandoned { .. } => Kind::UploadAbandoned,
            Self::Delivery { .. } => Kind::Delivery,
            Self::Settle { .. } => Kind::Settle,
            Self::Release { .. } => Kind::Release,
            Self::Transaction { .. } => Kind::Transaction,
            Self::Handout { .. } => Kind::Handout,
            Self::Depart { .. } => Kind::Depart,
            Self::DuplicateId { .. } => Kind::DuplicateId,
            Self::Share { .. } => Kind::Share,
            Self::Moved { .. } => Kind::Moved,
            Self::Checkpoint { .. } => Kind::Checkpoint,
            Self::CheckpointMessage { .. } => Kind::CheckpointMessage,
        }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RecordHead {
    kind: U16,
    flags: U16,
    size: U32,
}

const _: () = assert!(size_of::<RecordHead>() == RECORD_HEAD_SIZE);
