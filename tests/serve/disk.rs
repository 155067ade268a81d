//! Looks at a data folder from outside: what is in it, and where its blocks lie.

#![allow(clippy::disallowed_methods, reason = "a test looks at files")]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use forebay_journal::format::{Block, BlockHeader, Kind, SECTOR_SIZE, SegmentHead};

/// Every file and folder with its content and time of change; `lock` says who looked last and
/// does not count.
pub(crate) fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let Some(metadata) = unless_gone(entry.metadata()) else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(path.clone());
                found.insert(path, (SystemTime::UNIX_EPOCH, Vec::new()));
            } else if metadata.file_type().is_socket() {
                found.insert(path, (SystemTime::UNIX_EPOCH, b"socket".to_vec()));
            } else if !path.ends_with("lock") {
                let Some(content) = unless_gone(fs::read(&path)) else {
                    continue;
                };
                found.insert(path, (metadata.modified().unwrap(), content));
            }
        }
    }
    found
}

/// A running broker renames its segments: what is gone meanwhile is not there.
fn unless_gone<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.unwrap()),
    }
}

/// A segment file that holds blocks of its own.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) blocks: Vec<BlockHeader>,
    /// Kinds of the records, in order.
    pub(crate) records: Vec<Kind>,
}

/// Segments of shard 0 in the order they were written, those without blocks left out.
pub(crate) fn segments(data: &Path) -> Vec<Segment> {
    segments_of(data, 0)
}

/// The same of any shard.
pub(crate) fn segments_of(data: &Path, shard: u16) -> Vec<Segment> {
    let mut segments: Vec<(u64, Segment)> = Vec::new();
    for (path, (_, bytes)) in snapshot(&data.join("journal")) {
        let Ok(head) = SegmentHead::decode(&bytes) else {
            continue;
        };
        if head.shard.0 == shard {
            let segment = blocks_of(path, &head, &bytes);
            segments.push((head.segment.get(), segment));
        }
    }
    segments.retain(|(_, segment)| !segment.blocks.is_empty());
    segments.sort_by_key(|(number, _)| *number);
    segments.into_iter().map(|(_, segment)| segment).collect()
}

fn blocks_of(path: PathBuf, head: &SegmentHead, bytes: &[u8]) -> Segment {
    let (mut at, mut blocks, mut records) = (SECTOR_SIZE, Vec::new(), Vec::new());
    while at < bytes.len()
        && let Ok(block) = Block::decode(&bytes[at..])
        && block.header.check_place(head, at as u64).is_ok()
    {
        for record in block.records() {
            let (_, _, record) = record.unwrap();
            records.push(record.kind());
        }
        at += block.header.block_size as usize;
        blocks.push(block.header);
    }
    Segment {
        path,
        blocks,
        records,
    }
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, offset: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    file.sync_all().unwrap();
}
