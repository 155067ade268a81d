//! One shard of a new store: what lines say, checked, as records.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use forebay_journal::format::{
    Annotations, Departure, IdList, MessageFields, MessageFlags, PRIORITY_MAX, Parts, QueueFlags,
    Record,
};
use forebay_journal::{MessageId, QueueId};
use roaring::RoaringTreemap;

use crate::build::{NewJournal, Place};
use crate::describe::departure_name;
use crate::emit::routing_of;
use crate::line::{self, DuplicateIdLine, MessageLine, PartLine, QueueLine, ShardLine};

/// Encoding of STOMP 1.2, the only one there is.
const ENCODING: u8 = 1;
/// Attempts that a broker counts.
const ATTEMPTS_MAX: u16 = 2047;
/// Uploads that are open at once: more than any broker has connections.
const UPLOADS_MAX: usize = 1 << 20;

/// Where a message is in a queue when only its record has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    Ready,
    Waiting,
    Leaving,
}

/// What is known of a shard while its lines come.
pub(crate) struct NewShard {
    journal: NewJournal,
    message_floor: u64,
    queue_floor: u64,
    /// Whether what comes into it leaves at once.
    queues: BTreeMap<u64, bool>,
    messages: RoaringTreemap,
    /// Bytes of each upload whose message did not come yet.
    uploads: BTreeMap<u64, u64>,
    /// Uploads that have their message.
    ended: RoaringTreemap,
}

impl NewShard {
    pub(crate) fn new(place: Place, line: &ShardLine) -> anyhow::Result<Self> {
        let (message_floor, queue_floor) = (line.message_floor, line.queue_floor);
        ensure!(
            message_floor <= 1 << 62 && queue_floor <= 1 << 62,
            "floors of names end at 2^62"
        );
        Ok(Self {
            journal: NewJournal::new(place, message_floor, queue_floor),
            message_floor,
            queue_floor,
            queues: BTreeMap::new(),
            messages: RoaringTreemap::new(),
            uploads: BTreeMap::new(),
            ended: RoaringTreemap::new(),
        })
    }

    pub(crate) fn stop(&mut self, unix_ms: u64) -> anyhow::Result<()> {
        let mut open = self.uploads.keys();
        if let Some(upload) = open.next() {
            anyhow::bail!("upload {upload} has parts and no message");
        }
        self.journal.stop(unix_ms)
    }

    pub(crate) fn queue(&mut self, line: &QueueLine) -> anyhow::Result<()> {
        let queue = line.queue;
        ensure!(
            queue < self.queue_floor,
            "queue {queue} is not below the floor of names"
        );
        for (what, bytes) in [
            ("name", &line.name),
            ("address", &line.address),
            ("filter", &line.filter),
        ] {
            ensure!(
                bytes.0.len() <= usize::from(u16::MAX) && std::str::from_utf8(&bytes.0).is_ok(),
                "the {what} of queue {queue} is no text of up to 65535 B"
            );
        }
        let former = self.queues.insert(queue, line.is_divert);
        ensure!(former.is_none(), "queue {queue} comes twice");
        let routing = routing_of(&line.routing);
        self.journal.append(&Record::QueueDefine {
            queue: QueueId(queue),
            routing: routing.with_context(|| format!("no routing {}", line.routing))?,
            flags: QueueFlags {
                is_auto_created: line.is_auto_created,
                is_subscription: line.is_subscription,
                is_shared: line.is_shared,
                is_no_local: line.is_no_local,
                is_paused: line.is_paused,
                is_divert: line.is_divert,
                is_retroactive: line.is_retroactive,
            },
            address: &line.address.0,
            name: &line.name.0,
            filter: &line.filter.0,
        })
    }

    fn check_name(&self, what: &str, name: u64) -> anyhow::Result<()> {
        ensure!(
            name < self.message_floor,
            "{what} {name} is not below the floor of names"
        );
        Ok(())
    }

    pub(crate) fn part(&mut self, line: &PartLine) -> anyhow::Result<()> {
        let PartLine {
            upload,
            offset,
            body,
            ..
        } = line;
        self.check_name("upload", *upload)?;
        ensure!(*upload != 0, "upload 0 means none");
        ensure!(
            !self.ended.contains(*upload),
            "a part of upload {upload} behind its message"
        );
        ensure!(
            self.uploads.len() < UPLOADS_MAX,
            "more than {UPLOADS_MAX} uploads without their messages"
        );
        let bytes = self.uploads.entry(*upload).or_default();
        ensure!(
            bytes == offset,
            "a part of upload {upload} from byte {offset}, but {bytes} bytes came before"
        );
        *bytes += body.0.len() as u64;
        self.journal.append(&Record::Fragment {
            upload: *upload,
            offset: *offset,
            body: Parts::One(&body.0),
        })
    }

    pub(crate) fn message(&mut self, line: &MessageLine) -> anyhow::Result<()> {
        self.check_message(line)?;
        let message = line.message;
        let waiting = line.deliver_unix_ms;
        let queues: Vec<_> = line.queues.iter().map(|place| place.queue.into()).collect();
        self.journal.append(&Record::Message {
            fields: MessageFields {
                message: MessageId(message),
                transaction: 0,
                upload: line.upload,
                body_size: line.body_size,
                timestamp_unix_ms: line.timestamp_unix_ms,
                expires_unix_ms: line.expires_unix_ms,
                priority: line.priority,
                encoding: line.encoding,
                flags: MessageFlags {
                    has_content_length: line.has_content_length,
                    is_durable: line.is_durable,
                    has_own_expiry: line.has_own_expiry,
                },
            },
            annotations: Annotations {
                deliver_unix_ms: waiting,
                group: line.group,
                is_group_end: line.is_group_end,
                last_value: &line.last_value.0,
                duplicate_id: &line.duplicate_id.0,
                address: &line.address.0,
            },
            queues: IdList(&queues),
            head: Parts::One(&line.head.0),
            body: Parts::One(&line.body.0),
        })?;
        let places = &line.queues;
        places
            .iter()
            .try_for_each(|place| self.place(message, place, waiting))
    }

    fn check_message(&mut self, line: &MessageLine) -> anyhow::Result<()> {
        let message = line.message;
        self.check_name("message", message)?;
        ensure!(
            self.messages.insert(message),
            "message {message} comes twice"
        );
        ensure!(
            line.priority <= PRIORITY_MAX && line.encoding == ENCODING,
            "message {message} has a priority or encoding that there is not"
        );
        ensure!(!line.queues.is_empty(), "message {message} is in no queue");
        for (index, place) in line.queues.iter().enumerate() {
            let queue = place.queue;
            ensure!(
                self.queues.contains_key(&queue),
                "message {message} is in queue {queue}, which was not defined before"
            );
            let before = &line.queues[..index];
            ensure!(
                before.iter().all(|other| other.queue != queue),
                "message {message} is twice in queue {queue}"
            );
        }
        for text in [&line.last_value, &line.duplicate_id, &line.address] {
            ensure!(
                text.0.len() <= usize::from(u16::MAX),
                "an annotation of message {message} is too long"
            );
        }
        let uploaded = match line.upload {
            0 => 0,
            upload => {
                self.ended.insert(upload);
                self.uploads.remove(&upload).unwrap_or(0)
            }
        };
        ensure!(
            uploaded + line.body.0.len() as u64 == line.body_size,
            "message {message} has {} B of body, and {uploaded} B came in parts; it should have {}",
            line.body.0.len(),
            line.body_size
        );
        Ok(())
    }

    /// Brings the message to where it was in a queue, as often delivered.
    fn place(&mut self, message: u64, place: &line::Place, waiting: u64) -> anyhow::Result<()> {
        let queue = QueueId(place.queue);
        let is_divert = self.queues.get(&place.queue).copied().unwrap_or(false);
        // What its record alone makes of it.
        let begin = match (is_divert, waiting) {
            (true, _) => Begin::Leaving,
            (false, 0) => Begin::Ready,
            (false, _) => Begin::Waiting,
        };
        let one = [message.into()];
        let messages = IdList(&one);
        let release = |ready_unix_ms| Record::Release {
            queue,
            transaction: 0,
            ready_unix_ms,
            messages,
        };
        ensure!(
            place.attempts <= ATTEMPTS_MAX,
            "message {message} was delivered more than {ATTEMPTS_MAX} times"
        );
        if place.attempts > 0 {
            if begin != Begin::Ready {
                self.journal.append(&release(0))?;
            }
            for attempt in 0..place.attempts {
                if attempt > 0 {
                    self.journal.append(&release(0))?;
                }
                self.journal.append(&Record::Handout { queue, messages })?;
            }
        }
        if let Some(name) = &place.leaving {
            ensure!(
                place.ready_unix_ms.is_none(),
                "message {message} cannot wait and leave"
            );
            let reason = departure_of(name).with_context(|| format!("no reason {name}"))?;
            let depart = Record::Depart {
                queue,
                transaction: 0,
                reason,
                messages,
            };
            let is_so = begin == Begin::Leaving && reason == Departure::Diverted;
            return if is_so && place.attempts == 0 {
                Ok(())
            } else {
                self.journal.append(&depart)
            };
        }
        let is_untouched = place.attempts == 0;
        match (begin, place.ready_unix_ms) {
            (Begin::Ready, None | Some(0)) | (Begin::Waiting, None) if is_untouched => Ok(()),
            (Begin::Waiting, Some(time)) if is_untouched && time == waiting => Ok(()),
            (Begin::Ready, Some(time)) if is_untouched => {
                // Only what is aside can be told to wait.
                let reason = Departure::Diverted;
                self.journal.append(&Record::Depart {
                    queue,
                    transaction: 0,
                    reason,
                    messages,
                })?;
                self.journal.append(&release(time))
            }
            (_, time) => self.journal.append(&release(time.unwrap_or(0))),
        }
    }

    pub(crate) fn duplicate_id(&mut self, line: &DuplicateIdLine) -> anyhow::Result<()> {
        self.check_name("message", line.message)?;
        ensure!(
            !line.id.0.is_empty() && line.id.0.len() <= usize::from(u16::MAX),
            "an id of 1 to 65535 B"
        );
        ensure!(
            line.address.0.len() <= usize::from(u16::MAX)
                && std::str::from_utf8(&line.address.0).is_ok(),
            "an address that is no text of up to 65535 B"
        );
        let routing = routing_of(&line.routing);
        self.journal.append(&Record::DuplicateId {
            message: MessageId(line.message),
            routing: routing.with_context(|| format!("no routing {}", line.routing))?,
            address: &line.address.0,
            id: &line.id.0,
        })
    }
}

fn departure_of(name: &str) -> Option<Departure> {
    let all = [
        Departure::AttemptsExceeded,
        Departure::Rejected,
        Departure::Expired,
        Departure::Diverted,
    ];
    all.into_iter().find(|one| departure_name(*one) == name)
}
