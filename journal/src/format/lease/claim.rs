//! Claim of an epoch: a file that comes into being once, with its *fence* open. Whoever claims a
//! higher epoch shuts the fence; nothing opens it again. Behind the fence lies the seal table of
//! the epoch's owner, twice.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::layout::{StructLayout, layout};
use super::super::{Checksum, FORMAT_VERSION, FormatError, SECTOR_SIZE};
use super::{
    Incarnation, NODE_NAME_SIZE_MAX, NodeName, SHARDS_MAX, check_fields, check_sector, is_zero,
    with_checksum,
};
use crate::{BlockNumber, Epoch, JournalId, Lsn};

const FENCE_MAGIC: [u8; 8] = *b"FBYFENCE";
const SEALS_MAGIC: [u8; 8] = *b"FBYSEALS";
const OPEN: u32 = 1;
const SHUT: u32 = 2;

/// Seals in one sector.
const SEALS_OF_SECTOR: usize = 100;
/// Sectors of one copy of the seal table.
const SEAL_SECTORS: usize = SHARDS_MAX.div_ceil(SEALS_OF_SECTOR);
/// Bytes of the fence, at the start of a claim file: what the ack barrier reads.
pub const FENCE_SIZE: usize = SECTOR_SIZE;
/// Bytes of one copy of the seal table. The first follows the fence, the second follows the first.
pub const SEAL_TABLE_SIZE: usize = SEAL_SECTORS * SECTOR_SIZE;
/// Size of a claim file in bytes.
pub const CLAIM_FILE_SIZE: usize = FENCE_SIZE + 2 * SEAL_TABLE_SIZE;

/// Who won the number of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The journal.
    pub journal: JournalId,
    /// The epoch.
    pub epoch: Epoch,
    /// The node.
    pub name: NodeName,
    /// Its life.
    pub incarnation: Incarnation,
}

/// The first sector of a claim file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Whose it is.
    pub claim: Claim,
    /// The higher epoch that shut it; zero while it is open.
    pub shut_by: Epoch,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFence {
    magic: [u8; 8],
    version: U16,
    reserved: U16,
    state: U32,
    journal: [u8; 16],
    epoch: U64,
    shut_by: U64,
    incarnation: [u8; 16],
    name: [u8; NODE_NAME_SIZE_MAX],
    reserved_2: [u8; 3952],
    checksum: Checksum,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSeals {
    magic: [u8; 8],
    version: U16,
    part: U16,
    shard_count: U16,
    reserved: U16,
    journal: [u8; 16],
    epoch: U64,
    incarnation: [u8; 16],
    reserved_2: [u8; 24],
    seals: [RawSeal; SEALS_OF_SECTOR],
    checksum: Checksum,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSeal {
    epoch: U64,
    lsn: U64,
    block: U64,
    identity: Checksum,
}

const _: () = assert!(size_of::<RawFence>() == SECTOR_SIZE);
const _: () = assert!(size_of::<RawSeals>() == SECTOR_SIZE);

pub(in crate::format) const FENCE_LAYOUT: StructLayout = layout!(
    "Fence",
    RawFence {
        magic,
        version,
        reserved,
        state,
        journal,
        epoch,
        shut_by,
        incarnation,
        name,
        reserved_2,
        checksum,
    }
);

pub(in crate::format) const SEALS_LAYOUT: StructLayout = layout!(
    "Seals",
    RawSeals {
        magic,
        version,
        part,
        shard_count,
        reserved,
        journal,
        epoch,
        incarnation,
        reserved_2,
        seals,
        checksum,
    }
);

pub(in crate::format) const SEAL_ENTRY_LAYOUT: StructLayout = layout!(
    "Seal",
    RawSeal {
        epoch,
        lsn,
        block,
        identity,
    }
);

impl Fence {
    /// As it comes into being.
    pub const fn open(claim: Claim) -> Self {
        Self {
            claim,
            shut_by: Epoch::ZERO,
        }
    }

    /// The same, shut for ever by a higher epoch.
    ///
    /// Panics: if that is not higher.
    pub fn shut(claim: Claim, by: Epoch) -> Self {
        assert!(by > claim.epoch, "{by} is not above {}", claim.epoch);
        Self { claim, shut_by: by }
    }

    /// For a fence of which nothing can be read: shut, with the name of who shuts it.
    ///
    /// Panics: if `by` is not higher.
    pub fn shut_unread(journal: JournalId, epoch: Epoch, by: &Claim) -> Self {
        let claim = Claim {
            journal,
            epoch,
            name: by.name,
            incarnation: Incarnation::default(),
        };
        Self::shut(claim, by.epoch)
    }

    /// Whether its owner may still acknowledge.
    pub fn is_open(&self) -> bool {
        self.shut_by == Epoch::ZERO
    }

    /// The sector to write at offset 0.
    pub fn encode(&self) -> [u8; SECTOR_SIZE] {
        let raw = RawFence {
            magic: FENCE_MAGIC,
            version: U16::new(FORMAT_VERSION),
            reserved: U16::new(0),
            state: U32::new(if self.is_open() { OPEN } else { SHUT }),
            journal: self.claim.journal.0,
            epoch: U64::new(self.claim.epoch.get()),
            shut_by: U64::new(self.shut_by.get()),
            incarnation: self.claim.incarnation.0,
            name: self.claim.name.to_bytes(),
            reserved_2: [0; 3952],
            checksum: Checksum::NONE,
        };
        with_checksum(zerocopy::transmute!(raw))
    }

    /// Reads the first sector of a claim file.
    ///
    /// Errors: it is none, or not whole, of another version, or with numbers that no writer gives
    /// out. In doubt a fence is not open.
    pub fn decode(sector: &[u8]) -> Result<Self, FormatError> {
        check_sector(sector, FENCE_MAGIC, "fence")?;
        let (raw, _) = RawFence::ref_from_prefix(sector).expect("its size was checked");
        let reserved = raw.reserved.get() != 0 || !is_zero(&raw.reserved_2);
        let (epoch, most) = (raw.epoch.get(), u64::MAX / 2);
        let shut = match raw.state.get() {
            OPEN => ("shut_by", raw.shut_by.get(), 0, 0),
            _ => ("shut_by", raw.shut_by.get(), epoch.saturating_add(1), most),
        };
        check_fields(&[
            ("reserved", u64::from(reserved), 0, 0),
            ("state", raw.state.get().into(), OPEN.into(), SHUT.into()),
            ("epoch", epoch, 1, most),
            shut,
        ])?;
        Ok(Self {
            claim: Claim {
                journal: JournalId(raw.journal),
                epoch: Epoch::from_raw(epoch),
                name: NodeName::from_bytes(&raw.name)?,
                incarnation: Incarnation(raw.incarnation),
            },
            shut_by: Epoch::from_raw(raw.shut_by.get()),
        })
    }
}

/// Where the journal of one shard ends for the epoch that wrote the table: its last block that
/// counts, and whose that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSeal {
    /// Epoch of that block; zero in a new journal.
    pub epoch: Epoch,
    /// Its last LSN.
    pub lsn: Lsn,
    /// Its number.
    pub block: BlockNumber,
    /// Its identity.
    pub identity: Checksum,
}

/// All seals of an epoch, one for each shard: written as a whole before the epoch serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealTable {
    /// The journal.
    pub journal: JournalId,
    /// The epoch; only the one that won its number writes here.
    pub epoch: Epoch,
    /// Its life, for people.
    pub incarnation: Incarnation,
    /// By shard; `None` for one that the epoch does not serve.
    pub seals: Vec<Option<ShardSeal>>,
}

/// What a claim file says of seals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealTableRead {
    /// No table was finished: that epoch never served.
    Absent,
    /// The table.
    Sound(SealTable),
    /// There was a table, and neither copy is sound.
    Damaged,
}

impl RawSeal {
    /// Of a shard that is not served: no block has this number.
    const UNSERVED: Self = Self {
        epoch: U64::ZERO,
        lsn: U64::ZERO,
        block: U64::MAX_VALUE,
        identity: Checksum::NONE,
    };
    const ZERO: Self = Self {
        epoch: U64::ZERO,
        lsn: U64::ZERO,
        block: U64::ZERO,
        identity: Checksum::NONE,
    };

    fn read(&self) -> Option<ShardSeal> {
        (self.block != Self::UNSERVED.block).then(|| ShardSeal {
            epoch: Epoch::from_raw(self.epoch.get()),
            lsn: Lsn::from_raw(self.lsn.get()),
            block: BlockNumber::from_raw(self.block.get()),
            identity: self.identity,
        })
    }
}

impl From<Option<ShardSeal>> for RawSeal {
    fn from(seal: Option<ShardSeal>) -> Self {
        seal.map_or(Self::UNSERVED, |seal| Self {
            epoch: U64::new(seal.epoch.get()),
            lsn: U64::new(seal.lsn.get()),
            block: U64::new(seal.block.get()),
            identity: seal.identity,
        })
    }
}

impl SealTable {
    /// One copy: [`SEAL_TABLE_SIZE`] bytes.
    ///
    /// Panics: on more than 256 shards.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAL_TABLE_SIZE);
        for part in 0..SEAL_SECTORS {
            let from = part * SEALS_OF_SECTOR;
            let mut seals = [RawSeal::ZERO; SEALS_OF_SECTOR];
            for (raw, seal) in seals.iter_mut().zip(self.seals.iter().skip(from)) {
                *raw = RawSeal::from(*seal);
            }
            let raw = RawSeals {
                magic: SEALS_MAGIC,
                version: U16::new(FORMAT_VERSION),
                part: U16::new(part as u16),
                shard_count: U16::new(u16::try_from(self.seals.len()).expect("at most 256")),
                reserved: U16::new(0),
                journal: self.journal.0,
                epoch: U64::new(self.epoch.get()),
                incarnation: self.incarnation.0,
                reserved_2: [0; 24],
                seals,
                checksum: Checksum::NONE,
            };
            bytes.extend(with_checksum(zerocopy::transmute!(raw)));
        }
        bytes
    }

    fn decode(copy: &[u8], journal: JournalId, epoch: Epoch) -> Result<Self, FormatError> {
        let mut table = Self {
            journal,
            epoch,
            incarnation: Incarnation::default(),
            seals: Vec::new(),
        };
        for (part, sector) in copy.chunks(SECTOR_SIZE).enumerate() {
            check_sector(sector, SEALS_MAGIC, "seals")?;
            let (raw, _) = RawSeals::ref_from_prefix(sector).expect("its size was checked");
            let shards = usize::from(raw.shard_count.get());
            let reserved = raw.reserved.get() != 0 || !is_zero(&raw.reserved_2);
            check_fields(&[
                ("reserved", u64::from(reserved), 0, 0),
                ("part", raw.part.get().into(), part as u64, part as u64),
                ("shard_count", shards as u64, 1, SHARDS_MAX as u64),
            ])?;
            if (raw.journal, raw.epoch.get()) != (journal.0, epoch.get()) {
                return Err(FormatError::Foreign { name: "epoch" });
            }
            table.incarnation = Incarnation(raw.incarnation);
            let left = shards.saturating_sub(part * SEALS_OF_SECTOR);
            let own = &raw.seals[..left.min(SEALS_OF_SECTOR)];
            table.seals.extend(own.iter().map(RawSeal::read));
        }
        // Sectors that differ in what they share, or say more than there are shards.
        if table.encode() != copy {
            return Err(FormatError::Field {
                name: "seals",
                value: table.seals.len() as u64,
            });
        }
        Ok(table)
    }
}

/// A whole claim file as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimFile {
    /// Its fence, or why it says nothing: then it is not open, for nobody.
    pub fence: Result<Fence, FormatError>,
    /// Its seals.
    pub seals: SealTableRead,
}

impl ClaimFile {
    /// The bytes of a claim that comes into being: fence open, no seals.
    pub fn encode_new(claim: Claim) -> Vec<u8> {
        let mut bytes = vec![0; CLAIM_FILE_SIZE];
        bytes[..FENCE_SIZE].copy_from_slice(&Fence::open(claim).encode());
        bytes
    }

    /// Byte offset of copy 0 or 1 of the seal table.
    pub const fn seals_offset(copy: usize) -> u64 {
        (FENCE_SIZE + copy * SEAL_TABLE_SIZE) as u64
    }

    /// Reads the file of this epoch of this journal. The copies of the table are written one
    /// behind the other: where the second was not begun, the first may be half a table.
    ///
    /// Errors: the file is too short.
    pub fn decode(bytes: &[u8], journal: JournalId, epoch: Epoch) -> Result<Self, FormatError> {
        if bytes.len() < CLAIM_FILE_SIZE {
            let (needed, found) = (CLAIM_FILE_SIZE, bytes.len());
            return Err(FormatError::Truncated { needed, found });
        }
        let fence = Fence::decode(bytes).and_then(|fence| {
            let is_own = (fence.claim.journal, fence.claim.epoch) == (journal, epoch);
            let foreign = FormatError::Foreign { name: "epoch" };
            if is_own { Ok(fence) } else { Err(foreign) }
        });
        let (first, second) = bytes[FENCE_SIZE..CLAIM_FILE_SIZE].split_at(SEAL_TABLE_SIZE);
        let read = |copy| SealTable::decode(copy, journal, epoch);
        let seals = match read(first).or_else(|_| read(second)) {
            Ok(table) => SealTableRead::Sound(table),
            Err(_) if is_zero(second) => SealTableRead::Absent,
            Err(_) => SealTableRead::Damaged,
        };
        Ok(Self { fence, seals })
    }
}
