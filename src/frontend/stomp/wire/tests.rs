//! Plain STOMP and STOMP over WebSocket are told from each other, and are the same.

use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::frontend::stomp::{EngineLimits, Pages, Settings};
use crate::frontend::{Command, Deliver, SendPartCommand, Subscription, Users};

const START: Now = Now::from_monotonic_us(1);

/// A body larger than this streams.
const INLINE_MAX: usize = 40;

fn wire() -> Wire {
    let settings = Settings {
        limits: EngineLimits {
            body_inline_max: INLINE_MAX,
            ..EngineLimits::default()
        },
        users: Users::default(),
        is_persistent_by_default: false,
        prefetch_default: 1,
        subscriptions_max: 4,
        transactions_max: 16,
        server: "test/1".to_owned(),
        pages: Pages::All,
        policies: crate::queue::Policies::default(),
    };
    Wire::new(Session::new(Rc::new(settings), "name".to_owned(), 1, START))
}

/// What a new connection is told that said `input` and then waits too long, or is broken off.
fn told(input: &[u8], is_late: bool) -> String {
    let (mut wire, mut out) = (wire(), Vec::new());
    let step = wire.handle_input(input, START, &mut out);
    let is_waiting = matches!(
        step,
        Step::Quiet {
            consumed: 0,
            is_starved: true
        }
    );
    assert!(is_waiting && out.is_empty(), "{input:?}");
    assert!(!wire.has_kept_input());
    if is_late {
        let due = Now::from_monotonic_us(wire.poll_timeout().expect("a deadline"));
        assert_eq!(wire.handle_timeout(due, &mut out), Timeout::Broken);
    } else {
        wire.say_error("broker is stopping", "", &mut out);
    }
    let len = out.len();
    wire.finish(&mut out);
    assert_eq!(out.len(), len, "a Close frame of no WebSocket");
    String::from_utf8(out).expect("text")
}

#[test]
fn each_hears_of_the_end_in_its_own_protocol() {
    for (input, is_late, begins) in [
        (&b""[..], true, "ERROR\n"),
        (b"GE", true, "ERROR\n"),
        (b"GET / HTTP/1.1\r\n", true, "HTTP/1.1 408 "),
        (b"CONNECT\n", true, "ERROR\n"),
        (b"GE", false, "ERROR\n"),
        (b"GET / HTTP/1.1\r\n", false, "HTTP/1.1 503 "),
        (b"CONNECT\n", false, "ERROR\n"),
    ] {
        let told = told(input, is_late);
        assert!(told.starts_with(begins), "{input:?}: {told}");
    }
}

/// What came of a connection's input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    commands: Vec<String>,
    /// What the client was told, without frames.
    told: Vec<u8>,
    /// How it ended, if it did.
    end: Option<String>,
}

/// Feeds a connection as a shard does, with these cuts; gives the story and the raw output.
fn listen(bytes: &[u8], cuts: &[usize]) -> (Story, Vec<u8>) {
    let (mut wire, mut out) = (wire(), Vec::new());
    let mut story = Story::default();
    let mut body: Option<Vec<u8>> = None;
    let mut kept = Vec::new();
    let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() && story.end.is_none() {
        let (part, behind) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
        rest = behind;
        kept.extend_from_slice(part);
        let mut at = 0;
        while story.end.is_none() && (at < kept.len() || wire.has_kept_input()) {
            let is_message = wire.is_message_next(&kept[at..]);
            match wire.handle_input(&kept[at..], START, &mut out) {
                Step::Quiet {
                    consumed,
                    is_starved,
                } => {
                    at += consumed;
                    if is_starved {
                        break;
                    }
                }
                Step::Command { consumed, command } => {
                    at += consumed;
                    assert_eq!(command.is_message(), is_message, "{command:?}");
                    note(&command, &mut body, &mut story);
                }
                Step::Goodbye { receipt } => story.end = Some(format!("goodbye {receipt:?}")),
                Step::Broken => story.end = Some("broken".to_owned()),
            }
        }
        kept.drain(..at.min(kept.len()));
    }
    story.told.clone_from(&out);
    (story, out)
}

fn note(command: &Command<&[u8]>, body: &mut Option<Vec<u8>>, story: &mut Story) {
    match command {
        Command::Send(send) => {
            let text = String::from_utf8_lossy(send.head);
            story
                .commands
                .push(format!("send {:?} {text}", send.address));
            *body = Some(send.body.to_vec());
        }
        Command::SendPart(SendPartCommand { bytes, .. }) => {
            body.get_or_insert_default().extend_from_slice(bytes);
        }
        other => story.commands.push(format!("{other:?}")),
    }
    let is_whole = match command {
        Command::Send(send) => send.is_complete,
        Command::SendPart(part) => part.is_last,
        _ => false,
    };
    if is_whole {
        story.commands.push(format!("body {:?}", body.take()));
    }
}

/// A client's frames in one piece, and behind a handshake in frames of these sizes.
fn in_frames(bytes: &[u8], sizes: &[usize], mask: [u8; 4]) -> Vec<u8> {
    let mut stream = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        .to_vec();
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    let mut first = 0x02;
    while !rest.is_empty() {
        let size = *sizes.next().expect("endless");
        let (part, behind) = rest.split_at(size.min(rest.len()).min(125));
        rest = behind;
        // Every third message has more than one frame.
        let is_final = size % 3 != 0 || rest.is_empty();
        stream.push(first | if is_final { 0x80 } else { 0 });
        first = if is_final { 0x02 } else { 0 };
        stream.push(0x80 | u8::try_from(part.len()).expect("at most 125"));
        stream.extend(mask);
        let masked = part.iter().zip(mask.iter().cycle());
        stream.extend(masked.map(|(byte, mask)| byte ^ mask));
    }
    stream
}

/// The payload of a server's data frames, without the answer to the handshake.
fn payload(out: &[u8]) -> Vec<u8> {
    let at = out.windows(4).position(|four| four == b"\r\n\r\n");
    let mut rest = &out[at.map_or(out.len(), |at| at + 4)..];
    let mut all = Vec::new();
    while let [first, length, behind @ ..] = rest {
        let (len, behind) = match length {
            0..=125 => (usize::from(*length), behind),
            126 => {
                let len = u16::from_be_bytes([behind[0], behind[1]]);
                (usize::from(len), &behind[2..])
            }
            _ => panic!("length {length}"),
        };
        if first & 0x0f < 8 {
            all.extend_from_slice(&behind[..len]);
        }
        rest = &behind[len..];
    }
    all
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..INLINE_MAX),
        1 => proptest::collection::vec(any::<u8>(), INLINE_MAX..4 * INLINE_MAX),
    ];
    let frame = prop_oneof![
        6 => body.prop_map(|body| {
            let head = format!("SEND\ndestination:/queue/a\ncontent-length:{}\n\n", body.len());
            [head.as_bytes(), &body, b"\0\n"].concat()
        }),
        2 => Just(b"\n".to_vec()),
        2 => (0..6_u8).prop_map(|id| {
            format!("SUBSCRIBE\nid:{id}\ndestination:/queue/b\nreceipt:r{id}\n\n\0").into_bytes()
        }),
        1 => (0..6_u8).prop_map(|id| format!("UNSUBSCRIBE\nid:{id}\n\n\0").into_bytes()),
        1 => Just(b"DISCONNECT\nreceipt:bye\n\n\0".to_vec()),
        1 => Just(b"NONSENSE\n\n\0".to_vec()),
    ];
    proptest::collection::vec(frame, 1..12).prop_map(|frames| {
        let connect = b"CONNECT\naccept-version:1.2\nhost:h\n\n\0".to_vec();
        [vec![connect], frames].concat().concat()
    })
}

proptest! {
    #[test]
    fn a_websocket_carries_the_same_story(
        bytes in frames(),
        sizes in proptest::collection::vec(1_usize..160, 1..8),
        cuts in proptest::collection::vec(1_usize..200, 1..8),
        mask: [u8; 4],
    ) {
        let (plain, _) = listen(&bytes, &[usize::MAX]);
        let (cut, _) = listen(&bytes, &cuts);
        prop_assert_eq!(&cut, &plain);
        let stream = in_frames(&bytes, &sizes, mask);
        for cuts in [&[usize::MAX][..], &cuts] {
            let (mut story, out) = listen(&stream, cuts);
            story.told = payload(&out);
            prop_assert_eq!(&story, &plain);
        }
    }
}

/// First byte and payload size of each frame of a server.
fn frame_heads(mut rest: &[u8]) -> Vec<(u8, usize)> {
    let mut heads = Vec::new();
    while let [first, length, behind @ ..] = rest {
        let (len, behind) = match length {
            126 => {
                let len = u16::from_be_bytes([behind[0], behind[1]]);
                (usize::from(len), &behind[2..])
            }
            short => (usize::from(*short), behind),
        };
        heads.push((*first, len));
        rest = &behind[len..];
    }
    heads
}

/// A body under way is one message in fragments; what waited for its end is a message each.
#[test]
fn each_stomp_frame_is_a_message() {
    let connect = "CONNECT\naccept-version:1.2\nhost:h\n\n\0";
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0";
    let stream = in_frames(
        format!("{connect}{subscribe}").as_bytes(),
        &[100],
        [1, 2, 3, 4],
    );
    let (mut wire, mut out) = (wire(), Vec::new());
    let mut at = 0;
    let subscription = loop {
        match wire.handle_input(&stream[at..], START, &mut out) {
            Step::Quiet { consumed, .. } => at += consumed,
            Step::Command {
                command: Command::Subscribe(subscribe),
                ..
            } => break subscribe.subscription,
            other => panic!("{other:?}"),
        }
    };
    let part = |shard, bytes: &'static [u8], is_last| Reply::DeliverPart {
        shard,
        bytes,
        is_last,
    };
    let receipt = |name: &'static [u8]| Reply::Receipt { receipt: name };
    // Receipts of 23 bytes, ends of bodies with their NUL.
    for (reply, frames) in [
        (Reply::Deliver(begin(subscription, 0)), vec![0x02]),
        (receipt(b"aaa"), vec![]),
        (receipt(b"bbb"), vec![]),
        (Reply::Deliver(begin(subscription, 1)), vec![]),
        (part(0, b"two", false), vec![0x00]),
        (part(1, b"of another", false), vec![]),
        // Its end, both receipts, the begin of the other body.
        (part(0, b"three", true), vec![0x80, 0x82, 0x82, 0x02]),
        (part(1, b"end", true), vec![0x80]),
        (receipt(b"ccc"), vec![0x82]),
    ] {
        out.clear();
        assert!(wire.handle_reply(&reply, &mut out));
        let heads = frame_heads(&out);
        let firsts: Vec<_> = heads.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, frames, "{reply:?}");
        if let [end, first, second, _] = heads[..] {
            assert_eq!(end.1, b"three\0".len());
            assert_eq!(
                (first.1, first.1),
                (second.1, b"RECEIPT\nreceipt-id:aaa\n\n\0".len())
            );
        }
    }
    out.clear();
    wire.finish(&mut out);
    wire.finish(&mut out);
    assert_eq!(out, b"\x88\x02\x03\xe8", "Close, once");
}

/// The beginning of a message of which more comes.
fn begin(subscription: Subscription, shard: u16) -> Deliver<&'static [u8]> {
    Deliver {
        subscription,
        delivery_tag: 1,
        shard,
        message: forebay_journal::MessageId(1),
        attempts: 0,
        is_redelivered: false,
        priority: 4,
        is_persistent: false,
        has_content_length: true,
        own_expiry_unix_ms: None,
        encoding: super::super::ENCODING,
        body_size: 11,
        address: b"",
        head: b"",
        body: b"one",
        is_complete: false,
    }
}
