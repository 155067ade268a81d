//! What housekeeping says of each shard's files to the admin side. No shard looks at it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use forebay_journal::{Lsn, SegmentId};

/// A damaged place in a file that is still needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Its segment.
    pub segment: SegmentId,
    /// Byte offset in it.
    pub offset: u64,
    /// Bytes, as far as known; a sector at least.
    pub size: u64,
    /// First record that is lost with it, if that can be said.
    pub lsn_from: Option<Lsn>,
    /// Last one, if that can be said; below the first if what is lost holds none.
    pub lsn_upto: Option<Lsn>,
    /// What is wrong.
    pub what: String,
}

/// The files of a shard and what the scrubber knows of them.
#[derive(Clone, Debug, Default)]
pub struct BoardSeen {
    /// Segment files in use, prepared ones included, and their bytes.
    pub held: (u64, u64),
    /// Files free to be used again, and their bytes.
    pub spare: (u64, u64),
    /// Bytes read again and checked since the start.
    pub scrubbed_bytes: u64,
    /// Times that all there was had been checked.
    pub scrub_rounds: u64,
    /// Damaged places found since the start, those included that are not needed any more.
    pub damages_found: u64,
    /// Those in files that are still needed, no more than `SCRUB_DAMAGES_MAX`.
    pub damages: Vec<Damage>,
    /// When the sealed segment that was not checked for longest was, or was read at the start.
    pub oldest_check: Option<Instant>,
}

/// Written by housekeeping, read by the admin side: both can wait.
#[derive(Debug, Default)]
pub struct Board {
    seen: Mutex<BoardSeen>,
}

impl Board {
    /// A copy of what it says now.
    pub fn seen(&self) -> BoardSeen {
        match self.seen.lock() {
            Ok(seen) => seen.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut BoardSeen)) {
        match self.seen.lock() {
            Ok(mut seen) => change(&mut seen),
            Err(poisoned) => change(&mut poisoned.into_inner()),
        }
    }
}
