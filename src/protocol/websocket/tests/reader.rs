//! Frames of clients, sound and not.

use proptest::prelude::*;

use super::frame;
use crate::protocol::websocket::fuzz::{Story, listen};
use crate::protocol::websocket::utf8::Utf8Check;
use crate::protocol::websocket::{CloseCode, Limits, Violation};

const LIMITS: Limits = Limits {
    frame_size_max: 1 << 20,
};
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a client sends.
#[derive(Clone, Debug)]
struct Message {
    text: String,
    is_text: bool,
    /// Where it is cut into frames; behind each cut a ping with this payload.
    cuts: Vec<(usize, Option<Vec<u8>>)>,
    mask: [u8; 4],
}

impl Message {
    fn encode(&self, out: &mut Vec<u8>, expected: &mut Story) {
        let bytes = self.text.as_bytes();
        let mut from = 0;
        let mut opcode = if self.is_text { 1 } else { 2 };
        let mut cuts = self.cuts.clone();
        cuts.sort();
        for (cut, ping) in cuts {
            let to = cut.min(bytes.len());
            out.extend(frame(opcode, self.mask, &bytes[from..to]));
            expected.payload.extend(&bytes[from..to]);
            (from, opcode) = (to, 0);
            if let Some(payload) = ping {
                out.extend(frame(0x89, self.mask, &payload));
                let text = format!("ping {payload:?}");
                expected.controls.push((expected.payload.len(), text));
            }
        }
        out.extend(frame(0x80 | opcode, self.mask, &bytes[from..]));
        expected.payload.extend(&bytes[from..]);
    }
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let text = prop_oneof![
        4 => "\\PC{0,40}".boxed(),
        1 => "[a\u{df}\u{2603}\u{1f600}\0\n]{0,3000}".boxed(),
        1 => (65_000_usize..70_000).prop_map(|len| "x".repeat(len)).boxed(),
    ];
    let ping = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=125));
    let cuts = proptest::collection::vec((0_usize..60, ping), 0..4);
    let message = (text, any::<bool>(), cuts, any::<[u8; 4]>());
    let message = message.prop_map(|(text, is_text, cuts, mask)| Message {
        text,
        is_text,
        cuts,
        mask,
    });
    proptest::collection::vec(message, 1..6)
}

proptest! {
    #[test]
    fn however_bytes_are_cut_the_payload_is_the_same(messages in messages(), seed: u8) {
        let mut stream = Vec::new();
        let mut expected = Story::default();
        for message in &messages {
            message.encode(&mut stream, &mut expected);
        }
        for seed in [None, Some(seed)] {
            prop_assert_eq!(&listen(&stream, LIMITS, false, seed), &expected);
        }
    }

    #[test]
    fn text_in_parts_is_judged_as_the_whole(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..12),
            "[a\u{df}\u{2603}\u{1f600}]{0,8}".prop_map(String::into_bytes),
            ("[\u{df}\u{2603}\u{1f600}]{1,8}", 0_usize..20, any::<u8>()).prop_map(|(text, at, byte)| {
                let mut bytes = text.into_bytes();
                let at = at % bytes.len();
                bytes[at] = byte;
                bytes
            }),
        ],
        len in 1_usize..5,
    ) {
        let mut check = Utf8Check::new();
        let is_sound = bytes.chunks(len).all(|part| check.advance(part)) && check.end();
        prop_assert_eq!(is_sound, std::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed: u8) {
        for begins_with_request in [false, true] {
            listen(&bytes, LIMITS, begins_with_request, Some(seed));
        }
    }
}

#[test]
fn every_violation_has_its_code() {
    let unmasked = vec![0x82, 1, b'x'];
    let long_way = vec![0x82, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'x'];
    let longer_way = vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
    let mut too_large = vec![0x82, 0x80 | 127];
    too_large.extend(((1_u64 << 20) + 1).to_be_bytes());
    too_large.extend(MASK);
    let mut enormous = vec![0x82, 0xff];
    enormous.extend([0xff; 8]);
    enormous.extend(MASK);
    let nested = [frame(0x01, MASK, b"a"), frame(0x01, MASK, b"b")].concat();
    let late = [frame(0x01, MASK, b"a"), frame(0x80, MASK, b"\xff")].concat();
    let cut = [frame(0x01, MASK, b"a\xe2\x98"), frame(0x80, MASK, b"")].concat();
    let max = 1 << 20;
    for (bytes, violation, code) in [
        (unmasked, Violation::Unmasked, 1002),
        (long_way, Violation::LengthNotMinimal, 1002),
        (longer_way, Violation::LengthNotMinimal, 1002),
        (too_large, Violation::FrameTooLarge { max }, 1009),
        (enormous, Violation::FrameTooLarge { max }, 1009),
        (frame(0xc1, MASK, b"x"), Violation::ReservedBits, 1002),
        (frame(0xa1, MASK, b"x"), Violation::ReservedBits, 1002),
        (frame(0x91, MASK, b"x"), Violation::ReservedBits, 1002),
        (frame(0x83, MASK, b"x"), Violation::UnknownOpcode, 1002),
        (frame(0x8b, MASK, b"x"), Violation::UnknownOpcode, 1002),
        (frame(0x80, MASK, b"x"), Violation::NothingToContinue, 1002),
        (nested, Violation::MessageNotFinished, 1002),
        (frame(0x09, MASK, b""), Violation::ControlFragmented, 1002),
        (
            frame(0x89, MASK, &[0; 126]),
            Violation::ControlTooLarge,
            1002,
        ),
        (frame(0x88, MASK, b"x"), Violation::BadClose, 1002),
        (frame(0x88, MASK, &[0x03, 0xed]), Violation::BadClose, 1002),
        (frame(0x88, MASK, &[0, 1]), Violation::BadClose, 1002),
        (frame(0x88, MASK, b"\x03\xe8\xff"), Violation::NotUtf8, 1007),
        (frame(0x81, MASK, b"a\xffb"), Violation::NotUtf8, 1007),
        (frame(0x81, MASK, b"a\xe2\x98"), Violation::NotUtf8, 1007),
        (late, Violation::NotUtf8, 1007),
        (cut, Violation::NotUtf8, 1007),
    ] {
        for seed in [None, Some(0), Some(200)] {
            let story = listen(&bytes, LIMITS, false, seed);
            assert_eq!(story.violation, Some(violation), "{bytes:?}");
        }
        assert_eq!(violation.code(), CloseCode::from(code), "{violation}");
    }
}

#[test]
fn a_close_ends_it() {
    for (payload, code) in [
        (&b""[..], None),
        (&b"\x03\xe8"[..], Some(1000)),
        (&b"\x03\xe9bye"[..], Some(1001)),
        (&b"\x0f\xa0"[..], Some(4000)),
    ] {
        let stream = [
            frame(0x8a, MASK, b"unasked"),
            frame(0x88, MASK, payload),
            frame(0x82, MASK, b"behind it"),
        ];
        let story = listen(&stream.concat(), LIMITS, false, None);
        assert_eq!((story.payload.len(), story.violation), (0, None));
        let code = code.map(CloseCode::from);
        let texts: Vec<_> = story.controls.into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["pong".to_owned(), format!("close {code:?}")]);
    }
}
