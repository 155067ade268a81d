//! Subscriptions to a pattern of queues: a member takes from each queue of this shard that the
//! pattern matches. The machine says which; here they get their selectors, and what the connection
//! asks of the subscription is asked of its members.

use forebay_journal::format::Routing;
use forebay_journal::{AppendError, Lsn, QueueId};

use super::Host;
use crate::frontend::{Ending, Refusal, SubscribeCommand, Subscription, Verdict};
use crate::pattern::Pattern;
use crate::queue::{FilterId, Gather, GatheringId, Refused, Return, Selection};
use crate::routing::split_queue;
use crate::shard::ConnectionId;
use crate::shard::link::Text;

/// One such subscription.
#[derive(Debug)]
pub(in crate::shard) struct Gathered {
    pub(in crate::shard) subscription: Subscription,
    pub(super) gathering: GatheringId,
    selector: Box<[u8]>,
    /// Holds the selector also while no queue matches.
    filter: Option<FilterId>,
}

/// Whether a subscription is to all queues whose addresses match.
pub(super) fn is_gathering(subscribe: &SubscribeCommand<&[u8]>) -> bool {
    let is_qualified = split_queue(subscribe.address).is_some();
    subscribe.part.is_some() && subscribe.routing == Routing::Anycast && !is_qualified
}

impl Host {
    /// Begins to take from, or to look at, the queues that match.
    pub(super) fn begin_gathering(
        &mut self,
        link: ConnectionId,
        subscribe: &SubscribeCommand<&[u8]>,
    ) -> Result<(), Refusal> {
        let selector = subscribe.selector.unwrap_or_default();
        self.filters.check(selector)?;
        let text = core::str::from_utf8(subscribe.address).ok();
        let pattern = text.and_then(|text| Pattern::parse(text).ok());
        let pattern = pattern.ok_or(Refusal::UnknownQueue)?;
        if subscribe.start.is_some() {
            return Err(Refusal::NothingStays);
        }
        let queues = self.machine.to_gather(&pattern);
        if subscribe.is_browser {
            let filter = self.filters.hold(selector);
            self.begin_browsing_all(link, subscribe.subscription, queues, filter);
            return Ok(());
        }
        let wanted = Gather {
            pattern,
            link: link.0,
            tag: subscribe.subscription.0.into(),
            credit: subscribe.credit,
            credit_bytes: subscribe.credit_bytes,
            settlement: subscribe.settlement,
            rank: subscribe.rank,
        };
        let gathering = self.machine.gather(wanted).map_err(Refusal::Queue)?;
        let filter = self.filters.hold(selector);
        self.link(link).gathered.push(Gathered {
            subscription: subscribe.subscription,
            gathering,
            selector: selector.into(),
            filter,
        });
        // What was attached before one is refused goes with the connection, which that ends.
        queues
            .into_iter()
            .try_for_each(|queue| self.join_queue(link, gathering, queue))
    }

    fn join_queue(
        &mut self,
        link: ConnectionId,
        gathering: GatheringId,
        queue: QueueId,
    ) -> Result<(), Refusal> {
        let gathered = self.links.get(&link).into_iter();
        let mut gathered = gathered.flat_map(|link| &link.gathered);
        let Some(gathered) = gathered.find(|one| one.gathering == gathering) else {
            return Ok(());
        };
        let filter = self.filters.hold(&gathered.selector);
        match self.machine.join(gathering, queue, filter) {
            Ok(consumer) => {
                self.filters.join(consumer, filter);
                Ok(())
            }
            Err(refused) => {
                self.filters.let_go(filter);
                Err(Refusal::Queue(refused))
            }
        }
    }

    /// A queue was made that a subscription takes from as well. One that cannot is told so, which
    /// ends its connection: it would miss messages that it asked for.
    pub(super) fn gather_queue(
        &mut self,
        link: ConnectionId,
        gathering: GatheringId,
        queue: QueueId,
    ) {
        if let Err(refusal) = self.join_queue(link, gathering, queue) {
            let address = Text::new(self.machine.address(queue).unwrap_or_default());
            self.refuse_about(link, address.bytes(), refusal, None);
        }
    }

    /// The gathering of a subscription, if it is one.
    pub(super) fn gathering(
        &self,
        link: ConnectionId,
        subscription: Subscription,
    ) -> Option<GatheringId> {
        let gathered = &self.links.get(&link)?.gathered;
        let mut gathered = gathered.iter();
        let found = gathered.find(|one| one.subscription == subscription)?;
        Some(found.gathering)
    }

    /// Gives back all that the members of a subscription hold, and ends it. What of it does not
    /// fit the journal is left; then the same again does the rest.
    pub(super) fn scatter(
        &mut self,
        link: ConnectionId,
        gathering: GatheringId,
        given_back: Return,
    ) -> Result<Lsn, AppendError> {
        let mut last = Lsn::ZERO;
        // Or a queue that is made anew when its last consumer goes would be one of its own.
        self.machine.close_gathering(gathering);
        while let Some(member) = self.machine.last_member(gathering) {
            last = self
                .detach_consumer(member, Ending::Detach, given_back)?
                .max(last);
        }
        self.machine.end_gathering(gathering);
        let held = &mut self.link(link).gathered;
        let at = held.iter().position(|one| one.gathering == gathering);
        if let Some(gone) = at.map(|at| held.remove(at)) {
            self.filters.let_go(gone.filter);
        }
        Ok(last)
    }

    /// The connection takes nothing more.
    pub(super) fn scatter_all(
        &mut self,
        link: ConnectionId,
        given_back: Return,
    ) -> Result<(), AppendError> {
        while let Some(gathered) = self.links.get(&link).and_then(|link| link.gathered.last()) {
            self.scatter(link, gathered.gathering, given_back)?;
        }
        Ok(())
    }

    /// Settles deliveries of a subscription, of whichever queues they are.
    pub(super) fn settle_gathered(
        &mut self,
        link: ConnectionId,
        gathering: GatheringId,
        selection: Selection,
        (verdict, transaction): (Verdict, u64),
        receipt: Option<&Text>,
    ) -> Result<(), AppendError> {
        let selected = self.machine.select_gathered(gathering, selection);
        let (mut last, mut refused) = (Lsn::ZERO, selected.as_ref().err().copied());
        let mut is_any = selected.as_ref().is_ok_and(Vec::is_empty);
        for (member, selection) in selected.unwrap_or_default() {
            // What a transaction settles is passed over when all up to one are meant.
            match self.decide_verdict(member, selection, verdict, transaction) {
                Ok(()) => {
                    self.join(link, transaction);
                    last = self.commit_decision()?.max(last);
                    is_any = true;
                }
                Err(error) => refused = Some(error),
            }
        }
        if !is_any {
            let refused = refused.unwrap_or(Refused::UnknownDelivery);
            self.spoil(link, transaction);
            self.refuse(link, Refusal::Queue(refused), receipt.cloned());
            return Ok(());
        }
        if verdict == Verdict::Accept {
            self.stats.settled += 1;
        }
        let held = self.link(link);
        held.last_lsn = held.last_lsn.max(last);
        self.confirm(link, last, receipt.cloned());
        Ok(())
    }
}
