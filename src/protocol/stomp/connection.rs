//! The engine of one connection: order of frames, versions, bodies and timers.

use super::body::BodyRule;
use super::command::Command;
use super::connect;
use super::control;
use super::error::{Error, ErrorKind};
use super::event::{Connect, Event, SendPart};
use super::head::{Headers, Rules};
use super::heart_beat::{TimeoutAction, Timers};
use super::limits::Limits;
use super::scan::{Head, HeadScan};
use super::send;
use super::version::Version;
use crate::now::Now;

/// One client's connection, seen from the server.
///
/// Call [`Connection::next_event`] with what was received until it gives no event; keep what was
/// not consumed and call again with it and what came after. Stopping between two events, for as
/// long as the broker likes, is the way to slow a client down.
#[derive(Clone, Debug)]
pub struct Connection {
    limits: Limits,
    phase: Phase,
    /// Agreed on by `CONNECT`; the plainest before.
    version: Version,
    step: Step,
    timers: Timers,
    /// The receipt of the `SEND` that is streaming: its head is gone when an error shows.
    stream_receipt: Option<Box<str>>,
    stats: Stats,
}

/// What one call found.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// Bytes at the start of the input that are done with, event or not.
    pub consumed: usize,
    /// At most one event; none: more input is needed.
    pub event: Option<Event<'a>>,
}

/// Counters since the connection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Whole frames.
    pub frames: u64,
    /// Line ends between frames: heart-beats, and what clients write behind a frame.
    pub line_ends: u64,
}

/// Which frames are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitingConnect,
    Connected,
    /// `DISCONNECT` was seen: nothing more may come.
    Disconnected,
    /// An error was given out: all input is thrown away.
    Failed,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Step {
    Head(HeadScan),
    Body(Waiting),
    Stream(Stream),
}

/// A frame whose head is read and whose body is not all here.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    head: Head,
    body: BodyRule,
    /// Bytes of the body known to hold no NUL.
    scanned: usize,
}

/// A body that is given out in parts.
#[derive(Clone, Copy, Debug)]
struct Stream {
    rule: BodyRule,
    taken: usize,
}

impl Connection {
    /// Starts a connection; the time allowed for `CONNECT` begins `now`.
    pub fn new(limits: Limits, now: Now) -> Self {
        Self {
            limits,
            phase: Phase::AwaitingConnect,
            version: Version::V1_0,
            step: Step::Head(HeadScan::default()),
            timers: Timers::new(limits.connect_deadline_us, now),
            stream_receipt: None,
            stats: Stats::default(),
        }
    }

    /// Returns the version agreed on; 1.0, the plainest, before `CONNECT`.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Returns the limits it was made with.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the counters.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Returns whether nothing is accepted any more: after an error, a missed deadline or
    /// [`Connection::close`].
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Failed
    }

    /// Returns whether the next bytes belong to a message whose head was given out already. A frame
    /// that waits for the rest of its body still stands whole at the start of the input.
    pub const fn is_streaming(&self) -> bool {
        matches!(self.step, Step::Stream(_))
    }

    /// Reads the next event from the start of `input`.
    ///
    /// Shape: `input` is what the last call left, unchanged, and whatever came since.
    /// `now` is used by `CONNECT` only, to start the timers.
    /// Cost: each byte is searched once for the end of its head or body; header lines are read
    /// once, or twice if the body came later. No allocation but for headers to be rewritten.
    /// Errors: the peer's fault, always; send [`Error::encode`] and close. Everything after it is
    /// consumed without a word, so that a client still writing can read why.
    /// Source: STOMP 1.2 "STOMP Frames".
    pub fn next_event<'a>(&mut self, input: &'a [u8], now: Now) -> Result<Parsed<'a>, Error> {
        let mut parsed = Parsed {
            consumed: 0,
            event: None,
        };
        let result = match (self.phase, self.step) {
            (Phase::Failed, _) => Ok(input.len()),
            (_, Step::Stream(stream)) => self.stream_on(stream, input, &mut parsed.event),
            (_, Step::Head(scan)) => self.next_frame(scan, input, &mut parsed.event, now),
            (_, Step::Body(waiting)) => self.body_on(waiting, input, &mut parsed.event, now),
        };
        match result {
            Ok(consumed) => {
                parsed.consumed = consumed;
                Ok(parsed)
            }
            Err(error) => {
                self.close();
                Err(error)
            }
        }
    }

    /// Accepts nothing any more: call it when the broker itself refuses the client.
    pub fn close(&mut self) {
        self.phase = Phase::Failed;
        self.step = Step::Head(HeadScan::default());
        self.stream_receipt = None;
        self.timers.stop();
    }

    // The functions below return how much they consumed and write the event, which is large,
    // straight to where the caller gets it.

    /// Skips line ends and looks for the end of a head.
    fn next_frame<'a>(
        &mut self,
        mut scan: HeadScan,
        input: &'a [u8],
        event: &mut Option<Event<'a>>,
        now: Now,
    ) -> Result<usize, Error> {
        if scan.scanned() > input.len() {
            // The caller did not keep its bytes; begin again rather than look beyond them.
            scan = HeadScan::default();
        }
        let skipped = if scan.is_fresh() {
            self.skip_line_ends(input)
        } else {
            0
        };
        let frame = input.get(skipped..).unwrap_or_default();
        // A CR may be half a line end.
        if frame.is_empty() || (scan.is_fresh() && frame == b"\r") {
            return Ok(skipped);
        }
        if self.phase == Phase::Disconnected {
            return Err(Error::new(ErrorKind::FrameAfterDisconnect, None));
        }
        let (phase, version) = (self.phase, self.version);
        let found = scan.advance(frame, &self.limits, |command| {
            admit(phase, version, command)
        });
        match found {
            Ok(Some(head)) => Ok(skipped + self.frame_on(head, frame, event, now)?),
            Ok(None) => {
                self.step = Step::Head(scan);
                Ok(skipped)
            }
            Err(kind) => Err(self.refusal(kind, scan.lines_seen(frame))),
        }
    }

    /// Counts and returns the line ends at the start of `input`.
    ///
    /// CR LF is taken as one in all versions: between frames it can mean nothing else.
    /// Source: STOMP 1.2 "Augmented BNF" (`NULL *( EOL )`), "Heart-beating".
    fn skip_line_ends(&mut self, input: &[u8]) -> usize {
        let mut rest = input;
        while let [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] = rest {
            rest = after;
            self.stats.line_ends += 1;
        }
        input.len() - rest.len()
    }

    /// Reads a head that is all there.
    fn frame_on<'a>(
        &mut self,
        head: Head,
        frame: &'a [u8],
        event: &mut Option<Event<'a>>,
        now: Now,
    ) -> Result<usize, Error> {
        let lines = frame
            .get(head.lines_start..head.lines_end)
            .unwrap_or_default();
        let read = self.read(&head, lines, event);
        let body = read.map_err(|kind| self.refusal_of(head.command, kind, lines))?;
        let after = frame.get(head.len..).unwrap_or_default();
        let end = body.end(after, 0);
        match end.map_err(|kind| self.refusal_of(head.command, kind, lines))? {
            Some(body_len) => {
                self.give_out(event, after.get(..body_len).unwrap_or_default(), now);
                Ok(head.len + body_len + 1)
            }
            None if self.is_streamed(&head, &body, after) => {
                self.begin_stream(event, body, after);
                Ok(head.len + after.len())
            }
            None => {
                *event = None;
                self.step = Step::Body(Waiting {
                    head,
                    body,
                    scanned: after.len(),
                });
                Ok(0)
            }
        }
    }

    /// Looks whether a body has arrived; only then its head is read again.
    fn body_on<'a>(
        &mut self,
        mut waiting: Waiting,
        frame: &'a [u8],
        event: &mut Option<Event<'a>>,
        now: Now,
    ) -> Result<usize, Error> {
        let Waiting {
            head,
            body,
            scanned,
        } = waiting;
        let lines = frame
            .get(head.lines_start..head.lines_end)
            .unwrap_or_default();
        let after = frame.get(head.len..).unwrap_or_default();
        let end = body.end(after, scanned.min(after.len()));
        let is_here = end
            .map_err(|kind| self.refusal_of(head.command, kind, lines))?
            .is_some();
        if is_here || self.is_streamed(&head, &body, after) {
            self.step = Step::Head(HeadScan::default());
            return self.frame_on(head, frame, event, now);
        }
        waiting.scanned = after.len();
        self.step = Step::Body(waiting);
        Ok(0)
    }

    /// A body too large to be waited for goes out in parts, so that no buffer has to hold it.
    fn is_streamed(&self, head: &Head, body: &BodyRule, after: &[u8]) -> bool {
        let len_known = body.length.unwrap_or(after.len());
        head.command == Command::Send && len_known > self.limits.body_inline_max
    }

    /// Reads all header lines of a frame and finds out what rule its body is under.
    #[inline]
    fn read<'a>(
        &self,
        head: &Head,
        lines: &'a [u8],
        event: &mut Option<Event<'a>>,
    ) -> Result<BodyRule, ErrorKind> {
        let rules = match head.command {
            Command::Connect => Rules::CONNECT,
            _ => Rules::of(self.version),
        };
        let headers = Headers::read(lines, head.line_count, rules)?;
        match head.command {
            Command::Send => {
                let content_length = send::read(headers, event)?;
                BodyRule::of_message(content_length, &self.limits)
            }
            Command::Connect => {
                let connect = connect::read(headers, self.limits.heart_beat)?;
                let length = headers.first("content-length");
                let length = length
                    .map(|length| send::content_length(length.raw()))
                    .transpose()?;
                let version = connect.version;
                *event = Some(Event::Connect(connect));
                BodyRule::of_control(head.command, version, length, &self.limits)
            }
            command => {
                let length = control::read(command, self.version, headers, event)?;
                BodyRule::of_control(command, self.version, length, &self.limits)
            }
        }
    }

    /// Finishes an event whose frame is whole, and moves on.
    #[inline]
    fn give_out<'a>(&mut self, event: &mut Option<Event<'a>>, body: &'a [u8], now: Now) {
        self.step = Step::Head(HeadScan::default());
        self.stats.frames += 1;
        match event {
            Some(Event::Send(send)) => {
                send.body = body;
                send.body_total = Some(u64::try_from(body.len()).unwrap_or(u64::MAX));
                send.is_complete = true;
            }
            Some(Event::Connect(connect)) => self.connect(connect, now),
            // STOMP 1.2 "DISCONNECT": no frame may follow.
            Some(Event::Disconnect(_)) => {
                self.phase = Phase::Disconnected;
                self.timers.expect_nothing();
            }
            _ => {}
        }
    }

    fn connect(&mut self, connect: &Connect<'_>, now: Now) {
        self.phase = Phase::Connected;
        self.version = connect.version;
        self.timers.start(connect.heart_beat, now);
    }

    fn begin_stream<'a>(&mut self, event: &mut Option<Event<'a>>, rule: BodyRule, after: &'a [u8]) {
        self.step = Step::Stream(Stream {
            rule,
            taken: after.len(),
        });
        if let Some(Event::Send(send)) = event {
            send.body = after;
            send.body_total = rule.length.and_then(|length| u64::try_from(length).ok());
            let receipt = send.receipt.as_ref();
            self.stream_receipt = receipt.map(|receipt| receipt.decode().into());
        }
    }

    /// Gives out the next part of a body. Source: STOMP 1.2 "Header content-length", "Body".
    fn stream_on<'a>(
        &mut self,
        stream: Stream,
        input: &'a [u8],
        event: &mut Option<Event<'a>>,
    ) -> Result<usize, Error> {
        let end = stream.rule.remaining(stream.taken).end(input, 0);
        let end = end.map_err(|kind| Error::new(kind, self.stream_receipt.take()))?;
        if let Some(len) = end {
            self.step = Step::Head(HeadScan::default());
            self.stream_receipt = None;
            self.stats.frames += 1;
            let bytes = input.get(..len).unwrap_or_default();
            *event = Some(Event::SendPart(SendPart {
                bytes,
                is_last: true,
            }));
            return Ok(len + 1);
        }
        if !input.is_empty() {
            self.step = Step::Stream(Stream {
                taken: stream.taken + input.len(),
                ..stream
            });
            *event = Some(Event::SendPart(SendPart {
                bytes: input,
                is_last: false,
            }));
        }
        Ok(input.len())
    }

    #[cold]
    fn refusal_of(&self, command: Command, kind: ErrorKind, lines: &[u8]) -> Error {
        // STOMP 1.2 "Header receipt": any client frame other than CONNECT.
        let lines = if command == Command::Connect {
            &[]
        } else {
            lines
        };
        self.refusal(kind, lines)
    }

    /// Looks for the receipt in a frame that is refused.
    ///
    /// Source: STOMP 1.2 "ERROR": the frame SHOULD set `receipt-id`.
    #[cold]
    fn refusal(&self, kind: ErrorKind, lines: &[u8]) -> Error {
        if self.phase != Phase::Connected {
            return Error::new(kind, None);
        }
        let rules = Rules::of(self.version);
        let mut receipts = lines.split(|octet| *octet == b'\n').filter_map(|line| {
            let headers = Headers::read(line, 1, rules).ok()?;
            let line = headers.lines().next()?.ok()?;
            (line.key == "receipt").then(|| headers.value(line.value).decode().into())
        });
        Error::new(kind, receipts.next())
    }

    /// Says that bytes were received: the client lives. Call it once per receive.
    pub fn note_received(&mut self, now: Now) {
        self.timers.note_received(now);
    }

    /// Says that bytes were sent, of whatever kind.
    pub fn note_sent(&mut self, now: Now) {
        self.timers.note_sent(now);
    }

    /// Says whether the caller reads the socket: while back-pressure holds a client up, its
    /// silence is ours and does not count against it.
    pub fn set_reading(&mut self, is_reading: bool, now: Now) {
        self.timers.set_reading(is_reading, now);
    }

    /// Returns when [`Connection::handle_timeout`] wants to be called, in monotonic microseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.poll_timeout()
    }

    /// Does what is due, one thing per call. After `PeerSilent` and `ConnectDeadline` the
    /// connection accepts nothing more.
    pub fn handle_timeout(&mut self, now: Now) -> Option<TimeoutAction> {
        let action = self.timers.handle_timeout(now);
        if action.is_some_and(|action| action != TimeoutAction::SendHeartBeat) {
            self.close();
        }
        action
    }

    /// Checks what must hold between any two calls.
    ///
    /// Panics: if it does not; that is a mistake in this engine, whatever the peer sent.
    pub fn check_invariants(&self) {
        if let Step::Stream(stream) = self.step {
            assert_eq!(
                self.phase,
                Phase::Connected,
                "a body streams outside of a session"
            );
            assert!(
                stream.taken <= stream.rule.size_max,
                "more of a body than allowed was taken"
            );
        } else {
            assert!(
                self.stream_receipt.is_none(),
                "a receipt was kept for no stream"
            );
        }
        if let Step::Body(waiting) = self.step {
            let waited = waiting.scanned.saturating_add(waiting.head.len);
            assert!(
                waited < self.limits.input_size_max(),
                "waiting for more than the bound"
            );
        }
    }
}

/// Judges whether a command may come now; answers whether its lines may end with CR LF.
///
/// Source: STOMP 1.2 "Connecting" (`CONNECT` first and once), STOMP 1.1 "Changes in the Protocol"
/// (`NACK` is new there).
fn admit(phase: Phase, version: Version, command: Command) -> Result<bool, ErrorKind> {
    match (phase, command) {
        (Phase::AwaitingConnect, Command::Connect) => Ok(Rules::CONNECT.allows_crlf),
        (Phase::AwaitingConnect, _) => Err(ErrorKind::NotConnected),
        (_, Command::Connect) => Err(ErrorKind::AlreadyConnected),
        (_, Command::Nack) if version == Version::V1_0 => {
            Err(ErrorKind::CommandNotInVersion { command, version })
        }
        _ => Ok(Rules::of(version).allows_crlf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was searched for NUL is not searched again: time would not show it, SIMD is too fast.
    #[test]
    fn a_slow_body_is_searched_once() {
        let now = Now::from_monotonic_us(0);
        let mut connection = Connection::new(Limits::default(), now);
        let connect = b"CONNECT\naccept-version:1.2\nhost:h\n\n\0";
        connection
            .next_event(connect, now)
            .expect("CONNECT is sound");
        let mut frame = b"SEND\ndestination:a\n\n".to_vec();
        let head_len = frame.len();
        for body_len in 1..100 {
            frame.push(b'x');
            let parsed = connection.next_event(&frame, now).expect("all is sound");
            assert!(parsed.event.is_none(), "the body is not whole");
            let Step::Body(waiting) = connection.step else {
                panic!("not waiting for a body")
            };
            assert_eq!((waiting.head.len, waiting.scanned), (head_len, body_len));
        }
    }

    #[test]
    fn a_slow_head_is_searched_once() {
        let now = Now::from_monotonic_us(0);
        let mut connection = Connection::new(Limits::default(), now);
        let head = b"CONNECT\naccept-version:1.2\nhost:h\n";
        for len in 1..head.len() {
            let input = head.get(..len).unwrap_or_default();
            connection.next_event(input, now).expect("all is sound");
            let Step::Head(scan) = connection.step else {
                panic!("not in a head")
            };
            assert_eq!(scan.scanned(), len);
        }
    }

    #[test]
    fn after_a_refusal_everything_is_thrown_away() {
        let now = Now::from_monotonic_us(0);
        let mut connection = Connection::new(Limits::default(), now);
        connection
            .next_event(b"NONSENSE\n", now)
            .expect_err("no such command");
        let parsed = connection
            .next_event(b"CONNECT\n\n\0", now)
            .expect("nothing is judged");
        assert_eq!((parsed.consumed, parsed.event.is_none()), (10, true));
        assert!(connection.is_closed());
        assert_eq!(connection.poll_timeout(), None);
    }
}
