//! What a client's frames say, borrowed from the caller's buffer.

use super::escape::Value;
use super::head::Headers;
use super::heart_beat::HeartBeat;
use super::stored::StoredHead;
use super::version::Version;

/// One thing a client said.
#[derive(Debug)]
pub enum Event<'a> {
    /// `CONNECT` or `STOMP`: always the first. Answer with `CONNECTED` or `ERROR`.
    Connect(Connect<'a>),
    /// `SEND`, whole or its beginning.
    Send(Send<'a>),
    /// More of the body of the last `Send`.
    SendPart(SendPart<'a>),
    /// `SUBSCRIBE`
    Subscribe(Subscribe<'a>),
    /// `UNSUBSCRIBE`
    Unsubscribe(Unsubscribe<'a>),
    /// `ACK`
    Ack(Ack<'a>),
    /// `NACK`, never in 1.0
    Nack(Ack<'a>),
    /// `BEGIN`
    Begin(Transaction<'a>),
    /// `COMMIT`
    Commit(Transaction<'a>),
    /// `ABORT`
    Abort(Transaction<'a>),
    /// `DISCONNECT`: always the last.
    Disconnect(Disconnect<'a>),
}

/// `CONNECT` or `STOMP`. Source: STOMP 1.2 "CONNECT or STOMP Frame".
#[derive(Debug)]
pub struct Connect<'a> {
    /// The version agreed on, for `CONNECTED`.
    pub version: Version,
    /// The virtual host wanted. Required from 1.1 on, but tolerated when missing.
    pub host: Option<Value<'a>>,
    /// User.
    pub login: Option<Value<'a>>,
    /// Password.
    pub passcode: Option<Value<'a>>,
    /// Name of the client for durable subscriptions (`client-id`, of ActiveMQ and Artemis).
    pub client_id: Option<Value<'a>>,
    /// Heart-beats agreed on, both directions.
    pub heart_beat: HeartBeat,
    /// All headers.
    pub headers: Headers<'a>,
}

/// `SEND`. Source: STOMP 1.2 "SEND"; headers of ActiveMQ and Artemis as they define them.
#[derive(Debug)]
pub struct Send<'a> {
    /// Where to; see [`super::destination`].
    pub destination: Value<'a>,
    /// `destination-type`, of Artemis: overrides what the name says.
    pub routing: Option<RoutingType>,
    /// The receipt wanted.
    pub receipt: Option<Value<'a>>,
    /// The transaction it belongs to.
    pub transaction: Option<Value<'a>>,
    /// `persistent`: none when absent, true only for the literal `true`.
    pub persistent: Option<bool>,
    /// `expires`: milliseconds since 1970, 0 is never.
    pub expires_unix_ms: Option<u64>,
    /// `priority`: 0 to 9.
    pub priority: Option<u8>,
    /// `reply-to`: a destination, which may be one that only this connection can name.
    pub reply_to: Option<Value<'a>>,
    /// `amq-msg-type`, of ActiveMQ: what the body is, whatever `content-length` says.
    pub body_type: Option<BodyType>,
    /// Whether `content-length` was there: store it, it says bytes (else text) to other protocols
    /// and decides whether `MESSAGE` carries one.
    pub has_content_length: bool,
    /// Header lines that stay with the message.
    pub stored_head: StoredHead<'a>,
    /// All headers, for those that only the front end knows.
    pub headers: Headers<'a>,
    /// Whether the name of one begins with a capital or an underscore, as those of Java's clients
    /// and of extensions do: nearly no message has any.
    pub has_odd_headers: bool,
    /// Bytes of the whole body; none while unknown (no `content-length`, and not all here).
    pub body_total: Option<u64>,
    /// The body, or its first part.
    pub body: &'a [u8],
    /// Whether `body` is all of it. Else [`SendPart`]s follow until one is the last.
    pub is_complete: bool,
}

/// What a body is. Source: the `amq-msg-type` header of ActiveMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyType {
    /// Characters: its `MESSAGE` has no `content-length`.
    Text,
    /// Bytes: its `MESSAGE` has one.
    Bytes,
}

impl BodyType {
    /// Other types of ActiveMQ's (`map`, `stream`) say nothing about a body of STOMP.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "bytes" => Some(Self::Bytes),
            _ => None,
        }
    }
}

/// More of the body of a `SEND`.
#[derive(Clone, Copy, Debug)]
pub struct SendPart<'a> {
    /// The bytes; empty when only the closing NUL was left.
    pub bytes: &'a [u8],
    /// Whether the frame ends here. Before that the message must not count.
    pub is_last: bool,
}

/// `SUBSCRIBE`. Source: STOMP 1.2 "SUBSCRIBE".
#[derive(Debug)]
pub struct Subscribe<'a> {
    /// What to listen to.
    pub destination: Value<'a>,
    /// Name of the subscription on this connection; always there from 1.1 on.
    pub id: Option<Value<'a>>,
    /// When a message counts as consumed.
    pub ack: AckMode,
    /// `subscription-type`, of Artemis: overrides what the name says.
    pub routing: Option<RoutingType>,
    /// `selector`.
    pub selector: Option<Value<'a>>,
    /// The receipt wanted.
    pub receipt: Option<Value<'a>>,
    /// All headers: prefetch, durable names and the like belong to the front end.
    pub headers: Headers<'a>,
}

/// `UNSUBSCRIBE`. Source: STOMP 1.2 "UNSUBSCRIBE".
#[derive(Debug)]
pub struct Unsubscribe<'a> {
    /// The subscription; always there from 1.1 on, but where a durable one is named.
    pub id: Option<Value<'a>>,
    /// In 1.0 the destination may stand for the id; one of the two is there, or such a name.
    pub destination: Option<Value<'a>>,
    /// The receipt wanted.
    pub receipt: Option<Value<'a>>,
    /// All headers: the name of a durable subscription to delete, for instance.
    pub headers: Headers<'a>,
}

/// `ACK` or `NACK`. Source: STOMP 1.2 "ACK", STOMP 1.1 "ACK", STOMP 1.0 "ACK".
#[derive(Debug)]
pub struct Ack<'a> {
    /// The `ack` header of the `MESSAGE`: always there in 1.2, none before.
    pub id: Option<Value<'a>>,
    /// Always there in 1.0 and 1.1, none in 1.2.
    pub message_id: Option<Value<'a>>,
    /// Always there in 1.1, perhaps in 1.0, none in 1.2.
    pub subscription: Option<Value<'a>>,
    /// The transaction it belongs to.
    pub transaction: Option<Value<'a>>,
    /// Whether a `NACK` leaves the message to be delivered again: `requeue:false`, of RabbitMQ,
    /// makes it a dead letter at once.
    pub is_requeued: bool,
    /// The receipt wanted.
    pub receipt: Option<Value<'a>>,
}

/// `BEGIN`, `COMMIT` or `ABORT`. Source: STOMP 1.2 "BEGIN", "COMMIT", "ABORT".
#[derive(Debug)]
pub struct Transaction<'a> {
    /// Its name on this connection.
    pub transaction: Value<'a>,
    /// The receipt wanted.
    pub receipt: Option<Value<'a>>,
}

/// `DISCONNECT`. Source: STOMP 1.2 "DISCONNECT".
#[derive(Debug)]
pub struct Disconnect<'a> {
    /// The receipt wanted before closing.
    pub receipt: Option<Value<'a>>,
}

/// When a message counts as consumed. Source: STOMP 1.2 "SUBSCRIBE ack Header".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// As soon as it was sent.
    #[default]
    Auto,
    /// On `ACK`, which counts for all earlier ones of the subscription too.
    Client,
    /// On its own `ACK`.
    ClientIndividual,
}

impl AckMode {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "client" => Some(Self::Client),
            "client-individual" => Some(Self::ClientIndividual),
            _ => None,
        }
    }
}

/// How a message finds its queues, in the words of Artemis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingType {
    /// To one consumer: a queue.
    Anycast,
    /// To all subscribers: a topic.
    Multicast,
}

impl RoutingType {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "ANYCAST" => Some(Self::Anycast),
            "MULTICAST" => Some(Self::Multicast),
            _ => None,
        }
    }
}
