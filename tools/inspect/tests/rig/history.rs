//! Random histories of a journal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_journal::format::{
    Annotations, Departure, IdList, MessageFields, Outcome, Parts, QueueFlags, Record, Routing,
    Standing, Stands, TransactionState,
};
use forebay_journal::{MessageId, QueueId};

use super::Journal;

/// What must come out: bodies by queue and message.
pub type Model = BTreeMap<(u64, u64), Vec<u8>>;

/// Random histories; the model knows enters and settles alone, which is all that decides.
pub struct History {
    pub journal: Journal,
    data: PathBuf,
    pub model: Model,
    next_transaction: u64,
    /// Whether a divert is left alone, as a broker does, which hands nothing out there.
    pub spares_divert: bool,
}

impl History {
    pub fn begin(data: &Path, segment_size: u64) -> Self {
        let mut journal = Journal::create_sized(data, segment_size);
        journal.state = Some(super::State::default());
        for (queue, flags) in [
            (1, QueueFlags::default()),
            (
                2,
                QueueFlags {
                    is_subscription: true,
                    is_shared: true,
                    ..QueueFlags::default()
                },
            ),
            (
                3,
                QueueFlags {
                    is_divert: true,
                    ..QueueFlags::default()
                },
            ),
            (4, QueueFlags::default()),
        ] {
            journal.append(&Record::QueueDefine {
                queue: QueueId(queue),
                routing: Routing::Multicast,
                flags,
                address: b"events",
                name: format!("name {queue}").as_bytes(),
                filter: if queue == 2 { b"a = 'b'" } else { b"" },
            });
        }
        Self {
            journal,
            data: data.to_owned(),
            model: Model::new(),
            next_transaction: 1 << 8,
            spares_divert: false,
        }
    }

    /// A queue and a message in it.
    fn pick(&self, pick: u64) -> Option<(u64, u64)> {
        let count = self.model.len() as u64;
        let index = pick.checked_rem(count)? as usize;
        self.model.keys().nth(index).copied()
    }

    fn send(&mut self, pick: u64, body: &[u8], fields: MessageFields) -> (u64, Vec<u64>) {
        let queues = [vec![1], vec![2], vec![1, 2, 3], vec![3]][pick as usize % 4].clone();
        let id = format!("id {pick}");
        let annotations = Annotations {
            deliver_unix_ms: if pick.is_multiple_of(7) { pick + 1 } else { 0 },
            group: pick % 3,
            is_group_end: pick.is_multiple_of(5),
            last_value: if pick.is_multiple_of(6) { b"key" } else { b"" },
            duplicate_id: if pick.is_multiple_of(2) {
                id.as_bytes()
            } else {
                b""
            },
            address: b"",
        };
        let message = self.journal.send_as(&queues, fields, annotations, body);
        (message, queues)
    }

    fn enter(&mut self, message: u64, queues: &[u64], body: &[u8]) {
        for queue in queues {
            self.model.insert((*queue, message), body.to_vec());
        }
    }

    fn transaction(&mut self, pick: u64, body: &[u8]) {
        let transaction = self.next_transaction;
        self.next_transaction += 1 << 8;
        let fields = MessageFields {
            transaction,
            ..MessageFields::default()
        };
        let (message, queues) = self.send(pick, body, fields);
        let settled = self.pick(pick);
        if let Some((queue, message)) = settled {
            self.journal.append(&Record::Settle {
                queue: QueueId(queue),
                transaction,
                outcome: Outcome::Accepted,
                messages: IdList(&[message.into()]),
            });
        }
        // This shard coordinates its transactions: decided is a commit, prepared alone is not.
        let state = [
            TransactionState::Committed,
            TransactionState::RolledBack,
            TransactionState::Prepared,
            TransactionState::Decided,
        ][pick as usize % 4];
        if pick % 5 != 4 {
            self.journal
                .append(&Record::Transaction { transaction, state });
        }
        let is_committed = matches!(
            state,
            TransactionState::Committed | TransactionState::Decided
        );
        if pick % 5 != 4 && is_committed {
            self.enter(message, &queues, body);
            settled.map(|settled| self.model.remove(&settled));
        }
    }

    /// None, or one of its own.
    fn some_transaction(&mut self, pick: u64) -> u64 {
        if pick.is_multiple_of(3) {
            return 0;
        }
        self.next_transaction += 1 << 8;
        self.next_transaction
    }

    /// Commits or rolls back: messages stay in their queue either way.
    fn end(&mut self, transaction: u64, pick: u64) {
        if transaction == 0 {
            return;
        }
        let state = if pick.is_multiple_of(2) {
            TransactionState::Committed
        } else {
            TransactionState::RolledBack
        };
        self.journal
            .append(&Record::Transaction { transaction, state });
        self.next_transaction += 1 << 8;
    }

    /// A message that a queue has ready is in another one, too, which its record does not name.
    fn share(&mut self, body: &[u8], fields: MessageFields) {
        let annotations = Annotations::default();
        let message = self.journal.send_as(&[1], fields, annotations, body);
        self.journal.append(&Record::Share {
            queue: QueueId(4),
            pairs: IdList(&[1.into(), message.into()]),
        });
        self.enter(message, &[1, 4], body);
    }

    /// A message is written anew, or found so where nothing before tells of it.
    fn write_anew(&mut self, picked: Option<(u64, u64)>, pick: u64, body: &[u8]) {
        let Some((_, message)) = picked.filter(|_| pick.is_multiple_of(2)) else {
            return self.find_anew(pick, body);
        };
        let state = self.journal.state.as_ref().expect("is kept");
        let (known, standings) = (state.messages[&message].clone(), state.standings(message));
        if state.is_staged(message) || known.body.len() > 60_000 || standings.is_empty() {
            return;
        }
        // Never within its segment: one is left when it is full.
        let current = self.journal.current_or_none();
        if current.is_none_or(|current| known.location.segment() >= current) {
            return;
        }
        let said = (known.fields(), known.annotations());
        self.journal
            .send_moved(Some(message), &standings, said, &known.body);
    }

    fn find_anew(&mut self, pick: u64, body: &[u8]) {
        let stands = [
            Stands::Ready,
            Stands::Delivered,
            Stands::Delayed {
                ready_unix_ms: 5_000_000_000_000,
            },
            Stands::Leaving(Departure::Expired),
        ][pick as usize % 4];
        let standing = Standing {
            stands,
            attempts: (pick % 3000).min(2047) as u16,
            is_replaced: false,
        };
        let said = (MessageFields::default(), Annotations::default());
        let queues = [(1, standing), (2, standing)];
        let message = self.journal.send_moved(None, &queues, said, body);
        self.enter(message, &[1, 2], body);
    }

    /// An upload whose message never comes, and a new epoch.
    fn restart(&mut self, body: &[u8]) {
        self.journal.append(&Record::Fragment {
            upload: u64::MAX >> 3,
            offset: 0,
            body: Parts::One(body),
        });
        self.journal.idle();
        let mut state = self.journal.state.take();
        state.as_mut().expect("is kept").end_epoch();
        self.journal = Journal::reopen(&self.data);
        self.journal.state = state;
    }

    /// Releases or sends on.
    fn move_one(&mut self, kind: u8, pick: u64, queue: QueueId, messages: IdList<'_>) {
        let transaction = self.some_transaction(pick);
        self.journal.append(&match kind {
            9 => Record::Release {
                queue,
                transaction,
                ready_unix_ms: pick % 2 * 5_000_000_000_000,
                messages,
            },
            _ => Record::Depart {
                queue,
                transaction,
                reason: Departure::AttemptsExceeded,
                messages,
            },
        });
        self.end(transaction, pick);
    }

    pub fn step(&mut self, (kind, pick, body): &(u8, u64, Vec<u8>)) {
        let fields = MessageFields {
            priority: (pick % 10) as u8,
            expires_unix_ms: pick % 3 * 4_000_000_000_000,
            ..MessageFields::default()
        };
        let picked = self.pick(*pick);
        let (queue, message) = picked.unwrap_or((1, 1));
        let (queue, one) = (QueueId(queue), [message.into()]);
        let messages = IdList(&one);
        if self.spares_divert && queue.0 == 3 && [6, 7, 9].contains(kind) {
            return;
        }
        match kind {
            0..=3 => {
                let (message, queues) = self.send(*pick, body, fields);
                self.enter(message, &queues, body);
            }
            4 => {
                let body = body.repeat(300);
                let message = self.journal.send_large(&[1, 2], &body, 20_000);
                self.enter(message, &[1, 2], &body);
            }
            5 => self.transaction(*pick, body),
            6 => {
                self.journal.append(&Record::Handout { queue, messages });
            }
            7 => self.journal.deliver(queue.0, message, message + 5),
            8 => {
                self.journal.append(&Record::Settle {
                    queue,
                    transaction: 0,
                    outcome: Outcome::Expired,
                    messages,
                });
                picked.map(|picked| self.model.remove(&picked));
            }
            9 | 10 => self.move_one(*kind, *pick, queue, messages),
            11 => {
                self.journal.append(&Record::DuplicateId {
                    message: MessageId(message),
                    routing: Routing::Multicast,
                    address: b"events",
                    id: b"seen",
                });
            }
            12 => self.restart(body),
            13 => self.share(body, fields),
            14 => self.write_anew(picked, *pick, body),
            15 => self.journal.begin_checkpoint(),
            16..=18 => drop(self.journal.say(*pick as usize % 30)),
            _ => self.journal.idle(),
        }
    }
}
