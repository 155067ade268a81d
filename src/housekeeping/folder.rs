//! Names of the files in a data folder, and the steps that make or claim one (`docs/format.md` 2).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use forebay_journal::format::{FormatError, Superblock};
use forebay_journal::recovery::file_name::{
    QUARANTINE_FOLDER_NAME, SUPERBLOCK_FILE_NAME, epoch_folder_name, parse_epoch_folder_name,
    parse_identifier_file_name, parse_segment_file_name, segment_file_name,
};
use forebay_journal::{Epoch, JournalId, SegmentId, ShardId};

use super::direct_io::PROBE_NAME;

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum FolderError {
    /// The system refused.
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Its reason.
        error: io::Error,
    },
    /// The folder has files but no journal of ours.
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// The superblock is damaged, of another version, or something else.
    Superblock {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: FormatError,
    },
    /// The folder was made with another number of shards.
    ShardCount {
        /// The folder.
        folder: PathBuf,
        /// Its number.
        found: u16,
        /// The number asked for.
        asked: u16,
    },
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                action,
                path,
                error,
            } => {
                write!(f, "cannot {action} {}: {error}", path.display())
            }
            Self::Foreign { folder, found } => write!(
                f,
                "{} is not a Forebay data folder: it holds {found} but no journal/superblock. \
                 Remedy: name an empty or a new folder",
                folder.display()
            ),
            Self::Superblock {
                path,
                error: FormatError::Version { found },
            } => write!(
                f,
                "{} is of format version ({found}); this release reads versions 1 to {known} and \
                 writes version {known}. Remedy: start the release that wrote it or a later one, \
                 or name another folder",
                path.display(),
                known = forebay_journal::format::FORMAT_VERSION
            ),
            Self::Superblock { path, error } => write!(
                f,
                "{} is not a sound superblock: {error}. Remedy: restore the file (8 KiB, written \
                 once and never changed) from a copy of this folder, or name another folder",
                path.display()
            ),
            Self::ShardCount {
                folder,
                found,
                asked,
            } => write!(
                f,
                "{} was made with {found} shard(s), {asked} asked for; queues live on the shard \
                 their address was placed on. Remedy: start with --shards {found}, or without it",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for FolderError {}

pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |error| FolderError::Io {
        action,
        path,
        error,
    }
}

/// A data folder and what its names mean.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

/// A file of the journal whose name says it is a segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Epoch of the folder it lies in.
    pub epoch: Epoch,
    /// Its shard.
    pub shard: ShardId,
    /// Its number.
    pub segment: SegmentId,
    /// The file.
    pub path: PathBuf,
}

impl Folder {
    /// Names the folder; touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the journal.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The folder of one epoch.
    pub fn epoch(&self, epoch: Epoch) -> PathBuf {
        self.journal().join(epoch_folder_name(epoch))
    }

    /// The file of one segment.
    pub fn segment(&self, epoch: Epoch, shard: ShardId, segment: SegmentId) -> PathBuf {
        self.epoch(epoch).join(segment_file_name(shard, segment))
    }

    /// The folder cut data is copied to.
    pub fn quarantine(&self) -> PathBuf {
        self.journal().join(QUARANTINE_FOLDER_NAME)
    }

    fn superblock(&self) -> PathBuf {
        self.journal().join(SUPERBLOCK_FILE_NAME)
    }

    /// Makes the folder itself, so that it can be locked, and from now on names it by its absolute
    /// path. A folder that is not ours stays as it is.
    ///
    /// Errors: the system's, or the folder holds something else.
    pub fn make(&mut self) -> Result<(), FolderError> {
        fs::create_dir_all(&self.root).map_err(io("create", &self.root))?;
        self.root = fs::canonicalize(&self.root).map_err(io("resolve", &self.root))?;
        if self.superblock().exists() {
            return Ok(());
        }
        let entries = fs::read_dir(&self.root).map_err(io("list", &self.root))?;
        for entry in entries {
            let name = entry.map_err(io("list", &self.root))?.file_name();
            // `journal` without a superblock is an unfinished creation if it is empty.
            let is_ours = name == "lock"
                || name == "lock.superblock"
                || name == PROBE_NAME
                || (name == "journal" && is_empty(&self.journal()));
            if !is_ours {
                let found = name.to_string_lossy().into_owned();
                return Err(FolderError::Foreign {
                    folder: self.root.clone(),
                    found,
                });
            }
        }
        Ok(())
    }

    /// Reads the superblock, or makes a new journal with one.
    ///
    /// `shards` is what was asked for, zero for "as it is, one in a new folder". Call with the
    /// folder's lock held.
    pub fn open(
        &self,
        shards: u16,
        new: JournalId,
        unix_ms: u64,
    ) -> Result<Superblock, FolderError> {
        let path = self.superblock();
        match File::open(&path) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(io("read", &path))?;
                let superblock = Superblock::decode(&bytes)
                    .map_err(|error| FolderError::Superblock { path, error })?;
                let found = superblock.shard_count;
                if shards != 0 && shards != found {
                    let folder = self.root.clone();
                    return Err(FolderError::ShardCount {
                        folder,
                        found,
                        asked: shards,
                    });
                }
                Ok(superblock)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let shard_count = shards.max(1);
                let superblock = Superblock {
                    journal: new,
                    shard_count,
                    created_unix_ms: unix_ms,
                };
                self.create(&superblock)?;
                Ok(superblock)
            }
            Err(error) => Err(io("open", &path)(error)),
        }
    }

    fn create(&self, superblock: &Superblock) -> Result<(), FolderError> {
        let journal = self.journal();
        fs::create_dir_all(&journal).map_err(io("create", &journal))?;
        // Written aside and renamed: a crash leaves no half superblock under its name.
        let (path, aside) = (self.superblock(), self.root.join("lock.superblock"));
        let mut file = File::create(&aside).map_err(io("create", &aside))?;
        file.write_all(&superblock.encode())
            .map_err(io("write", &aside))?;
        file.sync_all().map_err(io("sync", &aside))?;
        fs::rename(&aside, &path).map_err(io("rename to", &path))?;
        sync_folder(&journal)?;
        sync_folder(&self.root)
    }

    /// Epochs that were claimed, lowest first.
    pub fn epochs(&self) -> Result<Vec<Epoch>, FolderError> {
        let journal = self.journal();
        let mut epochs = Vec::new();
        for entry in fs::read_dir(&journal).map_err(io("list", &journal))? {
            let name = entry.map_err(io("list", &journal))?.file_name();
            epochs.extend(name.to_str().and_then(parse_epoch_folder_name));
        }
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Segment files of all epochs and shards, in order of epoch, shard and number.
    pub fn segments(&self) -> Result<Vec<SegmentName>, FolderError> {
        let mut names = Vec::new();
        for epoch in self.epochs()? {
            for path in self.files(epoch)? {
                let named = parse_segment_file_name(name_of(&path));
                names.extend(named.map(|(shard, segment)| SegmentName {
                    epoch,
                    shard,
                    segment,
                    path,
                }));
            }
        }
        names.sort();
        Ok(names)
    }

    fn files(&self, epoch: Epoch) -> Result<Vec<PathBuf>, FolderError> {
        let folder = self.epoch(epoch);
        let entries = fs::read_dir(&folder).map_err(io("list", &folder))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<Result<_, _>>().map_err(io("list", &folder))
    }

    /// Removes unfinished preparations (`*.new`) of epochs before: nothing of them ever counted.
    /// Those of shards that do not serve stay: nothing there is touched.
    fn remove_unfinished(&self, damaged: &[ShardId]) -> Result<(), FolderError> {
        for epoch in self.epochs()? {
            for path in self.files(epoch)? {
                let Some(name) = name_of(&path).strip_suffix(".new") else {
                    continue;
                };
                let named = parse_segment_file_name(name);
                if named.is_none_or(|(shard, _)| !damaged.contains(&shard)) {
                    fs::remove_file(&path).map_err(io("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    /// Claims the next epoch by making its folder, exclusively and durably. What older ones left
    /// half prepared goes first, but for these shards: until here a start may be refused, and then
    /// changes nothing.
    pub fn claim_epoch(&self, damaged: &[ShardId]) -> Result<Epoch, FolderError> {
        self.remove_unfinished(damaged)?;
        let newest = self.epochs()?.last().copied().unwrap_or(Epoch::ZERO);
        let path = self.epoch(newest.next());
        fs::create_dir(&path).map_err(io("create", &path))?;
        sync_folder(&self.journal())?;
        Ok(newest.next())
    }

    /// Removes the folders of older epochs that hold nothing any more.
    pub fn remove_empty_epochs(&self, current: Epoch) -> Result<(), FolderError> {
        for epoch in self.epochs()?.into_iter().filter(|&epoch| epoch < current) {
            let folder = self.epoch(epoch);
            let files = self.files(epoch)?;
            let is_identifiers =
                |path: &PathBuf| parse_identifier_file_name(name_of(path)).is_some();
            // They speak of segments of which none is left.
            if files.iter().all(is_identifiers) {
                for path in files {
                    fs::remove_file(&path).map_err(io("remove", &path))?;
                }
                fs::remove_dir(&folder).map_err(io("remove", &folder))?;
            }
        }
        Ok(())
    }
}

fn name_of(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default()
}

/// Makes the names in `folder` durable.
pub fn sync_folder(folder: &Path) -> Result<(), FolderError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(io("sync", folder))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Bytes of a folder's file system, and those of them that are free for this process.
pub fn disk_of(folder: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    let unit = stat.fragment_size();
    Some((stat.blocks() * unit, stat.blocks_available() * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: JournalId = JournalId([9; 16]);

    #[test]
    fn a_new_folder_is_made_once_and_read_later() {
        let root = tempfile::tempdir().expect("a folder");
        let mut folder = Folder::new(root.path().join("data"));
        folder.make().expect("makes it");
        let made = folder.open(2, ID, 5).expect("creates");
        assert_eq!(folder.open(0, JournalId([1; 16]), 6).expect("reads"), made);
        assert!(matches!(
            folder.open(3, ID, 7),
            Err(FolderError::ShardCount { found: 2, .. })
        ));
        assert_eq!(folder.claim_epoch(&[]).expect("claims").get(), 1);
        assert_eq!(folder.claim_epoch(&[]).expect("claims").get(), 2);
        let identifiers = folder
            .epoch(Epoch::ZERO.next())
            .join("shard-000-identifiers");
        fs::write(identifiers, "of no segment").expect("writes");
        folder
            .remove_empty_epochs(Epoch::ZERO.plus(2))
            .expect("removes");
        assert_eq!(folder.epochs().expect("lists"), [Epoch::ZERO.plus(2)]);
    }

    #[test]
    fn a_foreign_folder_is_refused_by_name() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("thesis.tex"), "x").expect("writes");
        match Folder::new(root.path()).make() {
            Err(FolderError::Foreign { found, .. }) => assert_eq!(found, "thesis.tex"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path());
        folder.open(1, ID, 5).expect("creates");
        let path = folder.superblock();
        let mut bytes = fs::read(&path).expect("reads");
        for copy in bytes.chunks_mut(4096) {
            copy[8] = 3;
            let sum = forebay_journal::format::checksum(&copy[..4080]);
            copy[4080..].copy_from_slice(zerocopy::IntoBytes::as_bytes(&sum));
        }
        fs::write(&path, bytes).expect("writes");
        let error = folder.open(1, ID, 5).expect_err("refused");
        assert!(error.to_string().contains("format version (3)"), "{error}");
    }
}
