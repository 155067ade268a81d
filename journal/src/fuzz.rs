//! Entries for fuzzers: arbitrary bytes as a block, records, a superblock, and damage to a folder.
//!
//! They hold what must be true of all input (B08, B17): no panic, nothing read that is not there,
//! an end within a bound, what is understood is written again as the same bytes, and recovery gives
//! nothing that was not written. The targets in `fuzz/fuzz_targets` and `tests/fuzz_smoke.rs` call
//! them; a broker never does.

use crate::format::{
    BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, Block, BlockHeader, ClaimFile, FENCE_SIZE, FORMAT_VERSION,
    Fence, Identifier, Incarnation, LeaseHead, PLACEMENT, Parts, Record, SECTOR_SIZE, SHARDS_MAX,
    SUPERBLOCK_FILE_SIZE, SealTable, SealTableRead, SegmentHead, Slot, Superblock, checksum,
    encode_record, encoded_size, round_up_to_sector,
};
use crate::reader::{ReadError, ReadRequest};
use crate::recovery::{Recovery, RecoveryInput, Seal, SegmentFile};
use crate::storage::WriteDone;
use crate::{Budget, Epoch, JournalId, Location, Lsn, Retained, SegmentId, ShardId, Writer};

const JOURNAL: JournalId = JournalId(*b"a fuzzed journal");
const SHARD: ShardId = ShardId(1);
const SEGMENTS: u64 = 4;
const SEGMENT_SIZE: usize = 6 * SECTOR_SIZE;
/// Reads after which recovery of so small a folder does not end.
const READS_MAX: usize = 10_000;

/// Makes what the checksum of a sound block would be the checksum of this one.
fn seal(bytes: &mut [u8]) {
    let payload = checksum(&bytes[BLOCK_HEADER_SIZE..]);
    bytes[160..176].copy_from_slice(zerocopy::IntoBytes::as_bytes(&payload));
    let header = checksum(&bytes[..BLOCK_HEADER_SIZE - 16]);
    bytes[176..192].copy_from_slice(zerocopy::IntoBytes::as_bytes(&header));
}

/// The bytes as a block, as they are and with checksums that hold. Returns how many records were
/// understood.
///
/// Panics: when a promise of the format's code is broken; that is the finding.
pub fn exercise_block(data: &[u8]) -> usize {
    let as_they_are = walk(data);
    let size = round_up_to_sector(data.len().clamp(BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX));
    let mut bytes = data.to_vec();
    bytes.resize(size, 0);
    bytes[..8].copy_from_slice(b"FBYBLOCK");
    seal(&mut bytes);
    as_they_are + walk(&bytes)
}

/// The bytes as records, in a block that is sound. `data[0]` says how many they are.
///
/// Panics: as [`exercise_block`].
pub fn exercise_record(data: &[u8]) -> usize {
    let Some((count, payload)) = data.split_first() else {
        return 0;
    };
    let payload_size = payload.len().min(BLOCK_SIZE_MAX - BLOCK_HEADER_SIZE);
    let size = round_up_to_sector(BLOCK_HEADER_SIZE + payload_size);
    let mut bytes = vec![0; size];
    bytes[BLOCK_HEADER_SIZE..][..payload_size].copy_from_slice(&payload[..payload_size]);
    bytes[..8].copy_from_slice(b"FBYBLOCK");
    for (at, value) in [
        (8, u32::from(FORMAT_VERSION)),
        (12, u32::from(*count)),
        (56, 7),
        (64, 40),
        (96, size as u32),
        (100, payload_size as u32),
    ] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    seal(&mut bytes);
    walk(&bytes)
}

/// Reads all records of a block and writes each again.
fn walk(bytes: &[u8]) -> usize {
    if let Ok(header) = BlockHeader::decode(bytes) {
        assert!(header.block_size as usize <= BLOCK_SIZE_MAX, "too large");
    }
    let Ok(block) = Block::decode(bytes) else {
        return 0;
    };
    let mut count = 0;
    let mut end = BLOCK_HEADER_SIZE;
    for found in block.records() {
        let Ok((lsn, offset, record)) = found else {
            break;
        };
        assert_eq!(lsn, block.header.first_lsn.plus(count as u64), "dense");
        assert_eq!(offset as usize, end, "back to back");
        let mut again = vec![0; encoded_size(&record)];
        assert_eq!(encode_record(&record, &mut again), again.len());
        end += again.len();
        assert_eq!(again, bytes[offset as usize..end], "{record:?}");
        count += 1;
    }
    assert!(count <= block.header.record_count as usize);
    count
}

/// The bytes as a superblock, a segment head, an identifier, and what a lease consists of, as they
/// are and with a checksum that holds. Returns how many were understood.
///
/// Panics: as [`exercise_block`].
pub fn exercise_superblock(data: &[u8]) -> usize {
    let mut count = heads(data);
    let magics = [
        b"FBYSUPER",
        b"FBYSEGMT",
        b"FBYIDENT",
        b"FBYLEASE",
        b"FBYLSLOT",
        b"FBYFENCE",
        b"FBYSEALS",
    ];
    for magic in magics {
        let mut sector = data[..data.len().min(SECTOR_SIZE)].to_vec();
        sector.resize(SECTOR_SIZE, 0);
        sector[..8].copy_from_slice(magic);
        let sum = checksum(&sector[..SECTOR_SIZE - 16]);
        sector[SECTOR_SIZE - 16..].copy_from_slice(zerocopy::IntoBytes::as_bytes(&sum));
        count += heads(&sector);
    }
    count
}

fn heads(data: &[u8]) -> usize {
    let sector = &data[..data.len().min(SECTOR_SIZE)];
    let mut count = 0;
    if let Ok(superblock) = Superblock::decode(data) {
        let again = superblock.encode();
        assert_eq!(again.len(), SUPERBLOCK_FILE_SIZE);
        let (first, second) = (data.get(..SECTOR_SIZE), data.get(SECTOR_SIZE..));
        let is_one = |copy: Option<&[u8]>| {
            let copy = copy.filter(|copy| copy.len() >= SECTOR_SIZE);
            copy.is_some_and(|copy| renewed(copy) == again[..SECTOR_SIZE])
        };
        assert!(is_one(first) || is_one(second), "{superblock:?}");
        count += 1;
    }
    if let Ok(head) = SegmentHead::decode(sector) {
        assert_eq!(head.encode()[..], renewed(sector), "{head:?}");
        count += 1;
    }
    if let Ok(identifier) = Identifier::decode(sector) {
        assert_eq!(identifier.encode()[..], renewed(sector), "{identifier:?}");
        count += 1;
    }
    count + of_lease(sector)
}

fn of_lease(sector: &[u8]) -> usize {
    let mut count = 0;
    if let Ok(head) = LeaseHead::decode(sector) {
        assert_eq!(head.encode(), sector, "{head:?}");
        count += 1;
    }
    if let Ok(slot) = Slot::decode(sector) {
        assert_eq!(slot.encode(), sector, "{slot:?}");
        count += 1;
    }
    if let Ok(fence) = Fence::decode(sector) {
        assert_eq!(fence.encode(), sector, "{fence:?}");
        count += 1;
    }
    count + seals(sector)
}

/// The sector as the first one of a seal table, the others as they would be.
fn seals(sector: &[u8]) -> usize {
    if sector.len() < SECTOR_SIZE {
        return 0;
    }
    let epoch = u64::from_le_bytes(sector[32..40].try_into().expect("eight bytes"));
    let epoch = Epoch::from_raw(epoch);
    let journal = JournalId(sector[16..32].try_into().expect("sixteen bytes"));
    let shards = u16::from_le_bytes([sector[12], sector[13]]);
    let table = SealTable {
        journal,
        epoch,
        incarnation: Incarnation(sector[40..56].try_into().expect("sixteen bytes")),
        seals: vec![None; usize::from(shards).min(SHARDS_MAX)],
    };
    let mut copy = table.encode();
    copy[..SECTOR_SIZE].copy_from_slice(sector);
    let file = [&vec![0; FENCE_SIZE][..], &copy, &copy].concat();
    let read = ClaimFile::decode(&file, journal, epoch).expect("long enough");
    match read.seals {
        SealTableRead::Sound(table) => {
            assert_eq!(table.encode(), copy, "{table:?}");
            1
        }
        SealTableRead::Absent | SealTableRead::Damaged => 0,
    }
}

/// The first sector as this release would have written it.
fn renewed(bytes: &[u8]) -> Vec<u8> {
    let mut sector = bytes[..SECTOR_SIZE].to_vec();
    let is_older = sector[8..10] != FORMAT_VERSION.to_le_bytes();
    sector[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    if is_older && sector.starts_with(b"FBYSUPER") {
        sector[40..44].copy_from_slice(&PLACEMENT.to_le_bytes());
    }
    let sum = checksum(&sector[..SECTOR_SIZE - 16]);
    sector[SECTOR_SIZE - 16..].copy_from_slice(zerocopy::IntoBytes::as_bytes(&sum));
    sector
}

/// A small journal and the records in it.
pub struct Folder {
    files: Vec<Vec<u8>>,
    records: Vec<Vec<u8>>,
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// Writes one, of several segments, with the crate's own writer.
    pub fn new() -> Self {
        let (epoch, first_segment) = (Epoch::ZERO.next(), SegmentId::ZERO.next());
        let retained = Retained {
            oldest_segment: first_segment,
            ..Retained::default()
        };
        let mut writer = Writer::new(crate::CACHE_SIZE_MIN, epoch, Seal::NONE, retained);
        let mut files = Vec::new();
        for number in 1..=SEGMENTS {
            let head = SegmentHead {
                journal: JOURNAL,
                shard: SHARD,
                segment: SegmentId::ZERO.plus(number),
                generation: 0,
                epoch,
                first_segment,
                size: SEGMENT_SIZE as u64,
                inflight_blocks_max: 2,
            };
            let mut file = vec![0; SEGMENT_SIZE];
            file[..SECTOR_SIZE].copy_from_slice(&head.encode());
            files.push(file);
            writer.add_segment(head);
        }
        let body = [7; 900];
        for offset in 0..11 {
            let record = Record::Fragment {
                upload: 9,
                offset,
                body: Parts::One(&body),
            };
            let appended = writer.append(&record, Budget::Control);
            assert!(appended.is_ok(), "four segments hold them");
            while let Some(write) = writer.poll_write(1) {
                let file = &mut files[write.segment.get() as usize - 1];
                file[write.offset as usize..][..write.block.len()].copy_from_slice(&write.block);
                let done = WriteDone {
                    ticket: write.ticket,
                    result: Ok(()),
                };
                assert!(writer.handle_write_done(done, 0).is_ok(), "it went well");
            }
        }
        let mut folder = Self {
            files,
            records: Vec::new(),
        };
        let nothing = Vec::new();
        folder.records = folder.open(&folder.files, &nothing).1;
        assert_eq!(folder.records.len() as u64, writer.next_lsn().get() - 1);
        folder
    }

    /// Damages a copy as `data` says, 6 bytes for each stroke, and opens it. Returns how many
    /// records were found.
    ///
    /// Panics: as [`exercise_block`]; and when a record is found that was not written.
    pub fn exercise(&self, data: &[u8]) -> usize {
        let mut files = self.files.clone();
        let mut unreadable = Vec::new();
        for stroke in data.chunks_exact(6).take(16) {
            let [what, file, low, high, value, size] = stroke else {
                break;
            };
            let file = usize::from(*file) % files.len();
            let length = files[file].len();
            let at = usize::from(u16::from_le_bytes([*low, *high])) % length.max(1);
            let sector = at / SECTOR_SIZE * SECTOR_SIZE;
            let end = (at + usize::from(*size)).min(length);
            match what % 8 {
                0 => files[file][at..end].fill(*value),
                1 => files[file][at..end].iter_mut().for_each(|b| *b ^= value),
                2 => files[file].truncate(at),
                3 => unreadable.push((file, sector)),
                4 => files[file][sector..length.min(sector + SECTOR_SIZE)].fill(0),
                5 => files.swap(file, usize::from(*value) % SEGMENTS as usize),
                6 => {
                    let from = files[usize::from(*value) % SEGMENTS as usize].clone();
                    let from = from.get(sector..sector + SECTOR_SIZE).unwrap_or_default();
                    let to = usize::from(*size) * SECTOR_SIZE % SEGMENT_SIZE;
                    if let Some(to) = files[file].get_mut(to..to + from.len()) {
                        to.copy_from_slice(from);
                    }
                }
                _ => files[file].clear(),
            }
        }
        let (is_open, records) = self.open(&files, &unreadable);
        if is_open {
            let written = &self.records[..records.len().min(self.records.len())];
            assert_eq!(records, written, "found what was not written");
        }
        records.len()
    }

    fn open(&self, files: &[Vec<u8>], unreadable: &[(usize, usize)]) -> (bool, Vec<Vec<u8>>) {
        let read = |file: usize, from: usize, size: usize| {
            let bytes = files[file].get(from..from + size).ok_or(ReadError::Short)?;
            let is_bad = |(of, at): &(usize, usize)| {
                *of == file && *at < from + size && from < at + SECTOR_SIZE
            };
            match unreadable.iter().any(is_bad) {
                true => Err(ReadError::Io { code: 5 }),
                false => Ok(bytes),
            }
        };
        // A file of no bytes is one that is missing.
        let there = (0..files.len()).filter(|&file| !files[file].is_empty());
        let segments = there.map(|file| SegmentFile {
            file: file as u32,
            epoch: Epoch::ZERO.next(),
            segment: SegmentId::ZERO.plus(file as u64 + 1),
            size: files[file].len() as u64,
            head: read(file, 0, SECTOR_SIZE),
        });
        let input = RecoveryInput::new(JOURNAL, SHARD, segments.collect());
        let mut records = Vec::new();
        let mut sink = |lsn: Lsn, _: Location, record: &Record<'_>| {
            assert_eq!(lsn.get(), records.len() as u64 + 1, "dense");
            let mut bytes = vec![0; encoded_size(record)];
            encode_record(record, &mut bytes);
            records.push(bytes);
        };
        let mut reads = 0;
        let result = Recovery::new(&input).run(
            |ReadRequest { file, offset, len }, out| {
                reads += 1;
                assert!(reads < READS_MAX, "it does not end");
                out.extend_from_slice(read(file as usize, offset as usize, len as usize)?);
                Ok(())
            },
            &mut sink,
        );
        if let Err(error) = &result {
            assert!(
                error.to_string().contains("Nothing was changed."),
                "{error}"
            );
        }
        (result.is_ok(), records)
    }
}
