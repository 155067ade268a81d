//! Starts a node, or says why not; ends with the code of `Exit`.

use std::io::IsTerminal;
use std::process::ExitCode;

use forebay::node::cli::{self, Request};
use forebay::node::exit::Exit;
use forebay::node::{lifecycle, operator};

fn main() -> ExitCode {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(refusal) => {
            eprintln!("{}", refusal.message);
            return refusal.exit.into();
        }
    };
    match request {
        Request::Print(text) => {
            println!("{}", text.trim_end());
            Exit::Clean.into()
        }
        Request::Operate(order) => match operator::run(&order) {
            Ok(said) => {
                println!("{}", said.text.trim_end());
                said.exit.into()
            }
            Err(refusal) => {
                eprintln!("forebay: {}", refusal.message);
                refusal.exit.into()
            }
        },
        Request::Serve(loaded) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .init();
            match lifecycle::serve(&loaded.config) {
                Ok(()) => Exit::Clean.into(),
                Err(error) => {
                    eprintln!("forebay: {error}");
                    error.exit().into()
                }
            }
        }
    }
}
