//! Lane: things of one kind that are asked for one behind the other.

use super::Ticket;

/// At most one thing under way, and when the next is due.
#[derive(Debug, Default)]
pub(super) struct Lane {
    under_way: Option<(Ticket, u64)>,
}

impl Lane {
    /// Something was asked for.
    ///
    /// Panics: if something is under way.
    pub(super) fn begin(&mut self, ticket: Ticket, now_us: u64) {
        assert!(self.under_way.is_none(), "one thing at a time");
        self.under_way = Some((ticket, now_us));
    }

    /// If the ticket is the one under way: when it was asked for, and the lane is free.
    pub(super) fn end(&mut self, ticket: Ticket) -> Option<u64> {
        let (_, at_us) = self
            .under_way
            .filter(|&(under_way, _)| under_way == ticket)?;
        self.under_way = None;
        Some(at_us)
    }

    pub(super) const fn is_free(&self) -> bool {
        self.under_way.is_none()
    }

    /// Whether nothing is under way and the time has come.
    pub(super) const fn is_free_at(&self, due_us: u64, now_us: u64) -> bool {
        self.is_free() && now_us >= due_us
    }

    /// Since when something is under way.
    pub(super) fn since_us(&self) -> Option<u64> {
        self.under_way.map(|(_, at_us)| at_us)
    }
}
