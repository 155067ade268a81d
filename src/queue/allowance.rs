//! How much may be in flight to somebody, and how much is: of one consumer, or of one and the same
//! taker over many queues.

/// Messages and bytes in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Most messages unsettled at once.
    pub(super) credit: u32,
    /// Bytes at which nothing more comes; the greatest number for no such limit.
    credit_bytes: u64,
    /// Most unsettled ones, whatever the credit.
    most: u32,
    pub(super) unsettled: u32,
    pub(super) unsettled_bytes: u64,
    /// Of these, those settled in transactions that are still open: they use up no credit, or a
    /// transaction could not settle more than that.
    pub(super) staged: u32,
    pub(super) staged_bytes: u64,
}

impl Allowance {
    pub(super) fn new(credit: u32, credit_bytes: Option<u64>, most: u32) -> Self {
        Self {
            credit: credit.min(most),
            credit_bytes: credit_bytes.unwrap_or(u64::MAX),
            most,
            unsettled: 0,
            unsettled_bytes: 0,
            staged: 0,
            staged_bytes: 0,
        }
    }

    /// How many messages may come now.
    pub(super) fn messages(&self) -> u32 {
        if self.bytes() == 0 {
            return 0;
        }
        let messages = self.unsettled - self.staged;
        let credit = self.credit.saturating_sub(messages);
        credit.min(self.most - self.unsettled)
    }

    /// Bytes that may come before nothing more does.
    pub(super) const fn bytes(&self) -> u64 {
        let bytes = self.unsettled_bytes - self.staged_bytes;
        self.credit_bytes.saturating_sub(bytes)
    }

    /// How many messages may come now, whatever their size: with a limit in bytes the next one may
    /// be the last.
    pub(super) fn messages_at_least(&self) -> u32 {
        if self.credit_bytes == u64::MAX {
            self.messages()
        } else {
            self.messages().min(1)
        }
    }

    /// A message goes out.
    pub(super) fn take(&mut self, size_bytes: u32) {
        self.unsettled += 1;
        self.unsettled_bytes += u64::from(size_bytes);
    }

    /// A message is in flight no more.
    pub(super) fn forget(&mut self, size_bytes: u32) {
        self.unsettled -= 1;
        self.unsettled_bytes -= u64::from(size_bytes);
    }

    /// One in flight is settled in an open transaction.
    pub(super) fn stage(&mut self, size_bytes: u32) {
        self.staged += 1;
        self.staged_bytes += u64::from(size_bytes);
    }

    /// Undoes [`Self::stage`].
    pub(super) fn unstage(&mut self, size_bytes: u32) {
        self.staged -= 1;
        self.staged_bytes -= u64::from(size_bytes);
    }

    /// All that is in flight of a part is so no more.
    pub(super) fn leave(&mut self, part: &Self) {
        self.unsettled -= part.unsettled;
        self.unsettled_bytes -= part.unsettled_bytes;
        self.staged -= part.staged;
        self.staged_bytes -= part.staged_bytes;
    }
}
