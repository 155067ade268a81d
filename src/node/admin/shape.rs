//! What goes over the admin socket, as JSON. The names are part of the interface.

use forebay_journal::Lsn;
use serde::{Deserialize, Serialize};

use crate::housekeeping::Damage;
use crate::shard::{QueueSeen, Routing, SpaceStats};

/// Why a request has no answer.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct ErrorReport {
    pub(in crate::node) error: String,
}

/// One queue, as it was when it was asked for.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct QueueReport {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub(in crate::node) name: String,
    /// The address that it takes messages of.
    pub(in crate::node) address: String,
    /// `anycast` (a queue) or `multicast` (a subscription to a topic).
    pub(in crate::node) routing: String,
    /// Whether it is a subscription that is found by its name: a durable one, or a shared one.
    pub(in crate::node) subscription: bool,
    /// Whether it only sends on what comes to its address; nobody consumes from it.
    pub(in crate::node) divert: bool,
    /// Whether it keeps the last messages of its topic for subscriptions to come.
    pub(in crate::node) retroactive: bool,
    /// Whether it survives the process.
    pub(in crate::node) durable: bool,
    /// Whether it hands out nothing for now.
    pub(in crate::node) paused: bool,
    /// Messages that wait for a consumer.
    pub(in crate::node) ready: u64,
    /// Messages that consumers hold.
    pub(in crate::node) unsettled: u64,
    /// Messages that wait for their time, or are on their way to another address.
    pub(in crate::node) aside: u64,
    /// Bytes of all of them, heads and bodies.
    pub(in crate::node) bytes: u64,
    /// Consumers attached.
    pub(in crate::node) consumers: u64,
    /// The shard that has it.
    pub(in crate::node) shard: u16,
}

/// Queues, and what to ask for as `from` to get more of them.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct ListReport {
    pub(in crate::node) queues: Vec<QueueReport>,
    pub(in crate::node) next: Option<String>,
    /// Shards that do not serve: what they have is not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::node) damaged_shards: Vec<u16>,
}

/// What was done to a queue.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(in crate::node) struct DoneReport {
    /// Its name.
    pub(in crate::node) queue: String,
    /// Paused or not, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::node) paused: Option<bool>,
    /// Messages dropped, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::node) purged: Option<u64>,
    /// Whether it is gone, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::node) deleted: Option<bool>,
}

/// How the node does.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct HealthReport {
    /// Whether clients are served: every shard answers and none stops.
    pub(in crate::node) serving: bool,
    pub(in crate::node) node: String,
    pub(in crate::node) version: String,
    /// The number of this run.
    pub(in crate::node) epoch: u64,
    /// Files with bytes that this start or one before cut.
    pub(in crate::node) quarantined_files: u64,
    /// Bytes in them.
    pub(in crate::node) quarantined_bytes: u64,
    /// Bytes of the data folder's file system, and those that the broker may still take.
    pub(in crate::node) disk_size_bytes: Option<u64>,
    pub(in crate::node) disk_free_bytes: Option<u64>,
    pub(in crate::node) shards: Vec<ShardReport>,
}

/// How a shard does.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct ShardReport {
    pub(in crate::node) shard: u16,
    /// Whether it answered in time; if not, the rest says nothing.
    pub(in crate::node) answers: bool,
    pub(in crate::node) stopping: bool,
    pub(in crate::node) connections: u64,
    pub(in crate::node) queues: u64,
    /// Whether the disk had no space for the next segment.
    pub(in crate::node) disk_full: bool,
    /// Whether messages wait for a segment.
    pub(in crate::node) waiting_for_segment: bool,
    /// Whether they are refused instead, as `limits.disk_full_policy` says.
    pub(in crate::node) refusing_messages: bool,
    /// What its journal takes on the disk, if it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::node) space: Option<SpaceReport>,
    /// Damaged places in files that are still needed.
    pub(in crate::node) damages: Vec<DamageReport>,
    /// Why it does not serve, if its journal is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::node) damage: Option<ShardDamageReport>,
}

/// What a shard's journal takes on the disk. What counts up counts from the start.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct SpaceReport {
    /// Segments that are needed or prepared, and their bytes.
    pub(in crate::node) segments: u64,
    pub(in crate::node) disk_bytes: u64,
    /// Bytes of messages' records that something still needs, roughly.
    pub(in crate::node) live_bytes: u64,
    /// Bytes that were written and that nothing needs.
    pub(in crate::node) dead_bytes: u64,
    /// Bytes of messages' records that came in.
    pub(in crate::node) ingested_bytes: u64,
    /// Bytes of such records written anew, so that segments can be freed.
    pub(in crate::node) rewritten_bytes: u64,
    /// Bytes of blocks, padding included.
    pub(in crate::node) written_bytes: u64,
    /// The last by what came in; none before anything did.
    pub(in crate::node) write_amplification: Option<f64>,
}

impl From<SpaceStats> for SpaceReport {
    fn from(space: SpaceStats) -> Self {
        Self {
            segments: space.segments,
            disk_bytes: space.disk_bytes,
            live_bytes: space.live_bytes,
            dead_bytes: space.dead_bytes,
            ingested_bytes: space.ingested_bytes,
            rewritten_bytes: space.rewritten_bytes,
            written_bytes: space.written_bytes,
            write_amplification: space.write_amplification(),
        }
    }
}

/// A damaged place of the journal.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct DamageReport {
    /// The file; bytes that are not UTF-8 are replaced.
    pub(in crate::node) file: String,
    /// Byte offset in it.
    pub(in crate::node) offset: u64,
    /// Bytes, as far as known.
    pub(in crate::node) bytes: u64,
    /// First record that is lost with it, if that can be said.
    pub(in crate::node) lsn_from: Option<u64>,
    /// Last one, if that can be said; below the first if what is lost holds none.
    pub(in crate::node) lsn_upto: Option<u64>,
    /// Records in the whole file that are still needed, if the shard answers: zero means that
    /// nothing is lost.
    pub(in crate::node) needed_records: Option<u64>,
    /// What is wrong.
    pub(in crate::node) what: String,
}

impl From<(Damage, Option<u64>)> for DamageReport {
    fn from((damage, needed_records): (Damage, Option<u64>)) -> Self {
        Self {
            file: damage.path.display().to_string(),
            offset: damage.offset,
            bytes: damage.size,
            lsn_from: damage.lsn_from.map(Lsn::get),
            lsn_upto: damage.lsn_upto.map(Lsn::get),
            needed_records,
            what: damage.what,
        }
    }
}

/// What keeps a shard from serving.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::node) struct ShardDamageReport {
    /// In words.
    pub(in crate::node) reason: String,
    /// The file, if it is there and known.
    pub(in crate::node) file: Option<String>,
    pub(in crate::node) segment: Option<u64>,
    /// Byte offset in the file.
    pub(in crate::node) offset: Option<u64>,
    /// The first record that is or may be lost, and the last one, as far as known.
    pub(in crate::node) lsn_from: Option<u64>,
    pub(in crate::node) lsn_upto: Option<u64>,
}

impl From<QueueSeen> for QueueReport {
    fn from(seen: QueueSeen) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            name: text(&seen.name),
            address: text(&seen.address),
            routing: routing_name(seen.routing).to_owned(),
            subscription: seen.flags.is_subscription,
            divert: seen.flags.is_divert,
            retroactive: seen.flags.is_retroactive,
            durable: seen.is_durable,
            paused: seen.flags.is_paused,
            ready: seen.counts.ready,
            unsettled: seen.counts.unsettled,
            aside: seen.counts.aside,
            bytes: seen.counts.bytes,
            consumers: seen.counts.consumers,
            shard: seen.shard.0,
        }
    }
}

/// The word for a kind of address.
pub(in crate::node) const fn routing_name(routing: Routing) -> &'static str {
    match routing {
        Routing::Anycast => "anycast",
        Routing::Multicast => "multicast",
    }
}
