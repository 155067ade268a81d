//! Who asked what: one task that puts questions to shards and brings the answers back to those who
//! wait. A question whose asker went away stays open until it is answered.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use forebay_journal::ShardId;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::question::Failure;
use crate::limits::ADMIN_QUESTIONS_MAX;
use crate::runtime::admin::AdminDesk;
use crate::shard::{AdminAsk, AdminQuestion, AdminTold};

/// How long a shard may take: it answers in its next turn, or when its disk has written.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question on its way to the task.
struct Call {
    shard: ShardId,
    ask: AdminAsk,
    reply: oneshot::Sender<AdminTold>,
}

/// Asks shards.
#[derive(Clone)]
pub(super) struct Desk {
    calls: mpsc::Sender<Call>,
    shard_count: u16,
    damaged: Arc<[ShardId]>,
}

/// The task.
struct Clerk {
    desk: AdminDesk,
    /// By id: the shard, and who waits.
    open: BTreeMap<u64, (ShardId, oneshot::Sender<AdminTold>)>,
    next_id: u64,
}

impl Desk {
    /// Starts the task on the runtime that this is called in.
    ///
    /// Errors: the socket cannot be watched.
    pub(super) fn start(
        desk: AdminDesk,
        woken: StdUnixStream,
        damaged: Vec<ShardId>,
    ) -> io::Result<Self> {
        let shard_count = desk.shards().count() as u16;
        let (calls, mut asked) = mpsc::channel::<Call>(ADMIN_QUESTIONS_MAX as usize);
        let woken = UnixStream::from_std(woken)?;
        let mut clerk = Clerk {
            desk,
            open: BTreeMap::new(),
            next_id: 1,
        };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    call = asked.recv() => match call {
                        Some(call) => clerk.ask(call),
                        None => return,
                    },
                    ready = woken.readable() => {
                        // Read first: what comes after is told by another byte.
                        if ready.is_err() || woken.try_read(&mut [0; 64]).is_ok_and(|n| n == 0) {
                            return;
                        }
                        clerk.pass_answers();
                    }
                }
            }
        });
        Ok(Self {
            calls,
            shard_count,
            damaged: damaged.into(),
        })
    }

    /// The shards of the node.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shard_count).map(ShardId)
    }

    /// Those that do not serve because their journals are damaged.
    pub(super) fn damaged(&self) -> &[ShardId] {
        &self.damaged
    }

    /// Asks a shard.
    ///
    /// Errors: it is damaged, does not answer in time, has too many questions open, or stops.
    pub(super) async fn ask(&self, shard: ShardId, ask: AdminAsk) -> Result<AdminTold, Failure> {
        if self.damaged.contains(&shard) {
            return Err(Failure::Damaged(shard));
        }
        let (reply, answer) = oneshot::channel();
        let call = Call { shard, ask, reply };
        let asked = async {
            self.calls.send(call).await.map_err(|_| Failure::Stopping)?;
            // Dropped unasked: there was no room.
            answer.await.map_err(|_| Failure::Busy(shard))
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(AdminTold::Stopping)) => Err(Failure::Stopping),
            Ok(told) => told,
            Err(_) => Err(Failure::Silent(shard)),
        }
    }
}

impl Clerk {
    fn ask(&mut self, call: Call) {
        let Call { shard, ask, reply } = call;
        let open = self.open.values().filter(|(of, _)| *of == shard);
        if open.count() >= ADMIN_QUESTIONS_MAX as usize {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        if self.desk.ask(shard, AdminQuestion { id, ask }).is_ok() {
            self.open.insert(id, (shard, reply));
        }
    }

    fn pass_answers(&mut self) {
        for shard in self.desk.shards() {
            while let Some(answer) = self.desk.take(shard) {
                if let Some((_, reply)) = self.open.remove(&answer.id) {
                    // Who asked may have gone.
                    let _ = reply.send(answer.told);
                }
            }
        }
    }
}
