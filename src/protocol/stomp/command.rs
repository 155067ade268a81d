//! The commands a client may send.

/// A client command. `STOMP` is [`Command::Connect`] too (STOMP 1.2 "CONNECT or STOMP Frame").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ABORT`
    Abort,
    /// `ACK`
    Ack,
    /// `BEGIN`
    Begin,
    /// `COMMIT`
    Commit,
    /// `CONNECT` or `STOMP`
    Connect,
    /// `DISCONNECT`
    Disconnect,
    /// `NACK`
    Nack,
    /// `SEND`
    Send,
    /// `SUBSCRIBE`
    Subscribe,
    /// `UNSUBSCRIBE`
    Unsubscribe,
}

impl Command {
    /// Longest command line without its LF: `UNSUBSCRIBE` and a CR.
    pub(super) const LINE_LEN_MAX: usize = 12;

    /// Reads a command line that was cut from its line end.
    ///
    /// Commands are case sensitive; commands of servers are unknown here.
    /// Source: STOMP 1.2 "STOMP Frames", "Client Frames".
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        match line {
            b"SEND" => Some(Self::Send),
            b"ACK" => Some(Self::Ack),
            b"NACK" => Some(Self::Nack),
            b"BEGIN" => Some(Self::Begin),
            b"COMMIT" => Some(Self::Commit),
            b"ABORT" => Some(Self::Abort),
            b"SUBSCRIBE" => Some(Self::Subscribe),
            b"UNSUBSCRIBE" => Some(Self::Unsubscribe),
            b"CONNECT" | b"STOMP" => Some(Self::Connect),
            b"DISCONNECT" => Some(Self::Disconnect),
            _ => None,
        }
    }

    /// Returns the command as it stands on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abort => "ABORT",
            Self::Ack => "ACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Connect => "CONNECT",
            Self::Disconnect => "DISCONNECT",
            Self::Nack => "NACK",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
        }
    }
}
