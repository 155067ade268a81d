//! One socket of a shard's ring: what is armed, and how it ends.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{Shutdown, shutdown};

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: OwnedFd,
    /// Whether a receive is under way.
    pub(super) is_receiving: bool,
    /// Whether input is wanted.
    pub(super) is_wanted: bool,
    /// Whether a send is under way.
    pub(super) is_sending: bool,
    /// Whether the client ended its side.
    pub(super) has_ended: bool,
    /// All was said: nothing is read but thrown away, until the client closes or time is over.
    ///
    /// Closing at once with unread input would reset the connection, and the last frame, which
    /// says why, would be lost on its way.
    pub(super) lingers_until_us: Option<u64>,
}

impl Socket {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            is_receiving: false,
            is_wanted: true,
            is_sending: false,
            has_ended: false,
            lingers_until_us: None,
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Says to the client that nothing more comes.
    pub(super) fn end_output(&self) {
        // It may be gone already; then there is nobody to tell.
        let _ = shutdown(self.raw(), Shutdown::Write);
    }

    /// Ends both sides, so that whatever is under way completes.
    pub(super) fn abort(&self) {
        let _ = shutdown(self.raw(), Shutdown::Both);
    }

    /// Whether nothing is under way, so that the descriptor can be closed.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_receiving && !self.is_sending
    }
}
