//! Segment head: the first sector of a segment file, written and synced before the file is used.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{StructLayout, layout};
use super::upgrade::check_version;
use super::{Checksum, FORMAT_VERSION, FormatError, SECTOR_SIZE, checksum};
use crate::{Epoch, JournalId, SegmentId, ShardId};

const MAGIC: [u8; 8] = *b"FBYSEGMT";

/// Size of the head in bytes; the first block follows it.
pub const SEGMENT_HEAD_SIZE: usize = SECTOR_SIZE;

/// Head of a segment file (`docs/format.md` 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The journal it belongs to.
    pub journal: JournalId,
    /// The shard it belongs to.
    pub shard: ShardId,
    /// Its number.
    pub segment: SegmentId,
    /// How many times this file had been used before.
    pub generation: u64,
    /// The epoch that owns the file: only it writes here.
    pub epoch: Epoch,
    /// The first segment of that epoch: prepared before all others, so that its loss shows.
    pub first_segment: SegmentId,
    /// Size of the file in bytes, this head included; a multiple of 4 KiB.
    pub size: u64,
    /// Most block writes the writer has in flight at once (`W` of the recovery table).
    pub inflight_blocks_max: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U16,
    shard: U16,
    inflight_blocks_max: U32,
    journal: [u8; 16],
    segment: U64,
    generation: U64,
    epoch: U64,
    first_segment: U64,
    size: U64,
    reserved: [u8; 4008],
    checksum: Checksum,
}

const _: () = assert!(size_of::<Raw>() == SEGMENT_HEAD_SIZE);

pub(super) const LAYOUT: StructLayout = layout!(
    "Segment head",
    Raw {
        magic,
        version,
        shard,
        inflight_blocks_max,
        journal,
        segment,
        generation,
        epoch,
        first_segment,
        size,
        reserved,
        checksum,
    }
);

impl SegmentHead {
    /// The sector to write at offset 0.
    pub fn encode(&self) -> [u8; SEGMENT_HEAD_SIZE] {
        let mut raw = Raw {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            shard: U16::new(self.shard.0),
            inflight_blocks_max: U32::new(self.inflight_blocks_max),
            journal: self.journal.0,
            segment: U64::new(self.segment.get()),
            generation: U64::new(self.generation),
            epoch: U64::new(self.epoch.get()),
            first_segment: U64::new(self.first_segment.get()),
            size: U64::new(self.size),
            reserved: [0; 4008],
            checksum: Checksum::NONE,
        };
        raw.checksum = checksum(&raw.as_bytes()[..SEGMENT_HEAD_SIZE - 16]);
        zerocopy::transmute!(raw)
    }

    /// Reads the head from the first bytes of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| FormatError::Truncated {
            needed: SEGMENT_HEAD_SIZE,
            found: bytes.len(),
        })?;
        if raw.magic != MAGIC {
            return Err(FormatError::Magic);
        }
        if checksum(&raw.as_bytes()[..SEGMENT_HEAD_SIZE - 16]) != raw.checksum {
            return Err(FormatError::Checksum {
                part: "segment head",
            });
        }
        check_version(raw.version.get())?;
        let size = raw.size.get();
        if !size.is_multiple_of(SECTOR_SIZE as u64) || size < 2 * SECTOR_SIZE as u64 {
            return Err(FormatError::Field {
                name: "size",
                value: size,
            });
        }
        let first_segment = raw.first_segment.get();
        if first_segment == 0 || first_segment > raw.segment.get() {
            return Err(FormatError::Field {
                name: "first_segment",
                value: first_segment,
            });
        }
        if raw.inflight_blocks_max.get() == 0 {
            return Err(FormatError::Field {
                name: "inflight_blocks_max",
                value: 0,
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
            shard: ShardId(raw.shard.get()),
            segment: SegmentId::from_raw(raw.segment.get()),
            generation: raw.generation.get(),
            epoch: Epoch::from_raw(raw.epoch.get()),
            first_segment: SegmentId::from_raw(first_segment),
            size,
            inflight_blocks_max: raw.inflight_blocks_max.get(),
        })
    }
}
