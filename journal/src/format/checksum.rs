//! The one checksum of the format: XXH3, 128 bits, seed 0, stored little-endian.
//!
//! Wide enough to serve as the identity of a block in the chain; it guards against accident, not
//! against an adversary who can write the disk.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// 128-bit checksum of some bytes, as stored.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Checksum([u8; 16]);

impl Checksum {
    /// What the first block of a journal names as its predecessor.
    pub const NONE: Self = Self([0; 16]);
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .rev()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

/// Checksum of `bytes`. Cost: no allocation, memory speed.
pub fn checksum(bytes: &[u8]) -> Checksum {
    Checksum(xxhash_rust::xxh3::xxh3_128(bytes).to_le_bytes())
}

/// Number of the group of this name, for [`super::Annotations`]: never zero, which is no group.
pub fn group_number(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name).max(1)
}

#[cfg(test)]
mod tests {
    use super::{checksum, group_number};

    #[test]
    fn numbers_of_groups_are_those_of_the_reference_implementation() {
        assert_eq!(group_number(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn vectors_of_the_reference_implementation() {
        assert_eq!(
            checksum(b"").to_string(),
            "99aa06d3014798d86001c324468d497f"
        );
        assert_ne!(checksum(&[0; 4096]), checksum(&[0; 4095]));
    }
}
