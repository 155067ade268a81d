//! Why a WebSocket connection ends. Source: RFC 6455 7.4.

use std::fmt;

pub use tungstenite::protocol::frame::coding::CloseCode;

/// What a client did against RFC 6455. The connection closes with [`Violation::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A frame that is not masked (5.1).
    Unmasked,
    /// A bit of an extension that was not agreed on (5.2).
    ReservedBits,
    /// An opcode without meaning (5.2).
    UnknownOpcode,
    /// A length written with more bytes than it needs (5.2).
    LengthNotMinimal,
    /// A frame longer than whatever it could carry.
    FrameTooLarge {
        /// The largest payload that is taken.
        max: u64,
    },
    /// A control frame in fragments (5.5).
    ControlFragmented,
    /// A control frame with more than 125 bytes (5.5).
    ControlTooLarge,
    /// A continuation of nothing (5.4).
    NothingToContinue,
    /// A message within another one (5.4).
    MessageNotFinished,
    /// A Close frame whose status is half there or must not be sent (5.5.1, 7.4).
    BadClose,
    /// Text that is not UTF-8 (5.6, 8.1).
    NotUtf8,
}

impl Violation {
    /// The status that the connection closes with.
    pub const fn code(self) -> CloseCode {
        match self {
            Self::FrameTooLarge { .. } => CloseCode::Size,
            Self::NotUtf8 => CloseCode::Invalid,
            _ => CloseCode::Protocol,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Unmasked => "a frame of a client must be masked",
            Self::ReservedBits => "no extension was agreed on",
            Self::UnknownOpcode => "unknown opcode",
            Self::LengthNotMinimal => "the length takes more bytes than it needs",
            Self::FrameTooLarge { max } => return write!(f, "a frame holds at most {max} bytes"),
            Self::ControlFragmented => "a control frame must be whole",
            Self::ControlTooLarge => "a control frame holds at most 125 bytes",
            Self::NothingToContinue => "a continuation without a beginning",
            Self::MessageNotFinished => "a message within another one",
            Self::BadClose => "malformed Close frame",
            Self::NotUtf8 => "text that is not UTF-8",
        };
        f.write_str(text)
    }
}
