//! What the admin side asks of a shard, and what it is told.
//!
//! A question about what is there is answered in the turn in which it comes. What changes
//! something is done one step a turn, so that no operator holds up clients, and answered when
//! it is durable.

use forebay_journal::format::{QueueFlags, Routing};
use forebay_journal::{QueueId, SegmentId, ShardId};

use super::{Shard, ShardMetrics, SpaceStats};
use crate::limits::{ADMIN_LISTED_MAX, ADMIN_LISTED_SIZE_MAX_BYTES};
use crate::queue::{Purge, QueueCounts, Refused};

/// A question with the name that its answer carries.
#[derive(Debug)]
pub struct AdminQuestion {
    /// Chosen by who asks.
    pub id: u64,
    /// What is asked.
    pub ask: AdminAsk,
}

/// What the admin side asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAsk {
    /// How it does.
    Health,
    /// Its numbers.
    Metrics,
    /// What of a segment is still needed.
    Segment(SegmentId),
    /// The queues from this place on: 0, or what the answer before said.
    List {
        /// The place.
        place: u32,
    },
    /// The queues that are meant by a name ([`crate::queue::Machine::find`]).
    Find {
        /// The name.
        name: Box<[u8]>,
    },
    /// Hand out nothing of a queue, or go on.
    Pause {
        /// The queue.
        queue: QueueId,
        /// Which of the two.
        is_paused: bool,
    },
    /// Drop messages of a queue, one portion.
    Purge {
        /// The queue.
        queue: QueueId,
        /// Where the portion before ended.
        from: Option<Purge>,
    },
    /// Delete a queue.
    Delete {
        /// The queue.
        queue: QueueId,
        /// Whether also under its consumers.
        is_forced: bool,
    },
}

/// An answer.
#[derive(Debug)]
pub struct AdminAnswer {
    /// Of the question.
    pub id: u64,
    /// What it says.
    pub told: AdminTold,
}

/// What the admin side is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminTold {
    /// How it does.
    Health(ShardHealth),
    /// Its numbers.
    Metrics(Box<ShardMetrics>),
    /// Records of a segment that must stay: of messages, of parts of them, of transactions.
    Segment {
        /// How many; a message in several queues counts once.
        needed: u64,
    },
    /// Queues.
    Queues {
        /// In no order that means anything.
        queues: Vec<QueueSeen>,
        /// Where to go on, if there may be more.
        next: Option<u32>,
    },
    /// It is so, durably.
    Done,
    /// Messages were dropped, durably.
    Purged {
        /// How many.
        messages: u64,
        /// Where to go on, if there may be more.
        next: Option<Purge>,
    },
    /// It is not done, and nothing changed.
    Refused(Refused),
    /// The broker stops: it is not done.
    Stopping,
}

/// How a shard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardHealth {
    /// Connections now.
    pub connections: usize,
    /// Queues now.
    pub queues: usize,
    /// Whether it is told to stop.
    pub is_stopping: bool,
    /// Whether the disk had no space for the next segment.
    pub is_disk_full: bool,
    /// Whether messages wait for a segment.
    pub is_waiting_for_segment: bool,
    /// Whether they are refused instead.
    pub is_refusing: bool,
    /// What its journal takes on the disk.
    pub space: SpaceStats,
}

/// A queue as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSeen {
    /// The shard that has it.
    pub shard: ShardId,
    /// Its name within the shard.
    pub queue: QueueId,
    /// Its name for people and clients.
    pub name: Box<[u8]>,
    /// Its address.
    pub address: Box<[u8]>,
    /// What kind of address that is.
    pub routing: Routing,
    /// Its properties.
    pub flags: QueueFlags,
    /// Whether it survives the process.
    pub is_durable: bool,
    /// What is in it; followers count as consumers.
    pub counts: QueueCounts,
}

impl Shard {
    /// The admin side asks something; [`super::Action::Tell`] brings the answer.
    ///
    /// Who asks keeps no more than `ADMIN_QUESTIONS_MAX` questions open.
    pub fn handle_admin(&mut self, question: AdminQuestion) {
        let AdminQuestion { id, ask } = question;
        let told = match ask {
            AdminAsk::Health => AdminTold::Health(self.health()),
            AdminAsk::Metrics => AdminTold::Metrics(Box::new(self.metrics())),
            AdminAsk::Segment(segment) => AdminTold::Segment {
                needed: self.host.machine.segment_use(segment).references,
            },
            AdminAsk::List { place } => self.list(place),
            AdminAsk::Find { name } => AdminTold::Queues {
                queues: self.find(&name),
                next: None,
            },
            ask @ (AdminAsk::Pause { .. } | AdminAsk::Purge { .. } | AdminAsk::Delete { .. }) => {
                return self.host.begin_operation(id, ask);
            }
        };
        self.host.tell(AdminAnswer { id, told });
    }

    fn health(&self) -> ShardHealth {
        let stats = self.stats();
        ShardHealth {
            connections: stats.connections,
            queues: self.host.machine.queue_count(),
            is_stopping: self.is_stopping(),
            is_disk_full: self.is_disk_full(),
            is_waiting_for_segment: self.is_waiting_for_segment(),
            is_refusing: self.is_refusing(),
            space: stats.space,
        }
    }

    fn list(&self, place: u32) -> AdminTold {
        let (queues, next) = self.see_queues(place, ADMIN_LISTED_MAX);
        AdminTold::Queues { queues, next }
    }

    /// Queues from a place on, up to so many or so many bytes of names, and where to go on.
    pub(super) fn see_queues(&self, place: u32, most: u32) -> (Vec<QueueSeen>, Option<u32>) {
        let (mut queues, mut bytes) = (Vec::new(), 0);
        for (next, id) in self.host.machine.queues_from(place) {
            let Some(seen) = self.host.see(id) else {
                continue;
            };
            bytes += (seen.name.len() + seen.address.len()) as u64;
            queues.push(seen);
            if queues.len() >= most as usize || bytes >= ADMIN_LISTED_SIZE_MAX_BYTES {
                return (queues, Some(next));
            }
        }
        (queues, None)
    }

    fn find(&self, name: &[u8]) -> Vec<QueueSeen> {
        let found = self.host.machine.find(name);
        found.filter_map(|id| self.host.see(id)).collect()
    }
}
