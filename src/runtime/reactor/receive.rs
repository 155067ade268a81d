//! Provided buffers: memory the kernel chooses from when bytes come, so that a receive that waits
//! holds none.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

const PAGE_SIZE: usize = 4096;

/// Zeroed pages owned by one value.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(size: usize) -> Self {
        let layout =
            Layout::from_size_align(size.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE), PAGE_SIZE)
                .expect("a page is a power of two");
        // SAFETY: the layout's size is at least one page.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        Self { start, layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The receive buffers of one ring, in group 0.
///
/// Invariant: a buffer belongs either to the kernel (it is in the entry ring) or to exactly one
/// [`Received`].
pub(super) struct ReceiveBuffers {
    entries: Pages,
    memory: Rc<Pages>,
    count: u16,
    buffer_size: usize,
    tail: u16,
}

impl ReceiveBuffers {
    /// Group the buffers are registered under.
    pub(super) const GROUP: u16 = 0;

    /// Registers `count` (a power of two) buffers of `buffer_size` bytes with `ring`.
    pub(super) fn register(ring: &IoUring, count: u16, buffer_size: usize) -> io::Result<Self> {
        assert!(
            count.is_power_of_two(),
            "a buffer ring has a power of two entries"
        );
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>());
        let memory = Rc::new(Pages::new(usize::from(count) * buffer_size));
        let address = entries.start.as_ptr() as u64;
        // SAFETY: the entry pages are page-aligned, hold `count` entries and live in `self`, which
        // the owning `Ring` drops only after the ring's file descriptor (field order there).
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, Self::GROUP, 0)
        }?;
        let mut buffers = Self {
            entries,
            memory,
            count,
            buffer_size,
            tail: 0,
        };
        (0..count).for_each(|buffer| buffers.provide(buffer));
        Ok(buffers)
    }

    /// Gives buffer `buffer` to the kernel.
    fn provide(&mut self, buffer: u16) {
        let offset = usize::from(buffer) * self.buffer_size;
        // SAFETY: `buffer` < count, so the offset lies within the allocation.
        let address = unsafe { self.memory.start.as_ptr().add(offset) };
        let base = self.entries.start.cast::<BufRingEntry>().as_ptr();
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: index < count: within the entry pages.
        let entry = unsafe { base.add(index) };
        // SAFETY: the entry is ours to write: the kernel reads entries below the published tail
        // only, and no more than `count` buffers exist, so it has consumed the former one here.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address as u64);
        entry.set_len(self.buffer_size as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` points to the first entry of a registered ring, as `tail` requires.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: the tail is an aligned u16 inside the entry pages, shared with the kernel, which
        // only reads it; hence the atomic store.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Takes over a buffer the kernel filled with `len` bytes.
    pub(super) fn take(&self, buffer: u16, len: usize) -> Received {
        assert!(
            buffer < self.count && len <= self.buffer_size,
            "the kernel names our buffers"
        );
        let offset = usize::from(buffer) * self.buffer_size;
        Received {
            memory: Rc::clone(&self.memory),
            offset,
            len,
            buffer,
        }
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn give_back(&mut self, received: Received) {
        assert!(
            Rc::ptr_eq(&received.memory, &self.memory),
            "buffers return to their ring"
        );
        self.provide(received.buffer);
    }
}

/// Bytes received, in a buffer that has to go back ([`super::Ring::give_back`]).
pub struct Received {
    memory: Rc<Pages>,
    offset: usize,
    len: usize,
    buffer: u16,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: offset + len lies within the allocation (checked in `take`).
        let first = unsafe { self.memory.start.as_ptr().add(self.offset) };
        // SAFETY: the memory is initialised, kept alive by `memory`, and nobody writes to it: the
        // buffer left the entry ring with the completion and returns there by value only.
        unsafe { slice::from_raw_parts(first, self.len) }
    }
}
