//! The hosting half of a shard: its queues, its journal, its gate.
//!
//! A command comes in, is decided by the queue machine, becomes facts; facts are appended and
//! evolve; their effects wait in the gate; released ones become replies. It does not know whether
//! the connection it answers is on this core.
//!
//! Invariants: a command is taken only when its records fit ([`Host::admits`]); what does not fit
//! although it may always come (a connection that is gone) waits in `deferred` and holds back
//! every later control command.

mod answer;
mod browse;
mod confirm;
mod consume;
mod deliver;
mod depart;
mod due;
mod examine;
mod expire;
mod filters;
mod follow;
mod full;
mod gather;
mod idle;
mod keys;
mod meter;
mod moved;
mod operate;
mod produce;
mod recall;
mod relocate;
mod room;
mod slow;
mod space;
mod transact;
mod trim;

use std::collections::VecDeque;

use forebay_journal::format::{MessageFlags, Record};
use forebay_journal::reader::Owner;
use forebay_journal::storage::{BlockWrite, IoFailure, WriteDone};
use forebay_journal::{AppendError, Budget, Lsn, MessageId, QueueId, Writer};
use rustc_hash::FxHashMap;

use filters::Filters;

use super::ConnectionId;
use super::admin::{AdminAnswer, AdminAsk};
use super::bodies::VolatileBodies;
use super::cold::{ColdBlocks, ColdFailure};
use super::gate::Gate;
use super::link::{Delivery, Link, Taker, Text};
use crate::frontend::{
    Command, Ending, Order, Refusal, Reply, Report, SubscribeCommand, Subscription, Verdict,
};
use crate::now::Now;
use crate::queue::{Decision, Effect, Fact, Machine, Place, Return, Routed, Selection};

/// Records of one message command: rewritten head, part of a body, queue ids, a definition.
const MESSAGE_ROOM: usize = 200 * 1024;
/// Records of one step of a control command.
const CONTROL_ROOM: usize = 48 * 1024;

/// Which budget a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// (Part of) a message.
    Message,
    /// Everything else: goes on when messages have to wait.
    Control,
}

/// Takes the replies of a host.
pub(super) trait Replies {
    /// Passes a reply on; `delivered_bytes` counts against the connection's window.
    fn reply(&mut self, to: ConnectionId, reply: &Reply<&[u8]>, delivered_bytes: u64);
}

/// Effects in the gate.
#[derive(Debug)]
enum Parked {
    Receipt {
        link: ConnectionId,
        receipt: Text,
        /// When its message came, if it is that of one.
        sent_us: Option<u64>,
    },
    Deliver(Delivery),
    Answered {
        link: ConnectionId,
        existed: bool,
    },
    Reported {
        link: ConnectionId,
        transaction: u64,
        report: Report,
    },
    Synced {
        link: ConnectionId,
    },
    Freed,
    Told(AdminAnswer),
    Deleted {
        link: ConnectionId,
        address: Text,
    },
}

/// A control command whose records did not all fit.
#[derive(Debug)]
enum Deferred {
    Settle {
        link: ConnectionId,
        subscription: Subscription,
        selection: Selection,
        verdict: Verdict,
        transaction: u64,
        receipt: Option<Text>,
    },
    Order {
        link: ConnectionId,
        transaction: u64,
        order: Order,
    },
    Subscribe {
        link: ConnectionId,
        command: Box<SubscribeCommand<Text>>,
    },
    Unsubscribe {
        link: ConnectionId,
        subscription: Subscription,
        ending: Ending,
        receipt: Option<Text>,
    },
    Forget {
        link: ConnectionId,
        name: Text,
        for_shared: Option<bool>,
        receipt: Option<Text>,
    },
    AbandonSend {
        link: ConnectionId,
    },
    Departed {
        queue: QueueId,
        message: MessageId,
    },
    Sync {
        link: ConnectionId,
    },
    Detach {
        link: ConnectionId,
        is_last: bool,
        given_back: Return,
    },
    Hangup {
        link: ConnectionId,
    },
}

impl Deferred {
    /// The command, owned; none for those that never wait.
    fn of(link: ConnectionId, command: &Command<&[u8]>) -> Option<Self> {
        Some(match *command {
            Command::Unsubscribe {
                subscription,
                ending,
                receipt,
            } => Self::Unsubscribe {
                link,
                subscription,
                ending,
                receipt: receipt.map(Text::new),
            },
            Command::Forget {
                name,
                for_shared,
                receipt,
            } => Self::Forget {
                link,
                name: Text::new(name),
                for_shared,
                receipt: receipt.map(Text::new),
            },
            Command::Settle {
                subscription,
                selection,
                verdict,
                transaction,
                receipt,
            } => Self::Settle {
                link,
                subscription,
                selection,
                verdict,
                transaction,
                receipt: receipt.map(Text::new),
            },
            Command::AbandonSend => Self::AbandonSend { link },
            Command::Sync => Self::Sync { link },
            Command::Detach {
                is_last,
                given_back,
            } => Self::Detach {
                link,
                is_last,
                given_back,
            },
            Command::Hangup => Self::Hangup { link },
            _ => return None,
        })
    }
}

/// Why the shard has to stop: the world's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A journal write failed.
    Write(IoFailure),
    /// A block that messages lie in cannot be read back, or is not sound.
    Read(ColdFailure),
    /// Housekeeping failed.
    Housekeeping(String),
    /// The journal holds a selector that is none.
    Selector(UnsoundSelector),
}

/// What the host answers to a message that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Go on.
    Yes,
    /// It waits until memory for messages that are not durable has room; so must its sender.
    YesButWait,
}

pub(super) struct Host {
    shard: u16,
    pub(super) machine: Machine,
    pub(super) writer: Writer,
    gate: Gate<Parked>,
    bodies: VolatileBodies,
    cold: ColdBlocks,
    links: FxHashMap<ConnectionId, Link>,
    /// Links with followers of each followed queue, one entry for each follower.
    following: FxHashMap<QueueId, Vec<ConnectionId>>,
    pumping: VecDeque<ConnectionId>,
    waiting_for_disk: Vec<ConnectionId>,
    deferred: VecDeque<Deferred>,
    /// What the admin side asked for and is not done yet, in order: no more than it may ask.
    operations: VecDeque<(u64, AdminAsk)>,
    /// Answers to the admin side.
    told: VecDeque<AdminAnswer>,
    /// Whether another of them can be done in the next turn.
    has_more_to_operate: bool,
    /// Whether the last turn handed out as much as a turn may.
    has_more_to_dispatch: bool,
    /// Whether the last turn looked at as many messages for selectors as a turn may.
    has_more_to_examine: bool,
    /// Whether the last turn dropped as much as a turn may.
    has_more_to_expire: bool,
    /// Whether the last turn made as many messages ready as a turn may.
    has_more_due: bool,
    /// Whether the last turn dropped as many that are one too many as a turn may.
    has_more_to_trim: bool,
    /// Who waits for room, and what was done about it.
    asking: room::Asking,
    slow_looks: slow::SlowLooks,
    window_bytes: u64,
    message_size_max: u64,
    decision: Decision,
    routed: Routed,
    effects: Vec<Effect>,
    /// Replies that need no gate, made while a command ran.
    answers: VecDeque<(ConnectionId, Answer)>,
    failure: Option<Failure>,
    /// The wall clock, as of what came last.
    now_unix_ms: u64,
    /// Whether the last record of the epoch is written: nothing may follow it.
    is_sealed: bool,
    space: space::Space,
    departures: depart::Departures,
    filters: Filters,
    recall: recall::Recall,
    relocation: relocate::Relocation,
    stats: HostStats,
    meter: meter::Meter,
}

#[derive(Debug)]
enum Answer {
    Receipt(Text),
    Refused {
        refusal: Refusal,
        about: Option<Text>,
        receipt: Option<Text>,
    },
    Answered {
        existed: bool,
    },
    Reported {
        transaction: u64,
        report: Report,
    },
    Synced,
    Hold,
    Resume,
}

/// Sizes of a host.
#[derive(Clone, Copy, Debug)]
pub struct HostLimits {
    /// Bytes for bodies of messages that are not durable.
    pub volatile_max_bytes: u64,
    /// Bytes of deliveries on their way to one connection's socket.
    pub window_bytes: u64,
    /// Largest body of a message.
    pub message_size_max: u64,
    /// Segments to keep prepared.
    pub segments_ready: usize,
    /// What becomes of messages while the disk is full.
    pub disk_full: DiskFull,
    /// How much is written anew so that segments can be freed.
    pub relocation: RelocationLimits,
}

impl Host {
    pub(super) fn new(
        owner: Owner,
        machine: Machine,
        writer: Writer,
        segments: Segments,
        limits: HostLimits,
        forwarder: ConnectionId,
    ) -> Self {
        let (filters, failure) = match Filters::of(&machine) {
            Ok(filters) => (filters, None),
            Err(unsound) => (Filters::default(), Some(Failure::Selector(unsound))),
        };
        Self {
            shard: owner.shard.0,
            gate: Gate::new(writer.durable_end()),
            machine,
            writer,
            bodies: VolatileBodies::new(limits.volatile_max_bytes),
            cold: ColdBlocks::new(owner),
            links: FxHashMap::default(),
            following: FxHashMap::default(),
            pumping: VecDeque::new(),
            waiting_for_disk: Vec::new(),
            deferred: VecDeque::new(),
            operations: VecDeque::new(),
            told: VecDeque::new(),
            has_more_to_operate: false,
            has_more_to_dispatch: false,
            has_more_to_examine: false,
            has_more_to_expire: false,
            has_more_due: false,
            has_more_to_trim: false,
            asking: room::Asking::default(),
            slow_looks: slow::SlowLooks::default(),
            window_bytes: limits.window_bytes,
            message_size_max: limits.message_size_max,
            decision: Decision::new(),
            routed: Routed::new(),
            effects: Vec::new(),
            answers: VecDeque::new(),
            failure,
            now_unix_ms: 0,
            is_sealed: false,
            space: space::Space::new(segments, limits.segments_ready, limits.disk_full),
            departures: depart::Departures::new(forwarder),
            filters,
            recall: recall::Recall::default(),
            relocation: relocate::Relocation::new(owner, limits.relocation),
            stats: HostStats::default(),
            meter: meter::Meter::new(),
        }
    }

    /// Whether a command of this lane can be taken now.
    pub(super) fn admits(&self, lane: Lane) -> bool {
        let (room, budget) = match lane {
            Lane::Message => (MESSAGE_ROOM, Budget::Message),
            Lane::Control => (CONTROL_ROOM, Budget::Control),
        };
        let is_held_back = lane == Lane::Control && !self.deferred.is_empty();
        let is_open = self.failure.is_none() && !self.is_sealed;
        !is_held_back && is_open && self.writer.check(room, budget).is_ok()
    }

    /// Takes a command of the connection `link`; it was admitted, or is refused
    /// ([`Host::takes`]).
    pub(super) fn handle(
        &mut self,
        link: ConnectionId,
        command: &Command<&[u8]>,
        now: Now,
    ) -> Taken {
        // What still comes from connections that close was not promised to anybody.
        if self.is_sealed {
            return Taken::Yes;
        }
        self.now_unix_ms = now.unix_ms;
        self.meter.begin(now);
        match *command {
            Command::Send(ref send) => {
                if !self.refuse_send(link, send) {
                    return self.send(link, send, now);
                }
            }
            Command::SendPart(part) => {
                self.refuse_upload(link, part.copy);
                return self.send_part(link, &part, now);
            }
            Command::Subscribe(ref subscribe) => self.subscribe(link, subscribe),
            Command::Begin { receipt, .. } => {
                self.confirm(link, Lsn::ZERO, receipt.map(Text::new));
            }
            Command::Order(ordered) => self.take_order(link, ordered),
            Command::Drained { bytes } => self.drained(link, bytes),
            Command::Departed { tag, is_taken } => self.departed(tag, is_taken),
            _ => {
                if let Some(command) = Deferred::of(link, command) {
                    self.run(command);
                }
            }
        }
        Taken::Yes
    }

    /// Runs a control command, or keeps it for later if its records do not all fit now.
    fn run(&mut self, command: Deferred) {
        if !self.deferred.is_empty() || self.try_run(&command).is_err() {
            self.deferred.push_back(command);
        }
    }

    fn try_run(&mut self, command: &Deferred) -> Result<(), AppendError> {
        match command {
            Deferred::Settle {
                link,
                subscription,
                selection,
                verdict,
                transaction,
                receipt,
            } => {
                let answer = (*verdict, *transaction);
                self.settle(*link, *subscription, *selection, answer, receipt.as_ref())
            }
            Deferred::Order {
                link,
                transaction,
                order,
            } => self.carry_out(*link, *transaction, *order),
            Deferred::Subscribe { link, command } => self.subscribe_late(*link, command),
            Deferred::Unsubscribe {
                link,
                subscription,
                ending,
                receipt,
            } => self.unsubscribe(*link, *subscription, *ending, receipt.as_ref()),
            Deferred::Forget {
                link,
                name,
                for_shared,
                receipt,
            } => self.forget(*link, name, *for_shared, receipt.as_ref()),
            Deferred::AbandonSend { link } => self.abandon_uploads(*link),
            Deferred::Departed { queue, message } => self.leave_queue(*queue, *message),
            Deferred::Sync { link } => {
                self.sync(*link);
                Ok(())
            }
            Deferred::Detach {
                link,
                is_last,
                given_back,
            } => self.detach(*link, *is_last, *given_back),
            Deferred::Hangup { link } => self.hang_up(*link),
        }
    }

    fn run_deferred(&mut self) {
        while let Some(command) = self.deferred.pop_front() {
            if self.try_run(&command).is_err() {
                return self.deferred.push_front(command);
            }
        }
    }

    fn link(&mut self, link: ConnectionId) -> &mut Link {
        self.links.entry(link).or_default()
    }

    /// Makes all facts of `self.decision` true, in order.
    ///
    /// Returns the LSN of the last journaled one, or zero. On an error those before it are true;
    /// decide again to get the rest.
    fn commit_decision(&mut self) -> Result<Lsn, AppendError> {
        let mut last = Lsn::ZERO;
        let decision = std::mem::take(&mut self.decision);
        let result = decision.facts().try_for_each(|fact| {
            last = self.commit(&fact, Place::NONE)?.max(last);
            Ok(())
        });
        self.decision = decision;
        result.map(|()| last)
    }

    /// Appends the fact if it is to be journaled, and makes it true; `place` is where it lies if
    /// it is not.
    fn commit(&mut self, fact: &Fact<'_>, place: Place) -> Result<Lsn, AppendError> {
        let (lsn, place) = if fact.is_journaled {
            let appended = self.writer.append(&fact.record, Budget::Control)?;
            self.relocation.note_ingested(&fact.record);
            (appended.lsn, Place::Journal(appended.location))
        } else {
            (Lsn::ZERO, place)
        };
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.evolve(fact, place, &mut effects);
        for effect in effects.drain(..) {
            self.handle_effect(effect, lsn);
        }
        self.effects = effects;
        if let Record::QueueDelete { queue } = fact.record {
            self.filters.forget(queue);
        }
        Ok(lsn)
    }

    fn handle_effect(&mut self, effect: Effect, lsn: Lsn) {
        match effect {
            Effect::Deliver {
                link,
                consumer,
                consumer_tag,
                delivery_tag,
                queue,
                message,
                place,
                attempts,
                is_redelivered,
                is_group_first,
                settlement,
                ..
            } => self.park_delivery(
                self.lsn_of_delivery(lsn, place),
                Delivery {
                    link: ConnectionId(link),
                    subscription: Subscription(consumer_tag as u32),
                    taker: Taker::Consumer(consumer, settlement),
                    delivery_tag,
                    message,
                    place,
                    attempts,
                    is_redelivered,
                    first_of: is_group_first.then_some(queue),
                },
            ),
            Effect::Detached {
                link,
                consumer,
                consumer_tag,
            } => {
                self.filters.part(consumer);
                if let Some(link) = self.links.get_mut(&ConnectionId(link)) {
                    link.remove(Subscription(consumer_tag as u32));
                }
            }
            Effect::Matched {
                link,
                gathering,
                queue,
            } => self.gather_queue(ConnectionId(link), gathering, queue),
            Effect::Hold { slot } => self.bodies.hold(slot),
            Effect::Forget { slot } => self.bodies.forget(slot),
            Effect::Arrived { queue, message } => self.note_arrival(queue, message),
        }
    }

    /// A delivery waits for its own record, and never overtakes an earlier one of its connection.
    fn park_delivery(&mut self, lsn: Lsn, delivery: Delivery) {
        let Some(link) = self.links.get_mut(&delivery.link) else {
            return;
        };
        if lsn == Lsn::ZERO && link.parked_count == 0 {
            link.deliveries.push_back(delivery);
            self.wake_link(delivery.link);
        } else {
            link.parked_count += 1;
            self.gate.park(lsn, Parked::Deliver(delivery));
        }
    }

    fn wake_link(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(&id)
            && !link.is_pumping
        {
            link.is_pumping = true;
            self.pumping.push_back(id);
        }
    }

    /// Lets go of every effect whose LSN is durable.
    fn release(&mut self, replies: &mut impl Replies) {
        self.gate.advance(self.writer.durable_end());
        while let Some(parked) = self.gate.release() {
            match parked {
                Parked::Receipt {
                    link,
                    receipt,
                    sent_us,
                } => {
                    if let Some(sent_us) = sent_us {
                        self.meter.confirmed(sent_us);
                    }
                    replies.reply(
                        link,
                        &Reply::Receipt {
                            receipt: receipt.bytes(),
                        },
                        0,
                    );
                }
                Parked::Deliver(delivery) => {
                    if let Some(link) = self.links.get_mut(&delivery.link) {
                        link.parked_count -= 1;
                        link.deliveries.push_back(delivery);
                        self.wake_link(delivery.link);
                    }
                }
                Parked::Answered { link, existed } => {
                    replies.reply(link, &Reply::Answered { existed }, 0);
                }
                Parked::Reported {
                    link,
                    transaction,
                    report,
                } => {
                    let reply = Reply::Reported {
                        transaction,
                        report,
                    };
                    replies.reply(link, &reply, 0);
                }
                Parked::Synced { link } => replies.reply(link, &Reply::Synced, 0),
                Parked::Freed => self.note_freed(),
                Parked::Told(answer) => self.told.push_back(answer),
                Parked::Deleted { link, address } => {
                    let deleted = Reply::Refused {
                        refusal: Refusal::QueueDeleted,
                        about: Some(address.bytes()),
                        receipt: None,
                    };
                    replies.reply(link, &deleted, 0);
                }
            }
        }
        self.give_answers(replies);
    }

    /// Passes on the replies that need no gate.
    fn give_answers(&mut self, replies: &mut impl Replies) {
        while let Some((link, answer)) = self.answers.pop_front() {
            let reply = match &answer {
                Answer::Receipt(receipt) => Reply::Receipt {
                    receipt: receipt.bytes(),
                },
                Answer::Refused {
                    refusal,
                    about,
                    receipt,
                } => {
                    self.stats.count_refusal(refusal);
                    Reply::Refused {
                        refusal: *refusal,
                        about: about.as_ref().map(Text::bytes),
                        receipt: receipt.as_ref().map(Text::bytes),
                    }
                }
                Answer::Answered { existed } => Reply::Answered { existed: *existed },
                &Answer::Reported {
                    transaction,
                    report,
                } => Reply::Reported {
                    transaction,
                    report,
                },
                Answer::Synced => Reply::Synced,
                Answer::Hold => Reply::Hold,
                Answer::Resume => Reply::Resume,
            };
            replies.reply(link, &reply, 0);
        }
    }

    /// The end of a turn: dispatch, free space, release, pass deliveries on.
    ///
    /// `is_stopping`: nothing is handed out any more, so that what one connection gives back is
    /// not delivered to another that closes next.
    pub(super) fn finish_turn(&mut self, is_stopping: bool, now: Now, replies: &mut impl Replies) {
        self.now_unix_ms = now.unix_ms;
        self.meter.begin(now);
        if !self.is_sealed {
            self.run_deferred();
            self.reclaim();
        }
        if is_stopping || self.is_sealed {
            self.give_up_operations();
            self.relocation.has_more = false;
        }
        if !is_stopping {
            self.expire(now);
            self.wake_due(now);
            self.depart();
            self.operate();
            self.look_at_consumers(now, replies);
            // What is one too many is not handed out.
            if self.trim() {
                self.examine();
                self.dispatch(now);
            }
            self.delete_idle(now);
            self.relocate(now);
            self.finish_room(replies);
        }
        self.release(replies);
        self.pump(replies);
    }

    /// Whether the next turn has work without any input.
    pub(super) fn has_work(&self) -> bool {
        self.has_more_to_dispatch
            || self.has_more_to_examine
            || self.has_more_to_operate
            || self.has_more_to_expire
            || self.has_more_due
            || self.has_more_to_trim
            || self.space.has_more_to_say()
            || self.relocation.has_more
            || !self.answers.is_empty()
            || !self.pumping.is_empty()
    }

    pub(super) fn poll_write(&mut self, now: Now) -> Option<BlockWrite> {
        let write = self.writer.poll_write(now.unix_ms)?;
        self.meter.write_begins(&write, now);
        Some(write)
    }

    pub(super) fn handle_write_done(&mut self, done: WriteDone, now: Now) {
        self.meter.write_ends(done.ticket, now);
        if let Err(failure) = self.writer.handle_write_done(done, now.monotonic_us) {
            self.fail(Failure::Write(failure));
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Writes the record of an orderly end; nothing follows it.
    ///
    /// Errors: no room (a full disk): all is durable, only this piece of evidence is missing.
    pub(super) fn seal(&mut self, now: Now) -> Result<(), AppendError> {
        self.is_sealed = true;
        let record = Record::CleanShutdown {
            unix_ms: now.unix_ms,
        };
        self.writer.append(&record, Budget::Control).map(|_| ())
    }

    /// Whether everything asked for is durable and answered.
    pub(super) fn is_settled(&self) -> bool {
        self.writer.is_drained() && self.gate.is_empty() && self.deferred.is_empty()
    }

    pub(super) fn links(&self) -> impl Iterator<Item = (&ConnectionId, &Link)> {
        self.links.iter()
    }

    pub(super) fn is_pumping(&self, link: ConnectionId) -> bool {
        self.pumping.contains(&link)
    }

    /// Links of the deliveries in the gate.
    pub(super) fn parked_deliveries(&self) -> impl Iterator<Item = ConnectionId> {
        self.gate.parked().filter_map(|parked| match parked {
            Parked::Deliver(delivery) => Some(delivery.link),
            _ => None,
        })
    }

    pub(super) fn volatile_bytes(&self) -> u64 {
        self.bodies.used_bytes()
    }

    pub(super) fn stats(&self) -> HostStats {
        self.stats
    }
}

/// Flags of a message as they are journaled.
fn flags(has_content_length: bool, is_durable: bool) -> MessageFlags {
    MessageFlags {
        has_content_length,
        is_durable,
        has_own_expiry: false,
    }
}

pub use filters::{UnsoundSelector, check_selectors};
pub(super) use follow::Follower;
pub use full::DiskFull;
pub(super) use gather::Gathered;
pub use meter::{HostMeasures, HostStats, REFUSAL_REASONS};
pub use moved::SpaceStats;
pub use relocate::RelocationLimits;
pub(super) use space::Segments;
