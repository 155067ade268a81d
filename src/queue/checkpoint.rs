//! Checkpoints: what is alive from before a segment is said again behind its beginning, so that a
//! replay can begin there.
//!
//! It is said a slice at a time while facts go on, and each slice says what is true where it
//! stands. A replay that begins at the segment knows nothing of an older message until a slice
//! names it: facts before are about an unknown message and change nothing, facts behind meet it as
//! the slice says it is. So there is no moment at which the shard would have to stand still. Live,
//! and in a replay of everything, a slice says what is known.
//!
//! What a fact takes from one place to another must not slip through: a queue is gone through from
//! the highest name down, wherever in it the messages are; a queue that got messages of
//! another one is gone through again; and a replay begins before all that transactions and uploads
//! had staged when the first slice that it reads was said. So it never begins among the slices of
//! an older checkpoint: what they say could end by a transaction that the replay does not know.

use std::collections::BTreeSet;

use forebay_journal::format::{
    Annotations, CheckpointEntry, CheckpointFields, CheckpointFragment, Record, Standing, Stands,
};
use forebay_journal::{QueueId, SegmentId};

use super::arrival::Arrival;
use super::decision::Decision;
use super::entry::{Entry, Place};
use super::machine::Machine;
use super::state::QueueState;

/// Bytes of records in one slice, but for the last message of it.
const SLICE_SIZE_BYTES: usize = 32 * 1024;
/// Messages and queues looked at for one slice, but for those of the last queue; times the most
/// messages in it.
const LOOKS_PER_MESSAGE: usize = 16;

/// A checkpoint under way.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    /// Messages whose records lie below this segment are said again.
    below: SegmentId,
    /// Where a replay begins once all is said.
    start: SegmentId,
    cursor: Cursor,
    /// Queues that got messages of others meanwhile.
    again: BTreeSet<u64>,
    /// Bytes said so far.
    said_bytes: u64,
    batch: Vec<(Entry, Stands)>,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    queue: Next,
    /// Messages named lower are left.
    before: u64,
    /// Fragments said of the message that comes next.
    fragments: usize,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// The queue in this place, or behind.
    Place(u32),
    /// This one again.
    Again(u64),
    Nothing,
}

impl Checkpoint {
    fn begin(&mut self, below: SegmentId, start: SegmentId) {
        self.below = below;
        self.start = start;
        self.cursor = Cursor::default();
        self.again.clear();
        self.said_bytes = 0;
    }

    /// A queue got messages that another one has.
    pub(super) fn note_shared(&mut self, queue: QueueId) {
        self.again.insert(queue.0);
    }

    /// Goes on with the queue behind the one in this place.
    fn pass(&mut self, place: u32) {
        self.cursor = Cursor::at(Next::Place(place + 1));
    }

    /// Goes on with those that have to be said again.
    fn pass_again(&mut self) {
        let next = self.again.pop_first();
        self.cursor = Cursor::at(next.map_or(Next::Nothing, Next::Again));
    }
}

impl Default for Cursor {
    fn default() -> Self {
        Self::at(Next::Place(0))
    }
}

impl Cursor {
    const fn at(queue: Next) -> Self {
        Self {
            queue,
            before: u64::MAX,
            fragments: 0,
        }
    }
}

/// Room left in a slice.
struct Slice {
    bytes: usize,
    messages: usize,
    looks: usize,
}

impl Slice {
    const fn is_full(&self) -> bool {
        self.bytes == 0 || self.messages == 0
    }

    const fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.messages -= 1;
    }
}

impl Machine {
    /// Begins a checkpoint: messages whose records lie below `current`, the segment that is being
    /// written, are to be said again. Whether it begins: not while a replay would begin among the
    /// slices of an older one.
    ///
    /// Cost: O(records of transactions and uploads that are open).
    pub fn begin_checkpoint(&mut self, current: SegmentId) -> bool {
        let staged = self.transactions.oldest_segment(&self.bodies);
        let uploads = self.bodies.oldest_staged();
        let start = staged.into_iter().chain(uploads).fold(current, Ord::min);
        let is_behind = start > self.said_upto;
        if is_behind {
            let mut checkpoint = self.spare_checkpoint.take().unwrap_or_default();
            checkpoint.begin(current, start);
            self.checkpoint = Some(checkpoint);
        }
        is_behind
    }

    /// Where a replay may begin without a checkpoint: at the oldest segment with a record that must
    /// stay. None while that lies among the slices of a checkpoint.
    pub fn replay_start(&self, current: SegmentId) -> Option<SegmentId> {
        let live = self.oldest_live_segment();
        let start = live.map_or(current, |live| live.min(current));
        (start > self.said_upto).then_some(start)
    }

    /// A slice lies in this segment.
    fn note_said(&mut self, at: Place) {
        if let Place::Journal(location) = at {
            self.said_upto = self.said_upto.max(location.segment());
        }
    }

    /// Where a replay may begin when the checkpoint under way is written; none if there is none.
    pub fn checkpoint_start(&self) -> Option<SegmentId> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.start)
    }

    /// Ends the checkpoint: the messages are all said, or it is given up. Returns the bytes of its
    /// records.
    ///
    /// Panics: if none is under way (our own mistake).
    pub fn end_checkpoint(&mut self) -> u64 {
        let checkpoint = self.checkpoint.take();
        let checkpoint = checkpoint.expect("a checkpoint is under way");
        let said_bytes = checkpoint.said_bytes;
        self.spare_checkpoint = Some(checkpoint);
        said_bytes
    }

    /// Says the next messages; whether there may be more. Queues and ids are
    /// [`Self::decide_redefine`]'s. What it answers has to come true before it is asked again.
    ///
    /// Shape: no more than `dispatch_max` messages, and no more than [`SLICE_SIZE_BYTES`]
    /// of records and one message.
    pub fn decide_checkpoint(&mut self, out: &mut Decision) -> bool {
        out.clear();
        let Some(mut checkpoint) = self.checkpoint.take() else {
            return false;
        };
        let mut slice = Slice {
            bytes: SLICE_SIZE_BYTES,
            messages: self.limits.dispatch_max,
            looks: self.limits.dispatch_max * LOOKS_PER_MESSAGE,
        };
        let mut is_more = true;
        while is_more && !slice.is_full() && slice.looks > 0 {
            slice.looks -= 1;
            is_more = self.say_next(&mut checkpoint, &mut slice, out);
        }
        self.checkpoint = Some(checkpoint);
        is_more
    }

    /// Says messages of the next queue; whether anything may be left.
    fn say_next(&self, checkpoint: &mut Checkpoint, slice: &mut Slice, out: &mut Decision) -> bool {
        match checkpoint.cursor.queue {
            Next::Nothing if checkpoint.again.is_empty() => return false,
            Next::Nothing => checkpoint.pass_again(),
            Next::Place(place) => match self.queues.iter_from(place).next() {
                None => checkpoint.pass_again(),
                // Behind places that nobody is in.
                Some((found, _)) if found != place => {
                    checkpoint.cursor = Cursor::at(Next::Place(found));
                }
                Some((_, queue)) => {
                    if self.say(queue, checkpoint, slice, out) {
                        checkpoint.pass(place);
                    }
                }
            },
            Next::Again(id) => {
                let queue = self.queues.get(QueueId(id));
                let say = |queue| self.say(queue, checkpoint, slice, out);
                if queue.is_none_or(say) {
                    checkpoint.pass_again();
                }
            }
        }
        true
    }

    /// Says messages of this queue as long as there is room; whether all are said.
    fn say(
        &self,
        queue: &QueueState,
        checkpoint: &mut Checkpoint,
        slice: &mut Slice,
        out: &mut Decision,
    ) -> bool {
        if !queue.is_durable() || queue.message_count() == 0 {
            return true;
        }
        let room_before = slice.bytes;
        let mut batch = core::mem::take(&mut checkpoint.batch);
        let most = self.limits.dispatch_max;
        highest(queue, checkpoint.cursor.before, most, &mut batch);
        slice.looks = slice.looks.saturating_sub(batch.len());
        let run = out.begin_entries();
        let mut is_whole = batch.len() < most;
        for (entry, state) in &batch {
            let cursor = &mut checkpoint.cursor;
            if cursor.before != entry.message + 1 {
                // What was to come next is gone.
                cursor.fragments = 0;
            }
            cursor.before = entry.message;
            if !entry.is_durable() || self.bodies.oldest_segment(entry) >= checkpoint.below {
                continue;
            }
            let said = if *state == Stands::Ready && is_plain(queue, entry) {
                out.add_entry(as_said(entry))
            } else {
                self.say_one(queue, entry, *state, cursor, out)
            };
            slice.take(said);
            if slice.is_full() || checkpoint.cursor.fragments > 0 {
                is_whole = false;
                break;
            }
        }
        out.end_entries(queue.id, self.times.latest_unix_ms(), run);
        checkpoint.said_bytes += (room_before - slice.bytes) as u64;
        batch.clear();
        checkpoint.batch = batch;
        is_whole
    }

    /// Says all that is known of one message; returns the bytes of it.
    fn say_one(
        &self,
        queue: &QueueState,
        entry: &Entry,
        state: Stands,
        cursor: &mut Cursor,
        out: &mut Decision,
    ) -> usize {
        let message = entry.message;
        let (own_size_bytes, upload, fragments) = if entry.is_shared() {
            self.bodies.shared(entry)
        } else {
            (0, 0, [].as_slice())
        };
        let before = cursor.fragments.min(fragments.len());
        let named = &fragments[before..];
        let named = &named[..named.len().min(self.limits.dispatch_max)];
        let mark = queue.mark_of(message);
        let expires = self.expiring.of(queue.id.0, message);
        let fields = CheckpointFields {
            state,
            expires_unix_ms: expires.map_or(0, |(unix_ms, _)| unix_ms),
            group: mark.map_or(0, |mark| mark.group),
            is_group_end: mark.is_some_and(|mark| mark.is_end),
            is_shared: entry.is_shared(),
            is_replaced: queue.has_lost_value(message),
            upload,
            own_size_bytes,
            fragments_before: before as u32,
            fragments_total: fragments.len() as u32,
        };
        let named = named
            .iter()
            .map(|part| CheckpointFragment::new(part.location, part.size_bytes));
        let is_all = before + named.len() == fragments.len();
        // Else it comes again, for the rest of them.
        cursor.before = message + u64::from(!is_all);
        cursor.fragments = if is_all { 0 } else { before + named.len() };
        let key = queue.last_value_of(message);
        out.say_message(queue.id, as_said(entry), fields, named, key)
    }
}

/// The `most` highest messages named below this one, the highest first.
pub(super) fn highest(
    queue: &QueueState,
    before: u64,
    most: usize,
    out: &mut Vec<(Entry, Stands)>,
) {
    out.clear();
    let ready = queue.ready.highest(before, most);
    out.extend(ready.map(|entry| (*entry, Stands::Ready)));
    let delivered = queue.delivered.descending(before).take(most);
    out.extend(delivered.map(|slot| (slot.entry, Stands::Delivered)));
    let aside = queue.aside.descending(before).take(most);
    out.extend(aside.map(|(entry, why)| (*entry, why.stands())));
    let is_first = |one: &(Entry, _), next: &(Entry, _)| one.0.message > next.0.message;
    if !out.is_sorted_by(is_first) {
        out.sort_unstable_by_key(|(entry, _)| core::cmp::Reverse(entry.message));
    }
    out.truncate(most);
}

/// Whether there is no more to say of it than what all messages have.
fn is_plain(queue: &QueueState, entry: &Entry) -> bool {
    !entry.is_noted() && !entry.is_shared() && queue.last_value_of(entry.message).is_empty()
}

/// Panics: if it is not in the journal (our own mistake).
fn as_said(entry: &Entry) -> CheckpointEntry {
    let Place::Journal(location) = entry.place() else {
        panic!("checkpoints name records");
    };
    CheckpointEntry::new(
        forebay_journal::MessageId(entry.message),
        location,
        entry.size_bytes,
        entry.attempts(),
        entry.priority(),
    )
}

impl Machine {
    /// Takes what a checkpoint says.
    #[cold]
    pub(super) fn restore(&mut self, record: &Record<'_>, at: Place) {
        self.note_said(at);
        if !self.is_replaying {
            return;
        }
        match *record {
            Record::Checkpoint {
                queue,
                latest_unix_ms,
                entries,
            } => self.restore_entries(queue, latest_unix_ms, entries),
            Record::CheckpointMessage {
                queue,
                ref entry,
                ref fields,
                fragments,
                last_value,
            } => self.restore_message(queue, (entry, fields), fragments, last_value),
            _ => unreachable!("the caller picks the kinds"),
        }
    }

    /// A checkpoint names messages that are ready and plain.
    ///
    /// Panics: if it names one that is known and is not so (our own mistake).
    fn restore_entries(&mut self, id: QueueId, latest_unix_ms: u64, entries: &[CheckpointEntry]) {
        self.times.raise(latest_unix_ms);
        self.await_definition(id);
        let Some((queue, dirty)) = self.queues.open(id) else {
            return;
        };
        self.scratch.clear();
        // A checkpoint comes from the highest name down: nearly all lie before what is known.
        let lowest = queue.lowest().unwrap_or(u64::MAX);
        for said in entries {
            let entry = Entry::restored(said, false);
            if entry.message >= lowest
                && let Some((known, state)) = known(queue, entry.message)
            {
                check_said(&known, &entry);
                assert_eq!(state, Stands::Ready, "{known:?} is said otherwise");
                continue;
            }
            self.next_message = self.next_message.max(entry.message + 1);
            queue.bytes += u64::from(entry.size_bytes);
            self.held.enter(&entry);
            self.bodies.segments.add(entry.segment(), entry.size_bytes);
            self.scratch.push(entry);
        }
        if !self.scratch.is_empty() {
            queue.ready.merge(&mut self.scratch);
            queue.note_ready(&self.scratch);
            queue.touch(dirty);
            self.surplus.note_ready(queue);
            self.idle.end(queue);
        }
    }

    /// A checkpoint names one message, with all that is known of it.
    ///
    /// Panics: see [`Self::restore_entries`].
    fn restore_message(
        &mut self,
        id: QueueId,
        (said, fields): (&CheckpointEntry, &CheckpointFields),
        fragments: &[CheckpointFragment],
        last_value: &[u8],
    ) {
        self.await_definition(id);
        let Some(queue) = self.queues.get(id) else {
            return;
        };
        let mut entry = Entry::restored(said, fields.is_shared);
        if fields.expires_unix_ms != 0 || fields.group != 0 {
            entry = entry.noted();
        }
        let known = known(queue, entry.message);
        if let Some((known, state)) = known {
            check_said(&known, &entry);
            // Without its definition a queue does not know that it is a divert.
            let is_certain = queue.defined.is_some();
            let is_said = !is_certain || state == fields.state;
            assert!(is_said, "{known:?} is said otherwise: {state:?}");
            // Another queue had it that a restart forgot: then all is known of its body.
            if !known.is_shared() {
                return;
            }
        }
        self.bodies
            .restore(&entry, fields, fragments, known.is_none());
        if known.is_none() {
            self.next_message = self.next_message.max(entry.message + 1);
            self.restore_in(id, entry, fields, last_value);
        }
    }

    /// Puts a message that was not known where it is.
    fn restore_in(
        &mut self,
        id: QueueId,
        entry: Entry,
        fields: &CheckpointFields,
        last_value: &[u8],
    ) {
        let annotations = Annotations {
            group: fields.group,
            is_group_end: fields.is_group_end,
            last_value,
            ..Annotations::default()
        };
        let arrival = Arrival::new(entry, fields.expires_unix_ms, (annotations, &[]));
        let standing = Standing {
            stands: fields.state,
            attempts: entry.attempts(),
            is_replaced: fields.is_replaced,
        };
        self.insert_as(&arrival, id, standing);
    }
}

/// What is said of a message is what is known of it. Who else had it may be forgotten.
fn check_said(known: &Entry, said: &Entry) {
    let what = |entry: &Entry| (entry.place(), entry.attempts(), entry.priority());
    assert_eq!(what(known), what(said), "{known:?} is said otherwise");
}

/// What a queue knows of a message.
fn known(queue: &QueueState, message: u64) -> Option<(Entry, Stands)> {
    let entry = queue.entry(message)?;
    Some((*entry, queue.standing(entry).stands))
}
