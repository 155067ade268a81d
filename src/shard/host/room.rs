//! Messages whose address, or the whole node, has no room: refused, dropped, or waiting for it.

use super::produce::{Incoming, Target};
use super::{Host, Lane, Replies, Taken};
use crate::frontend::{Refusal, Reply};
use crate::now::Now;
use crate::queue::Full;
use crate::shard::ConnectionId;
use crate::shard::link::{Upload, UploadTo};
use forebay_journal::ShardId;

/// Whether an address has room for a message.
pub(super) enum Room {
    Yes,
    /// Once some of what is there has left.
    Later,
    /// It is dropped, as the policy says.
    Never,
}

/// Who waits for memory or room is asked again when there is more than when it was asked last.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// What [`Host::room_made`] said when they were asked last.
    asked_at: u64,
    /// Times that other shards gave of their room.
    given_count: u64,
}

impl Host {
    /// Whether a message that begins may enter its address. What the broker sends on always may.
    pub(super) fn room(
        &mut self,
        target: Target,
        incoming: &Incoming<'_>,
    ) -> Result<Room, Refusal> {
        if incoming.is_forwarded {
            return Ok(Room::Yes);
        }
        match self.fullness(target, incoming) {
            Some(Full::Block) => Ok(Room::Later),
            Some(Full::Fail) => Err(Refusal::AddressFull),
            Some(Full::Drop) => {
                self.stats.dropped += 1;
                Ok(Room::Never)
            }
            Some(Full::Page) | None => Ok(Room::Yes),
        }
    }

    /// What becomes of one more message for an address, or for a pattern that matches it; none if
    /// they have room.
    fn fullness(&mut self, target: Target, incoming: &Incoming<'_>) -> Option<Full> {
        let Target { destination, queue } = target;
        let own = self.machine.fullness(destination);
        if own.is_some() || queue.is_some() || !incoming.may_match() {
            return own;
        }
        self.machine.fullness_of_matching(destination)
    }

    /// Takes what waited for its address, if that has room now; false while it has none.
    pub(super) fn has_room_at_address(&mut self, link: ConnectionId, copy: u16, now: Now) -> bool {
        if !self.waits_for_room(link, copy) {
            return true;
        }
        if !self.admits(Lane::Message) {
            return false;
        }
        let Some(upload) = self.link(link).uploads.remove(&copy) else {
            return true;
        };
        let incoming = Incoming::beginning(link, &upload, &[], now);
        // What is refused is refused when it is sent on.
        let target = self.target(upload.routing, &upload.address, incoming.maker());
        let is_full = target
            .ok()
            .flatten()
            .and_then(|one| self.fullness(one, &incoming));
        if is_full == Some(Full::Block) {
            self.link(link).uploads.insert(copy, upload);
            return false;
        }
        if upload.is_whole {
            return self.finish_upload(link, upload, &[], now) == Taken::Yes;
        }
        self.go_on_with_upload(link, upload, now);
        !self.waits_for_room(link, copy)
    }

    fn waits_for_room(&self, link: ConnectionId, copy: u16) -> bool {
        let uploads = self.links.get(&link).map(|link| &link.uploads);
        let upload = uploads.and_then(|uploads| uploads.get(&copy));
        upload.is_some_and(|upload| matches!(upload.to, UploadTo::Room { .. }))
    }

    /// A message in pieces whose address has room now goes where its first pieces would have gone.
    fn go_on_with_upload(&mut self, link: ConnectionId, mut upload: Upload, now: Now) {
        let former = std::mem::replace(&mut upload.to, UploadTo::Nowhere);
        let UploadTo::Room { held, body_total } = former else {
            panic!("it waited for its address");
        };
        let incoming = Incoming::beginning(link, &upload, &held, now);
        let to = self.upload_target(&incoming, body_total);
        upload.to = to.unwrap_or_else(|refusal| {
            self.spoil(link, upload.transaction);
            let receipt = upload.receipt.take();
            self.refuse_about(link, &upload.address, refusal, receipt);
            UploadTo::Nowhere
        });
        upload.body_size = 0;
        let copy = upload.extras.copy;
        self.link(link).uploads.insert(copy, upload);
        self.upload_bytes(link, copy, &held);
    }

    /// Rises whenever memory, an address or the node may have room that it had not.
    fn room_made(&self) -> u64 {
        self.machine.left_count() + self.bodies.freed_count() + self.asking.given_count
    }

    /// Those who wait for memory or room are asked now.
    pub(in crate::shard) fn begin_asking(&mut self) {
        self.asking.asked_at = self.room_made();
    }

    /// Whether those who wait for memory or room should be asked once more: whatever frees some may
    /// come behind them in a turn, and nothing else need happen then.
    pub(in crate::shard) fn should_ask(&self) -> bool {
        self.asking.asked_at != self.room_made()
    }

    /// Asks other shards for room and gives them of it, at the end of a turn.
    pub(super) fn finish_room(&mut self, replies: &mut impl Replies) {
        self.asking.given_count += u64::from(self.machine.step_quotas());
        while let Some((shard, note)) = self.machine.poll_quota_note() {
            let to = ConnectionId::nobody(ShardId(shard));
            replies.reply(to, &Reply::Quota(note), 0);
        }
    }
}
