//! A full disk: producers wait, settling goes on, and everything resumes when space returns.
//!
//! Needs a small file system of its own: a loop-mounted ext4, which only root can make. Where that
//! cannot be, the test says so in a line that `tools/test.sh` repeats at its end, and fails when
//! `CI` is set.

#![allow(clippy::disallowed_methods, reason = "a test makes its file system")]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::broker::process::wait_until;
use crate::broker::stomp::{Client, Frame};
use crate::broker::{Broker, Setup, fresh_folder};
use crate::load::{Load, Producer, leave, next, number_of, subscribe, take_in_order};
use crate::{OTHERS_PATIENCE, PATIENCE};

/// A small ext4, unmounted when dropped.
struct SmallDisk {
    mount: PathBuf,
    /// Leads to a folder on it; the broker's log lies beside this and not on the disk.
    data: PathBuf,
}

impl SmallDisk {
    fn new(name: &str, mib: u64) -> Result<Self, String> {
        // A run that was killed may have left its own mounted.
        let left = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(name)
            .join("mount");
        let _ = run("umount", &["-l", &left.display().to_string()]);
        let folder = fresh_folder(name);
        let (image, mount) = (folder.join("disk"), folder.join("mount"));
        let file = fs::File::create(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        fs::create_dir_all(&mount).unwrap();
        let (image, mount_name) = (image.display().to_string(), mount.display().to_string());
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &mount_name])?;
        let data = folder.join("data");
        fs::create_dir_all(mount.join("data")).unwrap();
        std::os::unix::fs::symlink(mount.join("data"), &data).unwrap();
        Ok(Self { mount, data })
    }

    /// Fills what is left up to `left` bytes with one file; gives its path.
    fn fill(&self, name: &str, left: u64) -> PathBuf {
        let path = self.mount.join(name);
        let mut file = fs::File::create(&path).unwrap();
        let space = nix::sys::statvfs::statvfs(&self.mount).unwrap();
        let free = space.blocks_available() * space.fragment_size();
        let mut size = free.saturating_sub(left);
        let block = [0; 4096];
        while size > 0 && file.write_all(&block).is_ok() {
            size = size.saturating_sub(4096);
        }
        // With no space at all the last blocks do not find any: that is what was wanted.
        let _ = file.sync_all();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a broker that was just killed may still be letting go.
        let mount = self.mount.display().to_string();
        if let Err(error) = run("umount", &["-l", &mount]) {
            eprintln!("{error}");
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        // One line, since one line is repeated at the end of the test command.
        Err(format!("{program}: {}", said.trim().replace('\n', "; ")))
    }
}

/// The disk, or the reason why there is none, said loudly.
fn disk(name: &str) -> Option<SmallDisk> {
    match SmallDisk::new(name, 64) {
        Ok(disk) => Some(disk),
        Err(reason) => {
            println!("NOT RUN full disk ({name}): no loop-mounted file system: {reason}");
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must run this: {reason}"
            );
            None
        }
    }
}

fn setup(disk: &SmallDisk) -> Setup {
    Setup::new(&disk.data)
        .config("[journal]\nsegment_size = \"1MiB\"\n[limits]\nblock_cache_size = \"4MiB\"\n")
}

/// Waits until the broker says that the disk is full and the producer is held back by it; gives
/// how many messages were confirmed.
fn wait_full(running: &Broker, producer: &Producer) -> u64 {
    wait_until(PATIENCE, "the disk is full", || {
        running.said().contains("producers wait for space")
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
