//! The disk itself: what is durable when, and that each fault can be seen.

use super::*;

fn disk() -> (MemoryDisk, FileId) {
    let mut disk = MemoryDisk::new(1);
    let file = disk.create("a", 16 * 4096).expect("no limit");
    (disk, file)
}

fn bytes_at(disk: &MemoryDisk, file: FileId, offset: usize) -> u8 {
    disk.live(file).expect("exists")[offset]
}

#[test]
fn a_write_is_durable_when_it_completes_and_not_before() {
    let (mut disk, file) = disk();
    let first = disk.submit(file, 0, &[1; 4096]).expect("fits");
    let second = disk.submit(file, 4096, &[2; 4096]).expect("fits");
    assert_eq!(bytes_at(&disk, file, 0), 0, "in flight");
    assert_eq!(disk.complete(second).result, Ok(4096), "out of order");
    assert_eq!(disk.in_flight().collect::<Vec<_>>(), [first]);
    let image = disk.crash_image(&[]);
    assert_eq!(
        (bytes_at(&image, file, 0), bytes_at(&image, file, 4096)),
        (0, 2)
    );
    let image = disk.crash_image(&[Landing::Suffix { sectors: 3 }]);
    assert_eq!(bytes_at(&image, file, 3 * 512 - 1), 0);
    assert_eq!(bytes_at(&image, file, 3 * 512), 1);
    assert_eq!(image.in_flight().len(), 0);
    assert_eq!(
        disk.submit(file, 15 * 4096, &[0; 8192]),
        Err(DiskError::OutOfRange)
    );
}

#[test]
fn every_subset_is_tried_once() {
    let all = landings(&[4096, 8192], 100);
    let whole = all.iter().filter(|l| {
        l.iter()
            .all(|one| matches!(one, Landing::Whole | Landing::Absent))
    });
    assert_eq!(whole.count(), 4);
    // 7 and 15 inner borders, three ways each, with the other write whole or absent.
    assert_eq!(all.len(), 4 + (7 + 15) * 3 * 2);
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{one:?} twice");
    }
    assert_eq!(landings(&[], 3), [Vec::new()]);
}

#[test]
fn writes_torn_together_are_all_torn() {
    let is_torn = |landing: &Landing, size: usize| {
        let arrives: usize = landing.ranges(size).map(|range| range.len()).sum();
        (1..size).contains(&arrives)
    };
    let mut random = Random::new(3);
    let every = torn_together(&mut random, &[4096, 8192], 1000);
    assert_eq!(every.len(), (7 * 3) * (15 * 3));
    for (index, one) in every.iter().enumerate() {
        assert!(is_torn(&one[0], 4096) && is_torn(&one[1], 8192), "{one:?}");
        assert!(!every[..index].contains(one), "{one:?} twice");
    }
    let drawn = torn_together(&mut random, &[4096, 65_536], 1000);
    assert_eq!(drawn.len(), 1000);
    // A mask may by chance be one of all or nothing.
    let torn = drawn
        .iter()
        .filter(|one| is_torn(&one[0], 4096) && is_torn(&one[1], 65_536));
    assert!(torn.count() > 950);
    let prefixes = |one: &Vec<Landing>| match one[..] {
        [
            Landing::Prefix { sectors: first },
            Landing::Prefix { sectors: second },
        ] => Some((first, second)),
        _ => None,
    };
    let pairs: std::collections::BTreeSet<_> = drawn.iter().filter_map(prefixes).collect();
    assert!(pairs.len() > 40, "cuts are drawn apart: {pairs:?}");
    assert!(torn_together(&mut random, &[4096], 1000).is_empty());
}

/// Runs 1000 writes under one fault and counts results and wrong durable bytes.
fn under(faults: Faults) -> (usize, usize, usize) {
    let (mut disk, file) = disk();
    disk.set_faults(faults);
    let (mut errors, mut shorts, mut wrong) = (0, 0, 0);
    for round in 0..1000_u32 {
        let value = (round % 251) as u8 + 1;
        let ticket = disk.submit(file, 4096, &[value; 4096]).expect("fits");
        match disk.complete(ticket).result {
            Err(error) => {
                let is_full = faults.write_full_permille > 0;
                let expected = if is_full {
                    DiskError::Full
                } else {
                    DiskError::Io
                };
                assert_eq!(error, expected);
                errors += 1;
            }
            Ok(4096) => {
                let image = disk.crash_image(&[]);
                wrong +=
                    usize::from(image.live(file).expect("exists")[4096..8192] != [value; 4096]);
            }
            Ok(_) => shorts += 1,
        }
    }
    (errors, shorts, wrong)
}

#[test]
fn each_fault_shows_and_none_shows_unasked() {
    assert_eq!(under(Faults::default()), (0, 0, 0));
    let (errors, ..) = under(Faults {
        write_error_permille: 100,
        ..Faults::default()
    });
    assert!((50..200).contains(&errors), "{errors}");
    let (errors, ..) = under(Faults {
        write_full_permille: 100,
        ..Faults::default()
    });
    assert!((50..200).contains(&errors), "{errors}");
    let (_, shorts, _) = under(Faults {
        short_permille: 100,
        ..Faults::default()
    });
    assert!((50..200).contains(&shorts), "{shorts}");
    let (.., wrong) = under(Faults {
        lost_permille: 100,
        ..Faults::default()
    });
    assert!((50..200).contains(&wrong), "{wrong}");
    let (.., wrong) = under(Faults {
        misdirected_permille: 100,
        ..Faults::default()
    });
    assert!((40..200).contains(&wrong), "{wrong}");
}

#[test]
fn full_and_unreadable_are_answers() {
    let (mut disk, file) = disk();
    disk.set_capacity(20 * 4096);
    assert_eq!(disk.create("b", 5 * 4096), Err(DiskError::Full));
    assert!(disk.create("b", 4 * 4096).is_ok());
    disk.make_unreadable(file, 4096).expect("exists");
    let mut out = [0; 4096];
    assert_eq!(disk.read(file, 4096, &mut out), Err(DiskError::Io));
    assert_eq!(disk.read(file, 8192, &mut out), Ok(()));
    disk.make_readable();
    assert_eq!(disk.read(file, 4096, &mut out), Ok(()));
    disk.make_unreadable(file, 4096).expect("exists");
    disk.put(file, 4096, &[9; 4096]).expect("fits");
    assert_eq!(disk.read(file, 4096, &mut out), Ok(()));
    disk.set_faults(Faults {
        read_error_permille: 1000,
        ..Faults::default()
    });
    assert_eq!(disk.read(file, 4096, &mut out), Err(DiskError::Io));
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let mut disk = MemoryDisk::new(seed);
        let file = disk.create("a", 64 * 4096).expect("no limit");
        for round in 0..20_u64 {
            disk.submit(file, round * 4096, &[round as u8 + 1; 8192])
                .expect("fits");
            if round % 3 == 0 {
                let ticket = disk.draw().expect("some are in flight");
                disk.complete(ticket);
            }
        }
        disk.crash_by_seed();
        disk.live(file).expect("exists").to_vec()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
