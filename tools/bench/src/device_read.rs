//! What the disk gives to who reads a store from front to back: `O_DIRECT` reads by the broker's
//! own ring, in the size in which the broker reads back. Nothing is written.

use crate::connection::BenchError;
use crate::disk::Disk;
use crate::measure::latency_histogram;
use crate::report::{figures_us, latency_json};
use forebay::runtime::reactor::{Completion, Ring, RingSize, Token};
use forebay_journal::storage::buffer::ReadBuffer;
use hdrhistogram::Histogram;
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of one read, as the broker reads back.
const READ_SIZE: usize = 1 << 20;
/// Reads in flight; the broker has four of its own.
const DEPTHS: [usize; 3] = [1, 4, 16];

/// Pieces of a store in order: file, offset in it.
#[derive(Debug)]
struct Pieces {
    files: Vec<File>,
    places: Vec<(usize, u64)>,
    /// The piece that is read next.
    next: usize,
}

impl Pieces {
    /// All whole pieces of the files below `dir`, by name.
    fn below(dir: &Path) -> io::Result<Self> {
        let mut paths = Vec::new();
        collect(dir, &mut paths)?;
        paths.sort();
        let (mut files, mut places) = (Vec::new(), Vec::new());
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        for path in paths {
            let size = fs::metadata(&path)?.len();
            let whole = size / READ_SIZE as u64;
            if whole == 0 {
                continue;
            }
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(&path)?;
            places.extend((0..whole).map(|piece| (files.len(), piece * READ_SIZE as u64)));
            files.push(file);
        }
        if places.is_empty() {
            return Err(io::Error::other("there is no file of 1 MiB or more in it"));
        }
        let next = 0;
        Ok(Self {
            files,
            places,
            next,
        })
    }

    /// The next one, round and round.
    fn take(&mut self) -> (i32, u64) {
        let (file, offset) = self.places[self.next % self.places.len()];
        self.next += 1;
        (self.files[file].as_raw_fd(), offset)
    }
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), paths)?;
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}

/// What reading came to, with so many reads in flight.
#[derive(Debug)]
struct ReadRun {
    depth: usize,
    /// Nanoseconds per read.
    latency: Histogram<u64>,
    elapsed: Duration,
}

impl ReadRun {
    /// Megabytes (10^6 bytes) per second.
    fn mb_per_s(&self) -> f64 {
        (self.latency.len() * READ_SIZE as u64) as f64 / 1e6 / self.elapsed.as_secs_f64()
    }
}

/// All that was measured.
#[derive(Debug)]
pub(crate) struct ReadReport {
    disk: Disk,
    size: u64,
    runs: Vec<ReadRun>,
}

/// Reads the files below `dir` for `length` at each depth, each going on where the last ended.
///
/// Errors: `Unable` if there are none, or the file system cannot do it.
pub(crate) fn measure(dir: &Path, length: Duration) -> Result<ReadReport, BenchError> {
    let unable = |error: io::Error| BenchError::Unable(format!("{}: {error}", dir.display()));
    let disk = Disk::behind(dir).map_err(unable)?;
    let mut pieces = Pieces::below(dir).map_err(unable)?;
    let runs = DEPTHS.map(|depth| read_on(&mut pieces, depth, length));
    let runs = runs.into_iter().collect::<io::Result<_>>();
    Ok(ReadReport {
        disk,
        size: (pieces.places.len() * READ_SIZE) as u64,
        runs: runs.map_err(unable)?,
    })
}

fn read_on(pieces: &mut Pieces, depth: usize, length: Duration) -> io::Result<ReadRun> {
    let mut ring = Ring::new(RingSize {
        submissions: 64,
        completions: 128,
        receive_buffers: 0,
        receive_buffer_size: 0,
    })
    .map_err(io::Error::other)?;
    let mut spare: Vec<_> = (0..depth).map(|_| ReadBuffer::new(READ_SIZE)).collect();
    let mut begun = vec![None; depth];
    let (mut latency, mut completions) = (latency_histogram(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < length || spare.len() < depth {
        while start.elapsed() < length
            && let Some(buffer) = spare.pop()
        {
            let slot = begun.iter().position(Option::is_none);
            let slot = slot.ok_or_else(|| io::Error::other("more reads than buffers"))?;
            begun[slot] = Some(Instant::now());
            let (file, offset) = pieces.take();
            ring.read(Token(slot as u64), file, offset, buffer);
        }
        if spare.len() == depth {
            break;
        }
        ring.submit_and_wait(None)?;
        ring.reap(&mut completions);
        for completion in completions.drain(..) {
            let Completion::Read {
                token,
                buffer,
                result,
            } = completion
            else {
                continue;
            };
            let len = result.map_err(io::Error::from_raw_os_error)?;
            if len != READ_SIZE {
                return Err(io::Error::other(format!("a read of {len} bytes")));
            }
            if let Some(at) = begun[token.0 as usize].take() {
                latency.saturating_record(at.elapsed().as_nanos() as u64);
            }
            spare.push(buffer);
        }
    }
    let elapsed = start.elapsed();
    Ok(ReadRun {
        depth,
        latency,
        elapsed,
    })
}

impl ReadReport {
    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = self.disk.table();
        let _ = writeln!(text, "store          {} MB", self.size / 1_000_000);
        let _ = writeln!(
            text,
            "{:14} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "1 MiB reads", "MB/s", "p50 us", "p99", "p99.9", "max"
        );
        for run in &self.runs {
            let [p50, _, p99, p999, max] = figures_us(&run.latency);
            let (name, rate) = (format!("QD{}", run.depth), run.mb_per_s());
            let _ = writeln!(
                text,
                "{name:14} {rate:>9.1} {p50:>9.1} {p99:>9.1} {p999:>9.1} {max:>9.1}"
            );
        }
        text
    }

    /// The same as one object; `mb_per_s` is the best of it.
    pub(crate) fn json(&self) -> Value {
        let best = self.runs.iter().map(ReadRun::mb_per_s).fold(0.0, f64::max);
        let runs = self.runs.iter().map(|run| {
            json!({
                "depth": run.depth,
                "mb_per_s": run.mb_per_s(),
                "latency_us": latency_json(&run.latency),
            })
        });
        json!({
            "disk": self.disk.json(),
            "size_bytes": self.size,
            "read_size": READ_SIZE,
            "mb_per_s": best,
            "runs": runs.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every whole piece of every file is read, in order, whatever the depth.
    #[test]
    fn a_store_is_read_round_and_round() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let sub = dir.path().join("epoch-1");
        fs::create_dir(&sub).expect("made");
        for (name, pieces) in [("b", 2), ("a", 3), ("small", 0)] {
            let bytes = vec![7; pieces * READ_SIZE + 4096];
            fs::write(sub.join(name), bytes).expect("written");
        }
        let mut pieces = Pieces::below(dir.path()).expect("files");
        assert_eq!(pieces.places.len(), 5);
        let offsets: Vec<u64> = (0..6).map(|_| pieces.take().1 >> 20).collect();
        assert_eq!(offsets, [0, 1, 2, 0, 1, 0]);
        let report = measure(dir.path(), Duration::from_millis(50)).expect("read");
        assert_eq!(report.size, 5 << 20);
        for run in &report.runs {
            assert!(run.latency.len() >= run.depth as u64, "{run:?}");
        }
        assert!(report.json()["mb_per_s"].as_f64().expect("a number") > 0.0);
        let empty = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        assert!(measure(empty.path(), Duration::from_millis(50)).is_err());
    }
}
