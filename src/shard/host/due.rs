//! Messages whose time has come: ready from now on.

use forebay_journal::Budget;

use super::{CONTROL_ROOM, Host};
use crate::now::Now;

/// Batches made ready in one turn; what is left goes on in the next.
const BATCHES_PER_TURN_MAX: usize = 16;
/// How soon messages that are due but found no room are looked at again.
const RETRY_MS: u64 = 20;
/// How often the wall clock is looked at: it may be set while nothing happens.
const LOOK_MS: u64 = 1000;

impl Host {
    /// Makes messages ready whose time has come, as far as records of it fit.
    pub(super) fn wake_due(&mut self, now: Now) {
        self.has_more_due = false;
        for _ in 0..BATCHES_PER_TURN_MAX {
            if !self.is_any_due(now) || self.failure.is_some() {
                return;
            }
            if self.writer.check(CONTROL_ROOM, Budget::Control).is_err() {
                return;
            }
            self.machine.decide_due(now.unix_ms, &mut self.decision);
            let committed = self.commit_decision();
            assert!(committed.is_ok(), "room was there: {committed:?}");
        }
        self.has_more_due = self.is_any_due(now);
    }

    fn is_any_due(&self, now: Now) -> bool {
        let next = self.machine.next_due_unix_ms();
        next.is_some_and(|next| next <= now.unix_ms)
    }

    /// When the next message gets ready, in monotonic microseconds.
    pub(in crate::shard) fn due_us(&self, now: Now) -> Option<u64> {
        Some(look_us(self.machine.next_due_unix_ms()?, now))
    }
}

/// When to look at what is due by the wall clock, in monotonic microseconds.
pub(super) const fn look_us(due_unix_ms: u64, now: Now) -> u64 {
    let left_ms = match due_unix_ms.saturating_sub(now.unix_ms) {
        // It waits for room in the journal.
        0 => RETRY_MS,
        LOOK_MS.. => LOOK_MS,
        left => left,
    };
    now.monotonic_us + left_ms * 1000
}
