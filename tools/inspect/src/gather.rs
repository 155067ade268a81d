//! The first of two readings of a store: which messages are in which queues, and how.
//!
//! The second ([`crate::emit`]) finds their bodies. So memory holds names alone, and what comes
//! while it is read changes nothing: what counts is what the first reading found.

use std::ops::ControlFlow;

use anyhow::{Context as _, bail};
use forebay_journal::format::Block;
use forebay_journal::recovery::RecordSink as _;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Location, SegmentId, ShardId};

use crate::bodies::{self, BodyDamage};
use crate::command::{open, owner_text, path_of};
use crate::file::{OpenSegment, read_buffer};
use crate::folder::Place;
use crate::horizon::{Expected, Spot};
use crate::identity::Identity;
use crate::ledger::{End, Ledger};
use crate::line::Source;
use crate::look::{Outcome, look};
use crate::named::Named;
use crate::survey::{BELOW_START, BODIES, Standing, Surveyed, mark_bodies, survey_damaged};
use crate::text::count;
use crate::walk::{Between, Event, Stretch, walk};

/// One shard as it was found.
pub(crate) struct Gathered {
    pub(crate) shard: ShardId,
    pub(crate) files: Vec<OpenSegment>,
    pub(crate) surveyed: Vec<Surveyed>,
    pub(crate) ledger: Ledger,
    /// Messages that are alive below where a replay begins.
    pub(crate) needed: Named,
    /// Where it ends: nothing behind it is taken.
    pub(crate) source: Source,
}

/// All shards, whatever is asked for: a transaction may need the word of another shard.
pub(crate) struct Store {
    pub(crate) identity: Identity,
    pub(crate) shards: Vec<Gathered>,
}

/// A place where records are missing, or may be.
pub(crate) struct Hole {
    /// None: there is none.
    pub(crate) file: Option<usize>,
    pub(crate) offset: u64,
    /// Bytes of it; zero where whole blocks or files are missing.
    pub(crate) size: u64,
    pub(crate) lsn_from: Option<u64>,
    pub(crate) lsn_upto: Option<u64>,
    pub(crate) what: String,
}

/// Reads a sound store. Errors: it could not look.
///
/// `Err` of the inner result: it is damaged; what is damaged, in words.
pub(crate) fn gather(place: &Place) -> anyhow::Result<Result<Store, String>> {
    let (_, identity, shards) = open(place, None)?;
    let mut buffer = read_buffer();
    let mut gathered = Vec::new();
    for shard in shards {
        let looked = look(place, identity.journal, shard, &mut buffer)?;
        let recovered = match &looked.outcome {
            Outcome::Sound { recovered, .. } => recovered,
            Outcome::Damaged(error) => {
                let file = path_of(place, &looked, error);
                let byte = error.offset;
                return Ok(Err(format!("{file}, byte {byte}: {error}")));
            }
            Outcome::Contradiction { what, .. } => return Ok(Err(what.clone())),
        };
        if let Some(missing) = looked.bodies().missing().first() {
            return Ok(Err(format!("shard {shard}: {}", missing.what)));
        }
        let source = Source {
            shard: shard.0,
            epoch: recovered.seal.epoch.get(),
            lsn: recovered.seal.lsn.get(),
            block: recovered.seal.block.get(),
        };
        gathered.push(Gathered {
            shard,
            files: looked.files,
            surveyed: looked.surveyed,
            ledger: looked.ledger,
            needed: looked.needed,
            source,
        });
    }
    let mut store = Store {
        identity,
        shards: gathered,
    };
    store.decide_transactions();
    Ok(Ok(store))
}

/// Refuses a store that a broker runs on: for what needs one that stays as it is.
pub(crate) fn refuse_running(place: &Place, what: &str) -> anyhow::Result<()> {
    let owner = place.owner();
    if owner.is_running() {
        bail!(
            "{what} needs a store that stays as it is, but {}. Stop the broker, or name a copy",
            owner_text(&owner)
        );
    }
    Ok(())
}

/// Reads what can be read of a damaged shard, in order, and says where something is missing.
pub(crate) fn gather_leniently(
    place: &Place,
    identity: &Identity,
    shard: ShardId,
    buffer: &mut ReadBuffer,
) -> anyhow::Result<(Gathered, Vec<Hole>)> {
    let files = place.open(shard, buffer)?;
    let files = files.context("a file went away: the store is in use")?;
    let mut surveyed = survey_damaged(identity.journal, &files, buffer);
    let mut ledger = Ledger::default();
    let mut holes = Vec::new();
    let mut source = Source {
        shard: shard.0,
        epoch: 0,
        lsn: 0,
        block: 0,
    };
    walk(&files, &surveyed, &mut |files, event| {
        match event {
            Event::Block {
                spot,
                block,
                counts: Ok(()),
            } => {
                let header = &block.header;
                source.epoch = header.place.epoch.get();
                source.lsn = header.next_lsn().before().get();
                source.block = header.number.get();
                let segment = files.files[spot.file].name.segment;
                holes.extend(take_block(&mut ledger, spot, segment, &block));
            }
            Event::Block { .. } => {}
            Event::Gap {
                expected, found, ..
            } => {
                ledger.note_hole();
                holes.push(gap(&expected, found.first_lsn.before().get()));
            }
            Event::Between(stretch) => {
                // Nothing of what happened is missing where no replay reads.
                let standing = files.surveyed[stretch.spot.file].standing;
                let is_read = standing != Standing::Leftover(BELOW_START);
                if let Some(hole) = hole_of(stretch).filter(|_| is_read) {
                    put_hole(&mut holes, hole);
                    ledger.note_hole();
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let needed = ledger.needed();
    mark_bodies(&files, &mut surveyed, &needed);
    let mut gathered = Gathered {
        shard,
        files,
        surveyed,
        ledger,
        needed,
        source,
    };
    holes.extend(gathered.lost_bodies()?);
    Ok((gathered, holes))
}

/// Adds a hole. The gap around it came just before, and knows the records.
fn put_hole(holes: &mut Vec<Hole>, hole: Hole) {
    match holes.last_mut() {
        Some(gap) if (gap.file, gap.offset) == (hole.file, hole.offset) => {
            (gap.size, gap.what) = (hole.size, hole.what);
        }
        _ => holes.push(hole),
    }
}

impl Gathered {
    /// Damage to bodies below where a replay begins. The messages are not whole any more.
    fn lost_bodies(&mut self) -> anyhow::Result<Vec<Hole>> {
        let store = bodies::Store {
            files: &self.files,
            surveyed: &self.surveyed,
            needed: &self.needed,
        };
        let damages = store.damages()?;
        for damage in &damages {
            self.ledger.note_lost(&damage.messages);
        }
        Ok(damages.into_iter().map(body_hole).collect())
    }

    /// All that the files still say, those that are not needed any more first.
    pub(crate) fn past(&self) -> anyhow::Result<Ledger> {
        let mut past = Ledger::remembering();
        walk(&self.files, &self.surveyed, &mut |files, event| {
            let (spot, block) = match event {
                Event::Block {
                    counts: Err(why), ..
                } if why != BELOW_START && why != BODIES => return Ok(ControlFlow::Continue(())),
                Event::Block { spot, block, .. } => (spot, block),
                Event::Gap { .. } => {
                    past.note_hole();
                    return Ok(ControlFlow::Continue(()));
                }
                Event::Between(_) => return Ok(ControlFlow::Continue(())),
            };
            let segment = files.files[spot.file].name.segment;
            for (lsn, offset, record) in block.records().flatten() {
                if lsn.get() <= self.source.lsn {
                    past.record(lsn, Location::new(segment, spot.offset, offset), &record);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(past)
    }
}

/// Takes the records of a block; returns where it breaks off, if it does.
fn take_block(
    ledger: &mut Ledger,
    spot: Spot,
    segment: SegmentId,
    block: &Block<'_>,
) -> Option<Hole> {
    for record in block.records() {
        let Ok((lsn, offset, record)) = record else {
            ledger.note_hole();
            return Some(Hole {
                file: Some(spot.file),
                offset: spot.offset,
                size: block.header.block_size.into(),
                lsn_from: Some(block.header.first_lsn.get()),
                lsn_upto: Some(block.header.next_lsn().before().get()),
                what: "a sound block with records that are not sound".to_owned(),
            });
        };
        let location = Location::new(segment, spot.offset, offset);
        ledger.record(lsn, location, &record);
    }
    None
}

fn gap(expected: &Expected, lsn_upto: u64) -> Hole {
    Hole {
        file: Some(expected.behind.file),
        offset: expected.behind.offset,
        size: 0,
        lsn_from: Some(expected.lsn.get()),
        lsn_upto: Some(lsn_upto),
        what: format!("block {} and perhaps more are missing", expected.number),
    }
}

/// Damage to bodies: what happened to their messages is known all the same.
fn body_hole(damage: BodyDamage) -> Hole {
    let lost = match damage.messages.len() {
        0 => String::new(),
        lost => format!(": the bodies of {} are lost", count(lost, "message")),
    };
    Hole {
        file: damage.file,
        offset: damage.offset,
        size: damage.size,
        lsn_from: damage.lsn_from,
        lsn_upto: damage.lsn_upto,
        what: format!("{}{lost}", damage.what),
    }
}

fn hole_of(stretch: &Stretch) -> Option<Hole> {
    let Between::Damage { cause, .. } = &stretch.what else {
        return None;
    };
    // A recycled file holds pieces of its former use behind its end.
    if !stretch.is_inside && stretch.is_recycled {
        return None;
    }
    let cause = cause.map_or_else(
        || "the disk does not give it back".to_owned(),
        |cause| format!("no block: {cause}"),
    );
    Some(Hole {
        file: Some(stretch.spot.file),
        offset: stretch.spot.offset,
        size: stretch.size,
        lsn_from: None,
        lsn_upto: None,
        what: cause,
    })
}

impl Store {
    /// Makes an end of prepared transactions: committed where the shard that coordinates them
    /// decided so, else rolled back. Then does what a restart does.
    pub(crate) fn decide_transactions(&mut self) {
        for index in 0..self.shards.len() {
            let prepared = self.shards[index].ledger.prepared();
            for transaction in prepared {
                // The lowest 8 bits name the shard that coordinates (`docs/format.md` 6).
                let coordinator = (transaction & 0xff) as u16;
                let decides = |one: &&Gathered| one.shard.0 == coordinator;
                let coordinator = self.shards.iter().find(decides);
                let end = match coordinator {
                    Some(one) if one.ledger.has_decided(transaction) => End::Committed,
                    Some(one) if !one.ledger.has_holes() => End::RolledBack,
                    // Its word may be among what is missing.
                    _ => End::Unknown,
                };
                self.shards[index].ledger.end_transaction(transaction, end);
            }
        }
        for one in &mut self.shards {
            one.ledger.end_epoch();
        }
    }
}
