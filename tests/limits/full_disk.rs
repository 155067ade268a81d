//! A full disk: producers wait, settling goes on, and everything resumes when space returns.

#![allow(
    clippy::disallowed_methods,
    reason = "a test takes files away, and measures"
)]

use std::fs;
use std::time::Instant;

use crate::broker::Broker;
use crate::broker::process::wait_until;
use crate::broker::stomp::{Client, Frame};
use crate::full_disk_refused::status;
use crate::load::{Load, Producer, leave, next, number_of, subscribe, take_in_order};
use crate::small_disk::{disk, setup};
use crate::{OTHERS_PATIENCE, PATIENCE};

/// Waits until the broker says that the disk is full and the producer is held back by it; gives
/// how many messages were confirmed.
fn wait_full(running: &Broker, producer: &Producer) -> u64 {
    wait_until(PATIENCE, "the disk is full", || {
        running.said().contains("messages wait for space")
    });
    producer.wait_held_back()
}

const LOAD: Load = Load {
    queue: "/queue/full",
    count: 1_500,
    len: 65_536,
    is_persistent: true,
    window: 16,
};

/// 94 MiB into a disk of 64: held back, drained, resumed, all there, in order.
#[test]
fn draining_a_full_disk_lets_producers_go_on() {
    let Some(disk) = disk("full-drain") else {
        return;
    };
    let mut setup = setup(&disk);
    let running = setup.start();
    let address = running.address();
    let producer = Producer::start(address, LOAD);
    let held_at = wait_full(&running, &producer);
    println!("full disk: held back at {held_at} messages of 64 KiB");
    assert!(held_at > 400, "only {held_at} fit 64 MiB");
    let (text, report) = status(&setup);
    assert!(text.contains("the disk is full: messages wait"), "{text}");
    assert_eq!(report["shards"][0]["waiting_for_segment"], true, "{report}");
    assert_eq!(report["shards"][0]["refusing_messages"], false, "{report}");
    // Settling goes on with the disk full; what it frees lets the producer go on by itself.
    let mut client = subscribe(address, LOAD.queue, "client");
    take_in_order(&mut client, 0..100, LOAD.len);
    wait_until(PATIENCE, "the producer goes on", || {
        producer.confirmed() > held_at
    });
    take_in_order(&mut client, 100..LOAD.count, LOAD.len);
    producer.join();
    leave(client);
    assert!(running.stop().success());
}

/// Space that comes back from outside is found without anybody doing anything.
#[test]
fn space_from_outside_lets_producers_go_on() {
    let Some(disk) = disk("full-filler") else {
        return;
    };
    let mut setup = setup(&disk);
    let running = setup.start();
    let address = running.address();
    let filler = disk.fill("filler", 10 << 20);
    let load = Load { count: 400, ..LOAD };
    let producer = Producer::start(address, load);
    let held_at = wait_full(&running, &producer);
    println!("full disk: held back at {held_at} messages beside a filler");
    assert!(
        (50..300).contains(&held_at),
        "{held_at} messages in some 10 MiB"
    );
    fs::remove_file(filler).unwrap();
    let freed_at = Instant::now();
    wait_until(OTHERS_PATIENCE, "the producer goes on", || {
        producer.confirmed() > held_at
    });
    println!("full disk: went on after {:?}", freed_at.elapsed());
    producer.join();
    let mut client = subscribe(address, load.queue, "client");
    take_in_order(&mut client, 0..load.count, load.len);
    leave(client);
    assert!(running.stop().success());
}

/// One message that nobody takes, older than all that fills the disk, does not keep it full
/// (features 6.8 and 6.9): it is written anew in the space kept for that, though nothing comes in.
#[test]
fn one_old_message_does_not_keep_a_full_disk_full() {
    let Some(disk) = disk("full-pinned") else {
        return;
    };
    let mut setup = setup(&disk);
    let running = setup.start();
    let address = running.address();
    let old = Load {
        queue: "/queue/old",
        count: 1,
        ..LOAD
    };
    Producer::start(address, old).join();
    let producer = Producer::start(address, LOAD);
    let held_at = wait_full(&running, &producer);
    println!("full disk: held back at {held_at} messages behind one that stays");
    let mut client = subscribe(address, LOAD.queue, "client");
    take_in_order(&mut client, 0..LOAD.count, LOAD.len);
    producer.join();
    leave(client);
    let mut client = subscribe(address, old.queue, "client");
    take_in_order(&mut client, 0..1, old.len);
    leave(client);
    // As it is after a kill, from what is left of the journal.
    Producer::start(address, old).join();
    running.kill();
    let running = setup.start();
    let mut client = subscribe(running.address(), old.queue, "client");
    take_in_order(&mut client, 0..1, old.len);
    leave(client);
    assert!(running.stop().success());
}

/// A broker that starts on a full disk recovers, delivers and drains.
#[test]
fn a_start_on_a_full_disk_delivers_what_is_there() {
    let Some(disk) = disk("full-start") else {
        return;
    };
    let mut setup = setup(&disk);
    let running = setup.start();
    let producer = Producer::start(running.address(), Load { count: 300, ..LOAD });
    producer.join();
    disk.fill("filler", 0);
    running.kill();
    let running = setup.start();
    let mut client = subscribe(running.address(), LOAD.queue, "client");
    take_in_order(&mut client, 0..300, LOAD.len);
    leave(client);
    let producer = Producer::start(running.address(), Load { count: 100, ..LOAD });
    producer.join();
    assert!(running.stop().success());
}

/// Settling one by one, each durable alone, takes a block each. The space kept for that must not
/// be eaten by producers as soon as it is begun.
#[test]
fn settling_one_by_one_goes_on_while_the_disk_is_full() {
    let Some(disk) = disk("full-settle") else {
        return;
    };
    let mut setup = setup(&disk);
    let running = setup.start();
    let address = running.address();
    disk.fill("filler", 4 << 20);
    // Some 125 to a segment: more blocks of settlements than the end of a segment holds.
    let load = Load {
        count: 1_000,
        len: 8_000,
        ..LOAD
    };
    let producer = Producer::start(address, load);
    let held_at = wait_full(&running, &producer);
    println!("full disk: held back at {held_at} messages of 8 kB");
    // What the file system finds by and by is taken, so that only settling can help.
    disk.fill("filler-2", 0);
    let mut client = Client::connect(address).unwrap();
    let headers = [
        ("id", "0"),
        ("destination", load.queue),
        ("ack", "client-individual"),
        ("activemq.prefetchSize", "1"),
    ];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    for number in 0..load.count {
        // The receipt for the one before, and the next message, in either order.
        let mut wanted = vec!["MESSAGE"; 1];
        wanted.extend((number > 0).then_some("RECEIPT"));
        while !wanted.is_empty() {
            let frame = next(&mut client);
            wanted.retain(|command| *command != frame.command);
            if frame.command == "MESSAGE" {
                assert_eq!(number_of(&frame.body), number, "out of order");
                let id = frame.header("ack").unwrap().to_owned();
                let headers = [("id", id.as_str()), ("receipt", "settled")];
                client.queue(&Frame::new("ACK", &headers, b""));
            }
        }
        client.flush().unwrap();
    }
    assert_eq!(next(&mut client).header("receipt-id"), Some("settled"));
    producer.join();
    leave(client);
    assert!(running.stop().success());
}
