//! Forebay's append-only journal: bytes on disk and how they become durable.
//!
//! The ladder: a *record* is one fact; records are packed into a *block*, the unit of disk write,
//! checksum, replication, read and repair; blocks follow each other in *segment* files; the
//! segments of one shard, epoch after epoch, are its *journal*. `docs/format.md` is the
//! specification; [`format`] is its only implementation.
//!
//! Everything here is sans-IO: values in, values out. No sockets, files, clocks or threads, and
//! no knowledge of queues. The [`storage`] port says what a binding to a real or simulated disk
//! has to do.

mod cache;
pub mod format;
mod freed;
pub mod fuzz;
mod ids;
pub mod lease;
pub mod reader;
pub mod recovery;
pub mod scrub;
pub mod storage;
mod window;
mod writer;

pub use freed::FreedSegments;
pub use ids::{
    BlockNumber, Epoch, JournalId, Location, Lsn, MessageId, QueueId, SegmentId, ShardId,
};
pub use recovery::Seal;
pub use writer::{
    AppendError, Appended, Budget, CACHE_SIZE_MIN, IDLE_SEAL_US, RECORDS_SIZE_MAX, Retained,
    SEALED_BLOCKS_MAX, Writer, WriterStats,
};
