//! The queue machine of one shard: every queue, who consumes from it, and what is still needed.
//!
//! `decide_*` (`&self`) answers a command with facts; [`Machine::evolve`] is the only way a fact
//! changes anything, live and in replay alike. A *fact* is a journal record; a fact that needs no
//! disk is the same record value, not journaled. Consumers are no facts: they are attached and
//! detached directly, and a replay has none, so that what was delivered stays *unassigned* until
//! [`Machine::finish_replay`] (or the record of the next epoch) makes it ready again.
//!
//! Invariants ([`Machine::check_invariants`]): a message of a queue is in exactly one of ready,
//! delivered, aside and staged; both lists are sorted by message id; credit is never exceeded;
//! counts of queues, consumers and segments equal a recount.
//!
//! It knows no protocol, disk, clock or gate. A record that names a queue or message it does not
//! know is no error: a replay begins behind it, so that a settlement outlives its message.
#![forbid(unsafe_code)]

mod allowance;
mod arrival;
mod aside;
mod bodies;
mod checkpoint;
mod choice;
mod consumer;
mod decide;
mod decision;
mod delivered;
mod destination;
mod divert;
mod duplicates;
mod entry;
mod evolve;
mod examine;
mod expiring;
mod fate;
mod fullness;
pub mod fuzz;
mod gathering;
mod group;
mod idle;
mod invariants;
mod lane;
mod last_value;
mod late;
mod level;
mod lifetime;
mod machine;
mod moved;
mod operate;
mod plan;
mod policy;
mod quota;
mod ready;
mod retroactive;
mod said;
mod segments;
mod selective;
mod selective_invariants;
mod slow;
mod spot;
mod state;
mod subscription;
mod surplus;
#[cfg(test)]
mod tests;
mod times;
mod transaction;
mod wildcard;

pub use aside::Departing;
pub use bodies::FragmentPlace;
pub use consumer::{Attachment, ConsumerId, Credit, FilterId, Rank, Selection, Settlement};
pub use decision::{Decision, Effect, Fact, Refused, Routed};
pub use destination::DestinationId;
pub use entry::{Place, Queued};
pub use examine::Examine;
pub use fate::Return;
pub use gathering::{Gather, GatheringId};
pub use machine::{BrowsePlace, Damaged, Limits, Machine, QueueCounts, Replayed};
pub use moved::{Fragmented, Moving};
pub use operate::{Described, Purge};
pub use policy::{Full, Policies, Policy, PolicySettings, SlowConsumer};
pub use quota::{GlobalLimits, Held, Measure, QuotaNote, QuotaWord, Quotas};
pub use retroactive::Kept;
pub use segments::SegmentUse;
pub use slow::SlowSeen;
pub use subscription::Topic;
