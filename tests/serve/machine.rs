//! Machines that lack something: a plain message with the remedy, never a panic.

#![allow(
    clippy::disallowed_methods,
    reason = "a test makes and removes its folders"
)]

use std::fs;
use std::path::Path;

use crate::broker::Setup;
use crate::broker::stomp::Client;
use crate::{drain, send, small};

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn io_uring_forbidden() {
    let mut setup = small("no-io-uring");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/no_io_uring.py");
    setup.wrapper = vec!["python3".into(), script.display().to_string()];
    let refused = setup.refused();
    refused.expect(
        5,
        &[
            "io_uring is forbidden here",
            "Remedy: ",
            "kernel.io_uring_disabled",
            "seccomp",
        ],
    );
    assert_eq!(refused.said.lines().count(), 1, "{}", refused.said);
    assert!(!setup.data.exists(), "a folder was made");
}

/// A setup that may lock this much memory. Root may lock as much as it likes, so it goes without
/// that one right; another user might not reach our folders.
fn with_locked_memory(name: &str, bytes: u64) -> Setup {
    let mut setup = small(name);
    let limit = format!("prlimit --memlock={bytes}:{bytes}");
    setup.wrapper = words(&limit);
    if nix::unistd::geteuid().is_root() {
        setup.wrapper = words(&format!("setpriv --bounding-set=-ipc_lock {limit}"));
    }
    setup
}

#[test]
fn little_locked_memory_writes_unregistered_and_says_so() {
    let mut setup = with_locked_memory("memlock", 8 << 20);
    let running = setup.start();
    let said = running.said();
    for word in [
        "locked memory is too small",
        "writes go unregistered",
        "ulimit -l unlimited",
    ] {
        assert!(said.contains(word), "{word:?} not in: {said}");
    }
    let mut client = Client::connect(running.address()).unwrap();
    send(&mut client, "/queue/unregistered", b"kept");
    running.kill();
    let running = setup.start();
    assert_eq!(drain(running.address(), "/queue/unregistered").len(), 1);
}

/// Housekeeping's executor asks for half a MiB of its own; less cannot work.
#[test]
fn hardly_any_locked_memory_is_refused_with_the_remedy() {
    let setup = with_locked_memory("memlock-64k", 64 << 10);
    setup.refused().expect(
        5,
        &["locked memory", "Remedy: ", "ulimit -l", "LimitMEMLOCK"],
    );
}

#[test]
fn a_folder_in_memory_is_refused() {
    let mut setup = small("tmpfs");
    let folder = Path::new("/dev/shm").join(format!("forebay-test-{}", std::process::id()));
    setup.data = folder.join("data");
    fs::create_dir_all(&folder).unwrap();
    let refused = setup.refused();
    let has_journal = setup.data.join("journal").exists();
    fs::remove_dir_all(&folder).unwrap();
    refused.expect(
        5,
        &[
            &setup.data.display().to_string(),
            "O_DIRECT",
            "tmpfs",
            "Remedy: ",
            "--data DIR",
        ],
    );
    assert!(!has_journal, "a journal was made");
}
