//! The delivered messages of a queue that nobody settled yet, sorted by message id.
//!
//! Part of the facts: a replay has the same list. Who holds each is an annotation that only
//! live operation writes. What leaves from the middle stays as a tombstone until it reaches the
//! front, is delivered again, or tombstones outnumber the living.

use std::collections::VecDeque;

use super::entry::Entry;

/// Who has a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// It left; the place is kept.
    Gone,
    /// Delivered in the epoch under replay to a consumer that is no more.
    Unassigned,
    /// Settled in a transaction that is still undecided, by a consumer that is no more.
    Locked,
    /// The consumer at this index, under this delivery tag.
    Consumer { index: u32, tag: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) entry: Entry,
    pub(super) holder: Holder,
}

const _: () = assert!(size_of::<Slot>() == 40);

/// Tombstones that are never worth a sweep.
const TOMBSTONES_MIN: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Delivered {
    slots: VecDeque<Slot>,
    living: usize,
}

impl Delivered {
    pub(super) fn len(&self) -> usize {
        self.living
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> + '_ {
        self.slots.iter().filter(|slot| slot.holder != Holder::Gone)
    }

    /// Those named below this one, the highest first.
    pub(super) fn descending(&self, before: u64) -> impl Iterator<Item = &Slot> + '_ {
        let end = self
            .slots
            .partition_point(|slot| slot.entry.message < before);
        let slots = self.slots.range(..end).rev();
        slots.filter(|slot| slot.holder != Holder::Gone)
    }

    /// All places kept, tombstones included.
    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Adds a message. Nearly always the newest; one delivered again finds its tombstone, or its
    /// place near the front.
    pub(super) fn insert(&mut self, entry: Entry, holder: Holder) {
        let slot = Slot { entry, holder };
        self.living += 1;
        if self
            .slots
            .back()
            .is_none_or(|last| last.entry.message < entry.message)
        {
            self.slots.push_back(slot);
            return;
        }
        match self.position(entry.message) {
            Ok(index) => {
                let former = &mut self.slots[index];
                assert_eq!(former.holder, Holder::Gone, "delivered twice at once");
                *former = slot;
            }
            Err(index) => self.slots.insert(index, slot),
        }
    }

    pub(super) fn find(&self, message: u64) -> Option<&Slot> {
        let slot = &self.slots[self.position(message).ok()?];
        (slot.holder != Holder::Gone).then_some(slot)
    }

    /// A name that none is lower than; that of the first place kept.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.entry.message)
    }

    /// The message, if it is here.
    pub(super) fn entry_mut(&mut self, message: u64) -> Option<&mut Entry> {
        let index = self.position(message).ok()?;
        let slot = &mut self.slots[index];
        (slot.holder != Holder::Gone).then_some(&mut slot.entry)
    }

    pub(super) fn remove(&mut self, message: u64) -> Option<Slot> {
        let index = self.position(message).ok()?;
        let slot = self.slots[index];
        if slot.holder == Holder::Gone {
            return None;
        }
        self.slots[index].holder = Holder::Gone;
        self.living -= 1;
        while self
            .slots
            .front()
            .is_some_and(|front| front.holder == Holder::Gone)
        {
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.living + TOMBSTONES_MIN {
            self.slots.retain(|slot| slot.holder != Holder::Gone);
        }
        Some(slot)
    }

    /// The holder of a message goes, but not the message: a transaction settles it.
    pub(super) fn lock(&mut self, message: u64) {
        if let Ok(index) = self.position(message) {
            self.slots[index].holder = Holder::Locked;
        }
    }

    /// Moves all messages to `out` in order, but for those that `is_kept` says stay, locked.
    pub(super) fn drain(&mut self, is_kept: impl Fn(u64) -> bool, out: &mut Vec<Entry>) {
        out.clear();
        self.slots.retain_mut(|slot| {
            if slot.holder == Holder::Gone {
                return false;
            }
            if is_kept(slot.entry.message) {
                slot.holder = Holder::Locked;
                return true;
            }
            out.push(slot.entry);
            false
        });
        self.living = self.slots.len();
    }

    /// Ids of one queue are often dense, so the distance from the front is tried first.
    fn position(&self, message: u64) -> Result<usize, usize> {
        if let Some(front) = self.slots.front() {
            let guess = message.wrapping_sub(front.entry.message) as usize;
            if self
                .slots
                .get(guess)
                .is_some_and(|slot| slot.entry.message == message)
            {
                return Ok(guess);
            }
        }
        self.slots
            .binary_search_by_key(&message, |slot| slot.entry.message)
    }
}
