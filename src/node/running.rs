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
use crate::housekeeping::{Board, Housekeeper};
use crate::runtime::bell::Bell;
use crate::runtime::placement::{Device, Placed};

/// What the main thread waits for.
pub(super) enum Event {
    Signal(Signal),
    Ready(ShardId, Placed),
    Ended(Result<(), NodeError>),
}

/// How a start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// Every shard takes messages.
    Ready,
    /// A signal came before: nobody was told that clients can connect.
    ToldToStop,
}

/// A node whose shards run.
pub(super) struct Running {
    pub(super) events: Receiver<Event>,
    pub(super) sender: Sender<Event>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Shards that ended in order.
    pub(super) ended: usize,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) bells: Vec<Bell>,
    pub(super) housekeeper: Housekeeper,
}

impl Running {
    /// Waits until every shard can take messages, or until all have ended because a signal came.
    pub(super) fn wait_ready(
        &mut self,
        signals: SigSet,
        config: &Config,
        device: &Option<Device>,
    ) -> Result<Started, NodeError> {
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
        let mut started = Started::Ready;
        while ready.len() < self.threads.len() {
            match self.next_event()? {
                Event::Ready(shard, placed) => ready.push((shard, placed)),
                Event::Signal(signal) => {
                    self.tell_stop(signal);
                    started = Started::ToldToStop;
                }
                Event::Ended(_) => {}
            }
        }
        ready.sort_by_key(|(shard, _)| *shard);
        report::placed(&ready, config, device.as_ref());
        Ok(started)
    }

    /// What housekeeping says of each shard's files.
    pub(super) fn boards(&self) -> Vec<Arc<Board>> {
        self.housekeeper.boards()
    }

    /// Waits for what comes next and counts the shards that ended.
    ///
    /// Errors: a shard failed.
    fn next_event(&mut self) -> Result<Event, NodeError> {
        // We hold a sender ourselves, so the channel does not close.
        match self.events.recv().expect("the channel has a sender: us") {
            Event::Ended(Err(error)) => Err(error),
            event => {
                self.ended += usize::from(matches!(event, Event::Ended(_)));
                Ok(event)
            }
        }
    }

    fn tell_stop(&self, signal: Signal) {
        tracing::info!("{signal}: stopping");
        self.stop.store(true, Ordering::Relaxed);
        self.bells.iter().for_each(Bell::ring);
    }

    /// Waits for a signal, then for the orderly end of all shards and of housekeeping.
    ///
    /// Errors: a shard failed. The others are left as they are: the process is to end at once, and
    /// what they acknowledged is durable.
    pub(super) fn wait(mut self) -> Result<(), NodeError> {
        while self.ended < self.threads.len() {
            if let Event::Signal(signal) = self.next_event()? {
                self.tell_stop(signal);
            }
        }
        for thread in self.threads {
            thread.join().expect("a shard's panic ends the process");
        }
        self.housekeeper.stop();
        Ok(())
    }
}
