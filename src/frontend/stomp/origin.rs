//! What a forwarded message says about where it came from, as header lines.

use forebay_journal::format::Departure;

use crate::frontend::{Deliver, Departs};
use crate::protocol::stomp::push_line;

/// Names of Artemis, which its users look for.
const ADDRESS: &str = "_AMQ_ORIG_ADDRESS";
const QUEUE: &str = "_AMQ_ORIG_QUEUE";
const MESSAGE: &str = "_AMQ_ORIG_MESSAGE_ID";
/// Why it is here.
const REASON: &str = "dead-letter-reason";
/// How often it was delivered where it came from.
const DELIVERIES: &str = "dead-letter-deliveries";

/// Writes the lines that go before the message's own, so that of two of a name these count.
pub fn push_origin(departs: &Departs<Vec<u8>>, deliver: &Deliver<&[u8]>, out: &mut Vec<u8>) {
    let reason = match departs.reason {
        Departure::AttemptsExceeded => "attempts-exceeded",
        Departure::Rejected => "rejected",
        Departure::Expired => "expired",
        Departure::Diverted => "",
    };
    if !reason.is_empty() {
        push_line(out, REASON, reason);
        push_line(out, DELIVERIES, &deliver.attempts.to_string());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // A queue bound to a pattern holds messages of several addresses.
    let address = match deliver.address {
        [] => &departs.origin_address,
        address => address,
    };
    push_line(out, ADDRESS, &text(address));
    push_line(out, QUEUE, &text(&departs.origin_queue));
    let message = format!("{}-{}", deliver.shard, deliver.message.0);
    push_line(out, MESSAGE, &message);
}
