//! The housekeeping thread: one glommio executor for all shards of a node.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use forebay_journal::format::SegmentHead;
use forebay_journal::{Epoch, SegmentId};
use glommio::{LocalExecutorBuilder, Placement};

use super::board::Board;
use super::folder::{Folder, disk_of};
use super::inbox::{Inbox, Request, Response};
use super::pace::Pace;
use super::prepare::{open_direct, prepare};
use super::scrub::Scrubber;
use crate::runtime::bell::Bell;

/// Bytes of I/O memory of the executor, in place of glommio's 10 MiB: it must fit a usual MEMLOCK.
const IO_MEMORY_SIZE: usize = 1 << 20;
/// How often a full disk is tried again.
const NO_SPACE_RETRY: Duration = Duration::from_millis(100);
/// Preemption: all tasks here give way by themselves.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// The longest the executor sleeps.
const PULSE: Duration = Duration::from_millis(10);
/// Requests and responses under way per shard; a shard asks for a handful at a time.
const PORT_CAPACITY: usize = 64;

/// Why housekeeping cannot start: the machine's fault.
#[derive(Debug)]
pub struct HousekeeperError(String);

impl fmt::Display for HousekeeperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the housekeeping executor cannot start: {}. Remedy: `ulimit -l` of at least 8192 KiB \
             (LimitMEMLOCK in a systemd unit)",
            self.0
        )
    }
}

impl std::error::Error for HousekeeperError {}

/// A shard's end of the conversation.
pub struct ShardPort {
    requests: Arc<Inbox<Request>>,
    responses: Arc<ArrayQueue<Response>>,
    /// Tells housekeeping how fast it has to be.
    pub pace: Arc<Pace>,
}

impl ShardPort {
    /// Asks; gives the request back when too many are under way.
    pub fn ask(&self, request: Request) -> Result<(), Request> {
        self.requests.push(request)
    }

    /// Whether so many requests are under way that what can wait should.
    pub fn is_busy(&self) -> bool {
        self.requests.len() >= PORT_CAPACITY / 2
    }

    /// Takes the next answer if there is one.
    pub fn poll(&self) -> Option<Response> {
        self.responses.pop()
    }
}

/// A segment file.
#[derive(Clone, Debug)]
pub struct HeldFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How many times it had been used before this time.
    pub generation: u64,
    /// Bytes in it: only a file of the configured size is used again.
    pub size: u64,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// Byte behind the last block that counts, if that is known.
    pub used_bytes: Option<u64>,
}

/// What housekeeping knows of one shard's files at start.
pub struct ShardFiles {
    /// Template of the heads to write: segment, generation are filled in.
    pub head: SegmentHead,
    /// Files in use, oldest first.
    pub held: BTreeMap<SegmentId, HeldFile>,
    /// Files free to be used again.
    pub spare: Vec<HeldFile>,
    /// How many spare files are kept; more are removed.
    pub spare_max: usize,
    /// Rate of zero-filling in bytes a second while the shard does not wait.
    pub rate: u64,
    /// Rate of reading sealed segments again in bytes a second; zero for never.
    pub scrub_rate: u64,
}

/// What a keeper is made of, on its way to its thread.
struct KeeperParts {
    folder: Folder,
    files: ShardFiles,
    requests: Arc<Inbox<Request>>,
    responses: Arc<ArrayQueue<Response>>,
    pace: Arc<Pace>,
    board: Arc<Board>,
    bell: Bell,
}

struct Keeper {
    folder: Folder,
    /// Shared with the scrubber, which looks and takes nothing.
    files: Rc<RefCell<ShardFiles>>,
    requests: Arc<Inbox<Request>>,
    responses: Arc<ArrayQueue<Response>>,
    pace: Arc<Pace>,
    board: Arc<Board>,
    bell: Bell,
    /// Segments asked for while another was waiting for space, in order.
    later: VecDeque<SegmentId>,
}

/// The running thread.
pub struct Housekeeper {
    stops: Vec<(Arc<Inbox<Request>>, Arc<Pace>)>,
    boards: Vec<Arc<Board>>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeper {
    /// Starts the thread for these shards; each is rung by its bell when an answer is there.
    ///
    /// Errors: see [`HousekeeperError`].
    pub fn start(
        folder: &Folder,
        shards: Vec<(ShardFiles, Bell)>,
    ) -> Result<(Self, Vec<ShardPort>), HousekeeperError> {
        let (mut keepers, mut ports) = (Vec::new(), Vec::new());
        for (files, bell) in shards {
            let requests = Arc::new(Inbox::new(PORT_CAPACITY));
            let responses = Arc::new(ArrayQueue::new(PORT_CAPACITY));
            let pace = Arc::new(Pace::default());
            ports.push(ShardPort {
                requests: Arc::clone(&requests),
                responses: Arc::clone(&responses),
                pace: Arc::clone(&pace),
            });
            keepers.push(KeeperParts {
                folder: folder.clone(),
                files,
                requests,
                responses,
                pace,
                board: Arc::default(),
                bell,
            });
        }
        let boards = keepers.iter().map(|parts| Arc::clone(&parts.board));
        let boards = boards.collect();
        let stops = keepers
            .iter()
            .map(|keeper| (Arc::clone(&keeper.requests), Arc::clone(&keeper.pace)))
            .collect();
        let thread = executor("forebay-keeper")
            .spawn(move || {
                with_pulse(async move {
                    let mut tasks = Vec::new();
                    for (keeper, scrubber) in keepers.into_iter().map(KeeperParts::unpack) {
                        tasks.push(glommio::spawn_local(keeper.run()));
                        tasks.push(glommio::spawn_local(scrubber.run()));
                    }
                    for task in tasks {
                        task.await;
                    }
                })
            })
            .map_err(|error| HousekeeperError(error.to_string()))?;
        let thread = std::thread::spawn(move || {
            // The executor's own handle has another error type; a panic there aborts the process.
            let _ = thread.join();
        });
        Ok((
            Self {
                stops,
                boards,
                thread: Some(thread),
            },
            ports,
        ))
    }

    /// What it says of each shard's files.
    pub fn boards(&self) -> Vec<Arc<Board>> {
        self.boards.clone()
    }

    /// Ends the thread; preparations under way are given up, which takes no longer than a write.
    pub fn stop(mut self) {
        for (requests, pace) in &self.stops {
            pace.give_up();
            let mut request = Request::Stop;
            while let Err(back) = requests.push(request) {
                request = back;
                std::thread::yield_now();
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An executor as housekeeping uses it: unpinned, small registered memory, no preemption.
///
/// glommio 0.9 goes to sleep with tasks that could run: when its preemption timer fires, or
/// anything else arrives, between `poll_io` and `run_task_queues` (its thread lost the core just
/// there), `run_task_queues` runs nothing and says `false`, which the caller takes for "nothing to
/// do" and parks. In the first turn only the timer can arrive; so it is far off. Later ones are
/// saved by [`with_pulse`].
pub(super) fn executor(name: &str) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Unbound)
        .name(name)
        .io_memory(IO_MEMORY_SIZE)
        .preempt_timer(NEVER)
}

/// Runs `work` on an executor that never sleeps for long: see [`executor`].
///
/// A timer of the executor would not help: its task is one of those that wait. So a thread outside
/// rings once a pulse, and a lost turn costs milliseconds.
pub(super) async fn with_pulse<T>(work: impl Future<Output = T>) -> T {
    let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let (stop, stopped) = channel::<()>();
    let pulse = std::thread::Builder::new()
        .name("forebay-pulse".to_owned())
        .spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PULSE) {
                waker.wake_by_ref();
            }
        });
    let result = work.await;
    drop(stop);
    // Joined while this task is alive, so that its waker is never used after it.
    match pulse.map(JoinHandle::join) {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => tracing::warn!("housekeeping ran without its pulse"),
    }
    result
}

impl KeeperParts {
    fn unpack(self) -> (Keeper, Scrubber) {
        let scrub_rate = self.files.scrub_rate;
        let files = Rc::new(RefCell::new(self.files));
        let (pace, board) = (Arc::clone(&self.pace), Arc::clone(&self.board));
        let scrubber = Scrubber::new(Rc::clone(&files), pace, board, scrub_rate);
        let keeper = Keeper {
            folder: self.folder,
            files,
            requests: self.requests,
            responses: self.responses,
            pace: self.pace,
            board: self.board,
            bell: self.bell,
            later: VecDeque::new(),
        };
        (keeper, scrubber)
    }
}

impl Keeper {
    async fn run(mut self) {
        self.tell_files();
        loop {
            let request = match self.later.pop_front() {
                Some(segment) => Request::Prepare(segment),
                None => self.requests.next().await,
            };
            match request {
                Request::Prepare(segment) => {
                    if !self.prepare(segment).await {
                        return;
                    }
                }
                Request::Free(segments) => self.free(segments.as_slice()),
                Request::Stop => return,
            }
        }
    }

    /// Prepares until it succeeds; false when told to stop meanwhile.
    async fn prepare(&mut self, segment: SegmentId) -> bool {
        let (head, rate) = {
            let files = self.files.borrow();
            let head = SegmentHead {
                segment,
                generation: 0,
                ..files.head
            };
            (head, files.rate)
        };
        let path = self.folder.segment(head.epoch, head.shard, segment);
        let mut has_said_no_space = false;
        loop {
            let spare = self.files.borrow_mut().spare.pop();
            match prepare(&path, head, spare, &self.pace, rate).await {
                Ok((head, file)) => {
                    let (generation, size) = (head.generation, head.size);
                    let held = HeldFile {
                        path,
                        generation,
                        size,
                        epoch: head.epoch,
                        used_bytes: None,
                    };
                    self.files.borrow_mut().held.insert(segment, held);
                    self.tell_files();
                    if has_said_no_space {
                        tracing::info!(shard = head.shard.0, "there is space for messages again");
                    }
                    self.answer(Response::Prepared { head, file });
                    return true;
                }
                Err(error) if error.is_no_space() && !self.pace.is_given_up() => {
                    if !has_said_no_space {
                        let disk = describe_disk(&path);
                        tracing::warn!(
                            shard = head.shard.0,
                            "{error}{disk}: messages wait for space, or are refused if \
                             limits.disk_full_policy says so"
                        );
                        self.answer(Response::NoSpace);
                        has_said_no_space = true;
                    }
                }
                Err(_) if self.pace.is_given_up() => return false,
                Err(error) => {
                    self.answer(Response::Failed {
                        reason: error.to_string(),
                    });
                    return true;
                }
            }
            glommio::timer::Timer::new(NO_SPACE_RETRY).await;
            match self.requests.try_next() {
                Some(Request::Stop) => return false,
                Some(Request::Free(segments)) => self.free(segments.as_slice()),
                Some(Request::Prepare(segment)) => self.later.push_back(segment),
                None => {}
            }
        }
    }

    fn free(&self, segments: &[SegmentId]) {
        let mut files = self.files.borrow_mut();
        let files = &mut *files;
        for segment in segments {
            let Some(held) = files.held.remove(segment) else {
                continue;
            };
            // One of another size was made under another configuration.
            let is_fitting = held.size == files.head.size;
            if is_fitting && files.spare.len() < files.spare_max {
                files.spare.push(held);
            } else if let Err(error) = std::fs::remove_file(&held.path) {
                tracing::warn!("cannot remove {}: {error}", held.path.display());
            }
        }
        self.tell_files_of(files);
    }

    fn tell_files(&self) {
        self.tell_files_of(&self.files.borrow());
    }

    fn tell_files_of(&self, files: &ShardFiles) {
        let sum = |sizes: &mut dyn Iterator<Item = u64>| {
            sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
        };
        let held = sum(&mut files.held.values().map(|held| held.size));
        let spare = sum(&mut files.spare.iter().map(|spare| spare.size));
        self.board.change(|seen| {
            (seen.held, seen.spare) = (held, spare);
            // What nobody needs is no damage any more.
            seen.damages
                .retain(|damage| files.held.contains_key(&damage.segment));
        });
    }

    fn answer(&self, response: Response) {
        // A shard asks for at most PORT_CAPACITY at a time, so its answers fit.
        assert!(
            self.responses.push(response).is_ok(),
            "more answers than requests"
        );
        self.bell.ring();
    }
}

/// How large the file system of a file is, and what of it is free, if that can be found out.
fn describe_disk(path: &std::path::Path) -> String {
    let folder = path.parent().unwrap_or(path);
    disk_of(folder).map_or_else(String::new, |(size, free)| {
        format!(" ({free} of {size} bytes of the file system are free)")
    })
}

/// Opens the file of a segment that recovery found, for reading by a ring.
///
/// Errors: the system's.
pub fn open_segment(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    open_direct(path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Starts executors while others want the cores: with a short preemption timer one in some
    /// fifty never ran anything.
    #[test]
    fn executors_that_lose_the_core_come_to_run() {
        let is_over = Arc::new(AtomicBool::new(false));
        let rivals: Vec<_> = (0..4)
            .map(|_| {
                let is_over = Arc::clone(&is_over);
                std::thread::spawn(move || while !is_over.load(Ordering::Relaxed) {})
            })
            .collect();
        for round in 0..200 {
            let task = || async {
                for _ in 0..3 {
                    glommio::timer::Timer::new(Duration::from_micros(50)).await;
                }
            };
            let thread = executor("forebay-test").spawn(move || with_pulse(task()));
            let thread = thread.expect("an executor");
            let (sender, ended) = channel();
            std::thread::spawn(move || sender.send(thread.join().is_ok()));
            let is_done = ended.recv_timeout(Duration::from_secs(20));
            assert_eq!(is_done, Ok(true), "executor {round} sleeps with work to do");
        }
        is_over.store(true, Ordering::Relaxed);
        rivals
            .into_iter()
            .for_each(|rival| rival.join().expect("only counts"));
    }
}
