//! The life of a node: open the data folder, recover, start the shards, wait, stop.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use forebay_journal::format::{INFLIGHT_BLOCKS_MAX, Superblock};
use forebay_journal::{JournalId, ShardId};
use nix::sys::signal::{SigSet, Signal};

use super::admin::{self, AdminServer, Identity};
use super::config::{Config, Pin};
use super::error::NodeError;
use super::recover::scan_all;
use super::report;
use super::running::{Running, Started};
use super::starting::Starting;
use crate::housekeeping::folder::Folder;
use crate::housekeeping::lock::FolderLock;
use crate::housekeeping::{Board, Scanned, check_direct_io, quarantine};
use crate::limits;
use crate::runtime::clock;
use crate::runtime::listener::listen;
use crate::runtime::placement::{self, Device};
use crate::runtime::reactor::{Ring, RingSize};

/// Runs a node until it is told to stop.
///
/// Errors: see [`NodeError`]; what was acknowledged is durable in any case.
pub fn serve(config: &Config) -> Result<(), NodeError> {
    // Before any other thread: they all inherit the mask, and one thread waits for the signals.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals
        .thread_block()
        .map_err(|errno| NodeError::Machine(format!("signals: {errno}")))?;
    probe_ring()?;
    let (started_us, started_unix_ms) = (clock::monotonic_us(), clock::now().unix_ms);
    let (folder, _lock) = take_folder(config)?;
    let superblock = open_folder(&folder, config)?;
    let (scans, damaged) = scan_all(config, &folder, &superblock)?;
    let quarantine = quarantine::used(&folder).map_err(NodeError::Folder)?;
    report::recovered(
        &folder,
        &scans,
        quarantine,
        Duration::from_micros(clock::monotonic_us() - started_us),
    );
    report::damaged(&scans, &damaged);
    // Opened before the epoch is claimed: a start that cannot listen uses up none.
    let (listeners, address) =
        listen(config.listen.stomp, scans.iter().flatten().count()).map_err(NodeError::Listen)?;
    let metrics = listen_for_metrics(config)?;
    let admin_socket = admin::socket::listen(folder.root()).map_err(NodeError::Admin)?;
    let untouched: Vec<ShardId> = damaged.iter().map(|one| one.shard).collect();
    let epoch = folder.claim_epoch(&untouched).map_err(NodeError::Folder)?;
    let device = placement::device_of(folder.root());
    let cores = choose_cores(config, superblock.shard_count, device.as_ref());
    let cut = |scanned: &Option<Scanned>| scanned.as_ref().map_or(0, Scanned::cut_bytes);
    let cut_bytes = scans.iter().map(cut).collect();
    let serving: Vec<bool> = scans.iter().map(Option::is_some).collect();
    let node = Starting {
        config,
        folder: &folder,
        superblock,
        epoch,
    };
    let (mut running, desk) = node.start(scans, listeners, cores)?;
    let started = running.wait_ready(signals, config, &device)?;
    let identity = Identity {
        node: config.node.name.clone(),
        epoch: epoch.get(),
        quarantine,
        damaged,
        data: folder.root().to_owned(),
        started_unix_ms,
        is_strict: config.journal.is_strict,
        cut_bytes,
        boards: boards_of(&running, &serving),
    };
    let scraped_at = metrics.as_ref().and_then(|one| one.local_addr().ok());
    let admin =
        AdminServer::start(admin_socket, metrics, desk, identity).map_err(NodeError::Admin)?;
    report::metrics(scraped_at);
    match started {
        Started::Ready => report::ready(address, folder.root()),
        Started::ToldToStop => report::stopped_before_ready(),
    }
    running.wait()?;
    admin.stop();
    // Nothing in older epochs' folders is needed once their segments are freed.
    let _ = folder.remove_empty_epochs(epoch);
    Ok(())
}

/// The data folder, made if need be, and its lock.
fn take_folder(config: &Config) -> Result<(Folder, FolderLock), NodeError> {
    let mut folder = Folder::new(&config.node.data);
    folder.make().map_err(NodeError::Folder)?;
    let holder = format!(
        "process {}, node {}, STOMP on {}",
        std::process::id(),
        config.node.name,
        config.listen.stomp
    );
    let lock = FolderLock::take(folder.root(), &holder).map_err(NodeError::Lock)?;
    check_direct_io(folder.root()).map_err(|error| NodeError::Machine(error.to_string()))?;
    Ok((folder, lock))
}

/// What housekeeping says of each shard's files; of one that is damaged it says nothing.
fn boards_of(running: &Running, serving: &[bool]) -> Vec<Arc<Board>> {
    let mut boards = running.boards().into_iter();
    let boards = serving.iter().map(|is_serving| {
        let board = is_serving.then(|| boards.next()).flatten();
        board.unwrap_or_default()
    });
    boards.collect()
}

/// The listener for metrics, where one is wanted.
fn listen_for_metrics(config: &Config) -> Result<Option<TcpListener>, NodeError> {
    let listen =
        |address| TcpListener::bind(address).map_err(|error| NodeError::Metrics(address, error));
    config.admin.metrics.map(listen).transpose()
}

/// A plain message before anything else, where io_uring is forbidden (glommio would panic).
fn probe_ring() -> Result<(), NodeError> {
    let size = RingSize {
        submissions: 8,
        completions: 16,
        receive_buffers: 8,
        receive_buffer_size: 4096,
    };
    Ring::new(size).map(drop).map_err(NodeError::Ring)
}

fn open_folder(folder: &Folder, config: &Config) -> Result<Superblock, NodeError> {
    let shards = u16::try_from(config.node.shards).unwrap_or(u16::MAX);
    let mut random = [0; 16];
    fill_random(&mut random)?;
    folder
        .open(shards, JournalId(random), clock::now().unix_ms)
        .map_err(NodeError::Folder)
}

fn fill_random(bytes: &mut [u8]) -> Result<(), NodeError> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(bytes))
        .map_err(|error| NodeError::Machine(format!("cannot read /dev/urandom: {error}")))
}

fn choose_cores(config: &Config, shards: u16, device: Option<&Device>) -> Vec<Option<usize>> {
    let shards = usize::from(shards);
    match &config.runtime.pin {
        Pin::Off => vec![None; shards],
        Pin::Auto => match placement::choose(shards, device, &placement::allowed_cores()) {
            Some(cores) => cores.into_iter().map(Some).collect(),
            None => vec![None; shards],
        },
        Pin::Cpus(cpus) => (0..shards)
            .map(|shard| cpus.get(shard).map(|&cpu| cpu as usize))
            .collect(),
    }
}

/// The bounds of the journal and of the limits are the same numbers.
const _: () = {
    assert!(limits::BLOCK_SIZE_MAX_BYTES == forebay_journal::format::BLOCK_SIZE_MAX as u64);
    assert!(limits::BLOCK_ALIGN_BYTES == forebay_journal::format::SECTOR_SIZE as u64);
    assert!(limits::INFLIGHT_BLOCKS_MAX as u64 == INFLIGHT_BLOCKS_MAX);
    assert!(limits::SEALED_BLOCKS_MAX as usize == forebay_journal::SEALED_BLOCKS_MAX);
    let least = limits::BLOCK_CACHE_SIZE_MIN_BYTES as usize;
    assert!(least == forebay_journal::CACHE_SIZE_MIN);
};
