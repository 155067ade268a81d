//! A machine, its journal and the naive model, driven together.

use std::collections::BTreeMap;

use forebay::pattern::Pattern;
use forebay::queue::{
    Attachment, ConsumerId, Credit, Decision, Effect, Fact, FilterId, Limits, Machine, Place,
    Policies, PolicySettings, Queued, Rank, Return, Routed, Selection, Settlement,
};
use forebay_journal::format::{
    Annotations, MessageFields, MessageFlags, Outcome, Parts, Record, Routing,
};
use forebay_journal::{MessageId, QueueId, SegmentId};

use super::journal::{Journal, start_of_epoch};
use super::model::{Back, Message, Queue, RULES, Rules, State};
use super::rewrite::Rewritable;
use super::transaction::Transaction;

const LIMITS: Limits = Limits {
    queues_max: 8,
    consumers_max: 8,
    unsettled_max: 100,
    dispatch_max: 3,
};

fn policies() -> Policies {
    let rules = RULES.iter().map(|rules| {
        let settings = PolicySettings {
            attempts_max: Some(rules.attempts_max.into()),
            dead_letter_address: Some(rules.has_dead_letters.then(|| "dead".into())),
            expiry_address: Some(rules.has_expiry_address.then(|| "over".into())),
            redelivery_delay_ms: Some(rules.delays_ms[0]),
            redelivery_delay_max_ms: Some(rules.delays_ms[3]),
            redelivery_multiplier_thousandths: Some(2000),
            ring_size: (rules.ring_max < usize::MAX).then_some(Some(rules.ring_max as u64)),
            last_value_key: rules.has_keys.then(|| Some("key".into())),
            ..PolicySettings::default()
        };
        (Pattern::parse(rules.address).expect("an address"), settings)
    });
    Policies::new(rules.collect())
}

/// What a message is sent with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) is_persistent: bool,
    pub(crate) delay: u8,
    pub(crate) lifetime: u8,
    pub(crate) key: Option<u8>,
    pub(crate) duplicate_id: Option<u8>,
}

pub(crate) struct Rig {
    pub(crate) machine: Machine,
    journal: Journal,
    pub(crate) queues: Vec<(QueueId, Queue, Option<ConsumerId>)>,
    pub(crate) now: u64,
    next_slot: u32,
    /// Bodies in memory that some queue still needs.
    slots: BTreeMap<u32, u64>,
    decision: Decision,
    /// Departures that were taken and not ended.
    under_way: Vec<(QueueId, MessageId)>,
    pub(crate) transactions: BTreeMap<u64, Transaction>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut rig = Self {
            machine: Machine::new(LIMITS, policies()),
            journal: Journal::new(),
            queues: Vec::new(),
            now: 1000,
            next_slot: 0,
            slots: BTreeMap::new(),
            decision: Decision::new(),
            under_way: Vec::new(),
            transactions: BTreeMap::new(),
        };
        rig.start_epoch();
        for rules in &RULES {
            let address = rules.address.as_bytes();
            let mut decision = Decision::new();
            let queue = rig.machine.decide_queue(address, &mut decision);
            rig.commit(&decision);
            let queue = queue.expect("there is room");
            rig.queues.push((queue, Queue::default(), None));
        }
        rig
    }

    fn start_epoch(&mut self) {
        let start = start_of_epoch(self.journal.oldest(), &self.machine);
        self.apply(&Fact::from(start), Place::NONE);
    }

    fn apply(&mut self, fact: &Fact<'_>, slot: Place) {
        let mut effects = Vec::new();
        let place = if fact.is_journaled {
            self.journal.make_room();
            Place::Journal(self.journal.append(&fact.record))
        } else {
            slot
        };
        self.machine.evolve(fact, place, &mut effects);
        for effect in effects {
            if let Effect::Forget { slot } = effect {
                self.slots.remove(&slot).expect("forgot what it had");
            }
        }
    }

    fn commit(&mut self, decision: &Decision) {
        for fact in decision.facts() {
            self.apply(&fact, Place::NONE);
        }
    }

    /// Decides, commits, and tells whether there was anything.
    pub(crate) fn decide(&mut self, decide: impl FnOnce(&mut Machine, &mut Decision)) -> bool {
        let mut decision = core::mem::take(&mut self.decision);
        decide(&mut self.machine, &mut decision);
        self.commit(&decision);
        let is_any = !decision.is_empty();
        self.decision = decision;
        is_any
    }

    pub(crate) fn send(&mut self, which: usize, sending: &Sending) {
        let rules = &RULES[which];
        let to = self
            .machine
            .resolve(Routing::Anycast, rules.address.as_bytes())
            .expect("the queue is there");
        let id = sending.duplicate_id.as_ref();
        let id = id.map_or(&[][..], core::slice::from_ref);
        let known = sending
            .duplicate_id
            .is_some_and(|id| self.queues[which].1.seen.contains_key(&id));
        assert_eq!(self.machine.is_duplicate(to, id), known, "id {id:?}");
        if known {
            return;
        }
        let mut routed = Routed::new();
        let machine = &self.machine;
        let decided = machine.decide_enqueue(to, sending.is_persistent, false, &mut routed);
        decided.expect("the queue takes it");
        let key = sending.key.filter(|_| rules.has_keys);
        let from_now = |ahead: u8| match ahead {
            0 => 0,
            ahead => self.now + u64::from(ahead),
        };
        let fields = MessageFields {
            body_size: 4,
            priority: 4,
            expires_unix_ms: from_now(sending.lifetime),
            flags: MessageFlags {
                is_durable: sending.is_persistent,
                ..MessageFlags::default()
            },
            ..MessageFields::default()
        };
        let annotations = Annotations {
            deliver_unix_ms: from_now(sending.delay),
            last_value: key.as_slice(),
            duplicate_id: id,
            // Groups change nothing for a consumer that is alone.
            group: routed.message().0 % 3,
            is_group_end: routed.message().0.is_multiple_of(7),
            address: &[],
        };
        let fact = routed.fact(fields, annotations, Parts::EMPTY, Parts::One(b"body"));
        let message = routed.message().0;
        self.next_slot += 1;
        if !fact.is_journaled {
            self.slots.insert(self.next_slot, message);
        }
        self.apply(&fact, Place::Volatile(self.next_slot));
        let state = match annotations.deliver_unix_ms {
            0 => State::Ready,
            at => State::Delayed(at),
        };
        let queue = &mut self.queues[which].1;
        if let Some(id) = sending.duplicate_id {
            queue.seen.insert(id, sending.is_persistent);
        }
        queue.enter(
            message,
            Message {
                state,
                attempts: 0,
                expires_unix_ms: fields.expires_unix_ms,
                key,
                is_durable: sending.is_persistent,
            },
        );
        self.trim();
    }

    /// Hands out all there is to a consumer of the queue.
    pub(crate) fn dispatch(&mut self, which: usize) {
        self.tick(0);
        let (queue, _, consumer) = self.queues[which];
        if consumer.is_none() {
            let attachment = Attachment {
                queue,
                link: 1,
                tag: 0,
                credit: Credit::Unlimited,
                credit_bytes: None,
                settlement: Settlement::ByConsumer,
                rank: Rank::default(),
                // One that takes everything, and has to be asked about it.
                filter: (which % 2 == 1).then_some(FilterId(7)),
            };
            let consumer = self.machine.attach(&attachment).expect("there is room");
            self.queues[which].2 = Some(consumer);
        }
        self.examine();
        while let Some(queue) = self.machine.poll_dispatch() {
            assert!(self.decide(|machine, out| machine.decide_dispatch(queue, out)));
            self.examine();
        }
        for (_, queue, consumer) in &mut self.queues {
            let handed = queue.messages.values_mut();
            let handed = handed.filter(|message| message.state == State::Ready);
            for message in handed.take(if consumer.is_some() { usize::MAX } else { 0 }) {
                message.state = State::Delivered;
                message.attempts += 1;
            }
        }
    }

    fn examine(&mut self) {
        while let Some(examine) = self.machine.poll_examine() {
            let (queue, message) = (examine.queue, examine.message.message);
            self.machine
                .note_examined(queue, examine.filter, message, true);
        }
    }

    pub(crate) fn delivered(&self, which: usize, pick: u8) -> Option<(ConsumerId, u64)> {
        let (_, queue, consumer) = &self.queues[which];
        let held = |id: u64, message: &Message| {
            message.state == State::Delivered && !self.is_staged(which, id)
        };
        let held = queue.ids(held);
        let id = held.get(usize::from(pick) % held.len().max(1))?;
        Some((consumer.expect("somebody holds it"), *id))
    }

    pub(crate) fn ack(&mut self, which: usize, pick: u8) {
        let Some((consumer, id)) = self.delivered(which, pick) else {
            return;
        };
        self.decide(|machine, decision| {
            let selection = Selection::Message(MessageId(id));
            let outcome = Outcome::Accepted;
            let decided = machine.decide_settle(consumer, selection, outcome, decision);
            decided.expect("it holds it");
        });
        self.queues[which].1.leave(id);
    }

    pub(crate) fn give_back(&mut self, which: usize, pick: u8, how: Back) {
        let Some((consumer, id)) = self.delivered(which, pick) else {
            return;
        };
        let now = self.now;
        self.decide(|machine, decision| {
            let selection = Selection::Message(MessageId(id));
            machine
                .decide_release(consumer, selection, return_of(how), now, decision)
                .expect("it holds it");
        });
        self.queues[which].1.give_back(&RULES[which], id, how, now);
        self.trim();
    }

    pub(crate) fn detach(&mut self, which: usize, how: Back) {
        let Some(consumer) = self.queues[which].2.take() else {
            return;
        };
        let now = self.now;
        self.decide(|machine, decision| {
            machine
                .decide_detach(consumer, return_of(how), now, decision)
                .expect("attached");
        });
        self.machine.detach(consumer);
        let staged = self.lock(which);
        let queue = &mut self.queues[which].1;
        for id in queue.ids(|_, message| message.state == State::Delivered) {
            if !staged.contains(&id) {
                queue.give_back(&RULES[which], id, how, now);
            }
        }
        self.trim();
    }

    pub(crate) fn tick(&mut self, ahead: u8) {
        self.now += u64::from(ahead);
        let now = self.now;
        let is_due = |next: Option<u64>| next.is_some_and(|next| next <= now);
        while is_due(self.machine.next_due_unix_ms()) {
            assert!(self.decide(|machine, out| machine.decide_due(now, out)));
        }
        while is_due(self.machine.next_expiry_unix_ms()) {
            assert!(self.decide(|machine, out| machine.decide_expire(now, out)));
        }
        for (rules, (_, queue, _)) in RULES.iter().zip(&mut self.queues) {
            queue.tick(rules, now);
        }
        self.trim();
    }

    pub(crate) fn trim(&mut self) {
        while self.machine.has_surplus() {
            self.decide(|machine, decision| machine.decide_trim(decision));
        }
        for (rules, (_, queue, _)) in RULES.iter().zip(&mut self.queues) {
            queue.trim(rules);
        }
    }

    /// Takes a message on its way; it arrives at once, later, or not.
    pub(crate) fn depart(&mut self, fate: u8) {
        let Some(departing) = self.machine.poll_departure() else {
            return;
        };
        let (queue, message) = (departing.queue, departing.queued.message);
        let index = self.queues.iter().position(|(id, ..)| *id == queue);
        let known = &self.queues[index.expect("known")].1.messages[&message.0];
        assert_eq!(known.state, State::Leaving(departing.reason));
        assert!(departing.address.is_some());
        match fate % 3 {
            0 => self.arrive(queue, message),
            1 => self.machine.put_off_departure(queue, message),
            _ => self.under_way.push((queue, message)),
        }
    }

    pub(crate) fn arrive_late(&mut self) {
        if let Some((queue, message)) = self.under_way.pop() {
            self.arrive(queue, message);
        }
    }

    fn arrive(&mut self, queue: QueueId, message: MessageId) {
        assert!(self.decide(|machine, out| machine.decide_departed(queue, message, out)));
        let known = self.queues.iter_mut().find(|(id, ..)| *id == queue);
        known.expect("known").1.leave(message.0);
    }

    pub(crate) fn reclaim(&mut self) {
        self.journal.seal();
        if let Some(start) = self.machine.replay_start(self.journal.current()) {
            self.begin_replay_at(start);
        }
    }

    /// Begins a checkpoint, or goes on with so many slices of it.
    pub(crate) fn checkpoint(&mut self, slices: u8) {
        let Some(start) = self.machine.checkpoint_start() else {
            self.journal.seal();
            self.machine.begin_checkpoint(self.journal.current());
            return;
        };
        for _ in 0..slices {
            let mut is_more = false;
            self.decide(|machine, out| is_more = machine.decide_checkpoint(out));
            if !is_more {
                self.machine.end_checkpoint();
                return self.begin_replay_at(start);
            }
        }
    }

    fn begin_replay_at(&mut self, oldest: SegmentId) {
        if oldest <= self.journal.oldest() {
            return;
        }
        let upto = SegmentId::ZERO.plus(oldest.get() - 1);
        let mut has_more = true;
        while has_more {
            self.decide(|machine, out| has_more = machine.decide_redefine(upto, out));
        }
        let retained = Fact::from(Record::Retained {
            oldest_segment: oldest,
            message_floor: self.machine.message_floor(),
            queue_floor: self.machine.queue_floor(),
        });
        self.apply(&retained, Place::NONE);
        self.journal.free_before(oldest);
    }

    pub(crate) fn restart(&mut self) {
        self.journal.seal();
        let mut machine = Machine::new(LIMITS, policies());
        let mut effects = Vec::new();
        self.journal.replay(|record, location| {
            let fact = Fact::from(*record);
            machine.evolve(&fact, Place::Journal(location), &mut effects);
        });
        assert_eq!(effects, [], "a replay has nothing to do");
        machine.check_invariants();
        machine.finish_replay().expect("the journal adds up");
        self.machine = machine;
        self.slots.clear();
        self.under_way.clear();
        self.restart_transactions();
        for which in 0..RULES.len() {
            let locked = self.staged(which);
            let (_, queue, consumer) = &mut self.queues[which];
            queue.restart(&locked);
            *consumer = None;
        }
        self.trim();
        self.start_epoch();
    }

    /// The machine against the model.
    pub(crate) fn compare(&self) {
        self.machine.check_invariants();
        for (rules, (id, queue, _)) in RULES.iter().zip(&self.queues) {
            self.compare_queue(rules, *id, queue);
        }
        let volatile = self
            .queues
            .iter()
            .flat_map(|(_, queue, _)| queue.messages.values());
        let volatile = volatile.filter(|message| !message.is_durable).count();
        assert_eq!(self.slots.len(), volatile, "bodies in memory");
    }

    fn compare_queue(&self, rules: &Rules, id: QueueId, queue: &Queue) {
        let all = |state: fn(&State) -> bool| {
            let meant = queue
                .messages
                .iter()
                .filter(move |(_, one)| state(&one.state));
            meant.map(|(id, one)| (*id, one.attempts))
        };
        let seen = |queued: Queued| (queued.message.0, queued.attempts);
        let ready = self.machine.ready(id).map(seen);
        let ready: Vec<_> = ready.collect();
        let expected: Vec<_> = all(|state| *state == State::Ready).collect();
        assert_eq!(ready, expected, "ready of {}", rules.address);
        let unsettled: Vec<_> = self.machine.unsettled(id).map(seen).collect();
        let expected: Vec<_> = all(|state| *state == State::Delivered).collect();
        assert_eq!(unsettled, expected, "unsettled of {}", rules.address);
        let aside = all(|state| matches!(state, State::Delayed(_) | State::Leaving(_))).count();
        let counts = self.machine.counts(id).expect("the queue is there");
        assert_eq!(counts.aside, aside as u64, "aside of {}", rules.address);
        for (message, one) in &queue.messages {
            let is_leaving = self.machine.is_leaving(id, MessageId(*message));
            let expected = matches!(one.state, State::Leaving(_));
            assert_eq!(is_leaving, expected, "{message} of {}", rules.address);
        }
    }
}

impl Rewritable for Rig {
    fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    fn make_true(&mut self, fact: &Fact<'_>) {
        self.apply(fact, Place::NONE);
    }
}

pub(crate) fn return_of(how: Back) -> Return {
    match how {
        Back::Unused => Return::Unused,
        Back::Failed => Return::Failed,
        Back::Refused => Return::Refused,
    }
}
