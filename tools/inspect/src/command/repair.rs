//! `repair`: what can be proved of a damaged store, as a new store; the rest in quarantine.
//!
//! The damaged store stays as it is. Each record in a block that is sound and in its place counts.
//! Where records are missing, messages settled there come again (that is what at-least-once
//! delivery allows), and what rests on a missing record is not guessed: it goes to the quarantine.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use forebay_journal::ShardId;
use forebay_journal::format::SECTOR_SIZE;
use forebay_journal::storage::buffer::ReadBuffer;
use serde_json::{Value, json};

use super::export::JsonLines;
use super::proof::{Doubtful, Proved};
use super::{open, show};
use crate::build::NewStore;
use crate::cli::RepairArgs;
use crate::emit::{Emitted, emit};
use crate::file::{read_at, read_buffer};
use crate::folder::Place;
use crate::gather::{Gathered, Hole, Store, gather_leniently, refuse_running};
use crate::identity::Identity;
use crate::look::{Outcome, look};
use crate::text::{count, size};

/// Makes the store; returns the exit status.
pub(crate) fn run(place: &Place, args: &RepairArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    place.journal("repair")?;
    place.refuse_inside(&args.new.into)?;
    refuse_running(place, "repair")?;
    let (_, identity, shards) = open(place, None)?;
    let mut buffer = read_buffer();
    let causes = causes(place, &identity, &shards, &mut buffer)?;
    if causes.is_empty() {
        writeln!(
            out,
            "sound: there is nothing to repair, and nothing was made"
        )?;
        return Ok(0);
    }
    let mut store = Store {
        identity,
        shards: Vec::new(),
    };
    let mut holes = Vec::new();
    for shard in shards {
        let found = gather_leniently(place, &store.identity, shard, &mut buffer)?;
        store.shards.push(found.0);
        holes.push(found.1);
    }
    store.decide_transactions();
    let mut new = NewStore::begin(&args.new.into, args.new.segment_size)?;
    let proved = emit(&store, &Proved, &mut new)?;
    let quarantine = new.partial().join("journal").join("quarantine");
    let doubtful = fill_quarantine(&store, &holes, &quarantine)?;
    let report = report(
        &store.identity,
        &store,
        &holes,
        &causes,
        [&proved, &doubtful],
    );
    write_new(
        &quarantine.join("report.json"),
        format!("{report:#}\n").as_bytes(),
    )?;
    File::open(&quarantine)?.sync_all()?;
    new.finish()?;
    if args.json {
        writeln!(out, "{report:#}")?;
    } else {
        print(
            &store,
            &holes,
            &causes,
            [&proved, &doubtful],
            &args.new.into,
            out,
        )?;
    }
    Ok(1)
}

/// Copies what is damaged, and writes out the messages that are in doubt.
fn fill_quarantine(
    store: &Store,
    holes: &[Vec<Hole>],
    quarantine: &Path,
) -> anyhow::Result<Emitted> {
    fs::create_dir(quarantine)?;
    let doubtful = quarantine_messages(store, quarantine)?;
    for (one, holes) in store.shards.iter().zip(holes) {
        for hole in holes {
            if let Some(name) = copied_as(one, hole) {
                copy(one, hole, &quarantine.join(name))?;
            }
        }
    }
    Ok(doubtful)
}

/// Why a broker does not start on the store as it is, or does not find all bodies in it.
fn causes(
    place: &Place,
    identity: &Identity,
    shards: &[ShardId],
    buffer: &mut ReadBuffer,
) -> anyhow::Result<Vec<String>> {
    let faults = identity.faults.iter();
    let faults = faults.map(|fault| {
        let path = show(&fault.path);
        format!("{path}, byte {}: {}", fault.offset, fault.what)
    });
    let mut causes: Vec<_> = faults.collect();
    for shard in shards {
        let looked = look(place, identity.journal, *shard, buffer)?;
        match looked.outcome {
            Outcome::Sound { .. } => {
                let damages = looked.bodies().damages()?;
                let damages = damages.into_iter();
                causes.extend(damages.map(|one| format!("shard {shard}: {}", one.what)));
            }
            Outcome::Damaged(error) => causes.push(error.to_string()),
            Outcome::Contradiction { what, .. } => causes.push(format!("shard {shard}: {what}")),
        }
    }
    Ok(causes)
}

fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let mut file = File::create_new(path).with_context(shown)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(shown)
}

/// Writes what is doubtful as lines of an export, which a person may mend and import.
fn quarantine_messages(store: &Store, quarantine: &Path) -> anyhow::Result<Emitted> {
    let path = quarantine.join("doubtful.jsonl");
    let mut file = BufWriter::new(File::create_new(path)?);
    let emitted = emit(store, &Doubtful::of(store)?, &mut JsonLines(&mut file))?;
    file.into_inner()?.sync_all()?;
    Ok(emitted)
}

/// The file in the quarantine for what there is to copy.
fn copied_as(one: &Gathered, hole: &Hole) -> Option<String> {
    let file = hole.file.filter(|_| hole.size > 0)?;
    let name = &one.files[file].name;
    Some(format!(
        "epoch-{:020}-shard-{:03}-segment-{:020}-byte-{}.bin",
        name.epoch.get(),
        name.shard.0,
        name.segment.get(),
        hole.offset
    ))
}

/// Where it is, for people.
fn path_of(one: &Gathered, hole: &Hole) -> String {
    let file = hole.file.map(|file| show(&one.files[file].name.path));
    file.unwrap_or_else(|| "none".to_owned())
}

/// Copies a damaged stretch, as far as the disk gives it back; the rest is zeros.
fn copy(one: &Gathered, hole: &Hole, path: &Path) -> anyhow::Result<()> {
    let Some(from) = hole.file.map(|file| &one.files[file].file) else {
        return Ok(());
    };
    let shown = || path.display().to_string();
    let mut file = File::create_new(path).with_context(shown)?;
    let mut buffer = read_buffer();
    let mut offset = hole.offset;
    let end = hole.offset + hole.size;
    while offset < end {
        let len = (end - offset).min(buffer.len() as u64) as usize;
        let bytes = &mut buffer[..len.next_multiple_of(SECTOR_SIZE)];
        if read_at(from, offset, bytes).is_err() {
            for (index, sector) in bytes.chunks_mut(SECTOR_SIZE).enumerate() {
                let at = offset + (index * SECTOR_SIZE) as u64;
                if read_at(from, at, sector).is_err() {
                    sector.fill(0);
                }
            }
        }
        file.write_all(&bytes[..len]).with_context(shown)?;
        offset += len as u64;
    }
    file.sync_all().with_context(shown)
}

fn lsns(hole: &Hole) -> String {
    match (hole.lsn_from, hole.lsn_upto) {
        (Some(from), Some(upto)) if upto < from => "no record".to_owned(),
        (Some(from), Some(upto)) => format!("LSN {from} to {upto}"),
        (Some(from), None) => format!("LSN {from} and on"),
        _ => "which LSNs cannot be said".to_owned(),
    }
}

fn print(
    store: &Store,
    holes: &[Vec<Hole>],
    causes: &[String],
    [proved, doubtful]: [&Emitted; 2],
    into: &Path,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    for cause in causes {
        writeln!(out, "DAMAGED: {cause}")?;
    }
    for (one, holes) in store.shards.iter().zip(holes) {
        for hole in holes {
            let path = path_of(one, hole);
            writeln!(out, "shard {}: missing {}", one.shard, lsns(hole))?;
            writeln!(
                out,
                "  file     {path}\n  byte     {}, {}\n  what     {}",
                hole.offset,
                size(hole.size),
                hole.what
            )?;
        }
    }
    let (messages, queues) = (proved.totals.messages, proved.totals.queues);
    writeln!(
        out,
        "{}: {} and {}, all of which is proved",
        into.display(),
        count(queues, "queue"),
        count(messages, "message")
    )?;
    writeln!(
        out,
        "{} in doubt, and the damaged bytes, are in journal/quarantine there",
        count(doubtful.totals.messages, "message")
    )?;
    if holes.iter().any(|holes| !holes.is_empty()) {
        writeln!(
            out,
            "messages that were settled in the missing records come again"
        )?;
    }
    Ok(())
}

fn report(
    identity: &Identity,
    store: &Store,
    holes: &[Vec<Hole>],
    causes: &[String],
    [proved, doubtful]: [&Emitted; 2],
) -> Value {
    let all = store.shards.iter().zip(holes);
    let all = all.flat_map(|(one, holes)| holes.iter().map(move |hole| (one, hole)));
    let holes = all.map(|(one, hole)| {
        json!({
            "shard": one.shard.0,
            "file": hole.file.map(|file| show(&one.files[file].name.path)),
            "offset": hole.offset,
            "size": hole.size,
            "lsn_from": hole.lsn_from,
            "lsn_upto": hole.lsn_upto,
            "what": hole.what,
            "copy": copied_as(one, hole),
        })
    });
    json!({
        "journal": identity.journal.to_string(),
        "damage": causes,
        "missing": holes.collect::<Vec<_>>(),
        "queues": proved.totals.queues,
        "messages": proved.totals.messages,
        "messages_in_doubt": doubtful.totals.messages,
    })
}
