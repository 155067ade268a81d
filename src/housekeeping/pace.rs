//! How fast a segment is prepared: as slowly as it may, as fast as the writer needs.
//!
//! A full-speed zero-fill beside the journal costs its latency tenfold; at 50 MB/s it is invisible
//! (`docs/decisions/2026-11-22-segments.md`). But the next segment has to be there when the
//! current one is full, so the fill keeps ahead of what was ingested meanwhile, and when the
//! writer waits nothing holds it back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay_journal::SegmentId;

/// Shared between one shard and the node (which tell) and housekeeping (which obeys).
#[derive(Debug, Default)]
pub struct Pace {
    ingested_bytes: AtomicU64,
    is_waiting: AtomicBool,
    is_given_up: AtomicBool,
    sealed_below: AtomicU64,
}

impl Pace {
    /// The shard says how many bytes of blocks it has written since the start.
    pub fn set_ingested(&self, bytes: u64) {
        self.ingested_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The shard says whether it waits for a segment.
    pub fn set_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    /// The shard says below which segment nothing changes any more.
    pub fn set_sealed_below(&self, segment: SegmentId) {
        // What was read before this number was durable before it was said.
        self.sealed_below.store(segment.get(), Ordering::Release);
    }

    pub(super) fn sealed_below(&self) -> SegmentId {
        SegmentId::ZERO.plus(self.sealed_below.load(Ordering::Acquire))
    }

    /// The node stops: nobody wants the segment any more.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    pub(super) fn ingested(&self) -> u64 {
        self.ingested_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }
}

/// Whether a fill may go on, by what it did so far.
///
/// `filled` and `ingested` count bytes since the fill began. Allowed is the configured rate, or a
/// quarter more than came in, whichever is more.
pub(super) fn may_fill(filled: u64, ingested: u64, elapsed: Duration, rate: u64) -> bool {
    let by_rate = u128::from(rate) * elapsed.as_micros() / 1_000_000;
    let by_ingest = u128::from(ingested) * 5 / 4;
    u128::from(filled) <= by_rate.max(by_ingest)
}

#[cfg(test)]
mod tests {
    use super::may_fill;
    use std::time::Duration;

    #[test]
    fn rate_holds_when_nothing_comes_in_and_ingest_lifts_it() {
        let second = Duration::from_secs(1);
        assert!(may_fill(50_000_000, 0, second, 50_000_000));
        assert!(!may_fill(50_000_001, 0, second, 50_000_000));
        assert!(may_fill(500_000_000, 400_000_000, second, 50_000_000));
        assert!(!may_fill(500_000_001, 400_000_000, second, 50_000_000));
    }
}
