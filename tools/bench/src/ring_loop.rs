//! The broker's own way to the disk, without the broker: the raw loop (blocks of one size, nothing
//! in them) and the journal's loop (records, blocks, window, the same as a shard does it).
//!
//! Both write through `forebay`'s ring: registered file and buffer, `RWF_DSYNC`. Their ratio is
//! what the journal itself costs.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use forebay::runtime::reactor::{Completion, Ring, RingSize};
use forebay_journal::format::{
    Annotations, BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, IdList, MessageFields, Parts, Record,
    SegmentHead, encoded_size,
};
use forebay_journal::storage::buffer::Arena;
use forebay_journal::storage::{BlockWrite, WriteTicket};
use forebay_journal::{Budget, Epoch, JournalId, Lsn, Retained, Seal, SegmentId, ShardId, Writer};

use crate::device::{DiskLoop, DiskRun, Workload};
use crate::measure::latency_histogram;

/// Memory for blocks: some windows' worth, as the broker has.
const ARENA_SIZE: usize = 16 << 20;
/// Body of each message the journal's loop appends.
const BODY_SIZE: usize = 1024;

fn ring() -> io::Result<Ring> {
    let size = RingSize {
        submissions: 64,
        completions: 128,
        receive_buffers: 0,
        receive_buffer_size: 0,
    };
    Ring::new(size).map_err(io::Error::other)
}

/// Waits for completions and hands each finished write to `done`.
fn reap(
    ring: &mut Ring,
    completions: &mut Vec<Completion>,
    mut done: impl FnMut(forebay_journal::storage::WriteDone) -> io::Result<()>,
) -> io::Result<()> {
    ring.submit_and_wait(None)?;
    ring.reap(completions);
    for completion in completions.drain(..) {
        if let Completion::Written(write) = completion {
            done(write)?;
        }
    }
    Ok(())
}

/// Blocks of one size, one behind the other.
#[derive(Debug)]
pub(crate) struct RingLoop;

impl DiskLoop for RingLoop {
    fn engine(&self) -> &'static str {
        "the broker's ring: WRITE_FIXED, RWF_DSYNC, registered file and buffer"
    }

    fn run(
        &mut self,
        file: &File,
        file_size: u64,
        workload: Workload,
        length: Duration,
    ) -> io::Result<DiskRun> {
        let mut ring = ring()?;
        let mut arena = Arena::new(ARENA_SIZE);
        ring.register_arena(arena.memory());
        let segment = SegmentId::ZERO.next();
        ring.add_segment(segment, OwnedFd::from(file.try_clone()?))?;
        let (mut latency, mut completions) = (latency_histogram(), Vec::new());
        let (mut ticket, mut submitted) = (0, VecDeque::new());
        let start = Instant::now();
        while start.elapsed() < length || !submitted.is_empty() {
            while submitted.len() < workload.depth && start.elapsed() < length {
                let mut open = arena
                    .open()
                    .ok_or_else(|| io::Error::other("arena is full"))?;
                // Not zeros: a disk may treat them specially.
                open.bytes()[..workload.block_size].fill(0xa5);
                let block = arena.seal(open, workload.block_size);
                let offset = ticket * workload.block_size as u64 % file_size;
                submitted.push_back((WriteTicket(ticket), Instant::now()));
                ring.write(BlockWrite {
                    ticket: WriteTicket(ticket),
                    segment,
                    offset,
                    block,
                });
                ticket += 1;
            }
            reap(&mut ring, &mut completions, |done| {
                done.result
                    .map_err(|failure| io::Error::from_raw_os_error(failure.0))?;
                let index = submitted
                    .iter()
                    .position(|(ticket, _)| *ticket == done.ticket);
                if let Some((_, at)) = index.and_then(|index| submitted.remove(index)) {
                    latency.saturating_record(at.elapsed().as_nanos() as u64);
                }
                Ok(())
            })?;
        }
        Ok(DiskRun {
            latency,
            elapsed: start.elapsed(),
        })
    }
}

/// Message records of 1 KiB packed into blocks of the workload's size, by the journal's writer.
#[derive(Debug)]
pub(crate) struct JournalLoop;

impl DiskLoop for JournalLoop {
    fn engine(&self) -> &'static str {
        "the journal: records of 1 KiB appended, sealed, chained, durable in order"
    }

    fn run(
        &mut self,
        file: &File,
        file_size: u64,
        workload: Workload,
        length: Duration,
    ) -> io::Result<DiskRun> {
        let mut run = JournalRun::new(file, file_size, workload)?;
        let start = Instant::now();
        while start.elapsed() < length || !run.begun.is_empty() {
            if start.elapsed() < length {
                run.fill()?;
            }
            run.turn(start)?;
        }
        Ok(DiskRun {
            latency: run.latency,
            elapsed: start.elapsed(),
        })
    }
}

struct JournalRun<'f> {
    file: &'f File,
    file_size: u64,
    depth: usize,
    records_per_block: usize,
    ring: Ring,
    writer: Writer,
    next_segment: SegmentId,
    /// Last LSN of each block under way, and when its first record was appended.
    begun: VecDeque<(Lsn, Instant)>,
    body: Vec<u8>,
    latency: hdrhistogram::Histogram<u64>,
    completions: Vec<Completion>,
}

impl<'f> JournalRun<'f> {
    fn new(file: &'f File, file_size: u64, workload: Workload) -> io::Result<Self> {
        let body = vec![0xa5; BODY_SIZE];
        let record_size = encoded_size(&message(&body));
        let room = workload.block_size.min(BLOCK_SIZE_MAX) - BLOCK_HEADER_SIZE;
        let epoch = Epoch::ZERO.next();
        let writer = Writer::new(ARENA_SIZE, epoch, Seal::default(), Retained::default());
        let mut ring = ring()?;
        ring.register_arena(writer.memory());
        Ok(Self {
            file,
            file_size,
            depth: workload.depth,
            records_per_block: (room / record_size).max(1),
            ring,
            writer,
            next_segment: SegmentId::ZERO.next(),
            begun: VecDeque::new(),
            body,
            latency: latency_histogram(),
            completions: Vec::new(),
        })
    }

    /// Appends and submits blocks until as many are under way as the workload says.
    fn fill(&mut self) -> io::Result<()> {
        while self.begun.len() < self.depth {
            while self.writer.segments_ready() < 2 {
                self.add_segment()?;
            }
            let at = Instant::now();
            let mut last = Lsn::ZERO;
            for _ in 0..self.records_per_block {
                let appended = self.writer.append(&message(&self.body), Budget::Message);
                last = appended
                    .map_err(|e| io::Error::other(format!("{e:?}")))?
                    .lsn;
            }
            self.begun.push_back((last, at));
            self.submit();
        }
        Ok(())
    }

    fn submit(&mut self) {
        while let Some(write) = self.writer.poll_write(0) {
            self.ring.write(write);
        }
    }

    /// The same file serves as one segment after the other: only the disk is measured.
    fn add_segment(&mut self) -> io::Result<()> {
        let segment = self.next_segment;
        self.next_segment = segment.next();
        if let Some((current, _)) = self.writer.segment_used() {
            self.ring.drop_segments_before(current.segment)?;
        }
        self.ring
            .add_segment(segment, OwnedFd::from(self.file.try_clone()?))?;
        self.writer.add_segment(SegmentHead {
            journal: JournalId([1; 16]),
            shard: ShardId(0),
            segment,
            generation: 0,
            epoch: Epoch::ZERO.next(),
            first_segment: SegmentId::ZERO.next(),
            size: self.file_size,
            inflight_blocks_max: 2,
        });
        Ok(())
    }

    fn turn(&mut self, start: Instant) -> io::Result<()> {
        let Self {
            ring,
            writer,
            completions,
            ..
        } = self;
        reap(ring, completions, |done| {
            let now_us = start.elapsed().as_micros() as u64;
            writer
                .handle_write_done(done, now_us)
                .map_err(|failure| io::Error::from_raw_os_error(failure.0))
        })?;
        while let Some(&(last, at)) = self.begun.front()
            && last < self.writer.durable_end()
        {
            self.begun.pop_front();
            self.latency
                .saturating_record(at.elapsed().as_nanos() as u64);
        }
        self.submit();
        Ok(())
    }
}

fn message(body: &[u8]) -> Record<'_> {
    Record::Message {
        fields: MessageFields {
            body_size: body.len() as u64,
            ..MessageFields::default()
        },
        annotations: Annotations::default(),
        queues: IdList(&[]),
        head: Parts::EMPTY,
        body: Parts::One(body),
    }
}
