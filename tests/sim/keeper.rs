//! Housekeeping of one shard in steps: a power cut may come between any two of them. Names, heads
//! and order as in `src/housekeeping/prepare.rs` and `executor.rs`.

use std::collections::{BTreeMap, VecDeque};

use forebay_journal::SegmentId;
use forebay_journal::format::SegmentHead;
use forebay_journal::storage::memory::FileId;

use crate::store::Store;

#[derive(Clone, Debug)]
enum Request {
    Prepare(SegmentId),
    Free(Vec<SegmentId>),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Idle,
    Begin(SegmentHead, bool),
    Aside(SegmentHead, FileId),
    Headed(SegmentHead, FileId),
}

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Told {
    /// Nothing is asked for.
    Rest,
    /// Another step follows.
    More,
    /// The disk is full; say so if it is the first time.
    NoSpace(bool),
    /// A segment is ready.
    Ready(SegmentHead, FileId),
}

/// The keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    head: SegmentHead,
    held: BTreeMap<SegmentId, (FileId, u64)>,
    spare: Vec<(FileId, u64)>,
    spare_max: usize,
    requests: VecDeque<Request>,
    step: Step,
    /// Frees one segment too many: a planted fault.
    is_hasty: bool,
}

impl Keeper {
    pub(crate) fn new(
        head: SegmentHead,
        held: BTreeMap<SegmentId, (FileId, u64)>,
        spare: Vec<(FileId, u64)>,
        spare_max: usize,
        is_hasty: bool,
    ) -> Self {
        Self {
            head,
            held,
            spare,
            spare_max,
            requests: VecDeque::new(),
            step: Step::Idle,
            is_hasty,
        }
    }

    pub(crate) fn ask_prepare(&mut self, segment: SegmentId) {
        self.requests.push_back(Request::Prepare(segment));
    }

    pub(crate) fn ask_free(&mut self, segments: Vec<SegmentId>) {
        self.requests.push_back(Request::Free(segments));
    }

    /// Does one step.
    pub(crate) fn step(&mut self, store: &mut Store) -> Told {
        match self.step {
            Step::Idle => match self.requests.pop_front() {
                None => Told::Rest,
                Some(Request::Free(segments)) => {
                    self.free(segments, store);
                    Told::More
                }
                Some(Request::Prepare(segment)) => {
                    let generation = 0;
                    let head = SegmentHead {
                        segment,
                        generation,
                        ..self.head
                    };
                    self.step = Step::Begin(head, true);
                    Told::More
                }
            },
            Step::Begin(head, is_first) => self.begin(head, is_first, store),
            Step::Aside(head, file) => {
                let written = store.disk.put(file, 0, &head.encode());
                written.expect("a segment has a first sector");
                self.step = Step::Headed(head, file);
                Told::More
            }
            Step::Headed(head, file) => {
                let path = Store::path(head.epoch, head.shard, head.segment);
                store.disk.rename(file, &path).expect("made before");
                self.held.insert(head.segment, (file, head.generation));
                self.step = Step::Idle;
                Told::Ready(head, file)
            }
        }
    }

    fn begin(&mut self, mut head: SegmentHead, is_first: bool, store: &mut Store) -> Told {
        let path = Store::path(head.epoch, head.shard, head.segment);
        let aside = format!("{path}.new");
        let made = match self.spare.pop() {
            Some((file, generation)) => {
                head.generation = generation + 1;
                store.disk.rename(file, &aside).map(|()| file)
            }
            None => store.disk.create(&aside, head.size),
        };
        match made {
            Ok(file) => {
                self.step = Step::Aside(head, file);
                Told::More
            }
            Err(_) => {
                // While it waits for space it frees what it is told to.
                self.step = Step::Begin(head, false);
                let is_free = |request: &mut Request| matches!(request, Request::Free(_));
                if let Some(Request::Free(segments)) = self.requests.pop_front_if(is_free) {
                    self.free(segments, store);
                }
                Told::NoSpace(is_first)
            }
        }
    }

    fn free(&mut self, mut segments: Vec<SegmentId>, store: &mut Store) {
        if self.is_hasty {
            let left = self.held.keys().find(|one| !segments.contains(one));
            segments.extend(left.copied());
        }
        for segment in segments {
            let Some(spare) = self.held.remove(&segment) else {
                continue;
            };
            if self.spare.len() < self.spare_max {
                self.spare.push(spare);
            } else {
                store.disk.remove(spare.0).expect("it was held");
            }
        }
    }
}
