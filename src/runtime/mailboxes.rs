//! Bounded queues between the shards of a node: one per ordered pair and lane.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use forebay_journal::ShardId;

use super::bell::Bell;
use crate::limits::{MAILBOX_LANES, MAILBOX_PARCELS_MAX};
use crate::shard::{Parcel, ParcelLane};

/// All mailboxes of a node.
#[derive(Clone)]
pub struct Mailboxes {
    /// `[to][from][lane]`
    queues: Arc<[Vec<[ArrayQueue<Parcel>; MAILBOX_LANES as usize]>]>,
    bells: Arc<[Bell]>,
}

impl Mailboxes {
    /// Makes the mailboxes of as many shards as there are bells.
    pub fn new(bells: &[Bell]) -> Self {
        let row = || {
            bells
                .iter()
                .map(|_| {
                    [(); MAILBOX_LANES as usize]
                        .map(|()| ArrayQueue::new(MAILBOX_PARCELS_MAX as usize))
                })
                .collect()
        };
        Self {
            queues: bells.iter().map(|_| row()).collect(),
            bells: bells.into(),
        }
    }

    /// Puts a parcel into a shard's mailbox and rings; gives it back if there is no room.
    pub(super) fn put(&self, from: ShardId, to: ShardId, parcel: Parcel) -> Option<Parcel> {
        let lanes = &self.queues[usize::from(to.0)][usize::from(from.0)];
        let returned = lanes[parcel.lane() as usize].push(parcel).err();
        if returned.is_none() {
            self.bells[usize::from(to.0)].ring();
        }
        returned
    }

    /// Takes a parcel that another shard sent; the sender is rung when that made room.
    pub(super) fn take(&self, to: ShardId, from: ShardId, lane: ParcelLane) -> Option<Parcel> {
        let queue = &self.queues[usize::from(to.0)][usize::from(from.0)][lane as usize];
        let was_full = queue.is_full();
        let parcel = queue.pop()?;
        if was_full {
            self.bells[usize::from(from.0)].ring();
        }
        Some(parcel)
    }

    /// Whether a parcel waits.
    pub(super) fn has(&self, to: ShardId, from: ShardId, lane: ParcelLane) -> bool {
        !self.queues[usize::from(to.0)][usize::from(from.0)][lane as usize].is_empty()
    }

    /// Shards of the node.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.bells.len()).map(|index| ShardId(index as u16))
    }
}
