//! One message in one queue: the 24 bytes that a waiting message costs.

use forebay_journal::format::{BLOCK_SIZE_MAX, CheckpointEntry, PRIORITY_MAX};
use forebay_journal::{Location, MessageId, SegmentId};

use crate::limits::ATTEMPTS_COUNTED_MAX;

/// Where the body of a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the journal.
    Journal(Location),
    /// In the shard's memory, under this slot. Lost with the process.
    Volatile(u32),
}

impl Place {
    /// For facts without a body that are not journaled.
    pub const NONE: Self = Self::Volatile(u32::MAX);
}

/// A message as a queue sees it, for readers outside the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its name.
    pub message: MessageId,
    /// Where its body lies.
    pub place: Place,
    /// Bytes of head and whole body; saturates.
    pub size_bytes: u32,
    /// How often it was delivered; saturates at 2047.
    pub attempts: u16,
    /// 0 to 9.
    pub priority: u8,
    /// Whether the first part of its body lies in fragments ([`super::Machine::fragments`]).
    pub is_fragmented: bool,
}

/// A message in a queue, packed. `segment` 0 (which no journal uses) means a volatile body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) message: u64,
    segment: u32,
    sector_or_slot: u32,
    pub(super) size_bytes: u32,
    word: u16,
    /// Attempts in the lower bits, above them [`IS_NOTED`] and the priority.
    attempts: u16,
}

/// Bits of `attempts` that count.
const ATTEMPTS_BITS: u32 = 11;
/// Where the count of attempts ends.
const ATTEMPTS_MAX: u16 = (1 << ATTEMPTS_BITS) - 1;
/// Bit of `attempts`: tables know more of the message (`expiring.rs`, `group.rs`).
const IS_NOTED: u16 = 1 << ATTEMPTS_BITS;
/// Where the priority begins.
const PRIORITY_SHIFT: u32 = ATTEMPTS_BITS + 1;
const _: () = assert!(ATTEMPTS_MAX == ATTEMPTS_COUNTED_MAX);
const _: () = assert!(PRIORITY_MAX < 1 << (u16::BITS - PRIORITY_SHIFT));

/// Bit of `word`: more is known about the body (`bodies.rs`): fragments, or several queues.
const IS_SHARED: u16 = 1 << 15;

const _: () = assert!(size_of::<Entry>() == 24);
const _: () = assert!(
    BLOCK_SIZE_MAX / 8 <= IS_SHARED as usize,
    "record words leave one bit free"
);

impl Entry {
    /// Panics: if the priority is above 9, or the place no place (our own mistake: front ends and
    /// the format check it).
    pub(super) fn new(
        message: MessageId,
        at: Place,
        size_bytes: u32,
        is_shared: bool,
        priority: u8,
    ) -> Self {
        assert!(priority <= PRIORITY_MAX, "priority {priority}");
        let (segment, sector_or_slot, word) = match at {
            Place::Journal(location) => (
                number_of(location.segment()),
                (location.block_offset() / 4096) as u32,
                (location.record_offset() / 8) as u16,
            ),
            Place::Volatile(slot) => (0, slot, 0),
        };
        assert_eq!(word & IS_SHARED, 0, "record word {word} beyond a block");
        let flag = if is_shared { IS_SHARED } else { 0 };
        Self {
            message: message.0,
            segment,
            sector_or_slot,
            size_bytes,
            word: word | flag,
            attempts: u16::from(priority) << PRIORITY_SHIFT,
        }
    }

    /// As a checkpoint says it is.
    pub(super) fn restored(said: &CheckpointEntry, is_shared: bool) -> Self {
        let at = Place::Journal(said.location());
        let size_bytes = said.size_bytes();
        let mut entry = Self::new(said.message(), at, size_bytes, is_shared, said.priority());
        entry.attempts |= said.attempts();
        entry
    }

    pub(super) const fn delivered_again(mut self) -> Self {
        if self.attempts() < ATTEMPTS_MAX {
            self.attempts += 1;
        }
        self
    }

    /// Delivered so often; saturates.
    pub(super) const fn with_attempts(mut self, attempts: u16) -> Self {
        let attempts = if attempts < ATTEMPTS_MAX {
            attempts
        } else {
            ATTEMPTS_MAX
        };
        self.attempts = (self.attempts & !ATTEMPTS_MAX) | attempts;
        self
    }

    /// Its record lies here from now on.
    ///
    /// Panics: if its body is not in the journal (our own mistake).
    pub(super) fn set_place(&mut self, location: Location) {
        assert!(self.is_durable(), "{} is in no record", self.message);
        let (message, at) = (MessageId(self.message), Place::Journal(location));
        let moved = Self::new(message, at, 0, self.is_shared(), self.priority());
        self.segment = moved.segment;
        self.sector_or_slot = moved.sector_or_slot;
        self.word = moved.word;
    }

    /// How often it was delivered; saturates.
    pub(super) const fn attempts(&self) -> u16 {
        self.attempts & ATTEMPTS_MAX
    }

    /// 0 to 9.
    pub(super) const fn priority(&self) -> u8 {
        (self.attempts >> PRIORITY_SHIFT) as u8
    }

    /// With the word that tables know more of it.
    pub(super) const fn noted(mut self) -> Self {
        self.attempts |= IS_NOTED;
        self
    }

    /// Whether tables know more of it.
    pub(super) const fn is_noted(&self) -> bool {
        self.attempts & IS_NOTED != 0
    }

    /// More is known about its body from now on.
    pub(super) const fn set_shared(&mut self) {
        self.word |= IS_SHARED;
    }

    pub(super) const fn is_shared(&self) -> bool {
        self.word & IS_SHARED != 0
    }

    /// Whether its body is in the journal.
    pub(super) const fn is_durable(&self) -> bool {
        self.segment != 0
    }

    pub(super) fn place(&self) -> Place {
        if self.segment == 0 {
            return Place::Volatile(self.sector_or_slot);
        }
        Place::Journal(Location::new(
            SegmentId::ZERO.plus(self.segment.into()),
            u64::from(self.sector_or_slot) * 4096,
            u32::from(self.word & !IS_SHARED) * 8,
        ))
    }

    pub(super) fn segment(&self) -> SegmentId {
        SegmentId::ZERO.plus(self.segment.into())
    }
}

/// Panics: on segment 0 and beyond 2^32 (our own mistake: `Location` cannot hold more).
fn number_of(segment: SegmentId) -> u32 {
    let number = u32::try_from(segment.get()).expect("locations hold fewer than 2^32 segments");
    assert_ne!(number, 0, "segment 0 is no segment");
    number
}
