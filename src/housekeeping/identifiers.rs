//! The identifier files of strict mode: made at start, read at the next (`docs/format.md` 5a).

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use forebay_journal::format::{IDENTIFIER_FILE_SIZE, Identifier};
use forebay_journal::recovery::Evidence;
use forebay_journal::recovery::file_name::identifier_file_name;
use forebay_journal::{Epoch, JournalId, ShardId};

use super::folder::{Folder, FolderError, io, sync_folder};
use super::prepare::open_direct;

fn path_of(folder: &Folder, epoch: Epoch, shard: ShardId) -> PathBuf {
    folder.epoch(epoch).join(identifier_file_name(shard))
}

/// Makes the file of a shard in the epoch that was just claimed, durably, and opens it for writing
/// by a ring.
pub fn make(folder: &Folder, epoch: Epoch, shard: ShardId) -> Result<OwnedFd, FolderError> {
    let path = path_of(folder, epoch, shard);
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).open(&path);
    let mut file = made.map_err(io("create", &path))?;
    file.write_all(&[0; IDENTIFIER_FILE_SIZE])
        .map_err(io("write", &path))?;
    file.sync_all().map_err(io("sync", &path))?;
    sync_folder(&folder.epoch(epoch))?;
    open_direct(&path).map_err(io("open", &path))
}

/// What the identifiers of all epochs say to be acknowledged in a shard's journal.
///
/// Errors: the folder cannot be listed. A file that is not there or cannot be read says nothing.
pub fn evidence(
    folder: &Folder,
    journal: JournalId,
    shard: ShardId,
) -> Result<Evidence, FolderError> {
    let mut evidence = Evidence::default();
    for epoch in folder.epochs()? {
        let path = path_of(folder, epoch, shard);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!("cannot read {}: {error}", path.display());
                continue;
            }
        };
        if let Some(newest) = Identifier::newest(&bytes, journal, shard, epoch) {
            evidence.add_identifier(&newest);
        }
    }
    Ok(evidence)
}
