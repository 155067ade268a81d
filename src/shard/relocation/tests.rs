//! The choice over simulated journals: one message of every N stays for ever.

use std::collections::BTreeMap;

use forebay_journal::SegmentId;

use crate::limits::RELOCATION_DEAD_SEGMENTS;

use super::{Need, RECORD_OVERHEAD_BYTES, Situation, Spent, choose};

const MESSAGE: u64 = 1024;
const RECORD: u64 = MESSAGE + RECORD_OVERHEAD_BYTES;
const SIZE: u64 = 1 << 20;
const BUDGET_PERCENT: u32 = 25;
const FIRST_BYTES: u64 = SIZE / 4;

/// A journal of equal records; a segment holds as many as fit.
struct Disk {
    can_free_any: bool,
    /// Records that stay, by segment.
    live: BTreeMap<u64, u64>,
    oldest: u64,
    current: u64,
    used: u64,
    spent: Spent,
    victim: Option<u64>,
    has_begun: bool,
    peak_bytes: u64,
}

impl Disk {
    fn new(can_free_any: bool) -> Self {
        Self {
            can_free_any,
            live: BTreeMap::new(),
            oldest: 1,
            current: 1,
            used: 0,
            spent: Spent::default(),
            victim: None,
            has_begun: false,
            peak_bytes: 0,
        }
    }

    fn write(&mut self, stays: bool) {
        if self.used + RECORD > SIZE {
            self.current += 1;
            self.used = 0;
        }
        self.used += RECORD;
        *self.live.entry(self.current).or_default() += u64::from(stays);
    }

    fn free(&mut self) {
        let current = self.current;
        if self.can_free_any {
            self.live
                .retain(|segment, live| *live > 0 || *segment == current);
        }
        while self.oldest < current && self.live.get(&self.oldest).is_none_or(|live| *live == 0) {
            self.live.remove(&self.oldest);
            self.oldest += 1;
        }
    }

    fn ingest(&mut self, stays: bool) {
        self.write(stays);
        self.spent.ingested_bytes += RECORD;
        self.free();
        while self.spent.allowance(BUDGET_PERCENT, FIRST_BYTES) >= RECORD && self.relocate() {}
        self.peak_bytes = self.peak_bytes.max(self.disk_bytes());
    }

    fn relocate(&mut self) -> bool {
        if self.victim.is_none() {
            let full = self
                .live
                .iter()
                .filter(|(segment, _)| **segment < self.current);
            let needs = full.map(|(segment, live)| Need {
                segment: SegmentId::ZERO.plus(*segment),
                references: *live,
                bytes: live * MESSAGE,
            });
            let situation = Situation {
                size_bytes: SIZE,
                dead_segments: RELOCATION_DEAD_SEGMENTS,
                can_free_any: self.can_free_any,
                is_short: false,
                has_begun: self.has_begun,
            };
            self.victim = choose(needs, situation).map(SegmentId::get);
            self.has_begun = self.victim.is_some();
        }
        let Some(victim) = self.victim else {
            return false;
        };
        *self.live.get_mut(&victim).expect("it is there") -= 1;
        self.write(true);
        self.spent.rewritten_bytes += RECORD;
        if self.live[&victim] == 0 {
            self.victim = None;
            self.free();
        }
        true
    }

    fn disk_bytes(&self) -> u64 {
        if self.can_free_any {
            self.live.len() as u64 * SIZE
        } else {
            (self.current - self.oldest + 1) * SIZE
        }
    }

    fn live_bytes(&self) -> u64 {
        self.live.values().sum::<u64>() * RECORD
    }
}

/// Features 6.9, where any segment can be freed: disk <= 1.3 x live and a constant.
#[test]
fn one_of_every_n_for_ever_costs_little_more_than_itself() {
    for n in [10, 100, 1000, 10_000] {
        let mut disk = Disk::new(true);
        for number in 0..600_000_u64 {
            disk.ingest(number.is_multiple_of(n));
            let bound = disk.live_bytes() * 13 / 10 + 12 * SIZE;
            assert!(
                disk.disk_bytes() <= bound,
                "{} of {bound}",
                disk.disk_bytes()
            );
        }
        report(n, &disk);
    }
}

/// Where only the first ones can, what stays has to be passed over once a lap: with a budget b the
/// disk takes (1 + 1/b) x live and a constant.
#[test]
fn one_of_every_n_for_ever_is_bounded_where_only_prefixes_go() {
    for n in [10, 100, 1000, 10_000] {
        let mut disk = Disk::new(false);
        for number in 0..600_000_u64 {
            disk.ingest(number.is_multiple_of(n));
            let bound = disk.live_bytes() * 6 + 12 * SIZE;
            assert!(
                disk.disk_bytes() <= bound,
                "{} of {bound}",
                disk.disk_bytes()
            );
        }
        report(n, &disk);
    }
}

fn report(n: u64, disk: &Disk) {
    let Spent {
        ingested_bytes,
        rewritten_bytes,
    } = disk.spent;
    println!(
        "N = {n}, any: {}: ingested {ingested_bytes}, live {}, disk {} (at most {}), written anew {rewritten_bytes}",
        disk.can_free_any,
        disk.live_bytes(),
        disk.disk_bytes(),
        disk.peak_bytes,
    );
    let allowed = ingested_bytes * u64::from(BUDGET_PERCENT) / 100 + FIRST_BYTES;
    assert!(rewritten_bytes <= allowed, "{rewritten_bytes} of {allowed}");
}

#[test]
fn what_is_full_or_nearly_empty_of_the_dead_is_left_alone() {
    let need = |number: u64, percent: u64| Need {
        segment: SegmentId::ZERO.plus(number),
        references: 1,
        bytes: SIZE * percent / 100,
    };
    let situation = Situation {
        size_bytes: SIZE,
        dead_segments: RELOCATION_DEAD_SEGMENTS,
        can_free_any: true,
        is_short: false,
        has_begun: false,
    };
    let full = (1..9).map(|number| need(number, 90));
    assert_eq!(choose(full.clone(), situation), None);
    // One that is sparse is not worth it while the rest is full.
    let one = full.clone().chain([need(9, 10)]);
    assert_eq!(choose(one.clone(), situation), None);
    let short = Situation {
        is_short: true,
        ..situation
    };
    assert_eq!(choose(one, short), Some(SegmentId::ZERO.plus(9)));
    let sparse = (1..19).map(|number| need(number, 30 - number));
    assert_eq!(
        choose(sparse.clone(), situation),
        Some(SegmentId::ZERO.plus(18))
    );
    let prefix = Situation {
        can_free_any: false,
        ..situation
    };
    assert_eq!(choose(sparse, prefix), Some(SegmentId::ZERO.plus(1)));
    // The first is full, and what follows makes up for it.
    let mixed = [90, 90, 10, 10].into_iter().zip(1..);
    let mixed = mixed.map(|(percent, number)| need(number, percent));
    let short = Situation {
        is_short: true,
        ..prefix
    };
    assert_eq!(choose(mixed, short), Some(SegmentId::ZERO.plus(1)));
    assert_eq!(choose(full, short), None);
}
