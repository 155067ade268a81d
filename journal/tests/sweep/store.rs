//! Whole folders in memory, as brokers left them, beside what each shard had acknowledged.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use forebay_journal::format::{
    Block, BlockHeader, FORMAT_VERSION_OLDEST, Identifier, Kind, Record, SEGMENT_HEAD_SIZE,
    SUPERBLOCK_FILE_SIZE, SegmentHead, Superblock,
};
use forebay_journal::reader::{ReadError, ReadRequest};
use forebay_journal::recovery::{Evidence, Recovery, RecoveryInput, SegmentFile};
use forebay_journal::storage::memory::MemoryDisk;
use forebay_journal::{Epoch, JournalId, Location, Lsn, SegmentId, ShardId};

use crate::rig::{
    BlockSource, JOURNAL, Model, Opened, Reads, RigOf, encoded, parse_identifier_path, parse_path,
};

/// Shards of a store.
pub(crate) const SHARDS: u16 = 2;
const SEGMENT_SECTORS: u64 = 9;
/// Numbers of segments behind the present one that stay, where files are recycled.
const SEGMENTS_KEPT: u64 = 6;
/// Likewise, where a replay begins behind segments with bodies.
const SEGMENTS_REPLAYED: u64 = 3;

/// Name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Superblock,
    Segment {
        shard: ShardId,
        epoch: Epoch,
        segment: SegmentId,
    },
    Identifiers {
        shard: ShardId,
        epoch: Epoch,
    },
}

impl Name {
    /// Whether the file is looked at to open this shard.
    pub(crate) fn concerns(self, shard: ShardId) -> bool {
        match self {
            Self::Segment { shard: owner, .. } | Self::Identifiers { shard: owner, .. } => {
                owner == shard
            }
            Self::Superblock => true,
        }
    }
}

/// A file. Clones share the bytes.
#[derive(Clone)]
pub(crate) struct FileImage {
    pub(crate) name: Name,
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Bytes that the disk does not give back.
    pub(crate) unreadable: Range<u64>,
}

impl FileImage {
    fn new(name: Name, bytes: Vec<u8>) -> Self {
        Self {
            name,
            bytes: Arc::new(bytes),
            unreadable: 0..0,
        }
    }

    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), ReadError> {
        let until = offset + out.len() as u64;
        let bytes = self.bytes.get(offset as usize..until as usize);
        let bytes = bytes.ok_or(ReadError::Short)?;
        if self.unreadable.start < until && offset < self.unreadable.end {
            return Err(ReadError::Io { code: 5 });
        }
        out.copy_from_slice(bytes);
        Ok(())
    }
}

/// All files of a folder.
pub(crate) type Image = Vec<FileImage>;

/// A block that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Index of its file.
    pub(crate) file: usize,
    pub(crate) header: BlockHeader,
}

impl Place {
    pub(crate) fn range(&self) -> Range<usize> {
        let from = self.header.offset as usize;
        from..from + self.header.block_size as usize
    }
}

/// What is known of a shard.
pub(crate) struct Known {
    pub(crate) shard: ShardId,
    /// What was acknowledged.
    pub(crate) ledger: Model,
    /// Blocks that count, in order.
    pub(crate) blocks: Vec<Place>,
    /// Blocks before the replay's start, in order.
    pub(crate) older: Vec<Place>,
    /// Records there that messages which are alive need.
    pub(crate) bodies: Vec<Body>,
}

impl Known {
    /// Segments that the messages need.
    pub(crate) fn needed(&self) -> BTreeSet<SegmentId> {
        let segments = self.bodies.iter().map(|body| body.location.segment());
        segments.collect()
    }

    /// All blocks that a fault may be in.
    pub(crate) fn all_blocks(&self) -> impl Iterator<Item = &Place> {
        self.older.iter().chain(&self.blocks)
    }
}

/// A record that a checkpoint would name.
pub(crate) struct Body {
    pub(crate) location: Location,
    pub(crate) lsn: Lsn,
    pub(crate) bytes: Vec<u8>,
}

/// A folder without faults.
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) is_strict: bool,
    pub(crate) image: Image,
    pub(crate) shards: Vec<Known>,
    /// The folder as it was at moments before.
    pub(crate) older: Vec<Image>,
}

/// What becomes of files that no replay reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// A replay reads all.
    Nothing,
    /// They are recycled.
    Recycled,
    /// Of each three one holds bodies, one is left over and one recycled.
    Bodies,
}

impl Past {
    fn stays(segment: SegmentId) -> bool {
        segment.get() % 3 != 2
    }

    fn has_bodies(segment: SegmentId) -> bool {
        segment.get() % 3 == 1
    }

    const fn replayed(self) -> u64 {
        match self {
            Self::Nothing => u64::MAX / 2,
            Self::Recycled => SEGMENTS_KEPT,
            Self::Bodies => SEGMENTS_REPLAYED,
        }
    }
}

/// How the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Stopped in order.
    Stopped,
    /// Killed more than 5 ms after the last block: an idle seal is behind it.
    Idle,
    /// Killed in the middle, with the last write acknowledged and another in flight.
    Busy,
}

impl Store {
    pub(crate) fn new<W: BlockSource>(name: &'static str, seed: u64, end: End, past: Past) -> Self {
        let mut older = Vec::new();
        let mut image = vec![superblock()];
        let mut ledgers = Vec::new();
        for shard in (0..SHARDS).map(ShardId) {
            let mut moments = Vec::new();
            let seed = seed * 16 + u64::from(shard.0);
            let (disk, ledger) = history::<W>(shard, seed, end, (past, name), &mut moments);
            image.extend(files_of(shard, &disk));
            for (index, disk) in moments.iter().enumerate() {
                if older.len() <= index {
                    older.push(vec![superblock()]);
                }
                older[index].extend(files_of(shard, disk));
            }
            ledgers.push((shard, ledger));
        }
        let shards = ledgers
            .into_iter()
            .map(|(shard, ledger)| known(&image, shard, ledger, past))
            .collect();
        Self {
            name,
            is_strict: W::IS_STRICT,
            image,
            shards,
            older,
        }
    }

    /// Kinds of records that count somewhere.
    pub(crate) fn kinds(&self) -> BTreeSet<u16> {
        let mut kinds = BTreeSet::new();
        for known in &self.shards {
            for place in &known.blocks {
                let bytes = &self.image[place.file].bytes[place.range()];
                let block = Block::decode(bytes).expect("counted");
                for record in block.records() {
                    let (.., record) = record.expect("counted");
                    kinds.insert(u16::from(encoded(&record)[0]));
                }
            }
        }
        kinds
    }
}

/// All kinds that a store has to hold.
pub(crate) fn all_kinds() -> BTreeSet<u16> {
    (Kind::EpochStart as u16..=Kind::CheckpointMessage as u16).collect()
}

pub(crate) fn superblock_value() -> Superblock {
    Superblock {
        journal: JOURNAL,
        shard_count: SHARDS,
        created_unix_ms: 1_700_000_000_000,
    }
}

fn superblock() -> FileImage {
    let bytes = superblock_value().encode().to_vec();
    assert_eq!(bytes.len(), SUPERBLOCK_FILE_SIZE);
    FileImage::new(Name::Superblock, bytes)
}

fn files_of(shard: ShardId, disk: &MemoryDisk) -> Image {
    let files = disk.files().filter_map(|(id, path, _)| {
        let name = match parse_path(path) {
            Some((epoch, segment)) => Name::Segment {
                shard,
                epoch,
                segment,
            },
            None => Name::Identifiers {
                shard,
                epoch: parse_identifier_path(path)?,
            },
        };
        let bytes = disk.live(id).expect("listed").to_vec();
        Some(FileImage::new(name, bytes))
    });
    files.collect()
}

fn known(image: &Image, shard: ShardId, ledger: Model, past: Past) -> Known {
    let opened = open(image, JOURNAL, shard, Evidence::default());
    ledger.check(&opened).expect("sound before the fault");
    let recovered = opened.result.expect("checked");
    let mut blocks = Vec::new();
    for segment in &recovered.segments {
        let file = segment.file as usize;
        let mut at = SEGMENT_HEAD_SIZE;
        while at < segment.used_bytes as usize {
            let block = Block::decode(&image[file].bytes[at..]).expect("counted");
            blocks.push(Place {
                file,
                header: block.header,
            });
            at += block.header.block_size as usize;
        }
    }
    let (older, bodies) = match past {
        Past::Bodies => past_of(image, shard, recovered.oldest_segment),
        Past::Nothing | Past::Recycled => (Vec::new(), Vec::new()),
    };
    Known {
        shard,
        ledger,
        blocks,
        older,
        bodies,
    }
}

/// Blocks before the replay's start, and what in them messages need: of two blocks of three.
fn past_of(image: &Image, shard: ShardId, oldest: SegmentId) -> (Vec<Place>, Vec<Body>) {
    let (mut older, mut bodies) = (Vec::new(), Vec::new());
    for (file, content) in image.iter().enumerate() {
        let Name::Segment { segment, .. } = content.name else {
            continue;
        };
        if !content.name.concerns(shard) || segment >= oldest || !Past::stays(segment) {
            continue;
        }
        let head = SegmentHead::decode(&content.bytes).expect("sound");
        let mut at = SEGMENT_HEAD_SIZE;
        while at < content.bytes.len()
            && let Ok(block) = Block::decode(&content.bytes[at..])
            && block.header.check_place(&head, at as u64).is_ok()
        {
            let header = block.header;
            older.push(Place { file, header });
            at += header.block_size as usize;
            if !Past::has_bodies(segment) || header.number.get() % 3 == 0 {
                continue;
            }
            for record in block.records() {
                let (lsn, offset, record) = record.expect("written");
                bodies.push(Body {
                    location: Location::new(segment, header.offset, offset),
                    lsn,
                    bytes: encoded(&record),
                });
            }
        }
    }
    (older, bodies)
}

/// Opens a shard's journal as it lies in an image.
pub(crate) fn open(
    image: &Image,
    journal: JournalId,
    shard: ShardId,
    mut evidence: Evidence,
) -> Opened {
    let mut segments = Vec::new();
    let mut heads = Vec::new();
    for file in image {
        let mut head = [0; SEGMENT_HEAD_SIZE];
        heads.push(file.read(0, &mut head).map(|()| head));
    }
    for (index, (file, head)) in image.iter().zip(&heads).enumerate() {
        if let Name::Segment {
            shard: owner,
            epoch,
            segment,
        } = file.name
            && owner == shard
        {
            segments.push(SegmentFile {
                file: index as u32,
                epoch,
                segment,
                size: file.bytes.len() as u64,
                head: head.as_ref().map(|head| &head[..]).map_err(|error| *error),
            });
        }
        if let Name::Identifiers {
            shard: owner,
            epoch,
        } = file.name
            && owner == shard
        {
            let mut bytes = vec![0; file.bytes.len()];
            // What cannot be read says nothing.
            if file.read(0, &mut bytes).is_ok() {
                let newest = Identifier::newest(&bytes, journal, shard, epoch);
                newest
                    .iter()
                    .for_each(|newest| evidence.add_identifier(newest));
            }
        }
    }
    let mut input = RecoveryInput::new(journal, shard, segments);
    input.evidence = evidence;
    input.read_size_bytes = 64 << 10;
    let mut records = Vec::new();
    let mut sink = |lsn: Lsn, location: Location, record: &Record<'_>| {
        records.push((lsn.get(), location, encoded(record)));
    };
    let result = Recovery::new(&input).run(
        |ReadRequest { file, offset, len }, bytes| {
            bytes.resize(len as usize, 0);
            image[file as usize].read(offset, bytes)
        },
        &mut sink,
    );
    let reads = Reads::default();
    Opened {
        result,
        records,
        reads,
    }
}

/// Three epochs of one shard; the last ends as asked for.
fn history<W: BlockSource>(
    shard: ShardId,
    seed: u64,
    end: End,
    (past, name): (Past, &str),
    moments: &mut Vec<MemoryDisk>,
) -> (MemoryDisk, Model) {
    let mut rig = RigOf::<W>::of_shard(shard, seed, SEGMENT_SECTORS);
    let has_bodies = past == Past::Bodies;
    if has_bodies {
        rig.keep(Past::stays);
    }
    write(&mut rig, 12, past);
    let mut disk = rig.disk.clone();
    disk.crash_by_seed();
    rig = rig.restart(disk);
    write(&mut rig, 10, past);
    rig.stop();
    if name.contains("upgraded") {
        let disk = rig.disk.clone();
        rig.turn_into(&disk, FORMAT_VERSION_OLDEST);
    }
    moments.push(rig.disk.clone());
    let disk = rig.disk.clone();
    rig = rig.restart(disk);
    write(&mut rig, if has_bodies { 56 } else { 8 }, past);
    moments.push(rig.disk.clone());
    write(&mut rig, 6, past);
    moments.push(rig.disk.clone());
    write(&mut rig, 1, Past::Nothing);
    match end {
        End::Stopped => rig.stop(),
        End::Idle => {
            assert!(rig.seal_idle());
            rig.drain();
        }
        End::Busy => {
            rig.prepare_all(&mut |_| {});
            assert!(rig.append_body(700));
            assert!(rig.pump());
            rig.disk.crash_by_seed();
        }
    }
    (rig.disk, rig.model)
}

/// Writes that many blocks of a few records of any kind.
fn write<W: BlockSource>(rig: &mut RigOf<W>, count: usize, past: Past) {
    for _ in 0..count {
        rig.prepare_all(&mut |_| {});
        for _ in 0..=rig.random.below(4) {
            let size = rig.random.below(1800) as usize;
            rig.append_any(size);
        }
        rig.drain();
        let current = rig.writer.segment().map_or(0, SegmentId::get);
        if current > rig.writer.oldest_segment().get() + past.replayed() {
            rig.advance_oldest();
        }
    }
}
