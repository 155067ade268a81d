//! What a path names, which files are there, and whether a broker runs on them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use forebay_journal::format::{Identifier, SECTOR_SIZE, SegmentHead};
use forebay_journal::recovery::Evidence;
use forebay_journal::recovery::file_name::{
    QUARANTINE_FOLDER_NAME, QuarantineName, SUPERBLOCK_FILE_NAME, epoch_folder_name,
    parse_epoch_folder_name, parse_identifier_file_name, parse_segment_file_name,
    segment_file_name,
};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Epoch, JournalId, SegmentId, ShardId};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::file::{OpenSegment, SegmentName};

/// What to look at.
#[derive(Debug)]
pub(crate) enum Place {
    /// A journal; the first is its folder.
    Journal { journal: PathBuf, data: PathBuf },
    /// One segment file.
    Segment { path: PathBuf },
}

/// Whether a broker runs on the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The folder's lock is held; the holder's own words.
    Running { holder: String },
    /// Nobody holds the lock.
    None,
}

impl Owner {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// Files of the journal's folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) epochs: Vec<Epoch>,
    /// In order of shard, epoch and segment.
    pub(crate) segments: Vec<SegmentName>,
    /// Identifier files of strict mode.
    pub(crate) identifiers: Vec<(ShardId, Epoch, PathBuf)>,
    /// What starts cut, with its size, in order of name.
    pub(crate) quarantined: Vec<(QuarantineName, u64)>,
    /// Names that are none of ours, unfinished preparations among them.
    pub(crate) others: Vec<PathBuf>,
}

impl Place {
    /// Finds out what `path` names. Errors: nothing of ours.
    pub(crate) fn find(path: &Path) -> anyhow::Result<Self> {
        let kind = fs::metadata(path).with_context(|| path.display().to_string())?;
        let path = path.to_owned();
        if !kind.is_dir() {
            return Ok(Self::Segment { path });
        }
        if path.join("journal").is_dir() {
            let journal = path.join("journal");
            return Ok(Self::Journal {
                journal,
                data: path,
            });
        }
        let has_epoch = |path: &Path| {
            fs::read_dir(path).is_ok_and(|entries| {
                let mut names = entries.flatten().map(|entry| entry.file_name());
                names.any(|name| name.to_str().and_then(parse_epoch_folder_name).is_some())
            })
        };
        if path.join(SUPERBLOCK_FILE_NAME).is_file() || has_epoch(&path) {
            let data = path.join("..");
            return Ok(Self::Journal {
                journal: path,
                data,
            });
        }
        bail!(
            "{} is not a Forebay data folder: it has no folder journal/. Name the folder given \
             to `forebay serve --data`",
            path.display()
        )
    }

    /// The journal's folder. Errors: it is a single file, which does not tell `what`.
    pub(crate) fn journal(&self, what: &str) -> anyhow::Result<&Path> {
        match self {
            Self::Journal { journal, .. } => Ok(journal),
            Self::Segment { path } => bail!(
                "{} is one file; {what} needs the data folder",
                path.display()
            ),
        }
    }

    /// Refuses to make something inside the journal that is read. Errors: it is inside.
    pub(crate) fn refuse_inside(&self, new: &Path) -> anyhow::Result<()> {
        let Self::Journal { journal, .. } = self else {
            return Ok(());
        };
        let parent = new.parent().filter(|parent| *parent != Path::new(""));
        let parent = parent.unwrap_or_else(|| Path::new("."));
        let shown = || parent.display().to_string();
        let parent = fs::canonicalize(parent).with_context(shown)?;
        let journal = fs::canonicalize(journal)?;
        if parent.starts_with(&journal) {
            bail!(
                "{} is inside the journal that is read, where nothing is written",
                new.display()
            );
        }
        Ok(())
    }

    /// Whether a broker runs here. Asks about the lock and never takes it.
    pub(crate) fn owner(&self) -> Owner {
        match self {
            Self::Journal { data, .. } => owner(&data.join("lock")),
            Self::Segment { path } => {
                let above = path.parent().and_then(Path::parent).and_then(Path::parent);
                above.map_or(Owner::None, |data| owner(&data.join("lock")))
            }
        }
    }

    /// The files that are there now, of all shards or of one.
    ///
    /// Errors: the folder cannot be listed, or the one file is no segment.
    pub(crate) fn list(&self, shard: Option<u16>) -> anyhow::Result<Listing> {
        let mut listing = match self {
            Self::Journal { journal, .. } => list(journal)?,
            Self::Segment { path } => Listing {
                segments: vec![single(path)?],
                ..Listing::default()
            },
        };
        listing
            .segments
            .retain(|name| shard.is_none_or(|shard| name.shard.0 == shard));
        listing
            .identifiers
            .retain(|(of, ..)| shard.is_none_or(|shard| of.0 == shard));
        Ok(listing)
    }

    /// Opens the files of a shard; `None` when one went away meanwhile, so that the list is old.
    pub(crate) fn open(
        &self,
        shard: ShardId,
        buffer: &mut ReadBuffer,
    ) -> anyhow::Result<Option<Vec<OpenSegment>>> {
        let mut files = Vec::new();
        for name in self.list(Some(shard.0))?.segments {
            let path = name.path.clone();
            match OpenSegment::open(name, buffer) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    return Err(error).with_context(|| format!("open {}", path.display()));
                }
            }
        }
        Ok(Some(files))
    }

    /// What the identifiers of a shard say to be acknowledged; what cannot be read says nothing.
    ///
    /// Errors: the folder cannot be listed.
    pub(crate) fn evidence(&self, journal: JournalId, shard: ShardId) -> anyhow::Result<Evidence> {
        let mut evidence = Evidence::default();
        for (_, epoch, path) in self.list(Some(shard.0))?.identifiers {
            let newest = fs::read(path).ok();
            let newest = newest.and_then(|bytes| Identifier::newest(&bytes, journal, shard, epoch));
            newest
                .iter()
                .for_each(|newest| evidence.add_identifier(newest));
        }
        Ok(evidence)
    }

    /// Where the file of a segment is or should be.
    pub(crate) fn path_of(&self, shard: ShardId, epoch: Epoch, segment: SegmentId) -> PathBuf {
        match self {
            Self::Journal { journal, .. } => journal
                .join(epoch_folder_name(epoch))
                .join(segment_file_name(shard, segment)),
            Self::Segment { path } => path.clone(),
        }
    }
}

fn list(journal: &Path) -> anyhow::Result<Listing> {
    let mut listing = Listing::default();
    for (path, name) in entries(journal)?.unwrap_or_default() {
        match parse_epoch_folder_name(&name) {
            Some(epoch) => listing.epochs.push(epoch),
            None if name == SUPERBLOCK_FILE_NAME => {}
            None if name == QUARANTINE_FOLDER_NAME => list_quarantine(&path, &mut listing)?,
            None => listing.others.push(path),
        }
    }
    listing.epochs.sort_unstable();
    for &epoch in &listing.epochs {
        let folder = journal.join(epoch_folder_name(epoch));
        // A broker removes folders that became empty.
        for (path, name) in entries(&folder)?.unwrap_or_default() {
            match parse_segment_file_name(&name) {
                Some((shard, segment)) => listing.segments.push(SegmentName {
                    shard,
                    epoch,
                    segment,
                    path,
                }),
                None => match parse_identifier_file_name(&name) {
                    Some(shard) => listing.identifiers.push((shard, epoch, path)),
                    None => listing.others.push(path),
                },
            }
        }
    }
    listing.segments.sort();
    listing.others.sort();
    Ok(listing)
}

fn list_quarantine(folder: &Path, listing: &mut Listing) -> anyhow::Result<()> {
    for (path, name) in entries(folder)?.unwrap_or_default() {
        match QuarantineName::parse(&name) {
            Some(name) => {
                let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                listing.quarantined.push((name, size));
            }
            None => listing.others.push(path),
        }
    }
    listing
        .quarantined
        .sort_by_key(|(name, _)| name.to_string());
    Ok(())
}

/// Paths and names in a folder; `None` if it is not there.
fn entries(folder: &Path) -> anyhow::Result<Option<Vec<(PathBuf, String)>>> {
    let context = || format!("list {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(context)?;
        names.push((
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        ));
    }
    Ok(Some(names))
}

/// A segment file by itself: it may have been copied anywhere, so its head says what it is.
fn single(path: &Path) -> anyhow::Result<SegmentName> {
    let mut sector = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    io::Read::read_to_end(&mut io::Read::take(&file, SECTOR_SIZE as u64), &mut sector)
        .with_context(|| format!("read {}", path.display()))?;
    let named = || {
        let (shard, segment) = parse_segment_file_name(path.file_name()?.to_str()?)?;
        let epoch = parse_epoch_folder_name(path.parent()?.file_name()?.to_str()?)?;
        Some((shard, epoch, segment))
    };
    let said = SegmentHead::decode(&sector).map(|head| (head.shard, head.epoch, head.segment));
    match said {
        Ok((shard, epoch, segment)) => Some((shard, epoch, segment)),
        Err(_) => named(),
    }
    .map(|(shard, epoch, segment)| SegmentName {
        shard,
        epoch,
        segment,
        path: path.to_owned(),
    })
    .with_context(|| format!("{} is not a segment file of a journal", path.display()))
}

fn owner(lock: &Path) -> Owner {
    let Ok(file) = File::open(lock) else {
        return Owner::None;
    };
    let mut whole_file = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut whole_file));
    if asked.is_err() || whole_file.l_type == libc::F_UNLCK as i16 {
        return Owner::None;
    }
    let mut text = Vec::new();
    // The text is for people; without it the lock says enough.
    let _ = io::Read::read_to_end(&mut io::Read::take(&file, 1024), &mut text);
    let text = String::from_utf8_lossy(&text);
    let holder = text.trim().replace(|c: char| c.is_control(), " ");
    Owner::Running { holder }
}
