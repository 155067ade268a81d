//! `tail`: the last records, and those that come.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use super::open;
use super::records::Printer;
use crate::chain::{Follower, Step};
use crate::cli::TailArgs;
use crate::file::read_buffer;
use crate::folder::Place;

/// How often it looks for more. For people: nothing depends on it.
const POLL: Duration = Duration::from_millis(50);

/// Prints what is there and, if asked to, what comes, until the limit or for ever.
///
/// Errors: it could not look.
pub(crate) fn run(place: &Place, args: &TailArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    place.journal("tail")?;
    let (_, identity, shards) = open(place, args.records.view.shard)?;
    let mut buffer = read_buffer();
    let mut tails = Vec::new();
    for shard in shards {
        let mut follower = Follower::open(place, &identity, shard, &mut buffer)?;
        let mut printer = Printer::new(place, &args.records, &follower.files, &follower.surveyed)?;
        let from = first_shown(&mut follower, &printer, args.lines)?;
        follower.rewind(from);
        printer.show_from(from);
        tails.push((follower, printer));
    }
    let mut left = args.records.limit.unwrap_or(u64::MAX);
    loop {
        for (follower, printer) in &mut tails {
            printer.left = left;
            let mut visit = |step: Step<'_>| match step {
                Step::Block { files, spot, block } => {
                    printer.block(files, spot, &block, Ok(()), out)
                }
                Step::Jump {
                    lost_from,
                    lost_upto,
                } => {
                    printer.note(&lost_text(lost_from, lost_upto), out)?;
                    Ok(ControlFlow::Continue(()))
                }
            };
            let flow = if args.follow {
                follower.poll(place, &identity, &mut buffer, &mut visit)?
            } else {
                follower.read(&mut buffer, &mut visit)?
            };
            left = printer.left;
            if flow.is_break() || left == 0 {
                return Ok(());
            }
        }
        if !args.follow {
            return Ok(());
        }
        out.flush()?;
        std::thread::sleep(POLL);
    }
}

fn lost_text(from: u64, upto: u64) -> String {
    if upto < from {
        return format!(
            "the log was cut before LSN {from} and goes on from {}",
            upto + 1
        );
    }
    format!("LSN {from} to {upto} were freed before they could be read")
}

/// LSN of the first of the last `lines` records that are wanted.
fn first_shown(follower: &mut Follower, printer: &Printer<'_>, lines: u64) -> anyhow::Result<u64> {
    let mut buffer = read_buffer();
    let mut from = follower.last_segment_lsn();
    loop {
        follower.rewind(from);
        let mut last = VecDeque::new();
        let mut end = from;
        let _ = follower.read(&mut buffer, &mut |step| {
            if let Step::Block { files, spot, block } = step {
                end = end.max(block.header.next_lsn().get());
                for lsn in printer.wanted_in(files, spot, &block) {
                    last.push_back(lsn);
                    if last.len() as u64 > lines {
                        last.pop_front();
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if lines == 0 {
            return Ok(end);
        }
        let earlier = follower.segment_lsn_before(from);
        match (last.len() as u64 >= lines, earlier, last.front()) {
            (false, Some(earlier), _) => from = earlier,
            (_, _, Some(first)) => return Ok(*first),
            (_, _, None) => return Ok(end),
        }
    }
}
