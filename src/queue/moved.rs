//! Messages that are written anew, because the segment of their record is to be freed.
//!
//! Where a message is known nothing changes but its place. A replay whose first segments were
//! freed does not know it: there it enters just as it stands in its queues at that moment, so that
//! both are the same from then on.

use forebay_journal::format::{
    Annotations, IdList, MessageFields, Parts, Record, Standing, StandingBytes, Standings, Stands,
};
use forebay_journal::{Location, MessageId, QueueId, SegmentId};
use zerocopy::little_endian::U64;

use super::arrival::Arrival;
use super::aside::Why;
use super::bodies::RecordSizes;
use super::consumer::ConsumerId;
use super::decision::Fact;
use super::delivered::Holder;
use super::entry::{Entry, Place};
use super::machine::Machine;
use super::segments::SegmentUse;
use super::state::QueueState;

/// Where a message stands: the answer of [`Machine::decide_move`]. Owned by the caller and used
/// again and again.
#[derive(Debug, Default)]
pub struct Moving {
    queues: Vec<U64>,
    standings: Vec<StandingBytes>,
    volatile: Vec<U64>,
    looked_at: usize,
}

impl Moving {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn clear(&mut self) {
        self.queues.clear();
        self.standings.clear();
        self.volatile.clear();
    }

    fn count(&self) -> usize {
        self.queues.len() + self.volatile.len()
    }

    /// Queues that were looked at: what the answer cost.
    pub const fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// The fact that the message is written anew.
    ///
    /// Shape: `fields`, `annotations`, head and body as in its former record, but for the upload.
    pub fn fact<'a>(
        &'a self,
        fields: MessageFields,
        annotations: Annotations<'a>,
        head: Parts<'a>,
        body: Parts<'a>,
    ) -> Fact<'a> {
        let record = Record::Moved {
            fields: MessageFields {
                transaction: 0,
                ..fields
            },
            annotations: Annotations {
                deliver_unix_ms: 0,
                duplicate_id: &[],
                ..annotations
            },
            queues: IdList(&self.queues),
            standings: Standings::new(&self.standings),
            head,
            body,
        };
        Fact {
            volatile_queues: IdList(&self.volatile),
            ..Fact::from(record)
        }
    }
}

/// A large message that one of its fragments led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragmented {
    /// Its name.
    pub message: MessageId,
    /// Where its record lies.
    pub record: Location,
}

impl Machine {
    /// Whether a message whose record lies at this place has to be written anew before that can be
    /// freed, and can be now: not while a transaction is about it.
    ///
    /// Shape: `named` are the queues that the record names.
    /// Cost: O(queues named); O(queues) for one that is in queues its record does not name.
    pub fn decide_move(
        &self,
        message: MessageId,
        at: Location,
        named: IdList<'_>,
        out: &mut Moving,
    ) -> bool {
        out.clear();
        out.looked_at = named.len();
        let named = named.queues().filter_map(|id| self.queues.get(id));
        let mut is_free = self.add_standings(named, message, at, out);
        let Some(references) = self.bodies.shared_by(message) else {
            return is_free && out.count() == 1;
        };
        if out.count() < references as usize {
            out.clear();
            out.looked_at += self.queues.len();
            is_free = self.add_standings(self.queues.iter(), message, at, out);
        }
        is_free && out.count() == references as usize
    }

    /// False: a transaction is about the message in one of the queues.
    fn add_standings<'a>(
        &self,
        queues: impl Iterator<Item = &'a QueueState>,
        message: MessageId,
        at: Location,
        out: &mut Moving,
    ) -> bool {
        for queue in queues {
            let Some(entry) = queue.entry(message.0) else {
                continue;
            };
            if entry.place() != Place::Journal(at) {
                continue;
            }
            if self.transactions.settles(queue.id, message.0) {
                return false;
            }
            if queue.is_durable() {
                out.queues.push(U64::new(queue.id.0));
                out.standings.push(queue.standing(entry).into());
            } else {
                out.volatile.push(U64::new(queue.id.0));
            }
        }
        true
    }

    /// The message whose fragment of this upload lies there, if it is needed.
    pub fn fragmented(&self, upload: u64, at: Location) -> Option<Fragmented> {
        let (message, record) = self.bodies.of_upload(upload)?;
        let mut fragments = self.bodies.fragments(message).iter();
        fragments
            .any(|part| part.location == at)
            .then_some(Fragmented { message, record })
    }

    /// Where the record of a message lies that is in this queue.
    pub fn place_in(&self, queue: QueueId, message: MessageId) -> Option<Place> {
        Some(self.queues.get(queue)?.entry(message.0)?.place())
    }

    /// The queue of a consumer that is attached.
    pub fn queue_of(&self, consumer: ConsumerId) -> Option<QueueId> {
        Some(self.consumers.resolve(consumer)?.queue)
    }

    /// What all segments are needed for, from the oldest one that is.
    pub fn segment_uses(&self) -> impl Iterator<Item = (SegmentId, SegmentUse)> + Clone + '_ {
        self.bodies.segments.iter()
    }

    /// A message is written anew.
    ///
    /// Panics: if the record is not in the journal, or another one (our own mistake).
    #[cold]
    pub(super) fn move_message(&mut self, fact: &Fact<'_>, at: Place) {
        let (
            Record::Moved {
                fields,
                annotations,
                queues,
                standings,
                ..
            },
            Place::Journal(location),
        ) = (fact.record, at)
        else {
            panic!("moved messages are journaled");
        };
        let message = fields.message.0;
        let lists = [queues, fact.volatile_queues];
        let mut ids = lists.iter().flat_map(|list| list.queues());
        let known = ids.find_map(|id| {
            let queue = self.queues.get(id)?;
            queue.entry(message).copied()
        });
        let Some(mut known) = known else {
            return self.enter_moved(&fact.record, at);
        };
        let sizes = sizes_of(&fact.record);
        self.bodies.relocate(&known, &fields, sizes, location);
        known.set_place(location);
        for id in fact.volatile_queues.queues() {
            self.place_in_queue(id, message, location);
        }
        let arrival = Arrival::new(known, fields.expires_unix_ms, (annotations, &[]));
        for (id, standing) in queues.queues().zip(standings.iter()) {
            if !self.place_in_queue(id, message, location) {
                // A checkpoint told a replay of another queue of it, and not yet of this one.
                self.await_definition(id);
                self.bodies.share_anew(&known);
                self.insert_as(&arrival, id, standing);
            }
        }
    }

    /// A message lies there from now on; whether this queue has it.
    fn place_in_queue(&mut self, id: QueueId, message: u64, location: Location) -> bool {
        let queue = self.queues.get_mut(id);
        let entry = queue.and_then(|queue| queue.entry_mut(message));
        let is_known = entry.is_some();
        if let Some(entry) = entry {
            entry.set_place(location);
        }
        is_known
    }

    /// In a replay that does not know the message.
    fn enter_moved(&mut self, record: &Record<'_>, at: Place) {
        let &Record::Moved {
            fields,
            annotations,
            queues,
            standings,
            ..
        } = record
        else {
            unreachable!("the caller picks the kind");
        };
        self.draw(fields.message.0, at);
        let unix_ms = fields.timestamp_unix_ms;
        self.times.note_late(fields.message.0, unix_ms);
        if queues.is_empty() {
            return self.bodies.abandon(fields.upload);
        }
        self.await_definitions(queues);
        let sizes = sizes_of(record);
        let references = queues.len() as u32;
        let entry = self.bodies.enter(&fields, sizes, at, references);
        let arrival = Arrival::new(entry, fields.expires_unix_ms, (annotations, &[]));
        for (queue, standing) in queues.queues().zip(standings.iter()) {
            self.insert_as(&arrival, queue, standing);
        }
    }

    /// Puts a message that was not known where it stands.
    pub(super) fn insert_as(&mut self, arrival: &Arrival<'_>, id: QueueId, standing: Standing) {
        let entry = arrival.entry.with_attempts(standing.attempts);
        let message = entry.message;
        let (queue, dirty) = self.queues.open(id).expect("it was made if need be");
        queue.bytes += u64::from(entry.size_bytes);
        self.held.enter(&entry);
        self.idle.end(queue);
        queue.note_arrival(arrival, &self.consumers);
        if let Stands::Leaving(reason) = standing.stands {
            let why = Why::Leaving(reason);
            return self.waits.insert(id, &mut queue.aside, entry, why);
        }
        self.expiring.enter(id.0, message, arrival.expires_unix_ms);
        let last_value = arrival.annotations.last_value;
        if !last_value.is_empty() {
            queue.restore_value(last_value, message, standing.is_replaced);
        }
        match standing.stands {
            Stands::Delivered => {
                self.expiring.hold(id.0, &[entry]);
                queue.delivered.insert(entry, Holder::Unassigned);
            }
            Stands::Delayed { ready_unix_ms } => {
                let why = Why::Delayed { ready_unix_ms };
                self.waits.insert(id, &mut queue.aside, entry, why);
            }
            Stands::Ready | Stands::Leaving(_) => {
                queue.ready.insert(entry);
                queue.note_ready(&[entry]);
                queue.touch(dirty);
            }
        }
        self.surplus.note_returned(queue, &[entry]);
    }
}

fn sizes_of(record: &Record<'_>) -> RecordSizes {
    match record {
        Record::Moved { head, body, .. } => RecordSizes::of(head, body),
        _ => unreachable!("the caller picks the kind"),
    }
}

impl QueueState {
    /// The message, wherever it is in the queue.
    pub(super) fn entry(&self, message: u64) -> Option<&Entry> {
        let delivered = || self.delivered.find(message).map(|slot| &slot.entry);
        let aside = || self.aside.get(message).map(|(entry, _)| entry);
        self.ready.get(message).or_else(delivered).or_else(aside)
    }

    /// No message in it is named lower than this; none if it has none.
    pub(super) fn lowest(&self) -> Option<u64> {
        let places = [
            self.ready.lowest(),
            self.delivered.lowest(),
            self.aside.lowest(),
        ];
        places.into_iter().flatten().min()
    }

    fn entry_mut(&mut self, message: u64) -> Option<&mut Entry> {
        if self.delivered.find(message).is_some() {
            return self.delivered.entry_mut(message);
        }
        if self.aside.get(message).is_some() {
            return self.aside.entry_mut(message);
        }
        self.ready.get_mut(message)
    }

    /// Where a message of this queue stands in it.
    pub(super) fn standing(&self, entry: &Entry) -> Standing {
        let message = entry.message;
        let stands = match self.aside.get(message) {
            Some((_, why)) => why.stands(),
            None if self.delivered.find(message).is_some() => Stands::Delivered,
            None => Stands::Ready,
        };
        Standing {
            stands,
            attempts: entry.attempts(),
            is_replaced: self.has_lost_value(message),
        }
    }
}
