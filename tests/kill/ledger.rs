//! What was promised and what happened: every message over all lives of the broker.
//!
//! The ledger sees events after each life: first those of all producers, then consumer by consumer
//! in the order each saw them. It never asks the broker anything.

use std::collections::BTreeMap;
use std::fmt;

/// Identity of a message: it stands in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) producer: u32,
    pub(crate) sequence: u64,
}

/// What a producer or a consumer saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Handed to the socket; whether the broker took it is open.
    Sent { message: Message, queue: usize },
    /// RECEIPT of the SEND came.
    Confirmed(Message),
    /// MESSAGE came; `whole` when queue, header and body are as sent.
    Seen {
        message: Message,
        queue: usize,
        redelivered: bool,
        whole: bool,
    },
    /// The ACK was handed to the socket: from now on the message may come back or not.
    Settling(Message),
    /// RECEIPT of the ACK came.
    Settled(Message),
    /// Something no broker may do, such as an ERROR frame.
    Wrong(String),
}

#[derive(Clone, Debug, Default)]
struct Entry {
    queue: usize,
    life_sent: u32,
    is_confirmed: bool,
    life_seen: Option<u32>,
    is_settling: bool,
    is_settled: bool,
}

/// Totals, to print.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) confirmed: u64,
    pub(crate) seen: u64,
    pub(crate) redelivered: u64,
    pub(crate) settled: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: BTreeMap<Message, Entry>,
    life: u32,
    /// Last sequence seen from each producer over the consumer's connection under inspection.
    last_seen: BTreeMap<u32, u64>,
    /// Newest message of a producer and a life that was settled and dropped from the entries.
    present: BTreeMap<(u32, u32), u64>,
    counts: Counts,
    backlog: usize,
}

/// Lives after which settled messages are dropped from memory.
const LIVES_KEPT: u32 = 50;

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            life: 0,
            last_seen: BTreeMap::new(),
            present: BTreeMap::new(),
            counts: Counts::default(),
            backlog: 0,
        }
    }

    /// The broker was started once more.
    pub(crate) fn new_life(&mut self) {
        self.life += 1;
        if self.life.is_multiple_of(LIVES_KEPT) {
            self.forget_settled();
        }
    }

    /// Drops what was settled long ago; should it come back, it is unknown, which is as wrong.
    fn forget_settled(&mut self) {
        let (life, present) = (self.life, &mut self.present);
        self.entries.retain(|message, entry| {
            let is_kept = !entry.is_settled || entry.life_sent + LIVES_KEPT > life;
            if !is_kept {
                let newest = present
                    .entry((message.producer, entry.life_sent))
                    .or_default();
                *newest = message.sequence.max(*newest);
            }
            is_kept
        });
    }

    /// The events that follow are of another consumer's connection.
    pub(crate) fn new_connection(&mut self) {
        self.last_seen.clear();
    }

    /// Messages confirmed and not acknowledged.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Enters one event. Errors: the promise it breaks.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Sent { message, queue } => {
                self.counts.sent += 1;
                let entry = Entry {
                    queue: *queue,
                    life_sent: self.life,
                    ..Entry::default()
                };
                match self.entries.insert(*message, entry) {
                    None => Ok(()),
                    Some(_) => Err(format!("the test sent {message:?} twice")),
                }
            }
            Event::Confirmed(message) => {
                self.counts.confirmed += 1;
                let entry = self.entry(*message)?;
                if entry.is_confirmed {
                    return Err(format!("{message:?} was confirmed twice"));
                }
                entry.is_confirmed = true;
                self.backlog += 1;
                Ok(())
            }
            Event::Seen {
                message,
                queue,
                redelivered,
                whole,
            } => self.see(*message, *queue, *redelivered, *whole),
            Event::Settling(message) => {
                let entry = self.entry(*message)?;
                let is_first = !entry.is_settling && entry.is_confirmed;
                entry.is_settling = true;
                self.backlog -= usize::from(is_first);
                Ok(())
            }
            Event::Settled(message) => {
                self.counts.settled += 1;
                self.entry(*message)?.is_settled = true;
                Ok(())
            }
            Event::Wrong(what) => Err(what.clone()),
        }
    }

    fn entry(&mut self, message: Message) -> Result<&mut Entry, String> {
        self.entries
            .get_mut(&message)
            .ok_or_else(|| format!("{message:?} was never sent, or settled long ago"))
    }

    fn see(
        &mut self,
        message: Message,
        queue: usize,
        redelivered: bool,
        whole: bool,
    ) -> Result<(), String> {
        let life = self.life;
        self.counts.seen += 1;
        self.counts.redelivered += u64::from(redelivered);
        let entry = self.entry(message)?;
        let now = format!("{message:?} in life {life} (known: {entry:?})");
        if !whole {
            return Err(format!("{now} is not as it was sent"));
        }
        if queue != entry.queue {
            return Err(format!("{now} came from queue {queue}"));
        }
        if entry.is_settled {
            return Err(format!(
                "{now} came back although its settlement was confirmed"
            ));
        }
        match entry.life_seen {
            Some(seen) if seen == life => return Err(format!("{now} came twice in one life")),
            Some(_) if !redelivered => {
                return Err(format!("{now} came again without redelivered:true"));
            }
            None if redelivered && entry.life_sent == life => {
                return Err(format!(
                    "{now} has redelivered:true in the life it was sent"
                ));
            }
            _ => entry.life_seen = Some(life),
        }
        match self.last_seen.insert(message.producer, message.sequence) {
            Some(last) if last >= message.sequence => {
                Err(format!("{now} came behind {last} of the same producer"))
            }
            _ => Ok(()),
        }
    }

    /// Holds the books against each other after everything was drained.
    ///
    /// Errors: a confirmed message never seen, one seen that did not come back to be settled, or a
    /// gap: a message that is lost while a later one of the same connection is there.
    pub(crate) fn finish(&self) -> Result<(), String> {
        let mut present = self.present.clone();
        for (message, entry) in &self.entries {
            if entry.life_seen.is_some() {
                let newest = present
                    .entry((message.producer, entry.life_sent))
                    .or_default();
                *newest = message.sequence.max(*newest);
            }
        }
        for (message, entry) in &self.entries {
            if entry.life_seen.is_some() {
                if !entry.is_settling {
                    return Err(format!(
                        "{message:?} was seen and never came back ({entry:?})"
                    ));
                }
                continue;
            }
            if entry.is_confirmed {
                return Err(format!("{message:?} was confirmed and is lost ({entry:?})"));
            }
            let newest = present.get(&(message.producer, entry.life_sent));
            if newest.is_some_and(|newest| *newest > message.sequence) {
                return Err(format!(
                    "{message:?} is lost but a later one, {newest:?}, is there"
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} confirmed, {} delivered ({} of them again), {} settled",
            self.sent, self.confirmed, self.seen, self.redelivered, self.settled
        )
    }
}

/// The ledger must be able to complain: one broken promise each.
#[cfg(test)]
mod canary {
    use super::*;

    const M: Message = Message {
        producer: 0,
        sequence: 7,
    };
    const LATER: Message = Message {
        producer: 0,
        sequence: 8,
    };

    fn seen(message: Message, redelivered: bool) -> Event {
        Event::Seen {
            message,
            queue: 0,
            redelivered,
            whole: true,
        }
    }

    fn sent(message: Message) -> Event {
        Event::Sent { message, queue: 0 }
    }

    /// Applies lives of events, each with one consumer, and finishes.
    fn verdict(lives: &[&[Event]]) -> Result<(), String> {
        let mut ledger = Ledger::new();
        for events in lives {
            ledger.new_life();
            ledger.new_connection();
            events.iter().try_for_each(|event| ledger.apply(event))?;
        }
        ledger.finish()
    }

    fn complains(lives: &[&[Event]], about: &str) {
        let verdict = verdict(lives);
        assert!(
            verdict.as_ref().is_err_and(|text| text.contains(about)),
            "{about}: {verdict:?}"
        );
    }

    #[test]
    fn a_kept_promise_passes() {
        let first = [sent(M), sent(LATER), Event::Confirmed(M), seen(M, false)];
        let second = [seen(M, true), Event::Settling(M), Event::Settled(M)];
        assert_eq!(verdict(&[&first, &second]), Ok(()));
    }

    #[test]
    fn an_acknowledgement_in_doubt_may_go_either_way() {
        let first = [
            sent(M),
            Event::Confirmed(M),
            seen(M, false),
            Event::Settling(M),
        ];
        assert_eq!(verdict(&[&first]), Ok(()));
        let second = [seen(M, true), Event::Settling(M), Event::Settled(M)];
        assert_eq!(verdict(&[&first, &second]), Ok(()));
    }

    #[test]
    fn what_was_settled_long_ago_is_still_known_to_be_wrong() {
        let first = [sent(M), sent(LATER), seen(LATER, false)];
        let settle = [Event::Settling(LATER), Event::Settled(LATER)];
        let first = [&first[..], &settle].concat();
        let mut lives: Vec<&[Event]> = vec![&first];
        lives.resize(3 * LIVES_KEPT as usize, &[]);
        complains(&lives, "a later one");
        let again = [seen(LATER, true)];
        lives.push(&again);
        complains(&lives, "settled long ago");
    }

    #[test]
    fn every_broken_promise_is_named() {
        let settled = [Event::Settling(M), Event::Settled(M)];
        let open = [sent(M), Event::Confirmed(M), seen(M, false)];
        let whole = [&open[..], &settled].concat();
        complains(&[&open[..2]], "confirmed and is lost");
        complains(&[&open], "never came back");
        complains(&[&whole, &[seen(M, true)]], "settlement was confirmed");
        complains(&[&open, &[seen(M, false)]], "without redelivered:true");
        complains(&[&[sent(M), seen(M, true)]], "in the life it was sent");
        complains(
            &[&[sent(M), seen(M, false), seen(M, true)]],
            "twice in one life",
        );
        complains(&[&[seen(M, false)]], "never sent");
        let swapped = [sent(M), sent(LATER), seen(LATER, false), seen(M, false)];
        complains(&[&swapped], "came behind");
        let gap = [
            sent(M),
            sent(LATER),
            seen(LATER, false),
            Event::Settling(LATER),
        ];
        complains(&[&gap], "a later one");
        complains(&[&[Event::Wrong("ERROR frame".into())]], "ERROR frame");
        let torn = Event::Seen {
            message: M,
            queue: 0,
            redelivered: false,
            whole: false,
        };
        complains(&[&[sent(M), torn]], "not as it was sent");
        let astray = Event::Seen {
            message: M,
            queue: 1,
            redelivered: false,
            whole: true,
        };
        complains(&[&[sent(M), astray]], "came from queue 1");
    }
}
