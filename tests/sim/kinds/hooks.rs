//! Where the kinds look on: what their clients send and what leaves the broker for them.

use forebay::shard::ConnectionId;

use crate::frame::Frame;
use crate::kinds::player::{Role, seat_of, wire_of};
use crate::kinds::{Facts, Kind, Kinds, Player, ShelfId, durable, gathered, replaced};
use crate::ledger::{Departure, SessionId, Uid};
use crate::network::{NOTE, name_of};
use crate::options::Mutant;
use crate::world::{Event, Phase, World, unix_ms};

/// Clients of kinds are numbered from here on.
const PLAYER: usize = 1 << 16;
/// Longest that the calm may take until all that was promised has come.
const DRAINED_US: u64 = 20_000_000;

/// A message that somebody takes: its queue, and its name in the broker.
pub(crate) type Taken = (ShelfId, Uid, (u16, u64));

/// What a receipt promises.
#[derive(Clone, Debug)]
pub(crate) enum Promise {
    Send(Uid),
    Subscribe(ShelfId, SessionId),
    /// Whether it deletes a durable subscription.
    Unsubscribe(ShelfId, SessionId, bool),
    Ack(Taken),
    /// With the count of its deliveries, and whether it is refused for good.
    Nack(ShelfId, Uid, usize, bool),
    /// All that the connection sent.
    Goodbye,
}

impl Player {
    /// Sends the next message, or one once more.
    pub(super) fn send_one(&mut self, id: ConnectionId, world: &mut World) {
        let now_us = world.now_us;
        let again = match self.kind {
            Kind::Duplicates => self.choose_again(world),
            _ => None,
        };
        let uid = again.unwrap_or_else(|| {
            self.number += 1;
            let uid = Uid(self.producer, self.number);
            let size = match world.chance(30) {
                true => 5_000 + world.random.below(60_000),
                false => world.random.below(400),
            };
            // What is lost with the process would not be known when it is sent again.
            let is_persistent = match self.kind {
                Kind::Duplicates => true,
                // Settled without a write, they wake nobody but whom they have to.
                Kind::Blocking => world.chance(2),
                _ => !world.chance(6),
            };
            let size = if is_persistent { size } else { size % 200 };
            let mut facts = Facts {
                size: size as usize,
                is_persistent,
                sent_us: now_us,
                ..Facts::default()
            };
            facts.choose(self.kind, world);
            world.kinds.send(self.kind, uid, facts);
            self.sent.push(uid);
            uid
        });
        let facts = world.kinds.facts.get_mut(&uid).expect("sent just now");
        facts.sends += 1;
        let facts = *facts;
        let shelf = world.kinds.shelves_of(self.kind)[0];
        let destination = world.kinds.shelves[shelf].destination_of(&facts);
        let mut headers = vec![
            ("destination", destination),
            ("uid", uid.to_string()),
            ("note", NOTE.to_owned()),
            ("kind", self.kind.address().to_owned()),
            ("persistent", facts.is_persistent.to_string()),
            ("content-length", facts.size.to_string()),
        ];
        headers.extend(facts.headers(self.kind, uid, now_us));
        wire_of(id, world).sent.push(uid);
        if !world.chance(8) {
            let receipt = self.receipt(id, world, Promise::Send(uid));
            headers.push(("receipt", receipt));
        }
        let headers: Vec<_> = headers
            .iter()
            .map(|(key, value)| (*key, &**value))
            .collect();
        self.say(id, world, "SEND", &headers, &uid.body(facts.size, false));
    }
}

impl Facts {
    /// What is special about a message of the kind.
    fn choose(&mut self, kind: Kind, world: &mut World) {
        match kind {
            Kind::Expiry => self.choose_end(world),
            Kind::Scheduled => self.choose_begin(world),
            Kind::Priorities => self.priority = world.random.below(10) as u8,
            Kind::Durable => self.topic = world.random.below(2) as usize,
            Kind::Gathered => {
                self.topic = world.random.below(gathered::QUEUES.len() as u64) as usize
            }
            Kind::LastValue => self.key = world.random.below(3) as u8,
            Kind::Groups => self.group = (!world.chance(6)).then(|| world.random.below(4) as u8),
            _ => {}
        }
    }

    fn headers(&self, kind: Kind, uid: Uid, now_us: u64) -> Vec<(&'static str, String)> {
        match kind {
            Kind::Expiry if self.expires_ms > 0 => vec![("expires", self.expires_ms.to_string())],
            Kind::Scheduled => self.schedule(now_us),
            Kind::Duplicates => vec![("_AMQ_DUPL_ID", format!("id {uid}"))],
            Kind::LastValue => vec![(replaced::KEY, self.key.to_string())],
            Kind::Priorities => vec![("priority", self.priority.to_string())],
            Kind::Groups => {
                let group = self.group.map(|group| format!("group {group}"));
                group
                    .map(|name| ("JMSXGroupID", name))
                    .into_iter()
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Kinds {
    /// A sender writes a message.
    fn send(&mut self, kind: Kind, uid: Uid, facts: Facts) {
        self.facts.insert(uid, facts);
        for shelf in self.shelves_of(kind) {
            let shelf = &mut self.shelves[shelf];
            if !shelf.matches(&facts) {
                continue;
            }
            shelf.send(uid, &facts);
            shelf.subscription.note_sent(uid);
        }
    }

    /// Whether the message was settled, or may have been, wherever it is.
    fn is_taken(&self, shelf: ShelfId, uid: Uid) -> bool {
        let landing = self.landing_of(shelf);
        let mut places = [Some(shelf), landing].into_iter().flatten();
        places.any(|place| self.shelves[place].ledger.is_taken(uid))
    }

    /// Whether the message need not be anywhere any more.
    fn is_gone(&self, at: ShelfId, uid: Uid) -> bool {
        let shelf = &self.shelves[at];
        let is_past = shelf.is_past(&shelf.ledger.messages[&uid], shelf.ledger.life);
        is_past || self.is_taken(at, uid) || self.may_be_replaced(at, uid)
    }

    /// Where messages of this queue go by themselves.
    pub(super) fn landing_of(&self, shelf: ShelfId) -> Option<ShelfId> {
        let next = self.shelves.get(shelf + 1)?;
        let kind = self.shelves[shelf].kind;
        (next.kind == kind && next.is_landing).then_some(shelf + 1)
    }

    /// The first message that was promised and that nobody took.
    fn missing(&self) -> Option<String> {
        for (at, shelf) in self.shelves.iter().enumerate() {
            for (uid, message) in &shelf.ledger.messages {
                if message.is_confirmed && !self.is_gone(at, *uid) {
                    let facts = self.facts[uid];
                    return Some(format!("{uid} of {}: {message:?} {facts:?}", shelf.address));
                }
            }
        }
        None
    }

    /// A node starts: what was promised and nobody took is on the disk.
    pub(crate) fn check_start(&self, has_message: impl Fn(Uid) -> bool) {
        for (at, shelf) in self.shelves.iter().enumerate() {
            for (uid, message) in &shelf.ledger.messages {
                assert!(
                    !message.is_confirmed
                        || !message.is_persistent
                        || self.is_gone(at, *uid)
                        || has_message(*uid),
                    "{uid} of {} was confirmed and recovery does not find it: {message:?}",
                    shelf.address
                );
            }
        }
    }

    /// All was drained: nothing promised may be missing, nor be in two places.
    pub(crate) fn check_end(&mut self) {
        self.count_replaced();
        let missing = self.missing();
        assert!(missing.is_none(), "confirmed and lost: {missing:?}");
    }

    /// The node ended.
    pub(crate) fn end_life(&mut self) {
        for shelf in &mut self.shelves {
            shelf.ledger.end_life();
            shelf.owners.clear();
        }
    }
}

impl World {
    pub(crate) fn player_of(client: usize) -> Option<usize> {
        client.checked_sub(PLAYER)
    }

    pub(crate) fn connect_player(&mut self, index: usize) -> ConnectionId {
        self.connect(PLAYER + index)
    }

    pub(crate) fn think_player(&mut self, index: usize) {
        let Some(mut player) = self.players[index].take() else {
            return;
        };
        let next_us = player.think(index, self);
        self.players[index] = Some(player);
        self.after(next_us, Event::Player(index));
    }

    /// Somebody's connection is gone.
    pub(crate) fn lose_client(&mut self, client: usize) {
        match Self::player_of(client) {
            None => self.clients[client].lose(),
            Some(index) => {
                let player = self.players[index].as_mut();
                player.expect("not in the middle of a thought").lose();
            }
        }
    }

    pub(crate) fn hear_player(&mut self, index: usize, frame: &Frame) {
        if let Some(mut player) = self.players[index].take() {
            player.hear(frame, self);
            self.players[index] = Some(player);
        }
    }

    /// Whether the clients of the kinds are done, and all that was promised has come or will not.
    pub(crate) fn are_kinds_finished(&self) -> bool {
        let mut players = self.players.iter().flatten();
        let is_late = self.now_us > self.calm_since_us + DRAINED_US;
        players.all(|player| player.is_finished(self))
            && (is_late || self.phase > Phase::Calm || self.kinds.missing().is_none())
    }

    /// Sessions of the connection end: its client says so, or breaks it.
    pub(crate) fn end_seats(&mut self, id: ConnectionId, is_failure: bool) {
        let Some(wire) = self.wires.get(&id) else {
            return;
        };
        for (shelf, session) in wire.seats.clone() {
            let shelf = &mut self.kinds.shelves[shelf];
            shelf.end(session, is_failure, self.now_us, self.life);
        }
    }

    /// The connection is closed; another shard that has the queue hears of it later.
    pub(crate) fn close_seats(&mut self, seats: &[(ShelfId, SessionId)], is_failure: bool) {
        for (shelf, session) in seats {
            let shelf = &mut self.kinds.shelves[*shelf];
            shelf.end(*session, is_failure, self.now_us, self.life);
            if self.options.shards == 1 {
                shelf.ledger.gone(*session);
            }
        }
    }

    /// Planted: what the broker hears is not what was said.
    pub(crate) fn twist_headers<'a>(
        &self,
        command: &str,
        headers: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        let mut headers = headers.to_vec();
        headers.retain(|(key, _)| match self.mutant {
            Mutant::ForgottenDeletion => command != "UNSUBSCRIBE" || *key != durable::HEADER,
            Mutant::FlatPriorities => *key != "priority",
            Mutant::ForgottenKeys => *key != replaced::KEY,
            Mutant::ForgottenGroups => *key != "JMSXGroupID",
            _ => true,
        });
        for (_, destination) in headers.iter_mut().filter(|(key, _)| *key == "destination") {
            *destination = gathered::heard(destination, self.mutant);
        }
        headers
    }

    /// The head of a message leaves.
    pub(crate) fn depart_kind(&mut self, id: ConnectionId, frame: &Frame) {
        let (at, session) = seat_of(frame);
        let uid = frame.header("uid").and_then(Uid::parse);
        let uid = uid.filter(|uid| self.kinds.facts.contains_key(uid));
        let uid = uid.unwrap_or_else(|| panic!("invented: {frame:?}"));
        let destination = self.kinds.shelves[at].destination_of(&self.kinds.facts[&uid]);
        assert_eq!(frame.header("destination"), Some(&*destination), "{uid}");
        assert_eq!(frame.header("note"), Some(NOTE), "{uid}: its own header");
        let (shard, message) = name_of(frame);
        let count = frame.header("delivery-count");
        let one = Departure {
            uid,
            session,
            is_redelivered: frame.header("redelivered") == Some("true"),
            count: count.map_or(1, |count| count.parse().expect("a number")),
        };
        let node = self.node.as_ref().expect("it sends");
        let witness = &node.shards[usize::from(shard)].witness;
        let known = witness.deliveries_of(message);
        let name = u64::from(uid.0) << 32 | u64::from(uid.1);
        self.note("deliver kind", name, one.count as u64);
        if self.trace.is_loud {
            println!("{:>10} deliver {uid} {one:?} to {}", self.now_us, id.0);
        }
        let (now_ms, life) = (unix_ms(self.now_us), self.life);
        let failures = self.deliveries_of_origin(frame);
        let kinds = &mut self.kinds;
        if kinds.shelves[at].is_live(session) {
            match kinds.shelves[at].kind {
                Kind::Durable => kinds.check_subscription(at, one),
                Kind::Dead => {
                    kinds.check_dead(at, one, (frame, failures), (now_ms, life));
                }
                Kind::Expiry => kinds.check_expiry(at, one, now_ms),
                Kind::Scheduled => kinds.check_schedule(one, now_ms),
                Kind::Priorities => kinds.check_priority(at, one),
                Kind::Groups => kinds.check_group(at, one),
                Kind::Ring | Kind::LastValue => kinds.check_replaced(at, one),
                Kind::Gathered => kinds.note_gathered(at, one),
                Kind::Duplicates | Kind::Blocking | Kind::Failing => {}
            }
        }
        kinds.shelves[at].depart(one, known, life);
    }

    /// How often the disk knows a dead letter as delivered where it came from; none if it does not
    /// hold it any more.
    fn deliveries_of_origin(&self, frame: &Frame) -> Option<usize> {
        let name = frame.header("_AMQ_ORIG_MESSAGE_ID")?;
        let (shard, message) = name.split_once('-').expect("two numbers");
        let shard: usize = shard.parse().expect("a number");
        let node = self.node.as_ref().expect("it sends");
        let witness = &node.shards[shard].witness;
        witness.deliveries_of(message.parse().expect("a number"))
    }

    /// A whole message left.
    pub(crate) fn arrive_kind(&mut self, frame: &Frame) {
        let (at, session) = seat_of(frame);
        let uid = frame.header("uid").and_then(Uid::parse);
        let uid = uid.expect("looked at with its head");
        let ledger = &mut self.kinds.shelves[at].ledger;
        ledger.arrive(uid, session, &frame.body);
    }

    /// An ERROR leaves for a client of a kind; whether that may be.
    pub(crate) fn is_error_due(&mut self, index: usize, id: ConnectionId) -> bool {
        let player = self.players[index].as_ref();
        let Some((kind, role)) = player.map(|player| (player.kind, player.role)) else {
            return false;
        };
        match (kind, role) {
            (Kind::Durable, Role::Taker(shelf)) => {
                let seats = &self.wires[&id].seats;
                self.kinds.may_be_refused(shelf, seats)
            }
            (Kind::Failing, Role::Sender) => {
                let shelf = self.kinds.shelves_of(kind)[0];
                self.kinds.check_refused(shelf);
                true
            }
            _ => false,
        }
    }

    fn confirm_kind(&mut self, uid: Uid) {
        let node = self.node.as_ref().expect("it sends");
        let mut shards = node.shards.iter();
        let is_on_disk = shards.any(|bound| bound.witness.has_message(uid));
        let (now_us, kinds) = (self.now_us, &mut self.kinds);
        kinds.note_confirmed_again(uid);
        let facts = kinds.facts.get_mut(&uid).expect("sent before");
        facts.confirmed_us.get_or_insert(now_us);
        for at in 0..kinds.shelves.len() {
            let shelf = &kinds.shelves[at];
            let is_here = shelf.copies.contains_key(&uid) && !shelf.is_landing;
            let is_due = shelf.kind != Kind::Durable || shelf.subscription.is_due(uid);
            if !is_here || !is_due {
                continue;
            }
            // What was taken meanwhile need not be anywhere.
            let is_on_disk = is_on_disk || kinds.is_taken(at, uid);
            kinds.shelves[at].ledger.confirm(uid, is_on_disk);
            kinds.check_fullness(at);
        }
    }

    fn settle_kind(&mut self, (at, uid, (shard, message)): Taken) {
        let node = self.node.as_ref().expect("it sends");
        let is_on_disk = node.shards[usize::from(shard)].witness.has_settled(message);
        self.kinds.check_taken_once(at, uid);
        self.kinds.shelves[at].ledger.settled(uid, is_on_disk);
    }

    /// A receipt left.
    pub(crate) fn keep_kind(&mut self, id: ConnectionId, promise: Promise) {
        match promise {
            Promise::Send(uid) => self.confirm_kind(uid),
            Promise::Subscribe(shelf, session) => {
                let now_us = self.now_us;
                self.kinds.shelves[shelf].ledger.subscribed(session);
                self.kinds.note_subscribed(shelf, session, now_us);
            }
            Promise::Unsubscribe(shelf, session, deletes) => {
                self.kinds.shelves[shelf].ledger.gone(session);
                if deletes {
                    self.kinds.note_deleted(shelf);
                }
            }
            Promise::Ack(taken) => self.settle_kind(taken),
            Promise::Nack(shelf, uid, count, is_for_good) => {
                self.kinds.note_refused(shelf, uid, count, is_for_good);
            }
            Promise::Goodbye => {
                let wire = &self.wires[&id];
                let (sent, taken) = (wire.sent.clone(), wire.taken.clone());
                sent.into_iter().for_each(|uid| self.confirm_kind(uid));
                taken.into_iter().for_each(|one| self.settle_kind(one));
            }
        }
    }
}
