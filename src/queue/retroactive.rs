//! Retroactive topics: the last messages of a topic, kept for subscriptions to come.
//!
//! They lie in a queue of the topic that is in no list of it, so that nobody consumes from it; what
//! is one too many leaves it as from a ring, the oldest first. A new subscription has them from its
//! first moment: no copies, the same messages in one more queue ([`Record::Share`]).
//!
//! [`Record::Share`]: forebay_journal::format::Record::Share

use forebay_journal::QueueId;
use forebay_journal::format::{Annotations, IdList, QueueFlags, Routing};
use zerocopy::little_endian::U64;

use super::arrival::Arrival;
use super::decision::{Decision, Definition, Effect, Refused, Routed};
use super::destination::Destination;
use super::entry::{Entry, Place, Queued};
use super::machine::Machine;
use super::state::QueueState;
use crate::limits::RETROACTIVE_MESSAGES_MAX;
use crate::pattern::Pattern;

/// A message that a topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The queue it is kept in.
    pub source: QueueId,
    /// The message.
    pub queued: Queued,
}

/// What another queue has to know of a message that it gets from this one.
struct Known {
    entry: Entry,
    expires_unix_ms: u64,
    group: u64,
    is_group_end: bool,
    last_value: Box<[u8]>,
}

impl Destination {
    /// The most messages that it keeps for subscriptions to come.
    pub(super) fn kept_max(&self) -> u64 {
        match self.routing {
            Routing::Multicast if !self.policy.diverts_alone() => self.policy.retroactive_messages,
            _ => 0,
        }
    }
}

impl Machine {
    /// Makes the queue in which a topic keeps its last messages, if it is to have one and has none.
    /// Nothing decided means that nothing is to be made.
    ///
    /// Errors: `QueuesFull`; `NameTooLong`.
    pub fn decide_retroactive(&self, topic: &[u8], out: &mut Decision) -> Result<(), Refused> {
        out.clear();
        let found = self.resolve(Routing::Multicast, topic);
        let found = found.and_then(|id| self.destinations.get(id));
        let is_wanted = match found {
            Some(topic) => topic.retroactive.is_none() && topic.kept_max() > 0,
            None => {
                let policy = self.policies.of(topic);
                policy.retroactive_messages > 0 && !policy.diverts_alone()
            }
        };
        if !is_wanted {
            return Ok(());
        }
        self.check_definition(self.queues.len(), topic, topic, b"")?;
        let definition = Definition {
            queue: self.queue_floor(),
            routing: Routing::Multicast,
            flags: QueueFlags {
                is_retroactive: true,
                ..QueueFlags::default()
            },
            is_journaled: true,
        };
        out.define(definition, topic, topic, b"");
        Ok(())
    }

    /// Whether any topic keeps messages for subscriptions to come.
    pub fn has_retroactive(&self) -> bool {
        self.policies.has_retroactive()
    }

    /// What a subscription to this topic, or to the topics that this pattern matches, gets if it is
    /// made now, in the order of their names.
    ///
    /// Of each topic as many as it says, and of all the last `RETROACTIVE_MESSAGES_MAX`.
    /// Cost: of a pattern O(topics).
    pub fn kept(&self, address: &[u8]) -> Vec<Kept> {
        if !self.has_retroactive() {
            return Vec::new();
        }
        let text = core::str::from_utf8(address).ok();
        let pattern = text.and_then(|text| Pattern::parse(text).ok());
        let mut kept = Vec::new();
        match pattern.filter(|pattern| !pattern.is_literal()) {
            Some(pattern) => {
                let all = self.destinations.iter().map(|(_, one)| one);
                let matching = all.filter(|one| pattern.matches(&one.address));
                matching.for_each(|topic| self.add_kept_of(topic, &mut kept));
            }
            None => {
                let topic = self.resolve(Routing::Multicast, address);
                let topic = topic.and_then(|topic| self.destinations.get(topic));
                topic
                    .into_iter()
                    .for_each(|topic| self.add_kept_of(topic, &mut kept));
            }
        }
        kept.sort_unstable_by_key(|one| one.queued.message);
        let over = kept.len().saturating_sub(RETROACTIVE_MESSAGES_MAX as usize);
        kept.drain(..over);
        kept
    }

    fn add_kept_of(&self, topic: &Destination, kept: &mut Vec<Kept>) {
        let queue = topic.retroactive.and_then(|queue| self.queues.get(queue));
        let Some(queue) = queue else { return };
        let start = kept.len();
        kept.extend(queue.ready.iter().map(|entry| Kept {
            source: queue.id,
            queued: self.queued(entry),
        }));
        // What is one too many may not have left yet.
        let max = usize::try_from(topic.kept_max()).unwrap_or(usize::MAX);
        let over = (kept.len() - start).saturating_sub(max);
        kept[start..].sort_unstable_by_key(|one| one.queued.message);
        kept.drain(start..start + over);
    }

    /// Adds to the decision that defines this queue that it has these messages, some of
    /// [`Self::kept`] in their order.
    pub fn share_kept(
        &self,
        (queue, is_durable): (QueueId, bool),
        kept: &[Kept],
        out: &mut Decision,
    ) {
        let is_journaled = |one: &&Kept| {
            let is_in_journal = matches!(one.queued.place, Place::Journal(_));
            is_durable && is_in_journal
        };
        for kind in [true, false] {
            let messages = kept.iter().filter(|one| is_journaled(one) == kind);
            let messages = messages.map(|one| (one.source, one.queued.message));
            out.share(queue, kind, messages);
        }
    }

    /// Ready messages of some queues are in another one as well.
    #[cold]
    pub(super) fn share(&mut self, queue: QueueId, pairs: IdList<'_>, effects: &mut Vec<Effect>) {
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.note_shared(queue);
        }
        for (source, message) in pairs.pairs() {
            let Some(source) = self.queues.get_mut(source) else {
                continue;
            };
            let Some(entry) = source.ready.get_mut(message.0) else {
                continue;
            };
            self.bodies.share(entry, effects);
            let entry = *entry;
            let expires = self.expiring.of(source.id.0, message.0);
            let known = source.known(entry, expires.map_or(0, |(unix_ms, _)| unix_ms));
            self.insert(&known.arrival(), queue.0, effects);
        }
    }
}

impl QueueState {
    /// Whether it keeps the last messages of its topic for others.
    pub(super) fn is_retroactive(&self) -> bool {
        let defined = self.defined.as_ref();
        defined.is_some_and(|defined| defined.flags.is_retroactive)
    }

    fn known(&self, entry: Entry, expires_unix_ms: u64) -> Known {
        let mark = self.mark_of(entry.message);
        Known {
            entry,
            expires_unix_ms,
            group: mark.map_or(0, |mark| mark.group),
            is_group_end: mark.is_some_and(|mark| mark.is_end),
            last_value: self.last_value_of(entry.message).into(),
        }
    }
}

impl Known {
    fn arrival(&self) -> Arrival<'_> {
        Arrival {
            entry: self.entry,
            expires_unix_ms: self.expires_unix_ms,
            annotations: Annotations {
                group: self.group,
                is_group_end: self.is_group_end,
                last_value: &self.last_value,
                ..Annotations::default()
            },
            // Its address knows it.
            volatile_id: &[],
        }
    }
}

/// The message goes to the queue in which its topic keeps it as well.
#[cold]
pub(super) fn keep_in(retroactive: QueueId, out: &mut Routed) {
    let durable = &out.queues[..out.durable_count];
    let at = durable.partition_point(|id| id.get() < retroactive.0);
    out.queues.insert(at, U64::new(retroactive.0));
    out.durable_count += 1;
    // A queue bound to a pattern may get it later.
    out.says_address = true;
}

/// The `count` messages that came first, whatever their priority.
pub(super) fn oldest(queue: &QueueState, count: usize) -> Vec<&Entry> {
    let mut oldest: Vec<_> = queue.ready.since(0, count).collect();
    oldest.sort_unstable_by_key(|entry| entry.message);
    oldest.truncate(count);
    oldest
}
