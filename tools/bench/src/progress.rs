//! What a person sees while a run goes on.

use crate::measure::Measured;
use std::io::Write as _;

/// The line on standard error once a second.
pub(crate) struct Progress {
    is_quiet: bool,
    /// Start of the warm-up.
    pub(crate) start_ns: u64,
    shown_ns: u64,
    confirmed: u64,
    received: u64,
}

impl Progress {
    /// Begins at `now`.
    pub(crate) fn new(is_quiet: bool, now: u64) -> Self {
        Self {
            is_quiet,
            start_ns: now,
            shown_ns: now,
            confirmed: 0,
            received: 0,
        }
    }

    /// Prints if a second has passed since the last line.
    pub(crate) fn show(&mut self, now: u64, measured: &Measured, in_flight: u64) {
        let since_ns = now - self.shown_ns;
        if self.is_quiet || since_ns < 1_000_000_000 {
            return;
        }
        let per_s = |count: u64| count as f64 * 1e9 / since_ns as f64;
        let phase = if now < measured.start_ns {
            "warm-up"
        } else if now < measured.end_ns {
            "measuring"
        } else {
            "draining"
        };
        // A closed standard error must not end a measurement.
        let _ = writeln!(
            std::io::stderr(),
            "{:6.1} s  {phase:9}  confirmed {:9.0}/s  received {:9.0}/s  in flight {in_flight}",
            now.saturating_sub(self.start_ns) as f64 / 1e9,
            per_s(measured.confirmed_total - self.confirmed),
            per_s(measured.received_total - self.received),
        );
        self.shown_ns = now;
        self.confirmed = measured.confirmed_total;
        self.received = measured.received_total;
    }
}
