//! Who reads the journal back, and where: what of it is wanted next, and how soon.
//!
//! Everybody reads forwards, so what lies just in front of a reader is wanted soon, and what lies
//! behind all of them is not. Who has not read for as long as all of memory takes to change is
//! slow, and keeps nothing here.

use forebay_journal::{QueueId, SegmentId};

use crate::frontend::Subscription;
use crate::limits::{READ_BACK_CHUNKS_MAX, READ_BACK_READERS_MAX};
use crate::shard::ConnectionId;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Reader {
    /// A subscription.
    Subscription(ConnectionId, Subscription),
    /// Who looks through a queue for its selectors.
    Queue(QueueId),
}

/// A place in the journal, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot(u128);

impl Spot {
    pub(super) fn new(segment: SegmentId, offset: u64) -> Self {
        Self(u128::from(segment.get()) << 64 | u128::from(offset))
    }
}

/// How far in front of its reader something lies; nobody wants what is [`Self::NEVER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ahead(u128);

impl Ahead {
    pub(super) const NEVER: Self = Self(u128::MAX);
}

#[derive(Debug)]
struct Place {
    reader: Reader,
    spot: Spot,
    /// How many reads there had been when it was here.
    at_read: u64,
}

/// The places of those that read last.
#[derive(Debug, Default)]
pub(super) struct Readers {
    places: Vec<Place>,
    read_count: u64,
}

impl Readers {
    /// A reader came to this place.
    pub(super) fn note(&mut self, reader: Reader, spot: Spot) {
        let at_read = self.read_count;
        let place = Place {
            reader,
            spot,
            at_read,
        };
        if let Some(known) = self.places.iter_mut().find(|one| one.reader == reader) {
            *known = place;
        } else if self.places.len() < READ_BACK_READERS_MAX as usize {
            self.places.push(place);
        } else if let Some(oldest) = self.places.iter_mut().min_by_key(|one| one.at_read) {
            *oldest = place;
        }
    }

    /// Another read begins.
    pub(super) fn count_read(&mut self) {
        self.read_count += 1;
    }

    /// How far in front of the next reader the bytes from `start` to `end` lie.
    pub(super) fn ahead_of(&self, start: Spot, end: Spot) -> Ahead {
        let is_fast = |one: &&Place| self.read_count - one.at_read <= READ_BACK_CHUNKS_MAX.into();
        let places = self.places.iter().filter(is_fast);
        places
            .filter(|one| one.spot < end)
            .map(|one| Ahead(start.0.saturating_sub(one.spot.0)))
            .min()
            .unwrap_or(Ahead::NEVER)
    }
}
