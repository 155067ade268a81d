//! Journals that were changed behind the broker's back, and tails that a crash left.

#![allow(clippy::disallowed_methods, reason = "a test looks at files")]

use std::time::Duration;

use forebay::housekeeping::lock::FolderLock;

use crate::broker::Setup;
use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::{disk, drain, send, small};

/// Messages sent one by one, so that each has a block of its own.
const MESSAGES: usize = 40;

/// A journal of many blocks whose broker was killed when the last one on disk was an idle seal.
fn killed(name: &str) -> Setup {
    let mut setup = small(name);
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    for number in 0..MESSAGES {
        send(&mut client, "/queue/d", number.to_string().as_bytes());
    }
    wait_until(Duration::from_secs(10), "an idle seal at the end", || {
        let segments = disk::segments(&setup.data);
        let last = segments.last().and_then(|segment| segment.blocks.last());
        last.is_some_and(|block| block.is_idle_seal())
    });
    running.kill();
    // The lock comes free only when the last writes of the dead have landed.
    drop(FolderLock::take(&setup.data, "a test").expect("the killed broker has ended"));
    setup
}

#[test]
fn a_damaged_block_in_the_middle_is_refused_naming_file_and_byte() {
    let setup = killed("middle");
    let segments = disk::segments(&setup.data);
    let segment = &segments[0];
    let block = &segment.blocks[segment.blocks.len() / 2];
    disk::flip(&segment.path, block.offset + 200);
    let before = disk::snapshot(&setup.data);
    let file = segment.path.display().to_string();
    let offset = format!("byte {}", block.offset);
    let record = format!("records {}", block.first_lsn);
    let refused = setup.refused();
    refused.expect(
        3,
        &[
            "journal of shard 0 is damaged",
            &file,
            &offset,
            &record,
            "Nothing was changed",
        ],
    );
    assert!(
        disk::snapshot(&setup.data) == before,
        "a refused journal was changed"
    );
    // The same answer again, and with the byte put right everything is there.
    assert_eq!(setup.refused().code, Some(3));
    disk::flip(&segment.path, block.offset + 200);
    let mut setup = setup;
    let running = setup.start();
    assert_eq!(drain(running.address(), "/queue/d").len(), MESSAGES);
}

#[test]
fn a_damaged_head_of_a_segment_is_refused() {
    let setup = killed("head");
    let segments = disk::segments(&setup.data);
    disk::flip(&segments[0].path, 16);
    let file = segments[0].path.display().to_string();
    setup.refused().expect(3, &["damaged", &file, "head"]);
}

#[test]
fn a_torn_tail_is_cut_and_told() {
    let mut setup = killed("tail");
    let segments = disk::segments(&setup.data);
    let segment = segments.last().unwrap();
    let block = segment.blocks.last().unwrap();
    disk::flip(&segment.path, block.offset + 100);
    let running = setup.start();
    let said = running.said();
    let cut = format!("from record {} on (", block.first_lsn);
    for word in [
        "not stopped in order",
        "shard 0: cut ",
        &cut,
        "nothing of it was acknowledged",
        "quarantine",
    ] {
        assert!(said.contains(word), "{word:?} not in: {said}");
    }
    let quarantined = disk::snapshot(&setup.data.join("journal/quarantine"));
    assert_eq!(quarantined.len(), 1, "{:?}", quarantined.keys());
    assert!(said.contains("1 files, 4096 bytes that this start or one before cut"));
    let messages = drain(running.address(), "/queue/d");
    let bodies: Vec<_> = messages
        .iter()
        .map(|m| String::from_utf8_lossy(&m.body))
        .collect();
    let expected: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(bodies, expected);
}

/// What cannot be kept is not cut: no epoch is claimed, and the next start finds the same tail.
#[test]
fn without_a_copy_in_the_quarantine_nothing_is_cut() {
    let mut setup = killed("uncopied");
    let segments = disk::segments(&setup.data);
    let segment = segments.last().unwrap();
    disk::flip(&segment.path, segment.blocks.last().unwrap().offset + 100);
    let quarantine = setup.data.join("journal/quarantine");
    std::fs::write(&quarantine, "in the way").unwrap();
    let before = disk::snapshot(&setup.data);
    setup.refused().expect(3, &["journal/quarantine"]);
    assert!(disk::snapshot(&setup.data) == before, "something was cut");

    std::fs::remove_file(&quarantine).unwrap();
    let running = setup.start();
    assert!(running.said().contains("shard 0: cut "));
    assert_eq!(drain(running.address(), "/queue/d").len(), MESSAGES);
}

/// A start that ended before its cut took effect cuts again. What is there stays as it is.
#[test]
fn what_lies_in_the_quarantine_is_never_overwritten() {
    let mut setup = killed("kept");
    let segments = disk::segments(&setup.data);
    let segment = segments.last().unwrap();
    let block = segment.blocks.last().unwrap();
    disk::flip(&segment.path, block.offset + 100);
    let quarantine = setup.data.join("journal/quarantine");
    std::fs::create_dir(&quarantine).unwrap();
    let name = |copy: &str| {
        format!(
            "shard-000-epoch-{:020}-lsn-{:020}-segment-{:020}-byte-{:020}-copy-{copy}",
            1,
            block.first_lsn.get(),
            1,
            block.offset
        )
    };
    std::fs::write(quarantine.join(name("001")), "other bytes").unwrap();
    let running = setup.start();
    let kept = std::fs::read(quarantine.join(name("001"))).unwrap();
    assert_eq!(kept, b"other bytes");
    let copied = std::fs::read(quarantine.join(name("002"))).unwrap();
    assert_eq!(copied.len(), 4096);
    assert!(
        running
            .said()
            .contains("2 files, 4107 bytes that this start")
    );
    drop(running);
}
