//! Reads the headers of `SEND`: the hot path.

use super::command::Command;
use super::decimal;
use super::error::ErrorKind;
use super::escape::Value;
use super::event::{BodyType, Event, RoutingType, Send};
use super::head::{Headers, Line};
use super::stored::StoredHeadBuilder;

/// What is picked out of the lines.
#[derive(Default)]
struct Fields<'a> {
    destination: Option<Value<'a>>,
    receipt: Option<Value<'a>>,
    transaction: Option<Value<'a>>,
    content_length: Option<u64>,
    persistent: Option<bool>,
    expires_unix_ms: Option<u64>,
    priority: Option<u8>,
    routing: Option<RoutingType>,
    reply_to: Option<Value<'a>>,
    body_type: Option<Option<BodyType>>,
    has_odd_headers: bool,
}

/// Reads all lines of a `SEND` into `event`, the body still unknown; returns `content-length`.
///
/// Source: STOMP 1.2 "SEND", "Repeated Header Entries".
#[inline]
pub(super) fn read<'a>(
    headers: Headers<'a>,
    event: &mut Option<Event<'a>>,
) -> Result<Option<u64>, ErrorKind> {
    let mut fields = Fields::default();
    let mut stored = StoredHeadBuilder::new(headers);
    for line in headers.lines() {
        let line = line?;
        if fields.take(&headers, &line)? {
            stored.keep(&line);
        }
    }
    // STOMP 1.2 "SEND": one REQUIRED header.
    let missing = ErrorKind::MissingHeader {
        command: Command::Send,
        header: "destination",
    };
    *event = Some(Event::Send(Send {
        destination: fields.destination.ok_or(missing)?,
        routing: fields.routing,
        receipt: fields.receipt,
        transaction: fields.transaction,
        persistent: fields.persistent,
        expires_unix_ms: fields.expires_unix_ms,
        priority: fields.priority,
        reply_to: fields.reply_to,
        body_type: fields.body_type.flatten(),
        has_content_length: fields.content_length.is_some(),
        stored_head: stored.finish(),
        headers,
        has_odd_headers: fields.has_odd_headers,
        body_total: None,
        body: &[],
        is_complete: false,
    }));
    Ok(fields.content_length)
}

impl<'a> Fields<'a> {
    /// Takes what the line says, unless an earlier one of its name said it; returns whether the
    /// line stays with the message.
    #[inline]
    fn take(&mut self, headers: &Headers<'a>, line: &Line<'a>) -> Result<bool, ErrorKind> {
        let text = line.value;
        match line.key.as_bytes() {
            b"destination" => first(&mut self.destination, || Ok(headers.value(text))),
            b"receipt" => first(&mut self.receipt, || Ok(headers.value(text))),
            b"transaction" => first(&mut self.transaction, || Ok(headers.value(text))),
            b"content-length" => first(&mut self.content_length, || content_length(text)),
            b"destination-type" => first(&mut self.routing, || routing_type(text)),
            b"persistent" => keep(first(&mut self.persistent, || Ok(text == "true"))),
            b"expires" => keep(first(&mut self.expires_unix_ms, || {
                decimal::parse(text).ok_or(ErrorKind::ExpiresMalformed)
            })),
            b"priority" => keep(first(&mut self.priority, || priority(text))),
            b"reply-to" => keep(first(&mut self.reply_to, || Ok(headers.value(text)))),
            b"amq-msg-type" => keep(first(&mut self.body_type, || Ok(BodyType::parse(text)))),
            // Hop-by-hop, or set by the broker itself on delivery: STOMP 1.2 "MESSAGE".
            b"ack" | b"delivery-count" | b"login" | b"message-id" | b"passcode" | b"receipt-id"
            | b"redelivered" | b"subscription" => Ok(false),
            key => {
                self.has_odd_headers |= matches!(key.first(), Some(b'A'..=b'Z' | b'_'));
                Ok(true)
            }
        }
    }
}

/// Fills a field that is still empty. Source: STOMP 1.2 "Repeated Header Entries".
#[inline]
pub(super) fn first<T>(
    field: &mut Option<T>,
    read: impl FnOnce() -> Result<T, ErrorKind>,
) -> Result<bool, ErrorKind> {
    if field.is_none() {
        *field = Some(read()?);
    }
    Ok(false)
}

fn keep(taken: Result<bool, ErrorKind>) -> Result<bool, ErrorKind> {
    taken.map(|_| true)
}

/// Source: STOMP 1.2 "Header content-length".
pub(super) fn content_length(text: &str) -> Result<u64, ErrorKind> {
    decimal::parse(text).ok_or(ErrorKind::ContentLengthMalformed)
}

/// Source: the `destination-type` and `subscription-type` headers of Artemis.
pub(super) fn routing_type(text: &str) -> Result<RoutingType, ErrorKind> {
    RoutingType::parse(text).ok_or(ErrorKind::RoutingTypeUnknown)
}

fn priority(text: &str) -> Result<u8, ErrorKind> {
    match text.as_bytes() {
        [digit @ b'0'..=b'9'] => Ok(digit - b'0'),
        _ => Err(ErrorKind::PriorityMalformed),
    }
}
