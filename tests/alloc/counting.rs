//! The system's allocator, counted.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// Counts allocations while it is told to, on the threads it is told of.
pub(crate) struct Counting;

/// Threads whose allocations count.
static THREADS: [AtomicI32; 8] = [const { AtomicI32::new(0) }; 8];

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Begins to count from zero, or stops.
pub(crate) fn set_counting(is_counting: bool) {
    if is_counting {
        COUNT.store(0, Ordering::Relaxed);
        BYTES.store(0, Ordering::Relaxed);
    }
    IS_COUNTING.store(is_counting, Ordering::Relaxed);
}

/// Allocations and reallocations, and their bytes.
pub(crate) fn counted() -> (u64, u64) {
    (COUNT.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed))
}

/// Counts on these threads alone.
///
/// Panics: with more than eight.
pub(crate) fn count_on(threads: &[i32]) {
    assert!(threads.len() <= THREADS.len());
    for (place, thread) in THREADS.iter().zip(threads) {
        place.store(*thread, Ordering::Relaxed);
    }
}

fn is_counted() -> bool {
    if !IS_COUNTING.load(Ordering::Relaxed) {
        return false;
    }
    let own = nix::unistd::gettid().as_raw();
    THREADS
        .iter()
        .any(|thread| thread.load(Ordering::Relaxed) == own)
}

fn count(size: usize) {
    if is_counted() {
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to `System` with the caller's own arguments, so its contract is upheld
// by `System` and by the caller; counting touches atomics alone and neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller of this method promises what `System::alloc` wants of `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller of this method promises what `System::alloc_zeroed` wants.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller got `memory` from this allocator with this layout, so from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller got `memory` from this allocator with this layout, so from `System`,
        // and promises that `size` is a valid new size.
        unsafe { System.realloc(memory, layout, size) }
    }
}
