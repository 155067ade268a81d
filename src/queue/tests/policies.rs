//! What policies make of commands. That facts do not ask them is held by `tests/queue_model`.

use super::*;
use crate::pattern::Pattern;

impl Shard {
    fn with(settings: PolicySettings) -> Self {
        let pattern = Pattern::parse("q.#").expect("a pattern");
        Self::with_policies(Policies::new(vec![(pattern, settings)]))
    }

    fn delete_idle(&mut self, now_us: u64) -> usize {
        self.machine.look_at_idle(now_us);
        self.machine.check_invariants();
        self.machine.decide_delete_idle(now_us, &mut self.decision);
        let count = self.decision.facts().len();
        self.apply();
        self.machine.check_invariants();
        count
    }
}

#[test]
fn a_queue_that_is_not_to_make_itself_is_refused_and_one_that_is_there_is_opened() {
    let mut shard = Shard::with(PolicySettings {
        auto_create: Some(false),
        ..PolicySettings::default()
    });
    let refused = shard.machine.decide_queue(b"q.a", &mut shard.decision);
    assert_eq!(refused, Err(Refused::UnknownAddress));
    assert!(shard.decision.is_empty());
    let temporary = shard
        .machine
        .decide_temporary_queue(b"q.t", &mut shard.decision);
    assert!(temporary.is_ok());
    let other = shard.queue(b"other");
    assert_eq!(shard.queue(b"other"), other);
}

#[test]
fn a_queue_goes_when_it_was_unused_for_its_delay_without_a_break() {
    let mut shard = Shard::with(PolicySettings {
        auto_delete: Some(true),
        auto_delete_delay_ms: Some(5),
        ..PolicySettings::default()
    });
    let (queue, other) = (shard.queue(b"q.a"), shard.queue(b"other"));
    assert_eq!(shard.delete_idle(1_000), 0);
    assert_eq!(shard.machine.next_idle_us(), Some(6_000));
    // A consumer comes and goes: it begins anew.
    let consumer = shard.attach(queue, 9);
    assert_eq!(shard.machine.next_idle_us(), None);
    shard.detach(consumer);
    assert_eq!(shard.delete_idle(4_000), 0);
    assert_eq!(shard.machine.next_idle_us(), Some(9_000));
    // So does a message that comes and goes, and while it is there nothing is due.
    let message = shard.send_until(b"q.a", 77);
    assert_eq!(shard.delete_idle(20_000), 0);
    shard.machine.decide_expire(77, &mut shard.decision);
    shard.apply();
    assert!(!shard.machine.holds(queue, MessageId(message)));
    assert_eq!(shard.delete_idle(30_000), 0);
    assert_eq!(shard.delete_idle(34_999), 0);
    assert_eq!(shard.delete_idle(35_000), 1);
    assert_eq!(shard.machine.is_durable(queue), None);
    assert_eq!(shard.machine.is_durable(other), Some(true));
    assert_eq!(shard.machine.next_idle_us(), None);
}

#[test]
fn a_replayed_queue_that_is_unused_is_known() {
    let mut shard = Shard::with(PolicySettings {
        auto_delete: Some(true),
        ..PolicySettings::default()
    });
    shard.queue(b"q.a");
    shard.machine.finish_replay().expect("sound");
    assert_eq!(shard.delete_idle(1), 1);
}

#[test]
fn what_the_last_consumer_leaves_in_a_queue_that_is_purged_goes() {
    let mut shard = Shard::with(PolicySettings {
        purge_on_no_consumers: Some(true),
        ..PolicySettings::default()
    });
    let queue = shard.queue(b"q.a");
    let destination = shard.machine.resolve(Routing::Anycast, b"q.a");
    let route = |shard: &mut Shard| {
        let mut routed = Routed::new();
        let decided =
            shard
                .machine
                .decide_enqueue(destination.expect("defined"), true, false, &mut routed);
        decided.expect("resolved");
        (routed.queue_count(), routed.is_journaled())
    };
    // Nobody is there to take it.
    assert_eq!(route(&mut shard), (0, false));
    let first = shard.attach(queue, 1);
    let second = shard.attach(queue, 0);
    assert_eq!(route(&mut shard), (1, true));
    shard.send_until(b"q.a", 0);
    shard.send_until(b"q.a", 0);
    shard.dispatch();
    shard.detach(first);
    let counts = shard.machine.counts(queue).expect("there");
    assert_eq!((counts.ready, counts.unsettled), (2, 0));
    shard.detach(second);
    let left = shard.queue(b"q.a");
    assert_eq!(shard.machine.counts(left), Some(QueueCounts::default()));
    assert!(shard.decision.is_empty(), "the queue itself is there");
}

#[test]
fn every_consumer_of_an_exclusive_queue_is_exclusive() {
    let mut shard = Shard::with(PolicySettings {
        is_exclusive: Some(true),
        ..PolicySettings::default()
    });
    let queue = shard.queue(b"q.a");
    let first = shard.attach(queue, 9);
    let second = shard.attach(queue, 9);
    shard.sends(b"q.a", 4);
    let takers = |shard: &mut Shard| {
        let deliveries = shard.dispatch().into_iter();
        deliveries.map(|(taker, _)| taker).collect::<Vec<_>>()
    };
    assert_eq!(takers(&mut shard), [first; 4]);
    shard.detach(first);
    assert_eq!(takers(&mut shard), [second; 4]);
}
