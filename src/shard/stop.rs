//! The orderly end of a shard: finish what is durable, give deliveries back, write the
//! clean-shutdown record and an idle seal behind it.

use super::{Action, Shard};
use crate::now::Now;

/// How far the stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    /// Nothing new is taken; what was asked for becomes durable and is answered.
    Draining {
        deadline_us: u64,
    },
    /// Connections close.
    Closing {
        deadline_us: u64,
    },
    /// The last record is on its way.
    Sealing,
    /// The idle seal behind it is on its way.
    Sealed,
    Done,
}

/// How long clients have to take their last answers.
const GRACE_US: u64 = 2_000_000;

impl Shard {
    /// Begins the orderly end. Go on turning until [`Self::is_stopped`].
    pub fn stop(&mut self, now: Now) {
        if self.stopping == Stopping::No {
            self.disconnect_forwarder();
            self.stopping = Stopping::Draining {
                deadline_us: now.monotonic_us + GRACE_US,
            };
        }
    }

    /// Whether everything is durable and the last record is written.
    pub fn is_stopped(&self) -> bool {
        self.stopping == Stopping::Done
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping != Stopping::No
    }

    /// When the stop has to be looked at again, if nothing else happens.
    pub(super) fn stop_timeout(&self) -> Option<u64> {
        match self.stopping {
            Stopping::Draining { deadline_us } | Stopping::Closing { deadline_us } => {
                Some(deadline_us)
            }
            _ => None,
        }
    }

    /// Goes as far as it can: where nothing has to be waited for, nothing need wake it again.
    pub(super) fn go_on_stopping(&mut self, now: Now) {
        loop {
            let before = self.stopping;
            self.step_stop(now);
            if self.stopping == before {
                return;
            }
        }
    }

    fn step_stop(&mut self, now: Now) {
        match self.stopping {
            Stopping::No | Stopping::Done => {}
            Stopping::Draining { deadline_us } => {
                if self.host.is_settled() || now.monotonic_us >= deadline_us {
                    self.say_farewell();
                    self.stopping = Stopping::Closing { deadline_us };
                }
            }
            Stopping::Closing { deadline_us } => {
                self.close_all(now.monotonic_us >= deadline_us, now)
            }
            Stopping::Sealing => {
                if self.host.writer.is_drained() {
                    // Nothing to write if that was so for long enough: then it is sealed already.
                    self.host.writer.seal_idle();
                    self.stopping = Stopping::Sealed;
                }
            }
            Stopping::Sealed => {
                if self.host.writer.is_drained() {
                    self.stopping = Stopping::Done;
                }
            }
        }
    }

    fn say_farewell(&mut self) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.break_off(
                id,
                Some(("broker is stopping", "The broker was told to stop.")),
            );
        }
    }

    fn close_all(&mut self, is_overdue: bool, now: Now) {
        if is_overdue {
            let ids: Vec<_> = self.connections.keys().copied().collect();
            for id in ids {
                self.actions.push_back(Action::Close(id));
            }
        }
        let is_quiet = self.connections.is_empty() || is_overdue;
        if !is_quiet || !self.host.is_settled() {
            return;
        }
        let is_written = self.host.seal(now).is_ok();
        self.stopping = if is_written {
            Stopping::Sealing
        } else {
            Stopping::Done
        };
    }
}
