//! Selectors: of a topic's queues, which may leave out their own client as well, and of consumers
//! and browsers of queues.
//!
//! A topic's are asked when a message comes, before anything is stored: its queues hold only what
//! they want. The others are asked about what is there: see `examine.rs`.
//! Selectors that say the same are held once and asked once for each message. Owns the parsed
//! selectors; the queue machine owns their texts, and a start reads them from there.

use core::fmt;

use forebay_journal::QueueId;
use rustc_hash::FxHashMap;

use crate::frontend::{Header, Message, Refusal, owner};
use crate::limits::SELECTORS_MEMORY_MAX_BYTES;
use crate::queue::{ConsumerId, FilterId, Machine, Routed};
use crate::selector::Selector;
use crate::shard::ConnectionId;

/// A selector and who uses it.
#[derive(Debug)]
struct Held {
    selector: Selector,
    users: usize,
    /// The number of the message that it was asked about last, and what it said.
    asked: u64,
    said: bool,
}

/// What a queue wants, where that is not everything.
#[derive(Debug)]
struct Narrow {
    filter: Option<FilterId>,
    /// Whose messages it leaves out.
    unwanted: Option<Sender>,
}

#[derive(Debug)]
enum Sender {
    /// Of a plain subscription: its connection.
    Connection(ConnectionId),
    /// Of a durable one: its client, on whatever connection.
    Client(Box<[u8]>),
}

/// A message on offer.
pub(super) struct Offered<'a> {
    pub(super) link: ConnectionId,
    pub(super) client: Option<&'a [u8]>,
    pub(super) header: Header,
    pub(super) encoding: u8,
    pub(super) head: &'a [u8],
}

/// A selector in the journal that does not parse: damage that no checksum shows, or a journal that
/// a later release wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsoundSelector {
    /// The queue.
    pub queue: QueueId,
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for UnsoundSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            queue,
            name,
            reason,
        } = self;
        write!(
            f,
            "queue {} ({name:?}) has a selector that cannot be read: {reason}",
            queue.0
        )
    }
}

impl core::error::Error for UnsoundSelector {}

/// Checks the selectors of all queues, as a start has to before it serves.
///
/// Errors: the first one that does not parse.
pub fn check_selectors(machine: &Machine) -> Result<(), UnsoundSelector> {
    Filters::of(machine).map(|_| ())
}

/// The selectors of a shard, and the queues that do not want every message.
#[derive(Debug, Default)]
pub(super) struct Filters {
    places: Vec<Option<Held>>,
    free: Vec<FilterId>,
    by_text: FxHashMap<Box<str>, FilterId>,
    /// Memory of the selectors.
    used_bytes: u64,
    queues: FxHashMap<QueueId, Narrow>,
    /// Consumers of queues with a selector of their own.
    consumers: FxHashMap<ConsumerId, FilterId>,
    /// Messages narrowed so far.
    message: u64,
}

impl Filters {
    /// Those of the queues that a replay found.
    pub(super) fn of(machine: &Machine) -> Result<Self, UnsoundSelector> {
        let mut this = Self::default();
        for queue in machine.queues() {
            this.narrow_queue(machine, queue, None)
                .map_err(|reason| UnsoundSelector {
                    queue,
                    name: String::from_utf8_lossy(machine.name(queue).unwrap_or_default()).into(),
                    reason,
                })?;
        }
        Ok(this)
    }

    /// Whether a selector may be held beside the others.
    ///
    /// Errors: `SelectorsFull`; `SelectorUnsound`.
    pub(super) fn check(&self, filter: &[u8]) -> Result<(), Refusal> {
        let Some(text) = sound(filter).map_err(|_| Refusal::SelectorUnsound)? else {
            return Ok(());
        };
        if self.by_text.contains_key(text) {
            return Ok(());
        }
        let selector = Selector::parse(text).map_err(|_| Refusal::SelectorUnsound)?;
        let max = SELECTORS_MEMORY_MAX_BYTES;
        if self.used_bytes + selector.size_bytes() as u64 > max {
            return Err(Refusal::SelectorsFull { max });
        }
        Ok(())
    }

    /// Notes what a queue wants, as its definition says; `link` is whose plain subscription it is.
    ///
    /// Errors: its selector is none, and why.
    pub(super) fn narrow_queue(
        &mut self,
        machine: &Machine,
        queue: QueueId,
        link: Option<ConnectionId>,
    ) -> Result<(), String> {
        let text = sound(machine.filter(queue).unwrap_or_default())?;
        let filter = text.map(|text| self.hold_text(text)).transpose()?;
        let flags = machine.flags(queue).unwrap_or_default();
        let unwanted = if !flags.is_no_local {
            None
        } else if flags.is_subscription {
            let name = machine.name(queue).unwrap_or_default();
            Some(Sender::Client(owner(name).into()))
        } else {
            link.map(Sender::Connection)
        };
        if filter.is_some() || unwanted.is_some() {
            self.queues.insert(queue, Narrow { filter, unwanted });
        }
        Ok(())
    }

    /// A queue is gone.
    pub(super) fn forget(&mut self, queue: QueueId) {
        if self.queues.is_empty() {
            return;
        }
        let gone = self.queues.remove(&queue);
        self.let_go(gone.and_then(|narrow| narrow.filter));
    }

    /// Whether any queue does not want every message.
    pub(super) fn is_any_narrow(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Leaves out the queues that do not want a message.
    ///
    /// Cost: O(queues that it would go to), and each distinct selector of theirs asked once. It
    /// allocates nothing, unless a value that is asked for has escapes.
    pub(super) fn narrow(&mut self, offered: &Offered<'_>, routed: &mut Routed) {
        self.message += 1;
        let Self {
            queues,
            places,
            message: number,
            ..
        } = self;
        let mut message = None;
        routed.retain(|queue| {
            let Some(narrow) = queues.get(&queue) else {
                return true;
            };
            if narrow
                .unwanted
                .as_ref()
                .is_some_and(|one| one.sent(offered))
            {
                return false;
            }
            let held = narrow
                .filter
                .and_then(|FilterId(at)| places[at as usize].as_mut());
            let Some(held) = held else {
                return true;
            };
            if held.asked != *number {
                let (header, encoding) = (offered.header, offered.encoding);
                let message =
                    message.get_or_insert_with(|| Message::new(header, encoding, offered.head));
                (held.asked, held.said) = (*number, held.selector.matches(message));
            }
            held.said
        });
    }

    /// Holds a selector that [`Self::check`] let pass; none for no selector. [`Self::let_go`]
    /// follows, or [`Self::join`].
    ///
    /// Panics: if it was not checked (our own mistake).
    pub(super) fn hold(&mut self, filter: &[u8]) -> Option<FilterId> {
        let text = sound(filter).expect("the selector was checked")?;
        Some(self.hold_text(text).expect("the selector was checked"))
    }

    /// A consumer with this selector is attached.
    pub(super) fn join(&mut self, consumer: ConsumerId, filter: Option<FilterId>) {
        if let Some(filter) = filter {
            self.consumers.insert(consumer, filter);
        }
    }

    /// A consumer is gone.
    pub(super) fn part(&mut self, consumer: ConsumerId) {
        if !self.consumers.is_empty() {
            let filter = self.consumers.remove(&consumer);
            self.let_go(filter);
        }
    }

    /// Whether any consumer has a selector of its own.
    pub(super) fn has_consumers(&self) -> bool {
        !self.consumers.is_empty()
    }

    /// Whether a selector that is held wants a message.
    pub(super) fn matches(&self, filter: FilterId, message: &Message<'_>) -> bool {
        let held = self.places.get(filter.0 as usize);
        let held = held.and_then(Option::as_ref);
        held.is_some_and(|held| held.selector.matches(message))
    }

    fn hold_text(&mut self, text: &str) -> Result<FilterId, String> {
        if let Some(id) = self.share(text) {
            return Ok(id);
        }
        let selector = Selector::parse(text).map_err(|error| error.to_string())?;
        // Another release may have written the same selector in another way.
        if let Some(id) = self.share(selector.text()) {
            return Ok(id);
        }
        self.used_bytes += selector.size_bytes() as u64;
        let held = Held {
            selector,
            users: 1,
            asked: 0,
            said: false,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            FilterId((self.places.len() - 1) as u64)
        });
        self.by_text.insert(held.selector.text().into(), id);
        self.places[id.0 as usize] = Some(held);
        Ok(id)
    }

    /// Adds a user to the selector of this canonical text, if it is held.
    fn share(&mut self, text: &str) -> Option<FilterId> {
        let id = *self.by_text.get(text)?;
        self.places[id.0 as usize].as_mut()?.users += 1;
        Some(id)
    }

    /// Somebody who held a selector does so no more.
    pub(super) fn let_go(&mut self, filter: Option<FilterId>) {
        let Some(id) = filter else { return };
        let place = &mut self.places[id.0 as usize];
        let Some(held) = place else { return };
        held.users -= 1;
        if held.users > 0 {
            return;
        }
        self.used_bytes -= held.selector.size_bytes() as u64;
        self.by_text.remove(held.selector.text());
        *place = None;
        self.free.push(id);
    }
}

impl Sender {
    fn sent(&self, offered: &Offered<'_>) -> bool {
        match self {
            Self::Connection(link) => *link == offered.link,
            Self::Client(client) => offered.client == Some(client),
        }
    }
}

/// The text of a filter as it is journaled; none for no filter.
fn sound(filter: &[u8]) -> Result<Option<&str>, String> {
    let text = core::str::from_utf8(filter).map_err(|error| error.to_string())?;
    Ok((!text.is_empty()).then_some(text))
}
