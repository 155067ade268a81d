//! Frames that name several destinations: composite ones (`/queue/a,/topic/b`), and wildcards,
//! whose queues are on every shard.
//!
//! A message to several is a transaction of its copies, one of its own unless the client has one
//! open. A subscription to several consists of parts, each with a number of ours and consecutive.

use std::borrow::Cow;

use forebay_journal::format::Routing;
use rustc_hash::FxHashMap;

use super::series::Span;
use super::session::{Session, Text};
use super::subscribe::Subscribed;
use super::temporary::{as_seen_by_others, check_listener};
use super::{Resolved, Unusable, resolve};
use crate::frontend::{
    Command, Ending, Part as Where, SendCommand, SendPartCommand, SubscribeCommand, Subscription,
};
use crate::limits::FRAME_DESTINATIONS_MAX;
use crate::protocol::stomp::destination::parts;
use crate::protocol::stomp::{RoutingType, Subscribe};
use crate::queue::Credit;
use crate::routing::split_queue;

/// One part of a subscription.
#[derive(Debug)]
pub(super) struct Part {
    /// The first number of its subscription.
    pub(super) first: Subscription,
    /// The destination as the client wrote it, this one of the list.
    pub(super) destination: Box<str>,
    /// Where in it the address begins, if that is a pattern: messages have one of their own.
    pub(super) pattern_at: Option<usize>,
}

impl Part {
    /// The destination of a message that was sent to this address, empty for that of the part.
    pub(super) fn destination_of(&self, address: &[u8]) -> Cow<'_, str> {
        match self.pattern_at {
            Some(at) if !address.is_empty() => {
                let prefix = &self.destination[..at];
                Cow::Owned(prefix.to_owned() + &String::from_utf8_lossy(address))
            }
            _ => Cow::Borrowed(&*self.destination),
        }
    }
}

/// A message for several destinations, between its first part and its last.
#[derive(Debug)]
pub(super) struct Spread {
    copies: u16,
    end: Option<End>,
}

/// The end of a transaction of its own.
#[derive(Debug)]
struct End {
    transaction: u64,
    receipt: Option<Vec<u8>>,
}

/// A subscription by any of its numbers: its first one, what the client knows of it, and the part
/// that it is, if it consists of several.
pub(super) fn subscribed<'a>(
    subscriptions: &'a FxHashMap<u32, Subscribed>,
    parts: &'a FxHashMap<u32, Part>,
    number: Subscription,
) -> Option<(Subscription, &'a Subscribed, Option<&'a Part>)> {
    match subscriptions.get(&number.0) {
        Some(subscribed) if subscribed.parts == 0 => Some((number, subscribed, None)),
        _ => {
            let part = parts.get(&number.0)?;
            let subscribed = subscriptions.get(&part.first.0)?;
            Some((part.first, subscribed, Some(part)))
        }
    }
}

/// Checks that a message can be sent there.
pub(super) fn check_sendable(resolved: &Resolved<'_>) -> Result<(), Unusable> {
    if !resolved.is_everywhere {
        return Ok(());
    }
    let details = format!(
        "{:?} stands for any number of addresses. Such can be subscribed to; a message is sent to \
         one.",
        resolved.address
    );
    Err(Unusable::new("message to a wildcard", details))
}

/// The destinations of a frame, checked in number.
pub(super) fn destinations(text: &str) -> Result<impl Iterator<Item = &str>, Unusable> {
    let max = FRAME_DESTINATIONS_MAX as usize;
    if parts(text).count() > max {
        let details = format!("A frame names {max} destinations at most.");
        return Err(Unusable::new("too many destinations", details));
    }
    Ok(parts(text))
}

impl Session {
    /// Sends copies of a message to all destinations in a list.
    pub(super) fn spread(
        &mut self,
        list: &str,
        routing: Option<RoutingType>,
        message: SendCommand<Text<'_>>,
    ) -> Result<(), Unusable> {
        let mut targets = Vec::new();
        for destination in destinations(list)? {
            let destination = as_seen_by_others(destination.into(), &self.name);
            let resolved = resolve(&destination, routing, &self.settings.policies)?;
            check_sendable(&resolved)?;
            targets.push((
                resolved.routing,
                resolved.is_temporary,
                resolved.address.as_bytes().to_vec(),
            ));
        }
        let copies = targets.len() as u16;
        let receipt = message.receipt.map(|receipt| self.bytes(receipt).to_vec());
        self.series.begin();
        let mut copy = self.copied(message);
        let end = if message.transaction == 0 {
            copy.transaction = self.transactions.draw();
            let (transaction, receipt_of_begin) = (copy.transaction, None);
            self.series.push(Command::Begin {
                transaction,
                receipt: receipt_of_begin,
            });
            copy.receipt = None;
            Some(End {
                transaction,
                receipt,
            })
        } else {
            copy.receipt = receipt.map(|receipt| {
                let own = self.awaited.open(&receipt, copies.into());
                self.series.hold(&own)
            });
            None
        };
        for (number, (routing, is_temporary, address)) in (1..).zip(targets) {
            copy.routing = routing;
            copy.is_temporary = is_temporary;
            copy.address = self.series.hold(&address);
            copy.client = self.sender(routing).map(|client| self.hold(client));
            copy.extras.copy = number;
            self.series.push(Command::Send(copy));
        }
        if message.is_complete {
            self.end_spread(end);
        } else {
            self.spread = Some(Spread { copies, end });
        }
        Ok(())
    }

    /// A message with its bytes in the series.
    fn copied(&mut self, message: SendCommand<Text<'_>>) -> SendCommand<Span> {
        let held = Command::Send(message).map(&mut |text| self.hold(text));
        match held {
            Command::Send(send) => send,
            _ => unreachable!("a message stays one"),
        }
    }

    /// Sends more of the body of a message to several destinations.
    pub(super) fn spread_part(&mut self, bytes: &[u8], is_last: bool) {
        let Some(spread) = self.spread.take() else {
            return;
        };
        self.series.begin();
        let bytes = self.series.hold(bytes);
        for copy in 1..=spread.copies {
            self.series.push(Command::SendPart(SendPartCommand {
                copy,
                bytes,
                is_last,
            }));
        }
        if is_last {
            self.end_spread(spread.end);
        } else {
            self.spread = Some(spread);
        }
    }

    fn end_spread(&mut self, end: Option<End>) {
        let Some(End {
            transaction,
            receipt,
        }) = end
        else {
            return;
        };
        let receipt = receipt.map(|receipt| self.series.hold(&receipt));
        self.series.push(Command::EndTransaction {
            transaction,
            is_commit: true,
            receipt,
        });
    }

    /// A receipt for so many commands of the series.
    pub(super) fn share_receipt(&mut self, receipt: Option<Text<'_>>, count: u32) -> Option<Span> {
        let receipt = self.bytes(receipt?).to_vec();
        let own = self.awaited.open(&receipt, count);
        Some(self.series.hold(&own))
    }

    /// Subscribes to a list, or to what is on every shard.
    pub(super) fn subscribe_to_several(
        &mut self,
        subscribe: &Subscribe<'_>,
        given: &str,
    ) -> Result<(), Unusable> {
        let listened = self.listened(given, subscribe.routing)?;
        let mut command = None;
        for one in &listened {
            let is_qualified = split_queue(&one.address).is_some();
            command = Some(self.read_subscribe(subscribe, one.routing, is_qualified)?);
        }
        let named = command.filter(|command| command.name.is_some());
        if named.is_some() && listened.len() > 1 {
            let details = "A subscription with a name has one topic, or one wildcard.";
            return Err(Unusable::new(
                "subscription with a name to several destinations",
                details,
            ));
        }
        let command = command.ok_or_else(|| Unusable::new("no destination", given))?;
        let shards = usize::from(self.shard_count);
        let counts = listened
            .iter()
            .map(|one| if one.is_everywhere { shards } else { 1 });
        let count = counts.sum::<usize>();
        self.check_room(count)?;
        let first = self.enter(subscribe, &command, given, count as u32);
        self.series.begin();
        let mut part = self.copied_subscribe(command, count as u32);
        part.subscription = first;
        for one in &listened {
            self.listen(one, first, &mut part);
        }
        Ok(())
    }

    /// Where a SUBSCRIBE listens.
    fn listened(
        &self,
        given: &str,
        routing: Option<RoutingType>,
    ) -> Result<Vec<Listened>, Unusable> {
        let listened = destinations(given)?.map(|text| {
            check_listener(text)?;
            let destination = as_seen_by_others(text.into(), &self.name);
            let resolved = resolve(&destination, routing, &self.settings.policies)?;
            Ok(Listened {
                destination: text.into(),
                routing: resolved.routing,
                address: resolved.address.as_bytes().into(),
                is_temporary: resolved.is_temporary,
                is_everywhere: resolved.is_everywhere,
            })
        });
        listened.collect()
    }

    /// A SUBSCRIBE with its bytes in the series, for each of so many parts.
    fn copied_subscribe(
        &mut self,
        command: SubscribeCommand<Text<'_>>,
        count: u32,
    ) -> SubscribeCommand<Span> {
        // With a name the parts are asked for one after another, and the last one says so.
        let receipt = match command.name {
            Some(_) => command.receipt.map(|receipt| self.hold(receipt)),
            None => self.share_receipt(command.receipt, count),
        };
        let held = Command::Subscribe(command).map(&mut |text| self.hold(text));
        let Command::Subscribe(held) = held else {
            unreachable!("a subscription stays one");
        };
        // No more in flight to all than to one: what a client can hold does not grow.
        let share = |credit: u32| (credit / count).max(1);
        SubscribeCommand {
            credit: match held.credit {
                Credit::Messages(messages) => Credit::Messages(share(messages)),
                Credit::Unlimited => Credit::Unlimited,
            },
            credit_bytes: held
                .credit_bytes
                .map(|bytes| (bytes / u64::from(count)).max(1)),
            receipt,
            ..held
        }
    }

    /// Adds the parts of a subscription that listen to one destination; `next` is the next part.
    fn listen(&mut self, one: &Listened, first: Subscription, next: &mut SubscribeCommand<Span>) {
        let prefix = one.destination.len().saturating_sub(one.address.len());
        let shards = if one.is_everywhere {
            self.shard_count
        } else {
            1
        };
        next.routing = one.routing;
        next.address = self.series.hold(&one.address);
        next.is_temporary = one.is_temporary;
        let receipt = next.receipt;
        for shard in 0..shards {
            let is_last = shard + 1 == shards;
            next.part = one.is_everywhere.then_some(Where { shard, is_last });
            next.receipt = receipt.filter(|_| next.name.is_none() || is_last);
            self.series.push(Command::Subscribe(*next));
            let part = Part {
                first,
                destination: one.destination.clone(),
                pattern_at: one.is_everywhere.then_some(prefix),
            };
            self.parts.insert(next.subscription.0, part);
            next.subscription.0 += 1;
        }
        next.receipt = receipt;
    }

    /// Ends all parts of a subscription.
    pub(super) fn end_parts(
        &mut self,
        first: Subscription,
        count: u32,
        ending: Ending,
        receipt: Option<Text<'_>>,
    ) {
        self.series.begin();
        let receipt = self.share_receipt(receipt, count);
        for number in first.0..first.0 + count {
            self.parts.remove(&number);
            self.series.push(Command::Unsubscribe {
                subscription: Subscription(number),
                ending,
                receipt,
            });
        }
    }

    /// A browser of this number has seen all; whether all of its subscription have.
    pub(super) fn note_browsed(&mut self, number: Subscription) -> bool {
        let Some(part) = self.parts.get(&number.0) else {
            return true;
        };
        let Some(subscribed) = self.subscriptions.get_mut(&part.first.0) else {
            return false;
        };
        subscribed.browsed += 1;
        subscribed.browsed == subscribed.parts
    }
}

/// Where parts of a subscription listen.
#[derive(Debug)]
struct Listened {
    destination: Box<str>,
    routing: Routing,
    address: Box<[u8]>,
    is_temporary: bool,
    is_everywhere: bool,
}
