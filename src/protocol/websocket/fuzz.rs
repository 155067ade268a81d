//! An entry for fuzzers: one connection fed with anything, cut anywhere.
//!
//! It holds what must be true of all input: no panic, nothing consumed that was not there, no
//! waiting beyond the bound, invariants after each call, and the same story however the bytes
//! were cut. `fuzz/fuzz_targets/websocket.rs` and `tests/fuzz_smoke.rs` call it; a broker never
//! does.

use super::{Event, Handshake, INPUT_SIZE_MAX, Limits, Pages, Reader, Shaken, Violation};
use crate::limits::WEBSOCKET_HANDSHAKE_SIZE_MAX_BYTES;

/// What one connection heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// The answer to the request, if one was asked for.
    pub answer: Vec<u8>,
    /// Payload of all data frames.
    pub payload: Vec<u8>,
    /// Control frames, and how much payload came before each.
    pub controls: Vec<(usize, String)>,
    /// What the client did wrong, if it did.
    pub violation: Option<Violation>,
}

/// Feeds one connection with `data` and panics if anything is wrong.
///
/// Shape: `data[0]` seeds the cuts, `data[1]` chooses limits and whether a request comes first, the
/// rest is what the peer sends. Returns how many control frames and bytes of payload came.
/// Panics: when a promise of the adapter is broken; that is the finding.
pub fn exercise(data: &[u8]) -> usize {
    let [seed, choice, stream @ ..] = data else {
        return 0;
    };
    let limits = Limits {
        frame_size_max: if choice & 2 == 0 { 1 << 20 } else { 40 },
    };
    let begins_with_request = choice & 1 == 0;
    let whole = listen(stream, limits, begins_with_request, None);
    let mut cut = listen(stream, limits, begins_with_request, Some(*seed));
    if whole.violation == Some(Violation::NotUtf8) {
        // Of text that turns out to be none, more or less was given out before.
        cut.payload.truncate(whole.payload.len());
    }
    assert_eq!(whole, cut, "the story depends on how the bytes were cut");
    whole.controls.len() + whole.payload.len()
}

/// Feeds a new connection with `stream`, in one piece or cut by a seed; gives what it heard.
///
/// Panics: when a promise of the adapter is broken.
pub fn listen(stream: &[u8], limits: Limits, begins_with_request: bool, seed: Option<u8>) -> Story {
    let mut story = Story::default();
    let mut handshake = begins_with_request.then(|| Handshake::new(Pages::OfThisMachine));
    let mut reader = Reader::new(limits);
    let mut draw = u64::from(seed.unwrap_or(0));
    let (mut start, mut end) = (0, 0);
    loop {
        let input = stream.get(start..end).unwrap_or_default();
        if let Some(waiting) = &mut handshake {
            match waiting.advance(input, &mut story.answer) {
                Shaken::Agreed(consumed) => {
                    assert!(consumed <= input.len(), "consumed more than there was");
                    start += consumed;
                    handshake = None;
                    continue;
                }
                Shaken::Refused => return story,
                Shaken::Waiting => {
                    let most = WEBSOCKET_HANDSHAKE_SIZE_MAX_BYTES;
                    assert!((input.len() as u64) < most, "waits beyond its bound");
                }
            }
        } else {
            match read_on(&mut reader, input, seed, &mut story) {
                Some(0) => assert!(input.len() < INPUT_SIZE_MAX, "waits beyond its bound"),
                Some(consumed) => {
                    start += consumed;
                    continue;
                }
                None => return story,
            }
        }
        if end == stream.len() {
            return story;
        }
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let next = usize::try_from(draw >> 33).unwrap_or(0) % 23 + 1;
        let next = if seed.is_some() { next } else { usize::MAX };
        end = end.saturating_add(next).min(stream.len());
    }
}

/// One call: the bytes it consumed, 0 if it is starved; `None` at the end of the connection.
fn read_on(
    reader: &mut Reader,
    input: &[u8],
    seed: Option<u8>,
    story: &mut Story,
) -> Option<usize> {
    let room = seed.map_or(usize::MAX, |seed| usize::from(seed) + 1);
    let before = story.payload.len();
    let read = match reader.read(input, &mut story.payload, room) {
        Ok(read) => read,
        Err(violation) => {
            story.violation = Some(violation);
            return None;
        }
    };
    reader.check_invariants();
    assert!(read.consumed <= input.len(), "consumed more than there was");
    let grown = story.payload.len() - before;
    let text = match read.event {
        Event::Starved => {
            assert_eq!(
                (read.consumed, grown),
                (0, 0),
                "starved, yet took something"
            );
            return Some(0);
        }
        Event::Payload => {
            assert!(read.consumed > 0, "payload out of nothing");
            assert!(grown <= room, "more payload than there is room for");
            return Some(read.consumed);
        }
        Event::Ping(control) => format!("ping {:?}", control.bytes()),
        Event::Pong => "pong".to_owned(),
        Event::Close(code) => format!("close {code:?}"),
    };
    assert_eq!(grown, 0, "payload of a control frame");
    story.controls.push((story.payload.len(), text));
    (!matches!(read.event, Event::Close(_))).then_some(read.consumed)
}
