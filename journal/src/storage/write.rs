//! A block on its way to the disk: what is still to be written, and what a result means.
//!
//! Invariants: bytes that were written are not written again; what is still to be written begins
//! and ends at whole sectors; each step writes at least one sector, so it ends.

use super::{BlockWrite, IoFailure, WriteDone};
use crate::SegmentId;
use crate::format::SECTOR_SIZE;

/// A block write of which a part may be on the disk.
#[derive(Debug)]
pub struct UnfinishedWrite {
    write: BlockWrite,
    /// Bytes at the start of the block that are durable.
    written: usize,
}

/// What follows from a result.
#[derive(Debug)]
#[must_use = "the rest has to be written, or the writer told"]
pub enum WriteStep {
    /// The write is over: the block is durable as a whole, or it failed.
    Done(WriteDone),
    /// The system took a part: [`UnfinishedWrite::bytes`] has to be written as well.
    Rest(UnfinishedWrite),
}

impl UnfinishedWrite {
    /// Nothing of it is written yet.
    pub const fn new(write: BlockWrite) -> Self {
        Self { write, written: 0 }
    }

    /// Segment to write to.
    pub const fn segment(&self) -> SegmentId {
        self.write.segment
    }

    /// Byte offset in the segment file of what is still to be written.
    pub const fn offset(&self) -> u64 {
        self.write.offset + self.written as u64
    }

    /// What is still to be written.
    pub fn bytes(&self) -> &[u8] {
        &self.write.block[self.written..]
    }

    /// Takes the result of writing [`Self::bytes`] durably at [`Self::offset`]: how many bytes, or
    /// why not.
    ///
    /// A short write goes on behind the last whole sector: no error was reported, so what was
    /// written can be trusted. A failure ends the write and is never tried again
    /// (`docs/decisions/2026-11-22-exit-on-failed-write.md`). Less than a sector, or more than was
    /// asked for, is a disk that does not do what it is told: `EIO`.
    pub fn handle_result(mut self, result: Result<u32, IoFailure>) -> WriteStep {
        let left = self.write.block.len() - self.written;
        let count = match result {
            Ok(count) => count as usize,
            Err(failure) => return self.end(Err(failure)),
        };
        if count == left {
            return self.end(Ok(()));
        }
        if !(SECTOR_SIZE..left).contains(&count) {
            return self.end(Err(IoFailure::IO));
        }
        self.written += count / SECTOR_SIZE * SECTOR_SIZE;
        WriteStep::Rest(self)
    }

    const fn end(&self, result: Result<(), IoFailure>) -> WriteStep {
        let ticket = self.write.ticket;
        WriteStep::Done(WriteDone { ticket, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BLOCK_SIZE_MAX;
    use crate::storage::WriteTicket;
    use crate::storage::buffer::Arena;

    /// Eight sectors at 40960.
    fn unfinished() -> UnfinishedWrite {
        let mut arena = Arena::new(4 * BLOCK_SIZE_MAX);
        let mut open = arena.open().expect("it is empty");
        for (index, byte) in open.bytes()[..8 * SECTOR_SIZE].iter_mut().enumerate() {
            *byte = (index / SECTOR_SIZE) as u8;
        }
        UnfinishedWrite::new(BlockWrite {
            ticket: WriteTicket(7),
            segment: SegmentId::ZERO.next(),
            offset: 40_960,
            block: arena.seal(open, 8 * SECTOR_SIZE),
        })
    }

    /// Feeds results; gives what was asked for as (offset, bytes), and how it ended.
    fn run(results: &[Result<u32, IoFailure>]) -> (Vec<(u64, usize)>, Option<WriteDone>) {
        let mut write = unfinished();
        let mut asked = vec![(write.offset(), write.bytes().len())];
        for (index, result) in results.iter().enumerate() {
            match write.handle_result(*result) {
                WriteStep::Done(done) => {
                    assert_eq!(index + 1, results.len(), "over before all results");
                    return (asked, Some(done));
                }
                WriteStep::Rest(rest) => write = rest,
            }
            let first = (write.offset() - 40_960) as usize / SECTOR_SIZE;
            assert_eq!(usize::from(write.bytes()[0]), first, "the rest itself");
            asked.push((write.offset(), write.bytes().len()));
        }
        (asked, None)
    }

    #[test]
    fn what_each_result_means() {
        const ALL: (u64, usize) = (40_960, 32_768);
        const LAST: (u64, usize) = (69_632, 4_096);
        let failed = |code| Some(Err(IoFailure(code)));
        let table = [
            (vec![Ok(32_768)], vec![ALL], Some(Ok(()))),
            // Short, at a sector and within one: goes on with whole sectors, or ends well.
            (vec![Ok(28_672)], vec![ALL, LAST], None),
            (vec![Ok(32_767)], vec![ALL, LAST], None),
            (vec![Ok(32_256), Ok(4_096)], vec![ALL, LAST], Some(Ok(()))),
            (
                vec![Ok(4_096), Ok(8_191), Ok(24_576)],
                vec![ALL, (45_056, 28_672), (49_152, 24_576)],
                Some(Ok(())),
            ),
            // No progress: it would never end.
            (vec![Ok(0)], vec![ALL], failed(5)),
            (vec![Ok(4_095)], vec![ALL], failed(5)),
            (vec![Ok(28_672), Ok(512)], vec![ALL, LAST], failed(5)),
            // More than was asked for: whose bytes were those?
            (vec![Ok(32_769)], vec![ALL], failed(5)),
            (vec![Ok(28_672), Ok(32_768)], vec![ALL, LAST], failed(5)),
            // A reported failure ends it, also behind a part that went well.
            (vec![Err(IoFailure::IO)], vec![ALL], failed(5)),
            (vec![Err(IoFailure::NO_SPACE)], vec![ALL], failed(28)),
            (vec![Err(IoFailure(22))], vec![ALL], failed(22)),
            (
                vec![Ok(28_672), Err(IoFailure(27))],
                vec![ALL, LAST],
                failed(27),
            ),
        ];
        for (results, asked, end) in table {
            let done = end.map(|result| WriteDone {
                ticket: WriteTicket(7),
                result,
            });
            assert_eq!(run(&results), (asked, done), "{results:?}");
        }
    }
}
