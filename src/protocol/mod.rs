//! Wire engines: bytes to events and back, sans-IO. Each protocol is one folder.
//!
//! Contract of every engine here:
//! * the caller owns all buffers; events borrow from the caller's input and nothing is kept;
//! * no socket, file, clock, lock, log line or randomness; time comes in as [`crate::now::Now`];
//! * same inputs give the same outputs; every collection is bounded by the engine's limits;
//! * a mistake of the peer is a typed error, never a panic; the mapping of an error to the wire
//!   is in one place per protocol;
//! * engines are siblings and never import each other; none knows queues, journals or shards.

#![forbid(unsafe_code)]

pub mod stomp;
pub mod websocket;
