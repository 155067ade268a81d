//! Answers that count when their transaction commits: what they come to is decided when they are
//! given.

use forebay::queue::Selection;
use forebay_journal::MessageId;
use forebay_journal::format::TransactionState;

use super::model::{Back, RULES, State};
use super::rig::{Rig, return_of};

/// What one transaction answers.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    is_prepared: bool,
    answers: Vec<Answer>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    which: usize,
    id: u64,
    /// None is an acknowledgement.
    how: Option<Back>,
    /// When it was given.
    now: u64,
    /// Whether the consumer is gone.
    is_locked: bool,
}

impl Rig {
    /// What transactions settle of a queue.
    pub(crate) fn staged(&self, which: usize) -> Vec<u64> {
        let answers = self.transactions.values().flat_map(|one| &one.answers);
        let answers = answers.filter(|answer| answer.which == which);
        answers.map(|answer| answer.id).collect()
    }

    pub(crate) fn is_staged(&self, which: usize, id: u64) -> bool {
        self.staged(which).contains(&id)
    }

    /// The consumer of a queue is gone; what stays with transactions.
    pub(crate) fn lock(&mut self, which: usize) -> Vec<u64> {
        let answers = self.transactions.values_mut();
        for answer in answers.flat_map(|one| &mut one.answers) {
            answer.is_locked |= answer.which == which;
        }
        self.staged(which)
    }

    pub(crate) fn stage(&mut self, number: u64, which: usize, pick: u8, how: Option<Back>) {
        let known = self.transactions.get(&number);
        if known.is_some_and(|known| known.is_prepared) {
            return;
        }
        let Some((consumer, id)) = self.delivered(which, pick) else {
            return;
        };
        let now = self.now;
        self.decide(|machine, out| {
            let selection = Selection::Message(MessageId(id));
            let decided = match how {
                None => machine.decide_stage_settle(consumer, selection, number, out),
                Some(how) => {
                    let how = (return_of(how), now);
                    machine.decide_stage_release(consumer, selection, how, number, out)
                }
            };
            decided.expect("it holds it");
        });
        let answers = &mut self.transactions.entry(number).or_default().answers;
        answers.push(Answer {
            which,
            id,
            how,
            now,
            is_locked: false,
        });
    }

    pub(crate) fn end(&mut self, number: u64, state: TransactionState) {
        let Some(transaction) = self.transactions.get_mut(&number) else {
            return;
        };
        if state == TransactionState::Prepared {
            if !std::mem::replace(&mut transaction.is_prepared, true) {
                self.decide(|machine, out| machine.decide_prepare(number, out).expect("known"));
            }
            return;
        }
        let is_commit = state == TransactionState::Committed;
        self.decide(|machine, out| {
            let decided = if is_commit {
                machine.decide_commit(number, out)
            } else {
                machine.decide_roll_back(number, out)
            };
            decided.expect("something is staged");
        });
        let transaction = self.transactions.remove(&number).expect("asked before");
        for answer in transaction.answers {
            let (rules, queue) = (&RULES[answer.which], &mut self.queues[answer.which].1);
            match answer.how {
                None if is_commit => queue.leave(answer.id),
                Some(how) if is_commit => queue.give_back(rules, answer.id, how, answer.now),
                _ if answer.is_locked => {
                    let message = queue.messages.get_mut(&answer.id).expect("it is locked");
                    message.state = State::Ready;
                }
                _ => {}
            }
        }
        self.trim();
    }

    /// Only what is on the disk and promised is left.
    pub(crate) fn restart_transactions(&mut self) {
        let queues = &self.queues;
        self.transactions.retain(|_, transaction| {
            transaction.answers.retain_mut(|answer| {
                answer.is_locked = true;
                queues[answer.which].1.messages[&answer.id].is_durable
            });
            transaction.is_prepared && !transaction.answers.is_empty()
        });
    }
}
