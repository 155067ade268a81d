//! An entry for fuzzers: one connection fed with anything, cut anywhere.
//!
//! It holds what must be true of all input: no panic, nothing consumed that was not there, no
//! waiting beyond the bound, invariants after each call, and the same story however the bytes
//! were cut. `fuzz/fuzz_targets/stomp.rs` and `tests/fuzz_smoke.rs` call it; a broker never does.

use super::{Connection, Error, Event, Limits, Parsed, Send, Version};
use crate::now::Now;

/// What one connection heard, with streamed bodies put together again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// One line per whole frame: everything an event says.
    pub lines: Vec<String>,
    /// How it ended, if by a mistake of the peer. What was begun and not ended is left out.
    pub error: Option<Error>,
}

/// Feeds one connection with `data` and panics if anything is wrong.
///
/// Shape: `data[0]` seeds the cuts, `data[1]` chooses limits, the rest is what the peer sends.
/// Returns how many frames were understood.
/// Panics: when a promise of the engine is broken; that is the finding.
pub fn exercise(data: &[u8]) -> usize {
    let [seed, choice, stream @ ..] = data else {
        return 0;
    };
    let limits = limits_of(*choice);
    let whole = listen(stream, limits, &mut Cuts::whole());
    let cut = listen(stream, limits, &mut Cuts::seeded(u64::from(*seed)));
    assert_eq!(whole, cut, "the story depends on how the bytes were cut");
    whole.lines.len()
}

/// Small limits, so that little input reaches them; the usual ones now and then.
fn limits_of(choice: u8) -> Limits {
    match choice % 4 {
        0 => Limits::default(),
        1 => Limits {
            body_inline_max: 0,
            ..Limits::default()
        },
        2 => Limits {
            body_inline_max: 8,
            message_size_max: 64,
            ..Limits::default()
        },
        _ => Limits {
            header_bytes_max: 96,
            header_count_max: 4,
            body_inline_max: 16,
            message_size_max: 8,
            ..Limits::default()
        },
    }
}

/// Where the input is cut.
#[derive(Clone, Debug)]
pub struct Cuts {
    state: Option<u64>,
}

impl Cuts {
    /// All in one piece.
    pub const fn whole() -> Self {
        Self { state: None }
    }

    /// Pieces of changing sizes, 1 byte often; the same for the same seed.
    pub const fn seeded(seed: u64) -> Self {
        Self { state: Some(seed) }
    }

    /// Returns the size of the next piece.
    fn next_len(&mut self) -> usize {
        let Some(state) = &mut self.state else {
            return usize::MAX;
        };
        // A linear congruence is random enough to cut with.
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        let draw = *state >> 33;
        if draw & 3 == 0 {
            1
        } else {
            usize::from(u8::try_from(draw % 61).unwrap_or(1)) + 1
        }
    }
}

/// Feeds a new connection with `stream` and writes down what it says.
///
/// Panics: when a promise of the engine is broken.
pub fn listen(stream: &[u8], limits: Limits, cuts: &mut Cuts) -> Story {
    let now = Now::from_monotonic_us(1);
    let mut connection = Connection::new(limits, now);
    let mut story = Story::default();
    let mut unfinished: Option<(String, Vec<u8>)> = None;
    let (mut start, mut end) = (0, 0);
    loop {
        let input = stream.get(start..end).unwrap_or_default();
        let result = connection.next_event(input, now);
        connection.check_invariants();
        match result {
            Err(error) => {
                story.error = Some(error);
                return story;
            }
            Ok(Parsed { consumed, event }) => {
                assert!(consumed <= input.len(), "consumed more than there was");
                assert!(consumed > 0 || event.is_none(), "an event out of nothing");
                start += consumed;
                if let Some(event) = event {
                    write_down(&mut story, &mut unfinished, &event, connection.version());
                    continue;
                }
                // A streamed body without end leaves nothing behind; a frame does, bounded.
                assert!(
                    end - start < limits.input_size_max(),
                    "waits beyond its bound"
                );
            }
        }
        if end == stream.len() {
            return story;
        }
        end = end.saturating_add(cuts.next_len()).min(stream.len());
    }
}

fn write_down(
    story: &mut Story,
    unfinished: &mut Option<(String, Vec<u8>)>,
    event: &Event<'_>,
    version: Version,
) {
    match event {
        Event::Send(send) if !send.is_complete => {
            assert!(unfinished.is_none(), "a message within a message");
            *unfinished = Some((describe_send(send), send.body.to_vec()));
        }
        Event::Send(send) => {
            let line = format!("{} body={:?}", describe_send(send), send.body);
            story.lines.push(line);
        }
        Event::SendPart(part) => {
            let (head, mut body) = unfinished
                .take()
                .expect("a part follows the message's head");
            body.extend_from_slice(part.bytes);
            if part.is_last {
                story.lines.push(format!("{head} body={body:?}"));
            } else {
                *unfinished = Some((head, body));
            }
        }
        other => {
            assert!(unfinished.is_none(), "a frame within a message");
            story.lines.push(format!("{version:?} {other:?}"));
        }
    }
}

/// Everything but the body, and what is known of it only when it is whole.
fn describe_send(send: &Send<'_>) -> String {
    let stored: Vec<u8> = send.stored_head.parts().flatten().copied().collect();
    assert_eq!(
        stored.len(),
        send.stored_head.len(),
        "the length of the stored head is wrong"
    );
    let stored_headers = super::Headers::from_stored(&stored).expect("stored lines are canonical");
    for (key, value) in stored_headers.iter() {
        let is_kept = send.headers.iter().any(|(other_key, other)| {
            key.decode() == other_key.decode() && value.decode() == other.decode()
        });
        assert!(is_kept, "the stored line {key:?} was never sent");
    }
    format!(
        "SEND to={:?} routing={:?} receipt={:?} transaction={:?} persistent={:?} expires={:?} \
         priority={:?} length={} body={:?} stored={:?}",
        send.destination.decode(),
        send.routing,
        send.receipt.map(|receipt| receipt.decode()),
        send.transaction.map(|transaction| transaction.decode()),
        send.persistent,
        send.expires_unix_ms,
        send.priority,
        send.has_content_length,
        send.body_type,
        String::from_utf8_lossy(&stored)
    )
}
