//! The end of a journal that grows while it is read.
//!
//! Places are not read at one instant: a block that was missing when its place was read may have
//! arrived by the time a later one was found, which looks like damage. Whoever reads the place
//! again sees the truth, because a block is written only after those it depends on are durable.

use forebay_journal::format::{BlockHeader, Checksum, SEGMENT_HEAD_SIZE};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{BlockNumber, Lsn};

use crate::file::OpenSegment;
use crate::survey::{Standing, Surveyed};

/// A place in the files of a shard, by the file's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) file: usize,
    pub(crate) offset: u64,
}

/// What the next block of the chain must say, and behind which place it comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) behind: Spot,
    pub(crate) number: BlockNumber,
    pub(crate) lsn: Lsn,
    previous: Checksum,
}

impl Expected {
    /// What follows a block that starts at `spot`.
    pub(crate) fn after(spot: Spot, header: &BlockHeader) -> Self {
        let offset = spot.offset + u64::from(header.block_size);
        Self {
            behind: Spot { offset, ..spot },
            number: header.number.next(),
            lsn: header.next_lsn(),
            previous: header.identity,
        }
    }

    /// The header field that shows that this is not the next block.
    pub(crate) fn differs(&self, header: &BlockHeader) -> Option<&'static str> {
        let checks = [
            ("number", header.number == self.number),
            ("first_lsn", header.first_lsn == self.lsn),
            ("previous", header.previous == self.previous),
        ];
        checks
            .iter()
            .find(|(_, is_same)| !is_same)
            .map(|&(field, _)| field)
    }
}

/// Reads the next block of the chain, wherever it may lie.
pub(crate) fn next_block(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    expected: &Expected,
    buffer: &mut ReadBuffer,
) -> Option<(Spot, BlockHeader)> {
    let behind = expected.behind;
    let from = &files[behind.file].name;
    let first = SEGMENT_HEAD_SIZE as u64;
    let begins_epoch = |index: &usize| {
        files[*index].name.epoch > from.epoch
            && files[*index].name.epoch != files[index - 1].name.epoch
    };
    let follows = |index: &usize| {
        files[*index].name.epoch == from.epoch && files[*index].name.segment == from.segment.next()
    };
    let others =
        (behind.file + 1..files.len()).filter(|index| follows(index) || begins_epoch(index));
    let others = others.map(|file| Spot {
        file,
        offset: first,
    });
    for spot in std::iter::once(behind).chain(others) {
        let Some(read_as) = surveyed[spot.file].read_as else {
            continue;
        };
        let block = files[spot.file].block(&read_as, spot.offset, buffer);
        if let Some(block) = block.filter(|block| expected.differs(&block.header).is_none()) {
            return Some((spot, block.header));
        }
    }
    None
}

/// Follows the chain up to record `lsn`. Returns where it lies, if by now it has arrived.
///
/// Cost: reads the blocks of one segment, or a little more.
pub(crate) fn find_arrived(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    lsn: Lsn,
    buffer: &mut ReadBuffer,
) -> Option<Spot> {
    let is_below = |one: &Surveyed| {
        let is_counted = matches!(one.standing, Standing::Counts { .. });
        is_counted && one.first.is_some_and(|first| first.next_lsn() <= lsn)
    };
    let file = surveyed.iter().rposition(is_below)?;
    let offset = SEGMENT_HEAD_SIZE as u64;
    let first = surveyed[file].first?;
    let mut expected = Expected::after(Spot { file, offset }, &first);
    loop {
        let (spot, header) = next_block(files, surveyed, &expected, buffer)?;
        if header.next_lsn() > lsn {
            return Some(spot);
        }
        expected = Expected::after(spot, &header);
    }
}
