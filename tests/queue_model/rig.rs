//! The machine under test, its journal and the model, driven in step and compared after each.

use std::collections::{BTreeMap, BTreeSet};

use forebay::queue::{
    Attachment, ConsumerId, Credit, Decision, Effect, Fact, FilterId, Limits, Machine, Place, Rank,
    Refused, Return, Routed, Selection, Settlement, Topic,
};
use forebay_journal::format::{
    Annotations, MessageFields, MessageFlags, Outcome, Parts, QueueFlags, Record, Routing,
};
use forebay_journal::{MessageId, QueueId};

use super::journal::Journal;
use super::model::{Consumer, Message, Model, Queue, State, UNSETTLED_MAX};
use super::selective::policies;

pub(crate) const LIMITS: Limits = Limits {
    queues_max: 9,
    consumers_max: 7,
    unsettled_max: UNSETTLED_MAX as u32,
    dispatch_max: 4,
};

/// Some three messages.
const BYTES_IN_FLIGHT: u64 = 2_000;

pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    pub(crate) journal: Journal,
    pub(crate) decision: Decision,
    pub(crate) routed: Routed,
    /// Consumers by the model's number; those that left stay, to be refused.
    pub(crate) ids: BTreeMap<usize, ConsumerId>,
    pub(crate) slots: BTreeMap<u32, usize>,
    pub(crate) next_slot: u32,
    /// Queue and message of all that was settled durably.
    pub(crate) settled: BTreeSet<(u64, u64)>,
    pub(crate) restarts: u64,
    pub(crate) checkpoints: u64,
    /// What the wall clock shows; it also goes back.
    pub(crate) now: u64,
}

/// Which messages an operation is about, as drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick {
    pub(crate) who: u8,
    pub(crate) which: u8,
    pub(crate) by_message: bool,
    pub(crate) is_cumulative: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) to: u8,
    pub(crate) routing: Routing,
    pub(crate) is_persistent: bool,
    pub(crate) size: u16,
    pub(crate) priority: u8,
    /// Zero for never.
    pub(crate) expires: u8,
    pub(crate) fragments: u8,
    pub(crate) transaction: u64,
    /// Zero for none.
    pub(crate) group: u8,
    pub(crate) is_group_end: bool,
    /// Whether filters are asked as soon as it has come.
    pub(crate) is_asked: bool,
}

impl Sending {
    fn annotations(&self) -> Annotations<'static> {
        Annotations {
            group: self.group.into(),
            is_group_end: self.is_group_end,
            ..Annotations::default()
        }
    }

    fn message(&self, size: u32, place: Place) -> Message {
        Message {
            attempts: 0,
            priority: self.priority,
            expires: self.expires.into(),
            size,
            place,
            state: State::Ready,
            group: self.group.into(),
            is_group_end: self.is_group_end,
            is_closed: false,
        }
    }
}

pub(crate) fn address_of(number: u8) -> String {
    format!("address.{}", number % 3)
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut rig = Self {
            machine: Machine::new(LIMITS, policies()),
            model: Model::new(),
            journal: Journal::new(),
            decision: Decision::new(),
            routed: Routed::new(),
            ids: BTreeMap::new(),
            slots: BTreeMap::new(),
            next_slot: 0,
            settled: BTreeSet::new(),
            restarts: 0,
            checkpoints: 0,
            now: 0,
        };
        rig.start_epoch();
        rig
    }

    /// Appends a record, behind `Retained` where a segment begins, and makes it true.
    pub(crate) fn apply(&mut self, fact: &Fact<'_>, slot: Place) -> (Place, Vec<Effect>) {
        let mut effects = Vec::new();
        let place = if fact.is_journaled {
            self.journal.make_room();
            if self.journal.is_fresh() {
                let retained = Fact::from(Record::Retained {
                    oldest_segment: self.journal.oldest(),
                    message_floor: self.machine.message_floor(),
                    queue_floor: self.machine.queue_floor(),
                });
                self.append(&retained, &mut effects);
            }
            self.append(fact, &mut effects)
        } else {
            self.machine.evolve(fact, slot, &mut effects);
            slot
        };
        for effect in &effects {
            if let Effect::Forget { slot } = effect {
                let left = self.slots.get_mut(slot).expect("forgot more than it had");
                *left -= 1;
                if *left == 0 {
                    self.slots.remove(slot);
                }
            }
        }
        (place, effects)
    }

    pub(crate) fn append(&mut self, fact: &Fact<'_>, effects: &mut Vec<Effect>) -> Place {
        let place = Place::Journal(self.journal.append(&fact.record));
        self.machine.evolve(fact, place, effects);
        let model = &mut self.model;
        let (message, queue) = match fact.record {
            Record::Message { fields, .. } => (fields.message.0 + 1, 0),
            Record::Fragment { upload, .. } => (upload + 1, 0),
            Record::QueueDefine { queue, .. } => (0, queue.0 + 1),
            Record::EpochStart {
                message_floor,
                queue_floor,
                ..
            }
            | Record::Retained {
                message_floor,
                queue_floor,
                ..
            } => (message_floor.0, queue_floor.0),
            _ => (0, 0),
        };
        model.recorded_message = model.recorded_message.max(message);
        model.recorded_queue = model.recorded_queue.max(queue);
        place
    }

    pub(crate) fn apply_decision(&mut self) -> Vec<(Place, Vec<Effect>)> {
        let decision = core::mem::take(&mut self.decision);
        let done = decision
            .facts()
            .map(|fact| self.apply(&fact, Place::NONE))
            .collect();
        self.decision = decision;
        done
    }

    // ---- queues ----

    pub(crate) fn define(&mut self, queue: QueueId, routing: Routing, address: &str, place: Place) {
        let defined_in = match place {
            Place::Journal(location) => Some(location.segment()),
            Place::Volatile(_) => None,
        };
        assert_eq!(queue.0, self.model.next_queue, "queue ids are dense");
        self.model.next_queue += 1;
        let messages = BTreeMap::new();
        let address = address.to_owned();
        let queue_model = Queue {
            routing,
            address,
            defined_in,
            subscription: None,
            messages,
        };
        self.model.queues.insert(queue.0, queue_model);
    }

    /// Opens the queue of an address, made if need be; an anycast one as asked, if it is new.
    fn open(&mut self, routing: Routing, address: &str, is_temporary: bool) -> Option<QueueId> {
        let (durable, volatile) = self.model.routed(routing, address);
        let known = durable.first().or_else(|| volatile.first()).copied();
        let opened = match routing {
            Routing::Anycast if is_temporary => self
                .machine
                .decide_temporary_queue(address.as_bytes(), &mut self.decision),
            Routing::Anycast => self
                .machine
                .decide_queue(address.as_bytes(), &mut self.decision),
            Routing::Multicast => self
                .machine
                .decide_subscription(&Topic::plain(address.as_bytes()), &mut self.decision),
        };
        if let (Routing::Anycast, Some(known)) = (routing, known) {
            assert_eq!(opened, Ok(QueueId(known)));
            assert!(self.decision.is_empty());
            return Some(QueueId(known));
        }
        if routing == Routing::Multicast && self.is_full_of_consumers(opened) {
            return None;
        }
        if self.model.queues.len() >= LIMITS.queues_max {
            assert_eq!(
                opened,
                Err(Refused::QueuesFull {
                    max: LIMITS.queues_max
                })
            );
            return None;
        }
        let queue = opened.expect("there is room");
        let done = self.apply_decision();
        assert_eq!(done.len(), 1);
        self.define(queue, routing, address, done[0].0);
        Some(queue)
    }

    /// A durable queue at a multicast address that is no subscription.
    pub(crate) fn define_durable_topic_queue(&mut self, to: u8) {
        let address = address_of(to);
        let queue = self.machine.queue_floor();
        let fact = Fact::from(Record::QueueDefine {
            queue,
            routing: Routing::Multicast,
            flags: QueueFlags::default(),
            address: address.as_bytes(),
            name: b"durable.0",
            filter: b"",
        });
        if self.model.queues.len() < LIMITS.queues_max {
            let (place, _) = self.apply(&fact, Place::NONE);
            self.define(queue, Routing::Multicast, &address, place);
        }
    }

    pub(crate) fn delete(&mut self, which: u8) {
        let Some(queue) = nth(self.model.queues.keys(), which) else {
            return;
        };
        self.machine
            .decide_delete(QueueId(queue), &mut self.decision)
            .expect("it is there");
        let done = self.apply_decision();
        let consumers = self
            .model
            .consumers
            .values()
            .filter(|c| c.queue == queue)
            .count();
        let detached = |effect: &&Effect| matches!(effect, Effect::Detached { .. });
        assert_eq!(done[0].1.iter().filter(detached).count(), consumers);
        self.model.delete(queue);
        let gone = self
            .machine
            .decide_delete(QueueId(queue), &mut self.decision);
        assert_eq!(gone, Err(Refused::UnknownQueue));
    }

    // ---- messages ----

    pub(crate) fn send(&mut self, sending: &Sending) {
        if self.is_prepared(sending.transaction) {
            return;
        }
        let address = address_of(sending.to);
        let routing = sending.routing;
        if routing == Routing::Anycast && self.open(routing, &address, false).is_none() {
            return;
        }
        let (durable, volatile) = self.model.routed(routing, &address);
        let is_journaled = sending.is_persistent && !durable.is_empty();
        let destination = self.machine.resolve(routing, address.as_bytes());
        let Some(destination) = destination else {
            assert!(durable.is_empty() && volatile.is_empty());
            return;
        };
        let fragments = if is_journaled { sending.fragments } else { 0 };
        let upload = self.upload(fragments);
        let mut routed = core::mem::take(&mut self.routed);
        let decided =
            self.machine
                .decide_enqueue(destination, sending.is_persistent, false, &mut routed);
        assert_eq!(decided, Ok(()));
        assert_eq!(routed.message().0, self.model.next_message);
        assert_eq!(routed.is_journaled(), is_journaled);
        assert_eq!(routed.queue_count(), durable.len() + volatile.len());
        let (head, body) = (b"head:er\n", vec![b'x'; sending.size.into()]);
        let before: u64 = self.upload_bytes(upload);
        let fields = MessageFields {
            transaction: sending.transaction,
            upload,
            body_size: before + body.len() as u64,
            priority: sending.priority,
            expires_unix_ms: sending.expires.into(),
            flags: MessageFlags {
                is_durable: sending.is_persistent,
                ..MessageFlags::default()
            },
            ..MessageFields::default()
        };
        let annotations = sending.annotations();
        let fact = routed.fact(fields, annotations, Parts::One(head), Parts::One(&body));
        if !is_journaled {
            self.next_slot += 1;
            self.slots.insert(self.next_slot, routed.queue_count());
        }
        let (place, _) = self.apply(&fact, Place::Volatile(self.next_slot));
        let own = (head.len() + body.len()) as u32;
        let message = sending.message(own + before as u32, place);
        self.enter(
            routed.message().0,
            upload,
            own,
            [durable, volatile],
            message,
            sending.transaction,
        );
        if sending.is_asked {
            self.examine_new(routed.message().0);
        }
        self.routed = routed;
    }

    fn enter(
        &mut self,
        id: u64,
        upload: u64,
        own: u32,
        [mut queues, volatile]: [Vec<u64>; 2],
        message: Message,
        transaction: u64,
    ) {
        let model = &mut self.model;
        model.next_message = id + 1;
        if let Place::Journal(location) = message.place {
            let mut records = model.uploads.remove(&upload).unwrap_or_default();
            records.push((location.segment(), own));
            model.records.insert(id, records);
        }
        let named = queues.len();
        queues.extend(volatile);
        if transaction == 0 {
            model.insert(id, &queues, &message);
        } else {
            let staged = model.transactions.entry(transaction).or_default();
            staged.steps.push(super::model::Step::Enter {
                id,
                queues,
                named,
                message,
            });
        }
    }

    /// Begins an upload of so many fragments; returns its number, or zero for no fragments.
    pub(crate) fn upload(&mut self, fragments: u8) -> u64 {
        if fragments == 0 {
            return 0;
        }
        let upload = self.machine.next_upload();
        assert_eq!(upload, self.model.next_message);
        self.model.next_message += 1;
        for number in 1..=u64::from(fragments) {
            let body = vec![b'f'; 100 * number as usize];
            let offset = self.upload_bytes(upload);
            let body = Parts::One(&body);
            let fact = Fact::from(Record::Fragment {
                upload,
                offset,
                body,
            });
            let (place, _) = self.apply(&fact, Place::NONE);
            let Place::Journal(location) = place else {
                panic!("journaled")
            };
            let parts = self.model.uploads.entry(upload).or_default();
            parts.push((location.segment(), body.size() as u32));
        }
        upload
    }

    fn upload_bytes(&self, upload: u64) -> u64 {
        let parts = self.model.uploads.get(&upload);
        parts
            .into_iter()
            .flatten()
            .map(|(_, bytes)| u64::from(*bytes))
            .sum()
    }

    pub(crate) fn abandon(&mut self, which: u8) {
        if let Some(upload) = nth(self.model.uploads.keys(), which) {
            self.apply(&Fact::from(Record::UploadAbandoned { upload }), Place::NONE);
            self.model.uploads.remove(&upload);
        }
    }

    // ---- consumers ----

    pub(crate) fn subscribe(&mut self, to: u8, routing: Routing, credit: u8, rank: Rank) {
        if let Some(queue) = self.open(routing, &address_of(to), false) {
            self.attach(queue, credit, rank);
        }
    }

    /// A queue that goes with its last consumer, if the address has none yet.
    pub(crate) fn subscribe_temporary(&mut self, to: u8, credit: u8, rank: Rank) {
        if let Some(queue) = self.open(Routing::Anycast, &address_of(to), true) {
            self.attach(queue, credit, rank);
        }
    }

    /// Attaches to a queue that is there, whatever it is.
    pub(crate) fn join(&mut self, which: u8, credit: u8, rank: Rank) {
        if let Some(queue) = nth(self.model.queues.keys(), which) {
            self.attach(QueueId(queue), credit, rank);
        }
    }

    /// `credit`: messages, 10 and 11 for no limit; from 12 on with a limit in bytes beside it.
    pub(crate) fn attach(&mut self, queue: QueueId, credit: u8, rank: Rank) {
        self.attach_filtered(queue, credit, rank, None);
    }

    pub(crate) fn attach_filtered(
        &mut self,
        queue: QueueId,
        credit: u8,
        rank: Rank,
        filter: Option<u64>,
    ) {
        let credit_bytes = (credit >= 12).then_some(BYTES_IN_FLIGHT);
        let credit = credit % 12;
        let number = self.model.next_consumer;
        let attached = self.machine.attach(&Attachment {
            queue,
            link: number as u64,
            tag: 7,
            credit: if credit > 9 {
                Credit::Unlimited
            } else {
                Credit::Messages(credit.into())
            },
            credit_bytes,
            settlement: Settlement::ByConsumer,
            rank,
            filter: filter.map(FilterId),
        });
        if self.model.consumers.len() >= LIMITS.consumers_max {
            assert_eq!(
                attached,
                Err(Refused::ConsumersFull {
                    max: LIMITS.consumers_max
                })
            );
            return;
        }
        let id = attached.expect("there is room");
        let credit = if credit > 9 {
            LIMITS.unsettled_max
        } else {
            credit.into()
        };
        let consumer = Consumer {
            queue: queue.0,
            rank,
            filter,
            credit,
            credit_bytes,
            is_blocked: false,
            next_tag: 1,
            held: Vec::new(),
        };
        self.model.consumers.insert(number, consumer);
        self.model.note_consumers(queue.0, rank);
        self.ids.insert(number, id);
        self.model.next_consumer += 1;
    }

    /// Any consumer that ever was in this run, with whether it still is.
    pub(crate) fn consumer(&self, who: u8) -> Option<(usize, ConsumerId, bool)> {
        let number = match nth(self.model.consumers.keys(), who) {
            Some(number) if who < 240 => number,
            _ => nth(self.ids.keys(), who)?,
        };
        Some((
            number,
            self.ids[&number],
            self.model.consumers.contains_key(&number),
        ))
    }

    pub(crate) fn add_credit(&mut self, who: u8, messages: u8) {
        let Some((number, id, is_there)) = self.consumer(who) else {
            return;
        };
        let added = self.machine.add_credit(id, messages.into());
        assert_eq!(added.is_ok(), is_there);
        if let Some(consumer) = self.model.consumers.get_mut(&number) {
            consumer.credit = (consumer.credit + u32::from(messages)).min(LIMITS.unsettled_max);
        }
    }

    pub(crate) fn set_blocked(&mut self, who: u8, is_blocked: bool) {
        let Some((number, id, is_there)) = self.consumer(who) else {
            return;
        };
        let done = if is_blocked {
            self.machine.block(id)
        } else {
            self.machine.unblock(id)
        };
        assert_eq!(done.is_ok(), is_there);
        if let Some(consumer) = self.model.consumers.get_mut(&number) {
            consumer.is_blocked = is_blocked;
        }
    }

    pub(crate) fn detach(&mut self, who: u8) {
        let Some((number, id, is_there)) = self.consumer(who) else {
            return;
        };
        let decided = self
            .machine
            .decide_detach(id, Return::Unused, 0, &mut self.decision);
        if !is_there {
            assert_eq!(decided, Err(Refused::UnknownConsumer));
            return self.machine.detach(id);
        }
        decided.expect("it is there");
        self.apply_decision();
        self.machine.detach(id);
        let queue = self.model.consumers[&number].queue;
        let is_alone = self
            .model
            .consumers
            .values()
            .filter(|c| c.queue == queue)
            .count()
            == 1;
        if self.model.queues[&queue].defined_in.is_none() && is_alone {
            return self.model.delete(queue);
        }
        let plain = self.model.plainly_held(&self.model.consumers[&number]);
        let all: Vec<usize> = (0..self.model.consumers[&number].held.len()).collect();
        let (plain, staged): (Vec<_>, Vec<_>) = self
            .model
            .take(number, &all)
            .into_iter()
            .partition(|id| plain.contains(id));
        self.model.release(queue, &plain);
        for id in staged {
            let messages = &mut self
                .model
                .queues
                .get_mut(&queue)
                .expect("consumed")
                .messages;
            messages.get_mut(&id).expect("held").state = State::Locked;
        }
        let rank = self.model.consumers[&number].rank;
        self.model.consumers.remove(&number);
        self.model.note_consumers(queue, rank);
    }

    // ---- settlements ----

    pub(crate) fn selection(&self, consumer: &Consumer, pick: &Pick) -> Selection {
        let tag = u64::from(pick.which) % (consumer.next_tag + 2);
        let held = nth(consumer.held.iter().map(|(_, id)| id), pick.which);
        let message = MessageId(
            held.filter(|_| pick.which < 200)
                .unwrap_or_else(|| pick.which.into()),
        );
        // Mostly what is held; now and then anything.
        let tag = match nth(consumer.held.iter().map(|(tag, _)| tag), pick.which) {
            Some(held) if !pick.which.is_multiple_of(4) => held,
            _ => tag,
        };
        match (pick.by_message, pick.is_cumulative) {
            (false, false) => Selection::One(tag),
            (false, true) => Selection::Upto(tag),
            (true, false) => Selection::Message(message),
            (true, true) => Selection::UptoMessage(message),
        }
    }

    /// Acknowledges or, if `is_release`, gives back.
    pub(crate) fn answer(&mut self, pick: &Pick, is_release: bool) {
        let Some((number, id, is_there)) = self.consumer(pick.who) else {
            return;
        };
        if !is_there {
            let one = Selection::One(1);
            let refused =
                self.machine
                    .decide_release(id, one, Return::Unused, 0, &mut self.decision);
            return assert_eq!(refused, Err(Refused::UnknownConsumer));
        }
        let consumer = &self.model.consumers[&number];
        let (queue, selection) = (consumer.queue, self.selection(consumer, pick));
        let positions = self.positions(consumer, selection);
        let decided = if is_release {
            self.machine
                .decide_release(id, selection, Return::Unused, 0, &mut self.decision)
        } else {
            self.machine
                .decide_settle(id, selection, Outcome::Accepted, &mut self.decision)
        };
        if positions.is_empty() {
            assert_eq!(decided, Err(Refused::UnknownDelivery));
            return assert!(self.decision.is_empty());
        }
        decided.expect("something is selected");
        self.check_facts(number, &positions);
        self.apply_decision();
        let taken = self.model.take(number, &positions);
        if is_release {
            return self.model.release(queue, &taken);
        }
        for message in taken {
            self.model.settle(queue, message);
            self.settled.insert((queue, message));
        }
    }

    /// Positions of what is selected and not settled in a transaction already.
    pub(crate) fn positions(&self, consumer: &Consumer, selection: Selection) -> Vec<usize> {
        let mut positions = consumer.select(selection);
        let (queue, held) = (consumer.queue, &consumer.held);
        positions.retain(|at| !self.model.is_staged(queue, held[*at].1));
        positions
    }

    /// The decided facts name just these messages, and journal just those a restart must know.
    pub(crate) fn check_facts(&self, number: usize, positions: &[usize]) {
        let consumer = &self.model.consumers[&number];
        let queue = &self.model.queues[&consumer.queue];
        let expected = positions.iter().map(|at| consumer.held[*at].1).map(|id| {
            let is_durable = queue.defined_in.is_some() && queue.messages[&id].is_durable();
            (id, is_durable)
        });
        let mut found = BTreeMap::new();
        for fact in self.decision.facts() {
            let (Record::Settle { messages, .. } | Record::Release { messages, .. }) = fact.record
            else {
                panic!("not about messages: {:?}", fact.record);
            };
            found.extend(messages.messages().map(|id| (id.0, fact.is_journaled)));
        }
        assert_eq!(found, expected.collect::<BTreeMap<_, _>>());
    }
}

pub(crate) fn nth<'a, T: Copy + 'a>(
    items: impl ExactSizeIterator<Item = &'a T>,
    which: u8,
) -> Option<T> {
    let mut items = items;
    let count = items.len().max(1);
    items.nth(usize::from(which) % count).copied()
}
