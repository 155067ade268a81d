//! Reads the headers of the frames without a body.

use super::command::Command;
use super::error::ErrorKind;
use super::escape::Value;
use super::event::{
    Ack, AckMode, Disconnect, Event, RoutingType, Subscribe, Transaction, Unsubscribe,
};
use super::head::Headers;
use super::send::{content_length, first, routing_type};
use super::version::Version;

/// What is picked out of the lines; which of it counts depends on the command.
#[derive(Default)]
struct Fields<'a> {
    id: Option<Value<'a>>,
    receipt: Option<Value<'a>>,
    transaction: Option<Value<'a>>,
    message_id: Option<Value<'a>>,
    subscription: Option<Value<'a>>,
    destination: Option<Value<'a>>,
    selector: Option<Value<'a>>,
    ack: Option<&'a str>,
    requeue: Option<&'a str>,
    routing: Option<&'a str>,
    content_length: Option<u64>,
}

/// Reads a frame that is neither `SEND` nor `CONNECT` into `event`; returns `content-length`.
///
/// Source: STOMP 1.2 "Client Frames", "Frames and Headers" and the same of 1.1 and 1.0.
pub(super) fn read<'a>(
    command: Command,
    version: Version,
    headers: Headers<'a>,
    event: &mut Option<Event<'a>>,
) -> Result<Option<u64>, ErrorKind> {
    let fields = Fields::read(&headers)?;
    let content_length = fields.content_length;
    *event = Some(match command {
        Command::Ack => Event::Ack(fields.ack(command, version)?),
        Command::Nack => Event::Nack(fields.ack(command, version)?),
        Command::Begin => Event::Begin(fields.transaction(command)?),
        Command::Commit => Event::Commit(fields.transaction(command)?),
        Command::Abort => Event::Abort(fields.transaction(command)?),
        Command::Subscribe => Event::Subscribe(fields.subscribe(version, headers)?),
        Command::Unsubscribe => Event::Unsubscribe(fields.unsubscribe(version, headers)?),
        Command::Disconnect | Command::Connect | Command::Send => Event::Disconnect(Disconnect {
            receipt: fields.receipt,
        }),
    });
    Ok(content_length)
}

impl<'a> Fields<'a> {
    /// Source: STOMP 1.2 "Repeated Header Entries".
    fn read(headers: &Headers<'a>) -> Result<Self, ErrorKind> {
        let mut fields = Self::default();
        for line in headers.lines() {
            let line = line?;
            let text = line.value;
            let value = || Ok(headers.value(text));
            match line.key.as_bytes() {
                b"id" => first(&mut fields.id, value)?,
                b"receipt" => first(&mut fields.receipt, value)?,
                b"transaction" => first(&mut fields.transaction, value)?,
                b"message-id" => first(&mut fields.message_id, value)?,
                b"subscription" => first(&mut fields.subscription, value)?,
                b"destination" => first(&mut fields.destination, value)?,
                b"selector" => first(&mut fields.selector, value)?,
                b"ack" => first(&mut fields.ack, || Ok(text))?,
                b"requeue" => first(&mut fields.requeue, || Ok(text))?,
                b"subscription-type" => first(&mut fields.routing, || Ok(text))?,
                b"content-length" => first(&mut fields.content_length, || content_length(text))?,
                _ => false,
            };
        }
        Ok(fields)
    }

    /// Source: STOMP 1.2 "ACK" (`id`), STOMP 1.1 "ACK" (`message-id` and `subscription`),
    /// STOMP 1.0 "ACK" (`message-id`). Headers of the other versions are passed over, since
    /// careful clients send both sets.
    fn ack(self, command: Command, version: Version) -> Result<Ack<'a>, ErrorKind> {
        let required = |value: Option<Value<'a>>, header| {
            value
                .map(Some)
                .ok_or(ErrorKind::MissingHeader { command, header })
        };
        let (id, message_id, subscription) = match version {
            Version::V1_2 => (required(self.id, "id")?, None, None),
            Version::V1_1 => {
                let message_id = required(self.message_id, "message-id")?;
                (
                    None,
                    message_id,
                    required(self.subscription, "subscription")?,
                )
            }
            Version::V1_0 => (
                None,
                required(self.message_id, "message-id")?,
                self.subscription,
            ),
        };
        let (transaction, receipt) = (self.transaction, self.receipt);
        Ok(Ack {
            id,
            message_id,
            subscription,
            transaction,
            is_requeued: self.requeue != Some("false"),
            receipt,
        })
    }

    /// Source: STOMP 1.2 "BEGIN", "COMMIT", "ABORT": the header is REQUIRED.
    fn transaction(self, command: Command) -> Result<Transaction<'a>, ErrorKind> {
        let missing = ErrorKind::MissingHeader {
            command,
            header: "transaction",
        };
        let transaction = self.transaction.ok_or(missing)?;
        Ok(Transaction {
            transaction,
            receipt: self.receipt,
        })
    }

    /// Source: STOMP 1.2 "SUBSCRIBE", "SUBSCRIBE id Header", "SUBSCRIBE ack Header"; in 1.0 the
    /// id is optional. `client-individual` is not in 1.0, but its clients use it as in ActiveMQ.
    fn subscribe(self, version: Version, headers: Headers<'a>) -> Result<Subscribe<'a>, ErrorKind> {
        let command = Command::Subscribe;
        let missing = |header| ErrorKind::MissingHeader { command, header };
        let destination = self.destination.ok_or_else(|| missing("destination"))?;
        if version >= Version::V1_1 && self.id.is_none() {
            return Err(missing("id"));
        }
        let ack = match self.ack {
            None => AckMode::Auto,
            Some(text) => AckMode::parse(text).ok_or(ErrorKind::AckModeUnknown)?,
        };
        let routing: Option<RoutingType> = self.routing.map(routing_type).transpose()?;
        let (id, selector, receipt) = (self.id, self.selector, self.receipt);
        Ok(Subscribe {
            destination,
            id,
            ack,
            routing,
            selector,
            receipt,
            headers,
        })
    }

    /// A durable subscription has a name of its own, also for a connection that has no id for it.
    ///
    /// Source: STOMP 1.2 "UNSUBSCRIBE" (`id`), STOMP 1.0 "UNSUBSCRIBE" (either of the two).
    fn unsubscribe(
        self,
        version: Version,
        headers: Headers<'a>,
    ) -> Result<Unsubscribe<'a>, ErrorKind> {
        let is_named = match version {
            Version::V1_0 => self.id.is_some() || self.destination.is_some(),
            Version::V1_1 | Version::V1_2 => self.id.is_some(),
        };
        if !is_named && headers.durable_name().is_none() {
            let command = Command::Unsubscribe;
            return Err(ErrorKind::MissingHeader {
                command,
                header: "id",
            });
        }
        let (id, destination, receipt) = (self.id, self.destination, self.receipt);
        Ok(Unsubscribe {
            id,
            destination,
            receipt,
            headers,
        })
    }
}
