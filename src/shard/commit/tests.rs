//! The protocol alone, against shards that are nothing but a log: orders wait and overtake each
//! other where lanes allow it, records get durable later, connections go, and the power fails
//! anywhere.

use std::collections::VecDeque;

use forebay_journal::format::{
    Annotations, IdList, MessageFields, MessageFlags, Parts, QueueFlags, Record, Routing,
    TransactionState,
};
use forebay_journal::{Location, MessageId, QueueId, SegmentId, ShardId};

use super::{Commits, Outcome, Told, Verdict, undecided, verdicts};
use crate::frontend::{Order, Report};
use crate::queue::{Machine, Place};
use crate::shard::ConnectionId;
use crate::shard::transactions::{End, Open, Part};

const NUMBER: u64 = 77;
const CONNECTION: ConnectionId = ConnectionId(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Staged,
    Prepared,
    Committed,
    RolledBack,
    Decided,
    Ended,
}

/// A shard as the protocol sees it.
#[derive(Debug, Default)]
struct Shard {
    log: Vec<Fact>,
    durable: usize,
    /// Refuses to commit.
    is_spoiled: bool,
    /// Reports, and how much of the log has to be durable first.
    reports: VecDeque<(usize, Report)>,
}

impl Shard {
    fn has(&self, fact: Fact) -> bool {
        self.log.contains(&fact)
    }

    fn is_open(&self) -> bool {
        let is_over = [Fact::Committed, Fact::RolledBack, Fact::Decided];
        self.has(Fact::Staged) && !is_over.iter().any(|fact| self.has(*fact))
    }

    fn say(&mut self, is_behind_log: bool, report: Report) {
        let upto = if is_behind_log { self.log.len() } else { 0 };
        self.reports.push_back((upto, report));
    }

    fn obey(&mut self, order: Order) {
        let is_promise = matches!(order, Order::Prepare | Order::Commit | Order::Decide);
        if is_promise && self.is_spoiled && self.is_open() && !self.has(Fact::Prepared) {
            return self.say(false, Report::Failed);
        }
        match order {
            Order::Prepare if self.is_open() => {
                self.log.push(Fact::Prepared);
                self.say(true, Report::Prepared);
            }
            Order::Prepare => self.say(false, Report::Empty),
            Order::Commit => {
                if self.is_open() {
                    self.log.push(Fact::Committed);
                }
                self.say(false, Report::Applied);
                self.say(true, Report::Durable);
            }
            Order::RollBack => {
                if self.is_open() {
                    self.log.push(Fact::RolledBack);
                }
                self.say(false, Report::Applied);
            }
            Order::Decide => {
                self.log.push(Fact::Decided);
                self.say(true, Report::Decided);
            }
            Order::End => self.log.push(Fact::Ended),
        }
    }

    /// The connection is gone: what is staged and not promised goes.
    fn hang_up(&mut self) {
        if self.is_open() && !self.has(Fact::Prepared) {
            self.log.push(Fact::RolledBack);
        }
    }

    /// What a restart makes of it, with the coordinator's word.
    fn is_committed_after_restart(&self, is_decided: bool) -> bool {
        let kept = &self.log[..self.durable];
        let has = |fact| kept.contains(&fact);
        if has(Fact::Committed) || has(Fact::Decided) {
            return true;
        }
        has(Fact::Prepared) && !has(Fact::RolledBack) && is_decided
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, of: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % of
    }
}

struct Run {
    random: Random,
    commits: Commits,
    shards: Vec<Shard>,
    orders: Vec<VecDeque<Told>>,
    outcomes: Vec<Outcome>,
    is_gone: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let count = 1 + random.below(4) as usize;
        let shards = (0..count).map(|_| Shard {
            is_spoiled: random.below(12) == 0,
            ..Shard::default()
        });
        let shards = shards.collect();
        Self {
            random,
            commits: Commits::new(ShardId(0)),
            shards,
            orders: (0..count).map(|_| VecDeque::new()).collect(),
            outcomes: Vec::new(),
            is_gone: false,
        }
    }

    /// Begins to end a transaction with parts on some shards; whether it is to commit.
    fn begin(&mut self) -> bool {
        let mut parts = Vec::new();
        for (index, shard) in self.shards.iter_mut().enumerate() {
            if self.random.below(3) > 0 {
                // Some were sent what went nowhere.
                if self.random.below(6) > 0 {
                    shard.log.push(Fact::Staged);
                    shard.durable = self.random.below(2) as usize;
                }
                let shard = ShardId(index as u16);
                let lanes = [self.random.below(2) == 0, true];
                parts.push(Part { shard, lanes });
            }
        }
        let is_commit = self.random.below(5) > 0;
        let open = Open {
            name: 1,
            number: NUMBER,
            due_us: 0,
            parts,
        };
        let receipt = Some(b"r".to_vec());
        self.commits
            .begin(CONNECTION, open, End { is_commit, receipt });
        self.collect();
        is_commit
    }

    fn collect(&mut self) {
        while let Some(told) = self.commits.poll_order() {
            self.orders[usize::from(told.shard.0)].push_back(told);
        }
        while let Some((_, outcome)) = self.commits.poll_outcome() {
            self.outcomes.push(outcome);
        }
    }

    /// One thing happens somewhere; false if nothing can.
    fn step(&mut self) -> bool {
        let index = self.random.below(self.shards.len() as u64) as usize;
        let shard = &mut self.shards[index];
        match self.random.below(3) {
            0 => {
                if let Some(told) = self.orders[index].pop_front() {
                    shard.obey(told.order);
                }
            }
            1 => shard.durable = shard.log.len().min(shard.durable + 1),
            _ => {
                let durable = shard.durable;
                if let Some(at) = shard.reports.iter().position(|(upto, _)| *upto <= durable) {
                    let (_, report) = shard.reports.remove(at).expect("found just now");
                    self.commits.take(NUMBER, report);
                    self.collect();
                }
            }
        }
        self.orders.iter().any(|orders| !orders.is_empty())
            || self
                .shards
                .iter()
                .any(|shard| !shard.reports.is_empty() || shard.durable < shard.log.len())
    }

    fn lose_connection(&mut self) {
        self.is_gone = true;
        self.commits.give_up(CONNECTION);
        self.collect();
        // They hear it behind what they were told before.
        for (shard, orders) in self.shards.iter_mut().zip(&mut self.orders) {
            orders.drain(..).for_each(|told| shard.obey(told.order));
            shard.hang_up();
        }
    }

    fn is_ended(&self) -> bool {
        let ended = |outcome: &Outcome| matches!(outcome, Outcome::Ended { .. });
        self.outcomes.iter().any(ended)
    }

    /// The power fails now: each part is there or none.
    fn check_crash(&self, is_commit: bool) {
        let coordinator = &self.shards[0];
        let is_decided = coordinator.log[..coordinator.durable].contains(&Fact::Decided);
        let staged = self.shards.iter().filter(|shard| shard.has(Fact::Staged));
        let found: Vec<bool> = staged
            .map(|shard| shard.is_committed_after_restart(is_decided))
            .collect();
        let committed = found.iter().filter(|is_committed| **is_committed).count();
        assert!(
            committed == 0 || committed == found.len(),
            "a part of it: {found:?} {:?}",
            self.shards
        );
        if !is_commit {
            assert_eq!(committed, 0, "it was rolled back: {:?}", self.shards);
        } else if self.is_ended() {
            let shards = &self.shards;
            assert_eq!(committed, found.len(), "it was confirmed: {shards:?}");
        }
    }
}

#[test]
fn all_or_nothing_wherever_the_power_fails_and_whoever_goes() {
    let (mut confirmed, mut failed, mut gone) = (0, 0, 0);
    for seed in 0..40_000 {
        let mut run = Run::new(seed);
        let is_commit = run.begin();
        let mut steps = 0;
        while run.step() {
            run.check_crash(is_commit);
            if !run.is_gone && run.random.below(60) == 0 {
                run.lose_connection();
                run.check_crash(is_commit);
            }
            steps += 1;
            assert!(steps < 10_000, "it never ends: {:?}", run.shards);
        }
        run.check_crash(is_commit);
        assert!(!run.commits.has_work());
        let is_open = run.shards.iter().any(Shard::is_open);
        assert!(!is_open, "nobody ends it: {:?}", run.shards);
        assert!(run.commits.endings.is_empty(), "{:?}", run.commits);
        let is_decided = run.shards[0].has(Fact::Decided);
        assert_eq!(is_decided, run.shards[0].has(Fact::Ended), "kept for ever");
        confirmed += u32::from(is_commit && run.is_ended());
        gone += u32::from(run.is_gone);
        failed += u32::from(!run.is_gone && is_commit && !run.is_ended());
    }
    assert!(confirmed > 10_000 && failed > 1_000 && gone > 1_000);
}

#[test]
fn what_was_decided_is_told_again_after_a_restart() {
    let mut commits = Commits::new(ShardId(1));
    commits.resume(&[NUMBER], (0..3).map(ShardId), &[]);
    let told: Vec<_> = std::iter::from_fn(|| commits.poll_order()).collect();
    let seen: Vec<_> = told.iter().map(|one| (one.shard.0, one.order)).collect();
    assert_eq!(seen, [(0, Order::Commit), (2, Order::Commit)]);
    for report in [Report::Applied, Report::Durable].repeat(2) {
        assert_eq!(commits.poll_order(), None, "not all have told");
        commits.take(NUMBER, report);
    }
    let last = commits.poll_order().map(|one| (one.shard.0, one.order));
    assert_eq!(last, Some((1, Order::End)));
}

#[test]
fn alone_it_forgets_at_once_what_was_decided() {
    let mut commits = Commits::new(ShardId(0));
    commits.resume(&[NUMBER], std::iter::once(ShardId(0)), &[]);
    let last = commits.poll_order().map(|one| (one.shard.0, one.order));
    assert_eq!(last, Some((0, Order::End)));
    assert_eq!(commits.poll_order(), None);
}

/// A recovered shard with these transactions prepared, and those decided.
fn recovered(prepared: &[u64], decided: &[u64]) -> Machine {
    let limits = crate::queue::Limits {
        queues_max: 9,
        consumers_max: 9,
        unsettled_max: 9,
        dispatch_max: 9,
    };
    let mut machine = Machine::new(limits, crate::queue::Policies::default());
    let at = Place::Journal(Location::new(SegmentId::ZERO.next(), 4096, 128));
    let mut evolve = |record: Record<'_>| {
        machine.evolve(&crate::queue::Fact::from(record), at, &mut Vec::new());
    };
    let queue = QueueId(1);
    evolve(Record::QueueDefine {
        queue,
        routing: Routing::Anycast,
        flags: QueueFlags::default(),
        address: b"q",
        name: b"q",
        filter: b"",
    });
    let state = |transaction, state| Record::Transaction { transaction, state };
    for (message, transaction) in (1..).zip(prepared) {
        evolve(Record::Message {
            fields: MessageFields {
                message: MessageId(message),
                transaction: *transaction,
                body_size: 1,
                flags: MessageFlags {
                    is_durable: true,
                    ..MessageFlags::default()
                },
                ..MessageFields::default()
            },
            annotations: Annotations::default(),
            queues: IdList(&[queue.0.into()]),
            head: Parts::EMPTY,
            body: Parts::One(b"x"),
        });
        evolve(state(*transaction, TransactionState::Prepared));
    }
    for transaction in decided {
        evolve(state(*transaction, TransactionState::Decided));
    }
    machine.finish_replay().expect("it adds up");
    machine
}

#[test]
fn what_a_damaged_shard_coordinates_stays_in_doubt() {
    // Coordinated by shards 0, 0, 1 and 2.
    let [kept, dropped, of_damaged, unknown] = [0x100, 0x200, 0x301, 0x402];
    let first = recovered(&[], &[kept]);
    let last = recovered(&[kept, dropped, of_damaged, unknown], &[]);
    let verdict = |transaction, is_committed| Verdict {
        transaction,
        is_committed,
    };
    let judged = [
        verdict(kept, true),
        verdict(dropped, false),
        verdict(unknown, false),
    ];
    let machines = || [Some(&first), None, Some(&last)].into_iter();
    assert_eq!(verdicts(machines()), [vec![], vec![], judged.to_vec()]);
    assert_eq!(undecided(machines()), 1);
    // What was decided is kept for it: nobody is told to forget it.
    let mut commits = Commits::new(ShardId(0));
    commits.resume(&[kept], (0..3).map(ShardId), &[ShardId(1)]);
    assert!(!commits.has_work());
}
