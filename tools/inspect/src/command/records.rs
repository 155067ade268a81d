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
use crate::filter::{Filter, Subject, find_message};
use crate::folder::{Owner, Place};
use crate::horizon::Spot;
use crate::survey::Surveyed;
use crate::text::name;
use crate::walk::{Between, Event, Files, walk};

/// Which records are shown, and how.
pub(super) struct Printer<'a> {
    args: &'a RecordsArgs,
    filter: Filter<'a>,
    owner: Owner,
    describer: Describer,
    /// Queues asked for; `None`: all.
    wanted: Option<BTreeSet<u64>>,
    pub(super) left: u64,
    /// Nothing below this LSN is shown, whatever is asked for.
    from: u64,
}

/// Prints what is found. Errors: it could not look, or the queue asked for is nowhere.
pub(crate) fn run(place: &Place, args: &RecordsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let (_, identity, shards) = open(place, args.view.shard)?;
    let mut buffer = read_buffer();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut is_found = args.queue.is_none() && args.wanted.message.is_none();
    for shard in shards {
        let (files, surveyed) = open_files(place, &identity, shard, &mut buffer)?;
        let mut printer = Printer::new(place, args, &files, &surveyed)?;
        printer.left = left;
        is_found |= printer.knows_queue();
        if printer.left > 0 && printer.may_show() {
            walk(&files, &surveyed, &mut |files, event| {
                printer.event(files, &event, out)
            })?;
        }
        is_found |= args.queue.is_none() && printer.left < left;
        left = printer.left;
    }
    if let (false, Some(message)) = (is_found, args.wanted.message) {
        bail!("no record that is asked for names message {message}");
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
    let mut queues = BTreeSet::new();
    walk(files, surveyed, &mut |_, event| {
        let Event::Block { block, .. } = event else {
            return Ok(ControlFlow::Continue(()));
        };
        for (_, _, record) in block.records().flatten() {
            if let Record::QueueDefine { queue, name, .. } = record {
                names.insert(queue.0, name.to_vec());
            }
            queues.extend(defined_as(&record, asked));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(queues)
}

/// The queue that a record defines, if it is the one asked for.
fn defined_as(record: &Record<'_>, asked: &str) -> Option<u64> {
    let Record::QueueDefine {
        queue,
        routing,
        address,
        name,
        ..
    } = *record
    else {
        return None;
    };
    let prefixed = |prefix: &str, routing: Routing| Some((asked.strip_prefix(prefix)?, routing));
    let prefixed =
        prefixed("/queue/", Routing::Anycast).or_else(|| prefixed("/topic/", Routing::Multicast));
    let is_same = |asked: &str| name == asked.as_bytes() || address == asked.as_bytes();
    let is_asked =
        is_same(asked) || prefixed.is_some_and(|(rest, kind)| kind == routing && is_same(rest));
    is_asked.then_some(queue.0)
}

impl<'a> Printer<'a> {
    /// Prepares for one shard: looks up queue and message that are asked for.
    pub(super) fn new(
        place: &Place,
        args: &'a RecordsArgs,
        files: &[OpenSegment],
        surveyed: &[Surveyed],
    ) -> anyhow::Result<Self> {
        let mut names = QueueNames::new();
        let mut wanted = None;
        if let Some(queue) = &args.queue {
            // A message may come before the definition of its queue, where that was repeated.
            wanted = Some(find_queues(files, surveyed, queue, &mut names)?);
        }
        let mut subject = None;
        if let Some(message) = args.wanted.message {
            let found = find_message(files, surveyed, message)?;
            let known = found.map(|found| found.subject);
            subject = Some(known.unwrap_or_else(|| Subject::nameless(message)));
        }
        Ok(Self {
            args,
            filter: Filter {
                wanted: &args.wanted,
                subject,
            },
            owner: place.owner(),
            describer: Describer {
                names,
                is_whole: args.bodies,
            },
            wanted,
            left: args.limit.unwrap_or(u64::MAX),
            from: 0,
        })
    }

    /// Shows nothing below this LSN.
    pub(super) fn show_from(&mut self, lsn: u64) {
        self.from = lsn;
    }

    fn knows_queue(&self) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|wanted| !wanted.is_empty())
    }

    fn may_show(&self) -> bool {
        self.wanted.is_none() || self.knows_queue()
    }

    /// LSNs of a block's records that would be shown.
    pub(super) fn wanted_in(&self, files: &Files<'_>, spot: Spot, block: &Block<'_>) -> Vec<u64> {
        let segment = files.files[spot.file].name.segment;
        if !self.filter.takes_block(segment, &block.header) {
            return Vec::new();
        }
        let records = block.records().flatten();
        let wanted = records.filter(|(lsn, _, record)| {
            self.filter.takes(lsn.get(), record) && self.is_wanted(record)
        });
        wanted.map(|(lsn, ..)| lsn.get()).collect()
    }

    /// Prints a line that is no record.
    pub(super) fn note(&self, text: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        if self.args.view.json {
            writeln!(out, "{}", json!({ "what": "note", "text": text }))?;
        } else {
            writeln!(out, "{:>10}  {text}", "-")?;
        }
        Ok(())
    }

    fn event(
        &mut self,
        files: &Files<'_>,
        event: &Event<'_>,
        out: &mut dyn Write,
    ) -> anyhow::Result<ControlFlow<()>> {
        let text = match event {
            Event::Block {
                spot,
                block,
                counts,
            } => {
                return self.block(files, *spot, block, *counts, out);
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
            writeln!(out, "{}", json_of(files, event, &self.owner))?;
        } else {
            writeln!(out, "{:>10}  {text}", "-")?;
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn block(
        &mut self,
        files: &Files<'_>,
        spot: Spot,
        block: &Block<'_>,
        counts: Result<(), &'static str>,
        out: &mut dyn Write,
    ) -> anyhow::Result<ControlFlow<()>> {
        let segment = files.files[spot.file].name.segment;
        let header = &block.header;
        if counts.is_ok() && self.filter.is_behind(header) {
            return Ok(ControlFlow::Break(()));
        }
        let takes = self.filter.takes_block(segment, header);
        for record in block.records() {
            let shown = match &record {
                Ok((lsn, _, record)) => {
                    self.learn(record);
                    takes
                        && lsn.get() >= self.from
                        && self.filter.takes(lsn.get(), record)
                        && self.is_wanted(record)
                }
                Err(_) => takes,
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
            writeln!(out, "{line}")?;
        }
        let flow = if self.left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        };
        Ok(flow)
    }

    /// Learns names; a queue that is asked for may be made while a tail is followed.
    fn learn(&mut self, record: &Record<'_>) {
        self.describer.learn(record);
        if let (Some(asked), Some(wanted)) = (&self.args.queue, &mut self.wanted)
            && let Some(queue) = defined_as(record, asked)
        {
            wanted.insert(queue);
        }
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
            | Record::Checkpoint { queue, .. }
            | Record::CheckpointMessage { queue, .. }
            | Record::Release { queue, .. } => wanted.contains(&queue.0),
            Record::Message { queues, .. } | Record::Moved { queues, .. } => {
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
