//! J03, J04, J06, J08: the power is cut at every write boundary of random workloads. Whatever
//! subset of the writes in flight arrived, whole or torn: the journal opens, every acknowledged
//! record is found byte for byte, none is invented, and the next start goes on from there.

mod rig;

use forebay_journal::format::{Block, Record};
use forebay_journal::recovery::table::Verdict;
use forebay_journal::recovery::{Evidence, Recovered};
use forebay_journal::storage::memory::{Landing, MemoryDisk, landings};
use rig::real::RealWriter;
use rig::{BlockSource, RigOf, TestWriter, open, open_with};

const WORKLOADS: u64 = 400;
const STEPS: u64 = 60;
const EPOCHS: u64 = 5;
const IMAGES_MIN: u64 = 20_000;

/// What was tried.
#[derive(Default)]
struct Tally {
    images: u64,
    ends: u64,
    cuts: u64,
    repeats: u64,
    rows: [u64; 11],
}

/// Opens one image and compares.
fn try_image<W: BlockSource>(rig: &RigOf<W>, landing: &[Landing], tally: &mut Tally, name: &str) {
    let image = rig.disk.crash_image(landing);
    let opened = open(&image);
    tally.images += 1;
    if let Err(problem) = rig.model.check(&opened) {
        panic!("{name}, image {} with {landing:?}: {problem}", tally.images);
    }
    let recovered = opened.result.expect("the model accepted it");
    tally.rows[usize::from(recovered.row.number)] += 1;
    match recovered.row.verdict {
        Verdict::End => tally.ends += 1,
        Verdict::CutTail => {
            let cut = recovered.cut.as_ref().expect("a cut says what it cuts");
            assert_eq!(cut.lsn_from, recovered.next_lsn);
            check_quarantine(rig, landing, &image, &recovered);
            tally.cuts += 1;
        }
        Verdict::Corrupt => unreachable!("would not have opened"),
    }
    if tally.images.is_multiple_of(7) {
        // J08: again, in reads of another size, gives the same and changes nothing.
        let again = open_with(&image, Evidence::default(), 4096 << (tally.images % 3));
        assert_eq!(
            again.records, opened.records,
            "{name}: recovery is not idempotent"
        );
        let again = again.result.expect("opened before");
        assert_eq!(format!("{again:?}"), format!("{recovered:?}"));
        tally.repeats += 1;
    }
}

/// Whatever arrived whole and does not count goes to quarantine whole.
fn check_quarantine<W: BlockSource>(
    rig: &RigOf<W>,
    landing: &[Landing],
    image: &MemoryDisk,
    recovered: &Recovered,
) {
    let ranges = recovered.cut.as_ref().map_or(&[][..], |cut| &cut.ranges);
    for ((file, offset, size), landing) in rig.disk.in_flight_places().zip(landing) {
        let bytes = &image.live(file).expect("exists")[offset as usize..];
        let header = Block::decode(bytes).map(|block| block.header);
        let is_cut = header.is_ok_and(|header| header.number >= recovered.next_block);
        if *landing != Landing::Whole || !is_cut {
            continue;
        }
        let is_kept = ranges.iter().any(|range| {
            let (from, to) = (range.offset, range.offset + range.bytes);
            range.file == file.index() && from <= offset && offset + size as u64 <= to
        });
        assert!(
            is_kept,
            "a block of {size} bytes at {offset} is in none of {ranges:?}"
        );
    }
}

/// All landings of what is in flight now.
fn try_all<W: BlockSource>(rig: &RigOf<W>, cuts_max: usize, tally: &mut Tally, name: &str) {
    for landing in landings(&rig.disk.in_flight_sizes(), cuts_max) {
        try_image(rig, &landing, tally, name);
    }
}

fn step<W: BlockSource>(rig: &mut RigOf<W>, tally: &mut Tally, name: &str) {
    match rig.random.below(10) {
        0..=3 => {
            let large = rig.random.below(4) == 0;
            let size = rig.random.below(if large { 12_000 } else { 900 }) as usize;
            rig.append_body(size);
            return;
        }
        4 | 5 => {
            if !rig.pump() {
                return;
            }
        }
        6 | 7 => {
            if !rig.complete() {
                return;
            }
        }
        8 => {
            if !rig.seal_idle() {
                return;
            }
        }
        _ if rig.random.below(2) == 0 => return rig.retain_now(),
        _ => return rig.advance_oldest(),
    }
    let cuts_max = rig.random.below(3) as usize;
    try_all(rig, cuts_max, tally, name);
}

fn run_epoch<W: BlockSource>(mut rig: RigOf<W>, tally: &mut Tally, name: &str) -> RigOf<W> {
    let steps = rig.random.below(STEPS);
    for _ in 0..steps {
        rig.prepare_all(&mut |rig| try_all(rig, 0, tally, name));
        step(&mut rig, tally, name);
    }
    if rig.random.below(3) == 0 {
        rig.prepare_all(&mut |_| {});
        rig.drain();
        rig.append(&Record::CleanShutdown { unix_ms: 1 });
        while rig.pump() {
            try_all(&rig, 2, tally, name);
        }
        rig.drain();
        let recovered = open(&rig.disk).result.expect("stopped in order");
        assert!(recovered.is_clean_shutdown, "{name}");
        try_all(&rig, 0, tally, name);
    }
    // One of the images becomes the disk of the next start.
    let mut image = rig.disk.clone();
    image.crash_by_seed();
    if let Err(problem) = rig.model.check(&open(&image)) {
        panic!("{name}: {problem}");
    }
    tally.images += 1;
    rig.restart(image)
}

fn cut_the_power<W: BlockSource>(name: &str) {
    let mut tally = Tally::default();
    for seed in 0..WORKLOADS {
        let mut rig = RigOf::<W>::new(seed, 5 + seed % 5);
        for epoch in 0..EPOCHS {
            rig = run_epoch(
                rig,
                &mut tally,
                &format!("{name}, seed {seed}, epoch {epoch}"),
            );
        }
    }
    let Tally {
        images,
        ends,
        cuts,
        repeats,
        rows,
    } = tally;
    eprintln!("{name}: {images} images opened ({ends} ends, {cuts} cuts, {repeats} again)");
    eprintln!("{name}: rows of the table used: {rows:?}");
    assert!(images >= IMAGES_MIN, "only {images} images");
    assert!(
        ends > 1000 && cuts > 1000,
        "one-sided: {ends} ends, {cuts} cuts"
    );
    for row in [7, 8, 9, 10] {
        assert!(rows[row] > 10, "row {row} was hardly tried: {rows:?}");
    }
}

#[test]
fn every_image_of_a_power_cut_opens_with_all_that_was_acknowledged() {
    cut_the_power::<TestWriter>("plain writer");
}

#[test]
fn the_same_with_the_real_writer() {
    cut_the_power::<RealWriter>("real writer");
}
