//! Checkpoints: a store whose segments are gone that a replay does not need says the same as one
//! that has them all, and what is missing or damaged in the others is named.
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use forebay_journal::format::{
    Annotations, Departure, IdList, MessageFields, QueueFlags, Record, Routing,
};
use forebay_journal::{QueueId, SegmentId};
use proptest::prelude::*;
use rig::history::History;
use rig::state::Place;
use rig::{Journal, Said, State, files, inspect, with_bytes, with_flip};
use serde_json::Value;

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        other => {
            let text = other["base64"].as_str().expect("a text or base64");
            data_encoding::BASE64
                .decode(text.as_bytes())
                .expect("base64")
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn export(data: &Path) -> Said {
    let said = inspect(&["export"], data);
    assert_eq!(said.code, 0, "{said:?}");
    said
}

type Exported = BTreeMap<(u64, u64), ((u64, Option<u64>, Option<String>), Vec<u8>)>;

/// Places and bodies by queue and message.
fn exported(data: &Path) -> Exported {
    let mut parts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for line in export(data).lines() {
        match line["what"].as_str() {
            Some("part") => {
                let part = parts.entry(number(&line["upload"])).or_default();
                part.extend(bytes(&line["body"]));
            }
            Some("message") => {
                let upload = line["upload"].as_u64().unwrap_or(0);
                let mut body = parts.remove(&upload).unwrap_or_default();
                body.extend(bytes(&line["body"]));
                for place in line["queues"].as_array().expect("a list") {
                    let key = (number(&place["queue"]), number(&line["message"]));
                    let attempts = place["attempts"].as_u64().unwrap_or(0);
                    let leaving = place["leaving"].as_str().map(str::to_owned);
                    let place = (attempts, place["ready_unix_ms"].as_u64(), leaving);
                    found.insert(key, (place, body.clone()));
                }
            }
            _ => {}
        }
    }
    found
}

fn expected(history: &History) -> Exported {
    let state = history.journal.state.as_ref().expect("is kept");
    let owned = |place: Place| (place.0, place.1, place.2.map(str::to_owned));
    let all = state.exported().into_iter();
    all.map(|(key, (place, body))| (key, (owned(place), body)))
        .collect()
}

/// Small segments: few steps fill one.
const SEGMENT: u64 = 64 << 10;

fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    /// Whatever a checkpoint says and whatever is gone below it: what the inspector finds is what
    /// all records say, from the first on.
    #[test]
    fn a_checkpoint_says_what_all_records_say(
        steps in proptest::collection::vec(
            (0..19_u8, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300)),
            0..160,
        ),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let mut history = History::begin(&data, SEGMENT);
        history.spares_divert = true;
        for step in &steps {
            history.step(step);
            history.journal.commit();
        }
        // Ends one that is under way, or none.
        history.journal.begin_checkpoint();
        let _ = history.journal.say(usize::MAX >> 1);
        history.journal.idle();
        let found = exported(&data);
        for (key, expected) in &expected(&history) {
            let found = found.get(key);
            prop_assert!(found == Some(expected), "{:?}: {:?}, not {:?}", key, found, expected);
        }
        prop_assert_eq!(found.len(), expected(&history).len());
        let verdict = inspect(&["verify", "--json"], &data);
        prop_assert_eq!(verdict.code, 0, "{:?}", verdict);
        let bodies = verdict.json()["shards"][0]["body_segments"].clone();
        let start = verdict.json()["shards"][0]["replay_start"].clone();
        let start = SegmentId::ZERO.plus(number(&start));
        let needed = history.journal.state.as_ref().expect("is kept").needed();
        let needed: Vec<u64> = needed.range(..start).map(|one| one.get()).collect();
        prop_assert_eq!(bodies, Value::from(needed));
    }
}

/// A journal of some segments in which messages of every state are alive, few of them; the middle
/// ones hold nothing that is.
fn aged(data: &Path) -> Journal {
    let mut journal = Journal::create_sized(data, SEGMENT);
    journal.state = Some(State::default());
    for (queue, is_divert) in [(1, false), (2, false), (3, true)] {
        journal.append(&Record::QueueDefine {
            queue: QueueId(queue),
            routing: Routing::Multicast,
            flags: QueueFlags {
                is_divert,
                ..QueueFlags::default()
            },
            address: b"events",
            name: format!("name {queue}").as_bytes(),
            filter: b"",
        });
    }
    put_of_every_state(&mut journal);
    fill(&mut journal, 5);
    journal
}

/// Messages in all that a queue does with them, each in a block of its own or nearly.
fn put_of_every_state(journal: &mut Journal) {
    let usual = MessageFields::default();
    let none = Annotations::default();
    journal.send(&[1], b"plain");
    journal.send(&[1, 2], b"in two");
    journal.commit();
    journal.send(&[3], b"to be diverted");
    let later = Annotations {
        deliver_unix_ms: 4_000_000_000_000,
        ..none
    };
    journal.send_as(&[1], usual, later, b"scheduled");
    let due = journal.send_as(&[1], usual, later, b"came due");
    release(journal, 1, due, 0);
    journal.commit();
    let grouped = Annotations {
        group: 77,
        last_value: b"key",
        ..none
    };
    journal.send_as(&[2], usual, grouped, b"with much to say");
    journal.commit();
    let failed = journal.send_as(
        &[2],
        MessageFields {
            priority: 7,
            ..usual
        },
        none,
        b"failed",
    );
    for ready_unix_ms in [0, 0, 5_000_000_000_000] {
        hand_out(journal, 2, failed);
        release(journal, 2, failed, ready_unix_ms);
    }
    journal.commit();
    let large: Vec<u8> = (0..60_000_u32).map(|at| at as u8).collect();
    journal.send_large(&[1, 2], &large, 10_000);
    journal.commit();
    let left = journal.send(&[2], b"on its way");
    journal.commit();
    journal.append(&Record::Depart {
        queue: QueueId(2),
        transaction: 0,
        reason: Departure::AttemptsExceeded,
        messages: IdList(&[left.into()]),
    });
    let shared = journal.send(&[1], b"shared");
    journal.commit();
    journal.append(&Record::Share {
        queue: QueueId(2),
        pairs: IdList(&[1.into(), shared.into()]),
    });
    let held = journal.send(&[1], b"held");
    journal.commit();
    hand_out(journal, 1, held);
}

fn hand_out(journal: &mut Journal, queue: u64, message: u64) {
    let (queue, one) = (QueueId(queue), [message.into()]);
    journal.append(&Record::Handout {
        queue,
        messages: IdList(&one),
    });
}

fn release(journal: &mut Journal, queue: u64, message: u64, ready_unix_ms: u64) {
    journal.append(&Record::Release {
        queue: QueueId(queue),
        transaction: 0,
        ready_unix_ms,
        messages: IdList(&[message.into()]),
    });
}

/// Writes so many segments of which nothing stays.
fn fill(journal: &mut Journal, segments: u64) {
    let end = journal.current_or_none().map_or(0, SegmentId::get) + segments;
    while journal.current_or_none().map_or(0, SegmentId::get) < end {
        let sent = journal.send(&[1], &[b'x'; 3000]);
        journal.commit();
        journal.settle(1, &[sent]);
    }
}

/// Writes a checkpoint, and gives away what nothing needs.
fn checkpoint(journal: &mut Journal) -> SegmentId {
    journal.begin_checkpoint();
    let start = journal.say(10_000).expect("all is said");
    journal.idle();
    start
}

/// What commands answer that must not change.
fn answers(data: &Path, state: &State) -> (Value, Exported, Vec<Value>, u64) {
    let stat = inspect(&["stat", "--json"], data).json();
    let mut queues = stat["shards"][0]["queues"].clone();
    for queue in queues.as_array_mut().expect("a list") {
        assert_eq!(queue["is_defined"], true, "{queue:#}");
    }
    let names: BTreeSet<u64> = state
        .queues
        .values()
        .flat_map(BTreeMap::keys)
        .copied()
        .collect();
    let shown = names.iter().map(|name| {
        let said = inspect(&["message", &name.to_string(), "--json"], data);
        assert_eq!(said.code, 0, "{said:?}");
        let mut message = said.json();
        assert_eq!(message["counts"], true, "{message:#}");
        let whole = (
            message["body_size"].clone(),
            message["body_size_on_disk"].clone(),
        );
        assert_eq!(whole.0, whole.1, "{message:#}");
        let object = message.as_object_mut().expect("an object");
        for changed in ["story", "named_at_lsn"] {
            object.remove(changed);
        }
        message
    });
    let shown = shown.collect();
    let map = inspect(&["map", "--json"], data).lines();
    let live = map.iter().map(|line| number(&line["bytes"]["live"])).sum();
    (queues, exported(data), shown, live)
}

fn states(data: &Path) -> Vec<(u64, String, u64)> {
    let said = inspect(&["segments", "--json"], data);
    let lines = said.lines().into_iter();
    lines
        .map(|line| {
            let state = line["state"].as_str().expect("a text").to_owned();
            (
                number(&line["segment"]),
                state,
                number(&line["needed_messages"]),
            )
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("lists") {
        let path = entry.expect("lists").path();
        let target = to.join(path.file_name().expect("has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).expect("copies");
        }
    }
}

#[test]
fn every_command_answers_as_before_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, before) = (folder.path().join("data"), folder.path().join("before"));
    let mut journal = aged(&data);
    journal.idle();
    copy(&data, &before);
    let state = journal.state.clone().expect("is kept");
    let first = answers(&data, &state);
    let start = checkpoint(&mut journal);
    let second = answers(&data, &state);
    assert_eq!(first.0, second.0, "stat");
    assert!(first.1 == second.1, "export");
    assert_eq!(first.2, second.2, "message");
    assert_eq!(first.3, second.3, "map");
    let states = states(&data);
    let bodies: Vec<_> = states.iter().filter(|one| one.1 == "bodies").collect();
    assert!(bodies.len() >= 2, "{states:?}");
    assert!(
        bodies.iter().all(|one| one.0 < start.get() && one.2 > 0),
        "{states:?}"
    );
    assert!(
        states.iter().any(|one| one.1 == "leftover" && one.2 == 0),
        "{states:?}"
    );
    let drawn = inspect(&["map", "--json"], &data).lines();
    let drawn = drawn.iter().filter(|line| line["state"] == "bodies");
    assert_eq!(drawn.count(), bodies.len());
    let said = inspect(&["verify"], &data);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.contains("before hold bodies that are needed"),
        "{said:?}"
    );
    let said = inspect(
        &["compare", "--json", data.to_str().expect("a path")],
        &before,
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["shards"][0]["verdict"], "continues");
    assert_eq!(said.json()["shards"][0]["newer"], "A");
}

#[test]
fn records_of_a_checkpoint_are_shown_and_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut journal = aged(&data);
    checkpoint(&mut journal);
    let lists = inspect(&["records", "--json", "--kind", "checkpoint"], &data).lines();
    let listed = lists
        .iter()
        .flat_map(|line| line["entries"].as_array().expect("a list"));
    assert!(listed.clone().count() >= 1, "{lists:?}");
    let one = number(&listed.clone().next().expect("one")["message"]);
    let name = one.to_string();
    let of_one = inspect(&["records", "--json", "--message", &name], &data).lines();
    let kinds: Vec<_> = of_one.iter().map(|line| line["kind"].as_str()).collect();
    assert!(
        kinds.contains(&Some("checkpoint")) && kinds.contains(&Some("message")),
        "{kinds:?}"
    );
    let of_queue = [
        "records",
        "--json",
        "--kind",
        "checkpoint_message",
        "--queue",
        "name 2",
    ];
    let of_queue = inspect(&of_queue, &data).lines();
    assert!(
        of_queue.iter().all(|line| line["queue"] == 2),
        "{of_queue:?}"
    );
    let delayed = of_queue.iter().find(|line| line["state"] == "delayed");
    let delayed = delayed.expect("one that failed");
    assert_eq!(delayed["attempts"], 3);
    assert_eq!(delayed["priority"], 7);
    assert!(
        of_queue
            .iter()
            .any(|line| line["reason"] == "attempts_exceeded")
    );
    let parts = of_queue.iter().filter(|line| line["fragments_total"] == 5);
    assert_eq!(parts.clone().count(), 3, "two in a record");
    let text = inspect(&["records", "--kind", "checkpoint_message"], &data);
    for part in [
        "fragments 3 to 4 of 5",
        "delivered 3 times",
        "last-value key",
        "leaving (diverted)",
    ] {
        assert!(text.out.contains(part), "{part} in {text:?}");
    }
    let story = inspect(&["message", &name, "--body", "none"], &data);
    assert!(story.out.contains("the checkpoint at LSN"), "{story:?}");
    let tail = inspect(&["tail", "--lines", "50"], &data);
    assert!(tail.out.contains("checkpoint_message"), "{tail:?}");
}

/// A block of a segment that is kept for bodies.
struct Body {
    path: PathBuf,
    offset: u64,
    first_lsn: u64,
    last_lsn: u64,
    /// Messages that are alive and have something in it.
    messages: BTreeSet<u64>,
}

fn body_blocks(data: &Path, state: &State, start: SegmentId) -> Vec<Body> {
    let held: BTreeSet<u64> = state
        .queues
        .values()
        .flat_map(BTreeMap::keys)
        .copied()
        .collect();
    let mut found = Vec::new();
    for line in inspect(&["blocks", "--json"], data).lines() {
        let (segment, offset) = (line["segment"].as_u64(), line["offset"].as_u64());
        let is_in = |place: &forebay_journal::Location| {
            Some(place.segment().get()) == segment && Some(place.block_offset()) == offset
        };
        let alive = held.iter().filter(|name| {
            let message = &state.messages[name];
            is_in(&message.location) || message.fragments.iter().any(|(place, _)| is_in(place))
        });
        let is_needed = state.needed().iter().any(|one| Some(one.get()) == segment);
        if line["what"] == "block" && segment < Some(start.get()) && is_needed {
            found.push(Body {
                path: line["file"].as_str().expect("a path").into(),
                offset: number(&line["offset"]),
                first_lsn: number(&line["first_lsn"]),
                last_lsn: number(&line["last_lsn"]),
                messages: alive.copied().collect(),
            });
        }
    }
    found
}

fn names(value: &Value) -> BTreeSet<u64> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(number)
        .collect()
}

#[test]
fn damage_to_bodies_is_named_with_its_messages_and_the_rest_is_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut journal = aged(&data);
    let start = checkpoint(&mut journal);
    let state = journal.state.as_ref().expect("is kept");
    let whole = exported(&data);
    let blocks = body_blocks(&data, state, start);
    assert!(
        blocks
            .iter()
            .filter(|block| !block.messages.is_empty())
            .count()
            > 5
    );
    for (index, block) in blocks.iter().enumerate() {
        let into = folder.path().join(format!("new-{index}"));
        let into_text = into.to_str().expect("a path");
        let (verify, export, repair, shown) = with_flip(&block.path, block.offset + 200, || {
            let verify = inspect(&["verify", "--json"], &data);
            let repair = ["repair", "--segment-size", "1MiB", "--into", into_text];
            let export = inspect(&["export"], &data);
            let shown = inspect(&["segments"], &data).out;
            (verify, export, inspect(&repair, &data), shown)
        });
        let is_last = blocks
            .get(index + 1)
            .is_none_or(|next| next.path != block.path);
        if block.messages.is_empty() && is_last {
            continue;
        }
        assert_eq!(verify.code, 1, "byte {}: {verify:?}", block.offset);
        let all = verify.json()["damage"].clone();
        let all = all.as_array().expect("a list");
        let of_bodies = all.iter().find(|one| one["kind"] == "body_block");
        let damage = of_bodies.expect("one of bodies");
        // The first block of a segment is looked at also where no replay reads it.
        let is_refused = all.len() > 1;
        assert!(!is_refused || block.offset == 4096, "{all:?}");
        let file = block.path.to_str().expect("a path");
        assert!(all.iter().all(|one| one["file"] == file), "{all:?}");
        assert!(
            all.iter().all(|one| one["offset"] == block.offset),
            "{all:?}"
        );
        assert_eq!(names(&damage["messages"]), block.messages, "{damage:#}");
        if !is_last {
            assert!(shown.contains("DAMAGED"), "{shown}");
            assert_eq!(damage["lsn_from"], block.first_lsn, "{damage:#}");
            assert_eq!(damage["lsn_upto"], block.last_lsn, "{damage:#}");
        }
        let status = match (is_refused, block.messages.is_empty()) {
            (true, _) => 1,
            (false, false) => 2,
            (false, true) => 0,
        };
        assert_eq!(export.code, status, "{export:?}");
        assert_eq!(repair.code, 1, "{repair:?}");
        assert_eq!(inspect(&["verify"], &into).code, 0);
        let mut saved = whole.clone();
        saved.retain(|(_, message), _| !block.messages.contains(message));
        assert!(
            exported(&into) == saved,
            "byte {}: {repair:?}",
            block.offset
        );
        fs::remove_dir_all(&into).expect("removes");
    }
    assert_eq!(inspect(&["verify"], &data).code, 0, "all is put back");
}

/// Verify, stat, export and repair of a store without one segment.
fn refuse(data: &Path, into: &Path, what: &str, lost: &BTreeSet<u64>, whole: &Exported) {
    let verify = inspect(&["verify", "--json"], data);
    assert_eq!(verify.code, 1, "{verify:?}");
    let damage = &verify.json()["damage"][0];
    assert_eq!(damage["kind"], what, "{damage:#}");
    let text = inspect(&["verify"], data);
    assert!(text.out.contains("is needed by"), "{text:?}");
    let export = inspect(&["export"], data);
    assert_eq!((export.code, export.out.as_str()), (1, ""), "{export:?}");
    let stat = inspect(&["stat", "--json"], data).json();
    assert_eq!(stat["shards"][0]["state"], "damaged");
    let into_text = into.to_str().expect("a path");
    let repair = inspect(
        &["repair", "--segment-size", "1MiB", "--into", into_text],
        data,
    );
    assert_eq!(repair.code, 1, "{repair:?}");
    assert_eq!(inspect(&["verify"], into).code, 0);
    let mut saved = whole.clone();
    saved.retain(|(_, message), _| !lost.contains(message));
    assert!(exported(into) == saved, "{what}: {repair:?}");
    fs::remove_dir_all(into).expect("removes");
}

#[test]
fn a_segment_that_is_needed_and_not_whole_is_refused_as_by_a_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, into) = (folder.path().join("data"), folder.path().join("new"));
    let mut journal = aged(&data);
    let start = checkpoint(&mut journal);
    let state = journal.state.as_ref().expect("is kept");
    let whole = exported(&data);
    let needed: Vec<_> = state.needed().range(..start).copied().collect();
    for segment in needed {
        let held = state.queues.values().flat_map(BTreeMap::keys);
        let lost = held.filter(|name| {
            let message = &state.messages[name];
            let parts = message.fragments.iter().map(|(place, _)| place.segment());
            let mut places = parts.chain([message.location.segment()]);
            places.any(|one| one == segment)
        });
        let lost: BTreeSet<u64> = lost.copied().collect();
        let all = files(&data);
        let (_, _, path) = all.iter().find(|one| one.1 == segment).expect("is there");
        let aside = path.with_extension("aside");
        fs::rename(path, &aside).expect("renames");
        refuse(&data, &into, "bodies_missing", &lost, &whole);
        let one = lost.first().expect("one").to_string();
        let said = inspect(&["message", &one], &data);
        assert!(
            said.code == 0 || said.err.contains("a checkpoint says"),
            "{said:?}"
        );
        fs::rename(&aside, path).expect("renames");
        // What is sound in a file with a damaged head, or without its end, is saved.
        with_bytes(path, 0, &[0; 64], || {
            refuse(&data, &into, "head", &BTreeSet::new(), &whole);
        });
        let bytes = fs::read(path).expect("reads");
        let file = OpenOptions::new().write(true).open(path).expect("opens");
        file.set_len(SEGMENT - 4096).expect("cuts");
        let verify = inspect(&["verify", "--json"], &data);
        assert_eq!(
            verify.json()["damage"][0]["kind"],
            "truncated",
            "{verify:?}"
        );
        fs::write(path, bytes).expect("writes");
    }
    assert_eq!(inspect(&["verify"], &data).code, 0, "all is put back");
    // What is not needed may be missing.
    let needed = state.needed();
    for (_, segment, path) in files(&data) {
        if segment < start && !needed.contains(&segment) {
            fs::remove_file(path).expect("removes");
        }
    }
    assert!(exported(&data) == whole);
}

/// A checkpoint that is given up half way through the fragments of a message, and one that is not.
#[test]
fn half_a_message_is_said_again_as_a_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut journal = Journal::create_sized(&data, SEGMENT);
    journal.state = Some(State::default());
    journal.define(1, "one");
    let body: Vec<u8> = (0..60_000_u32).map(|at| (at / 7) as u8).collect();
    journal.send_large(&[1], &body, 10_000);
    fill(&mut journal, 2);
    journal.begin_checkpoint();
    let (said, _) = journal.state.as_mut().expect("is kept").say(100);
    assert_eq!(said.len(), 3, "two fragments in each");
    journal.append(&said[0].record());
    fill(&mut journal, 1);
    // A replay begins here: it hears of the others first.
    let start = {
        let state = journal.state.as_mut().expect("is kept");
        assert!(!state.is_saying(), "given up");
        journal.begin_checkpoint();
        journal.current()
    };
    journal.append(&said[1].record());
    journal.append(&said[2].record());
    assert_eq!(journal.say(100), Some(start));
    journal.idle();
    let found = exported(&data);
    assert_eq!(found.len(), 1);
    assert!(found.values().all(|(_, found)| *found == body));
    assert_eq!(inspect(&["verify"], &data).code, 0);
}

#[test]
fn settled_messages_are_found_in_what_is_kept_for_bodies() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, into) = (folder.path().join("data"), folder.path().join("new"));
    let mut journal = aged(&data);
    let settled = journal.send(&[1], b"settled by mistake");
    let kept = journal.send(&[1], b"kept");
    journal.settle(1, &[settled]);
    fill(&mut journal, 2);
    let start = checkpoint(&mut journal);
    let state = journal.state.as_ref().expect("is kept");
    assert!(state.messages[&settled].location.segment() < start);
    let into_text = into.to_str().expect("a path");
    let said = inspect(&["undelete", "--into", into_text], &data);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(inspect(&["verify"], &into).code, 0);
    let found = exported(&into);
    assert_eq!(found[&(1, settled)].1, b"settled by mistake");
    let names: BTreeSet<u64> = found.keys().map(|(_, message)| *message).collect();
    assert!(!names.contains(&kept));
    let held = state.queues.values().flat_map(BTreeMap::keys);
    assert!(held.into_iter().all(|name| !names.contains(name)));
}

#[test]
fn damage_to_bodies_is_listed_beside_that_to_what_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, into) = (folder.path().join("data"), folder.path().join("new"));
    let mut journal = aged(&data);
    let start = checkpoint(&mut journal);
    fill(&mut journal, 1);
    let newest = journal.send(&[2], b"newest");
    journal.idle();
    journal.idle();
    let state = journal.state.clone().expect("is kept");
    let bodies = body_blocks(&data, &state, start);
    let body = bodies.iter().find(|block| {
        let is_alone = block.offset > 4096;
        is_alone && !block.messages.is_empty()
    });
    let body = body.expect("one");
    // A block that counts, behind the checkpoint, with a message that is settled in the next one.
    let counted = rig::blocks(&data);
    let counted = &counted[counted.len() - 8];
    let whole = exported(&data);
    with_flip(&body.path, body.offset + 200, || {
        with_flip(Path::new(&counted.file), counted.offset + 200, || {
            let verify = inspect(&["verify", "--json"], &data);
            assert_eq!(verify.code, 1, "{verify:?}");
            let all = verify.json()["damage"].clone();
            let all = all.as_array().expect("a list");
            let at = |file: &str, offset: u64| {
                all.iter()
                    .any(|one| one["file"] == file && one["offset"] == offset)
            };
            assert!(at(&counted.file, counted.offset), "{all:?}");
            assert!(
                at(body.path.to_str().expect("a path"), body.offset),
                "{all:?}"
            );
            let into_text = into.to_str().expect("a path");
            let repair = ["repair", "--segment-size", "1MiB", "--into", into_text];
            let repair = inspect(&repair, &data);
            assert_eq!(repair.code, 1, "{repair:?}");
        });
    });
    assert_eq!(inspect(&["verify"], &into).code, 0);
    let saved = exported(&into);
    for (key, expected) in &whole {
        let is_lost = body.messages.contains(&key.1);
        assert_eq!(saved.get(key), (!is_lost).then_some(expected), "{key:?}");
    }
    assert!(saved.contains_key(&(2, newest)));
}

/// Names in an export that was made of what is in doubt.
fn doubtful(into: &Path) -> BTreeSet<u64> {
    let path = into.join("journal/quarantine/doubtful.jsonl");
    let text = fs::read_to_string(path).expect("is there");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let messages = lines.filter(|line| line["what"] == "message");
    messages.map(|line| number(&line["message"])).collect()
}

/// Whatever block is lost that counts, also one with what a checkpoint says: what lies elsewhere is
/// saved, or in doubt, and never just gone.
#[test]
fn what_a_lost_checkpoint_named_is_in_doubt_and_not_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, into) = (folder.path().join("data"), folder.path().join("new"));
    let mut journal = aged(&data);
    checkpoint(&mut journal);
    fill(&mut journal, 1);
    journal.idle();
    let state = journal.state.clone().expect("is kept");
    let whole = exported(&data);
    let mut counted = rig::blocks(&data);
    counted.truncate(counted.len() - 2);
    let mut doubted = 0;
    for block in counted {
        with_flip(Path::new(&block.file), block.offset + 200, || {
            let into_text = into.to_str().expect("a path");
            let repair = ["repair", "--segment-size", "1MiB", "--into", into_text];
            let repair = inspect(&repair, &data);
            assert_eq!(repair.code, 1, "{repair:?}");
        });
        assert_eq!(inspect(&["verify"], &into).code, 0);
        let saved: BTreeSet<u64> = exported(&into).keys().map(|key| key.1).collect();
        let doubtful = doubtful(&into);
        for (_, message) in whole.keys() {
            let place = state.messages[message].location;
            let is_in = block
                .file
                .ends_with(&format!("{:020}", place.segment().get()))
                && place.block_offset() == block.offset;
            let is_there = saved.contains(message) || doubtful.contains(message);
            assert!(is_in || is_there, "{message} is gone with {block:?}");
        }
        doubted += doubtful.len();
        fs::remove_dir_all(&into).expect("removes");
    }
    assert!(doubted > 5, "a checkpoint was lost");
}
