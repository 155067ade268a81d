//! A shard over segments in memory, and clients of it.

use std::collections::{BTreeMap, VecDeque};

use forebay::frontend::{Users, stomp};
use forebay::now::Now;
use forebay::protocol::stomp::Limits as StompLimits;
use forebay::queue::{Limits as QueueLimits, Machine, Policies};
use forebay::shard::{
    Action, ColdRead, ConnectionId, DiskFull, HostLimits, Quotas, RelocationLimits, Shard,
    ShardConfig, SpaceStats,
};
use forebay_journal::format::SegmentHead;
use forebay_journal::storage::{WriteDone, WriteTicket};
use forebay_journal::{Epoch, JournalId, Retained, Seal, SegmentId, ShardId, Writer};

pub(crate) const SEGMENT_SIZE: u64 = 1 << 20;
const BUDGET_PERCENT: u64 = 25;
/// Turns within which something has to happen.
const PATIENCE: usize = 100_000;

/// The shard, its segments and the loop around them.
pub(crate) struct Disk {
    shard: Shard,
    now: Now,
    segments: BTreeMap<SegmentId, Vec<u8>>,
    done: Vec<WriteTicket>,
    prepared: Vec<SegmentId>,
    reads: Vec<ColdRead>,
    sent: Vec<(ConnectionId, Vec<u8>)>,
    /// Whose socket takes nothing for now.
    stalled: Option<ConnectionId>,
    heard: BTreeMap<ConnectionId, Vec<u8>>,
    peak_bytes: u64,
}

fn config(first: SegmentId) -> ShardConfig {
    ShardConfig {
        journal: JournalId([7; 16]),
        shard: ShardId(0),
        shard_count: 1,
        limits: HostLimits {
            message_size_max: 64 << 20,
            volatile_max_bytes: 64 << 20,
            window_bytes: 256 << 10,
            segments_ready: 2,
            disk_full: DiskFull::Block,
            relocation: RelocationLimits {
                budget_percent: BUDGET_PERCENT as u32,
                dead_segments: 8,
            },
        },
        stomp: stomp::Settings {
            limits: StompLimits::default(),
            users: Users::default(),
            is_persistent_by_default: true,
            prefetch_default: 1000,
            subscriptions_max: 16,
            transactions_max: 16,
            server: "relocation/1".to_owned(),
            pages: stomp::Pages::All,
            policies: Policies::default(),
        },
        node: "relocation".to_owned(),
        transaction_timeout_us: 300_000_000,
        verdicts: Vec::new(),
        quotas: Quotas::default(),
        damaged: Vec::new(),
        oldest_segment: first,
        held_segments: Vec::new(),
        next_segment: first,
    }
}

impl Disk {
    pub(crate) fn new() -> Self {
        let limits = QueueLimits {
            queues_max: 10,
            consumers_max: 10,
            unsettled_max: 1_000_000,
            dispatch_max: 256,
        };
        let first = SegmentId::ZERO.next();
        let retained = Retained {
            oldest_segment: first,
            ..Retained::default()
        };
        let writer = Writer::new(4 << 20, Epoch::ZERO.next(), Seal::NONE, retained);
        let machine = Machine::new(limits, Policies::default());
        let mut disk = Self {
            shard: Shard::new(config(first), machine, writer),
            now: Now {
                monotonic_us: 1,
                unix_ms: 1_700_000_000_000,
            },
            segments: BTreeMap::new(),
            done: Vec::new(),
            prepared: Vec::new(),
            reads: Vec::new(),
            sent: Vec::new(),
            stalled: None,
            heard: BTreeMap::new(),
            peak_bytes: 0,
        };
        (0..4).for_each(|_| disk.turn());
        disk
    }

    /// One turn: what was asked for in the last one is done.
    pub(crate) fn turn(&mut self) {
        let now = self.now;
        self.now.monotonic_us += 100;
        for ticket in self.done.drain(..) {
            let result = Ok(());
            self.shard
                .handle_write_done(WriteDone { ticket, result }, now);
        }
        for segment in self.prepared.drain(..) {
            self.segments
                .insert(segment, vec![0; SEGMENT_SIZE as usize]);
            self.shard.handle_segment(head(segment));
        }
        for mut read in std::mem::take(&mut self.reads) {
            let file = self.segments.get(&read.segment);
            let bytes = file.map_or(&[][..], |file| &file[read.offset as usize..]);
            let len = bytes.len().min(read.buffer.len());
            read.buffer[..len].copy_from_slice(&bytes[..len]);
            self.shard
                .handle_read_done(read.chunk, read.buffer, Ok(len));
        }
        for (id, bytes) in std::mem::take(&mut self.sent) {
            if self.stalled == Some(id) {
                self.sent.push((id, bytes));
            } else {
                self.shard.handle_sent(id, bytes, true, now);
            }
        }
        self.shard.finish_turn(now);
        while let Some(action) = self.shard.poll_action(now) {
            self.act(action);
        }
        assert!(self.shard.failure().is_none(), "{:?}", self.shard.failure());
        self.peak_bytes = self.peak_bytes.max(self.disk_bytes());
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { connection, bytes } => {
                let heard = self.heard.entry(connection).or_default();
                heard.extend_from_slice(&bytes);
                self.sent.push((connection, bytes));
            }
            Action::Write(write) => {
                let file = self.segments.get_mut(&write.segment).unwrap();
                let at = write.offset as usize;
                file[at..at + write.block.len()].copy_from_slice(&write.block);
                self.done.push(write.ticket);
            }
            Action::Prepare(segment) => self.prepared.push(segment),
            // What is freed is gone: who still reads it finds nothing.
            Action::Free(gone) => gone.as_slice().iter().for_each(|segment| {
                self.segments.remove(segment);
            }),
            Action::ReadBack(read) => self.reads.push(read),
            _ => {}
        }
    }

    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.shard.handle_received(id, bytes, self.now);
    }

    /// The socket of a client takes nothing more until it is stalled no more.
    pub(crate) fn stall(&mut self, client: Option<&Client>) {
        self.stalled = client.map(|client| client.id);
    }

    /// Segments that are still there, from this one on.
    pub(crate) fn oldest(&self) -> u64 {
        self.segments.keys().next().map_or(0, |one| one.get())
    }

    /// Whether all that a client sent was answered.
    pub(crate) fn admits(&self, client: &Client) -> bool {
        client.sent < client.receipts + 32
    }

    /// Turns until there is nothing to do.
    pub(crate) fn settle(&mut self) {
        (0..200).for_each(|_| self.turn());
    }

    pub(crate) fn space(&self) -> SpaceStats {
        self.shard.stats().space
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.segments.len() as u64 * SEGMENT_SIZE
    }

    pub(crate) fn check_space(&self, segments_max: u64) {
        let space = self.space();
        let bound = super::LIVE_MAX_PERCENT * space.live_bytes / 100 + segments_max * SEGMENT_SIZE;
        let disk = self.disk_bytes();
        assert!(disk <= bound, "{disk} bytes of {bound}: {space:?}");
        let allowed = space.ingested_bytes * BUDGET_PERCENT / 100 + SEGMENT_SIZE / 4;
        assert!(space.rewritten_bytes <= allowed, "{space:?}");
    }

    pub(crate) fn report(&self, n: u64, is_worth_it: bool) {
        let space = self.space();
        let is_done = space.rewritten_bytes > 0;
        assert_eq!(is_done, is_worth_it, "whether anything was written anew");
        println!(
            "one of {n}: disk at most {} KiB; written anew {} of {} KiB that came in",
            self.peak_bytes >> 10,
            space.rewritten_bytes >> 10,
            space.ingested_bytes >> 10,
        );
    }
}

fn head(segment: SegmentId) -> SegmentHead {
    SegmentHead {
        journal: JournalId([7; 16]),
        shard: ShardId(0),
        segment,
        generation: 0,
        epoch: Epoch::ZERO.next(),
        first_segment: SegmentId::ZERO.next(),
        size: SEGMENT_SIZE,
        inflight_blocks_max: 2,
    }
}

/// A MESSAGE.
pub(crate) struct Message {
    pub(crate) token: String,
    pub(crate) body: Vec<u8>,
}

/// A connection.
pub(crate) struct Client {
    id: ConnectionId,
    sent: u64,
    receipts: u64,
    messages: VecDeque<Message>,
}

impl Client {
    pub(crate) fn connect(disk: &mut Disk) -> Self {
        let id = disk.shard.handle_connected(disk.now);
        disk.receive(id, b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
        disk.turn();
        Self {
            id,
            sent: 0,
            receipts: 0,
            messages: VecDeque::new(),
        }
    }

    pub(crate) fn subscribe(disk: &mut Disk, queue: &str) -> Self {
        let client = Self::connect(disk);
        let frame = format!(
            "SUBSCRIBE\nid:0\ndestination:/queue/{queue}\nack:client-individual\n\
             prefetch-count:1000000\n\n\0"
        );
        disk.receive(client.id, frame.as_bytes());
        disk.turn();
        client
    }

    pub(crate) fn send(&mut self, disk: &mut Disk, queue: &str, body: &[u8]) {
        self.sent += 1;
        let (receipt, len) = (self.sent, body.len());
        let head = format!(
            "SEND\ndestination:/queue/{queue}\npersistent:true\nreceipt:{receipt}\n\
             content-length:{len}\n\n"
        );
        let mut frame = head.into_bytes();
        frame.extend_from_slice(body);
        frame.push(0);
        disk.receive(self.id, &frame);
    }

    pub(crate) fn ack(&mut self, disk: &mut Disk, token: &str) {
        disk.receive(self.id, format!("ACK\nid:{token}\n\n\0").as_bytes());
    }

    pub(crate) fn leave(self, disk: &mut Disk) {
        disk.shard.handle_closed(self.id, disk.now);
        disk.settle();
    }

    /// What came: messages, and receipts, which are counted.
    pub(crate) fn take(&mut self, disk: &mut Disk) -> Vec<Message> {
        self.look(disk);
        self.messages.drain(..).collect()
    }

    pub(crate) fn next(&mut self, disk: &mut Disk) -> Message {
        for _ in 0..PATIENCE {
            self.look(disk);
            if let Some(message) = self.messages.pop_front() {
                return message;
            }
            disk.turn();
        }
        panic!("nothing comes");
    }

    fn look(&mut self, disk: &mut Disk) {
        let Some(heard) = disk.heard.get_mut(&self.id) else {
            return;
        };
        let mut at = 0;
        while let Some((used, frame)) = frame(&heard[at..]) {
            at += used;
            match frame {
                Frame::Message(message) => self.messages.push_back(message),
                Frame::Receipt => self.receipts += 1,
                Frame::Other => {}
            }
        }
        heard.drain(..at);
    }
}

enum Frame {
    Message(Message),
    Receipt,
    Other,
}

/// The first frame, if it is whole, and the bytes it takes.
fn frame(bytes: &[u8]) -> Option<(usize, Frame)> {
    let start = bytes.iter().position(|byte| *byte != b'\n')?;
    let rest = &bytes[start..];
    let end = rest.windows(2).position(|pair| pair == b"\n\n")?;
    let head = std::str::from_utf8(&rest[..end]).unwrap();
    let value = |name: &str| {
        let mut lines = head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let body = &rest[end + 2..];
    let length = match value("content-length") {
        Some(length) => length.parse().unwrap(),
        None => body.iter().position(|byte| *byte == 0)?,
    };
    if body.len() <= length {
        return None;
    }
    assert_eq!(body[length], 0, "a frame ends");
    let frame = match head.lines().next().unwrap() {
        "MESSAGE" => Frame::Message(Message {
            token: value("ack").unwrap().to_owned(),
            body: body[..length].to_vec(),
        }),
        "RECEIPT" => Frame::Receipt,
        "CONNECTED" => Frame::Other,
        other => panic!("{other}: {}", String::from_utf8_lossy(body)),
    };
    Some((start + end + 2 + length + 1, frame))
}
