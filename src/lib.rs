//! Forebay: a highly available message broker for bare metal.
//!
//! Floors, ground first; a floor uses floors below it and none above (`tests/tidy.rs` holds it):
//! `now`, `limits`, `pattern`, `message` (F0) - `protocol`, `queue`, `routing`, `selector` (F1,
//! siblings never meet) - `frontend` (F2) - `shard` (F3) - `runtime`, `housekeeping` (F4) -
//! `node` (F5).
//! Below F4 there are no sockets, files, clocks, threads or locks.

pub mod frontend;
#[cfg(feature = "runtime")]
pub mod housekeeping;
pub mod limits;
#[cfg(feature = "runtime")]
pub mod node;
pub mod now;
pub mod pattern;
pub mod protocol;
pub mod queue;
pub mod routing;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod selector;
pub mod shard;
