//! How connections end: in order, by a mistake of the client, by the broker's stop.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use crate::broker::stomp::Client as Plain;
use crate::client::{BINARY, CLOSE, Client, FINAL, PING, PONG, TEXT};
use crate::with_shards;

/// A write that takes that long is not read by anybody.
const HELD_UP: Duration = Duration::from_secs(1);

const QUEUE: [(&str, &str); 1] = [("destination", "/queue/ends")];

#[test]
fn either_side_may_close() {
    with_shards("close", |setup| {
        let running = setup.start();
        let address = running.address();
        // STOMP's own goodbye: its receipt, then Close.
        let mut client = Client::connect(address, TEXT);
        client.ask(TEXT, "DISCONNECT", &[], b"");
        assert_eq!(client.receive().close_code(), 1000);
        client.send_frame(FINAL | CLOSE, &1000_u16.to_be_bytes());
        client.expect_end();
        // A Close is answered in kind, behind what was asked for before it.
        for (payload, code) in [
            (&b""[..], 1000),
            (&b"\x03\xe9"[..], 1001),
            (&b"\x0f\xa0bye"[..], 4000),
        ] {
            let mut client = Client::connect(address, TEXT);
            let headers = [QUEUE[0], ("persistent", "true"), ("receipt", "last")];
            client.send_stomp(TEXT, "SEND", &headers, b"x");
            client.send_frame(FINAL | CLOSE, payload);
            let answer = client.receive_stomp();
            assert_eq!(answer.header("receipt-id"), Some("last"));
            assert_eq!(client.receive().close_code(), code);
            client.expect_end();
        }
        // Before CONNECT, too.
        let (mut client, _) = Client::shake(address, "/", "");
        client.send_frame(FINAL | CLOSE, b"");
        assert_eq!(client.receive().close_code(), 1000);
        client.expect_end();
        // The broker's stop.
        let mut client = Client::connect(address, TEXT);
        let (mut silent, _) = Client::shake(address, "/", "");
        // Its answer shows that it was read.
        silent.send_frame(FINAL | PING, b"");
        assert_eq!(silent.receive().opcode, PONG);
        assert!(running.stop().success());
        for client in [&mut client, &mut silent] {
            assert_eq!(client.receive_stomp().command, "ERROR");
            assert_eq!(client.receive().close_code(), 1001);
            client.expect_end();
        }
    });
}

#[test]
fn a_mistake_ends_its_own_connection_with_its_code() {
    with_shards("mistakes", |setup| {
        let running = setup.start();
        let address = running.address();
        let mut neighbour = Client::connect(address, TEXT);
        let unmasked = b"\x81\x01x".to_vec();
        let mut oversize = vec![0x82, 0xff];
        oversize.extend((1_u64 << 40).to_be_bytes());
        oversize.extend([0; 4]);
        for (bytes, code, words) in [
            (unmasked, 1002, "masked"),
            (oversize, 1009, "at most"),
            (b"\x91\x80\0\0\0\0".to_vec(), 1002, "extension"),
            (b"\x83\x80\0\0\0\0".to_vec(), 1002, "opcode"),
            (b"\x80\x80\0\0\0\0".to_vec(), 1002, "continuation"),
            (b"\x09\x80\0\0\0\0".to_vec(), 1002, "whole"),
            (b"\x89\xfe\0\x7e\0\0\0\0".to_vec(), 1002, "125"),
            (b"\x81\x81\0\0\0\0\xff".to_vec(), 1007, "UTF-8"),
            (b"\x88\x81\0\0\0\0\x03".to_vec(), 1002, "Close"),
        ] {
            let mut client = Client::connect(address, TEXT);
            client.send_bytes(&bytes);
            client.send_bytes(b"and more");
            let close = client.receive();
            assert_eq!(close.close_code(), code, "{bytes:?}");
            assert!(close.text().contains(words), "{}", close.text());
            client.expect_end();
        }
        // A mistake in STOMP is said in STOMP first.
        let mut client = Client::connect(address, TEXT);
        client.send_frame(FINAL | TEXT, b"NONSENSE\n\n\0");
        assert_eq!(client.receive_stomp().command, "ERROR");
        assert_eq!(client.receive().close_code(), 1002);
        client.expect_end();
        let mut client = Client::connect(address, BINARY);
        client.send_stomp(BINARY, "UNSUBSCRIBE", &[("id", "9")], b"");
        assert_eq!(client.receive_stomp_as().0, BINARY);
        assert!(matches!(client.receive().close_code(), 1002 | 1008));
        client.expect_end();
        neighbour.ask(TEXT, "SEND", &QUEUE, b"still here");
        assert!(running.stop().success());
    });
}

#[test]
fn requests_for_something_else_get_an_http_answer() {
    with_shards("http", |setup| {
        let running = setup.start();
        let address = running.address();
        let long = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(20_000));
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "426"),
            ("GET / nonsense\r\n\r\n", "400"),
            (long.as_str(), "431"),
        ] {
            let mut client = Client::open(address);
            // In two pieces, cut where nothing tells HTTP from STOMP.
            client.send_bytes(&request.as_bytes()[..2]);
            client.send_bytes(&request.as_bytes()[2..]);
            let answer = String::from_utf8(client.read_to_end()).unwrap();
            let begins = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&begins), "{answer}");
            assert!(answer.contains("STOMP"), "{answer}");
        }
        // Another method is another protocol to STOMP.
        let mut client = Client::open(address);
        client.send_bytes(b"POST / HTTP/1.1\r\n\r\n");
        assert!(client.read_to_end().starts_with(b"ERROR\n"));
        Plain::connect(address).unwrap();
        assert!(running.stop().success());
    });
}

/// Without users it is the loopback address that guards a broker, and browsers are behind it.
#[test]
fn pages_of_other_sites_need_users() {
    with_shards("pages", |setup| {
        let user = "[[user]]\nname = \"u\"\npassword = \"p\"\n";
        for (config, is_open) in [("", false), (user, true)] {
            setup.config.push_str(config);
            let running = setup.start();
            let address = running.address();
            Client::shake(address, "/", "Origin: http://localhost:3000\r\n");
            let foreign = "Origin: http://example.com\r\n";
            if is_open {
                Client::shake(address, "/", foreign);
            } else {
                let mut client = Client::open(address);
                client.send_bytes(Client::request(address, "/", foreign).as_bytes());
                assert!(client.read_to_end().starts_with(b"HTTP/1.1 403 "));
            }
            assert!(running.stop().success());
        }
    });
}

/// Who does not read the answers to its pings is not read any more: they need no memory.
#[test]
fn pings_without_end_hold_up_their_own_client() {
    with_shards("pings", |setup| {
        let running = setup.start();
        let mut client = Client::connect(running.address(), TEXT);
        let ping = client.encode(FINAL | PING, &[7; 125]);
        let pings = ping.repeat(1000);
        let mut sent = 0;
        // The kernel's own buffers take some megabytes before it blocks.
        client.stream.set_write_timeout(Some(HELD_UP)).unwrap();
        loop {
            assert!(sent < 256 << 20, "the broker reads on");
            match client.stream.write(&pings[sent % ping.len()..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        // What was sent whole is answered in the end, in order.
        for _ in 0..sent / ping.len() {
            let pong = client.receive();
            assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &[7; 125][..]));
        }
        assert!(running.stop().success());
    });
}
