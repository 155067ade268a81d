//! The whole node allocates nothing per message: ring, driver, sockets and, with two shards, what
//! crosses between them; durable SENDs with receipts, deliveries and ACKs over TCP.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "alloc/counting.rs"]
mod counting;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use counting::{Counting, count_on, counted, set_counting};
use forebay::node::config::{Loaded, Overrides};
use forebay::node::lifecycle;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WINDOW: usize = 64;
const WARM_UP_ROUNDS: usize = 2_000;
const MEASURED_ROUNDS: usize = 2_000;

/// Sends a window of durable messages to each queue, takes them and settles them, each step with
/// receipts awaited: what is in flight is bounded, so warm means warm.
struct Client {
    socket: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    queues: usize,
}

impl Client {
    fn connect(address: SocketAddr, queues: usize) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        let mut client = Self {
            socket,
            input: Vec::with_capacity(1 << 20),
            output: b"CONNECT\naccept-version:1.2\nhost:/\n\n\0".to_vec(),
            queues,
        };
        for queue in 0..queues {
            let frame = format!(
                "SUBSCRIBE\nid:{queue}\ndestination:/queue/node-{queue}\nack:client-individual\n\
                 activemq.prefetchSize:1000\nreceipt:s\n\n\0"
            );
            client.output.extend_from_slice(frame.as_bytes());
        }
        client.exchange(1 + queues);
        client
    }

    /// Writes what was built and reads until this many frames came; returns their bytes' length.
    fn exchange(&mut self, frames: usize) {
        self.socket.write_all(&self.output).unwrap();
        self.output.clear();
        self.input.clear();
        let mut chunk = [0; 1 << 16];
        let mut seen = 0;
        while seen < frames {
            let read = self.socket.read(&mut chunk).unwrap();
            assert_ne!(
                read,
                0,
                "the broker closed: {:?}",
                String::from_utf8_lossy(&self.input)
            );
            // Bodies here have no NUL, so each one ends a frame.
            seen += chunk[..read].iter().filter(|byte| **byte == 0).count();
            self.input.extend_from_slice(&chunk[..read]);
        }
        assert_eq!(seen, frames, "{:?}", String::from_utf8_lossy(&self.input));
    }

    fn round(&mut self) {
        for queue in 0..self.queues {
            for _ in 0..WINDOW {
                let head = [
                    &b"SEND\ndestination:/queue/node-"[..],
                    &[b'0' + queue as u8],
                    b"\npersistent:true\nreceipt:r\n\n",
                ];
                head.iter()
                    .for_each(|part| self.output.extend_from_slice(part));
                self.output.extend_from_slice(&[b'x'; 200]);
                self.output.push(0);
            }
        }
        // A RECEIPT and a MESSAGE for each.
        self.exchange(2 * WINDOW * self.queues);
        let mut acks = 0;
        for line in self.input.split(|byte| *byte == b'\n') {
            if let Some(token) = line.strip_prefix(b"ack:") {
                self.output.extend_from_slice(b"ACK\nreceipt:a\nid:");
                self.output.extend_from_slice(token);
                self.output.extend_from_slice(b"\n\n\0");
                acks += 1;
            }
        }
        assert_eq!(acks, WINDOW * self.queues, "every message asks for its ACK");
        self.exchange(acks);
    }
}

/// Threads of this process whose name begins so.
#[allow(clippy::disallowed_methods, reason = "the fixture looks at threads")]
fn threads_named(prefix: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let named = |task: &Path| {
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        name.starts_with(prefix)
    };
    let id = |task: PathBuf| task.file_name()?.to_str()?.parse().ok();
    let paths = tasks.map(|task| task.unwrap().path());
    paths.filter(|task| named(task)).filter_map(id).collect()
}

/// A node in a thread of this process; it ends with the process.
fn start(folder: &Path, shards: u32) -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let given = Overrides {
        data: Some(folder.join("data")),
        stomp: Some(free.to_string()),
        shards: Some(shards),
        ..Overrides::default()
    };
    let text = "[journal]\nsegment_size = \"64MiB\"\n";
    let loaded = Loaded::from_text(Path::new("(test)"), text, &given).unwrap();
    std::thread::spawn(move || {
        let ended = lifecycle::serve(&loaded.config);
        panic!("the node ended: {ended:?}");
    });
    while TcpStream::connect(free).is_err() {
        std::thread::yield_now();
    }
    free
}

/// Allocations on the shards' threads, and how many messages went through.
#[allow(clippy::disallowed_methods, reason = "the fixture's folder")]
fn measure(shards: u32, queues: usize) -> (u64, u64) {
    // The node goes on in it until the process ends, so the next run removes it.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("alloc-node-{shards}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let address = start(&folder, shards);
    let mut client = Client::connect(address, queues);
    (0..WARM_UP_ROUNDS).for_each(|_| client.round());
    count_on(&threads_named("forebay-shard"));
    set_counting(true);
    (0..MEASURED_ROUNDS).for_each(|_| client.round());
    set_counting(false);
    let (count, bytes) = counted();
    let messages = (MEASURED_ROUNDS * WINDOW * queues) as u64;
    println!(
        "{shards} shard(s): {count} allocations of {bytes} bytes, {messages} durable messages"
    );
    (count, messages)
}

/// Once in a while a collection still grows to a new high-water mark; a message costs none.
#[test]
fn a_node_allocates_nothing_per_message() {
    for (shards, queues) in [(1, 2), (2, 4)] {
        let (count, messages) = measure(shards, queues);
        assert!(count < messages / 2000, "{count} allocations");
    }
}
