//! The storage port: what a binding to a real or a simulated disk has to do.
//!
//! Two bindings exist: the shard's ring (`forebay::runtime::reactor`) and [`memory`].

pub mod buffer;
pub mod memory;

use core::fmt;

use crate::SegmentId;
use buffer::SealedBlock;

/// Names a write from submission to completion. Tickets rise in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteTicket(pub u64);

/// A block to be made durable.
///
/// Shape: `offset` and the block's length are multiples of 4 KiB; the space lies within a segment
/// that was prepared before. The block goes to the disk unchanged.
#[derive(Debug)]
pub struct BlockWrite {
    /// Comes back with the completion.
    pub ticket: WriteTicket,
    /// Segment to write to.
    pub segment: SegmentId,
    /// Byte offset in the segment file.
    pub offset: u64,
    /// The bytes.
    pub block: SealedBlock,
}

/// The operating system's reason for a failed read or write: an errno value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoFailure(pub i32);

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl core::error::Error for IoFailure {}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteDone {
    /// Which.
    pub ticket: WriteTicket,
    /// Durable as a whole, or not to be trusted at all. A binding finishes short writes itself.
    pub result: Result<(), IoFailure>,
}

/// A disk.
pub trait Storage {
    /// Starts a write. Completions may come in any order.
    fn submit(&mut self, write: BlockWrite);

    /// Takes the next completion, if there is one.
    fn reap(&mut self) -> Option<WriteDone>;
}
