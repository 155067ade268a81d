//! Three nodes, one folder, and time that a seed chooses.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use forebay_journal::format::{Incarnation, NodeName, Role};
use forebay_journal::lease::{Lease, LeaseConfig, LockState, Profile};
use forebay_journal::{Epoch, JournalId};

use super::faults::Faults;
use super::folder::{Folder, SHARDS, SLOTS};
use super::ledger::Ledger;
use super::mutant::Mutant;
use super::op::{Kind, Op, Waiter};
use super::process::{Clock, Process};
use super::rng::Rng;

pub(crate) const JOURNAL: JournalId = JournalId([3; 16]);
pub(crate) const HOSTS: usize = 3;
/// How long things go wrong, and how long they then go well.
const CHAOS_US: u64 = 40_000_000;
const HEALED_US: u64 = 25_000_000;
/// Towards the end of which something has to be acknowledged.
const LAST_US: u64 = 6_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Piece(u64, usize),
    Answer(u64),
    Wake(usize),
    Load(usize),
    Resume(usize),
    Start(usize),
    Nemesis,
    Heal,
    Rot(Epoch),
}

impl Event {
    fn word(self) -> u64 {
        let (kind, of) = match self {
            Self::Piece(op, piece) => (0, op * 8 + piece as u64),
            Self::Answer(op) => (1, op),
            Self::Wake(pid) => (2, pid as u64),
            Self::Load(pid) => (3, pid as u64),
            Self::Resume(pid) => (4, pid as u64),
            Self::Start(host) => (5, host as u64),
            Self::Nemesis => (6, 0),
            Self::Heal => (7, 0),
            Self::Rot(epoch) => (8, epoch.get()),
        };
        (kind << 56) | of
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Kinds of what was told.
    pub(crate) reached: BTreeSet<String>,
    pub(crate) trace: u64,
    pub(crate) steps: u64,
    pub(crate) acks: u64,
    pub(crate) takeovers: u64,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now_us: u64,
    serial: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pub(crate) folder: Folder,
    pub(crate) processes: Vec<Process>,
    pub(crate) running: [Option<usize>; HOSTS],
    pub(crate) clocks: [Clock; HOSTS],
    pub(crate) ops: BTreeMap<u64, Op>,
    pub(crate) ledger: Ledger,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) faults: Faults,
    /// Who has the group's lock.
    pub(crate) lock: Option<usize>,
    pub(crate) is_healed: bool,
    acks_before_last: Option<u64>,
    pub(crate) report: Report,
    pub(crate) is_loud: bool,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, is_loud: bool) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let faults = Faults::draw(&mut rng, mutant);
        let clock = Clock {
            at_us: 0,
            local_us: 1_000_000,
            percent: 100,
        };
        let mut world = Self {
            rng,
            now_us: 0,
            serial: 0,
            queue: BinaryHeap::new(),
            folder: Folder::new(),
            processes: Vec::new(),
            running: [None; HOSTS],
            clocks: [clock; HOSTS],
            ops: BTreeMap::new(),
            ledger: Ledger::default(),
            mutant,
            faults,
            lock: None,
            is_healed: false,
            acks_before_last: None,
            report: Report::default(),
            is_loud,
        };
        for host in 0..HOSTS {
            let at_us = world.rng.below(400_000);
            world.at(at_us, Event::Start(host));
        }
        world.at(1_000_000, Event::Nemesis);
        world.at(CHAOS_US, Event::Heal);
        world
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn at(&mut self, at_us: u64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((at_us, self.serial, event)));
    }

    pub(crate) fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }

    /// Runs to the end. Panics: if something does not hold.
    pub(crate) fn run(mut self) -> Report {
        let end_us = CHAOS_US + HEALED_US;
        while let Some(Reverse((at_us, serial, event))) = self.queue.pop() {
            if at_us > end_us {
                break;
            }
            self.now_us = at_us;
            if at_us > end_us - LAST_US {
                self.acks_before_last.get_or_insert(self.ledger.acks);
            }
            self.report.steps += 1;
            let word = at_us.wrapping_mul(0x9e37_79b9) ^ serial ^ event.word();
            let trace = self.report.trace.rotate_left(7) ^ word;
            self.report.trace = trace.wrapping_mul(0x0100_0193);
            self.happen(event);
        }
        self.check_end();
        self.report.acks = self.ledger.acks;
        self.report.takeovers = self.ledger.takeovers;
        self.report
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Piece(op, piece) => self.piece(op, piece),
            Event::Answer(op) => self.answer(op),
            Event::Wake(pid) => {
                if self.processes[pid]
                    .wake_us
                    .is_some_and(|at| at <= self.now_us)
                {
                    self.processes[pid].wake_us = None;
                    self.step(pid);
                }
            }
            Event::Load(pid) => self.load(pid),
            Event::Resume(pid) => {
                self.processes[pid].is_paused = false;
                self.step(pid);
            }
            Event::Start(host) => self.start(host),
            Event::Nemesis if !self.is_healed => {
                let pause_us = 50_000 + self.rng.below(1_500_000);
                self.strike();
                self.after(pause_us, Event::Nemesis);
            }
            Event::Nemesis => {}
            Event::Heal => self.heal(),
            Event::Rot(epoch) => self.rot_fence(epoch),
        }
    }

    fn check_end(&self) {
        let before = self.acks_before_last.unwrap_or(0);
        let words = "nobody acknowledges though all is well";
        assert!(self.ledger.acks > before, "{words}: {:?}", self.running);
        let is_shared = self.is(Mutant::SpaceShared);
        self.ledger.check_disk(|epoch, shard, lsn| {
            let key = if is_shared {
                super::folder::ONE_SPACE
            } else {
                epoch
            };
            let blocks = self
                .folder
                .blocks
                .range((key, shard, 0)..=(key, shard, u64::MAX));
            blocks
                .map(|(_, block)| block)
                .find(|block| block.lsn == lsn)
                .map(|block| block.identity)
        });
    }

    pub(crate) fn start(&mut self, host: usize) {
        if self.running[host].is_some() {
            return;
        }
        self.start_as(host, host);
        self.running[host] = Some(self.processes.len() - 1);
    }

    /// Starts a process with the name of another host's node.
    pub(crate) fn start_as(&mut self, host: usize, name_of: usize) {
        let pid = self.processes.len();
        let name = NodeName::new(["a", "b", "c"][name_of]).expect("a name");
        let is_in_use =
            (0..pid).any(|other| self.name_of(other) == name_of && self.is_there(other));
        let is_slow = self.is(Mutant::TimesDiffer) && name_of == 0;
        let config = LeaseConfig {
            journal: JOURNAL,
            name,
            incarnation: Incarnation(core::array::from_fn(|_| self.rng.next() as u8)),
            role: if name_of == 0 {
                Role::Primary
            } else {
                Role::Backup
            },
            slot_count: SLOTS,
            shard_count: SHARDS,
            timing: if is_slow {
                Profile::San.timing()
            } else {
                Profile::Fast.timing()
            },
            is_failback_allowed: self.faults.has_failback,
            failback_delay_us: 3_000_000,
            is_name_locked: self.faults.lock_works && !is_in_use && host == name_of,
        };
        let incarnation = config.incarnation;
        let now_us = self.clocks[host].local(self.now_us);
        self.processes.push(Process {
            host,
            name_of,
            incarnation,
            lease: Lease::new(config, now_us),
            epoch: Epoch::ZERO,
            shards: Vec::new(),
            is_alive: true,
            is_paused: false,
            is_draining: false,
            inbox: VecDeque::new(),
            fails_next: false,
            stall_us: 0,
            wake_us: None,
            looked_us: 0,
            why: None,
            kept_fence: None,
            kept_blocks: BTreeMap::new(),
        });
        self.say(pid, "starts");
        self.step(pid);
    }

    fn name_of(&self, pid: usize) -> usize {
        self.processes[pid].name_of
    }

    /// Alive, or something of it is under way.
    pub(crate) fn is_there(&self, pid: usize) -> bool {
        self.processes[pid].is_alive || self.ops.values().any(|op| op.pid == pid)
    }

    /// What the group's lock says to this process.
    pub(crate) fn ask_lock(&mut self, pid: usize, is_take: bool) -> LockState {
        if !self.faults.lock_works {
            // Where each host has a lock of its own, it is free for all.
            let is_local = self.faults.lock_says == LockState::Taken && !is_take;
            let says = self.faults.lock_says;
            return if is_local { LockState::Free } else { says };
        }
        // It is free only when all I/O of its holder is over.
        if self.lock.is_some_and(|holder| !self.is_there(holder)) {
            self.lock = None;
        }
        match self.lock {
            Some(holder) if holder != pid => LockState::Busy,
            _ if is_take => {
                self.lock = Some(pid);
                LockState::Taken
            }
            _ => LockState::Free,
        }
    }

    pub(crate) fn say(&self, pid: usize, words: impl std::fmt::Display) {
        if self.is_loud {
            let name = ["a", "b", "c"][self.name_of(pid)];
            println!("{:>10} {name}{pid}: {words}", self.now_us);
        }
    }

    /// Something begins. Its pieces land, or are looked at, each at a moment of its own.
    pub(crate) fn submit(&mut self, pid: usize, waiter: Option<Waiter>, kind: Kind) {
        let mut op = Op::new(pid, waiter, kind);
        let process = &mut self.processes[pid];
        op.is_failed = core::mem::take(&mut process.fails_next);
        op.is_dropped = op.is_failed && self.rng.once_in(2);
        let count = if matches!(op.kind, Kind::WriteBlock { .. }) {
            40
        } else {
            200
        };
        let late_us = process.stall_us + self.faults.late_us(count, &mut self.rng);
        self.serial += 1;
        let (id, pieces) = (self.serial, op.left);
        self.ops.insert(id, op);
        for piece in 0..pieces {
            let delay_us = 20 + self.rng.below(400) + late_us;
            self.after(delay_us, Event::Piece(id, piece));
        }
    }

    fn piece(&mut self, id: u64, piece: usize) {
        let Some(op) = self.ops.get_mut(&id) else {
            return;
        };
        if self.now_us < op.held_until_us {
            let at_us = op.held_until_us + piece as u64;
            return self.at(at_us, Event::Piece(id, piece));
        }
        if let Kind::Scan(scan) = &mut op.kind {
            let is_of_before = self.mutant == Some(Mutant::ScanOfBefore);
            let kept = &self.processes[op.pid].kept_blocks;
            let blocks = if is_of_before {
                kept
            } else {
                &self.folder.blocks
            };
            if !scan.step(blocks) {
                let delay_us = 10 + self.rng.below(2_000);
                return self.after(delay_us, Event::Piece(id, piece));
            }
        }
        op.land(piece, &mut self.folder, self.now_us);
        op.left -= 1;
        let shut = match op.kind {
            Kind::WriteClaim {
                epoch, offset: 0, ..
            } => Some(epoch),
            _ => None,
        };
        if op.left == 0 {
            let delay_us = 5 + self.rng.below(200);
            self.after(delay_us, Event::Answer(id));
        }
        if let Some(epoch) = shut
            && self.faults.has_rot
            && !self.is_healed
            && self.rng.once_in(8)
        {
            // What was just written to shut a fence rots a little later.
            let delay_us = self.rng.below(3_000);
            self.after(delay_us, Event::Rot(epoch));
        }
    }

    fn answer(&mut self, id: u64) {
        let op = self.ops.remove(&id).expect("under way");
        let pid = op.pid;
        if self.processes[pid].is_alive && op.waiter.is_some() {
            self.processes[pid].inbox.push_back(op);
            self.step(pid);
        }
    }
}
