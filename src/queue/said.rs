//! What a decision says in a checkpoint: lists of a kind that no other decision has.

use core::ops::Range;

use forebay_journal::QueueId;
use forebay_journal::format::{
    CheckpointEntry, CheckpointFields, CheckpointFragment, Record, encoded_size,
};

use super::decision::{Decision, Step};

/// Owned by the decision and used again and again.
#[derive(Debug, Default)]
pub(super) struct Said {
    items: Vec<Item>,
    entries: Vec<CheckpointEntry>,
    fragments: Vec<CheckpointFragment>,
    keys: Vec<u8>,
}

#[derive(Debug)]
enum Item {
    Entries {
        queue: QueueId,
        latest_unix_ms: u64,
        entries: Range<usize>,
    },
    Message {
        queue: QueueId,
        entry: CheckpointEntry,
        fields: CheckpointFields,
        fragments: Range<usize>,
        last_value: Range<usize>,
    },
}

impl Said {
    /// Panics: if there is nothing in this place (our own mistake).
    pub(super) fn record(&self, at: usize) -> Record<'_> {
        match &self.items[at] {
            Item::Entries {
                queue,
                latest_unix_ms,
                entries,
            } => Record::Checkpoint {
                queue: *queue,
                latest_unix_ms: *latest_unix_ms,
                entries: &self.entries[entries.clone()],
            },
            Item::Message {
                queue,
                entry,
                fields,
                fragments,
                last_value,
            } => Record::CheckpointMessage {
                queue: *queue,
                entry: *entry,
                fields: *fields,
                fragments: &self.fragments[fragments.clone()],
                last_value: &self.keys[last_value.clone()],
            },
        }
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.entries.clear();
        self.fragments.clear();
        self.keys.clear();
    }
}

impl Decision {
    /// Begins a list of plain messages; returns where.
    pub(super) const fn begin_entries(&self) -> usize {
        self.checkpoint.entries.len()
    }

    /// Adds a plain message; returns the bytes of it.
    pub(super) fn add_entry(&mut self, entry: CheckpointEntry) -> usize {
        self.checkpoint.entries.push(entry);
        size_of::<CheckpointEntry>()
    }

    /// Adds a record of the plain messages that were added since, none for none.
    pub(super) fn end_entries(&mut self, queue: QueueId, latest_unix_ms: u64, begin: usize) {
        let entries = begin..self.checkpoint.entries.len();
        if entries.is_empty() {
            return;
        }
        // As a queue has them: they were found from the highest name down.
        self.checkpoint.entries[begin..].reverse();
        self.push(Item::Entries {
            queue,
            latest_unix_ms,
            entries,
        });
    }

    /// Adds a record of one message; returns the bytes of it.
    pub(super) fn say_message(
        &mut self,
        queue: QueueId,
        entry: CheckpointEntry,
        fields: CheckpointFields,
        fragments: impl Iterator<Item = CheckpointFragment>,
        last_value: &[u8],
    ) -> usize {
        let said = &mut self.checkpoint;
        let fragment = said.fragments.len();
        said.fragments.extend(fragments);
        let key = said.keys.len();
        said.keys.extend_from_slice(last_value);
        let (fragments, last_value) = (fragment..said.fragments.len(), key..said.keys.len());
        self.push(Item::Message {
            queue,
            entry,
            fields,
            fragments,
            last_value,
        });
        encoded_size(&self.checkpoint.record(self.checkpoint.items.len() - 1))
    }

    fn push(&mut self, item: Item) {
        self.steps
            .push(Step::Checkpoint(self.checkpoint.items.len()));
        self.checkpoint.items.push(item);
    }
}
