//! What the outside saw, and whether that is what was promised.

use std::collections::BTreeMap;

use forebay_journal::format::{Checksum, Incarnation, ShardSeal};
use forebay_journal::{Epoch, Lsn};

use super::folder::{Block, SHARDS};

/// An epoch that served.
#[derive(Clone, Debug)]
struct Served {
    by: Incarnation,
    at_us: u64,
    seals: Vec<ShardSeal>,
}

/// All that was acknowledged, and all epochs that served.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Every block ever made, by its identity.
    made: BTreeMap<[u8; 16], Block>,
    /// Last block acknowledged, by shard and epoch.
    acked: BTreeMap<(u16, Epoch), ShardSeal>,
    served: BTreeMap<Epoch, Served>,
    pub(crate) acks: u64,
    pub(crate) takeovers: u64,
}

fn key(identity: Checksum) -> [u8; 16] {
    let hex = identity.to_string();
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
    core::array::from_fn(byte)
}

impl Ledger {
    pub(crate) fn made(&mut self, block: &Block) {
        self.made.insert(key(block.identity), *block);
    }

    /// Whether the chain that ends at `end` holds this block.
    fn holds(&self, end: &ShardSeal, block: &ShardSeal) -> bool {
        let (mut lsn, mut identity) = (end.lsn, end.identity);
        while lsn > block.lsn {
            let Some(made) = self.made.get(&key(identity)) else {
                return false;
            };
            (lsn, identity) = (lsn.before(), made.previous);
        }
        lsn == block.lsn && identity == block.identity
    }

    /// An epoch acknowledges up to a block; its fence was read at `read_us`.
    pub(crate) fn ack(&mut self, shard: u16, epoch: Epoch, block: ShardSeal, read_us: u64) {
        self.acks += 1;
        for (later, served) in self.served.range(epoch.next()..) {
            let is_found = self.holds(&served.seals[usize::from(shard)], &block);
            assert!(
                is_found,
                "acknowledged lost: {block:?} of {epoch} is not in {later}"
            );
            assert!(
                served.at_us > read_us,
                "two epochs acknowledge: {epoch} beside {later}"
            );
        }
        self.acked.insert((shard, epoch), block);
    }

    /// A block that is acknowledged is not on the disk any more, or was never.
    pub(crate) fn check_disk(&self, found: impl Fn(Epoch, u16, Lsn) -> Option<Checksum>) {
        for (&(shard, epoch), block) in &self.acked {
            let found = found(epoch, shard, block.lsn);
            assert_eq!(
                found,
                Some(block.identity),
                "acknowledged not durable: {block:?}"
            );
        }
    }

    /// An epoch begins to serve at `at_us`, having looked at its own fence at `looked_us`.
    pub(crate) fn serve(
        &mut self,
        epoch: Epoch,
        by: Incarnation,
        seals: Vec<ShardSeal>,
        [looked_us, at_us]: [u64; 2],
    ) {
        assert_eq!(seals.len(), usize::from(SHARDS));
        self.takeovers += 1;
        if let Some(before) = self.served.get(&epoch) {
            panic!("two owners: {epoch} of {by} and {}", before.by);
        }
        for (&(shard, older), block) in &self.acked {
            let is_found = older > epoch || self.holds(&seals[usize::from(shard)], block);
            assert!(
                is_found,
                "acknowledged lost: {block:?} of {older} is not in {epoch}"
            );
        }
        for (older, served) in self.served.range(..epoch) {
            for (end, seal) in seals.iter().zip(&served.seals) {
                assert!(self.holds(end, seal), "seals disagree: {older} and {epoch}");
            }
        }
        for (later, served) in self.served.range(epoch.next()..) {
            let is_past = served.at_us < looked_us;
            assert!(!is_past, "two epochs serve: {epoch} beside {later}");
            for (end, seal) in served.seals.iter().zip(&seals) {
                assert!(self.holds(end, seal), "seals disagree: {epoch} and {later}");
            }
        }
        let served = Served { by, at_us, seals };
        self.served.insert(epoch, served);
    }

    /// Evidence that a slot of an older epoch gives is never more than what counts for this one.
    pub(crate) fn check_evidence(&self, epoch: Epoch, shard: usize, acked: Lsn) {
        let end = self.served[&epoch].seals[shard].lsn;
        assert!(
            acked <= end,
            "a slot says too much: {acked} of shard {shard}, not {end}"
        );
    }
}
