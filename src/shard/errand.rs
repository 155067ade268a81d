//! Commands about a subscription with a name, durable or shared, concern every shard: its queue
//! lives where its topic does, and its name says nothing about that. The connection's shard asks
//! one after another and reads nothing more from the connection meanwhile, so that all stays in
//! order.
//!
//! SUBSCRIBE: first the shard of the topic attaches; only then the others forget a subscription of
//! that name to another topic. So two connections that want the name at once never both keep it:
//! each finds the other one attached. Who joins a shared subscription asks the others all the same:
//! it may be on its way out. UNSUBSCRIBE: every shard forgets the name.
//!
//! One to a pattern is on every shard, a part on each. They are attached one after another, from
//! the first shard on, and what was made is taken back when one is refused.

use forebay_journal::ShardId;

use super::connection::Connection;
use super::host::Lane;
use super::step::take_reply;
use super::{ConnectionId, Shard};
use crate::frontend::{Command, Ending, Part, Refusal, Reply, Subscription};
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
        is_shared: bool,
        /// Whether the subscription was made for this.
        is_new: bool,
    },
    /// One part of a subscription to a pattern.
    Part {
        subscription: Subscription,
        is_last: bool,
    },
    Unsubscribe {
        is_found: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Done {
        existed: bool,
    },
    /// Somebody is attached to a subscription of that name, or it is one of another kind.
    Taken,
}

/// How an errand goes on.
enum Next {
    Ask(ShardId),
    /// Delete again what was made.
    Undo(ShardId, Subscription),
    /// The same of all parts of a subscription.
    UndoParts,
    /// A part is attached; this one, if it was made for that.
    Attached {
        made: Option<Subscription>,
        is_last: bool,
    },
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
                let task = match subscribe.part {
                    Some(Part { is_last, .. }) => Task::Part {
                        subscription,
                        is_last,
                    },
                    None => Task::Subscribe {
                        subscription,
                        is_shared: subscribe.is_shared,
                        is_new,
                    },
                };
                (task, subscribe.name?, subscribe.receipt)
            }
            Command::Forget { name, receipt, .. } => {
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
            (
                Task::Part {
                    subscription,
                    is_last,
                },
                Some(Answer::Done { existed }),
            ) => {
                return Next::Attached {
                    made: (!existed).then_some(*subscription),
                    is_last: *is_last,
                };
            }
            (Task::Part { .. }, _) => return Next::UndoParts,
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
                    ..
                },
                Some(Answer::Taken),
            ) => return Next::Undo(self.first, *subscription),
            (_, Some(Answer::Taken)) => return Next::End,
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

    /// For what kind of subscription the others make room, if for any.
    const fn for_shared(&self) -> Option<bool> {
        match self.task {
            Task::Subscribe { is_shared, .. } => Some(is_shared),
            Task::Part { .. } | Task::Unsubscribe { .. } => None,
        }
    }

    /// What the client is told in the end, if anything.
    fn reply(&self) -> Option<Reply<&[u8]>> {
        let receipt = self.receipt.as_deref();
        if let Task::Unsubscribe { is_found: false } = self.task {
            let refusal = Refusal::UnknownDurableSubscription;
            let about = None;
            return Some(Reply::Refused {
                refusal,
                about,
                receipt,
            });
        }
        receipt.map(|receipt| Reply::Receipt { receipt })
    }
}

impl Connection {
    /// Notes what a reply means to the errand; false if it means nothing to it.
    pub(super) fn note_answer(&mut self, reply: &Reply<&[u8]>) -> bool {
        let is_part = |errand: &Errand| matches!(errand.task, Task::Part { .. });
        let answer = match *reply {
            Reply::Answered { existed } => Answer::Done { existed },
            // Whatever the reason, the others are not to stay.
            Reply::Refused { .. } if self.errand.as_ref().is_some_and(is_part) => Answer::Taken,
            Reply::Refused {
                refusal:
                    Refusal::Queue(
                        Refused::SubscriptionDiffers
                        | Refused::SubscriptionInUse
                        | Refused::SubscriptionKind { .. },
                    ),
                ..
            } => Answer::Taken,
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
                // A subscription that it has is found again when the name is asked for then.
                Next::Ask(shard) if self.peers.damaged().contains(&shard) => {
                    errand.answer = Some(Answer::Done { existed: false });
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.errand = Some(errand);
                        self.answered.push_back(id);
                    }
                }
                Next::Ask(shard) => {
                    let (name, receipt) = (errand.name.as_slice(), errand.receipt.as_deref());
                    let forget = Command::Forget {
                        name,
                        for_shared: errand.for_shared(),
                        receipt,
                    };
                    self.tell(shard, id, forget, now);
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.errand = Some(errand);
                    }
                }
                Next::Undo(shard, subscription) => self.undo(shard, id, subscription, now),
                Next::UndoParts => self.undo_parts(id, now),
                Next::Attached { made, is_last } => {
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.parts_made.extend(made);
                        if is_last {
                            connection.parts_made.clear();
                        }
                    }
                    self.say(id, &errand);
                }
                Next::Say => self.say(id, &errand),
                Next::End => {}
            }
        }
    }

    /// Tells the client what its errand came to.
    fn say(&mut self, id: ConnectionId, errand: &Errand) {
        let connection = self.connections.get_mut(&id);
        if let (Some(connection), Some(reply)) = (connection, errand.reply()) {
            take_reply(connection, self.id, &reply, 0);
            self.mark_dirty(id);
        }
    }

    fn undo(&mut self, shard: ShardId, id: ConnectionId, subscription: Subscription, now: Now) {
        let (ending, receipt) = (Ending::Undo, None);
        let undo = Command::Unsubscribe {
            subscription,
            ending,
            receipt,
        };
        self.tell(shard, id, undo, now);
    }

    fn undo_parts(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let made = std::mem::take(&mut connection.parts_made).into_iter();
        let made = made.filter_map(|part| Some((connection.routing.host_of(part)?, part)));
        for (shard, part) in made.collect::<Vec<_>>() {
            self.undo(shard, id, part, now);
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

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: Option<&[u8]> = Some(b"r");

    fn errand(task: Task, first: u16) -> Errand {
        Errand {
            task,
            name: b"c.s".to_vec(),
            receipt: RECEIPT.map(<[u8]>::to_vec),
            first: ShardId(first),
            next: 0,
            answer: None,
        }
    }

    /// Shards asked behind the first one, while each gives the next of these answers; and the end.
    fn run(errand: &mut Errand, shard_count: u16, answers: &[Answer]) -> (Vec<u16>, Next) {
        let mut asked = Vec::new();
        for answer in answers {
            errand.answer = Some(*answer);
            match errand.go_on(shard_count) {
                Next::Ask(shard) => asked.push(shard.0),
                end => return (asked, end),
            }
        }
        panic!("more was asked than {asked:?}");
    }

    fn subscribe(first: u16) -> Errand {
        let task = Task::Subscribe {
            subscription: Subscription(7),
            is_shared: false,
            is_new: false,
        };
        errand(task, first)
    }

    const NEW: Answer = Answer::Done { existed: false };
    const KNOWN: Answer = Answer::Done { existed: true };

    #[test]
    fn every_other_shard_is_asked_once_behind_the_first() {
        for shard_count in 1..5 {
            for first in 0..shard_count {
                let answers = vec![NEW; usize::from(shard_count)];
                let mut errand = subscribe(first);
                let (asked, end) = run(&mut errand, shard_count, &answers);
                let others = (0..shard_count).filter(|shard| *shard != first);
                assert!(
                    asked.into_iter().eq(others),
                    "first {first} of {shard_count}"
                );
                assert!(matches!(end, Next::Say));
                assert!(matches!(
                    errand.reply(),
                    Some(Reply::Receipt { receipt: b"r" })
                ));
            }
        }
    }

    #[test]
    fn only_what_was_made_for_it_is_taken_back() {
        let (_, end) = run(&mut subscribe(1), 3, &[NEW, KNOWN, Answer::Taken]);
        assert!(matches!(end, Next::Undo(ShardId(1), Subscription(7))));
        for answers in [&[Answer::Taken][..], &[KNOWN, NEW, Answer::Taken]] {
            let (_, end) = run(&mut subscribe(1), 3, answers);
            assert!(matches!(end, Next::End));
        }
    }

    #[test]
    fn a_name_that_no_shard_has_is_refused() {
        for (answers, is_found) in [([NEW, NEW, NEW], false), ([NEW, NEW, KNOWN], true)] {
            let mut errand = errand(Task::Unsubscribe { is_found: false }, 0);
            let (asked, end) = run(&mut errand, 3, &answers);
            assert_eq!(asked, [1, 2]);
            assert!(matches!(end, Next::Say));
            let is_refused = matches!(
                errand.reply(),
                Some(Reply::Refused {
                    refusal: Refusal::UnknownDurableSubscription,
                    about: None,
                    receipt: RECEIPT,
                })
            );
            assert_eq!(is_refused, !is_found);
        }
    }
}
