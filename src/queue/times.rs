//! When messages came, roughly: from which name on a reader has to look for the first message of
//! a time. The exact times are in the records.

use crate::limits::SHARD_TIME_MARKS_MAX;

/// How far apart marks are at first.
const GAP_MIN_MS: u64 = 1000;

/// Marks along the names of a shard's messages.
///
/// The wall clock may be set back, so a mark says of all messages named lower when the latest of
/// them came.
#[derive(Debug)]
pub(super) struct Times {
    /// A name, and when the latest of the messages named lower came. Both rise.
    marks: Vec<(u64, u64)>,
    /// When the latest of all came.
    latest_unix_ms: u64,
    /// Marks are at least this far apart; it doubles when there are too many of them.
    gap_ms: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            // All at once, so that a message never waits for more memory.
            marks: Vec::with_capacity(SHARD_TIME_MARKS_MAX as usize),
            latest_unix_ms: 0,
            gap_ms: GAP_MIN_MS,
        }
    }
}

impl Times {
    /// A message of this name came. They come in the order of their names.
    pub(super) fn note(&mut self, message: u64, unix_ms: u64) {
        if unix_ms <= self.latest_unix_ms {
            return;
        }
        let last_unix_ms = self.marks.last().map_or(0, |(_, unix_ms)| *unix_ms);
        if self.latest_unix_ms >= last_unix_ms.saturating_add(self.gap_ms) {
            self.mark(message);
        }
        self.latest_unix_ms = unix_ms;
    }

    /// The latest of all messages so far came then, if that is later than what is known: of those
    /// before there is nothing to tell.
    pub(super) fn raise(&mut self, latest_unix_ms: u64) {
        if latest_unix_ms > self.latest_unix_ms {
            self.latest_unix_ms = latest_unix_ms;
            self.marks.clear();
        }
    }

    pub(super) const fn latest_unix_ms(&self) -> u64 {
        self.latest_unix_ms
    }

    /// A message of this name came at this time, before some that are known already.
    ///
    /// Cost: O(marks behind it).
    #[cold]
    pub(super) fn note_late(&mut self, message: u64, unix_ms: u64) {
        self.latest_unix_ms = self.latest_unix_ms.max(unix_ms);
        let behind = self.marks.partition_point(|(name, _)| *name <= message);
        for (_, latest) in &mut self.marks[behind..] {
            *latest = unix_ms.max(*latest);
        }
    }

    #[cold]
    fn mark(&mut self, message: u64) {
        if self.marks.len() == SHARD_TIME_MARKS_MAX as usize {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.gap_ms = self.gap_ms.saturating_mul(2);
        }
        self.marks.push((message, self.latest_unix_ms));
    }

    /// A name below which no message came at this time or later.
    pub(super) fn before(&self, unix_ms: u64) -> u64 {
        let earlier = self.marks.partition_point(|(_, latest)| *latest < unix_ms);
        let mark = earlier.checked_sub(1).and_then(|at| self.marks.get(at));
        mark.map_or(0, |(message, _)| *message)
    }
}

#[cfg(test)]
mod tests {
    use super::{GAP_MIN_MS, SHARD_TIME_MARKS_MAX, Times};
    use proptest::prelude::*;

    proptest! {
        /// Nothing that is looked for is passed over, however the clock is set, and where it is
        /// not, there is little to look through.
        #[test]
        fn what_came_later_is_not_passed_over(
            steps in proptest::collection::vec((1..9_u64, -3000..4000_i64), 1..400),
            is_steady: bool,
            asked in 0..2_000_000_u64,
        ) {
            let mut times = Times::default();
            let (mut name, mut now) = (0, 1_000_000_u64);
            let mut all = Vec::new();
            for (names, ms) in steps {
                name += names;
                let ms = if is_steady { ms.abs() } else { ms };
                now = now.saturating_add_signed(ms);
                times.note(name, now);
                all.push((name, now));
            }
            let start = times.before(asked);
            let first = all.iter().find(|(_, at)| *at >= asked);
            if let Some((first, _)) = first {
                prop_assert!(start <= *first, "{start} is behind {first}");
            }
            if is_steady {
                let passed = all.iter().filter(|(name, at)| *name >= start && *at < asked);
                let earliest = passed.map(|(_, at)| *at).min().unwrap_or(asked);
                prop_assert!(asked - earliest <= asked.saturating_sub(now) + 2 * GAP_MIN_MS + 8000);
            }
        }
    }

    #[test]
    fn there_are_never_more_marks_than_there_may_be() {
        let mut times = Times::default();
        let room = times.marks.capacity();
        let count = 10 * u64::from(SHARD_TIME_MARKS_MAX);
        (1..count).for_each(|n| times.note(n, n * GAP_MIN_MS));
        assert!(times.marks.len() <= SHARD_TIME_MARKS_MAX as usize);
        assert_eq!(times.marks.capacity(), room);
        assert!(
            times
                .marks
                .is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1)
        );
        let (start, asked) = (times.before(5000 * GAP_MIN_MS), 5000);
        assert!((asked - 64..=asked).contains(&start), "{start}");
    }
}
