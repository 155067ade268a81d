//! A journal as a release of another version of the format would have left it: the same records,
//! other version numbers, and the checksums and chain that follow from them.

use std::collections::BTreeMap;

use forebay_journal::Epoch;
use forebay_journal::format::{
    BLOCK_HEADER_SIZE, Block, Checksum, Kind, SEGMENT_HEAD_SIZE, SUPERBLOCK_FILE_SIZE, SegmentHead,
    checksum,
};
use forebay_journal::storage::memory::{FileId, MemoryDisk};
use zerocopy::IntoBytes as _;

use super::parse_path;

/// Where the seal's identity lies in a block that begins with an epoch start.
const SEALED: core::ops::Range<usize> = BLOCK_HEADER_SIZE + 40..BLOCK_HEADER_SIZE + 56;

/// Gives a sector that ends with its checksum another version.
pub fn set_version(sector: &mut [u8], version: u16) {
    sector[8..10].copy_from_slice(&version.to_le_bytes());
    let end = sector.len() - 16;
    let sum = checksum(&sector[..end]);
    sector[end..].copy_from_slice(sum.as_bytes());
}

/// A superblock of another version, in both copies.
pub fn superblock_as(file: &[u8; SUPERBLOCK_FILE_SIZE], version: u16) -> Vec<u8> {
    let mut file = file.to_vec();
    for copy in file.chunks_mut(SEGMENT_HEAD_SIZE) {
        if version == 1 {
            copy[40..44].fill(0);
        }
        set_version(copy, version);
    }
    file
}

/// Version of the head of a file.
pub fn version_of(file: &[u8]) -> u16 {
    u16::from_le_bytes([file[8], file[9]])
}

/// The disk, with all that epochs from `from` on wrote in another version.
pub fn disk_as(disk: &MemoryDisk, version: u16, from: Epoch) -> MemoryDisk {
    let mut disk = disk.clone();
    let named = disk.files().filter_map(|(id, path, _)| {
        let place = parse_path(path)?;
        Some((place, id))
    });
    let files: BTreeMap<_, FileId> = named.collect();
    let mut renamed = BTreeMap::new();
    for ((epoch, _), file) in files {
        let mut bytes = disk.live(file).expect("listed").to_vec();
        if epoch >= from {
            rewrite(&mut bytes, version, &mut renamed);
        }
        disk.put(file, 0, &bytes).expect("fits");
    }
    disk
}

/// Rewrites a segment; `renamed` leads from the former identities to the present ones.
fn rewrite(bytes: &mut [u8], version: u16, renamed: &mut BTreeMap<[u8; 16], Checksum>) {
    let Ok(head) = SegmentHead::decode(bytes) else {
        return;
    };
    set_version(&mut bytes[..SEGMENT_HEAD_SIZE], version);
    let mut at = SEGMENT_HEAD_SIZE;
    while at < bytes.len()
        && let Ok(block) = Block::decode(&bytes[at..])
        && block.header.check_place(&head, at as u64).is_ok()
    {
        let header = block.header;
        let block = &mut bytes[at..at + header.block_size as usize];
        at += block.len();
        let rename = |place: &mut [u8]| {
            if let Some(now) = <[u8; 16]>::try_from(&*place)
                .ok()
                .and_then(|was| renamed.get(&was))
            {
                place.copy_from_slice(now.as_bytes());
            }
        };
        if header.record_count > 0 && block[BLOCK_HEADER_SIZE] == Kind::EpochStart as u8 {
            rename(&mut block[SEALED]);
        }
        rename(&mut block[144..160]);
        let payload = checksum(&block[BLOCK_HEADER_SIZE..]);
        block[160..176].copy_from_slice(payload.as_bytes());
        set_version(&mut block[..BLOCK_HEADER_SIZE], version);
        let mut was = [0; 16];
        was.copy_from_slice(header.identity.as_bytes());
        let now = checksum(&block[..BLOCK_HEADER_SIZE - 16]);
        renamed.insert(was, now);
    }
}
