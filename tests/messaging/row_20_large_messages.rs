//! Row 20: messages far larger than memory allows stream through: into the journal as they come and
//! out of it as they are taken, beside small ones; half of one is nothing.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay::limits::{Inputs, KIB, Limits, MESSAGE_SIZE_MAX_CEILING_BYTES, MIB};

use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::broker::{Broker, Setup, fresh_folder};
use crate::{PATIENCE, ask, browse, connect, next, next_message, send, subscribe, text};

const QUEUE: &str = "/queue/large";
/// Memory of blocks read back (`shard::cold`): 16 chunks, and two more while they are exchanged.
const COLD_BYTES: u64 = 18 * MIB;
/// Where the parts of a message lie, its pages of code, the allocator's remainder.
const SLACK_BYTES: u64 = 24 * MIB;

/// What a broker of this test may hold.
fn inputs(shards: u32) -> Inputs {
    Inputs {
        shards,
        segment_size_bytes: 8 * MIB,
        segments_ready: 2,
        message_size_max_bytes: MESSAGE_SIZE_MAX_CEILING_BYTES,
        connections_max: 16,
        block_cache_size_bytes: 4 * MIB,
        volatile_size_max_bytes: 4 * MIB,
    }
}

/// The most that the broker's memory may grow while large persistent messages pass: all that
/// `limits.rs` counts but messages in memory, of which there are none. No size of theirs is in it.
fn growth_max_bytes(shards: u32) -> u64 {
    let limits = Limits::derive(inputs(shards)).unwrap();
    let volatile = limits.volatile_size_max_bytes * u64::from(shards);
    limits.memory_max_bytes() - volatile + u64::from(shards) * COLD_BYTES + SLACK_BYTES
}

fn setup(name: &str, shards: u32) -> (Setup, PathBuf) {
    let inputs = inputs(shards);
    let data = fresh_folder(&format!("messaging-{name}-{shards}")).join("data");
    let config = format!(
        "[journal]\nsegment_size = \"{}B\"\nsegments_ready = {}\n\
         [limits]\nmessage_size_max = \"{}B\"\nvolatile_size_max = \"{}B\"\n\
         block_cache_size = \"{}B\"\nconnections_max = {}\n",
        inputs.segment_size_bytes,
        inputs.segments_ready,
        inputs.message_size_max_bytes,
        inputs.volatile_size_max_bytes,
        inputs.block_cache_size_bytes,
        inputs.connections_max,
    );
    let setup = Setup::new(&data)
        .config(&config)
        .argument("--shards", &shards.to_string());
    (setup, data)
}

/// A body that nobody has to hold: any part of it follows from its offset.
struct Content {
    chunk: Vec<u8>,
}

impl Content {
    /// Of no size that anything in the broker has, so that pieces meet at all offsets.
    const CHUNK: usize = 65_521;

    fn new(seed: u64) -> Self {
        let mut state = seed | 1;
        let random = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        let chunk = random.take(Self::CHUNK).collect();
        Self { chunk }
    }

    /// The bytes from an offset to the end of their chunk, which begins with its number.
    fn from(&mut self, offset: u64) -> &[u8] {
        let number = offset / Self::CHUNK as u64;
        self.chunk[..8].copy_from_slice(&number.to_le_bytes());
        &self.chunk[(offset % Self::CHUNK as u64) as usize..]
    }

    /// Panics unless these are the bytes at `offset`.
    fn verify(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = self.from(offset);
            let count = expected.len().min(bytes.len());
            assert!(
                bytes[..count] == expected[..count],
                "other bytes at {offset}"
            );
            bytes = &bytes[count..];
            offset += count as u64;
        }
    }
}

/// A connection that sends or takes one large message in parts of any size.
struct Stream {
    socket: TcpStream,
    content: Content,
    len: u64,
    done: u64,
    buffer: Vec<u8>,
}

impl Stream {
    fn connect(address: SocketAddr, len: u64) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = Self {
            socket,
            content: Content::new(len),
            len,
            done: 0,
            buffer: Vec::new(),
        };
        stream.say("CONNECT\naccept-version:1.2\nhost:/\n\n\0");
        assert!(stream.read_upto(b"\0").starts_with("CONNECTED\n"));
        stream
    }

    fn say(&mut self, frame: &str) {
        self.socket.write_all(frame.as_bytes()).unwrap();
    }

    /// Sends the head of a SEND of the whole length.
    fn begin(&mut self) {
        let len = self.len;
        self.say(&format!(
            "SEND\ndestination:{QUEUE}\npersistent:true\nreceipt:large\ncontent-length:{len}\n\n"
        ));
    }

    /// Sends the body up to an offset; `done` tells others how far it is.
    fn send_upto(&mut self, end: u64, sent: &AtomicU64) {
        while self.done < end {
            let part = self.content.from(self.done);
            let count = (part.len() as u64).min(end - self.done) as usize;
            self.socket.write_all(&part[..count]).unwrap();
            self.done += count as u64;
            sent.store(self.done, Ordering::Relaxed);
        }
    }

    /// Ends the body and waits for the receipt.
    fn finish(&mut self) {
        assert_eq!(self.done, self.len);
        self.say("\0");
        let receipt = self.read_upto(b"\0");
        assert_eq!(receipt, "RECEIPT\nreceipt-id:large\n\n\0");
    }

    /// Subscribes and takes the head of the message; gives it.
    fn subscribe(&mut self) -> String {
        self.say(&format!(
            "SUBSCRIBE\nid:0\ndestination:{QUEUE}\nack:client\nactivemq.prefetchSize:1\n\n\0"
        ));
        let head = self.read_upto(b"\n\n");
        assert!(head.starts_with("MESSAGE\n"), "{head}");
        let length = format!("\ncontent-length:{}\n", self.len);
        assert!(head.contains(&length), "{head}");
        head
    }

    /// Takes the body up to an offset and compares it.
    fn take_upto(&mut self, end: u64) {
        let mut part = std::mem::take(&mut self.buffer);
        part.resize(256 * KIB as usize, 0);
        while self.done < end {
            let most = (end - self.done).min(part.len() as u64) as usize;
            let count = self.socket.read(&mut part[..most]).unwrap();
            assert!(count > 0, "closed at {}", self.done);
            self.content.verify(self.done, &part[..count]);
            self.done += count as u64;
        }
        self.buffer = part;
    }

    /// Acknowledges what came whole, leaves the queue and waits until that is safe.
    fn acknowledge(&mut self, head: &str) {
        assert_eq!(self.read_upto(b"\0"), "\0", "the body has an end");
        let id = head.lines().find_map(|line| line.strip_prefix("ack:"));
        let id = id.unwrap_or_else(|| panic!("no ack header in {head}"));
        self.say(&format!(
            "ACK\nid:{id}\n\n\0UNSUBSCRIBE\nid:0\nreceipt:taken\n\n\0"
        ));
        let receipt = self.read_upto(b"\0");
        assert_eq!(receipt, "RECEIPT\nreceipt-id:taken\n\n\0");
    }

    /// Reads byte by byte, so that not one of the body is taken; line ends between frames go.
    fn read_upto(&mut self, end: &[u8]) -> String {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(end) {
            self.socket.read_exact(&mut byte).unwrap();
            if !(read.is_empty() && byte[0] == b'\n') {
                read.push(byte[0]);
            }
        }
        String::from_utf8(read).unwrap()
    }

    /// Ends the connection in the middle of whatever it does.
    fn die(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }
}

/// A small message goes in, out and away while nobody else uses the queue's small ones.
fn small_one_passes(client: &mut Client, queue: &str) {
    send(client, queue, &[], queue);
    subscribe(client, queue, &[("ack", "client")]);
    let message = next_message(client);
    assert_eq!(text(&message), queue);
    ask(client, "ACK", &[("id", message.header("ack").unwrap())]);
    ask(client, "UNSUBSCRIBE", &[("id", "0")]);
}

/// Small messages pass through queues of all shards, all of this user's own.
fn small_ones_pass(address: SocketAddr, user: &str) {
    let mut client = connect(address);
    for number in 0..4 {
        small_one_passes(&mut client, &format!("/queue/small-{user}-{number}"));
    }
}

/// Passes small messages until told to stop; gives how many rounds began and ended amid the body.
fn pass_small_ones(address: SocketAddr, sent: &AtomicU64, len: u64, is_over: &AtomicBool) -> u64 {
    let is_amid = || (1..len).contains(&sent.load(Ordering::Relaxed));
    let mut rounds = 0;
    while !is_over.load(Ordering::Relaxed) {
        let began_amid = is_amid();
        small_ones_pass(address, "bystander");
        rounds += u64::from(began_amid && is_amid());
    }
    rounds
}

/// Sends the large message, small ones beside it all the time and while it stands still in the
/// middle; gives how many rounds of small ones passed while it was under way.
fn send_large(address: SocketAddr, len: u64) -> u64 {
    let sent = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let (watched, flag) = (Arc::clone(&sent), Arc::clone(&is_over));
    let others = std::thread::spawn(move || pass_small_ones(address, &watched, len, &flag));
    let mut producer = Stream::connect(address, len);
    producer.begin();
    producer.send_upto(len / 2, &sent);
    small_ones_pass(address, "own");
    small_one_passes(&mut connect(address), QUEUE);
    producer.send_upto(len, &sent);
    producer.finish();
    is_over.store(true, Ordering::Relaxed);
    others.join().expect("small messages are disturbed")
}

fn segments(data: &Path) -> usize {
    let epochs = std::fs::read_dir(data.join("journal")).unwrap();
    let folders = epochs.filter_map(|entry| std::fs::read_dir(entry.unwrap().path()).ok());
    folders.map(Iterator::count).sum()
}

/// Most segments of a broker that has nothing.
fn idle_segments_max(shards: u32) -> usize {
    let ready = inputs(shards).segments_ready;
    // The one being written, the one from before that it frees last, those ready, those to recycle.
    (shards * (1 + 1 + ready + ready + 1)) as usize
}

fn wait_reclaimed(data: &Path, shards: u32) {
    wait_until(Duration::from_secs(60), "segments are freed", || {
        segments(data) <= idle_segments_max(shards)
    });
}

/// But for what sockets hold, half a message lies in the journal: more than an idle one keeps.
fn assert_under_way(data: &Path, shards: u32) {
    let (there, idle) = (segments(data), idle_segments_max(shards));
    assert!(
        there > idle,
        "{there} segments, {idle} are there for nothing"
    );
}

fn assert_flat(broker: &Broker, before: u64, shards: u32, what: &str) {
    let most = broker.resident_max_bytes();
    let (growth, allowed) = (most.saturating_sub(before), growth_max_bytes(shards));
    println!(
        "{what}: {} MiB at most, {} before, {} of growth allowed",
        most / MIB,
        before / MIB,
        allowed / MIB
    );
    assert!(
        growth < allowed,
        "{growth} bytes of memory more, {allowed} allowed"
    );
}

/// Nothing is in the queue, and what comes next is the next message.
fn assert_empty(address: SocketAddr) {
    let mut client = connect(address);
    assert_eq!(browse(&mut client, QUEUE, "look"), [""; 0]);
    send(&mut client, QUEUE, &[], "alone");
    subscribe(&mut client, QUEUE, &[("ack", "client")]);
    let message = next_message(&mut client);
    assert_eq!(text(&message), "alone");
    ask(
        &mut client,
        "ACK",
        &[("id", message.header("ack").unwrap())],
    );
}

/// In with memory flat, to a consumer that dies in the middle, over kill -9, out again whole.
fn passes(name: &str, shards: u32, len: u64) {
    let (mut setup, data) = setup(name, shards);
    let running = setup.start();
    let address = running.address();
    small_ones_pass(address, "own");
    let before = running.resident_bytes();
    let rounds = send_large(address, len);
    println!("{name}: {rounds} rounds of small messages passed beside it");
    assert!(rounds > 0, "small messages waited for the large one");
    assert_flat(&running, before, shards, "in");

    let mut half = Stream::connect(address, len);
    let head = half.subscribe();
    assert!(!head.contains("redelivered:true"), "{head}");
    half.take_upto(len / 2);
    // The rest waits for its consumer; others do not.
    small_ones_pass(address, "own");
    small_one_passes(&mut connect(address), QUEUE);
    assert_flat(&running, before, shards, "half out");
    half.die();

    let mut whole = Stream::connect(address, len);
    let head = whole.subscribe();
    assert!(head.contains("\nredelivered:true\n"), "{head}");
    whole.take_upto(len);
    assert_flat(&running, before, shards, "out");
    // Killed before it is acknowledged.
    running.kill();

    let running = setup.start();
    let before = running.resident_bytes();
    let mut again = Stream::connect(address, len);
    let head = again.subscribe();
    again.take_upto(len);
    again.acknowledge(&head);
    assert_flat(&running, before, shards, "out after a restart");
    assert_empty(address);
    wait_reclaimed(&data, shards);
    assert!(running.stop().success());
    #[allow(clippy::disallowed_methods, reason = "gigabytes are not left behind")]
    std::fs::remove_dir_all(&data).unwrap();
}

#[test]
fn large_message_of_the_largest_size_passes_with_memory_flat() {
    passes("large-most", 1, MESSAGE_SIZE_MAX_CEILING_BYTES);
}

#[test]
fn large_message_crosses_shards_with_memory_flat() {
    passes("large-across", 2, 512 * MIB);
}

#[test]
fn large_message_cut_off_in_the_middle_is_nothing() {
    const LEN: u64 = 256 * MIB;
    for shards in [1, 2] {
        let (mut setup, data) = setup("large-cut", shards);
        let running = setup.start();
        let mut producer = Stream::connect(running.address(), LEN);
        producer.begin();
        producer.send_upto(LEN / 2, &AtomicU64::new(0));
        assert_under_way(&data, shards);
        producer.die();
        wait_reclaimed(&data, shards);
        assert_empty(running.address());

        // The same, and the broker dies before the producer does.
        let mut producer = Stream::connect(running.address(), LEN);
        producer.begin();
        producer.send_upto(LEN / 2, &AtomicU64::new(0));
        assert_under_way(&data, shards);
        running.kill();
        let running = setup.start();
        assert_empty(running.address());
        wait_reclaimed(&data, shards);
        assert!(running.stop().success());
    }
}

/// One that is not persistent has to fit the memory for such: too large, it is refused by its
/// head, or where it proves to be; what does fit passes, and nothing stays behind.
#[test]
fn large_message_that_is_not_persistent_is_refused_above_its_memory() {
    for shards in [1, 2] {
        let (mut setup, _) = setup("large-volatile", shards);
        let running = setup.start();
        let address = running.address();
        let max = inputs(shards).volatile_size_max_bytes;
        let head = |length: &str| format!("SEND\ndestination:{QUEUE}\nreceipt:r\n{length}\n");
        let too_long = format!("content-length:{}\n", max + 1);
        // Enough of it to prove it, and no end: the answer comes before that.
        let too_much = vec![b'x'; max as usize + 1];
        // Four times: what one leaves behind would be in the way of the next.
        for (length, body) in [(&*too_long, &b""[..]), ("", &too_much)].repeat(4) {
            let mut client = Client::connect(address).unwrap();
            client.send_bytes(head(length).as_bytes()).unwrap();
            client.send_bytes(body).unwrap();
            let error = next(&mut client);
            assert_eq!(error.command, "ERROR");
            assert_eq!(error.header("receipt-id"), Some("r"));
            let said = format!("{:?} {}", error.headers, text(&error));
            assert!(said.contains("not persistent"), "{said}");
        }
        assert_empty(address);
        for length in ["", &format!("content-length:{max}\n")] {
            let mut client = connect(address);
            client.send_bytes(head(length).as_bytes()).unwrap();
            client.send_bytes(&too_much[1..]).unwrap();
            client.send_bytes(b"\0").unwrap();
            assert_eq!(next(&mut client).header("receipt-id"), Some("r"));
            subscribe(&mut client, QUEUE, &[("ack", "auto")]);
            let message = next_message(&mut client);
            assert!(message.body == too_much[1..], "{:?}", message.headers);
            ask(&mut client, "UNSUBSCRIBE", &[("id", "0")]);
        }
        assert!(running.stop().success());
    }
}

/// One more byte than a message may have is refused from its head alone, whoever would keep it.
#[test]
fn large_message_above_the_limit_is_refused_before_its_body() {
    let (mut setup, _) = setup("large-refused", 1);
    let running = setup.start();
    for persistent in ["true", "false"] {
        let mut client = Client::connect(running.address()).unwrap();
        let len = MESSAGE_SIZE_MAX_CEILING_BYTES + 1;
        let head =
            format!("SEND\ndestination:{QUEUE}\npersistent:{persistent}\ncontent-length:{len}\n\n");
        client.send_bytes(head.as_bytes()).unwrap();
        assert_eq!(next(&mut client).command, "ERROR");
    }
    assert!(running.stop().success());
}
