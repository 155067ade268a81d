//! A sample of the corruption sweep (`journal/tests/sweep.rs`) under the real broker: one shard of
//! two is damaged, by each kind of fault that a file can show. The other one serves all of its
//! messages, and the damage is named with file, byte and records by the broker, by `forebay status`
//! and by `forebay-inspect verify` (K02, K06, K10, K11, K14).
//!
//! Not here: what a disk does not give back, for which the tests have no device; the sweep has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use forebay::routing::shard_of;
use forebay_journal::format::BlockHeader;
use serde_json::Value;

use super::broker::process::wait_until;
use super::broker::{self, Setup};
use super::{FolderLock, PATIENCE, connect, disk, inspect, next_message, send, text};

const MESSAGES: u32 = 20;
/// `FOREBAY_DAMAGE_SEED` draws other places.
const SEED: u64 = 20_261_128;

struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        (self.0 >> 33) as usize % bound
    }
}

/// A queue of each shard.
fn queues() -> [String; 2] {
    queues_named("q")
}

fn queues_named(first: &str) -> [String; 2] {
    [0, 1].map(|shard| {
        let mut names = (0..).map(|number| format!("{first}.{number}"));
        let name = names.find(|name| shard_of(name.as_bytes(), 2).0 == shard);
        format!("/queue/{}", name.unwrap())
    })
}

fn body(number: u32) -> Vec<u8> {
    format!("{number}").repeat(200).into_bytes()
}

fn setup(data: &Path) -> Setup {
    Setup::new(data)
        // So that an older copy of a file is found out as well.
        .config("[journal]\nsegment_size = \"1MiB\"\nstrict = true\n")
        .argument("--shards", "2")
}

/// A killed broker with messages on both shards, and how its folder was when half of them were
/// there.
fn killed(name: &str) -> (PathBuf, Files) {
    let folder = broker::fresh_folder(name);
    let data = folder.join("data");
    let mut before = Files::new();
    let mut setup = setup(&data);
    let running = setup.start();
    let mut client = connect(running.address());
    for number in 0..MESSAGES {
        if number == MESSAGES / 2 {
            before = disk::snapshot(&data);
        }
        for queue in queues() {
            send(&mut client, &queue, &[], &body(number));
        }
    }
    wait_until(PATIENCE, "idle seals at the ends", || {
        (0..2).all(|shard| {
            let segments = disk::segments_of(&data, shard);
            let last = segments.last().and_then(|segment| segment.blocks.last());
            last.is_some_and(BlockHeader::is_idle_seal)
        })
    });
    running.kill();
    drop(FolderLock::take(&data, "a test").expect("the killed broker has ended"));
    (data, before)
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

/// A place to damage.
struct Target {
    path: PathBuf,
    block: BlockHeader,
    /// The file's content.
    bytes: Vec<u8>,
    /// A block of the other shard.
    other: Vec<u8>,
    /// The same file before; none if it was not there.
    before: Option<Vec<u8>>,
}

impl Target {
    fn new(data: &Path, before: &Files, shard: u16, draws: &mut Draws) -> Self {
        let segments = disk::segments_of(data, shard);
        let segment = &segments[draws.below(segments.len())];
        let full = segment.blocks.iter().filter(|block| !block.is_idle_seal());
        let full: Vec<_> = full.collect();
        let block = *full[1 + draws.below(full.len() - 1)];
        let others = disk::segments_of(data, 1 - shard);
        let other = &others[0];
        let other_block = other
            .blocks
            .iter()
            .find(|other| other.offset == block.offset);
        let other_block = other_block.unwrap_or(&other.blocks[1]);
        let other_bytes = std::fs::read(&other.path).unwrap();
        let from = other_block.offset as usize;
        let name = segment.path.strip_prefix(data).unwrap();
        let then = before.iter().find(|(path, _)| path.ends_with(name));
        Self {
            bytes: std::fs::read(&segment.path).unwrap(),
            other: other_bytes[from..from + other_block.block_size as usize].to_vec(),
            before: then.map(|(_, (_, bytes))| bytes.clone()),
            path: segment.path.clone(),
            block,
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let from = offset as usize;
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
    }
}

/// Files with their time of change and content.
type Files = BTreeMap<PathBuf, (SystemTime, Vec<u8>)>;

const FAULTS: [&str; 14] = [
    "bit flip in a header",
    "bit flip in a payload",
    "byte flip",
    "zeros",
    "random bytes",
    "the block before in its place",
    "a block of the other shard in its place",
    "a file cut off",
    "a file cut off before its first block",
    "a file missing",
    "a file swapped with a prepared one",
    "an older copy of a file",
    "a head of zeros",
    "a first block of zeros",
];

/// Applies a fault; false if the target cannot have it.
fn apply(fault: &str, target: &mut Target, draws: &mut Draws) -> bool {
    let (at, size) = (target.block.offset, target.block.block_size as usize);
    let sound = target.bytes[at as usize..at as usize + size].to_vec();
    match fault {
        "bit flip in a header" => {
            let byte = draws.below(192);
            target.put(at + byte as u64, &[sound[byte] ^ 1 << draws.below(8)]);
        }
        "bit flip in a payload" => {
            let byte = 192 + draws.below(size - 192);
            target.put(at + byte as u64, &[sound[byte] ^ 1 << draws.below(8)]);
        }
        "byte flip" => {
            let byte = draws.below(size);
            target.put(at + byte as u64, &[!sound[byte]]);
        }
        "zeros" => target.put(at, &vec![0; size]),
        "random bytes" => {
            let noise: Vec<u8> = (0..size).map(|_| draws.below(256) as u8).collect();
            target.put(at, &noise);
        }
        "the block before in its place" => {
            let before = target.bytes[at as usize - 4096..at as usize].to_vec();
            target.put(at, &before);
        }
        "a block of the other shard in its place" => {
            let other = target.other.clone();
            target.put(at, &other);
        }
        "a file cut off" => target.bytes.truncate(at as usize),
        "a file cut off before its first block" => target.bytes.truncate(4096),
        "a file missing" => {
            std::fs::remove_file(&target.path).unwrap();
            return true;
        }
        "a file swapped with a prepared one" => {
            let folder = target.path.parent().unwrap();
            let own = target
                .path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let names = std::fs::read_dir(folder)
                .unwrap()
                .map(|one| one.unwrap().path());
            let is_other = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name[..10] == own[..10] && name.contains("segment") && name > own
            };
            let Some(other) = names.filter(is_other).min() else {
                return false;
            };
            let aside = folder.join("aside");
            std::fs::rename(&target.path, &aside).unwrap();
            std::fs::rename(&other, &target.path).unwrap();
            std::fs::rename(&aside, &other).unwrap();
            return true;
        }
        "an older copy of a file" => match target.before.take() {
            Some(before) if before != target.bytes => target.bytes = before,
            _ => return false,
        },
        "a head of zeros" => target.put(0, &[0; 4096]),
        "a first block of zeros" => target.put(4096, &[0; 4096]),
        other => panic!("{other}"),
    }
    std::fs::write(&target.path, &target.bytes).unwrap();
    true
}

/// What must be told: the file, unless it is not there, the segment, and where records are lost.
fn is_told(damage: &Value, fault: &str, target: &Target) -> bool {
    let file = damage["file"].as_str().unwrap_or_default();
    let is_file = match fault {
        "a file missing" => true,
        // Either of the two.
        "a file swapped with a prepared one" => !file.is_empty(),
        _ => file == text(&target.path),
    };
    let lost = damage["lsn_from"].as_u64().unwrap_or(0);
    let is_whole_file = !fault.contains("flip") && !fault.contains("place");
    let offset = damage["offset"].as_u64();
    let is_offset = is_whole_file || offset == Some(target.block.offset);
    is_file && is_offset && lost > 0 && (is_whole_file || lost <= target.block.first_lsn.get())
}

#[test]
fn whatever_the_fault_the_other_shard_serves_and_the_damage_is_named() {
    let named = std::env::var("FOREBAY_DAMAGE_SEED").ok();
    let seed = named.map_or(SEED, |seed| seed.parse().unwrap());
    println!("FOREBAY_DAMAGE_SEED={seed}");
    let mut draws = Draws(seed);
    let (data, before) = killed("inspect-damaged");
    let mut tried = 0;
    for (number, fault) in FAULTS.into_iter().enumerate() {
        let shard = number as u16 % 2;
        let folder = data.with_file_name(format!("damaged-{number}"));
        copy(&data, &folder);
        let is_applied = (0..20).find_map(|_| {
            let mut target = Target::new(&folder, &before, shard, &mut draws);
            apply(fault, &mut target, &mut draws).then_some(target)
        });
        let target = is_applied.unwrap_or_else(|| panic!("{fault}: no place for it"));
        let case = format!("{fault}, shard {shard}, {}", target.path.display());
        check(&folder, shard, &case, fault, &target);
        tried += 1;
    }
    println!("{tried} faults: the other shard served, each was named");
}

fn check(folder: &Path, shard: u16, case: &str, fault: &str, target: &Target) {
    let mut setup = setup(folder);
    let running = setup.start();
    let said = running.said();
    let words = [
        format!("shard {shard} does not serve"),
        "records ".to_owned(),
        "byte ".to_owned(),
    ];
    for word in &words {
        assert!(said.contains(word), "{case}: {word:?} is not in {said}");
    }
    // Not a message less of the other shard.
    let mut client = connect(running.address());
    let queue = &queues()[usize::from(1 - shard)];
    let headers = [("id", "0"), ("destination", &**queue), ("ack", "client")];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    for number in 0..MESSAGES {
        assert_eq!(next_message(&mut client).body, body(number), "{case}");
    }
    let status = Command::new(&setup.program)
        .args(["status", "--json", "--data", text(folder)])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&status.stdout).unwrap();
    let damage = &told["shards"][usize::from(shard)]["damage"];
    assert!(is_told(damage, fault, target), "{case}: {damage:#}");
    assert!(
        told["shards"][usize::from(1 - shard)]
            .get("damage")
            .is_none(),
        "{case}"
    );
    if fault != "a file missing" {
        assert!(
            said.contains(damage["file"].as_str().unwrap()),
            "{case}: {said}"
        );
    }
    assert!(running.stop().success(), "{case}");
    let output = inspect(&["verify", "--json", text(folder)]);
    assert_eq!(output.status.code(), Some(1), "{case}: {output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let damages = told["damage"].as_array().unwrap();
    let mut own = damages.iter().filter(|one| one["shard"] == shard);
    assert!(
        own.any(|one| is_told(one, fault, target)),
        "{case}: {told:#}"
    );
    assert!(
        damages.iter().all(|one| one["shard"] == shard),
        "{case}: {told:#}"
    );
}

/// A body before the replay's start, damaged: the shard starts, what is whole comes, and who comes
/// to the damaged one is told where it was; so does the inspector. Nothing is passed over.
#[test]
fn a_damaged_body_keeps_nobody_from_the_rest() {
    let (data, _) = killed("inspect-damaged-body");
    let mut setup = setup(&data);
    // The next epoch has a segment of its own, and says again what was before.
    let running = setup.start();
    let mut client = connect(running.address());
    wait_until(PATIENCE, "a replay that begins behind the bodies", || {
        send(&mut client, &queues_named("other")[0], &[], b"more");
        let said = inspect(&["verify", "--json", text(&data)]).stdout;
        let told: Value = serde_json::from_slice(&said).unwrap();
        let bodies = told["shards"][0]["body_segments"].as_array();
        bodies.is_some_and(|bodies| !bodies.is_empty())
    });
    assert!(running.stop().success());
    let first = &disk::segments_of(&data, 0)[0];
    let full: Vec<_> = first
        .blocks
        .iter()
        .filter(|block| !block.is_idle_seal())
        .collect();
    let block = *full[full.len() / 2];
    disk::flip(&first.path, block.offset + 200);
    let verdict = inspect(&["verify", "--json", text(&data)]);
    assert_eq!(verdict.status.code(), Some(1), "{verdict:?}");
    let told: Value = serde_json::from_slice(&verdict.stdout).unwrap();
    let damage = &told["damage"][0];
    assert_eq!(damage["file"], text(&first.path), "{told:#}");
    assert_eq!(damage["offset"], block.offset, "{told:#}");
    assert_eq!(damage["lsn_from"], block.first_lsn.get(), "{told:#}");
    assert_eq!(damage["messages_count"], 1, "{told:#}");

    let running = setup.start();
    assert!(
        !running.said().contains("does not serve"),
        "{}",
        running.said()
    );
    let [damaged, sound] = queues();
    let headers = [("id", "0"), ("destination", &*sound), ("ack", "client")];
    let mut client = connect(running.address());
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    for number in 0..MESSAGES {
        assert_eq!(next_message(&mut client).body, body(number));
    }
    let headers = [("id", "1"), ("destination", &*damaged), ("ack", "client")];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    let mut number = 0;
    while let Ok(Some(frame)) = client.receive(PATIENCE) {
        if frame.command == "MESSAGE" {
            assert!(frame.body == body(number), "what was before it, in order");
            number += 1;
        }
    }
    assert!(number < MESSAGES, "the damaged one was delivered");
    wait_until(PATIENCE, "the broker says which block it was", || {
        let said = running.said();
        said.contains(&format!("segment {}", block.place.segment))
            && said.contains(&format!("byte {}", block.offset))
            && said.contains("cannot be read back")
    });
}
