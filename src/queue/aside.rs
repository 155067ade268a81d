//! Messages of a queue that nobody gets now: those that wait for their time, and those on their
//! way to another address.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forebay_journal::format::{Departure, Stands};
use forebay_journal::{MessageId, QueueId};

use super::entry::{Entry, Queued};

/// Why a message is aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is ready from this time on, in wall-clock milliseconds.
    Delayed { ready_unix_ms: u64 },
    /// It goes to another address, and leaves the queue when it is there.
    Leaving(Departure),
}

impl Why {
    /// As records say it.
    pub(super) const fn stands(self) -> Stands {
        match self {
            Self::Delayed { ready_unix_ms } => Stands::Delayed { ready_unix_ms },
            Self::Leaving(reason) => Stands::Leaving(reason),
        }
    }
}

/// A message on its way to another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departing {
    /// The queue it leaves.
    pub queue: QueueId,
    /// The message.
    pub queued: Queued,
    /// Why it leaves.
    pub reason: Departure,
    /// Where it goes; none if nowhere: the settings changed meanwhile.
    pub address: Option<Box<str>>,
}

/// The messages of one queue that are aside, by name.
#[derive(Debug, Default)]
pub(super) struct Aside(BTreeMap<u64, (Entry, Why)>);

impl Aside {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, message: u64) -> Option<&(Entry, Why)> {
        self.0.get(&message)
    }

    /// The lowest name of all.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.0.first_key_value().map(|(message, _)| *message)
    }

    pub(super) fn entry_mut(&mut self, message: u64) -> Option<&mut Entry> {
        self.0.get_mut(&message).map(|(entry, _)| entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Entry, Why)> + Clone + '_ {
        self.0.values()
    }

    /// Those named below this one, the highest first.
    pub(super) fn descending(&self, before: u64) -> impl Iterator<Item = &(Entry, Why)> + '_ {
        self.0.range(..before).rev().map(|(_, one)| one)
    }

    /// Messages named `from` or higher, and lower than `before`.
    pub(super) fn range(&self, from: u64, before: u64) -> impl Iterator<Item = &(Entry, Why)> + '_ {
        self.0.range(from..before.max(from)).map(|(_, one)| one)
    }

    /// Panics: if the message is aside already (our own mistake).
    fn insert(&mut self, entry: Entry, why: Why) {
        let former = self.0.insert(entry.message, (entry, why));
        assert!(former.is_none(), "{} is aside twice", entry.message);
    }
}

/// What is aside in all queues, in the order in which something is to be done about it.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Time, queue and name of those that wait for their time, the earliest first.
    due: BTreeSet<(u64, u64, u64)>,
    /// Queue and name of those that leave and that nobody took on their way yet. One that is gone
    /// from its queue is passed over.
    departures: VecDeque<(u64, u64)>,
}

impl Waits {
    /// Sets a message of this queue aside.
    pub(super) fn insert(&mut self, queue: QueueId, aside: &mut Aside, entry: Entry, why: Why) {
        match why {
            Why::Delayed { ready_unix_ms } => {
                self.due.insert((ready_unix_ms, queue.0, entry.message));
            }
            Why::Leaving(_) => self.departures.push_back((queue.0, entry.message)),
        }
        aside.insert(entry, why);
    }

    /// Takes a message of this queue back.
    pub(super) fn remove(
        &mut self,
        queue: QueueId,
        aside: &mut Aside,
        message: u64,
    ) -> Option<Entry> {
        if aside.is_empty() {
            return None;
        }
        let (entry, why) = aside.0.remove(&message)?;
        if let Why::Delayed { ready_unix_ms } = why {
            self.due.remove(&(ready_unix_ms, queue.0, message));
        }
        Some(entry)
    }

    /// The queue is gone, and what was aside there with it.
    pub(super) fn forget(&mut self, queue: QueueId, aside: &Aside) {
        for (entry, why) in aside.iter() {
            if let Why::Delayed { ready_unix_ms } = why {
                self.due.remove(&(*ready_unix_ms, queue.0, entry.message));
            }
        }
    }

    /// The earliest time at which a message that waits gets ready.
    pub(super) fn next_unix_ms(&self) -> Option<u64> {
        self.due.first().map(|(unix_ms, ..)| *unix_ms)
    }

    /// Queue and name of the messages whose time has come, the earliest first.
    pub(super) fn due(&self, now_unix_ms: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let due = self.due.iter();
        due.take_while(move |(unix_ms, ..)| *unix_ms <= now_unix_ms)
            .map(|(_, queue, message)| (*queue, *message))
    }

    pub(super) fn pop_departure(&mut self) -> Option<(QueueId, MessageId)> {
        let (queue, message) = self.departures.pop_front()?;
        Some((QueueId(queue), MessageId(message)))
    }

    /// Nobody takes the message on its way for now.
    pub(super) fn push_departure(&mut self, queue: QueueId, message: MessageId) {
        self.departures.push_back((queue.0, message.0));
    }

    pub(super) fn has_departures(&self) -> bool {
        !self.departures.is_empty()
    }

    /// Nobody has anything on its way any more: all that leaves is to be taken anew.
    pub(super) fn restart(&mut self, leaving: impl Iterator<Item = (u64, u64)>) {
        self.departures.clear();
        self.departures.extend(leaving);
    }

    /// How many wait for their time.
    pub(super) fn due_count(&self) -> usize {
        self.due.len()
    }

    pub(super) fn is_due_known(&self, unix_ms: u64, queue: u64, message: u64) -> bool {
        self.due.contains(&(unix_ms, queue, message))
    }
}
