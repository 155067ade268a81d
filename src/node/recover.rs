//! Recovers the journals of all shards, several at a time.
//!
//! Each shard is read and replayed by a thread of its own and waits for no other one. What they
//! answer is judged in the order of the shards: so a start says, refuses and goes on with the same
//! as if they had come one after the other.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use forebay_journal::ShardId;
use forebay_journal::format::Superblock;

use super::config::Config;
use super::damaged::DamagedShard;
use super::error::NodeError;
use crate::housekeeping::folder::Folder;
use crate::housekeeping::{Scanned, scan};
use crate::shard::{QueueLimits, check_selectors};

/// The shards of a folder, as recovery left them; none where its journal is damaged.
///
/// Errors: the first that is not about one shard alone; or the first of all, if no shard is sound.
pub(super) fn scan_all(
    config: &Config,
    folder: &Folder,
    superblock: &Superblock,
) -> Result<(Vec<Option<Scanned>>, Vec<DamagedShard>), NodeError> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let shards: Vec<_> = (0..superblock.shard_count).map(ShardId).collect();
    let answers = side_by_side(&shards, cores, |shard| {
        scan_one(config, folder, superblock, *shard)
    });
    judge(shards.into_iter().zip(answers))
}

fn judge<T>(
    answers: impl Iterator<Item = (ShardId, Result<T, NodeError>)>,
) -> Result<(Vec<Option<T>>, Vec<DamagedShard>), NodeError> {
    let (mut scans, mut damaged, mut first) = (Vec::new(), Vec::new(), None);
    for (shard, answer) in answers {
        match answer {
            Ok(scanned) => scans.push(Some(scanned)),
            Err(error) => {
                let Some(one) = DamagedShard::of(shard, &error) else {
                    return Err(error);
                };
                damaged.push(one);
                scans.push(None);
                first.get_or_insert(error);
            }
        }
    }
    match first {
        // Nothing is left to serve.
        Some(error) if scans.iter().all(Option::is_none) => Err(error),
        _ => Ok((scans, damaged)),
    }
}

fn scan_one(
    config: &Config,
    folder: &Folder,
    superblock: &Superblock,
    shard: ShardId,
) -> Result<Scanned, NodeError> {
    let (limits, policies) = (QueueLimits::OF_BROKER, config.policies());
    let scanned = scan(folder, superblock.journal, shard, limits, policies);
    let scanned = scanned.map_err(NodeError::Scan)?;
    check_selectors(&scanned.machine).map_err(|unsound| NodeError::Selector(shard, unsound))?;
    Ok(scanned)
}

/// Does the work for each item, `at_once` of them at a time, begun in order; answers in the order
/// of the items.
fn side_by_side<I: Sync, T: Send>(
    items: &[I],
    at_once: usize,
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else {
                return done;
            };
            done.push((at, work(item)));
        }
    };
    let others = at_once.min(items.len()).saturating_sub(1);
    let mut done: Vec<_> = thread::scope(|scope| {
        let begin = |_| thread::Builder::new().spawn_scoped(scope, take_turns);
        // A thread that cannot be had is done without.
        let others: Vec<_> = (0..others).map(begin).filter_map(Result::ok).collect();
        let mut done = take_turns();
        for other in others {
            done.extend(other.join().expect("a panic ends the process"));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "threads of a test meet")]
mod tests {
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use forebay_journal::recovery::{Problem, RecoveryError};
    use forebay_journal::{Epoch, Lsn, SegmentId};

    use super::*;
    use crate::housekeeping::ScanError;

    /// Where several meet: nobody goes on before so many came.
    #[derive(Default)]
    struct Meeting {
        came: Mutex<usize>,
        changed: Condvar,
    }

    impl Meeting {
        fn wait_for(&self, count: usize) -> bool {
            let mut came = self.came.lock().unwrap();
            *came += 1;
            self.changed.notify_all();
            let limit = Duration::from_secs(20);
            let few = |came: &mut usize| *came < count;
            let came = self.changed.wait_timeout_while(came, limit, few);
            !came.unwrap().1.timed_out()
        }
    }

    #[test]
    fn no_shard_waits_for_another_to_be_recovered() {
        let meeting = Meeting::default();
        let met = side_by_side(&[0, 1, 2, 3], 4, |_| meeting.wait_for(4));
        assert_eq!(met, [true; 4], "each can only end when all have begun");
    }

    #[test]
    fn so_many_at_once_and_no_more_and_the_answers_in_order() {
        let (meeting, running) = (Meeting::default(), AtomicUsize::new(0));
        let items: Vec<usize> = (0..64).collect();
        let answers = side_by_side(&items, 2, |item| {
            let others = running.fetch_add(1, Ordering::SeqCst);
            assert!(others < 2, "{others} others run beside {item}");
            // The first two at once, in whatever order they end.
            let met = *item > 1 || meeting.wait_for(2);
            running.fetch_sub(1, Ordering::SeqCst);
            (*item, met)
        });
        assert!(
            answers
                .into_iter()
                .eq(items.into_iter().map(|item| (item, true)))
        );
        assert_eq!(side_by_side(&[7], 0, |item| *item), [7]);
        assert!(side_by_side(&[0; 0], 3, |item| *item).is_empty());
    }

    /// A journal whose damage begins with this record.
    fn damage(lsn: u64) -> NodeError {
        let error = RecoveryError {
            problem: Problem::SegmentMissing,
            file: None,
            shard: ShardId(0),
            epoch: Epoch::ZERO,
            segment: SegmentId::ZERO,
            offset: 0,
            lsn_from: Lsn::ZERO.plus(lsn),
            lsn_upto: None,
        };
        NodeError::Scan(ScanError::Damaged {
            error: Box::new(error),
            path: None,
        })
    }

    fn first_lsn(error: &NodeError) -> Option<u64> {
        match error {
            NodeError::Scan(ScanError::Damaged { error, .. }) => Some(error.lsn_from.get()),
            _ => None,
        }
    }

    #[test]
    fn answers_are_judged_in_the_order_of_the_shards() {
        let of = |answers: Vec<Result<char, _>>| judge((0..).map(ShardId).zip(answers));
        let (scans, damaged) = of(vec![Ok('a'), Err(damage(1)), Ok('c')]).unwrap();
        assert_eq!(scans, [Some('a'), None, Some('c')]);
        assert!(damaged.iter().map(|one| one.shard).eq([ShardId(1)]));
        let none_sound = of(vec![Err(damage(1)), Err(damage(2))]);
        assert_eq!(first_lsn(&none_sound.unwrap_err()), Some(1));
        let machine = |reason: &str| NodeError::Scan(ScanError::Executor(reason.to_owned()));
        let refused = vec![
            Ok('a'),
            Err(damage(1)),
            Err(machine("x")),
            Err(machine("y")),
        ];
        let error = of(refused).unwrap_err();
        assert!(matches!(error, NodeError::Scan(ScanError::Executor(reason)) if reason == "x"));
    }
}
