//! The second of two readings: messages that are wanted, with their bodies, as lines of an export.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use forebay_journal::format::{Annotations, IdList, MessageFields, Parts, Record, Routing};
use forebay_journal::{Lsn, SegmentId};
use roaring::RoaringTreemap;

use crate::describe::{departure_name, routing_name};
use crate::gather::{Gathered, Store};
use crate::ledger::Ledger;
use crate::line::{
    Bytes, DuplicateIdLine, EXPORT_VERSION, HeadLine, Line, MessageLine, PartLine, Place,
    QueueLine, ShardLine, Source, TakeLine, Totals,
};
use crate::queue::{Definition, Where};
use crate::survey::BODIES;
use crate::walk::{Event, walk};

/// Which messages go out, and how.
pub(crate) trait Choose {
    /// Queues of this message, in the order of its record. None: it does not go out.
    fn places(&self, gathered: &Gathered, listed: &Listed<'_>) -> Vec<Place>;

    /// Whether blocks that do not count are looked at, too.
    fn takes_leftovers(&self) -> bool {
        false
    }

    /// Whether messages go out of whose bodies a part is missing.
    fn takes_incomplete(&self) -> bool {
        false
    }

    /// How many messages of this shard should go out.
    fn expects(&self, gathered: &Gathered) -> u64;

    /// Whether this queue is there in what goes out.
    fn is_defined(&self, _gathered: &Gathered, _queue: u64) -> bool {
        true
    }

    /// Changes what is said of a message that goes out.
    fn adjust(&self, _line: &mut MessageLine) {}
}

/// What a message's record says of where it is.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub(crate) message: u64,
    pub(crate) queues: IdList<'a>,
    /// Not delivered before; zero: at once.
    pub(crate) deliver_unix_ms: u64,
}

impl<'a> Listed<'a> {
    fn new(fields: &MessageFields, annotations: &Annotations<'_>, queues: IdList<'a>) -> Self {
        Self {
            message: fields.message.0,
            queues,
            deliver_unix_ms: annotations.deliver_unix_ms,
        }
    }

    /// Queues that it may be in.
    pub(crate) fn all(&self, ledger: &Ledger) -> Vec<u64> {
        ledger.queues_of(self.message, self.queues)
    }
}

/// Everything that a broker would find: what is still in its queues.
pub(crate) struct Held;

impl Choose for Held {
    fn places(&self, gathered: &Gathered, listed: &Listed<'_>) -> Vec<Place> {
        let ids = listed.all(&gathered.ledger).into_iter();
        ids.filter_map(|queue| place_of(&gathered.ledger, queue, listed))
            .collect()
    }

    fn expects(&self, gathered: &Gathered) -> u64 {
        gathered.ledger.held()
    }
}

/// How a message is in a queue, if it is.
///
/// A time is always said where there is one to say: whether its record, a release or a checkpoint
/// named it makes no difference to who reads it.
pub(crate) fn place_of(ledger: &Ledger, id: u64, listed: &Listed<'_>) -> Option<Place> {
    let Listed {
        message,
        deliver_unix_ms: usual,
        ..
    } = *listed;
    let queue = ledger.queues.get(&id)?;
    if !queue.holds(message) {
        return None;
    }
    let (ready_unix_ms, leaving) = match queue.place(message) {
        Where::Ready if usual == 0 => (None, None),
        Where::Ready => (Some(0), None),
        Where::Delayed { unix_ms } => (Some(unix_ms.unwrap_or(usual)), None),
        Where::Leaving(reason) => (None, Some(departure_name(reason).to_owned())),
    };
    Some(Place {
        queue: id,
        attempts: queue.attempts(message),
        ready_unix_ms,
        leaving,
    })
}

/// What went out, and what was to go out and was not found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Emitted {
    pub(crate) totals: Totals,
    /// Messages that were in a queue and whose files were reused meanwhile.
    pub(crate) gone: u64,
}

/// Hands out a whole export.
///
/// Errors: those of `take`, and files that cannot be read.
pub(crate) fn emit(
    store: &Store,
    choose: &dyn Choose,
    out: &mut dyn TakeLine,
) -> anyhow::Result<Emitted> {
    let mut emitted = Emitted::default();
    let sources: Vec<Source> = store.shards.iter().map(|one| one.source.clone()).collect();
    let shard_count = store.identity.shards.last().map_or(1, |last| last + 1);
    out.take(&Line::Head(HeadLine {
        export_version: EXPORT_VERSION,
        shard_count,
        journal: store.identity.journal.to_string(),
        sources,
    }))?;
    for gathered in &store.shards {
        let mut emitter = Emitter {
            gathered,
            choose,
            uploads: RoaringTreemap::new(),
            sent: BTreeMap::new(),
            done: RoaringTreemap::new(),
            emitted: &mut emitted,
            out: &mut *out,
        };
        emitter.shard()?;
    }
    out.take(&Line::End(emitted.totals))?;
    Ok(emitted)
}

/// Where a record was found: the segment, if it is one that is kept for bodies, and its number.
type Of = (Option<SegmentId>, Lsn);

struct Emitter<'a> {
    gathered: &'a Gathered,
    choose: &'a dyn Choose,
    /// Those whose parts go out.
    uploads: RoaringTreemap,
    /// Bytes of them that went out, where the message did not come yet.
    sent: BTreeMap<u64, u64>,
    /// Messages that went out: of a message that is on the disk twice one is enough.
    done: RoaringTreemap,
    emitted: &'a mut Emitted,
    out: &'a mut dyn TakeLine,
}

impl Emitter<'_> {
    fn put(&mut self, line: &Line) -> anyhow::Result<()> {
        self.emitted.totals.note(line);
        self.out.take(line)
    }

    fn shard(&mut self) -> anyhow::Result<()> {
        let ledger = &self.gathered.ledger;
        let (message_floor, queue_floor) = ledger.floors();
        self.put(&Line::Shard(ShardLine {
            shard: self.gathered.shard.0,
            message_floor,
            queue_floor,
        }))?;
        for (id, defined) in ledger.definitions() {
            if self.choose.is_defined(self.gathered, id) {
                self.put(&Line::Queue(self.queue(id, defined)))?;
            }
        }
        // Parts come before the message that says whose they are.
        if ledger.has_uploads() || self.choose.takes_leftovers() {
            self.each_record(|this, of, record| {
                if let Record::Message {
                    fields,
                    annotations,
                    queues,
                    ..
                }
                | Record::Moved {
                    fields,
                    annotations,
                    queues,
                    ..
                } = record
                    && fields.upload != 0
                    && this.is_of(of, fields.message.0)
                    && !this
                        .places(&Listed::new(&fields, &annotations, queues))
                        .is_empty()
                {
                    this.uploads.insert(fields.upload);
                }
                Ok(())
            })?;
        }
        self.each_record(Self::record)?;
        let expected = self.choose.expects(self.gathered);
        self.emitted.gone += expected.saturating_sub(self.done.len());
        Ok(())
    }

    fn places(&self, listed: &Listed<'_>) -> Vec<Place> {
        self.choose.places(self.gathered, listed)
    }

    /// Whether a record is that of this message: of a segment that is kept for bodies, one that a
    /// checkpoint names; else the last one. Of leftovers any.
    fn is_of(&self, (body_of, lsn): Of, message: u64) -> bool {
        let Gathered { needed, ledger, .. } = self.gathered;
        match body_of {
            Some(segment) => needed.has_own(segment, message),
            None => self.choose.takes_leftovers() || ledger.is_last(message, lsn),
        }
    }

    /// Visits all records up to the end that was found first, also those of segments that are kept
    /// for bodies: it says of which.
    fn each_record(
        &mut self,
        mut visit: impl FnMut(&mut Self, Of, Record<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Gathered {
            files,
            surveyed,
            source,
            ..
        } = self.gathered;
        let takes_leftovers = self.choose.takes_leftovers();
        walk(files, surveyed, &mut |files, event| {
            let Event::Block {
                spot,
                block,
                counts,
            } = event
            else {
                return Ok(ControlFlow::Continue(()));
            };
            let body_of = match counts {
                _ if takes_leftovers => None,
                Ok(()) => None,
                Err(BODIES) => Some(files.files[spot.file].name.segment),
                Err(_) => return Ok(ControlFlow::Continue(())),
            };
            if counts.is_ok() && block.header.first_lsn.get() > source.lsn {
                return Ok(ControlFlow::Break(()));
            }
            for (lsn, _, record) in block.records().flatten() {
                visit(self, (body_of, lsn), record)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn record(&mut self, of: Of, record: Record<'_>) -> anyhow::Result<()> {
        match record {
            Record::Fragment {
                upload,
                offset,
                body,
            } if self.uploads.contains(upload) => {
                *self.sent.entry(upload).or_default() += body.size() as u64;
                self.put(&Line::Part(PartLine {
                    shard: self.gathered.shard.0,
                    upload,
                    offset,
                    body: bytes_of(&body),
                }))
            }
            Record::Message {
                fields,
                annotations,
                queues,
                head,
                body,
            }
            | Record::Moved {
                fields,
                annotations,
                queues,
                head,
                body,
                ..
            } => {
                let is_of = self.is_of(of, fields.message.0);
                if !is_of && of.0.is_some() {
                    return Ok(());
                }
                let places = self.places(&Listed::new(&fields, &annotations, queues));
                // Of one that is said further on, the id is said here alone.
                if !is_of || places.is_empty() {
                    return self.remember(&fields, &annotations, queues);
                }
                let sent = self.sent.remove(&fields.upload).unwrap_or(0);
                let is_whole = sent + body.size() as u64 == fields.body_size;
                if !is_whole && !self.choose.takes_incomplete() {
                    return Ok(());
                }
                if !self.done.insert(fields.message.0) {
                    return Ok(());
                }
                let mut line = self.message(&fields, &annotations, places, [&head, &body]);
                self.choose.adjust(&mut line);
                self.put(&Line::Message(line))
            }
            Record::DuplicateId {
                message,
                routing,
                address,
                id,
            } if of.0.is_none() => self.put(&Line::DuplicateId(DuplicateIdLine {
                shard: self.gathered.shard.0,
                message: message.0,
                routing: routing_name(routing).to_owned(),
                address: address.into(),
                id: id.into(),
            })),
            _ => Ok(()),
        }
    }

    /// Says the id of a message that is gone: whoever sends it again is still recognized.
    fn remember(
        &mut self,
        fields: &MessageFields,
        annotations: &Annotations<'_>,
        queues: IdList<'_>,
    ) -> anyhow::Result<()> {
        let ledger = &self.gathered.ledger;
        if annotations.duplicate_id.is_empty() || ledger.was_rolled_back(fields.message.0) {
            return Ok(());
        }
        let first = queues.queues().next();
        let queue = first.and_then(|first| ledger.queues.get(&first.0));
        let Some(defined) = queue.and_then(|queue| queue.defined.as_ref()) else {
            return Ok(());
        };
        self.put(&Line::DuplicateId(DuplicateIdLine {
            shard: self.gathered.shard.0,
            message: fields.message.0,
            routing: routing_name(defined.routing).to_owned(),
            address: defined.address[..].into(),
            id: annotations.duplicate_id.into(),
        }))
    }

    fn queue(&self, queue: u64, defined: &Definition) -> QueueLine {
        let flags = defined.flags;
        QueueLine {
            shard: self.gathered.shard.0,
            queue,
            name: defined.name[..].into(),
            address: defined.address[..].into(),
            filter: defined.filter[..].into(),
            routing: routing_name(defined.routing).to_owned(),
            is_auto_created: flags.is_auto_created,
            is_subscription: flags.is_subscription,
            is_shared: flags.is_shared,
            is_no_local: flags.is_no_local,
            is_paused: flags.is_paused,
            is_divert: flags.is_divert,
            is_retroactive: flags.is_retroactive,
        }
    }

    fn message(
        &self,
        fields: &MessageFields,
        annotations: &Annotations<'_>,
        queues: Vec<Place>,
        [head, body]: [&Parts<'_>; 2],
    ) -> MessageLine {
        MessageLine {
            shard: self.gathered.shard.0,
            message: fields.message.0,
            queues,
            upload: fields.upload,
            body_size: fields.body_size,
            timestamp_unix_ms: fields.timestamp_unix_ms,
            expires_unix_ms: fields.expires_unix_ms,
            priority: fields.priority,
            encoding: fields.encoding,
            has_content_length: fields.flags.has_content_length,
            is_durable: fields.flags.is_durable,
            has_own_expiry: fields.flags.has_own_expiry,
            deliver_unix_ms: annotations.deliver_unix_ms,
            group: annotations.group,
            is_group_end: annotations.is_group_end,
            last_value: annotations.last_value.into(),
            duplicate_id: annotations.duplicate_id.into(),
            address: annotations.address.into(),
            head: bytes_of(head),
            body: bytes_of(body),
        }
    }
}

fn bytes_of(parts: &Parts<'_>) -> Bytes {
    Bytes(parts.pieces().flatten().copied().collect())
}

/// The routing of this name.
pub(crate) fn routing_of(name: &str) -> Option<Routing> {
    let all = [Routing::Anycast, Routing::Multicast];
    all.into_iter().find(|one| routing_name(*one) == name)
}
