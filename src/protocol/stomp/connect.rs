//! Reads `CONNECT` and `STOMP`.

use super::error::ErrorKind;
use super::escape::Value;
use super::event::Connect;
use super::head::Headers;
use super::heart_beat::{HeartBeat, HeartBeatOffer, parse_pair};
use super::version::Version;

/// Reads the headers and agrees on version and heart-beats.
///
/// `host` is required from 1.1 on, but nothing here rests on it and clients forget it: tolerated.
/// Errors: `NoCommonVersion`, `HeartBeatMalformed`.
/// Source: STOMP 1.2 "CONNECT or STOMP Frame", "Protocol Negotiation", "Heart-beating".
pub(super) fn read<'a>(
    headers: Headers<'a>,
    offer: HeartBeatOffer,
) -> Result<Connect<'a>, ErrorKind> {
    // The lines are checked first, so that an error does not depend on what stands behind it.
    for line in headers.lines() {
        line?;
    }
    let accept = headers.first("accept-version");
    let version = Version::negotiate(accept.as_ref().map(Value::raw))?;
    // Padding is part of 1.0 only: its first example reads "login: <username>".
    let value = |name| {
        let found = headers.first(name)?;
        Some(if version == Version::V1_0 {
            found.trimmed()
        } else {
            found
        })
    };
    Ok(Connect {
        version,
        host: value("host"),
        login: value("login"),
        passcode: value("passcode"),
        client_id: value("client-id"),
        heart_beat: heart_beat(&headers, version, offer)?,
        headers,
    })
}

/// A missing header is "0,0"; 1.0 has no heart-beats at all.
fn heart_beat(
    headers: &Headers<'_>,
    version: Version,
    offer: HeartBeatOffer,
) -> Result<HeartBeat, ErrorKind> {
    match headers.first("heart-beat") {
        Some(pair) if version >= Version::V1_1 => {
            Ok(HeartBeat::negotiate(parse_pair(pair.raw())?, offer))
        }
        _ => Ok(HeartBeat::default()),
    }
}
