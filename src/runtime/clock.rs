//! The only reader of clocks on the hot path: once per turn.

#![allow(clippy::disallowed_methods, reason = "the one reader of clocks")]

use crate::now::Now;

/// Reads `CLOCK_BOOTTIME` (it goes on in suspend) and the wall clock.
pub fn now() -> Now {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Now {
        monotonic_us: monotonic_us(),
        unix_ms: wall.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }),
    }
}

/// Reads `CLOCK_BOOTTIME` in microseconds.
///
/// Panics: if the kernel has no such clock (Linux has since 2.6.39).
pub fn monotonic_us() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .expect("Linux has CLOCK_BOOTTIME");
    time.tv_sec().cast_unsigned() * 1_000_000 + time.tv_nsec().cast_unsigned() / 1_000
}
