//! The other shards of the node: what goes to each, and what came and had to wait.

use forebay_journal::ShardId;

use super::ConnectionId;
use super::host::{Host, Lane, Taken};
use super::mailbox::{Load, Outgoing, Parcel, ParcelLane, Span};
use crate::frontend::Command;
use crate::now::Now;

/// A parcel of commands that is being worked off.
#[derive(Debug)]
struct Incoming {
    load: Load<Command<Span>>,
    next: usize,
}

#[derive(Debug, Default)]
struct Peer {
    outgoing: Outgoing,
    /// By lane: messages, control.
    incoming: [Option<Incoming>; 2],
    /// Its message lane waits until this connection has memory.
    waits_for_memory: Option<ConnectionId>,
}

#[derive(Debug)]
pub(super) struct Peers {
    own: ShardId,
    peers: Vec<Peer>,
}

impl Peers {
    pub(super) fn new(own: ShardId, shard_count: u16) -> Self {
        let peers = (0..shard_count).map(|_| Peer::default()).collect();
        Self { own, peers }
    }

    pub(super) fn outgoing(&mut self, shard: ShardId) -> &mut Outgoing {
        &mut self.peers[usize::from(shard.0)].outgoing
    }

    /// Whether a peer can take a command of this lane.
    pub(super) fn admits(&self, peer: ShardId, lane: Lane) -> bool {
        self.peers[usize::from(peer.0)].outgoing.admits(lane)
    }

    pub(super) fn begin_turn(&mut self) {
        self.peers
            .iter_mut()
            .for_each(|peer| peer.outgoing.begin_turn());
    }

    pub(super) fn poll(&mut self) -> Option<(ShardId, Parcel)> {
        self.peers.iter_mut().enumerate().find_map(|(index, peer)| {
            peer.outgoing
                .poll()
                .map(|parcel| (ShardId(index as u16), parcel))
        })
    }

    /// Whether a parcel of this lane from `peer` can be taken.
    pub(super) fn wants(&self, peer: ShardId, lane: ParcelLane) -> bool {
        let peer = &self.peers[usize::from(peer.0)];
        match lane {
            ParcelLane::Messages => peer.incoming[0].is_none(),
            ParcelLane::Control => peer.incoming[1].is_none(),
            ParcelLane::Replies => true,
        }
    }

    pub(super) fn take_commands(&mut self, from: ShardId, lane: Lane, load: Load<Command<Span>>) {
        assert_ne!(from, self.own, "a shard has no mailbox for itself");
        let place = &mut self.peers[usize::from(from.0)].incoming[lane as usize];
        assert!(
            place.is_none(),
            "a parcel is taken when the one before it is worked off"
        );
        *place = Some(Incoming { load, next: 0 });
    }

    /// Works off what came, as far as it is admitted.
    pub(super) fn work(&mut self, host: &mut Host, now: Now) {
        for lane in [Lane::Control, Lane::Message] {
            for index in 0..self.peers.len() {
                self.work_parcel(index, lane, host, now);
            }
        }
    }

    fn work_parcel(&mut self, index: usize, lane: Lane, host: &mut Host, now: Now) {
        let Peer {
            incoming,
            waits_for_memory,
            ..
        } = &mut self.peers[index];
        let place = &mut incoming[lane as usize];
        let Some(incoming) = place else { return };
        if lane == Lane::Message
            && let Some(link) = *waits_for_memory
        {
            if !host.may_go_on(link, now) {
                return;
            }
            *waits_for_memory = None;
        }
        while let Some((link, command)) = incoming.load.command(incoming.next) {
            if !host.admits(lane) {
                return;
            }
            incoming.next += 1;
            if host.handle(link, &command, now) == Taken::YesButWait && lane == Lane::Message {
                *waits_for_memory = Some(link);
                return;
            }
        }
        *place = None;
    }
}
