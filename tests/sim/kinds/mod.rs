//! Kinds of messaging beside plain queues, topics and transactions: each has addresses, clients and
//! rules of its own, and a run has up to three of them.
//!
//! What is sent to a queue of a kind is entered in a [`Shelf`], whose ledger is that of the plain
//! load; the rules of a kind come on top. Only what can be known from outside is judged: when a
//! client wrote something, and when something left the broker.

mod dead_letters;
mod duplicates;
mod durable;
mod expiry;
mod fullness;
mod gathered;
mod groups;
mod hooks;
mod player;
mod priorities;
mod replaced;
mod scheduled;
mod shelf;

use std::collections::BTreeMap;

use forebay::pattern::Pattern;
use forebay::queue::{Policies, PolicySettings};
use forebay_journal::storage::memory::Random;

use crate::ledger::Uid;
use crate::options::Mutant;
pub(crate) use hooks::{Promise, Taken};
pub(crate) use player::Player;
pub(crate) use shelf::{Facts, Shelf, ShelfId};

/// A kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Durable subscriptions to a topic.
    Durable,
    /// Messages that are refused too often.
    Dead,
    /// Messages sent again with the id they had.
    Duplicates,
    /// Messages with an end.
    Expiry,
    /// Messages with a beginning.
    Scheduled,
    /// Messages of all priorities.
    Priorities,
    /// Messages of groups.
    Groups,
    /// An address that lets its producers wait.
    Blocking,
    /// An address that refuses what is too much.
    Failing,
    /// A queue that keeps the newest.
    Ring,
    /// A queue that keeps the last of each key.
    LastValue,
    /// Patterns of queues.
    Gathered,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Durable,
        Self::Dead,
        Self::Duplicates,
        Self::Expiry,
        Self::Scheduled,
        Self::Priorities,
        Self::Groups,
        Self::Blocking,
        Self::Failing,
        Self::Ring,
        Self::LastValue,
        Self::Gathered,
    ];

    /// Its address.
    pub(crate) const fn address(self) -> &'static str {
        match self {
            Self::Durable => "news",
            Self::Dead => "poison",
            Self::Duplicates => "once",
            Self::Expiry => "brief",
            Self::Scheduled => "later",
            Self::Priorities => "ranks",
            Self::Groups => "teams",
            Self::Blocking => "narrow",
            Self::Failing => "strict",
            Self::Ring => "ring",
            Self::LastValue => "prices",
            Self::Gathered => "crop.*",
        }
    }
}

/// Kinds of a run, by its seed: none in a quarter of them.
pub(crate) fn draw(seed: u64) -> Vec<Kind> {
    let mut random = Random::new(seed ^ 0x006B_696E_6473);
    let count = random.below(4);
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(Kind::ALL[random.below(Kind::ALL.len() as u64) as usize]);
    }
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// What was tried of each kind: none of these may stay zero over all seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried {
    /// Deliveries to a durable subscription that was there before its consumer came.
    pub(crate) attached_again: u64,
    pub(crate) unsubscribed: u64,
    pub(crate) dead_letters: u64,
    pub(crate) delayed: u64,
    /// Messages confirmed that had been sent before, and those of them that had been confirmed.
    pub(crate) sent_again: u64,
    pub(crate) confirmed_again: u64,
    pub(crate) expired: u64,
    pub(crate) scheduled: u64,
    /// Deliveries while a lower one certainly waited.
    pub(crate) preferred: u64,
    /// Groups that went on at another consumer.
    pub(crate) groups_moved: u64,
    pub(crate) refused: u64,
    /// Messages confirmed when as many as may were there.
    pub(crate) at_the_limit: u64,
    /// Messages that were confirmed and gave way to newer ones.
    pub(crate) rung_out: u64,
    pub(crate) replaced: u64,
    /// Deliveries to a consumer of a pattern: sent before it came, and then.
    pub(crate) gathered_there: u64,
    pub(crate) gathered_new: u64,
}

impl Tried {
    fn all(&mut self) -> [&mut u64; 16] {
        [
            &mut self.attached_again,
            &mut self.unsubscribed,
            &mut self.dead_letters,
            &mut self.delayed,
            &mut self.sent_again,
            &mut self.confirmed_again,
            &mut self.expired,
            &mut self.scheduled,
            &mut self.preferred,
            &mut self.groups_moved,
            &mut self.refused,
            &mut self.at_the_limit,
            &mut self.rung_out,
            &mut self.replaced,
            &mut self.gathered_there,
            &mut self.gathered_new,
        ]
    }

    pub(crate) fn add(&mut self, mut other: Self) {
        let both = self.all().into_iter().zip(other.all());
        both.for_each(|(sum, one)| *sum += *one);
    }

    /// Whether every kind was tried.
    pub(crate) fn is_whole(mut self) -> bool {
        self.all().into_iter().all(|count| *count > 0)
    }
}

/// Books of the kinds of a run.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    pub(crate) shelves: Vec<Shelf>,
    pub(crate) facts: BTreeMap<Uid, Facts>,
    pub(crate) tried: Tried,
}

impl Kinds {
    /// Books and clients.
    pub(crate) fn new(kinds: &[Kind], random: &mut Random) -> (Self, Vec<Player>) {
        let (mut books, mut players) = (Self::default(), Vec::new());
        for kind in kinds {
            let senders = if *kind == Kind::Durable { 1 } else { 2 };
            players.extend((0..senders).map(|_| Player::sender(*kind, random)));
            let (places, takers) = match kind {
                Kind::Durable => (durable::SUBSCRIBED.to_vec(), 1),
                Kind::Dead => (vec![kind.address(), dead_letters::LANDING], 2),
                Kind::Expiry => (vec![kind.address(), expiry::LANDING], 1),
                Kind::Groups => (vec![kind.address()], 3),
                Kind::Priorities | Kind::Ring | Kind::LastValue => (vec![kind.address()], 1),
                _ => (vec![kind.address()], 2),
            };
            for (at, place) in places.into_iter().enumerate() {
                let shelf = books.shelves.len();
                let is_landing = at > 0 && *kind != Kind::Durable;
                books.shelves.push(Shelf::new(*kind, place, is_landing));
                let takers = if is_landing { 1 } else { takers };
                players.extend((0..takers).map(|_| Player::taker(*kind, shelf)));
            }
        }
        (books, players)
    }

    /// How many addresses there are that messages go to by themselves.
    pub(crate) fn landings(&self) -> u64 {
        self.shelves.iter().filter(|shelf| shelf.is_landing).count() as u64
    }

    /// The shelves that messages of a kind are sent to.
    pub(crate) fn shelves_of(&self, kind: Kind) -> Vec<ShelfId> {
        let shelves = self.shelves.iter().enumerate();
        let of_kind = shelves.filter(|(_, shelf)| shelf.kind == kind);
        of_kind.map(|(id, _)| id).collect()
    }
}

/// What is set for addresses. Plain ones have no dead letters: their ledger knows none.
pub(crate) fn policies(mutant: Mutant) -> Policies {
    let set = |address: &str, settings| (Pattern::parse(address).expect("a pattern"), settings);
    let plain = || PolicySettings {
        attempts_max: Some(u32::MAX),
        ..PolicySettings::default()
    };
    let full = |kind: Kind| set(kind.address(), fullness::settings(kind, mutant));
    Policies::new(vec![
        set("#", plain()),
        set(Kind::Gathered.address(), gathered::settings()),
        set(Kind::Dead.address(), dead_letters::settings(mutant)),
        set(Kind::Expiry.address(), expiry::settings()),
        full(Kind::Blocking),
        full(Kind::Failing),
        set(Kind::Ring.address(), replaced::ring_settings(mutant)),
        set(Kind::LastValue.address(), replaced::last_value_settings()),
    ])
}
