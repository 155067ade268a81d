//! STOMP 1.2 frames as this client needs them: templates that are patched, and a borrowing reader.
//!
//! Owns the bytes of SEND and ACK and the stamp inside each body; no socket, no clock.
//! A SEND is built once per producer; per message only the receipt number, the sequence and the
//! due time are overwritten, so a message costs little more than the copy of its body.
//! The reader accepts any header order and CRLF, and wants nothing escaped that it reads.

use crate::ledger::MessageKey;

/// Bytes of the stamp at the head of each body; no smaller body can be sent.
pub(crate) const STAMP_LEN: usize = MAGIC.len() + 8 + 8 + 16 + 16;

const MAGIC: &[u8; 4] = b"FBB1";
const RECEIPT_DIGITS: usize = 10;

/// What the body is filled with behind the stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Filler {
    /// One repeated letter.
    Compressible,
    /// Printable characters without a pattern (the same in every run).
    Random,
}

/// Makes the bytes behind the stamp of a body of `size` bytes, stamp included.
pub(crate) fn filler(kind: Filler, size: usize) -> Vec<u8> {
    let len = size.saturating_sub(STAMP_LEN);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| match kind {
        Filler::Compressible => b'x',
        Filler::Random => {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'0' + (state >> 33) as u8 % 64
        }
    };
    (0..len).map(next).collect()
}

/// One producer's SEND frame, ready but for three numbers.
#[derive(Debug)]
pub(crate) struct SendTemplate {
    bytes: Vec<u8>,
    receipt_at: usize,
    sequence_at: usize,
}

/// What is the same in all SENDs of a producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendShape<'a> {
    /// Queue or topic, as the broker names it.
    pub(crate) destination: &'a str,
    /// Value of the `persistent` header.
    pub(crate) is_persistent: bool,
    /// Further headers, `name:value`.
    pub(crate) headers: &'a [String],
    /// Bytes behind the stamp.
    pub(crate) filler: &'a [u8],
}

impl SendTemplate {
    /// Builds the frame of one producer.
    ///
    /// Source: STOMP 1.2 "SEND", "Header receipt", "Header content-length".
    pub(crate) fn new(shape: SendShape<'_>, run: u32, producer: u32) -> Self {
        let body_len = STAMP_LEN + shape.filler.len();
        let mut head = format!(
            "SEND\ndestination:{}\npersistent:{}\ncontent-length:{body_len}\n",
            shape.destination, shape.is_persistent
        );
        for header in shape.headers {
            head.push_str(header);
            head.push('\n');
        }
        head.push_str("receipt:");
        let mut bytes = head.into_bytes();
        let receipt_at = bytes.len();
        bytes.extend_from_slice(&[b'0'; RECEIPT_DIGITS]);
        bytes.extend_from_slice(b"\n\n");
        bytes.extend_from_slice(MAGIC);
        let mut number = [0; 8];
        write_hex(&mut number, u64::from(run));
        bytes.extend_from_slice(&number);
        write_hex(&mut number, u64::from(producer));
        bytes.extend_from_slice(&number);
        let sequence_at = bytes.len();
        bytes.extend_from_slice(&[b'@'; 32]);
        bytes.extend_from_slice(shape.filler);
        bytes.push(0);
        Self {
            bytes,
            receipt_at,
            sequence_at,
        }
    }

    /// Appends one message to `out`. The receipt id is the sequence in decimal.
    pub(crate) fn append(&mut self, out: &mut Vec<u8>, sequence: u64, due_ns: u64) {
        let mut rest = sequence;
        for digit in self.bytes[self.receipt_at..][..RECEIPT_DIGITS]
            .iter_mut()
            .rev()
        {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        write_hex(&mut self.bytes[self.sequence_at..][..16], sequence);
        write_hex(&mut self.bytes[self.sequence_at + 16..][..16], due_ns);
        out.extend_from_slice(&self.bytes);
    }
}

/// Reads the stamp of a body: the key and the due time in nanoseconds.
pub(crate) fn read_stamp(body: &[u8]) -> Option<(MessageKey, u64)> {
    let rest = body.strip_prefix(MAGIC)?;
    let run = u32::try_from(read_hex(rest.get(..8)?)?).ok()?;
    let producer = u32::try_from(read_hex(rest.get(8..16)?)?).ok()?;
    let sequence = read_hex(rest.get(16..32)?)?;
    let due_ns = read_hex(rest.get(32..48)?)?;
    Some((
        MessageKey {
            run,
            producer,
            sequence,
        },
        due_ns,
    ))
}

/// Writes the low digits of `value`, a nibble per character from `@` (0) to `O` (15): text without
/// NUL, line end or colon, and no table to look up.
fn write_hex(place: &mut [u8], value: u64) {
    let mut rest = value;
    for digit in place.iter_mut().rev() {
        *digit = b'@' + (rest & 15) as u8;
        rest >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut strange = 0;
    for digit in digits {
        value = value << 4 | u64::from(digit & 15);
        strange |= digit ^ b'@';
    }
    (strange < 16).then_some(value)
}

/// A frame from the broker, borrowed from the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The connection is open; the version the broker chose (empty: 1.0).
    Connected {
        /// Header `version`.
        version: &'a [u8],
    },
    /// The broker refuses; the connection will close.
    Error {
        /// Header `message` and the start of the body, printable.
        text: String,
    },
    /// A delivery.
    Message(Message<'a>),
    /// The answer to a `receipt` header.
    Receipt {
        /// Header `receipt-id`.
        id: &'a [u8],
    },
}

/// A delivery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Header `ack`, still escaped as it came; empty in mode auto.
    pub(crate) ack: &'a [u8],
    /// Header `redelivered` is `true`.
    pub(crate) is_redelivered: bool,
    /// Body.
    pub(crate) body: &'a [u8],
}

/// The broker sent what STOMP 1.2 does not allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FrameError(pub(crate) String);

#[derive(Default)]
struct Headers<'a> {
    ack: &'a [u8],
    content_len: Option<usize>,
    id: &'a [u8],
    message: &'a [u8],
    redelivered: &'a [u8],
    version: &'a [u8],
}

/// Reads one frame from the front of `bytes`.
///
/// Returns the frame and how many bytes it took, heart-beats before it included; `None` if more
/// bytes are needed. Errors: the broker's fault, naming what was read.
///
/// Source: STOMP 1.2 "Augmented BNF".
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let start = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\n' | b'\r'))
        .count();
    let Some((command, mut at)) = line(bytes, start) else {
        return Ok(None);
    };
    let mut headers = Headers::default();
    loop {
        let Some((text, next)) = line(bytes, at) else {
            return Ok(None);
        };
        at = next;
        if text.is_empty() {
            break;
        }
        headers.take(text)?;
    }
    let Some(body) = body(&bytes[at..], headers.content_len)? else {
        return Ok(None);
    };
    let frame = match command {
        b"RECEIPT" => Frame::Receipt { id: headers.id },
        b"MESSAGE" => Frame::Message(Message {
            ack: headers.ack,
            is_redelivered: headers.redelivered == b"true",
            body,
        }),
        b"CONNECTED" => Frame::Connected {
            version: headers.version,
        },
        b"ERROR" => Frame::Error {
            text: error_text(headers.message, body),
        },
        _ => return Err(FrameError(format!("unknown frame {}", printable(command)))),
    };
    Ok(Some((frame, at + body.len() + 1)))
}

/// The body at the front of `bytes`, once its NUL is there too.
fn body(bytes: &[u8], content_len: Option<usize>) -> Result<Option<&[u8]>, FrameError> {
    let Some(len) = content_len.or_else(|| memchr::memchr(0, bytes)) else {
        return Ok(None);
    };
    match bytes.get(len) {
        None => Ok(None),
        Some(0) => Ok(Some(&bytes[..len])),
        Some(_) => Err(FrameError(format!("no NUL after {len} bytes of body"))),
    }
}

impl<'a> Headers<'a> {
    fn take(&mut self, text: &'a [u8]) -> Result<(), FrameError> {
        let Some(colon) = memchr::memchr(b':', text) else {
            return Err(FrameError(format!(
                "header without a colon: {}",
                printable(text)
            )));
        };
        let (name, value) = (&text[..colon], &text[colon + 1..]);
        match name {
            b"ack" => self.ack = value,
            b"content-length" => {
                let len = read_decimal(value).and_then(|len| usize::try_from(len).ok());
                let Some(len) = len.filter(|len| *len < 1 << 40) else {
                    return Err(FrameError(format!("content-length {}", printable(value))));
                };
                self.content_len = Some(len);
            }
            b"message" => self.message = value,
            b"receipt-id" => self.id = value,
            b"redelivered" => self.redelivered = value,
            b"version" => self.version = value,
            _ => {}
        }
        Ok(())
    }
}

/// Reads an unsigned decimal number of at most 19 digits.
pub(crate) fn read_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u64::from(digit - b'0'))
    })
}

/// The line that begins at `at`, without its end, and where the next begins.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let len = memchr::memchr(b'\n', rest)?;
    let text = &rest[..len];
    Some((text.strip_suffix(b"\r").unwrap_or(text), at + len + 1))
}

#[cold]
fn error_text(message: &[u8], body: &[u8]) -> String {
    let body = printable(&body[..body.len().min(300)]);
    format!("{} {}", printable(message), body.trim())
        .trim()
        .to_owned()
}

/// The bytes as text for a person.
#[cold]
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

#[cfg(test)]
mod tests;
