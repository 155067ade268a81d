//! What always holds, checked by recount. Cost: O(everything); for tests and the simulator.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use forebay_journal::{QueueId, SegmentId};

use super::aside::Why;
use super::delivered::Holder;
use super::destination::Kind;
use super::entry::Entry;
use super::idle::Use;
use super::machine::Machine;
use super::quota::Held;
use super::segments::SegmentUse;
use super::state::QueueState;
use super::transaction::Step;

impl Machine {
    /// Panics: if the machine contradicts itself, naming where.
    pub fn check_invariants(&self) {
        for queue in self.queues.iter() {
            self.check_lists(queue);
            self.check_turns(queue);
            self.check_selective(queue);
        }
        self.check_consumers();
        self.check_gatherings();
        self.check_destinations();
        self.check_subscriptions();
        self.check_messages();
        self.check_expiring();
        self.check_waits();
        self.check_idle();
        self.check_settling();
        self.check_listed();
        self.check_held();
        self.check_watches();
    }

    fn check_watches(&self) {
        let known: BTreeSet<(u64, u32)> = self.watches.due().collect();
        let found = self.consumers.iter().filter_map(|(index, consumer)| {
            let watch = consumer.watch.as_ref()?;
            Some((watch.due_us(), index))
        });
        assert!(
            known.iter().copied().eq(found.collect::<BTreeSet<_>>()),
            "consumers that are watched"
        );
    }

    fn check_held(&self) {
        let messages = self.queues.iter().map(|queue| queue.message_count() as u64);
        let bytes = self.queues.iter().map(|queue| queue.bytes);
        let found = Held {
            messages: messages.sum(),
            bytes: bytes.sum(),
        };
        assert_eq!(self.held, found, "what all queues hold");
    }

    fn check_listed(&self) {
        let [dispatch, examine] = self.queues.dirty();
        for queue in self.queues.iter() {
            let id = queue.id.0;
            let counts = [dispatch, examine].map(|list| list.iter().filter(|one| **one == id));
            let [dispatch, examine] = counts.map(Iterator::count);
            assert_eq!(dispatch, usize::from(queue.is_dirty), "queue {id}");
            assert_eq!(examine, usize::from(queue.is_curious), "queue {id}");
        }
    }

    fn check_idle(&self) {
        let noted: BTreeSet<u64> = self.idle.noted().iter().copied().collect();
        assert_eq!(noted.len(), self.idle.noted().len(), "a queue noted twice");
        let due: BTreeMap<u64, u64> = self.idle.due().map(|(due_us, id)| (id, due_us)).collect();
        for queue in self.queues.iter() {
            let id = queue.id.0;
            let known = (noted.contains(&id), due.get(&id).copied());
            let expected = match queue.idle {
                Use::Open => (false, None),
                Use::Noted => (true, None),
                Use::Until(due_us) => (false, Some(due_us)),
            };
            assert_eq!(known, expected, "queue {id} and the unused ones");
            let may_go = queue.is_unused() && queue.made_itself() && queue.policy.auto_delete;
            assert!(!may_go || queue.idle != Use::Open, "queue {id} is unused");
            assert!(may_go || known.1.is_none(), "queue {id} is to go");
        }
        let gone = due
            .keys()
            .find(|id| self.queues.get(QueueId(**id)).is_none());
        assert_eq!(gone, None, "a queue that is gone is to go");
    }

    fn check_lists(&self, queue: &QueueState) {
        let id = queue.id.0;
        let ready: Vec<_> = queue.ready.iter().collect();
        let delivered: Vec<_> = queue.delivered.iter().map(|slot| &slot.entry).collect();
        let mut seen = BTreeSet::new();
        assert!(
            ready.is_sorted_by_key(|e| (Reverse(e.priority()), e.message)),
            "queue {id} out of order"
        );
        assert!(
            delivered.is_sorted_by_key(|e| e.message),
            "delivered of queue {id} out of order"
        );
        let aside: Vec<_> = queue.aside.iter().map(|(entry, _)| entry).collect();
        for list in [&ready, &delivered, &aside] {
            for entry in list.iter() {
                assert!(
                    seen.insert(entry.message),
                    "{} twice in queue {id}",
                    entry.message
                );
                assert!(
                    entry.message < self.next_message,
                    "{} not drawn",
                    entry.message
                );
            }
        }
        if let Some(last_values) = &queue.last_values {
            let (known, keys) = last_values.counts();
            let found = seen.iter().filter(|one| last_values.knows(**one)).count();
            assert_eq!(known, found, "keys of messages not in queue {id}");
            assert!(keys <= known, "keys of no message in queue {id}");
        }
        assert_eq!(ready.len(), queue.ready.len(), "ready of queue {id}");
        let bytes: u64 = ready
            .iter()
            .chain(&delivered)
            .chain(&aside)
            .map(|e| u64::from(e.size_bytes))
            .sum();
        assert_eq!(bytes, queue.bytes, "bytes of queue {id}");
        assert_eq!(
            delivered.len(),
            queue.delivered.len(),
            "delivered of queue {id}"
        );
        assert!(
            queue.delivered.slot_count() <= 2 * delivered.len() + 65,
            "tombstones of queue {id} unbounded"
        );
        assert!(id < self.next_queue, "queue {id} not drawn");
    }

    fn check_expiring(&self) {
        let mut counts = (0, 0);
        for queue in self.queues.iter() {
            let ready = queue.ready.iter().map(|entry| (entry, true));
            let held = queue.delivered.iter().map(|slot| (&slot.entry, false));
            let aside = queue.aside.iter().map(|(entry, why)| {
                let is_leaving = matches!(why, Why::Leaving(_));
                let known = self.expiring.of(queue.id.0, entry.message);
                assert!(!is_leaving || known.is_none(), "{} leaves", entry.message);
                (entry, true)
            });
            for (entry, is_ready) in ready.chain(held).chain(aside) {
                if let Some((_, known)) = self.expiring.of(queue.id.0, entry.message) {
                    assert_eq!(known, is_ready, "{} expires", entry.message);
                    counts.0 += 1;
                    counts.1 += usize::from(is_ready);
                }
            }
        }
        assert_eq!(counts, self.expiring.counts(), "messages that expire");
    }

    fn check_waits(&self) {
        let mut due_count = 0;
        for queue in self.queues.iter() {
            for (entry, why) in queue.aside.iter() {
                if let Why::Delayed { ready_unix_ms } = *why {
                    due_count += 1;
                    let is_known =
                        self.waits
                            .is_due_known(ready_unix_ms, queue.id.0, entry.message);
                    assert!(is_known, "nobody wakes {}", entry.message);
                }
            }
        }
        assert_eq!(due_count, self.waits.due_count(), "messages that wait");
    }

    /// What transactions settle is known by queue and message, each by one of them.
    fn check_settling(&self) {
        for ((queue, message), number) in self.transactions.settling() {
            let staged = self.transactions.iter();
            let mut steps = staged
                .filter(|(of, _)| *of == number)
                .flat_map(|(_, staged)| &staged.steps);
            let is_there = steps.any(|step| match step {
                Step::Settle {
                    queue: of,
                    messages,
                    ..
                } => *of == queue && messages.contains(&message),
                Step::Enter { .. } => false,
            });
            assert!(is_there, "{message} is settled by no transaction");
        }
        for queue in self.queues.iter() {
            let id = queue.id.0;
            let staged = self.transactions.iter();
            let mut steps = staged.flat_map(|(_, staged)| &staged.steps);
            let is_to_enter = steps.any(|step| match step {
                Step::Enter { queues, .. } => queues.contains(&id),
                Step::Settle { .. } => false,
            });
            let is_known = self.transactions.enter(id);
            assert_eq!(is_known, is_to_enter, "what is to enter queue {id}");
        }
    }

    fn check_turns(&self, queue: &QueueState) {
        let id = queue.id.0;
        let turns: BTreeSet<u32> = queue.willing.iter().copied().collect();
        assert_eq!(turns.len(), queue.willing.len(), "two turns in queue {id}");
        for index in &queue.consumers {
            let consumer = self.consumers.at(*index);
            assert_eq!(consumer.queue, queue.id, "consumer {index} is elsewhere");
            assert_eq!(consumer.is_queued, turns.contains(index), "turn of {index}");
            let is_served = queue.exclusive.is_none_or(|one| one == *index);
            assert!(
                self.consumers.available(*index) == 0
                    || consumer.is_queued
                    || consumer.is_thirsty
                    || !is_served,
                "consumer {index} waits for a turn that never comes"
            );
            assert!(is_served || !consumer.is_queued, "{index} is not served");
        }
        let rank = |index: &u32| self.consumers.at(*index).rank;
        assert!(
            queue
                .willing
                .iter()
                .is_sorted_by_key(|one| Reverse(rank(one).priority)),
            "turns of queue {id} out of order"
        );
        let exclusive = queue.consumers.iter().filter(|one| rank(one).is_exclusive);
        let highest = exclusive.clone().map(|one| rank(one).priority).max();
        let mut exclusive = exclusive.filter(|one| Some(rank(one).priority) == highest);
        assert_eq!(
            exclusive.next().copied(),
            queue.exclusive,
            "who is served alone in queue {id}"
        );
        assert!(
            turns.iter().all(|index| queue.consumers.contains(index)),
            "a stranger has a turn in queue {id}"
        );
        let is_choosing = queue.is_selective();
        let has_work =
            !is_choosing && !queue.ready.is_empty() && queue.demand(&self.consumers, 1) > 0;
        assert!(
            !queue.is_paused() || !queue.is_dirty,
            "queue {id} is paused and to be dispatched"
        );
        assert!(
            !has_work || queue.is_dirty || queue.is_paused(),
            "queue {id} has work nobody knows of"
        );
    }

    fn check_consumers(&self) {
        let mut held = BTreeMap::new();
        for queue in self.queues.iter() {
            for slot in queue.delivered.iter() {
                match slot.holder {
                    Holder::Consumer { index, tag } => {
                        let Entry {
                            message,
                            size_bytes,
                            ..
                        } = slot.entry;
                        held.insert((index, tag), (queue.id, message, size_bytes));
                    }
                    Holder::Unassigned => {
                        assert_eq!(self.consumers.len(), 0, "a delivery reached nobody");
                    }
                    Holder::Locked => {}
                    Holder::Gone => panic!("tombstones are not listed"),
                }
            }
        }
        let mut count = 0;
        for (index, consumer) in self.consumers.iter() {
            count += 1;
            let (mut unsettled, mut bytes) = (0, 0);
            for one in consumer.outstanding() {
                unsettled += 1;
                let (queue, message, size_bytes) = held
                    .remove(&(index, one.tag))
                    .unwrap_or_else(|| panic!("nobody has {}", one.message));
                assert_eq!((queue, message), (consumer.queue, one.message));
                bytes += u64::from(size_bytes);
            }
            assert_eq!(
                unsettled, consumer.allowance.unsettled,
                "unsettled of consumer {index}"
            );
            let staged = consumer.outstanding();
            let staged =
                staged.filter(|one| self.transactions.settles(consumer.queue, one.message));
            assert_eq!(
                staged.count(),
                consumer.allowance.staged as usize,
                "settled in transactions of {index}"
            );
            assert!(
                unsettled <= self.limits.unsettled_max,
                "consumer {index} holds too many"
            );
            assert_eq!(
                bytes, consumer.allowance.unsettled_bytes,
                "bytes of consumer {index}"
            );
            assert!(
                consumer.slot_count() <= 2 * unsettled as usize + 65,
                "tombstones of consumer {index} unbounded"
            );
        }
        assert_eq!(held, BTreeMap::new(), "queues name deliveries nobody has");
        assert_eq!(count, self.consumers.len(), "consumers");
    }

    fn check_destinations(&self) {
        self.destinations.check_wildcards();
        let mut bound = BTreeMap::new();
        for (index, destination) in self.destinations.iter() {
            let lists = [
                (&destination.durable, Kind::Durable),
                (&destination.volatile, Kind::Volatile),
            ];
            let divert = destination.divert;
            bound.extend(divert.map(|queue| (queue.0, (index, Kind::Divert))));
            let retroactive = destination.retroactive;
            bound.extend(retroactive.map(|queue| (queue.0, (index, Kind::Retroactive))));
            for (list, kind) in lists {
                assert!(
                    list.is_sorted_by_key(|id| id.get()),
                    "order of destination {index}"
                );
                bound.extend(list.iter().map(|id| (id.get(), (index, kind))));
            }
        }
        for queue in self.queues.iter() {
            if let Some(defined) = &queue.defined {
                let found = bound.remove(&queue.id.0);
                let expected = (
                    defined.destination,
                    Kind::of(defined.flags, defined.segment),
                );
                assert_eq!(found, Some(expected), "binding of queue {}", queue.id.0);
            }
        }
        assert_eq!(
            bound,
            BTreeMap::new(),
            "destinations name queues that are not"
        );
    }

    fn check_subscriptions(&self) {
        let mut count = 0;
        for queue in self.queues.iter() {
            if let Some(name) = queue.subscription_name() {
                let found = self.subscriptions.get(name);
                assert_eq!(found, Some(queue.id), "subscription {}", queue.id.0);
                count += 1;
            }
        }
        assert_eq!(count, self.subscriptions.len(), "subscriptions of no queue");
    }

    /// Recounts references: of shared bodies by message, of segments by record.
    fn check_messages(&self) {
        let mut messages: BTreeMap<u64, (Entry, u32)> = BTreeMap::new();
        let mut note = |entry: &Entry, count: u32| {
            messages.entry(entry.message).or_insert((*entry, 0)).1 += count;
        };
        let mut segments: BTreeMap<SegmentId, SegmentUse> = BTreeMap::new();
        for queue in self.queues.iter() {
            let delivered = queue.delivered.iter().map(|slot| &slot.entry);
            let aside = queue.aside.iter().map(|(entry, _)| entry);
            queue
                .ready
                .iter()
                .chain(delivered)
                .chain(aside)
                .for_each(|entry| note(entry, 1));
            if let Some(segment) = queue.defined.as_ref().and_then(|d| d.segment) {
                segments.entry(segment).or_default().definitions += 1;
            }
        }
        let destinations = self.destinations.iter();
        for seen in destinations.flat_map(|(_, destination)| destination.ids()) {
            if let Some(segment) = seen.segment {
                segments.entry(segment).or_default().definitions += 1;
            }
        }
        let mut records = self.bodies.staged_records();
        let decisions = self.transactions.decision_segments();
        records.extend(decisions.map(|segment| (segment, 0)));
        for (_, staged) in self.transactions.iter() {
            records.extend(staged.pins.iter().map(|segment| (*segment, 0)));
            for step in &staged.steps {
                if let Step::Enter { arrival, queues } = step {
                    self.check_staged(&arrival.entry, queues);
                    note(&arrival.entry, queues.len() as u32);
                }
            }
        }
        let mut shared = 0;
        for (entry, references) in messages.values().filter(|(entry, _)| entry.is_durable()) {
            shared += usize::from(entry.is_shared());
            assert_eq!(
                self.bodies.references(entry),
                *references,
                "of {}",
                entry.message
            );
            records.extend(self.bodies.records_of(entry));
        }
        assert_eq!(shared, self.bodies.shared_count(), "bodies nobody needs");
        for (segment, bytes) in records {
            let entry = segments.entry(segment).or_default();
            entry.references += 1;
            entry.bytes += u64::from(bytes);
        }
        let kept = self.bodies.segments.iter();
        let kept = kept.filter(|(_, entry)| *entry != SegmentUse::default());
        assert_eq!(kept.collect::<BTreeMap<_, _>>(), segments, "segment counts");
    }

    fn check_staged(&self, entry: &Entry, queues: &[u64]) {
        for queue in queues {
            let Some(queue) = self.queues.get(QueueId(*queue)) else {
                continue;
            };
            let is_ready = queue
                .ready
                .iter()
                .any(|other| other.message == entry.message);
            let is_aside = queue.aside.get(entry.message).is_some();
            let is_there = is_aside || is_ready || queue.delivered.find(entry.message).is_some();
            assert!(!is_there, "{} staged and in its queue", entry.message);
        }
    }
}
