//! Makes a segment ready: zero-filled or recycled, headed, synced, under its final name.
//!
//! Crash at any step leaves either nothing under the final name or a segment that is ready (J06):
//! all work is done on `*.new`, which the next start removes.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use forebay_journal::format::SegmentHead;
use glommio::io::{DmaFile, OpenOptions, rename};
use glommio::timer::Timer;

use super::executor::HeldFile;
use super::pace::{Pace, may_fill};

/// Bytes written at a time.
const CHUNK_SIZE: usize = 256 * 1024;
/// Such writes at once while the shard waits.
const URGENT_WRITES: u64 = 4;
/// Pause between two looks at the pace.
const PAUSE: Duration = Duration::from_millis(2);

/// What was tried when the system refused.
#[derive(Debug)]
pub(super) struct PrepareError {
    action: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl PrepareError {
    /// Whether the device has no space, which passes.
    ///
    /// By kind, not by number: glommio's errors lose the number on their way.
    pub(super) fn is_no_space(&self) -> bool {
        matches!(
            self.error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}

impl std::fmt::Display for PrepareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot {} {}: {}",
            self.action,
            self.path.display(),
            self.error
        )
    }
}

fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> PrepareError {
    let path = path.to_owned();
    move |error| PrepareError {
        action,
        path,
        error: error.into(),
    }
}

/// Makes the segment described by `head` ready at `path`, from `spare` if there is one.
///
/// Returns the head as written (its generation is the file's) and the file, open for direct I/O.
/// Errors: the system's, or `Interrupted` when the pace says to give up; nothing lies under `path`
/// then. A spare that failed is left as it was or as `*.new`.
pub(super) async fn prepare(
    path: &Path,
    mut head: SegmentHead,
    spare: Option<HeldFile>,
    pace: &Pace,
    rate: u64,
) -> Result<(SegmentHead, OwnedFd), PrepareError> {
    let aside = path.with_extension("new");
    let file = match spare {
        Some(spare) => {
            head.generation = spare.generation + 1;
            rename(&spare.path, &aside)
                .await
                .map_err(at("rename", &spare.path))?;
            if let Some(former) = spare.path.parent() {
                sync_folder(former)?;
            }
            Rc::new(open(&aside).await?)
        }
        None => create(&aside, head.size, pace, rate).await?,
    };
    write_head(&file, &aside, &head).await?;
    file.close_rc().await.map_err(at("close", &aside))?;
    rename(&aside, path).await.map_err(at("rename", &aside))?;
    if let Some(folder) = path.parent() {
        sync_folder(folder)?;
    }
    Ok((head, open_direct(path).map_err(at("open", path))?))
}

/// Opens a segment file for `O_DIRECT` reading and writing by a ring.
pub(super) fn open_direct(path: &Path) -> io::Result<OwnedFd> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map(OwnedFd::from)
}

async fn open(path: &Path) -> Result<DmaFile, PrepareError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .dma_open(path)
        .await
        .map_err(at("open", path))
}

/// Makes a zero-filled file. The zeroes are really written: space that is only allocated costs
/// each later write a journal commit of the file system (measured: twice the latency).
async fn create(
    path: &Path,
    size: u64,
    pace: &Pace,
    rate: u64,
) -> Result<Rc<DmaFile>, PrepareError> {
    let file = DmaFile::create(path).await.map_err(at("create", path))?;
    let file = Rc::new(file);
    let filled = fill(&file, path, size, pace, rate).await;
    if filled.is_err() {
        // Give the space back: others need it, and the next try starts afresh.
        let _ = file.remove().await;
    }
    filled.map(|()| file)
}

async fn fill(
    file: &Rc<DmaFile>,
    path: &Path,
    size: u64,
    pace: &Pace,
    rate: u64,
) -> Result<(), PrepareError> {
    // Asking for the space first fails at once, before anything was written.
    file.pre_allocate(size, false)
        .await
        .map_err(at("allocate", path))?;
    let (started, ingested_before) = (Instant::now(), pace.ingested());
    let mut filled = 0;
    while filled < size {
        if pace.is_given_up() {
            return Err(at("fill", path)(io::Error::from(
                io::ErrorKind::Interrupted,
            )));
        }
        let ingested = pace.ingested() - ingested_before;
        let is_urgent = pace.is_waiting();
        if !is_urgent && !may_fill(filled, ingested, started.elapsed(), rate) {
            Timer::new(PAUSE).await;
            continue;
        }
        let at_once = if is_urgent { URGENT_WRITES } else { 1 };
        let upto = size.min(filled + at_once * CHUNK_SIZE as u64);
        let chunks = (filled..upto).step_by(CHUNK_SIZE);
        let begin = |from: u64| {
            let len = (upto - from).min(CHUNK_SIZE as u64);
            glommio::spawn_local(zero(Rc::clone(file), from, len))
        };
        let writes: Vec<_> = chunks.map(begin).collect();
        let mut all = Ok(());
        for write in writes {
            let one = write.await;
            all = all.and(one);
        }
        all.map_err(at("fill", path))?;
        filled = upto;
    }
    Ok(())
}

/// Writes zeroes over these bytes.
async fn zero(file: Rc<DmaFile>, from: u64, len: u64) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let mut zeroes = file.alloc_dma_buffer((len - done) as usize);
        zeroes.as_bytes_mut().fill(0);
        // A short write goes on at the sector that it did not finish.
        let written = file.write_at(zeroes, from + done).await? as u64 / 4096 * 4096;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        done += written;
    }
    Ok(())
}

async fn write_head(file: &DmaFile, path: &Path, head: &SegmentHead) -> Result<(), PrepareError> {
    let bytes = head.encode();
    let mut buffer = file.alloc_dma_buffer(bytes.len());
    buffer.as_bytes_mut().copy_from_slice(&bytes);
    let written = file
        .write_at(buffer, 0)
        .await
        .map_err(at("write the head of", path))?;
    if written != bytes.len() {
        return Err(at("write the head of", path)(io::Error::from(
            io::ErrorKind::WriteZero,
        )));
    }
    file.fdatasync().await.map_err(at("sync", path))
}

/// Makes the names in a folder durable. Blocks this executor for one small sync.
fn sync_folder(folder: &Path) -> Result<(), PrepareError> {
    std::fs::File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(at("sync", folder))
}
