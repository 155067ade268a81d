//! What becomes of a message that was delivered in vain, refused or kept too long.

use forebay_journal::format::{Departure, Outcome};

use super::decision::Verb;
use super::entry::Entry;
use super::machine::Machine;
use super::policy::Policy;
use super::state::QueueState;

/// Why a consumer gives a message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// It took its leave in order: the message waited for it and no attempt failed.
    Unused,
    /// The attempt failed: the consumer said so, or is gone without a word.
    Failed,
    /// No attempt will do: the consumer refuses the message for good.
    Refused,
}

impl Machine {
    /// What a message that its consumer gives back comes to.
    pub(super) fn fate(
        &self,
        queue: &QueueState,
        entry: &Entry,
        given_back: Return,
        now_unix_ms: u64,
    ) -> Verb {
        let policy = &queue.policy;
        let is_over = self.is_limited(queue) && u32::from(entry.attempts()) >= policy.attempts_max;
        match given_back {
            Return::Refused => self.dead_letter(queue, Departure::Rejected),
            Return::Failed if is_over => self.dead_letter(queue, Departure::AttemptsExceeded),
            Return::Failed => Verb::Release {
                ready_unix_ms: match delay_ms(policy, entry.attempts()) {
                    0 => 0,
                    delay_ms => now_unix_ms.saturating_add(delay_ms),
                },
            },
            Return::Unused => Verb::Release { ready_unix_ms: 0 },
        }
    }

    /// Whether attempts have a limit: dead letters have none where they lie.
    fn is_limited(&self, queue: &QueueState) -> bool {
        let address = queue.policy.dead_letter_address.as_deref();
        address.is_none_or(|address| self.address_of(queue) != Some(address.as_bytes()))
    }

    fn dead_letter(&self, queue: &QueueState, reason: Departure) -> Verb {
        // A dead letter that is refused for good is refused where nothing comes after.
        if self.is_limited(queue) && queue.policy.dead_letter_address.is_some() {
            return Verb::Depart(reason);
        }
        Verb::Settle(match reason {
            Departure::Rejected => Outcome::Rejected,
            Departure::AttemptsExceeded | Departure::Expired | Departure::Diverted => {
                Outcome::Dropped
            }
        })
    }

    /// What a message comes to whose time is over.
    pub(super) fn expired(&self, queue: &QueueState) -> Verb {
        let address = queue.policy.expiry_address.as_deref();
        let own = self.address_of(queue);
        match address {
            Some(address) if own != Some(address.as_bytes()) => Verb::Depart(Departure::Expired),
            _ => Verb::Settle(Outcome::Expired),
        }
    }
}

/// How long a message waits after this many failed attempts.
fn delay_ms(policy: &Policy, attempts: u16) -> u64 {
    let (mut delay_ms, max_ms) = (policy.redelivery_delay_ms, policy.redelivery_delay_max_ms);
    let multiplier = u64::from(policy.redelivery_multiplier_thousandths);
    if delay_ms == 0 {
        return 0;
    }
    for _ in 1..attempts {
        let next_ms = delay_ms.saturating_mul(multiplier) / 1000;
        if next_ms == delay_ms || delay_ms >= max_ms {
            break;
        }
        delay_ms = next_ms;
    }
    delay_ms.min(max_ms)
}

#[cfg(test)]
mod tests {
    use super::{Policy, delay_ms};

    #[test]
    fn delays_grow_to_their_cap() {
        let policy = Policy {
            redelivery_delay_ms: 100,
            redelivery_delay_max_ms: 1000,
            redelivery_multiplier_thousandths: 2500,
            ..Policy::default()
        };
        let delays = [1, 2, 3, 4, 5, 2047].map(|attempts| delay_ms(&policy, attempts));
        assert_eq!(delays, [100, 250, 625, 1000, 1000, 1000]);
        let flat = Policy {
            redelivery_multiplier_thousandths: 1000,
            ..policy.clone()
        };
        assert_eq!(delay_ms(&flat, 2047), 100);
        assert_eq!(delay_ms(&Policy::default(), 9), 0, "no delay unless asked");
        let shrinking = Policy {
            redelivery_multiplier_thousandths: 500,
            ..policy
        };
        assert_eq!([1, 2, 3].map(|n| delay_ms(&shrinking, n)), [100, 50, 25]);
    }
}
