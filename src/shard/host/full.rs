//! A full disk, as who sends messages meets it: they wait, or they are refused.
//!
//! Settling, deleting and all other control commands go on meanwhile, in the space kept for them:
//! the last prepared segment, and the last sealed blocks. Refusing takes of that space too, where a
//! message that has begun has to be called off; if it is used up as well, everybody waits.

use forebay_journal::Budget;

use super::{CONTROL_ROOM, Host, Lane};
use crate::frontend::{Refusal, SendCommand};
use crate::shard::ConnectionId;
use crate::shard::link::{Text, UploadTo};

/// What becomes of messages while the disk has no space for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFull {
    /// Their senders are not read until there is space.
    Block,
    /// They are refused.
    Fail,
}

impl Host {
    /// Whether messages of clients are refused now because the disk is full.
    pub(in crate::shard) fn is_refusing(&self) -> bool {
        self.space.refuses_when_full()
            && self.is_waiting_for_segment()
            && self.failure.is_none()
            && !self.is_sealed
            && self.writer.check(CONTROL_ROOM, Budget::Control).is_ok()
    }

    /// Whether a message of this connection is refused now. What the broker sends on waits.
    fn must_refuse(&self, link: ConnectionId) -> bool {
        self.is_refusing() && !link.is_forwarder()
    }

    /// Whether a command of this lane can be taken now, or else be refused.
    pub(in crate::shard) fn takes(&self, link: ConnectionId, lane: Lane) -> bool {
        self.admits(lane) || lane == Lane::Message && self.must_refuse(link)
    }

    /// Refuses a message, or the beginning of one, if that has to be; whether it did.
    pub(super) fn refuse_send(&mut self, link: ConnectionId, send: &SendCommand<&[u8]>) -> bool {
        if !self.must_refuse(link) {
            return false;
        }
        self.spoil(link, send.transaction);
        let receipt = send.receipt.map(Text::new);
        self.refuse_about(link, send.address, Refusal::DiskFull, receipt);
        true
    }

    /// Refuses a message of which some has come, if that has to be: what still comes of it goes
    /// nowhere.
    pub(super) fn refuse_upload(&mut self, link: ConnectionId, copy: u16) {
        if !self.must_refuse(link) {
            return;
        }
        let Some(mut upload) = self.link(link).uploads.remove(&copy) else {
            return;
        };
        match std::mem::replace(&mut upload.to, UploadTo::Nowhere) {
            UploadTo::Journal { upload } => self.drop_upload(upload),
            UploadTo::Memory {
                needed,
                is_reserved: true,
                ..
            } => self.bodies.release(needed),
            UploadTo::Memory { .. } | UploadTo::Room { .. } => {}
            // No queue wants it, or it was refused before.
            UploadTo::Nowhere => {
                self.link(link).uploads.insert(copy, upload);
                return;
            }
        }
        self.spoil(link, upload.transaction);
        let receipt = upload.receipt.take();
        self.refuse_about(link, &upload.address, Refusal::DiskFull, receipt);
        if !upload.is_whole {
            self.link(link).uploads.insert(copy, upload);
        }
    }
}

#[cfg(test)]
mod tests;
