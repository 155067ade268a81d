//! How long things took, in bounded memory: recording allocates nothing.

use hdrhistogram::Histogram;

/// Longest time that is told from longer ones, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Two digits: a time is known to a hundredth of itself, in some 20 KiB.
const DIGITS: u8 = 2;
/// Upper ends, in microseconds, of the classes that [`LatencySeen`] has.
pub const BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// Times measured since the start.
#[derive(Debug)]
pub(super) struct Latency {
    histogram: Histogram<u64>,
    sum_us: u64,
}

/// What was measured, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencySeen {
    /// How many took no longer than each of [`BOUNDS_US`] and longer than the one before.
    pub classes: [u64; BOUNDS_US.len()],
    /// How many in all.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl Latency {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, DIGITS);
        Self {
            histogram: histogram.expect("bounds and digits are within those of the crate"),
            sum_us: 0,
        }
    }

    /// Cost: an index and two sums; no allocation.
    pub(super) fn record(&mut self, took_us: u64) {
        self.histogram.saturating_record(took_us);
        self.sum_us = self.sum_us.saturating_add(took_us);
    }

    pub(super) fn seen(&self) -> LatencySeen {
        let mut seen = LatencySeen {
            count: self.histogram.len(),
            sum_us: self.sum_us,
            ..LatencySeen::default()
        };
        for step in self.histogram.iter_recorded() {
            let took_us = step.value_iterated_to();
            // Values are told to a hundredth: the least that may be meant decides.
            let least_us = self.histogram.lowest_equivalent(took_us);
            if let Some(class) = BOUNDS_US.iter().position(|&bound| least_us <= bound) {
                seen.classes[class] += step.count_at_value();
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_one_class_and_in_the_sum() {
        let mut latency = Latency::new();
        let times = [
            0,
            1,
            50,
            51,
            100,
            999,
            1_000,
            10_000_000,
            59_000_000,
            u64::MAX / 2,
        ];
        times.iter().for_each(|&took_us| latency.record(took_us));
        let seen = latency.seen();
        assert_eq!(seen.count, times.len() as u64);
        assert_eq!(seen.sum_us, times.iter().sum::<u64>());
        assert_eq!(seen.classes[0], 3, "0, 1 and 50");
        assert_eq!(seen.classes[1], 2, "51 and 100");
        let longer = seen.count - seen.classes.iter().sum::<u64>();
        assert_eq!(longer, 2, "longer than all classes");
    }
}
