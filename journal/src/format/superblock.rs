//! Superblock: identity and geometry of a data folder's journal. Written once, never changed.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{StructLayout, layout};
use super::upgrade::{PLACEMENT, superblock_placement};
use super::{Checksum, FORMAT_VERSION, FormatError, SECTOR_SIZE, checksum};
use crate::JournalId;

const MAGIC: [u8; 8] = *b"FBYSUPER";

/// Size of the file `journal/superblock`: two copies, one sector each.
pub const SUPERBLOCK_FILE_SIZE: usize = 2 * SECTOR_SIZE;

/// Identity and geometry of a journal (`docs/format.md` 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity, drawn at random when the folder was made.
    pub journal: JournalId,
    /// Shards whose journals lie in this folder, 1 to 256.
    pub shard_count: u16,
    /// Wall-clock milliseconds when the folder was made; for people only.
    pub created_unix_ms: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U16,
    shard_count: U16,
    sector_size: U32,
    journal: [u8; 16],
    created_unix_ms: U64,
    placement: U32,
    reserved: [u8; 4036],
    checksum: Checksum,
}

const _: () = assert!(size_of::<Raw>() == SECTOR_SIZE);

pub(super) const LAYOUT: StructLayout = layout!(
    "Superblock",
    Raw {
        magic,
        version,
        shard_count,
        sector_size,
        journal,
        created_unix_ms,
        placement,
        reserved,
        checksum,
    }
);

impl Superblock {
    /// The bytes of the file: both copies.
    pub fn encode(&self) -> [u8; SUPERBLOCK_FILE_SIZE] {
        let mut raw = Raw {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            shard_count: U16::new(self.shard_count),
            sector_size: U32::new(SECTOR_SIZE as u32),
            journal: self.journal.0,
            created_unix_ms: U64::new(self.created_unix_ms),
            placement: U32::new(PLACEMENT),
            reserved: [0; 4036],
            checksum: Checksum::NONE,
        };
        raw.checksum = checksum(&raw.as_bytes()[..SECTOR_SIZE - 16]);
        let mut file = [0; SUPERBLOCK_FILE_SIZE];
        file[..SECTOR_SIZE].copy_from_slice(raw.as_bytes());
        file[SECTOR_SIZE..].copy_from_slice(raw.as_bytes());
        file
    }

    /// Reads the file: the first copy that is sound.
    ///
    /// Errors: that of the first copy when neither is sound; `Version` before all others, so that a
    /// newer folder is named as such.
    pub fn decode(file: &[u8]) -> Result<Self, FormatError> {
        let first = Self::decode_copy(file.get(..SECTOR_SIZE).unwrap_or(file));
        match first {
            Ok(superblock) => Ok(superblock),
            Err(error) => file.get(SECTOR_SIZE..).map_or(Err(error), |second| {
                Self::decode_copy(second).map_err(|other| match other {
                    FormatError::Version { .. } => other,
                    _ => error,
                })
            }),
        }
    }

    fn decode_copy(copy: &[u8]) -> Result<Self, FormatError> {
        let (raw, _) = Raw::ref_from_prefix(copy).map_err(|_| FormatError::Truncated {
            needed: SECTOR_SIZE,
            found: copy.len(),
        })?;
        if raw.magic != MAGIC {
            return Err(FormatError::Magic);
        }
        if checksum(&raw.as_bytes()[..SECTOR_SIZE - 16]) != raw.checksum {
            return Err(FormatError::Checksum { part: "superblock" });
        }
        let placement = superblock_placement(raw.version.get(), raw.placement.get())?;
        if placement != PLACEMENT {
            return Err(FormatError::Field {
                name: "placement",
                value: placement.into(),
            });
        }
        if raw.sector_size.get() as usize != SECTOR_SIZE {
            return Err(FormatError::Field {
                name: "sector_size",
                value: raw.sector_size.get().into(),
            });
        }
        if !(1..=256).contains(&raw.shard_count.get()) {
            return Err(FormatError::Field {
                name: "shard_count",
                value: raw.shard_count.get().into(),
            });
        }
        if raw.reserved.iter().any(|&byte| byte != 0) {
            return Err(FormatError::Field {
                name: "reserved",
                value: 1,
            });
        }
        Ok(Self {
            journal: JournalId(raw.journal),
            shard_count: raw.shard_count.get(),
            created_unix_ms: raw.created_unix_ms.get(),
        })
    }
}
