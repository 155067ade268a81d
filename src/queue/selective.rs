//! Who may take what, in a queue where not every consumer may take every message: one whose
//! consumers have filters, or with messages of groups.
//!
//! All of it but the marks is volatile and knows only of consumers that are attached: a replay
//! has none. A queue that needs nothing of this has none of it.

use rustc_hash::FxHashMap;

use super::consumer::FilterId;
use super::group::{Groups, Mark};
use super::lane::Lane;
use super::plan::Plan;
use super::ready::Ready;
use super::spot::Spot;

#[derive(Debug, Default)]
pub(super) struct Selective {
    /// Of every message of the queue with a group, ready or delivered.
    pub(super) marks: FxHashMap<u64, Mark>,
    pub(super) groups: Groups,
    /// By filter; none while the queue needs no choice.
    pub(super) lanes: Vec<(Option<FilterId>, Lane)>,
    /// Consumers with a filter.
    pub(super) filtered: u32,
    /// Whether messages are planned one by one; if not, turns alone decide.
    pub(super) is_active: bool,
    pub(super) plan: Plan,
    /// How often a group was taken from its owner.
    pub(super) frees: u64,
    waiting: Vec<Spot>,
}

impl Selective {
    /// Whether it can be dropped.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.filtered == 0 && self.groups.is_empty()
    }

    /// Begins or ends to choose, as filters and groups make it necessary.
    ///
    /// Shape: `filters` of all consumers of the queue.
    pub(super) fn switch(&mut self, filters: impl Iterator<Item = Option<FilterId>>) {
        let is_needed = !self.marks.is_empty() || self.filtered > 0;
        if is_needed == self.is_active {
            return;
        }
        self.is_active = is_needed;
        self.unplan();
        self.lanes.clear();
        if is_needed {
            filters.for_each(|filter| self.add_to_lane(filter));
        }
    }

    /// A consumer with this filter came.
    pub(super) fn join(&mut self, filter: Option<FilterId>) {
        self.filtered += u32::from(filter.is_some());
        if self.is_active {
            self.add_to_lane(filter);
        }
    }

    /// A consumer went: its groups and, if nobody shares it, its filter go with it.
    pub(super) fn part(&mut self, index: u32, filter: Option<FilterId>) {
        self.unplan();
        for key in self.groups.keys_of(index) {
            self.free(key);
        }
        self.filtered -= u32::from(filter.is_some());
        if let Ok(at) = self.lanes.binary_search_by_key(&filter, |(one, _)| *one) {
            let lane = &mut self.lanes[at].1;
            lane.consumers -= 1;
            if lane.consumers == 0 {
                self.lanes.remove(at);
            }
        }
    }

    fn add_to_lane(&mut self, filter: Option<FilterId>) {
        let at = self.lanes.binary_search_by_key(&filter, |(one, _)| *one);
        let at = at.unwrap_or_else(|at| {
            self.lanes.insert(at, (filter, Lane::default()));
            at
        });
        self.lanes[at].1.consumers += 1;
    }

    pub(super) fn lane(&self, filter: Option<FilterId>) -> Option<&Lane> {
        let at = self.lanes.binary_search_by_key(&filter, |(one, _)| *one);
        Some(&self.lanes[at.ok()?].1)
    }

    pub(super) fn lane_mut(&mut self, filter: Option<FilterId>) -> Option<&mut Lane> {
        let at = self.lanes.binary_search_by_key(&filter, |(one, _)| *one);
        Some(&mut self.lanes[at.ok()?].1)
    }

    /// The key of a message's group, if somebody has that group.
    pub(super) fn owned_key(&self, message: u64) -> Option<u64> {
        let key = self.groups.key_of(self.marks.get(&message)?);
        self.groups.get(key).map(|_| key)
    }

    /// A message that a lane has to be asked about next was: it matches or it does not.
    pub(super) fn judge(&mut self, filter: Option<FilterId>, spot: Spot, is_match: bool) {
        let key = self.owned_key(spot.message);
        let is_planned = self.plan.has(spot);
        let Some(lane) = self.lane_mut(filter) else {
            return;
        };
        lane.note_asked(spot);
        match key {
            _ if is_planned => {}
            None if is_match => lane.add_match(spot),
            None => {}
            Some(key) => {
                if is_match {
                    self.park(filter, key, spot);
                }
                self.rest(key);
            }
        }
    }

    /// A match of this lane is of a group that somebody has.
    pub(super) fn park(&mut self, filter: Option<FilterId>, key: u64, spot: Spot) {
        let owner = self.groups.get(key).map(|group| group.filter);
        self.groups.park(key, spot, owner == Some(filter));
    }

    /// Frees a group whose owner has nothing of it, if it does not take what others would.
    pub(super) fn rest(&mut self, key: u64) {
        let passed = self.groups.first_passed(key);
        let is_refused = |(filter, first)| {
            let lane = self.lane(filter);
            lane.is_none_or(|lane| lane.has_asked(first))
        };
        if passed.is_some_and(is_refused) {
            self.free(key);
        }
        while let Some(key) = self.groups.surplus() {
            self.free(key);
        }
    }

    /// Nobody has this group any more: all may ask for its messages.
    pub(super) fn free(&mut self, key: u64) {
        self.frees += 1;
        let mut waiting = core::mem::take(&mut self.waiting);
        self.groups.free(key, &mut waiting);
        for spot in waiting.drain(..) {
            self.ask_again(spot);
        }
        self.waiting = waiting;
    }

    /// Takes the groups of which `is_meant` is true of the owner from them, each as soon as
    /// nothing of it is held: so their messages stay in order.
    pub(super) fn redistribute(&mut self, is_meant: impl Fn(u32) -> bool) {
        self.unplan();
        let meant = |(owner, key): &(u32, u64)| is_meant(*owner).then_some(*key);
        let keys: Vec<u64> = self.groups.owned().iter().filter_map(meant).collect();
        for key in keys {
            if self.groups.release(key) {
                self.free(key);
            }
        }
    }

    pub(super) fn ask_again(&mut self, spot: Spot) -> bool {
        let mut is_behind = false;
        for (_, lane) in &mut self.lanes {
            is_behind |= lane.ask_again(spot);
        }
        is_behind
    }

    /// A message is ready, for the first time or again.
    pub(super) fn enter(&mut self, spot: Spot) {
        if self.ask_again(spot) {
            // It may stand before what is planned.
            self.unplan();
        }
    }

    /// A message that was ready left, and not as it was planned.
    pub(super) fn leave(&mut self, spot: Spot) {
        self.unplan();
        for (_, lane) in &mut self.lanes {
            lane.forget(spot);
        }
        if let Some(key) = self.owned_key(spot.message) {
            self.groups.forget(key, spot);
            self.rest(key);
        }
    }

    /// Nobody holds this message any more.
    pub(super) fn let_go(&mut self, message: u64) {
        let Some(mark) = self.marks.get_mut(&message) else {
            return;
        };
        let turn = core::mem::take(&mut mark.turn);
        let key = self.groups.key_of(&*mark);
        if turn == 0 {
            return;
        }
        if self.groups.let_go(key, turn) {
            self.free(key);
        } else {
            self.rest(key);
        }
    }

    /// A message left its queue for good.
    pub(super) fn unmark(&mut self, message: u64) {
        self.marks.remove(&message);
        if self.marks.is_empty() {
            // What a wave of them needed is not kept for good.
            self.marks.shrink_to_fit();
        }
    }

    /// Whether there is a message for a consumer, whatever its credit, as far as its filter was
    /// asked.
    pub(super) fn has_message_for(
        &self,
        index: u32,
        filter: Option<FilterId>,
        ready: &Ready,
    ) -> bool {
        let Some(lane) = self.lane(filter) else {
            return false;
        };
        let unasked = || lane.next_unasked(ready).filter(|_| filter.is_none());
        let free = lane.first_match().or_else(unasked);
        free.is_some_and(|spot| self.owned_key(spot.message).is_none())
            || self.groups.head_of(index).is_some()
    }

    /// The filters that may be asked about this ready message without passing over another.
    pub(super) fn open_filters<'a>(
        &'a self,
        spot: Spot,
        ready: &'a Ready,
    ) -> impl Iterator<Item = FilterId> + 'a {
        let is_open = move |lane: &Lane| lane.is_next(spot, ready) && lane.has_room_for(spot);
        let lanes = self.lanes.iter();
        lanes.filter_map(move |(filter, lane)| filter.filter(|_| is_open(lane)))
    }
}
