//! The data folder's lock: an open-file-description lock, never a POSIX record lock.
//!
//! A POSIX lock is free while the dead owner's last write is still on its way to the disk; an OFD
//! lock is held until then (`reliability.md` 0.2). The file's text says who holds it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Held as long as the value lives.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

/// Why the folder cannot be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        /// The folder.
        folder: PathBuf,
        /// What it wrote about itself.
        holder: String,
    },
    /// The system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { folder, holder } => write!(
                f,
                "data folder {} is in use by another broker: {holder}. Remedy: stop it, or start \
                 this one with another --data folder",
                folder.display()
            ),
            Self::Io { path, error } => write!(f, "cannot lock {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for LockError {}

impl FolderLock {
    /// Locks `folder` for this process and writes `holder` into the lock file. Waits up to two
    /// seconds for an owner that is just ending.
    ///
    /// Errors: see [`LockError`]; nothing is changed then.
    pub fn take(folder: &Path, holder: &str) -> Result<Self, LockError> {
        let path = folder.join("lock");
        let io = |error| LockError::Io {
            path: path.clone(),
            error,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        let whole_file = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match lock_in_time(&file, &whole_file) {
            Ok(()) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "it did not say who it is".to_owned(),
                    text => text.replace(|c: char| c.is_control(), " "),
                };
                return Err(LockError::Held {
                    folder: folder.to_owned(),
                    holder,
                });
            }
            Err(errno) => return Err(io(errno.into())),
        }
        let mut lock = Self { file };
        lock.describe(holder).map_err(io)?;
        Ok(lock)
    }

    /// Replaces what the lock file says about its holder.
    ///
    /// Errors: the write failed; the lock is still held.
    pub fn describe(&mut self, holder: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{holder}")
    }
}

/// A killed owner holds the lock until its last writes are on the disk: that takes a moment.
const PATIENCE: Duration = Duration::from_secs(2);

fn lock_in_time(file: &File, whole_file: &libc::flock) -> Result<(), Errno> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(whole_file)) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(errno) => return Err(errno),
        }
    }
}

impl AsRawFd for FolderLock {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::{FolderLock, LockError};

    #[test]
    fn second_taker_learns_who_holds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = FolderLock::take(folder.path(), "pid 1, node a").expect("free");
        match FolderLock::take(folder.path(), "pid 2") {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, "pid 1, node a"),
            other => panic!("{other:?}"),
        }
        drop(first);
        FolderLock::take(folder.path(), "pid 2").expect("free again");
    }
}
