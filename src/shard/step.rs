//! Connections: input to commands, replies to output, and the turn that carries both.

use forebay_journal::{FreedSegments, ShardId};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

use super::commit::{Commits, Outcome};
use super::connection::{Connection, Pause, Phase};
use super::errand::Errand;
use super::host::{Lane, Replies, Taken};
use super::mailbox::Content;
use super::peers::Peers;
use super::slow::session_start;
use super::transactions::Taking;
use super::{Action, ConnectionId, Parcel, ParcelLane, Shard};
use crate::frontend::stomp::{Session, Wire};
use crate::frontend::{Command, Frontend, Ordered, Refusal, Reply, Step, Timeout};
use crate::limits::RECEIVE_BUFFER_SIZE_BYTES;
use crate::now::Now;
use crate::queue::Return;

/// Passes replies to connections of this shard, or into a peer's parcel.
struct Outbox<'a> {
    own: ShardId,
    connections: &'a mut FxHashMap<ConnectionId, Connection>,
    dirty: &'a mut VecDeque<ConnectionId>,
    answered: &'a mut VecDeque<ConnectionId>,
    commits: &'a mut Commits,
    actions: &'a mut VecDeque<Action>,
    node: &'a str,
    peers: &'a mut Peers,
}

impl Replies for Outbox<'_> {
    fn reply(&mut self, to: ConnectionId, reply: &Reply<&[u8]>, delivered_bytes: u64) {
        if to.shard() != self.own {
            let outgoing = self.peers.outgoing(to.shard());
            return outgoing.push_reply(to, reply, delivered_bytes);
        }
        if let Reply::Reported {
            transaction,
            report,
        } = *reply
        {
            return self.commits.take(transaction, report);
        }
        let Some(connection) = self.connections.get_mut(&to) else {
            return;
        };
        if let Reply::Slow(slow) = reply {
            let report = connection.note_slow(to, self.node, slow);
            self.actions.push_back(Action::Warn(Box::new(report)));
        }
        if take_reply(connection, self.own, reply, delivered_bytes) {
            self.answered.push_back(to);
        }
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push_back(to);
        }
    }
}

/// What a reply means to its connection. Returns whether its errand can go on.
pub(super) fn take_reply(
    connection: &mut Connection,
    from: ShardId,
    reply: &Reply<&[u8]>,
    bytes: u64,
) -> bool {
    match *reply {
        Reply::Hold => connection.held_by.push(from),
        Reply::Resume => connection.held_by.retain(|of| *of != from),
        Reply::Answered { .. } => return connection.note_answer(reply),
        _ => {
            let is_answer = connection.note_answer(reply);
            pass_reply(connection, from, reply, bytes);
            return is_answer;
        }
    }
    false
}

/// Passes a reply on to the client.
fn pass_reply(connection: &mut Connection, from: ShardId, reply: &Reply<&[u8]>, bytes: u64) {
    let is_last = match &mut connection.phase {
        // It does not go into the socket, so it must not count as handed over: the host would
        // settle what nobody got.
        Phase::Closing => return,
        Phase::Leaving { syncs } if *syncs > 0 && matches!(reply, Reply::Synced) => {
            *syncs -= 1;
            *syncs == 0
        }
        Phase::Open | Phase::Leaving { .. } => false,
    };
    if is_last {
        let receipt = connection.goodbye.as_slice();
        if !receipt.is_empty() {
            let receipt = Reply::Receipt { receipt };
            connection
                .frontend
                .handle_reply(&receipt, &mut connection.output);
        }
    } else if !connection
        .frontend
        .handle_reply(reply, &mut connection.output)
    {
        connection.phase = Phase::Closing;
    }
    connection.count_delivered(from, bytes);
    // The receipt comes behind the body under way.
    let has_said_all = connection.phase == Phase::Leaving { syncs: 0 };
    if has_said_all && !connection.frontend.is_amid_body() {
        connection.phase = Phase::Closing;
    }
}

/// What one step of reading came to.
pub(super) enum Progress {
    /// Go on with this many bytes done.
    Consumed(usize),
    /// Go on when more came.
    Starved(usize),
    /// Go on later.
    Paused(usize, Pause),
    /// The client said goodbye, with this receipt (empty for none).
    Goodbye(Vec<u8>),
    /// The client broke the protocol; it was told.
    Broken,
    /// Nothing more is read.
    Ended,
}

impl Progress {
    const fn quiet(consumed: usize, is_starved: bool) -> Self {
        if is_starved {
            Self::Starved(consumed)
        } else {
            Self::Consumed(consumed)
        }
    }

    /// What follows a command, which may have begun an errand.
    fn after(consumed: usize, pause: Option<Pause>, errand: Option<&Errand>) -> Self {
        match (pause, errand) {
            (Some(pause), _) => Self::Paused(consumed, pause),
            (None, Some(_)) => Self::Paused(consumed, Pause::Errand),
            (None, None) => Self::Consumed(consumed),
        }
    }
}

impl Shard {
    /// A client connected.
    pub fn handle_connected(&mut self, now: Now) -> ConnectionId {
        let id = ConnectionId::new(self.id, self.next_connection);
        self.next_connection += 1;
        // The time sets it apart from those of the broker's lives before.
        let name = format!("{}-{}", session_start(&self.node, id), now.unix_ms);
        let session = Session::new(std::rc::Rc::clone(&self.stomp), name, self.shard_count, now);
        let connection = Connection::new(Frontend::Stomp(Box::new(Wire::new(session))));
        self.connections.insert(id, connection);
        self.enter_timer(id);
        if self.is_stopping() {
            self.break_off(id, None);
        }
        id
    }

    /// Bytes came in. They are consumed or copied before this returns.
    pub fn handle_received(&mut self, id: ConnectionId, bytes: &[u8], now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.frontend.note_received(now);
        if connection.phase != Phase::Open {
            return;
        }
        if connection.pause.is_some() || !connection.input.is_empty() {
            connection.input.extend_from_slice(bytes);
            if connection.pause.is_none() {
                self.read_kept_input(id, now);
            }
            return;
        }
        let consumed = self.read_input(id, bytes, now);
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.phase == Phase::Open
        {
            connection.input.extend_from_slice(&bytes[consumed..]);
        }
    }

    fn read_kept_input(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut input = std::mem::take(&mut connection.input);
        let consumed = self.read_input(id, &input, now);
        if let Some(connection) = self.connections.get_mut(&id) {
            input.drain(..consumed);
            // What a long frame once needed is not kept for good.
            if !input.is_empty() || input.capacity() as u64 <= RECEIVE_BUFFER_SIZE_BYTES {
                connection.input = input;
            }
        }
    }

    /// Reads as far as it can; returns the bytes consumed.
    fn read_input(&mut self, id: ConnectionId, input: &[u8], now: Now) -> usize {
        let mut at = 0;
        loop {
            match self.read_step(id, &input[at..], now) {
                Progress::Consumed(count) => at += count,
                Progress::Starved(count) => {
                    at += count;
                    break;
                }
                Progress::Paused(count, pause) => {
                    at += count;
                    self.pause(id, pause, now);
                    break;
                }
                Progress::Goodbye(receipt) => {
                    self.leave(id, receipt, Return::Unused, now);
                    return input.len();
                }
                Progress::Broken => {
                    self.broken_count += 1;
                    self.set_closing(id);
                    return input.len();
                }
                Progress::Ended => return input.len(),
            }
        }
        self.enter_timer(id);
        at
    }

    /// The lane of what comes next, if it may be read.
    fn lane_of_next(&self, id: ConnectionId, input: &[u8]) -> Result<Lane, Progress> {
        let Some(connection) = self.connections.get(&id) else {
            return Err(Progress::Ended);
        };
        if connection.phase != Phase::Open {
            return Err(Progress::Ended);
        }
        if input.is_empty() && !connection.frontend.has_kept_input() {
            return Err(Progress::Starved(0));
        }
        if let Some(pause) = connection.must_wait(self.window_bytes) {
            return Err(Progress::Paused(0, pause));
        }
        let lane = if connection.frontend.is_message_next(input) {
            Lane::Message
        } else {
            Lane::Control
        };
        if !self.host.takes(id, lane) || self.is_stopping() {
            return Err(Progress::Paused(0, Pause::Space));
        }
        Ok(lane)
    }

    fn read_step(&mut self, id: ConnectionId, input: &[u8], now: Now) -> Progress {
        let lane = match self.lane_of_next(id, input) {
            Ok(lane) => lane,
            Err(progress) => return progress,
        };
        // Taken apart, so that a command may borrow the front end while the host takes it.
        let Self {
            connections,
            host,
            peers,
            dirty,
            commits,
            ..
        } = self;
        let Some(connection) = connections.get_mut(&id) else {
            return Progress::Ended;
        };
        let Connection {
            frontend,
            output,
            routing,
            errand,
            transactions,
            is_dirty,
            ..
        } = connection;
        let before = output.len();
        let mut step = frontend.handle_input(input, now, output);
        if output.len() > before && !*is_dirty {
            *is_dirty = true;
            dirty.push_back(id);
        }
        // By reference: a command is large, and every message is one.
        match &mut step {
            Step::Quiet {
                consumed,
                is_starved,
            } => Progress::quiet(*consumed, *is_starved),
            Step::Goodbye { receipt } => Progress::Goodbye(receipt.to_vec()),
            Step::Broken => Progress::Broken,
            Step::Command { consumed, command } => {
                let consumed = *consumed;
                let shard = routing.shard_of(command, self.id, self.shard_count);
                if let Some(unserved) = peers.unserved(command, shard, routing) {
                    return self.refuse_unserved(id, &unserved, consumed);
                }
                let due_us = now.monotonic_us + self.transaction_timeout_us;
                let draw = || (host.draw_transaction(), due_us);
                match transactions.take(command, (shard, lane), draw) {
                    Taking::Pass => {}
                    Taking::Unknown => return Progress::Broken,
                    Taking::End(open, end) => {
                        commits.begin(id, open, end);
                        return Progress::Paused(consumed, Pause::Errand);
                    }
                }
                *errand = Errand::of(command, shard);
                let pause = if shard == self.id {
                    let taken = host.handle(id, command, now);
                    let waits = taken == Taken::YesButWait && command.is_message();
                    waits.then_some(Pause::Memory)
                } else {
                    peers.outgoing(shard).push_command(lane, id, *command);
                    (!peers.admits(shard, lane)).then_some(Pause::Peer(shard, lane))
                };
                Progress::after(consumed, pause, errand.as_ref())
            }
        }
    }

    /// Asks every shard that knows the connection whether all is durable; the receipt and the
    /// close follow when all have answered.
    fn leave(&mut self, id: ConnectionId, receipt: Vec<u8>, given_back: Return, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        // The own host is always asked, so that somebody answers.
        connection.routing.knows(self.id);
        let known = connection.routing.known().to_vec();
        // A peer hears it in both lanes, so that it answers behind everything asked before.
        let syncs = known
            .iter()
            .map(|&shard| if shard == self.id { 1 } else { 2 })
            .sum();
        connection.phase = Phase::Leaving { syncs };
        connection.goodbye = receipt;
        for shard in known {
            let is_last = false;
            let detach = Command::Detach {
                is_last,
                given_back,
            };
            if shard == self.id {
                self.host.handle(id, &detach, now);
                self.host.handle(id, &Command::Sync, now);
            } else {
                let outgoing = self.peers.outgoing(shard);
                // Else its own messages could wait for memory that its own consumers hold.
                outgoing.push_command(Lane::Control, id, detach);
                outgoing.push_command(Lane::Message, id, Command::Sync);
                outgoing.push_command(Lane::Control, id, Command::Sync);
            }
        }
    }

    fn pause(&mut self, id: ConnectionId, pause: Pause, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.pause = Some(pause);
        if !connection.is_waiting {
            connection.is_waiting = true;
            self.waiting.push_back(id);
        }
        let is_read = !connection.frontend.is_looped_back();
        if is_read && !connection.is_reading_stopped {
            connection.is_reading_stopped = true;
            connection.frontend.set_reading(false, now);
            self.actions.push_back(Action::StopReading(id));
        }
    }

    /// Lets those who wait try again, in turn.
    fn resume_waiting(&mut self, now: Now) {
        for _ in 0..self.waiting.len() {
            let Some(id) = self.waiting.pop_front() else {
                return;
            };
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            let can_go_on = match connection.pause {
                None => true,
                Some(Pause::Output | Pause::Held | Pause::Errand) => {
                    connection.must_wait(self.window_bytes).is_none()
                }
                Some(Pause::Memory) => self.host.may_go_on(id, now),
                Some(Pause::Peer(shard, lane)) => self.peers.admits(shard, lane),
                Some(Pause::Space) => self.host.admits(Lane::Control),
            };
            if !can_go_on {
                self.waiting.push_back(id);
                continue;
            }
            connection.is_waiting = false;
            connection.pause = None;
            self.read_kept_input(id, now);
            if let Some(connection) = self.connections.get_mut(&id)
                && connection.pause.is_none()
                && connection.is_reading_stopped
                && !connection.frontend.is_looped_back()
            {
                connection.is_reading_stopped = false;
                connection.frontend.set_reading(true, now);
                self.actions.push_back(Action::Read(id));
                if connection.is_ended && connection.phase == Phase::Open {
                    self.leave(id, Vec::new(), Return::Failed, now);
                }
            }
        }
    }

    /// Everything given to [`Action::Send`] went into the socket, or it failed.
    pub fn handle_sent(&mut self, id: ConnectionId, buffer: Vec<u8>, is_ok: bool, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.is_sending = false;
        connection.spare = buffer;
        connection.spare.clear();
        connection.frontend.note_sent(now);
        let delivered = std::mem::take(&mut connection.delivered_sending);
        if !is_ok {
            connection.phase = Phase::Closing;
            connection.output.clear();
        } else {
            for &(shard, bytes) in &delivered {
                let command = Command::Drained { bytes };
                if shard == self.id {
                    self.host.handle(id, &command, now);
                } else {
                    self.peers
                        .outgoing(shard)
                        .push_command(Lane::Control, id, command);
                }
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.delivered_sending = delivered;
            connection.delivered_sending.clear();
        }
        self.enter_timer(id);
        self.mark_dirty(id);
    }

    /// The connection is gone: its socket ended, or [`Action::Close`] was done.
    pub fn handle_closed(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        // Before its shards hear that it is gone: what they promised they keep until they are told.
        self.commits.give_up(id);
        self.run_commits(now);
        // Whom the broker sends away did not fail.
        let given_back = if self.is_stopping() {
            Return::Unused
        } else {
            Return::Failed
        };
        for &peer in connection.routing.known() {
            let is_last = true;
            let detach = Command::Detach {
                is_last,
                given_back,
            };
            if peer == self.id {
                self.host.handle(id, &detach, now);
                self.host.handle(id, &Command::Hangup, now);
            } else {
                let outgoing = self.peers.outgoing(peer);
                // What its consumers hold is given back though messages have to wait: they may
                // wait for that very memory.
                outgoing.push_command(Lane::Control, id, detach);
                outgoing.push_command(Lane::Message, id, Command::Hangup);
            }
        }
    }

    /// Carries out what is to be said to shards and clients about transactions that end.
    fn run_commits(&mut self, now: Now) {
        while let Some(told) = self.commits.poll_order() {
            let copies = told.lanes.iter().filter(|is_in| **is_in).count() as u8;
            let (transaction, order) = (told.transaction, told.order);
            let is_own = told.shard == self.id;
            let command = Command::Order(Ordered {
                transaction,
                order,
                copies: if is_own { 1 } else { copies },
            });
            if is_own {
                self.host.handle(told.connection, &command, now);
                continue;
            }
            let outgoing = self.peers.outgoing(told.shard);
            for lane in [Lane::Message, Lane::Control] {
                if told.lanes[lane as usize] {
                    outgoing.push_command(lane, told.connection, command);
                }
            }
        }
        while let Some((id, outcome)) = self.commits.poll_outcome() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            let reply = match &outcome {
                Outcome::Decided => {
                    connection.transactions.decided();
                    continue;
                }
                Outcome::AllTold => {
                    connection.transactions.all_told();
                    continue;
                }
                Outcome::Ended { receipt } => {
                    receipt.as_deref().map(|receipt| Reply::Receipt { receipt })
                }
                Outcome::Failed { receipt } => {
                    let (refusal, receipt) = (Refusal::TransactionFailed, receipt.as_deref());
                    let about = None;
                    Some(Reply::Refused {
                        refusal,
                        about,
                        receipt,
                    })
                }
            };
            connection.transactions.ended();
            if let Some(reply) = reply {
                take_reply(connection, self.id, &reply, 0);
            }
            self.mark_dirty(id);
        }
    }

    /// A transaction of the connection has been open too long: it is told so and ends, with all
    /// that it has staged, though its client may read nothing any more.
    fn time_out(&mut self, id: ConnectionId, now: Now) {
        if !self.commits.give_up(id) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.transactions.cannot_be_recalled();
            }
            return self.enter_timer(id);
        }
        let details = "It was rolled back. The limit is limits.transaction_timeout_ms.";
        self.break_off(id, Some(("transaction open too long", details)));
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let detach = Command::Detach {
            is_last: false,
            given_back: Return::Failed,
        };
        for &shard in connection.routing.known() {
            if shard == self.id {
                self.host.handle(id, &detach, now);
            } else {
                let outgoing = self.peers.outgoing(shard);
                outgoing.push_command(Lane::Control, id, detach);
            }
        }
    }

    /// The client will send no more: answer what it asked for, then close.
    pub fn handle_end_of_input(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.is_ended = true;
        if connection.pause.is_none() && connection.phase == Phase::Open {
            self.leave(id, Vec::new(), Return::Failed, now);
        }
    }

    /// Whether another shard may pass a parcel of this lane on.
    pub fn wants(&self, from: ShardId, lane: ParcelLane) -> bool {
        self.peers.wants(from, lane)
    }

    /// A parcel came from another shard.
    pub fn handle_parcel(&mut self, from: ShardId, parcel: Parcel) {
        self.peers.outgoing(from).keep(parcel.empties);
        match parcel.content {
            Content::Commands(lane, load) => self.peers.take_commands(from, lane, load),
            Content::Replies(load) => {
                for (to, reply, delivered_bytes) in load.replies() {
                    if let Reply::Reported {
                        transaction,
                        report,
                    } = reply
                    {
                        self.commits.take(transaction, report);
                    } else if let Reply::Quota(note) = reply {
                        self.host.machine.take_quota_note(from.0, note);
                    } else if let Some(connection) = self.connections.get_mut(&to) {
                        if let Reply::Slow(slow) = &reply {
                            let report = connection.note_slow(to, &self.node, slow);
                            self.actions.push_back(Action::Warn(Box::new(report)));
                        }
                        if take_reply(connection, from, &reply, delivered_bytes) {
                            self.answered.push_back(to);
                        }
                        self.mark_dirty(to);
                    }
                }
                self.peers.outgoing(from).send_replies_home(load);
            }
        }
    }

    /// Housekeeping has too much to do: it is told in another turn.
    pub fn give_back_free(&mut self, segments: &FreedSegments) {
        self.host.give_back_free(segments);
    }

    /// The mailbox of `to` had no room.
    pub fn give_back(&mut self, to: ShardId, parcel: Parcel) {
        self.passed_parcels -= 1;
        self.peers.outgoing(to).give_back(parcel);
    }

    /// Says why and closes the connection when that is sent.
    pub(super) fn break_off(&mut self, id: ConnectionId, reason: Option<(&str, &str)>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.phase == Phase::Closing {
            return;
        }
        if let Some((message, details)) = reason {
            connection
                .frontend
                .say_error(message, details, &mut connection.output);
        }
        connection.phase = Phase::Closing;
        self.mark_dirty(id);
    }

    fn set_closing(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Closing;
            connection.input.clear();
        }
        self.mark_dirty(id);
    }

    pub(super) fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push_back(id);
        }
    }

    fn enter_timer(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let timeout_us = connection.frontend.poll_timeout();
        let due_us = match (timeout_us, connection.transactions.due_us()) {
            (Some(one), Some(other)) => one.min(other),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return,
        };
        self.enter_timer_at(id, due_us);
    }

    pub(super) fn enter_timer_at(&mut self, id: ConnectionId, due_us: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.timer_us.is_none_or(|entered| due_us < entered) {
            connection.timer_us = Some(due_us);
            self.timers.enter(due_us, id);
        }
    }

    fn run_timers(&mut self, now: Now) {
        while let Some(id) = self.timers.pop_due(now.monotonic_us) {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.timer_us = None;
            if connection.phase != Phase::Open {
                self.end_last_words(id, now);
                continue;
            }
            if connection
                .transactions
                .due_us()
                .is_some_and(|due_us| due_us <= now.monotonic_us)
            {
                self.time_out(id, now);
                continue;
            }
            match connection
                .frontend
                .handle_timeout(now, &mut connection.output)
            {
                Timeout::None => {}
                Timeout::Wrote => self.mark_dirty(id),
                Timeout::Broken => self.set_closing(id),
            }
            self.enter_timer(id);
        }
    }

    /// Whether a producer, here or on another shard, waits for memory or room of this shard.
    fn has_waiting_for_room(&self) -> bool {
        let is_waiting = |id| {
            let connection = self.connections.get(id);
            connection.is_some_and(|one| matches!(one.pause, Some(Pause::Memory)))
        };
        self.peers.has_held() || self.waiting.iter().any(is_waiting)
    }

    /// When to turn again if nothing happens, in monotonic microseconds.
    pub fn poll_timeout(&self, now: Now) -> Option<u64> {
        let is_asking = self.host.should_ask() && self.has_waiting_for_room();
        let has_work = (self.host.has_work() || is_asking) && !self.is_stopping();
        let has_room = self.passed_parcels > 0 && !self.waiting.is_empty();
        let has_work = has_work || self.has_looped_back() || self.commits.has_work();
        if has_work || has_room || !self.dirty.is_empty() || !self.answered.is_empty() {
            return Some(now.monotonic_us);
        }
        let timers = [
            self.timers.next_us(),
            self.host.writer.poll_timeout(),
            self.host.expiry_us(now).filter(|_| !self.is_stopping()),
            self.host.due_us(now).filter(|_| !self.is_stopping()),
            self.host.departure_us(now).filter(|_| !self.is_stopping()),
            self.host.idle_us(now).filter(|_| !self.is_stopping()),
            self.host.look_us().filter(|_| !self.is_stopping()),
            self.stop_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    /// The end of a turn: all that came in takes effect; take the actions now.
    pub fn finish_turn(&mut self, now: Now) {
        self.passed_parcels = 0;
        self.peers.begin_turn();
        self.run_timers(now);
        self.host.writer.handle_timeout(now.monotonic_us);
        self.host.begin_asking();
        self.peers.work(&mut self.host, now);
        self.run_errands(now);
        self.run_commits(now);
        self.resume_waiting(now);
        self.loop_back(now);
        // What they ended just now, and what timers gave up.
        self.run_commits(now);
        let is_stopping = self.is_stopping();
        let mut outbox = Outbox {
            own: self.id,
            connections: &mut self.connections,
            dirty: &mut self.dirty,
            answered: &mut self.answered,
            commits: &mut self.commits,
            actions: &mut self.actions,
            node: &self.node,
            peers: &mut self.peers,
        };
        self.host.finish_turn(is_stopping, now, &mut outbox);
        self.go_on_stopping(now);
        self.flush(now);
        self.note_segment_wait(now);
    }

    /// Hands output over to be sent, and ends connections that have said all.
    fn flush(&mut self, now: Now) {
        while let Some(id) = self.dirty.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.is_dirty = false;
            if let Some(due_us) = connection.limit_last_words(now) {
                self.enter_timer_at(id, due_us);
            }
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            if connection.is_sending || connection.frontend.is_looped_back() {
                continue;
            }
            if connection.phase == Phase::Closing {
                connection.frontend.finish(&mut connection.output);
            }
            if !connection.output.is_empty() {
                connection.is_sending = true;
                let spare = std::mem::take(&mut connection.spare);
                let bytes = std::mem::replace(&mut connection.output, spare);
                std::mem::swap(&mut connection.delivered, &mut connection.delivered_sending);
                self.actions.push_back(Action::Send {
                    connection: id,
                    bytes,
                });
            } else if connection.phase == Phase::Closing {
                self.actions.push_back(Action::Close(id));
            }
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self, now: Now) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.host.failure().is_some() {
            return None;
        }
        if let Some(write) = self.host.poll_write(now) {
            return Some(Action::Write(write));
        }
        if let Some(read) = self.host.poll_read() {
            return Some(Action::ReadBack(read));
        }
        if let Some(segment) = self.host.poll_prepare() {
            return Some(Action::Prepare(segment));
        }
        if let Some(segments) = self.host.poll_free() {
            return Some(Action::Free(segments));
        }
        if let Some(answer) = self.host.poll_told() {
            return Some(Action::Tell(Box::new(answer)));
        }
        None
    }

    /// The next parcel to put into another shard's mailbox, or to give back by
    /// [`Self::give_back`]; after the actions.
    pub fn poll_parcel(&mut self) -> Option<(ShardId, Parcel)> {
        if self.host.failure().is_some() {
            return None;
        }
        let (to, parcel) = self.peers.poll()?;
        self.passed_parcels += 1;
        Some((to, parcel))
    }
}
