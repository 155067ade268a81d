//! Answers that wait until what they speak of is durable.

use forebay_journal::Lsn;

use super::{Answer, Host, Parked};
use crate::queue::Place;
use crate::shard::ConnectionId;
use crate::shard::link::Text;

impl Host {
    pub(super) fn sync(&mut self, link: ConnectionId) {
        let last_lsn = self
            .links
            .get(&link)
            .map_or(Lsn::ZERO, |link| link.last_lsn);
        if last_lsn < self.writer.durable_end() && self.gate.is_empty() {
            self.answers.push_back((link, Answer::Synced));
        } else {
            self.gate.park(last_lsn, Parked::Synced { link });
        }
    }

    /// Answers a receipt when everything up to `lsn` is durable.
    pub(super) fn confirm(&mut self, link: ConnectionId, lsn: Lsn, receipt: Option<Text>) {
        self.confirm_since(link, lsn, receipt, None);
    }

    /// Likewise that of a message, and measures how long it takes.
    pub(super) fn confirm_sent(&mut self, link: ConnectionId, lsn: Lsn, receipt: Option<Text>) {
        self.confirm_since(link, lsn, receipt, Some(self.meter.now_us()));
    }

    fn confirm_since(
        &mut self,
        link: ConnectionId,
        lsn: Lsn,
        receipt: Option<Text>,
        sent_us: Option<u64>,
    ) {
        let Some(receipt) = receipt else { return };
        if lsn < self.writer.durable_end() {
            return self.answers.push_back((link, Answer::Receipt(receipt)));
        }
        let parked = Parked::Receipt {
            link,
            receipt,
            sent_us,
        };
        self.gate.park(lsn, parked);
    }

    /// The last record appended so far; zero before the first.
    pub(super) fn last_lsn(&self) -> Lsn {
        self.writer.next_lsn().before()
    }

    /// Answers a command about a durable subscription when everything so far is durable: what it
    /// found may be another connection's doing of just now.
    pub(super) fn answer(&mut self, link: ConnectionId, lsn: Lsn, existed: bool) {
        let lsn = lsn.max(self.last_lsn());
        if lsn < self.writer.durable_end() {
            self.answers.push_back((link, Answer::Answered { existed }));
        } else {
            self.gate.park(lsn, Parked::Answered { link, existed });
        }
    }

    /// What a delivery of this record waits for. One that needs no record itself, to a queue that
    /// dies with the process, waits all the same for a message that the journal has: for all that
    /// is appended so far, which is the message's record or behind it.
    pub(super) fn lsn_of_delivery(&self, lsn: Lsn, place: Place) -> Lsn {
        match place {
            Place::Journal(_) if lsn == Lsn::ZERO => self.lsn_so_far(),
            _ => lsn,
        }
    }

    /// The last record appended so far; zero if all are durable.
    pub(super) fn lsn_so_far(&self) -> Lsn {
        let last = self.last_lsn();
        if last < self.writer.durable_end() {
            Lsn::ZERO
        } else {
            last
        }
    }
}
