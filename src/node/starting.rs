//! From recovered journals to running shard threads.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_journal::format::{INFLIGHT_BLOCKS_MAX, SegmentHead, Superblock};
use forebay_journal::recovery::{Recovered, SpareFile};
use forebay_journal::{Epoch, SegmentId, ShardId};

use super::config::Config;
use super::error::NodeError;
use super::running::{Event, Running};
use super::shard_thread::{ShardStart, run_shard};
use crate::frontend::{Users, stomp};
use crate::housekeeping::folder::{Folder, FolderError};
use crate::housekeeping::{
    HeldFile, Housekeeper, Scanned, ShardFiles, ShardPort, identifiers, open_segment,
};
use crate::limits;
use crate::runtime::admin::{self, AdminDesk, AdminPort};
use crate::runtime::bell::Bell;
use crate::runtime::mailboxes::Mailboxes;
use crate::shard::{HostLimits, Quotas, RelocationLimits, ShardConfig, Verdict, verdicts};

/// A node whose folder is open and whose shards are not running yet.
pub(super) struct Starting<'a> {
    pub(super) config: &'a Config,
    pub(super) folder: &'a Folder,
    pub(super) superblock: Superblock,
    pub(super) epoch: Epoch,
}

impl Starting<'_> {
    pub(super) fn start(
        &self,
        scans: Vec<Option<Scanned>>,
        listeners: Vec<OwnedFd>,
        cores: Vec<Option<usize>>,
    ) -> Result<(Running, AdminDesk), NodeError> {
        let (bells, desk, admin_ports) = open_bells(scans.len())
            .map_err(|error| NodeError::Machine(format!("no descriptors: {error}")))?;
        let (housekeeper, ports) = self.start_housekeeper(&scans, &bells)?;
        let mailboxes = Mailboxes::new(&bells);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, events) = channel();
        let (verdicts, quotas, damaged) = self.judge(&scans);
        let serving = scans.len() - damaged.len();
        let mut threads = Vec::new();
        let (mut ports, mut listeners) = (ports.into_iter(), listeners.into_iter());
        let shards = (0..)
            .map(ShardId)
            .zip(scans)
            .zip(cores)
            .zip(admin_ports)
            .zip(&bells)
            .zip(verdicts.into_iter().zip(quotas));
        for (((((shard, scanned), core), admin), bell), (verdicts, quotas)) in shards {
            // One that is damaged has no thread: nobody asks it for anything.
            let Some(scanned) = scanned else { continue };
            let (Some(port), Some(listener)) = (ports.next(), listeners.next()) else {
                panic!("as many ports and listeners as shards that serve");
            };
            let start = ShardStart {
                config: ShardConfig {
                    damaged: damaged.clone(),
                    ..self.shard_config(shard, &scanned, verdicts, quotas)
                },
                files: self.open_files(&scanned)?,
                scanned,
                epoch: self.epoch,
                journal: self.superblock.journal,
                identifiers: self.make_identifiers(shard)?,
                cache_size: self.config.limits.block_cache_size as usize,
                port,
                listener,
                mailboxes: mailboxes.clone(),
                admin,
                bell: bell.clone(),
                stop: Arc::clone(&stop),
                core,
                slice: Duration::from_millis(self.config.runtime.scheduling_slice_ms.into()),
                busy_poll: Duration::from_micros(self.config.node.busy_poll_us.into()),
                connections_max: (self.config.limits.connections_max as usize).div_ceil(serving),
            };
            threads.push(spawn_shard(shard, start, sender.clone())?);
        }
        let running = Running {
            events,
            sender,
            threads,
            ended: 0,
            stop,
            bells,
            housekeeper,
        };
        Ok((running, desk))
    }

    fn start_housekeeper(
        &self,
        scans: &[Option<Scanned>],
        bells: &[Bell],
    ) -> Result<(Housekeeper, Vec<ShardPort>), NodeError> {
        let files = (0..).zip(scans).zip(bells);
        let files = files.filter_map(|((shard, scanned), bell)| {
            let files = self.shard_files(ShardId(shard), scanned.as_ref()?);
            Some((files, bell.clone()))
        });
        Housekeeper::start(self.folder, files.collect()).map_err(NodeError::Housekeeping)
    }

    /// What shards are told of each other: verdicts and quotas of each, and which do not serve.
    fn judge(&self, scans: &[Option<Scanned>]) -> (Vec<Vec<Verdict>>, Vec<Quotas>, Vec<ShardId>) {
        let machines = || {
            let machines = scans.iter().map(Option::as_ref);
            machines.map(|scanned| scanned.map(|scanned| &scanned.machine))
        };
        let held =
            machines().map(|machine| machine.map_or_else(Default::default, |one| one.held()));
        let held: Vec<_> = held.collect();
        let quotas = Quotas::of_all(self.config.global_limits(), &held);
        let damaged = (0..).map(ShardId).zip(scans);
        let damaged = damaged.filter(|(_, scanned)| scanned.is_none());
        let damaged = damaged.map(|(shard, _)| shard).collect();
        (verdicts(machines()), quotas, damaged)
    }

    fn shard_config(
        &self,
        shard: ShardId,
        scanned: &Scanned,
        verdicts: Vec<Verdict>,
        quotas: Quotas,
    ) -> ShardConfig {
        let config = self.config;
        let oldest = scanned.recovered.oldest_segment;
        ShardConfig {
            journal: self.superblock.journal,
            shard,
            shard_count: self.superblock.shard_count,
            limits: HostLimits {
                volatile_max_bytes: config.limits.volatile_size_max,
                window_bytes: limits::CONNECTION_OUTPUT_WINDOW_BYTES,
                message_size_max: config.limits.message_size_max,
                segments_ready: config.journal.segments_ready as usize,
                disk_full: config.limits.disk_full_policy,
                relocation: RelocationLimits {
                    budget_percent: config.journal.relocation_budget_percent,
                    dead_segments: limits::RELOCATION_DEAD_SEGMENTS,
                },
            },
            stomp: stomp_settings(config),
            transaction_timeout_us: u64::from(config.limits.transaction_timeout_ms) * 1000,
            verdicts,
            quotas,
            damaged: Vec::new(),
            node: config.node.name.clone(),
            oldest_segment: oldest.max(SegmentId::ZERO.next()),
            held_segments: held_segments(&scanned.recovered),
            next_segment: scanned.recovered.segment_max.next(),
        }
    }

    fn shard_files(&self, shard: ShardId, scanned: &Scanned) -> ShardFiles {
        let recovered = &scanned.recovered;
        let path = |file: u32| scanned.files[file as usize].path.clone();
        let size = self.config.journal.segment_size;
        let held_file = |file: u32, generation, size, used_bytes| HeldFile {
            path: path(file),
            generation,
            size,
            epoch: scanned.files[file as usize].epoch,
            used_bytes,
        };
        let bodies = recovered.bodies.iter().map(|found| {
            let generation = found.generation.unwrap_or(0);
            let file = held_file(found.file, generation, found.size, None);
            (found.segment, file)
        });
        let segments = recovered.segments.iter().map(|found| {
            let used_bytes = Some(found.used_bytes);
            let file = held_file(found.file, found.generation, found.size, used_bytes);
            (found.segment, file)
        });
        let held = bodies.chain(segments).collect();
        let (fitting, others): (Vec<&SpareFile>, Vec<&SpareFile>) = recovered
            .spares
            .iter()
            .partition(|spare| spare.size == size && spare.generation.is_some());
        let spare_max = self.config.journal.segments_ready as usize + 1;
        let spare = fitting
            .iter()
            .map(|found| {
                let generation = found.generation.unwrap_or(0);
                held_file(found.file, generation, found.size, None)
            })
            .collect();
        #[allow(clippy::disallowed_methods, reason = "nothing in these files counts")]
        for spare in others.iter().rev() {
            // Of another segment size: nothing in it counts. From the highest number down, so that
            // a crash in between leaves no gap (docs/format.md 7).
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
            scrub_rate: self.config.journal.scrub_bytes_per_s,
        }
    }

    /// Strict mode.
    fn make_identifiers(&self, shard: ShardId) -> Result<Option<OwnedFd>, NodeError> {
        if !self.config.journal.is_strict {
            return Ok(None);
        }
        let file = identifiers::make(self.folder, self.epoch, shard);
        file.map(Some).map_err(NodeError::Folder)
    }

    fn open_files(&self, scanned: &Scanned) -> Result<BTreeMap<SegmentId, OwnedFd>, NodeError> {
        let mut files = BTreeMap::new();
        let bodies = scanned.recovered.bodies.iter();
        let bodies = bodies.map(|found| (found.segment, found.file));
        let segments = scanned.recovered.segments.iter();
        let segments = segments.map(|found| (found.segment, found.file));
        for (segment, file) in bodies.chain(segments) {
            let path = &scanned.files[file as usize].path;
            let file = open_segment(path).map_err(|error| {
                NodeError::Folder(FolderError::Io {
                    action: "open",
                    path: path.clone(),
                    error,
                })
            })?;
            files.insert(segment, file);
        }
        Ok(files)
    }
}

/// Segments of which a shard has files that count, sorted.
fn held_segments(recovered: &Recovered) -> Vec<SegmentId> {
    let bodies = recovered.bodies.iter().map(|found| found.segment);
    let segments = recovered.segments.iter().map(|found| found.segment);
    let mut held: Vec<SegmentId> = bodies.chain(segments).collect();
    held.sort_unstable();
    held
}

/// What wakes each shard, and its line to the admin side.
fn open_bells(count: usize) -> std::io::Result<(Vec<Bell>, AdminDesk, Vec<AdminPort>)> {
    let bells = (0..count)
        .map(|_| Bell::new())
        .collect::<Result<Vec<_>, _>>()?;
    let (desk, ports) = admin::lines(&bells)?;
    Ok((bells, desk, ports))
}

fn spawn_shard(
    shard: ShardId,
    start: ShardStart,
    sender: Sender<Event>,
) -> Result<JoinHandle<()>, NodeError> {
    std::thread::Builder::new()
        .name(format!("forebay-shard-{shard}"))
        .spawn(move || {
            let result = run_shard(shard, start, &sender);
            // The main thread may be gone already; then nobody wants to know.
            let _ = sender.send(Event::Ended(result));
        })
        .map_err(|error| NodeError::Machine(format!("cannot start a thread: {error}")))
}

fn stomp_settings(config: &Config) -> stomp::Settings {
    let [send_ms, receive_ms] = config.stomp.heart_beat_ms;
    stomp::Settings {
        limits: stomp::EngineLimits {
            message_size_max: config.limits.message_size_max,
            header_bytes_max: limits::FRAME_HEADERS_SIZE_MAX_BYTES as usize,
            header_count_max: limits::FRAME_HEADERS_COUNT_MAX as usize,
            heart_beat: stomp::HeartBeatOffer {
                send_ms,
                receive_ms,
            },
            ..stomp::EngineLimits::default()
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
        transactions_max: limits::CONNECTION_TRANSACTIONS_MAX as usize,
        server: concat!("forebay/", env!("CARGO_PKG_VERSION")).to_owned(),
        // Without users loopback is the guard, which a browser on the machine is behind.
        pages: if config.users.is_empty() && !config.listen.allow_anonymous_remote {
            stomp::Pages::OfThisMachine
        } else {
            stomp::Pages::All
        },
        policies: config.policies(),
    }
}
