//! Filters and groups by hand. Random histories of both: `tests/queue_model/selective.rs`.

use forebay_journal::format::Annotations;

use super::*;

/// Takes messages with an even name.
const EVEN: FilterId = FilterId(0);
const ODD: FilterId = FilterId(1);

impl Shard {
    fn grouped(&mut self, group: u64, is_group_end: bool) -> u64 {
        self.send_annotated(4, group, is_group_end)
    }

    fn send_annotated(&mut self, priority: u8, group: u64, is_group_end: bool) -> u64 {
        let found = self.machine.resolve(Routing::Anycast, b"q");
        let mut routed = core::mem::take(&mut self.routed);
        let decided =
            self.machine
                .decide_enqueue(found.expect("defined"), true, false, &mut routed);
        decided.expect("resolved just now");
        let fields = MessageFields {
            body_size: 4,
            priority,
            ..MessageFields::default()
        };
        let annotations = Annotations {
            group,
            is_group_end,
            ..Annotations::default()
        };
        let fact = routed.fact(fields, annotations, Parts::EMPTY, Parts::One(b"body"));
        let at = self.place();
        self.machine.evolve(&fact, at, &mut self.effects);
        let message = routed.message().0;
        self.routed = routed;
        message
    }

    fn attach_with(&mut self, queue: QueueId, credit: u32, filter: FilterId) -> ConsumerId {
        let attached = self.machine.attach(&Attachment {
            queue,
            link: 1,
            tag: 2,
            credit: Credit::Messages(credit),
            credit_bytes: None,
            settlement: Settlement::ByConsumer,
            rank: Rank::default(),
            filter: Some(filter),
        });
        attached.expect("there is room")
    }

    /// Answers all questions, each by whether the message's number is even; how many there were.
    fn examine(&mut self) -> usize {
        let mut count = 0;
        while let Some(Examine {
            queue,
            filter,
            message,
        }) = self.machine.poll_examine()
        {
            let is_match = message.message.0 % 2 == filter.0;
            self.machine
                .note_examined(queue, filter, message.message, is_match);
            if count % 1000 == 0 {
                self.machine.check_invariants();
            }
            count += 1;
        }
        count
    }

    /// All that goes, with all that has to be asked for it.
    fn run(&mut self) -> Vec<(ConsumerId, u64)> {
        let mut delivered = Vec::new();
        loop {
            let asked = self.examine();
            let more = self.dispatch();
            self.machine.check_invariants();
            if asked == 0 && more.is_empty() {
                return delivered;
            }
            delivered.extend(more);
        }
    }

    fn settle_all(&mut self, consumer: ConsumerId) {
        let all = Selection::Upto(self.machine.last_tag(consumer));
        let settled = self.settle(consumer, all);
        settled.expect("it holds something");
    }

    fn release_all(&mut self, consumer: ConsumerId) {
        let all = Selection::Upto(self.machine.last_tag(consumer));
        let machine = &self.machine;
        let decided = machine.decide_release(consumer, all, Return::Unused, 0, &mut self.decision);
        decided.expect("it holds something");
        self.apply();
    }

    fn leave(&mut self, consumer: ConsumerId) {
        let decided = self
            .machine
            .decide_detach(consumer, Return::Unused, 0, &mut self.decision);
        decided.expect("attached");
        self.apply();
        self.machine.detach(consumer);
        self.machine.check_invariants();
    }
}

impl Machine {
    fn last_tag(&self, consumer: ConsumerId) -> u64 {
        let consumer = self.consumers.resolve(consumer).expect("attached");
        let tags = consumer.outstanding().map(|one| one.tag);
        tags.max().expect("it holds something")
    }
}

fn of(delivered: &[(ConsumerId, u64)], consumer: ConsumerId) -> Vec<u64> {
    let own = delivered.iter().filter(|(one, _)| *one == consumer);
    own.map(|(_, message)| *message).collect()
}

#[test]
fn what_does_not_match_hides_nothing_behind_it() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let sent = shard.sends(b"q", 5001);
    let (even, odd): (Vec<u64>, Vec<u64>) = sent.iter().partition(|one| **one % 2 == 0);
    let consumer = shard.attach_with(queue, 3, EVEN);
    assert_eq!(of(&shard.run(), consumer), even[..3]);
    assert!(shard.examine() == 0, "no more is asked than credit allows");
    // The rest is for somebody else, in its order.
    shard.settle_all(consumer);
    shard.leave(consumer);
    let other = shard.attach_with(queue, 200_000, ODD);
    let third = shard.attach(queue, 200_000);
    let delivered = shard.run();
    let rest = [of(&delivered, other), of(&delivered, third)].concat();
    assert_eq!(rest.len(), sent.len() - 3);
    assert!(of(&delivered, other).iter().all(|one| odd.contains(one)));
    assert!(of(&delivered, other).is_sorted() && of(&delivered, third).is_sorted());
}

#[test]
fn equal_filters_are_asked_once_and_take_turns() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumers = [(); 2].map(|()| shard.attach_with(queue, 10, ODD));
    let sent = shard.sends(b"q", 8);
    assert_eq!(shard.examine(), 8);
    let odd: Vec<u64> = sent.into_iter().filter(|one| one % 2 == 1).collect();
    let delivered = shard.run();
    assert_eq!(of(&delivered, consumers[0]), [odd[0], odd[2]]);
    assert_eq!(of(&delivered, consumers[1]), [odd[1], odd[3]]);
}

#[test]
fn who_has_the_head_at_hand_asks_all_filters_that_wait_for_nothing_else() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    shard.sends(b"q", 1);
    for filter in [EVEN, ODD] {
        shard.attach_with(queue, 0, filter);
    }
    let message = MessageId(shard.sends(b"q", 1)[0]);
    let open = |shard: &Shard| shard.machine.open_filters(queue, message).count();
    assert_eq!(open(&shard), 0, "one before it is open");
    shard.machine.note_examined(queue, EVEN, message, true);
    assert_eq!(open(&shard), 0, "an answer out of turn is none");
    let first = MessageId(message.0 - 1);
    shard.machine.note_examined(queue, EVEN, first, false);
    let open: Vec<FilterId> = shard.machine.open_filters(queue, message).collect();
    assert_eq!(open, [EVEN]);
    assert_eq!(shard.machine.poll_examine(), None, "nobody has credit");
    // One of a higher priority waits for nothing before it.
    let urgent = MessageId(shard.send_annotated(9, 0, false));
    assert_eq!(shard.machine.open_filters(queue, urgent).count(), 2);
    shard.machine.check_invariants();
}

#[test]
fn more_than_is_remembered_is_asked_again_and_never_lost() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let count = 3 * crate::limits::FILTER_MATCHES_MAX;
    let sent = shard.sends(b"q", 2 * count);
    let odd: Vec<u64> = sent.into_iter().filter(|one| one % 2 == 1).collect();
    let consumer = shard.attach_with(queue, 200_000, ODD);
    assert_eq!(of(&shard.run(), consumer), odd);
    shard.release_all(consumer);
    assert_eq!(
        of(&shard.run(), consumer),
        odd,
        "given back, and gone again"
    );
    shard.settle_all(consumer);
    assert_eq!(
        shard.machine.counts(queue).expect("there").ready,
        count as u64
    );
}

#[test]
fn an_urgent_message_goes_first_though_others_are_known_to_match() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumer = shard.attach_with(queue, 2, ODD);
    let sent = shard.sends(b"q", 9);
    shard.machine.block(consumer).expect("attached");
    for message in &sent {
        let message = MessageId(*message);
        let open: Vec<_> = shard.machine.open_filters(queue, message).collect();
        assert_eq!(open, [ODD]);
        let is_match = message.0 % 2 == 1;
        shard.machine.note_examined(queue, ODD, message, is_match);
    }
    let urgent = [0; 2].map(|_| shard.send_annotated(7, 0, false));
    let urgent = urgent.into_iter().find(|one| one % 2 == 1).expect("one");
    shard.machine.unblock(consumer).expect("attached");
    let first = sent.into_iter().find(|one| one % 2 == 1).expect("one");
    assert_eq!(of(&shard.run(), consumer), [urgent, first]);
}

#[test]
fn a_group_stays_with_its_consumer_and_others_pass_it() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let [one, other] = [1, 4].map(|credit| shard.attach(queue, credit));
    let first = shard.grouped(7, false);
    assert_eq!(shard.run(), [(one, first)]);
    let second = shard.grouped(7, false);
    assert_eq!(shard.run(), [], "it has no credit, and nobody else may");
    let plain = shard.grouped(0, false);
    let elsewhere = shard.grouped(8, false);
    assert_eq!(of(&shard.run(), other), [plain, elsewhere]);
    shard.settle_all(one);
    assert_eq!(shard.run(), [(one, second)]);
    // It goes, and the group goes to the other one, in its order, from what came back on.
    let third = shard.grouped(7, false);
    shard.leave(one);
    assert_eq!(of(&shard.run(), other), [second, third]);
}

#[test]
fn a_group_that_ended_begins_with_anybody() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumers = [(); 2].map(|()| shard.attach(queue, 9));
    let [a, b] = [false, true].map(|is_end| shard.grouped(7, is_end));
    let [c, d] = [false; 2].map(|is_end| shard.grouped(7, is_end));
    let delivered = shard.run();
    // Both in one plan: the end is looked at there, not when it is settled.
    assert_eq!(of(&delivered, consumers[0]), [a, b]);
    assert_eq!(of(&delivered, consumers[1]), [c, d]);
    shard.settle_all(consumers[0]);
    shard.settle_all(consumers[1]);
    shard.machine.check_invariants();
}

#[test]
fn a_long_group_without_credit_does_not_hide_what_is_behind_it() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let slow = shard.attach(queue, 1);
    let first = shard.grouped(7, false);
    assert_eq!(shard.run(), [(slow, first)]);
    let rest: Vec<u64> = (0..10_000).map(|_| shard.grouped(7, false)).collect();
    let plain = shard.sends(b"q", 5);
    let other = shard.attach(queue, 1000);
    let mut delivered = Vec::new();
    // A search ends after so many steps and goes on later.
    while delivered.is_empty() {
        delivered = shard.dispatch();
        assert!(shard.machine.is_searching() || !delivered.is_empty());
    }
    assert_eq!(of(&delivered, other), plain);
    shard.settle_all(slow);
    assert_eq!(shard.run(), [(slow, rest[0])]);
}

#[test]
fn a_group_moves_to_who_takes_what_its_consumer_refuses() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let [even, odd] = [EVEN, ODD].map(|filter| shard.attach_with(queue, 9, filter));
    let sent = [false; 4].map(|is_end| shard.grouped(7, is_end));
    let parts = [0, 1].map(|rest| sent.into_iter().filter(move |one| one % 2 == rest));
    let [evens, odds] = parts.map(Iterator::collect::<Vec<u64>>);
    let delivered = shard.run();
    assert_eq!(of(&delivered, even), evens);
    assert_eq!(delivered.len(), 2, "the group is with one at a time");
    shard.settle_all(even);
    let delivered = shard.run();
    assert_eq!(of(&delivered, odd), odds);
    assert_eq!(delivered.len(), 2);
}

#[test]
fn only_the_oldest_idle_groups_are_forgotten() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let consumers = [(); 2].map(|()| shard.attach(queue, 200_000));
    let max = crate::limits::GROUPS_IDLE_MAX as u64;
    for group in 1..=max + 10 {
        shard.grouped(group, false);
    }
    shard.dispatch();
    for consumer in consumers {
        shard.settle_all(consumer);
    }
    shard.machine.check_invariants();
}

#[test]
fn a_handout_is_the_same_in_a_replay() {
    let mut shard = Shard::new();
    let queue = shard.queue(b"q");
    let sent: Vec<u64> = (0..6).map(|n| shard.grouped(n % 2, false)).collect();
    let list = [sent[4], sent[1]].map(U64::new);
    let handout = Fact::from(Record::Handout {
        queue,
        messages: IdList(&list),
    });
    shard
        .machine
        .evolve(&handout, Place::NONE, &mut shard.effects);
    shard.machine.finish_replay().expect("all is there");
    let attempts: Vec<u16> = shard.machine.ready(queue).map(|one| one.attempts).collect();
    assert_eq!(attempts, [0, 1, 0, 0, 1, 0]);
    shard.machine.check_invariants();
}
