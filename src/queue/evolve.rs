//! Facts come true: live, in replay and on a backup, by this one function.

use core::slice;

use forebay_journal::format::{
    Annotations, Departure, IdList, MessageFields, QueueFlags, Record, Routing, TransactionState,
};
use forebay_journal::{MessageId, QueueId};

use super::arrival::{Arrival, StagedArrival};
use super::aside::{Waits, Why};
use super::bodies::{FragmentPlace, RecordSizes, saturate};
use super::consumer::Consumers;
use super::decision::{Effect, Fact};
use super::delivered::Holder;
use super::destination::Kind;
use super::duplicates::Seen;
use super::entry::{Entry, Place};
use super::machine::{Damaged, MESSAGE_ID_SKIP, Machine, Replayed};
use super::plan::Planned;
use super::state::{Defined, Dirty, QueueState};

impl Machine {
    /// Makes a fact true; `effects` gets what is to be done when it is durable.
    ///
    /// Shape: `at` is where the record lies, if it is journaled, or the slot of the body, if it
    /// is a message that is not, or else [`Place::NONE`].
    /// Cost: no allocation once lists have grown, but for fragments, definitions and transactions.
    /// Panics: on facts that contradict earlier ones (a message that comes twice, a record in a
    /// prepared transaction, an epoch that starts under attached consumers): our own mistake.
    /// Records of an unknown queue or message are ignored: what they were about is gone.
    pub fn evolve(&mut self, fact: &Fact<'_>, at: Place, effects: &mut Vec<Effect>) {
        match fact.record {
            Record::EpochStart { .. }
            | Record::Retained { .. }
            | Record::CleanShutdown { .. }
            | Record::QueueDefine { .. }
            | Record::QueueDelete { .. } => self.evolve_frame(&fact.record, at, effects),
            Record::Message {
                fields,
                annotations,
                queues,
                head,
                body,
            } => {
                let sizes = RecordSizes::of(&head, &body);
                let queues = [queues, fact.volatile_queues];
                let named = (annotations, fact.volatile_id);
                self.enter(&fields, named, sizes, queues, at, effects);
            }
            Record::Fragment { upload, body, .. } => self.stage_fragment(upload, body.size(), at),
            Record::UploadAbandoned { upload } => self.bodies.abandon(upload),
            Record::Delivery {
                queue,
                priority,
                first,
                last,
            } => self.deliver(queue, priority, [first, last], effects),
            Record::Settle {
                queue,
                transaction: 0,
                messages,
                ..
            } => self.settle(queue, messages.messages().map(|id| id.0), effects),
            Record::Settle { .. } => self.stage(&fact.record, at),
            Record::Transaction { transaction, state } => {
                self.transact(transaction, state, at, effects);
            }
            Record::Handout { queue, messages } => self.hand_out(queue, messages, effects),
            Record::Share { queue, pairs } => {
                if let Place::Journal(_) = at {
                    self.await_definition(queue);
                }
                self.share(queue, pairs, effects);
            }
            Record::Release { transaction: 0, .. } | Record::Depart { transaction: 0, .. } => {
                self.move_messages(&fact.record, effects)
            }
            Record::Release { .. } | Record::Depart { .. } => self.stage(&fact.record, at),
            Record::DuplicateId {
                message,
                routing,
                address,
                id,
            } => self.repeat_id((routing, address), message, id, at),
            Record::Moved { .. } => self.move_message(fact, at),
            Record::Checkpoint { .. } | Record::CheckpointMessage { .. } => {
                self.restore(&fact.record, at);
            }
        }
    }

    /// Facts about the journal itself and about which queues there are.
    #[cold]
    fn evolve_frame(&mut self, record: &Record<'_>, at: Place, effects: &mut Vec<Effect>) {
        match *record {
            Record::EpochStart {
                message_floor,
                queue_floor,
                ..
            } => {
                self.end_epoch(effects);
                self.raise_floors(message_floor, queue_floor);
            }
            Record::Retained {
                message_floor: message,
                queue_floor: queue,
                ..
            } => self.raise_floors(message, queue),
            Record::CleanShutdown { .. } => {}
            Record::QueueDefine {
                queue,
                routing,
                flags,
                address,
                name,
                filter,
            } => {
                let name = Name {
                    routing,
                    flags,
                    address,
                    name,
                    filter,
                };
                self.define(queue, at, &name, effects);
            }
            Record::QueueDelete { queue } => self.delete(queue, effects),
            _ => unreachable!("the caller picks the kinds"),
        }
    }

    /// Facts about messages that stay in their queue.
    fn move_messages(&mut self, record: &Record<'_>, effects: &mut Vec<Effect>) {
        match *record {
            Record::Release {
                queue,
                ready_unix_ms,
                messages,
                ..
            } => {
                let messages = messages.messages().map(|message| message.0);
                self.release(queue, ready_unix_ms, messages, effects);
            }
            Record::Depart {
                queue,
                reason,
                messages,
                ..
            } => {
                let messages = messages.messages().map(|message| message.0);
                self.depart(queue, reason, messages);
            }
            _ => unreachable!("no decision makes {:?} yet", record.kind()),
        }
    }

    /// The journal was read to its end: consumers, uploads and undecided transactions of the
    /// last epoch are no more, and new names start far above the old ones.
    ///
    /// Errors: [`Damaged`].
    pub fn finish_replay(&mut self) -> Result<Replayed, Damaged> {
        let mut effects = Vec::new();
        self.end_epoch(&mut effects);
        self.unplaced.clear(&mut self.bodies.segments);
        self.is_replaying = false;
        assert!(effects.is_empty(), "a replay has nothing to do");
        self.next_message = (self.next_message + MESSAGE_ID_SKIP).next_multiple_of(MESSAGE_ID_SKIP);
        let undefined = self.queues.iter().filter(|queue| queue.defined.is_none());
        let damaged = Damaged {
            undefined_queues: undefined.count() as u64,
            incomplete_messages: self.bodies.incomplete_count(),
        };
        if damaged.undefined_queues > 0 || damaged.incomplete_messages > 0 {
            return Err(damaged);
        }
        let sizes = self.queues.iter().map(QueueState::message_count);
        Ok(Replayed {
            queues: self.queues.len() as u64,
            messages: sizes.sum::<usize>() as u64,
            transactions: self.transactions.len() as u64,
        })
    }

    /// What was delivered is ready again, but for what prepared transactions settle.
    #[cold]
    fn end_epoch(&mut self, effects: &mut Vec<Effect>) {
        assert_eq!(self.consumers.len(), 0, "an epoch ends under its consumers");
        self.bodies.abandon_all();
        for transaction in self.transactions.unprepared() {
            self.transact(
                transaction,
                TransactionState::RolledBack,
                Place::NONE,
                effects,
            );
        }
        // Those that are left are prepared.
        let locked = &self.transactions;
        for queue in self.queues.iter_mut() {
            let id = queue.id.0;
            queue.delivered.drain(
                |message| locked.settles(QueueId(id), message),
                &mut self.scratch,
            );
            self.expiring.give_back(id, &self.scratch);
            queue.ready.merge(&mut self.scratch);
            queue.note_ready(&self.scratch);
            self.surplus.note_returned(queue, &self.scratch);
        }
        let leaving = self.queues.iter().flat_map(QueueState::leaving);
        self.waits.restart(leaving);
    }

    fn raise_floors(&mut self, message_floor: MessageId, queue_floor: QueueId) {
        self.next_message = self.next_message.max(message_floor.0);
        self.recorded_message = self.recorded_message.max(message_floor.0);
        self.next_queue = self.next_queue.max(queue_floor.0);
    }

    pub(super) fn draw(&mut self, message: u64, at: Place) {
        self.next_message = self.next_message.max(message + 1);
        if let Place::Journal(_) = at {
            self.recorded_message = self.recorded_message.max(message + 1);
        }
    }

    /// Panics: if a repeated definition changes whether the queue is journaled, or a durable
    /// subscription (our own mistake).
    #[cold]
    fn define(&mut self, id: QueueId, at: Place, name: &Name<'_>, effects: &mut Vec<Effect>) {
        let segment = match at {
            Place::Journal(location) => Some(location.segment()),
            Place::Volatile(_) => None,
        };
        self.next_queue = self.next_queue.max(id.0 + 1);
        if self.queues.get(id).is_none() {
            self.queues.create(id, self.policies.defaults());
        }
        let queue = self
            .queues
            .get_mut(id)
            .expect("created if it was not there");
        if let Some(segment) = segment {
            self.bodies.segments.define(segment);
        }
        if let Some(defined) = &mut queue.defined {
            let former = core::mem::replace(&mut defined.segment, segment);
            assert_eq!(
                former.is_some(),
                segment.is_some(),
                "queue {} changes kind",
                id.0
            );
            former
                .into_iter()
                .for_each(|former| self.bodies.segments.undefine(former));
            return self.redefine(id, name.flags);
        }
        let policy = self.policies.keep(name.address);
        let key = (name.routing, name.address);
        let kind = Kind::of(name.flags, segment);
        let destination = self.destinations.bind(key, id, kind, &policy);
        let bound = self.destinations.at_mut(destination);
        self.unplaced.place(id.0, bound, &mut self.bodies.segments);
        if name.flags.is_subscription {
            self.subscriptions.insert(name.name, id);
        }
        queue.policy = policy;
        queue.defined = Some(Defined {
            destination,
            name: name.name.into(),
            flags: name.flags,
            filter: name.filter.into(),
            segment,
        });
        self.define_late(id);
        if let Some(queue) = self.queues.get_mut(id) {
            self.idle.note(queue);
        }
        self.call_gatherings(id, effects);
    }

    /// What a repeated definition says anew: whether the queue is paused.
    fn redefine(&mut self, id: QueueId, flags: QueueFlags) {
        let Some((queue, dirty)) = self.queues.open(id) else {
            return;
        };
        let defined = queue.defined.as_mut().expect("it was defined before");
        let former = core::mem::replace(&mut defined.flags, flags);
        assert_eq!(
            former.is_subscription, flags.is_subscription,
            "queue {} changes its index",
            id.0
        );
        if flags.is_paused {
            queue.rest(dirty);
            self.idle.end(queue);
        } else if former.is_paused {
            queue.touch(dirty);
            self.idle.note(queue);
        }
    }

    #[cold]
    fn delete(&mut self, id: QueueId, effects: &mut Vec<Effect>) {
        let Some(mut queue) = self.queues.remove(id) else {
            return;
        };
        self.idle.end(&mut queue);
        for index in &queue.consumers {
            let consumer_id = self.consumers.id_of(*index);
            let consumer = self.consumers.remove(*index);
            let consumer = consumer.expect("queues name attached consumers");
            self.watches.end(*index, &consumer);
            effects.push(Effect::Detached {
                link: consumer.link,
                consumer: consumer_id,
                consumer_tag: consumer.tag,
            });
        }
        let delivered = queue.delivered.iter().map(|slot| &slot.entry);
        let aside = queue.aside.iter().map(|(entry, _)| entry);
        self.waits.forget(id, &queue.aside);
        for entry in queue.ready.iter().chain(delivered).chain(aside) {
            self.held.leave(entry);
            self.left += 1;
            self.expiring.leave(id.0, entry);
            self.bodies.leave(entry, effects);
        }
        if let Some(name) = queue.subscription_name() {
            self.subscriptions.remove(name);
        }
        if let Some(defined) = queue.defined {
            let kind = Kind::of(defined.flags, defined.segment);
            let segments = &mut self.bodies.segments;
            self.destinations
                .unbind(defined.destination, id, kind, segments);
            if let Some(segment) = defined.segment {
                self.bodies.segments.undefine(segment);
            }
        }
    }

    fn enter(
        &mut self,
        fields: &MessageFields,
        named: (Annotations<'_>, &[u8]),
        sizes: RecordSizes,
        queues: [IdList<'_>; 2],
        at: Place,
        effects: &mut Vec<Effect>,
    ) {
        self.draw(fields.message.0, at);
        self.times.note(fields.message.0, fields.timestamp_unix_ms);
        let references = (queues[0].len() + queues[1].len()) as u32;
        if references == 0 {
            self.bodies.abandon(fields.upload);
            return;
        }
        if let Place::Journal(_) = at {
            self.await_definitions(queues[0]);
        }
        let entry = self.bodies.enter(fields, sizes, at, references);
        let arrival = Arrival::new(entry, fields.expires_unix_ms, named);
        let ids = queues.iter().flat_map(|list| list.queues()).map(|id| id.0);
        if fields.transaction == 0 {
            let first = queues.iter().flat_map(|list| list.queues()).next();
            self.note_id(first, &arrival);
            ids.for_each(|id| self.insert(&arrival, id, effects));
        } else {
            let queues = ids.collect();
            let is_journaled = matches!(at, Place::Journal(_));
            let arrival = StagedArrival::of(&arrival);
            self.transactions
                .stage_enter(fields.transaction, is_journaled, arrival, queues);
        }
    }

    /// The address of this queue has seen the message, if that has an id. What is staged has not
    /// been seen yet: its transaction may be that of a connection that is gone, whose client sends
    /// it again.
    pub(super) fn note_id(&mut self, queue: Option<QueueId>, arrival: &Arrival<'_>) {
        let entry = &arrival.entry;
        let (id, survives) = match arrival.annotations.duplicate_id {
            [] => (arrival.volatile_id, false),
            id => (id, entry.is_durable()),
        };
        if id.is_empty() {
            return;
        }
        let seen = Seen {
            message: MessageId(entry.message),
            id,
            segment: survives.then(|| entry.segment()),
        };
        let segments = &mut self.bodies.segments;
        let Some(queue) = queue.and_then(|queue| self.queues.get(queue)) else {
            return;
        };
        match &queue.defined {
            Some(defined) => {
                let destination = self.destinations.at_mut(defined.destination);
                destination.note_id(&seen, segments);
            }
            None => self.unplaced.note_of_queue(queue.id.0, &seen, segments),
        }
    }

    /// The record that says an id was about to be freed, or is none: this one says it.
    #[cold]
    fn repeat_id(&mut self, key: (Routing, &[u8]), message: MessageId, id: &[u8], at: Place) {
        let Place::Journal(location) = at else {
            panic!("ids are repeated in the journal");
        };
        let seen = Seen {
            message,
            id,
            segment: Some(location.segment()),
        };
        let segments = &mut self.bodies.segments;
        match self.destinations.find_mut(key.0, key.1) {
            Some(destination) => destination.note_id(&seen, segments),
            None => self.unplaced.note_of_address(key, &seen, segments),
        }
    }

    /// Makes place for queues whose definition comes further on, repeated, because the segment
    /// that held it first was freed.
    pub(super) fn await_definitions(&mut self, queues: IdList<'_>) {
        queues.queues().for_each(|id| self.await_definition(id));
    }

    pub(super) fn await_definition(&mut self, id: QueueId) {
        if self.queues.get(id).is_none() {
            self.next_queue = self.next_queue.max(id.0 + 1);
            self.queues.create(id, self.policies.defaults());
        }
    }

    pub(super) fn insert(&mut self, arrival: &Arrival<'_>, queue: u64, effects: &mut Vec<Effect>) {
        let entry = &arrival.entry;
        let Some((queue, dirty)) = self.queues.open(QueueId(queue)) else {
            self.bodies.leave(entry, effects);
            return;
        };
        queue.bytes += u64::from(entry.size_bytes);
        self.held.enter(entry);
        if queue.is_divert() {
            let why = Why::Leaving(Departure::Diverted);
            return self.waits.insert(queue.id, &mut queue.aside, *entry, why);
        }
        self.expiring
            .enter(queue.id.0, entry.message, arrival.expires_unix_ms);
        let last_value = arrival.annotations.last_value;
        if !last_value.is_empty()
            && let Some(former) = queue.enter_value(last_value, entry.message, entry.is_durable())
        {
            self.surplus.insert_replaced(queue.id, former);
        }
        queue.note_arrival(arrival, &self.consumers);
        let ready_unix_ms = arrival.annotations.deliver_unix_ms;
        if ready_unix_ms == 0 {
            queue.ready.insert(*entry);
            queue.note_ready(slice::from_ref(entry));
            queue.touch(dirty);
            queue.tell(slice::from_ref(entry), effects);
            self.surplus.note_ready(queue);
        } else {
            let why = Why::Delayed { ready_unix_ms };
            self.waits.insert(queue.id, &mut queue.aside, *entry, why);
        }
        self.idle.end(queue);
    }

    /// Panics: if the fragment is not in the journal (our own mistake).
    fn stage_fragment(&mut self, upload: u64, size: usize, at: Place) {
        let Place::Journal(location) = at else {
            panic!("fragments belong to journaled messages");
        };
        self.draw(upload, at);
        let size_bytes = saturate(size as u64);
        let part = FragmentPlace {
            location,
            size_bytes,
        };
        self.bodies.stage_fragment(upload, part);
    }

    /// Every ready message of this priority in the range is delivered once more: to the consumer
    /// whose turn it is, or, in a replay, to one that is no more.
    fn deliver(
        &mut self,
        id: QueueId,
        priority: u8,
        [first, last]: [MessageId; 2],
        effects: &mut Vec<Effect>,
    ) {
        let Some((queue, dirty)) = self.queues.open(id) else {
            return;
        };
        queue
            .ready
            .take(priority, first.0, last.0, &mut self.scratch);
        self.expiring.hold(id.0, &self.scratch);
        queue.note_left(&self.scratch);
        for entry in &self.scratch {
            let is_fragmented = self.bodies.has_fragments(entry);
            let holder = hand_over(queue, &mut self.consumers, entry, is_fragmented, effects);
            queue.delivered.insert(entry.delivered_again(), holder);
        }
        queue.touch_last(dirty);
    }

    /// These ready messages are delivered once more: as it was planned when the fact was decided,
    /// or, in a replay, to consumers that are no more.
    ///
    /// Panics: if the queue has consumers and the plan is another (our own mistake: what was
    /// decided comes true before anything else happens to the queue).
    fn hand_out(&mut self, id: QueueId, messages: IdList<'_>, effects: &mut Vec<Effect>) {
        let Some((queue, dirty)) = self.queues.open(id) else {
            return;
        };
        let found = messages.messages();
        let found = found.filter_map(|message| queue.ready.get(message.0));
        self.scratch.clear();
        self.scratch.extend(found);
        let planned = queue.take_plan(&self.scratch);
        assert!(
            planned.is_some() || queue.consumers.is_empty(),
            "a handout nobody planned"
        );
        self.expiring.hold(id.0, &self.scratch);
        let planned = planned.unwrap_or_default();
        for (at, entry) in self.scratch.iter().enumerate() {
            let is_fragmented = self.bodies.has_fragments(entry);
            let holder = planned.get(at).map_or(Holder::Unassigned, |planned| {
                give(
                    queue,
                    &mut self.consumers,
                    planned,
                    entry,
                    is_fragmented,
                    effects,
                )
            });
            queue.delivered.insert(entry.delivered_again(), holder);
        }
        queue.end_plan(planned);
        queue.ready.remove(&mut self.scratch);
        queue.touch_last(dirty);
    }

    /// Delivered or ready, the messages leave the queue.
    pub(super) fn settle(
        &mut self,
        id: QueueId,
        messages: impl Iterator<Item = u64>,
        effects: &mut Vec<Effect>,
    ) {
        let Some((queue, dirty)) = self.queues.open(id) else {
            return;
        };
        self.scratch.clear();
        for message in messages {
            let taken = take_kept(queue, &mut self.consumers, &mut self.waits, message);
            let Some(entry) = taken else {
                self.scratch.extend(queue.ready.get(message));
                continue;
            };
            queue.bytes -= u64::from(entry.size_bytes);
            self.held.leave(&entry);
            self.left += 1;
            queue.leave_value(message);
            self.expiring.leave(id.0, &entry);
            queue.note_gone(core::iter::once(&entry), &self.consumers);
            self.bodies.leave(&entry, effects);
        }
        queue.ready.remove(&mut self.scratch);
        queue.note_left(&self.scratch);
        queue.note_gone(self.scratch.iter(), &self.consumers);
        self.left += self.scratch.len() as u64;
        for entry in &self.scratch {
            queue.bytes -= u64::from(entry.size_bytes);
            self.held.leave(entry);
            queue.leave_value(entry.message);
            self.expiring.leave(id.0, entry);
            self.bodies.leave(entry, effects);
        }
        queue.touch(dirty);
        self.idle.note(queue);
    }

    /// Delivered, or waiting for their time, the messages are ready again, or wait for this time.
    pub(super) fn release(
        &mut self,
        id: QueueId,
        ready_unix_ms: u64,
        messages: impl Iterator<Item = u64>,
        effects: &mut Vec<Effect>,
    ) {
        let Some((queue, dirty)) = self.queues.open(id) else {
            return;
        };
        self.scratch.clear();
        for message in messages {
            self.transactions.forget(id, message);
            let taken = take_kept(queue, &mut self.consumers, &mut self.waits, message);
            self.scratch.extend(taken);
        }
        self.expiring.give_back(id.0, &self.scratch);
        if ready_unix_ms == 0 {
            return_to_ready(queue, dirty, &mut self.scratch);
            queue.tell(&self.scratch, effects);
        } else {
            let why = Why::Delayed { ready_unix_ms };
            for entry in &self.scratch {
                self.waits.insert(id, &mut queue.aside, *entry, why);
            }
            // Who held them may take others.
            queue.touch(dirty);
        }
        self.surplus.note_returned(queue, &self.scratch);
    }

    /// Wherever they are in their queue, the messages are on their way to another address.
    pub(super) fn depart(
        &mut self,
        id: QueueId,
        reason: Departure,
        messages: impl Iterator<Item = u64>,
    ) {
        let Some((queue, dirty)) = self.queues.open(id) else {
            return;
        };
        self.scratch.clear();
        let mut leaving = Vec::new();
        for message in messages {
            let taken = take_kept(queue, &mut self.consumers, &mut self.waits, message);
            match taken {
                Some(entry) => leaving.push(entry),
                None => self.scratch.extend(queue.ready.get(message)),
            }
        }
        queue.ready.remove(&mut self.scratch);
        queue.note_left(&self.scratch);
        for entry in leaving.iter().chain(&self.scratch) {
            queue.leave_value(entry.message);
            self.expiring.leave(id.0, entry);
            let why = Why::Leaving(reason);
            self.waits.insert(id, &mut queue.aside, *entry, why);
        }
        queue.touch(dirty);
    }
}

/// What a definition says beside who and where.
struct Name<'a> {
    routing: Routing,
    flags: QueueFlags,
    address: &'a [u8],
    name: &'a [u8],
    filter: &'a [u8],
}

/// Gives a message to the consumer whose turn it is.
fn hand_over(
    queue: &mut QueueState,
    consumers: &mut Consumers,
    entry: &Entry,
    is_fragmented: bool,
    effects: &mut Vec<Effect>,
) -> Holder {
    let Some(taker) = queue.next_willing(consumers) else {
        return Holder::Unassigned;
    };
    let planned = Planned::by_turn(entry, taker);
    give(queue, consumers, &planned, entry, is_fragmented, effects)
}

/// Gives a message to a consumer with credit.
fn give(
    queue: &mut QueueState,
    consumers: &mut Consumers,
    planned: &Planned,
    entry: &Entry,
    is_fragmented: bool,
    effects: &mut Vec<Effect>,
) -> Holder {
    let index = planned.taker;
    let is_journaled = entry.is_durable() && queue.is_durable();
    let consumer_id = consumers.id_of(index);
    let tag = consumers.take(index, entry.message, entry.size_bytes, is_journaled);
    let consumer = consumers.at_mut(index);
    let (link, consumer_tag, settlement) = (consumer.link, consumer.tag, consumer.settlement);
    let stays = consumers.available(index) > 0 && queue.is_willing_alone(index);
    if !stays {
        consumers.at_mut(index).is_queued = false;
        queue.end_turn(index);
        queue.welcome_now(index, consumers);
    }
    effects.push(Effect::Deliver {
        link,
        consumer: consumer_id,
        consumer_tag,
        delivery_tag: tag,
        queue: queue.id,
        message: MessageId(entry.message),
        place: entry.place(),
        size_bytes: entry.size_bytes,
        attempts: entry.attempts(),
        is_redelivered: entry.attempts() > 0,
        is_fragmented,
        is_group_first: planned.is_group_first,
        settlement,
    });
    Holder::Consumer { index, tag }
}

/// Takes a delivered message from whoever has it.
fn take_delivered(
    queue: &mut QueueState,
    consumers: &mut Consumers,
    message: u64,
) -> Option<Entry> {
    let slot = queue.delivered.remove(message)?;
    queue.note_let_go(&slot.entry);
    if let Some(index) = consumers.let_go(&slot) {
        queue.welcome(index, consumers);
    }
    Some(slot.entry)
}

/// Takes a message out that is not ready: from whoever has it, or from beside the queue.
fn take_kept(
    queue: &mut QueueState,
    consumers: &mut Consumers,
    waits: &mut Waits,
    message: u64,
) -> Option<Entry> {
    take_delivered(queue, consumers, message)
        .or_else(|| waits.remove(queue.id, &mut queue.aside, message))
}

/// Puts messages back where they were; by now consumers may take them.
fn return_to_ready(queue: &mut QueueState, dirty: &mut Dirty, entries: &mut [Entry]) {
    queue.ready.merge(entries);
    queue.note_ready(entries);
    queue.touch(dirty);
}
