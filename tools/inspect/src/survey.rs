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
use crate::named::Named;

/// Why a file that counted once does not count any more.
pub(crate) const BELOW_START: &str = "below where a replay begins";

/// Why blocks do not count in a file that is kept for the bodies in it.
pub(crate) const BODIES: &str = "below where a replay begins, kept for the bodies in it";

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
    /// No replay reads it, but messages that are alive have their bodies in it, in blocks up to
    /// this number.
    Bodies { upto: u64 },
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
    /// Last block of its epoch that counted, as far as known.
    upto: u64,
    start: Option<Start>,
    /// Of a damaged store: a sound block near the start of a file whose first is not.
    later: Option<BlockHeader>,
}

impl Surveyed {
    /// Number of a block that the file begins with, or nearly so.
    fn begins(&self) -> Option<BlockNumber> {
        self.first.or(self.later).map(|header| header.number)
    }
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
    let surveyed = files.iter().map(|file| look(journal, file, buffer));
    judge(files, surveyed.collect(), buffer)
}

/// The same for a store that is damaged and stays as it is: the first block of a file, or of an
/// epoch, may be the one that is lost, and what is behind it counts all the same.
pub(crate) fn survey_damaged(
    journal: JournalId,
    files: &[OpenSegment],
    buffer: &mut ReadBuffer,
) -> Vec<Surveyed> {
    let surveyed = files.iter().map(|file| {
        let mut one = look(journal, file, buffer);
        if let (None, Some(read_as)) = (one.first, one.read_as) {
            one.later = later_block(&read_as, file, buffer);
        }
        one
    });
    let surveyed = surveyed.collect();
    judge(files, surveyed, buffer)
}

/// The first sound block of a file whose first one is not, if it is near.
fn later_block(
    head: &SegmentHead,
    file: &OpenSegment,
    buffer: &mut ReadBuffer,
) -> Option<BlockHeader> {
    let first = SEGMENT_HEAD_SIZE as u64;
    let end = file.size.min(first + buffer.len() as u64);
    let mut places = (first..end).step_by(SECTOR_SIZE);
    places.find_map(|offset| file.block(head, offset, buffer).map(|block| block.header))
}

/// Tells files that are kept for the bodies in them from those that are left over.
pub(crate) fn mark_bodies(files: &[OpenSegment], surveyed: &mut [Surveyed], needed: &Named) {
    let segments = needed.segments();
    for (file, one) in files.iter().zip(surveyed) {
        // Under a running broker the replay's beginning may have moved since the survey.
        let is_below = file.name.segment < needed.replay_start;
        if is_below && segments.contains(&file.name.segment) {
            one.standing = Standing::Bodies { upto: one.upto };
        } else if is_below {
            one.standing = Standing::Leftover(BELOW_START);
        }
    }
}

fn judge(
    files: &[OpenSegment],
    mut surveyed: Vec<Surveyed>,
    buffer: &mut ReadBuffer,
) -> Vec<Surveyed> {
    let is_begun = |one: &Surveyed| one.start.is_some() || one.later.is_some();
    let Some(newest) = (0..files.len())
        .rev()
        .find(|&index| is_begun(&surveyed[index]))
    else {
        return surveyed;
    };
    let limits = limits(files, &surveyed, newest);
    let oldest = oldest_needed(files, &surveyed, newest, buffer);
    for index in 0..files.len() {
        surveyed[index].standing = standing(files, &surveyed, index, oldest, &limits);
        let upto = limits.get(&files[index].name.epoch);
        surveyed[index].upto = upto.copied().unwrap_or(NO_LIMIT);
    }
    surveyed
}

/// Where a replay begins, as the last record of the newest file says that speaks of it.
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
        upto: NO_LIMIT,
        start,
        later: None,
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
        let seal = seal.map(|(older, block)| (older, block.get()));
        let Some(older) = seal.or_else(|| seal_by_number(files, surveyed, epoch)) else {
            break;
        };
        (epoch, limit) = older;
    }
    limits
}

/// Where the epoch before ended at the latest, if the first block of this one, which would say
/// it, is lost: at least one number was taken by that.
fn seal_by_number(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    epoch: Epoch,
) -> Option<(Epoch, u64)> {
    let first = files.iter().position(|file| file.name.epoch == epoch)?;
    let later = surveyed[first].later?;
    let older = (0..first)
        .rev()
        .find(|&index| surveyed[index].begins().is_some())?;
    Some((
        files[older].name.epoch,
        later.number.get().saturating_sub(2),
    ))
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
        return Standing::Leftover(BELOW_START);
    }
    let newest = limits.keys().next_back().copied().unwrap_or_default();
    let Some(&upto) = limits.get(&name.epoch) else {
        return if name.epoch > newest {
            Standing::Spare
        } else {
            Standing::Leftover("its epoch never served")
        };
    };
    let is_used = match surveyed[index].begins() {
        Some(first) => first.get() <= upto,
        // Its first block is damaged if a later segment of its epoch has one that counts.
        None => (index + 1..files.len()).any(|later| {
            let first = surveyed[later].begins().map(BlockNumber::get);
            files[later].name.epoch == name.epoch && first.is_some_and(|first| first <= upto)
        }),
    };
    match (is_used, name.epoch == newest) {
        (true, _) => Standing::Counts { upto },
        (false, true) => Standing::Spare,
        (false, false) => Standing::Leftover("behind the seal of its epoch"),
    }
}
