//! Joints between a protocol engine and the queues: events become commands, replies become frames.
//!
//! A front end translates; it has no `if` about redelivery, credit policy or dead letters. The
//! vocabulary here ([`Command`], [`Reply`]) is all that passes between a connection and the shard
//! that hosts its queues, on the same core or another.

mod forward;
mod properties;
mod slow;
pub mod stomp;
mod vocabulary;

pub use forward::{Departs, Forwarder};
pub use properties::{Header, Message};
pub use slow::{Pace, Slow};
pub use vocabulary::{
    Command, Deliver, Ending, Extras, Order, Ordered, Part, Refusal, Reply, Report, SendCommand,
    SendPartCommand, Start, SubscribeCommand, Subscription, Verdict, owner,
};

use std::borrow::Cow;

use crate::now::Now;

/// Who may connect: name and password. Empty means anybody.
#[derive(Clone, Debug, Default)]
pub struct Users(pub Vec<(String, String)>);

impl Users {
    /// Whether these credentials open a connection.
    ///
    /// Cost: the same time for a wrong name as for a wrong password (X01).
    pub fn admit(&self, login: Option<&str>, passcode: Option<&str>) -> bool {
        use subtle::ConstantTimeEq;
        if self.0.is_empty() {
            return true;
        }
        let (login, passcode) = (login.unwrap_or_default(), passcode.unwrap_or_default());
        let mut is_admitted = subtle::Choice::from(0);
        for (name, password) in &self.0 {
            is_admitted |= name.as_bytes().ct_eq(login.as_bytes())
                & password.as_bytes().ct_eq(passcode.as_bytes());
        }
        is_admitted.into()
    }
}

/// The value of a header in the head of a message; none for an encoding that is not known.
pub fn header_of<'a>(encoding: u8, head: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    match encoding {
        stomp::ENCODING => stomp::header_of(head, name),
        _ => None,
    }
}

/// What a front end made of the bytes it was given.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing for the queues: `consumed` bytes are done with; call again unless `is_starved`.
    Quiet {
        /// Bytes done with.
        consumed: usize,
        /// Whether more input is needed before anything can happen.
        is_starved: bool,
    },
    /// A command for the queues.
    Command {
        /// Bytes done with.
        consumed: usize,
        /// The command.
        command: Command<&'a [u8]>,
    },
    /// The client said goodbye: when all it asked for is durable, answer this receipt and close.
    Goodbye {
        /// The receipt, empty for none.
        receipt: &'a [u8],
    },
    /// The peer's fault: an error frame is in the output; send it and close.
    Broken,
}

/// What a timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing was due.
    None,
    /// Something was put into the output.
    Wrote,
    /// An error frame was put into the output; send it and close.
    Broken,
}

/// One connection's protocol. A closed set, matched here and nowhere else.
#[derive(Debug)]
pub enum Frontend {
    /// STOMP 1.0, 1.1 and 1.2, plain or over WebSocket.
    Stomp(Box<stomp::Wire>),
    /// The shard's own: no client is behind it.
    Forwarder(Box<Forwarder>),
}

impl Frontend {
    /// Whether what it says comes back to it instead of going to a client.
    pub const fn is_looped_back(&self) -> bool {
        matches!(self, Self::Forwarder(_))
    }

    /// Whether the next command in `input` is (part of) a message, which waits for space first.
    pub fn is_message_next(&self, input: &[u8]) -> bool {
        match self {
            Self::Stomp(wire) => wire.is_message_next(input),
            Self::Forwarder(forwarder) => forwarder.is_message_next(),
        }
    }

    /// Whether there is input in the front end itself: then there is something to read, though
    /// nothing new came.
    pub fn has_kept_input(&self) -> bool {
        match self {
            Self::Stomp(wire) => wire.has_kept_input(),
            Self::Forwarder(_) => false,
        }
    }

    /// Reads on in `input`; answers of its own go to `out`.
    pub fn handle_input<'a>(
        &'a mut self,
        input: &'a [u8],
        now: Now,
        out: &mut Vec<u8>,
    ) -> Step<'a> {
        match self {
            Self::Stomp(wire) => wire.handle_input(input, now, out),
            Self::Forwarder(forwarder) => forwarder.handle_input(),
        }
    }

    /// Whether a body is on its way out in pieces, the last of which did not come yet.
    pub fn is_amid_body(&self) -> bool {
        match self {
            Self::Stomp(wire) => wire.is_amid_body(),
            Self::Forwarder(_) => false,
        }
    }

    /// Bytes of output that the front end holds back for now.
    pub fn held_len(&self) -> usize {
        match self {
            Self::Stomp(wire) => wire.held_len(),
            Self::Forwarder(_) => 0,
        }
    }

    /// Whether bytes of this shard's deliveries are among them.
    pub fn holds(&self, shard: u16) -> bool {
        match self {
            Self::Stomp(wire) => wire.holds(shard),
            Self::Forwarder(_) => false,
        }
    }

    /// Writes what a reply means to the client; false if the connection has to close after it.
    pub fn handle_reply(&mut self, reply: &Reply<&[u8]>, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Stomp(wire) => wire.handle_reply(reply, out),
            Self::Forwarder(forwarder) => {
                forwarder.handle_reply(reply, out);
                true
            }
        }
    }

    /// What the client calls a subscription, if anything.
    pub fn subscription_id(&self, subscription: Subscription) -> Option<&str> {
        match self {
            Self::Stomp(wire) => wire.subscription_id(subscription),
            Self::Forwarder(_) => None,
        }
    }

    /// Bytes came in.
    pub fn note_received(&mut self, now: Now) {
        match self {
            Self::Stomp(wire) => wire.note_received(now),
            Self::Forwarder(_) => {}
        }
    }

    /// Bytes went out.
    pub fn note_sent(&mut self, now: Now) {
        match self {
            Self::Stomp(wire) => wire.note_sent(now),
            Self::Forwarder(_) => {}
        }
    }

    /// The broker stopped or began again to read from this connection.
    pub fn set_reading(&mut self, is_reading: bool, now: Now) {
        match self {
            Self::Stomp(wire) => wire.set_reading(is_reading, now),
            Self::Forwarder(_) => {}
        }
    }

    /// When a timer is due next, in monotonic microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        match self {
            Self::Stomp(wire) => wire.poll_timeout(),
            Self::Forwarder(_) => None,
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<u8>) -> Timeout {
        match self {
            Self::Stomp(wire) => wire.handle_timeout(now, out),
            Self::Forwarder(_) => Timeout::None,
        }
    }

    /// Tells the client that the broker refuses or stops, and why.
    pub fn say_error(&mut self, message: &str, details: &str, out: &mut Vec<u8>) {
        match self {
            Self::Stomp(wire) => wire.say_error(message, details, out),
            Self::Forwarder(_) => {}
        }
    }

    /// The connection closes when `out` is sent: whatever the protocol says last, it says now.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Stomp(wire) => wire.finish(out),
            Self::Forwarder(_) => {}
        }
    }
}
