//! Everything slow about files, beside the hot path: the only place that names glommio.
//!
//! One executor thread serves all shards of a node: it scans journals at start, keeps zero-filled
//! segments ready ahead of each writer, and recycles freed ones. Shards and executor talk by
//! bounded crossbeam queues; the shard's bell and the executor's waker end the waits.
//! The synchronous part ([`folder`]) knows the names of files in a data folder and locks it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files, time and the
    executor's waker live here"
)]

mod board;
mod direct_io;
mod executor;
pub mod folder;
pub mod identifiers;
mod inbox;
pub mod lock;
mod pace;
mod prepare;
pub mod quarantine;
mod read_ahead;
mod scan;
mod scrub;

pub use board::{Board, BoardSeen, Damage};
pub use direct_io::{NoDirectIo, check as check_direct_io};
pub use executor::{HeldFile, Housekeeper, HousekeeperError, ShardFiles, ShardPort, open_segment};
pub use inbox::{Request, Response};
pub use pace::Pace;
pub use scan::{ScanError, Scanned, scan};
