//! STOMP 1.0, 1.1 and 1.2, server side, sans-IO.
//!
//! [`Connection`] turns the bytes of one connection into [`Event`]s that borrow from the caller's
//! buffer; [`encode`] appends frames to the caller's output. Invariants:
//! * a frame is checked whole before its event is given out; only a body too large to wait for
//!   streams in parts, after its head is checked;
//! * no byte is searched twice for the same thing, so slow arrival costs no more than fast;
//! * no heap allocation per frame, save where headers must be written anew (see [`StoredHead`]);
//! * the first error is the last answer: afterwards all input is thrown away.
//!
//! It refuses to know what a destination is made of on the broker's side, which subscriptions
//! and transactions exist, who may log in, and when a receipt is due: those are the front end's.
//! Which rule of the specification is held where: `docs/conformance.md`.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod destination;
pub mod encode;
pub mod fuzz;

mod body;
mod command;
mod connect;
mod connection;
mod control;
mod decimal;
mod error;
mod escape;
mod event;
mod head;
mod heart_beat;
mod limits;
mod lookup;
mod scan;
mod send;
mod stored;
mod version;

pub use command::Command;
pub use connection::{Connection, Parsed, Stats};
pub use error::{Blame, Error, ErrorKind};
pub use escape::Value;
pub use event::{
    Ack, AckMode, BodyType, Connect, Disconnect, Event, RoutingType, Send, SendPart, Subscribe,
    Transaction, Unsubscribe,
};
pub use head::Headers;
pub use heart_beat::{HeartBeat, HeartBeatOffer, TimeoutAction};
pub use limits::Limits;
pub use lookup::StoredLookup;
pub use stored::{StoredHead, push_line};
pub use version::Version;

#[cfg(test)]
mod tests;
