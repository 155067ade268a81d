//! New subscriptions to topics that keep their last messages: what they get of those.
//!
//! It is decided with the subscription itself, so a crash leaves both or none. A selector has to be
//! asked first, of heads that may be on the disk: then the SUBSCRIBE waits, and with it all
//! control commands behind it.

use std::collections::BTreeMap;

use forebay_journal::format::Routing;
use forebay_journal::{AppendError, QueueId};

use super::examine::{Head, head_of};
use super::{CONTROL_ROOM, Deferred, Host};
use crate::frontend::{Refusal, SubscribeCommand};
use crate::queue::Kept;
use crate::routing::split_queue;
use crate::selector::Selector;
use crate::shard::ConnectionId;
use crate::shard::link::Text;

/// What the selector of the subscription whose turn it is says of messages, by their names.
#[derive(Debug, Default)]
pub(super) struct Recall(BTreeMap<u64, bool>);

impl Host {
    /// Makes a subscription, or puts it off until the heads of what it may get are here.
    pub(super) fn subscribe(&mut self, link: ConnectionId, subscribe: &SubscribeCommand<&[u8]>) {
        if self.deferred.is_empty() && self.has_judged(subscribe) {
            self.attach(link, subscribe);
            self.recall = Recall::default();
            return;
        }
        let command = Box::new(subscribe.map(&mut Text::new));
        self.deferred
            .push_back(Deferred::Subscribe { link, command });
    }

    /// A subscription that was made for nothing does not stay behind; a queue would have been made
    /// for a message as well.
    pub(super) fn refuse_made(
        &mut self,
        queue: QueueId,
        existed: bool,
        refusal: Refusal,
    ) -> Refusal {
        let destination = self.machine.describe(queue);
        let is_topic = destination.is_some_and(|one| one.routing == Routing::Multicast);
        if is_topic && !existed {
            let decided = self.machine.decide_delete(queue, &mut self.decision);
            if decided.is_ok() {
                self.commit_definition();
            }
        }
        refusal
    }

    /// The turn of one that was put off.
    ///
    /// Errors: it has to wait, for room or for the disk.
    pub(super) fn subscribe_late(
        &mut self,
        link: ConnectionId,
        command: &SubscribeCommand<Text>,
    ) -> Result<(), AppendError> {
        let subscribe = command.as_ref();
        self.writer.check(CONTROL_ROOM, super::Budget::Control)?;
        if !self.has_judged(&subscribe) {
            // It waits as for a completion, which is what it waits for.
            return Err(AppendError::NoMemory);
        }
        self.attach(link, &subscribe);
        self.recall = Recall::default();
        Ok(())
    }

    /// Makes the queues that an address has for itself, if it is to have any.
    #[cold]
    pub(super) fn make_own(&mut self, routing: Routing, address: &[u8]) -> Result<(), Refusal> {
        let decided = self
            .machine
            .decide_divert(routing, address, &mut self.decision);
        decided.map_err(Refusal::Queue)?;
        self.commit_definition();
        if routing == Routing::Multicast {
            let decided = self.machine.decide_retroactive(address, &mut self.decision);
            decided.map_err(Refusal::Queue)?;
            self.commit_definition();
        }
        Ok(())
    }

    /// What a new subscription gets of what its topics keep. Its selector was asked.
    pub(super) fn recalled(&self, subscribe: &SubscribeCommand<&[u8]>) -> Vec<Kept> {
        if !recalls(subscribe) {
            return Vec::new();
        }
        let mut kept = self.machine.kept(subscribe.address);
        if subscribe.selector.is_some() {
            kept.retain(|one| self.recall.0.get(&one.queued.message.0) == Some(&true));
        }
        kept
    }

    /// Asks the selector of a new subscription about all that it may get; false while heads are
    /// being read.
    fn has_judged(&mut self, subscribe: &SubscribeCommand<&[u8]>) -> bool {
        if subscribe.selector.is_none() || !recalls(subscribe) || !self.machine.has_retroactive() {
            return true;
        }
        let text = std::str::from_utf8(subscribe.selector.unwrap_or_default());
        let selector = text.ok().and_then(|text| Selector::parse(text).ok());
        let is_new = self.decide_subscribe(subscribe).is_ok() && !self.decision.is_empty();
        // What is unsound is refused.
        let Some(selector) = selector.filter(|_| is_new) else {
            return true;
        };
        let Self {
            shard,
            machine,
            bodies,
            writer,
            cold,
            recall,
            ..
        } = self;
        for kept in machine.kept(subscribe.address) {
            let name = kept.queued.message.0;
            if recall.0.contains_key(&name) {
                continue;
            }
            let asked = (kept.source, &kept.queued);
            match head_of(*shard, bodies, (writer, cold), asked) {
                Head::Here(message) => drop(recall.0.insert(name, selector.matches(&message))),
                Head::Coming => return false,
                Head::Damaged(failure) => {
                    self.fail(super::Failure::Read(failure));
                    return false;
                }
            }
        }
        true
    }
}

/// Whether a subscription gets what its topics keep, if it is new. Who wrote that is not known, so
/// one that leaves out its own gets nothing.
fn recalls(subscribe: &SubscribeCommand<&[u8]>) -> bool {
    let is_topic = subscribe.routing == Routing::Multicast;
    let is_qualified = split_queue(subscribe.address).is_some();
    is_topic && !is_qualified && subscribe.is_retroactive && !subscribe.is_no_local
}

impl SubscribeCommand<Text> {
    /// The same, borrowed.
    fn as_ref(&self) -> SubscribeCommand<&[u8]> {
        SubscribeCommand {
            address: self.address.bytes(),
            name: self.name.as_ref().map(Text::bytes),
            selector: self.selector.as_ref().map(Text::bytes),
            receipt: self.receipt.as_ref().map(Text::bytes),
            subscription: self.subscription,
            routing: self.routing,
            part: self.part,
            is_temporary: self.is_temporary,
            is_browser: self.is_browser,
            start: self.start,
            is_durable: self.is_durable,
            is_shared: self.is_shared,
            is_no_local: self.is_no_local,
            is_retroactive: self.is_retroactive,
            credit: self.credit,
            credit_bytes: self.credit_bytes,
            settlement: self.settlement,
            rank: self.rank,
        }
    }
}
