//! Names that a selector may ask a STOMP message for: its headers, and what JMS and Artemis call
//! the header fields.
//!
//! Headers have no types ([`Value::Untyped`]). The names of header fields win over headers of the
//! same name where the broker knows the value; the others fall back to them.
//! Source: Jakarta Messaging 3.1, 3.8.1.1 (identifiers); the filter expressions of Artemis.

use std::cell::OnceCell;
use std::fmt::Write as _;

use crate::frontend::Header;
use crate::protocol::stomp::StoredLookup;
use crate::selector::{self, Selector, Value};

/// A stored message with STOMP's encoding.
#[derive(Debug)]
pub struct Properties<'a> {
    header: Header,
    headers: StoredLookup<'a>,
    /// Its name as `message-id` has it, once somebody asked.
    id: OnceCell<IdText>,
}

/// Names of header fields whose value is none, or another one for each delivery.
///
/// Source: 3.8.1.1 allows `JMSCorrelationID`, `JMSDeliveryMode`, `JMSMessageID`, `JMSPriority`,
/// `JMSTimestamp` and `JMSType`; the last four are of Artemis.
const NOT_OFFERED: [&str; 8] = [
    "JMSDeliveryTime",
    "JMSDestination",
    "JMSRedelivered",
    "JMSXDeliveryCount",
    "AMQAddress",
    "AMQGroupID",
    "AMQSize",
    "AMQUserID",
];

/// The first name in a selector that no message can answer.
pub(super) fn not_offered(selector: &Selector) -> Option<&'static str> {
    NOT_OFFERED
        .into_iter()
        .find(|name| selector.names().any(|asked| asked == *name))
}

impl<'a> Properties<'a> {
    pub(in crate::frontend) fn new(header: Header, head: &'a [u8]) -> Self {
        Self {
            header,
            headers: StoredLookup::new(head),
            id: OnceCell::new(),
        }
    }

    fn header_line(&self, name: &str) -> Value<'_> {
        self.headers.get(name).map_or(Value::Null, Value::Untyped)
    }

    /// The value of a header, or of the one that bears the field's own name.
    fn either(&self, header: &str, field: &str) -> Value<'_> {
        match self.header_line(header) {
            Value::Null => self.header_line(field),
            value => value,
        }
    }

    fn field(&self, name: &str) -> Value<'_> {
        let header = &self.header;
        let number = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
        match name {
            "JMSPriority" | "AMQPriority" => Value::Int(header.priority.into()),
            "JMSTimestamp" | "AMQTimestamp" => number(header.timestamp_unix_ms),
            "JMSExpiration" | "AMQExpiration" => number(header.expires_unix_ms),
            "JMSDeliveryMode" if header.is_persistent => Value::Text("PERSISTENT"),
            "JMSDeliveryMode" => Value::Text("NON_PERSISTENT"),
            "AMQDurable" if header.is_persistent => Value::Text("DURABLE"),
            "AMQDurable" => Value::Text("NON_DURABLE"),
            "JMSMessageID" => {
                let id = self.id.get_or_init(|| IdText::new(header));
                Value::Text(id.text())
            }
            "JMSCorrelationID" => self.either("correlation-id", name),
            "JMSReplyTo" => self.either("reply-to", name),
            "JMSType" => self.either("type", name),
            _ => self.header_line(name),
        }
    }
}

impl selector::Properties for Properties<'_> {
    fn get(&self, name: &str) -> Value<'_> {
        if name.starts_with("JMS") || name.starts_with("AMQ") {
            self.field(name)
        } else {
            self.header_line(name)
        }
    }
}

/// `shard-message`, without allocation.
#[derive(Debug)]
struct IdText {
    bytes: [u8; ID_SIZE_MAX],
    len: usize,
}

/// Digits of 16 bits, a hyphen, digits of 64 bits.
const ID_SIZE_MAX: usize = 5 + 1 + 20;

impl IdText {
    fn new(header: &Header) -> Self {
        let bytes = [0; ID_SIZE_MAX];
        let mut this = Self { bytes, len: 0 };
        // It fits: see the size.
        let _ = write!(this, "{}-{}", header.shard, header.message.0);
        this
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl std::fmt::Write for IdText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use forebay_journal::MessageId;

    use super::*;

    fn selects(text: &str) -> bool {
        let header = Header {
            shard: 3,
            message: MessageId(u64::MAX),
            priority: 7,
            timestamp_unix_ms: 1_700_000_000_000,
            expires_unix_ms: 0,
            is_persistent: true,
        };
        let head =
            b"weight:12\ncorrelation-id:c\\c1\ntype:car\nJMSXGroupID:g\nmy-key:x\npriority:7\n";
        let properties = Properties::new(header, head);
        Selector::parse(text).expect(text).matches(&properties)
    }

    #[test]
    fn headers_and_header_fields_are_found_by_their_names() {
        for text in [
            "weight = 12 AND weight > 11.5 AND weight LIKE '1_'",
            "JMSCorrelationID = 'c:1' AND \"correlation-id\" = 'c:1'",
            "JMSType = 'car' AND JMSXGroupID IN ('g')",
            "JMSPriority = 7 AND AMQPriority BETWEEN 7 AND 9 AND priority = 7",
            "JMSTimestamp = 1700000000000 AND AMQTimestamp > 0 AND JMSExpiration = 0",
            "JMSDeliveryMode = 'PERSISTENT' AND AMQDurable = 'DURABLE'",
            "JMSMessageID = '3-18446744073709551615'",
            "hyphenated_props:my-key = 'x' AND missing IS NULL AND JMSReplyTo IS NULL",
            "convert_string_expressions:weight = 12",
        ] {
            assert!(selects(text), "{text}");
        }
        for text in ["weight = '12.0'", "JMSType <> 'car'", "JMSPriority = '7'"] {
            assert!(!selects(text), "{text}");
        }
    }

    #[test]
    fn what_no_message_can_answer_is_named() {
        for name in NOT_OFFERED {
            let selector = Selector::parse(&format!("a = 1 OR {name} = 1")).expect(name);
            assert_eq!(not_offered(&selector), Some(name));
        }
        let selector = Selector::parse("JMSPriority = 1").expect("sound");
        assert_eq!(not_offered(&selector), None);
    }
}
