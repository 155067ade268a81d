//! What a host says to connections at once.

use super::{Answer, Host};
use crate::frontend::Refusal;
use crate::shard::ConnectionId;
use crate::shard::link::Text;

impl Host {
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
