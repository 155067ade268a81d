//! A small STOMP 1.2 client on a blocking socket: just what tests need, nothing shared with the
//! broker's own engine, so that one mistake cannot hide in both.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The command.
    pub command: String,
    /// Headers in order, unescaped.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Frame {
    /// Makes a frame.
    pub fn new(command: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let headers = headers
            .iter()
            .map(|(k, v)| ((*k).to_string(), (*v).to_string()))
            .collect();
        Self {
            command: command.to_string(),
            headers,
            body: body.to_vec(),
        }
    }

    /// Gives the first header of a name, which is the one that counts.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Appends the frame's bytes; headers are escaped as STOMP 1.2 says, except in CONNECT.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.command.as_bytes());
        out.push(b'\n');
        let plain = matches!(self.command.as_str(), "CONNECT" | "CONNECTED");
        for (key, value) in &self.headers {
            for (text, end) in [(key, b':'), (value, b'\n')] {
                if plain {
                    out.extend_from_slice(text.as_bytes());
                } else {
                    escape(text, out);
                }
                out.push(end);
            }
        }
        if !self.body.is_empty() {
            out.extend_from_slice(format!("content-length:{}\n", self.body.len()).as_bytes());
        }
        out.push(b'\n');
        out.extend_from_slice(&self.body);
        out.extend_from_slice(b"\0\n");
    }
}

/// A connected client.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    taken: usize,
    out: Vec<u8>,
}

impl Client {
    /// Opens a socket and sends nothing: for tests that write bytes of their own.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            taken: 0,
            out: Vec::new(),
        })
    }

    /// Opens a socket, sends CONNECT for version 1.2 without heart-beats and waits for CONNECTED.
    ///
    /// Errors: of the socket; `InvalidData` when the answer is another frame.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut client = Self::open(address)?;
        client.queue(&Frame::new(
            "CONNECT",
            &[("accept-version", "1.2"), ("host", "/")],
            b"",
        ));
        client.flush()?;
        let answer = client.receive(Duration::from_secs(20))?;
        match answer {
            Some(frame) if frame.command == "CONNECTED" => Ok(client),
            other => Err(invalid(format!("instead of CONNECTED: {other:?}"))),
        }
    }

    /// Appends a frame to what the next [`Self::flush`] sends.
    pub fn queue(&mut self, frame: &Frame) {
        frame.encode(&mut self.out);
    }

    /// Sends what is queued. Errors: of the socket.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Sends one frame at once. Errors: of the socket.
    pub fn send(&mut self, command: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        self.queue(&Frame::new(command, headers, body));
        self.flush()
    }

    /// Sends bytes as they are. Errors: of the socket.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Takes the next frame; `None` when none came whole within `timeout`.
    ///
    /// Errors: of the socket; `UnexpectedEof` when the broker closed; `InvalidData` for no STOMP.
    pub fn receive(&mut self, timeout: Duration) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take_received()? {
                return Ok(Some(frame));
            }
            self.stream.set_read_timeout(Some(timeout))?;
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what comes next, at most until `timeout`, and throws it away: for heart-beats.
    ///
    /// Errors: of the socket; `UnexpectedEof` when the broker closed.
    pub fn receive_bytes(&mut self, timeout: Duration) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(timeout))?;
        match self.stream.read(&mut [0; 4096]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(count),
            Err(error) if is_timeout(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Bytes that lie in the socket, up to a few; they stay there. Errors: of the socket.
    pub fn buffered(&self) -> io::Result<usize> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0; 16]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Err(error) if is_timeout(&error) => Ok(0),
            other => other,
        }
    }

    /// Takes a frame that is already here; reads nothing. Errors: `InvalidData` for no STOMP.
    pub fn take_received(&mut self) -> io::Result<Option<Frame>> {
        while self.received.get(self.taken) == Some(&b'\n') {
            self.taken += 1;
        }
        let Some((frame, length)) = parse(&self.received[self.taken..])? else {
            if self.taken > 0 {
                self.received.drain(..self.taken);
                self.taken = 0;
            }
            return Ok(None);
        };
        self.taken += length;
        Ok(Some(frame))
    }
}

/// Parses one frame and says how many bytes it took; `None` when more are needed.
fn parse(bytes: &[u8]) -> io::Result<Option<(Frame, usize)>> {
    let mut frame = Frame::default();
    let mut at = 0;
    let mut lines = 0;
    loop {
        let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = std::str::from_utf8(&bytes[at..at + end]).map_err(|e| invalid(e.to_string()))?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        at += end + 1;
        lines += 1;
        if lines == 1 {
            frame.command = line.to_string();
        } else if line.is_empty() {
            break;
        } else {
            let (key, value) = line
                .split_once(':')
                .ok_or_else(|| invalid(format!("header {line:?}")))?;
            frame.headers.push((unescape(key)?, unescape(value)?));
        }
    }
    let length = match frame.header("content-length") {
        Some(text) => text
            .parse()
            .map_err(|_| invalid(format!("content-length {text:?}")))?,
        None => match bytes[at..].iter().position(|byte| *byte == 0) {
            Some(length) => length,
            None => return Ok(None),
        },
    };
    match bytes.get(at + length) {
        None => Ok(None),
        Some(0) => {
            frame.body = bytes[at..at + length].to_vec();
            Ok(Some((frame, at + length + 1)))
        }
        Some(other) => Err(invalid(format!(
            "byte {other} instead of NUL behind the body"
        ))),
    }
}

fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b':' => out.extend_from_slice(b"\\c"),
            other => out.push(other),
        }
    }
}

fn unescape(text: &str) -> io::Result<String> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        plain.push(match letters.next() {
            Some('\\') => '\\',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('c') => ':',
            other => return Err(invalid(format!("escape {other:?} in {text:?}"))),
        });
    }
    Ok(plain)
}

fn invalid(why: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
