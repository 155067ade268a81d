//! Full addresses: no more is confirmed than fits, nothing is refused while there is room, and who
//! waits for room gets it (or the run would not end).

use crate::kinds::{Kind, Kinds, ShelfId};
use crate::options::Mutant;

const LIMIT: u64 = 5;
/// Each connection that sends may exceed the limit by one.
const SENDERS: u64 = 2;

pub(super) fn limit(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::WideLimit => 4 * LIMIT,
        _ => LIMIT,
    }
}

impl Kinds {
    /// A message of the queue was confirmed.
    pub(super) fn check_fullness(&mut self, at: ShelfId) {
        let shelf = &self.shelves[at];
        if ![Kind::Blocking, Kind::Failing].contains(&shelf.kind) {
            return;
        }
        let messages = shelf.ledger.messages.values();
        let there = messages.filter(|one| one.is_confirmed && !one.is_maybe_settled);
        let count = there.count() as u64;
        assert!(count <= LIMIT + SENDERS, "{count} confirmed, {LIMIT} fit");
        self.tried.at_the_limit += u64::from(count >= LIMIT);
    }

    /// A message is refused: there may be as many as fit.
    pub(super) fn check_refused(&mut self, at: ShelfId) {
        let ledger = &self.shelves[at].ledger;
        let names = ledger.messages.keys();
        let count = names.filter(|uid| !ledger.is_settled(**uid)).count() as u64;
        assert!(count > LIMIT, "refused though there are {count} at most");
        self.tried.refused += 1;
    }
}
