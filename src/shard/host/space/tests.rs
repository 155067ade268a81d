//! Space of a host alone: no disk, no clients.

use forebay_journal::format::SegmentHead;
use forebay_journal::reader::Owner;
use forebay_journal::{Epoch, JournalId, Retained, Seal, SegmentId, ShardId, Writer};

use super::Segments;
use crate::queue::{Limits, Machine, Policies};
use crate::shard::ConnectionId;
use crate::shard::host::{DiskFull, Host, HostLimits, RelocationLimits};

const SEGMENT_SIZE: u64 = 1 << 20;

/// A host with two segments prepared, which has not written anything.
pub(in crate::shard::host) fn host(disk_full: DiskFull) -> Host {
    let first = SegmentId::ZERO.next();
    let retained = Retained {
        oldest_segment: first,
        ..Retained::default()
    };
    let epoch = Epoch::ZERO.next();
    let writer = Writer::new(4 << 20, epoch, Seal::NONE, retained);
    let limits = Limits {
        queues_max: 10,
        consumers_max: 10,
        unsettled_max: 1000,
        dispatch_max: 256,
    };
    let segments = Segments {
        oldest: first,
        held: Vec::new(),
        next: first,
    };
    let owner = Owner {
        journal: JournalId([7; 16]),
        shard: ShardId(0),
    };
    let mut host = Host::new(
        owner,
        Machine::new(limits, Policies::default()),
        writer,
        segments,
        HostLimits {
            volatile_max_bytes: 1 << 20,
            window_bytes: 256 << 10,
            message_size_max: 1 << 20,
            segments_ready: 2,
            disk_full,
            relocation: RelocationLimits {
                budget_percent: 0,
                dead_segments: 8,
            },
        },
        ConnectionId::forwarder(owner.shard),
    );
    prepare(&mut host);
    host
}

/// Gives it the segments that it wants.
pub(in crate::shard::host) fn prepare(host: &mut Host) {
    while let Some(segment) = host.poll_prepare() {
        host.add_segment(SegmentHead {
            journal: JournalId([7; 16]),
            shard: ShardId(0),
            segment,
            generation: 0,
            epoch: Epoch::ZERO.next(),
            first_segment: SegmentId::ZERO.next(),
            size: SEGMENT_SIZE,
            inflight_blocks_max: 2,
        });
    }
}

/// A checkpoint whose start the oldest segment reached or passed meanwhile has nothing to move. It
/// ends as soon as all is said: else the next one would wait until some segment empties.
#[test]
fn a_checkpoint_that_moves_nothing_ends() {
    let mut host = host(DiskFull::Block);
    host.writer.reserve(100, super::Budget::Message).unwrap();
    let (current, _) = host.writer.segment_used().unwrap();
    // What is empty at the start is looked at once.
    host.reclaim();
    assert!(!host.space.has_emptied);
    assert!(host.machine.begin_checkpoint(current.segment));
    host.reclaim();
    assert_eq!(host.machine.checkpoint_start(), None, "it is under way");
    assert_eq!(host.space.oldest, current.segment);
}
