//! Watch: what the slots say, and for how long each has said the same.
//!
//! A failed or slow read proves nothing. Silent is who had the same heartbeat in two reads that
//! succeeded, the first of which *ended* long enough before the second *began*, by one's own clock.

use super::lane::Lane;
use super::{Action, Ticket};
use crate::format::{Incarnation, Next, SECTOR_SIZE, Slot, SlotId, SlotRead, SlotState};
use crate::storage::IoFailure;
use crate::{Epoch, JournalId};

/// One slot as seen.
#[derive(Debug)]
struct Seen {
    content: SlotRead,
    /// Of the last content; `None` before the first and for a place that is empty.
    key: Option<Key>,
    /// End of the first read that had this key.
    since_us: u64,
    /// Begin of the last one.
    last_us: u64,
    /// What it says whatever its heartbeat: epoch, state and who is next; and since when.
    said: Option<(Epoch, SlotState, Next)>,
    said_since_us: u64,
    /// Since when its heartbeat was seen to move, without a silence in between.
    moving_since_us: Option<u64>,
}

/// What changes when a node writes its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Sound(Incarnation, u64),
    /// Damaged in both copies: a live node would write it anew.
    Unsound,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Watch {
    journal: JournalId,
    takeover_us: u64,
    seen: Vec<Seen>,
    pub(super) lane: Lane,
    /// A pass that goes on with the second copy: when it began and what the first one said.
    half: Option<(u64, Vec<SlotRead>)>,
    copy: usize,
    /// When the last whole pass began.
    pass_us: Option<u64>,
    pub(super) due_us: u64,
}

impl Watch {
    pub(super) fn new(journal: JournalId, slot_count: u16, takeover_us: u64, now_us: u64) -> Self {
        let unseen = || Seen {
            content: SlotRead::Unreadable,
            key: None,
            said: None,
            said_since_us: now_us,
            since_us: now_us,
            last_us: now_us,
            moving_since_us: None,
        };
        Self {
            journal,
            takeover_us,
            seen: (0..slot_count).map(|_| unseen()).collect(),
            lane: Lane::default(),
            half: None,
            copy: 0,
            pass_us: None,
            due_us: now_us,
        }
    }

    /// Whether a read is due.
    pub(super) const fn is_due(&self, now_us: u64) -> bool {
        self.lane.is_free() && (self.half.is_some() || now_us >= self.due_us)
    }

    /// The read that is due.
    pub(super) fn read(&mut self, ticket: Ticket, now_us: u64) -> Action {
        self.lane.begin(ticket, now_us);
        let copy = self.copy;
        Action::ReadSlots { ticket, copy }
    }

    /// Takes what was read from `began_us` on. True if a pass is whole with it.
    pub(super) fn handle_bytes(
        &mut self,
        bytes: Result<&[u8], IoFailure>,
        began_us: u64,
        now_us: u64,
    ) -> bool {
        let Ok(bytes) = bytes else {
            (self.half, self.copy) = (None, 0);
            return false;
        };
        let sectors = bytes.chunks(SECTOR_SIZE);
        let slots = (0..self.seen.len() as u16).zip(sectors);
        let read = slots.map(|(slot, bytes)| SlotRead::new(bytes, self.journal, SlotId(slot)));
        let mut read: Vec<SlotRead> = read.collect();
        assert_eq!(read.len(), self.seen.len(), "all slots were asked for");
        let began_us = match self.half.take() {
            None if read.contains(&SlotRead::Unreadable) => {
                (self.half, self.copy) = (Some((began_us, read)), 1);
                return false;
            }
            None => began_us,
            Some((first_us, first)) => {
                for (second, first) in read.iter_mut().zip(first) {
                    if first != SlotRead::Unreadable {
                        *second = first;
                    }
                }
                first_us
            }
        };
        self.copy = 0;
        self.pass_us = Some(began_us);
        for (seen, content) in self.seen.iter_mut().zip(read) {
            seen.take(content, began_us, now_us, self.takeover_us);
        }
        true
    }

    /// When the last whole pass began; `None` before the first.
    pub(super) const fn pass_us(&self) -> Option<u64> {
        self.pass_us
    }

    /// Sound slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.seen.iter().filter_map(|seen| seen.content.sound())
    }

    /// What a slot holds.
    pub(super) fn content(&self, slot: SlotId) -> &SlotRead {
        &self.seen[usize::from(slot.0)].content
    }

    /// The first slot of this kind.
    pub(super) fn first(&self, kind: &SlotRead) -> Option<SlotId> {
        let at = self.seen.iter().position(|seen| seen.content == *kind)?;
        Some(SlotId(at as u16))
    }

    /// Whether any slot but this one is unreadable, and was not for long enough.
    pub(super) fn is_any_unreadable(&self, but: SlotId) -> bool {
        let mut others = self.seen.iter().enumerate();
        others.any(|(at, seen)| {
            let is_unreadable = seen.content == SlotRead::Unreadable;
            at != usize::from(but.0) && is_unreadable && !seen.is_silent(self.takeover_us)
        })
    }

    /// Whether its node gave no sign of life for long enough.
    pub(super) fn is_silent(&self, slot: SlotId) -> bool {
        self.seen[usize::from(slot.0)].is_silent(self.takeover_us)
    }

    /// Since when a node was seen to be alive; `None` for one that was not, or fell silent.
    pub(super) fn moving_since_us(&self, slot: SlotId) -> Option<u64> {
        let seen = &self.seen[usize::from(slot.0)];
        seen.moving_since_us.filter(|_| !self.is_silent(slot))
    }

    /// Since when a slot has the epoch, state and next node that it has.
    pub(super) fn said_since_us(&self, slot: SlotId) -> u64 {
        self.seen[usize::from(slot.0)].said_since_us
    }

    /// The slot of who served last: held or released, with the highest epoch.
    pub(super) fn top(&self) -> Option<&Slot> {
        let served = |slot: &&Slot| matches!(slot.state, SlotState::Held | SlotState::Released);
        self.slots().filter(served).max_by_key(|slot| slot.epoch)
    }
}

impl Seen {
    fn take(&mut self, content: SlotRead, began_us: u64, now_us: u64, takeover_us: u64) {
        let key = match &content {
            SlotRead::Sound(slot) => Some(Key::Sound(slot.incarnation, slot.heartbeat)),
            SlotRead::Unreadable => Some(Key::Unsound),
            SlotRead::Empty => None,
        };
        if self.key == key {
            self.last_us = began_us;
        } else {
            let was = self.key.filter(|_| !self.is_silent(takeover_us));
            self.moving_since_us = match (was, key) {
                (Some(Key::Sound(was, _)), Some(Key::Sound(now, _))) if was == now => {
                    Some(self.moving_since_us.unwrap_or(now_us))
                }
                _ => None,
            };
            (self.key, self.since_us, self.last_us) = (key, now_us, now_us);
        }
        let said = content
            .sound()
            .map(|slot| (slot.epoch, slot.state, slot.next));
        if said.is_some() && said != self.said {
            (self.said, self.said_since_us) = (said, now_us);
        }
        self.content = content;
    }

    fn is_silent(&self, takeover_us: u64) -> bool {
        self.key.is_some() && self.last_us.saturating_sub(self.since_us) >= takeover_us
    }
}
