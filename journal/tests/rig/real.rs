//! The crate's own writer as a [`BlockSource`].

use forebay_journal::format::{Record, SegmentHead};
use forebay_journal::recovery::Seal;
use forebay_journal::storage::{WriteDone, WriteTicket};
use forebay_journal::{Budget, Epoch, Lsn, Retained, SegmentId, ShardId, Writer};

use super::{BlockSource, JOURNAL, Write};

pub type RealWriter = RealWriterOf<false>;
/// Likewise, with identifiers behind the blocks.
pub type StrictWriter = RealWriterOf<true>;

pub struct RealWriterOf<const IS_STRICT: bool> {
    writer: Writer,
    oldest_segment: SegmentId,
}

impl<const IS_STRICT: bool> BlockSource for RealWriterOf<IS_STRICT> {
    const IS_STRICT: bool = IS_STRICT;

    fn name_blocks(&mut self, shard: ShardId) {
        if IS_STRICT {
            self.writer.name_blocks(JOURNAL, shard);
        }
    }

    fn new(epoch: Epoch, seal: Seal, oldest_segment: SegmentId) -> Self {
        let retained = Retained {
            oldest_segment,
            ..Retained::default()
        };
        let writer = Writer::new(3 << 20, epoch, seal, retained);
        Self {
            writer,
            oldest_segment,
        }
    }

    fn add_segment(&mut self, head: SegmentHead) {
        self.writer.add_segment(head);
    }

    fn segments_ready(&self) -> usize {
        self.writer.segments_ready()
    }

    fn segment(&self) -> Option<SegmentId> {
        self.writer.segment_used().map(|(head, _)| head.segment)
    }

    fn durable_end(&self) -> Lsn {
        self.writer.durable_end()
    }

    fn next_lsn(&self) -> Lsn {
        self.writer.next_lsn()
    }

    fn is_drained(&self) -> bool {
        self.writer.is_drained()
    }

    fn oldest_segment(&self) -> SegmentId {
        self.oldest_segment
    }

    fn set_oldest_segment(&mut self, oldest_segment: SegmentId) {
        self.oldest_segment = oldest_segment;
        self.writer.set_retained(Retained {
            oldest_segment,
            ..Retained::default()
        });
    }

    fn append(&mut self, record: &Record<'_>) -> Option<Lsn> {
        let appended = self.writer.append(record, Budget::Control);
        appended.ok().map(|appended| appended.lsn)
    }

    fn seal_idle(&mut self) -> Option<Write> {
        if !self.is_drained() {
            return None;
        }
        self.writer.seal_idle();
        self.poll_write()
    }

    fn poll_write(&mut self) -> Option<Write> {
        let write = self.writer.poll_write(1_700_000_000_000)?;
        Some(Write {
            ticket: write.ticket.0,
            segment: write.segment,
            offset: write.offset,
            bytes: write.block.to_vec(),
        })
    }

    fn handle_write_done(&mut self, ticket: u64) {
        let done = WriteDone {
            ticket: WriteTicket(ticket),
            result: Ok(()),
        };
        let result = self.writer.handle_write_done(done, 0);
        result.expect("no write failed");
    }
}
