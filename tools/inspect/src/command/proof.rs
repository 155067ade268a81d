//! Which messages of a damaged store are proved to be whole and in their queues, and which may be.

use std::collections::BTreeMap;

use forebay_journal::ShardId;

use crate::emit::{Choose, Listed, place_of};
use crate::gather::{Gathered, Store};
use crate::ledger::Ledger;
use crate::line;

/// Messages of which everything is there.
pub(super) struct Proved;

/// Messages of which something is missing: their queue, a part of their body, whether their
/// transaction was committed, or whether a checkpoint named them.
pub(super) struct Doubtful {
    /// Of shards with holes: what all files say, also those that no replay reads.
    past: BTreeMap<ShardId, Ledger>,
}

impl Doubtful {
    /// Errors: files cannot be read.
    pub(super) fn of(store: &Store) -> anyhow::Result<Self> {
        let mut past = BTreeMap::new();
        for one in store.shards.iter().filter(|one| one.ledger.has_holes()) {
            let mut ledger = one.past()?;
            ledger.end_epoch();
            past.insert(one.shard, ledger);
        }
        Ok(Self { past })
    }

    /// Where a message was that a lost record may have named: nothing here says that it left.
    fn unnamed(&self, gathered: &Gathered, listed: &Listed<'_>) -> Vec<line::Place> {
        let Some(past) = self.past.get(&gathered.shard) else {
            return Vec::new();
        };
        let ids = listed.all(past).into_iter();
        ids.filter_map(|queue| place_of(past, queue, listed))
            .collect()
    }
}

fn is_whole(ledger: &Ledger, message: u64) -> bool {
    !ledger.is_incomplete(message) && !ledger.is_doubted(message)
}

impl Choose for Proved {
    fn places(&self, gathered: &Gathered, listed: &Listed<'_>) -> Vec<line::Place> {
        let (ledger, message) = (&gathered.ledger, listed.message);
        if !is_whole(ledger, message) {
            return Vec::new();
        }
        let ids = listed.all(ledger).into_iter();
        let defined = ids.filter(|queue| ledger.definition(*queue).is_some());
        defined
            .filter_map(|queue| place_of(ledger, queue, listed))
            .collect()
    }

    fn expects(&self, _: &Gathered) -> u64 {
        0
    }
}

impl Choose for Doubtful {
    fn places(&self, gathered: &Gathered, listed: &Listed<'_>) -> Vec<line::Place> {
        let (ledger, message) = (&gathered.ledger, listed.message);
        if !ledger.knows(message) {
            return self.unnamed(gathered, listed);
        }
        if ledger.is_doubted(message) {
            let as_new = |queue| line::Place {
                queue,
                attempts: 0,
                ready_unix_ms: None,
                leaving: None,
            };
            return listed
                .queues
                .queues()
                .map(|queue| as_new(queue.0))
                .collect();
        }
        let is_whole = is_whole(ledger, message);
        let ids = listed.all(ledger).into_iter();
        let doubtful = ids.filter(|queue| !is_whole || ledger.definition(*queue).is_none());
        doubtful
            .filter_map(|queue| place_of(ledger, queue, listed))
            .collect()
    }

    fn takes_incomplete(&self) -> bool {
        true
    }

    fn takes_leftovers(&self) -> bool {
        !self.past.is_empty()
    }

    fn expects(&self, _: &Gathered) -> u64 {
        0
    }
}
