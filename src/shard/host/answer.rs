//! What a host says to connections about what they asked for: at once, or when it is durable.

use forebay_journal::Lsn;

use super::{Answer, Host, Parked};
use crate::frontend::Refusal;
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
        let Some(receipt) = receipt else { return };
        if lsn < self.writer.durable_end() {
            self.answers.push_back((link, Answer::Receipt(receipt)));
        } else {
            self.gate.park(lsn, Parked::Receipt { link, receipt });
        }
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

    pub(super) fn refuse(&mut self, link: ConnectionId, refusal: Refusal, receipt: Option<Text>) {
        let about = None;
        let answer = Answer::Refused {
            refusal,
            about,
            receipt,
        };
        self.answers.push_back((link, answer));
    }

    /// Refuses a command that names an address: a client that does not wait for answers is told
    /// which.
    pub(super) fn refuse_about(
        &mut self,
        link: ConnectionId,
        address: &[u8],
        refusal: Refusal,
        receipt: Option<Text>,
    ) {
        let about = Some(Text::new(address));
        let answer = Answer::Refused {
            refusal,
            about,
            receipt,
        };
        self.answers.push_back((link, answer));
    }

    /// Tells a connection of another shard to wait for memory here.
    pub(in crate::shard) fn hold(&mut self, link: ConnectionId) {
        self.answers.push_back((link, Answer::Hold));
    }

    /// Undoes [`Self::hold`].
    pub(in crate::shard) fn resume(&mut self, link: ConnectionId) {
        self.answers.push_back((link, Answer::Resume));
    }
}
