//! Random histories of gatherings: who takes from a pattern of queues takes from those that a
//! reader of the pattern says, also from later ones; has one window and one order over all of them;
//! starves nowhere, and gives back all that it had.

use std::collections::{BTreeMap, BTreeSet};

use forebay::pattern::Pattern;
use forebay::queue::{
    Attachment, ConsumerId, Credit, Decision, Effect, Fact, FilterId, Gather, GatheringId, Limits,
    Machine, Place, Policies, PolicySettings, Rank, Refused, Return, Routed, Selection, Settlement,
    Topic,
};
use forebay_journal::format::{Annotations, MessageFields, MessageFlags, Outcome, Parts, Routing};
use forebay_journal::{MessageId, QueueId};
use proptest::prelude::*;

use super::journal::Journal;
use super::rig;
use super::wildcards::matches;

const LIMITS: Limits = Limits {
    queues_max: 100,
    consumers_max: 30,
    ..rig::LIMITS
};

const ADDRESSES: [&str; 6] = ["a", "b", "a.a", "a.b", "b.a", "a.b.a"];
/// Its messages stay when they are consumed.
const KEPT: &str = "a.k";
/// Its queue goes with its owner.
const TEMPORARY: &str = "b.t";
const PATTERNS: [&str; 6] = ["a.*", "a.>", "#", "*", "#.a", "b.#"];
const SIZE: u64 = 100;

#[derive(Clone, Debug)]
enum Op {
    Define(usize),
    Delete(u8),
    Gather {
        pattern: usize,
        credit: u8,
        has_bytes: bool,
        is_filtered: bool,
        rank: Rank,
    },
    Scatter(u8),
    Attach {
        which: u8,
        credit: u8,
        rank: Rank,
    },
    Detach(u8),
    Send {
        address: usize,
        group: u8,
    },
    Dispatch(u8),
    Settle {
        who: u8,
        which: u8,
        is_cumulative: bool,
        by_message: bool,
        is_accepted: bool,
        is_staged: bool,
    },
    End {
        is_commit: bool,
    },
    Pause(u8, bool),
    Restart,
}

fn rank() -> impl Strategy<Value = Rank> {
    (0..2_i32, prop::bool::weighted(0.1)).prop_map(|(priority, is_exclusive)| Rank {
        priority,
        is_exclusive,
    })
}

fn gather() -> impl Strategy<Value = Op> {
    let rare = prop::bool::weighted;
    let drawn = (0..PATTERNS.len(), 1..5_u8, rare(0.2), rare(0.3), rank());
    drawn.prop_map(
        |(pattern, credit, has_bytes, is_filtered, rank)| Op::Gather {
            pattern,
            credit,
            has_bytes,
            is_filtered,
            rank,
        },
    )
}

fn settle() -> impl Strategy<Value = Op> {
    let picked = (0..99_u8, 0..99_u8);
    let drawn = (
        picked,
        any::<(bool, bool, bool)>(),
        prop::bool::weighted(0.3),
    );
    drawn.prop_map(|((who, which), how, is_staged)| {
        let (is_cumulative, by_message, is_accepted) = how;
        Op::Settle {
            who,
            which,
            is_cumulative,
            by_message,
            is_accepted,
            is_staged,
        }
    })
}

fn send() -> impl Strategy<Value = Op> {
    (0..ADDRESSES.len(), 0..4_u8).prop_map(|(address, group)| Op::Send {
        address,
        group: group.saturating_sub(1),
    })
}

fn op() -> impl Strategy<Value = Op> {
    let any_of = 0..99_u8;
    prop_oneof![
        4 => (0..ADDRESSES.len() + 3).prop_map(Op::Define),
        2 => any_of.clone().prop_map(Op::Delete),
        4 => gather(),
        1 => any_of.clone().prop_map(Op::Scatter),
        2 => (any_of.clone(), 1..4_u8, rank())
            .prop_map(|(which, credit, rank)| Op::Attach { which, credit, rank }),
        1 => any_of.clone().prop_map(Op::Detach),
        16 => send(),
        12 => (0..6_u8).prop_map(Op::Dispatch),
        12 => settle(),
        3 => any::<bool>().prop_map(|is_commit| Op::End { is_commit }),
        2 => (any_of, any::<bool>()).prop_map(|(which, on)| Op::Pause(which, on)),
        1 => Just(Op::Restart),
    ]
}

/// One delivery.
#[derive(Clone, Copy, Debug)]
struct Held {
    tag: u64,
    queue: u64,
    message: u64,
    /// Whether it is accepted in the open transaction, or given back.
    staged: Option<bool>,
}

/// A gathering, or a consumer of one queue.
#[derive(Debug)]
struct Taker {
    gathering: Option<(GatheringId, &'static str)>,
    consumer: Option<(ConsumerId, u64)>,
    is_exclusive: bool,
    credit: usize,
    has_bytes: bool,
    filter: Option<FilterId>,
    held: Vec<Held>,
    last_tag: u64,
}

impl Taker {
    fn in_flight(&self) -> usize {
        self.held.iter().filter(|one| one.staged.is_none()).count()
    }

    fn has_room(&self) -> bool {
        let most = if self.has_bytes {
            2.min(self.credit)
        } else {
            self.credit
        };
        self.in_flight() < most && self.held.len() < LIMITS.unsettled_max as usize
    }
}

#[derive(Debug)]
struct Queue {
    address: &'static str,
    is_gathered: bool,
    is_paused: bool,
    has_groups: bool,
    /// All that is in it.
    messages: BTreeSet<u64>,
}

struct Story {
    machine: Machine,
    journal: Journal,
    decision: Decision,
    routed: Routed,
    queues: BTreeMap<u64, Queue>,
    takers: BTreeMap<u64, Taker>,
    next_taker: u64,
    transaction: u64,
}

fn policies() -> Policies {
    let stays = PolicySettings {
        is_non_destructive: Some(true),
        ..PolicySettings::default()
    };
    let endless = PolicySettings {
        attempts_max: Some(u32::MAX),
        ..PolicySettings::default()
    };
    let rule = |text: &str, settings| (Pattern::parse(text).expect("a pattern"), settings);
    Policies::new(vec![rule(KEPT, stays), rule("#", endless)])
}

fn words(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

/// What the filter of this number wants.
fn wants(filter: Option<FilterId>, message: u64) -> bool {
    filter.is_none_or(|filter| message % 2 == filter.0)
}

impl Story {
    fn new() -> Self {
        Self {
            machine: Machine::new(LIMITS, policies()),
            journal: Journal::new(),
            decision: Decision::new(),
            routed: Routed::new(),
            queues: BTreeMap::new(),
            takers: BTreeMap::new(),
            next_taker: 1,
            transaction: 0,
        }
    }

    fn apply(&mut self, fact: &Fact<'_>) {
        let at = if fact.is_journaled {
            self.journal.make_room();
            Place::Journal(self.journal.append(&fact.record))
        } else {
            Place::NONE
        };
        let mut effects = Vec::new();
        self.machine.evolve(fact, at, &mut effects);
        for effect in effects {
            self.take_effect(&effect);
        }
    }

    fn apply_decision(&mut self) {
        let decision = core::mem::take(&mut self.decision);
        decision.facts().for_each(|fact| self.apply(&fact));
        self.decision = decision;
    }

    fn take_effect(&mut self, effect: &Effect) {
        match *effect {
            Effect::Matched {
                link,
                gathering,
                queue,
            } => {
                let taker = &self.takers[&link];
                let (own, pattern) = taker.gathering.expect("only gatherings are called");
                assert_eq!(own, gathering);
                let address = self.machine.address(queue).expect("defined just now");
                let address = core::str::from_utf8(address).expect("ours");
                assert!(matches(&words(pattern), &words(address)));
                let filter = taker.filter;
                let joined = self.machine.join(gathering, queue, filter);
                assert!(joined.is_ok(), "{joined:?}");
            }
            Effect::Deliver {
                consumer,
                consumer_tag,
                delivery_tag,
                queue,
                message,
                ..
            } => {
                let taker = self.takers.get_mut(&consumer_tag).expect("attached");
                assert_eq!(delivery_tag, taker.last_tag + 1, "tags rise by one");
                assert!(wants(taker.filter, message.0));
                assert!(taker.has_room(), "{taker:?} gets too much");
                taker.last_tag = delivery_tag;
                taker.held.push(Held {
                    tag: delivery_tag,
                    queue: queue.0,
                    message: message.0,
                    staged: None,
                });
                let address = self.machine.gathered_from(consumer);
                let own = self.queues[&queue.0].address.as_bytes();
                assert_eq!(address, taker.gathering.map(|_| own));
            }
            Effect::Detached { consumer_tag, .. } => {
                let taker = &self.takers[&consumer_tag];
                if taker.gathering.is_none() {
                    self.takers.remove(&consumer_tag);
                }
            }
            Effect::Arrived { .. } | Effect::Hold { .. } | Effect::Forget { .. } => {}
        }
    }

    fn define(&mut self, which: usize) {
        let (address, is_gathered) = match which.checked_sub(ADDRESSES.len()) {
            None => (ADDRESSES[which], true),
            Some(0) => (KEPT, false),
            Some(1) => (TEMPORARY, false),
            Some(_) => ("a.b", false),
        };
        let (machine, out) = (&self.machine, &mut self.decision);
        let decided = match which.saturating_sub(ADDRESSES.len()) {
            1 => machine.decide_temporary_queue(address.as_bytes(), out),
            2 => {
                // A topic's, beside the queue of that address.
                machine.decide_subscription(&Topic::plain(address.as_bytes()), out)
            }
            _ => machine.decide_queue(address.as_bytes(), out),
        };
        let id = decided.expect("there is room").0;
        if !self.decision.is_empty() {
            let queue = Queue {
                address,
                is_gathered,
                is_paused: false,
                has_groups: false,
                messages: BTreeSet::new(),
            };
            self.queues.insert(id, queue);
            self.apply_decision();
        }
    }

    fn delete(&mut self, which: u8) {
        let Some(id) = rig::nth(self.queues.keys(), which) else {
            return;
        };
        let decided = self.machine.decide_delete(QueueId(id), &mut self.decision);
        decided.expect("it is there");
        self.apply_decision();
        self.queues.remove(&id);
        for taker in self.takers.values_mut() {
            taker.held.retain(|one| one.queue != id);
        }
    }

    fn has_room(&self, more: usize) -> bool {
        let members = self.takers.values().map(|taker| match taker.gathering {
            Some((_, pattern)) => 1 + self.gathered(pattern).len(),
            None => 1,
        });
        // And queues made later.
        members.sum::<usize>() + more + self.takers.len() < LIMITS.consumers_max - 8
    }

    /// The queues that a reader of the pattern finds.
    fn gathered(&self, pattern: &str) -> Vec<u64> {
        let pattern = words(pattern);
        let queues = self.queues.iter();
        let found =
            queues.filter(|(_, one)| one.is_gathered && matches(&pattern, &words(one.address)));
        found.map(|(id, _)| *id).collect()
    }

    fn gather(
        &mut self,
        pattern: &'static str,
        credit: u8,
        has_bytes: bool,
        is_filtered: bool,
        rank: Rank,
    ) {
        if !self.has_room(8) {
            return;
        }
        let tag = self.next_taker;
        self.next_taker += 1;
        let parsed = Pattern::parse(pattern).expect("a pattern");
        let mut found = self.machine.to_gather(&parsed);
        found.sort_unstable();
        let expected: Vec<_> = self.gathered(pattern).into_iter().map(QueueId).collect();
        assert_eq!(found, expected, "{pattern}");
        let wanted = Gather {
            pattern: parsed,
            link: tag,
            tag,
            credit: Credit::Messages(credit.into()),
            // Two messages.
            credit_bytes: has_bytes.then_some(SIZE + 1),
            settlement: Settlement::ByConsumer,
            rank,
        };
        let id = self.machine.gather(wanted).expect("there is room");
        let filter = is_filtered.then_some(FilterId(tag % 2));
        for queue in found {
            self.machine.join(id, queue, filter).expect("there is room");
        }
        let taker = Taker {
            gathering: Some((id, pattern)),
            consumer: None,
            is_exclusive: rank.is_exclusive,
            credit: credit.into(),
            has_bytes,
            filter,
            held: Vec::new(),
            last_tag: 0,
        };
        self.takers.insert(tag, taker);
    }

    fn scatter(&mut self, which: u8) {
        let gatherings = self
            .takers
            .iter()
            .filter(|(_, one)| one.gathering.is_some());
        let gatherings: Vec<_> = gatherings.map(|(tag, _)| *tag).collect();
        let Some(tag) = rig::nth(gatherings.iter(), which) else {
            return;
        };
        // As a connection that is lost: what it has staged goes first.
        self.end(false);
        let Some((id, _)) = self.takers[&tag].gathering else {
            return;
        };
        self.machine.close_gathering(id);
        while let Some(member) = self.machine.last_member(id) {
            self.detach_consumer(member);
        }
        self.machine.end_gathering(id);
        assert_eq!(self.machine.last_member(id), None);
        let refused = self.machine.select_gathered(id, Selection::Upto(1));
        assert_eq!(refused, Err(Refused::UnknownConsumer));
        self.takers.remove(&tag);
    }

    fn detach_consumer(&mut self, consumer: ConsumerId) {
        let (machine, out) = (&self.machine, &mut self.decision);
        let decided = machine.decide_detach(consumer, Return::Unused, 0, out);
        decided.expect("it is attached");
        self.apply_decision();
        self.machine.detach(consumer);
    }

    fn attach(&mut self, which: u8, credit: u8, rank: Rank) {
        let gathered = self.queues.iter().filter(|(_, one)| one.is_gathered);
        let gathered: Vec<_> = gathered.map(|(id, _)| *id).collect();
        let Some(queue) = rig::nth(gathered.iter(), which).filter(|_| self.has_room(1)) else {
            return;
        };
        let tag = self.next_taker;
        self.next_taker += 1;
        let attachment = Attachment {
            queue: QueueId(queue),
            link: tag,
            tag,
            credit: Credit::Messages(credit.into()),
            credit_bytes: None,
            settlement: Settlement::ByConsumer,
            rank,
            filter: None,
        };
        let consumer = self.machine.attach(&attachment).expect("there is room");
        let taker = Taker {
            gathering: None,
            consumer: Some((consumer, queue)),
            is_exclusive: rank.is_exclusive,
            credit: credit.into(),
            has_bytes: false,
            filter: None,
            held: Vec::new(),
            last_tag: 0,
        };
        self.takers.insert(tag, taker);
    }

    fn detach(&mut self, which: u8) {
        let plain = self
            .takers
            .iter()
            .filter(|(_, one)| one.gathering.is_none());
        let plain: Vec<_> = plain.map(|(tag, _)| *tag).collect();
        let Some(tag) = rig::nth(plain.iter(), which) else {
            return;
        };
        self.end(false);
        if let Some((consumer, _)) = self.takers[&tag].consumer {
            self.detach_consumer(consumer);
        }
        self.takers.remove(&tag);
    }

    fn send(&mut self, address: &str, group: u8) {
        let Some(destination) = self.machine.resolve(Routing::Anycast, address.as_bytes()) else {
            return;
        };
        let routed = &mut self.routed;
        let decided = self
            .machine
            .decide_enqueue(destination, true, false, routed);
        decided.expect("resolved just now");
        let routed = core::mem::take(&mut self.routed);
        let queue = routed
            .queues()
            .next()
            .expect("an address of queues has one");
        let message = self.machine.message_floor().0;
        let annotations = Annotations {
            group: group.into(),
            ..Annotations::default()
        };
        let fields = MessageFields {
            body_size: SIZE,
            flags: MessageFlags {
                is_durable: true,
                ..MessageFlags::default()
            },
            ..MessageFields::default()
        };
        let body = [7; SIZE as usize];
        let fact = routed.fact(fields, annotations, Parts::EMPTY, Parts::One(&body));
        self.apply(&fact);
        self.routed = routed;
        let queue = self.queues.get_mut(&queue.0).expect("it is there");
        queue.messages.insert(message);
        queue.has_groups |= group > 0;
    }

    fn dispatch(&mut self, rounds: u8) {
        for _ in 0..rounds {
            while let Some(asked) = self.machine.poll_examine() {
                let message = asked.message.message;
                let is_match = wants(Some(asked.filter), message.0);
                self.machine
                    .note_examined(asked.queue, asked.filter, message, is_match);
            }
            let Some(queue) = self.machine.poll_dispatch() else {
                // Some had their turn, and have to be asked about first.
                if self.machine.has_woken() {
                    continue;
                }
                return;
            };
            assert_eq!(self.machine.poll_dispatch(), Some(queue));
            self.machine.decide_dispatch(queue, &mut self.decision);
            assert_eq!(self.decision.facts().len(), 1, "polled queues have work");
            self.apply_decision();
        }
    }

    fn settle(&mut self, op: &Op) {
        let &Op::Settle {
            who,
            which,
            is_cumulative,
            by_message,
            is_accepted,
            is_staged,
        } = op
        else {
            return;
        };
        let gatherings = self
            .takers
            .iter()
            .filter(|(_, one)| one.gathering.is_some());
        let gatherings: Vec<_> = gatherings.map(|(tag, _)| *tag).collect();
        let Some(tag) = rig::nth(gatherings.iter(), who) else {
            return;
        };
        let taker = &self.takers[&tag];
        let (id, _) = taker.gathering.expect("picked");
        let Some(&picked) = taker.held.get(usize::from(which) % taker.held.len().max(1)) else {
            let selected = self
                .machine
                .select_gathered(id, Selection::Upto(taker.last_tag + 1));
            return assert_eq!(selected, Err(Refused::UnknownDelivery));
        };
        let message = MessageId(picked.message);
        let selection = match (is_cumulative, by_message) {
            (false, false) => Selection::One(picked.tag),
            (true, false) => Selection::Upto(picked.tag),
            (false, true) => Selection::Message(message),
            (true, true) => Selection::UptoMessage(message),
        };
        let is_meant = |one: &Held| {
            let is_upto = is_cumulative && one.tag <= picked.tag;
            one.staged.is_none() && (is_upto || one.tag == picked.tag)
        };
        let meant: Vec<Held> = taker.held.iter().copied().filter(is_meant).collect();
        let selected = self.machine.select_gathered(id, selection);
        let selected = selected.expect("it is held");
        let transaction = if is_staged { self.begin() } else { 0 };
        let mut count = 0;
        for (member, selection) in selected {
            let decided = self.decide(member, selection, is_accepted, transaction);
            match decided {
                Ok(()) => {
                    count += self.decision.message_count();
                    self.apply_decision();
                }
                Err(refused) => assert_eq!(refused, Refused::UnknownDelivery),
            }
        }
        assert_eq!(count as usize, meant.len(), "{selection:?}");
        let tags: BTreeSet<u64> = meant.iter().map(|one| one.tag).collect();
        let taker = self.takers.get_mut(&tag).expect("it is there");
        if is_staged {
            let held = taker.held.iter_mut().filter(|one| tags.contains(&one.tag));
            held.for_each(|one| one.staged = Some(is_accepted));
            return;
        }
        taker.held.retain(|one| !tags.contains(&one.tag));
        for one in meant.iter().filter(|_| is_accepted) {
            let queue = self.queues.get_mut(&one.queue).expect("it is there");
            queue.messages.remove(&one.message);
        }
    }

    fn decide(
        &mut self,
        member: ConsumerId,
        selection: Selection,
        is_accepted: bool,
        transaction: u64,
    ) -> Result<(), Refused> {
        let (machine, out) = (&self.machine, &mut self.decision);
        match (is_accepted, transaction) {
            (true, 0) => machine.decide_settle(member, selection, Outcome::Accepted, out),
            (true, _) => machine.decide_stage_settle(member, selection, transaction, out),
            (false, 0) => machine.decide_release(member, selection, Return::Failed, 0, out),
            (false, _) => {
                let given_back = (Return::Failed, 0);
                machine.decide_stage_release(member, selection, given_back, transaction, out)
            }
        }
    }

    /// The transaction that is open.
    fn begin(&mut self) -> u64 {
        if self.transaction == 0 {
            self.transaction = self.machine.draw_transaction(0);
        }
        self.transaction
    }

    fn end(&mut self, is_commit: bool) {
        let transaction = core::mem::take(&mut self.transaction);
        let (machine, out) = (&self.machine, &mut self.decision);
        let decided = if is_commit {
            machine.decide_commit(transaction, out)
        } else {
            machine.decide_roll_back(transaction, out)
        };
        if decided.is_err() {
            // All in it went with its queue, or nothing was.
            return;
        }
        self.apply_decision();
        for taker in self.takers.values_mut() {
            if !is_commit {
                taker.held.iter_mut().for_each(|one| one.staged = None);
                continue;
            }
            for one in taker.held.extract_if(.., |one| one.staged.is_some()) {
                let queue = self.queues.get_mut(&one.queue).expect("it is there");
                if one.staged == Some(true) {
                    queue.messages.remove(&one.message);
                }
            }
        }
    }

    fn pause(&mut self, which: u8, is_paused: bool) {
        let Some(id) = rig::nth(self.queues.keys(), which) else {
            return;
        };
        let (machine, out) = (&self.machine, &mut self.decision);
        let decided = machine.decide_pause(QueueId(id), is_paused, out);
        decided.expect("it is there");
        self.apply_decision();
        let queue = self.queues.get_mut(&id).expect("it is there");
        queue.is_paused = is_paused;
    }

    fn restart(&mut self) {
        self.journal.seal();
        let mut machine = Machine::new(LIMITS, policies());
        let mut effects = Vec::new();
        self.journal.replay(|record, location| {
            machine.evolve(&Fact::from(*record), Place::Journal(location), &mut effects);
        });
        machine.finish_replay().expect("the journal adds up");
        self.machine = machine;
        self.transaction = 0;
        self.takers.clear();
        let machine = &self.machine;
        self.queues
            .retain(|id, _| machine.counts(QueueId(*id)).is_some());
    }

    fn compare(&self) {
        self.machine.check_invariants();
        for (id, queue) in &self.queues {
            let counts = self.machine.counts(QueueId(*id)).expect("it is there");
            let held = self.takers.values().flat_map(|taker| &taker.held);
            let held = held.filter(|one| one.queue == *id).count();
            assert_eq!(counts.ready + counts.unsettled, queue.messages.len() as u64);
            assert_eq!(counts.unsettled, held as u64);
            let takers = self.takers.values().filter(|taker| self.takes(taker, *id));
            assert_eq!(counts.consumers, takers.count() as u64, "{queue:?}");
        }
    }

    fn takes(&self, taker: &Taker, queue: u64) -> bool {
        match taker.gathering {
            Some((_, pattern)) => self.gathered(pattern).contains(&queue),
            None => taker.consumer.is_some_and(|(_, of)| of == queue),
        }
    }

    /// Everything that can go out does, and then nobody with room misses anything.
    fn drain(&mut self) {
        self.dispatch(u8::MAX);
        self.dispatch(u8::MAX);
        assert_eq!(self.machine.poll_dispatch(), None);
        self.compare();
        for taker in self.takers.values().filter(|one| one.has_room()) {
            let queues = self.queues.iter();
            for (id, queue) in queues.filter(|(id, _)| self.takes(taker, **id)) {
                let is_alone = |one: &Taker| one.is_exclusive && self.takes(one, *id);
                let is_any_alone = self.takers.values().any(is_alone);
                if queue.is_paused || queue.has_groups || is_any_alone {
                    continue;
                }
                let mut ready = self.machine.ready(QueueId(*id));
                let missed = ready.find(|one| wants(taker.filter, one.message.0));
                assert_eq!(missed, None, "{taker:?} misses it, of {queue:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_gathering_takes_from_what_its_pattern_says(ops in prop::collection::vec(op(), 1..120)) {
        let mut story = Story::new();
        for (at, op) in ops.into_iter().enumerate() {
            match op {
                Op::Define(which) => story.define(which),
                Op::Delete(which) => story.delete(which),
                Op::Gather { pattern, credit, has_bytes, is_filtered, rank } => {
                    story.gather(PATTERNS[pattern], credit, has_bytes, is_filtered, rank);
                }
                Op::Scatter(which) => story.scatter(which),
                Op::Attach { which, credit, rank } => story.attach(which, credit, rank),
                Op::Detach(which) => story.detach(which),
                Op::Send { address, group } => story.send(ADDRESSES[address], group),
                Op::Dispatch(rounds) => story.dispatch(rounds),
                Op::Settle { .. } => story.settle(&op),
                Op::End { is_commit } => story.end(is_commit),
                Op::Pause(which, is_paused) => story.pause(which, is_paused),
                Op::Restart => story.restart(),
            }
            story.compare();
            if at % 8 == 7 {
                story.drain();
            }
        }
        story.drain();
    }
}

#[test]
fn with_room_for_one_all_queues_have_their_turns() {
    let mut story = Story::new();
    story.gather("#", 1, false, false, Rank::default());
    for (which, address) in ADDRESSES.iter().enumerate() {
        story.define(which);
        (0..3).for_each(|_| story.send(address, 0));
    }
    let mut seen = Vec::new();
    for _ in 0..3 * ADDRESSES.len() {
        story.drain();
        let (_, taker) = story.takers.first_key_value().expect("it is there");
        seen.push(taker.held[0].queue);
        story.settle(&Op::Settle {
            who: 0,
            which: 0,
            is_cumulative: false,
            by_message: false,
            is_accepted: true,
            is_staged: false,
        });
    }
    // Behind the first, each of them once before any comes again.
    for round in seen[1..].chunks_exact(ADDRESSES.len()) {
        let queues: BTreeSet<_> = round.iter().collect();
        assert_eq!(queues.len(), ADDRESSES.len(), "{seen:?}");
    }
}

#[test]
fn an_acknowledgement_of_what_went_with_its_queue_is_no_mistake() {
    let mut story = Story::new();
    story.define(0);
    story.define(1);
    story.gather("*", 4, false, false, Rank::default());
    for address in ["a", "b", "a", "b"] {
        story.send(address, 0);
    }
    story.drain();
    let (_, taker) = story.takers.first_key_value().expect("it is there");
    let (id, _) = taker.gathering.expect("a gathering");
    let lost = taker
        .held
        .iter()
        .filter(|one| one.queue == 1)
        .map(|one| one.tag);
    let lost: Vec<u64> = lost.collect();
    story.delete(0);
    for tag in lost {
        let selected = story.machine.select_gathered(id, Selection::One(tag));
        assert_eq!(selected, Ok(vec![]));
    }
    let selected = story.machine.select_gathered(id, Selection::One(5));
    assert_eq!(selected, Err(Refused::UnknownDelivery));
    story.drain();
}

#[test]
fn one_that_has_no_place_is_refused() {
    let mut story = Story::new();
    let gather = |machine: &mut Machine| {
        machine.gather(Gather {
            pattern: Pattern::parse("#").expect("a pattern"),
            link: 0,
            tag: 0,
            credit: Credit::Unlimited,
            credit_bytes: None,
            settlement: Settlement::OnHandover,
            rank: Rank::default(),
        })
    };
    story.define(0);
    let max = LIMITS.consumers_max;
    let first = gather(&mut story.machine).expect("there is room");
    for _ in 1..max {
        gather(&mut story.machine).expect("there is room");
    }
    let full = Refused::ConsumersFull { max };
    assert_eq!(gather(&mut story.machine), Err(full));
    assert_eq!(story.machine.join(first, QueueId(1), None), Err(full));
    story.machine.check_invariants();
}
