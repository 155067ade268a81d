//! Last-value queues: of the messages with one key only the last is kept.
//!
//! Which message is the last for its key follows from the facts. What it replaces leaves by a fact
//! of its own, decided behind it ([`Machine::decide_trim`]); one that somebody holds stays with
//! its holder, and leaves when it is given back.

use rustc_hash::FxHashMap;

use super::entry::Entry;
use super::state::QueueState;

/// The last messages with one key; zero for none.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    /// Of all.
    of_all: u64,
    /// Of those that a restart finds.
    durable: u64,
}

/// Keys of one queue's messages.
#[derive(Debug, Default)]
pub(super) struct LastValues {
    by_key: FxHashMap<Box<[u8]>, Last>,
    by_message: FxHashMap<u64, Box<[u8]>>,
}

impl LastValues {
    /// A message with this key came: it is the last. Returns the one that was.
    fn enter(&mut self, key: &[u8], message: u64, is_durable: bool) -> Option<u64> {
        self.by_message.insert(message, key.into());
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.into(), Last::default());
        }
        let last = self.by_key.get_mut(key)?;
        if is_durable {
            last.durable = message;
        }
        let former = core::mem::replace(&mut last.of_all, message);
        (former != 0).then_some(former)
    }

    /// A message with this key is here again, as the last one or not.
    fn enter_as(&mut self, key: &[u8], message: u64, is_replaced: bool) {
        self.by_message.insert(message, key.into());
        if !is_replaced {
            let last = Last {
                of_all: message,
                durable: message,
            };
            self.by_key.insert(key.into(), last);
        }
    }

    fn leave(&mut self, message: u64) {
        let Some(key) = self.by_message.remove(&message) else {
            return;
        };
        let Some(last) = self.by_key.get_mut(&key) else {
            return;
        };
        for one in [&mut last.of_all, &mut last.durable] {
            if *one == message {
                *one = 0;
            }
        }
        if last.of_all == 0 && last.durable == 0 {
            self.by_key.remove(&key);
        }
    }

    fn last_of(&self, message: u64) -> Option<Last> {
        let key = self.by_message.get(&message)?;
        Some(self.by_key.get(key).copied().unwrap_or_default())
    }

    /// Whether a later message with the same key came.
    fn is_replaced(&self, message: u64) -> bool {
        self.last_of(message)
            .is_some_and(|last| last.of_all != message)
    }

    /// Whether one came that a restart finds as well.
    fn is_replaced_for_good(&self, message: u64) -> bool {
        self.last_of(message)
            .is_some_and(|last| last.durable != message)
    }

    /// Messages known, and keys.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.by_message.len(), self.by_key.len())
    }

    /// The key of a message; empty for none.
    fn key_of(&self, message: u64) -> &[u8] {
        self.by_message.get(&message).map_or(&[], |key| key)
    }

    pub(super) fn knows(&self, message: u64) -> bool {
        self.by_message.contains_key(&message)
    }
}

impl QueueState {
    /// A message with this key is in the queue. Returns one that it replaces.
    #[cold]
    pub(super) fn enter_value(&mut self, key: &[u8], entry: &Entry) -> Option<u64> {
        let last_values = self.last_values.get_or_insert_default();
        last_values.enter(key, entry.message, entry.is_durable())
    }

    /// A message that was in the queue before with this key is known now.
    #[cold]
    pub(super) fn enter_value_as(&mut self, key: &[u8], message: u64, is_replaced: bool) {
        let last_values = self.last_values.get_or_insert_default();
        last_values.enter_as(key, message, is_replaced);
    }

    /// Whether a later message that a restart finds took the place of this one, whoever has it.
    pub(super) fn has_lost_value(&self, message: u64) -> bool {
        let last_values = self.last_values.as_ref();
        last_values.is_some_and(|values| values.is_replaced_for_good(message))
    }

    /// The key of a message; empty for none.
    pub(super) fn last_value_of(&self, message: u64) -> &[u8] {
        let last_values = self.last_values.as_ref();
        last_values.map_or(&[], |values| values.key_of(message))
    }

    /// A message left.
    pub(super) fn leave_value(&mut self, message: u64) {
        if let Some(last_values) = &mut self.last_values {
            last_values.leave(message);
        }
    }

    /// Whether a later message took the place of this one, which nobody holds.
    pub(super) fn is_replaced(&self, message: u64) -> bool {
        let last_values = self.last_values.as_ref();
        last_values.is_some_and(|values| values.is_replaced(message))
            && self.waiting(message).is_some()
    }
}
