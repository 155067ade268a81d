//! What a connection is told about a consumer of its that is slow.

use core::fmt;

use super::Subscription;

/// A consumer that settled less than its address wants while messages waited for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow<B> {
    /// Whose it is.
    pub subscription: Subscription,
    /// Address of the queue, UTF-8.
    pub address: B,
    /// What it settled.
    pub pace: Pace,
    /// Whether its connection closes for that.
    pub is_sent_away: bool,
}

/// Messages settled in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many.
    pub messages: u64,
    /// In how many microseconds.
    pub elapsed_us: u64,
}

impl<B> Slow<B> {
    pub(super) fn map<C>(self, hold: &mut impl FnMut(B) -> C) -> Slow<C> {
        Slow {
            subscription: self.subscription,
            address: hold(self.address),
            pace: self.pace,
            is_sent_away: self.is_sent_away,
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scaled = u128::from(self.messages) * 10_000_000;
        let tenths = scaled / u128::from(self.elapsed_us.max(1));
        write!(f, "{}.{} messages per second", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_said_per_second() {
        let said = |messages, elapsed_us| {
            Pace {
                messages,
                elapsed_us,
            }
            .to_string()
        };
        assert_eq!(said(0, 5_000_000), "0.0 messages per second");
        assert_eq!(said(7, 5_000_000), "1.4 messages per second");
    }
}
