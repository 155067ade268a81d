//! What the disk itself can do: durable O_DIRECT writes over zero-filled space.
//!
//! The file is made, zero-filled and synced before the first measured write, because writes into
//! space that was only allocated cost a metadata commit each. [`DiskLoop`] is the boundary behind
//! which the writes are made: the broker's own ring, or the journal on top of it.

use crate::connection::BenchError;
use crate::disk::Disk;
use crate::report::{figures_us, latency_json};
use crate::ring_loop::{JournalLoop, RingLoop};
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE_SIZE: u64 = 256 << 20;
const FILL_SIZE: usize = 1 << 20;
const ALIGNMENT: usize = 4096;

/// What is measured: the broker's smallest block, a middle one and its largest.
const WORKLOADS: [Workload; 3] = [
    Workload {
        block_size: 4 << 10,
        depth: 1,
    },
    Workload {
        block_size: 64 << 10,
        depth: 2,
    },
    Workload {
        block_size: 256 << 10,
        depth: 2,
    },
];

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Bytes per write, a multiple of 4 KiB.
    pub(crate) block_size: usize,
    /// Writes in flight.
    pub(crate) depth: usize,
}

/// Something that can keep durable writes in flight on a file.
pub(crate) trait DiskLoop {
    /// Names the engine in the output.
    fn engine(&self) -> &'static str;

    /// Writes for `length`, round and round over the first `file_size` bytes of `file`.
    ///
    /// Shape: `file` was opened with O_DIRECT and is zero-filled. Each write is durable when its
    /// latency (nanoseconds, submit to completion) is recorded.
    fn run(
        &mut self,
        file: &File,
        file_size: u64,
        workload: Workload,
        length: Duration,
    ) -> io::Result<DiskRun>;
}

/// What one loop measured.
#[derive(Debug)]
pub(crate) struct DiskRun {
    /// Nanoseconds per write.
    pub(crate) latency: Histogram<u64>,
    /// From the first submit to the last completion.
    pub(crate) elapsed: Duration,
}

/// Bytes at an address that O_DIRECT accepts, cut from a larger vector.
#[derive(Debug)]
struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    fn new(len: usize, fill: u8) -> Self {
        let bytes = vec![fill; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        assert!(
            start + len <= bytes.len(),
            "offset {start} leaves no {len} bytes"
        );
        Self { bytes, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

/// The measured file; removed when dropped.
#[derive(Debug)]
struct ScratchFile {
    file: File,
    path: PathBuf,
}

impl ScratchFile {
    /// Makes and zero-fills the file, and syncs it and its folder.
    fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".forebay-bench-device-{}", std::process::id()));
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(flags)
            .open(&path)?;
        let scratch = Self { file, path };
        let zeros = AlignedBuffer::new(FILL_SIZE, 0);
        for offset in (0..FILE_SIZE).step_by(FILL_SIZE) {
            scratch.file.write_all_at(zeros.bytes(), offset)?;
        }
        scratch.file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(scratch)
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // Nothing to be done about a file that somebody else removed.
        let _ = fs::remove_file(&self.path);
    }
}

/// All that was measured on one disk.
#[derive(Debug)]
pub(crate) struct DeviceReport {
    disk: Disk,
    engine: &'static str,
    /// Each workload on the raw ring, and by the journal where that was asked for.
    runs: Vec<(Workload, DiskRun, Option<DiskRun>)>,
    interrupts: Vec<(String, String, Vec<u64>)>,
}

/// Rounds in which raw ring and journal take turns, so that both see the same disk.
const ROUNDS: u32 = 5;

/// Measures every workload for `length` on the disk behind `dir`; with `has_journal` also the
/// journal on top, in turns with the raw ring.
///
/// Errors: `Unable` with the remedy if the disk or its file system cannot do it.
pub(crate) fn measure(
    dir: &Path,
    length: Duration,
    has_journal: bool,
) -> Result<DeviceReport, BenchError> {
    let unable = |error: &io::Error| unable(dir, error);
    let disk = Disk::behind(dir).map_err(|error| unable(&error))?;
    let scratch = ScratchFile::create(dir).map_err(|error| unable(&error))?;
    let mut runs = Vec::new();
    for workload in WORKLOADS {
        let (raw, journal) =
            take_turns(&scratch, workload, length, has_journal).map_err(|error| unable(&error))?;
        runs.push((workload, raw, journal));
    }
    let interrupts = disk.interrupts_since(dir);
    Ok(DeviceReport {
        disk,
        engine: RingLoop.engine(),
        runs,
        interrupts,
    })
}

fn take_turns(
    scratch: &ScratchFile,
    workload: Workload,
    length: Duration,
    has_journal: bool,
) -> io::Result<(DiskRun, Option<DiskRun>)> {
    let round = length / ROUNDS;
    let (mut raw, mut journal): (Option<DiskRun>, Option<DiskRun>) = (None, None);
    for _ in 0..ROUNDS {
        add(
            &mut raw,
            RingLoop.run(&scratch.file, FILE_SIZE, workload, round)?,
        )?;
        if has_journal {
            add(
                &mut journal,
                JournalLoop.run(&scratch.file, FILE_SIZE, workload, round)?,
            )?;
        }
    }
    let raw = raw.ok_or_else(|| io::Error::other("no round was run"))?;
    Ok((raw, journal))
}

fn add(sum: &mut Option<DiskRun>, run: DiskRun) -> io::Result<()> {
    match sum {
        None => *sum = Some(run),
        Some(sum) => {
            sum.latency.add(&run.latency).map_err(io::Error::other)?;
            sum.elapsed += run.elapsed;
        }
    }
    Ok(())
}

/// Measures only the 4 KiB QD1 durable write and gives its p50 in microseconds.
///
/// Errors: as `measure`.
pub(crate) fn p50_us(dir: &Path, length: Duration) -> Result<f64, BenchError> {
    let scratch = ScratchFile::create(dir).map_err(|error| unable(dir, &error))?;
    let run = RingLoop.run(&scratch.file, FILE_SIZE, WORKLOADS[0], length);
    let run = run.map_err(|error| unable(dir, &error))?;
    Ok(run.latency.value_at_quantile(0.5) as f64 / 1e3)
}

#[cold]
fn unable(dir: &Path, error: &io::Error) -> BenchError {
    let remedy = match error.kind() {
        io::ErrorKind::InvalidInput => ": O_DIRECT is refused here; use a folder on a local disk",
        io::ErrorKind::StorageFull => ": 256 MiB are needed",
        io::ErrorKind::PermissionDenied => ": a folder that may be written is needed",
        _ => "",
    };
    BenchError::Unable(format!("{}: {error}{remedy}", dir.display()))
}

impl DeviceReport {
    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = self.disk.table();
        for (name, affinity, counts) in &self.interrupts {
            let busiest = (0..counts.len())
                .max_by_key(|core| counts[*core])
                .unwrap_or(0);
            let _ = writeln!(
                text,
                "interrupt      {name} on core {busiest} (allowed {affinity}, now {counts:?})"
            );
        }
        if self.interrupts.is_empty() {
            let _ = writeln!(text, "interrupt      unknown");
        }
        let _ = writeln!(text, "engine         {}", self.engine);
        let _ = writeln!(
            text,
            "{:14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "durable write", "writes/s", "MB/s", "p50 us", "p99", "p99.9", "max"
        );
        for (workload, raw, journal) in &self.runs {
            let size = workload.block_size >> 10;
            push_row(
                &mut text,
                &format!("{size} KiB QD{}", workload.depth),
                workload,
                raw,
            );
            if let Some(journal) = journal {
                push_row(&mut text, "  by journal", workload, journal);
                let [p50, rate] = ratios(workload, raw, journal);
                let _ = writeln!(text, "  ratio        rate {rate:.2}x, p50 {p50:.2}x");
            }
        }
        text
    }

    /// The same as one object.
    pub(crate) fn json(&self) -> Value {
        let runs = self.runs.iter().map(|(workload, run, journal)| {
            let (per_s, mb_s) = rates(workload, run);
            json!({
                "journal": journal.as_ref().map(|journal| {
                    let [p50, rate] = ratios(workload, run, journal);
                    json!({
                        "mb_per_s": rates(workload, journal).1,
                        "latency_us": latency_json(&journal.latency),
                        "rate_ratio": rate,
                        "p50_ratio": p50,
                    })
                }),
                "block_size": workload.block_size,
                "depth": workload.depth,
                "writes_per_s": per_s,
                "mb_per_s": mb_s,
                "latency_us": latency_json(&run.latency),
            })
        });
        let interrupts = self.interrupts.iter().map(|(name, affinity, counts)| {
            json!({ "name": name, "allowed": affinity, "per_core": counts })
        });
        json!({
            "disk": self.disk.json(),
            "engine": self.engine,
            "interrupts": interrupts.collect::<Vec<_>>(),
            "runs": runs.collect::<Vec<_>>(),
        })
    }
}

fn push_row(text: &mut String, name: &str, workload: &Workload, run: &DiskRun) {
    let [p50, _, p99, p999, max] = figures_us(&run.latency);
    let (per_s, mb_s) = rates(workload, run);
    let _ = writeln!(
        text,
        "{name:14} {per_s:>9.0} {mb_s:>9.1} {p50:>9.1} {p99:>9.1} {p999:>9.1} {max:>9.1}"
    );
}

/// The journal against the raw ring: p50 and rate of blocks.
fn ratios(workload: &Workload, raw: &DiskRun, journal: &DiskRun) -> [f64; 2] {
    let p50 = |run: &DiskRun| run.latency.value_at_quantile(0.5) as f64;
    [
        p50(journal) / p50(raw).max(1.0),
        rates(workload, journal).0 / rates(workload, raw).0,
    ]
}

/// Writes and megabytes (10^6 bytes) per second.
fn rates(workload: &Workload, run: &DiskRun) -> (f64, f64) {
    let per_s = run.latency.len() as f64 / run.elapsed.as_secs_f64();
    (per_s, per_s * workload.block_size as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_whole() {
        for len in [4096, 65_536, 12_288] {
            let buffer = AlignedBuffer::new(len, 7);
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.bytes(), vec![7; len]);
        }
    }

    /// The loop's writes reach the file, at both depths; the file is on the build disk.
    #[test]
    fn the_loop_writes_every_block_it_counts() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let path = dir.path().join("blocks");
        let plain = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("made");
        plain.write_all_at(&vec![0; 1 << 20], 0).expect("filled");
        for depth in [1, 2] {
            let workload = Workload {
                block_size: 65_536,
                depth,
            };
            let flags = i32::try_from(OFlags::DIRECT.bits()).expect("a flag");
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&path);
            let file = file.expect("the build disk takes O_DIRECT");
            let length = Duration::from_millis(200);
            let run = RingLoop
                .run(&file, 1 << 20, workload, length)
                .expect("written");
            assert!(run.latency.len() >= 2 && run.elapsed >= length, "{run:?}");
            let bytes = fs::read(&path).expect("read back");
            let written = bytes.iter().filter(|byte| **byte == 0xa5).count() as u64;
            assert_eq!(written, run.latency.len().min(16) * 65_536);
            plain
                .write_all_at(&vec![0; 1 << 20], 0)
                .expect("filled again");
            plain.sync_all().expect("synced");
        }
    }
}
