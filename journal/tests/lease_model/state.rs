//! What is on the disk and in the heads of all owners: one state of the model.

/// Epochs of the largest model; the first one serves when it begins.
pub(crate) const EPOCHS: usize = 4;
/// Shards of each.
pub(crate) const SHARDS: usize = 2;

/// How many blocks count of each epoch below, for one shard.
pub(crate) type Lengths = [u8; EPOCHS];

/// What an owner is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// Nothing yet.
    Idle,
    /// Its claim is about to get its open fence (only where that is a write of its own).
    Opening,
    /// Looks at the fence of this epoch.
    Look(u8),
    /// Shuts it.
    Shut(u8),
    /// Waits until that has landed.
    Shutting(u8),
    /// Reads what that epoch sealed.
    Sealed(u8),
    /// Reads this block of this shard.
    Scan(u8, u8),
    /// Writes its seals.
    Seal,
    /// Waits until they have landed.
    Sealing,
    /// Looks at its own fence.
    Check,
    /// Serves.
    Serving,
    /// Saw that it is over.
    Over,
}

/// One owner: the node, life and epoch that won a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) at: At,
    /// Whether it ever served.
    pub(crate) served: bool,
    /// Epoch whose seals bind it.
    pub(crate) base: u8,
    /// What counts, by shard.
    pub(crate) view: [Lengths; SHARDS],
    /// Blocks submitted, by shard.
    pub(crate) submitted: [u8; SHARDS],
    /// Blocks acknowledged, by shard.
    pub(crate) acked: [u8; SHARDS],
    /// A read of the fence under way: the blocks it covers, by shard.
    pub(crate) barrier: [Option<u8>; SHARDS],
}

/// What is on the disk of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Space {
    /// The number is won.
    pub(crate) is_claimed: bool,
    /// The fence is shut.
    pub(crate) is_shut: bool,
    /// Writes that shut it, under way.
    pub(crate) is_shutting: bool,
    /// A write that opens it, under way (weakened only).
    pub(crate) is_opening: bool,
    /// A stale heartbeat of its node's last life, under way (weakened only).
    pub(crate) is_stale: bool,
    /// Seal table: parts under way and landed, by shard.
    pub(crate) sealing: [bool; SHARDS],
    pub(crate) sealed: [bool; SHARDS],
    /// Blocks that landed: bits, by shard.
    pub(crate) blocks: [u8; SHARDS],
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) owners: [Owner; EPOCHS],
    pub(crate) spaces: [Space; EPOCHS],
}

impl State {
    /// The first epoch serves, nothing is written.
    pub(crate) const fn first() -> Self {
        let owner = Owner {
            at: At::Idle,
            served: false,
            base: 0,
            view: [[0; EPOCHS]; SHARDS],
            submitted: [0; SHARDS],
            acked: [0; SHARDS],
            barrier: [None; SHARDS],
        };
        let space = Space {
            is_claimed: false,
            is_shut: false,
            is_shutting: false,
            is_opening: false,
            is_stale: false,
            sealing: [false; SHARDS],
            sealed: [false; SHARDS],
            blocks: [0; SHARDS],
        };
        let mut state = Self {
            owners: [owner; EPOCHS],
            spaces: [space; EPOCHS],
        };
        state.owners[0].at = At::Serving;
        state.owners[0].served = true;
        state.spaces[0].is_claimed = true;
        state.spaces[0].sealed = [true; SHARDS];
        state
    }

    /// Blocks of an epoch that are durable with all before them.
    pub(crate) const fn prefix(&self, epoch: usize, shard: usize) -> u8 {
        self.spaces[epoch].blocks[shard].trailing_ones() as u8
    }

    /// The whole state in bytes: two states are the same if these are.
    pub(crate) fn encode(&self) -> [u8; 160] {
        let mut bytes = [0; 160];
        let mut at = 0;
        let mut push = |byte: u8| {
            bytes[at] = byte;
            at += 1;
        };
        for owner in &self.owners {
            owner.encode(&mut push);
        }
        for space in &self.spaces {
            space.encode(&mut push);
        }
        bytes
    }

    /// What does not hold, of what must.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &'static str> {
        let served = self
            .owners
            .iter()
            .enumerate()
            .filter(|(_, owner)| owner.served);
        let pairs = || {
            let below = |high: usize| self.owners[..high].iter().enumerate();
            served
                .clone()
                .flat_map(move |(high, later)| below(high).map(move |low| (low, later)))
        };
        let is_lost = pairs().any(|((low, earlier), later)| {
            let mut shards = 0..SHARDS;
            shards.any(|shard| earlier.acked[shard] > later.view[shard][low])
        });
        let is_disagreed = pairs().any(|((low, earlier), later)| {
            let ends = |owner: &Owner| {
                owner.view.map(|lengths| {
                    lengths[..low]
                        .iter()
                        .fold(0_u32, |sum, &length| sum * 16 + u32::from(length))
                })
            };
            earlier.served && ends(earlier) != ends(later)
        });
        let is_off_disk = self.owners.iter().enumerate().any(|(epoch, owner)| {
            let mut shards = 0..SHARDS;
            shards.any(|shard| owner.acked[shard] > self.prefix(epoch, shard))
        });
        let all = [
            (is_lost, LOST),
            (is_disagreed, DISAGREE),
            (is_off_disk, LOST_ON_DISK),
        ];
        all.into_iter()
            .filter_map(|(is_broken, what)| is_broken.then_some(what))
    }
}

impl Owner {
    fn encode(&self, push: &mut impl FnMut(u8)) {
        let at = match self.at {
            At::Idle => [0, 0, 0],
            At::Opening => [1, 0, 0],
            At::Look(below) => [2, below, 0],
            At::Shut(below) => [3, below, 0],
            At::Shutting(below) => [4, below, 0],
            At::Sealed(below) => [5, below, 0],
            At::Scan(shard, block) => [6, shard, block],
            At::Seal => [7, 0, 0],
            At::Sealing => [8, 0, 0],
            At::Check => [9, 0, 0],
            At::Serving => [10, 0, 0],
            At::Over => [11, 0, 0],
        };
        at.into_iter().for_each(&mut *push);
        push(u8::from(self.served));
        push(self.base);
        for shard in 0..SHARDS {
            self.view[shard].into_iter().for_each(&mut *push);
            push(self.submitted[shard]);
            push(self.acked[shard]);
            push(self.barrier[shard].map_or(0, |covers| covers + 1));
        }
    }
}

impl Space {
    fn encode(&self, push: &mut impl FnMut(u8)) {
        let flags = [
            self.is_claimed,
            self.is_shut,
            self.is_shutting,
            self.is_opening,
            self.is_stale,
        ];
        let seals = self.sealing.into_iter().chain(self.sealed);
        let bits = flags.into_iter().chain(seals).enumerate();
        let bits = bits.fold(0_u16, |bits, (at, is_set)| bits | u16::from(is_set) << at);
        bits.to_le_bytes().into_iter().for_each(&mut *push);
        self.blocks.into_iter().for_each(&mut *push);
    }
}

/// A block that was acknowledged does not count for a later epoch that served.
pub(crate) const LOST: &str = "acknowledged lost";
/// A block that was acknowledged is not on the disk, or one before it is not.
pub(crate) const LOST_ON_DISK: &str = "acknowledged not durable";
/// Two epochs that served do not agree on where an older one ends.
pub(crate) const DISAGREE: &str = "seals disagree";
/// A barrier let an epoch acknowledge after a higher one served.
pub(crate) const TWO_SERVE: &str = "two epochs acknowledge";
