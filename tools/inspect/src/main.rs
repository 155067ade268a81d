//! `forebay-inspect`: looks into a journal and says what is there and whether it is sound.
//!
//! It only reads a journal: no lock is taken, nothing in it is written, and files are read past the
//! page cache so that a running broker keeps its own. It decodes as much as it can from damaged
//! input, drops no information, and names damage by file, byte, records and kind. What it makes is
//! new files and folders elsewhere.
//! Exit status: 0 shown, made or sound, 1 damage found, 2 could not run.

#![allow(clippy::disallowed_methods, reason = "a tool: files are its business")]

mod bodies;
mod build;
mod chain;
mod cli;
mod command;
mod describe;
mod dump;
mod emit;
mod file;
mod filter;
mod folder;
mod gather;
mod horizon;
mod identity;
mod ledger;
mod line;
mod look;
mod meter;
mod named;
mod new_shard;
mod queue;
mod survey;
mod table;
mod text;
mod walk;

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use folder::Place;

fn main() -> ExitCode {
    let cli = Cli::parse();
    file::raise_open_files();
    let mut out = BufWriter::new(io::stdout().lock());
    let is_free = !io::stdout().is_terminal() || !cli.command.prints_while_it_reads();
    meter::begin(cli.command.rate(), is_free);
    let result = run(&cli.command, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    meter::end();
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay-inspect: could not run: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &Command, out: &mut dyn Write) -> anyhow::Result<u8> {
    match command {
        Command::Import(args) => return command::import::run(args, out).map(|()| 0),
        Command::Compare(args) => return command::compare::run(args, out),
        Command::Constants { json } => return command::constants::run(*json, out).map(|()| 0),
        _ => {}
    }
    let place = Place::find(command.target().path())?;
    match command {
        Command::Export(args) => command::export::run(&place, args, out),
        Command::Import(_) | Command::Compare(_) | Command::Constants { .. } => {
            unreachable!("run above")
        }
        Command::Repair(args) => command::repair::run(&place, args, out),
        Command::Stat(args) => command::stat::run(&place, &args.view, out).map(|()| 0),
        Command::Segments(args) => command::segments::run(&place, &args.view, out).map(|()| 0),
        Command::Blocks(args) => command::blocks::run(&place, &args.view, out).map(|()| 0),
        Command::Records(args) => command::records::run(&place, args, out).map(|()| 0),
        Command::Message(args) => command::message::run(&place, args, out).map(|()| 0),
        Command::Tail(args) => command::tail::run(&place, args, out).map(|()| 0),
        Command::Undelete(args) => command::undelete::run(&place, args, out),
        Command::Map(args) => command::map::run(&place, args, out).map(|()| 0),
        Command::Verify(args) => command::verify::run(&place, &args.view, out),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    error
        .chain()
        .any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
