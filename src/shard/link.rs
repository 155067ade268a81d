//! What a hosting shard keeps for one connection, its own or another shard's.

use std::collections::{BTreeMap, VecDeque};

use forebay_journal::{Lsn, MessageId, QueueId};

use super::ConnectionId;
use super::host::{Follower, Gathered};
use crate::frontend::{Extras, Subscription};
use crate::queue::{BrowsePlace, ConsumerId, FilterId, Place, Settlement};

/// A delivery that was decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) link: ConnectionId,
    pub(super) subscription: Subscription,
    pub(super) taker: Taker,
    pub(super) delivery_tag: u64,
    pub(super) message: MessageId,
    pub(super) place: Place,
    pub(super) attempts: u16,
    pub(super) is_redelivered: bool,
    /// The queue that it comes from, if it is the first of its group that a consumer gets.
    pub(super) first_of: Option<QueueId>,
}

/// For whom a delivery is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taker {
    /// A consumer, which holds it until it is settled.
    Consumer(ConsumerId, Settlement),
    /// A browser of this queue, which only looks, at what its selector is true for.
    Browser(QueueId, Option<FilterId>),
    /// A follower of this queue, which sees what it asked for.
    Follower(QueueId),
    /// A browser that has seen all.
    BrowserAtEnd,
    /// The forwarder, which sends it on.
    Departing,
}

/// A subscription that looks at what is ready in a queue and takes nothing.
#[derive(Clone, Debug)]
pub(super) struct Browser {
    pub(super) subscription: Subscription,
    pub(super) queue: QueueId,
    /// Queues that it looks at next, the last one first.
    pub(super) others: Vec<QueueId>,
    /// Its selector, if it has one.
    pub(super) filter: Option<FilterId>,
    /// What it saw last.
    pub(super) place: BrowsePlace,
    pub(super) is_at_end: bool,
}

/// A message whose body is being passed on piece by piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streaming {
    pub(super) delivery: Delivery,
    /// Next fragment, or byte offset of a body in memory.
    pub(super) next: usize,
}

/// What a connection has staged here in one transaction that nobody promised to commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The node's number of it.
    pub(super) number: u64,
    /// Whether a command in it was refused.
    pub(super) has_failed: bool,
    /// Copies of the order to end it that have come.
    pub(super) copies: u8,
}

impl Part {
    pub(super) const fn new(number: u64) -> Self {
        Self {
            number,
            has_failed: false,
            copies: 0,
        }
    }
}

/// A message that is arriving piece by piece, or is here and waits for memory.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) routing: forebay_journal::format::Routing,
    pub(super) address: Vec<u8>,
    pub(super) is_temporary: bool,
    pub(super) is_forwarded: bool,
    pub(super) client: Option<Box<[u8]>>,
    /// Whether the sender wants it durable, whatever becomes of it.
    pub(super) is_persistent: bool,
    pub(super) head: Vec<u8>,
    pub(super) receipt: Option<Text>,
    pub(super) priority: u8,
    pub(super) expires_unix_ms: u64,
    pub(super) extras: Extras<Text>,
    pub(super) has_content_length: bool,
    pub(super) encoding: u8,
    pub(super) body_size: u64,
    /// The transaction it belongs to; zero for none.
    pub(super) transaction: u64,
    pub(super) to: UploadTo,
    /// Whether nothing of it is still to come.
    pub(super) is_whole: bool,
}

/// Where the pieces go.
#[derive(Debug)]
pub(super) enum UploadTo {
    /// Into the journal, as fragments of this upload.
    Journal { upload: u64 },
    /// Into memory.
    Memory {
        body: Vec<u8>,
        /// Bytes that memory is charged with in the end, and whether they are promised.
        needed: u64,
        is_reserved: bool,
    },
    /// To be found out when its address has room.
    Room {
        /// What came of the body.
        held: Vec<u8>,
        body_total: Option<u64>,
    },
    /// Nowhere: no queue wants it, or it was refused.
    Nowhere,
}

impl Extras<Text> {
    /// The same, borrowed.
    pub(super) fn as_ref(&self) -> Extras<&[u8]> {
        Extras {
            deliver_unix_ms: self.deliver_unix_ms,
            group: self.group,
            is_group_end: self.is_group_end,
            copy: self.copy,
            duplicate_id: self.duplicate_id.as_ref().map(Text::bytes),
        }
    }
}

/// Short bytes held without allocation.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Short { len: u8, bytes: [u8; 46] },
    Long(Box<[u8]>),
}

impl Text {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut short = [0; 46];
        match short.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Self::Short {
                    len: bytes.len() as u8,
                    bytes: short,
                }
            }
            None => Self::Long(bytes.into()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// One connection as its queues see it.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// In order of subscription.
    pub(super) consumers: Vec<(Subscription, ConsumerId)>,
    /// Those to patterns of queues.
    pub(super) gathered: Vec<Gathered>,
    pub(super) browsers: Vec<Browser>,
    pub(super) followers: Vec<Follower>,
    /// Messages on their way in, by copy: one, but of a message for several destinations.
    pub(super) uploads: BTreeMap<u16, Upload>,
    /// What it staged here in transactions that are open, in the order in which it began to. The
    /// front end bounds their number.
    pub(super) transactions: Vec<Part>,
    /// Highest LSN of anything the connection asked for.
    pub(super) last_lsn: Lsn,
    /// Deliveries in the gate.
    pub(super) parked_count: usize,
    /// Deliveries that may leave, in order.
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) streaming: Option<Streaming>,
    /// Bytes passed on so far, and how many of them went into the socket.
    pub(super) pumped_bytes: u64,
    pub(super) drained_bytes: u64,
    /// Deliveries to settle once this many bytes went into the socket.
    pub(super) handed: VecDeque<(u64, ConsumerId, u64)>,
    /// Whether the list of links to pump has it.
    pub(super) is_pumping: bool,
    /// The connection is gone, as its control commands say, and as its messages say.
    pub(super) is_detached: bool,
    pub(super) is_hung_up: bool,
}

impl Link {
    pub(super) fn consumer(&self, subscription: Subscription) -> Option<ConsumerId> {
        let at = self
            .consumers
            .binary_search_by_key(&subscription, |(of, _)| *of)
            .ok()?;
        self.consumers.get(at).map(|(_, consumer)| *consumer)
    }

    pub(super) fn remove(&mut self, subscription: Subscription) -> Option<ConsumerId> {
        let at = self
            .consumers
            .binary_search_by_key(&subscription, |(of, _)| *of)
            .ok()?;
        Some(self.consumers.remove(at).1)
    }

    pub(super) fn follower(&mut self, subscription: Subscription) -> Option<&mut Follower> {
        let mut followers = self.followers.iter_mut();
        followers.find(|one| one.subscription == subscription)
    }

    /// A delivery leads to nothing: a follower may see others instead.
    pub(super) fn pass_over(&mut self, delivery: &Delivery) {
        if let Taker::Follower(_) = delivery.taker
            && let Some(follower) = self.follower(delivery.subscription)
        {
            follower.pass_over(delivery.delivery_tag);
        }
    }

    /// Bytes passed on that did not go into the socket yet.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.pumped_bytes - self.drained_bytes
    }
}
