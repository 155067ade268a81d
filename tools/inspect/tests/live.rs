//! A journal that is written and recycled while it is looked at is never called damaged.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rig::{Journal, State, inspect};

/// Takes the data folder's lock as a broker does.
fn lock(data: &Path) -> File {
    let mut file = OpenOptions::new();
    let file = file
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(data.join("lock"));
    let file = file.expect("opens");
    std::io::Write::write_all(&mut &file, b"process 7, node test\n").expect("writes");
    let whole_file = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file)).expect("free");
    file
}

/// The same with some messages that stay for long, so that their segments are kept for bodies.
fn write_with_checkpoints(data: &Path, is_over: &AtomicBool) -> u64 {
    let mut recycled = 0;
    let mut journal = Journal::create_sized(data, 256 << 10);
    journal.state = Some(State::default());
    journal.define(1, "live");
    let (mut sent, mut kept) = (Vec::new(), VecDeque::new());
    let mut turn = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        turn += 1;
        let before = journal.current_or_none();
        for size in [10, 3000, 200] {
            sent.push(journal.send(&[1], &vec![b'x'; size + turn as usize % 700]));
        }
        if turn.is_multiple_of(40) {
            kept.push_back(journal.send(&[1], b"stays"));
            kept.push_back(journal.send_large(&[1], &[b'l'; 9000], 2000));
        }
        journal.commit();
        if turn.is_multiple_of(3) {
            journal.idle();
        }
        let is_new = before != journal.current_or_none();
        if is_new && journal.current().get().is_multiple_of(3) {
            journal.settle(1, &std::mem::take(&mut sent));
            let over = kept.len().saturating_sub(12);
            let ended: Vec<u64> = kept.drain(..over).collect();
            journal.settle(1, &ended);
            journal.commit();
            journal.begin_checkpoint();
        }
        let _ = journal.say(9);
        if turn.is_multiple_of(2000) {
            recycled += journal.recycled;
            let mut state = journal.state.take();
            state.as_mut().expect("is kept").end_epoch();
            journal = Journal::reopen(data);
            journal.state = state;
        }
    }
    recycled + journal.recycled
}

/// Writes until told to stop: small blocks, segments recycled, restarts. Returns how many files
/// were recycled.
fn write(data: &Path, is_over: &AtomicBool) -> u64 {
    let mut recycled = 0;
    let mut journal = Journal::create_sized(data, 256 << 10);
    let mut sent = Vec::new();
    let mut turn = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        turn += 1;
        let before = journal.current_or_none();
        if turn == 1 {
            journal.define(1, "live");
        }
        for size in [10, 3000, 200] {
            sent.push(journal.send(&[1], &vec![b'x'; size + turn as usize % 700]));
        }
        journal.commit();
        if turn.is_multiple_of(3) {
            journal.idle();
        }
        let is_new = before != journal.current_or_none();
        if is_new && journal.current().get().is_multiple_of(3) {
            journal.settle(1, &std::mem::take(&mut sent));
            journal.define(1, "live");
            journal.free();
        }
        if turn.is_multiple_of(2000) {
            recycled += journal.recycled;
            journal = Journal::reopen(data);
        }
    }
    recycled + journal.recycled
}

/// Fails the test, but not before the writer is told: a scope waits for its threads.
fn stop_unless(is_well: bool, is_over: &AtomicBool, said: &rig::Said) {
    if !is_well {
        is_over.store(true, Ordering::Relaxed);
        panic!("{said:?}");
    }
}

fn import(export: &str, folder: &Path, round: u32, is_over: &AtomicBool) {
    let file = folder.join(format!("export-{round}"));
    std::fs::write(&file, export).expect("writes");
    let into = folder.join(format!("copy-{round}"));
    let into = into.to_str().expect("a path");
    let said = inspect(&["import", "--segment-size", "1MiB", "--into", into], &file);
    stop_unless(said.code == 0, is_over, &said);
}

fn never_damaged(is_locked: bool, write: fn(&Path, &AtomicBool) -> u64) {
    let data = tempfile::tempdir().expect("a folder");
    let is_over = AtomicBool::new(false);
    let path = data.path().join("data");
    std::fs::create_dir(&path).expect("makes");
    let lock = is_locked.then(|| lock(&path));
    let recycled = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&path, &is_over));
        while inspect(&["stat"], &path).code != 0 && !writer.is_finished() {}
        for _ in 0..50 {
            let said = inspect(&["verify"], &path);
            stop_unless(said.code == 0, &is_over, &said);
            assert_eq!(
                said.out.contains("a broker runs on it: process 7"),
                is_locked
            );
        }
        for _ in 0..8 {
            for command in ["stat", "segments", "blocks", "records"] {
                let said = inspect(&[command], &path);
                let is_well = said.code == 0 && !said.out.contains("DAMAGED");
                stop_unless(is_well, &is_over, &said);
            }
        }
        for round in 0..8 {
            for command in ["map", "tail"] {
                let said = inspect(&[command, "--json"], &path);
                let is_well = said.code == 0 && !said.out.contains("\"state\":\"damaged\"");
                stop_unless(is_well, &is_over, &said);
            }
            // An export is a whole one, of a moment, also while files are reused.
            let said = inspect(&["export"], &path);
            let is_gone = !is_locked && said.err.contains("read a second time");
            stop_unless(said.code == 0 || is_gone, &is_over, &said);
            if said.code == 0 {
                import(&said.out, data.path(), round, &is_over);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("writes to the end")
    });
    drop(lock);
    assert!(
        recycled > 20,
        "only {recycled} files were recycled meanwhile"
    );
    assert_eq!(
        inspect(&["verify"], &path).code,
        0,
        "and it is sound at the end"
    );
}

#[test]
fn a_running_broker_is_never_called_damaged() {
    never_damaged(true, write);
}

#[test]
fn neither_is_a_writer_whose_lock_is_not_seen() {
    never_damaged(false, write);
}

#[test]
fn nor_is_one_that_writes_checkpoints() {
    never_damaged(true, write_with_checkpoints);
}
