//! `forebay-bench`: drives a STOMP 1.2 broker from one thread and checks that it keeps its word.
//!
//! A message's way: `schedule` says when it is due, `producer` patches and sends it, `consumer` or
//! the RECEIPT brings it back, `ledger` and `measure` take it down, `report` shows both.
//! `device` measures the disk below, `suite` makes the table of `benches/README.md`.
//! Exit status: 0 sound, 1 a promise was broken, 2 not measured.

mod cli;
mod connection;
mod consumer;
mod device;
mod device_read;
mod disk;
mod drive;
mod fleet;
mod frame;
mod host;
mod ledger;
mod measure;
mod plan;
mod producer;
mod progress;
mod report;
mod ring_loop;
mod schedule;
mod suite;
mod syscalls;

use clap::Parser as _;
use cli::{BrokerArgs, Cli, Command, StompArgs};
use connection::BenchError;
use ledger::Ledger;
use report::Report;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Stomp(args) => stomp(args),
        Command::Suite(args) => prepare(&args.broker).and_then(|()| suite::run(args)),
        Command::Device(args) => device_command(args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(BenchError::Broken(why)) => {
            eprintln!("forebay-bench: {why}");
            ExitCode::from(1)
        }
        Err(BenchError::Unable(why)) => {
            eprintln!("forebay-bench: {why}");
            ExitCode::from(2)
        }
    }
}

/// One run. Returns whether every promise was kept.
fn stomp(args: &StompArgs) -> Result<bool, BenchError> {
    let plan = args.plan()?;
    prepare(&args.broker)?;
    let device_p50_us = device_p50_us(&args.broker)?;
    let run = host::run_number();
    let mut ledger = match &plan.production {
        Some(side) => Ledger::new(run, side.producers),
        None => Ledger::of_unknown_runs(),
    };
    let outcome = drive::run(&plan, run, &mut ledger)?;
    let verdict = ledger.verdict(outcome.is_consumed_to_end);
    let report = Report {
        plan: &plan,
        outcome: &outcome,
        verdict: &verdict,
        device_p50_us,
    };
    if args.broker.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    if let Some(path) = &args.hgrm {
        save_hgrm(path, &outcome.measured.confirm)?;
        if !outcome.measured.deliver.is_empty() {
            let mut beside = path.clone().into_os_string();
            beside.push(".end-to-end");
            save_hgrm(Path::new(&beside), &outcome.measured.deliver)?;
        }
    }
    let violations = report.violations();
    violations
        .iter()
        .for_each(|violation| eprintln!("forebay-bench: {violation}"));
    Ok(violations.is_empty())
}

fn save_hgrm(path: &Path, histogram: &hdrhistogram::Histogram<u64>) -> Result<(), BenchError> {
    let unable = |error: std::io::Error| BenchError::Unable(format!("{}: {error}", path.display()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(unable)?);
    report::write_hgrm(histogram, &mut file).map_err(unable)?;
    std::io::Write::flush(&mut file).map_err(unable)
}

/// Readies this process: core, timers, open files; and sees that the broker's process is there.
fn prepare(args: &BrokerArgs) -> Result<(), BenchError> {
    pin(args.pin)?;
    host::sharpen_timers();
    host::raise_file_limit();
    if let Some(pid) = args.server_pid {
        host::ProcessUse::of(pid)
            .map_err(|error| BenchError::Unable(format!("--server-pid {pid}: {error}")))?;
    }
    Ok(())
}

fn pin(cpu: Option<usize>) -> Result<(), BenchError> {
    cpu.map_or(Ok(()), host::pin)
        .map_err(|error| BenchError::Unable(format!("--pin {}: {error}", cpu.unwrap_or(0))))
}

/// The device's durable write as given, or measured for two seconds, or none.
fn device_p50_us(args: &BrokerArgs) -> Result<Option<f64>, BenchError> {
    match &args.device_dir {
        Some(dir) => device::p50_us(dir, Duration::from_secs(2)).map(Some),
        None => Ok(args.device_p50_us),
    }
}

fn device_command(args: &cli::DeviceArgs) -> Result<bool, BenchError> {
    pin(args.pin)?;
    let length = Duration::from_secs_f64(args.seconds);
    let (json, table) = if args.read {
        let report = device_read::measure(&args.dir, length)?;
        (report.json(), report.table())
    } else {
        let report = device::measure(&args.dir, length, args.journal)?;
        (report.json(), report.table())
    };
    if args.json {
        println!("{json}");
    } else {
        print!("{table}");
    }
    Ok(true)
}
