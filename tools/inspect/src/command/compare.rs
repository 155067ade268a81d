//! `compare`: which of two stores is newer, and where they part.
//!
//! Each block names the one before it by a checksum over all of it: two blocks of one number that
//! are the same have the same history. So the place where two stores part is found by halves
//! among the first blocks of segments, and then little more than one segment of each is read.

use std::cmp::Ordering;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use forebay_journal::ShardId;
use forebay_journal::format::BlockHeader;
use serde_json::{Value, json};

use super::{open, short, show};
use crate::chain::{Follower, Step};
use crate::cli::CompareArgs;
use crate::file::read_buffer;
use crate::folder::Place;
use crate::identity::Identity;

/// One of the two stores.
struct Store {
    place: Place,
    identity: Identity,
}

/// One shard's chain in one store.
struct Side<'s> {
    store: &'s Store,
    follower: Follower,
    /// First block of each segment that counts, oldest first.
    firsts: Vec<BlockHeader>,
    last: Option<BlockHeader>,
}

/// How two chains stand to each other. Of two sides, `newer` is 0 or 1.
enum Relation {
    /// The same up to the last block, or both empty.
    Same,
    /// One goes on where the other ends.
    Continues { newer: usize },
    /// They differ from these blocks on.
    Parts(Box<Parting>),
    /// No block of one number is in both: nothing tells whether they have the same history.
    Apart,
}

/// Where two chains part.
struct Parting {
    common: Option<BlockHeader>,
    /// The first block of each that the other has not.
    first: [Option<BlockHeader>; 2],
}

/// Prints what is found; returns the exit status.
pub(crate) fn run(args: &CompareArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let stores = [Store::open(&args.a)?, Store::open(&args.b)?];
    let [a, b] = &stores;
    let is_same_journal = a.identity.journal == b.identity.journal;
    let mut shards = [&a.identity.shards[..], &b.identity.shards[..]].concat();
    shards.sort_unstable();
    shards.dedup();
    if let Some(asked) = args.view.shard {
        shards.retain(|shard| *shard == asked);
        if shards.is_empty() {
            bail!("neither store has a shard {asked}");
        }
    }
    let mut is_parted = !is_same_journal;
    let mut objects = Vec::new();
    if !args.view.json {
        print_stores(&stores, is_same_journal, out)?;
    }
    for shard in shards.into_iter().filter(|_| is_same_journal) {
        let mut sides = [
            Side::open(a, ShardId(shard))?,
            Side::open(b, ShardId(shard))?,
        ];
        let relation = relate(&mut sides)?;
        is_parted |= matches!(relation, Relation::Parts(_));
        if args.view.json {
            objects.push(json_of(shard, &sides, &relation));
        } else {
            print(shard, &sides, &relation, out)?;
        }
    }
    if args.view.json {
        let object = json!({
            "journals": stores.each_ref().map(|store| store.identity.journal.to_string()),
            "is_same_journal": is_same_journal,
            "shards": objects,
        });
        writeln!(out, "{object:#}")?;
    }
    Ok(u8::from(is_parted))
}

impl Store {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let place = Place::find(path)?;
        place.journal("compare")?;
        let (_, identity, _) = open(&place, None)?;
        Ok(Self { place, identity })
    }
}

impl<'s> Side<'s> {
    fn open(store: &'s Store, shard: ShardId) -> anyhow::Result<Self> {
        let mut buffer = read_buffer();
        let follower = Follower::open(&store.place, &store.identity, shard, &mut buffer)?;
        let firsts = follower.firsts();
        let mut side = Self {
            store,
            follower,
            firsts,
            last: None,
        };
        if let Some(newest) = side.firsts.last().copied() {
            let mut last = newest;
            side.each_from(newest.number.get(), &mut |header| {
                last = *header;
                true
            })?;
            side.last = Some(last);
        }
        Ok(side)
    }

    /// Visits headers from the first block of the segment that holds this number on, until told
    /// to stop.
    fn each_from(
        &mut self,
        number: u64,
        take: &mut dyn FnMut(&BlockHeader) -> bool,
    ) -> anyhow::Result<()> {
        let below = self.firsts.iter().rev();
        let first = below.clone().find(|first| first.number.get() <= number);
        let Some(first) = first else {
            return Ok(());
        };
        self.follower.rewind(first.first_lsn.get());
        let mut buffer = read_buffer();
        let Store { place, identity } = self.store;
        let visit = &mut |step: Step<'_>| {
            let is_more = match step {
                Step::Block { block, .. } => take(&block.header),
                // What is compared is gone: the store is in use, and older than it was.
                Step::Jump { .. } => false,
            };
            Ok(if is_more {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        };
        let _ = self.follower.poll(place, identity, &mut buffer, visit)?;
        Ok(())
    }

    /// The block of this number.
    fn header(&mut self, number: u64) -> anyhow::Result<Option<BlockHeader>> {
        let known = self
            .firsts
            .iter()
            .find(|first| first.number.get() == number);
        if let Some(known) = known {
            return Ok(Some(*known));
        }
        let mut found = None;
        self.each_from(number, &mut |header| {
            if header.number.get() == number {
                found = Some(*header);
            }
            header.number.get() < number
        })?;
        Ok(found)
    }

    /// First and last number.
    fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = (self.firsts.first()?, self.last.as_ref()?);
        Some((first.number.get(), last.number.get()))
    }

    /// What makes a store newer: the epoch of its last block, then its last LSN.
    fn age(&self) -> Option<(u64, u64)> {
        let last = self.last.as_ref()?;
        let lsn = last.next_lsn().before();
        Some((last.place.epoch.get(), lsn.get()))
    }
}

fn relate(sides: &mut [Side<'_>; 2]) -> anyhow::Result<Relation> {
    let [Some((first_a, last_a)), Some((first_b, last_b))] =
        sides.each_ref().map(|one| one.range())
    else {
        return Ok(match sides.each_ref().map(|side| side.range().is_some()) {
            [true, false] => Relation::Continues { newer: 0 },
            [false, true] => Relation::Continues { newer: 1 },
            _ => Relation::Same,
        });
    };
    let (low, high) = (first_a.max(first_b), last_a.min(last_b));
    if low > high {
        return Ok(relate_older(sides));
    }
    if is_same(sides, high)? {
        return Ok(match last_a.cmp(&last_b) {
            Ordering::Equal => Relation::Same,
            Ordering::Greater => Relation::Continues { newer: 0 },
            Ordering::Less => Relation::Continues { newer: 1 },
        });
    }
    let common = last_common(sides, low, high)?;
    let mut first = [None, None];
    let behind = common.map_or(low, |common| common.number.get() + 1);
    for (side, first) in sides.iter_mut().zip(&mut first) {
        *first = side.header(behind)?;
    }
    Ok(Relation::Parts(Box::new(Parting { common, first })))
}

/// Nothing that counts is in both; but where one ends, the other may still have what it does not
/// read any more.
fn relate_older(sides: &[Side<'_>; 2]) -> Relation {
    let mut buffer = read_buffer();
    for (older, newer) in [(0, 1), (1, 0)] {
        let Some(last) = sides[older].last else {
            continue;
        };
        let number = last.number.get();
        let Some(same) = sides[newer].follower.older(number, &mut buffer) else {
            continue;
        };
        if same.identity == last.identity {
            return Relation::Continues { newer };
        }
        let mut first = [Some(same); 2];
        first[older] = Some(last);
        return Relation::Parts(Box::new(Parting {
            common: None,
            first,
        }));
    }
    Relation::Apart
}

fn is_same(sides: &mut [Side<'_>; 2], number: u64) -> anyhow::Result<bool> {
    let [a, b] = sides;
    let (a, b) = (a.header(number)?, b.header(number)?);
    Ok(match (a, b) {
        (Some(a), Some(b)) => a.identity == b.identity,
        _ => false,
    })
}

/// The last block that both have, between these numbers.
fn last_common(
    sides: &mut [Side<'_>; 2],
    low: u64,
    high: u64,
) -> anyhow::Result<Option<BlockHeader>> {
    if !is_same(sides, low)? {
        return Ok(None);
    }
    let firsts = sides[0].firsts.iter().map(|first| first.number.get());
    let mut numbers: Vec<_> = firsts.filter(|one| (low..=high).contains(one)).collect();
    numbers.insert(0, low);
    // The first one is common; find the last that is, by halves.
    let (mut common, mut other) = (0, numbers.len());
    while common + 1 < other {
        let middle = usize::midpoint(common, other);
        if is_same(sides, numbers[middle])? {
            common = middle;
        } else {
            other = middle;
        }
    }
    let from = numbers[common];
    let upto = numbers.get(other).map_or(high, |other| other - 1);
    // Of one segment, a few thousand blocks at most.
    let mut left = Vec::new();
    sides[0].each_from(from, &mut |header| {
        if header.number.get() >= from {
            left.push(*header);
        }
        header.number.get() < upto
    })?;
    let mut last = None;
    let mut at = left.iter();
    sides[1].each_from(from, &mut |header| {
        if header.number.get() < from {
            return true;
        }
        let same = at.next().filter(|one| one.identity == header.identity);
        last = same.copied().or(last);
        same.is_some() && header.number.get() < upto
    })?;
    Ok(last)
}

/// Which is newer, if one is.
fn newer(sides: &[Side<'_>; 2]) -> Option<usize> {
    match sides[0].age().cmp(&sides[1].age()) {
        Ordering::Greater => Some(0),
        Ordering::Less => Some(1),
        Ordering::Equal => None,
    }
}

const NAMES: [&str; 2] = ["A", "B"];

fn newer_text(newer: Option<usize>) -> String {
    match newer {
        Some(side) => format!("{} is newer", NAMES[side]),
        None => "neither is newer".to_owned(),
    }
}

fn print_stores(
    stores: &[Store; 2],
    is_same_journal: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    for (name, store) in NAMES.iter().zip(stores) {
        let path = show(store.place.journal("compare")?);
        writeln!(out, "{name}  {path}: journal {}", store.identity.journal)?;
    }
    if !is_same_journal {
        writeln!(out, "two different journals: they have nothing in common")?;
    }
    Ok(())
}

fn header_text(header: &BlockHeader) -> String {
    format!(
        "block {} ({}), epoch {}, LSN {} to {}",
        header.number,
        short(header.identity),
        header.place.epoch,
        header.first_lsn,
        header.next_lsn().before()
    )
}

fn print(
    shard: u16,
    sides: &[Side<'_>; 2],
    relation: &Relation,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    writeln!(out, "\nshard {shard}")?;
    for (name, side) in NAMES.iter().zip(sides) {
        match &side.last {
            Some(last) => writeln!(out, "  {name} ends with {}", header_text(last))?,
            None => writeln!(out, "  {name} is empty")?,
        }
    }
    match relation {
        Relation::Same => writeln!(out, "  the same")?,
        Relation::Continues { newer } => writeln!(
            out,
            "  {} is newer: it goes on where {} ends",
            NAMES[*newer],
            NAMES[1 - *newer]
        )?,
        Relation::Apart => writeln!(
            out,
            "  {}, by epoch and LSN; no block is in both, so whether it goes on from the other \
             cannot be said",
            newer_text(newer(sides))
        )?,
        Relation::Parts(parting) => {
            let Parting { common, first } = &**parting;
            match common {
                Some(common) => writeln!(out, "  the same up to {}", header_text(common))?,
                None => writeln!(out, "  they differ from the first block that both have on")?,
            }
            for (name, first) in NAMES.iter().zip(first) {
                let text = first
                    .as_ref()
                    .map_or_else(|| "nothing".to_owned(), header_text);
                writeln!(out, "  then {name} has {text}")?;
            }
            writeln!(
                out,
                "  THEY PART; {}, by epoch and LSN",
                newer_text(newer(sides))
            )?;
        }
    }
    Ok(())
}

fn header_json(header: Option<&BlockHeader>) -> Value {
    header.map_or(Value::Null, |header| {
        json!({
            "block": header.number.get(),
            "identity": header.identity.to_string(),
            "epoch": header.place.epoch.get(),
            "segment": header.place.segment.get(),
            "offset": header.offset,
            "first_lsn": header.first_lsn.get(),
            "last_lsn": header.next_lsn().before().get(),
        })
    })
}

fn json_of(shard: u16, sides: &[Side<'_>; 2], relation: &Relation) -> Value {
    let (verdict, common, first) = match relation {
        Relation::Same => ("same", None, [None, None]),
        Relation::Continues { .. } => ("continues", None, [None, None]),
        Relation::Apart => ("apart", None, [None, None]),
        Relation::Parts(parting) => {
            let first = parting.first.each_ref().map(Option::as_ref);
            ("parts", parting.common.as_ref(), first)
        }
    };
    json!({
        "shard": shard,
        "verdict": verdict,
        "newer": newer(sides).map(|side| NAMES[side]),
        "last": sides.each_ref().map(|side| header_json(side.last.as_ref())),
        "last_common": header_json(common),
        "first_different": first.map(header_json),
    })
}
