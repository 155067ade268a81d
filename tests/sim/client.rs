//! Clients of a run: producers, consumers that misbehave, and drainers that take what is left.

use std::collections::VecDeque;

use forebay::shard::ConnectionId;

use crate::frame::Frame;
use crate::ledger::{Destination, SessionId, Uid};
use crate::network::{NOTE, name_of};
use crate::transaction::Open;
use crate::wire::{Promise, Wire};
use crate::world::{Phase, World};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Producer,
    Consumer,
    /// Takes all of this queue once it is calm.
    Drainer(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Auto,
    Client,
    Individual,
}

impl Mode {
    const fn text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::Individual => "client-individual",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) uid: Uid,
    token: String,
    pub(crate) name: (u16, u64),
}

impl Held {
    /// Rises with each delivery of a subscription.
    fn tag(&self) -> u64 {
        let tag = self.token.split_once('-').map(|(_, tag)| tag.parse());
        tag.expect("two numbers").expect("a number")
    }
}

#[derive(Debug)]
struct Subscribed {
    id: String,
    session: SessionId,
    mode: Mode,
    is_over: bool,
    held: VecDeque<Held>,
}

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    role: Role,
    connection: Option<ConnectionId>,
    is_connected: bool,
    is_leaving: bool,
    receipts: u32,
    // Of a producer.
    producer: u32,
    number: u32,
    window: usize,
    // Of a consumer.
    subscribed: Vec<Subscribed>,
    pub(crate) open: Option<Open>,
}

impl Client {
    pub(crate) fn producer() -> Self {
        Self::default()
    }

    pub(crate) fn consumer() -> Self {
        let role = Role::Consumer;
        Self {
            role,
            ..Self::default()
        }
    }

    pub(crate) fn drainer(queue: usize) -> Self {
        let role = Role::Drainer(queue);
        Self {
            role,
            ..Self::default()
        }
    }

    /// The connection is gone.
    pub(crate) fn lose(&mut self) {
        self.connection = None;
        self.is_connected = false;
        self.is_leaving = false;
        self.subscribed.clear();
        self.open = None;
    }

    /// Whether it has nothing to do in this phase any more.
    pub(crate) fn is_finished(&self, world: &World) -> bool {
        let wire = self.connection.and_then(|id| world.wires.get(&id));
        let is_idle = wire.is_none_or(|wire| wire.promises.is_empty() && wire.inbound.is_empty());
        let is_empty = self.subscribed.iter().all(|one| one.held.is_empty());
        let is_empty = is_empty && self.open.is_none();
        match self.role {
            Role::Producer => self.connection.is_none(),
            Role::Consumer if world.phase == Phase::Calm => is_idle && is_empty,
            Role::Consumer => self.connection.is_none(),
            Role::Drainer(_) => self.is_connected && is_idle && is_empty,
        }
    }

    /// Does something; microseconds until it does the next thing.
    pub(crate) fn think(&mut self, index: usize, world: &mut World) -> u64 {
        let pause_us = 1 + world.random.below(400);
        let Some(id) = self.connection else {
            if self.wants_connection(world) && world.is_serving() {
                self.connect(index, world);
            }
            return pause_us + 500;
        };
        let Some(wire) = world.wires.get(&id) else {
            self.lose();
            return pause_us;
        };
        // Nothing it says is heard any more: it only reads to the end.
        let is_mute = wire.is_closed || wire.is_half_closed || wire.is_provoked || self.is_leaving;
        if !self.is_connected || is_mute {
            return pause_us;
        }
        if world.phase == Phase::Unrest && self.role != Role::Producer && world.chance(4) {
            // Some consumers take their time.
            return 10 * pause_us;
        }
        if world.phase == Phase::Unrest && self.is_restless(id, world) {
            return pause_us;
        }
        if self.role == Role::Consumer || self.role == Role::Producer {
            let must_end = world.phase > Phase::Unrest || world.messages_left == 0;
            self.transact(id, world, must_end);
        }
        match self.role {
            Role::Producer => self.produce(id, world),
            Role::Consumer | Role::Drainer(_) => self.consume(id, world),
        }
        pause_us
    }

    fn wants_connection(&self, world: &World) -> bool {
        match self.role {
            Role::Producer => world.phase == Phase::Unrest && world.messages_left > 0,
            Role::Consumer => world.phase == Phase::Unrest,
            Role::Drainer(_) => world.phase > Phase::Unrest,
        }
    }

    fn connect(&mut self, index: usize, world: &mut World) {
        let id = world.connect(index);
        self.lose();
        self.connection = Some(id);
        self.receipts = 0;
        let beat = if world.chance(5) { "0,40" } else { "0,0" };
        let headers = [
            ("accept-version", "1.2"),
            ("host", "/"),
            ("heart-beat", beat),
        ];
        self.say(id, world, "CONNECT", &headers, b"");
        match self.role {
            Role::Producer => {
                world.next_producer += 1;
                self.producer = world.next_producer;
                self.number = 0;
                self.window = [1, 4, 32][world.random.below(3) as usize];
            }
            Role::Consumer => {
                let count = 1 + world.random.below(2);
                (0..count).for_each(|_| self.subscribe_somewhere(id, world));
            }
            Role::Drainer(index) => {
                let is_topic = false;
                let to = Destination { is_topic, index };
                self.subscribe(id, world, to, Mode::Individual, 50);
            }
        }
    }

    pub(crate) fn say(
        &self,
        id: ConnectionId,
        world: &mut World,
        command: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        world.say(id, command, headers, body);
    }

    /// Promises are entered before the bytes leave.
    pub(crate) fn receipt(
        &mut self,
        id: ConnectionId,
        world: &mut World,
        promise: Promise,
    ) -> String {
        self.receipts += 1;
        let receipt = format!("r{}", self.receipts);
        let wire = wire_of(id, world);
        wire.promises.insert(receipt.clone(), promise);
        receipt
    }

    /// Breaks off in one of the ways there are; whether it did.
    fn is_restless(&mut self, id: ConnectionId, world: &mut World) -> bool {
        let permille = world.options.unrest_permille;
        if !world.random.permille(permille) {
            return false;
        }
        match world.random.below(6) {
            0 | 1 => {
                world.reset(id);
                self.lose();
            }
            2 => {
                wire_of(id, world).is_half_closed = true;
                end_sessions(id, world);
                world.write_to(id, b"");
            }
            3 => {
                wire_of(id, world).is_provoked = true;
                self.say(id, world, "ACK", &[("id", "99999-1")], b"");
            }
            _ => self.leave(id, world),
        }
        true
    }

    fn leave(&mut self, id: ConnectionId, world: &mut World) {
        self.is_leaving = true;
        end_sessions(id, world);
        let receipt = self.receipt(id, world, Promise::Goodbye);
        self.say(id, world, "DISCONNECT", &[("receipt", &receipt)], b"");
    }

    fn produce(&mut self, id: ConnectionId, world: &mut World) {
        let waiting = wire_of(id, world).promises.len();
        if world.phase > Phase::Unrest || world.messages_left == 0 {
            if waiting == 0 {
                self.leave(id, world);
            }
            return;
        }
        let is_full = wire_of(id, world).inbound.len() > 64 << 10;
        let burst = 1 + world.random.below(8) as usize;
        let count = burst.min(self.window.saturating_sub(waiting));
        for _ in 0..count {
            if !is_full && world.messages_left > 0 {
                self.send_message(id, world);
            }
        }
    }

    fn send_message(&mut self, id: ConnectionId, world: &mut World) {
        world.messages_left -= 1;
        self.number += 1;
        let uid = Uid(self.producer, self.number);
        let is_topic = world.options.topics > 0 && world.chance(6);
        let places = if is_topic {
            world.options.topics
        } else {
            world.options.queues
        };
        let index = world.random.below(places as u64) as usize;
        let to = Destination { is_topic, index };
        let (large, persistent) = (
            world.options.large_permille,
            world.options.persistent_permille,
        );
        let size = match world.random.permille(large) {
            true => 10_000 + world.random.below(250_000),
            false => [0, 20, 300, 3000][world.random.below(4) as usize] + world.random.below(200),
        } as usize;
        let is_text = world.chance(3);
        let is_persistent = world.random.permille(persistent);
        // What does not fit the memory for it is refused with an ERROR: not what is tried here.
        let max = world.options.volatile_max_bytes as usize;
        let is_journaled = is_persistent && !is_topic;
        let size = if is_journaled { size } else { size.min(max) };
        world.ledger.send(uid, to, size, (is_text, is_persistent));
        let body = uid.body(size, is_text);
        let (name, uid_text, length) = (to.name(), uid.to_string(), size.to_string());
        let mut headers = vec![("destination", name.as_str()), ("uid", &uid_text)];
        headers.push(("note", NOTE));
        if !is_text {
            headers.push(("content-length", &length));
        }
        headers.push(("persistent", if is_persistent { "true" } else { "false" }));
        let has_receipt = !world.chance(8);
        let receipt;
        if has_receipt {
            receipt = self.receipt(id, world, Promise::Send(uid));
            headers.push(("receipt", &receipt));
        }
        wire_of(id, world).sent.push(uid);
        self.say(id, world, "SEND", &headers, &body);
    }

    fn subscribe_somewhere(&mut self, id: ConnectionId, world: &mut World) {
        let is_topic = world.options.topics > 0 && world.chance(3);
        let places = if is_topic {
            world.options.topics
        } else {
            world.options.queues
        };
        let index = world.random.below(places as u64) as usize;
        let mode = match world.random.below(3) {
            _ if is_topic => Mode::Auto,
            0 => Mode::Auto,
            1 => Mode::Client,
            _ => Mode::Individual,
        };
        let prefetch = [1, 5, 100][world.random.below(3) as usize];
        self.subscribe(id, world, Destination { is_topic, index }, mode, prefetch);
    }

    fn subscribe(
        &mut self,
        id: ConnectionId,
        world: &mut World,
        to: Destination,
        mode: Mode,
        prefetch: u32,
    ) {
        let shards = world.options.shards;
        let is_auto = mode == Mode::Auto;
        let session = world.ledger.subscribe(to, is_auto, shards);
        let named = format!("s:{session}");
        wire_of(id, world).sessions.insert(named.clone(), session);
        let receipt = self.receipt(id, world, Promise::Subscribe(session));
        let (name, prefetch) = (to.name(), prefetch.to_string());
        let headers = [
            ("id", named.as_str()),
            ("destination", &name),
            ("ack", mode.text()),
            ("prefetch-count", &prefetch),
            ("receipt", &receipt),
        ];
        self.say(id, world, "SUBSCRIBE", &headers, b"");
        self.subscribed.push(Subscribed {
            id: named,
            session,
            mode,
            is_over: false,
            held: VecDeque::new(),
        });
    }

    fn consume(&mut self, id: ConnectionId, world: &mut World) {
        let is_unrest = world.phase == Phase::Unrest;
        if world.phase == Phase::Leaving && self.role == Role::Consumer {
            return self.leave(id, world);
        }
        if is_unrest && world.random.permille(world.options.unrest_permille) {
            self.unsubscribe_one(id, world);
        }
        for at in 0..self.subscribed.len() {
            let held = self.subscribed[at].held.len();
            if held == 0 || self.subscribed[at].is_over {
                continue;
            }
            if is_unrest {
                // Some stay with it for a while, or for ever.
                let count = world.random.below(4);
                (0..count).for_each(|_| self.answer_one(at, id, world));
            } else {
                (0..held).for_each(|_| self.answer_one(at, id, world));
            }
        }
    }

    fn unsubscribe_one(&mut self, id: ConnectionId, world: &mut World) {
        let at = world.random.below(self.subscribed.len() as u64) as usize;
        if self.subscribed[at].is_over {
            return self.subscribe_somewhere(id, world);
        }
        let promise = Promise::Unsubscribe(self.subscribed[at].session);
        let receipt = self.receipt(id, world, promise);
        let one = &mut self.subscribed[at];
        one.is_over = true;
        one.held.clear();
        world.ledger.end(one.session);
        let headers = [("id", one.id.clone()), ("receipt", receipt)];
        let headers = headers
            .each_ref()
            .map(|(key, value)| (*key, value.as_str()));
        self.say(id, world, "UNSUBSCRIBE", &headers, b"");
    }

    /// What an ACK of something that is held names: session, token and messages, which are not
    /// held any more.
    pub(crate) fn take_held(
        &mut self,
        world: &mut World,
    ) -> Option<(SessionId, String, Vec<Held>)> {
        let holders = self.subscribed.iter_mut();
        let mut holders = holders.filter(|one| !one.held.is_empty() && !one.is_over);
        let one = holders.next()?;
        let index = world.random.below(one.held.len() as u64) as usize;
        let settled: Vec<Held> = match one.mode {
            Mode::Client => one.held.drain(..=index).collect(),
            _ => one.held.remove(index).into_iter().collect(),
        };
        let token = settled.last()?.token.clone();
        Some((one.session, token, settled))
    }

    /// A transaction that acknowledged it was rolled back.
    pub(crate) fn hold_again(&mut self, session: SessionId, held: Held) {
        let mut holders = self.subscribed.iter_mut();
        let holder = holders.find(|one| one.session == session && !one.is_over);
        if let Some(one) = holder {
            let at = one.held.partition_point(|other| other.tag() < held.tag());
            one.held.insert(at, held);
        }
    }

    /// Sends an ACK, or now and then a NACK, for something that is held.
    fn answer_one(&mut self, at: usize, id: ConnectionId, world: &mut World) {
        let is_unrest = world.phase == Phase::Unrest;
        let one = &mut self.subscribed[at];
        if one.held.is_empty() {
            return;
        }
        let index = world.random.below(one.held.len() as u64) as usize;
        let session = one.session;
        let settled: Vec<Held> = match one.mode {
            Mode::Client => one.held.drain(..=index).collect(),
            _ => one.held.remove(index).into_iter().collect(),
        };
        let token = settled.last().expect("one at least").token.clone();
        if is_unrest && world.chance(12) {
            let released = settled.iter();
            released.for_each(|held| world.ledger.release(held.uid, session));
            return self.say(id, world, "NACK", &[("id", &token)], b"");
        }
        let named: Vec<_> = settled.iter().map(|held| (held.uid, held.name)).collect();
        for (uid, _) in &named {
            world.ledger.settle(*uid, session);
        }
        wire_of(id, world).acked.extend(&named);
        if is_unrest && world.chance(2) {
            return self.say(id, world, "ACK", &[("id", &token)], b"");
        }
        let receipt = self.receipt(id, world, Promise::Ack(named));
        self.say(
            id,
            world,
            "ACK",
            &[("id", &token), ("receipt", &receipt)],
            b"",
        );
    }

    /// A frame came.
    pub(crate) fn hear(&mut self, frame: &Frame, world: &mut World) {
        match frame.command.as_str() {
            "CONNECTED" => self.is_connected = true,
            "MESSAGE" => {
                let named = frame.header("subscription").unwrap_or_default();
                let found = self.subscribed.iter_mut().find(|one| one.id == named);
                let Some(one) = found.filter(|one| !one.is_over && one.mode != Mode::Auto) else {
                    return;
                };
                if world.ledger.session(one.session).to.is_topic {
                    return;
                }
                let uid = frame.header("uid").and_then(Uid::parse);
                one.held.push_back(Held {
                    uid: uid.expect("looked at when it left"),
                    token: frame.header("ack").expect("it is to be acked").to_owned(),
                    name: name_of(frame),
                });
            }
            _ => {}
        }
    }
}

fn wire_of(id: ConnectionId, world: &mut World) -> &mut Wire {
    world.wires.get_mut(&id).expect("the client is connected")
}

/// Whoever says that he leaves takes nothing more.
fn end_sessions(id: ConnectionId, world: &mut World) {
    let sessions: Vec<_> = wire_of(id, world).sessions.values().copied().collect();
    sessions.into_iter().for_each(|one| world.ledger.end(one));
}
