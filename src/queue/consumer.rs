//! Consumers: who takes messages from which queue, how many at once, and under which tags.
//! Volatile state: nothing here is a fact.

use std::collections::VecDeque;

use forebay_journal::QueueId;

use super::delivered::{Holder, Slot};
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
    pub(super) credit: u32,
    pub(super) unsettled: u32,
    /// Of these, those settled in transactions that are still open: they use up no credit, or a
    /// transaction could not settle more than that.
    pub(super) staged: u32,
    pub(super) staged_bytes: u64,
    /// Most unsettled ones, whatever its credit.
    unsettled_max: u32,
    /// Bytes at which it gets nothing more; the greatest number for no such limit.
    pub(super) credit_bytes: u64,
    pub(super) unsettled_bytes: u64,
    pub(super) is_blocked: bool,
    /// Whether the queue's ring of willing consumers has it.
    pub(super) is_queued: bool,
    next_tag: u64,
    outstanding: VecDeque<Outstanding>,
    /// How fast it is, where the queue's policy asks.
    pub(super) watch: Option<Box<Watch>>,
}

/// Settled places that are never worth a sweep.
const TOMBSTONES_MIN: usize = 64;

impl Consumer {
    /// How many messages it takes now.
    pub(super) const fn available(&self) -> u32 {
        let bytes = self.unsettled_bytes - self.staged_bytes;
        if self.is_blocked || bytes >= self.credit_bytes {
            return 0;
        }
        let messages = self.unsettled - self.staged;
        let credit = self.credit.saturating_sub(messages);
        // Not `min`: that of the trait is no constant function.
        let room = self.unsettled_max - self.unsettled;
        if credit < room { credit } else { room }
    }

    /// How many messages it takes now, whatever their size: with a limit in bytes the next one may
    /// be the last.
    pub(super) fn available_at_least(&self) -> u32 {
        if self.credit_bytes == u64::MAX {
            self.available()
        } else {
            self.available().min(1)
        }
    }

    /// Takes a message and returns its delivery tag.
    pub(super) fn take(&mut self, message: u64, size_bytes: u32, is_journaled: bool) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.unsettled += 1;
        self.unsettled_bytes += u64::from(size_bytes);
        self.outstanding.push_back(Outstanding {
            tag,
            message,
            is_journaled,
        });
        tag
    }

    /// A delivery is settled in an open transaction.
    pub(super) fn stage(&mut self, size_bytes: u32) {
        self.staged += 1;
        self.staged_bytes += u64::from(size_bytes);
    }

    /// Undoes [`Self::stage`].
    pub(super) fn unstage(&mut self, size_bytes: u32) {
        self.staged -= 1;
        self.staged_bytes -= u64::from(size_bytes);
    }

    /// Forgets a delivery.
    ///
    /// Panics: if it is not outstanding (our own bookkeeping: queue and consumer disagree).
    pub(super) fn forget(&mut self, tag: u64, size_bytes: u32) {
        self.unsettled_bytes -= u64::from(size_bytes);
        let index = self
            .position(tag)
            .expect("what the queue gave is outstanding");
        self.outstanding[index].message = 0;
        self.unsettled -= 1;
        while self
            .outstanding
            .front()
            .is_some_and(|front| front.message == 0)
        {
            self.outstanding.pop_front();
        }
        if self.outstanding.len() > 2 * self.unsettled as usize + TOMBSTONES_MIN {
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

    /// Messages delivered to it, ever.
    pub(super) const fn delivered_count(&self) -> u64 {
        self.next_tag - 1
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
    places: Vec<(u32, Option<Consumer>)>,
    free: Vec<u32>,
    count: usize,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(
        &mut self,
        attachment: &Attachment,
        rank: Rank,
        credit: u32,
        unsettled_max: u32,
    ) -> ConsumerId {
        let consumer = Consumer {
            queue: attachment.queue,
            link: attachment.link,
            tag: attachment.tag,
            settlement: attachment.settlement,
            rank,
            filter: attachment.filter,
            credit,
            unsettled: 0,
            staged: 0,
            staged_bytes: 0,
            unsettled_max,
            credit_bytes: attachment.credit_bytes.unwrap_or(u64::MAX),
            unsettled_bytes: 0,
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
        ConsumerId {
            index,
            generation: place.0,
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Consumer> {
        let place = &mut self.places[index as usize];
        let consumer = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(index);
        self.count -= 1;
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

    /// A delivered message left its holder, if it had one.
    pub(super) fn let_go(&mut self, slot: &Slot) -> Option<u32> {
        match slot.holder {
            Holder::Consumer { index, tag } => {
                self.at_mut(index).forget(tag, slot.entry.size_bytes);
                Some(index)
            }
            Holder::Gone | Holder::Unassigned | Holder::Locked => None,
        }
    }
}
