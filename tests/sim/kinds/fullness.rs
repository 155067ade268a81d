//! Full addresses: no more is confirmed than fits, nothing is refused while there is room, and who
//! waits for room gets it (or the run would not end).

use forebay::queue::{Full, PolicySettings};

use crate::kinds::{Kind, Kinds, ShelfId};
use crate::options::Mutant;

/// Each connection that sends may exceed the limit by one.
const SENDERS: u64 = 2;

/// Most messages of the address. With one alone, room comes only when nothing else happens there:
/// who is to be woken by that is woken by nothing else.
const fn limit(kind: Kind) -> u64 {
    match kind {
        Kind::Blocking => 1,
        _ => 5,
    }
}

pub(super) fn settings(kind: Kind, mutant: Mutant) -> PolicySettings {
    let wider = match mutant {
        Mutant::WideLimit => 10,
        _ => 0,
    };
    let policy = match kind {
        Kind::Blocking => Full::Block,
        _ => Full::Fail,
    };
    PolicySettings {
        attempts_max: Some(u32::MAX),
        messages_max: Some(Some(limit(kind) + wider)),
        full_policy: Some(policy),
        ..PolicySettings::default()
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
        let there = there.filter(|one| !shelf.is_past(one, shelf.ledger.life));
        let (count, limit) = (there.count() as u64, limit(shelf.kind));
        assert!(count <= limit + SENDERS, "{count} confirmed, {limit} fit");
        self.tried.at_the_limit += u64::from(count >= limit);
    }

    /// A message is refused: there may be as many as fit.
    pub(super) fn check_refused(&mut self, at: ShelfId) {
        let shelf = &self.shelves[at];
        let ledger = &shelf.ledger;
        let there = ledger.messages.iter().filter(|(uid, message)| {
            !ledger.is_settled(**uid) && !shelf.is_past(message, ledger.life)
        });
        let count = there.count() as u64;
        let limit = limit(shelf.kind);
        assert!(count > limit, "refused though there are {count} at most");
        self.tried.refused += 1;
    }
}
