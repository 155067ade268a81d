//! What an operator does to a queue of a running broker: looks at it, pauses it, empties it,
//! deletes it.
//!
//! A paused queue takes messages and hands out none; it is a flag of its definition, which is
//! repeated to change it. A purge drops what nobody holds, a bounded number at a time: it is over
//! when nothing is left of what was there when it began.

use forebay_journal::QueueId;
use forebay_journal::format::{Outcome, QueueFlags, Routing};

use super::aside::Why;
use super::decide::add_entries;
use super::decision::{Decision, Definition, Refused, Verb};
use super::machine::{Machine, QueueCounts};

/// A queue as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described<'a> {
    /// Its name, UTF-8.
    pub name: &'a [u8],
    /// Its address, UTF-8.
    pub address: &'a [u8],
    /// What kind of address that is.
    pub routing: Routing,
    /// Its properties.
    pub flags: QueueFlags,
    /// Whether it survives the process.
    pub is_durable: bool,
    /// What is in it.
    pub counts: QueueCounts,
}

/// How far a purge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Messages named lower than this one were there when it began.
    before: u64,
    /// What is aside and named lower than this one was looked at.
    aside_from: u64,
}

impl Machine {
    /// The queues that an operator means by a name: the one of an anycast address, and the
    /// subscription of that name. Those of plain subscriptions, and diverts, share the name of
    /// their address and have none of their own.
    pub fn find(&self, name: &[u8]) -> impl Iterator<Item = QueueId> + use<> {
        let anycast = self.anycast(name);
        let subscription = self.subscriptions.get(name);
        anycast.into_iter().chain(subscription)
    }

    /// The queues from this place on, each with the next place. A queue keeps its place, so that
    /// one who asks again from there misses none that stays and sees none twice.
    pub fn queues_from(&self, place: u32) -> impl Iterator<Item = (u32, QueueId)> + '_ {
        let queues = self.queues.iter_from(place);
        queues.map(|(place, queue)| (place + 1, queue.id))
    }

    /// Queues there are.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// What a queue is and holds.
    pub fn describe(&self, id: QueueId) -> Option<Described<'_>> {
        let queue = self.queues.get(id)?;
        let defined = queue.defined.as_ref()?;
        let destination = self.destinations.at(defined.destination);
        Some(Described {
            name: &defined.name,
            address: &destination.address,
            routing: destination.routing,
            flags: defined.flags,
            is_durable: queue.is_durable(),
            counts: self.counts(id)?,
        })
    }

    /// Whether the queue hands out nothing for now.
    pub fn is_paused(&self, queue: QueueId) -> bool {
        self.queues
            .get(queue)
            .is_some_and(|queue| queue.is_paused())
    }

    /// Pauses a queue, or lets it go on. What was handed out before stays with its consumers.
    /// Nothing decided: it is so already.
    ///
    /// Errors: `UnknownQueue`.
    #[cold]
    pub fn decide_pause(
        &self,
        queue: QueueId,
        is_paused: bool,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        out.clear();
        let queue = self.queues.get(queue).ok_or(Refused::UnknownQueue)?;
        let defined = queue.defined.as_ref().ok_or(Refused::UnknownQueue)?;
        if defined.flags.is_paused == is_paused {
            return Ok(());
        }
        let destination = self.destinations.at(defined.destination);
        let definition = Definition {
            queue: queue.id,
            routing: destination.routing,
            flags: QueueFlags {
                is_paused,
                ..defined.flags
            },
            is_journaled: queue.is_durable(),
        };
        let (name, filter) = (&defined.name, &defined.filter);
        out.define(definition, &destination.address, name, filter);
        Ok(())
    }

    /// Begins to purge a queue of what is there now.
    pub const fn begin_purge(&self) -> Purge {
        Purge {
            before: self.next_message,
            aside_from: 0,
        }
    }

    /// Drops messages that nobody holds, ready or waiting for their time, no more than
    /// `most`; the place to go on from when they are gone, if there may be more.
    /// Messages on their way to another address stay: they leave by themselves.
    ///
    /// Errors: `UnknownQueue`.
    #[cold]
    pub fn decide_drop(
        &self,
        queue: QueueId,
        purge: Purge,
        most: usize,
        out: &mut Decision,
    ) -> Result<Option<Purge>, Refused> {
        out.clear();
        let queue = self.queues.get(queue).ok_or(Refused::UnknownQueue)?;
        let ready = queue.ready.before(purge.before).take(most);
        let room = most - ready.clone().count();
        let aside = queue.aside.range(purge.aside_from, purge.before);
        let aside: Vec<_> = aside.take(room).collect();
        let delayed = aside.iter().copied();
        let delayed = delayed.filter(|(_, why)| matches!(why, Why::Delayed { .. }));
        let entries = ready.chain(delayed.map(|(entry, _)| entry));
        add_entries(queue, entries, Verb::Settle(Outcome::Dropped), out);
        let last_aside = aside.last().map(|(entry, _)| entry.message + 1);
        Ok((aside.len() == room).then_some(Purge {
            aside_from: last_aside.unwrap_or(purge.aside_from),
            ..purge
        }))
    }

    /// Deletes a queue with all that is in it; one that somebody is attached to only if
    /// `is_forced`.
    ///
    /// Errors: `UnknownQueue`; `QueueInUse`.
    #[cold]
    pub fn decide_remove(
        &self,
        queue: QueueId,
        is_forced: bool,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        self.decide_delete(queue, out)?;
        if !is_forced && self.is_attended(queue.0) {
            out.clear();
            return Err(Refused::QueueInUse);
        }
        Ok(())
    }

    /// The connections that consume from a queue, as named at attach, one for each consumer that
    /// consumes from no other.
    pub fn links_of(&self, queue: QueueId) -> impl Iterator<Item = u64> + '_ {
        let queue = self.queues.get(queue);
        let attached = queue.into_iter().flat_map(|queue| &queue.consumers);
        let attached = attached.map(|index| self.consumers.at(*index));
        let alone = attached.filter(|consumer| consumer.gathering.is_none());
        alone.map(|consumer| consumer.link)
    }
}
