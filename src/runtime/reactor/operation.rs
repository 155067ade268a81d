//! What can be under way on a ring, and what comes back.

use std::os::fd::{OwnedFd, RawFd};

use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::storage::{UnfinishedWrite, WriteDone};

use super::receive::Received;

/// The caller's name for an operation; comes back with its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// An operation in flight, with the memory it may touch.
pub(super) enum Operation {
    Accept,
    Receive {
        token: Token,
    },
    Send {
        token: Token,
        bytes: Vec<u8>,
        sent: usize,
        socket: RawFd,
    },
    Write(UnfinishedWrite),
    Read {
        token: Token,
        buffer: ReadBuffer,
    },
    Wake,
    Cancel,
}

/// The end, or one step, of an operation. Failures are errno values.
pub enum Completion {
    /// A connection came in, or accepting failed.
    Accepted {
        /// The socket.
        result: Result<OwnedFd, i32>,
        /// Whether more can come; otherwise the listener has to be armed again.
        is_armed: bool,
    },
    /// Bytes came in, and this receive is over.
    Received {
        /// Names the socket.
        token: Token,
        /// The bytes; give them back.
        bytes: Received,
    },
    /// Nothing came from this receive: end of stream or failure.
    ReceiveEnded {
        /// Names the socket.
        token: Token,
        /// Zero at the end of the stream, else an errno value.
        errno: i32,
    },
    /// All bytes went into the socket, or it failed.
    Sent {
        /// Names the socket.
        token: Token,
        /// The buffer, to be used again.
        bytes: Vec<u8>,
        /// Failure as errno.
        result: Result<(), i32>,
    },
    /// A block is durable, or its write failed.
    Written(WriteDone),
    /// A read ended.
    Read {
        /// The caller's name for it.
        token: Token,
        /// The memory.
        buffer: ReadBuffer,
        /// Bytes read, or errno.
        result: Result<usize, i32>,
    },
    /// Another thread rang.
    Woken,
}
