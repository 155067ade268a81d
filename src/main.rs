//! Starts a node.

fn main() {
    eprintln!("not built yet");
    std::process::exit(2);
}
