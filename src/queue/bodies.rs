//! Which bodies are still needed and where they lie.
//!
//! A message in one queue with its body in one record needs nothing here but its segment's
//! count. One in several queues, or with fragments, has a [`Shared`] beside it, so that its
//! bytes count once and stay until the last queue let go. Volatile bodies are counted by the
//! shard: it hears one [`Effect::Forget`] per queue.

use forebay_journal::format::{CheckpointFields, CheckpointFragment, MessageFields, Parts};
use forebay_journal::{Location, MessageId, SegmentId};
use rustc_hash::FxHashMap;

use super::decision::Effect;
use super::entry::{Entry, Place};
use super::segments::SegmentRing;

/// Where a part of a body lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPlace {
    /// Its record.
    pub location: Location,
    /// Bytes of the body in it.
    pub size_bytes: u32,
}

#[derive(Debug)]
struct Shared {
    references: u32,
    own_bytes: u32,
    is_whole: bool,
    /// That its fragments belong to; zero for none.
    upload: u64,
    /// Where its own record lies.
    record: Location,
    fragments: Vec<FragmentPlace>,
}

#[derive(Debug, Default)]
pub(super) struct Bodies {
    pub(super) segments: SegmentRing,
    shared: FxHashMap<u64, Shared>,
    uploads: FxHashMap<u64, Vec<FragmentPlace>>,
    /// Messages by the uploads of their fragments.
    by_upload: FxHashMap<u64, u64>,
}

/// Sizes of a message's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordSizes {
    pub(super) head: usize,
    pub(super) body: usize,
}

impl RecordSizes {
    pub(super) fn of(head: &Parts<'_>, body: &Parts<'_>) -> Self {
        Self {
            head: head.size(),
            body: body.size(),
        }
    }
}

impl Bodies {
    /// Takes in a message that goes to `references` queues, with the fragments of its upload.
    ///
    /// Panics: if a volatile message names an upload, or no queue takes it (our own mistake).
    pub(super) fn enter(
        &mut self,
        fields: &MessageFields,
        sizes: RecordSizes,
        at: Place,
        references: u32,
    ) -> Entry {
        assert_ne!(references, 0, "no queue takes message {}", fields.message.0);
        let size_bytes = saturate((sizes.head as u64).saturating_add(fields.body_size));
        let Place::Journal(location) = at else {
            assert_eq!(fields.upload, 0, "fragments belong to journaled messages");
            return Entry::new(fields.message, at, size_bytes, false, fields.priority);
        };
        let own_bytes = saturate((sizes.head + sizes.body) as u64);
        self.segments.add(location.segment(), own_bytes);
        let is_shared = references > 1 || fields.upload != 0;
        if is_shared {
            // Fragments may be missing in a replay whose first segments were freed: then the
            // message's settlement follows.
            let shared = self.share_of(fields, sizes, location, references);
            let former = self.shared.insert(fields.message.0, shared);
            assert!(former.is_none(), "message {} came twice", fields.message.0);
        }
        Entry::new(fields.message, at, size_bytes, is_shared, fields.priority)
    }

    /// A checkpoint names a message that one more queue has, with some of its fragments.
    ///
    /// Shape: `is_new` if the queue was not known to have it.
    pub(super) fn restore(
        &mut self,
        entry: &Entry,
        fields: &CheckpointFields,
        fragments: &[CheckpointFragment],
        is_new: bool,
    ) {
        if !fields.is_shared {
            if is_new {
                self.segments.add(entry.segment(), entry.size_bytes);
            }
            return;
        }
        let (own_bytes, segments) = (fields.own_size_bytes, &mut self.segments);
        let Place::Journal(record) = entry.place() else {
            panic!("checkpoints name records");
        };
        let shared = self.shared.entry(entry.message).or_insert_with(|| {
            segments.add(entry.segment(), own_bytes);
            if fields.upload != 0 {
                self.by_upload.insert(fields.upload, entry.message);
            }
            Shared {
                references: 0,
                own_bytes,
                is_whole: false,
                upload: fields.upload,
                record,
                fragments: Vec::new(),
            }
        });
        shared.references += u32::from(is_new);
        if shared.is_whole {
            return;
        }
        if fields.fragments_before == 0 {
            for part in shared.fragments.drain(..) {
                segments.remove(part.location.segment(), part.size_bytes);
            }
        }
        if shared.fragments.len() == fields.fragments_before as usize {
            for part in fragments {
                let (location, size_bytes) = (part.location(), part.size_bytes());
                segments.add(location.segment(), size_bytes);
                shared.fragments.push(FragmentPlace {
                    location,
                    size_bytes,
                });
            }
        }
        shared.is_whole = shared.fragments.len() == fields.fragments_total as usize;
    }

    /// Bytes of the record of a shared message, its upload (zero for none), and the fragments of
    /// its body.
    ///
    /// Panics: if it is not shared (our own mistake).
    pub(super) fn shared(&self, entry: &Entry) -> (u32, u64, &[FragmentPlace]) {
        let shared = &self.shared[&entry.message];
        (shared.own_bytes, shared.upload, &shared.fragments)
    }

    /// The oldest segment with a part of a message that is in the journal.
    pub(super) fn oldest_segment(&self, entry: &Entry) -> SegmentId {
        if !entry.is_shared() {
            return entry.segment();
        }
        let fragments = self.fragments(MessageId(entry.message)).iter();
        let fragments = fragments.map(|part| part.location.segment());
        fragments.fold(entry.segment(), Ord::min)
    }

    /// The oldest segment that holds a part of an upload on its way.
    pub(super) fn oldest_staged(&self) -> Option<SegmentId> {
        let parts = self.uploads.values().flatten();
        parts.map(|part| part.location.segment()).min()
    }

    /// What is known beside its entries of a message that is written here, with its fragments.
    fn share_of(
        &mut self,
        fields: &MessageFields,
        sizes: RecordSizes,
        record: Location,
        references: u32,
    ) -> Shared {
        let fragments = self.uploads.remove(&fields.upload).unwrap_or_default();
        let found = fragments.iter().map(|part| u64::from(part.size_bytes));
        let found: u64 = found.sum();
        if fields.upload != 0 {
            self.by_upload.insert(fields.upload, fields.message.0);
        }
        Shared {
            references,
            own_bytes: saturate((sizes.head + sizes.body) as u64),
            is_whole: found + sizes.body as u64 == fields.body_size,
            upload: fields.upload,
            record,
            fragments,
        }
    }

    /// The message of this entry is written anew, with its fragments.
    pub(super) fn relocate(
        &mut self,
        entry: &Entry,
        fields: &MessageFields,
        sizes: RecordSizes,
        to: Location,
    ) {
        let own_bytes = saturate((sizes.head + sizes.body) as u64);
        self.segments.add(to.segment(), own_bytes);
        let Some(former) = self.shared.remove(&entry.message) else {
            return self.segments.remove(entry.segment(), entry.size_bytes);
        };
        self.by_upload.remove(&former.upload);
        let shared = self.share_of(fields, sizes, to, former.references);
        self.shared.insert(entry.message, shared);
        self.segments.remove(entry.segment(), former.own_bytes);
        self.drop_fragments(former.fragments);
    }

    /// How many queues have a message of which more than its entry is known.
    pub(super) fn shared_by(&self, message: MessageId) -> Option<u32> {
        let shared = self.shared.get(&message.0)?;
        Some(shared.references)
    }

    /// The message of an upload, and where its record lies.
    pub(super) fn of_upload(&self, upload: u64) -> Option<(MessageId, Location)> {
        let message = *self.by_upload.get(&upload)?;
        let shared = self.shared.get(&message)?;
        Some((MessageId(message), shared.record))
    }

    /// One more queue has the message, of which this is the entry in one that has it.
    pub(super) fn share(&mut self, entry: &mut Entry, effects: &mut Vec<Effect>) {
        let record = match entry.place() {
            Place::Journal(location) => location,
            Place::Volatile(slot) => return effects.push(Effect::Hold { slot }),
        };
        let alone = || Shared {
            references: 1,
            own_bytes: entry.size_bytes,
            is_whole: true,
            upload: 0,
            record,
            fragments: Vec::new(),
        };
        let shared = self.shared.entry(entry.message).or_insert_with(alone);
        shared.references += 1;
        entry.set_shared();
    }

    /// A replay learns that one more queue has the message.
    ///
    /// Panics: if it was said to be in one alone (our own mistake).
    pub(super) fn share_anew(&mut self, entry: &Entry) {
        let shared = self.shared.get_mut(&entry.message);
        shared.expect("several queues have it").references += 1;
    }

    /// One queue let go of the message.
    pub(super) fn leave(&mut self, entry: &Entry, effects: &mut Vec<Effect>) {
        if let Place::Volatile(slot) = entry.place() {
            effects.push(Effect::Forget { slot });
        } else if !entry.is_shared() {
            self.segments.remove(entry.segment(), entry.size_bytes);
        } else {
            self.leave_shared(entry);
        }
    }

    fn leave_shared(&mut self, entry: &Entry) {
        let shared = self
            .shared
            .get_mut(&entry.message)
            .expect("a shared entry has its record of sharing");
        shared.references -= 1;
        if shared.references > 0 {
            return;
        }
        self.segments.remove(entry.segment(), shared.own_bytes);
        if let Some(shared) = self.shared.remove(&entry.message) {
            if shared.upload != 0 {
                self.by_upload.remove(&shared.upload);
            }
            self.drop_fragments(shared.fragments);
        }
    }

    /// A part of a body arrived ahead of its message.
    pub(super) fn stage_fragment(&mut self, upload: u64, part: FragmentPlace) {
        self.segments.add(part.location.segment(), part.size_bytes);
        self.uploads.entry(upload).or_default().push(part);
    }

    /// The fragments of an upload whose message never comes are garbage.
    pub(super) fn abandon(&mut self, upload: u64) {
        let fragments = self.uploads.remove(&upload).unwrap_or_default();
        self.drop_fragments(fragments);
    }

    pub(super) fn abandon_all(&mut self) {
        for fragments in core::mem::take(&mut self.uploads).into_values() {
            self.drop_fragments(fragments);
        }
    }

    fn drop_fragments(&mut self, fragments: Vec<FragmentPlace>) {
        for part in fragments {
            self.segments
                .remove(part.location.segment(), part.size_bytes);
        }
    }

    pub(super) fn fragments(&self, message: MessageId) -> &[FragmentPlace] {
        self.shared
            .get(&message.0)
            .map_or(&[], |shared| shared.fragments.as_slice())
    }

    pub(super) fn has_fragments(&self, entry: &Entry) -> bool {
        entry.is_shared() && !self.fragments(MessageId(entry.message)).is_empty()
    }

    /// Messages whose fragments are not all there.
    pub(super) fn incomplete_count(&self) -> u64 {
        self.shared
            .values()
            .filter(|shared| !shared.is_whole)
            .count() as u64
    }

    pub(super) fn references(&self, entry: &Entry) -> u32 {
        self.shared
            .get(&entry.message)
            .map_or(1, |shared| shared.references)
    }

    pub(super) fn shared_count(&self) -> usize {
        self.shared.len()
    }

    /// Every record that must stay for the sake of this message: segment and bytes.
    pub(super) fn records_of(&self, entry: &Entry) -> Vec<(SegmentId, u32)> {
        let Some(shared) = self.shared.get(&entry.message) else {
            return vec![(entry.segment(), entry.size_bytes)];
        };
        let own = (entry.segment(), shared.own_bytes);
        core::iter::once(own)
            .chain(parts(&shared.fragments))
            .collect()
    }

    /// Every record of an upload on its way.
    pub(super) fn staged_records(&self) -> Vec<(SegmentId, u32)> {
        self.uploads.values().flat_map(|list| parts(list)).collect()
    }
}

fn parts(fragments: &[FragmentPlace]) -> impl Iterator<Item = (SegmentId, u32)> + '_ {
    fragments
        .iter()
        .map(|part| (part.location.segment(), part.size_bytes))
}

pub(super) fn saturate(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
