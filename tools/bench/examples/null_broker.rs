//! Confirms every SEND and keeps nothing: shows what the generator itself can do on a machine.
//!
//! `cargo run --release -p forebay-bench --example null_broker`, then
//! `forebay-bench stomp --mode produce --addr <printed> --producers 8 --window 100 --pin 1`.

#[path = "../tests/broker/mod.rs"]
mod broker;

fn main() {
    let keeps = std::env::args().any(|argument| argument == "--keep");
    let faults = broker::Faults {
        is_discarding: !keeps,
        ..broker::Faults::default()
    };
    let broker = broker::Broker::start(faults);
    println!("ready stomp {}", broker.address);
    loop {
        std::thread::park();
    }
}
