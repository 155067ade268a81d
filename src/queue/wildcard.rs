//! Queues bound to a pattern of addresses: they get what is sent to any topic that it matches.
//!
//! Which patterns a topic matches is no fact but follows from those that are bound; it is found out
//! once for each topic, and again when that changed. A topic without a queue of its own is no
//! destination; while patterns are bound it has the place of one, so that this is remembered.

use forebay_journal::QueueId;
use forebay_journal::format::Routing;

use super::decision::{Refused, Routed};
use super::destination::{Destination, DestinationId, Destinations};
use super::lifetime::Lifetime;
use super::machine::Machine;
use super::policy::Full;
use crate::limits::SHARD_TOPICS_REMEMBERED_MAX;
use crate::pattern::Pattern;

/// The patterns that queues are bound to.
#[derive(Debug, Default)]
pub(super) struct Wildcards {
    /// Each with its destination's index.
    bound: Vec<(Pattern, u32)>,
    /// Counts the changes of `bound`.
    version: u64,
    /// Places of topics without queues, some of which may have got one since.
    topics: Vec<u32>,
}

/// The patterns that match a topic, as of one version.
#[derive(Debug)]
pub(super) struct Matching {
    version: u64,
    /// Indexes of their destinations.
    patterns: Vec<u32>,
}

impl Wildcards {
    /// A destination is there now.
    #[cold]
    pub(super) fn note(&mut self, routing: Routing, address: &[u8], index: u32) {
        if let Some(pattern) = pattern(routing, address) {
            self.version += 1;
            self.bound.push((pattern, index));
        }
    }

    /// A destination is there no more.
    #[cold]
    pub(super) fn forget(&mut self, index: u32) {
        let before = self.bound.len();
        self.bound.retain(|(_, of)| *of != index);
        self.version += u64::from(self.bound.len() < before);
    }

    fn matching(&self, address: &[u8]) -> Matching {
        let matching = self.bound.iter();
        let matching = matching.filter(|(pattern, _)| pattern.matches(address));
        Matching {
            version: self.version,
            patterns: matching.map(|(_, index)| *index).collect(),
        }
    }
}

/// The pattern that an address is, if it is one.
fn pattern(routing: Routing, address: &[u8]) -> Option<Pattern> {
    if routing == Routing::Anycast {
        return None;
    }
    let text = core::str::from_utf8(address).ok()?;
    let pattern = Pattern::parse(text).ok()?;
    (!pattern.is_literal()).then_some(pattern)
}

impl Destinations {
    /// Finds out which patterns match a destination, unless that is known.
    fn refresh(&mut self, id: DestinationId) {
        let version = self.wildcards.version;
        let is_known = |one: &Destination| {
            let known = one.matching.as_ref();
            known.is_some_and(|known| known.version == version)
        };
        let Some(destination) = self.get(id).filter(|one| !is_known(one)) else {
            return;
        };
        let matching = Box::new(self.wildcards.matching(&destination.address));
        self.at_mut(id.index()).matching = Some(matching);
    }

    /// The destinations of the patterns that match this one, as [`Self::refresh`] found them.
    fn patterns_of(&self, destination: &Destination) -> impl Iterator<Item = &Destination> + '_ {
        let known = destination.matching.as_ref();
        let known = known.map(|known| {
            assert_eq!(known.version, self.wildcards.version, "refreshed before");
            known.patterns.clone()
        });
        let known = known.into_iter().flatten();
        known.map(|index| self.at(index))
    }

    /// Drops the places of topics that have no queue.
    #[cold]
    fn drop_topics(&mut self) {
        for index in core::mem::take(&mut self.wildcards.topics) {
            self.drop_unbound(index);
        }
    }

    /// Checks that the patterns are those of the destinations.
    ///
    /// Panics: if they are not.
    pub(super) fn check_wildcards(&self) {
        let patterns = self.iter().filter_map(|(index, one)| {
            let pattern = pattern(one.routing, &one.address)?;
            Some((index, pattern))
        });
        let mut patterns: Vec<_> = patterns.collect();
        let bound = self.wildcards.bound.iter();
        let mut bound: Vec<_> = bound.map(|(one, index)| (*index, one.clone())).collect();
        patterns.sort_by_key(|(index, _)| *index);
        bound.sort_by_key(|(index, _)| *index);
        assert_eq!(patterns, bound, "patterns that are bound");
        for (index, one) in self.iter() {
            let is_empty = !one.is_bound();
            let is_kept = self.wildcards.topics.contains(&index);
            assert!(!is_empty || is_kept, "destination {index} has no queue");
        }
    }
}

impl Machine {
    /// Whether any queue is bound to a pattern: then [`Self::topic`] and [`Self::add_matching`]
    /// have something to do.
    pub fn has_patterns(&self) -> bool {
        !self.destinations.wildcards.bound.is_empty()
    }

    /// A multicast address, also where no queue is bound to it: a pattern may match it. No fact:
    /// the name counts until patterns come or go.
    ///
    /// Cost: a topic that was asked for before is found by one look.
    pub fn topic(&mut self, address: &[u8]) -> DestinationId {
        let routing = Routing::Multicast;
        if let Some(known) = self.resolve(routing, address) {
            return known;
        }
        if self.destinations.wildcards.topics.len() >= SHARD_TOPICS_REMEMBERED_MAX as usize {
            self.destinations.drop_topics();
        }
        let policy = self.policies.keep(address);
        let index = self.destinations.create(routing, address, policy);
        self.destinations.wildcards.topics.push(index);
        let known = self.resolve(routing, address);
        known.expect("created just now")
    }

    /// Adds to a message for a topic the queues bound to patterns that match it: behind
    /// [`Self::decide_enqueue`] with the same arguments.
    ///
    /// Cost: O(queues that are added); the first time for a topic, and again after patterns came
    /// or went, all of them are looked at.
    pub fn add_matching(
        &mut self,
        destination: DestinationId,
        is_persistent: bool,
        is_forwarded: bool,
        out: &mut Routed,
    ) {
        self.destinations.refresh(destination);
        let Some(destination) = self.destinations.get(destination) else {
            return;
        };
        let policy = &destination.policy;
        if !is_forwarded && policy.diverts_alone() {
            return;
        }
        let mut at = out.durable_count;
        for pattern in self.destinations.patterns_of(destination) {
            // The topic's own durable ones stay the first.
            let durable = pattern.durable.iter().copied();
            out.queues.splice(at..at, durable);
            at += pattern.durable.len();
            out.queues.extend_from_slice(&pattern.volatile);
            out.has_matching = true;
        }
        out.durable_count = at;
        out.is_journaled = is_persistent && at > 0;
    }

    /// What becomes of one more message for the patterns that match an address; none if they have
    /// room: see [`Self::fullness`].
    pub fn fullness_of_matching(&mut self, destination: DestinationId) -> Option<Full> {
        if !self.has_patterns() {
            return None;
        }
        self.destinations.refresh(destination);
        let destination = self.destinations.get(destination)?;
        let mut patterns = self.destinations.patterns_of(destination);
        patterns.find_map(|pattern| self.fullness_at(pattern))
    }

    /// Whether the address, or a pattern that matches it, has seen a message with this id: behind
    /// [`Self::add_matching`].
    pub fn is_duplicate_of_matching(&self, destination: DestinationId, id: &[u8]) -> bool {
        let Some(destination) = self.destinations.get(destination) else {
            return false;
        };
        let mut patterns = self.destinations.patterns_of(destination);
        destination.knows_id(id) || patterns.any(|pattern| pattern.knows_id(id))
    }

    /// The queue of this name at an address or pattern: the queue of the address itself, or a
    /// subscription with a name. `routing` says which comes first if it is both.
    pub fn find_queue(&self, routing: Routing, address: &[u8], name: &[u8]) -> Option<QueueId> {
        let own = || self.anycast(address).filter(|_| address == name);
        let subscription = || {
            let queue = self.subscriptions.get(name)?;
            let is_there = self.address(queue) == Some(address);
            is_there.then_some(queue)
        };
        match routing {
            Routing::Anycast => own().or_else(subscription),
            Routing::Multicast => subscription().or_else(own),
        }
    }

    /// The address that a queue is bound to.
    pub fn destination_of(&self, queue: QueueId) -> Option<DestinationId> {
        let defined = self.queues.get(queue)?.defined.as_ref()?;
        let destination = self.destinations.at(defined.destination);
        self.resolve(destination.routing, &destination.address)
    }

    /// Routes a message to one queue alone, as [`Self::decide_enqueue`] does to those of an
    /// address.
    ///
    /// Errors: `UnknownQueue`.
    pub fn decide_enqueue_alone(
        &self,
        queue: QueueId,
        is_persistent: bool,
        out: &mut Routed,
    ) -> Result<(), Refused> {
        let queue = self.queues.get(queue).ok_or(Refused::UnknownQueue)?;
        let is_taken = !queue.policy.purge_on_no_consumers || self.is_attended(queue.id.0);
        out.start(&Lifetime::from(&*queue.policy), self.message_floor());
        if is_taken {
            out.queues.push(queue.id.0.into());
            out.durable_count = usize::from(queue.is_durable());
        }
        out.is_journaled = is_persistent && out.durable_count > 0;
        Ok(())
    }
}
