//! What one shard's thread does before it turns: place itself, make its ring, its journal and its
//! shard.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::Duration;

use forebay_journal::storage::IDENTIFIERS;
use forebay_journal::{Epoch, JournalId, Retained, SegmentId, ShardId, Writer};

use super::error::NodeError;
use super::running::Event;
use crate::housekeeping::{Scanned, ShardPort};
use crate::limits;
use crate::runtime::admin::AdminPort;
use crate::runtime::bell::Bell;
use crate::runtime::driver::{Driver, DriverParts};
use crate::runtime::mailboxes::Mailboxes;
use crate::runtime::placement::{self, Placed};
use crate::runtime::reactor::{Ring, RingSize};
use crate::shard::{Shard, ShardConfig};

/// What one shard thread is given.
pub(super) struct ShardStart {
    pub(super) config: ShardConfig,
    pub(super) scanned: Scanned,
    pub(super) epoch: Epoch,
    pub(super) journal: JournalId,
    /// Strict mode: the file for identifiers.
    pub(super) identifiers: Option<OwnedFd>,
    pub(super) cache_size: usize,
    pub(super) files: BTreeMap<SegmentId, OwnedFd>,
    pub(super) port: ShardPort,
    pub(super) listener: OwnedFd,
    pub(super) mailboxes: Mailboxes,
    pub(super) admin: AdminPort,
    pub(super) bell: Bell,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) core: Option<usize>,
    pub(super) slice: Duration,
    pub(super) busy_poll: Duration,
    pub(super) connections_max: usize,
}

pub(super) fn run_shard(
    id: ShardId,
    start: ShardStart,
    events: &Sender<Event>,
) -> Result<(), NodeError> {
    let core = start.core.filter(|&core| match placement::pin(core) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("shard {id} cannot be pinned to core {core}: {error}");
            false
        }
    });
    let slice = (!start.slice.is_zero())
        .then(|| placement::lengthen_slice(start.slice))
        .and_then(|in_force| {
            in_force
                .inspect_err(|error| {
                    tracing::warn!("shard {id}: no long scheduling slice: {error}")
                })
                .ok()
        });
    let mut ring = Ring::new(RingSize {
        submissions: limits::RING_SUBMISSION_ENTRIES,
        completions: limits::RING_COMPLETION_ENTRIES,
        receive_buffers: limits::RECEIVE_BUFFERS_COUNT as u16,
        receive_buffer_size: limits::RECEIVE_BUFFER_SIZE_BYTES as usize,
    })
    .map_err(NodeError::Ring)?;
    let recovered = &start.scanned.recovered;
    let machine = start.scanned.machine;
    let retained = Retained {
        oldest_segment: start.config.oldest_segment,
        message_floor: machine.message_floor(),
        queue_floor: machine.queue_floor(),
    };
    let mut writer = Writer::new(start.cache_size, start.epoch, recovered.seal, retained);
    if let Some(file) = start.identifiers {
        writer.name_blocks(start.journal, id);
        ring.add_segment(IDENTIFIERS, file)
            .map_err(|error| machine_lacks(id, &error))?;
    }
    let shard = Shard::new(start.config, machine, writer);
    let arena_use = ring.register_arena(shard.memory());
    let placed = Placed {
        core,
        slice,
        arena_use,
    };
    let mut driver = Driver::new(DriverParts {
        shard,
        id,
        ring,
        listener: start.listener,
        files: start.files,
        port: start.port,
        mailboxes: start.mailboxes,
        admin: start.admin,
        bell: start.bell,
        stop: start.stop,
        // Without the slice the kernel's thread that finishes writes would starve beside it.
        busy_poll: slice.map_or(Duration::ZERO, |_| start.busy_poll),
        connections_max: start.connections_max,
    })
    .map_err(|error| machine_lacks(id, &error))?;
    let failed = |failure| NodeError::Failed(id, failure);
    driver.prepare().map_err(failed)?;
    // The main thread is there as long as it waits for this.
    let _ = events.send(Event::Ready(id, placed));
    driver.run().map_err(failed)
}

fn machine_lacks(id: ShardId, error: &std::io::Error) -> NodeError {
    NodeError::Machine(format!("shard {id} cannot start: {error}"))
}
