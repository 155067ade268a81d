//! The shard's forwarder: a connection without a client. What it says comes back to it as input.

use super::connection::{Connection, Phase};
use super::{ConnectionId, Shard};
use crate::frontend::{Forwarder, Frontend};
use crate::now::Now;

impl Shard {
    /// Makes the forwarder's connection.
    pub(super) fn connect_forwarder(&mut self) {
        let mut connection = Connection::new(Frontend::Forwarder(Box::<Forwarder>::default()));
        // Nobody reads from a socket for it.
        connection.is_reading_stopped = true;
        self.connections.insert(self.forwarder, connection);
    }

    /// The forwarder goes: what it had on its way begins anew with the next start.
    pub(super) fn disconnect_forwarder(&mut self) {
        self.connections.remove(&self.forwarder);
    }

    /// Lets the forwarder read what it said.
    pub(super) fn loop_back(&mut self, now: Now) {
        let id = self.forwarder;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.output.is_empty() || connection.pause.is_some() {
            return;
        }
        let spare = std::mem::take(&mut connection.spare);
        let said = std::mem::replace(&mut connection.output, spare);
        std::mem::swap(&mut connection.delivered, &mut connection.delivered_sending);
        self.handle_received(id, &said, now);
        self.handle_sent(id, said, true, now);
    }

    /// Whether the forwarder has something to read.
    pub(super) fn has_looped_back(&self) -> bool {
        let connection = self.connections.get(&self.forwarder);
        connection.is_some_and(|one| {
            !one.output.is_empty() && one.pause.is_none() && one.phase == Phase::Open
        })
    }

    pub(super) fn is_forwarder(&self, id: ConnectionId) -> bool {
        id == self.forwarder
    }
}
