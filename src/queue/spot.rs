//! Where a ready message stands in the order of delivery.

use forebay_journal::format::PRIORITY_MAX;

use super::entry::Entry;

/// Priorities there are.
pub(super) const LEVELS: usize = PRIORITY_MAX as usize + 1;

/// The place of a message: sorts as messages are delivered, the highest priority first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    /// Priorities above its own.
    behind: u8,
    pub(super) message: u64,
}

impl Spot {
    /// Before all messages.
    pub(super) const FIRST: Self = Self {
        behind: 0,
        message: 0,
    };

    pub(super) fn of(entry: &Entry) -> Self {
        Self::new(entry.priority(), entry.message)
    }

    /// Shape: priority 0 to 9.
    pub(super) fn new(priority: u8, message: u64) -> Self {
        Self {
            behind: PRIORITY_MAX - priority,
            message,
        }
    }

    pub(super) const fn priority(self) -> u8 {
        PRIORITY_MAX - self.behind
    }

    /// Its level: 0 for the highest priority.
    pub(super) const fn level(self) -> usize {
        self.behind as usize
    }
}
