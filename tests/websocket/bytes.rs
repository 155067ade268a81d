//! What comes in and goes out, however it lies in messages and frames.

use crate::broker::stomp::Client as Plain;
use crate::client::{BINARY, Client, FINAL, PING, PONG, TEXT, stomp};
use crate::{PATIENCE, with_shards};

const QUEUE: &str = "/queue/websocket";
const SUBSCRIBE: [(&str, &str); 2] = [("id", "0"), ("destination", QUEUE)];
const SEND: [(&str, &str); 2] = [("destination", QUEUE), ("persistent", "true")];

/// The whole of it once: any path, subprotocols, versions, both ways between WebSocket and TCP.
#[test]
fn websocket_and_plain_stomp_share_a_port() {
    with_shards("port", |setup| {
        let running = setup.start();
        let address = running.address();
        let offer = "Sec-WebSocket-Protocol: v10.stomp, v11.stomp, v12.stomp\r\n";
        let (mut client, head) = Client::shake(address, "/any/path?x=1", offer);
        assert!(head.contains("sec-websocket-protocol: v12.stomp"), "{head}");
        let headers = [("accept-version", "1.0,1.1,1.2"), ("host", "/")];
        client.send_stomp(TEXT, "CONNECT", &headers, b"");
        let (kind, connected) = client.receive_stomp_as();
        assert_eq!((kind, connected.header("version")), (TEXT, Some("1.2")));
        client.ask(TEXT, "SUBSCRIBE", &SUBSCRIBE, b"");
        let mut plain = Plain::connect(address).unwrap();
        plain.send("SEND", &SEND, b"from TCP").unwrap();
        assert_eq!(client.receive_stomp().body, b"from TCP");
        client.ask(TEXT, "UNSUBSCRIBE", &[("id", "0")], b"");
        client.ask(TEXT, "SEND", &SEND, b"from WebSocket");
        running.kill();
        let running = setup.start();
        let mut plain = Plain::connect(running.address()).unwrap();
        plain.send("SUBSCRIBE", &SUBSCRIBE, b"").unwrap();
        let message = plain.receive(PATIENCE).unwrap().unwrap();
        assert_eq!(message.body, b"from WebSocket");
        assert!(running.stop().success());
    });
}

#[test]
fn a_client_of_text_gets_text_where_it_can() {
    with_shards("kinds", |setup| {
        let running = setup.start();
        let address = running.address();
        let all: Vec<u8> = (0..=255).collect();
        let bodies = [(&b"text \xe2\x98\x83\0 and NUL"[..], TEXT), (&all, BINARY)];
        for speaks in [TEXT, BINARY] {
            let mut client = Client::connect(address, speaks);
            client.ask(speaks, "SUBSCRIBE", &SUBSCRIBE, b"");
            for (body, kind) in bodies {
                // The kind that the session began in counts, whatever a message came in.
                client.send_stomp(BINARY, "SEND", &SEND, body);
                let (came_as, message) = client.receive_stomp_as();
                assert_eq!(message.body, body);
                let expected = if speaks == TEXT { kind } else { BINARY };
                assert_eq!(came_as, expected, "{body:?}");
            }
            client.ask(speaks, "DISCONNECT", &[], b"");
        }
        assert!(running.stop().success());
    });
}

/// Frames of STOMP and of WebSocket have nothing to do with each other.
#[test]
fn stomp_frames_may_lie_anyhow_in_messages() {
    with_shards("cuts", |setup| {
        let running = setup.start();
        let mut client = Client::connect(running.address(), TEXT);
        client.ask(TEXT, "SUBSCRIBE", &SUBSCRIBE, b"");
        let body = "gr\u{fc}\u{df}e \u{2603} ".repeat(10);
        let frame = stomp("SEND", &SEND, body.as_bytes());
        // Several in one message, in fragments cut within characters and with pings between them,
        // each byte a frame, and a frame over messages of both kinds.
        client.send_frame(FINAL | TEXT, &frame.repeat(3));
        let mut opcode = TEXT;
        for part in frame.chunks(7) {
            client.send_frame(opcode, part);
            client.send_frame(FINAL | PING, part);
            opcode = 0;
        }
        client.send_frame(FINAL, b"");
        let mut opcode = TEXT;
        for byte in &frame {
            client.send_frame(opcode, &[*byte]);
            opcode = 0;
        }
        client.send_frame(FINAL, b"\n\n");
        let (start, rest) = frame.split_at(frame.len() - 3);
        client.send_frame(FINAL | TEXT, &start[..20]);
        client.send_frame(FINAL | BINARY, &start[20..]);
        client.send_frame(FINAL | TEXT, rest);
        // And each byte of frames a segment of its own.
        for byte in client.encode(FINAL | TEXT, &frame) {
            client.send_bytes(&[byte]);
        }
        let (mut messages, mut pongs) = (0, Vec::new());
        while messages < 7 {
            let message = client.receive();
            if message.opcode == PONG {
                pongs.push(message.payload);
                continue;
            }
            assert!(message.text().ends_with(&format!("\n\n{body}\0")));
            messages += 1;
        }
        let pings: Vec<_> = frame.chunks(7).map(<[u8]>::to_vec).collect();
        assert_eq!(pongs, pings);
        assert!(running.stop().success());
    });
}

/// One frame in, many frames out, one message each: and no more memory than for a small one.
#[test]
fn a_large_message_streams() {
    with_shards("large", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut client = Client::connect(address, TEXT);
        let body: Vec<u8> = (0..48 << 20).map(|at: u32| (at % 253) as u8).collect();
        // What the broker takes for itself it has now.
        let small = &body[..1 << 20];
        client.ask(BINARY, "SUBSCRIBE", &SUBSCRIBE, b"");
        client.send_stomp(BINARY, "SEND", &SEND, small);
        assert!(client.receive_stomp().body == small);
        client.ask(TEXT, "UNSUBSCRIBE", &[("id", "0")], b"");
        client.ask(BINARY, "SEND", &SEND, &body[..20 << 20]);
        let before = running.resident_max_bytes();
        client.ask(BINARY, "SEND", &SEND, &body);
        client.send_stomp(TEXT, "SUBSCRIBE", &SUBSCRIBE, b"");
        // Control frames may come between the parts of a body.
        client.send_frame(FINAL | PING, b"amid");
        let mut pongs = 0;
        for len in [20 << 20, body.len()] {
            let mut message = client.receive();
            while message.opcode == PONG {
                pongs += 1;
                message = client.receive();
            }
            let (payload, expected) = (&message.payload, &body[..len]);
            assert_eq!(message.opcode, BINARY);
            assert!(payload[payload.len() - 1 - len..].starts_with(expected));
        }
        client.ask(TEXT, "UNSUBSCRIBE", &[("id", "0")], b"");
        assert_eq!(pongs, 1);
        let grown = running.resident_max_bytes() - before;
        println!("grown by {} KiB", grown / 1024);
        assert!(grown < 16 << 20, "grown by {grown} bytes");
        assert!(running.stop().success());
    });
}

/// The broker stops to read behind a command that takes its time; what was taken out of frames
/// already must go on though nothing more comes.
#[test]
fn what_was_taken_out_of_frames_goes_on_after_a_pause() {
    with_shards("pause", |setup| {
        let running = setup.start();
        let address = running.address();
        for is_ended in [false, true] {
            let (mut client, _) = Client::shake(address, "/", "");
            let topic = ("destination", "/topic/websocket");
            let durable = ("activemq.subscriptionName", "name");
            let connect = [
                ("accept-version", "1.2"),
                ("host", "/"),
                ("client-id", "me"),
            ];
            let frames = [
                stomp("CONNECT", &connect, b""),
                stomp(
                    "SUBSCRIBE",
                    &[("id", "1"), topic, durable, ("receipt", "a")],
                    b"",
                ),
                stomp("UNSUBSCRIBE", &[("id", "1"), ("receipt", "b")], b""),
                stomp(
                    "SUBSCRIBE",
                    &[("id", "2"), topic, durable, ("receipt", "c")],
                    b"",
                ),
                stomp(
                    "SEND",
                    &[&SEND[..], &[("receipt", "d")]].concat(),
                    b"behind",
                ),
            ];
            client.send_frame(FINAL | TEXT, &frames.concat());
            if is_ended {
                client.end_output();
            }
            assert_eq!(client.receive_stomp().command, "CONNECTED");
            for receipt in ["a", "b", "c", "d"] {
                let answer = client.receive_stomp();
                assert_eq!(answer.header("receipt-id"), Some(receipt), "{answer:?}");
            }
            if is_ended {
                assert_eq!(client.receive().close_code(), 1000);
                client.expect_end();
            }
        }
        let mut plain = Plain::connect(address).unwrap();
        plain.send("SUBSCRIBE", &SUBSCRIBE, b"").unwrap();
        for _ in 0..2 {
            assert_eq!(plain.receive(PATIENCE).unwrap().unwrap().body, b"behind");
        }
        assert!(running.stop().success());
    });
}

#[test]
fn heart_beats_are_messages() {
    with_shards("beats", |setup| {
        setup
            .config
            .push_str("[stomp]\nheart_beat_ms = [100, 100]\n");
        let running = setup.start();
        let (mut client, _) = Client::shake(running.address(), "/", "");
        let connect = [
            ("accept-version", "1.2"),
            ("heart-beat", "0,100"),
            ("host", "/"),
        ];
        client.send_stomp(TEXT, "CONNECT", &connect, b"");
        assert_eq!(client.receive_stomp().command, "CONNECTED");
        for _ in 0..3 {
            let beat = client.receive();
            assert_eq!((beat.opcode, &beat.payload[..]), (TEXT, &b"\n"[..]));
        }
        client.send_frame(FINAL | TEXT, b"\n");
        client.ask(TEXT, "SEND", &SEND, b"x");
        // A client that is silent though it promised not to be is told why.
        let (mut client, _) = Client::shake(running.address(), "/", "");
        let connect = [
            ("accept-version", "1.2"),
            ("heart-beat", "100,0"),
            ("host", "/"),
        ];
        client.send_stomp(TEXT, "CONNECT", &connect, b"");
        assert_eq!(client.receive_stomp().command, "CONNECTED");
        assert_eq!(client.receive_stomp().command, "ERROR");
        assert_eq!(client.receive().close_code(), 1008);
        client.expect_end();
        assert!(running.stop().success());
    });
}
