//! When to look at which connection again. Entries are never removed, only looked at when due:
//! activity moves a connection's timers back far more often than they fire.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ConnectionId;

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BinaryHeap<Reverse<(u64, ConnectionId)>>,
}

impl Timers {
    pub(super) fn enter(&mut self, due_us: u64, connection: ConnectionId) {
        self.due.push(Reverse((due_us, connection)));
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_us, _))| *due_us)
    }

    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<ConnectionId> {
        let Reverse((due_us, _)) = self.due.peek()?;
        if *due_us > now_us {
            return None;
        }
        self.due.pop().map(|Reverse((_, connection))| connection)
    }
}
