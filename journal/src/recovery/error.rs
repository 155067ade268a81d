//! Why a journal cannot be opened: what, where, which records, and what to do about it.

use core::fmt;

use super::table::Row;
use crate::format::{FORMAT_VERSION, FORMAT_VERSION_OLDEST, FormatError};
use crate::reader::ReadError;
use crate::{Epoch, Lsn, SegmentId, ShardId};

/// What is wrong. All variants are the world's fault: a disk, an operator, another program.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// A needed segment file is not there.
    SegmentMissing,
    /// The epoch that a later one says it continues has left no block.
    EpochMissing,
    /// A segment file is shorter than its head says.
    Truncated {
        /// Bytes by its head.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The head of a segment that is in use is not sound.
    Head(FormatError),
    /// Written by another version of the format.
    Version {
        /// The version found.
        found: u16,
    },
    /// The disk does not give back what is needed.
    Unreadable(ReadError),
    /// A sound block in its place is not the one that follows the block before it.
    Chain {
        /// The header field that differs.
        field: &'static str,
    },
    /// A block whose checksums hold has illegal content: a mistake of its writer.
    Illegal(FormatError),
    /// A sound block holds an unsound record: a mistake of its writer.
    Record(FormatError),
    /// Sound blocks and records contradict each other.
    Contradiction {
        /// Which rule of `docs/format.md` does not hold.
        rule: &'static str,
    },
    /// The first block of a segment that is in use is damaged, or does not begin as it must.
    FirstBlock,
    /// An older epoch ends before its recorded seal.
    BeforeSeal {
        /// What lies where the next block should be.
        cause: Option<FormatError>,
    },
    /// The table of `docs/format.md` 8 says that acknowledged records are missing.
    Table {
        /// Its row.
        row: &'static Row,
        /// What could not be read where the log ends, if that was why.
        unread: Option<Unread>,
    },
    /// Positions near 2^62: refused before they could wrap.
    Exhausted {
        /// Which position.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// A part of a file that the disk does not give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The epoch whose file it is.
    pub epoch: Epoch,
    /// The segment.
    pub segment: SegmentId,
    /// Byte offset in the file: of the sector, or of the block that it lies in.
    pub offset: u64,
    /// What the disk said.
    pub error: ReadError,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            epoch,
            segment,
            offset,
            error,
        } = self;
        write!(
            f,
            "segment {segment} of epoch {epoch}, byte {offset}: {error}"
        )
    }
}

/// A journal that cannot be opened without losing, or possibly losing, acknowledged records.
///
/// Nothing was changed on disk; running again gives the same answer.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryError {
    /// What is wrong.
    pub problem: Problem,
    /// The file, as its owner numbered it; `None` when it is missing.
    pub file: Option<u32>,
    /// The shard.
    pub shard: ShardId,
    /// The epoch whose file it is.
    pub epoch: Epoch,
    /// The segment.
    pub segment: SegmentId,
    /// Byte offset in the file.
    pub offset: u64,
    /// First record that is, or may be, lost. Zero when that cannot be said.
    pub lsn_from: Lsn,
    /// Last record that is lost, as far as known: there may be more behind it.
    pub lsn_upto: Option<Lsn>,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            shard,
            epoch,
            segment,
            offset,
            lsn_from,
            ..
        } = self;
        write!(
            f,
            "journal of shard {shard} {} at segment {segment} of epoch {epoch}, ",
            match self.problem {
                Problem::Version { .. } => "cannot be read",
                _ => "is damaged",
            }
        )?;
        write!(f, "byte {offset}: ")?;
        self.problem.fmt(f)?;
        match self.lsn_upto {
            Some(upto) if upto >= *lsn_from && lsn_from.get() != 0 => {
                write!(f, "; records {lsn_from} to {upto} are lost, perhaps more")?;
            }
            _ if lsn_from.get() != 0 => write!(f, "; records from {lsn_from} on may be lost")?,
            Some(upto) => write!(
                f,
                "; records up to {upto} are lost, from which on is not known"
            )?,
            _ => {}
        }
        write!(f, ". Nothing was changed. {}", self.problem.remedy())
    }
}

impl core::error::Error for RecoveryError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SegmentMissing => write!(f, "the segment file is missing"),
            Self::EpochMissing => write!(f, "no block of this epoch is there, but it served"),
            Self::Truncated { expected, found } => {
                write!(f, "the file has {found} bytes, its head says {expected}")
            }
            Self::Head(error) => write!(f, "the segment head is damaged ({error})"),
            Self::Version { found } => write!(
                f,
                "it was written in format version {found}; this release reads versions \
                 {FORMAT_VERSION_OLDEST} to {FORMAT_VERSION} and writes {FORMAT_VERSION}"
            ),
            Self::Unreadable(error) => write!(f, "the disk does not give it back ({error})"),
            Self::Chain { field } => {
                write!(
                    f,
                    "the block there does not follow the one before: {field} differs"
                )
            }
            Self::Illegal(error) => write!(f, "a block is whole but illegal ({error})"),
            Self::Record(error) => write!(f, "a record in a sound block is unsound ({error})"),
            Self::Contradiction { rule } => write!(f, "the journal contradicts itself: {rule}"),
            Self::FirstBlock => write!(f, "the first block of the segment is damaged"),
            Self::BeforeSeal { cause: Some(error) } => {
                write!(
                    f,
                    "a block before the seal of its epoch is damaged ({error})"
                )
            }
            Self::BeforeSeal { cause: None } => {
                write!(f, "the blocks end before the seal of their epoch")
            }
            Self::Table { row, unread } => {
                write!(f, "{} (row {})", row.reason, row.number)?;
                match unread {
                    Some(unread) => write!(f, "; not given back by the disk: {unread}"),
                    None => Ok(()),
                }
            }
            Self::Exhausted { field, value } => write!(f, "{field} {value} is near its end"),
        }
    }
}

impl Problem {
    fn remedy(&self) -> &'static str {
        match self {
            Self::SegmentMissing | Self::EpochMissing | Self::Truncated { .. } => {
                "Put the whole file back from the backup node or a copy."
            }
            Self::Version { found } if *found < FORMAT_VERSION => {
                "Start a release between that one and this one first, until nothing so old is left."
            }
            Self::Version { .. } => "Start the release that wrote it, or a later one.",
            Self::Unreadable(_)
            | Self::Table {
                unread: Some(_), ..
            } => "Copy the data folder to a sound disk and restore this file from the backup node.",
            Self::Illegal(_)
            | Self::Record(_)
            | Self::Contradiction { .. }
            | Self::Chain { .. } => {
                "Keep the folder for analysis and report this; start from the backup node."
            }
            Self::Exhausted { .. } => "Move the messages to a new data folder.",
            Self::Head(_) | Self::FirstBlock | Self::BeforeSeal { .. } | Self::Table { .. } => {
                "Restore this file from the backup node or a copy; forebay-inspect shows what is left."
            }
        }
    }
}
