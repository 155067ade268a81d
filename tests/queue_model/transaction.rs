//! Transactions of a history: staged settlements, and every way to the end.

use forebay::queue::{Machine, Place, Refused, Return};
use forebay_journal::format::{Record, TransactionState};

use super::model::{State, Step};
use super::rig::{Pick, Rig};

impl Rig {
    pub(crate) fn is_prepared(&self, transaction: u64) -> bool {
        let staged = self.model.transactions.get(&transaction);
        staged.is_some_and(|staged| staged.is_prepared)
    }

    /// A number is drawn: nothing else ever gets it.
    pub(crate) fn draw_transaction(&mut self, shard: u8) {
        let expected = self.model.next_message << 8 | u64::from(shard);
        let number = self.machine.draw_transaction(shard.into());
        assert_eq!(number, expected);
        assert_eq!(Machine::coordinator_of(number), u16::from(shard));
        self.model.next_message += 1;
    }

    /// Acknowledges or, if `is_release`, gives back, when the transaction commits.
    pub(crate) fn stage_settle(&mut self, pick: &Pick, is_release: bool, transaction: u64) {
        if self.is_prepared(transaction) {
            return;
        }
        let Some((number, id, is_there)) = self.consumer(pick.who) else {
            return;
        };
        if !is_there {
            let one = forebay::queue::Selection::One(1);
            let decision = &mut self.decision;
            let refused = self
                .machine
                .decide_stage_settle(id, one, transaction, decision);
            return assert_eq!(refused, Err(Refused::UnknownConsumer));
        }
        let consumer = &self.model.consumers[&number];
        let (queue, selection) = (consumer.queue, self.selection(consumer, pick));
        let positions = self.positions(consumer, selection);
        let (machine, decision) = (&self.machine, &mut self.decision);
        let decided = if is_release {
            let unused = (Return::Unused, 0);
            machine.decide_stage_release(id, selection, unused, transaction, decision)
        } else {
            machine.decide_stage_settle(id, selection, transaction, decision)
        };
        if positions.is_empty() {
            return assert_eq!(decided, Err(Refused::UnknownDelivery));
        }
        decided.expect("something is selected");
        self.check_facts(number, &positions);
        let decision = core::mem::take(&mut self.decision);
        for fact in decision.facts() {
            let (place, _) = self.apply(&fact, Place::NONE);
            let (Record::Settle {
                transaction: of,
                messages,
                ..
            }
            | Record::Release {
                transaction: of,
                messages,
                ..
            }) = fact.record
            else {
                panic!("staged: {fact:?}");
            };
            assert_eq!(of, transaction);
            let staged = self.model.transactions.entry(transaction).or_default();
            staged
                .steps
                .extend(messages.messages().map(|id| Step::Settle {
                    queue,
                    id: id.0,
                    is_release,
                    is_journaled: fact.is_journaled,
                }));
            if let Place::Journal(location) = place {
                staged.pins.push(location.segment());
            }
        }
        self.decision = decision;
    }

    pub(crate) fn transact(&mut self, transaction: u64, state: TransactionState) {
        let is_known = self.model.transactions.contains_key(&transaction);
        assert_eq!(self.machine.has_staged(transaction), is_known);
        if state == TransactionState::Prepared && self.is_prepared(transaction) {
            return;
        }
        let decision = &mut self.decision;
        let decided = match state {
            TransactionState::Prepared => self.machine.decide_prepare(transaction, decision),
            TransactionState::Committed => self.machine.decide_commit(transaction, decision),
            TransactionState::RolledBack => self.machine.decide_roll_back(transaction, decision),
            TransactionState::Decided => return self.decide(transaction),
            TransactionState::Ended => return self.end(transaction),
        };
        if !is_known {
            return assert_eq!(decided, Err(Refused::UnknownTransaction));
        }
        decided.expect("something is staged");
        let done = self.apply_decision();
        match state {
            TransactionState::Prepared => {
                let staged = self.model.transactions.get_mut(&transaction);
                let staged = staged.expect("known");
                staged.is_prepared = true;
                if let Place::Journal(location) = done[0].0 {
                    staged.pins.push(location.segment());
                }
                assert_eq!(
                    staged.is_journaled(),
                    matches!(done[0].0, Place::Journal(_))
                );
            }
            TransactionState::Committed => self.commit(transaction),
            _ => self.model.end_transaction(transaction, false),
        }
        assert_eq!(self.machine.in_doubt(), self.prepared());
    }

    /// Commits as a coordinator does: the decision stays until the others have heard of it.
    fn decide(&mut self, transaction: u64) {
        if self.model.decided.contains_key(&transaction) {
            return;
        }
        self.machine.decide_decided(transaction, &mut self.decision);
        let done = self.apply_decision();
        let Place::Journal(location) = done[0].0 else {
            panic!("decisions are journaled");
        };
        let segment = location.segment();
        self.model.decided.insert(transaction, segment);
        self.commit(transaction);
    }

    fn end(&mut self, transaction: u64) {
        self.machine.decide_end(transaction, &mut self.decision);
        let is_decided = self.model.decided.remove(&transaction).is_some();
        assert_eq!(self.decision.is_empty(), !is_decided);
        self.apply_decision();
    }

    fn commit(&mut self, transaction: u64) {
        let steps = self.model.transactions.get(&transaction);
        for step in steps.into_iter().flat_map(|one| &one.steps) {
            if let Step::Settle {
                queue,
                id,
                is_release: false,
                ..
            } = step
            {
                self.settled.insert((*queue, *id));
            }
        }
        self.model.end_transaction(transaction, true);
    }

    pub(crate) fn prepared(&self) -> Vec<u64> {
        let transactions = self.model.transactions.iter();
        let prepared = transactions.filter(|(_, one)| one.is_prepared);
        prepared.map(|(number, _)| *number).collect()
    }

    /// After a restart: the machine knows what was prepared and what was decided, and all that
    /// prepared transactions settle waits.
    pub(crate) fn check_doubts(&self) {
        assert_eq!(self.machine.in_doubt(), self.prepared());
        let decided: Vec<u64> = self.model.decided.keys().copied().collect();
        assert_eq!(self.machine.decided(), decided);
        for transaction in self.model.transactions.values() {
            for step in &transaction.steps {
                if let Step::Settle { queue, id, .. } = step
                    && let Some(queue) = self.model.queues.get(queue)
                    && let Some(message) = queue.messages.get(id)
                {
                    assert_eq!(message.state, State::Locked, "{id} is settled in doubt");
                }
            }
        }
    }
}
