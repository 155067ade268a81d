//! The cores of the lease themselves, over a simulated folder: three nodes, a disk that is slow,
//! late, torn, failing or rotten, clocks of any speed, pauses between any two actions, kills,
//! twins, handovers. What was acknowledged is never lost, epochs that served agree, and once all is
//! well somebody serves. Covers V01, V02, V05, V06, L02 to L09, L11 to L18.
//!
//! `FOREBAY_LEASE_SEEDS=10000` runs more seeds, `FOREBAY_LEASE_SEED=17` one with its log.

#[path = "lease_sim/binding.rs"]
mod binding;
#[path = "lease_sim/faults.rs"]
mod faults;
#[path = "lease_sim/folder.rs"]
mod folder;
#[path = "lease_sim/ledger.rs"]
mod ledger;
#[path = "lease_sim/mutant.rs"]
mod mutant;
#[path = "lease_sim/op.rs"]
mod op;
#[path = "lease_sim/process.rs"]
mod process;
#[path = "lease_sim/rng.rs"]
mod rng;
#[path = "lease_sim/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mutant::Mutant;
use world::{Report, World};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");
const SEEDS: u64 = 300;
/// A planted fault has to be found within so many seeds.
const MUTANT_SEEDS: u64 = 800;
/// Each has to be reached within [`SEEDS`]: else something is no longer tested.
const REACHED: &[&str] = &[
    "Vacant",
    "LockFree",
    "Silent",
    "HandedOver",
    "Ordered",
    "Released",
    "HandoverFailed",
    "Stopped",
    "Lost(Expired",
    "Lost(FenceUnsound",
    "Lost(Io(IoFailure(",
    "Lost(Stalled",
    "Lost(Superseded(Epoch(",
    "Refused(Io(IoFailure(",
    "Refused(NameInUse(NodeName(a",
    "TakeoverFailed(Io(IoFailure(",
    "TakeoverFailed(NotShut(Epoch(",
    "TakeoverFailed(Stalled",
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn run(seed: u64, mutant: Option<Mutant>) -> Report {
    World::new(seed, mutant, false).run()
}

#[test]
fn what_was_promised_holds() {
    if let Some(seed) = number("FOREBAY_LEASE_SEED") {
        World::new(seed, None, true).run();
        return;
    }
    let mut total = Report::default();
    for seed in 0..number("FOREBAY_LEASE_SEEDS").unwrap_or(SEEDS) {
        let report = catch_unwind(AssertUnwindSafe(|| run(seed, None)));
        let report = report.unwrap_or_else(|_| panic!("FOREBAY_LEASE_SEED={seed}"));
        total.acks += report.acks;
        total.takeovers += report.takeovers;
        total.steps += report.steps;
        total.reached.extend(report.reached);
    }
    println!("{total:?}");
    for kind in REACHED {
        assert!(total.reached.contains(*kind), "{kind} was never reached");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in 0..4 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
}

/// Each is found, and first by what the document says.
#[test]
fn each_mutant_is_found() {
    let (_, table) = DOCUMENT.split_once("| Mutant |").expect("the table");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let rows: Vec<&str> = rows.collect();
    let mut found_rows = Vec::new();
    for &(mutant, words) in Mutant::ALL {
        let found = (0..MUTANT_SEEDS).find_map(|seed| {
            let result = catch_unwind(AssertUnwindSafe(|| run(seed, Some(mutant))));
            let broken = result.err()?.downcast::<String>().ok()?;
            Some(broken.split(':').next()?.to_string())
        });
        let found = found.unwrap_or_else(|| panic!("not found: {words}"));
        found_rows.push(format!("| {words} | {found} |"));
    }
    assert_eq!(
        rows,
        found_rows,
        "the rows, as found:\n{}",
        found_rows.join("\n")
    );
}
