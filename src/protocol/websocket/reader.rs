//! Frames of a client to payload. Source: RFC 6455 5.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{self, CloseCode, OpCode};

use super::CONTROL_SIZE_MAX;
use super::close::Violation;
use super::utf8::Utf8Check;

/// What one connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of a frame; a longer one is refused at its header.
    pub frame_size_max: u64,
}

/// Reads the frames of one client.
///
/// Call [`Reader::read`] with what was received until it is starved; keep what was not consumed
/// and call again with it and what came after. After an error or [`Event::Close`] call no more.
#[derive(Clone, Debug)]
pub struct Reader {
    limits: Limits,
    /// The data frame whose payload is under way.
    frame: Option<Frame>,
    /// The message under way: its frames, or what is between them.
    message: Option<Kind>,
    utf8: Utf8Check,
    speaks_text: Option<bool>,
}

/// What one call found.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Bytes at the start of the input that are done with.
    pub consumed: usize,
    /// What they were.
    pub event: Event,
}

/// What came.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Not enough for anything.
    Starved,
    /// Payload, appended to the caller's buffer; may be none.
    Payload,
    /// To be answered by [`Writer::pong`](super::Writer::pong).
    Ping(Control),
    /// Nobody asked for it.
    Pong,
    /// The client closes, with this status if any. Answer it; nothing may come behind it.
    Close(Option<CloseCode>),
}

/// The payload of a control frame.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    bytes: [u8; CONTROL_SIZE_MAX],
    len: usize,
}

impl Control {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    mask: [u8; 4],
    left: u64,
    is_final: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// A header that is sound by itself.
struct Header {
    size: usize,
    mask: [u8; 4],
    is_final: bool,
    opcode: OpCode,
    length: u64,
}

impl Reader {
    /// Starts behind the handshake.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            frame: None,
            message: None,
            utf8: Utf8Check::new(),
            speaks_text: None,
        }
    }

    /// Whether the client's first message is text; false before it.
    pub fn speaks_text(&self) -> bool {
        self.speaks_text.unwrap_or(false)
    }

    /// Reads one frame, or a part of one, from the start of `input`; appends at most `room` bytes
    /// of payload, which must not be 0, to `payload`.
    ///
    /// Errors: the client's fault; say [`Violation::code`] and close.
    /// Cost: payload is copied once.
    pub fn read(
        &mut self,
        input: &[u8],
        payload: &mut Vec<u8>,
        room: usize,
    ) -> Result<Read, Violation> {
        if let Some(frame) = self.frame {
            return self.payload_on(frame, 0, input, payload, room);
        }
        let Some(header) = self.header(input)? else {
            return Ok(Read {
                consumed: 0,
                event: Event::Starved,
            });
        };
        match header.opcode {
            OpCode::Control(control) => control_frame(&header, control, input),
            OpCode::Data(data) => {
                self.begin(data)?;
                let frame = Frame {
                    mask: header.mask,
                    left: header.length,
                    is_final: header.is_final,
                };
                let rest = input.get(header.size..).unwrap_or_default();
                self.payload_on(frame, header.size, rest, payload, room)
            }
        }
    }

    /// Reads the header of a frame, if it is all there.
    fn header(&self, input: &[u8]) -> Result<Option<Header>, Violation> {
        let mut cursor = Cursor::new(input);
        // It fails for an opcode that is reserved, and for nothing else.
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::UnknownOpcode)?;
        let Some((header, length)) = parsed else {
            return Ok(None);
        };
        let mask = header.mask.ok_or(Violation::Unmasked)?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBits);
        }
        let size = header.len(length);
        if cursor.position() != size as u64 {
            return Err(Violation::LengthNotMinimal);
        }
        if length > self.limits.frame_size_max {
            let max = self.limits.frame_size_max;
            return Err(Violation::FrameTooLarge { max });
        }
        Ok(Some(Header {
            size,
            mask,
            is_final: header.is_final,
            opcode: header.opcode,
            length,
        }))
    }

    /// A data frame begins or goes on with a message.
    fn begin(&mut self, data: coding::Data) -> Result<(), Violation> {
        let kind = match (data, self.message) {
            (coding::Data::Continue, Some(_)) => return Ok(()),
            (coding::Data::Continue, None) => return Err(Violation::NothingToContinue),
            (_, Some(_)) => return Err(Violation::MessageNotFinished),
            (coding::Data::Text, None) => Kind::Text,
            (coding::Data::Binary, None) => Kind::Binary,
            (coding::Data::Reserved(_), None) => return Err(Violation::UnknownOpcode),
        };
        self.message = Some(kind);
        self.speaks_text.get_or_insert(kind == Kind::Text);
        Ok(())
    }

    /// Takes what there is of a frame's payload. `before`: bytes consumed for its header.
    fn payload_on(
        &mut self,
        mut frame: Frame,
        before: usize,
        input: &[u8],
        payload: &mut Vec<u8>,
        room: usize,
    ) -> Result<Read, Violation> {
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let part = input
            .get(..left.min(room).min(input.len()))
            .unwrap_or_default();
        if part.is_empty() && left > 0 && before == 0 {
            return Ok(Read {
                consumed: 0,
                event: Event::Starved,
            });
        }
        let start = payload.len();
        payload.extend_from_slice(part);
        let taken = payload.get_mut(start..).unwrap_or_default();
        unmask(taken, frame.mask);
        if self.message == Some(Kind::Text) && !self.utf8.advance(taken) {
            payload.truncate(start);
            return Err(Violation::NotUtf8);
        }
        frame.left -= part.len() as u64;
        frame.mask.rotate_left(part.len() % 4);
        self.frame = (frame.left > 0).then_some(frame);
        if self.frame.is_none() && frame.is_final {
            let is_cut = self.message == Some(Kind::Text) && !self.utf8.end();
            self.message = None;
            if is_cut {
                return Err(Violation::NotUtf8);
            }
        }
        Ok(Read {
            consumed: before + part.len(),
            event: Event::Payload,
        })
    }

    /// Checks what must hold between any two calls without an error.
    ///
    /// Panics: if it does not; that is a mistake in this reader, whatever the peer sent.
    pub fn check_invariants(&self) {
        if let Some(frame) = self.frame {
            assert!(self.message.is_some(), "a frame of no message");
            assert!(frame.left > 0, "a frame without end");
            assert!(
                frame.left <= self.limits.frame_size_max,
                "a frame too large"
            );
        }
        if self.message != Some(Kind::Text) {
            assert!(self.utf8.end(), "half a character of no text");
        }
    }
}

/// A control frame, once all of it is there.
fn control_frame(
    header: &Header,
    control: coding::Control,
    input: &[u8],
) -> Result<Read, Violation> {
    if !header.is_final {
        return Err(Violation::ControlFragmented);
    }
    let len = usize::try_from(header.length).unwrap_or(usize::MAX);
    let mut bytes = [0; CONTROL_SIZE_MAX];
    let Some(place) = bytes.get_mut(..len) else {
        return Err(Violation::ControlTooLarge);
    };
    let end = header.size + len;
    let Some(masked) = input.get(header.size..end) else {
        return Ok(Read {
            consumed: 0,
            event: Event::Starved,
        });
    };
    place.copy_from_slice(masked);
    unmask(place, header.mask);
    let event = match control {
        coding::Control::Ping => Event::Ping(Control { bytes, len }),
        coding::Control::Pong => Event::Pong,
        coding::Control::Close => Event::Close(close_code(place)?),
        coding::Control::Reserved(_) => return Err(Violation::UnknownOpcode),
    };
    Ok(Read {
        consumed: end,
        event,
    })
}

/// Reads what a Close frame says. Source: RFC 6455 5.5.1, 7.4.
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::BadClose),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !code.is_allowed() {
                return Err(Violation::BadClose);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok(Some(code))
        }
    }
}

/// Takes a mask off whose first byte belongs to the first of `bytes`. Source: RFC 6455 5.3.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    // In words, which the compiler makes wider ones of.
    let word = u32::from_ne_bytes(mask);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for chunk in words {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
