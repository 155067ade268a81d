//! The end of transactions: this shard coordinates those of its connections.
//!
//! With one shard that has a part: it commits, and the receipt follows when that is durable. With
//! several: all others *prepare*; when their promises are durable the coordinator writes its
//! decision, with which its own part counts; when that is durable the others commit, and when they
//! have, the receipt follows. The decision is kept until they say that this is durable too. Before
//! the decision everything can be rolled back, after it nothing; what was prepared and has no
//! decision when the node starts again is rolled back ([`verdicts`]).
//!
//! A value in, values out: [`Commits`] tells orders and outcomes and calls nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forebay_journal::ShardId;

use super::ConnectionId;
use super::transactions::{End, Open, Part};
use crate::frontend::{Order, Report};
use crate::queue::Machine;

/// What becomes of a prepared transaction whose node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its number.
    pub transaction: u64,
    /// Whether its coordinator had decided to commit it.
    pub is_committed: bool,
}

/// Asks the recovered coordinators of all that was in doubt when the node ended, shard by shard.
///
/// Shape: none for a shard that is damaged: what it coordinates stays in doubt.
pub fn verdicts<'a>(
    machines: impl Iterator<Item = Option<&'a Machine>> + Clone,
) -> Vec<Vec<Verdict>> {
    let decided = machines.clone().map(|machine| {
        let decided = machine?.decided();
        Some(decided.into_iter().collect())
    });
    let decided: Vec<Option<BTreeSet<u64>>> = decided.collect();
    let verdict = |transaction: u64| {
        let coordinator = usize::from(Machine::coordinator_of(transaction));
        let is_committed = match decided.get(coordinator) {
            Some(Some(known)) => known.contains(&transaction),
            Some(None) => return None,
            None => false,
        };
        Some(Verdict {
            transaction,
            is_committed,
        })
    };
    let judge = |machine: &Machine| machine.in_doubt().into_iter().filter_map(verdict).collect();
    machines
        .map(|machine| machine.map_or_else(Vec::new, judge))
        .collect()
}

/// How many transactions stay in doubt because the shard that coordinates them is damaged.
pub fn undecided<'a>(machines: impl Iterator<Item = Option<&'a Machine>> + Clone) -> usize {
    let in_doubt = machines.clone().flatten().map(|one| one.in_doubt().len());
    let judged = verdicts(machines).into_iter().map(|list| list.len());
    in_doubt.sum::<usize>() - judged.sum::<usize>()
}

/// Something to tell a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) shard: ShardId,
    pub(super) connection: ConnectionId,
    pub(super) transaction: u64,
    pub(super) order: Order,
    /// By lane, messages first: behind what it has to come.
    pub(super) lanes: [bool; 2],
}

/// What became of a connection's transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ended as it was to.
    Ended { receipt: Option<Vec<u8>> },
    /// It was rolled back though it was to commit.
    Failed { receipt: Option<Vec<u8>> },
    /// It is decided.
    Decided,
    /// All shards have told that this is durable.
    AllTold,
}

#[derive(Debug)]
struct Ending {
    connection: ConnectionId,
    receipt: Option<Vec<u8>>,
    parts: Vec<Part>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// So many shards have not answered yet.
    Preparing { waiting: usize, has_failed: bool },
    /// The only shard with a part commits.
    Committing,
    /// The decision is being written.
    Deciding,
    /// The others commit: how many have not done it, and of how many it is not durable.
    Telling { unapplied: usize, untold: usize },
    /// So many orders are not carried out yet.
    RollingBack { waiting: usize },
}

/// Transactions that end: one of each connection, and those decided of which others still tell.
#[derive(Debug)]
pub(super) struct Commits {
    own: ShardId,
    endings: BTreeMap<u64, Ending>,
    orders: VecDeque<Told>,
    outcomes: VecDeque<(ConnectionId, Outcome)>,
}

const CONTROL: [bool; 2] = [false, true];
const MESSAGES: [bool; 2] = [true, false];

impl Commits {
    pub(super) fn new(own: ShardId) -> Self {
        Self {
            own,
            endings: BTreeMap::new(),
            orders: VecDeque::new(),
            outcomes: VecDeque::new(),
        }
    }

    /// Goes on with what was decided when the node ended: the others may not have heard of it.
    ///
    /// Those that are damaged hear of it when they are back: until then it is kept.
    pub(super) fn resume(
        &mut self,
        decided: &[u64],
        shards: impl Iterator<Item = ShardId>,
        damaged: &[ShardId],
    ) {
        if !damaged.is_empty() {
            // The others have heard of it ([`verdicts`]).
            return;
        }
        let (own, lanes) = (self.own, CONTROL);
        let others = shards.filter(|shard| *shard != own);
        let parts: Vec<Part> = others.map(|shard| Part { shard, lanes }).collect();
        for transaction in decided {
            let ending = Ending {
                connection: ConnectionId::nobody(own),
                receipt: None,
                parts: parts.clone(),
                step: Step::Deciding,
            };
            self.endings.insert(*transaction, ending);
            self.take(*transaction, Report::Decided);
        }
    }

    /// A client ends a transaction.
    pub(super) fn begin(&mut self, connection: ConnectionId, open: Open, end: End) {
        let End { is_commit, receipt } = end;
        let Open { number, parts, .. } = open;
        let mut ending = Ending {
            connection,
            receipt,
            parts,
            step: Step::Committing,
        };
        if !is_commit {
            let waiting = self.roll_back(number, &ending);
            ending.step = Step::RollingBack { waiting };
        } else if let [part] = ending.parts[..] {
            self.tell(number, connection, part, Order::Commit);
        } else {
            let own = self.own;
            let mut waiting = 0;
            for part in ending.parts.iter().filter(|part| part.shard != own) {
                self.tell(number, connection, *part, Order::Prepare);
                waiting += 1;
            }
            let has_failed = false;
            ending.step = Step::Preparing {
                waiting,
                has_failed,
            };
        }
        if ending.parts.is_empty() {
            let receipt = ending.receipt;
            self.outcomes
                .push_back((connection, Outcome::Ended { receipt }));
        } else {
            self.endings.insert(number, ending);
        }
    }

    /// A shard reports about an order. About a transaction that is given up it says nothing new.
    pub(super) fn take(&mut self, number: u64, report: Report) {
        let Some(mut ending) = self.endings.remove(&number) else {
            return;
        };
        if self.advance(number, &mut ending, report) {
            self.endings.insert(number, ending);
        }
    }

    /// Whether there is more to come.
    fn advance(&mut self, number: u64, ending: &mut Ending, report: Report) -> bool {
        match (&mut ending.step, report) {
            (Step::Preparing { .. }, _) => self.note_prepared(number, ending, report),
            (Step::Committing | Step::Deciding, Report::Failed) => self.fail(number, ending),
            (Step::Committing, Report::Durable) => self.say_ended(ending),
            (Step::Deciding, Report::Decided) => self.spread(number, ending),
            (Step::Telling { unapplied, .. }, Report::Applied) => {
                *unapplied -= 1;
                if *unapplied == 0 {
                    self.say_ended(ending);
                }
                true
            }
            (Step::Telling { untold, .. }, Report::Durable) => {
                *untold -= 1;
                *untold > 0 || self.forget(number, ending)
            }
            (Step::RollingBack { waiting }, Report::Applied) => {
                *waiting -= 1;
                *waiting > 0 || self.say_ended(ending)
            }
            _ => true,
        }
    }

    /// A shard has prepared, or cannot, or need not. The last answer decides.
    ///
    /// More than one shard may turn out to have nothing: what they were sent went nowhere.
    fn note_prepared(&mut self, number: u64, ending: &mut Ending, report: Report) -> bool {
        let Step::Preparing {
            waiting,
            has_failed,
        } = &mut ending.step
        else {
            return true;
        };
        *has_failed |= report == Report::Failed;
        *waiting -= 1;
        if *waiting > 0 {
            return true;
        }
        if *has_failed {
            return self.fail(number, ending);
        }
        ending.step = Step::Deciding;
        self.tell_own(number, ending.connection, Order::Decide);
        true
    }

    /// The decision is durable: the others commit.
    fn spread(&mut self, number: u64, ending: &mut Ending) -> bool {
        let own = self.own;
        ending.parts.retain(|part| part.shard != own);
        for part in &ending.parts {
            let part = Part {
                lanes: CONTROL,
                ..*part
            };
            self.tell(number, ending.connection, part, Order::Commit);
        }
        let count = ending.parts.len();
        ending.step = Step::Telling {
            unapplied: count,
            untold: count,
        };
        self.outcomes
            .push_back((ending.connection, Outcome::Decided));
        if count == 0 {
            self.say_ended(ending);
            return self.forget(number, ending);
        }
        true
    }

    /// Nobody has to hear of the decision any more.
    fn forget(&mut self, number: u64, ending: &Ending) -> bool {
        self.tell_own(number, ending.connection, Order::End);
        self.outcomes
            .push_back((ending.connection, Outcome::AllTold));
        false
    }

    fn say_ended(&mut self, ending: &mut Ending) -> bool {
        let receipt = ending.receipt.take();
        let outcome = Outcome::Ended { receipt };
        self.outcomes.push_back((ending.connection, outcome));
        false
    }

    fn fail(&mut self, number: u64, ending: &mut Ending) -> bool {
        self.roll_back(number, ending);
        let receipt = ending.receipt.take();
        let outcome = Outcome::Failed { receipt };
        self.outcomes.push_back((ending.connection, outcome));
        false
    }

    /// The connection is gone or takes too long: what is not decided is rolled back. Whether that
    /// was still possible.
    ///
    /// What its shards have not prepared they roll back themselves when they hear that it is gone.
    pub(super) fn give_up(&mut self, connection: ConnectionId) -> bool {
        let of = |ending: &Ending| ending.connection == connection;
        let numbers = self.endings.iter().filter(|(_, one)| of(one));
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        let mut is_possible = true;
        for number in numbers {
            match self.endings[&number].step {
                Step::Deciding | Step::Telling { .. } => is_possible = false,
                Step::Preparing { .. } => {
                    if let Some(ending) = self.endings.remove(&number) {
                        self.roll_back(number, &ending);
                    }
                }
                Step::Committing | Step::RollingBack { .. } => {
                    self.endings.remove(&number);
                }
            }
        }
        is_possible
    }

    /// Tells all parts to roll back what is there, and again what is still on its way: messages may
    /// wait for the very room that the rest of the transaction takes.
    fn roll_back(&mut self, number: u64, ending: &Ending) -> usize {
        let mut count = 0;
        for part in &ending.parts {
            let is_behind_messages = part.lanes[0] && part.shard != self.own;
            let lanes = [Some(CONTROL), is_behind_messages.then_some(MESSAGES)];
            for lanes in lanes.into_iter().flatten() {
                let part = Part { lanes, ..*part };
                self.tell(number, ending.connection, part, Order::RollBack);
                count += 1;
            }
        }
        count
    }

    fn tell_own(&mut self, number: u64, connection: ConnectionId, order: Order) {
        let (shard, lanes) = (self.own, CONTROL);
        self.tell(number, connection, Part { shard, lanes }, order);
    }

    fn tell(&mut self, transaction: u64, connection: ConnectionId, part: Part, order: Order) {
        let Part { shard, lanes } = part;
        self.orders.push_back(Told {
            shard,
            connection,
            transaction,
            order,
            lanes,
        });
    }

    pub(super) fn poll_order(&mut self) -> Option<Told> {
        self.orders.pop_front()
    }

    pub(super) fn poll_outcome(&mut self) -> Option<(ConnectionId, Outcome)> {
        self.outcomes.pop_front()
    }

    /// Whether orders or outcomes wait to be taken.
    pub(super) fn has_work(&self) -> bool {
        !self.orders.is_empty() || !self.outcomes.is_empty()
    }
}

#[cfg(test)]
mod tests;
