//! Segments: keeps some prepared ahead, and frees those whose messages are all gone.

use forebay_journal::format::{Record, SegmentHead};
use forebay_journal::{Budget, Retained, SegmentId};

use super::{CONTROL_ROOM, Host, Parked};
use crate::queue::{Fact, Place};

/// Whether any segment that nothing needs can be freed, or only the first ones: a start reads all
/// that follows.
pub(super) const CAN_FREE_ANY: bool = false;

/// What is known of a shard's segments at start.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Segments {
    /// Oldest that is needed.
    pub(in crate::shard) oldest: SegmentId,
    /// Next number to prepare.
    pub(in crate::shard) next: SegmentId,
}

#[derive(Debug)]
pub(super) struct Space {
    /// Oldest segment that is needed, as journaled.
    oldest: SegmentId,
    next: SegmentId,
    ready_target: usize,
    /// Segments asked for and not yet there.
    requested: usize,
    /// What was freed durably and housekeeping was not told yet.
    freed: Option<SegmentId>,
    /// Whether a record about freed segments is on its way to the disk.
    is_freeing: bool,
    is_disk_full: bool,
}

impl Space {
    pub(super) fn new(segments: Segments, ready_target: usize) -> Self {
        Self {
            oldest: segments.oldest,
            next: segments.next,
            ready_target,
            requested: 0,
            freed: None,
            is_freeing: false,
            is_disk_full: false,
        }
    }

    /// Segments that are needed or prepared.
    pub(super) fn segment_count(&self) -> u64 {
        self.next.get().saturating_sub(self.oldest.get())
    }

    pub(super) fn freed(&mut self, oldest: SegmentId) {
        self.freed = Some(oldest);
        self.is_freeing = false;
    }
}

impl Host {
    /// The next segment to ask housekeeping for.
    pub(in crate::shard) fn poll_prepare(&mut self) -> Option<SegmentId> {
        let space = &mut self.space;
        let is_enough = self.writer.segments_ready() + space.requested >= space.ready_target;
        if is_enough || self.failure.is_some() {
            return None;
        }
        space.requested += 1;
        let segment = space.next;
        space.next = segment.next();
        Some(segment)
    }

    /// Segments below this one are free; housekeeping is to be told.
    pub(in crate::shard) fn poll_free(&mut self) -> Option<SegmentId> {
        self.space.freed.take()
    }

    /// A segment is ready.
    pub(in crate::shard) fn add_segment(&mut self, head: SegmentHead) {
        self.space.requested -= 1;
        self.space.is_disk_full = false;
        self.writer.add_segment(head);
    }

    /// There is no space for the next segment.
    pub(in crate::shard) fn note_disk_full(&mut self) {
        self.space.is_disk_full = true;
    }

    /// Whether the last try to prepare a segment found no space.
    pub(in crate::shard) fn is_disk_full(&self) -> bool {
        self.space.is_disk_full
    }

    /// Whether producers wait for a segment.
    pub(in crate::shard) fn is_waiting_for_segment(&self) -> bool {
        let answer = self.writer.check(super::MESSAGE_ROOM, Budget::Message);
        answer == Err(forebay_journal::AppendError::NoSegment)
    }

    /// The segments before this one are free on the disk as well.
    pub(super) fn note_freed(&mut self, oldest: SegmentId) {
        self.space.freed(oldest);
        self.follow_moved(oldest);
        self.cold.forget_before(oldest);
        // Who waited for a block there asks again.
        for id in std::mem::take(&mut self.waiting_for_disk) {
            self.wake_link(id);
        }
        self.has_more_to_examine |= self.machine.examining_count() > 0;
    }

    /// Frees the oldest segments when nothing in them is needed: first what else lies there is
    /// written anew, then the intent is journaled; housekeeping hears of it when that is durable.
    pub(super) fn reclaim(&mut self) {
        let message_floor = self.machine.message_floor();
        let queue_floor = self.machine.queue_floor();
        let oldest_segment = self.space.oldest;
        self.writer.set_retained(Retained {
            oldest_segment,
            message_floor,
            queue_floor,
        });
        let Some((current, _)) = self.writer.segment_used() else {
            return;
        };
        let live = self
            .machine
            .oldest_live_segment()
            .unwrap_or(current.segment);
        let needed = live.min(current.segment);
        let is_due = needed > self.space.oldest || self.machine.needs_floor();
        if !is_due || self.space.is_freeing {
            return;
        }
        if self.writer.check(CONTROL_ROOM, Budget::Control).is_err() {
            return;
        }
        let needed = needed.max(self.space.oldest);
        let is_more = self
            .machine
            .decide_redefine(needed.before(), &mut self.decision);
        if self.commit_decision().is_err() || is_more {
            return;
        }
        let record = Record::Retained {
            oldest_segment: needed,
            message_floor,
            queue_floor,
        };
        if let Ok(lsn) = self.commit(&Fact::from(record), Place::NONE) {
            self.space.oldest = needed;
            self.space.is_freeing = true;
            let oldest_segment = needed;
            self.writer.set_retained(Retained {
                oldest_segment,
                message_floor,
                queue_floor,
            });
            self.gate.park(lsn, Parked::Freed { oldest: needed });
        }
    }
}
