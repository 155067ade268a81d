//! Patterns of queues: consumers compete for what is in any of the queues, which come when they are
//! named and go when nobody uses them. For the ledger all of them are one.

use forebay::queue::PolicySettings;

use crate::kinds::{Facts, Kinds, ShelfId};
use crate::ledger::Departure;
use crate::options::Mutant;

/// On any shards.
pub(super) const QUEUES: [&str; 3] = ["crop.a", "crop.b", "crop.c"];

pub(super) fn settings() -> PolicySettings {
    PolicySettings {
        auto_delete: Some(true),
        ..PolicySettings::default()
    }
}

/// What the broker hears of a destination.
pub(super) fn heard(destination: &str, mutant: Mutant) -> &str {
    match mutant {
        Mutant::NarrowPattern if destination == "/queue/crop.*" => "/queue/crop.a",
        _ => destination,
    }
}

impl Facts {
    /// The queue that it was sent to.
    pub(super) const fn queue(&self) -> &'static str {
        QUEUES[self.topic]
    }
}

impl Kinds {
    /// A message of one of the queues leaves.
    pub(super) fn note_gathered(&mut self, at: ShelfId, one: Departure) {
        let sent_us = self.facts[&one.uid].sent_us;
        let since_us = self.shelves[at].seats[&one.session].from_us;
        let is_earlier = sent_us < since_us;
        self.tried.gathered_there += u64::from(is_earlier);
        self.tried.gathered_new += u64::from(!is_earlier);
    }
}
