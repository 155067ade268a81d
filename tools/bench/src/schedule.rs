//! When each message may leave: pure arithmetic over nanoseconds, no clock inside.
//!
//! * Closed loop: a producer sends while fewer than `window` of its messages wait for a receipt.
//! * Open loop: message `i` of all producers together is due at `start + i / rate`; producer `p` of
//!   `n` owns every `i` with `i % n == p`. Nothing is ever skipped: what could not leave in time
//!   leaves late, and its latency still counts from the moment it was due.
//!
//! Knows nothing of sockets, receipts or histograms.

/// The rule by which messages leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At most `window` messages of one producer wait for a receipt.
    Closed {
        /// Messages in flight per producer, at least 1.
        window: u64,
    },
    /// A fixed rate over all producers, whatever the broker answers.
    Open {
        /// Messages per second over all producers, at least 1.
        rate_per_s: u64,
    },
}

/// Where producing stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Messages of all producers together.
    Count(u64),
    /// No message is due at or after this time.
    Until {
        /// Nanoseconds of the monotonic clock.
        end_ns: u64,
    },
}

/// The timetable of all producers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    limit: Limit,
    producers: u64,
    start_ns: u64,
}

impl Schedule {
    /// Makes the timetable of `producers` producers that begin at `start_ns`.
    ///
    /// Panics: without a producer, with a window or a rate of 0 (the command line refuses them).
    pub(crate) fn new(pace: Pace, limit: Limit, producers: u64, start_ns: u64) -> Self {
        assert!(producers > 0, "a schedule needs a producer");
        match pace {
            Pace::Closed { window } => assert!(window > 0, "window 0 never sends"),
            Pace::Open { rate_per_s } => assert!(rate_per_s > 0, "rate 0 never sends"),
        }
        Self {
            pace,
            limit,
            producers,
            start_ns,
        }
    }

    /// Says how many more messages this producer may send now.
    pub(crate) fn allowed(&self, producer: u64, sent: u64, in_flight: u64, now_ns: u64) -> u64 {
        let room = match self.pace {
            Pace::Closed { window } => window.saturating_sub(in_flight),
            Pace::Open { rate_per_s } => self
                .share(producer, self.due_by(rate_per_s, now_ns))
                .saturating_sub(sent),
        };
        room.min(self.left(producer, sent, now_ns))
    }

    /// Gives the time from which the latency of a message counts; closed loop: `now_ns`.
    pub(crate) fn due_ns(&self, producer: u64, sequence: u64, now_ns: u64) -> u64 {
        match self.pace {
            Pace::Closed { .. } => now_ns,
            Pace::Open { rate_per_s } => {
                self.due_at(rate_per_s, sequence * self.producers + producer)
            }
        }
    }

    /// Gives the number of messages of all producers due by now and within the limit; `None` in a
    /// closed loop.
    pub(crate) fn released(&self, now_ns: u64) -> Option<u64> {
        let Pace::Open { rate_per_s } = self.pace else {
            return None;
        };
        let due = self.due_by(rate_per_s, now_ns);
        Some(due.min(match self.limit {
            Limit::Count(count) => count,
            Limit::Until { end_ns } => self.due_by(rate_per_s, end_ns.saturating_sub(1)),
        }))
    }

    /// Gives the time when message `index` of all producers is due; `None` in a closed loop and
    /// beyond the limit.
    pub(crate) fn wake_ns(&self, index: u64) -> Option<u64> {
        let Pace::Open { rate_per_s } = self.pace else {
            return None;
        };
        let due_ns = self.due_at(rate_per_s, index);
        let is_within = match self.limit {
            Limit::Count(count) => index < count,
            Limit::Until { end_ns } => due_ns < end_ns,
        };
        is_within.then_some(due_ns)
    }

    /// Says whether this producer has sent all it ever will.
    pub(crate) fn is_finished(&self, producer: u64, sent: u64, now_ns: u64) -> bool {
        match (self.limit, self.pace) {
            (Limit::Count(_), _) => self.left(producer, sent, now_ns) == 0,
            (Limit::Until { end_ns }, _) if now_ns < end_ns => false,
            (Limit::Until { .. }, _) => self.left(producer, sent, now_ns) == 0,
        }
    }

    /// Messages this producer may still send before the limit.
    fn left(&self, producer: u64, sent: u64, now_ns: u64) -> u64 {
        match (self.limit, self.pace) {
            (Limit::Count(count), _) => self.share(producer, count).saturating_sub(sent),
            (Limit::Until { end_ns }, Pace::Closed { .. }) => {
                if now_ns < end_ns {
                    u64::MAX
                } else {
                    0
                }
            }
            (Limit::Until { end_ns }, Pace::Open { rate_per_s }) => {
                let last_ns = end_ns.saturating_sub(1);
                self.share(producer, self.due_by(rate_per_s, last_ns))
                    .saturating_sub(sent)
            }
        }
    }

    /// How many of the first `count` messages belong to this producer.
    fn share(&self, producer: u64, count: u64) -> u64 {
        (count + self.producers - 1 - producer) / self.producers
    }

    /// Due time of message `index` of all producers.
    fn due_at(&self, rate_per_s: u64, index: u64) -> u64 {
        let after = u128::from(index) * 1_000_000_000 / u128::from(rate_per_s);
        self.start_ns + u64::try_from(after).unwrap_or(u64::MAX / 2)
    }

    /// How many messages of all producers have a due time at or before `now_ns`:
    /// the count of `i` with `floor(i * 1e9 / rate) <= d`, that is `i < (d + 1) * rate / 1e9`.
    fn due_by(&self, rate_per_s: u64, now_ns: u64) -> u64 {
        if now_ns < self.start_ns {
            return 0;
        }
        let after = u128::from(now_ns - self.start_ns) + 1;
        let count = (after * u128::from(rate_per_s)).div_ceil(1_000_000_000);
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn open_loop_counts_what_its_due_times_say(
            rate in 1_u64..5_000_000, producers in 1_u64..200, after_ns in 0_u64..20_000_000
        ) {
            let end = Limit::Until { end_ns: u64::MAX / 4 };
            let schedule = Schedule::new(Pace::Open { rate_per_s: rate }, end, producers, 1_000);
            let now = 1_000 + after_ns;
            let released = schedule.released(now).expect("open loop");
            prop_assert!(schedule.wake_ns(released).expect("within the limit") > now);
            prop_assert!(schedule.wake_ns(released - 1).expect("within the limit") <= now);
            let allowed: u64 = (0..producers).map(|p| schedule.allowed(p, 0, 0, now)).sum();
            prop_assert_eq!(allowed, released);
        }

        #[test]
        fn each_due_time_belongs_to_exactly_one_producer(
            rate in 1_u64..1_000_000, producers in 1_u64..50, index in 0_u64..10_000
        ) {
            let end = Limit::Until { end_ns: u64::MAX / 4 };
            let schedule = Schedule::new(Pace::Open { rate_per_s: rate }, end, producers, 7);
            let (producer, sequence) = (index % producers, index / producers);
            let due = schedule.due_ns(producer, sequence, 0);
            prop_assert_eq!(Some(due), schedule.wake_ns(index));
            prop_assert!(schedule.allowed(producer, sequence, 999, due) >= 1);
            if due > 7 && schedule.wake_ns(index.saturating_sub(1)) < Some(due) {
                prop_assert_eq!(schedule.allowed(producer, sequence, 0, due - 1), 0);
            }
        }

        #[test]
        fn a_count_is_shared_out_exactly(count in 0_u64..100_000, producers in 1_u64..300) {
            let pace = Pace::Closed { window: u64::MAX };
            let schedule = Schedule::new(pace, Limit::Count(count), producers, 0);
            let total: u64 = (0..producers).map(|p| schedule.allowed(p, 0, 0, 5)).sum();
            prop_assert_eq!(total, count);
        }
    }

    #[test]
    fn closed_loop_keeps_its_window_and_stops_at_the_end() {
        let limit = Limit::Until { end_ns: 100 };
        let schedule = Schedule::new(Pace::Closed { window: 4 }, limit, 2, 0);
        assert_eq!(schedule.allowed(0, 10, 1, 50), 3);
        assert_eq!(schedule.allowed(0, 10, 4, 50), 0);
        assert_eq!(schedule.allowed(0, 10, 1, 100), 0);
        assert!(!schedule.is_finished(0, 10, 99));
        assert!(schedule.is_finished(0, 10, 100));
        assert_eq!(schedule.due_ns(0, 10, 50), 50);
    }

    #[test]
    fn open_loop_still_owes_late_messages_after_its_end() {
        let limit = Limit::Until {
            end_ns: 1_000_000_000,
        };
        let schedule = Schedule::new(Pace::Open { rate_per_s: 10 }, limit, 1, 0);
        // Due at 0, 100 ms .. 900 ms: ten messages, and the one due exactly at the end is not ours.
        assert_eq!(schedule.allowed(0, 3, 0, 5_000_000_000), 7);
        assert!(!schedule.is_finished(0, 9, 5_000_000_000));
        assert!(schedule.is_finished(0, 10, 5_000_000_000));
        assert_eq!(schedule.wake_ns(10), None);
        assert_eq!(schedule.released(5_000_000_000), Some(10));
    }
}
