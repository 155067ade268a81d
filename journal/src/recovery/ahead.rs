//! Looking ahead from where the chain broke, to gather the facts that the table decides on.
//!
//! Looked at: the rest of the segment, the whole segment behind it, the first blocks of those
//! further on, and the files of newer epochs that left no sound first block. At each 4 KiB: is
//! there a sound block that belongs there?

use super::error::{Problem, RecoveryError, Unread};
use super::survey::{Head, Survey};
use super::table::{Acked, Facts, Later, Place, Stopped};
use super::walk::{Break, Expected};
use super::{ByteRange, Evidence};
use crate::format::{
    BLOCK_SIZE_MAX, BlockHeader, FormatError, INFLIGHT_BLOCKS_MAX, SECTOR_SIZE, SEGMENT_HEAD_SIZE,
    SegmentHead,
};
use crate::reader::{Look, ReadError, ReadRequest, Stream, look_at};
use crate::{Epoch, Lsn};

/// A part of a file to look at.
struct Region {
    /// Index in the survey.
    file: usize,
    from: u64,
    end: u64,
    /// Whether the missing block's place is at its start.
    is_candidate: bool,
    /// What is there, if it is a candidate.
    place: Place,
    /// Whether a sound later block lies at its very start, so that the missing one does not.
    is_taken: bool,
    /// Whether a newer epoch owns it and may have written to it.
    is_begun: bool,
    /// Behind the last byte that must go to quarantine if the tail is cut.
    keep_upto: u64,
}

pub(super) struct Ahead {
    regions: Vec<Region>,
    region: usize,
    stream: Option<Stream>,
    expected: Expected,
    window: u64,
    later: Later,
    /// Region of the block that made `later` what it is.
    proof: Option<usize>,
    /// LSN of the first later block: what is missing ends before it.
    later_lsn: Option<Lsn>,
    /// The first part that could not be read.
    unread: Option<Unread>,
}

impl Ahead {
    /// `epoch`: the newest that left blocks; zero if none did.
    pub(super) fn new(
        survey: &Survey,
        broken: Break,
        epoch: Epoch,
        expected: Expected,
    ) -> Result<Self, RecoveryError> {
        let mut ahead = Self {
            regions: Vec::new(),
            region: 0,
            stream: None,
            expected,
            window: INFLIGHT_BLOCKS_MAX,
            later: Later::None,
            proof: None,
            later_lsn: None,
            unread: None,
        };
        if let Some(index) = broken.file {
            let file = &survey.files[index];
            let left = file.size - broken.offset;
            ahead.add(survey, index, broken.offset, true)?;
            if let Some(next) = survey.find(epoch, file.segment.next()) {
                let from = SEGMENT_HEAD_SIZE as u64;
                ahead.add(survey, next, from, left < BLOCK_SIZE_MAX as u64)?;
            }
        }
        // Segments further ahead are not read, but the survey saw how they begin; only of tiny
        // ones can more than the next hold a block that was in flight.
        let is_further = |&index: &usize| broken.file < Some(index);
        let begun = |index: usize| survey.files[index].first.map(|(header, _)| (index, header));
        for (index, header) in survey.files_of(epoch).filter(is_further).filter_map(begun) {
            ahead.weigh(&header, None);
            let is_read = ahead.regions.iter().any(|region| region.file == index);
            if !is_read && header.number < expected.number.plus(ahead.window) {
                ahead.add(survey, index, SEGMENT_HEAD_SIZE as u64, false)?;
            }
        }
        let newer = survey.files.partition_point(|file| file.epoch <= epoch);
        for index in newer..survey.files.len() {
            let is_first =
                index == newer || survey.files[index - 1].epoch != survey.files[index].epoch;
            ahead.add(survey, index, SEGMENT_HEAD_SIZE as u64, is_first)?;
        }
        Ok(ahead)
    }

    fn add(
        &mut self,
        survey: &Survey,
        index: usize,
        from: u64,
        is_candidate: bool,
    ) -> Result<(), RecoveryError> {
        survey.check_prepared(index, self.expected.lsn)?;
        let file = &survey.files[index];
        let mut is_begun = false;
        let end = match file.head {
            Head::Sound(head) if file.size < head.size => {
                let problem = Problem::Truncated {
                    expected: head.size,
                    found: file.size,
                };
                let lsn_from = self.expected.lsn;
                return Err(RecoveryError {
                    lsn_from,
                    ..survey.fail(index, problem)
                });
            }
            Head::Sound(head) => {
                self.window = self.window.max(head.inflight_blocks_max.into());
                head.size
            }
            Head::Unsound(_) | Head::Foreign { .. } => {
                file.size / SECTOR_SIZE as u64 * SECTOR_SIZE as u64
            }
            Head::Unreadable(error) => {
                self.note(Later::Unreadable, None);
                self.note_unread(survey, index, 0, error);
                is_begun = true;
                file.size / SECTOR_SIZE as u64 * SECTOR_SIZE as u64
            }
        };
        if from < end {
            self.regions.push(Region {
                file: index,
                from,
                end,
                is_candidate,
                place: if is_candidate {
                    Place::Zero
                } else {
                    Place::None
                },
                is_taken: false,
                is_begun,
                keep_upto: from,
            });
        }
        Ok(())
    }

    fn note(&mut self, later: Later, proof: Option<usize>) {
        if later > self.later || later == self.later && self.proof.is_none() {
            self.later = later;
            self.proof = proof;
        }
    }

    /// Weighs a sound block in its place behind the break.
    fn weigh(&mut self, header: &BlockHeader, region: Option<usize>) {
        let first = self.expected.number;
        let later = if header.durable_upto >= self.expected.lsn {
            Later::ProvesDurable
        } else if header.number > first && header.number < first.plus(self.window) {
            Later::InWindow
        } else {
            Later::BeyondWindow
        };
        self.note(later, region);
        let lsn = self
            .later_lsn
            .map_or(header.first_lsn, |lsn| lsn.min(header.first_lsn));
        self.later_lsn = Some(lsn);
    }

    pub(super) fn request(&mut self, survey: &Survey) -> Option<ReadRequest> {
        while let Some(region) = self.regions.get(self.region) {
            let file = survey.files[region.file].file;
            let (from, end) = (region.from, region.end);
            let stream = self
                .stream
                .get_or_insert_with(|| Stream::new(file, from, end, survey.read_size));
            if let Some(request) = stream.request() {
                return Some(request);
            }
            self.stream = None;
            self.region += 1;
        }
        None
    }

    /// The reads behind the next one.
    pub(super) fn upcoming<'a>(
        &'a self,
        survey: &'a Survey,
    ) -> impl Iterator<Item = ReadRequest> + 'a {
        let here = self.stream.iter().flat_map(Stream::upcoming);
        let regions = self.regions.get(self.region + 1..).unwrap_or_default();
        let behind = regions.iter().flat_map(|region| {
            let file = survey.files[region.file].file;
            Stream::reads(file, region.from, region.end, survey.read_size)
        });
        here.chain(behind)
    }

    pub(super) fn accept(
        &mut self,
        survey: &Survey,
        result: Result<&[u8], ReadError>,
    ) -> Result<(), RecoveryError> {
        let Some(mut stream) = self.stream.take() else {
            return Ok(());
        };
        stream.accept(result);
        while stream.bytes().len() >= SECTOR_SIZE {
            let file = &survey.files[self.regions[self.region].file];
            let head = match file.head {
                Head::Sound(head) => head,
                _ => guessed_head(survey, file, &stream),
            };
            if !self.look(survey, &stream, &head)? {
                break;
            }
            stream.consume(SECTOR_SIZE);
        }
        self.stream = Some(stream);
        Ok(())
    }

    /// Looks at one sector. Returns false when more has to be read to tell.
    fn look(
        &mut self,
        survey: &Survey,
        stream: &Stream,
        head: &SegmentHead,
    ) -> Result<bool, RecoveryError> {
        let offset = stream.offset();
        match look_at(stream, head) {
            Look::NeedMore => return Ok(false),
            Look::Block(block) => self.found(survey, &block.header)?,
            Look::Stale { .. } => self.occupied(offset, Place::Stale),
            Look::Zero => {}
            Look::Damage {
                cause: FormatError::Version { found },
                ..
            } => {
                let file = self.regions[self.region].file;
                let error = survey.fail(file, Problem::Version { found });
                return Err(RecoveryError { offset, ..error });
            }
            Look::Damage { .. } => self.occupied(offset, Place::Torn),
            Look::Unreadable => {
                let file = self.regions[self.region].file;
                self.note_unread(survey, file, offset, stream.error());
                self.unreadable(offset);
            }
        }
        Ok(true)
    }

    /// A sector that is not zero and no block of its place.
    fn occupied(&mut self, offset: u64, place: Place) {
        let region = &mut self.regions[self.region];
        let distance = offset - region.from;
        if distance < self.window * BLOCK_SIZE_MAX as u64 {
            region.keep_upto = region.keep_upto.max(offset + SECTOR_SIZE as u64);
        }
        region.is_begun |= place == Place::Torn;
        if !region.is_candidate {
            return;
        }
        // A sound header of another use at the very place: the disk never got the new one's.
        let is_stale = place == Place::Stale || region.place == Place::Stale;
        if distance == 0 {
            region.place = place;
        } else if distance < BLOCK_SIZE_MAX as u64 && !is_stale && self.later == Later::None {
            region.place = region.place.max(Place::Torn);
        }
    }

    fn note_unread(&mut self, survey: &Survey, file: usize, offset: u64, error: ReadError) {
        let (epoch, segment) = (survey.files[file].epoch, survey.files[file].segment);
        self.unread.get_or_insert(Unread {
            epoch,
            segment,
            offset,
            error,
        });
    }

    pub(super) const fn unread(&self) -> Option<Unread> {
        self.unread
    }

    fn unreadable(&mut self, offset: u64) {
        let region = &mut self.regions[self.region];
        region.is_begun = true;
        if region.is_candidate && offset - region.from < BLOCK_SIZE_MAX as u64 {
            region.place = Place::Unreadable;
        } else {
            self.note(Later::Unreadable, None);
        }
    }

    /// A sound block in its place behind the break.
    fn found(&mut self, survey: &Survey, header: &BlockHeader) -> Result<(), RecoveryError> {
        let region = &mut self.regions[self.region];
        let end = header.offset + u64::from(header.block_size);
        region.keep_upto = region.keep_upto.max(end);
        region.is_begun = true;
        region.is_taken |= header.offset == region.from;
        if !matches!(survey.files[region.file].head, Head::Sound(_)) {
            let lsn_from = self.expected.lsn;
            let error = survey.fail(region.file, survey.head_problem(region.file));
            return Err(RecoveryError { lsn_from, ..error });
        }
        self.weigh(header, Some(self.region));
        Ok(())
    }

    /// All facts, once nothing is left to read. `stopped`: the epoch whose last record is a clean
    /// shutdown; that says nothing about what a newer one began.
    pub(super) fn facts(
        &self,
        survey: &Survey,
        evidence: &Evidence,
        stopped: Option<Epoch>,
    ) -> Facts {
        let is_newer_begun = |epoch: Epoch| {
            let is_begun =
                |region: &Region| region.is_begun && survey.files[region.file].epoch > epoch;
            self.regions.iter().any(is_begun)
        };
        let place = self.regions.iter().map(|region| region.place).max();
        let acked = match evidence.acked_upto() {
            None => Acked::Unknown,
            Some(upto) if upto < self.expected.lsn => Acked::Below,
            Some(_) => Acked::AtOrAbove,
        };
        Facts {
            place: place.unwrap_or(Place::None),
            later: self.later,
            acked,
            stopped: match stopped {
                Some(epoch) if !is_newer_begun(epoch) => Stopped::Yes,
                _ => Stopped::No,
            },
        }
    }

    /// The bytes behind the end that are not zero, for the quarantine.
    pub(super) fn ranges(&self, survey: &Survey) -> Vec<ByteRange> {
        let kept = self.regions.iter().filter(|region| {
            let is_torn = region.is_candidate && region.place == Place::Torn;
            let has_block = self.later == Later::InWindow && region.keep_upto > region.from;
            is_torn || has_block
        });
        kept.map(|region| ByteRange {
            file: survey.files[region.file].file,
            epoch: survey.files[region.file].epoch,
            segment: survey.files[region.file].segment,
            offset: region.from,
            bytes: region.keep_upto - region.from,
        })
        .collect()
    }

    /// The verdict was corruption: names the place and the records.
    pub(super) fn corrupt(
        &self,
        survey: &Survey,
        broken: Break,
        problem: Problem,
        acked: Option<Lsn>,
    ) -> RecoveryError {
        let is_possible = |region: &Region| region.is_candidate && !region.is_taken;
        let proof = self
            .proof
            .filter(|&region| is_possible(&self.regions[region]));
        // A block of a newer epoch says that the chain went on there, in that epoch's first file.
        let proven = self.proof.map(|region| self.regions[region].file);
        let goes_on = |region: &Region| {
            let epoch = |file: usize| survey.files[file].epoch;
            proven.is_some_and(|file| epoch(file) == epoch(region.file))
        };
        // Of equals, the last in this order is taken: the earliest place.
        let worst = self
            .regions
            .iter()
            .rev()
            .filter(|region| is_possible(region));
        let at = match proof {
            Some(region) => Some(&self.regions[region]),
            None => worst.max_by_key(|region| (goes_on(region), region.place)),
        };
        let behind = self.later_lsn.map(|lsn| Lsn::from_raw(lsn.get() - 1));
        let error = match (at, broken.file) {
            (Some(region), _) => RecoveryError {
                offset: region.from,
                ..survey.fail(region.file, problem)
            },
            (None, Some(file)) => RecoveryError {
                offset: broken.offset,
                ..survey.fail(file, problem)
            },
            (None, None) => {
                let missing = survey.missing(Epoch::ZERO, crate::SegmentId::ZERO.next(), Lsn::ZERO);
                RecoveryError { problem, ..missing }
            }
        };
        RecoveryError {
            lsn_from: self.expected.lsn,
            lsn_upto: behind.max(acked),
            ..error
        }
    }
}

/// The head of a segment whose head sector is lost: the file's name says all but the generation,
/// and a pair of epoch and segment is used once only.
fn guessed_head(survey: &Survey, file: &super::survey::Surveyed, stream: &Stream) -> SegmentHead {
    let generation =
        BlockHeader::decode(stream.bytes()).map_or(0, |header| header.place.generation);
    SegmentHead {
        journal: survey.journal,
        shard: survey.shard,
        segment: file.segment,
        generation,
        epoch: file.epoch,
        first_segment: file.segment,
        size: file.size,
        inflight_blocks_max: INFLIGHT_BLOCKS_MAX as u32,
    }
}
