//! A message on its way into its queues, with what they need to know of it.

use forebay_journal::format::Annotations;

use super::entry::Entry;

#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) entry: Entry,
    pub(super) expires_unix_ms: u64,
    pub(super) annotations: Annotations<'a>,
    /// Its duplicate id, if that does not survive the process; empty for none.
    pub(super) volatile_id: &'a [u8],
}

impl<'a> Arrival<'a> {
    /// The entry gets the word that tables know more of it, if they have to.
    pub(super) fn new(
        entry: Entry,
        expires_unix_ms: u64,
        (annotations, volatile_id): (Annotations<'a>, &'a [u8]),
    ) -> Self {
        let is_noted = expires_unix_ms != 0 || annotations.group != 0;
        Self {
            entry: if is_noted { entry.noted() } else { entry },
            expires_unix_ms,
            annotations,
            volatile_id,
        }
    }
}

/// An arrival that waits for its transaction.
#[derive(Debug)]
pub(super) struct StagedArrival {
    pub(super) entry: Entry,
    expires_unix_ms: u64,
    deliver_unix_ms: u64,
    group: u64,
    is_group_end: bool,
    last_value: Box<[u8]>,
    duplicate_id: Box<[u8]>,
    volatile_id: Box<[u8]>,
}

impl StagedArrival {
    pub(super) fn of(arrival: &Arrival<'_>) -> Self {
        let annotations = &arrival.annotations;
        Self {
            entry: arrival.entry,
            expires_unix_ms: arrival.expires_unix_ms,
            deliver_unix_ms: annotations.deliver_unix_ms,
            group: annotations.group,
            is_group_end: annotations.is_group_end,
            last_value: annotations.last_value.into(),
            duplicate_id: annotations.duplicate_id.into(),
            volatile_id: arrival.volatile_id.into(),
        }
    }

    pub(super) fn arrival(&self) -> Arrival<'_> {
        Arrival {
            entry: self.entry,
            expires_unix_ms: self.expires_unix_ms,
            annotations: Annotations {
                deliver_unix_ms: self.deliver_unix_ms,
                group: self.group,
                is_group_end: self.is_group_end,
                last_value: &self.last_value,
                duplicate_id: &self.duplicate_id,
                // Said in its record, which is where deliveries read it.
                address: &[],
            },
            volatile_id: &self.volatile_id,
        }
    }
}
