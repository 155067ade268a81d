//! ACK and NACK: the client's words for a delivery to ours.
//!
//! STOMP 1.2 names the delivery (`ack` header: subscription and delivery tag, both ours). 1.1
//! names message and subscription. 1.0 names the message only; for such clients the connection
//! remembers which subscription got it.

use std::collections::VecDeque;

use forebay_journal::MessageId;

use super::Unusable;
use super::session::{Refused, Session, Text, owned};
use crate::frontend::{Command, Deliver, Subscription, Verdict};
use crate::protocol::stomp::encode::Token;
use crate::protocol::stomp::{Ack, AckMode};
use crate::queue::Selection;

/// Deliveries of a STOMP 1.0 connection that wait for their ACK, in order of delivery.
///
/// Bounded by the credit of its subscriptions: what is not acknowledged is not followed by more.
/// What is acknowledged in a transaction waits for its end.
#[derive(Debug, Default)]
pub(super) struct Outstanding(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    subscription: Subscription,
    /// Its shard and name.
    message: (u16, MessageId),
    /// The transaction in which it is acknowledged; zero for none.
    transaction: u64,
}

impl Outstanding {
    pub(super) fn push(&mut self, deliver: &Deliver<&[u8]>) {
        self.0.push_back(Waiting {
            subscription: deliver.subscription,
            message: (deliver.shard, deliver.message),
            transaction: 0,
        });
    }

    pub(super) fn forget(&mut self, subscription: Subscription) {
        self.0.retain(|one| one.subscription != subscription);
    }

    /// A transaction ends: what it acknowledged is gone, or waits again.
    pub(super) fn end(&mut self, transaction: u64, is_commit: bool) {
        self.0.retain_mut(|one| {
            let is_in_it = one.transaction == transaction;
            if is_in_it {
                one.transaction = 0;
            }
            !(is_in_it && is_commit)
        });
    }

    /// Finds the subscription that got the message and forgets what this ACK settles.
    fn take(
        &mut self,
        message: (u16, MessageId),
        is_cumulative: impl Fn(Subscription) -> bool,
        transaction: u64,
    ) -> Option<Subscription> {
        let is_it = |one: &Waiting| one.message == message && one.transaction == 0;
        let at = self.0.iter().position(is_it)?;
        let subscription = self.0[at].subscription;
        let mut index = 0;
        let is_upto = is_cumulative(subscription);
        self.0.retain_mut(|one| {
            let is_selected = index == at || (is_upto && index < at);
            let is_waiting = one.subscription == subscription && one.transaction == 0;
            index += 1;
            if is_selected && is_waiting {
                one.transaction = transaction;
            }
            transaction != 0 || !(is_selected && is_waiting)
        });
        Some(subscription)
    }
}

impl Session {
    pub(super) fn acknowledge<'a>(
        &mut self,
        ack: &Ack<'a>,
        verdict: Verdict,
    ) -> Result<Command<Text<'a>>, Refused> {
        let refused = |unusable| (unusable, owned(ack.receipt));
        let transaction = self.transactions.of(ack.transaction).map_err(refused)?;
        if transaction != 0 && verdict == Verdict::Release {
            let details = "A NACK takes effect at once and cannot be part of a transaction; ABORT \
                leaves what the transaction acknowledged with its subscription.";
            return Err(refused(Unusable::new("NACK in a transaction", details)));
        }
        let (subscription, selection) = self.select(ack, transaction).ok_or_else(|| {
            let details = "The frame names no delivery that this connection has.";
            refused(Unusable::new("no such delivery", details))
        })?;
        let receipt = self.scratch().receipt(ack.receipt);
        Ok(Command::Settle {
            subscription,
            selection,
            verdict,
            transaction,
            receipt,
        })
    }

    fn select(&mut self, ack: &Ack<'_>, transaction: u64) -> Option<(Subscription, Selection)> {
        if let Some(id) = ack.id {
            let (subscription, tag) = Token::parse_pair(&id.decode())?;
            let subscription = Subscription(u32::try_from(subscription).ok()?);
            let selection = match self.ack_mode(subscription)? {
                AckMode::Client => Selection::Upto(tag),
                _ => Selection::One(tag),
            };
            return Some((subscription, selection));
        }
        let (shard, message) = Token::parse_pair(&ack.message_id?.decode())?;
        let message = MessageId(message);
        let subscription = match ack.subscription {
            Some(id) => self.names.by_id(&id.decode())?,
            None => {
                let subscriptions = &self.subscriptions;
                let is_cumulative = |of: Subscription| {
                    subscriptions
                        .get(&of.0)
                        .is_some_and(|held| held.ack == AckMode::Client)
                };
                let message = (u16::try_from(shard).ok()?, message);
                self.outstanding.take(message, is_cumulative, transaction)?
            }
        };
        let selection = match self.ack_mode(subscription)? {
            AckMode::Client => Selection::UptoMessage(message),
            _ => Selection::Message(message),
        };
        Some((subscription, selection))
    }

    /// How the subscription acknowledges; none if it is not there or does not.
    fn ack_mode(&self, subscription: Subscription) -> Option<AckMode> {
        let held = self.subscriptions.get(&subscription.0)?;
        (held.ack != AckMode::Auto).then_some(held.ack)
    }
}
