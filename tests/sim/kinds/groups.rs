//! Groups: the messages of one go to one consumer at a time, and in their order.

use crate::kinds::{Kinds, ShelfId};
use crate::ledger::{Departure, Uid};

impl Kinds {
    pub(super) fn check_group(&mut self, at: ShelfId, one: Departure) {
        let Some(group) = self.facts[&one.uid].group else {
            return;
        };
        let shelf = &mut self.shelves[at];
        if let Some(owner) = shelf.owners.insert(group, one.session)
            && owner != one.session
        {
            assert!(
                !shelf.is_live(owner),
                "{} of group {group} comes to {}, and {owner} has the group",
                one.uid,
                one.session
            );
            self.tried.groups_moved += 1;
        }
        if shelf.ledger.departures(one.uid) == 0 {
            let Uid(producer, number) = one.uid;
            let last = shelf.last_fresh.insert((group, producer), number);
            assert!(
                last < Some(number),
                "{} behind {last:?} of group {group}",
                one.uid
            );
        }
    }
}
