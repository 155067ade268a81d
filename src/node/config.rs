//! Configuration: one TOML file plus command line flags, checked as a whole before anything starts.
//!
//! Owns: the typed [`Config`], its defaults, and the rule that every unknown or wrong key is an
//! error that names file, line, key, allowed values and remedy.
//! Invariants:
//! * `keys::KEYS` and, for `[[address]]`, `address::SETTINGS` are the only lists of keys: reading,
//!   defaults, `config check` and `docs/configuration.md` all walk them;
//! * a [`Config`] handed out has passed `validate`: its limits derive and its listener is safe.
//!
//! Refuses to know: whether the data folder, the address or the CPUs exist. That is asked when they
//! are used.

mod address;
mod error;
mod keys;
mod read;
mod reference;
mod setting;
mod size;

pub use address::AddressSettings;
pub use error::{ConfigError, Place};
pub use keys::{KEYS, Key, Kind, Slot};
pub use reference::reference_markdown;
pub use setting::Setting;
pub use size::format_size;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::limits::{Inputs, Limits, LimitsError};
use crate::shard::{DiskFull, GlobalLimits, Policies};

/// The whole configuration of a node. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is and where its data lives.
    pub node: Node,
    /// Where clients connect.
    pub listen: Listen,
    /// The journal's files.
    pub journal: Journal,
    /// Budgets and bounds.
    pub limits: Budgets,
    /// Choices of the STOMP front end.
    pub stomp: Stomp,
    /// What operators' tools reach.
    pub admin: Admin,
    /// How shards use the machine.
    pub runtime: Runtime,
    /// Who may connect; empty means anybody, which is allowed on loopback only.
    pub users: Vec<User>,
    /// What is set for which addresses.
    pub addresses: Vec<AddressSettings>,
}

/// `[node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name of the node in logs and in what clients are told.
    pub name: String,
    /// The data folder.
    pub data: PathBuf,
    /// Number of shards; 0 means: as the data folder says, one in a new folder.
    pub shards: u32,
    /// How long a shard spins on its ring before it sleeps, in microseconds; 0 sleeps at once.
    pub busy_poll_us: u32,
}

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address of the STOMP listener; port 0 takes any free port, the ready line names it.
    pub stomp: SocketAddr,
    /// Lets anybody on the network in without a password.
    pub allow_anonymous_remote: bool,
}

/// `[journal]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Size of one segment file.
    pub segment_size: u64,
    /// Segments kept zero-filled ahead of the writer.
    pub segments_ready: u32,
    /// Bytes per second of zero-filling while a prepared segment is still there.
    pub prepare_rate: u64,
    /// Bytes per second of reading sealed segments again; 0 for never.
    pub scrub_bytes_per_s: u64,
    /// Bytes written anew per hundred that come in, at most.
    pub relocation_budget_percent: u32,
    /// Whether identifiers are written behind the blocks.
    pub is_strict: bool,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Largest body of one message.
    pub message_size_max: u64,
    /// Connections of the node.
    pub connections_max: u32,
    /// Memory per shard for written blocks that serve deliveries.
    pub block_cache_size: u64,
    /// Memory per shard for bodies of messages that are not durable.
    pub volatile_size_max: u64,
    /// How long a transaction may be open, in milliseconds.
    pub transaction_timeout_ms: u32,
    /// Most bytes of messages over all addresses.
    pub global_max_size_bytes: Option<u64>,
    /// Most messages over all addresses.
    pub global_max_size_messages: Option<u64>,
    /// What becomes of messages while the disk is full.
    pub disk_full_policy: DiskFull,
}

/// `[stomp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stomp {
    /// What a SEND without a `persistent` header means.
    pub persistent_default: bool,
    /// What the server offers: `[it can send every, it wants to receive every]`, in milliseconds.
    pub heart_beat_ms: [u32; 2],
    /// Credit of a subscription that does not ask for one, in messages.
    pub prefetch_default: u32,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address of the listener for metrics, if there is to be one.
    pub metrics: Option<SocketAddr>,
}

/// `[runtime]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Which CPU each shard's thread runs on.
    pub pin: Pin,
    /// Scheduling slice asked for shard threads in milliseconds; 0 leaves the kernel's.
    pub scheduling_slice_ms: u32,
}

/// Placement of shard threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The broker chooses: the first shard goes to the core of the disk's interrupt.
    Auto,
    /// Threads are left to the kernel's scheduler.
    Off,
    /// Shard `n` runs on the CPU at index `n`.
    Cpus(Vec<u32>),
}

/// One `[[user]]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Login.
    pub name: String,
    /// Passcode, compared in constant time.
    pub password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Values given on the command line; they win over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--stomp`.
    pub stomp: Option<String>,
    /// `--shards`.
    pub shards: Option<u32>,
    /// `--allow-anonymous-remote`.
    pub allow_anonymous_remote: bool,
}

/// A checked configuration and where each value that is not a default was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Full name of a key -> where it was set.
    pub places: BTreeMap<&'static str, Place>,
}

impl Default for Config {
    /// Every key at the default that `KEYS` gives it.
    fn default() -> Self {
        let mut config = Self::blank();
        for key in KEYS.iter().filter(|key| !key.is_user()) {
            read::apply_default(&mut config, key);
        }
        config
    }
}

impl Config {
    /// All zero: only what the defaults are written into.
    fn blank() -> Self {
        Self {
            node: Node {
                name: String::new(),
                data: PathBuf::new(),
                shards: 0,
                busy_poll_us: 0,
            },
            listen: Listen {
                stomp: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
                allow_anonymous_remote: false,
            },
            journal: Journal {
                segment_size: 0,
                segments_ready: 0,
                prepare_rate: 0,
                scrub_bytes_per_s: 0,
                relocation_budget_percent: 0,
                is_strict: false,
            },
            limits: Budgets {
                message_size_max: 0,
                connections_max: 0,
                block_cache_size: 0,
                volatile_size_max: 0,
                transaction_timeout_ms: 0,
                global_max_size_bytes: None,
                global_max_size_messages: None,
                disk_full_policy: DiskFull::Block,
            },
            stomp: Stomp {
                persistent_default: false,
                heart_beat_ms: [0, 0],
                prefetch_default: 0,
            },
            admin: Admin { metrics: None },
            runtime: Runtime {
                pin: Pin::Auto,
                scheduling_slice_ms: 0,
            },
            users: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// Gives what the bounds are derived from, for the number of shards that the data folder has.
    pub fn limits_inputs(&self, shards: u32) -> Inputs {
        Inputs {
            shards,
            segment_size_bytes: self.journal.segment_size,
            segments_ready: self.journal.segments_ready,
            message_size_max_bytes: self.limits.message_size_max,
            connections_max: self.limits.connections_max,
            block_cache_size_bytes: self.limits.block_cache_size,
            volatile_size_max_bytes: self.limits.volatile_size_max,
        }
    }

    /// What the queues of all addresses may hold together.
    pub fn global_limits(&self) -> GlobalLimits {
        GlobalLimits {
            messages: self.limits.global_max_size_messages,
            bytes: self.limits.global_max_size_bytes,
        }
    }

    /// What the queues of each address are to be like.
    pub fn policies(&self) -> Policies {
        let rules = self.addresses.iter();
        let rules = rules.map(|one| (one.pattern.clone(), one.settings.clone()));
        Policies::new(rules.collect())
    }

    /// True when everybody who can reach the listener may use the broker.
    pub fn is_open_to_network(&self) -> bool {
        self.users.is_empty() && !self.listen.stomp.ip().is_loopback()
    }
}

impl Loaded {
    /// Reads the file, if any, lays the flags over it and checks the whole.
    ///
    /// Errors: the first problem in the order of the file, then of the flags, then of relations
    /// between keys. All are the operator's fault and carry the remedy.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::from_text(Path::new("(no file)"), "", overrides);
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "the node reads its file once, at start"
        )]
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            file: path.to_path_buf(),
            source,
        })?;
        Self::from_text(path, &text, overrides)
    }

    /// Like [`Self::load`], with the text of the file at hand.
    ///
    /// Errors: as [`Self::load`].
    pub fn from_text(file: &Path, text: &str, given: &Overrides) -> Result<Self, ConfigError> {
        let mut loaded = Self {
            config: Config::default(),
            places: BTreeMap::new(),
        };
        read::read_file(&mut loaded, file, text)?;
        read::read_flags(&mut loaded, given)?;
        loaded.validate()?;
        Ok(loaded)
    }

    /// Checks what no single key can know.
    fn validate(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        let shards = config.node.shards.max(1);
        Limits::derive(config.limits_inputs(shards)).map_err(|error| self.relation(error))?;
        if let Pin::Cpus(cpus) = &config.runtime.pin
            && config.node.shards > 0
            && cpus.len() != config.node.shards as usize
        {
            return Err(ConfigError::Relation {
                place: self.place("runtime.pin"),
                key: "runtime.pin",
                problem: format!(
                    "lists {} CPUs for {} shards",
                    cpus.len(),
                    config.node.shards
                ),
                remedy: "list one CPU for each shard of node.shards, or write \"auto\"".into(),
            });
        }
        if config.node.busy_poll_us > 0 && config.runtime.scheduling_slice_ms == 0 {
            return Err(ConfigError::Relation {
                place: self.place("node.busy_poll_us"),
                key: "node.busy_poll_us",
                problem: "spins in a short scheduling slice, in which a kernel thread that \
                          finishes writes waits for it"
                    .into(),
                remedy: "give runtime.scheduling_slice_ms 10, or remove the line".into(),
            });
        }
        if config.is_open_to_network() && !config.listen.allow_anonymous_remote {
            return Err(ConfigError::OpenToNetwork {
                place: self.place("listen.stomp"),
                address: config.listen.stomp,
            });
        }
        Ok(())
    }

    /// Says in terms of keys which relation between limits is broken.
    fn relation(&self, error: LimitsError) -> ConfigError {
        let input = match error {
            LimitsError::OutOfRange { input, .. }
            | LimitsError::NotMultiple { input, .. }
            | LimitsError::TooSmallFor { input, .. } => input,
        };
        let key = KEYS
            .iter()
            .find(|key| key.name() == input)
            .expect("every input of the limits is a key: a test compares the names");
        let (problem, remedy) = match error {
            LimitsError::OutOfRange {
                found, least, most, ..
            } => (
                format!("{found} is not from {least} to {most}"),
                "write a value between".into(),
            ),
            LimitsError::NotMultiple { found, of, .. } => (
                format!("{found} is not a multiple of {of}"),
                "round it up".into(),
            ),
            LimitsError::TooSmallFor {
                found,
                least,
                holds,
                ..
            } => (
                format!("{} cannot hold {holds}", format_size(found)),
                format!("write at least \"{}\"", format_size(least)),
            ),
        };
        ConfigError::Relation {
            place: self.place(key.path),
            key: key.path,
            problem,
            remedy,
        }
    }

    /// Where a key got its value.
    fn place(&self, key: &str) -> Place {
        self.places.get(key).cloned().unwrap_or(Place::Default)
    }

    /// Writes every key with its value in force and where it comes from, as TOML.
    ///
    /// Passwords are not shown.
    pub fn effective_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KEYS.iter().filter(|key| !key.is_user()) {
            if key.section() != section {
                section = key.section();
                let gap = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{section}]");
            }
            let line = format!("{} = {}", key.name(), key.show(&self.config));
            let _ = writeln!(text, "{line:<40} # {}", self.place(key.path));
        }
        for user in &self.config.users {
            let _ = writeln!(
                text,
                "\n[[user]]\nname = {:?}\npassword = \"(hidden)\"",
                user.name
            );
        }
        for address in &self.config.addresses {
            let _ = writeln!(
                text,
                "\n[[address]]\nmatch = {:?}",
                address.pattern.to_string()
            );
            for (name, value) in address.shown() {
                let _ = writeln!(text, "{name} = {value}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
