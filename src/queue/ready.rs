//! The ready messages of a queue in the order in which they leave: the highest priority first, and
//! within a priority in the order in which they came.

use forebay_journal::format::{PRIORITY_DEFAULT, PRIORITY_MAX};

use super::entry::Entry;
use super::level::{Front, Level};
use super::spot::{LEVELS, Spot};

#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Messages whose priority nobody chose: in most queues all.
    usual: Level,
    /// The others by priority, made when the first comes; the place of the usual one stays empty.
    others: Option<Box<[Level; LEVELS]>>,
    len: usize,
}

impl Ready {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> + Clone + '_ {
        self.levels().flat_map(Level::iter)
    }

    /// What comes behind the message of this priority and name, whether it is there or not.
    pub(super) fn iter_after(
        &self,
        priority: u8,
        message: u64,
    ) -> impl Iterator<Item = &Entry> + '_ {
        let lower = (0..priority).rev();
        let same = self.level_at(priority).into_iter();
        let same = same.flat_map(move |level| level.iter_after(message));
        same.chain(
            lower
                .filter_map(|one| self.level_at(one))
                .flat_map(Level::iter),
        )
    }

    pub(super) fn get(&self, message: u64) -> Option<&Entry> {
        self.levels().find_map(|level| level.get(message))
    }

    /// The lowest name of all.
    pub(super) fn lowest(&self) -> Option<u64> {
        let first = self.levels().filter_map(|level| level.iter().next());
        first.map(|entry| entry.message).min()
    }

    pub(super) fn get_mut(&mut self, message: u64) -> Option<&mut Entry> {
        if self.usual.get(message).is_some() {
            return self.usual.get_mut(message);
        }
        let others = self.others.as_mut()?;
        others.iter_mut().find_map(|level| level.get_mut(message))
    }

    /// Of each priority the first `most` messages named higher than this one.
    pub(super) fn since(&self, after: u64, most: usize) -> impl Iterator<Item = &Entry> + '_ {
        self.levels()
            .flat_map(move |level| level.iter_after(after).take(most))
    }

    /// The `count` messages that came first, those of low priority before others.
    pub(super) fn oldest(&self, count: usize) -> impl Iterator<Item = &Entry> + Clone + '_ {
        let lowest_first = 0..=PRIORITY_MAX;
        let levels = lowest_first.filter_map(|priority| self.level_at(priority));
        levels.flat_map(Level::iter).take(count)
    }

    /// Of each priority the last `most` messages named lower than this one, the highest name first.
    pub(super) fn highest(&self, before: u64, most: usize) -> impl Iterator<Item = &Entry> + '_ {
        self.levels()
            .flat_map(move |level| level.descending(before).take(most))
    }

    /// The message in this place.
    pub(super) fn at(&self, spot: Spot) -> Option<&Entry> {
        self.level_at(spot.priority())?.get(spot.message)
    }

    /// The first message of this priority behind that name.
    pub(super) fn first_after(&self, priority: u8, message: u64) -> Option<&Entry> {
        self.level_at(priority)?.iter_after(message).next()
    }

    /// The first message that in its priority stands behind the name given for that.
    ///
    /// Shape: `names` by level, the highest priority first.
    pub(super) fn first_behind(&self, names: &[u64; LEVELS]) -> Option<&Entry> {
        if self.others.is_none() {
            let spot = Spot::new(PRIORITY_DEFAULT, 0);
            return self.usual.iter_after(names[spot.level()]).next();
        }
        let mut levels = (0..=PRIORITY_MAX).rev().zip(names);
        levels.find_map(|(priority, name)| self.first_after(priority, *name))
    }

    /// Messages named lower than this one.
    pub(super) fn before(&self, message: u64) -> impl Iterator<Item = &Entry> + Clone + '_ {
        self.levels()
            .flat_map(move |level| level.iter_before(message))
    }

    /// The highest priority first.
    fn levels(&self) -> impl Iterator<Item = &Level> + Clone + '_ {
        let highest_first = (0..=PRIORITY_MAX).rev();
        highest_first.filter_map(|priority| self.level_at(priority))
    }

    fn level_at(&self, priority: u8) -> Option<&Level> {
        if priority == PRIORITY_DEFAULT {
            return Some(&self.usual);
        }
        let others = self.others.as_ref();
        others.map(|levels| &levels[usize::from(priority)])
    }

    fn level(&mut self, priority: u8) -> &mut Level {
        if priority == PRIORITY_DEFAULT {
            return &mut self.usual;
        }
        let others = self.others.get_or_insert_default();
        &mut others[usize::from(priority)]
    }

    /// Adds one message: at the back of its priority, unless a transaction held it while later ones
    /// arrived.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        self.level(entry.priority()).insert(entry);
    }

    /// Puts messages back to their places; sorts them for that.
    ///
    /// Shape: none of them is in the list.
    /// Cost: as [`Level::merge`] per priority.
    pub(super) fn merge(&mut self, returned: &mut [Entry]) {
        sort(returned);
        self.len += returned.len();
        for run in returned.chunk_by(|one, next| one.priority() == next.priority()) {
            self.level(run[0].priority()).merge(run);
        }
    }

    /// Moves the messages of a priority named `first..=last` to `out`, which it clears before.
    pub(super) fn take(&mut self, priority: u8, first: u64, last: u64, out: &mut Vec<Entry>) {
        out.clear();
        self.level(priority).take(priority, first, last, out);
        self.len -= out.len();
    }

    /// Removes messages, copies of which [`Self::get`] gave; leaves each once, sorted.
    ///
    /// Cost: as [`Level::remove`] per priority.
    pub(super) fn remove(&mut self, gone: &mut Vec<Entry>) {
        sort(gone);
        gone.dedup_by_key(|entry| entry.message);
        self.len -= gone.len();
        for run in gone.chunk_by(|one, next| one.priority() == next.priority()) {
            let priority = run[0].priority();
            self.level(priority).remove(priority, run);
        }
    }

    /// The `count` messages at the front, or those of them with the highest priority.
    pub(super) fn front(&self, count: usize) -> Option<Front> {
        let level = self.levels().find(|level| !level.is_empty())?;
        level.front(count)
    }
}

/// By priority, and by name within one.
fn sort(entries: &mut [Entry]) {
    let place = |entry: &Entry| (entry.priority(), entry.message);
    if !entries.is_sorted_by_key(place) {
        entries.sort_unstable_by_key(place);
    }
}
