//! Filters and groups: who gets what where not everybody may have everything. The machine chooses;
//! here stands what every choice has to keep to, and that whoever can have something gets it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use forebay::pattern::Pattern;
use forebay::queue::{Effect, Fact, FilterId, Policies, PolicySettings, Rank};
use forebay_journal::format::{Outcome, Record};
use forebay_journal::{MessageId, QueueId};

use super::model::{Consumer, Message, Model, State};
use super::rig::{LIMITS, Rig, address_of, nth};

/// Filters that consumers have.
const FILTERS: u8 = 3;
/// Buckets of groups of the third address.
const BUCKETS: u64 = 2;

/// Groups of the second address are given out anew when a consumer comes, those of the third share
/// buckets. Queues that nobody uses may go; nobody asks for that here, but the machine has to know
/// them. The consumers of the second are watched.
pub(crate) fn policies() -> Policies {
    let rebalance = PolicySettings {
        group_rebalance: Some(true),
        slow_consumer_threshold_per_s: Some(Some(1)),
        ..PolicySettings::default()
    };
    let buckets = PolicySettings {
        group_buckets: Some(Some(BUCKETS as u32)),
        ..PolicySettings::default()
    };
    let auto_delete = PolicySettings {
        auto_delete: Some(true),
        ..PolicySettings::default()
    };
    let rules = [
        (address_of(1), rebalance),
        (address_of(2), buckets),
        ("#".to_owned(), auto_delete),
    ];
    let rules = rules.map(|(text, settings)| {
        let pattern = Pattern::parse(&text).expect("a pattern");
        (pattern, settings)
    });
    Policies::new(rules.into())
}

/// What a filter says of a message: always the same, and most often no.
pub(crate) fn is_match(filter: Option<u64>, id: u64) -> bool {
    filter.is_none_or(|filter| (id.wrapping_mul(0x9e37_79b9) >> 5) % 3 == filter)
}

impl Model {
    /// Whether messages of a queue are handed out one by one.
    pub(crate) fn is_selective(&self, queue: u64) -> bool {
        let mut consumers = self.consumers.values();
        let has_filters = consumers.any(|one| one.queue == queue && one.filter.is_some());
        let mut messages = self.queues[&queue].messages.values();
        has_filters || messages.any(|message| message.group != 0)
    }

    fn has_buckets(&self, queue: u64) -> bool {
        self.queues[&queue].address == address_of(2)
    }

    /// What shares an owner with this message; none if it has no group.
    fn key(&self, queue: u64, message: &Message) -> Option<u64> {
        let number = if self.has_buckets(queue) {
            message.group % BUCKETS
        } else {
            message.group
        };
        (message.group != 0).then_some(number)
    }

    /// Who holds messages of a group that did not end since.
    fn holders(&self, queue: u64, key: u64) -> BTreeSet<usize> {
        let messages = self.queues[&queue].messages.values();
        let open = messages.filter(|one| !one.is_closed && self.key(queue, one) == Some(key));
        let holders = open.filter_map(|one| match one.state {
            State::Held { consumer } => Some(consumer),
            State::Ready | State::Locked => None,
        });
        holders.collect()
    }

    /// Ready messages that a consumer takes, in the order of delivery.
    fn takes(&self, queue: u64, consumer: &Consumer) -> Vec<u64> {
        let mut ready = self.ready(queue);
        ready.retain(|id| is_match(consumer.filter, *id));
        ready
    }

    /// A consumer came or went: who has which group may change.
    pub(crate) fn note_consumers(&mut self, queue: u64, rank: Rank) {
        if rank.is_exclusive {
            self.had_exclusive.insert(queue);
        }
        let is_kept = !rank.is_exclusive && self.queues[&queue].address != address_of(1);
        let consumers = &self.consumers;
        self.owners
            .retain(|(of, _), owner| *of != queue || (is_kept && consumers.contains_key(owner)));
    }

    /// A consumer may have a message now: nothing that comes before it may go to it as well, its
    /// group is with nobody else, and nobody who comes first would take it.
    fn expect_fair(&self, queue: u64, id: u64, number: usize) {
        let message = &self.queues[&queue].messages[&id];
        let taker = &self.consumers[&number];
        assert!(is_match(taker.filter, id), "the filter said no");
        let place = (Reverse(message.priority), id);
        let key = self.key(queue, message);
        for other in self.takes(queue, taker) {
            let before = &self.queues[&queue].messages[&other];
            let is_before = (Reverse(before.priority), other) < place;
            let is_free = self.key(queue, before).is_none();
            let is_same = key.is_some() && self.key(queue, before) == key;
            assert!(!is_before || !(is_free || is_same), "{id} before {other}");
        }
        let Some(key) = key else {
            let served = self.served(queue);
            let mut higher = served
                .iter()
                .filter(|(_, one)| one.rank.priority > taker.rank.priority);
            let would = higher.find(|(_, one)| one.filter.is_none() && self.available(one) > 0);
            return assert!(would.is_none(), "a lower consumer was served");
        };
        let others = self.holders(queue, key);
        // The end of a group may pass the filter of one who does not take what comes before it:
        // then the group is closed, and what was left behind begins another.
        let is_mixed = self.consumers.values().any(|one| one.filter.is_some());
        let is_at_one = others.iter().all(|one| *one == number);
        assert!(is_at_one || is_mixed, "a group at two");
        if let Some(owner) = self.owners.get(&(queue, key)) {
            assert!(*owner == number || is_mixed, "a group left its consumer");
        }
    }

    /// A grouped message was delivered.
    fn note_group(&mut self, queue: u64, id: u64, number: usize) {
        let message = self.queues[&queue].messages[&id].clone();
        let Some(key) = self.key(queue, &message) else {
            return;
        };
        self.owners.insert((queue, key), number);
        if !message.is_group_end || self.has_buckets(queue) {
            return;
        }
        self.owners.remove(&(queue, key));
        let messages = &mut self.queues.get_mut(&queue).expect("known").messages;
        for other in messages.values_mut() {
            let is_held = matches!(other.state, State::Held { .. });
            other.is_closed |= is_held && other.group == message.group;
        }
    }

    /// Nobody with credit waits for a message that it may have.
    fn expect_nobody_waits(&self) {
        for queue in self.queues.keys() {
            if self.paused.contains(queue) {
                continue;
            }
            for (number, consumer) in self.served(*queue) {
                if self.available(consumer) == 0 {
                    continue;
                }
                for id in self.takes(*queue, consumer) {
                    let message = &self.queues[queue].messages[&id];
                    let key = self.key(*queue, message);
                    let is_held = key.is_some_and(|key| self.is_with_another(*queue, key, number));
                    assert!(is_held, "consumer {number} waits for {id} in {queue}");
                }
            }
        }
    }

    /// Whether a group may be with another consumer, or about to move.
    fn is_with_another(&self, queue: u64, key: u64, number: usize) -> bool {
        let is_rebalanced = self.queues[&queue].address == address_of(1);
        let mut served = self.served(queue).into_iter();
        let owner = self.owners.get(&(queue, key));
        let is_owned = served.any(|(one, of)| {
            let is_taken = !self.takes(queue, of).is_empty();
            one != number && owner == Some(&one) && is_taken
        });
        let holders = self.holders(queue, key);
        let is_moving = is_rebalanced || self.had_exclusive.contains(&queue);
        is_owned || holders.iter().any(|one| *one != number || is_moving)
    }
}

impl Rig {
    /// Attaches to a queue that is there, with a filter.
    pub(crate) fn join_filtered(&mut self, which: u8, credit: u8, rank: Rank, filter: u8) {
        if let Some(queue) = nth(self.model.queues.keys(), which) {
            let filter = Some(u64::from(filter % FILTERS));
            self.attach_filtered(QueueId(queue), credit, rank, filter);
        }
    }

    /// Asks filters what is to be asked next.
    pub(crate) fn examine(&mut self, rounds: u8) {
        let now_us = self.now * 1_000_000;
        self.machine
            .look_at_consumers(now_us, |_| false, &mut Vec::new());
        for _ in 0..rounds {
            let Some(examine) = self.machine.poll_examine() else {
                return;
            };
            assert_eq!(self.machine.poll_examine(), Some(examine), "it stays");
            let (queue, id) = (examine.queue, examine.message.message);
            let message = &self.model.queues[&queue.0].messages[&id.0];
            assert_eq!(message.state, State::Ready);
            assert_eq!(examine.message.place, message.place);
            // Who is watched is asked for without credit too.
            let is_watched = self
                .machine
                .policy(queue)
                .is_some_and(|policy| policy.slow_consumer_threshold_per_s.is_some());
            let wanted = self.model.served(queue.0).into_iter().any(|(_, one)| {
                let is_asking = is_watched || self.model.available(one) > 0;
                one.filter == Some(examine.filter.0) && is_asking
            });
            assert!(wanted, "asked for nobody");
            if id.0 % 5 == 0 {
                self.machine.examine_later(queue);
            }
            let answer = is_match(Some(examine.filter.0), id.0);
            self.machine
                .note_examined(queue, examine.filter, id, answer);
        }
    }

    /// What has just come is asked about at once, as far as nothing before it is open.
    pub(crate) fn examine_new(&mut self, id: u64) {
        let queues: Vec<u64> = self.model.queues.keys().copied().collect();
        for queue in queues {
            let open = self.machine.open_filters(QueueId(queue), MessageId(id));
            for filter in open.collect::<Vec<_>>() {
                let answer = is_match(Some(filter.0), id);
                let message = MessageId(id);
                self.machine
                    .note_examined(QueueId(queue), filter, message, answer);
            }
        }
    }

    /// An answer to what nobody asked changes nothing that matters.
    pub(crate) fn examine_any(&mut self, which: u8, id: u8, filter: u8) {
        if let Some(queue) = nth(self.model.queues.keys(), which) {
            let ids: Vec<u64> = self.model.queues[&queue].messages.keys().copied().collect();
            let message = nth(ids.iter(), id).unwrap_or_else(|| id.into());
            let filter = FilterId(u64::from(filter % FILTERS));
            let answer = is_match(Some(filter.0), message);
            self.machine
                .note_examined(QueueId(queue), filter, MessageId(message), answer);
        }
    }

    /// All that can be asked and handed out is; then nobody waits for what it may have.
    pub(crate) fn drain(&mut self) {
        while self.machine.poll_examine().is_some() || self.machine.poll_dispatch().is_some() {
            self.examine(u8::MAX);
            self.dispatch(u8::MAX);
        }
        self.model.expect_nobody_waits();
    }

    /// What is planned and overdue goes before anything is handed out.
    pub(crate) fn expire_planned(&mut self, queue: QueueId) -> bool {
        self.machine
            .decide_expire_front(queue, self.now, &mut self.decision);
        let decision = core::mem::take(&mut self.decision);
        let mut gone = Vec::new();
        for fact in decision.facts() {
            let Record::Settle {
                queue: of,
                outcome: Outcome::Expired,
                messages,
                ..
            } = fact.record
            else {
                panic!("expiry settles: {fact:?}");
            };
            assert_eq!(of, queue);
            for id in messages.messages() {
                let message = &self.model.queues[&queue.0].messages[&id.0];
                assert!((1..=self.now).contains(&message.expires), "not overdue");
                assert_eq!(message.state, State::Ready);
                if fact.is_journaled {
                    self.settled.insert((queue.0, id.0));
                }
                gone.push(id.0);
            }
            self.apply(&fact, forebay::queue::Place::NONE);
        }
        self.decision = decision;
        gone.iter().for_each(|id| self.model.settle(queue.0, *id));
        if !gone.is_empty() {
            self.machine.pass_turn(queue);
        }
        !gone.is_empty()
    }

    /// A handout keeps to the rules, whatever was chosen.
    pub(crate) fn hand_out(&mut self, queue: QueueId, fact: &Fact<'_>) {
        let Record::Handout {
            queue: of,
            messages,
        } = fact.record
        else {
            panic!("queue {} needs a choice: {fact:?}", queue.0);
        };
        assert_eq!(of, queue);
        let ids: Vec<u64> = messages.messages().map(|id| id.0).collect();
        assert!((1..=LIMITS.dispatch_max).contains(&ids.len()));
        assert_eq!(fact.is_journaled, self.is_worth_a_record(queue.0, &ids));
        let (_, effects) = self.apply(fact, forebay::queue::Place::NONE);
        assert_eq!(effects.len(), ids.len());
        for (effect, id) in effects.iter().zip(ids) {
            let Effect::Deliver { link, .. } = effect else {
                panic!("{effect:?}");
            };
            let number = *link as usize;
            let message = &self.model.queues[&queue.0].messages[&id];
            assert!(!(1..=self.now).contains(&message.expires), "overdue");
            self.model.expect_fair(queue.0, id, number);
            self.deliver(queue.0, id, effect);
            self.model.note_group(queue.0, id, number);
        }
    }
}

/// Who got the groups of which queue last, as far as deliveries tell: queue and key, and owner.
pub(crate) type Owners = BTreeMap<(u64, u64), usize>;
