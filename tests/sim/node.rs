//! The node of a run: its shards, their files and mailboxes, and how it starts and ends. Does what
//! `src/runtime/driver.rs` and `src/node/lifecycle.rs` do, on memory.

use std::collections::{BTreeMap, VecDeque};

use forebay::frontend::{Users, stomp};
use forebay::protocol::stomp::Limits as StompLimits;
use forebay::queue::Limits as QueueLimits;
use forebay::shard::{
    Action, Failure, HostLimits, Parcel, ParcelLane, Quotas, Shard, ShardConfig, Verdict, verdicts,
};
use forebay_journal::format::{INFLIGHT_BLOCKS_MAX, SegmentHead};
use forebay_journal::recovery::{Recovered, SpareFile};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::storage::memory::{BlockProgress, BlockWrites, FileId, Ticket};
use forebay_journal::storage::{BlockWrite, IDENTIFIERS, IoFailure, WriteDone, WriteTicket};
use forebay_journal::{Epoch, Retained, SegmentId, ShardId, Writer};

use crate::keeper::{Keeper, Told};
use crate::kinds;
use crate::options::{Mutant, Options};
use crate::store::{JOURNAL, Scanned};
use crate::witness::Witness;
use crate::world::{Event, Phase, World};

/// Parcels of one lane that a mailbox holds.
const MAILBOX_MAX: usize = forebay::limits::MAILBOX_PARCELS_MAX as usize;
/// How long an orderly end may take.
const STOP_MAX_US: u64 = 5_000_000;

/// One shard and what the runtime keeps for it.
pub(crate) struct Bound {
    pub(crate) shard: Shard,
    pub(crate) witness: Witness,
    writes: BlockWrites,
    keeper: Keeper,
    is_keeping: bool,
    files: BTreeMap<SegmentId, FileId>,
    /// When its next turn is due.
    turn_us: Option<u64>,
}

/// The running node.
pub(crate) struct Node {
    pub(crate) shards: Vec<Bound>,
    /// By receiver, sender, lane.
    mail: BTreeMap<(usize, usize, usize), VecDeque<Parcel>>,
    pub(crate) is_stopping: bool,
    stop_us: u64,
}

fn host_limits(options: &Options) -> HostLimits {
    HostLimits {
        volatile_max_bytes: options.volatile_max_bytes,
        window_bytes: options.window_bytes,
        message_size_max: options.volatile_max_bytes / 4,
        segments_ready: options.segments_ready,
        disk_full: options.disk_full,
        relocation: options.relocation,
    }
}

pub(crate) fn queue_limits() -> QueueLimits {
    QueueLimits {
        queues_max: 1000,
        consumers_max: 1000,
        unsettled_max: 1_000_000,
        dispatch_max: 256,
    }
}

impl World {
    /// Recovers and starts the node.
    pub(crate) fn start(&mut self) {
        assert!(self.node.is_none(), "one node at a time");
        self.store.remove_unfinished();
        if self.is_refused_by_disk() {
            return;
        }
        let limits = queue_limits();
        let scan = |shard| {
            let scanned = self.store.scan(ShardId(shard), limits, self.mutant);
            scanned.unwrap_or_else(|error| panic!("shard {shard} does not open: {error}"))
        };
        let scans: Vec<_> = (0..self.options.shards).map(scan).collect();
        let is_found = |uid| scans.iter().any(|scanned| scanned.witness.has_message(uid));
        self.ledger.check_start(is_found);
        self.kinds.check_start(is_found);
        let epoch = self.store.claim_epoch();
        for (index, scanned) in scans.iter().enumerate() {
            let recovered = &scanned.recovered;
            self.note("recovered", index as u64, recovered.next_lsn.get());
            assert!(
                recovered.is_clean_shutdown || !self.expects_clean,
                "an orderly end was not seen"
            );
            self.report.bodies += recovered.bodies.len() as u64;
            self.report.segments = self
                .report
                .segments
                .max(recovered.segment_max.get() * u64::from(self.options.shards));
        }
        let mut verdicts = verdicts(scans.iter().map(|scanned| Some(&scanned.machine)));
        self.report.verdicts += verdicts.iter().map(Vec::len).sum::<usize>() as u64;
        self.twist(&mut verdicts);
        let shards = scans.into_iter().zip(verdicts).enumerate();
        let shards =
            shards.map(|(index, (scanned, verdicts))| self.bind(index, scanned, verdicts, epoch));
        let shards = shards.collect();
        self.node = Some(Node {
            shards,
            mail: BTreeMap::new(),
            is_stopping: false,
            stop_us: 0,
        });
        for shard in 0..usize::from(self.options.shards) {
            self.wake(shard, 0);
        }
        self.busy_us = self.now_us;
    }

    /// Planted: recovery does not ask the coordinator.
    fn twist(&self, verdicts: &mut [Vec<Verdict>]) {
        for verdict in verdicts.iter_mut().flatten() {
            match self.mutant {
                Mutant::ForgottenDecision => verdict.is_committed = false,
                Mutant::InventedDecision => verdict.is_committed = true,
                _ => {}
            }
        }
    }

    fn bind(
        &mut self,
        index: usize,
        scanned: Scanned,
        verdicts: Vec<Verdict>,
        epoch: Epoch,
    ) -> Bound {
        let Scanned {
            recovered,
            machine,
            witness,
            files,
        } = scanned;
        let (options, id) = (&self.options, ShardId(index as u16));
        let named = |file: u32| files[file as usize].file;
        let segments = &recovered.segments;
        let bodies = recovered.bodies.iter().map(|body| {
            let generation = body.generation.expect("bodies are in sound files");
            (body.segment, (named(body.file), generation))
        });
        let held = segments
            .iter()
            .map(|segment| (segment.segment, (named(segment.file), segment.generation)));
        let held: BTreeMap<_, _> = bodies.chain(held).collect();
        let (fitting, others): (Vec<&SpareFile>, Vec<_>) = recovered
            .spares
            .iter()
            .partition(|spare| spare.size == options.segment_size && spare.generation.is_some());
        for spare in others {
            let removed = self.store.disk.remove(named(spare.file));
            removed.expect("recovery saw it");
        }
        let spare = fitting
            .iter()
            .map(|spare| (named(spare.file), spare.generation.unwrap_or(0)));
        let head = self.first_head(id, epoch, recovered.segment_max.next());
        let (is_hasty, spare_max) = (
            self.mutant == Mutant::EarlyReuse,
            options.segments_ready + 1,
        );
        let keeper = Keeper::new(head, held.clone(), spare.collect(), spare_max, is_hasty);
        let oldest_segment = recovered.oldest_segment.max(SegmentId::ZERO.next());
        let retained = Retained {
            oldest_segment,
            message_floor: machine.message_floor(),
            queue_floor: machine.queue_floor(),
        };
        let mut writer = Writer::new(options.cache_size, epoch, recovered.seal, retained);
        let files = held.iter().map(|(segment, (file, _))| (*segment, *file));
        let mut files: BTreeMap<_, _> = files.collect();
        if options.is_strict {
            writer.name_blocks(JOURNAL, id);
            files.insert(IDENTIFIERS, self.store.make_identifiers(epoch, id));
        }
        let mut config = self.shard_config(id, verdicts, oldest_segment, &recovered);
        config.held_segments = held.into_keys().collect();
        Bound {
            shard: Shard::new(config, machine, writer),
            witness,
            writes: BlockWrites::default(),
            keeper,
            is_keeping: false,
            files,
            turn_us: None,
        }
    }

    fn shard_config(
        &self,
        id: ShardId,
        verdicts: Vec<Verdict>,
        oldest_segment: SegmentId,
        recovered: &Recovered,
    ) -> ShardConfig {
        let options = &self.options;
        ShardConfig {
            journal: JOURNAL,
            shard: id,
            shard_count: options.shards,
            limits: host_limits(options),
            stomp: stomp_settings(),
            node: "sim".to_owned(),
            transaction_timeout_us: 300_000_000,
            verdicts,
            damaged: Vec::new(),
            quotas: Quotas::default(),
            oldest_segment,
            held_segments: Vec::new(),
            next_segment: recovered.segment_max.next(),
        }
    }

    /// The pattern for the heads of a life's segments.
    fn first_head(&self, shard: ShardId, epoch: Epoch, first_segment: SegmentId) -> SegmentHead {
        SegmentHead {
            journal: JOURNAL,
            shard,
            segment: SegmentId::ZERO,
            generation: 0,
            epoch,
            first_segment,
            size: self.options.segment_size,
            inflight_blocks_max: INFLIGHT_BLOCKS_MAX as u32,
        }
    }

    /// Whether clients can connect.
    pub(crate) fn is_serving(&self) -> bool {
        self.node.as_ref().is_some_and(|node| {
            let is_ready = |bound: &Bound| !bound.shard.is_waiting_for_segment();
            !node.is_stopping && node.shards.iter().all(is_ready)
        })
    }

    pub(crate) fn bound(&mut self, shard: usize) -> &mut Bound {
        let node = self.node.as_mut().expect("events of a life end with it");
        &mut node.shards[shard]
    }

    /// Lets the shard take a turn `delay_us` from now, or earlier if it has one by then.
    pub(crate) fn wake(&mut self, shard: usize, delay_us: u64) {
        let due_us = self.now_us + delay_us;
        let bound = self.bound(shard);
        if bound.turn_us.is_none_or(|turn_us| due_us < turn_us) {
            bound.turn_us = Some(due_us);
            self.after(delay_us, Event::Turn(shard));
        }
    }

    /// Something came in for the shard.
    pub(crate) fn nudge(&mut self, shard: usize) {
        let delay_us = self.random.below(30);
        self.wake(shard, delay_us);
    }

    /// One turn.
    pub(crate) fn turn(&mut self, index: usize) {
        let now = self.now();
        let now_us = self.now_us;
        let bound = self.bound(index);
        if bound.turn_us != Some(now_us) || bound.shard.is_stopped() {
            return;
        }
        bound.turn_us = None;
        self.take_mail(index);
        self.bound(index).shard.finish_turn(now);
        self.act(index);
        if self.check_failure(index) {
            return;
        }
        let bound = self.bound(index);
        bound.shard.check_invariants();
        self.check_bounds(index);
        let bound = self.bound(index);
        if bound.shard.is_stopped() {
            return self.finish_stop();
        }
        if let Some(due_us) = bound.shard.poll_timeout(now) {
            self.wake(index, due_us.saturating_sub(now_us).max(1));
        }
        if self.has_mail(index) {
            self.wake(index, 1);
        }
    }

    /// Whether a parcel can be taken at once.
    fn has_mail(&self, to: usize) -> bool {
        let node = self.node.as_ref().expect("it turns");
        let mut waiting = node
            .mail
            .iter()
            .filter(|(key, queue)| key.0 == to && !queue.is_empty());
        waiting.any(|((_, from, lane), _)| {
            let from = ShardId(*from as u16);
            node.shards[to].shard.wants(from, ParcelLane::ALL[*lane])
        })
    }

    /// Memory is bounded, whatever clients do.
    fn check_bounds(&mut self, index: usize) {
        let held = self.bound(index).shard.held();
        // What cannot be consumed yet: a head and a body kept whole, and what one receive brings.
        let input_max = StompLimits::default().header_bytes_max + (4 << 10) + (32 << 10);
        assert!(held.input_max_bytes <= input_max, "{held:?}");
        // Each shard passes on up to its window and one piece or message more.
        let shards = usize::from(self.options.shards);
        let piece = forebay_journal::format::BLOCK_SIZE_MAX;
        let output_max = shards * (self.options.window_bytes as usize + piece + (64 << 10));
        assert!(held.output_max_bytes <= output_max, "{held:?}");
        // Alone, one message may be larger than all: a body kept whole, and its head.
        let most = self.options.volatile_max_bytes;
        let volatile_max = most.max(stomp_settings().limits.body_inline_max as u64) + 1024;
        // What goes to another address waits for no memory there: 64 at once, none of them large.
        let forwarded_max = 64 * 1024 * self.kinds.landings();
        let volatile_max = volatile_max + forwarded_max;
        assert!(held.volatile_bytes <= volatile_max, "{held:?}");
    }

    /// A failed shard ends the node; only a fault of the disk is a reason.
    fn check_failure(&mut self, index: usize) -> bool {
        let Some(failure) = self.bound(index).shard.failure().cloned() else {
            return false;
        };
        assert!(
            self.disk_faults.explains(&failure),
            "shard {index} failed: {failure:?}"
        );
        match failure {
            Failure::Read(_) => self.report.failed_reads += 1,
            _ => self.report.failed_writes += 1,
        }
        self.note("failed", index as u64, 0);
        self.crash();
        true
    }

    fn take_mail(&mut self, to: usize) {
        let is_ringing = self.is_ringing;
        let node = self.node.as_mut().expect("it turns");
        let mut made_room = Vec::new();
        for from in (0..node.shards.len()).filter(|from| *from != to) {
            for lane in ParcelLane::ALL {
                let id = ShardId(from as u16);
                while node.shards[to].shard.wants(id, lane)
                    && let Some(queue) = node.mail.get_mut(&(to, from, lane as usize))
                    && let was_full = queue.len() >= MAILBOX_MAX
                    && let Some(parcel) = queue.pop_front()
                {
                    if was_full || is_ringing {
                        made_room.push(from);
                    }
                    node.shards[to].shard.handle_parcel(id, parcel);
                }
            }
        }
        made_room.into_iter().for_each(|from| self.nudge(from));
    }

    fn act(&mut self, index: usize) {
        let now = self.now();
        while let Some(action) = self.bound(index).shard.poll_action(now) {
            match action {
                Action::Send { connection, bytes } => self.send(connection, bytes),
                Action::StopReading(id) => self.set_wanted(id, false),
                Action::Read(id) => self.set_wanted(id, true),
                Action::Close(id) => self.close(index, id),
                Action::Write(write) => self.write(index, write),
                Action::ReadBack(read) => self.begin_read(index, read),
                Action::Prepare(segment) => {
                    self.bound(index).keeper.ask_prepare(segment);
                    self.begin_keeping(index);
                }
                Action::Free(segments) => {
                    let segments = segments.as_slice().to_vec();
                    let last = segments.last().map_or(0, |segment| segment.get());
                    let bound = self.bound(index);
                    for segment in &segments {
                        bound.files.remove(segment);
                    }
                    bound.keeper.ask_free(segments);
                    self.note("free", index as u64, last);
                    self.begin_keeping(index);
                }
                Action::Tell(_) => panic!("nobody asked"),
                Action::Warn(_) => panic!("nobody is watched"),
            }
        }
        while let Some((to, parcel)) = self.bound(index).shard.poll_parcel() {
            self.pass(index, usize::from(to.0), parcel);
        }
    }

    fn pass(&mut self, from: usize, to: usize, parcel: Parcel) {
        let is_refused = self.random.permille(self.options.parcel_refused_permille);
        let is_lost = self.mutant == Mutant::LostParcel && self.chance(30);
        let lane = parcel.lane();
        let node = self.node.as_mut().expect("it turns");
        let queue = node.mail.entry((to, from, lane as usize)).or_default();
        if is_refused || queue.len() >= MAILBOX_MAX {
            node.shards[from]
                .shard
                .give_back(ShardId(to as u16), parcel);
            return self.wake(from, 1000);
        }
        if !is_lost {
            queue.push_back(parcel);
        }
        self.report.parcels += 1;
        self.note("parcel", from as u64, lane as u64);
        self.nudge(to);
    }

    fn write(&mut self, index: usize, write: BlockWrite) {
        let node = self.node.as_mut().expect("it turns");
        let bound = &mut node.shards[index];
        let has_failed = matches!(bound.shard.failure(), Some(Failure::Write(_)));
        assert!(!has_failed, "a block is written behind a failed write");
        let file = bound.files[&write.segment];
        let (told, size) = (write.ticket, write.block.len() as u64);
        if write.segment != IDENTIFIERS {
            bound.witness.enter(file, write.offset, &write.block);
        }
        let submitted = bound.writes.submit(&mut self.store.disk, file, write);
        let ticket = submitted.expect("blocks lie in their segment");
        self.report.blocks += 1;
        let stall = if self.chance(200) { 100 } else { 1 };
        let delay_us = 10 + self.random.below(self.options.write_us) * stall;
        self.note("write", index as u64, size);
        self.after(delay_us, Event::Written(index, ticket));
        if self.mutant == Mutant::EarlyCompletion {
            self.after(1, Event::ToldEarly(index, told));
        }
    }

    /// A write ends, or a part of it.
    pub(crate) fn written(&mut self, index: usize, ticket: Ticket) {
        let faults = self.faults_of_write();
        self.store.disk.set_faults(faults);
        let node = self.node.as_mut().expect("a write of this life");
        let bound = &mut node.shards[index];
        let progress = bound.writes.complete(&mut self.store.disk, ticket);
        bound.witness.look(&self.store.disk);
        let mut done = match progress {
            BlockProgress::Done(done) => done,
            BlockProgress::Rest(ticket) => {
                self.report.short_writes += 1;
                self.note("short", index as u64, 0);
                let delay_us = 10 + self.random.below(self.options.write_us);
                return self.after(delay_us, Event::Written(index, ticket));
            }
        };
        if self.mutant == Mutant::SwallowedError {
            done.result = Ok(());
        }
        self.note("written", index as u64, done.result.is_ok().into());
        let now = self.now();
        if self.mutant != Mutant::EarlyCompletion {
            self.bound(index).shard.handle_write_done(done, now);
        }
        self.nudge(index);
    }

    pub(crate) fn told_early(&mut self, index: usize, ticket: WriteTicket) {
        let (now, result) = (self.now(), Ok(()));
        let shard = &mut self.bound(index).shard;
        shard.handle_write_done(WriteDone { ticket, result }, now);
        self.nudge(index);
    }

    fn begin_read(&mut self, index: usize, read: forebay::shard::ColdRead) {
        let bound = self.bound(index);
        match bound.files.get(&read.segment).copied() {
            Some(file) => {
                self.report.cold_reads += 1;
                let delay_us = 20 + self.random.below(300);
                let event = Event::Read {
                    shard: index,
                    chunk: read.chunk,
                    file,
                    offset: read.offset,
                    buffer: read.buffer,
                };
                self.after(delay_us, event);
            }
            None => bound.shard.handle_read_done(read.chunk, read.buffer, Ok(0)),
        }
    }

    /// A read of blocks ends.
    pub(crate) fn read_back(
        &mut self,
        index: usize,
        chunk: u32,
        file: FileId,
        offset: u64,
        mut buffer: ReadBuffer,
    ) {
        // A file that was removed meanwhile would still be open: what it holds is not needed.
        let size = self
            .store
            .disk
            .live(file)
            .map_or(0, |live| live.len() as u64);
        let len = (buffer.len() as u64).min(size.saturating_sub(offset)) as usize;
        if len > 0 {
            let read = self.store.disk.peek(file, offset, &mut buffer[..len]);
            read.expect("bad sectors come only at a start");
        }
        let result = match self.fails_read() {
            true => Err(IoFailure::IO),
            false => Ok(len),
        };
        self.note("read back", index as u64, offset);
        let shard = &mut self.bound(index).shard;
        shard.handle_read_done(chunk, buffer, result);
        self.nudge(index);
    }

    fn begin_keeping(&mut self, index: usize) {
        let bound = self.bound(index);
        if !bound.is_keeping {
            bound.is_keeping = true;
            self.after(1, Event::Keep(index));
        }
    }

    /// Housekeeping does a step.
    pub(crate) fn keep(&mut self, index: usize) {
        let node = self.node.as_mut().expect("a step of this life");
        let bound = &mut node.shards[index];
        let told = bound.keeper.step(&mut self.store);
        let delay_us = match told {
            Told::Rest => {
                bound.is_keeping = false;
                return;
            }
            Told::More => 1 + self.random.below(400),
            Told::NoSpace(is_first) => {
                if is_first {
                    bound.shard.handle_disk_full();
                    self.nudge(index);
                }
                100_000
            }
            Told::Ready(head, file) => {
                bound.files.insert(head.segment, file);
                bound.shard.handle_segment(head);
                self.note("segment", index as u64, head.segment.get());
                self.nudge(index);
                1
            }
        };
        self.after(delay_us, Event::Keep(index));
    }

    /// The node ends in one of the ways there are.
    pub(crate) fn end_somehow(&mut self) {
        if self.node.is_none() || self.phase != Phase::Unrest {
            return;
        }
        if self.chance(4) && self.is_serving() {
            self.stop();
        } else {
            self.cut_power();
        }
    }

    pub(crate) fn cut_power(&mut self) {
        self.report.power_cuts += 1;
        let in_flight = self.store.disk.in_flight().len() as u64;
        self.note("power cut", in_flight, 0);
        self.crash();
    }

    /// The process is gone. Of the writes in flight the seed chooses what lands.
    fn crash(&mut self) {
        self.expects_clean = false;
        self.store.disk.crash_by_seed();
        self.end_life();
    }

    fn end_life(&mut self) {
        let shards = self.node.iter().flat_map(|node| &node.shards);
        let rewritten = shards.map(|bound| bound.shard.stats().space.rewritten_bytes);
        self.report.rewritten_bytes += rewritten.sum::<u64>();
        self.node = None;
        self.disk_faults.end_life();
        self.life += 1;
        let wires = std::mem::take(&mut self.wires);
        for wire in wires.values() {
            self.lose_client(wire.client);
        }
        self.ledger.end_life();
        self.kinds.end_life();
        let delay_us = 1 + self.random.below(2000);
        self.after(delay_us, Event::Start);
    }

    /// Tells the node to stop in order.
    pub(crate) fn stop(&mut self) {
        self.note("stop", 0, 0);
        let now = self.now();
        let node = self.node.as_mut().expect("it runs");
        node.is_stopping = true;
        node.stop_us = now.monotonic_us;
        node.shards
            .iter_mut()
            .for_each(|bound| bound.shard.stop(now));
        let count = node.shards.len();
        (0..count).for_each(|shard| self.nudge(shard));
    }

    fn finish_stop(&mut self) {
        let node = self.node.as_ref().expect("it turns");
        let took_us = self.now_us - node.stop_us;
        assert!(took_us < STOP_MAX_US, "the stop took {took_us} us");
        if !node.shards.iter().all(|bound| bound.shard.is_stopped()) {
            return;
        }
        assert_eq!(self.store.disk.in_flight().len(), 0, "stopped with writes");
        self.report.clean_stops += 1;
        // Without room for its last record a stop is no less durable.
        self.expects_clean = !node.shards.iter().any(|bound| bound.shard.is_disk_full());
        self.note("stopped", took_us, 0);
        self.end_life();
    }
}

fn stomp_settings() -> stomp::Settings {
    stomp::Settings {
        limits: StompLimits {
            message_size_max: 1 << 20,
            body_inline_max: 4 << 10,
            ..StompLimits::default()
        },
        users: Users::default(),
        is_persistent_by_default: false,
        prefetch_default: 100,
        subscriptions_max: 16,
        transactions_max: 16,
        server: "sim/1".to_owned(),
        pages: stomp::Pages::All,
        policies: kinds::policies(Mutant::None),
    }
}
