//! Walks all files of a shard, block after block, and says what lies between the blocks.
//!
//! Lenient: behind damage it goes on with the next sound block. A hole is read again before it is
//! reported, because under a running broker its block may have arrived a moment later; a file that
//! was recycled under the reader is left, and nothing of that is called damage.

use std::ops::ControlFlow;

use forebay_journal::format::{Block, BlockHeader, FormatError, SEGMENT_HEAD_SIZE};
use forebay_journal::reader::{Found, Mode, SegmentReader};
use forebay_journal::recovery::file_name::segment_file_name;
use forebay_journal::storage::buffer::ReadBuffer;

use crate::file::{OpenSegment, read_at, read_buffer};
use crate::horizon::{Expected, Spot, next_block};
use crate::meter;
use crate::survey::{BODIES, Head, Standing, Surveyed};

/// What lies between blocks.
#[derive(Clone, Debug)]
pub(crate) enum Between {
    /// Zeros.
    Unused,
    /// Blocks of a former use of the file, or of another place: how many, the first one's header,
    /// and the field that tells.
    Stale {
        blocks: u64,
        header: BlockHeader,
        differs: &'static str,
    },
    /// Neither.
    Damage {
        header: Option<BlockHeader>,
        /// `None`: the disk does not give it back.
        cause: Option<FormatError>,
    },
    /// The file was recycled while it was read; its rest is something else by now.
    Recycled,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) spot: Spot,
    pub(crate) size: u64,
    pub(crate) what: Between,
    /// Whether a block that counts follows somewhere behind it, and the chain does not reach that.
    pub(crate) is_inside: bool,
    /// Whether the file had another use before.
    pub(crate) is_recycled: bool,
}

/// What the walk comes by, in order of file and offset.
pub(crate) enum Event<'a> {
    Block {
        spot: Spot,
        block: Block<'a>,
        /// Whether it counts, or why not.
        counts: Result<(), &'static str>,
    },
    Between(&'a Stretch),
    /// Blocks are missing here, or what follows does not follow.
    Gap {
        expected: Expected,
        spot: Spot,
        found: BlockHeader,
        differs: &'static str,
    },
}

pub(crate) type Visit<'v> =
    dyn FnMut(&Files<'_>, Event<'_>) -> anyhow::Result<ControlFlow<()>> + 'v;

/// The files walked, for looking up what a spot is in.
pub(crate) struct Files<'f> {
    pub(crate) files: &'f [OpenSegment],
    pub(crate) surveyed: &'f [Surveyed],
}

struct Walk<'f, 'v> {
    files: Files<'f>,
    expected: Option<Expected>,
    /// The same within a file that is kept for bodies.
    expected_body: Option<Expected>,
    /// Kept until it is known whether a block follows.
    between: Vec<Stretch>,
    visit: &'v mut Visit<'v>,
    buffer: ReadBuffer,
}

/// Walks. `visit` may end it.
pub(crate) fn walk<'v>(
    files: &[OpenSegment],
    surveyed: &[Surveyed],
    visit: &'v mut Visit<'v>,
) -> anyhow::Result<()> {
    let mut walk = Walk {
        files: Files { files, surveyed },
        expected: None,
        expected_body: None,
        between: Vec::new(),
        visit,
        buffer: read_buffer(),
    };
    let mut buffer = read_buffer();
    meter::stage("reading", files.iter().map(|file| file.size).sum());
    for file in 0..files.len() {
        if walk.file(file, &mut buffer)?.is_break() || walk.leave(file)?.is_break() {
            return Ok(());
        }
    }
    walk.flush(false).map(|_| ())
}

impl Walk<'_, '_> {
    fn file(&mut self, file: usize, buffer: &mut ReadBuffer) -> anyhow::Result<ControlFlow<()>> {
        let open = &self.files.files[file];
        let Some(read_as) = self.files.surveyed[file].read_as else {
            return self.unnamed(file);
        };
        let mut reader = SegmentReader::new(file as u32, read_as, open.size, Mode::Lenient);
        loop {
            while let Some(found) = reader.next_found() {
                if self.found(file, found)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                let is_recycled = matches!(
                    self.between.last(),
                    Some(Stretch {
                        what: Between::Recycled,
                        ..
                    })
                );
                if is_recycled {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            let Some(request) = reader.poll_read() else {
                return Ok(ControlFlow::Continue(()));
            };
            let bytes = &mut buffer[..request.len as usize];
            let result = read_at(&self.files.files[file].file, request.offset, bytes);
            reader.handle_read(result.map(|()| &*bytes));
        }
    }

    /// What is behind the last block of a file that does not count is not inside of what does.
    fn leave(&mut self, file: usize) -> anyhow::Result<ControlFlow<()>> {
        self.expected_body = None;
        match self.files.surveyed[file].standing {
            Standing::Bodies { .. } | Standing::Leftover(_) => self.flush(false),
            Standing::Counts { .. } | Standing::Spare => Ok(ControlFlow::Continue(())),
        }
    }

    /// A file in which nothing can be told from the rest.
    fn unnamed(&mut self, file: usize) -> anyhow::Result<ControlFlow<()>> {
        let cause = match self.files.surveyed[file].head {
            Head::Unsound(cause) => Some(cause),
            Head::Foreign(_, name) => Some(FormatError::Foreign { name }),
            Head::Sound(_) | Head::Unreadable(_) => None,
        };
        self.put(Stretch {
            spot: Spot { file, offset: 0 },
            size: self.files.files[file].size,
            what: Between::Damage {
                header: None,
                cause,
            },
            is_inside: false,
            is_recycled: self.is_reused(file),
        });
        Ok(ControlFlow::Continue(()))
    }

    fn found(&mut self, file: usize, found: Found<'_>) -> anyhow::Result<ControlFlow<()>> {
        let (offset, size, what) = match found {
            Found::Block { offset, block, .. } => return self.block(Spot { file, offset }, block),
            Found::Unused { offset, size } => (offset, size, Between::Unused),
            Found::Stale {
                offset,
                size,
                header,
                differs,
            } => {
                let blocks = 1;
                let stale = Between::Stale {
                    blocks,
                    header,
                    differs,
                };
                (offset, size, stale)
            }
            Found::Damage {
                offset,
                size,
                header,
                cause,
            } => (offset, size, Between::Damage { header, cause }),
        };
        let spot = Spot { file, offset };
        let is_clean = matches!(what, Between::Unused);
        let what = if !is_clean && self.is_recycled(file) {
            Between::Recycled
        } else {
            what
        };
        self.put(Stretch {
            spot,
            size,
            what,
            is_inside: false,
            is_recycled: self.is_reused(file),
        });
        Ok(ControlFlow::Continue(()))
    }

    fn is_reused(&self, file: usize) -> bool {
        let head = self.files.surveyed[file].read_as;
        head.is_some_and(|head| head.generation > 0)
    }

    /// Whether the file became another one while it was read.
    fn is_recycled(&mut self, file: usize) -> bool {
        let is_same = matches!(&self.between.last(), Some(last) if last.spot.file == file
            && matches!(last.what, Between::Stale { .. }));
        // Behind the first stale block of a stretch there is nothing new to learn.
        !is_same && self.files.files[file].is_recycled(&mut self.buffer)
    }

    /// Adds a stretch, to the one before it if both are blocks of the same former use.
    fn put(&mut self, stretch: Stretch) {
        if let (
            Some(Stretch {
                spot,
                size,
                what:
                    Between::Stale {
                        blocks,
                        header,
                        differs,
                    },
                ..
            }),
            Between::Stale {
                header: other,
                differs: same,
                ..
            },
        ) = (self.between.last_mut(), &stretch.what)
        {
            let follows =
                spot.file == stretch.spot.file && spot.offset + *size == stretch.spot.offset;
            if follows && header.place == other.place && differs == same {
                *size += stretch.size;
                *blocks += 1;
                return;
            }
        }
        self.between.push(stretch);
    }

    fn flush(&mut self, is_inside: bool) -> anyhow::Result<ControlFlow<()>> {
        for mut stretch in std::mem::take(&mut self.between) {
            stretch.is_inside = is_inside;
            if (self.visit)(&self.files, Event::Between(&stretch))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn block(&mut self, spot: Spot, block: Block<'_>) -> anyhow::Result<ControlFlow<()>> {
        let header = block.header;
        let counts = match self.files.surveyed[spot.file].standing {
            Standing::Counts { upto } if header.number.get() <= upto => Ok(()),
            Standing::Bodies { upto } if header.number.get() <= upto => Err(BODIES),
            Standing::Counts { .. } | Standing::Bodies { .. } => {
                Err("behind the seal of its epoch")
            }
            Standing::Spare => Err("no block before it leads here"),
            Standing::Leftover(why) => Err(why),
        };
        // Where the chain goes on nothing is missing: what lies between is the end of a full file.
        let mut is_broken = counts.is_ok() && self.expected.is_none();
        if counts.is_ok() {
            if self.catch_up(&header)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if let Some(gap) = self.gap(spot, header) {
                is_broken = true;
                if (self.visit)(&self.files, gap)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            self.expected = Some(Expected::after(spot, &header));
        }
        if counts == Err(BODIES) {
            is_broken = !self.follows_in_file(spot, &header);
            if let Some(gap) = self.body_gap(spot, header)
                && (self.visit)(&self.files, gap)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            self.expected_body = Some(Expected::after(spot, &header));
        }
        let flow = self.flush(is_broken)?;
        if flow.is_break() {
            return Ok(flow);
        }
        (self.visit)(
            &self.files,
            Event::Block {
                spot,
                block,
                counts,
            },
        )
    }

    /// Whether a block of a file that is kept for bodies is the first or the next one.
    fn follows_in_file(&self, spot: Spot, header: &BlockHeader) -> bool {
        match &self.expected_body {
            Some(expected) => expected.differs(header).is_none(),
            None => spot.offset == SEGMENT_HEAD_SIZE as u64,
        }
    }

    /// What is missing before a block of such a file, if something is.
    fn body_gap(&mut self, spot: Spot, found: BlockHeader) -> Option<Event<'static>> {
        let expected = self.expected_body?;
        let differs = expected.differs(&found)?;
        if self.files.files[spot.file].is_recycled(&mut self.buffer) {
            return None;
        }
        Some(Event::Gap {
            expected,
            spot,
            found,
            differs,
        })
    }

    /// What is missing before a block, if something is.
    fn gap(&mut self, spot: Spot, found: BlockHeader) -> Option<Event<'static>> {
        let expected = self.expected?;
        let differs = expected.differs(&found)?;
        if self.is_overtaken(&expected, spot) {
            return None;
        }
        Some(Event::Gap {
            expected,
            spot,
            found,
            differs,
        })
    }

    /// Whether blocks are missing only because files were recycled or made during the walk.
    fn is_overtaken(&mut self, expected: &Expected, spot: Spot) -> bool {
        let files = self.files.files;
        let between = &files[expected.behind.file.min(spot.file)..=spot.file];
        if between
            .iter()
            .any(|file| file.is_recycled(&mut self.buffer))
        {
            return true;
        }
        let (from, upto) = (&files[expected.behind.file].name, &files[spot.file].name);
        let next = from.segment.next();
        let is_listed = between.iter().any(|file| file.name.segment == next);
        let path = from
            .path
            .with_file_name(segment_file_name(from.shard, next));
        from.epoch == upto.epoch && next < upto.segment && !is_listed && path.exists()
    }

    /// Visits the blocks before `found` that had not arrived when their places were read.
    fn catch_up(&mut self, found: &BlockHeader) -> anyhow::Result<ControlFlow<()>> {
        while let Some(expected) = self.expected {
            if expected.number >= found.number {
                break;
            }
            let Files { files, surveyed } = self.files;
            let Some((spot, _)) = next_block(files, surveyed, &expected, &mut self.buffer) else {
                break;
            };
            // What lay there is no more.
            self.between.retain(|stretch| {
                stretch.spot.file != spot.file || stretch.spot.offset + stretch.size <= spot.offset
            });
            let block = surveyed[spot.file].read_as.and_then(|read_as| {
                files[spot.file].block(&read_as, spot.offset, &mut self.buffer)
            });
            let Some(block) = block else {
                break;
            };
            self.expected = Some(Expected::after(spot, &block.header));
            let counts = Ok(());
            let event = Event::Block {
                spot,
                block,
                counts,
            };
            if (self.visit)(&self.files, event)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
