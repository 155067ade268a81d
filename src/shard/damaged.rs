//! Shards of the node that do not serve because their journals are damaged: what needs one of them
//! is refused, so that nothing is ever passed on to it.

use forebay_journal::ShardId;

use super::connection::Routing;
use super::step::{Progress, take_reply};
use super::{ConnectionId, Shard};
use crate::frontend::{Command, Refusal, Reply};

/// A command that needs a shard that does not serve.
#[derive(Debug)]
pub(super) struct Unserved {
    shard: ShardId,
    /// What to say of it; nothing of what follows a command that was refused.
    said: Option<Said>,
}

#[derive(Debug)]
struct Said {
    about: Vec<u8>,
    receipt: Option<Vec<u8>>,
}

impl Unserved {
    /// The command, if it needs one of these; `shard` is the one that hosts what it is about.
    ///
    /// What is on every shard needs all of them: a part would look like the whole.
    pub(super) fn of(
        command: &Command<&[u8]>,
        shard: ShardId,
        damaged: &[ShardId],
        routing: &mut Routing,
    ) -> Option<Self> {
        let first = *damaged.first()?;
        let (needs_all, about, receipt) = match command {
            Command::Send(send) => (false, Some(send.address), send.receipt),
            Command::Subscribe(one) => (one.part.is_some(), Some(one.address), one.receipt),
            Command::Forget { name, receipt, .. } => (true, Some(*name), *receipt),
            _ => (false, None, None),
        };
        let is_there = damaged.contains(&shard);
        if is_there {
            routing.forget(shard);
        }
        let said = about.map(|about| Said {
            about: about.to_vec(),
            receipt: receipt.map(<[u8]>::to_vec),
        });
        let shard = if is_there { shard } else { first };
        (is_there || needs_all).then_some(Self { shard, said })
    }
}

impl Shard {
    /// Tells a connection that what it asked for, with so many bytes, cannot be.
    pub(super) fn refuse_unserved(
        &mut self,
        id: ConnectionId,
        unserved: &Unserved,
        consumed: usize,
    ) -> Progress {
        let Unserved { shard, said } = unserved;
        let connection = self.connections.get_mut(&id);
        let (Some(Said { about, receipt }), Some(connection)) = (said, connection) else {
            return Progress::Consumed(consumed);
        };
        let reply = Reply::Refused {
            refusal: Refusal::ShardDamaged { shard: shard.0 },
            about: Some(&**about),
            receipt: receipt.as_deref(),
        };
        take_reply(connection, self.id, &reply, 0);
        self.mark_dirty(id);
        Progress::Consumed(consumed)
    }
}
