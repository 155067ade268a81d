//! Reclaim, restart and comparison: what the journal says, against what the machine and the
//! model say.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use forebay::queue::{BrowsePlace, Fact, Machine, Place, Queued, SegmentUse};
use forebay_journal::format::Record;
use forebay_journal::{MessageId, QueueId, SegmentId};

use super::journal::start_of_epoch;
use super::model::{Message, Queue, State};
use super::rig::{LIMITS, Rig};
use super::selective::policies;
use super::subscription::{NAMES, forgotten};

impl Rig {
    pub(crate) fn seal(&mut self) {
        self.journal.seal();
    }

    /// Frees the segments before the oldest one that is needed.
    pub(crate) fn reclaim(&mut self) {
        let start = self.machine.replay_start(self.journal.current());
        if let Some(start) = start {
            self.begin_replay_at(start);
        }
    }

    fn begin_replay_at(&mut self, oldest: SegmentId) {
        if oldest <= self.journal.oldest() {
            return;
        }
        let upto = SegmentId::ZERO.plus(oldest.get() - 1);
        let has_more = self.machine.decide_redefine(upto, &mut self.decision);
        assert!(!has_more, "few queues");
        let decision = core::mem::take(&mut self.decision);
        for fact in decision.facts() {
            let (place, _) = self.apply(&fact, Place::NONE);
            let (Record::QueueDefine { queue, .. }, Place::Journal(location)) =
                (fact.record, place)
            else {
                panic!("only definitions are repeated");
            };
            let defined_in = &mut self
                .model
                .queues
                .get_mut(&queue.0)
                .expect("known")
                .defined_in;
            assert!(
                defined_in.is_some_and(|segment| segment <= upto),
                "repeated for nothing"
            );
            *defined_in = Some(location.segment());
        }
        self.decision = decision;
        let retained = Fact::from(Record::Retained {
            oldest_segment: oldest,
            message_floor: self.machine.message_floor(),
            queue_floor: self.machine.queue_floor(),
        });
        self.apply(&retained, Place::NONE);
        self.journal.free_before(oldest);
    }

    /// Begins a checkpoint, or says so many slices of the one under way; a replay begins there
    /// when all is said.
    pub(crate) fn checkpoint(&mut self, slices: u8) {
        let Some(start) = self.machine.checkpoint_start() else {
            self.machine.begin_checkpoint(self.journal.current());
            return;
        };
        for _ in 0..slices {
            let is_more = self.machine.decide_checkpoint(&mut self.decision);
            self.apply_decision();
            if !is_more {
                self.machine.end_checkpoint();
                self.checkpoints += 1;
                return self.begin_replay_at(start);
            }
        }
    }

    fn replayed(&mut self) -> Machine {
        self.journal.seal();
        let mut machines = [(); 2].map(|()| Machine::new(LIMITS, policies()));
        let mut effects = Vec::new();
        self.journal.replay(|record, location| {
            machines[0].evolve(&Fact::from(*record), Place::Journal(location), &mut effects);
        });
        self.journal.replay_all(|record, location| {
            machines[1].evolve(&Fact::from(*record), Place::Journal(location), &mut effects);
        });
        assert_eq!(effects, [], "a replay has nothing to do");
        let [machine, of_all] = machines;
        machine.check_invariants();
        of_all.check_invariants();
        compare_machines(&machine, &of_all);
        machine
    }

    /// Kills the process: everything is as the journal tells.
    pub(crate) fn restart(&mut self) {
        let mut machine = self.replayed();
        let replayed = machine.finish_replay().expect("the journal adds up");
        self.machine = machine;
        self.model.restart();
        self.ids.clear();
        self.slots.clear();
        self.restarts += 1;
        assert_eq!(replayed.transactions, self.model.transactions.len() as u64);
        assert_eq!(replayed.queues, self.model.queues.len() as u64);
        self.compare();
        self.check_doubts();
        self.start_epoch();
        self.check_doubts();
    }

    pub(crate) fn start_epoch(&mut self) {
        let start = start_of_epoch(self.journal.oldest(), &self.machine);
        self.apply(&Fact::from(start), Place::NONE);
    }

    /// Lets every consumer go; then the live machine and a replay are the same, message for
    /// message, but for what is volatile.
    pub(crate) fn compare_with_replay(&mut self) {
        for _ in 0..self.model.consumers.len() {
            self.detach(0);
        }
        let has_open = self.model.transactions.values().any(|one| !one.is_prepared);
        let mut replayed = self.replayed();
        replayed.finish_replay().expect("the journal adds up");
        if has_open {
            return;
        }
        for name in 0..NAMES {
            let facts = [&self.machine, &replayed].map(|machine| forgotten(machine, name));
            assert_eq!(facts[0], facts[1], "durable subscription {name}");
        }
        for queue in self.machine.queues() {
            if self.machine.is_durable(queue) == Some(true) {
                let durable = |one: &Queued| matches!(one.place, Place::Journal(_));
                let live: Vec<_> = self.machine.ready(queue).filter(durable).collect();
                assert_eq!(live, replayed.ready(queue).collect::<Vec<_>>());
                let live: Vec<_> = self.machine.unsettled(queue).filter(durable).collect();
                assert_eq!(live, replayed.unsettled(queue).collect::<Vec<_>>());
                assert_eq!(self.machine.name(queue), replayed.name(queue));
                assert_eq!(self.machine.is_paused(queue), replayed.is_paused(queue));
            }
        }
    }

    /// Machine and model agree on everything that can be asked.
    pub(crate) fn compare(&self) {
        self.machine.check_invariants();
        let (machine, model) = (&self.machine, &self.model);
        assert_eq!(machine.message_floor().0, model.next_message);
        assert_eq!(machine.queue_floor().0, model.next_queue);
        let queues: BTreeSet<u64> = machine.queues().map(|queue| queue.0).collect();
        assert!(queues.iter().eq(model.queues.keys()));
        for (id, queue) in &model.queues {
            self.compare_queue(*id, queue);
        }
        self.compare_subscriptions();
        self.compare_described();
        assert_eq!(self.slots, model.slots(), "volatile bodies");
        let segments = model.segments();
        let mut segment = self.journal.oldest();
        while segment <= self.journal.current() {
            let found = machine.segment_use(segment);
            let found = (found.references, found.bytes, found.definitions);
            let expected = segments.get(&segment).copied().unwrap_or_default();
            assert_eq!(found, expected, "{segment:?}");
            segment = segment.next();
        }
        let mut live = segments.iter().filter(|(_, counts)| counts.0 > 0);
        assert_eq!(
            machine.oldest_live_segment(),
            live.next().map(|(segment, _)| *segment)
        );
    }

    fn compare_queue(&self, id: u64, queue: &Queue) {
        let expected = |is_ready: bool| {
            let fits = move |m: &&(&u64, &Message)| (m.1.state == State::Ready) == is_ready;
            let messages: Vec<_> = queue.messages.iter().collect();
            messages
                .iter()
                .filter(fits)
                .map(|(id, m)| self.queued(**id, m))
                .collect::<Vec<_>>()
        };
        let queue_id = QueueId(id);
        // In the order of delivery here, by name there.
        let mut ready: Vec<_> = self.machine.ready(queue_id).collect();
        let order = self.model.ready(id);
        assert!(
            ready.iter().map(|one| one.message.0).eq(order),
            "order in {id}"
        );
        self.compare_browsing(queue_id, &ready);
        ready.sort_by_key(|one| one.message);
        let unsettled: Vec<_> = self.machine.unsettled(queue_id).collect();
        assert_eq!(ready, expected(true), "ready in {id}");
        assert_eq!(unsettled, expected(false), "unsettled in {id}");
        let counts = self.machine.counts(queue_id).expect("it is there");
        assert_eq!(
            (counts.ready, counts.unsettled),
            (ready.len() as u64, unsettled.len() as u64)
        );
        let bytes: u64 = queue.messages.values().map(|m| u64::from(m.size)).sum();
        assert_eq!(counts.bytes, bytes);
        let consumers = self
            .model
            .consumers
            .values()
            .filter(|c| c.queue == id)
            .count();
        assert_eq!(counts.consumers, consumers as u64);
        assert_eq!(
            self.machine.is_durable(queue_id),
            Some(queue.defined_in.is_some())
        );
    }

    /// A browser at any place sees the rest, also where that place's message is gone.
    fn compare_browsing(&self, queue: QueueId, ready: &[Queued]) {
        let all = self.machine.ready_after(queue, BrowsePlace::START);
        assert!(all.eq(ready.iter().copied()), "browsed from the start");
        for (at, one) in ready.iter().enumerate() {
            assert!(self.machine.holds(queue, one.message));
            let place = BrowsePlace {
                priority: one.priority,
                message: one.message,
            };
            let rest = self.machine.ready_after(queue, place);
            assert!(
                rest.eq(ready[at + 1..].iter().copied()),
                "browsed from {at}"
            );
        }
        for one in self.machine.unsettled(queue) {
            assert!(self.machine.holds(queue, one.message));
            let (priority, message) = (one.priority, one.message);
            let behind = |other: &&Queued| {
                (Reverse(other.priority), other.message) > (Reverse(priority), message)
            };
            let rest = BrowsePlace { priority, message };
            let rest = self.machine.ready_after(queue, rest);
            assert!(
                rest.eq(ready.iter().filter(behind).copied()),
                "browsed from a gap"
            );
        }
    }

    fn queued(&self, id: u64, message: &Message) -> Queued {
        let records = self.model.records.get(&id).filter(|_| message.is_durable());
        let fragments = records.map_or(&[][..], |records| &records[..records.len() - 1]);
        let parts = self.machine.fragments(MessageId(id)).iter();
        let found: Vec<_> = parts
            .map(|part| (part.location.segment(), part.size_bytes))
            .collect();
        assert_eq!(found, fragments, "fragments of {id}");
        Queued {
            message: MessageId(id),
            place: message.place,
            size_bytes: message.size,
            attempts: message.attempts,
            priority: message.priority,
            is_fragmented: !fragments.is_empty(),
        }
    }
}

/// Two replays, before their ends, have the same messages in the same order.
fn compare_machines(one: &Machine, other: &Machine) {
    let queues = [one, other].map(|machine| machine.queues().collect::<BTreeSet<_>>());
    assert_eq!(queues[0], queues[1], "queues");
    for queue in one.queues() {
        let [ready, of_other] =
            [one, other].map(|machine| machine.ready(queue).collect::<Vec<_>>());
        assert_eq!(ready, of_other, "ready in {queue:?}");
        let [unsettled, of_other] =
            [one, other].map(|machine| machine.unsettled(queue).collect::<Vec<_>>());
        assert_eq!(unsettled, of_other, "unsettled in {queue:?}");
        assert_eq!(one.counts(queue), other.counts(queue), "{queue:?}");
        for queued in ready.iter().chain(&unsettled) {
            let fragments = [one, other].map(|machine| machine.fragments(queued.message));
            assert_eq!(fragments[0], fragments[1], "{:?}", queued.message);
        }
    }
    let uses = [one, other].map(|machine| machine.segments_in_use().collect::<Vec<_>>());
    let of = |uses: &[(SegmentId, SegmentUse)]| -> Vec<_> {
        let uses = uses.iter();
        uses.map(|(segment, one)| (*segment, one.references, one.bytes))
            .collect()
    };
    assert_eq!(of(&uses[0]), of(&uses[1]), "segments");
}
