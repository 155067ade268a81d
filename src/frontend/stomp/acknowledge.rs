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
#[derive(Debug, Default)]
pub(super) struct Outstanding(VecDeque<(Subscription, (u16, MessageId))>);

impl Outstanding {
    pub(super) fn push(&mut self, deliver: &Deliver<&[u8]>) {
        self.0
            .push_back((deliver.subscription, (deliver.shard, deliver.message)));
    }

    pub(super) fn forget(&mut self, subscription: Subscription) {
        self.0.retain(|(of, _)| *of != subscription);
    }

    /// Finds the subscription that got the message and forgets what this ACK settles.
    fn take(
        &mut self,
        message: (u16, MessageId),
        is_cumulative: impl Fn(Subscription) -> bool,
    ) -> Option<Subscription> {
        let at = self.0.iter().position(|(_, held)| *held == message)?;
        let (subscription, _) = self.0[at];
        let mut index = 0;
        let is_upto = is_cumulative(subscription);
        self.0.retain(|(of, _)| {
            let is_settled = *of == subscription && (index == at || (is_upto && index < at));
            index += 1;
            !is_settled
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
        if ack.transaction.is_some() {
            return Err(refused(Unusable::not_offered("transaction")));
        }
        let (subscription, selection) = self.select(ack).ok_or_else(|| {
            let details = "The frame names no delivery that this connection has.";
            refused(Unusable::new("no such delivery", details))
        })?;
        let receipt = self.scratch().receipt(ack.receipt);
        Ok(Command::Settle {
            subscription,
            selection,
            verdict,
            receipt,
        })
    }

    fn select(&mut self, ack: &Ack<'_>) -> Option<(Subscription, Selection)> {
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
                self.outstanding
                    .take((u16::try_from(shard).ok()?, message), is_cumulative)?
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
