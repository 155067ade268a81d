//! `segments`: one line for each segment file.

use std::io::Write;
use std::ops::ControlFlow;

use forebay_journal::format::SEGMENT_HEAD_SIZE;
use serde_json::{Value, json};

use super::{open, open_files, show};
use crate::cli::View;
use crate::file::{OpenSegment, read_buffer};
use crate::folder::Place;
use crate::ledger::Ledger;
use crate::named::Named;
use crate::survey::{Head, Standing, Surveyed, mark_bodies};
use crate::table::{Side, Table};
use crate::text::{count, size};
use crate::walk::{Between, Event, walk};

/// What a file holds.
#[derive(Clone, Debug, Default)]
struct Held {
    blocks: u64,
    records: u64,
    /// Bytes from the start of the file to the end of the last block.
    used: u64,
    first_lsn: Option<u64>,
    last_lsn: Option<u64>,
    /// Bytes that are neither blocks nor zeros, with blocks behind them.
    damaged: u64,
    /// Messages that are alive, where no replay reads it.
    needed: u64,
}

/// Prints what is found. Errors: it could not look.
pub(crate) fn run(place: &Place, view: &View, out: &mut dyn Write) -> anyhow::Result<()> {
    let (_, identity, shards) = open(place, view.shard)?;
    let mut table = Table::new(&[
        ("SHARD", Side::Right),
        ("EPOCH", Side::Right),
        ("SEGMENT", Side::Right),
        ("GEN", Side::Right),
        ("SIZE", Side::Right),
        ("USED", Side::Right),
        ("FIRST LSN", Side::Right),
        ("LAST LSN", Side::Right),
        ("BLOCKS", Side::Right),
        ("STATE", Side::Left),
        ("FILE", Side::Left),
    ]);
    let mut buffer = read_buffer();
    for shard in shards {
        let (files, mut surveyed) = open_files(place, &identity, shard, &mut buffer)?;
        let (mut held, needed) = hold(&files, &surveyed)?;
        mark_bodies(&files, &mut surveyed, &needed);
        add_body_damage(&files, &surveyed, &mut held)?;
        for ((file, one), mut held) in files.iter().zip(&surveyed).zip(held) {
            held.needed = needed.count(file.name.segment);
            if view.json {
                writeln!(out, "{}", json_of(file, one, &held))?;
            } else {
                table.row(row(file, one, &held));
            }
        }
    }
    if !view.json {
        table.print(out, "")?;
    }
    Ok(())
}

/// What each file holds, and what is needed of those that no replay reads.
fn hold(files: &[OpenSegment], surveyed: &[Surveyed]) -> anyhow::Result<(Vec<Held>, Named)> {
    let mut held = vec![Held::default(); files.len()];
    let mut ledger = Ledger::default();
    walk(files, surveyed, &mut |_, event| {
        match event {
            // Of a segment that counts, only what counts.
            Event::Block {
                spot,
                block,
                counts,
            } => {
                if counts.is_ok() {
                    ledger.take_block(files[spot.file].name.segment, spot.offset, &block);
                }
                let standing = surveyed[spot.file].standing;
                if counts.is_ok() || !matches!(standing, Standing::Counts { .. }) {
                    let (held, header) = (&mut held[spot.file], block.header);
                    held.blocks += 1;
                    held.records += u64::from(header.record_count);
                    held.used = spot.offset + u64::from(header.block_size);
                    held.first_lsn.get_or_insert_with(|| header.first_lsn.get());
                    held.last_lsn = Some(header.next_lsn().before().get());
                }
            }
            Event::Between(stretch) if stretch.is_inside => {
                if let Between::Damage { .. } = stretch.what {
                    held[stretch.spot.file].damaged += stretch.size;
                }
            }
            Event::Between(_) | Event::Gap { .. } => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for held in &mut held {
        held.used = held.used.max(SEGMENT_HEAD_SIZE as u64);
        // A file of idle seals alone holds no record.
        held.last_lsn = held.last_lsn.filter(|last| Some(*last) >= held.first_lsn);
    }
    Ok((held, ledger.needed()))
}

/// Looks again at the files that are kept for bodies: which they are was not known before.
fn add_body_damage(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    held: &mut [Held],
) -> anyhow::Result<()> {
    let is_body = |one: &Surveyed| matches!(one.standing, Standing::Bodies { .. });
    let end = surveyed
        .iter()
        .rposition(is_body)
        .map_or(0, |last| last + 1);
    walk(&files[..end], &surveyed[..end], &mut |_, event| {
        if let Event::Between(stretch) = event
            && stretch.is_inside
            && is_body(&surveyed[stretch.spot.file])
            && let Between::Damage { .. } = stretch.what
        {
            held[stretch.spot.file].damaged += stretch.size;
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn state_name(one: &Surveyed) -> (&'static str, Option<&'static str>) {
    match one.standing {
        Standing::Counts { .. } => ("counts", None),
        Standing::Bodies { .. } => ("bodies", None),
        Standing::Spare => ("spare", None),
        Standing::Leftover(why) => ("leftover", Some(why)),
    }
}

/// What is wrong with a file, as far as the file itself tells.
fn fault(file: &OpenSegment, one: &Surveyed, held: &Held) -> Option<String> {
    let truncated = match one.head {
        Head::Sound(head) if head.size > file.size => Some(format!(
            "the file has {} bytes, its head says {}",
            file.size, head.size
        )),
        _ => None,
    };
    let damaged =
        (held.damaged > 0).then(|| format!("{} damaged between blocks", size(held.damaged)));
    one.head.fault().or(truncated).or(damaged)
}

fn row(file: &OpenSegment, one: &Surveyed, held: &Held) -> Vec<String> {
    let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let generation = match one.head {
        Head::Sound(head) => Some(head.generation),
        _ => None,
    };
    let (state, why) = state_name(one);
    let mut state = state.to_owned();
    if let Some(why) = why {
        state += &format!(" ({why})");
    }
    if held.needed > 0 {
        state += &format!(" of {}", count(held.needed, "message"));
    }
    if let Some(fault) = fault(file, one, held) {
        let is_needed = matches!(
            one.standing,
            Standing::Counts { .. } | Standing::Bodies { .. }
        );
        state += if is_needed { ", DAMAGED: " } else { ", " };
        state += &fault;
    }
    vec![
        file.name.shard.to_string(),
        file.name.epoch.to_string(),
        file.name.segment.to_string(),
        or_dash(generation),
        size(file.size),
        size(held.used),
        or_dash(held.first_lsn),
        or_dash(held.last_lsn),
        held.blocks.to_string(),
        state,
        show(&file.name.path),
    ]
}

fn json_of(file: &OpenSegment, one: &Surveyed, held: &Held) -> Value {
    let head = match one.head {
        Head::Sound(head) => Some(head),
        _ => None,
    };
    let (state, why) = state_name(one);
    json!({
        "shard": file.name.shard.0,
        "epoch": file.name.epoch.get(),
        "segment": file.name.segment.get(),
        "generation": head.map(|head| head.generation),
        "inflight_blocks_max": head.map(|head| head.inflight_blocks_max),
        "file": show(&file.name.path),
        "size": file.size,
        "used_bytes": held.used,
        "first_lsn": held.first_lsn,
        "last_lsn": held.last_lsn,
        "first_block": one.first.map(|first| first.number.get()),
        "blocks": held.blocks,
        "records": held.records,
        "state": state,
        "why": why,
        "needed_messages": held.needed,
        "damage": fault(file, one, held),
    })
}
