//! Queues that nobody uses: empty, without consumers, made because somebody named them. Where the
//! policy says so they go after a while.
//!
//! Facts only note that a queue may be one of them. When it began to be one is asked on the way,
//! since facts know no time; so a restart lets each begin anew.

use std::collections::BTreeSet;

use forebay_journal::QueueId;

use super::decision::Decision;
use super::machine::Machine;
use super::state::QueueState;

/// What is known of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing: it is used, or stays whatever happens.
    #[default]
    Open,
    /// It is in the list of those to look at: it was unused once since the last look.
    Noted,
    /// It is unused, and goes at this time if it still is.
    Until(u64),
}

/// The unused queues of a shard.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// To be looked at, each once.
    noted: Vec<u64>,
    /// When they go, in monotonic microseconds, and their ids.
    due: BTreeSet<(u64, u64)>,
}

impl Idle {
    /// Something left the queue, or it was made.
    pub(super) fn note(&mut self, queue: &mut QueueState) {
        if queue.idle == Use::Open && queue.is_unused() && queue.made_itself() {
            queue.idle = Use::Noted;
            self.noted.push(queue.id.0);
        }
    }

    /// Something came to the queue, or it is gone.
    pub(super) fn end(&mut self, queue: &mut QueueState) {
        if let Use::Until(due_us) = queue.idle {
            self.due.remove(&(due_us, queue.id.0));
            queue.idle = Use::Open;
        }
    }

    pub(super) fn due(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.due.iter().copied()
    }

    pub(super) fn noted(&self) -> &[u64] {
        &self.noted
    }
}

impl Machine {
    /// Looks at the queues that may have become unused since the last look. `now_us` is monotonic.
    ///
    /// Cost: O(queues that did).
    pub fn look_at_idle(&mut self, now_us: u64) {
        for id in self.idle.noted.drain(..) {
            let Some(queue) = self.queues.get_mut(QueueId(id)) else {
                continue;
            };
            queue.idle = Use::Open;
            if queue.policy.auto_delete && queue.is_unused() {
                let delay_us = queue.policy.auto_delete_delay_ms.saturating_mul(1000);
                let due_us = now_us.saturating_add(delay_us);
                queue.idle = Use::Until(due_us);
                self.idle.due.insert((due_us, id));
            }
        }
    }

    /// The monotonic microseconds from which on [`Self::decide_delete_idle`] may have something to
    /// do, of those queues that were looked at.
    pub fn next_idle_us(&self) -> Option<u64> {
        self.idle.due.first().map(|(due_us, _)| *due_us)
    }

    /// Deletes queues that have been unused for as long as their policies say, no more than
    /// `dispatch_max` at once. One that messages of an open transaction are to enter is used.
    pub fn decide_delete_idle(&self, now_us: u64, out: &mut Decision) {
        out.clear();
        let due = self.idle.due().take_while(|(due_us, _)| *due_us <= now_us);
        let unused = due.filter_map(|(_, id)| {
            let queue = self.queues.get(QueueId(id))?;
            (queue.is_unused() && !self.transactions.enter(id)).then_some(queue)
        });
        for queue in unused.take(self.limits.dispatch_max) {
            out.delete(queue.id, queue.is_durable());
        }
    }
}
