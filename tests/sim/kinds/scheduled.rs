//! Scheduled delivery: nothing comes before its time.

use crate::kinds::{Facts, Kinds};
use crate::ledger::Departure;
use crate::world::{World, unix_ms};

impl Facts {
    pub(super) fn choose_begin(&mut self, world: &mut World) {
        let most = [2, 15, 60][world.random.below(3) as usize];
        self.is_absolute = world.chance(2);
        self.due_ms = unix_ms(world.now_us) + world.random.below(most);
    }

    /// The header that says it. A delay is counted from when the broker reads it: no earlier.
    pub(super) fn schedule(&self, now_us: u64) -> Vec<(&'static str, String)> {
        let header = match self.is_absolute {
            true => ("AMQ_SCHEDULED_TIME", self.due_ms.to_string()),
            false => {
                let delay_ms = self.due_ms.saturating_sub(unix_ms(now_us));
                ("AMQ_SCHEDULED_DELAY", delay_ms.to_string())
            }
        };
        vec![header]
    }
}

impl Kinds {
    pub(super) fn check_schedule(&mut self, one: Departure, now_ms: u64) {
        let facts = &self.facts[&one.uid];
        let due_ms = facts.due_ms;
        let uid = one.uid;
        assert!(now_ms >= due_ms, "{uid} comes at {now_ms}, before {due_ms}");
        self.tried.scheduled += u64::from(due_ms > unix_ms(facts.sent_us));
    }
}
