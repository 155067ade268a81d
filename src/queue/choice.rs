//! A queue and its [`Selective`]: what happens to the one is told the other.

use forebay_journal::format::Annotations;

use super::arrival::Arrival;
use super::consumer::{Consumers, FilterId};
use super::entry::Entry;
use super::group::Mark;
use super::plan::{Planned, Search, Turn};
use super::selective::Selective;
use super::spot::Spot;
use super::state::QueueState;

impl QueueState {
    /// Whether messages are chosen one by one, as filters or groups make it necessary.
    pub(super) fn is_selective(&self) -> bool {
        self.selective.as_ref().is_some_and(|one| one.is_active)
    }

    /// Whether consumers have filters.
    pub(super) fn has_filters(&self) -> bool {
        self.selective.as_ref().is_some_and(|one| one.filtered > 0)
    }

    /// What is planned for consumers.
    pub(super) fn planned(&self) -> &[Planned] {
        let selective = self.selective.as_ref();
        selective.map_or(&[], |selective| selective.plan.steps())
    }

    fn active(&mut self) -> Option<&mut Selective> {
        self.selective.as_deref_mut().filter(|one| one.is_active)
    }

    /// Consumers, filters or messages with a group came or went.
    fn reconsider(&mut self, consumers: &Consumers) {
        let Some(selective) = &mut self.selective else {
            return;
        };
        if !selective.is_active && selective.groups.is_empty() {
            selective.groups.buckets = self.policy.group_buckets;
        }
        let filters = self.consumers.iter();
        selective.switch(filters.map(|index| consumers.at(*index).filter));
        if selective.is_empty() {
            self.selective = None;
        }
    }

    /// The policy is another one than when its messages came. Nobody has a group.
    pub(super) fn spread_groups_anew(&mut self) {
        if let Some(selective) = &mut self.selective {
            selective.groups.buckets = self.policy.group_buckets;
        }
    }

    /// A consumer came, and is in the list.
    pub(super) fn join_selective(&mut self, index: u32, consumers: &Consumers) {
        let filter = consumers.at(index).filter;
        if filter.is_some() {
            self.selective.get_or_insert_default();
        }
        let is_rebalanced = self.policy.group_rebalance;
        if let Some(selective) = &mut self.selective {
            selective.join(filter);
            if is_rebalanced {
                selective.redistribute(|_| true);
            }
            self.reconsider(consumers);
        }
    }

    /// A consumer went, and is in the list no more.
    pub(super) fn part_selective(&mut self, index: u32, consumers: &Consumers) {
        if let Some(selective) = &mut self.selective {
            selective.part(index, consumers.at(index).filter);
            self.reconsider(consumers);
        }
    }

    /// Who is served alone, if anybody, changed.
    pub(super) fn serve_selective(&mut self) {
        let served = self.exclusive;
        if let Some(selective) = &mut self.selective {
            selective.redistribute(|owner| served.is_some_and(|served| served != owner));
            if selective.is_empty() {
                self.selective = None;
            }
        }
    }

    /// A consumer takes less than it did.
    pub(super) fn unplan(&mut self) {
        if let Some(selective) = self.active() {
            selective.unplan();
        }
    }

    /// A message came to the queue.
    pub(super) fn note_arrival(&mut self, arrival: &Arrival<'_>, consumers: &Consumers) {
        let Annotations {
            group,
            is_group_end: is_end,
            ..
        } = arrival.annotations;
        if group != 0 {
            let selective = self.selective.get_or_insert_default();
            let turn = 0;
            let mark = Mark {
                group,
                is_end,
                turn,
            };
            selective.marks.insert(arrival.entry.message, mark);
            self.reconsider(consumers);
        }
    }

    /// What is known of a message with a group.
    pub(super) fn mark_of(&self, message: u64) -> Option<Mark> {
        let selective = self.selective.as_ref()?;
        selective.marks.get(&message).copied()
    }

    /// Messages are ready, for the first time or again.
    pub(super) fn note_ready(&mut self, entries: &[Entry]) {
        if let Some(selective) = self.active() {
            entries
                .iter()
                .for_each(|entry| selective.enter(Spot::of(entry)));
        }
    }

    /// Messages that were ready are so no more, and not as it was planned.
    pub(super) fn note_left(&mut self, entries: &[Entry]) {
        if let Some(selective) = self.active() {
            entries
                .iter()
                .for_each(|entry| selective.leave(Spot::of(entry)));
        }
    }

    /// The holder of a message has it no more.
    pub(super) fn note_let_go(&mut self, entry: &Entry) {
        if entry.is_noted()
            && let Some(selective) = self.active()
        {
            selective.let_go(entry.message);
        }
    }

    /// Messages left the queue for good.
    pub(super) fn note_gone<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
        consumers: &Consumers,
    ) {
        let Some(selective) = &mut self.selective else {
            return;
        };
        let noted = entries.filter(|entry| entry.is_noted());
        noted.for_each(|entry| selective.unmark(entry.message));
        self.reconsider(consumers);
    }

    /// The plan, if these are the messages of it, in its order.
    pub(super) fn take_plan(&mut self, messages: &[Entry]) -> Option<Vec<Planned>> {
        let selective = self.active()?;
        let planned = selective.plan.steps().iter().map(|one| one.spot.message);
        let is_it = planned.eq(messages.iter().map(|entry| entry.message));
        is_it.then(|| selective.plan.take())
    }

    /// The plan came true.
    pub(super) fn end_plan(&mut self, planned: Vec<Planned>) {
        if let Some(selective) = self.active() {
            selective.plan.put_back(planned);
        }
    }

    /// Looks for what can be handed out.
    pub(super) fn search(&mut self, consumers: &Consumers, max: usize) -> Search {
        let Some(selective) = self.selective.as_deref_mut().filter(|one| one.is_active) else {
            return Search::Found;
        };
        let turns = self.willing.iter().filter_map(|index| {
            let consumer = consumers.at(*index);
            let messages = consumer.available();
            (messages > 0).then(|| Turn {
                index: *index,
                priority: consumer.rank.priority,
                filter: consumer.filter,
                messages,
                is_done: false,
                bytes: consumer
                    .credit_bytes
                    .saturating_sub(consumer.unsettled_bytes - consumer.staged_bytes),
            })
        });
        selective.search(turns, &self.ready, max)
    }

    /// The message that the filter of a consumer with credit has to be asked about next.
    pub(super) fn next_to_examine(&self, consumers: &Consumers) -> Option<(FilterId, Spot)> {
        let selective = self.selective.as_ref()?;
        // Who is watched is asked for one message, to know whether any waits for it.
        let least = u32::from(self.is_watched());
        let watched = self.consumers.iter().filter(|index| {
            least > 0 && self.serves(**index) && consumers.at(**index).available() == 0
        });
        self.willing.iter().chain(watched).find_map(|index| {
            let consumer = consumers.at(*index);
            let (filter, credit) = (consumer.filter?, consumer.available().max(least) as usize);
            let lane = selective.lane(Some(filter)).filter(|_| credit > 0)?;
            let is_due = |spot: &Spot| {
                let is_first = lane.first_match().is_none_or(|first| *spot < first);
                is_first || (lane.match_count() < credit && lane.has_room_for(*spot))
            };
            Some((filter, lane.next_unasked(&self.ready).filter(is_due)?))
        })
    }

    pub(super) fn note_examined(&mut self, filter: FilterId, message: u64, is_match: bool) {
        let Some(spot) = self.ready.get(message).map(Spot::of) else {
            return;
        };
        let Some(selective) = self.selective.as_deref_mut() else {
            return;
        };
        let filter = Some(filter);
        let lane = selective.lane(filter);
        if lane.is_some_and(|lane| lane.is_next(spot, &self.ready)) {
            selective.judge(filter, spot, is_match);
        }
    }
}
