//! What was promised and what came of it. Checks only; knows nothing of how the load is made.
//!
//! A promise counts from the moment it leaves the broker, whether its client gets to read it or
//! not; what is durable is the witness's word, never the broker's.

use std::collections::{BTreeMap, BTreeSet};

use forebay_journal::storage::memory::Random;

use crate::transaction::{TransactionId, Transactions};

/// Names a message: its producer (one connection) and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Uid(pub(crate) u32, pub(crate) u32);

impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Uid {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (producer, number) = text.split_once('-')?;
        Some(Self(producer.parse().ok()?, number.parse().ok()?))
    }

    /// Finds the name in a stored head.
    pub(crate) fn of_head(head: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("uid:"))?;
        Self::parse(line)
    }

    /// The body of the message: follows from its name.
    pub(crate) fn body(self, size: usize, is_text: bool) -> Vec<u8> {
        let mut body = vec![0; size];
        Random::new(u64::from(self.0) << 32 | u64::from(self.1)).fill(&mut body);
        if is_text {
            body.iter_mut().for_each(|byte| *byte = b' ' + *byte % 90);
        }
        body
    }
}

/// Names a subscription of a run.
pub(crate) type SessionId = u32;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Destination {
    pub(crate) is_topic: bool,
    pub(crate) index: usize,
}

impl Destination {
    pub(crate) fn name(self) -> String {
        let kind = if self.is_topic { "topic" } else { "queue" };
        format!("/{kind}/{}", self.index)
    }
}

/// Who has a message, as far as can be known from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// On its way to, or at, a consumer that has not said anything about it.
    Held(SessionId),
    /// The consumer settled it, or the handover did; not promised yet.
    Settling(SessionId),
    /// Its settlement was confirmed.
    Settled,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) to: Destination,
    pub(crate) size: usize,
    pub(crate) is_text: bool,
    pub(crate) is_persistent: bool,
    pub(crate) life: u32,
    sent_at: u64,
    pub(crate) is_confirmed: bool,
    holder: Holder,
    pub(crate) is_maybe_settled: bool,
    /// Times its head left the broker, and the life of the last time.
    pub(crate) departures: u32,
    departed_life: u32,
    ends_when_sent: u32,
    /// Whether a consumer was leaving just then.
    sent_amid_end: bool,
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) to: Destination,
    pub(crate) is_auto: bool,
    confirmed_at: Option<u64>,
    /// The client said so, or its connection is gone.
    pub(crate) is_over: bool,
    /// The broker knows as well.
    is_gone: bool,
    /// Whether nothing but its own settlements can change the order of its queue.
    pub(crate) is_strict: bool,
    last: BTreeMap<u32, u32>,
    last_fresh: BTreeMap<u32, u32>,
    topic_got: BTreeSet<Uid>,
}

/// A delivery as its head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) uid: Uid,
    pub(crate) session: SessionId,
    pub(crate) is_redelivered: bool,
    pub(crate) count: usize,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) messages: BTreeMap<Uid, Message>,
    /// Whether messages come in another order than they were sent.
    pub(crate) has_no_order: bool,
    sessions: BTreeMap<SessionId, Session>,
    next_session: SessionId,
    pub(crate) transactions: Transactions,
    pub(crate) in_transaction: BTreeMap<Uid, TransactionId>,
    /// Messages that their senders were told are not taken.
    refused: BTreeSet<Uid>,
    /// Times something ended that may give messages of the queue back.
    ends: BTreeMap<Destination, u32>,
    all_ends: u32,
    pub(crate) life: u32,
    clock: u64,
    pub(crate) confirmed: u64,
    pub(crate) delivered: u64,
    pub(crate) redelivered: u64,
    pub(crate) settled: u64,
}

impl Ledger {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn ends_of(&self, to: Destination) -> u32 {
        self.all_ends + self.ends.get(&to).copied().unwrap_or(0)
    }

    pub(crate) fn session(&self, id: SessionId) -> &Session {
        &self.sessions[&id]
    }

    pub(crate) fn send(&mut self, uid: Uid, to: Destination, size: usize, kind: (bool, bool)) {
        let (is_text, is_persistent) = kind;
        let message = Message {
            to,
            size,
            is_text,
            is_persistent,
            life: self.life,
            sent_at: self.tick(),
            is_confirmed: false,
            holder: Holder::Nobody,
            is_maybe_settled: false,
            departures: 0,
            departed_life: 0,
            ends_when_sent: self.ends_of(to),
            sent_amid_end: self
                .sessions
                .values()
                .any(|session| session.to == to && session.is_over && !session.is_gone),
        };
        assert!(self.messages.insert(uid, message).is_none(), "{uid} twice");
    }

    /// Whether the message survives a power cut once it is confirmed.
    pub(crate) fn is_durable(&self, uid: Uid) -> bool {
        let message = &self.messages[&uid];
        message.is_persistent && !message.to.is_topic
    }

    /// A receipt of the message, or the last one of its connection, left.
    pub(crate) fn confirm(&mut self, uid: Uid, is_on_disk: bool) {
        let is_durable = self.is_durable(uid) && self.messages[&uid].holder != Holder::Settled;
        assert!(
            !is_durable || is_on_disk,
            "{uid} is confirmed and not durable"
        );
        let message = self.messages.get_mut(&uid).expect("sent before");
        self.confirmed += u64::from(!message.is_confirmed);
        message.is_confirmed = true;
    }

    /// An ERROR about the message left.
    pub(crate) fn refuse(&mut self, uid: Uid) {
        assert!(!self.messages[&uid].is_confirmed, "{uid} was confirmed");
        assert_eq!(self.messages[&uid].departures, 0, "{uid} was delivered");
        self.refused.insert(uid);
    }

    pub(crate) fn subscribe(&mut self, to: Destination, is_auto: bool, shards: u16) -> SessionId {
        self.next_session += 1;
        // Another consumer, or one that is only just going, may give messages back in between.
        let mut others = self.sessions.values_mut().filter(|s| s.to == to);
        let is_alone = others.all(|session| session.is_gone);
        if !is_alone {
            let others = self.sessions.values_mut().filter(|s| s.to == to);
            others.for_each(|session| session.is_strict = false);
        }
        let session = Session {
            to,
            is_auto,
            confirmed_at: None,
            is_over: false,
            is_gone: false,
            is_strict: is_alone && shards == 1,
            last: BTreeMap::new(),
            last_fresh: BTreeMap::new(),
            topic_got: BTreeSet::new(),
        };
        self.sessions.insert(self.next_session, session);
        self.next_session
    }

    /// The receipt of the SUBSCRIBE left.
    pub(crate) fn subscribed(&mut self, id: SessionId) {
        let at = self.tick();
        let session = self.sessions.get_mut(&id).expect("subscribed before");
        session.confirmed_at = Some(at);
    }

    /// The head of a MESSAGE leaves the broker.
    ///
    /// `known`: how often the disk knows it as delivered.
    pub(crate) fn depart(&mut self, one: Departure, known: Option<usize>) {
        let Departure { uid, session, .. } = one;
        assert!(!self.refused.contains(&uid), "{uid} was refused");
        self.check_committed(uid);
        let (is_durable, life) = (self.is_durable(uid), self.life);
        let message = self.messages.get_mut(&uid).expect("checked by the caller");
        let to = message.to;
        let held_by = self.sessions.get_mut(&session).expect("a session's");
        assert_eq!(to, held_by.to, "{uid} went elsewhere");
        self.delivered += 1;
        if to.is_topic {
            assert!(held_by.topic_got.insert(uid), "{uid} twice to one listener");
            assert!(!one.is_redelivered, "{uid} of a topic is flagged");
            return;
        }
        if is_durable {
            assert!(
                known.is_some_and(|known| known >= one.count),
                "{uid} leaves as delivery {} and the disk knows {known:?}",
                one.count
            );
        }
        if held_by.is_over {
            // It was on its way when its consumer said that it is not one any more.
            message.departures += 1;
            message.departed_life = life;
            return;
        }
        assert_eq!(
            message.holder,
            Holder::Nobody,
            "{uid} comes to session {session} though it is not free"
        );
        let was_seen = message.departures > 0 && (is_durable || message.departed_life == life);
        assert!(
            !was_seen || one.is_redelivered,
            "{uid} comes again without the flag"
        );
        self.redelivered += u64::from(one.is_redelivered);
        message.departures += 1;
        message.departed_life = life;
        message.holder = Holder::Held(session);
        let ends_before = message.ends_when_sent;
        let is_explained = message.sent_amid_end || self.ends_of(to) > ends_before;
        assert!(
            !one.is_redelivered || is_explained,
            "{uid} is flagged though nothing ended since it was sent"
        );
        self.check_order(one);
    }

    fn check_order(&mut self, one: Departure) {
        let session = self.sessions.get_mut(&one.session).expect("a session's");
        let Uid(producer, number) = one.uid;
        if self.has_no_order {
            return;
        }
        if !one.is_redelivered {
            let last = session.last_fresh.insert(producer, number);
            assert!(last < Some(number), "{} behind {last:?}", one.uid);
        }
        let last = session.last.insert(producer, number);
        assert!(
            !session.is_strict || last < Some(number),
            "{} behind {last:?} at a single consumer",
            one.uid
        );
    }

    /// The whole MESSAGE left the broker.
    pub(crate) fn arrive(&mut self, uid: Uid, session: SessionId, body: &[u8]) {
        let message = self.messages.get_mut(&uid).expect("departed before");
        let is_same = uid.body(message.size, message.is_text) == body;
        assert!(is_same, "{uid}: {} bytes are not its body", body.len());
        if !self.sessions[&session].is_auto {
            return;
        }
        // Handing it over settles it, even when its consumer is about to go.
        message.is_maybe_settled = true;
        if message.holder == Holder::Held(session) {
            message.holder = Holder::Settling(session);
        }
    }

    /// Whether somebody took it for good: its bytes need not be anywhere.
    pub(crate) fn is_taken(&self, uid: Uid) -> bool {
        let message = &self.messages[&uid];
        message.is_maybe_settled || message.holder == Holder::Settled
    }

    /// Whether that it was taken was confirmed.
    pub(crate) fn is_settled(&self, uid: Uid) -> bool {
        self.messages[&uid].holder == Holder::Settled
    }

    /// What the consumer has and said nothing about.
    pub(crate) fn held_by(&self, session: SessionId) -> Vec<Uid> {
        let held = self.messages.iter();
        let held = held.filter(|(_, message)| message.holder == Holder::Held(session));
        held.map(|(uid, _)| *uid).collect()
    }

    /// From now on all that was sent may be gone.
    pub(crate) fn forgive_all(&mut self) {
        let messages = self.messages.values_mut();
        messages.for_each(|message| message.is_maybe_settled = true);
    }

    /// The consumer sends an ACK.
    pub(crate) fn settle(&mut self, uid: Uid, session: SessionId) {
        let message = self.messages.get_mut(&uid).expect("delivered before");
        assert_eq!(message.holder, Holder::Held(session), "{uid}: the rig's");
        message.holder = Holder::Settling(session);
        message.is_maybe_settled = true;
    }

    /// The consumer commits a transaction in which it acknowledged the message, of which it may
    /// have taken its leave meanwhile. How often the message had left the broker.
    pub(crate) fn settle_in(&mut self, uid: Uid, session: SessionId) -> u32 {
        let message = self.messages.get_mut(&uid).expect("delivered before");
        if message.holder == Holder::Held(session) {
            message.holder = Holder::Settling(session);
        }
        message.is_maybe_settled = true;
        message.departures
    }

    /// How often the message left the broker.
    pub(crate) fn departures(&self, uid: Uid) -> u32 {
        self.messages[&uid].departures
    }

    /// The receipt of an ACK left.
    pub(crate) fn settled(&mut self, uid: Uid, is_on_disk: bool) {
        assert!(
            !self.is_durable(uid) || is_on_disk,
            "{uid} is settled and not durably"
        );
        let message = self.messages.get_mut(&uid).expect("delivered before");
        message.holder = Holder::Settled;
        self.settled += 1;
    }

    /// The consumer sends a NACK.
    pub(crate) fn release(&mut self, uid: Uid, session: SessionId) {
        let message = self.messages.get_mut(&uid).expect("delivered before");
        assert_eq!(message.holder, Holder::Held(session), "{uid}: the rig's");
        message.holder = Holder::Nobody;
        let to = message.to;
        *self.ends.entry(to).or_default() += 1;
        let session = self.sessions.get_mut(&session).expect("a session's");
        session.is_strict = false;
    }

    /// The consumer commits a transaction in which it refused the message, unless it lost that with
    /// its session.
    pub(crate) fn release_in(&mut self, uid: Uid, session: SessionId) {
        let message = self.messages.get(&uid).expect("delivered before");
        if message.holder == Holder::Held(session) {
            self.release(uid, session);
        }
    }

    /// The session ends: its consumer said so, or its connection is gone.
    pub(crate) fn end(&mut self, id: SessionId) {
        let session = self.sessions.get_mut(&id).expect("subscribed before");
        if session.is_over {
            return;
        }
        session.is_over = true;
        *self.ends.entry(session.to).or_default() += 1;
        for message in self.messages.values_mut() {
            if [Holder::Held(id), Holder::Settling(id)].contains(&message.holder) {
                message.holder = Holder::Nobody;
            }
        }
    }

    /// The broker closed the connection of the session, or confirmed its end.
    pub(crate) fn gone(&mut self, id: SessionId) {
        self.end(id);
        let session = self.sessions.get_mut(&id).expect("subscribed before");
        session.is_gone = true;
    }

    /// The node ended; whatever it held in memory is gone.
    pub(crate) fn end_life(&mut self) {
        let open: Vec<_> = self.sessions.keys().copied().collect();
        open.into_iter().for_each(|id| self.gone(id));
        self.all_ends += 1;
        self.life += 1;
    }

    /// Every topic subscription got what was confirmed after it was.
    pub(crate) fn check_topics(&self) {
        for (id, session) in &self.sessions {
            let Some(since) = session.confirmed_at else {
                continue;
            };
            if !session.to.is_topic || session.is_over {
                continue;
            }
            for (uid, message) in &self.messages {
                let is_due = message.to == session.to
                    && message.is_confirmed
                    && message.life == self.life
                    && message.sent_at > since;
                assert!(
                    !is_due || session.topic_got.contains(uid),
                    "listener {id} did not get {uid}"
                );
            }
        }
    }

    /// A node starts: what was promised and nobody took is on the disk.
    pub(crate) fn check_start(&self, has_message: impl Fn(Uid) -> bool) {
        for (uid, message) in &self.messages {
            let is_due = message.is_confirmed && self.is_durable(*uid) && !message.is_maybe_settled;
            assert!(
                !is_due || has_message(*uid),
                "{uid} was confirmed and recovery does not find it: {message:?}"
            );
        }
    }

    /// All was drained: nothing promised may be missing.
    pub(crate) fn check_end(&self) {
        self.check_transactions();
        for (uid, message) in &self.messages {
            let is_promised =
                message.is_confirmed && (self.is_durable(*uid) || message.life == self.life);
            if message.to.is_topic || !is_promised {
                continue;
            }
            assert!(
                message.is_maybe_settled || message.holder == Holder::Settled,
                "{uid} was confirmed and is lost: {message:?}"
            );
        }
    }
}
