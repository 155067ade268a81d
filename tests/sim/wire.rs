//! One simulated connection: bytes on their way in both directions, and what leaves the broker
//! read at the moment it leaves.

use std::collections::{BTreeMap, VecDeque};

use crate::frame::{Frame, Parser, Seen};
use crate::kinds::{self, ShelfId};
use crate::ledger::{SessionId, Uid};
use crate::transaction::TransactionId;

/// What a receipt promises.
#[derive(Clone, Debug)]
pub(crate) enum Promise {
    Send(Uid),
    Subscribe(SessionId),
    /// Messages with their names in the broker: shard and number.
    Ack(Vec<(Uid, (u16, u64))>),
    /// The same of a transaction that commits.
    Commit(TransactionId, Vec<(Uid, (u16, u64))>),
    Unsubscribe(SessionId),
    /// All that the connection sent.
    Goodbye,
    /// To a client of a kind.
    Kind(kinds::Promise),
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) client: usize,
    pub(crate) shard: usize,
    /// Written by the client, not yet read by the broker.
    pub(crate) inbound: VecDeque<u8>,
    /// Whether the broker reads.
    pub(crate) is_wanted: bool,
    pub(crate) is_inbound_due: bool,
    pub(crate) is_half_closed: bool,
    pub(crate) has_told_end: bool,
    /// Of a send under way: the buffer and how many of its bytes the socket took.
    pub(crate) sending: Option<(Vec<u8>, usize)>,
    /// Bytes in the socket's buffer, and how many fit.
    pub(crate) buffered: usize,
    pub(crate) room: usize,
    pub(crate) is_outbound_due: bool,
    /// The broker closed its side.
    pub(crate) is_closed: bool,
    pub(crate) is_slow: bool,
    /// Whether the client did something that asks for an ERROR.
    pub(crate) is_provoked: bool,
    pub(crate) got_error: bool,
    parser: Parser,
    left_bytes: u64,
    read_bytes: u64,
    frames: VecDeque<(u64, Frame)>,
    pub(crate) promises: BTreeMap<String, Promise>,
    pub(crate) sent: Vec<Uid>,
    /// Settled by ACK, with the names in the broker.
    pub(crate) acked: Vec<(Uid, (u16, u64))>,
    /// By id of the subscription.
    pub(crate) sessions: BTreeMap<String, SessionId>,
    /// Of a client of a kind: its subscriptions, and what it took.
    pub(crate) seats: Vec<(ShelfId, SessionId)>,
    pub(crate) taken: Vec<kinds::Taken>,
}

impl Wire {
    pub(crate) fn new(client: usize, shard: usize, room: usize, is_slow: bool) -> Self {
        Self {
            client,
            shard,
            inbound: VecDeque::new(),
            is_wanted: true,
            is_inbound_due: false,
            is_half_closed: false,
            has_told_end: false,
            sending: None,
            buffered: 0,
            room,
            is_outbound_due: false,
            is_closed: false,
            is_slow,
            is_provoked: false,
            got_error: false,
            parser: Parser::default(),
            left_bytes: 0,
            read_bytes: 0,
            frames: VecDeque::new(),
            promises: BTreeMap::new(),
            sent: Vec::new(),
            acked: Vec::new(),
            sessions: BTreeMap::new(),
            seats: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Bytes leave the broker.
    ///
    /// Errors: they are no STOMP.
    pub(crate) fn depart(&mut self, bytes: &[u8]) -> Result<Vec<Seen>, String> {
        let mut seen = Vec::new();
        self.left_bytes += bytes.len() as u64;
        self.parser.push(bytes, &mut seen)?;
        for one in &seen {
            if let Seen::Whole(frame, end) = one {
                self.frames.push_back((*end, frame.clone()));
            }
        }
        Ok(seen)
    }

    /// Moves what fits from the send under way into the socket; the buffer when all of it went.
    pub(crate) fn fill(&mut self) -> Option<Vec<u8>> {
        let (bytes, taken) = self.sending.as_mut()?;
        let count = (bytes.len() - *taken).min(self.room - self.buffered);
        *taken += count;
        self.buffered += count;
        if *taken < bytes.len() {
            return None;
        }
        self.sending.take().map(|(bytes, _)| bytes)
    }

    /// The client reads up to `count` bytes; the frames that are whole now.
    pub(crate) fn read(&mut self, count: usize) -> Vec<Frame> {
        let count = count.min(self.buffered);
        self.buffered -= count;
        self.read_bytes += count as u64;
        let mut frames = Vec::new();
        while let Some((end, _)) = self.frames.front()
            && *end <= self.read_bytes
        {
            frames.extend(self.frames.pop_front().map(|(_, frame)| frame));
        }
        frames
    }

    /// The message that left in part.
    pub(crate) fn under_way(&self) -> Option<Uid> {
        Uid::parse(self.parser.under_way()?.header("uid")?)
    }
}
