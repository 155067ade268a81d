//! What a peer can do wrong, and the one mapping of it to the `ERROR` frame.

use std::fmt;

use super::command::Command;
use super::encode::{self, ErrorFrame};
use super::version::Version;

/// A fatal mistake of the peer: answer with [`Error::encode`], then close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    receipt: Option<Box<str>>,
}

/// Whose rule was broken, coarsely: for counters and for choosing a log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The bytes are not STOMP.
    Malformed,
    /// A frame that is right in itself, at the wrong moment.
    NotAllowedNow,
    /// Right by itself, but not in this version or not with this server.
    Unsupported,
    /// Larger or slower than the limits allow.
    LimitExceeded,
}

/// Every way in which a frame can be refused by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `ack` of `SUBSCRIBE` is none of the three modes. STOMP 1.2 "SUBSCRIBE ack Header".
    AckModeUnknown,
    /// A second `CONNECT`. STOMP 1.2 "Connecting".
    AlreadyConnected,
    /// A frame that must not have a body has one. STOMP 1.2 "Body".
    BodyNotAllowed {
        /// The frame.
        command: Command,
    },
    /// Another octet stands where NUL must end the body. STOMP 1.2 "Header content-length".
    BodyWithoutNul,
    /// A CR inside a line of STOMP 1.2. STOMP 1.2 "Augmented BNF".
    CarriageReturnInHeader,
    /// The frame does not exist in the version agreed on. STOMP 1.0 "Client Commands".
    CommandNotInVersion {
        /// The frame.
        command: Command,
        /// The version agreed on.
        version: Version,
    },
    /// No whole `CONNECT` within the time allowed.
    ConnectTooLate,
    /// Not a plain decimal number, or beyond 64 bits. STOMP 1.2 "Header content-length".
    ContentLengthMalformed,
    /// A header line that begins with the colon. STOMP 1.2 "Augmented BNF".
    EmptyHeaderName,
    /// `expires` is not a number of milliseconds since 1970.
    ExpiresMalformed,
    /// A frame after `DISCONNECT`. STOMP 1.2 "DISCONNECT".
    FrameAfterDisconnect,
    /// A header line without colon. STOMP 1.2 "Augmented BNF".
    HeaderWithoutColon,
    /// The head is longer than the limit. STOMP 1.2 "Size Limits".
    HeadTooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// `heart-beat` is not two numbers and a comma. STOMP 1.2 "Heart-beating".
    HeartBeatMalformed,
    /// The head is not UTF-8. STOMP 1.2 "Value Encoding".
    InvalidUtf8,
    /// The body is longer than the limit. STOMP 1.2 "Size Limits".
    MessageTooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// A required header is missing. STOMP 1.2 "Frames and Headers".
    MissingHeader {
        /// The frame.
        command: Command,
        /// The header (of alternatives the first).
        header: &'static str,
    },
    /// `accept-version` names nothing we speak. STOMP 1.2 "Protocol Negotiation".
    NoCommonVersion,
    /// A frame before `CONNECT`. STOMP 1.2 "Connecting".
    NotConnected,
    /// NUL before the empty line. STOMP 1.2 "STOMP Frames".
    NulInHead,
    /// Heart-beats were agreed on and stayed away. STOMP 1.2 "Heart-beating".
    PeerSilent,
    /// `priority` is not 0 to 9.
    PriorityMalformed,
    /// `destination-type` or `subscription-type` is neither `ANYCAST` nor `MULTICAST`.
    RoutingTypeUnknown,
    /// More header lines than the limit. STOMP 1.2 "Size Limits".
    TooManyHeaders {
        /// The limit.
        max: usize,
    },
    /// A backslash before an octet that no sequence has. STOMP 1.2 "Value Encoding".
    UndefinedEscape {
        /// The octet after the backslash; none at the end of a key or value.
        octet: Option<u8>,
    },
    /// No client command. STOMP 1.2 "Client Frames".
    UnknownCommand,
}

impl ErrorKind {
    /// Sorts by blame.
    pub const fn blame(self) -> Blame {
        match self {
            Self::AlreadyConnected | Self::FrameAfterDisconnect | Self::NotConnected => {
                Blame::NotAllowedNow
            }
            Self::CommandNotInVersion { .. } | Self::NoCommonVersion | Self::UnknownCommand => {
                Blame::Unsupported
            }
            Self::ConnectTooLate
            | Self::HeadTooLong { .. }
            | Self::MessageTooLarge { .. }
            | Self::PeerSilent
            | Self::TooManyHeaders { .. } => Blame::LimitExceeded,
            _ => Blame::Malformed,
        }
    }

    /// Returns the short text of the `message` header: ASCII, nothing in it needs escaping.
    pub const fn message(self) -> &'static str {
        match self {
            Self::AckModeUnknown => "unknown ack mode",
            Self::AlreadyConnected => "already connected",
            Self::BodyNotAllowed { .. } => "body not allowed",
            Self::BodyWithoutNul => "missing NUL after body",
            Self::CarriageReturnInHeader => "carriage return in header",
            Self::CommandNotInVersion { .. } => "command not in this version",
            Self::ConnectTooLate => "connect timeout",
            Self::ContentLengthMalformed => "malformed content-length",
            Self::EmptyHeaderName => "empty header name",
            Self::ExpiresMalformed => "malformed expires",
            Self::FrameAfterDisconnect => "frame after DISCONNECT",
            Self::HeaderWithoutColon => "header without colon",
            Self::HeadTooLong { .. } => "head too long",
            Self::HeartBeatMalformed => "malformed heart-beat",
            Self::InvalidUtf8 => "header is not UTF-8",
            Self::MessageTooLarge { .. } => "message too large",
            Self::MissingHeader { .. } => "missing header",
            Self::NoCommonVersion => "no common version",
            Self::NotConnected => "not connected",
            Self::NulInHead => "NUL in head",
            Self::PeerSilent => "heart-beat timeout",
            Self::PriorityMalformed => "malformed priority",
            Self::RoutingTypeUnknown => "unknown routing type",
            Self::TooManyHeaders { .. } => "too many headers",
            Self::UndefinedEscape { .. } => "undefined escape sequence",
            Self::UnknownCommand => "unknown command",
        }
    }
}

/// The sentence of the `ERROR` frame's body: what is wrong and what would be right.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::BodyNotAllowed { command } => {
                return write!(f, "A {} frame must not have a body.", command.name());
            }
            Self::CommandNotInVersion { command, version } => {
                return write!(
                    f,
                    "{} does not exist in STOMP {}, the version of this session.",
                    command.name(),
                    version.as_str()
                );
            }
            Self::HeadTooLong { max } => {
                return write!(f, "Command and headers may take {max} bytes at most.");
            }
            Self::MessageTooLarge { max } => {
                return write!(f, "The body of a message may have {max} bytes at most.");
            }
            Self::MissingHeader { command, header } => {
                return write!(f, "A {} frame needs the header {header}.", command.name());
            }
            Self::NoCommonVersion => {
                return write!(f, "Supported protocol versions are {}.", Version::SUPPORTED);
            }
            Self::TooManyHeaders { max } => {
                return write!(f, "A frame may have {max} headers at most.");
            }
            Self::UndefinedEscape { octet: Some(octet) } => {
                return write!(
                    f,
                    "Octet {octet} after a backslash has no meaning in a header."
                );
            }
            _ => self.fixed_details(),
        };
        f.write_str(text)
    }
}

impl ErrorKind {
    const fn fixed_details(self) -> &'static str {
        match self {
            Self::AckModeUnknown => "The ack header is auto, client or client-individual.",
            Self::AlreadyConnected => "CONNECT was answered already; open another connection.",
            Self::BodyWithoutNul => "After content-length bytes of body the frame ends with NUL.",
            Self::CarriageReturnInHeader => "CR stands only before LF; write it as backslash r.",
            Self::ConnectTooLate => "The first frame, CONNECT, did not arrive in time.",
            Self::ContentLengthMalformed => "content-length is a decimal number of bytes.",
            Self::EmptyHeaderName => "A header line is name, colon, value.",
            Self::ExpiresMalformed => "expires is a number of milliseconds since 1970, or 0.",
            Self::FrameAfterDisconnect => "No frame may follow DISCONNECT.",
            Self::HeaderWithoutColon => "A header line is name, colon, value.",
            Self::HeartBeatMalformed => "heart-beat is two numbers of milliseconds and a comma.",
            Self::InvalidUtf8 => "Command and headers are encoded in UTF-8.",
            Self::NotConnected => "The first frame is CONNECT or STOMP.",
            Self::NulInHead => "NUL before the empty line that ends the headers.",
            Self::PeerSilent => "Neither frame nor heart-beat arrived in the time agreed on.",
            Self::PriorityMalformed => "priority is a number from 0 to 9.",
            Self::RoutingTypeUnknown => "The routing type is ANYCAST or MULTICAST.",
            Self::UndefinedEscape { .. } => "A header key or value ends with a single backslash.",
            _ => "The server does not know this command; commands are written in capitals.",
        }
    }
}

impl Error {
    pub(super) fn new(kind: ErrorKind, receipt: Option<Box<str>>) -> Self {
        Self { kind, receipt }
    }

    /// Returns what was wrong.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the decoded `receipt` of the refused frame, when it had a readable one.
    pub fn receipt(&self) -> Option<&str> {
        self.receipt.as_deref()
    }

    /// Appends the `ERROR` frame, whole.
    ///
    /// `version` is the connection's ([`super::Connection::version`]).
    /// Source: STOMP 1.2 "ERROR"; for `NoCommonVersion` "Protocol Negotiation".
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let frame = ErrorFrame {
            message: self.kind.message(),
            details: &self.to_string(),
            receipt_id: self.receipt(),
            lists_versions: self.kind == ErrorKind::NoCommonVersion,
        };
        encode::error(out, version, &frame);
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for Error {}
