//! Queues whose definition comes behind their first messages: in a replay whose first segments were
//! freed, where definitions are repeated further on.

use forebay_journal::QueueId;
use forebay_journal::format::Departure;

use super::aside::Why;
use super::entry::Entry;
use super::machine::Machine;

impl Machine {
    /// A queue is defined. What its messages would have met had it been before, they meet now.
    #[cold]
    pub(super) fn define_late(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(id) else {
            return;
        };
        queue.obey_policy();
        if queue.message_count() == 0 {
            return;
        }
        self.surplus.note_ready(queue);
        if queue.is_divert() {
            self.divert_all(id);
        }
    }

    /// All that waits in the queue is on its way to another address.
    fn divert_all(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(id) else {
            return;
        };
        let mut waiting: Vec<Entry> = queue.ready.iter().copied().collect();
        queue.note_left(&waiting);
        queue.ready.remove(&mut waiting);
        let delayed = queue.aside.iter();
        let delayed = delayed.filter(|(_, why)| matches!(why, Why::Delayed { .. }));
        let delayed: Vec<u64> = delayed.map(|(entry, _)| entry.message).collect();
        for message in delayed {
            waiting.extend(self.waits.remove(id, &mut queue.aside, message));
        }
        for entry in waiting {
            self.expiring.leave(id.0, &entry);
            queue.leave_value(entry.message);
            let why = Why::Leaving(Departure::Diverted);
            self.waits.insert(id, &mut queue.aside, entry, why);
        }
    }
}
