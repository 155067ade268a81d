//! Consumers: who takes messages from which queue, how many at once, and under which tags.
//! Volatile state: nothing here is a fact.

use std::collections::VecDeque;

use forebay_journal::QueueId;

use super::allowance::Allowance;
use super::delivered::{Holder, Slot};
use super::gathering::Gatherings;
use super::slow::Watch;

/// Names an attached consumer; a later consumer in the same place has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConsumerId {
    pub(super) index: u32,
    generation: u32,
}

/// Names a filter: what a consumer takes, of all messages of its queue. Equal ones of a queue are
/// one filter, asked once; what each says is the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub u64);

/// Most messages a consumer holds unsettled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// As many as the machine allows ([`super::Limits::unsettled_max`]).
    Unlimited,
    /// This many; zero takes nothing until credit is added.
    Messages(u32),
}

impl Credit {
    /// As a number, no more than this.
    pub(super) fn most(self, most: u32) -> u32 {
        match self {
            Self::Unlimited => most,
            Self::Messages(count) => count.min(most),
        }
    }
}

/// Who settles what a consumer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The shard, as soon as the delivery has been handed to the socket.
    OnHandover,
    /// The consumer.
    ByConsumer,
}

/// What a consumer asks for.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// The queue.
    pub queue: QueueId,
    /// The shard's name of the connection; the machine only hands it back.
    pub link: u64,
    /// The connection's name of the subscription; the machine only hands it back.
    pub tag: u64,
    /// Most messages unsettled at once.
    pub credit: Credit,
    /// Bytes unsettled at which it gets nothing more: the message that reaches them is the last.
    pub credit_bytes: Option<u64>,
    /// Who settles.
    pub settlement: Settlement,
    /// Who is served first: the highest with credit.
    pub rank: Rank,
    /// What it takes; none: everything.
    pub filter: Option<FilterId>,
}

/// A consumer among those of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// Those with a higher one are served first, as long as they have credit.
    pub priority: i32,
    /// While one or more of these are attached only one gets anything: the one with the highest
    /// priority, and of equals the one that was there first.
    pub is_exclusive: bool,
}

/// Which deliveries of a consumer are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The one with this delivery tag.
    One(u64),
    /// All unsettled ones up to this delivery tag, inclusive.
    Upto(u64),
    /// The one of this message (STOMP 1.0 and 1.1 "ACK").
    Message(forebay_journal::MessageId),
    /// All unsettled ones delivered no later than this message.
    UptoMessage(forebay_journal::MessageId),
}

/// A delivery that waits for its settlement; message 0 is one that has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) tag: u64,
    pub(super) message: u64,
    /// Whether its settlement is worth a journal record.
    pub(super) is_journaled: bool,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) queue: QueueId,
    pub(super) link: u64,
    pub(super) tag: u64,
    pub(super) settlement: Settlement,
    pub(super) rank: Rank,
    pub(super) filter: Option<FilterId>,
    pub(super) allowance: Allowance,
    /// Whose member it is, if it shares an allowance with consumers of other queues.
    pub(super) gathering: Option<u32>,
    /// Whether its gathering tells it when there is room again.
    pub(super) is_thirsty: bool,
    pub(super) is_blocked: bool,
    /// Whether the queue's ring of willing consumers has it.
    pub(super) is_queued: bool,
    pub(super) next_tag: u64,
    outstanding: VecDeque<Outstanding>,
    /// How fast it is, where the queue's policy asks.
    pub(super) watch: Option<Box<Watch>>,
}

/// Settled places that are never worth a sweep.
const TOMBSTONES_MIN: usize = 64;

impl Consumer {
    /// Takes a message and returns its delivery tag.
    pub(super) fn take(&mut self, message: u64, size_bytes: u32, is_journaled: bool) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.allowance.take(size_bytes);
        self.outstanding.push_back(Outstanding {
            tag,
            message,
            is_journaled,
        });
        tag
    }

    /// Forgets a delivery.
    ///
    /// Panics: if it is not outstanding (our own bookkeeping: queue and consumer disagree).
    pub(super) fn forget(&mut self, tag: u64, size_bytes: u32) {
        self.allowance.forget(size_bytes);
        let index = self
            .position(tag)
            .expect("what the queue gave is outstanding");
        self.outstanding[index].message = 0;
        while self
            .outstanding
            .front()
            .is_some_and(|front| front.message == 0)
        {
            self.outstanding.pop_front();
        }
        if self.outstanding.len() > 2 * self.allowance.unsettled as usize + TOMBSTONES_MIN {
            self.outstanding.retain(|one| one.message != 0);
        }
    }

    /// The outstanding deliveries from the oldest to `tag`, or that of `tag` alone; none if `tag`
    /// was never delivered or nothing of it is left to settle.
    pub(super) fn select(
        &self,
        tag: u64,
        is_cumulative: bool,
    ) -> Option<impl Iterator<Item = &Outstanding> + Clone + '_> {
        let range = if is_cumulative {
            let end = self.outstanding.partition_point(|one| one.tag <= tag);
            (tag < self.next_tag && end > 0).then_some(0..end)?
        } else {
            let index = self.position(tag)?;
            index..index + 1
        };
        Some(self.outstanding.range(range).filter(|one| one.message != 0))
    }

    pub(super) fn outstanding(&self) -> impl Iterator<Item = &Outstanding> + Clone + '_ {
        self.outstanding.iter().filter(|one| one.message != 0)
    }

    /// All places kept, settled ones included.
    pub(super) fn slot_count(&self) -> usize {
        self.outstanding.len()
    }

    fn position(&self, tag: u64) -> Option<usize> {
        let front = self.outstanding.front()?.tag;
        let guess = tag.checked_sub(front)? as usize;
        let index = match self.outstanding.get(guess) {
            Some(one) if one.tag == tag => guess,
            _ => self
                .outstanding
                .binary_search_by_key(&tag, |one| one.tag)
                .ok()?,
        };
        (self.outstanding[index].message != 0).then_some(index)
    }
}

/// The consumers of a shard.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    pub(super) places: Vec<(u32, Option<Consumer>)>,
    free: Vec<u32>,
    count: usize,
    pub(super) gatherings: Gatherings,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(
        &mut self,
        attachment: &Attachment,
        rank: Rank,
        allowance: Allowance,
        gathering: Option<u32>,
    ) -> ConsumerId {
        let consumer = Consumer {
            queue: attachment.queue,
            link: attachment.link,
            tag: attachment.tag,
            settlement: attachment.settlement,
            rank,
            filter: attachment.filter,
            allowance,
            gathering,
            is_thirsty: false,
            is_blocked: false,
            is_queued: false,
            next_tag: 1,
            outstanding: VecDeque::new(),
            watch: None,
        };
        self.count += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.1 = Some(consumer);
        let generation = place.0;
        if let Some(at) = gathering {
            self.gatherings.enter(at, index);
        }
        ConsumerId { index, generation }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Consumer> {
        let place = &mut self.places[index as usize];
        let consumer = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(index);
        self.count -= 1;
        if let Some(at) = consumer.gathering {
            self.gatherings.leave(at, index, &consumer);
        }
        Some(consumer)
    }

    pub(super) fn resolve(&self, id: ConsumerId) -> Option<&Consumer> {
        let (generation, consumer) = self.places.get(id.index as usize)?;
        consumer.as_ref().filter(|_| *generation == id.generation)
    }

    pub(super) fn resolve_mut(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        let (generation, consumer) = self.places.get_mut(id.index as usize)?;
        consumer.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn id_of(&self, index: u32) -> ConsumerId {
        ConsumerId {
            index,
            generation: self.places[index as usize].0,
        }
    }

    /// Panics: if nobody is there (our own bookkeeping: queues name attached consumers only).
    pub(super) fn at(&self, index: u32) -> &Consumer {
        let (_, consumer) = &self.places[index as usize];
        consumer.as_ref().expect("queues name attached consumers")
    }

    /// Panics: see [`Self::at`].
    pub(super) fn at_mut(&mut self, index: u32) -> &mut Consumer {
        let (_, consumer) = &mut self.places[index as usize];
        consumer.as_mut().expect("queues name attached consumers")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Consumer)> + '_ {
        (0..)
            .zip(&self.places)
            .filter_map(|(index, (_, consumer))| Some((index, consumer.as_ref()?)))
    }

    /// How many messages a consumer takes now.
    pub(super) fn available(&self, index: u32) -> u32 {
        let consumer = self.at(index);
        if consumer.is_blocked {
            return 0;
        }
        let own = consumer.allowance.messages();
        match consumer.gathering {
            None => own,
            Some(at) => own.min(self.gatherings.at(at).allowance.messages()),
        }
    }

    /// How many messages it takes now, whatever their size.
    pub(super) fn available_at_least(&self, index: u32) -> u32 {
        let consumer = self.at(index);
        if consumer.is_blocked {
            return 0;
        }
        let own = consumer.allowance.messages_at_least();
        match consumer.gathering {
            None => own,
            Some(at) => own.min(self.gatherings.at(at).allowance.messages_at_least()),
        }
    }

    /// Bytes that may come to it before nothing more does.
    pub(super) fn available_bytes(&self, index: u32) -> u64 {
        let consumer = self.at(index);
        let allowance = match consumer.gathering {
            None => &consumer.allowance,
            Some(at) => &self.gatherings.at(at).allowance,
        };
        allowance.bytes()
    }

    /// Gives a message to a consumer and returns its delivery tag.
    pub(super) fn take(
        &mut self,
        index: u32,
        message: u64,
        size_bytes: u32,
        is_journaled: bool,
    ) -> u64 {
        let Self {
            places, gatherings, ..
        } = self;
        let (_, consumer) = &mut places[index as usize];
        let consumer = consumer.as_mut().expect("queues name attached consumers");
        gatherings.has_moved = true;
        if let Some(at) = consumer.gathering {
            consumer.next_tag = gatherings.take(at, index, size_bytes);
        }
        consumer.take(message, size_bytes, is_journaled)
    }

    /// A delivery is settled in an open transaction.
    pub(super) fn stage(&mut self, index: u32, size_bytes: u32) {
        let consumer = self.at_mut(index);
        consumer.allowance.stage(size_bytes);
        if let Some(at) = consumer.gathering {
            self.gatherings.stage(at, size_bytes);
        }
    }

    /// Undoes [`Self::stage`].
    pub(super) fn unstage(&mut self, index: u32, size_bytes: u32) {
        let consumer = self.at_mut(index);
        consumer.allowance.unstage(size_bytes);
        if let Some(at) = consumer.gathering {
            self.gatherings.unstage(at, size_bytes);
        }
    }

    /// A delivered message left its holder, if it had one.
    pub(super) fn let_go(&mut self, slot: &Slot) -> Option<u32> {
        match slot.holder {
            Holder::Consumer { index, tag } => {
                let size_bytes = slot.entry.size_bytes;
                let consumer = self.at_mut(index);
                consumer.forget(tag, size_bytes);
                if let Some(at) = consumer.gathering {
                    self.gatherings.forget(at, tag, size_bytes);
                }
                Some(index)
            }
            Holder::Gone | Holder::Unassigned | Holder::Locked => None,
        }
    }

    /// Deliveries that a consumer gave back, settled or not; those it settled in open transactions
    /// count. A member counts those of its gathering.
    pub(super) fn settled_count(&self, index: u32) -> u64 {
        let consumer = self.at(index);
        let (delivered, allowance) = match consumer.gathering {
            None => (consumer.next_tag - 1, &consumer.allowance),
            Some(at) => {
                let gathering = self.gatherings.at(at);
                (gathering.delivered_count(), &gathering.allowance)
            }
        };
        delivered + u64::from(allowance.staged) - u64::from(allowance.unsettled)
    }
}
