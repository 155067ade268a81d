//! One client connection: socket, buffers and the STOMP handshake.
//!
//! Reads until the socket is dry (edge-triggered readiness: a short read says dry), writes what the
//! owner appended to `out`, and remembers whether the socket took it all. Knows frames, but not
//! what producers and consumers make of them.

use crate::frame::{self, Frame};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes that may wait in `out` before a producer stops building more.
pub(crate) const OUT_SIZE: usize = 256 * 1024;

const IN_SIZE_FIRST: usize = 16 * 1024;
const IN_SIZE_READ_MAX: usize = 512 * 1024;

/// Why a run ended without figures, or with wrong ones.
#[derive(Debug)]
pub(crate) enum BenchError {
    /// The broker broke the protocol, refused, or closed: exit status 1.
    Broken(String),
    /// Nobody to talk to, or the machine refuses what was asked: exit status 2.
    Unable(String),
}

/// What the CONNECT frame says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// Header `host`.
    pub(crate) vhost: String,
    /// Header `login`.
    pub(crate) login: Option<String>,
    /// Header `passcode`.
    pub(crate) passcode: Option<String>,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The broker closed.
    Closed,
    /// Nothing more for now.
    Dry,
    /// There may be more.
    More,
}

/// A connection after CONNECTED, non-blocking.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    out: Vec<u8>,
    out_at: usize,
    is_blocked: bool,
}

impl Connection {
    /// Connects, speaks STOMP 1.2 and turns the socket non-blocking.
    ///
    /// Errors: `Unable` if nobody listens, the broker does not answer within `timeout`, or does not
    /// speak 1.2; `Broken` if it answers CONNECT with ERROR or with nonsense.
    pub(crate) fn open(
        address: SocketAddr,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<Self, BenchError> {
        let unable = |error: io::Error| BenchError::Unable(format!("connect {address}: {error}"));
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(unable)?;
        stream.set_nodelay(true).map_err(unable)?;
        stream.set_read_timeout(Some(timeout)).map_err(unable)?;
        let mut connection = Self {
            stream,
            bytes: vec![0; IN_SIZE_FIRST],
            start: 0,
            end: 0,
            out: Vec::new(),
            out_at: 0,
            is_blocked: false,
        };
        connection
            .stream
            .write_all(&connect_frame(credentials))
            .map_err(unable)?;
        connection.await_connected(address)?;
        connection.stream.set_nonblocking(true).map_err(unable)?;
        Ok(connection)
    }

    fn await_connected(&mut self, address: SocketAddr) -> Result<(), BenchError> {
        loop {
            let found = frame::read(&self.bytes[self.start..self.end]).map_err(broken_frame)?;
            match found {
                Some((Frame::Connected { version: b"1.2" }, used)) => {
                    self.start += used;
                    return Ok(());
                }
                Some((Frame::Connected { version }, _)) => {
                    return Err(BenchError::Unable(format!(
                        "{address} speaks STOMP {:?}, not 1.2",
                        frame::printable(version)
                    )));
                }
                Some((Frame::Error { text }, _)) => {
                    return Err(BenchError::Broken(format!(
                        "CONNECT answered by ERROR: {text}"
                    )));
                }
                Some((other, _)) => {
                    return Err(BenchError::Broken(format!("CONNECT answered by {other:?}")));
                }
                None => {}
            }
            let unread_len = self.unread().len();
            match self.fill() {
                Ok(Filled::Closed) => {
                    return Err(BenchError::Unable(format!(
                        "{address} closed instead of CONNECTED"
                    )));
                }
                Ok(_) if self.unread().len() == unread_len => {
                    return Err(BenchError::Unable(format!(
                        "{address} does not answer CONNECT"
                    )));
                }
                Ok(_) => {}
                Err(error) => return Err(BenchError::Unable(format!("{address}: {error}"))),
            }
        }
    }

    /// Reads once, as much as is there.
    pub(crate) fn fill(&mut self) -> io::Result<Filled> {
        self.make_room();
        let room = self.bytes.len() - self.end;
        match self.stream.read(&mut self.bytes[self.end..]) {
            Ok(0) => Ok(Filled::Closed),
            Ok(len) => {
                self.end += len;
                Ok(if len < room {
                    Filled::Dry
                } else {
                    Filled::More
                })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Dry),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Filled::More),
            Err(error) => Err(error),
        }
    }

    /// Moves what is unread to the front, and doubles a buffer that proved too small.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let is_full = self.end == self.bytes.len();
        if self.start > 0 && (is_full || self.start > self.bytes.len() / 2) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if is_full {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }

    /// Lets later reads take more at once; called when a read filled the buffer.
    pub(crate) fn widen(&mut self) {
        if self.bytes.len() < IN_SIZE_READ_MAX {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }

    /// Unread bytes; the reader tells by `consume` how far it got.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Drops `len` bytes from the front of what is unread.
    pub(crate) fn consume(&mut self, len: usize) {
        assert!(
            len <= self.end - self.start,
            "consumed {len} of {}",
            self.end - self.start
        );
        self.start += len;
    }

    /// The bytes to send; append only.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// What is unread and what is to be sent, side by side.
    pub(crate) fn split(&mut self) -> (&[u8], &mut Vec<u8>) {
        (&self.bytes[self.start..self.end], &mut self.out)
    }

    /// Says whether another frame may be appended to `out`.
    pub(crate) fn has_room(&self) -> bool {
        self.out.len() - self.out_at < OUT_SIZE
    }

    /// Says whether the socket refused bytes since the last `unblock`.
    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// The socket is writable again.
    pub(crate) fn unblock(&mut self) {
        self.is_blocked = false;
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.is_blocked && self.out_at < self.out.len() {
            match self.stream.write(&self.out[self.out_at..]) {
                Ok(len) => self.out_at += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        } else if self.out_at > OUT_SIZE {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
        Ok(())
    }

    /// The socket, to register it for readiness.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

fn connect_frame(credentials: &Credentials) -> Vec<u8> {
    let mut frame = format!(
        "CONNECT\naccept-version:1.2\nhost:{}\nheart-beat:0,0\n",
        credentials.vhost
    );
    for (name, value) in [
        ("login", &credentials.login),
        ("passcode", &credentials.passcode),
    ] {
        if let Some(value) = value {
            frame.push_str(&format!("{name}:{value}\n"));
        }
    }
    frame.push_str("\n\0");
    frame.into_bytes()
}

/// Names a frame that STOMP 1.2 does not allow.
#[cold]
pub(crate) fn broken_frame(error: frame::FrameError) -> BenchError {
    BenchError::Broken(format!("the broker broke STOMP 1.2: {}", error.0))
}

/// Names a connection that failed under way.
#[cold]
pub(crate) fn broken_socket(who: &str, error: &io::Error) -> BenchError {
    BenchError::Broken(format!("{who}: {error}"))
}
