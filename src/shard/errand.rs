//! Commands about a durable subscription concern every shard: its queue lives where its topic
//! does, and its name says nothing about that. The connection's shard asks one after another and
//! reads nothing more from the connection meanwhile, so that all stays in order.
//!
//! SUBSCRIBE: first the shard of the topic attaches; only then the others forget a subscription of
//! that name to another topic. So two connections that want the name at once never both keep it:
//! each finds the other one attached. UNSUBSCRIBE: every shard forgets the name.

use forebay_journal::ShardId;

use super::connection::Connection;
use super::host::Lane;
use super::step::take_reply;
use super::{ConnectionId, Shard};
use crate::frontend::{Command, Refusal, Reply, Subscription};
use crate::now::Now;
use crate::queue::Refused;

/// What is being done for a connection.
#[derive(Debug)]
pub(super) struct Errand {
    task: Task,
    name: Vec<u8>,
    receipt: Option<Vec<u8>>,
    /// The shard asked first, and the next one of the others.
    first: ShardId,
    next: u16,
    /// What the shard asked last said.
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug)]
enum Task {
    Subscribe {
        subscription: Subscription,
        /// Whether the subscription was made for this.
        is_new: bool,
    },
    Unsubscribe {
        is_found: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Done { existed: bool },
    InUse,
}

/// How an errand goes on.
enum Next {
    Ask(ShardId),
    /// Delete again what was made.
    Undo(ShardId, Subscription),
    Say,
    /// The refusal was said.
    End,
}

impl Errand {
    /// The errand that a command begins, which `first` is asked now.
    pub(super) fn of(command: &Command<&[u8]>, first: ShardId) -> Option<Self> {
        let (task, name, receipt) = match command {
            Command::Subscribe(subscribe) => {
                let subscription = subscribe.subscription;
                let is_new = false;
                let task = Task::Subscribe {
                    subscription,
                    is_new,
                };
                (task, subscribe.durable_name?, subscribe.receipt)
            }
            Command::Forget { name, receipt } => {
                (Task::Unsubscribe { is_found: false }, *name, *receipt)
            }
            _ => return None,
        };
        Some(Self {
            task,
            name: name.to_vec(),
            receipt: receipt.map(<[u8]>::to_vec),
            first,
            next: 0,
            answer: None,
        })
    }

    fn go_on(&mut self, shard_count: u16) -> Next {
        let is_first = self.next == 0;
        match (&mut self.task, self.answer.take()) {
            (Task::Subscribe { is_new, .. }, Some(Answer::Done { existed })) if is_first => {
                *is_new = !existed;
            }
            (Task::Unsubscribe { is_found }, Some(Answer::Done { existed })) => {
                *is_found |= existed;
            }
            (
                Task::Subscribe {
                    subscription,
                    is_new: true,
                },
                Some(Answer::InUse),
            ) => return Next::Undo(self.first, *subscription),
            (_, Some(Answer::InUse)) => return Next::End,
            _ => {}
        }
        if self.next == self.first.0 {
            self.next += 1;
        }
        if self.next >= shard_count {
            return Next::Say;
        }
        let shard = ShardId(self.next);
        self.next += 1;
        Next::Ask(shard)
    }

    /// What the client is told in the end, if anything.
    fn reply(&self) -> Option<Reply<&[u8]>> {
        let receipt = self.receipt.as_deref();
        if let Task::Unsubscribe { is_found: false } = self.task {
            let refusal = Refusal::UnknownDurableSubscription;
            return Some(Reply::Refused { refusal, receipt });
        }
        receipt.map(|receipt| Reply::Receipt { receipt })
    }
}

impl Connection {
    /// Notes what a reply means to the errand; false if it means nothing to it.
    pub(super) fn note_answer(&mut self, reply: &Reply<&[u8]>) -> bool {
        let answer = match *reply {
            Reply::Answered { existed } => Answer::Done { existed },
            Reply::Refused {
                refusal: Refusal::Queue(Refused::SubscriptionInUse),
                ..
            } => Answer::InUse,
            _ => return false,
        };
        let Some(errand) = &mut self.errand else {
            return false;
        };
        errand.answer = Some(answer);
        true
    }
}

impl Shard {
    /// Goes on with errands whose shard has answered.
    pub(super) fn run_errands(&mut self, now: Now) {
        while let Some(id) = self.answered.pop_front() {
            let errand = self.connections.get_mut(&id);
            let Some(mut errand) = errand.and_then(|connection| connection.errand.take()) else {
                continue;
            };
            match errand.go_on(self.shard_count) {
                Next::Ask(shard) => {
                    let (name, receipt) = (errand.name.as_slice(), errand.receipt.as_deref());
                    self.tell(shard, id, Command::Forget { name, receipt }, now);
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.errand = Some(errand);
                    }
                }
                Next::Undo(shard, subscription) => {
                    let (is_for_good, receipt) = (true, None);
                    let undo = Command::Unsubscribe {
                        subscription,
                        is_for_good,
                        receipt,
                    };
                    self.tell(shard, id, undo, now);
                }
                Next::Say => {
                    if let (Some(connection), Some(reply)) =
                        (self.connections.get_mut(&id), errand.reply())
                    {
                        take_reply(connection, self.id, &reply, 0);
                        self.mark_dirty(id);
                    }
                }
                Next::End => {}
            }
        }
    }

    /// Passes a command that may always come to a shard.
    fn tell(&mut self, shard: ShardId, id: ConnectionId, command: Command<&[u8]>, now: Now) {
        if shard == self.id {
            self.host.handle(id, &command, now);
        } else {
            let outgoing = self.peers.outgoing(shard);
            outgoing.push_command(Lane::Control, id, command);
        }
    }
}
