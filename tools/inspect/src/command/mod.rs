//! The commands, one file each, and what they say alike.

pub(crate) mod blocks;
pub(crate) mod compare;
pub(crate) mod constants;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod map;
pub(crate) mod message;
mod proof;
pub(crate) mod records;
pub(crate) mod repair;
pub(crate) mod segments;
pub(crate) mod stat;
pub(crate) mod tail;
pub(crate) mod undelete;
pub(crate) mod verify;

use std::path::Path;

use anyhow::Context as _;
use forebay_journal::format::Checksum;
use forebay_journal::recovery::RecoveryError;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{SegmentId, ShardId};
use serde_json::{Value, json};

use crate::file::OpenSegment;
use crate::folder::{Listing, Owner, Place};
use crate::identity::{Identity, identify};
use crate::look::Looked;
use crate::survey::{Head, Surveyed, survey};

/// How often a list of files that changes is made anew.
const LISTS_MAX: u32 = 200;

/// Whose journal it is, and the shards asked for.
pub(crate) fn open(
    place: &Place,
    shard: Option<u16>,
) -> anyhow::Result<(Listing, Identity, Vec<ShardId>)> {
    let listing = place.list(None)?;
    let identity = identify(place, &listing)?;
    let shards = identity.select(shard)?.into_iter().map(ShardId).collect();
    Ok((listing, identity, shards))
}

/// A shard's files for walking them.
pub(crate) fn open_files(
    place: &Place,
    identity: &Identity,
    shard: ShardId,
    buffer: &mut ReadBuffer,
) -> anyhow::Result<(Vec<OpenSegment>, Vec<Surveyed>)> {
    let mut opened = None;
    for _ in 0..LISTS_MAX {
        let Some(files) = place.open(shard, buffer)? else {
            continue;
        };
        let surveyed = survey(identity.journal, &files, buffer);
        // A file is taken away before its head changes: if all are there still, all fit together.
        let is_intact = files.iter().all(|file| file.name.path.exists());
        opened = Some((files, surveyed));
        if is_intact {
            break;
        }
    }
    let changes = || format!("the files of shard {shard} change faster than they can be opened");
    opened.with_context(changes)
}

fn owner_json(owner: &Owner) -> Value {
    match owner {
        Owner::Running { holder } => json!({ "is_running": true, "holder": holder }),
        Owner::None => json!({ "is_running": false }),
    }
}

pub(crate) fn owner_text(owner: &Owner) -> String {
    match owner {
        Owner::Running { holder } if holder.is_empty() => "a broker runs on it".to_owned(),
        Owner::Running { holder } => format!("a broker runs on it: {holder}"),
        Owner::None => "no broker runs on it".to_owned(),
    }
}

/// First and last record that is or may be lost; `None` for not known. Of a lost idle seal the
/// last is below the first.
fn lost(error: &RecoveryError) -> (Option<u64>, Option<u64>) {
    let from = Some(error.lsn_from.get()).filter(|&lsn| lsn != 0);
    let upto = error.lsn_upto.map(|lsn| lsn.get());
    (
        from,
        upto.filter(|&upto| from.is_some_and(|from| upto + 1 >= from)),
    )
}

/// The file a finding is about, whether it is there or missing.
pub(crate) fn path_of(place: &Place, looked: &Looked, error: &RecoveryError) -> String {
    let file = error.file.and_then(|file| looked.files.get(file as usize));
    match file {
        Some(file) => show(&file.name.path),
        None => show(&place.path_of(error.shard, error.epoch, missing(looked, error))),
    }
}

/// The segment that is missing. Recovery names the one it needs to begin with; if that is older
/// than the whole epoch, it is the first of the epoch, which leads there, that is missing.
fn missing(looked: &Looked, error: &RecoveryError) -> SegmentId {
    let same_epoch = looked.surveyed.iter().filter_map(|one| match one.head {
        Head::Sound(head) if head.epoch == error.epoch => Some(head.first_segment),
        _ => None,
    });
    same_epoch
        .min()
        .map_or(error.segment, |first| first.max(error.segment))
}

pub(crate) fn show(path: &Path) -> String {
    path.display().to_string()
}

/// The beginning of an identity: enough to tell two blocks apart.
fn short(checksum: Checksum) -> String {
    let mut text = checksum.to_string();
    text.truncate(8);
    text
}
