//! Messages that are written anew, so that the first segments can be freed.

use forebay::queue::{Fact, Moving, Place};
use forebay_journal::format::{Parts, Record};
use forebay_journal::{Location, SegmentId};

use super::journal::{Survivor, Written};
use super::rewrite::oldest_needed;
use super::rig::Rig;

impl Rig {
    /// Writes up to `most` messages anew of one of the first segments, and frees what can be.
    pub(crate) fn relocate(&mut self, skip: u8, most: u8) {
        self.write_anew(skip, most);
        self.reclaim();
    }

    fn write_anew(&mut self, skip: u8, most: u8) {
        self.journal.seal();
        let oldest = oldest_needed(&self.machine).unwrap_or_else(|| self.journal.oldest());
        let segment = SegmentId::ZERO.plus(oldest.get() + u64::from(skip % 3));
        if segment >= self.journal.current() {
            return;
        }
        let mut left = most;
        for survivor in self.journal.survivors(segment) {
            if left == 0 {
                return;
            }
            left -= u8::from(self.relocate_one(survivor));
        }
        // All of it is gone or waits for a transaction.
        for (id, known) in self.model.queues.values().flat_map(|queue| &queue.messages) {
            if let Place::Journal(location) = known.place {
                let is_waiting = location.segment() != segment || self.is_waiting(*id);
                assert!(is_waiting, "{id} was left behind");
            }
        }
    }

    /// Whether a transaction is to end for the message in one of its queues.
    fn is_waiting(&self, id: u64) -> bool {
        let queues = self.model.queues.iter();
        let mut holding = queues.filter(|(_, queue)| queue.messages.contains_key(&id));
        holding.any(|(queue, _)| self.model.is_staged(*queue, id))
    }

    fn relocate_one(&mut self, survivor: Survivor) -> bool {
        let written = match survivor {
            Survivor::Message(written) => written,
            Survivor::Fragment { upload, location } => {
                let Some(found) = self.machine.fragmented(upload, location) else {
                    return false;
                };
                let record = found.record;
                self.journal.seal();
                self.journal
                    .with_record(record, |one| Written::of(one, record))
            }
        };
        let message = written.fields.message;
        let mut moving = Moving::new();
        let at = written.location;
        let decided = self
            .machine
            .decide_move(message, at, written.named(), &mut moving);
        let is_here = self.model.queues.values().any(|queue| {
            let known = queue.messages.get(&message.0);
            known.is_some_and(|known| known.place == Place::Journal(at))
        });
        let is_waiting = self.is_waiting(message.0);
        assert_eq!(decided, is_here && !is_waiting, "whether {message:?} moves");
        if decided {
            self.rewrite(&written, &moving);
        }
        decided
    }

    fn rewrite(&mut self, written: &Written, moving: &Moving) {
        let message = written.fields.message;
        let mut records = Vec::new();
        let parts = self.machine.fragments(message).to_vec();
        let upload = if parts.is_empty() {
            0
        } else {
            self.model.next_message += 1;
            self.machine.next_upload()
        };
        for part in parts {
            let (location, bytes) = self.copy_fragment(part.location, upload);
            records.push((location.segment(), bytes));
        }
        let (place, effects) = self.apply(&written.fact(moving, upload), Place::NONE);
        assert_eq!(effects, [], "nobody notices");
        let Place::Journal(location) = place else {
            panic!("journaled")
        };
        records.push((location.segment(), written.own_bytes()));
        self.model.records.insert(message.0, records);
        for queue in self.model.queues.values_mut() {
            if let Some(known) = queue.messages.get_mut(&message.0) {
                known.place = place;
            }
        }
    }

    fn copy_fragment(&mut self, from: Location, upload: u64) -> (Location, u32) {
        self.journal.seal();
        let (offset, bytes) = self.journal.with_record(from, |record| match record {
            Record::Fragment { offset, body, .. } => {
                let bytes: Vec<u8> = body.pieces().flatten().copied().collect();
                (*offset, bytes)
            }
            other => panic!("no fragment: {other:?}"),
        });
        let body = Parts::One(&bytes);
        let fact = Fact::from(Record::Fragment {
            upload,
            offset,
            body,
        });
        let (place, _) = self.apply(&fact, Place::NONE);
        let Place::Journal(location) = place else {
            panic!("journaled")
        };
        (location, bytes.len() as u32)
    }
}
