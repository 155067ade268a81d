//! One queue of a kind: its ledger, and what the ledger does not know of messages and consumers.

use std::collections::BTreeMap;

use crate::kinds::Kind;
use crate::ledger::{Departure, Destination, Ledger, Message, SessionId, Uid};
use crate::world::unix_ms;

/// Names a shelf of a run.
pub(crate) type ShelfId = usize;

/// All that is one queue, for its ledger.
const PLACE: Destination = Destination {
    is_topic: false,
    index: 0,
};

/// What the sender of a message asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) size: usize,
    pub(crate) is_persistent: bool,
    /// Wall-clock milliseconds from which on it is over; zero for never.
    pub(crate) expires_ms: u64,
    /// Wall-clock milliseconds before which it does not come.
    pub(crate) due_ms: u64,
    pub(crate) priority: u8,
    pub(crate) group: Option<u8>,
    /// Which of the topics, or of several queues, it goes to.
    pub(crate) topic: usize,
    /// Of a last value.
    pub(crate) key: u8,
    /// Whether its beginning is told as a time, not as a delay.
    pub(crate) is_absolute: bool,
    pub(crate) sent_us: u64,
    /// Times it was sent.
    pub(crate) sends: u32,
    /// When its first receipt left.
    pub(crate) confirmed_us: Option<u64>,
}

/// What is known of a message in this queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copy {
    /// When its last consumer let go of it, as a failed attempt or not, and in which life.
    pub(crate) released_us: u64,
    pub(crate) failed_life: Option<u32>,
    /// It must not come (again): why, and in which life; none for all to come.
    barred: Option<(&'static str, Option<u32>)>,
    /// Whether a consumer wrote that it refuses it for good.
    pub(crate) is_refused_for_good: bool,
}

impl Copy {
    /// It must not come again in this life, or in none.
    pub(crate) fn bar(&mut self, why: &'static str, life: Option<u32>) {
        let is_forever = self.barred.is_some_and(|(_, life)| life.is_none());
        if !is_forever {
            self.barred = Some((why, life));
        }
    }
}

/// A consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// When it asked to be one.
    pub(crate) from_us: u64,
    /// Nothing was handed to it before this.
    pub(crate) since_us: u64,
    pub(crate) prefetch: Option<u32>,
    /// Whether no other consumer has, or is about to give back, anything of the queue.
    pub(crate) is_sole: bool,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) kind: Kind,
    pub(crate) address: &'static str,
    /// Whether messages come here from another queue of the kind, not from clients.
    pub(crate) is_landing: bool,
    pub(crate) ledger: Ledger,
    pub(crate) copies: BTreeMap<Uid, Copy>,
    pub(crate) seats: BTreeMap<SessionId, Seat>,
    /// Of a durable subscription.
    pub(crate) subscription: super::durable::Subscription,
    /// Of groups: who has each, and the last message that came first time by group and producer.
    pub(crate) owners: BTreeMap<u8, SessionId>,
    pub(crate) last_fresh: BTreeMap<(u8, u32), u32>,
}

impl Shelf {
    pub(crate) fn new(kind: Kind, address: &'static str, is_landing: bool) -> Self {
        let is_ordered = matches!(
            kind,
            Kind::Durable | Kind::Expiry | Kind::Blocking | Kind::Failing
        );
        let mut ledger = Ledger::default();
        // What is on several shards has an order on each.
        let is_pattern = address.ends_with('*');
        ledger.has_no_order = is_landing || is_pattern || !is_ordered;
        Self {
            kind,
            address,
            is_landing,
            ledger,
            copies: BTreeMap::new(),
            seats: BTreeMap::new(),
            subscription: super::durable::Subscription::default(),
            owners: BTreeMap::new(),
            last_fresh: BTreeMap::new(),
        }
    }

    /// Whether messages of this topic go to it.
    pub(crate) fn matches(&self, facts: &Facts) -> bool {
        let is_all = self.kind != Kind::Durable || self.address.ends_with('*');
        is_all || self.address == super::durable::TOPICS[facts.topic]
    }

    /// Where a message was sent that comes from here.
    pub(crate) fn destination_of(&self, facts: &Facts) -> String {
        match self.kind {
            Kind::Durable => format!("/topic/{}", super::durable::TOPICS[facts.topic]),
            Kind::Gathered => format!("/queue/{}", facts.queue()),
            _ => self.destination(),
        }
    }

    pub(crate) fn destination(&self) -> String {
        let routing = match self.kind {
            Kind::Durable => "topic",
            _ => "queue",
        };
        format!("/{routing}/{}", self.address)
    }

    /// Its sender writes the message.
    pub(crate) fn send(&mut self, uid: Uid, facts: &Facts) {
        let kind = (false, facts.is_persistent);
        self.ledger.send(uid, PLACE, facts.size, kind);
        self.copies.insert(uid, Copy::default());
    }

    /// A consumer asks for messages: so many at once, or as they come (it settles none of them).
    pub(crate) fn subscribe(
        &mut self,
        prefetch: Option<u32>,
        shards: u16,
        now_us: u64,
    ) -> SessionId {
        let is_auto = prefetch.is_none();
        let session = self.ledger.subscribe(PLACE, is_auto, shards);
        let is_sole = self.ledger.session(session).is_strict;
        let others = self.seats.values_mut();
        others.for_each(|seat| seat.is_sole = false);
        self.seats.insert(
            session,
            Seat {
                from_us: now_us,
                since_us: now_us,
                prefetch,
                is_sole,
            },
        );
        session
    }

    /// The consumer lets go of one message or settles it.
    pub(crate) fn note_answer(&mut self, session: SessionId, now_us: u64) {
        let seat = self.seats.get_mut(&session).expect("subscribed before");
        if seat.prefetch == Some(1) {
            seat.since_us = now_us;
        }
    }

    /// The session ends; whether as a failure of what it holds.
    pub(crate) fn end(&mut self, session: SessionId, is_failure: bool, now_us: u64, life: u32) {
        if self.ledger.session(session).is_over {
            return;
        }
        for uid in self.ledger.held_by(session) {
            let copy = self.copies.get_mut(&uid).expect("sent before");
            copy.released_us = now_us;
            copy.failed_life = is_failure.then_some(life);
        }
        self.ledger.end(session);
    }

    /// Before this nobody can have decided to hand the message to that consumer.
    pub(crate) fn earliest_us(&self, uid: Uid, session: SessionId) -> u64 {
        let (seat, copy) = (&self.seats[&session], &self.copies[&uid]);
        seat.since_us.max(copy.released_us)
    }

    /// Whether a message is lost with the life that it came in, and that is over.
    pub(crate) fn is_past(&self, message: &Message, life: u32) -> bool {
        !message.is_persistent && message.life != life
    }

    /// Whether its consumer did not say that it is none any more.
    pub(crate) fn is_live(&self, session: SessionId) -> bool {
        !self.ledger.session(session).is_over
    }

    /// The head of a message leaves: what holds for every kind.
    pub(crate) fn depart(&mut self, one: Departure, known: Option<usize>, life: u32) {
        let copy = self.copies.get(&one.uid);
        let copy = copy.unwrap_or_else(|| panic!("{} is nothing of {}", one.uid, self.address));
        if let Some((why, until)) = copy.barred
            && self.is_live(one.session)
            && until.is_none_or(|until| until == life)
        {
            panic!("{} comes from {}: {why}", one.uid, self.address);
        }
        self.ledger.depart(one, known);
    }

    /// It has or had a consumer when its time was over: whatever comes now was decided later.
    pub(crate) fn check_in_time(&self, uid: Uid, session: SessionId, expires_ms: u64) {
        let earliest_ms = unix_ms(self.earliest_us(uid, session));
        assert!(
            expires_ms == 0 || expires_ms > earliest_ms,
            "{uid} was over at {expires_ms} and is handed out after {earliest_ms}"
        );
    }
}
