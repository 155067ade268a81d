//! Expiry: what is over goes to the expiry address, once and not before; nobody gets it who asked
//! for it afterwards.

use forebay::queue::PolicySettings;

use crate::kinds::{Facts, Kinds, ShelfId};
use crate::ledger::Departure;
use crate::world::{World, unix_ms};

/// Where messages go whose time is over.
pub(super) const LANDING: &str = "past";

pub(super) fn settings() -> PolicySettings {
    PolicySettings {
        attempts_max: Some(u32::MAX),
        expiry_address: Some(Some(LANDING.into())),
        ..PolicySettings::default()
    }
}

impl Facts {
    pub(super) fn choose_end(&mut self, world: &mut World) {
        if !world.chance(5) {
            let most = [3, 20, 80][world.random.below(3) as usize];
            self.expires_ms = unix_ms(world.now_us) + 1 + world.random.below(most);
        }
    }
}

impl Kinds {
    pub(super) fn check_expiry(&mut self, at: ShelfId, one: Departure, now_ms: u64) {
        let (uid, expires_ms) = (one.uid, self.facts[&one.uid].expires_ms);
        let shelf = &self.shelves[at];
        if !shelf.is_landing {
            return shelf.check_in_time(uid, one.session, expires_ms);
        }
        let is_over = expires_ms > 0 && expires_ms <= now_ms;
        assert!(is_over, "{uid} is over at {now_ms}, before {expires_ms}");
        self.note_landed(at, uid);
        self.tried.expired += 1;
    }
}
