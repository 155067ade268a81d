//! A shard bound to nothing: writes are done at once, segments are numbers, what it sends is
//! looked at and given back. For counting and timing the shard alone.

use std::collections::BTreeMap;

use forebay::frontend::{Users, stomp};
use forebay::now::Now;
use forebay::protocol::stomp::Limits as StompLimits;
use forebay::queue::{Limits as QueueLimits, Machine, Policies};
use forebay::shard::{
    Action, ColdRead, ConnectionId, DiskFull, HostLimits, Quotas, RelocationLimits, Shard,
    ShardConfig,
};
use forebay_journal::format::SegmentHead;
use forebay_journal::storage::{WriteDone, WriteTicket};
use forebay_journal::{Epoch, JournalId, Retained, Seal, SegmentId, ShardId, Writer};

/// Size of its segments: the warm-up fills several.
const SEGMENT_SIZE: u64 = 32 << 20;

/// The shard and the loop around it.
pub(crate) struct Loopback {
    shard: Shard,
    now: Now,
    done: Vec<WriteTicket>,
    prepared: Vec<SegmentId>,
    sent: Vec<(ConnectionId, Vec<u8>)>,
    /// Bytes of blocks written.
    pub(crate) written_bytes: u64,
    /// Bytes read back.
    #[allow(dead_code, reason = "not everybody reads")]
    pub(crate) read_bytes: u64,
    /// What was written, if it is to be read back.
    disk: Option<BTreeMap<SegmentId, Vec<u8>>>,
    reads: Vec<ColdRead>,
}

impl Loopback {
    /// Starts an empty shard with this much memory for blocks.
    pub(crate) fn new(cache_size: usize) -> Self {
        let limits = QueueLimits {
            queues_max: 2000,
            consumers_max: 2000,
            unsettled_max: 1_000_000,
            dispatch_max: 256,
        };
        let epoch = Epoch::ZERO.next();
        let oldest_segment = SegmentId::ZERO.next();
        let retained = Retained {
            oldest_segment,
            ..Retained::default()
        };
        let writer = Writer::new(cache_size, epoch, Seal::NONE, retained);
        let config = ShardConfig {
            journal: JournalId([7; 16]),
            shard: ShardId(0),
            shard_count: 1,
            limits: HostLimits {
                message_size_max: 64 << 20,
                volatile_max_bytes: 256 << 20,
                window_bytes: 256 << 10,
                segments_ready: 2,
                disk_full: DiskFull::Block,
                relocation: RelocationLimits {
                    budget_percent: 25,
                    dead_segments: 8,
                },
            },
            stomp: stomp::Settings {
                limits: StompLimits::default(),
                users: Users::default(),
                is_persistent_by_default: false,
                prefetch_default: 1000,
                subscriptions_max: 1024,
                transactions_max: 16,
                server: "loopback/1".to_owned(),
                pages: stomp::Pages::All,
                policies: Policies::default(),
            },
            node: "loopback".to_owned(),
            transaction_timeout_us: 300_000_000,
            verdicts: Vec::new(),
            damaged: Vec::new(),
            quotas: Quotas::default(),
            oldest_segment,
            held_segments: Vec::new(),
            next_segment: oldest_segment,
        };
        let mut this = Self {
            shard: Shard::new(config, Machine::new(limits, Policies::default()), writer),
            now: Now {
                monotonic_us: 1,
                unix_ms: 1_700_000_000_000,
            },
            done: Vec::new(),
            prepared: Vec::new(),
            sent: Vec::new(),
            written_bytes: 0,
            read_bytes: 0,
            disk: None,
            reads: Vec::new(),
        };
        (0..4).for_each(|_| this.turn(&mut |_, _| {}));
        this
    }

    /// Keeps what is written from now on, so that it can be read back.
    #[allow(dead_code, reason = "not everybody reads")]
    pub(crate) fn keep_blocks(&mut self) {
        self.disk.get_or_insert_default();
    }

    /// Connects a client.
    pub(crate) fn connect(&mut self) -> ConnectionId {
        let id = self.shard.handle_connected(self.now);
        let hello = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0";
        self.receive(id, hello);
        id
    }

    /// Passes bytes in.
    pub(crate) fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.shard.handle_received(id, bytes, self.now);
    }

    /// One turn: completions of the last one go in, what is sent goes to `heard`.
    pub(crate) fn turn(&mut self, heard: &mut impl FnMut(ConnectionId, &[u8])) {
        let now = self.now;
        self.now.monotonic_us += 10;
        for ticket in self.done.drain(..) {
            let result = Ok(());
            self.shard
                .handle_write_done(WriteDone { ticket, result }, now);
        }
        for segment in self.prepared.drain(..) {
            self.shard.handle_segment(head(segment));
        }
        for (id, bytes) in self.sent.drain(..) {
            self.shard.handle_sent(id, bytes, true, now);
        }
        for read in std::mem::take(&mut self.reads) {
            self.read_back(read);
        }
        self.shard.finish_turn(now);
        while let Some(action) = self.shard.poll_action(now) {
            match action {
                Action::Send { connection, bytes } => {
                    heard(connection, &bytes);
                    self.sent.push((connection, bytes));
                }
                Action::Write(write) => {
                    self.written_bytes += write.block.len() as u64;
                    if let Some(disk) = &mut self.disk {
                        let segment = disk.entry(write.segment).or_default();
                        segment.resize(SEGMENT_SIZE as usize, 0);
                        let start = write.offset as usize;
                        segment[start..start + write.block.len()].copy_from_slice(&write.block);
                    }
                    self.done.push(write.ticket);
                }
                Action::Prepare(segment) => self.prepared.push(segment),
                Action::ReadBack(read) => self.reads.push(read),
                Action::Close(id) => panic!("connection {} is closed", id.0),
                _ => {}
            }
        }
        assert!(self.shard.failure().is_none());
    }

    fn read_back(&mut self, read: ColdRead) {
        let disk = self
            .disk
            .as_ref()
            .expect("the cache holds what is delivered");
        let mut buffer = read.buffer;
        let from = &disk[&read.segment][read.offset as usize..];
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        self.read_bytes += len as u64;
        self.shard.handle_read_done(read.chunk, buffer, Ok(len));
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

/// Appends a SEND with a receipt.
pub(crate) fn push_send(to: &str, receipt: u64, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"SEND\ndestination:/queue/");
    out.extend_from_slice(to.as_bytes());
    out.extend_from_slice(b"\npersistent:true\nreceipt:");
    push_number(receipt, out);
    out.extend_from_slice(b"\ncontent-length:");
    push_number(body.len() as u64, out);
    out.extend_from_slice(b"\n\n");
    out.extend_from_slice(body);
    out.push(0);
}

/// Appends a number in decimal.
pub(crate) fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Looks through what was sent to one client: receipts are counted, the token of each MESSAGE that
/// wants an ACK goes to `ack`.
pub(crate) fn hear(mut bytes: &[u8], mut ack: impl FnMut(&[u8])) -> (u64, u64) {
    let (mut receipts, mut messages) = (0, 0);
    while let Some(start) = bytes.iter().position(|byte| *byte != b'\n') {
        bytes = &bytes[start..];
        let end = bytes.windows(2).position(|pair| pair == b"\n\n");
        let (head, rest) = bytes.split_at(end.expect("a head"));
        let mut length = None;
        for line in head.split(|byte| *byte == b'\n') {
            if let Some(value) = line.strip_prefix(b"content-length:") {
                let digits = value.iter();
                length = Some(digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')));
            }
            if let Some(token) = line.strip_prefix(b"ack:") {
                ack(token);
            }
        }
        let body = &rest[2..];
        let length = length.or_else(|| body.iter().position(|byte| *byte == 0));
        bytes = &body[length.expect("a whole frame") + 1..];
        match head[0] {
            b'R' => receipts += 1,
            b'M' => messages += 1,
            b'C' => {}
            _ => panic!("{:?}", String::from_utf8_lossy(head)),
        }
    }
    (receipts, messages)
}
