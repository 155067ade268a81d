//! Records of transactions that are not decided yet: staged in order, applied or dropped whole.

use forebay_journal::SegmentId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::arrival::StagedArrival;

/// One staged record.
#[derive(Debug)]
pub(super) enum Step {
    /// A message that goes to these queues when the transaction commits.
    Enter {
        arrival: StagedArrival,
        queues: Box<[u64]>,
    },
    /// Messages that leave their queue when it commits.
    Settle { queue: u64, messages: Box<[u64]> },
}

#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) is_prepared: bool,
    pub(super) steps: Vec<Step>,
    /// Segments whose records a restart needs to stage this again, one per record that no
    /// message already holds.
    pub(super) pins: Vec<SegmentId>,
}

#[derive(Debug, Default)]
pub(super) struct Transactions {
    staged: FxHashMap<u64, Staged>,
}

impl Transactions {
    pub(super) fn open(&mut self, transaction: u64) -> &mut Staged {
        self.staged.entry(transaction).or_default()
    }

    /// The transaction, to stage one more record in it.
    ///
    /// Panics: if it is prepared (our own mistake). Nothing may follow that promise: when its
    /// segment is freed, a replay would take the rest for a transaction nobody prepared.
    pub(super) fn add(&mut self, transaction: u64) -> &mut Staged {
        let staged = self.open(transaction);
        assert!(!staged.is_prepared, "transaction {transaction} is prepared");
        staged
    }

    pub(super) fn close(&mut self, transaction: u64) -> Option<Staged> {
        self.staged.remove(&transaction)
    }

    /// Numbers of those nobody promised to decide, sorted.
    pub(super) fn unprepared(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self
            .staged
            .iter()
            .filter(|(_, staged)| !staged.is_prepared)
            .map(|(number, _)| *number)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Queue and message of everything that the transactions settle.
    pub(super) fn locked(&self) -> FxHashSet<(u64, u64)> {
        let mut locked = FxHashSet::default();
        for staged in self.staged.values() {
            for step in &staged.steps {
                if let Step::Settle { queue, messages } = step {
                    locked.extend(messages.iter().map(|message| (*queue, *message)));
                }
            }
        }
        locked
    }

    /// Whether messages of one of them are to enter this queue.
    pub(super) fn enter(&self, queue: u64) -> bool {
        self.iter().any(|staged| {
            staged.steps.iter().any(|step| match step {
                Step::Enter { queues, .. } => queues.contains(&queue),
                Step::Settle { .. } => false,
            })
        })
    }

    pub(super) fn len(&self) -> usize {
        self.staged.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Staged> + '_ {
        self.staged.values()
    }
}
