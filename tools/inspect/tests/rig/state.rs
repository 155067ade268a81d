//! What records say, kept in the plainest way and from the first record on; and checkpoints of it.

use std::collections::{BTreeMap, BTreeSet};

use forebay_journal::format::{
    Annotations, CheckpointEntry, CheckpointFields, CheckpointFragment, Departure, MessageFields,
    Parts, QueueFlags, Record, Routing, Standing, Stands, TransactionState,
};
use forebay_journal::{Location, MessageId, QueueId, SegmentId};

/// Most fragments that one record of a checkpoint names: few, so that several are needed.
const FRAGMENTS_MAX: usize = 2;

/// A message wherever it is.
#[derive(Clone, Debug)]
pub struct Message {
    pub location: Location,
    pub fragments: Vec<(Location, u32)>,
    pub body: Vec<u8>,
    own_size: u32,
    size: u32,
    priority: u8,
    expires_unix_ms: u64,
    deliver_unix_ms: u64,
    group: u64,
    is_group_end: bool,
    last_value: Vec<u8>,
    is_shared: bool,
}

impl Message {
    /// What its record says of it when it is written anew.
    pub fn fields(&self) -> MessageFields {
        MessageFields {
            priority: self.priority,
            expires_unix_ms: self.expires_unix_ms,
            ..MessageFields::default()
        }
    }

    /// The same.
    pub fn annotations(&self) -> Annotations<'_> {
        Annotations {
            group: self.group,
            is_group_end: self.is_group_end,
            last_value: &self.last_value,
            ..Annotations::default()
        }
    }
}

/// A message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub state: Stands,
    pub attempts: u16,
}

/// How an export says it: attempts, time, reason.
pub type Place = (u64, Option<u64>, Option<&'static str>);

#[derive(Clone, Debug)]
struct Definition {
    routing: Routing,
    flags: QueueFlags,
    address: Vec<u8>,
    name: Vec<u8>,
    filter: Vec<u8>,
    location: Location,
}

#[derive(Clone, Debug)]
enum Step {
    Enter(u64, Vec<u64>),
    Settle(u64, Vec<u64>),
    Release(u64, Vec<u64>, u64),
    Depart(u64, Vec<u64>, Departure),
}

#[derive(Clone, Debug)]
struct Staged {
    first: SegmentId,
    is_prepared: bool,
    steps: Vec<Step>,
}

/// Where its fragments lie, and what is in them.
type Upload = (Vec<(Location, u32)>, Vec<u8>);

#[derive(Clone, Debug, Default)]
pub struct State {
    pub messages: BTreeMap<u64, Message>,
    pub queues: BTreeMap<u64, BTreeMap<u64, Held>>,
    definitions: BTreeMap<u64, Definition>,
    uploads: BTreeMap<u64, Upload>,
    transactions: BTreeMap<u64, Staged>,
    checkpoint: Option<Checkpoint>,
    /// The last segment with a record of a checkpoint.
    said_upto: SegmentId,
}

/// A checkpoint under way.
#[derive(Clone, Debug)]
struct Checkpoint {
    below: SegmentId,
    start: SegmentId,
    queue: u64,
    before: u64,
    again: BTreeSet<u64>,
}

/// A record of a checkpoint, owned.
pub enum Said {
    Entries(u64, Vec<CheckpointEntry>),
    One {
        queue: u64,
        entry: CheckpointEntry,
        fields: CheckpointFields,
        fragments: Vec<CheckpointFragment>,
        last_value: Vec<u8>,
    },
}

impl Said {
    pub fn record(&self) -> Record<'_> {
        match self {
            Self::Entries(queue, entries) => Record::Checkpoint {
                queue: QueueId(*queue),
                latest_unix_ms: 1_700_000_000_000,
                entries,
            },
            Self::One {
                queue,
                entry,
                fields,
                fragments,
                last_value,
            } => Record::CheckpointMessage {
                queue: QueueId(*queue),
                entry: *entry,
                fields: *fields,
                fragments,
                last_value,
            },
        }
    }
}

fn bytes(parts: &Parts<'_>) -> Vec<u8> {
    parts.pieces().flatten().copied().collect()
}

impl State {
    /// Takes a record that was written.
    pub fn take(&mut self, record: &Record<'_>, location: Location) {
        match *record {
            Record::QueueDefine {
                queue,
                routing,
                flags,
                address,
                name,
                filter,
            } => {
                let definition = Definition {
                    routing,
                    flags,
                    address: address.to_vec(),
                    name: name.to_vec(),
                    filter: filter.to_vec(),
                    location,
                };
                self.definitions.insert(queue.0, definition);
                self.queues.entry(queue.0).or_default();
            }
            Record::QueueDelete { queue } => {
                self.definitions.remove(&queue.0);
                self.queues.remove(&queue.0);
            }
            Record::Fragment { upload, body, .. } => {
                let (places, whole) = self.uploads.entry(upload).or_default();
                places.push((location, body.size() as u32));
                whole.extend(bytes(&body));
            }
            Record::UploadAbandoned { upload } => drop(self.uploads.remove(&upload)),
            Record::Message { .. } => self.message(record, location),
            Record::Moved { .. } => self.move_message(record, location),
            Record::Delivery {
                queue,
                priority,
                first,
                last,
            } => {
                let in_range = self.queues.get(&queue.0).into_iter().flatten();
                let in_range = in_range.map(|(message, _)| *message);
                let in_range = in_range.filter(|one| (first.0..=last.0).contains(one));
                let same = in_range.filter(|one| self.messages[one].priority == priority);
                let names: Vec<u64> = same.collect();
                self.hand_out(queue.0, &names);
            }
            Record::Handout { queue, messages } => {
                let names: Vec<u64> = messages.messages().map(|one| one.0).collect();
                self.hand_out(queue.0, &names);
            }
            Record::Share { queue, pairs } => {
                for (source, message) in pairs.pairs() {
                    self.share(queue.0, source.0, message.0);
                }
            }
            Record::Transaction { transaction, state } => self.transact(transaction, state),
            Record::Checkpoint { .. } | Record::CheckpointMessage { .. } => {
                self.said_upto = self.said_upto.max(location.segment());
            }
            _ => self.leave(record, location),
        }
    }

    fn message(&mut self, record: &Record<'_>, location: Location) {
        let Record::Message {
            fields,
            annotations,
            queues,
            head,
            body,
        } = record
        else {
            unreachable!("the caller picks the kind");
        };
        let (fragments, mut whole) = self.uploads.remove(&fields.upload).unwrap_or_default();
        whole.extend(bytes(body));
        let queues: Vec<u64> = queues.queues().map(|queue| queue.0).collect();
        let message = Message {
            location,
            is_shared: queues.len() > 1 || fields.upload != 0,
            fragments,
            body: whole,
            own_size: (head.size() + body.size()) as u32,
            size: head.size() as u32 + fields.body_size as u32,
            priority: fields.priority,
            expires_unix_ms: fields.expires_unix_ms,
            deliver_unix_ms: annotations.deliver_unix_ms,
            group: annotations.group,
            is_group_end: annotations.is_group_end,
            last_value: annotations.last_value.to_vec(),
        };
        self.messages.insert(fields.message.0, message);
        let step = Step::Enter(fields.message.0, queues);
        self.stage(fields.transaction, location, step);
    }

    fn move_message(&mut self, record: &Record<'_>, location: Location) {
        let Record::Moved {
            fields,
            annotations,
            queues,
            standings,
            head,
            body,
        } = record
        else {
            unreachable!("the caller picks the kind");
        };
        let name = fields.message.0;
        let former = self.messages.get(&name);
        let was_shared = former.is_some_and(|former| former.is_shared);
        let message = Message {
            location,
            is_shared: was_shared || queues.len() > 1,
            fragments: Vec::new(),
            body: bytes(body),
            own_size: (head.size() + body.size()) as u32,
            size: head.size() as u32 + fields.body_size as u32,
            priority: fields.priority,
            expires_unix_ms: fields.expires_unix_ms,
            deliver_unix_ms: 0,
            group: annotations.group,
            is_group_end: annotations.is_group_end,
            last_value: annotations.last_value.to_vec(),
        };
        self.messages.insert(name, message);
        for (queue, standing) in queues.queues().zip(standings.iter()) {
            let held = Held {
                state: standing.stands,
                attempts: standing.attempts,
            };
            let queue = self.queues.entry(queue.0).or_default();
            queue.entry(name).or_insert(held);
        }
    }

    /// Where the message stands in each of its queues.
    pub fn standings(&self, message: u64) -> Vec<(u64, Standing)> {
        let queues = self.queues.iter();
        let held = queues.filter_map(|(id, queue)| Some((*id, queue.get(&message)?)));
        held.map(|(id, held)| {
            let standing = Standing {
                stands: held.state,
                attempts: held.attempts,
                is_replaced: false,
            };
            (id, standing)
        })
        .collect()
    }

    /// Whether a transaction that is not ended is about it.
    pub fn is_staged(&self, message: u64) -> bool {
        let staged = self.transactions.values();
        let mut steps = staged.flat_map(|staged| &staged.steps);
        steps.any(|step| match step {
            Step::Enter(one, _) => *one == message,
            Step::Settle(_, all) | Step::Release(_, all, _) | Step::Depart(_, all, _) => {
                all.contains(&message)
            }
        })
    }

    fn leave(&mut self, record: &Record<'_>, location: Location) {
        let names = |list: forebay_journal::format::IdList<'_>| -> Vec<u64> {
            list.messages().map(|one| one.0).collect()
        };
        let (transaction, step) = match *record {
            Record::Settle {
                queue,
                transaction,
                messages,
                ..
            } => (transaction, Step::Settle(queue.0, names(messages))),
            Record::Release {
                queue,
                transaction,
                ready_unix_ms,
                messages,
            } => {
                let step = Step::Release(queue.0, names(messages), ready_unix_ms);
                (transaction, step)
            }
            Record::Depart {
                queue,
                transaction,
                reason,
                messages,
            } => (transaction, Step::Depart(queue.0, names(messages), reason)),
            _ => return,
        };
        self.stage(transaction, location, step);
    }

    fn stage(&mut self, transaction: u64, location: Location, step: Step) {
        if transaction == 0 {
            return self.make_true(step);
        }
        let staged = self.transactions.entry(transaction);
        let staged = staged.or_insert_with(|| Staged {
            first: location.segment(),
            is_prepared: false,
            steps: Vec::new(),
        });
        staged.steps.push(step);
    }

    fn transact(&mut self, transaction: u64, state: TransactionState) {
        match state {
            TransactionState::Prepared => {
                if let Some(staged) = self.transactions.get_mut(&transaction) {
                    staged.is_prepared = true;
                }
            }
            TransactionState::Committed | TransactionState::Decided => {
                let staged = self.transactions.remove(&transaction);
                let steps = staged.map(|staged| staged.steps).unwrap_or_default();
                steps.into_iter().for_each(|step| self.make_true(step));
            }
            TransactionState::RolledBack => drop(self.transactions.remove(&transaction)),
            TransactionState::Ended => {}
        }
    }

    fn is_divert(&self, queue: u64) -> bool {
        let defined = self.definitions.get(&queue);
        defined.is_some_and(|defined| defined.flags.is_divert)
    }

    fn make_true(&mut self, step: Step) {
        match step {
            Step::Enter(message, queues) => {
                let ready_unix_ms = self.messages[&message].deliver_unix_ms;
                for queue in queues {
                    let state = match ready_unix_ms {
                        _ if self.is_divert(queue) => Stands::Leaving(Departure::Diverted),
                        0 => Stands::Ready,
                        _ => Stands::Delayed { ready_unix_ms },
                    };
                    let held = Held { state, attempts: 0 };
                    if let Some(queue) = self.queues.get_mut(&queue) {
                        queue.insert(message, held);
                    }
                }
            }
            Step::Settle(queue, messages) => {
                for message in messages {
                    self.queues
                        .get_mut(&queue)
                        .map(|queue| queue.remove(&message));
                }
            }
            Step::Release(queue, messages, ready_unix_ms) => {
                self.each(queue, &messages, |held| {
                    held.state = match (held.state, ready_unix_ms) {
                        (Stands::Ready, _) | (_, 0) => Stands::Ready,
                        _ => Stands::Delayed { ready_unix_ms },
                    };
                });
            }
            Step::Depart(queue, messages, reason) => {
                self.each(queue, &messages, |held| {
                    held.state = Stands::Leaving(reason);
                });
            }
        }
    }

    fn each(&mut self, queue: u64, messages: &[u64], mut change: impl FnMut(&mut Held)) {
        let Some(queue) = self.queues.get_mut(&queue) else {
            return;
        };
        for message in messages {
            queue.get_mut(message).map(&mut change);
        }
    }

    fn hand_out(&mut self, queue: u64, messages: &[u64]) {
        self.each(queue, messages, |held| {
            if held.state == Stands::Ready {
                held.state = Stands::Delivered;
                // As the broker counts.
                held.attempts = (held.attempts + 1).min(2047);
            }
        });
    }

    fn share(&mut self, queue: u64, source: u64, message: u64) {
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.again.insert(queue);
        }
        let held = self
            .queues
            .get(&source)
            .and_then(|source| source.get(&message));
        if held.is_some_and(|held| held.state == Stands::Ready) {
            let (state, attempts) = (Stands::Ready, 0);
            let taker = self.queues.entry(queue).or_default();
            taker.insert(message, Held { state, attempts });
            let message = self.messages.get_mut(&message).expect("held");
            message.is_shared = true;
        }
    }

    /// The broker is gone.
    pub fn end_epoch(&mut self) {
        self.uploads.clear();
        self.transactions.retain(|_, staged| staged.is_prepared);
        self.checkpoint = None;
        let mut locked = BTreeSet::new();
        for step in self.transactions.values().flat_map(|staged| &staged.steps) {
            if let Step::Settle(queue, messages)
            | Step::Release(queue, messages, _)
            | Step::Depart(queue, messages, _) = step
            {
                locked.extend(messages.iter().map(|message| (*queue, *message)));
            }
        }
        for (id, queue) in &mut self.queues {
            for (message, held) in queue {
                if held.state == Stands::Delivered && !locked.contains(&(*id, *message)) {
                    held.state = Stands::Ready;
                }
            }
        }
    }

    /// What an export must say: this shard coordinates what is prepared, and decided nothing.
    pub fn exported(&self) -> BTreeMap<(u64, u64), (Place, Vec<u8>)> {
        let mut state = self.clone();
        state.transactions.clear();
        state.end_epoch();
        let mut all = BTreeMap::new();
        for (id, queue) in &state.queues {
            for (name, held) in queue {
                let message = &state.messages[name];
                let (time, reason) = match held.state {
                    Stands::Leaving(reason) => (None, Some(reason_name(reason))),
                    Stands::Delayed { ready_unix_ms } => (Some(ready_unix_ms), None),
                    _ => ((message.deliver_unix_ms != 0).then_some(0), None),
                };
                let place = (held.attempts.into(), time, reason);
                all.insert((*id, *name), (place, message.body.clone()));
            }
        }
        all
    }

    /// Segments that hold something of a message that is in a queue, or may come into one.
    pub fn needed(&self) -> BTreeSet<SegmentId> {
        let staged = self.transactions.values().flat_map(|staged| &staged.steps);
        let staged = staged.filter_map(|step| match step {
            Step::Enter(message, _) => Some(message),
            _ => None,
        });
        let held = self.queues.values().flat_map(BTreeMap::keys);
        let records = held.chain(staged).flat_map(|name| {
            let message = &self.messages[name];
            let parts = message.fragments.iter().map(|(place, _)| place.segment());
            parts.chain([message.location.segment()])
        });
        let uploads = self.uploads.values().flat_map(|(places, _)| places);
        let uploads = uploads.map(|(place, _)| place.segment());
        let first = self.transactions.values().map(|staged| staged.first);
        records.chain(uploads).chain(first).collect()
    }

    /// Begins a checkpoint in the segment that is being written, unless a replay would begin among
    /// what an older one said.
    pub fn begin_checkpoint(&mut self, current: SegmentId) {
        let uploads = self.uploads.values().flat_map(|(places, _)| places);
        let open = uploads.map(|(place, _)| place.segment());
        let staged = self.transactions.values().map(|staged| staged.first);
        let start = open.chain(staged).fold(current, Ord::min);
        if start <= self.said_upto {
            return;
        }
        self.checkpoint = Some(Checkpoint {
            below: current,
            start,
            queue: 0,
            before: u64::MAX,
            again: BTreeSet::new(),
        });
    }

    pub fn is_saying(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Says the next messages; what is to be written, and where a replay begins when it is all.
    pub fn say(&mut self, most: usize) -> (Vec<Said>, Option<SegmentId>) {
        let mut checkpoint = self.checkpoint.take().expect("one is under way");
        let (mut said, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..most {
            let queue = self.queues.get(&checkpoint.queue);
            let below = queue.and_then(|queue| queue.range(..checkpoint.before).next_back());
            let Some((name, held)) = below else {
                put_entries(checkpoint.queue, &mut plain, &mut said);
                let behind = (checkpoint.queue + 1).max(1);
                let next = self.queues.range(behind..).next().map(|(id, _)| *id);
                // Those that took messages meanwhile are gone through again at the end.
                let Some(next) = next.or_else(|| checkpoint.again.pop_first()) else {
                    return (said, Some(checkpoint.start));
                };
                (checkpoint.queue, checkpoint.before) = (next, u64::MAX);
                continue;
            };
            checkpoint.before = *name;
            let message = &self.messages[name];
            let parts = message.fragments.iter().map(|(place, _)| place.segment());
            let is_older = message.location.segment() < checkpoint.below;
            if !is_older && parts.into_iter().all(|part| part >= checkpoint.start) {
                continue;
            }
            let is_plain = held.state == Stands::Ready
                && !message.is_shared
                && (message.expires_unix_ms, message.group) == (0, 0)
                && message.last_value.is_empty();
            if is_plain {
                plain.push(entry(*name, message, held));
            } else {
                say_one(checkpoint.queue, *name, message, held, &mut said);
            }
        }
        put_entries(checkpoint.queue, &mut plain, &mut said);
        self.checkpoint = Some(checkpoint);
        (said, None)
    }

    /// Hands out definitions that lie below this segment.
    pub fn each_definition(&self, below: SegmentId, mut take: impl FnMut(&Record<'_>)) {
        let definitions = self.definitions.iter();
        for (queue, one) in definitions.filter(|(_, one)| one.location.segment() < below) {
            take(&Record::QueueDefine {
                queue: QueueId(*queue),
                routing: one.routing,
                flags: one.flags,
                address: &one.address,
                name: &one.name,
                filter: &one.filter,
            });
        }
    }
}

fn put_entries(queue: u64, plain: &mut Vec<CheckpointEntry>, said: &mut Vec<Said>) {
    if !plain.is_empty() {
        plain.reverse();
        said.push(Said::Entries(queue, std::mem::take(plain)));
    }
}

fn entry(name: u64, message: &Message, held: &Held) -> CheckpointEntry {
    CheckpointEntry::new(
        MessageId(name),
        message.location,
        message.size,
        held.attempts,
        message.priority,
    )
}

/// All that is known of one message, in as many records as its fragments need.
fn say_one(queue: u64, name: u64, message: &Message, held: &Held, said: &mut Vec<Said>) {
    let parts = message.fragments.iter();
    let parts: Vec<_> = parts
        .map(|(place, size)| CheckpointFragment::new(*place, *size))
        .collect();
    let total = parts.len();
    let pieces = (0..total.max(1)).step_by(FRAGMENTS_MAX);
    for before in pieces {
        let upto = total.min(before + FRAGMENTS_MAX);
        said.push(Said::One {
            queue,
            entry: entry(name, message, held),
            fields: CheckpointFields {
                state: held.state,
                expires_unix_ms: message.expires_unix_ms,
                group: message.group,
                is_group_end: message.is_group_end,
                is_shared: message.is_shared,
                is_replaced: false,
                upload: 0,
                own_size_bytes: if message.is_shared {
                    message.own_size
                } else {
                    0
                },
                fragments_before: before as u32,
                fragments_total: total as u32,
            },
            fragments: parts[before.min(upto)..upto].to_vec(),
            last_value: message.last_value.clone(),
        });
    }
}

pub const fn reason_name(reason: Departure) -> &'static str {
    match reason {
        Departure::AttemptsExceeded => "attempts_exceeded",
        Departure::Rejected => "rejected",
        Departure::Expired => "expired",
        Departure::Diverted => "diverted",
    }
}
