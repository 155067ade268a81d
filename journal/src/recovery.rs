//! Opening a journal: which records count, where it goes on, or why it must not be opened.
//!
//! Sans-IO: [`Recovery`] asks for reads, takes the bytes, hands each record that counts to a
//! [`RecordSink`] in LSN order, and ends with a [`Recovered`] or a [`RecoveryError`]. It surveys
//! the first block of each segment (seals), walks the last segment to where the chain of blocks
//! breaks, gathers facts for [`table`], and then walks once over all segments still needed.
//!
//! Which reads probably come next is told as well ([`Recovery::upcoming`]), so that several can be
//! under way; what is decided does not depend on it.
//!
//! Invariants: writes nothing; the same bytes give the same answer; memory is bounded by two reads
//! and a few words per segment. In doubt means faulty, never absent: what may have been
//! acknowledged is never cut. Source: `docs/format.md` 7, 8 and 9.

use std::collections::BTreeMap;

use crate::format::{Checksum, Identifier};
use crate::reader::{READ_SIZE_BYTES, ReadError, ReadRequest};
use crate::{BlockNumber, Epoch, JournalId, Location, Lsn, MessageId, QueueId, SegmentId, ShardId};

mod ahead;
mod error;
pub mod file_name;
mod survey;
pub mod table;
mod walk;

pub use error::{Problem, RecoveryError, Unread};

use ahead::Ahead;
use survey::{Before, Survey};
use table::{Row, Verdict};
use walk::{Break, Expected, Step, Walk};

/// Positions above this one are refused: no honest journal comes near, and none wraps.
pub const POSITION_MAX: u64 = 1 << 62;

/// One segment file of the shard.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFile<'a> {
    /// How its owner names it in reads.
    pub file: u32,
    /// Epoch by its folder's name.
    pub epoch: Epoch,
    /// Segment by its name.
    pub segment: SegmentId,
    /// Bytes in the file.
    pub size: u64,
    /// Its first sector.
    pub head: Result<&'a [u8], ReadError>,
}

/// What others know to be acknowledged in this shard's journal. `None`: nobody was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// From the slots of the lease file.
    pub lease_acked_upto: Option<Lsn>,
    /// From the positions of backups.
    pub peers_acked_upto: Option<Lsn>,
    /// From the identifier ring of strict mode.
    pub ring_acked_upto: Option<Lsn>,
    /// The block that the ring names last, and its identity.
    pub ring_block: Option<(BlockNumber, Checksum)>,
}

impl Evidence {
    /// Takes in an identifier of this shard; that which reaches furthest counts.
    pub fn add_identifier(&mut self, identifier: &Identifier) {
        if self.ring_acked_upto < Some(identifier.lsn) {
            self.ring_acked_upto = Some(identifier.lsn);
            self.ring_block = Some((identifier.block, identifier.identity));
        }
    }

    fn acked_upto(&self) -> Option<Lsn> {
        self.lease_acked_upto
            .max(self.peers_acked_upto)
            .max(self.ring_acked_upto)
    }
}

/// All that recovery is told before it reads.
#[derive(Clone, Debug)]
pub struct RecoveryInput<'a> {
    /// The journal, from the superblock.
    pub journal: JournalId,
    /// The shard.
    pub shard: ShardId,
    /// Its segment files in all epochs' folders, in any order. All were synced first.
    pub segments: Vec<SegmentFile<'a>>,
    /// What others know.
    pub evidence: Evidence,
    /// Bytes to read at once.
    pub read_size_bytes: u32,
}

impl<'a> RecoveryInput<'a> {
    /// Nobody else asked, usual read size.
    pub fn new(journal: JournalId, shard: ShardId, segments: Vec<SegmentFile<'a>>) -> Self {
        let evidence = Evidence::default();
        Self {
            journal,
            shard,
            segments,
            evidence,
            read_size_bytes: READ_SIZE_BYTES,
        }
    }
}

/// Takes the records that count.
pub trait RecordSink {
    /// Takes one record. Each has the LSN after that of the one before.
    ///
    /// If recovery fails later, what was taken must be thrown away.
    fn record(&mut self, lsn: Lsn, location: Location, record: &crate::format::Record<'_>);
}

impl<F: FnMut(Lsn, Location, &crate::format::Record<'_>)> RecordSink for F {
    fn record(&mut self, lsn: Lsn, location: Location, record: &crate::format::Record<'_>) {
        self(lsn, location, record);
    }
}

/// Where an epoch ends: its last block that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// The epoch.
    pub epoch: Epoch,
    /// Its last LSN.
    pub lsn: Lsn,
    /// Its last block.
    pub block: BlockNumber,
    /// Identity of that block.
    pub checksum: Checksum,
}

impl Seal {
    /// Before the first epoch of a new journal.
    pub const NONE: Self = Self {
        epoch: Epoch::ZERO,
        lsn: Lsn::ZERO,
        block: BlockNumber::ZERO,
        checksum: Checksum::NONE,
    };
}

/// A segment that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredSegment {
    /// How its owner names it.
    pub file: u32,
    /// Epoch that wrote it.
    pub epoch: Epoch,
    /// Its number.
    pub segment: SegmentId,
    /// How many times its file had been used before.
    pub generation: u64,
    /// Bytes by its head.
    pub size: u64,
    /// Bytes from the start of the file up to the end of the last block that counts.
    pub used_bytes: u64,
    /// First LSN in it.
    pub first_lsn: Lsn,
    /// LSN behind the last in it; equal to `first_lsn` if it holds no record.
    pub next_lsn: Lsn,
    /// Number of the first block in it.
    pub first_block: BlockNumber,
}

/// A file that holds nothing that counts: free to be reused under a new name.
#[derive(Clone, Copy, Debug)]
pub struct SpareFile {
    /// How its owner names it.
    pub file: u32,
    /// Epoch by its folder.
    pub epoch: Epoch,
    /// Segment by its name.
    pub segment: SegmentId,
    /// Bytes in the file.
    pub size: u64,
    /// How many times the file had been used before; `None` if its head is not sound.
    pub generation: Option<u64>,
    /// Why it could not hold bodies that are needed: the head, or the length of the file.
    pub fault: Option<Problem>,
}

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// How its owner names the file.
    pub file: u32,
    /// Epoch by its folder.
    pub epoch: Epoch,
    /// Segment by its name.
    pub segment: SegmentId,
    /// Byte offset.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What was begun behind the end and never acknowledged. The driver copies it to the quarantine
/// before the files may be reused.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Row of the table that allowed it.
    pub row: &'static Row,
    /// First LSN that is cut.
    pub lsn_from: Lsn,
    /// What to copy.
    pub ranges: Vec<ByteRange>,
}

/// How much was walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Segments with blocks that count.
    pub segments: u64,
    /// Blocks.
    pub blocks: u64,
    /// Records.
    pub records: u64,
    /// Bytes of blocks.
    pub bytes: u64,
}

/// A journal that can go on.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The end: what the next epoch's first record names as its seal.
    pub seal: Seal,
    /// LSN of the next record.
    pub next_lsn: Lsn,
    /// Number of the next block.
    pub next_block: BlockNumber,
    /// Highest segment number in use or prepared: new ones lie above.
    pub segment_max: SegmentId,
    /// Highest epoch with a file, whether it served or not.
    pub epoch_max: Epoch,
    /// Oldest segment still needed.
    pub oldest_segment: SegmentId,
    /// Names below this one may be in use, as said by the last record that says so.
    pub message_floor: MessageId,
    /// Names below this one may be in use, as said by the last record that says so.
    pub queue_floor: QueueId,
    /// Segments that count, oldest first.
    pub segments: Vec<RecoveredSegment>,
    /// Segments before those with bodies that are needed: see [`Self::keep_bodies`].
    pub bodies: Vec<SpareFile>,
    /// All other files.
    pub spares: Vec<SpareFile>,
    /// First LSN of each segment whose first block is sound, needed or not, by number.
    pub first_lsns: BTreeMap<SegmentId, Lsn>,
    /// Whether the last owner stopped in order.
    pub is_clean_shutdown: bool,
    /// What has to go to quarantine.
    pub cut: Option<Cut>,
    /// The row that decided where the log ends.
    pub row: &'static Row,
    /// How much was walked.
    pub totals: Totals,
}

impl Recovered {
    /// A replay told that messages lie in these segments: those that it did not read are spare no
    /// more.
    ///
    /// Shape: `needed` rises.
    /// Errors: the first that is not there, or whose file is not sound: the world's fault. Nothing
    /// was changed on disk.
    pub fn keep_bodies(
        &mut self,
        shard: ShardId,
        needed: impl IntoIterator<Item = SegmentId>,
    ) -> Result<(), RecoveryError> {
        for segment in needed {
            if segment >= self.oldest_segment {
                break;
            }
            // The others stay in their order, in which they are used again.
            let found = self.spares.iter().position(|one| one.segment == segment);
            let spare = found.map(|found| self.spares.remove(found));
            match spare {
                Some(spare) if spare.fault.is_none() => self.bodies.push(spare),
                _ => return Err(self.no_body(shard, segment, spare)),
            }
        }
        Ok(())
    }

    /// A segment with bodies that are needed is not sound or, without a file, not there.
    fn no_body(
        &self,
        shard: ShardId,
        segment: SegmentId,
        file: Option<SpareFile>,
    ) -> RecoveryError {
        let fault = file.and_then(|file| file.fault);
        let problem = fault.unwrap_or(Problem::SegmentMissing);
        let mut behind = self.first_lsns.range(segment.next()..);
        let own = self.first_lsns.get(&segment);
        RecoveryError {
            problem,
            file: file.map(|file| file.file),
            shard,
            epoch: file.map_or(Epoch::ZERO, |file| file.epoch),
            segment,
            offset: match (problem, file) {
                (Problem::Truncated { .. }, Some(file)) => file.size,
                _ => 0,
            },
            lsn_from: own.copied().unwrap_or(Lsn::ZERO),
            lsn_upto: behind.next().map(|(_, lsn)| lsn.before()),
        }
    }
}

/// Where the log ends, judged.
struct Tail {
    broken: Break,
    row: &'static Row,
    cut: Option<Cut>,
}

enum Phase {
    Survey,
    /// Walks the last segment without a sink, to the end and the oldest segment needed.
    Rehearse(Box<Walk>),
    /// Looks at what lies behind the end. The walk is over.
    Ahead {
        walk: Option<Box<Walk>>,
        ahead: Box<Ahead>,
        broken: Break,
        is_rehearsal: bool,
    },
    /// Walks all that counts.
    Walk {
        walk: Box<Walk>,
        tail: Box<Tail>,
    },
    /// Recovery failed at a segment's beginning: walks up to it, to name the records.
    Locate {
        walk: Box<Walk>,
        error: Box<RecoveryError>,
    },
    Done(Result<Box<Recovered>, RecoveryError>),
}

impl Phase {
    fn failed(survey: &Survey, error: RecoveryError) -> Self {
        let (error, start) = survey.locate(survey.explain(error));
        let walk = start.and_then(|first| {
            let leg = survey::Leg { first, seal: None };
            Walk::new(survey, vec![leg]).ok()
        });
        match walk {
            Some(walk) => Self::Locate {
                walk: Box::new(walk),
                error: Box::new(error),
            },
            None => Self::Done(Err(error)),
        }
    }
}

/// Recovery of one shard's journal, sans-IO.
///
/// Use: while [`Self::poll_read`] asks, answer with [`Self::handle_read`]; then [`Self::finish`].
pub struct Recovery {
    survey: Option<Survey>,
    evidence: Evidence,
    phase: Phase,
}

impl Recovery {
    /// Starts. Nothing of `input` is kept but numbers.
    pub fn new(input: &RecoveryInput<'_>) -> Self {
        let evidence = input.evidence;
        match Survey::new(input) {
            Ok(survey) => Self {
                survey: Some(survey),
                evidence,
                phase: Phase::Survey,
            },
            Err(error) => Self {
                survey: None,
                evidence,
                phase: Phase::Done(Err(error)),
            },
        }
    }

    /// The next read. `None`: all is decided.
    pub fn poll_read(&mut self) -> Option<ReadRequest> {
        loop {
            let survey = self.survey.as_mut()?;
            let request = match &mut self.phase {
                Phase::Survey => survey.request(),
                Phase::Rehearse(walk) | Phase::Walk { walk, .. } | Phase::Locate { walk, .. } => {
                    walk.request()
                }
                Phase::Ahead { ahead, .. } => ahead.request(survey),
                Phase::Done(_) => return None,
            };
            if request.is_some() {
                return request;
            }
            self.next_phase();
        }
    }

    /// Reads that probably follow the one that [`Self::poll_read`] asked for last, in order: who
    /// has begun them before they are asked for need not wait for each. None is promised to come.
    ///
    /// Cost: one allocation.
    pub fn upcoming(&self) -> Box<dyn Iterator<Item = ReadRequest> + '_> {
        let Some(survey) = &self.survey else {
            return Box::new(core::iter::empty());
        };
        match &self.phase {
            Phase::Survey => Box::new(survey.upcoming()),
            Phase::Rehearse(walk) | Phase::Walk { walk, .. } | Phase::Locate { walk, .. } => {
                Box::new(walk.upcoming(survey))
            }
            Phase::Ahead { ahead, .. } => Box::new(ahead.upcoming(survey)),
            Phase::Done(_) => Box::new(core::iter::empty()),
        }
    }

    /// Takes the answer to the last [`Self::poll_read`]; fewer bytes than asked are an error.
    ///
    /// Cost: copies the bytes once.
    pub fn handle_read<S: RecordSink>(&mut self, result: Result<&[u8], ReadError>, sink: &mut S) {
        let Some(survey) = self.survey.as_mut() else {
            return;
        };
        let taken = match &mut self.phase {
            Phase::Survey => survey.accept(result),
            Phase::Rehearse(walk) | Phase::Walk { walk, .. } | Phase::Locate { walk, .. } => {
                walk.accept(result);
                Ok(())
            }
            Phase::Ahead { ahead, .. } => ahead.accept(survey, result),
            Phase::Done(_) => Ok(()),
        };
        match taken {
            Ok(()) => self.step(sink),
            Err(error) => self.phase = Phase::failed(survey, error),
        }
    }
}

impl Recovery {
    /// Runs to the end with a function that reads. For tools and tests; a driver that must not
    /// block uses the other methods.
    pub fn run<S: RecordSink>(
        mut self,
        mut read: impl FnMut(ReadRequest, &mut Vec<u8>) -> Result<(), ReadError>,
        sink: &mut S,
    ) -> Result<Recovered, RecoveryError> {
        let mut bytes = Vec::new();
        while let Some(request) = self.poll_read() {
            bytes.clear();
            let result = read(request, &mut bytes);
            self.handle_read(result.map(|()| bytes.as_slice()), sink);
        }
        self.finish()
    }

    /// The outcome.
    ///
    /// Errors: [`RecoveryError`], the world's fault; nothing was changed on disk.
    /// Panics: if [`Self::poll_read`] still asks for reads.
    pub fn finish(self) -> Result<Recovered, RecoveryError> {
        match self.phase {
            Phase::Done(result) => result.map(|recovered| *recovered),
            _ => panic!("recovery asked for a read that it was not given"),
        }
    }

    /// Goes on when a phase has nothing left to read.
    fn next_phase(&mut self) {
        let survey = self
            .survey
            .as_mut()
            .expect("only a finished recovery has none");
        let next = match core::mem::replace(&mut self.phase, Phase::Survey) {
            Phase::Survey => {
                survey.settle();
                plan(survey)
            }
            Phase::Ahead {
                walk,
                ahead,
                broken,
                is_rehearsal,
            } => {
                let tail = judge(survey, walk.as_deref(), &ahead, broken, &self.evidence);
                match (tail, walk) {
                    (Err(error), _) => Err(error),
                    (Ok(tail), Some(walk)) if is_rehearsal => {
                        walk_from(survey, walk.standing.oldest_segment).map(|walk| Phase::Walk {
                            walk,
                            tail: Box::new(tail),
                        })
                    }
                    (Ok(tail), walk) => conclude(survey, walk.as_deref(), tail),
                }
            }
            // A walk ends where its bytes end, so it never comes here.
            phase => Ok(phase),
        };
        self.phase = next.unwrap_or_else(|error| Phase::failed(survey, error));
    }

    /// Walks over what has been read.
    fn step<S: RecordSink>(&mut self, sink: &mut S) {
        let survey = self
            .survey
            .as_mut()
            .expect("only a finished recovery has none");
        let next = match core::mem::replace(&mut self.phase, Phase::Survey) {
            Phase::Rehearse(mut walk) => {
                let mut nobody = |_: Lsn, _: Location, _: &crate::format::Record<'_>| {};
                let step = walk.step(survey, &mut nobody);
                rehearsed(survey, walk, step)
            }
            Phase::Walk { mut walk, tail } => walk.step(survey, sink).and_then(|step| match step {
                Step::NeedMore => Ok(Phase::Walk { walk, tail }),
                Step::Broken(broken) if broken == tail.broken => {
                    conclude(survey, Some(&walk), *tail)
                }
                Step::Broken(broken) => look_ahead(survey, walk, broken, false),
            }),
            Phase::Locate { mut walk, error } => {
                let mut nobody = |_: Lsn, _: Location, _: &crate::format::Record<'_>| {};
                match walk.step(survey, &mut nobody) {
                    Ok(Step::NeedMore) => Ok(Phase::Locate { walk, error }),
                    Ok(Step::Broken(_)) | Err(_) => Ok(Phase::Done(Err(RecoveryError {
                        lsn_from: walk.expected.lsn,
                        ..*error
                    }))),
                }
            }
            phase => Ok(phase),
        };
        self.phase = next.unwrap_or_else(|error| Phase::failed(survey, error));
    }
}

/// What to do after the survey.
///
/// Which segments are needed is said by the last record about it that counts. That may lie
/// anywhere in the last segment, so that one is walked first, up to the end. Its first block may
/// have been in flight with one before it that did not arrive: then earlier ones are walked too.
fn plan(survey: &Survey) -> Result<Phase, RecoveryError> {
    let Some(first) = survey.rehearsal() else {
        let broken = Break {
            file: None,
            offset: 0,
        };
        let ahead = Ahead::new(survey, broken, Epoch::ZERO, Expected::FIRST)?;
        let ahead = Box::new(ahead);
        return Ok(Phase::Ahead {
            walk: None,
            ahead,
            broken,
            is_rehearsal: false,
        });
    };
    let walk = Walk::new(survey, vec![survey::Leg { first, seal: None }])?;
    Ok(Phase::Rehearse(Box::new(walk)))
}

/// The rehearsal came to its end or to damage: whether it may begin where it did. If that is not
/// known, an earlier segment is tried.
fn rehearsed(
    survey: &mut Survey,
    walk: Box<Walk>,
    step: Result<Step, RecoveryError>,
) -> Result<Phase, RecoveryError> {
    let broken = match step {
        Ok(Step::NeedMore) => return Ok(Phase::Rehearse(walk)),
        Ok(Step::Broken(broken)) => Ok(broken),
        Err(error) => Err(error),
    };
    let start = walk.start();
    if survey.files[start].before == Before::Unknown {
        let before = walk.before();
        survey.set_before(start, before);
        if before == Before::Doubtful {
            return plan(survey);
        }
    }
    look_ahead(survey, walk, broken?, true)
}

fn walk_from(survey: &Survey, start: SegmentId) -> Result<Box<Walk>, RecoveryError> {
    Ok(Box::new(Walk::new(survey, survey.legs(start)?)?))
}

fn look_ahead(
    survey: &Survey,
    walk: Box<Walk>,
    broken: Break,
    is_rehearsal: bool,
) -> Result<Phase, RecoveryError> {
    let ahead = Box::new(Ahead::new(
        survey,
        broken,
        walk.newest_epoch(),
        walk.expected,
    )?);
    Ok(Phase::Ahead {
        walk: Some(walk),
        ahead,
        broken,
        is_rehearsal,
    })
}

/// All facts are there: asks the table.
fn judge(
    survey: &Survey,
    walk: Option<&Walk>,
    ahead: &Ahead,
    broken: Break,
    evidence: &Evidence,
) -> Result<Tail, RecoveryError> {
    let stopped = walk
        .filter(|walk| walk.standing.is_stopped)
        .map(Walk::newest_epoch);
    let row = table::decide(&ahead.facts(survey, evidence, stopped));
    let lsn_from = walk.map_or(Expected::FIRST, |walk| walk.expected).lsn;
    let cut = match row.verdict {
        Verdict::End => None,
        Verdict::CutTail => Some(Cut {
            row,
            lsn_from,
            ranges: ahead.ranges(survey),
        }),
        Verdict::Corrupt => {
            let unread = ahead.unread();
            let problem = Problem::Table { row, unread };
            return Err(ahead.corrupt(survey, broken, problem, evidence.acked_upto()));
        }
    };
    survey.check_first_files(walk.map(Walk::newest_epoch).unwrap_or_default(), lsn_from)?;
    Ok(Tail { broken, row, cut })
}

/// All was walked.
fn conclude(survey: &Survey, walk: Option<&Walk>, tail: Tail) -> Result<Phase, RecoveryError> {
    let recovered = recovered(survey, walk, tail.row, tail.cut);
    survey.check_renamed(recovered.seal.epoch, recovered.oldest_segment)?;
    Ok(Phase::Done(Ok(Box::new(recovered))))
}

fn recovered(
    survey: &Survey,
    walk: Option<&Walk>,
    row: &'static Row,
    cut: Option<Cut>,
) -> Recovered {
    let expected = walk.map_or(Expected::FIRST, |walk| walk.expected);
    let standing = walk.map(|walk| walk.standing);
    let segments = walk.map(|walk| walk.segments.clone()).unwrap_or_default();
    let is_used = |file: u32| segments.iter().any(|segment| segment.file == file);
    let spares = 0..survey.files.len();
    let spares = spares.filter(|index| !is_used(survey.files[*index].file));
    Recovered {
        seal: walk.map_or(Seal::NONE, |walk| Seal {
            epoch: walk.newest_epoch(),
            lsn: Lsn::from_raw(expected.lsn.get() - 1),
            block: BlockNumber::from_raw(expected.number.get() - 1),
            checksum: expected.previous,
        }),
        next_lsn: expected.lsn,
        next_block: expected.number,
        segment_max: survey
            .files
            .iter()
            .map(|file| file.segment)
            .max()
            .unwrap_or_default(),
        epoch_max: survey
            .files
            .iter()
            .map(|file| file.epoch)
            .max()
            .unwrap_or_default(),
        oldest_segment: standing.map_or(SegmentId::ZERO, |standing| standing.oldest_segment),
        message_floor: standing.map_or(MessageId(0), |standing| standing.message_floor),
        queue_floor: standing.map_or(QueueId(0), |standing| standing.queue_floor),
        is_clean_shutdown: standing.is_some_and(|standing| standing.is_stopped),
        bodies: Vec::new(),
        first_lsns: survey.first_lsns(),
        spares: spares.map(|index| survey.spare(index)).collect(),
        segments,
        cut,
        row,
        totals: walk.map(|walk| walk.totals).unwrap_or_default(),
    }
}
