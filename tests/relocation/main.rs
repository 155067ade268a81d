//! One message of every N stays for ever (features 6.9): what the journal takes on the disk, and
//! what is written anew for that. A shard over a disk in memory, with small segments.
//!
//! A checkpoint moves the place where a replay begins, and below it the sparsest segments go first:
//! the disk takes 1.3 times what is needed and a constant.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod disk;

use disk::{Client, Disk, SEGMENT_SIZE};

/// Disk per hundred bytes that are needed.
const LIVE_MAX_PERCENT: u64 = 130;
/// Segments beside those: what is dead before the work begins, the present one, those prepared,
/// and what a checkpoint did not pass yet.
const SEGMENTS_MAX: u64 = 18;

/// A body that says which it is.
fn body(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Sends messages of these lengths; those that `stays` are never acknowledged.
fn run(count: u64, len: impl Fn(u64) -> usize, stays: impl Fn(u64) -> bool, most: u64) -> Disk {
    let mut disk = Disk::new();
    let mut producer = Client::connect(&mut disk);
    let mut consumer = Client::subscribe(&mut disk, "all");
    let (mut sent, mut seen) = (0, 0);
    let mut acks = Vec::new();
    while seen < count {
        // Many at a time, so that blocks are full.
        while sent < count && sent < seen + 64 && disk.admits(&producer) {
            producer.send(&mut disk, "all", &body(sent, len(sent)));
            sent += 1;
        }
        disk.turn();
        disk.check_space(most);
        for message in consumer.take(&mut disk) {
            assert_eq!(message.body, body(seen, len(seen)), "in order, whole");
            if !stays(seen) {
                acks.push(message.token);
            }
            seen += 1;
        }
        acks.drain(..)
            .for_each(|token| consumer.ack(&mut disk, &token));
        producer.take(&mut disk);
    }
    disk.settle();
    // Who held them goes; somebody else gets just those, as they were.
    consumer.leave(&mut disk);
    let mut heir = Client::subscribe(&mut disk, "all");
    for number in (0..count).filter(|number| stays(*number)) {
        let message = heir.next(&mut disk);
        assert!(
            message.body == body(number, len(number)),
            "message {number}"
        );
        heir.ack(&mut disk, &message.token);
    }
    disk.settle();
    disk
}

#[test]
fn one_of_every_n_for_ever_pins_nothing() {
    for n in [10, 100, 1000, 10_000] {
        let disk = run(
            40_000,
            |_| 1024,
            |number| number.is_multiple_of(n),
            SEGMENTS_MAX,
        );
        // Few segments that are nearly dead are left alone.
        let is_worth_it = 40_000 / n > 8;
        disk.report(n, is_worth_it);
    }
}

/// Those that stay are longer than a block: their parts are copied, and they come whole.
#[test]
fn long_messages_that_stay_pin_nothing() {
    let len = |number: u64| {
        if number.is_multiple_of(100) {
            300 << 10
        } else {
            4 << 10
        }
    };
    let disk = run(
        6_000,
        len,
        |number| number.is_multiple_of(50),
        SEGMENTS_MAX + 6,
    );
    disk.report(50, true);
}

/// Deliveries that wait for a client that reads nothing, one of them half sent, know the places
/// that their messages had; those are written anew and their segments freed meanwhile.
#[test]
fn who_reads_nothing_for_long_gets_all_the_same() {
    let len = |number: u64| if number == 40 { 900 << 10 } else { 6_000 };
    let mut disk = Disk::new();
    let mut producer = Client::connect(&mut disk);
    let mut slow = Client::subscribe(&mut disk, "slow");
    disk.stall(Some(&slow));
    let first = disk.oldest();
    let mut consumer = Client::subscribe(&mut disk, "all");
    let mut sent = 0_u64;
    for number in 0..200 {
        producer.send(&mut disk, "slow", &body(number, len(number)));
        (0..8).for_each(|_| disk.turn());
        // What others take at once lies between.
        for _ in 0..16 {
            producer.send(&mut disk, "all", &body(sent, 4096));
            sent += 1;
            disk.turn();
        }
        for message in consumer.take(&mut disk) {
            consumer.ack(&mut disk, &message.token);
        }
        producer.take(&mut disk);
    }
    let mut seen = sent - 16;
    while seen < 20_000 {
        while sent < seen + 64 && disk.admits(&producer) {
            producer.send(&mut disk, "all", &body(sent, 1024));
            sent += 1;
        }
        disk.turn();
        for message in consumer.take(&mut disk) {
            consumer.ack(&mut disk, &message.token);
            seen += 1;
        }
        producer.take(&mut disk);
    }
    assert!(
        disk.oldest() > first + 3,
        "segments of the slow ones are freed"
    );
    disk.stall(None);
    for number in 0..200 {
        let message = slow.next(&mut disk);
        assert!(
            message.body == body(number, len(number)),
            "message {number}"
        );
        slow.ack(&mut disk, &message.token);
    }
    disk.settle();
}

#[test]
fn everything_is_freed_when_nothing_stays() {
    let disk = run(20_000, |_| 1024, |_| false, SEGMENTS_MAX);
    assert!(
        disk.disk_bytes() <= 4 * SEGMENT_SIZE,
        "{}",
        disk.disk_bytes()
    );
    assert_eq!(disk.space().rewritten_bytes, 0, "nothing was worth it");
}
