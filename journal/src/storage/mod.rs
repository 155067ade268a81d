//! The storage port: what a binding to a real or simulated disk has to do.

pub mod memory;
