//! What holds between turns, checked by recount, for the simulator. Cost: O(everything).

use std::collections::BTreeMap;

use super::Shard;
use super::connection::ConnectionId;
use super::host::Host;

/// Bytes that a shard holds for its connections now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Received and not consumed, of the connection with most of them.
    pub input_max_bytes: usize,
    /// To be sent, of the connection with most of them; what is being sent is not here.
    pub output_max_bytes: usize,
    /// Bodies that are not durable.
    pub volatile_bytes: u64,
}

impl Shard {
    /// Checks what has to hold between turns.
    ///
    /// Panics: if it does not (our own mistake).
    pub fn check_invariants(&self) {
        self.host.machine.check_invariants();
        self.host.check_links();
        for (id, connection) in &self.connections {
            let is_listed = self.dirty.contains(id);
            assert_eq!(connection.is_dirty, is_listed, "{id:?} and the dirty");
            let is_listed = self.waiting.contains(id);
            assert_eq!(
                connection.is_waiting, is_listed,
                "{id:?} and those who wait"
            );
            let is_paused = connection.pause.is_some();
            assert!(!is_paused || connection.is_waiting, "{id:?} waits for ever");
        }
    }

    /// What it holds.
    pub fn held(&self) -> Held {
        let connections = self.connections.values();
        let inputs = connections.clone().map(|one| one.input.len());
        Held {
            input_max_bytes: inputs.max().unwrap_or(0),
            output_max_bytes: connections
                .map(|one| one.pending_output())
                .max()
                .unwrap_or(0),
            volatile_bytes: self.host.volatile_bytes(),
        }
    }
}

impl Host {
    fn check_links(&self) {
        let mut parked = BTreeMap::<ConnectionId, usize>::new();
        for link in self.parked_deliveries() {
            *parked.entry(link).or_default() += 1;
        }
        for (id, link) in self.links() {
            let counted = parked.get(id).copied().unwrap_or(0);
            assert_eq!(link.parked_count, counted, "{id:?}: deliveries in the gate");
            let is_listed = self.is_pumping(*id);
            assert_eq!(link.is_pumping, is_listed, "{id:?} and those to pump");
            assert!(
                link.drained_bytes <= link.pumped_bytes,
                "{id:?}: too much went"
            );
            assert!(
                link.consumers.is_sorted_by_key(|(name, _)| *name),
                "{id:?}: subscriptions out of order"
            );
            assert!(
                link.handed.iter().is_sorted_by_key(|(upto, ..)| *upto),
                "{id:?}: handed over out of order"
            );
        }
    }
}
