//! Many connections, and those that wait while others work.

use std::time::{Duration, Instant};

use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::load::{Load, Producer, next, until_closed};
use crate::{MIB, PATIENCE, small};

const IDLE: usize = 1_000;

#[test]
fn a_thousand_idle_connections_cost_little_and_one_too_many_is_closed() {
    let limit = format!("connections_max = {}\n", IDLE + 2);
    let mut setup = small("idle").config(&limit);
    raise_descriptors();
    let running = setup.start();
    let address = running.address();
    drop(Client::connect(address).unwrap());
    let before = running.resident_bytes();
    let mut clients: Vec<_> = (0..IDLE)
        .map(|_| Client::connect(address).unwrap())
        .collect();
    let grown = running.resident_bytes().saturating_sub(before);
    println!("idle: {} bytes each", grown / IDLE as u64);
    assert!(
        grown < 16 * MIB,
        "{grown} bytes for {IDLE} idle connections"
    );
    // Each of them is alive.
    for client in &mut clients {
        let headers = [("destination", "/topic/nobody"), ("receipt", "here")];
        client.send("SEND", &headers, b"x").unwrap();
        assert_eq!(next(client).header("receipt-id"), Some("here"));
    }
    // The node is full at its limit; the next ones are closed, the others stay.
    clients.push(Client::connect(address).unwrap());
    clients.push(Client::connect(address).unwrap());
    let mut refused = Client::open(address).unwrap();
    assert_eq!(until_closed(&mut refused), []);
    drop(clients.split_off(IDLE));
    let headers = [("destination", "/topic/nobody"), ("receipt", "again")];
    clients[0].send("SEND", &headers, b"x").unwrap();
    assert_eq!(next(&mut clients[0]).header("receipt-id"), Some("again"));
    drop(clients);
    assert!(running.stop().success());
}

/// Who is sent away and reads nothing does not stay: its last words wait for a while, not for ever.
#[test]
fn a_client_that_reads_nothing_is_let_go_when_its_transaction_is_over() {
    let mut setup = small("last-words").config("transaction_timeout_ms = 2000\n");
    let running = setup.start();
    let mut producer = Client::connect(running.address()).unwrap();
    let with_one = sockets(running.pid());
    let mut client = Client::connect(running.address()).unwrap();
    client.send("BEGIN", &[("transaction", "t")], b"").unwrap();
    let headers = [
        ("destination", "/queue/unread"),
        ("transaction", "t"),
        ("persistent", "true"),
    ];
    client.send("SEND", &headers, b"x").unwrap();
    let headers = [("id", "0"), ("destination", "/queue/unread")];
    client.send("SUBSCRIBE", &headers, b"").unwrap();
    // More than the sockets and the broker's window take.
    let body = vec![b'x'; 64 << 10];
    let headers = [("destination", "/queue/unread"), ("persistent", "true")];
    for _ in 0..400 {
        producer.send("SEND", &headers, &body).unwrap();
    }
    let headers = [("destination", "/queue/unread"), ("receipt", "all")];
    producer.send("SEND", &headers, &body).unwrap();
    assert_eq!(next(&mut producer).header("receipt-id"), Some("all"));
    assert!(sockets(running.pid()) > with_one, "it is there still");
    let let_go = || sockets(running.pid()) == with_one;
    wait_until(PATIENCE, "it is let go", let_go);
    assert!(running.stop().success());
}

/// Sockets that a process has open.
#[allow(clippy::disallowed_methods, reason = "the test looks at a process")]
fn sockets(pid: u32) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = descriptors.filter_map(|one| std::fs::read_link(one.unwrap().path()).ok());
    let is_socket = |target: &std::path::PathBuf| target.to_string_lossy().starts_with("socket:");
    targets.filter(is_socket).count()
}

/// As many descriptors as the system allows: two for each connection of this test.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(
        hard as usize > IDLE + 100,
        "`ulimit -Hn` is {hard}: too few descriptors"
    );
}

/// Heart-beats in both directions go on while another connection saturates the disk.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test measures")]
fn heart_beats_are_kept_while_the_disk_is_saturated() {
    const BEAT: Duration = Duration::from_millis(300);
    let mut setup = small("beats").config("[stomp]\nheart_beat_ms = [300, 300]\n");
    let running = setup.start();
    let address = running.address();
    let mut idle = Client::open(address).unwrap();
    let headers = [
        ("accept-version", "1.2"),
        ("host", "/"),
        ("heart-beat", "300,300"),
    ];
    idle.send("CONNECT", &headers, b"").unwrap();
    assert_eq!(next(&mut idle).command, "CONNECTED");
    let load = Load {
        queue: "/queue/saturated",
        count: 3_000,
        len: 65_536,
        is_persistent: true,
        window: 128,
    };
    let producers = [
        Producer::start(address, load),
        Producer::start(address, load),
    ];
    let (start, mut beats, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    let mut last = Instant::now();
    while !producers.iter().all(Producer::is_done) || beats < 3 {
        idle.send_bytes(b"\n").unwrap();
        // The wait is the input here: half an interval of silence, then the next beat.
        let received = idle.receive_bytes(BEAT / 2).unwrap();
        if received > 0 {
            slowest = slowest.max(last.elapsed());
            (beats, last) = (beats + received, Instant::now());
        }
        assert!(
            last.elapsed() < 4 * BEAT,
            "no heart-beat for {:?}",
            last.elapsed()
        );
    }
    println!(
        "beats: {beats} in {:?}, the slowest after {slowest:?}",
        start.elapsed()
    );
    producers.into_iter().for_each(Producer::join);
    // The broker did not miss ours either: the connection still works.
    let headers = [("destination", "/topic/nobody"), ("receipt", "here")];
    idle.send("SEND", &headers, b"x").unwrap();
    assert_eq!(next(&mut idle).header("receipt-id"), Some("here"));
    assert!(running.stop().success());
}
