//! Reads a shard's journal at start, by a glommio executor, and replays it into its queues.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay_journal::format::{Record, SECTOR_SIZE};
use forebay_journal::reader::{READ_SIZE_BYTES, ReadError, ReadRequest};
use forebay_journal::recovery::file_name::QuarantineName;
use forebay_journal::recovery::{Recovered, Recovery, RecoveryError, RecoveryInput, SegmentFile};
use forebay_journal::{JournalId, Location, Lsn, ShardId};
use glommio::io::{DmaFile, OpenOptions, ReadResult};

use super::executor::{executor, with_pulse};
use super::folder::{Folder, FolderError, SegmentName, sync_folder};
use super::read_ahead::ReadAhead;
use super::{identifiers, quarantine};
use crate::limits::RECOVERY_FILES_MAX;
use crate::queue::{Damaged, Fact, Limits, Machine, Place, Policies, Replayed};

/// What a shard's journal holds.
pub struct Scanned {
    /// Where the journal goes on.
    pub recovered: Recovered,
    /// Its queues.
    pub machine: Machine,
    /// What the queues hold.
    pub replayed: Replayed,
    /// The files, as `recovered` numbers them.
    pub files: Vec<SegmentName>,
    /// Where bytes that were cut were copied to.
    pub quarantined: Vec<PathBuf>,
    /// Bytes that were read, those looked at twice, behind the end or for nothing included.
    pub read_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Scanned {
    /// Bytes that were cut from the end of the journal.
    pub fn cut_bytes(&self) -> u64 {
        let cut = self.recovered.cut.as_ref();
        cut.map_or(0, |cut| cut.ranges.iter().map(|range| range.bytes).sum())
    }
}

/// Why a shard's journal cannot be opened. Nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ScanError {
    /// The executor cannot start.
    Executor(String),
    /// A file cannot be opened, synced or read.
    Folder(FolderError),
    /// The journal is damaged.
    Damaged {
        /// What and where.
        error: Box<RecoveryError>,
        /// The file, if it is there.
        path: Option<PathBuf>,
    },
    /// Sound records contradict each other.
    Inconsistent {
        /// The shard.
        shard: ShardId,
        /// How.
        damaged: Damaged,
    },
}

impl std::fmt::Display for ScanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Executor(reason) => write!(
                f,
                "the recovery scan cannot start: {reason}. Remedy: `ulimit -l` of at least 8192 \
                 KiB of locked memory (LimitMEMLOCK in a systemd unit)"
            ),
            Self::Folder(error) => error.fmt(f),
            Self::Damaged { error, path } => {
                error.fmt(f)?;
                match path {
                    Some(path) => write!(f, " (file {})", path.display()),
                    None => Ok(()),
                }
            }
            Self::Inconsistent { shard, damaged } => {
                write!(
                    f,
                    "the records of shard {shard} contradict each other: {damaged:?}"
                )
            }
        }
    }
}

impl std::error::Error for ScanError {}

/// Opens the journal of one shard: syncs its files first, then reads, then copies what was cut to
/// the quarantine. Blocks the calling thread.
///
/// Errors: see [`ScanError`].
pub fn scan(
    folder: &Folder,
    journal: JournalId,
    shard: ShardId,
    limits: Limits,
    policies: Policies,
) -> Result<Scanned, ScanError> {
    let started = Instant::now();
    let folder = folder.clone();
    let machine = Machine::new(limits, policies);
    let thread = executor("forebay-scan")
        .spawn(move || {
            with_pulse(async move { scan_files(&folder, journal, shard, machine).await })
        })
        .map_err(|error| ScanError::Executor(error.to_string()))?;
    let scanned = thread
        .join()
        .map_err(|error| ScanError::Executor(error.to_string()))??;
    Ok(Scanned {
        elapsed: started.elapsed(),
        ..scanned
    })
}

async fn scan_files(
    folder: &Folder,
    journal: JournalId,
    shard: ShardId,
    machine: Machine,
) -> Result<Scanned, ScanError> {
    let mut names = folder.segments().map_err(ScanError::Folder)?;
    names.retain(|name| name.shard == shard);
    let opened = open_all(folder, &names).await.map_err(ScanError::Folder)?;
    let (files, sizes): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
    let mut scan = Scan {
        folder,
        shard,
        names,
        sizes,
        reads: ReadAhead::new(files),
    };
    let scanned = scan.run(journal, machine).await;
    // Whatever came of it: no executor ends with reads under way.
    scan.reads.close().await;
    Ok(Scanned {
        files: scan.names,
        ..scanned?
    })
}

/// Files that are open, on their way to be a [`Scanned`].
struct Scan<'a> {
    folder: &'a Folder,
    shard: ShardId,
    names: Vec<SegmentName>,
    /// Bytes in each.
    sizes: Vec<u64>,
    reads: ReadAhead,
}

impl Scan<'_> {
    /// All but the names of the files.
    async fn run(
        &mut self,
        journal: JournalId,
        mut machine: Machine,
    ) -> Result<Scanned, ScanError> {
        let mut recovery = self.begin(journal).await?;
        let mut effects = Vec::new();
        let mut sink = |_: Lsn, location: Location, record: &Record<'_>| {
            machine.evolve(&Fact::from(*record), Place::Journal(location), &mut effects);
            effects.clear();
        };
        while let Some(request) = recovery.poll_read() {
            let bytes = self.reads.read(request, recovery.upcoming()).await;
            let bytes = bytes.as_ref().map(|bytes| &**bytes);
            recovery.handle_read(bytes.map_err(|error| *error), &mut sink);
        }
        let mut recovered = recovery.finish().map_err(|error| self.damaged(error))?;
        let replayed = machine.finish_replay();
        let replayed = replayed.map_err(|damaged| ScanError::Inconsistent {
            shard: self.shard,
            damaged,
        })?;
        let needed = machine.segments_in_use().map(|(segment, _)| segment);
        let kept = recovered.keep_bodies(self.shard, needed);
        kept.map_err(|error| self.damaged(error))?;
        let quarantined = self.quarantine(&recovered).await?;
        Ok(Scanned {
            recovered,
            machine,
            replayed,
            files: Vec::new(),
            quarantined,
            read_bytes: self.reads.read_bytes(),
            elapsed: Duration::ZERO,
        })
    }

    async fn begin(&mut self, journal: JournalId) -> Result<Recovery, ScanError> {
        let heads = read_heads(&mut self.reads, self.names.len() as u32).await;
        let segments = (0..).zip(&self.names).zip(&self.sizes).zip(&heads);
        let segments = segments.map(|(((file, name), size), head)| SegmentFile {
            file,
            epoch: name.epoch,
            segment: name.segment,
            size: *size,
            head: head.as_ref().map(|bytes| &**bytes).map_err(|error| *error),
        });
        let mut input = RecoveryInput::new(journal, self.shard, segments.collect());
        let evidence = identifiers::evidence(self.folder, journal, self.shard);
        input.evidence = evidence.map_err(ScanError::Folder)?;
        Ok(Recovery::new(&input))
    }

    fn damaged(&self, error: RecoveryError) -> ScanError {
        let path = error
            .file
            .map(|file| self.names[file as usize].path.clone());
        ScanError::Damaged {
            error: Box::new(error),
            path,
        }
    }

    async fn quarantine(&mut self, recovered: &Recovered) -> Result<Vec<PathBuf>, ScanError> {
        let mut paths = Vec::new();
        for (cut, range) in recovered
            .cut
            .iter()
            .flat_map(|cut| cut.ranges.iter().map(move |range| (cut, range)))
        {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < range.bytes {
                let left = (range.bytes - bytes.len() as u64).min(READ_SIZE_BYTES.into()) as usize;
                let request = ReadRequest {
                    file: range.file,
                    offset: range.offset + bytes.len() as u64,
                    len: left.next_multiple_of(SECTOR_SIZE) as u32,
                };
                let piece = self.reads.read(request, core::iter::empty()).await;
                // Read a moment ago; without a whole copy nothing is cut.
                let name = &self.names[range.file as usize];
                let piece = piece.map_err(|error| unread(name, error))?;
                bytes.extend_from_slice(&piece[..left]);
            }
            let name = QuarantineName::new(self.shard, cut.lsn_from, range);
            paths.push(quarantine::keep(self.folder, name, &bytes).map_err(ScanError::Folder)?);
        }
        Ok(paths)
    }
}

/// Opens and syncs every file: no decision may rest on bytes that are not durable (R7).
///
/// Errors: of the first file, by name, that one of the steps failed with.
async fn open_all(
    folder: &Folder,
    names: &[SegmentName],
) -> Result<Vec<(DmaFile, u64)>, FolderError> {
    let mut files = Vec::with_capacity(names.len());
    for some in names.chunks(RECOVERY_FILES_MAX as usize) {
        let open = |name: &SegmentName| glommio::spawn_local(open_synced(name.path.clone()));
        let opening: Vec<_> = some.iter().map(open).collect();
        let mut opened = Vec::with_capacity(opening.len());
        for task in opening {
            opened.push(task.await);
        }
        for file in opened {
            files.push(file?);
        }
    }
    for epoch in folder.epochs()? {
        sync_folder(&folder.epoch(epoch))?;
    }
    Ok(files)
}

/// Opens a file and syncs it; with its size in bytes.
async fn open_synced(path: PathBuf) -> Result<(DmaFile, u64), FolderError> {
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| FolderError::Io {
            action,
            path,
            error,
        }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .dma_open(&path)
        .await;
    let file = file.map_err(|error| failed("open", &path)(error.into()))?;
    let synced = file.fdatasync().await;
    synced.map_err(|error| failed("sync", &path)(error.into()))?;
    let size = file.file_size().await;
    let size = size.map_err(|error| failed("size", &path)(error.into()))?;
    Ok((file, size))
}

/// The first sector of each file.
async fn read_heads(reads: &mut ReadAhead, files: u32) -> Vec<Result<ReadResult, ReadError>> {
    let head = |file| ReadRequest {
        file,
        offset: 0,
        len: SECTOR_SIZE as u32,
    };
    let mut heads = Vec::with_capacity(files as usize);
    for file in 0..files {
        heads.push(reads.read(head(file), (file + 1..files).map(head)).await);
    }
    heads
}

pub(super) async fn read(file: &DmaFile, offset: u64, len: usize) -> Result<ReadResult, ReadError> {
    let result = file.read_at_aligned(offset, len).await.map_err(|error| {
        let error: io::Error = error.into();
        ReadError::Io {
            code: error.raw_os_error().unwrap_or(libc::EIO),
        }
    })?;
    if result.len() < len {
        Err(ReadError::Short)
    } else {
        Ok(result)
    }
}

fn unread(name: &SegmentName, error: ReadError) -> ScanError {
    let code = match error {
        ReadError::Io { code } => code,
        _ => libc::EIO,
    };
    ScanError::Folder(FolderError::Io {
        action: "copy to the quarantine from",
        path: name.path.clone(),
        error: io::Error::from_raw_os_error(code),
    })
}
