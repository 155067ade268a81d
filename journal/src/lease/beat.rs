//! Beat: what this node says of itself, written into both copies of its slot, one behind the other.

use super::lane::Lane;
use super::{Action, Ticket};
use crate::format::{SECTOR_SIZE, Slot, SlotId, SlotState};

/// A slot that was written into both copies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beaten {
    /// When the first write was asked for.
    pub(super) began_us: u64,
    /// What it said.
    pub(super) state: SlotState,
}

#[derive(Debug)]
struct Writing {
    bytes: Box<[u8; SECTOR_SIZE]>,
    slot: SlotId,
    copy: usize,
    beaten: Beaten,
}

/// Writes of the own slot.
#[derive(Debug)]
pub(super) struct Beat {
    pub(super) lane: Lane,
    writing: Option<Writing>,
    due_us: u64,
    /// There is something new to say.
    is_news: bool,
}

impl Beat {
    pub(super) fn new() -> Self {
        Self {
            lane: Lane::default(),
            writing: None,
            due_us: u64::MAX,
            is_news: false,
        }
    }

    /// Something changed: say it as soon as the write under way is over.
    pub(super) const fn tell(&mut self) {
        self.is_news = true;
    }

    pub(super) const fn is_due(&self, now_us: u64) -> bool {
        let is_next = self.writing.is_some() || self.is_news || now_us >= self.due_us;
        self.lane.is_free() && is_next
    }

    /// When the next one is due, if none is under way and there was a first.
    pub(super) fn due_us(&self) -> Option<u64> {
        let due_us = self.lane.is_free().then_some(self.due_us);
        due_us.filter(|&due_us| due_us != u64::MAX)
    }

    /// Whether `slot` is wanted: a new beat begins.
    pub(super) const fn is_new(&self) -> bool {
        self.writing.is_none()
    }

    /// Begins with what the slot says; the next beat is due `period_us` later.
    pub(super) fn begin(&mut self, slot: &Slot, period_us: u64, now_us: u64) {
        (self.is_news, self.due_us) = (false, now_us + period_us);
        self.writing = Some(Writing {
            bytes: Box::new(slot.encode()),
            slot: slot.slot,
            copy: 0,
            beaten: Beaten {
                began_us: now_us,
                state: slot.state,
            },
        });
    }

    /// The write that is due.
    ///
    /// Panics: if no beat was begun.
    pub(super) fn write(&mut self, ticket: Ticket, now_us: u64) -> Action {
        self.lane.begin(ticket, now_us);
        let writing = self.writing.as_ref().expect("a beat was begun");
        Action::WriteSlot {
            ticket,
            slot: writing.slot,
            copy: writing.copy,
            bytes: writing.bytes.clone(),
        }
    }

    /// A copy is written. Gives the beat when both are.
    pub(super) fn handle_written(&mut self) -> Option<Beaten> {
        let writing = self.writing.as_mut().expect("a write was under way");
        if writing.copy == 0 {
            writing.copy = 1;
            return None;
        }
        self.writing.take().map(|writing| writing.beaten)
    }
}
