//! Consumers that are slower than their address wants: found by the machine, told to their
//! connections.

use forebay_journal::Lsn;

use super::{Host, Replies};
use crate::frontend::{Pace, Reply, Slow, Subscription};
use crate::now::Now;
use crate::queue::{SlowConsumer, SlowSeen};
use crate::shard::ConnectionId;

/// How long no write ends, with effects waiting for one, until the disk stands still.
const STILL_US: u64 = 100_000;

/// What is kept between looks.
#[derive(Debug, Default)]
pub(super) struct SlowLooks {
    seen: Vec<SlowSeen>,
    /// What was durable, and since when nothing more became so, in monotonic microseconds.
    durable_end: Lsn,
    moved_us: u64,
}

impl Host {
    /// Looks at the consumers that are watched and whose time has come.
    pub(super) fn look_at_consumers(&mut self, now: Now, replies: &mut impl Replies) {
        if !self.machine.is_watching() {
            return;
        }
        let mut looks = std::mem::take(&mut self.slow_looks);
        let durable_end = self.writer.durable_end();
        if looks.durable_end != durable_end || self.gate.is_empty() {
            (looks.durable_end, looks.moved_us) = (durable_end, now.monotonic_us);
        }
        // While the disk stands still nobody gets what was handed out: nobody is to blame.
        let is_still = now.monotonic_us.saturating_sub(looks.moved_us) >= STILL_US;
        let is_held = |link| is_still || self.waiting_for_disk.contains(&ConnectionId(link));
        self.machine
            .look_at_consumers(now.monotonic_us, is_held, &mut looks.seen);
        for seen in looks.seen.drain(..) {
            self.stats.slow_consumers += 1;
            let slow = Slow {
                subscription: Subscription(seen.consumer_tag as u32),
                address: self.machine.address(seen.queue).unwrap_or_default(),
                pace: Pace {
                    messages: seen.settled,
                    elapsed_us: seen.elapsed_us,
                },
                is_sent_away: seen.policy == SlowConsumer::Disconnect,
            };
            replies.reply(ConnectionId(seen.link), &Reply::Slow(slow), 0);
        }
        self.slow_looks = looks;
    }

    /// When consumers are looked at next, in monotonic microseconds.
    pub(in crate::shard) fn look_us(&self) -> Option<u64> {
        self.machine.next_look_us()
    }
}
