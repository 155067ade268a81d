//! Segments before the replay's start: some hold bodies that messages need, some are left over.

use std::collections::BTreeMap;

use forebay_journal::format::{Block, Record, SECTOR_SIZE, SegmentHead};
use forebay_journal::reader::{Owner, ReadRequest};
use forebay_journal::recovery::{Recovered, RecoveryError};
use forebay_journal::scrub::{End, Flaw, Scrub};
use forebay_journal::{Lsn, SegmentId};

use crate::faults::Case;
use crate::rig::{JOURNAL, encoded};
use crate::store::{Body, Known, Name, Place, Store};

/// What became of the bodies; the rest of the shard is whole.
pub(crate) enum Outcome {
    /// All are read as they were written.
    Whole,
    /// Who reads some of them is told where they were.
    Named,
    /// The shard does not start: a file that is needed cannot be told to be the one it was.
    Refused(Box<RecoveryError>),
}

/// The store has what is to be swept: bodies, leftovers, and holes between them.
pub(crate) fn check_store(store: &Store, known: &Known) {
    let oldest = known.blocks[0].header.place.segment;
    let there = store.image.iter().filter_map(|file| match file.name {
        Name::Segment { segment, .. } if file.name.concerns(known.shard) => Some(segment),
        _ => None,
    });
    let before: Vec<SegmentId> = there.filter(|segment| *segment < oldest).collect();
    let needed = known.needed();
    let left = before.iter().filter(|segment| !needed.contains(segment));
    let holes = oldest.get() - 1 - before.len() as u64;
    let counts = (needed.len(), left.count(), holes);
    // Also in the epoch that the replay begins in.
    let newest = known.blocks[0].header.place.epoch;
    let mut places = known.older.iter().map(|place| place.header.place);
    let has_any = places.any(|one| one.epoch == newest && needed.contains(&one.segment));
    assert!(has_any, "{}: no bodies in epoch {newest}", store.name);
    assert!(
        counts.0 >= 2 && counts.1 >= 2 && counts.2 >= 2,
        "{}: bodies, leftovers, holes: {counts:?}",
        store.name
    );
}

/// A start is not refused for a fault before the replay's start, unless one file was put in the
/// place of another: then what counts may lie under a wrong name.
pub(crate) fn check_refusal(
    store: &Store,
    known: &Known,
    case: &Case<'_>,
    error: &RecoveryError,
    name: &str,
) {
    let oldest = known.blocks[0].header.place.segment;
    let is_before = |(file, _): &(usize, _)| match store.image[*file].name {
        Name::Segment { shard, segment, .. } => shard == known.shard && segment < oldest,
        Name::Superblock | Name::Identifiers { .. } => false,
    };
    let is_misplaced = case.what.starts_with("swapped") || case.what.starts_with("a copy of");
    let is_needless = case.damaged.iter().all(is_before) && !is_misplaced;
    assert!(!is_needless, "{name}: nothing needs it, yet: {error}");
}

/// Asks for the files that are needed, then for each body in them.
pub(crate) fn judge(known: &Known, case: &Case<'_>, recovered: &Recovered, name: &str) -> Outcome {
    let needed = known.needed();
    let mut recovered = recovered.clone();
    if let Err(error) = recovered.keep_bodies(known.shard, needed.iter().copied()) {
        assert!(needed.contains(&error.segment), "{name}: {error}");
        return Outcome::Refused(Box::new(error));
    }
    let files: BTreeMap<SegmentId, usize> = recovered
        .bodies
        .iter()
        .map(|body| (body.segment, body.file as usize))
        .collect();
    let mut is_whole = true;
    for body in &known.bodies {
        let place = known.older.iter().find(|place| is_in(place, body));
        let place = place.expect("bodies lie in blocks");
        let file = files[&body.location.segment()];
        let is_damaged = case.reaches(place);
        match read(known, case, file, body) {
            Ok(bytes) => assert!(
                bytes == body.bytes,
                "{name}: delivered as good: {}",
                body.lsn
            ),
            Err(reason) => {
                assert!(is_damaged, "{name}: {} is sound, yet: {reason}", body.lsn);
                is_whole = false;
            }
        }
    }
    if is_whole {
        return Outcome::Whole;
    }
    for (&segment, &file) in &files {
        check_scrubbed(known, case, (segment, file), name);
    }
    Outcome::Named
}

fn is_in(place: &Place, body: &Body) -> bool {
    let at = (place.header.place.segment, place.header.offset);
    at == (body.location.segment(), body.location.block_offset())
}

/// Reads a body as a broker does: its block alone, by where it lies.
fn read(known: &Known, case: &Case<'_>, file: usize, body: &Body) -> Result<Vec<u8>, String> {
    let location = body.location;
    let content = &case.image[file];
    let mut bytes = Vec::new();
    let mut at = location.block_offset();
    let mut sector = [0; SECTOR_SIZE];
    while content.read(at, &mut sector).is_ok() {
        bytes.extend_from_slice(&sector);
        at += SECTOR_SIZE as u64;
    }
    let owner = Owner {
        journal: JOURNAL,
        shard: known.shard,
    };
    let mut blocks = Vec::new();
    let (segment, offset) = (location.segment(), location.block_offset());
    let found = owner.sound_blocks(&bytes, segment, offset, &mut blocks);
    let Some(&(start, end)) = blocks.first() else {
        return Err(format!("{found:?}"));
    };
    let block = &bytes[start as usize..end as usize];
    let record = Record::decode_at(block, location.record_offset());
    record
        .map(|record| encoded(&record))
        .map_err(|error| error.to_string())
}

/// The scrubber names each damaged block that another one of its segment lies behind, with the
/// byte and the records that were in it.
fn check_scrubbed(known: &Known, case: &Case<'_>, (segment, file): (SegmentId, usize), name: &str) {
    let of_segment = |place: &&Place| place.header.place.segment == segment;
    let blocks: Vec<&Place> = known.older.iter().filter(of_segment).collect();
    let flaws = scrub(case, file);
    for pair in blocks.windows(2) {
        let [place, next] = pair else { continue };
        if !case.reaches(place) || case.reaches(next) {
            continue;
        }
        let header = &place.header;
        let is_it = |flaw: &&Flaw| {
            let is_there = (flaw.offset..flaw.offset + flaw.size).contains(&header.offset);
            let from = flaw.lsn_from.unwrap_or(Lsn::ZERO);
            let upto = flaw.lsn_upto.expect("a block lies behind it");
            is_there && from <= header.first_lsn && header.next_lsn() <= upto.next()
        };
        let is_sound = is_intact(case, file, place);
        assert!(
            is_sound || flaws.iter().any(|flaw| is_it(&flaw)),
            "{name}: block {} at {} is not named: {flaws:?}",
            header.number,
            header.offset
        );
    }
}

/// Whether the block is there as it was sealed.
fn is_intact(case: &Case<'_>, file: usize, place: &Place) -> bool {
    let mut bytes = vec![0; place.range().len()];
    let is_read = case.image[file]
        .read(place.header.offset, &mut bytes)
        .is_ok();
    let found = Block::decode(&bytes);
    is_read && found.is_ok_and(|block| block.header.identity == place.header.identity)
}

fn scrub(case: &Case<'_>, file: usize) -> Vec<Flaw> {
    let content = &case.image[file];
    let head = SegmentHead::decode(&content.bytes).expect("recovery found it sound");
    let mut scrub = Scrub::new(head, content.bytes.len() as u64, None, End::Unknown);
    let mut flaws = Vec::new();
    while let Some(ReadRequest { offset, len, .. }) = scrub.poll_read() {
        let mut bytes = vec![0; len as usize];
        let read = content.read(offset, &mut bytes);
        scrub.handle_read(read.map(|()| &*bytes));
        flaws.extend(core::iter::from_fn(|| scrub.poll_flaw()));
    }
    scrub.finish();
    flaws.extend(core::iter::from_fn(|| scrub.poll_flaw()));
    flaws
}
