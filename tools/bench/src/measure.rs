//! Figures of one run: two histograms, counts inside the measured window, and who was late.
//!
//! A latency belongs to the window in which its message was *due*, whenever the answer comes, so a
//! stall at the end is not cut off; throughput counts the answers that *arrived* in the window.

use hdrhistogram::Histogram;

/// Lateness of the generator above which a message is counted as late.
pub(crate) const LATE_NS: u64 = 1_000_000;

/// What is measured, in nanoseconds of the monotonic clock.
#[derive(Debug)]
pub(crate) struct Measured {
    /// First due time that counts.
    pub(crate) start_ns: u64,
    /// First due time that counts no more; `u64::MAX` while a run by count goes on.
    pub(crate) end_ns: u64,
    /// Due time to RECEIPT.
    pub(crate) confirm: Histogram<u64>,
    /// Due time to MESSAGE.
    pub(crate) deliver: Histogram<u64>,
    /// Receipts that arrived in the window.
    pub(crate) confirmed: u64,
    /// Deliveries that arrived in the window.
    pub(crate) received: u64,
    /// Receipts since the start, warm-up included.
    pub(crate) confirmed_total: u64,
    /// Deliveries since the start, warm-up included.
    pub(crate) received_total: u64,
    /// Last receipt or, when draining, the last delivery or ack receipt.
    pub(crate) last_answer_ns: u64,
    /// Messages that left more than `LATE_NS` late although the socket took them.
    pub(crate) late_generator: u64,
    /// Worst lateness of those, nanoseconds.
    pub(crate) late_generator_max_ns: u64,
    /// Messages that left late because the broker's socket was full.
    pub(crate) late_blocked: u64,
}

impl Measured {
    /// Opens an empty book over `start_ns..end_ns`.
    pub(crate) fn new(start_ns: u64, end_ns: u64) -> Self {
        Self {
            start_ns,
            end_ns,
            confirm: latency_histogram(),
            deliver: latency_histogram(),
            confirmed: 0,
            received: 0,
            confirmed_total: 0,
            received_total: 0,
            last_answer_ns: start_ns,
            late_generator: 0,
            late_generator_max_ns: 0,
            late_blocked: 0,
        }
    }

    /// Enters a receipt.
    pub(crate) fn confirm(&mut self, due_ns: u64, now_ns: u64) {
        self.confirmed_total += 1;
        self.last_answer_ns = now_ns;
        self.confirmed += u64::from(self.is_within(now_ns));
        if self.is_within(due_ns) {
            self.confirm
                .saturating_record(now_ns.saturating_sub(due_ns));
        }
    }

    /// Enters a delivery; `due_ns` is `None` when another run sent the message.
    pub(crate) fn deliver(&mut self, due_ns: Option<u64>, now_ns: u64) {
        self.received_total += 1;
        self.last_answer_ns = now_ns;
        self.received += u64::from(self.is_within(now_ns));
        if let Some(due_ns) = due_ns.filter(|due_ns| self.is_within(*due_ns)) {
            self.deliver
                .saturating_record(now_ns.saturating_sub(due_ns));
        }
    }

    /// Enters a message that was due at `due_ns` and left at `now_ns`.
    pub(crate) fn leave(&mut self, due_ns: u64, now_ns: u64, was_blocked: bool) {
        let late_ns = now_ns.saturating_sub(due_ns);
        if late_ns <= LATE_NS || !self.is_within(due_ns) {
            return;
        }
        if was_blocked {
            self.late_blocked += 1;
        } else {
            self.late_generator += 1;
            self.late_generator_max_ns = self.late_generator_max_ns.max(late_ns);
        }
    }

    /// Length of the window in seconds; a run by count ends with its last answer.
    pub(crate) fn window_s(&self) -> f64 {
        let end_ns = if self.end_ns == u64::MAX {
            self.last_answer_ns
        } else {
            self.end_ns
        };
        end_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    fn is_within(&self, time_ns: u64) -> bool {
        self.start_ns <= time_ns && time_ns < self.end_ns
    }
}

/// A histogram of nanoseconds up to an hour with three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("fixed bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_to_a_message_due_in_the_window_is_a_latency_but_no_throughput() {
        let mut measured = Measured::new(100, 200);
        measured.confirm(99, 150);
        measured.confirm(199, 5_000);
        measured.confirm(200, 201);
        assert_eq!((measured.confirmed, measured.confirmed_total), (1, 3));
        assert_eq!(measured.confirm.len(), 1);
        assert!(
            (4_800..4_810).contains(&measured.confirm.max()),
            "{}",
            measured.confirm.max()
        );
    }

    #[test]
    fn lateness_names_its_cause() {
        let mut measured = Measured::new(0, u64::MAX);
        measured.leave(10, 10 + LATE_NS, false);
        measured.leave(10, 11 + LATE_NS, false);
        measured.leave(10, 90 + LATE_NS, true);
        assert_eq!((measured.late_generator, measured.late_blocked), (1, 1));
        assert_eq!(measured.late_generator_max_ns, LATE_NS + 1);
    }
}
