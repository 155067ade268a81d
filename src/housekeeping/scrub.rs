//! The scrubber: reads sealed segments again, slowly and for ever, and says what is damaged before
//! somebody needs it. Past the block cache, and never anything that is still written to.
//!
//! A file may be freed and used again while it is read: after each wait it is asked whether it is
//! still held in the same use, and if not, what was read means nothing. That is enough, since files
//! are freed and prepared on this thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_journal::SegmentId;
use forebay_journal::format::{BlockHeader, SECTOR_SIZE, SEGMENT_HEAD_SIZE, SegmentHead};
use forebay_journal::reader::{ReadError, ReadRequest};
use forebay_journal::scrub::{End, Flaw, Joint, Scrub};
use glommio::io::{DmaFile, OpenOptions};
use glommio::timer::Timer;

use super::board::{Board, Damage};
use super::executor::{HeldFile, ShardFiles};
use super::pace::Pace;
use super::scan::read;
use crate::limits::SCRUB_DAMAGES_MAX;

/// The longest sleep: how soon a stop is noticed.
const NAP: Duration = Duration::from_millis(50);
/// Least time from the begin of one round to that of the next.
const ROUND_LEAST: Duration = Duration::from_secs(1);

/// The scrubber of one shard.
pub(super) struct Scrubber {
    files: Rc<RefCell<ShardFiles>>,
    pace: Arc<Pace>,
    board: Arc<Board>,
    rate: u64,
    /// No read begins before.
    next_read: Instant,
    /// When each sealed segment was checked, or came to be known.
    checked: BTreeMap<SegmentId, Instant>,
    /// What the block behind a segment has to be.
    joint: Option<(SegmentId, Joint)>,
}

/// A segment in one use.
#[derive(Clone, Debug)]
struct Target {
    head: SegmentHead,
    path: PathBuf,
    used_bytes: Option<u64>,
}

/// What one reading came to.
struct Looked {
    flaws: Vec<Flaw>,
    /// What the block behind the segment has to be, if that is known.
    joint: Option<Joint>,
}

/// The segment went, or the broker stops.
struct Gone;

impl Scrubber {
    pub(super) fn new(
        files: Rc<RefCell<ShardFiles>>,
        pace: Arc<Pace>,
        board: Arc<Board>,
        rate: u64,
    ) -> Self {
        Self {
            files,
            pace,
            board,
            rate,
            next_read: Instant::now(),
            checked: BTreeMap::new(),
            joint: None,
        }
    }

    /// Goes round until the broker stops.
    pub(super) async fn run(mut self) {
        if self.rate == 0 {
            return;
        }
        while !self.pace.is_given_up() {
            let begun = Instant::now();
            let mut after = SegmentId::ZERO;
            let mut has_checked = false;
            while let Some(target) = self.target_after(after) {
                after = target.head.segment;
                has_checked |= self.check(&target).await.is_ok();
                self.tell_ages();
                if self.pace.is_given_up() {
                    return;
                }
            }
            if has_checked {
                self.board.change(|seen| seen.scrub_rounds += 1);
            }
            while begun.elapsed() < ROUND_LEAST && !self.pace.is_given_up() {
                Timer::new(NAP).await;
                self.tell_ages();
            }
        }
    }

    fn target_after(&self, after: SegmentId) -> Option<Target> {
        let files = self.files.borrow();
        let below = self.pace.sealed_below();
        let mut sealed = files.held.range(after.next()..);
        let (&segment, held) = sealed.next().filter(|(segment, _)| **segment < below)?;
        Some(Target::of(&files.head, segment, held))
    }

    /// Whether the file is still there in this use.
    fn is_held(&self, target: &Target) -> bool {
        let files = self.files.borrow();
        let held = files.held.get(&target.head.segment);
        held.is_some_and(|held| held.generation == target.head.generation)
    }

    /// Takes freed segments out of the books, and says which one waits longest.
    fn tell_ages(&mut self) {
        let below = self.pace.sealed_below();
        let now = Instant::now();
        let files = self.files.borrow();
        let is_sealed = |segment: &SegmentId| *segment < below && files.held.contains_key(segment);
        self.checked.retain(|segment, _| is_sealed(segment));
        for segment in files.held.range(..below).map(|(segment, _)| *segment) {
            self.checked.entry(segment).or_insert(now);
        }
        let oldest = self.checked.values().min().copied();
        self.board.change(|seen| seen.oldest_check = oldest);
    }

    /// Checks a segment, twice if something looks bad: nothing that passes is reported.
    async fn check(&mut self, target: &Target) -> Result<(), Gone> {
        let mut looked = self.look(target).await?;
        if !looked.flaws.is_empty() {
            looked = self.look(target).await?;
        }
        let segment = target.head.segment;
        self.joint = looked.joint.map(|joint| (segment, joint));
        self.checked.insert(segment, Instant::now());
        for flaw in &looked.flaws {
            self.report(target, flaw);
        }
        Ok(())
    }

    async fn look(&mut self, target: &Target) -> Result<Looked, Gone> {
        let segment = target.head.segment;
        let Ok((file, size)) = open(target).await else {
            // Freed just now, or taken away by somebody else: then its reads fail.
            self.still(target)?;
            let flaw = Scrub::check_head(Err(ReadError::Short), &target.head);
            return Ok(Looked {
                flaws: flaw.into_iter().collect(),
                joint: None,
            });
        };
        let start = match self.joint {
            Some((before, joint)) if before.next() == segment => Some(joint),
            _ => None,
        };
        let end = self.end(target).await;
        let sector = self.read(target, &file, 0, SECTOR_SIZE).await?;
        let head = sector
            .as_ref()
            .map(|bytes| &**bytes)
            .map_err(|error| *error);
        let mut flaws: Vec<Flaw> = Scrub::check_head(head, &target.head).into_iter().collect();
        let mut scrub = Scrub::new(target.head, size, start, end);
        while let Some(ReadRequest { offset, len, .. }) = scrub.poll_read() {
            let bytes = self.read(target, &file, offset, len as usize).await?;
            scrub.handle_read(bytes.as_ref().map(|b| &**b).map_err(|error| *error));
            flaws.extend(std::iter::from_fn(|| scrub.poll_flaw()));
        }
        let joint = scrub.finish();
        flaws.extend(std::iter::from_fn(|| scrub.poll_flaw()));
        // Read only; a failed close loses nothing.
        let _ = file.close().await;
        self.still(target)?;
        if flaws.is_empty() && end != End::Unknown {
            self.note_used(segment, scrub.behind());
        }
        Ok(Looked { flaws, joint })
    }

    /// Where the segment ends: what recovery found or an earlier round, or what the next one says.
    async fn end(&self, target: &Target) -> End {
        let next = {
            let files = self.files.borrow();
            let next = target.head.segment.next();
            let held = files.held.get(&next);
            held.map(|held| Target::of(&files.head, next, held))
        };
        if let Some(next) = next
            && let Ok((file, _)) = open(&next).await
        {
            let sector = read(&file, SEGMENT_HEAD_SIZE as u64, SECTOR_SIZE).await;
            let _ = file.close().await;
            let header = sector
                .ok()
                .and_then(|bytes| BlockHeader::decode(&bytes).ok());
            let is_its_own =
                |header: &BlockHeader| header.check_place(&next.head, SEGMENT_HEAD_SIZE as u64);
            if let Some(header) = header.filter(|header| is_its_own(header).is_ok()) {
                return End::Before(Joint::before(&header));
            }
        }
        target.used_bytes.map_or(End::Unknown, End::At)
    }

    /// So that the end is known when the next segment is not there any more.
    fn note_used(&self, segment: SegmentId, used_bytes: u64) {
        if let Some(held) = self.files.borrow_mut().held.get_mut(&segment) {
            held.used_bytes = Some(used_bytes);
        }
    }

    fn still(&self, target: &Target) -> Result<(), Gone> {
        if self.is_held(target) && !self.pace.is_given_up() {
            Ok(())
        } else {
            Err(Gone)
        }
    }

    async fn read(
        &mut self,
        target: &Target,
        file: &DmaFile,
        offset: u64,
        len: usize,
    ) -> Result<Result<glommio::io::ReadResult, ReadError>, Gone> {
        while let Some(wait) = self.next_read.checked_duration_since(Instant::now()) {
            Timer::new(wait.min(NAP)).await;
            self.still(target)?;
        }
        let cost = Duration::from_nanos(len as u64 * 1_000_000_000 / self.rate);
        self.next_read = Instant::now() + cost;
        let bytes = read(file, offset, len).await;
        self.still(target)?;
        self.board.change(|seen| seen.scrubbed_bytes += len as u64);
        Ok(bytes)
    }

    /// Says it once as long as the file is needed.
    fn report(&self, target: &Target, flaw: &Flaw) {
        let segment = target.head.segment;
        let damage = Damage {
            path: target.path.clone(),
            segment,
            offset: flaw.offset,
            size: flaw.size,
            lsn_from: flaw.lsn_from,
            lsn_upto: flaw.lsn_upto,
            what: flaw.fault.to_string(),
        };
        let known = self.board.seen().damages;
        let is_same = |one: &Damage| (one.segment, one.offset) == (segment, flaw.offset);
        if known.iter().any(is_same) || known.len() >= SCRUB_DAMAGES_MAX as usize {
            return;
        }
        tracing::error!(
            "shard {}: damaged: {}, byte {}, {} bytes, {}: {}. What lies there cannot be delivered \
             from the disk, and the next start will refuse this folder: see Damage in \
             docs/operating.md before stopping the broker",
            target.head.shard,
            damage.path.display(),
            damage.offset,
            damage.size,
            records(&damage),
            damage.what
        );
        self.board.change(|seen| {
            seen.damages_found += 1;
            seen.damages.push(damage);
        });
    }
}

impl Target {
    fn of(template: &SegmentHead, segment: SegmentId, held: &HeldFile) -> Self {
        Self {
            head: SegmentHead {
                segment,
                generation: held.generation,
                epoch: held.epoch,
                size: held.size,
                ..*template
            },
            path: held.path.clone(),
            used_bytes: held.used_bytes,
        }
    }
}

async fn open(target: &Target) -> glommio::Result<(DmaFile, u64), ()> {
    let file = OpenOptions::new().read(true).dma_open(&target.path).await?;
    let size = file.file_size().await?;
    Ok((file, size))
}

/// Which records a damage costs, in words.
fn records(damage: &Damage) -> String {
    match (damage.lsn_from, damage.lsn_upto) {
        (Some(from), Some(upto)) if upto < from => "no records".to_owned(),
        (Some(from), Some(upto)) => format!("records {from} to {upto}"),
        (Some(from), None) => format!("records from {from} on"),
        (None, Some(upto)) => format!("records up to {upto}"),
        (None, None) => "records that cannot be named".to_owned(),
    }
}
