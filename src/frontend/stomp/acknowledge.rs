//! ACK and NACK: the client's words for a delivery to ours.
//!
//! STOMP 1.2 names the delivery (`ack` header: subscription and delivery tag, both ours). 1.1
//! names message and subscription. 1.0 names the message only; for such clients the connection
//! remembers which subscription got it. It also remembers what a subscription with several parts
//! got, and in which order: a cumulative ACK goes across its parts.

use std::collections::VecDeque;

use forebay_journal::MessageId;

use super::Unusable;
use super::session::{Refused, Session, Text, owned};
use super::several::subscribed;
use crate::frontend::{Command, Deliver, Subscription, Verdict};
use crate::protocol::stomp::encode::Token;
use crate::protocol::stomp::{Ack, AckMode};
use crate::queue::Selection;

/// Deliveries of a STOMP 1.0 connection, and of subscriptions with several parts, that wait for
/// their ACK, in order of delivery.
///
/// Bounded by the credit of its subscriptions: what is not acknowledged is not followed by more.
/// What is acknowledged in a transaction waits for its end.
#[derive(Debug, Default)]
pub(super) struct Outstanding(VecDeque<Waiting>);

#[derive(Debug)]
pub(super) struct Waiting {
    /// By its first number.
    subscription: Subscription,
    part: Subscription,
    tag: u64,
    /// Its shard and name.
    message: (u16, MessageId),
    /// The transaction in which it is acknowledged or refused; zero for none.
    transaction: u64,
}

/// What an ACK means.
enum Selected {
    /// Deliveries of one subscription, or of one part.
    One(Subscription, Selection),
    /// Of several parts.
    Several(Vec<(Subscription, Selection)>),
}

impl Outstanding {
    pub(super) fn push(&mut self, first: Subscription, deliver: &Deliver<&[u8]>) {
        self.0.push_back(Waiting {
            subscription: first,
            part: deliver.subscription,
            tag: deliver.delivery_tag,
            message: (deliver.shard, deliver.message),
            transaction: 0,
        });
    }

    pub(super) fn forget(&mut self, subscription: Subscription) {
        self.0.retain(|one| one.subscription != subscription);
    }

    /// A transaction ends: what it acknowledged or refused is gone, or waits again.
    pub(super) fn end(&mut self, transaction: u64, is_commit: bool) {
        self.0.retain_mut(|one| {
            let is_in_it = one.transaction == transaction;
            if is_in_it {
                one.transaction = 0;
            }
            !(is_in_it && is_commit)
        });
    }

    /// Finds a delivery, and forgets what its ACK settles.
    fn take(
        &mut self,
        is_it: impl Fn(&Waiting) -> bool,
        is_cumulative: impl Fn(Subscription) -> bool,
        transaction: u64,
    ) -> Option<Selected> {
        let is_it = |one: &Waiting| one.transaction == 0 && is_it(one);
        let at = self.0.iter().position(is_it)?;
        let subscription = self.0[at].subscription;
        let is_upto = is_cumulative(subscription);
        let (part, tag) = (self.0[at].part, self.0[at].tag);
        // The last of each part: tags of a part rise.
        let mut last: Vec<(Subscription, u64)> = Vec::new();
        let mut index = 0;
        self.0.retain_mut(|one| {
            let is_selected = index == at || (is_upto && index < at);
            let is_waiting = one.subscription == subscription && one.transaction == 0;
            index += 1;
            if !is_selected || !is_waiting {
                return true;
            }
            match last.iter_mut().find(|(part, _)| *part == one.part) {
                Some((_, tag)) => *tag = one.tag.max(*tag),
                None => last.push((one.part, one.tag)),
            }
            one.transaction = transaction;
            transaction != 0
        });
        if !is_upto {
            return Some(Selected::One(part, Selection::One(tag)));
        }
        let mut selected = last.iter();
        let selected = selected
            .by_ref()
            .map(|(part, tag)| (*part, Selection::Upto(*tag)));
        let selected: Vec<_> = selected.collect();
        match selected[..] {
            [(part, selection)] => Some(Selected::One(part, selection)),
            _ => Some(Selected::Several(selected)),
        }
    }
}

/// Whether an ACK settles what came before as well; none if the subscription has none to settle.
const fn is_upto(ack: AckMode) -> Option<bool> {
    match ack {
        AckMode::Auto => None,
        AckMode::Client => Some(true),
        AckMode::ClientIndividual => Some(false),
    }
}

impl Session {
    /// The command of an ACK or NACK; none if there are several, in the series.
    pub(super) fn acknowledge<'a>(
        &mut self,
        ack: &Ack<'a>,
        verdict: Verdict,
    ) -> Result<Option<Command<Text<'a>>>, Refused> {
        let refused = |unusable| (unusable, owned(ack.receipt));
        let transaction = self.transactions.of(ack.transaction).map_err(refused)?;
        let selected = self.select(ack, transaction).ok_or_else(|| {
            let details = "The frame names no delivery that this connection has.";
            refused(Unusable::new("no such delivery", details))
        })?;
        let receipt = self.scratch().receipt(ack.receipt);
        match selected {
            Selected::One(subscription, selection) => Ok(Some(Command::Settle {
                subscription,
                selection,
                verdict,
                transaction,
                receipt,
            })),
            Selected::Several(selected) => {
                self.series.begin();
                let receipt = self.share_receipt(receipt, selected.len() as u32);
                for (subscription, selection) in selected {
                    self.series.push(Command::Settle {
                        subscription,
                        selection,
                        verdict,
                        transaction,
                        receipt,
                    });
                }
                Ok(None)
            }
        }
    }

    fn select(&mut self, ack: &Ack<'_>, transaction: u64) -> Option<Selected> {
        let Self {
            subscriptions,
            parts,
            names,
            outstanding,
            ..
        } = self;
        if let Some(id) = ack.id {
            let (number, tag) = Token::parse_pair(&id.decode())?;
            let number = Subscription(u32::try_from(number).ok()?);
            let (_, subscribed, part) = subscribed(subscriptions, parts, number)?;
            let is_upto = is_upto(subscribed.ack)?;
            if part.is_some() {
                let is_it = |one: &Waiting| (one.part, one.tag) == (number, tag);
                return outstanding.take(is_it, |_| is_upto, transaction);
            }
            let selection = if is_upto {
                Selection::Upto(tag)
            } else {
                Selection::One(tag)
            };
            return Some(Selected::One(number, selection));
        }
        let (shard, message) = Token::parse_pair(&ack.message_id?.decode())?;
        let named = (u16::try_from(shard).ok()?, MessageId(message));
        let Some(id) = ack.subscription else {
            let is_cumulative = |of: Subscription| {
                let held = subscriptions.get(&of.0);
                held.is_some_and(|held| held.ack == AckMode::Client)
            };
            return outstanding.take(|one| one.message == named, is_cumulative, transaction);
        };
        let first = names.by_id(&id.decode())?;
        let subscribed = subscriptions.get(&first.0)?;
        let is_upto = is_upto(subscribed.ack)?;
        if subscribed.parts > 0 {
            let is_it = |one: &Waiting| (one.subscription, one.message) == (first, named);
            return outstanding.take(is_it, |_| is_upto, transaction);
        }
        let selection = if is_upto {
            Selection::UptoMessage(named.1)
        } else {
            Selection::Message(named.1)
        };
        Some(Selected::One(first, selection))
    }
}
