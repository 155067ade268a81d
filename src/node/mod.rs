//! One node: configuration, command line, exit codes and the life of the process (F5).
//!
//! The only floor that reads configuration files, speaks to a terminal and ends the process.

mod admin;
pub mod cli;
pub mod config;
mod damaged;
pub mod error;
pub mod exit;
pub mod lifecycle;
pub mod operator;
mod recover;
mod report;
mod running;
mod shard_thread;
mod starting;
mod status;
