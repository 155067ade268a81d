//! Positions and names: newtypes with checked arithmetic, so that none is taken for another.
//!
//! [`Lsn`], [`Epoch`], [`SegmentId`] and [`BlockNumber`] are made only inside this crate (read
//! from disk or counted up), so that no other floor can invent a position.

use core::fmt;

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The value before the first: nothing has it.
            pub const ZERO: Self = Self(0);

            pub(crate) const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }

            /// The bare number, for printing and for the wire.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The position `count` further on.
            ///
            /// Panics: past 2^64, which no journal reaches before its device wears out; recovery
            /// refuses a journal that starts near it.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self(self.0.checked_add(count).expect("positions stay below 2^64"))
            }

            /// The position before this one; that before the first is the first.
            #[must_use]
            pub const fn before(self) -> Self {
                Self(self.0.saturating_sub(1))
            }

            /// The next position.
            ///
            /// Panics: see [`Self::plus`].
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

position! {
    /// Log sequence number: the position of a record in the journal of one shard, dense from 1.
    Lsn
}
position! {
    /// Fencing number of an owner of the journal. Each start claims a higher one.
    Epoch
}
position! {
    /// Number of a segment in the journal of one shard, dense from 1, never reused.
    SegmentId
}
position! {
    /// Number of a block in the journal of one shard, dense from 1.
    BlockNumber
}

/// One core's share of a node: the index of a shard, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identity of a journal: 128 random bits drawn when the data folder is made.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalId(pub [u8; 16]);

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalId({self})")
    }
}

/// Name of a message within its shard: rises in order of arrival, never reused, also not across
/// restarts. Durable and non-durable messages draw from the same sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// Name of a queue within its shard: rises, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// Where a record lies on disk.
///
/// Shape: 12 bytes in memory, so that a queued message stays small (`docs/format.md` 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    segment: u32,
    block_sector: u32,
    record_word: u16,
}

impl Location {
    /// Names the record `record_offset` bytes into the block at `block_offset` of `segment`.
    ///
    /// Units: both offsets in bytes; the block's a multiple of 4 KiB, the record's of 8.
    /// Panics: on unaligned offsets or beyond 2^32 segments or sectors (our own mistake: the
    /// values come from blocks this crate built or verified).
    pub fn new(segment: SegmentId, block_offset: u64, record_offset: u32) -> Self {
        assert_eq!(
            block_offset % 4096,
            0,
            "block offset {block_offset} not on a sector"
        );
        assert_eq!(
            record_offset % 8,
            0,
            "record offset {record_offset} not on a word"
        );
        Self {
            segment: u32::try_from(segment.get()).expect("fewer than 2^32 segments"),
            block_sector: u32::try_from(block_offset / 4096).expect("segments stay below 16 TiB"),
            record_word: u16::try_from(record_offset / 8).expect("blocks stay below 512 KiB"),
        }
    }

    /// The segment.
    pub const fn segment(self) -> SegmentId {
        SegmentId::from_raw(self.segment as u64)
    }

    /// Byte offset of the block in its segment file.
    pub const fn block_offset(self) -> u64 {
        self.block_sector as u64 * 4096
    }

    /// Byte offset of the record head within its block.
    pub const fn record_offset(self) -> usize {
        self.record_word as usize * 8
    }
}
