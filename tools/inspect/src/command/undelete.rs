//! `undelete`: settled messages that are still on the disk, as a new store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use forebay_journal::ShardId;
use forebay_journal::format::Outcome;

use crate::build::NewStore;
use crate::cli::UndeleteArgs;
use crate::emit::{Choose, Listed, emit};
use crate::folder::Place;
use crate::gather::{Gathered, gather};
use crate::ledger::Ledger;
use crate::line::{self, MessageLine};
use crate::queue::Definition;
use crate::text::count;

/// Outcomes after which nothing of the message is anywhere else.
const USUAL: [Outcome; 5] = [
    Outcome::Accepted,
    Outcome::Rejected,
    Outcome::Expired,
    Outcome::Dropped,
    Outcome::Replaced,
];

/// Messages that left, of all shards.
struct Settled<'a> {
    args: &'a UndeleteArgs,
    /// What is in queues now.
    held: BTreeMap<ShardId, Ledger>,
    /// The queue that a queue of the past is put into, where its like is there again.
    likes: BTreeMap<(ShardId, u64), u64>,
}

/// Makes the store; returns the exit status.
pub(crate) fn run(place: &Place, args: &UndeleteArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    place.journal("undelete")?;
    place.refuse_inside(&args.new.into)?;
    let mut store = match gather(place)? {
        Ok(store) => store,
        Err(damage) => {
            eprintln!("forebay-inspect: DAMAGED: {damage}\n`repair` it first");
            return Ok(1);
        }
    };
    let (mut held, mut likes) = (BTreeMap::new(), BTreeMap::new());
    for one in &mut store.shards {
        let past = one.past()?;
        let shard = one.shard;
        held.insert(shard, std::mem::replace(&mut one.ledger, past));
        for (queue, like) in likes_of(&one.ledger) {
            likes.insert((shard, queue), like);
        }
    }
    store.decide_transactions();
    let choose = Settled { args, held, likes };
    let mut new = NewStore::begin(&args.new.into, args.new.segment_size)?;
    emit(&store, &choose, &mut new)?;
    let totals = new.finish()?;
    writeln!(
        out,
        "{}: {} that had left their queues",
        args.new.into.display(),
        count(totals.messages, "message")
    )?;
    Ok(0)
}

/// Queues that are gone and whose like was made again: of all that are alike, the newest counts.
fn likes_of(past: &Ledger) -> Vec<(u64, u64)> {
    let mut newest = BTreeMap::new();
    let key = |defined: &Definition| {
        let routing = defined.routing as u8;
        (routing, defined.address.clone(), defined.name.clone())
    };
    for (queue, defined) in past.definitions() {
        newest.insert(key(defined), queue);
    }
    let all = past.definitions();
    all.map(|(queue, defined)| (queue, newest[&key(defined)]))
        .collect()
}

impl Settled<'_> {
    fn is_asked(&self, outcome: Option<Outcome>) -> bool {
        let asked = &self.args.outcomes;
        match outcome {
            Some(outcome) if asked.is_empty() => USUAL.contains(&outcome),
            Some(outcome) => asked.contains(&outcome),
            // Its queue was deleted, or the record that said so is gone.
            None => asked.is_empty(),
        }
    }

    fn is_queue_asked(&self, defined: &Definition) -> bool {
        self.args.queue.as_ref().is_none_or(|asked| {
            defined.name == asked.as_bytes() || defined.address == asked.as_bytes()
        })
    }
}

impl Choose for Settled<'_> {
    fn places(&self, gathered: &Gathered, listed: &Listed<'_>) -> Vec<line::Place> {
        let (message, queues) = (listed.message, listed.queues);
        let past = &gathered.ledger;
        let is_of_none = past.was_rolled_back(message)
            || past.is_doubted(message)
            || past.is_incomplete(message)
            || self.args.message.is_some_and(|asked| asked != message);
        if is_of_none {
            return Vec::new();
        }
        let held = &self.held[&gathered.shard];
        let settled = past.settled.as_ref();
        let mut likes = BTreeSet::new();
        for queue in listed.all(past) {
            let is_held = held
                .queues
                .get(&queue)
                .is_some_and(|one| one.holds(message));
            let outcome = settled.and_then(|settled| settled.outcome(queue, message));
            let Some(defined) = past.definition(queue) else {
                continue;
            };
            // One that takes messages of others need not have taken this one.
            let was_there = outcome.is_some() || queues.queues().any(|listed| listed.0 == queue);
            if was_there && !is_held && self.is_asked(outcome) && self.is_queue_asked(defined) {
                likes.insert(self.likes[&(gathered.shard, queue)]);
            }
        }
        let as_new = |queue| line::Place {
            queue,
            attempts: 0,
            ready_unix_ms: None,
            leaving: None,
        };
        likes.into_iter().map(as_new).collect()
    }

    fn takes_leftovers(&self) -> bool {
        true
    }

    fn expects(&self, _: &Gathered) -> u64 {
        0
    }

    fn is_defined(&self, gathered: &Gathered, queue: u64) -> bool {
        self.likes[&(gathered.shard, queue)] == queue
    }

    /// Whose time is over, or is still to come, is to be there all the same.
    fn adjust(&self, line: &mut MessageLine) {
        (line.expires_unix_ms, line.deliver_unix_ms) = (0, 0);
    }
}

/// The outcome of this name.
pub(crate) fn outcome(name: &str) -> Result<Outcome, String> {
    let all = [&USUAL[..], &[Outcome::DeadLettered, Outcome::Diverted]].concat();
    let named = |one: &Outcome| crate::describe::outcome_name(*one);
    let found = all.iter().find(|one| named(one) == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = all.iter().map(named).collect();
        format!("there is no outcome {name}; they are {}", names.join(", "))
    })
}
