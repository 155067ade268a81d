//! Which records are asked for.

use std::ops::ControlFlow;

use forebay_journal::SegmentId;
use forebay_journal::format::{BlockHeader, IdList, Kind, Record};

use crate::cli::Wanted;
use crate::describe::kind_name;
use crate::file::OpenSegment;
use crate::horizon::Spot;
use crate::survey::Surveyed;
use crate::walk::{Event, walk};

/// Every kind of record.
pub(crate) const KINDS: [Kind; 19] = [
    Kind::EpochStart,
    Kind::Retained,
    Kind::CleanShutdown,
    Kind::QueueDefine,
    Kind::QueueDelete,
    Kind::Message,
    Kind::Fragment,
    Kind::UploadAbandoned,
    Kind::Delivery,
    Kind::Settle,
    Kind::Release,
    Kind::Transaction,
    Kind::Handout,
    Kind::Depart,
    Kind::DuplicateId,
    Kind::Share,
    Kind::Moved,
    Kind::Checkpoint,
    Kind::CheckpointMessage,
];

/// The kind of this name.
pub(crate) fn kind(name: &str) -> Result<Kind, String> {
    let found = KINDS.into_iter().find(|kind| kind_name(*kind) == name);
    found.ok_or_else(|| {
        let names = KINDS.map(kind_name).join(", ");
        format!("there is no kind {name}; the kinds are {names}")
    })
}

/// A message, and what else belongs to it under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) message: u64,
    /// Upload that holds the first part of its body; zero for none.
    pub(crate) upload: u64,
    /// Transaction it came in; zero for none.
    pub(crate) transaction: u64,
    pub(crate) priority: Option<u8>,
}

/// A message's record, and where it lies.
pub(crate) struct FoundMessage {
    pub(crate) subject: Subject,
    pub(crate) spot: Spot,
    pub(crate) record_offset: u32,
    pub(crate) lsn: u64,
    /// Why it does not count, if it does not.
    pub(crate) counts: Result<(), &'static str>,
}

impl Subject {
    /// A message of which no record is known.
    pub(crate) const fn nameless(message: u64) -> Self {
        Self {
            message,
            upload: 0,
            transaction: 0,
            priority: None,
        }
    }

    /// Whether the record is about it.
    pub(crate) fn is_in(&self, record: &Record<'_>) -> bool {
        let lists = |messages: IdList<'_>| messages.messages().any(|one| one.0 == self.message);
        match *record {
            Record::Message { fields, .. } | Record::Moved { fields, .. } => {
                fields.message.0 == self.message
            }
            Record::Fragment { upload, .. } | Record::UploadAbandoned { upload } => {
                upload != 0 && upload == self.upload
            }
            Record::Delivery {
                priority,
                first,
                last,
                ..
            } => {
                (first.0..=last.0).contains(&self.message)
                    && self.priority.is_none_or(|own| own == priority)
            }
            Record::Settle { messages, .. }
            | Record::Release { messages, .. }
            | Record::Handout { messages, .. }
            | Record::Depart { messages, .. } => lists(messages),
            Record::Share { pairs, .. } => pairs.pairs().any(|(_, one)| one.0 == self.message),
            Record::Transaction { transaction, .. } => {
                transaction != 0 && transaction == self.transaction
            }
            Record::DuplicateId { message, .. } => message.0 == self.message,
            Record::Checkpoint { entries, .. } => {
                entries.iter().any(|one| one.message().0 == self.message)
            }
            Record::CheckpointMessage { entry, .. } => entry.message().0 == self.message,
            Record::EpochStart { .. }
            | Record::Retained { .. }
            | Record::CleanShutdown { .. }
            | Record::QueueDefine { .. }
            | Record::QueueDelete { .. } => false,
        }
    }
}

/// Looks for the record of a message; of several, which leftovers bring about and
/// writing anew, the last one that counts.
pub(crate) fn find_message(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    message: u64,
) -> anyhow::Result<Option<FoundMessage>> {
    let mut found: Option<FoundMessage> = None;
    walk(files, surveyed, &mut |_, event| {
        let Event::Block {
            spot,
            block,
            counts,
        } = event
        else {
            return Ok(ControlFlow::Continue(()));
        };
        for (lsn, record_offset, record) in block.records().flatten() {
            let (Record::Message { fields, .. } | Record::Moved { fields, .. }) = record else {
                continue;
            };
            if fields.message.0 != message {
                continue;
            }
            if found
                .as_ref()
                .is_some_and(|one| one.counts.is_ok() && counts.is_err())
            {
                continue;
            }
            // One that is written anew came in no transaction of its own.
            let former = found.as_ref().map_or(0, |one| one.subject.transaction);
            let subject = Subject {
                message,
                upload: fields.upload,
                transaction: fields.transaction.max(former),
                priority: Some(fields.priority),
            };
            found = Some(FoundMessage {
                subject,
                spot,
                record_offset,
                lsn: lsn.get(),
                counts,
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// All that `records` was asked for beside queues.
pub(crate) struct Filter<'a> {
    pub(crate) wanted: &'a Wanted,
    pub(crate) subject: Option<Subject>,
}

impl Filter<'_> {
    /// Whether records of this block may be wanted.
    pub(crate) fn takes_block(&self, segment: SegmentId, header: &BlockHeader) -> bool {
        let wanted = self.wanted;
        let sealed = header.sealed_unix_ms;
        wanted.segment.is_none_or(|wanted| wanted == segment.get())
            && wanted.since.is_none_or(|since| sealed >= since)
            && wanted.until.is_none_or(|until| sealed <= until)
            && header.next_lsn().get() > wanted.from
            && wanted
                .upto
                .is_none_or(|upto| header.first_lsn.get() <= upto)
    }

    pub(crate) fn takes(&self, lsn: u64, record: &Record<'_>) -> bool {
        let Wanted {
            kinds, from, upto, ..
        } = self.wanted;
        (kinds.is_empty() || kinds.contains(&record.kind()))
            && lsn >= *from
            && upto.is_none_or(|upto| lsn <= upto)
            && self.subject.is_none_or(|subject| subject.is_in(record))
    }

    /// Whether nothing more can come behind this block, as far as the chain goes.
    pub(crate) fn is_behind(&self, header: &BlockHeader) -> bool {
        self.wanted
            .upto
            .is_some_and(|upto| header.first_lsn.get() > upto)
    }
}
