//! Heads and first blocks of a shard's files, and which of them count by what these say.
//!
//! Enough for walking files one after the other. Whether the journal is sound is not known here:
//! that is for the journal crate's recovery ([`crate::look`]).

use std::collections::BTreeMap;

use forebay_journal::format::{
    BlockHeader, FormatError, Record, SECTOR_SIZE, SEGMENT_HEAD_SIZE, SegmentHead,
};
use forebay_journal::reader::ReadError;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{BlockNumber, Epoch, JournalId, SegmentId};

use crate::file::{OpenSegment, read_at};
use crate::horizon::{Expected, Spot};

/// All blocks of an epoch count: no later one seals it.
const NO_LIMIT: u64 = u64::MAX;

/// What the first sector turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Head {
    Sound(SegmentHead),
    /// Sound, but of another file than the name says.
    Foreign(SegmentHead, &'static str),
    Unsound(FormatError),
    Unreadable(ReadError),
}

impl Head {
    /// What is wrong, in words.
    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            Self::Sound(_) => None,
            Self::Foreign(head, differs) => Some(format!(
                "the head is that of segment {} of epoch {}: {differs} differs",
                head.segment, head.epoch
            )),
            Self::Unsound(error) => Some(format!("the head is damaged: {error}")),
            Self::Unreadable(error) => Some(format!("the head cannot be read: {error}")),
        }
    }
}

/// Whether what is in a file counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Blocks up to this number count.
    Counts { upto: u64 },
    /// Prepared, nothing in it yet.
    Spare,
    /// Left from former times, for this reason.
    Leftover(&'static str),
}

/// A file, its head and its first block.
pub(crate) struct Surveyed {
    pub(crate) head: Head,
    /// What to read it by: the head, or one guessed from name and blocks. `None`: nothing in it
    /// can be told from the rest.
    pub(crate) read_as: Option<SegmentHead>,
    pub(crate) first: Option<BlockHeader>,
    pub(crate) standing: Standing,
    start: Option<Start>,
}

#[derive(Clone, Copy)]
struct Start {
    /// Epoch and block that an epoch start names.
    seal: Option<(Epoch, BlockNumber)>,
    oldest: SegmentId,
}

/// Looks at the files of one shard, in their order.
pub(crate) fn survey(
    journal: JournalId,
    files: &[OpenSegment],
    buffer: &mut ReadBuffer,
) -> Vec<Surveyed> {
    let mut surveyed: Vec<_> = files
        .iter()
        .map(|file| look(journal, file, buffer))
        .collect();
    let Some(newest) = (0..files.len())
        .rev()
        .find(|&index| surveyed[index].start.is_some())
    else {
        return surveyed;
    };
    let limits = limits(files, &surveyed, newest);
    let oldest = oldest_needed(files, &surveyed, newest, buffer);
    for index in 0..files.len() {
        surveyed[index].standing = standing(files, &surveyed, index, oldest, &limits);
    }
    surveyed
}

/// The oldest segment needed, as the last record of the newest file says that speaks of it.
fn oldest_needed(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    newest: usize,
    buffer: &mut ReadBuffer,
) -> SegmentId {
    let one = &surveyed[newest];
    let mut oldest = one.start.map_or(SegmentId::ZERO, |start| start.oldest);
    let Some(head) = one.read_as else {
        return oldest;
    };
    let mut offset = SEGMENT_HEAD_SIZE as u64;
    let mut expected: Option<Expected> = None;
    while let Some(block) = files[newest].block(&head, offset, buffer) {
        if expected.is_some_and(|expected| expected.differs(&block.header).is_some()) {
            break;
        }
        for (_, _, record) in block.records().flatten() {
            oldest = oldest.max(start_of(&record).map_or(oldest, |start| start.oldest));
        }
        let spot = Spot {
            file: newest,
            offset,
        };
        offset += u64::from(block.header.block_size);
        expected = Some(Expected::after(spot, &block.header));
    }
    oldest
}

fn look(journal: JournalId, file: &OpenSegment, buffer: &mut ReadBuffer) -> Surveyed {
    let head = head_of(journal, file);
    let read_as = match head {
        Head::Sound(head) => Some(head),
        _ => guessed_head(journal, file, buffer),
    };
    let block = read_as.and_then(|head| file.block(&head, SEGMENT_HEAD_SIZE as u64, buffer));
    let start = block
        .as_ref()
        .and_then(|block| match block.records().next() {
            Some(Ok((_, _, record))) => start_of(&record),
            _ => None,
        });
    Surveyed {
        head,
        read_as,
        first: block.map(|block| block.header),
        standing: Standing::Spare,
        start,
    }
}

fn head_of(journal: JournalId, file: &OpenSegment) -> Head {
    let sector = match &file.head {
        Ok(sector) => sector,
        Err(error) => return Head::Unreadable(*error),
    };
    let head = match SegmentHead::decode(sector) {
        Ok(head) => head,
        Err(error) => return Head::Unsound(error),
    };
    let checks = [
        ("journal", head.journal == journal),
        ("shard", head.shard == file.name.shard),
        ("epoch", head.epoch == file.name.epoch),
        ("segment", head.segment == file.name.segment),
    ];
    match checks.iter().find(|(_, is_same)| !is_same) {
        Some(&(differs, _)) => Head::Foreign(head, differs),
        None => Head::Sound(head),
    }
}

/// The head of a file whose own is lost, from its name and from a block that bears that name.
///
/// `None`: no such block is near the start of the file.
fn guessed_head(
    journal: JournalId,
    file: &OpenSegment,
    buffer: &mut ReadBuffer,
) -> Option<SegmentHead> {
    let size = file.size / SECTOR_SIZE as u64 * SECTOR_SIZE as u64;
    let first = SEGMENT_HEAD_SIZE as u64;
    let end = size.saturating_sub(first).min(buffer.len() as u64) as usize;
    read_at(&file.file, first, &mut buffer[..end]).ok()?;
    let headers = buffer[..end]
        .chunks(SECTOR_SIZE)
        .flat_map(BlockHeader::decode);
    let name = &file.name;
    let is_ours = |place: &SegmentHead| {
        (place.journal, place.shard, place.epoch, place.segment)
            == (journal, name.shard, name.epoch, name.segment)
    };
    let place = headers.map(|header| header.place).find(is_ours)?;
    Some(SegmentHead { size, ..place })
}

fn start_of(record: &Record<'_>) -> Option<Start> {
    match *record {
        Record::EpochStart {
            sealed_epoch,
            sealed_block,
            oldest_segment: oldest,
            ..
        } => Some(Start {
            seal: Some((sealed_epoch, sealed_block)),
            oldest,
        }),
        Record::Retained {
            oldest_segment: oldest,
            ..
        } => Some(Start { seal: None, oldest }),
        _ => None,
    }
}

/// Epochs that count, each with the last block of it that does.
fn limits(files: &[OpenSegment], surveyed: &[Surveyed], newest: usize) -> BTreeMap<Epoch, u64> {
    let mut limits = BTreeMap::new();
    let (mut epoch, mut limit) = (files[newest].name.epoch, NO_LIMIT);
    while limits.insert(epoch, limit).is_none() {
        let starts = files
            .iter()
            .zip(surveyed)
            .filter(|(file, _)| file.name.epoch == epoch);
        let seal = starts.filter_map(|(_, one)| one.start?.seal).next();
        let Some((older, block)) = seal else {
            break;
        };
        (epoch, limit) = (older, block.get());
    }
    limits
}

fn standing(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    index: usize,
    oldest: SegmentId,
    limits: &BTreeMap<Epoch, u64>,
) -> Standing {
    let name = &files[index].name;
    if name.segment < oldest {
        return Standing::Leftover("below the oldest segment needed");
    }
    let newest = limits.keys().next_back().copied().unwrap_or_default();
    let Some(&upto) = limits.get(&name.epoch) else {
        return if name.epoch > newest {
            Standing::Spare
        } else {
            Standing::Leftover("its epoch never served")
        };
    };
    let is_used = match surveyed[index].first {
        Some(first) => first.number.get() <= upto,
        // Its first block is damaged if a later segment of its epoch has one that counts.
        None => (index + 1..files.len()).any(|later| {
            let first = surveyed[later].first.map(|first| first.number.get());
            files[later].name.epoch == name.epoch && first.is_some_and(|first| first <= upto)
        }),
    };
    match (is_used, name.epoch == newest) {
        (true, _) => Standing::Counts { upto },
        (false, true) => Standing::Spare,
        (false, false) => Standing::Leftover("behind the seal of its epoch"),
    }
}
