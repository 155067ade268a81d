//! Identifier: in strict mode, how far a shard's journal is durable, written apart from its blocks
//! (`docs/format.md` 5a).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{StructLayout, layout};
use super::upgrade::check_version;
use super::{Checksum, FORMAT_VERSION, FormatError, SECTOR_SIZE, checksum};
use crate::{BlockNumber, Epoch, JournalId, Lsn, ShardId};

const MAGIC: [u8; 8] = *b"FBYIDENT";

/// Places in an identifier file, one sector each; they are written in turn.
pub const IDENTIFIERS_MAX: u64 = 16;
/// Size of an identifier file in bytes.
pub const IDENTIFIER_FILE_SIZE: usize = IDENTIFIERS_MAX as usize * SECTOR_SIZE;

/// The last block of a shard that was durable, with all before it, when this was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier {
    /// The journal.
    pub journal: JournalId,
    /// The shard.
    pub shard: ShardId,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// Counts the identifiers of an epoch, from 1.
    pub sequence: u64,
    /// Number of the block.
    pub block: BlockNumber,
    /// Last LSN in it.
    pub lsn: Lsn,
    /// Identity of the block.
    pub identity: Checksum,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U16,
    shard: U16,
    reserved: U32,
    journal: [u8; 16],
    epoch: U64,
    sequence: U64,
    block: U64,
    lsn: U64,
    identity: Checksum,
    reserved_2: [u8; 4000],
    checksum: Checksum,
}

const _: () = assert!(size_of::<Raw>() == SECTOR_SIZE);

pub(super) const LAYOUT: StructLayout = layout!(
    "Identifier",
    Raw {
        magic,
        version,
        shard,
        reserved,
        journal,
        epoch,
        sequence,
        block,
        lsn,
        identity,
        reserved_2,
        checksum,
    }
);

impl Identifier {
    /// Byte offset in the identifier file.
    pub const fn offset(&self) -> u64 {
        self.sequence % IDENTIFIERS_MAX * SECTOR_SIZE as u64
    }

    /// The sector to write.
    pub fn encode(&self) -> [u8; SECTOR_SIZE] {
        let mut raw = Raw {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            shard: U16::new(self.shard.0),
            reserved: U32::new(0),
            journal: self.journal.0,
            epoch: U64::new(self.epoch.get()),
            sequence: U64::new(self.sequence),
            block: U64::new(self.block.get()),
            lsn: U64::new(self.lsn.get()),
            identity: self.identity,
            reserved_2: [0; 4000],
            checksum: Checksum::NONE,
        };
        raw.checksum = checksum(&raw.as_bytes()[..SECTOR_SIZE - 16]);
        zerocopy::transmute!(raw)
    }

    /// Reads one sector.
    ///
    /// Errors: it is none, or not whole, of another version, or with numbers that no writer gives
    /// out.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| FormatError::Truncated {
            needed: SECTOR_SIZE,
            found: bytes.len(),
        })?;
        if raw.magic != MAGIC {
            return Err(FormatError::Magic);
        }
        if checksum(&raw.as_bytes()[..SECTOR_SIZE - 16]) != raw.checksum {
            return Err(FormatError::Checksum { part: "identifier" });
        }
        check_version(raw.version.get())?;
        let is_reserved = raw.reserved.get() != 0 || raw.reserved_2.iter().any(|&byte| byte != 0);
        let limits = [
            ("reserved", u64::from(is_reserved), 0, 0),
            ("sequence", raw.sequence.get(), 1, u64::MAX / 2),
            ("block", raw.block.get(), 1, u64::MAX / 2),
            ("lsn", raw.lsn.get(), 1, u64::MAX / 2),
        ];
        let wrong = limits
            .iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value));
        if let Some(&(name, value, ..)) = wrong {
            return Err(FormatError::Field { name, value });
        }
        Ok(Self {
            journal: JournalId(raw.journal),
            shard: ShardId(raw.shard.get()),
            epoch: Epoch::from_raw(raw.epoch.get()),
            sequence: raw.sequence.get(),
            block: BlockNumber::from_raw(raw.block.get()),
            lsn: Lsn::from_raw(raw.lsn.get()),
            identity: raw.identity,
        })
    }

    /// The furthest identifier of this journal, shard and epoch in the bytes of an identifier file,
    /// if one is sound and in its place. What is damaged says nothing.
    pub fn newest(file: &[u8], journal: JournalId, shard: ShardId, epoch: Epoch) -> Option<Self> {
        let places = file.chunks_exact(SECTOR_SIZE).enumerate();
        let found = places.filter_map(|(place, sector)| {
            let found = Self::decode(sector).ok()?;
            let is_own = (found.journal, found.shard, found.epoch) == (journal, shard, epoch);
            let is_placed = found.offset() == (place * SECTOR_SIZE) as u64;
            (is_own && is_placed).then_some(found)
        });
        found.max_by_key(|found| found.lsn)
    }
}
