//! Every bound of the broker, derived in one place from a few inputs.
//!
//! Owns: the fixed bounds (constants), the derived ones ([`Limits`]) and the sum of memory that
//! they allow. No collection below F5 takes its capacity from anywhere else.
//! Invariants:
//! * relations between constants are proved at compile time, beside them;
//! * [`Limits::derive`] answers with limits whose relations hold, or says which input breaks one;
//! * [`Limits::memory_max_bytes`] is the sum of [`Limits::memory_terms`], one term per holder.
//!
//! Refuses to know: configuration files, the machine, and every other module of the broker.

/// Bytes in one KiB.
pub const KIB: u64 = 1024;
/// Bytes in one MiB.
pub const MIB: u64 = 1024 * KIB;

/// Size and position of a block are multiples of this: the largest sector of common devices, and
/// the page size that `O_DIRECT` wants of memory.
pub const BLOCK_ALIGN_BYTES: u64 = 4 * KIB;
/// Largest block: two of these in flight reach a device's bandwidth, larger ones only add latency.
pub const BLOCK_SIZE_MAX_BYTES: u64 = 256 * KIB;
/// Block writes given to the kernel and not yet reaped: what gathers meanwhile is the next block.
/// It is also the window `W` of the recovery table, so it is part of the on-disk contract.
pub const INFLIGHT_BLOCKS_MAX: u32 = 2;
/// Sealed blocks that wait for a place in the window; when all are taken SENDs stop being read.
pub const SEALED_BLOCKS_MAX: u32 = 8;
/// Blocks being filled: records are packed into exactly one at a time.
pub const OPEN_BLOCKS_MAX: u32 = 1;
/// Least memory of a shard for blocks: those on their way to the disk live in it too, and the end
/// of a lap wastes up to one.
pub const BLOCK_CACHE_SIZE_MIN_BYTES: u64 =
    (OPEN_BLOCKS_MAX + SEALED_BLOCKS_MAX + INFLIGHT_BLOCKS_MAX + 1) as u64 * BLOCK_SIZE_MAX_BYTES;
/// Smallest segment: a handful of the largest blocks, so that rotation is tested with small files.
pub const SEGMENT_SIZE_MIN_BYTES: u64 = MIB;
/// Largest segment: zero-filling a longer one takes too long to be prepared ahead.
pub const SEGMENT_SIZE_MAX_BYTES: u64 = 16 * KIB * MIB;
/// Fewest segments prepared ahead of the writer: one is kept for records that free space.
pub const SEGMENTS_READY_MIN: u32 = 2;
/// Most segments prepared ahead of the writer.
pub const SEGMENTS_READY_MAX: u32 = 16;

/// Segments of bytes that nothing needs before messages are written anew to free them. So that
/// there is much to do once it begins: what is written anew bit by bit lies between what comes in,
/// and soon is all that is needed of another segment.
pub const RELOCATION_DEAD_SEGMENTS: u32 = 8;

/// Buffers that the kernel fills from sockets, shared by all connections of one shard.
pub const RECEIVE_BUFFERS_COUNT: u32 = 256;
/// Size of one receive buffer, which is what a connection takes in per turn: of a full one a
/// producer that is ahead loses nothing (measured), and no connection gets far ahead of the others.
pub const RECEIVE_BUFFER_SIZE_BYTES: u64 = 64 * KIB;
/// Submission entries of a shard's ring: what one turn can hand to the kernel in one call.
pub const RING_SUBMISSION_ENTRIES: u32 = 2048;
/// Completion entries of a shard's ring: multishot operations complete many times per submission.
pub const RING_COMPLETION_ENTRIES: u32 = 8192;

/// Bytes waiting to be sent on one connection before deliveries and further reads stop for it.
pub const CONNECTION_OUTPUT_WINDOW_BYTES: u64 = 256 * KIB;
/// Bytes of a frame's command and headers, before any body: refused above it.
pub const FRAME_HEADERS_SIZE_MAX_BYTES: u64 = 64 * KIB;
/// Header lines of one frame: refused above it.
pub const FRAME_HEADERS_COUNT_MAX: u32 = 512;
/// `[[address]]` tables of a configuration: each is looked at when a queue is made.
pub const ADDRESS_TABLES_MAX: u32 = 1024;
/// Bytes of the HTTP request that begins a WebSocket: browsers send their cookies along.
pub const WEBSOCKET_HANDSHAKE_SIZE_MAX_BYTES: u64 = 16 * KIB;
/// Largest payload of a WebSocket frame that is sent: its length takes two bytes at most.
pub const WEBSOCKET_FRAME_SIZE_MAX_BYTES: u64 = 64 * KIB - 1;
/// Bytes of a destination's name: it is stored in records and compared as a whole.
pub const ADDRESS_SIZE_MAX_BYTES: u64 = 1024;
/// Subscriptions of one connection.
pub const CONNECTION_SUBSCRIPTIONS_MAX: u32 = 1024;
/// Destinations that one frame names: each is a message or a consumer of its own.
pub const FRAME_DESTINATIONS_MAX: u32 = 32;
/// Topics without a queue of their own of which a shard remembers what wildcard subscriptions they
/// match: those beyond are looked up again, all of them.
pub const SHARD_TOPICS_REMEMBERED_MAX: u32 = 16 * 1024;
/// Messages that a new subscription gets of those that its topics keep: their names fit a record.
pub const RETROACTIVE_MESSAGES_MAX: u32 = 1024;
/// Times that a shard remembers along its messages, for those who ask for what came at a time.
pub const SHARD_TIME_MARKS_MAX: u32 = 4096;
/// Transactions of one connection that are open at once.
pub const CONNECTION_TRANSACTIONS_MAX: u32 = 64;
/// Transactions of one connection, committed over several shards, of which not all shards have
/// told that this is durable: its next commit waits.
pub const CONNECTION_COMMITS_UNENDED_MAX: u32 = 8;
/// Parcels that wait in a shard's mailbox from each other shard, in each lane; a parcel that finds
/// it full waits with its sender.
pub const MAILBOX_PARCELS_MAX: u32 = 4;
/// Lanes from one shard to another: messages, control commands, replies.
pub const MAILBOX_LANES: u32 = 3;
/// Bytes of a gathering parcel from which on no more commands are added: stop reading.
pub const PARCEL_SIZE_MAX_BYTES: u64 = MIB;
/// Entries of a gathering parcel, likewise.
pub const PARCEL_ENTRIES_MAX: u32 = 8192;
/// Emptied parcels of each kind that are kept, or go home with one parcel.
pub const PARCEL_EMPTIES_MAX: u32 = 2;
/// Bytes of commands that came after a message which waits for memory, per pair of shards: above
/// it the whole lane waits with them.
pub const HELD_SIZE_MAX_BYTES: u64 = 4 * MIB;
/// Bytes of the journal read back at once, for messages that left the block cache.
pub const READ_BACK_CHUNK_SIZE_BYTES: u64 = MIB;
/// Such chunks held in memory, per shard: queues whose messages lie between one another are drained
/// by one read for all as long as their consumers are not further apart.
pub const READ_BACK_CHUNKS_MAX: u32 = 64;
/// Chunks being read at once, per shard: what a disk needs to be busy.
pub const READ_BACK_INFLIGHT_MAX: u32 = 4;
/// Chunks read ahead of whoever reads in order.
pub const READ_AHEAD_CHUNKS: u32 = 2;
/// Readers whose place is known, so that what they come to next is kept, per shard.
pub const READ_BACK_READERS_MAX: u32 = 64;
/// Reads of the journal under way at once while a shard recovers, each of up to
/// 1 MiB: enough that a disk never waits for the processor. They are gone before chunks are read
/// back, which take more.
pub const RECOVERY_READS_MAX: u32 = 8;
const _: () = assert!(RECOVERY_READS_MAX < READ_BACK_CHUNKS_MAX);
/// Files that recovery opens and syncs at once, per shard.
pub const RECOVERY_FILES_MAX: u32 = 32;
/// Shards of one node: ids of shards are stored in one byte less one.
pub const SHARDS_MAX: u32 = 256;
/// Connections of one node: a descriptor each, and the kernel's table is seldom larger.
pub const CONNECTIONS_MAX: u32 = 65_536;
/// Queues of one shard, subscriptions to topics included.
pub const QUEUES_MAX: u32 = 1_000_000;
/// Consumers of one shard.
pub const CONSUMERS_MAX: u32 = 1_000_000;
/// Deliveries of one queue handed out in one batch: bounds a turn.
pub const DISPATCH_MAX: u32 = 256;
/// Matching messages that a queue remembers for consumers with the same filter, or of those
/// without one when messages have groups: enough to fill a batch while some belong to others.
pub const FILTER_MATCHES_MAX: usize = 1024;
/// Messages given back of which a filter remembers one by one that it has to be asked again; of
/// more it is asked about all behind them.
pub const FILTER_AGAIN_MAX: usize = 1024;
/// Groups of one queue that keep their consumer while nothing of them waits or is unsettled: some
/// 200 bytes each. The one that has been so for longest is given out anew.
pub const GROUPS_IDLE_MAX: usize = 16 * 1024;
/// Messages looked at in one search for what some consumer may have: bounds a turn.
pub const SELECTIVE_STEPS_MAX: u32 = 4096;
/// Deliveries of a message that are counted one by one; more count as these. Eleven bits of what a
/// waiting message takes of memory.
pub const ATTEMPTS_COUNTED_MAX: u16 = 2047;
/// Messages that one step of a purge drops: some 0.2 ms of a turn, and records of 8 KiB.
pub const PURGED_AT_ONCE_MAX: u32 = 1024;
/// Questions of the admin side to one shard that are not answered yet.
pub const ADMIN_QUESTIONS_MAX: u32 = 16;
/// Queues in one answer to a listing; the rest is asked for again.
pub const ADMIN_LISTED_MAX: u32 = 256;
/// Bytes of names from which on an answer to a listing takes no more queues.
pub const ADMIN_LISTED_SIZE_MAX_BYTES: u64 = 256 * KIB;
/// Queues of a shard with metrics of their own; the others are summed.
pub const METRICS_QUEUES_MAX: u32 = 256;
/// Damaged places of a shard that are named one by one while their files are needed.
pub const SCRUB_DAMAGES_MAX: u32 = 64;
/// Connections to the admin socket, and as many to the listener for metrics, served at once; more
/// wait to be accepted.
pub const ADMIN_CONNECTIONS_MAX: u32 = 32;
/// Bytes of an admin answer that the command line reads: a listing, each byte of a name escaped.
pub const ADMIN_ANSWER_SIZE_MAX_BYTES: u64 = 16 * MIB;
/// Credit of one subscription, in messages.
pub const PREFETCH_MAX: u32 = 1_000_000;
/// Bytes of a selector's text, given or canonical: generous for lists of IN, and it bounds the
/// time of an evaluation together with the size of a message's headers.
pub const SELECTOR_SIZE_MAX_BYTES: u32 = 8 * KIB as u32;
/// Bytes of the selectors of one connection's subscriptions: as many of usual length as it may have
/// subscriptions.
pub const CONNECTION_SELECTORS_SIZE_MAX_BYTES: u32 = 64 * KIB as u32;
/// Memory of one shard for parsed selectors, equal ones counted once. What a start finds in the
/// journal is never refused.
pub const SELECTORS_MEMORY_MAX_BYTES: u64 = 64 * MIB;
/// Brackets of a selector within each other: parsing and evaluating recurse that deep, some ten
/// calls for each.
pub const SELECTOR_DEPTH_MAX: u32 = 64;
/// Operators and operands of a selector, pieces of LIKE patterns included: each is looked at once
/// in an evaluation, and they are what a selector takes of memory, some 50 bytes each.
pub const SELECTOR_NODES_MAX: u32 = 1024;
/// Nodes that a searched piece with `_` in it counts as: it takes 1 ns for each byte of a text,
/// a plain one a fraction. So a selector takes 4 ms at most for 60 KB of headers.
pub const SELECTOR_MIXED_PIECE_NODES: u32 = 16;
/// Characters between two `%` of a LIKE pattern with `_` among them: one bit each of one word.
pub const SELECTOR_PATTERN_PART_MAX: u32 = 64;
/// Smallest value that `message_size_max` may take.
pub const MESSAGE_SIZE_MAX_FLOOR_BYTES: u64 = KIB;
/// Largest value that `message_size_max` may take: lengths of bodies fit in 31 bits.
pub const MESSAGE_SIZE_MAX_CEILING_BYTES: u64 = 1024 * MIB;

const _: () = assert!(BLOCK_ALIGN_BYTES.is_power_of_two());
const _: () = assert!(BLOCK_SIZE_MAX_BYTES.is_multiple_of(BLOCK_ALIGN_BYTES));
const _: () = assert!(SEGMENT_SIZE_MIN_BYTES.is_multiple_of(BLOCK_ALIGN_BYTES));
// A segment holds at least its own header block and the largest block behind it.
const _: () = assert!(SEGMENT_SIZE_MIN_BYTES >= BLOCK_ALIGN_BYTES + BLOCK_SIZE_MAX_BYTES);
const _: () = assert!(SEGMENT_SIZE_MIN_BYTES < SEGMENT_SIZE_MAX_BYTES);
// With one block in flight the device idles while the next is sealed.
const _: () = assert!(INFLIGHT_BLOCKS_MAX >= 2);
// A freed place in the window must always find a sealed block under load.
const _: () = assert!(SEALED_BLOCKS_MAX >= INFLIGHT_BLOCKS_MAX);
// The kernel names provided buffers by 16 bits and wants a power of two.
const _: () = assert!(RECEIVE_BUFFERS_COUNT.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS_COUNT <= 32_768);
// Every receive buffer can be handed out by a completion while submissions complete as well.
const _: () = assert!(RECEIVE_BUFFERS_COUNT + RING_SUBMISSION_ENTRIES <= RING_COMPLETION_ENTRIES);
const _: () = assert!(RING_SUBMISSION_ENTRIES.is_power_of_two());
const _: () = assert!(RING_COMPLETION_ENTRIES.is_power_of_two());
// The largest headers fit in a block with room for the record's own fields.
const _: () = assert!(FRAME_HEADERS_SIZE_MAX_BYTES * 2 <= BLOCK_SIZE_MAX_BYTES);
const _: () = assert!(ADDRESS_SIZE_MAX_BYTES < FRAME_HEADERS_SIZE_MAX_BYTES);
// A MESSAGE frame's headers fit in an empty output window, or it could never be sent.
const _: () = assert!(FRAME_HEADERS_SIZE_MAX_BYTES * 2 <= CONNECTION_OUTPUT_WINDOW_BYTES);
// A request for a WebSocket that is not all there fits in what is kept of a connection's input.
const _: () = assert!(WEBSOCKET_HANDSHAKE_SIZE_MAX_BYTES <= RECEIVE_BUFFER_SIZE_BYTES);
const _: () = assert!(WEBSOCKET_FRAME_SIZE_MAX_BYTES <= u16::MAX as u64);
const _: () = assert!(SELECTOR_SIZE_MAX_BYTES <= CONNECTION_SELECTORS_SIZE_MAX_BYTES);
// A selector is a header of SUBSCRIBE.
const _: () = assert!((SELECTOR_SIZE_MAX_BYTES as u64) < FRAME_HEADERS_SIZE_MAX_BYTES);
const _: () = assert!(SELECTOR_PATTERN_PART_MAX == u64::BITS);
const _: () = assert!(MESSAGE_SIZE_MAX_FLOOR_BYTES < MESSAGE_SIZE_MAX_CEILING_BYTES);
const _: () = assert!(MESSAGE_SIZE_MAX_CEILING_BYTES < 1 << 31);

/// What the operator chose; everything else follows.
///
/// Units: sizes in bytes. Budgets of memory are per shard: more shards, more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Shards of the node, 1 to [`SHARDS_MAX`].
    pub shards: u32,
    /// Size of one segment file.
    pub segment_size_bytes: u64,
    /// Segments of each shard kept zero-filled ahead of its writer.
    pub segments_ready: u32,
    /// Largest body of one message.
    pub message_size_max_bytes: u64,
    /// Connections of the node.
    pub connections_max: u32,
    /// Written blocks that each shard keeps in memory so that deliveries need not read the disk.
    pub block_cache_size_bytes: u64,
    /// Bodies, per shard, of messages that are not durable and therefore live in memory only.
    pub volatile_size_max_bytes: u64,
}

/// Why a set of inputs has no limits: always the operator's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitsError {
    /// An input lies outside its own range (both ends inclusive).
    OutOfRange {
        /// Name of the field of [`Inputs`].
        input: &'static str,
        /// The value given.
        found: u64,
        /// Least value allowed.
        least: u64,
        /// Greatest value allowed.
        most: u64,
    },
    /// An input is not a multiple of what the format needs.
    NotMultiple {
        /// Name of the field of [`Inputs`].
        input: &'static str,
        /// The value given.
        found: u64,
        /// What it must be a multiple of.
        of: u64,
    },
    /// A budget is too small for the one thing it must be able to hold.
    TooSmallFor {
        /// Name of the budget in [`Inputs`].
        input: &'static str,
        /// The value given.
        found: u64,
        /// Least value that works with the other inputs.
        least: u64,
        /// What must fit.
        holds: &'static str,
    },
}

/// The bounds of one shard (a field that speaks of the node says so).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The inputs these limits come from.
    pub inputs: Inputs,
    /// Connections that one shard accepts: its share, rounded up. The kernel spreads connections
    /// by a hash, so one shard may be full a little before the node is.
    pub connections_max: u32,
    /// Largest body of one message in bytes.
    pub message_size_max_bytes: u64,
    /// Blocks that exist at once: open, sealed, in flight and cached.
    pub blocks_max: u32,
    /// Of these, blocks kept after their write to serve deliveries.
    pub blocks_cached_max: u32,
    /// Bytes of bodies of messages that are not durable. One whose body does not fit in a receive
    /// buffer reserves all of it before more is taken (`content-length`, or the most it may be when
    /// the frame does not say), so two half-received bodies never wait for each other; without a
    /// reservation its socket is not read. Durable ones go to the journal piece by piece.
    pub volatile_size_max_bytes: u64,
    /// Size of one segment file in bytes.
    pub segment_size_bytes: u64,
    /// Segments kept ready ahead of the writer.
    pub segments_ready: u32,
}

/// One holder of memory and the most it can hold, over the whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTerm {
    /// Who holds it.
    pub holder: &'static str,
    /// The most it can hold, in bytes.
    pub bytes: u64,
}

impl Limits {
    /// Derives every bound.
    ///
    /// Errors: [`LimitsError`], the first input that breaks its range or a relation.
    pub fn derive(inputs: Inputs) -> Result<Self, LimitsError> {
        inputs.check_ranges()?;
        inputs.check_budgets()?;
        let blocks_cached_max = narrow(inputs.block_cache_size_bytes / BLOCK_SIZE_MAX_BYTES);
        let connections_max = inputs.connections_max.div_ceil(inputs.shards);
        Ok(Self {
            inputs,
            connections_max,
            message_size_max_bytes: inputs.message_size_max_bytes,
            blocks_max: Self::blocks_writing() + blocks_cached_max,
            blocks_cached_max,
            volatile_size_max_bytes: inputs.volatile_size_max_bytes,
            segment_size_bytes: inputs.segment_size_bytes,
            segments_ready: inputs.segments_ready,
        })
    }

    /// Blocks on their way to the disk: the open one, the sealed ones and those in flight.
    pub const fn blocks_writing() -> u32 {
        OPEN_BLOCKS_MAX + SEALED_BLOCKS_MAX + INFLIGHT_BLOCKS_MAX
    }

    /// Lists the bounded memory of the whole node, one term per holder.
    ///
    /// What is not here is proportional to the number of queued messages (their places in the
    /// journal) or fixed and small (code, stacks, rings).
    pub fn memory_terms(&self) -> [MemoryTerm; 10] {
        let shards = u64::from(self.inputs.shards);
        let connections = u64::from(self.connections_max) * shards;
        let term = |holder, bytes| MemoryTerm { holder, bytes };
        [
            term(
                "blocks being written",
                u64::from(Self::blocks_writing()) * BLOCK_SIZE_MAX_BYTES * shards,
            ),
            term(
                "blocks cached for delivery",
                u64::from(self.blocks_cached_max) * BLOCK_SIZE_MAX_BYTES * shards,
            ),
            term(
                "blocks read back for delivery",
                u64::from(READ_BACK_CHUNKS_MAX) * READ_BACK_CHUNK_SIZE_BYTES * shards,
            ),
            term(
                "receive buffers",
                u64::from(RECEIVE_BUFFERS_COUNT) * RECEIVE_BUFFER_SIZE_BYTES * shards,
            ),
            term(
                "output windows of connections",
                connections * CONNECTION_OUTPUT_WINDOW_BYTES,
            ),
            term(
                "input of connections that are not read further",
                connections * RECEIVE_BUFFER_SIZE_BYTES,
            ),
            term(
                "messages, or their first pieces, that wait for memory",
                connections * (FRAME_HEADERS_SIZE_MAX_BYTES + RECEIVE_BUFFER_SIZE_BYTES),
            ),
            term(
                "messages that are not durable",
                self.volatile_size_max_bytes * shards,
            ),
            term(
                "mailboxes between shards",
                shards * (shards - 1) * (mailbox_size() + HELD_SIZE_MAX_BYTES),
            ),
            term(
                "selectors of subscriptions",
                shards * SELECTORS_MEMORY_MAX_BYTES,
            ),
        ]
    }

    /// Sums [`Self::memory_terms`]: the most bounded memory of the node, in bytes.
    pub fn memory_max_bytes(&self) -> u64 {
        self.memory_terms().iter().map(|term| term.bytes).sum()
    }
}

impl Inputs {
    /// Checks each input alone.
    fn check_ranges(&self) -> Result<(), LimitsError> {
        let within = |input, found: u64, least: u64, most: u64| {
            if (least..=most).contains(&found) {
                Ok(())
            } else {
                Err(LimitsError::OutOfRange {
                    input,
                    found,
                    least,
                    most,
                })
            }
        };
        within("shards", self.shards.into(), 1, SHARDS_MAX.into())?;
        within(
            "connections_max",
            self.connections_max.into(),
            1,
            CONNECTIONS_MAX.into(),
        )?;
        within(
            "segments_ready",
            self.segments_ready.into(),
            SEGMENTS_READY_MIN.into(),
            SEGMENTS_READY_MAX.into(),
        )?;
        within(
            "message_size_max",
            self.message_size_max_bytes,
            MESSAGE_SIZE_MAX_FLOOR_BYTES,
            MESSAGE_SIZE_MAX_CEILING_BYTES,
        )?;
        let (least, most) = (SEGMENT_SIZE_MIN_BYTES, SEGMENT_SIZE_MAX_BYTES);
        within("segment_size", self.segment_size_bytes, least, most)?;
        if !self.segment_size_bytes.is_multiple_of(BLOCK_ALIGN_BYTES) {
            return Err(LimitsError::NotMultiple {
                input: "segment_size",
                found: self.segment_size_bytes,
                of: BLOCK_ALIGN_BYTES,
            });
        }
        Ok(())
    }

    /// Checks that each budget can hold the one thing it must.
    fn check_budgets(&self) -> Result<(), LimitsError> {
        let (found, least) = (self.block_cache_size_bytes, BLOCK_CACHE_SIZE_MIN_BYTES);
        if found < least {
            return Err(LimitsError::TooSmallFor {
                input: "block_cache_size",
                found,
                least,
                holds: "the blocks on their way to the disk",
            });
        }
        Ok(())
    }
}

/// What can be under way from one shard to another: in each lane the parcels of the mailbox, one
/// that gathers, one that found it full, one being worked off, and the emptied ones on either side;
/// each with its bytes and as much again for its entries.
const fn mailbox_size() -> u64 {
    (MAILBOX_LANES * (MAILBOX_PARCELS_MAX + 3 + 2 * PARCEL_EMPTIES_MAX)) as u64
        * 2
        * PARCEL_SIZE_MAX_BYTES
}

/// Narrows a count that follows from a budget; more than `u32::MAX` blocks is no budget.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests;
