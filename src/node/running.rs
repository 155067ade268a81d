//! A node whose shards run: waits for signals and failures, and tells the shards to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use forebay_journal::ShardId;
use nix::sys::signal::{SigSet, Signal};

use super::config::Config;
use super::error::NodeError;
use super::report;
use crate::housekeeping::Housekeeper;
use crate::runtime::bell::Bell;
use crate::runtime::placement::Device;
use crate::runtime::reactor::ArenaUse;

/// What the main thread waits for.
pub(super) enum Event {
    Signal(Signal),
    Ready(ShardId, ArenaUse, Option<usize>),
    Ended(Result<(), NodeError>),
}

/// A node whose shards run.
pub(super) struct Running {
    pub(super) events: Receiver<Event>,
    pub(super) sender: Sender<Event>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) bells: Vec<Bell>,
    pub(super) housekeeper: Option<Housekeeper>,
}

impl Running {
    /// Waits until every shard can take messages.
    pub(super) fn wait_ready(
        &mut self,
        signals: SigSet,
        config: &Config,
        device: &Option<Device>,
    ) -> Result<(), NodeError> {
        let sender = self.sender.clone();
        // Ends with the process: it waits for signals as long as there are any.
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if sender.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        });
        let mut ready = Vec::new();
        while ready.len() < self.threads.len() {
            match self.events.recv() {
                Ok(Event::Ready(shard, arena_use, core)) => ready.push((shard, arena_use, core)),
                Ok(Event::Ended(Err(error))) => return Err(error),
                Ok(Event::Signal(_)) => self.tell_stop(),
                Ok(Event::Ended(Ok(()))) | Err(_) => break,
            }
        }
        ready.sort_by_key(|(shard, ..)| *shard);
        report::placed(&ready, config, device.as_ref());
        Ok(())
    }

    fn tell_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.bells.iter().for_each(Bell::ring);
    }

    /// Waits for a signal, then for the shards' orderly end; or for a failure.
    pub(super) fn wait(&mut self) -> Result<(), NodeError> {
        let mut running = self.threads.len();
        while running > 0 {
            match self.events.recv() {
                Ok(Event::Signal(signal)) => {
                    tracing::info!("{signal}: stopping");
                    self.tell_stop();
                }
                Ok(Event::Ended(Ok(()))) => running -= 1,
                Ok(Event::Ended(Err(error))) => return Err(error),
                Ok(Event::Ready(..)) => {}
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) fn stop(mut self) {
        let failed = self.threads.iter().any(|thread| !thread.is_finished());
        self.tell_stop();
        if let Some(housekeeper) = self.housekeeper.take()
            && !failed
        {
            housekeeper.stop();
        }
    }
}
