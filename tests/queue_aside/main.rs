//! Random histories of queues whose messages wait for their time, fail, are refused, expire, leave
//! for another address, replace each other and are sent again, alone or as a transaction ends, with
//! restarts: the machine that
//! lived or replayed the same records, and a naive model, agree after every step.
//!
//! `FOREBAY_QUEUE_HISTORIES=100000 cargo test --test queue_aside` runs longer.

#[allow(dead_code, reason = "the other model test uses the rest of it")]
#[path = "../queue_model/journal.rs"]
mod journal;
mod model;
#[path = "../queue_model/rewrite.rs"]
mod rewrite;
mod rig;
mod transaction;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use forebay_journal::format::TransactionState;
use model::{Back, RULES};
use rig::{Rig, Sending};

#[derive(Clone, Debug)]
enum Op {
    Send(usize, Sending),
    Dispatch(usize),
    Ack(usize, u8),
    GiveBack(usize, u8, Back),
    Detach(usize, Back),
    /// An answer that counts when the transaction commits; none is an acknowledgement.
    Stage(u64, usize, u8, Option<Back>),
    End(u64, TransactionState),
    Tick(u8),
    Depart(u8),
    ArriveLate,
    Reclaim,
    /// Begins a checkpoint, or goes on with so many slices of it.
    Checkpoint(u8),
    /// What is needed of the first segment is written anew, and it is freed.
    Relocate,
    Restart,
}

fn queue() -> impl Strategy<Value = usize> {
    0..RULES.len()
}

fn back() -> impl Strategy<Value = Back> {
    prop_oneof![Just(Back::Unused), Just(Back::Failed), Just(Back::Refused)]
}

fn sending() -> impl Strategy<Value = Sending> {
    let rarely = |most: u8| prop_oneof![2 => Just(0), 1 => 1..most];
    let key = proptest::option::of(0..3_u8);
    let duplicate_id = proptest::option::weighted(0.3, 0..30_u8);
    let persistent = prop::bool::weighted(0.8);
    (persistent, rarely(40), rarely(60), key, duplicate_id).prop_map(
        |(is_persistent, delay, lifetime, key, duplicate_id)| Sending {
            is_persistent,
            delay,
            lifetime,
            key,
            duplicate_id,
        },
    )
}

fn end() -> impl Strategy<Value = TransactionState> {
    prop_oneof![
        Just(TransactionState::Prepared),
        Just(TransactionState::Committed),
        Just(TransactionState::RolledBack),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (queue(), sending()).prop_map(|(to, sending)| Op::Send(to, sending)),
        4 => queue().prop_map(Op::Dispatch),
        3 => (queue(), any::<u8>()).prop_map(|(of, pick)| Op::Ack(of, pick)),
        4 => (queue(), any::<u8>(), back()).prop_map(|(of, pick, how)| Op::GiveBack(of, pick, how)),
        1 => (queue(), back()).prop_map(|(of, how)| Op::Detach(of, how)),
        4 => (1..3_u64, queue(), any::<u8>(), proptest::option::weighted(0.8, back()))
            .prop_map(|(number, of, pick, how)| Op::Stage(number, of, pick, how)),
        2 => (1..3_u64, end()).prop_map(|(number, state)| Op::End(number, state)),
        3 => (0..30_u8).prop_map(Op::Tick),
        3 => any::<u8>().prop_map(Op::Depart),
        1 => Just(Op::ArriveLate),
        1 => Just(Op::Reclaim),
        3 => (1..6_u8).prop_map(Op::Checkpoint),
        2 => Just(Op::Relocate),
        1 => Just(Op::Restart),
    ]
}

fn run(rig: &mut Rig, op: &Op) {
    match op {
        Op::Send(to, sending) => rig.send(*to, sending),
        Op::Dispatch(which) => rig.dispatch(*which),
        Op::Ack(which, pick) => rig.ack(*which, *pick),
        Op::GiveBack(which, pick, how) => rig.give_back(*which, *pick, *how),
        Op::Detach(which, how) => rig.detach(*which, *how),
        Op::Stage(number, which, pick, how) => rig.stage(*number, *which, *pick, *how),
        Op::End(number, state) => rig.end(*number, *state),
        Op::Tick(ahead) => rig.tick(*ahead),
        Op::Depart(fate) => rig.depart(*fate),
        Op::ArriveLate => rig.arrive_late(),
        Op::Reclaim => rig.reclaim(),
        Op::Checkpoint(slices) => rig.checkpoint(*slices),
        Op::Relocate => {
            rewrite::rewrite_oldest(rig);
            rig.reclaim();
        }
        Op::Restart => rig.restart(),
    }
}

#[test]
fn live_replay_and_model_agree_over_what_is_aside() {
    let cases = std::env::var("FOREBAY_QUEUE_HISTORIES");
    let cases = cases.map_or(400, |text| text.parse().expect("a number"));
    let steps = Cell::new(0);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let histories = proptest::collection::vec(op(), 1..250);
    let outcome = TestRunner::new(config).run(&histories, |ops| {
        let mut rig = Rig::new();
        for op in &ops {
            run(&mut rig, op);
            rig.compare();
            steps.set(steps.get() + 1);
        }
        rig.restart();
        rig.compare();
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(steps.get() > cases as usize, "histories are not empty");
}
