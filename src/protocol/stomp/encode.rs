//! Writes the frames of a server into the caller's output.
//!
//! Headers that the broker sets stand before those stored with the message: should both name the
//! same header, the first counts (STOMP 1.2 "Repeated Header Entries").

use super::decimal;
use super::escape::{push_escaped, push_stored};
use super::heart_beat::HeartBeatOffer;
use super::version::Version;

/// What to send when there is nothing to say. Source: STOMP 1.2 "Heart-beating".
pub const HEART_BEAT: &[u8] = b"\n";

/// What ends the body of a `MESSAGE`. Source: STOMP 1.2 "STOMP Frames".
pub const FRAME_END: &[u8] = b"\0";

/// Contents of `CONNECTED`. Source: STOMP 1.2 "CONNECTED Frame".
#[derive(Clone, Copy, Debug)]
pub struct Connected<'a> {
    /// The version agreed on.
    pub version: Version,
    /// What we offer ([`super::Limits::heart_beat`]), not what was agreed on.
    pub heart_beat: HeartBeatOffer,
    /// Name of this session.
    pub session: &'a str,
    /// Name of this server and its version: `name/1.2`.
    pub server: &'a str,
}

/// Appends `CONNECTED`, whole. It is never escaped (STOMP 1.2 "Value Encoding").
///
/// Panics: if a text of ours holds an LF or NUL.
pub fn connected(out: &mut Vec<u8>, frame: &Connected<'_>) {
    for text in [frame.session, frame.server] {
        assert!(
            !text.contains(['\n', '\0']),
            "{text:?} would break CONNECTED"
        );
    }
    out.extend_from_slice(b"CONNECTED\nversion:");
    out.extend_from_slice(frame.version.as_str().as_bytes());
    out.extend_from_slice(b"\nsession:");
    out.extend_from_slice(frame.session.as_bytes());
    // 1.0 knows neither.
    if frame.version >= Version::V1_1 {
        out.extend_from_slice(b"\nserver:");
        out.extend_from_slice(frame.server.as_bytes());
        out.extend_from_slice(b"\nheart-beat:");
        decimal::push(out, u64::from(frame.heart_beat.send_ms));
        out.push(b',');
        decimal::push(out, u64::from(frame.heart_beat.receive_ms));
    }
    out.extend_from_slice(b"\n\n\0");
}

/// A name that we give: written without allocation, read back from what the client returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// `7`
    Number(u64),
    /// `7-8`
    Pair(u64, u64),
    /// Any text; escaped for the receiver.
    Text(&'a str),
}

impl Token<'_> {
    /// Reads `7-8` back. Returns none for anything that [`Token::Pair`] does not write.
    pub fn parse_pair(text: &str) -> Option<(u64, u64)> {
        let (left, right) = text.split_once('-')?;
        Some((decimal::parse(left)?, decimal::parse(right)?))
    }

    /// Reads `7` back.
    pub fn parse_number(text: &str) -> Option<u64> {
        decimal::parse(text)
    }

    fn push(self, out: &mut Vec<u8>, version: Version) {
        match self {
            Self::Number(number) => decimal::push(out, number),
            Self::Pair(left, right) => {
                decimal::push(out, left);
                out.push(b'-');
                decimal::push(out, right);
            }
            Self::Text(text) => push_escaped(out, text, version),
        }
    }
}

/// Headers of a `MESSAGE`. Source: STOMP 1.2 "MESSAGE", STOMP 1.1 "MESSAGE".
#[derive(Clone, Copy, Debug)]
pub struct MessageHead<'a> {
    /// `subscription`: the id of the subscription; none only in 1.0, where it may have none.
    pub subscription: Option<&'a str>,
    /// `message-id`
    pub message_id: Token<'a>,
    /// `destination`, decoded.
    pub destination: &'a str,
    /// `ack`: for the explicit ack modes; written only to a client of 1.2.
    pub ack: Option<Token<'a>>,
    /// `redelivered:true`
    pub is_redelivered: bool,
    /// `delivery-count`: written when above 1.
    pub delivery_count: u32,
    /// `content-length`: give it whenever the `SEND` had one, or the body holds NUL.
    pub content_length: Option<u64>,
    /// `expires`, where it is not what the stored head says: milliseconds since 1970, 0 for no such
    /// header.
    pub own_expiry_unix_ms: Option<u64>,
    /// What [`super::StoredHead`] gave, in one piece.
    pub stored_head: &'a [u8],
}

/// Appends a `MESSAGE` up to the empty line; the caller appends the body and [`FRAME_END`].
///
/// Cost: copies; no allocation besides growing `out`.
pub fn message_head(out: &mut Vec<u8>, version: Version, head: &MessageHead<'_>) {
    out.extend_from_slice(b"MESSAGE\n");
    if let Some(subscription) = head.subscription {
        push_header(out, b"subscription:", subscription, version);
    }
    out.extend_from_slice(b"message-id:");
    head.message_id.push(out, version);
    out.push(b'\n');
    push_header(out, b"destination:", head.destination, version);
    if let (Some(ack), Version::V1_2) = (head.ack, version) {
        out.extend_from_slice(b"ack:");
        ack.push(out, version);
        out.push(b'\n');
    }
    if head.is_redelivered {
        out.extend_from_slice(b"redelivered:true\n");
    }
    if head.delivery_count > 1 {
        out.extend_from_slice(b"delivery-count:");
        decimal::push(out, u64::from(head.delivery_count));
        out.push(b'\n');
    }
    if let Some(length) = head.content_length {
        out.extend_from_slice(b"content-length:");
        decimal::push(out, length);
        out.push(b'\n');
    }
    match head.own_expiry_unix_ms {
        None => push_stored(out, head.stored_head, version),
        Some(unix_ms) => push_with_expiry(out, head.stored_head, unix_ms, version),
    }
    out.push(b'\n');
}

/// The stored lines, but for what they say about expiry.
#[cold]
fn push_with_expiry(out: &mut Vec<u8>, stored: &[u8], unix_ms: u64, version: Version) {
    const KEY: &[u8] = b"expires:";
    if unix_ms != 0 {
        out.extend_from_slice(KEY);
        decimal::push(out, unix_ms);
        out.push(b'\n');
    }
    let lines = stored.split_inclusive(|octet| *octet == b'\n');
    lines
        .filter(|line| !line.starts_with(KEY))
        .for_each(|line| push_stored(out, line, version));
}

/// Appends `RECEIPT`, whole. `receipt_id` is the decoded value of `receipt`.
///
/// Source: STOMP 1.2 "RECEIPT".
pub fn receipt(out: &mut Vec<u8>, version: Version, receipt_id: &str) {
    out.extend_from_slice(b"RECEIPT\n");
    push_header(out, b"receipt-id:", receipt_id, version);
    out.extend_from_slice(b"\n\0");
}

/// Contents of `ERROR`. Source: STOMP 1.2 "ERROR".
#[derive(Clone, Copy, Debug)]
pub struct ErrorFrame<'a> {
    /// `message`: what is wrong, in a few words.
    pub message: &'a str,
    /// The body: what is wrong and what would be right. Without NUL.
    pub details: &'a str,
    /// `receipt-id`: the decoded `receipt` of the frame at fault.
    pub receipt_id: Option<&'a str>,
    /// Adds `version`, all that we speak. Source: STOMP 1.2 "Protocol Negotiation".
    pub lists_versions: bool,
}

/// Appends `ERROR`, whole; the connection must close after it.
#[cold]
pub fn error(out: &mut Vec<u8>, version: Version, frame: &ErrorFrame<'_>) {
    out.extend_from_slice(b"ERROR\n");
    push_header(out, b"message:", frame.message, version);
    if let Some(receipt_id) = frame.receipt_id {
        push_header(out, b"receipt-id:", receipt_id, version);
    }
    if frame.lists_versions {
        push_header(out, b"version:", Version::SUPPORTED, version);
    }
    out.extend_from_slice(b"content-type:text/plain\ncontent-length:");
    let length = u64::try_from(frame.details.len()).unwrap_or(u64::MAX);
    decimal::push(out, length);
    out.extend_from_slice(b"\n\n");
    out.extend_from_slice(frame.details.as_bytes());
    out.push(0);
}

fn push_header(out: &mut Vec<u8>, name_and_colon: &[u8], value: &str, version: Version) {
    out.extend_from_slice(name_and_colon);
    push_escaped(out, value, version);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let mut out = Vec::new();
        Token::Pair(7, u64::MAX).push(&mut out, Version::V1_2);
        let text = String::from_utf8(out).expect("a token of numbers is ASCII");
        assert_eq!(Token::parse_pair(&text), Some((7, u64::MAX)));
        for text in ["", "-", "1-", "-1", "1-2-3", "a-b", "1"] {
            assert_eq!(Token::parse_pair(text), None, "{text:?}");
        }
    }

    #[test]
    #[should_panic(expected = "would break CONNECTED")]
    fn a_session_name_cannot_break_connected() {
        let frame = Connected {
            version: Version::V1_2,
            heart_beat: HeartBeatOffer::default(),
            session: "1\nlogin:x",
            server: "s",
        };
        connected(&mut Vec::new(), &frame);
    }

    #[test]
    fn an_expiry_that_is_not_the_senders_takes_its_place() {
        let write = |own_expiry_unix_ms| {
            let head = MessageHead {
                subscription: None,
                message_id: Token::Pair(1, 2),
                destination: "d",
                ack: None,
                is_redelivered: false,
                delivery_count: 1,
                content_length: None,
                own_expiry_unix_ms,
                stored_head: b"a:b\\cc\nexpires:5\nexpires:6\nx-expires:7\n",
            };
            let mut out = Vec::new();
            message_head(&mut out, Version::V1_1, &head);
            String::from_utf8(out).expect("all parts are UTF-8")
        };
        let expected = |lines| format!("MESSAGE\nmessage-id:1-2\ndestination:d\n{lines}\n");
        assert_eq!(
            write(None),
            expected("a:b\\cc\nexpires:5\nexpires:6\nx-expires:7\n")
        );
        assert_eq!(
            write(Some(9)),
            expected("expires:9\na:b\\cc\nx-expires:7\n")
        );
        assert_eq!(write(Some(0)), expected("a:b\\cc\nx-expires:7\n"));
    }

    #[test]
    fn a_message_head_has_the_headers_of_its_version() {
        let head = MessageHead {
            subscription: Some("a:b"),
            message_id: Token::Pair(1, 2),
            destination: "/queue/a",
            ack: Some(Token::Number(9)),
            is_redelivered: true,
            delivery_count: 2,
            content_length: Some(5),
            own_expiry_unix_ms: None,
            stored_head: b"k:v\\cw\n",
        };
        let write = |version| {
            let mut out = Vec::new();
            message_head(&mut out, version, &head);
            String::from_utf8(out).expect("all parts are UTF-8")
        };
        let rest = "redelivered:true\ndelivery-count:2\ncontent-length:5\n";
        assert_eq!(
            write(Version::V1_2),
            format!(
                "MESSAGE\nsubscription:a\\cb\nmessage-id:1-2\ndestination:/queue/a\nack:9\n\
                 {rest}k:v\\cw\n\n"
            )
        );
        assert_eq!(
            write(Version::V1_0),
            format!(
                "MESSAGE\nsubscription:a:b\nmessage-id:1-2\ndestination:/queue/a\n\
                 {rest}k:v:w\n\n"
            )
        );
    }
}
