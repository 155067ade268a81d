//! What crosses between shards is bounded: full mailboxes stop the sockets that fill them.

use crate::load::{Bystander, Load, Producer};
use crate::{MIB, small};

/// More than the mailboxes of two shards hold is sent at once, from connections of both to queues
/// of both: memory stays within the bound, and a bystander is served meanwhile.
#[test]
fn a_flood_across_shards_is_held_back_at_its_sockets() {
    let mut setup = small("flood").argument("--shards", "2");
    let running = setup.start();
    let address = running.address();
    let bystander = Bystander::start(address);
    let queues = ["/queue/a", "/queue/b", "/queue/c", "/queue/d"];
    let load = Load {
        queue: queues[0],
        count: 2_000,
        len: 16_384,
        is_persistent: true,
        // 16 producers with 16 MiB each in flight: ten times what may be under way.
        window: 1_000,
    };
    let producers: Vec<_> = (0..16)
        .map(|index| {
            let queue = queues[index % queues.len()];
            Producer::start(address, Load { queue, ..load })
        })
        .collect();
    producers.into_iter().for_each(Producer::join);
    bystander.finish("flood");
    let most = running.resident_max_bytes();
    println!("flood: {} MiB at most", most / MIB);
    assert!(most < 160 * MIB, "{most} bytes");
    assert!(running.stop().success());
}
