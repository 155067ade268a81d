//! The times a group keeps to, and what has to hold between them. They decide when somebody tries
//! to take over and how long a holder may deliver; who may acknowledge does not depend on them.

use core::fmt;

use crate::format::LeaseHead;

/// Clocks of two nodes run apart by at most this: parts in a thousand.
const DRIFT_PER_MILLE: u64 = 1;
/// A process may notice that late that its time is over, in milliseconds.
const SLACK_MS: u64 = 100;

/// Times that fit a kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// A local disk or NVMe over a fabric.
    Fast,
    /// A SAN or a cluster file system.
    San,
    /// Paths that fail over by themselves, or NFS.
    Multipath,
}

/// Times that fit each other. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    heartbeat_ms: u32,
    io_ms: u32,
    lease_ms: u32,
    takeover_ms: u32,
}

/// Times that do not fit each other: both sides of what has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimingError {
    /// Zero, or above an hour.
    Range {
        /// Which.
        name: &'static str,
        /// What it is.
        value_ms: u32,
    },
    /// One lost heartbeat would end the lease.
    LeaseTooShort {
        /// What it is.
        lease_ms: u32,
        /// 2 x heartbeat + 2 x I/O.
        needed_ms: u64,
    },
    /// Another node would try while the holder still delivers.
    TakeoverTooShort {
        /// What it is.
        takeover_ms: u32,
        /// The least that is enough.
        needed_ms: u64,
        /// What follows from: the lease.
        lease_ms: u32,
    },
}

impl fmt::Display for TimingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { name, value_ms } => write!(
                f,
                "{name} is {value_ms} ms; 1 to {MS_MAX} can be set. Remedy: another value, or a \
                 lease profile"
            ),
            Self::LeaseTooShort {
                lease_ms,
                needed_ms,
            } => write!(
                f,
                "the lease ({lease_ms} ms) has to last two heartbeats and two of the longest reads \
                 or writes ({needed_ms} ms). Remedy: a longer lease, or shorter heartbeat and I/O \
                 times"
            ),
            Self::TakeoverTooShort {
                takeover_ms,
                needed_ms,
                lease_ms,
            } => write!(
                f,
                "a takeover may begin after {takeover_ms} ms without a heartbeat, but a holder \
                 delivers for {lease_ms} ms behind its last one: with clocks that differ by 0.1 % \
                 and {SLACK_MS} ms of slack that needs {needed_ms} ms. Remedy: a longer takeover \
                 time, or a shorter lease"
            ),
        }
    }
}

impl core::error::Error for TimingError {}

const MS_MAX: u32 = 3_600_000;

impl Profile {
    /// Its times.
    pub const fn timing(self) -> Timing {
        let (heartbeat_ms, io_ms, lease_ms, takeover_ms) = match self {
            Self::Fast => (250, 500, 1_500, 2_000),
            Self::San => (1_000, 2_000, 6_000, 8_000),
            Self::Multipath => (5_000, 10_000, 30_000, 40_000),
        };
        Timing {
            heartbeat_ms,
            io_ms,
            lease_ms,
            takeover_ms,
        }
    }
}

impl Timing {
    /// Takes times of one's own, in milliseconds: a heartbeat every `heartbeat_ms`, no read or
    /// write longer than `io_ms`, a lease of `lease_ms` behind each heartbeat, and a takeover after
    /// `takeover_ms` without one.
    ///
    /// Errors: lease >= 2 x heartbeat + 2 x I/O, and takeover x (1 - drift) > lease x (1 + drift) +
    /// slack do not both hold.
    pub fn new(
        heartbeat_ms: u32,
        io_ms: u32,
        lease_ms: u32,
        takeover_ms: u32,
    ) -> Result<Self, TimingError> {
        let named = [
            ("heartbeat_ms", heartbeat_ms),
            ("io_ms", io_ms),
            ("lease_ms", lease_ms),
            ("takeover_ms", takeover_ms),
        ];
        for (name, value_ms) in named {
            if !(1..=MS_MAX).contains(&value_ms) {
                return Err(TimingError::Range { name, value_ms });
            }
        }
        let needed_ms = 2 * u64::from(heartbeat_ms) + 2 * u64::from(io_ms);
        if u64::from(lease_ms) < needed_ms {
            return Err(TimingError::LeaseTooShort {
                lease_ms,
                needed_ms,
            });
        }
        let end = u64::from(lease_ms) * (1_000 + DRIFT_PER_MILLE) + SLACK_MS * 1_000;
        if u64::from(takeover_ms) * (1_000 - DRIFT_PER_MILLE) <= end {
            return Err(TimingError::TakeoverTooShort {
                takeover_ms,
                needed_ms: end / (1_000 - DRIFT_PER_MILLE) + 1,
                lease_ms,
            });
        }
        Ok(Self {
            heartbeat_ms,
            io_ms,
            lease_ms,
            takeover_ms,
        })
    }

    /// The times that a lease file was made with.
    ///
    /// Errors: as [`Self::new`].
    pub fn of(head: &LeaseHead) -> Result<Self, TimingError> {
        Self::new(
            head.heartbeat_ms,
            head.io_ms,
            head.lease_ms,
            head.takeover_ms,
        )
    }

    /// Heartbeat, I/O, lease and takeover, in milliseconds: for the head of a lease file and for
    /// people.
    pub const fn as_ms(&self) -> [u32; 4] {
        [
            self.heartbeat_ms,
            self.io_ms,
            self.lease_ms,
            self.takeover_ms,
        ]
    }

    /// Microseconds between heartbeats.
    pub const fn heartbeat_us(&self) -> u64 {
        self.heartbeat_ms as u64 * 1_000
    }

    /// Longest read or write in microseconds.
    pub const fn io_us(&self) -> u64 {
        self.io_ms as u64 * 1_000
    }

    /// Microseconds that a heartbeat is good for.
    pub const fn lease_us(&self) -> u64 {
        self.lease_ms as u64 * 1_000
    }

    /// Microseconds without a heartbeat before another node tries.
    pub const fn takeover_us(&self) -> u64 {
        self.takeover_ms as u64 * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::{Profile, Timing, TimingError};

    #[test]
    fn profiles_keep_their_own_rules() {
        for profile in [Profile::Fast, Profile::San, Profile::Multipath] {
            let [heartbeat, io, lease, takeover] = profile.timing().as_ms();
            let made = Timing::new(heartbeat, io, lease, takeover);
            assert_eq!(made, Ok(profile.timing()));
        }
    }

    #[test]
    fn what_does_not_fit_names_both_sides() {
        let lease = Timing::new(250, 500, 1_499, 2_000).expect_err("too short");
        let text = lease.to_string();
        assert!(
            text.contains("1499 ms") && text.contains("1500 ms"),
            "{text}"
        );
        let takeover = Timing::new(250, 500, 1_500, 1_603).expect_err("too short");
        let needed_ms = 1_604;
        assert_eq!(
            takeover,
            TimingError::TakeoverTooShort {
                takeover_ms: 1_603,
                needed_ms,
                lease_ms: 1_500
            }
        );
        let text = takeover.to_string();
        assert!(
            text.contains("1603 ms") && text.contains("1604 ms"),
            "{text}"
        );
        assert!(text.contains("Remedy"));
        assert!(
            Timing::new(250, 500, 1_500, 1_604).is_ok(),
            "what it asks for is enough"
        );
        assert!(matches!(
            Timing::new(0, 500, 1_500, 2_000),
            Err(TimingError::Range {
                name: "heartbeat_ms",
                value_ms: 0
            })
        ));
    }
}
