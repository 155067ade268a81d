//! Random histories of a shard's queues, with restarts: the machine that lived, the machine that
//! replayed the same records from real blocks, and a naive model agree after every step.
//!
//! `FOREBAY_QUEUE_HISTORIES=100000 cargo test --test queue_model` runs longer.

mod dispatch;
mod gathering;
mod journal;
mod model;
mod operate;
mod relocate;
mod replay;
#[allow(dead_code, reason = "one list of rewriting is for the other models")]
mod rewrite;
mod rig;
mod selective;
mod subscription;
mod transaction;
mod wildcards;

use std::cell::Cell;

use forebay::queue::Rank;
use forebay_journal::format::{Routing, TransactionState};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use rig::{Pick, Rig, Sending};
use subscription::Kind;

#[derive(Clone, Debug)]
enum Op {
    Send(Sending, u8),
    Subscribe {
        to: u8,
        routing: Routing,
        credit: u8,
        rank: Rank,
    },
    SubscribeTemporary {
        to: u8,
        credit: u8,
        rank: Rank,
    },
    Join {
        which: u8,
        credit: u8,
        rank: Rank,
    },
    JoinFiltered {
        which: u8,
        credit: u8,
        rank: Rank,
        filter: u8,
    },
    Examine {
        rounds: u8,
    },
    /// An answer that nobody waits for.
    ExamineAny {
        which: u8,
        id: u8,
        filter: u8,
    },
    /// Everything that can be handed out is.
    Drain,
    Detach {
        who: u8,
    },
    Dispatch {
        rounds: u8,
    },
    DispatchMiddle {
        which: u8,
        skip: u8,
    },
    Ack(Pick),
    Nack(Pick),
    AddCredit {
        who: u8,
        messages: u8,
    },
    SetBlocked {
        who: u8,
        is_blocked: bool,
    },
    Expire {
        now: u8,
    },
    SetClock {
        now: u8,
    },
    Delete {
        which: u8,
    },
    Pause {
        which: u8,
        is_paused: bool,
    },
    Purge {
        which: u8,
        most: u8,
    },
    /// A deletion that gives way to consumers.
    Remove {
        which: u8,
    },
    DefineDurableTopicQueue {
        to: u8,
    },
    SubscribeByName {
        name: u8,
        to: u8,
        kind: Kind,
        credit: u8,
    },
    Forget {
        name: u8,
        for_shared: Option<bool>,
    },
    Unsubscribe {
        who: u8,
    },
    Upload {
        fragments: u8,
    },
    Abandon {
        which: u8,
    },
    /// Whether it is given back, and in which transaction.
    StageSettle(Pick, bool, u64),
    Transact {
        transaction: u64,
        state: TransactionState,
    },
    DrawTransaction {
        shard: u8,
    },
    /// A restart while a prepared transaction holds a settlement.
    Doubt(Pick, bool, u64),
    Seal,
    Reclaim,
    /// Begins a checkpoint, or goes on with so many slices of it.
    Checkpoint {
        slices: u8,
    },
    /// Messages are written anew, and what was before them is freed.
    Relocate {
        skip: u8,
        most: u8,
    },
    CompareWithReplay,
    Restart,
}

fn routing() -> impl Strategy<Value = Routing> {
    prop_oneof![2 => Just(Routing::Anycast), 1 => Just(Routing::Multicast)]
}

fn pick() -> impl Strategy<Value = Pick> {
    any::<(u8, u8, bool, bool)>().prop_map(|(who, which, by_message, is_cumulative)| Pick {
        who,
        which,
        by_message,
        is_cumulative,
    })
}

fn rank() -> impl Strategy<Value = Rank> {
    let priority = prop_oneof![3 => Just(0), 1 => -1..3];
    let is_exclusive = prop_oneof![6 => Just(false), 1 => Just(true)];
    (priority, is_exclusive).prop_map(|(priority, is_exclusive)| Rank {
        priority,
        is_exclusive,
    })
}

/// Its number, whether it ends and whether filters are asked at once.
fn group() -> impl Strategy<Value = (u8, bool, bool)> {
    let number = prop_oneof![3 => Just(0), 1 => 1..5_u8];
    let is_end = prop_oneof![4 => Just(false), 1 => Just(true)];
    (number, is_end, any::<bool>())
}

fn sending() -> impl Strategy<Value = Sending> {
    let fragments = prop_oneof![6 => Just(0), 1 => 1..4_u8];
    let transaction = prop_oneof![6 => Just(0), 1 => 1..4_u64];
    let is_persistent = prop_oneof![3 => Just(true), 1 => Just(false)];
    (
        any::<u8>(),
        routing(),
        is_persistent,
        (
            0..1500_u16,
            prop_oneof![4 => Just(4), 1 => 0..=9_u8],
            prop_oneof![3 => Just(0), 1 => 1..=100_u8],
        ),
        fragments,
        transaction,
        group(),
    )
        .prop_map(
            |(to, routing, is_persistent, sizes, fragments, transaction, group)| {
                let ((size, priority, expires), (group, is_group_end, is_asked)) = (sizes, group);
                Sending {
                    to,
                    routing,
                    is_persistent,
                    size,
                    priority,
                    expires,
                    fragments,
                    transaction,
                    group,
                    is_group_end,
                    is_asked,
                }
            },
        )
}

/// Mostly the same, so that some are found as they were.
fn kind() -> impl Strategy<Value = Kind> {
    let rarely = || prop_oneof![4 => Just(false), 1 => Just(true)];
    let filter = prop_oneof![4 => Just(0_u8), 1 => 1..3_u8];
    (filter, any::<bool>(), any::<bool>(), rarely()).prop_map(
        |(filter, is_durable, is_shared, is_no_local)| Kind {
            filter,
            is_durable,
            is_shared,
            is_no_local,
        },
    )
}

fn transaction_state() -> impl Strategy<Value = TransactionState> {
    prop_oneof![
        Just(TransactionState::Prepared),
        Just(TransactionState::Committed),
        Just(TransactionState::RolledBack),
        Just(TransactionState::Decided),
        Just(TransactionState::Ended),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (sending(), prop_oneof![3 => Just(1_u8), 1 => 2..15_u8])
            .prop_map(|(sending, count)| Op::Send(sending, count)),
        6 => (any::<u8>(), routing(), 0..24_u8, rank())
            .prop_map(|(to, routing, credit, rank)| Op::Subscribe { to, routing, credit, rank }),
        2 => (any::<u8>(), 0..24_u8, rank())
            .prop_map(|(to, credit, rank)| Op::SubscribeTemporary { to, credit, rank }),
        2 => (any::<u8>(), 0..24_u8, rank())
            .prop_map(|(which, credit, rank)| Op::Join { which, credit, rank }),
        4 => (any::<u8>(), 0..24_u8, rank(), any::<u8>())
            .prop_map(|(which, credit, rank, filter)| Op::JoinFiltered {
                which,
                credit,
                rank,
                filter,
            }),
        8 => (1..9_u8).prop_map(|rounds| Op::Examine { rounds }),
        2 => any::<(u8, u8, u8)>()
            .prop_map(|(which, id, filter)| Op::ExamineAny { which, id, filter }),
        1 => Just(Op::Drain),
        2 => any::<u8>().prop_map(|who| Op::Detach { who }),
        20 => (1..9_u8).prop_map(|rounds| Op::Dispatch { rounds }),
        3 => any::<(u8, u8)>()
            .prop_map(|(which, skip)| Op::DispatchMiddle { which, skip: skip % 6 }),
        14 => pick().prop_map(Op::Ack),
        8 => pick().prop_map(Op::Nack),
        2 => any::<(u8, u8)>().prop_map(|(who, n)| Op::AddCredit { who, messages: n % 4 }),
        2 => (0..=110_u8).prop_map(|now| Op::Expire { now }),
        2 => (0..=110_u8).prop_map(|now| Op::SetClock { now }),
        3 => any::<(u8, bool)>().prop_map(|(who, is_blocked)| Op::SetBlocked { who, is_blocked }),
        1 => any::<u8>().prop_map(|which| Op::Delete { which }),
        4 => any::<(u8, bool)>().prop_map(|(which, is_paused)| Op::Pause { which, is_paused }),
        1 => any::<(u8, u8)>().prop_map(|(which, most)| Op::Purge { which, most }),
        1 => any::<u8>().prop_map(|which| Op::Remove { which }),
        1 => any::<u8>().prop_map(|to| Op::DefineDurableTopicQueue { to }),
        8 => (any::<(u8, u8, u8)>(), kind()).prop_map(|((name, to, credit), kind)| {
            Op::SubscribeByName {
                name,
                // Mostly the topic it had.
                to: if to < 60 { to } else { name },
                kind,
                credit: credit % 12,
            }
        }),
        1 => any::<(u8, Option<bool>)>()
            .prop_map(|(name, for_shared)| Op::Forget { name, for_shared }),
        1 => any::<u8>().prop_map(|who| Op::Unsubscribe { who }),
        1 => (1..4_u8).prop_map(|fragments| Op::Upload { fragments }),
        1 => any::<u8>().prop_map(|which| Op::Abandon { which }),
        6 => (pick(), any::<bool>(), 1..4_u64)
            .prop_map(|(pick, is_release, number)| Op::StageSettle(pick, is_release, number)),
        3 => (1..4_u64, transaction_state())
            .prop_map(|(transaction, state)| Op::Transact { transaction, state }),
        1 => any::<u8>().prop_map(|shard| Op::DrawTransaction { shard }),
        1 => (pick(), any::<bool>(), 1..4_u64)
            .prop_map(|(pick, is_release, number)| Op::Doubt(pick, is_release, number)),
        2 => Just(Op::Seal),
        3 => Just(Op::Reclaim),
        8 => (1..6_u8).prop_map(|slices| Op::Checkpoint { slices }),
        5 => any::<(u8, u8)>().prop_map(|(skip, most)| Op::Relocate {
            // Mostly the first.
            skip: if skip < 160 { 0 } else { skip },
            most: if most < 128 { u8::MAX } else { most % 8 },
        }),
        1 => Just(Op::CompareWithReplay),
        2 => Just(Op::Restart),
    ]
}

fn run(rig: &mut Rig, op: &Op) {
    match op {
        Op::Send(sending, count) => (0..*count).for_each(|_| rig.send(sending)),
        Op::Subscribe {
            to,
            routing,
            credit,
            rank,
        } => rig.subscribe(*to, *routing, *credit, *rank),
        Op::SubscribeTemporary { to, credit, rank } => {
            rig.subscribe_temporary(*to, *credit, *rank);
        }
        Op::Join {
            which,
            credit,
            rank,
        } => rig.join(*which, *credit, *rank),
        Op::JoinFiltered {
            which,
            credit,
            rank,
            filter,
        } => rig.join_filtered(*which, *credit, *rank, *filter),
        Op::Examine { rounds } => rig.examine(*rounds),
        Op::ExamineAny { which, id, filter } => rig.examine_any(*which, *id, *filter),
        Op::Drain => rig.drain(),
        Op::Detach { who } => rig.detach(*who),
        Op::Dispatch { rounds } => rig.dispatch(*rounds),
        Op::DispatchMiddle { which, skip } => rig.dispatch_middle(*which, *skip),
        Op::Ack(pick) => rig.answer(pick, false),
        Op::Nack(pick) => rig.answer(pick, true),
        Op::AddCredit { who, messages } => rig.add_credit(*who, *messages),
        Op::SetBlocked { who, is_blocked } => rig.set_blocked(*who, *is_blocked),
        Op::Expire { now } => rig.expire(*now),
        Op::SetClock { now } => rig.now = u64::from(*now),
        Op::Delete { which } => rig.delete(*which),
        Op::Pause { which, is_paused } => rig.pause(*which, *is_paused),
        Op::Purge { which, most } => rig.purge(*which, *most),
        Op::Remove { which } => rig.remove(*which),
        Op::DefineDurableTopicQueue { to } => rig.define_durable_topic_queue(*to),
        Op::SubscribeByName {
            name,
            to,
            kind,
            credit,
        } => rig.subscribe_by_name(*name, *to, *kind, *credit),
        Op::Forget { name, for_shared } => rig.forget(*name, *for_shared),
        Op::Unsubscribe { who } => rig.unsubscribe(*who),
        Op::Upload { fragments } => drop(rig.upload(*fragments)),
        Op::Abandon { which } => rig.abandon(*which),
        Op::StageSettle(pick, is_release, transaction) => {
            rig.stage_settle(pick, *is_release, *transaction)
        }
        Op::Transact { transaction, state } => rig.transact(*transaction, *state),
        Op::DrawTransaction { shard } => rig.draw_transaction(*shard),
        Op::Doubt(pick, is_release, transaction) => {
            rig.stage_settle(pick, *is_release, *transaction);
            rig.transact(*transaction, TransactionState::Prepared);
            rig.restart();
        }
        Op::Seal => rig.seal(),
        Op::Reclaim => rig.reclaim(),
        Op::Checkpoint { slices } => rig.checkpoint(*slices),
        Op::Relocate { skip, most } => rig.relocate(*skip, *most),
        Op::CompareWithReplay => rig.compare_with_replay(),
        Op::Restart => rig.restart(),
    }
    rig.compare();
}

#[test]
fn live_replay_and_model_agree_over_random_histories() {
    let histories = std::env::var("FOREBAY_QUEUE_HISTORIES");
    let cases = histories.map_or(20_000, |count| {
        count.parse().expect("a number of histories")
    });
    let [steps, restarts, checkpoints] = [(); 3].map(|()| Cell::new(0_u64));
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&proptest::collection::vec(op(), 1..160), |ops| {
        let mut rig = Rig::new();
        for op in &ops {
            run(&mut rig, op);
        }
        rig.drain();
        rig.compare_with_replay();
        rig.compare();
        rig.restart();
        steps.set(steps.get() + ops.len() as u64);
        restarts.set(restarts.get() + rig.restarts);
        checkpoints.set(checkpoints.get() + rig.checkpoints);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    println!(
        "{cases} histories, {} steps, {} restarts, {} checkpoints",
        steps.get(),
        restarts.get(),
        checkpoints.get()
    );
}
