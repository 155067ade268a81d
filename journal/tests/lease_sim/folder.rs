//! The shared folder: sectors of the lease file and the claims, blocks of the journal. Each sector
//! changes at one moment; what is larger changes piece by piece.

use std::collections::BTreeMap;

use super::mutant::Mutant;

use forebay_journal::format::{Checksum, LeaseHead, ShardSeal, SlotId, checksum};
use forebay_journal::lease::Base;
use forebay_journal::{BlockNumber, Epoch, Lsn, ShardId};

/// Slots of the lease file.
pub(crate) const SLOTS: u16 = 6;
/// Shards of the journal.
pub(crate) const SHARDS: u16 = 2;
/// Bytes that change at once.
pub(crate) const SECTOR: usize = 4096;

/// A block with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) epoch: Epoch,
    pub(crate) lsn: Lsn,
    pub(crate) number: BlockNumber,
    pub(crate) previous: Checksum,
    pub(crate) identity: Checksum,
}

impl Block {
    /// The next one of this epoch behind a seal; `salt` is what tells two with the same place
    /// apart.
    pub(crate) fn behind(seal: &ShardSeal, epoch: Epoch, shard: ShardId, salt: u64) -> Self {
        let mut bytes = seal.identity.to_string().into_bytes();
        bytes.extend(epoch.get().to_le_bytes());
        bytes.extend(shard.0.to_le_bytes());
        bytes.extend(salt.to_le_bytes());
        Self {
            epoch,
            lsn: seal.lsn.next(),
            number: seal.block.next(),
            previous: seal.identity,
            identity: checksum(&bytes),
        }
    }

    pub(crate) fn seal(&self) -> ShardSeal {
        ShardSeal {
            epoch: self.epoch,
            lsn: self.lsn,
            block: self.number,
            identity: self.identity,
        }
    }
}

/// What is on the disk.
#[derive(Debug)]
pub(crate) struct Folder {
    lease: Vec<u8>,
    pub(crate) claims: BTreeMap<Epoch, Vec<u8>>,
    /// By epoch, shard and place.
    pub(crate) blocks: Blocks,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let size = LeaseHead::slot_offset(SlotId(SLOTS), 1);
        Self {
            lease: vec![0; size as usize],
            claims: BTreeMap::new(),
            blocks: BTreeMap::new(),
        }
    }

    pub(crate) fn slot(&mut self, slot: u16, copy: usize) -> &mut [u8] {
        let at = LeaseHead::slot_offset(SlotId(slot), copy) as usize;
        &mut self.lease[at..at + SECTOR]
    }

    /// A claim with its fence open, if there is none. True if it was made.
    pub(crate) fn make(&mut self, epoch: Epoch, bytes: &[u8]) -> bool {
        let is_new = !self.claims.contains_key(&epoch);
        if is_new {
            self.claims.insert(epoch, bytes.to_vec());
        }
        is_new
    }
}

/// Blocks by epoch, shard and place.
pub(crate) type Blocks = BTreeMap<(Epoch, u16, u64), Block>;

/// Where the epochs' spaces are: each has its own, or (weakened) all write to one.
pub(crate) const ONE_SPACE: Epoch = Epoch::ZERO;

/// A scan under way: one block is looked at after the other.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    bases: Vec<Option<Base>>,
    shard: usize,
    place: u64,
    pub(crate) seals: Vec<ShardSeal>,
    mutant: Option<Mutant>,
}

impl Scan {
    pub(crate) fn new(bases: Vec<Option<Base>>, mutant: Option<Mutant>) -> Self {
        let first = bases[0].map_or_else(ShardSeal::default, |base| base.seal);
        Self {
            bases,
            shard: 0,
            place: 0,
            seals: vec![first],
            mutant,
        }
    }

    /// The block that goes on, if it is there.
    fn next(&self, blocks: &Blocks, seal: &ShardSeal) -> Option<Block> {
        let shard = self.shard as u16;
        let follows = |block: &&Block| block.previous == seal.identity;
        if self.mutant == Some(Mutant::SpaceShared) {
            let place = (ONE_SPACE, shard, seal.block.get());
            return blocks.get(&place).filter(follows).copied();
        }
        let base = self.bases[self.shard]?;
        if self.mutant == Some(Mutant::ScanBehindSeal) && self.place == 0 {
            let older = blocks.range((seal.epoch, shard, 0)..=(seal.epoch, shard, u64::MAX));
            let found = older.map(|(_, block)| block).find(follows);
            if found.is_some() && seal.epoch < base.epoch {
                return found.copied();
            }
        }
        blocks
            .get(&(base.epoch, shard, self.place))
            .filter(follows)
            .copied()
    }

    /// Looks at the next block. True when all shards are through.
    pub(crate) fn step(&mut self, blocks: &Blocks) -> bool {
        let seal = *self
            .seals
            .last()
            .expect("one for each shard that was begun");
        if let Some(block) = self.next(blocks, &seal) {
            self.place +=
                u64::from(self.bases[self.shard].is_some_and(|base| base.epoch == block.epoch));
            *self.seals.last_mut().expect("as above") = block.seal();
            return false;
        }
        self.shard += 1;
        self.place = 0;
        let Some(base) = self.bases.get(self.shard) else {
            return true;
        };
        self.seals
            .push(base.map_or_else(ShardSeal::default, |base| base.seal));
        false
    }
}
