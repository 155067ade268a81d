//! What crosses between shards: once per turn and peer, many commands or replies in one parcel.
//!
//! A parcel owns its bytes; commands refer to them by range. Messages, control commands and
//! replies travel in lanes of their own, so that a shard that must let messages wait still settles.

use super::ConnectionId;
use super::host::Lane;
use crate::frontend::{Command, Reply};
use crate::limits::{PARCEL_ENTRIES_MAX, PARCEL_SIZE_MAX_BYTES};

/// Bytes of a parcel, as a range.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    start: u32,
    len: u32,
}

/// Values with their bytes in one buffer.
#[derive(Debug)]
pub struct Load<T> {
    entries: Vec<(ConnectionId, T)>,
    bytes: Vec<u8>,
}

impl<T> Default for Load<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            bytes: Vec::new(),
        }
    }
}

impl<T> Load<T> {
    fn hold(bytes: &mut Vec<u8>) -> impl FnMut(&[u8]) -> Span {
        |piece| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(piece);
            Span {
                start,
                len: piece.len() as u32,
            }
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() as u64 >= PARCEL_SIZE_MAX_BYTES
            || self.entries.len() >= PARCEL_ENTRIES_MAX as usize
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn bytes_of<'a>(bytes: &'a [u8]) -> impl FnMut(Span) -> &'a [u8] {
    |span| &bytes[span.start as usize..(span.start + span.len) as usize]
}

/// The estimate of `limits.rs`: a full parcel's entries are about as large as its bytes.
const _: () = assert!(
    size_of::<(ConnectionId, Command<Span>)>() as u64 * PARCEL_ENTRIES_MAX as u64
        <= PARCEL_SIZE_MAX_BYTES
);

impl Load<Command<Span>> {
    pub(super) fn push(&mut self, link: ConnectionId, command: Command<&[u8]>) {
        let command = command.map(&mut Self::hold(&mut self.bytes));
        self.entries.push((link, command));
    }

    /// Bytes it holds, entries included.
    pub(super) fn size(&self) -> u64 {
        (self.bytes.len() + size_of_val(self.entries.as_slice())) as u64
    }

    /// The command at `index`.
    pub(super) fn command(&self, index: usize) -> Option<(ConnectionId, Command<&[u8]>)> {
        let (link, command) = self.entries.get(index)?;
        Some((*link, command.map(&mut bytes_of(&self.bytes))))
    }
}

impl Load<(Reply<Span>, u64)> {
    fn push(&mut self, to: ConnectionId, reply: Reply<&[u8]>, delivered_bytes: u64) {
        let reply = reply.map(&mut Self::hold(&mut self.bytes));
        self.entries.push((to, (reply, delivered_bytes)));
    }

    pub(super) fn replies(&self) -> impl Iterator<Item = (ConnectionId, Reply<&[u8]>, u64)> {
        self.entries.iter().map(|(to, (reply, delivered_bytes))| {
            (*to, reply.map(&mut bytes_of(&self.bytes)), *delivered_bytes)
        })
    }
}

/// What crosses.
#[derive(Debug)]
pub enum Parcel {
    /// Commands of one lane.
    Commands(Lane, Load<Command<Span>>),
    /// Replies, with the bytes each counts against its connection's window.
    Replies(Load<(Reply<Span>, u64)>),
}

/// The three lanes from one shard to another, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParcelLane {
    /// Messages.
    Messages = 0,
    /// Control commands.
    Control = 1,
    /// Replies.
    Replies = 2,
}

impl ParcelLane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Control, Self::Replies];
}

impl Parcel {
    /// The lane it travels in.
    pub const fn lane(&self) -> ParcelLane {
        match self {
            Self::Commands(Lane::Message, _) => ParcelLane::Messages,
            Self::Commands(Lane::Control, _) => ParcelLane::Control,
            Self::Replies(_) => ParcelLane::Replies,
        }
    }
}

/// What gathers for one peer during a turn, and what its mailbox had no room for.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    messages: Load<Command<Span>>,
    control: Load<Command<Span>>,
    replies: Load<(Reply<Span>, u64)>,
    returned: [Option<Parcel>; 3],
    /// Lanes whose mailbox had no room in this turn.
    is_blocked: [bool; 3],
}

impl Outgoing {
    /// A new turn: the mailboxes may have room again.
    pub(super) fn begin_turn(&mut self) {
        self.is_blocked = [false; 3];
    }

    fn may_leave(&self, lane: ParcelLane) -> bool {
        !self.is_blocked[lane as usize]
    }

    /// Whether a command of this lane may be added.
    pub(super) fn admits(&self, lane: Lane) -> bool {
        match lane {
            Lane::Message => {
                self.returned[ParcelLane::Messages as usize].is_none() && !self.messages.is_full()
            }
            Lane::Control => {
                self.returned[ParcelLane::Control as usize].is_none() && !self.control.is_full()
            }
        }
    }

    pub(super) fn push_command(&mut self, lane: Lane, link: ConnectionId, command: Command<&[u8]>) {
        match lane {
            Lane::Message => self.messages.push(link, command),
            Lane::Control => self.control.push(link, command),
        }
    }

    pub(super) fn push_reply(&mut self, to: ConnectionId, reply: &Reply<&[u8]>, bytes: u64) {
        self.replies.push(to, *reply, bytes);
    }

    /// The next parcel to put into the peer's mailbox.
    pub(super) fn poll(&mut self) -> Option<Parcel> {
        let lane = ParcelLane::ALL.into_iter().find(|&lane| {
            self.may_leave(lane) && (self.returned[lane as usize].is_some() || self.has_load(lane))
        })?;
        if let Some(parcel) = self.returned[lane as usize].take() {
            return Some(parcel);
        }
        Some(match lane {
            ParcelLane::Messages => {
                Parcel::Commands(Lane::Message, std::mem::take(&mut self.messages))
            }
            ParcelLane::Control => {
                Parcel::Commands(Lane::Control, std::mem::take(&mut self.control))
            }
            ParcelLane::Replies => Parcel::Replies(std::mem::take(&mut self.replies)),
        })
    }

    fn has_load(&self, lane: ParcelLane) -> bool {
        match lane {
            ParcelLane::Messages => !self.messages.is_empty(),
            ParcelLane::Control => !self.control.is_empty(),
            ParcelLane::Replies => !self.replies.is_empty(),
        }
    }

    /// The mailbox had no room: keep the parcel; its senders wait.
    pub(super) fn give_back(&mut self, parcel: Parcel) {
        let place = &mut self.returned[parcel.lane() as usize];
        assert!(
            place.is_none(),
            "one parcel of a lane is under way at a time"
        );
        self.is_blocked[parcel.lane() as usize] = true;
        *place = Some(parcel);
    }
}
