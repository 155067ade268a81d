//! Strict mode: behind each block, or several, a sector elsewhere says how far the journal is
//! durable; nothing counts as durable before that is.
//!
//! Invariants: one identifier is on its way at a time; it names a block that is durable with all
//! before it, so that none is ever found whose block a power cut could have torn.

use crate::format::Identifier;
use crate::storage::WriteTicket;
use crate::window::DurableBlock;
use crate::{Epoch, JournalId, Lsn, ShardId};

/// Tickets of identifiers have this bit; those of blocks never reach it.
const IDENTIFIER: u64 = 1 << 63;

pub(super) struct Identifiers {
    journal: JournalId,
    shard: ShardId,
    epoch: Epoch,
    sequence: u64,
    /// LSN behind the last record that an identifier says is durable.
    durable_end: Lsn,
    in_flight: Option<Lsn>,
}

impl Identifiers {
    pub(super) fn new(journal: JournalId, shard: ShardId, epoch: Epoch, durable_end: Lsn) -> Self {
        Self {
            journal,
            shard,
            epoch,
            sequence: 0,
            durable_end,
            in_flight: None,
        }
    }

    pub(super) const fn durable_end(&self) -> Lsn {
        self.durable_end
    }

    /// The next identifier to write, if records became durable that none names yet.
    pub(super) fn next(&mut self, last: DurableBlock) -> Option<(WriteTicket, Identifier)> {
        if self.in_flight.is_some() || last.next_lsn <= self.durable_end {
            return None;
        }
        self.sequence += 1;
        self.in_flight = Some(last.next_lsn);
        let identifier = Identifier {
            journal: self.journal,
            shard: self.shard,
            epoch: self.epoch,
            sequence: self.sequence,
            block: last.number,
            lsn: last.next_lsn.before(),
            identity: last.identity,
        };
        Some((WriteTicket(IDENTIFIER | self.sequence), identifier))
    }

    pub(super) const fn is_named(ticket: WriteTicket) -> bool {
        ticket.0 & IDENTIFIER != 0
    }

    /// The identifier on its way is durable.
    pub(super) fn complete(&mut self, ticket: WriteTicket) {
        assert_eq!(
            ticket.0 ^ IDENTIFIER,
            self.sequence,
            "one identifier is on its way"
        );
        let named = self.in_flight.take();
        self.durable_end = named.expect("storage completes each write once");
    }
}
