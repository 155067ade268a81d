//! What an operator does to a queue. The whole is held by `tests/queue_model`.

use super::*;

impl Shard {
    fn pause(&mut self, queue: QueueId, is_paused: bool) -> usize {
        let decided = self
            .machine
            .decide_pause(queue, is_paused, &mut self.decision);
        assert_eq!(decided, Ok(()));
        let count = self.decision.facts().len();
        self.apply();
        self.machine.check_invariants();
        count
    }

    fn drop_some(&mut self, queue: QueueId, purge: Purge, most: usize) -> (u64, Option<Purge>) {
        let next = self
            .machine
            .decide_drop(queue, purge, most, &mut self.decision);
        let count = self.decision.message_count();
        self.apply();
        self.machine.check_invariants();
        (count, next.expect("it is there"))
    }
}

#[test]
fn a_paused_queue_takes_messages_and_hands_out_none_until_it_goes_on() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    shard.attach(queue, 9);
    shard.send(Routing::Anycast, b"q", true);
    assert_eq!(shard.machine.poll_dispatch(), Some(queue));
    assert_eq!(shard.pause(queue, true), 1);
    assert_eq!(shard.pause(queue, true), 0, "it is so already");
    shard.send(Routing::Anycast, b"q", false);
    shard.attach(queue, 9);
    assert_eq!(shard.machine.poll_dispatch(), None);
    shard.machine.decide_dispatch(queue, &mut shard.decision);
    assert!(shard.decision.is_empty());
    assert_eq!(shard.machine.counts(queue).unwrap().ready, 2);
    assert_eq!(shard.pause(queue, false), 1);
    assert_eq!(shard.machine.poll_dispatch(), Some(queue));
    let gone = QueueId(99);
    let refused = shard.machine.decide_pause(gone, true, &mut shard.decision);
    assert_eq!(refused, Err(Refused::UnknownQueue));
}

#[test]
fn a_pause_is_repeated_with_the_definition_and_moves_to_what_takes_the_queues_place() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    shard.pause(queue, true);
    let far = SegmentId::ZERO.plus(1000);
    assert!(!shard.machine.decide_redefine(far, &mut shard.decision));
    let flags = shard.decision.facts().map(|fact| match fact.record {
        Record::QueueDefine { flags, .. } => flags.is_paused,
        other => panic!("only definitions: {other:?}"),
    });
    assert_eq!(flags.collect::<Vec<_>>(), [true]);
    shard.apply();
    assert!(shard.machine.is_paused(queue));
}

#[test]
fn a_purge_takes_what_was_there_when_it_began_and_nobody_holds() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    for number in 0..7 {
        shard.send(Routing::Anycast, b"q", number % 2 == 0);
    }
    let purge = shard.machine.begin_purge();
    shard.send(Routing::Anycast, b"q", true);
    let (first, next) = shard.drop_some(queue, purge, 4);
    assert_eq!(first, 4);
    let (second, next) = shard.drop_some(queue, next.expect("there is more"), 4);
    assert_eq!((second, next), (3, None));
    assert_eq!(
        shard.machine.counts(queue).unwrap().ready,
        1,
        "it came after"
    );
}

#[test]
fn names_mean_queues_and_durable_subscriptions_and_not_plain_ones() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"x");
    let plain = shard.subscription(b"x");
    let named = durable(&mut shard, b"x", b"t").expect("there is room");
    let found: Vec<_> = shard.machine.find(b"x").collect();
    assert_eq!(found, [queue, named]);
    assert_eq!(shard.machine.find(b"t").count(), 0);
    let listed: Vec<_> = shard.machine.queues_from(0).collect();
    assert_eq!(listed, [(1, queue), (2, plain), (3, named)]);
    let removed = shard
        .machine
        .decide_remove(queue, false, &mut shard.decision);
    assert_eq!(removed, Ok(()));
    shard.apply();
    let listed: Vec<_> = shard.machine.queues_from(1).collect();
    assert_eq!(listed, [(2, plain), (3, named)], "others keep their places");
    assert_eq!(shard.machine.queues_from(u32::MAX).count(), 0);
}

#[test]
fn a_queue_in_use_is_removed_by_force_alone() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    shard.attach(queue, 9);
    let refused = shard
        .machine
        .decide_remove(queue, false, &mut shard.decision);
    assert_eq!(refused, Err(Refused::QueueInUse));
    assert!(shard.decision.is_empty());
    assert_eq!(shard.machine.links_of(queue).collect::<Vec<_>>(), [1]);
    let forced = shard
        .machine
        .decide_remove(queue, true, &mut shard.decision);
    assert_eq!(forced, Ok(()));
    shard.apply();
    assert!(matches!(shard.effects[..], [Effect::Detached { .. }]));
    shard.machine.check_invariants();
}
