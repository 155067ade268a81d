//! The ready messages of one priority in a queue, strictly sorted by message id.

use std::collections::VecDeque;

use forebay_journal::format::PRIORITY_DEFAULT;

use super::entry::Entry;

/// Messages at the front of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) priority: u8,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Whether any of them is in the journal.
    pub(super) has_durable: bool,
}

/// Capacity that an emptied list keeps: beyond it a former backlog gives its memory back.
const KEPT_CAPACITY_MAX: usize = 16 * 1024;
/// The same for priorities that few messages have.
const KEPT_CAPACITY_RARE_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Level {
    entries: VecDeque<Entry>,
}

impl Level {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> + Clone + '_ {
        self.entries.iter()
    }

    /// Adds one message: at the back, unless a transaction held it while later ones arrived.
    pub(super) fn insert(&mut self, entry: Entry) {
        match self.entries.back() {
            Some(last) if last.message >= entry.message => self.merge(&[entry]),
            _ => self.entries.push_back(entry),
        }
    }

    /// Puts messages back to their places.
    ///
    /// Shape: `returned` is sorted by message id and none of it is in the list.
    /// Cost: O(k + d), d = the messages between the nearer end of the list and the far end of
    /// what is returned: returned messages come from the front, so d is small.
    pub(super) fn merge(&mut self, returned: &[Entry]) {
        let (Some(first), Some(last)) = (returned.first(), returned.last()) else {
            return;
        };
        let before_last = self.entries.partition_point(|e| e.message < last.message);
        let after_first = self.len() - self.entries.partition_point(|e| e.message < first.message);
        if before_last <= after_first {
            self.merge_at_front(returned);
        } else {
            self.merge_at_back(returned);
        }
    }

    fn merge_at_front(&mut self, returned: &[Entry]) {
        let first = self.entries.front().map(|entry| entry.message);
        for entry in returned.iter().rev() {
            self.entries.push_front(*entry);
        }
        if first > returned.last().map(|entry| entry.message) {
            // As of a checkpoint: all of it comes first.
            return;
        }
        let (mut read, mut write) = (returned.len(), 0);
        for entry in returned {
            while self
                .entries
                .get(read)
                .is_some_and(|e| e.message <= entry.message)
            {
                assert_ne!(self.entries[read].message, entry.message, "came twice");
                self.entries[write] = self.entries[read];
                (read, write) = (read + 1, write + 1);
            }
            self.entries[write] = *entry;
            write += 1;
        }
    }

    fn merge_at_back(&mut self, returned: &[Entry]) {
        let mut read = self.len();
        self.entries.extend(returned);
        let mut write = self.len();
        for entry in returned.iter().rev() {
            while read > 0 && self.entries[read - 1].message >= entry.message {
                assert_ne!(self.entries[read - 1].message, entry.message, "came twice");
                (read, write) = (read - 1, write - 1);
                self.entries[write] = self.entries[read];
            }
            write -= 1;
            self.entries[write] = *entry;
        }
    }

    /// Appends the messages `first..=last` to `out`.
    pub(super) fn take(&mut self, priority: u8, first: u64, last: u64, out: &mut Vec<Entry>) {
        // Nearly always from the front: no search through a backlog that no cache holds.
        let is_from_front = self.entries.front().is_none_or(|e| e.message >= first);
        let start = if is_from_front {
            0
        } else {
            self.entries.partition_point(|e| e.message < first)
        };
        if start > 0 {
            let end = self.entries.partition_point(|e| e.message <= last);
            out.extend(self.entries.drain(start..end.max(start)));
        } else {
            while let Some(entry) = self.entries.pop_front_if(|e| e.message <= last) {
                out.push(entry);
            }
        }
        self.give_back_memory(priority);
    }

    /// Removes messages at once.
    ///
    /// Shape: `gone` is sorted by message id, and all of it is in the list.
    /// Cost: O(k + d), d = the messages among what goes and those before or behind it, whichever
    /// are fewer.
    pub(super) fn remove(&mut self, priority: u8, gone: &[Entry]) {
        let Some(first) = gone.first() else { return };
        let start = self.entries.partition_point(|e| e.message < first.message);
        let (mut read, mut write) = (start, start);
        for entry in gone {
            while self.entries[read].message != entry.message {
                self.entries[write] = self.entries[read];
                (read, write) = (read + 1, write + 1);
            }
            read += 1;
        }
        self.entries.drain(write..read);
        self.give_back_memory(priority);
    }

    pub(super) fn get_mut(&mut self, message: u64) -> Option<&mut Entry> {
        let found = self.entries.binary_search_by_key(&message, |e| e.message);
        self.entries.get_mut(found.ok()?)
    }

    pub(super) fn get(&self, message: u64) -> Option<&Entry> {
        let found = self.entries.binary_search_by_key(&message, |e| e.message);
        self.entries.get(found.ok()?)
    }

    /// The messages behind the one of this name, whether it is there or not.
    pub(super) fn iter_after(&self, message: u64) -> impl Iterator<Item = &Entry> + '_ {
        let start = self.entries.partition_point(|e| e.message <= message);
        self.entries.range(start..)
    }

    /// The messages before the one of this name, whether it is there or not.
    pub(super) fn iter_before(&self, message: u64) -> impl Iterator<Item = &Entry> + Clone + '_ {
        self.entries.iter().take_while(move |e| e.message < message)
    }

    /// The messages before the one of this name, whether it is there or not, the highest first.
    pub(super) fn descending(&self, before: u64) -> impl Iterator<Item = &Entry> + '_ {
        let end = self.entries.partition_point(|e| e.message < before);
        self.entries.range(..end).rev()
    }

    /// What the `count` messages at the front are, up to its end.
    pub(super) fn front(&self, count: usize) -> Option<Front> {
        let count = count.min(self.len());
        let first = self.entries.front()?;
        let last = self.entries.get(count.checked_sub(1)?)?;
        Some(Front {
            priority: first.priority(),
            first: first.message,
            last: last.message,
            has_durable: self.entries.iter().take(count).any(Entry::is_durable),
        })
    }

    fn give_back_memory(&mut self, priority: u8) {
        let kept = if priority == PRIORITY_DEFAULT {
            KEPT_CAPACITY_MAX
        } else {
            KEPT_CAPACITY_RARE_MAX
        };
        if self.entries.is_empty() && self.entries.capacity() > kept {
            self.entries.shrink_to(kept);
        }
    }
}
