//! The one table of metrics: name, type, meaning and where the number comes from.
//!
//! Names end in their unit; counters get `_total` behind it when they are written.

use std::fmt::Error;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Scrape, ShardScrape};
use crate::housekeeping::BoardSeen;
use crate::node::admin::shape::routing_name;
use crate::shard::{BOUNDS_US, LatencySeen, QueueSeen, REFUSAL_REASONS, ShardMetrics};

/// Microseconds in a second.
const SECOND_US: f64 = 1e6;

/// Labels of a sample, in order.
type Labels = Vec<(&'static str, String)>;

/// Where the samples of a family come from.
#[derive(Clone, Copy)]
enum Source {
    /// One of the node.
    Node(fn(&Scrape) -> Option<f64>),
    /// One of each shard.
    Shard(fn(&ShardScrape) -> Option<f64>),
    /// One of each shard that answers, counted up.
    Count(fn(&ShardMetrics) -> u64),
    /// One of each shard that answers, as it is now.
    Now(fn(&ShardMetrics) -> u64),
    /// One of each shard, counted up by housekeeping.
    FileCount(fn(&BoardSeen) -> u64),
    /// One of each shard, as housekeeping sees it now.
    Files(fn(&BoardSeen) -> u64),
    /// One of each shard that answers, as it is now: a ratio, if there is one.
    Share(fn(&ShardMetrics) -> Option<f64>),
    /// Seconds counted up, of microseconds.
    Seconds(fn(&ShardMetrics) -> u64),
    /// Times.
    Times(fn(&ShardMetrics) -> &LatencySeen),
    /// By reason.
    Refusals,
    /// One of each queue that is listed.
    Queue(fn(&QueueSeen) -> u64),
    /// By state, of each queue that is listed.
    QueueMessages,
    /// A constant 1 with labels that say what the node is.
    Build,
}

/// Samples of one name.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    source: Source,
}

const fn family(name: &'static str, source: Source, help: &'static str) -> Family {
    Family { name, help, source }
}

use Source::{Count, FileCount, Files, Node, Now, Queue, Seconds, Shard, Share, Times};

/// All of them, in the order of the document.
pub(super) const FAMILIES: &[Family] = &[
    family(
        "forebay_build_info",
        Source::Build,
        "The node and its version.",
    ),
    family(
        "forebay_start_time_seconds",
        Node(|all| Some(all.identity.started_unix_ms as f64 / 1e3)),
        "When the process started, in seconds since 1970.",
    ),
    family(
        "forebay_epoch",
        Node(|all| Some(all.identity.epoch as f64)),
        "Number of this run on the data folder.",
    ),
    family(
        "forebay_strict_mode",
        Node(|all| Some(f64::from(u8::from(all.identity.is_strict)))),
        "1 with journal.strict.",
    ),
    family(
        "forebay_disk_size_bytes",
        Node(|all| all.disk.map(|(size, _)| size as f64)),
        "Size of the file system of the data folder.",
    ),
    family(
        "forebay_disk_free_bytes",
        Node(|all| all.disk.map(|(_, free)| free as f64)),
        "What of it the broker may still take.",
    ),
    family(
        "forebay_quarantine_files",
        Node(|all| Some(all.identity.quarantine.files as f64)),
        "Files in the quarantine, as of the start.",
    ),
    family(
        "forebay_quarantine_bytes",
        Node(|all| Some(all.identity.quarantine.bytes as f64)),
        "Bytes in them.",
    ),
    family(
        "forebay_log_cut_bytes",
        Shard(|one| Some(one.cut_bytes as f64)),
        "Bytes that this start cut from the end of the journal.",
    ),
    family(
        "forebay_shard_answers",
        Shard(|one| Some(f64::from(u8::from(one.told.is_some())))),
        "1 if the shard answered this scrape; if not, what only it knows is missing.",
    ),
    family(
        "forebay_connections",
        Now(|one| one.connections),
        "Connections.",
    ),
    family(
        "forebay_connections_accepted",
        Count(|one| one.accepted),
        "Connections that were accepted; those beyond limits.connections_max are not.",
    ),
    family(
        "forebay_protocol_errors",
        Count(|one| one.broken),
        "Connections ended because their client broke the protocol or was not let in.",
    ),
    family("forebay_queues", Now(|one| one.queues), "Queues."),
    family(
        "forebay_messages",
        Now(|one| one.measures.messages),
        "Messages in all queues; one in two queues counts twice.",
    ),
    family(
        "forebay_message_bytes",
        Now(|one| one.measures.message_bytes),
        "Bytes of their heads and bodies.",
    ),
    family(
        "forebay_volatile_bytes",
        Now(|one| one.measures.volatile_bytes),
        "Memory taken by messages that are not persistent.",
    ),
    family(
        "forebay_messages_received",
        Count(|one| one.host.received),
        "Messages taken in, those included that the broker sends on itself.",
    ),
    family(
        "forebay_messages_delivered",
        Count(|one| one.host.delivered),
        "Messages handed out: to consumers, browsers and other addresses, again included.",
    ),
    family(
        "forebay_messages_redelivered",
        Count(|one| one.host.redelivered),
        "Of these, messages that were handed out before.",
    ),
    family(
        "forebay_messages_settled",
        Count(|one| one.host.settled),
        "Messages that consumers acknowledged, in transactions that end otherwise included.",
    ),
    family(
        "forebay_messages_expired",
        Count(|one| one.host.expired),
        "Messages whose time was over.",
    ),
    family(
        "forebay_messages_dropped",
        Count(|one| one.host.dropped),
        "Messages that a full address dropped on arrival.",
    ),
    family(
        "forebay_messages_dead_lettered",
        Count(|one| one.host.dead_lettered),
        "Messages moved to a dead-letter address.",
    ),
    family(
        "forebay_slow_consumers",
        Count(|one| one.host.slow_consumers),
        "Consumers found slow, each once in a period.",
    ),
    family(
        "forebay_refusals",
        Source::Refusals,
        "Commands refused: address_full, limit (names, queues, consumers, selectors, memory), \
         in_use, unknown (no such queue, subscription, delivery), subscription (of another kind), \
         transaction, damaged (a shard that does not serve), disk_full.",
    ),
    family(
        "forebay_send_to_receipt_seconds",
        Times(|one| &one.measures.send),
        "From a persistent message whole in its queue's shard to its receipt on the way out: the \
         wait for a block, its write and the order of receipts.",
    ),
    family(
        "forebay_block_write_seconds",
        Times(|one| &one.measures.write),
        "From a block handed to the disk to its completion.",
    ),
    family(
        "forebay_journal_blocks",
        Count(|one| one.writer.blocks),
        "Blocks sealed, idle seals included.",
    ),
    family(
        "forebay_journal_idle_seals",
        Count(|one| one.writer.idle_seals),
        "Of these, blocks without records.",
    ),
    family(
        "forebay_journal_records",
        Count(|one| one.writer.records),
        "Records appended.",
    ),
    family(
        "forebay_journal_written_bytes",
        Count(|one| one.writer.bytes),
        "Bytes of blocks, padding included.",
    ),
    family(
        "forebay_journal_live_bytes",
        Now(|one| one.space.live_bytes),
        "Bytes of messages' records in the journal, parts of messages included, that are still needed.",
    ),
    family(
        "forebay_journal_dead_bytes",
        Now(|one| one.space.dead_bytes),
        "Bytes that were written to its segments and that nothing needs: what was settled, records of \
         what happened, padding.",
    ),
    family(
        "forebay_journal_pinned_bytes",
        Now(|one| one.space.pinned_bytes.iter().sum()),
        "Of these, bytes in segments that cannot be freed, because something else in them is needed.",
    ),
    family(
        "forebay_journal_ingested_bytes",
        Count(|one| one.space.ingested_bytes),
        "Bytes of messages' records that came in.",
    ),
    family(
        "forebay_journal_rewritten_bytes",
        Count(|one| one.space.rewritten_bytes),
        "Bytes of such records written anew, so that segments can be freed: no more of those that \
         came in than journal.relocation_budget_percent, and a quarter of a segment.",
    ),
    family(
        "forebay_write_amplification",
        Share(|one| one.space.write_amplification()),
        "Bytes of blocks written since the start for each byte of messages' records that came in; 0 \
         before any did.",
    ),
    family(
        "forebay_blocks_in_flight",
        Now(|one| one.measures.blocks_in_flight),
        "Blocks being written.",
    ),
    family(
        "forebay_segments_held",
        Files(|seen| seen.held.0),
        "Segment files in use, prepared ones included.",
    ),
    family(
        "forebay_segments_held_bytes",
        Files(|seen| seen.held.1),
        "Bytes of them.",
    ),
    family(
        "forebay_segments_spare",
        Files(|seen| seen.spare.0),
        "Segment files kept to be used again.",
    ),
    family(
        "forebay_segments_spare_bytes",
        Files(|seen| seen.spare.1),
        "Bytes of them.",
    ),
    family(
        "forebay_segments_ready",
        Now(|one| one.measures.segments_ready),
        "Segments prepared and not begun.",
    ),
    family(
        "forebay_segment_waits",
        Count(|one| one.host.segment_waits),
        "Times that producers began to wait for a prepared segment.",
    ),
    family(
        "forebay_segment_wait_seconds",
        Seconds(|one| one.host.segment_wait_us),
        "How long producers waited for one.",
    ),
    family(
        "forebay_disk_full",
        Now(|one| one.is_disk_full.into()),
        "1 while the disk has no space for the next segment.",
    ),
    family(
        "forebay_block_cache_hits",
        Count(|one| one.host.cache_hits),
        "Pieces of persistent messages handed out; each was in memory then.",
    ),
    family(
        "forebay_block_cache_misses",
        Count(|one| one.host.cache_misses),
        "Times that such a piece was not in memory and waited for the disk.",
    ),
    family(
        "forebay_block_reads",
        Count(|one| one.host.reads),
        "Reads of blocks for them, of up to 1 MiB, those ahead included.",
    ),
    family(
        "forebay_block_cache_evictions",
        Count(|one| one.writer.evicted),
        "Blocks that the cache let go of.",
    ),
    family(
        "forebay_queue_messages",
        Source::QueueMessages,
        "Messages of a queue by state.",
    ),
    family(
        "forebay_queue_bytes",
        Queue(|seen| seen.counts.bytes),
        "Bytes of them.",
    ),
    family(
        "forebay_queue_consumers",
        Queue(|seen| seen.counts.consumers),
        "Consumers of a queue.",
    ),
    family(
        "forebay_unlisted_queues",
        Now(|one| one.unlisted.queues),
        "Queues without a line of their own: a shard lists 256.",
    ),
    family(
        "forebay_unlisted_messages",
        Now(|one| one.unlisted.messages),
        "Messages in them.",
    ),
    family(
        "forebay_unlisted_bytes",
        Now(|one| one.unlisted.bytes),
        "Bytes of these.",
    ),
    family(
        "forebay_scrubbed_bytes",
        FileCount(|seen| seen.scrubbed_bytes),
        "Bytes of sealed segments read again and checked.",
    ),
    family(
        "forebay_scrub_rounds",
        FileCount(|seen| seen.scrub_rounds),
        "Times that all sealed segments had been checked.",
    ),
    family(
        "forebay_scrub_damages",
        FileCount(|seen| seen.damages_found),
        "Damaged places found since the start.",
    ),
    family(
        "forebay_damaged_blocks",
        Files(|seen| seen.damages.len() as u64),
        "Damaged places in files that are still needed, 64 at most: see Damage.",
    ),
    family(
        "forebay_scrub_oldest_age_seconds",
        Shard(|one| Some(one.oldest_check_s.unwrap_or(0.0))),
        "How long ago the sealed segment that waits longest was checked, or became one.",
    ),
];

impl Family {
    const fn kind(&self) -> MetricType {
        match self.source {
            Count(_) | FileCount(_) | Seconds(_) | Source::Refusals => MetricType::Counter,
            Times(_) => MetricType::Histogram,
            _ => MetricType::Gauge,
        }
    }

    pub(super) fn encode(
        &self,
        scrape: &Scrape,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), Error> {
        let mut out = Out {
            encoder: encoder.encode_descriptor(self.name, self.help, None, self.kind())?,
        };
        match self.source {
            Node(of) => of(scrape).map_or(Ok(()), |value| out.gauge(&Labels::new(), value)),
            Source::Build => out.gauge(
                &vec![
                    ("node", scrape.identity.node.clone()),
                    ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ],
                1.0,
            ),
            _ => scrape
                .shards
                .iter()
                .try_for_each(|one| self.encode_shard(one, &mut out)),
        }
    }

    fn encode_shard(&self, one: &ShardScrape, out: &mut Out<'_>) -> Result<(), Error> {
        let labels = vec![("shard", one.shard.to_string())];
        match self.source {
            Shard(of) => return of(one).map_or(Ok(()), |value| out.gauge(&labels, value)),
            FileCount(of) => return out.count(&labels, of(&one.board)),
            Files(of) => return out.gauge(&labels, of(&one.board) as f64),
            _ => {}
        }
        let Some(told) = &one.told else {
            return Ok(());
        };
        match self.source {
            Count(of) => out.count(&labels, of(told)),
            Now(of) => out.gauge(&labels, of(told) as f64),
            Share(of) => out.gauge(&labels, of(told).unwrap_or(0.0)),
            Seconds(of) => out.seconds(&labels, of(told)),
            Times(of) => out.times(&labels, of(told)),
            Source::Refusals => {
                let mut reasons = REFUSAL_REASONS.iter().zip(told.host.refused);
                reasons.try_for_each(|(reason, count)| {
                    out.count(&with(&labels, "reason", (*reason).to_owned()), count)
                })
            }
            Queue(of) => {
                let mut queues = told.listed.iter();
                queues.try_for_each(|seen| out.gauge(&queue_labels(seen), of(seen) as f64))
            }
            Source::QueueMessages => {
                let mut queues = told.listed.iter();
                queues.try_for_each(|seen| queue_messages(seen, out))
            }
            _ => Ok(()),
        }
    }
}

fn queue_messages(seen: &QueueSeen, out: &mut Out<'_>) -> Result<(), Error> {
    let labels = queue_labels(seen);
    let counts = &seen.counts;
    let states = [
        ("ready", counts.ready),
        ("unsettled", counts.unsettled),
        ("aside", counts.aside),
    ];
    states.into_iter().try_for_each(|(state, count)| {
        out.gauge(&with(&labels, "state", state.to_owned()), count as f64)
    })
}

fn queue_labels(seen: &QueueSeen) -> Labels {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    vec![
        ("shard", seen.shard.0.to_string()),
        ("address", text(&seen.address)),
        ("queue", text(&seen.name)),
        ("routing", routing_name(seen.routing).to_owned()),
    ]
}

fn with(labels: &Labels, name: &'static str, value: String) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value));
    labels
}

/// Writes samples of one family.
struct Out<'a> {
    encoder: prometheus_client::encoding::MetricEncoder<'a>,
}

impl Out<'_> {
    fn gauge(&mut self, labels: &Labels, value: f64) -> Result<(), Error> {
        ConstGauge::new(value).encode(self.encoder.encode_family(labels)?)
    }

    fn count(&mut self, labels: &Labels, value: u64) -> Result<(), Error> {
        ConstCounter::new(value).encode(self.encoder.encode_family(labels)?)
    }

    fn seconds(&mut self, labels: &Labels, us: u64) -> Result<(), Error> {
        let seconds = us as f64 / SECOND_US;
        ConstCounter::new(seconds).encode(self.encoder.encode_family(labels)?)
    }

    fn times(&mut self, labels: &Labels, seen: &LatencySeen) -> Result<(), Error> {
        let classes = BOUNDS_US.iter().zip(seen.classes);
        let classes: Vec<_> = classes
            .map(|(bound_us, count)| (*bound_us as f64 / SECOND_US, count))
            .collect();
        let sum = seen.sum_us as f64 / SECOND_US;
        self.encoder
            .encode_family(labels)?
            .encode_histogram::<NoLabelSet>(sum, seen.count, &classes, None)
    }
}
