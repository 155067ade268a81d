//! The reader at every cut of its input, and the writer read back.

use super::*;
use proptest::prelude::*;

fn shape(filler: &[u8]) -> SendShape<'_> {
    SendShape {
        destination: "/queue/a",
        is_persistent: true,
        headers: &[],
        filler,
    }
}

proptest! {
    #[test]
    fn a_stamp_reads_back(
        run: u32, producer: u32, sequence in 0_u64..10_000_000_000, due_ns: u64,
        extra in 0_usize..90
    ) {
        let filler = filler(Filler::Random, STAMP_LEN + extra);
        let mut template = SendTemplate::new(shape(&filler), run, producer);
        let mut out = Vec::new();
        template.append(&mut out, sequence, due_ns);
        let head_len = out.windows(2).position(|pair| pair == b"\n\n").expect("head ends") + 2;
        let head = std::str::from_utf8(&out[..head_len]).expect("text");
        let receipt = format!("receipt:{sequence:010}\n\n");
        prop_assert!(head.ends_with(&receipt), "{}", head);
        let body = &out[head_len..out.len() - 1];
        prop_assert_eq!(body.len(), STAMP_LEN + extra);
        prop_assert!(body.iter().all(|byte| *byte >= b' ' && *byte < 127));
        let key = MessageKey { run, producer, sequence };
        prop_assert_eq!(read_stamp(body), Some((key, due_ns)));
        prop_assert_eq!(&body[STAMP_LEN..], &filler[..]);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read_stamp(&bytes);
    }

    #[test]
    fn every_cut_waits_and_the_whole_reads(
        body in prop::collection::vec(any::<u8>(), 0..60), is_crlf: bool, beats in 0_usize..3
    ) {
        let eol = if is_crlf { "\r\n" } else { "\n" };
        let head = format!(
            "{}MESSAGE{eol}subscription:0{eol}ack:7:a{eol}redelivered:true{eol}\
             content-length:{}{eol}{eol}",
            "\n".repeat(beats), body.len()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        bytes.push(0);
        for cut in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..cut]), Ok(None));
        }
        let message = Message { ack: b"7:a", is_redelivered: true, body: &body };
        prop_assert_eq!(read(&bytes), Ok(Some((Frame::Message(message), bytes.len()))));
    }
}

#[test]
fn two_frames_are_read_one_after_the_other() {
    let bytes = b"RECEIPT\nreceipt-id:0000000042\n\n\0\nCONNECTED\nversion:1.2\n\n\0";
    let (frame, used) = read(bytes).expect("sound").expect("whole");
    assert_eq!(frame, Frame::Receipt { id: b"0000000042" });
    let (frame, rest) = read(&bytes[used..]).expect("sound").expect("whole");
    assert_eq!(frame, Frame::Connected { version: b"1.2" });
    assert_eq!(used + rest, bytes.len());
}

#[test]
fn an_error_frame_gives_its_text() {
    let bytes = b"ERROR\nmessage:no such queue\n\nlook\nelsewhere\0";
    let (frame, _) = read(bytes).expect("sound").expect("whole");
    assert_eq!(
        frame,
        Frame::Error {
            text: "no such queue look\\nelsewhere".to_owned()
        }
    );
}

#[test]
fn what_stomp_does_not_allow_is_named() {
    let cases: [(&[u8], &str); 4] = [
        (b"HELLO\n\n\0", "unknown frame HELLO"),
        (b"RECEIPT\nnocolon\n\n\0", "without a colon"),
        (b"MESSAGE\ncontent-length:-3\n\n\0", "content-length -3"),
        (b"MESSAGE\ncontent-length:2\n\nabc\0", "no NUL after 2"),
    ];
    for (bytes, expected) in cases {
        let FrameError(text) = read(bytes).expect_err(expected);
        assert!(text.contains(expected), "{text}");
    }
}
