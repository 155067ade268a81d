//! What a few queues do, said naively: one list of messages each, everything by searching it.

use std::collections::BTreeMap;

use forebay_journal::format::Departure;

/// Where a message of a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Delivered,
    Delayed(u64),
    Leaving(Departure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) state: State,
    pub(crate) attempts: u16,
    pub(crate) expires_unix_ms: u64,
    pub(crate) key: Option<u8>,
    pub(crate) is_durable: bool,
}

/// What is in force for one of the queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) address: &'static str,
    pub(crate) attempts_max: u16,
    pub(crate) has_dead_letters: bool,
    pub(crate) has_expiry_address: bool,
    pub(crate) delays_ms: [u64; 4],
    pub(crate) ring_max: usize,
    pub(crate) has_keys: bool,
}

pub(crate) const RULES: [Rules; 3] = [
    Rules {
        address: "plain",
        attempts_max: 4,
        has_dead_letters: true,
        has_expiry_address: true,
        delays_ms: [10, 20, 35, 35],
        ring_max: usize::MAX,
        has_keys: false,
    },
    Rules {
        address: "last",
        attempts_max: 2,
        has_dead_letters: false,
        has_expiry_address: false,
        delays_ms: [0; 4],
        ring_max: usize::MAX,
        has_keys: true,
    },
    Rules {
        address: "ring",
        attempts_max: 3,
        has_dead_letters: true,
        has_expiry_address: false,
        delays_ms: [5; 4],
        ring_max: 3,
        has_keys: false,
    },
];

/// One queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: BTreeMap<u64, Message>,
    /// The last message of each key, wherever it is.
    pub(crate) last: BTreeMap<u8, u64>,
    /// The same as far as the disk knows.
    last_durable: BTreeMap<u8, u64>,
    /// Duplicate ids and whether they survive a restart.
    pub(crate) seen: BTreeMap<u8, bool>,
}

impl Queue {
    pub(crate) fn enter(&mut self, id: u64, message: Message) {
        if let Some(key) = message.key {
            self.last.insert(key, id);
            if message.is_durable {
                self.last_durable.insert(key, id);
            }
        }
        self.messages.insert(id, message);
    }

    pub(crate) fn leave(&mut self, id: u64) {
        if let Some(Message { key: Some(key), .. }) = self.messages.remove(&id) {
            self.forget_key(key, id);
        }
    }

    fn forget_key(&mut self, key: u8, id: u64) {
        for last in [&mut self.last, &mut self.last_durable] {
            if last.get(&key) == Some(&id) {
                last.remove(&key);
            }
        }
    }

    /// A failed, refused or unused delivery.
    pub(crate) fn give_back(&mut self, rules: &Rules, id: u64, how: Back, now: u64) {
        let message = self.messages.get_mut(&id).expect("it is delivered");
        let is_over = message.attempts >= rules.attempts_max;
        let reason = match how {
            Back::Unused => None,
            Back::Refused => Some(Departure::Rejected),
            Back::Failed => is_over.then_some(Departure::AttemptsExceeded),
        };
        match (reason, how) {
            (Some(reason), _) if rules.has_dead_letters => {
                message.state = State::Leaving(reason);
                self.unlist(id);
            }
            (Some(_), _) => self.leave(id),
            (None, Back::Failed) => {
                let delay = rules.delays_ms[usize::from(message.attempts) - 1];
                message.state = match delay {
                    0 => State::Ready,
                    delay => State::Delayed(now + delay),
                };
            }
            (None, _) => message.state = State::Ready,
        }
    }

    /// What leaves for another address is no value of its key any more.
    fn unlist(&mut self, id: u64) {
        let message = self.messages.get_mut(&id).expect("known");
        if let Some(key) = message.key.take() {
            self.forget_key(key, id);
        }
    }

    /// What the wall clock does.
    pub(crate) fn tick(&mut self, rules: &Rules, now: u64) {
        for id in self.ids(|_, message| matches!(message.state, State::Delayed(at) if at <= now)) {
            self.messages.get_mut(&id).expect("listed").state = State::Ready;
        }
        let is_over = |message: &Message| {
            let waits = matches!(message.state, State::Ready | State::Delayed(_));
            waits && message.expires_unix_ms != 0 && message.expires_unix_ms <= now
        };
        for id in self.ids(|_, message| is_over(message)) {
            if rules.has_expiry_address {
                self.messages.get_mut(&id).expect("listed").state =
                    State::Leaving(Departure::Expired);
                self.unlist(id);
            } else {
                self.leave(id);
            }
        }
    }

    /// What is one too many goes.
    pub(crate) fn trim(&mut self, rules: &Rules) {
        let is_replaced = |id: u64, message: &Message| {
            let waits = matches!(message.state, State::Ready | State::Delayed(_));
            let last = message.key.and_then(|key| self.last.get(&key));
            waits && message.key.is_some() && last != Some(&id)
        };
        for id in self.ids(is_replaced) {
            self.leave(id);
        }
        let ready = self.ids(|_, message| message.state == State::Ready);
        for id in &ready[..ready.len().saturating_sub(rules.ring_max)] {
            self.leave(*id);
        }
    }

    /// `locked`: what transactions that wait for their coordinator settle.
    pub(crate) fn restart(&mut self, locked: &[u64]) {
        self.messages.retain(|_, message| message.is_durable);
        self.last = self.last_durable.clone();
        for (id, message) in &mut self.messages {
            if message.state == State::Delivered && !locked.contains(id) {
                message.state = State::Ready;
            }
        }
        self.seen.retain(|_, survives| *survives);
    }

    pub(crate) fn ids(&self, is_meant: impl Fn(u64, &Message) -> bool) -> Vec<u64> {
        let messages = self.messages.iter();
        messages
            .filter(|(id, message)| is_meant(**id, message))
            .map(|(id, _)| *id)
            .collect()
    }
}

/// How a consumer gives a message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    Unused,
    Failed,
    Refused,
}
