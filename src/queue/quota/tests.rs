//! Quotas of a node whose shards talk by hand, over random histories.

use std::collections::VecDeque;

use super::*;
use proptest::prelude::*;

/// The quotas of a node with what is on its way between them, in order from each to each.
struct Node {
    limit: u64,
    quotas: Vec<Quota>,
    held: Vec<u64>,
    mail: Vec<Vec<VecDeque<QuotaWord>>>,
}

impl Node {
    fn new(limit: u64, held: Vec<u64>) -> Self {
        let count = held.len();
        Self {
            limit,
            quotas: Quota::of_all(limit, &held),
            held,
            mail: vec![vec![VecDeque::new(); count]; count],
        }
    }

    /// A producer that minds the limit.
    fn offer(&mut self, shard: usize) -> Room {
        let room = self.quotas[shard].room(self.held[shard]);
        self.held[shard] += u64::from(room == Room::Yes);
        room
    }

    /// A producer that only looks.
    fn room(&mut self, shard: usize) -> Room {
        self.quotas[shard].room(self.held[shard])
    }

    fn leave(&mut self, shard: usize) {
        self.held[shard] = self.held[shard].saturating_sub(1);
    }

    fn step(&mut self, shard: usize) -> bool {
        let mail = &mut self.mail[shard];
        self.quotas[shard].step(self.held[shard], |to, word| mail[to].push_back(word))
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let word = self.mail[from][to].pop_front();
        if let Some(word) = word {
            self.quotas[to].take(from, word);
        }
        word.is_some()
    }

    /// Delivers everything and lets all have turns, those in `offering` with a producer that
    /// waits, until nothing changes; `offering` gets out who found no room.
    fn settle(&mut self, offering: &mut Vec<usize>) {
        let count = self.held.len();
        for _ in 0..200 {
            let mut is_moving = false;
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                while self.deliver(from, to) {
                    is_moving = true;
                }
            }
            let before = offering.len();
            offering.retain(|shard| self.offer(*shard) != Room::Yes);
            is_moving |= offering.len() < before;
            for shard in 0..count {
                is_moving |= self.step(shard);
            }
            let is_quiet = self.mail.iter().flatten().all(VecDeque::is_empty);
            if !is_moving && is_quiet {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn total(&self) -> u64 {
        self.held.iter().sum()
    }

    fn check(&self) {
        let parts: u64 = self.quotas.iter().map(|quota| quota.part).sum();
        let gifts = self.mail.iter().flatten().flatten().map(|word| match word {
            QuotaWord::Give { amount } => *amount,
            QuotaWord::Ask { .. } => 0,
        });
        assert_eq!(
            parts + gifts.sum::<u64>(),
            self.limit,
            "the limit is all there"
        );
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Offer(usize),
    Look(usize),
    Force(usize),
    Leave(usize),
    Turn(usize),
    Mail(usize, usize),
}

fn events(shards: usize, has_forced: bool) -> impl Strategy<Value = Vec<Event>> {
    let shard = move || 0..shards;
    let forced = if has_forced { 2 } else { 0 };
    let event = prop_oneof![
        4 => shard().prop_map(Event::Offer),
        1 => shard().prop_map(Event::Look),
        forced => shard().prop_map(Event::Force),
        3 => shard().prop_map(Event::Leave),
        4 => shard().prop_map(Event::Turn),
        6 => (shard(), shard()).prop_map(|(from, to)| Event::Mail(from, to)),
    ];
    proptest::collection::vec(event, 0..200)
}

fn histories() -> impl Strategy<Value = (u64, Vec<u64>, Vec<Event>, bool)> {
    (1usize..5, 1u64..20, any::<bool>()).prop_flat_map(|(shards, limit, has_forced)| {
        let held = proptest::collection::vec(0u64..8, shards);
        (
            Just(limit),
            held,
            events(shards, has_forced),
            Just(has_forced),
        )
    })
}

proptest! {
    #[test]
    fn the_limit_holds_and_whoever_waits_is_woken(history in histories()) {
        let (limit, held, events, has_forced) = history;
        let is_over = held.iter().sum::<u64>() > limit;
        let mut node = Node::new(limit, held);
        node.check();
        for event in events {
            match event {
                Event::Offer(shard) => drop(node.offer(shard)),
                Event::Look(shard) => drop(node.room(shard)),
                Event::Force(shard) => node.held[shard] += 1,
                Event::Leave(shard) => node.leave(shard),
                Event::Turn(shard) => drop(node.step(shard)),
                Event::Mail(from, to) => drop(node.deliver(from, to)),
            }
            node.check();
            prop_assert!(has_forced || is_over || node.total() <= limit);
            if let Event::Look(shard) = event {
                prop_assert_eq!(node.room(shard), node.room(shard));
            }
        }
        let shards = node.held.len();
        let mut waiting: Vec<usize> = (0..shards).chain(0..shards).collect();
        node.settle(&mut waiting);
        node.check();
        // Somebody waits only while there is no room anywhere, and then that is known.
        prop_assert_eq!(waiting.is_empty(), node.total() < limit || waiting.is_empty());
        for shard in waiting.clone() {
            prop_assert_eq!(node.offer(shard), Room::No);
        }
        // Room that comes anywhere wakes whoever waits anywhere.
        while node.total() >= limit && !waiting.is_empty() {
            let fullest = (0..shards).max_by_key(|shard| node.held[*shard]).unwrap();
            node.leave(fullest);
            node.step(fullest);
            let before = (node.total(), waiting.len());
            node.settle(&mut waiting);
            prop_assert!(before.0 >= limit || waiting.len() < before.1, "{before:?} {waiting:?}");
        }
    }
}

#[test]
fn a_shard_without_messages_gets_room_beside_a_greedy_one() {
    for shards in 2..5 {
        let mut held = vec![0; shards];
        held[0] = 12;
        let mut node = Node::new(12, held);
        let mut taken = vec![0; shards];
        for _ in 0..60 {
            node.leave(0);
            // Its own producers are always there first.
            for (shard, taken) in taken.iter_mut().enumerate() {
                *taken += u64::from(node.offer(shard) == Room::Yes);
                node.step(shard);
            }
            for (from, to) in (0..shards).flat_map(|from| (0..shards).map(move |to| (from, to))) {
                node.deliver(from, to);
            }
            node.check();
        }
        assert!(taken.iter().all(|taken| *taken > 0), "{taken:?}");
    }
}

#[test]
fn a_shard_with_room_asks_nobody_and_one_shard_has_all() {
    let mut node = Node::new(10, vec![0, 3]);
    for _ in 0..3 {
        assert_eq!(node.offer(0), Room::Yes);
        assert!(!node.step(0));
    }
    assert!(node.mail.iter().flatten().all(VecDeque::is_empty));
    let mut alone = Node::new(2, vec![0]);
    let rooms = [alone.offer(0), alone.offer(0), alone.offer(0)];
    assert_eq!(rooms, [Room::Yes, Room::Yes, Room::No]);
    alone.leave(0);
    assert_eq!(alone.offer(0), Room::Yes);
}

#[test]
fn what_was_found_at_the_start_counts_before_anything_else_may_come() {
    let node = Node::new(10, vec![9, 0, 4]);
    let parts: Vec<u64> = node.quotas.iter().map(|quota| quota.part).collect();
    assert_eq!(parts, [9, 0, 1]);
    let node = Node::new(10, vec![1, 0, 4]);
    let parts: Vec<u64> = node.quotas.iter().map(|quota| quota.part).collect();
    assert_eq!(parts, [3, 2, 5]);
}

#[test]
fn one_that_does_not_serve_is_asked_for_nothing() {
    let limits = GlobalLimits {
        messages: Some(4),
        bytes: None,
    };
    let mut quotas = Quotas::of_all(limits, &[Held::default(); 2]);
    let mut own = quotas.remove(0);
    own.leave_out(1);
    let held = |messages| Held { messages, bytes: 0 };
    assert_eq!(own.room(held(1)), Room::Yes);
    assert_eq!(own.room(held(2)), Room::No, "the rest is the other's");
    own.step(held(2));
    assert_eq!(own.poll(), None);
}
