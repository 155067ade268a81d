//! Where the shard meets the machine: one thread and one ring per shard.

pub mod bell;
pub mod clock;
pub mod reactor;
