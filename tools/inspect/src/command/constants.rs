//! `constants`: every number and layout of the format, for people and for a test that notices
//! when one changes.

use std::io::Write;

use forebay_journal::format::layout::LAYOUT;
use forebay_journal::format::{
    BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, Departure, FORMAT_VERSION, INFLIGHT_BLOCKS_MAX, Outcome,
    PRIORITY_DEFAULT, PRIORITY_MAX, RECORD_HEAD_SIZE, RECORD_SIZE_MAX, Routing, SECTOR_SIZE,
    SEGMENT_HEAD_SIZE, SUPERBLOCK_FILE_SIZE, TransactionState,
};
use forebay_journal::recovery::POSITION_MAX;
use forebay_journal::recovery::file_name::{
    SUPERBLOCK_FILE_NAME, epoch_folder_name, segment_file_name,
};
use forebay_journal::{
    Epoch, IDLE_SEAL_US, RECORDS_SIZE_MAX, SEALED_BLOCKS_MAX, SegmentId, ShardId,
};
use serde_json::{Map, Value, json};

use crate::describe::{departure_name, kind_name, outcome_name, routing_name, state_name};
use crate::filter::KINDS;
use crate::line::EXPORT_VERSION;

/// One named number.
type Constant = (&'static str, u64);

const SIZES: [Constant; 15] = [
    ("format version", FORMAT_VERSION as u64),
    ("export version", EXPORT_VERSION),
    ("sector size", SECTOR_SIZE as u64),
    ("superblock file size", SUPERBLOCK_FILE_SIZE as u64),
    ("segment head size", SEGMENT_HEAD_SIZE as u64),
    ("block header size", BLOCK_HEADER_SIZE as u64),
    ("block size max", BLOCK_SIZE_MAX as u64),
    ("record head size", RECORD_HEAD_SIZE as u64),
    ("record size max", RECORD_SIZE_MAX as u64),
    ("records size max", RECORDS_SIZE_MAX as u64),
    ("in-flight blocks max", INFLIGHT_BLOCKS_MAX),
    ("sealed blocks max", SEALED_BLOCKS_MAX as u64),
    ("idle seal after us", IDLE_SEAL_US),
    ("position max", POSITION_MAX),
    ("priority default", PRIORITY_DEFAULT as u64),
];

/// Names of numbers in a field.
fn choices() -> Vec<(&'static str, Vec<Constant>)> {
    use Outcome::{Accepted, DeadLettered, Diverted, Dropped, Expired, Rejected, Replaced};
    use TransactionState::{Committed, Decided, Ended, Prepared, RolledBack};
    let kinds = KINDS.map(|kind| (kind_name(kind), kind as u64)).to_vec();
    let routings = [Routing::Anycast, Routing::Multicast];
    let outcomes = [
        Accepted,
        Rejected,
        Expired,
        DeadLettered,
        Dropped,
        Replaced,
        Diverted,
    ];
    let states = [Prepared, Committed, RolledBack, Decided, Ended];
    let departures = [
        Departure::AttemptsExceeded,
        Departure::Rejected,
        Departure::Expired,
        Departure::Diverted,
    ];
    let number = |one: Routing| (routing_name(one), one as u64);
    let outcome = |one: Outcome| (outcome_name(one), one as u64);
    let state = |one: TransactionState| (state_name(one), one as u64);
    let departure = |one: Departure| (departure_name(one), one as u64);
    vec![
        ("kind", kinds),
        ("routing", routings.map(number).to_vec()),
        ("outcome", outcomes.map(outcome).to_vec()),
        ("state", states.map(state).to_vec()),
        ("reason", departures.map(departure).to_vec()),
        (
            "priority",
            vec![("least", 0), ("greatest", PRIORITY_MAX as u64)],
        ),
    ]
}

fn names() -> [(&'static str, String); 3] {
    let epoch = epoch_folder_name(Epoch::ZERO.next());
    let segment = segment_file_name(ShardId(0), SegmentId::ZERO.next());
    [
        ("superblock", format!("journal/{SUPERBLOCK_FILE_NAME}")),
        ("epoch's folder", format!("journal/{epoch}")),
        ("segment", format!("journal/{epoch}/{segment}")),
    ]
}

/// Prints them all.
pub(crate) fn run(is_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if is_json {
        writeln!(out, "{:#}", json_of())?;
        return Ok(());
    }
    for (name, value) in SIZES {
        writeln!(out, "{name:<24} {value}")?;
    }
    for (name, value) in names() {
        writeln!(out, "{name:<24} {value}")?;
    }
    for (field, values) in choices() {
        writeln!(out, "\n{field}")?;
        for (name, value) in values {
            writeln!(out, "  {value:>3}  {name}")?;
        }
    }
    for layout in LAYOUT {
        writeln!(out, "\n{}, {} B", layout.name, layout.size)?;
        for (name, offset, size) in layout.fields {
            writeln!(out, "  {offset:>5} {size:>5}  {name}")?;
        }
    }
    Ok(())
}

fn json_of() -> Value {
    let map = |values: &[Constant]| -> Value {
        let entries = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()));
        Value::Object(entries.collect::<Map<_, _>>())
    };
    let structures = LAYOUT.iter().map(|layout| {
        let fields = layout.fields.iter();
        let fields = fields
            .map(|(name, offset, size)| json!({"name": name, "offset": offset, "size": size}));
        json!({ "name": layout.name, "size": layout.size, "fields": fields.collect::<Vec<_>>() })
    });
    let choices = choices().into_iter();
    let choices = choices.map(|(field, values)| (field.to_owned(), map(&values)));
    let names = names()
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.into()));
    json!({
        "numbers": map(&SIZES),
        "names": names.collect::<Map<_, _>>(),
        "choices": choices.collect::<Map<_, _>>(),
        "structures": structures.collect::<Vec<_>>(),
    })
}
