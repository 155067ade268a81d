//! Random histories of topics that keep their last messages, with restarts: what new subscriptions
//! get of them, live, replayed and by a naive model.
//!
//! `FOREBAY_QUEUE_HISTORIES=100000 cargo test --test queue_kept` runs longer.

#[allow(dead_code, reason = "the other model tests use the rest of it")]
#[path = "queue_model/journal.rs"]
mod journal;
#[path = "queue_model/rewrite.rs"]
mod rewrite;

use std::collections::{BTreeMap, BTreeSet};

use forebay::pattern::Pattern;
use forebay::queue::{
    Decision, Effect, Fact, Limits, Machine, Place, Policies, PolicySettings, Routed, Topic,
};
use forebay_journal::format::{
    Annotations, IdList, MessageFields, MessageFlags, Outcome, Parts, Record, Routing,
};
use forebay_journal::{MessageId, QueueId, SegmentId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use zerocopy::little_endian::U64;

use journal::{Journal, start_of_epoch};

const LIMITS: Limits = Limits {
    queues_max: 12,
    consumers_max: 8,
    unsettled_max: 100,
    dispatch_max: 3,
};
/// The most that each of the topics keeps.
const TOPICS: [(&str, usize); 3] = [("a.x", 3), ("a.y", 1), ("b", 0)];
/// What subscriptions are made to, and which topics that is.
const WANTED: [(&str, &[usize]); 4] = [("a.x", &[0]), ("a.y", &[1]), ("b", &[2]), ("a.*", &[0, 1])];

fn policies() -> Policies {
    let rules = TOPICS.iter().map(|(topic, most)| {
        let settings = PolicySettings {
            retroactive_messages: Some(*most as u64),
            ..PolicySettings::default()
        };
        (Pattern::parse(topic).expect("a topic"), settings)
    });
    Policies::new(rules.collect())
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    to: usize,
    is_persistent: bool,
    priority: u8,
    has_upload: bool,
    /// Whether it has a time at which it is over.
    expires: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Send(Sending),
    /// To what, whether it is durable, and which of what is kept it selects.
    Subscribe(usize, bool, u8),
    /// Some message of some subscription leaves it.
    Settle(u8, u8),
    Delete(u8),
    Expire,
    Reclaim,
    /// Begins a checkpoint, or goes on with so many slices of it.
    Checkpoint(u8),
    /// What is needed of the first segment is written anew, and it is freed.
    Relocate,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let persistent = prop::bool::weighted(0.7);
    let sending = (0..TOPICS.len(), persistent, 0..10_u8, any::<u8>());
    let sending = sending.prop_map(|(to, is_persistent, priority, rare)| Sending {
        to,
        is_persistent,
        priority,
        has_upload: rare % 8 == 1,
        expires: rare % 8 == 2,
    });
    prop_oneof![
        10 => sending.prop_map(Op::Send),
        4 => (0..WANTED.len(), any::<bool>(), 1..4_u8)
            .prop_map(|(to, is_durable, nth)| Op::Subscribe(to, is_durable, nth)),
        6 => any::<(u8, u8)>().prop_map(|(which, pick)| Op::Settle(which, pick)),
        1 => any::<u8>().prop_map(Op::Delete),
        1 => Just(Op::Expire),
        2 => Just(Op::Reclaim),
        4 => (1..6_u8).prop_map(Op::Checkpoint),
        2 => Just(Op::Relocate),
        1 => Just(Op::Restart),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Message {
    is_durable: bool,
    expires: bool,
    /// Of such a queue has the last alone.
    has_key: bool,
}

struct Subscription {
    queue: QueueId,
    to: usize,
    is_durable: bool,
    messages: BTreeMap<u64, Message>,
}

fn enter(messages: &mut BTreeMap<u64, Message>, name: u64, message: Message) {
    if message.has_key {
        messages.retain(|_, other| !other.has_key);
    }
    messages.insert(name, message);
}

struct Rig {
    machine: Machine,
    journal: Journal,
    /// What each topic keeps.
    kept: [BTreeMap<u64, Message>; TOPICS.len()],
    subscriptions: Vec<Subscription>,
    names: u32,
    next_slot: u32,
    /// Queues that hold each body in memory.
    slots: BTreeMap<u32, usize>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            machine: Machine::new(LIMITS, policies()),
            journal: Journal::new(),
            kept: Default::default(),
            subscriptions: Vec::new(),
            names: 0,
            next_slot: 0,
            slots: BTreeMap::new(),
        };
        rig.start_epoch();
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
            match effect {
                Effect::Hold { slot } => *self.slots.get_mut(&slot).expect("held") += 1,
                Effect::Forget { slot } => {
                    let count = self.slots.get_mut(&slot).expect("forgot what it had");
                    *count -= 1;
                    if *count == 0 {
                        self.slots.remove(&slot);
                    }
                }
                other => panic!("nobody is attached: {other:?}"),
            }
        }
    }

    fn commit(&mut self, decision: &Decision) {
        for fact in decision.facts() {
            self.apply(&fact, Place::NONE);
        }
    }

    fn upload(&mut self) -> u64 {
        let upload = self.machine.next_upload();
        let body = Parts::One(b"first part");
        let fragment = Record::Fragment {
            upload,
            offset: 0,
            body,
        };
        self.apply(&Fact::from(fragment), Place::NONE);
        upload
    }

    fn send(&mut self, sending: &Sending) {
        let (topic, most) = TOPICS[sending.to];
        let mut decision = Decision::new();
        let decided = self
            .machine
            .decide_retroactive(topic.as_bytes(), &mut decision);
        if decided.is_err() {
            return;
        }
        self.commit(&decision);
        let destination = self.machine.topic(topic.as_bytes());
        assert!(self.machine.is_complete(destination));
        let is_persistent = sending.is_persistent;
        let takes = |one: &Subscription| WANTED[one.to].1.contains(&sending.to);
        let takers = (0..self.subscriptions.len()).filter(|at| takes(&self.subscriptions[*at]));
        let takers: Vec<usize> = takers.collect();
        let has_durable = takers.iter().any(|at| self.subscriptions[*at].is_durable);
        let is_durable = is_persistent && (most > 0 || has_durable);
        let message = Message {
            is_durable,
            expires: sending.expires,
            has_key: sending.to == 0 && sending.priority == 0,
        };
        let mut routed = Routed::new();
        // An upload draws a name before the message does.
        let has_upload = is_durable && sending.has_upload;
        let upload = if has_upload { self.upload() } else { 0 };
        let machine = &mut self.machine;
        machine
            .decide_enqueue(destination, is_persistent, false, &mut routed)
            .expect("it is there");
        machine.add_matching(destination, is_persistent, false, &mut routed);
        assert_eq!(routed.queue_count(), takers.len() + usize::from(most > 0));
        assert!(most == 0 || routed.says_address(), "a pattern may come");
        if routed.queue_count() == 0 {
            return;
        }
        assert_eq!(routed.is_journaled(), is_durable);
        let name = routed.message().0;
        for at in &takers {
            enter(&mut self.subscriptions[*at].messages, name, message);
        }
        if most > 0 {
            enter(&mut self.kept[sending.to], name, message);
        }
        self.next_slot += 1;
        if !is_durable {
            self.slots.insert(self.next_slot, routed.queue_count());
        }
        let fields = MessageFields {
            upload,
            body_size: if upload == 0 { 4 } else { 14 },
            priority: sending.priority,
            expires_unix_ms: u64::from(sending.expires) * 1000,
            flags: MessageFlags {
                is_durable,
                ..MessageFlags::default()
            },
            ..MessageFields::default()
        };
        let annotations = Annotations {
            group: name % 3,
            last_value: if message.has_key { b"key" } else { b"" },
            ..Annotations::default()
        };
        let fact = routed.fact(fields, annotations, Parts::EMPTY, Parts::One(b"body"));
        self.apply(&fact, Place::Volatile(self.next_slot));
        self.trim();
    }

    fn trim(&mut self) {
        let mut decision = Decision::new();
        while self.machine.has_surplus() {
            self.machine.decide_trim(&mut decision);
            self.commit(&decision);
        }
        for ((_, most), kept) in TOPICS.iter().zip(&mut self.kept) {
            while kept.len() > *most {
                kept.pop_first();
            }
        }
    }

    fn subscribe(&mut self, to: usize, is_durable: bool, nth: u8) {
        let (address, topics) = WANTED[to];
        self.names += 1;
        let name = format!("name.{}", self.names);
        let topic = if is_durable {
            Topic::durable(name.as_bytes(), address.as_bytes())
        } else {
            Topic::plain(address.as_bytes())
        };
        let mut decision = Decision::new();
        let Ok(queue) = self.machine.decide_subscription(&topic, &mut decision) else {
            return;
        };
        let expected: BTreeMap<u64, Message> = topics
            .iter()
            .flat_map(|one| self.kept[*one].clone())
            .collect();
        let mut found = self.machine.kept(address.as_bytes());
        let names: Vec<u64> = found.iter().map(|one| one.queued.message.0).collect();
        assert_eq!(names, expected.keys().copied().collect::<Vec<_>>());
        let is_selected = |name: u64| name.is_multiple_of(u64::from(nth));
        found.retain(|one| is_selected(one.queued.message.0));
        self.machine
            .share_kept((queue, is_durable), &found, &mut decision);
        self.commit(&decision);
        let selected = expected.into_iter().filter(|(name, _)| is_selected(*name));
        self.subscriptions.push(Subscription {
            queue,
            to,
            is_durable,
            messages: selected.collect(),
        });
        self.trim();
    }

    fn pick(&self, which: u8) -> Option<usize> {
        let count = self.subscriptions.len();
        (count > 0).then(|| usize::from(which) % count.max(1))
    }

    fn settle(&mut self, which: u8, pick: u8) {
        let Some(at) = self.pick(which) else { return };
        let one = &mut self.subscriptions[at];
        let count = one.messages.len().max(1);
        let picked = one.messages.iter().nth(usize::from(pick) % count);
        let Some((&name, &message)) = picked else {
            return;
        };
        one.messages.remove(&name);
        let ids = [U64::new(name)];
        let fact = Fact {
            is_journaled: message.is_durable && one.is_durable,
            ..Fact::from(Record::Settle {
                queue: one.queue,
                transaction: 0,
                outcome: Outcome::Accepted,
                messages: IdList(&ids),
            })
        };
        self.apply(&fact, Place::NONE);
    }

    fn delete(&mut self, which: u8) {
        let Some(at) = self.pick(which) else { return };
        let one = self.subscriptions.remove(at);
        let mut decision = Decision::new();
        let decided = self.machine.decide_delete(one.queue, &mut decision);
        decided.expect("it is there");
        self.commit(&decision);
    }

    fn expire(&mut self) {
        let mut decision = Decision::new();
        while self.machine.next_expiry_unix_ms().is_some() {
            self.machine.decide_expire(2000, &mut decision);
            self.commit(&decision);
        }
        // Where they go is another one's business.
        while let Some(departing) = self.machine.poll_departure() {
            let message = departing.queued.message;
            self.machine
                .decide_departed(departing.queue, message, &mut decision);
            self.commit(&decision);
        }
        let kept = self.kept.iter_mut();
        kept.chain(self.subscriptions.iter_mut().map(|one| &mut one.messages))
            .for_each(|messages| messages.retain(|_, message| !message.expires));
    }

    fn reclaim(&mut self) {
        self.journal.seal();
        if let Some(start) = self.machine.replay_start(self.journal.current()) {
            self.begin_replay_at(start);
        }
    }

    /// Begins a checkpoint, or goes on with so many slices of it.
    fn checkpoint(&mut self, slices: u8) {
        let Some(start) = self.machine.checkpoint_start() else {
            self.journal.seal();
            self.machine.begin_checkpoint(self.journal.current());
            return;
        };
        let mut decision = Decision::new();
        for _ in 0..slices {
            let is_more = self.machine.decide_checkpoint(&mut decision);
            self.commit(&decision);
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
        let mut decision = Decision::new();
        while {
            let has_more = self.machine.decide_redefine(upto, &mut decision);
            self.commit(&decision);
            has_more
        } {}
        let retained = Fact::from(Record::Retained {
            oldest_segment: oldest,
            message_floor: self.machine.message_floor(),
            queue_floor: self.machine.queue_floor(),
        });
        self.apply(&retained, Place::NONE);
        self.journal.free_before(oldest);
    }

    fn restart(&mut self) {
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
        self.subscriptions.retain(|one| one.is_durable);
        let kept = self.kept.iter_mut();
        kept.chain(self.subscriptions.iter_mut().map(|one| &mut one.messages))
            .for_each(|messages| messages.retain(|_, message| message.is_durable));
        self.trim();
        self.start_epoch();
    }

    fn compare(&self) {
        self.machine.check_invariants();
        for one in &self.subscriptions {
            let ready = self.machine.ready(one.queue);
            let ready: BTreeSet<u64> = ready.map(|queued| queued.message.0).collect();
            let expected: BTreeSet<u64> = one.messages.keys().copied().collect();
            assert_eq!(ready, expected, "subscription to {}", WANTED[one.to].0);
        }
        for ((topic, _), kept) in TOPICS.iter().zip(&self.kept) {
            let found = self.machine.kept(topic.as_bytes());
            let found: Vec<MessageId> = found.iter().map(|one| one.queued.message).collect();
            let expected: Vec<_> = kept.keys().map(|name| MessageId(*name)).collect();
            assert_eq!(found, expected, "kept by {topic}");
        }
        let holders = self.subscriptions.iter().map(|one| &one.messages);
        let holders = holders.chain(&self.kept).flat_map(BTreeMap::values);
        let held = holders.filter(|message| !message.is_durable).count();
        assert_eq!(self.slots.values().sum::<usize>(), held, "bodies in memory");
        let destination = self.machine.resolve(Routing::Multicast, b"b");
        let is_bound = self.subscriptions.iter().any(|one| one.to == 2);
        assert!(destination.is_some() || !is_bound, "b is bound");
    }
}

impl rewrite::Rewritable for Rig {
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

fn run(rig: &mut Rig, op: &Op) {
    match op {
        Op::Send(sending) => rig.send(sending),
        Op::Subscribe(to, is_durable, nth) => rig.subscribe(*to, *is_durable, *nth),
        Op::Settle(which, pick) => rig.settle(*which, *pick),
        Op::Delete(which) => rig.delete(*which),
        Op::Expire => rig.expire(),
        Op::Reclaim => rig.reclaim(),
        Op::Checkpoint(slices) => rig.checkpoint(*slices),
        Op::Relocate => {
            rewrite::rewrite_oldest(rig);
            rig.reclaim();
        }
        Op::Restart => rig.restart(),
    }
    rig.compare();
}

#[test]
fn new_subscriptions_get_what_their_topics_keep() {
    let cases = std::env::var("FOREBAY_QUEUE_HISTORIES");
    let cases = cases.map_or(1000, |text| text.parse().expect("a number"));
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let histories = proptest::collection::vec(op(), 1..150);
    let outcome = TestRunner::new(config).run(&histories, |ops| {
        let mut rig = Rig::new();
        ops.iter().for_each(|op| run(&mut rig, op));
        rig.restart();
        rig.compare();
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
