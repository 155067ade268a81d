//! The folder that keeps what recovery cut: never overwritten, durable before anything rests on the
//! cut (`docs/format.md` 8).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use forebay_journal::recovery::file_name::QuarantineName;

use super::folder::{Folder, FolderError, io, sync_folder};

/// Copies of the same place with other bytes that are kept; a start with one more is refused.
const COPIES_MAX: u64 = 999;

/// What lies in the quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineUse {
    /// Files.
    pub files: u64,
    /// Bytes in all of them.
    pub bytes: u64,
}

/// Writes `bytes` under `name`, or under the next name of that place that is free, durably.
///
/// A start that cuts the same bytes again, because it ended before the cut took effect, finds them
/// and writes nothing. Call with the folder's lock held.
pub fn keep(
    folder: &Folder,
    mut name: QuarantineName,
    bytes: &[u8],
) -> Result<PathBuf, FolderError> {
    let quarantine = folder.quarantine();
    fs::create_dir_all(&quarantine).map_err(io("create", &quarantine))?;
    let path = loop {
        let path = quarantine.join(name.to_string());
        match fs::read(&path) {
            Ok(kept) if kept == bytes => break path,
            Ok(_) if name.copy < COPIES_MAX => name.copy += 1,
            Ok(_) => {
                return Err(io("add another copy to", &path)(
                    std::io::ErrorKind::AlreadyExists.into(),
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Written aside and renamed: a crash leaves no half copy under its name.
                let aside = quarantine.join(format!("{name}.new"));
                let mut file = File::create(&aside).map_err(io("create", &aside))?;
                file.write_all(bytes).map_err(io("write", &aside))?;
                file.sync_all().map_err(io("sync", &aside))?;
                fs::rename(&aside, &path).map_err(io("rename to", &path))?;
                break path;
            }
            Err(error) => return Err(io("read", &path)(error)),
        }
    };
    sync_folder(&quarantine)?;
    sync_folder(&folder.journal())?;
    Ok(path)
}

/// What was kept so far, by all starts.
pub fn used(folder: &Folder) -> Result<QuarantineUse, FolderError> {
    let quarantine = folder.quarantine();
    let entries = match fs::read_dir(&quarantine) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(QuarantineUse::default());
        }
        Err(error) => return Err(io("list", &quarantine)(error)),
    };
    let mut used = QuarantineUse::default();
    for entry in entries {
        let entry = entry.map_err(io("list", &quarantine))?;
        let metadata = entry.metadata().map_err(io("list", &quarantine))?;
        let name = entry.file_name();
        if name.to_str().and_then(QuarantineName::parse).is_some() {
            used.files += 1;
            used.bytes += metadata.len();
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> QuarantineName {
        let text = "shard-000-epoch-00000000000000000001-lsn-00000000000000000009-segment-\
                    00000000000000000001-byte-00000000000000004096-copy-001";
        QuarantineName::parse(text).expect("a name")
    }

    #[test]
    fn what_is_kept_is_never_overwritten_and_the_same_is_kept_once() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path());
        fs::create_dir(folder.journal()).expect("made");
        assert_eq!(used(&folder).expect("none"), QuarantineUse::default());
        let first = keep(&folder, name(), b"first").expect("kept");
        assert_eq!(keep(&folder, name(), b"first").expect("there"), first);
        let second = keep(&folder, name(), b"other").expect("kept");
        assert_ne!(first, second);
        assert_eq!(fs::read(&first).expect("reads"), b"first");
        assert_eq!(fs::read(&second).expect("reads"), b"other");
        // What a crash left half written counts for nothing and is no obstacle.
        fs::write(folder.quarantine().join(format!("{}.new", name())), "f").expect("writes");
        assert_eq!(keep(&folder, name(), b"other").expect("there"), second);
        let (files, bytes) = (2, 10);
        assert_eq!(used(&folder).expect("two"), QuarantineUse { files, bytes });
    }
}
