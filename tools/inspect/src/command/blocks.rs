//! `blocks`: one line for each block, and for what lies between blocks.

use std::io::Write;
use std::ops::ControlFlow;

use forebay_journal::format::{BlockHeader, Checksum};
use serde_json::{Value, json};

use super::{open, open_files, short, show};
use crate::cli::View;
use crate::file::read_buffer;
use crate::folder::{Owner, Place};
use crate::text::{size, time};
use crate::walk::{Between, Event, Files, Stretch, walk};

/// Prints what is found. Errors: it could not look.
pub(crate) fn run(place: &Place, view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
    let (_, identity, shards) = open(place, view.shard)?;
    let owner = place.owner();
    let mut buffer = read_buffer();
    for shard in shards {
        let (files, surveyed) = open_files(place, &identity, shard, &mut buffer)?;
        let mut file = None;
        walk(&files, &surveyed, &mut |files, event| {
            if view.json {
                writeln!(out, "{}", json_of(files, &event, &owner))?;
            } else {
                let at = file_of(&event);
                if file.replace(at) != Some(at) {
                    title(out, files, at)?;
                }
                writeln!(out, "{}", line(&event, &owner))?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

fn file_of(event: &Event<'_>) -> usize {
    match event {
        Event::Block { spot, .. } => spot.file,
        Event::Between(stretch) => stretch.spot.file,
        Event::Gap { expected, .. } => expected.behind.file,
    }
}

fn title(out: &mut dyn Write, files: &Files<'_>, file: usize) -> std::io::Result<()> {
    let (open, one) = (&files.files[file], &files.surveyed[file]);
    let name = &open.name;
    let fault = one
        .head
        .fault()
        .map_or_else(String::new, |fault| format!(", DAMAGED: {fault}"));
    let generation = one.read_as.map_or_else(String::new, |head| {
        format!(" generation {}", head.generation)
    });
    writeln!(
        out,
        "\nshard {} epoch {} segment {}{generation}, {}{fault}\n{}",
        name.shard,
        name.epoch,
        name.segment,
        size(open.size),
        show(&name.path)
    )?;
    writeln!(
        out,
        "{:>12} {:>10} {:>8} {:>10} {:>10} {:>8} {:>10}  {:<8}  {:<8}  SEALED",
        "OFFSET",
        "BLOCK",
        "BYTES",
        "FIRST LSN",
        "LAST LSN",
        "RECORDS",
        "DURABLE",
        "IDENTITY",
        "PREVIOUS"
    )
}

fn line(event: &Event<'_>, owner: &Owner) -> String {
    match event {
        Event::Block {
            spot,
            block,
            counts,
        } => {
            let header = &block.header;
            let previous = match header.previous {
                Checksum::NONE => "-".to_owned(),
                previous => short(previous),
            };
            let last = match header.is_idle_seal() {
                true => "-".to_owned(),
                false => header.next_lsn().before().to_string(),
            };
            let mut line = format!(
                "{:>12} {:>10} {:>8} {:>10} {last:>10} {:>8} {:>10}  {}  {previous:<8}  {}",
                spot.offset,
                header.number.get(),
                header.block_size,
                header.first_lsn.get(),
                header.record_count,
                header.durable_upto.get(),
                short(header.identity),
                time(header.sealed_unix_ms)
            );
            if header.is_idle_seal() {
                line += "  idle seal";
            }
            if let Err(why) = counts {
                line += &format!("  does not count: {why}");
            }
            line
        }
        Event::Between(stretch) => format!(
            "{:>12} {:>10} {:>8} {}",
            stretch.spot.offset,
            "-",
            stretch.size,
            between_text(stretch, owner)
        ),
        Event::Gap { .. } => format!("{:>12} {:>10} {:>8} {}", "-", "-", "-", gap_text(event)),
    }
}

/// What lies between blocks, in words.
pub(super) fn between_text(stretch: &Stretch, owner: &Owner) -> String {
    match &stretch.what {
        Between::Unused if stretch.is_inside => "zeros".to_owned(),
        Between::Unused => "unused".to_owned(),
        Between::Recycled => "the file was recycled while it was read".to_owned(),
        Between::Stale {
            blocks,
            header,
            differs,
        } => {
            let place = &header.place;
            format!(
                "stale: {blocks} of segment {} of epoch {} generation {} ({differs} differs)",
                place.segment, place.epoch, place.generation
            )
        }
        Between::Damage { header, cause } => {
            let cause = match cause {
                Some(cause) => cause.to_string(),
                None => "the disk does not give it back".to_owned(),
            };
            let named = header.map_or_else(String::new, |header| {
                let upto = header.next_lsn().before();
                format!(
                    " in block {}, LSN {} to {upto}",
                    header.number, header.first_lsn
                )
            });
            match damage_word(stretch, owner) {
                Some(word) => format!("{word}: {cause}{named}"),
                None => "left from a former use, or in flight".to_owned(),
            }
        }
    }
}

/// Behind the last block of a running broker a write is on its way; behind that of a dead one it
/// may have been; before it there is no excuse. `None`: in a recycled file the middle of a former
/// block looks the same.
fn damage_word(stretch: &Stretch, owner: &Owner) -> Option<&'static str> {
    match (stretch.is_inside, owner.is_running()) {
        (true, _) => Some("DAMAGED"),
        (false, _) if is_former(stretch) => None,
        (false, true) => Some("in flight"),
        (false, false) => Some("torn or damaged"),
    }
}

/// Whether a stretch behind the last block may be a part of a block of a former use.
pub(super) fn is_former(stretch: &Stretch) -> bool {
    let is_nameless = matches!(stretch.what, Between::Damage { header: None, .. });
    is_nameless && !stretch.is_inside && stretch.is_recycled
}

/// What a gap means, in words.
pub(super) fn gap_text(event: &Event<'_>) -> String {
    let Event::Gap {
        expected,
        found,
        differs,
        ..
    } = event
    else {
        return String::new();
    };
    let upto = found.first_lsn.before();
    let records = if upto >= expected.lsn {
        format!(", records {} to {upto} are lost", expected.lsn)
    } else {
        String::new()
    };
    format!(
        "DAMAGED: block {} should follow, the next one is block {} ({differs} differs){records}",
        expected.number, found.number
    )
}

fn header_json(header: &BlockHeader) -> Value {
    json!({
        "block": header.number.get(),
        "size": header.block_size,
        "payload_size": header.payload_size,
        "first_lsn": header.first_lsn.get(),
        "last_lsn": header.next_lsn().before().get(),
        "records": header.record_count,
        "durable_upto": header.durable_upto.get(),
        "identity": header.identity.to_string(),
        "previous": header.previous.to_string(),
        "sealed_unix_ms": header.sealed_unix_ms,
        "is_idle_seal": header.is_idle_seal(),
        "block_epoch": header.place.epoch.get(),
        "block_segment": header.place.segment.get(),
        "block_generation": header.place.generation,
    })
}

/// An event as an object; that of a block has its header's fields.
pub(super) fn json_of(files: &Files<'_>, event: &Event<'_>, owner: &Owner) -> Value {
    let name = &files.files[file_of(event)].name;
    let mut object = json!({
        "shard": name.shard.0,
        "epoch": name.epoch.get(),
        "segment": name.segment.get(),
        "file": show(&name.path),
    });
    let (what, header) = match event {
        Event::Block {
            spot,
            block,
            counts,
        } => {
            object["offset"] = spot.offset.into();
            object["counts"] = counts.is_ok().into();
            object["why_not"] = counts.err().into();
            ("block", Some(block.header))
        }
        Event::Between(stretch) => {
            object["offset"] = stretch.spot.offset.into();
            object["text"] = between_text(stretch, owner).into();
            object["is_inside"] = stretch.is_inside.into();
            let (what, header) = match stretch.what {
                Between::Unused => ("unused", None),
                Between::Recycled => ("recycled", None),
                Between::Stale { blocks, header, .. } => {
                    object["blocks"] = blocks.into();
                    ("stale", Some(header))
                }
                Between::Damage { header, .. } => ("damage", header),
            };
            object["stretch_size"] = stretch.size.into();
            (what, header)
        }
        Event::Gap {
            expected, found, ..
        } => {
            object["offset"] = expected.behind.offset.into();
            object["text"] = gap_text(event).into();
            object["lsn_from"] = expected.lsn.get().into();
            object["lsn_upto"] = found.first_lsn.before().get().into();
            ("gap", None)
        }
    };
    object["what"] = what.into();
    if let (Some(Value::Object(fields)), Some(object)) =
        (header.as_ref().map(header_json), object.as_object_mut())
    {
        object.extend(fields);
    }
    object
}
