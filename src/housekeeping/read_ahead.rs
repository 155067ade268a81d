//! Reads of files that are begun before they are asked for.
//!
//! Recovery asks for one read after the other and says which ones probably follow. Those are under
//! way while it works on what came before: so a disk has several things to do at once, and a
//! processor need not wait for it. One that was foreseen wrongly costs its time and nothing else.

use std::collections::VecDeque;
use std::rc::Rc;

use forebay_journal::reader::{ReadError, ReadRequest};
use glommio::Task;
use glommio::io::{DmaFile, ReadResult};

use super::scan::read;
use crate::limits::RECOVERY_READS_MAX;

type Answer = Result<ReadResult, ReadError>;

/// Files, and the reads of them that are under way.
pub(super) struct ReadAhead {
    /// By the numbers that requests give them.
    files: Vec<Rc<DmaFile>>,
    /// In the order in which they will be asked for.
    under_way: VecDeque<(ReadRequest, Task<Answer>)>,
    read_bytes: u64,
}

impl ReadAhead {
    pub(super) fn new(files: Vec<DmaFile>) -> Self {
        Self {
            files: files.into_iter().map(Rc::new).collect(),
            under_way: VecDeque::new(),
            read_bytes: 0,
        }
    }

    /// Bytes that were asked of the disk.
    pub(super) const fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Reads. Meanwhile, and until the next call, these reads are under way as well, as many of
    /// them as may be.
    ///
    /// Panics: if a request names a file that is not there (our own mistake).
    pub(super) async fn read(
        &mut self,
        request: ReadRequest,
        upcoming: impl Iterator<Item = ReadRequest>,
    ) -> Answer {
        let first = match self.take(request).await {
            Some(task) => task,
            None => self.begin(request),
        };
        self.foresee(upcoming).await;
        first.await
    }

    /// The read of which this is the request, if it is under way; those before it are not wanted.
    async fn take(&mut self, request: ReadRequest) -> Option<Task<Answer>> {
        while let Some((begun, task)) = self.under_way.pop_front() {
            if begun == request {
                return Some(task);
            }
            drop(task.await);
        }
        None
    }

    async fn foresee(&mut self, upcoming: impl Iterator<Item = ReadRequest>) {
        let ahead_max = RECOVERY_READS_MAX as usize - 1;
        for (at, request) in upcoming.take(ahead_max).enumerate() {
            if self.under_way.get(at).is_some_and(|one| one.0 == request) {
                continue;
            }
            // From here on it comes otherwise than it was foreseen.
            for (_, task) in self.under_way.split_off(at) {
                drop(task.await);
            }
            let task = self.begin(request);
            self.under_way.push_back((request, task));
        }
    }

    fn begin(&mut self, request: ReadRequest) -> Task<Answer> {
        let ReadRequest { file, offset, len } = request;
        self.read_bytes += u64::from(len);
        let file = Rc::clone(&self.files[file as usize]);
        glommio::spawn_local(async move { read(&file, offset, len as usize).await })
    }

    /// Ends the reads that are under way and closes the files.
    pub(super) async fn close(self) {
        for (_, task) in self.under_way {
            drop(task.await);
        }
        for file in self.files {
            // Read-only; a failed close loses nothing.
            let _ = file.close_rc().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_journal::format::SECTOR_SIZE;
    use glommio::io::OpenOptions;

    use super::*;
    use crate::housekeeping::executor::{executor, with_pulse};

    const SECTORS: u64 = 64;

    fn sectors(from: u64, count: u64) -> ReadRequest {
        ReadRequest {
            file: 0,
            offset: from * SECTOR_SIZE as u64,
            len: (count * SECTOR_SIZE as u64) as u32,
        }
    }

    /// Whatever is foreseen, what is asked for comes: each sector holds its number.
    async fn read_all(mut reads: ReadAhead) {
        let mut asked = 0;
        for seed in 0..400_u64 {
            let scrambled = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let request = match seed % 3 {
                0 => sectors(scrambled % SECTORS, 1),
                1 => sectors(scrambled % (SECTORS - 2), 2),
                _ => sectors(seed % SECTORS, 1),
            };
            let next = (seed + 1) % SECTORS;
            let upcoming = (next..SECTORS).map(|from| sectors(from, 1));
            let bytes = reads.read(request, upcoming).await.expect("a sound file");
            assert!(reads.under_way.len() < RECOVERY_READS_MAX as usize);
            assert_eq!(bytes.len(), request.len as usize);
            let number = request.offset / SECTOR_SIZE as u64;
            assert!(
                bytes[..SECTOR_SIZE]
                    .iter()
                    .all(|&byte| u64::from(byte) == number)
            );
            asked += u64::from(request.len);
        }
        assert!(reads.read_bytes() > asked);
        // Behind the end there is nothing.
        let behind = sectors(SECTORS - 1, 2);
        let answer = reads.read(behind, core::iter::empty()).await;
        assert_eq!(answer.err(), Some(ReadError::Short));
        reads.close().await;
    }

    #[test]
    fn what_is_foreseen_changes_nothing_that_is_read() {
        // Beside the test program, which no file system in memory holds.
        let program = std::env::current_exe().expect("this program");
        let beside = program.parent().expect("it lies in a folder");
        let folder = tempfile::tempdir_in(beside).expect("a folder");
        let path = folder.path().join("file");
        let bytes = (0..SECTORS).flat_map(|number| [number as u8; SECTOR_SIZE]);
        std::fs::write(&path, bytes.collect::<Vec<_>>()).expect("a file");
        let thread = executor("forebay-test").spawn(move || {
            with_pulse(async move {
                let file = OpenOptions::new().read(true).dma_open(&path).await;
                read_all(ReadAhead::new(vec![file.expect("direct")])).await;
            })
        });
        thread.expect("an executor").join().expect("as said");
    }
}
