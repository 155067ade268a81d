//! What crosses between shards: once per turn and peer, many commands or replies in one parcel.
//!
//! A parcel owns its bytes; commands refer to them by range. Messages, control commands and
//! replies travel in lanes of their own, so that a shard that must let messages wait still settles.

use std::mem;

use super::ConnectionId;
use super::host::Lane;
use crate::frontend::{Command, Reply};
use crate::limits::{PARCEL_EMPTIES_MAX, PARCEL_ENTRIES_MAX, PARCEL_SIZE_MAX_BYTES};

/// Bytes of a parcel, as a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

/// Values with their bytes in one buffer.
#[derive(Debug)]
pub(super) struct Load<T> {
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

    fn emptied(mut self) -> Self {
        self.entries.clear();
        self.bytes.clear();
        self
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

impl Commands {
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

impl Replies {
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

/// Commands that cross.
pub(super) type Commands = Load<Command<Span>>;
/// Replies that cross, with the bytes each counts against its connection's window.
pub(super) type Replies = Load<(Reply<Span>, u64)>;

/// What crosses.
#[derive(Debug)]
pub struct Parcel {
    pub(super) content: Content,
    /// Loads of the receiver's that were worked off: they go home, so that a shard which mostly
    /// sends one way needs no new ones.
    pub(super) empties: Empties,
}

/// What a parcel is for.
#[derive(Debug)]
pub(super) enum Content {
    /// Commands of one lane.
    Commands(Lane, Commands),
    /// Replies.
    Replies(Replies),
}

/// Loads without content, kept for their memory: never more than have a place here.
#[derive(Debug, Default)]
pub(super) struct Empties {
    commands: [Option<Commands>; EMPTIES_MAX],
    replies: [Option<Replies>; EMPTIES_MAX],
}

/// Of each kind: one for each lane of commands.
const EMPTIES_MAX: usize = PARCEL_EMPTIES_MAX as usize;

/// Puts a load where there is room; else its memory is given back.
fn keep<T>(places: &mut [Option<T>], load: T) {
    if let Some(place) = places.iter_mut().find(|place| place.is_none()) {
        *place = Some(load);
    }
}

fn take<T: Default>(places: &mut [Option<T>]) -> T {
    let kept = places.iter_mut().find_map(Option::take);
    kept.unwrap_or_default()
}

impl Empties {
    fn keep(&mut self, others: Self) {
        let Self { commands, replies } = others;
        let commands = commands.into_iter().flatten();
        commands.for_each(|load| keep(&mut self.commands, load));
        let replies = replies.into_iter().flatten();
        replies.for_each(|load| keep(&mut self.replies, load));
    }
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
        match self.content {
            Content::Commands(Lane::Message, _) => ParcelLane::Messages,
            Content::Commands(Lane::Control, _) => ParcelLane::Control,
            Content::Replies(_) => ParcelLane::Replies,
        }
    }
}

/// What gathers for one peer during a turn, and what its mailbox had no room for.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    messages: Commands,
    control: Commands,
    replies: Replies,
    /// Emptied loads of our own, to gather in next.
    spare: Empties,
    /// Emptied loads of the peer's, to go home with the next parcel.
    homeward: Empties,
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
        let content = match lane {
            ParcelLane::Messages => {
                let next = take(&mut self.spare.commands);
                Content::Commands(Lane::Message, mem::replace(&mut self.messages, next))
            }
            ParcelLane::Control => {
                let next = take(&mut self.spare.commands);
                Content::Commands(Lane::Control, mem::replace(&mut self.control, next))
            }
            ParcelLane::Replies => {
                let next = take(&mut self.spare.replies);
                Content::Replies(mem::replace(&mut self.replies, next))
            }
        };
        let empties = mem::take(&mut self.homeward);
        Some(Parcel { content, empties })
    }

    /// Our own loads came back.
    pub(super) fn keep(&mut self, empties: Empties) {
        self.spare.keep(empties);
    }

    /// The peer's commands are worked off.
    pub(super) fn send_home(&mut self, load: Commands) {
        keep(&mut self.homeward.commands, load.emptied());
    }

    /// The peer's replies are worked off.
    pub(super) fn send_replies_home(&mut self, load: Replies) {
        keep(&mut self.homeward.replies, load.emptied());
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
