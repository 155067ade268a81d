//! A simulated data folder: segment files of all epochs and shards on one disk, and the start of a
//! shard from it, as `src/housekeeping/scan.rs` and `src/node/lifecycle.rs` do it.

use forebay::queue::{Fact, Limits as QueueLimits, Machine, Place};
use forebay_journal::format::{
    Block, IDENTIFIER_FILE_SIZE, Identifier, Parts, Record, SECTOR_SIZE,
};
use forebay_journal::reader::ReadError;
use forebay_journal::recovery::file_name::{
    epoch_folder_name, identifier_file_name, parse_epoch_folder_name, parse_segment_file_name,
    segment_file_name,
};
use forebay_journal::recovery::{
    Evidence, Recovered, Recovery, RecoveryError, RecoveryInput, SegmentFile,
};
use forebay_journal::storage::IoFailure;
use forebay_journal::storage::memory::{DiskError, FileId, MemoryDisk};
use forebay_journal::{Epoch, JournalId, Location, Lsn, SegmentId, ShardId};

use crate::kinds::{self, Kind};
use crate::options::Mutant;
use crate::witness::Witness;

pub(crate) const JOURNAL: JournalId = JournalId(*b"simulated folder");

/// A file whose name says it is a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) epoch: Epoch,
    pub(crate) shard: ShardId,
    pub(crate) segment: SegmentId,
    pub(crate) file: FileId,
    pub(crate) size: u64,
}

/// What a shard starts from.
pub(crate) struct Scanned {
    pub(crate) recovered: Recovered,
    pub(crate) machine: Machine,
    pub(crate) witness: Witness,
    /// As `recovered` numbers them.
    pub(crate) files: Vec<Named>,
}

/// The folder.
pub(crate) struct Store {
    pub(crate) disk: MemoryDisk,
    epochs_claimed: u64,
}

impl Store {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            disk: MemoryDisk::new(seed),
            epochs_claimed: 0,
        }
    }

    pub(crate) fn path(epoch: Epoch, shard: ShardId, segment: SegmentId) -> String {
        let folder = epoch_folder_name(epoch);
        format!("{folder}/{}", segment_file_name(shard, segment))
    }

    /// Makes the folder of the next epoch.
    pub(crate) fn claim_epoch(&mut self) -> Epoch {
        self.epochs_claimed += 1;
        Epoch::ZERO.plus(self.epochs_claimed)
    }

    /// Removes unfinished preparations, as the listing of the folder does.
    pub(crate) fn remove_unfinished(&mut self) {
        let files = self.disk.files();
        let unfinished = files.filter(|(_, name, _)| name.ends_with(".new"));
        for file in unfinished.map(|(file, ..)| file).collect::<Vec<_>>() {
            self.disk.remove(file).expect("just listed");
        }
    }

    pub(crate) fn segments(&self, shard: ShardId) -> Vec<Named> {
        let mut found: Vec<_> = self
            .disk
            .files()
            .filter_map(|(file, name, size)| {
                let (folder, name) = name.split_once('/')?;
                let epoch = parse_epoch_folder_name(folder)?;
                let (of, segment) = parse_segment_file_name(name)?;
                (of == shard).then_some(Named {
                    epoch,
                    shard,
                    segment,
                    file,
                    size,
                })
            })
            .collect();
        found.sort_unstable();
        found
    }

    fn identifiers(epoch: Epoch, shard: ShardId) -> String {
        let folder = epoch_folder_name(epoch);
        format!("{folder}/{}", identifier_file_name(shard))
    }

    /// Makes the file of strict mode, whose place on the disk was kept.
    pub(crate) fn make_identifiers(&mut self, epoch: Epoch, shard: ShardId) -> FileId {
        let path = Self::identifiers(epoch, shard);
        let made = self.disk.create(&path, IDENTIFIER_FILE_SIZE as u64);
        made.expect("place for it was kept")
    }

    /// What the identifiers say to be acknowledged.
    fn evidence(&self, shard: ShardId) -> Evidence {
        let mut evidence = Evidence::default();
        for epoch in (1..=self.epochs_claimed).map(|epoch| Epoch::ZERO.plus(epoch)) {
            let Some(file) = self.disk.find(&Self::identifiers(epoch, shard)) else {
                continue;
            };
            let mut bytes = vec![0; IDENTIFIER_FILE_SIZE];
            if self.disk.peek(file, 0, &mut bytes).is_ok()
                && let Some(newest) = Identifier::newest(&bytes, JOURNAL, shard, epoch)
            {
                evidence.add_identifier(&newest);
            }
        }
        evidence
    }

    /// Reads a shard's journal and replays it.
    ///
    /// Errors: it does not open; only a disk that does not give back its bytes allows that.
    pub(crate) fn scan(
        &self,
        shard: ShardId,
        limits: QueueLimits,
        mutant: Mutant,
    ) -> Result<Scanned, Box<RecoveryError>> {
        let files = self.segments(shard);
        let heads = files.iter().map(|named| {
            let mut head = vec![0; SECTOR_SIZE];
            let read = self.disk.peek(named.file, 0, &mut head);
            read.map(|()| head).map_err(read_error)
        });
        let heads: Vec<_> = heads.collect();
        let segments = files.iter().zip(&heads).enumerate();
        let segments = segments.map(|(number, (named, head))| SegmentFile {
            file: number as u32,
            epoch: named.epoch,
            segment: named.segment,
            size: named.size,
            head: head.as_deref().map_err(|error| *error),
        });
        let mut input = RecoveryInput::new(JOURNAL, shard, segments.collect());
        input.evidence = self.evidence(shard);
        let mut machine = Machine::new(limits, kinds::policies(mutant));
        let mut witness = Witness::default();
        let mut effects = Vec::new();
        let last_message = match mutant {
            Mutant::ForgottenMessage => self.last_message(&input, &files, None),
            Mutant::ForgottenCopy => self.last_message(&input, &files, Some(Kind::Durable)),
            _ => None,
        };
        let mut sink = |lsn: Lsn, location: Location, record: &Record<'_>| {
            let is_forgotten = match mutant {
                Mutant::ForgottenDeliveries => matches!(record, Record::Delivery { .. }),
                Mutant::ForgottenSettlements => matches!(record, Record::Settle { .. }),
                Mutant::ForgottenDeparture => matches!(record, Record::Depart { .. }),
                Mutant::ForgottenCheckpoint => matches!(
                    record,
                    Record::Checkpoint { .. } | Record::CheckpointMessage { .. }
                ),
                Mutant::ForgottenIds => matches!(record, Record::DuplicateId { .. }),
                _ => last_message == Some(lsn),
            };
            self.note_said(&files, &mut witness, record);
            witness.record(record);
            if !is_forgotten {
                let record = twist(*record, mutant);
                machine.evolve(&Fact::from(record), Place::Journal(location), &mut effects);
                effects.clear();
            }
        };
        let mut recovered =
            Recovery::new(&input).run(|r, out| self.read(&files, r, out, mutant), &mut sink)?;
        if let Err(damaged) = machine.finish_replay() {
            panic!("{shard:?}: {damaged}");
        }
        let needed = machine.segments_in_use().map(|(segment, _)| segment);
        recovered.keep_bodies(shard, needed)?;
        machine.check_invariants();
        Ok(Scanned {
            recovered,
            machine,
            witness,
            files,
        })
    }

    fn read(
        &self,
        files: &[Named],
        request: forebay_journal::reader::ReadRequest,
        out: &mut Vec<u8>,
        mutant: Mutant,
    ) -> Result<(), ReadError> {
        out.resize(request.len as usize, 0);
        let file = files[request.file as usize].file;
        let read = self.disk.peek(file, request.offset, out);
        match read {
            Err(DiskError::Io) if mutant == Mutant::ZeroForUnreadable => Ok(()),
            read => read.map_err(read_error),
        }
    }

    /// What a checkpoint says again is in records that the replay did not read.
    fn note_said(&self, files: &[Named], witness: &mut Witness, record: &Record<'_>) {
        let (queue, entries) = match record {
            Record::Checkpoint { queue, entries, .. } => (queue, *entries),
            Record::CheckpointMessage { queue, entry, .. } => (queue, core::slice::from_ref(entry)),
            _ => return,
        };
        for entry in entries {
            let attempts = usize::from(entry.attempts());
            if witness.knows(entry.message()) {
                witness.note_attempts(*queue, entry.message(), attempts);
                continue;
            }
            let location = entry.location();
            // It may have left its queue since, and its file been used again.
            let named = files.iter().find(|one| one.segment == location.segment());
            let image = named.and_then(|named| self.disk.durable(named.file).ok());
            let Some(image) = image else { continue };
            let Ok(block) = Block::decode(&image[location.block_offset() as usize..]) else {
                continue;
            };
            if block.header.place.segment != location.segment() {
                continue;
            }
            let said = Record::decode_at(
                &image[location.block_offset() as usize..],
                location.record_offset(),
            );
            let said = said.expect("the checkpoint names a record");
            witness.record_named(entry.message(), &said);
            witness.note_attempts(*queue, entry.message(), attempts);
        }
    }

    /// LSN of the last message of the journal, or of the last one of a kind.
    fn last_message(
        &self,
        input: &RecoveryInput<'_>,
        files: &[Named],
        kind: Option<Kind>,
    ) -> Option<Lsn> {
        let mut last = None;
        let mut sink = |lsn: Lsn, _: Location, record: &Record<'_>| {
            if let Record::Message {
                head: Parts::One(head),
                ..
            } = record
                && kind.is_none_or(|kind| is_of(head, kind))
            {
                last = Some(lsn);
            }
        };
        let opened =
            Recovery::new(input).run(|r, out| self.read(files, r, out, Mutant::None), &mut sink);
        opened.expect("it opens twice");
        last
    }
}

/// As the real scan says it.
fn read_error(error: DiskError) -> ReadError {
    match error {
        DiskError::OutOfRange => ReadError::Short,
        other => ReadError::Io {
            code: IoFailure::from(other).0,
        },
    }
}

/// Whether a stored head is that of a message of the kind.
fn is_of(head: &[u8], kind: Kind) -> bool {
    let line = format!("kind:{}", kind.address());
    let text = String::from_utf8_lossy(head);
    text.lines().any(|one| one == line)
}

/// Planted: what recovery makes of a record.
fn twist(mut record: Record<'_>, mutant: Mutant) -> Record<'_> {
    if let (Record::Message { annotations, .. }, Mutant::ForgottenIds) = (&mut record, mutant) {
        annotations.duplicate_id = &[];
    }
    record
}
