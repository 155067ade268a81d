//! A simulated disk: files in memory with a *live* and a *durable* image, and faults by seed.
//!
//! A submitted write is in flight until it is completed, in an order that the caller or the seed
//! chooses; its completion makes it durable (`O_DIRECT` + `RWF_DSYNC`). [`MemoryDisk::crash_image`]
//! is the disk after a power cut: of each write in flight, any set of its 512-byte sectors.
//! Invariants: the same calls and seed give the same disk; reads see the live image.
//! Refuses to know: what the bytes mean.

use std::collections::BTreeMap;

mod blocks;
mod landing;
mod random;

pub use blocks::{BlockProgress, BlockWrites};
pub use landing::{LANDING_SECTOR_SIZE, Landing, landings, torn_together};
pub use random::Random;

/// A file of a [`MemoryDisk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

impl FileId {
    /// Its number: dense from 0, never reused.
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// A write in flight. Rises in order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why the disk refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskError {
    /// The device failed (`EIO`).
    Io,
    /// No space is left (`ENOSPC`).
    Full,
    /// The file does not exist.
    Missing,
    /// The range leaves the file.
    OutOfRange,
}

impl core::fmt::Display for DiskError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Io => "input/output error",
            Self::Full => "no space left on device",
            Self::Missing => "no such file",
            Self::OutOfRange => "range outside of the file",
        })
    }
}

impl core::error::Error for DiskError {}

/// How often a fault happens, in 1 of 1000 operations each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A write completes but is not durable: the device lies.
    pub lost_permille: u16,
    /// A write completes with fewer bytes than submitted.
    pub short_permille: u16,
    /// A write fails (`EIO`); any part of it may be on the disk.
    pub write_error_permille: u16,
    /// A write finds no space (`ENOSPC`, of a disk that promised more than it has); any part of it
    /// may be on the disk.
    pub write_full_permille: u16,
    /// A read fails.
    pub read_error_permille: u16,
    /// A write lands somewhere else in the same file, or in another, and reports success.
    pub misdirected_permille: u16,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The write.
    pub ticket: Ticket,
    /// Bytes written, or why not. Fewer than submitted: a short write.
    pub result: Result<u32, DiskError>,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    live: Vec<u8>,
    durable: Vec<u8>,
    /// First byte of unreadable 4 KiB sectors.
    unreadable: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Write {
    file: FileId,
    offset: u64,
    bytes: Vec<u8>,
}

/// The disk. Cloning it takes a snapshot.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    files: BTreeMap<FileId, File>,
    writes: BTreeMap<Ticket, Write>,
    files_made: u32,
    tickets_made: u64,
    capacity_bytes: u64,
    faults: Faults,
    random: Random,
}

impl MemoryDisk {
    /// An empty disk without faults and without a limit.
    pub fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            writes: BTreeMap::new(),
            files_made: 0,
            tickets_made: 0,
            capacity_bytes: u64::MAX,
            faults: Faults::default(),
            random: Random::new(seed),
        }
    }

    /// Sets how often faults happen from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Sets how many bytes all files together may have.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = bytes;
    }

    /// Makes a file of zeros, durable at once (zero-fill, sync of file and folder).
    ///
    /// Errors: `Full`; nothing was made.
    pub fn create(&mut self, name: &str, size: u64) -> Result<FileId, DiskError> {
        let used: u64 = self.files.values().map(|file| file.live.len() as u64).sum();
        if self.capacity_bytes.saturating_sub(used) < size {
            return Err(DiskError::Full);
        }
        let id = FileId(self.files_made);
        self.files_made += 1;
        let live = vec![0; size as usize];
        let durable = live.clone();
        self.files.insert(
            id,
            File {
                name: name.into(),
                live,
                durable,
                unreadable: Vec::new(),
            },
        );
        Ok(id)
    }

    /// Renames a file, durable at once.
    pub fn rename(&mut self, file: FileId, name: &str) -> Result<(), DiskError> {
        self.file_mut(file)?.name = name.into();
        Ok(())
    }

    /// Removes a file and the writes in flight to it, durable at once.
    pub fn remove(&mut self, file: FileId) -> Result<(), DiskError> {
        self.writes.retain(|_, write| write.file != file);
        self.files.remove(&file).map(drop).ok_or(DiskError::Missing)
    }

    /// Cuts or extends a file (with zeros), durable at once.
    pub fn resize(&mut self, file: FileId, size: u64) -> Result<(), DiskError> {
        let file = self.file_mut(file)?;
        file.live.resize(size as usize, 0);
        file.durable.resize(size as usize, 0);
        Ok(())
    }

    /// All files: id, name, size in bytes.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &str, u64)> {
        self.files
            .iter()
            .map(|(&id, file)| (id, file.name.as_str(), file.live.len() as u64))
    }

    /// The file of that name.
    pub fn find(&self, name: &str) -> Option<FileId> {
        self.files
            .iter()
            .find(|(_, file)| file.name == name)
            .map(|(&id, _)| id)
    }

    /// The bytes that a read would see.
    pub fn live(&self, file: FileId) -> Result<&[u8], DiskError> {
        self.files
            .get(&file)
            .map(|file| file.live.as_slice())
            .ok_or(DiskError::Missing)
    }

    /// The bytes that a power cut leaves, but for the writes in flight.
    pub fn durable(&self, file: FileId) -> Result<&[u8], DiskError> {
        self.files
            .get(&file)
            .map(|file| file.durable.as_slice())
            .ok_or(DiskError::Missing)
    }

    /// Reads `out.len()` bytes.
    ///
    /// Errors: `Io` on a sector that was made unreadable, or by seed.
    pub fn read(&mut self, file: FileId, offset: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let is_faulty = self.random.permille(self.faults.read_error_permille);
        self.peek(file, offset, out)?;
        if is_faulty {
            Err(DiskError::Io)
        } else {
            Ok(())
        }
    }

    /// Reads without drawing a fault by seed; sectors made unreadable still fail.
    pub fn peek(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let file = self.files.get(&file).ok_or(DiskError::Missing)?;
        let until = offset + out.len() as u64;
        let bytes = file
            .live
            .get(offset as usize..until as usize)
            .ok_or(DiskError::OutOfRange)?;
        if file
            .unreadable
            .iter()
            .any(|&bad| bad < until && bad + 4096 > offset)
        {
            return Err(DiskError::Io);
        }
        out.copy_from_slice(bytes);
        Ok(())
    }

    /// Makes the 4 KiB sector at `offset` unreadable until it is written again.
    pub fn make_unreadable(&mut self, file: FileId, offset: u64) -> Result<(), DiskError> {
        self.file_mut(file)?.unreadable.push(offset / 4096 * 4096);
        Ok(())
    }

    /// Makes all sectors readable again: the fault passed, the bytes are as they were.
    pub fn make_readable(&mut self) {
        for file in self.files.values_mut() {
            file.unreadable.clear();
        }
    }

    /// Writes at once and durably, past all faults: preparation, and damage done by a test.
    pub fn put(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let file = self.file_mut(file)?;
        place(&mut file.live, offset, bytes).ok_or(DiskError::OutOfRange)?;
        place(&mut file.durable, offset, bytes).ok_or(DiskError::OutOfRange)?;
        let until = offset + bytes.len() as u64;
        file.unreadable
            .retain(|&bad| bad >= until || bad + 4096 <= offset);
        Ok(())
    }

    /// Starts a write; copies the bytes.
    ///
    /// Errors: `OutOfRange`, `Missing`; nothing is in flight then.
    pub fn submit(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<Ticket, DiskError> {
        let size = self.live(file)?.len() as u64;
        if offset + bytes.len() as u64 > size {
            return Err(DiskError::OutOfRange);
        }
        let ticket = Ticket(self.tickets_made);
        self.tickets_made += 1;
        self.writes.insert(
            ticket,
            Write {
                file,
                offset,
                bytes: bytes.to_vec(),
            },
        );
        Ok(ticket)
    }

    /// Writes in flight, in order of submission.
    pub fn in_flight(&self) -> impl ExactSizeIterator<Item = Ticket> {
        self.writes.keys().copied()
    }

    /// Bytes of each write in flight, in order of submission.
    pub fn in_flight_sizes(&self) -> Vec<usize> {
        self.writes
            .values()
            .map(|write| write.bytes.len())
            .collect()
    }

    /// File, byte offset and bytes of each write in flight, in order of submission.
    pub fn in_flight_places(&self) -> impl Iterator<Item = (FileId, u64, usize)> {
        self.writes
            .values()
            .map(|write| (write.file, write.offset, write.bytes.len()))
    }

    /// A write in flight, drawn by seed.
    pub fn draw(&mut self) -> Option<Ticket> {
        let count = self.writes.len() as u64;
        let index = if count == 0 {
            0
        } else {
            self.random.below(count)
        };
        self.writes.keys().nth(index as usize).copied()
    }

    /// Ends a write, with a fault if the seed says so.
    ///
    /// Panics: if the write is not in flight (the caller's mistake).
    pub fn complete(&mut self, ticket: Ticket) -> Completion {
        let write = self
            .writes
            .remove(&ticket)
            .expect("completed writes are in flight");
        let faults = self.faults;
        let size = write.bytes.len();
        let result = if self.random.permille(faults.write_error_permille) {
            Err(self.fail(&write, DiskError::Io))
        } else if self.random.permille(faults.write_full_permille) {
            Err(self.fail(&write, DiskError::Full))
        } else if self.random.permille(faults.short_permille) && size > LANDING_SECTOR_SIZE {
            let sectors = 1 + self.random.below((size / LANDING_SECTOR_SIZE - 1) as u64) as usize;
            self.land(&write, &Landing::Prefix { sectors }, true);
            Ok((sectors * LANDING_SECTOR_SIZE) as u32)
        } else if self.random.permille(faults.lost_permille) {
            self.land(&write, &Landing::Whole, false);
            Ok(size as u32)
        } else {
            let write = self.misdirect(write);
            self.land(&write, &Landing::Whole, true);
            Ok(size as u32)
        };
        Completion { ticket, result }
    }

    fn fail(&mut self, write: &Write, error: DiskError) -> DiskError {
        let landing = Landing::draw(&mut self.random, write.bytes.len());
        self.land(write, &landing, true);
        error
    }

    /// Sends the write elsewhere if the seed says so.
    fn misdirect(&mut self, write: Write) -> Write {
        if !self.random.permille(self.faults.misdirected_permille) {
            return write;
        }
        let nth = self.random.below(self.files.len() as u64) as usize;
        let (&file, target) = self
            .files
            .iter()
            .nth(nth)
            .expect("the write's own file is there");
        let room = target.live.len().saturating_sub(write.bytes.len()) as u64 / 4096;
        let offset = self.random.below(room + 1) * 4096;
        Write {
            file,
            offset,
            bytes: write.bytes,
        }
    }

    fn land(&mut self, write: &Write, landing: &Landing, is_durable: bool) {
        let Some(file) = self.files.get_mut(&write.file) else {
            return;
        };
        for range in landing.ranges(write.bytes.len()) {
            let (offset, bytes) = (write.offset + range.start as u64, &write.bytes[range]);
            // A misdirected write may be longer than its victim: the rest is lost.
            let _ = place(&mut file.live, offset, bytes);
            if is_durable {
                let _ = place(&mut file.durable, offset, bytes);
            }
        }
        let until = write.offset + write.bytes.len() as u64;
        file.unreadable
            .retain(|&bad| bad >= until || bad + 4096 <= write.offset);
    }

    /// The disk after a power cut now. `landings` says what arrives of each write in flight, in
    /// order of submission; a write without one does not arrive.
    ///
    /// Cost: copies the disk.
    #[must_use]
    pub fn crash_image(&self, landings: &[Landing]) -> Self {
        let mut image = self.clone();
        image.crash(landings);
        image
    }

    /// Cuts the power: see [`Self::crash_image`].
    pub fn crash(&mut self, landings: &[Landing]) {
        for file in self.files.values_mut() {
            file.live.clone_from(&file.durable);
        }
        let writes = core::mem::take(&mut self.writes);
        for (write, landing) in writes.values().zip(landings) {
            self.land(write, landing, true);
        }
    }

    /// Cuts the power; the seed chooses what arrives.
    pub fn crash_by_seed(&mut self) {
        let sizes = self.in_flight_sizes();
        let landings: Vec<Landing> = sizes
            .iter()
            .map(|&size| Landing::draw(&mut self.random, size))
            .collect();
        self.crash(&landings);
    }

    fn file_mut(&mut self, file: FileId) -> Result<&mut File, DiskError> {
        self.files.get_mut(&file).ok_or(DiskError::Missing)
    }
}

fn place(image: &mut [u8], offset: u64, bytes: &[u8]) -> Option<()> {
    let from = usize::try_from(offset).ok()?;
    image
        .get_mut(from..from + bytes.len())?
        .copy_from_slice(bytes);
    Some(())
}

#[cfg(test)]
mod tests;
