//! Wire engines: bytes to events and back, sans-IO. Each protocol is one folder.

pub mod stomp;
