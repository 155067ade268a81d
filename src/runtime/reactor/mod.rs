//! The io_uring reactor: one ring per shard thread carries accept, receive, journal writes, reads
//! and sends. The only `unsafe` of this crate; its outside is safe.
//!
//! The rule that makes it safe: memory the kernel may touch is *moved* into the ring with the
//! operation ([`ring::Ring`] keeps it in a slab) and comes back with the completion. Settings and
//! their measurements: `docs/decisions/2026-11-22-one-ring-per-shard.md`.

#![allow(unsafe_code)]

mod operation;
mod receive;
pub mod ring;
pub mod scheduling;

pub use operation::{Completion, Token};
pub use receive::Received;
pub use ring::{ArenaUse, Ring, RingError, RingSize};
