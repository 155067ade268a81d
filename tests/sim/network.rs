//! Sockets of a run: bytes split at random, slow readers, half-closed and reset connections; and
//! the checks of everything that leaves the broker, at the moment it leaves.

use forebay::shard::ConnectionId;

use crate::frame::{self, Frame, Seen};
use crate::ledger::{Departure, SessionId, Uid};
use crate::options::Mutant;
use crate::wire::{Promise, Wire};
use crate::world::{Event, Phase, World};

impl World {
    /// A client connects to a shard that the kernel chooses.
    pub(crate) fn connect(&mut self, client: usize) -> ConnectionId {
        let shard = self.random.below(self.options.shards.into()) as usize;
        let is_slow =
            self.phase == Phase::Unrest && self.random.permille(self.options.slow_reader_permille);
        let room = [2 << 10, 16 << 10, 128 << 10][self.random.below(3) as usize];
        let now = self.now();
        let id = self.bound(shard).shard.handle_connected(now);
        self.wires
            .insert(id, Wire::new(client, shard, room, is_slow));
        self.note("connect", client as u64, id.0);
        self.nudge(shard);
        id
    }

    /// The client writes a frame.
    pub(crate) fn say(
        &mut self,
        id: ConnectionId,
        command: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut bytes = Vec::new();
        frame::encode(command, headers, body, &mut bytes);
        if self.trace.is_loud {
            println!("{:>10} to {} {command} {headers:?}", self.now_us, id.0);
        }
        self.write_to(id, &bytes);
    }

    /// The client writes bytes.
    pub(crate) fn write_to(&mut self, id: ConnectionId, bytes: &[u8]) {
        let wire = self.wires.get_mut(&id).expect("the client is connected");
        wire.inbound.extend(bytes);
        self.busy_us = self.now_us;
        self.begin_inbound(id);
    }

    fn begin_inbound(&mut self, id: ConnectionId) {
        let delay_us = 1 + self.random.below(60);
        if let Some(wire) = self.wires.get_mut(&id)
            && !wire.is_inbound_due
        {
            wire.is_inbound_due = true;
            self.after(delay_us, Event::Inbound(id));
        }
    }

    /// Bytes reach the broker, as many as the seed likes.
    pub(crate) fn inbound(&mut self, id: ConnectionId) {
        let most = [16, 900, 16 << 10, 16 << 10][self.random.below(4) as usize];
        let count = 1 + self.random.below(most) as usize;
        let is_repeated = self.mutant == Mutant::RepeatedInput && self.chance(500);
        let now = self.now();
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.is_inbound_due = false;
        if !wire.is_wanted || wire.is_closed {
            return;
        }
        let shard = wire.shard;
        let count = count.min(wire.inbound.len());
        let bytes: Vec<u8> = wire.inbound.drain(..count).collect();
        let is_more = !wire.inbound.is_empty();
        let is_ending = wire.is_half_closed && !is_more && !wire.has_told_end;
        wire.has_told_end |= is_ending;
        if !bytes.is_empty() {
            let shard = &mut self.bound(shard).shard;
            shard.handle_received(id, &bytes, now);
            if is_repeated {
                shard.handle_received(id, &bytes, now);
            }
        }
        if is_ending {
            self.bound(shard).shard.handle_end_of_input(id, now);
        }
        if is_more {
            self.begin_inbound(id);
        }
        self.nudge(shard);
    }

    pub(crate) fn set_wanted(&mut self, id: ConnectionId, is_wanted: bool) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.is_wanted = is_wanted;
            if is_wanted {
                self.begin_inbound(id);
            }
        }
    }

    /// The broker sends.
    pub(crate) fn send(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        self.note("send", id.0, bytes.len() as u64);
        self.busy_us = self.now_us;
        let Some(wire) = self.wires.get_mut(&id) else {
            return self.sent(id, bytes, false);
        };
        assert!(wire.sending.is_none(), "two sends at once");
        let seen = wire.depart(&bytes);
        let seen = seen.unwrap_or_else(|error| panic!("connection {}: {error}", id.0));
        wire.sending = Some((bytes, 0));
        for one in seen {
            match one {
                Seen::Head(frame) if frame.command == "MESSAGE" => self.depart(id, &frame),
                Seen::Head(_) => {}
                Seen::Whole(frame, _) => self.arrive(id, &frame),
            }
        }
        self.fill(id);
    }

    /// Moves bytes into the socket and tells the broker when all of them are there.
    fn fill(&mut self, id: ConnectionId) {
        let (delay_us, told_us) = (self.random.below(100), self.random.below(20));
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let delay_us = if wire.is_slow {
            40 * delay_us
        } else {
            delay_us
        };
        let sent = wire.fill();
        if wire.buffered > 0 && !wire.is_outbound_due {
            wire.is_outbound_due = true;
            self.after(1 + delay_us, Event::Outbound(id));
        }
        if let Some(buffer) = sent {
            self.after(told_us, Event::Sent(id, buffer));
        }
    }

    pub(crate) fn sent(&mut self, id: ConnectionId, buffer: Vec<u8>, is_ok: bool) {
        let (now, shard) = (self.now(), usize::from(id.shard().0));
        let shard_of_it = &mut self.bound(shard).shard;
        shard_of_it.handle_sent(id, buffer, is_ok, now);
        self.nudge(shard);
    }

    /// The client reads.
    pub(crate) fn outbound(&mut self, id: ConnectionId) {
        let is_calm = self.phase > Phase::Unrest;
        let some = 1 + self.random.below(3000) as usize;
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.is_outbound_due = false;
        wire.is_slow &= !is_calm;
        let count = if wire.is_slow { some } else { usize::MAX };
        let (frames, index) = (wire.read(count), wire.client);
        self.busy_us = self.now_us;
        for frame in frames {
            if let Some(player) = Self::player_of(index) {
                self.hear_player(player, &frame);
                continue;
            }
            let mut client = std::mem::take(&mut self.clients[index]);
            client.hear(&frame, self);
            self.clients[index] = client;
        }
        self.fill(id);
        self.see_end(id);
    }

    /// The client sees the end of a connection that the broker closed.
    fn see_end(&mut self, id: ConnectionId) {
        let Some(wire) = self.wires.get(&id) else {
            return;
        };
        if wire.is_closed && wire.buffered == 0 && wire.sending.is_none() {
            let index = wire.client;
            let is_owed = wire
                .promises
                .values()
                .any(|promise| matches!(promise, Promise::Goodbye));
            let is_stopping = self.node.as_ref().is_some_and(|node| node.is_stopping);
            // A body that was begun and is nowhere any more can only end the connection.
            let is_gone = wire.under_way().is_some_and(|uid| {
                self.ledger.messages.contains_key(&uid) && self.ledger.is_taken(uid)
            });
            let is_due = is_owed && !wire.got_error && !is_stopping && !is_gone;
            assert!(!is_due, "client {index}: no receipt for its goodbye");
            self.wires.remove(&id);
            self.lose_client(index);
            self.note("lost", index as u64, id.0);
        }
    }

    /// The broker closes.
    pub(crate) fn close(&mut self, shard: usize, id: ConnectionId) {
        let now = self.now();
        self.note("close", shard as u64, id.0);
        self.bound(shard).shard.handle_closed(id, now);
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.is_closed = true;
        let sessions: Vec<_> = wire.sessions.values().copied().collect();
        let seats = wire.seats.clone();
        sessions.into_iter().for_each(|one| self.end_session(one));
        self.close_seats(&seats, false);
        self.see_end(id);
        self.nudge(shard);
    }

    /// The client resets the connection.
    pub(crate) fn reset(&mut self, id: ConnectionId) {
        self.note("reset", 0, id.0);
        let Some(wire) = self.wires.remove(&id) else {
            return;
        };
        wire.sessions
            .values()
            .for_each(|one| self.end_session(*one));
        self.close_seats(&wire.seats, true);
        let now = self.now();
        self.bound(wire.shard).shard.handle_closed(id, now);
        self.nudge(wire.shard);
    }

    /// The connection of a session is closed; another shard that has its queue hears of it later.
    fn end_session(&mut self, session: SessionId) {
        match self.options.shards {
            1 => self.ledger.gone(session),
            _ => self.ledger.end(session),
        }
    }

    /// The head of a message leaves.
    fn depart(&mut self, id: ConnectionId, frame: &Frame) {
        let wire = &self.wires[&id];
        if Self::player_of(wire.client).is_some() {
            return self.depart_kind(id, frame);
        }
        let named = frame.header("subscription").unwrap_or_default();
        let session = *wire.sessions.get(named).expect("it has that subscription");
        let uid = frame.header("uid").and_then(Uid::parse);
        let uid = uid.filter(|uid| self.ledger.messages.contains_key(uid));
        let uid = uid.unwrap_or_else(|| panic!("invented: {frame:?}"));
        let (shard, message) = name_of(frame);
        let to = self.ledger.messages[&uid].to.name();
        assert_eq!(frame.header("destination"), Some(to.as_str()), "{uid}");
        assert_eq!(frame.header("note"), Some(NOTE), "{uid}: its own header");
        let count = frame.header("delivery-count");
        let count = count.map_or(1, |count| count.parse().expect("a number"));
        let one = Departure {
            uid,
            session,
            is_redelivered: frame.header("redelivered") == Some("true"),
            count,
        };
        let node = self.node.as_ref().expect("it sends");
        let witness = &node.shards[usize::from(shard)].witness;
        let known = witness.deliveries_of(message);
        self.note(
            "deliver",
            u64::from(uid.0) << 32 | u64::from(uid.1),
            count as u64,
        );
        if self.trace.is_loud {
            let token = frame.header("ack");
            println!("{:>10} deliver {uid} to {} as {token:?}", self.now_us, id.0);
        }
        self.ledger.depart(one, known);
    }

    /// A whole frame left.
    fn arrive(&mut self, id: ConnectionId, frame: &Frame) {
        let client = self.wires[&id].client;
        let player = Self::player_of(client);
        match frame.command.as_str() {
            "MESSAGE" if player.is_some() => self.arrive_kind(frame),
            "MESSAGE" => {
                let named = frame.header("subscription").unwrap_or_default();
                let session = self.wires[&id].sessions[named];
                let uid = frame.header("uid").and_then(Uid::parse);
                let uid = uid.expect("looked at with its head");
                self.ledger.arrive(uid, session, &frame.body);
            }
            "RECEIPT" => {
                let named = frame.header("receipt-id").unwrap_or_default();
                let wire = self.wires.get_mut(&id).expect("it sends to it");
                let promise = wire.promises.remove(named);
                let promise = promise.unwrap_or_else(|| panic!("nobody asked for {frame:?}"));
                self.keep_promise(id, promise);
            }
            "ERROR" => {
                let is_stopping = self.node.as_ref().is_some_and(|node| node.is_stopping);
                let wire = self.wires.get_mut(&id).expect("it sends to it");
                wire.got_error = true;
                let text = String::from_utf8_lossy(&frame.body).into_owned();
                let is_provoked = wire.is_provoked;
                let is_due = is_provoked
                    || is_stopping
                    || self.is_refused_by_full_disk(id, frame)
                    || player.is_some_and(|player| self.is_error_due(player, id));
                assert!(is_due, "client {client}: {frame:?}: {text}");
            }
            _ => {}
        }
    }

    fn keep_promise(&mut self, id: ConnectionId, promise: Promise) {
        let node = self.node.as_ref().expect("it sends");
        let has_message = |uid| {
            node.shards
                .iter()
                .any(|bound| bound.witness.has_message(uid))
        };
        let has_settled = |(shard, message): (u16, u64)| {
            let witness = &node.shards[usize::from(shard)].witness;
            witness.has_settled(message)
        };
        match promise {
            Promise::Send(uid) => self.ledger.confirm(uid, has_message(uid)),
            Promise::Subscribe(session) => self.ledger.subscribed(session),
            Promise::Ack(settled) => {
                for (uid, name) in settled {
                    self.ledger.settled(uid, has_settled(name));
                }
            }
            Promise::Commit(transaction, settled) => {
                for uid in self.ledger.confirm_commit(transaction) {
                    self.ledger.confirm(uid, has_message(uid));
                }
                for (uid, name) in settled {
                    self.ledger.settled(uid, has_settled(name));
                }
            }
            Promise::Unsubscribe(session) => self.ledger.gone(session),
            Promise::Kind(promise) => self.keep_kind(id, promise),
            Promise::Goodbye => {
                let wire = &self.wires[&id];
                for uid in wire.sent.clone() {
                    self.ledger.confirm(uid, has_message(uid));
                }
                for (uid, name) in wire.acked.clone() {
                    self.ledger.settled(uid, has_settled(name));
                }
            }
        }
    }
}

/// A header that every message carries: every escape there is.
pub(crate) const NOTE: &str = "a:b\\c\nd\re";

/// Shard and number of a message as the broker names it.
pub(crate) fn name_of(frame: &Frame) -> (u16, u64) {
    let name = frame.header("message-id").unwrap_or_default();
    let (shard, message) = name.split_once('-').expect("two numbers");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    (number(shard) as u16, number(message))
}
