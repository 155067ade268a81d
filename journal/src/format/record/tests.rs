//! Round trip of arbitrary records, and no panic on arbitrary bytes.

use proptest::prelude::*;

use super::*;
use crate::Location;

fn parts(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..max)
}

fn ids() -> impl Strategy<Value = Vec<U64>> {
    proptest::collection::vec(any::<u64>().prop_map(U64::new), 0..9)
}

fn round_trip(record: &Record<'_>) {
    let size = encoded_size(record);
    let mut bytes = vec![0xAA; size + 8];
    assert_eq!(encode_record(record, &mut bytes), size);
    assert_eq!(bytes[size..], [0xAA; 8], "wrote behind the record");
    let (decoded, stride) = record_at(&bytes[..size]).expect("what was encoded decodes");
    assert_eq!(stride, size);
    assert_eq!(&decoded, record);
}

proptest! {
    #[test]
    fn messages_round_trip(
        numbers in proptest::array::uniform6(any::<u64>()), priority in 0..=9_u8, encoding: u8,
        flags: (bool, bool), queues in ids(), head in parts(99), body in parts(999), cut: u16,
        last_value in parts(9), duplicate_id in parts(9), address in parts(9),
        is_group_end: bool, is_plain: bool,
    ) {
        let annotations = Annotations {
            deliver_unix_ms: numbers[3], group: numbers[4] % 2, is_group_end,
            last_value: &last_value, duplicate_id: &duplicate_id,
            address: &address,
        };
        let annotations = if is_plain { Annotations::default() } else { annotations };
        let at = usize::from(cut) % (body.len() + 1);
        let pieces = [&body[..at], &body[at..]];
        let upload = if flags.0 { numbers[2] } else { 0 };
        round_trip(&Record::Message {
            fields: MessageFields {
                message: MessageId(numbers[0]), transaction: numbers[1], upload,
                body_size: body.len() as u64 + if upload == 0 { 0 } else { numbers[3] % 1000 },
                timestamp_unix_ms: numbers[4], expires_unix_ms: numbers[5], priority, encoding,
                flags: MessageFlags { has_content_length: flags.0, is_durable: flags.1,
                    has_own_expiry: flags.0 != flags.1 },
            },
            annotations, queues: IdList(&queues),
            head: Parts::One(&head), body: Parts::Many(&pieces),
        });
    }

    #[test]
    fn moved_messages_round_trip(
        numbers in proptest::array::uniform5(any::<u64>()), priority in 0..=9_u8, encoding: u8,
        flags: (bool, bool),
        at in proptest::collection::vec(any::<(u64, u16, u8, u64, bool)>(), 0..5),
        head in parts(99), body in parts(999), last_value in parts(9), is_end: bool, is_plain: bool,
    ) {
        let annotations = Annotations {
            group: numbers[4] % 2, is_group_end: is_end, last_value: &last_value,
            ..Annotations::default()
        };
        let annotations = if is_plain { Annotations::default() } else { annotations };
        let queues: Vec<U64> = at.iter().map(|(queue, ..)| U64::new(*queue)).collect();
        let standings: Vec<Standing> = at.iter().map(|(_, attempts, pick, time, is_replaced)| {
            let stands = match pick % 4 {
                0 => Stands::Ready,
                1 => Stands::Delivered,
                2 => Stands::Delayed { ready_unix_ms: (*time).max(1) },
                _ => Stands::Leaving(Departure::Expired),
            };
            Standing { stands, attempts: *attempts, is_replaced: *is_replaced }
        }).collect();
        let bytes: Vec<StandingBytes> = standings.iter().map(|one| (*one).into()).collect();
        prop_assert!(Standings::new(&bytes).iter().eq(standings));
        let upload = if flags.0 { numbers[2] } else { 0 };
        round_trip(&Record::Moved {
            fields: MessageFields {
                message: MessageId(numbers[0]), transaction: 0, upload,
                body_size: body.len() as u64 + if upload == 0 { 0 } else { numbers[3] % 1000 },
                timestamp_unix_ms: numbers[4], expires_unix_ms: numbers[1], priority, encoding,
                flags: MessageFlags { has_content_length: flags.0, is_durable: flags.1,
                    has_own_expiry: flags.0 != flags.1 },
            },
            annotations, queues: IdList(&queues), standings: Standings::new(&bytes),
            head: Parts::One(&head), body: Parts::One(&body),
        });
    }

    #[test]
    fn other_records_round_trip(
        numbers in proptest::array::uniform6(any::<u64>()), sum in parts(17), messages in ids(),
        address in parts(300), name in parts(300), pick in 0..15_u8, auto: bool, durable: bool,
    ) {
        let [a, b, c, d, e, f] = numbers;
        let queue = QueueId(a);
        let outcome = [Outcome::Accepted, Outcome::Rejected, Outcome::Expired,
            Outcome::DeadLettered, Outcome::Dropped, Outcome::Replaced,
            Outcome::Diverted][usize::from(pick % 7)];
        let state = [TransactionState::Prepared, TransactionState::Committed,
            TransactionState::RolledBack, TransactionState::Decided,
            TransactionState::Ended][usize::from(pick % 5)];
        let reason = [Departure::AttemptsExceeded, Departure::Rejected,
            Departure::Expired, Departure::Diverted][usize::from(pick % 4)];
        let routing = if auto { Routing::Anycast } else { Routing::Multicast };
        let flags = QueueFlags { is_auto_created: auto, is_subscription: durable,
            is_shared: pick & 1 != 0, is_no_local: pick & 2 != 0,
            is_divert: pick & 4 != 0, is_paused: pick & 2 != 0,
            is_retroactive: pick & 8 != 0 };
        let messages = IdList(&messages);
        let location = Location::new(SegmentId::from_raw(1 + a % (u64::from(u32::MAX) - 1)),
            4096 * (1 + b % 1000), 192 + (c % 1000) as u32 * 8);
        let entry = CheckpointEntry::new(MessageId(b), location, d as u32, e as u16, pick % 10);
        let fragments = [CheckpointFragment::new(location, f as u32)];
        let fields = CheckpointFields {
            state: [Stands::Ready, Stands::Delivered,
                Stands::Delayed { ready_unix_ms: a.max(1) },
                Stands::Leaving(reason)][usize::from(pick % 4)],
            expires_unix_ms: c, group: d, is_group_end: auto, is_shared: durable,
            is_replaced: pick & 4 != 0, upload: f, own_size_bytes: e as u32,
            fragments_before: u32::from(pick), fragments_total: 1 + u32::from(pick),
        };
        for record in [
            Record::EpochStart {
                epoch: Epoch::from_raw(a), sealed_epoch: Epoch::from_raw(b),
                sealed_lsn: Lsn::from_raw(c), sealed_block: BlockNumber::from_raw(d),
                sealed_checksum: crate::format::checksum(&sum),
                oldest_segment: SegmentId::from_raw(e),
                message_floor: MessageId(f), queue_floor: queue,
            },
            Record::Retained {
                oldest_segment: SegmentId::from_raw(a),
                message_floor: MessageId(b), queue_floor: QueueId(c),
            },
            Record::CleanShutdown { unix_ms: a },
            Record::QueueDefine { queue, routing, flags, address: &address, name: &name,
                filter: &sum },
            Record::QueueDelete { queue },
            Record::Fragment { upload: a, offset: b, body: Parts::One(&address) },
            Record::UploadAbandoned { upload: a },
            Record::Delivery {
                queue, priority: (a % 10) as u8, first: MessageId(b), last: MessageId(c),
            },
            Record::Settle { queue, transaction: b, outcome, messages },
            Record::Release { queue, transaction: c, ready_unix_ms: b, messages },
            Record::Handout { queue, messages },
            Record::Share { queue, pairs: IdList(&messages.0[..messages.0.len() / 2 * 2]) },
            Record::Depart { queue, transaction: b, reason, messages },
            Record::DuplicateId { message: MessageId(b), routing, address: &address, id: &name },
            Record::Transaction { transaction: a, state },
            Record::Checkpoint { queue, latest_unix_ms: b,
                entries: &[entry, entry][..1 + usize::from(auto)] },
            Record::CheckpointMessage { queue, entry, fields, fragments: &fragments,
                last_value: &name },
        ] {
            round_trip(&record);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in parts(200), kind in 0..20_u16, size in 0..260_u32) {
        let mut bytes = bytes;
        let _ = record_at(&bytes);
        if bytes.len() >= RECORD_HEAD_SIZE {
            bytes[..2].copy_from_slice(&kind.to_le_bytes());
            bytes[2..4].fill(0);
            bytes[4..8].copy_from_slice(&size.to_le_bytes());
            if let Ok((record, stride)) = record_at(&bytes) {
                prop_assert!(stride <= bytes.len());
                prop_assert_eq!(encoded_size(&record), stride);
            }
        }
    }
}
