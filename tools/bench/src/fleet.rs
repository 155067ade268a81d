//! All connections of a run behind one epoll: who is ready is read, answered and written.
//!
//! Connections have one numbering: producers first, consumers behind them. Readiness is
//! edge-triggered; a connection that may hold more than was read is visited again next turn.
//! Knows nothing of phases and ends; the caller brings the schedule and the books.

use crate::connection::{BenchError, Connection, Filled, broken_socket};
use crate::consumer::{Consumer, Expected};
use crate::frame::{self, SendShape, SendTemplate};
use crate::host::now_ns;
use crate::plan::Plan;
use crate::producer::{Books, Producer};
use crate::schedule::Schedule;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;
use std::rc::Rc;

/// Reads of one connection per turn.
const READS_MAX: u32 = 4;
const EVENTS_MAX: usize = 256;

/// Source: STOMP 1.2 "DISCONNECT": its receipt says that everything before it was processed.
const BYE: &[u8] = b"DISCONNECT\nreceipt:bye\n\n\0";

/// The connections.
pub(crate) struct Fleet {
    /// Connections `0..producers.len()`.
    pub(crate) producers: Vec<Producer>,
    /// The connections behind them.
    pub(crate) consumers: Vec<Consumer>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Connections that may hold more than was read.
    again: Vec<usize>,
    is_leaving: bool,
}

impl Fleet {
    /// Opens every connection of the plan; nothing is subscribed or sent.
    ///
    /// Errors: as `Connection::open`.
    pub(crate) fn connect(plan: &Plan, run: u32) -> Result<Self, BenchError> {
        let unable = |error| BenchError::Unable(format!("epoll: {error}"));
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(unable)?;
        let filler = frame::filler(plan.filler, plan.body_size);
        let consumers = connect_consumers(plan, run, &filler)?;
        let producers = connect_producers(plan, run, &filler)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let streams = producers
            .iter()
            .map(|producer| producer.connection.stream());
        let streams = streams.chain(
            consumers
                .iter()
                .map(|consumer| consumer.connection.stream()),
        );
        for (index, stream) in streams.enumerate() {
            epoll::add(&epoll, stream, EventData::new_u64(index as u64), flags).map_err(unable)?;
        }
        Ok(Self {
            producers,
            consumers,
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            again: Vec::new(),
            is_leaving: false,
        })
    }

    /// Number of connections.
    pub(crate) fn len(&self) -> usize {
        self.producers.len() + self.consumers.len()
    }

    /// Says whether a connection waits to be read without a new event.
    pub(crate) fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// Sleeps until a connection is ready, at most `timeout`, and serves all that are. Returns the
    /// number of frames that came.
    pub(crate) fn serve(
        &mut self,
        timeout: &Timespec,
        schedule: Option<&Schedule>,
        books: &mut Books<'_>,
    ) -> Result<u64, BenchError> {
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(BenchError::Unable(format!("epoll: {error}"))),
        }
        let mut count = 0;
        for index in std::mem::take(&mut self.again) {
            count += self.visit(index, EventFlags::IN, schedule, books)?;
        }
        for at in 0..self.events.len() {
            let event = self.events[at];
            count += self.visit(event.data.u64() as usize, event.flags, schedule, books)?;
        }
        Ok(count)
    }

    /// Serves one ready connection.
    fn visit(
        &mut self,
        index: usize,
        flags: EventFlags,
        schedule: Option<&Schedule>,
        books: &mut Books<'_>,
    ) -> Result<u64, BenchError> {
        if flags.contains(EventFlags::OUT) {
            self.connection(index).unblock();
        }
        let is_ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let mut count = 0;
        if flags.contains(EventFlags::IN) || is_ending {
            count = self.read(index, is_ending, books)?;
        }
        self.answer(index, schedule, books)?;
        Ok(count)
    }

    fn connection(&mut self, index: usize) -> &mut Connection {
        let producers = self.producers.len();
        if index < producers {
            &mut self.producers[index].connection
        } else {
            &mut self.consumers[index - producers].connection
        }
    }

    fn read(
        &mut self,
        index: usize,
        is_ending: bool,
        books: &mut Books<'_>,
    ) -> Result<u64, BenchError> {
        let mut count = 0;
        for _ in 0..READS_MAX {
            let filled = self.connection(index).fill();
            count += self.take_frames(index, books)?;
            let is_expected = self.is_leaving && self.has_left(index);
            match filled {
                // A short read says dry, but not whether the end stands behind it.
                Ok(Filled::Dry) if is_ending => {}
                Ok(Filled::Dry) => return Ok(count),
                Ok(Filled::More) => self.connection(index).widen(),
                Ok(Filled::Closed) | Err(_) if is_expected => return Ok(count),
                Ok(Filled::Closed) => {
                    let name = self.name(index);
                    let why = format!("{name}: the broker closed the connection");
                    return Err(BenchError::Broken(why));
                }
                Err(error) => return Err(broken_socket(&self.name(index), &error)),
            }
        }
        self.again.push(index);
        Ok(count)
    }

    fn take_frames(&mut self, index: usize, books: &mut Books<'_>) -> Result<u64, BenchError> {
        let now = now_ns();
        let producers = self.producers.len();
        if index < producers {
            self.producers[index].take_frames(now, books)
        } else {
            self.consumers[index - producers].take_frames(now, books)
        }
    }

    /// Sends what a connection owes after it was read, became writable, or a message fell due.
    pub(crate) fn answer(
        &mut self,
        index: usize,
        schedule: Option<&Schedule>,
        books: &mut Books<'_>,
    ) -> Result<(), BenchError> {
        if self.is_leaving && self.has_left(index) {
            return Ok(());
        }
        let written = self.write(index, schedule, books);
        written.map_err(|error| self.last_words(index, books).unwrap_or(error))
    }

    fn write(
        &mut self,
        index: usize,
        schedule: Option<&Schedule>,
        books: &mut Books<'_>,
    ) -> Result<(), BenchError> {
        let producers = self.producers.len();
        if index >= producers {
            return self.consumers[index - producers].flush();
        }
        let producer = &mut self.producers[index];
        match schedule {
            Some(schedule) => producer.send(schedule, books),
            None => {
                let flushed = producer.connection.flush();
                flushed.map_err(|error| broken_socket(&producer.name(), &error))
            }
        }
    }

    /// A broker that refuses says why before it closes: the ERROR frame explains the broken pipe.
    #[cold]
    fn last_words(&mut self, index: usize, books: &mut Books<'_>) -> Option<BenchError> {
        self.connection(index).fill().ok()?;
        self.take_frames(index, books).err()
    }

    /// Settles what is owed and asks every connection to end with a receipt.
    pub(crate) fn leave(&mut self, books: &mut Books<'_>) -> Result<(), BenchError> {
        self.is_leaving = true;
        for consumer in &mut self.consumers {
            consumer.settle(now_ns(), true)?;
        }
        for index in 0..self.len() {
            self.connection(index).out().extend_from_slice(BYE);
            self.answer(index, None, books)?;
        }
        Ok(())
    }

    /// Says whether every connection got its last receipt.
    pub(crate) fn is_gone(&self) -> bool {
        (0..self.len()).all(|index| self.has_left(index))
    }

    /// Names a connection that did not get what ending promises.
    pub(crate) fn leave_violation(&self) -> Option<String> {
        if let Some(index) = (0..self.len()).find(|index| !self.has_left(*index)) {
            return Some(format!("{}: DISCONNECT got no receipt", self.name(index)));
        }
        let unanswered = self
            .consumers
            .iter()
            .find(|consumer| consumer.ack_receipts_open() > 0)?;
        let (name, count) = (unanswered.name(), unanswered.ack_receipts_open());
        Some(format!("{name}: {count} ACK receipts never came"))
    }

    fn has_left(&self, index: usize) -> bool {
        let producers = self.producers.len();
        if index < producers {
            self.producers[index].has_left
        } else {
            self.consumers[index - producers].has_left
        }
    }

    fn name(&self, index: usize) -> String {
        let producers = self.producers.len();
        if index < producers {
            self.producers[index].name()
        } else {
            self.consumers[index - producers].name()
        }
    }
}

fn connect_consumers(plan: &Plan, run: u32, filler: &[u8]) -> Result<Vec<Consumer>, BenchError> {
    let Some(side) = &plan.consumption else {
        return Ok(Vec::new());
    };
    let expected = Rc::new(Expected {
        run,
        filler: filler.to_vec(),
    });
    let consumers = (0..side.consumers).map(|number| {
        let connection = Connection::open(plan.address, &plan.credentials, plan.answer_timeout)?;
        let is_ordered = plan.is_only_consumer(number);
        Ok(Consumer::new(
            connection,
            number,
            side,
            is_ordered,
            Rc::clone(&expected),
        ))
    });
    consumers.collect()
}

fn connect_producers(plan: &Plan, run: u32, filler: &[u8]) -> Result<Vec<Producer>, BenchError> {
    let Some(side) = &plan.production else {
        return Ok(Vec::new());
    };
    let producers = (0..side.producers).map(|number| {
        let connection = Connection::open(plan.address, &plan.credentials, plan.answer_timeout)?;
        let shape = SendShape {
            destination: plan.queue_of(number),
            is_persistent: side.is_persistent,
            headers: &side.headers,
            filler,
        };
        Ok(Producer::new(
            connection,
            number,
            SendTemplate::new(shape, run, number),
        ))
    });
    producers.collect()
}
