//! The port's binding to a disk in memory.

use std::collections::BTreeMap;

use super::{DiskError, FileId, MemoryDisk, Ticket};
use crate::storage::{BlockWrite, IoFailure, UnfinishedWrite, WriteDone, WriteStep};

/// Block writes of one writer in flight on a [`MemoryDisk`], which others may use as well.
#[derive(Debug, Default)]
pub struct BlockWrites {
    unfinished: BTreeMap<Ticket, (FileId, UnfinishedWrite)>,
}

/// What the end of a write on the disk means for its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the rest has to be completed, or the writer told"]
pub enum BlockProgress {
    /// For the writer.
    Done(WriteDone),
    /// It was short: its rest is in flight under this ticket.
    Rest(Ticket),
}

impl BlockWrites {
    /// Starts a write to `file`, which holds the block's segment.
    ///
    /// Errors: as [`MemoryDisk::submit`]; nothing is in flight then.
    pub fn submit(
        &mut self,
        disk: &mut MemoryDisk,
        file: FileId,
        write: BlockWrite,
    ) -> Result<Ticket, DiskError> {
        self.start(disk, file, UnfinishedWrite::new(write))
    }

    fn start(
        &mut self,
        disk: &mut MemoryDisk,
        file: FileId,
        write: UnfinishedWrite,
    ) -> Result<Ticket, DiskError> {
        let ticket = disk.submit(file, write.offset(), write.bytes())?;
        self.unfinished.insert(ticket, (file, write));
        Ok(ticket)
    }

    /// Ends a write on the disk, with a fault if the disk's seed says so.
    ///
    /// Panics: if the write is not in flight here (the caller's mistake).
    pub fn complete(&mut self, disk: &mut MemoryDisk, ticket: Ticket) -> BlockProgress {
        let (file, write) = self
            .unfinished
            .remove(&ticket)
            .expect("completed writes are in flight");
        let result = disk.complete(ticket).result.map_err(IoFailure::from);
        match write.handle_result(result) {
            WriteStep::Done(done) => BlockProgress::Done(done),
            WriteStep::Rest(rest) => {
                let ticket = self.start(disk, file, rest);
                BlockProgress::Rest(ticket.expect("the rest lies where the whole did"))
            }
        }
    }
}

impl From<DiskError> for IoFailure {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Io => Self::IO,
            DiskError::Full => Self::NO_SPACE,
            // ENOENT, EINVAL.
            DiskError::Missing => Self(2),
            DiskError::OutOfRange => Self(22),
        }
    }
}
