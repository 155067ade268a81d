//! Bytes to records. Never panics, whatever the bytes; every size is checked before it is used.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::layouts as raw;
use super::{
    Annotations, BlockNumber, Departure, Epoch, FormatError, IdList, Kind, Lsn, MessageFields,
    MessageFlags, MessageId, Outcome, PRIORITY_MAX, Parts, QueueFlags, QueueId, RECORD_HEAD_SIZE,
    Record, RecordHead, Routing, SegmentId, StandingBytes, Standings, TransactionState, U64,
};

/// Kind and size of a record, read without its content: for tools that skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId {
    /// Its kind.
    pub kind: Kind,
    /// Its bytes, head included, without padding.
    pub size: u32,
}

/// Reads the record at the start of `bytes`; returns it and the distance to the next.
pub(in crate::format) fn record_at(bytes: &[u8]) -> Result<(Record<'_>, usize), FormatError> {
    let (kind, content) = content_at(bytes)?;
    let stride = (RECORD_HEAD_SIZE + content.len()).next_multiple_of(8);
    decode_content(kind, content).map(|record| (record, stride))
}

/// Kind of the record at the start of `bytes`, and what it says.
fn content_at(bytes: &[u8]) -> Result<(Kind, &[u8]), FormatError> {
    let (head, _) = RecordHead::ref_from_prefix(bytes).map_err(|_| FormatError::Truncated {
        needed: RECORD_HEAD_SIZE,
        found: bytes.len(),
    })?;
    let size = head.size.get() as usize;
    let stride = size.next_multiple_of(8);
    let record = bytes.get(..stride).ok_or(FormatError::Truncated {
        needed: stride,
        found: bytes.len(),
    })?;
    if size < RECORD_HEAD_SIZE {
        return Err(FormatError::Field {
            name: "size",
            value: size as u64,
        });
    }
    zero("flags", head.flags.get().into())?;
    if record[size..].iter().any(|&byte| byte != 0) {
        return Err(FormatError::Field {
            name: "padding",
            value: 1,
        });
    }
    Ok((kind_of(head.kind.get())?, &record[RECORD_HEAD_SIZE..size]))
}

/// Reads all of what a record says. Records are large values: this one is made where it goes.
fn decode_content(kind: Kind, content: &[u8]) -> Result<Record<'_>, FormatError> {
    let mut reader = Reader { rest: content };
    if kind == Kind::Message {
        // As most are. What follows its head is its body: nothing trails.
        return message(&mut reader);
    }
    let mut decoded = decode_body(kind, &mut reader);
    if decoded.is_ok() && !reader.rest.is_empty() {
        let (name, value) = ("trailing bytes", reader.rest.len() as u64);
        decoded = Err(FormatError::Field { name, value });
    }
    decoded
}

impl Record<'_> {
    /// Reads one record that starts at `record_offset` of a sound block's bytes.
    ///
    /// Errors: the offset does not lead to a record (our own bookkeeping, or another block).
    pub fn decode_at(block: &[u8], record_offset: usize) -> Result<Record<'_>, FormatError> {
        let bytes = block.get(record_offset..).ok_or(FormatError::Truncated {
            needed: record_offset,
            found: block.len(),
        })?;
        let (kind, content) = content_at(bytes)?;
        decode_content(kind, content)
    }
}

impl RecordId {
    /// Reads kind and size of the record that starts at `record_offset` of a block.
    pub fn decode_at(block: &[u8], record_offset: usize) -> Result<Self, FormatError> {
        let found = block.len().saturating_sub(record_offset);
        let (head, _) = block
            .get(record_offset..)
            .and_then(|bytes| RecordHead::ref_from_prefix(bytes).ok())
            .ok_or(FormatError::Truncated {
                needed: RECORD_HEAD_SIZE,
                found,
            })?;
        Ok(Self {
            kind: kind_of(head.kind.get())?,
            size: head.size.get(),
        })
    }
}

fn kind_of(number: u16) -> Result<Kind, FormatError> {
    Ok(match number {
        1 => Kind::EpochStart,
        2 => Kind::Retained,
        3 => Kind::CleanShutdown,
        4 => Kind::QueueDefine,
        5 => Kind::QueueDelete,
        6 => Kind::Message,
        7 => Kind::Fragment,
        8 => Kind::UploadAbandoned,
        9 => Kind::Delivery,
        10 => Kind::Settle,
        11 => Kind::Release,
        12 => Kind::Transaction,
        13 => Kind::Handout,
        14 => Kind::Depart,
        15 => Kind::DuplicateId,
        16 => Kind::Share,
        17 => Kind::Moved,
        18 => Kind::Checkpoint,
        19 => Kind::CheckpointMessage,
        found => return Err(FormatError::Kind { found }),
    })
}

pub(super) fn zero(name: &'static str, value: u64) -> Result<(), FormatError> {
    if value == 0 {
        Ok(())
    } else {
        Err(FormatError::Field { name, value })
    }
}

pub(super) fn priority(value: u8) -> Result<u8, FormatError> {
    if value <= PRIORITY_MAX {
        Ok(value)
    } else {
        Err(FormatError::Field {
            name: "priority",
            value: value.into(),
        })
    }
}

/// Can only be advanced; never reads past its record.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn fixed<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &mut self,
    ) -> Result<&'a T, FormatError> {
        let truncated = FormatError::Truncated {
            needed: size_of::<T>(),
            found: self.rest.len(),
        };
        let (fixed, rest) = T::ref_from_prefix(self.rest).map_err(|_| truncated)?;
        self.rest = rest;
        Ok(fixed)
    }

    pub(super) fn bytes(&mut self, size: usize) -> Result<&'a [u8], FormatError> {
        let truncated = FormatError::Truncated {
            needed: size,
            found: self.rest.len(),
        };
        let (bytes, rest) = self.rest.split_at_checked(size).ok_or(truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// So many of a thing.
    pub(super) fn list<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &mut self,
        count: u32,
    ) -> Result<&'a [T], FormatError> {
        let size = (count as usize).saturating_mul(size_of::<T>());
        let bytes = self.bytes(size)?;
        <[T]>::ref_from_bytes(bytes).map_err(|_| FormatError::Truncated {
            needed: size,
            found: bytes.len(),
        })
    }

    fn ids(&mut self, count: u32) -> Result<IdList<'a>, FormatError> {
        let size = (count as usize).saturating_mul(8);
        let bytes = self.bytes(size)?;
        <[U64]>::ref_from_bytes(bytes)
            .map(IdList)
            .map_err(|_| FormatError::Truncated {
                needed: size,
                found: bytes.len(),
            })
    }

    fn standings(&mut self, count: u32) -> Result<Standings<'a>, FormatError> {
        let size = (count as usize).saturating_mul(size_of::<StandingBytes>());
        Standings::decode(self.bytes(size)?)
    }

    fn remaining(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }
}

fn decode_body<'a>(kind: Kind, reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    Ok(match kind {
        Kind::EpochStart => epoch_start(reader)?,
        Kind::Retained => {
            let fixed: &raw::Retained = reader.fixed()?;
            Record::Retained {
                oldest_segment: SegmentId::from_raw(fixed.oldest_segment.get()),
                message_floor: MessageId(fixed.message_floor.get()),
                queue_floor: QueueId(fixed.queue_floor.get()),
            }
        }
        Kind::CleanShutdown => {
            let fixed: &raw::CleanShutdown = reader.fixed()?;
            Record::CleanShutdown {
                unix_ms: fixed.unix_ms.get(),
            }
        }
        Kind::QueueDefine => queue_define(reader)?,
        Kind::QueueDelete => {
            let fixed: &raw::QueueDelete = reader.fixed()?;
            Record::QueueDelete {
                queue: QueueId(fixed.queue.get()),
            }
        }
        Kind::Message => message(reader)?,
        Kind::Moved => moved(reader)?,
        Kind::Fragment => {
            let fixed: &raw::Fragment = reader.fixed()?;
            Record::Fragment {
                upload: fixed.upload.get(),
                offset: fixed.offset.get(),
                body: Parts::One(reader.remaining()),
            }
        }
        Kind::UploadAbandoned => {
            let fixed: &raw::UploadAbandoned = reader.fixed()?;
            Record::UploadAbandoned {
                upload: fixed.upload.get(),
            }
        }
        Kind::Delivery => {
            let fixed: &raw::Delivery = reader.fixed()?;
            zero(
                "reserved",
                fixed.reserved.iter().any(|byte| *byte != 0).into(),
            )?;
            Record::Delivery {
                queue: QueueId(fixed.queue.get()),
                priority: priority(fixed.priority)?,
                first: MessageId(fixed.first.get()),
                last: MessageId(fixed.last.get()),
            }
        }
        Kind::Settle => settle(reader)?,
        Kind::Transaction => transaction(reader)?,
        Kind::Depart => depart(reader)?,
        Kind::Checkpoint => super::checkpoint::entries(reader)?,
        Kind::CheckpointMessage => super::checkpoint::message(reader)?,
        Kind::Release | Kind::Handout | Kind::DuplicateId | Kind::Share => messages(kind, reader)?,
    })
}

/// Records of messages by name that have little else to say.
fn messages<'a>(kind: Kind, reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    Ok(match kind {
        Kind::Release => {
            let fixed: &raw::Release = reader.fixed()?;
            zero("reserved", fixed.reserved.get().into())?;
            Record::Release {
                queue: QueueId(fixed.queue.get()),
                transaction: fixed.transaction.get(),
                ready_unix_ms: fixed.ready_unix_ms.get(),
                messages: reader.ids(fixed.message_count.get())?,
            }
        }
        Kind::Handout => {
            let fixed: &raw::Handout = reader.fixed()?;
            zero("reserved", fixed.reserved.get().into())?;
            Record::Handout {
                queue: QueueId(fixed.queue.get()),
                messages: reader.ids(fixed.message_count.get())?,
            }
        }
        Kind::Share => {
            let fixed: &raw::Share = reader.fixed()?;
            zero("reserved", fixed.reserved.get().into())?;
            let count = fixed.message_count.get();
            Record::Share {
                queue: QueueId(fixed.queue.get()),
                pairs: reader.ids(count.saturating_mul(2))?,
            }
        }
        Kind::DuplicateId => {
            let fixed: &raw::DuplicateId = reader.fixed()?;
            zero(
                "reserved",
                fixed.reserved.iter().any(|byte| *byte != 0).into(),
            )?;
            Record::DuplicateId {
                message: MessageId(fixed.message.get()),
                routing: routing(fixed.routing)?,
                address: reader.bytes(fixed.address_size.get().into())?,
                id: reader.bytes(fixed.id_size.get().into())?,
            }
        }
        _ => unreachable!("the caller picks the kinds"),
    })
}

fn epoch_start<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &raw::EpochStart = reader.fixed()?;
    Ok(Record::EpochStart {
        epoch: Epoch::from_raw(fixed.epoch.get()),
        sealed_epoch: Epoch::from_raw(fixed.sealed_epoch.get()),
        sealed_lsn: Lsn::from_raw(fixed.sealed_lsn.get()),
        sealed_block: BlockNumber::from_raw(fixed.sealed_block.get()),
        sealed_checksum: fixed.sealed_checksum,
        oldest_segment: SegmentId::from_raw(fixed.oldest_segment.get()),
        message_floor: MessageId(fixed.message_floor.get()),
        queue_floor: QueueId(fixed.queue_floor.get()),
    })
}

fn routing(value: u8) -> Result<Routing, FormatError> {
    match value {
        1 => Ok(Routing::Anycast),
        2 => Ok(Routing::Multicast),
        other => Err(FormatError::Field {
            name: "routing",
            value: other.into(),
        }),
    }
}

fn queue_define<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &raw::QueueDefine = reader.fixed()?;
    let reserved = u64::from(fixed.reserved) | u64::from(fixed.reserved_2.get());
    zero("reserved", reserved)?;
    let bits = fixed.queue_flags.get();
    let known = raw::QUEUE_IS_AUTO_CREATED
        | raw::QUEUE_IS_SUBSCRIPTION
        | raw::QUEUE_IS_SHARED
        | raw::QUEUE_IS_NO_LOCAL
        | raw::QUEUE_IS_PAUSED
        | raw::QUEUE_IS_DIVERT
        | raw::QUEUE_IS_RETROACTIVE;
    zero("queue_flags", (bits & !known).into())?;
    let address = reader.bytes(fixed.address_size.get().into())?;
    let name = reader.bytes(fixed.name_size.get().into())?;
    let filter = reader.bytes(fixed.filter_size.get().into())?;
    Ok(Record::QueueDefine {
        queue: QueueId(fixed.queue.get()),
        routing: routing(fixed.routing)?,
        flags: QueueFlags {
            is_auto_created: bits & raw::QUEUE_IS_AUTO_CREATED != 0,
            is_subscription: bits & raw::QUEUE_IS_SUBSCRIPTION != 0,
            is_shared: bits & raw::QUEUE_IS_SHARED != 0,
            is_no_local: bits & raw::QUEUE_IS_NO_LOCAL != 0,
            is_divert: bits & raw::QUEUE_IS_DIVERT != 0,
            is_retroactive: bits & raw::QUEUE_IS_RETROACTIVE != 0,
            is_paused: bits & raw::QUEUE_IS_PAUSED != 0,
        },
        address,
        name,
        filter,
    })
}

const MESSAGE_FLAGS: u16 = raw::MESSAGE_HAS_CONTENT_LENGTH
    | raw::MESSAGE_IS_DURABLE
    | raw::MESSAGE_HAS_ANNOTATIONS
    | raw::MESSAGE_HAS_OWN_EXPIRY;

#[cold]
fn annotations<'a>(reader: &mut Reader<'a>) -> Result<Annotations<'a>, FormatError> {
    let fixed: &raw::Annotations = reader.fixed()?;
    let bits = fixed.annotation_flags.get();
    let unknown = bits & !raw::ANNOTATION_IS_GROUP_END;
    zero("annotation_flags", unknown.into())?;
    let annotations = Annotations {
        deliver_unix_ms: fixed.deliver_unix_ms.get(),
        group: fixed.group.get(),
        is_group_end: bits & raw::ANNOTATION_IS_GROUP_END != 0,
        last_value: reader.bytes(fixed.last_value_size.get().into())?,
        duplicate_id: reader.bytes(fixed.duplicate_id_size.get().into())?,
        address: reader.bytes(fixed.address_size.get().into())?,
    };
    // One way to write each message: nothing to say is not said.
    if annotations.is_empty() {
        return Err(FormatError::Field {
            name: "annotations",
            value: 0,
        });
    }
    Ok(annotations)
}

pub(super) fn departure(value: u8) -> Result<Departure, FormatError> {
    match value {
        1 => Ok(Departure::AttemptsExceeded),
        2 => Ok(Departure::Rejected),
        3 => Ok(Departure::Expired),
        4 => Ok(Departure::Diverted),
        other => Err(FormatError::Field {
            name: "reason",
            value: other.into(),
        }),
    }
}

fn depart<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &raw::Depart = reader.fixed()?;
    zero(
        "reserved",
        fixed.reserved.iter().any(|byte| *byte != 0).into(),
    )?;
    Ok(Record::Depart {
        queue: QueueId(fixed.queue.get()),
        transaction: fixed.transaction.get(),
        reason: departure(fixed.reason)?,
        messages: reader.ids(fixed.message_count.get())?,
    })
}

fn message<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &raw::Message = reader.fixed()?;
    zero("reserved", fixed.reserved.get().into())?;
    let bits = fixed.message_flags.get();
    zero("message_flags", (bits & !MESSAGE_FLAGS).into())?;
    let priority = priority(fixed.priority)?;
    let annotations = if bits & raw::MESSAGE_HAS_ANNOTATIONS == 0 {
        Annotations::default()
    } else {
        annotations(reader)?
    };
    let queues = reader.ids(fixed.queue_count.get())?;
    let head = reader.bytes(fixed.head_size.get() as usize)?;
    let body = reader.remaining();
    check_body(fixed.upload.get(), fixed.body_size.get(), body)?;
    Ok(Record::Message {
        fields: MessageFields {
            message: MessageId(fixed.message.get()),
            transaction: fixed.transaction.get(),
            upload: fixed.upload.get(),
            body_size: fixed.body_size.get(),
            timestamp_unix_ms: fixed.timestamp_unix_ms.get(),
            expires_unix_ms: fixed.expires_unix_ms.get(),
            priority,
            encoding: fixed.encoding,
            flags: flags_of(bits),
        },
        annotations,
        queues,
        head: Parts::One(head),
        body: Parts::One(body),
    })
}

const fn flags_of(bits: u16) -> MessageFlags {
    MessageFlags {
        has_content_length: bits & raw::MESSAGE_HAS_CONTENT_LENGTH != 0,
        is_durable: bits & raw::MESSAGE_IS_DURABLE != 0,
        has_own_expiry: bits & raw::MESSAGE_HAS_OWN_EXPIRY != 0,
    }
}

/// What a message's record holds of its body is all of it, or the end of it behind an upload.
fn check_body(upload: u64, body_size: u64, body: &[u8]) -> Result<(), FormatError> {
    let here = body.len() as u64;
    if here > body_size || (upload == 0 && here < body_size) {
        return Err(FormatError::Field {
            name: "body_size",
            value: body_size,
        });
    }
    Ok(())
}

fn moved<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &raw::Moved = reader.fixed()?;
    zero("reserved", fixed.reserved.get().into())?;
    let bits = fixed.message_flags.get();
    zero("message_flags", (bits & !MESSAGE_FLAGS).into())?;
    let priority = priority(fixed.priority)?;
    let annotations = if bits & raw::MESSAGE_HAS_ANNOTATIONS == 0 {
        Annotations::default()
    } else {
        annotations(reader)?
    };
    zero("deliver_unix_ms", annotations.deliver_unix_ms)?;
    let id_size = annotations.duplicate_id.len();
    zero("duplicate_id_size", id_size as u64)?;
    let queues = reader.ids(fixed.queue_count.get())?;
    let standings = reader.standings(fixed.queue_count.get())?;
    let head = reader.bytes(fixed.head_size.get() as usize)?;
    let body = reader.remaining();
    check_body(fixed.upload.get(), fixed.body_size.get(), body)?;
    Ok(Record::Moved {
        fields: MessageFields {
            message: MessageId(fixed.message.get()),
            transaction: 0,
            upload: fixed.upload.get(),
            body_size: fixed.body_size.get(),
            timestamp_unix_ms: fixed.timestamp_unix_ms.get(),
            expires_unix_ms: fixed.expires_unix_ms.get(),
            priority,
            encoding: fixed.encoding,
            flags: flags_of(bits),
        },
        annotations,
        queues,
        standings,
        head: Parts::One(head),
        body: Parts::One(body),
    })
}

fn settle<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &raw::Settle = reader.fixed()?;
    zero(
        "reserved",
        fixed.reserved.iter().any(|&byte| byte != 0).into(),
    )?;
    Ok(Record::Settle {
        queue: QueueId(fixed.queue.get()),
        transaction: fixed.transaction.get(),
        outcome: match fixed.outcome {
            1 => Outcome::Accepted,
            2 => Outcome::Rejected,
            3 => Outcome::Expired,
            4 => Outcome::DeadLettered,
            5 => Outcome::Dropped,
            6 => Outcome::Replaced,
            7 => Outcome::Diverted,
            other => {
                return Err(FormatError::Field {
                    name: "outcome",
                    value: other.into(),
                });
            }
        },
        messages: reader.ids(fixed.message_count.get())?,
    })
}

fn transaction<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, FormatError> {
    let fixed: &raw::Transaction = reader.fixed()?;
    zero(
        "reserved",
        fixed.reserved.iter().any(|&byte| byte != 0).into(),
    )?;
    Ok(Record::Transaction {
        transaction: fixed.transaction.get(),
        state: match fixed.state {
            1 => TransactionState::Prepared,
            2 => TransactionState::Committed,
            3 => TransactionState::RolledBack,
            4 => TransactionState::Decided,
            5 => TransactionState::Ended,
            other => {
                return Err(FormatError::Field {
                    name: "state",
                    value: other.into(),
                });
            }
        },
    })
}
