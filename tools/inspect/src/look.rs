//! Looks at a whole shard by the journal crate's own recovery, and at one that changes meanwhile.
//!
//! One look that finds damage may have been overtaken by a running broker: a block arrived after
//! its place was read, a file was recycled after it was listed. So damage is what two looks, one
//! after the other, find at the same place in files that stayed; real damage stays where it is.

use anyhow::bail;
use forebay_journal::format::{FORMAT_VERSION, FORMAT_VERSION_OLDEST, SECTOR_SIZE};
use forebay_journal::reader::{ReadError, ReadRequest};
use forebay_journal::recovery::{
    Evidence, Problem, Recovered, Recovery, RecoveryError, RecoveryInput, SegmentFile,
};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Epoch, JournalId, Lsn, SegmentId, ShardId};

use crate::bodies;
use crate::file::{OpenSegment, read_at};
use crate::folder::Place;
use crate::horizon::{Spot, find_arrived};
use crate::ledger::Ledger;
use crate::meter;
use crate::named::Named;
use crate::survey::{Surveyed, mark_bodies, survey};

/// Most looks before giving up. Each fails for another reason, so a journal that is that fast is
/// recycled under each of them.
const LOOKS_MAX: u32 = 200;

/// What a shard's journal turned out to be.
pub(crate) struct Looked {
    pub(crate) shard: ShardId,
    pub(crate) files: Vec<OpenSegment>,
    pub(crate) surveyed: Vec<Surveyed>,
    /// What the records said, up to the end or to the damage.
    pub(crate) ledger: Ledger,
    /// Messages that are alive below where a replay begins; none where it is damaged.
    pub(crate) needed: Named,
    /// What is acknowledged by what the identifiers say.
    evidence: Evidence,
    pub(crate) outcome: Outcome,
}

/// Whether a broker can go on from there.
pub(crate) enum Outcome {
    Sound {
        recovered: Box<Recovered>,
        /// More arrived while it was read, from here on.
        grown: Option<Spot>,
    },
    Damaged(RecoveryError),
    /// Blocks are sound and in order, but their records contradict each other.
    Contradiction {
        recovered: Box<Recovered>,
        what: String,
    },
}

/// What makes two findings the same.
#[derive(PartialEq, Eq)]
struct Mark(Epoch, SegmentId, u64, Lsn, String);

impl Mark {
    fn of(error: &RecoveryError) -> Self {
        // Which row of the table it is may change while blocks arrive behind.
        let what = match error.problem {
            Problem::Table { .. } => "table".to_owned(),
            problem => problem.to_string(),
        };
        Self(
            error.epoch,
            error.segment,
            error.offset,
            error.lsn_from,
            what,
        )
    }
}

/// Looks at a shard until the answer is certain.
///
/// Errors: a file cannot be opened, it is of another format version, or the journal changes
/// faster than it can be read.
pub(crate) fn look(
    place: &Place,
    journal: JournalId,
    shard: ShardId,
    buffer: &mut ReadBuffer,
) -> anyhow::Result<Looked> {
    let mut former = None;
    for _ in 0..LOOKS_MAX {
        // Before the blocks: what it says was written by then.
        let evidence = place.evidence(journal, shard)?;
        let Some(files) = place.open(shard, buffer)? else {
            former = None;
            continue;
        };
        let surveyed = survey(journal, &files, buffer);
        let mut looked = Looked {
            shard,
            files,
            surveyed,
            ledger: Ledger::default(),
            needed: Named::default(),
            evidence,
            outcome: Outcome::Damaged(NOT_LOOKED),
        };
        let all = looked.files.iter().map(|file| file.size).sum();
        meter::stage(&format!("shard {shard}"), all);
        let mut result = looked.run(journal, None, buffer);
        let mut grown = None;
        if let Err(error) = &result {
            grown = looked.grown(error, buffer);
            if grown.is_some() {
                result = looked.run(journal, grown, buffer);
            }
        }
        let mark = match result {
            Ok(recovered) => {
                let recovered = Box::new(recovered);
                let Some(what) = looked.ledger.contradiction() else {
                    looked.outcome = Outcome::Sound { recovered, grown };
                    let needed = looked.ledger.needed();
                    looked.mark(needed);
                    return Ok(looked);
                };
                let mark = Mark(Epoch::ZERO, SegmentId::ZERO, 0, Lsn::ZERO, what.clone());
                looked.outcome = Outcome::Contradiction { recovered, what };
                mark
            }
            Err(error) => {
                looked.outcome = Outcome::Damaged(error);
                Mark::of(&error)
            }
        };
        if former.as_ref() == Some(&mark) && looked.is_intact(buffer) {
            looked.refuse_other_version()?;
            if let Outcome::Contradiction { .. } = looked.outcome {
                let needed = looked.ledger.needed();
                looked.mark(needed);
            }
            return Ok(looked);
        }
        former = Some(mark);
    }
    bail!(
        "the journal of shard {shard} changes faster than it can be read: {LOOKS_MAX} looks were \
         overtaken. Try again when the broker has less to do"
    )
}

const NOT_LOOKED: RecoveryError = RecoveryError {
    problem: Problem::SegmentMissing,
    file: None,
    shard: ShardId(0),
    epoch: Epoch::ZERO,
    segment: SegmentId::ZERO,
    offset: 0,
    lsn_from: Lsn::ZERO,
    lsn_upto: None,
};

impl Looked {
    /// Reads all that counts. `horizon`: as if nothing were written from there on.
    fn run(
        &mut self,
        journal: JournalId,
        horizon: Option<Spot>,
        buffer: &mut ReadBuffer,
    ) -> Result<Recovered, RecoveryError> {
        self.ledger = Ledger::default();
        let listed = self.files.iter().enumerate();
        let listed = listed.filter(|(index, _)| horizon.is_none_or(|spot| is_below(*index, spot)));
        let segments = listed.map(|(index, file)| SegmentFile {
            file: index as u32,
            epoch: file.name.epoch,
            segment: file.name.segment,
            size: file.size,
            head: file.head.as_deref().map_err(|error| *error),
        });
        let mut input = RecoveryInput::new(journal, self.shard, segments.collect());
        if horizon.is_none() {
            input.evidence = self.evidence;
        }
        let mut recovery = Recovery::new(&input);
        while let Some(request) = recovery.poll_read() {
            let result = self.read(request, horizon, buffer);
            let bytes = result.map(|()| &buffer[..request.len as usize]);
            recovery.handle_read(bytes, &mut self.ledger);
        }
        recovery.finish()
    }

    fn read(
        &self,
        request: ReadRequest,
        horizon: Option<Spot>,
        buffer: &mut ReadBuffer,
    ) -> Result<(), ReadError> {
        let ReadRequest { file, offset, len } = request;
        let bytes = &mut buffer[..len as usize];
        read_at(&self.files[file as usize].file, offset, bytes)?;
        if let Some(spot) = horizon.filter(|spot| spot.file == file as usize) {
            let kept = spot.offset.saturating_sub(offset).min(len.into()) as usize;
            bytes[kept..].fill(0);
        }
        Ok(())
    }

    /// Tells which segments below the replay's beginning are needed.
    fn mark(&mut self, needed: Named) {
        self.needed = needed;
        mark_bodies(&self.files, &mut self.surveyed, &self.needed);
    }

    /// The same of a damaged shard, by what the records say that are there.
    pub(crate) fn find_bodies(&mut self, ledger: &Ledger) {
        self.mark(ledger.needed());
    }

    /// The files, and what is needed of them below the replay's beginning.
    pub(crate) fn bodies(&self) -> bodies::Store<'_> {
        bodies::Store {
            files: &self.files,
            surveyed: &self.surveyed,
            needed: &self.needed,
        }
    }

    /// Where the first block lies that was not there yet when its place was read, if that is all
    /// that is wrong.
    fn grown(&self, error: &RecoveryError, buffer: &mut ReadBuffer) -> Option<Spot> {
        if !matches!(error.problem, Problem::Table { .. }) {
            return None;
        }
        find_arrived(&self.files, &self.surveyed, error.lsn_from, buffer)
    }

    /// Whether the files that the finding rests on were not recycled during the look: of a damaged
    /// file that one, of a missing one all others.
    fn is_intact(&self, buffer: &mut ReadBuffer) -> bool {
        let file = match &self.outcome {
            Outcome::Damaged(error) => error.file,
            Outcome::Sound { .. } | Outcome::Contradiction { .. } => None,
        };
        match file.and_then(|file| self.files.get(file as usize)) {
            Some(file) => !file.is_recycled(buffer),
            None => !self.files.iter().any(|file| file.is_recycled(buffer)),
        }
    }

    fn refuse_other_version(&self) -> anyhow::Result<()> {
        let Outcome::Damaged(RecoveryError {
            problem: Problem::Version { found },
            file: Some(file),
            ..
        }) = self.outcome
        else {
            return Ok(());
        };
        bail!(
            "{} is of format version {found}; this release reads versions {FORMAT_VERSION_OLDEST} to \
             {FORMAT_VERSION}. Use the forebay-inspect of the release that wrote it",
            self.files[file as usize].name.path.display()
        );
    }
}

fn is_below(index: usize, horizon: Spot) -> bool {
    index < horizon.file || index == horizon.file && horizon.offset > SECTOR_SIZE as u64
}
