//! Segments below where a replay begins: whether the bodies are there that are needed in them.
//!
//! A broker looks at their files alone when it starts, and at a block when somebody wants a message
//! that lies in it. Here all their blocks are looked at.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use forebay_journal::format::{Record, SECTOR_SIZE};
use forebay_journal::{Location, SegmentId};
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::file::{OpenSegment, read_buffer};
use crate::named::Named;
use crate::survey::{BODIES, Head, Standing, Surveyed};
use crate::text::{count, size};
use crate::walk::{Between, Event, Stretch, walk};

/// One damaged place in such a segment.
#[derive(Clone, Debug)]
pub(crate) struct BodyDamage {
    pub(crate) segment: SegmentId,
    /// None: it has no file.
    pub(crate) file: Option<usize>,
    pub(crate) offset: u64,
    /// Bytes of it; zero where it is the file as a whole.
    pub(crate) size: u64,
    pub(crate) lsn_from: Option<u64>,
    pub(crate) lsn_upto: Option<u64>,
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    /// Messages that are alive and of which it takes something.
    pub(crate) messages: RoaringTreemap,
}

impl BodyDamage {
    fn bytes(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }

    fn is_at(&self, at: (SegmentId, u64)) -> bool {
        self.segment == at.0 && self.bytes().contains(&at.1)
    }
}

/// A shard's files and what is needed of them.
#[derive(Clone, Copy)]
pub(crate) struct Store<'a> {
    pub(crate) files: &'a [OpenSegment],
    pub(crate) surveyed: &'a [Surveyed],
    pub(crate) needed: &'a Named,
}

/// Which blocks and messages of one segment are sound.
#[derive(Default)]
struct Sound {
    /// Sectors of the file where blocks begin.
    blocks: RoaringBitmap,
    own: RoaringTreemap,
}

impl Store<'_> {
    /// Segments without which a broker refuses to start.
    pub(crate) fn missing(&self) -> Vec<BodyDamage> {
        let segments = self.needed.segments().into_iter();
        segments.filter_map(|one| self.missing_one(one)).collect()
    }

    fn missing_one(&self, segment: SegmentId) -> Option<BodyDamage> {
        let mut files = self.files.iter();
        let file = files.position(|file| file.name.segment == segment);
        let (kind, what) = match file.map(|file| (&self.files[file], &self.surveyed[file].head)) {
            None => ("bodies_missing", "has no file".to_owned()),
            Some((file, Head::Sound(head))) if head.size > file.size => (
                "truncated",
                format!("has {} bytes where its head says {}", file.size, head.size),
            ),
            Some((_, head)) => ("head", head.fault()?),
        };
        let needed = count(self.needed.count(segment), "message");
        Some(BodyDamage {
            segment,
            file,
            offset: 0,
            size: 0,
            lsn_from: None,
            lsn_upto: None,
            kind,
            what: format!("segment {segment} is needed by {needed}, and {what}"),
            messages: match file {
                None => self.needed.names(segment),
                // What in it is sound can be read all the same.
                Some(_) => RoaringTreemap::new(),
            },
        })
    }

    /// Everything that is damaged in them.
    ///
    /// Cost: reads them, and what counts where something is missing, to say of which messages.
    pub(crate) fn damages(&self) -> anyhow::Result<Vec<BodyDamage>> {
        let mut damages = self.missing();
        if self.needed.is_empty() {
            return Ok(damages);
        }
        let sound = self.look(&mut damages)?;
        if damages.iter().any(|one| one.size > 0) || self.is_any_lost(&sound) {
            self.blame(&sound, &mut damages)?;
        }
        let mut buffer = read_buffer();
        damages.retain(|one| {
            let file = one.file.map(|file| &self.files[file]);
            file.is_none_or(|file| !file.is_recycled(&mut buffer))
        });
        Ok(damages)
    }

    /// Files before those that count.
    fn below(&self) -> usize {
        let mut standings = self.surveyed.iter().map(|one| one.standing);
        let first = standings.position(|one| matches!(one, Standing::Counts { .. }));
        first.unwrap_or(self.surveyed.len())
    }

    /// Walks over them.
    fn look(&self, damages: &mut Vec<BodyDamage>) -> anyhow::Result<BTreeMap<SegmentId, Sound>> {
        let below = self.below();
        let mut sound: BTreeMap<SegmentId, Sound> = BTreeMap::new();
        walk(
            &self.files[..below],
            &self.surveyed[..below],
            &mut |files, event| {
                match event {
                    Event::Block {
                        spot,
                        block,
                        counts: Err(BODIES),
                    } => {
                        let segment = files.files[spot.file].name.segment;
                        let sound = sound.entry(segment).or_default();
                        let mut records = block.records();
                        let own = records.by_ref().map_while(Result::ok);
                        for (_, _, record) in own {
                            if let Record::Message { fields, .. } | Record::Moved { fields, .. } =
                                record
                            {
                                sound.own.insert(fields.message.0);
                            }
                        }
                        sound.blocks.insert(sector(spot.offset));
                    }
                    Event::Between(stretch) if self.is_body(stretch.spot.file) => {
                        self.note_between(stretch, damages);
                    }
                    Event::Gap {
                        expected,
                        spot,
                        found,
                        differs,
                    } => damages.push(BodyDamage {
                        size: spot.offset - expected.behind.offset,
                        lsn_from: Some(expected.lsn.get()),
                        lsn_upto: Some(found.first_lsn.before().get()),
                        ..self.damage(
                            spot.file,
                            expected.behind.offset,
                            format!(
                                "block {} should follow, the next one found is block {}: {differs} \
                             differs",
                                expected.number, found.number
                            ),
                        )
                    }),
                    Event::Block { .. } | Event::Between(_) => {}
                }
                Ok(ControlFlow::Continue(()))
            },
        )?;
        Ok(sound)
    }

    fn is_body(&self, file: usize) -> bool {
        matches!(self.surveyed[file].standing, Standing::Bodies { .. })
    }

    fn damage(&self, file: usize, offset: u64, what: String) -> BodyDamage {
        BodyDamage {
            segment: self.files[file].name.segment,
            file: Some(file),
            offset,
            size: 0,
            lsn_from: None,
            lsn_upto: None,
            kind: "body_block",
            what,
            messages: RoaringTreemap::new(),
        }
    }

    /// What lies before a block and is none. What lies behind the last one may be left from a
    /// former use, or from a start that cut it.
    fn note_between(&self, stretch: &Stretch, damages: &mut Vec<BodyDamage>) {
        if !stretch.is_inside {
            return;
        }
        let (header, cause) = match &stretch.what {
            Between::Recycled => return,
            Between::Unused => (None, "zeros".to_owned()),
            Between::Stale { .. } => (None, "blocks of a former use".to_owned()),
            Between::Damage { header, cause } => {
                let unread = || "the disk does not give it back".to_owned();
                (
                    *header,
                    cause.map_or_else(unread, |cause| cause.to_string()),
                )
            }
        };
        let (spot, what) = (
            stretch.spot,
            format!("{} are no block: {cause}", size(stretch.size)),
        );
        if let Some(last) = damages.last_mut()
            && last.file == Some(spot.file)
            && (last.offset..=last.bytes().end).contains(&spot.offset)
            && last.size > 0
        {
            // The gap around it came just before, and tells the records; or it goes on.
            if last.offset == spot.offset {
                last.what = what;
            }
            last.size = last.size.max(spot.offset + stretch.size - last.offset);
            return;
        }
        damages.push(BodyDamage {
            size: stretch.size,
            lsn_from: header.map(|header| header.first_lsn.get()),
            lsn_upto: header.map(|header| header.next_lsn().before().get()),
            ..self.damage(spot.file, spot.offset, what)
        });
    }

    /// Whether a message may be lost: surely of what lies in one record, and perhaps of fragments.
    fn is_any_lost(&self, sound: &BTreeMap<SegmentId, Sound>) -> bool {
        let none = Sound::default();
        self.needed.segments().into_iter().any(|segment| {
            let sound = sound.get(&segment).unwrap_or(&none);
            self.needed.lacks(segment, &sound.own, &sound.blocks)
        })
    }

    /// Says which messages lie where the damage is, as checkpoints say it.
    fn blame(
        &self,
        sound: &BTreeMap<SegmentId, Sound>,
        damages: &mut Vec<BodyDamage>,
    ) -> anyhow::Result<()> {
        let mut lost: BTreeMap<(SegmentId, u64), RoaringTreemap> = BTreeMap::new();
        let mut note = |location: Location, message: u64, is_own: bool| {
            let segment = location.segment();
            let is_needed = if is_own {
                self.needed.has_own(segment, message)
            } else {
                self.needed.has_part(segment, message)
            };
            let is_sound = sound.get(&segment).is_some_and(|sound| {
                sound.blocks.contains(sector(location.block_offset()))
                    && (!is_own || sound.own.contains(message))
            });
            if is_needed && !is_sound {
                let at = (segment, location.block_offset());
                lost.entry(at).or_default().insert(message);
            }
        };
        let below = self.below();
        walk(
            &self.files[below..],
            &self.surveyed[below..],
            &mut |_, event| {
                let Event::Block {
                    block,
                    counts: Ok(()),
                    ..
                } = event
                else {
                    return Ok(ControlFlow::Continue(()));
                };
                for (_, _, record) in block.records().flatten() {
                    each_place(&record, &mut note);
                }
                Ok(ControlFlow::Continue(()))
            },
        )?;
        for (at, messages) in lost {
            let mut places = damages.iter_mut();
            // Of a segment without a file that is said already.
            let known =
                places.find(|one| one.is_at(at) || one.segment == at.0 && one.file.is_none());
            if let Some(known) = known {
                known.messages |= messages;
                continue;
            }
            let mut files = self.files.iter();
            if let Some(file) = files.position(|file| file.name.segment == at.0) {
                let what = "a block that is needed is not there".to_owned();
                damages.push(BodyDamage {
                    messages,
                    ..self.damage(file, at.1, what)
                });
            }
        }
        Ok(())
    }
}

fn sector(offset: u64) -> u32 {
    (offset / SECTOR_SIZE as u64) as u32
}

/// Hands out each place that a record of a checkpoint names: of whom, and whether it is their own
/// record or a fragment.
pub(crate) fn each_place(record: &Record<'_>, take: &mut dyn FnMut(Location, u64, bool)) {
    match record {
        Record::Checkpoint { entries, .. } => {
            for entry in *entries {
                take(entry.location(), entry.message().0, true);
            }
        }
        Record::CheckpointMessage {
            entry, fragments, ..
        } => {
            let message = entry.message().0;
            take(entry.location(), message, true);
            for part in *fragments {
                take(part.location(), message, false);
            }
        }
        _ => {}
    }
}
