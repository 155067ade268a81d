//! Properties of the engine over generated sessions: cuts, round trips, arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::frames::{self, Message};
use crate::now::Now;
use crate::protocol::stomp::encode::{self, MessageHead, Token};
use crate::protocol::stomp::fuzz::{self, Cuts};
use crate::protocol::stomp::{Connection, Event, Headers, Limits, Version};

/// Feeds a session of `version` with one frame and hands its event over.
fn with_event(version: Version, frame: &[u8], check: impl FnOnce(Event<'_>)) {
    let now = Now::from_monotonic_us(0);
    let mut connection = Connection::new(Limits::default(), now);
    connection
        .next_event(&frames::connect(version), now)
        .expect("CONNECT is sound");
    let parsed = connection
        .next_event(frame, now)
        .expect("the frame is sound");
    assert_eq!(parsed.consumed, frame.len());
    check(parsed.event.expect("the frame is whole"));
}

fn check_received(message: &Message, version: Version, eol: &str) {
    let frame = message.write(version, eol);
    with_event(version, &frame, |event| {
        let Event::Send(send) = event else {
            panic!("not SEND: {event:?}")
        };
        assert_eq!(send.destination.decode(), message.destination.as_str());
        let receipt = send.receipt.map(|receipt| receipt.decode().into_owned());
        assert_eq!(receipt, message.receipt);
        assert_eq!(send.body, message.body.as_slice());
        assert_eq!(send.has_content_length, message.has_content_length);
        assert!(send.is_complete);
        let stored: Vec<u8> = send.stored_head.parts().flatten().copied().collect();
        assert_eq!(stored.len(), send.stored_head.len());
        let headers = Headers::from_stored(&stored).expect("stored lines are canonical");
        let pairs: Vec<_> = headers
            .iter()
            .map(|(key, value)| (key.decode().into_owned(), value.decode().into_owned()))
            .collect();
        assert_eq!(pairs, message.headers);
        check_delivered(message, &stored, version);
    });
}

/// Writes the stored message for a client of the same version and reads it as a client would.
fn check_delivered(message: &Message, stored: &[u8], version: Version) {
    let mut out = Vec::new();
    let head = MessageHead {
        subscription: Some(&message.destination),
        message_id: Token::Number(1),
        destination: &message.destination,
        ack: None,
        is_redelivered: false,
        delivery_count: 1,
        content_length: Some(message.body.len() as u64),
        own_expiry_unix_ms: None,
        stored_head: stored,
    };
    encode::message_head(&mut out, version, &head);
    let text = String::from_utf8(out).expect("a head is UTF-8");
    let mut expected = format!(
        "MESSAGE\nsubscription:{0}\nmessage-id:1\ndestination:{0}\ncontent-length:{1}\n",
        frames::escape(&message.destination, version),
        message.body.len()
    );
    for (key, value) in &message.headers {
        let (key, value) = (frames::escape(key, version), frames::escape(value, version));
        expected.push_str(&format!("{key}:{value}\n"));
    }
    expected.push('\n');
    assert_eq!(text, expected);
}

/// Valid frames of one session, back to back, with line ends between.
fn session() -> impl Strategy<Value = Vec<u8>> {
    frames::version().prop_flat_map(|version| {
        vec((frames::message(version), 0..3_usize), 0..5).prop_map(move |messages| {
            let mut stream = frames::connect(version);
            for (message, line_ends) in messages {
                stream.extend(message.write(version, "\n"));
                stream.extend(std::iter::repeat_n(b'\n', line_ends));
            }
            stream.extend_from_slice(b"SUBSCRIBE\nid:1\ndestination:/queue/a\n\n\0");
            stream.extend_from_slice(b"DISCONNECT\nreceipt:r\n\n\0");
            stream
        })
    })
}

/// A few bytes of a stream, changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (
        session(),
        vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    )
        .prop_map(|(mut stream, changes)| {
            for (index, octet) in changes {
                let at = index.index(stream.len());
                stream[at] = octet;
            }
            stream
        })
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..600_usize, 0..600_u64, 0..12_usize, 40..400_usize).prop_map(
        |(body_inline_max, message_size_max, header_count_max, header_bytes_max)| Limits {
            body_inline_max,
            message_size_max,
            header_count_max,
            header_bytes_max,
            ..Limits::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_message_comes_through_unchanged_in_1_0(message in frames::message(Version::V1_0)) {
        check_received(&message, Version::V1_0, "\n");
    }

    #[test]
    fn a_message_comes_through_unchanged_in_1_1(message in frames::message(Version::V1_1)) {
        check_received(&message, Version::V1_1, "\n");
    }

    #[test]
    fn a_message_comes_through_unchanged_in_1_2(message in frames::message(Version::V1_2)) {
        check_received(&message, Version::V1_2, "\n");
    }

    #[test]
    fn cr_lf_means_the_same_in_1_2(message in frames::message(Version::V1_2)) {
        check_received(&message, Version::V1_2, "\r\n");
    }

    #[test]
    fn sound_sessions_read_the_same_however_cut(
        stream in session(), limits in limits(), seed in any::<u64>(),
    ) {
        let whole = fuzz::listen(&stream, limits, &mut Cuts::whole());
        let cut = fuzz::listen(&stream, limits, &mut Cuts::seeded(seed));
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn damaged_sessions_read_the_same_however_cut(
        stream in damaged(), limits in limits(), seed in any::<u64>(),
    ) {
        let whole = fuzz::listen(&stream, limits, &mut Cuts::whole());
        let cut = fuzz::listen(&stream, limits, &mut Cuts::seeded(seed));
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn arbitrary_bytes_break_nothing(stream in vec(any::<u8>(), 0..300)) {
        fuzz::exercise(&stream);
    }

    #[test]
    fn with_usual_limits_nothing_sound_is_refused(stream in session()) {
        let story = fuzz::listen(&stream, Limits::default(), &mut Cuts::whole());
        prop_assert_eq!(story.error, None);
        prop_assert!(story.lines.last().is_some_and(|line| line.contains("Disconnect")));
    }
}

/// Usual clients cost no allocation: what is stored are slices of the input.
#[test]
fn usual_heads_are_stored_without_a_copy() {
    let frames: [&[u8]; 3] = [
        b"SEND\ndestination:/queue/a\npersistent:true\nreceipt:1\n\nbody\0",
        b"SEND\ncontent-length:4\ncontent-type:text/plain\ndestination:/queue/a\nk:\\cv\n\
          receipt:1\n\
          transaction:t\nx:y\n\nbody\0",
        b"SEND\na:1\ndestination:/queue/a\nb:2\nreceipt:3\nc:3\ntransaction:t\nd:4\n\
          content-length:4\ne:5\n\nbody\0",
    ];
    for frame in frames {
        with_event(Version::V1_2, frame, |event| {
            let Event::Send(send) = event else {
                panic!("not SEND: {event:?}")
            };
            assert!(send.stored_head.is_borrowed(), "{send:?}");
        });
    }
}

/// One byte at a time must not mean searching the frame from its start each time: this ends
/// within the test's patience only when it does not.
#[test]
fn slow_arrival_costs_no_more_searching() {
    let mut stream = frames::connect(Version::V1_2);
    let body = "b".repeat(60_000);
    for _ in 0..20 {
        let value = "v".repeat(60_000);
        let frame = format!("SEND\ndestination:/queue/a\nk:{value}\n\n{body}\0");
        stream.extend_from_slice(frame.as_bytes());
    }
    let now = Now::from_monotonic_us(0);
    let mut connection = Connection::new(Limits::default(), now);
    let (mut start, mut frames) = (0, 0);
    for end in 1..=stream.len() {
        let parsed = connection
            .next_event(&stream[start..end], now)
            .expect("all is sound");
        start += parsed.consumed;
        frames += usize::from(parsed.event.is_some());
    }
    assert_eq!((start, frames), (stream.len(), 21));
}

/// A message of any size needs no buffer of its size.
#[test]
fn a_large_body_passes_through_a_small_buffer() {
    let body_len = 8 << 20;
    for with_length in [true, false] {
        let length = if with_length {
            format!("content-length:{body_len}\n")
        } else {
            String::new()
        };
        let head = format!("SEND\ndestination:/queue/a\nreceipt:r\n{length}\n");
        let mut stream = frames::connect(Version::V1_2);
        stream.extend_from_slice(head.as_bytes());
        stream.extend(std::iter::repeat_n(b'x', body_len));
        stream.push(0);
        let now = Now::from_monotonic_us(0);
        let limits = Limits {
            body_inline_max: 4096,
            ..Limits::default()
        };
        let mut connection = Connection::new(limits, now);
        let (mut start, mut kept_max, mut body, mut is_whole) = (0, 0, 0, false);
        for end in (16_384..stream.len() + 16_384).step_by(16_384) {
            let end = end.min(stream.len());
            loop {
                let parsed = connection
                    .next_event(&stream[start..end], now)
                    .expect("all is sound");
                start += parsed.consumed;
                match parsed.event {
                    Some(Event::Send(send)) => {
                        let body_total = with_length.then_some(body_len as u64);
                        assert_eq!((send.body_total, send.is_complete), (body_total, false));
                        body += send.body.len();
                    }
                    Some(Event::SendPart(part)) => {
                        body += part.bytes.len();
                        is_whole = part.is_last;
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            kept_max = kept_max.max(end - start);
        }
        assert_eq!((body, is_whole, kept_max), (body_len, true, 0));
    }
}
