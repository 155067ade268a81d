//! What may happen next: every single read, write and landing of a write, of every owner.
//!
//! An owner that is paused or dead is one that takes no step for long or for ever; its writes land
//! all the same, at any time and in any order. So pauses, kills and takeovers at any point are all
//! in here without a step of their own.

use super::state::{At, EPOCHS, SHARDS, State, TWO_SERVE};
use super::weakening::Weakening;

/// Beside the epoch that is shut: its seals were looked for before, and not found (weakened only).
const UNSEALED: u8 = 64;

/// How large the model is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) epochs: usize,
    /// Blocks that each epoch may write, by shard.
    pub(crate) blocks: [[u8; SHARDS]; EPOCHS],
}

/// Where steps go.
pub(crate) struct Steps<'a> {
    pub(crate) size: Size,
    pub(crate) weakening: Option<Weakening>,
    pub(crate) found: &'a mut Vec<State>,
    /// A step that must not happen.
    pub(crate) violation: Option<&'static str>,
}

impl Steps<'_> {
    fn is(&self, weakening: Weakening) -> bool {
        self.weakening == Some(weakening)
    }

    /// All steps from this state.
    pub(crate) fn all(&mut self, state: &State) {
        for epoch in 0..self.size.epochs {
            self.landings(state, epoch);
            self.own_steps(state, epoch);
        }
    }

    fn push(&mut self, state: &State, change: impl FnOnce(&mut State)) {
        let mut next = *state;
        change(&mut next);
        self.found.push(next);
    }

    fn landings(&mut self, state: &State, epoch: usize) {
        let space = &state.spaces[epoch];
        if space.is_shutting && !space.is_shut {
            self.push(state, |next| next.spaces[epoch].is_shut = true);
        }
        if space.is_opening {
            self.push(state, |next| {
                next.spaces[epoch].is_opening = false;
                next.spaces[epoch].is_shut = false;
                next.spaces[epoch].is_shutting = false;
            });
        }
        if space.is_stale && space.is_shut {
            // The slot in which it was said says something older again.
            self.push(state, |next| {
                next.spaces[epoch].is_stale = false;
                next.spaces[epoch].is_shut = false;
                next.spaces[epoch].is_shutting = false;
            });
        }
        for shard in 0..SHARDS {
            if space.sealing[shard] && !space.sealed[shard] {
                self.push(state, |next| next.spaces[epoch].sealed[shard] = true);
            }
            for block in 0..state.owners[epoch].submitted[shard] {
                if space.blocks[shard] & (1 << block) == 0 {
                    self.land_block(state, epoch, shard, block);
                }
            }
        }
    }

    fn land_block(&mut self, state: &State, epoch: usize, shard: usize, block: u8) {
        let is_one_space = self.is(Weakening::OldSpaceReused);
        self.push(state, |next| {
            next.spaces[epoch].blocks[shard] |= 1 << block;
            // The next epoch went on in the same file, behind what counts there.
            let is_over_next = is_one_space
                && epoch + 1 < EPOCHS
                && next.owners[epoch + 1].served
                && block >= next.owners[epoch + 1].view[shard][epoch];
            if is_over_next {
                next.spaces[epoch + 1].blocks[shard] = 0;
            }
        });
    }

    fn own_steps(&mut self, state: &State, epoch: usize) {
        match state.owners[epoch].at {
            At::Idle if epoch > 0 && state.spaces[epoch - 1].is_claimed => {
                self.make(state, epoch);
            }
            At::Opening => {
                if !state.spaces[epoch].is_opening {
                    self.go(state, epoch, self.after_make(epoch));
                }
            }
            At::Look(below) => self.look(state, epoch, below),
            At::Shut(below) => {
                let is_awaited = !self.is(Weakening::ShutNotAwaited);
                let after = if is_awaited {
                    At::Shutting(below)
                } else {
                    self.after_shut(state, epoch, below)
                };
                self.push(state, |next| {
                    next.spaces[usize::from(below & !UNSEALED)].is_shutting = true;
                    next.owners[epoch].at = after;
                });
            }
            At::Shutting(below) if state.spaces[usize::from(below & !UNSEALED)].is_shut => {
                self.go(state, epoch, self.after_shut(state, epoch, below));
            }
            At::Sealed(below) => self.read_sealed(state, epoch, below),
            At::Scan(shard, block) => self.scan(state, epoch, usize::from(shard), block),
            At::Seal => self.push(state, |next| {
                next.spaces[epoch].sealing = [true; SHARDS];
                next.owners[epoch].at = At::Sealing;
            }),
            At::Sealing if state.spaces[epoch].sealed == [true; SHARDS] => {
                let after = if self.is(Weakening::CheckBeforeSeals) {
                    At::Serving
                } else {
                    At::Check
                };
                self.arrive(state, epoch, after);
            }
            At::Check => self.check(state, epoch),
            At::Serving => self.serve(state, epoch),
            At::Idle | At::Shutting(_) | At::Sealing | At::Over => {}
        }
    }

    fn go(&mut self, state: &State, epoch: usize, at: At) {
        self.push(state, |next| next.owners[epoch].at = at);
    }

    /// As [`Self::go`]; who arrives at serving has served.
    fn arrive(&mut self, state: &State, epoch: usize, at: At) {
        self.push(state, |next| {
            next.owners[epoch].at = at;
            next.owners[epoch].served |= at == At::Serving;
        });
    }

    /// The claim comes into being as a whole, its fence open.
    fn make(&mut self, state: &State, epoch: usize) {
        let is_opened_later = self.is(Weakening::FenceOpenedLater);
        let is_in_slot = self.is(Weakening::ClaimInSlot);
        let after = if is_opened_later {
            At::Opening
        } else {
            self.after_make(epoch)
        };
        self.push(state, |next| {
            next.spaces[epoch].is_claimed = true;
            next.spaces[epoch].is_opening = is_opened_later;
            // What shuts the fence of the epoch below is the claimer's own slot, and its last life
            // has a heartbeat under way to it.
            next.spaces[epoch - 1].is_stale = is_in_slot;
            next.owners[epoch].at = after;
        });
    }

    fn after_make(&self, epoch: usize) -> At {
        let below = epoch as u8 - 1;
        if self.is(Weakening::ScanBeforeShut) {
            return At::Sealed(below);
        }
        At::Look(below)
    }

    fn look(&mut self, state: &State, epoch: usize, below: u8) {
        let space = &state.spaces[usize::from(below)];
        let is_read_at_once = self.is(Weakening::SealsReadBeforeShut);
        let is_unsealed = is_read_at_once && space.sealed != [true; SHARDS];
        let told = if is_unsealed { below | UNSEALED } else { below };
        let after = if space.is_shut {
            self.after_shut(state, epoch, told)
        } else {
            At::Shut(told)
        };
        self.go(state, epoch, after);
    }

    fn after_shut(&self, state: &State, epoch: usize, below: u8) -> At {
        if self.is(Weakening::ScanBeforeShut) {
            let is_last = below == state.owners[epoch].base;
            return if is_last {
                At::Seal
            } else {
                At::Look(below - 1)
            };
        }
        if below & UNSEALED != 0 {
            return self.unsealed(below & !UNSEALED);
        }
        At::Sealed(below)
    }

    /// No table in that claim: what next?
    fn unsealed(&self, below: u8) -> At {
        let lower = below - 1;
        if self.is(Weakening::OnlyHighestShut) || self.is(Weakening::ScanBeforeShut) {
            return At::Sealed(lower);
        }
        At::Look(lower)
    }

    fn read_sealed(&mut self, state: &State, epoch: usize, below: u8) {
        let sealed = state.spaces[usize::from(below)].sealed;
        let is_ignored = self.is(Weakening::SealsIgnored) && below > 0;
        let is_half_enough = self.is(Weakening::HalfTableCounts) && sealed.contains(&true);
        if is_half_enough && sealed != [true; SHARDS] {
            self.push(state, |next| {
                adopt(next, epoch, below);
                let views = next.owners[epoch].view.iter_mut().zip(sealed);
                for (view, _) in views.filter(|(_, is_there)| !is_there) {
                    *view = [0; EPOCHS];
                }
            });
        } else if sealed == [true; SHARDS] && !is_ignored {
            let is_shut_too = self.is(Weakening::LowestTableCounts) && below > 0;
            let lowest = if is_shut_too {
                lowest_table(state)
            } else {
                below
            };
            self.push(state, |next| adopt(next, epoch, lowest));
        } else {
            self.go(state, epoch, self.unsealed(below));
        }
    }

    fn scan(&mut self, state: &State, epoch: usize, shard: usize, block: u8) {
        let base = usize::from(state.owners[epoch].base);
        let is_there = state.spaces[base].blocks[shard] & (1 << block) != 0;
        if is_there {
            return self.go(state, epoch, At::Scan(shard as u8, block + 1));
        }
        let is_last = shard + 1 == SHARDS;
        let after = match self.weakening {
            _ if !is_last => At::Scan(shard as u8 + 1, 0),
            Some(Weakening::ScanBeforeShut) => At::Look(epoch as u8 - 1),
            Some(Weakening::NoSeals | Weakening::CheckBeforeSeals) => At::Check,
            _ => At::Seal,
        };
        self.push(state, |next| {
            next.owners[epoch].view[shard][base] = block;
            next.owners[epoch].at = after;
        });
    }

    fn check(&mut self, state: &State, epoch: usize) {
        let is_shut = state.spaces[epoch].is_shut && !self.is(Weakening::OwnFenceNotRead);
        let after = match self.weakening {
            _ if is_shut => At::Over,
            Some(Weakening::CheckBeforeSeals) => At::Seal,
            _ => At::Serving,
        };
        self.arrive(state, epoch, after);
    }

    fn serve(&mut self, state: &State, epoch: usize) {
        for shard in 0..SHARDS {
            let owner = &state.owners[epoch];
            if owner.submitted[shard] < self.size.blocks[epoch][shard] {
                self.push(state, |next| next.owners[epoch].submitted[shard] += 1);
            }
            match owner.barrier[shard] {
                None => self.issue(state, epoch, shard),
                Some(covers) => self.answer(state, epoch, shard, covers),
            }
        }
    }

    /// Submits a read of the fence that covers what is durable now.
    fn issue(&mut self, state: &State, epoch: usize, shard: usize) {
        let owner = &state.owners[epoch];
        let durable = match self.weakening {
            Some(Weakening::AckOutOfOrder) => {
                8 - state.spaces[epoch].blocks[shard].leading_zeros() as u8
            }
            _ => state.prefix(epoch, shard),
        };
        let is_early = self.is(Weakening::BarrierBeforeDurable) && owner.submitted[shard] > 0;
        if durable > owner.acked[shard] {
            if self.is(Weakening::NoBarrier) {
                return self.push(state, |next| next.owners[epoch].acked[shard] = durable);
            }
            self.push(state, |next| {
                next.owners[epoch].barrier[shard] = Some(durable)
            });
        } else if is_early && owner.acked[shard] < owner.submitted[shard] {
            self.push(state, |next| {
                next.owners[epoch].barrier[shard] = Some(owner.submitted[shard])
            });
        }
    }

    /// The read takes place; its owner takes the answer for what it covers.
    fn answer(&mut self, state: &State, epoch: usize, shard: usize, covers: u8) {
        if self.is(Weakening::BarrierBeforeDurable) {
            return self.answer_kept(state, epoch, shard, covers);
        }
        if state.spaces[epoch].is_shut {
            return self.go(state, epoch, At::Over);
        }
        if state.owners[epoch + 1..].iter().any(|owner| owner.served) {
            self.violation = Some(TWO_SERVE);
        }
        self.push(state, |next| {
            next.owners[epoch].barrier[shard] = None;
            next.owners[epoch].acked[shard] = covers;
        });
    }

    /// Weakened: what the read found is used for what got durable only behind it.
    fn answer_kept(&mut self, state: &State, epoch: usize, shard: usize, covers: u8) {
        const FOUND_OPEN: u8 = 64;
        if covers < FOUND_OPEN {
            if state.spaces[epoch].is_shut {
                return self.go(state, epoch, At::Over);
            }
            let kept = Some(covers + FOUND_OPEN);
            return self.push(state, |next| next.owners[epoch].barrier[shard] = kept);
        }
        if state.prefix(epoch, shard) >= covers - FOUND_OPEN {
            self.push(state, |next| {
                next.owners[epoch].barrier[shard] = None;
                next.owners[epoch].acked[shard] = covers - FOUND_OPEN;
            });
        }
    }
}

/// Takes an epoch's seals for binding, and goes on to scan its own blocks.
fn adopt(state: &mut State, epoch: usize, below: u8) {
    state.owners[epoch].base = below;
    state.owners[epoch].view = state.owners[usize::from(below)].view;
    state.owners[epoch].at = At::Scan(0, 0);
}

/// The lowest epoch above the first with a table.
fn lowest_table(state: &State) -> u8 {
    let whole = |epoch: &usize| state.spaces[*epoch].sealed == [true; SHARDS];
    (1..EPOCHS).find(whole).unwrap_or(0) as u8
}
