//! Walking the chain of blocks, epoch after epoch, up to the first place where it breaks.
//!
//! Each block must be sound, lie where it says and follow the one before (number, LSN, identity).
//! An older epoch is walked to its seal and no further. Where the newest one breaks is only
//! reported: what that means is for the table to say.

use super::error::{Problem, RecoveryError};
use super::survey::{Before, Head, Leg, Proof, Survey};
use super::{POSITION_MAX, RecordSink, RecoveredSegment, Totals};
use crate::format::{
    BLOCK_SIZE_MAX, Block, BlockHeader, Checksum, FormatError, Record, SEGMENT_HEAD_SIZE,
    SegmentHead,
};
use crate::reader::{Look, ReadError, ReadRequest, Stream, look_at};
use crate::{BlockNumber, Epoch, Location, Lsn, MessageId, QueueId, SegmentId};

/// What the next block of the chain must say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) number: BlockNumber,
    pub(super) lsn: Lsn,
    pub(super) previous: Checksum,
}

impl Expected {
    /// Before the first block of a new journal.
    pub(super) const FIRST: Self = Self {
        number: BlockNumber::ZERO.next(),
        lsn: Lsn::ZERO.next(),
        previous: Checksum::NONE,
    };

    fn from_first(header: &BlockHeader) -> Self {
        Self {
            number: header.number,
            lsn: header.first_lsn,
            previous: header.previous,
        }
    }

    fn differs(&self, header: &BlockHeader) -> Option<&'static str> {
        let checks = [
            ("number", header.number == self.number),
            ("first_lsn", header.first_lsn == self.lsn),
            ("previous", header.previous == self.previous),
        ];
        checks
            .iter()
            .find(|(_, is_same)| !is_same)
            .map(|&(name, _)| name)
    }
}

/// What the records about the journal itself said last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) oldest_segment: SegmentId,
    pub(super) message_floor: MessageId,
    pub(super) queue_floor: QueueId,
    pub(super) is_stopped: bool,
}

/// Where the chain broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// Index of the segment in the survey; `None` if nothing was ever written.
    pub(super) file: Option<usize>,
    /// Byte offset behind the last block.
    pub(super) offset: u64,
}

pub(super) enum Step {
    NeedMore,
    Broken(Break),
}

pub(super) struct Walk {
    legs: Vec<Leg>,
    leg: usize,
    file: usize,
    head: SegmentHead,
    stream: Stream,
    pub(super) expected: Expected,
    pub(super) standing: Standing,
    pub(super) segments: Vec<RecoveredSegment>,
    pub(super) totals: Totals,
    epoch_of_standing: Epoch,
    is_sealed: bool,
    /// Where it began, and what its blocks prove.
    start: usize,
    first: BlockHeader,
    proof: Option<Proof>,
}

impl Walk {
    /// Panics: if `legs` is empty, or its first segment has no sound first block (the survey
    /// gives out no such legs).
    pub(super) fn new(survey: &Survey, legs: Vec<Leg>) -> Result<Self, RecoveryError> {
        let file = legs[0].first;
        let (header, opening) = survey.files[file]
            .first
            .expect("legs start at opened segments");
        let (head, stream) = open(survey, file)?;
        let mut walk = Self {
            legs,
            leg: 0,
            file,
            head,
            stream,
            expected: Expected::from_first(&header),
            standing: Standing {
                oldest_segment: opening.oldest(),
                message_floor: MessageId(0),
                queue_floor: QueueId(0),
                is_stopped: false,
            },
            segments: Vec::new(),
            totals: Totals::default(),
            epoch_of_standing: head.epoch,
            is_sealed: false,
            start: file,
            first: header,
            proof: None,
        };
        walk.enter(survey)?;
        Ok(walk)
    }

    pub(super) fn request(&self) -> Option<ReadRequest> {
        self.stream.request()
    }

    /// The reads behind the next one, if the chain goes on as the survey saw it begin.
    pub(super) fn upcoming<'a>(
        &'a self,
        survey: &'a Survey,
    ) -> impl Iterator<Item = ReadRequest> + 'a {
        let later = self.legs[self.leg + 1..].iter();
        let later = later.flat_map(|leg| files_of(survey, *leg, leg.first));
        let files = files_of(survey, self.legs[self.leg], self.file + 1).chain(later);
        let reads = files.flat_map(|index| survey.reads_of(index));
        self.stream.upcoming().chain(reads)
    }

    pub(super) fn accept(&mut self, result: Result<&[u8], ReadError>) {
        self.stream.accept(result);
    }

    pub(super) fn newest_epoch(&self) -> Epoch {
        self.head.epoch
    }

    /// The segment it began with.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// What is known of the blocks before the first one, now that all behind it were walked. They
    /// may end with a clean shutdown if no more than a retained record is behind it.
    pub(super) fn before(&self) -> Before {
        let window = self.head.inflight_blocks_max;
        if self.totals.records <= 1 {
            return Before::Doubtful;
        }
        let is_covered = |proof: Proof| proof.covers_before(&self.first, window);
        match self.proof.is_some_and(is_covered) {
            true => Before::Durable,
            false => Before::Doubtful,
        }
    }

    /// Walks as far as the bytes reach.
    pub(super) fn step<S: RecordSink>(
        &mut self,
        survey: &Survey,
        sink: &mut S,
    ) -> Result<Step, RecoveryError> {
        loop {
            let is_newest = self.leg + 1 == self.legs.len();
            if self.is_sealed {
                self.next_leg(survey)?;
                continue;
            }
            let is_full = self.stream.offset() >= self.head.size;
            let cause = match look_at(&self.stream, &self.head) {
                Look::NeedMore => return Ok(Step::NeedMore),
                Look::Block(block) => {
                    // The block borrows the stream, so what it changes is kept apart until done.
                    let taken = self.check(survey, &block)?;
                    let standing = self.deliver(survey, &block, sink)?;
                    self.take(taken, standing, survey)?;
                    continue;
                }
                Look::Damage {
                    cause: FormatError::Version { found },
                    ..
                } if !is_full => return Err(self.fail(survey, Problem::Version { found })),
                Look::Damage { cause, .. } if !is_full => {
                    Some(Problem::BeforeSeal { cause: Some(cause) })
                }
                Look::Unreadable => Some(Problem::Unreadable(self.stream.error())),
                Look::Damage { .. } | Look::Stale { .. } | Look::Zero => None,
            };
            if self.next_segment(survey)? {
                continue;
            }
            let broken = Break {
                file: Some(self.file),
                offset: self.stream.offset(),
            };
            return if is_newest {
                self.check_gap(survey)?;
                Ok(Step::Broken(broken))
            } else {
                Err(self.before_seal(survey, cause))
            };
        }
    }

    /// Checks a sound block in its place against the chain.
    fn check(&self, survey: &Survey, block: &Block<'_>) -> Result<BlockHeader, RecoveryError> {
        let header = block.header;
        if let Some(field) = self.expected.differs(&header) {
            return Err(self.fail(survey, Problem::Chain { field }));
        }
        if survey.is_misnamed(&header) {
            let field = "the identity that the identifier ring names";
            return Err(self.fail(survey, Problem::Chain { field }));
        }
        for (field, value) in [
            ("number", header.number.get()),
            ("next_lsn", header.next_lsn().get()),
        ] {
            if value > POSITION_MAX {
                return Err(self.fail(survey, Problem::Exhausted { field, value }));
            }
        }
        Ok(header)
    }

    /// Hands the records of a block to the sink.
    fn deliver<S: RecordSink>(
        &self,
        survey: &Survey,
        block: &Block<'_>,
        sink: &mut S,
    ) -> Result<Standing, RecoveryError> {
        let mut standing = self.standing;
        let is_first_block = self.stream.offset() == SEGMENT_HEAD_SIZE as u64;
        let mut is_first = is_first_block;
        if is_first_block && block.header.is_idle_seal() {
            return Err(self.fail(survey, Problem::FirstBlock));
        }
        for record in block.records() {
            let (lsn, offset, record) =
                record.map_err(|error| self.fail(survey, Problem::Record(error)))?;
            self.apply(&mut standing, &record, is_first)
                .map_err(|rule| self.fail(survey, Problem::Contradiction { rule }))?;
            is_first = false;
            sink.record(
                lsn,
                Location::new(self.head.segment, block.header.offset, offset),
                &record,
            );
        }
        Ok(standing)
    }

    /// Follows a record about the journal itself. Returns the rule that it breaks, if any.
    fn apply(
        &self,
        standing: &mut Standing,
        record: &Record<'_>,
        is_first: bool,
    ) -> Result<(), &'static str> {
        let (oldest, messages, queues) = match *record {
            Record::EpochStart {
                oldest_segment,
                message_floor,
                queue_floor,
                ..
            } if is_first => (oldest_segment, message_floor, queue_floor),
            Record::EpochStart { .. } => return Err("an epoch starts in the middle of a segment"),
            Record::Retained {
                oldest_segment,
                message_floor,
                queue_floor,
            } => (oldest_segment, message_floor, queue_floor),
            _ if is_first => return Err("a segment begins with no retained record"),
            _ if standing.is_stopped => return Err("records follow a clean shutdown"),
            Record::CleanShutdown { .. } => {
                standing.is_stopped = true;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let is_new_epoch = self.head.epoch != self.epoch_of_standing;
        // A block behind it may need a new segment, which says again what is retained.
        if standing.is_stopped && !is_first {
            return Err("records follow a clean shutdown");
        }
        if matches!(record, Record::EpochStart { .. }) && self.totals.blocks > 0 && !is_new_epoch {
            return Err("an epoch starts twice");
        }
        if oldest < standing.oldest_segment || oldest > self.head.segment {
            return Err("the oldest segment needed goes backwards, or beyond the present one");
        }
        if messages < standing.message_floor || queues < standing.queue_floor {
            return Err("a floor of names goes backwards");
        }
        *standing = Standing {
            oldest_segment: oldest,
            message_floor: messages,
            queue_floor: queues,
            is_stopped: standing.is_stopped && !is_new_epoch,
        };
        Ok(())
    }

    /// Moves on behind a block.
    fn take(
        &mut self,
        header: BlockHeader,
        standing: Standing,
        survey: &Survey,
    ) -> Result<(), RecoveryError> {
        self.expected = Expected {
            number: header.number.next(),
            lsn: header.next_lsn(),
            previous: header.identity,
        };
        self.standing = standing;
        self.epoch_of_standing = self.head.epoch;
        self.proof = Some(Proof::of(&header).and(self.proof));
        self.totals.blocks += 1;
        self.totals.records += u64::from(header.record_count);
        self.totals.bytes += u64::from(header.block_size);
        let segment = self
            .segments
            .last_mut()
            .expect("entered before its blocks are walked");
        segment.used_bytes = header.offset + u64::from(header.block_size);
        segment.next_lsn = header.next_lsn();
        self.stream.consume(header.block_size as usize);
        self.check_seal(survey, &header)
    }

    fn check_seal(&mut self, survey: &Survey, header: &BlockHeader) -> Result<(), RecoveryError> {
        let Some(seal) = self.legs[self.leg].seal else {
            return Ok(());
        };
        if header.number < seal.block {
            return Ok(());
        }
        let is_met = header.number == seal.block
            && header.identity == seal.checksum
            && header.next_lsn() == seal.lsn.next();
        if !is_met {
            let rule = "the block that a later epoch names as the seal is another one";
            return Err(self.fail(survey, Problem::Contradiction { rule }));
        }
        self.is_sealed = true;
        Ok(())
    }

    fn next_leg(&mut self, survey: &Survey) -> Result<(), RecoveryError> {
        self.leg += 1;
        self.switch(survey, self.legs[self.leg].first)
    }

    /// Goes on in the next segment of the epoch if the chain does. Returns whether.
    fn next_segment(&mut self, survey: &Survey) -> Result<bool, RecoveryError> {
        let next = survey.find(self.head.epoch, self.head.segment.next());
        let goes_on = next.is_some_and(|index| {
            let first = survey.files[index].first;
            first.is_some_and(|(header, _)| self.expected.differs(&header).is_none())
        });
        match next {
            Some(index) if goes_on => self.switch(survey, index).map(|()| true),
            _ => Ok(false),
        }
    }

    fn switch(&mut self, survey: &Survey, index: usize) -> Result<(), RecoveryError> {
        self.file = index;
        self.is_sealed = false;
        (self.head, self.stream) = open(survey, index)?;
        self.enter(survey)
    }

    fn enter(&mut self, survey: &Survey) -> Result<(), RecoveryError> {
        let file = &survey.files[self.file];
        self.totals.segments += 1;
        self.segments.push(RecoveredSegment {
            file: file.file,
            epoch: file.epoch,
            segment: file.segment,
            generation: self.head.generation,
            size: self.head.size,
            used_bytes: SEGMENT_HEAD_SIZE as u64,
            first_lsn: self.expected.lsn,
            next_lsn: self.expected.lsn,
            first_block: self.expected.number,
        });
        let seal = self.legs[self.leg].seal;
        if seal.is_some_and(|seal| seal.block < self.expected.number) {
            let rule = "an epoch's seal lies before its first block";
            return Err(self.fail(survey, Problem::Contradiction { rule }));
        }
        Ok(())
    }

    /// Segments are prepared in order: a missing one before one that is there was lost.
    fn check_gap(&self, survey: &Survey) -> Result<(), RecoveryError> {
        let next = self.head.segment.next();
        let is_last = survey.files_of(self.head.epoch).end == self.file + 1;
        if is_last || survey.find(self.head.epoch, next).is_some() {
            return Ok(());
        }
        Err(survey.missing(self.head.epoch, next, self.expected.lsn))
    }

    /// `cause`: what is wrong where the next block should be, if something is there.
    fn before_seal(&self, survey: &Survey, cause: Option<Problem>) -> RecoveryError {
        let next = self.head.segment.next();
        let used_upto = survey
            .spanned(self.head.epoch)
            .map_or(self.file, |(_, last)| last);
        let could_be_next = self.head.size - self.stream.offset() < BLOCK_SIZE_MAX as u64;
        let error = match (cause, survey.find(self.head.epoch, next)) {
            (Some(problem), _) => self.fail(survey, problem),
            (None, Some(index)) if could_be_next && survey.files[index].first.is_none() => {
                RecoveryError {
                    lsn_from: self.expected.lsn,
                    ..survey.fail(index, survey.head_problem(index))
                }
            }
            (None, None) if used_upto > self.file || self.stream.offset() >= self.head.size => {
                survey.missing(self.head.epoch, next, self.expected.lsn)
            }
            (None, _) => self.fail(survey, Problem::BeforeSeal { cause: None }),
        };
        RecoveryError {
            lsn_upto: self.legs[self.leg].seal.map(|seal| seal.lsn),
            ..error
        }
    }

    fn fail(&self, survey: &Survey, problem: Problem) -> RecoveryError {
        RecoveryError {
            offset: self.stream.offset(),
            lsn_from: self.expected.lsn,
            ..survey.fail(self.file, problem)
        }
    }
}

/// The segments of a leg from this one on, as far as the survey saw blocks that count.
fn files_of(survey: &Survey, leg: Leg, from: usize) -> impl Iterator<Item = usize> + '_ {
    let is_before_seal = move |header: &BlockHeader| {
        let seal = leg.seal.as_ref();
        seal.is_none_or(|seal| header.number <= seal.block)
    };
    let end = survey.files_of(survey.files[leg.first].epoch).end;
    (from..end).take_while(move |&index| {
        let first = survey.files[index].first.as_ref();
        first.is_some_and(|(header, _)| is_before_seal(header))
    })
}

fn open(survey: &Survey, index: usize) -> Result<(SegmentHead, Stream), RecoveryError> {
    let file = &survey.files[index];
    let Head::Sound(head) = file.head else {
        return Err(survey.fail(index, survey.head_problem(index)));
    };
    if file.size < head.size {
        let problem = Problem::Truncated {
            expected: head.size,
            found: file.size,
        };
        return Err(RecoveryError {
            offset: file.size,
            ..survey.fail(index, problem)
        });
    }
    let stream = Stream::new(
        file.file,
        SEGMENT_HEAD_SIZE as u64,
        head.size,
        survey.read_size,
    );
    Ok((head, stream))
}
