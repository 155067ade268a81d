//! What the broker says, in frames. Source: RFC 6455 5.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::CONTROL_SIZE_MAX;
use crate::limits::WEBSOCKET_FRAME_SIZE_MAX_BYTES;

#[allow(clippy::cast_possible_truncation, reason = "it takes 16 bits")]
const FRAME_SIZE_MAX: usize = WEBSOCKET_FRAME_SIZE_MAX_BYTES as usize;

/// Header of a frame of [`FRAME_SIZE_MAX`] bytes without mask.
const HEADER_SIZE_MAX: usize = 4;

/// Writes the frames of one server.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    /// Whether the message begun last goes on.
    is_amid: bool,
    is_closed: bool,
}

impl Writer {
    /// Whether a message was begun and not ended.
    pub const fn is_amid_message(&self) -> bool {
        self.is_amid
    }

    /// Makes frames of what stands in `out` from `start` on: a message, or its next part if one
    /// was begun; `is_last` says whether it ends with it.
    ///
    /// The message is text if it may be, is whole and is UTF-8, else binary: what is still to come
    /// of a message may be anything.
    /// Cost: each byte is moved once within `out`; no buffer but `out` grows.
    pub fn frame(&mut self, start: usize, is_last: bool, may_be_text: bool, out: &mut Vec<u8>) {
        let payload = out.get(start..).unwrap_or_default();
        if self.is_closed {
            return out.truncate(start);
        }
        if payload.is_empty() && !(is_last && self.is_amid) {
            return;
        }
        let mut opcode = if self.is_amid {
            Data::Continue
        } else if may_be_text && is_last && std::str::from_utf8(payload).is_ok() {
            Data::Text
        } else {
            Data::Binary
        };
        self.is_amid = !is_last;
        let len = payload.len();
        let count = len.div_ceil(FRAME_SIZE_MAX).max(1);
        let header = |index: usize, opcode| FrameHeader {
            is_final: is_last && index + 1 == count,
            opcode: OpCode::Data(opcode),
            ..FrameHeader::default()
        };
        let first = opcode;
        let last_len = len - (count - 1) * FRAME_SIZE_MAX;
        let last_header = header(0, first).len(last_len as u64);
        out.resize(start + len + (count - 1) * HEADER_SIZE_MAX + last_header, 0);
        // From behind, so that nothing is overwritten before it is moved.
        for index in (0..count).rev() {
            opcode = if index == 0 { first } else { Data::Continue };
            let is_end = index + 1 == count;
            let (size, header_size) = if is_end {
                (last_len, last_header)
            } else {
                (FRAME_SIZE_MAX, HEADER_SIZE_MAX)
            };
            let from = start + index * FRAME_SIZE_MAX;
            let place = start + index * (FRAME_SIZE_MAX + HEADER_SIZE_MAX);
            out.copy_within(from..from + size, place + header_size);
            let header_bytes = out.get_mut(place..place + header_size).unwrap_or_default();
            format(&header(index, opcode), size, header_bytes);
        }
    }

    /// Answers a ping.
    pub fn pong(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.control(Control::Pong, payload, out);
    }

    /// Says that nothing more comes, once. `reason` is for people; its end is cut to what fits.
    pub fn close(&mut self, code: CloseCode, reason: &str, out: &mut Vec<u8>) {
        let mut payload = u16::from(code).to_be_bytes().to_vec();
        let fitting = reason.floor_char_boundary(CONTROL_SIZE_MAX - payload.len());
        payload.extend_from_slice(reason.get(..fitting).unwrap_or_default().as_bytes());
        self.control(Control::Close, &payload, out);
        self.is_closed = true;
    }

    fn control(&mut self, control: Control, payload: &[u8], out: &mut Vec<u8>) {
        if self.is_closed {
            return;
        }
        let header = FrameHeader {
            opcode: OpCode::Control(control),
            ..FrameHeader::default()
        };
        let start = out.len();
        out.resize(start + header.len(payload.len() as u64), 0);
        format(
            &header,
            payload.len(),
            out.get_mut(start..).unwrap_or_default(),
        );
        out.extend_from_slice(payload);
    }
}

/// Writes a header where room was made for it.
fn format(header: &FrameHeader, len: usize, mut place: &mut [u8]) {
    debug_assert_eq!(place.len(), header.len(len as u64), "no room was made");
    // It can only fail for want of room.
    let written = header.format(len as u64, &mut place);
    debug_assert!(written.is_ok(), "no room was made");
}
