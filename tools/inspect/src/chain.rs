//! Follows the chain of blocks of one shard, also while it grows and its files are reused.

use std::ops::ControlFlow;

use forebay_journal::format::{Block, BlockHeader, SEGMENT_HEAD_SIZE};
use forebay_journal::storage::buffer::ReadBuffer;
use forebay_journal::{Lsn, ShardId};

use crate::command::open_files;
use crate::file::OpenSegment;
use crate::folder::Place;
use crate::horizon::{Expected, Spot, next_block};
use crate::identity::Identity;
use crate::survey::{BELOW_START, Standing, Surveyed};
use crate::walk::Files;

/// What a follower comes by.
pub(crate) enum Step<'a> {
    Block {
        files: &'a Files<'a>,
        spot: Spot,
        block: Block<'a>,
    },
    /// It goes on elsewhere: what was there was freed, or cut where the first is above the last.
    Jump { lost_from: u64, lost_upto: u64 },
}

/// Where it goes on.
#[derive(Clone, Copy)]
enum Next {
    /// At a file's first block, whatever that is.
    At(usize),
    Behind(Expected),
    /// Nothing is written yet.
    Nowhere,
}

/// One shard's chain.
pub(crate) struct Follower {
    pub(crate) shard: ShardId,
    pub(crate) files: Vec<OpenSegment>,
    pub(crate) surveyed: Vec<Surveyed>,
    next: Next,
}

impl Follower {
    /// Begins at the newest segment.
    pub(crate) fn open(
        place: &Place,
        identity: &Identity,
        shard: ShardId,
        buffer: &mut ReadBuffer,
    ) -> anyhow::Result<Self> {
        let (files, surveyed) = open_files(place, identity, shard, buffer)?;
        let mut follower = Self {
            shard,
            files,
            surveyed,
            next: Next::Nowhere,
        };
        follower.rewind(follower.last_segment_lsn());
        Ok(follower)
    }

    /// Files that count and have a first block, with its first LSN; oldest first.
    fn begun(&self) -> impl DoubleEndedIterator<Item = (usize, Lsn)> + '_ {
        let surveyed = self.surveyed.iter().enumerate();
        surveyed.filter_map(|(file, one)| match (one.standing, one.first) {
            (Standing::Counts { .. }, Some(first)) => Some((file, first.first_lsn)),
            _ => None,
        })
    }

    /// First block of each segment that counts, oldest first.
    pub(crate) fn firsts(&self) -> Vec<BlockHeader> {
        let begun = self.begun();
        begun
            .filter_map(|(file, _)| self.surveyed[file].first)
            .collect()
    }

    /// The block of this number in a file before where a replay begins that is still there.
    pub(crate) fn older(&self, number: u64, buffer: &mut ReadBuffer) -> Option<BlockHeader> {
        let surveyed = self.surveyed.iter().enumerate().rev();
        let mut older = surveyed.filter_map(|(file, one)| {
            let is_older = one.standing == Standing::Leftover(BELOW_START);
            let first = one.first.filter(|_| is_older)?;
            (first.number.get() <= number).then_some((file, one.read_as?, first))
        });
        let (file, read_as, first) = older.next()?;
        let offset = SEGMENT_HEAD_SIZE as u64;
        let (mut spot, mut header) = (Spot { file, offset }, first);
        while header.number.get() < number {
            let expected = Expected::after(spot, &header);
            spot.offset = expected.behind.offset;
            let next = self.files[file].block(&read_as, spot.offset, buffer)?;
            header = next.header;
            expected.differs(&header).is_none().then_some(())?;
        }
        Some(header)
    }

    /// First LSN of the newest segment.
    pub(crate) fn last_segment_lsn(&self) -> u64 {
        self.begun().next_back().map_or(0, |(_, lsn)| lsn.get())
    }

    /// First LSN of the segment before the one that begins there.
    pub(crate) fn segment_lsn_before(&self, lsn: u64) -> Option<u64> {
        let mut earlier = self.begun().rev().map(|(_, first)| first.get());
        earlier.find(|first| *first < lsn)
    }

    /// Goes on at the start of the segment that holds this LSN.
    pub(crate) fn rewind(&mut self, lsn: u64) {
        let below = self.begun().rev().find(|(_, first)| first.get() <= lsn);
        let first = below.or_else(|| self.begun().next());
        self.next = first.map_or(Next::Nowhere, |(file, _)| Next::At(file));
    }

    /// Visits the blocks in the files that were there when it looked at the folder last: they end,
    /// however fast somebody writes.
    pub(crate) fn read(
        &mut self,
        buffer: &mut ReadBuffer,
        visit: &mut dyn FnMut(Step<'_>) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<ControlFlow<()>> {
        while let Some(spot) = self.find(buffer) {
            let block = self.surveyed[spot.file]
                .read_as
                .and_then(|read_as| self.files[spot.file].block(&read_as, spot.offset, buffer));
            let Some(block) = block else { break };
            self.next = Next::Behind(Expected::after(spot, &block.header));
            let (files, surveyed) = (&self.files, &self.surveyed);
            let files = &Files { files, surveyed };
            if visit(Step::Block { files, spot, block })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The same, and then of those that came meanwhile: looks at the folder once, so that the
    /// other shards have their turn.
    pub(crate) fn poll(
        &mut self,
        place: &Place,
        identity: &Identity,
        buffer: &mut ReadBuffer,
        visit: &mut dyn FnMut(Step<'_>) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<ControlFlow<()>> {
        let flow = self.read(buffer, visit)?;
        if flow.is_break() || !self.reopen(place, identity, buffer, visit)? {
            return Ok(flow);
        }
        self.read(buffer, visit)
    }

    fn find(&self, buffer: &mut ReadBuffer) -> Option<Spot> {
        match self.next {
            Next::At(file) => Some(Spot {
                file,
                offset: SEGMENT_HEAD_SIZE as u64,
            }),
            Next::Behind(expected) => {
                next_block(&self.files, &self.surveyed, &expected, buffer).map(|(spot, _)| spot)
            }
            Next::Nowhere => None,
        }
    }

    /// Looks at the folder again; whether there is something to read.
    fn reopen(
        &mut self,
        place: &Place,
        identity: &Identity,
        buffer: &mut ReadBuffer,
        visit: &mut dyn FnMut(Step<'_>) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<bool> {
        let listed = place.list(Some(self.shard.0))?.segments;
        let is_same = listed.iter().eq(self.files.iter().map(|file| &file.name));
        let is_waiting = matches!(self.next, Next::Behind(_));
        if is_same && is_waiting {
            return Ok(false);
        }
        let behind = match self.next {
            Next::Behind(expected) => {
                Some((expected, self.files[expected.behind.file].name.clone()))
            }
            Next::At(_) | Next::Nowhere => None,
        };
        (self.files, self.surveyed) = open_files(place, identity, self.shard, buffer)?;
        let Some((mut expected, name)) = behind else {
            self.rewind(0);
            return Ok(!is_same && !matches!(self.next, Next::Nowhere));
        };
        let found = self.files.iter().position(|file| file.name == name);
        if let Some(file) = found {
            expected.behind.file = file;
            self.next = Next::Behind(expected);
            if self.find(buffer).is_some() {
                return Ok(true);
            }
        }
        self.jump(&expected, found, visit)
    }

    /// Goes on at the first block that cannot be the next one's place any more.
    fn jump(
        &mut self,
        expected: &Expected,
        behind: Option<usize>,
        visit: &mut dyn FnMut(Step<'_>) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<bool> {
        let later = |file: usize| match behind {
            // A later epoch began elsewhere: what was behind is cut.
            Some(behind) => self.files[file].name.epoch > self.files[behind].name.epoch,
            None => self.surveyed[file]
                .first
                .is_some_and(|first| first.number >= expected.number),
        };
        let begun = self.begun().find(|(file, _)| later(*file));
        let Some((file, first)) = begun else {
            // Its file is gone and nothing behind it is there yet.
            if behind.is_none() {
                self.next = Next::Nowhere;
            }
            return Ok(false);
        };
        self.next = Next::At(file);
        let lost_from = expected.lsn.get();
        let lost_upto = first.get() - 1;
        let _ = visit(Step::Jump {
            lost_from,
            lost_upto,
        })?;
        Ok(true)
    }
}
