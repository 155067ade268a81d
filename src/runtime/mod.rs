//! Where the shard meets the machine: one thread and one ring per shard.

pub mod admin;
pub mod bell;
pub mod clock;
pub mod driver;
pub mod listener;
pub mod mailboxes;
pub mod placement;
pub mod reactor;
mod socket;
