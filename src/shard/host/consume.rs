//! Consumers: attach, detach, settle, and handing ready messages to them.

use forebay_journal::format::{Outcome, Routing};
use forebay_journal::{AppendError, Budget, Lsn, QueueId};

use super::gather::is_gathering;
use super::{CONTROL_ROOM, Deferred, Host};
use crate::frontend::{Ending, Refusal, SubscribeCommand, Subscription, Verdict};
use crate::now::Now;
use crate::queue::{Attachment, ConsumerId, FilterId, Refused, Return, Selection, Topic};
use crate::routing::split_queue;
use crate::shard::ConnectionId;
use crate::shard::link::Text;

/// Batches handed out in one turn; what is left goes on in the next.
const DISPATCHES_PER_TURN_MAX: usize = 64;

impl Host {
    /// Makes a subscription; what it gets of what its topic keeps is known.
    pub(super) fn attach(&mut self, link: ConnectionId, subscribe: &SubscribeCommand<&[u8]>) {
        let receipt = subscribe.receipt.map(Text::new);
        match self.try_subscribe(link, subscribe) {
            Ok((lsn, existed)) if subscribe.name.is_some() => {
                self.answer(link, lsn, existed);
            }
            Ok((lsn, _)) => self.confirm(link, lsn, receipt),
            Err(refusal) => self.refuse_about(link, subscribe.address, refusal, receipt),
        }
    }

    /// Attaches a consumer; tells what has to be durable, and whether its queue was there before.
    fn try_subscribe(
        &mut self,
        link: ConnectionId,
        subscribe: &SubscribeCommand<&[u8]>,
    ) -> Result<(Lsn, bool), Refusal> {
        if is_gathering(subscribe) {
            let begun = self.begin_gathering(link, subscribe);
            return begun.map(|()| (Lsn::ZERO, true));
        }
        let is_qualified = split_queue(subscribe.address).is_some();
        let queue = self.decide_subscribe(subscribe)?;
        let existed = self.decision.is_empty();
        let recalled = self.recalled(subscribe);
        if !existed {
            let queue = (queue, subscribe.is_durable);
            self.machine
                .share_kept(queue, &recalled, &mut self.decision);
        }
        let lsn = match self.commit_decision() {
            Ok(lsn) => lsn,
            Err(AppendError::Failed(failure)) => {
                self.fail(super::Failure::Write(failure));
                return Ok((Lsn::ZERO.plus(u64::MAX), existed));
            }
            Err(other) => panic!("admitted records do not fit: {other:?}"),
        };
        if !existed && !is_qualified && subscribe.routing == Routing::Multicast {
            let narrowed = self.filters.narrow_queue(&self.machine, queue, Some(link));
            assert_eq!(narrowed, Ok(()), "the selector was checked");
        }
        let policy = self.machine.policy(queue);
        let stays = policy.is_some_and(|policy| policy.is_non_destructive);
        if !subscribe.is_browser && stays {
            let filter = self.own_selector(subscribe);
            let following = self.begin_following(link, subscribe, queue, filter);
            return match following {
                Ok(()) => Ok((lsn, existed)),
                Err(refusal) => Err(self.refuse_made(queue, existed, refusal)),
            };
        }
        if subscribe.start.is_some() {
            return Err(self.refuse_made(queue, existed, Refusal::NothingStays));
        }
        if subscribe.is_browser {
            let filter = self.hold_selector(subscribe);
            self.begin_browsing(link, subscribe.subscription, queue, filter);
            return Ok((lsn, existed));
        }
        let filter = self.own_selector(subscribe);
        let attachment = Attachment {
            queue,
            link: link.0,
            tag: subscribe.subscription.0.into(),
            credit: subscribe.credit,
            credit_bytes: subscribe.credit_bytes,
            settlement: subscribe.settlement,
            rank: subscribe.rank,
            filter,
        };
        let attached = self.machine.attach(&attachment);
        let consumer = attached.map_err(|refused| {
            self.filters.let_go(filter);
            Refusal::Queue(refused)
        })?;
        self.filters.join(consumer, filter);
        let link = self.link(link);
        link.consumers.push((subscribe.subscription, consumer));
        link.last_lsn = link.last_lsn.max(lsn);
        Ok((lsn, existed))
    }

    /// Holds the selector of a consumer that its queue has not: a topic's subscription has it, and
    /// holds nothing else.
    fn own_selector(&mut self, subscribe: &SubscribeCommand<&[u8]>) -> Option<FilterId> {
        let is_qualified = split_queue(subscribe.address).is_some();
        match subscribe.routing {
            Routing::Multicast if !is_qualified => None,
            Routing::Anycast | Routing::Multicast => self.hold_selector(subscribe),
        }
    }

    /// Holds the selector of a subscription, which was checked.
    fn hold_selector(&mut self, subscribe: &SubscribeCommand<&[u8]>) -> Option<FilterId> {
        self.filters.hold(subscribe.selector.unwrap_or_default())
    }

    /// Finds the queue of a subscription; `self.decision` makes it if it is not there.
    pub(super) fn decide_subscribe(
        &mut self,
        subscribe: &SubscribeCommand<&[u8]>,
    ) -> Result<QueueId, Refusal> {
        let (address, decision) = (subscribe.address, &mut self.decision);
        self.filters.check(subscribe.selector.unwrap_or_default())?;
        if let Some((address, queue)) = split_queue(address) {
            return self.find_queue(subscribe, address, queue);
        }
        let decided = match subscribe.routing {
            Routing::Anycast if subscribe.is_temporary => {
                self.machine.decide_temporary_queue(address, decision)
            }
            Routing::Anycast => self.machine.decide_queue(address, decision),
            Routing::Multicast => {
                let filter = subscribe.selector.unwrap_or_default();
                let topic = Topic {
                    address,
                    name: subscribe.name,
                    filter,
                    is_durable: subscribe.is_durable,
                    is_shared: subscribe.is_shared,
                    is_no_local: subscribe.is_no_local,
                };
                self.machine.decide_subscription(&topic, decision)
            }
        };
        decided.map_err(Refusal::Queue)
    }

    /// Finds the queue of this name at an address; that of the address itself may be made.
    fn find_queue(
        &mut self,
        subscribe: &SubscribeCommand<&[u8]>,
        address: &[u8],
        queue: &[u8],
    ) -> Result<QueueId, Refusal> {
        let (routing, decision) = (subscribe.routing, &mut self.decision);
        if address == queue && routing == Routing::Anycast {
            let decided = self.machine.decide_queue(address, decision);
            return decided.map_err(Refusal::Queue);
        }
        let found = self.machine.find_queue(routing, address, queue);
        let queue = found.ok_or(Refusal::UnknownQueue)?;
        let checked = self.machine.decide_attach(queue, decision);
        checked.map_err(Refusal::Queue)?;
        Ok(queue)
    }

    pub(super) fn unsubscribe(
        &mut self,
        link: ConnectionId,
        subscription: Subscription,
        ending: Ending,
        receipt: Option<&Text>,
    ) -> Result<(), AppendError> {
        let Some(consumer) = self
            .links
            .get(&link)
            .and_then(|link| link.consumer(subscription))
        else {
            if let Some(gathering) = self.gathering(link, subscription) {
                let lsn = self.scatter(link, gathering, Return::Unused)?;
                let held = self.link(link);
                held.last_lsn = held.last_lsn.max(lsn);
                self.confirm(link, lsn, receipt.cloned());
                return Ok(());
            }
            let is_found =
                self.stop_browsing(link, subscription) || self.stop_following(link, subscription);
            if is_found {
                self.confirm(link, Lsn::ZERO, receipt.cloned());
            } else {
                self.refuse(link, Refusal::UnknownSubscription, receipt.cloned());
            }
            return Ok(());
        };
        if ending == Ending::Delete
            && let Err(refused) = self
                .machine
                .decide_unsubscribe(consumer, &mut self.decision)
        {
            // It goes with its connection, which the refusal ends.
            self.refuse(link, Refusal::Queue(refused), receipt.cloned());
            return Ok(());
        }
        let lsn = self.detach_consumer(consumer, ending, Return::Unused)?;
        let held = self.link(link);
        held.remove(subscription);
        held.last_lsn = held.last_lsn.max(lsn);
        self.confirm(link, lsn, receipt.cloned());
        Ok(())
    }

    /// Deletes the subscription of this name if nobody is attached to it.
    pub(super) fn forget(
        &mut self,
        link: ConnectionId,
        name: &Text,
        for_shared: Option<bool>,
        receipt: Option<&Text>,
    ) -> Result<(), AppendError> {
        let decided = self
            .machine
            .decide_forget(name.bytes(), for_shared, &mut self.decision);
        if let Err(refused) = decided {
            self.refuse(link, Refusal::Queue(refused), receipt.cloned());
            return Ok(());
        }
        let existed = !self.decision.is_empty();
        let lsn = self.commit_decision()?;
        self.answer(link, lsn, existed);
        Ok(())
    }

    /// Gives back what the consumer holds, then takes it away, with its queue where the ending
    /// says so and nobody else is attached.
    pub(super) fn detach_consumer(
        &mut self,
        consumer: ConsumerId,
        ending: Ending,
        given_back: Return,
    ) -> Result<Lsn, AppendError> {
        let (machine, decision) = (&self.machine, &mut self.decision);
        let is_deleted =
            ending != Ending::Detach && machine.decide_unsubscribe(consumer, decision).is_ok();
        let now_unix_ms = self.now_unix_ms;
        let is_gone = !is_deleted
            && machine
                .decide_detach(consumer, given_back, now_unix_ms, decision)
                .is_err();
        if is_gone {
            // Its queue was deleted, and it with it.
            return Ok(Lsn::ZERO);
        }
        let lsn = self.commit_decision()?;
        self.machine.detach(consumer);
        self.filters.part(consumer);
        Ok(lsn)
    }

    /// The connection takes nothing more.
    pub(super) fn detach(
        &mut self,
        link: ConnectionId,
        is_last: bool,
        given_back: Return,
    ) -> Result<(), AppendError> {
        // First: what it settled in them goes back with all else that it holds.
        self.roll_back_open(link)?;
        let held = self.links.get(&link);
        let mut consumers = held.map_or(Vec::new(), |held| held.consumers.clone());
        while let Some((subscription, consumer)) = consumers.pop() {
            self.detach_consumer(consumer, Ending::Detach, given_back)?;
            self.link(link).remove(subscription);
        }
        self.scatter_all(link, given_back)?;
        if self.links.contains_key(&link) {
            self.stop_all_browsing(link);
            self.stop_all_following(link);
        }
        if is_last {
            self.link(link).is_detached = true;
            self.forget_link(link);
        }
        Ok(())
    }

    /// The connection is gone, and nothing it sent comes any more.
    pub(super) fn hang_up(&mut self, link: ConnectionId) -> Result<(), AppendError> {
        self.abandon_uploads(link)?;
        self.roll_back_open(link)?;
        self.link(link).transactions.clear();
        self.link(link).is_hung_up = true;
        self.forget_link(link);
        Ok(())
    }

    /// Forgets a connection when nothing that it asked for is still to come.
    fn forget_link(&mut self, link: ConnectionId) {
        let held = self.link(link);
        if held.is_detached && held.is_hung_up {
            self.drop_streaming(link);
            self.links.remove(&link);
        }
    }

    pub(super) fn settle(
        &mut self,
        link: ConnectionId,
        subscription: Subscription,
        selection: Selection,
        (verdict, transaction): (Verdict, u64),
        receipt: Option<&Text>,
    ) -> Result<(), AppendError> {
        let consumer = self
            .links
            .get(&link)
            .and_then(|link| link.consumer(subscription));
        let Some(consumer) = consumer else {
            if let Some(gathering) = self.gathering(link, subscription) {
                let answer = (verdict, transaction);
                return self.settle_gathered(link, gathering, selection, answer, receipt);
            }
            self.spoil(link, transaction);
            if transaction != 0 && self.follows(link, subscription) {
                self.refuse(link, Refusal::FollowerInTransaction, receipt.cloned());
                return Ok(());
            }
            match self.settle_followed(link, subscription, selection, verdict) {
                Some(true) => self.confirm(link, Lsn::ZERO, receipt.cloned()),
                Some(false) => {
                    let refusal = Refusal::Queue(Refused::UnknownDelivery);
                    self.refuse(link, refusal, receipt.cloned());
                }
                None => self.refuse(link, Refusal::UnknownSubscription, receipt.cloned()),
            }
            return Ok(());
        };
        let decided = self.decide_verdict(consumer, selection, verdict, transaction);
        if let Err(refused) = decided {
            self.spoil(link, transaction);
            self.refuse(link, Refusal::Queue(refused), receipt.cloned());
            return Ok(());
        }
        self.join(link, transaction);
        let lsn = self.commit_decision()?;
        if verdict == Verdict::Accept {
            self.stats.settled += self.decision.message_count();
        }
        let held = self.link(link);
        held.last_lsn = held.last_lsn.max(lsn);
        self.confirm(link, lsn, receipt.cloned());
        Ok(())
    }

    /// Decides what becomes of deliveries of a consumer.
    pub(super) fn decide_verdict(
        &mut self,
        consumer: ConsumerId,
        selection: Selection,
        verdict: Verdict,
        transaction: u64,
    ) -> Result<(), Refused> {
        let given_back = match verdict {
            Verdict::Accept => {
                let (machine, decision) = (&self.machine, &mut self.decision);
                return if transaction == 0 {
                    machine.decide_settle(consumer, selection, Outcome::Accepted, decision)
                } else {
                    machine.decide_stage_settle(consumer, selection, transaction, decision)
                };
            }
            Verdict::Release => Return::Failed,
            Verdict::Refuse => Return::Refused,
        };
        self.give_back(consumer, selection, given_back, transaction)
    }

    fn give_back(
        &mut self,
        consumer: ConsumerId,
        selection: Selection,
        given_back: Return,
        transaction: u64,
    ) -> Result<(), Refused> {
        let (machine, now, decision) = (&self.machine, self.now_unix_ms, &mut self.decision);
        if transaction == 0 {
            return machine.decide_release(consumer, selection, given_back, now, decision);
        }
        let given_back = (given_back, now);
        machine.decide_stage_release(consumer, selection, given_back, transaction, decision)
    }

    /// Bytes of deliveries went into the socket: settle those that settle by that, and pass more
    /// on.
    pub(super) fn drained(&mut self, id: ConnectionId, bytes: u64) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.drained_bytes += bytes;
        let drained = link.drained_bytes;
        let mut last: Option<(ConsumerId, u64)> = None;
        while let Some(link) = self.links.get_mut(&id)
            && let Some(&(upto, consumer, tag)) = link.handed.front()
            && upto <= drained
        {
            link.handed.pop_front();
            match last {
                Some((former, _)) if former == consumer => {}
                Some((former, tag)) => self.settle_handed(id, former, tag),
                None => {}
            }
            last = Some((consumer, tag));
        }
        if let Some((consumer, tag)) = last {
            self.settle_handed(id, consumer, tag);
        }
        self.wake_link(id);
    }

    /// Settles all deliveries of a consumer up to this tag.
    fn settle_handed(&mut self, link: ConnectionId, consumer: ConsumerId, tag: u64) {
        let decided = self
            .machine
            .decide_settle_delivered(consumer, tag, &mut self.decision);
        if decided.is_err() {
            // The consumer is gone; what it got was given back and comes again, flagged.
            return;
        }
        if self.commit_decision().is_ok() {
            self.stats.settled += self.decision.message_count();
            return;
        }
        if let Some(subscription) = self.subscription_of(link, consumer) {
            let (selection, verdict) = (Selection::Upto(tag), Verdict::Accept);
            let receipt = None;
            let later = Deferred::Settle {
                link,
                subscription,
                selection,
                verdict,
                transaction: 0,
                receipt,
            };
            self.deferred.push_back(later);
        }
    }

    /// The subscription that a consumer is, or is a member of. Of the latter all deliveries up to
    /// one are handed over as they are numbered.
    fn subscription_of(&self, link: ConnectionId, consumer: ConsumerId) -> Option<Subscription> {
        let held = self.links.get(&link)?;
        let mut consumers = held.consumers.iter();
        if let Some((subscription, _)) = consumers.find(|(_, one)| *one == consumer) {
            return Some(*subscription);
        }
        let gathering = self.machine.gathering_of(consumer)?;
        let mut gathered = held.gathered.iter();
        let found = gathered.find(|one| one.gathering == gathering)?;
        Some(found.subscription)
    }

    /// Hands ready messages to consumers with credit, as far as records of it fit.
    pub(super) fn dispatch(&mut self, now: Now) {
        self.has_more_to_dispatch = false;
        for _ in 0..DISPATCHES_PER_TURN_MAX {
            let is_fitting = self.writer.check(CONTROL_ROOM, Budget::Control).is_ok();
            if !is_fitting || self.failure.is_some() {
                return;
            }
            let Some(queue) = self.machine.poll_dispatch() else {
                self.has_more_to_dispatch = self.machine.is_searching();
                self.has_more_to_examine |= self.machine.has_woken();
                return;
            };
            if self.expire_front(queue, now) {
                continue;
            }
            self.machine.decide_dispatch(queue, &mut self.decision);
            let committed = self.commit_decision();
            assert!(committed.is_ok(), "room was there: {committed:?}");
        }
        self.has_more_to_dispatch = true;
    }
}
