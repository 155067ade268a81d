//! Why a node does not start, or stops by itself, in words an operator can act on.

use std::fmt;
use std::net::SocketAddr;

use forebay_journal::ShardId;

use super::exit::Exit;
use crate::housekeeping::folder::FolderError;
use crate::housekeeping::lock::LockError;
use crate::housekeeping::{HousekeeperError, ScanError};
use crate::runtime::listener::ListenError;
use crate::runtime::reactor::RingError;
use crate::shard::{Failure, UnsoundSelector};

/// Why a node did not start, or stopped by itself.
#[derive(Debug)]
pub enum NodeError {
    /// The data folder is refused.
    Folder(FolderError),
    /// Another broker has it.
    Lock(LockError),
    /// A journal cannot be opened.
    Scan(ScanError),
    /// A journal holds a selector that is none.
    Selector(ShardId, UnsoundSelector),
    /// The machine lacks io_uring.
    Ring(RingError),
    /// The machine lacks something else.
    Machine(String),
    /// The admin socket cannot be opened.
    Admin(std::io::Error),
    /// The listener for metrics cannot be opened.
    Metrics(SocketAddr, std::io::Error),
    /// The listener cannot be opened.
    Listen(ListenError),
    /// Housekeeping cannot start.
    Housekeeping(HousekeeperError),
    /// A shard failed while running.
    Failed(ShardId, Failure),
}

impl NodeError {
    /// The exit code it means.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Scan(ScanError::Executor(_)) => Exit::MachineLacks,
            Self::Folder(_) | Self::Lock(_) | Self::Scan(_) | Self::Selector(..) => {
                Exit::DataRefused
            }
            Self::Ring(_) | Self::Machine(_) | Self::Housekeeping(_) => Exit::MachineLacks,
            Self::Admin(_) | Self::Metrics(..) | Self::Listen(_) => Exit::ListenFailed,
            Self::Failed(..) => Exit::Failed,
        }
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Scan(error) => error.fmt(f),
            Self::Selector(shard, unsound) | Self::Failed(shard, Failure::Selector(unsound)) => {
                write!(
                    f,
                    "shard {shard}: {unsound}. A later release may have written it; else the journal \
                 is damaged. `forebay-inspect records` shows its definition"
                )
            }
            Self::Ring(error) => error.fmt(f),
            Self::Machine(reason) => f.write_str(reason),
            Self::Admin(error) => write!(
                f,
                "cannot open the admin socket `admin.sock` in the data folder: {error}"
            ),
            Self::Metrics(address, error) => write!(
                f,
                "cannot listen on {address} for metrics: {error}. Remedy: choose another \
                 address or port for admin.metrics, or \"off\""
            ),
            Self::Listen(error) => error.fmt(f),
            Self::Housekeeping(error) => error.fmt(f),
            Self::Failed(shard, Failure::Write(error)) => write!(
                f,
                "shard {shard}: a journal write failed: {error}. Nothing it held was acknowledged; \
                 the broker stops so that nobody trusts a failed write. Look at the disk, then \
                 start again: what was acknowledged is on it"
            ),
            Self::Failed(shard, Failure::Read(error)) => write!(
                f,
                "shard {shard}: segment {}, byte {}: a block that holds messages cannot be read \
                 back: {}. Run `forebay-inspect verify` on the data folder",
                error.segment, error.offset, error.reason
            ),
            Self::Failed(shard, Failure::Housekeeping(reason)) => {
                write!(f, "shard {shard}: {reason}")
            }
        }
    }
}

impl std::error::Error for NodeError {}
