//! Headers of a SEND that few messages have: when it is delivered, who sent it twice, and what it
//! belongs together with.

use forebay_journal::format::group_number;

use super::Unusable;
use super::session::{Refused, owned};
use crate::frontend::Extras;
use crate::now::Now;
use crate::protocol::stomp::{BodyType, Send, Value};

/// Milliseconds from now, of ActiveMQ.
const DELAY: &str = "AMQ_SCHEDULED_DELAY";
/// Wall-clock milliseconds, of Artemis.
const TIME: &str = "AMQ_SCHEDULED_TIME";
/// Id by which a message sent again is recognized, of Artemis.
const DUPLICATE_ID: &str = "_AMQ_DUPL_ID";
/// Name of its group, of JMS and of Artemis' own client.
const GROUP: [&str; 2] = ["JMSXGroupID", "_AMQ_GROUP_ID"];
/// Its place in the group, of JMS; one below zero ends the group, as in ActiveMQ.
const GROUP_SEQUENCE: &str = "JMSXGroupSeq";
/// Headers that ask for something the messaging model does not have.
const NOT_OFFERED: [&str; 3] = [
    "AMQ_SCHEDULED_CRON",
    "AMQ_SCHEDULED_PERIOD",
    "AMQ_SCHEDULED_REPEAT",
];

/// Reads them; nearly every message has none.
pub(super) fn extras<'a>(send: &Send<'a>, now: Now) -> Result<Extras<Value<'a>>, Refused> {
    let mut extras = Extras {
        deliver_unix_ms: 0,
        group: 0,
        is_group_end: false,
        copy: 0,
        duplicate_id: None,
    };
    // All of them begin with a capital or an underscore.
    if !send.has_odd_headers {
        return Ok(extras);
    }
    let mut sequence = None;
    let refused = |unusable| (unusable, owned(send.receipt));
    for (key, value) in send.headers.iter() {
        let key = key.raw();
        match key {
            // The first of a name counts (STOMP 1.2 "Repeated Header Entries").
            DELAY | TIME if extras.deliver_unix_ms != 0 => {}
            DELAY => {
                let delay_ms = number(key, value).map_err(refused)?;
                // Zero is what senders write that want none.
                if delay_ms > 0 {
                    extras.deliver_unix_ms = now.unix_ms.saturating_add(delay_ms);
                }
            }
            TIME => extras.deliver_unix_ms = number(key, value).map_err(refused)?,
            DUPLICATE_ID if extras.duplicate_id.is_none() => {
                extras.duplicate_id = Some(checked_id(value).map_err(refused)?);
            }
            _ if GROUP.contains(&key) => {
                let name = value.decode();
                // Without a name it is in no group.
                if extras.group == 0 && !name.is_empty() {
                    extras.group = group_number(name.as_bytes());
                }
            }
            GROUP_SEQUENCE if sequence.is_none() => {
                sequence = Some(place_in_group(value).map_err(refused)?);
            }
            _ if NOT_OFFERED.contains(&key) => {
                return Err(refused(Unusable::not_offered(key)));
            }
            _ => {}
        }
    }
    extras.is_group_end = extras.group != 0 && sequence.is_some_and(|place| place < 0);
    Ok(extras)
}

/// Whether a consumer is told the length of the body: that says bytes, where none says text.
///
/// A text with a NUL in it, or of which only a part is here, keeps the length that its sender gave:
/// without one it would end at the NUL.
pub(super) fn has_content_length(send: &Send<'_>) -> bool {
    match send.body_type {
        None => send.has_content_length,
        Some(BodyType::Bytes) => true,
        Some(BodyType::Text) => {
            send.has_content_length && (!send.is_complete || send.body.contains(&0))
        }
    }
}

/// Longest id: it is kept in memory for as long as the address remembers it.
const ID_SIZE_MAX: usize = 1024;

fn checked_id(value: Value<'_>) -> Result<Value<'_>, Unusable> {
    let size = value.decode().len();
    if (1..=ID_SIZE_MAX).contains(&size) {
        return Ok(value);
    }
    let details = format!("{DUPLICATE_ID} has {size} bytes; it takes 1 to {ID_SIZE_MAX}.");
    Err(Unusable::new("duplicate id malformed", details))
}

/// Shape: as JMS has it, a number of 32 bits.
fn place_in_group(value: Value<'_>) -> Result<i32, Unusable> {
    value.raw().parse().map_err(|_| {
        let details = format!("{GROUP_SEQUENCE}: {:?} is not a number.", value.raw());
        Unusable::new("group malformed", details)
    })
}

fn number(key: &str, value: Value<'_>) -> Result<u64, Unusable> {
    value.raw().parse().map_err(|_| {
        let details = format!("{key}: {:?} is not a number of milliseconds.", value.raw());
        Unusable::new("schedule malformed", details)
    })
}
