//! Selectors of a queue's consumers: the machine asks about one message after another, the head
//! gives the answer.
//!
//! A message that comes while its head is at hand is judged at once. Others are looked up where
//! their bodies are: in memory, in the block cache or on the disk. A queue that waits for the disk
//! holds up no other, and a turn looks at so many messages and no more.

use forebay_journal::format::{Parts, Record};
use forebay_journal::{MessageId, QueueId, Writer};

use super::deliver::{Found, Pumped, header_of_record, record_at};
use super::filters::Filters;
use super::{Failure, Host};
use crate::frontend::{Header, Message};
use crate::queue::{FilterId, Machine, Place, Queued};
use crate::shard::bodies::VolatileBodies;
use crate::shard::cold::{ColdBlocks, ColdFailure, Reader};

/// Messages looked at in one turn; what is left goes on in the next.
const EXAMINED_PER_TURN_MAX: usize = 512;
/// Queues that wait for the disk at once: fewer than chunks of it are held.
const WAITING_QUEUES_MAX: usize = 16;

/// What became of a message that was to be judged.
enum Judged {
    Yes,
    /// Its block is being read.
    Coming,
    /// The shard has to stop.
    Failed,
}

impl Host {
    /// Answers what the machine asks about messages, as far as their heads are here.
    pub(super) fn examine(&mut self) {
        self.has_more_to_examine = false;
        let mut waiting = 0;
        for _ in 0..EXAMINED_PER_TURN_MAX {
            let Some(asked) = self.machine.poll_examine() else {
                return;
            };
            match self.look_at(asked.queue, &asked.message) {
                Judged::Yes => {}
                Judged::Coming => {
                    waiting += 1;
                    self.machine.examine_later(asked.queue);
                    // A read that ends brings the next turn.
                    if waiting >= self.machine.examining_count().min(WAITING_QUEUES_MAX) {
                        return;
                    }
                }
                Judged::Failed => return,
            }
        }
        self.has_more_to_examine = true;
    }

    /// Judges a message by all filters that may be asked about it now.
    fn look_at(&mut self, queue: QueueId, queued: &Queued) -> Judged {
        let Self {
            shard,
            machine,
            filters,
            bodies,
            writer,
            cold,
            ..
        } = self;
        match head_of(*shard, bodies, (writer, cold), (queue, queued)) {
            Head::Here(message) => {
                answer(machine, filters, queue, queued.message, &message);
                Judged::Yes
            }
            Head::Coming => Judged::Coming,
            Head::Damaged(failure) => {
                self.fail(Failure::Read(failure));
                Judged::Failed
            }
        }
    }

    /// Judges a message that came just now, while its head is at hand.
    pub(super) fn look_at_arrival(
        &mut self,
        queue: QueueId,
        header: Header,
        encoding: u8,
        head: &[u8],
    ) {
        if !self.machine.has_filters(queue) {
            return;
        }
        let message = Message::new(header, encoding, head);
        let (machine, filters) = (&mut self.machine, &self.filters);
        answer(machine, filters, queue, header.message, &message);
    }
}

/// What there is to judge a message by.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are here, and are gone with the turn"
)]
pub(super) enum Head<'a> {
    Here(Message<'a>),
    /// Its block is being read.
    Coming,
    /// It is not what it has to be.
    Damaged(ColdFailure),
}

/// Looks for the head of a message: in memory, in the block cache or on the disk.
pub(super) fn head_of<'a>(
    shard: u16,
    bodies: &'a VolatileBodies,
    (writer, cold): (&'a Writer, &'a mut ColdBlocks),
    (queue, queued): (QueueId, &Queued),
) -> Head<'a> {
    let location = match queued.place {
        Place::Journal(location) => location,
        Place::Volatile(slot) => {
            let kept = bodies.get(slot);
            let (header, encoding, head) = kept.map_or_else(
                || (Header::default(), 0, &[][..]),
                |kept| (kept.header, kept.encoding, kept.head.as_slice()),
            );
            return Head::Here(Message::new(header, encoding, head));
        }
    };
    let found = record_at(writer, cold, location, Reader::Queue(queue));
    let Found::Here(Ok(
        Record::Message {
            fields,
            head: Parts::One(head),
            ..
        }
        | Record::Moved {
            fields,
            head: Parts::One(head),
            ..
        },
    )) = found
    else {
        let Pumped::Damaged(location, reason) = found.damaged(location) else {
            return Head::Coming;
        };
        return Head::Damaged(ColdFailure {
            segment: location.segment(),
            offset: location.block_offset(),
            reason,
        });
    };
    let header = header_of_record(shard, queued.message, &fields);
    Head::Here(Message::new(header, fields.encoding, head))
}

/// Asks all filters that may be asked about a message now.
fn answer(
    machine: &mut Machine,
    filters: &Filters,
    queue: QueueId,
    name: MessageId,
    message: &Message<'_>,
) {
    let open: Vec<FilterId> = machine.open_filters(queue, name).collect();
    for filter in open {
        let is_match = filters.matches(filter, message);
        machine.note_examined(queue, filter, name, is_match);
    }
}
