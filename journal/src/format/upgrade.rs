//! Older versions of the format: the only code that knows that there were any.
//!
//! A release writes its own version and reads that and the one before. What it reads of an older
//! one is made into what this one says when it is decoded; nothing on disk is written again. A
//! folder moves on by itself: each start writes in an epoch of its own, in the version of its
//! release, and older segments are freed as all others are.
//! The superblock is never written again, so each version of it stays readable.
//!
//! What no version may change, so that an older release can tell a newer journal from damage:
//! magic, version and checksum of each structure, where they lie and what the checksum covers.
//! Source: `docs/format.md` 10; rehearsed with version 1 by `tests/upgrade.rs`.

use super::{FORMAT_VERSION, FormatError};

/// Oldest version of segments, blocks and identifiers that this release reads.
pub const FORMAT_VERSION_OLDEST: u16 = FORMAT_VERSION - 1;
/// The first version: superblocks of all since then are read.
const FIRST: u16 = 1;
/// Up to this version a superblock does not say how addresses are placed.
const WITHOUT_PLACEMENT: u16 = 1;

/// How addresses are placed on shards: the only way there is (`forebay::routing::shard_of`).
pub const PLACEMENT: u32 = 1;

/// Whether a segment head, block or identifier of that version is read.
///
/// Call it when the checksum holds: what does not is damaged, whatever it says.
pub(super) fn check_version(found: u16) -> Result<(), FormatError> {
    match (FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&found) {
        true => Ok(()),
        false => Err(FormatError::Version { found }),
    }
}

/// Likewise, of a superblock. Returns how addresses are placed, of what its field says.
pub(super) fn superblock_placement(version: u16, field: u32) -> Result<u32, FormatError> {
    match version {
        FIRST..=WITHOUT_PLACEMENT if field == 0 => Ok(PLACEMENT),
        FIRST..=WITHOUT_PLACEMENT => Err(FormatError::Field {
            name: "reserved",
            value: 1,
        }),
        ..=FORMAT_VERSION if version >= FIRST => Ok(field),
        found => Err(FormatError::Version { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_before_is_read_and_no_other() {
        for version in [0, FORMAT_VERSION + 1, u16::MAX] {
            let refused = Err(FormatError::Version { found: version });
            assert_eq!(check_version(version), refused);
            assert_eq!(
                superblock_placement(version, PLACEMENT),
                Err(FormatError::Version { found: version })
            );
        }
        assert_eq!(check_version(FORMAT_VERSION - 1), Ok(()));
        assert_eq!(check_version(FORMAT_VERSION), Ok(()));
        assert_eq!(superblock_placement(1, 0), Ok(PLACEMENT));
        assert_eq!(superblock_placement(FORMAT_VERSION, 7), Ok(7));
    }
}
