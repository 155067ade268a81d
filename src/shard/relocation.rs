//! Which segment's survivors are written anew next, and how much of it now.
//!
//! A plain function of what each segment is still needed for. Where any segment can be freed the
//! sparsest comes first; where only the first ones can, those come as soon as a stretch of them
//! holds little enough. Nothing is done while what is dead takes little space in all.

use forebay_journal::SegmentId;

/// Bytes that a record takes beside head and body: fixed part, one queue, padding.
const RECORD_OVERHEAD_BYTES: u64 = 96;
/// Of a segment that is written anew no more than this is needed: more is not worth it.
const LIVE_MAX_PERCENT: u64 = 75;
/// Dead bytes that are left alone, per needed ones.
const DEAD_MAX_PERCENT: u64 = 20;

/// What one segment is still needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) segment: SegmentId,
    /// Records that must stay.
    pub(super) references: u64,
    /// Bytes of their heads and bodies.
    pub(super) bytes: u64,
}

impl Need {
    /// Bytes that it would take elsewhere.
    pub(super) fn live_bytes(&self) -> u64 {
        self.bytes + self.references * RECORD_OVERHEAD_BYTES
    }
}

/// The situation that a choice is made in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// Bytes of one segment.
    pub(super) size_bytes: u64,
    /// Segments of dead bytes that are left alone whatever is needed.
    pub(super) dead_segments: u32,
    /// Whether any segment that nothing needs can be freed, or only the first ones.
    pub(super) can_free_any: bool,
    /// Whether producers wait for space: then nothing dead is left alone.
    pub(super) is_short: bool,
    /// Whether it has begun: then it goes on with all that is worth it.
    pub(super) has_begun: bool,
}

/// The segment to write anew next.
///
/// Shape: `needs` of all segments that are full, in order, those that nothing needs included.
/// Cost: O(segments).
pub(super) fn choose(
    needs: impl Iterator<Item = Need> + Clone,
    situation: Situation,
) -> Option<SegmentId> {
    let size = situation.size_bytes;
    let (mut count, mut live) = (0, 0);
    let is_freed = |need: &Need| need.references == 0 && situation.can_free_any;
    for need in needs.clone().filter(|need| !is_freed(need)) {
        count += 1;
        live += need.live_bytes().min(size);
    }
    let dead = count * size - live;
    let left_alone = live * DEAD_MAX_PERCENT / 100 + u64::from(situation.dead_segments) * size;
    if dead <= left_alone && !situation.is_short && !situation.has_begun {
        return None;
    }
    if situation.can_free_any {
        sparsest(needs, size)
    } else {
        first(needs, size)
    }
}

fn sparsest(needs: impl Iterator<Item = Need>, size: u64) -> Option<SegmentId> {
    let needed = needs.filter(|need| need.references > 0);
    let sparsest = needed.min_by_key(Need::live_bytes)?;
    is_worth(sparsest.live_bytes(), size).then_some(sparsest.segment)
}

/// The first one that is needed, if some stretch that begins with it is worth it.
fn first(needs: impl Iterator<Item = Need>, size: u64) -> Option<SegmentId> {
    let (mut first, mut live, mut total) = (None, 0, 0);
    for need in needs {
        if need.references > 0 && first.is_none() {
            first = Some(need.segment);
        }
        if first.is_some() {
            live += need.live_bytes();
            total += size;
            if is_worth(live, total) {
                return first;
            }
        }
    }
    None
}

fn is_worth(live: u64, size: u64) -> bool {
    live * 100 <= size * LIVE_MAX_PERCENT
}

/// Bytes written anew against those that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Records of messages that came in.
    pub(super) ingested_bytes: u64,
    /// Records written anew.
    pub(super) rewritten_bytes: u64,
}

impl Spent {
    /// Bytes that may be written anew now: a share of what came in, and a little to begin with.
    pub(super) fn allowance(&self, budget_percent: u32, first_bytes: u64) -> u64 {
        let share = u128::from(self.ingested_bytes) * u128::from(budget_percent) / 100;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        share
            .saturating_add(first_bytes)
            .saturating_sub(self.rewritten_bytes)
    }
}

#[cfg(test)]
mod tests;
