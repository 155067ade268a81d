//! A WebSocket client on a blocking socket, by hand (RFC 6455): it says what stock clients cannot,
//! and shares nothing with the broker's own side.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::PATIENCE;
use crate::broker::stomp::Frame as Stomp;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// First bit of a frame that ends its message.
pub(crate) const FINAL: u8 = 0x80;

/// The largest payload that the broker puts into a frame.
const FRAME_SIZE_MAX: usize = 65_535;

/// A whole message or control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// The status of a Close frame.
    pub(crate) fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
    /// The message whose last frame did not come yet.
    begun: Option<Message>,
    frames_sent: u32,
}

impl Client {
    /// Opens a socket and sends nothing.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            received: Vec::new(),
            begun: None,
            frames_sent: 0,
        }
    }

    /// Opens a socket and shakes hands for this path; these lines are added to the request.
    pub(crate) fn shake(address: SocketAddr, path: &str, lines: &str) -> (Self, String) {
        let mut client = Self::open(address);
        let request = Self::request(address, path, lines);
        client.stream.write_all(request.as_bytes()).unwrap();
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        (client, head)
    }

    /// The request for a WebSocket.
    pub(crate) fn request(address: SocketAddr, path: &str, lines: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
        )
    }

    /// A client that speaks text or bytes, connected with version 1.2 of STOMP.
    pub(crate) fn connect(address: SocketAddr, opcode: u8) -> Self {
        let (mut client, _) = Self::shake(address, "/", "");
        let headers = [("accept-version", "1.2"), ("host", "/")];
        client.send_stomp(opcode, "CONNECT", &headers, b"");
        let answer = client.receive_stomp();
        assert_eq!(answer.command, "CONNECTED", "{answer:?}");
        client
    }

    /// The head of an HTTP answer.
    fn read_head(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            if let Some((head, _)) = text.split_once("\r\n\r\n") {
                self.received.drain(..head.len() + 4);
                return head.to_owned();
            }
            self.read().unwrap();
        }
    }

    fn read(&mut self) -> Result<(), ErrorKind> {
        let mut chunk = vec![0; 1 << 16];
        let count = self.stream.read(&mut chunk).map_err(|error| error.kind())?;
        self.received.extend_from_slice(&chunk[..count]);
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof);
        }
        Ok(())
    }

    /// All that comes until the broker closes.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.read().is_ok() {}
        std::mem::take(&mut self.received)
    }

    /// The broker closes, and says nothing more.
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.read(), Err(ErrorKind::UnexpectedEof));
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Says that nothing more comes, without a Close frame.
    pub(crate) fn end_output(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// A frame's bytes, masked, each with another mask; `first` is its first byte.
    pub(crate) fn encode(&mut self, first: u8, payload: &[u8]) -> Vec<u8> {
        self.frames_sent += 1;
        let mask = self.frames_sent.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        let masked = payload.iter().zip(mask.iter().cycle());
        bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        bytes
    }

    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let bytes = self.encode(first, payload);
        self.send_bytes(&bytes);
    }

    /// Sends a STOMP frame as one message.
    pub(crate) fn send_stomp(
        &mut self,
        opcode: u8,
        command: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        self.send_frame(FINAL | opcode, &stomp(command, headers, body));
    }

    /// The next message, put together, or control frame.
    pub(crate) fn receive(&mut self) -> Message {
        loop {
            if let Some((first, payload)) = self.take_frame() {
                let opcode = first & 0x0f;
                if opcode >= CLOSE {
                    assert_eq!(first & 0xf0, FINAL, "a control frame in fragments");
                    return Message { opcode, payload };
                }
                assert!(payload.len() <= FRAME_SIZE_MAX, "a frame that large");
                let mut message = match (opcode, self.begun.take()) {
                    (0, Some(begun)) => begun,
                    (TEXT | BINARY, None) => Message {
                        opcode,
                        payload: Vec::new(),
                    },
                    other => panic!("out of order: {other:?}"),
                };
                message.payload.extend(payload);
                if first & FINAL != 0 {
                    return message;
                }
                self.begun = Some(message);
                continue;
            }
            self.read().unwrap();
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, length, rest @ ..] = self.received.as_slice() else {
            return None;
        };
        let (len, header) = match (length, rest) {
            (0..=125, _) => (usize::from(*length), 2),
            (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
            (126, _) => return None,
            _ => panic!("length {length}: masked, or larger than it may be"),
        };
        let payload = self.received.get(header..header + len)?.to_vec();
        let first = *first;
        self.received.drain(..header + len);
        Some((first, payload))
    }

    /// The next message, which has to be exactly one STOMP frame; heart-beats are passed over.
    pub(crate) fn receive_stomp(&mut self) -> Stomp {
        self.receive_stomp_as().1
    }

    /// The same with the kind of message that it came in.
    pub(crate) fn receive_stomp_as(&mut self) -> (u8, Stomp) {
        loop {
            let message = self.receive();
            assert!(message.opcode < CLOSE, "{message:?}");
            if message.payload != b"\n" {
                return (message.opcode, parse(&message.payload));
            }
        }
    }

    /// Asks for a receipt, which has to be the next thing that comes.
    pub(crate) fn ask(&mut self, opcode: u8, command: &str, headers: &[(&str, &str)], body: &[u8]) {
        let headers = [headers, &[("receipt", command)]].concat();
        self.send_stomp(opcode, command, &headers, body);
        let answer = self.receive_stomp();
        assert_eq!(answer.header("receipt-id"), Some(command), "{answer:?}");
    }
}

/// The bytes of a STOMP frame.
pub(crate) fn stomp(command: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Stomp::new(command, headers, body).encode(&mut bytes);
    bytes
}

/// Takes a message apart that has to be one STOMP frame, no more and no less. Headers as they are.
fn parse(bytes: &[u8]) -> Stomp {
    let at = bytes.windows(2).position(|pair| pair == b"\n\n");
    let at = at.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
    let head = std::str::from_utf8(&bytes[..at]).unwrap();
    let mut lines = head.split('\n');
    let command = lines.next().unwrap();
    let headers: Vec<_> = lines.map(|line| line.split_once(':').unwrap()).collect();
    let body = &bytes[at + 2..];
    let frame = Stomp::new(command, &headers, &body[..body.len() - 1]);
    assert_eq!(body.last(), Some(&0), "a message is one frame: {frame:?}");
    if let Some(length) = frame.header("content-length") {
        assert_eq!(
            length,
            frame.body.len().to_string(),
            "a message is one frame"
        );
    } else {
        assert!(
            !frame.body.contains(&0),
            "a message is one frame: {frame:?}"
        );
    }
    frame
}
