//! One shard's thread: carries out what the shard says, on its ring.
//!
//! The whole loop: wait, take completions to the shard, finish the turn, do its actions. Nothing
//! here decides anything about messages.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_journal::storage::IoFailure;
use forebay_journal::{SegmentId, ShardId};
use rustc_hash::FxHashMap;

use super::admin::AdminPort;
use super::bell::Bell;
use super::clock;
use super::mailboxes::Mailboxes;
use super::reactor::{Completion, Received, Ring, Token};
use super::socket::Socket;
use crate::housekeeping::{Request, Response, ShardPort};
use crate::limits::RECEIVE_BUFFER_SIZE_BYTES;
use crate::now::Now;
use crate::shard::{Action, ConnectionId, Failure, ParcelLane, Shard};

/// Token of reads of blocks: the chunk's number with this bit. Connections never have it.
const READ_BACK: u64 = 1 << 63;
/// How long a closed connection may take to read its last frame.
const LINGER_US: u64 = 1_000_000;
/// How long accepting rests when the machine is out of descriptors or memory.
const ACCEPT_REST_US: u64 = 100_000;
/// How soon a parcel that found no room is tried again, should nobody ring.
const RETRY_US: u64 = 1_000;
/// Looks at the ring between two at the clock, while spinning.
const SPINS_PER_LOOK: u32 = 32;

/// What a driver is made of.
pub struct DriverParts {
    /// The shard.
    pub shard: Shard,
    /// Its index.
    pub id: ShardId,
    /// Its ring, with the arena registered.
    pub ring: Ring,
    /// Its listening socket.
    pub listener: OwnedFd,
    /// Files of segments that hold messages, for reading.
    pub files: BTreeMap<SegmentId, OwnedFd>,
    /// Housekeeping.
    pub port: ShardPort,
    /// The other shards.
    pub mailboxes: Mailboxes,
    /// The admin side.
    pub admin: AdminPort,
    /// Wakes it.
    pub bell: Bell,
    /// Whether the node is told to stop.
    pub stop: Arc<AtomicBool>,
    /// How long it looks for work before it sleeps.
    pub busy_poll: Duration,
    /// Most connections of this shard.
    pub connections_max: usize,
}

/// The running half of a shard.
pub struct Driver {
    parts: DriverParts,
    sockets: FxHashMap<ConnectionId, Socket>,
    lingering: VecDeque<ConnectionId>,
    /// Sockets whose receive ended in this turn, and whether it took all there was.
    received: Vec<(ConnectionId, bool)>,
    accept_again_us: Option<u64>,
    has_returned_parcels: bool,
    is_stopping: bool,
}

impl Driver {
    /// Makes a driver; call on the thread that made the ring.
    ///
    /// Errors: out of descriptors.
    pub fn new(mut parts: DriverParts) -> io::Result<Self> {
        parts.ring.watch(parts.bell.descriptor()?);
        Ok(Self {
            parts,
            sockets: FxHashMap::default(),
            lingering: VecDeque::new(),
            received: Vec::new(),
            accept_again_us: None,
            has_returned_parcels: false,
            is_stopping: false,
        })
    }

    /// Turns until the shard can take messages: its first segment is prepared.
    ///
    /// Errors: as [`Self::run`].
    pub fn prepare(&mut self) -> Result<(), Failure> {
        // Nothing has happened yet; this asks for the first segment.
        let now = clock::now();
        self.parts.shard.finish_turn(now);
        self.act(now);
        self.say_pace();
        let mut completions = Vec::new();
        while self.parts.shard.is_waiting_for_segment()
            && !self.parts.shard.is_disk_full()
            && !self.is_stopping
        {
            self.turn(&mut completions)?;
        }
        Ok(())
    }

    /// Accepts connections and turns until the shard is stopped in order.
    ///
    /// Errors: why it had to stop otherwise.
    pub fn run(&mut self) -> Result<(), Failure> {
        self.parts.ring.accept(self.parts.listener.as_raw_fd());
        let mut completions = Vec::new();
        while !self.parts.shard.is_stopped() {
            self.turn(&mut completions)?;
        }
        Ok(())
    }

    fn turn(&mut self, completions: &mut Vec<Completion>) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::Housekeeping(format!("the ring failed: {error}"));
        let timeout_us = self.timeout_us(clock::now());
        if !self.spin(timeout_us).map_err(failed)? {
            self.parts
                .ring
                .submit_and_wait(timeout_us)
                .map_err(failed)?;
        }
        self.parts.ring.reap(completions);
        let now = clock::now();
        for completion in completions.drain(..) {
            self.handle(completion, now);
        }
        self.take_mail();
        self.take_questions();
        self.take_responses().map_err(failed)?;
        self.look_at_clock(now);
        if self.parts.stop.load(Ordering::Relaxed) && !self.is_stopping {
            self.is_stopping = true;
            self.parts.ring.cancel_accepts();
            self.parts.shard.stop(now);
        }
        self.parts.shard.finish_turn(now);
        self.act(now);
        self.receive_again();
        self.say_pace();
        match self.parts.shard.failure() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Looks for work before it sleeps, where that is wanted; whether there is any.
    fn spin(&mut self, timeout_us: Option<u64>) -> io::Result<bool> {
        let most_us = self.parts.busy_poll.as_micros() as u64;
        let spin_us = timeout_us.map_or(most_us, |timeout_us| timeout_us.min(most_us));
        if spin_us == 0 {
            return Ok(false);
        }
        self.parts.ring.submit_queued()?;
        let until_us = clock::monotonic_us() + spin_us;
        while clock::monotonic_us() < until_us {
            for _ in 0..SPINS_PER_LOOK {
                if self.parts.ring.has_work() {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
        }
        Ok(false)
    }

    /// Tells housekeeping how fast it has to be.
    fn say_pace(&self) {
        let DriverParts { shard, port, .. } = &self.parts;
        port.pace.set_ingested(shard.ingested_bytes());
        port.pace.set_waiting(shard.is_waiting_for_segment());
        port.pace.set_sealed_below(shard.sealed_below());
    }

    fn timeout_us(&self, now: Now) -> Option<u64> {
        let oldest = self.lingering.front().and_then(|id| self.sockets.get(id));
        let retry_us = self
            .has_returned_parcels
            .then_some(now.monotonic_us + RETRY_US);
        // A turn takes one parcel of a lane; the bell rang for those behind it already.
        let mail_us = self.has_mail().then_some(now.monotonic_us);
        [
            self.parts.shard.poll_timeout(now),
            oldest.and_then(|socket| socket.lingers_until_us),
            self.accept_again_us,
            retry_us,
            mail_us,
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|due_us| due_us.saturating_sub(now.monotonic_us))
    }

    fn handle(&mut self, completion: Completion, now: Now) {
        match completion {
            Completion::Accepted { result, is_armed } => {
                self.handle_accepted(result, is_armed, now)
            }
            Completion::Received { token, bytes } => self.handle_received(token, bytes, now),
            Completion::ReceiveEnded { token, errno } => self.handle_ended(token, errno, now),
            Completion::Sent {
                token,
                bytes,
                result,
            } => {
                let id = ConnectionId(token.0);
                if let Some(socket) = self.sockets.get_mut(&id) {
                    socket.is_sending = false;
                    self.parts.shard.handle_sent(id, bytes, result.is_ok(), now);
                    self.close_if_idle(id);
                }
            }
            Completion::Written(done) => self.parts.shard.handle_write_done(done, now),
            Completion::Read {
                token,
                buffer,
                result,
            } => {
                let chunk = (token.0 & !READ_BACK) as u32;
                self.parts
                    .shard
                    .handle_read_done(chunk, buffer, result.map_err(IoFailure));
            }
            // Mail and answers are looked at in every turn.
            Completion::Woken => {}
        }
    }

    fn handle_accepted(&mut self, result: Result<OwnedFd, i32>, is_armed: bool, now: Now) {
        let rest_us = if result.is_err() { ACCEPT_REST_US } else { 0 };
        match result {
            // Closed at once: refusing is faster for the client than waiting.
            Ok(_) if self.sockets.len() >= self.parts.connections_max => {}
            Ok(descriptor) => {
                let socket = socket2::SockRef::from(&descriptor);
                // Without it replies only wait longer; nothing is lost.
                let _ = socket.set_tcp_nodelay(true);
                let id = self.parts.shard.handle_connected(now);
                self.sockets.insert(id, Socket::new(descriptor));
                self.receive(id, true);
            }
            Err(_) => {}
        }
        if !is_armed && !self.is_stopping {
            self.accept_again_us = Some(now.monotonic_us + rest_us);
        }
    }

    /// Takes the next buffer from a socket; `is_drained` if the one before took all there was.
    fn receive(&mut self, id: ConnectionId, is_drained: bool) {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        if socket.is_wanted && !socket.is_receiving && !socket.has_ended {
            socket.is_receiving = true;
            self.parts
                .ring
                .receive(Token(id.0), socket.raw(), is_drained);
        }
    }

    fn receive_again(&mut self) {
        let mut received = std::mem::take(&mut self.received);
        for (id, is_drained) in received.drain(..) {
            self.receive(id, is_drained);
        }
        self.received = received;
    }

    fn handle_received(&mut self, token: Token, bytes: Received, now: Now) {
        let id = ConnectionId(token.0);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.is_receiving = false;
            if socket.lingers_until_us.is_none() {
                self.parts.shard.handle_received(id, &bytes, now);
            }
            // Armed again at the end of the turn, when it is known whether more is wanted.
            let is_drained = bytes.len() < RECEIVE_BUFFER_SIZE_BYTES as usize;
            self.received.push((id, is_drained));
        }
        self.parts.ring.give_back(bytes);
    }

    fn handle_ended(&mut self, token: Token, errno: i32, now: Now) {
        let id = ConnectionId(token.0);
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        socket.is_receiving = false;
        match errno {
            libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                self.received.push((id, false));
            }
            0 => {
                socket.has_ended = true;
                self.parts.shard.handle_end_of_input(id, now);
            }
            _ => {
                socket.has_ended = true;
                socket.abort();
                self.parts.shard.handle_closed(id, now);
                socket.lingers_until_us = Some(now.monotonic_us);
            }
        }
        self.close_if_idle(id);
    }

    /// Closes the descriptor when the shard is done with it and nothing is under way.
    fn close_if_idle(&mut self, id: ConnectionId) {
        let Some(socket) = self.sockets.get(&id) else {
            return;
        };
        if socket.lingers_until_us.is_some() && socket.is_idle() {
            self.sockets.remove(&id);
        }
    }

    /// Whether a parcel can be taken at once.
    fn has_mail(&self) -> bool {
        let DriverParts {
            id,
            mailboxes,
            shard,
            ..
        } = &self.parts;
        let mut others = mailboxes.shards().filter(|from| from != id);
        others.any(|from| {
            let mut lanes = ParcelLane::ALL.into_iter();
            lanes.any(|lane| mailboxes.has(*id, from, lane) && shard.wants(from, lane))
        })
    }

    fn take_mail(&mut self) {
        let DriverParts {
            id,
            mailboxes,
            shard,
            ..
        } = &mut self.parts;
        for from in mailboxes.shards().filter(|from| from != id) {
            for lane in ParcelLane::ALL {
                while shard.wants(from, lane)
                    && let Some(parcel) = mailboxes.take(*id, from, lane)
                {
                    shard.handle_parcel(from, parcel);
                }
            }
        }
    }

    fn take_questions(&mut self) {
        while let Some(question) = self.parts.admin.take() {
            self.parts.shard.handle_admin(question);
        }
    }

    fn take_responses(&mut self) -> io::Result<()> {
        while let Some(response) = self.parts.port.poll() {
            match response {
                Response::Prepared { head, file } => {
                    self.parts.files.insert(head.segment, file.try_clone()?);
                    if let Some(oldest) = self.parts.shard.oldest_segment_to_write() {
                        self.parts.ring.drop_segments_before(oldest)?;
                    }
                    self.parts.ring.add_segment(head.segment, file)?;
                    self.parts.shard.handle_segment(head);
                }
                Response::NoSpace => self.parts.shard.handle_disk_full(),
                Response::Failed { reason } => self.parts.shard.handle_housekeeping_failure(reason),
            }
        }
        Ok(())
    }

    fn look_at_clock(&mut self, now: Now) {
        if self
            .accept_again_us
            .is_some_and(|due_us| due_us <= now.monotonic_us)
        {
            self.accept_again_us = None;
            self.parts.ring.accept(self.parts.listener.as_raw_fd());
        }
        while let Some(&id) = self.lingering.front() {
            match self.sockets.get(&id) {
                None => {}
                Some(socket) if socket.lingers_until_us > Some(now.monotonic_us) => return,
                // What is under way completes now, and then it is closed.
                Some(socket) => socket.abort(),
            }
            self.lingering.pop_front();
            self.close_if_idle(id);
        }
    }

    fn act(&mut self, now: Now) {
        self.has_returned_parcels = false;
        let mut freed_later = Vec::new();
        while let Some(action) = self.parts.shard.poll_action(now) {
            match action {
                Action::Send { connection, bytes } => self.send(connection, bytes, now),
                Action::StopReading(id) => {
                    if let Some(socket) = self.sockets.get_mut(&id) {
                        socket.is_wanted = false;
                    }
                }
                Action::Read(id) => {
                    if let Some(socket) = self.sockets.get_mut(&id) {
                        socket.is_wanted = true;
                        self.receive(id, false);
                    }
                }
                Action::Close(id) => self.close(id, now),
                Action::Tell(answer) => self.parts.admin.tell(*answer),
                Action::Warn(report) => tracing::warn!("{report}"),
                Action::Write(write) => self.parts.ring.write(write),
                Action::ReadBack(read) => match self.parts.files.get(&read.segment) {
                    Some(file) => {
                        let token = Token(READ_BACK | u64::from(read.chunk));
                        let file = file.as_raw_fd();
                        self.parts.ring.read(token, file, read.offset, read.buffer);
                    }
                    // A read ahead of the last segment.
                    None => self
                        .parts
                        .shard
                        .handle_read_done(read.chunk, read.buffer, Ok(0)),
                },
                Action::Prepare(segment) => {
                    let asked = self.parts.port.ask(Request::Prepare(segment));
                    assert!(asked.is_ok(), "a shard asks for few segments at a time");
                }
                Action::Free(segments) => {
                    for segment in segments.as_slice() {
                        self.parts.files.remove(segment);
                    }
                    if self.parts.port.is_busy() {
                        freed_later.push(segments);
                        continue;
                    }
                    let asked = self.parts.port.ask(Request::Free(segments));
                    assert!(asked.is_ok(), "there was room");
                }
            }
        }
        while let Some((to, parcel)) = self.parts.shard.poll_parcel() {
            if let Some(parcel) = self.parts.mailboxes.put(self.parts.id, to, parcel) {
                self.has_returned_parcels = true;
                self.parts.shard.give_back(to, parcel);
            }
        }
        for segments in freed_later {
            self.parts.shard.give_back_free(&segments);
        }
    }

    fn send(&mut self, id: ConnectionId, bytes: Vec<u8>, now: Now) {
        match self.sockets.get_mut(&id) {
            Some(socket) => {
                socket.is_sending = true;
                self.parts.ring.send(Token(id.0), socket.raw(), bytes);
            }
            None => self.parts.shard.handle_sent(id, bytes, false, now),
        }
    }

    fn close(&mut self, id: ConnectionId, now: Now) {
        self.parts.shard.handle_closed(id, now);
        let Some(socket) = self.sockets.get_mut(&id) else {
            return;
        };
        if socket.lingers_until_us.is_some() {
            return;
        }
        socket.end_output();
        socket.is_wanted = true;
        socket.lingers_until_us = Some(now.monotonic_us + LINGER_US);
        self.lingering.push_back(id);
        if !socket.has_ended {
            self.receive(id, false);
        }
        self.close_if_idle(id);
    }
}
