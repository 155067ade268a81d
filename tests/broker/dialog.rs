//! What tests say to a broker and wait for, one thing at a time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use super::stomp::{Client, Frame};

/// Longest wait for one answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Connects without a client id.
pub fn connect(address: SocketAddr) -> Client {
    Client::connect(address).unwrap()
}

/// A connection of the client `id`, for durable subscriptions.
pub fn connect_as(address: SocketAddr, id: &str) -> Client {
    let mut client = Client::open(address).unwrap();
    let headers = [("accept-version", "1.2"), ("host", "/"), ("client-id", id)];
    client.send("CONNECT", &headers, b"").unwrap();
    assert_eq!(next(&mut client).command, "CONNECTED");
    client
}

/// The next frame.
pub fn next(client: &mut Client) -> Frame {
    let frame = client.receive(PATIENCE).unwrap();
    frame.unwrap_or_else(|| panic!("nothing came within {PATIENCE:?}"))
}

/// The next frame, which has to be a message.
pub fn next_message(client: &mut Client) -> Frame {
    let frame = next(client);
    assert_eq!(frame.command, "MESSAGE", "{frame:?}");
    frame
}

/// The body of a frame.
pub fn text(frame: &Frame) -> String {
    String::from_utf8_lossy(&frame.body).into_owned()
}

/// Sends a frame that asks for a receipt, which has to be the next thing that comes.
pub fn ask(client: &mut Client, command: &str, headers: &[(&str, &str)]) {
    ask_with_body(client, command, headers, "");
}

/// The same for a frame with a body.
pub fn ask_with_body(client: &mut Client, command: &str, headers: &[(&str, &str)], body: &str) {
    let headers = [headers, &[("receipt", command)]].concat();
    client.send(command, &headers, body.as_bytes()).unwrap();
    let answer = next(client);
    assert_eq!(answer.command, "RECEIPT", "{answer:?}");
    assert_eq!(answer.header("receipt-id"), Some(command), "{answer:?}");
}
