//! The superblock: whose journal this is, and what is wrong with either copy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use forebay_journal::JournalId;
use forebay_journal::format::{
    FORMAT_VERSION, FormatError, SECTOR_SIZE, SUPERBLOCK_FILE_SIZE, SegmentHead, Superblock,
};
use forebay_journal::recovery::file_name::SUPERBLOCK_FILE_NAME;

use crate::file::read_buffer;
use crate::folder::{Listing, Place};

/// What is wrong with the superblock's file.
#[derive(Debug)]
pub(crate) struct SuperblockFault {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) what: String,
}

/// Whose journal this is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) journal: JournalId,
    /// Shards that have or should have a journal here.
    pub(crate) shards: Vec<u16>,
    pub(crate) created_unix_ms: u64,
    pub(crate) faults: Vec<SuperblockFault>,
}

/// Reads both copies, or guesses from the segments' heads when neither is sound.
///
/// Errors: no journal of ours, or one of another format version.
pub(crate) fn identify(place: &Place, listing: &Listing) -> anyhow::Result<Identity> {
    let path = match place {
        Place::Journal { journal, .. } => journal.join(SUPERBLOCK_FILE_NAME),
        Place::Segment { .. } => return guess(listing, Vec::new()),
    };
    let fault = |offset, what| SuperblockFault {
        path: path.clone(),
        offset,
        what,
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if listing.segments.is_empty() {
                bail!(
                    "{} is not there and no segment is: not a Forebay journal",
                    path.display()
                );
            }
            return guess(listing, vec![fault(0, "the file is missing".to_owned())]);
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let copies = copies(&bytes);
    let mut faults = Vec::new();
    for (copy, offset) in copies.iter().zip([0, SECTOR_SIZE as u64]) {
        if let Err(error) = copy {
            faults.push(fault(offset, error.to_string()));
        }
    }
    if bytes.len() > SUPERBLOCK_FILE_SIZE {
        let what = format!(
            "{} bytes more than there should be",
            bytes.len() - SUPERBLOCK_FILE_SIZE
        );
        faults.push(fault(SUPERBLOCK_FILE_SIZE as u64, what));
    }
    let superblock = match &copies {
        [Ok(first), Ok(second)] if first != second => {
            faults.push(fault(
                SECTOR_SIZE as u64,
                "the two copies differ".to_owned(),
            ));
            *first
        }
        [Ok(sound), _] | [_, Ok(sound)] => *sound,
        [Err(first), Err(second)] => {
            refuse_other(&path, *first, *second, listing)?;
            return guess(listing, faults);
        }
    };
    let Superblock {
        journal,
        shard_count,
        created_unix_ms,
    } = superblock;
    let mut identity = Identity {
        journal,
        shards: (0..shard_count).collect(),
        created_unix_ms,
        faults,
    };
    identity.add_shards(listing);
    Ok(identity)
}

impl Identity {
    fn add_shards(&mut self, listing: &Listing) {
        let named = listing.segments.iter().map(|name| name.shard.0);
        self.shards.extend(named);
        self.shards.sort_unstable();
        self.shards.dedup();
    }

    /// Keeps one shard. Errors: there is none of that number.
    pub(crate) fn select(&self, shard: Option<u16>) -> anyhow::Result<Vec<u16>> {
        let Some(shard) = shard else {
            return Ok(self.shards.clone());
        };
        if !self.shards.contains(&shard) {
            bail!(
                "there is no shard {shard}; this journal has {:?}",
                self.shards
            );
        }
        Ok(vec![shard])
    }
}

fn copies(bytes: &[u8]) -> [Result<Superblock, FormatError>; 2] {
    let copy = |from: usize| {
        let end = bytes.len().min(from + SECTOR_SIZE);
        Superblock::decode(bytes.get(from..end).unwrap_or_default())
    };
    [copy(0), copy(SECTOR_SIZE)]
}

/// Both copies of another version are another release's journal, both of nothing are no journal.
fn refuse_other(
    path: &Path,
    first: FormatError,
    second: FormatError,
    listing: &Listing,
) -> anyhow::Result<()> {
    match (first, second) {
        (FormatError::Version { found }, FormatError::Version { found: same }) if found == same => {
            bail!(
                "{} is of format version {found}; this release reads versions 1 to {FORMAT_VERSION}. \
                 Use the forebay-inspect of the release that wrote it",
                path.display()
            )
        }
        _ if listing.segments.is_empty() => {
            bail!(
                "{} is not Forebay's ({first}) and no segment is there",
                path.display()
            )
        }
        _ => Ok(()),
    }
}

/// Takes the identity from the segments' heads.
fn guess(listing: &Listing, faults: Vec<SuperblockFault>) -> anyhow::Result<Identity> {
    let mut buffer = read_buffer();
    let mut found = None;
    for name in &listing.segments {
        let file = crate::file::OpenSegment::open(name.clone(), &mut buffer);
        let head = file.ok().and_then(|file| file.head.ok());
        found = head.and_then(|sector| SegmentHead::decode(&sector).ok());
        if found.is_some() {
            break;
        }
    }
    if found.is_none() && !faults.is_empty() {
        bail!("neither the superblock nor the head of any segment can be read");
    }
    let mut identity = Identity {
        journal: found.map_or_else(JournalId::default, |head| head.journal),
        shards: Vec::new(),
        created_unix_ms: 0,
        faults,
    };
    identity.add_shards(listing);
    Ok(identity)
}
