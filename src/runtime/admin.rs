//! Bounded queues between the admin side's thread and the shards: questions go there, answers
//! come back. A bell wakes the shard; the admin side, which waits for sockets, is woken by a byte
//! in one of its own.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use forebay_journal::ShardId;

use super::bell::Bell;
use crate::limits::ADMIN_QUESTIONS_MAX;
use crate::shard::{AdminAnswer, AdminQuestion};

#[derive(Debug)]
struct Line {
    questions: ArrayQueue<AdminQuestion>,
    answers: ArrayQueue<AdminAnswer>,
    shard_bell: Bell,
}

/// The admin side's end.
#[derive(Debug)]
pub struct AdminDesk {
    lines: Vec<Arc<Line>>,
    woken: UnixStream,
}

/// One shard's end.
#[derive(Debug)]
pub struct AdminPort {
    line: Arc<Line>,
    wake: Arc<UnixStream>,
}

/// Makes the lines to as many shards as there are bells.
///
/// Errors: out of descriptors.
pub fn lines(bells: &[Bell]) -> io::Result<(AdminDesk, Vec<AdminPort>)> {
    let room = ADMIN_QUESTIONS_MAX as usize;
    let line = |bell: &Bell| {
        Arc::new(Line {
            questions: ArrayQueue::new(room),
            answers: ArrayQueue::new(room),
            shard_bell: bell.clone(),
        })
    };
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let wake = Arc::new(wake);
    let lines: Vec<_> = bells.iter().map(line).collect();
    let port = |line: &Arc<Line>| AdminPort {
        line: Arc::clone(line),
        wake: Arc::clone(&wake),
    };
    let ports = lines.iter().map(port).collect();
    Ok((AdminDesk { lines, woken }, ports))
}

impl AdminDesk {
    /// Shards of the node.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.lines.len()).map(|index| ShardId(index as u16))
    }

    /// Asks a shard; gives the question back if there is no room.
    ///
    /// Shape: no more than `ADMIN_QUESTIONS_MAX` questions of a shard are open at once.
    pub fn ask(&self, shard: ShardId, question: AdminQuestion) -> Result<(), AdminQuestion> {
        let line = &self.lines[usize::from(shard.0)];
        line.questions.push(question)?;
        line.shard_bell.ring();
        Ok(())
    }

    /// Takes an answer of a shard.
    pub fn take(&self, shard: ShardId) -> Option<AdminAnswer> {
        self.lines[usize::from(shard.0)].answers.pop()
    }

    /// A socket that gets readable when there may be answers, non-blocking. What is in it means
    /// nothing: read it before looking for them.
    ///
    /// Errors: out of descriptors.
    pub fn woken(&self) -> io::Result<UnixStream> {
        self.woken.try_clone()
    }
}

impl AdminPort {
    /// Takes a question.
    pub(super) fn take(&self) -> Option<AdminQuestion> {
        self.line.questions.pop()
    }

    /// Gives an answer.
    ///
    /// Panics: if more are open than may be (our own mistake).
    pub(super) fn tell(&self, answer: AdminAnswer) {
        let told = self.line.answers.push(answer);
        assert!(told.is_ok(), "more questions were open than may be");
        // A socket that is full wakes already; one whose other end is gone wakes nobody.
        let _ = (&*self.wake).write(&[1]);
    }
}
