//! Temporary destinations: names that one connection makes up for itself, and what others call
//! them.
//!
//! `/temp-queue/x` on the connection with session `s` is `/remote-temp-queue/s/x` for everybody
//! else: so it is written into the `reply-to` of what that connection sends. Its queue is there as
//! long as somebody of the connection is subscribed to it; only that connection can be.
//! Source: the names are those of ActiveMQ (`features.md` 3.4).

use std::borrow::Cow;

use super::Unusable;
use crate::protocol::stomp::{Headers, push_line};

/// What stands before `temp-queue/s/x` in the name that others use.
pub(super) const REMOTE: &str = "/remote-";
/// How the names of the connection itself begin.
const OWN: [&str; 2] = ["/temp-queue/", "/temp-topic/"];

/// The destination as it is called outside of the connection with this session.
pub(super) fn as_seen_by_others<'a>(text: Cow<'a, str>, session: &str) -> Cow<'a, str> {
    let Some(prefix) = OWN.iter().find(|prefix| text.starts_with(**prefix)) else {
        return text;
    };
    let (kind, name) = text.split_at(prefix.len());
    if name.is_empty() {
        // Refused further on, as any destination without a name.
        return text;
    }
    Cow::Owned(format!("{REMOTE}{}{session}/{name}", &kind[1..]))
}

/// Only its own connection may listen to a temporary destination.
///
/// Errors: the destination is named as others name it.
pub(super) fn check_listener(text: &str) -> Result<(), Unusable> {
    if text.starts_with("/remote-temp-") {
        let details = "Only the connection that made a temporary destination can subscribe to it.";
        return Err(Unusable::new("not your destination", details));
    }
    Ok(())
}

/// Writes a stored head again with each `reply-to` as others have to name it.
pub(super) fn rewrite_reply_to(stored: &[u8], session: &str, out: &mut Vec<u8>) {
    let headers = Headers::from_stored(stored).expect("the engine stores canonical lines");
    for (key, value) in headers.iter() {
        let (key, value) = (key.decode(), value.decode());
        if key == "reply-to" {
            push_line(out, &key, &as_seen_by_others(value, session));
        } else {
            push_line(out, &key, &value);
        }
    }
}

/// Whether a `reply-to` names a destination of the connection itself.
pub(super) fn is_own(text: &str) -> bool {
    OWN.iter().any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_told_to_others_and_the_rest_stays() {
        for (text, seen) in [
            ("/temp-queue/x", "/remote-temp-queue/s-1/x"),
            ("/temp-topic/a/b", "/remote-temp-topic/s-1/a/b"),
            ("/queue/x", "/queue/x"),
            ("/remote-temp-queue/t/x", "/remote-temp-queue/t/x"),
            ("/temp-queue/", "/temp-queue/"),
        ] {
            assert_eq!(as_seen_by_others(text.into(), "s-1"), seen);
        }
    }

    #[test]
    fn reply_to_is_rewritten_and_other_lines_are_not() {
        let mut head = Vec::new();
        rewrite_reply_to(
            b"a:b\\cc\nreply-to:/temp-queue/x\nreply-to:q\n",
            "s",
            &mut head,
        );
        let expected = "a:b\\cc\nreply-to:/remote-temp-queue/s/x\nreply-to:q\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }
}
