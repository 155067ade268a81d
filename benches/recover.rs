//! How fast a start reads and replays a data folder.
//!
//! `cargo bench --bench recover -- FOLDER [ROUNDS]`
//!
//! No broker may run on the folder. Nothing is changed in it, but that a torn tail is copied to the
//! quarantine as a start would. Reads go past the page cache, so every round reads the disk.
#![allow(clippy::disallowed_methods, reason = "it reads its arguments")]

use std::path::Path;
use std::process::ExitCode;

use forebay::housekeeping::folder::Folder;
use forebay::housekeeping::lock::FolderLock;
use forebay::housekeeping::{Scanned, scan};
use forebay::queue::{Limits, Policies};
use forebay_journal::{JournalId, ShardId};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut words = arguments.iter().filter(|word| !word.starts_with("--"));
    let Some(folder) = words.next() else {
        eprintln!("cargo bench --bench recover -- FOLDER [ROUNDS]");
        return ExitCode::from(2);
    };
    let rounds = words
        .next()
        .map_or(3, |word| word.parse().expect("a number"));
    let folder = Folder::new(Path::new(folder));
    let _lock = FolderLock::take(folder.root(), "a benchmark").expect("no broker runs on it");
    let made = folder.open(0, JournalId([0; 16]), 0);
    let superblock = made.expect("a data folder");
    for _ in 0..rounds {
        for shard in (0..superblock.shard_count).map(ShardId) {
            let (limits, policies) = (Limits::OF_BROKER, Policies::new(Vec::new()));
            let scanned = scan(&folder, superblock.journal, shard, limits, policies);
            println!("shard {shard}: {}", said(&scanned.expect("sound")));
        }
    }
    ExitCode::SUCCESS
}

fn said(scanned: &Scanned) -> String {
    let totals = &scanned.recovered.totals;
    let seconds = scanned.elapsed.as_secs_f64();
    let rate = |count: u64| count as f64 / seconds / 1e6;
    format!(
        "{:.0} ms; {:.0} MB read, {:.0} MB/s; {:.0} MB replayed, {} records; {} messages, {:.2} M/s",
        seconds * 1e3,
        scanned.read_bytes as f64 / 1e6,
        rate(scanned.read_bytes),
        totals.bytes as f64 / 1e6,
        totals.records,
        scanned.replayed.messages,
        rate(scanned.replayed.messages),
    )
}
