//! Segment files, opened for reading only and read past the page cache.
//!
//! Cached pages would cost a running broker: its direct writes to them leave the fast path and
//! must throw the pages out first. So files are read with `O_DIRECT` wherever that works.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use forebay_journal::format::{Block, BlockHeader, SECTOR_SIZE, SegmentHead};
use forebay_journal::reader::{READ_SIZE_BYTES, ReadError};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Epoch, SegmentId, ShardId};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::meter;

/// What a file's place and name say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) segment: SegmentId,
    pub(crate) path: PathBuf,
}

/// An open segment file. It stays readable when the broker renames or removes it meanwhile.
pub(crate) struct OpenSegment {
    pub(crate) name: SegmentName,
    pub(crate) file: File,
    /// Bytes in the file when it was opened.
    pub(crate) size: u64,
    /// Its first sector as it was then.
    pub(crate) head: Result<Box<[u8]>, ReadError>,
}

impl OpenSegment {
    /// Opens a file and reads its first sector.
    pub(crate) fn open(name: SegmentName, buffer: &mut ReadBuffer) -> io::Result<Self> {
        let file = open(&name.path)?;
        let size = file.metadata()?.len();
        let head = head_sector(&file, buffer);
        Ok(Self {
            name,
            file,
            size,
            head,
        })
    }

    /// Whether the file was removed or recycled since it was opened. A broker takes its name away
    /// before it writes anything else to it.
    pub(crate) fn is_recycled(&self, buffer: &mut ReadBuffer) -> bool {
        !self.name.path.exists() || head_sector(&self.file, buffer) != self.head
    }

    /// Reads the block at `offset` anew; `None` unless a sound one that belongs there is there.
    pub(crate) fn block<'a>(
        &self,
        head: &SegmentHead,
        offset: u64,
        buffer: &'a mut ReadBuffer,
    ) -> Option<Block<'a>> {
        let end = head.size.min(self.size);
        if offset + SECTOR_SIZE as u64 > end {
            return None;
        }
        read_at(&self.file, offset, &mut buffer[..SECTOR_SIZE]).ok()?;
        let header = BlockHeader::decode(&buffer[..SECTOR_SIZE]).ok()?;
        let len = header.block_size as usize;
        if offset + len as u64 > end {
            return None;
        }
        if len > SECTOR_SIZE {
            read_at(&self.file, offset, &mut buffer[..len]).ok()?;
        }
        let block = Block::decode(&buffer[..len]).ok()?;
        block.header.check_place(head, offset).ok()?;
        Some(block)
    }
}

/// Memory for one read of the usual size.
pub(crate) fn read_buffer() -> ReadBuffer {
    ReadBuffer::new(READ_SIZE_BYTES as usize)
}

/// Fills `bytes` from `offset`; both are multiples of 4 KiB.
pub(crate) fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
    meter::note(bytes.len() as u64);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => return Err(ReadError::Short),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Behind an odd end of a file direct reading has no aligned place to go on.
            Err(_) if !filled.is_multiple_of(SECTOR_SIZE) => return Err(ReadError::Short),
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(libc::EIO);
                return Err(ReadError::Io { code });
            }
        }
    }
    Ok(())
}

/// Lets this process hold as many files open as it may. A journal of a terabyte has thousands.
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it the usual limit holds, and opening says so when it is reached.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn head_sector(file: &File, buffer: &mut ReadBuffer) -> Result<Box<[u8]>, ReadError> {
    let sector = &mut buffer[..SECTOR_SIZE];
    read_at(file, 0, sector).map(|()| Box::from(&*sector))
}

fn open(path: &Path) -> io::Result<File> {
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    let is_refused = |error: &io::Error| error.raw_os_error() == Some(Errno::EINVAL as i32);
    match direct {
        Ok(file) => {
            let mut probe = ReadBuffer::new(SECTOR_SIZE);
            match file.read_at(&mut probe, 0) {
                Err(error) if is_refused(&error) => File::open(path),
                _ => Ok(file),
            }
        }
        Err(error) if is_refused(&error) => File::open(path),
        Err(error) => Err(error),
    }
}
