//! Edge cases by hand. The whole is held by `tests/queue_model`.

use forebay_journal::format::{
    Annotations, IdList, MessageFields, Outcome, Parts, Record, Routing,
};
use forebay_journal::{Location, MessageId, QueueId, SegmentId};
use zerocopy::little_endian::U64;

use super::*;

mod operate;
mod policies;
mod selective;
mod slow;

const LIMITS: Limits = Limits {
    queues_max: 2000,
    consumers_max: 2000,
    unsettled_max: 200_000,
    dispatch_max: 256,
};

/// A machine and a journal that only counts places.
struct Shard {
    machine: Machine,
    decision: Decision,
    routed: Routed,
    effects: Vec<Effect>,
    written: u32,
}

impl Shard {
    fn new() -> Self {
        Self::with_policies(Policies::default())
    }

    fn with_policies(policies: Policies) -> Self {
        Self {
            machine: Machine::new(LIMITS, policies),
            decision: Decision::new(),
            routed: Routed::new(),
            effects: Vec::new(),
            written: 0,
        }
    }

    fn place(&mut self) -> Place {
        self.written += 1;
        let segment = SegmentId::ZERO.plus(1 + u64::from(self.written / 1000));
        let offset = u64::from(self.written % 1000) * 4096;
        Place::Journal(Location::new(segment, offset, 192))
    }

    fn apply(&mut self) {
        let decision = core::mem::take(&mut self.decision);
        for fact in decision.facts() {
            let at = if fact.is_journaled {
                self.place()
            } else {
                Place::NONE
            };
            self.machine.evolve(&fact, at, &mut self.effects);
        }
        self.decision = decision;
    }

    fn queue(&mut self, address: &[u8]) -> QueueId {
        let queue = self.machine.decide_queue(address, &mut self.decision);
        self.apply();
        queue.expect("there is room")
    }

    fn subscription(&mut self, address: &[u8]) -> QueueId {
        let queue = self
            .machine
            .decide_subscription(&Topic::plain(address), &mut self.decision);
        self.apply();
        queue.expect("there is room")
    }

    fn attach(&mut self, queue: QueueId, credit: u32) -> ConsumerId {
        let attached = self.machine.attach(&Attachment {
            queue,
            link: 1,
            tag: 2,
            credit: Credit::Messages(credit),
            credit_bytes: None,
            settlement: Settlement::ByConsumer,
            rank: Rank::default(),
            filter: None,
        });
        attached.expect("there is room")
    }

    fn send(&mut self, routing: Routing, address: &[u8], is_persistent: bool) -> MessageId {
        self.send_with(routing, address, is_persistent, 0)
    }

    /// A durable message to a queue that expires then.
    fn send_until(&mut self, address: &[u8], expires_unix_ms: u64) -> u64 {
        self.send_with(Routing::Anycast, address, true, expires_unix_ms)
            .0
    }

    fn send_with(
        &mut self,
        routing: Routing,
        address: &[u8],
        is_persistent: bool,
        expires_unix_ms: u64,
    ) -> MessageId {
        let destination = self.machine.resolve(routing, address).expect("defined");
        let mut routed = core::mem::take(&mut self.routed);
        self.machine
            .decide_enqueue(destination, is_persistent, false, &mut routed)
            .expect("resolved just now");
        let at = if routed.is_journaled() {
            self.place()
        } else {
            Place::Volatile(5)
        };
        let fields = MessageFields {
            body_size: 4,
            expires_unix_ms,
            ..MessageFields::default()
        };
        let fact = routed.fact(
            fields,
            Annotations::default(),
            Parts::EMPTY,
            Parts::One(b"body"),
        );
        self.machine.evolve(&fact, at, &mut self.effects);
        let message = routed.message();
        self.routed = routed;
        message
    }

    fn sends(&mut self, address: &[u8], count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| self.send(Routing::Anycast, address, true).0)
            .collect()
    }

    /// Dispatches all there is; returns consumer and message of each delivery.
    fn dispatch(&mut self) -> Vec<(ConsumerId, u64)> {
        self.effects.clear();
        while let Some(queue) = self.machine.poll_dispatch() {
            self.machine.decide_dispatch(queue, &mut self.decision);
            assert!(!self.decision.is_empty(), "polled");
            self.apply();
        }
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Deliver {
                    consumer, message, ..
                } => Some((*consumer, message.0)),
                _ => None,
            })
            .collect()
    }

    fn settle(&mut self, consumer: ConsumerId, selection: Selection) -> Result<Vec<u64>, Refused> {
        self.machine
            .decide_settle(consumer, selection, Outcome::Accepted, &mut self.decision)?;
        let settled = self.decision.facts().flat_map(ids_of).collect();
        self.apply();
        Ok(settled)
    }

    fn release(&mut self, consumer: ConsumerId, selection: Selection) -> Result<(), Refused> {
        self.machine
            .decide_release(consumer, selection, Return::Unused, 0, &mut self.decision)?;
        self.apply();
        Ok(())
    }

    fn detach(&mut self, consumer: ConsumerId) {
        self.machine
            .decide_detach(consumer, Return::Unused, 0, &mut self.decision)
            .expect("attached");
        self.apply();
        self.machine.detach(consumer);
    }

    fn ready(&self, queue: QueueId) -> Vec<u64> {
        self.machine.ready(queue).map(|one| one.message.0).collect()
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.machine.check_invariants();
        }
    }
}

fn ids_of(fact: Fact<'_>) -> Vec<u64> {
    let (Record::Settle { messages, .. } | Record::Release { messages, .. }) = fact.record else {
        panic!("not about messages: {:?}", fact.record);
    };
    messages.messages().map(|id| id.0).collect()
}

#[test]
fn an_acknowledged_message_is_acknowledged_once() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumer = shard.attach(queue, 10);
    let sent = shard.sends(b"q", 2);
    shard.dispatch();
    assert_eq!(shard.settle(consumer, Selection::One(1)), Ok(vec![sent[0]]));
    for selection in [
        Selection::One(1),
        Selection::Upto(1),
        Selection::Message(MessageId(sent[0])),
        Selection::UptoMessage(MessageId(sent[0])),
        Selection::One(0),
        Selection::One(3),
        Selection::Upto(3),
        Selection::Upto(u64::MAX),
        Selection::Message(MessageId(99)),
    ] {
        let again = shard.settle(consumer, selection);
        assert_eq!(again, Err(Refused::UnknownDelivery), "{selection:?}");
        assert_eq!(
            shard.release(consumer, selection),
            Err(Refused::UnknownDelivery)
        );
    }
    assert_eq!(shard.machine.counts(queue).map(|c| c.unsettled), Some(1));
}

#[test]
fn a_cumulative_acknowledgement_passes_over_settled_ones() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumer = shard.attach(queue, 10);
    let sent = shard.sends(b"q", 5);
    shard.dispatch();
    assert_eq!(shard.settle(consumer, Selection::One(2)), Ok(vec![sent[1]]));
    assert_eq!(shard.settle(consumer, Selection::One(4)), Ok(vec![sent[3]]));
    // Tag 4 itself is settled; what lies before it is not.
    let rest = vec![sent[0], sent[2]];
    assert_eq!(shard.settle(consumer, Selection::Upto(4)), Ok(rest));
    assert_eq!(
        shard.settle(consumer, Selection::Upto(4)),
        Err(Refused::UnknownDelivery)
    );
    assert_eq!(
        shard.settle(consumer, Selection::Upto(5)),
        Ok(vec![sent[4]])
    );
}

#[test]
fn a_message_id_is_one_delivery_per_consumer() {
    let mut shard = Shard::new();
    let queues = [shard.subscription(b"t"), shard.subscription(b"t")];
    let [one, two] = queues.map(|queue| shard.attach(queue, 10));
    let first = shard.send(Routing::Multicast, b"t", true);
    let second = shard.send(Routing::Multicast, b"t", true);
    assert_eq!(shard.dispatch().len(), 4);
    assert_eq!(
        shard.settle(one, Selection::Message(second)),
        Ok(vec![second.0])
    );
    let gone = shard.settle(one, Selection::Message(second));
    assert_eq!(gone, Err(Refused::UnknownDelivery));
    let both = shard.settle(two, Selection::UptoMessage(second));
    assert_eq!(both, Ok(vec![first.0, second.0]));
    let forgotten = shard
        .effects
        .iter()
        .filter(|e| matches!(e, Effect::Forget { slot: 5 }));
    assert_eq!(forgotten.count(), 3, "one per queue that let go");
}

#[test]
fn a_message_id_reaches_only_its_holder() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let (one, two) = (shard.attach(queue, 10), shard.attach(queue, 10));
    let sent = shard.sends(b"q", 4);
    assert_eq!(
        shard.dispatch(),
        [
            (one, sent[0]),
            (two, sent[1]),
            (one, sent[2]),
            (two, sent[3])
        ]
    );
    let foreign = shard.settle(two, Selection::Message(MessageId(sent[2])));
    assert_eq!(foreign, Err(Refused::UnknownDelivery));
    let upto = shard.settle(one, Selection::UptoMessage(MessageId(sent[2])));
    assert_eq!(upto, Ok(vec![sent[0], sent[2]]));
}

#[test]
fn released_messages_go_back_to_their_places() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let (one, two) = (shard.attach(queue, 4), shard.attach(queue, 4));
    let sent = shard.sends(b"q", 12);
    shard.dispatch();
    assert_eq!(shard.ready(queue), sent[8..]);
    for who in [one, two] {
        shard.machine.block(who).expect("attached");
    }
    // In the order 5, 1, 3, and then all the others at once.
    for tag in [3, 1, 2] {
        shard.release(one, Selection::One(tag)).expect("held");
    }
    assert_eq!(
        shard.ready(queue),
        [&[sent[0], sent[2], sent[4]], &sent[8..]].concat()
    );
    shard.release(two, Selection::Upto(4)).expect("held");
    assert_eq!(
        shard.ready(queue),
        [&sent[..6], &sent[7..]].concat(),
        "all but the seventh"
    );
    assert_eq!(shard.dispatch(), [], "both are blocked");
    shard.machine.unblock(two).expect("attached");
    let again: Vec<_> = sent[..4].iter().map(|id| (two, *id)).collect();
    assert_eq!(shard.dispatch(), again);
    let Some(Effect::Deliver {
        attempts: 1,
        is_redelivered: true,
        delivery_tag: 5,
        ..
    }) = shard.effects.first()
    else {
        panic!("not the second attempt: {:?}", shard.effects.first());
    };
}

#[test]
fn turns_go_round_and_late_credit_waits_for_its_turn() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumers = [3, 1, 2].map(|credit| shard.attach(queue, credit));
    let sent = shard.sends(b"q", 9);
    let [a, b, c] = consumers;
    let holders: Vec<_> = shard.dispatch().iter().map(|(who, _)| *who).collect();
    assert_eq!(holders, [a, b, c, a, c, a]);
    shard.settle(b, Selection::One(1)).expect("held");
    shard.machine.add_credit(a, 5).expect("attached");
    assert_eq!(shard.dispatch(), [(b, sent[6]), (a, sent[7]), (a, sent[8])]);
}

#[test]
fn a_slow_consumer_does_not_grow_the_lists_of_a_fast_one() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let (slow, fast) = (shard.attach(queue, 1), shard.attach(queue, 100));
    for _ in 0..500 {
        shard.sends(b"q", 20);
        let delivered = shard.dispatch();
        let last = delivered.iter().filter(|(who, _)| *who == fast).count();
        assert!(last > 0);
        // Also the fast one never settles its first delivery.
        for (who, message) in delivered {
            if who == fast && message > 2 {
                let done = shard.settle(fast, Selection::Message(MessageId(message)));
                done.expect("held");
            }
        }
        shard.machine.check_invariants();
    }
    assert_eq!(shard.machine.counts(queue).map(|c| c.unsettled), Some(2));
    assert_eq!(shard.settle(slow, Selection::One(1)), Ok(vec![1]));
}

#[test]
fn a_hundred_thousand_unsettled_come_back_without_quadratic_work() {
    const COUNT: usize = 100_000;
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    // The even ones stay with a second consumer, so that nothing is a plain prefix.
    let (one, two) = (shard.attach(queue, 200_000), shard.attach(queue, 200_000));
    let sent = shard.sends(b"q", 2 * COUNT);
    assert_eq!(shard.dispatch().len(), 2 * COUNT);
    shard.detach(one);
    assert!(shard.ready(queue).iter().eq(sent.iter().step_by(2)));
    assert_eq!(shard.dispatch().len(), COUNT, "the second takes them");
    // Now it holds all in an order of its own, and gives each back alone, from the front.
    shard.machine.block(two).expect("attached");
    let tags = (1..=COUNT as u64).chain(COUNT as u64 + 1..=2 * COUNT as u64);
    for tag in tags.step_by(2) {
        shard.release(two, Selection::One(tag)).expect("held");
    }
    shard.detach(two);
    assert_eq!(shard.ready(queue), sent);
}

#[test]
fn returned_messages_merge_from_the_nearer_end() {
    let entry = |id: u64| entry::Entry::new(MessageId(id), Place::Volatile(0), 0, false, 4);
    let entries = |ids: &[u64]| ids.iter().map(|id| entry(*id)).collect::<Vec<_>>();
    for (listed, returned) in [
        (vec![], vec![1, 2]),
        (vec![5], vec![1, 9]),
        (vec![1, 3, 10, 11, 12, 13], vec![2, 4]),
        (vec![1, 2, 3, 4, 10, 12], vec![9, 11, 13]),
        (vec![2, 4, 6, 8], vec![1, 3, 5, 7, 9]),
        (vec![4, 5, 6], vec![1, 2, 3]),
        (vec![1, 2, 3], vec![4]),
    ] {
        let mut ready = ready::Ready::default();
        entries(&listed)
            .into_iter()
            .for_each(|entry| ready.insert(entry));
        ready.merge(&mut entries(&returned));
        let mut expected = [listed, returned].concat();
        expected.sort_unstable();
        let found: Vec<u64> = ready.iter().map(|entry| entry.message).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn places_survive_packing() {
    let corners = [
        (1, 4096, 192),
        (
            u64::from(u32::MAX),
            u64::from(u32::MAX) * 4096,
            256 * 1024 - 8,
        ),
    ];
    for (segment, block, record) in corners {
        let segment = SegmentId::ZERO.plus(segment);
        let place = Place::Journal(Location::new(segment, block, record));
        for is_shared in [false, true] {
            let entry = entry::Entry::new(MessageId(7), place, 1, is_shared, 9);
            assert_eq!((entry.place(), entry.is_shared()), (place, is_shared));
            assert!(entry.is_durable());
            let delivered = (0..5000).fold(entry, |entry, _| entry.delivered_again());
            assert_eq!((delivered.attempts(), delivered.priority()), (2047, 9));
        }
    }
    let volatile = entry::Entry::new(MessageId(7), Place::Volatile(u32::MAX), 1, false, 0);
    assert_eq!(volatile.place(), Place::Volatile(u32::MAX));
    assert!(!volatile.is_durable());
}

#[test]
fn limits_refuse_and_change_nothing() {
    let mut shard = Shard::new();
    shard.machine.limits = Limits {
        queues_max: 1,
        consumers_max: 1,
        unsettled_max: 3,
        dispatch_max: 256,
    };
    let queue = shard.queue(b"q");
    let full = shard.machine.decide_queue(b"r", &mut shard.decision);
    assert_eq!(full, Err(Refused::QueuesFull { max: 1 }));
    let full = shard
        .machine
        .decide_subscription(&Topic::plain(b"q"), &mut shard.decision);
    assert_eq!(full, Err(Refused::QueuesFull { max: 1 }));
    assert_eq!(shard.queue(b"q"), queue, "what is there is found");
    let consumer = shard.attach(queue, 1000);
    let attachment = Attachment {
        queue,
        link: 0,
        tag: 0,
        credit: Credit::Unlimited,
        credit_bytes: None,
        settlement: Settlement::OnHandover,
        rank: Rank::default(),
        filter: None,
    };
    let full = shard.machine.attach(&attachment);
    assert_eq!(full, Err(Refused::ConsumersFull { max: 1 }));
    shard.sends(b"q", 5);
    assert_eq!(
        shard.dispatch().len(),
        3,
        "no window is wider than the limit"
    );
    shard.detach(consumer);
    let id = shard
        .machine
        .attach(&attachment)
        .expect("there is room again");
    assert_ne!(id, consumer);
    assert_eq!(shard.machine.block(consumer), Err(Refused::UnknownConsumer));
    shard.dispatch();
    let handed = shard
        .machine
        .decide_settle_delivered(id, 2, &mut shard.decision);
    assert_eq!(handed, Ok(()));
    shard.apply();
    assert_eq!(
        shard.machine.counts(queue).map(|c| (c.ready, c.unsettled)),
        Some((2, 1))
    );
}

#[test]
fn long_names_are_refused() {
    let mut shard = Shard::new();
    let name = vec![b'x'; 70_000];
    let refused = shard.machine.decide_queue(&name, &mut shard.decision);
    let expected = Refused::NameTooLong {
        size: 70_000,
        max: 65_535,
    };
    assert_eq!(refused, Err(expected));
}

#[test]
fn a_destination_goes_with_its_last_queue() {
    let mut shard = Shard::new();
    let queue = shard.subscription(b"t");
    let consumer = shard.attach(queue, 1);
    let old = shard
        .machine
        .resolve(Routing::Multicast, b"t")
        .expect("subscribed");
    assert_eq!(shard.machine.resolve(Routing::Anycast, b"t"), None);
    shard.detach(consumer);
    assert_eq!(shard.machine.resolve(Routing::Multicast, b"t"), None);
    shard.subscription(b"other");
    let stale = shard
        .machine
        .decide_enqueue(old, true, false, &mut shard.routed);
    assert_eq!(stale, Err(Refused::UnknownDestination));
}

#[test]
fn a_persistent_message_to_plain_subscriptions_is_volatile() {
    let mut shard = Shard::new();
    let queue = shard.subscription(b"t");
    shard.attach(queue, 1);
    shard.send(Routing::Multicast, b"t", true);
    assert!(!shard.routed.is_journaled());
    let queue = shard.machine.poll_dispatch().expect("has work");
    shard.machine.decide_dispatch(queue, &mut shard.decision);
    let is_journaled: Vec<bool> = shard.decision.facts().map(|f| f.is_journaled).collect();
    assert_eq!(is_journaled, [false]);
}

#[test]
fn only_durable_messages_are_settled_on_disk() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumer = shard.attach(queue, 9);
    let sent: Vec<u64> = [true, false, true, false]
        .map(|is_persistent| shard.send(Routing::Anycast, b"q", is_persistent).0)
        .to_vec();
    shard.dispatch();
    let all = Selection::Upto(4);
    let decided =
        shard
            .machine
            .decide_settle(consumer, all, Outcome::Accepted, &mut shard.decision);
    decided.expect("held");
    let facts: Vec<_> = shard
        .decision
        .facts()
        .map(|f| (f.is_journaled, ids_of(f)))
        .collect();
    assert_eq!(
        facts,
        [
            (true, vec![sent[0], sent[2]]),
            (false, vec![sent[1], sent[3]])
        ]
    );
    shard.apply();
}

#[test]
fn long_lists_make_several_records() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumer = shard.attach(queue, 10_000);
    let sent = shard.sends(b"q", 10_000);
    shard.dispatch();
    shard
        .machine
        .decide_detach(consumer, Return::Unused, 0, &mut shard.decision)
        .expect("attached");
    let sizes: Vec<usize> = shard
        .decision
        .facts()
        .map(|fact| ids_of(fact).len())
        .collect();
    assert_eq!(sizes, [4096, 4096, 1808]);
    shard.apply();
    assert_eq!(shard.ready(queue), sent);
}

#[test]
fn floors_come_due_before_ids_could_come_twice() {
    let mut shard = Shard::new();
    shard.machine.next_message = (1 << 31) + 1;
    assert!(shard.machine.needs_floor());
    let floors = Record::Retained {
        oldest_segment: SegmentId::ZERO.next(),
        message_floor: shard.machine.message_floor(),
        queue_floor: shard.machine.queue_floor(),
    };
    let at = shard.place();
    shard
        .machine
        .evolve(&Fact::from(floors), at, &mut shard.effects);
    assert!(!shard.machine.needs_floor());

    shard.machine.next_message += 1 << 31;
    assert!(shard.machine.needs_floor());
    shard.queue(b"q");
    shard.sends(b"q", 1);
    assert!(
        !shard.machine.needs_floor(),
        "the message itself is a floor"
    );
}

#[test]
fn a_replay_with_holes_is_damage() {
    let queues = [U64::new(4)];
    let message = |upload: u64, body_size: u64| {
        Fact::from(Record::Message {
            fields: MessageFields {
                message: MessageId(9),
                upload,
                body_size,
                ..MessageFields::default()
            },
            annotations: Annotations::default(),
            queues: IdList(&queues),
            head: Parts::EMPTY,
            body: Parts::One(b"body"),
        })
    };
    let mut undefined = Shard::new();
    let at = undefined.place();
    undefined
        .machine
        .evolve(&message(0, 4), at, &mut Vec::new());
    let damaged = undefined.machine.finish_replay();
    assert_eq!(damaged.map_err(|damaged| damaged.undefined_queues), Err(1));

    let mut incomplete = Shard::new();
    let definition = Fact::from(Record::QueueDefine {
        queue: QueueId(4),
        routing: Routing::Anycast,
        flags: forebay_journal::format::QueueFlags::default(),
        address: b"q",
        name: b"q",
        filter: b"",
    });
    for fact in [message(8, 100), definition] {
        let at = incomplete.place();
        incomplete.machine.evolve(&fact, at, &mut Vec::new());
    }
    let damaged = incomplete.machine.finish_replay();
    assert_eq!(
        damaged.map_err(|damaged| damaged.incomplete_messages),
        Err(1)
    );
}

fn durable(shard: &mut Shard, name: &[u8], address: &[u8]) -> Result<QueueId, Refused> {
    let machine = &shard.machine;
    let queue = machine.decide_subscription(&Topic::durable(name, address), &mut shard.decision)?;
    shard.apply();
    Ok(queue)
}

#[test]
fn a_durable_subscription_takes_one_consumer_and_keeps_what_came_meanwhile() {
    let mut shard = Shard::new();
    let queue = durable(&mut shard, b"c.s", b"news").expect("there is room");
    let consumer = shard.attach(queue, 10);
    let again = durable(&mut shard, b"c.s", b"news");
    assert_eq!(again, Err(Refused::SubscriptionInUse));
    let kept = [true, false].map(|is_persistent| {
        let message = shard.send(Routing::Multicast, b"news", is_persistent);
        (consumer, message.0)
    });
    assert_eq!(shard.dispatch(), kept);
    shard
        .machine
        .decide_detach(consumer, Return::Unused, 0, &mut shard.decision)
        .expect("attached");
    shard.apply();
    shard.machine.detach(consumer);
    let later = shard.send(Routing::Multicast, b"news", true);
    assert_eq!(durable(&mut shard, b"c.s", b"news"), Ok(queue));
    assert!(shard.decision.is_empty(), "it was there");
    let consumer = shard.attach(queue, 10);
    let waiting = [kept[0].1, kept[1].1, later.0];
    assert_eq!(shard.dispatch(), waiting.map(|message| (consumer, message)));
    shard.machine.check_invariants();
}

#[test]
fn a_durable_subscription_to_another_topic_replaces_the_former() {
    let mut shard = Shard::new();
    let first = durable(&mut shard, b"c.s", b"news").expect("there is room");
    shard.send(Routing::Multicast, b"news", true);
    let second = durable(&mut shard, b"c.s", b"weather").expect("nobody is attached");
    assert_ne!(first, second);
    assert_eq!(shard.decision.facts().len(), 2, "deleted, and defined");
    assert_eq!(shard.machine.resolve(Routing::Multicast, b"news"), None);
    let consumer = shard.attach(second, 1);
    let refused = durable(&mut shard, b"c.s", b"news");
    assert_eq!(refused, Err(Refused::SubscriptionInUse));
    shard
        .machine
        .decide_unsubscribe(consumer, &mut shard.decision)
        .expect("attached");
    shard.apply();
    assert!(!shard.machine.has_consumer(consumer));
    assert_eq!(shard.machine.queues().count(), 0);
    shard.machine.check_invariants();
}

#[test]
fn a_queue_of_the_same_name_is_no_durable_subscription() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"c.s");
    let machine = &shard.machine;
    machine
        .decide_forget(b"c.s", None, &mut shard.decision)
        .expect("nobody is attached");
    assert!(shard.decision.is_empty());
    let subscription = durable(&mut shard, b"c.s", b"c.s").expect("there is room");
    assert_ne!(queue, subscription);
    assert_eq!(shard.queue(b"c.s"), queue);
    let machine = &shard.machine;
    machine
        .decide_forget(b"c.s", None, &mut shard.decision)
        .expect("nobody is attached");
    shard.apply();
    assert_eq!(shard.machine.queues().collect::<Vec<_>>(), [queue]);
    shard.machine.check_invariants();
}

#[test]
fn a_full_shard_refuses_a_durable_subscription_before_it_deletes_one() {
    let mut shard = Shard::new();
    durable(&mut shard, b"c.s", b"news").expect("there is room");
    while shard.machine.queues().count() < LIMITS.queues_max {
        shard.subscription(b"news");
    }
    let full = Refused::QueuesFull {
        max: LIMITS.queues_max,
    };
    assert_eq!(durable(&mut shard, b"c.t", b"news"), Err(full));
    durable(&mut shard, b"c.s", b"weather").expect("it takes the place of the former");
    let news = shard.machine.queues().nth(1).expect("many are there");
    for _ in 0..LIMITS.consumers_max {
        shard.attach(news, 1);
    }
    let full = Refused::ConsumersFull {
        max: LIMITS.consumers_max,
    };
    assert_eq!(durable(&mut shard, b"c.s", b"news"), Err(full));
    assert!(shard.decision.is_empty());
}

#[test]
fn messages_leave_the_middle_of_a_list_at_once_and_twice_is_once() {
    let entry =
        |id: u64| entry::Entry::new(MessageId(id), Place::Volatile(0), 0, false, (id % 3) as u8);
    for gone in [
        vec![],
        vec![1],
        vec![18],
        vec![3, 1, 2],
        vec![4, 7, 4, 10],
        vec![17, 2, 5, 9],
        (1..=18).rev().collect(),
    ] {
        let mut ready = ready::Ready::default();
        (1..=18).for_each(|id| ready.insert(entry(id)));
        let mut entries = gone.iter().map(|id| entry(*id)).collect::<Vec<_>>();
        ready.remove(&mut entries);
        let mut found: Vec<u64> = ready.iter().map(|entry| entry.message).collect();
        found.sort_unstable();
        let expected: Vec<u64> = (1..=18).filter(|id| !gone.contains(id)).collect();
        assert_eq!(found, expected, "without {gone:?}");
        assert_eq!(ready.len(), expected.len());
    }
}

#[test]
fn what_expires_all_over_a_deep_queue_goes_without_quadratic_work() {
    const COUNT: u64 = 400_000;
    let mut shard = Shard::new();
    shard.machine.limits.dispatch_max = 4096;
    let queue = shard.queue(b"q");
    for number in 0..COUNT {
        // Every other one expires, in an order that has nothing to do with theirs.
        let at = 1 + number * 7919 % COUNT;
        shard.send_until(b"q", if number % 2 == 0 { at } else { 0 });
    }
    while shard.machine.next_expiry_unix_ms().is_some() {
        shard.machine.decide_expire(u64::MAX, &mut shard.decision);
        shard.apply();
    }
    assert_eq!(shard.ready(queue).len() as u64, COUNT / 2);
    assert_eq!(shard.machine.expiring.counts(), (0, 0));
}

#[test]
fn nothing_overdue_is_handed_out_though_more_is_overdue_than_was_dropped() {
    let mut shard = Shard::new();
    shard.machine.limits.dispatch_max = 4;
    let (q, r) = (shard.queue(b"q"), shard.queue(b"r"));
    for queue in [q, r] {
        shard.attach(queue, 100);
    }
    let sent = [0, 10, 10, 90, 10, 10].map(|at| shard.send_until(b"q", at));
    shard.sends(b"r", 1);
    let front = |shard: &mut Shard, now_unix_ms| {
        shard
            .machine
            .decide_expire_front(q, now_unix_ms, &mut shard.decision);
        let dropped = shard.decision.facts().flat_map(ids_of).collect::<Vec<_>>();
        shard.apply();
        dropped
    };
    assert_eq!(shard.machine.poll_dispatch(), Some(q));
    assert_eq!(front(&mut shard, 9), [0; 0], "nothing is over");
    assert_eq!(front(&mut shard, 50), sent[1..3]);
    shard.machine.pass_turn(q);
    assert_eq!(shard.machine.poll_dispatch(), Some(r), "the others' turn");
    assert_eq!(front(&mut shard, 0), [0; 0], "the clock went back");
    assert_eq!(front(&mut shard, 50), sent[4..]);
    assert_eq!(front(&mut shard, 50), [0; 0]);
    assert_eq!(shard.ready(q), [sent[0], sent[3]]);
}
