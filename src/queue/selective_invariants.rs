//! What always holds of filters and groups, checked by recount: see `invariants.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::delivered::Holder;
use super::group::Group;
use super::machine::Machine;
use super::selective::Selective;
use super::spot::Spot;
use super::state::QueueState;
use crate::limits::{FILTER_AGAIN_MAX, FILTER_MATCHES_MAX};

impl Machine {
    pub(super) fn check_selective(&self, queue: &QueueState) {
        let id = queue.id.0;
        let Some(selective) = &queue.selective else {
            return;
        };
        assert!(!selective.is_empty(), "queue {id} chooses for nothing");
        let filters = queue.consumers.iter();
        let filters = filters.map(|index| self.consumers.at(*index).filter);
        let filtered = filters.clone().filter(Option::is_some).count();
        assert_eq!(
            filtered, selective.filtered as usize,
            "filters of queue {id}"
        );
        let is_needed = filtered > 0 || !selective.marks.is_empty();
        assert_eq!(is_needed, selective.is_active, "choices of queue {id}");
        let mut counts = BTreeMap::new();
        filters.for_each(|filter| *counts.entry(filter).or_insert(0) += u32::from(is_needed));
        counts.retain(|_, count| *count > 0);
        let lanes = selective.lanes.iter();
        let found = lanes.map(|(filter, lane)| (*filter, lane.consumers));
        assert!(found.eq(counts), "lanes of queue {id}");
        self.check_lanes(queue, selective);
        self.check_marks(queue, selective);
        self.check_groups(queue, selective);
        self.check_plan(queue, selective);
        if is_needed {
            self.check_work(queue, selective);
        }
    }

    fn check_lanes(&self, queue: &QueueState, selective: &Selective) {
        for (_, lane) in &selective.lanes {
            let [matches, again] = lane.remembered();
            assert!(matches.len() <= FILTER_MATCHES_MAX, "matches unbounded");
            assert!(again.len() <= FILTER_AGAIN_MAX, "questions unbounded");
            assert!(matches.is_disjoint(again), "known and not known");
            for spot in matches.iter().chain(again) {
                assert!(queue.ready.at(*spot).is_some(), "{spot:?} is not ready");
                assert!(!selective.plan.has(*spot), "{spot:?} is planned");
            }
        }
    }

    fn check_marks(&self, queue: &QueueState, selective: &Selective) {
        let mut left: BTreeSet<u64> = selective.marks.keys().copied().collect();
        let delivered = queue.delivered.iter().map(|slot| &slot.entry);
        let aside = queue.aside.iter().map(|(entry, _)| entry);
        for entry in queue.ready.iter().chain(delivered).chain(aside) {
            if left.remove(&entry.message) {
                assert!(entry.is_noted(), "{} does not tell", entry.message);
            }
        }
        assert_eq!(left, BTreeSet::new(), "groups of messages that left");
    }

    fn check_groups(&self, queue: &QueueState, selective: &Selective) {
        selective.groups.check();
        let key_of = |message| selective.groups.key_of(&selective.marks[&message]);
        let mut held: BTreeMap<u64, u32> = BTreeMap::new();
        let mut note = |message: u64| {
            if let Some(mark) = selective.marks.get(&message)
                && mark.turn != 0
            {
                *held.entry(mark.turn).or_default() += 1;
            }
        };
        selective
            .plan
            .steps()
            .iter()
            .for_each(|one| note(one.spot.message));
        for slot in queue.delivered.iter() {
            note(slot.entry.message);
        }
        for (owner, key) in selective.groups.owned() {
            let group = selective.groups.get(*key).expect("owned");
            assert!(queue.consumers.contains(owner), "an owner left");
            assert_eq!(group.filter, self.consumers.at(*owner).filter);
            let count = held.get(&group.turn).copied().unwrap_or_default();
            assert_eq!(count, group.held, "held of group {key}");
            for spot in group.waiting() {
                assert!(queue.ready.at(spot).is_some(), "{spot:?} is not ready");
                assert!(!selective.plan.has(spot), "{spot:?} waits and is planned");
                assert_eq!(key_of(spot.message), *key, "{spot:?} waits elsewhere");
            }
            self.check_one_owner(queue, selective, group);
        }
    }

    /// All that is held under one ownership is held by the owner.
    fn check_one_owner(&self, queue: &QueueState, selective: &Selective, group: &Group) {
        for slot in queue.delivered.iter() {
            let mark = selective.marks.get(&slot.entry.message);
            if mark.is_some_and(|mark| mark.turn == group.turn) {
                let is_owner =
                    matches!(slot.holder, Holder::Consumer { index, .. } if index == group.owner);
                assert!(is_owner, "{} is held by another", slot.entry.message);
            }
        }
    }

    fn check_plan(&self, queue: &QueueState, selective: &Selective) {
        let steps = selective.plan.steps();
        let spots: BTreeSet<Spot> = steps.iter().map(|one| one.spot).collect();
        assert_eq!(spots.len(), steps.len(), "planned twice");
        for one in steps {
            assert!(
                selective.plan.has(one.spot),
                "the plan does not know itself"
            );
            assert!(queue.ready.at(one.spot).is_some(), "{one:?} is not ready");
            assert!(queue.consumers.contains(&one.taker), "{one:?} for nobody");
            assert!(self.consumers.available(one.taker) > 0, "{one:?}");
        }
    }

    /// Whoever can have something, or has to be asked, is known to have work.
    fn check_work(&self, queue: &QueueState, selective: &Selective) {
        if queue.is_paused() {
            return assert!(!queue.is_dirty && !queue.is_curious, "paused");
        }
        for index in &queue.willing {
            let consumer = self.consumers.at(*index);
            if self.consumers.available(*index) == 0 || consumer.is_thirsty {
                continue;
            }
            let lane = selective.lane(consumer.filter).expect("attached");
            let [matches, _] = lane.remembered();
            let mut free = matches.iter();
            let free = free.find(|spot| selective.owned_key(spot.message).is_none());
            let own = selective.groups.head_of(*index);
            let first = [free.copied(), own].into_iter().flatten().min();
            let next = lane.next_unasked(&queue.ready);
            let is_due = match (first, next) {
                (Some(first), Some(next)) => first < next || consumer.filter.is_none(),
                (first, next) => first.is_some() || (next.is_some() && consumer.filter.is_none()),
            };
            assert!(
                !is_due || queue.is_dirty,
                "{index} has work nobody knows of"
            );
        }
        let mut attached = queue.consumers.iter();
        let is_told_later = attached.any(|index| self.consumers.at(*index).is_thirsty);
        let is_due = queue.next_to_examine(&self.consumers).is_some() && !is_told_later;
        assert!(!is_due || queue.is_curious, "a question nobody knows of");
    }
}
