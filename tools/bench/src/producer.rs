//! A producing connection: sends what the schedule allows, matches receipts to messages.
//!
//! Owns the messages in flight of one connection. Receipts may come in any order.

use crate::connection::{BenchError, Connection, broken_frame, broken_socket};
use crate::frame::{self, Frame, SendTemplate};
use crate::host::now_ns;
use crate::ledger::Ledger;
use crate::measure::Measured;
use crate::schedule::Schedule;
use std::collections::VecDeque;

/// Marks a message in `in_flight` whose receipt overtook an earlier one.
const CONFIRMED: u64 = u64::MAX;

/// What all connections share while they work.
pub(crate) struct Books<'a> {
    /// Sent, confirmed, received.
    pub(crate) ledger: &'a mut Ledger,
    /// Histograms and counts.
    pub(crate) measured: &'a mut Measured,
}

/// One producer.
#[derive(Debug)]
pub(crate) struct Producer {
    /// Its socket.
    pub(crate) connection: Connection,
    number: u32,
    template: SendTemplate,
    sent: u64,
    /// Due times of messages `sent - in_flight.len() .. sent`.
    in_flight: VecDeque<u64>,
    was_blocked: bool,
    /// The DISCONNECT receipt came.
    pub(crate) has_left: bool,
}

impl Producer {
    /// Makes producer `number` over an open connection.
    pub(crate) fn new(connection: Connection, number: u32, template: SendTemplate) -> Self {
        Self {
            connection,
            number,
            template,
            sent: 0,
            in_flight: VecDeque::new(),
            was_blocked: false,
            has_left: false,
        }
    }

    /// Sends all that the schedule allows and the socket takes.
    pub(crate) fn send(
        &mut self,
        schedule: &Schedule,
        books: &mut Books<'_>,
    ) -> Result<(), BenchError> {
        loop {
            if !self.connection.is_blocked() {
                self.build(schedule, books);
            }
            let owes = !self.connection.has_room();
            self.connection
                .flush()
                .map_err(|error| broken_socket(&self.name(), &error))?;
            if self.connection.is_blocked() {
                self.was_blocked = true;
                return Ok(());
            }
            if !owes {
                return Ok(());
            }
        }
    }

    /// Appends frames up to the schedule's word or the size of the buffer.
    fn build(&mut self, schedule: &Schedule, books: &mut Books<'_>) {
        let now = now_ns();
        let producer = u64::from(self.number);
        let mut allowed = schedule.allowed(producer, self.sent, self.in_flight.len() as u64, now);
        while allowed > 0 && self.connection.has_room() {
            let due_ns = schedule.due_ns(producer, self.sent, now);
            self.template
                .append(self.connection.out(), self.sent, due_ns);
            self.in_flight.push_back(due_ns);
            self.sent += 1;
            books.ledger.sent(self.number);
            books.measured.leave(due_ns, now, self.was_blocked);
            allowed -= 1;
        }
        if allowed == 0 {
            self.was_blocked = false;
        }
    }

    /// Takes every whole frame that has arrived; returns how many.
    pub(crate) fn take_frames(
        &mut self,
        now: u64,
        books: &mut Books<'_>,
    ) -> Result<u64, BenchError> {
        let mut count = 0;
        loop {
            let found = frame::read(self.connection.unread()).map_err(broken_frame)?;
            let Some((frame, used)) = found else {
                return Ok(count);
            };
            let sequence = match frame {
                Frame::Receipt { id: b"bye" } => None,
                Frame::Receipt { id } => frame::read_decimal(id),
                Frame::Error { text } => {
                    return Err(BenchError::Broken(format!(
                        "{}: ERROR: {text}",
                        self.name()
                    )));
                }
                other => {
                    let name = self.name();
                    return Err(BenchError::Broken(format!("{name}: unexpected {other:?}")));
                }
            };
            match sequence {
                Some(sequence) => self.confirm(sequence, now, books),
                None => self.has_left = true,
            }
            self.connection.consume(used);
            count += 1;
        }
    }

    fn confirm(&mut self, sequence: u64, now: u64, books: &mut Books<'_>) {
        if !books.ledger.confirm(self.number, sequence) {
            return;
        }
        let first = self.sent - self.in_flight.len() as u64;
        let index = usize::try_from(sequence - first).unwrap_or(usize::MAX);
        books.measured.confirm(self.in_flight[index], now);
        self.in_flight[index] = CONFIRMED;
        while self.in_flight.front() == Some(&CONFIRMED) {
            self.in_flight.pop_front();
        }
    }

    /// Says whether all is sent and confirmed.
    pub(crate) fn is_finished(&self, schedule: &Schedule, now: u64) -> bool {
        self.in_flight.is_empty() && schedule.is_finished(u64::from(self.number), self.sent, now)
    }

    /// Messages whose receipt has not come (an overtaken one keeps those behind it counted).
    pub(crate) fn in_flight_count(&self) -> u64 {
        self.in_flight.len() as u64
    }

    /// Name for a person.
    pub(crate) fn name(&self) -> String {
        format!("producer {}", self.number)
    }
}
