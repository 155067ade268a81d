//! Duplicate ids: a message that is sent again is confirmed again and there once, over whatever
//! happened in between. The ledger of its queue sees a second one as one that was taken already.

use crate::kinds::{Kinds, Player};
use crate::ledger::Uid;
use crate::world::World;

/// How far back a sender repeats itself: well within what the broker remembers.
const BACK: u64 = 40;

impl Player {
    /// What is sent again now, rather what nobody confirmed.
    pub(super) fn choose_again(&self, world: &mut World) -> Option<Uid> {
        if self.sent.is_empty() || !world.chance(3) {
            return None;
        }
        let unsure = |uid: &&Uid| world.kinds.facts[*uid].confirmed_us.is_none();
        let unsure = self.sent.iter().find(unsure).copied();
        let back = world.random.below(BACK.min(self.sent.len() as u64));
        let any = self.sent[self.sent.len() - 1 - back as usize];
        match world.chance(2) {
            true => unsure.or(Some(any)),
            false => Some(any),
        }
    }
}

impl Kinds {
    /// A receipt of the message is about to count.
    pub(super) fn note_confirmed_again(&mut self, uid: Uid) {
        let facts = &self.facts[&uid];
        if facts.sends > 1 {
            self.tried.sent_again += 1;
            self.tried.confirmed_again += u64::from(facts.confirmed_us.is_some());
        }
    }
}
