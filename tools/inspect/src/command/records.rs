//! `records`: one line for each record.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;

use anyhow::bail;
use forebay_journal::Lsn;
use forebay_journal::format::{Block, FormatError, Record, Routing};
use serde_json::{Map, Value, json};

use super::blocks::{between_text, gap_text, is_former, json_of};
use super::{open, open_files};
use crate::cli::RecordsArgs;
use crate::describe::{Describer, QueueNames, kind_name};
use crate::file::{OpenSegment, read_buffer};
use crate::folder::{Owner, Place};
use crate::horizon::Spot;
use crate::survey::Surveyed;
use crate::text::name;
use crate::walk::{Between, Event, Files, walk};

/// Which records are shown, and how.
struct Printer<'a> {
    args: &'a RecordsArgs,
    owner: Owner,
    describer: Describer,
    /// Queues asked for; `None`: all.
    wanted: Option<BTreeSet<u64>>,
    left: u64,
    out: &'a mut dyn Write,
}

/// Prints what is found. Errors: it could not look, or the queue asked for is nowhere.
pub(crate) fn run(place: &Place, args: &RecordsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let (_, identity, shards) = open(place, args.view.shard)?;
    let owner = place.owner();
    let mut buffer = read_buffer();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut is_found = args.queue.is_none();
    for shard in shards {
        let (files, surveyed) = open_files(place, &identity, shard, &mut buffer)?;
        let mut names = QueueNames::new();
        let mut wanted = None;
        if let Some(queue) = &args.queue {
            // A message may come before the definition of its queue, where that was repeated.
            let queues = find_queues(&files, &surveyed, queue, &mut names)?;
            is_found |= !queues.is_empty();
            wanted = Some(queues);
        }
        let mut printer = Printer {
            args,
            owner: owner.clone(),
            describer: Describer {
                names,
                is_whole: args.bodies,
            },
            wanted,
            left,
            out: &mut *out,
        };
        if printer.left > 0
            && printer
                .wanted
                .as_ref()
                .is_none_or(|wanted| !wanted.is_empty())
        {
            walk(&files, &surveyed, &mut |files, event| {
                printer.event(files, &event)
            })?;
        }
        left = printer.left;
    }
    if !is_found {
        let queue = args.queue.as_deref().unwrap_or_default();
        bail!(
            "no record defines a queue {}; `stat` lists them",
            name(queue.as_bytes())
        );
    }
    Ok(())
}

/// Queues whose name or address is `asked`, as it is or behind `/queue/` or `/topic/`.
fn find_queues(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    asked: &str,
    names: &mut QueueNames,
) -> anyhow::Result<BTreeSet<u64>> {
    let prefixed = |prefix: &str, routing: Routing| Some((asked.strip_prefix(prefix)?, routing));
    let prefixed =
        prefixed("/queue/", Routing::Anycast).or_else(|| prefixed("/topic/", Routing::Multicast));
    let mut queues = BTreeSet::new();
    walk(files, surveyed, &mut |_, event| {
        let Event::Block { block, .. } = event else {
            return Ok(ControlFlow::Continue(()));
        };
        for (_, _, record) in block.records().flatten() {
            let Record::QueueDefine {
                queue,
                routing,
                address,
                name,
                ..
            } = record
            else {
                continue;
            };
            names.insert(queue.0, name.to_vec());
            let is_same = |asked: &str| name == asked.as_bytes() || address == asked.as_bytes();
            if is_same(asked)
                || prefixed.is_some_and(|(rest, kind)| kind == routing && is_same(rest))
            {
                queues.insert(queue.0);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(queues)
}

impl Printer<'_> {
    fn event(&mut self, files: &Files<'_>, event: &Event<'_>) -> anyhow::Result<ControlFlow<()>> {
        let text = match event {
            Event::Block {
                spot,
                block,
                counts,
            } => {
                return self.block(files, *spot, block, *counts);
            }
            Event::Gap { .. } => gap_text(event),
            Event::Between(stretch) => match stretch.what {
                Between::Damage { .. } if is_former(stretch) => {
                    return Ok(ControlFlow::Continue(()));
                }
                Between::Damage { .. } | Between::Recycled => {
                    let file = files.files[stretch.spot.file].name.path.display();
                    let what = between_text(stretch, &self.owner);
                    format!(
                        "{what} (byte {} of {file}, {} B)",
                        stretch.spot.offset, stretch.size
                    )
                }
                Between::Unused | Between::Stale { .. } => return Ok(ControlFlow::Continue(())),
            },
        };
        if self.args.view.json {
            writeln!(self.out, "{}", json_of(files, event, &self.owner))?;
        } else {
            writeln!(self.out, "{:>10}  {text}", "-")?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block(
        &mut self,
        files: &Files<'_>,
        spot: Spot,
        block: &Block<'_>,
        counts: Result<(), &'static str>,
    ) -> anyhow::Result<ControlFlow<()>> {
        for record in block.records() {
            let shown = match &record {
                Ok((lsn, _, record)) => {
                    self.describer.learn(record);
                    lsn.get() >= self.args.from && self.is_wanted(record)
                }
                Err(_) => true,
            };
            if !shown {
                continue;
            }
            if self.left == 0 {
                return Ok(ControlFlow::Break(()));
            }
            self.left -= 1;
            let line = if self.args.view.json {
                self.json(files, spot, block, counts, &record).to_string()
            } else {
                self.text(files, spot, counts, &record)
            };
            writeln!(self.out, "{line}")?;
        }
        let flow = if self.left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        };
        Ok(flow)
    }

    fn is_wanted(&self, record: &Record<'_>) -> bool {
        let Some(wanted) = &self.wanted else {
            return true;
        };
        match record {
            Record::QueueDefine { queue, .. }
            | Record::QueueDelete { queue }
            | Record::Delivery { queue, .. }
            | Record::Settle { queue, .. }
            | Record::Handout { queue, .. }
            | Record::Depart { queue, .. }
            | Record::Release { queue, .. } => wanted.contains(&queue.0),
            Record::Message { queues, .. } => {
                queues.queues().any(|queue| wanted.contains(&queue.0))
            }
            Record::Share { queue, pairs } => {
                let mut sources = pairs.pairs().map(|(source, _)| source);
                wanted.contains(&queue.0) || sources.any(|source| wanted.contains(&source.0))
            }
            Record::EpochStart { .. }
            | Record::Retained { .. }
            | Record::CleanShutdown { .. }
            | Record::Fragment { .. }
            | Record::UploadAbandoned { .. }
            | Record::DuplicateId { .. }
            | Record::Transaction { .. } => false,
        }
    }

    fn text(
        &self,
        files: &Files<'_>,
        spot: Spot,
        counts: Result<(), &'static str>,
        record: &Result<(Lsn, u32, Record<'_>), FormatError>,
    ) -> String {
        let name = &files.files[spot.file].name;
        let place = |offset: u32| {
            let at = format!("{}:{}+{offset}", name.segment, spot.offset);
            format!("{at:<20}")
        };
        let mut line = match record {
            Ok((lsn, offset, record)) => format!(
                "{:>10}  {}  {:<16}  {}",
                lsn.get(),
                place(*offset),
                kind_name(record.kind()),
                self.describer.text(record)
            ),
            Err(error) => {
                format!(
                    "{:>10}  {}  DAMAGED: the rest of this block: {error}",
                    "-",
                    place(0)
                )
            }
        };
        if name.shard.0 > 0 || self.args.view.shard.is_some() {
            line = format!("shard {:<3} {line}", name.shard);
        }
        if let Err(why) = counts {
            line += &format!("  (does not count: {why})");
        }
        line
    }

    fn json(
        &self,
        files: &Files<'_>,
        spot: Spot,
        block: &Block<'_>,
        counts: Result<(), &'static str>,
        record: &Result<(Lsn, u32, Record<'_>), FormatError>,
    ) -> Value {
        let name = &files.files[spot.file].name;
        let mut object = Map::new();
        let place = json!({
            "shard": name.shard.0,
            "epoch": name.epoch.get(),
            "segment": name.segment.get(),
            "block": block.header.number.get(),
            "offset": spot.offset,
            "counts": counts.is_ok(),
        });
        match record {
            Ok((lsn, offset, record)) => {
                object.insert("lsn".to_owned(), lsn.get().into());
                object.insert("kind".to_owned(), kind_name(record.kind()).into());
                object.insert("record_offset".to_owned(), (*offset).into());
                self.describer.json(record, &mut object);
            }
            Err(error) => {
                object.insert("kind".to_owned(), "damage".into());
                object.insert("text".to_owned(), error.to_string().into());
            }
        }
        if let Value::Object(place) = place {
            object.extend(place);
        }
        Value::Object(object)
    }
}
