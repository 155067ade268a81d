//! The same session over WebSocket: what it reads and writes, in and out of frames.
//!
//! One STOMP frame is one message to the client: clients exist that look no further in a message
//! than its first frame. A body that streams makes a message of many frames. No policy, and no
//! STOMP beyond the questions where its frames end and whether a body is under way.

use super::session::Session;
use crate::frontend::{Reply, Step, Timeout};
use crate::limits::RECEIVE_BUFFER_SIZE_BYTES;
use crate::now::Now;
use crate::protocol::websocket::{
    CloseCode, Event, Handshake, Limits, Read, Reader, Refusal, Shaken, Violation, Writer, refuse,
};

/// Payload taken out of frames at once: what comes from the socket at once, at most.
const TAKE_MAX: usize = RECEIVE_BUFFER_SIZE_BYTES as usize;

/// What a WebSocket connection has besides its session.
#[derive(Debug)]
pub(super) struct WebSocket {
    phase: Phase,
    reader: Reader,
    writer: Writer,
    /// Payload that the session did not consume: a command borrows from it. Less than the session
    /// may wait for, and [`TAKE_MAX`].
    received: Vec<u8>,
    /// Of it, bytes at the start that are consumed.
    taken: usize,
    /// Whether the session can do nothing with the rest of it.
    is_starved: bool,
    /// What the connection closes with if nothing else is said.
    close_code: CloseCode,
}

#[derive(Debug)]
enum Phase {
    Shaking(Handshake),
    /// The request had an HTTP answer that says why not.
    Refused,
    Open,
    /// Nothing is read any more.
    Ended,
}

impl WebSocket {
    /// Starts in front of the request.
    pub(super) fn new(session: &Session) -> Self {
        let engine = session.settings.limits;
        // The largest message with its headers, and as much as can wait in front of it.
        let largest = engine
            .message_size_max
            .saturating_add(engine.input_size_max() as u64);
        Self {
            phase: Phase::Shaking(Handshake::new(session.settings.pages)),
            reader: Reader::new(Limits {
                frame_size_max: largest,
            }),
            writer: Writer::default(),
            received: Vec::new(),
            taken: 0,
            is_starved: true,
            close_code: CloseCode::Normal,
        }
    }

    /// Whether there is input here that the session may find something in.
    pub(super) fn has_kept_input(&self) -> bool {
        matches!(self.phase, Phase::Open) && !self.is_starved
    }

    /// Whether the next event brings (part of) a message; to take frames apart brings none yet.
    pub(super) fn is_message_next(&self, session: &Session) -> bool {
        (self.has_kept_input() || session.has_more())
            && session.is_message_next(&self.received[self.taken..])
    }

    /// Takes frames apart while the session has too little, and lets it read on else.
    pub(super) fn handle_input<'a>(
        &'a mut self,
        session: &'a mut Session,
        input: &[u8],
        now: Now,
        out: &mut Vec<u8>,
    ) -> Step<'a> {
        match &mut self.phase {
            Phase::Shaking(handshake) => match handshake.advance(input, out) {
                Shaken::Waiting => return quiet(0, true),
                Shaken::Refused => {
                    self.phase = Phase::Refused;
                    return Step::Broken;
                }
                Shaken::Agreed(consumed) => {
                    self.phase = Phase::Open;
                    return quiet(consumed, false);
                }
            },
            Phase::Refused | Phase::Ended => return quiet(input.len(), true),
            Phase::Open if self.is_starved && !session.has_more() => return self.take(input, out),
            Phase::Open => {}
        }
        let Self {
            reader,
            writer,
            received,
            taken,
            is_starved,
            close_code,
            ..
        } = self;
        let start = out.len();
        let step = session.handle_input(&received[*taken..], now, out);
        // While it reads a session writes whole frames only.
        let is_last = !writer.is_amid_message();
        writer.frame(start, is_last, reader.speaks_text(), out);
        match step {
            Step::Quiet {
                consumed,
                is_starved: is_rest_too_little,
            } => {
                *taken += consumed;
                *is_starved = is_rest_too_little || *taken == received.len();
                quiet(0, false)
            }
            Step::Command { consumed, command } => {
                *taken += consumed;
                *is_starved = *taken == received.len();
                Step::Command {
                    consumed: 0,
                    command,
                }
            }
            Step::Broken => {
                *close_code = CloseCode::Protocol;
                Step::Broken
            }
            goodbye @ Step::Goodbye { .. } => goodbye,
        }
    }

    /// Moves payload from frames to where the session reads it; answers at most one ping, so that
    /// a client that does not read its answers is not read either.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step<'static> {
        self.received.drain(..self.taken);
        self.taken = 0;
        if self.received.is_empty() && self.received.capacity() > TAKE_MAX {
            // What a long frame once needed is not kept for good.
            self.received = Vec::new();
        }
        let before = self.received.len();
        let mut consumed = 0;
        loop {
            let room = TAKE_MAX - (self.received.len() - before);
            if room == 0 {
                break;
            }
            let Read {
                consumed: count,
                event,
            } = match self
                .reader
                .read(&input[consumed..], &mut self.received, room)
            {
                Ok(read) => read,
                Err(violation) => return self.refuse(violation, out),
            };
            consumed += count;
            match event {
                Event::Payload | Event::Pong => {}
                Event::Starved => {
                    self.is_starved = self.received.len() == before;
                    return quiet(consumed, self.is_starved);
                }
                Event::Ping(payload) => {
                    self.writer.pong(payload.bytes(), out);
                    break;
                }
                Event::Close(code) => {
                    // What came before it is the session's still; read it again until it says so.
                    if self.received.len() > before {
                        consumed -= count;
                        break;
                    }
                    self.close_code = code.unwrap_or(CloseCode::Normal);
                    self.phase = Phase::Ended;
                    return Step::Goodbye { receipt: &[] };
                }
            }
        }
        self.is_starved = self.received.len() == before;
        quiet(consumed, false)
    }

    fn refuse(&mut self, violation: Violation, out: &mut Vec<u8>) -> Step<'static> {
        self.writer
            .close(violation.code(), &violation.to_string(), out);
        self.phase = Phase::Ended;
        Step::Broken
    }

    /// Puts what the session wrote to `out` from `start` on into frames.
    fn frame(&mut self, session: &Session, start: usize, out: &mut Vec<u8>) {
        let is_last = !session.is_amid_body();
        self.writer
            .frame(start, is_last, self.reader.speaks_text(), out);
    }

    pub(super) fn handle_reply(
        &mut self,
        session: &mut Session,
        reply: &Reply<&[u8]>,
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        let may_go_on = session.handle_reply(reply, out);
        let breaks = session.take_breaks();
        let Some(&first) = breaks.first() else {
            self.frame(session, start, out);
            return self.note_refusal(may_go_on);
        };
        // The end of a body let go of what had to wait for it: each frame a message again.
        let behind = out.split_off(first);
        self.writer
            .frame(start, true, self.reader.speaks_text(), out);
        for (index, at) in breaks.iter().enumerate() {
            let next = breaks.get(index + 1);
            let end = next.map_or(behind.len(), |next| next - first);
            let start = out.len();
            out.extend_from_slice(&behind[at - first..end]);
            let is_last = next.is_some() || !session.is_amid_body();
            self.writer
                .frame(start, is_last, self.reader.speaks_text(), out);
        }
        self.note_refusal(may_go_on)
    }

    fn note_refusal(&mut self, may_go_on: bool) -> bool {
        if !may_go_on {
            self.close_code = CloseCode::Policy;
        }
        may_go_on
    }

    pub(super) fn handle_timeout(
        &mut self,
        session: &mut Session,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Timeout {
        let start = out.len();
        let timeout = session.handle_timeout(now, out);
        if matches!(self.phase, Phase::Shaking(_)) && timeout != Timeout::None {
            out.truncate(start);
            refuse(Refusal::Late, "no request came in time", out);
            self.phase = Phase::Refused;
            return Timeout::Broken;
        }
        self.frame(session, start, out);
        if timeout == Timeout::Broken {
            self.close_code = CloseCode::Policy;
        }
        timeout
    }

    pub(super) fn say_error(
        &mut self,
        session: &mut Session,
        message: &str,
        details: &str,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        session.say_error(message, details, None, out);
        if matches!(self.phase, Phase::Shaking(_)) {
            out.truncate(start);
            refuse(Refusal::Stopping, message, out);
            self.phase = Phase::Refused;
            return;
        }
        self.frame(session, start, out);
        self.close_code = CloseCode::Away;
    }

    /// Ends the stream of frames; once.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if matches!(self.phase, Phase::Open | Phase::Ended) {
            self.writer.close(self.close_code, "", out);
        }
    }
}

fn quiet(consumed: usize, is_starved: bool) -> Step<'static> {
    Step::Quiet {
        consumed,
        is_starved,
    }
}
