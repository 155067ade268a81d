//! Messages that are not persistent live in memory, within a budget.

use crate::load::{Bystander, Load, Producer, leave, subscribe, take_in_order};
use crate::{MIB, small};

#[test]
fn a_full_memory_holds_back_its_producers_alone() {
    for shards in ["1", "2"] {
        let name = format!("volatile-{shards}");
        let mut setup = small(&name)
            .config("message_size_max = \"1MiB\"\nvolatile_size_max = \"4MiB\"\n")
            .argument("--shards", shards);
        let running = setup.start();
        let address = running.address();
        let load = Load {
            queue: "/queue/volatile",
            count: 4_000,
            len: 16_384,
            is_persistent: false,
            window: 32,
        };
        let producer = Producer::start(address, load);
        let held_at = producer.wait_held_back();
        println!("{name}: held back at {held_at} messages of 16 KiB");
        assert!(
            (200..400).contains(&held_at),
            "held back at {held_at}, 256 fit the budget"
        );
        let bystander = Bystander::start(address);
        let persistent = Load {
            queue: "/queue/persistent",
            count: 200,
            is_persistent: true,
            ..load
        };
        Producer::start(address, persistent).join();
        assert_eq!(producer.confirmed(), held_at, "it went on with memory full");
        bystander.finish(&name);
        let most = running.resident_max_bytes();
        println!("{name}: {} MiB at most", most / MIB);
        assert!(most < 120 * MIB, "{most} bytes");
        // Drained, it goes on by itself to the end.
        let mut client = subscribe(address, "/queue/volatile", "client");
        take_in_order(&mut client, 0..load.count, load.len);
        producer.join();
        leave(client);
        assert!(running.stop().success());
    }
}
