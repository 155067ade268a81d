//! J06: the power is cut at each step of making a segment ready (create, fill with zeros or rename
//! a file that nothing needs, write the head, sync, rename, sync the folder) and of giving files
//! up. Whatever of a step that was not synced is on the disk: the journal opens with all that was
//! acknowledged, takes nothing half made for a segment, and the next start goes on from there.
//!
//! The steps are those of `src/housekeeping/prepare.rs` and `src/housekeeping/executor.rs`, each
//! followed by what may be on the disk before its sync: a head of any of its 512-byte pieces, a
//! file of any length, a renamed file under either name, or, between two folders, under none.

mod rig;

use std::collections::BTreeSet;

use forebay_journal::format::SEGMENT_HEAD_SIZE;
use forebay_journal::storage::memory::{FileId, Landing, MemoryDisk};
use rig::real::RealWriter;
use rig::{BlockSource, Preparation, RigOf, open};

type Rig = RigOf<RealWriter>;

const SECTORS: u64 = 7;
const PIECE: usize = 512;
const HISTORIES: u64 = 40;

/// What was tried, by the name of the step.
#[derive(Default)]
struct Tally {
    images: u64,
    starts: u64,
    steps: BTreeSet<&'static str>,
}

/// The heads that a torn write of `new` over `old` leaves, each once.
fn torn(old: &[u8], new: &[u8]) -> BTreeSet<Vec<u8>> {
    let pieces = SEGMENT_HEAD_SIZE / PIECE;
    let heads = (0..1_u32 << pieces).map(|landed| {
        let mut head = old.to_vec();
        for piece in (0..pieces).filter(|piece| landed >> piece & 1 == 1) {
            let range = piece * PIECE..(piece + 1) * PIECE;
            head[range.clone()].copy_from_slice(&new[range]);
        }
        head
    });
    heads.collect()
}

/// Disks that a cut leaves in the middle of making the next segment ready.
fn during_preparation(rig: &Rig, disk: &MemoryDisk) -> Vec<(&'static str, MemoryDisk)> {
    let preparation = rig.next_preparation();
    let mut images = vec![("not begun", disk.clone())];
    match preparation.from {
        Some(file) => recycled(disk, file, &preparation, &mut images),
        None => made(disk, &preparation, &mut images),
    }
    images
}

fn made(
    disk: &MemoryDisk,
    preparation: &Preparation,
    images: &mut Vec<(&'static str, MemoryDisk)>,
) {
    let size = preparation.head.size;
    let Preparation { aside, name, .. } = preparation;
    let with_file = |size: u64| {
        let mut image = disk.clone();
        let file = image.create(aside, size).expect("no limit");
        (image, file)
    };
    for size in [0, 512, 4096, size / 2, size] {
        images.push(("created", with_file(size).0));
    }
    // Space that was taken and not written yet: what a file system that lies would show.
    for (other, ..) in disk.files() {
        let (mut image, file) = with_file(size);
        let bytes = disk.live(other).expect("listed").to_vec();
        let bytes = &bytes[..bytes.len().min(size as usize)];
        image.put(file, 0, bytes).expect("fits");
        images.push(("filled", image));
    }
    let nothing = [0; SEGMENT_HEAD_SIZE];
    for head in torn(&nothing, &preparation.head.encode()) {
        let (mut image, file) = with_file(size);
        image.put(file, 0, &head).expect("fits");
        images.push(("headed", image));
    }
    let (mut image, file) = with_file(size);
    image
        .put(file, 0, &preparation.head.encode())
        .expect("fits");
    images.push(("synced", image.clone()));
    image.rename(file, name).expect("exists");
    images.push(("named", image));
}

fn recycled(
    disk: &MemoryDisk,
    file: FileId,
    preparation: &Preparation,
    images: &mut Vec<(&'static str, MemoryDisk)>,
) {
    let Preparation { aside, name, .. } = preparation;
    let mut gone = disk.clone();
    gone.remove(file).expect("exists");
    images.push(("between two folders", gone));
    let mut image = disk.clone();
    image.rename(file, aside).expect("exists");
    images.push(("set aside", image.clone()));
    let old = disk.live(file).expect("exists")[..SEGMENT_HEAD_SIZE].to_vec();
    for head in torn(&old, &preparation.head.encode()) {
        image.put(file, 0, &head).expect("fits");
        images.push(("headed again", image.clone()));
    }
    image
        .put(file, 0, &preparation.head.encode())
        .expect("fits");
    images.push(("synced again", image.clone()));
    image.rename(file, name).expect("exists");
    images.push(("named again", image));
}

/// Disks that a cut leaves while freed files are removed: any of them may be gone. Before a block
/// of the epoch is durable they go from the highest number down (`docs/format.md` 2).
fn during_retirement(rig: &Rig, disk: &MemoryDisk) -> Vec<(&'static str, MemoryDisk)> {
    let freed = rig.freed_files();
    // All subsets of the newest few, and all of the others or none.
    let few = freed.len().min(5);
    let mut images = Vec::new();
    for gone in 1..1_u32 << few {
        let is_downward = (gone + 1).is_power_of_two();
        if !is_downward && !rig.serves() {
            continue;
        }
        let mut image = disk.clone();
        for (index, &file) in freed.iter().rev().take(few).enumerate() {
            if gone >> index & 1 == 1 {
                image.remove(file).expect("listed");
            }
        }
        images.push(("retired", image.clone()));
        for &file in freed.iter().rev().skip(few) {
            image.remove(file).expect("listed");
        }
        images.push(("retired", image));
    }
    images
}

/// Checks an image, and for each kind of step once that the next start goes on from it.
fn check(rig: &Rig, images: Vec<(&'static str, MemoryDisk)>, tally: &mut Tally, name: &str) {
    let mut started = BTreeSet::new();
    for (step, image) in images {
        let opened = open(&image);
        if let Err(problem) = rig.model.check(&opened) {
            panic!("{name}, {step}: {problem}");
        }
        tally.images += 1;
        tally.steps.insert(step);
        if !started.insert(step) {
            continue;
        }
        let mut next = rig.started_on(image);
        next.write_blocks(6, 900);
        next.advance_oldest();
        next.write_blocks(6, 900);
        if let Err(problem) = next.model.check(&open(&next.disk)) {
            panic!("{name}, a start behind {step}: {problem}");
        }
        let mut cut = next.disk.clone();
        cut.crash_by_seed();
        let again = next.started_on(cut);
        assert!(again.model.acked_upto >= rig.model.acked_upto, "{name}");
        tally.starts += 1;
    }
}

/// Cuts here: nothing of the writes in flight arrives, or all of it.
fn cut(rig: &Rig, tally: &mut Tally, name: &str) {
    let whole = vec![Landing::Whole; rig.disk.in_flight().len()];
    for landings in [&[], whole.as_slice()] {
        let disk = rig.disk.crash_image(landings);
        check(rig, during_preparation(rig, &disk), tally, name);
        check(rig, during_retirement(rig, &disk), tally, name);
    }
}

#[test]
fn every_step_of_housekeeping_may_be_the_last() {
    let mut tally = Tally::default();
    for seed in 0..HISTORIES {
        let mut rig = Rig::new(seed, SECTORS);
        for epoch in 0..3 {
            let name = format!("seed {seed}, epoch {epoch}");
            if epoch > 0 {
                let mut disk = rig.disk.clone();
                disk.crash_by_seed();
                rig = rig.restart(disk);
                // Nothing of this epoch is durable: the strictest moment for older files.
                cut(&rig, &mut tally, &name);
            }
            for _ in 0..4 {
                let count = 1 + rig.random.below(4) as usize;
                rig.write_blocks(count, 1500);
                if rig.random.below(3) > 0 {
                    rig.advance_oldest();
                }
            }
            while rig.writer.segments_ready() < 2 {
                cut(&rig, &mut tally, &name);
                rig.prepare(&mut |_| {});
            }
            rig.append_body(1000);
            rig.pump();
            cut(&rig, &mut tally, &name);
            rig.drain();
        }
    }
    let steps = [
        "not begun",
        "created",
        "filled",
        "headed",
        "synced",
        "named",
        "between two folders",
        "set aside",
        "headed again",
        "synced again",
        "named again",
        "retired",
    ];
    assert_eq!(tally.steps, BTreeSet::from(steps));
    println!("{} images, {} starts", tally.images, tally.starts);
    assert!(tally.images > 3_000 && tally.starts > 1_000);
}

/// The test can fail: without the sync of a head before its blocks are written, this is what a cut
/// leaves of a segment that was acknowledged.
#[test]
fn a_head_that_was_not_synced_before_its_blocks_is_no_loss_that_goes_unsaid() {
    for seed in 0..20 {
        let mut rig = Rig::new(seed, SECTORS);
        rig.write_blocks(6, 1500);
        let current = rig.writer.segment().expect("begun");
        let path = rig::path_of(rig.shard, rig.epoch, current);
        let file = rig.disk.find(&path).expect("written to");
        let nothing = [0; SEGMENT_HEAD_SIZE];
        rig.disk.put(file, 0, &nothing).expect("fits");
        assert!(rig.model.check(&open(&rig.disk)).is_err(), "seed {seed}");
    }
}
