//! Who may connect: nobody from elsewhere without users, nobody without the right passcode.

use std::net::{Ipv4Addr, SocketAddr};

use crate::broker::stomp::Client;
use crate::{receive, small, until_closed};

const USER: &str = "[[user]]\nname = \"ada\"\npassword = \"lovelace:1\"\n";

/// All addresses of this machine: the only one that is not loopback and always there.
const EVERYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[test]
fn the_network_is_refused_without_users() {
    let mut setup = small("open");
    setup.address = EVERYWHERE;
    let words = [
        "not a loopback address",
        "[[user]]",
        "--allow-anonymous-remote",
        "remedy: ",
    ];
    setup.refused().expect(2, &words);
    assert!(!setup.data.exists());
}

#[test]
fn the_network_is_allowed_by_the_flag() {
    let mut setup = small("flag");
    setup.address = EVERYWHERE;
    setup.arguments = vec!["--allow-anonymous-remote".into()];
    let running = setup.start();
    let port = running.address().port();
    Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
}

#[test]
fn users_need_their_passcode() {
    let mut setup = small("users").config(USER);
    setup.address = EVERYWHERE;
    let running = setup.start();
    let address = SocketAddr::from(([127, 0, 0, 1], running.address().port()));
    let wrong: [&[(&str, &str)]; 5] = [
        &[],
        &[("login", "ada")],
        &[("login", "ada"), ("passcode", "lovelace:2")],
        &[("login", "ada"), ("passcode", "lovelace:")],
        &[("login", "bob"), ("passcode", "lovelace:1")],
    ];
    for credentials in wrong {
        let mut client = connect(address, credentials);
        // What follows at once must not be taken either.
        let headers = [("destination", "/queue/secret"), ("receipt", "r")];
        client.send("SEND", &headers, b"x").unwrap();
        let frames = until_closed(&mut client);
        assert_eq!(frames.len(), 1, "{credentials:?}: {frames:?}");
        assert_eq!(frames[0].command, "ERROR", "{credentials:?}");
        assert_eq!(frames[0].header("message"), Some("access refused"));
        let text = format!("{:?}", frames[0]);
        assert!(
            !text.contains("lovelace"),
            "the passcode is told back: {text}"
        );
    }
    let mut client = connect(address, &[("login", "ada"), ("passcode", "lovelace:1")]);
    assert_eq!(receive(&mut client).command, "CONNECTED");
    let headers = [("destination", "/queue/secret"), ("receipt", "r")];
    client.send("SEND", &headers, b"x").unwrap();
    assert_eq!(receive(&mut client).header("receipt-id"), Some("r"));
    let said = running.said();
    assert!(
        !said.contains("lovelace"),
        "the passcode is in the log: {said}"
    );
}

fn connect(address: SocketAddr, credentials: &[(&str, &str)]) -> Client {
    let mut client = Client::open(address).unwrap();
    let mut headers = vec![("accept-version", "1.2"), ("host", "/")];
    headers.extend(credentials);
    client.send("CONNECT", &headers, b"").unwrap();
    client
}
