//! Bodies of messages that are not durable: in memory, counted, within a budget.

use crate::frontend::Header;

/// A message that is not in the journal.
#[derive(Debug, Default)]
pub(super) struct VolatileBody {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// The address it was sent to, where its queues may not say it; else empty.
    pub(super) address: Vec<u8>,
    pub(super) has_content_length: bool,
    /// Whether its expiry is another one than its head says.
    pub(super) has_own_expiry: bool,
    pub(super) encoding: u8,
    /// What a selector may ask for.
    pub(super) header: Header,
    references: u32,
}

/// Slots with bodies; buffers of freed slots are used again.
#[derive(Debug)]
pub(super) struct VolatileBodies {
    slots: Vec<VolatileBody>,
    free: Vec<u32>,
    used_bytes: u64,
    /// Promised to messages that are still arriving.
    reserved_bytes: u64,
    max_bytes: u64,
    /// Times that bytes were let go of.
    freed_count: u64,
}

/// Buffers above this are given back to the allocator when their message goes.
const KEPT_CAPACITY_MAX: usize = 64 * 1024;
/// What a message costs besides its bytes.
const SLOT_OVERHEAD_BYTES: u64 = 128;

impl VolatileBodies {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            used_bytes: 0,
            reserved_bytes: 0,
            max_bytes,
            freed_count: 0,
        }
    }

    /// Whether a message of so many bytes has room. One that is larger than the budget has it when
    /// nothing else is held: it would wait for ever.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let held_bytes = self.used_bytes + self.reserved_bytes;
        held_bytes == 0 || held_bytes + bytes <= self.max_bytes
    }

    /// Promises room for a message that waits or arrives in parts, whole or not at all: of two
    /// that are half here none would ever end.
    /// `is_forced`: it has its room elsewhere in the node until it has it here.
    pub(super) fn reserve(&mut self, bytes: u64, is_forced: bool) -> bool {
        let is_fitting = is_forced || self.has_room(bytes);
        if is_fitting {
            self.reserved_bytes += bytes;
        }
        is_fitting
    }

    /// Takes a promise back: the body is whole (and charged), or will never be.
    pub(super) fn release(&mut self, bytes: u64) {
        assert!(
            bytes <= self.reserved_bytes,
            "{bytes} bytes were not reserved"
        );
        self.reserved_bytes -= bytes;
        self.freed_count += 1;
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Rises whenever there is more room than before.
    pub(super) fn freed_count(&self) -> u64 {
        self.freed_count
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Opens a slot for a message; write to it by [`Self::get_mut`], then [`Self::charge`].
    pub(super) fn open(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(VolatileBody::default());
            u32::try_from(self.slots.len() - 1).expect("the budget ends before 2^32 slots")
        })
    }

    /// Counts what was written to the slot, held by `references` queues.
    pub(super) fn charge(&mut self, slot: u32, references: u32) {
        let body = &mut self.slots[slot as usize];
        body.references = references;
        self.used_bytes += cost(body);
    }

    pub(super) fn get(&self, slot: u32) -> Option<&VolatileBody> {
        self.slots
            .get(slot as usize)
            .filter(|body| body.references > 0)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut VolatileBody {
        &mut self.slots[slot as usize]
    }

    /// Keeps the body while it is passed on in pieces, whatever its queues do; let go of it by
    /// [`Self::forget`].
    pub(super) fn hold(&mut self, slot: u32) {
        let body = &mut self.slots[slot as usize];
        assert!(body.references > 0, "slot {slot} is free");
        body.references += 1;
    }

    /// One queue lets go, or one who held it.
    ///
    /// Panics: if nobody holds the slot (the queue machine counts its references).
    pub(super) fn forget(&mut self, slot: u32) {
        let body = &mut self.slots[slot as usize];
        assert!(body.references > 0, "slot {slot} is free");
        body.references -= 1;
        if body.references == 0 {
            self.used_bytes -= cost(body);
            self.freed_count += 1;
            for buffer in [&mut body.head, &mut body.body, &mut body.address] {
                buffer.clear();
                if buffer.capacity() > KEPT_CAPACITY_MAX {
                    *buffer = Vec::new();
                }
            }
            self.free.push(slot);
        }
    }
}

fn cost(body: &VolatileBody) -> u64 {
    let head_size = body.head.len() + body.address.len();
    message_cost(head_size as u64, body.body.len() as u64)
}

/// Bytes that a message with such a head and body is counted with.
pub(super) fn message_cost(head_size: u64, body_size: u64) -> u64 {
    head_size + body_size + SLOT_OVERHEAD_BYTES
}
