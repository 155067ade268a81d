//! What the core of a node does, case by case: who serves and who waits, for how long, and what
//! ends it. Covers L01, L11 to L14, L16, L17, HA-003, HA-005, HA-006, HA-048, HA-051, HA-054.

#[path = "lease_core/group.rs"]
mod group;

use forebay_journal::Epoch;
use forebay_journal::format::{FENCE_SIZE, Fence, Incarnation, Next, NodeName, Role};
use forebay_journal::lease::{Done, HandoverError, LockState, Loss};
use forebay_journal::storage::IoFailure;
use forebay_journal::{Lsn, ShardId};
use group::{Group, seal};

fn name(name: &str) -> NodeName {
    NodeName::new(name).expect("a name")
}

/// A primary that serves and a backup that stands by.
fn pair() -> (Group, usize, usize) {
    let mut group = Group::new();
    let a = group.join("a", Role::Primary);
    group.pass_until_served(a);
    let b = group.join("b", Role::Backup);
    group.pass(1_000);
    assert!(group.has_told(b, "Standby { active: Some(NodeName(a)) }"));
    (group, a, b)
}

#[test]
fn a_lone_node_serves_at_once_and_each_start_is_an_epoch() {
    let mut group = Group::new();
    for epoch in 1..4 {
        let node = group.join("a", Role::Backup);
        assert!(group.pass_until_served(node) < 10);
        assert_eq!(
            group.nodes[node].lease.own_slot().epoch,
            Epoch::ZERO.plus(epoch)
        );
        group.kill(node);
    }
    let open: Vec<bool> = group
        .claims
        .values()
        .map(|claim| Fence::decode(claim).expect("sound").is_open())
        .collect();
    assert_eq!(open, [false, false, true], "only the last may acknowledge");
}

#[test]
fn a_process_that_is_gone_is_noticed_by_its_lock() {
    let (mut group, a, b) = pair();
    group.kill(a);
    let ms = group.pass_until_served(b);
    assert!(ms <= 60, "{ms} ms");
    assert!(group.has_told(b, "LockFree"));
}

#[test]
fn a_node_that_hangs_is_waited_for() {
    let (mut group, a, b) = pair();
    group.nodes[a].is_away = true;
    let ms = group.pass_until_served(b);
    assert!((1_900..2_400).contains(&ms), "{ms} ms");
    assert!(group.has_told(b, "Silent"));
    // It wakes up: its time is over, and its fence is shut.
    group.nodes[a].is_away = false;
    group.pass(1);
    assert!(
        group.has_told(a, "Ended(Lost(Expired))"),
        "{:?}",
        group.nodes[a].told
    );
}

#[test]
fn a_lock_that_says_yes_to_all_says_nothing() {
    let mut group = Group::new();
    group.lock_says = Some(LockState::Taken);
    let a = group.join("a", Role::Primary);
    group.pass_until_served(a);
    let b = group.join("b", Role::Backup);
    group.pass(10_000);
    assert_eq!(group.nodes[b].served_us, None, "{:?}", group.nodes[b].told);
    assert!(group.nodes[a].served_us.is_some());
}

#[test]
fn who_has_just_started_watches_for_a_whole_time() {
    let (mut group, a, b) = pair();
    group.kill(b);
    group.lock_says = Some(LockState::Unsupported);
    group.nodes[a].is_away = true;
    group.pass(60_000);
    let c = group.join("c", Role::Backup);
    let ms = group.pass_until_served(c);
    assert!(
        ms >= 2_000,
        "{ms} ms: it cannot know for how long that was so"
    );
}

#[test]
fn reads_that_fail_prove_nothing() {
    let (mut group, a, b) = pair();
    group.lock_says = Some(LockState::Busy);
    group.nodes[b].fails = Some(IoFailure::IO);
    // Its own heartbeats fail as well: that ends it, and it never took over.
    group.pass(10_000);
    assert!(group.has_told(b, "Refused(Io"));
    assert!(!group.has_told(b, "Taking"));
    assert!(group.nodes[a].served_us.is_some());
}

#[test]
fn a_heartbeat_that_comes_late_revives_nothing() {
    let (mut group, a, _) = pair();
    let until_us = group.nodes[a].lease.valid_until_us().expect("it serves");
    group.nodes[a].held = Some(Vec::new());
    group.nodes[a].is_away = true;
    // One heartbeat is begun in time and written too late.
    group.now_us += 300_000;
    group.settle(a);
    let held = group.nodes[a].held.take().expect("held");
    assert_eq!(held.len(), 1);
    group.now_us = until_us;
    group.nodes[a]
        .lease
        .handle_done(held[0], Done::Written, until_us);
    group.settle(a);
    assert!(
        group.has_told(a, "Ended(Lost("),
        "{:?}",
        group.nodes[a].told
    );
    assert_eq!(group.nodes[a].lease.valid_until_us(), None);
}

#[test]
fn a_write_that_hangs_ends_a_holder_before_anybody_may_try() {
    let (mut group, a, b) = pair();
    group.nodes[a].held = Some(Vec::new());
    group.pass(800);
    assert!(
        group.has_told(a, "Ended(Lost(Stalled))"),
        "{:?}",
        group.nodes[a].told
    );
    assert_eq!(group.nodes[b].served_us, None);
    // Its process does not end yet, so its lock stays: the others wait.
    let ms = group.pass_until_served(b);
    assert!(ms > 1_000, "{ms} ms");
}

#[test]
fn failures_of_the_folder_end_a_holder() {
    for code in [5, 116, 30] {
        let (mut group, a, b) = pair();
        group.nodes[a].fails = Some(IoFailure(code));
        group.pass(300);
        assert!(
            group.has_told(a, "Ended(Lost(Io"),
            "{:?}",
            group.nodes[a].told
        );
        group.pass_until_served(b);
    }
}

#[test]
fn a_stop_for_nobody_leaves_the_others_as_they_are() {
    let (mut group, a, b) = pair();
    group.stop(a, Next::Nobody);
    group.pass(20_000);
    assert!(!group.has_told(b, "Taking"), "{:?}", group.nodes[b].told);
    // It comes back and goes on; or an operator says otherwise.
    let again = group.join("a", Role::Primary);
    group.pass_until_served(again);
    group.stop(again, Next::Nobody);
    group.pass(5_000);
    let now_us = group.now_us;
    assert!(group.nodes[b].lease.order_takeover(now_us));
    group.pass_until_served(b);
    assert!(group.has_told(b, "Ordered"));
}

#[test]
fn a_stop_for_anybody_gives_to_the_first_in_line() {
    let (mut group, a, b) = pair();
    let c = group.join("c", Role::Backup);
    group.pass(1_000);
    assert_eq!(group.nodes[b].lease.line_position(), Some(0));
    assert_eq!(group.nodes[c].lease.line_position(), Some(1));
    group.stop(a, Next::Anybody);
    group.pass_until_served(b);
    // The primary is back behind both, and comes first all the same.
    let again = group.join("a", Role::Primary);
    group.pass(1_000);
    assert_eq!(group.nodes[again].lease.line_position(), Some(0));
    assert_eq!(group.nodes[c].lease.line_position(), Some(1));
    group.kill(b);
    group.pass_until_served(again);
    assert_eq!(group.nodes[c].served_us, None);
    group.kill(again);
    group.pass_until_served(c);
}

#[test]
fn the_second_in_line_goes_when_the_first_does_not() {
    let (mut group, a, b) = pair();
    let c = group.join("c", Role::Backup);
    group.pass(1_000);
    group.nodes[b].is_away = true;
    group.kill(a);
    let ms = group.pass_until_served(c);
    assert!((200..600).contains(&ms), "{ms} ms");
}

#[test]
fn a_handover_waits_until_its_target_is_ready() {
    let (mut group, a, b) = pair();
    let now_us = group.now_us;
    let unknown = group.nodes[a].lease.hand_over(name("x"), now_us);
    assert_eq!(unknown, Err(HandoverError::NoSuchStandby(name("x"))));
    assert_eq!(group.nodes[a].lease.hand_over(name("b"), now_us), Ok(()));
    group.nodes[a].drains = false;
    let mut drained_us = None;
    for _ in 0..1_000 {
        group.pass(1);
        if drained_us.is_none() && group.has_told(a, "Drain") {
            drained_us = Some(group.now_us);
            assert_eq!(group.nodes[b].served_us, None, "not before it is given");
            group.nodes[a].lease.handle_drained();
        }
    }
    assert!(group.has_told(a, "Released"));
    let gap_us = group.nodes[b].served_us.expect("it serves") - drained_us.expect("drained");
    assert!(gap_us <= 20_000, "{gap_us} us");
    assert!(group.has_told(a, "Standby { active: Some(NodeName(b)) }"));
}

#[test]
fn a_handover_to_one_that_does_not_answer_is_given_up() {
    let (mut group, a, b) = pair();
    let now_us = group.now_us;
    assert_eq!(group.nodes[a].lease.hand_over(name("b"), now_us), Ok(()));
    group.nodes[b].is_away = true;
    group.pass(2_100);
    assert!(group.has_told(a, "HandoverFailed { to: NodeName(b) }"));
    assert!(!group.has_told(a, "Drain"));
    assert!(group.nodes[a].served_us.is_some());
}

#[test]
fn a_handover_to_one_that_dies_then_is_made_up_for() {
    let (mut group, a, b) = pair();
    let now_us = group.now_us;
    group.nodes[a].drains = false;
    assert_eq!(group.nodes[a].lease.hand_over(name("b"), now_us), Ok(()));
    while !group.has_told(a, "Drain") {
        group.pass(1);
    }
    group.kill(b);
    group.nodes[a].lease.handle_drained();
    group.settle(a);
    assert_eq!(group.nodes[a].served_us, None);
    let ms = group.pass_until_served(a);
    assert!((1_900..2_400).contains(&ms), "{ms} ms");
}

#[test]
fn a_backup_gives_way_when_its_primary_was_back_for_long_enough() {
    let mut group = Group::new();
    let mut config = Group::config("b", Role::Backup, 9);
    config.is_failback_allowed = true;
    let b = group.start(config);
    group.pass_until_served(b);
    let a = group.join("a", Role::Primary);
    let ms = group.pass_until_served(a);
    assert!((1_000..2_000).contains(&ms), "{ms} ms");
    assert!(group.has_told(a, "HandedOver"));
    group.pass(200);
    assert!(group.has_told(b, "Standby { active: Some(NodeName(a)) }"));
}

#[test]
fn a_second_node_of_a_name_refuses() {
    let (mut group, a, _) = pair();
    let mut config = Group::config("a", Role::Primary, 77);
    config.is_name_locked = false;
    let twin = group.start(config);
    group.pass(1_000);
    assert!(group.has_told(twin, "Refused(NameInUse(NodeName(a)))"));
    assert!(group.nodes[a].served_us.is_some());
    // Without the lock of the name, one that is gone is waited for.
    group.kill(a);
    let mut config = Group::config("a", Role::Primary, 78);
    config.is_name_locked = false;
    let again = group.start(config);
    group.pass(6_000);
    assert!(
        group.has_told(again, "Standby"),
        "{:?}",
        group.nodes[again].told
    );
}

#[test]
fn a_shard_that_a_base_does_not_serve_has_its_base_further_down() {
    let (mut group, a, b) = pair();
    let mut slot = group.nodes[a].lease.own_slot().clone();
    slot.epoch = Epoch::ZERO.plus(2);
    slot.incarnation = Incarnation([3; 16]);
    group.put_claim(&slot, vec![Some(seal(1, 10)), Some(seal(1, 20))]);
    slot.epoch = Epoch::ZERO.plus(3);
    group.put_claim(&slot, vec![Some(seal(2, 30)), None]);
    group.kill(a);
    group.pass_until_served(b);
    let bases: Vec<_> = group.nodes[b].bases.iter().flatten().collect();
    assert_eq!((bases[0].epoch.get(), bases[0].seal), (3, seal(2, 30)));
    assert_eq!((bases[1].epoch.get(), bases[1].seal), (2, seal(1, 20)));
}

#[test]
fn seals_that_are_damaged_end_a_takeover() {
    let (mut group, a, b) = pair();
    let file = group.claims.get_mut(&Epoch::ZERO.next()).expect("claimed");
    for at in [FENCE_SIZE + 100, FENCE_SIZE + 3 * 4096 + 100] {
        file[at] ^= 1;
    }
    group.kill(a);
    group.pass(3_000);
    assert!(group.has_told(b, "TakeoverFailed(SealsDamaged(Epoch(1)))"));
    assert_eq!(group.nodes[b].served_us, None);
}

#[test]
fn a_list_that_lacks_a_claim_ends_a_takeover() {
    let (mut group, a, b) = pair();
    group.claims.clear();
    group.kill(a);
    group.pass(3_000);
    assert!(group.has_told(b, "TakeoverFailed(ListStale(Epoch(1)))"));
}

#[test]
fn damaged_slots_are_in_the_way_only_for_a_while() {
    let (mut group, a, b) = pair();
    group.lock_says = Some(LockState::Unsupported);
    group.pass(100);
    for copy in 0..2 {
        group.slot(3, copy)[9] ^= 1;
    }
    group.pass(100);
    assert!(group.nodes[a].served_us.is_some());
    group.nodes[a].is_away = true;
    for copy in 0..2 {
        group.slot(0, copy)[9] ^= 1;
    }
    let ms = group.pass_until_served(b);
    assert!((2_000..2_700).contains(&ms), "{ms} ms");
}

/// A shard of a node that serves epoch 1, and the bytes of its fence.
fn shard() -> (forebay_journal::lease::ShardLease, Vec<u8>, Vec<u8>) {
    let mut group = Group::new();
    let a = group.join("a", Role::Primary);
    group.pass_until_served(a);
    let lease = group.nodes[a].shards.remove(0);
    let open = group.claims[&lease.epoch()][..FENCE_SIZE].to_vec();
    let claim = Fence::decode(&open).expect("sound").claim;
    let shut = Fence::shut(claim, Epoch::ZERO.plus(2)).encode().to_vec();
    (lease, open, shut)
}

fn lsn(lsn: u64) -> Lsn {
    Lsn::ZERO.plus(lsn)
}

#[test]
fn a_barrier_covers_what_was_durable_when_it_was_submitted() {
    let (mut lease, open, _) = shard();
    assert_eq!(lease.poll_read(0), None, "nothing to acknowledge");
    assert_eq!(lease.handle_durable(lsn(5)), None, "not without a look");
    let first = lease.poll_read(0).expect("due");
    assert_eq!(lease.poll_read(0), None, "one is enough");
    lease.handle_durable(lsn(8));
    let second = lease.poll_read(10).expect("due");
    lease.handle_durable(lsn(9));
    assert_eq!(lease.poll_read(20), None, "two at once");
    let released = lease
        .handle_read(second.ticket, Ok(&open), 30)
        .expect("open");
    assert_eq!(released.expect("more").end(), lsn(8), "not 9");
    assert_eq!(
        lease.handle_read(first.ticket, Ok(&open), 40),
        Ok(None),
        "never back"
    );
    let third = lease.poll_read(50).expect("due");
    let released = lease
        .handle_read(third.ticket, Ok(&open), 60)
        .expect("open");
    assert_eq!(released.expect("more").end(), lsn(9));
    lease.check_invariants();
}

#[test]
fn a_loss_is_for_ever() {
    let (mut lease, open, shut) = shard();
    lease.handle_durable(lsn(5));
    let first = lease.poll_read(0).expect("due");
    lease.handle_durable(lsn(6));
    let second = lease.poll_read(0).expect("due");
    let superseded = Err(Loss::Superseded(Epoch::ZERO.plus(2)));
    assert_eq!(lease.handle_read(first.ticket, Ok(&shut), 10), superseded);
    assert_eq!(lease.handle_read(second.ticket, Ok(&open), 20), superseded);
    lease.handle_durable(lsn(7));
    assert_eq!(lease.poll_read(30), None);
    assert!(lease.handle_timeout(30).is_err());
}

#[test]
fn a_fence_that_cannot_be_made_out_is_read_again_but_not_for_ever() {
    let (mut lease, open, _) = shard();
    let torn = [&open[..2_048], &vec![0xff; 2_048]].concat();
    lease.handle_durable(lsn(5));
    let read = lease.poll_read(0).expect("due");
    assert_eq!(lease.handle_read(read.ticket, Ok(&torn), 10), Ok(None));
    let read = lease.poll_read(20).expect("due again");
    let released = lease.handle_read(read.ticket, Ok(&open), 30).expect("open");
    assert_eq!(released.expect("more").end(), lsn(5));
    lease.handle_durable(lsn(6));
    for at_us in [1_000_000, 1_400_000] {
        let read = lease.poll_read(at_us).expect("due");
        assert_eq!(lease.handle_read(read.ticket, Ok(&torn), at_us), Ok(None));
    }
    let read = lease.poll_read(1_500_000).expect("due");
    let lost = lease.handle_read(read.ticket, Ok(&torn), 1_500_000);
    assert_eq!(lost, Err(Loss::FenceUnsound));
}

#[test]
fn a_read_that_fails_or_hangs_is_the_end() {
    let (mut lease, ..) = shard();
    lease.handle_durable(lsn(5));
    let read = lease.poll_read(0).expect("due");
    assert_eq!(lease.poll_timeout(), Some(500_000));
    assert_eq!(lease.handle_timeout(499_999), Ok(()));
    assert_eq!(lease.handle_timeout(500_000), Err(Loss::Stalled));
    let late = lease.handle_read(read.ticket, Err(IoFailure::IO), 600_000);
    assert_eq!(late, Err(Loss::Stalled));
    let (mut lease, ..) = shard();
    lease.handle_durable(lsn(5));
    let read = lease.poll_read(0).expect("due");
    let failed = lease.handle_read(read.ticket, Err(IoFailure(116)), 10);
    assert_eq!(failed, Err(Loss::Io(IoFailure(116))));
}

#[test]
fn a_node_alone_asks_nobody() {
    use forebay_journal::lease::ShardLease;
    let mut lease = ShardLease::alone(ShardId(0), Epoch::ZERO.next(), seal(1, 4));
    assert_eq!(lease.handle_durable(lsn(5)), None, "that was sealed before");
    assert_eq!(lease.handle_durable(lsn(9)).expect("more").end(), lsn(9));
    assert_eq!((lease.poll_read(0), lease.poll_timeout()), (None, None));
    lease.check_invariants();
}
