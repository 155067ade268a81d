//! How a broker does, in words.

use std::fmt::Write as _;

use super::admin::shape::{HealthReport, ShardDamageReport, ShardReport};

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
    for shard in &report.shards {
        let label = format!("shard {}", shard.shard);
        let _ = writeln!(text, "{label:<10} {}", state(shard));
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
        text += ", the disk is full";
    }
    text
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
