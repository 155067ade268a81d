//! Commands to facts. Nothing here changes anything.

use forebay_journal::format::{Departure, Outcome, QueueFlags, Routing};
use forebay_journal::{MessageId, QueueId, SegmentId};
use zerocopy::little_endian::U64;

use super::aside::Why;
use super::consumer::{ConsumerId, Outstanding, Selection};
use super::decision::{Decision, Definition, Refused, Routed, Verb};
use super::delivered::Holder;
use super::destination::DestinationId;
use super::divert::divert_to;
use super::entry::Entry;
use super::fate::Return;
use super::lifetime::Lifetime;
use super::machine::Machine;
use super::retroactive::keep_in;
use super::state::QueueState;

/// Longest address, queue name or filter: what a record holds.
const NAME_SIZE_MAX: usize = u16::MAX as usize;
/// Most definitions repeated by one decision.
const REDEFINED_MAX: usize = 256;

impl Machine {
    /// Opens the queue of an anycast address; decides to define it, durable, if it is not there.
    ///
    /// Errors: `QueuesFull`; `NameTooLong`; `UnknownAddress`.
    pub fn decide_queue(&self, address: &[u8], out: &mut Decision) -> Result<QueueId, Refused> {
        let found = self.anycast(address);
        if found.is_none() && !self.policies.of(address).auto_create {
            out.clear();
            return Err(Refused::UnknownAddress);
        }
        self.decide_anycast(found, address, true, out)
    }

    /// Opens the queue of an anycast address that the settings name: it is made if it is not
    /// there, whatever they say about queues that clients name.
    ///
    /// Errors: `QueuesFull`; `NameTooLong`.
    pub fn decide_own_queue(&self, address: &[u8], out: &mut Decision) -> Result<QueueId, Refused> {
        self.decide_anycast(self.anycast(address), address, true, out)
    }

    /// Opens the queue of an anycast address as [`Self::decide_queue`] does, but one that is not
    /// journaled and goes with its last consumer.
    ///
    /// Errors: `QueuesFull`; `NameTooLong`.
    pub fn decide_temporary_queue(
        &self,
        address: &[u8],
        out: &mut Decision,
    ) -> Result<QueueId, Refused> {
        // Who asks for one does not name a queue that should be there.
        self.decide_anycast(self.anycast(address), address, false, out)
    }

    /// The queue of an anycast address, if it is there.
    pub(super) fn anycast(&self, address: &[u8]) -> Option<QueueId> {
        let found = self.resolve(Routing::Anycast, address)?;
        let destination = self.destinations.get(found)?;
        let (durable, volatile) = (&destination.durable, &destination.volatile);
        let queue = durable.first().or_else(|| volatile.first())?;
        Some(QueueId(queue.get()))
    }

    fn decide_anycast(
        &self,
        found: Option<QueueId>,
        address: &[u8],
        is_journaled: bool,
        out: &mut Decision,
    ) -> Result<QueueId, Refused> {
        out.clear();
        if let Some(queue) = found {
            return Ok(queue);
        }
        self.decide_define(Routing::Anycast, address, is_journaled, out)
    }

    #[cold]
    fn decide_define(
        &self,
        routing: Routing,
        address: &[u8],
        is_journaled: bool,
        out: &mut Decision,
    ) -> Result<QueueId, Refused> {
        self.check_definition(self.queues.len(), address, address, &[])?;
        let definition = Definition {
            queue: QueueId(self.next_queue),
            routing,
            flags: QueueFlags {
                is_auto_created: true,
                ..QueueFlags::default()
            },
            is_journaled,
        };
        out.define(definition, address, address, &[]);
        Ok(definition.queue)
    }

    /// Whether a queue can be defined beside so many others.
    pub(super) fn check_definition(
        &self,
        others: usize,
        address: &[u8],
        name: &[u8],
        filter: &[u8],
    ) -> Result<(), Refused> {
        let max = self.limits.queues_max;
        if others >= max {
            return Err(Refused::QueuesFull { max });
        }
        let size = address.len().max(name.len()).max(filter.len());
        let max = NAME_SIZE_MAX;
        if size > max {
            return Err(Refused::NameTooLong { size, max });
        }
        Ok(())
    }

    /// Deletes a queue with all that is in it.
    ///
    /// Errors: `UnknownQueue`.
    #[cold]
    pub fn decide_delete(&self, queue: QueueId, out: &mut Decision) -> Result<(), Refused> {
        out.clear();
        let is_durable = self.is_durable(queue).ok_or(Refused::UnknownQueue)?;
        out.delete(queue, is_durable);
        Ok(())
    }

    /// Repeats the definitions and the ids of messages that lie in segment `upto` or before, so
    /// that it can be freed.
    ///
    /// Returns whether there are more: ask again after these came true.
    #[cold]
    pub fn decide_redefine(&self, upto: SegmentId, out: &mut Decision) -> bool {
        out.clear();
        let mut left: u64 = self
            .bodies
            .segments
            .iter()
            .take_while(|(segment, _)| *segment <= upto)
            .map(|(_, segment_use)| u64::from(segment_use.definitions))
            .sum();
        let mut room = REDEFINED_MAX;
        for queue in self.queues.iter() {
            if left == 0 || room == 0 {
                break;
            }
            let Some(defined) = &queue.defined else {
                continue;
            };
            if defined.segment.is_some_and(|segment| segment <= upto) {
                let destination = self.destinations.at(defined.destination);
                let definition = Definition {
                    queue: queue.id,
                    routing: destination.routing,
                    flags: defined.flags,
                    is_journaled: true,
                };
                let (name, filter) = (&defined.name, &defined.filter);
                out.define(definition, &destination.address, name, filter);
                left -= 1;
                room -= 1;
            }
        }
        // Behind the definitions, so that a replay knows the addresses.
        for (_, destination) in self.destinations.iter() {
            for seen in destination.ids() {
                if left == 0 || room == 0 {
                    return left > 0;
                }
                if seen.segment.is_some_and(|segment| segment <= upto) {
                    out.repeat_id(destination, seen.message, seen.id);
                    left -= 1;
                    room -= 1;
                }
            }
        }
        left > 0
    }

    /// Routes a message and gives it its name.
    ///
    /// Cost: O(queues that take it), no hashing unless the policy purges.
    /// Errors: `UnknownDestination`: the address has no queue any more, or the id is another
    /// machine's.
    pub fn decide_enqueue(
        &self,
        destination: DestinationId,
        is_persistent: bool,
        is_forwarded: bool,
        out: &mut Routed,
    ) -> Result<(), Refused> {
        let destination = self
            .destinations
            .get(destination)
            .ok_or(Refused::UnknownDestination)?;
        let (durable, volatile) = (&destination.durable, &destination.volatile);
        out.start(&Lifetime::from(&*destination.policy), self.message_floor());
        let is_purged = destination.policy.purge_on_no_consumers;
        match destination.routing {
            Routing::Anycast => {
                let queue = durable.first().or_else(|| volatile.first());
                let is_taken = |queue: &&U64| !is_purged || self.is_attended(queue.get());
                out.queues.extend(queue.filter(is_taken));
                out.durable_count = durable.len().min(out.queues.len());
            }
            Routing::Multicast => {
                out.durable_count = durable.len();
                out.queues.extend_from_slice(durable);
                out.queues.extend_from_slice(volatile);
            }
        }
        if let Some(retroactive) = destination.retroactive
            && destination.kept_max() > 0
        {
            keep_in(retroactive, out);
        }
        if let Some(divert) = destination.divert.filter(|_| !is_forwarded) {
            divert_to(divert, &destination.policy, out);
        }
        out.is_journaled = is_persistent && out.durable_count > 0;
        Ok(())
    }

    /// Draws the number of an upload for the fragments of a message to come. It is taken when its
    /// first `Fragment` came true.
    pub const fn next_upload(&self) -> u64 {
        self.next_message
    }

    /// Hands messages of a queue to its consumers: those of the highest priority at the front, in
    /// turns, as far as credit reaches; lower ones come with the next decision.
    ///
    /// Where consumers have filters or messages have groups: what [`Self::poll_dispatch`] found,
    /// whatever its priority.
    ///
    /// One fact, or none if there is nothing to hand over. The deliveries are its effects; it has
    /// to come true before anything else happens to the queue, or be decided again.
    pub fn decide_dispatch(&self, queue: QueueId, out: &mut Decision) {
        out.clear();
        let Some(queue) = self.queues.get(queue).filter(|queue| !queue.is_paused()) else {
            return;
        };
        if queue.is_selective() {
            let planned = queue.planned();
            let entries = planned.iter().filter_map(|one| queue.ready.at(one.spot));
            let has_durable = entries.clone().any(Entry::is_durable);
            // No more than a record holds: evolve wants the plan as a whole.
            let messages = entries.map(|entry| entry.message);
            let is_journaled = has_durable && queue.is_durable();
            out.messages(queue.id, Verb::HandOut, is_journaled, messages);
            return;
        }
        let most = self.limits.dispatch_max.min(queue.ready.len());
        let count = queue.demand(&self.consumers, most);
        if let Some(front) = queue.ready.front(count) {
            let is_journaled = front.has_durable && queue.is_durable();
            out.deliver(queue.id, front, is_journaled);
        }
    }

    /// Ends deliveries for good.
    ///
    /// Errors: `UnknownConsumer`; `UnknownDelivery` if nothing of the selection waits.
    pub fn decide_settle(
        &self,
        consumer: ConsumerId,
        selection: Selection,
        outcome: Outcome,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        out.clear();
        let (queue, selected) = self.select(consumer, selection)?;
        add_messages(queue.id, selected, Verb::Settle(outcome), out);
        Ok(())
    }

    /// Settles what has been handed to the socket, for a consumer with
    /// [`super::Settlement::OnHandover`]: all deliveries up to this tag.
    ///
    /// Errors: see [`Self::decide_settle`].
    pub fn decide_settle_delivered(
        &self,
        consumer: ConsumerId,
        delivery_tag: u64,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        self.decide_settle(
            consumer,
            Selection::Upto(delivery_tag),
            Outcome::Accepted,
            out,
        )
    }

    /// Drops ready messages whose time is over, no more than `dispatch_max` at once.
    ///
    /// Nothing is decided before [`Self::next_expiry_unix_ms`]; there may be more afterwards.
    pub fn decide_expire(&self, now_unix_ms: u64, out: &mut Decision) {
        out.clear();
        let due = self.expiring.due(now_unix_ms);
        self.add_due(due, |queue| self.expired(queue), out);
    }

    /// Makes messages ready whose time has come, no more than `dispatch_max` at once.
    ///
    /// Nothing is decided before [`Self::next_due_unix_ms`]; there may be more afterwards.
    pub fn decide_due(&self, now_unix_ms: u64, out: &mut Decision) {
        out.clear();
        let due = self.waits.due(now_unix_ms);
        self.add_due(due, |_| Verb::Release { ready_unix_ms: 0 }, out);
    }

    /// The first of the messages that are due, by queue and name, no more than `dispatch_max`.
    ///
    /// Panics: if a queue is not there (our own mistake: with it goes what waits in it).
    fn add_due(
        &self,
        due: impl Iterator<Item = (u64, u64)>,
        verb: impl Fn(&QueueState) -> Verb,
        out: &mut Decision,
    ) {
        let mut due: Vec<_> = due.take(self.limits.dispatch_max).collect();
        // A queue at a time, so that its messages share a record.
        due.sort_unstable();
        for run in due.chunk_by(|one, next| one.0 == next.0) {
            let queue = self.queues.get(QueueId(run[0].0));
            let queue = queue.expect("a queue that is gone has no messages that are due");
            let entries = run.iter().map(|(_, message)| queue.waiting(*message));
            add_entries(queue, entries.flatten(), verb(queue), out);
        }
    }

    /// A message on its way to another address is there, or goes nowhere: it leaves its queue.
    /// Nothing decided: it left already.
    pub fn decide_departed(&self, queue: QueueId, message: MessageId, out: &mut Decision) {
        out.clear();
        let Some(queue) = self.queues.get(queue) else {
            return;
        };
        if let Some((entry, Why::Leaving(reason))) = queue.aside.get(message.0) {
            let outcome = match reason {
                Departure::AttemptsExceeded | Departure::Rejected => Outcome::DeadLettered,
                Departure::Expired => Outcome::Expired,
                Departure::Diverted => Outcome::Diverted,
            };
            let entries = core::iter::once(entry);
            add_entries(queue, entries, Verb::Settle(outcome), out);
        }
    }

    /// Drops what is overdue among the messages that [`Self::decide_dispatch`] would take from
    /// this queue; nothing decided: they may be handed out. Then more was overdue than
    /// [`Self::decide_expire`] was asked to drop.
    ///
    /// Cost: O(1) unless something in the shard is overdue.
    pub fn decide_expire_front(&self, queue: QueueId, now_unix_ms: u64, out: &mut Decision) {
        out.clear();
        let next = self.next_expiry_unix_ms();
        let is_any_over = next.is_some_and(|next| next <= now_unix_ms);
        let Some(queue) = self.queues.get(queue).filter(|_| is_any_over) else {
            return;
        };
        let is_overdue = |entry: &&Entry| {
            let known = self.expiring.of(queue.id.0, entry.message);
            known.is_some_and(|(unix_ms, _)| unix_ms <= now_unix_ms)
        };
        let verb = self.expired(queue);
        if queue.is_selective() {
            let planned = queue.planned().iter();
            let planned = planned.filter_map(|one| queue.ready.at(one.spot));
            add_entries(queue, planned.filter(is_overdue), verb, out);
        } else {
            let front = queue.ready.iter().take(self.limits.dispatch_max);
            add_entries(queue, front.filter(is_overdue), verb, out);
        }
    }

    /// Gives delivered messages back to their queue, or sends them on if that was often enough.
    ///
    /// Errors: see [`Self::decide_settle`].
    pub fn decide_release(
        &self,
        consumer: ConsumerId,
        selection: Selection,
        given_back: Return,
        now_unix_ms: u64,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        out.clear();
        let (queue, selected) = self.select(consumer, selection)?;
        self.add_returned(queue, selected, given_back, now_unix_ms, out);
        Ok(())
    }

    /// Gives back all that a consumer holds, and deletes its queue if that was a plain
    /// subscription; [`Self::detach`] follows. What the last one leaves behind in a queue that is
    /// purged goes.
    ///
    /// Errors: `UnknownConsumer`.
    pub fn decide_detach(
        &self,
        id: ConsumerId,
        given_back: Return,
        now_unix_ms: u64,
        out: &mut Decision,
    ) -> Result<(), Refused> {
        out.clear();
        let consumer = self.consumers.resolve(id).ok_or(Refused::UnknownConsumer)?;
        let queue = self
            .queues
            .get(consumer.queue)
            .ok_or(Refused::UnknownQueue)?;
        if !queue.is_durable() && queue.consumers.len() == 1 {
            out.delete(queue.id, false);
        } else if queue.is_purged_without(1) {
            self.decide_purge(queue, out);
        } else {
            let held = consumer.outstanding();
            let held = held.filter(|one| !self.transactions.settles(queue.id, one.message));
            self.add_returned(queue, held, given_back, now_unix_ms, out);
        }
        Ok(())
    }

    /// Empties a queue, whatever it holds, by two records: another one takes its place.
    #[cold]
    fn decide_purge(&self, queue: &QueueState, out: &mut Decision) {
        let Some(defined) = &queue.defined else {
            return;
        };
        let destination = self.destinations.at(defined.destination);
        let definition = Definition {
            queue: QueueId(self.next_queue),
            routing: destination.routing,
            flags: defined.flags,
            is_journaled: queue.is_durable(),
        };
        // In this order the address never loses its last queue, and with it what it remembers.
        let (name, filter) = (&defined.name, &defined.filter);
        out.define(definition, &destination.address, name, filter);
        out.delete(queue.id, queue.is_durable());
    }

    /// Whether somebody is attached to the queue.
    pub(super) fn is_attended(&self, queue: u64) -> bool {
        let queue = self.queues.get(QueueId(queue));
        queue.is_some_and(|queue| !queue.consumers.is_empty() || queue.is_followed)
    }

    /// The queue of a consumer and what is meant of the consumer's deliveries.
    fn select(
        &self,
        id: ConsumerId,
        selection: Selection,
    ) -> Result<(&QueueState, impl Iterator<Item = &Outstanding> + Clone + '_), Refused> {
        let consumer = self.consumers.resolve(id).ok_or(Refused::UnknownConsumer)?;
        let (tag, is_cumulative) = match selection {
            Selection::One(tag) => (Some(tag), false),
            Selection::Upto(tag) => (Some(tag), true),
            Selection::Message(message) => (self.tag_of(id, message.0), false),
            Selection::UptoMessage(message) => (self.tag_of(id, message.0), true),
        };
        let selected = tag.and_then(|tag| consumer.select(tag, is_cumulative));
        let selected = selected.ok_or(Refused::UnknownDelivery)?;
        let queue = consumer.queue;
        // What a transaction settles is settled once, and passed over when all up to one are.
        let selected = selected.filter(move |one| !self.transactions.settles(queue, one.message));
        if selected.clone().next().is_none() {
            return Err(Refused::UnknownDelivery);
        }
        let queue = self.queues.get(queue);
        Ok((queue.ok_or(Refused::UnknownQueue)?, selected))
    }

    /// Messages that are given back, each as its attempts say. Those that fare alike share a
    /// record.
    fn add_returned<'a>(
        &self,
        queue: &QueueState,
        selected: impl Iterator<Item = &'a Outstanding>,
        given_back: Return,
        now_unix_ms: u64,
        out: &mut Decision,
    ) {
        let fates = selected.filter_map(|one| {
            let slot = queue.delivered.find(one.message)?;
            let verb = self.fate(queue, &slot.entry, given_back, now_unix_ms);
            Some((verb, !one.is_journaled, one.message))
        });
        let mut fates: Vec<_> = fates.collect();
        fates.sort_unstable();
        for run in fates.chunk_by(|one, next| (one.0, one.1) == (next.0, next.1)) {
            let (verb, is_volatile, _) = run[0];
            let messages = run.iter().map(|(.., message)| *message);
            out.messages(queue.id, verb, !is_volatile, messages);
        }
    }

    /// The tag under which this consumer holds the message.
    pub(super) fn tag_of(&self, id: ConsumerId, message: u64) -> Option<u64> {
        let queue = self.queues.get(self.consumers.resolve(id)?.queue)?;
        match queue.delivered.find(message)?.holder {
            Holder::Consumer { index, tag } if index == id.index => Some(tag),
            Holder::Consumer { .. } | Holder::Gone | Holder::Locked | Holder::Unassigned => None,
        }
    }
}

/// Messages of a queue that no consumer holds: durable ones of a durable queue make records of the
/// journal, the others the same records beside it.
pub(super) fn add_entries<'a>(
    queue: &QueueState,
    entries: impl Iterator<Item = &'a Entry> + Clone,
    verb: Verb,
    out: &mut Decision,
) {
    for is_journaled in [true, false] {
        let is_kind = |entry: &&Entry| (entry.is_durable() && queue.is_durable()) == is_journaled;
        let messages = entries.clone().filter(is_kind).map(|entry| entry.message);
        out.messages(queue.id, verb, is_journaled, messages);
    }
}

/// Durable messages make records of the journal, the others the same records beside it.
pub(super) fn add_messages<'a>(
    queue: QueueId,
    selected: impl Iterator<Item = &'a Outstanding> + Clone,
    verb: Verb,
    out: &mut Decision,
) {
    for is_journaled in [true, false] {
        let messages = selected
            .clone()
            .filter(|one| one.is_journaled == is_journaled)
            .map(|one| one.message);
        out.messages(queue, verb, is_journaled, messages);
    }
}
