//! Names of the journal's folders and files (`docs/format.md` 2).

use core::fmt;

use super::ByteRange;
use crate::{Epoch, Lsn, SegmentId, ShardId};

/// Name of the superblock file in the folder `journal`.
pub const SUPERBLOCK_FILE_NAME: &str = "superblock";

/// Name of the folder of an epoch: `epoch-` and 20 decimal digits.
pub fn epoch_folder_name(epoch: Epoch) -> String {
    format!("epoch-{:020}", epoch.get())
}

/// Reads the name of an epoch's folder; `None` if it is not one.
pub fn parse_epoch_folder_name(name: &str) -> Option<Epoch> {
    digits(name.strip_prefix("epoch-")?, 20).map(Epoch::from_raw)
}

/// Name of the lease file in the folder `journal`.
pub const LEASE_FILE_NAME: &str = "lease";

/// Name of the file, in the folder `journal`, with which an epoch is claimed: `claim-` and 20
/// decimal digits.
pub fn claim_file_name(epoch: Epoch) -> String {
    format!("claim-{:020}", epoch.get())
}

/// Reads the name of a claim file; `None` if it is not one.
pub fn parse_claim_file_name(name: &str) -> Option<Epoch> {
    digits(name.strip_prefix("claim-")?, 20).map(Epoch::from_raw)
}

/// Name of a segment file: `shard-`, 3 digits, `-segment-`, 20 digits.
pub fn segment_file_name(shard: ShardId, segment: SegmentId) -> String {
    format!("shard-{:03}-segment-{:020}", shard.0, segment.get())
}

/// Reads the name of a segment file; `None` if it is not one.
pub fn parse_segment_file_name(name: &str) -> Option<(ShardId, SegmentId)> {
    let (shard, segment) = name.strip_prefix("shard-")?.split_once("-segment-")?;
    let shard = u16::try_from(digits(shard, 3)?).ok()?;
    Some((ShardId(shard), SegmentId::from_raw(digits(segment, 20)?)))
}

/// Name of the identifier file of a shard, in its epoch's folder: `shard-`, 3 digits,
/// `-identifiers`.
pub fn identifier_file_name(shard: ShardId) -> String {
    format!("shard-{:03}-identifiers", shard.0)
}

/// Reads the name of an identifier file; `None` if it is not one.
pub fn parse_identifier_file_name(name: &str) -> Option<ShardId> {
    let shard = name.strip_prefix("shard-")?.strip_suffix("-identifiers")?;
    Some(ShardId(u16::try_from(digits(shard, 3)?).ok()?))
}

/// Name of the folder in `journal` that cut bytes are copied to.
pub const QUARANTINE_FOLDER_NAME: &str = "quarantine";

/// Where bytes in the quarantine were cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineName {
    /// Shard of the journal.
    pub shard: ShardId,
    /// Epoch whose folder held the file.
    pub epoch: Epoch,
    /// First LSN that was cut.
    pub lsn_from: Lsn,
    /// Segment file.
    pub segment: SegmentId,
    /// Byte offset in that file.
    pub offset: u64,
    /// 1, or more where that name was taken by other bytes.
    pub copy: u64,
}

impl QuarantineName {
    /// The first name of a stretch that is cut.
    pub fn new(shard: ShardId, lsn_from: Lsn, range: &ByteRange) -> Self {
        Self {
            shard,
            epoch: range.epoch,
            lsn_from,
            segment: range.segment,
            offset: range.offset,
            copy: 1,
        }
    }

    /// Reads a name; `None` if it is not one.
    pub fn parse(name: &str) -> Option<Self> {
        let (shard, rest) = name.strip_prefix("shard-")?.split_once("-epoch-")?;
        let (epoch, rest) = rest.split_once("-lsn-")?;
        let (lsn, rest) = rest.split_once("-segment-")?;
        let (segment, rest) = rest.split_once("-byte-")?;
        let (offset, copy) = rest.split_once("-copy-")?;
        Some(Self {
            shard: ShardId(u16::try_from(digits(shard, 3)?).ok()?),
            epoch: Epoch::from_raw(digits(epoch, 20)?),
            lsn_from: Lsn::from_raw(digits(lsn, 20)?),
            segment: SegmentId::from_raw(digits(segment, 20)?),
            offset: digits(offset, 20)?,
            copy: digits(copy, 3)?,
        })
    }
}

impl fmt::Display for QuarantineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shard,
            epoch,
            lsn_from,
            segment,
            offset,
            copy,
        } = self;
        let (epoch, lsn, segment) = (epoch.get(), lsn_from.get(), segment.get());
        write!(
            f,
            "shard-{:03}-epoch-{epoch:020}-lsn-{lsn:020}-segment-{segment:020}-byte-{offset:020}\
             -copy-{copy:03}",
            shard.0
        )
    }
}

/// Exactly `count` decimal digits, so that each position has one name only.
fn digits(text: &str, count: usize) -> Option<u64> {
    let is_plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_quarantine_says_where_its_bytes_were() {
        let name = QuarantineName {
            shard: ShardId(2),
            epoch: Epoch::from_raw(3),
            lsn_from: Lsn::from_raw(17),
            segment: SegmentId::from_raw(5),
            offset: 8192,
            copy: 1,
        };
        let text = name.to_string();
        assert_eq!(
            text,
            "shard-002-epoch-00000000000000000003-lsn-00000000000000000017-segment-\
             00000000000000000005-byte-00000000000000008192-copy-001"
        );
        assert_eq!(QuarantineName::parse(&text), Some(name));
        assert_eq!(QuarantineName::parse(&text[..text.len() - 1]), None);
        assert_eq!(QuarantineName::parse(&format!("{text}.new")), None);
    }

    #[test]
    fn names_are_read_as_written_and_nothing_else_is() {
        let (shard, segment) = (ShardId(7), SegmentId::from_raw(u64::MAX));
        let name = segment_file_name(shard, segment);
        assert_eq!(name, "shard-007-segment-18446744073709551615");
        assert_eq!(parse_segment_file_name(&name), Some((shard, segment)));
        let folder = epoch_folder_name(Epoch::from_raw(12));
        assert_eq!(folder, "epoch-00000000000000000012");
        assert_eq!(parse_epoch_folder_name(&folder), Some(Epoch::from_raw(12)));
        assert_eq!(identifier_file_name(shard), "shard-007-identifiers");
        let parsed = parse_identifier_file_name("shard-007-identifiers");
        assert_eq!(parsed, Some(shard));
        for wrong in [
            "epoch-12",
            "epoch-+0000000000000000012",
            "epoch-99999999999999999999",
        ] {
            assert_eq!(parse_epoch_folder_name(wrong), None, "{wrong}");
        }
        for wrong in [
            "shard-7-segment-00000000000000000001",
            "shard-007-segment-1",
            "superblock",
        ] {
            assert_eq!(parse_segment_file_name(wrong), None, "{wrong}");
        }
    }
}
