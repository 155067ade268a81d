//! A writer on a simulated disk beside a model of what it was given.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::BTreeMap;

use forebay_journal::format::{
    BlockHeader, BlockSeal, IDENTIFIER_FILE_SIZE, Identifier, Kind, Parts, Record,
    SEGMENT_HEAD_SIZE, SegmentHead, encode_record, encoded_size,
};
use forebay_journal::reader::{ReadError, ReadRequest};
use forebay_journal::recovery::file_name::{
    epoch_folder_name, identifier_file_name, parse_epoch_folder_name, parse_identifier_file_name,
    parse_segment_file_name, segment_file_name,
};
use forebay_journal::recovery::{
    Evidence, Recovered, Recovery, RecoveryError, RecoveryInput, Seal, SegmentFile,
};
use forebay_journal::storage::IDENTIFIERS;
use forebay_journal::storage::memory::{FileId, MemoryDisk, Random, Ticket};
use forebay_journal::{Epoch, JournalId, Location, Lsn, MessageId, QueueId, SegmentId, ShardId};

pub mod real;
pub mod records;
pub mod version;
mod writer;
pub use writer::{BlockSource, TestWriter, Write};

pub const JOURNAL: JournalId = JournalId(*b"a test's journal");
pub const SHARD: ShardId = ShardId(3);
const SECTOR: u64 = 4096;

pub fn path(epoch: Epoch, segment: SegmentId) -> String {
    path_of(SHARD, epoch, segment)
}

pub fn path_of(shard: ShardId, epoch: Epoch, segment: SegmentId) -> String {
    format!(
        "{}/{}",
        epoch_folder_name(epoch),
        segment_file_name(shard, segment)
    )
}

pub fn identifier_path(shard: ShardId, epoch: Epoch) -> String {
    format!(
        "{}/{}",
        epoch_folder_name(epoch),
        identifier_file_name(shard)
    )
}

pub fn parse_identifier_path(path: &str) -> Option<Epoch> {
    let (folder, file) = path.split_once('/')?;
    parse_identifier_file_name(file)?;
    parse_epoch_folder_name(folder)
}

/// What the identifier files of a shard say.
fn add_identifiers(disk: &MemoryDisk, shard: ShardId, evidence: &mut Evidence) {
    for (id, name, size) in disk.files() {
        let Some((folder, file)) = name.split_once('/') else {
            continue;
        };
        let epoch = parse_epoch_folder_name(folder);
        if let Some(epoch) = epoch.filter(|_| parse_identifier_file_name(file) == Some(shard)) {
            let mut bytes = vec![0; size as usize];
            disk.peek(id, 0, &mut bytes).expect("sound");
            let newest = Identifier::newest(&bytes, JOURNAL, shard, epoch);
            newest
                .iter()
                .for_each(|newest| evidence.add_identifier(newest));
        }
    }
}

pub fn parse_path(path: &str) -> Option<(Epoch, SegmentId)> {
    let (folder, file) = path.split_once('/')?;
    Some((
        parse_epoch_folder_name(folder)?,
        parse_segment_file_name(file)?.1,
    ))
}

pub fn head(epoch: Epoch, segment: SegmentId, generation: u64, size: u64) -> SegmentHead {
    let (journal, shard) = (JOURNAL, SHARD);
    SegmentHead {
        journal,
        shard,
        segment,
        generation,
        epoch,
        first_segment: segment,
        size,
        inflight_blocks_max: 2,
    }
}

pub fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = vec![0; encoded_size(record)];
    encode_record(record, &mut bytes);
    bytes
}

/// What recovery gave: its outcome and the records.
pub struct Opened {
    pub result: Result<Recovered, RecoveryError>,
    pub records: Vec<(u64, Location, Vec<u8>)>,
    pub reads: Reads,
}

#[derive(Default)]
pub struct Reads {
    /// In the order in which they were asked for.
    pub asked: Vec<ReadRequest>,
    /// Of these, how many nobody foresaw when the one before was asked for.
    pub unforeseen: usize,
}

/// Runs recovery on a disk as it is.
pub fn open_with(disk: &MemoryDisk, evidence: Evidence, read_size_bytes: u32) -> Opened {
    open_shard(disk, SHARD, evidence, read_size_bytes)
}

/// Likewise, for a shard of one's own choice: all files of the disk are its.
fn open_shard(
    disk: &MemoryDisk,
    shard: ShardId,
    mut evidence: Evidence,
    read_size_bytes: u32,
) -> Opened {
    add_identifiers(disk, shard, &mut evidence);
    let mut ids = BTreeMap::new();
    let mut segments = Vec::new();
    for (id, name, size) in disk.files() {
        let Some((epoch, segment)) = parse_path(name) else {
            continue;
        };
        let mut sector = [0; SEGMENT_HEAD_SIZE];
        let is_read = disk.peek(id, 0, &mut sector).is_ok();
        let live = disk.live(id).expect("listed");
        let bytes = if is_read {
            Ok(&live[..SEGMENT_HEAD_SIZE])
        } else {
            Err(ReadError::Io { code: 5 })
        };
        segments.push(SegmentFile {
            file: id.index(),
            epoch,
            segment,
            size,
            head: bytes,
        });
        ids.insert(id.index(), id);
    }
    let input = RecoveryInput {
        journal: JOURNAL,
        shard,
        segments,
        evidence,
        read_size_bytes,
    };
    let mut records = Vec::new();
    let mut sink = |lsn: Lsn, location: Location, record: &Record<'_>| {
        records.push((lsn.get(), location, encoded(record)));
    };
    let mut recovery = Recovery::new(&input);
    let mut reads = Reads::default();
    let (mut bytes, mut foreseen) = (Vec::new(), None);
    while let Some(request) = recovery.poll_read() {
        reads.unforeseen += usize::from(foreseen != Some(request));
        foreseen = recovery.upcoming().next();
        reads.asked.push(request);
        bytes.resize(request.len as usize, 0);
        let read = disk.peek(ids[&request.file], request.offset, &mut bytes);
        let result = read.map(|_| bytes.as_slice());
        recovery.handle_read(result.map_err(|_| ReadError::Io { code: 5 }), &mut sink);
    }
    let result = recovery.finish();
    Opened {
        result,
        records,
        reads,
    }
}

pub fn open(disk: &MemoryDisk) -> Opened {
    open_with(disk, Evidence::default(), 1 << 20)
}

/// What the writer was given, and what it may have told others.
#[derive(Clone, Default)]
pub struct Model {
    /// LSN to record bytes, of all records that were submitted and not cut by a crash.
    pub records: BTreeMap<u64, Vec<u8>>,
    pub acked_upto: u64,
    /// LSN to what the record says is the oldest segment.
    pub oldest: BTreeMap<u64, SegmentId>,
    /// Segment to its first LSN.
    pub first_lsn: BTreeMap<SegmentId, u64>,
    /// LSNs of clean shutdowns.
    pub stops: Vec<u64>,
}

impl Model {
    pub fn enter(&mut self, lsn: Lsn, record: &Record<'_>) {
        self.records.insert(lsn.get(), encoded(record));
        match *record {
            Record::EpochStart { oldest_segment, .. } | Record::Retained { oldest_segment, .. } => {
                self.oldest.insert(lsn.get(), oldest_segment);
            }
            Record::CleanShutdown { .. } => self.stops.push(lsn.get()),
            _ => {}
        }
    }

    /// What a crash cut never happened.
    pub fn cut(&mut self, next_lsn: u64) {
        assert!(self.acked_upto < next_lsn);
        self.records.split_off(&next_lsn);
        self.oldest.split_off(&next_lsn);
        self.first_lsn.retain(|_, first| *first < next_lsn);
        self.stops.retain(|&lsn| lsn < next_lsn);
    }

    /// A journal in another version names its seals by other identities: they are as found.
    pub fn adopt_seals(&mut self, opened: &Opened) {
        let starts = opened.records.iter();
        for (lsn, _, bytes) in starts.filter(|(_, _, bytes)| bytes[0] == Kind::EpochStart as u8) {
            self.records.insert(*lsn, bytes.clone());
        }
    }

    /// Compares what was found with what was given.
    pub fn check(&self, opened: &Opened) -> Result<(), String> {
        let recovered = match &opened.result {
            Ok(recovered) => recovered,
            Err(error) => return Err(format!("does not open: {error} ({error:?})")),
        };
        let end = recovered.next_lsn.get();
        if end <= self.acked_upto {
            return Err(format!(
                "lost: acknowledged {}, found up to {}",
                self.acked_upto,
                end - 1
            ));
        }
        let oldest = self
            .oldest
            .range(..end)
            .next_back()
            .map(|(_, &oldest)| oldest);
        if recovered.oldest_segment != oldest.unwrap_or(SegmentId::ZERO) {
            return Err(format!(
                "oldest {:?}, not {oldest:?}",
                recovered.oldest_segment
            ));
        }
        let first = oldest
            .and_then(|oldest| self.first_lsn.get(&oldest))
            .map_or(1, |&first| first);
        let mut expected = self.records.range(first..end);
        for (lsn, location, bytes) in &opened.records {
            if expected.next() != Some((lsn, bytes)) {
                return Err(format!(
                    "record {lsn} at {location:?} is not what was written"
                ));
            }
        }
        if let Some((lsn, _)) = expected.next() {
            return Err(format!(
                "record {lsn} was not found, but the log ends at {end}"
            ));
        }
        // An idle seal behind the shutdown may have needed a segment, with its retained record.
        let is_retained = |bytes: &Vec<u8>| bytes[0] == Kind::Retained as u8;
        let is_last = |&stop: &u64| {
            self.records
                .range(stop + 1..end)
                .all(|(_, r)| is_retained(r))
        };
        let is_stopped = self.stops.iter().any(|stop| *stop < end && is_last(stop));
        if recovered.is_clean_shutdown != is_stopped {
            return Err(format!(
                "clean shutdown: found {}",
                recovered.is_clean_shutdown
            ));
        }
        Ok(())
    }
}

/// How a segment is made ready.
pub struct Preparation {
    /// The file that is used again; none: a new one.
    pub from: Option<FileId>,
    /// Its name meanwhile.
    pub aside: String,
    /// Its name at the end.
    pub name: String,
    pub head: SegmentHead,
}

/// A rig with the plain writer.
pub type Rig = RigOf<TestWriter>;

/// The writer, its disk and its model.
pub struct RigOf<W> {
    pub disk: MemoryDisk,
    pub random: Random,
    pub model: Model,
    pub writer: W,
    pub epoch: Epoch,
    pub shard: ShardId,
    files: BTreeMap<SegmentId, (FileId, u64)>,
    /// Files that nothing needs.
    freed: Vec<(FileId, u64)>,
    tickets: BTreeMap<Ticket, u64>,
    first_segment: SegmentId,
    next_segment: SegmentId,
    serves_from: Lsn,
    segment_size: u64,
    pending: Vec<(Lsn, Vec<u8>)>,
    /// Whether the file of a segment before the oldest one needed stays.
    keeps: fn(SegmentId) -> bool,
}

impl<W: BlockSource> RigOf<W> {
    pub fn new(seed: u64, segment_sectors: u64) -> Self {
        Self::of_shard(SHARD, seed, segment_sectors)
    }

    pub fn of_shard(shard: ShardId, seed: u64, segment_sectors: u64) -> Self {
        let disk = MemoryDisk::new(seed);
        let nothing = Model::default();
        Self::start(
            shard,
            disk,
            Random::new(seed ^ 0x5EED),
            nothing,
            None,
            segment_sectors * SECTOR,
            |_| false,
        )
    }

    /// Makes the disk what a release of another version would have left.
    pub fn turn_into(&mut self, disk: &MemoryDisk, version: u16) {
        self.disk = version::disk_as(disk, version, Epoch::ZERO);
        let opened = open_shard(&self.disk, self.shard, Evidence::default(), 1 << 20);
        self.model.adopt_seals(&opened);
    }

    /// Lets files of segments before the oldest one needed stay.
    pub fn keep(&mut self, keeps: fn(SegmentId) -> bool) {
        self.keeps = keeps;
    }

    fn start(
        shard: ShardId,
        mut disk: MemoryDisk,
        random: Random,
        model: Model,
        recovered: Option<&Recovered>,
        segment_size: u64,
        keeps: fn(SegmentId) -> bool,
    ) -> Self {
        let epoch = recovered.map_or(Epoch::ZERO, |r| r.epoch_max).next();
        let seal = recovered.map_or(Seal::NONE, |r| r.seal);
        let next_segment = recovered.map_or(SegmentId::ZERO, |r| r.segment_max).next();
        let kept = recovered.map_or(SegmentId::ZERO, |r| r.oldest_segment);
        let oldest = kept.max(SegmentId::ZERO.next());
        let ids: BTreeMap<u32, FileId> = disk.files().map(|(id, ..)| (id.index(), id)).collect();
        let is_unfinished = |name: &str| name.ends_with(".new");
        let unfinished = disk.files().filter(|(_, name, _)| is_unfinished(name));
        for file in unfinished.map(|(id, ..)| id).collect::<Vec<_>>() {
            disk.remove(file).expect("listed");
        }
        let mut files = BTreeMap::new();
        let mut freed = Vec::new();
        for segment in recovered.map(|r| r.segments.as_slice()).unwrap_or_default() {
            files.insert(segment.segment, (ids[&segment.file], segment.generation));
        }
        for spare in recovered.map(|r| r.spares.as_slice()).unwrap_or_default() {
            let file = (ids[&spare.file], spare.generation.unwrap_or(0));
            match keeps(spare.segment) && spare.segment < kept {
                true => drop(files.insert(spare.segment, file)),
                false => freed.push(file),
            }
        }
        let mut writer = W::new(epoch, seal, oldest);
        if W::IS_STRICT {
            writer.name_blocks(shard);
            let size = IDENTIFIER_FILE_SIZE as u64;
            disk.create(&identifier_path(shard, epoch), size)
                .expect("no limit");
        }
        Self {
            disk,
            random,
            model,
            writer,
            epoch,
            shard,
            files,
            freed,
            tickets: BTreeMap::new(),
            first_segment: next_segment,
            next_segment,
            serves_from: seal.lsn.next(),
            segment_size,
            pending: Vec::new(),
            keeps,
        }
    }

    /// The next start, on a disk as a crash left it.
    pub fn restart(self, disk: MemoryDisk) -> Self {
        self.started_on(disk)
    }

    /// Likewise, of one of several disks that a crash may have left.
    pub fn started_on(&self, disk: MemoryDisk) -> Self {
        let opened = open_shard(&disk, self.shard, Evidence::default(), 1 << 20);
        let mut model = self.model.clone();
        model
            .check(&opened)
            .expect("checked when the image was made");
        let recovered = opened.result.expect("checked just before");
        model.cut(recovered.next_lsn.get());
        // What was found is in front of the users now.
        model.acked_upto = model.acked_upto.max(recovered.next_lsn.get() - 1);
        Self::start(
            self.shard,
            disk,
            self.random.clone(),
            model,
            Some(&recovered),
            self.segment_size,
            self.keeps,
        )
    }

    /// Whether something of this epoch, beyond what the one before left, is durable.
    pub fn serves(&self) -> bool {
        self.writer.durable_end() > self.serves_from
    }

    /// What the next preparation does.
    pub fn next_preparation(&self) -> Preparation {
        let segment = self.next_segment;
        let name = path_of(self.shard, self.epoch, segment);
        let from = self.freed.last().copied();
        let generation = from.map_or(0, |(_, generation)| generation + 1);
        let head = head(self.epoch, segment, generation, self.segment_size);
        Preparation {
            from: from.map(|(file, _)| file),
            aside: format!("{name}.new"),
            name,
            head: SegmentHead {
                first_segment: self.first_segment,
                shard: self.shard,
                ..head
            },
        }
    }

    /// Files that nothing needs, in the order in which they were freed.
    pub fn freed_files(&self) -> Vec<FileId> {
        self.freed.iter().map(|(file, _)| *file).collect()
    }

    /// Prepares one more segment; `at_step` sees the disk between the steps.
    pub fn prepare(&mut self, at_step: &mut dyn FnMut(&Self)) {
        let Preparation {
            from,
            aside,
            name,
            head,
        } = self.next_preparation();
        self.next_segment = self.next_segment.next();
        let file = match from {
            Some(file) => {
                self.freed.pop();
                self.disk.rename(file, &aside).expect("exists");
                file
            }
            None => self
                .disk
                .create(&aside, self.segment_size)
                .expect("no limit"),
        };
        at_step(self);
        self.disk.put(file, 0, &head.encode()).expect("fits");
        at_step(self);
        self.disk.rename(file, &name).expect("exists");
        self.files.insert(head.segment, (file, head.generation));
        self.writer.add_segment(head);
        at_step(self);
    }

    /// Keeps two segments prepared.
    pub fn prepare_all(&mut self, at_step: &mut dyn FnMut(&Self)) {
        while self.writer.segments_ready() < 3 {
            self.prepare(at_step);
        }
    }

    /// Appends one record; false when the open block is full.
    pub fn append(&mut self, record: &Record<'_>) -> bool {
        self.writer.append(record).is_some()
    }

    /// Appends something of `size` bytes.
    pub fn append_body(&mut self, size: usize) -> bool {
        let mut body = vec![0; size];
        self.random.fill(&mut body);
        let upload = self.random.draw();
        self.append(&Record::Fragment {
            upload,
            offset: 0,
            body: Parts::One(&body),
        })
    }

    /// Appends a record of any kind with `size` bytes of content.
    pub fn append_any(&mut self, size: usize) -> bool {
        let writer = &mut self.writer;
        records::with_record(&mut self.random, size, |record| {
            writer.append(record).is_some()
        })
    }

    /// Starts the next write, if there is one.
    pub fn pump(&mut self) -> bool {
        let Some(write) = self.writer.poll_write() else {
            return false;
        };
        self.submit(&write);
        true
    }

    pub fn seal_idle(&mut self) -> bool {
        let Some(write) = self.writer.seal_idle() else {
            return false;
        };
        self.submit(&write);
        true
    }

    fn submit(&mut self, write: &Write) {
        if write.segment == IDENTIFIERS {
            let file = self.disk.find(&identifier_path(self.shard, self.epoch));
            return self.start_write(file.expect("made"), write);
        }
        let block = forebay_journal::format::Block::decode(&write.bytes).expect("just sealed");
        if write.offset == SEGMENT_HEAD_SIZE as u64 {
            self.model
                .first_lsn
                .insert(write.segment, block.header.first_lsn.get());
        }
        for record in block.records() {
            let (lsn, _, record) = record.expect("just written");
            self.model.enter(lsn, &record);
        }
        let (file, _) = self.files[&write.segment];
        self.start_write(file, write);
    }

    fn start_write(&mut self, file: FileId, write: &Write) {
        let ticket = self
            .disk
            .submit(file, write.offset, &write.bytes)
            .expect("in range");
        self.tickets.insert(ticket, write.ticket);
    }

    /// Completes a write, drawn by seed.
    pub fn complete(&mut self) -> bool {
        let Some(ticket) = self.disk.draw() else {
            return false;
        };
        let done = self.disk.complete(ticket);
        assert!(done.result.is_ok(), "no faults were asked for");
        let ticket = self.tickets.remove(&ticket).expect("submitted");
        self.writer.handle_write_done(ticket);
        let acked = self.writer.durable_end().get() - 1;
        assert!(
            acked >= self.model.acked_upto,
            "acknowledged positions never go back"
        );
        self.model.acked_upto = acked;
        self.free();
        true
    }

    /// Frees what the last acknowledged record about it allows.
    fn free(&mut self) {
        if !self.serves() {
            return;
        }
        let acked = self.model.acked_upto;
        let Some((_, &oldest)) = self.model.oldest.range(..=acked).next_back() else {
            return;
        };
        let keeps = self.keeps;
        let gone = self
            .files
            .extract_if(..oldest, |segment, _| !keeps(*segment));
        self.freed.extend(gone.map(|(_, file)| file));
    }

    /// Lets the next segment say that one more segment, if there is one, is not needed.
    pub fn advance_oldest(&mut self) {
        let current = self.writer.segment().unwrap_or(SegmentId::ZERO);
        let next = self
            .files
            .range(self.writer.oldest_segment().next()..)
            .next();
        if let Some((&segment, _)) = next
            && segment <= current
            && self.model.first_lsn.contains_key(&segment)
        {
            self.writer.set_oldest_segment(segment);
        }
    }

    /// Says in the middle of a segment what the oldest one needed is.
    pub fn retain_now(&mut self) {
        let before = self.writer.oldest_segment();
        self.advance_oldest();
        let oldest_segment = self.writer.oldest_segment();
        let (message_floor, queue_floor) = (MessageId(0), QueueId(0));
        let record = Record::Retained {
            oldest_segment,
            message_floor,
            queue_floor,
        };
        if oldest_segment == before || !self.append(&record) {
            self.writer.set_oldest_segment(before);
        }
    }

    /// Writes all that is open and waits for it.
    pub fn drain(&mut self) {
        while self.pump() || self.complete() {}
        assert!(self.writer.is_drained());
    }

    /// Appends `count` records in blocks of their own and waits for each.
    pub fn write_blocks(&mut self, count: usize, size: usize) {
        for _ in 0..count {
            self.prepare_all(&mut |_| {});
            assert!(self.append_body(size), "an empty block takes a record");
            self.drain();
        }
    }

    pub fn stop(&mut self) {
        self.prepare_all(&mut |_| {});
        self.drain();
        assert!(self.append(&Record::CleanShutdown {
            unix_ms: 1_700_000_000_001
        }));
        self.drain();
        self.seal_idle();
        self.drain();
    }
}

/// What a sealed block says of itself, to seal a copy of it anew.
pub fn seal_of(header: &BlockHeader) -> BlockSeal {
    BlockSeal {
        number: header.number,
        first_lsn: header.first_lsn,
        record_count: header.record_count,
        durable_upto: header.durable_upto,
        offset: header.offset,
        payload_size: header.payload_size,
        sealed_unix_ms: header.sealed_unix_ms,
        previous: header.previous,
    }
}
