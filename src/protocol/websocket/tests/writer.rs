//! What is written, as another reader of RFC 6455 sees it: tungstenite's whole client.

use std::io::Cursor;

use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use crate::limits::WEBSOCKET_FRAME_SIZE_MAX_BYTES;
use crate::protocol::websocket::{CloseCode, Writer};

/// Everything a client reads up to the end of the stream, or to Close.
fn read_all(stream: Vec<u8>) -> Vec<Message> {
    // What the client answers goes behind the stream.
    let mut client = WebSocket::from_raw_socket(Cursor::new(stream), Role::Client, None);
    let mut messages = Vec::new();
    loop {
        match client.read() {
            Ok(message) => messages.push(message),
            Err(Error::ConnectionClosed | Error::Protocol(_)) => return messages,
            Err(error) => panic!("after {} messages: {error}", messages.len()),
        }
    }
}

/// Sizes of the frames' payloads.
fn frame_sizes(mut stream: &[u8]) -> Vec<u64> {
    let mut sizes = Vec::new();
    while let [_, length, rest @ ..] = stream {
        let (size, rest) = match length {
            126 => (
                u64::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => panic!("a frame that long"),
            masked @ 128.. => panic!("a server masks: {masked}"),
            short => (u64::from(*short), rest),
        };
        sizes.push(size);
        stream = &rest[usize::try_from(size).expect("16 bits")..];
    }
    sizes
}

/// Bytes of which no two neighbours, and no two places a frame apart, are alike; no UTF-8.
fn counted(len: usize) -> Vec<u8> {
    let places = (0..=250_u8).cycle().take(len);
    places.map(|place| place ^ 0x80).collect()
}

#[derive(Clone, Debug)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Streamed(Vec<Vec<u8>>),
    Pong(Vec<u8>),
}

fn said() -> impl Strategy<Value = Said> {
    let bytes = || {
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 1..200).boxed(),
            1 => (65_500_usize..66_000).prop_map(counted).boxed(),
            1 => (131_000_usize..131_100).prop_map(counted).boxed(),
        ]
    };
    prop_oneof![
        "\\PC{1,80}".prop_map(Said::Text),
        (6_500_usize..26_300)
            .prop_map(|len| Said::Text("a\u{df}\u{2603}bcd\u{1f600}".repeat(len / 4))),
        bytes().prop_map(Said::Binary),
        proptest::collection::vec(bytes(), 2..4).prop_map(Said::Streamed),
        proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Said::Pong),
    ]
}

proptest! {
    #[test]
    fn another_reader_reads_what_was_said(all in proptest::collection::vec(said(), 1..6)) {
        let mut writer = Writer::default();
        let mut out = Vec::new();
        let mut expected = Vec::new();
        let push = |bytes: &[u8], out: &mut Vec<u8>| {
            let start = out.len();
            out.extend_from_slice(bytes);
            start
        };
        for said in all {
            match said {
                Said::Text(text) => {
                    let start = push(text.as_bytes(), &mut out);
                    writer.frame(start, true, true, &mut out);
                    expected.push(Message::text(text));
                }
                Said::Binary(bytes) => {
                    let start = push(&bytes, &mut out);
                    writer.frame(start, true, true, &mut out);
                    expected.push(match String::from_utf8(bytes) {
                        Ok(text) => Message::text(text),
                        Err(error) => Message::binary(error.into_bytes()),
                    });
                }
                Said::Streamed(parts) => {
                    for (index, part) in parts.iter().enumerate() {
                        let start = push(part, &mut out);
                        writer.frame(start, index + 1 == parts.len(), true, &mut out);
                    }
                    expected.push(Message::binary(parts.concat()));
                }
                Said::Pong(bytes) => {
                    writer.pong(&bytes, &mut out);
                    expected.push(Message::Pong(bytes.into()));
                }
            }
        }
        let sizes = frame_sizes(&out);
        prop_assert!(sizes.iter().all(|size| *size <= WEBSOCKET_FRAME_SIZE_MAX_BYTES));
        prop_assert_eq!(read_all(out), expected);
    }
}

#[test]
fn a_client_of_bytes_gets_bytes() {
    let mut writer = Writer::default();
    let mut out = b"text".to_vec();
    writer.frame(0, true, false, &mut out);
    assert_eq!(read_all(out), [Message::binary(b"text".to_vec())]);
}

#[test]
fn a_message_can_end_with_nothing() {
    let mut writer = Writer::default();
    let mut out = b"part".to_vec();
    writer.frame(0, false, true, &mut out);
    assert!(writer.is_amid_message());
    for is_last in [false, true, true] {
        let start = out.len();
        writer.frame(start, is_last, true, &mut out);
    }
    assert_eq!(frame_sizes(&out), [4, 0]);
    assert_eq!(read_all(out), [Message::binary(b"part".to_vec())]);
}

#[test]
fn after_close_nothing_is_written() {
    let mut writer = Writer::default();
    let mut out = b"last".to_vec();
    writer.frame(0, true, true, &mut out);
    // 61 characters of two bytes fit beside the status.
    writer.close(CloseCode::Size, &"\u{df}".repeat(100), &mut out);
    let len = out.len();
    out.extend_from_slice(b"more");
    writer.frame(len, true, true, &mut out);
    writer.pong(b"", &mut out);
    writer.close(CloseCode::Normal, "", &mut out);
    assert_eq!(out.len(), len);
    assert_eq!(frame_sizes(&out), [4, 2 + 122]);
    let messages = read_all(out);
    let Some(Message::Close(Some(close))) = messages.last() else {
        panic!("{messages:?}");
    };
    assert_eq!(close.code, CloseCode::Size);
    assert_eq!(close.reason.as_str(), "\u{df}".repeat(61));
}
