//! What an operator asked for: one step a turn, behind what clients asked for, and told when
//! everything so far is durable.

use forebay_journal::{AppendError, Budget, QueueId, ShardId};

use super::{CONTROL_ROOM, Failure, Host, Parked};
use crate::limits::PURGED_AT_ONCE_MAX;
use crate::queue::{Purge, Refused};
use crate::shard::ConnectionId;
use crate::shard::admin::{AdminAnswer, AdminAsk, AdminTold, QueueSeen};
use crate::shard::link::Text;

/// Why a step was not done.
enum Stuck {
    /// It never will be.
    Refused(Refused),
    /// Its record does not fit now.
    Append(AppendError),
}

impl From<Refused> for Stuck {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<AppendError> for Stuck {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

impl Host {
    /// A queue as an operator sees it.
    pub(in crate::shard) fn see(&self, queue: QueueId) -> Option<QueueSeen> {
        let described = self.machine.describe(queue)?;
        let mut counts = described.counts;
        counts.consumers += self.following.get(&queue).map_or(0, Vec::len) as u64;
        Some(QueueSeen {
            shard: ShardId(self.shard),
            queue,
            name: described.name.into(),
            address: described.address.into(),
            routing: described.routing,
            flags: described.flags,
            is_durable: described.is_durable,
            counts,
        })
    }

    pub(in crate::shard) fn tell(&mut self, answer: AdminAnswer) {
        self.told.push_back(answer);
    }

    pub(in crate::shard) fn poll_told(&mut self) -> Option<AdminAnswer> {
        self.told.pop_front()
    }

    /// Takes what changes something; it is done at the end of a turn.
    pub(in crate::shard) fn begin_operation(&mut self, id: u64, ask: AdminAsk) {
        self.operations.push_back((id, ask));
    }

    /// Does the next step, if records of it fit.
    pub(super) fn operate(&mut self) {
        self.has_more_to_operate = false;
        let has_room = self.writer.check(CONTROL_ROOM, Budget::Control).is_ok();
        if !has_room || !self.deferred.is_empty() || self.failure.is_some() {
            return;
        }
        let Some((id, ask)) = self.operations.pop_front() else {
            return;
        };
        let told = match self.try_operate(&ask) {
            Ok(told) => told,
            Err(Stuck::Refused(refused)) => AdminTold::Refused(refused),
            Err(Stuck::Append(AppendError::Failed(failure))) => {
                return self.fail(Failure::Write(failure));
            }
            // A definition may be larger than what was looked for.
            Err(Stuck::Append(_)) => return self.operations.push_front((id, ask)),
        };
        self.has_more_to_operate = !self.operations.is_empty();
        // What it found may be another one's doing of just now.
        let (lsn, answer) = (self.last_lsn(), AdminAnswer { id, told });
        if lsn < self.writer.durable_end() {
            self.told.push_back(answer);
        } else {
            self.gate.park(lsn, Parked::Told(answer));
        }
    }

    /// The broker stops: what was not done is not done.
    pub(super) fn give_up_operations(&mut self) {
        self.has_more_to_operate = false;
        for (id, _) in self.operations.drain(..) {
            let told = AdminTold::Stopping;
            self.told.push_back(AdminAnswer { id, told });
        }
    }

    fn try_operate(&mut self, ask: &AdminAsk) -> Result<AdminTold, Stuck> {
        match *ask {
            AdminAsk::Pause { queue, is_paused } => self.pause(queue, is_paused),
            AdminAsk::Purge { queue, from } => self.purge(queue, from),
            AdminAsk::Delete { queue, is_forced } => self.delete(queue, is_forced),
            AdminAsk::Health
            | AdminAsk::Metrics
            | AdminAsk::Segment(_)
            | AdminAsk::List { .. }
            | AdminAsk::Find { .. } => {
                unreachable!("answered at once")
            }
        }
    }

    fn pause(&mut self, queue: QueueId, is_paused: bool) -> Result<AdminTold, Stuck> {
        self.machine
            .decide_pause(queue, is_paused, &mut self.decision)?;
        self.commit_decision()?;
        if !is_paused {
            let links = self.following.get(&queue).cloned().unwrap_or_default();
            links.into_iter().for_each(|link| self.wake_link(link));
        }
        Ok(AdminTold::Done)
    }

    fn purge(&mut self, queue: QueueId, from: Option<Purge>) -> Result<AdminTold, Stuck> {
        let from = from.unwrap_or_else(|| self.machine.begin_purge());
        let most = PURGED_AT_ONCE_MAX as usize;
        let next = self
            .machine
            .decide_drop(queue, from, most, &mut self.decision)?;
        let messages = self.decision.message_count();
        self.commit_decision()?;
        Ok(AdminTold::Purged { messages, next })
    }

    /// Deletes a queue; whoever consumes from it is told so.
    fn delete(&mut self, queue: QueueId, is_forced: bool) -> Result<AdminTold, Stuck> {
        self.machine
            .decide_remove(queue, is_forced, &mut self.decision)?;
        let address = Text::new(self.machine.address(queue).unwrap_or_default());
        let attached = self.machine.links_of(queue).map(ConnectionId);
        let mut links: Vec<_> = attached.collect();
        links.extend(self.following.get(&queue).into_iter().flatten());
        links.sort_unstable();
        links.dedup();
        let lsn = self.commit_decision()?;
        for link in links {
            let address = address.clone();
            self.gate.park(lsn, Parked::Deleted { link, address });
        }
        Ok(AdminTold::Done)
    }
}
