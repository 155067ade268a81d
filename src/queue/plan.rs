//! Which message goes to which consumer next, in a queue where that takes a choice.
//!
//! Planned, then decided, then true: what is planned stays ready until its fact is true, and a
//! plan that something overtakes is dropped and made again. It is volatile, as turns are.

use std::collections::BTreeSet;

use super::consumer::FilterId;
use super::entry::Entry;
use super::ready::Ready;
use super::selective::Selective;
use super::spot::Spot;
use crate::limits::SELECTIVE_STEPS_MAX;

/// A message and who gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) spot: Spot,
    pub(super) taker: u32,
    /// Whether its group begins with it, as far as this consumer is concerned.
    pub(super) is_group_first: bool,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    steps: Vec<Planned>,
    spots: BTreeSet<Spot>,
    /// Used again and again.
    turns: Vec<Turn>,
}

/// A consumer with credit, and what is left of that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) index: u32,
    pub(super) priority: i32,
    pub(super) filter: Option<FilterId>,
    pub(super) messages: u32,
    pub(super) bytes: u64,
    /// Whether there is nothing for it until a group is given out anew.
    pub(super) is_done: bool,
}

/// What a search for deliveries came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    Found,
    /// There is nothing to hand out.
    Nothing,
    /// It took too long for once.
    Unfinished,
}

/// What a consumer can have.
enum Candidate {
    Message(Spot),
    /// Nothing, as far as is known.
    Nothing,
    OutOfSteps,
}

impl Planned {
    /// A message that goes to whose turn it is.
    pub(super) fn by_turn(entry: &Entry, taker: u32) -> Self {
        Self {
            spot: Spot::of(entry),
            taker,
            is_group_first: false,
        }
    }
}

impl Plan {
    pub(super) fn steps(&self) -> &[Planned] {
        &self.steps
    }

    pub(super) fn has(&self, spot: Spot) -> bool {
        self.spots.contains(&spot)
    }

    /// The plan comes true.
    pub(super) fn take(&mut self) -> Vec<Planned> {
        self.spots.clear();
        core::mem::take(&mut self.steps)
    }

    /// Gives back what [`Self::take`] gave, for its memory.
    pub(super) fn put_back(&mut self, mut steps: Vec<Planned>) {
        steps.clear();
        self.steps = steps;
    }
}

impl Selective {
    /// Plans up to `max` deliveries, if none are planned: to consumers of the highest priority in
    /// turns, then to others.
    ///
    /// Shape: turns sorted by priority, the highest first.
    pub(super) fn search(
        &mut self,
        turns: impl Iterator<Item = Turn>,
        ready: &Ready,
        max: usize,
    ) -> Search {
        if self.plan.steps.is_empty() {
            let mut own = core::mem::take(&mut self.plan.turns);
            own.clear();
            own.extend(turns);
            let mut steps = SELECTIVE_STEPS_MAX;
            for run in own.chunk_by_mut(|one, next| one.priority == next.priority) {
                if !self.plan_run(run, ready, max, &mut steps) {
                    break;
                }
            }
            self.plan.turns = own;
            if steps == 0 && self.plan.steps.is_empty() {
                return Search::Unfinished;
            }
        }
        if self.plan.steps.is_empty() {
            Search::Nothing
        } else {
            Search::Found
        }
    }

    /// Serves consumers of one priority; false if the plan is full or it took too long.
    fn plan_run(&mut self, run: &mut [Turn], ready: &Ready, max: usize, steps: &mut u32) -> bool {
        loop {
            let mut is_any = false;
            for at in 0..run.len() {
                let (turn, frees) = (&mut run[at], self.frees);
                if turn.messages == 0 || turn.is_done {
                    continue;
                }
                if self.plan.steps.len() >= max {
                    return false;
                }
                match self.candidate(turn, ready, steps) {
                    Candidate::Message(spot) => self.plan_one(turn, spot, ready),
                    Candidate::Nothing => turn.is_done = true,
                    Candidate::OutOfSteps => return false,
                }
                is_any |= !turn.is_done;
                if self.frees != frees {
                    run.iter_mut().for_each(|turn| turn.is_done = false);
                    is_any = true;
                }
            }
            if !is_any {
                return true;
            }
        }
    }

    /// The first message that a consumer may have: none before it may be one, as far as can be
    /// known, so that groups stay in order.
    fn candidate(&mut self, turn: &Turn, ready: &Ready, steps: &mut u32) -> Candidate {
        let filter = turn.filter;
        while *steps > 0 {
            *steps -= 1;
            let Some(lane) = self.lane(filter) else {
                return Candidate::Nothing;
            };
            let (free, next) = (lane.first_match(), lane.next_unasked(ready));
            if let Some(spot) = free
                && let Some(key) = self.owned_key(spot.message)
            {
                // Its group got an owner after the lane was asked.
                self.lane_mut(filter)
                    .into_iter()
                    .for_each(|lane| lane.drop_match(spot));
                self.park(filter, key, spot);
                self.rest(key);
                continue;
            }
            let own = self.groups.head_of(turn.index);
            let first = match (free, own) {
                (Some(free), Some(own)) => Some(free.min(own)),
                (one, other) => one.or(other),
            };
            match next.filter(|next| first.is_none_or(|first| *next < first)) {
                Some(next) if filter.is_none() => self.judge(None, next, true),
                Some(next) if self.plan.has(next) => self.judge(filter, next, false),
                Some(_) => return Candidate::Nothing,
                None => return first.map_or(Candidate::Nothing, Candidate::Message),
            }
        }
        Candidate::OutOfSteps
    }

    fn plan_one(&mut self, turn: &mut Turn, spot: Spot, ready: &Ready) {
        let size_bytes = ready.at(spot).map_or(0, |entry| entry.size_bytes);
        turn.bytes = turn.bytes.saturating_sub(size_bytes.into());
        turn.messages = if turn.bytes == 0 {
            0
        } else {
            turn.messages - 1
        };
        for (_, lane) in &mut self.lanes {
            lane.forget(spot);
        }
        let is_group_first = self.hold(turn, spot);
        self.plan.spots.insert(spot);
        self.plan.steps.push(Planned {
            spot,
            taker: turn.index,
            is_group_first,
        });
    }

    /// A message with a group is under way; whether the group begins with it.
    fn hold(&mut self, turn: &Turn, spot: Spot) -> bool {
        let Some(mark) = self.marks.get(&spot.message) else {
            return false;
        };
        let (key, is_end) = (self.groups.key_of(mark), self.groups.ends_with(mark));
        let is_first = self.groups.get(key).is_none();
        if is_first {
            self.groups.assign(key, turn.index, turn.filter);
        }
        self.groups.forget(key, spot);
        let number = self.groups.hold(key);
        if let Some(mark) = self.marks.get_mut(&spot.message) {
            mark.turn = number;
        }
        if is_end {
            self.free(key);
        }
        is_first
    }

    /// Drops the plan: all of it can be planned anew.
    pub(super) fn unplan(&mut self) {
        if self.plan.steps.is_empty() {
            return;
        }
        let mut steps = self.plan.take();
        for planned in steps.drain(..).rev() {
            let Planned { spot, .. } = planned;
            let mark = self.marks.get(&spot.message).copied();
            self.ask_again(spot);
            self.let_go(spot.message);
            // Nobody has a group of which nothing ever came.
            if let Some(mark) = mark.filter(|_| planned.is_group_first) {
                let key = self.groups.key_of(&mark);
                let group = self.groups.get(key);
                if group.is_some_and(|group| group.turn == mark.turn && group.held == 0) {
                    self.free(key);
                }
            }
        }
        self.plan.put_back(steps);
    }
}
