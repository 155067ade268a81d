//! The first look: the head and the first block of each segment file, before any scan.
//!
//! Yields the seal table (each epoch's first block names where the one before it ends), where the
//! walk to the end of the log may begin, and the order in which to walk. A segment that nothing
//! needs may be damaged in any way: no more is asked of one than what lies behind it.

use std::collections::BTreeMap;

use super::error::{Problem, RecoveryError};
use super::{POSITION_MAX, RecoveryInput, Seal, SegmentFile, SpareFile};
use crate::format::{
    BLOCK_SIZE_MAX, Block, BlockHeader, Checksum, FormatError, Record, SEGMENT_HEAD_SIZE,
    SegmentHead,
};
use crate::reader::{Look, ReadError, ReadRequest, Stream, look_at};
use crate::{BlockNumber, Epoch, JournalId, Lsn, SegmentId, ShardId};

/// Largest segment a [`crate::Location`] can point into, in bytes.
const SEGMENT_SIZE_MAX: u64 = 1 << 44;

/// Bytes read of each segment for its first block, whatever size that has: one read for each.
const FIRST_READ_BYTES: u32 = BLOCK_SIZE_MAX as u32;

/// What the head sector turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    Sound(SegmentHead),
    /// Sound, but of another file than the name says.
    Foreign {
        head: SegmentHead,
        differs: &'static str,
    },
    Unsound(FormatError),
    Unreadable(ReadError),
}

/// What sound blocks prove to have been durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    number: BlockNumber,
    durable_upto: Lsn,
}

impl Proof {
    pub(super) fn of(header: &BlockHeader) -> Self {
        Self {
            number: header.number,
            durable_upto: header.durable_upto,
        }
    }

    /// What both prove.
    pub(super) fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self {
            number: self.number.max(other.number),
            durable_upto: self.durable_upto.max(other.durable_upto),
        }
    }

    /// Whether everything before this block was durable: block n is not written before block n - W
    /// is. What is durable up to its first record says nothing of an idle seal before it.
    pub(super) fn covers_before(&self, first: &BlockHeader, window: u32) -> bool {
        self.durable_upto >= first.first_lsn
            || self.number.next() >= first.number.plus(window.into())
    }
}

/// The first record of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    EpochStart { seal: Seal, oldest: SegmentId },
    Retained { oldest: SegmentId },
}

impl Opening {
    pub(super) fn oldest(self) -> SegmentId {
        match self {
            Self::EpochStart { oldest, .. } | Self::Retained { oldest } => oldest,
        }
    }
}

/// Whether all blocks before the first one of a segment were durable once: then that block counts,
/// whatever became of the segments before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// No other segment's first block tells; its own blocks were not looked at.
    Unknown,
    /// A block that can be trusted says so.
    Durable,
    /// Its own blocks do not tell either.
    Doubtful,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Surveyed {
    pub(super) file: u32,
    pub(super) epoch: Epoch,
    pub(super) segment: SegmentId,
    pub(super) size: u64,
    pub(super) head: Head,
    /// First block and first record, if both are sound.
    pub(super) first: Option<(BlockHeader, Opening)>,
    pub(super) before: Before,
}

impl Surveyed {
    /// Where its blocks lie: from there up to there. None if that is not known.
    fn blocks(&self) -> Option<[u64; 2]> {
        match self.head {
            Head::Sound(head) => Some([SEGMENT_HEAD_SIZE as u64, head.size.min(self.size)]),
            _ => None,
        }
    }
}

/// One epoch to walk, from one of its segments on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    /// Index of the segment in [`Survey::files`].
    pub(super) first: usize,
    /// Where the epoch ends; `None` for the newest.
    pub(super) seal: Option<Seal>,
}

pub(super) struct Survey {
    pub(super) journal: JournalId,
    pub(super) shard: ShardId,
    pub(super) read_size: u32,
    /// The block that the identifier ring names last.
    named: Option<(BlockNumber, Checksum)>,
    /// Sorted by epoch, then segment.
    pub(super) files: Vec<Surveyed>,
    next: usize,
    stream: Option<Stream>,
}

impl Survey {
    pub(super) fn new(input: &RecoveryInput<'_>) -> Result<Self, RecoveryError> {
        let mut files = Vec::with_capacity(input.segments.len());
        for segment in &input.segments {
            files.push(surveyed(input, segment)?);
        }
        files.sort_by_key(|file| (file.epoch, file.segment, file.file));
        Ok(Self {
            journal: input.journal,
            shard: input.shard,
            read_size: input.read_size_bytes,
            named: input.evidence.ring_block,
            files,
            next: 0,
            stream: None,
        })
    }

    /// Whether a block is not the one that the identifier ring names under its number.
    pub(super) fn is_misnamed(&self, header: &BlockHeader) -> bool {
        self.named.is_some_and(|(number, identity)| {
            number == header.number && identity != header.identity
        })
    }

    /// The next read; `None` when the survey is done.
    pub(super) fn request(&mut self) -> Option<ReadRequest> {
        while let Some(file) = self.files.get(self.next) {
            let Some([from, end]) = file.blocks() else {
                self.next += 1;
                continue;
            };
            let stream = self
                .stream
                .get_or_insert_with(|| Stream::new(file.file, from, end, FIRST_READ_BYTES));
            if let Some(request) = stream.request() {
                return Some(request);
            }
            self.stream = None;
            self.next += 1;
        }
        None
    }

    /// The reads behind the next one, if the first block of each file comes with the first read.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = ReadRequest> + '_ {
        let files = self.files.get(self.next + 1..).unwrap_or_default().iter();
        files.filter_map(|file| {
            let [from, end] = file.blocks()?;
            Stream::reads(file.file, from, end, FIRST_READ_BYTES).next()
        })
    }

    /// All reads of a file that is walked.
    pub(super) fn reads_of(&self, index: usize) -> impl Iterator<Item = ReadRequest> + use<> {
        let file = &self.files[index];
        let [from, end] = file.blocks().unwrap_or_default();
        Stream::reads(file.file, from, end, self.read_size)
    }

    /// All first blocks were looked at: notes before which ones everything was durable.
    ///
    /// A block proves what its `durable_upto` says, and all blocks that cannot have been in flight
    /// with it; an epoch start stands behind the seal of the epoch before.
    pub(super) fn settle(&mut self) {
        let mut proof: Option<(Epoch, Proof)> = None;
        for file in self.files.iter_mut().rev() {
            let (Some((header, opening)), Head::Sound(head)) = (file.first, file.head) else {
                continue;
            };
            let others = proof.filter(|(epoch, _)| *epoch == file.epoch);
            let all = Proof::of(&header).and(others.map(|(_, others)| others));
            proof = Some((file.epoch, all));
            let is_start = matches!(opening, Opening::EpochStart { .. });
            if is_start || all.covers_before(&header, head.inflight_blocks_max) {
                file.before = Before::Durable;
            }
        }
    }

    /// Notes what the blocks of a segment say about those before it.
    pub(super) fn set_before(&mut self, index: usize, before: Before) {
        self.files[index].before = before;
    }

    pub(super) fn accept(&mut self, result: Result<&[u8], ReadError>) -> Result<(), RecoveryError> {
        let Some(mut stream) = self.stream.take() else {
            return Ok(());
        };
        let file = &mut self.files[self.next];
        let Head::Sound(head) = file.head else {
            return Ok(());
        };
        stream.accept(result);
        match look_at(&stream, &head) {
            Look::NeedMore => {
                self.stream = Some(stream);
                return Ok(());
            }
            Look::Block(block) => {
                let opening = opening_of(&block, &head);
                let opening = opening.map_err(|problem| self.fail(self.next, problem))?;
                self.files[self.next].first = opening.map(|opening| (block.header, opening));
            }
            Look::Damage {
                cause: FormatError::Version { found },
                ..
            } => return Err(self.fail(self.next, Problem::Version { found })),
            // Old blocks begin here too, so this is no message's body: a writer's mistake.
            Look::Damage {
                cause: FormatError::Field { name, value },
                ..
            } => {
                let is_position = name == "number" || name == "first_lsn";
                return Err(self.fail(
                    self.next,
                    if is_position && value != 0 {
                        Problem::Exhausted { field: name, value }
                    } else {
                        Problem::Illegal(FormatError::Field { name, value })
                    },
                ));
            }
            _ => {}
        }
        self.next += 1;
        Ok(())
    }

    pub(super) fn fail(&self, index: usize, problem: Problem) -> RecoveryError {
        let file = &self.files[index];
        RecoveryError {
            problem,
            file: Some(file.file),
            shard: self.shard,
            epoch: file.epoch,
            segment: file.segment,
            offset: match problem {
                Problem::Head(_) => 0,
                _ => SEGMENT_HEAD_SIZE as u64,
            },
            lsn_from: Lsn::ZERO,
            lsn_upto: None,
        }
    }

    pub(super) fn missing(&self, epoch: Epoch, segment: SegmentId, lsn: Lsn) -> RecoveryError {
        RecoveryError {
            problem: Problem::SegmentMissing,
            file: None,
            shard: self.shard,
            epoch,
            segment,
            offset: 0,
            lsn_from: lsn,
            lsn_upto: None,
        }
    }

    pub(super) fn find(&self, epoch: Epoch, segment: SegmentId) -> Option<usize> {
        let key = (epoch, segment);
        self.files
            .binary_search_by_key(&key, |file| (file.epoch, file.segment))
            .ok()
    }

    /// Files of one epoch, as indices.
    pub(super) fn files_of(&self, epoch: Epoch) -> core::ops::Range<usize> {
        let from = self.files.partition_point(|file| file.epoch < epoch);
        from..self.files.partition_point(|file| file.epoch <= epoch)
    }

    /// First and last segment of an epoch whose first block is sound, if there is one.
    pub(super) fn spanned(&self, epoch: Epoch) -> Option<(usize, usize)> {
        let is_open = |&index: &usize| self.files[index].first.is_some();
        let mut files = self.files_of(epoch);
        let first = files.find(is_open)?;
        let last = files.rev().find(is_open).unwrap_or(first);
        Some((first, last))
    }

    /// Likewise, if the epoch served: one of them stands behind what was durable, or the first file
    /// says that what was before it is not needed.
    ///
    /// Without that it either never served or is damaged; the look ahead tells which.
    pub(super) fn opened(&self, epoch: Epoch) -> Option<(usize, usize)> {
        let (first, last) = self.spanned(epoch)?;
        let mut opened = self.files[first..=last].iter();
        let is_certain = opened.any(|file| file.before == Before::Durable);
        let is_whole = first == self.files_of(epoch).start;
        (is_certain || is_whole).then_some((first, last))
    }

    /// Where the walk to the end of the log begins: at the last segment, and if nothing shows that
    /// what is before that one was durable, at the last of which that is known.
    ///
    /// So what is damaged before says nothing, and what may be missing before is met by the walk.
    pub(super) fn rehearsal(&self) -> Option<usize> {
        let mut epochs: Vec<Epoch> = self.files.iter().rev().map(|file| file.epoch).collect();
        epochs.dedup();
        epochs.into_iter().find_map(|epoch| {
            let (first, last) = self.spanned(epoch)?;
            if self.files[last].before != Before::Doubtful {
                return Some(last);
            }
            self.opened(epoch)?;
            let is_certain = |&index: &usize| {
                let file = &self.files[index];
                file.first.is_some() && file.before == Before::Durable
            };
            Some((first..=last).rev().find(is_certain).unwrap_or(first))
        })
    }

    /// The newest epoch that has a start.
    pub(super) fn newest(&self) -> Option<Epoch> {
        let mut epochs = self.files.iter().rev().map(|file| file.epoch);
        epochs.find(|&epoch| self.opened(epoch).is_some())
    }

    /// The epochs to walk, oldest first, beginning with segment `start`.
    pub(super) fn legs(&self, start: SegmentId) -> Result<Vec<Leg>, RecoveryError> {
        let mut legs = Vec::new();
        let mut epoch = self.newest();
        let mut seal = None;
        // One that a later one seals served, whatever is left of its beginning.
        while let Some((first, last)) = epoch.and_then(|epoch| self.spanned(epoch)) {
            let file = &self.files[first];
            if start >= file.segment && start <= self.files[last].segment {
                legs.push(Leg {
                    first: self.start_at(file.epoch, start)?,
                    seal,
                });
                legs.reverse();
                return Ok(legs);
            }
            match file.first {
                // Nothing older ever counted, whatever numbers were prepared.
                Some((
                    _,
                    Opening::EpochStart {
                        seal: Seal::NONE, ..
                    },
                )) if start < file.segment => {
                    legs.push(Leg { first, seal });
                    legs.reverse();
                    return Ok(legs);
                }
                Some((_, Opening::EpochStart { seal: older, .. })) if start < file.segment => {
                    legs.push(Leg { first, seal });
                    if self.spanned(older.epoch).is_none() {
                        return Err(self.epoch_missing(older, start));
                    }
                    (epoch, seal) = (Some(older.epoch), Some(older));
                }
                _ => return Err(self.unopened(file.epoch, start)),
            }
        }
        Ok(legs)
    }

    fn start_at(&self, epoch: Epoch, start: SegmentId) -> Result<usize, RecoveryError> {
        match self.find(epoch, start) {
            Some(index) if self.files[index].first.is_some() => Ok(index),
            _ => Err(self.unopened(epoch, start)),
        }
    }

    /// The segment to start with is not usable: names it, or the damaged one that hides it.
    fn unopened(&self, epoch: Epoch, start: SegmentId) -> RecoveryError {
        let is_open = |&index: &usize| self.files[index].first.is_some();
        let used = self.files_of(epoch).rev().find(is_open).unwrap_or(0);
        let is_hidden = |&index: &usize| {
            let file = &self.files[index];
            file.segment >= start && file.first.is_none() && index < used
        };
        match self.files_of(epoch).find(is_hidden) {
            Some(index) => self.fail(index, self.head_problem(index)),
            None => self.missing(epoch, self.lost_before(used, start), Lsn::ZERO),
        }
    }

    /// The first segment at or above `start` that the epoch of file `used` had and that is not
    /// there.
    fn lost_before(&self, used: usize, start: SegmentId) -> SegmentId {
        let Some(file) = self.files.get(used) else {
            return start;
        };
        let Head::Sound(head) = file.head else {
            return start;
        };
        let mut segment = head.first_segment.max(start);
        while segment < file.segment && self.find(file.epoch, segment).is_some() {
            segment = segment.next();
        }
        segment
    }

    fn epoch_missing(&self, seal: Seal, start: SegmentId) -> RecoveryError {
        let problem = Problem::EpochMissing;
        match self.files_of(seal.epoch).next() {
            Some(index) => self.fail(index, self.head_problem(index)),
            None => RecoveryError {
                problem,
                ..self.missing(seal.epoch, start, Lsn::ZERO)
            },
        }
    }

    /// Refuses files under wrong names: they may hold, or hide, what counts. A file that was
    /// being recycled bears the head of a segment that is not needed any more.
    pub(super) fn check_renamed(
        &self,
        newest: Epoch,
        oldest: SegmentId,
    ) -> Result<(), RecoveryError> {
        let is_misplaced = |&index: &usize| {
            let Head::Foreign { head, .. } = self.files[index].head else {
                return false;
            };
            let is_ours = head.journal == self.journal && head.shard == self.shard;
            let is_recent = if is_ours {
                head.epoch
            } else {
                self.files[index].epoch
            } >= newest;
            is_recent && (!is_ours || head.segment >= oldest)
        };
        match (0..self.files.len()).find(is_misplaced) {
            Some(index) => Err(self.fail(index, self.head_problem(index))),
            None => Ok(()),
        }
    }

    /// Segments are prepared one after the other: only the last of an epoch may have no sound head
    /// because that was not finished.
    pub(super) fn check_prepared(&self, index: usize, lsn: Lsn) -> Result<(), RecoveryError> {
        let is_sound = |index: usize| matches!(self.files[index].head, Head::Sound(_));
        let mut later = index + 1..self.files_of(self.files[index].epoch).end;
        if is_sound(index) || !later.any(is_sound) {
            return Ok(());
        }
        Err(RecoveryError {
            lsn_from: lsn,
            ..self.fail(index, self.head_problem(index))
        })
    }

    /// The first segment of an epoch is prepared before all others: if it is missing though one of
    /// them is there, it was lost, perhaps with the epoch's first blocks.
    pub(super) fn check_first_files(&self, newest: Epoch, lsn: Lsn) -> Result<(), RecoveryError> {
        for file in self.files.iter().filter(|file| file.epoch > newest) {
            if let Head::Sound(head) = file.head
                && self.find(file.epoch, head.first_segment).is_none()
            {
                return Err(self.missing(file.epoch, head.first_segment, lsn));
            }
        }
        Ok(())
    }

    /// Names the damage behind an error: what seems to be missing may seem so only because the
    /// first block of a newer epoch's oldest segment is damaged and says no more that it is freed.
    pub(super) fn explain(&self, error: RecoveryError) -> RecoveryError {
        let newest = self.newest().unwrap_or_default();
        let hiding = self.files.iter().position(|file| {
            let mut others = self.files_of(file.epoch);
            let is_headless = file.epoch > newest && file.first.is_none();
            is_headless && others.any(|other| self.files[other].first.is_some())
        });
        let is_explained = |index: usize| match error.problem {
            Problem::SegmentMissing | Problem::EpochMissing => true,
            Problem::Table { .. } => error.file == Some(self.files[index].file),
            _ => false,
        };
        match hiding.filter(|&index| is_explained(index)) {
            Some(index) => self.fail(index, self.head_problem(index)),
            None => error,
        }
    }

    /// Adds to an error at a segment's beginning up to which record its blocks reached, and gives
    /// the file from where on to walk to find out which was the first.
    pub(super) fn locate(&self, mut error: RecoveryError) -> (RecoveryError, Option<usize>) {
        if error.lsn_from != Lsn::ZERO || matches!(error.problem, Problem::Version { .. }) {
            return (error, None);
        }
        let place = (error.epoch, error.segment);
        let opened = |file: &Surveyed| file.first.map(|(header, _)| header.first_lsn);
        let is_behind = |file: &&Surveyed| (file.epoch, file.segment) > place;
        let behind = self.files.iter().filter(is_behind).find_map(opened);
        error.lsn_upto = error.lsn_upto.max(behind.map(Lsn::before));
        let is_before =
            |file: &Surveyed| (file.epoch, file.segment) < place && file.first.is_some();
        let start = self.files.iter().rposition(is_before);
        if start.is_none() && error.segment == SegmentId::ZERO.next() {
            error.lsn_from = Lsn::ZERO.next();
        }
        (error, start)
    }

    pub(super) fn first_lsns(&self) -> BTreeMap<SegmentId, Lsn> {
        let opened = |file: &Surveyed| file.first.map(|(first, _)| (file.segment, first.first_lsn));
        self.files.iter().filter_map(opened).collect()
    }

    /// A file that does not count.
    pub(super) fn spare(&self, index: usize) -> SpareFile {
        let Surveyed {
            file,
            epoch,
            segment,
            size,
            head,
            ..
        } = self.files[index];
        let (generation, is_whole) = match head {
            Head::Sound(head) => (Some(head.generation), head.size <= size),
            Head::Foreign { .. } | Head::Unsound(_) | Head::Unreadable(_) => (None, false),
        };
        SpareFile {
            file,
            epoch,
            segment,
            size,
            generation,
            fault: (!is_whole).then(|| self.head_problem(index)),
        }
    }

    /// What is wrong with a segment whose first block is needed and not sound.
    pub(super) fn head_problem(&self, index: usize) -> Problem {
        match self.files[index].head {
            Head::Unsound(error) => Problem::Head(error),
            Head::Foreign { differs, .. } => Problem::Head(FormatError::Foreign { name: differs }),
            Head::Unreadable(error) => Problem::Unreadable(error),
            Head::Sound(head) if head.size > self.files[index].size => Problem::Truncated {
                expected: head.size,
                found: self.files[index].size,
            },
            Head::Sound(_) => Problem::FirstBlock,
        }
    }
}

fn surveyed(
    input: &RecoveryInput<'_>,
    segment: &SegmentFile<'_>,
) -> Result<Surveyed, RecoveryError> {
    let mut file = Surveyed {
        file: segment.file,
        epoch: segment.epoch,
        segment: segment.segment,
        size: segment.size,
        head: Head::Unsound(FormatError::Magic),
        first: None,
        before: Before::Unknown,
    };
    let problem = match head_of(input, segment) {
        Ok(head) => {
            file.head = head;
            match exhausted(&file) {
                None => return Ok(file),
                Some(problem) => problem,
            }
        }
        Err(problem) => problem,
    };
    Err(RecoveryError {
        problem,
        file: Some(segment.file),
        shard: input.shard,
        epoch: segment.epoch,
        segment: segment.segment,
        offset: 0,
        lsn_from: Lsn::ZERO,
        lsn_upto: None,
    })
}

fn head_of(input: &RecoveryInput<'_>, segment: &SegmentFile<'_>) -> Result<Head, Problem> {
    let bytes = match segment.head {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Head::Unreadable(error)),
    };
    let head = match SegmentHead::decode(bytes) {
        Ok(head) => head,
        Err(FormatError::Version { found }) => return Err(Problem::Version { found }),
        Err(error) => return Ok(Head::Unsound(error)),
    };
    let checks = [
        ("journal", head.journal == input.journal),
        ("shard", head.shard == input.shard),
        ("epoch", head.epoch == segment.epoch),
        ("segment", head.segment == segment.segment),
    ];
    Ok(match checks.iter().find(|(_, is_same)| !is_same) {
        Some(&(differs, _)) => Head::Foreign { head, differs },
        None => Head::Sound(head),
    })
}

fn exhausted(file: &Surveyed) -> Option<Problem> {
    let Head::Sound(head) = file.head else {
        return None;
    };
    let limits = [
        ("segment", file.segment.get(), u64::from(u32::MAX) - 1),
        ("epoch", file.epoch.get(), POSITION_MAX),
        ("generation", head.generation, POSITION_MAX),
        ("size", head.size, SEGMENT_SIZE_MAX),
    ];
    let over = limits.iter().find(|(_, value, max)| value > max);
    over.map(|&(field, value, _)| Problem::Exhausted { field, value })
}

/// Reads the first record of a segment's first block. `None`: it is not an opening; whoever
/// walks there says so.
fn opening_of(block: &Block<'_>, head: &SegmentHead) -> Result<Option<Opening>, Problem> {
    let Some(Ok((_, _, record))) = block.records().next() else {
        return Ok(None);
    };
    let opening = match record {
        Record::Retained { oldest_segment, .. } => Opening::Retained {
            oldest: oldest_segment,
        },
        Record::EpochStart {
            epoch,
            sealed_epoch,
            sealed_lsn,
            sealed_block,
            sealed_checksum,
            oldest_segment,
            ..
        } => {
            let seal = Seal {
                epoch: sealed_epoch,
                lsn: sealed_lsn,
                block: sealed_block,
                checksum: sealed_checksum,
            };
            check_epoch_start(block, head, epoch, &seal)?;
            Opening::EpochStart {
                seal,
                oldest: oldest_segment,
            }
        }
        _ => return Ok(None),
    };
    if opening.oldest() > head.segment || opening.oldest() == SegmentId::ZERO {
        let rule = "the oldest segment needed is not one that exists";
        return Err(Problem::Contradiction { rule });
    }
    Ok(Some(opening))
}

fn check_epoch_start(
    block: &Block<'_>,
    head: &SegmentHead,
    epoch: Epoch,
    seal: &Seal,
) -> Result<(), Problem> {
    let header = &block.header;
    let is_new = seal.epoch == Epoch::ZERO;
    let rules = [
        (
            epoch == head.epoch,
            "an epoch start names another epoch than its block",
        ),
        (seal.epoch < epoch, "an epoch seals itself or a later one"),
        (
            is_new == (*seal == Seal::NONE),
            "a new journal cannot seal anything",
        ),
        (
            seal.lsn.get() < POSITION_MAX,
            "a seal lies beyond all positions",
        ),
        (
            header.first_lsn.get() == seal.lsn.get().wrapping_add(1),
            "an epoch start's LSN is not that behind its seal",
        ),
        (
            header.number.get() == seal.block.get().wrapping_add(1),
            "an epoch start's block is not that behind its seal",
        ),
        (
            header.previous == seal.checksum,
            "an epoch start does not follow the block it seals",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some(&(_, rule)) => Err(Problem::Contradiction { rule }),
        None => Ok(()),
    }
}
