//! `verify`: whether a broker could start on this journal without losing anything.

use std::io::Write;
use std::ops::ControlFlow;

use forebay_journal::SegmentId;
use forebay_journal::format::BlockHeader;
use forebay_journal::recovery::file_name::segment_file_name;
use forebay_journal::recovery::{Problem, Recovered, RecoveryError};
use roaring::RoaringTreemap;
use serde_json::{Value, json};

use super::{lost, open, owner_json, owner_text, path_of, short, show};
use crate::bodies::BodyDamage;
use crate::cli::View;
use crate::file::read_buffer;
use crate::folder::{Listing, Owner, Place};
use crate::horizon::{Expected, Spot};
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::look::{Looked, Outcome, look};
use crate::survey::Standing;
use crate::text::{count, size};
use crate::walk::{Between, Event, Stretch, walk};

/// One damaged place.
pub(super) struct Damage {
    shard: Option<u16>,
    file: String,
    offset: u64,
    lsn_from: Option<u64>,
    lsn_upto: Option<u64>,
    kind: String,
    what: String,
    remedy: String,
    /// Messages that are alive and of which it takes something, where that is known.
    messages: RoaringTreemap,
}

/// What was found about one shard.
struct Verdict {
    looked: Looked,
    damages: Vec<Damage>,
    notes: Vec<String>,
}

/// Prints what is found; returns the exit status.
pub(crate) fn run(place: &Place, view: &View, out: &mut dyn Write) -> anyhow::Result<u8> {
    place.journal("verify")?;
    let (listing, identity, shards) = open(place, view.shard)?;
    let mut buffer = read_buffer();
    let mut verdicts = Vec::new();
    for shard in shards {
        let looked = look(place, identity.journal, shard, &mut buffer)?;
        verdicts.push(judge(place, looked)?);
    }
    // Asked last: a broker that began meanwhile explains what is in flight.
    let owner = place.owner();
    let damages = superblock_damages(&identity);
    let notes = notes(&listing, &identity);
    let is_damaged = !damages.is_empty() || verdicts.iter().any(|one| !one.damages.is_empty());
    let printed = if view.json {
        let object = whole_json(&identity, &owner, &verdicts, &damages, &notes);
        writeln!(out, "{object:#}").and_then(|()| out.flush())
    } else {
        print(out, place, &identity, &owner, &verdicts, &damages, &notes).and_then(|()| out.flush())
    };
    match printed {
        // The status says enough for whoever stopped reading.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(u8::from(is_damaged)),
    }
}

fn judge(place: &Place, mut looked: Looked) -> anyhow::Result<Verdict> {
    let (mut damages, mut notes) = (Vec::new(), Vec::new());
    match &looked.outcome {
        Outcome::Sound { recovered, .. } => notes.extend(spare_notes(&looked, recovered)),
        Outcome::Damaged(error) => {
            let mut first = damage_of(place, &looked, error);
            let (others, ledger) = other_damages(&looked, error, &mut first)?;
            damages.push(first);
            damages.extend(others);
            looked.find_bodies(&ledger);
        }
        Outcome::Contradiction { recovered, what } => {
            damages.push(contradiction(&looked, recovered, what));
        }
    }
    let bodies = looked.bodies().damages()?;
    damages.extend(
        bodies
            .into_iter()
            .map(|one| body_damage(place, &looked, one)),
    );
    Ok(Verdict {
        looked,
        damages,
        notes,
    })
}

fn superblock_damages(identity: &Identity) -> Vec<Damage> {
    let faults = identity.faults.iter().map(|fault| Damage {
        shard: None,
        file: show(&fault.path),
        offset: fault.offset,
        lsn_from: None,
        lsn_upto: None,
        kind: "superblock".to_owned(),
        what: fault.what.clone(),
        remedy: "Copy the sound sector of the two over the other (either will do), or the file \
                 from a copy of this folder; it never changes."
            .to_owned(),
        messages: RoaringTreemap::new(),
    });
    faults.collect()
}

/// What recovery found.
pub(super) fn damage_of(place: &Place, looked: &Looked, error: &RecoveryError) -> Damage {
    let (lsn_from, lsn_upto) = lost(error);
    let text = error.to_string();
    let remedy = text
        .rsplit_once("Nothing was changed. ")
        .map(|(_, remedy)| remedy);
    Damage {
        shard: Some(looked.shard.0),
        file: path_of(place, looked, error),
        offset: error.offset,
        lsn_from,
        lsn_upto,
        kind: kind_of(&error.problem),
        what: error.problem.to_string(),
        remedy: remedy.unwrap_or_default().to_owned(),
        messages: RoaringTreemap::new(),
    }
}

/// What is wrong with bodies below where a replay begins.
fn body_damage(place: &Place, looked: &Looked, damage: BodyDamage) -> Damage {
    let file = damage.file.map_or_else(
        || {
            let name = segment_file_name(looked.shard, damage.segment);
            let journal = place.journal("verify").map(show).unwrap_or_default();
            format!("{journal}/epoch-*/{name}")
        },
        |file| show(&looked.files[file].name.path),
    );
    Damage {
        shard: Some(looked.shard.0),
        file,
        offset: damage.offset,
        lsn_from: damage.lsn_from,
        lsn_upto: damage.lsn_upto,
        kind: damage.kind.to_owned(),
        what: damage.what,
        remedy: "Restore this file from the backup node or a copy, or save what is left with \
                 forebay-inspect repair."
            .to_owned(),
        messages: damage.messages,
    }
}

fn contradiction(looked: &Looked, recovered: &Recovered, what: &str) -> Damage {
    let last = recovered.segments.last();
    Damage {
        shard: Some(looked.shard.0),
        file: last.map_or_else(String::new, |segment| {
            show(&looked.files[segment.file as usize].name.path)
        }),
        offset: last.map_or(0, |segment| segment.used_bytes),
        lsn_from: None,
        lsn_upto: None,
        kind: "record_contradiction".to_owned(),
        what: what.to_owned(),
        remedy: "Keep the folder for analysis and report this; start from the backup node."
            .to_owned(),
        messages: RoaringTreemap::new(),
    }
}

fn kind_of(problem: &Problem) -> String {
    match problem {
        Problem::SegmentMissing => "segment_missing",
        Problem::EpochMissing => "epoch_missing",
        Problem::Truncated { .. } => "truncated",
        Problem::Head(_) => "head",
        Problem::Version { .. } => "version",
        Problem::Unreadable(_) => "unreadable",
        Problem::Chain { .. } => "chain",
        Problem::Illegal(_) => "illegal_block",
        Problem::Record(_) => "illegal_record",
        Problem::Contradiction { .. } => "contradiction",
        Problem::FirstBlock => "first_block",
        Problem::BeforeSeal { .. } => "before_seal",
        Problem::Table { row, .. } => return format!("table_row_{}", row.number),
        Problem::Exhausted { .. } => "exhausted",
        _ => "other",
    }
    .to_owned()
}

/// Looks for all else that is wrong with files that count: recovery stops at the first.
struct Sweep<'a> {
    looked: &'a Looked,
    error: &'a RecoveryError,
    /// What recovery stopped at.
    first: &'a mut Damage,
    first_at: Option<Spot>,
    damages: Vec<Damage>,
    /// What the records say that are there.
    ledger: Ledger,
}

/// Returns what the records say that are there, too.
fn other_damages(
    looked: &Looked,
    error: &RecoveryError,
    first: &mut Damage,
) -> anyhow::Result<(Vec<Damage>, Ledger)> {
    let first_at = error.file.map(|file| Spot {
        file: file as usize,
        offset: error.offset,
    });
    let mut sweep = Sweep {
        looked,
        error,
        first,
        first_at,
        damages: Vec::new(),
        ledger: Ledger::default(),
    };
    sweep.heads();
    walk(&looked.files, &looked.surveyed, &mut |files, event| {
        match event {
            Event::Block {
                spot,
                block,
                counts: Ok(()),
            } => {
                let segment = files.files[spot.file].name.segment;
                sweep.ledger.take_block(segment, spot.offset, &block);
            }
            Event::Gap {
                expected,
                spot,
                found,
                differs,
            } => sweep.gap(&expected, spot, &found, differs),
            Event::Between(stretch) => sweep.between(stretch),
            Event::Block { .. } => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((sweep.damages, sweep.ledger))
}

impl Sweep<'_> {
    fn damage(&self, spot: Spot, kind: &str, what: String) -> Damage {
        Damage {
            shard: Some(self.looked.shard.0),
            file: show(&self.looked.files[spot.file].name.path),
            offset: spot.offset,
            lsn_from: None,
            lsn_upto: None,
            kind: kind.to_owned(),
            what,
            remedy: "Restore this file from the backup node or a copy.".to_owned(),
            messages: RoaringTreemap::new(),
        }
    }

    fn heads(&mut self) {
        for (file, one) in self.looked.surveyed.iter().enumerate() {
            let spot = Spot { file, offset: 0 };
            let counts = matches!(one.standing, Standing::Counts { .. });
            if let Some(what) = one.head.fault()
                && counts
                && self.first_at != Some(spot)
            {
                self.damages.push(self.damage(spot, "head", what));
            }
        }
    }

    fn gap(&mut self, expected: &Expected, spot: Spot, found: &BlockHeader, differs: &'static str) {
        let behind = expected.behind;
        let lsn_upto = Some(found.first_lsn.before().get());
        if expected.lsn != self.error.lsn_from {
            let what = format!(
                "block {} should follow, the next one found is block {}: {differs} differs",
                expected.number, found.number
            );
            self.damages.push(Damage {
                lsn_from: Some(expected.lsn.get()),
                lsn_upto,
                ..self.damage(behind, "gap", what)
            });
            return;
        }
        self.first.lsn_upto = lsn_upto;
        // The chain alone may go on in either of two files; a later block of the same file tells
        // which, and so does one that is in use.
        let named = self
            .error
            .file
            .map(|file| self.looked.surveyed[file as usize].standing);
        let is_in_use = named.is_none_or(|named| matches!(named, Standing::Counts { .. }));
        let has_room = behind.offset < self.looked.files[behind.file].size;
        if spot.file == behind.file || !is_in_use && has_room {
            self.first.file = show(&self.looked.files[behind.file].name.path);
            self.first.offset = behind.offset;
            self.first_at = Some(behind);
        }
    }

    fn between(&mut self, stretch: &Stretch) {
        let Between::Damage { cause, .. } = stretch.what else {
            return;
        };
        if !stretch.is_inside || self.first_at == Some(stretch.spot) {
            return;
        }
        let cause = cause.map_or_else(
            || "the disk does not give it back".to_owned(),
            |cause| cause.to_string(),
        );
        let what = format!("{} are no block: {cause}", size(stretch.size));
        let damage = self.damage(stretch.spot, "block", what);
        // The gap around it came just before, and tells the records.
        match self.damages.last_mut() {
            Some(gap) if (&gap.file, gap.offset) == (&damage.file, damage.offset) => {
                (gap.kind, gap.what) = (damage.kind, damage.what);
            }
            _ => self.damages.push(damage),
        }
    }
}

fn notes(listing: &Listing, identity: &Identity) -> Vec<String> {
    let mut notes: Vec<_> = listing
        .others
        .iter()
        .map(|path| format!("not a part of the journal: {}", show(path)))
        .collect();
    notes.extend(listing.quarantined.iter().map(|(name, bytes)| {
        format!(
            "quarantine: shard {}, records from {} on: {} cut at byte {} of segment {} of epoch {}: {name}",
            name.shard,
            name.lsn_from,
            size(*bytes),
            name.offset,
            name.segment,
            name.epoch
        )
    }));
    if identity.faults.len() == 2 {
        notes.push("identity and shards are those that the segment files name".to_owned());
    }
    notes
}

fn spare_notes(looked: &Looked, recovered: &Recovered) -> Vec<String> {
    let mut notes = Vec::new();
    for spare in &recovered.spares {
        let (file, one) = (spare.file as usize, &looked.surveyed[spare.file as usize]);
        let is_left = !matches!(one.standing, Standing::Bodies { .. });
        if let Some(fault) = one.head.fault().filter(|_| is_left) {
            let path = show(&looked.files[file].name.path);
            notes.push(format!("{path} holds nothing that counts; {fault}"));
        }
    }
    notes
}

/// Where the log ends and why, in one line.
pub(super) fn end_text(looked: &Looked, recovered: &Recovered, owner: &Owner) -> String {
    let Some(last) = recovered.segments.last() else {
        return format!("nothing is written yet: {}", recovered.row.reason);
    };
    let path = show(&looked.files[last.file as usize].name.path);
    let why = reason(looked, recovered, owner);
    format!(
        "behind block {} ({}) at byte {} of {path}: {why}",
        recovered.seal.block,
        short(recovered.seal.checksum),
        last.used_bytes
    )
}

pub(super) fn reason(looked: &Looked, recovered: &Recovered, owner: &Owner) -> String {
    let row = recovered.row;
    match &looked.outcome {
        Outcome::Sound { grown: Some(_), .. } => {
            "more arrived while this looked; what is behind is in flight".to_owned()
        }
        _ if owner.is_running() => format!(
            "the last complete block; what is behind is in flight (row {})",
            row.number
        ),
        _ => format!("{} (row {})", row.reason, row.number),
    }
}

fn records_text(damage: &Damage) -> String {
    match (damage.lsn_from, damage.lsn_upto) {
        (Some(from), Some(upto)) if upto < from => {
            "none as far as known: what is lost is an idle seal".to_owned()
        }
        (Some(from), Some(upto)) => format!("{from} to {upto} are lost, perhaps more"),
        (Some(from), None) => format!("from {from} on may be lost"),
        (None, Some(upto)) => format!("some up to {upto} are lost"),
        _ => "which ones cannot be said".to_owned(),
    }
}

/// Names of messages in a line, and how many more there are.
fn names_text(messages: &RoaringTreemap) -> String {
    const SHOWN: usize = 8;
    let shown = messages.iter().take(SHOWN).map(|name| name.to_string());
    let shown: Vec<_> = shown.collect();
    let rest = messages.len() - shown.len() as u64;
    let more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(", "))
}

fn print_damage(out: &mut dyn Write, damage: &Damage) -> std::io::Result<()> {
    writeln!(out, "  file     {}", damage.file)?;
    writeln!(out, "  byte     {}", damage.offset)?;
    writeln!(out, "  records  {}", records_text(damage))?;
    if !damage.messages.is_empty() {
        writeln!(out, "  messages {}", names_text(&damage.messages))?;
    }
    writeln!(out, "  kind     {}: {}", damage.kind, damage.what)?;
    writeln!(out, "  remedy   {}", damage.remedy)
}

fn print(
    out: &mut dyn Write,
    place: &Place,
    identity: &Identity,
    owner: &Owner,
    verdicts: &[Verdict],
    damages: &[Damage],
    notes: &[String],
) -> std::io::Result<()> {
    let journal = place.journal("verify").map(show).unwrap_or_default();
    writeln!(
        out,
        "{journal}: journal {}; {}",
        identity.journal,
        owner_text(owner)
    )?;
    for damage in damages {
        writeln!(out, "superblock: DAMAGED")?;
        print_damage(out, damage)?;
    }
    for Verdict {
        looked,
        damages,
        notes,
    } in verdicts
    {
        let shard = looked.shard;
        if let Outcome::Sound { recovered, .. } = &looked.outcome {
            print_sound(out, looked, recovered, owner)?;
        }
        for damage in damages {
            writeln!(out, "shard {shard}: DAMAGED")?;
            print_damage(out, damage)?;
        }
        for note in notes {
            writeln!(out, "  note: {note}")?;
        }
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    let places = damages.len() + verdicts.iter().map(|one| one.damages.len()).sum::<usize>();
    match places {
        0 => writeln!(out, "sound"),
        _ => writeln!(out, "DAMAGED in {}", count(places as u64, "place")),
    }
}

fn print_sound(
    out: &mut dyn Write,
    looked: &Looked,
    recovered: &Recovered,
    owner: &Owner,
) -> std::io::Result<()> {
    let totals = recovered.totals;
    let span = match looked.ledger.first {
        Some(first) => format!(", LSN {first} to {}", recovered.seal.lsn),
        None => String::new(),
    };
    writeln!(
        out,
        "shard {}: sound: {}, {}, {}{span}",
        looked.shard,
        count(totals.segments, "segment"),
        count(totals.blocks, "block"),
        count(totals.records, "record"),
    )?;
    writeln!(out, "  ends {}", end_text(looked, recovered, owner))?;
    let bodies = looked.needed.segments().len() as u64;
    if bodies > 0 {
        writeln!(
            out,
            "  a replay begins at segment {}; {} before hold bodies that are needed",
            recovered.oldest_segment,
            count(bodies, "segment")
        )?;
    }
    let Some(cut) = recovered.cut.as_ref().filter(|_| !owner.is_running()) else {
        return Ok(());
    };
    for range in &cut.ranges {
        writeln!(
            out,
            "  the next start copies {} at byte {} of {} to the quarantine: nothing of it was \
             acknowledged",
            size(range.bytes),
            range.offset,
            show(&looked.files[range.file as usize].name.path)
        )?;
    }
    Ok(())
}

/// Names of messages in an object for programs.
const NAMES_MAX: usize = 1000;

pub(super) fn damage_json(damage: &Damage) -> Value {
    json!({
        "shard": damage.shard,
        "file": damage.file,
        "offset": damage.offset,
        "lsn_from": damage.lsn_from,
        "lsn_upto": damage.lsn_upto,
        "kind": damage.kind,
        "what": damage.what,
        "remedy": damage.remedy,
        "messages": damage.messages.iter().take(NAMES_MAX).collect::<Vec<_>>(),
        "messages_count": damage.messages.len(),
    })
}

/// Where the log ends and why.
pub(super) fn end_json(looked: &Looked, recovered: &Recovered, owner: &Owner) -> Value {
    let last = recovered.segments.last();
    let cut = recovered
        .cut
        .iter()
        .flat_map(|cut| &cut.ranges)
        .map(|range| {
            json!({
                "file": show(&looked.files[range.file as usize].name.path),
                "offset": range.offset,
                "bytes": range.bytes,
            })
        });
    json!({
        "file": last.map(|last| show(&looked.files[last.file as usize].name.path)),
        "offset": last.map(|last| last.used_bytes),
        "lsn": recovered.seal.lsn.get(),
        "block": recovered.seal.block.get(),
        "identity": recovered.seal.checksum.to_string(),
        "row": recovered.row.number,
        "reason": reason(looked, recovered, owner),
        "is_clean_shutdown": recovered.is_clean_shutdown,
        "behind": cut.collect::<Vec<_>>(),
    })
}

fn whole_json(
    identity: &Identity,
    owner: &Owner,
    verdicts: &[Verdict],
    damages: &[Damage],
    notes: &[String],
) -> Value {
    let shards = verdicts.iter().map(|Verdict { looked, notes, .. }| {
        let mut shard = json!({ "shard": looked.shard.0, "notes": notes });
        if let Outcome::Sound { recovered, .. } = &looked.outcome {
            shard["segments"] = recovered.totals.segments.into();
            shard["blocks"] = recovered.totals.blocks.into();
            shard["records"] = recovered.totals.records.into();
            let bodies = looked.needed.segments().into_iter();
            shard["replay_start"] = recovered.oldest_segment.get().into();
            let bodies: Vec<_> = bodies.map(SegmentId::get).collect();
            shard["body_segments"] = bodies.into();
            shard["end"] = end_json(looked, recovered, owner);
        }
        shard["first_lsn"] = looked.ledger.first.map(|lsn| lsn.get()).into();
        shard["last_lsn"] = looked.ledger.last.map(|(lsn, _)| lsn.get()).into();
        shard
    });
    let all = damages
        .iter()
        .chain(verdicts.iter().flat_map(|one| &one.damages));
    let all: Vec<_> = all.map(damage_json).collect();
    json!({
        "verdict": if all.is_empty() { "sound" } else { "damaged" },
        "journal": identity.journal.to_string(),
        "owner": owner_json(owner),
        "shards": shards.collect::<Vec<_>>(),
        "damage": all,
        "notes": notes,
    })
}
