//! Messages are written anew further on, so that one that stays long does not keep its segment.
//!
//! Which segment is next is chosen by [`choose`]; its file is read through a buffer of its own, and
//! what is still needed is appended as control records, some in each turn and no more than the
//! budget allows. A damaged or unreadable block ends the work on its segment: whoever needs what
//! lies there finds out.

use std::collections::BTreeMap;

use forebay_journal::format::{
    Block, IdList, MessageFields, Parts, Record, SEGMENT_HEAD_SIZE, encoded_size,
};
use forebay_journal::reader::Owner;
use forebay_journal::storage::IoFailure;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Budget, Location, MessageId, RECORDS_SIZE_MAX, SegmentId};

use super::{CONTROL_ROOM, Host};
use crate::limits::READ_BACK_CHUNK_SIZE_BYTES;
use crate::now::Now;
use crate::queue::{Fact, Fragmented, Moving, Place};
use crate::shard::cold::ColdRead;
use crate::shard::relocation::{Need, Situation, Spent, choose};

/// The number by which reads for this come back.
const RELOCATION_CHUNK: u32 = u32::MAX;
/// Bytes written anew in one turn, but for the last record.
const BYTES_PER_TURN_MAX: u64 = 64 * 1024;
/// Records and queues looked at in one turn.
const LOOKS_PER_TURN_MAX: usize = 1024;
/// How long a segment is left alone of which something could not be moved.
const STUCK_US: u64 = 10_000_000;
/// How often the segments are looked at for one that is worth it.
const LOOK_US: u64 = 1_000_000;
/// Segments left alone at once.
const STUCK_MAX: usize = 64;

/// How much is written anew, and from when on.
#[derive(Clone, Copy, Debug)]
pub struct RelocationLimits {
    /// Bytes written anew per hundred that come in, at most; zero for none.
    pub budget_percent: u32,
    /// Segments of bytes that nothing needs before it begins.
    pub dead_segments: u32,
}

/// Where a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Nothing,
    Wanted(SegmentId, u64),
    UnderWay(SegmentId, u64),
    Here(SegmentId, u64),
}

/// The segment that is being written anew, and where in it the work is.
#[derive(Clone, Copy, Debug)]
struct Victim {
    segment: SegmentId,
    /// The block that is looked at.
    block: u64,
    /// The first of its records that was not looked at.
    record: u32,
}

/// A message with fragments that is being copied.
#[derive(Clone, Copy, Debug)]
struct Copying {
    what: Fragmented,
    /// The upload that the copies belong to; zero before the first.
    upload: u64,
    next: usize,
}

/// Work on the segments of which little is needed.
#[derive(Debug)]
pub(super) struct Relocation {
    owner: Owner,
    limits: RelocationLimits,
    pub(super) spent: Spent,
    victim: Option<Victim>,
    copying: Option<Copying>,
    reading: Reading,
    buffer: Option<ReadBuffer>,
    /// Start and end of each sound block in the buffer.
    blocks: Vec<(u32, u32)>,
    moving: Moving,
    /// Segments left alone, and until when.
    stuck: BTreeMap<SegmentId, u64>,
    /// Whether the last look found something.
    has_begun: bool,
    next_look_us: u64,
    looked_from: SegmentId,
    pub(super) has_more: bool,
    left_bytes: u64,
    left_looks: usize,
    /// Size of the record that waits for room, or for more to come in; zero for none.
    waiting_size: usize,
}

/// Why the work stops for now.
enum Pause {
    /// There is more to do in the next turn.
    Turn,
    /// Something else has to happen first: a read, a write, more coming in.
    Wait,
}

impl Relocation {
    pub(super) fn new(owner: Owner, limits: RelocationLimits) -> Self {
        Self {
            owner,
            limits,
            spent: Spent::default(),
            victim: None,
            copying: None,
            reading: Reading::Nothing,
            buffer: None,
            blocks: Vec::new(),
            moving: Moving::new(),
            stuck: BTreeMap::new(),
            has_begun: false,
            next_look_us: 0,
            looked_from: SegmentId::ZERO,
            has_more: false,
            left_bytes: 0,
            left_looks: 0,
            waiting_size: 0,
        }
    }

    /// A message, or a part of one, came in.
    pub(super) fn note_ingested(&mut self, record: &Record<'_>) {
        if let Record::Message { .. } | Record::Fragment { .. } = record {
            self.spent.ingested_bytes += encoded_size(record) as u64;
        }
    }

    fn note_rewritten(&mut self, record: &Record<'_>) {
        let size = encoded_size(record) as u64;
        self.spent.rewritten_bytes += size;
        self.left_bytes = self.left_bytes.saturating_sub(size);
        if let Record::Fragment { .. } = record {
            // It did not come in.
            self.spent.ingested_bytes -= size;
        }
    }

    pub(super) fn poll_read(&mut self) -> Option<ColdRead> {
        let Reading::Wanted(segment, offset) = self.reading else {
            return None;
        };
        self.reading = Reading::UnderWay(segment, offset);
        let buffer = self.buffer.take();
        Some(ColdRead {
            chunk: RELOCATION_CHUNK,
            segment,
            offset,
            buffer: buffer.unwrap_or_else(|| ReadBuffer::new(READ_BACK_CHUNK_SIZE_BYTES as usize)),
        })
    }

    /// Takes the completion of a read that was for this; gives back one that was not.
    pub(super) fn handle_read(
        &mut self,
        chunk: u32,
        buffer: ReadBuffer,
        result: Result<usize, IoFailure>,
    ) -> Option<(ReadBuffer, Result<usize, IoFailure>)> {
        if chunk != RELOCATION_CHUNK {
            return Some((buffer, result));
        }
        let Reading::UnderWay(segment, offset) = self.reading else {
            panic!("a read that nobody began");
        };
        self.blocks.clear();
        let read = &buffer[..result.unwrap_or(0)];
        // What ends the search is looked at by who needs it.
        let blocks = &mut self.blocks;
        let _ = self.owner.sound_blocks(read, segment, offset, blocks);
        self.reading = Reading::Here(segment, offset);
        self.buffer = Some(buffer);
        self.has_more = true;
        None
    }

    /// Bounds of a block in the buffer: none if it is not sound.
    ///
    /// Errors: it is to be read first.
    fn find(&mut self, segment: SegmentId, offset: u64) -> Result<Option<(usize, usize)>, Pause> {
        match self.reading {
            Reading::UnderWay(..) => Err(Pause::Wait),
            Reading::Here(here, start) if here == segment && start <= offset => {
                let at = (offset - start) as u32;
                let found = self.blocks.iter().find(|(start, _)| *start == at);
                match found {
                    Some((start, end)) => Ok(Some((*start as usize, *end as usize))),
                    // The end of the file, or damage.
                    None if at == 0 => Ok(None),
                    None => self.want(segment, offset),
                }
            }
            _ => self.want(segment, offset),
        }
    }

    fn want<T>(&mut self, segment: SegmentId, offset: u64) -> Result<T, Pause> {
        self.reading = Reading::Wanted(segment, offset);
        Err(Pause::Wait)
    }

    fn give_up(&mut self, segment: SegmentId, now: Now) {
        self.victim = None;
        if let Reading::Here(..) = self.reading {
            // There may be more by then.
            self.reading = Reading::Nothing;
        }
        if self.stuck.len() >= STUCK_MAX {
            self.stuck.pop_first();
        }
        self.stuck.insert(segment, now.monotonic_us + STUCK_US);
    }
}

impl Host {
    /// Writes anew what has its turn now.
    pub(super) fn relocate(&mut self, now: Now) {
        self.relocation.has_more = false;
        if self.relocation.limits.budget_percent == 0 || self.failure.is_some() {
            return;
        }
        self.relocation.left_bytes = BYTES_PER_TURN_MAX;
        self.relocation.left_looks = LOOKS_PER_TURN_MAX;
        // Before anything is looked at again.
        if self.may_rewrite(self.relocation.waiting_size).is_err() {
            return;
        }
        loop {
            match self.relocate_step(now) {
                Ok(()) => {}
                Err(Pause::Turn) => {
                    self.relocation.has_more = true;
                    return;
                }
                Err(Pause::Wait) => return,
            }
        }
    }

    fn relocate_step(&mut self, now: Now) -> Result<(), Pause> {
        if let Some(copying) = self.relocation.copying {
            return self.copy_on(copying, now);
        }
        let Some(victim) = self.relocation.victim else {
            return self.choose_victim(now);
        };
        if self.machine.segment_use(victim.segment).references == 0 {
            self.relocation.victim = None;
            return Ok(());
        }
        let found = self.relocation.find(victim.segment, victim.block)?;
        let Some((start, end)) = found else {
            self.relocation.give_up(victim.segment, now);
            return Ok(());
        };
        let buffer = self.relocation.buffer.take().expect("it is here");
        let done = self.relocate_block(victim, &buffer[start..end]);
        self.relocation.buffer = Some(buffer);
        done?;
        if self.relocation.copying.is_none() {
            let victim = self.relocation.victim.as_mut().expect("it was there");
            victim.block += (end - start) as u64;
            victim.record = 0;
        }
        Ok(())
    }

    /// Bytes of a segment.
    pub(super) fn segment_size(&self) -> u64 {
        self.writer.segment_used().map_or(0, |(head, _)| head.size)
    }

    fn needs(&self) -> impl Iterator<Item = Need> + Clone + '_ {
        let current = self.writer.segment_used();
        let current = current.map_or(SegmentId::ZERO, |(head, _)| head.segment);
        let uses = self.machine.segment_uses();
        uses.take_while(move |(segment, _)| *segment < current)
            .map(|(segment, one)| Need {
                segment,
                references: one.references,
                bytes: one.bytes,
            })
    }

    fn choose_victim(&mut self, now: Now) -> Result<(), Pause> {
        let Some((head, _)) = self.writer.segment_used() else {
            return Err(Pause::Wait);
        };
        let is_early = now.monotonic_us < self.relocation.next_look_us;
        if is_early && self.relocation.looked_from == head.segment {
            return Err(Pause::Wait);
        }
        self.relocation.next_look_us = now.monotonic_us + LOOK_US;
        self.relocation.looked_from = head.segment;
        let stuck = &mut self.relocation.stuck;
        stuck.retain(|_, until_us| *until_us > now.monotonic_us);
        let situation = Situation {
            size_bytes: head.size,
            dead_segments: self.relocation.limits.dead_segments,
            can_free_any: true,
            is_short: self.is_waiting_for_segment(),
            has_begun: self.relocation.has_begun,
        };
        let stuck = &self.relocation.stuck;
        let start = self.oldest_segment();
        // Each of these is freed as soon as nothing needs it; a checkpoint moves the start.
        let is_open = |need: &Need| need.segment < start && !stuck.contains_key(&need.segment);
        let chosen = choose(self.needs().filter(is_open), situation);
        let is_short = situation.is_short;
        let chosen = chosen.or_else(|| self.choose_first(situation).filter(|_| is_short));
        self.relocation.has_begun = chosen.is_some();
        let Some(segment) = chosen else {
            return Err(Pause::Wait);
        };
        self.relocation.victim = Some(Victim {
            segment,
            block: SEGMENT_HEAD_SIZE as u64,
            record: 0,
        });
        // What is chosen next is looked for as soon as this one is done.
        self.relocation.next_look_us = 0;
        Ok(())
    }

    /// For who cannot wait for the next checkpoint: what a replay begins with.
    fn choose_first(&self, situation: Situation) -> Option<SegmentId> {
        let situation = Situation {
            can_free_any: false,
            ..situation
        };
        let start = self.oldest_segment();
        let needs = self.needs().filter(|need| need.segment >= start);
        // What is left alone hides others: it has to go first.
        let chosen = choose(needs, situation)?;
        (!self.relocation.stuck.contains_key(&chosen)).then_some(chosen)
    }

    /// Goes on in a block of the segment that is written anew.
    fn relocate_block(&mut self, victim: Victim, bytes: &[u8]) -> Result<(), Pause> {
        let block = Block::decode(bytes).expect("it was sound when it was read");
        for found in block.records() {
            let Ok((_, at, record)) = found else {
                return Ok(());
            };
            if at < victim.record {
                continue;
            }
            let next = at + encoded_size(&record) as u32;
            let location = Location::new(victim.segment, victim.block, at);
            self.look(1)?;
            self.relocate_record(&record, location)?;
            let victim = self.relocation.victim.as_mut().expect("it was there");
            victim.record = next;
            if self.relocation.copying.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn look(&mut self, count: usize) -> Result<(), Pause> {
        let left = &mut self.relocation.left_looks;
        if *left == 0 {
            return Err(Pause::Turn);
        }
        *left = left.saturating_sub(count);
        Ok(())
    }

    fn relocate_record(&mut self, record: &Record<'_>, location: Location) -> Result<(), Pause> {
        match *record {
            Record::Fragment { upload, .. } => {
                if let Some(what) = self.machine.fragmented(upload, location) {
                    self.begin_copying(what);
                }
                Ok(())
            }
            Record::Message { fields, queues, .. } | Record::Moved { fields, queues, .. } => {
                if !self.is_to_move(fields.message, location, queues) {
                    return Ok(());
                }
                if fields.upload != 0 {
                    self.begin_copying(Fragmented {
                        message: fields.message,
                        record: location,
                    });
                    return Ok(());
                }
                self.write_anew(record, 0).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn is_to_move(&mut self, message: MessageId, at: Location, named: IdList<'_>) -> bool {
        let moving = &mut self.relocation.moving;
        let is_needed = self.machine.decide_move(message, at, named, moving);
        let looks = moving.looked_at();
        let left = &mut self.relocation.left_looks;
        // At least this one is looked at.
        *left = left.saturating_sub(looks);
        is_needed
    }

    fn begin_copying(&mut self, what: Fragmented) {
        self.relocation.copying = Some(Copying {
            what,
            upload: 0,
            next: 0,
        });
    }

    /// Whether a record of this size may be written anew now.
    fn may_rewrite(&mut self, size: usize) -> Result<(), Pause> {
        if self.relocation.left_bytes == 0 {
            return Err(Pause::Turn);
        }
        let may = self.has_room_to_rewrite(size);
        self.relocation.waiting_size = if may { 0 } else { size };
        if may { Ok(()) } else { Err(Pause::Wait) }
    }

    fn has_room_to_rewrite(&self, size: usize) -> bool {
        let relocation = &self.relocation;
        let segment_size = self.segment_size();
        let first_bytes = segment_size / 4;
        let mut allowance = relocation
            .spent
            .allowance(relocation.limits.budget_percent, first_bytes);
        let room = size + CONTROL_ROOM;
        let fits = |budget| self.writer.check(room, budget).is_ok();
        let mut has_room = fits(Budget::Message);
        // Little that frees much may use what is kept for control records: it comes back.
        if !has_room && self.is_waiting_for_segment() && self.is_little(segment_size / 4) {
            has_room = fits(Budget::Control);
            allowance = allowance.max(segment_size / 4);
        }
        has_room && allowance >= size as u64
    }

    /// Whether what is needed of the segment that is written anew is no more than this.
    fn is_little(&self, bytes: u64) -> bool {
        let victim = self.relocation.victim.map(|victim| victim.segment);
        let needed = victim.map(|segment| (segment, self.machine.segment_use(segment)));
        needed.is_some_and(|(segment, one)| {
            let need = Need {
                segment,
                references: one.references,
                bytes: one.bytes,
            };
            need.live_bytes() <= bytes
        })
    }

    /// Writes a message anew that [`Self::is_to_move`] found.
    ///
    /// Returns false if no record can hold it.
    fn write_anew(&mut self, record: &Record<'_>, upload: u64) -> Result<bool, Pause> {
        let (Record::Message {
            fields,
            annotations,
            head,
            body,
            ..
        }
        | Record::Moved {
            fields,
            annotations,
            head,
            body,
            ..
        }) = *record
        else {
            unreachable!("the caller picks the kinds");
        };
        let moving = std::mem::take(&mut self.relocation.moving);
        let fields = MessageFields { upload, ..fields };
        let fact = moving.fact(fields, annotations, head, body);
        let done = self.rewrite(&fact);
        self.relocation.moving = moving;
        done
    }

    fn rewrite(&mut self, fact: &Fact<'_>) -> Result<bool, Pause> {
        let size = encoded_size(&fact.record);
        if size + CONTROL_ROOM > RECORDS_SIZE_MAX {
            // In more queues than one record can name: it stays.
            return Ok(false);
        }
        self.may_rewrite(size)?;
        let committed = self.commit(fact, Place::NONE);
        assert!(committed.is_ok(), "room was there: {committed:?}");
        self.relocation.note_rewritten(&fact.record);
        Ok(true)
    }

    /// Goes on with a message that has fragments.
    fn copy_on(&mut self, copying: Copying, now: Now) -> Result<(), Pause> {
        let fragments = self.machine.fragments(copying.what.message);
        let is_there = !fragments.is_empty();
        let fragment = fragments.get(copying.next).map(|part| part.location);
        let location = fragment.unwrap_or(copying.what.record);
        let is_done = if is_there {
            self.copy_record(copying, location, fragment.is_some())?
        } else {
            false
        };
        if let Some(is_last) = is_done.then_some(fragment.is_none()) {
            if is_last {
                self.relocation.copying = None;
            }
            return Ok(());
        }
        // It left its queues, a transaction came between, or a block is not sound.
        if copying.upload != 0 {
            let upload = copying.upload;
            let fact = Fact::from(Record::UploadAbandoned { upload });
            self.may_rewrite(0)?;
            let committed = self.commit(&fact, Place::NONE);
            assert!(committed.is_ok(), "room was there: {committed:?}");
        }
        self.relocation.copying = None;
        if let (true, Some(victim)) = (is_there, self.relocation.victim) {
            self.relocation.give_up(victim.segment, now);
        }
        Ok(())
    }

    /// Copies the record of one part; false if that is not possible.
    fn copy_record(
        &mut self,
        copying: Copying,
        location: Location,
        is_fragment: bool,
    ) -> Result<bool, Pause> {
        let (segment, offset) = (location.segment(), location.block_offset());
        let is_cached = self.writer.block_in_memory(location).is_some();
        if is_cached {
            // It was written lately; what is read of the disk may not have it yet.
            let bytes = self.writer.block_in_memory(location).map(<[u8]>::to_vec);
            return self.copy_from(&bytes.unwrap_or_default(), copying, location, is_fragment);
        }
        let Some((start, end)) = self.relocation.find(segment, offset)? else {
            return Ok(false);
        };
        let buffer = self.relocation.buffer.take().expect("it is here");
        let done = self.copy_from(&buffer[start..end], copying, location, is_fragment);
        self.relocation.buffer = Some(buffer);
        done
    }

    fn copy_from(
        &mut self,
        block: &[u8],
        copying: Copying,
        location: Location,
        is_fragment: bool,
    ) -> Result<bool, Pause> {
        match Record::decode_at(block, location.record_offset()) {
            Ok(Record::Fragment { offset, body, .. }) if is_fragment => {
                self.copy_fragment(copying, offset, body)
            }
            Ok(
                record @ (Record::Message { fields, queues, .. }
                | Record::Moved { fields, queues, .. }),
            ) if !is_fragment && fields.message == copying.what.message => {
                if !self.is_to_move(fields.message, location, queues) {
                    return Ok(false);
                }
                self.write_anew(&record, copying.upload)
            }
            _ => Ok(false),
        }
    }

    fn copy_fragment(
        &mut self,
        copying: Copying,
        offset: u64,
        body: Parts<'_>,
    ) -> Result<bool, Pause> {
        let upload = match copying.upload {
            0 => self.machine.next_upload(),
            upload => upload,
        };
        let fact = Fact::from(Record::Fragment {
            upload,
            offset,
            body,
        });
        if !self.rewrite(&fact)? {
            return Ok(false);
        }
        self.relocation.copying = Some(Copying {
            upload,
            next: copying.next + 1,
            ..copying
        });
        Ok(true)
    }
}
