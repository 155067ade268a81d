//! Recovery says which reads come next: then a driver has several under way.

use forebay_journal::recovery::Evidence;

mod rig;
use rig::{Rig, open_with};

/// Phases that begin with a read nobody foresees: the survey, the walk of the last segments, the
/// look ahead, the walk of all.
const PHASES: usize = 4;

#[test]
fn each_read_is_foreseen_but_the_first_of_a_phase() {
    let sectors = 16;
    let mut rig = Rig::new(7, sectors);
    for epoch in 1..=3 {
        rig.write_blocks(40, 4000);
        if epoch == 2 {
            rig.stop();
        }
        let disk = rig.disk.clone();
        let read_size = 4096 * 4;
        let opened = open_with(&disk, Evidence::default(), read_size);
        let recovered = opened.result.as_ref().expect("sound");
        assert!(recovered.segments.len() >= 3 * epoch, "several segments");
        assert!(opened.reads.asked.len() > 20 * epoch);
        // What lies behind a seal is foreseen for nothing, once for each epoch that has one.
        let seals = epoch - 1;
        assert!(
            opened.reads.unforeseen <= PHASES + seals,
            "{} of {} reads were not foreseen",
            opened.reads.unforeseen,
            opened.reads.asked.len()
        );
        rig = rig.restart(disk);
    }
}

#[test]
fn the_first_block_of_a_segment_takes_one_read_whatever_its_size() {
    let mut rig = Rig::new(8, 160);
    rig.write_blocks(12, 200_000);
    let opened = open_with(&rig.disk, Evidence::default(), 1 << 20);
    let segments = opened.result.as_ref().expect("sound").segments.len();
    assert!(segments > 3, "{segments} segments");
    let files = rig.disk.files().count();
    let surveyed = &opened.reads.asked[..files];
    let mut read: Vec<_> = surveyed.iter().map(|read| read.file).collect();
    read.dedup();
    assert_eq!(read.len(), files, "each file once: {surveyed:?}");
}

#[test]
fn only_the_last_segment_is_read_twice() {
    let mut rig = Rig::new(9, 160);
    rig.write_blocks(40, 60_000);
    let opened = open_with(&rig.disk, Evidence::default(), 1 << 20);
    let recovered = opened.result.as_ref().expect("sound");
    let (last, before) = recovered.segments.split_last().expect("some");
    assert!(before.len() > 2 && recovered.totals.blocks == 40);
    // Each has one read for its first block, and two for the rest of 640 KiB at most.
    let reads_of = |file: u32| {
        opened
            .reads
            .asked
            .iter()
            .filter(move |read| read.file == file)
    };
    for segment in before {
        let bytes: u64 = reads_of(segment.file).map(|read| u64::from(read.len)).sum();
        let once = segment.size + 256 * 1024;
        assert!(bytes <= once, "{bytes} bytes of {:?}", segment.segment);
    }
    assert!(reads_of(last.file).count() > 2);
}
