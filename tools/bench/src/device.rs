//! What the disk itself can do: durable O_DIRECT writes over zero-filled space.
//!
//! The file is made, zero-filled and synced before the first measured write, because writes into
//! space that was only allocated cost a metadata commit each. [`DiskLoop`] is the boundary behind
//! which the writes are made: now plain `pwritev2` calls, later the broker's own ring.

use crate::connection::BenchError;
use crate::disk::Disk;
use crate::measure::latency_histogram;
use crate::report::{figures_us, latency_json};
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

/// One system call per write; a thread for each further write in flight.
#[derive(Debug)]
pub(crate) struct PwriteLoop;

impl DiskLoop for PwriteLoop {
    fn engine(&self) -> &'static str {
        "pwritev2 RWF_DSYNC, a thread per write in flight"
    }

    fn run(
        &mut self,
        file: &File,
        file_size: u64,
        workload: Workload,
        length: Duration,
    ) -> io::Result<DiskRun> {
        let next = AtomicU64::new(0);
        let start = Instant::now();
        let write = || write_until(file, file_size, workload.block_size, &next, start + length);
        let histograms = std::thread::scope(|scope| {
            let others: Vec<_> = (1..workload.depth).map(|_| scope.spawn(write)).collect();
            let mut all = vec![write()];
            for other in others {
                all.push(
                    other
                        .join()
                        .unwrap_or_else(|_| Err(io::Error::other("writer died"))),
                );
            }
            all
        });
        let elapsed = start.elapsed();
        let mut latency = latency_histogram();
        for histogram in histograms {
            latency.add(histogram?).map_err(io::Error::other)?;
        }
        Ok(DiskRun { latency, elapsed })
    }
}

fn write_until(
    file: &File,
    file_size: u64,
    block_size: usize,
    next: &AtomicU64,
    end: Instant,
) -> io::Result<Histogram<u64>> {
    let mut latency = latency_histogram();
    // Not zeros: a disk may treat them specially.
    let buffer = AlignedBuffer::new(block_size, 0xa5);
    let blocks = file_size / block_size as u64;
    loop {
        let offset = next.fetch_add(1, Ordering::Relaxed) % blocks * block_size as u64;
        let start = Instant::now();
        let bytes = [IoSlice::new(buffer.bytes())];
        let len = rustix::io::pwritev2(file, &bytes, offset, ReadWriteFlags::DSYNC)?;
        if len != block_size {
            return Err(io::Error::other(format!(
                "short write, {len} of {block_size} bytes"
            )));
        }
        let now = Instant::now();
        latency.saturating_record((now - start).as_nanos() as u64);
        if now >= end {
            return Ok(latency);
        }
    }
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
    runs: Vec<(Workload, DiskRun)>,
    interrupts: Vec<(String, String, Vec<u64>)>,
}

/// The engine in use: the one place to change when the ring's loop is there.
fn disk_loop() -> impl DiskLoop {
    PwriteLoop
}

/// Measures every workload for `length` on the disk behind `dir`.
///
/// Errors: `Unable` with the remedy if the disk or its file system cannot do it.
pub(crate) fn measure(dir: &Path, length: Duration) -> Result<DeviceReport, BenchError> {
    let mut engine = disk_loop();
    let unable = |error: &io::Error| unable(dir, error);
    let disk = Disk::behind(dir).map_err(|error| unable(&error))?;
    let scratch = ScratchFile::create(dir).map_err(|error| unable(&error))?;
    let mut runs = Vec::new();
    for workload in WORKLOADS {
        let run = engine.run(&scratch.file, FILE_SIZE, workload, length);
        runs.push((workload, run.map_err(|error| unable(&error))?));
    }
    let interrupts = disk.interrupts_since(dir);
    Ok(DeviceReport {
        disk,
        engine: engine.engine(),
        runs,
        interrupts,
    })
}

/// Measures only the 4 KiB QD1 durable write and gives its p50 in microseconds.
///
/// Errors: as `measure`.
pub(crate) fn p50_us(dir: &Path, length: Duration) -> Result<f64, BenchError> {
    let scratch = ScratchFile::create(dir).map_err(|error| unable(dir, &error))?;
    let run = disk_loop().run(&scratch.file, FILE_SIZE, WORKLOADS[0], length);
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
        for (workload, run) in &self.runs {
            let [p50, _, p99, p999, max] = figures_us(&run.latency);
            let name = format!("{} KiB QD{}", workload.block_size >> 10, workload.depth);
            let (per_s, mb_s) = rates(workload, run);
            let _ = writeln!(
                text,
                "{name:14} {per_s:>9.0} {mb_s:>9.1} {p50:>9.1} {p99:>9.1} {p999:>9.1} {max:>9.1}"
            );
        }
        text
    }

    /// The same as one object.
    pub(crate) fn json(&self) -> Value {
        let runs = self.runs.iter().map(|(workload, run)| {
            let (per_s, mb_s) = rates(workload, run);
            json!({
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
            let run = PwriteLoop
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
