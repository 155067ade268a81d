//! The HTTP request that opens a connection, and its answer. Source: RFC 6455 4.2.

use memchr::memmem;
use tungstenite::Error;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tungstenite::http::{HeaderValue, Uri};

use crate::limits::WEBSOCKET_HANDSHAKE_SIZE_MAX_BYTES;

/// Subprotocols, the one preferred first. Source: the registry of RFC 6455 11.5.
const SUBPROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];

const END: &[u8] = b"\r\n\r\n";

/// Which web pages may open a WebSocket; who is no page, and names no origin, always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Those of any site.
    All,
    /// Those that come from this machine by its own names. Any site's page that somebody looks at
    /// on the machine can reach what listens on loopback only.
    OfThisMachine,
}

/// Waits for the request. Nothing else may be read before it is agreed on.
#[derive(Clone, Debug)]
pub struct Handshake {
    pages: Pages,
    /// Bytes known not to hold the end.
    scanned: usize,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shaken {
    /// The request is not all there: call again with it and what came after.
    Waiting,
    /// The answer is in the output; frames begin behind this many bytes.
    Agreed(usize),
    /// The refusal is in the output: send it and close.
    Refused,
}

impl Handshake {
    /// Starts in front of the request.
    pub const fn new(pages: Pages) -> Self {
        Self { pages, scanned: 0 }
    }

    /// Whether a connection that begins so is a WebSocket; `None`: more is needed to tell.
    pub fn is_begun_by(input: &[u8]) -> Option<bool> {
        const METHOD: &[u8] = b"GET ";
        if input.len() < METHOD.len() {
            return (!METHOD.starts_with(input)).then_some(false);
        }
        Some(input.starts_with(METHOD))
    }

    /// Bytes known not to hold the end of the request.
    pub const fn scanned(&self) -> usize {
        self.scanned
    }

    /// Looks for the request at the start of `input`; the answer goes to `out`.
    ///
    /// Shape: `input` is all that came so far. Any path is taken.
    /// Cost: each byte is searched once for the end; the request is parsed once.
    pub fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Shaken {
        let size_max = usize::try_from(WEBSOCKET_HANDSHAKE_SIZE_MAX_BYTES).unwrap_or(usize::MAX);
        let head = input.get(..size_max).unwrap_or(input);
        let from = self.scanned.saturating_sub(END.len() - 1).min(head.len());
        let rest = head.get(from..).unwrap_or_default();
        let Some(at) = memmem::find(rest, END) else {
            self.scanned = head.len();
            if head.len() == size_max {
                refuse(Refusal::TooLarge, "the request is too long", out);
                return Shaken::Refused;
            }
            return Shaken::Waiting;
        };
        let size = from + at + END.len();
        match self.answer(head.get(..size).unwrap_or_default(), out) {
            Ok(()) => Shaken::Agreed(size),
            Err((refusal, why)) => {
                refuse(refusal, &why, out);
                Shaken::Refused
            }
        }
    }

    /// Answers a request that is all there.
    fn answer(&self, head: &[u8], out: &mut Vec<u8>) -> Result<(), (Refusal, String)> {
        let because = |error: Error| (Refusal::of(&error), error.to_string());
        let parsed = Request::try_parse(head).map_err(because)?;
        let (_, request) = parsed
            .ok_or(Error::Protocol(ProtocolError::HandshakeIncomplete))
            .map_err(because)?;
        let mut response = create_response(&request).map_err(because)?;
        let mut origins = request.headers().get_all("Origin").iter();
        if self.pages == Pages::OfThisMachine && !origins.all(is_of_this_machine) {
            let why = "a page of another site needs a broker with users";
            return Err((Refusal::ForeignPage, why.to_owned()));
        }
        if let Some(subprotocol) = choose(&request) {
            let value = HeaderValue::from_static(subprotocol);
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", value);
        }
        write(&response, out).map_err(because)
    }
}

/// Whether a page's origin is this machine by a name that no other one can take.
/// Source: RFC 6454 7, RFC 6761 6.3.
fn is_of_this_machine(origin: &HeaderValue) -> bool {
    let origin = origin
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Uri>().ok());
    let host = origin.as_ref().and_then(Uri::host);
    host.is_some_and(|host| {
        matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost")
    })
}

/// Writes all of it or nothing.
fn write(response: &Response, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    write_response(&mut *out, response).inspect_err(|_| out.truncate(start))
}

/// The subprotocol to speak: none if the client offers none that is known, which it may accept.
fn choose(request: &Request) -> Option<&'static str> {
    let offers = request.headers().get_all("Sec-WebSocket-Protocol");
    let is_offered = |name: &str| {
        let mut lines = offers.iter().filter_map(|value| value.to_str().ok());
        lines.any(|line| line.split(',').any(|offer| offer.trim() == name))
    };
    SUBPROTOCOLS.into_iter().find(|name| is_offered(name))
}

/// Why there is an HTTP answer instead of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is no request.
    Malformed,
    /// It comes from a page that may not.
    ForeignPage,
    /// It does not ask for a WebSocket of version 13.
    NoUpgrade,
    /// It did not come in time.
    Late,
    /// It is too long.
    TooLarge,
    /// The broker stops.
    Stopping,
}

impl Refusal {
    fn of(error: &Error) -> Self {
        match error {
            Error::Capacity(CapacityError::TooManyHeaders) => Self::TooLarge,
            Error::Protocol(
                ProtocolError::MissingConnectionUpgradeHeader
                | ProtocolError::MissingUpgradeWebSocketHeader
                | ProtocolError::MissingSecWebSocketVersionHeader,
            ) => Self::NoUpgrade,
            _ => Self::Malformed,
        }
    }

    /// The status line and the headers that belong to it.
    const fn head(self) -> (&'static str, &'static str) {
        const UPGRADE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        match self {
            Self::Malformed => ("400 Bad Request", ""),
            Self::ForeignPage => ("403 Forbidden", ""),
            Self::NoUpgrade => ("426 Upgrade Required", UPGRADE),
            Self::Late => ("408 Request Timeout", ""),
            Self::TooLarge => ("431 Request Header Fields Too Large", ""),
            Self::Stopping => ("503 Service Unavailable", ""),
        }
    }
}

/// Appends the answer of a server that closes behind it: for people who come with a browser, too.
pub fn refuse(refusal: Refusal, why: &str, out: &mut Vec<u8>) {
    let (status, headers) = refusal.head();
    let upgrade = if headers.is_empty() { "" } else { "upgrade, " };
    let body =
        format!("{status}: {why}.\nThis is a message broker: STOMP, plain or in WebSocket.\n");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: {upgrade}close\r\n{headers}\r\n{body}"
    );
    out.extend_from_slice(answer.as_bytes());
}
