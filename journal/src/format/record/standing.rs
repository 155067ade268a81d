//! Where a moved message stands in a queue (`docs/format.md` 6, record 17).

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::decode::departure;
use super::{Departure, FormatError};
use crate::format::layout::{StructLayout, layout};

/// Where a message is within a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It waits for whoever takes it.
    Ready,
    /// It was delivered and is not settled.
    Delivered,
    /// It is not delivered before this time, in wall-clock milliseconds.
    Delayed {
        /// Not zero.
        ready_unix_ms: u64,
    },
    /// It is on its way to another address.
    Leaving(Departure),
}

impl Stands {
    /// As records say it: state, reason, time.
    pub(super) const fn numbers(self) -> (u8, u8, u64) {
        match self {
            Self::Ready => (1, 0, 0),
            Self::Delivered => (2, 0, 0),
            Self::Delayed { ready_unix_ms } => (3, 0, ready_unix_ms),
            Self::Leaving(reason) => (4, reason as u8, 0),
        }
    }

    /// Errors: a number that none may be, or that the state does not have.
    pub(super) fn decode(state: u8, reason: u8, ready_unix_ms: u64) -> Result<Self, FormatError> {
        match (state, reason, ready_unix_ms) {
            (1, 0, 0) => Ok(Self::Ready),
            (2, 0, 0) => Ok(Self::Delivered),
            (3, 0, 1..) => Ok(Self::Delayed { ready_unix_ms }),
            (4, reason, 0) => departure(reason).map(Self::Leaving),
            (state, ..) => Err(FormatError::Field {
                name: "state",
                value: state.into(),
            }),
        }
    }
}

/// All that a queue knows of a message and that its record does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it is.
    pub stands: Stands,
    /// How often it was delivered.
    pub attempts: u16,
    /// Whether a later message took its place as the last one with its last-value key.
    pub is_replaced: bool,
}

/// A [`Standing`] as it lies in a record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct StandingBytes {
    ready_unix_ms: U64,
    attempts: U16,
    state: u8,
    reason: u8,
    standing_flags: U16,
    reserved: U16,
}

pub(in crate::format) const LAYOUT: StructLayout = layout!(
    "Standing of a moved message",
    StandingBytes {
        ready_unix_ms,
        attempts,
        state,
        reason,
        standing_flags,
        reserved,
    }
);

/// Bit of `standing_flags`.
const IS_REPLACED: u16 = 1;

impl From<Standing> for StandingBytes {
    fn from(standing: Standing) -> Self {
        let (state, reason, ready_unix_ms) = standing.stands.numbers();
        Self {
            ready_unix_ms: U64::new(ready_unix_ms),
            attempts: U16::new(standing.attempts),
            state,
            reason,
            standing_flags: U16::new(if standing.is_replaced { IS_REPLACED } else { 0 }),
            reserved: U16::new(0),
        }
    }
}

impl StandingBytes {
    /// Errors: a field holds what none may hold, or what its state does not have.
    fn standing(&self) -> Result<Standing, FormatError> {
        let wrong = |name, value| Err(FormatError::Field { name, value });
        let (flags, time) = (self.standing_flags.get(), self.ready_unix_ms.get());
        if flags & !IS_REPLACED != 0 || self.reserved.get() != 0 {
            return wrong("standing_flags", flags.into());
        }
        Ok(Standing {
            stands: Stands::decode(self.state, self.reason, time)?,
            attempts: self.attempts.get(),
            is_replaced: flags & IS_REPLACED != 0,
        })
    }
}

/// Standings as they lie in a record: each is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standings<'a>(&'a [StandingBytes]);

impl<'a> Standings<'a> {
    /// Of values made from [`Standing`]s: nobody else makes any.
    pub const fn new(standings: &'a [StandingBytes]) -> Self {
        Self(standings)
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let truncated = FormatError::Truncated {
            needed: bytes.len().next_multiple_of(size_of::<StandingBytes>()),
            found: bytes.len(),
        };
        let standings = <[StandingBytes]>::ref_from_bytes(bytes).map_err(|_| truncated)?;
        for one in standings {
            one.standing()?;
        }
        Ok(Self(standings))
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the queues.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Standing> + use<'a> {
        let sound = |one: &StandingBytes| one.standing().expect("made sound or checked");
        self.0.iter().map(sound)
    }

    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.0.as_bytes()
    }
}
