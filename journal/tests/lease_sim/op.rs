//! Something under way to the folder: a write lands piece by piece, a read looks sector by sector,
//! each at a moment of its own; the process hears of it later, or never.

use forebay_journal::Epoch;
use forebay_journal::format::{CLAIM_FILE_SIZE, FENCE_SIZE};
use forebay_journal::lease::Ticket;

use super::folder::{Block, Folder, SECTOR, SLOTS, Scan};

/// Who waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    Lease(Ticket),
    Fence { shard: usize, ticket: u64 },
    Block { shard: usize, place: u64 },
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    ReadSlots {
        copy: usize,
    },
    WriteSlot {
        slot: u16,
        copy: usize,
        bytes: Vec<u8>,
    },
    List,
    Make {
        epoch: Epoch,
        bytes: Vec<u8>,
        is_exclusive: bool,
    },
    ReadClaim {
        epoch: Epoch,
        size: usize,
    },
    WriteClaim {
        epoch: Epoch,
        offset: usize,
        bytes: Vec<u8>,
    },
    WriteBlock {
        shard: u16,
        place: u64,
        in_epoch: Epoch,
        block: Block,
    },
    Scan(Scan),
    /// A write that is said to be done at once (weakened only).
    Shutting,
}

/// What was found or done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) bytes: Vec<u8>,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) is_made: bool,
    pub(crate) is_missing: bool,
    /// When the first sector was looked at.
    pub(crate) looked_us: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) pid: usize,
    pub(crate) waiter: Option<Waiter>,
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    /// Pieces that did not land yet.
    pub(crate) left: usize,
    /// Bytes of a piece that land when its writer died meanwhile.
    pub(crate) torn_at: Option<usize>,
    /// Its writer's death, or the disk, takes it away.
    pub(crate) is_dropped: bool,
    pub(crate) is_failed: bool,
    /// Its pieces do not land before.
    pub(crate) held_until_us: u64,
}

impl Op {
    pub(crate) fn new(pid: usize, waiter: Option<Waiter>, kind: Kind) -> Self {
        let mut outcome = Outcome::default();
        let left = match &kind {
            Kind::ReadSlots { .. } => {
                outcome.bytes = vec![0; usize::from(SLOTS) * SECTOR];
                usize::from(SLOTS)
            }
            Kind::ReadClaim { size, .. } => {
                outcome.bytes = vec![0; *size];
                size / SECTOR
            }
            Kind::WriteClaim { bytes, .. } => bytes.len() / SECTOR,
            _ => 1,
        };
        Self {
            pid,
            waiter,
            kind,
            outcome,
            left,
            torn_at: None,
            is_dropped: false,
            is_failed: false,
            held_until_us: 0,
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(
            self.kind,
            Kind::ReadSlots { .. } | Kind::ReadClaim { .. } | Kind::List | Kind::Scan(_)
        )
    }

    /// One piece reaches the disk, or is looked at there.
    pub(crate) fn land(&mut self, piece: usize, folder: &mut Folder, now_us: u64) {
        if self.is_dropped {
            return;
        }
        let torn_at = self.torn_at;
        let put = |to: &mut [u8], from: &[u8]| {
            let end = torn_at.unwrap_or(from.len());
            to[..end].copy_from_slice(&from[..end]);
        };
        let at = piece * SECTOR;
        match &self.kind {
            Kind::ReadSlots { copy } => {
                let sector = folder.slot(piece as u16, *copy);
                self.outcome.bytes[at..at + SECTOR].copy_from_slice(sector);
            }
            Kind::WriteSlot { slot, copy, bytes } => put(folder.slot(*slot, *copy), bytes),
            Kind::List => self.outcome.epochs = folder.claims.keys().copied().collect(),
            Kind::Make {
                epoch,
                bytes,
                is_exclusive,
            } => {
                if !is_exclusive {
                    folder.claims.remove(epoch);
                }
                self.outcome.is_made = folder.make(*epoch, bytes);
            }
            Kind::ReadClaim { epoch, .. } => match folder.claims.get(epoch) {
                Some(file) => {
                    if piece == 0 {
                        self.outcome.looked_us = now_us;
                    }
                    let sector = &file[at..at + SECTOR];
                    self.outcome.bytes[at..at + SECTOR].copy_from_slice(sector);
                }
                None => self.outcome.is_missing = true,
            },
            Kind::WriteClaim {
                epoch,
                offset,
                bytes,
            } => {
                if let Some(file) = folder.claims.get_mut(epoch) {
                    let to = &mut file[offset + at..offset + at + SECTOR];
                    put(to, &bytes[at..at + SECTOR]);
                }
            }
            Kind::WriteBlock {
                shard,
                place,
                in_epoch,
                block,
            } => {
                // A torn block is no block.
                if torn_at.is_none() {
                    folder.blocks.insert((*in_epoch, *shard, *place), *block);
                }
            }
            Kind::Scan(_) | Kind::Shutting => {}
        }
    }
}

/// A read of a fence.
pub(crate) const fn fence_of(epoch: Epoch) -> Kind {
    Kind::ReadClaim {
        epoch,
        size: FENCE_SIZE,
    }
}

/// A read of a whole claim.
pub(crate) const fn claim_of(epoch: Epoch) -> Kind {
    Kind::ReadClaim {
        epoch,
        size: CLAIM_FILE_SIZE,
    }
}
