//! Bounded and fair: whoever cannot go on is held back alone, memory stays within its bounds, and
//! everybody else goes on (issue "the spine", points 10, 12, 13 and 20).
//!
//! Memory is what the kernel counts for the process: the most it ever had (`VmHWM`). The bounds
//! asserted are generous and far below what a leak of the test's load would need.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../broker/mod.rs"]
mod broker;
mod connections;
mod consumers;
mod full_disk;
mod full_disk_refused;
mod load;
mod mailboxes;
mod messages;
mod small_disk;
mod volatile;

use std::time::Duration;

use broker::Setup;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest that anybody else may wait for a receipt while one connection is held back.
const OTHERS_PATIENCE: Duration = Duration::from_secs(3);

const MIB: u64 = 1 << 20;

/// A setup in a fresh folder of this name whose memory is mostly code: a small block cache.
fn small(name: &str) -> Setup {
    let folder = broker::fresh_folder(&format!("limits-{name}"));
    Setup::new(&folder.join("data"))
        .config("[journal]\nsegment_size = \"4MiB\"\n[limits]\nblock_cache_size = \"4MiB\"\n")
}
