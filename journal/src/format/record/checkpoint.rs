//! Records of a checkpoint: what is alive in segments that a replay is not to read, said again
//! where it does (`docs/format.md` 6, records 18 and 19, and 9).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::decode::{Reader, zero};
use super::encode::Cursor;
use super::{FormatError, PRIORITY_MAX, QueueId, Record, Stands};
use crate::format::layout::{StructLayout, layout};
use crate::format::{BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, SECTOR_SIZE};
use crate::{Location, MessageId, SegmentId};

/// Deliveries are counted up to here.
const ATTEMPTS_MAX: u16 = (1 << 11) - 1;
/// Where the priority begins in `attempts`.
const PRIORITY_SHIFT: u32 = 12;

/// Bits of `checkpoint_flags`.
const IS_GROUP_END: u16 = 1;
const IS_SHARED: u16 = 2;
const IS_REPLACED: u16 = 4;

/// One message in one queue, as it lies in a record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CheckpointEntry {
    message: U64,
    segment: U32,
    sector: U32,
    size: U32,
    word: U16,
    attempts: U16,
}

/// A part of a body, as it lies in a record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CheckpointFragment {
    segment: U32,
    sector: U32,
    size: U32,
    word: U16,
    reserved: U16,
}

pub(in crate::format) const ENTRY: StructLayout = layout!(
    "Checkpoint entry",
    CheckpointEntry {
        message,
        segment,
        sector,
        size,
        word,
        attempts
    }
);
pub(in crate::format) const FRAGMENT: StructLayout = layout!(
    "Checkpoint fragment",
    CheckpointFragment {
        segment,
        sector,
        size,
        word,
        reserved
    }
);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entries {
    queue: U64,
    latest_unix_ms: U64,
    entry_count: U32,
    reserved: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct One {
    queue: U64,
    entry: CheckpointEntry,
    ready_unix_ms: U64,
    expires_unix_ms: U64,
    group: U64,
    upload: U64,
    own_size: U32,
    fragments_before: U32,
    fragments_total: U32,
    fragment_count: U32,
    last_value_size: U16,
    checkpoint_flags: U16,
    state: u8,
    reason: u8,
    reserved: U16,
}

pub(in crate::format) const CHECKPOINT: StructLayout = layout!(
    "Record 18: checkpoint",
    Entries {
        queue,
        latest_unix_ms,
        entry_count,
        reserved
    }
);
pub(in crate::format) const CHECKPOINT_MESSAGE: StructLayout = layout!(
    "Record 19: checkpoint message",
    One {
        queue,
        entry,
        ready_unix_ms,
        expires_unix_ms,
        group,
        upload,
        own_size,
        fragments_before,
        fragments_total,
        fragment_count,
        last_value_size,
        checkpoint_flags,
        state,
        reason,
        reserved
    }
);

impl CheckpointEntry {
    /// A message whose record lies at `location`.
    ///
    /// Units: `size_bytes` of head and whole body, saturated.
    /// Shape: `attempts` above 2047 count as that.
    /// Panics: if the priority is above 9 (our own mistake).
    pub fn new(
        message: MessageId,
        location: Location,
        size_bytes: u32,
        attempts: u16,
        priority: u8,
    ) -> Self {
        assert!(priority <= PRIORITY_MAX, "priority {priority}");
        let (segment, sector, word) = numbers_of(location);
        let attempts = attempts.min(ATTEMPTS_MAX) | u16::from(priority) << PRIORITY_SHIFT;
        Self {
            message: U64::new(message.0),
            segment,
            sector,
            size: U32::new(size_bytes),
            word,
            attempts: U16::new(attempts),
        }
    }

    /// Its name.
    pub const fn message(&self) -> MessageId {
        MessageId(self.message.get())
    }

    /// Where its record lies.
    pub fn location(&self) -> Location {
        location_of(self.segment, self.sector, self.word)
    }

    /// Bytes of head and whole body; saturates.
    pub const fn size_bytes(&self) -> u32 {
        self.size.get()
    }

    /// How often it was delivered; saturates at 2047.
    pub const fn attempts(&self) -> u16 {
        self.attempts.get() & ATTEMPTS_MAX
    }

    /// 0 to 9.
    pub const fn priority(&self) -> u8 {
        (self.attempts.get() >> PRIORITY_SHIFT) as u8
    }

    fn check(&self) -> Result<(), FormatError> {
        check_place(self.segment, self.sector, self.word)?;
        let bits = self.attempts.get();
        zero("attempts", (bits & (ATTEMPTS_MAX + 1)).into())?;
        super::decode::priority(self.priority()).map(|_| ())
    }
}

impl CheckpointFragment {
    /// A part of a body whose record lies at `location`.
    pub fn new(location: Location, size_bytes: u32) -> Self {
        let (segment, sector, word) = numbers_of(location);
        Self {
            segment,
            sector,
            size: U32::new(size_bytes),
            word,
            reserved: U16::new(0),
        }
    }

    /// Where its record lies.
    pub fn location(&self) -> Location {
        location_of(self.segment, self.sector, self.word)
    }

    /// Bytes of the body in it.
    pub const fn size_bytes(&self) -> u32 {
        self.size.get()
    }
}

fn numbers_of(location: Location) -> (U32, U32, U16) {
    let segment = location.segment().get() as u32;
    let sector = (location.block_offset() / SECTOR_SIZE as u64) as u32;
    let word = (location.record_offset() / 8) as u16;
    (U32::new(segment), U32::new(sector), U16::new(word))
}

fn location_of(segment: U32, sector: U32, word: U16) -> Location {
    let block_offset = u64::from(sector.get()) * SECTOR_SIZE as u64;
    let segment = SegmentId::from_raw(segment.get().into());
    Location::new(segment, block_offset, u32::from(word.get()) * 8)
}

/// A record lies in a segment, behind its head, and in a block, behind its header.
fn check_place(segment: U32, sector: U32, word: U16) -> Result<(), FormatError> {
    let offset = usize::from(word.get()) * 8;
    let is_in_block = (BLOCK_HEADER_SIZE..BLOCK_SIZE_MAX).contains(&offset);
    if segment.get() != 0 && sector.get() != 0 && is_in_block {
        return Ok(());
    }
    let (name, value) = match (segment.get(), sector.get()) {
        (0, _) => ("segment", 0),
        (_, 0) => ("sector", 0),
        _ => ("word", word.get().into()),
    };
    Err(FormatError::Field { name, value })
}

/// All that is known of one message in one queue beside its [`CheckpointEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointFields {
    /// Where in the queue it is.
    pub state: Stands,
    /// Wall-clock milliseconds from which on it is expired; zero for never.
    pub expires_unix_ms: u64,
    /// Number of its group; zero for none.
    pub group: u64,
    /// Whether its group ends with it.
    pub is_group_end: bool,
    /// Whether it is, or was, in several queues, or has fragments.
    pub is_shared: bool,
    /// Whether a later message with its last-value key took its place.
    pub is_replaced: bool,
    /// Upload that its fragments belong to; zero for none.
    pub upload: u64,
    /// Bytes of head and body in its own record; saturates.
    pub own_size_bytes: u32,
    /// Fragments of its body named in records before this one.
    pub fragments_before: u32,
    /// All fragments of its body.
    pub fragments_total: u32,
}

pub(super) fn body_size(record: &Record<'_>) -> usize {
    match record {
        Record::Checkpoint { entries, .. } => size_of::<Entries>() + size_of_val(*entries),
        Record::CheckpointMessage {
            fragments,
            last_value,
            ..
        } => size_of::<One>() + size_of_val(*fragments) + last_value.len(),
        _ => unreachable!("the caller picks the kinds"),
    }
}

pub(super) fn encode(record: &Record<'_>, out: &mut Cursor<'_>) {
    match *record {
        Record::Checkpoint {
            queue,
            latest_unix_ms,
            entries,
        } => {
            out.fixed(&Entries {
                queue: U64::new(queue.0),
                latest_unix_ms: U64::new(latest_unix_ms),
                entry_count: U32::new(entries.len() as u32),
                reserved: U32::new(0),
            });
            out.bytes(entries.as_bytes());
        }
        Record::CheckpointMessage {
            queue,
            entry,
            ref fields,
            fragments,
            last_value,
        } => {
            out.fixed(&one(queue, entry, fields, fragments.len(), last_value));
            out.bytes(fragments.as_bytes());
            out.bytes(last_value);
        }
        _ => unreachable!("the caller picks the kinds"),
    }
}

fn one(
    queue: QueueId,
    entry: CheckpointEntry,
    fields: &CheckpointFields,
    fragment_count: usize,
    last_value: &[u8],
) -> One {
    let (state, reason, ready_unix_ms) = fields.state.numbers();
    let bits = [
        (fields.is_group_end, IS_GROUP_END),
        (fields.is_shared, IS_SHARED),
        (fields.is_replaced, IS_REPLACED),
    ];
    let bits = bits.into_iter().filter(|(is_set, _)| *is_set);
    One {
        queue: U64::new(queue.0),
        entry,
        ready_unix_ms: U64::new(ready_unix_ms),
        expires_unix_ms: U64::new(fields.expires_unix_ms),
        group: U64::new(fields.group),
        upload: U64::new(fields.upload),
        own_size: U32::new(fields.own_size_bytes),
        fragments_before: U32::new(fields.fragments_before),
        fragments_total: U32::new(fields.fragments_total),
        fragment_count: U32::new(fragment_count as u32),
        last_value_size: super::encode::size_u16(last_value),
        checkpoint_flags: U16::new(bits.fold(0, |all, (_, bit)| all | bit)),
        state,
        reason,
        reserved: U16::new(0),
    }
}

pub(super) fn entries<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &Entries = reader.fixed()?;
    zero("reserved", fixed.reserved.get().into())?;
    let entries: &[CheckpointEntry] = reader.list(fixed.entry_count.get())?;
    entries.iter().try_for_each(CheckpointEntry::check)?;
    Ok(Record::Checkpoint {
        queue: QueueId(fixed.queue.get()),
        latest_unix_ms: fixed.latest_unix_ms.get(),
        entries,
    })
}

pub(super) fn message<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &One = reader.fixed()?;
    zero("reserved", fixed.reserved.get().into())?;
    let bits = fixed.checkpoint_flags.get();
    let known = IS_GROUP_END | IS_SHARED | IS_REPLACED;
    zero("checkpoint_flags", (bits & !known).into())?;
    fixed.entry.check()?;
    let fragments: &[CheckpointFragment] = reader.list(fixed.fragment_count.get())?;
    for fragment in fragments {
        check_place(fragment.segment, fragment.sector, fragment.word)?;
        zero("reserved", fragment.reserved.get().into())?;
    }
    let last_value = reader.bytes(fixed.last_value_size.get().into())?;
    let (before, total) = (fixed.fragments_before.get(), fixed.fragments_total.get());
    let named = u64::from(before) + fragments.len() as u64;
    if named > total.into() {
        return Err(FormatError::Field {
            name: "fragments_total",
            value: total.into(),
        });
    }
    Ok(Record::CheckpointMessage {
        queue: QueueId(fixed.queue.get()),
        entry: fixed.entry,
        fields: CheckpointFields {
            state: Stands::decode(fixed.state, fixed.reason, fixed.ready_unix_ms.get())?,
            expires_unix_ms: fixed.expires_unix_ms.get(),
            group: fixed.group.get(),
            is_group_end: bits & IS_GROUP_END != 0,
            is_shared: bits & IS_SHARED != 0,
            is_replaced: bits & IS_REPLACED != 0,
            upload: fixed.upload.get(),
            own_size_bytes: fixed.own_size.get(),
            fragments_before: before,
            fragments_total: total,
        },
        fragments,
        last_value,
    })
}
