//! The other shards of the node: what goes to each, and what came and had to wait.

use std::collections::BTreeMap;

use forebay_journal::ShardId;

use super::ConnectionId;
use super::connection::Routing;
use super::damaged::Unserved;
use super::host::{Host, Lane, Taken};
use super::mailbox::{Commands, Outgoing, Parcel, ParcelLane};
use crate::frontend::Command;
use crate::limits::HELD_SIZE_MAX_BYTES;
use crate::now::Now;

/// A parcel of commands that is being worked off.
#[derive(Debug, Default)]
struct Incoming {
    load: Commands,
    next: usize,
}

#[derive(Debug, Default)]
struct Peer {
    outgoing: Outgoing,
    /// By lane: messages, control.
    incoming: [Option<Incoming>; 2],
    /// What came after a message that waits for memory, by connection: what crosses until the
    /// connection's own shard knows and stops reading.
    held: BTreeMap<ConnectionId, Incoming>,
    /// Bytes in `held`. From `HELD_SIZE_MAX_BYTES` on the whole lane waits instead.
    held_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Peers {
    own: ShardId,
    peers: Vec<Peer>,
    /// Those that do not serve, sorted.
    damaged: Vec<ShardId>,
}

impl Peers {
    pub(super) fn new(own: ShardId, shard_count: u16, damaged: Vec<ShardId>) -> Self {
        let peers = (0..shard_count).map(|_| Peer::default()).collect();
        Self {
            own,
            peers,
            damaged,
        }
    }

    /// Shards that do not serve because their journals are damaged, sorted.
    pub(super) fn damaged(&self) -> &[ShardId] {
        &self.damaged
    }

    pub(super) fn outgoing(&mut self, shard: ShardId) -> &mut Outgoing {
        &mut self.peers[usize::from(shard.0)].outgoing
    }

    /// The command, if it needs one of those; `shard` hosts what it is about.
    pub(super) fn unserved(
        &self,
        command: &Command<&[u8]>,
        shard: ShardId,
        routing: &mut Routing,
    ) -> Option<Unserved> {
        Unserved::of(command, shard, &self.damaged, routing)
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

    pub(super) fn take_commands(&mut self, from: ShardId, lane: Lane, load: Commands) {
        assert_ne!(from, self.own, "a shard has no mailbox for itself");
        let place = &mut self.peers[usize::from(from.0)].incoming[lane as usize];
        assert!(
            place.is_none(),
            "a parcel is taken when the one before it is worked off"
        );
        *place = Some(Incoming { load, next: 0 });
    }

    /// Whether a connection's messages wait for memory or room.
    pub(super) fn has_held(&self) -> bool {
        self.peers.iter().any(|peer| !peer.held.is_empty())
    }

    /// Whether messages of other shards wait to be taken.
    pub(super) fn has_waiting_messages(&self) -> bool {
        let is_waiting = |peer: &Peer| peer.incoming[Lane::Message as usize].is_some();
        self.peers.iter().any(is_waiting)
    }

    /// Works off what came, as far as it is admitted.
    pub(super) fn work(&mut self, host: &mut Host, now: Now) {
        for peer in &mut self.peers {
            work_parcel(peer, Lane::Control, host, now);
        }
        self.work_held(host, now);
        for peer in &mut self.peers {
            work_parcel(peer, Lane::Message, host, now);
        }
    }

    /// Goes on with connections that waited for memory and have it.
    fn work_held(&mut self, host: &mut Host, now: Now) {
        for Peer {
            held, held_bytes, ..
        } in &mut self.peers
        {
            held.retain(|&link, incoming| {
                if !host.may_go_on(link, now) {
                    return true;
                }
                while let Some((link, command)) = incoming.load.command(incoming.next) {
                    if !is_admitted(link, &command, Lane::Message, host) {
                        return true;
                    }
                    incoming.next += 1;
                    if host.handle(link, &command, now) == Taken::YesButWait {
                        return true;
                    }
                }
                *held_bytes -= incoming.load.size();
                host.resume(link);
                false
            });
        }
    }
}

/// The end of a transaction comes behind its messages, but needs no room as they do: what they
/// wait for may be what it holds.
fn is_admitted(link: ConnectionId, command: &Command<&[u8]>, lane: Lane, host: &Host) -> bool {
    let is_end = lane == Lane::Message && matches!(command, Command::Order(_));
    is_end || host.takes(link, lane)
}

/// A connection whose message waits for memory holds back itself, never the others of its shard.
fn work_parcel(peer: &mut Peer, lane: Lane, host: &mut Host, now: Now) {
    let Peer {
        incoming,
        held,
        held_bytes,
        outgoing,
    } = peer;
    let place = &mut incoming[lane as usize];
    let Some(incoming) = place else { return };
    while let Some((link, command)) = incoming.load.command(incoming.next) {
        let is_admitted = is_admitted(link, &command, lane, host);
        // Where others are refused, what the broker sends on waits by itself: not before them.
        let is_apart = !is_admitted && lane == Lane::Message && host.is_refusing();
        if !is_admitted && !is_apart {
            return;
        }
        if lane == Lane::Message {
            // Nobody is left to wait: what was not taken was not confirmed either.
            if matches!(command, Command::Hangup) {
                *held_bytes -= held.remove(&link).map_or(0, |behind| behind.load.size());
            } else if let Some(behind) = held.get_mut(&link) {
                if *held_bytes >= HELD_SIZE_MAX_BYTES {
                    return;
                }
                let before = behind.load.size();
                behind.load.push(link, command);
                *held_bytes += behind.load.size() - before;
                incoming.next += 1;
                continue;
            }
        }
        incoming.next += 1;
        if is_apart {
            let behind = held.entry(link).or_default();
            behind.load.push(link, command);
            *held_bytes += behind.load.size();
            host.hold(link);
        } else if host.handle(link, &command, now) == Taken::YesButWait && lane == Lane::Message {
            held.insert(link, Incoming::default());
            host.hold(link);
        }
    }
    let done = place.take().expect("it was there above");
    outgoing.send_home(done.load);
}
