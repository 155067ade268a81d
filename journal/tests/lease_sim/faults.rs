//! What goes wrong, by seed: each seed draws some kinds, so that none hides another.

use forebay_journal::Epoch;
use forebay_journal::format::{Next, SlotId};
use forebay_journal::lease::LockState;

use super::folder::{SECTOR, SLOTS};
use super::mutant::Mutant;
use super::rng::Rng;
use super::world::{Event, HOSTS, World};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) has_pauses: bool,
    pub(crate) has_kills: bool,
    pub(crate) has_clocks: bool,
    pub(crate) has_stalls: bool,
    pub(crate) has_late_writes: bool,
    pub(crate) has_failures: bool,
    pub(crate) has_rot: bool,
    pub(crate) has_twins: bool,
    pub(crate) has_orders: bool,
    pub(crate) has_failback: bool,
    pub(crate) lock_works: bool,
    /// What one says that does not.
    pub(crate) lock_says: LockState,
}

impl Faults {
    pub(crate) fn draw(rng: &mut Rng, mutant: Option<Mutant>) -> Self {
        let mut likely = |count: u64| !rng.once_in(count);
        let has_clocks = likely(2) && mutant != Some(Mutant::TimesDiffer);
        Self {
            has_pauses: likely(3),
            has_kills: likely(3),
            has_clocks,
            has_stalls: likely(2),
            has_late_writes: likely(2),
            has_failures: likely(2),
            has_rot: likely(2),
            has_twins: likely(2) && likely(2),
            has_orders: likely(2),
            has_failback: likely(2),
            lock_works: likely(3),
            lock_says: *rng.pick(&[LockState::Unsupported, LockState::Taken, LockState::Busy]),
        }
    }

    /// How much later than usual something lands, once in so many times.
    pub(crate) fn late_us(&self, count: u64, rng: &mut Rng) -> u64 {
        if self.has_late_writes && rng.once_in(count) {
            rng.below(4_000_000)
        } else {
            0
        }
    }
}

impl World {
    /// Something goes wrong, if this seed has it.
    pub(crate) fn strike(&mut self) {
        let Some(pid) = *self.rng.pick(&self.running.clone()) else {
            return;
        };
        let faults = self.faults;
        match self.rng.below(12) {
            0 | 1 if faults.has_pauses => self.pause(pid),
            2 if faults.has_kills => self.kill(pid),
            3 if faults.has_clocks => self.bend_clock(pid),
            4 if faults.has_stalls => {
                let stall_us = self.rng.below(3_500_000);
                self.processes[pid].stall_us = stall_us;
                self.say(pid, format_args!("its I/O takes {stall_us} longer"));
            }
            5 if faults.has_stalls => self.processes[pid].stall_us = 0,
            6 if faults.has_failures => self.processes[pid].fails_next = true,
            7 if faults.has_rot => self.rot(),
            8 if faults.has_twins => {
                let host = self.rng.below(HOSTS as u64) as usize;
                let name_of = self.processes[pid].name_of;
                if host != name_of {
                    self.start_as(host, name_of);
                }
            }
            9 if faults.has_orders => self.order(pid),
            10 if faults.has_orders => self.hand_over(pid),
            11 if faults.has_orders => self.stop(pid),
            _ => {}
        }
    }

    fn pause(&mut self, pid: usize) {
        let pause_us = self.rng.below(6_000_000);
        self.processes[pid].is_paused = true;
        self.say(pid, format_args!("pauses for {pause_us}"));
        self.after(pause_us, Event::Resume(pid));
    }

    /// It is gone at once; what it had under way lands in time, late, in part, or never.
    pub(crate) fn kill(&mut self, pid: usize) {
        if !self.processes[pid].is_alive {
            return;
        }
        self.say(pid, "is killed");
        self.bury(pid);
        let now_us = self.now_us;
        let mut rng = self.rng.clone();
        for op in self
            .ops
            .values_mut()
            .filter(|op| op.pid == pid && op.is_write())
        {
            match rng.below(6) {
                0 => op.is_dropped = true,
                1 => op.torn_at = Some(rng.below(8) as usize * 512),
                2 | 3 => op.held_until_us = now_us + rng.below(9_000_000),
                _ => {}
            }
        }
        self.rng = rng;
    }

    /// It does nothing more. Its host starts another one.
    pub(crate) fn bury(&mut self, pid: usize) {
        self.processes[pid].is_alive = false;
        let host = self.processes[pid].host;
        if self.running[host] == Some(pid) {
            self.running[host] = None;
            let delay_us = 50_000 + self.rng.below(2_000_000);
            self.after(delay_us, Event::Start(host));
        }
    }

    fn bend_clock(&mut self, pid: usize) {
        let percent = *self.rng.pick(&[0, 10, 50, 90, 100, 100, 110, 200, 1_000]);
        let jump_us = if self.rng.once_in(2) {
            self.rng.below(5_000_000)
        } else {
            0
        };
        let host = self.processes[pid].host;
        self.clocks[host].set(self.now_us, percent, jump_us);
        self.say(
            pid,
            format_args!("its clock runs at {percent} % and jumps by {jump_us}"),
        );
        self.wake_host(host);
    }

    /// A sector of a slot, or of a fence, rots.
    fn rot(&mut self) {
        let at = self.rng.below(SECTOR as u64) as usize;
        if self.rng.once_in(3) {
            let fences: Vec<_> = self.folder.claims.keys().rev().take(3).copied().collect();
            if !fences.is_empty() {
                let epoch = *self.rng.pick(&fences);
                self.rot_fence(epoch);
            }
            return;
        }
        let slot = self.rng.below(u64::from(SLOTS)) as u16;
        for copy in 0..=self.rng.below(2) as usize {
            self.folder.slot(slot, copy)[at] ^= 0x40;
        }
    }

    pub(crate) fn rot_fence(&mut self, epoch: Epoch) {
        let at = self.rng.below(SECTOR as u64) as usize;
        if let Some(file) = self.folder.claims.get_mut(&epoch) {
            file[at] ^= 0x40;
        }
    }

    /// One node, or all that run at once, are told to take over.
    fn order(&mut self, pid: usize) {
        let is_all = self.rng.once_in(3);
        for other in self.running.into_iter().flatten() {
            let local_us = self.local(other);
            let is_told = is_all || other == pid;
            if is_told && self.processes[other].lease.order_takeover(local_us) {
                self.say(other, "is told to take over");
                self.step(other);
            }
        }
    }

    fn hand_over(&mut self, pid: usize) {
        let local_us = self.local(pid);
        let own = self.processes[pid].lease.own_slot().name;
        let others = self.processes[pid].lease.slots().map(|slot| slot.name);
        let others: Vec<_> = others.filter(|name| *name != own).collect();
        if !others.is_empty() && !self.processes[pid].is_paused {
            let to = *self.rng.pick(&others);
            let begun = self.processes[pid].lease.hand_over(to, local_us);
            self.say(pid, format_args!("is told to hand over to {to}: {begun:?}"));
            self.step(pid);
        }
    }

    fn stop(&mut self, pid: usize) {
        if self.processes[pid].is_paused || !self.rng.once_in(2) {
            return;
        }
        let next = *self
            .rng
            .pick(&[Next::Anybody, Next::Nobody, Next::Node(SlotId(1))]);
        self.say(pid, format_args!("is told to stop: {next:?}"));
        self.processes[pid].lease.stop(next);
        self.step(pid);
    }

    /// From now on all goes well.
    pub(crate) fn heal(&mut self) {
        self.is_healed = true;
        self.faults.has_pauses = false;
        self.faults.has_late_writes = false;
        for host in 0..HOSTS {
            self.clocks[host].set(self.now_us, 100, 0);
        }
        for pid in 0..self.processes.len() {
            self.processes[pid].stall_us = 0;
            self.processes[pid].fails_next = false;
            let host = self.processes[pid].host;
            if self.running[host] == Some(pid) {
                self.processes[pid].is_paused = false;
                self.step(pid);
            } else {
                // Twins go.
                self.processes[pid].is_alive = false;
            }
        }
        for host in 0..HOSTS {
            self.wake_host(host);
        }
    }
}
