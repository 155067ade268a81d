//! How a broker does, in words.

use std::fmt::Write as _;

use super::admin::shape::{HealthReport, ShardDamageReport, ShardReport, SpaceReport};

pub(super) fn describe(report: &HealthReport) -> String {
    let mut text = String::new();
    let serving = if report.serving {
        "all shards"
    } else {
        "not all shards"
    };
    let lines = [
        ("node", report.node.clone()),
        ("version", report.version.clone()),
        ("epoch", report.epoch.to_string()),
        ("serving", serving.to_owned()),
        (
            "quarantine",
            format!(
                "{} files, {} bytes",
                report.quarantined_files, report.quarantined_bytes
            ),
        ),
    ];
    for (label, value) in lines {
        let _ = writeln!(text, "{label:<10} {value}");
    }
    if let (Some(size), Some(free)) = (report.disk_size_bytes, report.disk_free_bytes) {
        let (size, free) = (format_about(size), format_about(free));
        let _ = writeln!(text, "{:<10} {size}, {free} free", "disk");
    }
    for shard in &report.shards {
        let label = format!("shard {}", shard.shard);
        let _ = writeln!(text, "{label:<10} {}", state(shard));
        if let Some(space) = &shard.space {
            let _ = writeln!(text, "  {:<8} {}", "space", space_of(space));
        }
        if let Some(damage) = &shard.damage {
            describe_damage(damage, &mut text);
        }
    }
    text
}

fn state(shard: &ShardReport) -> String {
    if let Some(damage) = &shard.damage {
        return format!("does not serve: {}", damage.reason);
    }
    if !shard.answers {
        return "does not answer".to_owned();
    }
    let mut text = if shard.stopping { "stops" } else { "serves" }.to_owned();
    let _ = write!(
        text,
        ", {} connections, {} queues",
        shard.connections, shard.queues
    );
    if shard.disk_full {
        text += match (shard.refusing_messages, shard.waiting_for_segment) {
            (true, _) => ", the disk is full: messages are refused",
            (false, true) => ", the disk is full: messages wait",
            (false, false) => ", the disk is full: there is room for some messages",
        };
    }
    text
}

fn space_of(space: &SpaceReport) -> String {
    let size = format_about;
    let mut text = format!(
        "{} of {} in {} segments are needed, {} are dead",
        size(space.live_bytes),
        size(space.disk_bytes),
        space.segments,
        size(space.dead_bytes),
    );
    if let Some(amplification) = space.write_amplification {
        let _ = write!(
            text,
            "; since the start {} came in, {} were written anew, {} were written in all ({amplification:.2} \
             times)",
            size(space.ingested_bytes),
            size(space.rewritten_bytes),
            size(space.written_bytes),
        );
    }
    text
}

/// A size for people: three digits at most before the unit.
fn format_about(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

fn describe_damage(damage: &ShardDamageReport, text: &mut String) {
    let unknown = || "unknown".to_owned();
    let number = |value: Option<u64>| value.map_or_else(unknown, |one| one.to_string());
    let lines = [
        ("file", damage.file.clone().unwrap_or_else(unknown)),
        ("segment", number(damage.segment)),
        ("byte", number(damage.offset)),
        (
            "records",
            format!("{} to {}", number(damage.lsn_from), number(damage.lsn_upto)),
        ),
        (
            "remedy",
            "stop the broker, then `forebay-inspect verify` and `repair`, or put back a copy of \
             the shard's files"
                .to_owned(),
        ),
    ];
    for (label, value) in lines {
        let _ = writeln!(text, "  {label:<8} {value}");
    }
}
