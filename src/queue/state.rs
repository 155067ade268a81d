//! One queue, and the set of all queues of the shard.

use std::collections::VecDeque;
use std::sync::Arc;

use forebay_journal::format::QueueFlags;
use forebay_journal::{MessageId, QueueId, SegmentId};
use rustc_hash::FxHashMap;

use super::aside::{Aside, Why};
use super::consumer::Consumers;
use super::consumer::FilterId;
use super::decision::Effect;
use super::delivered::Delivered;
use super::entry::Entry;
use super::idle::Use;
use super::last_value::LastValues;
use super::plan::Search;
use super::policy::Policy;
use super::ready::Ready;
use super::selective::Selective;
use super::spot::Spot;

/// What the definition of a queue says.
#[derive(Debug)]
pub(super) struct Defined {
    pub(super) destination: u32,
    pub(super) name: Box<[u8]>,
    pub(super) flags: QueueFlags,
    /// Selector that its messages meet; empty for all messages.
    pub(super) filter: Box<[u8]>,
    /// Segment of the latest definition; none for a queue that is not journaled.
    pub(super) segment: Option<SegmentId>,
}

#[derive(Debug)]
pub(super) struct QueueState {
    pub(super) id: QueueId,
    /// None only in a replay whose first segments were freed, until the definition, which was
    /// repeated further on, comes by.
    pub(super) defined: Option<Defined>,
    /// What the operator wants of it; the defaults until it is defined. Decisions ask it, facts
    /// never do.
    pub(super) policy: Arc<Policy>,
    pub(super) ready: Ready,
    pub(super) delivered: Delivered,
    pub(super) aside: Aside,
    /// Keys of its messages, if any has one.
    pub(super) last_values: Option<Box<LastValues>>,
    /// Bytes of ready and delivered messages, and of those aside.
    pub(super) bytes: u64,
    /// Indexes of attached consumers, in the order in which they came.
    pub(super) consumers: Vec<u32>,
    /// The one exclusive consumer that is served, if there is any.
    pub(super) exclusive: Option<u32>,
    /// Indexes of those that take messages, in the order of their turns: the highest priority
    /// first. One that was blocked since stays until its turn comes.
    pub(super) willing: VecDeque<u32>,
    /// Whether somebody wants to hear of each message that gets ready.
    pub(super) is_followed: bool,
    /// Whether it is in the machine's list of queues to dispatch.
    pub(super) is_dirty: bool,
    /// Whether it is among those that nobody uses.
    pub(super) idle: Use,
    /// Whether it is in the machine's list of queues to examine.
    pub(super) is_curious: bool,
    /// What filters and groups need; none in most queues.
    pub(super) selective: Option<Box<Selective>>,
}

/// Queues that have something to do, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    dispatch: VecDeque<u64>,
    examine: VecDeque<u64>,
    /// Whether the last poll left a search unfinished.
    is_searching: bool,
}

impl QueueState {
    fn new(id: QueueId, policy: Arc<Policy>) -> Self {
        Self {
            id,
            defined: None,
            policy,
            ready: Ready::default(),
            delivered: Delivered::default(),
            aside: Aside::default(),
            last_values: None,
            bytes: 0,
            consumers: Vec::new(),
            exclusive: None,
            willing: VecDeque::new(),
            is_followed: false,
            is_dirty: false,
            idle: Use::Open,
            is_curious: false,
            selective: None,
        }
    }

    /// A message that nobody has: ready, or waiting for its time.
    pub(super) fn waiting(&self, message: u64) -> Option<&Entry> {
        let delayed = self.aside.get(message);
        let delayed = delayed.filter(|(_, why)| matches!(why, Why::Delayed { .. }));
        delayed
            .map(|(entry, _)| entry)
            .or_else(|| self.ready.get(message))
    }

    /// Whether what comes in leaves at once.
    pub(super) fn is_divert(&self) -> bool {
        let defined = self.defined.as_ref();
        defined.is_some_and(|defined| defined.flags.is_divert)
    }

    /// Itself and the name of each message on its way to another address.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let leaving = self.aside.iter();
        leaving
            .filter(|(_, why)| matches!(why, Why::Leaving(_)))
            .map(|(entry, _)| (self.id.0, entry.message))
    }

    /// Tells of messages that got ready, if somebody wants to hear of it.
    pub(super) fn tell(&self, entries: &[Entry], effects: &mut Vec<Effect>) {
        if self.is_followed {
            effects.extend(entries.iter().map(|entry| Effect::Arrived {
                queue: self.id,
                message: MessageId(entry.message),
            }));
        }
    }

    /// Messages in it.
    pub(super) fn message_count(&self) -> usize {
        self.ready.len() + self.delivered.len() + self.aside.len()
    }

    /// Whether it survives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.defined
            .as_ref()
            .is_none_or(|defined| defined.segment.is_some())
    }

    /// Whether it holds nothing, nobody is attached, and no operator paused it.
    pub(super) fn is_unused(&self) -> bool {
        let is_left = self.consumers.is_empty() && !self.is_followed;
        self.message_count() == 0 && is_left && !self.is_paused()
    }

    /// Whether it hands out nothing for now.
    pub(super) fn is_paused(&self) -> bool {
        self.defined
            .as_ref()
            .is_some_and(|defined| defined.flags.is_paused)
    }

    /// Whether it survives the process and was made because somebody named it.
    pub(super) fn made_itself(&self) -> bool {
        let defined = self.defined.as_ref();
        defined.is_some_and(|defined| defined.flags.is_auto_created && defined.segment.is_some())
    }

    /// Whether what it holds is to go when so many of its consumers do. Durable subscriptions are
    /// there to keep messages for who is away.
    pub(super) fn is_purged_without(&self, leaving: usize) -> bool {
        self.policy.purge_on_no_consumers
            && self.consumers.len() == leaving
            && self.subscription_name().is_none()
            && self.message_count() > 0
    }

    /// Whether it is a subscription that any number of consumers may attach to.
    pub(super) fn is_shared(&self) -> bool {
        let defined = self.defined.as_ref();
        defined.is_some_and(|defined| defined.flags.is_shared)
    }

    /// Its name, if it is a subscription that has one.
    pub(super) fn subscription_name(&self) -> Option<&[u8]> {
        let defined = self.defined.as_ref()?;
        defined.flags.is_subscription.then_some(&defined.name)
    }

    /// Whether it matters that messages wait for consumers without credit.
    pub(super) fn is_watched(&self) -> bool {
        self.policy.slow_consumer_threshold_per_s.is_some()
    }

    /// Whether no other consumer is served alone.
    pub(super) fn serves(&self, index: u32) -> bool {
        self.exclusive.is_none_or(|exclusive| exclusive == index)
    }

    /// Attaches a consumer.
    pub(super) fn join(&mut self, index: u32, consumers: &mut Consumers) {
        self.consumers.push(index);
        self.join_selective(index, consumers);
        self.elect(consumers);
        self.welcome(index, consumers);
    }

    /// Detaches a consumer.
    pub(super) fn part(&mut self, index: u32, consumers: &mut Consumers) {
        self.consumers.retain(|one| *one != index);
        self.willing.retain(|one| *one != index);
        self.part_selective(index, consumers);
        self.elect(consumers);
    }

    /// Finds out who is served alone; when that changes everybody's turn is drawn up again.
    fn elect(&mut self, consumers: &mut Consumers) {
        let rank = |index: &u32| consumers.at(*index).rank;
        let exclusive = self.consumers.iter().copied();
        let exclusive = exclusive
            .filter(|index| rank(index).is_exclusive)
            // The last of equal maxima is the first of the reversed order: who came first.
            .rev()
            .max_by_key(|index| rank(index).priority);
        if exclusive == self.exclusive {
            return;
        }
        self.exclusive = exclusive;
        self.serve_selective();
        for index in self.willing.drain(..) {
            consumers.at_mut(index).is_queued = false;
        }
        for at in 0..self.consumers.len() {
            self.welcome(self.consumers[at], consumers);
        }
    }

    /// A consumer may take messages again: as [`Self::welcome_now`], but behind others of its
    /// gathering that wait for room.
    pub(super) fn welcome(&mut self, index: u32, consumers: &mut Consumers) {
        if !consumers.queues_up(index) {
            self.welcome_now(index, consumers);
        }
    }

    /// Puts a consumer that takes messages again at the end of the turns of its priority, unless
    /// another one is served alone.
    pub(super) fn welcome_now(&mut self, index: u32, consumers: &mut Consumers) {
        let is_served = self.serves(index);
        if consumers.at(index).is_queued || !is_served {
            return;
        }
        if consumers.available(index) == 0 {
            return consumers.note_thirst(index);
        }
        let consumer = consumers.at_mut(index);
        consumer.is_queued = true;
        let priority = consumer.rank.priority;
        let comes_before = |one: &u32| consumers.at(*one).rank.priority >= priority;
        if self.willing.back().is_none_or(comes_before) {
            self.willing.push_back(index);
        } else {
            let at = self.willing.partition_point(comes_before);
            self.willing.insert(at, index);
        }
    }

    /// Whether a consumer is the only one that takes messages: with room for more it has the next
    /// turn as well.
    pub(super) fn is_willing_alone(&self, index: u32) -> bool {
        self.willing.len() == 1 && self.willing.front() == Some(&index) && self.serves(index)
    }

    /// A consumer had its turn: most often it is the first.
    pub(super) fn end_turn(&mut self, index: u32) {
        if let Some(at) = self.willing.iter().position(|one| *one == index) {
            self.willing.remove(at);
        }
    }

    /// The consumer whose turn it is, with credit.
    pub(super) fn next_willing(&mut self, consumers: &mut Consumers) -> Option<u32> {
        while let Some(index) = self.willing.front().copied() {
            if consumers.available(index) > 0 {
                return Some(index);
            }
            consumers.at_mut(index).is_queued = false;
            self.willing.pop_front();
            consumers.note_thirst(index);
        }
        None
    }

    /// Notes that the queue may have something to dispatch.
    pub(super) fn touch(&mut self, dirty: &mut Dirty) {
        let is_unwanted = self.willing.is_empty() && !self.is_watched();
        if self.ready.is_empty() || is_unwanted || self.is_paused() {
            return;
        }
        if !self.is_dirty && !self.willing.is_empty() {
            self.is_dirty = true;
            dirty.dispatch.push_back(self.id.0);
        }
        if !self.is_curious && self.has_filters() {
            self.is_curious = true;
            dirty.examine.push_back(self.id.0);
        }
    }

    /// Paused: it has nothing to dispatch, and nobody is to be asked about what it has.
    ///
    /// Cost: O(queues with something to dispatch).
    #[cold]
    pub(super) fn rest(&mut self, dirty: &mut Dirty) {
        self.unplan();
        if core::mem::take(&mut self.is_dirty) {
            dirty.dispatch.retain(|id| *id != self.id.0);
        }
        if core::mem::take(&mut self.is_curious) {
            dirty.examine.retain(|id| *id != self.id.0);
        }
    }

    /// Dispatched: what is left to do waits until the other queues had their turn.
    pub(super) fn touch_last(&mut self, dirty: &mut Dirty) {
        if dirty.dispatch.front() == Some(&self.id.0) {
            dirty.dispatch.pop_front();
            self.is_dirty = false;
        }
        self.touch(dirty);
    }

    /// How many messages, up to `max`, consumers take now at least.
    pub(super) fn demand(&self, consumers: &Consumers, max: usize) -> usize {
        let mut demand = 0;
        for index in &self.willing {
            demand += consumers.available_at_least(*index) as usize;
            if demand >= max {
                return max;
            }
        }
        demand
    }
}

/// The queues of a shard by id, and those that may have something to dispatch.
#[derive(Debug, Default)]
pub(super) struct Queues {
    places: Vec<Option<QueueState>>,
    free: Vec<u32>,
    by_id: FxHashMap<u64, u32>,
    dirty: Dirty,
}

impl Queues {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: QueueId) -> Option<&QueueState> {
        self.places[*self.by_id.get(&id.0)? as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, id: QueueId) -> Option<&mut QueueState> {
        self.places[*self.by_id.get(&id.0)? as usize].as_mut()
    }

    #[cold]
    pub(super) fn create(&mut self, id: QueueId, policy: Arc<Policy>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.places[index as usize] = Some(QueueState::new(id, policy));
        let former = self.by_id.insert(id.0, index);
        assert!(former.is_none(), "queue {} exists", id.0);
    }

    #[cold]
    pub(super) fn remove(&mut self, id: QueueId) -> Option<QueueState> {
        let index = self.by_id.remove(&id.0)?;
        self.free.push(index);
        self.places[index as usize].take()
    }

    /// In the order of their places, which follows from the facts alone.
    pub(super) fn iter(&self) -> impl Iterator<Item = &QueueState> + '_ {
        self.places.iter().flatten()
    }

    /// From this place on, each with its place.
    pub(super) fn iter_from(&self, place: u32) -> impl Iterator<Item = (u32, &QueueState)> + '_ {
        let places = self.places.iter().enumerate().skip(place as usize);
        places.filter_map(|(place, queue)| Some((place as u32, queue.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut QueueState> + '_ {
        self.places.iter_mut().flatten()
    }

    /// A queue, and the list to note it in when it may have something to dispatch.
    pub(super) fn open(&mut self, id: QueueId) -> Option<(&mut QueueState, &mut Dirty)> {
        let index = *self.by_id.get(&id.0)?;
        let queue = self.places[index as usize].as_mut()?;
        Some((queue, &mut self.dirty))
    }

    pub(super) fn dirty_count(&self) -> usize {
        self.dirty.dispatch.len()
    }

    /// The first queue that has both messages and takers for them. It stays first until it is
    /// dispatched.
    pub(super) fn poll_dirty(&mut self, consumers: &mut Consumers, max: usize) -> Option<QueueId> {
        let mut unfinished_max = self.dirty.dispatch.len();
        while let Some(id) = self.dirty.dispatch.front().copied().map(QueueId) {
            self.dirty.is_searching = unfinished_max == 0;
            if self.dirty.is_searching {
                return None;
            }
            let mut search = Search::Nothing;
            if let Some(queue) = self.get_mut(id) {
                if !queue.ready.is_empty() && queue.next_willing(consumers).is_some() {
                    search = queue.search(consumers, max);
                }
                queue.is_dirty = search != Search::Nothing;
                if search == Search::Nothing {
                    queue.note_thirst(consumers);
                }
            }
            match search {
                Search::Found => return Some(id),
                Search::Nothing => drop(self.dirty.dispatch.pop_front()),
                Search::Unfinished => {
                    self.dirty.dispatch.rotate_left(1);
                    unfinished_max -= 1;
                }
            }
        }
        None
    }

    /// Whether the last poll found nothing because it took too long.
    pub(super) const fn is_searching(&self) -> bool {
        self.dirty.is_searching
    }

    /// The first queue, filter and message that somebody has to be asked about.
    pub(super) fn poll_curious(
        &mut self,
        consumers: &mut Consumers,
    ) -> Option<(QueueId, FilterId, Spot)> {
        while let Some(id) = self.dirty.examine.front().copied().map(QueueId) {
            if let Some(queue) = self.get_mut(id) {
                if let Some((filter, spot)) = queue.next_to_examine(consumers) {
                    return Some((id, filter, spot));
                }
                queue.is_curious = false;
                queue.note_thirst(consumers);
            }
            self.dirty.examine.pop_front();
        }
        None
    }

    /// The queue is the last to be examined, if it was the first.
    pub(super) fn pass_curious(&mut self, id: QueueId) {
        if self.dirty.examine.front() == Some(&id.0) {
            self.dirty.examine.rotate_left(1);
        }
    }

    pub(super) fn curious_count(&self) -> usize {
        self.dirty.examine.len()
    }

    /// Queues to dispatch, and those to examine.
    pub(super) fn dirty(&self) -> [&VecDeque<u64>; 2] {
        [&self.dirty.dispatch, &self.dirty.examine]
    }
}
