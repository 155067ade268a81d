//! Consumers that are too slow: a line for the log, and connections that have to go for it.

use core::fmt;

use super::connection::{Connection, Phase};
use super::{Action, ConnectionId, Shard};
use crate::frontend::{Pace, Slow};
use crate::now::Now;

/// How long a connection that is sent away may take to read why: it may be one that reads nothing.
const LAST_WORDS_US: u64 = 1_000_000;
/// The same of one that ends for another reason: whoever reads has read it by then.
const CLOSING_US: u64 = 10_000_000;

/// A consumer that was slow in a period, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowConsumerReport {
    /// Beginning of its connection's session name.
    pub connection: String,
    /// Address of its queue.
    pub address: String,
    /// What its client calls the subscription.
    pub subscription: String,
    /// What it settled.
    pub pace: Pace,
    /// Whether its connection closes for that.
    pub is_sent_away: bool,
}

impl fmt::Display for SlowConsumerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connection,
            address,
            subscription,
            pace,
            is_sent_away,
        } = self;
        let end = if *is_sent_away { "; disconnected" } else { "" };
        write!(
            f,
            "slow consumer: connection {connection}, address {address:?}, subscription \
             {subscription:?}: {pace} while messages wait for it{end}"
        )
    }
}

impl Connection {
    /// A consumer of it was slow.
    pub(super) fn note_slow(
        &mut self,
        id: ConnectionId,
        node: &str,
        slow: &Slow<&[u8]>,
    ) -> SlowConsumerReport {
        self.is_sent_away |= slow.is_sent_away;
        let subscription = self.frontend.subscription_id(slow.subscription);
        SlowConsumerReport {
            connection: session_start(node, id),
            address: String::from_utf8_lossy(slow.address).into_owned(),
            subscription: subscription.unwrap_or_default().to_owned(),
            pace: slow.pace,
            is_sent_away: slow.is_sent_away,
        }
    }

    /// Until when what was said last may be read, once it has to be; in monotonic microseconds.
    pub(super) fn limit_last_words(&mut self, now: Now) -> Option<u64> {
        let is_closing = self.phase == Phase::Closing && !self.frontend.is_looped_back();
        if !is_closing || self.closes_us.is_some() {
            return None;
        }
        let most_us = if self.is_sent_away {
            LAST_WORDS_US
        } else {
            CLOSING_US
        };
        self.closes_us = Some(now.monotonic_us + most_us);
        self.closes_us
    }
}

impl Shard {
    /// Closes a connection that is sent away and whose time to read why is over.
    pub(super) fn end_last_words(&mut self, id: ConnectionId, now: Now) {
        let connection = self.connections.get(&id);
        let Some(due_us) = connection.and_then(|connection| connection.closes_us) else {
            return;
        };
        if due_us <= now.monotonic_us {
            self.actions.push_back(Action::Close(id));
        } else {
            self.enter_timer_at(id, due_us);
        }
    }
}

/// How the session name of a connection begins: behind it is the time.
pub(super) fn session_start(node: &str, id: ConnectionId) -> String {
    let number = (id.0 & ((1 << 48) - 1)) + 1;
    format!("{node}-{}-{number}", id.shard())
}
