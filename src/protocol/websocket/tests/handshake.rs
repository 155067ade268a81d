//! Requests and their answers.

use crate::protocol::websocket::{Handshake, Pages, Shaken};

/// The request of RFC 6455 1.3, with these lines in place of its subprotocols.
fn request(lines: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Origin: http://example.com\r\n{lines}Sec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn answer_to(input: &[u8], pages: Pages) -> (Shaken, String) {
    let mut out = Vec::new();
    let shaken = Handshake::new(pages).advance(input, &mut out);
    (shaken, String::from_utf8(out).expect("answers are text"))
}

fn answer(input: &[u8]) -> (Shaken, String) {
    answer_to(input, Pages::All)
}

#[test]
fn the_example_of_the_specification_is_agreed_on() {
    let request = request("");
    let (shaken, text) = answer(request.as_bytes());
    assert_eq!(shaken, Shaken::Agreed(request.len()));
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, "");
    let mut lines: Vec<_> = head.split("\r\n").map(str::to_ascii_lowercase).collect();
    assert_eq!(lines.remove(0), "http/1.1 101 switching protocols");
    lines.sort();
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_ascii_lowercase();
    let expected = [
        "connection: upgrade".to_owned(),
        format!("sec-websocket-accept: {accept}"),
        "upgrade: websocket".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_newest_subprotocol_offered_is_taken() {
    for (offered, taken) in [
        ("v10.stomp, v11.stomp, v12.stomp", Some("v12.stomp")),
        ("v11.stomp,v10.stomp", Some("v11.stomp")),
        ("v10.stomp", Some("v10.stomp")),
        ("mqtt, v10.stomp", Some("v10.stomp")),
        ("mqtt", None),
        ("v12.stompx", None),
    ] {
        for lines in [
            format!("Sec-WebSocket-Protocol: {offered}\r\n"),
            format!("sec-websocket-protocol: x\r\nSEC-WEBSOCKET-PROTOCOL: {offered}\r\n"),
        ] {
            let (shaken, text) = answer(request(&lines).as_bytes());
            assert!(matches!(shaken, Shaken::Agreed(_)), "{text}");
            let line = taken.map(|name| format!("sec-websocket-protocol: {name}\r\n"));
            match line {
                Some(line) => assert!(text.contains(&line), "{offered}: {text}"),
                None => assert!(!text.contains("protocol:"), "{offered}: {text}"),
            }
        }
    }
}

#[test]
fn what_is_no_request_for_a_websocket_hears_why() {
    let sound = request("");
    let without = |line: &str| sound.replace(line, "");
    let cases = [
        (
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            426,
            "upgrade",
        ),
        (without("Upgrade: websocket\r\n"), 426, "Upgrade: websocket"),
        (sound.replace("n: 13", "n: 8"), 426, "Version: 13"),
        (sound.replace("HTTP/1.1", "HTTP/1.0"), 400, "1.1 or higher"),
        (sound.replace("dGhl", "dGh"), 400, "Sec-WebSocket-Key"),
        (
            without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            400,
            "Sec-WebSocket-Key",
        ),
        (sound.replace("Host:", "Ho st:"), 400, "header name"),
        ("GET /\0 HTTP/1.1\r\n\r\n".to_owned(), 400, "httparse"),
        (request(&"a: b\r\n".repeat(200)), 431, "Too many headers"),
        (
            request(&format!("a: {}\r\n", "b".repeat(20_000))),
            431,
            "long",
        ),
        (format!("GET /{}", "a".repeat(20_000)), 431, "long"),
    ];
    for (request, status, words) in cases {
        let (shaken, text) = answer(request.as_bytes());
        assert_eq!(shaken, Shaken::Refused, "{request}");
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.contains(words), "{words}: {text}");
        assert!(text.contains("close\r\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{text}"
        );
        let says_upgrade = head.contains("Upgrade: websocket\r\nSec-WebSocket-Version: 13");
        assert_eq!(says_upgrade, status == 426, "{text}");
    }
}

#[test]
fn a_request_may_come_in_pieces_and_is_searched_once() {
    let request = request("Sec-WebSocket-Protocol: v12.stomp\r\n");
    let mut handshake = Handshake::new(Pages::All);
    let mut out = Vec::new();
    for len in 1..request.len() {
        let shaken = handshake.advance(&request.as_bytes()[..len], &mut out);
        assert_eq!(shaken, Shaken::Waiting);
        assert_eq!((handshake.scanned(), out.len()), (len, 0));
    }
    let with_frame = format!("{request}behind it");
    let shaken = handshake.advance(with_frame.as_bytes(), &mut out);
    assert_eq!(shaken, Shaken::Agreed(request.len()));
}

#[test]
fn the_first_bytes_tell() {
    for (input, is_web) in [
        ("", None),
        ("G", None),
        ("GET", None),
        ("GET ", Some(true)),
        ("GET /x", Some(true)),
        ("C", Some(false)),
        ("\n", Some(false)),
        ("GETX", Some(false)),
        ("POST / HTTP/1.1", Some(false)),
    ] {
        assert_eq!(
            Handshake::is_begun_by(input.as_bytes()),
            is_web,
            "{input:?}"
        );
    }
}

#[test]
fn pages_of_other_sites_can_be_kept_out() {
    let request = |line: &str| request("").replace("Origin: http://example.com\r\n", line);
    for (origin, is_ours) in [
        ("http://localhost", true),
        ("http://localhost:3000", true),
        ("https://app.localhost", true),
        ("http://127.0.0.1:8080", true),
        ("http://[::1]:8080", true),
        ("http://example.com", false),
        ("http://localhost.example.com", false),
        ("http://127.0.0.1.example.com:61613", false),
        ("http://localhost@example.com", false),
        ("http://notlocalhost", false),
        ("null", false),
        ("file://", false),
        ("", false),
        ("\u{e9}", false),
    ] {
        let request = request(&format!("Origin: {origin}\r\n"));
        let (shaken, text) = answer_to(request.as_bytes(), Pages::OfThisMachine);
        assert_eq!(
            matches!(shaken, Shaken::Agreed(_)),
            is_ours,
            "{origin}: {text}"
        );
        assert_eq!(
            text.starts_with("HTTP/1.1 403 "),
            !is_ours,
            "{origin}: {text}"
        );
        let (shaken, _) = answer_to(request.as_bytes(), Pages::All);
        assert!(matches!(shaken, Shaken::Agreed(_)), "{origin}");
    }
    let two = request("Origin: http://localhost\r\nOrigin: http://example.com\r\n");
    let (shaken, _) = answer_to(two.as_bytes(), Pages::OfThisMachine);
    assert_eq!(shaken, Shaken::Refused);
    let (shaken, _) = answer_to(request("").as_bytes(), Pages::OfThisMachine);
    assert!(matches!(shaken, Shaken::Agreed(_)), "not a page");
}
