//! The one table of keys: name, type and range, default, effect, and the field it fills.
//!
//! Reading, defaults, `forebay config check` and `docs/configuration.md` walk this table, so a key
//! cannot be read and not documented, or documented and not read.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::address::MESSAGES_MAX;
use super::setting::Setting;
use super::size::format_size;
use super::{Config, Pin, User};
use crate::limits::{
    ADDRESS_SIZE_MAX_BYTES, BLOCK_ALIGN_BYTES, BLOCK_CACHE_SIZE_MIN_BYTES, CONNECTIONS_MAX, KIB,
    MESSAGE_SIZE_MAX_CEILING_BYTES, MESSAGE_SIZE_MAX_FLOOR_BYTES, MIB, PREFETCH_MAX,
    SEGMENT_SIZE_MAX_BYTES, SEGMENT_SIZE_MIN_BYTES, SEGMENTS_READY_MAX, SEGMENTS_READY_MIN,
    SHARDS_MAX,
};
use crate::shard::DiskFull;

/// Where a value goes: a function from the configuration to the field.
pub type Slot<T> = fn(&mut Config) -> &mut T;

/// Type and range of a key. Ranges are inclusive.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "the variants' fields are the range and the slot"
)]
pub enum Kind {
    /// 1 to 64 letters, digits, dots, underscores, dashes.
    Name { slot: Slot<String> },
    /// A path, relative ones from the working directory.
    Folder { slot: Slot<PathBuf> },
    /// `true` or `false`.
    Flag { slot: Slot<bool> },
    /// A whole number.
    Integer {
        least: u32,
        most: u32,
        slot: Slot<u32>,
    },
    /// A whole number from 1, or -1 for none.
    OptionalCount { most: u64, slot: Slot<Option<u64>> },
    /// A size from 1 byte in quotes, or -1 for none.
    OptionalSize { slot: Slot<Option<u64>> },
    /// Two whole numbers in brackets.
    Pair {
        least: u32,
        most: u32,
        slot: Slot<[u32; 2]>,
    },
    /// A size in quotes, see `format_size`.
    Size {
        least: u64,
        most: u64,
        multiple: u64,
        slot: Slot<u64>,
    },
    /// A size per second in quotes.
    Rate {
        least: u64,
        most: u64,
        slot: Slot<u64>,
    },
    /// IP address and port.
    Address { slot: Slot<SocketAddr> },
    /// Likewise, or `"off"`.
    OptionalAddress { slot: Slot<Option<SocketAddr>> },
    /// `"auto"`, `"off"` or a list of CPUs.
    Placement { slot: Slot<Pin> },
    /// What becomes of messages on a full disk, by a word.
    DiskFull { slot: Slot<DiskFull> },
    /// Text of a `[[user]]`: 1 to 255 bytes.
    UserText { slot: fn(&mut User) -> &mut String },
    /// The `match` of an `[[address]]`.
    Pattern,
    /// What an `[[address]]` sets; refused unless it is offered.
    Setting { setting: Setting, is_offered: bool },
}

/// One key of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.name`.
    pub path: &'static str,
    /// Type, range and the field it fills.
    pub kind: Kind,
    /// The default as TOML; `None` when the key must be written.
    pub default: Option<&'static str>,
    /// What it does, in one or two sentences.
    pub effect: &'static str,
}

impl Key {
    /// The part before the dot.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The part behind the dot.
    pub fn name(&self) -> &'static str {
        self.path
            .split_once('.')
            .map_or(self.path, |(_, name)| name)
    }

    /// True for keys of a `[[user]]`.
    pub fn is_user(&self) -> bool {
        matches!(self.kind, Kind::UserText { .. })
    }

    /// Says in words what may be written.
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Name { .. } => "a name of 1 to 64 letters, digits, '.', '_' or '-'".into(),
            Kind::Folder { .. } => "a path in quotes, not empty".into(),
            Kind::Flag { .. } => "true or false".into(),
            Kind::Integer { least, most, .. } => format!("a whole number from {least} to {most}"),
            Kind::OptionalCount { most, .. } => {
                format!("a whole number from 1 to {most}, or -1 for none")
            }
            Kind::OptionalSize { .. } => "a size from \"1B\", or -1 for none".into(),
            Kind::Pair { least, most, .. } => {
                format!("two whole numbers from {least} to {most}, such as [10000, 10000]")
            }
            Kind::Size {
                least,
                most,
                multiple,
                ..
            } => {
                let range = format!(
                    "a size from \"{}\" to \"{}\"",
                    format_size(least),
                    format_size(most)
                );
                match multiple {
                    1 => range,
                    _ => format!("{range}, a multiple of {}", format_size(multiple)),
                }
            }
            Kind::Rate { least, most, .. } => format!(
                "a size per second from \"{}\" to \"{}\"",
                format_size(least),
                format_size(most)
            ),
            Kind::Address { .. } => {
                "an IP address and a port, such as \"127.0.0.1:61613\" or \"[::1]:61613\" \
                 (\"localhost:61613\" means 127.0.0.1; host names are not looked up)"
                    .into()
            }
            Kind::OptionalAddress { .. } => {
                "\"off\", or an IP address and a port, such as \"127.0.0.1:9090\"".into()
            }
            Kind::Placement { .. } => {
                "\"auto\", \"off\" or a list of CPU numbers such as [2, 3], each once".into()
            }
            Kind::DiskFull { .. } => "\"block\" or \"fail\"".into(),
            Kind::UserText { .. } => "a text of 1 to 255 bytes".into(),
            Kind::Pattern => format!(
                "words with dots between, 1 to {ADDRESS_SIZE_MAX_BYTES} bytes, without /queue/ or \
                 /topic/; '*', '#' and at the end '>' stand alone between dots"
            ),
            Kind::Setting { setting, .. } => setting.allowed(),
        }
    }

    /// Writes the value in force as TOML. Empty for keys of users and addresses: there may be many.
    pub(super) fn show(&self, config: &Config) -> String {
        // The slots lend mutably, so the value is read from a copy: `config check` can afford it.
        let config = &mut config.clone();
        match self.kind {
            Kind::Name { slot } => format!("{:?}", slot(config)),
            Kind::Folder { slot } => format!("{:?}", slot(config).display().to_string()),
            Kind::Flag { slot } => slot(config).to_string(),
            Kind::Integer { slot, .. } => slot(config).to_string(),
            Kind::OptionalCount { slot, .. } => {
                slot(config).map_or_else(|| "-1".into(), |count| count.to_string())
            }
            Kind::OptionalSize { slot } => {
                let show = |bytes| format!("\"{}\"", format_size(bytes));
                slot(config).map_or_else(|| "-1".into(), show)
            }
            Kind::Pair { slot, .. } => format!("{:?}", slot(config)),
            Kind::Size { slot, .. } | Kind::Rate { slot, .. } => {
                format!("\"{}\"", format_size(*slot(config)))
            }
            Kind::Address { slot } => format!("\"{}\"", slot(config)),
            Kind::OptionalAddress { slot } => match slot(config) {
                Some(address) => format!("\"{address}\""),
                None => "\"off\"".into(),
            },
            Kind::Placement { slot } => match slot(config) {
                Pin::Auto => "\"auto\"".into(),
                Pin::Off => "\"off\"".into(),
                Pin::Cpus(cpus) => format!("{cpus:?}"),
            },
            Kind::DiskFull { slot } => match slot(config) {
                DiskFull::Block => "\"block\"".into(),
                DiskFull::Fail => "\"fail\"".into(),
            },
            Kind::UserText { .. } | Kind::Pattern | Kind::Setting { .. } => String::new(),
        }
    }
}

/// Longest that a shard spins before it sleeps: beyond a disk's write nothing is won.
const BUSY_POLL_MAX_US: u32 = 100_000;

/// Every key there is, in the order of the document, but those of `[[address]]`, which have a
/// table of their own.
pub const KEYS: &[Key] = &[
    Key {
        path: "node.name",
        kind: Kind::Name {
            slot: |c| &mut c.node.name,
        },
        default: Some("\"forebay\""),
        effect: "Name of this node in logs and in what clients are told.",
    },
    Key {
        path: "node.data",
        kind: Kind::Folder {
            slot: |c| &mut c.node.data,
        },
        default: Some("\"forebay-data\""),
        effect: "The data folder; made when it is not there. The journal lies under `journal/` in \
                 it. One process at a time holds it.",
    },
    Key {
        path: "node.shards",
        kind: Kind::Integer {
            least: 0,
            most: SHARDS_MAX,
            slot: |c| &mut c.node.shards,
        },
        default: Some("0"),
        effect: "Number of shards, one thread each. 0 takes the number from the data folder, one \
                 in a new folder.",
    },
    Key {
        path: "node.busy_poll_us",
        kind: Kind::Integer {
            least: 0,
            most: BUSY_POLL_MAX_US,
            slot: |c| &mut c.node.busy_poll_us,
        },
        default: Some("0"),
        effect: "How long a shard with nothing to do looks for work before it sleeps, in \
                 microseconds: its core is busy then though little happens. 0 sleeps at once.",
    },
    Key {
        path: "listen.stomp",
        kind: Kind::Address {
            slot: |c| &mut c.listen.stomp,
        },
        default: Some("\"127.0.0.1:61613\""),
        effect: "Where STOMP clients connect, plain or by WebSocket. Port 0 takes any free port; the \
                 ready line names it. An address that is not loopback needs a `[[user]]`.",
    },
    Key {
        path: "listen.allow_anonymous_remote",
        kind: Kind::Flag {
            slot: |c| &mut c.listen.allow_anonymous_remote,
        },
        default: Some("false"),
        effect: "Lets everybody who can reach the listener read, send and remove messages without \
                 a password. It gives up every protection but the network's own.",
    },
    Key {
        path: "journal.segment_size",
        kind: Kind::Size {
            least: SEGMENT_SIZE_MIN_BYTES,
            most: SEGMENT_SIZE_MAX_BYTES,
            multiple: BLOCK_ALIGN_BYTES,
            slot: |c| &mut c.journal.segment_size,
        },
        default: Some("\"256MiB\""),
        effect: "Size of one segment file of the journal. Small segments are freed sooner and \
                 rotate more often.",
    },
    Key {
        path: "journal.segments_ready",
        kind: Kind::Integer {
            least: SEGMENTS_READY_MIN,
            most: SEGMENTS_READY_MAX,
            slot: |c| &mut c.journal.segments_ready,
        },
        default: Some("2"),
        effect: "Segments of each shard kept zero-filled ahead of the writer.",
    },
    Key {
        path: "journal.relocation_budget_percent",
        kind: Kind::Integer {
            least: 0,
            most: 400,
            slot: |c| &mut c.journal.relocation_budget_percent,
        },
        default: Some("25"),
        effect: "Messages that stay long are written anew further on, so that their segments can be \
                 freed: of each hundred bytes that come in no more than so many. 0 turns it off.",
    },
    Key {
        path: "journal.prepare_rate",
        kind: Kind::Rate {
            least: 1_000_000,
            most: 10_000_000_000,
            slot: |c| &mut c.journal.prepare_rate,
        },
        default: Some("\"50MB\""),
        effect: "Bytes per second written while zero-filling a segment ahead, so that it does not \
                 disturb the journal. Without any prepared segment left it goes at full speed.",
    },
    Key {
        path: "journal.scrub_bytes_per_s",
        kind: Kind::Rate {
            least: 0,
            most: 10_000_000_000,
            slot: |c| &mut c.journal.scrub_bytes_per_s,
        },
        default: Some("\"8MiB\""),
        effect: "Bytes per second and shard of reading written segments again, so that damage is \
                 told before somebody needs what lies there. 0 reads nothing.",
    },
    Key {
        path: "journal.strict",
        kind: Kind::Flag {
            slot: |c| &mut c.journal.is_strict,
        },
        default: Some("false"),
        effect: "Writes behind each block where the journal ends to a file apart, and acknowledges \
                 when both are on the disk: so damage to the last blocks is told from a write that \
                 a power cut tore. One more write before each receipt.",
    },
    Key {
        path: "limits.message_size_max",
        kind: Kind::Size {
            least: MESSAGE_SIZE_MAX_FLOOR_BYTES,
            most: MESSAGE_SIZE_MAX_CEILING_BYTES,
            multiple: 1,
            slot: |c| &mut c.limits.message_size_max,
        },
        default: Some("\"64MiB\""),
        effect: "Largest body of one message. A larger one is refused with an ERROR before memory \
                 is taken for it.",
    },
    Key {
        path: "limits.connections_max",
        kind: Kind::Integer {
            least: 1,
            most: CONNECTIONS_MAX,
            slot: |c| &mut c.limits.connections_max,
        },
        default: Some("1024"),
        effect: "Connections of the node, an equal share for each shard. Further ones are closed \
                 at once.",
    },
    Key {
        path: "limits.block_cache_size",
        kind: Kind::Size {
            least: BLOCK_CACHE_SIZE_MIN_BYTES,
            most: 1024 * 1024 * MIB,
            multiple: BLOCK_ALIGN_BYTES,
            slot: |c| &mut c.limits.block_cache_size,
        },
        default: Some("\"64MiB\""),
        effect: "Memory of each shard for written blocks, so that deliveries need not read the \
                 disk.",
    },
    Key {
        path: "limits.volatile_size_max",
        kind: Kind::Size {
            least: MIB,
            most: 1024 * 1024 * MIB,
            multiple: 1,
            slot: |c| &mut c.limits.volatile_size_max,
        },
        default: Some("\"256MiB\""),
        effect: "Memory of each shard for bodies of messages that are not persistent. When it is \
                 full their producers wait; one that is larger is refused. One without a length \
                 waits for room for `limits.message_size_max`, or for all of this if it is less.",
    },
    Key {
        path: "limits.transaction_timeout_ms",
        kind: Kind::Integer {
            least: 100,
            most: 86_400_000,
            slot: |c| &mut c.limits.transaction_timeout_ms,
        },
        default: Some("300000"),
        effect: "How long a transaction may be open, in milliseconds. One that is open longer is \
                 rolled back and its connection gets an ERROR: what it sent and acknowledged keeps \
                 the journal from freeing segments.",
    },
    Key {
        path: "limits.global_max_size_bytes",
        kind: Kind::OptionalSize {
            slot: |c| &mut c.limits.global_max_size_bytes,
        },
        default: Some("-1"),
        effect: "Most bytes of messages in the queues of all addresses before each address does what \
                 its `address_full_policy` says. A message in two queues counts twice.",
    },
    Key {
        path: "limits.global_max_size_messages",
        kind: Kind::OptionalCount {
            most: MESSAGES_MAX,
            slot: |c| &mut c.limits.global_max_size_messages,
        },
        default: Some("-1"),
        effect: "Most messages in the queues of all addresses, likewise.",
    },
    Key {
        path: "limits.disk_full_policy",
        kind: Kind::DiskFull {
            slot: |c| &mut c.limits.disk_full_policy,
        },
        default: Some("\"block\""),
        effect: "What happens to messages while the disk has no space for them. \"block\": their \
                 senders wait; \"fail\": they are refused with an ERROR. Either way what is queued \
                 can be consumed, and messages are taken again as soon as there is space.",
    },
    Key {
        path: "stomp.persistent_default",
        kind: Kind::Flag {
            slot: |c| &mut c.stomp.persistent_default,
        },
        default: Some("false"),
        effect: "What a SEND without a `persistent` header means. false: as in ActiveMQ, only \
                 `persistent:true` survives a restart. true: only `persistent:false` does not.",
    },
    Key {
        path: "stomp.heart_beat_ms",
        kind: Kind::Pair {
            least: 0,
            most: 3_600_000,
            slot: |c| &mut c.stomp.heart_beat_ms,
        },
        default: Some("[10000, 10000]"),
        effect: "What the broker offers in CONNECTED, in milliseconds: it can send a heart-beat \
                 every first, it wants one every second. 0 means none.",
    },
    Key {
        path: "stomp.prefetch_default",
        kind: Kind::Integer {
            least: 1,
            most: PREFETCH_MAX,
            slot: |c| &mut c.stomp.prefetch_default,
        },
        default: Some("1000"),
        effect: "Messages sent ahead of acknowledgements to a subscription that does not ask for a \
                 number by `activemq.prefetchSize`.",
    },
    Key {
        path: "admin.metrics",
        kind: Kind::OptionalAddress {
            slot: |c| &mut c.admin.metrics,
        },
        default: Some("\"off\""),
        effect: "Where Prometheus scrapes `GET /metrics`, besides the admin socket. Port 0 takes any \
                 free port; a line at start names it. There is no password: who reaches it reads \
                 the names of queues and how much is in them.",
    },
    Key {
        path: "runtime.pin",
        kind: Kind::Placement {
            slot: |c| &mut c.runtime.pin,
        },
        default: Some("\"auto\""),
        effect: "CPU of each shard's thread. \"auto\" puts the first shard on the core of the \
                 disk's interrupt, \"off\" leaves all to the kernel, a list names one CPU per \
                 shard.",
    },
    Key {
        path: "runtime.scheduling_slice_ms",
        kind: Kind::Integer {
            least: 0,
            most: 100,
            slot: |c| &mut c.runtime.scheduling_slice_ms,
        },
        default: Some("10"),
        effect: "Scheduling slice that shard threads ask of the kernel, in milliseconds. 0 leaves \
                 the kernel's.",
    },
    Key {
        path: "user.name",
        kind: Kind::UserText {
            slot: |user| &mut user.name,
        },
        default: None,
        effect: "Login of one user. As soon as one user is configured nobody connects without.",
    },
    Key {
        path: "user.password",
        kind: Kind::UserText {
            slot: |user| &mut user.password,
        },
        default: None,
        effect: "Passcode of that user, as it is. Keep the file readable by the broker alone.",
    },
];

// The smallest volatile budget of the table holds the smallest message.
const _: () = assert!(MIB > MESSAGE_SIZE_MAX_FLOOR_BYTES && MESSAGE_SIZE_MAX_FLOOR_BYTES >= KIB);
