//! The life of a node: open the data folder, recover, start the shards, wait, stop.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_journal::format::{INFLIGHT_BLOCKS_MAX, SegmentHead, Superblock};
use forebay_journal::recovery::SpareFile;
use forebay_journal::{Epoch, JournalId, Retained, SegmentId, ShardId, Writer};
use nix::sys::signal::{SigSet, Signal};

use super::config::{Config, Pin};
use super::exit::Exit;
use super::report;
use crate::frontend::{Users, stomp};
use crate::housekeeping::folder::{Folder, FolderError};
use crate::housekeeping::lock::{FolderLock, LockError};
use crate::housekeeping::{
    Housekeeper, HousekeeperError, ScanError, Scanned, ShardFiles, ShardPort, open_segment, scan,
};
use crate::limits;
use crate::protocol::stomp::{HeartBeatOffer, Limits as StompLimits};
use crate::queue::Limits as QueueLimits;
use crate::runtime::bell::Bell;
use crate::runtime::clock;
use crate::runtime::driver::{Driver, DriverParts};
use crate::runtime::listener::{ListenError, listen};
use crate::runtime::mailboxes::Mailboxes;
use crate::runtime::placement::{self, Device};
use crate::runtime::reactor::{ArenaUse, Ring, RingError, RingSize};
use crate::shard::{Failure, HostLimits, Shard, ShardConfig};

/// Why a node did not start, or stopped by itself.
#[derive(Debug)]
pub enum NodeError {
    /// The data folder is refused.
    Folder(FolderError),
    /// Another broker has it.
    Lock(LockError),
    /// A journal cannot be opened.
    Scan(ScanError),
    /// The machine lacks io_uring.
    Ring(RingError),
    /// The machine lacks something else.
    Machine(String),
    /// The listener cannot be opened.
    Listen(ListenError),
    /// Housekeeping cannot start.
    Housekeeping(HousekeeperError),
    /// A shard failed while running.
    Failed(ShardId, Failure),
}

impl NodeError {
    /// The exit code it means.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Folder(_) | Self::Lock(_) | Self::Scan(_) => Exit::DataRefused,
            Self::Ring(_) | Self::Machine(_) | Self::Housekeeping(_) => Exit::MachineLacks,
            Self::Listen(_) => Exit::ListenFailed,
            Self::Failed(..) => Exit::Failed,
        }
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Scan(error) => error.fmt(f),
            Self::Ring(error) => error.fmt(f),
            Self::Machine(reason) => f.write_str(reason),
            Self::Listen(error) => error.fmt(f),
            Self::Housekeeping(error) => error.fmt(f),
            Self::Failed(shard, Failure::Write(error)) => write!(
                f,
                "shard {shard}: a journal write failed: {error}. Nothing it held was acknowledged; \
                 the broker stops so that nobody trusts a failed write. Look at the disk, then \
                 start again: what was acknowledged is on it"
            ),
            Self::Failed(shard, Failure::Read(error)) => write!(
                f,
                "shard {shard}: segment {}, byte {}: a block that holds messages cannot be read \
                 back: {}. Run `forebay-inspect verify` on the data folder",
                error.segment, error.offset, error.reason
            ),
            Self::Failed(shard, Failure::Housekeeping(reason)) => {
                write!(f, "shard {shard}: {reason}")
            }
        }
    }
}

impl std::error::Error for NodeError {}

/// What the main thread waits for.
enum Event {
    Signal(Signal),
    Ready(ShardId, ArenaUse, Option<usize>),
    Ended(Result<(), NodeError>),
}

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
    let started_us = clock::monotonic_us();
    let mut folder = Folder::new(&config.node.data);
    folder.make().map_err(NodeError::Folder)?;
    let holder = format!(
        "process {}, node {}, STOMP on {}",
        std::process::id(),
        config.node.name,
        config.listen.stomp
    );
    let _lock = FolderLock::take(folder.root(), &holder).map_err(NodeError::Lock)?;
    let superblock = open_folder(&folder, config)?;
    check_direct_io(&folder)?;
    let scans = scan_all(&folder, &superblock)?;
    report::recovered(
        folder.root(),
        &scans,
        Duration::from_micros(clock::monotonic_us() - started_us),
    );
    // Opened before the epoch is claimed: a start that cannot listen leaves no trace.
    let (listeners, address) = listen(config.listen.stomp, usize::from(superblock.shard_count))
        .map_err(NodeError::Listen)?;
    let epoch = folder.claim_epoch().map_err(NodeError::Folder)?;
    let device = placement::device_of(folder.root());
    let cores = choose_cores(config, superblock.shard_count, device.as_ref());
    let node = Starting {
        config,
        folder: &folder,
        superblock,
        epoch,
    };
    let mut running = node.start(scans, listeners, cores)?;
    running.wait_ready(signals, config, &device)?;
    report::ready(address, folder.root());
    let result = running.wait();
    running.stop();
    // Nothing in older epochs' folders is needed once their segments are freed.
    let _ = folder.remove_empty_epochs(epoch);
    result
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

/// O_DIRECT is what durability rests on: without it there is no broker.
fn check_direct_io(folder: &Folder) -> Result<(), NodeError> {
    let path = folder.root().join("lock");
    open_segment(&path).map(drop).map_err(|error| {
        NodeError::Machine(format!(
            "the file system of {} does not support O_DIRECT ({error}). Remedy: put the data \
             folder on a disk with ext4 or XFS (not tmpfs), with --data DIR",
            folder.root().display()
        ))
    })
}

fn queue_limits() -> QueueLimits {
    QueueLimits {
        queues_max: limits::QUEUES_MAX as usize,
        consumers_max: limits::CONSUMERS_MAX as usize,
        unsettled_max: limits::PREFETCH_MAX,
        dispatch_max: limits::DISPATCH_MAX as usize,
    }
}

fn scan_all(folder: &Folder, superblock: &Superblock) -> Result<Vec<Scanned>, NodeError> {
    (0..superblock.shard_count)
        .map(|shard| {
            scan(folder, superblock.journal, ShardId(shard), queue_limits())
                .map_err(NodeError::Scan)
        })
        .collect()
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

/// A node whose folder is open and whose shards are not running yet.
struct Starting<'a> {
    config: &'a Config,
    folder: &'a Folder,
    superblock: Superblock,
    epoch: Epoch,
}

/// What one shard thread is given.
struct ShardStart {
    config: ShardConfig,
    scanned: Scanned,
    epoch: Epoch,
    cache_size: usize,
    files: BTreeMap<SegmentId, OwnedFd>,
    port: ShardPort,
    listener: OwnedFd,
    mailboxes: Mailboxes,
    bell: Bell,
    stop: Arc<AtomicBool>,
    core: Option<usize>,
    slice: Duration,
    connections_max: usize,
}

impl Starting<'_> {
    fn start(
        &self,
        scans: Vec<Scanned>,
        listeners: Vec<OwnedFd>,
        cores: Vec<Option<usize>>,
    ) -> Result<Running, NodeError> {
        let bells = (0..scans.len())
            .map(|_| Bell::new())
            .collect::<Result<Vec<_>, _>>();
        let bells =
            bells.map_err(|error| NodeError::Machine(format!("no descriptors: {error}")))?;
        let files = scans
            .iter()
            .zip(&bells)
            .enumerate()
            .map(|(shard, (scanned, bell))| {
                (
                    self.shard_files(ShardId(shard as u16), scanned),
                    bell.clone(),
                )
            });
        let (housekeeper, ports) =
            Housekeeper::start(self.folder, files.collect()).map_err(NodeError::Housekeeping)?;
        let mailboxes = Mailboxes::new(&bells);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, events) = channel();
        let mut threads = Vec::new();
        let shards = scans
            .into_iter()
            .zip(ports)
            .zip(listeners)
            .zip(cores)
            .zip(&bells);
        for (index, ((((scanned, port), listener), core), bell)) in shards.enumerate() {
            let shard = ShardId(index as u16);
            let start = ShardStart {
                config: self.shard_config(shard, &scanned),
                files: self.open_files(&scanned)?,
                scanned,
                epoch: self.epoch,
                cache_size: self.config.limits.block_cache_size as usize,
                port,
                listener,
                mailboxes: mailboxes.clone(),
                bell: bell.clone(),
                stop: Arc::clone(&stop),
                core,
                slice: Duration::from_millis(self.config.runtime.scheduling_slice_ms.into()),
                connections_max: (self.config.limits.connections_max as usize)
                    .div_ceil(usize::from(self.superblock.shard_count)),
            };
            let sender = sender.clone();
            let thread = std::thread::Builder::new()
                .name(format!("forebay-shard-{index}"))
                .spawn(move || {
                    let result = run_shard(shard, start, &sender);
                    // The main thread may be gone already; then nobody wants to know.
                    let _ = sender.send(Event::Ended(result));
                })
                .map_err(|error| NodeError::Machine(format!("cannot start a thread: {error}")))?;
            threads.push(thread);
        }
        Ok(Running {
            events,
            sender,
            threads,
            stop,
            bells,
            housekeeper: Some(housekeeper),
        })
    }

    fn shard_config(&self, shard: ShardId, scanned: &Scanned) -> ShardConfig {
        let config = self.config;
        let oldest = scanned.recovered.oldest_segment;
        ShardConfig {
            shard,
            shard_count: self.superblock.shard_count,
            limits: HostLimits {
                volatile_max_bytes: config.limits.volatile_size_max,
                window_bytes: limits::CONNECTION_OUTPUT_WINDOW_BYTES,
                segments_ready: config.journal.segments_ready as usize,
            },
            stomp: stomp_settings(config),
            node: config.node.name.clone(),
            oldest_segment: oldest.max(SegmentId::ZERO.next()),
            next_segment: scanned.recovered.segment_max.next(),
        }
    }

    fn shard_files(&self, shard: ShardId, scanned: &Scanned) -> ShardFiles {
        let recovered = &scanned.recovered;
        let path = |file: u32| scanned.files[file as usize].path.clone();
        let size = self.config.journal.segment_size;
        let held = recovered
            .segments
            .iter()
            .map(|segment| (segment.segment, (path(segment.file), segment.generation)))
            .collect();
        let (fitting, others): (Vec<&SpareFile>, Vec<&SpareFile>) = recovered
            .spares
            .iter()
            .partition(|spare| spare.size == size && spare.generation.is_some());
        let spare_max = self.config.journal.segments_ready as usize + 1;
        let spare = fitting
            .iter()
            .map(|s| (path(s.file), s.generation.unwrap_or(0)))
            .collect();
        #[allow(clippy::disallowed_methods, reason = "nothing in these files counts")]
        for spare in others {
            // Prepared with another segment size: nothing in it counts.
            if let Err(error) = std::fs::remove_file(path(spare.file)) {
                tracing::warn!("cannot remove {}: {error}", path(spare.file).display());
            }
        }
        ShardFiles {
            head: SegmentHead {
                journal: self.superblock.journal,
                shard,
                segment: SegmentId::ZERO,
                generation: 0,
                epoch: self.epoch,
                first_segment: recovered.segment_max.next(),
                size,
                inflight_blocks_max: INFLIGHT_BLOCKS_MAX as u32,
            },
            held,
            spare,
            spare_max,
            rate: self.config.journal.prepare_rate,
        }
    }

    fn open_files(&self, scanned: &Scanned) -> Result<BTreeMap<SegmentId, OwnedFd>, NodeError> {
        let mut files = BTreeMap::new();
        for segment in &scanned.recovered.segments {
            let path = &scanned.files[segment.file as usize].path;
            let file = open_segment(path).map_err(|error| {
                NodeError::Folder(FolderError::Io {
                    action: "open",
                    path: path.clone(),
                    error,
                })
            })?;
            files.insert(segment.segment, file);
        }
        Ok(files)
    }
}

fn stomp_settings(config: &Config) -> stomp::Settings {
    let [send_ms, receive_ms] = config.stomp.heart_beat_ms;
    stomp::Settings {
        limits: StompLimits {
            message_size_max: config.limits.message_size_max,
            header_bytes_max: limits::FRAME_HEADERS_SIZE_MAX_BYTES as usize,
            header_count_max: limits::FRAME_HEADERS_COUNT_MAX as usize,
            heart_beat: HeartBeatOffer {
                send_ms,
                receive_ms,
            },
            ..StompLimits::default()
        },
        users: Users(
            config
                .users
                .iter()
                .map(|u| (u.name.clone(), u.password.clone()))
                .collect(),
        ),
        is_persistent_by_default: config.stomp.persistent_default,
        prefetch_default: config.stomp.prefetch_default,
        subscriptions_max: limits::CONNECTION_SUBSCRIPTIONS_MAX as usize,
        server: concat!("forebay/", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

fn run_shard(id: ShardId, start: ShardStart, events: &Sender<Event>) -> Result<(), NodeError> {
    let pinned = start.core.filter(|&core| match placement::pin(core) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("shard {id} cannot be pinned to core {core}: {error}");
            false
        }
    });
    if !start.slice.is_zero()
        && let Err(error) = placement::lengthen_slice(start.slice)
    {
        tracing::warn!("shard {id}: no long scheduling slice: {error}");
    }
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
    let writer = Writer::new(start.cache_size, start.epoch, recovered.seal, retained);
    let shard = Shard::new(start.config, machine, writer);
    let arena_use = ring.register_arena(shard.memory());
    let machine_lacks =
        |error: std::io::Error| NodeError::Machine(format!("shard {id} cannot start: {error}"));
    let mut driver = Driver::new(DriverParts {
        shard,
        id,
        ring,
        listener: start.listener,
        files: start.files,
        port: start.port,
        mailboxes: start.mailboxes,
        bell: start.bell,
        stop: start.stop,
        connections_max: start.connections_max,
    })
    .map_err(machine_lacks)?;
    let failed = |failure| NodeError::Failed(id, failure);
    driver.prepare().map_err(failed)?;
    // The main thread is there as long as it waits for this.
    let _ = events.send(Event::Ready(id, arena_use, pinned));
    driver.run().map_err(failed)
}

/// A node whose shards run.
struct Running {
    events: Receiver<Event>,
    sender: Sender<Event>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    bells: Vec<Bell>,
    housekeeper: Option<Housekeeper>,
}

impl Running {
    /// Waits until every shard can take messages.
    fn wait_ready(
        &mut self,
        signals: SigSet,
        config: &Config,
        device: &Option<Device>,
    ) -> Result<(), NodeError> {
        let sender = self.sender.clone();
        // Ends with the process: it waits for signals as long as there are any.
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if sender.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        });
        let mut ready = Vec::new();
        while ready.len() < self.threads.len() {
            match self.events.recv() {
                Ok(Event::Ready(shard, arena_use, core)) => ready.push((shard, arena_use, core)),
                Ok(Event::Ended(Err(error))) => return Err(error),
                Ok(Event::Signal(_)) => self.tell_stop(),
                Ok(Event::Ended(Ok(()))) | Err(_) => break,
            }
        }
        ready.sort_by_key(|(shard, ..)| *shard);
        report::placed(&ready, config, device.as_ref());
        Ok(())
    }

    fn tell_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.bells.iter().for_each(Bell::ring);
    }

    /// Waits for a signal, then for the shards' orderly end; or for a failure.
    fn wait(&mut self) -> Result<(), NodeError> {
        let mut running = self.threads.len();
        while running > 0 {
            match self.events.recv() {
                Ok(Event::Signal(signal)) => {
                    tracing::info!("{signal}: stopping");
                    self.tell_stop();
                }
                Ok(Event::Ended(Ok(()))) => running -= 1,
                Ok(Event::Ended(Err(error))) => return Err(error),
                Ok(Event::Ready(..)) => {}
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn stop(mut self) {
        let failed = self.threads.iter().any(|thread| !thread.is_finished());
        self.tell_stop();
        if let Some(housekeeper) = self.housekeeper.take()
            && !failed
        {
            housekeeper.stop();
        }
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
