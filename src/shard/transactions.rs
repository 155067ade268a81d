//! Transactions of one connection: which are open, and which shards have a part in them.

use forebay_journal::ShardId;

use super::host::Lane;
use crate::frontend::{Command, SendCommand};
use crate::limits::CONNECTION_COMMITS_UNENDED_MAX;

/// A shard with a part in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) shard: ShardId,
    /// By lane, messages first: whether something of it went that way.
    pub(super) lanes: [bool; 2],
}

/// One that the client began.
#[derive(Debug)]
pub(super) struct Open {
    /// What the front end calls it.
    pub(super) name: u64,
    /// The node's number of it.
    pub(super) number: u64,
    /// When it has been open too long, in monotonic microseconds.
    pub(super) due_us: u64,
    /// In the order in which they joined; no more than there are shards.
    pub(super) parts: Vec<Part>,
}

impl Open {
    fn join(&mut self, (shard, lane): (ShardId, Lane)) {
        let known = self.parts.iter_mut().find(|part| part.shard == shard);
        match known {
            Some(part) => part.lanes[lane as usize] = true,
            None => {
                let mut lanes = [false; 2];
                lanes[lane as usize] = true;
                self.parts.push(Part { shard, lanes });
            }
        }
    }
}

/// How the client ends one.
#[derive(Debug)]
pub(super) struct End {
    pub(super) is_commit: bool,
    pub(super) receipt: Option<Vec<u8>>,
}

/// What a command means to the transactions of its connection.
#[derive(Debug)]
pub(super) enum Taking {
    /// It goes its way.
    Pass,
    /// It ends one, and goes nowhere itself.
    End(Open, End),
    /// It belongs to none that is open: the front end knows better (our own mistake).
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// In the order in which they began: the first is the first that is due. The front end bounds
    /// their number.
    open: Vec<Open>,
    /// The one that ends: nothing is read meanwhile. When that has taken too long.
    ending: Option<u64>,
    /// Those committed of which not all shards have told that this is durable.
    unended: u32,
}

impl Transactions {
    /// Whether nothing is read until one has ended.
    pub(super) fn must_wait(&self) -> bool {
        self.ending.is_some() || self.unended >= CONNECTION_COMMITS_UNENDED_MAX
    }

    /// Finds out what a command, on its way to this shard in this lane, means to transactions. One
    /// that belongs to a transaction gets the node's number of it; `draw` tells the number of one
    /// that begins, and when it will have been open too long, in monotonic microseconds.
    pub(super) fn take(
        &mut self,
        command: &mut Command<&[u8]>,
        way: (ShardId, Lane),
        draw: impl FnOnce() -> (u64, u64),
    ) -> Taking {
        match command {
            Command::Send(SendCommand { transaction, .. })
            | Command::Settle { transaction, .. }
                if *transaction != 0 =>
            {
                let open = self.open.iter_mut().find(|one| one.name == *transaction);
                let Some(open) = open else {
                    return Taking::Unknown;
                };
                *transaction = open.number;
                open.join(way);
                Taking::Pass
            }
            Command::Begin { transaction, .. } => {
                let (number, due_us) = draw();
                self.open.push(Open {
                    name: *transaction,
                    number,
                    due_us,
                    parts: Vec::new(),
                });
                Taking::Pass
            }
            Command::EndTransaction {
                transaction,
                is_commit,
                receipt,
            } => match self.end(*transaction) {
                Some(open) => {
                    let end = End {
                        is_commit: *is_commit,
                        receipt: receipt.map(<[u8]>::to_vec),
                    };
                    Taking::End(open, end)
                }
                None => Taking::Unknown,
            },
            _ => Taking::Pass,
        }
    }

    /// Takes the transaction that is to end; the connection waits until [`Self::ended`].
    fn end(&mut self, name: u64) -> Option<Open> {
        let at = self.open.iter().position(|one| one.name == name)?;
        let open = self.open.remove(at);
        self.ending = Some(open.due_us);
        Some(open)
    }

    /// The one that was to end has ended.
    pub(super) fn ended(&mut self) {
        self.ending = None;
    }

    /// The one that ends is being decided: it cannot take too long any more.
    pub(super) fn cannot_be_recalled(&mut self) {
        self.ending = self.ending.map(|_| u64::MAX);
    }

    /// The one that ends is decided.
    pub(super) fn decided(&mut self) {
        self.cannot_be_recalled();
        self.unended += 1;
    }

    /// All shards have told about one that was decided.
    pub(super) fn all_told(&mut self) {
        self.unended -= 1;
    }

    /// When one has been open too long, in monotonic microseconds.
    pub(super) fn due_us(&self) -> Option<u64> {
        // As nearly always, and asked after every input.
        if self.open.is_empty() && self.ending.is_none() {
            return None;
        }
        let first = self.open.first().map(|one| one.due_us);
        let dues = [first, self.ending].into_iter().flatten();
        dues.filter(|due_us| *due_us < u64::MAX).min()
    }
}
