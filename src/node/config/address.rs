//! `[[address]]`: the table of its keys, and which of them this release offers.
//!
//! A key is added with the behaviour it names; until that is built `is_offered` is false and the
//! key is refused. Nothing else has to change when it is.

use super::keys::{Key, Kind};
use super::setting::Setting;
use crate::limits::{ATTEMPTS_COUNTED_MAX, RETROACTIVE_MESSAGES_MAX};
use crate::pattern::Pattern;
use crate::shard::{Full, PolicySettings, Routing, SlowConsumer};

/// One `[[address]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSettings {
    /// Addresses it is for.
    pub pattern: Pattern,
    /// What it sets.
    pub settings: PolicySettings,
}

impl AddressSettings {
    /// Finds what contradicts itself: the key and the one it does not go with.
    pub(super) fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let set = &self.settings;
        let is_more =
            |one: Option<u64>, other: Option<u64>| one.zip(other).is_some_and(|(a, b)| a > b);
        if is_more(
            set.expiry_delay_min_ms.flatten(),
            set.expiry_delay_max_ms.flatten(),
        ) {
            return Some(("address.min_expiry_delay_ms", "max_expiry_delay_ms"));
        }
        is_more(set.redelivery_delay_ms, set.redelivery_delay_max_ms)
            .then_some(("address.redelivery_delay_ms", "max_redelivery_delay_ms"))
    }

    /// The keys that are set, with their values as TOML.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        SETTINGS.iter().filter_map(|key| match key.kind {
            Kind::Setting { setting, .. } => Some((key.name(), setting.show(&self.settings)?)),
            _ => None,
        })
    }
}

/// Longest time that can be set: a century, so that sums with the clock stay far from their end.
const TIME_MAX_MS: u64 = 36_525 * 24 * 3600 * 1000;
/// Most messages that can be set.
pub(super) const MESSAGES_MAX: u64 = 1 << 40;
/// Most ids remembered for one address: 16 bytes each and an entry of a table.
const DUPLICATE_IDS_MAX: u64 = 1_000_000;
/// Most that a redelivery delay grows by from one attempt to the next, in thousandths.
const FACTOR_MAX: u32 = 100_000;

/// `match`, by which the table is known.
pub(super) const MATCH: &Key = &Key {
    path: "address.match",
    kind: Kind::Pattern,
    default: None,
    effect: "Addresses that the table is for: words with dots between, `*` for exactly one word, `#` \
             for any number of them, none included (`>` at the end means the same). Without \
             `/queue/` or `/topic/`. For each key the most specific pattern counts that sets it: \
             from the left a word beats `*`, and that beats `#`.",
};

/// A key whose behaviour is built, or is not.
const fn key(
    is_offered: bool,
    path: &'static str,
    setting: Setting,
    default: &'static str,
    effect: &'static str,
) -> Key {
    Key {
        path,
        kind: Kind::Setting {
            setting,
            is_offered,
        },
        default: Some(default),
        effect,
    }
}

/// A number that may be none.
const fn optional(
    least: u64,
    most: u64,
    put: fn(&mut PolicySettings, Option<u64>),
    get: fn(&PolicySettings) -> Option<Option<u64>>,
) -> Setting {
    let is_optional = true;
    Setting::Number {
        least,
        most,
        is_optional,
        put,
        get,
    }
}

/// A number that is always there.
const fn number(
    least: u64,
    most: u64,
    put: fn(&mut PolicySettings, Option<u64>),
    get: fn(&PolicySettings) -> Option<Option<u64>>,
) -> Setting {
    let is_optional = false;
    Setting::Number {
        least,
        most,
        is_optional,
        put,
        get,
    }
}

/// Narrows a number that its range has narrowed before.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Every key of an `[[address]]` but `match`, in the order of the document. The flag tells
/// whether this release offers it.
pub(super) const SETTINGS: &[Key] = &[
    key(
        true,
        "address.auto_create_queues",
        Setting::Flag(|s| &mut s.auto_create),
        "true",
        "Whether a queue that is not there is made when somebody sends or subscribes to it. false: \
         refused with an ERROR.",
    ),
    key(
        true,
        "address.auto_delete_queues",
        Setting::Flag(|s| &mut s.auto_delete),
        "false",
        "Whether a queue that was made that way goes when it is empty and has no consumers.",
    ),
    key(
        true,
        "address.auto_delete_queues_delay_ms",
        number(
            0,
            TIME_MAX_MS,
            |s, n| s.auto_delete_delay_ms = n,
            |s| s.auto_delete_delay_ms.map(Some),
        ),
        "0",
        "How long it has to be so before, in milliseconds.",
    ),
    key(
        true,
        "address.default_routing",
        Setting::Word {
            words: &["anycast", "multicast"],
            put: |s, word| s.default_routing = Some([Routing::Anycast, Routing::Multicast][word]),
            get: |s| {
                s.default_routing
                    .map(|routing| usize::from(routing == Routing::Multicast))
            },
        },
        "\"anycast\"",
        "What a destination means that says neither queue nor topic: \"anycast\" is a queue, \
         \"multicast\" a topic.",
    ),
    key(
        true,
        "address.default_exclusive",
        Setting::Flag(|s| &mut s.is_exclusive),
        "false",
        "Whether one consumer at a time is served: the one that was there first, then the next.",
    ),
    key(
        true,
        "address.default_purge_on_no_consumers",
        Setting::Flag(|s| &mut s.purge_on_no_consumers),
        "false",
        "Whether the messages of a queue go when its last consumer does, and those that come while \
         there is none.",
    ),
    key(
        true,
        "address.default_non_destructive",
        Setting::Flag(|s| &mut s.is_non_destructive),
        "false",
        "Whether messages stay in the queue when they are consumed.",
    ),
    key(
        true,
        "address.default_last_value_key",
        Setting::Property(|s| &mut s.last_value_key),
        "\"\"",
        "Header of which a queue keeps only the last message for each value.",
    ),
    key(
        true,
        "address.default_ring_size",
        optional(
            1,
            MESSAGES_MAX,
            |s, n| s.ring_size = Some(n),
            |s| s.ring_size,
        ),
        "-1",
        "Most messages of a queue that drops its oldest for a new one.",
    ),
    key(
        true,
        "address.default_group_rebalance",
        Setting::Flag(|s| &mut s.group_rebalance),
        "false",
        "Whether message groups are given out anew when a consumer comes. Those of one that goes \
         always are.",
    ),
    key(
        true,
        "address.default_group_buckets",
        optional(
            1,
            1 << 20,
            |s, n| s.group_buckets = Some(n.map(narrow)),
            |s| s.group_buckets.map(|count| count.map(u64::from)),
        ),
        "-1",
        "Number of buckets that groups are spread over instead of being remembered one by one.",
    ),
    key(
        true,
        "address.default_group_first_key",
        Setting::Property(|s| &mut s.group_first_key),
        "\"\"",
        "Header that marks the first message that a consumer gets of a group.",
    ),
    key(
        true,
        "address.max_delivery_attempts",
        optional(
            1,
            ATTEMPTS_COUNTED_MAX as u64,
            |s, n| s.attempts_max = Some(n.map_or(u32::MAX, narrow)),
            |s| {
                s.attempts_max
                    .map(|most| (most != u32::MAX).then_some(most.into()))
            },
        ),
        "10",
        "Deliveries after which a message is a dead letter; -1 is no limit.",
    ),
    key(
        true,
        "address.dead_letter_address",
        Setting::Address(|s| &mut s.dead_letter_address),
        "\"DLQ\"",
        "Where dead letters go; none drops them.",
    ),
    key(
        true,
        "address.divert_address",
        Setting::Address(|s| &mut s.divert_address),
        "\"\"",
        "Queue that each message sent to the address goes to as well, with headers that say where it \
         was sent. What was diverted once is not diverted again.",
    ),
    key(
        true,
        "address.divert_exclusive",
        Setting::Flag(|s| &mut s.is_divert_exclusive),
        "false",
        "Whether messages go to the divert_address alone.",
    ),
    key(
        true,
        "address.redelivery_delay_ms",
        number(
            0,
            TIME_MAX_MS,
            |s, n| s.redelivery_delay_ms = n,
            |s| s.redelivery_delay_ms.map(Some),
        ),
        "0",
        "How long a message that was given back waits before it is delivered again, in \
              milliseconds.",
    ),
    key(
        true,
        "address.redelivery_multiplier",
        Setting::Factor {
            most: FACTOR_MAX,
            slot: |s| &mut s.redelivery_multiplier_thousandths,
        },
        "1.0",
        "How that delay grows from one attempt to the next.",
    ),
    key(
        true,
        "address.max_redelivery_delay_ms",
        number(
            0,
            TIME_MAX_MS,
            |s, n| s.redelivery_delay_max_ms = n,
            |s| s.redelivery_delay_max_ms.map(Some),
        ),
        "0",
        "Most that it grows to. Unless it is set: ten times `redelivery_delay_ms`.",
    ),
    key(
        true,
        "address.expiry_address",
        Setting::Address(|s| &mut s.expiry_address),
        "\"\"",
        "Where messages go whose time is over; none drops them.",
    ),
    key(
        true,
        "address.expiry_delay_ms",
        optional(
            1,
            TIME_MAX_MS,
            |s, n| s.expiry_delay_ms = Some(n),
            |s| s.expiry_delay_ms,
        ),
        "-1",
        "Time in milliseconds that a message without `expires` gets.",
    ),
    key(
        true,
        "address.min_expiry_delay_ms",
        optional(
            1,
            TIME_MAX_MS,
            |s, n| s.expiry_delay_min_ms = Some(n),
            |s| s.expiry_delay_min_ms,
        ),
        "-1",
        "Least time in milliseconds that a message with `expires` has left when it comes; one \
               without gets it too, if neither of the others is set.",
    ),
    key(
        true,
        "address.max_expiry_delay_ms",
        optional(
            1,
            TIME_MAX_MS,
            |s, n| s.expiry_delay_max_ms = Some(n),
            |s| s.expiry_delay_max_ms,
        ),
        "-1",
        "Most time in milliseconds that a message has left when it comes; one without \
               `expires` gets it too, unless `expiry_delay_ms` is set. It wins over the least.",
    ),
    key(
        true,
        "address.no_expiry",
        Setting::Flag(|s| &mut s.has_no_expiry),
        "false",
        "Whether messages have no time, whatever `expires` says.",
    ),
    key(
        true,
        "address.id_cache_size",
        number(
            0,
            DUPLICATE_IDS_MAX,
            |s, n| s.duplicate_ids_max = n.map(narrow),
            |s| s.duplicate_ids_max.map(|most| Some(most.into())),
        ),
        "20000",
        "Ids of messages remembered so that none is taken twice; 0 remembers none.",
    ),
    key(
        true,
        "address.persist_id_cache",
        Setting::Flag(|s| &mut s.is_duplicate_ids_persistent),
        "true",
        "Whether those ids survive a restart.",
    ),
    key(
        true,
        "address.max_size_bytes",
        Setting::Size(|s| &mut s.size_max_bytes),
        "-1",
        "Most bytes of messages before `address_full_policy` is asked.",
    ),
    key(
        true,
        "address.max_size_messages",
        optional(
            1,
            MESSAGES_MAX,
            |s, n| s.messages_max = Some(n),
            |s| s.messages_max,
        ),
        "-1",
        "Most messages before `address_full_policy` is asked.",
    ),
    key(
        true,
        "address.address_full_policy",
        Setting::Word {
            words: &["page", "block", "fail", "drop"],
            put: |s, word| {
                s.full_policy = Some([Full::Page, Full::Block, Full::Fail, Full::Drop][word])
            },
            get: |s| {
                s.full_policy.map(|full| match full {
                    Full::Page => 0,
                    Full::Block => 1,
                    Full::Fail => 2,
                    Full::Drop => 3,
                })
            },
        },
        "\"page\"",
        "What happens to a message for a full address. \"page\": it is taken; \"block\": its producer \
         waits; \"fail\": it is refused with an ERROR; \"drop\": it is dropped unsaid.",
    ),
    key(
        true,
        "address.slow_consumer_threshold",
        optional(
            1,
            1_000_000_000,
            |s, n| s.slow_consumer_threshold_per_s = Some(n.map(narrow)),
            |s| {
                s.slow_consumer_threshold_per_s
                    .map(|count| count.map(u64::from))
            },
        ),
        "-1",
        "Messages per second. A consumer that settles fewer in a whole `slow_consumer_check_period_s` \
         is slow, if messages wait that it cannot have because it has not settled others.",
    ),
    key(
        true,
        "address.slow_consumer_policy",
        Setting::Word {
            words: &["warn", "disconnect"],
            put: |s, word| {
                s.slow_consumer_policy = Some([SlowConsumer::Warn, SlowConsumer::Disconnect][word]);
            },
            get: |s| {
                s.slow_consumer_policy
                    .map(|policy| usize::from(policy == SlowConsumer::Disconnect))
            },
        },
        "\"warn\"",
        "What happens to a slow consumer: \"warn\" names it in the log, \"disconnect\" closes its \
         connection too, with an ERROR; what it holds goes back to the queue.",
    ),
    key(
        true,
        "address.slow_consumer_check_period_s",
        number(
            1,
            86_400,
            |s, n| s.slow_consumer_check_period_s = n.map(narrow),
            |s| {
                s.slow_consumer_check_period_s
                    .map(|period| Some(period.into()))
            },
        ),
        "5",
        "How often that is looked at, in seconds.",
    ),
    key(
        true,
        "address.retroactive_message_count",
        number(
            0,
            RETROACTIVE_MESSAGES_MAX as u64,
            |s, n| s.retroactive_messages = n,
            |s| s.retroactive_messages.map(Some),
        ),
        "0",
        "Last messages that a new subscription to a topic gets.",
    ),
];
