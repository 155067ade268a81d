//! Names the disk behind a folder: device, cache, interrupt core, kernel tick, scheduler slice.
//!
//! Everything comes from /proc and /sys; what cannot be read says "unknown". The parsers are pure.
//! Why these facts: without FUA a kernel worker on the core of the disk's interrupt finishes each
//! durable write, and how long it waits there is a matter of tick and slice.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const UNKNOWN: &str = "unknown";

/// A disk and the kernel's way with it.
#[derive(Debug)]
pub(crate) struct Disk {
    mount: Mount,
    device: String,
    queue: Vec<(&'static str, String)>,
    interrupts: Vec<InterruptRow>,
    tick_hz: String,
    preemption: String,
    slice_us: String,
}

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mount {
    numbers: String,
    point: String,
    kind: String,
    source: String,
}

/// One line of /proc/interrupts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InterruptRow {
    name: String,
    irq: String,
    counts: Vec<u64>,
}

impl Disk {
    /// Looks up the disk behind `dir`.
    ///
    /// Errors: the folder cannot be resolved.
    pub(crate) fn behind(dir: &Path) -> std::io::Result<Self> {
        let dir = fs::canonicalize(dir)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mount_of(&mounts, &dir.to_string_lossy()).unwrap_or_default();
        let block = block_folder(&mount);
        let name = |path: &Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        let device = block
            .as_deref()
            .and_then(name)
            .unwrap_or_else(|| UNKNOWN.to_owned());
        let attributes = [
            "fua",
            "write_cache",
            "rotational",
            "logical_block_size",
            "physical_block_size",
            "scheduler",
        ];
        let read = |attribute| {
            block
                .as_deref()
                .and_then(|block| line(&block.join(attribute)))
        };
        let queue = attributes.map(|attribute| {
            (
                attribute,
                read(format!("queue/{attribute}")).unwrap_or_else(|| UNKNOWN.to_owned()),
            )
        });
        Ok(Self {
            mount,
            device,
            queue: queue.to_vec(),
            interrupts: block.as_deref().map(interrupt_rows).unwrap_or_default(),
            tick_hz: tick_hz().unwrap_or_else(|| UNKNOWN.to_owned()),
            preemption: preemption(),
            slice_us: slice_us().unwrap_or_else(|| UNKNOWN.to_owned()),
        })
    }

    /// Gives the interrupts of the disk per core since `self` was read: (row, core, share).
    pub(crate) fn interrupts_since(&self, dir: &Path) -> Vec<(String, String, Vec<u64>)> {
        let now = Self::behind(dir)
            .map(|disk| disk.interrupts)
            .unwrap_or_default();
        let rows = now.iter().filter_map(|row| {
            let before = self
                .interrupts
                .iter()
                .find(|before| before.irq == row.irq)?;
            let counts = row.counts.iter().zip(&before.counts);
            let counts: Vec<u64> = counts
                .map(|(now, then)| now.saturating_sub(*then))
                .collect();
            (counts.iter().sum::<u64>() > 0).then(|| {
                let affinity = line(Path::new(&format!(
                    "/proc/irq/{}/smp_affinity_list",
                    row.irq
                )));
                (
                    row.name.clone(),
                    affinity.unwrap_or_else(|| UNKNOWN.to_owned()),
                    counts,
                )
            })
        });
        rows.collect()
    }

    /// Lines for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mount = &self.mount;
        let (kind, source, point) = (&mount.kind, &mount.source, &mount.point);
        let _ = writeln!(
            text,
            "device         {} ({kind} on {source}, mounted at {point})",
            self.device
        );
        if self.device == UNKNOWN {
            let _ = writeln!(
                text,
                "WARNING        no block device here: this measures no disk"
            );
        }
        let queue: Vec<String> = self
            .queue
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let _ = writeln!(text, "queue          {}", queue.join(", "));
        let (tick, slice) = (&self.tick_hz, &self.slice_us);
        let _ = writeln!(
            text,
            "kernel         tick {tick} Hz, preemption {}, scheduling slice {slice} us",
            self.preemption
        );
        text
    }

    /// The same as an object.
    pub(crate) fn json(&self) -> Value {
        let queue: serde_json::Map<String, Value> = self
            .queue
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.clone())))
            .collect();
        json!({
            "device": self.device,
            "file_system": self.mount.kind,
            "source": self.mount.source,
            "mount_point": self.mount.point,
            "queue": queue,
            "tick_hz": self.tick_hz,
            "preemption": self.preemption,
            "slice_us": self.slice_us,
        })
    }
}

/// The mount with the longest point above `dir`; the last one wins where two cover each other.
fn mount_of(mountinfo: &str, dir: &str) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let numbers = left.next()?.to_owned();
        let point = left.nth(1)?.replace("\\040", " ");
        let mut right = right.split(' ');
        let (kind, source) = (right.next()?.to_owned(), right.next()?.to_owned());
        Path::new(dir).starts_with(&point).then_some(Mount {
            numbers,
            point,
            kind,
            source,
        })
    });
    mounts.max_by_key(|mount| mount.point.len())
}

/// The folder in /sys of the whole disk, partitions resolved.
fn block_folder(mount: &Mount) -> Option<PathBuf> {
    let mut numbers = mount.numbers.clone();
    if numbers.starts_with("0:") {
        // btrfs and overlays have numbers of their own; their source may still be a device.
        let device = fs::metadata(&mount.source).ok()?.rdev();
        numbers = format!(
            "{}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device)
        );
    }
    let folder = fs::canonicalize(format!("/sys/dev/block/{numbers}")).ok()?;
    if folder.join("partition").exists() {
        return folder.parent().map(Path::to_path_buf);
    }
    Some(folder)
}

/// The interrupt rows of a disk, or of those below a mapped one.
fn interrupt_rows(block: &Path) -> Vec<InterruptRow> {
    let table = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let mut folders = vec![block.to_path_buf()];
    if let Ok(slaves) = fs::read_dir(block.join("slaves")) {
        folders.extend(slaves.filter_map(|slave| fs::canonicalize(slave.ok()?.path()).ok()));
    }
    let names = folders.iter().filter_map(|folder| {
        let parent = fs::canonicalize(folder.join("device")).ok()?;
        Some(parent.file_name()?.to_string_lossy().into_owned())
    });
    names.flat_map(|name| rows_of(&table, &name)).collect()
}

/// The rows of driver device `name`: `virtio1-req.0`, `nvme0q3`.
fn rows_of(interrupts: &str, name: &str) -> Vec<InterruptRow> {
    let cores = interrupts
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .count();
    let prefixes = [format!("{name}-req"), format!("{name}q")];
    let rows = interrupts.lines().skip(1).filter_map(|line| {
        let label = line.split_whitespace().last()?;
        if !prefixes
            .iter()
            .any(|prefix| label.starts_with(prefix.as_str()))
        {
            return None;
        }
        let (irq, rest) = line.split_once(':')?;
        let counts = rest
            .split_whitespace()
            .take(cores)
            .filter_map(|word| word.parse().ok());
        Some(InterruptRow {
            name: label.to_owned(),
            irq: irq.trim().to_owned(),
            counts: counts.collect(),
        })
    });
    rows.collect()
}

fn line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// CONFIG_HZ of the running kernel.
fn tick_hz() -> Option<String> {
    let config = unpacked_config().or_else(|| {
        let release = line(Path::new("/proc/sys/kernel/osrelease"))?;
        fs::read_to_string(format!("/boot/config-{release}")).ok()
    })?;
    let hz = config
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_HZ="))?;
    Some(hz.to_owned())
}

fn unpacked_config() -> Option<String> {
    if !Path::new("/proc/config.gz").exists() {
        return None;
    }
    let mut child = std::process::Command::new("gzip")
        .args(["-dc", "/proc/config.gz"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    child.wait().ok()?.success().then_some(text)
}

fn preemption() -> String {
    let dynamic = line(Path::new("/sys/kernel/debug/sched/preempt"));
    let version = || line(Path::new("/proc/sys/kernel/version"));
    dynamic
        .or_else(|| version().map(|text| preemption_in(&text).to_owned()))
        .unwrap_or_default()
}

/// The word in the kernel's version line; a kernel that does not preempt has none.
fn preemption_in(version: &str) -> &str {
    version
        .split_whitespace()
        .find(|word| word.starts_with("PREEMPT"))
        .unwrap_or("none")
}

/// The slice of this thread (its own, or the kernel's default).
fn slice_us() -> Option<String> {
    let own = fs::read_to_string("/proc/thread-self/sched")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("se.slice"))?;
            line.rsplit(':').next()?.trim().parse::<u64>().ok()
        });
    let base = || {
        line(Path::new("/sys/kernel/debug/sched/base_slice_ns"))?
            .parse()
            .ok()
    };
    own.or_else(base)
        .map(|slice_ns: u64| (slice_ns / 1000).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
30 22 0:25 / /data rw - tmpfs tmpfs rw\n\
31 30 8:17 / /data/my\\040disk rw,noatime - xfs /dev/sdb1 rw\n";

    #[test]
    fn the_deepest_mount_above_the_folder_is_taken() {
        let of = |dir| mount_of(MOUNTS, dir).expect("the root covers all");
        assert_eq!(of("/var/lib").numbers, "254:0");
        assert_eq!(of("/data/x").kind, "tmpfs");
        assert_eq!(of("/data/my disk/journal").source, "/dev/sdb1");
        assert_eq!(of("/database").numbers, "254:0");
    }

    #[test]
    fn the_rows_of_a_disk_are_told_from_those_of_its_neighbours() {
        let table = "           CPU0       CPU1\n \
 35:          0          1 PCI-MSIX-0000:00:02.0   0-edge      virtio1-config\n \
 36:         12      63533 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0\n \
 37:          9          9 PCI-MSIX-0000:00:12.0   1-edge      virtio11-req.0\n \
 40:          5          0 PCI-MSI 1 nvme0q0\n";
        let rows = rows_of(table, "virtio1");
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].irq.as_str(), &rows[0].counts),
            ("36", &vec![12, 63533])
        );
        assert_eq!(rows_of(table, "nvme0")[0].counts, vec![5, 0]);
    }

    #[test]
    fn preemption_is_one_word() {
        assert_eq!(
            preemption_in("#1 SMP PREEMPT_DYNAMIC Mon"),
            "PREEMPT_DYNAMIC"
        );
        assert_eq!(preemption_in("#1 SMP Mon"), "none");
    }
}
