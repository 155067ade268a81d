//! Segments that nothing needs any more, on their way to who reuses their files.

use crate::SegmentId;

/// A few of them: passed on by value, without memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreedSegments {
    segments: [SegmentId; Self::MAX],
    count: u8,
}

impl FreedSegments {
    const MAX: usize = 8;

    /// Takes the first ones out of a list; none of an empty one.
    pub fn take_from(freed: &mut Vec<SegmentId>) -> Option<Self> {
        if freed.is_empty() {
            return None;
        }
        let count = freed.len().min(Self::MAX);
        let mut segments = [SegmentId::ZERO; Self::MAX];
        for (place, segment) in segments.iter_mut().zip(freed.drain(..count)) {
            *place = segment;
        }
        let count = count as u8;
        Some(Self { segments, count })
    }

    /// Which.
    pub fn as_slice(&self) -> &[SegmentId] {
        &self.segments[..usize::from(self.count)]
    }
}
