//! The table of durable sends: each cell produces into fresh queues, then drains them.
//!
//! The drain is the other half of the measurement (is settling as fast as producing?) and of the
//! judgement: the ledger of a cell is closed only when every confirmed message came back.

use crate::cli::SuiteArgs;
use crate::connection::BenchError;
use crate::device_p50_us;
use crate::drive::{self, Outcome};
use crate::host;
use crate::ledger::{Ledger, Verdict};
use crate::plan::{Consumption, Plan, Production, Stop};
use crate::report::{Report, figures_us};
use crate::schedule::Pace;
use serde_json::{Value, json};
use std::time::Duration;

/// One line of the table.
struct Cell {
    producers: u32,
    window: u64,
    size: usize,
}

/// What a cell found.
struct CellResult {
    plan: Plan,
    produced: Outcome,
    drain: Option<(Plan, Outcome)>,
    verdict: Verdict,
}

/// Runs all cells and prints one markdown table, or one JSON object. Returns whether every promise
/// was kept.
pub(crate) fn run(args: &SuiteArgs) -> Result<bool, BenchError> {
    let device_us = device_p50_us(&args.broker)?;
    let mut rows = Vec::new();
    let mut violations = Vec::new();
    if !args.broker.json {
        print_head(args, device_us);
    }
    let sizes = args.sizes.iter();
    let cells = sizes.flat_map(|size| args.cells.iter().map(|(p, w)| (*p, *w, *size)));
    for (producers, window, size) in cells {
        let cell = Cell {
            producers,
            window,
            size,
        };
        let result = run_cell(args, &cell)?;
        violations.extend(found(&cell, &result, device_us));
        if args.broker.json {
            rows.push(row_json(&cell, &result, device_us));
        } else {
            println!("{}", row(&cell, &result, device_us));
        }
    }
    if args.broker.json {
        println!(
            "{}",
            json!({ "device_p50_us": device_us, "cells": rows, "violations": violations })
        );
    }
    violations
        .iter()
        .for_each(|violation| eprintln!("forebay-bench: {violation}"));
    Ok(violations.is_empty())
}

fn run_cell(args: &SuiteArgs, cell: &Cell) -> Result<CellResult, BenchError> {
    let run = host::run_number();
    let names = (0..args.queues).map(|queue| format!("{}{run:08x}-{queue}", args.destination));
    let shared = Plan {
        body_size: cell.size,
        ..args.broker.plan(names.collect())?
    };
    let plan = Plan {
        production: Some(Production {
            producers: cell.producers,
            pace: Pace::Closed {
                window: cell.window,
            },
            is_persistent: true,
            headers: args.broker.send_header.clone(),
        }),
        warmup: Duration::from_secs_f64(args.warmup),
        stop: Stop::In(Duration::from_secs_f64(args.seconds)),
        counts_syscalls: args.broker.count_syscalls,
        ..shared.clone()
    };
    let mut ledger = Ledger::new(run, cell.producers);
    let produced = drive::run(&plan, run, &mut ledger)?;
    let drain = if args.no_drain {
        None
    } else {
        Some(drain(args, shared, run, &mut ledger)?)
    };
    let verdict = ledger.verdict(drain.is_some());
    Ok(CellResult {
        plan,
        produced,
        drain,
        verdict,
    })
}

/// Takes back all that the cell sent, acknowledged, with the cell's own ledger.
fn drain(
    args: &SuiteArgs,
    shared: Plan,
    run: u32,
    ledger: &mut Ledger,
) -> Result<(Plan, Outcome), BenchError> {
    let plan = Plan {
        consumption: Some(Consumption {
            consumers: args.queues,
            ack_mode: args.ack,
            ack_every: args.ack_every,
            // The drain is over when the last ACK is answered, not when it is sent.
            has_ack_receipts: true,
            headers: args.broker.subscribe_headers(),
        }),
        stop: Stop::WhenEmpty,
        ..shared
    };
    let outcome = drive::run(&plan, run, ledger)?;
    Ok((plan, outcome))
}

/// Names the cell in each broken promise.
fn found(cell: &Cell, result: &CellResult, device_us: Option<f64>) -> Vec<String> {
    let mut violations = produced_report(result, device_us).violations();
    violations.extend(
        result
            .drain
            .iter()
            .filter_map(|(_, drain)| drain.leave_violation.clone()),
    );
    let name = format!("{} x {} x {} B", cell.producers, cell.window, cell.size);
    violations
        .iter()
        .map(|violation| format!("{name}: {violation}"))
        .collect()
}

fn produced_report(result: &CellResult, device_p50_us: Option<f64>) -> Report<'_> {
    Report {
        plan: &result.plan,
        outcome: &result.produced,
        verdict: &result.verdict,
        device_p50_us,
    }
}

fn drained_per_s(result: &CellResult) -> Option<f64> {
    let (plan, outcome) = result.drain.as_ref()?;
    let verdict = &result.verdict;
    Some(
        Report {
            plan,
            outcome,
            verdict,
            device_p50_us: None,
        }
        .received_per_s(),
    )
}

fn print_head(args: &SuiteArgs, device_us: Option<f64>) {
    println!(
        "Durable sends, each with a receipt, {} s per cell; drain: {} consumer(s), ack {}.{}",
        args.seconds,
        args.queues,
        args.ack.name(),
        device_us.map_or(String::new(), |us| format!(
            " Device 4 KiB durable write p50 {us:.1} us."
        ))
    );
    println!();
    println!(
        "| producers x in flight | body | msgs/s | MiB/s | p50 us | p99 us | p99.9 us | x device | \
         broker CPU us/msg | syscalls/msg | client CPU | drain msgs/s | drain/produce |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
}

fn row(cell: &Cell, result: &CellResult, device_us: Option<f64>) -> String {
    let report = produced_report(result, device_us);
    let rate = report.confirmed_per_s();
    let [p50, _, p99, p999, _] = figures_us(&result.produced.measured.confirm);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let syscalls = result.produced.syscalls.as_ref();
    let syscalls = syscalls.and_then(|counted| counted.as_ref().ok());
    let drained = drained_per_s(result);
    format!(
        "| {} x {} | {} B | {rate:.0} | {:.1} | {p50:.0} | {p99:.0} | {p999:.0} | {} | {} | {} | \
         {:.0} % | {} | {} |",
        cell.producers,
        cell.window,
        cell.size,
        rate * cell.size as f64 / f64::from(1 << 20),
        or_dash(report.device_multiple().map(|times| format!("{times:.2}"))),
        or_dash(report.server_cpu().map(|(us, _)| format!("{us:.2}"))),
        or_dash(syscalls.map(|figure| format!("{:.3}", figure.per_message))),
        report.client_cores() * 100.0,
        or_dash(drained.map(|drained| format!("{drained:.0}"))),
        or_dash(
            drained
                .filter(|_| rate > 0.0)
                .map(|drained| format!("{:.2}", drained / rate))
        ),
    )
}

fn row_json(cell: &Cell, result: &CellResult, device_us: Option<f64>) -> Value {
    json!({
        "producers": cell.producers,
        "window": cell.window,
        "size": cell.size,
        "produce": produced_report(result, device_us).json(),
        "drained_per_s": drained_per_s(result),
    })
}
