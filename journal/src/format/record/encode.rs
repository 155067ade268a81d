//! Records to bytes: one pass, one copy, no allocation.

use zerocopy::{Immutable, IntoBytes};

use super::layouts as raw;
use super::{
    Annotations, IdList, MessageFields, Parts, QueueFlags, RECORD_HEAD_SIZE, RECORD_SIZE_MAX,
    Record, RecordHead, U16, U32, U64,
};

/// Bytes the record takes in a block, head included, padded to 8.
pub fn encoded_size(record: &Record<'_>) -> usize {
    (RECORD_HEAD_SIZE + body_size(record)).next_multiple_of(8)
}

fn body_size(record: &Record<'_>) -> usize {
    match record {
        Record::EpochStart { .. } => size_of::<raw::EpochStart>(),
        Record::Retained { .. } => size_of::<raw::Retained>(),
        Record::CleanShutdown { .. } => size_of::<raw::CleanShutdown>(),
        Record::QueueDefine {
            address,
            name,
            filter,
            ..
        } => size_of::<raw::QueueDefine>() + address.len() + name.len() + filter.len(),
        Record::QueueDelete { .. } => size_of::<raw::QueueDelete>(),
        Record::Message {
            annotations,
            queues,
            head,
            body,
            ..
        } => {
            let fixed = size_of::<raw::Message>() + annotations_size(annotations);
            fixed + queues.len() * 8 + head.size() + body.size()
        }
        Record::Fragment { body, .. } => size_of::<raw::Fragment>() + body.size(),
        Record::UploadAbandoned { .. } => size_of::<raw::UploadAbandoned>(),
        Record::Delivery { .. } => size_of::<raw::Delivery>(),
        Record::Settle { messages, .. } => size_of::<raw::Settle>() + messages.len() * 8,
        Record::Release { messages, .. } => size_of::<raw::Release>() + messages.len() * 8,
        Record::Transaction { .. } => size_of::<raw::Transaction>(),
        Record::Handout { messages, .. } => size_of::<raw::Handout>() + messages.len() * 8,
        Record::Depart { messages, .. } => size_of::<raw::Depart>() + messages.len() * 8,
        Record::Share { pairs, .. } => size_of::<raw::Share>() + pairs.len() * 8,
        Record::Moved {
            annotations,
            queues,
            standings,
            head,
            body,
            ..
        } => {
            let fixed = size_of::<raw::Moved>() + annotations_size(annotations);
            let lists = queues.len() * 8 + standings.as_bytes().len();
            fixed + lists + head.size() + body.size()
        }
        Record::Checkpoint { .. } | Record::CheckpointMessage { .. } => {
            super::checkpoint::body_size(record)
        }
        Record::DuplicateId { address, id, .. } => {
            size_of::<raw::DuplicateId>() + address.len() + id.len()
        }
    }
}

fn annotations_size(annotations: &Annotations<'_>) -> usize {
    if annotations.is_empty() {
        return 0;
    }
    let names = [
        annotations.last_value,
        annotations.duplicate_id,
        annotations.address,
    ];
    size_of::<raw::Annotations>() + names.map(<[u8]>::len).iter().sum::<usize>()
}

/// Writes bytes forward; the caller made room for all of them.
pub(super) struct Cursor<'b> {
    out: &'b mut [u8],
    at: usize,
}

impl Cursor<'_> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(super) fn fixed(&mut self, fixed: &(impl IntoBytes + Immutable)) {
        self.bytes(fixed.as_bytes());
    }

    fn parts(&mut self, parts: &Parts<'_>) {
        for piece in parts.pieces() {
            self.bytes(piece);
        }
    }
}

/// Writes `record` to the start of `out` and returns the bytes taken, padding included.
///
/// Shape: `out` holds at least [`encoded_size`] bytes.
/// Cost: copies each byte of the record once.
/// Panics: if `out` is too small, or the record larger than [`RECORD_SIZE_MAX`] (the writer
/// fragments bodies before it comes here).
pub fn encode_record(record: &Record<'_>, out: &mut [u8]) -> usize {
    let size = RECORD_HEAD_SIZE + body_size(record);
    let stride = size.next_multiple_of(8);
    assert!(
        stride <= RECORD_SIZE_MAX,
        "record of {size} bytes does not fit a block"
    );
    let mut cursor = Cursor {
        out: &mut out[..stride],
        at: 0,
    };
    cursor.fixed(&RecordHead {
        kind: U16::new(record.kind() as u16),
        flags: U16::new(0),
        size: U32::new(size as u32),
    });
    encode_body(record, &mut cursor);
    assert_eq!(cursor.at, size, "record size computed and written differ");
    out[size..stride].fill(0);
    stride
}

fn encode_body(record: &Record<'_>, out: &mut Cursor<'_>) {
    match *record {
        Record::EpochStart { .. } | Record::Retained { .. } | Record::CleanShutdown { .. } => {
            encode_journal_record(record, out);
        }
        Record::QueueDefine { .. } | Record::QueueDelete { .. } => encode_queue(record, out),
        Record::Message {
            ref fields,
            ref annotations,
            queues,
            head,
            body,
        } => {
            encode_message(fields, annotations, queues, head.size(), out);
            out.parts(&head);
            out.parts(&body);
        }
        Record::Fragment {
            upload,
            offset,
            body,
        } => {
            out.fixed(&raw::Fragment {
                upload: U64::new(upload),
                offset: U64::new(offset),
            });
            out.parts(&body);
        }
        Record::UploadAbandoned { upload } => {
            out.fixed(&raw::UploadAbandoned {
                upload: U64::new(upload),
            });
        }
        Record::Delivery {
            queue,
            priority,
            first,
            last,
        } => out.fixed(&raw::Delivery {
            queue: U64::new(queue.0),
            first: U64::new(first.0),
            last: U64::new(last.0),
            priority,
            reserved: [0; 7],
        }),
        Record::Settle { .. }
        | Record::Release { .. }
        | Record::Handout { .. }
        | Record::Depart { .. }
        | Record::Share { .. } => encode_ids(record, out),
        Record::DuplicateId { .. } => encode_duplicate_id(record, out),
        Record::Moved { .. } => encode_moved(record, out),
        Record::Checkpoint { .. } | Record::CheckpointMessage { .. } => {
            super::checkpoint::encode(record, out);
        }
        Record::Transaction { transaction, state } => out.fixed(&raw::Transaction {
            transaction: U64::new(transaction),
            state: state as u8,
            reserved: [0; 7],
        }),
    }
}

/// Records that are about a queue as a whole.
fn encode_queue(record: &Record<'_>, out: &mut Cursor<'_>) {
    match *record {
        Record::QueueDefine {
            queue,
            routing,
            flags,
            address,
            name,
            filter,
        } => {
            out.fixed(&raw::QueueDefine {
                queue: U64::new(queue.0),
                routing: routing as u8,
                reserved: 0,
                queue_flags: U16::new(queue_bits(flags)),
                address_size: size_u16(address),
                name_size: size_u16(name),
                filter_size: size_u16(filter),
                reserved_2: U16::new(0),
            });
            out.bytes(address);
            out.bytes(name);
            out.bytes(filter);
        }
        Record::QueueDelete { queue } => out.fixed(&raw::QueueDelete {
            queue: U64::new(queue.0),
        }),
        _ => unreachable!("the caller picks the kinds"),
    }
}

fn queue_bits(flags: QueueFlags) -> u16 {
    [
        (flags.is_auto_created, raw::QUEUE_IS_AUTO_CREATED),
        (flags.is_subscription, raw::QUEUE_IS_SUBSCRIPTION),
        (flags.is_shared, raw::QUEUE_IS_SHARED),
        (flags.is_no_local, raw::QUEUE_IS_NO_LOCAL),
        (flags.is_divert, raw::QUEUE_IS_DIVERT),
        (flags.is_retroactive, raw::QUEUE_IS_RETROACTIVE),
        (flags.is_paused, raw::QUEUE_IS_PAUSED),
    ]
    .into_iter()
    .fold(
        0,
        |bits, (is_set, bit)| if is_set { bits | bit } else { bits },
    )
}

/// Records that are a list of messages of a queue.
fn encode_ids(record: &Record<'_>, out: &mut Cursor<'_>) {
    match *record {
        Record::Settle {
            queue,
            transaction,
            outcome,
            messages,
        } => {
            out.fixed(&raw::Settle {
                queue: U64::new(queue.0),
                transaction: U64::new(transaction),
                outcome: outcome as u8,
                reserved: [0; 3],
                message_count: U32::new(messages.len() as u32),
            });
            out.bytes(messages.0.as_bytes());
        }
        Record::Release {
            queue,
            transaction,
            ready_unix_ms,
            messages,
        } => {
            out.fixed(&raw::Release {
                queue: U64::new(queue.0),
                transaction: U64::new(transaction),
                ready_unix_ms: U64::new(ready_unix_ms),
                message_count: U32::new(messages.len() as u32),
                reserved: U32::new(0),
            });
            out.bytes(messages.0.as_bytes());
        }
        Record::Handout { queue, messages } => {
            out.fixed(&raw::Handout {
                queue: U64::new(queue.0),
                message_count: U32::new(messages.len() as u32),
                reserved: U32::new(0),
            });
            out.bytes(messages.0.as_bytes());
        }
        Record::Depart {
            queue,
            transaction,
            reason,
            messages,
        } => {
            out.fixed(&raw::Depart {
                queue: U64::new(queue.0),
                transaction: U64::new(transaction),
                message_count: U32::new(messages.len() as u32),
                reason: reason as u8,
                reserved: [0; 3],
            });
            out.bytes(messages.0.as_bytes());
        }
        Record::Share { queue, pairs } => {
            out.fixed(&raw::Share {
                queue: U64::new(queue.0),
                message_count: U32::new((pairs.len() / 2) as u32),
                reserved: U32::new(0),
            });
            out.bytes(pairs.0.as_bytes());
        }
        _ => unreachable!("not a list of messages: {:?}", record.kind()),
    }
}

#[cold]
fn encode_duplicate_id(record: &Record<'_>, out: &mut Cursor<'_>) {
    match *record {
        Record::DuplicateId {
            message,
            routing,
            address,
            id,
        } => {
            out.fixed(&raw::DuplicateId {
                message: U64::new(message.0),
                address_size: size_u16(address),
                id_size: size_u16(id),
                routing: routing as u8,
                reserved: [0; 3],
            });
            out.bytes(address);
            out.bytes(id);
        }
        _ => unreachable!("not a duplicate id: {:?}", record.kind()),
    }
}

#[cold]
fn encode_journal_record(record: &Record<'_>, out: &mut Cursor<'_>) {
    match *record {
        Record::EpochStart {
            epoch,
            sealed_epoch,
            sealed_lsn,
            sealed_block,
            sealed_checksum,
            oldest_segment,
            message_floor,
            queue_floor,
        } => out.fixed(&raw::EpochStart {
            epoch: U64::new(epoch.get()),
            sealed_epoch: U64::new(sealed_epoch.get()),
            sealed_lsn: U64::new(sealed_lsn.get()),
            sealed_block: U64::new(sealed_block.get()),
            sealed_checksum,
            oldest_segment: U64::new(oldest_segment.get()),
            message_floor: U64::new(message_floor.0),
            queue_floor: U64::new(queue_floor.0),
        }),
        Record::Retained {
            oldest_segment,
            message_floor,
            queue_floor,
        } => {
            out.fixed(&raw::Retained {
                oldest_segment: U64::new(oldest_segment.get()),
                message_floor: U64::new(message_floor.0),
                queue_floor: U64::new(queue_floor.0),
            });
        }
        Record::CleanShutdown { unix_ms } => {
            out.fixed(&raw::CleanShutdown {
                unix_ms: U64::new(unix_ms),
            });
        }
        _ => unreachable!("not a record about the journal itself: {:?}", record.kind()),
    }
}

fn encode_message(
    fields: &MessageFields,
    annotations: &Annotations<'_>,
    queues: IdList<'_>,
    head_size: usize,
    out: &mut Cursor<'_>,
) {
    let bits = message_bits(fields, annotations);
    out.fixed(&raw::Message {
        message: U64::new(fields.message.0),
        transaction: U64::new(fields.transaction),
        upload: U64::new(fields.upload),
        body_size: U64::new(fields.body_size),
        timestamp_unix_ms: U64::new(fields.timestamp_unix_ms),
        expires_unix_ms: U64::new(fields.expires_unix_ms),
        head_size: U32::new(head_size as u32),
        queue_count: U32::new(queues.len() as u32),
        priority: fields.priority,
        encoding: fields.encoding,
        message_flags: U16::new(bits),
        reserved: U32::new(0),
    });
    if !annotations.is_empty() {
        encode_annotations(annotations, out);
    }
    out.bytes(queues.0.as_bytes());
}

fn message_bits(fields: &MessageFields, annotations: &Annotations<'_>) -> u16 {
    let mut bits = 0;
    if fields.flags.has_content_length {
        bits |= raw::MESSAGE_HAS_CONTENT_LENGTH;
    }
    if fields.flags.is_durable {
        bits |= raw::MESSAGE_IS_DURABLE;
    }
    if fields.flags.has_own_expiry {
        bits |= raw::MESSAGE_HAS_OWN_EXPIRY;
    }
    if !annotations.is_empty() {
        bits |= raw::MESSAGE_HAS_ANNOTATIONS;
    }
    bits
}

/// Panics: if there is not one standing for each queue (our own mistake).
#[cold]
fn encode_moved(record: &Record<'_>, out: &mut Cursor<'_>) {
    let Record::Moved {
        fields,
        annotations,
        queues,
        standings,
        head,
        body,
    } = record
    else {
        unreachable!("not a moved message: {:?}", record.kind());
    };
    assert_eq!(queues.len(), standings.len(), "a queue without a standing");
    out.fixed(&raw::Moved {
        message: U64::new(fields.message.0),
        upload: U64::new(fields.upload),
        body_size: U64::new(fields.body_size),
        timestamp_unix_ms: U64::new(fields.timestamp_unix_ms),
        expires_unix_ms: U64::new(fields.expires_unix_ms),
        head_size: U32::new(head.size() as u32),
        queue_count: U32::new(queues.len() as u32),
        priority: fields.priority,
        encoding: fields.encoding,
        message_flags: U16::new(message_bits(fields, annotations)),
        reserved: U32::new(0),
    });
    if !annotations.is_empty() {
        encode_annotations(annotations, out);
    }
    out.bytes(queues.0.as_bytes());
    out.bytes(standings.as_bytes());
    out.parts(head);
    out.parts(body);
}

#[cold]
fn encode_annotations(annotations: &Annotations<'_>, out: &mut Cursor<'_>) {
    let flags = if annotations.is_group_end {
        raw::ANNOTATION_IS_GROUP_END
    } else {
        0
    };
    out.fixed(&raw::Annotations {
        deliver_unix_ms: U64::new(annotations.deliver_unix_ms),
        group: U64::new(annotations.group),
        annotation_flags: U16::new(flags),
        last_value_size: size_u16(annotations.last_value),
        duplicate_id_size: size_u16(annotations.duplicate_id),
        address_size: size_u16(annotations.address),
    });
    out.bytes(annotations.last_value);
    out.bytes(annotations.duplicate_id);
    out.bytes(annotations.address);
}

pub(super) fn size_u16(bytes: &[u8]) -> U16 {
    U16::new(
        u16::try_from(bytes.len()).expect("names were checked against their limit at the door"),
    )
}
