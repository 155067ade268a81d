//! Messages that expire: when, and which of them wait in their queue.
//!
//! Nothing here decides: what is due becomes a fact first. A message that somebody holds does not
//! expire; given back it is due at once.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::entry::Entry;

#[derive(Debug, Default)]
pub(super) struct Expiring {
    /// Of every message that expires, by queue and name: when, in wall-clock milliseconds.
    times: FxHashMap<(u64, u64), u64>,
    /// Time, queue and name of those that are ready, the earliest first.
    ready: BTreeSet<(u64, u64, u64)>,
}

impl Expiring {
    /// A message is ready in a queue for the first time; `unix_ms` 0 is never.
    pub(super) fn enter(&mut self, queue: u64, message: u64, unix_ms: u64) {
        if unix_ms != 0 {
            self.times.insert((queue, message), unix_ms);
            self.ready.insert((unix_ms, queue, message));
        }
    }

    /// A message left its queue.
    pub(super) fn leave(&mut self, queue: u64, entry: &Entry) {
        if !entry.is_noted() {
            return;
        }
        let message = entry.message;
        if let Some(unix_ms) = self.times.remove(&(queue, message)) {
            self.ready.remove(&(unix_ms, queue, message));
            if self.times.is_empty() {
                // What a wave of them needed is not kept for good.
                self.times.shrink_to_fit();
            }
        }
    }

    /// Messages were delivered: nobody but their holder decides about them.
    pub(super) fn hold(&mut self, queue: u64, entries: &[Entry]) {
        for Entry { message, .. } in entries.iter().filter(|entry| entry.is_noted()) {
            if let Some(unix_ms) = self.times.get(&(queue, *message)) {
                self.ready.remove(&(*unix_ms, queue, *message));
            }
        }
    }

    /// Messages are ready again.
    pub(super) fn give_back(&mut self, queue: u64, entries: &[Entry]) {
        for Entry { message, .. } in entries.iter().filter(|entry| entry.is_noted()) {
            if let Some(unix_ms) = self.times.get(&(queue, *message)) {
                self.ready.insert((*unix_ms, queue, *message));
            }
        }
    }

    /// The earliest time at which a ready message expires.
    pub(super) fn next_unix_ms(&self) -> Option<u64> {
        self.ready.first().map(|(unix_ms, ..)| *unix_ms)
    }

    /// Queue and name of the ready messages whose time is over, the earliest first.
    pub(super) fn due(&self, now_unix_ms: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let ready = self.ready.iter();
        ready
            .take_while(move |(unix_ms, ..)| *unix_ms <= now_unix_ms)
            .map(|(_, queue, message)| (*queue, *message))
    }

    /// Everything it knows of a message: when it expires and whether it is known as ready.
    pub(super) fn of(&self, queue: u64, message: u64) -> Option<(u64, bool)> {
        let unix_ms = *self.times.get(&(queue, message))?;
        Some((unix_ms, self.ready.contains(&(unix_ms, queue, message))))
    }

    /// Messages known, and those of them known as ready.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.times.len(), self.ready.len())
    }
}
