//! Transactions of one STOMP connection: the client's names and ours.
//! Source: STOMP 1.2 "BEGIN", "COMMIT", "ABORT".

use super::Unusable;
use super::session::{Refused, Session, Text, owned};
use crate::frontend::Command;
use crate::protocol::stomp::{Transaction, Value};

/// Those that are open: few, so they are searched.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Vec<(Box<str>, u64)>,
    /// The last name of ours that was given.
    last: u64,
}

impl Transactions {
    /// Our name of the transaction that a frame belongs to; zero for none.
    ///
    /// Errors: it is not open.
    pub(super) fn of(&self, name: Option<Value<'_>>) -> Result<u64, Unusable> {
        let Some(name) = name else { return Ok(0) };
        let name = name.decode();
        match self.position(&name) {
            Some(at) => Ok(self.open[at].1),
            None => Err(unknown(&name)),
        }
    }

    /// A name of ours for one more.
    pub(super) fn draw(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.open.iter().position(|(open, _)| **open == *name)
    }
}

fn unknown(name: &str) -> Unusable {
    let details = format!(
        "The transaction {name:?} is not open on this connection. One that was open when the \
         connection before it ended was rolled back."
    );
    Unusable::new("no such transaction", details)
}

impl Session {
    pub(super) fn begin<'a>(
        &mut self,
        begin: &Transaction<'a>,
    ) -> Result<Command<Text<'a>>, Refused> {
        let refused = |unusable| (unusable, owned(begin.receipt));
        let name = begin.transaction.decode();
        if self.transactions.position(&name).is_some() {
            let details = format!("A transaction {name:?} is open on this connection already.");
            return Err(refused(Unusable::new("transaction exists", details)));
        }
        let max = self.settings.transactions_max;
        if self.transactions.open.len() >= max {
            let details = format!("A connection has at most {max} transactions open at once.");
            return Err(refused(Unusable::new("too many transactions", details)));
        }
        let transaction = self.transactions.draw();
        self.transactions.open.push((name.into(), transaction));
        Ok(Command::Begin {
            transaction,
            receipt: self.scratch().receipt(begin.receipt),
        })
    }

    pub(super) fn end_transaction<'a>(
        &mut self,
        end: &Transaction<'a>,
        is_commit: bool,
    ) -> Result<Command<Text<'a>>, Refused> {
        let name = end.transaction.decode();
        let Some(at) = self.transactions.position(&name) else {
            return Err((unknown(&name), owned(end.receipt)));
        };
        let (_, transaction) = self.transactions.open.remove(at);
        self.outstanding.end(transaction, is_commit);
        Ok(Command::EndTransaction {
            transaction,
            is_commit,
            receipt: self.scratch().receipt(end.receipt),
        })
    }
}
