//! What each segment is still needed for: a dense ring from the oldest segment in use.

use std::collections::VecDeque;

use forebay_journal::SegmentId;

/// What a segment is still needed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentUse {
    /// Records in it that must stay: messages, fragments, records of pending transactions. A
    /// message in several queues counts once.
    pub references: u64,
    /// Bytes of the heads and bodies of those records.
    pub bytes: u64,
    /// Queues whose latest definition lies in it, and ids of messages that no later record says;
    /// these can be repeated elsewhere.
    pub definitions: u32,
}

#[derive(Debug, Default)]
pub(super) struct SegmentRing {
    oldest: SegmentId,
    uses: VecDeque<SegmentUse>,
    /// Whether one lost its last reference since [`Self::take_emptied`].
    has_emptied: bool,
}

impl SegmentRing {
    pub(super) fn add(&mut self, segment: SegmentId, bytes: u32) {
        let entry = self.slot(segment);
        entry.references += 1;
        entry.bytes += u64::from(bytes);
    }

    /// Panics: if it was not added (our own bookkeeping).
    pub(super) fn remove(&mut self, segment: SegmentId, bytes: u32) {
        let entry = self.slot(segment);
        entry.references = entry.references.checked_sub(1).expect("was added before");
        entry.bytes = entry
            .bytes
            .checked_sub(bytes.into())
            .expect("was added before");
        self.has_emptied |= entry.references == 0;
        self.trim();
    }

    pub(super) fn define(&mut self, segment: SegmentId) {
        self.slot(segment).definitions += 1;
    }

    /// Panics: if it was not defined there (our own bookkeeping).
    pub(super) fn undefine(&mut self, segment: SegmentId) {
        let entry = self.slot(segment);
        entry.definitions = entry
            .definitions
            .checked_sub(1)
            .expect("was defined before");
        self.trim();
    }

    pub(super) fn of(&self, segment: SegmentId) -> SegmentUse {
        segment
            .get()
            .checked_sub(self.oldest.get())
            .and_then(|index| self.uses.get(index as usize).copied())
            .unwrap_or_default()
    }

    /// Whether a segment lost its last reference since this was asked last.
    pub(super) fn take_emptied(&mut self) -> bool {
        core::mem::take(&mut self.has_emptied)
    }

    /// All segments from the oldest in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentId, SegmentUse)> + Clone + '_ {
        (0..)
            .zip(&self.uses)
            .map(|(index, entry)| (self.oldest.plus(index), *entry))
    }

    fn slot(&mut self, segment: SegmentId) -> &mut SegmentUse {
        if self.uses.is_empty() {
            self.oldest = segment;
        }
        // A checkpoint names segments that a replay does not read.
        while segment < self.oldest {
            self.uses.push_front(SegmentUse::default());
            self.oldest = self.oldest.before();
        }
        let index = (segment.get() - self.oldest.get()) as usize;
        while self.uses.len() <= index {
            self.uses.push_back(SegmentUse::default());
        }
        &mut self.uses[index]
    }

    fn trim(&mut self) {
        while self.uses.front() == Some(&SegmentUse::default()) {
            self.uses.pop_front();
            self.oldest = self.oldest.next();
        }
    }
}
