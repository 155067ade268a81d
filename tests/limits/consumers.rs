//! Consumers that do not read, or read slowly.

use crate::broker::process::wait_until;
use crate::load::{Bystander, Load, Producer, leave, subscribe, take_in_order};
use crate::{MIB, PATIENCE, small};

/// 200 MB go through a queue whose consumer never reads.
#[test]
fn a_consumer_that_never_reads_costs_no_memory() {
    for shards in ["1", "2"] {
        let name = format!("never-reads-{shards}");
        let mut setup = small(&name).argument("--shards", shards);
        let running = setup.start();
        let address = running.address();
        let silent = subscribe(address, "/queue/silent", "client");
        // What goes into a socket is settled in auto mode: this one loses what it does not read.
        let careless = subscribe(address, "/queue/careless", "auto");
        let bystander = Bystander::start(address);
        let load = Load {
            queue: "/queue/silent",
            count: 200_000_000 / 65_536 / if shards == "1" { 1 } else { 4 },
            len: 65_536,
            is_persistent: true,
            window: 64,
        };
        let aside = Load {
            queue: "/queue/careless",
            count: load.count / 8,
            ..load
        };
        let producers = [
            Producer::start(address, load),
            Producer::start(address, aside),
        ];
        producers.into_iter().for_each(Producer::join);
        bystander.finish(&name);
        let most = running.resident_max_bytes();
        println!("{name}: {} MiB at most", most / MIB);
        assert!(
            most < 120 * MIB,
            "{most} bytes for consumers that do not read"
        );
        // All of it is there after a crash, in order.
        running.kill();
        drop((silent, careless));
        let running = setup.start();
        let mut client = subscribe(running.address(), "/queue/silent", "client");
        take_in_order(&mut client, 0..load.count, load.len);
        leave(client);
        assert!(running.stop().success());
    }
}

/// A reader so slow that large messages lie half sent most of the time.
#[test]
fn a_slow_reader_of_large_messages_costs_no_memory() {
    let mut setup = small("slow-reader");
    let running = setup.start();
    let address = running.address();
    let load = Load {
        queue: "/queue/large",
        count: 12,
        len: 8 << 20,
        is_persistent: true,
        window: 2,
    };
    Producer::start(address, load).join();
    let mut client = subscribe(address, "/queue/large", "client");
    // The first bytes are there: the rest of 96 MiB waits for the reader.
    wait_until(PATIENCE, "the beginning of a message", || {
        client.buffered().unwrap() > 0
    });
    let bystander = Bystander::start(address);
    take_in_order(&mut client, 0..load.count, load.len);
    bystander.finish("slow reader");
    leave(client);
    let most = running.resident_max_bytes();
    println!("slow reader: {} MiB at most", most / MIB);
    assert!(most < 120 * MIB, "{most} bytes for a slow reader");
    assert!(running.stop().success());
}

/// A queue many times larger than the block cache comes from the disk, across a crash too.
#[test]
fn a_long_queue_is_drained_from_disk_in_order() {
    let mut setup = small("cold");
    let running = setup.start();
    let load = Load {
        queue: "/queue/cold",
        count: 10_000,
        len: 10_000,
        is_persistent: true,
        window: 256,
    };
    Producer::start(running.address(), load).join();
    let mut client = subscribe(running.address(), "/queue/cold", "client");
    take_in_order(&mut client, 0..load.count / 2, load.len);
    leave(client);
    let before = running.resident_max_bytes();
    running.kill();
    let running = setup.start();
    let mut client = subscribe(running.address(), "/queue/cold", "client");
    take_in_order(&mut client, load.count / 2..load.count, load.len);
    leave(client);
    let most = running.resident_max_bytes().max(before);
    println!("cold: {} MiB at most", most / MIB);
    assert!(most < 120 * MIB, "{most} bytes for a long queue");
    assert!(running.stop().success());
}

/// More queues than the broker reads ahead for are drained from disk side by side.
#[test]
fn many_long_queues_are_drained_side_by_side() {
    const QUEUES: usize = 40;
    let mut setup = small("cold-many");
    let running = setup.start();
    let address = running.address();
    let names: Vec<&'static str> = (0..QUEUES)
        .map(|number| &*Box::leak(format!("/queue/cold-{number}").into_boxed_str()))
        .collect();
    let load = |queue| Load {
        queue,
        count: 100,
        len: 10_000,
        is_persistent: true,
        window: 10,
    };
    let producers = names
        .iter()
        .map(|name| Producer::start(address, load(name)));
    producers
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(Producer::join);
    let consumers: Vec<_> = names
        .into_iter()
        .map(|name| {
            std::thread::spawn(move || {
                let mut client = subscribe(address, name, "client");
                take_in_order(&mut client, 0..100, 10_000);
                leave(client);
            })
        })
        .collect();
    consumers
        .into_iter()
        .for_each(|consumer| consumer.join().unwrap());
    assert!(running.stop().success());
}
