//! A stored message as a selector sees it, whatever protocol it came by.

use forebay_journal::MessageId;

use super::stomp;
use crate::selector::{Properties, Value};

/// What the broker itself knows of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Shard that hosts the queue; with `message` the message's name in the node.
    pub shard: u16,
    /// The message.
    pub message: MessageId,
    /// 0 to 9.
    pub priority: u8,
    /// When it came, in wall-clock milliseconds.
    pub timestamp_unix_ms: u64,
    /// From when on it is expired, in wall-clock milliseconds; zero for never.
    pub expires_unix_ms: u64,
    /// Whether the sender wanted it durable.
    pub is_persistent: bool,
}

/// A stored message to ask a selector about.
#[derive(Debug)]
pub struct Message<'a>(Head<'a>);

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are STOMP; a box would be an allocation for each message"
)]
enum Head<'a> {
    Stomp(stomp::Properties<'a>),
    /// Of an encoding that this release does not know: no names.
    Unknown,
}

impl<'a> Message<'a> {
    /// Looks over a head in its encoding (`docs/format.md` 6, message).
    pub fn new(header: Header, encoding: u8, head: &'a [u8]) -> Self {
        Self(match encoding {
            stomp::ENCODING => Head::Stomp(stomp::Properties::new(header, head)),
            _ => Head::Unknown,
        })
    }
}

impl Properties for Message<'_> {
    fn get(&self, name: &str) -> Value<'_> {
        match &self.0 {
            Head::Stomp(properties) => properties.get(name),
            Head::Unknown => Value::Null,
        }
    }
}
