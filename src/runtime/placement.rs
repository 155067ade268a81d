//! Where shard threads run, and why (`docs/decisions/2026-11-22-placement.md`).
//!
//! On a disk without FUA a kernel worker on the core that takes the disk's interrupt finishes each
//! durable write. A shard on that core, with a long scheduling slice, lets it run at once; a busy
//! stranger there ruins every latency. So the first shard goes there by default.

#![allow(
    clippy::disallowed_methods,
    reason = "reads /proc and /sys once, at start"
)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::reactor::{ArenaUse, scheduling};

/// The block device behind a folder, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name, such as `vda` or `nvme0n1`.
    pub name: String,
    /// Cores that took its interrupts, most first.
    pub interrupt_cores: Vec<usize>,
    /// Whether it has FUA: a durable write needs no flush of its own.
    pub has_fua: Option<bool>,
    /// What the kernel says of its write cache: `write back` must be flushed, `write through` not.
    pub write_cache: Option<String>,
}

/// Where and how one shard's thread runs, as found after asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The core it is bound to.
    pub core: Option<usize>,
    /// The long scheduling slice in force.
    pub slice: Option<Duration>,
    /// Whether its blocks are registered with the ring.
    pub arena_use: ArenaUse,
}

/// Finds the device a folder lies on; none for network and memory file systems.
pub fn device_of(folder: &Path) -> Option<Device> {
    let number = fs::metadata(folder).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let mut path = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    if path.join("partition").exists() {
        path.pop();
    }
    let name = path.file_name()?.to_str()?.to_owned();
    let setting = |name: &str| {
        let text = fs::read_to_string(path.join("queue").join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let interrupts = fs::read_to_string("/proc/interrupts").ok()?;
    let driver = driver_of(&path);
    let interrupt_cores = cores_of(&interrupts, &name, driver.as_deref());
    Some(Device {
        name,
        interrupt_cores,
        has_fua: setting("fua").map(|fua| fua == "1"),
        write_cache: setting("write_cache"),
    })
}

/// The name under which the device's driver instance counts interrupts, such as `virtio1`.
fn driver_of(path: &Path) -> Option<String> {
    let device: PathBuf = fs::canonicalize(path.join("device")).ok()?;
    device.file_name()?.to_str().map(str::to_owned)
}

/// Sums the rows of /proc/interrupts that belong to the device, per core.
fn cores_of(interrupts: &str, name: &str, driver: Option<&str>) -> Vec<usize> {
    let mut counts: Vec<u64> = Vec::new();
    let controller = name
        .find('n')
        .filter(|_| name.starts_with("nvme"))
        .map(|_| {
            // nvme0n1 -> nvme0
            name.rsplit_once('n')
                .map_or(name, |(controller, _)| controller)
        });
    for line in interrupts.lines().skip(1) {
        let label = line.split_whitespace().last().unwrap_or_default();
        let is_queue = |of: &str| {
            label.strip_prefix(of).is_some_and(|rest| {
                rest.starts_with("-req") || (rest.starts_with('q') && rest != "q0")
            })
        };
        if !driver.is_some_and(is_queue) && !controller.is_some_and(is_queue) {
            continue;
        }
        let row = line
            .split_whitespace()
            .skip(1)
            .map_while(|count| count.parse::<u64>().ok());
        for (core, count) in row.enumerate() {
            if counts.len() <= core {
                counts.resize(core + 1, 0);
            }
            counts[core] += count;
        }
    }
    let mut cores: Vec<usize> = (0..counts.len()).filter(|&core| counts[core] > 0).collect();
    cores.sort_by_key(|&core| std::cmp::Reverse(counts[core]));
    cores
}

/// Cores this process may use.
pub fn allowed_cores() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::count())
        .filter(|&core| set.is_set(core).unwrap_or(false))
        .collect()
}

/// A core for each shard: those of the disk's interrupt first, then the others. None where there
/// are fewer cores than shards: then the kernel places them better.
pub fn choose(shards: usize, device: Option<&Device>, allowed: &[usize]) -> Option<Vec<usize>> {
    let first = device.map_or(&[][..], |device| &device.interrupt_cores);
    let mut cores: Vec<usize> = first
        .iter()
        .copied()
        .filter(|c| allowed.contains(c))
        .collect();
    cores.extend(allowed.iter().copied().filter(|core| !first.contains(core)));
    cores.truncate(shards);
    (cores.len() == shards).then_some(cores)
}

/// Puts the calling thread on a core.
///
/// Errors: the system's: the core is not there or not allowed.
pub fn pin(core: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

/// Gives the calling thread a long scheduling slice; returns the one in force.
///
/// Errors: the system's; or the kernel took it and kept none of it, as before Linux 6.12.
pub fn lengthen_slice(slice: Duration) -> std::io::Result<Duration> {
    scheduling::set_slice(slice)?;
    let in_force = scheduling::slice()?;
    if in_force.is_zero() {
        let reason = "the kernel has no settable slice (Linux 6.12 has)";
        return Err(std::io::Error::other(reason));
    }
    Ok(in_force)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPTS: &str = "           CPU0       CPU1
 36:          7      30061 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 39:        379          0 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0
 50:          9          0 PCI-MSIX-0000:00:05.0   0-edge      nvme0q0
 51:          5          0 PCI-MSIX-0000:00:05.0   1-edge      nvme0q1
 52:          0          6 PCI-MSIX-0000:00:05.0   2-edge      nvme0q2
";

    #[test]
    fn interrupts_name_the_core() {
        assert_eq!(cores_of(INTERRUPTS, "vda", Some("virtio1")), [1, 0]);
        assert_eq!(cores_of(INTERRUPTS, "nvme0n1", Some("nvme0")), [1, 0]);
        assert!(cores_of(INTERRUPTS, "sda", Some("0:0:0:0")).is_empty());
    }

    #[test]
    fn the_disk_s_core_comes_first_and_too_few_cores_choose_none() {
        let device = Device {
            name: "vda".to_owned(),
            interrupt_cores: vec![1],
            has_fua: Some(false),
            write_cache: None,
        };
        assert_eq!(choose(1, Some(&device), &[0, 1, 2]), Some(vec![1]));
        assert_eq!(choose(3, Some(&device), &[0, 1, 2]), Some(vec![1, 0, 2]));
        assert_eq!(choose(1, Some(&device), &[0]), Some(vec![0]));
        assert_eq!(choose(2, None, &[3]), None);
    }
}
