//! `export`: all that a broker would find, as JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::Context as _;

use crate::cli::ExportArgs;
use crate::emit::{Emitted, Held, emit};
use crate::folder::Place;
use crate::gather::gather;
use crate::line::{Line, TakeLine};
use crate::text::count;

/// Writes each line as it comes.
pub(crate) struct JsonLines<'a>(pub(crate) &'a mut dyn Write);

impl TakeLine for JsonLines<'_> {
    fn take(&mut self, line: &Line) -> anyhow::Result<()> {
        writeln!(self.0, "{}", line.text())?;
        Ok(())
    }
}

/// Writes the export; returns the exit status.
pub(crate) fn run(place: &Place, args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    place.journal("export")?;
    if let Some(path) = &args.to {
        place.refuse_inside(path)?;
    }
    let store = match gather(place)? {
        Ok(store) => store,
        Err(damage) => {
            eprintln!(
                "forebay-inspect: DAMAGED: {damage}\n`verify` lists all damage; `repair` makes a \
                 new store of what can be proved"
            );
            return Ok(1);
        }
    };
    let emitted = match &args.to {
        None => emit(&store, &Held, &mut JsonLines(out))?,
        Some(path) => {
            let shown = || path.display().to_string();
            let file = File::create_new(path).with_context(shown)?;
            let mut file = BufWriter::new(file);
            let emitted = emit(&store, &Held, &mut JsonLines(&mut file))?;
            file.into_inner()?.sync_all().with_context(shown)?;
            emitted
        }
    };
    say(place, &emitted)?;
    Ok(0)
}

/// Says what there was, beside the export. Errors: some of it cannot be explained.
fn say(place: &Place, emitted: &Emitted) -> anyhow::Result<()> {
    let totals = emitted.totals;
    eprintln!(
        "exported {} and {}",
        count(totals.queues, "queue"),
        count(totals.messages, "message")
    );
    if emitted.gone == 0 {
        return Ok(());
    }
    anyhow::ensure!(
        place.owner().is_running(),
        "{} could not be read a second time, and no broker runs that may have settled them: \
         the export is not whole. `verify` says what is damaged",
        count(emitted.gone, "message")
    );
    eprintln!(
        "{} more were settled and their files reused before they could be read",
        count(emitted.gone, "message")
    );
    Ok(())
}
