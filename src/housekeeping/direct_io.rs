//! Whether the data folder's file system writes with `O_DIRECT`: what durability rests on.
//!
//! It is tried, not guessed from the name of the file system: a file is opened and one sector
//! written as blocks will be. Only a plain "not supported" refuses the folder; whatever else goes
//! wrong (no space, no permission, a bad disk) is told by the step that needs it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use forebay_journal::format::SECTOR_SIZE;
use forebay_journal::storage::buffer::ReadBuffer;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

/// The file that is tried with; removed again.
pub(super) const PROBE_NAME: &str = "direct-io.new";

/// Why blocks cannot be written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// The file system refused to open a file so.
    Open(i32),
    /// It opened the file and refused the write.
    Write(i32),
    /// It takes everything, and behind it there is only memory.
    Memory,
}

/// A folder on a file system that blocks cannot be written to.
#[derive(Debug)]
pub struct NoDirectIo {
    folder: PathBuf,
    lack: Lack,
}

impl std::fmt::Display for NoDirectIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let folder = self.folder.display();
        write!(f, "the file system of {folder} does not support O_DIRECT (")?;
        match self.lack {
            Lack::Open(code) => write!(f, "opening a file: {}", system(code))?,
            Lack::Write(code) => write!(
                f,
                "writing {SECTOR_SIZE} bytes, a larger sector perhaps: {}",
                system(code)
            )?,
            Lack::Memory => f.write_str("it is a tmpfs, which lives in memory")?,
        }
        f.write_str(
            "). Remedy: put the data folder on a disk with ext4 or XFS (not tmpfs), with --data DIR",
        )
    }
}

impl std::error::Error for NoDirectIo {}

fn system(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Whether the system says that it cannot do this at all, here.
fn is_unsupported(error: &io::Error) -> Option<i32> {
    error
        .raw_os_error()
        .filter(|code| matches!(*code, libc::EINVAL | libc::EOPNOTSUPP))
}

/// Tries to write in `folder` as blocks are written.
///
/// Errors: the file system cannot; nothing is left behind.
pub fn check(folder: &Path) -> Result<(), NoDirectIo> {
    let path = folder.join(PROBE_NAME);
    let checked = check_file(&path, |file, sector| file.write_all_at(sector, 0));
    // Some file systems make the file and refuse to open it; the next start removes it as well.
    let _ = std::fs::remove_file(&path);
    checked.map_err(|lack| NoDirectIo {
        folder: folder.to_owned(),
        lack,
    })
}

fn check_file(path: &Path, write: impl FnOnce(&File, &[u8]) -> io::Result<()>) -> Result<(), Lack> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) => return is_unsupported(&error).map_or(Ok(()), |code| Err(Lack::Open(code))),
    };
    // It takes the flag since Linux 6.6.
    if fstatfs(&file).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
        return Err(Lack::Memory);
    }
    match write(&file, &ReadBuffer::new(SECTOR_SIZE)) {
        Ok(()) => Ok(()),
        Err(error) => is_unsupported(&error).map_or(Ok(()), |code| Err(Lack::Write(code))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(lack: Lack) -> String {
        let folder = PathBuf::from("/srv/data");
        NoDirectIo { folder, lack }.to_string()
    }

    #[test]
    fn each_lack_names_the_folder_the_reason_and_the_remedy() {
        let opening = message(Lack::Open(libc::EINVAL));
        let writing = message(Lack::Write(libc::EINVAL));
        for text in [&opening, &writing, &message(Lack::Memory)] {
            for word in [
                "/srv/data",
                "O_DIRECT",
                "Remedy: ",
                "ext4 or XFS",
                "--data DIR",
            ] {
                assert!(text.contains(word), "{word:?} not in: {text}");
            }
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert!(opening.contains("opening a file: Invalid argument (os error 22)"));
        assert!(writing.contains("writing 4096 bytes"), "{writing}");
        assert!(message(Lack::Memory).contains("tmpfs"));
    }

    /// A real file system without `O_DIRECT`: proc.
    #[test]
    fn a_refused_open_is_found() {
        let never = |_: &File, _: &[u8]| -> io::Result<()> { panic!("it is not open") };
        let found = check_file(Path::new("/proc/self/comm"), never);
        assert_eq!(found, Err(Lack::Open(libc::EINVAL)));
        let found = check_file(Path::new("/proc/no such folder/file"), never);
        assert_eq!(found, Ok(()), "told by the step that needs the folder");
    }

    #[test]
    fn a_refused_write_is_found_and_other_failures_are_left_to_others() {
        // Beside the build: /tmp may be a tmpfs.
        let program = std::env::current_exe().expect("a path");
        let beside = program.parent().expect("a folder");
        let folder = tempfile::tempdir_in(beside).expect("a folder");
        let path = folder.path().join("file");
        let table = [
            (libc::EINVAL, Err(Lack::Write(libc::EINVAL))),
            (libc::EOPNOTSUPP, Err(Lack::Write(libc::EOPNOTSUPP))),
            (libc::ENOSPC, Ok(())),
            (libc::EDQUOT, Ok(())),
            (libc::EIO, Ok(())),
        ];
        for (code, expected) in table {
            let found = check_file(&path, |_, sector| {
                assert_eq!(sector.len(), SECTOR_SIZE);
                Err(system(code))
            });
            assert_eq!(found, expected, "{code}");
        }
        assert!(check(folder.path()).is_ok(), "the build disk is fine");
        assert!(!folder.path().join(PROBE_NAME).exists());
    }
}
