//! The gate: the only code that can release an effect.
//!
//! Effects are parked under the LSN they depend on and come out in that order, none before
//! everything up to its LSN is durable (design 1.4).

use std::collections::VecDeque;

use forebay_journal::Lsn;

/// Effects there is room for from the start: what a busy turn and two writes in flight park. More
/// grow it once.
const CAPACITY: usize = 4096;

/// Effects that wait for their LSN.
#[derive(Debug)]
pub(super) struct Gate<E> {
    parked: VecDeque<(Lsn, E)>,
    /// First LSN that is not durable.
    durable_end: Lsn,
}

impl<E> Gate<E> {
    pub(super) fn new(durable_end: Lsn) -> Self {
        Self {
            parked: VecDeque::with_capacity(CAPACITY),
            durable_end,
        }
    }

    /// Parks `effect` until `lsn` is durable, and behind everything parked before it.
    pub(super) fn park(&mut self, lsn: Lsn, effect: E) {
        let lsn = self.parked.back().map_or(lsn, |(last, _)| lsn.max(*last));
        self.parked.push_back((lsn, effect));
    }

    /// Everything below `durable_end` is durable.
    ///
    /// Panics: if that goes back.
    pub(super) fn advance(&mut self, durable_end: Lsn) {
        assert!(
            durable_end >= self.durable_end,
            "{durable_end} is before {}",
            self.durable_end
        );
        self.durable_end = durable_end;
    }

    /// Takes the next effect that may happen.
    pub(super) fn release(&mut self) -> Option<E> {
        let (lsn, _) = self.parked.front()?;
        if *lsn >= self.durable_end {
            return None;
        }
        self.parked.pop_front().map(|(_, effect)| effect)
    }

    /// Effects that wait, in order.
    pub(super) fn parked(&self) -> impl Iterator<Item = &E> {
        self.parked.iter().map(|(_, effect)| effect)
    }

    /// The same, to change what they say.
    pub(super) fn parked_mut(&mut self) -> impl Iterator<Item = &mut E> {
        self.parked.iter_mut().map(|(_, effect)| effect)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;
    use forebay_journal::Lsn;

    #[test]
    fn nothing_leaves_before_it_is_durable_and_nothing_overtakes() {
        let lsn = |n| Lsn::ZERO.plus(n);
        let mut gate = Gate::new(lsn(1));
        gate.park(lsn(2), "b");
        gate.park(lsn(1), "behind b though it depends on less");
        gate.park(lsn(5), "c");
        assert_eq!(gate.release(), None);
        gate.advance(lsn(2));
        assert_eq!(gate.release(), None, "2 itself is not durable");
        gate.advance(lsn(3));
        assert_eq!(gate.release(), Some("b"));
        assert_eq!(gate.release(), Some("behind b though it depends on less"));
        assert_eq!(gate.release(), None);
        gate.advance(lsn(6));
        assert_eq!(gate.release(), Some("c"));
        assert!(gate.is_empty());
    }
}
