//! What queues do, written down naively: maps, scans and no cleverness. It shares no code with
//! the machine but the words of its interface.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use forebay::queue::{Place, Rank, Selection};
use forebay_journal::SegmentId;
use forebay_journal::format::Routing;

use super::selective::Owners;

/// Most messages a consumer holds, whatever its credit.
pub(crate) const UNSETTLED_MAX: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Held {
        consumer: usize,
    },
    /// Settled in an open transaction by a consumer that is gone.
    Locked,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) attempts: u16,
    pub(crate) priority: u8,
    /// Zero for never.
    pub(crate) expires: u64,
    pub(crate) size: u32,
    pub(crate) place: Place,
    pub(crate) state: State,
    /// Zero for none.
    pub(crate) group: u64,
    pub(crate) is_group_end: bool,
    /// Whether its group ended since it was delivered.
    pub(crate) is_closed: bool,
}

impl Message {
    pub(crate) fn is_durable(&self) -> bool {
        matches!(self.place, Place::Journal(_))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) routing: Routing,
    pub(crate) address: String,
    /// Segment of its definition; none if it dies with the process.
    pub(crate) defined_in: Option<SegmentId>,
    /// What it is as a subscription with a name, if it is one.
    pub(crate) subscription: Option<Named>,
    pub(crate) messages: BTreeMap<u64, Message>,
}

/// A subscription with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) filter: &'static str,
    pub(crate) is_durable: bool,
    pub(crate) is_shared: bool,
    pub(crate) is_no_local: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) queue: u64,
    pub(crate) rank: Rank,
    pub(crate) filter: Option<u64>,
    pub(crate) credit: u32,
    pub(crate) credit_bytes: Option<u64>,
    pub(crate) is_blocked: bool,
    pub(crate) next_tag: u64,
    /// Tag and message, in order of delivery.
    pub(crate) held: Vec<(u64, u64)>,
}

impl Consumer {
    /// Positions in `held`.
    pub(crate) fn select(&self, selection: Selection) -> Vec<usize> {
        let tag_of = |id: u64| {
            self.held
                .iter()
                .find(|(_, m)| *m == id)
                .map(|(tag, _)| *tag)
        };
        let (tag, is_cumulative) = match selection {
            Selection::One(tag) => (Some(tag), false),
            Selection::Upto(tag) => (Some(tag), true),
            Selection::Message(id) => (tag_of(id.0), false),
            Selection::UptoMessage(id) => (tag_of(id.0), true),
        };
        let Some(tag) = tag.filter(|tag| *tag < self.next_tag) else {
            return Vec::new();
        };
        let fits = |held: u64| {
            if is_cumulative {
                held <= tag
            } else {
                held == tag
            }
        };
        (0..self.held.len())
            .filter(|at| fits(self.held[*at].0))
            .collect()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The first `named` queues are durable.
    Enter {
        id: u64,
        queues: Vec<u64>,
        named: usize,
        message: Message,
    },
    Settle {
        queue: u64,
        id: u64,
        /// Whether it is given back.
        is_release: bool,
        is_journaled: bool,
    },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) is_prepared: bool,
    pub(crate) steps: Vec<Step>,
    pub(crate) pins: Vec<SegmentId>,
}

impl Transaction {
    /// Whether a restart finds something of it.
    pub(crate) fn is_journaled(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Enter { message, .. } => message.is_durable(),
            Step::Settle { is_journaled, .. } => *is_journaled,
        })
    }
}

/// Segment and bytes of each record of a body.
pub(crate) type Records = Vec<(SegmentId, u32)>;

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) queues: BTreeMap<u64, Queue>,
    /// Queues that hand out nothing.
    pub(crate) paused: BTreeSet<u64>,
    pub(crate) consumers: BTreeMap<usize, Consumer>,
    pub(crate) transactions: BTreeMap<u64, Transaction>,
    /// Decided here and not heard of everywhere; where that is written.
    pub(crate) decided: BTreeMap<u64, SegmentId>,
    pub(crate) uploads: BTreeMap<u64, Records>,
    /// Of every durable message ever: never cleaned, only asked.
    pub(crate) records: BTreeMap<u64, Records>,
    pub(crate) next_message: u64,
    pub(crate) next_queue: u64,
    pub(crate) recorded_message: u64,
    pub(crate) recorded_queue: u64,
    pub(crate) next_consumer: usize,
    pub(crate) owners: Owners,
    /// Queues that once had an exclusive consumer.
    pub(crate) had_exclusive: BTreeSet<u64>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            queues: BTreeMap::new(),
            paused: BTreeSet::new(),
            consumers: BTreeMap::new(),
            transactions: BTreeMap::new(),
            decided: BTreeMap::new(),
            uploads: BTreeMap::new(),
            records: BTreeMap::new(),
            next_message: 1,
            next_queue: 1,
            recorded_message: 1,
            recorded_queue: 1,
            next_consumer: 0,
            owners: Owners::new(),
            had_exclusive: BTreeSet::new(),
        }
    }

    /// Queues of an address: durable ones and the others.
    pub(crate) fn routed(&self, routing: Routing, address: &str) -> (Vec<u64>, Vec<u64>) {
        let fits = |queue: &Queue| queue.routing == routing && queue.address == address;
        let found = self.queues.iter().filter(|(_, queue)| fits(queue));
        let (durable, volatile): (Vec<_>, Vec<_>) =
            found.partition(|(_, queue)| queue.defined_in.is_some());
        let ids = |list: Vec<(&u64, &Queue)>| list.into_iter().map(|(id, _)| *id).collect();
        (ids(durable), ids(volatile))
    }

    /// The subscription of this name, what it is, and how many are attached to it.
    pub(crate) fn subscription(&self, name: &str) -> Option<(u64, &Named, usize)> {
        let (id, named) = self.queues.iter().find_map(|(id, queue)| {
            let named = queue.subscription.as_ref()?;
            (named.name == name).then_some((*id, named))
        })?;
        let attached = self.consumers.values().filter(|c| c.queue == id);
        Some((id, named, attached.count()))
    }

    pub(crate) fn insert(&mut self, id: u64, queues: &[u64], message: &Message) {
        for queue in queues {
            if let Some(queue) = self.queues.get_mut(queue) {
                assert!(queue.messages.insert(id, message.clone()).is_none());
            }
        }
    }

    /// In the order of delivery.
    pub(crate) fn ready(&self, queue: u64) -> Vec<u64> {
        let messages = self.queues[&queue].messages.iter();
        let ready = messages.filter(|(_, m)| m.state == State::Ready);
        let mut ready: Vec<_> = ready.map(|(id, m)| (Reverse(m.priority), *id)).collect();
        ready.sort_unstable();
        ready.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) fn priority(&self, queue: u64, id: u64) -> u8 {
        self.queues[&queue].messages[&id].priority
    }

    fn left_bytes(&self, consumer: &Consumer) -> u64 {
        let messages = &self.queues[&consumer.queue].messages;
        let held = self.plainly_held(consumer);
        let held = held.into_iter().map(|id| u64::from(messages[&id].size));
        let credit = consumer.credit_bytes.unwrap_or(u64::MAX);
        credit.saturating_sub(held.sum())
    }

    /// How many messages a consumer takes, if they are small.
    pub(crate) fn available(&self, consumer: &Consumer) -> usize {
        if consumer.is_blocked || self.left_bytes(consumer) == 0 {
            0
        } else {
            let credit = consumer.credit as usize;
            let credit = credit.saturating_sub(self.plainly_held(consumer).len());
            credit.min(UNSETTLED_MAX - consumer.held.len())
        }
    }

    /// Whether an open transaction settles the message.
    pub(crate) fn is_staged(&self, queue: u64, id: u64) -> bool {
        let transactions = self.transactions.values();
        transactions.flat_map(|one| &one.steps).any(|step| {
            let what = (queue, id);
            matches!(step, Step::Settle { queue, id, .. } if (*queue, *id) == what)
        })
    }

    /// What a consumer holds and settled in no transaction.
    pub(crate) fn plainly_held(&self, consumer: &Consumer) -> Vec<u64> {
        let held = consumer.held.iter().map(|(_, id)| *id);
        held.filter(|id| !self.is_staged(consumer.queue, *id))
            .collect()
    }

    /// How many it takes whatever their size; the one that uses up its bytes still goes.
    fn demand(&self, consumer: &Consumer) -> usize {
        let most = consumer.credit_bytes.map_or(usize::MAX, |_| 1);
        self.available(consumer).min(most)
    }

    /// Consumers of a queue that may get something: all, or one that is exclusive.
    pub(crate) fn served(&self, queue: u64) -> Vec<(usize, &Consumer)> {
        let attached = self.consumers.iter().map(|(number, one)| (*number, one));
        let attached: Vec<_> = attached.filter(|(_, one)| one.queue == queue).collect();
        let mut exclusive: Vec<_> = attached
            .iter()
            .filter(|(_, one)| one.rank.is_exclusive)
            .copied()
            .collect();
        // Numbers rise in the order of attachment.
        exclusive.sort_by_key(|(number, one)| (Reverse(one.rank.priority), *number));
        exclusive.truncate(1);
        if exclusive.is_empty() {
            attached
        } else {
            exclusive
        }
    }

    /// The messages that are delivered next, together: of one priority.
    pub(crate) fn due(&self, queue: u64, most: usize) -> Vec<u64> {
        if self.paused.contains(&queue) {
            return Vec::new();
        }
        let takers = self.served(queue);
        let demand: usize = takers.iter().map(|(_, one)| self.demand(one)).sum();
        let mut due = self.ready(queue);
        due.truncate(most.min(demand));
        let highest = due.first().map(|id| self.priority(queue, *id));
        due.retain(|id| Some(self.priority(queue, *id)) == highest);
        due
    }

    /// Time, queue and message of what is ready and expires.
    pub(crate) fn expiring(&self) -> BTreeSet<(u64, u64, u64)> {
        let messages = self.queues.iter().flat_map(|(queue, of)| {
            let messages = of.messages.iter();
            messages.map(move |(id, message)| (*queue, *id, message))
        });
        messages
            .filter(|(_, _, m)| m.state == State::Ready && m.expires != 0)
            .map(|(queue, id, m)| (m.expires, queue, id))
            .collect()
    }

    /// Removes messages from their holder; returns them.
    pub(crate) fn take(&mut self, consumer: usize, positions: &[usize]) -> Vec<u64> {
        let holder = self.consumers.get_mut(&consumer).expect("asked before");
        let taken = positions
            .iter()
            .map(|at| holder.held[*at].1)
            .collect::<Vec<_>>();
        holder.held.retain(|(_, id)| !taken.contains(id));
        taken
    }

    pub(crate) fn settle(&mut self, queue: u64, id: u64) {
        let Some(queue) = self.queues.get_mut(&queue) else {
            return;
        };
        if let Some(Message {
            state: State::Held { consumer },
            ..
        }) = queue.messages.remove(&id)
        {
            let holder = self.consumers.get_mut(&consumer).expect("holds a message");
            holder.held.retain(|(_, held)| *held != id);
        }
    }

    /// Whoever has the message, it is ready again; it and its queue may be gone.
    fn give_back(&mut self, queue: u64, id: u64) {
        let messages = self.queues.get_mut(&queue).map(|queue| &mut queue.messages);
        let Some(message) = messages.and_then(|messages| messages.get_mut(&id)) else {
            return;
        };
        let former = std::mem::replace(&mut message.state, State::Ready);
        message.is_closed = false;
        if let State::Held { consumer } = former {
            let holder = self.consumers.get_mut(&consumer).expect("holds a message");
            holder.held.retain(|(_, held)| *held != id);
        }
    }

    pub(crate) fn release(&mut self, queue: u64, ids: &[u64]) {
        for id in ids {
            let messages = &mut self.queues.get_mut(&queue).expect("consumed").messages;
            let message = messages.get_mut(id).expect("held");
            message.state = State::Ready;
            message.is_closed = false;
        }
    }

    pub(crate) fn delete(&mut self, queue: u64) {
        self.paused.remove(&queue);
        self.queues.remove(&queue);
        self.consumers.retain(|_, consumer| consumer.queue != queue);
    }

    pub(crate) fn end_transaction(&mut self, number: u64, is_committed: bool) {
        let Some(transaction) = self.transactions.remove(&number) else {
            return;
        };
        for step in transaction.steps {
            match step {
                Step::Enter {
                    id,
                    queues,
                    message,
                    ..
                } if is_committed => {
                    self.insert(id, &queues, &message);
                }
                Step::Settle {
                    queue,
                    id,
                    is_release,
                    ..
                } if is_committed => {
                    if is_release {
                        self.give_back(queue, id);
                    } else {
                        self.settle(queue, id);
                    }
                }
                Step::Enter { .. } => {}
                Step::Settle { queue, id, .. } => {
                    let queue = self.queues.get_mut(&queue);
                    let message = queue.and_then(|queue| queue.messages.get_mut(&id));
                    if let Some(message) = message.filter(|m| m.state == State::Locked) {
                        message.state = State::Ready;
                    }
                }
            }
        }
    }

    /// What a kill at this moment leaves, when everything journaled is durable.
    pub(crate) fn restart(&mut self) {
        self.consumers.clear();
        self.owners.clear();
        self.had_exclusive.clear();
        self.uploads.clear();
        self.queues.retain(|_, queue| queue.defined_in.is_some());
        self.paused.retain(|queue| self.queues.contains_key(queue));
        self.transactions
            .retain(|_, transaction| transaction.is_prepared && transaction.is_journaled());
        let mut locked = BTreeSet::new();
        for transaction in self.transactions.values_mut() {
            transaction.steps.retain_mut(|step| match step {
                Step::Enter {
                    message,
                    queues,
                    named,
                    ..
                } => {
                    queues.truncate(*named);
                    message.is_durable()
                }
                Step::Settle {
                    queue,
                    id,
                    is_journaled,
                    ..
                } => {
                    locked.insert((*queue, *id));
                    *is_journaled
                }
            });
        }
        for (number, queue) in &mut self.queues {
            queue.messages.retain(|_, message| message.is_durable());
            for (id, message) in &mut queue.messages {
                message.is_closed = false;
                message.state = match message.state {
                    State::Ready => State::Ready,
                    _ if locked.contains(&(*number, *id)) => State::Locked,
                    _ => State::Ready,
                };
            }
        }
        self.next_message = (self.recorded_message + (1 << 32)).div_ceil(1 << 32) << 32;
        self.next_queue = self.recorded_queue;
    }

    /// Messages that some queue or transaction still needs.
    pub(crate) fn needed(&self) -> BTreeSet<u64> {
        let queued = self.queues.values().flat_map(|queue| &queue.messages);
        let queued = queued.filter(|(_, m)| m.is_durable()).map(|(id, _)| *id);
        let steps = self
            .transactions
            .values()
            .flat_map(|transaction| &transaction.steps);
        let staged = steps.filter_map(|step| match step {
            Step::Enter {
                id,
                message,
                queues,
                ..
            } if message.is_durable() && !queues.is_empty() => Some(*id),
            _ => None,
        });
        queued.chain(staged).collect()
    }

    /// Volatile slots and how many queues refer to each.
    pub(crate) fn slots(&self) -> BTreeMap<u32, usize> {
        let mut slots = BTreeMap::new();
        let queued = self
            .queues
            .values()
            .flat_map(|queue| queue.messages.values());
        for message in queued {
            if let Place::Volatile(slot) = message.place {
                *slots.entry(slot).or_default() += 1;
            }
        }
        for step in self
            .transactions
            .values()
            .flat_map(|transaction| &transaction.steps)
        {
            if let Step::Enter {
                message:
                    Message {
                        place: Place::Volatile(slot),
                        ..
                    },
                queues,
                ..
            } = step
            {
                *slots.entry(*slot).or_default() += queues.len();
            }
        }
        slots
    }

    /// Per segment: records that must stay, their bytes, definitions.
    pub(crate) fn segments(&self) -> BTreeMap<SegmentId, (u64, u64, u32)> {
        let mut segments: BTreeMap<SegmentId, (u64, u64, u32)> = BTreeMap::new();
        let needed = self.needed();
        let bodies = needed.iter().flat_map(|id| &self.records[id]);
        for (segment, bytes) in bodies.chain(self.uploads.values().flatten()) {
            let entry = segments.entry(*segment).or_default();
            entry.0 += 1;
            entry.1 += u64::from(*bytes);
        }
        for pin in self
            .transactions
            .values()
            .flat_map(|transaction| &transaction.pins)
            .chain(self.decided.values())
        {
            segments.entry(*pin).or_default().0 += 1;
        }
        for segment in self.queues.values().filter_map(|queue| queue.defined_in) {
            segments.entry(segment).or_default().2 += 1;
        }
        segments
    }
}
