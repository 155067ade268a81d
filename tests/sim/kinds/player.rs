//! Clients of the kinds: senders, and takers of one queue each that take what is left once it is
//! calm.

use std::collections::VecDeque;

use forebay::shard::ConnectionId;
use forebay_journal::storage::memory::Random;

use crate::frame::Frame;
use crate::kinds::{Kind, Promise, ShelfId, durable};
use crate::ledger::{SessionId, Uid};
use crate::network::name_of;
use crate::wire::{self, Wire};
use crate::world::{Phase, World};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    #[default]
    Sender,
    Taker(ShelfId),
}

#[derive(Debug)]
struct Held {
    uid: Uid,
    token: String,
    name: (u16, u64),
    count: usize,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Player {
    pub(super) kind: Kind,
    pub(super) role: Role,
    connection: Option<ConnectionId>,
    is_connected: bool,
    is_leaving: bool,
    receipts: u32,
    // Of a sender.
    pub(super) producer: u32,
    pub(super) number: u32,
    pub(super) left: u32,
    /// All that it sent, on any connection.
    pub(super) sent: Vec<Uid>,
    // Of a taker.
    seat: Option<SessionId>,
    held: VecDeque<Held>,
}

impl Player {
    pub(super) fn sender(kind: Kind, random: &mut Random) -> Self {
        Self {
            left: [20, 50, 100][random.below(3) as usize],
            ..Self::new(kind, Role::Sender)
        }
    }

    pub(super) fn taker(kind: Kind, shelf: ShelfId) -> Self {
        Self::new(kind, Role::Taker(shelf))
    }

    fn new(kind: Kind, role: Role) -> Self {
        Self {
            kind,
            role,
            connection: None,
            is_connected: false,
            is_leaving: false,
            receipts: 0,
            producer: 0,
            number: 0,
            left: 0,
            sent: Vec::new(),
            seat: None,
            held: VecDeque::new(),
        }
    }

    /// The connection is gone.
    pub(crate) fn lose(&mut self) {
        self.connection = None;
        self.is_connected = false;
        self.is_leaving = false;
        self.seat = None;
        self.held.clear();
    }

    /// Whether it has nothing to do in this phase any more.
    pub(crate) fn is_finished(&self, world: &World) -> bool {
        let wire = self.connection.and_then(|id| world.wires.get(&id));
        let is_idle = wire.is_none_or(|wire| wire.promises.is_empty() && wire.inbound.is_empty());
        match self.role {
            Role::Sender => self.connection.is_none(),
            Role::Taker(_) => self.seat.is_some() && is_idle && self.held.is_empty(),
        }
    }

    /// Does something; microseconds until it does the next thing.
    pub(crate) fn think(&mut self, index: usize, world: &mut World) -> u64 {
        let pause_us = 1 + world.random.below(400);
        let is_unrest = world.phase == Phase::Unrest;
        let Some(id) = self.connection else {
            let wants = match self.role {
                Role::Sender => is_unrest && self.left > 0,
                // What it takes gathers meanwhile.
                Role::Taker(_) => !is_unrest || world.chance(6),
            };
            if wants && world.is_serving() {
                self.connect(index, world);
            }
            return pause_us + 300;
        };
        let Some(wire) = world.wires.get(&id) else {
            self.lose();
            return pause_us;
        };
        let is_mute = wire.is_closed || wire.is_half_closed || wire.is_provoked || self.is_leaving;
        if !self.is_connected || is_mute {
            return pause_us;
        }
        if is_unrest && self.is_restless(id, world) {
            return pause_us;
        }
        match self.role {
            Role::Sender => self.produce(id, world),
            Role::Taker(shelf) => self.consume(shelf, id, world),
        }
        let is_slow = is_unrest && self.role != Role::Sender && world.chance(3);
        if is_slow { 10 * pause_us } else { pause_us }
    }

    fn connect(&mut self, index: usize, world: &mut World) {
        let id = world.connect_player(index);
        self.lose();
        self.connection = Some(id);
        self.receipts = 0;
        let mut headers = vec![("accept-version", "1.2"), ("host", "/")];
        let client;
        if let (Kind::Durable, Role::Taker(shelf)) = (self.kind, self.role) {
            client = format!("client.{shelf}");
            headers.push(("client-id", &client));
        }
        self.say(id, world, "CONNECT", &headers, b"");
        match self.role {
            Role::Sender => {
                world.next_producer += 1;
                (self.producer, self.number) = (world.next_producer, 0);
            }
            Role::Taker(shelf) => self.subscribe(shelf, id, world),
        }
    }

    pub(super) fn say(
        &self,
        id: ConnectionId,
        world: &mut World,
        command: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let headers: Vec<_> = world.twist_headers(command, headers);
        world.say(id, command, &headers, body);
    }

    /// Promises are entered before the bytes leave.
    pub(super) fn receipt(
        &mut self,
        id: ConnectionId,
        world: &mut World,
        promise: Promise,
    ) -> String {
        self.receipts += 1;
        let receipt = format!("r{}", self.receipts);
        let promises = &mut wire_of(id, world).promises;
        promises.insert(receipt.clone(), wire::Promise::Kind(promise));
        receipt
    }

    /// Breaks off in one of the ways there are; whether it did.
    fn is_restless(&mut self, id: ConnectionId, world: &mut World) -> bool {
        // Where coming and going is what is tried there is more of it.
        let least = match (self.kind, self.role) {
            (Kind::Durable | Kind::Groups | Kind::Gathered, Role::Taker(_)) => 40,
            _ => 5,
        };
        let permille = least + world.options.unrest_permille;
        if !world.random.permille(permille) {
            return false;
        }
        match (world.random.below(8), self.role) {
            (0 | 1, _) => {
                world.reset(id);
                self.lose();
            }
            (2, _) => {
                wire_of(id, world).is_half_closed = true;
                world.end_seats(id, true);
                world.write_to(id, b"");
            }
            (3, _) => {
                wire_of(id, world).is_provoked = true;
                self.say(id, world, "ACK", &[("id", "99999-1")], b"");
            }
            (4 | 5, _) | (_, Role::Sender) => self.leave(id, world),
            (_, Role::Taker(shelf)) => self.unsubscribe(shelf, id, world),
        }
        true
    }

    fn leave(&mut self, id: ConnectionId, world: &mut World) {
        self.is_leaving = true;
        world.end_seats(id, false);
        let receipt = self.receipt(id, world, Promise::Goodbye);
        self.say(id, world, "DISCONNECT", &[("receipt", &receipt)], b"");
    }

    fn produce(&mut self, id: ConnectionId, world: &mut World) {
        if world.phase > Phase::Unrest || self.left == 0 {
            if wire_of(id, world).promises.is_empty() {
                self.leave(id, world);
            }
            return;
        }
        let wire = wire_of(id, world);
        let is_full = wire.inbound.len() > 64 << 10 || wire.promises.len() > 16;
        for _ in 0..world.random.below(4) {
            if !is_full && self.left > 0 {
                self.left -= 1;
                self.send_one(id, world);
            }
        }
    }

    fn subscribe(&mut self, shelf: ShelfId, id: ConnectionId, world: &mut World) {
        let is_auto = world.phase == Phase::Unrest && world.chance(6);
        let prefetch = [1, 1, 5, 100][world.random.below(4) as usize];
        let prefetch = (!is_auto).then_some(prefetch);
        let (shards, now_us) = (world.options.shards, world.now_us);
        let books = &mut world.kinds;
        let session = books.shelves[shelf].subscribe(prefetch, shards, now_us);
        if self.kind == Kind::Durable {
            books.ask_subscription(shelf);
        }
        let destination = books.shelves[shelf].destination();
        wire_of(id, world).seats.push((shelf, session));
        self.seat = Some(session);
        let receipt = self.receipt(id, world, Promise::Subscribe(shelf, session));
        let named = format!("{shelf}-{session}");
        let (mode, prefetch) = match prefetch {
            Some(prefetch) => ("client-individual", prefetch),
            None => ("auto", 1),
        };
        let prefetch = prefetch.to_string();
        let mut headers = vec![
            ("id", named.as_str()),
            ("destination", &destination),
            ("ack", mode),
            ("prefetch-count", &prefetch),
            ("receipt", &receipt),
        ];
        if self.kind == Kind::Durable {
            headers.push((durable::HEADER, durable::NAME));
        }
        self.say(id, world, "SUBSCRIBE", &headers, b"");
    }

    /// Takes its leave of the queue; of a durable subscription for good or for a while.
    fn unsubscribe(&mut self, shelf: ShelfId, id: ConnectionId, world: &mut World) {
        let Some(session) = self.seat.take() else {
            return;
        };
        self.held.clear();
        let deletes = self.kind == Kind::Durable && world.chance(2);
        let (now_us, life) = (world.now_us, world.life);
        world.kinds.shelves[shelf].end(session, false, now_us, life);
        if deletes {
            world.kinds.ask_deletion(shelf);
        }
        let promise = Promise::Unsubscribe(shelf, session, deletes);
        let receipt = self.receipt(id, world, promise);
        let named = format!("{shelf}-{session}");
        let mut headers = vec![("id", named.as_str()), ("receipt", &receipt)];
        if deletes {
            headers.push((durable::HEADER, durable::NAME));
        }
        self.say(id, world, "UNSUBSCRIBE", &headers, b"");
    }

    fn consume(&mut self, shelf: ShelfId, id: ConnectionId, world: &mut World) {
        let is_unrest = world.phase == Phase::Unrest;
        if self.seat.is_none() {
            // The end of the former subscription is waited for.
            if wire_of(id, world).promises.is_empty() {
                self.subscribe(shelf, id, world);
            }
            return;
        }
        if is_unrest && self.kind == Kind::Durable && world.chance(20) {
            return self.unsubscribe(shelf, id, world);
        }
        let count = match is_unrest {
            true => world.random.below(4) as usize,
            false => self.held.len(),
        };
        for _ in 0..count.min(self.held.len()) {
            self.answer_one(shelf, id, world);
        }
    }

    /// Sends an ACK or a NACK for something that is held.
    fn answer_one(&mut self, shelf: ShelfId, id: ConnectionId, world: &mut World) {
        let is_unrest = world.phase == Phase::Unrest;
        let index = world.random.below(self.held.len() as u64) as usize;
        let (Some(held), Some(session)) = (self.held.remove(index), self.seat) else {
            return;
        };
        let is_refused = match self.kind {
            Kind::Dead => !world.chance(3),
            _ => world.chance(12),
        };
        let now_us = world.now_us;
        world.kinds.shelves[shelf].note_answer(session, now_us);
        if is_unrest && is_refused {
            return self.refuse(shelf, session, &held, id, world);
        }
        world.kinds.shelves[shelf].ledger.settle(held.uid, session);
        let settled = (shelf, held.uid, held.name);
        wire_of(id, world).taken.push(settled);
        let mut headers = vec![("id", held.token.as_str())];
        let receipt;
        // A receipt that comes back would give the shard another turn.
        let is_asked = !is_unrest && self.kind != Kind::Blocking;
        if is_asked || world.chance(2) {
            receipt = self.receipt(id, world, Promise::Ack(settled));
            headers.push(("receipt", &receipt));
        }
        self.say(id, world, "ACK", &headers, b"");
    }

    fn refuse(
        &mut self,
        shelf: ShelfId,
        session: SessionId,
        held: &Held,
        id: ConnectionId,
        world: &mut World,
    ) {
        // A dead letter that is refused for good is gone: that is not tried.
        let is_landing = world.kinds.shelves[shelf].is_landing;
        let is_for_good = self.kind == Kind::Dead && !is_landing && world.chance(8);
        world.note_refusal(shelf, held.uid, session, held.count, is_for_good);
        let mut headers = vec![("id", held.token.as_str())];
        if is_for_good {
            headers.push(("requeue", "false"));
        }
        let receipt;
        if world.chance(2) {
            let promise = Promise::Nack(shelf, held.uid, held.count, is_for_good);
            receipt = self.receipt(id, world, promise);
            headers.push(("receipt", &receipt));
        }
        self.say(id, world, "NACK", &headers, b"");
    }

    /// A frame came.
    pub(crate) fn hear(&mut self, frame: &Frame, world: &World) {
        match frame.command.as_str() {
            "CONNECTED" => self.is_connected = true,
            "MESSAGE" => {
                let (at, session) = seat_of(frame);
                let shelf = &world.kinds.shelves[at];
                let is_auto = shelf.ledger.session(session).is_auto;
                if self.seat != Some(session) || is_auto || !shelf.is_live(session) {
                    return;
                }
                let count = frame.header("delivery-count");
                let uid = frame.header("uid").and_then(Uid::parse);
                self.held.push_back(Held {
                    uid: uid.expect("looked at when it left"),
                    token: frame.header("ack").expect("it is to be acked").to_owned(),
                    name: name_of(frame),
                    count: count.map_or(1, |count| count.parse().expect("a number")),
                });
            }
            _ => {}
        }
    }
}

/// Shelf and session that a MESSAGE is for.
pub(super) fn seat_of(frame: &Frame) -> (ShelfId, SessionId) {
    let named = frame.header("subscription").unwrap_or_default();
    let (shelf, session) = named.split_once('-').expect("two numbers");
    let shelf = shelf.parse().expect("a number");
    (shelf, session.parse().expect("a number"))
}

pub(super) fn wire_of(id: ConnectionId, world: &mut World) -> &mut Wire {
    world.wires.get_mut(&id).expect("the client is connected")
}
