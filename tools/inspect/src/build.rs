//! Writes a new store from the lines of an export: one epoch, stopped in order.
//!
//! It comes into being in a folder beside its place and moves there when it is complete and
//! synced: what is at the place is always a whole store. What a line may say is checked here,
//! because a person may have written it; whatever passes gives records that a broker reads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use forebay_journal::format::{
    INFLIGHT_BLOCKS_MAX, Record, SECTOR_SIZE, SegmentHead, Superblock, encoded_size,
};
use forebay_journal::recovery::Seal;
use forebay_journal::recovery::file_name::{
    SUPERBLOCK_FILE_NAME, epoch_folder_name, segment_file_name,
};
use forebay_journal::storage::WriteDone;
use forebay_journal::{
    AppendError, Budget, CACHE_SIZE_MIN, Epoch, JournalId, MessageId, QueueId, RECORDS_SIZE_MAX,
    Retained, SegmentId, ShardId, Writer,
};

use crate::command::open;
use crate::file::read_buffer;
use crate::folder;
use crate::line::{Line, TakeLine, Totals};
use crate::look::{Outcome, look};
use crate::new_shard::NewShard;

/// Most shards of a store.
const SHARDS_MAX: u16 = 256;

/// A store that is being written.
pub(crate) struct NewStore {
    target: PathBuf,
    partial: PathBuf,
    segment_size: u64,
    journal: JournalId,
    unix_ms: u64,
    shard_count: Option<u16>,
    shards: BTreeMap<u16, NewShard>,
    totals: Totals,
    is_complete: bool,
    is_finished: bool,
}

impl NewStore {
    /// Begins a store that is to be at `target`, which must not be there yet.
    ///
    /// Errors: it is there, the folder cannot be made, or the size of segments is none.
    pub(crate) fn begin(target: &Path, segment_size: u64) -> anyhow::Result<Self> {
        let sector = SECTOR_SIZE as u64;
        ensure!(
            segment_size.is_multiple_of(sector) && (1 << 20..=1 << 40).contains(&segment_size),
            "segments have whole sectors of {sector} B, and from 1 MiB to 1 TiB"
        );
        ensure!(
            !target.exists(),
            "{} is there already; the new store needs a folder of its own",
            target.display()
        );
        let name = target.file_name().context("the new folder needs a name")?;
        let partial = target.with_file_name(format!("{}.partial", name.to_string_lossy()));
        fs::create_dir(&partial).with_context(|| {
            format!(
                "make {} (left from a run that broke off? then remove it)",
                partial.display()
            )
        })?;
        let epoch = partial.join("journal").join(epoch_folder_name(EPOCH));
        fs::create_dir_all(&epoch)?;
        let mut journal = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut journal)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = now.map_or(0, |now| now.as_millis() as u64);
        Ok(Self {
            target: target.to_owned(),
            partial,
            segment_size,
            journal: JournalId(journal),
            unix_ms,
            shard_count: None,
            shards: BTreeMap::new(),
            totals: Totals::default(),
            is_complete: false,
            is_finished: false,
        })
    }

    /// Where it is until it is finished.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }

    /// Stops the journals in order, syncs everything, and moves the store to its place.
    ///
    /// Errors: lines are missing, or the disk refuses.
    pub(crate) fn finish(mut self) -> anyhow::Result<Totals> {
        ensure!(
            self.is_complete,
            "the last line is missing: the export broke off"
        );
        let shard_count = self.shard_count.context("the head is missing")?;
        for shard in 0..shard_count {
            ensure!(
                self.shards.contains_key(&shard),
                "nothing is said of shard {shard}"
            );
        }
        for shard in self.shards.values_mut() {
            shard.stop(self.unix_ms)?;
        }
        let superblock = Superblock {
            journal: self.journal,
            shard_count,
            created_unix_ms: self.unix_ms,
        };
        let journal = self.partial.join("journal");
        let path = journal.join(SUPERBLOCK_FILE_NAME);
        fs::write(&path, superblock.encode())?;
        for path in [
            path,
            journal.join(epoch_folder_name(EPOCH)),
            journal,
            self.partial.clone(),
        ] {
            File::open(path)?.sync_all()?;
        }
        prove(&self.partial)?;
        fs::rename(&self.partial, &self.target)?;
        self.is_finished = true;
        let parent = self.target.parent().filter(|path| *path != Path::new(""));
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        Ok(self.totals)
    }

    fn shard(&mut self, shard: u16) -> anyhow::Result<&mut NewShard> {
        let known = self.shards.get_mut(&shard);
        known.with_context(|| format!("shard {shard} was not named before"))
    }
}

impl Drop for NewStore {
    /// What broke off is of no use.
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

impl TakeLine for NewStore {
    fn take(&mut self, line: &Line) -> anyhow::Result<()> {
        ensure!(!self.is_complete, "something follows the end");
        ensure!(
            self.shard_count.is_some() || matches!(line, Line::Head(_)),
            "an export begins with its head"
        );
        match line {
            Line::Head(head) => {
                ensure!(self.shard_count.is_none(), "two heads");
                ensure!(
                    (1..=SHARDS_MAX).contains(&head.shard_count),
                    "{} shards: a store has 1 to {SHARDS_MAX}",
                    head.shard_count
                );
                self.shard_count = Some(head.shard_count);
            }
            Line::Shard(line) => {
                ensure!(
                    Some(line.shard) < self.shard_count,
                    "there is no shard {}",
                    line.shard
                );
                let place = Place {
                    folder: self.partial.join("journal").join(epoch_folder_name(EPOCH)),
                    journal: self.journal,
                    shard: ShardId(line.shard),
                    segment_size: self.segment_size,
                    unix_ms: self.unix_ms,
                };
                let new = NewShard::new(place, line)?;
                let former = self.shards.insert(line.shard, new);
                ensure!(former.is_none(), "shard {} comes twice", line.shard);
            }
            Line::Queue(line) => self.shard(line.shard)?.queue(line)?,
            Line::Part(line) => self.shard(line.shard)?.part(line)?,
            Line::Message(line) => self.shard(line.shard)?.message(line)?,
            Line::DuplicateId(line) => self.shard(line.shard)?.duplicate_id(line)?,
            Line::End(totals) => {
                ensure!(
                    *totals == self.totals,
                    "lines are missing: the end counts {totals:?}, there were {:?}",
                    self.totals
                );
                self.is_complete = true;
            }
        }
        self.totals.note(line);
        Ok(())
    }
}

/// Reads the new store as a broker does. Errors: it would not start, which is our own mistake.
fn prove(folder: &Path) -> anyhow::Result<()> {
    let mut buffer = read_buffer();
    let place = folder::Place::find(folder)?;
    let (_, identity, shards) = open(&place, None)?;
    for shard in shards {
        let looked = look(&place, identity.journal, shard, &mut buffer)?;
        match looked.outcome {
            Outcome::Sound { .. } => {}
            Outcome::Damaged(error) => bail!("the new store is not sound: {error}"),
            Outcome::Contradiction { what, .. } => bail!("the new store is not sound: {what}"),
        }
    }
    Ok(())
}

/// A new store has one epoch.
const EPOCH: Epoch = Epoch::ZERO.next();

/// Where a shard's new journal is.
pub(crate) struct Place {
    folder: PathBuf,
    journal: JournalId,
    shard: ShardId,
    segment_size: u64,
    unix_ms: u64,
}

/// The new journal of one shard.
pub(crate) struct NewJournal {
    place: Place,
    writer: Writer,
    files: BTreeMap<SegmentId, File>,
    next_segment: SegmentId,
}

impl NewJournal {
    pub(crate) fn new(place: Place, message_floor: u64, queue_floor: u64) -> Self {
        let first = SegmentId::ZERO.next();
        let retained = Retained {
            oldest_segment: first,
            message_floor: MessageId(message_floor),
            queue_floor: QueueId(queue_floor),
        };
        Self {
            place,
            writer: Writer::new(CACHE_SIZE_MIN, EPOCH, Seal::NONE, retained),
            files: BTreeMap::new(),
            next_segment: first,
        }
    }

    /// Errors: it is larger than a record may be, or the disk refuses.
    pub(crate) fn append(&mut self, record: &Record<'_>) -> anyhow::Result<()> {
        let size = encoded_size(record);
        ensure!(
            size <= RECORDS_SIZE_MAX,
            "a record of {size} B; {RECORDS_SIZE_MAX} are the most"
        );
        loop {
            match self.writer.append(record, Budget::Control) {
                Ok(_) => return Ok(()),
                Err(AppendError::NoSegment) => self.add_segment()?,
                Err(AppendError::WindowFull | AppendError::NoMemory) => self.write()?,
                Err(AppendError::Failed(failure)) => bail!("{failure}"),
            }
        }
    }

    fn add_segment(&mut self) -> io::Result<()> {
        let Place {
            folder,
            journal,
            shard,
            segment_size,
            ..
        } = &self.place;
        let segment = self.next_segment;
        let head = SegmentHead {
            journal: *journal,
            shard: *shard,
            segment,
            generation: 0,
            epoch: EPOCH,
            first_segment: SegmentId::ZERO.next(),
            size: *segment_size,
            inflight_blocks_max: INFLIGHT_BLOCKS_MAX as u32,
        };
        let path = folder.join(segment_file_name(*shard, segment));
        let file = File::create_new(path)?;
        // What is not written reads as zeros; nobody writes to this epoch again.
        file.set_len(head.size)?;
        file.write_all_at(&head.encode(), 0)?;
        self.files.insert(segment, file);
        self.next_segment = segment.next();
        self.writer.add_segment(head);
        Ok(())
    }

    /// Writes what is sealed, and what is open.
    fn write(&mut self) -> anyhow::Result<()> {
        while let Some(write) = self.writer.poll_write(self.place.unix_ms) {
            let file = &self.files[&write.segment];
            file.write_all_at(&write.block, write.offset)?;
            let done = WriteDone {
                ticket: write.ticket,
                result: Ok(()),
            };
            let taken = self.writer.handle_write_done(done, 0);
            taken.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        }
        // Behind the last block of a file nothing is written to it any more.
        let needed = self.writer.oldest_segment_to_write();
        while let Some(entry) = self.files.first_entry()
            && needed.is_some_and(|needed| *entry.key() < needed)
        {
            entry.remove().sync_all()?;
        }
        Ok(())
    }

    /// Writes that it was stopped in order, and syncs.
    pub(crate) fn stop(&mut self, unix_ms: u64) -> anyhow::Result<()> {
        self.append(&Record::CleanShutdown { unix_ms })?;
        self.write()?;
        self.writer.seal_idle();
        self.write()?;
        for file in self.files.values() {
            file.sync_all()?;
        }
        Ok(())
    }
}
