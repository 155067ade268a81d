//! `message`: one message with all its properties, its story, and its body.

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use forebay_journal::Location;
use forebay_journal::format::Record;
use serde_json::{Map, Value, json};

use super::{open, open_files, show};
use crate::bodies::each_place;
use crate::cli::{BodyForm, MessageArgs};
use crate::describe::{Describer, QueueNames, kind_name};
use crate::dump::Dump;
use crate::file::{OpenSegment, read_buffer};
use crate::filter::{FoundMessage, find_message};
use crate::folder::Place;
use crate::horizon::Spot;
use crate::survey::Surveyed;
use crate::text::{printable, size, time};
use crate::walk::{Event, walk};

/// A record of the body's: where its block lies, and where it lies in that.
#[derive(Clone, Copy)]
struct Part {
    spot: Spot,
    record_offset: u32,
    body_offset: u64,
}

/// One message of one shard.
struct Shown<'a> {
    files: &'a [OpenSegment],
    surveyed: &'a [Surveyed],
    found: FoundMessage,
    /// In order; the message's own record is the last.
    parts: Vec<Part>,
    /// LSN, kind and text of each record that names it.
    story: Vec<(u64, &'static str, String)>,
    /// LSN of the last record of a checkpoint that counts and names its record.
    named_at: Option<u64>,
    describer: Describer,
}

/// Prints what is found. Errors: it could not look, or there is no such message.
pub(crate) fn run(place: &Place, args: &MessageArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let (_, identity, shards) = open(place, args.view.shard)?;
    let mut buffer = read_buffer();
    let (mut is_found, mut named) = (false, None);
    for shard in shards {
        let (files, surveyed) = open_files(place, &identity, shard, &mut buffer)?;
        let Some(found) = find_message(&files, &surveyed, args.message)? else {
            let place = find_named(&files, &surveyed, args.message)?;
            named = place.map(|place| (shard, place)).or(named);
            continue;
        };
        is_found = true;
        let mut shown = Shown {
            files: &files,
            surveyed: &surveyed,
            found,
            parts: Vec::new(),
            story: Vec::new(),
            named_at: None,
            describer: Describer {
                names: QueueNames::new(),
                is_whole: false,
            },
        };
        shown.gather()?;
        if args.view.json {
            shown.print_json(out)?;
        } else {
            shown.print(args.body, out)?;
        }
    }
    if let (false, Some((shard, place))) = (is_found, named) {
        let (segment, offset) = (place.segment(), place.block_offset());
        bail!(
            "a checkpoint says that message {} lies in segment {segment} of shard {shard}, byte \
             {offset}, and it is not there: `verify` says more",
            args.message
        );
    }
    if !is_found {
        bail!(
            "message {} is not on the disk: it was never persistent, or its segment was freed",
            args.message
        );
    }
    Ok(())
}

/// Where a checkpoint that counts says that the message's record lies.
fn find_named(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    message: u64,
) -> anyhow::Result<Option<Location>> {
    let mut found = None;
    walk(files, surveyed, &mut |_, event| {
        if let Event::Block {
            block,
            counts: Ok(()),
            ..
        } = event
        {
            for (_, _, record) in block.records().flatten() {
                each_place(&record, &mut |location, name, is_own| {
                    if is_own && name == message {
                        found = Some(location);
                    }
                });
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Most records of a story that are kept; the last ones.
const STORY_MAX: usize = 1000;

impl Shown<'_> {
    /// Reads once more: where the body's parts lie, and what happened.
    fn gather(&mut self) -> anyhow::Result<()> {
        let subject = self.found.subject;
        let (found, segment) = (&self.found, self.files[self.found.spot.file].name.segment);
        let at = Location::new(segment, found.spot.offset, found.record_offset);
        walk(self.files, self.surveyed, &mut |_, event| {
            let Event::Block {
                spot,
                block,
                counts,
            } = event
            else {
                return Ok(ControlFlow::Continue(()));
            };
            for (lsn, record_offset, record) in block.records().flatten() {
                self.describer.learn(&record);
                if !subject.is_in(&record) {
                    continue;
                }
                if let Record::Fragment { offset, .. } = record {
                    self.parts.push(Part {
                        spot,
                        record_offset,
                        body_offset: offset,
                    });
                    continue;
                }
                each_place(&record, &mut |location, message, _| {
                    if counts.is_ok() && (location, message) == (at, subject.message) {
                        self.named_at = Some(lsn.get());
                    }
                });
                if self.story.len() == STORY_MAX {
                    self.story.remove(0);
                }
                let text = match record {
                    // Its fields and body are shown by themselves.
                    Record::Message { .. } | Record::Moved { .. } => {
                        format!("{} parts before", self.parts.len())
                    }
                    Record::Checkpoint { queue, entries, .. } => {
                        let own = entries.iter();
                        let mut own = own.filter(|one| one.message().0 == subject.message);
                        let own = own.next().map(|own| self.describer.entry_text(queue, own));
                        own.unwrap_or_default()
                    }
                    _ => self.describer.text(&record),
                };
                self.story.push((lsn.get(), kind_name(record.kind()), text));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.parts.sort_by_key(|part| part.body_offset);
        self.parts.dedup_by_key(|part| part.body_offset);
        self.parts.push(Part {
            spot: self.found.spot,
            record_offset: self.found.record_offset,
            body_offset: u64::MAX,
        });
        Ok(())
    }

    /// Hands out the record of a part.
    fn with_record<T>(
        &self,
        part: Part,
        then: impl FnOnce(&Record<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut buffer = read_buffer();
        let file = &self.files[part.spot.file];
        let block = self.surveyed[part.spot.file]
            .read_as
            .and_then(|read_as| file.block(&read_as, part.spot.offset, &mut buffer));
        let gone = || {
            let path = show(&file.name.path);
            let offset = part.spot.offset;
            format!("the block at byte {offset} of {path} is gone: its file was recycled meanwhile")
        };
        let block = block.with_context(gone)?;
        let records = block.records().flatten();
        let mut same = records.filter(|(_, offset, _)| *offset == part.record_offset);
        let (_, _, record) = same.next().with_context(gone)?;
        then(&record)
    }

    /// Hands out the body piece by piece; returns how many bytes of it are on the disk.
    fn each_piece(&self, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for part in &self.parts {
            self.with_record(*part, |record| {
                if let Record::Fragment { body, .. }
                | Record::Message { body, .. }
                | Record::Moved { body, .. } = record
                {
                    bytes += body.size() as u64;
                    body.pieces().try_for_each(&mut take)?;
                }
                Ok(())
            })?;
        }
        Ok(bytes)
    }

    fn own(&self) -> Part {
        *self.parts.last().expect("its own record is there")
    }

    fn place(&self) -> (String, u64, u32) {
        let spot = self.found.spot;
        let path = show(&self.files[spot.file].name.path);
        (path, spot.offset, self.found.record_offset)
    }

    fn print(&self, form: BodyForm, out: &mut dyn Write) -> anyhow::Result<()> {
        let name = &self.files[self.found.spot.file].name;
        writeln!(
            out,
            "shard {}: message {}",
            name.shard, self.found.subject.message
        )?;
        let (path, block, offset) = self.place();
        let lsn = self.found.lsn;
        writeln!(
            out,
            "  record    LSN {lsn}, byte {block} + {offset} of {path}"
        )?;
        if let Some(lsn) = self.named_at {
            writeln!(
                out,
                "            below where a replay begins; the checkpoint at LSN {lsn} names it"
            )?;
        } else if let Err(why) = self.found.counts {
            writeln!(out, "            it does not count: {why}")?;
        }
        let missing = self.with_record(self.own(), |record| self.print_record(record, out))?;
        for (lsn, kind, text) in &self.story {
            writeln!(out, "  {lsn:>10}  {kind:<16}  {text}")?;
        }
        if form == BodyForm::None {
            return Ok(());
        }
        writeln!(out, "\nbody:")?;
        let is_text = form == BodyForm::Text || form == BodyForm::Auto && self.is_text()?;
        let mut dump = Dump::default();
        let bytes = self.each_piece(|piece| {
            if is_text {
                out.write_all(printable(piece).as_bytes())?;
            } else {
                dump.put(piece, out)?;
            }
            Ok(())
        })?;
        dump.end(out)?;
        if is_text {
            writeln!(out)?;
        }
        if bytes != missing {
            writeln!(
                out,
                "only {bytes} of {missing} bytes of the body are on the disk"
            )?;
        }
        Ok(())
    }

    /// Prints the record's own fields; returns the size of the whole body.
    fn print_record(&self, record: &Record<'_>, out: &mut dyn Write) -> anyhow::Result<u64> {
        let (Record::Message {
            fields,
            annotations,
            queues,
            head,
            ..
        }
        | Record::Moved {
            fields,
            annotations,
            queues,
            head,
            ..
        }) = record
        else {
            bail!("the record of the message is another one by now");
        };
        let queues: Vec<_> = queues.queues().map(|id| self.describer.queue(id)).collect();
        writeln!(out, "  queues    {}", queues.join(", "))?;
        writeln!(out, "  arrived   {}", time(fields.timestamp_unix_ms))?;
        writeln!(out, "  expires   {}", time(fields.expires_unix_ms))?;
        let durable = if fields.flags.is_durable { "yes" } else { "no" };
        writeln!(out, "  priority  {}, durable: {durable}", fields.priority)?;
        let length = fields.flags.has_content_length;
        let named = if length { "named" } else { "not named" };
        writeln!(
            out,
            "  body      {} ({} B) in {} records; its length was {named} by the sender",
            size(fields.body_size),
            fields.body_size,
            self.parts.len()
        )?;
        if fields.transaction != 0 {
            writeln!(out, "  in        transaction {}", fields.transaction)?;
        }
        let more = self.describer.annotations(annotations);
        if let Some(more) = more.strip_prefix(", ") {
            writeln!(out, "  also      {more}")?;
        }
        writeln!(out, "  head      encoding {}", fields.encoding)?;
        let head: Vec<u8> = head.pieces().flatten().copied().collect();
        for line in printable(&head).lines() {
            writeln!(out, "            {line}")?;
        }
        writeln!(out, "\nstory:")?;
        Ok(fields.body_size)
    }

    /// Whether the beginning of the body is text.
    fn is_text(&self) -> anyhow::Result<bool> {
        let mut is_text = true;
        let first = *self.parts.first().expect("its own record is there");
        self.with_record(first, |record| {
            if let Record::Fragment { body, .. }
            | Record::Message { body, .. }
            | Record::Moved { body, .. } = record
            {
                let begin: Vec<u8> = body.pieces().flatten().copied().take(4096).collect();
                // A letter may be cut at the end of what was taken.
                is_text = match std::str::from_utf8(&begin) {
                    Ok(text) => text.chars().all(is_plain),
                    Err(error) => error.error_len().is_none() && begin.len() == 4096,
                };
            }
            Ok(())
        })?;
        Ok(is_text)
    }

    /// One object; its body comes last, piece by piece.
    fn print_json(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut object = Map::new();
        self.with_record(self.own(), |record| {
            self.describer.json(record, &mut object);
            if let Record::Message { head, .. } | Record::Moved { head, .. } = record {
                let head: Vec<u8> = head.pieces().flatten().copied().collect();
                object.remove("head_preview");
                object.insert("head_base64".to_owned(), BASE64.encode(&head).into());
            }
            Ok(())
        })?;
        for shown_below in ["body_preview", "body_here_size", "head_here_size"] {
            object.remove(shown_below);
        }
        let (path, block, offset) = self.place();
        let story = self.story.iter();
        let story = story.map(|(lsn, kind, text)| json!({"lsn": lsn, "kind": kind, "text": text}));
        let place = json!({
            "shard": self.files[self.found.spot.file].name.shard.0,
            "lsn": self.found.lsn,
            "counts": self.found.counts.is_ok() || self.named_at.is_some(),
            "named_at_lsn": self.named_at,
            "file": path,
            "offset": block,
            "record_offset": offset,
            "story": story.collect::<Vec<_>>(),
        });
        if let Value::Object(place) = place {
            object.extend(place);
        }
        let text = Value::Object(object).to_string();
        let open = text.strip_suffix('}').expect("an object ends so");
        write!(out, "{open},\"body_base64\":\"")?;
        // Three bytes become four letters: what is left over waits for the next piece.
        let mut waiting = Vec::new();
        let bytes = self.each_piece(|piece| {
            waiting.extend_from_slice(piece);
            let whole = waiting.len() / 3 * 3;
            out.write_all(BASE64.encode(&waiting[..whole]).as_bytes())?;
            waiting.drain(..whole);
            Ok(())
        })?;
        out.write_all(BASE64.encode(&waiting).as_bytes())?;
        writeln!(out, "\",\"body_size_on_disk\":{bytes}}}")?;
        Ok(())
    }
}

fn is_plain(letter: char) -> bool {
    !letter.is_control() || matches!(letter, '\n' | '\r' | '\t')
}
