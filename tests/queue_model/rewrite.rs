//! Messages of a history that are written anew, whatever the model knows of them.

use forebay::queue::{Fact, Machine, Moving};
use forebay_journal::format::{Parts, Record};
use forebay_journal::{Location, SegmentId};

use super::journal::{Journal, Survivor, Written};

/// A history that can be told facts.
pub(crate) trait Rewritable {
    fn journal(&mut self) -> &mut Journal;
    fn machine(&mut self) -> &mut Machine;
    /// Appends it, and makes it true.
    fn make_true(&mut self, fact: &Fact<'_>);
}

/// The first segment with something that is needed, also one that no replay reads.
pub(crate) fn oldest_needed(machine: &Machine) -> Option<SegmentId> {
    let mut uses = machine.segment_uses();
    let needed = uses.find(|(_, one)| one.references > 0);
    needed.map(|(segment, _)| segment)
}

/// Writes anew what is needed of the first segment that anything is needed of.
pub(crate) fn rewrite_oldest(rig: &mut impl Rewritable) {
    rig.journal().seal();
    let oldest = oldest_needed(rig.machine());
    let oldest = oldest.unwrap_or_else(|| rig.journal().oldest());
    if oldest < rig.journal().current() {
        rewrite(rig, oldest);
    }
}

fn rewrite(rig: &mut impl Rewritable, segment: SegmentId) {
    for survivor in rig.journal().survivors(segment) {
        let written = match survivor {
            Survivor::Message(written) => written,
            Survivor::Fragment { upload, location } => {
                let Some(found) = rig.machine().fragmented(upload, location) else {
                    continue;
                };
                rig.journal().seal();
                let take = |record: &Record<'_>| Written::of(record, found.record);
                rig.journal().with_record(found.record, take)
            }
        };
        let mut moving = Moving::new();
        let (message, at) = (written.fields.message, written.location);
        let machine = rig.machine();
        if machine.decide_move(message, at, written.named(), &mut moving) {
            let parts = machine.fragments(message).to_vec();
            let upload = if parts.is_empty() {
                0
            } else {
                machine.next_upload()
            };
            for part in parts {
                copy(rig, part.location, upload);
            }
            rig.make_true(&written.fact(&moving, upload));
        }
    }
}

fn copy(rig: &mut impl Rewritable, from: Location, upload: u64) {
    rig.journal().seal();
    let (offset, bytes) = rig.journal().with_record(from, |record| match record {
        Record::Fragment { offset, body, .. } => {
            let bytes: Vec<u8> = body.pieces().flatten().copied().collect();
            (*offset, bytes)
        }
        other => panic!("no fragment: {other:?}"),
    });
    let body = Parts::One(&bytes);
    rig.make_true(&Fact::from(Record::Fragment {
        upload,
        offset,
        body,
    }));
}
