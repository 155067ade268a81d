//! The lease on disk: who is there (`lease`, slots that only their nodes write) and who may
//! acknowledge (`claim-<epoch>`, one file for each epoch) (`docs/format.md` 5b).
//!
//! Slots say who is alive and may be lost or written late without harm. What safety rests on lies
//! at a place of its own for each epoch, so that no late write of anybody can undo it.

mod claim;
mod head;
mod slot;

use core::fmt;

use zerocopy::IntoBytes;

use super::{FORMAT_VERSION, FormatError, SECTOR_SIZE, checksum};

pub use claim::{
    CLAIM_FILE_SIZE, Claim, ClaimFile, FENCE_SIZE, Fence, SEAL_TABLE_SIZE, SealTable,
    SealTableRead, ShardSeal,
};
pub use head::{LEASE_COPY_OFFSET, LEASE_FILE_SIZE, LeaseHead, SLOTS_MAX};
pub use slot::{Next, Role, SHARDS_MAX, Slot, SlotRead, SlotState};

pub(super) use claim::{FENCE_LAYOUT, SEAL_ENTRY_LAYOUT, SEALS_LAYOUT};
pub(super) use head::LAYOUT as HEAD_LAYOUT;
pub(super) use slot::LAYOUT as SLOT_LAYOUT;

/// Most bytes of a node's name.
pub const NODE_NAME_SIZE_MAX: usize = 64;

/// Name of a node: what its operator calls it, one of its own for each node of a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName {
    /// Zeros behind the name.
    bytes: [u8; NODE_NAME_SIZE_MAX],
}

impl NodeName {
    /// Takes a name of 1 to 64 letters, digits, `-`, `_` and `.` of ASCII; `None` if it is none.
    pub fn new(name: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_sized = (1..=NODE_NAME_SIZE_MAX).contains(&name.len());
        if !is_sized || !name.bytes().all(is_plain) {
            return None;
        }
        let mut bytes = [0; NODE_NAME_SIZE_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self { bytes })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&byte| byte == 0);
        let name = &self.bytes[..end.unwrap_or(NODE_NAME_SIZE_MAX)];
        core::str::from_utf8(name).expect("made of ASCII only")
    }

    /// As stored: zeros behind it.
    const fn to_bytes(self) -> [u8; NODE_NAME_SIZE_MAX] {
        self.bytes
    }

    fn from_bytes(bytes: &[u8; NODE_NAME_SIZE_MAX]) -> Result<Self, FormatError> {
        let end = bytes.iter().position(|&byte| byte == 0);
        let (name, rest) = bytes.split_at(end.unwrap_or(NODE_NAME_SIZE_MAX));
        let named = core::str::from_utf8(name).ok().and_then(Self::new);
        let is_ended = rest.iter().all(|&byte| byte == 0);
        named.filter(|_| is_ended).ok_or(FormatError::Field {
            name: "name",
            value: name.len() as u64,
        })
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeName({self})")
    }
}

/// One life of a node: 128 random bits drawn at each start.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

/// Place of a node in the lease file, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u16);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Checks what all sectors of the lease share: size, magic, version and checksum.
fn check_sector(bytes: &[u8], magic: [u8; 8], part: &'static str) -> Result<(), FormatError> {
    let Some(sector) = bytes.get(..SECTOR_SIZE) else {
        let found = bytes.len();
        return Err(FormatError::Truncated {
            needed: SECTOR_SIZE,
            found,
        });
    };
    if sector[..8] != magic {
        return Err(FormatError::Magic);
    }
    let found = u16::from_le_bytes([sector[8], sector[9]]);
    if found != FORMAT_VERSION {
        return Err(FormatError::Version { found });
    }
    if checksum(&sector[..SECTOR_SIZE - 16]).as_bytes() != &sector[SECTOR_SIZE - 16..] {
        return Err(FormatError::Checksum { part });
    }
    Ok(())
}

/// Checks that fields lie between their least and most.
fn check_fields(limits: &[(&'static str, u64, u64, u64)]) -> Result<(), FormatError> {
    let wrong = limits
        .iter()
        .find(|(_, value, least, most)| !(least..=most).contains(&value));
    match wrong {
        Some(&(name, value, ..)) => Err(FormatError::Field { name, value }),
        None => Ok(()),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Puts the checksum behind the rest of a sector.
fn with_checksum(mut sector: [u8; SECTOR_SIZE]) -> [u8; SECTOR_SIZE] {
    let sum = checksum(&sector[..SECTOR_SIZE - 16]);
    sector[SECTOR_SIZE - 16..].copy_from_slice(sum.as_bytes());
    sector
}
