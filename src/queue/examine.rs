//! Filters: what the host has to be asked, and what it answers.
//!
//! The machine knows that there are filters and which message each has to be asked about next;
//! what they say is the host's.

use forebay_journal::{MessageId, QueueId};

use super::consumer::FilterId;
use super::entry::Queued;
use super::machine::Machine;
use super::spot::Spot;

/// A message that a filter has to be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examine {
    /// The queue.
    pub queue: QueueId,
    /// The filter.
    pub filter: FilterId,
    /// The message, which is ready.
    pub message: Queued,
}

impl Machine {
    /// The next message that the filter of a consumer with credit has to be asked about. It stays
    /// the next until [`Self::note_examined`] was told, or [`Self::examine_later`].
    ///
    /// While the answer for a message is missing, consumers with that filter get nothing behind
    /// it. Filters are asked as far ahead as their consumers have credit.
    pub fn poll_examine(&mut self) -> Option<Examine> {
        let (queue, filter, spot) = self.queues.poll_curious(&mut self.consumers)?;
        let entry = *self.queues.get(queue)?.ready.at(spot)?;
        Some(Examine {
            queue,
            filter,
            message: self.queued(&entry),
        })
    }

    /// Lets the others have their turns before the queue that is the next to be examined.
    pub fn examine_later(&mut self, queue: QueueId) {
        self.queues.pass_curious(queue);
    }

    /// Queues that [`Self::poll_examine`] has to look at: the bound of one turn.
    pub fn examining_count(&self) -> usize {
        self.queues.curious_count()
    }

    /// Whether consumers of this queue have filters, so that asking ahead is of use.
    pub fn has_filters(&self, queue: QueueId) -> bool {
        let queue = self.queues.get(queue);
        queue.is_some_and(|queue| queue.has_filters())
    }

    /// The filters that may be asked about this message now because nothing before it is open,
    /// whether their consumers have credit or not: who has its head at hand asks them all.
    pub fn open_filters(
        &self,
        queue: QueueId,
        message: MessageId,
    ) -> impl Iterator<Item = FilterId> + '_ {
        let queue = self.queues.get(queue).filter(|queue| queue.has_filters());
        let found = queue.and_then(|queue| {
            let spot = Spot::of(queue.ready.get(message.0)?);
            Some(queue.selective.as_ref()?.open_filters(spot, &queue.ready))
        });
        found.into_iter().flatten()
    }

    /// A filter was asked about a message. An answer that nobody waits for, because the message is
    /// ready no more, the filter has no consumers or others come first, changes nothing.
    pub fn note_examined(
        &mut self,
        queue: QueueId,
        filter: FilterId,
        message: MessageId,
        is_match: bool,
    ) {
        if let Some((queue, dirty)) = self.queues.open(queue) {
            queue.note_examined(filter, message.0, is_match);
            queue.touch(dirty);
        }
    }
}
