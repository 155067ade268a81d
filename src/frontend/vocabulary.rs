//! Commands and replies: the same values whether they cross a mailbox or not. Generic over how
//! their bytes are held, so that a mailbox can keep them as ranges of one buffer.

use core::fmt;

use forebay_journal::MessageId;
use forebay_journal::format::Routing;

use super::forward::Departs;
use super::slow::Slow;
use crate::queue::{Credit, QuotaNote, Rank, Refused, Return, Selection, Settlement};

/// A connection's name of one of its subscriptions: rises, never reused on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscription(pub u32);

/// What becomes of delivered messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Consumed.
    Accept,
    /// Not consumed: a failed delivery.
    Release,
    /// Not to be consumed by anybody: a dead letter.
    Refuse,
}

/// What a sender asks of few messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<B> {
    /// Wall-clock milliseconds before which it is not delivered; zero for at once.
    pub deliver_unix_ms: u64,
    /// Number of its group (`docs/format.md` 6, annotations); zero for none.
    pub group: u64,
    /// Whether its group ends with it.
    pub is_group_end: bool,
    /// Zero; or its number, from one, among the copies for the destinations that one frame names.
    /// A copy that was there before is no mistake: the others may be missing.
    pub copy: u16,
    /// Id by which the sender, sending again, is recognized.
    pub duplicate_id: Option<B>,
}

impl<B> Extras<B> {
    /// The same with its bytes held otherwise.
    pub fn map<C>(self, hold: impl FnOnce(B) -> C) -> Extras<C> {
        Extras {
            deliver_unix_ms: self.deliver_unix_ms,
            group: self.group,
            is_group_end: self.is_group_end,
            copy: self.copy,
            duplicate_id: self.duplicate_id.map(hold),
        }
    }
}

/// A message, or its beginning.
#[derive(Clone, Copy, Debug)]
pub struct SendCommand<B> {
    /// How its address spreads it.
    pub routing: Routing,
    /// Where to: an address, or one queue of it ([`crate::routing::split_queue`]).
    pub address: B,
    /// Whether the address is one that goes with its owner: it is not made when it is not there.
    pub is_temporary: bool,
    /// Whether it comes from another queue of the node: it has its place there until it has one
    /// here, so that no bound holds it up.
    pub is_forwarded: bool,
    /// Who sends it, as the names of its durable subscriptions begin ([`owner`]); none for who has
    /// none, and where nobody asks: of queues.
    pub client: Option<B>,
    /// Whether the sender wants it durable.
    pub is_persistent: bool,
    /// 0 to 9.
    pub priority: u8,
    /// Wall-clock milliseconds from which on it is expired; zero for never.
    pub expires_unix_ms: u64,
    /// What few messages have.
    pub extras: Extras<B>,
    /// Whether the sender named the body's length.
    pub has_content_length: bool,
    /// Encoding of head and body (`docs/format.md` 6, message).
    pub encoding: u8,
    /// Head in that encoding.
    pub head: B,
    /// Body, or its first part.
    pub body: B,
    /// Bytes of the whole body, where the sender said so.
    pub body_total: Option<u64>,
    /// Whether `body` is all of it; else [`Command::SendPart`]s follow.
    pub is_complete: bool,
    /// Receipt to answer when it is safe.
    pub receipt: Option<B>,
    /// The transaction it belongs to; zero for none. The front end names it as in
    /// [`Command::Begin`]; the connection's shard puts the node's number in its place.
    pub transaction: u64,
}

/// More of the body of a message.
#[derive(Clone, Copy, Debug)]
pub struct SendPartCommand<B> {
    /// Of which copy of it: see [`Extras::copy`].
    pub copy: u16,
    /// The bytes.
    pub bytes: B,
    /// Whether the message is whole now.
    pub is_last: bool,
}

/// What a shard that has a part in a transaction is told by the one that coordinates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Promise to commit or roll back, whatever happens: [`Report::Prepared`].
    Prepare,
    /// Commit: [`Report::Applied`], then [`Report::Durable`].
    Commit,
    /// Roll back what is there: [`Report::Applied`].
    RollBack,
    /// To the coordinator's own queues: all others are prepared, commit: [`Report::Decided`].
    Decide,
    /// To the same: all others have committed durably. No report.
    End,
}

/// An order about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The node's number of the transaction.
    pub transaction: u64,
    /// What to do.
    pub order: Order,
    /// How often it comes: in each lane behind which it has to be done. It is done when the last
    /// one is there.
    pub copies: u8,
}

/// What a shard says about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its promise is durable.
    Prepared,
    /// Nothing of the transaction is there.
    Empty,
    /// A command in it was refused: it cannot commit.
    Failed,
    /// The order is carried out.
    Applied,
    /// It is durable too.
    Durable,
    /// The decision to commit is durable.
    Decided,
}

/// Where a consumer of messages that stay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first that is there.
    First,
    /// With the last that is there.
    Last,
    /// With the next that comes.
    Next,
    /// With the first that came at this time or later.
    Since {
        /// Wall-clock milliseconds.
        unix_ms: u64,
    },
    /// With this one, or the first behind it.
    At {
        /// The shard that named it.
        shard: u16,
        /// Its name there.
        message: MessageId,
    },
}

/// A subscription wanted.
#[derive(Clone, Copy, Debug)]
pub struct SubscribeCommand<B> {
    /// Its name.
    pub subscription: Subscription,
    /// Queue or topic.
    pub routing: Routing,
    /// What to listen to: an address, a pattern of addresses, or one queue of either
    /// ([`crate::routing::Name`]).
    pub address: B,
    /// Which part it is, if it is everywhere.
    pub part: Option<Part>,
    /// Whether its queue goes with the consumer.
    pub is_temporary: bool,
    /// Whether it only looks at what is there, and takes nothing.
    pub is_browser: bool,
    /// Where it begins, for queues whose messages stay when they are consumed.
    pub start: Option<Start>,
    /// Name in the node of a subscription that is durable or shared; none for a plain one. With a
    /// name it is answered by [`Reply::Answered`] instead of a receipt.
    pub name: Option<B>,
    /// Whether it stays while nobody is attached.
    pub is_durable: bool,
    /// Whether others may attach to it as well.
    pub is_shared: bool,
    /// Whether it leaves out what its own client sends.
    pub is_no_local: bool,
    /// Whether it gets what its topic keeps for subscriptions to come, if it is new.
    pub is_retroactive: bool,
    /// Which messages it wants, canonical: a selector that parses. None for all.
    pub selector: Option<B>,
    /// Most messages unsettled at once.
    pub credit: Credit,
    /// Bytes unsettled at which nothing more comes.
    pub credit_bytes: Option<u64>,
    /// Who settles.
    pub settlement: Settlement,
    /// Who is served first.
    pub rank: Rank,
    /// Receipt to answer when it is attached.
    pub receipt: Option<B>,
}

/// One of the queues, one on each shard, of a subscription that is bound to a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose it is.
    pub shard: u16,
    /// Whether all others were asked for before.
    pub is_last: bool,
}

/// What becomes of a subscription with a name when a consumer of it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It stays if it is durable or others are attached.
    Detach,
    /// It goes with all that it holds; refused while others are attached.
    Delete,
    /// It was made for nothing: it goes unless others are attached by now.
    Undo,
}

/// Whose a named subscription is: its name up to the first dot that no backslash stands before.
///
/// Shape: front ends name subscriptions `<client>.<name>` and escape dots and backslashes of the
/// client by a backslash.
pub fn owner(name: &[u8]) -> &[u8] {
    let mut is_escaped = false;
    let end = name.iter().position(|byte| {
        let is_end = *byte == b'.' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    &name[..end.unwrap_or(name.len())]
}

/// Asked of the shard that hosts the queue.
#[derive(Clone, Copy, Debug)]
pub enum Command<B> {
    /// Take a message.
    Send(SendCommand<B>),
    /// Take more of the body of the message begun last on this connection, of this copy of it.
    SendPart(SendPartCommand<B>),
    /// Attach a consumer.
    Subscribe(SubscribeCommand<B>),
    /// Detach a consumer; what it did not settle is ready again.
    Unsubscribe {
        /// Which.
        subscription: Subscription,
        /// What becomes of a subscription with a name.
        ending: Ending,
        /// Receipt to answer.
        receipt: Option<B>,
    },
    /// Delete the subscription of this name if nobody is attached to it. Asked of one shard after
    /// another; each answers by [`Reply::Answered`].
    Forget {
        /// Its name in the node.
        name: B,
        /// Whether it makes room for one of that name on another shard, and whether that one is
        /// shared; none: a client unsubscribes.
        for_shared: Option<bool>,
        /// Receipt to answer when all shards have done it.
        receipt: Option<B>,
    },
    /// Settle or give back deliveries.
    Settle {
        /// Of which subscription.
        subscription: Subscription,
        /// Which of them.
        selection: Selection,
        /// What becomes of them.
        verdict: Verdict,
        /// The transaction it belongs to; zero for none: see [`SendCommand::transaction`].
        transaction: u64,
        /// Receipt to answer when that is safe.
        receipt: Option<B>,
    },
    /// Begin a transaction. Asked of the connection's own shard, as [`Self::EndTransaction`].
    Begin {
        /// Its name: rises, never reused on the connection, not zero.
        transaction: u64,
        /// Receipt to answer.
        receipt: Option<B>,
    },
    /// Commit or roll back a transaction on all shards that have a part in it.
    EndTransaction {
        /// Its name.
        transaction: u64,
        /// Whether it is to commit.
        is_commit: bool,
        /// Receipt to answer when that is safe.
        receipt: Option<B>,
    },
    /// Do this with what is staged here; answered by [`Reply::Reported`].
    Order(Ordered),
    /// This many bytes of deliveries went into the connection's socket.
    Drained {
        /// Bytes, counted as the deliveries' heads and bodies.
        bytes: u64,
    },
    /// Answer [`Reply::Synced`] when all the connection asked for so far is durable.
    Sync,
    /// The connection takes nothing more: detach all its consumers.
    Detach {
        /// Whether the connection is gone; [`Command::Hangup`] comes beside it.
        is_last: bool,
        /// What that means for the messages they hold.
        given_back: Return,
    },
    /// Forget the message begun last on this connection: its rest does not come.
    AbandonSend,
    /// What [`Reply::Departs`] announced under this tag was sent on. Of the shard's forwarder.
    Departed {
        /// The tag.
        tag: u64,
        /// Whether it is there and durable, else it was refused.
        is_taken: bool,
    },
    /// The connection is gone: forget its unfinished message. Travels behind its messages, which
    /// may have to wait; what its consumers hold must not.
    Hangup,
}

/// A message for a consumer, or its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Deliver<B> {
    /// For which subscription.
    pub subscription: Subscription,
    /// Name of the delivery within the subscription.
    pub delivery_tag: u64,
    /// Shard that hosts the queue; with `message` the message's name in the node.
    pub shard: u16,
    /// The message.
    pub message: MessageId,
    /// How often it was delivered before.
    pub attempts: u16,
    /// Whether it was delivered before.
    pub is_redelivered: bool,
    /// Whether the sender wanted it durable.
    pub is_persistent: bool,
    /// 0 to 9.
    pub priority: u8,
    /// Whether the sender named the body's length.
    pub has_content_length: bool,
    /// Where it expires at another time than its head says: when, in wall-clock milliseconds; zero
    /// for never.
    pub own_expiry_unix_ms: Option<u64>,
    /// Encoding of head and body.
    pub encoding: u8,
    /// Bytes of the whole body.
    pub body_size: u64,
    /// Name of the header that says that it is the first of its group for this consumer; empty if
    /// nothing is to be said.
    pub group_first_key: B,
    /// The address it was sent to, if that is not for sure the one of its queue; else empty.
    pub address: B,
    /// Head in its encoding.
    pub head: B,
    /// Body, or its first part; else [`Reply::DeliverPart`]s follow.
    pub body: B,
    /// Whether `body` is all of it.
    pub is_complete: bool,
}

/// Answered to a connection.
#[derive(Clone, Copy, Debug)]
pub enum Reply<B> {
    /// What was asked with this receipt is done and durable.
    Receipt {
        /// The receipt.
        receipt: B,
    },
    /// A message.
    Deliver(Deliver<B>),
    /// More of the body of the message begun last on this connection by the same shard.
    DeliverPart {
        /// The shard it comes from.
        shard: u16,
        /// The bytes.
        bytes: B,
        /// Whether the message is whole now.
        is_last: bool,
    },
    /// What the next delivery is about: a message on its way. For the shard's forwarder.
    Departs(Departs<B>),
    /// A browser has seen all that was there.
    BrowseEnd {
        /// The shard it comes from.
        shard: u16,
        /// The browser.
        subscription: Subscription,
    },
    /// A command was refused.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The address that the command named, if that is what was refused.
        about: Option<B>,
        /// The command's receipt.
        receipt: Option<B>,
    },
    /// Answer to a command about a durable subscription: it is done and durable. For the
    /// connection's shard, never for its client.
    Answered {
        /// Whether the shard had the subscription before.
        existed: bool,
    },
    /// Answer to [`Command::Order`]. For the coordinator's shard, never for its client.
    Reported {
        /// The node's number of the transaction.
        transaction: u64,
        /// What became of the order.
        report: Report,
    },
    /// What a shard says to another about the limits over all addresses. For the shard, never for a
    /// client.
    Quota(QuotaNote),
    /// A consumer was slow while messages waited for it.
    Slow(Slow<B>),
    /// Answer to [`Command::Sync`].
    Synced,
    /// The shard it comes from holds a message back until memory has room: read nothing more
    /// meanwhile. For the connection's shard, never for its client.
    Hold,
    /// It has room again.
    Resume,
}

/// Why the queues refused a command. The client's fault or a limit's; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue machine's reason.
    Queue(Refused),
    /// The address has as much as it may, and its messages are to be refused then.
    AddressFull,
    /// The disk has no space for messages, and they are to be refused then.
    DiskFull,
    /// A consumer asked where to begin, and the queue keeps nothing that was consumed.
    NothingStays,
    /// A consumer asked to begin with a message of another queue.
    StartElsewhere,
    /// A shard of the node whose journal is damaged would be needed.
    ShardDamaged {
        /// Which.
        shard: u16,
    },
    /// The shard holds as many selectors as it may.
    SelectorsFull {
        /// Bytes of memory for them.
        max: u64,
    },
    /// The selector that the front end let through does not parse: our mistake, and no reason to
    /// fall over.
    SelectorUnsound,
    /// An operator deleted a queue that the connection consumes from.
    QueueDeleted,
    /// The address has no queue of that name.
    UnknownQueue,
    /// No shard has a durable subscription of that name.
    UnknownDurableSubscription,
    /// The subscription is not, or no more, there.
    UnknownSubscription,
    /// A message was settled, by its consumer or another one, before it was passed on to its end.
    MessageGone,
    /// What stays in its queue when it is consumed is acknowledged in a transaction.
    FollowerInTransaction,
    /// A message of a transaction has a duplicate id that is known: all of the transaction is
    /// discarded, since it was done before.
    DuplicateInTransaction,
    /// A command of the transaction was refused before: all of it was rolled back.
    TransactionFailed,
    /// A message that is not durable is larger than the memory for such messages.
    VolatileTooLarge {
        /// Bytes of that memory.
        max: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(refused) => refused.fmt(f),
            Self::AddressFull => write!(
                f,
                "the address is full (max_size_messages or max_size_bytes), or the node is \
                 (limits.global_max_size_messages or limits.global_max_size_bytes), and the \
                 address_full_policy is to refuse messages then"
            ),
            Self::DiskFull => write!(
                f,
                "the disk is full: the broker has no space for messages, and \
                 limits.disk_full_policy is to refuse them then; what is queued can be consumed, \
                 and messages are taken again as soon as there is space"
            ),
            Self::QueueDeleted => write!(f, "an operator deleted the queue"),
            Self::NothingStays => write!(
                f,
                "the queue keeps nothing that was consumed, so that there is no place to begin at; \
                 default_non_destructive in [[address]] makes messages stay"
            ),
            Self::StartElsewhere => {
                write!(f, "the message to begin with was never in this queue")
            }
            Self::SelectorsFull { max } => {
                write!(f, "the limit of {max} bytes for selectors is reached")
            }
            Self::ShardDamaged { shard } => write!(
                f,
                "shard {shard} of this node is needed for that and does not serve, because its \
                 journal is damaged; the other shards do. The operator: `forebay status` says \
                 where the damage is and what can be done"
            ),
            Self::SelectorUnsound => write!(f, "the selector cannot be read"),
            Self::UnknownQueue => write!(f, "the address has no queue of that name"),
            Self::UnknownDurableSubscription => {
                write!(f, "there is no durable subscription of that name")
            }
            Self::UnknownSubscription => write!(f, "no such subscription"),
            Self::MessageGone => write!(f, "the message under way was settled before its end"),
            Self::FollowerInTransaction => write!(
                f,
                "what a queue keeps for all its consumers cannot be acknowledged in a transaction"
            ),
            Self::DuplicateInTransaction => write!(
                f,
                "duplicate id: the address has that message already; the transaction is discarded"
            ),
            Self::TransactionFailed => write!(
                f,
                "the transaction was rolled back, because a command in it was refused"
            ),
            Self::VolatileTooLarge { max } => write!(
                f,
                "a message that is not persistent is held in memory, which has room for {max} bytes"
            ),
        }
    }
}

impl<B> SendCommand<B> {
    fn map<C>(self, hold: &mut impl FnMut(B) -> C) -> SendCommand<C> {
        SendCommand {
            routing: self.routing,
            address: hold(self.address),
            is_temporary: self.is_temporary,
            is_forwarded: self.is_forwarded,
            client: self.client.map(&mut *hold),
            is_persistent: self.is_persistent,
            priority: self.priority,
            expires_unix_ms: self.expires_unix_ms,
            extras: self.extras.map(&mut *hold),
            has_content_length: self.has_content_length,
            encoding: self.encoding,
            head: hold(self.head),
            body: hold(self.body),
            body_total: self.body_total,
            is_complete: self.is_complete,
            receipt: self.receipt.map(hold),
            transaction: self.transaction,
        }
    }
}

impl<B> SendPartCommand<B> {
    fn map<C>(self, hold: &mut impl FnMut(B) -> C) -> SendPartCommand<C> {
        SendPartCommand {
            copy: self.copy,
            bytes: hold(self.bytes),
            is_last: self.is_last,
        }
    }
}

impl<B> SubscribeCommand<B> {
    /// The same with its bytes held otherwise.
    pub fn map<C>(self, hold: &mut impl FnMut(B) -> C) -> SubscribeCommand<C> {
        SubscribeCommand {
            subscription: self.subscription,
            routing: self.routing,
            address: hold(self.address),
            part: self.part,
            is_temporary: self.is_temporary,
            is_browser: self.is_browser,
            start: self.start,
            name: self.name.map(&mut *hold),
            is_durable: self.is_durable,
            is_shared: self.is_shared,
            is_no_local: self.is_no_local,
            is_retroactive: self.is_retroactive,
            selector: self.selector.map(&mut *hold),
            credit: self.credit,
            credit_bytes: self.credit_bytes,
            settlement: self.settlement,
            rank: self.rank,
            receipt: self.receipt.map(hold),
        }
    }
}

impl<B> Command<B> {
    /// The same command with its bytes held otherwise.
    pub fn map<C>(self, hold: &mut impl FnMut(B) -> C) -> Command<C> {
        match self {
            Self::Send(send) => Command::Send(send.map(hold)),
            Self::SendPart(part) => Command::SendPart(part.map(hold)),
            Self::Subscribe(subscribe) => Command::Subscribe(subscribe.map(hold)),
            Self::Unsubscribe {
                subscription,
                ending,
                receipt,
            } => Command::Unsubscribe {
                subscription,
                ending,
                receipt: receipt.map(hold),
            },
            Self::Forget {
                name,
                for_shared,
                receipt,
            } => Command::Forget {
                name: hold(name),
                for_shared,
                receipt: receipt.map(hold),
            },
            Self::Settle {
                subscription,
                selection,
                verdict,
                transaction,
                receipt,
            } => Command::Settle {
                subscription,
                selection,
                verdict,
                transaction,
                receipt: receipt.map(hold),
            },
            Self::Begin {
                transaction,
                receipt,
            } => Command::Begin {
                transaction,
                receipt: receipt.map(hold),
            },
            Self::EndTransaction {
                transaction,
                is_commit,
                receipt,
            } => Command::EndTransaction {
                transaction,
                is_commit,
                receipt: receipt.map(hold),
            },
            Self::Order(ordered) => Command::Order(ordered),
            Self::Drained { bytes } => Command::Drained { bytes },
            Self::Sync => Command::Sync,
            Self::Detach {
                is_last,
                given_back,
            } => Command::Detach {
                is_last,
                given_back,
            },
            Self::AbandonSend => Command::AbandonSend,
            Self::Departed { tag, is_taken } => Command::Departed { tag, is_taken },
            Self::Hangup => Command::Hangup,
        }
    }

    /// Whether it brings (part of) a message, which waits for space before anything else does.
    pub const fn is_message(&self) -> bool {
        matches!(self, Self::Send(_) | Self::SendPart(_) | Self::AbandonSend)
    }
}

impl<B> Reply<B> {
    /// The same reply with its bytes held otherwise.
    pub fn map<C>(self, hold: &mut impl FnMut(B) -> C) -> Reply<C> {
        match self {
            Self::Receipt { receipt } => Reply::Receipt {
                receipt: hold(receipt),
            },
            Self::Deliver(deliver) => Reply::Deliver(Deliver {
                subscription: deliver.subscription,
                delivery_tag: deliver.delivery_tag,
                shard: deliver.shard,
                message: deliver.message,
                attempts: deliver.attempts,
                is_redelivered: deliver.is_redelivered,
                is_persistent: deliver.is_persistent,
                priority: deliver.priority,
                has_content_length: deliver.has_content_length,
                own_expiry_unix_ms: deliver.own_expiry_unix_ms,
                encoding: deliver.encoding,
                body_size: deliver.body_size,
                group_first_key: hold(deliver.group_first_key),
                address: hold(deliver.address),
                head: hold(deliver.head),
                body: hold(deliver.body),
                is_complete: deliver.is_complete,
            }),
            Self::DeliverPart {
                shard,
                bytes,
                is_last,
            } => Reply::DeliverPart {
                shard,
                bytes: hold(bytes),
                is_last,
            },
            Self::Departs(departs) => Reply::Departs(departs.map(hold)),
            Self::BrowseEnd {
                shard,
                subscription,
            } => Reply::BrowseEnd {
                shard,
                subscription,
            },
            Self::Refused {
                refusal,
                about,
                receipt,
            } => Reply::Refused {
                refusal,
                about: about.map(&mut *hold),
                receipt: receipt.map(hold),
            },
            Self::Answered { existed } => Reply::Answered { existed },
            Self::Reported {
                transaction,
                report,
            } => Reply::Reported {
                transaction,
                report,
            },
            Self::Quota(note) => Reply::Quota(note),
            Self::Slow(slow) => Reply::Slow(slow.map(hold)),
            Self::Synced => Reply::Synced,
            Self::Hold => Reply::Hold,
            Self::Resume => Reply::Resume,
        }
    }
}
