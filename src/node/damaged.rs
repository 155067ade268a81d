//! Shards whose journals cannot be opened, on a node whose other shards serve.

use std::path::PathBuf;

use forebay_journal::{SegmentId, ShardId};

use super::admin::shape::ShardDamageReport;
use super::error::NodeError;
use crate::housekeeping::ScanError;

/// A shard that does not serve.
#[derive(Clone, Debug)]
pub(super) struct DamagedShard {
    pub(super) shard: ShardId,
    /// What is wrong and where, in words.
    reason: String,
    place: Option<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    file: Option<PathBuf>,
    segment: SegmentId,
    offset: u64,
    lsn_from: u64,
    lsn_upto: Option<u64>,
}

impl DamagedShard {
    /// What an error says of one shard alone; none if it is not about that shard's journal: then no
    /// shard can start.
    pub(super) fn of(shard: ShardId, error: &NodeError) -> Option<Self> {
        let place = match error {
            NodeError::Scan(ScanError::Damaged { error, path }) => Some(Place {
                file: path.clone(),
                segment: error.segment,
                offset: error.offset,
                lsn_from: error.lsn_from.get(),
                lsn_upto: error.lsn_upto.map(|upto| upto.get()),
            }),
            NodeError::Scan(ScanError::Inconsistent { .. }) | NodeError::Selector(..) => None,
            _ => return None,
        };
        Some(Self {
            shard,
            reason: error.to_string(),
            place,
        })
    }

    /// The same as JSON.
    pub(super) fn report(&self) -> ShardDamageReport {
        let place = self.place.as_ref();
        let file = place.and_then(|place| place.file.as_ref());
        ShardDamageReport {
            reason: self.reason.clone(),
            file: file.map(|file| file.display().to_string()),
            segment: place.map(|place| place.segment.get()),
            offset: place.map(|place| place.offset),
            lsn_from: place.map(|place| place.lsn_from).filter(|from| *from > 0),
            lsn_upto: place.and_then(|place| place.lsn_upto),
        }
    }
}

impl std::fmt::Display for DamagedShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "shard {} does not serve: {}. Nothing of it was changed; what needs it is refused, and \
             the other shards serve. Remedy: stop the broker, then `forebay-inspect verify` and \
             `repair`, or put back a copy of its files",
            self.shard, self.reason
        )
    }
}
