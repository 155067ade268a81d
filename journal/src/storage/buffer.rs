//! Aligned memory that a disk may read or write while the program goes on. The only `unsafe` of
//! this crate.
//!
//! [`Arena`] is a ring of memory in which blocks are built, sealed, written and kept for reading:
//! the newest part of the journal, in order, each block once. [`OpenBlock`] is the one block that
//! may be changed; [`SealedBlock`] is a counted, read-only handle, and space is handed out again
//! only when no handle is left. [`ReadBuffer`] is a block read back.
//!
//! Invariants: an open block's space overlaps no sealed block's; at most one block is open.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;

use crate::format::{BLOCK_SIZE_MAX, SECTOR_SIZE};

/// Bytes that the processor fetches at once.
const CACHE_LINE_SIZE: usize = 64;

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn prefetch_for_write(line: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    // SAFETY: a hint reads and writes nothing that the program can see, whatever the address is;
    // this one lies in a slice.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch_for_write(_line: &[u8]) {}

/// Memory aligned to a sector, zeroed when made.
struct Aligned {
    start: NonNull<u8>,
    size: usize,
}

impl Aligned {
    fn new(size: usize) -> Self {
        let layout = Self::layout(size);
        // SAFETY: the layout's size is not zero (asserted in `layout`).
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        Self { start, size }
    }

    fn layout(size: usize) -> Layout {
        assert!(
            size > 0 && size.is_multiple_of(SECTOR_SIZE),
            "{size} is not whole sectors"
        );
        Layout::from_size_align(size, SECTOR_SIZE).expect("a sector is a power of two")
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.size)) };
    }
}

/// The memory behind an arena; lives as long as any handle to it.
///
/// A ring that registers it keeps a clone, so that the kernel never sees freed memory.
#[derive(Clone)]
pub struct ArenaMemory(Rc<Shared>);

struct Shared {
    aligned: Aligned,
    /// Handles per slot; a slot names a sealed region.
    pins: Box<[Cell<u32>]>,
}

impl ArenaMemory {
    /// Address of the first byte: for registration with the kernel only.
    pub fn address(&self) -> *const u8 {
        self.0.aligned.start.as_ptr()
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.0.aligned.size
    }
}

/// Space taken by a sealed block, or left over at the end of a lap.
struct Region {
    /// Position on an endless line; the place in memory is the remainder by the arena's size.
    position: u64,
    slot: u32,
}

/// Sectors of an arena apart from its blocks; one is on its way, one is being let go.
const SECTORS: usize = 2;

/// Ring of memory for blocks.
pub struct Arena {
    memory: ArenaMemory,
    /// Bytes for blocks; behind them lie the sectors.
    size: usize,
    /// Position behind the newest sealed block.
    head: u64,
    regions: VecDeque<Region>,
    free_slots: Vec<u32>,
    is_open: bool,
}

impl Arena {
    /// Makes an arena of `size` bytes, a multiple of 4 KiB and at least four times the largest
    /// block.
    ///
    /// Panics: on any other size (the limits are derived in one place and checked there).
    pub fn new(size: usize) -> Self {
        assert!(
            size >= 4 * BLOCK_SIZE_MAX,
            "an arena of {size} bytes cannot hold a window"
        );
        let slots = size / SECTOR_SIZE;
        Self {
            memory: ArenaMemory(Rc::new(Shared {
                aligned: Aligned::new(size + SECTORS * SECTOR_SIZE),
                pins: (0..slots + SECTORS).map(|_| Cell::new(0)).collect(),
            })),
            size,
            head: 0,
            regions: VecDeque::with_capacity(slots),
            free_slots: (0..slots as u32).rev().collect(),
            is_open: false,
        }
    }

    /// The memory, for registration with a ring.
    pub fn memory(&self) -> ArenaMemory {
        self.memory.clone()
    }

    /// Opens space for one block of up to [`BLOCK_SIZE_MAX`] bytes.
    ///
    /// Returns `None` when the oldest blocks still have handles and no space is left: let go of
    /// some and try again.
    /// Panics: if a block is open already.
    pub fn open(&mut self) -> Option<OpenBlock> {
        assert!(!self.is_open, "one block is open at a time");
        let size = self.size as u64;
        let start = self.head % size;
        let at = if start + BLOCK_SIZE_MAX as u64 > size {
            self.head + (size - start)
        } else {
            self.head
        };
        self.reclaim();
        let oldest = self.regions.front().map_or(at, |region| region.position);
        if at + BLOCK_SIZE_MAX as u64 - oldest > size || self.free_slots.is_empty() {
            return None;
        }
        self.head = at;
        self.is_open = true;
        Some(OpenBlock {
            memory: self.memory.clone(),
            start: (at % size) as usize,
        })
    }

    fn reclaim(&mut self) {
        let pins = &self.memory.0.pins;
        while let Some(region) = self.regions.front()
            && pins[region.slot as usize].get() == 0
        {
            self.free_slots.push(region.slot);
            self.regions.pop_front();
        }
    }

    /// Closes `open` as an unchangeable block of its first `size` bytes.
    ///
    /// Panics: unless `size` is a multiple of 4 KiB within the block.
    pub fn seal(&mut self, open: OpenBlock, size: usize) -> SealedBlock {
        assert!(size <= BLOCK_SIZE_MAX && size.is_multiple_of(SECTOR_SIZE) && size > 0);
        assert!(
            self.is_open && Rc::ptr_eq(&open.memory.0, &self.memory.0),
            "not this arena's"
        );
        let slot = self.free_slots.pop().expect("open() left a slot free");
        self.regions.push_back(Region {
            position: self.head,
            slot,
        });
        self.head += size as u64;
        self.is_open = false;
        self.memory.0.pins[slot as usize].set(1);
        SealedBlock {
            memory: open.memory,
            start: open.start,
            size: size as u32,
            slot,
        }
    }

    /// A copy of one sector, beside the blocks.
    ///
    /// Panics: if earlier ones are all still held.
    pub fn sector(&mut self, bytes: &[u8; SECTOR_SIZE]) -> SealedBlock {
        let first_slot = self.size / SECTOR_SIZE;
        let pins = &self.memory.0.pins[first_slot..];
        let free = pins.iter().position(|pin| pin.get() == 0);
        let index = free.expect("one sector is on its way at a time");
        let start = self.size + index * SECTOR_SIZE;
        // SAFETY: the allocation has SECTORS sectors behind `size`, and `index` is below that.
        let first = unsafe { self.memory.0.aligned.start.add(start) };
        // SAFETY: the range is initialised (zeroed at allocation). No other reference to it exists:
        // blocks lie below `size`, a sector without handles is read by nobody, and `&mut self`
        // makes this borrow unique.
        let sector = unsafe { slice::from_raw_parts_mut(first.as_ptr(), SECTOR_SIZE) };
        sector.copy_from_slice(bytes);
        pins[index].set(1);
        SealedBlock {
            memory: self.memory.clone(),
            start,
            size: SECTOR_SIZE as u32,
            slot: (first_slot + index) as u32,
        }
    }

    /// Gives the space of a block that was opened and not used back.
    pub fn close(&mut self, open: OpenBlock) {
        assert!(
            self.is_open && Rc::ptr_eq(&open.memory.0, &self.memory.0),
            "not this arena's"
        );
        self.is_open = false;
    }
}

/// The block being filled: exclusive access to [`BLOCK_SIZE_MAX`] bytes.
pub struct OpenBlock {
    memory: ArenaMemory,
    start: usize,
}

impl OpenBlock {
    /// Asks the processor for these bytes, which are written next: the arena is larger than its
    /// caches, and a body copied into lines that are on their way holds up what comes behind it.
    ///
    /// Panics: if the range does not lie in the block.
    pub fn fetch(&self, range: Range<usize>) {
        let bytes = &self.peek()[range];
        for line in bytes.chunks(CACHE_LINE_SIZE) {
            prefetch_for_write(line);
        }
    }

    /// The bytes, to read.
    pub fn peek(&self) -> &[u8] {
        // SAFETY: as in `bytes`: start + BLOCK_SIZE_MAX lies within the allocation.
        let first = unsafe { self.memory.0.aligned.start.add(self.start) };
        // SAFETY: the range is initialised. Nobody writes to it meanwhile: that takes `bytes`,
        // whose `&mut self` excludes this borrow, and no other block reaches into it.
        unsafe { slice::from_raw_parts(first.as_ptr(), BLOCK_SIZE_MAX) }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `Arena::open` chose `start` so that start + BLOCK_SIZE_MAX lies within the
        // allocation, which `memory` keeps alive.
        let first = unsafe { self.memory.0.aligned.start.add(self.start) };
        // SAFETY: the range is initialised (zeroed at allocation). No other reference to it
        // exists: `Arena::open` hands out only space behind which no sealed region has a handle,
        // one open block exists at a time, and `&mut self` makes this borrow unique.
        unsafe { slice::from_raw_parts_mut(first.as_ptr(), BLOCK_SIZE_MAX) }
    }
}

/// A block that never changes again. Clones are handles to the same bytes.
pub struct SealedBlock {
    memory: ArenaMemory,
    start: usize,
    size: u32,
    slot: u32,
}

impl SealedBlock {
    /// Whether this is the only handle left.
    pub fn is_unique(&self) -> bool {
        self.pin().get() == 1
    }

    fn pin(&self) -> &Cell<u32> {
        &self.memory.0.pins[self.slot as usize]
    }
}

impl Clone for SealedBlock {
    fn clone(&self) -> Self {
        self.pin().set(self.pin().get() + 1);
        Self {
            memory: self.memory.clone(),
            start: self.start,
            size: self.size,
            slot: self.slot,
        }
    }
}

impl Drop for SealedBlock {
    fn drop(&mut self) {
        self.pin().set(self.pin().get() - 1);
    }
}

impl Deref for SealedBlock {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the region lies within the allocation (it is a prefix of an open block's).
        let first = unsafe { self.memory.0.aligned.start.add(self.start) };
        // SAFETY: initialised memory, and nobody writes to it while this handle is counted:
        // `Arena::open` reclaims a region only at zero handles.
        unsafe { slice::from_raw_parts(first.as_ptr(), self.size as usize) }
    }
}

impl fmt::Debug for SealedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBlock({} bytes)", self.size)
    }
}

/// Aligned memory of its own, for reading blocks back.
pub struct ReadBuffer {
    aligned: Aligned,
}

// SAFETY: the memory is owned by the value alone; there is no shared state.
unsafe impl Send for ReadBuffer {}

impl ReadBuffer {
    /// Makes a zeroed buffer of `size` bytes, a positive multiple of 4 KiB.
    ///
    /// Panics: on any other size.
    pub fn new(size: usize) -> Self {
        Self {
            aligned: Aligned::new(size),
        }
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: initialised memory of exactly this size, alive as long as `self`.
        unsafe { slice::from_raw_parts(self.aligned.start.as_ptr(), self.aligned.size) }
    }
}

impl std::ops::DerefMut for ReadBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` makes the borrow unique.
        unsafe { slice::from_raw_parts_mut(self.aligned.start.as_ptr(), self.aligned.size) }
    }
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadBuffer({} bytes)", self.aligned.size)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, BLOCK_SIZE_MAX, SealedBlock};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// Small enough for Miri (`just miri few_handles`), which the property below is not.
    #[test]
    fn few_handles_at_once() {
        let mut arena = Arena::new(4 * BLOCK_SIZE_MAX);
        let mut open = arena.open().expect("it is empty");
        let first = arena.sector(&[1; 4096]);
        open.bytes()[..4096].fill(3);
        let second = arena.sector(&[2; 4096]);
        let sealed = arena.seal(open, 4096);
        let copy = sealed.clone();
        assert_eq!((first[0], second[4095], sealed[9]), (1, 2, 3));
        drop(first);
        let third = arena.sector(&[4; 4096]);
        let mut open = arena.open().expect("room");
        open.bytes()[..9].fill(5);
        drop(sealed);
        assert_eq!((second[0], third[7], copy[4095]), (2, 4, 3));
        arena.close(open);
        drop(arena);
        assert_eq!((third[4095], copy[0]), (4, 3));
        let mut read = super::ReadBuffer::new(4096);
        read[4095] = 6;
        assert_eq!((read[0], read[4095]), (0, 6));
    }

    proptest! {
        /// A sealed block keeps its bytes as long as it has a handle, whatever is opened
        /// meanwhile; and with no handles left space never runs out.
        #[test]
        fn sealed_bytes_never_change(
            steps in proptest::collection::vec((1..=64_usize, 0..3_u8, any::<u8>()), 1..200),
        ) {
            let mut arena = Arena::new(4 * BLOCK_SIZE_MAX + 4096);
            let mut kept: VecDeque<(SealedBlock, u8)> = VecDeque::new();
            for (sectors, keep, fill) in steps {
                let Some(mut open) = arena.open() else {
                    prop_assert!(!kept.is_empty(), "no room though nothing is held");
                    kept.pop_front();
                    continue;
                };
                if keep == 2 {
                    arena.close(open);
                    continue;
                }
                open.bytes()[..sectors * 4096].fill(fill);
                let sealed = arena.seal(open, sectors * 4096);
                if keep == 1 {
                    kept.push_back((sealed.clone(), fill));
                    prop_assert!(!sealed.is_unique());
                }
                for (block, fill) in &kept {
                    prop_assert!(block.iter().all(|byte| byte == fill));
                }
            }
        }
    }
}
