//! A broker in memory for the tests of the benchmark, with faults to order.
//!
//! Two threads per connection (one reads, one writes), one lock over all queues. Keeps order, holds
//! what nobody acknowledged and gives it out again, flagged as redelivered, when its consumer goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong, by the number of the SEND (all connections together, from 0).
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Confirmed, then forgotten.
    pub(crate) drop_at: Option<u64>,
    /// Delivered twice without the redelivered flag.
    pub(crate) duplicate_at: Option<u64>,
    /// Delivered twice, the second time with the flag.
    pub(crate) redeliver_at: Option<u64>,
    /// Delivered after the next one.
    pub(crate) swap_at: Option<u64>,
    /// Another last byte in the body.
    pub(crate) corrupt_at: Option<u64>,
    /// No receipt.
    pub(crate) lose_receipt_at: Option<u64>,
    /// ERROR, then close.
    pub(crate) error_at: Option<u64>,
    /// The whole broker stands still for so long.
    pub(crate) stall_at: Option<(u64, Duration)>,
    /// Confirms and keeps nothing: as fast as a broker can be.
    pub(crate) is_discarding: bool,
    /// Answers CONNECT with this version.
    pub(crate) version: Option<&'static str>,
}

/// A running broker; its threads end with the process.
pub(crate) struct Broker {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    queues: HashMap<String, Queue>,
    sends: u64,
    held_back: Option<(String, Stored)>,
    heads: Vec<String>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Stored>,
    subscribers: Vec<Arc<Subscriber>>,
    turn: usize,
}

#[derive(Clone)]
struct Stored {
    body: Arc<[u8]>,
    is_redelivered: bool,
}

struct Subscriber {
    outbox: Arc<Outbox>,
    ack_mode: String,
    unacked: Mutex<(u64, BTreeMap<u64, Stored>)>,
}

#[derive(Default)]
struct Outbox {
    bytes: Mutex<(Vec<u8>, bool)>,
    ready: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// Starts on a free port.
    pub(crate) fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State {
            faults,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || Peer::new(stream, state).run());
            }
        });
        Self { address, state }
    }

    /// Messages nobody has taken.
    #[allow(dead_code, reason = "the example does not look inside")]
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state)
            .queues
            .values()
            .map(|queue| queue.waiting.len())
            .sum()
    }

    /// The command and headers of every frame but SEND and ACK.
    #[allow(dead_code, reason = "the example does not look inside")]
    pub(crate) fn heads(&self) -> Vec<String> {
        lock(&self.state).heads.clone()
    }
}

impl Outbox {
    fn push(&self, bytes: &[u8]) {
        lock(&self.bytes).0.extend_from_slice(bytes);
        self.ready.notify_one();
    }

    fn close(&self) {
        lock(&self.bytes).1 = true;
        self.ready.notify_one();
    }

    fn write_to(&self, mut stream: TcpStream) {
        let mut taken = Vec::new();
        loop {
            let mut held = lock(&self.bytes);
            while held.0.is_empty() && !held.1 {
                held = self
                    .ready
                    .wait(held)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let is_last = held.1;
            std::mem::swap(&mut held.0, &mut taken);
            drop(held);
            if stream.write_all(&taken).is_err() || is_last {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            taken.clear();
        }
    }
}

struct Peer {
    stream: TcpStream,
    state: Arc<Mutex<State>>,
    outbox: Arc<Outbox>,
    faults: Faults,
    subscription: Option<(String, Arc<Subscriber>)>,
    /// Answers gathered until the read buffer is empty.
    answers: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream, state: Arc<Mutex<State>>) -> Self {
        let _ = stream.set_nodelay(true);
        let outbox = Arc::new(Outbox::default());
        let (writer, out) = (
            stream.try_clone().expect("a second handle"),
            Arc::clone(&outbox),
        );
        std::thread::spawn(move || out.write_to(writer));
        let faults = lock(&state).faults.clone();
        Self {
            stream,
            state,
            outbox,
            faults,
            subscription: None,
            answers: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 256 * 1024];
        let mut is_open = true;
        while is_open {
            let Ok(len @ 1..) = self.stream.read(&mut chunk) else {
                break;
            };
            bytes.extend_from_slice(&chunk[..len]);
            let mut at = 0;
            while let Some((head_len, frame_len)) = frame(&bytes[at..]) {
                let frame = &bytes[at..at + frame_len];
                is_open = self.take(&frame[..head_len], &frame[head_len..frame_len - 1]);
                at += frame_len;
                if !is_open {
                    break;
                }
            }
            bytes.drain(..at);
            self.outbox.push(&self.answers);
            self.answers.clear();
        }
        self.outbox.close();
        self.leave();
    }

    /// Acts on one frame; false closes.
    fn take(&mut self, head: &[u8], body: &[u8]) -> bool {
        let head = std::str::from_utf8(head)
            .expect("the client sends text")
            .trim_start();
        let command = head.lines().next().unwrap_or("");
        if !matches!(command, "SEND" | "ACK") {
            lock(&self.state).heads.push(head.to_owned());
        }
        let mut confirms = true;
        match command {
            "CONNECT" => {
                let version = self.faults.version.unwrap_or("1.2");
                self.answers.extend_from_slice(
                    format!("CONNECTED\nversion:{version}\nheart-beat:0,0\n\n\0\n").as_bytes(),
                );
            }
            "SEND" => match self.send(head, body) {
                Some(is_confirmed) => confirms = is_confirmed,
                None => {
                    self.answers
                        .extend_from_slice(b"ERROR\nmessage:disk on fire\n\nrun\0");
                    return false;
                }
            },
            "SUBSCRIBE" => self.subscribe(head),
            "ACK" => self.acknowledge(header(head, "id").expect("ACK names its message")),
            "DISCONNECT" => {}
            other => panic!("the client sent {other}"),
        }
        if let Some(id) = header(head, "receipt").filter(|_| confirms) {
            self.answers.extend_from_slice(b"RECEIPT\nreceipt-id:");
            self.answers.extend_from_slice(id.as_bytes());
            self.answers.extend_from_slice(b"\n\n\0\n");
        }
        command != "DISCONNECT"
    }

    /// Stores and delivers; `Some(false)`: no receipt, `None`: ERROR.
    fn send(&mut self, head: &str, body: &[u8]) -> Option<bool> {
        if self.faults.is_discarding {
            return Some(true);
        }
        let destination = header(head, "destination").expect("SEND names its queue");
        let mut state = lock(&self.state);
        let number = state.sends;
        state.sends += 1;
        let is_now = |at: Option<u64>| at == Some(number);
        if let Some((_, length)) = self.faults.stall_at.filter(|(at, _)| *at == number) {
            std::thread::sleep(length);
        }
        if is_now(self.faults.error_at) {
            return None;
        }
        let mut body = body.to_vec();
        if let (true, Some(last)) = (is_now(self.faults.corrupt_at), body.last_mut()) {
            *last ^= 1;
        }
        let stored = Stored {
            body: body.into(),
            is_redelivered: false,
        };
        let held_back = state.held_back.take();
        if is_now(self.faults.swap_at) {
            state.held_back = Some((destination.to_owned(), stored));
        } else if !is_now(self.faults.drop_at) {
            if is_now(self.faults.duplicate_at) {
                state.put(destination, stored.clone());
            }
            if is_now(self.faults.redeliver_at) {
                state.put(destination, stored.clone());
                state.put(
                    destination,
                    Stored {
                        is_redelivered: true,
                        ..stored
                    },
                );
            } else {
                state.put(destination, stored);
            }
        }
        if let Some((destination, stored)) = held_back {
            state.put(&destination, stored);
        }
        Some(!is_now(self.faults.lose_receipt_at))
    }

    fn subscribe(&mut self, head: &str) {
        let destination = header(head, "destination").expect("SUBSCRIBE names its queue");
        let subscriber = Arc::new(Subscriber {
            outbox: Arc::clone(&self.outbox),
            ack_mode: header(head, "ack").unwrap_or("auto").to_owned(),
            unacked: Mutex::default(),
        });
        self.subscription = Some((destination.to_owned(), Arc::clone(&subscriber)));
        let mut state = lock(&self.state);
        let queue = state.queues.entry(destination.to_owned()).or_default();
        queue.subscribers.push(subscriber);
        for stored in std::mem::take(&mut queue.waiting) {
            queue.put(stored);
        }
    }

    fn acknowledge(&mut self, id: &str) {
        let (_, subscriber) = self.subscription.as_ref().expect("ACK without SUBSCRIBE");
        let id: u64 = id.parse().expect("our own id");
        let mut unacked = lock(&subscriber.unacked);
        assert!(
            unacked.1.contains_key(&id),
            "ACK of {id}, which is not waiting for one"
        );
        if subscriber.ack_mode == "client" {
            unacked.1 = unacked.1.split_off(&(id + 1));
        } else {
            unacked.1.remove(&id);
        }
    }

    fn leave(self) {
        let Some((destination, subscriber)) = &self.subscription else {
            return;
        };
        let mut state = lock(&self.state);
        let queue = state.queues.entry(destination.clone()).or_default();
        queue
            .subscribers
            .retain(|other| !Arc::ptr_eq(other, subscriber));
        let unacked = std::mem::take(&mut lock(&subscriber.unacked).1);
        for stored in unacked.into_values().rev() {
            queue.waiting.push_front(Stored {
                is_redelivered: true,
                ..stored
            });
        }
    }
}

impl State {
    fn put(&mut self, destination: &str, stored: Stored) {
        match self.queues.get_mut(destination) {
            Some(queue) => queue.put(stored),
            None => self
                .queues
                .entry(destination.to_owned())
                .or_default()
                .put(stored),
        }
    }
}

impl Queue {
    /// Gives the message to the next subscriber, or keeps it.
    fn put(&mut self, stored: Stored) {
        if self.subscribers.is_empty() {
            self.waiting.push_back(stored);
            return;
        }
        self.turn = (self.turn + 1) % self.subscribers.len();
        let subscriber = &self.subscribers[self.turn];
        let mut unacked = lock(&subscriber.unacked);
        unacked.0 += 1;
        let id = unacked.0;
        let flag = if stored.is_redelivered {
            "redelivered:true\n"
        } else {
            ""
        };
        let mut bytes = format!(
            "MESSAGE\nsubscription:0\nmessage-id:m{id}\nack:{id}\n{flag}content-length:{}\n\n",
            stored.body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(&stored.body);
        bytes.push(0);
        if subscriber.ack_mode != "auto" {
            unacked.1.insert(id, stored);
        }
        drop(unacked);
        subscriber.outbox.push(&bytes);
    }
}

/// Length of the head and of the whole frame, once it is all there.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let head_len = memchr::memmem::find(bytes, b"\n\n")? + 2;
    let name = b"\ncontent-length:";
    let body_len = match memchr::memmem::find(&bytes[..head_len], name) {
        Some(at) => {
            let digits = bytes[at + name.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit());
            digits.fold(0, |len, digit| len * 10 + usize::from(digit - b'0'))
        }
        None => 0,
    };
    let frame_len = head_len + body_len + 1;
    (bytes.len() >= frame_len).then_some((head_len, frame_len))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
