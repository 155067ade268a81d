//! Segments: keeps some prepared ahead, writes checkpoints, and frees those that hold nothing.
//!
//! A replay begins at the oldest segment with a message that is alive, or, when that is far behind,
//! at the last checkpoint. Of the segments before, each one is free that holds no message.

use forebay_journal::format::{Record, SegmentHead};
use forebay_journal::{Budget, FreedSegments, Retained, SegmentId};

use super::{CONTROL_ROOM, DiskFull, Host, Parked};
use crate::queue::{Fact, Place};

/// A checkpoint is due when a replay has to read so many times what the last one took.
const REPLAY_PER_CHECKPOINT: u64 = 4;
/// And so many segments at least: below that a start takes no longer than it does anyway.
const REPLAY_SEGMENTS_MIN: u64 = 4;
/// What a message takes of a checkpoint at least, in bytes.
const SAID_BYTES_MIN: u64 = 24;
/// Slices written in one turn.
const SLICES_PER_TURN_MAX: usize = 8;
/// Part of a segment that a checkpoint may take of what is kept for the end of messages.
const RESERVE_PART: u64 = 4;

/// What is known of a shard's segments at start.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Segments {
    /// Where a replay begins.
    pub(in crate::shard) oldest: SegmentId,
    /// All that hold something, sorted.
    pub(in crate::shard) held: Vec<SegmentId>,
    /// Next number to prepare.
    pub(in crate::shard) next: SegmentId,
}

#[derive(Debug)]
pub(super) struct Space {
    /// Where a replay begins, as journaled.
    oldest: SegmentId,
    /// Those that housekeeping has files of, sorted.
    held: Vec<SegmentId>,
    next: SegmentId,
    ready_target: usize,
    /// Segments asked for and not yet there.
    requested: usize,
    /// Free once the record about them is durable.
    freeing: Vec<SegmentId>,
    /// What was freed durably and housekeeping was not told yet.
    freed: Vec<SegmentId>,
    /// Whether a record about freed segments is on its way to the disk.
    is_freeing: bool,
    is_disk_full: bool,
    policy: DiskFull,
    /// The last segment in which a checkpoint was to begin, if one was due.
    asked_at: SegmentId,
    /// Where the last checkpoint began.
    checkpoint_at: SegmentId,
    /// Bytes of its records.
    checkpoint_bytes: u64,
    /// Whether a segment may have lost its last message since the empty ones were freed.
    has_emptied: bool,
    /// Whether the one under way can go on in the next turn.
    has_more_to_say: bool,
}

impl Space {
    pub(super) fn new(segments: Segments, ready_target: usize, policy: DiskFull) -> Self {
        Self {
            oldest: segments.oldest,
            held: segments.held,
            next: segments.next,
            ready_target,
            requested: 0,
            freeing: Vec::new(),
            freed: Vec::new(),
            is_freeing: false,
            is_disk_full: false,
            policy,
            asked_at: SegmentId::ZERO,
            checkpoint_at: segments.oldest,
            checkpoint_bytes: 0,
            has_emptied: true,
            has_more_to_say: false,
        }
    }

    /// Segments that are needed or prepared, or on their way to be freed.
    pub(super) fn segment_count(&self) -> u64 {
        let counts = [&self.held, &self.freeing, &self.freed].map(|list| list.len() as u64);
        counts.iter().sum::<u64>() + self.requested as u64
    }

    /// Segments that were asked for and are not there.
    pub(super) const fn requested_count(&self) -> u64 {
        self.requested as u64
    }

    /// Whether the disk is full, and messages are to be refused then.
    pub(super) fn refuses_when_full(&self) -> bool {
        self.is_disk_full && self.policy == DiskFull::Fail
    }

    pub(super) const fn has_more_to_say(&self) -> bool {
        self.has_more_to_say
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

    /// The next segments that are free; housekeeping is to be told.
    pub(in crate::shard) fn poll_free(&mut self) -> Option<FreedSegments> {
        FreedSegments::take_from(&mut self.space.freed)
    }

    /// Housekeeping could not be told for now.
    pub(in crate::shard) fn give_back_free(&mut self, segments: &FreedSegments) {
        self.space.freed.extend_from_slice(segments.as_slice());
    }

    /// A segment is ready.
    pub(in crate::shard) fn add_segment(&mut self, head: SegmentHead) {
        self.space.requested -= 1;
        self.space.is_disk_full = false;
        self.space.held.push(head.segment);
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

    /// The oldest segment that is needed, as journaled.
    pub(super) fn oldest_segment(&self) -> SegmentId {
        self.space.oldest
    }

    /// Whether producers wait for a segment.
    pub(in crate::shard) fn is_waiting_for_segment(&self) -> bool {
        let answer = self.writer.check(super::MESSAGE_ROOM, Budget::Message);
        answer == Err(forebay_journal::AppendError::NoSegment)
    }

    /// The record about freed segments is durable: nobody may look there any more.
    pub(super) fn note_freed(&mut self) {
        let mut gone = std::mem::take(&mut self.space.freeing);
        self.space.is_freeing = false;
        self.follow_moved(&gone);
        self.cold.forget(&gone);
        self.space.freed.append(&mut gone);
        self.space.freeing = gone;
        // Who waited for a block there asks again.
        for id in std::mem::take(&mut self.waiting_for_disk) {
            self.wake_link(id);
        }
        self.has_more_to_examine |= self.machine.examining_count() > 0;
    }

    /// Lets a replay begin later, and frees segments: first what a replay would miss is written
    /// anew, then the intent is journaled; housekeeping hears of it when that is durable.
    pub(super) fn reclaim(&mut self) {
        self.writer.set_retained(self.retained(self.space.oldest));
        self.space.has_more_to_say = false;
        let Some((current, _)) = self.writer.segment_used() else {
            return;
        };
        if self.writer.check(CONTROL_ROOM, Budget::Control).is_err() {
            return;
        }
        let said = self.checkpoint(&current);
        let start = self.machine.replay_start(current.segment);
        let later = said.into_iter().chain(start);
        let oldest = later.fold(self.space.oldest, Ord::max);
        self.space.has_emptied |= self.machine.take_emptied();
        let is_later = oldest > self.space.oldest;
        let is_due = is_later || said.is_some() || self.space.has_emptied;
        let is_due = is_due || self.machine.needs_floor();
        if !is_due || self.space.is_freeing {
            return;
        }
        if is_later {
            let is_more = self
                .machine
                .decide_redefine(oldest.before(), &mut self.decision);
            if self.commit_decision().is_err() || is_more {
                return;
            }
        }
        self.begin_replay_at(oldest);
        if said.is_some() && self.space.oldest == oldest {
            self.space.checkpoint_bytes = self.machine.end_checkpoint();
            self.space.checkpoint_at = self.space.asked_at;
        }
    }

    fn retained(&self, oldest_segment: SegmentId) -> Retained {
        Retained {
            oldest_segment,
            message_floor: self.machine.message_floor(),
            queue_floor: self.machine.queue_floor(),
        }
    }

    /// Journals where a replay begins from now on, and that what is empty before is free.
    fn begin_replay_at(&mut self, oldest: SegmentId) {
        let machine = &self.machine;
        let is_empty = |segment: &SegmentId| {
            *segment < oldest && machine.segment_use(*segment).references == 0
        };
        let space = &mut self.space;
        let held = space.held.iter().copied();
        space.freeing.clear();
        space.freeing.extend(held.filter(is_empty));
        let is_told = oldest == space.oldest && !self.machine.needs_floor();
        if is_told && space.freeing.is_empty() {
            self.space.has_emptied = false;
            return;
        }
        let retained = self.retained(oldest);
        let record = Record::Retained {
            oldest_segment: retained.oldest_segment,
            message_floor: retained.message_floor,
            queue_floor: retained.queue_floor,
        };
        let Ok(lsn) = self.commit(&Fact::from(record), Place::NONE) else {
            self.space.freeing.clear();
            return;
        };
        let space = &mut self.space;
        let freeing = &space.freeing;
        space
            .held
            .retain(|segment| freeing.binary_search(segment).is_err());
        self.space.oldest = oldest;
        self.space.has_emptied = false;
        self.space.is_freeing = true;
        self.writer.set_retained(retained);
        self.gate.park(lsn, Parked::Freed);
    }

    /// Begins a checkpoint when one is due, and goes on with the one under way. Returns where a
    /// replay may begin, once all is said.
    fn checkpoint(&mut self, current: &SegmentHead) -> Option<SegmentId> {
        let Some(start) = self.machine.checkpoint_start() else {
            let space = &mut self.space;
            let since = current.segment.get() - space.oldest.max(space.checkpoint_at).get();
            let to_replay = since.saturating_mul(current.size);
            let is_due = since >= REPLAY_SEGMENTS_MIN
                && to_replay >= REPLAY_PER_CHECKPOINT * space.checkpoint_bytes;
            let live = self.machine.oldest_live_segment();
            let is_needed = live.is_some_and(|live| live < current.segment);
            if is_due && is_needed && space.asked_at != current.segment {
                space.asked_at = current.segment;
                space.has_more_to_say = self.machine.begin_checkpoint(current.segment);
            }
            return None;
        };
        self.say_more(current).then_some(start)
    }

    /// Writes the next slices of a checkpoint if there is room; whether all is said.
    fn say_more(&mut self, current: &SegmentHead) -> bool {
        // What ends messages comes first where space is short.
        let least = self.machine.held().messages * SAID_BYTES_MIN;
        let budget = if least <= current.size / RESERVE_PART {
            Budget::Control
        } else {
            Budget::Message
        };
        let mut is_more = true;
        for _ in 0..SLICES_PER_TURN_MAX {
            if !is_more || self.writer.check(CONTROL_ROOM, budget).is_err() {
                return !is_more;
            }
            is_more = self.machine.decide_checkpoint(&mut self.decision);
            if self.commit_decision().is_err() {
                // Half a slice is none: it begins anew.
                self.machine.end_checkpoint();
                return false;
            }
        }
        self.space.has_more_to_say = is_more;
        !is_more
    }
}

#[cfg(test)]
pub(super) mod tests;
