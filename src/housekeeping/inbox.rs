//! What a shard asks of housekeeping and what comes back.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use crossbeam::queue::ArrayQueue;
use forebay_journal::format::SegmentHead;
use forebay_journal::{FreedSegments, SegmentId};

/// Asked by a shard.
#[derive(Debug)]
pub enum Request {
    /// Make this segment ready. Answered by [`Response::Prepared`], in the order asked.
    Prepare(SegmentId),
    /// Nothing in these segments is needed any more, durably so.
    Free(FreedSegments),
    /// End; nothing is answered any more.
    Stop,
}

/// Answered to a shard.
#[derive(Debug)]
pub enum Response {
    /// A segment is ready: headed, zero-filled or recycled, synced; the file is open for
    /// `O_DIRECT` reading and writing.
    Prepared {
        /// Its head.
        head: SegmentHead,
        /// Its file.
        file: OwnedFd,
    },
    /// There is no space for the next segment; it is tried again by itself.
    NoSpace,
    /// The disk failed; the node has to stop.
    Failed {
        /// What was tried, where, and the system's reason.
        reason: String,
    },
}

/// A bounded queue whose reader is a future.
pub(super) struct Inbox<T> {
    queue: ArrayQueue<T>,
    waker: Mutex<Option<Waker>>,
}

impl<T> Inbox<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queue: ArrayQueue::new(capacity),
            waker: Mutex::new(None),
        }
    }

    /// Puts `item` in, or gives it back when the queue is full.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        self.queue.push(item)?;
        let waker = self.waker.lock().ok().and_then(|mut waker| waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Items that nobody took yet.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes an item if there is one.
    pub(super) fn try_next(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Waits for the next item.
    pub(super) fn next(&self) -> Next<'_, T> {
        Next(self)
    }
}

pub(super) struct Next<'a, T>(&'a Inbox<T>);

impl<T> Future for Next<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Some(item) = self.0.queue.pop() {
            return Poll::Ready(item);
        }
        if let Ok(mut waker) = self.0.waker.lock() {
            *waker = Some(context.waker().clone());
        }
        // Again, because a push may have come between the first look and the waker.
        self.0.queue.pop().map_or(Poll::Pending, Poll::Ready)
    }
}
