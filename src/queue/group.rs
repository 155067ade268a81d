//! Groups of messages: which consumer has which, and what waits for it.
//!
//! A group belongs to the consumer that got its first message, until that goes, the group ends,
//! or nothing of it is under way and only others take what is next. Whatever a lane finds of it
//! meanwhile waits here. Volatile: no fact names an owner.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::consumer::FilterId;
use super::spot::Spot;
use crate::limits::GROUPS_IDLE_MAX;

/// What is known of a message with a group, ready or delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Number of its group, as in its record.
    pub(super) group: u64,
    /// Whether the group ends with it.
    pub(super) is_end: bool,
    /// The ownership under which it is on its way to a consumer or held by it; zero for none.
    pub(super) turn: u64,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) owner: u32,
    /// The filter of its owner.
    pub(super) filter: Option<FilterId>,
    /// Number of this ownership: one that follows has another.
    pub(super) turn: u64,
    /// Messages planned for the owner, or delivered to it and not settled.
    pub(super) held: u32,
    /// Whether it gets another owner as soon as nothing of it is held; nothing is handed out then.
    pub(super) is_moving: bool,
    /// When it last had nothing to do, if it has nothing to do.
    idle: Option<u64>,
    /// Ready messages that its owner takes.
    parked: BTreeSet<Spot>,
    /// Ready messages that others would take and of which its owner's filter knows nothing yet,
    /// or that it does not take.
    passed: BTreeSet<Spot>,
}

/// The groups of a queue that have an owner, by their keys.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Groups are spread over this many buckets; none: each is its own.
    pub(super) buckets: Option<u32>,
    by_key: FxHashMap<u64, Group>,
    /// Owner and key.
    owned: BTreeSet<(u32, u64)>,
    /// Owner, first parked message and key, of all that do not move.
    heads: BTreeSet<(u32, Spot, u64)>,
    /// Since when, and key, of those with nothing to do: the oldest are forgotten first.
    idle: BTreeSet<(u64, u64)>,
    turns: u64,
    stamps: u64,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Who shares an owner.
    pub(super) fn key_of(&self, mark: &Mark) -> u64 {
        let buckets = self.buckets.filter(|buckets| *buckets > 0);
        buckets.map_or(mark.group, |buckets| mark.group % u64::from(buckets))
    }

    /// Whether the group is given out anew behind this message. A bucket never is: other groups
    /// share it.
    pub(super) fn ends_with(&self, mark: &Mark) -> bool {
        mark.is_end && self.buckets.is_none()
    }

    pub(super) fn get(&self, key: u64) -> Option<&Group> {
        self.by_key.get(&key)
    }

    /// The first message that waits for this consumer.
    pub(super) fn head_of(&self, owner: u32) -> Option<Spot> {
        let from = (owner, Spot::FIRST, 0);
        let (of, spot, _) = self.heads.range(from..).next()?;
        (*of == owner).then_some(*spot)
    }

    /// Gives a group that nobody has to a consumer.
    pub(super) fn assign(&mut self, key: u64, owner: u32, filter: Option<FilterId>) {
        self.turns += 1;
        let group = Group {
            owner,
            filter,
            turn: self.turns,
            held: 0,
            is_moving: false,
            idle: None,
            parked: BTreeSet::new(),
            passed: BTreeSet::new(),
        };
        let former = self.by_key.insert(key, group);
        assert!(former.is_none(), "group {key} has an owner");
        self.owned.insert((owner, key));
    }

    /// A message is planned for the owner of its group; returns the number of the ownership.
    pub(super) fn hold(&mut self, key: u64) -> u64 {
        self.change(key, |group| {
            group.held += 1;
            group.turn
        })
    }

    /// A message that was held under this ownership is so no more. Whether the group has to be
    /// freed.
    pub(super) fn let_go(&mut self, key: u64, turn: u64) -> bool {
        if self.get(key).is_none_or(|group| group.turn != turn) {
            return false;
        }
        self.change(key, |group| {
            group.held -= 1;
            group.is_moving && group.held == 0
        })
    }

    /// A ready message waits for the owner of its group, which takes it if `is_taken`.
    pub(super) fn park(&mut self, key: u64, spot: Spot, is_taken: bool) {
        self.change(key, |group| {
            if is_taken {
                group.passed.remove(&spot);
                group.parked.insert(spot);
            } else if !group.parked.contains(&spot) {
                group.passed.insert(spot);
            }
        });
    }

    /// A message waits for its owner no more.
    pub(super) fn forget(&mut self, key: u64, spot: Spot) {
        if self.by_key.contains_key(&key) {
            self.change(key, |group| {
                group.parked.remove(&spot);
                group.passed.remove(&spot);
            });
        }
    }

    /// The first message that others would take, if the owner has nothing of the group and waits
    /// for nothing that it takes.
    pub(super) fn first_passed(&self, key: u64) -> Option<(Option<FilterId>, Spot)> {
        let group = self.get(key)?;
        let is_at_rest = group.held == 0 && group.parked.is_empty();
        let first = group.passed.first().filter(|_| is_at_rest)?;
        Some((group.filter, *first))
    }

    /// Takes a group from its owner as soon as it can be: now, if nothing of it is held. Then
    /// returns true, and the caller frees it.
    pub(super) fn release(&mut self, key: u64) -> bool {
        self.change(key, |group| {
            group.is_moving = group.held > 0;
            !group.is_moving
        })
    }

    /// Nobody has the group any more; what waited for its owner is added to `waiting`.
    pub(super) fn free(&mut self, key: u64, waiting: &mut Vec<Spot>) {
        let Some(group) = self.by_key.remove(&key) else {
            return;
        };
        if let Some(first) = group.parked.first() {
            self.heads.remove(&(group.owner, *first, key));
        }
        if let Some(stamp) = group.idle {
            self.idle.remove(&(stamp, key));
        }
        self.owned.remove(&(group.owner, key));
        waiting.extend(group.parked);
        waiting.extend(group.passed);
        if self.by_key.is_empty() {
            // What a wave of them needed is not kept for good.
            self.by_key.shrink_to_fit();
        }
    }

    /// The idle group that is to be forgotten because there are too many.
    pub(super) fn surplus(&self) -> Option<u64> {
        let (_, key) = self.idle.first()?;
        (self.idle.len() > GROUPS_IDLE_MAX).then_some(*key)
    }

    /// Keys of one owner's groups.
    pub(super) fn keys_of(&self, owner: u32) -> Vec<u64> {
        let owned = self.owned.range((owner, 0)..=(owner, u64::MAX));
        owned.map(|(_, key)| *key).collect()
    }

    /// Owner and key of all.
    pub(super) fn owned(&self) -> &BTreeSet<(u32, u64)> {
        &self.owned
    }

    /// Changes a group and what follows from it.
    ///
    /// Panics: if nobody has the group (our own bookkeeping).
    fn change<T>(&mut self, key: u64, change: impl FnOnce(&mut Group) -> T) -> T {
        let group = self.by_key.get_mut(&key).expect("the caller looked");
        let former = group.head();
        let result = change(group);
        let head = group.head();
        if former != head {
            former.map(|spot| self.heads.remove(&(group.owner, spot, key)));
            head.map(|spot| self.heads.insert((group.owner, spot, key)));
        }
        let is_idle = group.held == 0 && group.parked.is_empty() && group.passed.is_empty();
        match group.idle {
            Some(stamp) if !is_idle => {
                self.idle.remove(&(stamp, key));
                group.idle = None;
            }
            None if is_idle => {
                self.stamps += 1;
                self.idle.insert((self.stamps, key));
                group.idle = Some(self.stamps);
            }
            _ => {}
        }
        result
    }

    /// What follows from the groups, made anew: for the invariants.
    pub(super) fn check(&self) {
        let groups = || self.by_key.iter();
        let owned: BTreeSet<_> = groups().map(|(key, group)| (group.owner, *key)).collect();
        assert_eq!(owned, self.owned, "owners of groups");
        let heads = groups().filter_map(|(key, g)| Some((g.owner, g.head()?, *key)));
        assert_eq!(heads.collect::<BTreeSet<_>>(), self.heads, "heads");
        let idle = groups().filter_map(|(key, group)| Some((group.idle?, *key)));
        assert_eq!(idle.collect::<BTreeSet<_>>(), self.idle, "idle groups");
        assert!(self.idle.len() <= GROUPS_IDLE_MAX, "idle groups unbounded");
        for (key, group) in groups() {
            assert!(group.parked.is_disjoint(&group.passed), "{key} waits twice");
            assert!(!group.is_moving || group.held > 0, "{key} does not move");
        }
    }
}

impl Group {
    /// The first message that may be handed out.
    fn head(&self) -> Option<Spot> {
        self.parked.first().copied().filter(|_| !self.is_moving)
    }

    /// Ready messages that wait for its owner.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Spot> + '_ {
        self.parked.iter().chain(&self.passed).copied()
    }
}
