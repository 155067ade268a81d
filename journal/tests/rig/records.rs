//! Records of every kind that a writer is given, with contents drawn by seed.

use forebay_journal::format::{
    Annotations, CheckpointEntry, CheckpointFields, Departure, IdList, MessageFields, MessageFlags,
    Outcome, Parts, QueueFlags, Record, Routing, Standing, StandingBytes, Standings, Stands,
    TransactionState,
};
use forebay_journal::storage::memory::Random;
use forebay_journal::{Location, MessageId, QueueId, SegmentId};
use zerocopy::little_endian::U64;

/// Entries of a checkpoint, as any.
fn entries() -> [CheckpointEntry; 2] {
    let location = Location::new(SegmentId::ZERO.next(), 8192, 192);
    [4, 5].map(|name| CheckpointEntry::new(MessageId(name), location, 77, 1, 4))
}

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}

fn fields(random: &mut Random, body_size: usize) -> MessageFields {
    let is_uploaded = random.below(3) == 0;
    MessageFields {
        message: MessageId(random.draw()),
        transaction: random.below(2),
        upload: if is_uploaded { 1 + random.below(9) } else { 0 },
        body_size: body_size as u64
            + if is_uploaded {
                random.below(1 << 20)
            } else {
                0
            },
        timestamp_unix_ms: random.draw(),
        expires_unix_ms: random.draw(),
        priority: random.below(10) as u8,
        encoding: 1,
        flags: MessageFlags {
            has_content_length: random.below(2) == 0,
            is_durable: random.below(2) == 0,
            has_own_expiry: random.below(2) == 0,
        },
    }
}

/// Draws a record with up to `size` bytes of body or list and hands it to `take`.
///
/// Of the kinds that the writer does not append by itself; a clean shutdown ends an epoch and is
/// left to who ends it.
pub fn with_record<R>(random: &mut Random, size: usize, take: impl FnOnce(&Record<'_>) -> R) -> R {
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    let (head, body) = bytes.split_at(size / 4);
    let count = 1 + random.below(1 + size as u64 / 32);
    let ids: Vec<U64> = (0..count).map(|_| U64::new(random.draw())).collect();
    let (number, queue) = (random.draw(), QueueId(random.draw()));
    let messages = IdList(&ids);
    if random.below(4) == 0 {
        return take(&list(random, queue, messages, (head, body), &entries()));
    }
    if random.below(9) == 0 {
        return with_moved(random, &ids, (head, body), take);
    }
    let record = match random.below(10) {
        0 => Record::QueueDefine {
            queue,
            routing: pick(random, &[Routing::Anycast, Routing::Multicast]),
            flags: QueueFlags {
                is_auto_created: random.below(2) == 0,
                is_subscription: random.below(2) == 0,
                is_shared: random.below(2) == 0,
                is_no_local: random.below(2) == 0,
                is_divert: random.below(2) == 0,
                is_retroactive: random.below(2) == 0,
                is_paused: random.below(2) == 0,
            },
            address: head,
            name: body,
            filter: &head[..head.len() / 2],
        },
        1 => Record::QueueDelete { queue },
        2..=4 => Record::Message {
            fields: fields(random, body.len()),
            annotations: annotations(random, head),
            queues: IdList(&ids[..1 + random.below(count.min(3)) as usize]),
            head: Parts::One(head),
            body: Parts::One(body),
        },
        5 => Record::Fragment {
            upload: number,
            offset: random.draw(),
            body: Parts::One(&bytes),
        },
        6 => Record::UploadAbandoned { upload: number },
        7 => Record::Delivery {
            queue,
            priority: random.below(10) as u8,
            first: MessageId(number),
            last: MessageId(number.saturating_add(random.below(99))),
        },
        8 => Record::Settle {
            queue,
            transaction: random.below(2),
            outcome: pick(random, &OUTCOMES),
            messages,
        },
        _ => Record::Transaction {
            transaction: number,
            state: pick(random, &STATES),
        },
    };
    take(&record)
}

/// A message that was written anew.
fn with_moved<R>(
    random: &mut Random,
    ids: &[U64],
    (head, body): (&[u8], &[u8]),
    take: impl FnOnce(&Record<'_>) -> R,
) -> R {
    let stands = [
        Stands::Ready,
        Stands::Delivered,
        Stands::Delayed { ready_unix_ms: 9 },
        Stands::Leaving(Departure::Rejected),
    ];
    let queues = &ids[..1 + random.below(ids.len().min(3) as u64) as usize];
    let standings: Vec<StandingBytes> = queues
        .iter()
        .map(|_| {
            let standing = Standing {
                stands: pick(random, &stands),
                attempts: random.below(9) as u16,
                is_replaced: random.below(2) == 0,
            };
            standing.into()
        })
        .collect();
    take(&Record::Moved {
        fields: MessageFields {
            transaction: 0,
            ..fields(random, body.len())
        },
        annotations: Annotations {
            deliver_unix_ms: 0,
            duplicate_id: &[],
            ..annotations(random, head)
        },
        queues: IdList(queues),
        standings: Standings::new(&standings),
        head: Parts::One(head),
        body: Parts::One(body),
    })
}

const STATES: [TransactionState; 5] = [
    TransactionState::Prepared,
    TransactionState::Committed,
    TransactionState::RolledBack,
    TransactionState::Decided,
    TransactionState::Ended,
];

const OUTCOMES: [Outcome; 7] = [
    Outcome::Accepted,
    Outcome::Rejected,
    Outcome::Expired,
    Outcome::DeadLettered,
    Outcome::Dropped,
    Outcome::Replaced,
    Outcome::Diverted,
];

/// Of the kinds that name messages of a queue.
fn list<'a>(
    random: &mut Random,
    queue: QueueId,
    messages: IdList<'a>,
    (address, id): (&'a [u8], &'a [u8]),
    entries: &'a [CheckpointEntry],
) -> Record<'a> {
    let number = random.draw();
    match random.below(7) {
        5 => Record::Checkpoint {
            queue,
            latest_unix_ms: number,
            entries: &entries[..random.below(3) as usize],
        },
        6 => Record::CheckpointMessage {
            queue,
            entry: entries[0],
            fields: CheckpointFields {
                state: pick(random, &[Stands::Ready, Stands::Delivered]),
                expires_unix_ms: number,
                group: 0,
                is_group_end: false,
                is_shared: false,
                is_replaced: false,
                upload: 0,
                own_size_bytes: 0,
                fragments_before: 0,
                fragments_total: 0,
            },
            fragments: &[],
            last_value: &id[..id.len().min(9)],
        },
        0 => Record::Release {
            queue,
            transaction: random.below(2),
            ready_unix_ms: random.below(2) * number,
            messages,
        },
        1 => Record::Handout { queue, messages },
        2 => Record::Depart {
            queue,
            transaction: random.below(2),
            reason: pick(random, &[Departure::Rejected, Departure::Expired]),
            messages,
        },
        3 => Record::Share {
            queue,
            pairs: IdList(&messages.0[..messages.len() / 2 * 2]),
        },
        _ => Record::DuplicateId {
            message: MessageId(number),
            routing: pick(random, &[Routing::Anycast, Routing::Multicast]),
            address,
            id,
        },
    }
}

fn annotations<'a>(random: &mut Random, name: &'a [u8]) -> Annotations<'a> {
    if random.below(2) == 0 {
        return Annotations::default();
    }
    Annotations {
        deliver_unix_ms: random.below(2),
        group: random.draw(),
        is_group_end: random.below(2) == 0,
        last_value: &name[..name.len().min(3)],
        duplicate_id: &name[..name.len().min(40)],
        address: &name[..name.len().min(40)],
    }
}
