//! `import`: a new store from an export.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::build::NewStore;
use crate::cli::ImportArgs;
use crate::line::{LINE_SIZE_MAX, Line, TakeLine};
use crate::meter;
use crate::text::count;

/// Makes the store. Errors: a line is wrong, and which; or the disk refuses.
pub(crate) fn run(args: &ImportArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut store = NewStore::begin(&args.new.into, args.new.segment_size)?;
    if args.from == Path::new("-") {
        read(&mut io::stdin().lock(), &mut store)?;
    } else {
        let file = File::open(&args.from).with_context(|| args.from.display().to_string())?;
        meter::stage("importing", file.metadata()?.len());
        read(&mut BufReader::new(file), &mut store)?;
    }
    let totals = store.finish()?;
    writeln!(
        out,
        "{}: {} and {}",
        args.new.into.display(),
        count(totals.queues, "queue"),
        count(totals.messages, "message")
    )?;
    Ok(())
}

/// Hands on line after line; none is kept.
fn read(from: &mut dyn BufRead, store: &mut dyn TakeLine) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for number in 1_u64.. {
        text.clear();
        let read = from.take(LINE_SIZE_MAX).read_until(b'\n', &mut text)?;
        if read == 0 {
            break;
        }
        meter::note(read as u64);
        if read as u64 == LINE_SIZE_MAX {
            bail!("line {number} is longer than {LINE_SIZE_MAX} B");
        }
        let taken = Line::parse(&text).and_then(|line| store.take(&line));
        taken.with_context(|| format!("line {number}"))?;
    }
    Ok(())
}
