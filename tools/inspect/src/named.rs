//! Where checkpoints say that messages lie: names by segment, so some bits a message.
//!
//! A name and its segment tell a record from all others: no epoch gives a name out twice, and no
//! two epochs write to one segment.

use std::collections::{BTreeMap, BTreeSet};

use forebay_journal::format::SECTOR_SIZE;
use forebay_journal::{Location, SegmentId};
use roaring::{RoaringBitmap, RoaringTreemap};

/// Messages by the segments that a checkpoint named for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    /// Their own records.
    own: BTreeMap<SegmentId, RoaringTreemap>,
    /// Fragments of their bodies.
    parts: BTreeMap<SegmentId, RoaringTreemap>,
    /// Sectors of the segment where blocks with fragments begin.
    part_blocks: BTreeMap<SegmentId, RoaringBitmap>,
    /// Where a replay begins, of what [`Self::needed`] says.
    pub(crate) replay_start: SegmentId,
}

impl Named {
    pub(crate) fn put_own(&mut self, segment: SegmentId, message: u64) {
        self.own.entry(segment).or_default().insert(message);
    }

    pub(crate) fn put_part(&mut self, location: Location, message: u64) {
        let segment = location.segment();
        self.parts.entry(segment).or_default().insert(message);
        let sector = (location.block_offset() / SECTOR_SIZE as u64) as u32;
        let blocks = self.part_blocks.entry(segment).or_default();
        blocks.insert(sector);
    }

    /// The message lies elsewhere.
    pub(crate) fn forget(&mut self, message: u64) {
        let own = self.own.values_mut();
        for names in own.chain(self.parts.values_mut()) {
            names.remove(message);
        }
    }

    /// Those that are still held, in segments below this one.
    pub(crate) fn needed(&self, held: &RoaringTreemap, below: SegmentId) -> Self {
        let keep = |all: &BTreeMap<SegmentId, RoaringTreemap>| {
            let below = all.range(..below);
            let kept = below.map(|(segment, names)| (*segment, names & held));
            kept.filter(|(_, names)| !names.is_empty()).collect()
        };
        let parts: BTreeMap<_, _> = keep(&self.parts);
        let blocks = self.part_blocks.iter();
        let blocks = blocks.filter(|(segment, _)| parts.contains_key(segment));
        let part_blocks = blocks
            .map(|(segment, sectors)| (*segment, sectors.clone()))
            .collect();
        Self {
            own: keep(&self.own),
            parts,
            part_blocks,
            replay_start: below,
        }
    }

    /// All segments that are named, in order.
    pub(crate) fn segments(&self) -> BTreeSet<SegmentId> {
        self.own.keys().chain(self.parts.keys()).copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.parts.is_empty()
    }

    /// Messages with their record or a fragment in it.
    pub(crate) fn names(&self, segment: SegmentId) -> RoaringTreemap {
        let both = self.own.get(&segment).into_iter();
        let both = both.chain(self.parts.get(&segment));
        both.fold(RoaringTreemap::new(), |all, names| all | names)
    }

    /// How many those are.
    pub(crate) fn count(&self, segment: SegmentId) -> u64 {
        self.names(segment).len()
    }

    /// Whether a record is not among these, or a block with fragments: one of a message that is
    /// gone, it may be.
    pub(crate) fn lacks(
        &self,
        segment: SegmentId,
        own: &RoaringTreemap,
        blocks: &RoaringBitmap,
    ) -> bool {
        let lacks_own = self.own.get(&segment);
        let lacks_own = lacks_own.is_some_and(|names| !names.is_subset(own));
        let parts = self.part_blocks.get(&segment);
        lacks_own || parts.is_some_and(|sectors| !sectors.is_subset(blocks))
    }

    pub(crate) fn has_own(&self, segment: SegmentId, message: u64) -> bool {
        let own = self.own.get(&segment);
        own.is_some_and(|names| names.contains(message))
    }

    pub(crate) fn has_part(&self, segment: SegmentId, message: u64) -> bool {
        let parts = self.parts.get(&segment);
        parts.is_some_and(|names| names.contains(message))
    }
}
