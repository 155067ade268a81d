//! The admin side: HTTP with JSON over a UNIX socket in the data folder, on a thread of its own.
//!
//! It owns nothing of the broker: each answer is made of what the shards were asked just then.
//! Who may open the socket may do all of it: its owner, which is who runs the broker.

mod api;
mod desk;
mod metrics;
mod question;
mod serve;
pub(super) mod shape;
pub(super) mod socket;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::damaged::DamagedShard;
use crate::housekeeping::Board;
use crate::housekeeping::quarantine::QuarantineUse;
use crate::runtime::admin::AdminDesk;
use desk::Desk;
use serve::Door;
use socket::AdminSocket;

/// What every path is given.
#[derive(Clone)]
struct Api {
    desk: Desk,
    identity: Identity,
}

/// What a node is, for who asks how it does.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// Its name.
    pub(super) node: String,
    /// The epoch of this run.
    pub(super) epoch: u64,
    /// What lies in the quarantine since its start.
    pub(super) quarantine: QuarantineUse,
    /// The data folder.
    pub(super) data: PathBuf,
    /// When it started, in wall-clock milliseconds.
    pub(super) started_unix_ms: u64,
    /// Whether identifiers are written behind the blocks.
    pub(super) is_strict: bool,
    /// Bytes that this start cut, of each shard.
    pub(super) cut_bytes: Vec<u64>,
    /// What housekeeping says of each shard's files.
    pub(super) boards: Vec<Arc<Board>>,
    /// Its shards that do not serve.
    pub(super) damaged: Vec<DamagedShard>,
}

/// The admin side's thread.
pub(super) struct AdminServer {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    socket: AdminSocket,
}

impl AdminServer {
    /// Starts the thread and answers from now on; scrapes at `metrics` as well, if that is there.
    ///
    /// Errors: no thread, or out of descriptors.
    pub(super) fn start(
        socket: AdminSocket,
        metrics: Option<TcpListener>,
        desk: AdminDesk,
        identity: Identity,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = socket.listener()?;
        let answers = desk.woken()?;
        let thread = std::thread::Builder::new()
            .name("forebay-admin".to_owned())
            .spawn(move || {
                let served = runtime.block_on(async {
                    let door = Door::Unix(tokio::net::UnixListener::from_std(listener)?);
                    let damaged = identity.damaged.iter().map(|one| one.shard);
                    let desk = Desk::start(desk, answers, damaged.collect())?;
                    let api = Api { desk, identity };
                    if let Some(metrics) = metrics {
                        metrics.set_nonblocking(true)?;
                        let door = Door::Tcp(tokio::net::TcpListener::from_std(metrics)?);
                        // Ends with the runtime.
                        tokio::spawn(serve::serve(door, metrics::router(api.clone())));
                    }
                    tokio::select! {
                        () = serve::serve(door, api::router(api)) => {}
                        _ = stopped => {}
                    }
                    Ok::<(), io::Error>(())
                });
                if let Err(error) = served {
                    tracing::error!("the admin side cannot be served: {error}");
                }
            })?;
        Ok(Self {
            thread,
            stop,
            socket,
        })
    }

    /// Takes the socket away and ends the thread.
    pub(super) fn stop(self) {
        self.socket.remove();
        // It may have ended by itself.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
