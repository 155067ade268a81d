//! The bytes on disk: the only code that knows them. `docs/format.md` is the specification and a
//! test holds the two together ([`layout::LAYOUT`]).
//!
//! Rules: fixed offsets, little-endian, reserved bytes zero and checked, record kinds are numbers
//! never reused, version in the superblock, the segment head and each block. Nothing here panics
//! on bytes read from a disk, whatever they are.

mod block;
mod checksum;
mod identifier;
pub mod layout;
mod lease;
mod record;
mod segment;
mod superblock;
mod upgrade;

pub use block::{BLOCK_HEADER_SIZE, Block, BlockHeader, BlockSeal, RecordCursor, seal_block};
pub use checksum::{Checksum, checksum, group_number};
pub use identifier::{IDENTIFIER_FILE_SIZE, IDENTIFIERS_MAX, Identifier};
pub use lease::{
    CLAIM_FILE_SIZE, Claim, ClaimFile, FENCE_SIZE, Fence, Incarnation, LEASE_COPY_OFFSET,
    LEASE_FILE_SIZE, LeaseHead, NODE_NAME_SIZE_MAX, Next, NodeName, Role, SEAL_TABLE_SIZE,
    SHARDS_MAX, SLOTS_MAX, SealTable, SealTableRead, ShardSeal, Slot, SlotId, SlotRead, SlotState,
};
pub use record::{
    Annotations, CheckpointEntry, CheckpointFields, CheckpointFragment, Departure, IdList, Kind,
    MessageFields, MessageFlags, Outcome, PRIORITY_DEFAULT, PRIORITY_MAX, Parts, QueueFlags,
    RECORD_HEAD_SIZE, Record, RecordId, Routing, Standing, StandingBytes, Standings, Stands,
    TransactionState, encode_record, encoded_size,
};
pub use segment::{SEGMENT_HEAD_SIZE, SegmentHead};
pub use superblock::{SUPERBLOCK_FILE_SIZE, Superblock};
pub use upgrade::{FORMAT_VERSION_OLDEST, PLACEMENT};

use core::fmt;

/// Version written by this release. It reads this one and [`FORMAT_VERSION_OLDEST`].
pub const FORMAT_VERSION: u16 = 2;
/// Alignment and granularity of every block and head, in bytes.
pub const SECTOR_SIZE: usize = 4096;
/// Largest block, in bytes, header included.
pub const BLOCK_SIZE_MAX: usize = 256 * 1024;
/// Largest record that fits one block, head included, in bytes.
pub const RECORD_SIZE_MAX: usize = BLOCK_SIZE_MAX - BLOCK_HEADER_SIZE;
/// Most block writes a writer has in flight at once (`W` of the recovery table).
pub const INFLIGHT_BLOCKS_MAX: u64 = 2;

const _: () = assert!(BLOCK_SIZE_MAX.is_multiple_of(SECTOR_SIZE));
const _: () = assert!(
    BLOCK_SIZE_MAX / 8 <= 1 << 16,
    "Location keeps record offsets in 16 bits"
);

/// Why bytes are not what was expected of them.
///
/// All variants are the world's fault (a disk, an operator, another program), never a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// Fewer bytes than the structure needs, or a size field that leads outside of it.
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        found: usize,
    },
    /// The first bytes are not this structure's magic: something else, or nothing, is there.
    Magic,
    /// Sound, and of a version of the format that this release does not read.
    Version {
        /// The version found.
        found: u16,
    },
    /// A checksum does not match: the bytes changed after they were written, or never all arrived.
    Checksum {
        /// Which checksum.
        part: &'static str,
    },
    /// A field holds a value the format does not allow.
    Field {
        /// Name as in `docs/format.md`.
        name: &'static str,
        /// The value found.
        value: u64,
    },
    /// A valid structure of this format, but not the one that belongs here.
    Foreign {
        /// The field that tells.
        name: &'static str,
    },
    /// A record kind this version does not know.
    Kind {
        /// The number found.
        found: u16,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, found } => {
                write!(f, "needs {needed} bytes, {found} are there")
            }
            Self::Magic => write!(f, "magic bytes not found"),
            Self::Version { found } => {
                write!(
                    f,
                    "format version {found}; this release reads versions \
                     {FORMAT_VERSION_OLDEST} to {FORMAT_VERSION}"
                )
            }
            Self::Checksum { part } => write!(f, "{part} checksum does not match"),
            Self::Field { name, value } => write!(f, "field {name} has illegal value {value}"),
            Self::Foreign { name } => write!(f, "belongs elsewhere: {name} differs"),
            Self::Kind { found } => write!(f, "unknown record kind {found}"),
        }
    }
}

impl core::error::Error for FormatError {}

/// Rounds `size` up to the next multiple of [`SECTOR_SIZE`].
pub const fn round_up_to_sector(size: usize) -> usize {
    size.next_multiple_of(SECTOR_SIZE)
}
