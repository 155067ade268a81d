//! Consumers that are watched, under a clock of the test.

use super::*;
use crate::pattern::Pattern;

const SECOND: u64 = 1_000_000;

/// Ten messages a second in periods of five seconds, for addresses under `q`.
fn watched(policy: SlowConsumer) -> Shard {
    let settings = PolicySettings {
        slow_consumer_threshold_per_s: Some(Some(10)),
        slow_consumer_check_period_s: Some(5),
        slow_consumer_policy: Some(policy),
        ..PolicySettings::default()
    };
    let pattern = Pattern::parse("q.#").expect("a pattern");
    Shard::with_policies(Policies::new(vec![(pattern, settings)]))
}

impl Shard {
    /// Looks whenever it is due up to this second, and says who was slow.
    fn look_until(&mut self, second: u64) -> Vec<SlowSeen> {
        self.look_while(second, |_| {}, |_| false)
    }

    fn look_while(
        &mut self,
        second: u64,
        mut between: impl FnMut(&mut Self),
        is_held: impl Fn(u64) -> bool,
    ) -> Vec<SlowSeen> {
        let (mut all, mut seen) = (Vec::new(), Vec::new());
        while let Some(due_us) = self.machine.next_look_us()
            && due_us <= second * SECOND
        {
            self.machine.look_at_consumers(due_us, &is_held, &mut seen);
            self.machine.check_invariants();
            all.append(&mut seen);
            between(self);
        }
        all
    }

    /// What was attached since is looked at from now on.
    fn begin_watch(&mut self, second: u64) {
        let mut seen = Vec::new();
        self.machine
            .look_at_consumers(second * SECOND, |_| false, &mut seen);
        self.machine.check_invariants();
        assert!(seen.is_empty());
    }

    fn fill(&mut self, address: &[u8], count: usize) {
        for _ in 0..count {
            self.send(Routing::Anycast, address, false);
        }
        self.dispatch();
    }

    /// A consumer without credit, and messages behind what it holds.
    fn lagging(&mut self, address: &[u8]) -> (QueueId, ConsumerId) {
        let queue = self.queue(address);
        let consumer = self.attach(queue, 2);
        self.begin_watch(0);
        self.fill(address, 300);
        (queue, consumer)
    }
}

#[test]
fn who_settles_less_than_the_threshold_while_messages_wait_is_slow_once_a_period() {
    for policy in [SlowConsumer::Warn, SlowConsumer::Disconnect] {
        let mut shard = watched(policy);
        let (queue, consumer) = shard.lagging(b"q.a");
        assert_eq!(shard.look_until(4), []);
        shard
            .settle(consumer, Selection::One(1))
            .expect("it has that");
        shard.dispatch();
        let expected = SlowSeen {
            link: 1,
            consumer_tag: 2,
            queue,
            settled: 1,
            elapsed_us: 5 * SECOND,
            policy,
        };
        assert_eq!(shard.look_until(5), [expected]);
        assert_eq!(shard.look_until(9), []);
        let settled = 0;
        assert_eq!(
            shard.look_until(10),
            [SlowSeen {
                settled,
                ..expected
            }]
        );
    }
}

#[test]
fn the_threshold_itself_is_fast_enough() {
    for (each_look, is_slow) in [(9, true), (10, false)] {
        let mut shard = watched(SlowConsumer::Warn);
        let (_, consumer) = shard.lagging(b"q.a");
        let mut tag = 0;
        let settle = |shard: &mut Shard| {
            for _ in 0..each_look {
                tag += 1;
                let settled = shard.settle(consumer, Selection::One(tag));
                settled.expect("it has that");
                shard.dispatch();
            }
        };
        // What it settles after the last look counts for the next period.
        let mut settle = settle;
        settle(&mut shard);
        let seen = shard.look_while(10, settle, |_| false);
        assert_eq!(!seen.is_empty(), is_slow, "{each_look}: {seen:?}");
    }
}

#[test]
fn who_has_credit_or_nothing_to_wait_for_is_not_slow() {
    let mut shard = watched(SlowConsumer::Disconnect);
    let queue = shard.queue(b"q.a");
    // It has all there is: the first has credit left, the second none.
    shard.attach(queue, 400);
    shard.begin_watch(0);
    shard.fill(b"q.a", 300);
    assert_eq!(shard.look_until(30), []);
    let other = shard.queue(b"q.b");
    shard.attach(other, 3);
    shard.begin_watch(30);
    shard.fill(b"q.b", 3);
    assert_eq!(shard.look_until(60), []);
    // What comes in the middle of a period waits for no whole one.
    shard.look_until(62);
    shard.fill(b"q.b", 1);
    assert_eq!(shard.look_until(65), []);
    assert_eq!(shard.look_until(70).len(), 1);
}

#[test]
fn nobody_is_to_blame_for_what_others_hold_up() {
    // A queue that is paused.
    let mut shard = watched(SlowConsumer::Warn);
    let (queue, _) = shard.lagging(b"q.a");
    let paused = shard.machine.decide_pause(queue, true, &mut shard.decision);
    paused.expect("there is such a queue");
    shard.apply();
    assert_eq!(shard.look_until(20), []);
    // A disk that stands still, or once in the period.
    let mut shard = watched(SlowConsumer::Warn);
    shard.lagging(b"q.a");
    assert_eq!(shard.look_while(20, |_| {}, |link| link == 1), []);
    // An exclusive consumer that is served first.
    let mut shard = watched(SlowConsumer::Warn);
    let queue = shard.queue(b"q.a");
    let exclusive = Attachment {
        queue,
        link: 7,
        tag: 1,
        credit: Credit::Messages(1),
        credit_bytes: None,
        settlement: Settlement::ByConsumer,
        rank: Rank {
            is_exclusive: true,
            ..Rank::default()
        },
        filter: None,
    };
    shard.machine.attach(&exclusive).expect("there is room");
    let waiting = Attachment {
        link: 8,
        credit: Credit::Messages(0),
        ..exclusive
    };
    shard.machine.attach(&waiting).expect("there is room");
    shard.begin_watch(0);
    shard.fill(b"q.a", 5);
    let seen = shard.look_until(5);
    assert_eq!(seen.iter().map(|seen| seen.link).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_selector_is_asked_whether_anything_waits() {
    for is_match in [true, false] {
        let mut shard = watched(SlowConsumer::Warn);
        let queue = shard.queue(b"q.a");
        let consumer = shard.machine.attach(&Attachment {
            queue,
            link: 1,
            tag: 2,
            credit: Credit::Messages(0),
            credit_bytes: None,
            settlement: Settlement::ByConsumer,
            rank: Rank::default(),
            filter: Some(FilterId(3)),
        });
        consumer.expect("there is room");
        shard.begin_watch(0);
        shard.fill(b"q.a", 5);
        let mut asked = 0;
        let mut answer = |shard: &mut Shard| {
            while let Some(examine) = shard.machine.poll_examine() {
                let message = examine.message.message;
                let machine = &mut shard.machine;
                machine.note_examined(queue, examine.filter, message, is_match);
                machine.check_invariants();
                asked += 1;
            }
        };
        answer(&mut shard);
        let seen = shard.look_while(5, answer, |_| false);
        assert_eq!(seen.len(), usize::from(is_match), "{seen:?}");
        // No further than to the first that matches.
        assert_eq!(asked, if is_match { 1 } else { 5 });
    }
}

#[test]
fn what_is_not_watched_costs_nothing_and_who_goes_is_watched_no_more() {
    let mut shard = watched(SlowConsumer::Warn);
    let other = shard.queue(b"other");
    shard.attach(other, 1);
    shard.fill(b"other", 3);
    assert!(!shard.machine.is_watching());
    let (queue, consumer) = shard.lagging(b"q.a");
    shard.detach(consumer);
    assert!(!shard.machine.is_watching());
    // In its place comes another, and the queue goes under it.
    shard.attach(queue, 1);
    shard.begin_watch(1);
    assert!(shard.machine.is_watching());
    let deleted = shard
        .machine
        .decide_remove(queue, true, &mut shard.decision);
    deleted.expect("there is such a queue");
    shard.apply();
    shard.machine.check_invariants();
    assert!(!shard.machine.is_watching());
}
