//! Ids of messages that an address has seen, so that a message sent again is taken once.
//!
//! Part of the facts: an id is in the record of its message, and repeated in a record of its own
//! before the segment of that is freed. How many an address remembers is policy; the oldest
//! messages' ids are forgotten first. Decisions ask; no fact depends on what is remembered.

use std::collections::BTreeMap;

use forebay_journal::format::Routing;
use forebay_journal::{MessageId, SegmentId};
use rustc_hash::FxHashMap;

use super::destination::Destination;
use super::segments::SegmentRing;

/// What one address has seen.
#[derive(Debug, Default)]
pub(super) struct Window {
    by_id: FxHashMap<Box<[u8]>, u64>,
    /// By message: its id, and the segment of the record that says so; none if no record does.
    by_message: BTreeMap<u64, (Box<[u8]>, Option<SegmentId>)>,
}

/// One id in a record.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    pub(super) message: MessageId,
    pub(super) id: &'a [u8],
    pub(super) segment: Option<SegmentId>,
}

impl Window {
    pub(super) fn knows(&self, id: &[u8]) -> bool {
        self.by_id.contains_key(id)
    }

    /// Remembers an id, or that it is said in another record now; forgets the oldest beyond `max`.
    fn note(&mut self, seen: &Seen<'_>, max: usize, segments: &mut SegmentRing) {
        if let Some(segment) = seen.segment {
            segments.define(segment);
        }
        let former = self.by_message.get_mut(&seen.message.0);
        if let Some((_, segment)) = former {
            let former = core::mem::replace(segment, seen.segment);
            former.into_iter().for_each(|one| segments.undefine(one));
            return;
        }
        let value = (seen.id.into(), seen.segment);
        self.by_message.insert(seen.message.0, value);
        // Of two messages with an id, which only transactions open at once bring about, the first
        // counts.
        self.by_id.entry(seen.id.into()).or_insert(seen.message.0);
        while self.by_message.len() > max
            && let Some((message, (id, segment))) = self.by_message.pop_first()
        {
            self.unlist(message, &id);
            segment.into_iter().for_each(|one| segments.undefine(one));
        }
    }

    fn unlist(&mut self, message: u64, id: &[u8]) {
        if self.by_id.get(id) == Some(&message) {
            self.by_id.remove(id);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seen<'_>> + '_ {
        self.by_message.iter().map(|(message, (id, segment))| Seen {
            message: MessageId(*message),
            id,
            segment: *segment,
        })
    }

    pub(super) fn clear(&mut self, segments: &mut SegmentRing) {
        for (_, segment) in core::mem::take(&mut self.by_message).into_values() {
            segment.into_iter().for_each(|one| segments.undefine(one));
        }
        self.by_id.clear();
    }
}

/// Ids of addresses that a replay does not know yet: their queue's definition, repeated further
/// on, is still to come.
#[derive(Debug, Default)]
pub(super) struct Unplaced {
    by_queue: FxHashMap<u64, Window>,
    by_address: FxHashMap<(Routing, Box<[u8]>), Window>,
}

impl Unplaced {
    pub(super) fn note_of_queue(&mut self, queue: u64, seen: &Seen<'_>, ring: &mut SegmentRing) {
        let window = self.by_queue.entry(queue).or_default();
        window.note(seen, usize::MAX, ring);
    }

    pub(super) fn note_of_address(
        &mut self,
        (routing, address): (Routing, &[u8]),
        seen: &Seen<'_>,
        ring: &mut SegmentRing,
    ) {
        let key = (routing, address.into());
        let window = self.by_address.entry(key).or_default();
        window.note(seen, usize::MAX, ring);
    }

    /// The queue is defined at this destination: its ids belong there.
    pub(super) fn place(
        &mut self,
        queue: u64,
        destination: &mut Destination,
        segments: &mut SegmentRing,
    ) {
        if self.by_queue.is_empty() && self.by_address.is_empty() {
            return;
        }
        let key = (destination.routing, destination.address.clone());
        let windows = [self.by_queue.remove(&queue), self.by_address.remove(&key)];
        for mut window in windows.into_iter().flatten() {
            for seen in window.iter() {
                destination.note_id(&seen, segments);
            }
            window.clear(segments);
        }
    }

    /// Nothing more comes: what is left belongs to addresses that are gone.
    pub(super) fn clear(&mut self, segments: &mut SegmentRing) {
        let by_queue = core::mem::take(&mut self.by_queue).into_values();
        let by_address = core::mem::take(&mut self.by_address).into_values();
        for mut window in by_queue.chain(by_address) {
            window.clear(segments);
        }
    }
}

/// What a forwarded message needs remembered, whatever clients' ids may have.
const REMEMBERED_MIN: usize = 1024;

impl Destination {
    /// Whether the address has seen a message with this id.
    pub(super) fn knows_id(&self, id: &[u8]) -> bool {
        let seen = self.seen.as_ref();
        seen.is_some_and(|window| window.knows(id))
    }

    pub(super) fn note_id(&mut self, seen: &Seen<'_>, segments: &mut SegmentRing) {
        let max = (self.policy.duplicate_ids_max as usize).max(REMEMBERED_MIN);
        let window = self.seen.get_or_insert_default();
        window.note(seen, max, segments);
    }

    /// Every id remembered.
    pub(super) fn ids(&self) -> impl Iterator<Item = Seen<'_>> + '_ {
        self.seen.iter().flat_map(|window| window.iter())
    }
}
