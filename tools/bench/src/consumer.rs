//! A consuming connection: subscribes, stamps arrivals, acknowledges.
//!
//! In mode client one ACK settles `ack_every` messages; what is left over is settled after a few
//! milliseconds, so that a broker with a small prefetch never waits for us.

use crate::connection::{BenchError, Connection, broken_frame, broken_socket};
use crate::frame::{self, Frame, Message, STAMP_LEN};
use crate::ledger::Arrival;
use crate::plan::{AckMode, Consumption};
use crate::producer::Books;
use std::rc::Rc;

/// An ACK is owed no longer than this.
const ACK_DELAY_NS: u64 = 5_000_000;

/// What every body of this run must be.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Run number of our own messages.
    pub(crate) run: u32,
    /// Bytes behind the stamp.
    pub(crate) filler: Vec<u8>,
}

/// One consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// Its socket.
    pub(crate) connection: Connection,
    number: u32,
    is_ordered: bool,
    expected: Rc<Expected>,
    acks: Acks,
    /// The SUBSCRIBE receipt came.
    pub(crate) is_subscribed: bool,
    /// The DISCONNECT receipt came.
    pub(crate) has_left: bool,
}

impl Consumer {
    /// Makes consumer `number`; `is_ordered`: it is alone on its queue.
    pub(crate) fn new(
        connection: Connection,
        number: u32,
        side: &Consumption,
        is_ordered: bool,
        expected: Rc<Expected>,
    ) -> Self {
        Self {
            connection,
            number,
            is_ordered,
            expected,
            acks: Acks::new(side),
            is_subscribed: false,
            has_left: false,
        }
    }

    /// Asks for deliveries and for a receipt that says they may come.
    ///
    /// Source: STOMP 1.2 "SUBSCRIBE".
    pub(crate) fn subscribe(
        &mut self,
        destination: &str,
        headers: &[String],
    ) -> Result<(), BenchError> {
        let mut text = format!(
            "SUBSCRIBE\nid:0\ndestination:{destination}\nack:{}\nreceipt:sub\n",
            self.acks.mode.name()
        );
        for header in headers {
            text.push_str(header);
            text.push('\n');
        }
        text.push_str("\n\0");
        self.connection.out().extend_from_slice(text.as_bytes());
        self.flush()
    }

    /// Takes every whole frame that has arrived; returns how many.
    pub(crate) fn take_frames(
        &mut self,
        now: u64,
        books: &mut Books<'_>,
    ) -> Result<u64, BenchError> {
        let mut count = 0;
        loop {
            let (unread, out) = self.connection.split();
            let found = frame::read(unread).map_err(broken_frame)?;
            let Some((frame, used)) = found else {
                return Ok(count);
            };
            match frame {
                Frame::Message(message) => {
                    enter(&message, &self.expected, self.is_ordered, now, books);
                    self.acks.take(message.ack, now, out);
                }
                Frame::Receipt { id: b"sub" } => self.is_subscribed = true,
                Frame::Receipt { id: b"bye" } => self.has_left = true,
                Frame::Receipt { .. } => {
                    self.acks.receipts_open = self.acks.receipts_open.saturating_sub(1);
                    books.measured.last_answer_ns = now;
                }
                Frame::Error { text } => {
                    return Err(BenchError::Broken(format!(
                        "{}: ERROR: {text}",
                        self.name()
                    )));
                }
                Frame::Connected { .. } => {
                    return Err(BenchError::Broken(format!(
                        "{}: second CONNECTED",
                        self.name()
                    )));
                }
            }
            self.connection.consume(used);
            count += 1;
        }
    }

    /// Settles what has waited long enough, or everything.
    pub(crate) fn settle(&mut self, now: u64, settles_all: bool) -> Result<(), BenchError> {
        if self.acks.is_due(now) || (settles_all && self.acks.unacked > 0) {
            self.acks.acknowledge(self.connection.out());
            self.flush()?;
        }
        Ok(())
    }

    /// Receipts of ACKs still to come.
    pub(crate) fn ack_receipts_open(&self) -> u64 {
        self.acks.receipts_open
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), BenchError> {
        self.connection
            .flush()
            .map_err(|error| broken_socket(&self.name(), &error))
    }

    /// Name for a person.
    pub(crate) fn name(&self) -> String {
        format!("consumer {}", self.number)
    }
}

/// What a consumer owes for its deliveries.
#[derive(Debug)]
struct Acks {
    mode: AckMode,
    every: u32,
    asks_receipts: bool,
    /// Last delivery that is not acknowledged (mode client).
    id: Vec<u8>,
    unacked: u32,
    unacked_since_ns: u64,
    count: u64,
    receipts_open: u64,
}

impl Acks {
    fn new(side: &Consumption) -> Self {
        Self {
            mode: side.ack_mode,
            every: side.ack_every,
            asks_receipts: side.has_ack_receipts,
            id: Vec::new(),
            unacked: 0,
            unacked_since_ns: 0,
            count: 0,
            receipts_open: 0,
        }
    }

    /// Takes note of a delivery, and acknowledges if it is time.
    fn take(&mut self, id: &[u8], now: u64, out: &mut Vec<u8>) {
        if self.mode == AckMode::Auto {
            return;
        }
        self.id.clear();
        self.id.extend_from_slice(id);
        if self.unacked == 0 {
            self.unacked_since_ns = now;
        }
        self.unacked += 1;
        if self.mode == AckMode::ClientIndividual || self.unacked >= self.every {
            self.acknowledge(out);
        }
    }

    fn is_due(&self, now: u64) -> bool {
        self.unacked > 0 && now.saturating_sub(self.unacked_since_ns) >= ACK_DELAY_NS
    }

    /// Source: STOMP 1.2 "ACK".
    fn acknowledge(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"ACK\nid:");
        out.extend_from_slice(&self.id);
        if self.asks_receipts {
            out.extend_from_slice(b"\nreceipt:");
            out.extend_from_slice(self.count.to_string().as_bytes());
            self.receipts_open += 1;
        }
        out.extend_from_slice(b"\n\n\0");
        self.count += 1;
        self.unacked = 0;
    }
}

/// Enters one delivery into the books.
fn enter(
    message: &Message<'_>,
    expected: &Expected,
    is_ordered: bool,
    now: u64,
    books: &mut Books<'_>,
) {
    let Some((key, due_ns)) = frame::read_stamp(message.body) else {
        books.ledger.receive_unstamped();
        books.measured.deliver(None, now);
        return;
    };
    let is_own = key.run == expected.run;
    let is_intact = is_own && message.body[STAMP_LEN..] == expected.filler;
    let is_redelivered = message.is_redelivered;
    books.ledger.receive(
        key,
        Arrival {
            is_redelivered,
            is_ordered,
            is_intact,
        },
    );
    books.measured.deliver(is_own.then_some(due_ns), now);
}
