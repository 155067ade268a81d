//! Transactions of a run: what clients do in them, and what has to come of it.
//!
//! Of the durable messages that one sends, all are delivered in the end or none; and what it
//! acknowledges is gone if they are, and comes again if they are not.

use std::collections::BTreeMap;

use forebay::shard::ConnectionId;

use crate::client::{Client, Held};
use crate::ledger::{Destination, Ledger, SessionId, Uid};
use crate::network::NOTE;
use crate::wire::Promise;
use crate::world::World;

/// Names a transaction of a run.
pub(crate) type TransactionId = u32;

/// One as the ledger knows it.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Whether its client asked to commit it.
    is_asked: bool,
    is_confirmed: bool,
    sends: Vec<Uid>,
    /// With how often each had left the broker when the commit was asked for.
    acks: Vec<(Uid, u32)>,
}

pub(crate) type Transactions = BTreeMap<TransactionId, Transaction>;

/// One that a client has open.
#[derive(Debug)]
pub(crate) struct Open {
    id: TransactionId,
    producer: u32,
    acks: Vec<(SessionId, Held)>,
    nacks: Vec<(SessionId, Held)>,
}

impl Open {
    fn name(&self) -> String {
        format!("t{}", self.id)
    }
}

impl Client {
    /// Begins a transaction, goes on with the one that is open, or ends it.
    pub(crate) fn transact(&mut self, id: ConnectionId, world: &mut World, must_end: bool) {
        let mut open = match self.open.take() {
            Some(open) => open,
            None if must_end || !world.chance(3) => return,
            None => {
                let open = world.begin_transaction();
                self.say(id, world, "BEGIN", &[("transaction", &open.name())], b"");
                open
            }
        };
        if must_end || world.chance(3) {
            return self.end_transaction(id, world, open);
        }
        for _ in 0..world.random.below(4) {
            self.send_in(id, world, &open);
        }
        if world.chance(2) {
            self.acknowledge_in(id, world, &mut open);
        }
        self.open = Some(open);
    }

    fn send_in(&mut self, id: ConnectionId, world: &mut World, open: &Open) {
        if world.messages_left == 0 {
            return;
        }
        world.messages_left -= 1;
        let index = world.random.below(world.options.queues as u64) as usize;
        let is_topic = false;
        let to = Destination { is_topic, index };
        let large = world.options.large_permille;
        let size = match world.random.permille(large) {
            true => 10_000 + world.random.below(250_000),
            false => world.random.below(600),
        } as usize;
        let uid = world.ledger.send_in(open.id, open.producer, to, size);
        let (name, length) = (to.name(), size.to_string());
        let (uid_text, transaction) = (uid.to_string(), open.name());
        let headers = [
            ("destination", name.as_str()),
            ("uid", &uid_text),
            ("note", NOTE),
            ("content-length", &length),
            ("persistent", "true"),
            ("transaction", &transaction),
        ];
        self.say(id, world, "SEND", &headers, &uid.body(size, false));
    }

    fn acknowledge_in(&mut self, id: ConnectionId, world: &mut World, open: &mut Open) {
        let Some((session, token, settled)) = self.take_held(world) else {
            return;
        };
        let transaction = open.name();
        let headers = [("id", token.as_str()), ("transaction", &transaction)];
        let is_refused = world.chance(4);
        let (verb, answers) = match is_refused {
            true => ("NACK", &mut open.nacks),
            false => ("ACK", &mut open.acks),
        };
        answers.extend(settled.into_iter().map(|held| (session, held)));
        self.say(id, world, verb, &headers, b"");
    }

    fn end_transaction(&mut self, id: ConnectionId, world: &mut World, open: Open) {
        let transaction = open.name();
        if world.chance(5) {
            self.say(id, world, "ABORT", &[("transaction", &transaction)], b"");
            // It has them still.
            return open
                .acks
                .into_iter()
                .chain(open.nacks)
                .for_each(|(session, held)| self.hold_again(session, held));
        }
        let acks: Vec<_> = open.acks.iter().map(|(of, held)| (held.uid, *of)).collect();
        world.ledger.ask_commit(open.id, &acks);
        let refused = open.nacks.iter();
        refused.for_each(|(of, held)| world.ledger.release_in(held.uid, *of));
        let named = open.acks.iter().map(|(_, held)| (held.uid, held.name));
        let promise = Promise::Commit(open.id, named.collect());
        let receipt = self.receipt(id, world, promise);
        let headers = [("transaction", transaction.as_str()), ("receipt", &receipt)];
        self.say(id, world, "COMMIT", &headers, b"");
    }
}

impl World {
    fn begin_transaction(&mut self) -> Open {
        self.next_producer += 1;
        Open {
            id: self.ledger.begin(),
            producer: self.next_producer,
            acks: Vec::new(),
            nacks: Vec::new(),
        }
    }
}

impl Ledger {
    fn begin(&mut self) -> TransactionId {
        let id = self.transactions.len() as TransactionId + 1;
        self.transactions.insert(id, Transaction::default());
        id
    }

    fn transaction(&mut self, id: TransactionId) -> &mut Transaction {
        self.transactions.get_mut(&id).expect("begun before")
    }

    fn send_in(&mut self, id: TransactionId, producer: u32, to: Destination, size: usize) -> Uid {
        let number = self.transaction(id).sends.len() as u32 + 1;
        let uid = Uid(producer, number);
        self.send(uid, to, size, (false, true));
        self.transaction(id).sends.push(uid);
        self.in_transaction.insert(uid, id);
        uid
    }

    /// The client sends COMMIT.
    fn ask_commit(&mut self, id: TransactionId, acks: &[(Uid, SessionId)]) {
        for (uid, session) in acks {
            let departures = self.settle_in(*uid, *session);
            self.transaction(id).acks.push((*uid, departures));
        }
        self.transaction(id).is_asked = true;
    }

    /// Messages of the transaction, whose COMMIT was confirmed just now.
    pub(crate) fn confirm_commit(&mut self, id: TransactionId) -> Vec<Uid> {
        let transaction = self.transaction(id);
        transaction.is_confirmed = true;
        transaction.sends.clone()
    }

    /// A message leaves the broker: it is in no transaction that nobody asked to commit.
    pub(crate) fn check_committed(&self, uid: Uid) {
        let id = self.in_transaction.get(&uid);
        let transaction = id.map(|id| &self.transactions[id]);
        let is_open = transaction.is_some_and(|one| !one.is_asked);
        assert!(
            !is_open,
            "{uid} of {transaction:?} leaves before the commit"
        );
    }

    /// Transactions that committed: those confirmed, and the others.
    pub(crate) fn commits(&self) -> (u64, u64) {
        let mut commits = (0, 0);
        for transaction in self.transactions.values() {
            let came = |uid: &Uid| self.departures(*uid) > 0;
            if transaction.is_confirmed {
                commits.0 += 1;
            } else if transaction.sends.iter().any(came) {
                commits.1 += 1;
            }
        }
        commits
    }

    /// All was drained: each transaction is there as a whole or not at all.
    pub(crate) fn check_transactions(&self) {
        for (id, transaction) in &self.transactions {
            let came = |uid: &&Uid| self.departures(**uid) > 0;
            let count = transaction.sends.iter().filter(came).count();
            let all = transaction.sends.len();
            assert!(
                count == 0 || count == all,
                "{count} of {all} messages came of transaction {id}: {transaction:?}"
            );
            let is_committed = transaction.is_confirmed || count > 0;
            assert!(
                !is_committed || count == all,
                "transaction {id} was confirmed and is lost: {transaction:?}"
            );
            for (uid, departures) in &transaction.acks {
                if all == 0 && !transaction.is_confirmed || !self.is_durable(*uid) {
                    continue;
                }
                let came_again = self.departures(*uid) > *departures;
                assert_eq!(
                    came_again, !is_committed,
                    "{uid} and transaction {id} disagree: {transaction:?}"
                );
            }
        }
    }
}
