//! Time as an argument: no floor below the runtime reads a clock.

/// One reading of the clocks, taken once per turn by the runtime and handed down.
///
/// Units: `monotonic_us` is microseconds of `CLOCK_BOOTTIME` since an arbitrary origin; all
/// timers use it. `unix_ms` is wall-clock milliseconds since 1970 and is used only in message
/// timestamps and expiry, never in a safety decision (`reliability.md` I19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Microseconds of a clock that never goes back.
    pub monotonic_us: u64,
    /// Milliseconds of wall-clock time since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// Makes a reading with the given monotonic time and a wall clock of zero: for tests.
    pub const fn from_monotonic_us(monotonic_us: u64) -> Self {
        Self {
            monotonic_us,
            unix_ms: 0,
        }
    }
}
