//! Entries for fuzzers: bytes as the records of a checkpoint, and as a story in which checkpoints
//! are made while messages come and go.
//!
//! They hold what must be true of each: no panic, what is understood is written again as the same
//! bytes, and a replay from where a checkpoint began finds what a replay of everything finds.
//! `fuzz/fuzz_targets/checkpoint.rs` and `tests/fuzz_smoke.rs` call them; a broker never does.

use forebay_journal::format::{
    Annotations, CheckpointFragment, Departure, IdList, MessageFields, MessageFlags, Outcome,
    Parts, QueueFlags, Record, Routing, Stands, encode_record, encoded_size,
};
use forebay_journal::{Location, MessageId, QueueId, SegmentId};
use zerocopy::little_endian::U64;

use super::checkpoint::highest;
use super::decision::{Decision, Fact};
use super::entry::Place;
use super::machine::{Limits, Machine};
use super::policy::Policies;
use super::state::QueueState;

/// Small, so that a checkpoint takes many slices, and a message with fragments several records.
const LIMITS: Limits = Limits {
    queues_max: 8,
    consumers_max: 1,
    unsettled_max: 1,
    dispatch_max: 3,
};
const QUEUES_MAX: u64 = 5;
const STEPS_MAX: usize = 400;
const BLOCK_SIZE: u64 = 4096;
const RECORD_OFFSET: u32 = 192;
/// Record kinds: a checkpoint, and a message of one.
const KINDS: [u8; 2] = [18, 19];

/// Takes the bytes as what follows the head of a record of a checkpoint; `data[0]` chooses the
/// kind.
/// Returns whether it was one.
///
/// Panics: when a promise of the format's code is broken; that is the finding.
pub fn exercise_record(data: &[u8]) -> bool {
    let [choice, content @ ..] = data else {
        return false;
    };
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(&content[..content.len().min(64 * 1024)]);
    let size = bytes.len() as u32;
    bytes[0] = KINDS[usize::from(choice % 2)];
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let Ok(record) = Record::decode_at(&bytes, 0) else {
        return false;
    };
    let mut again = vec![0; encoded_size(&record)];
    encode_record(&record, &mut again);
    assert_eq!(again, bytes, "{record:?}");
    true
}

/// Takes the bytes as a story, two for each step; each checkpoint that is whole is held against a
/// replay of everything. Returns how many were.
///
/// Panics: when a replay finds a message more, less or otherwise; that is the finding.
pub fn exercise_story(data: &[u8]) -> usize {
    let mut story = Story::new();
    for step in data.chunks_exact(2).take(STEPS_MAX) {
        if let [what, how] = *step {
            story.step(what, how);
        }
    }
    while story.machine.checkpoint_start().is_some() {
        story.say();
    }
    story.checkpoints
}

/// A machine that takes facts as a replay does, and all of them as bytes.
struct Story {
    machine: Machine,
    journal: Vec<(Location, Vec<u8>)>,
    decision: Decision,
    segment: SegmentId,
    block: u64,
    queues: u64,
    name: u64,
    checkpoints: usize,
}

impl Story {
    fn new() -> Self {
        Self {
            machine: Machine::new(LIMITS, Policies::default()),
            journal: Vec::new(),
            decision: Decision::new(),
            segment: SegmentId::ZERO.next(),
            block: 1,
            queues: 0,
            name: 1,
            checkpoints: 0,
        }
    }

    fn append(&mut self, record: &Record<'_>) {
        let location = Location::new(self.segment, self.block * BLOCK_SIZE, RECORD_OFFSET);
        self.block += 1;
        let mut bytes = vec![0; encoded_size(record)];
        encode_record(record, &mut bytes);
        take(&mut self.machine, location, &bytes);
        self.journal.push((location, bytes));
    }

    fn step(&mut self, what: u8, how: u8) {
        let queue = QueueId(u64::from(how % 5) + 1);
        match what % 12 {
            0 => self.define(how),
            1..=3 => self.send(how),
            4 => self.send_in_parts(how),
            5 => self.deliver(queue),
            6 => self.change(
                queue,
                how,
                |_| true,
                |id, messages| Record::Settle {
                    queue: id,
                    transaction: 0,
                    outcome: Outcome::Accepted,
                    messages,
                },
            ),
            7 => self.change(
                queue,
                how,
                |at| matches!(at, Stands::Delivered | Stands::Delayed { .. }),
                |id, messages| Record::Release {
                    queue: id,
                    transaction: 0,
                    ready_unix_ms: 0,
                    messages,
                },
            ),
            8 => self.change(
                queue,
                how,
                |at| !matches!(at, Stands::Leaving(_)),
                |id, messages| Record::Depart {
                    queue: id,
                    transaction: 0,
                    reason: Departure::Rejected,
                    messages,
                },
            ),
            9 if how.is_multiple_of(16) => self.append(&Record::QueueDelete { queue }),
            9 => self.change(
                queue,
                how,
                |at| at == Stands::Ready,
                |id, messages| Record::Handout {
                    queue: id,
                    messages,
                },
            ),
            10 => {
                self.segment = self.segment.next();
                self.block = 1;
            }
            _ => match self.machine.checkpoint_start() {
                None => drop(self.machine.begin_checkpoint(self.segment)),
                Some(_) => self.say(),
            },
        }
    }

    fn define(&mut self, how: u8) {
        if self.queues >= QUEUES_MAX {
            return;
        }
        self.queues += 1;
        let address = [b'a' + self.queues as u8];
        self.append(&Record::QueueDefine {
            queue: QueueId(self.queues),
            routing: Routing::Multicast,
            flags: QueueFlags {
                is_subscription: true,
                is_divert: how % 8 == 7,
                ..QueueFlags::default()
            },
            address: &address,
            name: &address,
            filter: b"",
        });
    }

    fn fields(&mut self, how: u8, upload: u64) -> MessageFields {
        self.name += 1;
        MessageFields {
            message: MessageId(self.name),
            upload,
            body_size: 4 + if upload > 0 { u64::from(how % 8) } else { 0 },
            timestamp_unix_ms: self.name,
            expires_unix_ms: u64::from(how & 1) * 1000,
            priority: how % 3,
            encoding: 1,
            flags: MessageFlags {
                is_durable: true,
                ..MessageFlags::default()
            },
            ..MessageFields::default()
        }
    }

    fn send(&mut self, how: u8) {
        let fields = self.fields(how, 0);
        self.enter(how, fields);
    }

    fn send_in_parts(&mut self, how: u8) {
        let upload = self.name + 1;
        self.name = upload;
        let fields = self.fields(how, upload);
        for offset in 0..u64::from(how % 8) {
            self.append(&Record::Fragment {
                upload,
                offset,
                body: Parts::One(b"x"),
            });
        }
        self.enter(how, fields);
    }

    fn enter(&mut self, how: u8, fields: MessageFields) {
        if self.queues == 0 {
            return;
        }
        let first = u64::from(how) % self.queues + 1;
        let second = u64::from(how / 5) % self.queues + 1;
        let both = [U64::new(first), U64::new(second)];
        let count = if how.is_multiple_of(4) && first != second {
            2
        } else {
            1
        };
        let key = [b'k', how % 4];
        self.append(&Record::Message {
            fields,
            annotations: Annotations {
                deliver_unix_ms: u64::from(how % 9 == 8) * 5,
                group: u64::from(how % 6 == 5) * 7,
                last_value: if how % 7 == 6 { &key } else { b"" },
                ..Annotations::default()
            },
            queues: IdList(&both[..count]),
            head: Parts::One(b"h"),
            body: Parts::One(b"body"),
        });
    }

    /// Delivers the ready messages of one priority, as far as they are named one behind the other.
    fn deliver(&mut self, queue: QueueId) {
        let Some(state) = self.machine.queues.get(queue) else {
            return;
        };
        let all = all_of(state);
        let mut ready = all.iter().filter(|(_, _, stands)| *stands == Stands::Ready);
        let Some(&(last, priority, _)) = ready.next() else {
            return;
        };
        let first = ready.rfind(|one| one.1 == priority);
        let first = first.map_or(last, |one| one.0);
        self.append(&Record::Delivery {
            queue,
            priority,
            first: MessageId(first),
            last: MessageId(last),
        });
    }

    /// Some of the messages of a queue that stand so that this may happen to them.
    fn change(
        &mut self,
        queue: QueueId,
        how: u8,
        may: fn(Stands) -> bool,
        record: impl for<'a> Fn(QueueId, IdList<'a>) -> Record<'a>,
    ) {
        let Some(state) = self.machine.queues.get(queue) else {
            return;
        };
        let all = all_of(state).into_iter().rev();
        let some = all.filter(|one| may(one.2));
        let some = some
            .skip(usize::from(how / 64))
            .step_by(1 + usize::from(how % 3));
        let names: Vec<U64> = some.take(4).map(|one| U64::new(one.0)).collect();
        if !names.is_empty() {
            self.append(&record(queue, IdList(&names)));
        }
    }

    /// Says one slice of the checkpoint under way; behind the last one replays.
    fn say(&mut self) {
        let Some(start) = self.machine.checkpoint_start() else {
            return;
        };
        let mut decision = core::mem::take(&mut self.decision);
        let is_more = self.machine.decide_checkpoint(&mut decision);
        self.apply(&decision);
        if !is_more {
            self.machine.end_checkpoint();
            let upto = SegmentId::ZERO.plus(start.get() - 1);
            while self.machine.decide_redefine(upto, &mut decision) {
                self.apply(&decision);
            }
            self.apply(&decision);
            self.check(start);
            self.checkpoints += 1;
        }
        self.decision = decision;
    }

    fn apply(&mut self, decision: &Decision) {
        for fact in decision.facts() {
            self.append(&fact.record);
        }
    }

    /// A replay from where the checkpoint began finds what one of everything finds.
    fn check(&mut self, start: SegmentId) {
        let mut replayed = Machine::new(LIMITS, Policies::default());
        let read = self.journal.iter();
        for (location, bytes) in read.filter(|(location, _)| location.segment() >= start) {
            take(&mut replayed, *location, bytes);
        }
        for id in (1..=QUEUES_MAX).map(QueueId) {
            let (known, found) = (self.machine.queues.get(id), replayed.queues.get(id));
            let told = |machine: &Machine, queue: Option<&QueueState>| {
                queue.map(|queue| told(machine, queue)).unwrap_or_default()
            };
            let (all, some) = (told(&self.machine, known), told(&replayed, found));
            for (known, found) in all.iter().zip(&some) {
                assert_eq!(found, known, "{id:?}");
            }
            assert_eq!(some.len(), all.len(), "{id:?}: {some:?}, not {all:?}");
            let is_defined = |queue: &QueueState| queue.defined.is_some();
            assert_eq!(found.is_some_and(is_defined), known.is_some_and(is_defined));
        }
        replayed.check_invariants();
        self.machine.check_invariants();
    }
}

fn take(machine: &mut Machine, location: Location, bytes: &[u8]) {
    let record = Record::decode_at(bytes, 0);
    let record = record.unwrap_or_else(|error| panic!("written just now: {error}"));
    let mut effects = Vec::new();
    machine.evolve(&Fact::from(record), Place::Journal(location), &mut effects);
}

/// Name, priority and state of each message, the highest name first.
fn all_of(queue: &QueueState) -> Vec<(u64, u8, Stands)> {
    let mut all = Vec::new();
    highest(queue, u64::MAX, usize::MAX, &mut all);
    let all = all.into_iter();
    all.map(|(entry, stands)| (entry.message, entry.priority(), stands))
        .collect()
}

/// All that a checkpoint has to say of a queue's messages.
fn told(machine: &Machine, queue: &QueueState) -> Vec<String> {
    let mut all = Vec::new();
    highest(queue, u64::MAX, usize::MAX, &mut all);
    let all = all.into_iter();
    all.map(|(entry, stands)| {
        let message = entry.message;
        let parts = machine.fragments(MessageId(message)).iter();
        let parts = parts.map(|part| CheckpointFragment::new(part.location, part.size_bytes));
        // What leaves a divert is handed to nobody. A replay that does not know yet that it is one
        // notes its group all the same.
        let is_handed_out = stands != Stands::Leaving(Departure::Diverted);
        let mark = queue.mark_of(message).filter(|_| is_handed_out);
        let mark = mark.map(|mark| (mark.group, mark.is_end));
        let what = (
            message,
            entry.place(),
            entry.attempts(),
            entry.priority(),
            entry.size_bytes,
            stands,
        );
        let more = (
            machine.expiring.of(queue.id.0, message).map(|(at, _)| at),
            mark,
            queue.last_value_of(message),
            queue.has_lost_value(message),
            parts.collect::<Vec<_>>(),
        );
        format!("{what:?} {more:?}")
    })
    .collect()
}
