//! Slot: what a node says of itself. Only that node writes it, and nothing that safety rests on is
//! in it.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::layout::{StructLayout, layout};
use super::super::{Checksum, FORMAT_VERSION, FormatError, SECTOR_SIZE};
use super::{
    Incarnation, NODE_NAME_SIZE_MAX, NodeName, SLOTS_MAX, SlotId, check_fields, check_sector,
    is_zero, with_checksum,
};
use crate::{Epoch, JournalId, Lsn};

const MAGIC: [u8; 8] = *b"FBYLSLOT";
/// Most shards of a journal.
pub const SHARDS_MAX: usize = 256;
const NEXT_ANYBODY: u16 = u16::MAX;
const NEXT_NOBODY: u16 = u16::MAX - 1;

/// What a node does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SlotState {
    /// It stands by.
    Free = 1,
    /// It won the number of an epoch and does not serve yet.
    Claimed = 2,
    /// It serves.
    Held = 3,
    /// It served and stopped in order: nothing of it is under way.
    Released = 4,
}

/// What a node was configured as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// The one that serves when it can.
    #[default]
    Primary = 1,
    /// One that stands in for it.
    Backup = 2,
}

/// Who goes on behind a holder that stops in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Next {
    /// The first in line.
    #[default]
    Anybody,
    /// Only this node itself, when it comes back.
    Nobody,
    /// This one.
    Node(SlotId),
}

/// One node's slot (`docs/format.md` 5b).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The journal.
    pub journal: JournalId,
    /// Where it lies.
    pub slot: SlotId,
    /// Whose it is.
    pub name: NodeName,
    /// Which life of that node wrote it.
    pub incarnation: Incarnation,
    /// Configured as.
    pub role: Role,
    /// What it does now.
    pub state: SlotState,
    /// Held: to whom it is about to hand over, if that is a node. Released: who goes on.
    pub next: Next,
    /// Epoch it claimed last; zero: none.
    pub epoch: Epoch,
    /// Counts what this life of the node wrote here, from 1.
    pub heartbeat: u64,
    /// When it came into line: lower ones come first.
    pub joined: u64,
    /// The epoch whose handover to this node it is ready for; zero: none.
    pub ready_for: Epoch,
    /// Highest LSN it released in each shard; one for each shard of the journal.
    pub acked: Vec<Lsn>,
}

/// What a sector of the slots holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotRead {
    /// Never written.
    Empty,
    /// A sound slot in its place.
    Sound(Box<Slot>),
    /// Nothing to rely on: damaged, torn or not read at all.
    Unreadable,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U16,
    slot: U16,
    state: u8,
    role: u8,
    next: U16,
    journal: [u8; 16],
    incarnation: [u8; 16],
    name: [u8; NODE_NAME_SIZE_MAX],
    epoch: U64,
    heartbeat: U64,
    joined: U64,
    ready_for: U64,
    shard_count: U16,
    reserved: [u8; 6],
    acked: [U64; SHARDS_MAX],
    reserved_2: [u8; 1880],
    checksum: Checksum,
}

const _: () = assert!(size_of::<Raw>() == SECTOR_SIZE);

pub(in crate::format) const LAYOUT: StructLayout = layout!(
    "Slot",
    Raw {
        magic,
        version,
        slot,
        state,
        role,
        next,
        journal,
        incarnation,
        name,
        epoch,
        heartbeat,
        joined,
        ready_for,
        shard_count,
        reserved,
        acked,
        reserved_2,
        checksum,
    }
);

impl Next {
    const fn to_raw(self) -> u16 {
        match self {
            Self::Anybody => NEXT_ANYBODY,
            Self::Nobody => NEXT_NOBODY,
            Self::Node(slot) => slot.0,
        }
    }

    const fn from_raw(raw: u16) -> Option<Self> {
        match raw {
            NEXT_ANYBODY => Some(Self::Anybody),
            NEXT_NOBODY => Some(Self::Nobody),
            slot if slot < SLOTS_MAX => Some(Self::Node(SlotId(slot))),
            _ => None,
        }
    }
}

impl Slot {
    /// The sector to write at [`super::LeaseHead::slot_offset`].
    ///
    /// Panics: on more than 256 shards.
    pub fn encode(&self) -> [u8; SECTOR_SIZE] {
        let mut raw = Raw {
            magic: MAGIC,
            version: U16::new(FORMAT_VERSION),
            slot: U16::new(self.slot.0),
            state: self.state as u8,
            role: self.role as u8,
            next: U16::new(self.next.to_raw()),
            journal: self.journal.0,
            incarnation: self.incarnation.0,
            name: self.name.to_bytes(),
            epoch: U64::new(self.epoch.get()),
            heartbeat: U64::new(self.heartbeat),
            joined: U64::new(self.joined),
            ready_for: U64::new(self.ready_for.get()),
            shard_count: U16::new(self.acked.len() as u16),
            reserved: [0; 6],
            acked: [U64::new(0); SHARDS_MAX],
            reserved_2: [0; 1880],
            checksum: Checksum::NONE,
        };
        for (stored, acked) in raw.acked[..self.acked.len()].iter_mut().zip(&self.acked) {
            *stored = U64::new(acked.get());
        }
        with_checksum(zerocopy::transmute!(raw))
    }

    /// Reads the sector of a slot.
    ///
    /// Errors: it is none, or not whole, of another version, or with numbers that no writer gives
    /// out.
    pub fn decode(sector: &[u8]) -> Result<Self, FormatError> {
        check_sector(sector, MAGIC, "slot")?;
        let (raw, _) = Raw::ref_from_prefix(sector).expect("its size was checked");
        let shards = usize::from(raw.shard_count.get());
        let most = u64::MAX / 2;
        check_fields(&[
            ("slot", raw.slot.get().into(), 0, u64::from(SLOTS_MAX) - 1),
            ("shard_count", shards as u64, 1, SHARDS_MAX as u64),
            ("heartbeat", raw.heartbeat.get(), 1, most),
            ("joined", raw.joined.get(), 1, most),
            ("epoch", raw.epoch.get(), 0, most),
            ("ready_for", raw.ready_for.get(), 0, most),
        ])?;
        let reserved = !is_zero(&raw.reserved) || !is_zero(&raw.reserved_2);
        let beyond = raw.acked[shards..].iter().any(|lsn| lsn.get() != 0);
        check_fields(&[("reserved", u64::from(reserved || beyond), 0, 0)])?;
        Self::from_raw(raw, shards)
    }

    fn from_raw(raw: &Raw, shards: usize) -> Result<Self, FormatError> {
        let state = match raw.state {
            1 => SlotState::Free,
            2 => SlotState::Claimed,
            3 => SlotState::Held,
            4 => SlotState::Released,
            other => return Err(illegal("state", other.into())),
        };
        let role = match raw.role {
            1 => Role::Primary,
            2 => Role::Backup,
            other => return Err(illegal("role", other.into())),
        };
        let next = Next::from_raw(raw.next.get());
        let next = next.ok_or_else(|| illegal("next", raw.next.get().into()))?;
        let acked = raw.acked[..shards].iter();
        Ok(Self {
            journal: JournalId(raw.journal),
            slot: SlotId(raw.slot.get()),
            name: NodeName::from_bytes(&raw.name)?,
            incarnation: Incarnation(raw.incarnation),
            role,
            state,
            next,
            epoch: Epoch::from_raw(raw.epoch.get()),
            heartbeat: raw.heartbeat.get(),
            joined: raw.joined.get(),
            ready_for: Epoch::from_raw(raw.ready_for.get()),
            acked: acked.map(|lsn| Lsn::from_raw(lsn.get())).collect(),
        })
    }
}

const fn illegal(name: &'static str, value: u64) -> FormatError {
    FormatError::Field { name, value }
}

impl SlotRead {
    /// Reads the sector of this slot of this journal. What belongs elsewhere is unreadable.
    pub fn new(sector: &[u8], journal: JournalId, slot: SlotId) -> Self {
        if sector.len() == SECTOR_SIZE && is_zero(sector) {
            return Self::Empty;
        }
        match Slot::decode(sector) {
            Ok(found) if (found.journal, found.slot) == (journal, slot) => {
                Self::Sound(Box::new(found))
            }
            _ => Self::Unreadable,
        }
    }

    /// The slot, if it is sound.
    pub fn sound(&self) -> Option<&Slot> {
        match self {
            Self::Sound(slot) => Some(slot),
            Self::Empty | Self::Unreadable => None,
        }
    }
}
