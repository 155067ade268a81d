//! Random histories of queues bound to topics and to patterns of them: who gets a message is what a
//! reader of the patterns says, live and after restarts.

use std::collections::{BTreeMap, BTreeSet};

use forebay::queue::{
    Decision, DestinationId, Effect, Fact, Limits, Machine, Place, Policies, Routed, Topic,
};
use forebay_journal::QueueId;
use forebay_journal::format::{Annotations, MessageFields, MessageFlags, Parts, Routing};
use proptest::prelude::*;

use super::journal::Journal;
use super::rig;

const LIMITS: Limits = Limits {
    queues_max: 100,
    ..rig::LIMITS
};

const ADDRESSES: [&str; 12] = [
    "a", "b", "a.a", "a.b", "b.a", "a.b.a", "*", "a.*", "#", "a.#", "*.b.>", "#.a",
];
/// So many of them are addresses and no patterns.
const TOPICS: usize = 6;

#[derive(Clone, Debug)]
enum Op {
    /// A durable subscription has a name.
    Bind {
        address: usize,
        name: Option<u8>,
    },
    Unbind {
        which: usize,
    },
    Send {
        topic: usize,
        is_persistent: bool,
        id: u8,
    },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let name = proptest::option::of(0..5_u8);
    prop_oneof![
        3 => (0..ADDRESSES.len(), name).prop_map(|(address, name)| Op::Bind { address, name }),
        1 => (0..99_usize).prop_map(|which| Op::Unbind { which }),
        8 => (0..TOPICS, any::<bool>(), 0..4_u8)
            .prop_map(|(topic, is_persistent, id)| Op::Send { topic, is_persistent, id }),
        1 => Just(Op::Restart),
    ]
}

/// One word after the other, trying every length of `#`.
pub(crate) fn matches(pattern: &[&str], address: &[&str]) -> bool {
    match pattern {
        [] => address.is_empty(),
        ["#" | ">", rest @ ..] => (0..=address.len()).any(|skip| matches(rest, &address[skip..])),
        [word, rest @ ..] => match address {
            [first, behind @ ..] => {
                let is_same = *word == "*" || word == first;
                is_same && matches(rest, behind)
            }
            [] => false,
        },
    }
}

#[derive(Debug)]
struct Bound {
    address: &'static str,
    name: Option<u8>,
    /// Messages in it, and whether each is durable.
    held: Vec<bool>,
}

struct Story {
    machine: Machine,
    journal: Journal,
    decision: Decision,
    routed: Routed,
    effects: Vec<Effect>,
    bound: BTreeMap<u64, Bound>,
    /// Addresses that each id was sent to.
    sent: BTreeSet<(u8, &'static str)>,
}

impl Story {
    fn new() -> Self {
        Self {
            machine: Machine::new(LIMITS, Policies::default()),
            journal: Journal::new(),
            decision: Decision::new(),
            routed: Routed::new(),
            effects: Vec::new(),
            bound: BTreeMap::new(),
            sent: BTreeSet::new(),
        }
    }

    fn apply(&mut self, fact: &Fact<'_>) {
        let at = if fact.is_journaled {
            self.journal.make_room();
            Place::Journal(self.journal.append(&fact.record))
        } else {
            Place::Volatile(0)
        };
        self.machine.evolve(fact, at, &mut self.effects);
        self.effects.clear();
    }

    fn apply_decision(&mut self) {
        let decision = core::mem::take(&mut self.decision);
        decision.facts().for_each(|fact| self.apply(&fact));
        self.decision = decision;
    }

    fn bind(&mut self, address: &'static str, name: Option<u8>) {
        let text = name.map(|name| format!("c.{name}"));
        let topic = match &text {
            Some(text) => Topic::durable(text.as_bytes(), address.as_bytes()),
            None => Topic::plain(address.as_bytes()),
        };
        let decided = self.machine.decide_subscription(&topic, &mut self.decision);
        let queue = decided.expect("there is room, and nobody is attached");
        if self.decision.is_empty() {
            assert_eq!(self.bound[&queue.0].address, address);
            return;
        }
        if name.is_some() {
            // The one of that name with another address went first.
            self.bound.retain(|_, bound| bound.name != name);
        }
        self.apply_decision();
        let held = Vec::new();
        let bound = Bound {
            address,
            name,
            held,
        };
        self.bound.insert(queue.0, bound);
    }

    fn unbind(&mut self, which: usize) {
        let ids: Vec<u64> = self.bound.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[which % ids.len()];
        let decided = self.machine.decide_delete(QueueId(id), &mut self.decision);
        decided.expect("it is bound");
        self.apply_decision();
        self.bound.remove(&id);
    }

    /// As a shard does it.
    fn route(&mut self, address: &str, is_persistent: bool) -> Option<DestinationId> {
        let address = address.as_bytes();
        let has_patterns = self.machine.has_patterns();
        let destination = if has_patterns {
            self.machine.topic(address)
        } else {
            self.machine.resolve(Routing::Multicast, address)?
        };
        let decided =
            self.machine
                .decide_enqueue(destination, is_persistent, false, &mut self.routed);
        decided.expect("resolved just now");
        if has_patterns {
            self.machine
                .add_matching(destination, is_persistent, false, &mut self.routed);
        }
        Some(destination)
    }

    fn send(&mut self, address: &'static str, is_persistent: bool, id: u8) {
        let words: Vec<&str> = address.split('.').collect();
        let is_taker = |bound: &Bound| {
            let pattern: Vec<&str> = bound.address.split('.').collect();
            matches(&pattern, &words)
        };
        let takers = self.bound.iter().filter(|(_, bound)| is_taker(bound));
        let takers: BTreeSet<u64> = takers.map(|(id, _)| *id).collect();
        let Some(destination) = self.route(address, is_persistent) else {
            assert_eq!(takers, BTreeSet::new());
            return;
        };
        let found: Vec<u64> = self.routed.queues().map(|queue| queue.0).collect();
        let durable = |id: &u64| self.bound[id].name.is_some();
        assert!(
            found.is_sorted_by_key(|id| !durable(id)),
            "durable ones first"
        );
        assert_eq!(found.len(), takers.len(), "no queue twice");
        assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), takers);
        let is_durable = is_persistent && takers.iter().any(durable);
        assert_eq!(self.routed.is_journaled(), is_durable);
        let is_by_pattern = takers.iter().any(|id| self.bound[id].address != address);
        assert_eq!(self.routed.has_matching(), is_by_pattern);
        if takers.is_empty() {
            return;
        }
        let known = self.known(destination, address, id);
        assert!(
            !known || self.sent.contains(&(id, address)),
            "never sent there"
        );
        self.enter(address, id);
        assert!(self.known(destination, address, id), "sent just now");
        self.sent.insert((id, address));
        for id in takers {
            let bound = self.bound.get_mut(&id).expect("a taker");
            bound.held.push(is_durable && bound.name.is_some());
        }
    }

    /// The id as it is remembered of a message that a pattern has a part in.
    fn qualified(address: &str, id: u8) -> Vec<u8> {
        [address.as_bytes(), &[0, id]].concat()
    }

    fn known(&self, destination: DestinationId, address: &str, id: u8) -> bool {
        let machine = &self.machine;
        let qualified = Self::qualified(address, id);
        machine.is_duplicate(destination, &[id])
            || (machine.has_patterns() && machine.is_duplicate_of_matching(destination, &qualified))
    }

    fn enter(&mut self, address: &str, id: u8) {
        let routed = core::mem::take(&mut self.routed);
        let has_matching = routed.has_matching();
        let qualified = Self::qualified(address, id);
        let annotations = Annotations {
            duplicate_id: if has_matching { &qualified } else { &[id] },
            address: if has_matching {
                address.as_bytes()
            } else {
                &[]
            },
            ..Annotations::default()
        };
        let fields = MessageFields {
            body_size: 1,
            flags: MessageFlags {
                is_durable: routed.is_journaled(),
                ..MessageFlags::default()
            },
            ..MessageFields::default()
        };
        let body = [id];
        let fact = routed.fact(fields, annotations, Parts::EMPTY, Parts::One(&body));
        self.apply(&fact);
        self.routed = routed;
    }

    fn restart(&mut self) {
        self.journal.seal();
        let mut machine = Machine::new(LIMITS, Policies::default());
        let mut effects = Vec::new();
        self.journal.replay(|record, location| {
            machine.evolve(&Fact::from(*record), Place::Journal(location), &mut effects);
        });
        machine.finish_replay().expect("the journal adds up");
        self.machine = machine;
        self.bound.retain(|_, bound| bound.name.is_some());
        for bound in self.bound.values_mut() {
            bound.held.retain(|is_durable| *is_durable);
        }
    }

    fn compare(&self) {
        self.machine.check_invariants();
        let queues: BTreeSet<u64> = self.machine.queues().map(|queue| queue.0).collect();
        assert!(queues.iter().eq(self.bound.keys()));
        for (id, bound) in &self.bound {
            let counts = self.machine.counts(QueueId(*id)).expect("it is there");
            assert_eq!(counts.ready, bound.held.len() as u64, "{bound:?}");
        }
        let patterns = self.bound.values();
        let patterns = patterns.filter(|bound| !ADDRESSES[..TOPICS].contains(&bound.address));
        assert_eq!(self.machine.has_patterns(), patterns.count() > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn messages_go_where_the_patterns_say(ops in proptest::collection::vec(op(), 1..60)) {
        let mut story = Story::new();
        for op in ops {
            match op {
                Op::Bind { address, name } => story.bind(ADDRESSES[address], name),
                Op::Unbind { which } => story.unbind(which),
                Op::Send { topic, is_persistent, id } => {
                    story.send(ADDRESSES[topic], is_persistent, id);
                }
                Op::Restart => story.restart(),
            }
            story.compare();
        }
    }
}

#[test]
fn a_topic_is_matched_anew_when_patterns_come_and_go() {
    let mut story = Story::new();
    for _ in 0..3 {
        for address in ["a.*", "a.b", "#", "a.#"] {
            story.bind(address, None);
            story.send("a.b", false, 0);
            story.send("b", false, 1);
            story.compare();
        }
        while !story.bound.is_empty() {
            story.unbind(0);
            story.send("a.b", false, 0);
            story.compare();
        }
    }
}

#[test]
fn topics_that_nobody_bound_are_not_remembered_without_end() {
    let mut story = Story::new();
    story.bind("a.#", Some(0));
    let before = story.machine.topic(b"a.x");
    for number in 0..40_000 {
        let _ = story.machine.topic(format!("a.{number}").as_bytes());
    }
    // The first ones made room for later ones, and are found out again.
    assert_ne!(story.machine.topic(b"a.x"), before);
    story.send("a.b", true, 0);
    story.compare();
}
