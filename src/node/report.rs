//! What a node says while it starts: plain words on standard error, one `ready` line on standard
//! output.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use forebay_journal::ShardId;

use super::config::Config;
use super::damaged::DamagedShard;
use crate::housekeeping::Scanned;
use crate::housekeeping::folder::Folder;
use crate::housekeeping::quarantine::QuarantineUse;
use crate::runtime::placement::{Device, Placed};
use crate::runtime::reactor::ArenaUse;
use crate::shard::undecided;

/// What recovery found.
pub(super) fn recovered(
    folder: &Folder,
    scans: &[Option<Scanned>],
    quarantine: QuarantineUse,
    elapsed: Duration,
) {
    let sound = || scans.iter().flatten();
    let total = |count: fn(&Scanned) -> u64| sound().map(count).sum::<u64>();
    let clean = sound().all(|scanned| scanned.recovered.is_clean_shutdown);
    let is_new = total(|scanned| scanned.recovered.totals.blocks) == 0;
    let state = match (is_new, clean) {
        (true, _) => "new journal",
        (false, true) => "stopped in order",
        (false, false) => "not stopped in order",
    };
    eprintln!(
        "data folder {}: {state}; {} segments, {} blocks, {} records read in {:.3} s; \
         {} queues, {} messages",
        folder.root().display(),
        total(|scanned| scanned.recovered.totals.segments),
        total(|scanned| scanned.recovered.totals.blocks),
        total(|scanned| scanned.recovered.totals.records),
        elapsed.as_secs_f64(),
        total(|scanned| scanned.replayed.queues),
        total(|scanned| scanned.replayed.messages),
    );
    for (shard, scanned) in scans.iter().enumerate() {
        let Some(scanned) = scanned else { continue };
        if !is_new {
            eprintln!("shard {shard}: {}", effort(scanned));
        }
        let Some(cut) = &scanned.recovered.cut else {
            continue;
        };
        let bytes: u64 = cut.ranges.iter().map(|range| range.bytes).sum();
        eprintln!(
            "shard {shard}: cut {bytes} bytes from record {} on ({}); nothing of it was \
             acknowledged; copied to {}",
            cut.lsn_from,
            cut.row.reason,
            scanned
                .quarantined
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    if quarantine.files > 0 {
        eprintln!(
            "quarantine {}: {} files, {} bytes that this start or one before cut",
            folder.quarantine().display(),
            quarantine.files,
            quarantine.bytes,
        );
    }
}

/// What the recovery of one shard took.
fn effort(scanned: &Scanned) -> String {
    let totals = &scanned.recovered.totals;
    format!(
        "recovered in {} ms: {} bytes read, of which {} were replayed from segment {} on; {} \
         messages",
        scanned.elapsed.as_millis(),
        scanned.read_bytes,
        totals.bytes,
        scanned.recovered.oldest_segment,
        scanned.replayed.messages,
    )
}

/// Which shards do not serve, and what waits for them.
pub(super) fn damaged(scans: &[Option<Scanned>], damaged: &[DamagedShard]) {
    for one in damaged {
        eprintln!("{one}");
    }
    let machines = scans.iter().map(|scanned| Some(&scanned.as_ref()?.machine));
    let undecided = undecided(machines);
    if undecided > 0 {
        eprintln!(
            "{undecided} transactions on the other shards stay undecided, and what they \
             acknowledged stays locked, until a shard that does not serve is back: it decides them"
        );
    }
}

/// Where the shards run and how they write.
pub(super) fn placed(shards: &[(ShardId, Placed)], config: &Config, device: Option<&Device>) {
    let disk = device.map_or_else(
        || "disk unknown".to_owned(),
        |device| {
            let fua = match device.has_fua {
                Some(true) => "FUA",
                Some(false) => "no FUA",
                None => "FUA unknown",
            };
            let cache = device.write_cache.as_deref().unwrap_or("unknown");
            format!(
                "disk {} ({fua}, write cache: {cache}, interrupts on core {:?})",
                device.name, device.interrupt_cores
            )
        },
    );
    let places = shards.iter().map(|(shard, placed)| {
        let core = match placed.core {
            Some(core) => format!("on core {core}"),
            None => "not pinned".to_owned(),
        };
        let slice = match (placed.slice, config.runtime.scheduling_slice_ms) {
            (_, 0) => "scheduling slice left as it is".to_owned(),
            (Some(slice), _) => format!("scheduling slice {:?}", slice),
            (None, _) => "no long scheduling slice".to_owned(),
        };
        format!("shard {shard} {core}, {slice}")
    });
    eprintln!("{disk}; {}", places.collect::<Vec<_>>().join("; "));
    if shards
        .iter()
        .any(|(_, placed)| placed.arena_use == ArenaUse::Unregistered)
    {
        eprintln!(
            "locked memory is too small to register the block cache: writes go unregistered, a \
             little slower. Remedy: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the unit"
        );
    }
}

/// Where metrics are scraped over the network, if anywhere.
pub(super) fn metrics(address: Option<SocketAddr>) {
    if let Some(address) = address {
        eprintln!("metrics: http://{address}/metrics");
    }
}

/// A signal came first: there is no `ready` line, and the end is in order.
pub(super) fn stopped_before_ready() {
    eprintln!("told to stop before clients could connect: stopped in order");
}

/// Clients can connect.
pub(super) fn ready(address: SocketAddr, folder: &Path) {
    println!("ready: stomp {address}");
    eprintln!(
        "STOMP clients connect to {address}; the data lies in {}. To try it, in bash:\n  \
         exec 3<>/dev/tcp/{}/{}; printf 'CONNECT\\naccept-version:1.2\\nhost:/\\n\\n\\0SEND\\n\
         destination:/queue/hello\\npersistent:true\\nreceipt:1\\n\\nHello\\0' >&3; \
         timeout 1 cat <&3",
        folder.display(),
        address.ip(),
        address.port()
    );
}
