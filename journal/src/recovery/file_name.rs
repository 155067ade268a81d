//! Names of the journal's folders and files (`docs/format.md` 2).

use crate::{Epoch, SegmentId, ShardId};

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

/// Exactly `count` decimal digits, so that each position has one name only.
fn digits(text: &str, count: usize) -> Option<u64> {
    let is_plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written_and_nothing_else_is() {
        let (shard, segment) = (ShardId(7), SegmentId::from_raw(u64::MAX));
        let name = segment_file_name(shard, segment);
        assert_eq!(name, "shard-007-segment-18446744073709551615");
        assert_eq!(parse_segment_file_name(&name), Some((shard, segment)));
        let folder = epoch_folder_name(Epoch::from_raw(12));
        assert_eq!(folder, "epoch-00000000000000000012");
        assert_eq!(parse_epoch_folder_name(&folder), Some(Epoch::from_raw(12)));
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
