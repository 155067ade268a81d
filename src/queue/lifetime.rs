//! How long the messages of an address live: what their senders ask for, within the bounds of the
//! policy.

use super::policy::Policy;

/// The part of a policy that decides when a message expires.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lifetime {
    usual_ms: Option<u64>,
    least_ms: Option<u64>,
    most_ms: Option<u64>,
    is_endless: bool,
}

impl Lifetime {
    /// When a message expires that came now; 0 is never, asked for and answered.
    ///
    /// Unlike Artemis, bounds hold for what senders ask for whether or not there is a usual time.
    pub(super) fn expires_unix_ms(self, asked_unix_ms: u64, now_unix_ms: u64) -> u64 {
        if self.is_endless {
            return 0;
        }
        let after = |ms: u64| now_unix_ms.saturating_add(ms);
        if asked_unix_ms == 0 {
            let unasked = self.usual_ms.or(self.most_ms).or(self.least_ms);
            return unasked.map_or(0, after);
        }
        let asked = self
            .least_ms
            .map_or(asked_unix_ms, |ms| asked_unix_ms.max(after(ms)));
        self.most_ms.map_or(asked, |ms| asked.min(after(ms)))
    }
}

impl From<&Policy> for Lifetime {
    fn from(policy: &Policy) -> Self {
        Self {
            usual_ms: policy.expiry_delay_ms,
            least_ms: policy.expiry_delay_min_ms,
            most_ms: policy.expiry_delay_max_ms,
            is_endless: policy.has_no_expiry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_of_settings_decides_one_time() {
        let (usual, least, most) = (Some(50), Some(10), Some(100));
        // Usual, least, most; what comes of a message that asks for nothing, and of one that asks
        // for 1005 and for 2000 at 1000.
        let table = [
            (None, None, None, [0, 1005, 2000]),
            (usual, None, None, [1050, 1005, 2000]),
            (None, least, None, [1010, 1010, 2000]),
            (None, None, most, [1100, 1005, 1100]),
            (None, least, most, [1100, 1010, 1100]),
            (usual, least, most, [1050, 1010, 1100]),
            // They contradict each other: the most wins.
            (None, most, least, [1010, 1010, 1010]),
        ];
        for (usual_ms, least_ms, most_ms, expected) in table {
            let mut lifetime = Lifetime {
                usual_ms,
                least_ms,
                most_ms,
                is_endless: false,
            };
            let found = [0, 1005, 2000].map(|asked| lifetime.expires_unix_ms(asked, 1000));
            assert_eq!(found, expected, "{lifetime:?}");
            lifetime.is_endless = true;
            assert_eq!(lifetime.expires_unix_ms(1005, 1000), 0);
        }
    }
}
