//! The single faults: of one block, of one file, of the folder.

use std::ops::Range;
use std::sync::Arc;

use forebay_journal::format::{BLOCK_HEADER_SIZE, SegmentHead, seal_block};
use forebay_journal::storage::memory::Random;

use super::store::{Image, Name, Place, Store};
use crate::rig::seal_of;

const SECTOR: usize = 4096;
/// Places of the payload that are flipped.
const PAYLOAD_SPOTS: usize = 24;

/// One fault.
pub(crate) struct Case<'a> {
    pub(crate) what: &'a str,
    pub(crate) image: &'a Image,
    /// What was changed: index of the file, bytes in it.
    pub(crate) damaged: &'a [(usize, Range<usize>)],
}

impl Case<'_> {
    /// Whether bytes of the block were changed.
    pub(crate) fn reaches(&self, place: &Place) -> bool {
        let block = place.range();
        self.damaged.iter().any(|(file, bytes)| {
            *file == place.file && bytes.start < block.end && block.start < bytes.end
        })
    }
}

/// Takes each case.
pub(crate) type Try<'a> = dyn FnMut(&Case<'_>) + 'a;

/// Changes bytes of one file and tries.
fn with_bytes(
    store: &Store,
    file: usize,
    range: Range<usize>,
    what: &str,
    bytes: &[u8],
    each: &mut Try<'_>,
) {
    let mut image = store.image.clone();
    let content = Arc::make_mut(&mut image[file].bytes);
    content[range.start..range.start + bytes.len()].copy_from_slice(bytes);
    if *content == *store.image[file].bytes {
        return;
    }
    each(&Case {
        what,
        image: &image,
        damaged: &[(file, range)],
    });
}

/// All faults of a stretch of one file that any stretch can have.
fn stretch(
    store: &Store,
    file: usize,
    range: Range<usize>,
    spots: &[usize],
    random: &mut Random,
    each: &mut Try<'_>,
) {
    let sound = store.image[file].bytes[range.clone()].to_vec();
    let mut with = |what: &str, bytes: &[u8]| {
        with_bytes(store, file, range.clone(), what, bytes, each);
    };
    for &at in spots {
        for (kind, mask) in [("bit", 1 << random.below(8)), ("byte", 0xFF)] {
            let mut bytes = sound.clone();
            bytes[at] ^= mask;
            with(&format!("{kind} flip at {at}"), &bytes);
        }
    }
    with("zero", &vec![0; sound.len()]);
    let mut bytes = sound.clone();
    random.fill(&mut bytes);
    with("random", &bytes);
    for from in (0..sound.len()).step_by(SECTOR) {
        let mut bytes = sound.clone();
        bytes[from..from + SECTOR].fill(0);
        with(&format!("zero sector at {from}"), &bytes);
        random.fill(&mut bytes[from..from + SECTOR]);
        with(&format!("random sector at {from}"), &bytes);
        let mut bytes = sound.clone();
        bytes[from..from + 512].fill(0);
        with(&format!("512 zeros at {from}"), &bytes);
    }
    for from in (0..sound.len()).step_by(SECTOR) {
        let mut image = store.image.clone();
        let at = (range.start + from) as u64;
        image[file].unreadable = at..at + SECTOR as u64;
        each(&Case {
            what: &format!("EIO at {from}"),
            image: &image,
            damaged: &[(file, range.clone())],
        });
    }
}

/// All faults of one block.
pub(crate) fn of_block(store: &Store, place: &Place, random: &mut Random, each: &mut Try<'_>) {
    let (file, range) = (place.file, place.range());
    let size = range.len();
    let mut spots: Vec<usize> = (0..BLOCK_HEADER_SIZE).step_by(2).collect();
    spots.extend((0..PAYLOAD_SPOTS).map(|_| random.below(size as u64) as usize));
    spots.extend([BLOCK_HEADER_SIZE, size - 1]);
    stretch(store, file, range.clone(), &spots, random, each);

    let sound = &store.image[file].bytes[range.clone()];
    let mut with = |what: &str, bytes: &[u8]| {
        // A longer one reaches over what is behind; that is damaged then as well.
        let end = (range.start + bytes.len()).min(store.image[file].bytes.len());
        let bytes = &bytes[..end - range.start];
        let damaged = range.start..end.max(range.end);
        with_bytes(store, file, damaged, what, bytes, each);
    };
    with(
        "stale: the same block of a former use",
        &former(store, place, sound),
    );
    for (moment, older) in store.older.iter().enumerate() {
        let name = store.image[file].name;
        let then = older.iter().find(|other| other.name == name);
        if let Some(bytes) = then.and_then(|then| then.bytes.get(range.clone())) {
            with(&format!("stale: as at moment {moment}"), bytes);
        }
    }
    let all = store.shards.iter().flat_map(|known| known.all_blocks());
    for other in all {
        let is_near = other.file == file
            || other
                .header
                .number
                .get()
                .abs_diff(place.header.number.get())
                < 2;
        let is_same = other.file == file && other.header.number == place.header.number;
        if is_near && !is_same {
            let bytes = &store.image[other.file].bytes[other.range()];
            let shard = other.header.place.shard;
            let what = format!("copy of block {} of shard {shard}", other.header.number);
            with(&what, bytes);
        }
    }
}

/// The block as an earlier use of the file could have left it.
fn former(store: &Store, place: &Place, sound: &[u8]) -> Vec<u8> {
    let header = &place.header;
    let head = SegmentHead {
        generation: header.place.generation.wrapping_sub(1) % (1 << 62),
        size: store.image[place.file].bytes.len() as u64,
        ..header.place
    };
    let seal = seal_of(header);
    let mut bytes = sound.to_vec();
    seal_block(&mut bytes, &head, &seal);
    bytes
}

/// All faults of one file as a whole, and of its head.
pub(crate) fn of_file(store: &Store, file: usize, random: &mut Random, each: &mut Try<'_>) {
    let sound = &store.image[file];
    let size = sound.bytes.len();
    let spots: Vec<usize> = (0..80).chain((80..SECTOR).step_by(61)).collect();
    stretch(store, file, 0..SECTOR, &spots, random, each);
    if matches!(sound.name, Name::Identifiers { .. }) {
        for from in (SECTOR..size).step_by(SECTOR) {
            stretch(
                store,
                file,
                from..from + SECTOR,
                &[0, 8, 52, 60, 4090],
                random,
                each,
            );
        }
    }
    let mut with = |what: &str, damaged: &[(usize, Range<usize>)], change: &dyn Fn(&mut Image)| {
        let mut image = store.image.clone();
        change(&mut image);
        each(&Case {
            what,
            image: &image,
            damaged,
        });
    };
    contents(store, file, random, &mut with);
    others(store, file, &mut with);
}

/// Takes what, what was damaged, and how.
type With<'a> = dyn FnMut(&str, &[(usize, Range<usize>)], &dyn Fn(&mut Image)) + 'a;

/// The file is missing, or has other content or another size.
fn contents(store: &Store, file: usize, random: &mut Random, with: &mut With<'_>) {
    let size = store.image[file].bytes.len();
    let own = [(file, 0..size)];
    with("missing", &own, &|image| drop(image.remove(file)));
    with("EIO of all", &own, &|image| {
        image[file].unreadable = 0..size as u64;
    });
    with("zero", &own, &|image| {
        Arc::make_mut(&mut image[file].bytes).fill(0);
    });
    with("zero behind the head", &own, &|image| {
        Arc::make_mut(&mut image[file].bytes)[SECTOR..].fill(0);
    });
    let mut noise = vec![0; size];
    random.fill(&mut noise);
    with("random", &own, &|image| {
        image[file].bytes = Arc::new(noise.clone());
    });
    with("random behind the head", &own, &|image| {
        Arc::make_mut(&mut image[file].bytes)[SECTOR..].copy_from_slice(&noise[SECTOR..]);
    });
    for left in (0..size).step_by(2048).chain([100, size - 1]) {
        with(&format!("cut to {left}"), &[(file, left..size)], &|image| {
            Arc::make_mut(&mut image[file].bytes).truncate(left);
        });
    }
    for more in [1, SECTOR, 5 * SECTOR] {
        with(
            &format!("extended by {more}"),
            &[(file, size..size)],
            &|image| {
                Arc::make_mut(&mut image[file].bytes).resize(size + more, 0);
            },
        );
    }
}

/// In its place is an older copy of it, or another file.
fn others(store: &Store, file: usize, with: &mut With<'_>) {
    let sound = &store.image[file];
    let size = sound.bytes.len();
    let own = [(file, 0..size)];
    for (moment, older) in store.older.iter().enumerate() {
        let then = older.iter().find(|other| other.name == sound.name);
        if let Some(then) = then.filter(|then| then.bytes != sound.bytes) {
            let mut pairs = then.bytes.iter().zip(sound.bytes.iter());
            let first = pairs.position(|(old, new)| old != new).unwrap_or(0);
            let damaged = [(file, first..size)];
            with(&format!("as at moment {moment}"), &damaged, &|image| {
                image[file].bytes = then.bytes.clone();
            });
        }
    }
    for (other, swapped) in store.image.iter().enumerate().filter(|(at, _)| *at != file) {
        let what = format!("swapped with {:?}", swapped.name);
        let both = [(file, 0..size), (other, 0..swapped.bytes.len())];
        with(&what, &both, &|image| swap(image, file, other));
        let what = format!("a copy of {:?}", swapped.name);
        with(&what, &own, &|image| {
            image[file].bytes = swapped.bytes.clone();
        });
    }
}

fn swap(image: &mut Image, one: usize, other: usize) {
    let name = image[one].name;
    image[one].name = image[other].name;
    image[other].name = name;
}

/// The superblock of another folder, and files under the names of another shard.
pub(crate) fn of_identity(store: &Store, foreign: &[u8], each: &mut Try<'_>) {
    let at = store
        .image
        .iter()
        .position(|file| file.name == Name::Superblock);
    let at = at.expect("each store has one");
    let mut image = store.image.clone();
    image[at].bytes = Arc::new(foreign.to_vec());
    let all: Vec<_> = store
        .image
        .iter()
        .enumerate()
        .map(|(index, file)| (index, 0..file.bytes.len()))
        .collect();
    each(&Case {
        what: "the superblock of another folder",
        image: &image,
        damaged: &all,
    });
}
