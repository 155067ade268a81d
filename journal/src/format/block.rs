//! Block: the unit of disk write, checksum, replication, read and repair (`docs/format.md` 5).
//!
//! Sealed once, never changed. Its *identity* is its header checksum, which covers the payload
//! checksum; the next block names it as `previous`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{StructLayout, layout};
use super::record::{Record, record_at};
use super::upgrade::check_version;
use super::{
    BLOCK_SIZE_MAX, Checksum, FORMAT_VERSION, FormatError, SECTOR_SIZE, SegmentHead, checksum,
    round_up_to_sector,
};
use crate::{BlockNumber, Lsn};

const MAGIC: [u8; 8] = *b"FBYBLOCK";

/// Size of the header in bytes; the first record follows it.
pub const BLOCK_HEADER_SIZE: usize = 192;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U16,
    shard: U16,
    record_count: U32,
    journal: [u8; 16],
    segment: U64,
    generation: U64,
    epoch: U64,
    number: U64,
    first_lsn: U64,
    durable_upto: U64,
    offset: U64,
    sealed_unix_ms: U64,
    block_size: U32,
    payload_size: U32,
    reserved: [u8; 40],
    previous: Checksum,
    payload_checksum: Checksum,
    header_checksum: Checksum,
}

const _: () = assert!(size_of::<Raw>() == BLOCK_HEADER_SIZE);
const _: () = assert!(BLOCK_HEADER_SIZE.is_multiple_of(8));

pub(super) const LAYOUT: StructLayout = layout!(
    "Block header",
    Raw {
        magic,
        version,
        shard,
        record_count,
        journal,
        segment,
        generation,
        epoch,
        number,
        first_lsn,
        durable_upto,
        offset,
        sealed_unix_ms,
        block_size,
        payload_size,
        reserved,
        previous,
        payload_checksum,
        header_checksum,
    }
);

/// What the writer knows when it seals a block.
#[derive(Clone, Copy, Debug)]
pub struct BlockSeal {
    /// Number of this block.
    pub number: BlockNumber,
    /// LSN of its first record, or of the next record if it holds none.
    pub first_lsn: Lsn,
    /// Records in it; zero makes it an idle seal.
    pub record_count: u32,
    /// Highest LSN known durable when the block was built.
    pub durable_upto: Lsn,
    /// Byte offset in the segment file, a multiple of 4 KiB.
    pub offset: u64,
    /// Bytes of records, each record padded to 8.
    pub payload_size: u32,
    /// Wall-clock milliseconds; for people only.
    pub sealed_unix_ms: u64,
    /// Identity of the block before, or [`Checksum::NONE`].
    pub previous: Checksum,
}

/// Completes a block in place: zeroes the padding, writes the header, computes both checksums.
///
/// Shape: `bytes` starts where the block starts; records lie from [`BLOCK_HEADER_SIZE`] on for
/// `seal.payload_size` bytes; the block ends at the next sector boundary.
/// Returns the block's size in bytes and its identity.
/// Panics: if the block does not fit `bytes` or the offset is not on a sector (our own mistake).
pub fn seal_block(bytes: &mut [u8], head: &SegmentHead, seal: &BlockSeal) -> (usize, Checksum) {
    let payload_end = BLOCK_HEADER_SIZE + seal.payload_size as usize;
    let block_size = round_up_to_sector(payload_end);
    assert!(block_size <= BLOCK_SIZE_MAX, "block of {block_size} bytes");
    assert_eq!(
        seal.offset % SECTOR_SIZE as u64,
        0,
        "block offset {} not on a sector",
        seal.offset
    );
    assert!(
        seal.offset + block_size as u64 <= head.size,
        "block leaves its segment"
    );
    let block = &mut bytes[..block_size];
    block[payload_end..].fill(0);
    let mut raw = Raw {
        magic: MAGIC,
        version: U16::new(FORMAT_VERSION),
        shard: U16::new(head.shard.0),
        record_count: U32::new(seal.record_count),
        journal: head.journal.0,
        segment: U64::new(head.segment.get()),
        generation: U64::new(head.generation),
        epoch: U64::new(head.epoch.get()),
        number: U64::new(seal.number.get()),
        first_lsn: U64::new(seal.first_lsn.get()),
        durable_upto: U64::new(seal.durable_upto.get()),
        offset: U64::new(seal.offset),
        sealed_unix_ms: U64::new(seal.sealed_unix_ms),
        block_size: U32::new(block_size as u32),
        payload_size: U32::new(seal.payload_size),
        reserved: [0; 40],
        previous: seal.previous,
        payload_checksum: checksum(&block[BLOCK_HEADER_SIZE..]),
        header_checksum: Checksum::NONE,
    };
    raw.header_checksum = checksum(&raw.as_bytes()[..BLOCK_HEADER_SIZE - 16]);
    block[..BLOCK_HEADER_SIZE].copy_from_slice(raw.as_bytes());
    (block_size, raw.header_checksum)
}

/// A block header that is sound in itself: magic, version, header checksum and geometry hold.
///
/// Whether it belongs where it was found is [`BlockHeader::check_place`]'s question; whether its
/// payload arrived is [`Block::decode`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Number of this block.
    pub number: BlockNumber,
    /// LSN of its first record, or of the next record if it holds none.
    pub first_lsn: Lsn,
    /// Records in it; zero in an idle seal.
    pub record_count: u32,
    /// Highest LSN known durable when the block was built.
    pub durable_upto: Lsn,
    /// Byte offset in the segment file.
    pub offset: u64,
    /// Size of the whole block in bytes, padding included.
    pub block_size: u32,
    /// Bytes of records.
    pub payload_size: u32,
    /// Wall-clock milliseconds when it was sealed.
    pub sealed_unix_ms: u64,
    /// Identity of the block before.
    pub previous: Checksum,
    /// Identity of this block.
    pub identity: Checksum,
    /// The segment identity fields it carries (the other fields are zero).
    pub place: SegmentHead,
}

impl BlockHeader {
    /// LSN after the last record of the block.
    pub fn next_lsn(&self) -> Lsn {
        self.first_lsn.plus(self.record_count.into())
    }

    /// Whether the block holds no records and only says how far the journal is durable.
    pub fn is_idle_seal(&self) -> bool {
        self.record_count == 0
    }

    /// Reads a header without looking at the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let raw = raw_of(bytes)?;
        let sound = checksum(&raw.as_bytes()[..BLOCK_HEADER_SIZE - 16]) == raw.header_checksum;
        if !sound {
            return Err(FormatError::Checksum {
                part: "block header",
            });
        }
        check_version(raw.version.get())?;
        check_geometry(raw)?;
        Ok(Self {
            number: BlockNumber::from_raw(raw.number.get()),
            first_lsn: Lsn::from_raw(raw.first_lsn.get()),
            record_count: raw.record_count.get(),
            durable_upto: Lsn::from_raw(raw.durable_upto.get()),
            offset: raw.offset.get(),
            block_size: raw.block_size.get(),
            payload_size: raw.payload_size.get(),
            sealed_unix_ms: raw.sealed_unix_ms.get(),
            previous: raw.previous,
            identity: raw.header_checksum,
            place: SegmentHead {
                journal: crate::JournalId(raw.journal),
                shard: crate::ShardId(raw.shard.get()),
                segment: crate::SegmentId::from_raw(raw.segment.get()),
                generation: raw.generation.get(),
                epoch: crate::Epoch::from_raw(raw.epoch.get()),
                first_segment: crate::SegmentId::ZERO,
                size: 0,
                inflight_blocks_max: 0,
            },
        })
    }

    /// Whether the block belongs to this segment file at this offset.
    ///
    /// Errors: `Foreign`, naming the first field that differs: a stale block of a recycled file,
    /// or one that a disk wrote to the wrong place.
    pub fn check_place(&self, head: &SegmentHead, offset: u64) -> Result<(), FormatError> {
        let checks = [
            ("journal", self.place.journal == head.journal),
            ("shard", self.place.shard == head.shard),
            ("segment", self.place.segment == head.segment),
            ("generation", self.place.generation == head.generation),
            ("epoch", self.place.epoch == head.epoch),
            ("offset", self.offset == offset),
            ("size", offset + u64::from(self.block_size) <= head.size),
        ];
        match checks.iter().find(|(_, same)| !same) {
            Some(&(name, _)) => Err(FormatError::Foreign { name }),
            None => Ok(()),
        }
    }
}

fn raw_of(bytes: &[u8]) -> Result<&Raw, FormatError> {
    let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| FormatError::Truncated {
        needed: BLOCK_HEADER_SIZE,
        found: bytes.len(),
    })?;
    if raw.magic != MAGIC {
        return Err(FormatError::Magic);
    }
    Ok(raw)
}

fn check_geometry(raw: &Raw) -> Result<(), FormatError> {
    let block_size = raw.block_size.get() as usize;
    let payload_size = raw.payload_size.get() as usize;
    let is_sized = block_size <= BLOCK_SIZE_MAX
        && payload_size <= block_size
        && block_size == round_up_to_sector(BLOCK_HEADER_SIZE + payload_size);
    if !is_sized {
        return Err(FormatError::Field {
            name: "block_size",
            value: block_size as u64,
        });
    }
    if !raw.offset.get().is_multiple_of(SECTOR_SIZE as u64) || raw.offset.get() > 1 << 48 {
        return Err(FormatError::Field {
            name: "offset",
            value: raw.offset.get(),
        });
    }
    // Refuse before the numbers wrap (J11): no honest journal comes near.
    for (name, value) in [
        ("number", raw.number.get()),
        ("first_lsn", raw.first_lsn.get()),
    ] {
        if value == 0 || value > u64::MAX / 2 {
            return Err(FormatError::Field { name, value });
        }
    }
    if raw.durable_upto.get() >= raw.first_lsn.get() {
        return Err(FormatError::Field {
            name: "durable_upto",
            value: raw.durable_upto.get(),
        });
    }
    let is_counted = raw.record_count.get() as usize <= payload_size / 8
        && (raw.record_count.get() == 0) == (payload_size == 0);
    if !is_counted {
        return Err(FormatError::Field {
            name: "record_count",
            value: raw.record_count.get().into(),
        });
    }
    if raw.reserved.iter().any(|&byte| byte != 0) {
        return Err(FormatError::Field {
            name: "reserved",
            value: 1,
        });
    }
    Ok(())
}

/// A block whose header and payload are both sound.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its header.
    pub header: BlockHeader,
    payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads the block at the start of `bytes`, which may go on behind it.
    ///
    /// Errors: those of [`BlockHeader::decode`]; `Truncated` when `bytes` ends inside the block;
    /// `Checksum` when the payload (padding included) is not what was sealed.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let header = BlockHeader::decode(bytes)?;
        let block_size = header.block_size as usize;
        let block = bytes.get(..block_size).ok_or(FormatError::Truncated {
            needed: block_size,
            found: bytes.len(),
        })?;
        if checksum(&block[BLOCK_HEADER_SIZE..]) != raw_of(bytes)?.payload_checksum {
            return Err(FormatError::Checksum {
                part: "block payload",
            });
        }
        let payload_end = BLOCK_HEADER_SIZE + header.payload_size as usize;
        if block[payload_end..].iter().any(|&byte| byte != 0) {
            return Err(FormatError::Field {
                name: "padding",
                value: 1,
            });
        }
        Ok(Self {
            header,
            payload: &block[BLOCK_HEADER_SIZE..payload_end],
        })
    }

    /// Iterates over the records with their LSNs and their byte offsets in the block.
    pub fn records(&self) -> RecordCursor<'a> {
        RecordCursor {
            payload: self.payload,
            at: 0,
            lsn: self.header.first_lsn,
            left: self.header.record_count,
        }
    }
}

/// Walks the records of a sound block.
#[derive(Clone, Debug)]
pub struct RecordCursor<'a> {
    payload: &'a [u8],
    at: usize,
    lsn: Lsn,
    left: u32,
}

impl<'a> Iterator for RecordCursor<'a> {
    /// LSN, byte offset of the record head in its block, record.
    ///
    /// Errors: a sound block with an unsound record is damage by its writer; the walk ends there.
    type Item = Result<(Lsn, u32, Record<'a>), FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let rest = self.payload.len() - self.at;
            self.at = self.payload.len();
            return (rest != 0).then_some(Err(FormatError::Field {
                name: "payload_size",
                value: rest as u64,
            }));
        }
        let offset = (BLOCK_HEADER_SIZE + self.at) as u32;
        match record_at(&self.payload[self.at..]) {
            Ok((record, stride)) => {
                let lsn = self.lsn;
                self.at += stride;
                self.left -= 1;
                self.lsn = self.lsn.next();
                Some(Ok((lsn, offset, record)))
            }
            Err(error) => {
                self.left = 0;
                self.at = self.payload.len();
                Some(Err(error))
            }
        }
    }
}
