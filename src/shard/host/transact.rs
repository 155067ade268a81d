//! Transactions as a hosting shard sees them: what of them is staged for which connection, and the
//! orders of the shards that coordinate them.

use forebay_journal::{AppendError, Lsn};

use super::{Answer, Deferred, Host, Parked};
use crate::frontend::{Order, Ordered, Report};
use crate::shard::ConnectionId;
use crate::shard::commit::Verdict;
use crate::shard::link::Part;

impl Host {
    /// Draws the number of a transaction that this shard coordinates.
    pub(in crate::shard) fn draw_transaction(&mut self) -> u64 {
        self.machine.draw_transaction(self.shard)
    }

    /// What was in doubt when the node ended is settled before anything else.
    pub(in crate::shard) fn judge(&mut self, verdicts: &[Verdict]) {
        let link = ConnectionId::nobody(forebay_journal::ShardId(self.shard));
        for verdict in verdicts {
            let order = if verdict.is_committed {
                Order::Commit
            } else {
                Order::RollBack
            };
            self.deferred.push_back(Deferred::Order {
                link,
                transaction: verdict.transaction,
                order,
            });
        }
    }

    /// Notes that the connection has something staged, so that it goes with it; zero is no
    /// transaction.
    pub(super) fn join(&mut self, link: ConnectionId, transaction: u64) {
        if transaction != 0 {
            self.part(link, transaction);
        }
    }

    /// Notes that a command in the transaction was refused: it cannot commit.
    pub(super) fn spoil(&mut self, link: ConnectionId, transaction: u64) {
        if transaction != 0 {
            self.part(link, transaction).has_failed = true;
        }
    }

    fn part(&mut self, link: ConnectionId, transaction: u64) -> &mut Part {
        let parts = &mut self.link(link).transactions;
        let known = parts.iter().position(|part| part.number == transaction);
        let at = known.unwrap_or(parts.len());
        if known.is_none() {
            parts.push(Part::new(transaction));
        }
        &mut parts[at]
    }

    /// Takes one copy of an order; the last one is carried out, behind all that came in any lane.
    pub(super) fn take_order(&mut self, link: ConnectionId, ordered: Ordered) {
        let Ordered {
            transaction,
            order,
            copies,
        } = ordered;
        if copies > 1 {
            let part = self.part(link, transaction);
            part.copies += 1;
            if part.copies < copies {
                return;
            }
        }
        self.run(Deferred::Order {
            link,
            transaction,
            order,
        });
    }

    pub(super) fn carry_out(
        &mut self,
        link: ConnectionId,
        transaction: u64,
        order: Order,
    ) -> Result<(), AppendError> {
        let is_promise = matches!(order, Order::Prepare | Order::Commit | Order::Decide);
        if is_promise && self.has_failed(link, transaction) {
            self.report(link, Lsn::ZERO, transaction, Report::Failed);
            return Ok(());
        }
        let (machine, decision) = (&self.machine, &mut self.decision);
        let decided = match order {
            Order::Prepare => machine.decide_prepare(transaction, decision),
            Order::Commit => machine.decide_commit(transaction, decision),
            Order::RollBack => machine.decide_roll_back(transaction, decision),
            Order::Decide => {
                machine.decide_decided(transaction, decision);
                Ok(())
            }
            Order::End => {
                machine.decide_end(transaction, decision);
                Ok(())
            }
        };
        let lsn = match decided {
            Ok(()) => self.commit_decision()?,
            // Nothing was staged, or that was done in a life before.
            Err(_) => self.last_lsn(),
        };
        self.leave_transaction(link, transaction, lsn);
        match order {
            Order::Prepare if decided.is_err() => {
                self.report(link, Lsn::ZERO, transaction, Report::Empty);
            }
            Order::Prepare => self.report(link, lsn, transaction, Report::Prepared),
            Order::Commit => {
                self.report(link, Lsn::ZERO, transaction, Report::Applied);
                self.report(link, lsn, transaction, Report::Durable);
            }
            Order::RollBack => self.report(link, Lsn::ZERO, transaction, Report::Applied),
            Order::Decide => self.report(link, lsn, transaction, Report::Decided),
            Order::End => {}
        }
        Ok(())
    }

    fn has_failed(&self, link: ConnectionId, transaction: u64) -> bool {
        let parts = self.links.get(&link).map(|link| &link.transactions);
        let mut parts = parts.into_iter().flatten();
        parts.any(|part| part.number == transaction && part.has_failed)
    }

    /// From here on the transaction does not end with its connection.
    fn leave_transaction(&mut self, link: ConnectionId, transaction: u64, lsn: Lsn) {
        if let Some(link) = self.links.get_mut(&link) {
            link.transactions.retain(|part| part.number != transaction);
            link.last_lsn = link.last_lsn.max(lsn);
        }
    }

    /// Reports when everything up to `lsn` is durable.
    fn report(&mut self, link: ConnectionId, lsn: Lsn, transaction: u64, report: Report) {
        if lsn < self.writer.durable_end() {
            let answer = Answer::Reported {
                transaction,
                report,
            };
            self.answers.push_back((link, answer));
        } else {
            let parked = Parked::Reported {
                link,
                transaction,
                report,
            };
            self.gate.park(lsn, parked);
        }
    }

    /// The connection goes: what it staged and no coordinator has a promise for is dropped.
    ///
    /// What comes of it later, behind messages that wait, does not count either: a half is gone.
    pub(super) fn roll_back_open(&mut self, link: ConnectionId) -> Result<(), AppendError> {
        let open = self.links.get(&link).map(|link| &link.transactions);
        let numbers: Vec<u64> = open.into_iter().flatten().map(|one| one.number).collect();
        for number in numbers {
            let decided = self.machine.decide_roll_back(number, &mut self.decision);
            if decided.is_ok() {
                self.commit_decision()?;
            }
            self.spoil(link, number);
        }
        Ok(())
    }
}
