//! `map`: the segments as a picture: what in them is alive, dead, never written or damaged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;

use anyhow::Context as _;
use forebay_journal::format::{Record, SEGMENT_HEAD_SIZE, encoded_size};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Lsn, SegmentId, ShardId};
use roaring::RoaringTreemap;
use serde_json::{Value, json};

use super::{open, open_files, show};
use crate::cli::MapArgs;
use crate::file::{OpenSegment, read_buffer};
use crate::folder::Place;
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::named::Named;
use crate::survey::{BODIES, Head, Standing, Surveyed, mark_bodies};
use crate::text::size;
use crate::walk::{Between, Event, walk};

/// Bytes of one segment file, by what they are; together the whole file.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    /// Records of messages that are in a queue, and the parts of their bodies.
    live: u64,
    /// All other blocks that count.
    dead: u64,
    /// Left from another use, or in a file that does not count.
    former: u64,
    damaged: u64,
    unused: u64,
}

/// A part's name, letter, terminal colour and colour in a picture.
type Look = (&'static str, char, &'static str, &'static str);

const LOOKS: [Look; 5] = [
    ("live", '#', "32", "#2e8b57"),
    ("dead", '-', "33", "#c9b37e"),
    ("former", '~', "90", "#b8b8b8"),
    ("damaged", '!', "31", "#d62728"),
    ("unused", '.', "37", "#f0f0f0"),
];

impl Parts {
    fn all(&self) -> [u64; 5] {
        [self.live, self.dead, self.former, self.damaged, self.unused]
    }
}

/// One file as it is drawn.
struct Drawn {
    shard: u16,
    epoch: u64,
    segment: u64,
    /// `full`, `open`, `prepared`, `bodies`, `leftover`, or `damaged`.
    state: &'static str,
    parts: Parts,
    size: u64,
    path: String,
}

/// Letters in a bar.
const WIDTH: usize = 64;

/// Draws. Errors: it could not look, or the picture's file is there or cannot be written.
pub(crate) fn run(place: &Place, args: &MapArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    place.journal("map")?;
    if let Some(path) = &args.svg {
        place.refuse_inside(path)?;
    }
    let (_, identity, shards) = open(place, args.view.shard)?;
    let mut buffer = read_buffer();
    let mut drawn = Vec::new();
    for shard in shards {
        drawn.extend(shard_parts(place, &identity, shard, &mut buffer)?);
    }
    if let Some(path) = &args.svg {
        let shown = || path.display().to_string();
        let mut file = File::create_new(path).with_context(shown)?;
        file.write_all(svg(&drawn).as_bytes()).with_context(shown)?;
    }
    if args.view.json {
        for one in &drawn {
            writeln!(out, "{}", json_of(one))?;
        }
        return Ok(());
    }
    let has_colours = io::stdout().is_terminal();
    for (name, letter, colour, _) in LOOKS {
        write!(
            out,
            "{} {name}  ",
            coloured(&letter.to_string(), colour, has_colours)
        )?;
    }
    writeln!(out)?;
    for one in &drawn {
        writeln!(out, "{}", line(one, has_colours))?;
    }
    Ok(())
}

/// Reads a shard twice: what is in queues, then where it lies.
fn shard_parts(
    place: &Place,
    identity: &Identity,
    shard: ShardId,
    buffer: &mut ReadBuffer,
) -> anyhow::Result<Vec<Drawn>> {
    let (files, mut surveyed) = open_files(place, identity, shard, buffer)?;
    let ledger = ledger_of(&files, &surveyed)?;
    let needed = ledger.needed();
    mark_bodies(&files, &mut surveyed, &needed);
    let mut alive = Alive {
        ledger,
        needed,
        uploads: RoaringTreemap::new(),
    };
    alive.find_uploads(&files, &surveyed)?;
    let mut parts = vec![Parts::default(); files.len()];
    walk(&files, &surveyed, &mut |files, event| {
        match event {
            Event::Block {
                spot,
                block,
                counts,
            } => {
                let whole = u64::from(block.header.block_size);
                let part = &mut parts[spot.file];
                if !matches!(counts, Ok(()) | Err(BODIES)) {
                    part.former += whole;
                    return Ok(ControlFlow::Continue(()));
                }
                let body_of = counts.is_err().then(|| files.files[spot.file].name.segment);
                let records = block.records().flatten();
                let live = records.filter(|(lsn, _, record)| alive.has((body_of, *lsn), record));
                let live: u64 = live
                    .map(|(_, _, record)| encoded_size(&record) as u64)
                    .sum();
                part.live += live.min(whole);
                part.dead += whole - live.min(whole);
            }
            Event::Between(stretch) => {
                let part = &mut parts[stretch.spot.file];
                match stretch.what {
                    Between::Unused => part.unused += stretch.size,
                    Between::Damage { .. } if stretch.is_inside => part.damaged += stretch.size,
                    // Behind the end: another use, or what is just being written.
                    _ => part.former += stretch.size,
                }
            }
            Event::Gap { .. } => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let newest = parts.iter().rposition(|part| part.live + part.dead > 0);
    let drawn = files.iter().zip(&surveyed).zip(parts).enumerate();
    let drawn = drawn.map(|(index, ((file, one), part))| Drawn {
        shard: shard.0,
        epoch: file.name.epoch.get(),
        segment: file.name.segment.get(),
        state: state(one, &part, Some(index) == newest),
        parts: whole(part, file.size),
        size: file.size,
        path: show(&file.name.path),
    });
    Ok(drawn.collect())
}

/// Head and odd bytes belong to what is not alive.
fn whole(mut parts: Parts, size: u64) -> Parts {
    let known: u64 = parts.all().iter().sum();
    let rest = size.saturating_sub(known);
    let head = rest.min(SEGMENT_HEAD_SIZE as u64);
    parts.dead += head;
    parts.unused += rest - head;
    parts
}

fn state(one: &Surveyed, parts: &Parts, is_newest: bool) -> &'static str {
    let is_counted = matches!(one.standing, Standing::Counts { .. });
    match (one.standing, one.head) {
        _ if parts.damaged > 0 => "damaged",
        (
            Standing::Counts { .. } | Standing::Bodies { .. },
            Head::Unsound(_) | Head::Unreadable(_),
        ) => "damaged",
        (Standing::Bodies { .. }, _) => "bodies",
        (Standing::Spare, _) => "prepared",
        (Standing::Leftover(_), _) => "leftover",
        _ if is_counted && is_newest => "open",
        _ => "full",
    }
}

fn ledger_of(files: &[OpenSegment], surveyed: &[Surveyed]) -> anyhow::Result<Ledger> {
    let mut ledger = Ledger::default();
    walk(files, surveyed, &mut |files, event| {
        if let Event::Block {
            spot,
            block,
            counts: Ok(()),
        } = event
        {
            let segment = files.files[spot.file].name.segment;
            ledger.take_block(segment, spot.offset, &block);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(ledger)
}

/// What is in a queue.
struct Alive {
    ledger: Ledger,
    needed: Named,
    /// Uploads of messages that are.
    uploads: RoaringTreemap,
}

impl Alive {
    fn find_uploads(&mut self, files: &[OpenSegment], surveyed: &[Surveyed]) -> anyhow::Result<()> {
        if !self.ledger.has_uploads() {
            return Ok(());
        }
        walk(files, surveyed, &mut |files, event| {
            let Event::Block {
                spot,
                block,
                counts,
            } = event
            else {
                return Ok(ControlFlow::Continue(()));
            };
            let segment = files.files[spot.file].name.segment;
            let body_of = (counts == Err(BODIES)).then_some(segment);
            for (lsn, _, record) in block.records().flatten() {
                if let Record::Message { fields, .. } | Record::Moved { fields, .. } = record
                    && self.has((body_of, lsn), &record)
                {
                    self.uploads.insert(fields.upload);
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Shape: `body_of` is the segment if it is one that is kept for bodies.
    fn has(&self, (body_of, lsn): (Option<SegmentId>, Lsn), record: &Record<'_>) -> bool {
        match record {
            Record::Message { fields, queues, .. } | Record::Moved { fields, queues, .. } => {
                let message = fields.message.0;
                let is_named = |segment| self.needed.has_own(segment, message);
                let queues = self.ledger.queues_of(message, *queues);
                body_of.map_or_else(|| self.ledger.is_last(message, lsn), is_named)
                    && queues.iter().any(|queue| {
                        let held = self.ledger.queues.get(queue);
                        held.is_some_and(|held| held.holds(message))
                    })
            }
            Record::Fragment { upload, .. } => self.uploads.contains(*upload),
            _ => false,
        }
    }
}

fn coloured(text: &str, colour: &str, has_colours: bool) -> String {
    if has_colours {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Letters for each part: what is there at all has at least one.
fn letters(parts: &Parts) -> [usize; 5] {
    let all: u64 = parts.all().iter().sum();
    let share = |bytes: u64| match bytes {
        0 => 0,
        _ => (bytes as u128 * WIDTH as u128 / u128::from(all.max(1))).max(1) as usize,
    };
    let mut letters = parts.all().map(share);
    // The widest gives what the small ones got, or takes what rounding left.
    let widest = (0..5).max_by_key(|&index| letters[index]).unwrap_or(0);
    let sum: usize = letters.iter().sum();
    letters[widest] = (letters[widest] + WIDTH).saturating_sub(sum);
    letters
}

fn line(one: &Drawn, has_colours: bool) -> String {
    let mut bar = String::new();
    for (count, (_, letter, colour, _)) in letters(&one.parts).into_iter().zip(LOOKS) {
        let text: String = std::iter::repeat_n(letter, count).collect();
        if count > 0 {
            bar += &coloured(&text, colour, has_colours);
        }
    }
    let percent = one.parts.live * 100 / one.size.max(1);
    format!(
        "shard {:<3} epoch {:<5} segment {:<6} [{bar}] {:<8} {percent:>3} % live of {}",
        one.shard,
        one.epoch,
        one.segment,
        one.state,
        size(one.size)
    )
}

fn json_of(one: &Drawn) -> Value {
    let parts = LOOKS.iter().zip(one.parts.all());
    let parts: BTreeMap<_, _> = parts.map(|((name, ..), bytes)| (*name, bytes)).collect();
    json!({
        "shard": one.shard,
        "epoch": one.epoch,
        "segment": one.segment,
        "state": one.state,
        "size": one.size,
        "bytes": parts,
        "file": one.path,
    })
}

/// A row for each segment, its parts side by side in scale.
fn svg(drawn: &[Drawn]) -> String {
    const ROW: usize = 18;
    const LEFT: usize = 240;
    const BAR: usize = 640;
    let (width, height) = (LEFT + BAR + 120, (drawn.len() + 2) * ROW);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"12\">\n"
    );
    let mut put = |line: String| {
        writeln!(text, "{line}").expect("a string takes all that is written");
    };
    for (index, (name, _, _, colour)) in LOOKS.iter().enumerate() {
        let x = LEFT + index * 100;
        put(format!(
            "<rect x=\"{x}\" y=\"3\" width=\"12\" height=\"12\" fill=\"{colour}\" \
             stroke=\"#888\"/><text x=\"{}\" y=\"13\">{name}</text>",
            x + 16
        ));
    }
    for (index, one) in drawn.iter().enumerate() {
        let y = (index + 1) * ROW + 4;
        put(format!(
            "<text x=\"4\" y=\"{}\">shard {} epoch {} segment {}</text>",
            y + 12,
            one.shard,
            one.epoch,
            one.segment
        ));
        let mut x = LEFT as f64;
        for ((_, _, _, colour), bytes) in LOOKS.iter().zip(one.parts.all()) {
            let part = BAR as f64 * bytes as f64 / one.size.max(1) as f64;
            if bytes > 0 {
                put(format!(
                    "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{part:.2}\" height=\"14\" \
                     fill=\"{colour}\"/>"
                ));
            }
            x += part;
        }
        put(format!(
            "<text x=\"{}\" y=\"{}\">{}</text>",
            LEFT + BAR + 8,
            y + 12,
            one.state
        ));
    }
    put("</svg>".to_owned());
    text
}
