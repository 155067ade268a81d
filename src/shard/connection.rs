//! One connection of this shard: its protocol, its unread input, its unsent output.

use std::collections::BTreeMap;

use forebay_journal::ShardId;
use rustc_hash::FxHashMap;

use super::errand::Errand;
use super::host::Lane;
use super::transactions::Transactions;
use crate::frontend::{Command, Frontend, Subscription};
use crate::routing::shard_of;

/// Names a connection in the node: the shard that accepted it and a number never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// No connection: what a shard asks for on its own account.
    pub(super) fn nobody(shard: ShardId) -> Self {
        Self::new(shard, (1 << 48) - 1)
    }

    pub(super) fn new(shard: ShardId, number: u64) -> Self {
        assert!(number < 1 << 48, "2^48 connections were made");
        Self(u64::from(shard.0) << 48 | number)
    }

    /// The connection by which a shard sends messages on.
    pub(super) fn forwarder(shard: ShardId) -> Self {
        Self::new(shard, 0)
    }

    /// Whether it is that of some shard.
    pub(super) const fn is_forwarder(self) -> bool {
        self.0 & ((1 << 48) - 1) == 0
    }

    /// The shard that accepted it.
    pub const fn shard(self) -> ShardId {
        ShardId((self.0 >> 48) as u16)
    }
}

/// Why input is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// What comes next does not fit the journal.
    Space,
    /// The parcel for this shard is full. One command too many per connection is the price of
    /// knowing where it goes.
    Peer(ShardId, Lane),
    /// Memory for messages that are not durable is used up.
    Memory,
    /// The same on another shard, which says when it has room.
    Held,
    /// The client does not read what it is sent.
    Output,
    /// Several shards are being asked for it.
    Errand,
}

/// How far a connection is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The client said goodbye: this many shards still have to say that all is durable.
    Leaving {
        syncs: u32,
    },
    /// Nothing is read any more; when the output is sent the socket is closed.
    Closing,
}

pub(super) struct Connection {
    pub(super) frontend: Frontend,
    pub(super) phase: Phase,
    /// Bytes received and not yet consumed.
    pub(super) input: Vec<u8>,
    /// Bytes to send.
    pub(super) output: Vec<u8>,
    /// A spare buffer: what was sent last.
    pub(super) spare: Vec<u8>,
    pub(super) is_sending: bool,
    /// Bytes of deliveries in `output`, by hosting shard, and in the buffer being sent.
    pub(super) delivered: Vec<(ShardId, u64)>,
    pub(super) delivered_sending: Vec<(ShardId, u64)>,
    /// The same that the front end holds back: not on the way to the socket yet.
    delivered_held: Vec<(ShardId, u64)>,
    pub(super) pause: Option<Pause>,
    /// Shards that hold a message of it back.
    pub(super) held_by: Vec<ShardId>,
    /// What several shards are being asked for it.
    pub(super) errand: Option<Errand>,
    /// Parts of a subscription to a pattern that were made for it, while not all are attached.
    pub(super) parts_made: Vec<Subscription>,
    pub(super) transactions: Transactions,
    /// Whether the runtime was told to stop reading.
    pub(super) is_reading_stopped: bool,
    /// Receipt of the goodbye.
    pub(super) goodbye: Vec<u8>,
    pub(super) routing: Routing,
    /// When its earliest timer was entered, in monotonic microseconds.
    pub(super) timer_us: Option<u64>,
    /// Whether the list of connections with something to do has it.
    pub(super) is_dirty: bool,
    pub(super) is_waiting: bool,
    /// Whether the client will send no more.
    pub(super) is_ended: bool,
    /// Whether it has to go, whether it reads why or not.
    pub(super) is_sent_away: bool,
    /// When it goes then, in monotonic microseconds.
    pub(super) closes_us: Option<u64>,
}

impl Connection {
    pub(super) fn new(frontend: Frontend) -> Self {
        Self {
            frontend,
            phase: Phase::Open,
            input: Vec::new(),
            output: Vec::new(),
            spare: Vec::new(),
            is_sending: false,
            delivered: Vec::new(),
            delivered_sending: Vec::new(),
            delivered_held: Vec::new(),
            pause: None,
            held_by: Vec::new(),
            errand: None,
            parts_made: Vec::new(),
            transactions: Transactions::default(),
            is_reading_stopped: false,
            goodbye: Vec::new(),
            routing: Routing::default(),
            timer_us: None,
            is_dirty: false,
            is_waiting: false,
            is_ended: false,
            is_sent_away: false,
            closes_us: None,
        }
    }

    /// Why nothing more is read now, whatever comes next.
    pub(super) fn must_wait(&self, window_bytes: usize) -> Option<Pause> {
        if !self.held_by.is_empty() {
            return Some(Pause::Held);
        }
        if self.errand.is_some() || self.transactions.must_wait() {
            return Some(Pause::Errand);
        }
        (self.pending_output() > window_bytes).then_some(Pause::Output)
    }

    /// Bytes that wait to be sent.
    pub(super) fn pending_output(&self) -> usize {
        self.output.len() + self.frontend.held_len()
    }

    /// Counts what a reply of `shard` gave to the front end, and what that let go of since. Bytes
    /// held back behind another body count when they go: the host takes what was counted and
    /// sent as handed over, and settles it.
    pub(super) fn count_delivered(&mut self, shard: ShardId, bytes: u64) {
        if self.delivered_held.is_empty() && !self.frontend.holds(shard.0) {
            return add(&mut self.delivered, shard, bytes);
        }
        add(&mut self.delivered_held, shard, bytes);
        let Self {
            frontend,
            delivered,
            delivered_held,
            ..
        } = self;
        delivered_held.retain(|&(shard, bytes)| {
            let is_held = frontend.holds(shard.0);
            if !is_held {
                add(delivered, shard, bytes);
            }
            is_held
        });
    }
}

fn add(counts: &mut Vec<(ShardId, u64)>, shard: ShardId, bytes: u64) {
    if bytes == 0 {
        return;
    }
    match counts.iter_mut().find(|(of, _)| *of == shard) {
        Some((_, count)) => *count += bytes,
        None => counts.push((shard, bytes)),
    }
}

/// Which shards a connection deals with.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// Where the subscriptions' queues live.
    subscriptions: FxHashMap<Subscription, ShardId>,
    /// Where the parts of the message under way go, by copy of it.
    upload_to: BTreeMap<u16, ShardId>,
    known: Vec<ShardId>,
}

impl Routing {
    /// Shards that know this connection.
    pub(super) fn known(&self) -> &[ShardId] {
        &self.known
    }

    pub(super) fn knows(&mut self, shard: ShardId) {
        if !self.known.contains(&shard) {
            self.known.push(shard);
        }
    }

    /// A shard was asked for nothing after all.
    pub(super) fn forget(&mut self, shard: ShardId) {
        self.known.retain(|one| *one != shard);
    }

    /// The shard that hosts a subscription.
    pub(super) fn host_of(&self, subscription: Subscription) -> Option<ShardId> {
        self.subscriptions.get(&subscription).copied()
    }

    /// The shard that hosts what a command is about.
    pub(super) fn shard_of(
        &mut self,
        command: &Command<&[u8]>,
        own: ShardId,
        shard_count: u16,
    ) -> ShardId {
        let shard = match command {
            Command::Send(send) => {
                let shard = shard_of(send.address, shard_count);
                if !send.is_complete {
                    self.upload_to.insert(send.extras.copy, shard);
                }
                shard
            }
            Command::SendPart(part) => {
                let shard = self.upload_to.get(&part.copy).copied();
                if part.is_last {
                    self.upload_to.remove(&part.copy);
                }
                shard.unwrap_or(own)
            }
            Command::Subscribe(subscribe) => {
                let shard = match subscribe.part {
                    Some(part) => ShardId(part.shard),
                    None => shard_of(subscribe.address, shard_count),
                };
                self.subscriptions.insert(subscribe.subscription, shard);
                shard
            }
            Command::Unsubscribe { subscription, .. } => {
                self.subscriptions.remove(subscription).unwrap_or(own)
            }
            // The name says nothing about where it is: all are asked, this one first.
            Command::Forget { .. } => ShardId(0),
            Command::Settle { subscription, .. } => {
                self.subscriptions.get(subscription).copied().unwrap_or(own)
            }
            Command::AbandonSend => self.upload_to.remove(&0).unwrap_or(own),
            Command::Begin { .. }
            | Command::EndTransaction { .. }
            | Command::Order(_)
            | Command::Drained { .. }
            | Command::Sync
            | Command::Detach { .. }
            | Command::Departed { .. }
            | Command::Hangup => own,
        };
        self.knows(shard);
        shard
    }
}
