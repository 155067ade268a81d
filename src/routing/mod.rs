//! Addresses: what one may look like, and which shard has it.
//!
//! Pure functions of the name. Which queues stand behind an address is a consequence of facts
//! and therefore lies in the queue machine (`queue::Machine::resolve`); floors do not mix here.
#![forbid(unsafe_code)]

mod address;
mod placement;

pub use address::{ADDRESS_SIZE_MAX, Address, AddressError, Name, split_queue};
pub use placement::shard_of;
