//! A journal in a folder, written by the real writer and plain file calls; and the inspector run
//! on it.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#![allow(clippy::disallowed_methods, reason = "tests make and damage files")]

pub mod history;
pub mod state;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_journal::format::IdList;
use forebay_journal::format::{
    Annotations, MessageFields, MessageFlags, Outcome, Parts, QueueFlags, Record, Routing,
    SECTOR_SIZE, SEGMENT_HEAD_SIZE, SegmentHead, Standing, StandingBytes, Standings, Superblock,
    checksum,
};
use forebay_journal::reader::ReadError;
use forebay_journal::recovery::file_name::{
    SUPERBLOCK_FILE_NAME, epoch_folder_name, parse_epoch_folder_name, parse_segment_file_name,
    segment_file_name,
};
use forebay_journal::recovery::{Recovered, Recovery, RecoveryInput, SegmentFile};
use forebay_journal::storage::WriteDone;
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{
    AppendError, Budget, Epoch, JournalId, Location, Lsn, MessageId, QueueId, Retained, Seal,
    SegmentId, ShardId, Writer,
};
use nix::libc;
use serde_json::Value;
pub use state::State;

pub const JOURNAL: JournalId = JournalId(*b"inspected in tes");
pub const SHARD: ShardId = ShardId(0);
/// Fourteen blocks of one sector and the head.
pub const SEGMENT_SIZE: u64 = 15 * SECTOR_SIZE as u64;
const SECTOR: u64 = SECTOR_SIZE as u64;

/// What the inspector said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// One value a line.
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).expect("JSON lines");
        self.out.lines().map(parse).collect()
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit status {}\n{}\n{}", self.code, self.out, self.err)
    }
}

pub fn inspect(args: &[&str], path: &Path) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-inspect"));
    let output = command
        .args(args)
        .arg(path)
        .output()
        .expect("the inspector starts");
    Said {
        code: output.status.code().expect("ends by itself"),
        out: String::from_utf8(output.stdout).expect("prints UTF-8 alone"),
        err: String::from_utf8(output.stderr).expect("prints UTF-8 alone"),
    }
}

pub struct Journal {
    pub data: PathBuf,
    pub epoch: Epoch,
    writer: Writer,
    files: BTreeMap<SegmentId, File>,
    next_segment: SegmentId,
    first_segment: SegmentId,
    /// Files that nothing needs any more, with their generations.
    spares: Vec<(PathBuf, u64)>,
    retained: Retained,
    next_message: u64,
    now_us: u64,
    pub recycled: u64,
    segment_size: u64,
    /// What the records say, if that is kept.
    pub state: Option<State>,
}

impl Journal {
    /// Makes a data folder with a superblock, and begins epoch 1.
    pub fn create(data: &Path) -> Self {
        Self::create_sized(data, SEGMENT_SIZE)
    }

    /// The same with segments of that many bytes.
    pub fn create_sized(data: &Path, segment_size: u64) -> Self {
        let journal = data.join("journal");
        fs::create_dir_all(&journal).expect("makes folders");
        let superblock = Superblock {
            journal: JOURNAL,
            shard_count: 1,
            created_unix_ms: 1_700_000_000_000,
        };
        fs::write(journal.join(SUPERBLOCK_FILE_NAME), superblock.encode()).expect("writes");
        Self::begin(
            data,
            Epoch::ZERO.next(),
            Seal::NONE,
            SegmentId::ZERO.next(),
            SegmentId::ZERO,
            segment_size,
        )
    }

    /// Goes on in a new epoch behind what recovery finds.
    pub fn reopen(data: &Path) -> Self {
        let recovered = recover(data);
        let oldest = recovered.oldest_segment;
        let epoch = recovered.epoch_max.next();
        let size = recovered
            .segments
            .last()
            .map_or(SEGMENT_SIZE, |last| last.size);
        Self::begin(
            data,
            epoch,
            recovered.seal,
            oldest,
            recovered.segment_max,
            size,
        )
    }

    fn begin(
        data: &Path,
        epoch: Epoch,
        seal: Seal,
        oldest_segment: SegmentId,
        segment_max: SegmentId,
        segment_size: u64,
    ) -> Self {
        fs::create_dir(data.join("journal").join(epoch_folder_name(epoch))).expect("new epoch");
        let retained = Retained {
            oldest_segment,
            message_floor: MessageId(1),
            queue_floor: QueueId(1),
        };
        let mut journal = Self {
            data: data.to_owned(),
            epoch,
            writer: Writer::new(4 << 20, epoch, seal, retained),
            files: BTreeMap::new(),
            next_segment: segment_max.next(),
            first_segment: segment_max.next(),
            spares: Vec::new(),
            retained,
            next_message: seal.lsn.get() + 1,
            now_us: 0,
            recycled: 0,
            segment_size,
            state: None,
        };
        journal.prepare();
        journal
    }

    /// Keeps segments ready ahead, from spare files first.
    fn prepare(&mut self) {
        while self.writer.segments_ready() < 3 {
            let path = path_of(&self.data, self.epoch, self.next_segment);
            let mut head = SegmentHead {
                journal: JOURNAL,
                shard: SHARD,
                segment: self.next_segment,
                generation: 0,
                epoch: self.epoch,
                first_segment: self.first_segment,
                size: self.segment_size,
                inflight_blocks_max: 2,
            };
            let aside = path.with_extension("new");
            if let Some((spare, generation)) = self.spares.pop() {
                head.generation = generation + 1;
                self.recycled += 1;
                fs::rename(spare, &aside).expect("renames");
            }
            let file = open_direct(&aside);
            if head.generation == 0 {
                let zeros = ReadBuffer::new(self.segment_size as usize);
                file.write_all_at(&zeros, 0).expect("fills");
            }
            let mut sector = ReadBuffer::new(SECTOR_SIZE);
            sector.copy_from_slice(&head.encode());
            file.write_all_at(&sector, 0).expect("heads");
            fs::rename(&aside, &path).expect("renames");
            self.files.insert(self.next_segment, file);
            self.writer.add_segment(head);
            self.next_segment = self.next_segment.next();
        }
    }

    /// Appends a record, writing out what stands in its way.
    pub fn append(&mut self, record: &Record<'_>) -> (Lsn, Location) {
        loop {
            match self.writer.append(record, Budget::Message) {
                Ok(appended) => {
                    if let Some(state) = &mut self.state {
                        state.take(record, appended.location);
                    }
                    return (appended.lsn, appended.location);
                }
                Err(AppendError::Failed(failure)) => panic!("{failure}"),
                Err(_) => self.commit(),
            }
        }
    }

    /// Writes all that was appended, two blocks at a time, the later one first.
    pub fn commit(&mut self) {
        loop {
            let writes: Vec<_> =
                std::iter::from_fn(|| self.writer.poll_write(1_700_000_000_000)).collect();
            if writes.is_empty() {
                break;
            }
            for write in writes.iter().rev() {
                let file = &self.files[&write.segment];
                file.write_all_at(&write.block, write.offset)
                    .expect("writes");
                let done = WriteDone {
                    ticket: write.ticket,
                    result: Ok(()),
                };
                self.writer
                    .handle_write_done(done, self.now_us)
                    .expect("no failure");
            }
        }
        self.prepare();
    }

    /// Time passes: an idle seal follows.
    pub fn idle(&mut self) {
        self.commit();
        self.now_us += 10_000;
        self.writer.handle_timeout(self.now_us);
        self.commit();
    }

    /// Stops in order.
    pub fn stop(&mut self) {
        let unix_ms = 1_700_000_001_000;
        self.append(&Record::CleanShutdown { unix_ms });
        self.commit();
        self.writer.seal_idle();
        self.commit();
    }

    pub fn define(&mut self, queue: u64, name: &str) {
        self.append(&Record::QueueDefine {
            queue: QueueId(queue),
            routing: Routing::Anycast,
            flags: QueueFlags {
                is_auto_created: true,
                ..QueueFlags::default()
            },
            address: name.as_bytes(),
            name: name.as_bytes(),
            filter: b"",
        });
    }

    /// Puts a message into queues; returns its name.
    pub fn send(&mut self, queues: &[u64], body: &[u8]) -> u64 {
        let message = self.next_message;
        self.next_message += 1;
        let queues: Vec<_> = queues.iter().map(|queue| (*queue).into()).collect();
        self.append(&Record::Message {
            fields: MessageFields {
                message: MessageId(message),
                body_size: body.len() as u64,
                timestamp_unix_ms: 1_700_000_000_000,
                priority: 4,
                encoding: 1,
                flags: MessageFlags {
                    has_content_length: false,
                    is_durable: true,
                    ..MessageFlags::default()
                },
                ..MessageFields::default()
            },
            annotations: Annotations::default(),
            queues: IdList(&queues),
            head: Parts::One(b"persistent:true\n"),
            body: Parts::One(body),
        });
        message
    }

    /// Writes a message anew, or one that nothing else tells of; returns its name.
    pub fn send_moved(
        &mut self,
        message: Option<u64>,
        queues: &[(u64, Standing)],
        (fields, annotations): (MessageFields, Annotations<'_>),
        body: &[u8],
    ) -> u64 {
        let message = message.unwrap_or(self.next_message);
        self.next_message = self.next_message.max(message + 1);
        let names: Vec<_> = queues.iter().map(|(queue, _)| (*queue).into()).collect();
        let standings = queues.iter().map(|(_, standing)| (*standing).into());
        let standings: Vec<StandingBytes> = standings.collect();
        self.append(&Record::Moved {
            fields: MessageFields {
                message: MessageId(message),
                body_size: body.len() as u64,
                timestamp_unix_ms: 1_700_000_000_000,
                encoding: 1,
                ..fields
            },
            annotations,
            queues: IdList(&names),
            standings: Standings::new(&standings),
            head: Parts::One(b"kind:moved\n"),
            body: Parts::One(body),
        });
        message
    }

    /// Puts a large message into queues: fragments first, the last bytes in its record.
    pub fn send_large(&mut self, queues: &[u64], body: &[u8], fragment_size: usize) -> u64 {
        let upload = self.next_message;
        self.next_message += 1;
        let last = body.len().saturating_sub(1) / fragment_size * fragment_size;
        for (index, part) in body[..last].chunks(fragment_size).enumerate() {
            self.append(&Record::Fragment {
                upload,
                offset: (index * fragment_size) as u64,
                body: Parts::One(part),
            });
        }
        let fields = MessageFields {
            upload,
            body_size: body.len() as u64,
            ..MessageFields::default()
        };
        self.send_as(queues, fields, Annotations::default(), &body[last..])
    }

    /// Puts a message with these fields into queues; its name, and what else is zero, is filled in.
    pub fn send_as(
        &mut self,
        queues: &[u64],
        fields: MessageFields,
        annotations: Annotations<'_>,
        body: &[u8],
    ) -> u64 {
        let message = self.next_message;
        self.next_message += 1;
        let or = |value: u64, usual: u64| if value == 0 { usual } else { value };
        let queues: Vec<_> = queues.iter().map(|queue| (*queue).into()).collect();
        self.append(&Record::Message {
            fields: MessageFields {
                message: MessageId(message),
                body_size: or(fields.body_size, body.len() as u64),
                timestamp_unix_ms: or(fields.timestamp_unix_ms, 1_700_000_000_000),
                encoding: 1,
                flags: MessageFlags {
                    is_durable: true,
                    ..fields.flags
                },
                ..fields
            },
            annotations,
            queues: IdList(&queues),
            head: Parts::One(b"kind:test\n"),
            body: Parts::One(body),
        });
        message
    }

    pub fn deliver(&mut self, queue: u64, first: u64, last: u64) {
        self.append(&Record::Delivery {
            priority: 4,
            queue: QueueId(queue),
            first: MessageId(first),
            last: MessageId(last),
        });
    }

    pub fn settle(&mut self, queue: u64, messages: &[u64]) {
        let messages: Vec<_> = messages.iter().map(|message| (*message).into()).collect();
        self.append(&Record::Settle {
            queue: QueueId(queue),
            transaction: 0,
            outcome: Outcome::Accepted,
            messages: IdList(&messages),
        });
    }

    /// The segment being filled.
    pub fn current(&self) -> SegmentId {
        self.current_or_none().expect("something is written")
    }

    pub fn current_or_none(&self) -> Option<SegmentId> {
        self.writer.segment_used().map(|(head, _)| head.segment)
    }

    /// Says that all segments before the present one are free, and leaves their files.
    pub fn free_without_reuse(&mut self) {
        self.retained.oldest_segment = self.current();
        self.append(&Record::Retained {
            oldest_segment: self.retained.oldest_segment,
            message_floor: self.retained.message_floor,
            queue_floor: self.retained.queue_floor,
        });
        self.writer.set_retained(self.retained);
        self.commit();
    }

    /// Says that all segments before the present one are free, and gives their files away.
    pub fn free(&mut self) {
        self.free_without_reuse();
        let kept = self.files.split_off(&self.retained.oldest_segment);
        for (segment, file) in std::mem::replace(&mut self.files, kept) {
            let mut sector = ReadBuffer::new(SEGMENT_HEAD_SIZE);
            file.read_exact_at(&mut sector, 0).expect("reads");
            let head = SegmentHead::decode(&sector).expect("our own head");
            let path = path_of(&self.data, self.epoch, segment);
            self.spares.push((path, head.generation));
        }
        self.remove_older();
    }

    /// Begins a checkpoint, unless one is under way.
    pub fn begin_checkpoint(&mut self) {
        self.commit();
        let current = self.current_or_none();
        let state = self.state.as_mut().expect("is kept");
        if let (false, Some(current)) = (state.is_saying(), current) {
            state.begin_checkpoint(current);
        }
    }

    /// Says the next messages of the checkpoint under way; where a replay begins when it was all.
    /// That is written, and files are given away.
    pub fn say(&mut self, most: usize) -> Option<SegmentId> {
        let start = self.say_only(most)?;
        self.begin_replay(start);
        Some(start)
    }

    /// The same, and a replay goes on to begin where it did.
    pub fn say_only(&mut self, most: usize) -> Option<SegmentId> {
        let state = self.state.as_mut().expect("is kept");
        if !state.is_saying() {
            return None;
        }
        let (said, start) = state.say(most);
        for one in &said {
            self.append(&one.record());
        }
        let start = start?;
        let state = self.state.clone().expect("is kept");
        state.each_definition(start, |record| {
            self.append(record);
        });
        self.commit();
        Some(start)
    }

    /// Writes that a replay begins there. Of the files before that nothing needs some stay, some
    /// are removed, and some used again.
    pub fn begin_replay(&mut self, start: SegmentId) {
        if start <= self.retained.oldest_segment {
            return;
        }
        self.retained.oldest_segment = start;
        self.append(&Record::Retained {
            oldest_segment: start,
            message_floor: self.retained.message_floor,
            queue_floor: self.retained.queue_floor,
        });
        self.writer.set_retained(self.retained);
        self.commit();
        let needed = self.state.as_ref().expect("is kept").needed();
        for (_, segment, path) in files(&self.data) {
            let is_spare = self.spares.iter().any(|(spare, _)| *spare == path);
            if segment >= start || is_spare || needed.contains(&segment) {
                continue;
            }
            match segment.get() % 3 {
                // Not for ever.
                0 if segment.plus(9) > start => {}
                0 | 1 => fs::remove_file(&path).expect("removes"),
                _ => self.spares.push((path.clone(), generation_of(&path))),
            }
        }
        let spares = self.spares.clone();
        let is_kept = |path: &Path| spares.iter().all(|(spare, _)| spare != path);
        let (data, epoch) = (self.data.clone(), self.epoch);
        let kept = |segment: &SegmentId| is_kept(&path_of(&data, epoch, *segment));
        self.files.retain(|segment, _| kept(segment));
        self.prepare();
    }

    /// Removes the freed files of older epochs, and folders that are empty then.
    fn remove_older(&self) {
        for (epoch, segment, path) in files(&self.data) {
            if epoch < self.epoch && segment < self.retained.oldest_segment {
                fs::remove_file(&path).expect("removes");
                // Refused while there is another file in it.
                let _ = fs::remove_dir(path.parent().expect("lies in a folder"));
            }
        }
    }
}

fn generation_of(path: &Path) -> u64 {
    let mut sector = vec![0; SEGMENT_HEAD_SIZE];
    let file = File::open(path).expect("opens");
    file.read_exact_at(&mut sector, 0).expect("reads");
    SegmentHead::decode(&sector)
        .expect("our own head")
        .generation
}

/// Opens a file as a broker does: what is written goes to the disk, not to cached pages.
fn open_direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
    direct.or_else(|_| options.open(path)).expect("opens")
}

pub fn path_of(data: &Path, epoch: Epoch, segment: SegmentId) -> PathBuf {
    let folder = data.join("journal").join(epoch_folder_name(epoch));
    folder.join(segment_file_name(SHARD, segment))
}

/// Paths of all segment files, oldest first.
pub fn files(data: &Path) -> Vec<(Epoch, SegmentId, PathBuf)> {
    let mut files = Vec::new();
    for folder in fs::read_dir(data.join("journal")).expect("lists") {
        let folder = folder.expect("lists").path();
        let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
        let Some(epoch) = name(&folder).and_then(|name| parse_epoch_folder_name(&name)) else {
            continue;
        };
        for file in fs::read_dir(&folder).expect("lists") {
            let path = file.expect("lists").path();
            let parsed = name(&path).and_then(|name| parse_segment_file_name(&name));
            files.extend(parsed.map(|(_, segment)| (epoch, segment, path)));
        }
    }
    files.sort();
    files
}

fn recover(data: &Path) -> Recovered {
    let files = files(data);
    let bytes: Vec<_> = files
        .iter()
        .map(|(_, _, path)| fs::read(path).expect("reads"))
        .collect();
    let segments =
        files
            .iter()
            .zip(&bytes)
            .enumerate()
            .map(|(index, ((epoch, segment, _), bytes))| SegmentFile {
                file: index as u32,
                epoch: *epoch,
                segment: *segment,
                size: bytes.len() as u64,
                head: Ok(&bytes[..SECTOR_SIZE]),
            });
    let input = RecoveryInput::new(JOURNAL, SHARD, segments.collect());
    let mut sink = |_: Lsn, _: Location, _: &Record<'_>| {};
    let read = |request: forebay_journal::reader::ReadRequest, into: &mut Vec<u8>| {
        let from = request.offset as usize;
        let part = bytes[request.file as usize].get(from..from + request.len as usize);
        into.extend_from_slice(part.ok_or(ReadError::Short)?);
        Ok(())
    };
    Recovery::new(&input).run(read, &mut sink).expect("sound")
}

/// A journal of two epochs: several segments, messages in two queues, some settled; stopped in
/// order if `is_stopped`.
pub fn two_epochs(data: &Path, is_stopped: bool) {
    let mut journal = Journal::create(data);
    journal.define(1, "orders");
    journal.define(2, "bills");
    let body = [b'x'; 3000];
    for _ in 0..20 {
        journal.send(&[1], &body);
        journal.commit();
    }
    journal.send(&[1, 2], b"both\0\xff");
    journal.deliver(1, 2, 9);
    journal.settle(1, &[2, 3]);
    journal.idle();
    let mut journal = Journal::reopen(data);
    for _ in 0..20 {
        journal.send(&[2], &body);
        journal.commit();
    }
    journal.deliver(2, 40, 42);
    journal.idle();
    if is_stopped {
        journal.stop();
    }
}

/// One block as `blocks --json` tells of it.
#[derive(Clone, Debug)]
pub struct Block {
    pub file: String,
    pub offset: u64,
    pub size: u64,
    pub number: u64,
    pub first_lsn: u64,
    pub records: u64,
}

/// The blocks that count, by the inspector itself.
pub fn blocks(data: &Path) -> Vec<Block> {
    let said = inspect(&["blocks", "--json"], data);
    assert_eq!(said.code, 0, "{said:?}");
    let lines = said.lines();
    let blocks = lines
        .iter()
        .filter(|line| line["what"] == "block" && line["counts"] == true);
    let number = |line: &Value, field: &str| line[field].as_u64().expect("a number");
    blocks
        .map(|line| Block {
            file: line["file"].as_str().expect("a path").to_owned(),
            offset: number(line, "offset"),
            size: number(line, "size"),
            number: number(line, "block"),
            first_lsn: number(line, "first_lsn"),
            records: number(line, "records"),
        })
        .collect()
}

/// Changes bytes of a file, runs `then`, and puts them back.
pub fn with_bytes<T>(path: &Path, offset: u64, bytes: &[u8], then: impl FnOnce() -> T) -> T {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("opens");
    let mut former = vec![0; bytes.len()];
    file.read_exact_at(&mut former, offset).expect("reads");
    file.write_all_at(bytes, offset).expect("writes");
    let result = then();
    file.write_all_at(&former, offset).expect("writes");
    result
}

/// Turns one bit of a file for the time of `then`.
pub fn with_flip<T>(path: &Path, offset: u64, then: impl FnOnce() -> T) -> T {
    let mut byte = [0];
    let file = File::open(path).expect("opens");
    file.read_exact_at(&mut byte, offset).expect("reads");
    with_bytes(path, offset, &[byte[0] ^ 1], then)
}

/// A head sector's checksum as stored.
pub fn stored_checksum(content: &[u8]) -> [u8; 16] {
    let text = checksum(content).to_string();
    u128::from_str_radix(&text, 16)
        .expect("32 digits")
        .to_le_bytes()
}

/// Zeros of a block's size.
pub fn sectors(size: u64) -> Vec<u8> {
    assert_eq!(size % SECTOR, 0);
    vec![0; size as usize]
}
