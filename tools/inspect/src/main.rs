//! Not built yet: refuses clearly.

fn main() {
    eprintln!("not built yet");
    std::process::exit(2);
}
