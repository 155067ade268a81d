//! J03, J04, J06, J08: the power is cut at every write boundary of random workloads with records
//! of every kind. Whatever subset of the writes in flight arrived, whole, one of them torn or all
//! of them, at 512 bytes: the journal opens, every acknowledged record is found byte for byte,
//! none is invented, and the next start goes on from there.
//!
//! Each subset of whole writes is tried. Of the places to tear at, a few are tried for one write
//! at a time; for both at once, a few pairs are drawn, and now and then every pair there is.
//! `FOREBAY_POWER_CUT_WORKLOADS=40000` tries more.

mod rig;

use forebay_journal::format::{Block, Identifier, Kind, Record};
use forebay_journal::recovery::table::Verdict;
use forebay_journal::recovery::{Evidence, Problem, Recovered};
use forebay_journal::storage::memory::{Landing, MemoryDisk, Random, landings, torn_together};
use rig::real::{RealWriter, StrictWriter};
use rig::{BlockSource, RigOf, TestWriter, open, open_with};

const WORKLOADS: u64 = 400;
const STEPS: u64 = 60;
const EPOCHS: u64 = 5;
const IMAGES_MIN: u64 = 20_000;
/// Pairs of cuts tried where two writes are in flight.
const PAIRS: usize = 16;
/// All pairs of cuts of two writes of one or two sectors of 4 KiB.
const PAIRS_ALL: usize = 1000;

/// What was tried.
struct Tally {
    /// Draws what to tear, apart from the workload's own seed.
    random: Random,
    images: u64,
    /// Images with both writes in flight torn, and boundaries with every pair of cuts.
    torn_together: u64,
    exhausted: u64,
    /// Records found, by the number of their kind.
    kinds: [u64; Kind::Moved as usize + 1],
    ends: u64,
    cuts: u64,
    repeats: u64,
    rows: [u64; 11],
}

impl Tally {
    const fn new() -> Self {
        Self {
            random: Random::new(0x70_12),
            images: 0,
            torn_together: 0,
            exhausted: 0,
            kinds: [0; Kind::Moved as usize + 1],
            ends: 0,
            cuts: 0,
            repeats: 0,
            rows: [0; 11],
        }
    }

    /// Fails unless enough of everything was tried.
    fn check(&self, name: &str) {
        let Self {
            images,
            torn_together,
            exhausted,
            kinds,
            ends,
            cuts,
            repeats,
            rows,
            ..
        } = self;
        eprintln!("{name}: {images} images opened ({ends} ends, {cuts} cuts, {repeats} again)");
        eprintln!("{name}: {torn_together} with both writes torn, all pairs {exhausted} times");
        eprintln!("{name}: rows of the table used: {rows:?}; records by kind: {kinds:?}");
        assert!(*images >= IMAGES_MIN, "only {images} images");
        assert!(*torn_together >= IMAGES_MIN, "only {torn_together} pairs");
        assert!(*exhausted >= 10, "all pairs only {exhausted} times");
        assert!(
            *ends > 1000 && *cuts > 1000,
            "one-sided: {ends} ends, {cuts} cuts"
        );
        for row in [7, 8, 9, 10] {
            assert!(rows[row] > 10, "row {row} was hardly tried: {rows:?}");
        }
        let rare = kinds[1..].iter().position(|&count| count < 100);
        assert!(rare.is_none(), "a kind was hardly tried: {kinds:?}");
    }
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
        for (.., bytes) in &opened.records {
            tally.kinds[usize::from(bytes[0])] += 1;
        }
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

/// Landings of two writes in flight that are both torn.
fn try_pairs<W: BlockSource>(rig: &RigOf<W>, tally: &mut Tally, name: &str) {
    let is_all = tally.random.below(50) == 0;
    let count_max = if is_all { PAIRS_ALL } else { PAIRS };
    let sizes = rig.disk.in_flight_sizes();
    let pairs = torn_together(&mut tally.random, &sizes, count_max);
    tally.torn_together += pairs.len() as u64;
    tally.exhausted += u64::from(is_all && !pairs.is_empty() && pairs.len() < count_max);
    for landing in pairs {
        try_image(rig, &landing, tally, name);
    }
}

fn step<W: BlockSource>(rig: &mut RigOf<W>, tally: &mut Tally, name: &str) {
    match rig.random.below(10) {
        0..=3 => {
            let large = rig.random.below(4) == 0;
            let size = rig.random.below(if large { 12_000 } else { 900 }) as usize;
            rig.append_any(size);
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
    try_pairs(rig, tally, name);
}

/// Workloads to run.
fn workloads() -> u64 {
    let asked = std::env::var("FOREBAY_POWER_CUT_WORKLOADS").ok();
    asked.map_or(WORKLOADS, |text| text.parse().expect("a number"))
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
            try_pairs(&rig, tally, name);
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

fn cut_the_power<W: BlockSource>(name: &str, workloads: u64) {
    let mut tally = Tally::new();
    for seed in 0..workloads {
        let mut rig = RigOf::<W>::new(seed, 5 + seed % 5);
        for epoch in 0..EPOCHS {
            rig = run_epoch(
                rig,
                &mut tally,
                &format!("{name}, seed {seed}, epoch {epoch}"),
            );
        }
    }
    tally.check(name);
}

#[test]
fn every_image_of_a_power_cut_opens_with_all_that_was_acknowledged() {
    cut_the_power::<TestWriter>("plain writer", workloads());
}

#[test]
fn the_same_with_the_real_writer() {
    cut_the_power::<RealWriter>("real writer", workloads());
}

/// Strict mode: what is named was durable, so that a power cut alone is never taken for damage.
#[test]
fn the_same_in_strict_mode() {
    cut_the_power::<StrictWriter>("strict mode", workloads() / 2);
}

/// Why an identifier is written behind its block and not beside it: with one that arrived when its
/// block did not, a plain power cut would be taken for the loss of what was acknowledged.
#[test]
fn an_identifier_beside_its_block_would_refuse_a_plain_power_cut() {
    let mut rig = RigOf::<StrictWriter>::new(21, 8);
    rig.write_blocks(3, 500);
    assert!(rig.append_body(500) && rig.pump());
    let (file, offset, _) = rig.disk.in_flight_places().next().expect("one block");
    let arrived = rig.disk.crash_image(&[Landing::Whole]);
    let bytes = &arrived.live(file).expect("exists")[offset as usize..];
    let header = Block::decode(bytes).expect("arrived").header;
    let beside = Identifier {
        journal: rig::JOURNAL,
        shard: rig.shard,
        epoch: rig.epoch,
        sequence: 4,
        block: header.number,
        lsn: header.next_lsn().before(),
        identity: header.identity,
    };
    let mut image = rig.disk.crash_image(&[]);
    rig.model.check(&open(&image)).expect("nobody was told");
    let path = rig::identifier_path(rig.shard, rig.epoch);
    let identifiers = image.find(&path).expect("made");
    image
        .put(identifiers, beside.offset(), &beside.encode())
        .expect("fits");
    let error = open(&image).result.expect_err("as if it had been told");
    assert!(
        matches!(error.problem, Problem::Table { row, .. } if row.number == 3),
        "{error}"
    );
}
