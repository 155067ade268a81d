//! Messages that are one too many: dropped before anything is handed out.

use forebay_journal::Budget;

use super::{CONTROL_ROOM, Host};

/// Batches dropped in one turn; what is left goes on in the next.
const BATCHES_PER_TURN_MAX: usize = 64;

impl Host {
    /// Drops what later messages took the place of, as far as records of it fit; whether all of it.
    pub(super) fn trim(&mut self) -> bool {
        self.has_more_to_trim = false;
        for _ in 0..BATCHES_PER_TURN_MAX {
            if !self.machine.has_surplus() {
                return true;
            }
            let is_fitting = self.writer.check(CONTROL_ROOM, Budget::Control).is_ok();
            if !is_fitting || self.failure.is_some() {
                return false;
            }
            self.machine.decide_trim(&mut self.decision);
            let committed = self.commit_decision();
            assert!(committed.is_ok(), "room was there: {committed:?}");
        }
        self.has_more_to_trim = true;
        false
    }
}
