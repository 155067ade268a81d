//! The bodies of the fuzz targets of `fuzz/`, run on their seeds and on a fixed number of changed
//! ones in the normal test command (B08). Long runs: `just fuzz journal_recovery 600`.
//!
//! The seeds lie in `fuzz/seeds`; `FOREBAY_WRITE_SEEDS=1` writes those of blocks and records anew.

#![allow(clippy::disallowed_methods, reason = "a test reads its seeds")]

mod rig;

use std::path::{Path, PathBuf};

use forebay_journal::format::{
    BLOCK_HEADER_SIZE, Claim, Fence, Incarnation, LeaseHead, Next, NodeName, Role, SealTable,
    ShardSeal, Slot, SlotId, SlotState, Superblock,
};
use forebay_journal::fuzz::{Folder, exercise_block, exercise_record, exercise_superblock};
use forebay_journal::storage::memory::Random;
use forebay_journal::{Epoch, Lsn};
use rig::Rig;

/// Changed inputs of each target.
const INPUTS: usize = 40_000;

fn folder(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    root.join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder(target)).expect("seeds lie in the tree");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 2, "{target} has hardly any seeds");
    let read = |path: &PathBuf| std::fs::read(path).expect("reads");
    paths.iter().map(read).collect()
}

/// Sound blocks of records of every kind.
fn sound_blocks() -> Vec<Vec<u8>> {
    let mut rig = Rig::new(5, 8);
    let mut blocks = Vec::new();
    for _ in 0..4 {
        rig.prepare_all(&mut |_| {});
        (0..40).for_each(|_| assert!(rig.append_any(60)));
        assert!(rig.pump());
        let (file, offset, size) = rig.disk.in_flight_places().next().expect("one");
        rig.drain();
        let bytes = &rig.disk.live(file).expect("exists")[offset as usize..][..size];
        blocks.push(bytes.to_vec());
    }
    blocks
}

/// Head, slot, fence and seals of a lease.
fn put_lease(put: &impl Fn(&str, &str, &[u8])) {
    let claim = Claim {
        journal: rig::JOURNAL,
        epoch: Epoch::ZERO.plus(3),
        name: NodeName::new("a").expect("a name"),
        incarnation: Incarnation([4; 16]),
    };
    let head = LeaseHead {
        journal: claim.journal,
        slot_count: 4,
        shard_count: 2,
        heartbeat_ms: 250,
        io_ms: 500,
        lease_ms: 1_500,
        takeover_ms: 2_000,
        created_unix_ms: 1_700_000_000_000,
    };
    let slot = Slot {
        journal: claim.journal,
        slot: SlotId(1),
        name: claim.name,
        incarnation: claim.incarnation,
        role: Role::Backup,
        state: SlotState::Held,
        next: Next::Node(SlotId(2)),
        epoch: claim.epoch,
        heartbeat: 9,
        joined: 2,
        ready_for: Epoch::ZERO,
        acked: vec![Lsn::ZERO.next(); 2],
    };
    let table = SealTable {
        journal: claim.journal,
        epoch: claim.epoch,
        incarnation: claim.incarnation,
        seals: vec![Some(ShardSeal::default()), None],
    };
    put("journal_superblock", "lease-head", &head.encode());
    put("journal_superblock", "lease-slot", &slot.encode());
    put(
        "journal_superblock",
        "lease-fence",
        &Fence::open(claim).encode(),
    );
    put("journal_superblock", "lease-seals", &table.encode()[..4096]);
}

fn write_seeds() {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(folder(target)).expect("makes");
        std::fs::write(folder(target).join(name), bytes).expect("writes");
    };
    for (number, block) in sound_blocks().iter().enumerate() {
        put("journal_block", &format!("sound-{number}"), block);
        let count = block[12];
        let payload = [&[count][..], &block[BLOCK_HEADER_SIZE..]].concat();
        put("journal_record", &format!("sound-{number}"), &payload);
    }
    let superblock = Superblock {
        journal: rig::JOURNAL,
        shard_count: 2,
        created_unix_ms: 1_700_000_000_000,
    };
    put("journal_superblock", "sound", &superblock.encode());
    put(
        "journal_superblock",
        "one-copy",
        &superblock.encode()[..4096],
    );
    put_lease(&put);
    // One stroke each, and three together.
    for what in 0..8 {
        let stroke = [what, 1, 0, 0x20, 0x55, 9];
        put("journal_recovery", &format!("stroke-{what}"), &stroke);
    }
    let three = [
        [0, 0, 9, 0x10, 1, 1],
        [3, 2, 0, 0x30, 0, 0],
        [6, 3, 0, 0x10, 2, 2],
    ];
    put("journal_recovery", "three", &three.concat());
}

fn damage(input: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() as u64 + 1) as usize;
        let end = (at + random.below(9) as usize).min(input.len());
        match random.below(6) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => input[at..end].fill(random.draw() as u8),
            3 => input[at..end].iter_mut().for_each(|b| *b ^= 1 << (at % 8)),
            4 => input[at..end].fill(0xFF),
            _ => {
                let more: Vec<u8> = (0..random.below(9)).map(|_| random.draw() as u8).collect();
                input.splice(at..at, more);
            }
        }
    }
}

/// Runs a target on its seeds and on changed ones; gives how much was understood in all.
fn run(target: &str, mut body: impl FnMut(&[u8]) -> usize) -> usize {
    if std::env::var_os("FOREBAY_WRITE_SEEDS").is_some() {
        write_seeds();
    }
    let seeds = seeds(target);
    let mut understood: usize = seeds.iter().map(|seed| body(seed)).sum();
    assert!(understood > 0, "the seeds of {target} are not understood");
    let mut random = Random::new(0xF022);
    for _ in 0..INPUTS {
        let mut input = seeds[random.below(seeds.len() as u64) as usize].clone();
        damage(&mut input, &mut random);
        understood += body(&input);
    }
    eprintln!(
        "{target}: {INPUTS} inputs and {} seeds, {understood} understood",
        seeds.len()
    );
    understood
}

#[test]
fn blocks() {
    assert!(run("journal_block", exercise_block) > INPUTS);
}

#[test]
fn records() {
    assert!(run("journal_record", exercise_record) > INPUTS);
}

#[test]
fn superblocks_and_heads() {
    assert!(run("journal_superblock", exercise_superblock) > 1000);
}

#[test]
fn recovery() {
    let folder = Folder::new();
    assert!(run("journal_recovery", |data| folder.exercise(data)) > INPUTS);
}
