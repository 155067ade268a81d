//! The storage port: values that go out to a disk and come back, and what a disk's answer means.
//!
//! The writer hands out a [`BlockWrite`] and takes a [`WriteDone`]; it calls nobody, so there is no
//! trait to implement. Between the two stands [`UnfinishedWrite`]: which bytes are still to be
//! written, and what follows from a result of the system. Whoever binds the port only moves bytes.
//!
//! Two bindings exist: the shard's ring (`forebay::runtime::reactor`), and [`memory::BlockWrites`]
//! on a disk in memory, whose faults therefore go through the very code the product runs.

pub mod buffer;
pub mod memory;
mod write;

use core::fmt;

use crate::SegmentId;
use buffer::SealedBlock;

pub use write::{UnfinishedWrite, WriteStep};

/// Names a write from submission to completion. Tickets rise in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteTicket(pub u64);

/// The identifier file of an epoch, as the segment that [`BlockWrite`]s to it name. No segment has
/// this number.
pub const IDENTIFIERS: SegmentId = SegmentId::ZERO;

/// A block to be made durable, or in strict mode a sector of the identifier file.
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

impl IoFailure {
    /// The device failed (`EIO`).
    pub const IO: Self = Self(5);
    /// No space is left (`ENOSPC`).
    pub const NO_SPACE: Self = Self(28);
}

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
    /// Durable as a whole, or not to be trusted at all. Short writes are finished before this.
    pub result: Result<(), IoFailure>,
}
