//! What the lease asks for, what comes back, and what it tells.

use core::fmt;

use super::{ShardLease, ShardSeal};
use crate::Epoch;
use crate::format::{NodeName, SECTOR_SIZE, SlotId};
use crate::storage::IoFailure;

/// Names something asked for from its [`Action`] to its [`Done`]. Rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something to be done. All reads and writes go past any cache (`O_DIRECT`); a write is durable
/// (`RWF_DSYNC`) before it counts as done. Whatever was asked for, even long ago, is answered by
/// one [`Done`] with its ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the lease waits for it"]
pub enum Action {
    /// Read all slots of a copy (`LeaseHead::slots_offset`, `slots_size`): [`Done::Bytes`].
    ReadSlots {
        /// Names it.
        ticket: Ticket,
        /// 0 or 1.
        copy: usize,
    },
    /// Write a slot (`LeaseHead::slot_offset`): [`Done::Written`].
    WriteSlot {
        /// Names it.
        ticket: Ticket,
        /// Which.
        slot: SlotId,
        /// 0 or 1.
        copy: usize,
        /// What.
        bytes: Box<[u8; SECTOR_SIZE]>,
    },
    /// Ask for the lock of the group, an OFD lock that is held until all I/O of its holder is over
    /// (never a POSIX record lock): [`Done::Lock`].
    Lock {
        /// Names it.
        ticket: Ticket,
        /// Take it if it is free; else only look.
        is_take: bool,
    },
    /// Give the lock back; nothing is answered.
    Unlock,
    /// Name all epochs that were ever claimed, by claim file or by folder, in any order:
    /// [`Done::Epochs`].
    ListEpochs {
        /// Names it.
        ticket: Ticket,
    },
    /// Make the claim file of an epoch with these bytes, as a whole, durably, and only if there is
    /// none (write it aside, sync, `link`, sync the folder): [`Done::Claimed`] or [`Done::Taken`].
    /// Where the answer is in doubt (`link` over NFS), a file with these bytes is one's own.
    MakeClaim {
        /// Names it.
        ticket: Ticket,
        /// Which epoch.
        epoch: Epoch,
        /// The whole file.
        bytes: Vec<u8>,
    },
    /// Read a claim file as a whole: [`Done::Bytes`], or [`Done::Missing`].
    ReadClaim {
        /// Names it.
        ticket: Ticket,
        /// Which epoch.
        epoch: Epoch,
    },
    /// Write into a claim file: [`Done::Written`].
    WriteClaim {
        /// Names it.
        ticket: Ticket,
        /// Which epoch.
        epoch: Epoch,
        /// Where, in bytes.
        offset: u64,
        /// What; whole sectors.
        bytes: Vec<u8>,
    },
    /// Find where the journal ends in each shard: [`Done::Scanned`]. Not before this is asked for:
    /// what was read before may not count. Until the answer any time may pass.
    Scan {
        /// Names it.
        ticket: Ticket,
        /// The epoch that is claimed: for the folder and the segments to come.
        epoch: Epoch,
        /// By shard, the seal that binds; `None` where no epoch said one: a journal from before
        /// there were claims.
        bases: Vec<Option<Base>>,
    },
}

/// What is known of where a shard's journal ends: `epoch` went on behind `seal`. Its own blocks
/// count as far as their chain is whole; nothing else behind the seal does, and nothing of an epoch
/// in between or above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The last epoch with a seal table for this shard.
    pub epoch: Epoch,
    /// Behind which it wrote.
    pub seal: ShardSeal,
}

/// What became of an [`Action`].
#[derive(Clone, Copy, Debug)]
pub enum Done<'a> {
    /// What was read, all of it.
    Bytes(&'a [u8]),
    /// Written, durably.
    Written,
    /// The lock.
    Lock(LockState),
    /// Claimed epochs.
    Epochs(&'a [Epoch]),
    /// The claim file was made.
    Claimed,
    /// There was one already.
    Taken,
    /// There is no such file.
    Missing,
    /// By shard, the end of the journal; `None` for a shard that cannot be served.
    Scanned(&'a [Option<ShardSeal>]),
    /// The system says no. Nothing is tried again in its place and trusted.
    Failed(IoFailure),
}

/// What a lock's file system says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// This node has it now.
    Taken,
    /// Nobody has it.
    Free,
    /// Somebody else has it.
    Busy,
    /// There are no such locks here.
    Unsupported,
}

/// What the owner of the lease has to know.
#[derive(Debug)]
pub enum Event {
    /// This node stands by; who serves, as far as it can be seen.
    Standby {
        /// Its name.
        active: Option<NodeName>,
    },
    /// It tries to take over.
    Taking {
        /// The epoch it won.
        epoch: Epoch,
        /// Why it may try.
        why: Why,
    },
    /// It serves: writers may be opened, one for each of these. Shards that cannot be served are
    /// left out.
    Serve {
        /// The epoch.
        epoch: Epoch,
        /// By shard.
        shards: Vec<ShardLease>,
    },
    /// Stop taking work, finish what is under way, close writers, then call `handle_drained`.
    Drain {
        /// To whom it is handed over; `None`: it stops.
        to: Option<NodeName>,
    },
    /// The handover did not come about; this node goes on.
    HandoverFailed {
        /// Who did not answer.
        to: NodeName,
    },
    /// The lease was given back.
    Released,
    /// Nothing more will come. Behind a loss: acknowledge and deliver nothing, close clients, begin
    /// no write.
    Ended(End),
}

/// Why a node may try to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody serves, by what all slots say.
    Vacant,
    /// The holder's lock is free: its process is gone.
    LockFree,
    /// No heartbeat for long enough.
    Silent,
    /// It was handed over to this node.
    HandedOver,
    /// An operator said so.
    Ordered,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This node was never in the group.
    Refused(Refusal),
    /// It served, and may no longer.
    Lost(Loss),
    /// It wanted to serve, and could not.
    TakeoverFailed(TakeoverFailure),
    /// It was told to stop.
    Stopped,
}

/// Why a node cannot be in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Another process with this name is alive.
    NameInUse(NodeName),
    /// There is no slot left.
    Full,
    /// The lease file cannot be read or written.
    Io(IoFailure),
}

/// Why a holder may no longer acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// A higher epoch shut the fence.
    Superseded(Epoch),
    /// The fence is damaged.
    FenceUnsound,
    /// A read or write failed (`EIO`, `ESTALE`, ...).
    Io(IoFailure),
    /// A read or write took too long.
    Stalled,
    /// No heartbeat got through in time.
    Expired,
    /// Another process with this node's name is alive.
    NameInUse,
}

/// Why a takeover came to nothing, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakeoverFailure {
    /// A read or write failed.
    Io(IoFailure),
    /// A read or write took too long.
    Stalled,
    /// The seal table of this epoch is damaged: where older ones end is not known.
    SealsDamaged(Epoch),
    /// This epoch's fence does not read as it was written: the storage is not what it has to be.
    NotShut(Epoch),
    /// The number of shards is not that of the seal table of this epoch.
    ShardCount(Epoch),
    /// The list of epochs lacks this one, which a slot names: the folder is cached, or its claim is
    /// gone, and who may hold it cannot be shut out.
    ListStale(Epoch),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameInUse(name) => write!(
                f,
                "another node of this group is called {name} and is alive. Remedy: give each node \
                 a [node] name of its own, or stop the other one"
            ),
            Self::Full => write!(
                f,
                "the lease file has no slot left for this node. Remedy: use the name of a node \
                 that is no longer there, or stop all nodes and remove the file journal/lease"
            ),
            Self::Io(failure) => write!(f, "the lease file cannot be used: {failure}"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded(epoch) => write!(f, "another node took over (epoch {epoch})"),
            Self::FenceUnsound => write!(f, "the fence of this epoch is damaged"),
            Self::Io(failure) => write!(f, "the shared folder failed: {failure}"),
            Self::Stalled => write!(f, "the shared folder did not answer in time"),
            Self::Expired => write!(f, "no heartbeat got through in time"),
            Self::NameInUse => write!(f, "another node with this node's name is alive"),
        }
    }
}

impl fmt::Display for TakeoverFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(failure) => write!(f, "the shared folder failed: {failure}"),
            Self::Stalled => write!(f, "the shared folder did not answer in time"),
            Self::SealsDamaged(epoch) => write!(
                f,
                "both copies of the seal table of epoch {epoch} are damaged. Remedy: restore the \
                 file journal/claim-{:020} from a copy of the folder",
                epoch.get()
            ),
            Self::NotShut(epoch) => write!(
                f,
                "the fence of epoch {epoch} reads otherwise than it was written: reads are cached, \
                 or writes are lost. Remedy: mount the folder so that each node sees at once what \
                 another wrote"
            ),
            Self::ShardCount(epoch) => write!(
                f,
                "epoch {epoch} had another number of shards. Remedy: the number of shards of a \
                 folder never changes; restore its superblock"
            ),
            Self::ListStale(epoch) => write!(
                f,
                "epoch {epoch} was claimed, but the folder does not show its claim. Remedy: mount \
                 the folder without caching of names (NFS: lookupcache=none), and never remove \
                 claim files"
            ),
        }
    }
}
