//! The protocol of the lease, searched through: every order of single reads, writes and landings of
//! writes of several owners (`docs/protocol.md`). No state breaks what must hold, and each planted
//! weakening does. Covers V07, L05, L06, L15 and the safety of L02 to L04.

#[path = "lease_model/state.rs"]
mod state;
#[path = "lease_model/steps.rs"]
mod steps;
#[path = "lease_model/weakening.rs"]
mod weakening;

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};

use state::{At, DISAGREE, LOST, LOST_ON_DISK, State, TWO_SERVE};
use steps::{Size, Steps};
use weakening::Weakening;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// Three owners; the first writes three blocks, the others one in each shard.
const THREE: Size = Size {
    epochs: 3,
    blocks: [[2, 2], [1, 1], [1, 0], [0, 0]],
};
/// Four owners, with fewer blocks.
const FOUR: Size = Size {
    epochs: 4,
    blocks: [[1, 1], [1, 0], [1, 0], [0, 0]],
};

/// Keys are checksums already.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are of one kind")
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[allow(clippy::disallowed_types, reason = "its order is never looked at")]
type Seen = std::collections::HashSet<u128, BuildHasherDefault<Plain>>;

/// What a search found.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    /// What broke, and after how many steps at least.
    violation: Option<(&'static str, usize)>,
    /// States in which each epoch served.
    served: BTreeMap<usize, usize>,
    /// Most blocks that the first epoch acknowledged.
    acked_max: u8,
}

/// Breadth first, so that what breaks breaks in as few steps as can be.
///
/// `only`: the one thing that is looked at, if not all.
fn search(size: Size, weakening: Option<Weakening>, only: Option<&str>) -> Found {
    let is_looked_at = |broken: &str| only.is_none_or(|only| only == broken);
    let mut found = Found::default();
    let mut seen = Seen::default();
    let mut layer = vec![State::first()];
    let mut depth = 0;
    let mut next = Vec::new();
    while !layer.is_empty() {
        let mut after = Vec::new();
        for state in &layer {
            let mut steps = Steps {
                size,
                weakening,
                found: &mut next,
                violation: None,
            };
            steps.all(state);
            if let Some(broken) = steps.violation.filter(|broken| is_looked_at(broken)) {
                found.violation = Some((broken, depth + 1));
                return found;
            }
            for state in next.drain(..) {
                if !seen.insert(xxhash_rust::xxh3::xxh3_128(&state.encode())) {
                    continue;
                }
                if let Some(broken) = state.broken().find(|broken| is_looked_at(broken)) {
                    found.violation = Some((broken, depth + 1));
                    found.states = seen.len();
                    return found;
                }
                found.note(&state);
                after.push(state);
            }
        }
        layer = after;
        depth += 1;
    }
    found.states = seen.len();
    found
}

impl Found {
    fn note(&mut self, state: &State) {
        for (epoch, owner) in state.owners.iter().enumerate() {
            if owner.served {
                *self.served.entry(epoch).or_default() += 1;
            }
        }
        let acked = state.owners[0].acked.iter().sum();
        self.acked_max = self.acked_max.max(acked);
    }
}

fn holds(size: Size) {
    let found = search(size, None, None);
    println!("{size:?}: {found:?}");
    assert_eq!(found.violation, None);
    assert_eq!(
        found.served.len(),
        size.epochs,
        "each epoch serves somewhere"
    );
    let blocks: u8 = size.blocks[0].iter().sum();
    assert_eq!(found.acked_max, blocks, "all can be acknowledged");
}

#[test]
fn nothing_breaks_with_three_owners() {
    holds(THREE);
}

#[test]
fn nothing_breaks_with_four_owners() {
    holds(FOUR);
}

#[test]
fn each_weakening_breaks_what_the_document_says() {
    let rows = documented();
    assert_eq!(rows.len(), Weakening::ALL.len(), "rows in the document");
    for ((documented, breaks, steps), &(weakening, words)) in rows.iter().zip(Weakening::ALL) {
        assert_eq!(documented, words);
        let broken = [THREE, FOUR].map(|size| search(size, Some(weakening), None).violation);
        let first = broken.iter().flatten().min_by_key(|(_, depth)| *depth);
        let first = first.unwrap_or_else(|| panic!("not found: {words}"));
        assert_eq!(first, &(breaks.as_str(), *steps), "{words}");
    }
}

/// What is said to hold can be seen to break: no check is blind.
#[test]
fn each_check_finds_something() {
    let broken_by = [
        (LOST, Weakening::NoBarrier),
        (LOST_ON_DISK, Weakening::OldSpaceReused),
        (DISAGREE, Weakening::OwnFenceNotRead),
        (TWO_SERVE, Weakening::ClaimInSlot),
    ];
    for (broken, weakening) in broken_by {
        let found = search(THREE, Some(weakening), Some(broken));
        assert!(
            found.violation.is_some(),
            "{broken} was not found by {weakening:?}"
        );
        assert!(DOCUMENT.contains(&format!("* *{broken}*: ")), "{broken}");
    }
}

/// The table of weakenings: what is wrong, what breaks, after how many steps.
fn documented() -> Vec<(String, String, usize)> {
    let (_, table) = DOCUMENT.split_once("| Weakening |").expect("the table");
    let lines = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [words, breaks, steps] = cells[..] else {
            panic!("{line:?} does not have three columns")
        };
        let steps = steps.parse().expect("a number of steps");
        (words.to_string(), breaks.to_string(), steps)
    };
    lines.map(row).collect()
}

#[test]
fn an_owner_that_is_over_stays_over() {
    let mut state = State::first();
    state.owners[0].at = At::Over;
    let mut next = Vec::new();
    let mut steps = Steps {
        size: THREE,
        weakening: None,
        found: &mut next,
        violation: None,
    };
    steps.all(&state);
    assert!(next.iter().all(|state| state.owners[0].at == At::Over));
}
