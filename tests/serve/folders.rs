//! Folders that are not what the broker may write to: refused by name, and left as they are.

#![allow(clippy::disallowed_methods, reason = "a test makes the files it needs")]

use std::fs;

use crate::broker::stomp::Client;
use crate::broker::{Broker, Setup};
use crate::{disk, drain, send, small};

/// Refuses with exit code 3 and these words, and the folder is as before.
fn expect_refused(setup: &Setup, words: &[&str]) {
    let before = disk::snapshot(&setup.data);
    setup.refused().expect(3, words);
    let after = disk::snapshot(&setup.data);
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert!(before == after, "a refused folder was changed");
}

/// A folder with one message in it, after an orderly end.
fn used(name: &str) -> Setup {
    let mut setup = small(name);
    let running = setup.start();
    let mut client = Client::connect(running.address()).unwrap();
    send(&mut client, "/queue/kept", b"one");
    drop(client);
    assert!(running.stop().success());
    setup
}

fn expect_kept(running: &Broker) {
    let kept = drain(running.address(), "/queue/kept");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].body, b"one");
}

#[test]
fn a_foreign_folder_is_refused() {
    let setup = small("foreign");
    fs::create_dir_all(&setup.data).unwrap();
    fs::write(setup.data.join("thesis.tex"), "years of work").unwrap();
    let folder = setup.data.display().to_string();
    expect_refused(
        &setup,
        &[
            "thesis.tex",
            &folder,
            "Remedy: name an empty or a new folder",
        ],
    );
}

#[test]
fn a_folder_that_is_a_file_is_refused() {
    let setup = small("file");
    fs::write(&setup.data, "no folder").unwrap();
    setup
        .refused()
        .expect(3, &[&setup.data.display().to_string()]);
    assert_eq!(fs::read(&setup.data).unwrap(), b"no folder");
}

#[test]
fn a_newer_format_is_refused() {
    let mut setup = used("newer");
    let superblock = setup.data.join("journal/superblock");
    let sound = fs::read(&superblock).unwrap();
    let mut newer = sound.clone();
    // The version, in both copies (docs/format.md 3).
    for copy in newer.chunks_mut(4096) {
        copy[8] = 3;
        let sum = forebay_journal::format::checksum(&copy[..4080]);
        copy[4080..].copy_from_slice(zerocopy::IntoBytes::as_bytes(&sum));
    }
    fs::write(&superblock, &newer).unwrap();
    let file = superblock.display().to_string();
    expect_refused(
        &setup,
        &[
            &file,
            "version (3)",
            "versions 1 to 2",
            "Remedy: start the release that wrote it",
        ],
    );
    fs::write(&superblock, sound).unwrap();
    expect_kept(&setup.start());
}

#[test]
fn a_damaged_superblock_is_read_from_its_copy_and_refused_when_both_are() {
    let mut setup = used("superblock");
    let superblock = setup.data.join("journal/superblock");
    disk::flip(&superblock, 20);
    expect_kept(&setup.start());
    disk::flip(&superblock, 4096 + 20);
    let file = superblock.display().to_string();
    expect_refused(
        &setup,
        &[&file, "not a sound superblock", "Remedy: restore the file"],
    );
}

#[test]
fn another_number_of_shards_is_refused() {
    let mut setup = used("shards");
    setup.arguments = vec!["--shards".into(), "3".into()];
    let words = [
        "made with 1 shard(s), 3 asked for",
        "Remedy: start with --shards 1",
    ];
    expect_refused(&setup, &words);
    setup.arguments = vec!["--shards".into(), "1".into()];
    expect_kept(&setup.start());
}
