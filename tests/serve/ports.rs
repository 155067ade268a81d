//! Two brokers that want the same port or the same folder.

use nix::sys::signal::Signal;

use crate::broker::process::wait_until;
use crate::broker::stomp::Client;
use crate::{PATIENCE, disk, send, small};

#[test]
fn a_taken_port_is_refused_naming_who_has_it() {
    for shards in ["1", "2"] {
        let mut first = small(&format!("port-{shards}-a")).argument("--shards", shards);
        let running = first.start();
        let mut second = small(&format!("port-{shards}-b")).argument("--shards", shards);
        second.address = running.address();
        let holder = format!("process {} (forebay", running.pid());
        let port = running.address().port().to_string();
        let refused = second.refused();
        refused.expect(
            4,
            &[
                "Address already in use",
                &port,
                &holder,
                "--stomp HOST:PORT",
            ],
        );
        // After kill -9 it is free at once.
        running.kill();
        let running = second.start();
        assert_eq!(running.address(), second.address);
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let mut setup = small("address");
    setup.arguments = vec!["--allow-anonymous-remote".to_owned()];
    // TEST-NET-3: nobody has it (RFC 5737).
    setup.address = "203.0.113.1:0".parse().unwrap();
    setup.refused().expect(
        4,
        &["203.0.113.1", "Remedy: name an address of this machine"],
    );
}

#[test]
fn a_held_folder_is_refused_naming_who_has_it() {
    let mut first = small("folder");
    let running = first.start();
    let mut client = Client::connect(running.address()).unwrap();
    send(&mut client, "/queue/held", b"kept");
    let mut second = first.clone();
    second.address.set_port(0);
    // Stopped, so that it changes nothing itself; what it has under way still lands.
    running.signal(Signal::SIGSTOP);
    let mut before = disk::snapshot(&first.data);
    wait_until(PATIENCE, "a quiet folder", || {
        let earlier = std::mem::replace(&mut before, disk::snapshot(&first.data));
        earlier == before
    });
    let holder = format!("process {}, node forebay, STOMP on", running.pid());
    let folder = first.data.display().to_string();
    second
        .refused()
        .expect(3, &[&holder, &folder, "Remedy: stop it"]);
    let is_untouched = disk::snapshot(&first.data) == before;
    assert!(is_untouched, "the refused one changed the folder");
    running.signal(Signal::SIGCONT);
    // The first did not notice.
    send(&mut client, "/queue/held", b"kept too");
    running.kill();
    let running = second.start();
    let bodies: Vec<_> = crate::drain(running.address(), "/queue/held");
    assert_eq!(bodies.len(), 2, "{bodies:?}");
}
