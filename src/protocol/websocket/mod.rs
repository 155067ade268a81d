//! WebSocket (RFC 6455), server side, sans-IO: bytes of a protocol in frames, and back.
//!
//! [`Handshake`] answers the HTTP request that a connection begins with, [`Reader`] takes the
//! payload out of the frames of a client, [`Writer`] puts what the broker says into frames.
//! tungstenite reads the request and reads and writes the headers of frames; payloads never pass
//! through it, because it would hold each message whole. Invariants:
//! * payloads stream: nothing is kept of a message but the state of its UTF-8, so a message of any
//!   size needs no memory here; the caller keeps [`INPUT_SIZE_MAX`] bytes at most unread;
//! * what the caller gives to [`Writer::frame`] is one message, or its next part; frames are cut to
//!   [`WEBSOCKET_FRAME_SIZE_MAX_BYTES`](crate::limits::WEBSOCKET_FRAME_SIZE_MAX_BYTES);
//! * control frames come whole, before or behind other frames; after Close nothing is written.
//!
//! It refuses to know what the payload means. Extensions are not offered, so none is agreed on.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod fuzz;

mod close;
mod handshake;
mod reader;
mod utf8;
mod writer;

pub use close::{CloseCode, Violation};
pub use handshake::{Handshake, Pages, Refusal, Shaken, refuse};
pub use reader::{Control, Event, Limits, Read, Reader};
pub use writer::Writer;

/// The most bytes that a caller ever has to keep for [`Reader`]: a control frame comes whole.
pub const INPUT_SIZE_MAX: usize = 2 + 4 + CONTROL_SIZE_MAX;

/// The largest payload of a control frame. Source: RFC 6455 5.5.
const CONTROL_SIZE_MAX: usize = 125;

#[cfg(test)]
mod tests;
