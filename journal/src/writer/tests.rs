//! The writer's own promises: chain, dense positions, budgets, window, idle seal, failure.

use super::*;
use crate::format::{Block, Parts};
use crate::{JournalId, ShardId};

const SEGMENT_SIZE: u64 = 1 << 20;

fn head(segment: u64) -> SegmentHead {
    SegmentHead {
        journal: JournalId([7; 16]),
        shard: ShardId(0),
        segment: SegmentId::from_raw(segment),
        generation: 0,
        epoch: Epoch::from_raw(1),
        first_segment: SegmentId::from_raw(1),
        size: SEGMENT_SIZE,
        inflight_blocks_max: 2,
    }
}

fn writer(segments: u64) -> Writer {
    let retained = Retained {
        oldest_segment: SegmentId::from_raw(1),
        ..Retained::default()
    };
    let mut writer = Writer::new(4 << 20, Epoch::from_raw(1), Seal::default(), retained);
    (1..=segments).for_each(|segment| writer.add_segment(head(segment)));
    writer
}

fn fragment(bytes: &[u8]) -> Record<'_> {
    Record::Fragment {
        upload: 1,
        offset: 0,
        body: Parts::One(bytes),
    }
}

fn complete(writer: &mut Writer, write: &BlockWrite) {
    let done = WriteDone {
        ticket: write.ticket,
        result: Ok(()),
    };
    writer.handle_write_done(done, 0).expect("no failure");
}

#[test]
fn blocks_chain_over_segments_and_decode() {
    let mut writer = writer(4);
    let body = vec![5; 100_000];
    let (mut previous, mut lsn, mut number) = (Checksum::NONE, 1, 1);
    let mut appended = 0;
    loop {
        match writer.append(&fragment(&body), Budget::Message) {
            Ok(_) => appended += 1,
            Err(AppendError::NoSegment) => break,
            Err(other) => panic!("{other:?}"),
        }
        while let Some(write) = writer.poll_write(9) {
            let block = Block::decode(&write.block).expect("sealed blocks are sound");
            block
                .header
                .check_place(&head(write.segment.get()), write.offset)
                .expect("in place");
            assert_eq!(block.header.previous, previous);
            assert_eq!(
                (block.header.first_lsn.get(), block.header.number.get()),
                (lsn, number)
            );
            assert!(block.records().all(|record| record.is_ok()));
            previous = block.header.identity;
            lsn = block.header.next_lsn().get();
            number += 1;
            complete(&mut writer, &write);
        }
    }
    assert_eq!(
        writer.segments_ready(),
        1,
        "one segment is kept for control records"
    );
    assert!(appended > 20);
    assert!(writer.is_drained());
    writer
        .append(&fragment(&body), Budget::Control)
        .expect("control records use the reserve");
}

#[test]
fn producers_wait_before_control_records_do() {
    let mut writer = writer(9);
    let body = vec![5; 200_000];
    while writer.append(&fragment(&body), Budget::Message).is_ok() {}
    assert_eq!(
        writer.append(&fragment(&body), Budget::Message),
        Err(AppendError::WindowFull)
    );
    let durable = writer.durable_end();
    assert!(writer.append(&fragment(&body), Budget::Control).is_ok());
    let writes = [
        writer.poll_write(0),
        writer.poll_write(0),
        writer.poll_write(0),
    ];
    let [Some(first), Some(second), None] = writes else {
        panic!("two writes in flight")
    };
    complete(&mut writer, &second);
    assert_eq!(writer.durable_end(), durable, "durable in order");
    complete(&mut writer, &first);
    assert!(writer.durable_end() > durable);
    assert!(writer.append(&fragment(&body), Budget::Message).is_ok());
}

#[test]
fn idle_seal_comes_once_and_says_how_far_it_is_durable() {
    let mut writer = writer(2);
    assert_eq!(writer.poll_timeout(), None, "nothing was written");
    let appended = writer
        .append(&fragment(b"x"), Budget::Message)
        .expect("room");
    let write = writer.poll_write(0).expect("one block");
    assert_eq!(
        writer.poll_timeout(),
        None,
        "not while a write is in flight"
    );
    complete(&mut writer, &write);
    assert_eq!(writer.poll_timeout(), Some(IDLE_SEAL_US));
    writer.handle_timeout(IDLE_SEAL_US);
    let seal = writer.poll_write(0).expect("the idle seal");
    let block = Block::decode(&seal.block).expect("sound");
    assert!(block.header.is_idle_seal());
    assert_eq!(block.header.durable_upto, appended.lsn);
    complete(&mut writer, &seal);
    assert_eq!(writer.poll_timeout(), None);
}

#[test]
fn after_a_failed_write_nothing_becomes_durable() {
    let mut writer = writer(2);
    writer
        .append(&fragment(b"x"), Budget::Message)
        .expect("room");
    let first = writer.poll_write(0).expect("one block");
    writer
        .append(&fragment(b"y"), Budget::Message)
        .expect("room");
    let second = writer.poll_write(0).expect("one block");
    let failed = WriteDone {
        ticket: first.ticket,
        result: Err(IoFailure(5)),
    };
    assert_eq!(writer.handle_write_done(failed, 0), Err(IoFailure(5)));
    let late = WriteDone {
        ticket: second.ticket,
        result: Ok(()),
    };
    assert_eq!(writer.handle_write_done(late, 0), Err(IoFailure(5)));
    assert_eq!(writer.durable_end(), Lsn::from_raw(1));
    assert!(matches!(
        writer.append(&fragment(b"z"), Budget::Control),
        Err(AppendError::Failed(IoFailure(5)))
    ));
    assert!(writer.poll_write(0).is_none());
}

#[test]
fn recent_blocks_are_read_from_memory() {
    let mut writer = writer(60);
    let mut first = None;
    for round in 0..200_u32 {
        let body = vec![round as u8; 100_000];
        let appended = writer
            .append(&fragment(&body), Budget::Control)
            .expect("room");
        first.get_or_insert(appended.location);
        while let Some(write) = writer.poll_write(0) {
            complete(&mut writer, &write);
        }
        let block = writer
            .cached_block(appended.location)
            .expect("the newest block is cached");
        let record = Record::decode_at(block, appended.location.record_offset()).expect("sound");
        assert_eq!(record, fragment(&body));
    }
    assert!(
        writer.cached_block(first.expect("appended")).is_none(),
        "the oldest was let go"
    );
}
