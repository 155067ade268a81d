//! Messages whose time is over: dropped before anybody gets them.

use forebay_journal::format::MessageFields;
use forebay_journal::{Budget, QueueId};

use super::due::look_us;
use super::{CONTROL_ROOM, Host};
use crate::frontend::header_of;
use crate::now::Now;
use crate::queue::Routed;

/// Batches dropped in one turn; what is left goes on in the next.
const EXPIRIES_PER_TURN_MAX: usize = 16;

impl Host {
    /// Drops messages whose time is over, as far as records of it fit.
    pub(super) fn expire(&mut self, now: Now) {
        self.has_more_to_expire = false;
        let is_due = |due: Option<u64>| due.is_some_and(|due| due <= now.unix_ms);
        for _ in 0..EXPIRIES_PER_TURN_MAX {
            if !is_due(self.machine.next_expiry_unix_ms()) || self.failure.is_some() {
                return;
            }
            if self.writer.check(CONTROL_ROOM, Budget::Control).is_err() {
                return;
            }
            self.machine.decide_expire(now.unix_ms, &mut self.decision);
            self.commit_expired();
        }
        self.has_more_to_expire = is_due(self.machine.next_expiry_unix_ms());
    }

    /// Drops what is overdue at the front of the queue whose turn it is: there can be more of it
    /// than a turn drops, and none of it is handed out. Whether there was any: then the turn is
    /// over. There is room for the records.
    pub(super) fn expire_front(&mut self, queue: QueueId, now: Now) -> bool {
        self.machine
            .decide_expire_front(queue, now.unix_ms, &mut self.decision);
        let is_any = !self.decision.is_empty();
        if is_any {
            self.commit_expired();
            self.machine.pass_turn(queue);
        }
        is_any
    }

    fn commit_expired(&mut self) {
        self.stats.expired += self.decision.message_count();
        let committed = self.commit_decision();
        assert!(committed.is_ok(), "room was there: {committed:?}");
    }

    /// When the next message expires, in monotonic microseconds.
    pub(in crate::shard) fn expiry_us(&self, now: Now) -> Option<u64> {
        Some(look_us(self.machine.next_expiry_unix_ms()?, now))
    }
}

/// When the head of a message says that it expires; zero for never. What a client sends was read
/// from its head before.
pub(super) fn said_expiry(fields: &MessageFields, is_forwarded: bool, head: &[u8]) -> u64 {
    if !is_forwarded {
        return fields.expires_unix_ms;
    }
    let said = header_of(fields.encoding, head, "expires");
    said.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The fields, with the word whether the message expires at another time than its head says.
pub(super) fn with_own_expiry(fields: &MessageFields, routed: &Routed, said: u64) -> MessageFields {
    let mut fields = *fields;
    fields.flags.has_own_expiry = routed.expires_unix_ms(&fields) != said;
    fields
}
