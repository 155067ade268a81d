//! One run: its phases, its clock, and the decision that it is over.
//!
//! Phases: connect, subscribe, warm-up, measured window, (count system calls), drain, leave.
//! Waiting for what is in flight belongs to the run, so the ledger can be judged afterwards.
//! Everything happens on one thread; what the sockets do is the business of `fleet`.

use crate::connection::BenchError;
use crate::fleet::Fleet;
use crate::host::{self, ProcessUse, now_ns};
use crate::ledger::Ledger;
use crate::measure::Measured;
use crate::plan::{Plan, Stop};
use crate::producer::{Books, Producer};
use crate::progress::Progress;
use crate::schedule::{Limit, Schedule};
use crate::syscalls::{self, SyscallCount, SyscallFigure};
use rustix::time::Timespec;

/// Longest sleep of a turn: acknowledgements, progress and the end are looked after so often.
const TICK_NS: u64 = 5_000_000;
/// Quiet time after the last missing message, in which a duplicate would still be seen.
const SETTLE_NS: u64 = 100_000_000;

/// What a run leaves behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Figures.
    pub(crate) measured: Measured,
    /// State at the start of the measured window.
    pub(crate) before: Sample,
    /// State at its end.
    pub(crate) after: Sample,
    /// System calls per message, or why not.
    pub(crate) syscalls: Option<Result<SyscallFigure, String>>,
    /// Consumers ran until all had come, or nothing came any more.
    pub(crate) is_consumed_to_end: bool,
    /// Ended because no answer came, not because all was done.
    pub(crate) is_stalled: bool,
    /// Receipts of ACK or DISCONNECT that never came.
    pub(crate) leave_violation: Option<String>,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When.
    pub(crate) time_ns: u64,
    /// CPU time of this process.
    pub(crate) client_cpu_ns: u64,
    /// What the broker has used; `None` without a process id.
    pub(crate) server: Option<ProcessUse>,
    /// Receipts until then.
    pub(crate) confirmed: u64,
    /// Deliveries until then.
    pub(crate) received: u64,
}

/// Runs the plan with the books of `ledger`, whose run number is `run`.
///
/// Errors: nobody to talk to, or a connection that failed under way. A broken ledger is no error
/// here: the caller judges it.
pub(crate) fn run(plan: &Plan, run: u32, ledger: &mut Ledger) -> Result<Outcome, BenchError> {
    let mut drive = Drive::connect(plan, run, ledger)?;
    drive.begin()?;
    loop {
        drive.turn()?;
        if drive.is_over() {
            break;
        }
    }
    drive.finish()
}

struct Drive<'a> {
    plan: &'a Plan,
    ledger: &'a mut Ledger,
    measured: Measured,
    fleet: Fleet,
    schedule: Option<Schedule>,
    /// Messages of all producers whose due time has been acted upon (open loop).
    released: u64,
    progress: Progress,
    /// No answer ends the run only after this.
    active_until_ns: u64,
    last_activity_ns: u64,
    checked_ns: u64,
    before: Option<Sample>,
    after: Option<Sample>,
    counting: Option<(Result<SyscallCount, String>, u64, u64)>,
    syscalls: Option<Result<SyscallFigure, String>>,
    is_stalled: bool,
}

impl<'a> Drive<'a> {
    fn connect(plan: &'a Plan, run: u32, ledger: &'a mut Ledger) -> Result<Self, BenchError> {
        let fleet = Fleet::connect(plan, run)?;
        let now = now_ns();
        Ok(Self {
            plan,
            ledger,
            measured: Measured::new(u64::MAX, u64::MAX),
            fleet,
            schedule: None,
            released: 0,
            progress: Progress::new(plan.is_quiet, now),
            active_until_ns: now,
            last_activity_ns: now,
            checked_ns: now,
            before: None,
            after: None,
            counting: None,
            syscalls: None,
            is_stalled: false,
        })
    }

    /// Subscribes, then starts the clock. When only consuming, the clock starts before.
    fn begin(&mut self) -> Result<(), BenchError> {
        if self.fleet.producers.is_empty() {
            self.start_clock();
        }
        if let Some(side) = &self.plan.consumption {
            for (number, consumer) in (0_u32..).zip(&mut self.fleet.consumers) {
                consumer.subscribe(self.plan.queue_of(number), &side.headers)?;
            }
        }
        if self.fleet.producers.is_empty() {
            return Ok(());
        }
        let give_up_ns = now_ns() + self.plan.answer_timeout.as_nanos() as u64;
        while !self
            .fleet
            .consumers
            .iter()
            .all(|consumer| consumer.is_subscribed)
        {
            self.turn()?;
            if now_ns() > give_up_ns {
                return Err(BenchError::Broken("SUBSCRIBE got no receipt".to_owned()));
            }
        }
        self.start_clock();
        self.send_all()
    }

    fn start_clock(&mut self) {
        let now = now_ns();
        let start_ns = now + self.plan.warmup.as_nanos() as u64;
        let end_ns = match self.plan.stop {
            Stop::In(length) => start_ns + length.as_nanos() as u64,
            Stop::After(_) | Stop::WhenEmpty => u64::MAX,
        };
        self.measured = Measured::new(start_ns, end_ns);
        self.last_activity_ns = now;
        self.progress.start_ns = now;
        let counting_ns = syscalls::COUNTING.as_nanos() as u64;
        let limit = match self.plan.stop {
            Stop::After(count) => Limit::Count(count),
            Stop::WhenEmpty => Limit::Count(0),
            Stop::In(_) if self.plan.counts_syscalls => Limit::Until {
                end_ns: end_ns + counting_ns,
            },
            Stop::In(_) => Limit::Until { end_ns },
        };
        if let Limit::Until { end_ns } = limit {
            self.active_until_ns = end_ns;
        }
        if let Some(side) = &self.plan.production {
            let producers = u64::from(side.producers);
            self.schedule = Some(Schedule::new(side.pace, limit, producers, now));
        }
        if now >= start_ns {
            self.before = Some(self.sample(now));
        }
    }

    /// One turn: sleep until something is ready or due, read, answer, send.
    fn turn(&mut self) -> Result<(), BenchError> {
        let timeout = self.timeout();
        let schedule = self.schedule.as_ref();
        let mut books = Books {
            ledger: &mut *self.ledger,
            measured: &mut self.measured,
        };
        if self.fleet.serve(&timeout, schedule, &mut books)? > 0 {
            self.last_activity_ns = now_ns();
        }
        self.pace()?;
        self.tick()
    }

    fn timeout(&self) -> Timespec {
        if self.plan.is_busy_polling || self.fleet.has_more() {
            return Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
        }
        let due_ns = self
            .schedule
            .as_ref()
            .and_then(|schedule| schedule.wake_ns(self.released));
        let sleep_ns = due_ns.map_or(TICK_NS, |due_ns| due_ns.saturating_sub(now_ns()));
        Timespec {
            tv_sec: 0,
            tv_nsec: sleep_ns.min(TICK_NS) as i64,
        }
    }

    /// Open loop: serves each producer that has a message newly due.
    fn pace(&mut self) -> Result<(), BenchError> {
        let Some(schedule) = &self.schedule else {
            return Ok(());
        };
        let Some(released) = schedule.released(now_ns()) else {
            return Ok(());
        };
        let first = self.released;
        self.released = released;
        if released > first {
            self.last_activity_ns = now_ns();
        }
        let producers = self.fleet.producers.len() as u64;
        if released - first >= producers {
            return self.send_all();
        }
        for index in first..released {
            self.send((index % producers) as usize)?;
        }
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), BenchError> {
        (0..self.fleet.producers.len()).try_for_each(|index| self.send(index))
    }

    fn send(&mut self, index: usize) -> Result<(), BenchError> {
        let mut books = Books {
            ledger: &mut *self.ledger,
            measured: &mut self.measured,
        };
        self.fleet.answer(index, self.schedule.as_ref(), &mut books)
    }

    /// What must not wait for the network: phases, delayed ACKs, the progress line.
    fn tick(&mut self) -> Result<(), BenchError> {
        let now = now_ns();
        if self.before.is_none() && now >= self.measured.start_ns {
            self.before = Some(self.sample(now));
        }
        if self.after.is_none() && now >= self.measured.end_ns {
            self.after = Some(self.sample(now));
            if let (true, Some(pid)) = (self.plan.counts_syscalls, self.plan.server_pid) {
                let count = SyscallCount::start(pid);
                let end_ns = now_ns() + syscalls::COUNTING.as_nanos() as u64;
                self.counting = Some((count, self.measured.confirmed_total, end_ns));
            }
        }
        if let Some((count, confirmed, _)) = self.counting.take_if(|(_, _, end_ns)| now >= *end_ns)
        {
            let messages = self.measured.confirmed_total - confirmed;
            self.syscalls = Some(count.and_then(|count| count.finish(messages)));
        }
        if now - self.checked_ns >= TICK_NS {
            self.checked_ns = now;
            for consumer in &mut self.fleet.consumers {
                consumer.settle(now, false)?;
            }
            let in_flight = self
                .fleet
                .producers
                .iter()
                .map(Producer::in_flight_count)
                .sum();
            self.progress.show(now, &self.measured, in_flight);
        }
        Ok(())
    }

    fn sample(&self, now: u64) -> Sample {
        Sample {
            time_ns: now,
            client_cpu_ns: host::own_cpu_ns(),
            server: self
                .plan
                .server_pid
                .and_then(|pid| ProcessUse::of(pid).ok()),
            confirmed: self.measured.confirmed_total,
            received: self.measured.received_total,
        }
    }

    fn is_over(&mut self) -> bool {
        let now = now_ns();
        if self.counting.is_some() {
            return false;
        }
        if self.is_complete(now) {
            return true;
        }
        let schedule = self.schedule.as_ref();
        let is_waiting_for_due = schedule.is_some_and(|s| s.wake_ns(self.released).is_some());
        let idle_ns = self.plan.idle.as_nanos() as u64;
        let is_quiet = now.saturating_sub(self.last_activity_ns) > idle_ns;
        if now < self.active_until_ns || is_waiting_for_due || !is_quiet {
            return false;
        }
        self.is_stalled = self.plan.stop != Stop::WhenEmpty;
        true
    }

    /// Says whether all that was asked for has been done.
    fn is_complete(&self, now: u64) -> bool {
        let is_settled = now.saturating_sub(self.last_activity_ns) >= SETTLE_NS;
        let Some(schedule) = &self.schedule else {
            return match self.plan.stop {
                Stop::After(count) => self.measured.received_total >= count,
                Stop::In(_) => now >= self.measured.end_ns,
                Stop::WhenEmpty => {
                    let is_known = self.ledger.counts().confirmed > 0;
                    is_known && self.ledger.missing_count() == 0 && is_settled
                }
            };
        };
        // The cheap question first: this is asked every turn.
        if now < self.active_until_ns {
            return false;
        }
        let is_produced = self
            .fleet
            .producers
            .iter()
            .all(|p| p.is_finished(schedule, now));
        let is_all_received = self.ledger.missing_count() == 0 && is_settled;
        is_produced && (self.fleet.consumers.is_empty() || is_all_received)
    }

    /// Settles what is owed, leaves politely and closes the books.
    fn finish(mut self) -> Result<Outcome, BenchError> {
        self.schedule = None;
        let mut books = Books {
            ledger: &mut *self.ledger,
            measured: &mut self.measured,
        };
        self.fleet.leave(&mut books)?;
        let give_up_ns = now_ns() + self.plan.answer_timeout.as_nanos() as u64;
        while !self.fleet.is_gone() && now_ns() < give_up_ns {
            self.turn()?;
        }
        let now = now_ns();
        let last = self.sample(now);
        let is_consuming_all = self.plan.consumption.is_some()
            && !matches!(
                (self.plan.stop, self.plan.production.is_some()),
                (Stop::After(_) | Stop::In(_), false)
            );
        Ok(Outcome {
            before: self.before.unwrap_or(last),
            after: self.after.unwrap_or(last),
            measured: self.measured,
            syscalls: self.syscalls,
            is_consumed_to_end: is_consuming_all,
            is_stalled: self.is_stalled,
            leave_violation: self.fleet.leave_violation(),
        })
    }
}
