//! The ring against the real kernel: sockets, durable writes, reads, wake-ups, cancel, drop.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use forebay::runtime::reactor::{Completion, Ring, RingSize, Token};
use forebay_journal::format::{Parts, Record, SegmentHead};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::storage::{BlockWrite, IoFailure, WriteDone};
use forebay_journal::{Budget, Epoch, JournalId, Retained, Seal, SegmentId, ShardId, Writer};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

const BUFFERS: usize = 4;
const BUFFER_SIZE: usize = 4096;
const SIZE: RingSize = RingSize {
    submissions: 64,
    completions: 256,
    receive_buffers: BUFFERS as u16,
    receive_buffer_size: BUFFER_SIZE,
};

fn ring() -> Ring {
    Ring::new(SIZE).unwrap_or_else(|error| panic!("{error}"))
}

/// Turns until `done` says so; a test that hangs is killed by its runner.
fn turn_until(ring: &mut Ring, mut done: impl FnMut(&mut Ring, Completion) -> bool) {
    let mut completions = Vec::new();
    loop {
        ring.submit_and_wait(Some(1_000_000))
            .expect("the ring works");
        ring.reap(&mut completions);
        for completion in completions.drain(..) {
            if done(ring, completion) {
                return;
            }
        }
    }
}

#[test]
fn echo_more_than_the_receive_buffers_hold() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    ring.accept(listener.as_raw_fd());
    let total = 1 << 20;
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connects");
        let data: Vec<u8> = (0..total).map(|i: u32| (i % 251) as u8).collect();
        let mut reading = stream.try_clone().expect("clones");
        let sent = data.clone();
        let writer = std::thread::spawn(move || stream.write_all(&sent).map(|()| stream));
        let mut back = vec![0; data.len()];
        reading.read_exact(&mut back).expect("all comes back");
        assert!(back == data, "echo differs");
        drop(writer.join().expect("no panic").expect("all was written"));
    });
    let mut socket: Option<OwnedFd> = None;
    let (mut waiting, mut is_sending) = (Vec::new(), false);
    turn_until(&mut ring, |ring, completion| {
        match completion {
            Completion::Accepted { result, .. } => {
                let accepted = result.expect("accepts");
                ring.receive(Token(1), accepted.as_raw_fd(), true);
                socket = Some(accepted);
            }
            Completion::Received { bytes, .. } => {
                waiting.extend_from_slice(&bytes);
                ring.give_back(bytes);
                let socket = socket.as_ref().expect("accepted").as_raw_fd();
                ring.receive(Token(1), socket, waiting.len() % 2 == 0);
            }
            Completion::ReceiveEnded { errno, .. } => {
                assert_eq!(errno, 0);
                return true;
            }
            Completion::Sent { result, .. } => {
                result.expect("sends");
                is_sending = false;
            }
            _ => panic!("nothing else was asked for"),
        }
        if !is_sending && !waiting.is_empty() {
            is_sending = true;
            let bytes = std::mem::take(&mut waiting);
            ring.send(
                Token(1),
                socket.as_ref().expect("accepted").as_raw_fd(),
                bytes,
            );
        }
        false
    });
    client.join().expect("the client saw its bytes");
}

/// A receive takes one buffer and no more, however much is waiting: what a connection that is not
/// read further can bring into memory is that.
#[test]
fn a_receive_takes_one_buffer_and_ends() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    client.write_all(&[1; 3 * BUFFER_SIZE]).expect("writes");
    for token in [7, 8, 9] {
        ring.receive(Token(token), server.as_raw_fd(), false);
        let mut count = 0;
        turn_until(&mut ring, |ring, completion| match completion {
            Completion::Received { token: of, bytes } => {
                assert_eq!(of, Token(token));
                assert!(bytes.len() <= BUFFER_SIZE);
                count += 1;
                ring.give_back(bytes);
                true
            }
            _ => false,
        });
        assert_eq!((count, ring.in_flight()), (1, 0), "the receive is over");
    }
    drop(client);
    // One that waits when the ring is dropped: the drop ends it.
    ring.receive(Token(10), server.as_raw_fd(), true);
}

/// With every buffer in use a receive says so, and goes on when one came back.
#[test]
fn without_a_buffer_a_receive_ends_and_loses_nothing() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    let mut kept = Vec::new();
    for token in 0..=BUFFERS as u64 {
        client.write_all(b"one").expect("writes");
        ring.receive(Token(token), server.as_raw_fd(), false);
        turn_until(&mut ring, |_, completion| match completion {
            Completion::Received { bytes, .. } => {
                kept.push(bytes);
                true
            }
            Completion::ReceiveEnded { errno, .. } => {
                assert_eq!(errno, Errno::ENOBUFS as i32);
                assert_eq!(kept.len(), BUFFERS);
                true
            }
            _ => false,
        });
    }
    assert_eq!(kept.len(), BUFFERS);
    kept.into_iter().for_each(|bytes| ring.give_back(bytes));
    ring.receive(Token(99), server.as_raw_fd(), false);
    turn_until(&mut ring, |ring, completion| match completion {
        Completion::Received { bytes, .. } => {
            assert_eq!(&*bytes, b"one");
            ring.give_back(bytes);
            true
        }
        _ => false,
    });
}

fn segment_file(size: u64) -> (tempfile::TempDir, OwnedFd) {
    // The build's own folder lies on a disk; /tmp may be a tmpfs without O_DIRECT.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(folder.path().join("segment"))
        .expect("O_DIRECT works on the build disk");
    file.set_len(size).expect("sized");
    (folder, file.into())
}

/// A writer for a segment file of this size.
fn writer_for(size: u64) -> (Writer, SegmentId) {
    let segment = SegmentId::ZERO.next();
    let epoch = Epoch::ZERO.next();
    let mut writer = Writer::new(4 << 20, epoch, Seal::default(), Retained::default());
    writer.add_segment(SegmentHead {
        journal: JournalId([1; 16]),
        shard: ShardId(0),
        segment,
        generation: 0,
        epoch,
        first_segment: segment,
        size,
        inflight_blocks_max: 2,
    });
    (writer, segment)
}

#[test]
fn blocks_written_are_read_back() {
    let mut ring = ring();
    let size = 1 << 20;
    let (_folder, file) = segment_file(size);
    let reading = file.try_clone().expect("clones");
    let (mut writer, segment) = writer_for(size);
    ring.add_segment(segment, file).expect("a slot");
    // Either way works; which one depends on the machine's MEMLOCK.
    ring.register_arena(writer.memory());
    let appended = writer
        .append(&Record::CleanShutdown { unix_ms: 42 }, Budget::Control)
        .expect("room");
    ring.write(writer.poll_write(0).expect("one block"));
    let done = written(&mut ring);
    writer.handle_write_done(done, 0).expect("written");
    assert!(writer.is_drained());
    let buffer = read_back(&mut ring, &reading, 4096, 8192);
    let record = Record::decode_at(&buffer, appended.location.record_offset());
    assert_eq!(record, Ok(Record::CleanShutdown { unix_ms: 42 }));
    // A write in flight when the ring is dropped: the drop waits for it.
    writer
        .append(&Record::CleanShutdown { unix_ms: 43 }, Budget::Control)
        .expect("room");
    ring.write(writer.poll_write(0).expect("one block"));
}

fn read_back(ring: &mut Ring, file: &OwnedFd, offset: u64, size: usize) -> ReadBuffer {
    let mut read = None;
    ring.read(Token(3), file.as_raw_fd(), offset, ReadBuffer::new(size));
    turn_until(ring, |_, completion| match completion {
        Completion::Read {
            token: Token(3),
            buffer,
            result,
        } => {
            assert_eq!(result, Ok(size));
            read = Some(buffer);
            true
        }
        _ => false,
    });
    read.expect("it ended")
}

/// Up to where files may be written, from the start of the test to its end. Above the size of every
/// other file in here: the limit is the whole process's.
struct FileSizeLimit {
    before: (u64, u64),
}

impl FileSizeLimit {
    fn set(bytes: u64) -> Self {
        let before = getrlimit(Resource::RLIMIT_FSIZE).expect("a limit");
        setrlimit(Resource::RLIMIT_FSIZE, bytes, before.1).expect("lower is allowed");
        Self { before }
    }
}

impl Drop for FileSizeLimit {
    fn drop(&mut self) {
        let (soft, hard) = self.before;
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).expect("as it was");
    }
}

/// A block of two sectors, and its bytes, to be written across `border`.
fn block_across(writer: &mut Writer, border: u64, fill: u8) -> (BlockWrite, Vec<u8>) {
    let body = [fill; 5000];
    let record = Record::Fragment {
        upload: 1,
        offset: 0,
        body: Parts::One(&body),
    };
    writer.append(&record, Budget::Control).expect("room");
    let mut write = writer.poll_write(0).expect("one block");
    assert_eq!(write.block.len(), 8192);
    write.offset = border - 4096;
    let bytes = write.block.to_vec();
    (write, bytes)
}

fn written(ring: &mut Ring) -> WriteDone {
    let mut found = None;
    turn_until(ring, |_, completion| {
        if let Completion::Written(done) = completion {
            found = Some(done);
        }
        found.is_some()
    });
    found.expect("it ended")
}

/// The real kernel writes short: a file may not grow beyond `RLIMIT_FSIZE`, so of a block across
/// that border it takes the first sector.
#[test]
fn a_short_write_goes_on_with_the_rest_or_fails_as_a_whole() {
    const BORDER: u64 = 2 << 20;
    // Asked to write at the border itself, the kernel sends this, which would end the process.
    SigSet::from_iter([Signal::SIGXFSZ])
        .thread_block()
        .expect("blocks");
    let mut ring = ring();
    let (folder, file) = segment_file(BORDER + (1 << 20));
    let (mut writer, segment) = writer_for(1 << 20);
    ring.add_segment(segment, file).expect("a slot");
    let plain = std::fs::File::open(folder.path().join("segment")).expect("is there");
    let on_disk = || {
        let mut bytes = vec![0; 8192];
        plain
            .read_exact_at(&mut bytes, BORDER - 4096)
            .expect("reads");
        bytes
    };
    let limit = FileSizeLimit::set(BORDER);
    let (write, bytes) = block_across(&mut writer, BORDER, 1);
    ring.write(write);
    // One turn brings the short result; the rest goes out with the next.
    let mut completions = Vec::new();
    ring.submit_and_wait(Some(10_000_000)).expect("it works");
    ring.reap(&mut completions);
    assert!(completions.is_empty(), "half a block is not a block");
    let half = on_disk();
    assert!(half[..4096] == bytes[..4096], "no part was written");
    assert!(half[4096..] == [0; 4096], "it was not written short");
    drop(limit);
    let done = written(&mut ring);
    assert_eq!(done.result, Ok(()));
    writer.handle_write_done(done, 0).expect("whole");
    assert!(writer.is_drained());
    assert!(on_disk() == bytes, "not the block");

    let _limit = FileSizeLimit::set(BORDER);
    let (write, _) = block_across(&mut writer, BORDER, 2);
    ring.write(write);
    let done = written(&mut ring);
    assert_eq!(done.result, Err(IoFailure(Errno::EFBIG as i32)));
    writer.handle_write_done(done, 0).expect_err("half of it");
    assert!(!writer.is_drained() && writer.poll_write(0).is_none());
}

#[test]
fn another_thread_wakes_the_ring() {
    let mut ring = ring();
    let wake = nix::sys::eventfd::EventFd::from_value_and_flags(
        0,
        nix::sys::eventfd::EfdFlags::EFD_CLOEXEC,
    )
    .expect("an eventfd");
    let bell = std::os::fd::AsFd::as_fd(&wake)
        .try_clone_to_owned()
        .expect("clones");
    ring.watch(wake.into());
    for _ in 0..3 {
        nix::unistd::write(&bell, &1_u64.to_ne_bytes()).expect("rings");
        turn_until(&mut ring, |_, completion| {
            matches!(completion, Completion::Woken)
        });
    }
}
