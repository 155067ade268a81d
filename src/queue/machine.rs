//! The machine: its parts, its consumers, and what it tells about itself.

use core::fmt;

use forebay_journal::format::{Departure, PRIORITY_MAX, QueueFlags, Routing};
use forebay_journal::{MessageId, QueueId, SegmentId};

use super::allowance::Allowance;
use super::aside::{Departing, Waits, Why};
use super::bodies::{Bodies, FragmentPlace};
use super::checkpoint::Checkpoint;
use super::consumer::{Attachment, ConsumerId, Consumers, Rank};
use super::decision::{IDS_PER_RECORD_MAX, Refused};
use super::destination::{DestinationId, Destinations};
use super::duplicates::Unplaced;
use super::entry::{Entry, Queued};
use super::expiring::Expiring;
use super::idle::Idle;
use super::policy::{Policies, Policy};
use super::quota::{Held, Quotas};
use super::segments::SegmentUse;
use super::slow::Watches;
use super::state::Queues;
use super::subscription::Subscriptions;
use super::surplus::Surplus;
use super::times::Times;
use super::transaction::Transactions;
use crate::limits;

/// Bounds of one shard's machine. Commands beyond them are refused; facts never are.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most queues, subscriptions to topics included.
    pub queues_max: usize,
    /// Most consumers.
    pub consumers_max: usize,
    /// Most messages one consumer holds unsettled.
    pub unsettled_max: u32,
    /// Most deliveries of one queue in one decision.
    pub dispatch_max: usize,
}

impl Limits {
    /// Those of a broker.
    pub const OF_BROKER: Self = Self {
        queues_max: limits::QUEUES_MAX as usize,
        consumers_max: limits::CONSUMERS_MAX as usize,
        unsettled_max: limits::PREFETCH_MAX,
        dispatch_max: limits::DISPATCH_MAX as usize,
    };
}

/// A place in the order of delivery: that of the message a browser saw last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrowsePlace {
    /// Its priority.
    pub priority: u8,
    /// Its name.
    pub message: MessageId,
}

impl BrowsePlace {
    /// Before all messages.
    pub const START: Self = Self {
        priority: PRIORITY_MAX,
        message: MessageId(0),
    };
}

/// Counts of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that wait.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unsettled: u64,
    /// Messages that wait for their time, or are on their way to another address.
    pub aside: u64,
    /// Bytes of both, heads and whole bodies.
    pub bytes: u64,
    /// Consumers attached.
    pub consumers: u64,
}

/// What a replay found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Queues.
    pub queues: u64,
    /// Messages in them; one in two queues counts twice.
    pub messages: u64,
    /// Prepared transactions that wait for their coordinator.
    pub transactions: u64,
}

/// The journal was read to its end and does not add up: facts are missing in its middle. The
/// world's fault (or a bug of reclaim); the shard must not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Queues that messages name and no record defines.
    pub undefined_queues: u64,
    /// Messages of which fragments are missing.
    pub incomplete_messages: u64,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "facts are missing: {} queues without definition, {} messages without all fragments",
            self.undefined_queues, self.incomplete_messages
        )
    }
}

impl core::error::Error for Damaged {}

/// All queues of one shard.
#[derive(Debug)]
pub struct Machine {
    pub(super) limits: Limits,
    pub(super) policies: Policies,
    pub(super) queues: Queues,
    pub(super) subscriptions: Subscriptions,
    pub(super) destinations: Destinations,
    pub(super) consumers: Consumers,
    pub(super) bodies: Bodies,
    pub(super) transactions: Transactions,
    pub(super) expiring: Expiring,
    pub(super) waits: Waits,
    pub(super) unplaced: Unplaced,
    pub(super) surplus: Surplus,
    pub(super) times: Times,
    pub(super) idle: Idle,
    pub(super) watches: Watches,
    /// What its queues hold.
    pub(super) held: Held,
    /// Messages that left queues, ever.
    pub(super) left: u64,
    /// What it may hold, if that is limited over all addresses.
    pub(super) quotas: Option<Box<Quotas>>,
    pub(super) next_message: u64,
    pub(super) next_queue: u64,
    /// Ids below this one are in use as far as the journal knows.
    pub(super) recorded_message: u64,
    pub(super) scratch: Vec<Entry>,
    /// The one that is being written.
    pub(super) checkpoint: Option<Box<Checkpoint>>,
    /// Memory of the last one.
    pub(super) spare_checkpoint: Option<Box<Checkpoint>>,
    /// The last segment with records of a checkpoint.
    pub(super) said_upto: SegmentId,
    /// Whether facts come from a journal that was not read to its end: only then a checkpoint says
    /// anything new.
    pub(super) is_replaying: bool,
}

/// Ids that a restart skips: more than were ever drawn since the journal last heard of one.
pub(super) const MESSAGE_ID_SKIP: u64 = 1 << 32;

impl Machine {
    /// An empty shard, before its replay if it has one.
    pub fn new(limits: Limits, policies: Policies) -> Self {
        Self {
            limits,
            policies,
            queues: Queues::default(),
            subscriptions: Subscriptions::default(),
            destinations: Destinations::default(),
            consumers: Consumers::default(),
            bodies: Bodies::default(),
            transactions: Transactions::default(),
            expiring: Expiring::default(),
            waits: Waits::default(),
            unplaced: Unplaced::default(),
            surplus: Surplus::default(),
            times: Times::default(),
            idle: Idle::default(),
            watches: Watches::default(),
            held: Held::default(),
            left: 0,
            quotas: None,
            next_message: 1,
            next_queue: 1,
            recorded_message: 1,
            scratch: Vec::new(),
            checkpoint: None,
            spare_checkpoint: None,
            said_upto: SegmentId::ZERO,
            is_replaying: true,
        }
    }

    /// Attaches a consumer to a queue.
    ///
    /// Errors: `UnknownQueue`; `ConsumersFull`.
    pub fn attach(&mut self, attachment: &Attachment) -> Result<ConsumerId, Refused> {
        self.attach_to(attachment, None)
    }

    pub(super) fn attach_to(
        &mut self,
        attachment: &Attachment,
        gathering: Option<u32>,
    ) -> Result<ConsumerId, Refused> {
        self.check_consumers_max()?;
        let Some((queue, dirty)) = self.queues.open(attachment.queue) else {
            return Err(Refused::UnknownQueue);
        };
        let most = self.limits.unsettled_max;
        let allowance = Allowance::new(attachment.credit.most(most), attachment.credit_bytes, most);
        let rank = Rank {
            is_exclusive: attachment.rank.is_exclusive || queue.policy.is_exclusive,
            ..attachment.rank
        };
        let id = self
            .consumers
            .insert(attachment, rank, allowance, gathering);
        self.idle.end(queue);
        if queue.is_watched() {
            self.watches.begin(id);
        }
        queue.join(id.index, &mut self.consumers);
        queue.touch(dirty);
        Ok(id)
    }

    /// Detaches a consumer after the facts of [`Self::decide_detach`] came true. One that is gone
    /// already (its queue was deleted) is none of its business. What it settled in transactions
    /// that are still open waits for their end.
    ///
    /// Panics: if the consumer still holds messages (our own mistake: see above).
    pub fn detach(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.resolve(id) else {
            return;
        };
        assert_eq!(
            consumer.allowance.unsettled, consumer.allowance.staged,
            "a consumer that goes holds messages"
        );
        if let Some((queue, dirty)) = self.queues.open(consumer.queue) {
            for one in consumer.outstanding() {
                queue.delivered.lock(one.message);
            }
            queue.part(id.index, &mut self.consumers);
            queue.touch(dirty);
            self.idle.note(queue);
        }
        if let Some(gone) = self.consumers.remove(id.index) {
            self.watches.end(id.index, &gone);
        }
    }

    /// Widens the window of a consumer by `messages`, up to the machine's limit.
    ///
    /// Errors: `UnknownConsumer`.
    pub fn add_credit(&mut self, id: ConsumerId, messages: u32) -> Result<(), Refused> {
        let max = self.limits.unsettled_max;
        let consumer = self
            .consumers
            .resolve_mut(id)
            .ok_or(Refused::UnknownConsumer)?;
        let credit = &mut consumer.allowance.credit;
        *credit = credit.saturating_add(messages).min(max);
        self.welcome(id);
        Ok(())
    }

    /// Gives a consumer nothing more: its connection's output window is full.
    ///
    /// Errors: `UnknownConsumer`.
    pub fn block(&mut self, id: ConsumerId) -> Result<(), Refused> {
        let consumer = self
            .consumers
            .resolve_mut(id)
            .ok_or(Refused::UnknownConsumer)?;
        consumer.is_blocked = true;
        let queue = consumer.queue;
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.unplan();
        }
        Ok(())
    }

    /// Undoes [`Self::block`].
    ///
    /// Errors: `UnknownConsumer`.
    pub fn unblock(&mut self, id: ConsumerId) -> Result<(), Refused> {
        let consumer = self
            .consumers
            .resolve_mut(id)
            .ok_or(Refused::UnknownConsumer)?;
        consumer.is_blocked = false;
        self.welcome(id);
        Ok(())
    }

    fn welcome(&mut self, id: ConsumerId) {
        let queue = self.consumers.at(id.index).queue;
        if let Some((queue, dirty)) = self.queues.open(queue) {
            queue.welcome(id.index, &mut self.consumers);
            queue.touch(dirty);
        }
    }

    /// The next queue with messages and takers; [`Self::decide_dispatch`] is due for it. It stays
    /// the next until that fact came true, so a turn may end here when the journal is full. A
    /// queue with more work than one decision holds comes again after the others.
    pub fn poll_dispatch(&mut self) -> Option<QueueId> {
        let max = self.limits.dispatch_max.min(IDS_PER_RECORD_MAX);
        loop {
            let woken = self.wake_thirsty();
            let found = self.queues.poll_dirty(&mut self.consumers, max);
            if found.is_some() || !woken || self.queues.is_searching() {
                return found;
            }
        }
    }

    /// Whether [`Self::poll_dispatch`] found nothing because it looked for long enough: there may
    /// be more in the next turn.
    pub const fn is_searching(&self) -> bool {
        self.queues.is_searching()
    }

    /// Lets the others have their turns before the next queue to dispatch, which is this one.
    pub fn pass_turn(&mut self, queue: QueueId) {
        if let Some((queue, dirty)) = self.queues.open(queue) {
            queue.touch_last(dirty);
        }
    }

    /// Queues that [`Self::poll_dispatch`] has to look at: the bound of one turn.
    pub fn dirty_count(&self) -> usize {
        self.queues.dirty_count()
    }

    /// The queues behind an address, if there are any.
    pub fn resolve(&self, routing: Routing, address: &[u8]) -> Option<DestinationId> {
        self.destinations.resolve(routing, address)
    }

    /// Whether the address has seen a message with this id: then the message sent now is the same.
    pub fn is_duplicate(&self, destination: DestinationId, id: &[u8]) -> bool {
        let destination = self.destinations.get(destination);
        destination.is_some_and(|destination| destination.knows_id(id))
    }

    /// The policy of an address.
    pub fn policy_of(&self, destination: DestinationId) -> Option<&Policy> {
        Some(&self.destinations.get(destination)?.policy)
    }

    /// The wall-clock milliseconds from which on [`Self::decide_expire`] has something to do.
    pub fn next_expiry_unix_ms(&self) -> Option<u64> {
        self.expiring.next_unix_ms()
    }

    /// The wall-clock milliseconds from which on [`Self::decide_due`] has something to do.
    pub fn next_due_unix_ms(&self) -> Option<u64> {
        self.waits.next_unix_ms()
    }

    /// The next message to be sent to another address: once each, until the process ends or
    /// [`Self::put_off_departure`].
    pub fn poll_departure(&mut self) -> Option<Departing> {
        loop {
            let (queue, message) = self.waits.pop_departure()?;
            if let Some(departing) = self.departing(queue, message) {
                return Some(departing);
            }
        }
    }

    /// Whether [`Self::poll_departure`] may have something.
    pub fn has_departures(&self) -> bool {
        self.waits.has_departures()
    }

    /// The message could not be sent on; it comes again.
    pub fn put_off_departure(&mut self, queue: QueueId, message: MessageId) {
        self.waits.push_departure(queue, message);
    }

    fn departing(&self, id: QueueId, message: MessageId) -> Option<Departing> {
        let queue = self.queues.get(id)?;
        let (entry, Why::Leaving(reason)) = queue.aside.get(message.0)? else {
            return None;
        };
        let policy = &queue.policy;
        let address = match reason {
            Departure::AttemptsExceeded | Departure::Rejected => &policy.dead_letter_address,
            Departure::Expired => &policy.expiry_address,
            Departure::Diverted => &policy.divert_address,
        };
        Some(Departing {
            queue: id,
            queued: self.queued(entry),
            reason: *reason,
            address: address.clone(),
        })
    }

    /// Whether the message is in the queue, on its way to another address.
    pub fn is_leaving(&self, queue: QueueId, message: MessageId) -> bool {
        self.departing(queue, message).is_some()
    }

    /// Address of a queue, UTF-8.
    pub fn address(&self, queue: QueueId) -> Option<&[u8]> {
        self.address_of(self.queues.get(queue)?)
    }

    /// Whether the consumer is still attached.
    pub fn has_consumer(&self, id: ConsumerId) -> bool {
        self.consumers.resolve(id).is_some()
    }

    /// Whether this delivery still waits for its settlement.
    pub fn is_outstanding(&self, id: ConsumerId, delivery_tag: u64) -> bool {
        let consumer = self.consumers.resolve(id);
        consumer.is_some_and(|consumer| consumer.select(delivery_tag, false).is_some())
    }

    /// Whether the queue survives the process; none if it is not there.
    pub fn is_durable(&self, queue: QueueId) -> Option<bool> {
        Some(self.queues.get(queue)?.is_durable())
    }

    /// Name of a queue for people and clients, UTF-8.
    pub fn name(&self, queue: QueueId) -> Option<&[u8]> {
        Some(&self.queues.get(queue)?.defined.as_ref()?.name)
    }

    /// What the operator wants of a queue.
    pub fn policy(&self, queue: QueueId) -> Option<&Policy> {
        Some(&self.queues.get(queue)?.policy)
    }

    /// Selector that the messages of a queue meet, as its definition has it; empty for all
    /// messages.
    pub fn filter(&self, queue: QueueId) -> Option<&[u8]> {
        Some(&self.queues.get(queue)?.defined.as_ref()?.filter)
    }

    /// Properties of a queue, as its definition has them.
    pub fn flags(&self, queue: QueueId) -> Option<QueueFlags> {
        Some(self.queues.get(queue)?.defined.as_ref()?.flags)
    }

    /// Ids of all queues, in no order that means anything, but the same after the same facts.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.queues.iter().map(|queue| queue.id)
    }

    /// Counts of a queue.
    pub fn counts(&self, queue: QueueId) -> Option<QueueCounts> {
        let queue = self.queues.get(queue)?;
        Some(QueueCounts {
            ready: queue.ready.len() as u64,
            unsettled: queue.delivered.len() as u64,
            aside: queue.aside.len() as u64,
            bytes: queue.bytes,
            consumers: queue.consumers.len() as u64,
        })
    }

    /// The ready messages of a queue in the order in which they are delivered: by priority, the
    /// highest first, then by id.
    pub fn ready(&self, queue: QueueId) -> impl Iterator<Item = Queued> + '_ {
        let entries = self.queues.get(queue).map(|queue| queue.ready.iter());
        entries
            .into_iter()
            .flatten()
            .map(|entry| self.queued(entry))
    }

    /// The ready messages of a queue that come behind this place in the order of delivery.
    pub fn ready_after(
        &self,
        queue: QueueId,
        place: BrowsePlace,
    ) -> impl Iterator<Item = Queued> + '_ {
        let entries = self.queues.get(queue).map(|queue| {
            let BrowsePlace { priority, message } = place;
            queue.ready.iter_after(priority, message.0)
        });
        entries
            .into_iter()
            .flatten()
            .map(|entry| self.queued(entry))
    }

    /// The first `most` ready messages of a queue named higher than this one, in the order of their
    /// names, whatever their priority.
    pub fn ready_since(&self, queue: QueueId, after: MessageId, most: usize) -> Vec<Queued> {
        let queue = self.queues.get(queue);
        let mut found: Vec<_> = queue.map_or(Vec::new(), |queue| {
            queue.ready.since(after.0, most).copied().collect()
        });
        found.sort_unstable_by_key(|entry| entry.message);
        found.truncate(most);
        found.iter().map(|entry| self.queued(entry)).collect()
    }

    /// A name below which no message came at this time or later, in wall-clock milliseconds; not
    /// far below the first that did, unless the clock was set back.
    pub fn before_time(&self, unix_ms: u64) -> MessageId {
        MessageId(self.times.before(unix_ms))
    }

    /// The ready message of this name.
    pub fn find_ready(&self, queue: QueueId, message: MessageId) -> Option<Queued> {
        let entry = self.queues.get(queue)?.ready.get(message.0)?;
        Some(self.queued(entry))
    }

    /// Whether to tell of each message that gets ready in a queue: [`super::Effect::Arrived`].
    pub fn set_followed(&mut self, queue: QueueId, is_followed: bool) {
        let Some(queue) = self.queues.get_mut(queue) else {
            return;
        };
        queue.is_followed = is_followed;
        if is_followed {
            self.idle.end(queue);
        } else {
            self.idle.note(queue);
        }
    }

    /// Whether the message is in the queue, ready or delivered and not settled.
    pub fn holds(&self, queue: QueueId, message: MessageId) -> bool {
        self.queues.get(queue).is_some_and(|queue| {
            queue.ready.get(message.0).is_some() || queue.delivered.find(message.0).is_some()
        })
    }

    /// The delivered and not settled messages of a queue, sorted by id.
    pub fn unsettled(&self, queue: QueueId) -> impl Iterator<Item = Queued> + '_ {
        let slots = self.queues.get(queue).map(|queue| queue.delivered.iter());
        slots
            .into_iter()
            .flatten()
            .map(|slot| self.queued(&slot.entry))
    }

    pub(super) fn queued(&self, entry: &Entry) -> Queued {
        Queued {
            message: MessageId(entry.message),
            place: entry.place(),
            size_bytes: entry.size_bytes,
            attempts: entry.attempts(),
            priority: entry.priority(),
            is_fragmented: self.bodies.has_fragments(entry),
        }
    }

    /// Where the first part of a message's body lies, in order; empty if it has no fragments.
    pub fn fragments(&self, message: MessageId) -> &[FragmentPlace] {
        self.bodies.fragments(message)
    }

    /// What a segment is still needed for.
    pub fn segment_use(&self, segment: SegmentId) -> SegmentUse {
        self.bodies.segments.of(segment)
    }

    /// The oldest segment with a record that must stay; none if no segment has one. Definitions
    /// do not hold a segment: [`Self::decide_redefine`] repeats them.
    ///
    /// Cost: O(segments).
    pub fn oldest_live_segment(&self) -> Option<SegmentId> {
        self.segments_in_use().next().map(|(segment, _)| segment)
    }

    /// Segments with records that must stay, and what they are needed for.
    pub fn segments_in_use(&self) -> impl Iterator<Item = (SegmentId, SegmentUse)> + '_ {
        let segments = self.bodies.segments.iter();
        segments.filter(|(_, segment)| segment.references > 0)
    }

    /// Whether a segment lost the last record that must stay since this was asked last.
    pub fn take_emptied(&mut self) -> bool {
        self.bodies.segments.take_emptied()
    }

    /// Ids below this one may be in use: for the records that carry floors.
    pub const fn message_floor(&self) -> MessageId {
        MessageId(self.next_message)
    }

    /// Ids below this one may be in use: for the records that carry floors.
    pub const fn queue_floor(&self) -> QueueId {
        QueueId(self.next_queue)
    }

    /// Whether volatile messages have drawn so many ids since the journal last heard of one that
    /// a record with floors (`Retained`) is due, before a restart could use an id again.
    pub const fn needs_floor(&self) -> bool {
        self.next_message - self.recorded_message >= MESSAGE_ID_SKIP / 2
    }
}
