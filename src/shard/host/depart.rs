//! Messages on their way to another address: handed to the shard's forwarder, which sends them on;
//! settled when they are there.

use std::collections::BTreeMap;

use forebay_journal::{AppendError, Budget, MessageId, QueueId};

use super::{CONTROL_ROOM, Deferred, Host, Replies};
use crate::frontend::{Departs, Reply, Subscription};
use crate::now::Now;
use crate::queue::Departing;
use crate::shard::ConnectionId;
use crate::shard::link::{Delivery, Taker};

/// Messages on their way at once.
const IN_FLIGHT_MAX: usize = 64;
/// When a message is sent on again that the other address refused.
const RETRY_MS: u64 = 1000;

/// What is on its way.
#[derive(Debug)]
pub(super) struct Departures {
    /// The forwarder's connection.
    link: ConnectionId,
    next_tag: u64,
    in_flight: BTreeMap<u64, Departing>,
    /// By time in wall-clock milliseconds and tag: what was refused.
    put_off: BTreeMap<(u64, u64), (QueueId, MessageId)>,
}

impl Departures {
    /// The queue of a message that is on its way.
    pub(super) fn queue_of(&self, tag: u64) -> Option<QueueId> {
        Some(self.in_flight.get(&tag)?.queue)
    }

    pub(super) fn new(link: ConnectionId) -> Self {
        Self {
            link,
            next_tag: 1,
            in_flight: BTreeMap::new(),
            put_off: BTreeMap::new(),
        }
    }
}

impl Host {
    /// Hands what leaves to the forwarder, as far as it takes more.
    pub(super) fn depart(&mut self) {
        self.retry_departures();
        while self.departures.in_flight.len() < IN_FLIGHT_MAX && self.machine.has_departures() {
            if self.writer.check(CONTROL_ROOM, Budget::Control).is_err() || self.failure.is_some() {
                return;
            }
            let Some(departing) = self.machine.poll_departure() else {
                return;
            };
            if departing.address.is_none() {
                let left = self.leave_queue(departing.queue, departing.queued.message);
                assert!(left.is_ok(), "room was there: {left:?}");
                continue;
            }
            let (link, queued) = (self.departures.link, departing.queued);
            let tag = self.departures.next_tag;
            self.departures.next_tag += 1;
            self.departures.in_flight.insert(tag, departing);
            self.link(link);
            // That it leaves has to be durable before it can be elsewhere: else a restart would
            // have it here and there.
            self.park_delivery(
                self.last_lsn(),
                Delivery {
                    link,
                    subscription: Subscription(0),
                    taker: Taker::Departing,
                    delivery_tag: tag,
                    message: queued.message,
                    place: queued.place,
                    attempts: queued.attempts,
                    is_redelivered: queued.attempts > 0,
                    first_of: None,
                },
            );
        }
    }

    fn retry_departures(&mut self) {
        while let Some(first) = self.departures.put_off.first_entry()
            && first.key().0 <= self.now_unix_ms
        {
            let (queue, message) = first.remove();
            self.machine.put_off_departure(queue, message);
        }
    }

    /// Tells the forwarder what it gets next; false if that left its queue otherwise.
    pub(super) fn announce(&mut self, delivery: &Delivery, replies: &mut impl Replies) -> bool {
        let Some(departing) = self.departures.in_flight.get(&delivery.delivery_tag) else {
            return false;
        };
        let queue = departing.queue;
        let names = self.machine.address(queue).zip(self.machine.name(queue));
        let is_there = self.machine.is_leaving(queue, delivery.message);
        let (Some((origin_address, origin_queue)), Some(address), true) =
            (names, departing.address.as_deref(), is_there)
        else {
            self.departures.in_flight.remove(&delivery.delivery_tag);
            return false;
        };
        let departs = Departs {
            tag: delivery.delivery_tag,
            address: address.as_bytes(),
            reason: departing.reason,
            queue: queue.0,
            origin_address,
            origin_queue,
        };
        replies.reply(delivery.link, &Reply::Departs(departs), 0);
        true
    }

    /// What was sent on is there, or was refused.
    pub(super) fn departed(&mut self, tag: u64, is_taken: bool) {
        let Some(departing) = self.departures.in_flight.remove(&tag) else {
            return;
        };
        let (queue, message) = (departing.queue, departing.queued.message);
        if is_taken {
            self.stats.count_departure(departing.reason);
            self.run(Deferred::Departed { queue, message });
        } else {
            let due_unix_ms = self.now_unix_ms + RETRY_MS;
            let put_off = &mut self.departures.put_off;
            put_off.insert((due_unix_ms, tag), (queue, message));
        }
    }

    /// The message was gone from its queue before it was passed on to its end.
    pub(super) fn departure_broke(&mut self, tag: u64) {
        self.departures.in_flight.remove(&tag);
    }

    pub(super) fn leave_queue(
        &mut self,
        queue: QueueId,
        message: MessageId,
    ) -> Result<(), AppendError> {
        self.machine
            .decide_departed(queue, message, &mut self.decision);
        self.commit_decision().map(|_| ())
    }

    /// When what was refused is sent on again, in monotonic microseconds.
    pub(in crate::shard) fn departure_us(&self, now: Now) -> Option<u64> {
        let ((due_unix_ms, _), _) = self.departures.put_off.first_key_value()?;
        let left_ms = due_unix_ms.saturating_sub(now.unix_ms).clamp(1, RETRY_MS);
        Some(now.monotonic_us + left_ms * 1000)
    }
}
