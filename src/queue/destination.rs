//! Address to queues. Filled by the facts that define and delete queues, so it lies beside them
//! and not in `routing`, which knows only what an address is and which shard has it.

use std::sync::Arc;

use forebay_journal::format::{QueueFlags, Routing};
use forebay_journal::{QueueId, SegmentId};
use rustc_hash::FxHashMap;
use zerocopy::little_endian::U64;

use super::duplicates::Window;
use super::policy::Policy;
use super::segments::SegmentRing;
use super::wildcard::{Matching, Wildcards};

/// Names an address with at least one queue, so that a connection hashes the address once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationId {
    index: u32,
    generation: u32,
}

/// What a queue is to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Durable,
    Volatile,
    Divert,
    Retroactive,
}

impl Kind {
    /// `segment`: where its definition lies, if it is journaled.
    pub(super) const fn of(flags: QueueFlags, segment: Option<SegmentId>) -> Self {
        match segment {
            _ if flags.is_divert => Self::Divert,
            _ if flags.is_retroactive => Self::Retroactive,
            Some(_) => Self::Durable,
            None => Self::Volatile,
        }
    }
}

impl DestinationId {
    pub(super) const fn index(self) -> u32 {
        self.index
    }
}

/// Queues of one address; `/queue/x` and `/topic/x` are two destinations.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) routing: Routing,
    pub(super) address: Box<[u8]>,
    /// Sorted, as records write them.
    pub(super) durable: Vec<U64>,
    /// Sorted.
    pub(super) volatile: Vec<U64>,
    /// The queue from which messages go on to another address. In no list.
    pub(super) divert: Option<QueueId>,
    /// The queue that keeps messages for subscriptions to come. In no list.
    pub(super) retroactive: Option<QueueId>,
    pub(super) policy: Arc<Policy>,
    /// Ids of messages it has seen; made with the first.
    pub(super) seen: Option<Box<Window>>,
    /// The patterns that match it, once somebody asked.
    pub(super) matching: Option<Box<Matching>>,
}

impl Destination {
    /// The queue of a kind that is in no list.
    fn own(&mut self, kind: Kind) -> Option<&mut Option<QueueId>> {
        match kind {
            Kind::Durable | Kind::Volatile => None,
            Kind::Divert => Some(&mut self.divert),
            Kind::Retroactive => Some(&mut self.retroactive),
        }
    }

    /// None for what is in no list.
    fn list(&mut self, kind: Kind) -> Option<&mut Vec<U64>> {
        match kind {
            Kind::Durable => Some(&mut self.durable),
            Kind::Volatile => Some(&mut self.volatile),
            Kind::Divert | Kind::Retroactive => None,
        }
    }

    /// Whether any queue is bound to it, also one that nobody consumes from.
    pub(super) fn is_bound(&self) -> bool {
        self.has_queue() || self.divert.is_some() || self.retroactive.is_some()
    }

    /// Whether somebody can consume from it.
    pub(super) fn has_queue(&self) -> bool {
        !self.durable.is_empty() || !self.volatile.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Destinations {
    places: Vec<(u32, Option<Destination>)>,
    free: Vec<u32>,
    anycast: FxHashMap<Box<[u8]>, u32>,
    multicast: FxHashMap<Box<[u8]>, u32>,
    pub(super) wildcards: Wildcards,
}

impl Destinations {
    pub(super) fn resolve(&self, routing: Routing, address: &[u8]) -> Option<DestinationId> {
        let names = match routing {
            Routing::Anycast => &self.anycast,
            Routing::Multicast => &self.multicast,
        };
        let index = *names.get(address)?;
        Some(DestinationId {
            index,
            generation: self.places[index as usize].0,
        })
    }

    pub(super) fn get(&self, id: DestinationId) -> Option<&Destination> {
        let (generation, destination) = self.places.get(id.index as usize)?;
        destination
            .as_ref()
            .filter(|_| *generation == id.generation)
    }

    /// Panics: if nothing is there (our own bookkeeping: queues name live destinations).
    pub(super) fn at(&self, index: u32) -> &Destination {
        let (_, destination) = &self.places[index as usize];
        destination.as_ref().expect("queues name live destinations")
    }

    /// Panics: see [`Self::at`].
    pub(super) fn at_mut(&mut self, index: u32) -> &mut Destination {
        let (_, destination) = &mut self.places[index as usize];
        destination.as_mut().expect("queues name live destinations")
    }

    pub(super) fn find_mut(
        &mut self,
        routing: Routing,
        address: &[u8],
    ) -> Option<&mut Destination> {
        let id = self.resolve(routing, address)?;
        Some(self.at_mut(id.index))
    }

    /// Adds a queue to an address and returns the destination's index.
    pub(super) fn bind(
        &mut self,
        (routing, address): (Routing, &[u8]),
        queue: QueueId,
        kind: Kind,
        policy: &Arc<Policy>,
    ) -> u32 {
        let index = match self.resolve(routing, address) {
            Some(id) => id.index,
            None => self.create(routing, address, policy.clone()),
        };
        let place = &mut self.places[index as usize].1;
        let destination = place.as_mut().expect("resolved or created just now");
        if let Some(own) = destination.own(kind) {
            *own = Some(queue);
            return index;
        }
        let list = destination.list(kind).expect("others have a list");
        let at = list.partition_point(|id| id.get() < queue.0);
        list.insert(at, U64::new(queue.0));
        index
    }

    /// Takes a queue from its address; the address goes with its last queue, and with it what it
    /// has seen.
    pub(super) fn unbind(
        &mut self,
        index: u32,
        queue: QueueId,
        kind: Kind,
        segments: &mut SegmentRing,
    ) {
        let place = &mut self.places[index as usize];
        let destination = place.1.as_mut().expect("queues name live destinations");
        if let Some(own) = destination.own(kind) {
            *own = None;
        }
        if let Some(list) = destination.list(kind) {
            let at = list.partition_point(|id| id.get() < queue.0);
            assert_eq!(list[at].get(), queue.0, "queue not bound to its address");
            list.remove(at);
        }
        if destination.is_bound() {
            return;
        }
        if let Some(mut window) = destination.seen.take() {
            window.clear(segments);
        }
        self.drop_unbound(index);
    }

    /// Drops an address, unless it has a queue or remembers something.
    pub(super) fn drop_unbound(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        let is_unbound = |one: &mut Destination| !one.is_bound() && one.seen.is_none();
        let Some(gone) = place.1.take_if(is_unbound) else {
            return;
        };
        place.0 = place.0.wrapping_add(1);
        self.free.push(index);
        self.wildcards.forget(index);
        match gone.routing {
            Routing::Anycast => self.anycast.remove(&gone.address),
            Routing::Multicast => self.multicast.remove(&gone.address),
        };
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Destination)> + '_ {
        (0..)
            .zip(&self.places)
            .filter_map(|(index, (_, destination))| Some((index, destination.as_ref()?)))
    }

    #[cold]
    pub(super) fn create(&mut self, routing: Routing, address: &[u8], policy: Arc<Policy>) -> u32 {
        let destination = Destination {
            routing,
            address: address.into(),
            durable: Vec::new(),
            volatile: Vec::new(),
            divert: None,
            retroactive: None,
            policy,
            seen: None,
            matching: None,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        self.places[index as usize].1 = Some(destination);
        self.wildcards.note(routing, address, index);
        match routing {
            Routing::Anycast => self.anycast.insert(address.into(), index),
            Routing::Multicast => self.multicast.insert(address.into(), index),
        };
        index
    }
}
