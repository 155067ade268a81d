//! STOMP over WebSocket against a real broker, with one shard and with two, by a client that also
//! says what no stock client would.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../broker/mod.rs"]
mod broker;
mod bytes;
mod client;
mod ends;

use std::time::Duration;

use broker::Setup;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a scenario against brokers with one shard and with two.
fn with_shards(name: &str, scenario: impl Fn(&mut Setup)) {
    for shards in ["1", "2"] {
        let folder = broker::fresh_folder(&format!("websocket-{name}-{shards}"));
        let mut setup = Setup::new(&folder.join("data"))
            .config("[journal]\nsegment_size = \"4MiB\"\n")
            .argument("--shards", shards);
        scenario(&mut setup);
    }
}
