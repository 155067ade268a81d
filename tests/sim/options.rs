//! What a seed chooses for a whole run: sizes, faults, habits of clients.

use forebay::shard::{DiskFull, RelocationLimits};
use forebay_journal::storage::memory::Random;

use crate::kinds::Kind;

/// Choices of one run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) shards: u16,
    pub(crate) segment_size: u64,
    pub(crate) segments_ready: usize,
    pub(crate) cache_size: usize,
    pub(crate) window_bytes: u64,
    pub(crate) volatile_max_bytes: u64,
    pub(crate) queues: usize,
    pub(crate) topics: usize,
    pub(crate) producers: usize,
    pub(crate) consumers: usize,
    /// Messages of the whole run.
    pub(crate) messages: u32,
    /// Ends of the node (power cut, kill, failed write, clean stop) before the calm.
    pub(crate) ends: u32,
    /// Virtual microseconds between two of them, about.
    pub(crate) life_us: u64,
    pub(crate) has_failed_writes: bool,
    pub(crate) has_full_disk: bool,
    /// What becomes of messages then.
    pub(crate) disk_full: DiskFull,
    pub(crate) parcel_refused_permille: u16,
    /// Slowest write; a stall of 100 times as long comes one time in 200.
    pub(crate) write_us: u64,
    pub(crate) large_permille: u16,
    pub(crate) persistent_permille: u16,
    /// How often a client breaks off, resets, says goodbye at one of its steps.
    pub(crate) unrest_permille: u16,
    pub(crate) slow_reader_permille: u16,
    pub(crate) relocation: RelocationLimits,
    /// Whether identifiers are written behind the blocks.
    pub(crate) is_strict: bool,
}

impl Options {
    pub(crate) fn draw(random: &mut Random) -> Self {
        fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
            from[random.below(from.len() as u64) as usize]
        }
        let mut options = Self {
            shards: pick(random, &[1, 1, 2, 3]),
            segment_size: pick(random, &[640 << 10, 1 << 20, 1 << 20, 2 << 20]),
            segments_ready: pick(random, &[2, 2, 3]),
            cache_size: pick(random, &[3 << 20, 3 << 20, 4 << 20]),
            window_bytes: pick(random, &[4 << 10, 32 << 10, 256 << 10]),
            volatile_max_bytes: pick(random, &[2 << 10, 16 << 10, 1 << 20]),
            queues: pick(random, &[1, 2, 3]),
            topics: pick(random, &[0, 1]),
            producers: pick(random, &[1, 2, 3]),
            consumers: pick(random, &[1, 2, 3, 4]),
            messages: pick(random, &[100, 300, 800]),
            ends: pick(random, &[0, 1, 2, 3, 4]),
            life_us: pick(random, &[2_000, 10_000, 40_000]),
            has_failed_writes: pick(random, &[false, false, true]),
            has_full_disk: pick(random, &[false, false, false, true]),
            disk_full: DiskFull::Block,
            parcel_refused_permille: pick(random, &[0, 50, 400]),
            write_us: pick(random, &[40, 200, 2_000]),
            large_permille: pick(random, &[0, 20, 150]),
            persistent_permille: pick(random, &[500, 900, 1000]),
            unrest_permille: pick(random, &[0, 5, 20]),
            slow_reader_permille: pick(random, &[0, 200, 500]),
            relocation: RelocationLimits {
                budget_percent: 0,
                dead_segments: 0,
            },
            is_strict: false,
        };
        // Drawn aside, so that each seed stays what it was before there was a strict mode.
        options.is_strict = random.clone().below(3) == 1;
        let mut aside = random.clone();
        options.relocation = RelocationLimits {
            budget_percent: pick(&mut aside, &[0, 25, 200, 400, 400]),
            dead_segments: pick(&mut aside, &[0, 0, 1, 2]),
        };
        options.disk_full = pick(&mut aside, &[DiskFull::Block, DiskFull::Fail]);
        // A start on a full disk has no place for the identifiers: it is refused.
        options.is_strict &= !options.has_full_disk;
        options
    }
}

/// A fault planted in the binding: the checkers have to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// None: the product as it is.
    None,
    /// The disk says that a write is done and loses it, one time in ten.
    LyingDisk,
    /// A write is reported before it is on the disk.
    EarlyCompletion,
    /// A failed write is reported as done.
    SwallowedError,
    /// A parcel between shards is lost, one time in thirty.
    LostParcel,
    /// Recovery forgets what was delivered before.
    ForgottenDeliveries,
    /// Recovery forgets what was settled.
    ForgottenSettlements,
    /// Recovery cuts the last message that was acknowledged.
    ForgottenMessage,
    /// Recovery gets zeros where the disk gives nothing back.
    ZeroForUnreadable,
    /// A segment is used again before nothing in it is needed.
    EarlyReuse,
    /// Bytes of a connection are passed on twice, one time in five hundred.
    RepeatedInput,
    /// A prepared transaction is rolled back though its coordinator decided to commit.
    ForgottenDecision,
    /// A prepared transaction is committed though nobody decided that.
    InventedDecision,
    /// Recovery cuts the last message of a durable subscription.
    ForgottenCopy,
    /// A message may be delivered once more than it should before it is a dead letter.
    ExtraAttempt,
    /// What fails does not wait.
    ForgottenDelay,
    /// Recovery forgets which ids came.
    ForgottenIds,
    /// The wall clock of the broker stands still.
    StoppedClock,
    /// The wall clock of the broker is ahead.
    HastyClock,
    /// All messages have the same priority.
    FlatPriorities,
    /// No message has a group.
    ForgottenGroups,
    /// More fits than is said.
    WideLimit,
    /// A ring is larger than is said.
    WideRing,
    /// No message has a key.
    ForgottenKeys,
    /// UNSUBSCRIBE does not say which subscription it deletes.
    ForgottenDeletion,
    /// Recovery forgets that messages went to another address.
    ForgottenDeparture,
    /// Recovery forgets what a checkpoint says again.
    ForgottenCheckpoint,
    /// Who asks for a pattern of queues gets one of them.
    NarrowPattern,
}

impl Mutant {
    pub(crate) const ALL: [Self; 27] = [
        Self::LyingDisk,
        Self::EarlyCompletion,
        Self::SwallowedError,
        Self::LostParcel,
        Self::ForgottenDeliveries,
        Self::ForgottenSettlements,
        Self::ForgottenMessage,
        Self::ZeroForUnreadable,
        Self::EarlyReuse,
        Self::RepeatedInput,
        Self::ForgottenDecision,
        Self::InventedDecision,
        Self::ForgottenCopy,
        Self::ExtraAttempt,
        Self::ForgottenDelay,
        Self::ForgottenIds,
        Self::StoppedClock,
        Self::HastyClock,
        Self::FlatPriorities,
        Self::ForgottenGroups,
        Self::WideLimit,
        Self::WideRing,
        Self::ForgottenKeys,
        Self::ForgottenDeletion,
        Self::ForgottenDeparture,
        Self::ForgottenCheckpoint,
        Self::NarrowPattern,
    ];

    /// The kind that it is planted in; none for the plain load.
    pub(crate) const fn kind(self) -> Option<Kind> {
        match self {
            Self::ForgottenCopy | Self::ForgottenDeletion => Some(Kind::Durable),
            Self::ExtraAttempt | Self::ForgottenDelay | Self::ForgottenDeparture => {
                Some(Kind::Dead)
            }
            Self::ForgottenIds => Some(Kind::Duplicates),
            Self::StoppedClock => Some(Kind::Expiry),
            Self::HastyClock => Some(Kind::Scheduled),
            Self::FlatPriorities => Some(Kind::Priorities),
            Self::ForgottenGroups => Some(Kind::Groups),
            Self::WideLimit => Some(Kind::Blocking),
            Self::WideRing => Some(Kind::Ring),
            Self::ForgottenKeys => Some(Kind::LastValue),
            Self::NarrowPattern => Some(Kind::Gathered),
            _ => None,
        }
    }
}
