//! Followers: consumers of a queue whose messages stay when they are consumed. Each sees all of
//! them, from where it asked to begin, and those that come.
//!
//! A follower is no fact and changes none: what it acknowledges is its own business, and only
//! makes room in its credit.

use std::collections::VecDeque;

use forebay_journal::{Lsn, MessageId, QueueId};

use super::Host;
use crate::frontend::{Refusal, Start, SubscribeCommand, Subscription, Verdict};
use crate::queue::{Credit, FilterId, Queued, Selection, Settlement};
use crate::shard::ConnectionId;
use crate::shard::link::{Delivery, Taker};

/// Messages looked up at a time.
const AT_ONCE_MAX: usize = 64;

/// One follower.
#[derive(Debug)]
pub(in crate::shard) struct Follower {
    pub(in crate::shard) subscription: Subscription,
    pub(in crate::shard) queue: QueueId,
    /// Its selector, if it has one.
    pub(in crate::shard) filter: Option<FilterId>,
    /// It has seen what is named so or lower.
    seen_upto: MessageId,
    /// It begins with the first message of this time or later, which it has not seen yet.
    not_before_unix_ms: Option<u64>,
    /// Lower ones that it is to see all the same: they came late, or it refused them.
    again: VecDeque<MessageId>,
    settlement: Settlement,
    credit: u32,
    credit_bytes: u64,
    unsettled: VecDeque<Held>,
    unsettled_bytes: u64,
    next_tag: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    tag: u64,
    message: MessageId,
    size_bytes: u32,
}

impl Follower {
    fn has_credit(&self) -> bool {
        self.settlement == Settlement::OnHandover
            || (self.unsettled.len() < self.credit as usize
                && self.unsettled_bytes < self.credit_bytes)
    }

    /// Names the next delivery.
    fn take(&mut self, queued: &Queued) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        if self.settlement == Settlement::ByConsumer {
            self.unsettled_bytes += u64::from(queued.size_bytes);
            self.unsettled.push_back(Held {
                tag,
                message: queued.message,
                size_bytes: queued.size_bytes,
            });
        }
        tag
    }

    /// Whether it is to see a message that came at this time; the first of its time begins all.
    pub(in crate::shard) fn wants(&mut self, unix_ms: u64) -> bool {
        if self.not_before_unix_ms.is_some_and(|from| unix_ms < from) {
            return false;
        }
        self.not_before_unix_ms = None;
        true
    }

    /// It does not see the message that it took under this tag.
    pub(in crate::shard) fn pass_over(&mut self, tag: u64) {
        self.settle(Selection::One(tag), false);
    }

    /// Lets go of what is meant; `again`: to see it once more. False if it holds nothing of it.
    fn settle(&mut self, selection: Selection, again: bool) -> bool {
        let is_meant = |at: usize, held: &Held| match selection {
            Selection::One(tag) => held.tag == tag,
            Selection::Upto(tag) => held.tag <= tag,
            Selection::Message(message) => held.message == message,
            Selection::UptoMessage(message) => {
                let last = self.unsettled.iter().position(|one| one.message == message);
                last.is_some_and(|last| at <= last)
            }
        };
        let held = self.unsettled.iter().enumerate();
        let meant: Vec<bool> = held.map(|(at, held)| is_meant(at, held)).collect();
        let mut at = 0;
        let (seen_again, bytes) = (&mut self.again, &mut self.unsettled_bytes);
        self.unsettled.retain(|held| {
            at += 1;
            if !meant[at - 1] {
                return true;
            }
            *bytes -= u64::from(held.size_bytes);
            if again {
                seen_again.push_back(held.message);
            }
            false
        });
        meant.contains(&true)
    }
}

impl Host {
    /// Begins to follow a queue.
    ///
    /// Errors: it is to begin at a message of another shard.
    pub(super) fn begin_following(
        &mut self,
        link: ConnectionId,
        subscribe: &SubscribeCommand<&[u8]>,
        queue: QueueId,
        filter: Option<FilterId>,
    ) -> Result<(), Refusal> {
        let before = |message: MessageId| MessageId(message.0.saturating_sub(1));
        let seen_upto = match subscribe.start.unwrap_or(Start::First) {
            Start::First => MessageId(0),
            Start::Next => before(self.machine.message_floor()),
            Start::Last => {
                let last = self.machine.ready(queue).map(|queued| queued.message);
                before(last.max().unwrap_or_else(|| self.machine.message_floor()))
            }
            Start::Since { unix_ms } => before(self.machine.before_time(unix_ms)),
            Start::At { shard, message } if shard == self.shard => before(message),
            Start::At { .. } => {
                self.filters.let_go(filter);
                return Err(Refusal::StartElsewhere);
            }
        };
        self.machine.set_followed(queue, true);
        let follower = Follower {
            subscription: subscribe.subscription,
            queue,
            filter,
            seen_upto,
            not_before_unix_ms: match subscribe.start {
                Some(Start::Since { unix_ms }) => Some(unix_ms),
                _ => None,
            },
            again: VecDeque::new(),
            settlement: subscribe.settlement,
            credit: match subscribe.credit {
                Credit::Unlimited => u32::MAX,
                Credit::Messages(messages) => messages,
            },
            credit_bytes: subscribe.credit_bytes.unwrap_or(u64::MAX),
            unsettled: VecDeque::new(),
            unsettled_bytes: 0,
            next_tag: 1,
        };
        self.link(link).followers.push(follower);
        self.following.entry(queue).or_default().push(link);
        self.wake_link(link);
        Ok(())
    }

    /// Whether a follower of this name was there; it is not any more.
    pub(super) fn stop_following(
        &mut self,
        link: ConnectionId,
        subscription: Subscription,
    ) -> bool {
        let followers = &mut self.link(link).followers;
        let at = followers
            .iter()
            .position(|one| one.subscription == subscription);
        let Some(at) = at else { return false };
        let follower = followers.remove(at);
        self.forget_follower(link, &follower);
        true
    }

    /// The connection takes nothing more.
    pub(super) fn stop_all_following(&mut self, link: ConnectionId) {
        let followers = std::mem::take(&mut self.link(link).followers);
        for follower in followers {
            self.forget_follower(link, &follower);
        }
    }

    fn forget_follower(&mut self, link: ConnectionId, follower: &Follower) {
        let queue = follower.queue;
        self.filters.let_go(follower.filter);
        if let Some(links) = self.following.get_mut(&queue) {
            let at = links.iter().position(|one| *one == link);
            if let Some(at) = at {
                links.swap_remove(at);
            }
            if links.is_empty() {
                self.following.remove(&queue);
                self.machine.set_followed(queue, false);
            }
        }
    }

    /// A message is ready in a queue that somebody follows.
    pub(super) fn note_arrival(&mut self, queue: QueueId, message: MessageId) {
        let links = self.following.get(&queue).cloned().unwrap_or_default();
        for id in links {
            for follower in &mut self.link(id).followers {
                if follower.queue == queue && message <= follower.seen_upto {
                    follower.again.push_back(message);
                }
            }
            self.wake_link(id);
        }
    }

    /// A follower acknowledges or refuses; false if no such follower holds any such message.
    pub(super) fn settle_followed(
        &mut self,
        link: ConnectionId,
        subscription: Subscription,
        selection: Selection,
        verdict: Verdict,
    ) -> Option<bool> {
        let followers = &mut self.links.get_mut(&link)?.followers;
        let follower = followers
            .iter_mut()
            .find(|one| one.subscription == subscription)?;
        let is_settled = follower.settle(selection, verdict == Verdict::Release);
        self.wake_link(link);
        Some(is_settled)
    }

    /// Whether the subscription is a follower.
    pub(super) fn follows(&self, link: ConnectionId, subscription: Subscription) -> bool {
        let followers = self.links.get(&link).map(|link| &link.followers);
        let mut followers = followers.into_iter().flatten();
        followers.any(|one| one.subscription == subscription)
    }

    /// Looks up what the followers of a link see next, once all before has left; whether something
    /// can leave at once.
    pub(super) fn follow(&mut self, id: ConnectionId) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        if link.parked_count > 0 || link.followers.is_empty() {
            return false;
        }
        let last = self.writer.next_lsn().before();
        let is_durable = last < self.writer.durable_end();
        let lsn = if is_durable { Lsn::ZERO } else { last };
        let mut found = Vec::new();
        for follower in &mut link.followers {
            let queue = follower.queue;
            if self.machine.is_paused(queue) {
                continue;
            }
            while follower.has_credit()
                && found.len() < AT_ONCE_MAX
                && let Some(message) = follower.again.pop_front()
            {
                if let Some(queued) = self.machine.find_ready(queue, message) {
                    found.push((follower.subscription, queue, follower.take(&queued), queued));
                }
            }
            let room = AT_ONCE_MAX - found.len();
            for queued in self.machine.ready_since(queue, follower.seen_upto, room) {
                if !follower.has_credit() {
                    break;
                }
                follower.seen_upto = queued.message;
                found.push((follower.subscription, queue, follower.take(&queued), queued));
            }
        }
        for (subscription, queue, delivery_tag, queued) in &found {
            self.park_delivery(
                lsn,
                Delivery {
                    link: id,
                    subscription: *subscription,
                    taker: Taker::Follower(*queue),
                    delivery_tag: *delivery_tag,
                    message: queued.message,
                    place: queued.place,
                    attempts: queued.attempts,
                    is_redelivered: queued.attempts > 0,
                },
            );
        }
        let is_parked = self.links.get(&id).is_some_and(|one| one.parked_count > 0);
        !found.is_empty() && !is_parked
    }
}
