//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

const EXIT_STATUS: &str = "\
Exit status:
  0  shown; `verify`: sound
  1  `verify` only: damaged; file, byte offset, records and kind are named
  2  could not look: wrong path, not a Forebay folder, another format version, no permission

PATH is a data folder, its journal/ folder, or (segments, blocks, records) one segment file.
A running broker is not disturbed: nothing is locked or written. What lies behind the last
complete block of a running broker is in flight, not damaged.";

/// Looks into a Forebay journal: what is there, and whether it is sound. Never writes.
#[derive(Debug, Parser)]
#[command(name = "forebay-inspect", version, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Identity, amounts, queues, and where the log ends and why.
    ///
    /// `ready` and `unsettled` are what the records tell: messages that are not persistent are
    /// not in the journal. With --json one object.
    #[command(after_help = EXIT_STATUS)]
    Stat(ViewArgs),
    /// One line for each segment file. With --json one object a line.
    #[command(after_help = EXIT_STATUS)]
    Segments(ViewArgs),
    /// One line for each block, and for what lies between blocks. With --json one object a line.
    #[command(after_help = EXIT_STATUS)]
    Blocks(ViewArgs),
    /// One line for each record. With --json one object a line.
    #[command(after_help = EXIT_STATUS)]
    Records(RecordsArgs),
    /// Reads all that counts and says whether a broker could start on it without losing anything.
    ///
    /// Prints every damage with file, byte offset, records and kind.
    #[command(after_help = EXIT_STATUS)]
    Verify(ViewArgs),
}

impl Command {
    pub(crate) fn target(&self) -> &TargetArgs {
        match self {
            Self::Stat(args) | Self::Segments(args) | Self::Blocks(args) | Self::Verify(args) => {
                &args.target
            }
            Self::Records(args) => &args.target,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Data folder, its journal/ folder, or one segment file.
    #[arg(value_name = "PATH", required_unless_present = "data")]
    path: Option<PathBuf>,
    /// The same, as an option, as `forebay serve` has it.
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    data: Option<PathBuf>,
}

impl TargetArgs {
    pub(crate) fn path(&self) -> &Path {
        let path = self.path.as_deref().or(self.data.as_deref());
        path.expect("clap refuses a command line without one of them")
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct View {
    /// Only this shard.
    #[arg(long, value_name = "N")]
    pub(crate) shard: Option<u16>,
    /// JSON instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) view: View,
}

#[derive(Debug, Args)]
pub(crate) struct RecordsArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) view: View,
    /// Only what concerns this queue: its name or address, `/queue/x` and `/topic/x` too.
    #[arg(long, value_name = "Q")]
    pub(crate) queue: Option<String>,
    /// Only records from this LSN on.
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    pub(crate) from: u64,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Whole heads and bodies, not only their beginnings: escaped, with --json base64.
    #[arg(long)]
    pub(crate) bodies: bool,
}
