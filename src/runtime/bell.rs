//! Wakes a shard's ring from another thread: an eventfd the ring keeps a read armed on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Rings at one shard. Clones ring at the same.
#[derive(Clone, Debug)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    /// Makes a bell.
    ///
    /// Errors: out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Wakes the shard. Rings while it is awake are not lost and count as one.
    pub fn ring(&self) {
        // The only failure of a non-blocking eventfd is a full counter: then it is ringing.
        let _ = self.0.write(1);
    }

    /// The descriptor a ring watches.
    ///
    /// Errors: out of file descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}
