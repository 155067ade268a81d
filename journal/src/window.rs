//! Block writes in flight: completions come out of order, the durable position rises in order.
//!
//! Invariants: at most [`INFLIGHT_BLOCKS_MAX`] writes are in flight; `durable` never goes back and
//! never passes a block whose write has not completed.

use std::collections::VecDeque;

use crate::format::{Checksum, INFLIGHT_BLOCKS_MAX};
use crate::storage::WriteTicket;
use crate::{BlockNumber, Lsn};

/// The last block that is durable with all before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DurableBlock {
    pub(crate) number: BlockNumber,
    pub(crate) identity: Checksum,
    /// LSN behind its last record.
    pub(crate) next_lsn: Lsn,
}

struct InFlight {
    ticket: WriteTicket,
    block: DurableBlock,
    is_done: bool,
}

/// The window of writes in flight.
pub(crate) struct Window {
    writes: VecDeque<InFlight>,
    next_ticket: u64,
    /// The last block that is durable; that behind which all begins if none is.
    durable: DurableBlock,
}

impl Window {
    pub(crate) fn new(durable: DurableBlock) -> Self {
        Self {
            writes: VecDeque::with_capacity(INFLIGHT_BLOCKS_MAX as usize),
            next_ticket: 0,
            durable,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.writes.len() as u64 >= INFLIGHT_BLOCKS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// First LSN that is not durable.
    pub(crate) fn durable_end(&self) -> Lsn {
        self.durable.next_lsn
    }

    /// The last block that is durable with all before it.
    pub(crate) fn durable(&self) -> DurableBlock {
        self.durable
    }

    /// Enters a block.
    pub(crate) fn submit(&mut self, block: DurableBlock) -> WriteTicket {
        assert!(
            !self.is_full(),
            "more than {INFLIGHT_BLOCKS_MAX} writes in flight"
        );
        let ticket = WriteTicket(self.next_ticket);
        self.next_ticket += 1;
        self.writes.push_back(InFlight {
            ticket,
            block,
            is_done: false,
        });
        ticket
    }

    /// Marks a write as completed; returns how many blocks, oldest first, became durable.
    pub(crate) fn complete(&mut self, ticket: WriteTicket) -> usize {
        let write = self.writes.iter_mut().find(|write| write.ticket == ticket);
        let write = write.expect("storage completes each write once");
        assert!(!write.is_done, "storage completed {ticket:?} twice");
        write.is_done = true;
        let mut durable_count = 0;
        while let Some(write) = self.writes.front()
            && write.is_done
        {
            assert!(
                write.block.next_lsn >= self.durable.next_lsn,
                "durable position goes back"
            );
            self.durable = write.block;
            self.writes.pop_front();
            durable_count += 1;
        }
        durable_count
    }
}

#[cfg(test)]
mod tests {
    use super::{DurableBlock, Window};
    use crate::format::Checksum;
    use crate::{BlockNumber, Lsn};

    fn upto(lsn: u64) -> DurableBlock {
        DurableBlock {
            number: BlockNumber::ZERO,
            identity: Checksum::NONE,
            next_lsn: Lsn::ZERO.plus(lsn),
        }
    }

    /// J02: any order of completions releases in LSN order.
    #[test]
    fn durable_in_order() {
        let mut window = Window::new(upto(1));
        let first = window.submit(upto(5));
        let second = window.submit(upto(9));
        assert!(window.is_full());
        assert_eq!(window.complete(second), 0);
        assert_eq!(window.durable_end(), Lsn::ZERO.next());
        assert_eq!(window.complete(first), 2);
        assert_eq!(window.durable_end(), Lsn::ZERO.plus(9));
        assert!(window.is_empty());
    }
}
