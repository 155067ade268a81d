//! Head of the lease file: whose it is, how it is laid out, and the times its nodes keep to.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::layout::{StructLayout, layout};
use super::super::{Checksum, FORMAT_VERSION, FormatError, SECTOR_SIZE};
use super::{SlotId, check_fields, check_sector, is_zero, with_checksum};
use crate::JournalId;

const MAGIC: [u8; 8] = *b"FBYLEASE";

/// Most nodes of a group.
pub const SLOTS_MAX: u16 = 64;
/// Bytes from the first copy of the head and the slots to the second.
pub const LEASE_COPY_OFFSET: u64 = 1 << 20;
/// Size of the lease file in bytes.
pub const LEASE_FILE_SIZE: u64 = 2 * LEASE_COPY_OFFSET;

const _: () = assert!((1 + SLOTS_MAX as u64) * SECTOR_SIZE as u64 <= LEASE_COPY_OFFSET);

/// Head of the lease file (`docs/format.md` 5b). Written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseHead {
    /// The journal whose lease it is.
    pub journal: JournalId,
    /// Slots, 1 to [`SLOTS_MAX`].
    pub slot_count: u16,
    /// Shards of the journal, 1 to 256.
    pub shard_count: u16,
    /// A node says that often that it is there.
    pub heartbeat_ms: u32,
    /// A read or write that takes longer is a failure.
    pub io_ms: u32,
    /// A holder may deliver that long after it began to write a heartbeat.
    pub lease_ms: u32,
    /// Who sees no heartbeat for that long may take over.
    pub takeover_ms: u32,
    /// Wall-clock milliseconds when the file was made; for people only.
    pub created_unix_ms: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U16,
    slot_count: U16,
    shard_count: U16,
    reserved: U16,
    journal: [u8; 16],
    created_unix_ms: U64,
    sector_size: U32,
    heartbeat_ms: U32,
    io_ms: U32,
    lease_ms: U32,
    takeover_ms: U32,
    reserved_2: [u8; 4020],
    checksum: Checksum,
}

const _: () = assert!(size_of::<Raw>() == SECTOR_SIZE);

pub(in crate::format) const LAYOUT: StructLayout = layout!(
    "Lease head",
    Raw {
        magic,
        version,
        slot_count,
        shard_count,
        reserved,
        journal,
        created_unix_ms,
        sector_size,
        heartbeat_ms,
        io_ms,
        lease_ms,
        takeover_ms,
        reserved_2,
        checksum,
    }
);

impl LeaseHead {
    /// Byte offsets of both copies of the head.
    pub const OFFSETS: [u64; 2] = [0, LEASE_COPY_OFFSET];

    /// Byte offset of the first slot in copy 0 or 1; the others follow it.
    ///
    /// Panics: on another copy.
    pub const fn slots_offset(copy: usize) -> u64 {
        Self::OFFSETS[copy] + SECTOR_SIZE as u64
    }

    /// Byte offset of a slot in copy 0 or 1.
    pub const fn slot_offset(slot: SlotId, copy: usize) -> u64 {
        Self::slots_offset(copy) + slot.0 as u64 * SECTOR_SIZE as u64
    }

    /// Bytes of all slots of a copy.
    pub const fn slots_size(&self) -> usize {
        self.slot_count as usize * SECTOR_SIZE
    }

    /// The sector to write at [`Self::OFFSETS`].
    pub fn encode(&self) -> [u8; SECTOR_SIZE] {
        let raw = Raw {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            slot_count: U16::new(self.slot_count),
            shard_count: U16::new(self.shard_count),
            reserved: U16::new(0),
            journal: self.journal.0,
            created_unix_ms: U64::new(self.created_unix_ms),
            sector_size: U32::new(SECTOR_SIZE as u32),
            heartbeat_ms: U32::new(self.heartbeat_ms),
            io_ms: U32::new(self.io_ms),
            lease_ms: U32::new(self.lease_ms),
            takeover_ms: U32::new(self.takeover_ms),
            reserved_2: [0; 4020],
            checksum: Checksum::NONE,
        };
        with_checksum(zerocopy::transmute!(raw))
    }

    /// Reads one copy.
    ///
    /// Errors: it is none, or not whole, of another version, or with numbers that no writer gives
    /// out. Whether the times fit each other is asked by `lease::Timing`.
    pub fn decode(sector: &[u8]) -> Result<Self, FormatError> {
        check_sector(sector, MAGIC, "lease head")?;
        let (raw, _) = Raw::ref_from_prefix(sector).expect("its size was checked");
        let reserved = raw.reserved.get() != 0 || !is_zero(&raw.reserved_2);
        let size = SECTOR_SIZE as u64;
        check_fields(&[
            ("reserved", u64::from(reserved), 0, 0),
            ("sector_size", raw.sector_size.get().into(), size, size),
            (
                "slot_count",
                raw.slot_count.get().into(),
                1,
                SLOTS_MAX.into(),
            ),
            ("shard_count", raw.shard_count.get().into(), 1, 256),
        ])?;
        Ok(Self {
            journal: JournalId(raw.journal),
            slot_count: raw.slot_count.get(),
            shard_count: raw.shard_count.get(),
            heartbeat_ms: raw.heartbeat_ms.get(),
            io_ms: raw.io_ms.get(),
            lease_ms: raw.lease_ms.get(),
            takeover_ms: raw.takeover_ms.get(),
            created_unix_ms: raw.created_unix_ms.get(),
        })
    }
}
