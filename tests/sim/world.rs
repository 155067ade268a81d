//! One run: virtual time, events in order, the node, the clients, the books.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use forebay::now::Now;
use forebay::shard::ConnectionId;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::storage::memory::{FileId, Random, Ticket};

use crate::client::Client;
use crate::faults::DiskFaults;
use crate::kinds::{Kind, Kinds, Player, Tried};
use crate::ledger::Ledger;
use crate::node::Node;
use crate::options::{Mutant, Options};
use crate::store::Store;
use crate::wire::Wire;

/// Longest that the calm may take to drain everything, in virtual microseconds.
const CALM_MAX_US: u64 = 120_000_000;
/// Quiet for this long is drained.
const QUIET_US: u64 = 300_000;
/// More events than this in one run: something spins.
const EVENTS_MAX: u64 = 3_000_000;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    Turn(usize),
    Written(usize, Ticket),
    /// Only tells; the write itself comes later (planted fault).
    ToldEarly(usize, forebay_journal::storage::WriteTicket),
    Read {
        shard: usize,
        chunk: u32,
        file: FileId,
        offset: u64,
        buffer: ReadBuffer,
    },
    Keep(usize),
    Inbound(ConnectionId),
    Outbound(ConnectionId),
    Sent(ConnectionId, Vec<u8>),
    Client(usize),
    Player(usize),
    Start,
    End,
    FullDisk(bool),
    Calm,
}

impl Event {
    /// Whether it outlives the node.
    const fn is_outside(&self) -> bool {
        matches!(
            self,
            Self::Client(_)
                | Self::Player(_)
                | Self::Start
                | Self::End
                | Self::FullDisk(_)
                | Self::Calm
        )
    }
}

#[derive(Debug)]
struct Scheduled {
    due_us: u64,
    order: u64,
    life: u32,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest: a heap gives that first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_us, other.order).cmp(&(self.due_us, self.order))
    }
}

/// The wall clock at a time of a run.
pub(crate) fn unix_ms(now_us: u64) -> u64 {
    1_700_000_000_000 + now_us / 1000
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Load and faults.
    Unrest,
    /// No faults; producers finish, everything is consumed.
    Calm,
    /// Listeners were checked; consumers say goodbye.
    Leaving,
    /// All is drained; after one more restart nothing may come.
    Empty,
}

/// Hash of all that happened, and the log if it is wanted.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) is_loud: bool,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) messages: u64,
    pub(crate) confirmed: u64,
    pub(crate) delivered: u64,
    pub(crate) redelivered: u64,
    pub(crate) settled: u64,
    /// Transactions whose commit was confirmed, and of those others that committed.
    pub(crate) commits: u64,
    pub(crate) unsure_commits: u64,
    /// Transactions that were prepared when the node ended.
    pub(crate) verdicts: u64,
    pub(crate) power_cuts: u64,
    pub(crate) failed_writes: u64,
    /// Writes that the disk did in part and that went on.
    pub(crate) short_writes: u64,
    pub(crate) failed_reads: u64,
    /// Messages that were refused because the disk was full.
    pub(crate) refused_by_disk: u64,
    /// Starts that a sector stopped, and those that did not need it.
    pub(crate) refused_starts: u64,
    pub(crate) harmless_sectors: u64,
    pub(crate) clean_stops: u64,
    pub(crate) blocks: u64,
    pub(crate) cold_reads: u64,
    /// Bytes of messages that were written anew.
    pub(crate) rewritten_bytes: u64,
    pub(crate) segments: u64,
    /// Segments that a restart found before those that it replayed.
    pub(crate) bodies: u64,
    pub(crate) parcels: u64,
    pub(crate) events: u64,
    pub(crate) virtual_us: u64,
    pub(crate) tried: Tried,
}

/// The run.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) mutant: Mutant,
    pub(crate) disk_faults: DiskFaults,
    /// Whether who takes a parcel rings its sender though the mailbox was not full: a shard gets
    /// turns then that the product does not give it, which hides who is not woken.
    pub(crate) is_ringing: bool,
    pub(crate) random: Random,
    pub(crate) now_us: u64,
    pub(crate) life: u32,
    order: u64,
    heap: BinaryHeap<Scheduled>,
    pub(crate) store: Store,
    pub(crate) node: Option<Node>,
    pub(crate) wires: BTreeMap<ConnectionId, Wire>,
    pub(crate) clients: Vec<Client>,
    pub(crate) ledger: Ledger,
    pub(crate) kinds: Kinds,
    /// None in the middle of a thought.
    pub(crate) players: Vec<Option<Player>>,
    pub(crate) phase: Phase,
    pub(crate) calm_since_us: u64,
    /// When anything left the broker or the clients last.
    pub(crate) busy_us: u64,
    pub(crate) next_producer: u32,
    pub(crate) messages_left: u32,
    /// Whether the node ended in order last.
    pub(crate) expects_clean: bool,
    pub(crate) trace: Trace,
    pub(crate) report: Report,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant, kinds: &[Kind], is_loud: bool) -> Self {
        let mut random = Random::new(seed);
        let options = Options::draw(&mut random);
        if is_loud {
            println!("seed {seed}: {kinds:?} {options:?}");
        }
        let (producers, consumers) = (options.producers, options.consumers);
        let clients = (0..producers)
            .map(|_| Client::producer())
            .chain((0..consumers).map(|_| Client::consumer()))
            .chain((0..options.queues).map(Client::drainer))
            .collect();
        let is_plain = kinds.is_empty();
        let (kinds, players) = Kinds::new(kinds, &mut Random::new(seed));
        Self {
            kinds,
            players: players.into_iter().map(Some).collect(),
            mutant,
            is_ringing: is_plain,
            disk_faults: DiskFaults::draw(seed),
            now_us: 1_000_000,
            life: 0,
            order: 0,
            heap: BinaryHeap::new(),
            store: Store::new(random.draw()),
            node: None,
            wires: BTreeMap::new(),
            clients,
            ledger: Ledger::default(),
            phase: Phase::Unrest,
            calm_since_us: 0,
            busy_us: 0,
            next_producer: 0,
            messages_left: options.messages,
            expects_clean: false,
            trace: Trace { hash: 0, is_loud },
            report: Report::default(),
            random,
            options,
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            monotonic_us: self.now_us,
            unix_ms: match self.mutant {
                Mutant::StoppedClock => unix_ms(0),
                Mutant::HastyClock => unix_ms(self.now_us) + 40,
                _ => unix_ms(self.now_us),
            },
        }
    }

    pub(crate) fn after(&mut self, delay_us: u64, event: Event) {
        self.order += 1;
        self.heap.push(Scheduled {
            due_us: self.now_us + delay_us,
            order: self.order,
            life: self.life,
            event,
        });
    }

    /// One in `of`.
    pub(crate) fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    pub(crate) fn note(&mut self, what: &'static str, first: u64, second: u64) {
        let mut hash = self.trace.hash ^ self.now_us;
        for part in [what.len() as u64, first, second] {
            hash = (hash ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            hash ^= hash >> 29;
        }
        self.trace.hash = hash;
        if self.trace.is_loud {
            println!(
                "{:>10} life {} {what:<12} {first:>6} {second}",
                self.now_us, self.life
            );
        }
    }

    /// Runs to the end.
    ///
    /// Panics: on the first broken promise.
    pub(crate) fn run(&mut self) -> Report {
        self.after(0, Event::Start);
        for client in 0..self.clients.len() {
            self.after(client as u64, Event::Client(client));
        }
        for player in 0..self.players.len() {
            self.after(player as u64, Event::Player(player));
        }
        let life_us = self.options.life_us;
        for end in 0..u64::from(self.options.ends) {
            let at_us = end * life_us + self.random.below(life_us);
            self.after(at_us, Event::End);
        }
        if self.options.has_full_disk {
            let from_us = self.random.below(life_us);
            self.after(from_us, Event::FullDisk(true));
            self.after(from_us + life_us, Event::FullDisk(false));
        }
        let calm_us = life_us * u64::from(self.options.ends + 1) + 1;
        self.after(calm_us, Event::Calm);
        while !self.is_done() {
            self.step();
        }
        self.report.hash = self.trace.hash;
        self.report.virtual_us = self.now_us;
        self.report.messages = self.ledger.messages.len() as u64;
        self.report.confirmed = self.ledger.confirmed;
        self.report.delivered = self.ledger.delivered;
        self.report.redelivered = self.ledger.redelivered;
        self.report.settled = self.ledger.settled;
        self.report.tried = self.kinds.tried;
        (self.report.commits, self.report.unsure_commits) = self.ledger.commits();
        self.report
    }

    fn step(&mut self) {
        self.report.events += 1;
        assert!(
            self.report.events < EVENTS_MAX,
            "it spins: {:?} {:?}",
            self.clients,
            self.wires
        );
        let Some(next) = self.heap.pop() else {
            panic!("nothing happens any more and clients wait");
        };
        self.now_us = next.due_us;
        let is_late = self.phase > Phase::Unrest && self.now_us > self.calm_since_us + CALM_MAX_US;
        assert!(
            !is_late,
            "not drained in time: {:?} {:?}",
            self.clients, self.wires
        );
        if next.life != self.life && !next.event.is_outside() {
            return;
        }
        match next.event {
            Event::Turn(shard) => self.turn(shard),
            Event::Written(shard, ticket) => self.written(shard, ticket),
            Event::ToldEarly(shard, ticket) => self.told_early(shard, ticket),
            Event::Read {
                shard,
                chunk,
                file,
                offset,
                buffer,
            } => self.read_back(shard, chunk, file, offset, buffer),
            Event::Keep(shard) => self.keep(shard),
            Event::Inbound(id) => self.inbound(id),
            Event::Outbound(id) => self.outbound(id),
            Event::Sent(id, buffer) => self.sent(id, buffer, true),
            Event::Client(client) => self.think(client),
            Event::Player(player) => self.think_player(player),
            Event::Start => self.start(),
            Event::End => self.end_somehow(),
            Event::FullDisk(is_full) => self.set_full(is_full),
            Event::Calm => self.calm(),
        }
    }

    fn think(&mut self, index: usize) {
        let mut client = std::mem::take(&mut self.clients[index]);
        let next_us = client.think(index, self);
        self.clients[index] = client;
        self.after(next_us, Event::Client(index));
    }

    fn set_full(&mut self, is_full: bool) {
        let is_full = is_full && self.phase == Phase::Unrest;
        let used: u64 = self.store.disk.files().map(|(.., size)| size).sum();
        let capacity = if is_full { used } else { u64::MAX };
        self.store.disk.set_capacity(capacity);
        self.note("full disk", is_full.into(), used);
    }

    fn calm(&mut self) {
        self.phase = Phase::Calm;
        self.calm_since_us = self.now_us;
        self.busy_us = self.now_us;
        self.set_full(false);
        self.note("calm", 0, 0);
    }

    /// Goes through the phases of the calm; true at the end of the last.
    fn is_done(&mut self) -> bool {
        let is_quiet = self.now_us > self.busy_us + QUIET_US && self.node.is_some();
        if !is_quiet || self.phase == Phase::Unrest {
            return false;
        }
        if !self.clients.iter().all(|client| client.is_finished(self)) || !self.are_kinds_finished()
        {
            return false;
        }
        self.busy_us = self.now_us;
        match self.phase {
            Phase::Unrest => {}
            Phase::Calm => {
                self.ledger.check_topics();
                self.phase = Phase::Leaving;
            }
            Phase::Leaving => {
                self.ledger.check_end();
                self.kinds.check_end();
                self.phase = Phase::Empty;
                self.note("drained", 0, 0);
                let is_clean = self.chance(2);
                if is_clean {
                    self.stop();
                } else {
                    self.cut_power();
                }
            }
            // What the drainers settled with receipts must not come back: the ledger looks.
            Phase::Empty => return true,
        }
        false
    }
}
