//! What follows from messages that were written anew: for deliveries under way, and in numbers.

use forebay_journal::SegmentId;

use super::{Host, Parked};
use crate::queue::Place;
use crate::shard::link::{Delivery, Taker};
use crate::shard::relocation::Need;

impl Host {
    /// These segments are freed: deliveries under way that still have their messages there learn
    /// where they are now.
    ///
    /// Shape: sorted.
    /// Cost: O(deliveries under way), if anything was ever written anew.
    pub(super) fn follow_moved(&mut self, gone: &[SegmentId]) {
        if self.relocation.spent.rewritten_bytes == 0 {
            return;
        }
        let Self {
            machine,
            departures,
            gate,
            links,
            ..
        } = self;
        let follow = |delivery: &mut Delivery| {
            let Place::Journal(location) = delivery.place else {
                return;
            };
            if gone.binary_search(&location.segment()).is_err() {
                return;
            }
            let queue = match delivery.taker {
                Taker::Consumer(consumer, _) => machine.queue_of(consumer),
                Taker::Browser(queue, _) | Taker::Follower(queue) => Some(queue),
                Taker::Departing => departures.queue_of(delivery.delivery_tag),
                Taker::BrowserAtEnd => None,
            };
            // One that is nowhere any more leads to nothing.
            let place = queue.and_then(|queue| machine.place_in(queue, delivery.message));
            delivery.place = place.unwrap_or(delivery.place);
        };
        for parked in gate.parked_mut() {
            if let Parked::Deliver(delivery) = parked {
                follow(delivery);
            }
        }
        for link in links.values_mut() {
            link.deliveries.iter_mut().for_each(follow);
            if let Some(streaming) = &mut link.streaming {
                follow(&mut streaming.delivery);
            }
        }
    }

    /// What its segments are needed for, and what was done about it.
    pub(in crate::shard) fn space_stats(&self) -> SpaceStats {
        let size = self.segment_size();
        let segments = self.space.segment_count();
        let mut stats = SpaceStats {
            ingested_bytes: self.relocation.spent.ingested_bytes,
            rewritten_bytes: self.relocation.spent.rewritten_bytes,
            written_bytes: self.writer.stats().bytes,
            segments,
            disk_bytes: segments * size,
            ..SpaceStats::default()
        };
        let Some((head, used)) = self.writer.segment_used() else {
            return stats;
        };
        for (segment, one) in self.machine.segment_uses() {
            let need = Need {
                segment,
                references: one.references,
                bytes: one.bytes,
            };
            let live = need.live_bytes().min(size);
            stats.live_bytes += live;
            let age = head.segment.get().saturating_sub(segment.get());
            let band = AGES.iter().position(|most| age <= *most);
            if age > 0 && need.references > 0 {
                stats.pinned_bytes[band.unwrap_or(AGES.len())] += size - live;
            }
        }
        let ready = self.writer.segments_ready() as u64 + self.space.requested_count();
        let unwritten = ready * size + head.size.saturating_sub(used);
        let written = stats.disk_bytes.saturating_sub(unwritten);
        stats.dead_bytes = written.saturating_sub(stats.live_bytes);
        stats
    }
}

/// Segments behind the one that is written to: where bands of [`SpaceStats::pinned_bytes`] end.
const AGES: [u64; 3] = [4, 16, 64];

/// What a shard's journal takes on the disk, and what of that is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Bytes of messages' records that came in since the start.
    pub ingested_bytes: u64,
    /// Bytes of records written anew since the start: no more than `relocation_budget_percent` of
    /// those that came in, and a quarter of a segment.
    pub rewritten_bytes: u64,
    /// Bytes of blocks written since the start, padding included.
    pub written_bytes: u64,
    /// Bytes of messages' records that something still needs, roughly.
    pub live_bytes: u64,
    /// Bytes that were written and that nothing needs: what was settled, records of what happened,
    /// padding.
    pub dead_bytes: u64,
    /// Segments that are needed or prepared.
    pub segments: u64,
    /// Bytes of these.
    pub disk_bytes: u64,
    /// Bytes that nothing needs in segments that something needs, by how many segments those are
    /// behind the present one: up to 4, 16, 64, and more.
    pub pinned_bytes: [u64; 4],
}

impl SpaceStats {
    /// Bytes written for each byte of messages' records that came in; none before any did.
    pub fn write_amplification(&self) -> Option<f64> {
        let is_any = self.ingested_bytes > 0;
        is_any.then(|| self.written_bytes as f64 / self.ingested_bytes as f64)
    }
}
