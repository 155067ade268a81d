//! Durable subscriptions: what is sent after the receipt of SUBSCRIBE comes, whoever breaks off in
//! between, until somebody unsubscribes; then nothing of it comes any more.

use std::collections::BTreeSet;

use crate::kinds::{Kinds, ShelfId};
use crate::ledger::{Departure, SessionId, Uid};

pub(super) const HEADER: &str = "activemq.subscriptionName";
pub(super) const NAME: &str = "mine";
/// What the subscriptions are to: a topic, and all of which there are two, on any shards.
pub(super) const SUBSCRIBED: [&str; 2] = ["news.a", "news.*"];
pub(super) const TOPICS: [&str; 2] = ["news.a", "news.b"];

/// What is known of a subscription.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    /// When the receipt of the SUBSCRIBE that made it left; none if it may not be there.
    since_us: Option<u64>,
    /// Sent since then.
    due: BTreeSet<Uid>,
    /// Whether the receipt of an UNSUBSCRIBE left, and nobody subscribed again.
    is_deleted: bool,
}

impl Subscription {
    pub(super) fn note_sent(&mut self, uid: Uid) {
        if self.since_us.is_some() {
            self.due.insert(uid);
        }
    }

    pub(super) fn is_due(&self, uid: Uid) -> bool {
        self.due.contains(&uid)
    }
}

impl Kinds {
    /// A SUBSCRIBE is written. If there is none, what was confirmed by now does not come.
    pub(super) fn ask_subscription(&mut self, at: ShelfId) {
        let shelf = &mut self.shelves[at];
        if !std::mem::take(&mut shelf.subscription.is_deleted) {
            return;
        }
        for (uid, copy) in &mut shelf.copies {
            if self.facts[uid].confirmed_us.is_some() {
                copy.bar("it was there before the subscription was", None);
            }
        }
    }

    /// The receipt of a SUBSCRIBE left.
    pub(super) fn note_subscribed(&mut self, at: ShelfId, session: SessionId, now_us: u64) {
        let shelf = &mut self.shelves[at];
        if shelf.is_live(session) {
            shelf.subscription.since_us.get_or_insert(now_us);
        }
    }

    /// An UNSUBSCRIBE with the name is written: from now on it may be gone, and all in it.
    pub(super) fn ask_deletion(&mut self, at: ShelfId) {
        let shelf = &mut self.shelves[at];
        shelf.subscription.since_us = None;
        shelf.subscription.due.clear();
        shelf.ledger.forgive_all();
    }

    /// The receipt of it left.
    pub(super) fn note_deleted(&mut self, at: ShelfId) {
        self.shelves[at].subscription.is_deleted = true;
        self.tried.unsubscribed += 1;
    }

    /// Whether an attach may be refused: the broker may not know yet that another one is gone.
    pub(super) fn may_be_refused(&self, at: ShelfId, seats: &[(ShelfId, SessionId)]) -> bool {
        let mut others = self.shelves[at].seats.keys();
        others.any(|other| !seats.contains(&(at, *other)))
    }

    /// A message of the topic leaves for the subscription.
    pub(super) fn check_subscription(&mut self, at: ShelfId, one: Departure) {
        let shelf = &self.shelves[at];
        let sent_us = self.facts[&one.uid].sent_us;
        let since_us = shelf.seats[&one.session].from_us;
        self.tried.attached_again += u64::from(sent_us < since_us);
    }
}
