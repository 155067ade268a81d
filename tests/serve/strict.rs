//! Strict mode: what was acknowledged is missed even where nothing was written behind it.

#![allow(clippy::disallowed_methods, reason = "a test looks at files")]

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use forebay::housekeeping::lock::FolderLock;

use crate::broker::Setup;
use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::{disk, drain, send, small};

const MESSAGES: usize = 12;
const STRICT: &str = "strict = true\n";

/// Killed behind the last receipt: from the last block with a message on, the file is zeros, as if
/// nothing had been written there. Gives the setup, the file, the offset and what lay there.
fn forgotten(name: &str, config: &str) -> (Setup, std::path::PathBuf, u64, Vec<u8>) {
    let mut setup = small(name).config(config);
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    for number in 0..MESSAGES {
        send(&mut client, "/queue/s", number.to_string().as_bytes());
    }
    running.kill();
    drop(FolderLock::take(&setup.data, "a test").expect("the killed broker has ended"));
    let segments = disk::segments(&setup.data);
    let segment = segments.last().unwrap();
    let mut blocks = segment.blocks.iter().rev();
    let last = blocks.find(|block| block.record_count > 0).unwrap();
    let whole = std::fs::read(&segment.path).unwrap();
    let behind = whole[last.offset as usize..].to_vec();
    put(&segment.path, last.offset, &vec![0; behind.len()]);
    (setup, segment.path.clone(), last.offset, behind)
}

fn put(path: &std::path::Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn the_last_acknowledged_block_is_missed_in_strict_mode() {
    let (setup, path, offset, behind) = forgotten("strict", STRICT);
    let place = format!("byte {offset}");
    let said = [
        "journal of shard 0 is damaged",
        &place,
        "as known from elsewhere (row 3)",
        "Nothing was changed",
    ];
    setup.refused().expect(3, &said);
    // What is known stays known when the mode is left.
    let mut plain = Setup::new(&setup.data).config("[journal]\nsegment_size = \"1MiB\"\n");
    plain.refused().expect(3, &said);
    put(&path, offset, &behind);
    let running = plain.start();
    assert_eq!(drain(running.address(), "/queue/s").len(), MESSAGES);
}

/// The residue of `docs/format.md` 8, which strict mode closes.
#[test]
fn without_strict_mode_it_is_the_residue() {
    let (mut setup, ..) = forgotten("residue", "");
    let running = setup.start();
    assert_eq!(drain(running.address(), "/queue/s").len(), MESSAGES - 1);
}

#[test]
fn strict_lives_follow_each_other() {
    let mut setup = small("strict-lives").config(STRICT);
    for life in 1..=3 {
        let running = setup.start();
        let mut client = Client::connect(running.address()).unwrap();
        for number in 0..MESSAGES {
            send(&mut client, "/queue/s", number.to_string().as_bytes());
        }
        drop(client);
        let file = format!("journal/epoch-{life:020}/shard-000-identifiers");
        assert_eq!(
            std::fs::metadata(setup.data.join(&file)).unwrap().len(),
            65_536
        );
        if life == 2 {
            running.kill();
            drop(FolderLock::take(&setup.data, "a test").expect("it has ended"));
        } else {
            assert_eq!(running.stop().code(), Some(0));
        }
    }
    let running = setup.start();
    assert_eq!(drain(running.address(), "/queue/s").len(), 3 * MESSAGES);
    wait_until(Duration::from_secs(10), "an idle seal", || {
        let segments = disk::segments(&setup.data);
        let last = segments.last().and_then(|segment| segment.blocks.last());
        last.is_some_and(|block| block.is_idle_seal())
    });
}
