//! Gatherings: who takes from all queues whose addresses a pattern matches, also from those that
//! are made later.
//!
//! A gathering has a *member*, a consumer, on each of them. Its members share one allowance and one
//! sequence of delivery tags, so that it holds no more than a consumer of one queue, and what it
//! acknowledges up to a tag goes across queues. Volatile, as consumers are: nothing here is a fact.
//!
//! Which queues match is asked once per queue: when the gathering begins, and when a queue is
//! defined. While there is no room, members whose queues have something are *thirsty*: they get
//! their turns one after another when there is room again.

use std::collections::VecDeque;

use forebay_journal::QueueId;
use forebay_journal::format::Routing;

use super::allowance::Allowance;
use super::consumer::{
    Attachment, Consumer, ConsumerId, Consumers, Credit, FilterId, Rank, Selection, Settlement,
};

use super::decision::{Effect, Refused};
use super::machine::Machine;
use super::state::QueueState;
use crate::pattern::Pattern;

/// Names a gathering; a later one in the same place has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatheringId {
    index: u32,
    generation: u32,
}

/// What a gathering asks for: see [`Attachment`].
#[derive(Clone, Debug)]
pub struct Gather {
    /// Of the addresses of its queues.
    pub pattern: Pattern,
    /// The shard's name of the connection; the machine only hands it back.
    pub link: u64,
    /// The connection's name of the subscription; the machine only hands it back.
    pub tag: u64,
    /// Most messages unsettled at once, of all its queues.
    pub credit: Credit,
    /// Bytes unsettled at which it gets nothing more.
    pub credit_bytes: Option<u64>,
    /// Who settles.
    pub settlement: Settlement,
    /// Who is served first, in each queue.
    pub rank: Rank,
}

/// A delivery under way: its tag and the member that has it.
type Held = (u64, u32);
/// Stands for a member where a delivery is settled.
const NOBODY: u32 = u32::MAX;
/// Settled places that are never worth a sweep.
const TOMBSTONES_MIN: usize = 64;

#[derive(Debug)]
pub(super) struct Gathering {
    wanted: Gather,
    /// Whether it takes from queues made from now on.
    is_open: bool,
    pub(super) allowance: Allowance,
    members: Vec<u32>,
    /// In the order of their tags.
    held: VecDeque<Held>,
    next_tag: u64,
    /// The highest tag of a delivery that went with its queue; zero for none.
    lost_upto: u64,
    /// Members that wait for room, each once.
    thirsty: VecDeque<u32>,
    /// Whether it is in the list of those with room and thirsty members.
    is_roomy: bool,
}

/// The gatherings of a shard.
#[derive(Debug, Default)]
pub(super) struct Gatherings {
    places: Vec<(u32, Option<Gathering>)>,
    free: Vec<u32>,
    count: usize,
    /// Those with room and thirsty members.
    roomy: VecDeque<u32>,
    /// Whether somebody got something since a thirsty one had its turn.
    pub(super) has_moved: bool,
    /// Whether a thirsty one had its turn since somebody asked.
    has_woken: bool,
}

impl Gathering {
    /// Messages delivered to its members, ever.
    pub(super) const fn delivered_count(&self) -> u64 {
        self.next_tag - 1
    }

    fn position(&self, tag: u64) -> Option<usize> {
        let (front, _) = self.held.front()?;
        let guess = tag.checked_sub(*front)? as usize;
        let index = match self.held.get(guess) {
            Some((one, _)) if *one == tag => guess,
            _ => self.held.binary_search_by_key(&tag, |(one, _)| *one).ok()?,
        };
        (self.held[index].1 != NOBODY).then_some(index)
    }

    fn sweep(&mut self) {
        while self.held.front().is_some_and(|(_, one)| *one == NOBODY) {
            self.held.pop_front();
        }
        if self.held.len() > 2 * self.allowance.unsettled as usize + TOMBSTONES_MIN {
            self.held.retain(|(_, one)| *one != NOBODY);
        }
    }
}

impl Gatherings {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Panics: if nobody is there (our own bookkeeping: members name gatherings that are there).
    pub(super) fn at(&self, at: u32) -> &Gathering {
        let (_, gathering) = &self.places[at as usize];
        gathering.as_ref().expect("members name live gatherings")
    }

    /// Panics: see [`Self::at`].
    fn at_mut(&mut self, at: u32) -> &mut Gathering {
        let (_, gathering) = &mut self.places[at as usize];
        gathering.as_mut().expect("members name live gatherings")
    }

    fn resolve(&self, id: GatheringId) -> Option<&Gathering> {
        let (generation, gathering) = self.places.get(id.index as usize)?;
        gathering.as_ref().filter(|_| *generation == id.generation)
    }

    fn iter(&self) -> impl Iterator<Item = (GatheringId, &Gathering)> + '_ {
        let places = (0..).zip(&self.places);
        places.filter_map(|(index, (generation, gathering))| {
            let generation = *generation;
            Some((GatheringId { index, generation }, gathering.as_ref()?))
        })
    }

    fn insert(&mut self, gathering: Gathering) -> GatheringId {
        self.count += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.1 = Some(gathering);
        let generation = place.0;
        GatheringId { index, generation }
    }

    fn remove(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        place.0 = place.0.wrapping_add(1);
        place.1 = None;
        self.free.push(index);
        self.count -= 1;
        self.roomy.retain(|one| *one != index);
    }

    /// A member came.
    pub(super) fn enter(&mut self, at: u32, member: u32) {
        self.at_mut(at).members.push(member);
    }

    /// A member is gone, with all that it had.
    pub(super) fn leave(&mut self, at: u32, member: u32, gone: &Consumer) {
        let gathering = self.at_mut(at);
        // Most often the last one: who ends lets them go one by one.
        let place = gathering.members.iter().rposition(|one| *one == member);
        gathering.members.swap_remove(place.expect("it is listed"));
        if gone.is_thirsty {
            gathering.thirsty.retain(|one| *one != member);
        }
        if gone.allowance.unsettled > 0 {
            gathering.allowance.leave(&gone.allowance);
            for (tag, one) in &mut gathering.held {
                if *one == member {
                    *one = NOBODY;
                    gathering.lost_upto = gathering.lost_upto.max(*tag);
                }
            }
            gathering.sweep();
        }
        self.note_room(at);
    }

    /// A member takes a message; returns the tag that it gets.
    pub(super) fn take(&mut self, at: u32, member: u32, size_bytes: u32) -> u64 {
        let gathering = self.at_mut(at);
        let tag = gathering.next_tag;
        gathering.next_tag += 1;
        gathering.allowance.take(size_bytes);
        gathering.held.push_back((tag, member));
        tag
    }

    /// Panics: if nobody has the delivery (our own bookkeeping).
    pub(super) fn forget(&mut self, at: u32, tag: u64, size_bytes: u32) {
        let gathering = self.at_mut(at);
        let index = gathering.position(tag).expect("a member had it");
        gathering.held[index].1 = NOBODY;
        gathering.allowance.forget(size_bytes);
        gathering.sweep();
        self.note_room(at);
    }

    pub(super) fn stage(&mut self, at: u32, size_bytes: u32) {
        self.at_mut(at).allowance.stage(size_bytes);
        self.note_room(at);
    }

    pub(super) fn unstage(&mut self, at: u32, size_bytes: u32) {
        self.at_mut(at).allowance.unstage(size_bytes);
    }

    /// Puts it in the list of those with room and thirsty members, if it is one.
    fn note_room(&mut self, at: u32) {
        let gathering = self.at_mut(at);
        let is_waited_for = !gathering.is_roomy && !gathering.thirsty.is_empty();
        if is_waited_for && gathering.allowance.messages() > 0 {
            gathering.is_roomy = true;
            self.roomy.push_back(at);
        }
    }
}

impl Consumers {
    /// A consumer that cannot take what its queue may have; if that is because its gathering has no
    /// room, it gets its turn when there is some.
    pub(super) fn note_thirst(&mut self, index: u32) {
        let Some(at) = self.at(index).gathering else {
            return;
        };
        let gathering = self.gatherings.at_mut(at);
        if gathering.allowance.messages() > 0 {
            return;
        }
        let (_, consumer) = &mut self.places[index as usize];
        let consumer = consumer.as_mut().expect("queues name attached consumers");
        if !core::mem::replace(&mut consumer.is_thirsty, true) {
            gathering.thirsty.push_back(index);
        }
    }

    /// Whether a consumer waits behind others of its gathering that are thirsty; it is one of them
    /// then. So one queue that always has something leaves the others their turns.
    pub(super) fn queues_up(&mut self, index: u32) -> bool {
        let consumer = self.at(index);
        let Some(at) = consumer.gathering.filter(|_| !consumer.is_queued) else {
            return false;
        };
        let is_thirsty = consumer.is_thirsty;
        let gathering = self.gatherings.at_mut(at);
        if gathering.thirsty.is_empty() {
            return false;
        }
        if !is_thirsty {
            gathering.thirsty.push_back(index);
            self.gatherings.note_room(at);
            self.at_mut(index).is_thirsty = true;
        }
        true
    }

    /// The next thirsty member whose gathering has room; it is thirsty no more.
    fn next_thirsty(&mut self) -> Option<u32> {
        while let Some(at) = self.gatherings.roomy.front().copied() {
            let gathering = self.gatherings.at_mut(at);
            let next = if gathering.allowance.messages() > 0 {
                gathering.thirsty.pop_front()
            } else {
                None
            };
            let Some(index) = next else {
                gathering.is_roomy = false;
                self.gatherings.roomy.pop_front();
                continue;
            };
            self.gatherings.roomy.rotate_left(1);
            self.at_mut(index).is_thirsty = false;
            return Some(index);
        }
        None
    }
}

impl QueueState {
    /// There is nothing to do for it now: members that could not be served come again when their
    /// gatherings have room.
    pub(super) fn note_thirst(&self, consumers: &mut Consumers) {
        if consumers.gatherings.len() == 0 {
            return;
        }
        for index in &self.consumers {
            if self.serves(*index) {
                consumers.note_thirst(*index);
            }
        }
    }
}

impl Machine {
    /// Gives a thirsty member its turn, if there is one whose gathering has room.
    ///
    /// One at a time: who takes all the room leaves the others where they are. But not only when
    /// nobody else has anything to do, which may be never.
    pub(super) fn wake_thirsty(&mut self) -> bool {
        let has_moved = core::mem::take(&mut self.consumers.gatherings.has_moved);
        if !has_moved && self.queues.dirty_count() > 0 {
            return false;
        }
        let Some(index) = self.consumers.next_thirsty() else {
            return false;
        };
        let queue = self.consumers.at(index).queue;
        if let Some((queue, dirty)) = self.queues.open(queue) {
            queue.welcome_now(index, &mut self.consumers);
            queue.touch(dirty);
        }
        self.consumers.gatherings.has_woken = true;
        true
    }

    /// Whether there may be something to examine that was not there before the last
    /// [`Self::poll_dispatch`], though nothing was handed out: asked once.
    pub fn has_woken(&mut self) -> bool {
        let has_woken = core::mem::take(&mut self.consumers.gatherings.has_woken);
        has_woken && self.examining_count() > 0
    }

    /// Whether one consumer or gathering more has room.
    pub(super) fn check_consumers_max(&self) -> Result<(), Refused> {
        let max = self.limits.consumers_max;
        if self.consumers.len() + self.consumers.gatherings.len() >= max {
            return Err(Refused::ConsumersFull { max });
        }
        Ok(())
    }

    /// Begins to gather: [`Self::join`] follows for each queue of [`Self::to_gather`], and of each
    /// [`Effect::Matched`].
    ///
    /// Errors: `ConsumersFull`: a gathering counts as one consumer, and each member as well.
    pub fn gather(&mut self, wanted: Gather) -> Result<GatheringId, Refused> {
        self.check_consumers_max()?;
        let most = self.limits.unsettled_max;
        let allowance = Allowance::new(wanted.credit.most(most), wanted.credit_bytes, most);
        Ok(self.consumers.gatherings.insert(Gathering {
            wanted,
            is_open: true,
            allowance,
            members: Vec::new(),
            held: VecDeque::new(),
            next_tag: 1,
            lost_upto: 0,
            thirsty: VecDeque::new(),
            is_roomy: false,
        }))
    }

    /// The queues that match a pattern now, in no order that means anything, but the same after
    /// the same facts.
    ///
    /// Those of addresses of queues, without the ones that go with their owners, the ones that keep
    /// nothing themselves and the ones whose messages stay when they are consumed.
    /// Cost: O(queues).
    pub fn to_gather(&self, pattern: &Pattern) -> Vec<QueueId> {
        let queues = self.queues.iter();
        let matching = queues.filter(|queue| self.is_gathered(queue, pattern));
        matching.map(|queue| queue.id).collect()
    }

    fn is_gathered(&self, queue: &QueueState, pattern: &Pattern) -> bool {
        let Some(defined) = &queue.defined else {
            return false;
        };
        let (flags, destination) = (defined.flags, self.destinations.at(defined.destination));
        let is_plain = !flags.is_divert && !flags.is_retroactive && queue.is_durable();
        destination.routing == Routing::Anycast
            && is_plain
            && !queue.policy.is_non_destructive
            && pattern.matches(&destination.address)
    }

    /// A queue was defined: tells the gatherings that take from it.
    ///
    /// Cost: O(gatherings).
    #[cold]
    pub(super) fn call_gatherings(&self, queue: QueueId, effects: &mut Vec<Effect>) {
        let Some(state) = self.queues.get(queue) else {
            return;
        };
        for (gathering, one) in self.consumers.gatherings.iter() {
            if one.is_open && self.is_gathered(state, &one.wanted.pattern) {
                effects.push(Effect::Matched {
                    link: one.wanted.link,
                    gathering,
                    queue,
                });
            }
        }
    }

    /// Attaches a member of a gathering to a queue.
    ///
    /// Errors: see [`Self::attach`]; `UnknownConsumer`: no such gathering.
    pub fn join(
        &mut self,
        id: GatheringId,
        queue: QueueId,
        filter: Option<FilterId>,
    ) -> Result<ConsumerId, Refused> {
        let gathering = self.consumers.gatherings.resolve(id);
        let wanted = &gathering.ok_or(Refused::UnknownConsumer)?.wanted;
        let attachment = Attachment {
            queue,
            link: wanted.link,
            tag: wanted.tag,
            credit: Credit::Unlimited,
            credit_bytes: None,
            settlement: wanted.settlement,
            rank: wanted.rank,
            filter,
        };
        self.attach_to(&attachment, Some(id.index))
    }

    /// Takes from no queue made from now on; [`Self::last_member`] is detached until there is
    /// none, and [`Self::end_gathering`] follows.
    pub fn close_gathering(&mut self, id: GatheringId) {
        if self.consumers.gatherings.resolve(id).is_some() {
            self.consumers.gatherings.at_mut(id.index).is_open = false;
        }
    }

    /// One of its members, as long as it has any.
    pub fn last_member(&self, id: GatheringId) -> Option<ConsumerId> {
        let gathering = self.consumers.gatherings.resolve(id)?;
        let last = gathering.members.last()?;
        Some(self.consumers.id_of(*last))
    }

    /// Forgets a gathering without members.
    ///
    /// Panics: if it has any (our own mistake).
    pub fn end_gathering(&mut self, id: GatheringId) {
        if let Some(gathering) = self.consumers.gatherings.resolve(id) {
            assert!(gathering.members.is_empty(), "a gathering with members");
            self.consumers.gatherings.remove(id.index);
        }
    }

    /// The address of the queue of a consumer that is the member of a gathering.
    pub fn gathered_from(&self, consumer: ConsumerId) -> Option<&[u8]> {
        let consumer = self.consumers.resolve(consumer)?;
        consumer.gathering?;
        self.address(consumer.queue)
    }

    /// The address of a queue, if it is one of queues.
    pub fn anycast_address(&self, queue: QueueId) -> Option<&[u8]> {
        let defined = self.queues.get(queue)?.defined.as_ref()?;
        let destination = self.destinations.at(defined.destination);
        (destination.routing == Routing::Anycast).then_some(&*destination.address)
    }

    /// The gathering that a consumer is a member of.
    pub fn gathering_of(&self, consumer: ConsumerId) -> Option<GatheringId> {
        let index = self.consumers.resolve(consumer)?.gathering?;
        let (generation, _) = self.consumers.gatherings.places[index as usize];
        Some(GatheringId { index, generation })
    }

    /// What a selection of a gathering's deliveries means for each of its members, in the order in
    /// which they were attached; nothing if all of it went with its queues.
    ///
    /// Cost: O(deliveries that wait before the one that is named), if all up to that are meant.
    /// Errors: `UnknownConsumer`; `UnknownDelivery`.
    pub fn select_gathered(
        &self,
        id: GatheringId,
        selection: Selection,
    ) -> Result<Vec<(ConsumerId, Selection)>, Refused> {
        let gathering = self.consumers.gatherings.resolve(id);
        let gathering = gathering.ok_or(Refused::UnknownConsumer)?;
        let tag_of = |message: forebay_journal::MessageId| {
            let mut members = gathering.members.iter();
            members.find_map(|one| self.tag_of(self.consumers.id_of(*one), message.0))
        };
        let (tag, is_cumulative) = match selection {
            Selection::One(tag) => (Some(tag), false),
            Selection::Upto(tag) => (Some(tag), true),
            Selection::Message(message) => (tag_of(message), false),
            Selection::UptoMessage(message) => (tag_of(message), true),
        };
        let tag = tag.filter(|tag| *tag > 0 && *tag < gathering.next_tag);
        let tag = tag.ok_or(Refused::UnknownDelivery)?;
        let mut last: Vec<Held> = Vec::new();
        if is_cumulative {
            let end = gathering.held.partition_point(|(one, _)| *one <= tag);
            last.extend(gathering.held.range(..end).filter(|one| one.1 != NOBODY));
            // The last one of each member: tags rise.
            last.sort_unstable_by_key(|(tag, member)| (*member, core::cmp::Reverse(*tag)));
            last.dedup_by_key(|(_, member)| *member);
        } else if let Some(at) = gathering.position(tag) {
            last.push(gathering.held[at]);
        }
        if last.is_empty() && tag > gathering.lost_upto {
            return Err(Refused::UnknownDelivery);
        }
        let select = |(tag, member)| {
            let selection = if is_cumulative {
                Selection::Upto(tag)
            } else {
                Selection::One(tag)
            };
            (self.consumers.id_of(member), selection)
        };
        Ok(last.into_iter().map(select).collect())
    }

    /// Checks gatherings against their members.
    ///
    /// Panics: if they disagree.
    pub(super) fn check_gatherings(&self) {
        let gatherings = &self.consumers.gatherings;
        let mut count = 0;
        for (id, gathering) in gatherings.iter() {
            count += 1;
            self.check_gathering(id.index, gathering);
        }
        assert_eq!(count, gatherings.len(), "gatherings");
        let members = self.consumers.iter();
        let members = members.filter(|(_, one)| one.gathering.is_some()).count();
        let listed = gatherings.iter().map(|(_, one)| one.members.len());
        assert_eq!(members, listed.sum::<usize>(), "members");
    }

    fn check_gathering(&self, at: u32, gathering: &Gathering) {
        let mut held = Vec::new();
        let (mut unsettled, mut bytes, mut staged) = (0, 0, 0);
        for index in &gathering.members {
            let member = self.consumers.at(*index);
            assert_eq!(member.gathering, Some(at), "{index} is no member");
            held.extend(member.outstanding().map(|one| (one.tag, *index)));
            unsettled += member.allowance.unsettled;
            bytes += member.allowance.unsettled_bytes;
            staged += member.allowance.staged;
            let is_listed = gathering.thirsty.contains(index);
            assert_eq!(member.is_thirsty, is_listed, "thirst of {index}");
        }
        held.sort_unstable();
        let listed = gathering.held.iter().filter(|(_, one)| *one != NOBODY);
        assert!(listed.eq(held.iter()), "deliveries of gathering {at}");
        let allowance = &gathering.allowance;
        let found = (allowance.unsettled, allowance.unsettled_bytes);
        assert_eq!(found, (unsettled, bytes), "in flight to gathering {at}");
        assert_eq!(allowance.staged, staged, "staged of gathering {at}");
        let is_listed = self.consumers.gatherings.roomy.contains(&at);
        assert_eq!(gathering.is_roomy, is_listed, "room of gathering {at}");
        let is_waited_for = allowance.messages() > 0 && !gathering.thirsty.is_empty();
        assert!(!is_waited_for || is_listed, "room nobody knows of");
    }
}
