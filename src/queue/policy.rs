//! What the operator wants of the queues of an address: dead letters, expiry, fullness and so on.
//!
//! Policies are no facts. A queue gets its policy when it is defined, live or in a replay, and
//! decisions use it; what was decided before under another one stays as it is. `evolve` never
//! asks a policy, so the same facts make the same state under any.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_journal::format::Routing;

use crate::pattern::Pattern;

/// What happens to a message for an address that has as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its producer waits.
    Block,
    /// It is refused.
    Fail,
    /// It is dropped, and its producer told that all is well.
    Drop,
    /// It is taken: memory has no part in it, the journal does.
    Page,
}

/// What happens to a consumer that is slower than it may be while messages wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is named in the log.
    Warn,
    /// Its connection is closed.
    Disconnect,
}

/// One list of settings makes three things of it: the policy, what tables may set of it, and how
/// two of them merge. None can lack a setting that another has.
macro_rules! settings {
    ($($(#[$doc:meta])+ $name:ident: $kind:ty = $default:expr;)+) => {
        /// What is in force for one queue.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Policy {
            $($(#[$doc])+ pub $name: $kind,)+
        }

        /// What one table of the configuration sets: see [`Policy`]; none is left to less specific
        /// ones.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the fields are those of the policy")]
        pub struct PolicySettings {
            $(pub $name: Option<$kind>,)+
        }

        impl PolicySettings {
            /// Takes from a less specific one what is not set here.
            fn inherit(&mut self, general: &Self) {
                $(if self.$name.is_none() {
                    self.$name.clone_from(&general.$name);
                })+
            }

            /// The policy with defaults for what nobody set.
            fn settle(self) -> Policy {
                Policy {
                    $($name: self.$name.unwrap_or_else(|| $default),)+
                }
            }
        }
    };
}

settings! {
    /// Whether an unknown queue is made when somebody names it.
    auto_create: bool = true;
    /// Whether a queue made that way goes when it is empty and has no consumers.
    auto_delete: bool = false;
    /// How long it has to be so before.
    auto_delete_delay_ms: u64 = 0;
    /// Deliveries after which a message is a dead letter; `u32::MAX` is no limit.
    attempts_max: u32 = 10;
    /// Where dead letters go; none drops them.
    dead_letter_address: Option<Box<str>> = Some("DLQ".into());
    /// Address that every message sent to this one goes to as well; none for none.
    divert_address: Option<Box<str>> = None;
    /// How a plain name routes that says neither queue nor topic.
    default_routing: Routing = Routing::Anycast;
    /// Ids of messages remembered so that none of them is taken twice.
    duplicate_ids_max: u32 = 20_000;
    /// Where messages go whose time is over; none drops them.
    expiry_address: Option<Box<str>> = None;
    /// Time that a message without one gets.
    expiry_delay_ms: Option<u64> = None;
    /// Most time that a message may have left; one without any gets it, if there is no
    /// `expiry_delay_ms`. It wins over the least.
    expiry_delay_max_ms: Option<u64> = None;
    /// Least time that a message has left; one without any gets it, if neither of the others is
    /// set.
    expiry_delay_min_ms: Option<u64> = None;
    /// What happens to a message when there are so many already.
    full_policy: Full = Full::Page;
    /// Groups are spread over this many buckets instead of being remembered one by one.
    group_buckets: Option<u32> = None;
    /// Name of the property that marks the first message a consumer gets of a group.
    group_first_key: Option<Box<str>> = None;
    /// Whether groups are given out anew when a consumer comes. Those of one that goes always are.
    group_rebalance: bool = false;
    /// Whether messages have no time, whatever their senders say.
    has_no_expiry: bool = false;
    /// Whether the ids survive a restart.
    is_duplicate_ids_persistent: bool = true;
    /// Whether what is sent to a `divert_address` goes there alone.
    is_divert_exclusive: bool = false;
    /// Whether one consumer at a time is served: the one that was there first.
    is_exclusive: bool = false;
    /// Whether messages stay when they are consumed.
    is_non_destructive: bool = false;
    /// Property of which a queue keeps the last message for each value.
    last_value_key: Option<Box<str>> = None;
    /// Most messages before `full_policy` is asked.
    messages_max: Option<u64> = None;
    /// Whether all messages go when the last consumer does, and none is taken before one comes.
    purge_on_no_consumers: bool = false;
    /// How long a message that was given back waits before it is delivered again.
    redelivery_delay_ms: u64 = 0;
    /// Most that the delay grows to; ten times the delay unless set.
    redelivery_delay_max_ms: u64 = 0;
    /// How the delay grows from one attempt to the next, in thousandths: no fraction is rounded
    /// differently anywhere.
    redelivery_multiplier_thousandths: u32 = 1000;
    /// Last messages that a new subscription to the topic gets.
    retroactive_messages: u64 = 0;
    /// Most messages in a queue that drops the oldest for a new one.
    ring_size: Option<u64> = None;
    /// Most bytes before `full_policy` is asked.
    size_max_bytes: Option<u64> = None;
    /// How often a consumer's speed is looked at.
    slow_consumer_check_period_s: u32 = 5;
    /// What happens to a slow consumer.
    slow_consumer_policy: SlowConsumer = SlowConsumer::Warn;
    /// Messages per second below which a consumer is slow while messages wait for it.
    slow_consumer_threshold_per_s: Option<u32> = None;
}

/// Delays that a redelivery delay grows to unless something else is set.
const DELAY_GROWTH_MAX: u64 = 10;

impl Default for Policy {
    fn default() -> Self {
        PolicySettings::default().resolve()
    }
}

impl Policy {
    /// Whether messages of the address go to its divert and nowhere else.
    pub(super) const fn diverts_alone(&self) -> bool {
        self.is_divert_exclusive && self.divert_address.is_some()
    }
}

impl PolicySettings {
    /// The policy with defaults for what nobody set, those that follow from others included.
    pub fn resolve(self) -> Policy {
        let delay_max_ms = self.redelivery_delay_max_ms;
        let mut policy = self.settle();
        policy.redelivery_delay_max_ms = delay_max_ms
            .unwrap_or_else(|| policy.redelivery_delay_ms.saturating_mul(DELAY_GROWTH_MAX));
        policy
    }
}

/// The policies of all addresses. For each setting the most specific pattern counts that sets it.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The most specific pattern first.
    rules: Arc<[(Pattern, PolicySettings)]>,
    /// Policies in use, by the rules they were merged from: a million queues share a few.
    merged: BTreeMap<Vec<u32>, Arc<Policy>>,
    defaults: Arc<Policy>,
}

impl Default for Policies {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Policies {
    /// Merges these; of two equal patterns the first counts.
    pub fn new(mut rules: Vec<(Pattern, PolicySettings)>) -> Self {
        rules.sort_by(|(one, _), (other, _)| other.cmp(one));
        Self {
            rules: rules.into(),
            merged: BTreeMap::new(),
            defaults: Arc::default(),
        }
    }

    /// The policy of queues at this address.
    ///
    /// Cost: each pattern is looked at; allocates.
    pub fn of(&self, address: &[u8]) -> Arc<Policy> {
        self.find_or_merge(&self.matching(address))
    }

    /// The policy of queues at this address, kept for others like it.
    ///
    /// Cost: see [`Self::of`].
    pub(super) fn keep(&mut self, address: &[u8]) -> Arc<Policy> {
        let matching = self.matching(address);
        let policy = self.find_or_merge(&matching);
        if !matching.is_empty() {
            self.merged
                .entry(matching)
                .or_insert_with(|| policy.clone());
        }
        policy
    }

    /// The policy where nothing is set: that of a queue whose address is not known yet.
    pub(super) fn defaults(&self) -> Arc<Policy> {
        self.defaults.clone()
    }

    /// Whether any address diverts.
    pub(super) fn has_diverts(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|(_, settings)| {
            settings
                .divert_address
                .as_ref()
                .is_some_and(Option::is_some)
        })
    }

    /// Whether any topic keeps messages for subscriptions to come.
    pub(super) fn has_retroactive(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|(_, settings)| settings.retroactive_messages.is_some_and(|most| most > 0))
    }

    /// How a name routes that says neither queue nor topic.
    ///
    /// Cost: each pattern is looked at, nothing is allocated.
    pub fn default_routing(&self, address: &[u8]) -> Routing {
        let mut set = self.rules.iter().filter_map(|(pattern, settings)| {
            let routing = settings.default_routing?;
            pattern.matches(address).then_some(routing)
        });
        set.next().unwrap_or(self.defaults.default_routing)
    }

    /// The rules that match, the most specific first.
    fn matching(&self, address: &[u8]) -> Vec<u32> {
        let rules = (0..).zip(self.rules.iter());
        rules
            .filter(|(_, (pattern, _))| pattern.matches(address))
            .map(|(index, _)| index)
            .collect()
    }

    fn find_or_merge(&self, matching: &Vec<u32>) -> Arc<Policy> {
        if matching.is_empty() {
            return self.defaults();
        }
        if let Some(policy) = self.merged.get(matching) {
            return policy.clone();
        }
        let mut settings = PolicySettings::default();
        for rule in matching {
            settings.inherit(&self.rules[*rule as usize].1);
        }
        Arc::new(settings.resolve())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str, settings: PolicySettings) -> (Pattern, PolicySettings) {
        (Pattern::parse(text).expect("a pattern"), settings)
    }

    fn attempts(attempts_max: u32) -> PolicySettings {
        PolicySettings {
            attempts_max: Some(attempts_max),
            ..PolicySettings::default()
        }
    }

    #[test]
    fn each_setting_is_taken_from_the_most_specific_pattern_that_sets_it() {
        let mut delayed = attempts(3);
        delayed.redelivery_delay_ms = Some(50);
        let policies = Policies::new(vec![
            rule("#", attempts(1)),
            rule("orders.*", attempts(2)),
            rule("orders.#", delayed),
            rule("orders.eu", attempts(4)),
        ]);
        let found = ["a", "orders", "orders.us", "orders.us.ny", "orders.eu"].map(|address| {
            let policy = policies.of(address.as_bytes());
            (policy.attempts_max, policy.redelivery_delay_ms)
        });
        assert_eq!(found, [(1, 0), (3, 50), (2, 50), (3, 50), (4, 50)]);
        assert_eq!(policies.of(b"orders").redelivery_delay_max_ms, 500);
    }

    #[test]
    fn what_is_set_to_none_is_set() {
        let nowhere = PolicySettings {
            dead_letter_address: Some(None),
            ..PolicySettings::default()
        };
        let policies = Policies::new(vec![rule("a", nowhere)]);
        assert_eq!(policies.of(b"a").dead_letter_address, None);
        assert_eq!(
            policies.of(b"b").dead_letter_address.as_deref(),
            Some("DLQ")
        );
    }

    #[test]
    fn queues_under_the_same_patterns_share_a_policy() {
        let mut policies = Policies::new(vec![rule("a.*", attempts(1)), rule("b", attempts(2))]);
        let (one, other) = (policies.keep(b"a.x"), policies.keep(b"a.y"));
        assert!(Arc::ptr_eq(&one, &other) && Arc::ptr_eq(&one, &policies.of(b"a.z")));
        assert!(!Arc::ptr_eq(&one, &policies.of(b"b")));
        assert!(Arc::ptr_eq(&policies.of(b"c"), &policies.of(b"d")));
    }

    #[test]
    fn plain_names_route_as_the_most_specific_pattern_says() {
        let routing = |routing| PolicySettings {
            default_routing: Some(routing),
            ..PolicySettings::default()
        };
        let policies = Policies::new(vec![
            rule("news.#", routing(Routing::Multicast)),
            rule("news.jobs", routing(Routing::Anycast)),
            rule("news.jobs.eu", attempts(1)),
        ]);
        let found = ["a", "news", "news.jobs", "news.jobs.eu"]
            .map(|a| policies.default_routing(a.as_bytes()));
        let (queue, topic) = (Routing::Anycast, Routing::Multicast);
        assert_eq!(found, [queue, topic, queue, topic]);
    }

    proptest! {
        /// Against the rule said in other words: of the patterns that match and set a key, the
        /// greatest.
        #[test]
        fn the_order_of_the_tables_means_nothing(
            texts in proptest::collection::btree_set("((a|b|\\*|#)\\.){0,2}(a|b|\\*|#)", 0..6),
            address in "((a|b)\\.){0,3}(a|b)",
            is_reversed in any::<bool>(),
        ) {
            let rules = (1..).zip(&texts).map(|(n, text)| rule(text, attempts(n)));
            let mut rules: Vec<_> = rules.collect();
            rules.sort_by(|one, other| one.0.cmp(&other.0));
            rules.dedup_by(|one, other| one.0 == other.0);
            let matching = rules.iter().filter(|(pattern, _)| pattern.matches(address.as_bytes()));
            let greatest = matching.max_by(|one, other| one.0.cmp(&other.0));
            let expected = greatest.map_or(10, |(_, settings)| settings.attempts_max.unwrap_or(10));
            if is_reversed {
                rules.reverse();
            }
            let policies = Policies::new(rules);
            prop_assert_eq!(policies.of(address.as_bytes()).attempts_max, expected);
        }
    }
}
