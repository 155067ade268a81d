//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use forebay_journal::format::{Kind, Outcome};

use crate::command::undelete;
use crate::filter;
use crate::text::parse_time;

const EXIT_STATUS: &str = "\
Exit status:
  0  shown or made; `verify`, `repair`: sound; `compare`: the same, or one goes on from the other
  1  damage was found: `verify` names file, byte offset, records and kind; `export` and `undelete`
     made nothing; `repair` made a new store. `compare`: the two stores part
  2  could not run: wrong path, not a Forebay folder, another format version, no permission, a
     new file or folder that is there already, an export that is none

PATH is a data folder, its journal/ folder, or (segments, blocks, records) one segment file.
A running broker is not disturbed: nothing is locked or written. What lies behind the last
complete block of a running broker is in flight, not damaged.";

/// Looks into a Forebay journal: what is there, whether it is sound, and what can be got out of it.
/// Never writes to the journal it reads.
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
    /// One line for each segment file.
    ///
    /// A replay begins at the first that `counts`. `bodies`: one before it that is kept for
    /// messages that are alive, named by a checkpoint. With --json one object a line.
    #[command(after_help = EXIT_STATUS)]
    Segments(ViewArgs),
    /// One line for each block, and for what lies between blocks. With --json one object a line.
    #[command(after_help = EXIT_STATUS)]
    Blocks(ViewArgs),
    /// One line for each record. With --json one object a line.
    #[command(after_help = EXIT_STATUS)]
    Records(RecordsArgs),
    /// One message: properties, head, body, and each record that names it.
    ///
    /// Names are unique within a shard; without --shard each shard is searched. Settled messages
    /// are found too, as long as they are on the disk. With --json one object a message.
    #[command(after_help = EXIT_STATUS)]
    Message(MessageArgs),
    /// The last records, as `records` shows them, and with --follow those that come.
    ///
    /// All filters of `records` hold. What is shown is complete on the disk and in order; a broker
    /// may still be waiting for it. Reads the last segments only.
    #[command(after_help = EXIT_STATUS)]
    Tail(TailArgs),
    /// All that a broker would find: queues, messages and their properties, as JSON lines.
    ///
    /// Bytes that are no text are base64, bodies of any size come in parts, transactions have
    /// come to their end. What is delivered and not settled is ready again, as after a restart.
    /// Of a running broker: what was durable when it began. A damaged store is refused with exit
    /// status 1: see `repair`.
    #[command(after_help = EXIT_STATUS)]
    Export(ExportArgs),
    /// Makes a new store from an export: a broker starts on it with the same queues and messages.
    ///
    /// Names of messages and queues stay; positions and the journal's identity are new.
    #[command(after_help = EXIT_STATUS)]
    Import(ImportArgs),
    /// A new store with the settled messages that are still on the disk, each in the queue that it
    /// left.
    ///
    /// As long as a segment was not reused, what was acknowledged, refused, expired, dropped or
    /// deleted with its queue is still there. Attempts are forgotten, and times of expiry and
    /// delivery: all of it is ready at once.
    #[command(after_help = EXIT_STATUS)]
    Undelete(UndeleteArgs),
    /// Which of two stores of one journal is newer, by epoch and LSN, and where they part.
    ///
    /// Exit status 1 when they part, or are two different journals. Reads little more than a
    /// segment of each; whether each is sound by itself says `verify`.
    #[command(after_help = EXIT_STATUS)]
    Compare(CompareArgs),
    /// A new store of all that can be proved of a damaged one; the rest goes to its quarantine.
    ///
    /// The damaged store is not changed. Ends with status 1 when damage was found and a new store
    /// made, with 0 when the store is sound and there is nothing to do. What was settled in
    /// records that are lost comes again. What a lost checkpoint may have named goes to the
    /// quarantine, as far as it is on the disk.
    #[command(after_help = EXIT_STATUS)]
    Repair(RepairArgs),
    /// The segments as a picture: what is alive in them, dead, left, damaged, never written.
    ///
    /// `live` are records of messages that are in a queue, also in segments before the one where a
    /// replay begins (`bodies`). With --json one object a segment.
    #[command(after_help = EXIT_STATUS)]
    Map(MapArgs),
    /// All numbers, names and layouts of the format.
    Constants {
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Reads all that counts and says whether a broker could start on it without losing anything.
    ///
    /// Prints every damage with file, byte offset, records and kind. Superblock, heads, chain of
    /// blocks, checksums and records are read, also where only bodies are needed: a broker starts
    /// with a damaged body, and the messages that lie there are named. What looks bad is read again
    /// before it is called so. Memory does not grow with the journal; --rate spares the disk.
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
            Self::Message(args) => &args.target,
            Self::Export(args) => &args.target,
            Self::Map(args) => &args.target,
            Self::Repair(args) => &args.target,
            Self::Undelete(args) => &args.target,
            Self::Import(_) | Self::Compare(_) | Self::Constants { .. } => {
                panic!("has not one store")
            }
            Self::Tail(args) => &args.records.target,
        }
    }

    /// Whether lines come while it reads: a bar would stand in their way.
    pub(crate) fn prints_while_it_reads(&self) -> bool {
        match self {
            Self::Blocks(_) | Self::Records(_) | Self::Message(_) | Self::Tail(_) => true,
            Self::Export(args) => args.to.is_none(),
            _ => false,
        }
    }

    /// Bytes a second to read at most.
    pub(crate) fn rate(&self) -> Option<u64> {
        match self {
            Self::Export(args) => args.rate,
            Self::Undelete(args) => args.rate,
            Self::Repair(args) => args.rate,
            Self::Import(_) | Self::Constants { .. } => None,
            _ => self.view().rate,
        }
    }

    fn view(&self) -> &View {
        match self {
            Self::Stat(args) | Self::Segments(args) | Self::Blocks(args) | Self::Verify(args) => {
                &args.view
            }
            Self::Records(args) => &args.view,
            Self::Message(args) => &args.view,
            Self::Compare(args) => &args.view,
            Self::Map(args) => &args.view,
            Self::Export(_)
            | Self::Import(_)
            | Self::Undelete(_)
            | Self::Repair(_)
            | Self::Constants { .. } => {
                panic!("shows no list")
            }
            Self::Tail(args) => &args.records.view,
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
    /// Read at most so many bytes a second, as 50MiB: the disk of a running broker has other
    /// things to do.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) rate: Option<u64>,
}

/// A number of bytes above zero, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("{other} is no unit: B, KiB, MiB or GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text} is no size"))?;
    let bytes = number.checked_mul(unit).filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| format!("{text} is out of range"))
}

#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) view: View,
}

/// Which records: all that is said has to hold.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Wanted {
    /// Only this kind, such as message or settle; may be given several times.
    #[arg(long = "kind", value_name = "KIND", value_parser = filter::kind)]
    pub(crate) kinds: Vec<Kind>,
    /// Only what concerns the message of this name: its record, fragments, transaction, and each
    /// record that names it.
    #[arg(long, value_name = "ID")]
    pub(crate) message: Option<u64>,
    /// Only records from this LSN on.
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    pub(crate) from: u64,
    /// Only records up to this LSN.
    #[arg(long, value_name = "LSN")]
    pub(crate) upto: Option<u64>,
    /// Only records in the segment of this number.
    #[arg(long, value_name = "N")]
    pub(crate) segment: Option<u64>,
    /// Only records in blocks sealed at this time or later: 2026-11-27 20:15:00 (UTC), or
    /// milliseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) since: Option<u64>,
    /// Only records in blocks sealed at this time or earlier.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<u64>,
}

/// How a body is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BodyForm {
    /// As text if it begins as such, or else as bytes.
    Auto,
    /// As text; what is not printable is escaped.
    Text,
    /// As a hexadecimal dump.
    Hex,
    /// Not at all.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// Its name: the number that `records` shows.
    #[arg(value_name = "ID")]
    pub(crate) message: u64,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) view: View,
    /// How the body is shown; with --json it is base64.
    #[arg(long, value_enum, default_value_t = BodyForm::Auto)]
    pub(crate) body: BodyForm,
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
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Whole heads and bodies, not only their beginnings: escaped, with --json base64.
    #[arg(long)]
    pub(crate) bodies: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) records: RecordsArgs,
    /// Wait for more, until --limit records were shown or for ever.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many of the records that are there to begin with, in each shard.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    pub(crate) lines: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Write to this new file, not to the standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Read at most so many bytes a second, as 50MiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) rate: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The export; - for the standard input.
    #[arg(value_name = "FILE")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) new: NewArgs,
}

/// Of commands that make a new store.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Data folder to make; it must not be there.
    #[arg(long, value_name = "DIR")]
    pub(crate) into: PathBuf,
    /// Size of its segment files.
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value = "64MiB")]
    pub(crate) segment_size: u64,
}

#[derive(Debug, Args)]
pub(crate) struct UndeleteArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) new: NewArgs,
    /// Only from the queue of this name or address.
    #[arg(long, value_name = "Q")]
    pub(crate) queue: Option<String>,
    /// Only the message of this name.
    #[arg(long, value_name = "ID")]
    pub(crate) message: Option<u64>,
    /// Only what left so, as accepted or expired; may be given several times. Without it all but
    /// what went to another address as a message of its own.
    #[arg(long = "outcome", value_name = "OUTCOME", value_parser = undelete::outcome)]
    pub(crate) outcomes: Vec<Outcome>,
    /// Read at most so many bytes a second, as 50MiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) rate: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Data folder of the one.
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// Data folder of the other.
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
    #[command(flatten)]
    pub(crate) view: View,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) new: NewArgs,
    /// JSON instead of text; it is in the quarantine, too.
    #[arg(long)]
    pub(crate) json: bool,
    /// Read at most so many bytes a second, as 50MiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) rate: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) view: View,
    /// Draw into this new file, too, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}
