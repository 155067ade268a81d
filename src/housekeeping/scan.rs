//! Reads a shard's journal at start, by a glommio executor, and replays it into its queues.

use std::io;
use std::path::PathBuf;

use forebay_journal::format::SECTOR_SIZE;
use forebay_journal::reader::{ReadError, ReadRequest};
use forebay_journal::recovery::file_name::QuarantineName;
use forebay_journal::recovery::{Recovered, Recovery, RecoveryError, RecoveryInput, SegmentFile};
use forebay_journal::{JournalId, Location, Lsn, ShardId};
use glommio::io::{DmaFile, OpenOptions};

use super::executor::{executor, with_pulse};
use super::folder::{Folder, FolderError, SegmentName, sync_folder};
use super::{identifiers, quarantine};
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
    let folder = folder.clone();
    let machine = Machine::new(limits, policies);
    let thread = executor("forebay-scan")
        .spawn(move || {
            with_pulse(async move { scan_files(&folder, journal, shard, machine).await })
        })
        .map_err(|error| ScanError::Executor(error.to_string()))?;
    match thread.join() {
        Ok(result) => result,
        Err(error) => Err(ScanError::Executor(error.to_string())),
    }
}

async fn scan_files(
    folder: &Folder,
    journal: JournalId,
    shard: ShardId,
    mut machine: Machine,
) -> Result<Scanned, ScanError> {
    let names: Vec<_> = folder
        .segments()
        .map_err(ScanError::Folder)?
        .into_iter()
        .filter(|name| name.shard == shard)
        .collect();
    let files = open_all(folder, &names).await.map_err(ScanError::Folder)?;
    let mut heads = Vec::new();
    for (file, _) in &files {
        heads.push(read(file, 0, SECTOR_SIZE).await);
    }
    let segments = names.iter().zip(&heads).zip(&files).enumerate();
    let segments = segments.map(|(number, ((name, head), (_, size)))| SegmentFile {
        file: number as u32,
        epoch: name.epoch,
        segment: name.segment,
        size: *size,
        head: head.as_ref().map(|bytes| &**bytes).map_err(|error| *error),
    });
    let mut input = RecoveryInput::new(journal, shard, segments.collect());
    input.evidence = identifiers::evidence(folder, journal, shard).map_err(ScanError::Folder)?;
    let mut recovery = Recovery::new(&input);
    let mut effects = Vec::new();
    let mut sink = |_: Lsn, location: Location, record: &forebay_journal::format::Record<'_>| {
        machine.evolve(&Fact::from(*record), Place::Journal(location), &mut effects);
        effects.clear();
    };
    while let Some(ReadRequest { file, offset, len }) = recovery.poll_read() {
        let (file, _) = &files[file as usize];
        let bytes = read(file, offset, len as usize).await;
        recovery.handle_read(
            bytes.as_ref().map(|b| &**b).map_err(|error| *error),
            &mut sink,
        );
    }
    let damaged = |error: RecoveryError| {
        let path = error.file.map(|file| names[file as usize].path.clone());
        ScanError::Damaged {
            error: Box::new(error),
            path,
        }
    };
    let mut recovered = recovery.finish().map_err(damaged)?;
    let replayed = machine
        .finish_replay()
        .map_err(|damaged| ScanError::Inconsistent { shard, damaged })?;
    let needed = machine.segments_in_use().map(|(segment, _)| segment);
    recovered.keep_bodies(shard, needed).map_err(damaged)?;
    let quarantined = quarantine(folder, shard, &recovered, &names, &files).await?;
    for (file, _) in files {
        // Read-only from here; a failed close loses nothing.
        let _ = file.close().await;
    }
    Ok(Scanned {
        recovered,
        machine,
        replayed,
        files: names,
        quarantined,
    })
}

/// Opens and syncs every file: no decision may rest on bytes that are not durable (R7).
async fn open_all(
    folder: &Folder,
    names: &[SegmentName],
) -> Result<Vec<(DmaFile, u64)>, FolderError> {
    let failed = |action: &'static str, name: &SegmentName| {
        let path = name.path.clone();
        move |error: io::Error| FolderError::Io {
            action,
            path,
            error,
        }
    };
    let mut files = Vec::new();
    for name in names {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .dma_open(&name.path)
            .await;
        let file = file.map_err(|error| failed("open", name)(error.into()))?;
        file.fdatasync()
            .await
            .map_err(|error| failed("sync", name)(error.into()))?;
        let size = file
            .file_size()
            .await
            .map_err(|error| failed("size", name)(error.into()))?;
        files.push((file, size));
    }
    for epoch in folder.epochs()? {
        sync_folder(&folder.epoch(epoch))?;
    }
    Ok(files)
}

async fn read(
    file: &DmaFile,
    offset: u64,
    len: usize,
) -> Result<glommio::io::ReadResult, ReadError> {
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

async fn quarantine(
    folder: &Folder,
    shard: ShardId,
    recovered: &Recovered,
    names: &[SegmentName],
    files: &[(DmaFile, u64)],
) -> Result<Vec<PathBuf>, ScanError> {
    let mut paths = Vec::new();
    for (cut, range) in recovered
        .cut
        .iter()
        .flat_map(|cut| cut.ranges.iter().map(move |range| (cut, range)))
    {
        let (file, _) = &files[range.file as usize];
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < range.bytes {
            let left = (range.bytes - bytes.len() as u64).min(1 << 20) as usize;
            let len = left.next_multiple_of(SECTOR_SIZE);
            let piece = read(file, range.offset + bytes.len() as u64, len).await;
            // Read a moment ago; without a whole copy nothing is cut.
            let piece = piece.map_err(|error| unread(&names[range.file as usize], error))?;
            bytes.extend_from_slice(&piece[..left]);
        }
        let name = QuarantineName::new(shard, cut.lsn_from, range);
        paths.push(quarantine::keep(folder, name, &bytes).map_err(ScanError::Folder)?);
    }
    Ok(paths)
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
