//! The scrubber: nothing to say about what a writer wrote, whatever lies behind it or in files used
//! before; and each single fault in a block that counts, by its place and records.

mod rig;

use std::collections::BTreeMap;

use forebay_journal::SegmentId;
use forebay_journal::format::{Block, BlockHeader, SEGMENT_HEAD_SIZE, SegmentHead};
use forebay_journal::reader::ReadError;
use forebay_journal::scrub::{End, Fault, Flaw, Joint, Scrub};
use rig::real::RealWriter;
use rig::{BlockSource, RigOf, open};

/// A segment that counts, with the bytes of its file.
#[derive(Clone)]
struct Segment {
    head: SegmentHead,
    bytes: Vec<u8>,
    unreadable: Option<u64>,
    /// Headers of the blocks that count.
    blocks: Vec<BlockHeader>,
}

type Segments = BTreeMap<SegmentId, Segment>;

/// Three epochs with recycled files, the second one cut by a crash.
fn history(seed: u64) -> Segments {
    let mut rig = RigOf::<RealWriter>::new(seed, 9);
    for (epoch, count) in [14, 12, 12].into_iter().enumerate() {
        if epoch > 0 {
            let mut disk = rig.disk.clone();
            disk.crash_by_seed();
            rig = rig.restart(disk);
        }
        for _ in 0..count {
            rig.prepare_all(&mut |_| {});
            for _ in 0..=rig.random.below(3) {
                let size = rig.random.below(1500) as usize;
                rig.append_any(size);
            }
            rig.drain();
            let current = rig.writer.segment().map_or(0, SegmentId::get);
            // Every other history frees and recycles files.
            if seed.is_multiple_of(2) && current > rig.writer.oldest_segment().get() + 5 {
                rig.advance_oldest();
            }
        }
        if epoch == 1 {
            rig.append_body(700);
            rig.pump();
        }
    }
    segments(&rig)
}

fn segments(rig: &RigOf<RealWriter>) -> Segments {
    let opened = open(&rig.disk);
    let recovered = opened.result.expect("sound");
    let files: BTreeMap<u32, _> = rig.disk.files().map(|(id, ..)| (id.index(), id)).collect();
    let counted = recovered.segments.iter().map(|segment| {
        let bytes = rig
            .disk
            .live(files[&segment.file])
            .expect("listed")
            .to_vec();
        let head = SegmentHead::decode(&bytes).expect("sound");
        let mut blocks = Vec::new();
        let mut at = SEGMENT_HEAD_SIZE;
        while at < segment.used_bytes as usize {
            let header = Block::decode(&bytes[at..]).expect("counted").header;
            blocks.push(header);
            at += header.block_size as usize;
        }
        let unreadable = None;
        let segment = Segment {
            head,
            bytes,
            unreadable,
            blocks,
        };
        (segment.head.segment, segment)
    });
    counted.collect()
}

/// Scrubs one segment with what its neighbours say.
fn scrub(segment: &Segment, start: Option<Joint>, end: End) -> Vec<Flaw> {
    let sector = &segment.bytes[..SEGMENT_HEAD_SIZE];
    let head = segment.head;
    let mut flaws: Vec<Flaw> = Scrub::check_head(Ok(sector), &head).into_iter().collect();
    let mut scrub = Scrub::new(head, segment.bytes.len() as u64, start, end);
    while let Some(request) = scrub.poll_read() {
        let range = request.offset as usize..request.offset as usize + request.len as usize;
        let is_bad = segment
            .unreadable
            .is_some_and(|bad| range.contains(&(bad as usize)));
        let bytes = &segment.bytes[range];
        scrub.handle_read(if is_bad {
            Err(ReadError::Io { code: 5 })
        } else {
            Ok(bytes)
        });
        flaws.extend(std::iter::from_fn(|| scrub.poll_flaw()));
    }
    scrub.finish();
    flaws.extend(std::iter::from_fn(|| scrub.poll_flaw()));
    flaws
}

/// All but the last segment, which is not sealed, with what the neighbours say.
fn sealed(segments: &Segments) -> Vec<(&Segment, Option<Joint>, End)> {
    let all: Vec<&Segment> = segments.values().collect();
    let mut start = None;
    let mut sealed = Vec::new();
    for pair in all.windows(2) {
        let end = Joint::before(&pair[1].blocks[0]);
        sealed.push((pair[0], start, End::Before(end)));
        start = Some(end);
    }
    sealed
}

/// The same end, by its byte.
fn used(segment: &Segment) -> End {
    let last = segment.blocks.last().expect("some");
    End::At(last.offset + u64::from(last.block_size))
}

#[test]
fn nothing_is_said_about_what_was_written() {
    let (mut count, mut recycled, mut cut) = (0, 0, 0);
    for seed in 0..60 {
        let segments = history(seed);
        for (segment, start, end) in sealed(&segments) {
            assert_eq!(scrub(segment, start, end), [], "seed {seed}");
            // Less is known at the ends of what is kept.
            assert_eq!(scrub(segment, None, end), []);
            assert_eq!(scrub(segment, start, End::Unknown), []);
            assert_eq!(scrub(segment, start, used(segment)), []);
            count += 1;
            recycled += u64::from(segment.head.generation > 0);
            let used = segment.blocks.last().expect("some").offset as usize;
            cut += u64::from(segment.bytes[used + 4096..].iter().any(|&byte| byte != 0));
        }
    }
    assert!(
        count > 200 && recycled > 100 && cut > 5,
        "{count} {recycled} {cut}"
    );
}

#[test]
fn each_fault_of_a_block_is_named() {
    let mut tried = 0;
    for seed in 0..12 {
        let segments = history(seed);
        for (segment, start, end) in sealed(&segments) {
            for block in &segment.blocks {
                for fault in 0..5 {
                    let mut broken = segment.clone();
                    let at = block.offset as usize;
                    let range = at..at + block.block_size as usize;
                    match fault {
                        0 => broken.bytes[at + 20] ^= 1,
                        1 => broken.bytes[range.end - 1] ^= 0x80,
                        2 => broken.bytes[range].fill(0),
                        3 => broken.unreadable = Some(block.offset),
                        _ => {
                            // A block of the same file, where this one was: a misdirected write.
                            let other = segment.blocks.iter().find(|other| {
                                other.offset != block.offset && other.block_size == block.block_size
                            });
                            let Some(other) = other else { continue };
                            let from = other.offset as usize;
                            let copy = segment.bytes[from..from + range.len()].to_vec();
                            broken.bytes[range].copy_from_slice(&copy);
                        }
                    }
                    let flaws = scrub(&broken, start, end);
                    let [flaw] = flaws.as_slice() else {
                        panic!("seed {seed}, fault {fault} of {block:?}: {flaws:?}");
                    };
                    // By the byte alone it is not known which records the last block had.
                    let by_byte = scrub(&broken, start, used(segment));
                    assert_eq!(by_byte.len(), 1, "{by_byte:?}");
                    assert_eq!(by_byte[0].offset, flaw.offset);
                    let is_start_known = start.is_some() || flaw.offset > 4096;
                    assert_eq!(flaw.offset, block.offset, "{flaw:?}");
                    assert_eq!(flaw.lsn_upto, Some(block.next_lsn().before()), "{flaw:?}");
                    if is_start_known {
                        assert_eq!(flaw.lsn_from, Some(block.first_lsn), "{flaw:?}");
                    }
                    let is_named = match fault {
                        0 | 1 => matches!(flaw.fault, Fault::Block(_)),
                        2 => flaw.fault == Fault::Zeros,
                        3 => flaw.fault == Fault::Unreadable,
                        _ => matches!(flaw.fault, Fault::Stale("offset")),
                    };
                    assert!(is_named, "fault {fault}: {flaw:?}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn a_head_that_is_not_the_files_is_named() {
    let segments = history(1);
    let (segment, start, end) = sealed(&segments)[0];
    let mut broken = segment.clone();
    broken.bytes[33] ^= 1;
    let flaws = scrub(&broken, start, end);
    assert!(
        matches!(
            flaws.as_slice(),
            [Flaw {
                offset: 0,
                fault: Fault::Head(_),
                ..
            }]
        ),
        "{flaws:?}"
    );
    let unread = Scrub::check_head(Err(ReadError::Short), &segment.head);
    assert_eq!(unread.map(|flaw| flaw.fault), Some(Fault::Unreadable));
}

#[test]
fn sealed_blocks_that_are_gone_are_told_by_the_next_segment() {
    let segments = history(2);
    let (segment, start, end) = sealed(&segments)[1];
    let mut broken = segment.clone();
    broken.bytes[SEGMENT_HEAD_SIZE..].fill(0);
    let flaws = scrub(&broken, start, end);
    let [flaw] = flaws.as_slice() else {
        panic!("{flaws:?}");
    };
    assert_eq!(flaw.fault, Fault::Zeros);
    assert_eq!(flaw.lsn_from, start.map(|joint| joint.lsn));
    assert_eq!(
        flaw.lsn_upto,
        match end {
            End::Before(joint) => Some(joint.lsn.before()),
            _ => None,
        }
    );
}
