//! A limit over all shards of the node, as one shard knows it: how much of it is this shard's.
//!
//! The parts of all shards and what is on its way between them make up the limit at any time. A
//! shard that used up its own part asks the others, which give of what they have left; one that has
//! nothing says so, and gives once it has. So nothing is shared, a shard with room asks nobody, and
//! the sum of what shards take never passes the limit by more than they take unasked.
//!
//! Invariant, over all shards: parts + gifts under way = limit. A shard whose ask was answered by
//! nothing is owed by whoever answered so.

use super::entry::Entry;

/// What is counted of the messages in the queues of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages; one in two queues counts twice.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Held {
    pub(super) fn enter(&mut self, entry: &Entry) {
        self.messages += 1;
        self.bytes += u64::from(entry.size_bytes);
    }

    pub(super) fn leave(&mut self, entry: &Entry) {
        self.messages -= 1;
        self.bytes -= u64::from(entry.size_bytes);
    }
}

/// Limits over all addresses of the node; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalLimits {
    /// Most messages.
    pub messages: Option<u64>,
    /// Most bytes.
    pub bytes: Option<u64>,
}

/// Which of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// [`Held::messages`].
    Messages,
    /// [`Held::bytes`].
    Bytes,
}

/// What one shard says to another about a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaWord {
    /// Give me of what you have left. So much I took already: it comes first.
    Ask {
        /// What is beyond the part.
        debt: u64,
    },
    /// This much of my part is yours. Zero: there is nothing, and you get some once there is.
    Give {
        /// How much.
        amount: u64,
    },
}

/// A word about one of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaNote {
    /// About which.
    pub measure: Measure,
    /// What is said.
    pub word: QuotaWord,
}

/// Whether there is room for one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    Yes,
    /// The others are asked, or have their turn.
    Unsure,
    /// No shard has any.
    No,
}

/// What another shard was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    Nothing,
    Waiting,
    /// It had nothing; it gives unasked once it has.
    HasNothing,
}

/// What another shard asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owed {
    debt: u64,
    is_answered: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    asked: Asked,
    owed: Option<Owed>,
}

/// One limit, on one shard.
#[derive(Debug)]
pub(super) struct Quota {
    own: usize,
    /// The part of the limit that is this shard's.
    part: u64,
    /// By shard; its own place is empty.
    peers: Vec<Peer>,
    /// Somebody here found no room, and nobody found any since.
    is_wanting: bool,
    /// Somebody here found room in this turn.
    has_taken: bool,
    /// Some was taken here while another shard is owed: what comes next is for the others.
    is_others_turn: bool,
    /// Who is given first.
    next: usize,
}

impl Quota {
    /// Whether one more message may come; `held` is what is there. Asked again in the same turn,
    /// with the same there, it answers the same.
    pub(super) fn room(&mut self, held: u64) -> Room {
        let has_some = self.part > held;
        if has_some && !self.is_others_turn {
            self.is_wanting = false;
            self.has_taken = true;
            return Room::Yes;
        }
        self.is_wanting = true;
        if has_some || !self.others().all(|one| one.asked == Asked::HasNothing) {
            Room::Unsure
        } else {
            Room::No
        }
    }

    /// Hears what another shard says.
    pub(super) fn take(&mut self, from: usize, word: QuotaWord) {
        let Some(peer) = self.peers.get_mut(from).filter(|_| from != self.own) else {
            return;
        };
        match word {
            QuotaWord::Ask { debt } => {
                let is_answered = false;
                peer.owed = Some(Owed { debt, is_answered });
            }
            QuotaWord::Give { amount: 0 } => peer.asked = Asked::HasNothing,
            QuotaWord::Give { amount } => {
                peer.asked = Asked::Nothing;
                self.part += amount;
            }
        }
    }

    /// Asks and gives: once at the end of a turn. Whether who waits here may find room in the next.
    pub(super) fn step(&mut self, held: u64, mut say: impl FnMut(usize, QuotaWord)) -> bool {
        let has_taken = core::mem::take(&mut self.has_taken);
        self.is_others_turn |= has_taken && self.owes();
        let left = self.part.saturating_sub(held);
        if left == 0 {
            self.ask(held, &mut say);
        } else if self.owes() && self.is_wanting && !self.is_others_turn {
            // Who waits here is first, once.
            self.is_wanting = false;
            return true;
        } else if self.owes() {
            self.give(left, &mut say);
            self.is_others_turn = false;
            self.answer(&mut say);
            return self.part > held;
        } else {
            self.is_others_turn = false;
        }
        self.answer(&mut say);
        false
    }

    fn ask(&mut self, held: u64, say: &mut impl FnMut(usize, QuotaWord)) {
        let debt = held - self.part;
        if !self.is_wanting && debt == 0 {
            return;
        }
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if index != self.own && peer.asked == Asked::Nothing {
                peer.asked = Asked::Waiting;
                say(index, QuotaWord::Ask { debt });
            }
        }
    }

    /// Gives half of what is left to the next that asked, half of the rest to the one behind it;
    /// what they took already is given first.
    fn give(&mut self, mut left: u64, say: &mut impl FnMut(usize, QuotaWord)) {
        let count = self.peers.len();
        let first = self.next;
        for index in (0..count).map(|at| (first + at) % count) {
            let Some(owed) = self.peers[index].owed.filter(|_| left > 0) else {
                continue;
            };
            let debt = owed.debt.min(left);
            let amount = debt + (left - debt).div_ceil(2);
            left -= amount;
            self.part -= amount;
            self.peers[index].owed = None;
            self.next = index + 1;
            say(index, QuotaWord::Give { amount });
        }
    }

    /// Tells those that ask that there is nothing.
    fn answer(&mut self, say: &mut impl FnMut(usize, QuotaWord)) {
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if let Some(owed) = peer.owed.as_mut().filter(|owed| !owed.is_answered) {
                owed.is_answered = true;
                say(index, QuotaWord::Give { amount: 0 });
            }
        }
    }

    fn owes(&self) -> bool {
        self.peers.iter().any(|peer| peer.owed.is_some())
    }

    fn others(&self) -> impl Iterator<Item = &Peer> {
        let peers = self.peers.iter().enumerate();
        peers
            .filter(|(index, _)| *index != self.own)
            .map(|(_, peer)| peer)
    }

    /// The quotas of all shards, each with what it holds; what is left is spread evenly.
    fn of_all(limit: u64, held: &[u64]) -> Vec<Self> {
        let mut left = limit;
        let parts: Vec<u64> = held
            .iter()
            .map(|held| {
                let part = left.min(*held);
                left -= part;
                part
            })
            .collect();
        let count = held.len() as u64;
        let quota = |(own, part): (usize, u64)| Self {
            own,
            part: part + left / count + u64::from((own as u64) < left % count),
            peers: vec![Peer::default(); held.len()],
            is_wanting: false,
            has_taken: false,
            is_others_turn: false,
            next: 0,
        };
        parts.into_iter().enumerate().map(quota).collect()
    }
}

/// The global limits, on one shard.
#[derive(Debug, Default)]
pub struct Quotas {
    messages: Option<Quota>,
    bytes: Option<Quota>,
    /// To be said: to which shard, and what.
    words: Vec<(u16, QuotaNote)>,
}

impl Quotas {
    /// The quotas of all shards, which hold so much now.
    pub fn of_all(limits: GlobalLimits, held: &[Held]) -> Vec<Self> {
        let quotas = |limit: Option<u64>, of: fn(&Held) -> u64| {
            let held: Vec<u64> = held.iter().map(of).collect();
            let quotas = limit.map(|limit| Quota::of_all(limit, &held));
            quotas.into_iter().flatten()
        };
        let mut messages = quotas(limits.messages, |held| held.messages);
        let mut bytes = quotas(limits.bytes, |held| held.bytes);
        let one = |_: &Held| Self {
            messages: messages.next(),
            bytes: bytes.next(),
            words: Vec::new(),
        };
        held.iter().map(one).collect()
    }

    /// A shard that does not serve gives nothing of its part, and has nothing to ask for.
    pub fn leave_out(&mut self, shard: u16) {
        let quotas = [&mut self.messages, &mut self.bytes];
        for quota in quotas.into_iter().flatten() {
            if let Some(peer) = quota.peers.get_mut(usize::from(shard)) {
                peer.asked = Asked::HasNothing;
            }
        }
    }

    /// Whether any limit is set.
    pub(super) const fn is_any(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }

    /// Whether one more message may come.
    pub(super) fn room(&mut self, held: Held) -> Room {
        let of = |quota: &mut Option<Quota>, held| quota.as_mut().map(|quota| quota.room(held));
        let rooms = [
            of(&mut self.messages, held.messages),
            of(&mut self.bytes, held.bytes),
        ];
        rooms.into_iter().flatten().max().unwrap_or(Room::Yes)
    }

    pub(super) fn take(&mut self, from: u16, note: QuotaNote) {
        let quota = match note.measure {
            Measure::Messages => &mut self.messages,
            Measure::Bytes => &mut self.bytes,
        };
        if let Some(quota) = quota {
            quota.take(from.into(), note.word);
        }
    }

    pub(super) fn step(&mut self, held: Held) -> bool {
        let Self {
            messages,
            bytes,
            words,
        } = self;
        let mut step = |quota: &mut Option<Quota>, measure, held| {
            quota.as_mut().is_some_and(|quota| {
                quota.step(held, |to, word| {
                    words.push((to as u16, QuotaNote { measure, word }));
                })
            })
        };
        let has_messages = step(messages, Measure::Messages, held.messages);
        let has_bytes = step(bytes, Measure::Bytes, held.bytes);
        has_messages || has_bytes
    }

    pub(super) fn poll(&mut self) -> Option<(u16, QuotaNote)> {
        self.words.pop()
    }
}

#[cfg(test)]
mod tests;
