//! What is known of a queue's ready messages for the consumers that share a filter, or have none.
//!
//! A lane asks about each message once, in the order of delivery, and remembers the next few that
//! match; so what does not match hides nothing behind it. What comes ready behind its back, or
//! was forgotten because there was too much of it, is asked about again: never lost.

use std::collections::BTreeSet;

use super::ready::Ready;
use super::spot::{LEVELS, Spot};
use crate::limits::{FILTER_AGAIN_MAX, FILTER_MATCHES_MAX};

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Consumers that share it.
    pub(super) consumers: u32,
    /// By level: messages up to this name were asked about, but for those of `again`.
    asked: [u64; LEVELS],
    /// Messages up to there that have to be asked about again.
    again: BTreeSet<Spot>,
    /// Messages that match and that any of its consumers may take, as far as the lane knows: a
    /// group may have got an owner since.
    matches: BTreeSet<Spot>,
}

impl Lane {
    /// The first ready message that nobody asked about.
    ///
    /// Cost: O(log n) per priority in use.
    pub(super) fn next_unasked(&self, ready: &Ready) -> Option<Spot> {
        let behind = ready.first_behind(&self.asked).map(Spot::of);
        let again = self.again.first().copied();
        match (behind, again) {
            (Some(behind), Some(again)) => Some(behind.min(again)),
            (one, other) => one.or(other),
        }
    }

    /// Whether asking about this message, which is unasked, is of use now: not if more matches
    /// than are remembered stand before it.
    pub(super) fn has_room_for(&self, spot: Spot) -> bool {
        self.matches.len() < FILTER_MATCHES_MAX || self.matches.last().is_none_or(|l| spot < *l)
    }

    /// Whether the lane was asked about this ready message.
    pub(super) fn has_asked(&self, spot: Spot) -> bool {
        spot.message <= self.asked[spot.level()] && !self.again.contains(&spot)
    }

    /// Whether this ready message may be asked about without one before it in its level being
    /// passed over.
    pub(super) fn is_next(&self, spot: Spot, ready: &Ready) -> bool {
        let behind = || ready.first_after(spot.priority(), self.asked[spot.level()]);
        self.again.contains(&spot) || behind().is_some_and(|entry| entry.message == spot.message)
    }

    /// Shape: [`Self::is_next`].
    pub(super) fn note_asked(&mut self, spot: Spot) {
        if !self.again.remove(&spot) {
            let asked = &mut self.asked[spot.level()];
            *asked = (*asked).max(spot.message);
        }
    }

    /// A ready message has to be asked about again, if it ever was.
    pub(super) fn ask_again(&mut self, spot: Spot) -> bool {
        let asked = &mut self.asked[spot.level()];
        if spot.message > *asked {
            return false;
        }
        self.matches.remove(&spot);
        if self.again.len() < FILTER_AGAIN_MAX {
            self.again.insert(spot);
        } else if !self.again.contains(&spot) {
            // All behind it with it: more work, and none is forgotten.
            *asked = spot.message - 1;
        }
        true
    }

    /// A message that was asked about matches.
    pub(super) fn add_match(&mut self, spot: Spot) {
        self.matches.insert(spot);
        if self.matches.len() > FILTER_MATCHES_MAX
            && let Some(last) = self.matches.pop_last()
        {
            // It is the last in its level as well, so that this forgets no other.
            let asked = &mut self.asked[last.level()];
            *asked = (*asked).min(last.message - 1);
        }
    }

    pub(super) fn first_match(&self) -> Option<Spot> {
        self.matches.first().copied()
    }

    pub(super) fn match_count(&self) -> usize {
        self.matches.len()
    }

    pub(super) fn drop_match(&mut self, spot: Spot) {
        self.matches.remove(&spot);
    }

    /// A message is ready no more.
    pub(super) fn forget(&mut self, spot: Spot) {
        self.matches.remove(&spot);
        self.again.remove(&spot);
    }

    /// What it remembers: matches, and what is to be asked about again.
    pub(super) fn remembered(&self) -> [&BTreeSet<Spot>; 2] {
        [&self.matches, &self.again]
    }
}
