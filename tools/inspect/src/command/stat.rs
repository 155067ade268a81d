//! `stat`: identity, amounts, queues, and where the log ends and why.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;

use forebay_journal::format::{FORMAT_VERSION, Record};
use forebay_journal::recovery::Recovered;
use serde_json::{Map, Value, json};

use super::verify::{damage_json, damage_of, end_json, end_text};
use super::{open, owner_json, owner_text, show};
use crate::cli::View;
use crate::describe::{kind_name, routing_name, text_or_base64};
use crate::file::read_buffer;
use crate::folder::{Owner, Place};
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::look::{Looked, Outcome, look};
use crate::queue::Queue;
use crate::survey::{BODIES, Standing};
use crate::table::{Side, Table};
use crate::text::{count, name, size, time};
use crate::walk::{Event, walk};

/// Prints what is found. Errors: it could not look.
pub(crate) fn run(place: &Place, view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
    let folder = show(place.journal("stat")?);
    let (listing, identity, shards) = open(place, view.shard)?;
    let mut buffer = read_buffer();
    let mut looks = Vec::new();
    for shard in shards {
        let looked = look(place, identity.journal, shard, &mut buffer)?;
        let bytes = bytes_held(&looked)?;
        looks.push((looked, bytes));
    }
    let owner = place.owner();
    if view.json {
        let object = whole_json(place, &folder, &identity, &owner, &looks);
        writeln!(out, "{object:#}")?;
        return Ok(());
    }
    writeln!(out, "folder   {folder}")?;
    writeln!(
        out,
        "journal  {}, format version {FORMAT_VERSION}, made {}",
        identity.journal,
        time(identity.created_unix_ms)
    )?;
    writeln!(out, "owner    {}", owner_text(&owner))?;
    writeln!(
        out,
        "epochs   {} with a folder; {}",
        listing.epochs.len(),
        count(identity.shards.len() as u64, "shard")
    )?;
    for fault in &identity.faults {
        let (path, offset, what) = (show(&fault.path), fault.offset, &fault.what);
        writeln!(out, "DAMAGED  {path}, byte {offset}: {what}")?;
    }
    for (looked, bytes) in &looks {
        print_shard(out, place, looked, bytes, &owner)?;
    }
    Ok(())
}

/// Bytes of heads and bodies in each queue, read once more: the ledger keeps names alone.
///
/// Of a running broker a little less, where messages were settled and their files reused since.
fn bytes_held(looked: &Looked) -> anyhow::Result<BTreeMap<u64, u64>> {
    let mut bytes = BTreeMap::new();
    walk(&looked.files, &looked.surveyed, &mut |_, event| {
        let Event::Block {
            spot,
            block,
            counts: Ok(()) | Err(BODIES),
        } = event
        else {
            return Ok(ControlFlow::Continue(()));
        };
        let segment = looked.files[spot.file].name.segment;
        let is_body = matches!(looked.surveyed[spot.file].standing, Standing::Bodies { .. });
        for (lsn, _, record) in block.records().flatten() {
            let (Record::Message { fields, .. } | Record::Moved { fields, .. }) = record else {
                continue;
            };
            let message = fields.message.0;
            let is_own = if is_body {
                looked.needed.has_own(segment, message)
            } else {
                looked.ledger.is_last(message, lsn)
            };
            if is_own {
                add_bytes(&looked.ledger, &record, &mut bytes);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(bytes)
}

fn add_bytes(ledger: &Ledger, record: &Record<'_>, bytes: &mut BTreeMap<u64, u64>) {
    let (Record::Message {
        fields,
        queues,
        head,
        ..
    }
    | Record::Moved {
        fields,
        queues,
        head,
        ..
    }) = record
    else {
        return;
    };
    for queue in ledger.queues_of(fields.message.0, *queues) {
        let held = ledger.queues.get(&queue);
        if held.is_some_and(|held| held.holds(fields.message.0)) {
            let sum = bytes.entry(queue).or_default();
            *sum += (head.size() as u64).saturating_add(fields.body_size);
        }
    }
}

/// Whether the broker stopped in order, in words.
fn state(looked: &Looked, owner: &Owner) -> &'static str {
    let Some(recovered) = recovered(looked) else {
        return "damaged";
    };
    match (recovered.totals.blocks, recovered.is_clean_shutdown) {
        _ if matches!(looked.outcome, Outcome::Contradiction { .. }) => "damaged",
        _ if !looked.bodies().missing().is_empty() => "damaged",
        (0, _) => "new",
        (_, true) => "stopped in order",
        (_, false) if owner.is_running() => "running",
        (_, false) => "not stopped in order",
    }
}

fn recovered(looked: &Looked) -> Option<&Recovered> {
    match &looked.outcome {
        Outcome::Sound { recovered, .. } | Outcome::Contradiction { recovered, .. } => {
            Some(recovered)
        }
        Outcome::Damaged(_) => None,
    }
}

fn print_shard(
    out: &mut dyn Write,
    place: &Place,
    looked: &Looked,
    bytes: &BTreeMap<u64, u64>,
    owner: &Owner,
) -> anyhow::Result<()> {
    let ledger = &looked.ledger;
    writeln!(out, "\nshard {}: {}", looked.shard, state(looked, owner))?;
    match &looked.outcome {
        Outcome::Sound { recovered, .. } => {
            for missing in looked.bodies().missing() {
                writeln!(out, "  DAMAGED   {}", missing.what)?;
            }
            print_recovered(out, looked, recovered, owner)?;
        }
        Outcome::Contradiction { recovered, what } => {
            writeln!(out, "  DAMAGED   the records contradict each other: {what}")?;
            print_recovered(out, looked, recovered, owner)?;
        }
        Outcome::Damaged(error) => {
            writeln!(out, "  DAMAGED   {error}")?;
            let file = super::path_of(place, looked, error);
            writeln!(out, "  file      {file}, byte {}", error.offset)?;
            let records = count(ledger.records(), "record");
            writeln!(
                out,
                "  below     {records} before the damage; `verify` shows all damage"
            )?;
        }
    }
    if let (Some(first), Some((last, _))) = (ledger.first, ledger.last) {
        writeln!(
            out,
            "  records   {}, LSN {first} to {last}",
            ledger.records()
        )?;
    }
    let mut kinds = Table::new(&[("KIND", Side::Left), ("RECORDS", Side::Right)]);
    for (kind, count) in ledger.kinds.iter() {
        kinds.row(vec![kind_name(kind).to_owned(), count.to_string()]);
    }
    if !kinds.is_empty() {
        writeln!(out)?;
        kinds.print(out, "  ")?;
    }
    print_queues(out, ledger, bytes)?;
    Ok(())
}

fn print_recovered(
    out: &mut dyn Write,
    looked: &Looked,
    recovered: &Recovered,
    owner: &Owner,
) -> std::io::Result<()> {
    if recovered.totals.blocks == 0 {
        let files = count(looked.files.len() as u64, "segment");
        return writeln!(out, "  empty     {files} prepared, nothing written yet");
    }
    let used: u64 = recovered
        .segments
        .iter()
        .map(|segment| segment.used_bytes)
        .sum();
    let all: u64 = looked.files.iter().map(|file| file.size).sum();
    writeln!(
        out,
        "  epochs    newest {}, the log goes back to {}",
        recovered.seal.epoch,
        recovered
            .segments
            .first()
            .map_or(recovered.seal.epoch, |segment| segment.epoch)
    )?;
    let bodies = looked.needed.segments().len();
    writeln!(
        out,
        "  segments  {} that count, {bodies} with bodies before, {} that do not; {} used of {}",
        recovered.segments.len(),
        looked
            .files
            .len()
            .saturating_sub(recovered.segments.len() + bodies),
        size(used),
        size(all)
    )?;
    writeln!(
        out,
        "  blocks    {}, {}, up to number {}",
        recovered.totals.blocks,
        size(recovered.totals.bytes),
        recovered.seal.block
    )?;
    writeln!(out, "  ends      {}", end_text(looked, recovered, owner))?;
    let shutdown = match (recovered.is_clean_shutdown, owner.is_running()) {
        (true, _) => format!("in order, {}", time(looked.ledger.stopped_unix_ms)),
        (false, true) => "not stopped, a broker runs on it".to_owned(),
        (false, false) => "not in order".to_owned(),
    };
    writeln!(out, "  shutdown  {shutdown}")?;
    writeln!(
        out,
        "  replay    from segment {} on; message names below {}, queue names below {} as journaled",
        recovered.oldest_segment, recovered.message_floor.0, recovered.queue_floor.0
    )
}

fn print_queues(
    out: &mut dyn Write,
    ledger: &Ledger,
    bytes: &BTreeMap<u64, u64>,
) -> std::io::Result<()> {
    let mut table = Table::new(&[
        ("QUEUE", Side::Right),
        ("NAME", Side::Left),
        ("ADDRESS", Side::Left),
        ("ROUTING", Side::Left),
        ("READY", Side::Right),
        ("UNSETTLED", Side::Right),
        ("DELAYED", Side::Right),
        ("LEAVING", Side::Right),
        ("BYTES", Side::Right),
    ]);
    for (id, queue) in &ledger.queues {
        let defined = queue.defined.as_ref();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row(vec![
            id.to_string(),
            or_dash(defined.map(|defined| name(&defined.name))),
            or_dash(defined.map(|defined| name(&defined.address))),
            or_dash(defined.map(|defined| routing_name(defined.routing).to_owned())),
            queue.ready.len().to_string(),
            queue.unsettled.len().to_string(),
            queue.delayed.len().to_string(),
            queue.leaving.len().to_string(),
            size(bytes.get(id).copied().unwrap_or(0)),
        ]);
    }
    if !table.is_empty() {
        writeln!(out)?;
        table.print(out, "  ")?;
    }
    let (undecided, prepared) = ledger.transactions();
    if undecided + prepared > 0 {
        writeln!(
            out,
            "  transactions: {undecided} undecided, {prepared} prepared"
        )?;
    }
    let (uploads, bytes) = ledger.uploads();
    if uploads > 0 {
        let uploads = count(uploads, "upload");
        writeln!(out, "  {uploads} without a message yet, {}", size(bytes))?;
    }
    Ok(())
}

fn whole_json(
    place: &Place,
    folder: &str,
    identity: &Identity,
    owner: &Owner,
    looks: &[(Looked, BTreeMap<u64, u64>)],
) -> Value {
    let faults = identity.faults.iter().map(
        |fault| json!({ "file": show(&fault.path), "offset": fault.offset, "what": fault.what }),
    );
    json!({
        "folder": folder,
        "journal": identity.journal.to_string(),
        "format_version": FORMAT_VERSION,
        "created_unix_ms": identity.created_unix_ms,
        "owner": owner_json(owner),
        "superblock_damage": faults.collect::<Vec<_>>(),
        "shards": looks.iter().map(|(one, bytes)| shard_json(place, one, bytes, owner)).collect::<Vec<_>>(),
    })
}

fn shard_json(place: &Place, looked: &Looked, bytes: &BTreeMap<u64, u64>, owner: &Owner) -> Value {
    let ledger = &looked.ledger;
    let kinds: Map<_, _> = ledger
        .kinds
        .iter()
        .map(|(kind, count)| (kind_name(kind).to_owned(), count.into()))
        .collect();
    let queues = ledger.queues.iter().map(|(id, queue)| {
        let bytes = bytes.get(id).copied().unwrap_or(0);
        queue_json(*id, queue, bytes)
    });
    let (undecided, prepared) = ledger.transactions();
    let (uploads, upload_bytes) = ledger.uploads();
    let mut object = json!({
        "shard": looked.shard.0,
        "state": state(looked, owner),
        "records": ledger.records(),
        "records_by_kind": kinds,
        "first_lsn": ledger.first.map(|lsn| lsn.get()),
        "last_lsn": ledger.last.map(|(lsn, _)| lsn.get()),
        "queues": queues.collect::<Vec<_>>(),
        "transactions_undecided": undecided,
        "transactions_prepared": prepared,
        "uploads": uploads,
        "upload_bytes": upload_bytes,
        "files": looked.files.len(),
        "files_bytes": looked.files.iter().map(|file| file.size).sum::<u64>(),
    });
    if let Outcome::Damaged(error) = &looked.outcome {
        object["damage"] = damage_json(&damage_of(place, looked, error));
    }
    if let Outcome::Contradiction { what, .. } = &looked.outcome {
        object["damage"] = json!({ "kind": "record_contradiction", "what": what });
    }
    if let Some(missing) = looked.bodies().missing().first() {
        object["damage"] = json!({ "kind": missing.kind, "what": missing.what });
    }
    if let Some(recovered) = recovered(looked) {
        object["epoch"] = recovered.seal.epoch.get().into();
        object["segments"] = recovered.segments.len().into();
        object["segments_bodies"] = looked.needed.segments().len().into();
        object["blocks"] = recovered.totals.blocks.into();
        object["blocks_bytes"] = recovered.totals.bytes.into();
        object["oldest_segment"] = recovered.oldest_segment.get().into();
        object["message_floor"] = recovered.message_floor.0.into();
        object["queue_floor"] = recovered.queue_floor.0.into();
        object["end"] = end_json(looked, recovered, owner);
    }
    object
}

fn queue_json(id: u64, queue: &Queue, bytes: u64) -> Value {
    let mut object = json!({
        "queue": id,
        "is_defined": queue.defined.is_some(),
        "ready": queue.ready.len(),
        "unsettled": queue.unsettled.len(),
        "delayed": queue.delayed.len(),
        "leaving": queue.leaving.len(),
        "bytes": bytes,
    });
    if let Some(defined) = &queue.defined {
        object["name"] = text_or_base64(&defined.name);
        object["address"] = text_or_base64(&defined.address);
        object["routing"] = routing_name(defined.routing).into();
        object["is_auto_created"] = defined.flags.is_auto_created.into();
        object["is_subscription"] = defined.flags.is_subscription.into();
    }
    object
}
