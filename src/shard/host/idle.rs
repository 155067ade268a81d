//! Queues that nobody uses any more: deleted where their policy says so.

use forebay_journal::Budget;

use super::{CONTROL_ROOM, Host};
use crate::now::Now;

/// How soon queues that were due but had to stay are looked at again: no room in the journal, or
/// an open transaction.
const RETRY_US: u64 = 1_000_000;

impl Host {
    /// Deletes queues that have been unused long enough, as far as records of it fit. What is left
    /// comes with a later turn.
    pub(super) fn delete_idle(&mut self, now: Now) {
        self.machine.look_at_idle(now.monotonic_us);
        let due_us = self.machine.next_idle_us();
        let is_due = due_us.is_some_and(|due_us| due_us <= now.monotonic_us);
        let has_room = self.writer.check(CONTROL_ROOM, Budget::Control).is_ok();
        if !is_due || !has_room || self.failure.is_some() {
            return;
        }
        self.machine
            .decide_delete_idle(now.monotonic_us, &mut self.decision);
        let committed = self.commit_decision();
        assert!(committed.is_ok(), "room was there: {committed:?}");
    }

    /// When the next unused queue is due, in monotonic microseconds.
    pub(in crate::shard) fn idle_us(&self, now: Now) -> Option<u64> {
        let due_us = self.machine.next_idle_us()?;
        let retry_us = now.monotonic_us + RETRY_US;
        Some(if due_us > now.monotonic_us {
            due_us
        } else {
            retry_us
        })
    }
}
