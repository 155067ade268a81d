//! One shard's ring: every operation takes the memory it needs by value and gives it back.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use forebay_journal::SegmentId;
use forebay_journal::storage::buffer::{ArenaMemory, ReadBuffer};
use forebay_journal::storage::{BlockWrite, IDENTIFIERS, IoFailure, UnfinishedWrite, WriteStep};
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::operation::{Completion, Operation, Token};
use super::receive::{ReceiveBuffers, Received};

/// Registered file slots for segments being written.
const SEGMENT_SLOTS: u32 = 64;
/// Task-work rounds per turn: DEFER_TASKRUN runs at most 20 items per enter.
const DRAIN_ROUNDS_MAX: u32 = 64;
/// Largest single buffer the kernel registers (1 GiB).
const REGISTERED_BUFFER_SIZE_MAX: usize = 1 << 30;
/// Wait for data before looking for it (`IORING_RECVSEND_POLL_FIRST`).
const RECEIVE_POLL_FIRST: u16 = 1;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingSize {
    /// Submission entries.
    pub submissions: u32,
    /// Completion entries.
    pub completions: u32,
    /// Receive buffers, a power of two; zero for a ring without sockets.
    pub receive_buffers: u16,
    /// Bytes of each.
    pub receive_buffer_size: usize,
}

/// Why a ring cannot be made. All are the machine's fault; each names its remedy.
#[derive(Debug)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel refuses io_uring to this process.
    Forbidden(io::Error),
    /// The kernel is too old for what the reactor needs.
    TooOld(io::Error),
    /// Locked memory is not enough even for the ring itself.
    MemoryLock(io::Error),
    /// Something else.
    Other(io::Error),
}

impl RingError {
    fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => Self::Forbidden(error),
            Some(libc::EINVAL) => Self::TooOld(error),
            Some(libc::ENOMEM) => Self::MemoryLock(error),
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(error) => write!(
                f,
                "io_uring is forbidden here ({error}). Remedy: `sysctl kernel.io_uring_disabled=0`; \
                 in a container allow io_uring in the seccomp profile \
                 (`--security-opt seccomp=unconfined` or a profile with io_uring_setup, \
                 io_uring_enter, io_uring_register)"
            ),
            Self::TooOld(error) => write!(
                f,
                "this kernel's io_uring lacks what the reactor needs ({error}). \
                 Remedy: Linux 6.1 or newer"
            ),
            Self::MemoryLock(error) => write!(
                f,
                "not enough locked memory for a ring ({error}). Remedy: `ulimit -l unlimited`, \
                 LimitMEMLOCK=infinity in the systemd unit, or `--ulimit memlock=-1`"
            ),
            Self::Other(error) => write!(f, "io_uring could not be set up: {error}"),
        }
    }
}

impl std::error::Error for RingError {}

/// How journal blocks reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaUse {
    /// Their memory is registered: no page is pinned per write.
    Registered,
    /// MEMLOCK was too small: plain writes, a little more CPU each.
    Unregistered,
}

/// One io_uring instance and everything in flight on it.
///
/// Not `Send`: a ring belongs to the thread that made it (`IORING_SETUP_SINGLE_ISSUER`).
pub struct Ring {
    // Dropped first, before any memory the kernel might touch.
    ring: IoUring,
    operations: Vec<Option<Operation>>,
    free: Vec<u32>,
    in_flight: usize,
    receive: Option<ReceiveBuffers>,
    /// Bytes of one receive buffer.
    receive_size: u32,
    arena: Option<ArenaMemory>,
    arena_use: ArenaUse,
    segments: Vec<Option<(SegmentId, OwnedFd)>>,
    wake: Option<OwnedFd>,
    wake_count: Box<[u8; 8]>,
    raw: Vec<(u64, i32, u32)>,
    enters: u64,
}

impl Ring {
    /// Makes a ring for the calling thread.
    ///
    /// Errors: see [`RingError`].
    pub fn new(size: RingSize) -> Result<Self, RingError> {
        let ring: IoUring = IoUring::builder()
            .setup_cqsize(size.completions)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(size.submissions)
            .map_err(RingError::from_setup)?;
        ring.submitter()
            .register_files_sparse(SEGMENT_SLOTS)
            .map_err(RingError::from_setup)?;
        let receive = (size.receive_buffers > 0)
            .then(|| {
                ReceiveBuffers::register(&ring, size.receive_buffers, size.receive_buffer_size)
            })
            .transpose()
            .map_err(RingError::from_setup)?;
        Ok(Self {
            ring,
            operations: Vec::with_capacity(1024),
            free: Vec::with_capacity(1024),
            in_flight: 0,
            receive,
            receive_size: size.receive_buffer_size as u32,
            arena: None,
            arena_use: ArenaUse::Unregistered,
            segments: (0..SEGMENT_SLOTS).map(|_| None).collect(),
            wake: None,
            wake_count: Box::new([0; 8]),
            raw: Vec::with_capacity(size.completions as usize),
            enters: 0,
        })
    }

    /// Registers the memory journal blocks live in; falls back to plain writes when the limit on
    /// locked memory does not allow it.
    pub fn register_arena(&mut self, memory: ArenaMemory) -> ArenaUse {
        let buffers: Vec<libc::iovec> = (0..memory.size())
            .step_by(REGISTERED_BUFFER_SIZE_MAX)
            .map(|offset| libc::iovec {
                iov_base: memory.address().wrapping_add(offset).cast_mut().cast(),
                iov_len: (memory.size() - offset).min(REGISTERED_BUFFER_SIZE_MAX),
            })
            .collect();
        // SAFETY: the ranges lie within one live allocation, which `self.arena` keeps alive until
        // after the ring is closed (field order).
        let registered = unsafe { self.ring.submitter().register_buffers(&buffers) };
        // A block that straddles two registered buffers cannot be written by either.
        let is_usable = registered.is_ok() && buffers.len() == 1;
        self.arena = Some(memory);
        self.arena_use = if is_usable {
            ArenaUse::Registered
        } else {
            ArenaUse::Unregistered
        };
        self.arena_use
    }

    /// How blocks are written.
    pub fn arena_use(&self) -> ArenaUse {
        self.arena_use
    }

    /// System calls entered so far.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Operations in flight, armed receives and accepts included.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes a segment file that will be written.
    ///
    /// Errors: all slots are taken (our own bookkeeping) or the kernel refused.
    pub fn add_segment(&mut self, segment: SegmentId, file: OwnedFd) -> io::Result<()> {
        let slot = self.segments.iter().position(Option::is_none);
        let slot = slot.ok_or_else(|| io::Error::other("no segment slot is free"))?;
        self.ring
            .submitter()
            .register_files_update(slot as u32, &[file.as_raw_fd()])?;
        self.segments[slot] = Some((segment, file));
        Ok(())
    }

    /// Lets go of the files of segments below `segment` that no write is under way to. That of the
    /// identifiers stays.
    ///
    /// Errors: the kernel refused.
    pub fn drop_segments_before(&mut self, segment: SegmentId) -> io::Result<()> {
        for slot in 0..self.segments.len() {
            let Some((held, _)) = self.segments[slot].as_ref() else {
                continue;
            };
            let is_writing = |operation: &Operation| match operation {
                Operation::Write(write) => write.segment() == *held,
                _ => false,
            };
            if *held != IDENTIFIERS
                && *held < segment
                && !self.operations.iter().flatten().any(is_writing)
            {
                self.ring
                    .submitter()
                    .register_files_update(slot as u32, &[-1])?;
                self.segments[slot] = None;
            }
        }
        Ok(())
    }

    /// Accepts connections from `listener` until it fails or [`Self::cancel_accepts`].
    pub fn accept(&mut self, listener: RawFd) {
        let entry = opcode::AcceptMulti::new(Fd(listener))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(Operation::Accept, entry);
    }

    /// Accepts no more.
    pub fn cancel_accepts(&mut self) {
        let is_accept =
            |(_, op): &(usize, &Option<Operation>)| matches!(op, Some(Operation::Accept));
        let accepts: Vec<_> = self
            .operations
            .iter()
            .enumerate()
            .filter(is_accept)
            .collect();
        let indices: Vec<_> = accepts.into_iter().map(|(index, _)| index as u64).collect();
        for index in indices {
            self.push(Operation::Cancel, opcode::AsyncCancel::new(index).build());
        }
    }

    /// Receives what one buffer holds from `socket`, once.
    ///
    /// `is_drained`: as far as is known nothing waits there, so the kernel need not look first.
    pub fn receive(&mut self, token: Token, socket: RawFd, is_drained: bool) {
        let size = self.receive_size;
        let priority = if is_drained { RECEIVE_POLL_FIRST } else { 0 };
        let entry = opcode::Recv::new(Fd(socket), ptr::null_mut(), size)
            .buf_group(ReceiveBuffers::GROUP)
            .ioprio(priority)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(Operation::Receive { token }, entry);
    }

    /// Gives receive memory back to the kernel.
    pub fn give_back(&mut self, received: Received) {
        self.receive
            .as_mut()
            .expect("received by this ring")
            .give_back(received);
    }

    /// Sends all of `bytes`. One send per socket at a time keeps them in order.
    pub fn send(&mut self, token: Token, socket: RawFd, bytes: Vec<u8>) {
        let entry = send_entry(socket, &bytes);
        self.push(
            Operation::Send {
                token,
                bytes,
                sent: 0,
                socket,
            },
            entry,
        );
    }

    /// Writes a block durably (`O_DIRECT` file, `RWF_DSYNC`).
    ///
    /// Panics: if its segment was not added.
    pub fn write(&mut self, write: BlockWrite) {
        self.start_write(UnfinishedWrite::new(write));
    }

    fn start_write(&mut self, write: UnfinishedWrite) {
        let entry = self.write_entry(&write);
        self.push(Operation::Write(write), entry);
    }

    fn write_entry(&self, write: &UnfinishedWrite) -> squeue::Entry {
        let held = |slot: &Option<(SegmentId, OwnedFd)>| {
            slot.as_ref()
                .is_some_and(|(segment, _)| *segment == write.segment())
        };
        let slot = self
            .segments
            .iter()
            .position(held)
            .expect("the segment was added") as u32;
        let bytes = write.bytes();
        let (offset, len) = (write.offset(), bytes.len() as u32);
        match self.arena_use {
            ArenaUse::Registered => opcode::WriteFixed::new(Fixed(slot), bytes.as_ptr(), len, 0)
                .offset(offset)
                .rw_flags(libc::RWF_DSYNC)
                .build(),
            ArenaUse::Unregistered => opcode::Write::new(Fixed(slot), bytes.as_ptr(), len)
                .offset(offset)
                .rw_flags(libc::RWF_DSYNC)
                .build(),
        }
    }

    /// Reads into all of `buffer` from `file` at `offset`.
    pub fn read(&mut self, token: Token, file: RawFd, offset: u64, mut buffer: ReadBuffer) {
        let entry = opcode::Read::new(Fd(file), buffer.as_mut_ptr(), buffer.len() as u32)
            .offset(offset)
            .build();
        self.push(Operation::Read { token, buffer }, entry);
    }

    /// Listens to `wake`, an eventfd other threads write to.
    pub fn watch(&mut self, wake: OwnedFd) {
        self.wake = Some(wake);
        self.arm_wake();
    }

    fn arm_wake(&mut self) {
        let wake = self
            .wake
            .as_ref()
            .expect("watch() took an eventfd")
            .as_raw_fd();
        let entry = opcode::Read::new(Fd(wake), self.wake_count.as_mut_ptr(), 8).build();
        self.push(Operation::Wake, entry);
    }

    fn push(&mut self, operation: Operation, entry: squeue::Entry) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.operations.push(None);
            (self.operations.len() - 1) as u32
        });
        self.operations[index as usize] = Some(operation);
        self.in_flight += 1;
        self.push_entry(entry.user_data(index.into()));
    }

    fn push_entry(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: every pointer in `entry` leads into memory owned by the operation in the
            // slab (or by `self` for the wake counter), which stays there, unmoved on the heap and
            // untouched, until the completion with this user data arrives.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            self.enters += 1;
            // The queue is full: hand it to the kernel. EBUSY (completions overflow) passes when
            // the next turn reaps; EINTR and EAGAIN by trying again.
            let _ = self.ring.submit();
        }
    }

    /// Submits what is queued and waits until something completes or `timeout_us` is over.
    ///
    /// Errors: the kernel refuses the ring (our own mistake, or it is going away).
    pub fn submit_and_wait(&mut self, timeout_us: Option<u64>) -> io::Result<()> {
        self.enters += 1;
        let waited = match timeout_us {
            None => self.ring.submit_and_wait(1),
            Some(us) => {
                let time = Timespec::new()
                    .sec(us / 1_000_000)
                    .nsec((us % 1_000_000) as u32 * 1_000);
                let args = SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match waited {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::ETIME | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Submits what is queued and does not wait.
    ///
    /// Errors: as [`Self::submit_and_wait`].
    pub fn submit_queued(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.enters += 1;
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether something completed, or will as soon as [`Self::reap`] lets the kernel run it. No
    /// system call.
    pub fn has_work(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// Takes all completions there are into `out`.
    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        let mut raw = std::mem::take(&mut self.raw);
        raw.extend(
            self.ring
                .completion()
                .map(|c| (c.user_data(), c.result(), c.flags())),
        );
        let mut rounds = 0;
        while rounds < DRAIN_ROUNDS_MAX && self.ring.submission().taskrun() {
            self.enters += 1;
            // SAFETY: no signal mask is passed; GETEVENTS (1) only runs pending task work.
            let _ = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, 1, None) };
            raw.extend(
                self.ring
                    .completion()
                    .map(|c| (c.user_data(), c.result(), c.flags())),
            );
            rounds += 1;
        }
        for (index, result, flags) in raw.drain(..) {
            if let Some(completion) = self.complete(index as u32, result, flags) {
                out.push(completion);
            }
        }
        self.raw = raw;
    }

    fn complete(&mut self, index: u32, result: i32, flags: u32) -> Option<Completion> {
        if cqueue::more(flags) {
            return self.complete_one_of_many(index, result);
        }
        let operation = self.operations[index as usize].take();
        self.free.push(index);
        self.in_flight -= 1;
        match operation.expect("each operation completes once") {
            Operation::Accept => Some(accepted(result, false)),
            Operation::Receive { token } if result > 0 => {
                let bytes = self.received(result, flags)?;
                Some(Completion::Received { token, bytes })
            }
            Operation::Receive { token } => {
                // The kernel takes a buffer back when nothing came; if not, we do.
                if let Some(buffer) = cqueue::buffer_select(flags)
                    && let Some(buffers) = &mut self.receive
                {
                    let unused = buffers.take(buffer, 0);
                    buffers.give_back(unused);
                }
                Some(Completion::ReceiveEnded {
                    token,
                    errno: -result,
                })
            }
            Operation::Send {
                token,
                bytes,
                sent,
                socket,
            } => self.complete_send(token, bytes, sent, socket, result),
            Operation::Write(write) => self.complete_write(write, result),
            Operation::Read { token, buffer } => {
                let result = usize::try_from(result).map_err(|_| -result);
                Some(Completion::Read {
                    token,
                    buffer,
                    result,
                })
            }
            Operation::Wake => {
                self.arm_wake();
                Some(Completion::Woken)
            }
            Operation::Cancel => None,
        }
    }

    fn complete_one_of_many(&mut self, index: u32, result: i32) -> Option<Completion> {
        match self.operations[index as usize]
            .as_ref()
            .expect("an armed operation is kept")
        {
            Operation::Accept => Some(accepted(result, true)),
            _ => unreachable!("only accept is multishot"),
        }
    }

    fn received(&self, result: i32, flags: u32) -> Option<Received> {
        let buffer = cqueue::buffer_select(flags)?;
        let len = usize::try_from(result).ok()?;
        self.receive
            .as_ref()
            .map(|buffers| buffers.take(buffer, len))
    }

    fn complete_send(
        &mut self,
        token: Token,
        bytes: Vec<u8>,
        sent: usize,
        socket: RawFd,
        result: i32,
    ) -> Option<Completion> {
        let Ok(count) = usize::try_from(result) else {
            return Some(Completion::Sent {
                token,
                bytes,
                result: Err(-result),
            });
        };
        let sent = sent + count;
        if sent >= bytes.len() {
            return Some(Completion::Sent {
                token,
                bytes,
                result: Ok(()),
            });
        }
        if count == 0 {
            return Some(Completion::Sent {
                token,
                bytes,
                result: Err(libc::EPIPE),
            });
        }
        let entry = send_entry(socket, &bytes[sent..]);
        self.push(
            Operation::Send {
                token,
                bytes,
                sent,
                socket,
            },
            entry,
        );
        None
    }

    /// What a result means is for the port to say (`UnfinishedWrite`).
    fn complete_write(&mut self, write: UnfinishedWrite, result: i32) -> Option<Completion> {
        let result = u32::try_from(result).map_err(|_| IoFailure(-result));
        match write.handle_result(result) {
            WriteStep::Done(done) => Some(Completion::Written(done)),
            WriteStep::Rest(rest) => {
                self.start_write(rest);
                None
            }
        }
    }
}

fn accepted(result: i32, is_armed: bool) -> Completion {
    if result < 0 {
        return Completion::Accepted {
            result: Err(-result),
            is_armed,
        };
    }
    // SAFETY: a non-negative result of accept is a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(result) };
    Completion::Accepted {
        result: Ok(socket),
        is_armed,
    }
}

/// MSG_WAITALL lets the kernel go on after a short send by itself.
fn send_entry(socket: RawFd, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(Fd(socket), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build()
}

impl Drop for Ring {
    /// Cancels what can be cancelled and waits for the rest, so that the kernel never touches
    /// memory that is freed. Block writes cannot be cancelled: the drop waits for the disk.
    fn drop(&mut self) {
        let _ = self.ring.submit();
        let mut completions = Vec::new();
        while self.in_flight > 0 {
            let _ = self
                .ring
                .submitter()
                .register_sync_cancel(None, CancelBuilder::any());
            self.operations.iter_mut().for_each(disarm);
            if self.submit_and_wait(Some(10_000)).is_err() {
                // The ring is gone while operations may run on: leak their memory rather than
                // free it under the kernel.
                std::mem::forget(std::mem::take(&mut self.operations));
                return;
            }
            self.reap_for_drop(&mut completions);
        }
    }
}

/// Multishot operations must not arm themselves again.
fn disarm(operation: &mut Option<Operation>) {
    if matches!(operation, Some(Operation::Accept | Operation::Wake)) {
        *operation = Some(Operation::Cancel);
    }
}

impl Ring {
    fn reap_for_drop(&mut self, completions: &mut Vec<Completion>) {
        let raw: Vec<_> = self
            .ring
            .completion()
            .map(|c| (c.user_data(), c.result(), c.flags()))
            .collect();
        for (index, result, flags) in raw {
            let is_cancelled = matches!(self.operations[index as usize], Some(Operation::Cancel));
            if is_cancelled && cqueue::more(flags) {
                continue;
            }
            if let Some(Operation::Accept | Operation::Wake) = self.operations[index as usize] {
                self.operations[index as usize] = Some(Operation::Cancel);
            }
            completions.extend(self.complete(index as u32, result, flags));
        }
        completions.clear();
    }
}
