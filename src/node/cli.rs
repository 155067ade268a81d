//! The command line: what was asked for, checked, or the exit code with the reason printed.
//!
//! Owns: flags, help and version. Knows the configuration, refuses to know how a node runs:
//! `main.rs` takes [`Request`] and does it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::config::{Loaded, Overrides, format_size};
use super::exit::Exit;
use super::operator::{Operation, Order, RoutingChoice};
use crate::limits::Limits;

/// What the process is to do.
#[derive(Debug)]
pub enum Request {
    /// Run a node with this configuration.
    Serve(Box<Loaded>),
    /// Ask the broker that runs on a data folder for this, and print what it says.
    Operate(Order),
    /// Print this to standard output and end cleanly.
    Print(String),
}

/// Why the process is not to do anything: print `message` to standard error and exit.
#[derive(Debug)]
pub struct Refusal {
    /// What to print.
    pub message: String,
    /// The exit code.
    pub exit: Exit,
}

#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version,
    about = "Highly available message broker for bare metal"
)]
#[command(propagate_version = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the broker in the foreground until SIGTERM or Ctrl-C.
    ///
    /// Opens the data folder (and makes it when it is not there), recovers what the journal holds,
    /// listens, and prints one line that begins with `ready` to standard output when clients can
    /// connect. Everything else it says goes to standard error. SIGTERM or Ctrl-C: accepts no more,
    /// finishes what is durable, marks the journal as cleanly closed, exits with 0.
    Serve(Serve),
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Say how a running broker does: which shards serve, and of one that does not where its
    /// journal is damaged.
    ///
    /// Ends with 0 if all serve, with 1 if not. Asks the broker that runs on the data folder,
    /// through `admin.sock` in it.
    Status(Asking),
    /// Look at the queues of a running broker, pause, empty or delete them.
    ///
    /// Speaks to the broker that runs on the data folder, through `admin.sock` in it, as the user
    /// who runs that broker. What changed is durable when the command ends with 0.
    ///
    /// A name is that of a queue (`orders` for `/queue/orders`) or of a durable or shared
    /// subscription (`CLIENT.NAME`; dots and backslashes of the client id behind a backslash).
    #[command(subcommand)]
    Queue(QueueVerb),
}

#[derive(Debug, Subcommand)]
enum QueueVerb {
    /// List all queues, those of topic subscriptions included.
    List(Asking),
    /// Show one queue.
    Show(Naming),
    /// Hand out nothing of a queue from now on, until `resume`; also over restarts. It goes on
    /// taking messages, and what consumers hold already they may acknowledge.
    Pause(Naming),
    /// Hand out the messages of a paused queue again.
    Resume(Naming),
    /// Drop the messages in a queue that nobody holds: those that wait for a consumer, or for their
    /// time. What comes while it works stays.
    Purge(Naming),
    /// Delete a queue with all that is in it, at once.
    Delete {
        #[command(flatten)]
        naming: Naming,
        /// Also when somebody consumes from it; those connections are closed with an ERROR, but
        /// for those that take from it as one of all that a wildcard matches.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct Asking {
    /// Data folder of the running broker.
    #[arg(long, value_name = "DIR", default_value = "forebay-data")]
    data: PathBuf,
    /// Print JSON, as docs/operating.md describes it.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Naming {
    /// The queue or the subscription.
    #[arg(value_name = "NAME")]
    name: String,
    /// Which one is meant, if a queue (anycast) and a subscription (multicast) have the name.
    #[arg(long, value_name = "ROUTING")]
    routing: Option<RoutingChoice>,
    #[command(flatten)]
    asking: Asking,
}

impl Asking {
    /// An operation that names nothing.
    fn of_all(self, operation: Operation) -> Order {
        Order {
            operation,
            name: None,
            routing: None,
            data: self.data,
            is_json: self.json,
        }
    }
}

impl QueueVerb {
    fn order(self) -> Order {
        let named = |naming: Naming, operation| Order {
            operation,
            name: Some(naming.name),
            routing: naming.routing,
            data: naming.asking.data,
            is_json: naming.asking.json,
        };
        match self {
            Self::List(asking) => asking.of_all(Operation::List),
            Self::Show(naming) => named(naming, Operation::Show),
            Self::Pause(naming) => named(naming, Operation::Pause),
            Self::Resume(naming) => named(naming, Operation::Resume),
            Self::Purge(naming) => named(naming, Operation::Purge),
            Self::Delete { naming, force } => {
                let is_forced = force;
                named(naming, Operation::Delete { is_forced })
            }
        }
    }
}

#[derive(Debug, Args)]
struct Serve {
    /// Configuration file (TOML). Without it the defaults hold; docs/configuration.md lists them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder, made when it is not there. The journal lies under `journal/` in it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where STOMP clients connect. Port 0 takes any free port; the ready line names it.
    #[arg(long, value_name = "HOST:PORT")]
    stomp: Option<String>,
    /// Number of shards, one thread each; 0 takes it from the data folder (one in a new folder).
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Listen on the network without any user configured: everybody who can reach the address may
    /// read, send and remove messages.
    #[arg(long)]
    allow_anonymous_remote: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Check a file: print the configuration in force and where each value comes from, exit 0; or
    /// say what is wrong, where, and the remedy, exit 2. Nothing is started.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Reads the command line and the configuration it names.
///
/// `arguments` begins with the name of the program. Errors: [`Refusal`] with what to print; its
/// code is always [`Exit::Usage`]. Help and version are no errors: they come as
/// [`Request::Print`].
pub fn parse<I, T>(arguments: I) -> Result<Request, Refusal>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let refuse = |message| Refusal {
        message,
        exit: Exit::Usage,
    };
    let command = Line::command()
        .after_long_help(exit_codes())
        .after_help(exit_codes());
    let matched = match command.try_get_matches_from(arguments) {
        Ok(matched) => matched,
        Err(said) if !said.use_stderr() => return Ok(Request::Print(said.to_string())),
        Err(said) => return Err(refuse(said.to_string())),
    };
    let line = Line::from_arg_matches(&matched).map_err(|said| refuse(said.to_string()))?;
    match line.verb {
        Verb::Serve(serve) => {
            let flags = Overrides {
                data: serve.data,
                stomp: serve.stomp,
                shards: serve.shards,
                allow_anonymous_remote: serve.allow_anonymous_remote,
            };
            let loaded = Loaded::load(serve.config.as_deref(), &flags)
                .map_err(|error| refuse(format!("error: {error}\n")))?;
            Ok(Request::Serve(Box::new(loaded)))
        }
        Verb::Queue(verb) => Ok(Request::Operate(verb.order())),
        Verb::Status(asking) => Ok(Request::Operate(asking.of_all(Operation::Status))),
        Verb::Config(ConfigVerb::Check { file }) => {
            let loaded = Loaded::load(Some(&file), &Overrides::default())
                .map_err(|error| refuse(format!("error: {error}\n")))?;
            Ok(Request::Print(describe(&loaded)))
        }
    }
}

/// The part of the help that names exit codes.
fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "  {}  {}", exit.code(), exit.meaning());
    }
    text
}

/// What `config check` prints: the configuration in force and the memory it allows.
fn describe(loaded: &Loaded) -> String {
    let mut text = loaded.effective_toml();
    let shards = loaded.config.node.shards.max(1);
    if let Ok(limits) = Limits::derive(loaded.config.limits_inputs(shards)) {
        let _ = writeln!(text, "\n# Bounded memory with {shards} shard(s), at most:");
        for term in limits.memory_terms() {
            let _ = writeln!(text, "#   {:>12}  {}", format_size(term.bytes), term.holder);
        }
        let _ = writeln!(
            text,
            "#   {:>12}  together",
            format_size(limits.memory_max_bytes())
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(arguments: &[&str]) -> String {
        match parse(arguments) {
            Ok(Request::Print(text)) => text,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    fn refused(arguments: &[&str]) -> String {
        let refusal = parse(arguments).expect_err("refused");
        assert_eq!(refusal.exit, Exit::Usage);
        refusal.message
    }

    #[test]
    fn the_definition_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn flags_reach_the_configuration() {
        let line = [
            "forebay",
            "serve",
            "--data",
            "d",
            "--stomp",
            "0.0.0.0:0",
            "--shards",
            "2",
        ];
        let message = refused(&line);
        assert!(message.contains("command line, --stomp"), "{message}");
        let line = [&line[..], &["--allow-anonymous-remote"]].concat();
        let Ok(Request::Serve(loaded)) = parse(&line) else {
            panic!("refused {line:?}")
        };
        assert_eq!(loaded.config.node.shards, 2);
        assert_eq!(loaded.config.node.data.as_os_str(), "d");
        assert!(loaded.config.is_open_to_network());
    }

    #[test]
    fn help_names_every_exit_code() {
        for arguments in [&["forebay", "--help"][..], &["forebay", "-h"]] {
            let help = printed(arguments);
            for exit in Exit::ALL {
                let line = format!("{}  {}", exit.code(), exit.meaning());
                assert!(help.contains(&line), "{help}");
            }
        }
        assert!(printed(&["forebay", "serve", "--help"]).contains("begins with `ready`"));
        assert!(printed(&["forebay", "--version"]).contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn queue_verbs_are_orders() {
        let line = [
            "forebay", "queue", "delete", "a b", "--force", "--data", "d",
        ];
        let Ok(Request::Operate(order)) = parse(line) else {
            panic!("refused {line:?}")
        };
        assert_eq!(order.operation, Operation::Delete { is_forced: true });
        assert_eq!(order.name.as_deref(), Some("a b"));
        assert_eq!(order.data.as_os_str(), "d");
        let Ok(Request::Operate(order)) = parse(["forebay", "queue", "list", "--json"]) else {
            panic!("refused")
        };
        assert!(order.is_json);
        let usual = Loaded::load(None, &Overrides::default()).unwrap();
        assert_eq!(order.data, usual.config.node.data, "the folder of `serve`");
    }

    #[test]
    fn a_wrong_line_is_refused_with_usage() {
        for line in [
            &["forebay"][..],
            &["forebay", "serv"],
            &["forebay", "serve", "--shards", "x"],
            &["forebay", "serve", "--shards", "257"],
            &["forebay", "serve", "--config", "/nonexistent"],
            &["forebay", "config", "check"],
            &["forebay", "queue", "pause"],
            &["forebay", "queue", "show", "q", "--routing", "unicast"],
            &["forebay", "queue", "purge", "q", "--force"],
        ] {
            assert!(!refused(line).is_empty(), "{line:?}");
        }
    }

    #[test]
    fn check_prints_what_is_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.toml");
        #[allow(clippy::disallowed_methods, reason = "a test writes its input")]
        std::fs::write(&file, "[journal]\nsegment_size = \"1MiB\"\n").unwrap();
        let line = ["forebay", "config", "check", file.to_str().unwrap()];
        let text = printed(&line);
        assert!(text.contains("segment_size = \"1MiB\""), "{text}");
        assert!(
            text.contains("f.toml:2") && text.contains("together"),
            "{text}"
        );
    }
}
